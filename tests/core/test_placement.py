"""Check the places of events with untrusted indexes, and the position of the next request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import BEGIN, CONFIG, IDS, CoreHarness, good
from tests.limits import examples
from webchat_fsm._core.steps import Publish, ReceivedMessage, Reply, ResponseKind
from webchat_fsm._core.transcript import OrderedTranscript
from webchat_fsm._model import Message, Response

ABSENT = object()
"""Stands for a missing index."""

V3 = {
    "transport": {
        "type": "pureengage-v3-rest",
        "dataURL": "http://chat.test/nexus/v3/chat/sessions",
        "endpoint": "chat",
    }
}
COMETD = {
    "dataURL": CONFIG["dataURL"],
    "cometD": {"enabled": True, "cometURL": "http://chat.test/genesys/cometd", "apiURL": CONFIG["dataURL"]},
}
MILLISECONDS = int(BEGIN * 1000)


def rank(index: Any) -> tuple[int, ...] | None:
    """Return the rank that the wire reads from an index of v2: a number from 0 to 2**53, also as a text or float."""
    if isinstance(index, str) and index.isdecimal() and len(index) < 17:
        index = int(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    return (index,) if isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= 2**53 else None


def event(index: Any, text: str, ranked: tuple[int, ...] | None = None, time: int | str = 0) -> ReceivedMessage:
    original = {"text": text} if index is ABSENT else {"text": text, "index": index}
    place = ranked or (None if index is ABSENT else rank(index))
    return ReceivedMessage(Message(index=place and place[0], text=text, timestamp=time), original, place)


def answer(events: Sequence[ReceivedMessage], next_position: int | None = None) -> Reply:
    return Reply(
        kind=ResponseKind.GOOD, response=Response(status=200), received=tuple(events), next_position=next_position
    )


def texts(core: CoreHarness) -> list[str]:
    return [message.text for message in core.session.transcript.read().messages]


def delivered(core: CoreHarness) -> list[str]:
    published = [effect for effect in core.effects if isinstance(effect, Publish) and effect.event == "messageReceived"]
    return [message.text for effect in published for message in effect.data.messages]


def polled(*answers: Sequence[Any], next_positions: Sequence[int | None] = ()) -> CoreHarness:
    """Poll these indexes in a v2 chat, one list a poll; the text of each event is its index and its place."""
    core = CoreHarness().start()
    following = [*next_positions, *[None] * len(answers)]
    for number, indexes in enumerate(answers):
        events = [each if isinstance(each, ReceivedMessage) else event(each, str(each)) for each in indexes]
        core.poll(answer(events, following[number]))
    return core


def asked(core: CoreHarness) -> int:
    return core.due().call.operation.position


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indexes", "position"),
    [
        ([1, 2, 3], 4),
        ([1, 2, 9, 4], 5),
        ([1000, 2, 3], 4),
        ([1, 2, 2**53], 4),
        ([2**53], 2),
        ([1, 10], 3),
        ([1, None, 3], 4),
        ([1, 2, None], 4),
        ([1, None, "x"], 4),
        ([None, 2, 3], 4),
        ([1, -1, 3], 4),
        ([1, "", 3], 4),
        ([1, 2.5, 3], 4),
        ([1, {"a": 1}, [2], True, 5], 6),
        ([1, 0, 3], 4),
        ([1, 4, 5, 6], 7),
    ],
)
def test_untrusted_index_is_delivered_in_place_and_passed(indexes, position):
    core = polled(indexes)
    assert delivered(core) == texts(core) == [str(index) for index in indexes]
    assert asked(core) == position


@pytest.mark.parametrize(
    ("indexes", "following", "position"),
    [
        ([1, 2, 7], 8, 8),  # a gap that the server confirms
        ([1, 2, 7], 4, 4),
        ([1, 2, 7, 8], 5, 5),
        ([1, 2, 3], 99, 4),
        ([1, 2, 3], 1, 4),  # contradicted by the events themselves
        ([1, 2, 3], 0, 4),
        ([1, "notice"], 2, 2),  # an event that has no index of its own
        ([1, 2, 3], 2**53, 4),
    ],
)
def test_next_position_of_the_server_bounds_the_next_request(indexes, following, position):
    core = polled(indexes, next_positions=[following])
    assert delivered(core) == texts(core) == [str(index) for index in indexes]
    assert asked(core) == position


@pytest.mark.parametrize(
    "indexes", [[3, 2, 1], [1, 1, 2, 2, 3, 3], [3, 3, 2, 2, 1, 1], [2, 1, 3], [2, 3, 1], [3, 1, 2, 1]]
)
def test_permuted_or_doubled_answer_is_sorted_once_each(indexes):
    core = polled(indexes)
    assert delivered(core) == ["1", "2", "3"]
    assert asked(core) == 4


def test_reversed_answer_with_gaps_is_sorted():
    assert delivered(polled([9, 6, 4, 1])) == ["1", "4", "6", "9"]


def test_doubled_event_without_index_is_delivered_once():
    assert delivered(polled([1, 1, None, None, 3, 3])) == ["1", "None", "3"]


def test_repeats_of_server_ignoring_positions_are_dropped():
    core = polled([1], [1, 2], [1, 2], [1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4, 5])
    assert delivered(core) == ["1", "2", "3", "4", "5"]
    assert asked(core) == 6


def test_repeats_with_changed_content_are_dropped_by_index():
    again = [event(index, f"again {index}") for index in (1, 2, 3)]
    assert delivered(polled([1, 2, 3], [*again, 4])) == ["1", "2", "3", "4"]


def test_repeated_notice_without_index_moves_no_position():
    core = polled([1, 2], [None], [None], [None], next_positions=[3, 3, 3, 3])
    assert delivered(core) == ["1", "2", "None"]
    assert asked(core) == 3


def test_index_of_an_untrusted_event_stays_free():
    spoilt = event(7, "three")
    core = polled([1, 2, spoilt], [4, 5, 6], [7, 8])
    assert delivered(core) == texts(core) == ["1", "2", "three", "4", "5", "6", "7", "8"]
    assert asked(core) == 9


def test_other_event_with_a_known_index_is_delivered():
    core = polled([1, 2, 3], [event(2, "four")], [event(1, "five"), 6])
    assert delivered(core) == texts(core) == ["1", "2", "3", "four", "five", "6"]
    assert asked(core) == 7


def test_event_confirmed_later_moves_to_its_index():
    core = polled([1, 2, 7], [3, 4, 5, 6, 7, 8])
    assert delivered(core) == ["1", "2", "7", "3", "4", "5", "6", "8"]
    assert texts(core) == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert asked(core) == 9


@pytest.mark.parametrize("polls", [[[1, 3, 6, "x"], [6, "x"], [6, "x", 9]], [[1, 2, 4, 6], [6], [6, 9], [6, 9]]])
def test_untrusted_events_follow_a_confirmed_one(polls):
    numbered = [[event(each, str(each)) for each in indexes] for indexes in polls]
    assert texts(polled(*numbered)) == list(dict.fromkeys(str(each) for indexes in polls for each in indexes))


def test_untrusted_event_follows_one_moved_to_its_index():
    assert texts(polled([1, 2, 5, "x"], [3, 4, 5, "x"])) == ["1", "2", "3", "4", "5", "x"]


def test_low_index_in_repeated_answers_is_delivered_once():
    assert texts(polled([1, 2, 3], [1, 2, 3, event(0, "four")], [1, 2, 3, event(0, "four"), 5])) == [
        *("1", "2", "3", "four", "5")
    ]


def test_event_repeated_out_of_place_is_delivered_once():
    assert delivered(polled([1, 2, 3], [4, event(3, "3"), 5])) == ["1", "2", "3", "4", "5"]


def test_untrusted_events_of_several_answers_keep_order():
    core = polled([None], ["a"], ["b", 4], ["c"], ["d"], [7])
    assert delivered(core) == texts(core) == ["None", "a", "b", "4", "c", "d", "7"]
    assert asked(core) == 8


def test_event_repeated_with_other_member_order_is_dropped():
    first = ReceivedMessage(Message(text="x"), {"text": "x", "type": "Notice"}, None)
    second = ReceivedMessage(Message(text="x"), {"type": "Notice", "text": "x"}, None)
    assert delivered(polled([first], [second])) == ["x"]


@pytest.mark.parametrize("original", [None, "text", 7, [1], {"text": "\ud83d"}, float("nan"), {"n": 10**5000}])
def test_repeated_original_of_any_type_is_dropped(original):
    odd = ReceivedMessage(Message(text="x"), original, None)
    core = polled([1, odd], [odd, 3])
    assert delivered(core) == texts(core) == ["1", "x", "3"]


def test_repeated_original_too_deep_to_serialise_is_dropped():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    odd = ReceivedMessage(Message(text="x"), deep, None)
    core = polled([1, odd], [odd, 3])
    assert delivered(core) == ["1", "x", "3"]
    while deep:  # else the interpreter frees the nested lists by recursion
        deep = deep.pop()


def test_untrusted_index_is_read_as_none():
    transcript = polled([1, event(2**53, "odd"), 3, 7]).session.transcript
    assert [message.index for message in transcript.read().messages] == [1, None, 3, None]


def test_index_confirmed_later_is_in_the_transcript():
    transcript = polled([1, 7], [2, 3, 4, 5, 6, 7, 8]).session.transcript
    assert [message.index for message in transcript.read().messages] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_since_counts_from_the_event_that_owns_the_index():
    transcript = polled([1, 2, event(7, "odd")], [4, 5, 6], [7, 8]).session.transcript
    assert [message.text for message in transcript.read(7).messages] == ["8"]
    assert [message.text for message in transcript.read(2).messages] == ["odd", "4", "5", "6", "7", "8"]


# -- any one index replaced --------------------------------------------------------------------------------------------

INDEXES = st.one_of(
    st.just(ABSENT),
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 10**400]),
    st.floats(),
    st.integers(-3, 20).map(str),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
SPLITS = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def events_with(count: int, place: int, index: Any) -> list[ReceivedMessage]:
    """Return `count` well-formed events, of which the one at `place` has the index `index`."""
    return [event(index if number == place else number, f"event {number}") for number in range(1, count + 1)]


def parts(events: list[ReceivedMessage], splits: list[int]) -> list[int]:
    """Return how many events the server has at each poll; at the last two it has all."""
    reached, ends = 0, []
    for size in splits:
        reached = min(len(events), reached + size)
        ends.append(reached)
    return [*ends, len(events), len(events)]


@given(st.data(), st.integers(1, 9), SPLITS, st.booleans(), INDEXES)
@settings(max_examples=examples(100))
def test_replaced_index_in_a_poll_loses_and_moves_nothing(data, count, splits, names_next, index):
    events = events_with(count, data.draw(st.integers(1, count)), index)
    core = CoreHarness().start()
    for there in parts(events, splits):
        poll = core.due()
        begin = poll.call.operation.position
        core.answer(poll, answer(events[begin - 1 : there], there + 1 if names_next else None))
        assert core.session.cursor == there + 1
    assert delivered(core) == texts(core) == [each.message.text for each in events]


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=9), SPLITS, st.booleans(), st.booleans(), INDEXES)
@settings(max_examples=examples(100), deadline=None, derandomize=True, database=None)
def test_gaps_between_indexes_lose_and_move_nothing(data, gaps, splits, names_next, repeats, index):
    """Read indexes with the gaps of a server that hides its own events; one index is malformed, or none."""
    numbers = [sum(gaps[:place]) for place in range(1, len(gaps) + 1)]
    odd = data.draw(st.sampled_from([None, *numbers]))
    events = [event(index if number == odd else number, f"event {number}") for number in numbers]
    core = CoreHarness().start()
    for there in [end for end in parts(events, splits) for _ in range(2)]:
        core.move(1)
        poll = core.due()
        begin = 0 if repeats else poll.call.operation.position
        sent = [one for number, one in zip(numbers[:there], events, strict=False) if number >= begin]
        core.answer(poll, answer(sent, (numbers[:there] or [0])[-1] + 1 if names_next else None))
    names = [each.message.text for each in events]
    assert sorted(delivered(core)) == sorted(texts(core)) == sorted(names)
    if odd is None or index is ABSENT or rank(index) is None:  # an index that fits into a gap is trusted
        assert texts(core) == names


@given(st.data(), st.integers(1, 9), SPLITS, INDEXES)
@settings(max_examples=examples(100))
def test_replaced_index_in_a_repeating_poll_loses_nothing(data, count, splits, index):
    events = events_with(count, data.draw(st.integers(1, count)), index)
    core = CoreHarness().start()
    for there in parts(events, splits):
        core.poll(answer(events[:there], there + 1))
    assert sorted(delivered(core)) == sorted(texts(core)) == [each.message.text for each in events]


@given(st.data(), st.integers(1, 9), SPLITS, st.booleans(), INDEXES)
@settings(max_examples=examples(100))
def test_replaced_index_in_a_push_loses_and_moves_nothing(data, count, splits, names_next, index):
    events = events_with(count, data.draw(st.integers(1, count)), index)
    core = CoreHarness(**COMETD)
    core.session.transcript.clear()
    added: list[str] = []
    begin = 0
    for there in parts(events, splits):
        look = core.session.locate(events[begin:there], next_position=there + 1 if names_next else None)
        for one in look.fresh:
            core.session.transcript.note(one)
            core.session.transcript.add(one, one.event.message)
            added.append(one.event.message.text)
        core.session.cursor = max(int(core.session.cursor), look.position)
        begin = there
        assert core.session.cursor == there + 1
    assert added == texts(core) == [each.message.text for each in events]


# -- v3: two numbers, which are times ----------------------------------------------------------------------------------


def stamped(time: int, text: str, index: Any = None, *, iso: bool = True) -> ReceivedMessage:
    wire = f"{time}-0" if index is None else index
    utc_time = datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds") if iso else 0
    numbers = str(wire).split("-")
    place = tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else None
    message = Message(index=str(wire).replace("-", ""), text=text, timestamp=utc_time)
    return ReceivedMessage(message, {"index": wire, "text": text, "utcTime": utc_time}, place)


def asynchronous() -> CoreHarness:
    core = CoreHarness(**V3)
    core.open()
    core.answer(core.ask("startChat", {"nickname": "Jonny"}), good(session_data=IDS))
    core.effects.clear()
    return core


@given(
    st.data(),
    st.lists(st.integers(2_500, 10_000_000), min_size=1, max_size=8),
    SPLITS,
    st.sampled_from([None, "x", "", "-", "0-0", "5", "17", f"{2**60}-0", f"{MILLISECONDS - 1}-0", "leap", "other"]),
)
@settings(max_examples=examples(100))
def test_replaced_index_in_v3_loses_and_moves_nothing(data, gaps, splits, index):
    times = [MILLISECONDS + sum(gaps[: number + 1]) for number in range(len(gaps))]
    place = data.draw(st.integers(0, len(times) - 1))
    if index == "leap":
        index = f"{times[place] + data.draw(st.integers(3_000, 10**11))}-0"
    elif index == "other":
        index = f"{data.draw(st.sampled_from(times))}-0"
    events = [
        stamped(time, f"event {number}", str(index) if number == place else None) for number, time in enumerate(times)
    ]
    core = asynchronous()
    begin = 0
    for there in parts(events, splits):
        core.poll(answer(events[begin:there]))
        begin = there
        cursor = core.session.cursor
        reached = 0 if cursor == 1 else int(str(cursor).split("-")[0])
        assert there == len(times) or reached < times[there]  # a request from the cursor misses no event
    assert delivered(core) == [each.message.text for each in events]
    assert texts(core) == delivered(core)


def test_v3_index_without_times_is_untrusted_after_40_years():
    core = asynchronous()
    month = 30 * 86_400_000
    core.poll(answer([stamped(MILLISECONDS, "a", iso=False), stamped(MILLISECONDS + month, "b", iso=False)]))
    core.poll(answer([stamped(MILLISECONDS + 40 * 12 * month, "c", iso=False)]))
    assert delivered(core) == ["a", "b", "c"]
    assert core.session.cursor == f"{MILLISECONDS + month}-0"


def test_wrong_v3_cursor_is_corrected_by_later_answers():
    core = asynchronous()
    core.poll(answer([stamped(MILLISECONDS, "a", iso=False)]))
    core.poll(answer([stamped(0, "b", f"{MILLISECONDS + 10**9}-0", iso=False)]))
    assert core.session.cursor == f"{MILLISECONDS + 10**9}-0"
    for number in (1, 2):
        core.poll(answer([stamped(MILLISECONDS + number, str(number), iso=False)]))
    assert delivered(core) == ["a", "b", "1", "2"]
    assert core.session.cursor == f"{MILLISECONDS + 2}-0"


# -- history -----------------------------------------------------------------------------------------------------------


def paged(page: list[ReceivedMessage]) -> CoreHarness:
    """Make a chat that has published events from 10 on, and load a page of older ones up to 10."""
    core = asynchronous()
    core.poll(answer([stamped(MILLISECONDS + number * 3_000, str(number)) for number in (10, 11, 12)]))
    core.effects.clear()
    look = core.session.locate(page, old=True)
    for one in look.fresh:
        core.session.transcript.note(one)
        core.session.transcript.add(one, one.event.message)
    return core


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("index", ["x", "0-0", f"{2**60}-0", f"{MILLISECONDS + 33_000}-0"])
def test_replaced_index_in_a_history_page_moves_nothing(reverse, place, index):
    numbers = [7, 8, 9, 10]
    page = [
        stamped(MILLISECONDS + number * 3_000, str(number), index if number == numbers[place] and place < 3 else None)
        for number in numbers
    ]
    core = paged(page[::-1] if reverse else page)
    assert texts(core) == ["7", "8", "9", "10", "11", "12"]
    assert int(str(core.session.transcript.lowest).split("-")[0]) in (0, MILLISECONDS + 21_000, MILLISECONDS + 24_000)


def test_lowest_index_survives_originals_of_any_kind():
    core = polled(
        [
            ReceivedMessage(Message(text="x"), None, None),
            ReceivedMessage(Message(index=2, text="y"), {"text": "y"}, (2,)),
        ]
    )
    assert core.session.transcript.lowest == 2


@given(
    st.lists(st.lists(st.integers(1, 12), max_size=4), max_size=4),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 20)),
)
@settings(max_examples=examples(100))
def test_shortcut_for_ordered_responses_equals_the_rules(answers, positions, bounded, next_position):
    """Give every message the same place with and without the shortcut, for any responses."""

    class Whole(OrderedTranscript):
        __slots__ = ()

        def _follow(self, received, position):
            return False

    books = OrderedTranscript(), Whole()
    for indexes in answers:
        found = []
        for book in books:
            last = book.highest
            position = (1 if last is None else last.rank[0] + 1) if positions else None
            received = [
                event(f"{MILLISECONDS + n}", f"{n}", (n,) if positions else (MILLISECONDS + n, 0)) for n in indexes
            ]
            known = book.locate(received, position=position, bounded=bounded, next_position=next_position)
            found.append(([(one.place, one.sure, one.fresh) for one in known.events], known.position))
            for one in known.fresh:
                book.note(one)
        assert found[0] == found[1]
