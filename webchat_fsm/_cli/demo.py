"""``webchat-fsm demo``: a whole chat against the embedded server, over real HTTP, printed live.

Each scene waits for the events that it announces, so that a defect of the library stops the demo with an error.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webchat_fsm import (
    AgentTyping,
    ChatEvent,
    FileStore,
    Message,
    MessageReceived,
    Outcome,
    ParticipantChanged,
    Restored,
    WebChatError,
    WebChatService,
)
from webchat_fsm._cli.command import DONE, describe, print_error
from webchat_fsm._cli.output import (
    NOTICES,
    Part,
    Screen,
    Step,
    as_json,
    coloured,
    event_record,
    log_forwarded,
    message_line,
    printable,
    response_of,
    response_problem,
)
from webchat_fsm.diagram._machines import path_text
from webchat_fsm.lifecycle._events import EVENTS, TYPING
from webchat_fsm.lifecycle._table import Trigger
from webchat_fsm.lifecycle._transports import Transport

if TYPE_CHECKING:
    from webchat_fsm.server import Script

EVENT_TIMEOUT = 10.0
"""Seconds to wait for an event before the demo fails."""

RETRY = "run the demo again, and report a defect if it fails here once more"

POLL_RATE = {"pollRateMin": 300, "pollRateMax": 600}
"""Milliseconds; a real chat polls every 0.5 to 3 seconds."""


def add(parser: ArgumentParser) -> None:
    """Describe the command `demo` and its options to its parser."""
    describe(
        parser,
        run,
        "A whole chat between a customer (this library), an agent (a script) and a chat server (the embedded one) over"
        " real HTTP on a free loopback port, with every change of state and every event as it happens. It takes about"
        " fourteen seconds, and ends with the path through the state machine.",
        "webchat-fsm demo",
        "webchat-fsm demo --fast > demo.txt",
        "webchat-fsm demo --json | jq -r '.event // empty'",
    )
    parser.add_argument("--fast", action="store_true", help="agent and polls are three times as fast")
    parser.add_argument("--json", action="store_true", help="print every transition and event as a line of JSON")


def run(options: Namespace) -> int:
    """Play all scenes; raises `WebChatError` if an announced event does not come."""
    screen = Screen(colour=not options.json and coloured(sys.stdout), wrap=not options.json)
    report = Report(screen, as_json_lines=options.json)
    with ExitStack() as stack:
        # Transitions are read from the log, as no event shows those that leave the state as it is.
        stack.enter_context(log_forwarded(report.warning, report.transition))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="webchat-fsm-demo-"))
        demo = DemoChat(report, Path(folder), 3.0 if options.fast else 1.0, stack)
        if screen.console is not None:
            # The dots of the spinner are Braille letters, which a narrow encoding lacks.
            dots = (sys.stdout.encoding or "").lower().startswith("utf")
            status = stack.enter_context(screen.console.status("", spinner="dots" if dots else "line"))
            demo.show_status = status.update
        for number, (title, play) in enumerate(SCENES, 1):
            screen.check()
            report.heading(title)
            demo.scene = f"scene {number} of {len(SCENES)}"
            play(demo)
    report.path()
    screen.check()
    return DONE


# -- what is printed -----------------------------------------------------------------------------------------------

# These leave the state as it is and come with nearly every response: they would fill the path.
FREQUENT = frozenset({Trigger.ANSWERED, Trigger.CONTENT_CAME})


class Report:
    """Print commands, transitions and events: as lines with their seconds, or as one JSON object each."""

    def __init__(self, screen: Screen, *, as_json_lines: bool) -> None:
        self._screen, self._as_json_lines = screen, as_json_lines
        self._steps: list[Step] = []
        self._started = time.monotonic()

    def _put(self, *parts: Part, text: str = "") -> None:
        if not self._as_json_lines:
            self._screen.put(*parts, text=text)

    def introduction(self, url: str) -> None:
        """Print who takes part, and start the seconds."""
        self._started = time.monotonic()  # not before, as importing and starting the server takes part of a second
        self._put(("heading", f"A customer, an agent and a chat server at {url}"))
        self._put(("dim", "seconds, kind, details; --json prints every transition and event"))

    def heading(self, title: str) -> None:
        """Print the title of a scene, below an empty line."""
        self._put()
        self._put(("heading", title))

    def row(self, kind: str, head: str = "", text: str = "", style: str = "") -> None:
        """Print the seconds since the beginning, a kind, a coloured head and a text."""
        label = f"{time.monotonic() - self._started:7.2f}  {kind:<9}"
        self._put(("dim", label), (style or kind or "plain", head), text=text)

    def transition(self, step: Step) -> None:
        """Print a transition; for people only if the state changes."""
        self._steps.append(step)
        source, trigger, dest = step
        if self._as_json_lines:
            record = {"transition": trigger.value, "from": source.value, "to": dest.value}
            self._screen.put(text=as_json({**record, "time": round(time.time(), 3)}))
        elif source is not dest:
            self.row("state", f"{source} -> {dest}")

    def event(self, event: ChatEvent[Any]) -> None:
        """Print an event, and a line for each of its messages."""
        if self._as_json_lines:
            self._screen.put(text=as_json(event_record(event, Transport.V2)))
        elif isinstance(event.data, MessageReceived):
            if lines := list(message_texts(event.data)):
                self.row("event", event.name)
            for line in lines:
                self.row("", "  ", line)
        else:
            style, _ = NOTICES.get(event.name, ("", ""))
            self.row("event", f"{event.name:<24}", details(event.data), "warning" if style == "warning" else "event")

    def warning(self, text: str) -> None:
        """Print a warning that the library has logged."""
        if self._as_json_lines:
            print_error(text)
        self.row("warning", text=text, style="warning")

    def path(self) -> None:
        """Print the path through the state machine, without the rows that nearly every response takes."""
        self.heading("The path through the state machine")
        for line in path_text([step for step in self._steps if step[1] not in FREQUENT]).splitlines():
            self._put(("plain", "  "), ("state", line))


def message_texts(data: MessageReceived) -> Iterator[str]:
    """Return a line for each message that has not been printed already as an event of its own."""
    for message in data.messages:
        if message.type not in (*TYPING, "ParticipantJoined", "ParticipantLeft"):
            line = message_line(message)
            yield f"{line.who}: {line.text}" if line.who else line.text


def details(data: object) -> str:
    """Describe the data of an event without messages: a participant, a gap, the problem of a response, or ""."""
    if isinstance(data, ParticipantChanged) and data.message is None:
        return f"agents connected: {data.num_agents_connected}"
    if isinstance(data, AgentTyping | ParticipantChanged):
        return "" if data.message is None else printable(data.message.sender.name)
    if isinstance(data, Restored):
        gap = {0: "", None: "messages may be missing"}.get(data.missing, f"{data.missing} missing")
        return ", ".join(filter(None, ["asynchronous" if data.is_async else "", gap]))
    response = response_of(data)
    return "" if response is None else response_problem(response)


# -- who takes part ------------------------------------------------------------------------------------------------


def agent(speed: float) -> Script:
    """Return the script of Ann, an agent, with its pauses divided by `speed`."""
    from webchat_fsm.server import Script, Step

    steps = (
        Step(0.7 / speed, "Ann", "join"),
        Step(1.2 / speed, "Ann", "typing"),
        Step(2.2 / speed, "Ann", "stop_typing"),
        Step(2.2 / speed, "Ann", "say", "Hello {nickname}, this is Ann. How can I help you?"),
        # Reactions are chosen by words of the scenes, so that no scene waits for the answer to another.
        Step(0.4 / speed, "Ann", "typing", on="message", containing="open"),
        Step(1.2 / speed, "Ann", "stop_typing", on="message", containing="open"),
        Step(1.2 / speed, "Ann", "say", "Every day from nine to five.", on="message", containing="open"),
        Step(0.9 / speed, "Ann", "say", "Take your time, I am still here.", on="message", containing="reload"),
        Step(0.5 / speed, "Ann", "push_url", "https://www.example.com/manuals", on="message", containing="manual"),
        Step(1.0 / speed, "Ann", "send_file", "manual.txt", on="message", containing="manual"),
        Step(1.0 / speed, "Ann", "say", "Here you are.", on="message", containing="manual"),
    )
    return Script({"Ann": "agent"}, steps)


class DemoChat:
    """Hold the embedded server and the customer's chat; `stack` closes them."""

    def __init__(self, report: Report, folder: Path, speed: float, stack: ExitStack) -> None:
        from webchat_fsm.server import ChatServer
        from webchat_fsm.server.front import HttpFront

        self.report, self.folder = report, folder
        self.server = ChatServer(script=agent(speed))
        front = stack.enter_context(HttpFront(self.server))
        report.introduction(front.url)
        # A configuration allows no poll rate below 100 ms.
        rates = {name: max(100, round(rate / speed)) for name, rate in POLL_RATE.items()}
        self._config = {"dataURL": front.data_url(), **rates}
        self._store = FileStore(folder / "session.json")
        self._stack = stack
        self.scene = ""
        self.show_status: Callable[[str], None] = lambda _: None
        self.chat = self.customer()

    def customer(self) -> WebChatService:
        """Return a new service on the same store, as another process would make it."""
        chat = WebChatService(self._config, store=self._store)
        for name in EVENTS:
            chat.subscribe(name, self.report.event)
        self._stack.callback(chat.close)  # again for one that a scene closes, which does nothing
        return chat

    def command(self, name: str, **data: object) -> Outcome:
        """Print a command and give it; a rejection is in the outcome, not raised."""
        self.report.row("command", f"{name}({', '.join(f'{key}={value!r}' for key, value in data.items())})")
        return self.chat.command(name, data)

    def open(self) -> None:
        """Print `open` and call it."""
        self.report.row("command", "open()")
        self.chat.open()

    def wait(self, event: str, purpose: str) -> None:
        """Wait for an event; raises `WaitTimeout` after `EVENT_TIMEOUT` seconds. `purpose` is for the status line."""
        self._waiting(purpose)
        self.chat.wait_for(event, EVENT_TIMEOUT)

    def receive(self, kind: str, text: str, purpose: str, sender: str = "Agent") -> Message:
        """Return the next message of a type from a sender that contains a text; raises `WaitTimeout`."""

        def matching(data: MessageReceived) -> list[Message]:
            of_kind = (message for message in data.messages if message.type == kind and message.sender.type == sender)
            return [message for message in of_kind if text in message.text]

        self._waiting(purpose)
        event = self.chat.wait_for("messageReceived", EVENT_TIMEOUT, where=lambda event: bool(matching(event.data)))
        return matching(event.data)[0]

    def send(self, text: str) -> None:
        """Type a message, send it, and wait until it comes back in the transcript."""
        self.command("sendTyping", message=text).result()
        self.receive("TypingStarted", text, "the typing notice", sender="Client")
        self.report.row("command", f"sendMessage(message={text!r})")
        # Not by `command`: only the method returns a receipt.
        receipt = self.chat.send_message(text)
        self._waiting("the message in the transcript")
        if not receipt.wait(EVENT_TIMEOUT):
            raise WebChatError(f"the message {text!r} did not come back in {EVENT_TIMEOUT:.0f} s: {RETRY}")
        self.report.row("", text=f"receipt: {receipt.status}, index {receipt.index}")

    def wait_at_server(self, text: str) -> None:
        """Wait until the server's transcript has a text; the customer is away."""
        self._waiting("a message while away")
        arrived = threading.Event()

        def check() -> None:
            with self.server.lock():
                if any(text in (event.text or "") for event in self.server.current_chat().transcript):
                    arrived.set()

        # Registered before the first check: a message between them would be missed.
        unsubscribe = self.server.on_change(check)
        check()  # the text may have arrived before
        if not arrived.wait(EVENT_TIMEOUT):
            raise WebChatError(f"no message with {text!r} at the server in {EVENT_TIMEOUT:.0f} s: {RETRY}")
        unsubscribe()

    def _waiting(self, purpose: str) -> None:
        self.show_status(f"{self.scene}: waiting for {purpose}")


