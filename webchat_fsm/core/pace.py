"""How long until the next poll, declared as data for each transport, and until the next request of a session's own."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from webchat_fsm.config import Config

BURST = 15
"""Requests made by itself that a session may make at once; the law allows 20, five of which may leave late."""

RATE = 10.0
"""Requests a second that a session may make by itself in the long run."""

RATE_AFTER_MESSAGES = 50.0
"""Connects a second that may follow connects with a message not seen before."""

LONGEST_PAUSE = 60.0
"""Seconds between two connects or handshakes of an outage at most; a longer `interval` counts as not said."""

ASK_AGAIN = 3.0
"""Seconds between two requests for missed messages, but those behind a handshake."""

CONNECT_GRACE = 10.0
"""Seconds that the answer to a connect may take beyond the time for which the server holds it."""

DISCONNECT_TIMEOUT = 2.0
"""Seconds for which the answer to the disconnect message to a gateway is waited for."""

LEAST_AFTER_FAILURE = 0.1
"""Seconds until the poll after a failed one at least, whatever the jitter takes off."""

_IMMINENT = 0.0005
"""Seconds that are not worth a timer."""


class Allowance(Struct):
    """The requests that a session may make by itself: `BURST` at once and `RATE` a second, on the line of the timers.

    `full_at` is the moment at which all of the burst is available again; `next_brisk` the earliest one for a connect
    that follows a message not seen before. The only place where the pace of requests is limited.
    """

    full_at: float = 0.0
    next_brisk: float = 0.0

    def wait(self, now: float, *, brisk: bool = False) -> float:
        """Return the seconds until a request may be made, 0.0 where it may be made now."""
        left = (self.next_brisk if brisk else self.full_at - (BURST - 1) / RATE) - now
        return left if left > _IMMINENT else 0.0

    def take(self, now: float, *, brisk: bool = False) -> float:
        """Reserve the next request that may be made; return the seconds until then."""
        wait = self.wait(now, brisk=brisk)
        if brisk:
            self.next_brisk = now + wait + 1 / RATE_AFTER_MESSAGES
        else:
            self.full_at = max(self.full_at, now + wait) + 1 / RATE
        return wait


class Pace(NamedTuple):
    """Delays in seconds: `least` after activity, times `growth` after each poll, `most` at last.

    Where `on_failure` is set the delay grows with failed polls alone and a good one brings it back to `least`.
    """

    least: float
    most: float
    growth: float
    on_failure: bool = False

    @classmethod
    def of(cls, config: Config) -> Pace:
        """The pace of a configuration."""
        if config.transport is not None:
            interval = config.transport.poll_timeout / 1000
            return cls(interval, max(30.0, interval), config.transport.poll_interval_multiplier, on_failure=True)
        if not config.dynamic_polling:
            return cls(config.poll_rate / 1000, config.poll_rate / 1000, 1.0)
        return cls(config.poll_rate_min / 1000, config.poll_rate_max / 1000, config.poll_rate_mult)

    def next(self, delay: float, *, failed: bool, offline: bool) -> tuple[float, float]:
        """How long to wait after a poll, and the delay to go on with, by the delay so far and how the poll went."""
        if self.on_failure:
            wait = min(delay * self.growth, self.most) if failed else self.least
            return wait, wait
        return (self.most, self.most) if offline else (delay, min(delay * self.growth, self.most))
