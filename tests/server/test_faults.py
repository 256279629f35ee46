"""Check the faults of the embedded server: their responses, their effects and their validation."""

from __future__ import annotations

import copy

import pytest
from msgspec import UNSET

from webchat_fsm.server import Fault, HttpRequest
from webchat_fsm.server._faults import changed, steps


def test_status_1_fault_hits_given_number_of_refreshes(visitor):
    visitor.server.faults.add(operation="refresh", server_status=1, times=2)
    assert [visitor.refresh()["statusCode"] for _ in range(3)] == [1, 1, 0]
    assert len(visitor.server.faults) == 0


def test_status_1_envelope_is_complete_and_loses_nothing(visitor):
    visitor.call("send", message="hi")
    visitor.server.faults.add(operation="refresh", server_status=1)
    envelope = visitor.refresh(2)
    assert envelope["messages"] == []
    assert envelope["chatEnded"] is False
    assert envelope["nextPosition"] == 2
    assert envelope["secureKey"] == visitor.ids["secureKey"]
    assert len(visitor.refresh(envelope["nextPosition"])["messages"]) == 1


def test_status_2_fault_has_code_249_unless_errors_are_given(visitor):
    visitor.server.faults.add(server_status=2, chat_ended=True)
    visitor.server.faults.add(server_status=2, errors=((240, "not now"),))
    first, second = visitor.refresh(), visitor.refresh()
    assert (first["statusCode"], first["chatEnded"], first["errors"][0]["code"]) == (2, True, 249)
    assert (second["chatEnded"], second["errors"]) == (False, [{"code": 240, "advice": "not now"}])


def test_start_fault_refuses_start_without_chat(visit):
    visitor = visit()
    visitor.server.faults.add(operation="start", http_status=400, errors=(240,))
    answer = visitor.post("/genesys/2/chat/x", {"nickname": "Jonny"})
    assert (answer.status, answer.json()) == (400, {"errors": [{"code": 240}]})
    assert visitor.server.chats == []


def test_http_status_fault_without_errors_has_empty_object(visitor):
    visitor.server.faults.add(http_status=503, retry_after=7)
    answer = visitor.ask("refresh")
    assert (answer.status, answer.json(), answer.headers["retry-after"]) == (503, {}, "7")


def test_body_fault_replaces_response_body(visitor):
    visitor.server.faults.add(http_status=403, body=b"<html>Forbidden</html>")
    answer = visitor.ask("refresh")
    assert (answer.status, answer.body) == (403, b"<html>Forbidden</html>")


@pytest.mark.parametrize(
    ("fault", "fate", "arrives"),
    [
        ({"drop": True}, "drop", False),
        ({"drop": True, "takes_effect": True}, "drop", True),
        ({"tear": True}, "tear", True),
        ({"tear": True, "takes_effect": False}, "tear", False),
        ({"delay": 2.0}, "whole", True),
        ({"server_status": 1}, "whole", False),
        ({"server_status": 1, "takes_effect": True}, "whole", True),
        ({"http_status": 502}, "whole", False),
        ({"duplicate": True}, "whole", True),
    ],
)
def test_message_arrival_under_fault_follows_takes_effect(visitor, fault, fate, arrives):
    visitor.server.faults.add(operation="send", **fault)
    answer = visitor.ask("send", message="hi")
    assert answer.fate == fate
    assert answer.delay == fault.get("delay", 0.0)
    assert len(visitor.refresh(2)["messages"]) == arrives


def test_duplicate_and_reorder_fault_changes_messages_once(visitor):
    visitor.call("send", message="one")
    visitor.server.faults.add(duplicate=True, reorder=True)
    assert [message["index"] for message in visitor.refresh()["messages"]] == [2, 2, 1, 1]
    assert [message["index"] for message in visitor.refresh()["messages"]] == [1, 2]


TREE = {"a": {"b": [{"c": 1}, {"c": 2}]}, "messages": []}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("$.a", None, {"a": None, "messages": []}),
        ("$.a.b[1].c", 42, {"a": {"b": [{"c": 1}, {"c": 42}]}, "messages": []}),
        ("$.a.b[0]", "x", {"a": {"b": ["x", {"c": 2}]}, "messages": []}),
        ("$.a.b[0]", UNSET, {"a": {"b": [{"c": 2}]}, "messages": []}),
        ("$.a.b[0].c", UNSET, {"a": {"b": [{}, {"c": 2}]}, "messages": []}),
        ("$.a.new", [], {"a": {"b": [{"c": 1}, {"c": 2}], "new": []}, "messages": []}),
        ("$.new", {}, {**TREE, "new": {}}),
        ("$.new.c", 1, TREE),
        ("$.new", UNSET, TREE),
        ("$.a[0]", 1, TREE),
        ("$.a.b.c", 1, TREE),
        ("$.a.b[2]", 1, TREE),
        ("$.a.b[0].c.d", 1, TREE),
    ],
)
def test_member_change_leaves_all_other_members(path, value, expected):
    before = copy.deepcopy(TREE)
    assert changed(TREE, steps(path), value) == expected
    assert before == TREE


def test_member_change_applies_to_pushed_envelopes_only():
    pushed = {"channel": "/service/chatV2/x", "data": {"alias": "117"}}
    reply = {"channel": "/meta/connect", "alias": "kept"}
    assert changed([pushed, reply], steps("$.alias"), 1) == [{**pushed, "data": {"alias": 1}}, reply]


