"""How a command came out: the reference's resolved and rejected, settled when you get it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webchat_fsm.errors import CommandRejected


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
        """The value; raises `CommandRejected` where the command was rejected."""
        if self._error is not None:
            raise self._error
        return self.value
