"""What goes wrong on demand, and what happens all the same."""

from __future__ import annotations

import copy

import pytest
from msgspec import UNSET

from webchat_fsm.server import Fault, HttpRequest
from webchat_fsm.server.faults import changed, steps


def test_status_1_for_so_many_refreshes_and_then_all_is_well(visitor):
    visitor.server.faults.add(operation="refresh", server_status=1, times=2)
    assert [visitor.refresh()["statusCode"] for _ in range(3)] == [1, 1, 0]
    assert len(visitor.server.faults) == 0


def test_a_status_1_envelope_is_complete_carries_nothing_and_loses_nothing(visitor):
    visitor.call("send", message="hi")
    visitor.server.faults.add(operation="refresh", server_status=1)
    envelope = visitor.refresh(2)
    assert envelope["messages"] == []
    assert envelope["chatEnded"] is False
    assert envelope["nextPosition"] == 2
    assert envelope["secureKey"] == visitor.ids["secureKey"]
    assert len(visitor.refresh(envelope["nextPosition"])["messages"]) == 1


def test_status_2_comes_with_249_unless_another_error_is_named(visitor):
    visitor.server.faults.add(server_status=2, chat_ended=True)
    visitor.server.faults.add(server_status=2, errors=((240, "not now"),))
    first, second = visitor.refresh(), visitor.refresh()
    assert (first["statusCode"], first["chatEnded"], first["errors"][0]["code"]) == (2, True, 249)
    assert (second["chatEnded"], second["errors"]) == (False, [{"code": 240, "advice": "not now"}])


def test_a_start_can_be_refused(visit):
    visitor = visit()
    visitor.server.faults.add(operation="start", http_status=400, errors=(240,))
    answer = visitor.post("/genesys/2/chat/x", {"nickname": "Jonny"})
    assert (answer.status, answer.json()) == (400, {"errors": [{"code": 240}]})
    assert visitor.server.chats == []


def test_an_http_status_without_errors_has_an_empty_object(visitor):
    visitor.server.faults.add(http_status=503, retry_after=7)
    answer = visitor.ask("refresh")
    assert (answer.status, answer.json(), answer.headers["retry-after"]) == (503, {}, "7")


def test_a_body_of_its_own(visitor):
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
def test_whether_a_message_arrives_although_its_answer_is_spoilt(visitor, fault, fate, arrives):
    visitor.server.faults.add(operation="send", **fault)
    answer = visitor.ask("send", message="hi")
    assert answer.fate == fate
    assert answer.delay == fault.get("delay", 0.0)
    assert len(visitor.refresh(2)["messages"]) == arrives


def test_messages_double_and_in_reverse(visitor):
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
def test_a_member_is_replaced_removed_or_added_and_nothing_else(path, value, expected):
    before = copy.deepcopy(TREE)
    assert changed(TREE, steps(path), value) == expected
    assert before == TREE


def test_a_member_of_each_pushed_envelope_is_replaced():
    pushed = {"channel": "/service/chatV2/x", "data": {"alias": "117"}}
    reply = {"channel": "/meta/connect", "alias": "kept"}
    assert changed([pushed, reply], steps("$.alias"), 1) == [{**pushed, "data": {"alias": 1}}, reply]


def test_a_member_of_an_answer_is_spoilt_so_many_times(visitor):
    visitor.call("send", message="one")
    visitor.server.faults.add(operation="refresh", member="$.messages[1].text", value=None, times=2)
    visitor.server.faults.add(operation="refresh", member="$.messages[0].from.nickname", remove=True)
    envelopes = [visitor.refresh() for _ in range(4)]
    assert [envelope["messages"][1]["text"] for envelope in envelopes] == [None, None, "one", "one"]
    assert ["nickname" in envelope["messages"][0]["from"] for envelope in envelopes] == [True, True, False, True]


def test_members_of_one_planned_request_are_all_spoilt(visitor):
    request = HttpRequest.of("POST", "/genesys/2/chat/x", {}, b"nickname=Jonny")
    planned = [Fault(member="$.alias", value=117), Fault(member="$.userId", remove=True), Fault(delay=1)]
    answer = visitor.server.handle(request, planned=planned)
    assert (answer.json()["alias"], "userId" in answer.json(), answer.delay) == (117, False, 1)


@pytest.mark.parametrize(
    ("fault", "told"),
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
def test_a_change_of_a_member_that_cannot_be_is_a_mistake(visitor, fault, told):
    with pytest.raises(ValueError, match=told):
        visitor.server.faults.add(**fault)


def test_skip_lets_some_pass_and_other_operations_do_not_count(visitor):
    visitor.server.faults.add(operation="refresh", server_status=1, skip=1)
    visitor.call("send", message="hi")
    assert [visitor.refresh()["statusCode"] for _ in range(3)] == [0, 1, 0]


def test_a_fault_of_another_dialect_does_not_hit(visitor):
    visitor.server.faults.add(dialect="v3", server_status=1)
    assert visitor.refresh()["statusCode"] == 0


def test_faults_can_be_called_off(visitor):
    visitor.server.faults.add(drop=True, times=99)
    visitor.server.faults.clear()
    assert visitor.ask("refresh").fate == "whole"


@pytest.mark.parametrize("fault", [{}, {"operation": "send", "times": 2}])
def test_a_fault_in_which_nothing_goes_wrong_is_a_mistake(visitor, fault):
    with pytest.raises(ValueError, match="goes wrong"):
        visitor.server.faults.add(**fault)


def test_a_fault_in_an_operation_that_does_not_exist_is_a_mistake(visitor):
    with pytest.raises(ValueError, match="'refesh'; did you mean 'refresh'"):
        visitor.server.faults.add(operation="refesh", drop=True)


def test_a_misspelt_fault_is_a_mistake(visitor):
    with pytest.raises(TypeError, match="a fault has no 'server_statos'; did you mean 'server_status'"):
        visitor.server.faults.add(operation="send", server_statos=1)


@pytest.mark.parametrize(
    ("fault", "told"),
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
def test_a_value_that_cannot_be_is_a_mistake_before_any_request(visitor, fault, told):
    with pytest.raises(ValueError, match=told):
        visitor.server.faults.add(**fault)
    assert visitor.ask("refresh").fate == "whole"


def test_a_fault_can_be_planned_for_one_request_alone(visitor):
    request = HttpRequest.of("POST", "/genesys/2/chat/x", {}, b"nickname=Jonny")
    visitor.server.faults.add(http_status=503)
    planned = [Fault(drop=True), Fault(http_status=400)]
    answers = [visitor.server.handle(request, planned=one) for one in (planned, ())]
    assert [(answer.fate, answer.status) for answer in answers] == [("drop", 400), ("whole", 503)]
    assert visitor.server.handle(HttpRequest.of("GET", "/nowhere"), planned=planned).status == 404
    assert visitor.ask("refresh").fate == "whole"
