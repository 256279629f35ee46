"""Waiting for events and reading them one by one, with threads or in moved time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

from webchat_fsm._errors import ChatClosed, HandlerWaitError, WaitTimeout
from webchat_fsm._runtime.clock import LONGEST, monotonic
from webchat_fsm._runtime.delivery import AnyEvent, check_event
from webchat_fsm._runtime.driver import ManualDriver
from webchat_fsm._runtime.engine import Engine
from webchat_fsm._runtime.outcome import Receipt
from webchat_fsm.lifecycle._states import HAS_SESSION, State
from webchat_fsm.lifecycle._table import CONTENT, TRANSITIONS

T = TypeVar("T")
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