# -- the scenes ----------------------------------------------------------------------------------------------------


def start_chat(demo: DemoChat) -> None:
    """Open the service, start a chat, and receive the greeting of the agent."""
    demo.open()
    demo.command("startChat", nickname="Jonny", subject="product questions").result()
    demo.wait("agentConnected", "an agent")
    demo.receive("Message", "Hello", "Ann's greeting")


def ask_question(demo: DemoChat) -> None:
    """Send a question and receive its answer."""
    demo.send("When are you open?")
    demo.receive("Message", "nine to five", "Ann's answer")


def reject_command(demo: DemoChat) -> None:
    """Give a command that is not legal in this state."""
    outcome = demo.command("startChat", nickname="Jonny")
    # A demo that shows a rejection must fail where the library accepts the command.
    if outcome:
        raise WebChatError("startChat was accepted during a chat: report this as a defect")
    legal = ", ".join(sorted(demo.chat.explain("startChat").legal_in))
    demo.report.row("", text=f"rejected: {outcome.reason}; legal in: {legal}")


def take_server_offline(demo: DemoChat) -> None:
    """Let more polls fail than `pollExceptionLimit` (5) allows."""
    demo.report.row("", text="from now on the server answers 8 polls with statusCode 1: temporarily unavailable")
    demo.server.faults.add(operation="refresh", server_status=1, times=8)
    demo.wait("connectionPending", "the first poll that fails")
    demo.wait("chatServerWentOffline", "the sixth failure in a row")
    demo.wait("connectionRestored", "a good response")


