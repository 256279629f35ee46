"""Which message answers which on a websocket, and what becomes of news that nobody asked for."""

from __future__ import annotations

import json

import pytest

from webchat_fsm.wire.cometd import over_websocket
from webchat_fsm.wire.correspondence import Correspondence, FrameError, Question, messages


def encoded(*given) -> bytes:
    return json.dumps(given).encode()


def connect(number: int, client: str = "a", hold: float | None = None) -> Question:
    advice = {} if hold is None else {"advice": {"timeout": hold * 1000}}
    return Question(encoded({"id": str(number), "channel": "/meta/connect", "clientId": client, **advice}))


def publish(number: int) -> Question:
    return Question(encoded({"id": str(number), "channel": "/chat", "clientId": "a", "data": {}}))


def push(text: str) -> dict:
    return {"channel": "/chat", "data": text}


def reply(question: Question, **more) -> dict:
    return {"id": question.id, "channel": question.channel, "successful": True, **more}


def told(question: Question) -> list[str]:
    """The texts pushed with an answer, whose last message is the reply."""
    assert question.answer is not None
    *news, own = json.loads(question.answer)
    assert own["channel"] == question.channel
    return [one.get("data", one["channel"]) for one in news]


@pytest.fixture
def letters() -> Correspondence:
    return Correspondence(1000)


def test_a_reply_goes_to_the_message_with_its_id_and_news_to_the_connect(letters):
    first, second, waiting = publish(1), publish(2), connect(3)
    assert [letters.ask(one) for one in (first, second, waiting)] == [True] * 3
    letters.take(encoded(push("news"), reply(second)))
    assert (first.answer, told(second), told(waiting)) == (None, [], ["news"])
    letters.take(encoded(reply(first)))
    assert told(first) == []


def test_a_connect_that_news_have_answered_is_taken_over_by_the_next(letters):
    first, second, third = connect(1), connect(2), connect(3)
    assert letters.ask(first)
    letters.take(encoded(push("one")))
    assert not letters.ask(second)
    assert second.answer is None
    letters.take(encoded(push("two"), push("three")))
    assert told(second) == ["two", "three"]
    letters.take(encoded(reply(first, advice={"interval": 5})))
    assert not letters.ask(third)
    assert json.loads(third.answer) == [reply(first, advice={"interval": 5})]
    assert letters.ask(connect(4))


def test_news_wait_for_the_next_connect_and_are_told_once(letters):
    letters.take(encoded(push("one")))
    letters.take(encoded(push("two")))
    first, second = connect(1), connect(2)
    assert letters.ask(first)
    assert told(first) == ["one", "two"]
    assert not letters.ask(second)
    assert second.answer is None


def test_news_in_one_frame_with_the_reply_are_told_with_that(letters):
    waiting = connect(1)
    letters.ask(waiting)
    letters.take(encoded(push("one"), reply(waiting, advice={"timeout": 7}), push("two")))
    assert told(waiting) == ["one", "two"]
    assert json.loads(waiting.answer)[-1]["advice"] == {"timeout": 7}
    assert letters.ask(connect(2))


@pytest.mark.parametrize("other", [connect(2, hold=0.0), connect(2, client="b")], ids=["at once", "another client"])
def test_a_connect_to_be_answered_at_once_and_one_of_another_client_are_sent_anew(letters, other):
    first = connect(1)
    letters.ask(first)
    letters.take(encoded(push("one")))
    assert letters.ask(other)
    letters.take(encoded(reply(first)))  # what the server says to the one that is no longer held
    assert other.answer is None
    letters.take(encoded(push("two"), reply(other)))
    assert told(other) == ["two"]


def test_a_connect_to_be_answered_at_once_waits_for_the_server_and_takes_the_news_along(letters):
    letters.take(encoded(push("one")))
    fresh = connect(1, hold=0.0)
    letters.ask(fresh)
    letters.take(encoded(push("two")))
    assert fresh.answer is None
    letters.take(encoded(reply(fresh)))
    assert told(fresh) == ["one", "two"]


