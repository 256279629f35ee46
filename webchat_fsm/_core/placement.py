"""The places of the events of one answer: their order, and which of their indexes can be believed.

An index is believed where it lies between its neighbours. An event whose index is missing, unreadable or out of place
is *odd*: it stands behind its predecessor and is known by its raw content alone.

- Which of two contradicting indexes is the odd one: the one outside the longest strictly rising chain (1, 2, 9, 4: the
  9; 1000, 2, 3: the 1000), of events at or behind the position asked for and before the server's next position.
- The last event has no neighbour behind it. Its index is believed where it follows its predecessor without a gap, or
  where the server's next position confirms it. On v3, whose indexes are no positions, it is believed unless it leaps.
- An answer is out of order as a whole, and sorted, where its indexes are exactly those that come next, where it rises
  from its end to its begin, or where nothing in it is new by its index. One wrong index can imitate none of these.
- A server that ignores the position asked for sends events from before it in a row, up to the next one. An event that
  claims the place of another one outside of such a row, or at the position asked for or behind it, is delivered: a
  repetition is a lesser evil than a loss.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._core.steps import ReceivedMessage
from webchat_fsm._model import milliseconds

Rank = tuple[int, ...]

LEAP = 366 * 86_400_000
"""The least difference of two v3 indexes that may be a leap: a year, as they count milliseconds.

A chat may be silent for months, so that only a difference that no chat has is suspicious by itself.
"""

LEAP_PART = 5
"""The part of an index, beyond which a difference is a leap where indexes count something finer than milliseconds."""

SLACK = 2_000
"""Milliseconds by which a v3 index may run ahead of the time of its event, where indexes are such times."""


class Frame(Struct, frozen=True):
    """What is known when an answer comes.

    `position` is the position asked for, None where indexes are no positions (v3), and `bounded` says that the server
    sends nothing from before it, which a push does. `known` holds the originals of all events that were believed, by
    rank, `first` and `last` are those of the lowest and highest rank. `odd` holds the digests of all others, by the
    rank that they claim. `old` marks a page of history.
    """

    position: int | None = None
    bounded: bool = False
    next_position: int | None = None
    known: Mapping[Rank, object] = {}
    first: ReceivedMessage | None = None
    last: ReceivedMessage | None = None
    odd: Mapping[Rank | None, Collection[bytes]] = {}
    old: bool = False

    def was_odd(self, event: ReceivedMessage) -> bool:
        """Return whether an event was seen before as an odd one."""
        return event.rank in self.odd and fingerprint(event) in self.odd[event.rank]


Placed = tuple[ReceivedMessage, bool]
"""An event in its order, and whether its index is believed."""


def fingerprint(event: ReceivedMessage) -> bytes:
    """Digest the raw content of an event: equal JSON values have equal digests, in any order of their members."""
    try:
        text = json.dumps(event.original, sort_keys=True, default=repr)
    except (RecursionError, ValueError):  # too deep, or a number too long to be written
        text = repr((event.rank, event.message.timestamp, event.message.type, event.message.text))
    return blake2b(text.encode(), digest_size=16).digest()


def arrange(received: Sequence[ReceivedMessage], frame: Frame) -> list[Placed]:
    """Put the events of an answer in order, exact repeats once. Takes O(n log n), and O(n) for a usual answer."""
    frame = replace(frame, next_position=_believable(received, frame))
    if _usual(received, frame):
        return [(event, True) for event in received]
    events = _in_order(_distinct(received), frame)
    sure = set(_chain(events, frame))
    return [(event, place in sure) for place, event in enumerate(events)]


def goes_on(received: Sequence[ReceivedMessage], last: ReceivedMessage) -> bool:
    """Return whether v3 events stand one behind another, and behind the last one known, without a leap.

    `arrange` believes them all, as it does for nearly every answer, but takes some five times as long.
    """
    rank, before = _rank(last), _stamp(last)
    for event in received:
        if _rank(event) <= rank:
            return False
        rank, stamp = _rank(event), _stamp(event)
        if _leaps(before, stamp):
            return False
        before = stamp
    return True


def position_behind(placed: Sequence[Placed], frame: Frame) -> int:
    """Return the position behind the events of an answer, by which the next ones are asked for.

    It is behind the last index believed, one further for each odd event behind that one, never beyond the server's next
    position and never before the position asked for. A position that lags is harmless, as events that come again are
    known; one that leaps loses messages.
    """
    begin = reached = frame.position or 1
    for event, sure in placed:
        if not sure or event.rank is None:
            reached += 1
        else:
            reached = max(reached, event.rank[0] + 1)
    most = _believable([event for event, _ in placed], frame)
    return reached if most is None else max(begin, min(reached, most))


def _believable(received: Sequence[ReceivedMessage], frame: Frame) -> int | None:
    """Return the server's next position, unless the events that come from the position asked for on contradict it."""
    if frame.next_position is None or frame.position is None:
        return None
    reached = frame.position
    for event in received:
        if event.rank == (reached,) and not frame.was_odd(event):
            reached += 1
    return frame.next_position if frame.next_position >= reached else None


