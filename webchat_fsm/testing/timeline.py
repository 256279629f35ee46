"""A virtual timeline: time moves only when a test says so, from timer to timer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from webchat_fsm.runtime.delivery import AnyEvent
from webchat_fsm.runtime.driver import ManualDriver
from webchat_fsm.runtime.engine import Engine
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.testing import clocks
from webchat_fsm.testing.clocks import KitClock, Source


class Pending(NamedTuple):
    """Something that falls due by itself: when, in wall-clock seconds, and its name (`poll`, `typing countdown`)."""

    due: float
    name: str


class Timeline:
    """One clock and one driver for every service of a test; handlers run in the test's thread.

    Without a source the clock is a number that only the kit reads; `Timeline.frozen` freezes `time.time()` itself.
    """

    def __init__(self, source: Source | None = None) -> None:
        self.clock = KitClock(source)
        self.driver = ManualDriver(self.clock)
        self._deadlines: list[Pending] = []

    @classmethod
    @contextmanager
    def frozen(cls, kind: str = clocks.AUTO, begin: float = clocks.BEGIN) -> Iterator[Timeline]:
        """A timeline that moves the time which freezegun or time-machine freezes; `kind` is one of `clocks.KINDS`."""
        with clocks.source(kind, begin) as source:
            yield cls(source)

    def now(self) -> float:
        """Wall-clock seconds of the timeline."""
        return self.clock.wall()

    def advance(self, seconds: float | timedelta) -> None:
        """Let so many seconds pass, running every timer that falls due at its own moment, in order of time."""
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if span < 0:
            raise ValueError("time moves forward only; the wall clock alone can jump back, with clock_jump")
        if not math.isfinite(span):
            raise ValueError(f"expected a number of seconds, got {seconds!r}")
        self.driver.wait(span)

    def advance_to(self, moment: float | datetime) -> None:
        """Let time pass until the wall clock shows a moment: seconds since the epoch, or a datetime with its zone.

        Raises `ValueError` for a datetime without a zone: which moment it is depends on whose clock is asked.
        """
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise ValueError(f"expected a datetime with its zone, such as datetime(..., tzinfo=UTC), got {moment!r}")
        until = moment.timestamp() if isinstance(moment, datetime) else moment
        self.advance(until - self.now())

    def clock_jump(self, seconds: float) -> None:
        """Set the wall clock forward or back by so many seconds; no time passes, and no timer moves."""
        self.clock.jump(seconds)

    def next_timer(self) -> float | None:
        """The moment of the earliest timer in wall-clock seconds, None where nothing waits."""
        due = self.driver.next_due()
        return None if due is None else self.clock.on_wall(due)

    def pending(self) -> list[Pending]:
        """Every timer of every service, and the deadline of every request that is out, in order of time."""
        timers = [
            Pending(self.clock.on_wall(due), timer.value)
            for service in self.driver.services
            if isinstance(service, Engine)
            for timer, due in service.timers()
        ]
        return sorted([*timers, *self._deadlines])

    @contextmanager
    def awaiting(self, operation: str, deadline: float) -> Iterator[None]:
        """List the deadline of a request, a moment of the timer line, among what is pending while it is out."""
        listed = Pending(self.clock.on_wall(deadline), f"deadline of {operation}")
        self._deadlines.append(listed)
        try:
            yield
        finally:
            self._deadlines.remove(listed)

    def run_until(self, chat: WebChatService, event: str, limit: float = 3600.0) -> AnyEvent:
        """Let time pass until a service has published an event; raises `WaitTimeout` after `limit` seconds."""
        return chat.wait_for(event, limit)

    @contextmanager
    def expect(self, chat: WebChatService, event: str) -> Iterator[list[AnyEvent]]:
        """Fail unless a service publishes an event inside the block; the list holds what came."""
        came: list[AnyEvent] = []
        subscription = chat.subscribe(event, came.append)
        try:
            yield came
        finally:
            subscription.cancel()
        if not came:
            raise AssertionError(f"{event} was expected and did not come; the state is {chat.state}")
