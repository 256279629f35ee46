"""The only reader of time, by attribute at the moment of use, so that freezegun and time-machine reach it.

What a freeze reaches is the wall clock. Threads and sockets wait for real, so what their waits are measured by is the
real monotonic clock, which freezegun would freeze in some threads and not in others.
"""

from __future__ import annotations

import time
from typing import Protocol

from webchat_fsm.runtime import frozen

LONGEST = 1e9
"""Seconds, some thirty years, that one wait of a thread may last: far longer ones overflow the system's own types."""


class Clock(Protocol):
    """Two lines of time in seconds: `timer` for what falls due, `wall` for what is remembered."""

    def timer(self) -> float:
        """Now, on the line on which timers fall due."""
        ...

    def wall(self) -> float:
        """Now, in seconds since the epoch."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Let time pass until a moment of the timer line, which may lie in the past."""
        ...


class SystemClock:
    """The machine's clocks: timers run on the monotonic one, which a change of the wall clock does not move."""

    def timer(self) -> float:
        """Monotonic seconds, the real ones."""
        return monotonic()

    def wall(self) -> float:
        """Wall-clock seconds, the frozen ones where time is frozen, in whatever thread."""
        freeze = frozen.freeze()
        return time.time() if freeze is None else freeze.now()

    def sleep_until(self, moment: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, moment - self.timer()))


class WallClock(SystemClock):
    """The clock of a `ManualDriver`: frozen time moves its timers too, and a wall clock that is set moves none."""

    def __init__(self) -> None:
        self._ahead: float | None = None

    def timer(self) -> float:
        """The frozen time, or seconds that go on from the wall clock's first reading."""
        freeze = frozen.freeze()
        if freeze is not None:
            return freeze.now()
        if self._ahead is None:
            self._ahead = time.time() - monotonic()
        return monotonic() + self._ahead

    def sleep_until(self, moment: float) -> None:
        """Sleep, or move the time where it is frozen: it would not pass by itself."""
        freeze = frozen.freeze()
        if freeze is None:
            super().sleep_until(moment)
        else:
            frozen.move_to(freeze, moment)


class ManualClock:
    """A clock that moves only when told to, and only forwards."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now

    def timer(self) -> float:
        """The same line as `wall`."""
        return self.now

    def wall(self) -> float:
        """Seconds since the epoch, as set."""
        return self.now

    def sleep_until(self, moment: float) -> None:
        """Move to that moment at once."""
        self.now = max(self.now, moment)


def monotonic() -> float:
    """Monotonic seconds, for deadlines of sockets and waits of threads; real ones under a freeze too."""
    return (frozen.real_monotonic() or time.monotonic)()
