"""People who act by themselves: a declared cast and what each does, so many seconds after what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Chat, Event
from webchat_fsm.server.people import Person

Role: TypeAlias = Literal["agent", "supervisor", "bot"]
Cue: TypeAlias = Literal["start", "message", "file", "leave"]
Action: TypeAlias = Literal["join", "typing", "stop_typing", "say", "push_url", "send_file", "leave", "end"]

_CUES: dict[str, Cue] = {"Message": "message", "FileUploaded": "file", "ParticipantLeft": "leave"}


class Step(msgspec.Struct, frozen=True):
    """One thing that one person does, `after` seconds past its cue, which is always something that the client did."""

    after: float
    person: str
    action: Action
    text: str = ""
    """What is said, the URL, or the name of the file; `{text}` and `{nickname}` are the client's."""
    on: Cue = "start"
    containing: str = ""
    """Only after a message with this in it, whatever the case."""


class Script(msgspec.Struct, frozen=True):
    """A cast, by name, and its steps."""

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


class Players:
    """The script at work: every client event may be a cue, every step lands on the centre's agenda."""

    def __init__(self, script: Script, centre: Centre, hire: Callable[[str, Role], Person]) -> None:
        strangers = {step.person for step in script.steps} - set(script.cast)
        if strangers:
            raise ValueError(f"not in the cast: {', '.join(sorted(strangers))}")
        self._script = script
        self._centre = centre
        self._people = {name: hire(name, role) for name, role in script.cast.items()}
        centre.listeners.append(self._hear)

    def _hear(self, chat: Chat, event: Event) -> None:
        if event.sender.kind != "Client":
            return
        cue: Cue | None = "start" if event.index == 1 else _CUES.get(event.type)
        said = event.text or ""
        for step in self._script.steps:
            if step.on == cue and step.containing.lower() in said.lower():
                line = step.text.replace("{nickname}", event.sender.nickname).replace("{text}", said)
                self._centre.agenda.note(self._centre.now + step.after, partial(self._play, chat, step, line))

    def _play(self, chat: Chat, step: Step, line: str, now: float) -> None:
        person = self._people[step.person]
        if chat.ended or not (step.action in ("join", "end") or person.is_in(chat)):
            return
        if step.action == "end":
            chat.end(now)
        elif step.action in _SPEAKING:
            _SPEAKING[step.action](person, line, chat)
        else:
            _SILENT[step.action](person, chat)


def _send_sample(person: Person, name: str, chat: Chat) -> None:
    person.send_file(name, f"This is {name}.\n".encode(), chat, content_type="text/plain")


_SILENT: dict[Action, Callable[[Person, Chat], object]] = {
    "join": Person.join,
    "typing": Person.typing,
    "stop_typing": Person.stop_typing,
    "leave": Person.leave,
}
_SPEAKING: dict[Action, Callable[[Person, str, Chat], object]] = {
    "say": Person.say,
    "push_url": Person.push_url,
    "send_file": _send_sample,
}
