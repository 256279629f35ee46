"""Check the restore of a saved chat: handshake, request for notifications, and the first push, which decides."""

from __future__ import annotations

import pytest

from tests.cometd.gateway import NO_RESPONSE, UNKNOWN, envelope, event, push
from webchat_fsm._wire.request import HttpAnswer


def leave(line, *said: str, **config) -> None:
    """Hold a chat with some messages and close its service; make the next service without opening it."""
    line.start(**config)
    for text in said:
        line.gateway.say(text)
    line.advance(1)
    line.again(**config)


def test_restored_transcript_is_published_as_restoring(line):
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


def test_message_after_restore_is_not_marked_as_restoring(line):
    leave(line, "one")
    line.chat.open()
    line.gateway.say("two")
    line.advance(1)
    assert line.heard.texts() == ["one", "two"]
    assert not line.heard.last("messageReceived").restoring


def test_transcript_in_the_restore_response_is_published(line):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(event(1, text="one")), before=True))
    line.chat.open()
    assert line.heard.names == ["ready", "restored", "messageReceived"]
    assert line.chat.state == "active"


def test_restore_after_the_timeout_sends_nothing(line):
    line.start()
    before = len(line.gateway.sent)
    line.again(away=60.0).open()
    assert line.heard.names == ["ready", "restoreTimeout"]
    assert (line.chat.state, line.store.load(), len(line.gateway.sent)) == ("idle", None, before)


def test_restore_just_before_the_timeout_succeeds(line):
    line.start()
    line.again(away=59.9).open()
    assert line.chat.state == "active"


def test_restore_of_dead_process_succeeds_within_timeout(line, webchat_timeline):
    chat = line.start()
    line.advance(100)
    webchat_timeline.driver.detach(chat._engine, 0)
    line.advance(59)
    line.client().open()
    assert line.chat.state == "active"


def test_time_away_counts_from_the_last_good_connect(line, webchat_timeline):
    chat = line.start()
    line.gateway.script("connect", *[NO_RESPONSE] * 99)
    line.advance(30)
    webchat_timeline.driver.detach(chat._engine, 0)
    line.advance(36)  # 66 s after the last good connect: 60 s, and 5 s as the process has died
    line.client().open()
    assert line.heard.names == ["ready", "restoreTimeout"]


@pytest.mark.parametrize("code", [0, 2])
def test_restore_of_ended_chat_is_a_restore_timeout(line, code):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(chatEnded=True, statusCode=code)))
    line.chat.open()
    assert line.heard.names == ["ready", "restoreTimeout"]
    assert (line.chat.state, line.store.load()) == ("idle", None)
    assert line.gateway.names()[-1] == "bye"


def test_restore_at_an_unavailable_server_is_offline(line):
    leave(line, "one")
    unavailable = line.gateway.accept(envelope(statusCode=1))
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


def test_chat_restored_offline_continues_to_connect(line):
    leave(line)
    line.gateway.script("requestNotifications", *[line.gateway.accept(envelope(statusCode=1))] * 5)
    line.chat.open()
    before = len(line.gateway.all("connect"))
    line.advance(2)
    assert len(line.gateway.all("connect")) > before


def test_chat_restored_offline_can_be_ended(line):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(statusCode=1)))
    line.chat.open()
    line.heard.take()
    line.chat.end_chat()
    assert line.heard.names == ["clientDisconnected", "ended"]


@pytest.mark.parametrize("failure", [NO_RESPONSE, HttpAnswer(status=500), "refused"])
def test_five_failed_handshakes_fail_the_restore(line, failure):
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


@pytest.mark.parametrize("answer", [NO_RESPONSE, "mute"])
def test_restore_without_an_answer_keeps_the_saved_chat(line, answer):
    leave(line)
    line.gateway.script("requestNotifications", line.gateway.accept() if answer == "mute" else answer)
    line.chat.open()
    assert line.heard.names == ["ready", "restoreFailed"]
    assert line.store.load() is not None


@pytest.mark.parametrize("answer", [HttpAnswer(status=500), "refused", "unreadable", "statusCode 2"])
def test_restore_with_bad_response_publishes_error(line, answer):
    leave(line)
    answers = {
        "refused": line.gateway.refuse("403::No"),
        "unreadable": line.gateway.accept("what?"),
        "statusCode 2": line.gateway.accept(envelope(statusCode=2, errors=[{"code": 100}])),
    }
    line.gateway.script("requestNotifications", answers[answer] if isinstance(answer, str) else answer)
    line.chat.open()
    assert line.heard.names == ["ready", "restoreFailed", "error"]
    assert (line.chat.state, line.store.load() is not None) == ("idle", True)


@pytest.mark.parametrize("where", ["requestNotifications", "connect"])
def test_unknown_client_repeats_request_of_restore_once(line, where):
    leave(line, "one")
    line.gateway.script(where, line.gateway.refuse(UNKNOWN))
    line.chat.open()
    assert line.chat.state == "active"
    assert line.heard.texts() == ["one"]
    assert len(line.gateway.all("requestNotifications")) == 2


@pytest.mark.parametrize("where", ["requestNotifications", "connect"])
def test_client_unknown_twice_fails_the_restore(line, where):
    leave(line)
    line.gateway.script(where, *[line.gateway.refuse(UNKNOWN)] * 9)
    line.chat.open()
    assert (line.chat.state, line.heard.names) == ("idle", ["ready", "restoreFailed", "error"])
    assert len(line.gateway.all("requestNotifications")) == 2


def test_session_of_another_gateway_is_not_restored(line):
    line.start()
    cometd = {"enabled": True, "cometURL": "http://elsewhere.test/cometd", "apiURL": "http://elsewhere.test/files"}
    line.again(cometD=cometd).open()
    assert (line.chat.state, line.heard.names) == ("idle", ["ready"])


def test_restored_chat_sends_and_receives(env):
    env.start()
    env.agent().say("before")
    env.advance(1)
    chat = env.away(5.0)
    assert chat.state == "active"
    chat.send_message("after")
    env.advance(1)
    assert env.heard.texts() == ["before", "after"]
    chat.end_chat()
    assert chat.state == "ended"


def test_push_before_transcript_is_delivered_once(line):
    leave(line, "one")
    line.gateway.queue.append(push(envelope(line.gateway.transcript[1])))
    line.chat.open()
    line.advance(2)
    assert line.heard.texts() == ["one"]
