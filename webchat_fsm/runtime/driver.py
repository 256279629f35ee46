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

from webchat_fsm.errors import WebChatError
from webchat_fsm.runtime import forks
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
class Watched(Protocol):
    """A service that says what has stalled."""

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that restart what should have happened long ago."""
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


LONG = 0.25
"""Seconds after which a job is a long one, such as a request that its server holds: its worker counts no longer.

Where jobs wait for a worker, that is how often it is looked whether one can be hired.
"""


WATCH = 15.0
"""Seconds between two looks at what has stalled: one look for all services, so that a poll costs nothing more."""


class ThreadDriver:
    """Runs timers in the background: one thread keeps the time, workers make the requests.

    Workers are started as they are needed, and end after `idle` seconds without work. `workers` of them are busy at
    most, not counting those whose job has lasted for more than 0.25 seconds already: a connect or a poll that its
    server holds, a slow handler. So there are about as many threads as requests that are held, and none keeps the
    others waiting. All threads are daemons, and end with `close()`; a closed driver goes on as soon as a service is
    opened on it, for those that are still open too. Timers and waits go by the real monotonic
    clock: freezegun and time-machine freeze the wall clock alone. To move timers, take a `ManualDriver`.
    """

    threaded = True
    """Timers run by themselves."""

    def __init__(self, *, workers: int = 32, idle: float = 10.0) -> None:
        self.clock: Clock = SystemClock()
        self._most, self._idle_limit = workers, idle
        self._order = itertools.count()
        self._working_for: dict[int, int] = {}  # by the number of the worker's thread
        self._begin()
        forks.prepare(self)

    def _begin(self) -> None:
        self._mutex = threading.RLock()  # taken by itself: the exit of a condition is Python, and may be interrupted
        self._changed = threading.Condition(self._mutex)
        self._heap: list[tuple[float, int, Timed]] = []
        self._awaited: dict[int, float] = {}
        self._running: dict[int, int] = {}
        self._jobs: deque[tuple[Timed, Job]] = deque()
        self._keeper: threading.Thread | None = None
        self._keeping = False
        self._workers: set[threading.Thread] = set()
        self._busy: dict[threading.Thread, float] = {}
        self._served: set[int] = set()
        self._watched: dict[int, Timed] = {}
        self._look_at = self.clock.timer() + WATCH
        self._closed = False
        self._unstarted: RuntimeError | None = None

    def after_fork(self) -> None:
        """Have no threads, and serve nobody, in a child of a fork."""
        self._begin()

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that are alive."""
        with self._mutex:
            known = [*self._workers, *([self._keeper] if self._keeper else [])]
        return [thread for thread in known if thread.is_alive()]

    def attach(self, service: Timed) -> None:
        """Serve a service from now on; the time keeper starts with the first.

        Raises `WebChatError` where gevent or eventlet has replaced the threads since the driver was made: its locks
        would hold up all that take turns in one thread.
        """
        if type(self._mutex) is not type(threading.RLock()):
            raise WebChatError("the standard library was patched after this service was made: patch it before")
        with self._mutex:
            self._closed = False
            self._served.add(id(service))
            self._watched[id(service)] = service
            if not self._keeping:
                keeper = threading.Thread(target=self._keep_time, name="webchat-fsm-time", daemon=True)
                self._keeper, self._keeping = keeper, True
                try:
                    keeper.start()
                except BaseException:  # where it has begun all the same, it gives way to the next
                    self._keeping = False
                    raise

    def detach(self, service: Timed, timeout: float) -> bool:
        """Serve it no longer, and wait for its running jobs; a job cannot wait for itself."""
        key = id(service)
        with self._mutex:
            self._served.discard(key)
            self._watched.pop(key, None)
            self._awaited.pop(key, None)
            kept = deque(job for job in self._jobs if job[0] is not service)
            running = self._running.get(key, 0) - (len(self._jobs) - len(kept))
            self._jobs, self._running[key] = kept, running
            own = self._working_for.get(threading.get_ident()) == key
            self._changed.wait_for(lambda: self._running.get(key, 0) <= own, min(timeout, LONGEST))
            if not self._running.get(key):
                self._running.pop(key, None)
            return key not in self._running

    def wake(self, service: Timed) -> None:
        """Look again at when the service is due."""
        due = service.next_due()
        if due is None:
            return
        with self._mutex:
            if due < self._awaited.get(id(service), math.inf):
                heapq.heappush(self._heap, (due, next(self._order), service))
                self._changed.notify_all()
                self._awaited[id(service)] = due  # last, so that what was interrupted here is done again

    def close(self, timeout: float = 2.0) -> bool:
        """End all threads; True when they have ended, False after the timeout or on one of them."""
        with self._mutex:
            self._closed = True
            self._heap = [entry for entry in self._heap if id(entry[2]) in self._served]
            heapq.heapify(self._heap)
            self._awaited = {key: due for key, due in self._awaited.items() if key in self._served}
            self._changed.notify_all()
        here = threading.current_thread()
        deadline = self.clock.timer() + min(timeout, LONGEST)
        for thread in self.threads:
            if thread is not here:
                thread.join(max(0.0, deadline - self.clock.timer()))
        return not self.threads

    def _keep_time(self) -> None:
        while True:
            self._complain()
            with self._mutex:
                if self._keeper is not threading.current_thread():
                    return
                wait = self._until_next()
                if self._closed:
                    self._keeping = False  # at once: a thread that is about to end is still alive
                    return
                until_look = self._look_at - self.clock.timer()
                if until_look > 0 and (wait is None or wait > 0):
                    self._changed.wait(until_look if wait is None else min(wait, until_look))
                    continue
                service = self._next_due() if until_look > 0 else None
            if service is not None:
                self._give_out(service)
                self.wake(service)
            elif until_look <= 0:
                self.look()

    def _next_due(self) -> Timed | None:
        """Return the service whose timer has fallen due, None for one that is served no longer."""
        _, _, service = heapq.heappop(self._heap)
        self._awaited.pop(id(service), None)
        if id(service) not in self._served:
            return None
        self._began(id(service))  # taking its jobs counts as one: detaching waits for that too
        return service

    def look(self) -> None:
        """Restart what has stalled at any service; done every 15 seconds."""
        now = self.clock.timer()
        with self._mutex:
            self._look_at = now + WATCH
            watched = list(self._watched.items())
        for key, service in watched:
            jobs = service.overdue(now) if isinstance(service, Watched) else []
            with self._mutex:
                for job in jobs if key in self._served else ():
                    self._began(key)
                    self._jobs.append((service, job))
                self._hire()
                self._changed.notify_all()

    def _complain(self) -> None:
        error, self._unstarted = self._unstarted, None
        if error is None:
            return
        if "interpreter shutdown" in str(error):  # from 3.12 on, for a program that exits without close()
            log.debug("the program exits, so no further thread can be started: %s", error)
        else:
            log.error("no further thread can be started; jobs of timers wait for one that is free", exc_info=error)

    def _until_next(self) -> float | None:
        """Seconds to the next timer; where jobs wait for a worker, it is looked again soon whether one can be hired."""
        self._hire()
        wait = min(self._heap[0][0] - self.clock.timer(), LONGEST) if self._heap else None
        return min(LONG if wait is None else wait, LONG) if self._jobs else wait

    def _give_out(self, service: Timed) -> None:
        jobs = service.take_due(self.clock.timer())
        with self._mutex:
            for job in jobs if id(service) in self._served else ():
                self._began(id(service))
                self._jobs.append((service, job))
            self._hire()
            self._finished(id(service))

    def _hire(self) -> None:
        while not self._closed and len(self._jobs) > len(self._workers) - len(self._busy) and self._may_hire():
            worker = threading.Thread(target=self._work, name="webchat-fsm-worker", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:
                self._unstarted = error  # to be logged outside of the lock, which close() needs
                return
            self._workers.add(worker)

    def _may_hire(self) -> bool:
        """Whether fewer workers than there may be are idle, or have begun their job just now."""
        long_ago = self.clock.timer() - LONG
        return len(self._workers) - sum(begun <= long_ago for begun in self._busy.values()) < self._most

    def _work(self) -> None:
        while (taken := self._next_job()) is not None:
            service, job = taken
            self._working_for[threading.get_ident()] = id(service)
            try:
                job()
            except BaseException:  # a handler may raise SystemExit; the thread must go on serving the others
                log.exception("a timer's job failed")
            finally:
                self._working_for.pop(threading.get_ident(), None)
                with self._mutex:
                    self._busy.pop(threading.current_thread(), None)
                    self._finished(id(service))

    def _began(self, key: int) -> None:
        self._running[key] = self._running.get(key, 0) + 1

    def _finished(self, key: int) -> None:
        self._running[key] = self._running.get(key, 1) - 1  # without a count where a job has forked
        if not self._running[key]:
            del self._running[key]
        self._changed.notify_all()

    def _next_job(self) -> tuple[Timed, Job] | None:
        with self._mutex:
            self._changed.wait_for(lambda: self._jobs or self._closed, self._idle_limit)
            if self._jobs and not self._closed:
                self._busy[threading.current_thread()] = self.clock.timer()
                return self._jobs.popleft()
            self._workers.discard(threading.current_thread())
            return None