def test_a_connect_whose_time_is_over_is_answered_without_news_and_stays_held(letters):
    first, second, third = connect(1), connect(2, hold=3.0), connect(3)
    letters.ask(first)
    letters.take(encoded(push("one")))
    assert not letters.ask(second)
    letters.rest(second)
    assert told(second) == []
    assert not letters.ask(third)
    letters.take(encoded(reply(first)))
    assert told(third) == []


def test_a_message_that_is_given_up_is_answered_to_nobody(letters):
    waiting = connect(1)
    letters.ask(waiting)
    letters.forget(waiting)
    letters.take(encoded(push("one"), reply(waiting)))
    following = connect(2)
    assert letters.ask(following)
    assert told(following) == ["one"]


def test_a_handshake_begins_without_news_of_before(letters):
    letters.take(encoded(push("of the last chat")))
    letters.ask(Question(encoded({"id": "1", "channel": "/meta/handshake"})))
    following = connect(2)
    letters.ask(following)
    assert following.answer is None


def test_a_hang_up_of_the_server_is_news(letters):
    waiting = connect(1)
    letters.ask(waiting)
    letters.take(encoded({"channel": "/meta/disconnect", "successful": True}))
    assert told(waiting) == ["/meta/disconnect"]


def test_a_reply_without_an_id_goes_by_its_channel(letters):
    first, second = publish(1), publish(2)
    letters.ask(first)
    letters.ask(second)
    letters.take(encoded({"channel": "/chat", "successful": True}))
    assert (told(first), second.answer) == ([], None)


def test_more_news_than_can_be_kept_are_too_much(letters):
    letters.take(encoded(push("x" * 900)))
    with pytest.raises(FrameError, match="more than 1000 bytes of news"):
        letters.take(encoded(push("x" * 100)))


def test_much_news_at_once_for_a_connect_that_waits_is_not_too_much(letters):
    waiting = connect(1)
    letters.ask(waiting)
    letters.take(encoded(push("x" * 2000)))
    assert told(waiting) == ["x" * 2000]


@pytest.mark.parametrize("frame", [b"", b"\xff\xfe{", b"[" * 100_000, b'"text"', b"[1]", b"[{]", b"null", b"{"])
def test_what_is_no_array_of_messages_is_said_so(letters, frame):
    with pytest.raises(FrameError, match="what the server sent is no array of messages"):
        letters.take(frame)


def test_one_message_without_an_array_is_taken_and_odd_types_harm_nobody(letters):
    waiting = connect(1)
    letters.ask(waiting)
    letters.take(json.dumps(push("alone")).encode())
    assert told(waiting) == ["alone"]
    letters.take(encoded({"id": [1], "channel": {"a": 1}, "successful": "maybe", "advice": 7, "clientId": None}))
    assert [head.id for head, _ in messages(b"[]")] == []


def test_over_a_websocket_the_messages_say_so():
    handshake = {"id": "1", "channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"]}
    connecting = {"id": "2", "channel": "/meta/connect", "connectionType": "long-polling", "clientId": "a"}
    publishing = {"id": "3", "channel": "/chat", "data": {"message": "ü"}}
    changed = json.loads(over_websocket(encoded(handshake, connecting, publishing)))
    assert changed == [
        {**handshake, "supportedConnectionTypes": ["websocket", "long-polling"]},
        {**connecting, "connectionType": "websocket"},
        publishing,
    ]


def test_a_connect_not_sent_yet_is_answered_by_a_push(letters):
    waiting, following = connect(1), connect(2)
    waiting.sent = False
    assert letters.ask(waiting)
    letters.take(encoded(push("one")))
    assert (told(waiting), waiting.early) == (["one"], True)
    assert letters.ask(following)  # the server holds none, so this one is to be sent
    letters.take(encoded(reply(following)))
    assert (told(following), following.early) == ([], False)
