"""The messages of one session: in order, each once, less what a prefilter hides (`prefilters`)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import count, repeat
from operator import attrgetter, eq
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._core.placement import Frame, Placed, Rank, arrange, fingerprint, goes_on, is_same, position_behind
from webchat_fsm._core.steps import ReceivedMessage
from webchat_fsm._model import Message, Stats, Transcript, milliseconds

LONGEST_POSITION = 100
"""Digits of an index, beyond which it is none; `int` raises for some thousand."""

Place = tuple[Rank, int]
"""Where an event stands: at an index (0), or so many steps behind or before it where its own cannot be believed."""

BEFORE = -(2**62)
"""Steps to the place before an index, in which odd events are counted forward."""


class _Entry(Struct, frozen=True, gc=False):  # nothing that it holds leads back to it
    """A message that is shown; `order` counts the entries in the order in which they were added."""

    # the two parts of its place, as a tuple of them for each of thousands takes memory and time
    rank: Rank
    steps: int
    order: int
    message: Message
    original: Any

    @property
    def place(self) -> Place:
        """Return where it stands."""
        return self.rank, self.steps


class LocatedEvent(Struct, frozen=True):
    """An event of an answer with its place; `sure` where its index is believed, `fresh` where it is new."""

    event: ReceivedMessage
    place: Place
    sure: bool
    fresh: bool


class LocatedAnswer(Struct):
    """What an answer holds: its events with their places, and the position behind it (None: indexes are none).

    `next_ones` are its events where they follow all others that are known, each new and its index believed, as in
    nearly every answer: nothing of them need be looked at one by one.
    """

    position: int | None
    located: Sequence[LocatedEvent] = ()
    next_ones: Sequence[ReceivedMessage] = ()

    @property
    def events(self) -> Sequence[LocatedEvent]:
        """Return all of its events."""
        if self.next_ones and not self.located:
            self.located = [LocatedEvent(one, (_rank(one), 0), True, True) for one in self.next_ones]
        return self.located

    @property
    def fresh(self) -> list[LocatedEvent]:
        """Return the events that are new."""
        return [one for one in self.events if one.fresh]

    @property
    def brings_new(self) -> bool:
        """Return whether any event is new."""
        return bool(self.next_ones) or any(one.fresh for one in self.located)

    @property
    def last_believed(self) -> ReceivedMessage | None:
        """Return the last new event whose index is believed; None where there is none."""
        if self.next_ones:
            return self.next_ones[-1]
        return next((one.event for one in reversed(self.located) if one.fresh and one.sure), None)


Mark = tuple[
    list[_Entry],
    dict[Rank, object],
    dict[Rank | None, dict[bytes, Place]],
    list[tuple[Rank | None, bytes]],
    tuple[int, int, int],
    tuple[ReceivedMessage, ReceivedMessage] | None,
    ReceivedMessage | None,
    bool,
]
"""The extent of a transcript at a moment: its four collections, how much is in the entries, the seen and the odd ones,
and the rest of its state. A plain tuple, as each step makes one."""


class OrderedTranscript:
    """What has been seen, and what of it is shown.

    An event whose index is believed is known by its index, an odd one (`placement`) by its raw content: so an index
    that an odd event has claimed stays free for the event that it belongs to.
    """

    __slots__ = ("_ends", "_entries", "_late", "_odd", "_odd_order", "_reached", "_seen")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all messages."""
        self._entries: list[_Entry] = []
        self._seen: dict[Rank, object] = {}
        self._odd: dict[Rank | None, dict[bytes, Place]] = {}
        self._odd_order: list[tuple[Rank | None, bytes]] = []
        self._ends: tuple[ReceivedMessage, ReceivedMessage] | None = None
        self._reached: ReceivedMessage | None = None
        self._late = False

    def mark(self) -> Mark:
        """Return the extent of the transcript, for `back_to`."""
        counts = len(self._entries), len(self._seen), len(self._odd_order)
        return self._entries, self._seen, self._odd, self._odd_order, counts, self._ends, self._reached, self._late

    def back_to(self, mark: Mark) -> None:
        """Take back what was noted and added since; in place, as a copy at each step would cost more than the step."""
        self._entries, self._seen, self._odd, self._odd_order, counts, self._ends, self._reached, self._late = mark
        entries, seen, odd_order = counts
        if len(self._entries) > entries:  # sorted by place, so that the new ones can stand anywhere
            self._entries = [entry for entry in self._entries if entry.order < entries]
        while len(self._seen) > seen:  # a dict gives back its newest entries first
            self._seen.popitem()
        while len(self._odd_order) > odd_order:
            rank, digest = self._odd_order.pop()
            claimed = self._odd.get(rank, {})
            claimed.pop(digest, None)  # none where it was noted in a copy that `_move` made
            if not claimed:  # an empty entry would still count as a claim of that index
                self._odd.pop(rank, None)

    def locate(
        self,
        received: Sequence[ReceivedMessage],
        *,
        position: int | None = None,
        bounded: bool = False,
        next_position: int | None = None,
        old: bool = False,
    ) -> LocatedAnswer:
        """Put the events of an answer in their places; the rest of the arguments is that of `Frame`."""
        if not received:
            return LocatedAnswer(position)
        # the usual answer is recognised first; where odd events are known, each event could be one of them again
        if not (old or self._odd) and self._follow(received, position):
            return LocatedAnswer(None if position is None else position + len(received), next_ones=received)
        first, last = self._ends or (None, None)
        frame = Frame(position, bounded, next_position, self._seen, first, last, self._odd, old)
        placed = arrange(received, frame)
        found = self._located(placed, old=old)
        # an odd event that is repeated from before the position would count as one that follows it
        moving = [pair for pair, one in zip(placed, found, strict=True) if one.sure or _moves(one, frame)]
        return LocatedAnswer(None if position is None else position_behind(moving, frame), found)

    def _follow(self, received: Sequence[ReceivedMessage], position: int | None) -> bool:
        """Return whether these are the events that come next and nothing else, as in nearly every answer.

        The rules of `arrange` come to the same for them, in several times the time.
        """
        last = None if self._ends is None else self._ends[1]
        if position is None:
            return last is not None and goes_on(received, last)
        if not _rank(last) < (position,):
            return False
        expected = zip(range(position, position + len(received)))  # as tuples of one number, none of which is kept
        return all(map(eq, [one.rank for one in received], expected))

    def _located(self, placed: Sequence[Placed], *, old: bool) -> list[LocatedEvent]:
        found: list[LocatedEvent] = []
        # counted on from all odd events so far, so that no two share a place
        behind, steps = self._begin(placed, old=old), len(self._odd_order)
        for event, sure in placed:
            rank = event.rank
            if sure and rank is not None:
                place = behind = (rank, 0)
                # an odd event that comes again with a believed index is known by its content; `confirm` moves it
                fresh = rank not in self._seen and self._odd_place(event) is None
            else:
                known = self._known(event)
                fresh = known is None
                steps += fresh
                place = known or (behind[0], steps + (BEFORE if behind[1] < 0 else 0))
                behind = max(behind, place)  # the place of one that is known may move on with this very answer
            found.append(LocatedEvent(event, place, sure, fresh))
        return found

    def _known(self, event: ReceivedMessage) -> Place | None:
        """Return the place of an odd event that was seen before, as an odd one or with its index believed."""
        rank = event.rank
        if rank is not None and rank in self._seen and is_same(event, self._seen[rank]):
            return rank, 0
        return self._odd_place(event)

    def _odd_place(self, event: ReceivedMessage) -> Place | None:
        """Return the place of an odd event seen before; nothing is digested where none has claimed that index."""
        claimed = self._odd.get(event.rank)
        return claimed.get(fingerprint(event)) if claimed else None

    def _begin(self, placed: Sequence[Placed], *, old: bool) -> Place:
        """Place an odd event that nothing precedes: behind the last one known, or before its successor.

        Its successor says where it stands if that is known already, or if it is history.
        """
        first, last = (_rank(end) for end in self._ends or (None, None))
        following = next((_rank(event) for event, sure in placed if sure), first if old else None)
        if following is not None and (old or following <= last):
            return following, BEFORE
        return last, 0

    def note(self, one: LocatedEvent) -> None:
        """Remember that it was seen, shown or not."""
        event = one.event
        if not one.sure:
            digest = fingerprint(event)
            self._odd.setdefault(event.rank, {})[digest] = one.place
            self._odd_order.append((event.rank, digest))
            return
        rank = one.place[0]
        self._seen[rank] = event.original  # by reference: nothing changes a value of the wire
        first, last = self._ends or (event, event)
        self._ends = event if rank < _rank(first) else first, event if rank > _rank(last) else last

    def remember(self, received: Sequence[ReceivedMessage]) -> None:
        """Remember the events of an answer, of which none is shown."""
        for one in self.locate(received).fresh:
            self.note(one)

    def confirm(self, found: Iterable[LocatedEvent]) -> None:
        """Give odd events that came again, with an index that can be believed now, that index and its place."""
        for one in found:
            place = self._odd_place(one.event)
            if one.sure and not one.fresh and place is not None and _rank(one.event) not in self._seen:
                self.note(one)
                self._move(place, one)

    def _move(self, place: Place, one: LocatedEvent) -> None:
        """Move an odd event to the place of its index, and behind it those that stand there for want of their own."""

        def moved(other: Place) -> Place:
            # in the same part: before an index, or behind it, where the steps are counted apart
            following = other[0] == place[0] and other[1] > place[1] and (other[1] < 0) == (place[1] < 0)
            follows = following and (one.place[0] > place[0] or place[1] < 0)
            return (one.place[0], other[1] - place[1]) if follows else other

        index = one.event.message.index
        self._entries = [
            _moved(entry, one.place, replace(entry.message, index=index))
            if entry.place == place
            else _moved(entry, moved(entry.place), entry.message)
            for entry in self._entries
        ]
        self._entries.sort(key=_where)
        # replaced as a whole, as a mark keeps the dicts of before by reference
        self._odd = {
            rank: {digest: moved(other) for digest, other in claimed.items()} for rank, claimed in self._odd.items()
        }

    def extend(self, received: Sequence[ReceivedMessage], messages: Sequence[Message]) -> None:
        """Note and show the events that come next (`LocatedAnswer.next_ones`), each as the message beside it."""
        ranks, originals = [one.rank or () for one in received], [one.original for one in received]
        self._seen.update(zip(ranks, originals, strict=True))
        # by `map`, as nothing of a message need be decided here
        self._entries += map(_Entry, ranks, repeat(0), count(len(self._entries)), messages, originals)
        self._ends = (self._ends or received)[0], received[-1]

    def add(self, one: LocatedEvent, message: Message) -> None:
        """Show a message at its place."""
        # the count of entries is its order, by which `back_to` finds those that a step has added
        entry = _Entry(*one.place, len(self._entries), message, one.event.original)
        if not self._entries or entry.place >= self._entries[-1].place:
            self._entries.append(entry)  # the usual case, in a fifth of the time
        else:
            insort(self._entries, entry, key=_where)

    def advance(self, last: ReceivedMessage | None) -> ReceivedMessage | None:
        """Return the event behind which to go on where indexes are no positions; None where that stays as it is.

        It is the last one of an answer whose index is believed. One from before the last such is a message that came
        late, unless its time is later or the next answer is from there too: then the index that was believed was wrong.
        """
        if last is None:  # an odd index would ask for messages from where none are
            return None
        before, late = self._reached, self._late
        # believed the second time: a wrong high index would else hide all that comes below it
        self._late = before is not None and _rank(last) < _rank(before) and not late and not _is_later(last, before)
        self._reached = before if self._late else last
        return None if self._late else last

    @property
    def lowest(self) -> object:
        """Return the wire's index of the oldest message seen, hidden ones too; None where there is none."""
        return None if self._ends is None else wire_index(self._ends[0])

    @property
    def oldest(self) -> ReceivedMessage | None:
        """Return the oldest message seen, by its index; None where there is none."""
        return None if self._ends is None else self._ends[0]

    @property
    def highest(self) -> ReceivedMessage | None:
        """Return the newest message seen, by its index; None where there is none."""
        return None if self._ends is None else self._ends[1]

    def read(self, since: int | str | None = None, *, missing: int | None = 0) -> Transcript:
        """Return all messages, or those behind the one with that index; `missing` as in `Transcript`."""
        entries = self._entries if since is None else self._behind(since)
        # lists, which are made faster than by a generator
        messages, originals = [entry.message for entry in entries], [entry.original for entry in entries]
        return Transcript(messages=tuple(messages), original_messages=tuple(originals), missing=missing)

    def _behind(self, since: int | str) -> list[_Entry]:
        # the index of v2 is a count, which says where to begin also where no message with it is shown
        number = str(since) if isinstance(since, int | str) else ""
        countable = number.isdecimal() and len(number) <= LONGEST_POSITION
        place: Place = ((int(number),) if countable else (), 0)
        if type(since) is int and self._entries and self._entries[-1].place <= place:
            return []  # nothing new, as nearly always where a program asks again and again
        begin = bisect_right(self._entries, place, key=_PLACE)
        if type(since) is not int:
            # an index of v3 does not give its place; from the end, as nearly always few messages are asked for
            known = next((entry.place for entry in reversed(self._entries) if entry.message.index == since), place)
            begin = bisect_right(self._entries, known, key=_PLACE)
        return self._entries[begin:]

    def stats(self) -> Stats:
        """Return the times of the first and the last message, and the milliseconds between them."""
        if not self._entries:
            return Stats(agents={})
        first, last = (milliseconds(self._entries[place].message.timestamp) for place in (0, -1))
        duration = None if first is None or last is None else last - first
        return Stats(agents={}, start_time=first, end_time=last, duration=duration)


def wire_index(event: ReceivedMessage) -> object:
    """Return the index of an event as the wire has it."""
    original = event.original
    # as it is on the wire, for the server: the one of the message is normalised
    return original.get("index", event.message.index) if isinstance(original, dict) else event.message.index


def _rank(event: ReceivedMessage | None) -> Rank:
    return () if event is None else event.rank or ()


_PLACE = attrgetter("place")


def _moved(entry: _Entry, place: Place, message: Message) -> _Entry:
    return replace(entry, rank=place[0], steps=place[1], message=message)


def _where(entry: _Entry) -> tuple[Place, int]:
    return entry.place, entry.order  # at one place in the order in which they came; messages cannot be compared


def _moves(one: LocatedEvent, frame: Frame) -> bool:
    """Return whether an event counts for the next position: not an odd one repeated from before it."""
    return one.fresh or one.place[0] >= ((frame.position or 1) - 1,)


def _is_later(one: ReceivedMessage, two: ReceivedMessage) -> bool:
    times = milliseconds(one.message.timestamp), milliseconds(two.message.timestamp)
    return times[0] is not None and times[1] is not None and times[0] > times[1]
