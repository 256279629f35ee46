"""One step of a session as a transaction: it is finished or rolled back, wherever Ctrl-C strikes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import Any, Protocol

from webchat_fsm._core.decide import decide
from webchat_fsm._core.operations import Disconnect, NoRequest
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import (
    Asked,
    Call,
    Closed,
    Decision,
    Delivered,
    Forget,
    Interrupted,
    Moment,
    Overtaken,
    Publish,
    Save,
    Step,
)
from webchat_fsm._runtime.clock import Driver, moment_of, monotonic
from webchat_fsm._runtime.delivery import Barrier, ChatEvent, EventQueue
from webchat_fsm._runtime.failures import Defects, Guarded, UserCode
from webchat_fsm._runtime.locks import reentrant
from webchat_fsm._runtime.outcome import Receipts
from webchat_fsm._runtime.store import StoreWriter
from webchat_fsm.lifecycle._legality import END_CHAT
from webchat_fsm.lifecycle._table import State, Trigger

log = logging.getLogger("webchat_fsm")

_TRIGGER = attrgetter("trigger")

IN_PASSING = 0.1
"""Seconds for which close() waits for another thread that logs or records, before it leaves its own lines out."""


class Shell(Protocol):
    """The parts of the engine that a transaction works on."""

    session: Session
    lock: Lock
    driver: Driver
    event_queue: EventQueue
    receipts: Receipts
    store_writer: StoreWriter
    user_code: UserCode
    recorder: Guarded
    defects: Defects
    first_event: int

    def wake(self) -> None:
        """Have the driver and all waiting threads look at the session again."""
        ...

    def abandon(self, decision: Decision) -> None:
        """Abandon the pending request of a decision."""
        ...


class Transaction:
    """Decides one step and carries its decision out, and cannot be left half done.

        take the session's lock
        | decide -> record -> enqueue events      rolled back, or completed, before the lock is released
        release the lock
        | log                                     left out after an interruption
        | write to the store, settle receipts     repeated after an interruption: each is idempotent
        | lift the barrier                        events of a lost session wait for the store
        | wake the driver and the readers

    A signal may raise `KeyboardInterrupt` wherever a Python function is entered. It then goes on to the caller, but
    only after the rest is done: no event is lost, no barrier stays, no thread waits for a wake-up. That is why there is
    no `with` statement here: the `__exit__` of a class in Python is an entry too, and would be skipped.
    """

    def __init__(self, shell: Shell, step: Step, *, wait: bool) -> None:
        self._shell, self._step, self._wait = shell, step, wait
        self._barrier = Barrier()
        self._before = 0
        self._decision: Decision | None = None

    def run(self) -> Decision:
        """Run the transaction and return its decision; an exception leaves nothing begun and nothing waiting."""
        shell = self._shell
        try:
            with shell.lock:  # a lock in C: its release is no entry of a function
                decision = self._commit()
            self._report(decision)
            self._carry_out(decision)
            self._barrier.lifted = True
            shell.wake()
        except BaseException:
            self._barrier.lifted = True  # at once: it is no call, so no second signal can prevent it
            try:
                if self._decision is not None:
                    shell.abandon(self._decision)
                    self._carry_out(self._decision)
            finally:  # a store may raise SystemExit each time, and others wait for this step all the same
                shell.wake()
            raise
        return decision

    def _commit(self) -> Decision:
        """Decide, record and enqueue under the lock, so that events are in the order of the decisions."""
        shell = self._shell
        session, now = shell.session, moment_of(shell.driver.clock)
        state, tickets = session.state, session.tickets
        self._before = shell.event_queue.position
        try:
            decision = self._decision = decide(session, self._step, now)
            if shell.recorder.active:
                shell.recorder.stepped(session, self._step, now, decision)
            self._enqueue(decision)
        except BaseException:
            if self._decision is None:
                self._roll_back(state, tickets, now)
            if self._decision is not None:
                self._enqueue(self._decision)
            raise
        return decision

    def _roll_back(self, state: State, tickets: int, now: Moment) -> None:
        """Decide that the interrupted step leaves nothing begun: a start goes back to idle, an end is an end."""
        session = self._shell.session
        if session.state is state and state in (State.STARTING, State.RESTORING):
            return  # another thread has begun that, and it goes on
        operation = (
            Disconnect() if isinstance(self._step, Asked) and self._step.command.rule is END_CHAT else NoRequest()
        )
        # Without a request of this step, a ticket that none has: a poll in flight must not count as interrupted.
        ticket = session.tickets if session.tickets != tickets else -1
        call = Call(operation=operation, number=session.number, ticket=ticket)
        self._decision = decide(session, Interrupted(call=call), now)

    def _enqueue(self, decision: Decision) -> None:
        """Put the events in the queue; idempotent, as an interruption has it called again."""
        if not (decision.transitions or decision.effects):  # as for a command that reads something
            return
        queue, triggers = self._shell.event_queue, set(map(_TRIGGER, decision.transitions))
        if Trigger.OPEN in triggers:
            queue.reopen()
        if triggers & {Trigger.START, Trigger.OPEN}:
            self._shell.first_event = self._before
        events, barrier = [], None
        for effect in decision.effects:
            if isinstance(effect, Publish):
                events.append(ChatEvent(effect.event, effect.data, effect.time))
            elif isinstance(effect, Forget) and effect.lost is not None:
                # A handler that hears of a lost session may open a new one, so the store has to have forgotten it then.
                barrier = self._barrier
        # Where the position has changed the events are in: only this thread adds any, under the lock.
        if (events or barrier) and queue.position == self._before:
            queue.put(*events, behind=barrier)
        if Trigger.CLOSE in triggers:
            queue.close()

    def _report(self, decision: Decision) -> None:
        """Write the recording and the log. No lock is held: a log handler of the user's may give commands."""
        closing = isinstance(self._step, Closed)
        if self._shell.recorder.active:
            self._shell.recorder.flush(IN_PASSING if closing else -1.0)
        if decision.defect is not None:
            self._shell.defects.note(decision.defect)
        if closing:  # close() must not wait for a thread that is held up in a handler of logging
            _log_within(IN_PASSING, partial(self._log, decision))
        else:
            self._log(decision)

    def _log(self, decision: Decision) -> None:
        shell = self._shell
        if shell.recorder.active:
            shell.recorder.report()
        if shell.defects.unlogged:
            shell.defects.report()
        for transition in decision.transitions:
            log.debug("%s: %s -> %s", transition.trigger, transition.source, transition.dest)
        if decision.warning:
            log.warning("%s", decision.warning)

    def _carry_out(self, decision: Decision) -> None:
        """Perform the effects outside of the process; the store ignores an effect that it has carried out already."""
        shell = self._shell
        for effect in decision.effects:
            if isinstance(effect, Save | Forget):
                # The store, or the functions of asynchronous chat, may be the user's.
                shell.user_code.call(partial(shell.store_writer.carry_out, effect, wait=self._wait))
            elif isinstance(effect, Delivered | Overtaken) and shell.receipts.settle(effect):
                shell.event_queue.notify()  # at once, as the store may take long


def _log_within(seconds: float, emit: Callable[[], object]) -> bool:
    """Call a function that logs on `webchat_fsm`; False where another thread holds a lock of logging for so long."""
    deadline = monotonic() + seconds
    held: list[Any] = []
    try:
        for lock in reentrant(*_needed(logging.getLogger("webchat_fsm"))):
            if not lock.acquire(timeout=max(0.0, deadline - monotonic())):
                return False
            held.append(lock)  # a signal before this line leaves it taken, and `release_logging` repairs that
        emit()
        return True
    finally:
        for lock in held:
            lock.release()


def _needed(logger: logging.Logger | None) -> Iterator[Any]:
    """Yield the lock of the module, and those of the handlers that a record of a logger reaches."""
    module: Any = logging
    yield module._lock
    while logger is not None:
        yield from (handler.lock for handler in list(logger.handlers))
        logger = logger.parent if logger.propagate else None
