"""One chat at a terminal: what is typed goes out, what is published is told, and either side may end it."""

from __future__ import annotations

import threading
from argparse import Namespace
from collections import Counter
from typing import Protocol

from webchat_fsm.cli.ending import DONE, FAILED, complain
from webchat_fsm.cli.reading import Lines
from webchat_fsm.cli.screen import Screen
from webchat_fsm.cli.slash import LEAVE, QUIT, carry_out
from webchat_fsm.cli.telling import Line, as_json, event_record, printable, rejection, told
from webchat_fsm.errors import CommandRejected, WebChatError
from webchat_fsm.lifecycle.events import EVENTS, AgentTyping, MessageReceived
from webchat_fsm.lifecycle.words import Message
from webchat_fsm.runtime.delivery import AnyEvent
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.runtime.store import SessionStore


class Teller(Protocol):
    """How somebody is told."""

    def event(self, event: AnyEvent) -> None:
        """What was published."""
        ...

    def foretold(self, event: AnyEvent) -> None:
        """What was published, and will be told once more as the reason for which the program ends."""
        ...

    def notice(self, text: str) -> None:
        """What this program has to say."""
        ...

    def trouble(self, text: str) -> None:
        """What went wrong."""
        ...

    def typed(self, text: str) -> None:
        """What was sent, which may or may not stand on the screen already."""
        ...

    def unsent(self, text: str) -> None:
        """What was typed and not sent."""
        ...


class JsonTeller:
    """Every event as a line of JSON; everything else on standard error."""

    def __init__(self, screen: Screen, chat: WebChatService) -> None:
        self._screen, self._transport = screen, chat.config.way

    def event(self, event: AnyEvent) -> None:
        """A line."""
        self._screen.put(text=as_json(event_record(event, self._transport)))

    def foretold(self, event: AnyEvent) -> None:
        """A line all the same: events are for machines."""
        self.event(event)

    def notice(self, text: str) -> None:
        """Nothing: the events say it."""

    def trouble(self, text: str) -> None:
        """A line on standard error."""
        complain(text)

    def typed(self, text: str) -> None:
        """Nothing: it comes back as an event."""

    def unsent(self, text: str) -> None:
        """Nothing."""


class TextTeller:
    """Lines for people. With `echoes` what is typed stays on the screen, and is not told again when it comes back."""

    def __init__(self, screen: Screen, *, echoes: bool) -> None:
        self._screen, self._echoes = screen, echoes
        self._expected: Counter[str] = Counter()

    def event(self, event: AnyEvent) -> None:
        """Its lines, less what was typed here."""
        lines = list(told(event))
        if isinstance(event.data, MessageReceived) and not event.data.restoring:
            seen = {id(line) for line in self._typed_here(event.data.messages, lines)}
            lines = [line for line in lines if id(line) not in seen]
        for line in lines:
            self._line(line)

    def _typed_here(self, messages: tuple[Message, ...], lines: list[Line]) -> list[Line]:
        found = []
        texts = [message.text for message in messages if message.type == "Message" and message.sender.type == "Client"]
        for line, text in zip([line for line in lines if line.kind == "customer"], texts, strict=True):
            if self._expected[text] > 0:
                self._expected[text] -= 1
                found.append(line)
        return found

    def _line(self, line: Line) -> None:
        if line.who:
            self._screen.put((line.kind, f"{line.who}: "), text=line.text)
        else:
            self._screen.put((line.kind, "* "), text=line.text, style=line.kind)

    def foretold(self, event: AnyEvent) -> None:
        """Nothing, for now."""

    def notice(self, text: str) -> None:
        """A line."""
        self._line(Line("notice", text))

    def trouble(self, text: str) -> None:
        """A line."""
        self._line(Line("trouble", text))

    def typed(self, text: str) -> None:
        """Expect it back."""
        if self._echoes:
            self._expected[text] += 1

    def unsent(self, text: str) -> None:
        """Expect it no longer: should it come back all the same, that is news."""
        self._expected.pop(text, None)


