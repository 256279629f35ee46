"""A saved chat is taken up again: handshake, request for notifications, and the first push decides."""

from __future__ import annotations

import pytest

from tests.cometd.gateway import NOBODY, UNKNOWN, envelope, event, push
from webchat_fsm.wire.request import HttpAnswer


def leave(line, *said: str, **config) -> None:
    """A chat with some messages, left orderly; the next service is there, not opened."""
    line.start(**config)
    for text in said:
        line.gateway.say(text)
    line.advance(1)
    line.again(**config)


def test_a_restore_brings_the_transcript_and_marks_it(line):
    leave(line, "one", "two")
    line.chat.open()
    assert line.chat.state == "active"
    assert line.heard.names == ["ready", "restored", "clientConnected", "messageReceived"]
    assert line.heard.last("restored").is_async is False
    received = line.heard.last("messageReceived")
    assert received.restoring
    assert [message.text for message in received.messages if message.type == "Message"] == ["one", "two"]
    assert all(message.restoring for message in received.messages)
    request = line.gateway.all("requestNotifications")[0]["data"]
    assert (request["transcriptPosition"], request["message"], request["secureKey"]) == (1, "", "k-1")


def test_what_comes_after_a_restore_is_not_marked(line):
    leave(line, "one")
    line.chat.open()
    line.gateway.say("two")
    line.advance(1)
    assert line.heard.texts() == ["one", "two"]
    assert not line.heard.last("messageReceived").restoring


def test_a_restore_in_whose_own_answer_the_transcript_stands(line):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(event(1, text="one")), before=True))
    line.chat.open()
    assert line.heard.names == ["ready", "restored", "messageReceived"]
    assert line.chat.state == "active"


def test_a_session_left_for_the_restore_timeout_is_too_old_and_nothing_is_sent(line):
    line.start()
    before = len(line.gateway.sent)
    line.again(away=60.0).open()
    assert line.heard.names == ["ready", "restoreTimeout"]
    assert (line.chat.state, line.store.load(), len(line.gateway.sent)) == ("idle", None, before)


def test_a_session_left_for_a_moment_less_is_restored(line):
    line.start()
    line.again(away=59.9).open()
    assert line.chat.state == "active"


def test_where_the_process_died_the_last_good_connect_counts(line, webchat_timeline):
    chat = line.start()
    line.advance(100)
    webchat_timeline.driver.detach(chat._engine, 0)
    line.advance(59)
    line.client().open()
    assert line.chat.state == "active"


def test_where_the_process_died_in_an_outage_the_last_good_connect_is_long_ago(line, webchat_timeline):
    chat = line.start()
    line.gateway.script("connect", *[NOBODY] * 99)
    line.advance(30)
    webchat_timeline.driver.detach(chat._engine, 0)
    line.advance(31)
    line.client().open()
    assert line.heard.names == ["ready", "restoreTimeout"]


@pytest.mark.parametrize("code", [0, 2])
def test_a_chat_found_ended_is_too_late(line, code):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(chatEnded=True, statusCode=code)))
    line.chat.open()
    assert line.heard.names == ["ready", "restoreTimeout"]
    assert (line.chat.state, line.store.load()) == ("idle", None)
    assert line.gateway.names()[-1] == "bye"


def test_a_chat_server_that_is_unavailable_restores_offline_and_brings_the_transcript_later(line):
    leave(line, "one")
    unavailable = line.gateway.taken(envelope(statusCode=1))
    line.gateway.script("requestNotifications", unavailable, unavailable)
    line.chat.open()
    assert (line.chat.state, line.heard.take()) == ("offline", ["ready", "restored", "restoredOffline"])
    line.advance(2.9)
    assert line.heard.take() == []
    line.advance(5)
    assert line.heard.names == ["chatServerBackOnline", "clientConnected", "messageReceived"]
    assert (line.chat.state, line.heard.last("messageReceived").restoring) == ("active", True)
    assert line.gateway.moments("requestNotifications") == [0, 3, 6]
    assert {one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")} == {1}


def test_a_client_restored_offline_keeps_its_connection_alive(line):
    leave(line)
    line.gateway.script("requestNotifications", *[line.gateway.taken(envelope(statusCode=1))] * 5)
    line.chat.open()
    before = len(line.gateway.all("connect"))
    line.advance(2)
    assert len(line.gateway.all("connect")) > before


def test_a_chat_restored_offline_can_be_ended(line):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(statusCode=1)))
    line.chat.open()
    line.heard.take()
    line.chat.end_chat()
    assert line.heard.names == ["clientDisconnected", "ended"]


