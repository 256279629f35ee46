"""Events as JSON records or lines of text, and the screen that prints them.

Text from the network is made printable first: a chat partner must not control the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple, TextIO

from webchat_fsm import ChatEvent, CommandRejected, Failure, Message, MessageReceived, Response, Restored, RestoreFailed
from webchat_fsm._json import jsonable
from webchat_fsm._model import MASK, Json
from webchat_fsm.lifecycle._events import TYPING
from webchat_fsm.lifecycle._table import State, Trigger
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._story import printable as one_line

# Compared without case, hyphens and underscores; the whole value is masked at any depth.
SECRET_KEYS = frozenset({"securekey", "token", "apikey", "xapikey", "authorization", "cookie", "setcookie"})

Step = tuple[State, Trigger, State]


class ChatLine(NamedTuple):
    """Hold a line of text; `style` is a key of `STYLES`, `who` the name of the sender of a message."""

    style: str
    text: str
    who: str = ""


def printable(text: object) -> str:
    """Return a text in one line, each control character replaced by its escape and a new line by a slash."""
    return one_line(str(text).replace("\n", " / "))


# -- JSON ----------------------------------------------------------------------------------------------------------


def masked(value: Any) -> Any:
    """Return a JSON value with every credential of the session masked."""
    if isinstance(value, Mapping):
        # An empty secret stays empty, so that its absence can be seen.
        return {key: MASK if inner and _secret(key) else masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value


def _secret(key: object) -> bool:
    return str(key).lower().replace("-", "").replace("_", "") in SECRET_KEYS


def event_record(event: ChatEvent[Any], transport: Transport) -> Json:
    """Return an event's bare name, documented data (masked) and time in seconds since the epoch."""
    data = {} if event.data is None else event.data.item(transport)
    return {"event": event.name, "data": masked(data), "time": round(event.time, 3)}


def as_json(record: Json) -> str:
    """Serialise a record to one line of ASCII."""
    return json.dumps(jsonable(record))  # ASCII passes through a terminal of any encoding


# -- text ----------------------------------------------------------------------------------------------------------

SENDERS = {"Client": "customer", "Agent": "agent", "Supervisor": "agent"}

NOTICES = {
    "restored": ("notice", "The chat is restored."),
    "restoreTimeout": ("notice", "The saved chat has expired."),
    "restoreFailed": ("warning", "The saved chat could not be restored."),
    "restoredOffline": ("warning", "The chat server is offline; trying again."),
    "disconnected": ("warning", "The connection is lost; trying again."),
    "reconnected": ("notice", "The connection is back."),
    "connectionPending": ("warning", "The chat server returns errors; trying again."),
    "connectionRestored": ("notice", "The chat server responds again."),
    "chatServerWentOffline": ("warning", "The chat server is offline."),
    "chatServerBackOnline": ("notice", "The chat server is back online."),
    "error": ("warning", "The chat server returned an error."),
    "ended": ("notice", "The chat has ended."),
}
"""Style and text of each event that a customer has to see; other events show in their messages."""

ACTION_TEXTS = {
    "ParticipantJoined": "{name} ({role}) has joined.",
    "ParticipantLeft": "{name} ({role}) has left.",
    "PushUrl": "{name} sent a link: {text}",
    "FileUploaded": "{name} sent the file {file}",
    "FileDeleted": "{name} deleted the file {file}",
    "NicknameUpdated": "{name} has a new name: {text}",
    "IdleAlert": "{text}",
    "IdleClose": "{text}",
}
"""Texts of the message types that report an action."""


def event_lines(event: ChatEvent[Any], hidden: Callable[[Message], bool] = lambda _: False) -> Iterator[ChatLine]:
    """Return the lines of an event for a customer: messages that are not `hidden`, and changes of the connection."""
    if isinstance(event.data, MessageReceived):
        # A typing notice shows in the status line.
        shown = (message for message in event.data.messages if message.type not in TYPING and not hidden(message))
        yield from map(message_line, shown)
    elif event.name in NOTICES:
        style, text = NOTICES[event.name]
        # None too, which means that their number is unknown.
        if isinstance(event.data, Restored) and event.data.missing != 0:
            yield ChatLine("warning", "Messages sent while this program was away may be missing.")
        cause = response_of(event.data)
        if cause is None:
            yield ChatLine(style, text)
        elif cause.status:
            yield ChatLine(style, f"{text.rstrip('.')}: {response_problem(cause)}.")
        else:  # without a response the fault is the whole text: no server has returned an error
            yield ChatLine(style, f"{response_problem(cause)}.")


def message_line(message: Message) -> ChatLine:
    """Return the line of one message: a text with its sender, or a notice of an action such as joining."""
    sender, text = message.sender, printable(message.text)
    name = printable(sender.name) or sender.type or "unknown sender"
    action = ACTION_TEXTS.get(message.type)
    if action is not None:
        return ChatLine("notice", action.format(name=name, role=sender.type.lower(), text=text, file=_file(message)))
    return ChatLine(SENDERS.get(sender.type, "other"), text or f"({printable(message.type)})", name)


def _file(message: Message) -> str:
    """Return name, size and id of a file; the id is the argument of /save."""
    details = message.file_details or {}
    name = printable(details.get("file-name") or message.text or "(no name)")
    size = details.get("file-size")
    # The size comes from the network as a number or a text, and may be anything else.
    measured = f" ({size} bytes)" if isinstance(size, int) or str(size).isdecimal() else ""
    identity = details.get("file-id")
    return f"{name}{measured}{f', id {printable(identity)}' if identity else ''}"


