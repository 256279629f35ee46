"""What became of a sent message."""

from __future__ import annotations

from collections.abc import Callable

from webchat_fsm.lifecycle.effects import Delivered, Overtaken


class Receipt:
    """A sent message, and how far it has come.

    `status` is "sent" (the server took it), "delivered" (it has come back in the transcript, at `index`) or "unknown":
    no complete answer came, or a later message has come back and this one has not.
    """

    def __init__(self, ticket: int, status: str, wait: Callable[[Receipt, float], bool]) -> None:
        self.ticket = ticket
        self.status = status
        self.index: int | str | None = None
        self.settled = False
        """True once nothing more is waited for: it is delivered, or a later one has overtaken it."""
        self._wait = wait

    def __repr__(self) -> str:
        return f"Receipt({self.status}{'' if self.index is None else f', index={self.index}'})"

    def settle(self, effect: Delivered | Overtaken) -> None:
        """Take in what has become of it; one that was overtaken may come back yet, a delivered one stays delivered."""
        if isinstance(effect, Delivered):
            self.index, self.status = effect.index, "delivered"
        elif self.status != "delivered":  # two threads may bring their effects in the other order
            self.status = "unknown"
        self.settled = True

    def wait(self, timeout: float) -> bool:
        """Wait until the message has come back, at most `timeout` seconds; True when it has.

        Returns False at once where a later message has overtaken it. Raises `HandlerWaitError` inside a handler.
        """
        return self._wait(self, timeout)
