"""Run two threads by a schedule: each stops at every lock, request and delivery, and only one runs at a time.

A schedule says which thread begins and at which stops it is preempted. Otherwise a thread runs until it ends or has to
wait. `explore` runs every schedule with at most a given number of preemptions, so that no result depends on timing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

from tests.limits import LONG

LONGEST = 2000
"""Most stops of one run; more mean that a thread does not end."""


class Deadlock(AssertionError):
    """Report that neither thread can continue."""


class Worker(threading.Thread):
    """Run the action of one of the two threads."""

    def __init__(self, scheduler: Scheduler, number: int, action: Callable[[], object]):
        super().__init__(name=f"worker {number}", daemon=True)
        self.scheduler, self.number, self.action = scheduler, number, action
        self.resumed = threading.Semaphore(0)
        self.waits_for: Callable[[], bool] | None = None
        self.may_time_out = False
        self.ended = False
        self.result: object = None
        self.error: BaseException | None = None

    def run(self):
        self.resumed.acquire()
        try:
            if not self.scheduler.deadlocked:
                self.result = self.action()
        except BaseException as error:
            self.error = error
        self.ended = True
        self.scheduler.end_worker(self)

    @property
    def can_continue(self) -> bool:
        return not self.ended and (self.waits_for is None or self.waits_for())


class Scheduler:
    """Let one of two workers run at a time, and change between them at the stops of a schedule."""

    def __init__(self, first: int = 0, preemptions: frozenset[int] = frozenset()):
        self.first, self.preemptions = first, preemptions
        self.stops: list[str] = []
        self.deadlocked = False
        self._workers: list[Worker] = []
        self._over = threading.Semaphore(0)

    def run_pair(self, *actions: Callable[[], object]) -> list[Worker]:
        """Run both actions to their ends and return their workers."""
        self._workers = [Worker(self, number, action) for number, action in enumerate(actions)]
        for worker in self._workers:
            worker.start()
        self._workers[self.first].resumed.release()
        self._over.acquire()
        for worker in self._workers:
            worker.join(LONG)
        return self._workers

    def _me(self) -> Worker | None:
        return next((worker for worker in self._workers if worker is threading.current_thread()), None)

    def stop(self, label: str) -> None:
        """Stop here, where the schedule may preempt the current worker."""
        me = self._me()
        if me is None or self.deadlocked:
            return
        self.stops.append(f"{me.number} {label}")
        if len(self.stops) > LONGEST:
            self._abort()
            raise Deadlock("a thread does not end:\n" + "\n".join(self.stops[-20:]))
        other = self._workers[1 - me.number]
        if len(self.stops) - 1 in self.preemptions and other.can_continue:
            self._switch(me, other)

    def wait(self, ready: Callable[[], bool], *, may_time_out: bool = False) -> bool:
        """Wait until a condition holds; return False where it never will and a timeout is allowed."""
        me = self._me()
        while me is not None and not ready():
            other = self._workers[1 - me.number]
            if other.can_continue:
                me.waits_for, me.may_time_out = ready, may_time_out
                self._switch(me, other)
                me.waits_for = None
            elif may_time_out:
                return False
            elif other.may_time_out and not other.ended:
                me.waits_for = ready
                other.waits_for = None
                self._switch(me, other)
                me.waits_for = None
            else:
                self._abort()
                raise Deadlock("both threads wait:\n" + "\n".join(self.stops[-20:]))
            if self.deadlocked:
                raise Deadlock("the other thread is deadlocked")
        return True

    def _switch(self, me: Worker, other: Worker) -> None:
        other.resumed.release()
        me.resumed.acquire()

    def end_worker(self, me: Worker) -> None:
        """Resume the other worker, if it has not ended, as this one has."""
        other = self._workers[1 - me.number]
        if other.ended:
            self._over.release()
        else:
            other.waits_for = None if other.may_time_out or other.can_continue else other.waits_for
            other.resumed.release()

    def _abort(self) -> None:
        self.deadlocked = True


class Lock:
    """Stand for a lock, and stop before it is acquired."""

    def __init__(self, scheduler: Scheduler, name: str):
        self._scheduler, self._name = scheduler, name
        self._held = False

    def __enter__(self):
        self._scheduler.stop(self._name)
        self._scheduler.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *error):
        self._held = False


class ReentrantLock:
    """Stand for a re-entrant lock, and stop before it is acquired; a timed wait may end without it."""

    def __init__(self, scheduler: Scheduler, name: str):
        self._scheduler, self._name = scheduler, name
        self._holder: threading.Thread | None = None
        self._times = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.current_thread()
        self._scheduler.stop(self._name)
        if not blocking and self._holder not in (None, me):
            return False
        if not self._scheduler.wait(lambda: self._holder in (None, me), may_time_out=timeout >= 0):
            return False
        self._holder, self._times = me, self._times + 1
        return True

    def release(self) -> None:
        if self._holder is not threading.current_thread():
            raise RuntimeError("released by a thread that does not hold it")
        self._times -= 1
        if not self._times:
            self._holder = None

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


class Condition(Lock):
    """Stand for a condition whose waits end by a notification, or by their timeout where none can come."""

    def __init__(self, scheduler: Scheduler, name: str):
        super().__init__(scheduler, name)
        self._notices = 0

    def wait(self, timeout: float | None = None) -> bool:
        seen, self._held = self._notices, False
        noticed = self._scheduler.wait(lambda: self._notices != seen, may_time_out=timeout is not None)
        self._scheduler.wait(lambda: not self._held)
        self._held = True
        return noticed

    def wait_for(self, reached: Callable[[], object], timeout: float | None = None) -> bool:
        while not reached():
            if not self.wait(timeout):
                return bool(reached())
        return True

    def notify_all(self) -> None:
        self._notices += 1


class StoppingHttp:
    """Wrap an `http=`, and stop before each request and after each answer."""

    def __init__(self, inner, scheduler: Scheduler):
        self._inner, self._scheduler = inner, scheduler

    def send(self, request):
        self._scheduler.stop(f"request {request.operation}")
        answer = self._inner.send(request)
        self._scheduler.stop(f"answer {request.operation}")
        return answer

    def cut(self):
        self._inner.cut()

    def close(self):
        self._inner.close()


def schedules(preemptions: int, stops: Callable[[], int]) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield who begins and the stops of preemption; `stops` gives the number of stops of the longest run so far."""
    for first in (0, 1):
        for number in range(preemptions + 1):
            for chosen in itertools.takewhile(lambda one: one[-1:] < (stops(),), _ascending(number)):
                yield first, frozenset(chosen)


def _ascending(number: int) -> Iterator[tuple[int, ...]]:
    """Yield all ascending tuples of a length, by their last number."""
    if number == 0:
        yield ()
        return
    for last in itertools.count():
        for rest in itertools.combinations(range(last), number - 1):
            yield (*rest, last)


def explore(run_pair: Callable[[Scheduler], object], preemptions: int) -> int:
    """Run every schedule and return their number; add the schedule and its stops to a failure."""
    lengths = [1]
    for first, chosen in schedules(preemptions, lambda: max(lengths)):
        scheduler = Scheduler(first, chosen)
        try:
            run_pair(scheduler)
        except AssertionError as error:
            stops = "\n".join(f"{'>' if n in chosen else ' '} {stop}" for n, stop in enumerate(scheduler.stops))
            error.add_note(f"worker {first} began, the other was resumed at the marked stops:\n{stops}")
            raise
        lengths.append(len(scheduler.stops))
    return len(lengths) - 1
