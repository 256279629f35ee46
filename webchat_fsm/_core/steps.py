"""What goes into a decision and what comes out of it: commands, calls and their replies, steps, and side effects."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from webchat_fsm._core.operations import Disconnect, Operation
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Json, Message, Response, SessionData
from webchat_fsm.lifecycle._events import Payload
from webchat_fsm.lifecycle._legality import By, Rule
from webchat_fsm.lifecycle._table import State, Transition

if TYPE_CHECKING:
    from webchat_fsm._bayeux.frames import Answer
    from webchat_fsm._core.context import DecisionContext

LONGEST_NUMBER = 100
"""Digits of a number in an index, beyond which it has no place in the order; `int` raises for some thousand."""

_RANKED = cache(lambda: re.compile(r"\d{1,100}(-\d{1,100})*"))
"""An index that has a place in the order; longer numbers have none."""


def rank(index: int | str | None) -> tuple[int, ...] | None:
    """Return the place of an index in the order: its numbers; None where it has none."""
    spelling = str(index)
    # read by hand, as each event of each answer has its rank read, and the expression takes several times as long
    first, _, second = spelling.partition("-")
    if len(spelling) < LONGEST_NUMBER and first.isdecimal() and second.isdecimal():  # as nearly all are
        return int(first), int(second)
    return tuple(map(int, spelling.split("-"))) if _RANKED().fullmatch(spelling) else None


# -- requests and their answers ----------------------------------------------------------------------------------------


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


class ResponseKind(StrEnum):
    """The kinds of response, the same for every dialect."""

    GOOD = "good"
    """The server did what was asked."""
    UNAVAILABLE = "chat server unavailable (statusCode 1)"
    """An envelope says that the chat server cannot be reached; nothing else in it can be trusted."""
    REFUSED = "refused (statusCode 2)"
    """The chat server, or over CometD the gateway, has refused the request."""
    LOST = "session lost"
    """The server does not know the session any more: it ends, and what is saved is deleted."""
    THROTTLED = "too many requests"
    """HTTP status 429, which counts as no failure."""
    PREVIEW_REFUSED = "typing preview too long"
    """A poll was refused for its typing preview alone, which counts as no failure (v2)."""
    BAD = "badly answered"
    """Any other status, or a body that cannot be read."""
    UNKNOWN_CLIENT = "unknown client"
    """The gateway does not know the Bayeux client, and has processed nothing (CometD)."""
    SILENT = "no complete answer"
    """The connection was refused or lost, the time was over, or the body ended early."""


class ReceivedMessage(Struct, frozen=True, gc=False):  # nothing that it holds leads back to it
    """A message as it was received: normalised, the wire's own object, and its place in the order of the transcript.

    `shown` is what the preprocessors returned; joins, leavings and the end of a chat are read from `message`, so that a
    preprocessor cannot hide them. `original` may be any JSON value: an event that is no object is kept too.
    """

    message: Message
    original: Any
    rank: tuple[int, ...] | None
    shown: Message | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """The server's limits for uploads: counts, bytes, lower-case extensions; None and empty where it names none."""

    max_files: int | None = None
    max_file_size: int | None = None
    max_total_size: int | None = None
    file_types: tuple[str, ...] = ()
    used_files: int = 0
    used_total_size: int = 0


class Reply(Struct, frozen=True, kw_only=True):
    """A response as the core takes it, or the lack of one.

    `session_data` holds the ids that the answer carried, None where it carried none; `retry_after` is in seconds;
    `value` is what a resolved command returns where that is not the response; `place` is where a message that was sent
    stands in the transcript, None where the server does not say; `link` and `pushes` come over CometD
    alone. `next_position` is the server's, None where it named none that can be read. `misread` names each kind of
    member that could not be read, as `messages[].utcTime: expected int, got str`: never a value, which may be a secret.
    `defect` says what in this library raised while the request was made or its answer was read, empty where nothing
    did. `repeats` counts the further requests that it took: repetitions where the server had closed a kept connection,
    and upgrades to a websocket.
    """

    kind: ResponseKind
    response: Response = field(default_factory=Response)
    error: TransportError | None = None
    session_data: SessionData | None = None
    received: tuple[ReceivedMessage, ...] = ()
    chat_ended: bool = False
    retry_after: float | None = None
    idle_time_count_down: int | None = None
    limits: Limits | None = None
    value: Any = None
    place: tuple[int, ...] | None = None
    next_position: int | None = None
    misread: tuple[str, ...] = ()
    defect: str = ""
    repeats: int = 0
    link: Answer | None = None
    pushes: tuple[Reply, ...] = ()

    @property
    def good(self) -> bool:
        """True where the server did what was asked."""
        return self.kind is ResponseKind.GOOD

    @property
    def over(self) -> bool:
        """True where the answer says that the chat is over; statusCode 1 says nothing that can be trusted."""
        return self.chat_ended and self.kind in (ResponseKind.GOOD, ResponseKind.REFUSED)


# -- steps -------------------------------------------------------------------------------------------------------------


class Moment(Struct, frozen=True):
    """The time of a step: seconds on the line of the timers, wall-clock seconds, and a draw from [0, 1) for jitter."""

    timer: float
    wall: float
    draw: float = 0.0


class Asked(Struct, frozen=True, kw_only=True):
    """A command was given; `data` are those that its `prepare` has returned."""

    command: Command
    data: Json = field(default_factory=dict)
    by: By = By.USER


class Replied(Struct, frozen=True, kw_only=True):
    """The request of a call was answered, or failed."""

    call: Call
    reply: Reply


class Due(Struct, frozen=True, kw_only=True):
    """A timer fell due, or is carried out `by_hand`; `preview` is the value of the registered typing preview input."""

    timer: Timer
    preview: str = ""
    by_hand: bool = False


class Opened(Struct, frozen=True, kw_only=True):
    """The service is opened; `saved` is what the store holds."""

    saved: SavedSession | None = None


class Closed(Struct, frozen=True):
    """The service is closed."""


class Interrupted(Struct, frozen=True, kw_only=True):
    """The thread that waited for the call was interrupted; its response will never be read."""

    call: Call


Step = Asked | Replied | Due | Opened | Closed | Interrupted


# -- the decision ------------------------------------------------------------------------------------------------------


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
