"""Pull style: waiting for events, and reading them one by one, with threads or in moved time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from webchat_fsm.errors import ChatClosed, HandlerWaitError, WaitTimeout, nearest
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import OPENING_EVENTS, State
from webchat_fsm.runtime.clock import LONGEST, monotonic
from webchat_fsm.runtime.delivery import AnyEvent
from webchat_fsm.runtime.driver import ManualDriver
from webchat_fsm.runtime.engine import Engine

T = TypeVar("T")
GLANCE = 64
"""How many events are looked at between two looks at the outbox."""


def check_event(name: str) -> None:
    """Raise `ValueError` for an event that there is not, with the one that was probably meant."""
    if name not in EVENTS:
        raise ValueError(f"there is no event {name!r}{nearest(name, EVENTS)}")


class Reader:
    """The reading position of one service, and the ways to wait at it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._position = 0
        self._lock = threading.Lock()

    def wait_for(self, name: str, timeout: float, where: Callable[[AnyEvent], object] | None) -> AnyEvent:
        """The first accepted event behind the reading position."""
        self._outside_of_handlers("wait_for")
        check_event(name)
        found = self._until(self._finder(name, where), timeout, closed=lambda: self._cannot_come(name))
        if found is None:
            raise WaitTimeout(f"{name} did not come within {timeout:g} s; the state is {self._engine.session.state}")
        return found

    def events(self, silence: float | None) -> Iterator[AnyEvent]:
        """Event after event from the reading position."""
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

    def _outside_of_handlers(self, what: str) -> None:
        engine = self._engine
        if engine.outbox.delivering_here or engine.user_code.depth:
            raise HandlerWaitError(f"{what} inside a handler would wait for ever; let the handler return first")

    def _finder(self, name: str | None, where: Callable[[AnyEvent], object] | None) -> Callable[[], AnyEvent | None]:
        """Looks for an accepted event, and at each event once however often it is called."""
        seen = 0

        def find() -> AnyEvent | None:
            nonlocal seen
            seen = max(seen, self._position, self._engine.first_event)
            while behind := self._engine.outbox.after(seen, GLANCE):
                for number, event in behind:
                    seen = number
                    if name in (None, event.name) and (where is None or where(event)) and self._take(number):
                        return event
            return None

        return find

    def _take(self, number: int) -> bool:
        """Move the position behind an event, unless another thread has done so before."""
        with self._lock:
            if self._position >= number:
                return False
            self._position = number
            return True

    def _cannot_come(self, name: str | None) -> bool:
        session = self._engine.session
        if not session.opened:
            return True
        return session.state is State.ENDED and name not in OPENING_EVENTS

    def _until(
        self, look: Callable[[], T | None], timeout: float | None, closed: Callable[[], bool], *, quiet: bool = False
    ) -> T | None:
        """What `look` finds, None after the timeout; `ChatClosed` (None if `quiet`) when it cannot come any more."""
        deadline = math.inf if timeout is None else self._now() + timeout
        while True:
            since, over = self._engine.outbox.changes, closed()
            if (found := look()) is not None:
                return found
            if over and not self._engine.outbox.pending:
                if quiet:
                    return None
                raise ChatClosed("the chat is over or not open; what is awaited cannot come any more")
            if not self._now() < deadline:  # a deadline that is no number is over
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
            moment = min(deadline, math.inf if due is None else due)
            driver.clock.sleep_until(moment)
            driver.run_due()
        else:
            left = deadline - self._now()
            self._engine.outbox.wait_change(since, min(max(0.0, left), LONGEST))
