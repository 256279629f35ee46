"""Delivery of events: one queue in the order of their publication, drained to handlers by one thread at a time.

No lock is held while a handler runs, so that it may give commands, subscribe, and close the service.
"""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from webchat_fsm._core.session import Session
from webchat_fsm._errors import nearest
from webchat_fsm._runtime.clock import monotonic
from webchat_fsm._runtime.failures import Defects, UserCode
from webchat_fsm._runtime.locks import Uncopied
from webchat_fsm.lifecycle._events import EVENTS

if TYPE_CHECKING:
    from webchat_fsm._runtime.bus import Plugin

log = logging.getLogger("webchat_fsm")

T = TypeVar("T")
HISTORY = 10_000
"""How many delivered events that were not read yet stay readable for `wait_for` and `events`."""


class ChatEvent(Struct, Generic[T], frozen=True):
    """A published event: its bare name, its payload (None for an event without data), wall-clock seconds."""

    name: str
    data: T
    time: float


AnyEvent = ChatEvent[Any]
Handler = Callable[[AnyEvent], object]


def check_event(name: str) -> None:
    """Raise `ValueError` for an unknown event, with the known name that was probably meant."""
    if name not in EVENTS:
        raise ValueError(f"there is no event {name!r}{nearest(name, EVENTS)}")


class Subscription(Uncopied):
    """The subscription of a handler to an event; `cancel` ends it, also inside a handler."""

    _instead = "subscribe the handler again"

    def __init__(self, event: str, handler: Handler, cancel: Callable[[Subscription], None]) -> None:
        self.event: str = event
        self.handler: Handler = handler
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"Subscription({self.event!r}, {name_of_handler(self.handler)})"

    def cancel(self) -> None:
        """Stop calling the handler. Idempotent."""
        self._cancel(self)


class Barrier:
    """A place in the event queue that no event passes until it is lifted."""

    lifted = False


