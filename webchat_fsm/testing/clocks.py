"""Clocks that move only when a test says so: a number, or the frozen clock of freezegun or time-machine.

All three count whole microseconds, which is what frozen clocks can show, so that a test sees the same times on each.
Neither of the two packages is needed: one that is not imported cannot have frozen the time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from webchat_fsm.errors import WebChatError, nearest
from webchat_fsm.runtime import frozen
from webchat_fsm.runtime.clock import SystemClock
from webchat_fsm.runtime.frozen import MICRO, micros

BEGIN = 1_750_000_000.0
"""Where time begins, unless it is frozen already: a Sunday in June 2025."""


class Source(Protocol):
    """Where the time of a timeline comes from."""

    def now(self) -> float:
        """Wall-clock seconds."""
        ...

    def shift(self, microseconds: int) -> None:
        """Move the clock by so much, either way."""
        ...


class Injected:
    """A number that nothing else reads: `time.time()` goes on as ever."""

    def __init__(self, begin: float = BEGIN) -> None:
        self._micros = micros(begin)

    def now(self) -> float:
        """Wall-clock seconds, as frozen clocks put them together."""
        return frozen.seconds(self._micros)

    def shift(self, microseconds: int) -> None:
        """Move the number."""
        self._micros += microseconds


class Frozen:
    """`time.time()` itself, moved by whoever has frozen it last; the same in every thread."""

    def now(self) -> float:
        """What everybody reads."""
        return SystemClock().wall()

    def shift(self, microseconds: int) -> None:
        """Move the innermost freeze; raises `WebChatError` where time is not frozen any more."""
        freeze = frozen.freeze()
        if freeze is None:
            raise WebChatError("the time is not frozen any more, so the timeline cannot move it")
        freeze.shift(timedelta(microseconds=microseconds))


def _freeze_with_freezegun(begin: float) -> Any:
    return import_module("freezegun").freeze_time(datetime.fromtimestamp(begin, UTC))


def _freeze_with_time_machine(begin: float) -> Any:
    return import_module("time_machine").travel(begin, tick=False)


FREEZERS: dict[str, Callable[[float], Any]] = {
    "time-machine": _freeze_with_time_machine,
    "freezegun": _freeze_with_freezegun,
}
"""Ways to freeze the time, the faster one first."""

INJECTED = "injected"
AUTO = "auto"
KINDS = (AUTO, *FREEZERS, INJECTED)
"""Names of the ways to keep time: what is installed, or a clock that only the kit knows."""


@contextmanager
def source(kind: str = AUTO, begin: float = BEGIN) -> Iterator[Source]:
    """A source of time for a test; a freeze that the test is in already is taken over, and left to the test."""
    check(kind)
    chosen = _installed() if kind == AUTO else kind
    if chosen == INJECTED:
        yield Injected(begin)
    elif frozen.freeze() is not None:
        yield Frozen()
    else:
        with FREEZERS[chosen](begin):
            yield Frozen()


def check(kind: str) -> None:
    """Raise `ValueError` for a way to keep time that there is not, or that is not installed."""
    if kind not in KINDS:
        raise ValueError(f"there is no clock {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    if kind in FREEZERS and not _is_installed(kind):
        raise ValueError(f"the clock {kind!r} is not installed: pip install {kind}")


def _installed() -> str:
    return next((name for name in FREEZERS if _is_installed(name)), INJECTED)


def _is_installed(freezer: str) -> bool:
    return find_spec(freezer.replace("-", "_")) is not None


class KitClock:
    """Two lines of time: the wall clock, and the line of the timers, which a jump of the wall clock does not move."""

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or Injected()
        self._ahead = 0.0
        self._seen = self._source.now()
        self._lock = threading.RLock()

    def wall(self) -> float:
        """Seconds since the epoch. A wall clock that somebody has turned back has jumped."""
        with self._lock:  # a thread that has looked before another one moves the clock must not find it turned back
            now = self._source.now()
            if now < self._seen:
                self._ahead += now - self._seen
            self._seen = now
            return now

    def timer(self) -> float:
        """Seconds on the line of the timers: the wall clock less its jumps."""
        return self.wall() - self._ahead

    def on_wall(self, moment: float) -> float:
        """The wall clock's time at a moment of the timer line."""
        return moment + self._ahead

    def sleep_until(self, moment: float) -> None:
        """Move to a moment of the timer line at once; one that has passed moves nothing."""
        left = micros(moment + self._ahead) - micros(self.wall())
        if left > 0:
            self._source.shift(left)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or the network would; no time passes."""
        step = math.floor(seconds * MICRO)
        with self._lock:
            before = self.wall()
            self._source.shift(step)
            self._seen = self._source.now()
            self._ahead += self._seen - before
