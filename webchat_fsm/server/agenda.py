"""Things to be done at a later moment, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count


class Agenda:
    """Entries sorted by moment, and by the order in which they were noted where moments agree."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    @property
    def next_due(self) -> float | None:
        """Moment of the first entry."""
        return self._entries[0][0] if self._entries else None

    def note(self, due: float, act: Callable[[float], None]) -> None:
        """Have `act` called with its moment when that has come."""
        heapq.heappush(self._entries, (due, next(self._order), act))

    def take_until(self, now: float) -> Iterator[tuple[float, Callable[[float], None]]]:
        """What is due, taken off one by one, so that entries noted meanwhile are in it."""
        while self._entries and self._entries[0][0] <= now:
            due, _, act = heapq.heappop(self._entries)
            yield due, act
