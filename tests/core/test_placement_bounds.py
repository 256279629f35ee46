"""The bounds within which an index is believed: the position asked for, the server's next one, a predecessor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import bad
from tests.core.test_placement import answer, asked, delivered, event, polled, texts
from tests.limits import examples
from webchat_fsm._core.placement import Frame, arrange
from webchat_fsm._core.steps import ResponseKind
from webchat_fsm._core.transcript import OrderedTranscript


def believed(indexes: list[int], **frame) -> list[int]:
    """Return the indexes of an answer that are believed; one asked for from position 1 in a poll unless named."""
    events = [event(index, str(index)) for index in indexes]
    placed = arrange(events, Frame(**{"position": 1, "bounded": True, **frame}))
    return [one.rank[0] for one, sure in placed if sure]


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([1], [1]),  # the first position of any chat
        ([0], []),  # there is no position before it
        ([0, 1], [0, 1]),  # a server that counts from 0 sends a row up to the next one
    ],
)
def test_first_push_begins_at_position_1(indexes, expected):
    assert believed(indexes, bounded=False) == expected


@pytest.mark.parametrize(
    ("indexes", "following", "expected"),
    [
        ([2, 3, 4], 5, [2, 3, 4]),  # confirmed by the server
        ([2, 3, 4], 4, [2, 3]),  # the next position itself is still to come
        ([2, 3, 4], 3, [2]),
        ([1, 2, 3, 4], 4, [1, 2, 3, 4]),  # contradicted by four events in a row from the position asked for
    ],
)
def test_index_at_the_next_position_is_not_believed(indexes, following, expected):
    assert believed(indexes, next_position=following) == expected


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 4], [1, 2]),  # one ahead of the position behind its predecessor
        ([1, 3], [1]),
        ([2], []),
        ([1, 3, 5], [1]),  # one by one from the end
        ([1, 3, 4], [1, 3, 4]),  # confirmed by its successor
    ],
)
def test_last_index_is_believed_without_a_gap_alone(indexes, expected):
    assert believed(indexes) == expected


RISING = st.lists(st.integers(1, 12), min_size=1, max_size=8, unique=True).map(sorted)


@given(RISING, st.integers(1, 6), st.integers(1, 14))
@settings(max_examples=examples(200))
def test_no_index_is_believed_from_the_next_position_on(indexes, position, following):
    indexes = [index for index in indexes if index >= position]
    reached = position + next((n for n, index in enumerate(indexes) if index != position + n), len(indexes))
    found = believed(indexes, position=position, next_position=following)
    if following >= reached:
        assert all(index < following for index in found)
    else:  # the events contradict it, so that it is as if there were none
        assert found == believed(indexes, position=position)


@given(RISING, st.integers(1, 6))
@settings(max_examples=examples(200))
def test_believed_indexes_end_where_one_follows_another(indexes, position):
    indexes = [index for index in indexes if index >= position]
    found = believed(indexes, position=position)
    assert found == indexes[: len(found)]
    if found:
        before, last = [position - 1, *found][-2:]
        assert last == before + 1
    if len(found) < len(indexes):
        assert indexes[len(found)] > (found[-1] + 1 if found else position)


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([2, 3, 4], [2, 3, 4]),  # a row up to the position asked for: the server has ignored it
        ([2, 4, 5], [4, 5]),  # alone, and not next to it: a message whose index is wrong
        ([2], []),
    ],
)
def test_changed_repeat_is_believed_in_a_row_to_the_next(indexes, expected):
    known = {(2,): event(2, "former").original}
    assert believed(indexes, position=3 if 3 in indexes else 4, known=known) == expected


# -- content in the place of other content ----------------------------------------------------------------------------


def test_content_in_the_place_of_untrusted_is_delivered():
    """An answer with statusCode 1 moves no position, so that the next one brings what belongs to its indexes."""
    core = polled([1])
    core.poll(bad(ResponseKind.UNAVAILABLE, received=(event(2, "untrusted"),)))
    core.move(5.0)
    for _ in range(2):
        core.poll(answer([event(2, "good"), event(3, "3")], 4))
        assert delivered(core) == texts(core) == ["1", "untrusted", "good", "3"]
        core.move(5.0)
    assert asked(core) == 4


@pytest.mark.parametrize(
    ("since", "left"), [(2, ["x", "3"]), ("2", ["x", "3"]), (10**99, []), ("?", ["1", "2", "x", "3"])]
)
def test_messages_since_an_index_are_those_behind_its_place(since, left):
    transcript = polled([1, 2, "x", 3]).session.transcript
    assert [message.text for message in transcript.read(since).messages] == left


# -- places of odd events ----------------------------------------------------------------------------------------------


def test_odd_event_before_the_last_known_one_stands_before_it():
    assert texts(polled([1, 2, 3], ["x", 3, 4])) == ["1", "2", "x", "3", "4"]


def test_odd_events_moved_to_a_lower_index_keep_their_order():
    """Move an event to its index, confirmed below that of its successor, with the one that stands behind it."""
    first, second = event(2, "a"), event(None, "b")
    core = polled([1, 3], [first, second, 3, 4], [1, first, 3, 4, 5], next_positions=[4])
    assert texts(core) == ["1", "a", "b", "3", "4", "5"]


@pytest.mark.parametrize(("position", "expected"), [(7, 7), (1, 1), (None, None)])
def test_empty_answer_leaves_the_position(position, expected):
    assert OrderedTranscript().locate([], position=position).position == expected
