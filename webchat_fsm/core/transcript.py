"""The messages of one session: in order, each once, less what a prefilter hides."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from webchat_fsm.core.facts import Arrival
from webchat_fsm.core.placement import Frame, Placed, Rank, arrange, fingerprint, goes_on, is_same, position_behind
from webchat_fsm.lifecycle.effects import SavedFilter
from webchat_fsm.lifecycle.words import Message, Stats, Transcript, milliseconds

LONGEST_POSITION = 100
"""Digits of an index, beyond which it is none."""

BUILT_IN = re.compile(r"\{start:[0-9]{9}\}")
"""The vendor's standard filter: the token of a co-browse session."""


Place = tuple[Rank, int]
"""Where an event stands: at an index (0), or so many steps behind or before it where its own cannot be believed."""

BEFORE = -(2**62)
"""Steps to the place before an index, in which odd events are counted forward."""


class _Entry(NamedTuple):
    place: Place
    order: int
    message: Message
    original: Any


class Found(NamedTuple):
    """An event of an answer with its place; `sure` where its index is believed, `fresh` where it is new."""

    arrival: Arrival
    place: Place
    sure: bool
    fresh: bool


class Answer(NamedTuple):
    """What an answer holds: its events, and the position behind it."""

    found: Sequence[Found]
    position: int

    @property
    def fresh(self) -> list[Found]:
        """The events that are new."""
        return [one for one in self.found if one.fresh]


class Mark(NamedTuple):
    """How far a book has come: its collections, how much is in them, and the rest of its state."""

    entries: list[_Entry]
    seen: dict[Rank, object]
    odd: dict[Rank | None, dict[bytes, Place]]
    oddities: list[tuple[Rank | None, bytes]]
    counts: tuple[int, int, int]
    ends: tuple[Arrival, Arrival] | None
    reached: Arrival | None
    late: bool


