"""The outcome of a command, the receipt of a sent message, and waiting for events, with threads or in moved time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from webchat_fsm._core.steps import Delivered, Overtaken
from webchat_fsm._errors import ChatClosed, CommandRejected, HandlerWaitError, WaitTimeout
from webchat_fsm._runtime.clock import LONGEST, ManualDriver, monotonic
from webchat_fsm._runtime.delivery import AnyEvent, check_event
from webchat_fsm._runtime.locks import Uncopied
from webchat_fsm.lifecycle._states import HAS_SESSION, State
from webchat_fsm.lifecycle._table import CONTENT, TRANSITIONS

if TYPE_CHECKING:
    from webchat_fsm._runtime.engine import Engine

T = TypeVar("T")

REMEMBERED = 1000
"""How many settled messages are remembered for receipts that are made later."""


class Outcome:
    """A settled command. True when resolved; `value` is the documented value, `reason` the documented rejection.

    Callbacks get one argument and have run when the call returns; each call returns the outcome again.
    """

    def __init__(self, *, resolved: bool, value: Any = None, error: CommandRejected | None = None, reason: Any = None):
        self.status = "resolved" if resolved else "rejected"
        self.value = value
        self.reason = reason
        self._error = error

    def __bool__(self) -> bool:
        return self.status == "resolved"

    def __repr__(self) -> str:
        text = self.reason if self._error is None else self._error.reason
        return f"Outcome({self.status}{f': {text}' if isinstance(text, str) else ''})"

    def done(self, callback: Callable[[Any], object]) -> Outcome:
        """Call back with the value, if resolved."""
        if self:
            callback(self.value)
        return self

    def fail(self, callback: Callable[[Any], object]) -> Outcome:
        """Call back with the reason, if rejected."""
        if not self:
            callback(self.reason)
        return self

    def always(self, callback: Callable[[Any], object]) -> Outcome:
        """Call back with the value or the reason."""
        callback(self.value if self else self.reason)
        return self

    def then(self, done: Callable[[Any], object] | None = None, fail: Callable[[Any], object] | None = None) -> Outcome:
        """`done` and `fail` in one call."""
        if done is not None:
            self.done(done)
        return self if fail is None else self.fail(fail)

    def result(self) -> Any:
        """Return the value; raises `CommandRejected` where the command was rejected."""
        if self._error is not None:
            raise self._error
        return self.value


class Receipt(Uncopied):
    """A sent message and its delivery.

    `status` is "sent" (the server accepted it), "delivered" (it has come back in the transcript, at `index`) or
    "unknown": no complete answer came, or a later message has come back and this one has not.
    """

    _instead = "copy its `status` and `index`"

    def __init__(self, ticket: int, status: str, wait: Callable[[Receipt, float], bool]) -> None:
        self.ticket = ticket
        self.status: str = status
        self.index: int | str | None = None
        self.settled: bool = False
        """True once nothing more is awaited: the message is delivered, or a later one has overtaken it."""
        self._wait = wait

    def __repr__(self) -> str:
        return f"Receipt({self.status}{'' if self.index is None else f', index={self.index}'})"

    def _settle(self, effect: Delivered | Overtaken) -> None:
        """Set the status; an overtaken message may still be delivered, a delivered one stays delivered."""
        if isinstance(effect, Delivered):
            self.index, self.status = effect.index, "delivered"
        elif self.status != "delivered":  # for the same reason as in `Receipts.settle`
            self.status = "unknown"
        self.settled = True

    def wait(self, timeout: float) -> bool:
        """Wait until the message has come back and its handlers have run, at most `timeout` seconds; True when it has.

        Returns False at once where a later message has overtaken it. Raises `HandlerWaitError` inside a handler.
        """
        return self._wait(self, timeout)


class Receipts:
    """The receipts of one service, by the ticket of the send request."""

    __slots__ = ("_lock", "_receipts", "_settled")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Weak, as a dropped one needs no settling; made for the first send, as even an empty one takes a kilobyte.
        self._receipts: WeakValueDictionary[int, Receipt] | None = None
        self._settled: dict[int, Delivered | Overtaken] = {}

    def after_fork(self) -> None:
        """Recreate the lock in a forked child."""
        self._lock = threading.Lock()

    def add(self, ticket: int, status: str, wait: Callable[[Receipt, float], bool]) -> Receipt:
        """Make the receipt of a send; a poll of another thread may have brought the message back already."""
        receipt = Receipt(ticket, status, wait)
        with self._lock:  # entered and looked up in one step: `settle` sees the receipt, or its effect is seen here
            if self._receipts is None:
                self._receipts = WeakValueDictionary()
            self._receipts[ticket] = receipt
            settled = self._settled.get(ticket)
            if settled is not None:
                receipt._settle(settled)
        return receipt

    def settle(self, effect: Delivered | Overtaken) -> bool:
        """Settle a receipt, or remember the effect for one that is made later; True where a waiter must look again."""
        with self._lock:
            # Effects of two threads may come in the other order, and a delivered message stays delivered.
            if not isinstance(self._settled.get(effect.ticket), Delivered):
                self._settled[effect.ticket] = effect
            if len(self._settled) > REMEMBERED:  # a long chat must not grow with each message
                del self._settled[next(iter(self._settled))]
            receipt = None if self._receipts is None else self._receipts.get(effect.ticket)
            if receipt is not None:
                receipt._settle(effect)
        return receipt is not None


# -- waiting -----------------------------------------------------------------------------------------------------------

BATCH = 64
"""How many events are read from the queue at once."""

OPENING_EVENTS = frozenset(
    published.event
    for row in TRANSITIONS
    if row.source not in HAS_SESSION and row.dest is not State.ENDED
    for published in row.publishes
    if published is not CONTENT
)
"""Events that can still come while no session is open: those of opening, starting and restoring one."""


class Reader:
    """The reading position of one service, and the ways to wait at it."""

    __slots__ = ("_engine", "_position")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._position = 0

    def wait_for(self, name: str, timeout: float, where: Callable[[AnyEvent], object] | None) -> AnyEvent:
        """Return the first accepted event behind the reading position, and move the position behind it."""
        self._outside_of_handlers("wait_for")
        check_event(name)
        found = self._until(self._finder(name, where), timeout, closed=lambda: self._cannot_come(name))
        if found is None:
            raise WaitTimeout(f"{name} did not come within {timeout:g} s; the state is {self._engine.session.state}")
        return found

    def events(self, silence: float | None) -> Iterator[AnyEvent]:
        """Yield the events from the reading position until `ended`, or `silence` seconds without one."""
        self._outside_of_handlers("events")
        while True:
            try:
                event = self._until(self._finder(None, None), silence, closed=lambda: self._cannot_come(None))
            except ChatClosed:
                return
            if event is None:
                return
            yield event
            if event.name == "ended":
                return

    def wait_until(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition of the service, such as a delivered message or a settled restore."""
        self._outside_of_handlers("waiting")
        closed = lambda: not self._engine.session.opened  # noqa: E731
        return bool(self._until(lambda: reached() or None, timeout, closed, quiet=True))

    def wait_delivered(self, receipt: Receipt, timeout: float) -> bool:
        """Wait until a receipt is settled and the handlers of its message have run; True where it was delivered."""
        queue, last = self._engine.event_queue, -1

        def handled() -> bool:
            nonlocal last
            if last < 0 and receipt.settled:
                last = queue.position  # its event is in the queue, as events are put in before receipts are settled
            return 0 <= last <= queue.delivered

        self.wait_until(handled, timeout)
        return receipt.status == "delivered"

    def _outside_of_handlers(self, what: str) -> None:
        engine = self._engine
        if engine.event_queue.delivering_here or engine.user_code.depth:
            raise HandlerWaitError(f"{what} inside a handler would wait for ever; let the handler return first")

    def _finder(self, name: str | None, where: Callable[[AnyEvent], object] | None) -> Callable[[], AnyEvent | None]:
        """Return a function that finds the next accepted event, and looks at no event twice."""
        seen = 0

        def find() -> AnyEvent | None:
            nonlocal seen
            # Since the last look another thread may have moved the position, or a new chat the first event.
            seen = max(seen, self._position, self._engine.first_event)
            while behind := self._engine.event_queue.after(seen, BATCH):
                for number, event in behind:
                    seen = number
                    if name in (None, event.name) and (where is None or where(event)) and self._take(number):
                        return event
            return None

        return find

    def _take(self, number: int) -> bool:
        """Move the position behind an event, unless another thread has done so before."""
        with self._engine.lock:
            if self._position >= number:
                return False
            self._position = number
        # No reader goes back behind the position, so that a chat that is read for days keeps no event.
        self._engine.event_queue.forget(number)
        return True

    def _cannot_come(self, name: str | None) -> bool:
        session = self._engine.session
        if not session.opened:
            return True
        return session.state is State.ENDED and name not in OPENING_EVENTS

    def _until(
        self, look: Callable[[], T | None], timeout: float | None, closed: Callable[[], bool], *, quiet: bool = False
    ) -> T | None:
        """Return what `look` finds, None after the timeout; raises `ChatClosed` (not if `quiet`) if it cannot come."""
        deadline = math.inf if timeout is None else self._now() + timeout
        while True:
            # Read before the look: an event that comes after it changes the number, and the wait returns at once.
            since, over = self._engine.event_queue.changes, closed()
            if (found := look()) is not None:
                return found
            if over and not self._engine.event_queue.pending:
                if quiet:
                    return None
                raise ChatClosed("the chat is over or not open; what is awaited cannot come any more")
            if not self._now() < deadline:  # so written, a deadline of NaN is over
                return None
            self._let_time_pass(since, deadline)

    def _now(self) -> float:
        driver = self._engine.driver
        return monotonic() if driver.threaded else driver.clock.timer()

    def _let_time_pass(self, since: int, deadline: float) -> None:
        """Wait for another thread's delivery, or run the next timer in this one."""
        driver = self._engine.driver
        if isinstance(driver, ManualDriver):
            due = driver.next_due()
            if due is None and deadline == math.inf:
                raise ChatClosed("no timer is pending, so nothing can come by itself any more")
            # Only as far as the next timer: what it publishes may be what is awaited.
            moment = min(deadline, math.inf if due is None else due)
            driver.clock.sleep_until(moment)
            driver.run_due()
        else:
            left = deadline - self._now()
            self._engine.event_queue.wait_change(since, min(max(0.0, left), LONGEST))