def response_of(data: object) -> Response | None:
    """Return the response that an event carries, if it carries one."""
    return data.response if isinstance(data, Failure | RestoreFailed) else None


def response_problem(response: Response) -> str:
    """Describe what was wrong with a response: its status, and the errors that its body names."""
    errors = list(filter(None, map(_advice, response.errors)))
    # v2 reports errors with HTTP 200; the status would only confuse then.
    if errors and 200 <= response.status < 300:
        return ", ".join(errors)
    status = f"HTTP status {response.status}" if response.status else "no complete response"
    return ", ".join([status, *errors])


def _advice(error: object) -> str:
    if not isinstance(error, Mapping):
        return printable(error)
    return printable(error.get("advice") or error.get("text") or error.get("message") or error.get("code") or "")


def rejection(error: CommandRejected) -> str:
    """Describe why a command was rejected: by the server's errors, or by the state and where it would be legal."""
    errors = [_advice(one) for one in error.response.errors] if error.response else []
    # The reason often repeats the text of the first error.
    if advice := [text for text in errors if text and text not in error.reason]:
        return f"{printable(error.reason)}: {', '.join(advice)}"
    legal = ", ".join(sorted(error.legal_in))
    return f"{printable(error.reason)}{f' (legal in: {legal})' if legal and error.state not in error.legal_in else ''}"


# -- the screen ----------------------------------------------------------------------------------------------------

Part = tuple[str, str]
"""A key of `STYLES` and a text."""

STYLES = {
    "agent": "bold cyan",
    "customer": "bold green",
    "other": "bold magenta",
    "notice": "dim italic",
    "warning": "bold red",
    "heading": "bold",
    "dim": "dim",
    "command": "bold blue",
    "state": "bold yellow",
    "event": "green",
    "plain": "",
}

# A pipe has no width; most files and pages show 80 columns.
PIPE_WIDTH = 80


def coloured(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that shows colours, the user allows them and rich is installed."""
    # NO_COLOR is the convention of no-color.org: any value that is not empty.
    allowed = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return stream.isatty() and allowed and find_spec("rich") is not None


class Screen:
    """Print lines to standard output from any thread, on a terminal in colours by rich.

    `wrap` breaks long lines at the width of the terminal, or at 80 columns. When the reader of the output has closed
    the pipe, `on_broken` is called once, and `check` raises; a handler of an event must not.
    """

    def __init__(self, *, colour: bool, wrap: bool) -> None:
        self.console = None
        if colour:
            from rich.console import Console

            self.console = Console(highlight=False, markup=False, emoji=False)
        self.on_broken: Callable[[], None] = lambda: None
        self._broken = False
        self._wrap = wrap
        self._lock = threading.Lock()  # events are printed by the threads of the driver

    def put(self, *parts: Part, text: str = "", style: str = "plain") -> None:
        """Print the parts, then a text in a style, whose further lines are indented to its beginning."""
        indent = sum(len(part) for _, part in parts)
        lines = [text]
        if self._wrap:
            # Looked up for each line, as the user may resize the window.
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
            # At least 20 columns, or a long name would leave one letter a line; hyphens stay whole for URLs and ids.
            lines = textwrap.wrap(text, max(20, width - indent), break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            self._print([*(parts if number == 0 else [("plain", " " * indent)]), (style, line)])

    def check(self) -> None:
        """Raise `BrokenPipeError` if the reader of the output has closed the pipe."""
        if self._broken:
            raise BrokenPipeError

    def _print(self, parts: list[Part]) -> None:
        with self._lock:
            if self._broken:
                return
            try:
                self._write(parts)
            except BrokenPipeError:
                self._broken = True
        if self._broken:
            # Outside the lock: it may print, or stop the chat from this thread.
            self.on_broken()

    def _write(self, parts: list[Part]) -> None:
        if self.console is None:
            # `sys.stdout` is looked up for each line, as prompt_toolkit replaces it while its prompt is shown.
            print("".join(text for _, text in parts).rstrip(), file=sys.stdout, flush=True)
            return
        from rich.text import Text

        # Wrapped by `put` already: rich would break lines without the indent.
        self.console.print(Text.assemble(*((text, STYLES[style]) for style, text in parts)), soft_wrap=True)


# -- the log -------------------------------------------------------------------------------------------------------

LOGGER = logging.getLogger("webchat_fsm")


class _ForwardingHandler(logging.Handler):
    def __init__(self, on_warning: Callable[[str], None], on_transition: Callable[[Step], None]) -> None:
        super().__init__(logging.DEBUG)
        self._on_warning, self._on_transition = on_warning, on_transition

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            # By the types of the arguments, as the text of a log line may change.
            case (Trigger() as trigger, State() as source, State() as dest):
                self._on_transition((source, trigger, dest))
            case _ if record.levelno >= logging.WARNING:
                self._on_warning(record.getMessage())


@contextmanager
def log_forwarded(
    on_warning: Callable[[str], None], on_transition: Callable[[Step], None] = lambda _: None
) -> Iterator[None]:
    """Pass the library's warnings and transitions to callbacks inside the block, in place of logging them."""
    # The library logs one DEBUG record for each transition; no event shows those that leave the state as it is.
    handler, level, propagate = _ForwardingHandler(on_warning, on_transition), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    # Handlers of the root logger would print the same lines a second time.
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
