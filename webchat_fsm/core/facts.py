"""What comes in from outside: commands, answers, due timers, opening and closing. The inputs of a decision."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct, field

from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import By
from webchat_fsm.lifecycle.effects import Call, SavedSession
from webchat_fsm.lifecycle.words import Json, Message, Response, SessionData

LONGEST_NUMBER = 100
"""Digits of a number in an index, beyond which it has no place in the order."""

_RANKED = re.compile(r"\d{1,100}(-\d{1,100})*")
"""An index that has a place in the order; longer numbers have none."""


def rank(index: int | str | None) -> tuple[int, ...] | None:
    """Return the place of an index in the order: its numbers; None where it has none."""
    spelling = str(index)
    first, _, second = spelling.partition("-")
    if len(spelling) < LONGEST_NUMBER and first.isdecimal() and second.isdecimal():  # as nearly all are
        return int(first), int(second)
    return tuple(map(int, spelling.split("-"))) if _RANKED.fullmatch(spelling) else None


class Moment(NamedTuple):
    """The time of a step: seconds on the line of the timers, wall-clock seconds, and a draw from [0, 1) for jitter."""

    timer: float
    wall: float
    draw: float = 0.0


class Timer(StrEnum):
    """The timers of a session."""

    POLL = "poll"
    TYPING = "typing countdown"
    USER_DATA = "user data"
    CONNECT = "connect"
    PREVIEW = "typing preview"


class Verdict(StrEnum):
    """What an answer amounts to, whatever the dialect."""

    GOOD = "good"
    UNAVAILABLE = "chat server unavailable (statusCode 1)"
    REFUSED = "refused (statusCode 2)"
    LOST = "session lost"
    THROTTLED = "too many requests"
    PREVIEW_REFUSED = "typing preview too long"
    BAD = "badly answered"
    UNKNOWN_CLIENT = "unknown client"
    SILENT = "no complete answer"


class Arrival(NamedTuple):
    """A message as it arrived: normalised, the wire's own object, and its place in the order of the transcript.

    `shown` is what preprocessors made of it; what it says of the chat is read off `message` all the same. `original`
    may be any JSON value, as an event that is no object is kept like every other.
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


class LinkAnswer(Struct, frozen=True, kw_only=True):
    """What an answer says of the Bayeux connection: the client id of a handshake, advice in seconds, a hang-up.

    `reconnect` is the advice `retry`, `handshake` or `none`, empty where none of them was given; `timeout` and
    `interval` are None where they were not given as numbers from 0 on. `line` is that of `HttpAnswer`.
    """

    client_id: str = ""
    timeout: float | None = None
    interval: float | None = None
    reconnect: str = ""
    hung_up: bool = False
    line: str = ""

    @property
    def forbidden(self) -> bool:
        """True where the gateway forbids every further request."""
        return self.reconnect == "none"


class Reply(Struct, frozen=True, kw_only=True):
    """An answer in the core's words, or the lack of one.

    `session_data` holds the ids that the answer carried, None where it carried none; `retry_after` is in seconds;
    `value` is what a resolved command returns where that is not the response; `place` is where a message that was sent
    stands in the transcript, None where the server does not say; `link` and `pushes` come over CometD
    alone. `next_position` is the server's, None where it named none that can be read. `misread` names each kind of
    member that could not be read, as `messages[].utcTime: expected int, got str`: never a value, which may be a secret.
    `defect` says what in this library raised while the request was made or its answer was read, empty where nothing
    did. `repeats` counts the further requests that it took: repetitions where the server had closed a kept connection,
    and upgrades to a websocket.
    """

    verdict: Verdict
    response: Response = field(default_factory=Response)
    error: TransportError | None = None
    session_data: SessionData | None = None
    arrivals: tuple[Arrival, ...] = ()
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
    link: LinkAnswer = LinkAnswer()
    pushes: tuple[Reply, ...] = ()

    @property
    def good(self) -> bool:
        """True where the server did what was asked."""
        return self.verdict is Verdict.GOOD

    @property
    def over(self) -> bool:
        """True where the answer says that the chat is over; statusCode 1 says nothing that can be trusted."""
        return self.chat_ended and self.verdict in (Verdict.GOOD, Verdict.REFUSED)


class Asked(Struct, frozen=True, kw_only=True):
    """A command was given; `data` as documented, files prepared, a typing preview input looked at (`fits`)."""

    command: str
    data: Json = field(default_factory=dict)
    by: By = By.USER


class Replied(Struct, frozen=True, kw_only=True):
    """A call came back."""

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
    """The thread that waited for the call was interrupted; its answer will never be seen."""

    call: Call


Step = Asked | Replied | Due | Opened | Closed | Interrupted
