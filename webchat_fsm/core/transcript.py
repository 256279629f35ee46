"""The messages of one session: in order, each once, less what a prefilter hides."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

from webchat_fsm.core.facts import Arrival
from webchat_fsm.lifecycle.effects import SavedFilter
from webchat_fsm.lifecycle.words import Json, Message, Stats, Transcript

BUILT_IN = re.compile(r"\{start:[0-9]{9}\}")
"""The vendor's standard filter: the token of a co-browse session."""


class _Entry(NamedTuple):
    rank: tuple[int, ...]
    order: int
    message: Message
    original: Json


class TranscriptBook:
    """What has been seen, and what of it is shown."""

    __slots__ = ("_entries", "_seen")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._seen: set[object] = set()

    def clear(self) -> None:
        """Start afresh."""
        self._entries = []
        self._seen.clear()

    def unseen(self, arrivals: Iterable[Arrival]) -> list[Arrival]:
        """The arrivals that are new here, in index order, each once."""
        found, keys = [], set()
        for arrival in sorted(arrivals, key=lambda arrival: arrival.rank or ()):
            key = _identity(arrival)
            if key not in self._seen and key not in keys:
                keys.add(key)
                found.append(arrival)
        return found

    def note(self, arrival: Arrival) -> None:
        """Remember that it was seen, shown or not."""
        self._seen.add(_identity(arrival))

    def add(self, arrival: Arrival, message: Message) -> None:
        """Show a message at its place."""
        last = self._entries[-1].rank if self._entries else ()
        rank = last if arrival.rank is None else arrival.rank
        insort(self._entries, _Entry(rank, len(self._entries), message, arrival.original), key=lambda entry: entry[:2])

    def lowest(self) -> object:
        """The index of the oldest message, as the wire has it; None where there is none."""
        indexes = (entry.original.get("index") for entry in self._entries)
        return next((index for index in indexes if index is not None), None)

    def read(self, since: int | str | None = None) -> Transcript:
        """All messages, or those behind the one with that index."""
        entries = self._entries if since is None else self._behind(since)
        return Transcript(
            messages=tuple(entry.message for entry in entries),
            original_messages=tuple(entry.original for entry in entries),
        )

    def _behind(self, since: int | str) -> list[_Entry]:
        known = next((entry.rank for entry in self._entries if entry.message.index == since), None)
        rank = known if known is not None else (int(since),) if str(since).isdecimal() else ()
        return [entry for entry in self._entries if entry.rank > rank]

    def stats(self) -> Stats:
        """Times of the first and the last message, and what lies between in milliseconds."""
        if not self._entries:
            return Stats(agents={})
        first, last = self._entries[0].message.timestamp, self._entries[-1].message.timestamp
        duration = last - first if isinstance(first, int) and isinstance(last, int) else None
        return Stats(agents={}, start_time=first, end_time=last, duration=duration)


def _identity(arrival: Arrival) -> object:
    if arrival.rank is not None:
        return arrival.rank
    message = arrival.message
    return (message.timestamp, message.type, message.text, message.sender.id)


class Prefilters:
    """The regular expressions whose messages are hidden; equal source and flags count once."""

    __slots__ = ("custom",)

    def __init__(self) -> None:
        self.custom: list[re.Pattern[str]] = []

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