@pytest.mark.parametrize("failure", [NOBODY, HttpAnswer(status=500), "refused"])
def test_five_failed_handshakes_fail_the_restore_and_keep_what_is_saved(line, failure):
    leave(line)
    line.gateway.times.clear()
    line.gateway.sent.clear()
    line.gateway.script("handshake", *[line.gateway.refuse("403::No") if failure == "refused" else failure] * 5)
    line.chat.open()
    assert line.heard.names == ["ready", "restoreFailed"]
    assert line.gateway.moments("handshake") == [0, 1, 3, 6, 10]
    assert (line.chat.state, line.chat.verify_session()) == ("idle", True)
    line.again().open()
    assert line.chat.state == "active"


@pytest.mark.parametrize("answer", [NOBODY, "mute"])
def test_a_restore_without_an_answer_fails_and_keeps_what_is_saved(line, answer):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.taken() if answer == "mute" else answer)
    line.chat.open()
    assert line.heard.names == ["ready", "restoreFailed"]
    assert line.store.load() is not None


@pytest.mark.parametrize("answer", [HttpAnswer(status=500), "refused", "unreadable", "statusCode 2"])
def test_a_restore_answered_badly_is_told_as_an_error_too(line, answer):
    leave(line)
    answers = {
        "refused": line.gateway.refuse("403::No"),
        "unreadable": line.gateway.taken("what?"),
        "statusCode 2": line.gateway.taken(envelope(statusCode=2, errors=[{"code": 100}])),
    }
    line.gateway.script("requestNotifications", answers[answer] if isinstance(answer, str) else answer)
    line.chat.open()
    assert line.heard.names == ["ready", "restoreFailed", "error"]
    assert (line.chat.state, line.store.load() is not None) == ("idle", True)


@pytest.mark.parametrize("where", ["requestNotifications", "connect"])
def test_a_client_forgotten_in_the_midst_of_a_restore_asks_once_more(line, where):
    leave(line, "one")
    line.gateway.script(where, line.gateway.refuse(UNKNOWN))
    line.chat.open()
    assert line.chat.state == "active"
    assert line.heard.texts() == ["one"]
    assert len(line.gateway.all("requestNotifications")) == 2


@pytest.mark.parametrize("where", ["requestNotifications", "connect"])
def test_a_client_forgotten_twice_fails_the_restore(line, where):
    leave(line)
    line.gateway.script(where, *[line.gateway.refuse(UNKNOWN)] * 9)
    line.chat.open()
    assert (line.chat.state, line.heard.names) == ("idle", ["ready", "restoreFailed", "error"])
    assert len(line.gateway.all("requestNotifications")) == 2


def test_a_session_of_another_gateway_is_not_asked_for(line):
    line.start()
    cometd = {"enabled": True, "cometURL": "http://elsewhere.test/cometd", "apiURL": "http://elsewhere.test/files"}
    line.again(cometD=cometd).open()
    assert (line.chat.state, line.heard.names) == ("idle", ["ready"])


def test_a_restored_chat_goes_on_like_another(stage):
    stage.start()
    stage.agent().say("before")
    stage.advance(1)
    chat = stage.away(5.0)
    assert chat.state == "active"
    chat.send_message("after")
    stage.advance(1)
    assert stage.heard.texts() == ["before", "after"]
    chat.end_chat()
    assert chat.state == "ended"


def test_a_push_that_comes_before_its_transcript_does_not_come_twice(line):
    leave(line, "one")
    line.gateway.queue.append(push(envelope(line.gateway.transcript[1])))
    line.chat.open()
    line.advance(2)
    assert line.heard.texts() == ["one"]