class EventQueue:
    """Events in the order of their publication, on their way to handlers and readers.

    The event that is being delivered stays first in the queue, so that an interruption cannot lose it: the next thread
    that drains delivers what was not counted as delivered.
    """

    # A signal may interrupt the main thread wherever a Python function is entered, and `Condition.__exit__` is one. So
    # the mutex below the condition is taken directly: the release of a lock in C is no such entry. Each change of state
    # is one statement, which a signal cannot split.

    __slots__ = (
        "_cancelled",
        "_changed",
        "_closed",
        "_deadline",
        "_deliver",
        "_history",
        "_mutex",
        "_thread",
        "_timeout",
        "_waiting",
        "changes",
        "delivered",
        "position",
    )

    def __init__(self, deliver: Callable[[AnyEvent], None], timeout: float) -> None:
        self._deliver, self._timeout = deliver, timeout
        self._mutex = threading.RLock()
        # Made by the first thread that waits, as a condition takes a kilobyte and most chats have none that waits.
        self._changed: threading.Condition | None = None
        # Lists, as an empty deque reserves 64 places: with ten thousand chats these two would cost 15 MB.
        self._waiting: list[tuple[int, AnyEvent] | Barrier] = []
        self.position: int = 0
        """The number of the last event that was put in."""
        self.changes: int = 0
        """Grows with each delivery and each `notify`."""
        self.delivered: int = 0
        """The number of the last event whose handlers have run."""
        self._thread: int | None = None
        self._deadline = math.inf
        self._history: list[tuple[int, AnyEvent]] = []
        self._closed = False
        self._cancelled = False

    def after_fork(self) -> None:
        """Recreate the locks and close, in a forked child: the parent delivers these events."""
        self._mutex, self._changed = threading.RLock(), None
        self._thread = None
        self.close()

    def put(self, *events: AnyEvent, behind: Barrier | None = None) -> None:
        """Append events. Called under the session's lock, so that their order is that of the decisions.

        They wait `behind` a barrier, and so do all later ones; the thread that lifts it has to drain the queue then.
        """
        with self._mutex:
            if not self._closed:
                more: list[tuple[int, AnyEvent] | Barrier] = [] if behind is None else [behind]
                more += enumerate(events, self.position + 1)
                self.position += len(events)
                self._waiting.extend(more)

    @property
    def delivering_here(self) -> bool:
        """True inside a handler, on the thread that delivers."""
        return self._thread == threading.get_ident()

    def drain(self, *, wait: bool = True, at_most: float = math.inf) -> bool:
        """Deliver what waits, or wait for the thread that does; False where the time ran out first.

        No handler is called here after `at_most` seconds; the next thread that drains delivers the rest.
        """
        # In a handler of this thread, the loop that called it goes on with what was put in meanwhile. Else an empty
        # queue says that all is delivered, as an event stays in it until it counts as delivered.
        if self._thread == threading.get_ident() or not self._waiting:
            return True
        deadline = monotonic() + at_most
        try:
            done = self._delivered_elsewhere(wait, deadline)
            return self._run(deadline) if done is None else done
        except BaseException:
            with self._mutex:
                if self._thread == threading.get_ident():
                    self._thread = None
                self._notify()
            raise

    def _delivered_elsewhere(self, wait: bool, until: float) -> bool | None:
        """Return whether another thread has delivered all earlier events; None where this thread is to deliver."""
        with self._mutex:
            ticket, deadline = self.position, min(monotonic() + self._timeout, until)
            while self._thread is not None:
                left = deadline - monotonic()
                if not wait or self.delivered >= ticket or left <= 0 or not self._condition.wait(left):
                    return self.delivered >= ticket
            self._thread = threading.get_ident()
            return None

    def _run(self, deadline: float) -> bool:
        self._deadline = deadline
        while (numbered := self._next()) is not None:
            number, event = numbered
            try:
                self._deliver(event)
            finally:
                with self._mutex:
                    if number > self.delivered:  # a handler that closes has counted all as delivered already
                        self.delivered = number
                    self._history.append(numbered)
                    del self._history[:-HISTORY]
                    self._notify()
        return monotonic() < deadline

    def _next(self) -> tuple[int, AnyEvent] | None:
        """Return the first undelivered event and leave it in the queue; without one, end the delivery here."""
        with self._mutex:
            while self._waiting and monotonic() < self._deadline:
                first = self._waiting[0]
                if isinstance(first, Barrier):
                    if not first.lifted:
                        break
                elif first[0] > self.delivered:
                    self._cancelled = False
                    return first
                self._waiting.pop(0)
            # Under the same lock as the look at the queue: an event that is put in now finds no thread delivering.
            self._thread = None
            self._wake_waiting()
            return None

    @property
    def may_deliver(self) -> bool:
        """Return whether further handlers may be called for the current event: not after close() or the deadline."""
        return not self._cancelled and monotonic() < self._deadline

    def close(self) -> None:
        """Drop all events, the one that is being delivered too, and publish nothing more."""
        with self._mutex:
            self.delivered = self.position  # dropped events count as delivered, so that no thread waits for them
            self._waiting.clear()
            self._closed = self._cancelled = True
            self._notify()

    def reopen(self) -> None:
        """Accept events again, and forget those that were kept for readers."""
        with self._mutex:
            self._closed = False
            self._history.clear()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no other thread is inside a handler; False after the timeout."""
        with self._mutex:
            return self._condition.wait_for(lambda: self._thread in (None, threading.get_ident()), seconds)

    @property
    def pending(self) -> bool:
        """True while an event is not delivered."""
        with self._mutex:
            return self.delivered < self.position

    def forget(self, position: int) -> None:
        """Forget the delivered events up to a position, behind which all readers are."""
        with self._mutex:
            del self._history[: bisect_right(self._history, position, key=itemgetter(0))]

    def after(self, position: int, at_most: int = HISTORY) -> list[tuple[int, AnyEvent]]:
        """Return the readable events behind a position, with their numbers."""
        with self._mutex:
            start = bisect_right(self._history, position, key=itemgetter(0))
            return [self._history[place] for place in range(start, min(start + at_most, len(self._history)))]

    def wait_change(self, since: int, seconds: float | None) -> None:
        """Wait until `changes` differs from `since`, at most so long."""
        with self._mutex:
            self._condition.wait_for(lambda: self.changes != since, seconds)

    def notify(self) -> None:
        """Wake all threads that wait, to look again."""
        with self._mutex:
            self._notify()

    def _notify(self) -> None:
        self.changes += 1
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    @property
    def _condition(self) -> threading.Condition:
        """Return the condition on which a thread waits; asked for under the mutex."""
        if self._changed is None:
            self._changed = threading.Condition(self._mutex)
        return self._changed


class Subscribers:
    """The handlers and bus plugins of one service, and the queue that delivers to them."""

    __slots__ = (
        "_defects",
        "_lock",
        "_on_handler_error",
        "_plugins",
        "_ready",
        "_session",
        "_subscriptions",
        "_user_code",
        "queue",
        "running",
    )

    def __init__(
        self,
        session: Session,
        user_code: UserCode,
        defects: Defects,
        on_handler_error: Callable[[Exception, AnyEvent], object] | None,
        timeout: float,
    ) -> None:
        self.queue: EventQueue = EventQueue(self._deliver, timeout)
        self.running: str = ""
        """The handler that is being called, for the log."""
        self._session, self._user_code, self._defects = session, user_code, defects
        self._on_handler_error = on_handler_error
        self._lock = threading.Lock()
        self._subscriptions: dict[str, tuple[Subscription, ...]] = {}
        self._plugins: tuple[Plugin, ...] = ()
        self._ready: AnyEvent | None = None

    def after_fork(self) -> None:
        """Recreate the locks, in a forked child, where nothing has been published yet."""
        self._lock, self._ready = threading.Lock(), None
        self.queue.after_fork()

    def subscribe(self, event: str, handler: Handler) -> Subscription:
        """Add a handler to an event; `ready` is delivered at once where it was published before."""
        check_event(event)
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        subscription = Subscription(event, handler, self._remove)
        with self._lock:
            # Replaced, not changed: `_deliver` goes through the tuple without the lock.
            self._subscriptions[event] = (*self._subscriptions.get(event, ()), subscription)
            replayed = self._ready if event == "ready" else None
        if replayed is not None:  # outside the lock, as the handler may subscribe another
            self._call(handler, replayed)
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            known = self._subscriptions.get(subscription.event, ())
            self._subscriptions[subscription.event] = tuple(one for one in known if one is not subscription)

    def add_plugin(self, plugin: Plugin) -> None:
        """Publish all events on a plugin of the bus too; `ready` at once where it was published before."""
        with self._lock:
            self._plugins = (*self._plugins, plugin)
            replayed = self._ready
        if replayed is not None:
            self._publish(plugin, replayed)

    def forget_ready(self) -> None:
        """Replay `ready` no longer, after close()."""
        with self._lock:
            self._ready = None

    def _deliver(self, event: AnyEvent) -> None:
        with self._lock:
            if event.name == "ready":
                self._ready = event
            subscriptions, plugins = self._subscriptions.get(event.name, ()), self._plugins
        for subscription in subscriptions:
            # A handler may have cancelled a later one, or closed the service: looked at before each call.
            if subscription in self._subscriptions.get(event.name, ()) and self.queue.may_deliver:
                self._call(subscription.handler, event)
        for plugin in plugins:
            if self.queue.may_deliver:
                self._publish(plugin, event)

    def _call(self, handler: Handler, event: AnyEvent) -> None:
        self.running = name = name_of_handler(handler)
        self._user_code.call(self._handle, handler, event, name)
        self.running = ""

    def _handle(self, handler: Handler, event: AnyEvent, name: str) -> None:
        try:
            handler(event)
        except Exception as error:
            log.exception("the handler %s of %s failed", name, event.name)
            if self._on_handler_error is not None:
                try:
                    self._on_handler_error(error, event)
                except Exception:
                    log.exception("client.onHandlerError failed")

    def _publish(self, plugin: Plugin, event: AnyEvent) -> None:
        try:
            data = None if event.data is None else event.data.item(self._session.transport)
        except Exception as error:  # a defect of this library, in the thread of a command or a poll of the user's
            self._defects.note(error)
            self._defects.report()
            return
        self.running = f"(a subscriber on the bus to {event.name})"
        publish = partial(plugin.publish_service_event, replay=event.name == "ready")
        self._user_code.call(publish, event.name, data, round(event.time * 1000))
        self.running = ""


def name_of_handler(handler: Callable[..., object]) -> str:
    """Return the name of a handler for the log."""
    return getattr(handler, "__qualname__", None) or repr(handler)
