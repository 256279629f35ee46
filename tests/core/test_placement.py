"""The places of events whose indexes cannot be believed, and the position from which to go on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.play import BEGIN, CONFIG, IDS, Play, good
from webchat_fsm.core.facts import Arrival, Reply, Verdict
from webchat_fsm.core.transcript import TranscriptBook
from webchat_fsm.lifecycle.effects import Publish
from webchat_fsm.lifecycle.words import Message, Response

ABSENT = object()
"""An index that is not there at all."""

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
    """The rank that the wire reads from an index of v2: a number from 0 to 2**53, or a text or a float of one."""
    if isinstance(index, str) and index.isdecimal() and len(index) < 17:
        index = int(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    return (index,) if isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= 2**53 else None


def event(index: Any, text: str, ranked: tuple[int, ...] | None = None, time: int | str = 0) -> Arrival:
    original = {"text": text} if index is ABSENT else {"text": text, "index": index}
    place = ranked or (None if index is ABSENT else rank(index))
    return Arrival(Message(index=place and place[0], text=text, timestamp=time), original, place)


def answer(events: Sequence[Arrival], next_position: int | None = None) -> Reply:
    return Reply(
        verdict=Verdict.GOOD, response=Response(status=200), arrivals=tuple(events), next_position=next_position
    )


def texts(play: Play) -> list[str]:
    return [message.text for message in play.session.transcript.read().messages]


def delivered(play: Play) -> list[str]:
    published = [effect for effect in play.effects if isinstance(effect, Publish) and effect.event == "messageReceived"]
    return [message.text for effect in published for message in effect.data.messages]


def polled(*answers: Sequence[Any], next_positions: Sequence[int | None] = ()) -> Play:
    """A v2 chat that was answered these indexes, one list a poll; each event's text is its index and its place."""
    play = Play().start()
    following = [*next_positions, *[None] * len(answers)]
    for number, indexes in enumerate(answers):
        events = [each if isinstance(each, Arrival) else event(each, str(each)) for each in indexes]
        play.poll(answer(events, following[number]))
    return play


def asked(play: Play) -> int:
    return play.due().call.fields["position"]


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
def test_odd_index_is_delivered_in_place_and_passed(indexes, position):
    play = polled(indexes)
    assert delivered(play) == texts(play) == [str(index) for index in indexes]
    assert asked(play) == position


@pytest.mark.parametrize(
    ("indexes", "following", "position"),
    [
        ([1, 2, 7], 8, 8),  # a gap that the server confirms
        ([1, 2, 7], 4, 4),
        ([1, 2, 7, 8], 5, 5),
        ([1, 2, 3], 99, 4),
        ([1, 2, 3], 1, 4),  # contradicted by the events themselves
        ([1, 2, 3], 0, 4),
        ([1, "notice"], 2, 2),  # an event that takes no place of its own
        ([1, 2, 3], 2**53, 4),
    ],
)
def test_next_position_of_the_server_bounds_the_next_request(indexes, following, position):
    play = polled(indexes, next_positions=[following])
    assert delivered(play) == texts(play) == [str(index) for index in indexes]
    assert asked(play) == position


@pytest.mark.parametrize(
    "indexes", [[3, 2, 1], [1, 1, 2, 2, 3, 3], [3, 3, 2, 2, 1, 1], [2, 1, 3], [2, 3, 1], [3, 1, 2, 1]]
)
def test_permuted_and_doubled_answer_is_sorted_each_once(indexes):
    play = polled(indexes)
    assert delivered(play) == ["1", "2", "3"]
    assert asked(play) == 4


def test_reversed_answer_with_gaps_is_turned_round():
    assert delivered(polled([9, 6, 4, 1])) == ["1", "4", "6", "9"]


def test_doubled_odd_event_is_delivered_once():
    assert delivered(polled([1, 1, None, None, 3, 3])) == ["1", "None", "3"]


def test_repeats_by_a_server_without_positions_are_known():
    play = polled([1], [1, 2], [1, 2], [1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4, 5])
    assert delivered(play) == ["1", "2", "3", "4", "5"]
    assert asked(play) == 6


def test_repeats_with_other_content_are_known_by_their_indexes():
    again = [event(index, f"again {index}") for index in (1, 2, 3)]
    assert delivered(polled([1, 2, 3], [*again, 4])) == ["1", "2", "3", "4"]


