"""Check which request a reply settles on a websocket, and pushes that no connect waits for."""

from __future__ import annotations

import json

import pytest

from webchat_fsm._bayeux.matcher import FrameError, PendingRequest, ReplyMatcher, messages
from webchat_fsm._wire.cometd import over_websocket


def encoded(*given) -> bytes:
    return json.dumps(given).encode()


def connect(number: int, client: str = "a", hold: float | None = None) -> PendingRequest:
    advice = {} if hold is None else {"advice": {"timeout": hold * 1000}}
    return PendingRequest(encoded({"id": str(number), "channel": "/meta/connect", "clientId": client, **advice}))


def publish(number: int) -> PendingRequest:
    return PendingRequest(encoded({"id": str(number), "channel": "/chat", "clientId": "a", "data": {}}))


def push(text: str) -> dict:
    return {"channel": "/chat", "data": text}


def reply(request: PendingRequest, **more) -> dict:
    return {"id": request.id, "channel": request.channel, "successful": True, **more}


def delivered(request: PendingRequest) -> list[str]:
    """Return the texts pushed with an answer, whose last message is the reply."""
    assert request.answer is not None
    *pushes, own = json.loads(request.answer)
    assert own["channel"] == request.channel
    return [one.get("data", one["channel"]) for one in pushes]


@pytest.fixture
def matcher() -> ReplyMatcher:
    return ReplyMatcher(1000)


def test_reply_is_matched_by_id_and_push_by_connect(matcher):
    first, second, waiting = publish(1), publish(2), connect(3)
    assert [matcher.add(one) for one in (first, second, waiting)] == [True] * 3
    matcher.receive(encoded(push("new"), reply(second)))
    assert (first.answer, delivered(second), delivered(waiting)) == (None, [], ["new"])
    matcher.receive(encoded(reply(first)))
    assert delivered(first) == []


def test_connect_replaces_the_held_one(matcher):
    first, second, third = connect(1), connect(2), connect(3)
    assert matcher.add(first)
    matcher.receive(encoded(push("one")))
    assert not matcher.add(second)
    assert second.answer is None
    matcher.receive(encoded(push("two"), push("three")))
    assert delivered(second) == ["two", "three"]
    matcher.receive(encoded(reply(first, advice={"interval": 5})))
    assert not matcher.add(third)
    assert json.loads(third.answer) == [reply(first, advice={"interval": 5})]
    assert matcher.add(connect(4))


def test_pushes_are_kept_for_the_next_connect_only(matcher):
    matcher.receive(encoded(push("one")))
    matcher.receive(encoded(push("two")))
    first, second = connect(1), connect(2)
    assert matcher.add(first)
    assert delivered(first) == ["one", "two"]
    assert not matcher.add(second)
    assert second.answer is None


def test_pushes_around_a_reply_are_delivered_with_it(matcher):
    waiting = connect(1)
    matcher.add(waiting)
    matcher.receive(encoded(push("one"), reply(waiting, advice={"timeout": 7}), push("two")))
    assert delivered(waiting) == ["one", "two"]
    assert json.loads(waiting.answer)[-1]["advice"] == {"timeout": 7}
    assert matcher.add(connect(2))


@pytest.mark.parametrize("other", [connect(2, hold=0.0), connect(2, client="b")], ids=["at once", "another client"])
def test_connect_that_cannot_replace_held_one_is_sent(matcher, other):
    first = connect(1)
    matcher.add(first)
    matcher.receive(encoded(push("one")))
    assert matcher.add(other)
    matcher.receive(encoded(reply(first)))  # the server's reply to the one that is no longer held
    assert other.answer is None
    matcher.receive(encoded(push("two"), reply(other)))
    assert delivered(other) == ["two"]


def test_connect_with_timeout_0_waits_for_the_server(matcher):
    matcher.receive(encoded(push("one")))
    fresh = connect(1, hold=0.0)
    matcher.add(fresh)
    matcher.receive(encoded(push("two")))
    assert fresh.answer is None
    matcher.receive(encoded(reply(fresh)))
    assert delivered(fresh) == ["one", "two"]


