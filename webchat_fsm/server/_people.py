"""Agents, supervisors and bots: moved by a test, or by a script that reacts to the client after given delays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal, Protocol, TypeAlias

import msgspec

from webchat_fsm.server._chat import Attributes, Chat, Kind, ServerEvent, ServerParty, StoredFile
from webchat_fsm.server._state import ServerState


class PeopleHost(Protocol):
    """The part of the server that people use: its time, its latest chat, its lock."""

    def moment(self) -> float:
        """Return the time of the server in seconds since the epoch."""
        ...

    def current_chat(self) -> Chat:
        """Return the chat that was started last."""
        ...

    def changed(self) -> None:
        """Notify the watchers and the held polls of a change."""
        ...

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which the server acts."""
        ...


class Person:
    """An agent, a supervisor or a bot.

    An action without a chat is done in the chat joined last; it returns the event or the file that it added. Raises
    `RuntimeError` where the person is not in the chat.
    """

    def __init__(self, host: PeopleHost, nickname: str, kind: Kind, bot: bool = False) -> None:
        self.nickname: str = nickname
        self.kind: Kind = kind
        self.bot = bot
        self._host = host
        self._chat: Chat | None = None
        self._parties: dict[str, ServerParty] = {}

    def __repr__(self) -> str:
        return f"<{'Bot' if self.bot else self.kind} {self.nickname}>"

    def join(self, chat: Chat | None = None) -> Person:
        """Enter a chat, by default the one started last; a person who left comes back as the same participant."""
        with self._host.lock():
            target = chat or self._host.current_chat()
            known = self._parties.get(target.chat_id)
            # Before the check: the time up to now may end the chat.
            now = self._host.moment()
            if target.ended:
                raise RuntimeError(f"{self.nickname} cannot join {target!r}: the chat has ended")
            self._chat = target
            if known is None:
                self._parties[target.chat_id] = target.admit(self.nickname, self.kind, now, bot=self.bot)
            elif not known.connected:
                # The same participant returns, under the id that clients know.
                target.readmit(known, now)
            self._host.changed()
        return self

    def leave(self, chat: Chat | None = None) -> None:
        """Leave the chat, with a ParticipantLeft; the chat stays open."""
        with self._host.lock():
            target, party = self._present_party(chat)
            target.dismiss(party, self._host.moment())
            self._host.changed()

    def say(self, text: str, chat: Chat | None = None, *, attributes: Attributes | None = None) -> ServerEvent:
        """Send a message, with event attributes if they are given."""
        return self._add_event("Message", chat, text=text, message_type="text", attributes=attributes)

    def typing(self, chat: Chat | None = None, *, preview: str | None = None) -> ServerEvent:
        """Start typing, with a TypingStarted; `preview` is the text so far."""
        return self._add_event("TypingStarted", chat, text=preview)

    def stop_typing(self, chat: Chat | None = None) -> ServerEvent:
        """Stop typing, with a TypingStopped."""
        return self._add_event("TypingStopped", chat)

    def push_url(self, url: str, chat: Chat | None = None) -> ServerEvent:
        """Send the URL of a page for the client to open, with a PushUrl."""
        return self._add_event("PushUrl", chat, text=url)

    def notice(
        self,
        text: str,
        chat: Chat | None = None,
        *,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
        custom: bool = True,
    ) -> ServerEvent:
        """Send a CustomNotice, or a plain Notice."""
        kind = "CustomNotice" if custom else "Notice"
        return self._add_event(kind, chat, text=text, user_data=user_data, attributes=attributes)

    def rename(self, nickname: str, chat: Chat | None = None) -> ServerEvent:
        """Change the nickname, with a NicknameUpdated; it holds for chats joined later too."""
        with self._host.lock():
            target, party = self._present_party(chat)
            self.nickname = nickname
            event = target.rename(party, nickname, self._host.moment())
            self._host.changed()
        return event

    def send_file(
        self,
        name: str,
        content: bytes,
        chat: Chat | None = None,
        *,
        content_type: str = "application/octet-stream",
        description: str | None = None,
    ) -> StoredFile:
        """Attach a file; the limits of `ServerOptions` hold for the client only."""
        with self._host.lock():
            target, party = self._present_party(chat)
            about = {"file-description": description} if description else None
            file = target.attach(
                party.sender, name, content, self._host.moment(), content_type=content_type, user_data=about
            )
            self._host.changed()
        return file

    def is_in(self, chat: Chat) -> bool:
        """Return whether this person is in a chat now."""
        party = self._parties.get(chat.chat_id)
        return party is not None and party.connected

    def _add_event(
        self,
        event_type: str,
        chat: Chat | None,
        *,
        text: str | None = None,
        message_type: str | None = None,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
    ) -> ServerEvent:
        with self._host.lock():
            target, party = self._present_party(chat)
            event = target.add(
                event_type,
                party.sender,
                self._host.moment(),
                text=text,
                message_type=message_type,
                user_data=user_data,
                attributes=attributes,
            )
            self._host.changed()
        return event

    def _present_party(self, chat: Chat | None) -> tuple[Chat, ServerParty]:
        target = chat or self._chat
        party = self._parties.get(target.chat_id) if target else None
        # Checked for each action: the chat may have ended since the person joined.
        if target is None or party is None or not party.connected:
            raise RuntimeError(
                f"{self.nickname} is not in {'a chat' if target is None else repr(target)}: call join first"
            )
        return target, party


