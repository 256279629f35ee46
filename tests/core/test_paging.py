"""The pages of a restore over v3: their order, and where polling goes on behind them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.core.harness import SAVED, chat_message, good
from webchat_fsm._core.paging import Pages, may_begin, resumed_at
from webchat_fsm._core.steps import ReceivedMessage


def numbered(*indexes: int) -> tuple[ReceivedMessage, ...]:
    return tuple(
        ReceivedMessage(chat_message(index, str(index)), {"index": f"{index}-0"}, (index, 0)) for index in indexes
    )


@pytest.mark.parametrize("indexes", [(7,), (7, 8), (8, 7), (7, 8, 9), (9, 8, 7)])
def test_page_that_falls_is_read_oldest_first(indexes):
    pages = Pages(delivered_up_to="1-0", whole=False, first=good(), until=10.0)
    before = pages.add(replace(good(), received=numbered(*indexes)), 0.0)
    assert [one.rank[0] for one in pages.received] == sorted(indexes)
    assert before == "7-0"


@pytest.mark.parametrize(
    ("cursor", "last_index", "expected"),
    [
        ("1700-3", "1690-0", "1700-3"),
        ("17003", "1690-0", 1),  # without its hyphen, as hooks keep it, it is no index of the server
        (1, None, 1),
        ("1700-3", None, 1),
        ("1700-3", "0-0", 1),  # nothing was delivered, so that everything is asked for
        ("x", "1690-0", 1),
    ],
)
def test_poll_behind_an_empty_restore_asks_from_a_known_index(cursor, last_index, expected):
    assert resumed_at(replace(SAVED, cursor=cursor, last_index=last_index)) == expected


@pytest.mark.parametrize(
    ("indexes", "delivered_up_to", "expected"),
    [
        ((6, 7), "6-0", True),  # the message delivered last is among them
        ((7, 8), "6-0", False),  # the server has dropped the older ones
        ((5, 8), "6-0", True),
        ((7, 8), "0-0", True),  # nothing was delivered before
        ((7, 8), None, True),
        ((), "6-0", True),
    ],
)
def test_chat_begins_with_a_message_delivered_before(indexes, delivered_up_to, expected):
    assert may_begin(numbered(*indexes), delivered_up_to) is expected
