"""A recorded session to read: what happened when, and the shapes of its lines.

A line is checked against its shape when a recording is read, and keeps further keys that it has. The contents of
answers and commands are not checked here: the dialects and the core judge them, in a replay as in the chat itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from webchat_fsm._config import config_error
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import WebChatError
from webchat_fsm._json import REFUSED, json_to_keep, read_json, utf8
from webchat_fsm._model import Json
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._table import State, Trigger
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._recorder import VERSION, Recorder


class RecordingError(WebChatError):
    """Raised for a file that is no recording, or one that this version cannot read; the text names line and field."""


# -- the shapes of the lines -------------------------------------------------------------------------------------------


class Version(Struct, kw_only=True):
    """The part of the first line that every version has."""

    recording: int


class Head(Version, kw_only=True):
    """The first line: the transport and the masked configuration."""

    transport: Transport
    config: Json


class Line(Struct, kw_only=True):
    """Any other line; `time` is wall-clock seconds."""

    time: float


class RequestLine(Line, kw_only=True):
    """A request that was sent; `request` is its number, by which later lines refer to it."""

    request: int
    operation: str
    method: str
    url: str
    headers: dict[str, str]
    form: Json = {}
    files: list[str] = []


class EventRecord(Struct, kw_only=True):
    """An event that a step published, its data as the bus carries them."""

    event: str
    data: Json
    time: float


class CommandOutcome(Struct, kw_only=True):
    """The outcome of a command; a rejected one has a reason."""

    resolved: bool
    reason: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        # A type cannot express that one field depends on another.
        if not self.resolved and self.reason is UNSET:
            raise ValueError("a rejection needs its reason")


class StepLine(Line, kw_only=True):
    """A step that was decided: `timer` is seconds of the timers' clock, `draw` the random number of the step."""

    timer: float
    draw: float
    state: State
    transitions: list[tuple[State, Trigger, State]]
    events: list[EventRecord]
    outcome: CommandOutcome | UnsetType = UNSET
    calls: int | UnsetType = UNSET


class CommandLine(StepLine, kw_only=True):
    """A step for a command, with its arguments and who gave it."""

    command: str
    data: Json
    by: By


class TimerLine(StepLine, kw_only=True):
    """A step for a timer that was due, with the typing preview of that moment."""

    tick: Timer
    preview: str
    by_hand: bool | UnsetType = UNSET


class OpenLine(StepLine, kw_only=True):
    """A step for the opening of the service, with the saved session, null without one."""

    opened: Json | None


class CloseLine(StepLine, kw_only=True):
    """A step for the closing of the service."""

    closed: bool


class InterruptLine(StepLine, kw_only=True):
    """A step for Ctrl-C in a request; `interrupted` is the number of the request."""

    interrupted: int


class AnswerLine(StepLine, kw_only=True):
    """A step for the end of a request: an answer, none (`fault`), or a file that could not be read (`trouble`)."""

    answered: int
    fault: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    trouble: list[Json] | UnsetType = UNSET
    status: int | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    body: str | UnsetType = UNSET
    bytes: str | UnsetType = UNSET
    line: str | UnsetType = UNSET
    shown: dict[str, Json] | UnsetType = UNSET

    def __post_init__(self) -> None:
        kinds = {"fault": (self.fault, self.url), "trouble": (self.trouble,), "status": (self.status, self.headers)}
        if not any(UNSET not in fields for fields in kinds.values()):
            raise ValueError("an answer needs status and headers, fault and url, or trouble")


KINDS: dict[str, type[Line]] = {
    "request": RequestLine,
    "command": CommandLine,
    "answered": AnswerLine,
    "tick": TimerLine,
    "opened": OpenLine,
    "closed": CloseLine,
    "interrupted": InterruptLine,
}
"""The kinds of lines, each by the key that only it has."""


def mismatch(line: Json, kind: type[Struct]) -> str:
    """Return why a line is not of a kind, the field first; empty if it is."""
    try:
        msgspec.convert(line, kind)
    except REFUSED as error:
        problem = config_error(error)
        # msgspec begins a path with `$`, which is no part of a key.
        path, expected = problem.path.removeprefix("$").removeprefix("."), problem.expected.replace("`", "")
        return f"{path}: {expected}" if path else expected
    return ""


def kind_of(line: Json) -> type[Line] | None:
    """Return the kind of a line, None for an unknown one."""
    return next((kind for key, kind in KINDS.items() if key in line), None)


# -- the recording -----------------------------------------------------------------------------------------------------