Role: TypeAlias = Literal["agent", "supervisor", "bot"]
Trigger: TypeAlias = Literal["start", "message", "file", "leave"]
Action: TypeAlias = Literal["join", "typing", "stop_typing", "say", "push_url", "send_file", "leave", "end"]

_TRIGGERS: dict[str, Trigger] = {"Message": "message", "FileUploaded": "file", "ParticipantLeft": "leave"}


class Step(msgspec.Struct, frozen=True):
    """One action of one person, `after` seconds after a trigger, which is always an action of the client."""

    after: float
    person: str
    action: Action
    text: str = ""
    """The message, the URL or the file name; `{text}` and `{nickname}` are replaced by the client's."""
    on: Trigger = "start"
    containing: str = ""
    """Only after a message that contains this text, in upper or lower case."""


class Script(msgspec.Struct, frozen=True):
    """The roles of the people by name, and their steps; steps that are due at the same time keep their order."""

    cast: dict[str, Role]
    steps: tuple[Step, ...]


HELPFUL_AGENT = Script(
    cast={"Ann": "agent"},
    steps=(
        Step(1.0, "Ann", "join"),
        Step(1.6, "Ann", "typing"),
        Step(2.4, "Ann", "stop_typing"),
        Step(2.4, "Ann", "say", "Hello {nickname}, this is Ann. How can I help you?"),
        Step(0.5, "Ann", "typing", on="message"),
        Step(1.5, "Ann", "stop_typing", on="message"),
        Step(1.5, "Ann", "say", "You wrote: {text} - thank you, I am looking into it.", on="message"),
        Step(0.8, "Ann", "say", "Thank you, the file has arrived.", on="file"),
        Step(2.0, "Ann", "push_url", "https://www.example.com/help", on="message", containing="link"),
    ),
)
"""An agent who greets, types, and answers every message."""

BUSY_FLOOR = Script(
    cast={"Robo": "bot", "Ann": "agent", "Sue": "supervisor"},
    steps=(
        Step(0.5, "Robo", "join"),
        Step(0.8, "Robo", "say", "Hello {nickname}, I am a robot. I am fetching somebody for you."),
        Step(1.6, "Robo", "leave"),
        *HELPFUL_AGENT.steps,
        Step(3.0, "Sue", "join"),
        Step(2.5, "Sue", "say", "Ann is right, {nickname}.", on="message", containing="supervisor"),
    ),
)
"""A bot that hands over to an agent, and a supervisor who listens in."""


class ScriptRunner:
    """Runs a script: schedules the matching steps after each event of the client.

    Raises `ValueError` for a step of a person that `cast` lacks.
    """

    def __init__(self, script: Script, state: ServerState, new_person: Callable[[str, Role], Person]) -> None:
        # Checked here: a misspelt name would otherwise fail in the middle of a chat.
        unknown = {step.person for step in script.steps} - set(script.cast)
        if unknown:
            raise ValueError(f"not in the cast: {', '.join(sorted(unknown))}; give each a role in `cast`")
        self._script = script
        self._state = state
        self._people = {name: new_person(name, role) for name, role in script.cast.items()}
        state.listeners.append(self._on_event)

    def _on_event(self, chat: Chat, event: ServerEvent) -> None:
        # Steps answer the client alone; people who react to each other might never stop.
        if event.sender.kind != "Client":
            return
        # Only the first event is a start; a client that comes back joins once more, with a later index.
        trigger: Trigger | None = "start" if event.index == 1 else _TRIGGERS.get(event.type)
        client_text = event.text or ""
        for step in self._script.steps:
            if step.on == trigger and step.containing.lower() in client_text.lower():
                # In this order, as the client's own text may contain `{nickname}`.
                line = step.text.replace("{nickname}", event.sender.nickname).replace("{text}", client_text)
                self._state.schedule.add(self._state.now + step.after, partial(self._perform, chat, step, line))

    def _perform(self, chat: Chat, step: Step, line: str, now: float) -> None:
        person = self._people[step.person]
        # Ended or left since the step was scheduled; only joining and ending need no presence.
        if chat.ended or not (step.action in ("join", "end") or person.is_in(chat)):
            return
        if step.action == "end":
            chat.end(now)
        elif step.action in _ACTIONS_WITH_TEXT:
            _ACTIONS_WITH_TEXT[step.action](person, line, chat)
        else:
            _ACTIONS[step.action](person, chat)


def _send_sample(person: Person, name: str, chat: Chat) -> None:
    person.send_file(name, f"This is {name}.\n".encode(), chat, content_type="text/plain")


_ACTIONS: dict[Action, Callable[[Person, Chat], object]] = {
    "join": Person.join,
    "typing": Person.typing,
    "stop_typing": Person.stop_typing,
    "leave": Person.leave,
}
_ACTIONS_WITH_TEXT: dict[Action, Callable[[Person, str, Chat], object]] = {
    "say": Person.say,
    "push_url": Person.push_url,
    "send_file": _send_sample,
}
