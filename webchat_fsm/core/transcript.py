"""The messages of one session: in order, each once, less what a prefilter hides."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable
from typing import Any, NamedTuple

from webchat_fsm.core.facts import Arrival
from webchat_fsm.lifecycle.effects import SavedFilter
from webchat_fsm.lifecycle.words import Message, Stats, Transcript, milliseconds

LONGEST_POSITION = 100
"""Digits of an index, beyond which it is none."""

BUILT_IN = re.compile(r"\{start:[0-9]{9}\}")
"""The vendor's standard filter: the token of a co-browse session."""


class _Entry(NamedTuple):
    rank: tuple[int, ...]
    order: int
    message: Message
    original: Any


Mark = tuple[list[_Entry], int, dict[object, None], int, tuple[Arrival, Arrival] | None]


class TranscriptBook:
    """What has been seen, and what of it is shown."""

    __slots__ = ("_ends", "_entries", "_seen")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._seen: dict[object, None] = {}  # in order, so that the latest can be taken back
        self._ends: tuple[Arrival, Arrival] | None = None

    def clear(self) -> None:
        """Start afresh."""
        self._entries, self._seen = [], {}
        self._ends = None

    def mark(self) -> Mark:
        """How far the book has come, for `back_to`."""
        return self._entries, len(self._entries), self._seen, len(self._seen), self._ends

    def back_to(self, mark: Mark) -> None:
        """Take back what was noted and added since."""
        self._entries, entries, self._seen, seen, self._ends = mark
        if len(self._entries) > entries:
            self._entries = [entry for entry in self._entries if entry.order < entries]
        while len(self._seen) > seen:
            self._seen.popitem()

    def unseen(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """The arrivals that are new here, in index order, each once."""
        found, keys = [], set()
        for arrival in _in_order(arrivals):
            key = _identity(arrival)
            if key not in self._seen and key not in keys:
                keys.add(key)
                found.append(arrival)
        return found

    def note(self, arrival: Arrival) -> None:
        """Remember that it was seen, shown or not."""
        self._seen.setdefault(_identity(arrival))
        if arrival.rank is not None:
            known = (arrival, *(self._ends or ()))
            self._ends = min(known, key=_rank), max(known, key=_rank)

    def add(self, arrival: Arrival, message: Message) -> None:
        """Show a message at its place."""
        last = self._entries[-1].rank if self._entries else ()
        rank = last if arrival.rank is None else arrival.rank
        insort(self._entries, _Entry(rank, len(self._entries), message, arrival.original), key=lambda entry: entry[:2])

    @property
    def lowest(self) -> object:
        """The index of the oldest message seen, hidden ones too, as the wire has it; None where there is none."""
        return None if self._ends is None else self._ends[0].original["index"]

    @property
    def oldest(self) -> Arrival | None:
        """The oldest message seen, by its index; None where there is none."""
        return None if self._ends is None else self._ends[0]

    @property
    def highest(self) -> Arrival | None:
        """The newest message seen, by its index; None where there is none."""
        return None if self._ends is None else self._ends[1]

    def read(self, since: int | str | None = None) -> Transcript:
        """All messages, or those behind the one with that index."""
        entries = self._entries if since is None else self._behind(since)
        return Transcript(
            messages=tuple(entry.message for entry in entries),
            original_messages=tuple(entry.original for entry in entries),
        )

    def _behind(self, since: int | str) -> list[_Entry]:
        known = next((entry.rank for entry in self._entries if entry.message.index == since), None)
        number = str(since) if isinstance(since, int | str) else ""
        countable = number.isdecimal() and len(number) <= LONGEST_POSITION
        rank = known if known is not None else (int(number),) if countable else ()
        return [entry for entry in self._entries if entry.rank > rank]

    def stats(self) -> Stats:
        """Times of the first and the last message, and what lies between in milliseconds."""
        if not self._entries:
            return Stats(agents={})
        first, last = (milliseconds(self._entries[place].message.timestamp) for place in (0, -1))
        duration = None if first is None or last is None else last - first
        return Stats(agents={}, start_time=first, end_time=last, duration=duration)


def _rank(arrival: Arrival) -> tuple[int, ...]:
    return arrival.rank or ()


def _in_order(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """By index; one that has none stays behind the one it came after."""
    placed: list[tuple[tuple[int, ...], Arrival]] = []
    for arrival in arrivals:
        before = placed[-1][0] if placed else ()
        placed.append((before if arrival.rank is None else arrival.rank, arrival))
    return [arrival for _, arrival in sorted(placed, key=lambda place: place[0])]


def _identity(arrival: Arrival) -> object:
    if arrival.rank is not None:
        return arrival.rank
    message = arrival.message
    return (message.timestamp, message.type, message.text, message.sender.id)


class Prefilters:
    """The regular expressions whose messages are hidden; equal source and flags count once."""

    __slots__ = ("custom",)

    def __init__(self, saved: Iterable[SavedFilter] = ()) -> None:
        self.custom: list[re.Pattern[str]] = []
        self.merge(saved)

    def add(self, filters: Iterable[re.Pattern[str]]) -> None:
        """Add what is not there yet."""
        for pattern in filters:
            if pattern not in self.custom:
                self.custom = [*self.custom, pattern]

    def clear(self) -> None:
        """Drop all but the built-in one."""
        self.custom = []

    def hide(self, text: str) -> bool:
        """Whether a text is matched."""
        return any(pattern.search(text) for pattern in (BUILT_IN, *self.custom))

    def saved(self) -> list[SavedFilter]:
        """The custom ones as they are saved."""
        return [SavedFilter(source=pattern.pattern, flags=pattern.flags) for pattern in self.custom]

    def merge(self, saved: Iterable[SavedFilter]) -> None:
        """Add saved ones, which the store has checked to compile."""
        self.add(re.compile(one.source, one.flags) for one in saved)
