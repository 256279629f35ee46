"""The shapes of the lines of a recording, against which each is checked when a recording is read.

A line keeps what it holds beyond that. What its answers and commands say is not checked here: that is for the dialects
and the core to judge, in a replay as in the chat itself.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from webchat_fsm.config import located
from webchat_fsm.core.facts import Timer
from webchat_fsm.lifecycle.commands import By
from webchat_fsm.lifecycle.table import State, Transport, Trigger
from webchat_fsm.lifecycle.words import Json


class Version(Struct, kw_only=True):
    """What the first line of any version says."""

    recording: int


class Head(Version, kw_only=True):
    """The first line."""

    transport: Transport
    config: Json


class Line(Struct, kw_only=True):
    """Any other line."""

    time: float


class Requested(Line, kw_only=True):
    """A request went out."""

    request: int
    operation: str
    method: str
    url: str
    headers: dict[str, str]
    form: Json = {}
    files: list[str] = []


class Published(Struct, kw_only=True):
    """An event of a step."""

    event: str
    data: Json
    time: float


class Came(Struct, kw_only=True):
    """How a command came out."""

    resolved: bool
    reason: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not self.resolved and self.reason is UNSET:
            raise ValueError("a rejection needs its reason")


class Decided(Line, kw_only=True):
    """A step was decided."""

    timer: float
    draw: float
    state: State
    transitions: list[tuple[State, Trigger, State]]
    events: list[Published]
    outcome: Came | UnsetType = UNSET
    calls: int | UnsetType = UNSET


class Command(Decided, kw_only=True):
    """A command was given."""

    command: str
    data: Json
    by: By


class Tick(Decided, kw_only=True):
    """A timer fell due."""

    tick: Timer
    preview: str
    by_hand: bool | UnsetType = UNSET


class Opening(Decided, kw_only=True):
    """The service was opened."""

    opened: Json | None


class Closing(Decided, kw_only=True):
    """The service was closed."""

    closed: bool


class Interruption(Decided, kw_only=True):
    """The caller was interrupted."""

    interrupted: int


class Answered(Decided, kw_only=True):
    """An answer came: whole, or none (`fault`), or the file to be sent could not be read (`trouble`)."""

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
    "request": Requested,
    "command": Command,
    "answered": Answered,
    "tick": Tick,
    "opened": Opening,
    "closed": Closing,
    "interrupted": Interruption,
}
"""The kinds of lines by the key that tells each."""


def wrong_with(line: Json, kind: type[Struct]) -> str:
    """What keeps a line from being of a kind, with the field first; empty if nothing does."""
    try:
        msgspec.convert(line, kind)
    except msgspec.ValidationError as error:
        wrong = located(error)
        path, told = wrong.path.removeprefix("$").removeprefix("."), wrong.expected.replace("`", "")
        return f"{path}: {told}" if path else told
    return ""


def kind_of(line: Json) -> type[Line] | None:
    """The kind of a line, None for one that is not known."""
    return next((kind for key, kind in KINDS.items() if key in line), None)


class Party(Struct):
    """Who a message is from."""

    name: str = ""
    type: str = ""


class Said(Struct, rename={"sender": "from"}):
    """As much of a message as a story tells."""

    sender: Party
    type: str
    text: str = ""


class Shown(Struct):
    """As much of an event as a story tells."""

    messages: list[Said] = []


def said_in(data: Any) -> list[Said]:
    """The messages of an event; none where it has none that can be read."""
    try:
        return msgspec.convert(data, Shown).messages
    except msgspec.ValidationError:
        return []