class RecordedTransition(NamedTuple):
    """One row of the lifecycle that was taken; `time` is wall-clock seconds."""

    time: float
    source: State
    trigger: Trigger
    dest: State


class RecordedEvent(NamedTuple):
    """One event that was published, its data as the bus carries them, without secrets."""

    time: float
    name: str
    data: Json


class Recording:
    """The lines of one recording: `head`, then `lines` in the order of the decisions.

    `torn` is the number of a last line that is incomplete and was omitted, else None. Raises `RecordingError` for lines
    that a recorder does not write.
    """

    def __init__(self, lines: Sequence[Json], *, torn: int | None = None) -> None:
        # Before the check of its version, as any JSON Lines file may be given here.
        if not lines or lines[0].get("recording") is None:
            raise RecordingError("line 1: this is no recording of a chat session: give a file written by Recorder")
        _check_head(lines[0])
        for number, line in enumerate(lines[1:], 2):
            _check(number, line)
        self.head: Json = lines[0]
        self.lines: Sequence[Json] = lines[1:]
        self.torn: int | None = torn
        self.transport: Transport = Transport(self.head["transport"])

    @classmethod
    def of(cls, recorder: Recorder) -> Recording:
        """Return the recording of a recorder so far; steps that are still queued are written first."""
        # Steps are written when the session's lock is free; the last ones may still be queued.
        recorder.flush()
        return cls.parse(b"\n".join(recorder.lines)) if recorder.path is None else cls.read(recorder.path)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file; raises `RecordingError`, or `OSError` where there is none. A torn last line is omitted."""
        return cls.parse(Path(path).read_bytes())

    @classmethod
    def parse(cls, text: bytes | str) -> Recording:
        """Read the text of a file; raises `RecordingError`."""
        # By bytes: `str.splitlines` would also split at separators such as U+2028 inside a text.
        listed = (utf8(text) if isinstance(text, str) else text).rstrip().splitlines()
        lines: list[Json] = []
        torn = None
        for number, line in enumerate(listed, 1):
            if not line.strip():
                raise RecordingError(f"line {number}: an empty line")
            try:
                lines.append(msgspec.convert(read_json(line), dict[str, Any]))
            except REFUSED as error:
                # Only the last line can be torn, and a file of one line has nothing to read without it.
                if not (number == len(listed) > 1 and line.startswith(b"{")):
                    raise RecordingError(f"line {number}: {error}") from error
                torn = number  # the process died while it wrote this line; those before it are whole
        return cls(lines, torn=torn)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a file, which is replaced if it exists; raises `OSError`."""
        Path(path).write_bytes(b"".join(json_to_keep(line) + b"\n" for line in (self.head, *self.lines)))

    @property
    def steps(self) -> Iterator[Json]:
        """Return the lines that are steps of the session, without the requests."""
        return (line for line in self.lines if "state" in line)

    @cached_property
    def transitions(self) -> list[RecordedTransition]:
        """Return the taken rows of the lifecycle, in the order of the steps."""
        return [
            RecordedTransition(line["time"], State(source), Trigger(trigger), State(dest))
            for line in self.steps
            for source, trigger, dest in line["transitions"]
        ]

    @cached_property
    def events(self) -> list[RecordedEvent]:
        """Return the published events, in the order of the steps."""
        return [
            RecordedEvent(event["time"], event["event"], event["data"])
            for line in self.steps
            for event in line["events"]
        ]

    @property
    def commands(self) -> list[str]:
        """Return the names of the commands that were given, in order."""
        return [line["command"] for line in self.lines if "command" in line]

    @property
    def requests(self) -> list[str]:
        """Return the names of the operations that were requested, in order."""
        return [line["operation"] for line in self.lines if "request" in line]


def _check_head(head: Json) -> None:
    problem = mismatch(head, Version)
    # The version first: a head of another version may lack any other field.
    if not problem and head["recording"] != VERSION:
        read = f"a recording of version {head['recording']}, and this library reads version {VERSION}"
        problem = f"{read}: replay it with the version of webchat-fsm that wrote it"
    if problem := problem or mismatch(head, Head):
        raise RecordingError(f"line 1: {problem}")


def _check(number: int, line: Json) -> None:
    # Two files that were joined would mix the calls of two sessions under the same numbers.
    if "recording" in line:
        raise RecordingError(f"line {number}: another recording begins here; a file holds one")
    kind = kind_of(line)
    if problem := "an unknown kind of step" if kind is None else mismatch(line, kind):
        raise RecordingError(f"line {number}: {problem}")
