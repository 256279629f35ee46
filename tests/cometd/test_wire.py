"""Check the CometD dialect alone: calls become Bayeux messages, and every response becomes a reply."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cometd.gateway import CHANNEL, KEYS, envelope, event, push
from tests.limits import examples
from tests.wire.asked import asked
from webchat_fsm import Config
from webchat_fsm._core.steps import Call, LinkCall, ResponseKind
from webchat_fsm._model import SessionData
from webchat_fsm._wire.cometd import YEAR, CometD
from webchat_fsm._wire.request import HttpAnswer

URL = "https://gms.example/genesys/cometd"
SESSION = SessionData(session_id="c-1", secure_key="k-1", alias="a-1", user_id="u-1")
LINKED = LinkCall(client_id="client-1", id="7")
COMMON = {"chatId": "c-1", "alias": "a-1", "secureKey": "k-1", "userId": "u-1"}


def dialect(**more) -> CometD:
    section = {"enabled": True, "cometURL": URL, "apiURL": "https://gms.example/genesys/2/chat-ntf"}
    return CometD(Config.read({"cometD": {**section, **more.pop("cometD", {})}, **more}))


def call(operation: str, **fields) -> Call:
    return asked(operation, SESSION, LINKED, **fields)


def sent(operation: str, wire: CometD | None = None, **fields):
    request = (wire or dialect()).request(call(operation, **fields))
    (message,) = json.loads(request.body)
    return request, message


def replied(operation: str, body, status: int = 200, **fields):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect().reply(call(operation, **fields), HttpAnswer(status=status, body=raw), URL)


def ack(channel: str = CHANNEL, **more):
    return {"id": "7", "channel": channel, "successful": True, **more}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("operation", "fields", "path", "timeout"),
    [
        ("handshake", {}, "/handshake", 3.0),
        ("connect", {"hold": 0.0, "usual": 30.0}, "/connect", 10.0),
        ("connect", {"hold": None, "usual": 30.0}, "/connect", 40.0),
        ("hangup", {}, "/disconnect", 2.0),
        ("disconnect", {}, "/", 3.0),
    ],
)
def test_message_is_sent_to_its_url_with_its_timeout(slash, operation, fields, path, timeout):
    request, message = sent(operation, dialect(cometD={"cometURL": URL + slash}), **fields)
    assert (request.method, request.url, request.timeout) == ("POST", URL + path, timeout)
    assert request.content_type == "application/json;charset=UTF-8"
    assert message["id"] == "7"
    assert not request.repeatable


def test_meta_message_names_client_without_chat_data():
    assert sent("connect", hold=0.0, usual=30.0)[1] == {
        "id": "7", "channel": "/meta/connect", "clientId": "client-1", "connectionType": "long-polling",
        "advice": {"timeout": 0},
    }  # fmt: skip
    assert "advice" not in sent("connect", hold=None, usual=30.0)[1]
    assert sent("hangup")[1] == {"id": "7", "channel": "/meta/disconnect", "clientId": "client-1"}


@pytest.mark.parametrize(
    ("operation", "fields", "data"),
    [
        ("send", {"message": "hi"}, {"operation": "sendMessage", "message": "hi", "messageType": "text"}),
        (
            "send",
            {"message": "hi", "message_type": "html", "parent_message_id": 17},
            {
                "operation": "sendMessage", "message": "hi", "messageType": "html",
                "eventAttributes": {"general-properties": {"related-event-id": "17"}},
            },
        ),
        (
            "startTyping",
            {"preview": "h", "position": 3},
            {"operation": "startTyping", "transcriptPosition": 3, "message": "h"},
        ),
        ("stopTyping", {"position": 3}, {"operation": "stopTyping", "transcriptPosition": 3, "message": ""}),
        ("updateData", {"user_data": {"a": {"b": 1}}}, {"operation": "updateData", "userData": {"a": {"b": 1}}}),
        ("customNotice", {"message": ""}, {"operation": "customNotice", "message": ""}),
        (
            "customNotice",
            {"message": "{}", "event_attributes": '{"purpose": "x"}'},
            {"operation": "customNotice", "message": "{}", "eventAttributes": {"purpose": "x"}},
        ),
        (
            "notifications",
            {"position": 5},
            {"operation": "requestNotifications", "transcriptPosition": 5, "message": ""},
        ),
        ("disconnect", {}, {"operation": "disconnect"}),
    ],
)  # fmt: skip
def test_publish_has_the_data_of_its_operation(operation, fields, data):
    _, message = sent(operation, **fields)
    assert message == {"id": "7", "channel": CHANNEL, "clientId": "client-1", "data": {**COMMON, **data}}


def test_start_has_every_form_field_and_endpoint():
    given_form = {"nickname": "Jonny", "firstname": "Johnathan", "email": "jon@mail.com"}
    _, message = sent("start", dialect(endpoint="Support"), form=given_form, user_data={"page": "/help", "n": 1})
    assert message["data"] == {
        **COMMON, "operation": "requestChat", "nickname": "Jonny", "firstName": "Johnathan", "lastName": "",
        "subject": "", "emailAddress": "jon@mail.com", "text": "", "endpoint": "Support",
        "userData": {"page": "/help", "n": 1},
    }  # fmt: skip
    assert "endpoint" not in sent("start", form={}, user_data={})[1]["data"]


def test_user_data_of_any_type_is_sent_as_text():
    _, message = sent("updateData", user_data={"when": complex(1, 2)})
    assert message["data"]["userData"] == {"when": "(1+2j)"}


def test_configured_channel_is_used_for_sends_and_pushes():
    wire = dialect(cometD={"channel": "/service/chatV2/sales"})
    assert sent("disconnect", wire)[1]["channel"] == "/service/chatV2/sales"
    body = json.dumps([ack("/service/chatV2/sales"), {"channel": "/service/chatV2/sales", "data": envelope()}]).encode()
    assert len(wire.reply(call("disconnect"), HttpAnswer(status=200, body=body), URL).pushes) == 1


# Answers


def test_handshake_reply_has_client_and_advice_in_seconds():
    advice = {"reconnect": "retry", "interval": 250, "timeout": 30000}
    reply = replied("handshake", [ack("/meta/handshake", clientId="x", advice=advice)])
    assert (reply.kind, reply.link.client_id, reply.link.interval, reply.link.timeout) == (
        ResponseKind.GOOD,
        "x",
        0.25,
        30.0,
    )


def test_handshake_reply_without_client_is_refused():
    assert replied("handshake", [ack("/meta/handshake")]).kind is ResponseKind.REFUSED


@pytest.mark.parametrize(
    ("given_advice", "interval", "timeout"),
    [
        (None, None, None),
        ("soon", None, None),
        ([], None, None),
        ({}, None, None),
        ({"interval": "250", "timeout": None}, 0.25, None),
        ({"interval": True, "timeout": False}, None, None),
        ({"interval": -5, "timeout": 0.5}, None, 0.0005),
        ({"interval": "1e3", "timeout": "9" * 400}, None, 3600.0),
        ({"interval": 10**400, "timeout": 1e300}, YEAR, 3600.0),
    ],
)
def test_odd_advice_numbers_are_ignored_or_bounded(given_advice, interval, timeout):
    link = replied("connect", [ack("/meta/connect", advice=given_advice)]).link
    assert (link.interval, link.timeout, link.disconnected) == (interval, timeout, False)


@pytest.mark.parametrize(
    ("operation", "reply", "kind"),
    [
        ("send", {"error": "402::Unknown client"}, ResponseKind.UNKNOWN_CLIENT),
        ("send", {"error": "402::session_unknown"}, ResponseKind.UNKNOWN_CLIENT),
        ("connect", {"error": "402"}, ResponseKind.UNKNOWN_CLIENT),
        ("connect", {"advice": {"reconnect": "handshake"}}, ResponseKind.UNKNOWN_CLIENT),
        ("connect", {"error": "500::Busy"}, ResponseKind.REFUSED),
        ("send", {"error": "4020::Other"}, ResponseKind.REFUSED),
        ("send", {"error": 402}, ResponseKind.UNKNOWN_CLIENT),
        ("send", {"error": None, "advice": {"reconnect": "handshake"}}, ResponseKind.REFUSED),
        ("handshake", {"error": "402::Unknown client"}, ResponseKind.REFUSED),
        ("send", {"error": "9" * 5000 + "::what a number"}, ResponseKind.REFUSED),
    ],
)
def test_refusal_kind_depends_on_error_number(operation, reply, kind):
    channel = {"send": CHANNEL, "connect": "/meta/connect", "handshake": "/meta/handshake"}[operation]
    read = replied(operation, [{"id": "7", "channel": channel, "successful": False, **reply}])
    assert read.kind is kind
    assert read.error is not None
    assert str(read.error).startswith(f"{operation}: ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"[[]]",
        b'[{"id":"7"}]',
        b'[{"id":"8","successful":true}]',
        b"[" * 100_000,
    ],
)
def test_response_without_a_reply_is_unreadable(body):
    reply = replied("send", body)
    assert reply.kind is ResponseKind.BAD
    assert str(reply.error).startswith("send: the server's answer cannot be read: ")


@pytest.mark.parametrize("status", [201, 204, 302, 400, 403, 404, 500, 503])
def test_http_status_other_than_200_is_bad(status):
    reply = replied("send", [ack()], status)
    assert (reply.kind, reply.response.status, reply.pushes) == (ResponseKind.BAD, status, ())


@pytest.mark.parametrize("before", [True, False])
def test_push_before_or_after_the_reply_is_read(before):
    pushed = push(envelope(event(1, text="hi")))
    reply = replied("send", [pushed, ack()] if before else [ack(), pushed])
    assert [one.received[0].message.text for one in reply.pushes] == ["hi"]
    assert reply.pushes[0].session_data == SESSION


def test_keys_missing_from_push_keep_their_values():
    reply = replied("send", [ack(), push({"statusCode": 0, "alias": "a-2", "messages": []})])
    assert reply.pushes[0].session_data == msgspec.structs.replace(SESSION, alias="a-2")


def test_single_object_instead_of_array_is_read():
    assert replied("send", ack()).good


def test_server_disconnect_alone_or_beside_a_reply_is_read():
    assert replied("connect", [{"channel": "/meta/disconnect"}]).link.disconnected
    both = replied("connect", [push(envelope()), {"channel": "/meta/disconnect"}, ack("/meta/connect")])
    assert (both.link.disconnected, len(both.pushes)) == (True, 1)


NAMES = """id channel successful error advice data clientId statusCode messages index from type interval timeout"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=6),
    max_leaves=20,
)
NEARLY_ENVELOPES = st.fixed_dictionaries(
    {"statusCode": st.sampled_from([0, 1, 2, 3]) | JSON}, optional=dict.fromkeys(["messages", *KEYS], JSON)
)
CHANNELS = st.sampled_from([CHANNEL, "/meta/connect", "/meta/handshake", "/meta/disconnect"])
NEARLY_RIGHT = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from(["7", 7, None, "8"]) | JSON,
            "channel": CHANNELS | JSON,
            "successful": st.booleans() | JSON,
            "error": st.sampled_from(["402::x", "500::y"]) | JSON,
            "advice": JSON,
            "clientId": JSON,
            "data": NEARLY_ENVELOPES | JSON,
        },
    ),
    max_size=4,
)
OPERATIONS = st.sampled_from(
    ["handshake", "connect", "hangup", "send", "start", "notifications", "disconnect", "limits", "file"]
)


@settings(max_examples=examples(60), deadline=None)
@given(
    operation=OPERATIONS,
    body=(JSON | NEARLY_RIGHT).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
)
def test_any_response_gives_a_reply(operation, body):
    reply = replied(operation, body)
    assert isinstance(reply.kind, ResponseKind)
    assert all(isinstance(one.kind, ResponseKind) for one in reply.pushes)
    if reply.good and operation == "handshake":
        assert reply.link.client_id