def test_notice_without_index_in_each_answer_does_not_move_on():
    play = polled([1, 2], [None], [None], [None], next_positions=[3, 3, 3, 3])
    assert delivered(play) == ["1", "2", "None"]
    assert asked(play) == 3


def test_index_that_an_odd_event_claimed_stays_free():
    spoilt = event(7, "three")
    play = polled([1, 2, spoilt], [4, 5, 6], [7, 8])
    assert delivered(play) == texts(play) == ["1", "2", "three", "4", "5", "6", "7", "8"]
    assert asked(play) == 9


def test_index_of_a_known_event_claimed_again_is_delivered():
    play = polled([1, 2, 3], [event(2, "four")], [event(1, "five"), 6])
    assert delivered(play) == texts(play) == ["1", "2", "3", "four", "five", "6"]
    assert asked(play) == 7


def test_odd_event_that_is_confirmed_later_moves_to_its_index():
    play = polled([1, 2, 7], [3, 4, 5, 6, 7, 8])
    assert delivered(play) == ["1", "2", "7", "3", "4", "5", "6", "8"]
    assert texts(play) == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert asked(play) == 9


@pytest.mark.parametrize("polls", [[[1, 3, 6, "x"], [6, "x"], [6, "x", 9]], [[1, 2, 4, 6], [6], [6, 9], [6, 9]]])
def test_odd_events_follow_one_before_them_that_is_confirmed(polls):
    numbered = [[event(each, str(each)) for each in indexes] for indexes in polls]
    assert texts(polled(*numbered)) == list(dict.fromkeys(str(each) for indexes in polls for each in indexes))


def test_odd_event_follows_one_that_moves_to_its_index():
    assert texts(polled([1, 2, 5, "x"], [3, 4, 5, "x"])) == ["1", "2", "3", "4", "5", "x"]


def test_low_index_in_an_answer_that_repeats_all_is_one_odd_event():
    assert texts(polled([1, 2, 3], [1, 2, 3, event(0, "four")], [1, 2, 3, event(0, "four"), 5])) == [
        *("1", "2", "3", "four", "5")
    ]


def test_believed_event_that_comes_again_out_of_place_is_known():
    assert delivered(polled([1, 2, 3], [4, event(3, "3"), 5])) == ["1", "2", "3", "4", "5"]


def test_odd_events_of_successive_answers_keep_their_order():
    play = polled([None], ["a"], ["b", 4], ["c"], ["d"], [7])
    assert delivered(play) == texts(play) == ["None", "a", "b", "4", "c", "d", "7"]
    assert asked(play) == 8


def test_member_order_of_an_odd_event_makes_no_difference():
    first = Arrival(Message(text="x"), {"text": "x", "type": "Notice"}, None)
    second = Arrival(Message(text="x"), {"type": "Notice", "text": "x"}, None)
    assert delivered(polled([first], [second])) == ["x"]


@pytest.mark.parametrize("original", [None, "text", 7, [1], {"text": "\ud83d"}, float("nan"), {"n": 10**5000}])
def test_original_of_any_kind_is_known_again(original):
    odd = Arrival(Message(text="x"), original, None)
    play = polled([1, odd], [odd, 3])
    assert delivered(play) == texts(play) == ["1", "x", "3"]


def test_original_too_deep_to_be_written_is_known_again():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    odd = Arrival(Message(text="x"), deep, None)
    play = polled([1, odd], [odd, 3])
    assert delivered(play) == ["1", "x", "3"]
    while deep:  # else the interpreter takes the nest apart by recursion
        deep = deep.pop()


def test_index_that_is_not_believed_counts_as_not_said():
    transcript = polled([1, event(2**53, "odd"), 3, 7]).session.transcript
    assert [message.index for message in transcript.read().messages] == [1, None, 3, None]


def test_index_that_is_confirmed_later_is_said():
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


def story(count: int, place: int, index: Any) -> list[Arrival]:
    """So many good events of which one has that index."""
    return [event(index if number == place else number, f"event {number}") for number in range(1, count + 1)]


def parts(events: list[Arrival], splits: list[int]) -> list[int]:
    """How many events are there at each poll, all of them at last."""
    reached, ends = 0, []
    for size in splits:
        reached = min(len(events), reached + size)
        ends.append(reached)
    return [*ends, len(events), len(events)]


