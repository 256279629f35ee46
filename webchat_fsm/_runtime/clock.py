"""The only reader of time, and the drivers that run the timers of services by it.

Wall-clock time is `time.time()`, by attribute at the moment of use, so that freezegun and time-machine reach it.
Threads and sockets wait for real, so their deadlines come from `monotonic()`, which neither library replaces.

The default clock of a `ManualDriver` goes one step further: frozen time moves its timers too. It has to find the freeze
for that, in attributes that the two libraries do not document. They are looked up among the imported modules, once for
each step, and by this clock alone: a service on threads never looks.

One driver may run many services. It asks each for its next due moment, and runs the jobs that are due; `ManualDriver`
does so in the thread of its caller. The driver with threads of its own is in thread_driver.py.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from webchat_fsm._core.steps import Moment
from webchat_fsm._runtime.locks import Uncopied

LONGEST = 1e9
"""The longest wait of a thread in seconds, some thirty years: far longer ones overflow the types of the system."""

# freezegun replaces `time.monotonic`, also where it is an attribute of a module, and would let threads wait for ever.
# It leaves `clock_gettime` alone, and functions inside of a `partial`.
if sys.platform == "win32":
    monotonic: Callable[[], float] = partial(time.monotonic)
else:
    monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    """Return real monotonic seconds for deadlines of sockets and waits of threads, under a freeze too."""


@runtime_checkable
class Clock(Protocol):
    """Two lines of time in seconds: `timer` for what falls due, `wall` for what is remembered."""

    def timer(self) -> float:
        """Return the present on the line on which timers fall due."""
        ...

    def wall(self) -> float:
        """Return the present in seconds since the epoch."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Let time pass until a moment of the timer line, which may lie in the past."""
        ...


class SystemClock:
    """The clocks of the machine: timers run on the monotonic one, which a change of the wall clock does not move."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def timer(self) -> float:
        """Return real monotonic seconds."""
        return monotonic()

    def wall(self) -> float:
        """Return `time.time()`, which a freeze replaces."""
        return time.time()

    def sleep_until(self, moment: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, moment - self.timer()))


class WallClock(SystemClock):
    """The default clock of a `ManualDriver`: frozen time moves its timers, a change of the wall clock does not."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def timer(self) -> float:
        """Return the frozen time, or seconds that go on from the first reading of the wall clock."""
        return self.both()[0]

    def wall(self) -> float:
        """Return wall-clock seconds, frozen or not."""
        return self.both()[1]

    def both(self) -> tuple[float, float]:
        """Return the present on both lines, and look for a freeze only once."""
        freeze = current_freeze()
        if freeze is not None:
            now = freeze.now()
            return now, now
        wall = time.time()
        if self._offset is None:
            self._offset = wall - monotonic()
        return monotonic() + self._offset, wall

    def sleep_until(self, moment: float) -> None:
        """Sleep, or move the time where it is frozen, as it would not pass by itself."""
        freeze = current_freeze()
        if freeze is None:
            super().sleep_until(moment)
        else:
            left = micros(moment) - micros(freeze.now())
            if left > 0:
                freeze.shift(timedelta(microseconds=left))


