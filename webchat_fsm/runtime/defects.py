"""Counts and logs what this library itself raises while a chat goes on."""

from __future__ import annotations

import logging
from collections import deque

from webchat_fsm.core.defects import place

log = logging.getLogger("webchat_fsm")


class Defects:
    """The defects of one service: all of them are counted, the first at each place is logged with its traceback."""

    def __init__(self) -> None:
        self.count = 0
        self._known: set[str] = set()
        self._waiting: deque[Exception] = deque()

    def note(self, error: Exception) -> None:
        """Count a defect; it is logged by `report`, as a lock may be held here."""
        self.count += 1
        self._waiting.append(error)

    def report(self) -> None:
        """Log what was noted. Called with no lock held."""
        while self._waiting:
            error = self._waiting.popleft()
            where = f"{type(error).__name__} at {place(error)}"
            if where in self._known:
                log.debug("a defect again: %s", where)
            else:
                self._known.add(where)
                log.error("a defect of webchat_fsm, the chat goes on: %s", where, exc_info=error)
