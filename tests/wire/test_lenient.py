"""Check that responses are read member by member: a malformed member affects no other, on every transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.limits import examples
from tests.wire.asked import asked
from tests.wire.test_gms_v2 import BASE, IDS, call, reply, start
from webchat_fsm._config import Config
from webchat_fsm._core.steps import LinkCall, Reply, ResponseKind
from webchat_fsm._model import SessionData
from webchat_fsm._wire import lenient
from webchat_fsm._wire.cometd import CometD
from webchat_fsm._wire.gms_v2 import Envelope, GmsV2, WireEvent, WireLimits, WireParty
from webchat_fsm._wire.nexus_v3 import NexusV3, WireData, WireEnvelope, WireMessage, WireStatus
from webchat_fsm._wire.request import HttpAnswer

T0 = 1_790_000_000_000
ANN = {"nickname": "Ann", "participantId": 2, "type": "Agent"}


def event(index: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "from": ANN,
        "index": index,
        "type": "Message",
        "utcTime": T0 + index,
        "text": "x",
        "userData": {"k": "v"},
    } | more


def only(**more: Any):
    """Return the one message of a response whose event has these members."""
    read = reply(call("refresh"), {"statusCode": 0, "messages": [event() | more]})
    assert read.kind is ResponseKind.GOOD
    return read.received[0].message, read


# -- one malformed member ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value", "name", "read"),
    [
        ("text", 42, "text", "42"), ("text", 2.0, "text", "2"), ("text", 2.5, "text", "2.5"),
        ("text", 1e21, "text", "1e+21"),
        ("text", True, "text", "true"), ("text", False, "text", "false"), ("text", None, "text", ""),
        ("text", {"type": "quick-replies"}, "text", ""), ("text", [], "text", ""), ("text", "null", "text", "null"),
        ("type", None, "type", ""), ("type", 7, "type", "7"), ("type", [], "type", ""),
        ("index", "3", "index", 3), ("index", 3.0, "index", 3), ("index", "", "index", None),
        ("index", -1, "index", None),
        ("index", 2.5, "index", None), ("index", True, "index", None), ("index", 2**53, "index", 2**53),
        ("index", 2**53 + 1, "index", None), ("index", 10**400, "index", None), ("index", None, "index", None),
        ("utcTime", 1548735832000.5, "timestamp", 1548735832000),
        ("utcTime", "1548735832000", "timestamp", 1548735832000),
        ("utcTime", "2019-01-29T04:23:52Z", "timestamp", 1548735832000),
        ("utcTime", 1.790000003e12, "timestamp", 1790000003000),
        ("utcTime", "yesterday", "timestamp", 0), ("utcTime", "", "timestamp", 0), ("utcTime", {}, "timestamp", 0),
        ("userData", [], "user_data", {}), ("userData", '{"a": "b"}', "user_data", {"a": "b"}),
        ("userData", "a", "user_data", {}),
        ("userData", "{", "user_data", {}), ("userData", "[1]", "user_data", {}), ("userData", 5, "user_data", {}),
    ],
)  # fmt: skip
def test_malformed_event_member_is_converted_or_empty(member, value, name, read):
    message, whole = only(**{member: value})
    assert getattr(message, name) == read
    assert type(getattr(message, name)) is type(read)
    others = {"text", "type", "index", "timestamp", "user_data", "sender"} - {name}
    good, _ = only()
    assert {other: getattr(message, other) for other in others} == {other: getattr(good, other) for other in others}
    assert whole.received[0].original == event() | {member: value}, "the raw original stays"


@pytest.mark.parametrize(
    ("value", "sender"),
    [
        ("system", (0, "", "")), (None, (0, "", "")), ([], (0, "", "")), ("null", (0, "", "")),
        ({**ANN, "nickname": 7}, (2, "Agent", "7")), ({**ANN, "participantId": 2.5}, ("2.5", "Agent", "Ann")),
        ({**ANN, "participantId": 2.0}, (2, "Agent", "Ann")), ({**ANN, "participantId": "2"}, ("2", "Agent", "Ann")),
        ({**ANN, "type": {}}, (2, "", "Ann")), ({**ANN, "participantId": []}, (0, "Agent", "Ann")),
    ],
)  # fmt: skip
def test_malformed_sender_member_is_converted_or_empty(value, sender):
    message, _ = only(**{"from": value})
    assert (message.sender.id, message.sender.type, message.sender.name) == sender


@pytest.mark.parametrize("odd", [None, "Notice", 5, [], True, 1.5])
def test_event_that_is_no_object_is_read_as_empty(odd):
    read = reply(call("refresh"), {"statusCode": 0, "messages": [event(2), odd, event(4)]})
    assert [arrival.rank for arrival in read.received] == [(2,), None, (4,)]
    empty = read.received[1]
    assert (empty.message.type, empty.message.text, empty.message.sender.name, empty.original) == ("", "", "", odd)
    assert read.misread == (f"messages[]: expected object, got {lenient.kind_of(odd)}",)


def test_misread_members_are_reported_once_without_values():
    odd = [
        event(text={"secret": 1}),
        event(4, text={}),
        event(5, text=[]),
        event(6, **{"from": {"type": []}}),
        event(7, text=7),
    ]
    read = reply(call("refresh"), {"statusCode": 0, "messages": odd, "alias": {}, "idleTimerExpire": ""})
    assert read.misread == (
        "alias: expected str, got object",
        "idleTimerExpire: expected number, got str",
        "messages[].from.type: expected str, got array",
        "messages[].text: expected str, got array",
        "messages[].text: expected str, got object",
    )


# -- the envelope ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value", "name", "read"),
    [
        ("idleTimerExpire", "", "idle_time_count_down", None), ("idleTimerExpire", 254.6, "idle_time_count_down", 254),
        ("idleTimerExpire", "254", "idle_time_count_down", 254), ("nextPosition", "9", "next_position", 9),
        ("nextPosition", 9.0, "next_position", 9), ("nextPosition", -1, "next_position", None),
        ("nextPosition", {}, "next_position", None), ("nextPosition", None, "next_position", None),
        *(("chatEnded", value, "chat_ended", True) for value in (True, 1, 1.0, "true", "1")),
        *(("chatEnded", value, "chat_ended", False) for value in (False, 0, "false", "0", "", "yes", "TRUE",
        2, {}, [1], None)),
        *(("userData", value, "kind", ResponseKind.GOOD) for value in ([], "x", 5, None)),
        *(("statusCode", value, "kind", ResponseKind.GOOD)
          for value in (0, 0.0, "0", None, "", "x", {}, [], True, 1.5)),
        *(("statusCode", value, "kind", ResponseKind.UNAVAILABLE) for value in (1, "1", 1.0)),
        *(("statusCode", value, "kind", ResponseKind.REFUSED) for value in (2, "2", 3, -1, "7")),
        *(("messages", value, "received", ()) for value in (None, {}, "null", 5, True)),
    ],
)  # fmt: skip
def test_malformed_envelope_member_is_converted_or_empty(member, value, name, read):
    whole = {"statusCode": 0, "messages": [event()], "nextPosition": 4}
    found = reply(call("refresh"), {**whole, member: value})
    assert getattr(found, name) == read
    if member != "messages":
        assert [arrival.message.text for arrival in found.received] == ["x"]


def test_numeric_id_is_read_as_text():
    body = {"statusCode": 0, "chatId": 5, "secureKey": "k", "alias": 117, "userId": 75.0, "messages": []}
    assert reply(start(), body).session_data == SessionData(session_id="5", secure_key="k", alias="117", user_id="75")


@pytest.mark.parametrize("lost", ["chatId", "secureKey"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_start_response_without_a_required_member_is_bad(lost, value):
    body = {"statusCode": 0, "chatId": "c", "secureKey": "k", "messages": [], lost: value}
    assert reply(start(), body).kind is ResponseKind.BAD


@pytest.mark.parametrize(
    "body",
    [
        {"statusCode": 404, "message": "Resource not found"}, {"statusCode": 3}, {"statusCode": "x"},
        {"statusCode": None}, {},
        {"statusCode": True}, {"message": "x"}, {"messages": {}}, [], [{"statusCode": 0}], "text", 5, None,
        True, {"error": {}},
    ],
)  # fmt: skip
def test_body_that_is_no_envelope_is_bad_with_its_path(body):
    read = reply(call("refresh"), body)
    assert read.kind is ResponseKind.BAD
    assert str(read.error).startswith("refresh: the server's answer cannot be read: expected an envelope, got ")
    assert str(read.error).endswith(" - at `$`")


def test_malformed_limit_affects_no_other_limit():
    said = {
        "upload-max-files": 5.0,
        "upload-max-file-size": "x",
        "upload-max-total-size": -1,
        "upload-file-types": ["a"],
    }
    read = reply(call("limits"), {"statusCode": 0, "messages": [None, {"userData": said}]})
    limits = read.limits
    assert (limits.max_files, limits.max_file_size, limits.max_total_size, limits.file_types) == (5, None, None, ())
    assert "upload-max-file-size: expected position, got str" in read.misread
    in_text = reply(call("limits"), {"statusCode": "0", "messages": [{"userData": '{"upload-max-files": "3"}'}]})
    assert in_text.limits.max_files == 3


def test_every_declared_member_is_optional():
    for kind in (Envelope, WireEvent, WireParty, WireLimits, WireEnvelope, WireData, WireMessage, WireStatus):
        assert lenient._declared(kind)
        assert lenient.read(kind, {}) == (kind(), ())


# -- any value in any member -------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)  # with lone surrogates
    | st.sampled_from(["", "null", "7", "1e3", "{}", "[]", "true", '{"a": 1}', 10**400, -1, 2**53, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
V2 = GmsV2(Config.read({"dataURL": BASE}))
URL = "https://gms.example/genesys/"
COMETD = CometD(Config.read({"cometD": {"enabled": True, "cometURL": URL + "cometd", "apiURL": URL + "2/chat-ntf"}}))
V3 = NexusV3(
    Config.read(
        {
            "transport": {
                "type": "pureengage-v3-rest",
                "dataURL": URL + "sessions",
                "endpoint": "e",
                "async": {"enabled": True},
            }
        }
    )
)
KEYS = {"chatId": "c", "userId": "u", "secureKey": "s", "alias": "1"}
REMOVED = object()


def v2_answer() -> dict[str, Any]:
    events = [event(index, text=f"text {index}", eventAttributes={"a": 1}) for index in range(1, 5)]
    return {"statusCode": 0, **KEYS, "chatEnded": False, "nextPosition": 5, "idleTimerExpire": 9, "messages": events}


def v3_answer() -> dict[str, Any]:
    sender = {"type": "Agent", "participantId": "p2", "nickname": "Ann"}
    more = {
        "type": "Text",
        "from": sender,
        "utcTime": "2026-03-29T01:00:00.000Z",
        "userData": {},
        "content": [],
        "url": "u",
    }
    events = [{"index": f"{T0 + index}-0", "text": f"text {index}", **more} for index in range(1, 5)]
    return {
        "status": {"code": "SUCCESS", "message": ""},
        "operationId": "o",
        "data": {"messages": events, "chatEnded": False},
    }


def by_rest(dialect: Any, operation: str) -> Callable[[Any], Reply]:
    call = asked(operation, SessionData(session_id="s", participant_id="p", token="t"))
    return lambda body: dialect.reply(call, HttpAnswer(status=200, body=json.dumps(body).encode()), URL)


def by_push(envelope: Any) -> Reply:
    own = {"id": "7", "channel": "/meta/connect", "successful": True}
    pushed = {"channel": "/service/chatV2/customer-support", "data": envelope}
    call = asked("connect", IDS, LinkCall(id="7"))
    (push,) = COMETD.reply(call, HttpAnswer(status=200, body=json.dumps([pushed, own]).encode()), URL).pushes
    return push


READERS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Any], Reply]]] = {
    "v2 refresh": (v2_answer, by_rest(V2, "refresh")),
    "v2 restore": (v2_answer, by_rest(V2, "restore")),
    "CometD push": (v2_answer, by_push),
    "v3 refresh": (v3_answer, by_rest(V3, "refresh")),
    "v3 restore": (v3_answer, by_rest(V3, "restore")),
    "v3 history": (v3_answer, by_rest(V3, "history")),
}
V2_MEMBERS = [
    "type",
    "from",
    "utcTime",
    "text",
    "userData",
    "eventAttributes",
    "other",
    "from.nickname",
    "from.participantId",
    "from.type",
]
V3_MEMBERS = [
    "type",
    "from",
    "utcTime",
    "text",
    "url",
    "userData",
    "content",
    "other",
    "from.nickname",
    "from.participantId",
    "from.type",
]
CARRIED = {
    "from": "sender", "from.nickname": "sender", "from.participantId": "sender", "from.type": "sender",
    "utcTime": "timestamp", "userData": "user_data",
}  # fmt: skip
"""The field of a message for each member of an event with another name."""


def spoil(holder: dict[str, Any], path: str, value: Any) -> None:
    """Replace a member, or remove it."""
    *outer, last = path.split(".")
    for name in outer:
        holder[name] = dict(holder[name])
        holder = holder[name]
    if value is REMOVED:
        holder.pop(last, None)
    else:
        holder[last] = value


def members(message: Any, path: str) -> dict[str, Any]:
    """Return the fields of a message without those that are read from the member `path` of the wire."""
    names = ("index", "type", "text", "sender", "timestamp", "user_data")
    spoilt = {path, CARRIED.get(path)} | ({"text"} if path in ("type", "eventAttributes", "url") else set())
    extra = {name: value for name, value in message.extra.items() if name != path}
    return {"extra": extra} | {name: getattr(message, name) for name in names if name not in spoilt}


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_odd_member_of_an_event_affects_no_other_member(reader, data):
    make, read = READERS[reader]
    good = read(make()).received
    place = data.draw(st.integers(0, 3))
    path = data.draw(st.sampled_from(V3_MEMBERS if "v3" in reader else V2_MEMBERS))
    value = data.draw(JSON | st.just(REMOVED))
    body = make()
    events = body["data"]["messages"] if "v3" in reader else body["messages"]
    spoil(events[place], path, value)
    found = read(body)
    assert found.kind is ResponseKind.GOOD
    assert [arrival.rank for arrival in found.received] == [arrival.rank for arrival in good]
    for number, (arrival, known) in enumerate(zip(found.received, good, strict=True)):
        if number != place:
            assert arrival == known
        else:
            assert members(arrival.message, path) == members(known.message, path)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=examples(40), deadline=None)
@given(value=JSON, place=st.integers(0, 3))
def test_any_value_in_place_of_an_event_loses_no_other(reader, value, place):
    make, read = READERS[reader]
    good, body = read(make()).received, make()
    (body["data"] if "v3" in reader else body)["messages"][place] = value
    found = read(body)
    assert found.kind is ResponseKind.GOOD
    assert len(found.received) == 4
    assert [one for number, one in enumerate(found.received) if number != place] == [
        one for number, one in enumerate(good) if number != place
    ]


FREE = {
    "v2": [
        "chatId",
        "userId",
        "secureKey",
        "alias",
        "nextPosition",
        "idleTimerExpire",
        "userData",
        "other",
        "errors",
        "monitored",
    ],
    "v3": ["operationId", "other", "status.message", "data.other", "data.clientToken", "data.nextIndex"],
}
"""Members of an envelope that no event depends on."""


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_odd_member_of_an_envelope_loses_no_event(reader, data):
    make, read = READERS[reader]
    body = make()
    path = data.draw(st.sampled_from(FREE["v3" if "v3" in reader else "v2"]))
    spoil(body, path, data.draw(JSON | st.just(REMOVED)))
    if path == "errors":
        body["errors"] = data.draw(JSON)
        if "204" in json.dumps(body["errors"]):
            return  # code 204 means that the preview is too long
    found = read(body)
    assert found.kind is ResponseKind.GOOD
    assert found.received == read(make()).received


@settings(max_examples=examples(100), deadline=None)
@given(value=JSON, kind=st.sampled_from([Envelope, WireEvent, WireParty, WireLimits, WireEnvelope, WireMessage]))
def test_any_value_is_read_without_an_error(value, kind):
    found, misread = lenient.read(kind, value)
    assert isinstance(found, kind)
    assert all(": expected " in kind for kind in misread)


@settings(max_examples=examples(100), deadline=None)
@given(value=JSON, data=st.data())
def test_member_is_read_independently_of_other_members(value, data):
    """Read a member to the same value alone and beside another one, even a malformed one."""
    kind = data.draw(st.sampled_from([Envelope, WireEvent, WireParty, WireMessage, WireStatus]))
    member = data.draw(st.sampled_from(lenient._declared(kind)))
    other = data.draw(st.sampled_from([one for one in lenient._declared(kind) if one.read not in (lenient._anything,)]))
    alone, _ = lenient.read(kind, {member.on_wire: value})
    if other != member:
        beside, _ = lenient.read(kind, {member.on_wire: value, other.on_wire: (..., 1)})
        assert getattr(alone, member.name) == getattr(beside, member.name)
