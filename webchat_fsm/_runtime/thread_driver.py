"""The driver with threads of its own: one event loop that waits for everything, and a few workers that run the jobs.

    the loop      waits for the next timer and for bytes on the sockets of parked jobs, in one call of the selector
    | a timer is due, or a socket is ready; a timer that is due as it is set goes straight to the queue
    the queue     jobs in order, first those that go on, and those that open a connection in a queue beside it
    | one worker is woken for one job
    a worker      runs the job; one that has to wait for an answer is parked, and the worker takes the next

So no thread waits for a server, and the number of threads does not grow with the number of services.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from functools import partial

from webchat_fsm._errors import WebChatError
from webchat_fsm._runtime.clock import LONGEST, Clock, Job, SystemClock, Timed, Watched
from webchat_fsm._runtime.job_queue import LONG_JOB, JobQueue, Parked, ParkedJobs, QueuedJob
from webchat_fsm._runtime.locks import Uncopied, patched_since, renew_after_fork

log = logging.getLogger("webchat_fsm")

WORKERS = 4
"""Workers that may be busy at once: polls are short and share one interpreter, so that more of them only switch."""

CHECK_INTERVAL = 15.0
"""Seconds between two checks for stalled services: one check for all of them, so that a poll costs nothing more."""


class ThreadDriver(Uncopied):
    """Runs timers in background threads: one event loop, and workers that run the jobs.

    Workers are started as they are needed, and end after `idle` seconds without work. At most `workers` of them are
    busy, not counting those whose job has lasted for more than 0.25 seconds, as a slow handler does: none keeps the
    others waiting. At most half of them open connections; those to hosts that do not answer are not counted either, and
    are two to one host and eight in all. A request whose answer is not there after a millisecond is parked, so that any
    number of polls and held connects needs no thread. All threads are daemons, and end with `close()`; a closed driver
    starts again as soon as a service is opened on it, for those that are still open too.
    Timers and waits use the real monotonic clock: freezegun and time-machine freeze the wall clock alone. To move
    timers, use a `ManualDriver`. Raises ValueError for other values.

    Works under gevent and eventlet, where its threads are greenlets, if they patch the standard library first.
    """

    _instead = "services share one driver, or have one each"

    threaded = True
    """Timers run in threads of the driver."""

    def __init__(self, *, workers: int = WORKERS, idle: float = 10.0) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers must be a whole number of at least 1, got {workers!r}")
        if isinstance(idle, bool) or not isinstance(idle, int | float) or not idle >= 0:  # so written, NaN is refused
            raise ValueError(f"idle must be a number of seconds of at least 0, got {idle!r}")
        self.clock: Clock = SystemClock()
        self._most, self._idle_limit = workers, min(idle, LONGEST)
        self._order = itertools.count()
        self._working_for: dict[int, int] = {}  # by the number of the worker's thread
        self._reset()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"<ThreadDriver services={len(self._served)} threads={len(self.threads)}>"

    def _reset(self) -> None:
        # Every access takes the mutex and not a condition, whose `__exit__` is Python: a signal at its entry would
        # leave it locked. The release of the mutex is in C.
        self._mutex = threading.RLock()
        # A condition for each purpose: a job wakes one worker, and not the threads that wait for something else.
        self._job_added = threading.Condition(self._mutex)
        self._job_ended = threading.Condition(self._mutex)
        self._detaching = 0
        self._heap: list[tuple[float, int, Timed]] = []
        self._awaited: dict[int, float] = {}
        self._running: dict[int, int] = {}
        self._queue = JobQueue(self._most, lambda: self.clock.timer())
        self._time_keeper: threading.Thread | None = None
        self._keeping = False
        self._workers: set[threading.Thread] = set()
        self._served: set[int] = set()
        self._watched: dict[int, Timed] = {}
        self._check_at = self.clock.timer() + CHECK_INTERVAL
        self._closed = False
        self._unstarted: RuntimeError | None = None
        self._parked = ParkedJobs()
        self._wakes_at = -math.inf

    def after_fork(self) -> None:
        """Have no threads and no services in a forked child: the parent runs their timers."""
        self._parked.close_descriptors()
        self._reset()

    @property
    def threads(self) -> list[threading.Thread]:
        """Return the threads that are alive."""
        with self._mutex:
            known = [*self._workers, *([self._time_keeper] if self._time_keeper else [])]
        return [thread for thread in known if thread.is_alive()]

    # -- services ------------------------------------------------------------------------------------------------------

    def attach(self, service: Timed) -> None:
        """Start to run the timers of a service; the event loop starts with the first.

        Raises `WebChatError` where gevent or eventlet has patched the standard library since the driver was made: its
        locks would block all greenlets of a thread.
        """
        if patched_since(self._mutex):
            raise WebChatError("the standard library was patched after this service was made: patch it before")
        with self._mutex:
            self._closed = False
            self._served.add(id(service))
            self._watched[id(service)] = service
            if not self._keeping:
                self._parked.open()
                time_keeper = threading.Thread(target=self._run_time_keeper, name="webchat-fsm-time", daemon=True)
                self._time_keeper, self._keeping = time_keeper, True
                try:
                    time_keeper.start()
                except BaseException:  # if it runs all the same, it ends as it finds the next one in its place
                    self._keeping = False
                    raise

    def detach(self, service: Timed, timeout: float) -> bool:
        """Stop to run its timers, drop waiting jobs, cancel parked ones and wait for running ones.

        A job does not wait for itself.
        """
        key = id(service)
        with self._mutex:
            self._served.discard(key)
            self._watched.pop(key, None)
            self._awaited.pop(key, None)
        self._cancel_waiting(service)
        with self._mutex:
            own = self._working_for.get(threading.get_ident()) == key
            self._detaching += 1
            try:
                self._job_ended.wait_for(lambda: self._running.get(key, 0) <= own, min(timeout, LONGEST))
            finally:
                self._detaching -= 1
            if self._closed and not self._keeping:  # else the loop closes it as it ends
                self._parked.close_unused()
            return key not in self._running

    def wake(self, service: Timed) -> None:
        """Ask a service for its next due moment again."""
        due = service.next_due()
        if due is None:
            return
        with self._mutex:
            if due < self._awaited.get(id(service), math.inf):
                if due <= (now := self.clock.timer()) and id(service) in self._served:
                    self._enqueue_due(service, now)  # by the loop it would be two threads to wake
                else:
                    # A later entry of the service stays: popping it asks the service once more, which costs less than
                    # searching the heap.
                    heapq.heappush(self._heap, (due, next(self._order), service))
                    self._wake_loop(due)
                self._awaited[id(service)] = due  # last, so that an interrupted wake-up is repeated by the next

    def close(self, timeout: float = 2.0) -> bool:
        """End all threads; True when they have ended, False after the timeout or in one of them."""
        with self._mutex:
            self._closed = True
            self._heap = [entry for entry in self._heap if id(entry[2]) in self._served]
            heapq.heapify(self._heap)
            self._awaited = {key: due for key, due in self._awaited.items() if key in self._served}
            self._wake_loop(-math.inf)
            self._job_added.notify_all()
        here = threading.current_thread()
        deadline = self.clock.timer() + min(timeout, LONGEST)
        for thread in self.threads:
            if thread is not here:
                thread.join(max(0.0, deadline - self.clock.timer()))
        return not self.threads

    # -- the event loop ------------------------------------------------------------------------------------------------

    def _wake_loop(self, due: float) -> None:
        """Have the loop look at its timers again, if it would sleep beyond `due`."""
        if due < self._wakes_at:
            self._parked.wake()
            # Others with a later moment need not wake it once more. Last, so that an interrupted wake-up is repeated.
            self._wakes_at = due

    def _run_time_keeper(self) -> None:
        while True:
            with self._mutex:
                if self._time_keeper is not threading.current_thread():
                    return
                if self._closed:
                    self._keeping = False  # here, under the lock: a thread that is about to end is still alive
                    self._parked.close_unused()
                    return
                wait = self._until_next()
                # From here on a thread with an earlier timer sends a byte, which the selector below sees even if it
                # has not begun to wait yet.
                self._wakes_at = self.clock.timer() + wait
            self._log_unstarted()
            ready = self._parked.select(wait)
            with self._mutex:
                self._wakes_at = -math.inf  # awake: the timers are looked at before it sleeps again
                if taken := self._parked.take(ready, self.clock.timer(), self._queue.resumed):
                    self._job_added.notify(taken)
                self._start_workers()
            self._run_due()
            if self._check_at <= self.clock.timer():
                self.check_stalled()

    def _until_next(self) -> float:
        """Return the seconds to the next timer, expiry or check, or to the next try to start a worker."""
        self._start_workers()
        now = self.clock.timer()
        due = min(self._heap[0][0] if self._heap else math.inf, self._check_at, self._parked.earliest)
        wait = min(max(0.0, due - now), LONGEST)
        if not self._queue:
            return wait
        self._job_added.notify()  # a connection has become slow, so that one to another host may be opened
        return min(wait, LONG_JOB)

    def _run_due(self) -> None:
        """Have workers take the jobs of all services that are due."""
        now = self.clock.timer()
        with self._mutex:
            while not self._closed and self._heap and self._heap[0][0] <= now:
                _, _, service = heapq.heappop(self._heap)
                if id(service) in self._served:
                    self._enqueue_due(service, now)
                else:  # it may be attached later, and no entry of it stands here any more
                    self._awaited.pop(id(service), None)
            self._start_workers()

    def _enqueue_due(self, service: Timed, now: float) -> None:
        """Have a worker take the jobs of a service that are due. Called under the mutex, by the loop or any thread."""
        self._enqueue(service, partial(self._run_due_of, service))
        if self._lacks_worker():
            self._wake_loop(-math.inf)  # which starts one: in a thread of the user, a signal may interrupt that
        elif len(self._workers) <= len(self._queue.busy):
            self._wake_loop(now + LONG_JOB)  # to start one then, if those that are busy are still

    def _run_due_of(self, service: Timed) -> object:
        """Take the jobs of a service that are due, and run the first, as a job itself."""
        with self._mutex:
            self._awaited.pop(id(service), None)
        jobs = service.take_due(self.clock.timer())
        with self._mutex:
            if id(service) not in self._served:  # detached meanwhile
                return None
            closed = self._closed
            for job in jobs if closed else jobs[1:]:
                self._enqueue(service, job)
        self.wake(service)
        return jobs[0]() if jobs and not closed else None

    def check_stalled(self) -> None:
        """Restart stalled services; called every 15 seconds."""
        now = self.clock.timer()
        with self._mutex:
            self._check_at = now + CHECK_INTERVAL
            watched = list(self._watched.items())
        for key, service in watched:
            jobs = service.overdue(now) if isinstance(service, Watched) else []
            with self._mutex:
                for job in jobs if key in self._served else ():
                    self._enqueue(service, job)
                self._start_workers()

    def _log_unstarted(self) -> None:
        error, self._unstarted = self._unstarted, None
        if error is None:
            return
        if "interpreter shutdown" in str(error):  # Python 3.12 and later, for a program that exits without close()
            log.debug("the program exits, so no further thread can be started: %s", error)
        else:
            log.error("no further thread can be started; jobs of timers wait for one that is free", exc_info=error)

    # -- workers -------------------------------------------------------------------------------------------------------

    def _enqueue(self, service: Timed, job: Job) -> None:
        # In this order: counted without a job, it would be waited for as its service is closed.
        self._queue.jobs.append(QueuedJob(service, job))
        self._running[id(service)] = self._running.get(id(service), 0) + 1
        self._job_added.notify()

    def _start_workers(self) -> None:
        while not self._closed and self._lacks_worker():
            worker = threading.Thread(target=self._work, name="webchat-fsm-worker", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:
                self._unstarted = error  # logged later, without the lock, which close() needs
                return
            self._workers.add(worker)

    def _lacks_worker(self) -> bool:
        idle = len(self._workers) - len(self._queue.busy)
        return self._queue.runnable() > idle and self._queue.may_start_worker(len(self._workers))

    def _work(self) -> None:
        while (taken := self._take_job()) is not None:
            service, run = taken.service, taken.run
            self._working_for[threading.get_ident()] = id(service)
            result: object = None
            try:
                result = run()
            except BaseException:  # a handler may raise SystemExit, and the worker runs the jobs of other services too
                log.exception("a timer's job failed")
            finally:
                self._working_for.pop(threading.get_ident(), None)
                with self._mutex:
                    self._queue.ended(threading.current_thread())
                    if isinstance(result, Parked):
                        self._park(service, result)
                    else:
                        self._count_end(id(service))
                    self._start_workers()
            if isinstance(result, Parked) and id(service) not in self._served:
                self._cancel_waiting(service)  # it was detached meanwhile, or this is a forked child

    def _take_job(self) -> QueuedJob | None:
        me = threading.current_thread()
        with self._mutex:
            if not self._queue.may_keep_worker(len(self._workers)):
                # Its long job is over, and another worker was started for it. Under a steady load none is ever idle for
                # long, so that the number of workers would only grow.
                self._workers.discard(me)
                return None
            self._job_added.wait_for(lambda: self._queue.runnable() or self._closed, self._idle_limit)
            taken = None if self._closed else self._queue.take(me)
            if taken is None:
                # In the same step as the look at the jobs: a job that comes later counts one worker fewer, and starts
                # one.
                self._workers.discard(me)
            elif me in self._queue.connecting and self._queue.next_host() is not None:
                self._job_added.notify()  # no job was added, and yet another worker may connect now
                self._start_workers()
            return taken

    def _count_end(self, key: int) -> None:
        # A job that has forked ends in the child, where nothing is counted.
        self._running[key] = self._running.get(key, 1) - 1
        if not self._running[key]:
            del self._running[key]
        if self._detaching:
            self._job_ended.notify_all()

    # -- parked jobs ---------------------------------------------------------------------------------------------------

    def _park(self, service: Timed, parked: Parked) -> None:
        """Let a job wait without a worker; it still counts as running."""
        queued = QueuedJob(service, parked.resume, parked)
        if parked.connects_to:
            self._queue.add(queued)
            self._job_added.notify()
            return

        def on_ready() -> None:
            with self._mutex:
                if self._parked.move(queued, self._queue.resumed):
                    self._job_added.notify()
                    self._start_workers()

        parked.when_ready(on_ready)
        self._wake_loop(self._parked.add(queued, parked, self.clock.timer()))
        if parked.is_ready():  # brought by another thread before `on_ready` was set
            on_ready()

    def _cancel_waiting(self, service: Timed) -> None:
        """Drop the jobs of a service that wait for a worker, and cancel those that are parked, in this thread."""
        taken: list[QueuedJob] = []
        try:
            with self._mutex:
                self._take_waiting(service, taken)
            while taken:
                if (parked := taken[-1].parked) is not None:
                    parked.cancel()
                with self._mutex:
                    self._count_end(id(service))
                    taken.pop()
        finally:
            if taken:  # Ctrl-C has come: workers end what is left
                with self._mutex:
                    self._queue.jobs.extend(taken)
                    self._job_added.notify()

    def _take_waiting(self, service: Timed, taken: list[QueuedJob]) -> None:
        """Move the jobs of a service that no worker runs to a list."""
        self._parked.take_of(service, taken)
        if len(taken) < self._running.get(id(service), 0):
            self._queue.move_of(service, taken)
