"""What a decision asks the shell to do, and the record of one decision."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.events import Payload
from webchat_fsm.lifecycle.table import Row, State, Transport
from webchat_fsm.lifecycle.words import Json, Response, SessionData


class Call(Struct, frozen=True, kw_only=True):
    """A request to make; its answer comes back as a fact with the same call.

    `operation` names it in the reference's words, `command` the command that waits for it (empty for the service's own
    timers), `fields` its arguments; `session_data` and `number` are the session's at that moment, so that a late answer
    of an earlier session is known as such.
    """

    operation: str
    command: str = ""
    fields: Json = field(default_factory=dict)
    session_data: SessionData = field(default_factory=SessionData)
    number: int = 0
    ticket: int = 0

    def __repr__(self) -> str:
        return f"Call({self.operation}, ticket={self.ticket})"


class Publish(Struct, frozen=True, kw_only=True):
    """An event to hand to the outbox; `time` is wall-clock seconds."""

    event: str
    data: Payload | None
    time: float


class SavedFilter(Struct, frozen=True, kw_only=True):
    """A prefilter as it is saved: the expression and Python's `re` flags."""

    source: str
    flags: int = 0


class SavedSession(Struct, frozen=True, kw_only=True):
    """The session document: enough to take the session up in another process.

    `cursor` is the next transcript position to ask for; `last_contact` the wall-clock seconds of the last answered poll
    or of an orderly close; `address` the chat server's URL, so that a session is never taken to another server.
    `last_index` is the index up to which no message is missing, "0" before the first one; None where it is unknown, as
    in a document of a version that did not save it.
    `cookies` are what the documented session data functions put into their jar.
    """

    transport: Transport
    address: str
    session_data: SessionData
    cursor: int | str = 1
    last_contact: float = 0.0
    user_data: Json = field(default_factory=dict)
    prefilters: list[SavedFilter] = field(default_factory=list)
    nickname: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    last_index: str | None = None


class Save(Struct, frozen=True, kw_only=True):
    """Write the session document; a later one always wins."""

    document: SavedSession
    order: int


class Forget(Struct, frozen=True, kw_only=True):
    """Delete the session document; `lost` is the server's answer where the session was lost there."""

    order: int
    lost: Response | None = None
    session_data: SessionData = field(default_factory=SessionData)


class Delivered(Struct, frozen=True, kw_only=True):
    """An own message has come back in the transcript: the receipt with that ticket is settled."""

    ticket: int
    index: int | str | None


class Overtaken(Struct, frozen=True, kw_only=True):
    """An own message has not come back while a later one has: the receipt with that ticket is unknown from now on."""

    ticket: int


class Settled(Struct, frozen=True, kw_only=True):
    """How a command came out: a value, or the reason why not; `state` is the session's at that moment.

    `response` is the server's answer where there was one, `fault` what stood in the way of one.
    """

    resolved: bool
    value: Any = None
    reason: str = ""
    response: Response | None = None
    fault: TransportError | None = None
    state: State = State.IDLE


Effect = Publish | Save | Forget | Delivered | Overtaken


class Decision(Struct, kw_only=True):
    """The record of one step: the rows taken, what to do, the request to make next, how the command came out.

    `warning` is for the log, which is no place to write to while the session's lock is held, and so is `defect`, what
    was raised while the step was decided.
    """

    rows: list[Row] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    call: Call | None = None
    settled: Settled | None = None
    warning: str = ""
    defect: Exception | None = None