class Conversation:
    """Runs one chat from its start to its end."""

    def __init__(self, chat: WebChatService, teller: Teller, options: Namespace, store: SessionStore | None) -> None:
        self.over = threading.Event()
        self._chat, self._teller, self._options, self._store = chat, teller, options, store
        self._lines: Lines | None = None
        self._typing = ""
        self._restore_failed = self._lost = self._leaving = self._starting = False
        for name in EVENTS:
            chat.subscribe(name, self._hear)

    def status(self) -> str:
        """What stands below the prompt."""
        typing = f"{self._typing} is typing" if self._typing else "/help lists commands, Ctrl-C ends the chat"
        return f"{self._chat.state} | {typing}"

    def stop(self) -> None:
        """Let the conversation end, from any thread."""
        self.over.set()
        if self._lines is not None:
            self._lines.stop()

    def begin(self) -> None:
        """Start a chat, unless opening has taken up a saved one."""
        if self._chat.state.has_session:
            return
        if self._restore_failed and self._store is not None and self._store.load() is not None:
            file = self._options.store
            raise WebChatError(f"{file}: its chat could not be taken up; try later, or remove the file to begin anew")
        asked = self._options
        self._starting = True
        self._chat.start_chat(
            nickname=asked.nickname,
            firstname=asked.firstname,
            lastname=asked.lastname,
            email=asked.email,
            subject=asked.subject,
            user_data=dict(asked.user_data),
        )
        self._starting = False
        self._teller.notice("The chat has started; waiting for an agent.")

    def talk(self, lines: Lines) -> int:
        """Send what is typed until either side has enough, then end the chat; the exit code."""
        self._lines = lines
        self._chat.register_typing_preview_input(lines)
        try:
            self._send_lines(lines)
        except KeyboardInterrupt:
            self._teller.notice("Ending the chat; Ctrl-C again leaves at once.")
        return self._finish()

    def _send_lines(self, lines: Lines) -> None:
        while not self.over.is_set() and (line := lines.read()) is not None:
            if line.strip() in (QUIT, LEAVE):
                if line.strip() == QUIT or self._may_leave():
                    return
            elif line.strip():
                self._act(line)
        self.over.wait(self._options.linger)

    def _may_leave(self) -> bool:
        self._leaving = self._store is not None
        if not self._leaving:
            self._teller.trouble("Without --store nobody could come back to this chat; /quit ends it.")
        return self._leaving

    def _act(self, line: str) -> None:
        try:
            if line.startswith("/") and not line.startswith("//"):
                for answer in carry_out(self._chat, line):
                    self._teller.notice(answer)
            else:
                self._say(line[1:] if line.startswith("//") else line)
        except CommandRejected as error:
            self._teller.trouble(f"{error.command}: {rejection(error)}")
        except WebChatError as error:
            self._teller.trouble(str(error))

    def _say(self, text: str) -> None:
        self._teller.typed(text)
        try:
            self._chat.send_message(text)
        except CommandRejected as error:
            self._teller.unsent(text)
            self._teller.trouble(f"Not sent: {rejection(error)}")

    def _finish(self) -> int:
        if self._leaving:
            self._leave()
        elif self._chat.can("endChat"):
            self._end()
        return FAILED if self._lost else DONE

    def _leave(self) -> None:
        """Closing saves the chat once more; whether that has worked decides on whether anybody can come back."""
        self._chat.close()
        if failure := self._chat.health().store_failure:
            self._lost = True
            self._teller.trouble(f"The chat goes on without you, and cannot be taken up again: {printable(failure)}")
        else:
            self._teller.notice("The chat goes on without you; the same command takes it up again.")

    def _end(self) -> None:
        try:
            self._chat.end_chat()
        except CommandRejected as error:
            self._lost = True
            self._teller.trouble(f"The server could not be told that the chat is over: {rejection(error)}")

    def _hear(self, event: AnyEvent) -> None:
        match event.name:
            case "restoreFailed":
                self._restore_failed = True
            case "error":
                self._lost = True
            case "messageReceived" | "reconnected" | "connectionRestored" | "started" | "restored":
                self._lost = False
            case "agentTypingStarted" | "agentTypingStopped" if isinstance(event.data, AgentTyping):
                started = event.name == "agentTypingStarted" and event.data.message is not None
                self._typing = event.data.message.sender.name if started and event.data.message else ""
        if event.name == "error" and self._starting:
            self._teller.foretold(event)
        else:
            self._teller.event(event)
        if event.name == "ended":
            self.stop()
        elif self._lines is not None:
            self._lines.refresh()