def test_member_fault_changes_given_number_of_responses(visitor):
    visitor.call("send", message="one")
    visitor.server.faults.add(operation="refresh", member="$.messages[1].text", value=None, times=2)
    visitor.server.faults.add(operation="refresh", member="$.messages[0].from.nickname", remove=True)
    envelopes = [visitor.refresh() for _ in range(4)]
    assert [envelope["messages"][1]["text"] for envelope in envelopes] == [None, None, "one", "one"]
    assert ["nickname" in envelope["messages"][0]["from"] for envelope in envelopes] == [True, True, False, True]


def test_planned_member_faults_all_apply_to_one_request(visitor):
    request = HttpRequest.of("POST", "/genesys/2/chat/x", {}, b"nickname=Jonny")
    planned = [Fault(member="$.alias", value=117), Fault(member="$.userId", remove=True), Fault(delay=1)]
    answer = visitor.server.handle(request, planned=planned)
    assert (answer.json()["alias"], "userId" in answer.json(), answer.delay) == (117, False, 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"member": "messages[0]", "value": 1}, r"member: expected a path such as '\$.messages\[1\].text', got 'mess"),
        ({"member": "$", "value": 1}, "member: expected a path"),
        ({"member": "$.a[x]", "value": 1}, "member: expected a path"),
        ({"member": "$.a[*].b", "value": 1}, "member: expected a path"),
        ({"member": "$..a", "value": 1}, "member: expected a path"),
        ({"member": "$.a.", "value": 1}, "member: expected a path"),
        ({"member": 7, "value": 1}, "member: expected str | null, got 7"),
        ({"member": "$.a"}, "member: give the value that is to stand there, or remove=True"),
        ({"member": "$.a", "value": None, "remove": True}, "member: give either the value or remove, not both"),
        ({"value": None, "drop": True}, r"value: name the member too, as in member='\$.messages"),
        ({"remove": True, "drop": True}, "remove: name the member too"),
        ({"member": "$.a", "value": object()}, r"value: expected a JSON value, got object \("),
    ],
)
def test_invalid_member_change_is_rejected(visitor, fault, message):
    with pytest.raises(ValueError, match=message):
        visitor.server.faults.add(**fault)


def test_skip_counts_requests_of_the_operation_only(visitor):
    visitor.server.faults.add(operation="refresh", server_status=1, skip=1)
    visitor.call("send", message="hi")
    assert [visitor.refresh()["statusCode"] for _ in range(3)] == [0, 1, 0]


def test_fault_of_other_dialect_is_not_applied(visitor):
    visitor.server.faults.add(dialect="v3", server_status=1)
    assert visitor.refresh()["statusCode"] == 0


def test_cleared_faults_are_not_applied(visitor):
    visitor.server.faults.add(drop=True, times=99)
    visitor.server.faults.clear()
    assert visitor.ask("refresh").fate == "whole"


@pytest.mark.parametrize("fault", [{}, {"operation": "send", "times": 2}])
def test_fault_without_effect_raises_value_error(visitor, fault):
    with pytest.raises(ValueError, match="goes wrong"):
        visitor.server.faults.add(**fault)


def test_fault_in_unknown_operation_is_rejected(visitor):
    with pytest.raises(ValueError, match="'refesh'; did you mean 'refresh'"):
        visitor.server.faults.add(operation="refesh", drop=True)


def test_unknown_fault_name_raises_type_error(visitor):
    with pytest.raises(TypeError, match="a fault has no 'server_statos'; did you mean 'server_status'"):
        visitor.server.faults.add(operation="send", server_statos=1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"drop": True, "times": 0}, "times: expected int >= 1, got 0"),
        ({"drop": True, "times": True}, "times: expected int, got True"),
        ({"drop": True, "skip": -1}, "skip: expected int >= 0, got -1"),
        ({"drop": "yes"}, "drop: expected bool, got 'yes'"),
        ({"http_status": "503"}, "http_status: expected int | null, got '503'"),
        ({"http_status": 999}, "http_status: expected int <= 599, got 999"),
        ({"delay": -3}, "delay: expected float >= 0.0, got -3"),
        ({"delay": float("inf")}, "delay: expected float <= .*, got inf"),
        ({"drop": True, "dialect": "v4"}, "dialect: invalid enum value 'v4'"),
        ({"http_status": 429, "retry_after": "soon"}, "retry_after: expected int"),
    ],
)
def test_invalid_fault_value_raises_before_any_request(visitor, fault, message):
    with pytest.raises(ValueError, match=message):
        visitor.server.faults.add(**fault)
    assert visitor.ask("refresh").fate == "whole"


def test_planned_fault_applies_to_its_request_only(visitor):
    request = HttpRequest.of("POST", "/genesys/2/chat/x", {}, b"nickname=Jonny")
    visitor.server.faults.add(http_status=503)
    planned = [Fault(drop=True), Fault(http_status=400)]
    answers = [visitor.server.handle(request, planned=one) for one in (planned, ())]
    assert [(answer.fate, answer.status) for answer in answers] == [("drop", 400), ("whole", 503)]
    assert visitor.server.handle(HttpRequest.of("GET", "/nowhere"), planned=planned).status == 404
    assert visitor.ask("refresh").fate == "whole"
