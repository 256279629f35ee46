"""Check faulty servers: repeated, reversed, odd and hostile responses, and sessions lost during a chat."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lifecycle.environment import HeardOnBus
from tests.limits import examples
from tests.nexus.environment import SESSIONS, NexusEnvironment, envelope, received
from tests.wire.asked import asked
from webchat_fsm import Config
from webchat_fsm._core.steps import ResponseKind
from webchat_fsm._model import SessionData
from webchat_fsm._wire.nexus_v3 import NexusV3
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import Timeline
from webchat_fsm.testing._bench import CONFIGS

LATER = 2_000_000_000_000
"""Later than every index of the server, so that polls continue from there."""

FROM = {"type": "Agent", "participantId": "ann", "nickname": "Ann"}


def said(index, text, **fields):
    return {"index": index, "type": "Text", "text": text, "from": FROM, "utcTime": "2024-03-09T16:00:00.100Z", **fields}


# -- order and repeats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"duplicate": True}, {"reorder": True}, {"duplicate": True, "reorder": True}])
def test_repeated_or_reversed_messages_are_delivered_once(nexus, fault):
    nexus.start()
    agent = nexus.agent()
    nexus.server.faults.add(operation="refresh", times=3, **fault)
    for turn in range(3):
        for number in range(4):
            agent.say(f"{turn}.{number}")
        nexus.advance(3)
    assert nexus.heard.texts() == [f"{turn}.{number}" for turn in range(3) for number in range(4)]
    assert nexus.heard.names.count("agentConnected") == 1


@pytest.mark.parametrize("fault", [{"duplicate": True}, {"reorder": True}, {"duplicate": True, "reorder": True}])
def test_restored_and_history_messages_are_ordered_and_unique(v3_async, fault):
    v3_async.start()
    v3_async.bulk(30)
    v3_async.advance(3)
    v3_async.chat.close()
    v3_async.server.faults.add(operation="refresh", times=5, **fault)
    v3_async.open()
    v3_async.chat.fetch_history()
    v3_async.chat.fetch_history()
    (restored, _, _), (older, _, old) = received(v3_async.heard)
    assert (restored, old) == ([f"message {n}" for n in range(11, 31)], True)
    assert older == [f"message {n}" for n in range(10, 1, -1)] + [""]


def test_transcript_repeated_in_each_poll_is_delivered_once(nexus):
    nexus.start()
    whole = [said(f"{n}-0", f"{n}") for n in range(1, 6)]
    for number in range(1, 6):
        nexus.http.answer("refresh", envelope(messages=whole[:number]))
        nexus.advance(3)
    assert nexus.heard.texts() == ["1", "2", "3", "4", "5"]


def test_late_older_message_keeps_poll_position(nexus):
    nexus.start()
    for messages in ([said(f"{LATER + 9}-0", "nine")], [said(f"{LATER + 5}-0", "five")]):
        nexus.http.answer("refresh", envelope(messages=messages))
        nexus.advance(3)
    nexus.chat.stop_poll()
    nexus.chat.start_poll()
    nexus.http.answer("refresh", envelope(messages=[]))
    nexus.advance(0)
    assert nexus.queries()[-1] == {"index": f"{LATER + 9}-0"}
    assert nexus.heard.texts() == ["nine", "five"]
    shown = [message.text for message in nexus.chat.get_transcript().messages if message.text]
    assert shown.index("five") < shown.index("nine")


def test_indexes_are_ordered_numerically(nexus):
    nexus.start()
    messages = [said("10-0", "c"), said("9-2", "a"), said("9-10", "b"), said(11, "d")]
    nexus.http.answer("refresh", envelope(messages=messages))
    nexus.advance(3)
    assert nexus.heard.texts() == ["a", "b", "c", "d"]
    assert nexus.heard.last("messageReceived").messages[0].index == "92"


def test_messages_without_index_are_delivered_once_in_place(nexus):
    nexus.start()
    without = {key: value for key, value in said(0, "c").items() if key != "index"}
    messages = [said(f"{LATER}-0", "a"), said(None, "b"), without, said(f"{LATER + 1}-0", "d")]
    messages += [said("odd one", "e"), said("9" * 5000 + "-0", "f")]
    for _ in range(2):
        nexus.http.answer("refresh", envelope(messages=messages))
        nexus.advance(3)
    assert nexus.heard.texts() == ["a", "b", "c", "d", "e", "f"]
    nexus.chat.stop_poll()
    nexus.chat.start_poll()
    nexus.http.answer("refresh", envelope(messages=[]))
    nexus.advance(0)
    assert nexus.queries()[-1] == {"index": f"{LATER + 1}-0"}


# -- odd messages ------------------------------------------------------------------------------------------------------

ODD_MEMBERS = {
    "no sender": {"from": ...},
    "an empty sender": {"from": {}},
    "a null sender": {"from": None},
    "a sender of nulls": {"from": {"type": None, "participantId": None, "nickname": None}},
    "null time": {"utcTime": None},
    "a sender by number": {"from": {"type": "Agent", "participantId": 7}},
    "no time": {"utcTime": ...},
    "time as a number": {"utcTime": 1710000000100},
    "null text": {"text": None},
    "no text": {"text": ...},
    "null user data": {"userData": None},
    "content that is an object": {"content": {"type": "quick-replies"}, "contentType": "quick-replies"},
    "content of odd things": {"content": [None, 5, {"url": 7}, {"url": "https://x.test/y"}, {}]},
    "an unknown type": {"type": "Hologram"},
    "members of the library": {"restoring": True, "timestamp": "never", "html": True},
    "unknown fields": {"x": {"y": [1]}, "nested": None},
    "no type": {"type": ...},
    "a null type": {"type": None},
    "a type that is an object": {"type": {}},
    "a sender that is a text": {"from": "Ann"},
    "a sender type that is a list": {"from": {"type": []}},
    "a text that is a number": {"text": 5},
    "a text that is an object": {"text": {"a": 1}},
    "an index that is a fraction": {"index": 1.5},
    "an index that is an object": {"index": {}},
    "a time that is an object": {"utcTime": {}},
    "user data that are a list": {"userData": [1]},
    "an url that is a number": {"url": 5},
}


def odd_message(change):
    message = {**said("7-0", "odd"), **change}
    return {key: value for key, value in message.items() if value is not ...}


@pytest.mark.parametrize("change", ODD_MEMBERS.values(), ids=ODD_MEMBERS)
def test_message_with_odd_member_is_delivered_in_order(nexus, change):
    nexus.start()
    bus = HeardOnBus(nexus.chat)
    nexus.heard.take()
    nexus.http.answer("refresh", envelope(messages=[said("6-0", "before"), odd_message(change), said("8-0", "after")]))
    nexus.advance(3)
    assert "error" not in nexus.heard.names
    (data,) = nexus.heard.all("messageReceived")
    assert (len(data.messages), data.messages[0].text, data.messages[2].text) == (3, "before", "after")
    on_bus = bus.last("messageReceived")["messages"][1]
    assert {"text", "type", "index", "timestamp", "from"} <= set(on_bus)
    assert "restoring" not in on_bus
    assert on_bus["timestamp"] != "never"


ODD_ANSWERS = {
    "empty": b"",
    "text": b"oops",
    "null": b"null",
    "a number": b"5",
    "a list": b"[]",
    "no data": b"{}",
    "null data": b'{"data": null}',
    "data that are a list": b'{"data": []}',
    "a status that is a number": b'{"status": 404, "message": "Not Found"}',
    "a failure with messages": b'{"status": {"code": "INTERNAL_ERROR", "message": "m"}, "data": {"messages": []}}',
    "code 1": b'{"status": {"code": 1}, "data": {"messages": []}}',
    "deep": b'{"data":' * 100_000,
    "cut off": b'{"data": {"messages": [',
}


@pytest.mark.parametrize("body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_unexpected_poll_response_is_error_and_chat_continues(nexus, body):
    agent = nexus.chatting("one")
    nexus.heard.events.clear()
    nexus.http.answer("refresh", body)
    agent.say("two")
    nexus.advance(3)
    assert (nexus.heard.names, nexus.chat.state) == (["error"], "polling")
    nexus.advance(3.6)
    assert nexus.heard.texts() == ["two"]


@pytest.mark.parametrize("body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
@pytest.mark.parametrize(
    ("operation", "command", "data"),
    [
        ("send", "sendMessage", {"message": "x"}), ("startTyping", "sendTyping", {"message": "x"}),
        ("updateData", "updateUserData", {"a": "b"}), ("disconnect", "endChat", {}), ("history", "fetchHistory", {}),
        ("fetch", "fetch", {"url": "/x"}),
    ],
)  # fmt: skip
def test_command_with_unexpected_response_is_settled(v3_async, operation, command, data, body):
    v3_async.chatting("one")
    v3_async.http.answer(operation, body, 500)
    assert not v3_async.chat.command(command, data)
    if command == "endChat":
        assert v3_async.chat.state == "ended"
    else:
        v3_async.http.answer(operation, body)
        assert v3_async.chat.command(command, data).status in ("resolved", "rejected")
        assert v3_async.chat.state == "polling"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"status": 404, "error": "Not Found"}', b'{"status": {"code": [1]}}', b'"gone"'],
)  # fmt: skip
def test_http_status_takes_precedence_over_body(v3_async, body):
    """Judge a response by its status first, as a proxy may respond instead of the server."""
    v3_async.start()
    nexus = v3_async
    nexus.heard.take()
    nexus.http.answer("refresh", body, 429, **{"retry-after": "7"})
    nexus.advance(3)
    assert nexus.heard.take() == []
    assert round(nexus.chat.health().next_poll, 3) == 7
    for status in (404, 401, 403, 410, 302):
        nexus.http.answer("refresh", body, status)
        nexus.advance(7)
        assert nexus.heard.take() == ["error"], "a failed poll does not end the chat"
    nexus.chat.close()
    nexus.http.answer("resume", body, 401)
    nexus.chat.open()
    assert nexus.chat.state == "async-dormant", "the saved session is kept"


def test_poll_succeeds_with_any_success_code(nexus):
    nexus.start()
    for code in (0, "0", "SUCCESS", ""):
        nexus.http.answer("refresh", json.dumps({"status": {"code": code}, "data": {"messages": []}}).encode())
        assert nexus.chat.step()


# -- contents of an error ----------------------------------------------------------------------------------------------


def test_error_has_prefixed_code_and_response(nexus):
    nexus.client()
    bus = HeardOnBus(nexus.chat)
    nexus.chat.open()
    nexus.server.faults.add(operation="start", http_status=400, code="INVALID_ENDPOINT", message="no such endpoint")
    outcome = bus.command("startChat", {"form": {"nickname": "Jonny"}})
    (error,) = bus.last("error")["errors"]
    assert (error["code"], error["text"]) == ("pureengage-v3-rest-INVALID_ENDPOINT", "no such endpoint")
    assert error["response"]["status"] == 400
    assert outcome.reason == error["response"]


def test_lost_session_is_published_as_plain_response(nexus):
    nexus.start()
    bus = HeardOnBus(nexus.chat)
    nexus.server.core.purge()
    nexus.advance(3)
    (error,) = bus.last("error")["errors"]
    assert (error["status"], error["body"]["status"]["code"]) == (404, "INVALID_SESSION")


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"http_status": 200, "code": "INVALID_SESSION"}])
@pytest.mark.parametrize(
    ("operation", "command", "data"),
    [
        ("send", "sendMessage", {"message": "x"}), ("updateData", "updateUserData", {"a": "b"}),
        ("startTyping", "sendTyping", {}),
    ],
)  # fmt: skip
def test_session_lost_in_chat_ends_with_error(nexus, operation, command, data, fault):
    nexus.chatting("one")
    nexus.heard.take()
    nexus.server.faults.add(operation=operation, **fault)
    assert not nexus.chat.command(command, data)
    published = [name for name in nexus.heard.take() if not name.startswith("clientTyping")]
    assert published == ["error", "pollingStopped", "ended"]
    assert nexus.store.load() is None
    assert nexus.timeline.next_timer() is None


def test_session_loss_during_end_chat_ends_without_error(nexus):
    nexus.chatting("one")
    nexus.server.core.purge()
    nexus.heard.take()
    assert not nexus.chat.command("endChat")
    assert nexus.heard.take() == ["pollingStopped", "agentDisconnected", "clientDisconnected", "ended"]


def test_start_with_unknown_key_or_endpoint_is_rejected(make_env):
    env = make_env(Transport.V3, apikey="right", endpoints=("sales",))
    assert env.open().command("startChat", {"nickname": "x"}).reason["status"] == 403
    env.open(headers={"x-api-key": "right"})
    assert env.chat.command("startChat", {"nickname": "x"}).reason["status"] == 400
    env.open(headers={"x-api-key": "right"}, endpoint="sales")
    assert env.chat.command("startChat", {"nickname": ""}).reason["body"]["status"]["code"] == "INVALID_NICKNAME"
    assert env.chat.command("startChat", {"nickname": "x"})
    assert env.heard.names[:2] == ["ready", "error"]


# -- arbitrary responses -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ODD = st.fixed_dictionaries(
    {"type": JSON | st.just("Text")},
    optional={
        **dict.fromkeys(("from", "text", "url", "utcTime", "content", "userData", "restoring"), JSON),
        "index": JSON | st.from_regex(r"[0-9]{1,4}-[0-9]", fullmatch=True),
    },
)  # fmt: skip
ANSWERS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "status": JSON | st.fixed_dictionaries({}, optional={"code": JSON, "message": JSON}),
        "data": JSON
        | st.fixed_dictionaries(
            {}, optional={"messages": JSON | st.lists(ODD | JSON), "clientToken": JSON, "chatEnded": JSON}
        ),
    },
)


@settings(max_examples=examples(100), deadline=None)
@given(
    body=ANSWERS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
    status=st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 429, 500]),
    operation=st.sampled_from(
        ["start", "resume", "restore", "refresh", "history", "send", "disconnect", "updateData", "fetch"]
    ),
)
def test_every_response_is_classified(body, status, operation):
    call = asked(operation, SessionData(session_id="s", participant_id="p", token="t"))
    reply = NexusV3(Config.read(CONFIGS[Transport.V3])).reply(call, HttpAnswer(status=status, body=body), SESSIONS)
    assert isinstance(reply.kind, ResponseKind)
    assert reply.good <= (200 <= status < 300)
    assert (reply.response.status, "?" in reply.response.url) == (status, False)


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.tuples(ANSWERS, st.sampled_from([200, 200, 200, 429, 500])), min_size=1, max_size=5))
def test_polling_continues_after_any_response_until_chat_ends(answers):
    env = NexusEnvironment(Timeline(), Transport.V3_ASYNC)
    try:
        env.start()
        for body, status in answers:
            env.http.answer("refresh", json.dumps(body).encode(), status)
            env.advance(31)
        assert env.chat.state in ("polling", "offline", "ended")
        assert (env.timeline.next_timer() is None) is (env.chat.state == "ended")
        indexes = [index for index in env.heard.indexes() if index is not None]
        assert len(indexes) == len(set(indexes))
    finally:
        env.server.close()
