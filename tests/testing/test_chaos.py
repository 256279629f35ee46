"""Test faults given as data: per operation and attempt, listed or drawn from a seed."""

from __future__ import annotations

import json
from functools import partial

import pytest

from tests.wire.asked import OPERATIONS as BY_NAME
from tests.wire.asked import asked
from webchat_fsm import Config, SessionData
from webchat_fsm._wire import dialect_of
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._bench import CONFIGS
from webchat_fsm.testing._chaos import FAULTED_OPERATIONS, KINDS, OPERATIONS, draw_faults, planned_faults


@pytest.fixture
def chat(webchat, webchat_timeline):
    webchat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    return webchat


def outcomes(chat, times: int) -> list[bool]:
    return [bool(chat.command("updateUserData", {"number": number})) for number in range(times)]


def test_fault_of_one_attempt_affects_no_other(chat, webchat_server):
    webchat_server.load_faults([{"operation": "updateData", "attempt": 3, "drop": True}])
    assert outcomes(chat, 5) == [True, True, False, True, True]


def test_attempts_are_counted_once_for_all_faults(chat, webchat_server):
    plan = '[{"operation": "updateData", "attempt": [2, 3], "http_status": 503}, {"operation": "updateData", "attempt": 5, "tear": true}]'  # noqa: E501
    webchat_server.load_faults(json.loads(plan))
    assert outcomes(chat, 6) == [True, False, False, True, False, True]


def test_attempts_count_from_the_load_of_the_list(chat, webchat_server):
    outcomes(chat, 2)
    webchat_server.load_faults([{"operation": "updateData", "drop": True}])
    assert outcomes(chat, 2) == [False, True]


def test_attempt_without_operation_counts_all_requests(chat, webchat_server):
    webchat_server.load_faults([{"attempt": 2, "drop": True}])
    assert chat.command("sendMessage", {"message": "first"})
    assert outcomes(chat, 2) == [False, True]


def test_clock_jump_happens_at_its_attempt(chat, webchat_server, webchat_timeline):
    webchat_server.load_faults([{"operation": "updateData", "attempt": 2, "clock_jump": -3600}])
    before = webchat_timeline.now()
    outcomes(chat, 1)
    assert webchat_timeline.now() == before
    outcomes(chat, 1)
    assert webchat_timeline.now() == before - 3600


def test_duplicate_reordered_messages_arrive_once_in_order(chat, webchat_server, webchat_timeline):
    ann = webchat_server.agent("Ann").join()
    webchat_server.load_faults([{"operation": "refresh", "attempt": [1, 2, 3], "duplicate": True, "reorder": True}])
    for number in range(3):
        ann.say(f"Line {number}")
    webchat_timeline.advance(10)
    texts = [message.text for message in chat.get_transcript().messages if message.type == "Message"]
    assert texts == ["Line 0", "Line 1", "Line 2"]


def test_member_of_an_answer_is_replaced_at_its_attempt(chat, webchat_server, webchat_timeline, webchat_recording):
    plan = """[{"operation": "refresh", "attempt": 1, "member": "$.messages[0].userData", "value": null},
               {"operation": "refresh", "attempt": 1, "member": "$.messages[0].odd", "value": [1]}]"""
    webchat_server.load_faults(json.loads(plan))
    webchat_server.agent("Ann").join()
    webchat_timeline.advance(5)
    (original,) = [one for one in chat.get_transcript().original_messages if "odd" in one]
    assert (original["userData"], original["odd"], chat.health().failures) == (None, [1], 0)


@pytest.mark.parametrize("transport", Transport)
def test_drawn_member_values_have_all_json_types(transport):
    faults = [fault for fault in draw_faults(7, transport, 3000) if "member" in fault]
    kinds = {type(fault.get("value")) for fault in faults}
    assert kinds == {type(None), bool, int, float, str, list, dict}
    assert any(fault.get("remove") for fault in faults)
    assert all(fault["member"].startswith("$.messages[" if transport.gms else "$.data.messages[") for fault in faults)
    assert json.loads(json.dumps(faults)) == faults
    planned_faults(faults)


BUSY = {"operation": "refresh", "http_status": 503}


@pytest.mark.parametrize(
    "faults",
    [
        [{**BUSY, "attempt": 2}, {"operation": "refresh", "attempt": 2, "drop": True}],
        [{**BUSY, "attempt": 2}, {"attempt": 4, "drop": True}],
    ],
    ids=["by the same count", "by the count of any operation"],
)
def test_faults_of_one_request_affect_no_other_request(webchat, webchat_timeline, webchat_server, faults):
    webchat_server.load_faults(faults)
    webchat.start_chat(nickname="Jonny")
    webchat.command("updateUserData", {"page": "/"})
    webchat_timeline.advance(0.6)
    assert webchat.health().failures == 1
    assert outcomes(webchat, 3) == [True, True, True]


def test_faults_of_one_request_combine(chat, webchat_server, webchat_timeline):
    webchat_server.load_faults(
        [
            {"operation": "updateData", "http_status": 503},
            {"operation": "updateData", "delay": 2.0},
            {"operation": "updateData", "http_status": 403},
        ]
    )
    before = webchat_timeline.now()
    assert chat.command("updateUserData", {"page": "/"}).reason["status"] == 403
    assert webchat_timeline.now() == before + 2


def test_listed_fault_is_applied_before_added_ones(chat, webchat_server, webchat_timeline, webchat_recording):
    webchat_server.faults.add(operation="refresh", server_status=1, times=2)
    webchat_server.load_faults([{"operation": "refresh", "drop": True}])
    webchat_timeline.advance(0.6)
    assert chat.health().failures == 1
    assert outcomes(chat, 1) == [True]
    assert len(webchat_server.faults) == 1
    webchat_timeline.advance(20)
    refused = [event for event in webchat_recording.of(chat).lines if '"statusCode":1' in event.get("body", "")]
    assert (len(refused), len(webchat_server.faults)) == (2, 0)


