"""Drivers run the timers of services; `ManualDriver` does so in the thread of its caller.

One driver may run many services. It asks each for its next due moment, and runs the jobs that are due. The driver with
threads of its own is in thread_driver.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from webchat_fsm._runtime.clock import Clock, WallClock
from webchat_fsm._runtime.locks import Uncopied

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
