"""The engine of one session: opens and closes it, takes its steps, and runs its timers.

A step is decided under the lock by the core, as a `Transaction`. Its request is made with no lock held, and the answer
is the next step: commands run in the caller's thread, timers in the driver's.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from webchat_fsm._config import Config
from webchat_fsm._core.decide import decide
from webchat_fsm._core.defects import defect_reply
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import (
    Asked,
    Call,
    Closed,
    Decision,
    Due,
    Interrupted,
    Opened,
    Replied,
    Reply,
    Settled,
    Step,
)
from webchat_fsm._core.timers import ASKING_ON, Timer, stalled
from webchat_fsm._errors import TransportError
from webchat_fsm._runtime.clock import LONGEST, Driver, Job, moment_of, monotonic
from webchat_fsm._runtime.commands import SEND_TYPING
from webchat_fsm._runtime.delivery import Subscribers
from webchat_fsm._runtime.failures import Defects, Guarded, Preprocessors, UserCode, name_of
from webchat_fsm._runtime.http import Http
from webchat_fsm._runtime.locks import Forked, call_locked, renew_after_fork
from webchat_fsm._runtime.outcome import Receipts
from webchat_fsm._runtime.requests import Requests, Steps, finished, resumed
from webchat_fsm._runtime.store import StoreWriter
from webchat_fsm._runtime.thread_driver import ThreadDriver
from webchat_fsm._runtime.transaction import Transaction
from webchat_fsm._wire.request import silent
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._table import State

log = logging.getLogger("webchat_fsm")

Outcome = tuple[Settled | None, Call | None]
"""The outcome of a command, and its first request."""


JUST_BEGUN = 0.1
"""Seconds after which close() cuts requests once more, for one that a thread was about to make at the first time."""


class Engine:
    """Takes steps for one service."""

    __slots__ = (
        "__weakref__",
        "_closing",
        "_closings",
        "_http",
        "_last_preview",
        "_last_taken",
        "_opening",
        "_own_driver",
        "_polled",
        "defects",
        "driver",
        "event_queue",
        "first_event",
        "lock",
        "preprocessors",
        "preview_input",
        "receipts",
        "recorder",
        "requests",
        "session",
        "store_writer",
        "subscribers",
        "user_code",
    )

    def __init__(
        self, config: Config, http: Http, store_writer: StoreWriter, driver: Driver | None, recorder: Guarded
    ) -> None:
        self.session = Session(config)
        self.lock = threading.Lock()
        """Guards the session, and the order of its events. No code of the user and no I/O runs under it."""
        self.user_code = UserCode()
        self.defects = Defects()
        client = config.client
        self.subscribers = Subscribers(
            self.session, self.user_code, self.defects, client.on_handler_error, client.delivery_timeout / 1000
        )
        self.event_queue = self.subscribers.queue
        self.store_writer = store_writer
        self._own_driver: ThreadDriver | None = None
        if driver is None:
            driver = self._own_driver = ThreadDriver()
        self.driver: Driver = driver
        self.recorder = recorder
        self.receipts = Receipts()
        self.preprocessors = Preprocessors(self.session, self.user_code)
        self.preview_input: Any = None
        self.first_event = 0
        """The number of the last event before the chat, or the opening, that readers read."""
        self.requests = Requests(config, self.session, http, self.driver, self.event_queue, recorder, self.defects)
        self._http = http
        self._last_preview = ""
        self._polled: Call | None = None
        self._last_taken = 0.0
        self._closings = 0
        self._closing = False
        # Held while the service opens or closes, so that no other thread opens it again before all is closed.
        self._opening = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Be closed in a forked child, with new locks: chat, connections and saved session are the parent's."""
        self.lock = threading.Lock()
        self._opening, self._closing = threading.RLock(), False
        self.user_code.after_fork()
        self.subscribers.after_fork()
        self.receipts.after_fork()
        self.requests.misreadings.after_fork()
        self.recorder.after_fork()
        self.store_writer.after_fork()
        if isinstance(self._http, Forked):
            self._http.after_fork()
        # The effects of closing are left out: saving is up to the parent.
        decide(self.session, Closed(), moment_of(self.driver.clock))

    # -- opening and closing ---------------------------------------------------------------------------------------

    @property
    def inside(self) -> bool:
        """Return whether this thread is inside a handler or other code of the user, where waiting could deadlock."""
        return self.event_queue.delivering_here or bool(self.user_code.depth)

    def open(self) -> bool:
        """Open the session with what is saved; False where it was closed meanwhile. Raises `StoreError`."""
        closings = self._closings
        opened = Opened(saved=self.load())
        decisions: list[Decision] = []

        def begin() -> bool:
            # Closed while the store was read, or within this very thread.
            if self._closings != closings or self._closing:
                return False
            self.driver.attach(self)
            decisions.append(self.commit(opened))
            return True

        # Inside a handler for which another thread's close() waits, waiting for that thread would lock up both.
        if not call_locked(self._opening, begin, 0.0 if self.inside else -1.0):
            return False
        try:
            self.run(opened, decisions[0])
        except BaseException:
            self.abandon(decisions[0])
            raise
        return True

    def announce_close(self) -> None:
        """Have an `open` of another thread give up, before the chat is ended and closed."""
        self._closings += 1

    def close(self, timeout: float) -> bool:
        """Close the session and cut its requests; True when nothing of it runs any more, within `timeout` seconds."""
        deadline = monotonic() + min(timeout, LONGEST)

        def left() -> float:
            return max(0.0, deadline - monotonic())

        lock_timeout = max(JUST_BEGUN, 0.0 if self.inside else left())
        gone = call_locked(self._opening, partial(self._close, left), lock_timeout)
        if gone is None:  # another thread is closing, and does the rest
            self.commit(Closed(), wait=False)
        return bool(gone)

    def _close(self, left: Callable[[], float]) -> bool:
        self._closing = True  # so that no handler that is called from here opens it again
        try:
            return self._close_all(left)
        finally:
            self._closing = False

    def _close_all(self, left: Callable[[], float]) -> bool:
        inside = self.inside
        if not inside:
            self.event_queue.drain(at_most=left())
        # Not waiting for the store: a thread that is writing to it saves what this step has decided, too.
        self.commit(Closed(), wait=False)
        self.subscribers.forget_ready()
        # Before the cut, which would have the driver resume what is parked: cancelled, it needs no other thread.
        gone = self.driver.detach(self, 0.0)
        # A request that is out fails at once by this. Its thread then commits the failure to a closed session, where it
        # changes nothing, and ends; `detach` waits for it.
        self._http.cut()
        if not gone:
            gone = self.driver.detach(self, min(JUST_BEGUN, left()))
        if not (gone or inside):
            self._http.cut()
            gone = self.driver.detach(self, left())
        self._http.close()
        if self._own_driver is not None:
            gone = self._own_driver.close(left()) and gone
        return not inside and self.event_queue.wait_idle(left()) and self.store_writer.idle(left()) and gone

    # -- steps -----------------------------------------------------------------------------------------------------

    def commit(self, step: Step, *, wait: bool = True) -> Decision:
        """Decide a step, publish its events and carry out its effects; see `Transaction`.

        Without `wait`, a thread that is writing to the store is left to write this decision's document too.
        """
        return Transaction(self, step, wait=wait).run()

    def wake(self) -> None:
        """Have the driver and all waiting threads look at the session again."""
        self.driver.wake(self)
        self.event_queue.notify()
        self.requests.end_pauses()

    def abandon(self, decision: Decision) -> None:
        """Abandon the pending request of a decision. Idempotent."""
        if decision.call is not None:
            self.commit(Interrupted(call=decision.call))

    def load(self) -> SavedSession | None:
        """Return the saved session, None where there is none; raises `StoreError`."""
        return self.user_code.call(self.store_writer.load)

    def run(self, step: Step, decision: Decision | None = None) -> Outcome:
        """Take a step and every step that follows from its requests; returns the outcome and the first request.

        `decision` is that of the step where it was taken before.
        """
        decision = decision or self.commit(step)
        if decision.call is None:  # as for most commands, which then need no steps
            return decision.settled, None
        try:
            return finished(self._steps(step, decision, parks=False))
        except BaseException:  # Ctrl-C, perhaps before the first of them was entered
            self.abandon(decision)
            raise

    def _steps(self, step: Step, decision: Decision | None = None, *, parks: bool) -> Steps[Outcome]:
        """Take a step and those that follow; where it `parks` it yields what is to be waited for."""
        decision = decision or self.commit(step)
        first, settled = decision.call, decision.settled
        try:
            while (call := decision.call) is not None:
                if call.ticket == self.session.poll_ticket:
                    self._polled = call
                # What the decision published is delivered before its request, whose answer may take long.
                self.event_queue.drain(wait=False)
                reply = yield from self._reply(call, parks=parks)
                decision = self.commit(Replied(call=call, reply=reply))
                settled = settled or decision.settled
        except GeneratorExit:  # its driver is gone, which may be found anywhere: no lock can be taken here
            raise
        except BaseException:
            self.abandon(decision)
            raise
        return settled, first

    def _reply(self, call: Call, *, parks: bool) -> Steps[Reply]:
        """Make a request and preprocess its reply; a defect of this library counts as a bad reply."""
        reply: Reply | None = None
        try:
            reply = yield from self.requests.perform(call, parks=parks)
            return self.preprocessors.apply(self.lock, call, reply) if self.preprocessors.registered else reply
        except MemoryError:  # no defect, and there is no memory to build a reply: it goes on as an interruption does
            raise
        except Exception as error:
            self.defects.note(error)
            return defect_reply(call.operation.name, error, reply.response if reply is not None else None)

    # -- timers ----------------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return the moment of the earliest timer, None without one."""
        with self.lock:
            return min(self.session.timers.values(), default=None)

    def timers(self) -> list[tuple[Timer, float]]:
        """Return every timer and its moment."""
        with self.lock:
            return list(self.session.timers.items())

    def take_due(self, now: float) -> list[Job]:
        """Remove all timers due by now, and return their jobs in order of time."""
        with self.lock:
            due = sorted((moment, timer) for timer, moment in self.session.timers.items() if moment <= now)
            for _, timer in due:
                del self.session.timers[timer]
            self._last_taken = now if due else self._last_taken
        return [partial(self._begin_timer, timer) for _, timer in due]

    def run_timer(self, timer: Timer, *, by_hand: bool = False) -> bool:
        """Take the step of a timer; true where the server answered well."""
        return finished(self._timer_steps(timer, by_hand=by_hand, parks=False))

    def _begin_timer(self, timer: Timer) -> object:
        """Take the step of a timer as a job of the driver, parked where it can park."""
        return resumed(self._timer_steps(timer, by_hand=False, parks=isinstance(self.driver, ThreadDriver)))

    def _timer_steps(self, timer: Timer, *, by_hand: bool, parks: bool) -> Steps[bool]:
        try:
            preview = yield from self._typed(timer, parks=parks)
        except GeneratorExit:
            raise
        except BaseException:
            self._put_back(timer)
            raise
        try:
            settled, _ = yield from self._steps(Due(timer=timer, preview=preview, by_hand=by_hand), parks=parks)
        except GeneratorExit:
            raise
        except Exception as error:
            self.defects.note(error)
            self.defects.report()
            self._put_back(timer)
            self.event_queue.drain(wait=False)
            return False
        except BaseException:
            self.event_queue.drain(wait=False)
            raise
        self.event_queue.drain(wait=False)
        return settled is not None and settled.resolved

    def _put_back(self, timer: Timer) -> None:
        """Let a timer whose step failed fall due again, or polling would end without a sign."""
        with self.lock:
            if self.session.opened:
                self.session.timers.setdefault(timer, self.driver.clock.timer() + self.session.delay)
        self.driver.wake(self)

    def preview(self) -> str:
        """Return the text of the registered typing preview input, "" without one."""
        if self.preview_input is None:
            return ""
        try:
            return self.user_code.call(lambda: str(self.preview_input.value or ""))
        except Exception:
            log.exception("the typing preview input %s failed", name_of(self.preview_input))
            return ""

    def _typed(self, timer: Timer, *, parks: bool) -> Steps[str]:
        """Return the preview text; a change since the last timer gives one sendTyping."""
        text = self.preview()
        if timer in (Timer.POLL, Timer.PREVIEW) and text != self._last_preview:
            self._last_preview = text
            if text and self.session.state.has_session:
                yield from self._steps(Asked(command=SEND_TYPING, data={"message": text}, by=By.SERVICE), parks=parks)
        return text

    # -- stalled polling -------------------------------------------------------------------------------------------

    def stalled(self, now: float) -> float | None:
        """Return the seconds without a poll where they exceed its deadline and pause. Called under the lock."""
        return stalled(self.session, now, self._last_taken)

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that restart stalled polling: a worker was lost, or a request never returns."""
        with self.lock:
            pending = any(timer in self.session.timers for timer in ASKING_ON)  # then the driver is late, not the poll
            if pending or self.stalled(now) is None:
                return []
            out, polls = self.session.poll_ticket, self.session.transport.polls
            self._last_taken = now
        log.error("polling has stalled and is restarted")
        return [
            partial(self._give_up_poll, out)
            if out
            else partial(self._begin_timer, Timer.POLL if polls else Timer.CONNECT)
        ]

    def _give_up_poll(self, ticket: int) -> None:
        """Treat the poll in flight as unanswered; a late answer is still read."""
        call = self._polled
        if call is not None and call.ticket == ticket == self.session.poll_ticket:
            error = TransportError(f"{call.operation.name}: neither answered nor given up long after its deadline")
            self.run(Replied(call=call, reply=silent("", error)))
            self.event_queue.drain(wait=False)

    @property
    def settled(self) -> bool:
        """False while a restore is in flight."""
        return self.session.state is not State.RESTORING
