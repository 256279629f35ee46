"""A virtual timeline: time moves only when a test says so, from timer to timer.

Its clock is a number, or the frozen time of freezegun or time-machine. All three count whole microseconds, which is
what frozen clocks can show, so that a test reads the same times on each. Neither package is needed: one that is not
imported cannot have frozen the time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from webchat_fsm._errors import WebChatError, nearest
from webchat_fsm._runtime.clock import MICRO, ManualDriver, SystemClock, current_freeze, micros, seconds
from webchat_fsm._runtime.delivery import AnyEvent
from webchat_fsm._runtime.engine import Engine
from webchat_fsm._runtime.service import WebChatService

# -- clocks ------------------------------------------------------------------------------------------------------------

BEGIN = 1_750_000_000.0
"""Default begin of a timeline in wall-clock seconds: a Sunday in June 2025."""


class Source(Protocol):
    """Provides the time of a timeline and moves it."""

    def now(self) -> float:
        """Return wall-clock seconds, in whole microseconds."""
        ...

    def shift(self, microseconds: int) -> None:
        """Move the clock by a number of microseconds, forward or back."""
        ...


class Injected:
    """Holds the time as a number that only the kit reads: `time.time()` is not frozen."""

    def __init__(self, begin: float = BEGIN) -> None:
        self._micros = micros(begin)

    def now(self) -> float:
        """Return wall-clock seconds, rounded as frozen clocks round them."""
        return seconds(self._micros)

    def shift(self, microseconds: int) -> None:
        """Move the number by microseconds, forward or back."""
        self._micros += microseconds


class Frozen:
    """Reads and moves the frozen `time.time()` itself, which is the same in every thread."""

    def now(self) -> float:
        """Return frozen wall-clock seconds; reading causes no automatic tick."""
        freeze = current_freeze()
        # The freeze may end before the last service is closed.
        return SystemClock().wall() if freeze is None else freeze.now()

    def shift(self, microseconds: int) -> None:
        """Move the innermost freeze; raises `WebChatError` where time is not frozen any more."""
        freeze = current_freeze()
        if freeze is None:
            raise WebChatError(
                "the time is not frozen any more, and cannot be moved: keep it frozen until the test ends"
            )
        freeze.shift(timedelta(microseconds=microseconds))


def _freeze_with_freezegun(begin: float) -> Any:
    # Imported by name, as both packages are optional and untyped here.
    return import_module("freezegun").freeze_time(datetime.fromtimestamp(begin, UTC))


def _freeze_with_time_machine(begin: float) -> Any:
    return import_module("time_machine").travel(begin, tick=False)


FREEZERS: dict[str, Callable[[float], Any]] = {
    "time-machine": _freeze_with_time_machine,
    "freezegun": _freeze_with_freezegun,
}
"""Packages that freeze the time, the faster one first."""

INJECTED = "injected"
AUTO = "auto"
KINDS = (AUTO, *FREEZERS, INJECTED)
"""Values of the setting `webchat_clock`: `auto` is the first installed package, else `injected`."""


@contextmanager
def frozen_source(kind: str = AUTO, begin: float = BEGIN) -> Iterator[Source]:
    """Yield a source of time; a freeze that is already active is moved, and left active at the end."""
    check_kind(kind)
    chosen = _installed() if kind == AUTO else kind
    if chosen == INJECTED:
        yield Injected(begin)
    elif current_freeze() is not None:
        # A second freeze would hide the one that the test moves by itself.
        yield Frozen()
    else:
        with FREEZERS[chosen](begin):
            yield Frozen()


def check_kind(kind: str) -> None:
    """Raise `ValueError` for an unknown kind of clock, or one whose package is not installed."""
    if kind not in KINDS:
        raise ValueError(f"there is no clock {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
    if kind in FREEZERS and not _is_installed(kind):
        raise ValueError(f"the clock {kind!r} is not installed: pip install {kind}")


def _installed() -> str:
    return next((name for name in FREEZERS if _is_installed(name)), INJECTED)


def _is_installed(freezer: str) -> bool:
    return find_spec(freezer.replace("-", "_")) is not None


class KitClock:
    """A clock with two times: the wall clock, and the time of the timers, which a jump of the wall clock does not move.

    Both are in seconds; they differ by the sum of the jumps, `_ahead`.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or Injected()
        self._ahead = 0.0
        self._seen = self._source.now()
        self._lock = threading.RLock()

    def wall(self) -> float:
        """Return seconds since the epoch; a frozen clock that the test itself has turned back counts as a jump."""
        # One lock round reading and comparing: otherwise a thread that reads just before another one moves the clock
        # would compare its old time with the new `_seen`, and take the difference for a jump back.
        with self._lock:
            now = self._source.now()
            # Back only: a clock that is set forward by hand lets time pass, and timers fall due.
            if now < self._seen:
                self._ahead += now - self._seen
            self._seen = now
            return now

    def timer(self) -> float:
        """Return seconds of the timers: the wall clock without its jumps."""
        return self.wall() - self._ahead

    def on_wall(self, moment: float) -> float:
        """Return the wall-clock seconds that correspond to seconds of the timers."""
        return moment + self._ahead

    def sleep_until(self, moment: float) -> None:
        """Move to a timer time at once; a time in the past moves nothing."""
        left = micros(moment + self._ahead) - micros(self.wall())  # whole microseconds, so that it cannot fall short
        if left > 0:
            self._source.shift(left)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back by seconds, as an administrator or NTP would; no timer moves."""
        step = math.floor(seconds * MICRO)
        with self._lock:
            before = self.wall()
            self._source.shift(step)
            self._seen = self._source.now()
            # As measured, since a frozen clock may round the step.
            self._ahead += self._seen - before


# -- the timeline ------------------------------------------------------------------------------------------------------


class Pending(NamedTuple):
    """A timer or deadline: when it is due, in wall-clock seconds, and its name (`poll`, `typing countdown`)."""

    due: float
    name: str


class Timeline:
    """One clock and one driver for every service of a test; handlers run in the thread of the test.

    Without a source the clock is a number that only the kit reads; `Timeline.frozen` freezes `time.time()` itself.
    """

    def __init__(self, source: Source | None = None) -> None:
        self.clock: KitClock = KitClock(source)
        self.driver: ManualDriver = ManualDriver(self.clock)
        self._deadlines: list[Pending] = []

    @classmethod
    @contextmanager
    def frozen(cls, kind: str = AUTO, begin: float = BEGIN) -> Iterator[Timeline]:
        """Yield a timeline that moves the time frozen by freezegun or time-machine; `kind` is one of `KINDS`."""
        with frozen_source(kind, begin) as source:
            yield cls(source)

    def now(self) -> float:
        """Return the wall-clock seconds of the timeline."""
        return self.clock.wall()

    def advance(self, seconds: float | timedelta) -> None:
        """Let seconds pass; every timer that is due in them runs at its own time, in order.

        Raises `ValueError` for a negative or infinite span.
        """
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if span < 0:
            raise ValueError(f"time moves forward only, got {span:g} s: use clock_jump to set the wall clock back")
        if not math.isfinite(span):
            raise ValueError(f"expected a number of seconds, got {seconds!r}")
        self.driver.wait(span)

    def advance_to(self, moment: float | datetime) -> None:
        """Let time pass until the wall clock shows a moment: seconds since the epoch, or a datetime with its zone.

        Raises `ValueError` for a datetime without a zone, as its moment depends on the machine.
        """
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise ValueError(f"expected a datetime with its zone, such as datetime(..., tzinfo=UTC), got {moment!r}")
        until = moment.timestamp() if isinstance(moment, datetime) else moment
        self.advance(until - self.now())

    def clock_jump(self, seconds: float) -> None:
        """Set the wall clock forward or back by seconds; no time passes, and no timer moves."""
        self.clock.jump(seconds)

    def next_timer(self) -> float | None:
        """Return when the earliest timer is due, in wall-clock seconds; None without any."""
        due = self.driver.next_due()
        return None if due is None else self.clock.on_wall(due)

    def pending(self) -> list[Pending]:
        """List every timer of every service, and the deadline of every request in flight, in order of time."""
        timers = [
            Pending(self.clock.on_wall(due), timer.value)
            for service in self.driver.services
            # A driver may serve other objects too; only an engine has named timers.
            if isinstance(service, Engine)
            for timer, due in service.timers()
        ]
        return sorted([*timers, *self._deadlines])

    @contextmanager
    def awaiting(self, operation: str, deadline: float) -> Iterator[None]:
        """List the deadline of a request, a timer time, among `pending` while the request is in flight."""
        listed = Pending(self.clock.on_wall(deadline), f"deadline of {operation}")
        self._deadlines.append(listed)
        try:
            yield
        finally:
            self._deadlines.remove(listed)

    def run_until(self, chat: WebChatService, event: str, limit: float = 3600.0) -> AnyEvent:
        """Let time pass until a service publishes an event; raises `WaitTimeout` after `limit` seconds."""
        return chat.wait_for(event, limit)

    @contextmanager
    def expect(self, chat: WebChatService, event: str) -> Iterator[list[AnyEvent]]:
        """Raise `AssertionError` unless a service publishes an event inside the block; yields the list of events."""
        received: list[AnyEvent] = []
        subscription = chat.subscribe(event, received.append)
        try:
            yield received
        finally:
            # In `finally`: a block that raises must not leave its handler in the service.
            subscription.cancel()
        if not received:
            raise AssertionError(f"{event} was expected and not published; the state is {chat.state}")
