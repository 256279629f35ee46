"""The side effects of a decision, which the shell performs, and the record of one decision."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from webchat_fsm._core.operations import Disconnect, Operation
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Json, Response, SessionData
from webchat_fsm.lifecycle._events import Payload
from webchat_fsm.lifecycle._legality import Rule
from webchat_fsm.lifecycle._table import State, Transition

# `context` and `inputs` import this module: their names are needed in annotations alone
if TYPE_CHECKING:
    from webchat_fsm._core.context import DecisionContext
    from webchat_fsm._core.inputs import Reply


class Command(Struct, frozen=True, eq=False):
    """A command as the core has it: its legality, the function that carries it out, the value of a good response."""

    rule: Rule
    action: Callable[[DecisionContext, Json], None]
    value: Callable[[Reply], object] = attrgetter("response")

    @property
    def name(self) -> str:
        """Return the documented name."""
        return self.rule.name


class LinkCall(Struct, frozen=True, kw_only=True):
    """The Bayeux message of a call, and what follows from its answer.

    `client_id` and `id` are those of the message. `then` is the operation that waits for the answer, `again` how often
    that, or the operation of the call itself, was sent before. The answer is wanted within `left` seconds.
    """

    client_id: str = ""
    id: str = ""
    then: Operation | None = None
    again: int = 0
    left: float = inf


class Call(Struct, frozen=True, kw_only=True):
    """A request to make; its answer comes back in a `Replied` with the same call.

    `command` is the command that waits for it, None for the service's own timers. `session_data` and `number` are the
    session's at that moment, so that a late answer of an earlier session is recognised. The request is made after
    `pause` seconds.
    """

    operation: Operation
    command: Command | None = None
    session_data: SessionData = field(default_factory=SessionData)
    number: int = 0
    ticket: int = 0
    pause: float = 0.0
    link: LinkCall = LinkCall()

    @property
    def leaves(self) -> bool:
        """Return whether the customer leaves the chat by it, or by the operation that waits for its answer."""
        # endChat may wait behind a handshake, whose call it is then
        return isinstance(self.operation, Disconnect) or isinstance(self.link.then, Disconnect)

    def __repr__(self) -> str:  # neither texts of the customer nor keys of the session belong in a log
        return f"Call({self.operation.name}, ticket={self.ticket})"


class Publish(Struct, frozen=True, kw_only=True):
    """Put an event into the queue; `time` is in wall-clock seconds."""

    event: str
    data: Payload | None
    time: float


class Save(Struct, frozen=True, kw_only=True):
    """Write the session document; the one with the higher `order` wins, whichever is written last."""

    document: SavedSession
    order: int


class Forget(Struct, frozen=True, kw_only=True):
    """Delete the session document; `lost` is the server's answer where the session was lost there."""

    order: int
    lost: Response | None = None
    session_data: SessionData = field(default_factory=SessionData)


class Delivered(Struct, frozen=True, kw_only=True):
    """Settle the receipt with that ticket: its message has come back in the transcript."""

    ticket: int
    index: int | str | None


class Overtaken(Struct, frozen=True, kw_only=True):
    """Make the receipt with that ticket unknown: a later message has come back, and its own has not."""

    ticket: int


class Settled(Struct, frozen=True, kw_only=True):
    """The outcome of a command: its value, or the reason of its rejection; `state` is the session's at that moment.

    `response` is the server's where there was one, `fault` the error that prevented one.
    """

    resolved: bool
    value: Any = None
    reason: str = ""
    response: Response | None = None
    fault: TransportError | None = None
    state: State = State.IDLE


SideEffect = Publish | Save | Forget | Delivered | Overtaken


class Decision(Struct, kw_only=True):
    """The record of one step: transitions taken, side effects, the request to make next, the outcome of the command.

    `warning` and `defect`, the exception raised while the step was decided, are logged once the session's lock is
    released, as a handler of logging may block.
    """

    transitions: list[Transition] = field(default_factory=list)
    effects: list[SideEffect] = field(default_factory=list)
    call: Call | None = None
    settled: Settled | None = None
    warning: str = ""
    defect: Exception | None = None
