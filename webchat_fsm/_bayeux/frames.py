"""The inputs and outputs of a Bayeux connection: frames, their answers, events for the core, and pauses."""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Protocol

from msgspec import Struct

from webchat_fsm._bayeux.table import Report
from webchat_fsm._model import BayeuxFrame


class Handshake(BayeuxFrame, frozen=True, kw_only=True):
    """Ask the Bayeux server for a client id."""

    name = "handshake"
    polls = True


class Connect(BayeuxFrame, frozen=True, kw_only=True):
    """Wait for pushes.

    The server holds the message for `hold` seconds, or for `usual` seconds where `hold` is None; a websocket is read
    for `listen` seconds before the message is sent.
    """

    name = "connect"
    polls = True
    hold: float | None  # None sends no timeout of ours, so that the server's own holds
    usual: float  # for the deadline of the request alone
    listen: float = 0.0

    @property
    def held(self) -> bool:
        """Return whether the server may hold the answer until there is a message."""
        return self.hold != 0.0


class Notifications(BayeuxFrame, frozen=True, kw_only=True):
    """Attach the client to the chat and ask for everything from a position of the transcript on."""

    name = "notifications"
    polls = True
    position: int | str = 1


class BayeuxDisconnect(BayeuxFrame, frozen=True, kw_only=True):
    """Disconnect from the Bayeux server, which drops the client id."""

    name = "hangup"  # as recordings have it, in which `disconnect` is the operation of the chat
    client_id: str


class Publish(BayeuxFrame, frozen=True, kw_only=True):
    """Stands for a message of the chat, which the connection does not read; `opens` is that of a start."""

    name = "publish"
    opens: bool = False


Frame = Handshake | Connect | Notifications | BayeuxDisconnect | Publish


class Outcome(StrEnum):
    """The outcome of a frame, as far as the connection distinguishes it."""

    GOOD = "good"
    REFUSED = "refused"
    UNKNOWN_CLIENT = "unknown client"
    THROTTLED = "too many requests"
    FAILED = "no complete answer"


class Answer(Struct, frozen=True, kw_only=True):
    """The answer to a frame: its outcome, the client id of a handshake, and advice.

    `reconnect` is the advice `retry`, `handshake` or `none`, empty where none of them was given; `timeout` and
    `interval` are seconds, None where they were not given as numbers from 0 on. `disconnected` reports a message on
    /meta/disconnect beside the answer. `line` is that of `HttpAnswer`. `status` is 0 without an HTTP answer;
    `retry_after` is in seconds, and `pushed` is true where pushes came with it.
    """

    outcome: Outcome = Outcome.GOOD
    client_id: str = ""
    timeout: float | None = None
    interval: float | None = None
    reconnect: str = ""
    disconnected: bool = False
    line: str = ""
    status: int = 200
    retry_after: float = 0.0
    pushed: bool = False

    @property
    def forbidden(self) -> bool:
        """True where the gateway forbids every further request."""
        return self.reconnect == "none"

    @property
    def wants_handshake(self) -> bool:
        """True where the gateway has dropped the client, or advises a new handshake."""
        return self.disconnected or self.reconnect == "handshake"


class Sent(Struct, frozen=True, kw_only=True):
    """A frame that was sent: for which client, how often before, and whether its answer is the one waited for.

    `current` is false for a connect that another thread's handshake has replaced.
    """

    frame: Frame
    client_id: str = ""
    resent: int = 0
    current: bool = False


class Chat(Protocol):
    """The part of a chat that its connection reads; `poll_ticket` is 0 where no frame waits for its answer."""

    poll_ticket: int
    poll_since: float
    cursor: int | str
    catching_up: bool
    failures: int

    @property
    def disconnected(self) -> bool:
        """True between the events `disconnected` and `reconnected`."""
        ...


class Send(Struct, frozen=True):
    """Send a frame after `pause` seconds, to be answered within `left`; None is the request that opens the chat."""

    frame: Frame | None
    pause: float = 0.0
    left: float = inf


class NextAt(Struct, frozen=True):
    """Call `due` at that moment, on the line of the timers; None for never.

    With `reserves` a websocket is read then, and the connect that it sends later is to be reserved now.
    """

    at: float | None
    reserves: bool = False


class Warned(Struct, frozen=True):
    """A violation of the protocol by the gateway, as a text for the log; it changes nothing by itself."""

    text: str


Event = Report | Send | NextAt | Warned


# -- pauses, in seconds ------------------------------------------------------------------------------------------------

LONGEST_PAUSE = 60.0
"""Seconds between two connects or handshakes of an outage at most; a longer `interval` is ignored."""

CUT_BETWEEN = frozenset({408, 504, 524})
"""The statuses with which a proxy answers a connect that it does not hold any longer."""

SERVER_ERROR = 500
"""The first of the statuses of a server or a proxy in trouble, with which some cut a held connect too."""


class Backoff(Struct, frozen=True):
    """When a connection makes its next request, in seconds; each member is a rule of its own.

    What has failed is repeated after `step`, 2 x `step`, ... seconds, `most` at most, and never before the server's
    Retry-After or the interval of its advice has passed.
    """

    step: float = 1.0
    most: float = LONGEST_PAUSE
    after_empty: float = 0.5
    """The least pause after a connect that was answered at once with nothing: some gateways hold none."""
    after_bad_push: float = 1.0
    """The pause after an unreadable push, or one with statusCode 1: as after a failed connect."""
    settled: float = 0.5
    """The least time between two drops of the client for a handshake to follow at once; sooner is a failure."""
    least_hold: float = 2.0
    """The shortest hold that is asked for where a proxy cuts connects; each cut halves the hold."""
    ask_again: float = 3.0
    """The time between two requests for missed messages."""
    asked_at_most: int = 31
    """Requests in a row that no push answers; then they end, or go on every `most` seconds for a new client."""
    handshakes: int = 5
    """Handshakes that a start or a restore makes at most."""
    first_push: float = 10.0
    """The time within which a start or a restore wants its first push, from the acknowledgement on."""
    resent_at_most: int = 3
    """How often a message is sent again that was not taken, as other threads may renew the client meanwhile."""

    def after(self, failures: int, retry_after: float = 0.0, interval: float = 0.0) -> float:
        """Return the seconds to wait after so many failures in a row; the other two are the server's own wishes."""
        # `most` bounds our own growth alone: what the server asks for may be longer, and is obeyed
        return max(min(failures * self.step, self.most), retry_after, interval)

    def after_connect(self, held: float, interval: float, *, pushed: bool) -> float:
        """Return the seconds to wait after a good connect that the server held for `held` seconds."""
        # a connect with pushes may come back at once: the next one waits no longer than the server advises
        return max(interval, self.after_empty if held < self.after_empty and not pushed else 0.0)

    def between_requests(self, asked: int) -> float:
        """Return the seconds from the latest request for missed messages to the next one, after `asked` of them."""
        # slower, never none: a chat server that comes back after an hour is to be noticed
        return self.ask_again if asked < self.asked_at_most else self.most

    def shorter_hold(self, held: float) -> float:
        """Return the seconds of hold to ask for after a connect that was cut after `held` seconds."""
        # by the time it was held in fact, which may be far below the one that was asked for
        return max(self.least_hold, held / 2)


BACKOFF = Backoff()
"""The policy of every connection."""