@given(st.data(), st.integers(1, 9), SPLITS, st.booleans(), INDEXES)
@settings(max_examples=100)
def test_any_index_of_a_poll_replaced_loses_and_moves_nothing(data, count, splits, names_next, index):
    events = story(count, data.draw(st.integers(1, count)), index)
    play = Play().start()
    for there in parts(events, splits):
        poll = play.due()
        begin = poll.call.fields["position"]
        play.answer(poll, answer(events[begin - 1 : there], there + 1 if names_next else None))
        assert play.session.cursor == there + 1
    assert delivered(play) == texts(play) == [each.message.text for each in events]


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=9), SPLITS, st.booleans(), st.booleans(), INDEXES)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_gaps_between_indexes_lose_and_move_nothing(data, gaps, splits, names_next, repeats, index):
    """A server that hides events of its own has gaps; one index is odd, or none."""
    numbers = [sum(gaps[:place]) for place in range(1, len(gaps) + 1)]
    odd = data.draw(st.sampled_from([None, *numbers]))
    events = [event(index if number == odd else number, f"event {number}") for number in numbers]
    play = Play().start()
    for there in [end for end in parts(events, splits) for _ in range(2)]:
        play.move(1)
        poll = play.due()
        begin = 0 if repeats else poll.call.fields["position"]
        said = [one for number, one in zip(numbers[:there], events, strict=False) if number >= begin]
        play.answer(poll, answer(said, (numbers[:there] or [0])[-1] + 1 if names_next else None))
    names = [each.message.text for each in events]
    assert sorted(delivered(play)) == sorted(texts(play)) == sorted(names)
    if odd is None or index is ABSENT or rank(index) is None:  # one that fits into a gap is not known to be odd
        assert texts(play) == names


@given(st.data(), st.integers(1, 9), SPLITS, INDEXES)
@settings(max_examples=100)
def test_any_index_replaced_where_all_is_repeated_loses_nothing(data, count, splits, index):
    events = story(count, data.draw(st.integers(1, count)), index)
    play = Play().start()
    for there in parts(events, splits):
        play.poll(answer(events[:there], there + 1))
    assert sorted(delivered(play)) == sorted(texts(play)) == [each.message.text for each in events]


@given(st.data(), st.integers(1, 9), SPLITS, st.booleans(), INDEXES)
@settings(max_examples=100)
def test_any_index_of_a_push_replaced_loses_and_moves_nothing(data, count, splits, names_next, index):
    events = story(count, data.draw(st.integers(1, count)), index)
    play = Play(**COMETD)
    play.session.transcript.clear()
    told: list[str] = []
    begin = 0
    for there in parts(events, splits):
        look = play.session.look(events[begin:there], next_position=there + 1 if names_next else None)
        for one in look.fresh:
            play.session.transcript.note(one)
            play.session.transcript.add(one, one.arrival.message)
            told.append(one.arrival.message.text)
        play.session.cursor = max(int(play.session.cursor), look.position)
        begin = there
        assert play.session.cursor == there + 1
    assert told == texts(play) == [each.message.text for each in events]


# -- v3: two numbers, which are times ----------------------------------------------------------------------------------


def stamped(time: int, text: str, index: Any = None, *, iso: bool = True) -> Arrival:
    wire = f"{time}-0" if index is None else index
    told = datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds") if iso else 0
    numbers = str(wire).split("-")
    place = tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else None
    message = Message(index=str(wire).replace("-", ""), text=text, timestamp=told)
    return Arrival(message, {"index": wire, "text": text, "utcTime": told}, place)


def asynchronous() -> Play:
    play = Play(**V3)
    play.open()
    play.answer(play.ask("startChat", {"nickname": "Jonny"}), good(session_data=IDS))
    play.effects.clear()
    return play