def test_connect_answered_without_pushes_stays_held(matcher):
    first, second, third = connect(1), connect(2, hold=3.0), connect(3)
    matcher.add(first)
    matcher.receive(encoded(push("one")))
    assert not matcher.add(second)
    matcher.answer_without_pushes(second)
    assert delivered(second) == []
    assert not matcher.add(third)
    matcher.receive(encoded(reply(first)))
    assert delivered(third) == []


def test_discarded_connect_leaves_pushes_to_the_next(matcher):
    waiting = connect(1)
    matcher.add(waiting)
    matcher.discard(waiting)
    matcher.receive(encoded(push("one"), reply(waiting)))
    following = connect(2)
    assert matcher.add(following)
    assert delivered(following) == ["one"]


def test_handshake_drops_earlier_pushes(matcher):
    matcher.receive(encoded(push("of the last chat")))
    matcher.add(PendingRequest(encoded({"id": "1", "channel": "/meta/handshake"})))
    following = connect(2)
    matcher.add(following)
    assert following.answer is None


def test_disconnect_by_the_server_is_delivered_as_a_push(matcher):
    waiting = connect(1)
    matcher.add(waiting)
    matcher.receive(encoded({"channel": "/meta/disconnect", "successful": True}))
    assert delivered(waiting) == ["/meta/disconnect"]


def test_reply_without_id_is_matched_by_channel(matcher):
    first, second = publish(1), publish(2)
    matcher.add(first)
    matcher.add(second)
    matcher.receive(encoded({"channel": "/chat", "successful": True}))
    assert (delivered(first), second.answer) == ([], None)


def test_pushes_of_exactly_the_limit_are_kept(matcher):
    one = json.dumps(push(""), separators=(",", ":")).encode()
    matcher.receive(b"[%b]" % one.replace(b'""', b'"%b"' % (b"x" * (1000 - len(one)))))
    following = connect(1)
    matcher.add(following)
    assert len(delivered(following)[0]) == 1000 - len(one)


def test_pushes_beyond_the_limit_are_an_error(matcher):
    matcher.receive(encoded(push("x" * 900)))
    with pytest.raises(FrameError, match="more than 1000 bytes of pushes"):
        matcher.receive(encoded(push("x" * 100)))


def test_pushes_a_connect_waits_for_have_no_limit(matcher):
    waiting = connect(1)
    matcher.add(waiting)
    matcher.receive(encoded(push("x" * 2000)))
    assert delivered(waiting) == ["x" * 2000]


@pytest.mark.parametrize("frame", [b"", b"\xff\xfe{", b"[" * 100_000, b'"text"', b"[1]", b"[{]", b"null", b"{"])
def test_frame_that_is_no_array_of_messages_is_an_error(matcher, frame):
    with pytest.raises(FrameError, match="what the server sent is no array of messages"):
        matcher.receive(frame)


def test_single_message_is_received_and_odd_types_ignored(matcher):
    waiting = connect(1)
    matcher.add(waiting)
    matcher.receive(json.dumps(push("alone")).encode())
    assert delivered(waiting) == ["alone"]
    matcher.receive(encoded({"id": [1], "channel": {"a": 1}, "successful": "maybe", "advice": 7, "clientId": None}))
    assert [fields.id for fields, _ in messages(b"[]")] == []


def test_messages_over_a_websocket_name_its_connection_type():
    handshake = {"id": "1", "channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"]}
    connecting = {"id": "2", "channel": "/meta/connect", "connectionType": "long-polling", "clientId": "a"}
    publishing = {"id": "3", "channel": "/chat", "data": {"message": "ü"}}
    changed = json.loads(over_websocket(encoded(handshake, connecting, publishing)))
    assert changed == [
        {**handshake, "supportedConnectionTypes": ["websocket", "long-polling"]},
        {**connecting, "connectionType": "websocket"},
        publishing,
    ]


def test_connect_not_sent_yet_is_answered_by_a_push(matcher):
    waiting, following = connect(1), connect(2)
    waiting.sent = False
    assert matcher.add(waiting)
    matcher.receive(encoded(push("one")))
    assert (delivered(waiting), waiting.line) == (["one"], "unsent")
    assert matcher.add(following)  # the server holds none, so this one is to be sent
    matcher.receive(encoded(reply(following)))
    assert (delivered(following), following.line) == ([], "answered")
