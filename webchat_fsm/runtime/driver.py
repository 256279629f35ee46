"""Who runs the timers: threads of their own, or the caller.

A driver serves many services. It asks each for its next due moment and runs what is due; what a timer does is the
service's affair.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from webchat_fsm.runtime.clock import LONGEST, Clock, SystemClock, WallClock

log = logging.getLogger("webchat_fsm")

Job = Callable[[], object]


class Timed(Protocol):
    """What a driver serves."""

    def next_due(self) -> float | None:
        """The moment of the earliest timer, None without one."""
        ...

    def take_due(self, now: float) -> list[Job]:
        """The jobs of all timers due by now, in order of time; each is given out once."""
        ...


@runtime_checkable
class Driver(Protocol):
    """Runs the timers of services."""

    clock: Clock

    @property
    def threaded(self) -> bool:
        """Whether timers run by themselves."""
        ...

    def attach(self, service: Timed) -> None:
        """Serve a service from now on."""
        ...

    def detach(self, service: Timed, timeout: float) -> bool:
        """Serve it no longer; True when none of its jobs runs any more, False when the time ran out first."""
        ...

    def wake(self, service: Timed) -> None:
        """Look again: something may be due sooner than before."""
        ...


class ManualDriver:
    """Runs timers in the caller's thread, when told to; it never starts a thread.

    `clock` tells the time: by default the machine's, which freezegun and time-machine may freeze and move, or a
    `ManualClock`. Waiting on a service of this driver moves time from timer to timer.
    """

    threaded = False
    """Timers run when the caller says so."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or WallClock()
        self._services: list[Timed] = []

    @property
    def services(self) -> tuple[Timed, ...]:
        """What is served, in the order of attaching."""
        return tuple(self._services)

    def attach(self, service: Timed) -> None:
        """Serve a service from now on."""
        if service not in self._services:
            self._services.append(service)

    def detach(self, service: Timed, timeout: float) -> bool:
        """Serve it no longer."""
        if service in self._services:
            self._services.remove(service)
        return True

    def wake(self, service: Timed) -> None:
        """Nothing to do: the caller looks."""

    def next_due(self) -> float | None:
        """The moment of the earliest timer of all services, None without one."""
        moments = [due for service in self.services if (due := service.next_due()) is not None]
        return min(moments, default=None)

    def run_due(self) -> float | None:
        """Run every timer that is due as it begins, in order of time; returns the moment of the next, None without."""
        now = self.clock.timer()
        while (due := self.next_due()) is not None and due <= now:
            service = next((one for one in self.services if one.next_due() == due), None)
            for job in service.take_due(due) if service else ():  # none: another thread has just taken the timer away
                job()
        return due

    def wait(self, seconds: float) -> None:
        """Let time pass, running each timer at its own moment."""
        self.wait_until(self.clock.timer() + seconds)

    def wait_until(self, moment: float) -> None:
        """Let time pass until a moment, running each timer at its own."""
        while (due := self.next_due()) is not None and due <= moment:
            self.clock.sleep_until(due)
            self.run_due()
        self.clock.sleep_until(moment)


HIRE_AGAIN = 0.5
"""Seconds after which a thread that could not be started is tried again."""


class _Own(threading.local):
    """What this thread does."""

    working_for: int | None = None


