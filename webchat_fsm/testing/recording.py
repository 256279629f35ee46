"""A recorded session to read: what happened when, and what was known at any time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from webchat_fsm.errors import WebChatError
from webchat_fsm.lifecycle.encoding import REFUSED, json_to_keep, read_json, utf8
from webchat_fsm.lifecycle.table import State, Transport, Trigger
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.testing.lines import Head, Version, kind_of, wrong_with
from webchat_fsm.testing.recorder import VERSION, Recorder


class RecordingError(WebChatError):
    """A file is no recording, or one that this version cannot read; the text names the line and the field."""


class Transition(NamedTuple):
    """One row of the lifecycle that was taken."""

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

    `torn` is the number of a last line that broke off and was left out, None where none did. Raises `RecordingError`
    for lines that a recorder does not write.
    """

    def __init__(self, lines: Sequence[Json], *, torn: int | None = None) -> None:
        if not lines or lines[0].get("recording") is None:
            raise RecordingError("line 1: this is no recording of a chat session")
        _check_head(lines[0])
        for number, line in enumerate(lines[1:], 2):
            _check(number, line)
        self.head, self.lines, self.torn = lines[0], lines[1:], torn
        self.transport = Transport(self.head["transport"])

    @classmethod
    def of(cls, recorder: Recorder) -> Recording:
        """What a recorder has written so far."""
        recorder.flush()
        return cls.parse(b"\n".join(recorder.lines)) if recorder.path is None else cls.read(recorder.path)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file; raises `RecordingError`, or `OSError` where there is none. A torn last line is left out."""
        return cls.parse(Path(path).read_bytes())

    @classmethod
    def parse(cls, text: bytes | str) -> Recording:
        """Read the text of a file."""
        listed = (utf8(text) if isinstance(text, str) else text).rstrip().splitlines()
        lines: list[Json] = []
        torn = None
        for number, line in enumerate(listed, 1):
            if not line.strip():
                raise RecordingError(f"line {number}: an empty line")
            try:
                lines.append(msgspec.convert(read_json(line), dict[str, Any]))
            except REFUSED as error:
                if not (number == len(listed) > 1 and line.startswith(b"{")):
                    raise RecordingError(f"line {number}: {error}") from error
                torn = number  # the process died while it wrote, or the file was cut
        return cls(lines, torn=torn)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file."""
        Path(path).write_bytes(b"".join(json_to_keep(line) + b"\n" for line in (self.head, *self.lines)))

    @property
    def steps(self) -> Iterator[Json]:
        """The lines that are steps of the session, not requests."""
        return (line for line in self.lines if "state" in line)

    @cached_property
    def transitions(self) -> list[Transition]:
        """Every row that was taken, in order."""
        return [
            Transition(line["time"], State(source), Trigger(trigger), State(dest))
            for line in self.steps
            for source, trigger, dest in line["transitions"]
        ]

    @cached_property
    def events(self) -> list[RecordedEvent]:
        """Every event that was published, in order."""
        return [
            RecordedEvent(event["time"], event["event"], event["data"])
            for line in self.steps
            for event in line["events"]
        ]

    @property
    def commands(self) -> list[str]:
        """The names of the commands that were given, in order."""
        return [line["command"] for line in self.lines if "command" in line]

    @property
    def requests(self) -> list[str]:
        """The names of the operations that were requested, in order."""
        return [line["operation"] for line in self.lines if "request" in line]


def _check_head(head: Json) -> None:
    wrong = wrong_with(head, Version)
    if not wrong and head["recording"] != VERSION:
        wrong = f"a recording of version {head['recording']}; known is {VERSION}"
    if wrong := wrong or wrong_with(head, Head):
        raise RecordingError(f"line 1: {wrong}")


def _check(number: int, line: Json) -> None:
    if "recording" in line:
        raise RecordingError(f"line {number}: another recording begins here; a file holds one")
    kind = kind_of(line)
    if wrong := "no step that is known" if kind is None else wrong_with(line, kind):
        raise RecordingError(f"line {number}: {wrong}")