class TranscriptBook:
    """What has been seen, and what of it is shown.

    An event whose index is believed is known by its index, an odd one (`placement`) by its raw content: so an index
    that an odd event has claimed stays free for the event that it belongs to.
    """

    __slots__ = ("_ends", "_entries", "_late", "_odd", "_oddities", "_reached", "_seen")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start afresh."""
        self._entries: list[_Entry] = []
        self._seen: dict[Rank, object] = {}
        self._odd: dict[Rank | None, dict[bytes, Place]] = {}
        self._oddities: list[tuple[Rank | None, bytes]] = []
        self._ends: tuple[Arrival, Arrival] | None = None
        self._reached: Arrival | None = None
        self._late = False

    def mark(self) -> Mark:
        """Return how far the book has come, for `back_to`."""
        counts = len(self._entries), len(self._seen), len(self._oddities)
        return Mark(self._entries, self._seen, self._odd, self._oddities, counts, self._ends, self._reached, self._late)

    def back_to(self, mark: Mark) -> None:
        """Take back what was noted and added since; in place, as a copy at each step would cost more than the step."""
        self._entries, self._seen, self._odd, self._oddities, counts, self._ends, self._reached, self._late = mark
        entries, seen, oddities = counts
        if len(self._entries) > entries:
            self._entries = [entry for entry in self._entries if entry.order < entries]
        while len(self._seen) > seen:
            self._seen.popitem()
        while len(self._oddities) > oddities:
            rank, digest = self._oddities.pop()
            claimed = self._odd.get(rank, {})
            claimed.pop(digest, None)  # none where it was noted in a copy that `_move` made
            if not claimed:  # an index counts as odd as soon as it stands there
                self._odd.pop(rank, None)

    def look(
        self,
        arrivals: Sequence[Arrival],
        *,
        position: int | None = None,
        bounded: bool = False,
        next_position: int | None = None,
        old: bool = False,
    ) -> Answer:
        """Put the events of an answer in their places; the rest of the arguments is that of `Frame`."""
        if not arrivals:
            return Answer((), 1 if position is None else position)
        if not (old or self._odd) and self._follow(arrivals, position, bounded=bounded):
            found = [Found(one, (_rank(one), 0), True, True) for one in arrivals]
            return Answer(found, 1 if position is None else position + len(arrivals))
        first, last = self._ends or (None, None)
        frame = Frame(position, bounded, next_position, self._seen, first, last, self._odd, old)
        placed = arrange(arrivals, frame)
        found = self._found(placed, old=old)
        moving = [pair for pair, one in zip(placed, found, strict=True) if one.sure or _moves(one, frame)]
        return Answer(found, 1 if position is None else position_behind(moving, frame))

    def _follow(self, arrivals: Sequence[Arrival], position: int | None, *, bounded: bool) -> bool:
        """Return whether these are the events that come next and nothing else, as in nearly every answer.

        The rules of `arrange` come to the same for them, in several times the time.
        """
        last = None if self._ends is None else self._ends[1]
        if position is None:
            return last is not None and goes_on(arrivals, last)
        if not (bounded or last is None or _rank(last) < (position,)):
            return False
        seen = self._seen
        return all(one.rank == (place,) and one.rank not in seen for place, one in enumerate(arrivals, start=position))

    def _found(self, placed: Sequence[Placed], *, old: bool) -> list[Found]:
        found: list[Found] = []
        behind, steps = self._begin(placed, old=old), len(self._oddities)
        for arrival, sure in placed:
            rank = arrival.rank
            if sure and rank is not None:
                place = behind = (rank, 0)
                fresh = rank not in self._seen and self._odd_place(arrival) is None
            else:
                known = self._known(arrival)
                fresh = known is None
                steps += fresh
                place = known or (behind[0], steps + (BEFORE if behind[1] < 0 else 0))
                behind = max(behind, place)  # the place of one that is known may move on with this very answer
            found.append(Found(arrival, place, sure, fresh))
        return found

    def _known(self, arrival: Arrival) -> Place | None:
        """Return the place of an odd event that was seen before, as an odd one or with its index believed."""
        rank = arrival.rank
        if rank is not None and rank in self._seen and is_same(arrival, self._seen[rank]):
            return rank, 0
        return self._odd_place(arrival)

    def _odd_place(self, arrival: Arrival) -> Place | None:
        """Return the place of an odd event seen before; nothing is digested where none has claimed that index."""
        claimed = self._odd.get(arrival.rank)
        return claimed.get(fingerprint(arrival)) if claimed else None

    def _begin(self, placed: Sequence[Placed], *, old: bool) -> Place:
        """Place an odd event that nothing precedes: behind the last one known, or before its successor.

        Its successor says where it stands if that is known already, or if it is history.
        """
        first, last = (_rank(end) for end in self._ends or (None, None))
        following = next((_rank(arrival) for arrival, sure in placed if sure), first if old else None)
        if following is not None and (old or following <= last):
            return following, BEFORE
        return last, 0

    def note(self, one: Found) -> None:
        """Remember that it was seen, shown or not."""
        arrival = one.arrival
        if not one.sure:
            digest = fingerprint(arrival)
            self._odd.setdefault(arrival.rank, {})[digest] = one.place
            self._oddities.append((arrival.rank, digest))
            return
        rank = one.place[0]
        self._seen[rank] = arrival.original
        first, last = self._ends or (arrival, arrival)
        self._ends = arrival if rank < _rank(first) else first, arrival if rank > _rank(last) else last

    def know(self, arrivals: Sequence[Arrival]) -> None:
        """Remember the events of an answer, of which none is shown."""
        for one in self.look(arrivals).fresh:
            self.note(one)

    def confirm(self, found: Iterable[Found]) -> None:
        """Give odd events that came again, with an index that can be believed now, that index and its place."""
        for one in found:
            place = self._odd_place(one.arrival)
            if one.sure and not one.fresh and place is not None and _rank(one.arrival) not in self._seen:
                self.note(one)
                self._move(place, one)

    def _move(self, place: Place, one: Found) -> None:
        """Move an odd event to the place of its index, and behind it those that stand there for want of their own."""

        def moved(other: Place) -> Place:
            following = other[0] == place[0] and other[1] > place[1] and (other[1] < 0) == (place[1] < 0)
            follows = following and (one.place[0] > place[0] or place[1] < 0)
            return (one.place[0], other[1] - place[1]) if follows else other

        index = one.arrival.message.index
        self._entries = [
            entry._replace(place=one.place, message=replace(entry.message, index=index))
            if entry.place == place
            else entry._replace(place=moved(entry.place))
            for entry in self._entries
        ]
        self._entries.sort(key=_where)
        self._odd = {
            rank: {digest: moved(other) for digest, other in claimed.items()} for rank, claimed in self._odd.items()
        }

    def add(self, one: Found, message: Message) -> None:
        """Show a message at its place."""
        entry = _Entry(one.place, len(self._entries), message, one.arrival.original)
        if not self._entries or entry.place >= self._entries[-1].place:
            self._entries.append(entry)  # the usual case, in a fifth of the time
        else:
            insort(self._entries, entry, key=_where)

    def reach(self, fresh: Iterable[Found]) -> Arrival | None:
        """Return the event behind which to go on where indexes are no positions; None where that stays as it is.

        It is the last one whose index is believed. One from before the last such is a message that came late, unless
        its time is later or the next answer is from there too: then the index that was believed was wrong.
        """
        last = next((one.arrival for one in reversed(list(fresh)) if one.sure), None)
        if last is None:
            return None
        before, late = self._reached, self._late
        self._late = before is not None and _rank(last) < _rank(before) and not late and not _is_later(last, before)
        self._reached = before if self._late else last
        return None if self._late else last

    @property
    def lowest(self) -> object:
        """The index of the oldest message seen, hidden ones too, as the wire has it; None where there is none."""
        return None if self._ends is None else wire_index(self._ends[0])

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
        known = next((entry.place for entry in self._entries if entry.message.index == since), None)
        number = str(since) if isinstance(since, int | str) else ""
        countable = number.isdecimal() and len(number) <= LONGEST_POSITION
        counted: Place = ((int(number),) if countable else (), 0)
        return [entry for entry in self._entries if entry.place > (known or counted)]

    def stats(self) -> Stats:
        """Times of the first and the last message, and what lies between in milliseconds."""
        if not self._entries:
            return Stats(agents={})
        first, last = (milliseconds(self._entries[place].message.timestamp) for place in (0, -1))
        duration = None if first is None or last is None else last - first
        return Stats(agents={}, start_time=first, end_time=last, duration=duration)


def wire_index(arrival: Arrival) -> object:
    """Return the index of an event as the wire has it."""
    original = arrival.original
    return original.get("index", arrival.message.index) if isinstance(original, dict) else arrival.message.index


def _rank(arrival: Arrival | None) -> Rank:
    return () if arrival is None else arrival.rank or ()


def _where(entry: _Entry) -> tuple[Place, int]:
    return entry[:2]


def _moves(one: Found, frame: Frame) -> bool:
    """Return whether an event counts for the next position: not an odd one repeated from before it."""
    return one.fresh or one.place[0] >= ((frame.position or 1) - 1,)


def _is_later(one: Arrival, two: Arrival) -> bool:
    times = milliseconds(one.message.timestamp), milliseconds(two.message.timestamp)
    return times[0] is not None and times[1] is not None and times[0] > times[1]


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
