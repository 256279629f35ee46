"""What happens in the demo, scene by scene; each scene waits for what it promises, so that a defect would stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from webchat_fsm.cli.stage_board import Board
from webchat_fsm.cli.telling import printable
from webchat_fsm.errors import WebChatError
from webchat_fsm.lifecycle.events import EVENTS, MessageReceived
from webchat_fsm.lifecycle.words import Message
from webchat_fsm.runtime import clock
from webchat_fsm.runtime.delivery import ChatEvent
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.runtime.store import FileStore
from webchat_fsm.server import ChatServer, Script, Step
from webchat_fsm.server.front import HttpFront

PATIENCE = 10.0
"""Seconds after which what should have happened is taken for lost."""

POLL_RATE = {"pollRateMin": 300, "pollRateMax": 600}
"""Milliseconds; a real chat polls every 0.5 to 3 seconds."""

CAST = Script(
    cast={"Ann": "agent"},
    steps=(
        Step(0.7, "Ann", "join"),
        Step(1.2, "Ann", "typing"),
        Step(2.2, "Ann", "stop_typing"),
        Step(2.2, "Ann", "say", "Hello {nickname}, this is Ann. How can I help you?"),
        Step(0.4, "Ann", "typing", on="message", containing="open"),
        Step(1.2, "Ann", "stop_typing", on="message", containing="open"),
        Step(1.2, "Ann", "say", "Every day from nine to five.", on="message", containing="open"),
        Step(0.9, "Ann", "say", "Take your time, I am still here.", on="message", containing="reload"),
        Step(0.5, "Ann", "push_url", "https://www.example.com/manuals", on="message", containing="manual"),
        Step(1.0, "Ann", "send_file", "manual.txt", on="message", containing="manual"),
        Step(1.0, "Ann", "say", "Here you are.", on="message", containing="manual"),
    ),
)


def hurried(script: Script, speed: float) -> Script:
    """The same script with its pauses divided by `speed`."""
    return Script(script.cast, tuple(Step(step.after / speed, *_rest(step)) for step in script.steps))


def _rest(step: Step) -> tuple[Any, ...]:
    return step.person, step.action, step.text, step.on, step.containing


def patient(rates: dict[str, int], speed: float) -> dict[str, int]:
    """The poll rates divided by `speed`, but not below the least that a configuration allows."""
    return {name: max(100, round(rate / speed)) for name, rate in rates.items()}


class Stage:
    """The server, the customer's chat and what has been agreed on between scenes; a context manager."""

    def __init__(self, board: Board, folder: str, speed: float) -> None:
        self.board = board
        self.folder = Path(folder)
        self.server = ChatServer(script=hurried(CAST, speed))
        self.front = HttpFront(self.server)
        self.store = FileStore(self.folder / "session.json")
        self._rates = patient(POLL_RATE, speed)
        self._open = ExitStack()
        self._chats = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self.front)
        self._open.push(self._chats)
        self.board.opening(self.front.url)
        self.chat = self.customer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def customer(self) -> WebChatService:
        """A new service on the same store, as another process would make it; its events go to the board."""
        chat = WebChatService({"dataURL": self.front.data_url(), **self._rates}, store=self.store)
        for name in EVENTS:
            chat.subscribe(name, self.board.happened)
        self._chats.callback(chat.close)
        return chat

    def wait(self, event: str, why: str) -> None:
        """Wait for an event."""
        self.board.waiting(why)
        self.chat.wait_for(event, PATIENCE)

    def hear(self, kind: str, text: str, why: str) -> Message:
        """Wait for a message of that type from somebody else, with that text in it."""
        self.board.waiting(why)

        def there(event: ChatEvent[MessageReceived]) -> bool:
            return any(_is(message, kind, text) for message in event.data.messages)

        event = self.chat.wait_for("messageReceived", PATIENCE, where=there)
        return next(message for message in event.data.messages if _is(message, kind, text))

    def say(self, text: str) -> None:
        """Type a message, send it, and wait until it has come back in the transcript."""
        chat, board = self.chat, self.board
        board.command("sendTyping", "")
        chat.send_typing(text)
        board.waiting("Jonny is typing")
        self.hear_myself_typing(text)
        board.command("sendMessage", repr(text))
        receipt = chat.send_message(text)
        board.waiting("for the own message to come back")
        if not receipt.wait(PATIENCE):
            raise WebChatError(f"the message {text!r} did not come back")
        board.note(f"receipt: {receipt.status}, index {receipt.index}")

    def hear_myself_typing(self, text: str) -> None:
        """Wait until the server has told the chat that the customer types."""

        def there(event: ChatEvent[MessageReceived]) -> bool:
            return any(message.type == "TypingStarted" and message.text == text for message in event.data.messages)

        self.chat.wait_for("messageReceived", PATIENCE, where=there)

    def until_written(self, text: str) -> None:
        """Wait until somebody has written that at the server, while the customer is away."""
        changed = threading.Event()
        forget = self.server.on_change(changed.set)
        deadline = clock.monotonic() + PATIENCE
        try:
            while not self._written(text):
                if not changed.wait(deadline - clock.monotonic()):
                    raise WebChatError(f"nobody wrote {text!r}")
                changed.clear()
        finally:
            forget()

    def _written(self, text: str) -> bool:
        with self.server.lock():
            return any(text in (event.text or "") for event in self.server.current_chat().transcript)