class ManualClock:
    """A clock that moves only by `sleep_until` or by setting `now`, in seconds since the epoch."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now: float = now

    def __repr__(self) -> str:
        return f"ManualClock({self.now!r})"

    def timer(self) -> float:
        """Return `now`: both lines are the same."""
        return self.now

    def wall(self) -> float:
        """Return `now`."""
        return self.now

    def sleep_until(self, moment: float) -> None:
        """Move to that moment at once, never backwards."""
        self.now = max(self.now, moment)


def moment_of(clock: Clock) -> Moment:
    """Return the time of a step, with the random number for the jitter of its delays."""
    timer, wall = clock.both() if isinstance(clock, WallClock) else (clock.timer(), clock.wall())
    return Moment(timer, wall, random.random())


# -- frozen time -------------------------------------------------------------------------------------------------------

MICRO, NANO = 1_000_000, 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Freeze(Struct, frozen=True):
    """A freeze in effect."""

    now: Callable[[], float]
    """Returns wall-clock seconds as `time.time()` shows them; reading causes no automatic tick."""
    shift: Callable[[timedelta], object]
    """Moves the frozen time, either way."""


def current_freeze() -> Freeze | None:
    """Return the innermost freeze, None where time is not frozen; a library that is not imported has not frozen it."""
    # freezegun replaces the functions that time-machine has patched, so its freeze is the one that is seen.
    if factories := getattr(sys.modules.get("freezegun.api"), "freeze_factories", None):
        return _of_freezegun(factories[-1])
    module = sys.modules.get("time_machine")
    if module is None:  # as in nearly every program
        return None
    stack = getattr(module, "traveller_stack", None) or getattr(module, "coordinates_stack", None)
    return Freeze(now=lambda: stack[-1].time_ns() / NANO, shift=stack[-1].shift) if stack else None


def seconds(micros: int) -> float:
    """Convert whole microseconds since the epoch as `time.time()` does, to the last bit."""
    whole, rest = divmod(micros, MICRO)
    return whole + rest / MICRO


def micros(moment: float) -> int:
    """Return the first whole microsecond that is not before a moment."""
    near = round(moment * MICRO)
    return near if seconds(near) >= moment else near + 1


def _of_freezegun(factory: Any) -> Freeze:
    def shown() -> datetime:
        # A factory with a step width ticks with each call.
        at: datetime = factory.time_to_freeze if hasattr(factory, "step_width") else factory()
        return at

    # Its own `tick` forgets the time that has passed by itself under `tick=True`; `move_to` does not.
    return Freeze(
        now=lambda: seconds((shown() - _EPOCH) // timedelta(microseconds=1)),
        shift=lambda delta: factory.move_to(shown() + delta),
    )


# -- drivers -----------------------------------------------------------------------------------------------------------

Job = Callable[[], object]
"""Runs once it is due. A driver that parks jobs is given a `Parked` back by one that has nothing to do for now."""


class Timed(Protocol):
    """A service with timers, as a driver sees it."""

    def next_due(self) -> float | None:
        """Return the moment of the earliest timer, None without one."""
        ...

    def take_due(self, now: float) -> list[Job]:
        """Remove the timers due by now, and return their jobs in order of time."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A service that reports what has stalled."""

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that restart what is long overdue."""
        ...


@runtime_checkable
class Driver(Protocol):
    """Runs the timers of services, on a clock of its own."""

    clock: Clock

    @property
    def threaded(self) -> bool:
        """Return whether timers run without a call of the user."""
        ...

    def attach(self, service: Timed) -> None:
        """Start to run the timers of a service."""
        ...

    def detach(self, service: Timed, timeout: float) -> bool:
        """Stop to run its timers; True when none of its jobs runs any more, False after `timeout` seconds."""
        ...

    def wake(self, service: Timed) -> None:
        """Ask a service for its next due moment again, which may be sooner than before."""
        ...


class ManualDriver(Uncopied):
    """Runs timers in the caller's thread, by `run_due`, `wait` and `wait_until`; it never starts a thread.

    `clock` is by default the machine's, which freezegun and time-machine may freeze and move, or a `ManualClock`.
    Waiting on a service of this driver moves time from timer to timer.
    """

    _instead = "services that are to move together share one driver"

    threaded = False
    """Timers run in calls of the user."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = WallClock() if clock is None else clock
        self._services: list[Timed] = []

    def __repr__(self) -> str:
        return f"<ManualDriver {self.clock!r} services={len(self._services)}>"

    @property
    def services(self) -> tuple[Timed, ...]:
        """Return the attached services, in the order of attaching."""
        return tuple(self._services)

    def attach(self, service: Timed) -> None:
        """Start to run the timers of a service."""
        if service not in self._services:
            self._services.append(service)

    def detach(self, service: Timed, timeout: float) -> bool:
        """Stop to run its timers; always True, as jobs run in the caller's thread."""
        if service in self._services:
            self._services.remove(service)
        return True

    def wake(self, service: Timed) -> None:
        """Do nothing: the next call of the user asks every service anyway."""

    def next_due(self) -> float | None:
        """Return the moment of the earliest timer of all services, None without one."""
        moments = [due for service in self.services if (due := service.next_due()) is not None]
        return min(moments, default=None)

    def run_due(self) -> float | None:
        """Run the timers that are due now, in order of time; returns the moment of the next, None without one."""
        now = self.clock.timer()  # read once: what falls due while jobs run is left for the next call
        while (due := self.next_due()) is not None and due <= now:
            service = next((one for one in self.services if one.next_due() == due), None)
            if service is not None:  # else another thread has just removed the timer
                for job in service.take_due(due):
                    job()
        return due

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass, running each timer at its own moment."""
        self.wait_until(self.clock.timer() + seconds)

    def wait_until(self, moment: float) -> None:
        """Let time pass until a moment of the clock's `timer` line, running each timer at its own."""
        while (due := self.next_due()) is not None and due <= moment:
            self.clock.sleep_until(due)
            self.run_due()
        self.clock.sleep_until(moment)
