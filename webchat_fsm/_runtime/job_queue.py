"""The jobs of a `ThreadDriver`: those that wait for a worker, that workers run, and that are parked.

`JobQueue` says what may run next and how many workers that takes. `ParkedJobs` holds what waits for a socket or a
moment without a thread, and the selector that waits for all of it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from webchat_fsm._runtime.clock import Job, Timed

SELECT_LIMIT = 500 if sys.platform == "win32" else 1000
"""What `select` can wait for: so many sockets on Windows, elsewhere descriptors below it. Other selectors have none."""

LOOK_INTERVAL = 0.25
"""Seconds between two looks at a job whose descriptor the selector cannot wait for."""

SPARE = 64
"""Expiries of ended jobs that are kept, beside as many as there are services: removing each at once costs more."""

LONG_JOB = 0.25
"""Seconds after which a job is long, such as one with a slow handler: its worker no longer counts as busy.

While jobs wait for a worker, the loop tries that often to start one.
"""

SLOW_CONNECTS = 2
"""Connections to one host that may take long at once: the others in its queue wait, and those to other hosts go on."""

MOST_CONNECTS = 8
"""Connections that workers open at once at most, where several hosts do not answer."""


class Parked(ABC):
    """A job that needs no worker until its socket is ready, until a moment has come, or until it may connect."""

    until: float
    """The moment of the monotonic clock at which it goes on at the latest."""

    connects_to: str
    """The host and port to which it opens a connection as it goes on, which blocks a worker; empty where it waits."""

    descriptor = -1
    """The descriptor by which the selector waits for it, -1 without one."""

    expires = math.inf
    """The moment at which it is resumed at the latest."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor of the socket that it waits for, -1 without one."""

    @abstractmethod
    def when_ready(self, function: Callable[[], None]) -> None:
        """Have a function called by another thread that has brought what is waited for."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether another thread has already brought what it waits for."""

    @abstractmethod
    def resume(self) -> object:
        """Go on in a worker; returns what a job returns, another `Parked` included."""

    @abstractmethod
    def cancel(self) -> None:
        """End it where it waits, in the thread that closes its service; does not wait, nor run code of the user."""


class QueuedJob(Struct, frozen=True):
    """A job of a service; `parked` is what it goes on with where it has begun before, None where it begins."""

    service: Timed
    run: Job
    parked: Parked | None = None


