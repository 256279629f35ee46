"""Rows that a pushed chat alone takes: what they save, which flags they set, and what they publish of an outage."""

from __future__ import annotations

import pytest

from tests.cometd.conftest import Line
from tests.cometd.gateway import KEYS, NO_RESPONSE, envelope, event, push
from webchat_fsm.lifecycle._table import Flag

LIMIT = 5


def until(line: Line, done, seconds: float = 60.0) -> None:
    """Advance the time in small steps to the first at which something is true."""
    for _ in range(int(seconds * 10)):
        if done():
            return
        line.advance(0.1)
    raise AssertionError("it has not become true")


def into_outage(line: Line, failures: int = LIMIT + 1) -> None:
    line.gateway.script("connect", *[NO_RESPONSE] * failures)
    until(line, lambda: line.chat.health().failures == failures)


def test_start_is_saved_before_the_first_connect(line):
    joined = envelope(event(1, "ParticipantJoined", sender="Client", party=1))
    line.gateway.script("requestChat", line.gateway.accept(joined))
    line.open().start_chat(nickname="Jonny")
    assert "connect" not in line.gateway.names()
    assert line.store.load().session_data.session_id == KEYS["chatId"]


def test_restore_is_saved_before_the_first_connect(line):
    line.start()
    chat = line.again()
    line.gateway.times.clear()
    line.gateway.sent.clear()
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(event(1, text="one"), secureKey="k-2")))
    chat.open()
    assert "connect" not in line.gateway.names()
    assert line.store.load().session_data.secure_key == "k-2"


def test_restored_chat_has_the_transcript_of_the_restore_alone(line):
    chat = line.start()
    line.gateway.say("former")
    line.advance(1)
    assert [message.text for message in chat.get_transcript().messages][-1] == "former"
    chat.close()
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(event(1, text="only"))))
    chat.open()
    assert [message.text for message in chat.get_transcript().messages] == ["only"]


def test_position_behind_a_push_is_saved_with_it(line):
    line.start()
    line.gateway.say("hello")
    until(line, lambda: line.heard.texts() == ["hello"])
    assert line.store.load().cursor == 3


def test_outage_after_an_offline_restore_is_published(line):
    """Publish `chatServerWentOffline` again: the outage that `restoredOffline` has announced is over by then."""
    line.start()
    line.again()
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(statusCode=1)))
    line.chat.open()
    assert line.chat.state == "offline"
    until(line, lambda: line.chat.state == "active")
    assert "chatServerBackOnline" in line.heard.take()
    line.gateway.say("hello")
    line.advance(2)
    assert line.heard.take() == ["messageReceived"]
    into_outage(line)
    assert "chatServerWentOffline" in line.heard.take()
    assert line.chat._engine.session.flags == {Flag.DISCONNECTED, Flag.PENDING, Flag.WENT_OFFLINE}


def test_answer_to_a_send_ends_no_outage_of_an_offline_chat(line):
    chat = line.start()
    into_outage(line)
    assert chat.state == "offline"
    line.heard.take()
    line.gateway.script("sendMessage", line.gateway.accept())
    assert chat.command("sendMessage", {"message": "hi"}).status == "resolved"
    assert (line.heard.take(), chat.state) == ([], "offline")


def test_chat_that_may_not_reconnect_has_the_flag_of_offline(line):
    chat = line.start()
    line.gateway.script("connect", line.gateway.refuse("403::No", reconnect="none"))
    until(line, lambda: chat.state == "offline")
    assert chat._engine.session.flags == {Flag.WENT_OFFLINE}
    assert chat.health().failures == LIMIT + 1


@pytest.mark.parametrize("connect", ["good", "unanswered before"])
def test_connect_that_proves_contact_reconnects_once(line, connect):
    chat = line.start()
    if connect == "unanswered before":
        line.gateway.script("sendMessage", NO_RESPONSE)
        assert chat.command("sendMessage", {"message": "hi"}).status == "rejected"
        assert line.heard.take() == ["disconnected"]
    line.advance(3)
    assert line.heard.take() == (["reconnected"] if connect == "unanswered before" else [])


def test_push_of_a_chat_that_ended_saves_nothing_more(line):
    line.start()
    line.gateway.queue.append(push(envelope(chatEnded=True)))
    line.advance(5)
    assert (line.chat.state, line.store.load()) == ("ended", None)