def _is(message: Message, kind: str, text: str) -> bool:
    return message.type == kind and text in message.text and message.sender.type != "Client"


class Scene(NamedTuple):
    """A part of the demo."""

    title: str
    play: Callable[[Stage], None]


def begin(stage: Stage) -> None:
    """Open, start, and be greeted by an agent."""
    chat, board = stage.chat, stage.board
    board.command("open", "")
    chat.open()
    board.command("startChat", "nickname='Jonny', subject='product questions'")
    chat.start_chat(nickname="Jonny", subject="product questions")
    stage.wait("agentConnected", "for an agent")
    stage.hear("Message", "Hello", "for Ann's greeting")


def ask(stage: Stage) -> None:
    """Type, send, have the own message back, be answered."""
    stage.say("When are you open?")
    stage.hear("Message", "nine to five", "for Ann's answer")


def refuse(stage: Stage) -> None:
    """A command that is not legal here says why, and where it would be."""
    board = stage.board
    board.command("startChat", "nickname='Jonny'")
    outcome = stage.chat.command("startChat", {"nickname": "Jonny"})
    legal = ", ".join(sorted(stage.chat.explain("startChat").legal_in))
    if outcome:
        raise WebChatError("a second chat was started in the first")
    board.note(f"rejected: {outcome.reason}; legal in: {legal}")


def lose_the_server(stage: Stage) -> None:
    """More polls fail than pollExceptionLimit (5), then the server is back."""
    stage.board.note("from now on the server answers 8 polls with statusCode 1: temporarily unavailable")
    stage.server.faults.add(operation="refresh", server_status=1, times=8)
    stage.wait("connectionPending", "for the first poll that fails")
    stage.wait("chatServerWentOffline", "for the sixth failure in a row")
    stage.wait("connectionRestored", "for the server to come back")


def lose_the_network(stage: Stage) -> None:
    """Connections are cut without an answer, then not."""
    stage.board.note("now three connections are cut; a poll on a kept one is tried once more")
    stage.server.faults.add(operation="refresh", drop=True, times=3)
    stage.wait("disconnected", "for a poll without an answer")
    stage.wait("reconnected", "for the network")


def come_back(stage: Stage) -> None:
    """Close, and take the saved session up in another service."""
    board = stage.board
    stage.say("One moment, I have to reload the page.")
    board.command("close", "")
    stage.chat.close()
    board.waiting("for what Ann writes meanwhile")
    stage.until_written("still here")
    board.note("a new WebChatService, as in another process, on the same session file")
    stage.chat = stage.customer()
    board.command("open", "")
    stage.chat.open()
    stage.wait("restored", "for the restored chat")
    stage.hear("Message", "still here", "for what Ann has written meanwhile")


def fetch(stage: Stage) -> None:
    """Be sent a page and a file, and fetch the file."""
    stage.say("Is there a manual?")
    stage.hear("PushUrl", "", "for a link")
    message = stage.hear("FileUploaded", "", "for a file")
    file_id = str((message.file_details or {})["file-id"])
    stage.board.command("downloadFile", printable(file_id))
    path = stage.chat.download_file(file_id, to=stage.folder)
    stage.board.note(f"{path.name}: {path.read_text().strip()!r}")


def end(stage: Stage) -> None:
    """Leave; the transcript can still be read."""
    stage.board.command("endChat", "")
    stage.chat.end_chat()
    stats = stage.chat.get_stats()
    spoken = [message for message in stage.chat.get_transcript().messages if message.type == "Message"]
    stage.board.note(f"{len(spoken)} messages in {(stats.duration or 0) / 1000:.1f} s")


SCENES = (
    Scene("A customer starts a chat", begin),
    Scene("A question and its answer", ask),
    Scene("A command in the wrong state is refused", refuse),
    Scene("The chat server goes offline, and comes back", lose_the_server),
    Scene("The network is gone for a moment", lose_the_network),
    Scene("The page is reloaded: close and restore", come_back),
    Scene("A link and a file", fetch),
    Scene("The customer leaves", end),
)