def cut_connections(demo: DemoChat) -> None:
    """Cut connections before they carry a response."""
    # A poll on a kept connection is repeated at once, so that the first cut alone would not be seen.
    demo.report.row("", text="the server cuts three connections; a poll on a kept one is repeated once")
    demo.server.faults.add(operation="refresh", drop=True, times=3)
    demo.wait("disconnected", "a poll without a response")
    demo.wait("reconnected", "the network")


def restore_session(demo: DemoChat) -> None:
    """Close the service, and restore the saved session in another one."""
    demo.send("One moment, I have to reload the page.")
    demo.report.row("command", "close()")
    demo.chat.close()
    demo.wait_at_server("still here")
    demo.report.row("", text="a new WebChatService, as in another process, on the same session file")
    demo.chat = demo.customer()
    demo.open()
    demo.wait("restored", "the restored chat")
    demo.receive("Message", "still here", "the message sent while away")


def exchange_link_and_file(demo: DemoChat) -> None:
    """Receive a link and a file, and download the file."""
    demo.send("Is there a manual?")
    demo.receive("PushUrl", "", "a link")
    message = demo.receive("FileUploaded", "", "a file")
    file_id = str((message.file_details or {})["file-id"])
    demo.report.row("command", f"downloadFile(fileId={file_id!r})")
    path = demo.chat.download_file(file_id, to=demo.folder)
    demo.report.row("", text=f"{path.name}: {path.read_text().strip()!r}")


def end_chat(demo: DemoChat) -> None:
    """End the chat; its transcript can still be read."""
    demo.command("endChat").result()
    duration = demo.chat.get_stats().duration or 0
    messages = [message for message in demo.chat.get_transcript().messages if message.type == "Message"]
    demo.report.row("", text=f"{len(messages)} messages in {duration / 1000:.1f} s")


SCENES = (
    ("A customer starts a chat", start_chat),
    ("A question and its answer", ask_question),
    ("A command in the wrong state is rejected", reject_command),
    ("The chat server goes offline, and comes back", take_server_offline),
    ("The network fails for a moment", cut_connections),
    ("The page is reloaded: close and restore", restore_session),
    ("A link and a file", exchange_link_and_file),
    ("The customer ends the chat", end_chat),
)
