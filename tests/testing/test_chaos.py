"""Faults as data, per operation and per attempt, written down or drawn from a seed."""

from __future__ import annotations

import json

import pytest

from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing.chaos import HIT, KINDS, OPERATIONS, drawn
from webchat_fsm.wire import cometd, gms_v2, nexus_v3


@pytest.fixture
def chat(webchat, webchat_timeline):
    webchat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    return webchat


def outcomes(chat, times: int) -> list[bool]:
    return [bool(chat.command("updateUserData", {"number": number})) for number in range(times)]


def test_an_attempt_fails_and_no_other(chat, webchat_server):
    webchat_server.load_faults([{"operation": "updateData", "attempt": 3, "drop": True}])
    assert outcomes(chat, 5) == [True, True, False, True, True]


def test_attempts_of_one_operation_are_counted_once_for_all_its_faults(chat, webchat_server):
    plan = '[{"operation": "updateData", "attempt": [2, 3], "http_status": 503}, {"operation": "updateData", "attempt": 5, "tear": true}]'  # noqa: E501
    webchat_server.load_faults(json.loads(plan))
    assert outcomes(chat, 6) == [True, False, False, True, False, True]


def test_attempts_count_from_the_moment_the_list_is_taken_on(chat, webchat_server):
    outcomes(chat, 2)
    webchat_server.load_faults([{"operation": "updateData", "drop": True}])
    assert outcomes(chat, 2) == [False, True]


def test_an_attempt_of_any_operation_may_be_meant(chat, webchat_server):
    webchat_server.load_faults([{"attempt": 2, "drop": True}])
    assert chat.command("sendMessage", {"message": "first"})
    assert outcomes(chat, 2) == [False, True]


def test_the_wall_clock_jumps_at_an_attempt(chat, webchat_server, webchat_timeline):
    webchat_server.load_faults([{"operation": "updateData", "attempt": 2, "clock_jump": -3600}])
    before = webchat_timeline.now()
    outcomes(chat, 1)
    assert webchat_timeline.now() == before
    outcomes(chat, 1)
    assert webchat_timeline.now() == before - 3600


def test_a_message_that_is_there_twice_and_in_disorder_is_delivered_once_and_in_order(
    chat, webchat_server, webchat_timeline
):
    ann = webchat_server.agent("Ann").join()
    webchat_server.load_faults([{"operation": "refresh", "attempt": [1, 2, 3], "duplicate": True, "reorder": True}])
    for number in range(3):
        ann.say(f"Line {number}")
    webchat_timeline.advance(10)
    texts = [message.text for message in chat.get_transcript().messages if message.type == "Message"]
    assert texts == ["Line 0", "Line 1", "Line 2"]


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        ({"operation": "refesh", "drop": True}, ValueError, "did you mean 'refresh'"),
        ({"attempt": 0, "drop": True}, ValueError, "counted from 1"),
        ({"operation": "send", "burn": True}, TypeError, "burn"),
    ],
)
def test_what_a_list_cannot_mean_is_refused(webchat_server, fault, error, told):
    with pytest.raises(error, match=told):
        webchat_server.load_faults([fault])


@pytest.mark.parametrize("transport", Transport)
def test_the_same_seed_draws_the_same_faults_of_every_kind(transport):
    faults = drawn(42, transport, 300)
    assert faults == drawn(42, transport, 300)
    assert faults != drawn(43, transport, 300)
    assert all(any(kind in fault for fault in faults) for kind in KINDS)
    assert {fault["operation"] for fault in faults} == set(HIT[transport])


def test_the_names_of_operations_are_those_that_the_dialects_know():
    known = {*gms_v2._OPERATIONS, *nexus_v3._OPERATIONS, *cometd._OPERATIONS, *cometd._META, *cometd.FILE_OPERATIONS}
    assert known == OPERATIONS