def _usual(received: Sequence[ReceivedMessage], frame: Frame) -> bool:
    ranks = [event.rank or () for event in received]
    if not ranks:
        return True
    begin = max(_low(frame), (*_rank(frame.last), 0))
    # none from before what may come or in the place of a known one, each behind the one before, and so none without a
    # rank: nothing is to be decided
    rising = ranks[0] >= begin and all(one < two for one, two in pairwise(ranks))
    if not rising or frame.old or _is_high(received[-1], frame):
        return False
    return len(_believed_end(received, range(len(ranks)), frame)) == len(ranks)


def _rank(event: ReceivedMessage | None) -> Rank:
    return () if event is None else event.rank or ()


def _distinct(received: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
    """Return the events without exact repeats; only those that share an index, or have none, are compared."""
    counts = Counter(event.rank for event in received)
    found: dict[object, ReceivedMessage] = {}
    for event in received:
        rank = event.rank
        # digests only where two could be equal, as one costs as much as the rest of the work on an event
        alone = rank is not None and counts[rank] == 1
        found.setdefault(rank if alone else (rank, fingerprint(event)), event)
    return list(found.values())


# -- answers that are out of order as a whole --------------------------------------------------------------------------


def _in_order(events: list[ReceivedMessage], frame: Frame) -> list[ReceivedMessage]:
    ranked = [event for event in events if event.rank is not None]
    # an event seen before as odd claims an index that is not its own, so that its answer is not sorted by index
    plain = len(ranked) == len(events) == len({event.rank for event in events})
    if plain and not any(map(frame.was_odd, events)) and (_is_complete(events, frame) or _is_all_low(events, frame)):
        return sorted(events, key=_rank)
    ranked = [event for event in ranked if not (_is_low(event, frame) or _is_high(event, frame))]
    return events[::-1] if _is_turned(ranked) else events


def _is_complete(events: list[ReceivedMessage], frame: Frame) -> bool:
    """Return whether these are exactly the positions that come next, beside events that are known."""
    begin = frame.position
    if begin is None:
        return False
    new = sorted(_rank(event)[0] for event in events if _rank(event) >= (begin,))
    before = [event for event in events if _rank(event) < (begin,)]
    # exactly the next positions in any order: one wrong index leaves a hole or a double among them
    if not new or new != list(range(begin, begin + len(new))) or any(event.rank not in frame.known for event in before):
        return False
    # an old event that contradicts a known one is the wrong one, if the rest stands in order
    return not (_has_one_odd(events) and any(_contradicts(event, frame) for event in before))


def _has_one_odd(events: list[ReceivedMessage]) -> bool:
    """Return whether all but one event at most are in order, so that nothing but its index may be wrong."""
    return len(_longest([_rank(event) for event in events])) >= len(events) - 1


def _is_all_low(events: list[ReceivedMessage], frame: Frame) -> bool:
    """Return whether all stand before what is expected, and not all in the places of others: old events again."""
    begin = _low(frame)
    low = len(events) > 1 and all(_rank(event) < begin for event in events)
    one_wrong = low and _has_one_odd(events) and sum(event.rank not in frame.known for event in events) == 1
    return low and not one_wrong and not all(_contradicts(event, frame) for event in events)


def _low(frame: Frame) -> Rank:
    """Return the rank before which nothing is expected: the position asked for, or where the transcript begins."""
    if frame.position is None:
        return _rank(frame.first)
    return (frame.position,) if frame.bounded else _rank(frame.first) or (1,)


def _is_turned(events: list[ReceivedMessage]) -> bool:
    """Return whether the answer rises from its end to its beginning; of two events their times decide."""
    ranks = [_rank(event) for event in events]
    rising, falling = len(_longest(ranks)), len(_longest(ranks[::-1]))
    # with three events a single wrong index cannot turn the direction; with two it can, so that times are asked
    if falling <= rising or falling > 2:
        return falling > rising
    early, late = events[-1], events[0]
    times = milliseconds(early.message.timestamp), milliseconds(late.message.timestamp)
    if times[0] is None or times[1] is None:
        return False
    return times[0] < times[1] or (times[0] == times[1] and _rank(early)[0] == _rank(late)[0])


# -- the chain of events whose indexes are believed --------------------------------------------------------------------


def _chain(events: list[ReceivedMessage], frame: Frame) -> list[int]:
    """Choose the places of the events whose index is believed."""
    admitted = _admitted(events, frame)
    # the longest chain leaves out fewest events, and one wrong index is the usual fault
    chain = [admitted[place] for place in _longest([_rank(events[place]) for place in admitted])]
    if frame.position is not None and not frame.old:
        begin = frame.position
        # among chains of one length the one that counts on from the position asked for is right
        counted = [place for place in admitted if events[place].rank == (begin + place,)]
        chain = counted if len(counted) == len(chain) else chain
    return list(_believed_end(events, chain, frame))


def _admitted(events: list[ReceivedMessage], frame: Frame) -> list[int]:
    readable = [place for place, event in enumerate(events) if event.rank is not None]
    low = [place for place in readable if _is_low(events[place], frame)]
    # a row of old ones is a server that ignores the position; a single one among new events has a wrong index
    refused = set() if _is_block(events, low, frame) else set(low)
    return [place for place in readable if place not in refused and not _is_high(events[place], frame)]


def _is_low(event: ReceivedMessage, frame: Frame) -> bool:
    """Return whether an event claims a place before all that may come, or that of another one."""
    # known ones come again by right; history is from before by its nature
    before = _rank(event) < _low(frame) and event.rank not in frame.known and not frame.old
    return before or _contradicts(event, frame)


def _contradicts(event: ReceivedMessage, frame: Frame) -> bool:
    """Return whether an event claims the place of another one that is known."""
    return event.rank in frame.known and not is_same(event, frame.known[_rank(event)])


def is_same(event: ReceivedMessage, original: object) -> bool:
    """Return whether an event has this raw content."""
    return event.original is original or fingerprint(event) == fingerprint(replace(event, original=original))


def _is_block(events: list[ReceivedMessage], low: list[int], frame: Frame) -> bool:
    """Return whether a server that ignores the position sends these again: rising, in a row, up to the next one.

    Several that contradict nothing need not reach up to the next one.
    """
    if not low or low != list(range(low[0], low[-1] + 1)):
        return False
    # what was asked for is no repetition: it contradicts what an answer brought that moved no position (statusCode 1)
    if frame.position is not None and _rank(events[low[-1]]) >= (frame.position,):
        return False
    after = events[low[-1] + 1].rank if low[-1] + 1 < len(events) else None
    rising = all(_rank(one) < _rank(two) for one, two in pairwise(events[place] for place in low))
    last = _rank(events[low[-1]])
    new = len(low) > 1 and not any(_contradicts(events[place], frame) for place in low)
    return rising and (new or after == (*last[:-1], last[-1] + 1))


def _is_high(event: ReceivedMessage, frame: Frame) -> bool:
    """Return whether an event claims a place behind all that may come."""
    if frame.old:
        # a page of history ends with the oldest message known
        return frame.first is not None and event.rank not in frame.known and _rank(event) > _rank(frame.first)
    return frame.next_position is not None and _rank(event) >= (frame.next_position,)


def _longest(ranks: Sequence[Rank]) -> list[int]:
    """Return the places of a longest strictly rising subsequence; of several, one that ends low."""
    # patience sorting: `ends[n]` is the lowest rank that ends a rising subsequence of n + 1 events, `last[n]` its place
    ends: list[Rank] = []
    last: list[int] = []
    before: list[int] = []
    for place, rank in enumerate(ranks):
        # bisect_left, as equal ranks do not rise: the later of two takes the place of the first
        length = bisect_left(ends, rank)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [rank]
        last[length : length + 1] = [place]
    found = []
    place = last[-1] if last else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


# -- the end of the chain ----------------------------------------------------------------------------------------------


def _believed_end(events: Sequence[ReceivedMessage], chain: Sequence[int], frame: Frame) -> Sequence[int]:
    """Return the chain less what leaps at its end, where no successor confirms it."""
    if frame.old:  # history moves no cursor, so that a leap costs nothing
        return chain
    if frame.position is None:
        return _group(events, chain, frame)
    count = len(chain)
    # one by one from the end: an event is confirmed by the one behind it, which has gone when that one leaps itself
    while count and _ahead(events, chain[:count], frame):
        count -= 1
    return chain[:count]


def _ahead(events: Sequence[ReceivedMessage], chain: Sequence[int], frame: Frame) -> bool:
    """Return whether the last of a chain of positions is beyond the one that follows the events before it."""
    last = _rank(events[chain[-1]])[0]
    if frame.next_position == last + 1:  # the server itself confirms it
        return False
    before = _rank(events[chain[-2]])[0] + 1 if len(chain) > 1 else 0
    # events in between whose index is not believed have taken a position each
    odd = chain[-1] - (chain[-2] + 1 if len(chain) > 1 else 0)
    return last > max(before, frame.position or 1) + odd


class _Stamp(Struct, frozen=True):
    """The first number of an index, and the time of its event in milliseconds."""

    number: int
    time: int | None

    @property
    def off(self) -> int:
        """Return the difference of index and time; 0 where the time is not known."""
        return 0 if self.time is None else abs(self.number - self.time)


def _stamp(event: ReceivedMessage) -> _Stamp:
    return _Stamp(_rank(event)[0], milliseconds(event.message.timestamp))


def _group(events: Sequence[ReceivedMessage], chain: Sequence[int], frame: Frame) -> Sequence[int]:
    """Return the largest part of a chain without a leap; a single event only if it does not leap from those known."""
    stamps = [_stamp(events[place]) for place in chain]
    cuts = [number for number, (one, two) in enumerate(pairwise(stamps), 1) if _leaps(one, two)]
    bounds = list(pairwise([0, *cuts, len(chain)]))
    # among groups of one size the one whose first index is nearest to its time is believed
    begin, end = max(bounds, key=lambda group: (group[1] - group[0], -stamps[group[0]].off if stamps else 0))
    # a group of two confirms itself, as one wrong index imitates no neighbour
    if end - begin == 1 and _is_alone(stamps[begin], frame.last):
        return ()
    return chain[begin:end]


def _is_alone(stamp: _Stamp, last: ReceivedMessage | None) -> bool:
    """Return whether an index leaps from the last one known, or is later than its event where none is known."""
    if last is not None:
        return _leaps(_stamp(last), stamp)
    return stamp.time is not None and stamp.number > stamp.time + SLACK


def _leaps(before: _Stamp, after: _Stamp) -> bool:
    """Return whether an index is further ahead than the time that has passed, where the first is a time itself."""
    gone = after.number - before.number
    # indexes that are times are judged by the time that has passed, which is sharper than a fixed leap
    if before.time is not None and after.time is not None and after.time >= before.time and before.off <= SLACK:
        return gone > after.time - before.time + SLACK
    return gone > max(LEAP, before.number // LEAP_PART)