class JobQueue:
    """Jobs in order, and those that open a connection beside them, by host. Used under the driver's mutex."""

    def __init__(self, workers: int, now: Callable[[], float]) -> None:
        self._most_busy, self._now = workers, now
        self.jobs: deque[QueuedJob] = deque()
        self.resumed: deque[QueuedJob] = deque()
        """Jobs that go on, before those that begin: an answer that has come does not wait for further requests."""
        self.connects: dict[str, deque[QueuedJob]] = {}
        """Jobs by host, in the order of the hosts' turns."""
        self.busy: dict[threading.Thread, float] = {}
        """The workers with a job, and the moment at which it has begun."""
        self.connecting: dict[threading.Thread, str] = {}
        """The workers that open a connection, and the host."""

    def __bool__(self) -> bool:
        return bool(self.resumed or self.jobs or self.connects)

    def add(self, job: QueuedJob) -> None:
        """Add a job at the end, or at that of its host."""
        if job.parked is not None and job.parked.connects_to:
            self.connects.setdefault(job.parked.connects_to, deque()).append(job)
        else:
            self.jobs.append(job)

    def runnable(self) -> int:
        """Return how many jobs workers could run now; of those that connect one is counted at most."""
        return len(self.resumed) + len(self.jobs) + (self.next_host() is not None)

    def next_host(self) -> str | None:
        """Return the host to which a worker may open a connection now, None without one."""
        if not self.connects or len(self.connecting) >= MOST_CONNECTS:
            return None
        long_ago = self._now() - LONG_JOB
        slow = Counter(host for thread, host in self.connecting.items() if self.busy[thread] <= long_ago)
        if len(self.connecting) - slow.total() >= max(1, self._most_busy // 2):
            return None
        # A host that does not answer occupies few workers, however many services it has.
        return next((host for host in self.connects if slow[host] < SLOW_CONNECTS), None)

    def may_start_worker(self, workers: int) -> bool:
        """Return whether fewer workers than allowed are idle, or have a job that is not long yet."""
        return self._not_long(workers) < self._most_busy

    def may_keep_worker(self, workers: int) -> bool:
        """Return whether a worker without a job is to go on: not where those that replaced it are enough."""
        return self._not_long(workers) <= self._most_busy

    def _not_long(self, workers: int) -> int:
        # Long jobs must not use up the workers: the timers of all other services would wait for them.
        long_ago = self._now() - LONG_JOB
        return workers - sum(begun <= long_ago for begun in self.busy.values())

    def take(self, worker: threading.Thread) -> QueuedJob | None:
        """Remove the next job, which the worker has begun then; None without one."""
        # Those that connect go first: they are few, and block no longer than the rest.
        host = self.next_host()
        waiting = self.resumed or self.jobs
        if host is None and not waiting:
            return None
        self.busy[worker] = self._now()
        if host is None:
            return waiting.popleft()
        self.connecting[worker] = host
        waiting = self.connects.pop(host)
        taken = waiting.popleft()
        if waiting:
            self.connects[host] = waiting  # at the end: the turn of all other hosts comes before its next
        return taken

    def ended(self, worker: threading.Thread) -> None:
        """Note that a worker has ended its job."""
        self.busy.pop(worker, None)
        self.connecting.pop(worker, None)

    def move_of(self, service: Timed, taken: list[QueuedJob]) -> None:
        """Move the jobs of a service to a list."""
        for queue in (self.resumed, self.jobs, *self.connects.values()):
            for job in [job for job in queue if job.service is service]:
                taken.append(job)
                queue.remove(job)
        for host in [host for host, queue in self.connects.items() if not queue]:
            del self.connects[host]


class ParkedJobs:
    """The jobs that wait for a socket or a moment, and the selector that waits for all of them.

    Every method but `select` and `wake` is called under the driver's mutex. Adding and taking a job cost the same
    however many are parked. `_jobs` alone says which jobs are parked: the other two may hold one that has gone, where
    Ctrl-C came as it was taken.
    """

    def __init__(self) -> None:
        self._selector: selectors.BaseSelector | None = None
        self._wake_reader: socket.socket | None = None
        self._wake_writer: socket.socket | None = None
        self._jobs: dict[int, dict[int, QueuedJob]] = {}  # by service and by `Parked`, both by `id`
        self._by_descriptor: dict[int, list[QueuedJob]] = {}
        self._expiries: list[tuple[float, int, QueuedJob]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    @property
    def earliest(self) -> float:
        """Return a moment before which no job expires: that of the first, or of one that has ended before it."""
        return self._expiries[0][0] if self._expiries else math.inf

    def open(self) -> None:
        """Make the selector and the sockets that wake it, unless they are there."""
        if self._selector is not None:
            return
        # By the name of the class at this moment: gevent and eventlet put selectors of their own in its place.
        selector = selectors.DefaultSelector()
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        selector.register(reader, selectors.EVENT_READ)
        self._selector, self._wake_reader, self._wake_writer = selector, reader, writer

    def close_unused(self) -> None:
        """Close the selector, unless a job is parked in it."""
        if not self._jobs:
            self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close the descriptors: in a forked child they are the child's, and the parent goes on with its own."""
        if self._selector is not None and self._wake_reader is not None and self._wake_writer is not None:
            self._selector.close()
            self._wake_reader.close()
            self._wake_writer.close()
            self._selector = self._wake_reader = self._wake_writer = None

    def wake(self) -> None:
        """Let `select` return at once."""
        # A full pipe is as good as one more byte, and without a loop there is no socket.
        if (writer := self._wake_writer) is not None:
            with suppress(OSError):
                writer.send(b"\0")

    @property
    def _notices(self) -> bool:
        """Return whether a selector that waits notices a socket that another thread registers."""
        # Only the queues of the kernel: `select`, `poll` and the selectors of gevent wait for what they were given.
        kernel = (getattr(selectors, "EpollSelector", None), getattr(selectors, "KqueueSelector", None))
        return type(self._selector) in kernel

    def _register(self, descriptor: int) -> bool:
        """Have the selector wait for a descriptor; False where it can wait for no more."""
        if self._selector is None:
            return False
        if isinstance(self._selector, selectors.SelectSelector):
            used = len(self._by_descriptor) if sys.platform == "win32" else descriptor
            if used >= SELECT_LIMIT:
                return False
        try:
            self._selector.register(descriptor, selectors.EVENT_READ)
        except OSError:  # a limit of the kernel, such as `max_user_watches` of epoll
            return False
        return True

    def add(self, queued: QueuedJob, job: Parked, now: float) -> float:
        """Park a job, whose `parked` is given; returns the moment at which the selector has to return at the latest."""
        descriptor, notices = job.fileno(), True
        job.descriptor, job.expires = -1, job.until
        if descriptor >= 0:
            others = [one for one in self._by_descriptor.get(descriptor, ()) if self._holds(one)]
            if not others:
                self._unregister(descriptor)
            if others or self._register(descriptor):  # several requests may wait on one websocket
                self._by_descriptor[descriptor] = [*others, queued]
                job.descriptor, notices = descriptor, bool(others) or self._notices
            else:
                job.expires = min(job.until, now + LOOK_INTERVAL)
        self._jobs.setdefault(id(queued.service), {})[id(job)] = queued
        heapq.heappush(self._expiries, (job.expires, next(self._order), queued))
        return job.expires if notices else -math.inf

    def move(self, queued: QueuedJob, queue: deque[QueuedJob] | list[QueuedJob]) -> bool:
        """Move a job to the end of a queue; False where it is not parked any more."""
        jobs = self._jobs.get(id(queued.service))
        if jobs is None or id(queued.parked) not in jobs:
            return False
        # One step for a signal, which may come as any function in Python is entered: the job is in one of the two.
        queue.append(jobs.pop(id(queued.parked)))
        if not jobs:
            del self._jobs[id(queued.service)]
        self._forget(queued)
        return True

    def _holds(self, queued: QueuedJob) -> bool:
        return id(queued.parked) in self._jobs.get(id(queued.service), ())

    def _forget(self, queued: QueuedJob) -> None:
        """Wait for the descriptor of a job no more, unless another one waits for it."""
        descriptor = -1 if queued.parked is None else queued.parked.descriptor
        if others := self._by_descriptor.get(descriptor):
            others[:] = [one for one in others if one.parked is not queued.parked]
            if not others:
                self._unregister(descriptor)
        if len(self._expiries) > 2 * len(self._jobs) + SPARE:
            self._expiries = [entry for entry in self._expiries if self._holds(entry[2])]
            heapq.heapify(self._expiries)

    def _unregister(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None and self._selector is not None:
            self._selector.unregister(descriptor)

    def select(self, seconds: float) -> list[int]:
        """Wait for bytes, a byte of `wake` or the time; returns the descriptors that are ready."""
        selector, reader = self._selector, self._wake_reader
        if selector is None or reader is None:
            return []
        try:
            ready = [key.fd for key, _ in selector.select(seconds)]
        except (OSError, ValueError):
            # `select` refuses all of them where a job has been taken and its socket closed since it was called. Each
            # job finds out for itself.
            return list(self._by_descriptor)
        if reader.fileno() in ready:
            with suppress(OSError):
                reader.recv(4096)
        return ready

    def take(self, ready: list[int], now: float, queue: deque[QueuedJob]) -> int:
        """Move the jobs whose descriptors are ready, and those that have expired, to a queue; returns how many."""
        found: list[QueuedJob] = []
        for descriptor in ready:
            waiting = self._by_descriptor.get(descriptor, ())
            found.extend(waiting)
            if waiting and not any(map(self._holds, waiting)):
                self._unregister(descriptor)
        while self._expiries and self._expiries[0][0] <= now:
            _, _, one = heapq.heappop(self._expiries)
            if one.parked is not None and one.parked.expires <= now:  # else it was parked once more since
                found.append(one)
        return sum([self.move(one, queue) for one in found])

    def take_of(self, service: Timed, queue: list[QueuedJob]) -> None:
        """Move the jobs of a service to a list."""
        for one in list(self._jobs.get(id(service), {}).values()):
            self.move(one, queue)
