"""The timers of a session: how long each runs, the rate limit of the requests made then, and when polling has stalled.

What a timer does when it falls due stands in decide.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from webchat_fsm._config import Config
from webchat_fsm.lifecycle._states import POLLING_ON

if TYPE_CHECKING:
    from webchat_fsm._core.session import Session


class Timer(StrEnum):
    """A timer of a session; its value is the name in recordings."""

    POLL = "poll"
    """The next poll of a transport that polls."""
    TYPING = "typing countdown"
    """The end of a burst of typing, `TYPING_COUNTDOWN` after the latest sendTyping."""
    USER_DATA = "user data"
    """User data given during a start or a restore are sent, at once after its confirmation."""
    CONNECT = "connect"
    """The next message of the Bayeux connection."""
    PREVIEW = "typing preview"
    """The next reading of the typing preview input."""


ASKING_ON = frozenset({Timer.POLL, Timer.CONNECT})
"""The timers by which a session asks for messages: while one of them is pending, the chat goes on."""

TYPING_COUNTDOWN = 2.0
"""Seconds of silence after which the user counts as having stopped typing."""

PREVIEW_PERIOD = 1.0
"""Seconds between two readings of the typing preview input: less than `TYPING_COUNTDOWN`, so that a burst goes on."""

BURST = 15
"""Requests that a session may make by itself at once. The README promises 20, as five may be sent late."""

RATE = 10.0
"""Requests a second that a session may make by itself in the long run."""

RATE_AFTER_MESSAGES = 50.0
"""Connects a second that may follow connects with a message not seen before."""

CONNECT_GRACE = 10.0
"""Seconds that the answer to a connect may take beyond the time for which the server holds it."""

DISCONNECT_TIMEOUT = 2.0
"""Seconds for which the answer to the disconnect message to a gateway is waited for."""

LEAST_AFTER_FAILURE = 0.1
"""Seconds until the poll after a failed one at least, the jitter included."""

_IMMINENT = 0.0005
"""Seconds that are not worth a timer."""


class Allowance(Struct):
    """The requests that a session may make by itself: `BURST` at once and `RATE` a second, on the line of the timers.

    `full_at` is the moment at which all of the burst is available again; `next_fast` the earliest one for a connect
    that follows a message not seen before. The only place where the pace of requests is limited.
    """

    full_at: float = 0.0
    next_fast: float = 0.0

    def wait(self, now: float, *, fast: bool = False) -> float:
        """Return the seconds until a request may be made, 0.0 where it may be made now."""
        # a token bucket kept as one moment, which no timer has to refill: all but one request may still be missing
        left = (self.next_fast if fast else self.full_at - (BURST - 1) / RATE) - now
        # below the resolution of the timers: the driver would wait for nothing and ask once more
        return left if left > _IMMINENT else 0.0

    def take(self, now: float, *, fast: bool = False) -> float:
        """Reserve the next request that may be made; return the seconds until then."""
        wait = self.wait(now, fast=fast)
        # the faster rate has no burst: each connect that brought messages is followed by one at its own moment
        if fast:
            self.next_fast = now + wait + 1 / RATE_AFTER_MESSAGES
        else:
            # not before now: an allowance that was full for an hour must not have saved up more than the burst
            self.full_at = max(self.full_at, now + wait) + 1 / RATE
        return wait


class PollDelay(Struct, frozen=True):
    """Delays in seconds: `least` after activity, times `growth` after each poll, `most` at last.

    Where `on_failure` is set the delay grows with failed polls alone and a good one brings it back to `least`.
    """

    least: float
    most: float
    growth: float
    on_failure: bool = False

    @classmethod
    def of(cls, config: Config) -> PollDelay:
        """Return the delays of a configuration."""
        if config.transport is not None:
            # v3: pollTimeout, which failures lengthen to 30 s; one that is longer stays as it is
            interval = config.transport.poll_timeout / 1000
            return cls(interval, max(30.0, interval), config.transport.poll_interval_multiplier, on_failure=True)
        if not config.dynamic_polling:
            return cls(config.poll_rate / 1000, config.poll_rate / 1000, 1.0)
        return cls(config.poll_rate_min / 1000, config.poll_rate_max / 1000, config.poll_rate_mult)

    def next(self, delay: float, *, failed: bool, offline: bool) -> tuple[float, float]:
        """Return the seconds to wait after a poll and the delay to go on with, by the delay so far and its outcome."""
        if self.on_failure:
            wait = min(delay * self.growth, self.most) if failed else self.least
            return wait, wait
        return (self.most, self.most) if offline else (delay, min(delay * self.growth, self.most))


# -- stalled polling ---------------------------------------------------------------------------------------------------

SLACK = 5.0
"""Seconds that a busy machine may be late."""


def overdue_after(session: Session) -> float:
    """Return the seconds after which a poll is overdue: the deadline of one, and the longest pause before the next.

    `ajaxTimeout` is at least 1 ms, so that no poll is without a deadline. A longer pause, which a server asked for by
    Retry-After, is a timer that is pending: silence counts from that.
    """
    connection, usual = session.connection, session.config.ajax_timeout / 1000
    if connection is None:
        return usual + session.poll_delay.most + SLACK
    # a connect is held for the advised timeout; a command before it may take a whole ajaxTimeout
    return max(connection.timeout + CONNECT_GRACE, usual) + connection.backoff.most + SLACK


def stalled(session: Session, now: float, since: float) -> float | None:
    """Return the seconds without a poll where they are more than `overdue_after`, None where all is well.

    `since` is when the latest of the timers of polling was taken, a moment on their line.
    """
    pushed = session.state.has_session and not session.refused  # else no request may be made, and none is overdue
    # over CometD any open session connects; polling can be stopped by a command
    wanted = session.state in POLLING_ON if session.transport.polls else pushed
    due = max((session.timers[timer] for timer in ASKING_ON if timer in session.timers), default=0.0)
    silent = now - max(session.poll_since, since, due)
    return silent if session.opened and wanted and silent > overdue_after(session) else None
