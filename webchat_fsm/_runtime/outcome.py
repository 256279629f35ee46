"""The outcome of a command, and the receipt of a sent message: settled as it comes back, or is overtaken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from webchat_fsm._core.steps import Delivered, Overtaken
from webchat_fsm._errors import CommandRejected
from webchat_fsm._runtime.locks import Uncopied

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
