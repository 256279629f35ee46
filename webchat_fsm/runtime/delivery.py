"""How events leave: one outbox, drained in order by one thread at a time, with no lock held while a handler runs."""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class UserCode(threading.local):
    """Whether this thread runs code of the user (a handler, a preprocessor) on behalf of a service."""

    depth = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark what runs inside as the user's."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


class Hold:
    """A place in the outbox that nothing passes before it is lifted."""

    lifted = False


class Outbox:
    """Events in the order of their publication, on their way to handlers and readers."""

    def __init__(self, deliver: Callable[[AnyEvent], None], timeout: float) -> None:
        self._deliver, self._timeout = deliver, timeout
        self._changed = threading.Condition()
        self._waiting: deque[AnyEvent | Hold] = deque()
        self._put = self._delivered = self._changes = 0
        self._thread: int | None = None
        self._kept: deque[tuple[int, AnyEvent]] = deque(maxlen=KEPT)
        self._sealed = False

    def put(self, event: AnyEvent) -> None:
        """Take an event in; called under the session's lock, so that the order is that of the decisions."""
        with self._changed:
            if not self._sealed:
                self._waiting.append(event)
                self._put += 1

    def hold(self) -> Hold:
        """Keep what is put in from now on, until the hold is lifted; whoever lifts it drains afterwards."""
        with self._changed:
            hold = Hold()
            self._waiting.append(hold)
            return hold

    def lift(self, hold: Hold | None) -> None:
        """Let pass what was kept."""
        if hold is not None:
            with self._changed:
                hold.lifted = True

    @property
    def delivering_here(self) -> bool:
        """True inside a handler, on the thread that delivers."""
        return self._thread == threading.get_ident()

    def drain(self, *, wait: bool = True, at_most: float = math.inf) -> bool:
        """Deliver what waits, or wait for the thread that does; False where the time ran out first."""
        if self.delivering_here:
            return True
        with self._changed:
            ticket, deadline = self._put, clock.monotonic() + min(self._timeout, at_most)
            while self._thread is not None:
                left = deadline - clock.monotonic()
                if not wait or self._delivered >= ticket or left <= 0 or not self._changed.wait(left):
                    return self._delivered >= ticket
            self._thread = threading.get_ident()
        self._run()
        return True

    def _run(self) -> None:
        try:
            while (event := self._next()) is not None:
                try:
                    self._deliver(event)
                finally:
                    self._done(event)
        except BaseException:
            with self._changed:
                self._thread = None
                self._changed.notify_all()
            raise

    def _next(self) -> AnyEvent | None:
        with self._changed:
            while self._waiting:
                first = self._waiting[0]
                if isinstance(first, ChatEvent):
                    self._waiting.popleft()
                    return first
                if not first.lifted:
                    break
                self._waiting.popleft()
            self._thread = None
            self._changed.notify_all()
            return None

    def _done(self, event: AnyEvent) -> None:
        with self._changed:
            self._delivered += 1
            self._kept.append((self._delivered, event))
            self._note()

    def seal(self) -> None:
        """Drop what waits: nothing is published after close()."""
        with self._changed:
            self._delivered += sum(isinstance(waiting, ChatEvent) for waiting in self._waiting)
            self._waiting.clear()
            self._sealed = True
            self._note()

    @property
    def sealed(self) -> bool:
        """True after close()."""
        return self._sealed

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no other thread is inside a handler; False where the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread in (None, threading.get_ident()), seconds)

    def unseal(self) -> None:
        """Publish again, after a new opening; what was kept before is forgotten."""
        with self._changed:
            self._sealed = False
            self._kept.clear()

    @property
    def pending(self) -> bool:
        """True while something published has not been delivered."""
        with self._changed:
            return self._delivered < self._put

    @property
    def position(self) -> int:
        """The number of the latest event that was put in."""
        with self._changed:
            return self._put

    def after(self, position: int, at_most: int = KEPT) -> list[tuple[int, AnyEvent]]:
        """The kept events behind a position, with their numbers."""
        with self._changed:
            start = bisect_right(self._kept, position, key=itemgetter(0))
            return [self._kept[place] for place in range(start, min(start + at_most, len(self._kept)))]

    @property
    def changes(self) -> int:
        """A number that grows with each delivery and each nudge."""
        with self._changed:
            return self._changes

    def wait_change(self, since: int, seconds: float | None) -> None:
        """Wait until `changes` is no longer `since`, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != since, seconds)

    def nudge(self) -> None:
        """Wake those that wait, to look again."""
        with self._changed:
            self._note()

    def _note(self) -> None:
        self._changes += 1
        self._changed.notify_all()
