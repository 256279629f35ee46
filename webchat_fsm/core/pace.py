"""How long until the next poll: declared as data, one pace a transport (lifecycle decision 7)."""

from __future__ import annotations

from typing import NamedTuple

from webchat_fsm.config import Config


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