@given(
    st.data(),
    st.lists(st.integers(2_500, 10_000_000), min_size=1, max_size=8),
    SPLITS,
    st.sampled_from([None, "x", "", "-", "0-0", "5", "17", f"{2**60}-0", f"{MILLISECONDS - 1}-0", "leap", "other"]),
)
@settings(max_examples=100)
def test_any_index_of_v3_replaced_loses_and_moves_nothing(data, gaps, splits, index):
    times = [MILLISECONDS + sum(gaps[: number + 1]) for number in range(len(gaps))]
    place = data.draw(st.integers(0, len(times) - 1))
    if index == "leap":
        index = f"{times[place] + data.draw(st.integers(3_000, 10**11))}-0"
    elif index == "other":
        index = f"{data.draw(st.sampled_from(times))}-0"
    events = [
        stamped(time, f"event {number}", str(index) if number == place else None) for number, time in enumerate(times)
    ]
    play = asynchronous()
    begin = 0
    for there in parts(events, splits):
        play.poll(answer(events[begin:there]))
        begin = there
        cursor = play.session.cursor
        reached = 0 if cursor == 1 else int(str(cursor).split("-")[0])
        assert there == len(times) or reached < times[there]  # a request from there on would miss nothing
    assert delivered(play) == [each.message.text for each in events]
    assert texts(play) == delivered(play)


def test_v3_index_without_times_leaps_by_years_only():
    play = asynchronous()
    month = 30 * 86_400_000
    play.poll(answer([stamped(MILLISECONDS, "a", iso=False), stamped(MILLISECONDS + month, "b", iso=False)]))
    play.poll(answer([stamped(MILLISECONDS + 40 * 12 * month, "c", iso=False)]))
    assert delivered(play) == ["a", "b", "c"]
    assert play.session.cursor == f"{MILLISECONDS + month}-0"


def test_v3_cursor_that_was_wrong_is_corrected_by_later_answers():
    play = asynchronous()
    play.poll(answer([stamped(MILLISECONDS, "a", iso=False)]))
    play.poll(answer([stamped(0, "b", f"{MILLISECONDS + 10**9}-0", iso=False)]))
    assert play.session.cursor == f"{MILLISECONDS + 10**9}-0"
    for number in (1, 2):
        play.poll(answer([stamped(MILLISECONDS + number, str(number), iso=False)]))
    assert delivered(play) == ["a", "b", "1", "2"]
    assert play.session.cursor == f"{MILLISECONDS + 2}-0"


# -- history -----------------------------------------------------------------------------------------------------------


def paged(page: list[Arrival]) -> Play:
    """A chat that has shown events from 10 on, and was brought a page of older ones up to 10."""
    play = asynchronous()
    play.poll(answer([stamped(MILLISECONDS + number * 3_000, str(number)) for number in (10, 11, 12)]))
    play.effects.clear()
    look = play.session.look(page, old=True)
    for one in look.fresh:
        play.session.transcript.note(one)
        play.session.transcript.add(one, one.arrival.message)
    return play


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("index", ["x", "0-0", f"{2**60}-0", f"{MILLISECONDS + 33_000}-0"])
def test_any_index_of_a_history_page_replaced_moves_nothing(turned, place, index):
    numbers = [7, 8, 9, 10]
    page = [
        stamped(MILLISECONDS + number * 3_000, str(number), index if number == numbers[place] and place < 3 else None)
        for number in numbers
    ]
    play = paged(page[::-1] if turned else page)
    assert texts(play) == ["7", "8", "9", "10", "11", "12"]
    assert int(str(play.session.transcript.lowest).split("-")[0]) in (0, MILLISECONDS + 21_000, MILLISECONDS + 24_000)


def test_lowest_index_survives_originals_of_any_kind():
    play = polled([Arrival(Message(text="x"), None, None), Arrival(Message(index=2, text="y"), {"text": "y"}, (2,))])
    assert play.session.transcript.lowest == 2


@given(
    st.lists(st.lists(st.integers(1, 12), max_size=4), max_size=4),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 20)),
)
@settings(max_examples=100)
def test_short_way_for_the_usual_answer_equals_the_rules(answers, positions, bounded, next_position):
    """Whatever answers come, a book gives the same places with and without the short way."""

    class Whole(TranscriptBook):
        __slots__ = ()

        def _follow(self, arrivals, position, *, bounded):
            return False

    books = TranscriptBook(), Whole()
    for indexes in answers:
        found = []
        for book in books:
            last = book.highest
            position = (1 if last is None else last.rank[0] + 1) if positions else None
            arrivals = [
                event(f"{MILLISECONDS + n}", f"{n}", (n,) if positions else (MILLISECONDS + n, 0)) for n in indexes
            ]
            known = book.look(arrivals, position=position, bounded=bounded, next_position=next_position)
            found.append(([one[1:] for one in known.found], known.position))
            for one in known.fresh:
                book.note(one)
        assert found[0] == found[1]