class ThreadDriver:
    """Runs timers in the background: one thread keeps the time, workers make the requests.

    Workers are started as they are needed, at most `workers` at a time, and end after `idle` seconds without work. All
    threads are daemons, and end with `close()`. Timers and waits go by the real monotonic clock: freezegun and
    time-machine freeze the wall clock alone. To move timers, take a `ManualDriver`.
    """

    threaded = True
    """Timers run by themselves."""

    def __init__(self, *, workers: int = 32, idle: float = 10.0) -> None:
        self.clock: Clock = SystemClock()
        self._most, self._idle_limit = workers, idle
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Timed]] = []
        self._awaited: dict[int, float] = {}
        self._order = itertools.count()
        self._running: dict[int, int] = {}
        self._jobs: deque[tuple[Timed, Job]] = deque()
        self._keeper: threading.Thread | None = None
        self._keeping = False
        self._workers: set[threading.Thread] = set()
        self._free = 0
        self._served: set[int] = set()
        self._closed = False
        self._own = _Own()

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that are alive."""
        with self._changed:
            known = [*self._workers, *([self._keeper] if self._keeper else [])]
        return [thread for thread in known if thread.is_alive()]

    def attach(self, service: Timed) -> None:
        """Serve a service from now on; the time keeper starts with the first."""
        with self._changed:
            self._closed = False
            self._served.add(id(service))
            if not self._keeping:
                self._keeper = threading.Thread(target=self._keep_time, name="webchat-fsm-time", daemon=True)
                self._keeper.start()
                self._keeping = True

    def detach(self, service: Timed, timeout: float) -> bool:
        """Serve it no longer, and wait for its running jobs; a job cannot wait for itself."""
        key = id(service)
        with self._changed:
            self._served.discard(key)
            self._awaited.pop(key, None)
            for waiting in [job for job in self._jobs if job[0] is service]:
                self._jobs.remove(waiting)
                self._finished(key)
            own = self._own.working_for == key
            self._changed.wait_for(lambda: self._running.get(key, 0) <= own, min(timeout, LONGEST))
            return key not in self._running

    def wake(self, service: Timed) -> None:
        """Look again at when the service is due."""
        due = service.next_due()
        if due is None:
            return
        with self._changed:
            if due < self._awaited.get(id(service), math.inf):
                self._awaited[id(service)] = due
                heapq.heappush(self._heap, (due, next(self._order), service))
                self._changed.notify_all()

    def close(self, timeout: float = 2.0) -> bool:
        """End all threads; True when they have ended, False after the timeout or on one of them."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._awaited.clear()
            self._changed.notify_all()
        here = threading.current_thread()
        deadline = self.clock.timer() + min(timeout, LONGEST)
        for thread in self.threads:
            if thread is not here:
                thread.join(max(0.0, deadline - self.clock.timer()))
        return not self.threads

    def _keep_time(self) -> None:
        while True:
            with self._changed:
                wait = self._until_next()
                if self._closed:
                    self._keeping = False  # at once: a thread that is about to end is still alive
                    return
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, service = heapq.heappop(self._heap)
                self._awaited.pop(id(service), None)
                if served := id(service) in self._served:
                    self._began(id(service))  # taking its jobs counts as one: detaching waits for that too
            if served:
                self._give_out(service)
                self.wake(service)

    def _until_next(self) -> float | None:
        """Seconds to the next timer; where jobs wait for a thread that could not be started, that is tried again."""
        if self._jobs:
            self._hire()
        wait = min(self._heap[0][0] - self.clock.timer(), LONGEST) if self._heap else None
        stranded = bool(self._jobs) and not self._workers
        return min(wait or HIRE_AGAIN, HIRE_AGAIN) if stranded and (wait is None or wait > 0) else wait

    def _give_out(self, service: Timed) -> None:
        jobs = service.take_due(self.clock.timer())
        with self._changed:
            for job in jobs if id(service) in self._served else ():
                self._began(id(service))
                self._jobs.append((service, job))
                self._hire()
            self._finished(id(service))

    def _hire(self) -> None:
        if not self._closed and len(self._jobs) > self._free and len(self._workers) < self._most:
            worker = threading.Thread(target=self._work, name="webchat-fsm-worker", daemon=True)
            try:
                worker.start()
            except RuntimeError:
                log.exception("no further thread can be started; the timers' jobs wait for one that is free")
            else:
                self._workers.add(worker)

    def _work(self) -> None:
        while (taken := self._next_job()) is not None:
            service, job = taken
            self._own.working_for = id(service)
            try:
                job()
            except BaseException:  # a handler may raise SystemExit; the thread must go on serving the others
                log.exception("a timer's job failed")
            finally:
                self._own.working_for = None
                with self._changed:
                    self._finished(id(service))

    def _began(self, key: int) -> None:
        self._running[key] = self._running.get(key, 0) + 1

    def _finished(self, key: int) -> None:
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]
        self._changed.notify_all()

    def _next_job(self) -> tuple[Timed, Job] | None:
        with self._changed:
            self._free += 1
            self._changed.wait_for(lambda: self._jobs or self._closed, self._idle_limit)
            self._free -= 1
            if self._jobs and not self._closed:
                return self._jobs.popleft()
            self._workers.discard(threading.current_thread())
            return None
