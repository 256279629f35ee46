"""How events leave: one outbox, drained in order by one thread at a time, with no lock held while a handler runs."""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Generic, TypeVar

from msgspec import Struct

from webchat_fsm.runtime import clock

log = logging.getLogger("webchat_fsm")

T = TypeVar("T")
KEPT = 10_000
"""How many events stay readable for `wait_for` and `events`."""


class ChatEvent(Struct, Generic[T], frozen=True):
    """A published event: its bare name, its payload (None for an event without data), its wall-clock seconds."""

    name: str
    data: T
    time: float


AnyEvent = ChatEvent[Any]
Handler = Callable[[AnyEvent], object]


class Subscription:
    """A handler at an event; `cancel` ends it, also from inside a handler."""

    def __init__(self, event: str, handler: Handler, cancel: Callable[[Subscription], None]) -> None:
        self.event, self.handler = event, handler
        self._cancel = cancel

    def cancel(self) -> None:
        """Stop calling the handler; twice does no harm."""
        self._cancel(self)


class UserCode:
    """Whether this thread runs code of the user (a handler, a preprocessor) on behalf of a service.

    By the thread's number, which gevent and eventlet replace where they are asked for it; a class of thread-local data
    that was made before they came would go on to mean the whole thread, with all that takes turns in it.
    """

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    @property
    def depth(self) -> int:
        """How many calls of the user's code are nested in this thread."""
        return self._depths.get(threading.get_ident(), 0)

    def call(self, function: Callable[..., T], *given: object) -> T:
        """Call a function of the user's. A context manager in Python might never be left, where a signal strikes."""
        thread, depths = threading.get_ident(), self._depths
        before = depths.get(thread, 0)
        try:
            depths[thread] = before + 1
            return function(*given)
        finally:
            if before:
                depths[thread] = before
            else:
                depths.pop(thread, None)


class Hold:
    """A place in the outbox that nothing passes before it is lifted."""

    lifted = False


class Outbox:
    """Events in the order of their publication, on their way to handlers and readers.

    A signal may interrupt the main thread wherever a Python function is entered, `Condition.__exit__` too. So the lock
    is taken by itself, as only a lock in C is sure to be let go of, and whatever is noted is noted in one stroke.
    """

    def __init__(self, deliver: Callable[[AnyEvent], None], timeout: float) -> None:
        self._deliver, self._timeout = deliver, timeout
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._waiting: deque[tuple[int, AnyEvent] | Hold] = deque()
        self._put = self._delivered = self._changes = 0
        self._thread: int | None = None
        self._until = math.inf
        self._kept: deque[tuple[int, AnyEvent]] = deque(maxlen=KEPT)
        self._sealed = False
        self._dropped = False

    def after_fork(self) -> None:
        """Be sealed, with locks that nobody holds, in a child of a fork."""
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._thread = None
        self.seal()

    def put(self, *events: AnyEvent, behind: Hold | None = None) -> None:
        """Take events in; called under the session's lock, so that the order is that of the decisions.

        They are kept `behind` a hold until it is lifted, and so are those that follow; whoever lifts it drains then.
        """
        with self._mutex:
            if not self._sealed:
                more: list[tuple[int, AnyEvent] | Hold] = [] if behind is None else [behind]
                more += enumerate(events, self._put + 1)
                self._put += len(events)
                self._waiting.extend(more)

    @property
    def delivering_here(self) -> bool:
        """True inside a handler, on the thread that delivers."""
        return self._thread == threading.get_ident()

    def drain(self, *, wait: bool = True, at_most: float = math.inf) -> bool:
        """Deliver what waits, or wait for the thread that does; False where the time ran out first.

        After `at_most` seconds no further handler is called here: what is left waits for whoever drains next.
        """
        if self.delivering_here:
            return True
        until = clock.monotonic() + at_most
        try:
            done = self._done_elsewhere(wait, until)
            return self._run(until) if done is None else done
        except BaseException:
            with self._mutex:
                self._hand_back()
                self._note()
            raise

    def _done_elsewhere(self, wait: bool, until: float) -> bool | None:
        """Whether another thread has delivered what was put in before; None where this one is to deliver."""
        with self._mutex:
            ticket, deadline = self._put, min(clock.monotonic() + self._timeout, until)
            while self._thread is not None:
                left = deadline - clock.monotonic()
                if not wait or self._delivered >= ticket or left <= 0 or not self._changed.wait(left):
                    return self._delivered >= ticket
            self._thread = threading.get_ident()
            return None

    def _run(self, until: float) -> bool:
        self._until = until
        while (numbered := self._next()) is not None:
            number, event = numbered
            try:
                self._deliver(event)
            finally:
                with self._mutex:
                    if number > self._delivered:  # else all was sealed meanwhile
                        self._delivered = number
                    self._kept.append(numbered)
                    self._note()
        return clock.monotonic() < until

    def _next(self) -> tuple[int, AnyEvent] | None:
        """The next event, which stays here until it is delivered; without one this thread delivers no longer."""
        with self._mutex:
            while self._waiting and clock.monotonic() < self._until:
                first = self._waiting[0]
                if isinstance(first, Hold):
                    if not first.lifted:
                        break
                elif first[0] > self._delivered:
                    self._dropped = False
                    return first
                self._waiting.popleft()
            self._hand_back()
            return None

    def _hand_back(self) -> None:
        if self._thread == threading.get_ident():
            self._thread = None
            self._changed.notify_all()

    @property
    def to_be_heard(self) -> bool:
        """Whether handlers may still hear the event on its way: not after close(), nor after the time to deliver."""
        return not self._dropped and clock.monotonic() < self._until

    def seal(self) -> None:
        """Drop what waits, and what is on its way: nothing is published after close()."""
        with self._mutex:
            self._delivered = self._put
            self._waiting.clear()
            self._sealed = self._dropped = True
            self._note()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no other thread is inside a handler; False where the time ran out first."""
        with self._mutex:
            return self._changed.wait_for(lambda: self._thread in (None, threading.get_ident()), seconds)

    def unseal(self) -> None:
        """Publish again, after a new opening; what was kept before is forgotten."""
        with self._mutex:
            self._sealed = False
            self._kept.clear()

    @property
    def pending(self) -> bool:
        """True while something published has not been delivered."""
        with self._mutex:
            return self._delivered < self._put

    @property
    def position(self) -> int:
        """The number of the latest event that was put in."""
        with self._mutex:
            return self._put

    def after(self, position: int, at_most: int = KEPT) -> list[tuple[int, AnyEvent]]:
        """The kept events behind a position, with their numbers."""
        with self._mutex:
            start = bisect_right(self._kept, position, key=itemgetter(0))
            return [self._kept[place] for place in range(start, min(start + at_most, len(self._kept)))]

    @property
    def changes(self) -> int:
        """A number that grows with each delivery and each nudge."""
        with self._mutex:
            return self._changes

    def wait_change(self, since: int, seconds: float | None) -> None:
        """Wait until `changes` is no longer `since`, at most so long."""
        with self._mutex:
            self._changed.wait_for(lambda: self._changes != since, seconds)

    def nudge(self) -> None:
        """Wake those that wait, to look again."""
        with self._mutex:
            self._note()

    def _note(self) -> None:
        self._changes += 1
        self._changed.notify_all()