def test_listed_fault_of_another_dialect_is_ignored(chat, webchat_server):
    webchat_server.load_faults([{"operation": "updateData", "dialect": "v3", "drop": True}])
    assert outcomes(chat, 2) == [True, True]


def test_one_entry_moves_the_clock_and_fails_the_request(chat, webchat_server, webchat_timeline):
    webchat_server.load_faults([{"operation": "updateData", "clock_jump": 60, "drop": True}])
    before = webchat_timeline.now()
    assert outcomes(chat, 2) == [False, True]
    assert webchat_timeline.now() == before + 60


def test_fault_list_from_json_may_have_text_bodies(chat, webchat_server):
    webchat_server.load_faults(json.loads('[{"operation": "updateData", "body": "<html>Ü</html>"}]'))
    assert outcomes(chat, 2) == [False, True]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ({"operation": "refesh", "drop": True}, ValueError, "fault 2: .*did you mean 'refresh'"),
        ({"operation": "getFileLimits", "drop": True}, ValueError, "fault 2: .*did you mean 'limits'"),
        ({"operation": "poll", "drop": True}, ValueError, "fault 2: .*there are .*refresh"),
        ({"operation": 3, "drop": True}, ValueError, "fault 2: operation: expected str"),
        ({"attempt": 0, "drop": True}, ValueError, "fault 2: attempt: expected int >= 1, got 0"),
        ({"attempt": [1, 0], "drop": True}, ValueError, r"fault 2: attempt\[1\]: expected int >= 1"),
        ({"attempt": 1.5, "drop": True}, ValueError, "fault 2: attempt: expected int | array, got 1.5"),
        ({"attempt": [], "drop": True}, ValueError, "fault 2: attempt: expected array of length >= 1"),
        ({"attempts": 2, "drop": True}, TypeError, "'attempts'; did you mean 'attempt'"),
        ({"dorp": True}, TypeError, "fault 2: a fault has no 'dorp'; did you mean 'drop'"),
        ({"burn": True}, TypeError, "'burn'; there are operation, "),
        ({"times": 2, "drop": True}, TypeError, "fault 2: 'times' means nothing in a list: name the attempts"),
        ({"skip": 2, "drop": True}, TypeError, "fault 2: 'skip' means nothing in a list: name the attempts"),
        ({"clock_jump": "x"}, ValueError, "fault 2: clock_jump: expected float, got 'x'"),
        ({"clock_jump": float("nan")}, ValueError, "fault 2: clock_jump: expected float"),
        ({"operation": "refresh"}, ValueError, "fault 2: .*something fail"),
        ("drop", TypeError, "fault 2: expected an object, got 'drop'"),
    ],
)
def test_invalid_entry_rejects_the_whole_list(chat, webchat_server, fault, error, message):
    with pytest.raises(error, match=message):
        webchat_server.load_faults([{"operation": "updateData", "drop": True}, fault])
    assert outcomes(chat, 1) == [True]


def test_single_fault_instead_of_a_list_is_rejected(webchat_server):
    with pytest.raises(TypeError, match="expected a list of faults, got one dict"):
        webchat_server.load_faults({"operation": "refresh", "drop": True})


def test_unknown_transport_is_rejected_with_the_known_ones(webchat_server):
    for wrong in (lambda: webchat_server.client("v4"), lambda: webchat_server.draw_faults(1, transport="v4")):
        with pytest.raises(ValueError, match="there is no transport 'v4'; there are v2, cometd, v3, v3-async"):
            wrong()


@pytest.mark.parametrize("transport", Transport)
def test_faults_are_drawn_for_the_last_clients_transport(webchat_server, transport):
    assert webchat_server.draw_faults(5) == draw_faults(5, Transport.V2)
    webchat_server.client()
    webchat_server.client(transport)
    assert webchat_server.draw_faults(5, 30) == draw_faults(5, transport, 30)


@pytest.mark.parametrize("transport", Transport)
def test_same_seed_draws_the_same_faults_of_every_kind(transport):
    faults = draw_faults(42, transport, 300)
    assert faults == draw_faults(42, transport, 300)
    assert faults != draw_faults(43, transport, 300)
    assert all(any(kind in fault for fault in faults) for kind in KINDS)
    assert {fault["operation"] for fault in faults} == set(FAULTED_OPERATIONS[transport])


def test_fault_operations_are_those_of_all_dialects():
    offered = {transport: set(filter(partial(_offers, transport), BY_NAME)) for transport in Transport}
    assert set().union(*offered.values()) == OPERATIONS == set(BY_NAME)
    assert {transport: OPERATIONS - names for transport, names in offered.items()} == {
        Transport.V2: {"resume", "history", "fetch", *LINK},
        Transport.COMETD: {"refresh", "restore", "resume", "history", "fetch"},
        Transport.V3: {"customNotice", "limits", "download", *LINK},
        Transport.V3_ASYNC: {"customNotice", "limits", "download", *LINK},
    }


LINK = ("handshake", "connect", "notifications", "hangup")


def _offers(transport: Transport, operation: str) -> bool:
    """Return whether the dialect of a transport makes requests of an operation; if not, it raises `TypeError`."""
    request = dialect_of(Config.read(CONFIGS[transport])).request
    try:
        request(asked(operation, SessionData(session_id="s")))
    except TypeError:
        return False
    return True


def test_unsupported_operation_raises_type_error():
    with pytest.raises(TypeError, match=r"^fetch: this transport has no such operation$"):
        dialect_of(Config.read(CONFIGS[Transport.V2])).request(asked("fetch", SessionData()))
