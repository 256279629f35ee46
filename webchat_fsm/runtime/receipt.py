"""What became of a sent message."""

from __future__ import annotations

from collections.abc import Callable


class Receipt:
    """A sent message: `status` is sent (the server took it), unknown (no complete answer came) or delivered.

    It is delivered when it has come back in the transcript, at `index`.
    """

    def __init__(self, ticket: int, status: str, wait: Callable[[Receipt, float], bool]) -> None:
        self.ticket = ticket
        self.status = status
        self.index: int | str | None = None
        self._wait = wait

    def __repr__(self) -> str:
        return f"Receipt({self.status}{'' if self.index is None else f', index={self.index}'})"

    def wait(self, timeout: float) -> bool:
        """Wait until the message has come back, at most `timeout` seconds; True when it has.

        Raises `HandlerWaitError` inside a handler.
        """
        return self._wait(self, timeout)
