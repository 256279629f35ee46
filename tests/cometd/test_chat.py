"""Check a chat with pushed messages: order of events, states and commands."""

from __future__ import annotations

import re

import pytest

from tests.cometd.gateway import envelope
from webchat_fsm import CommandRejected


def test_whole_conversation_publishes_in_order(env):
    chat = env.open()
    chat.start_chat(nickname="Jonny", subject="a question")
    assert chat.state == "active"
    ann = env.agent()
    env.advance(1)
    ann.typing()
    env.advance(1)
    ann.say("Hello")
    env.advance(1)
    chat.send_message("hi")
    env.advance(1)
    assert env.heard.take() == [
        "ready", "started", "clientConnected", "messageReceived", "agentConnected", "messageReceived",
        "agentTypingStarted", "messageReceived", "agentTypingStopped", "messageReceived", "messageReceived",
    ]  # fmt: skip
    chat.end_chat()
    assert env.heard.take() == ["clientDisconnected", "messageReceived", "agentDisconnected", "ended"]
    assert chat.state == "ended"


def test_started_has_session_data_of_first_push(env):
    chat = env.open()
    value = chat.command("startChat", {"nickname": "Jonny"}).value
    published = env.heard.last("started").session_data
    assert published == chat.get_session_data()
    assert (value["statusCode"], value["chatId"]) == (0, published.session_id)
    assert env.heard.names[:3] == ["ready", "started", "clientConnected"]


def test_own_message_arrives_once_and_settles_its_receipt(env):
    chat = env.start()
    receipt = chat.send_message("hi")
    env.advance(2)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert env.heard.texts() == ["hi"]
    assert [message.text for message in chat.get_transcript().messages if message.type == "Message"] == ["hi"]


def test_polling_events_are_not_published_over_cometd(env):
    chat = env.start()
    env.server.faults.add(operation="connect", drop=True, times=8)
    env.advance(60)
    chat.end_chat()
    assert not {name for name in env.heard.names if name.startswith("polling")}
    assert {"chatServerWentOffline", "chatServerBackOnline"} <= set(env.heard.names)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("startPoll", "This transport doesn't support polling"),
        ("stopPoll", "This transport doesn't support polling"),
        ("poll", "This transport doesn't support polling."),
        ("resetPollExceptions", "This transport doesn't support resetPollExceptions command."),
        ("fetchHistory", "Fetching history messages applies only to Asynchronous chat"),
    ],
)
def test_unsupported_command_rejects_without_a_request(env, command, text):
    chat = env.start()
    before = len(env.http.sent)
    assert chat.command(command).reason == text
    assert len(env.http.sent) == before


def test_typing_is_sent_at_once_and_ends_after_2_seconds(env):
    chat = env.start()
    env.heard.take()
    chat.send_typing("h")
    env.advance(1.5)
    chat.send_typing("he")
    env.advance(1.9)
    assert [name for name in env.heard.names if "Typing" in name] == ["clientTypingStarted"]
    env.advance(0.2)
    assert [name for name in env.heard.names if "Typing" in name] == ["clientTypingStarted", "clientTypingStopped"]
    assert [len(env.asked(name)) for name in ("startTyping", "stopTyping")] == [1, 1]
    assert env.asked("startTyping")[0]["data"]["transcriptPosition"] == 2


def test_message_ends_typing_without_stop_request(env):
    chat = env.start()
    chat.send_typing("h")
    chat.send_message("hi")
    env.advance(5)
    assert env.heard.names.count("clientTypingStopped") == 1
    assert env.asked("stopTyping") == []


def test_notices_and_user_data_are_sent_and_filters_hide(env):
    chat = env.open()
    chat.update_user_data({"before": "start"})
    chat.start_chat(nickname="Jonny", user_data={"page": "/help", "cart": {"items": 2}})
    chat.send_custom_notice("look", event_attributes={"purpose": "test"})
    chat.send_filtered_message("secret", re.compile("^secret$"))
    chat.update_user_data({"tier": "gold"})
    env.advance(2)
    sent = {name: env.asked(name)[0]["data"] for name in ("start", "customNotice", "send", "updateData")}
    assert sent["start"]["userData"] == {"before": "start", "page": "/help", "cart": {"items": 2}}
    assert sent["customNotice"]["eventAttributes"] == {"purpose": "test"}
    assert sent["updateData"]["userData"] == {"tier": "gold"}
    assert "secret" not in env.heard.texts()


def test_user_data_given_during_a_start_is_sent_after_it(env):
    chat = env.open()
    env.http.during("start", lambda: chat.update_user_data({"late": "yes"}))
    chat.start_chat(nickname="Jonny")
    env.advance(1)
    assert [fields["data"]["userData"] for fields in env.asked("updateData")] == [{"late": "yes"}]


def test_end_by_server_ends_chat_after_last_message(env):
    chat = env.start()
    env.agent().say("bye")
    env.server.end()
    env.advance(1)
    assert chat.state == "ended"
    assert env.heard.names[-1] == "ended"
    assert env.heard.texts() == ["bye"]
    assert env.http.operations()[-1] == "hangup"
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        chat.send_message("too late")


def test_end_is_published_once_and_nothing_after_it(line):
    chat = line.start()
    line.gateway.say("Ann", "ParticipantJoined")
    line.advance(1)
    line.heard.take()
    chat.end_chat()
    line.gateway.say("too late")
    line.advance(60)
    assert line.heard.names == ["agentDisconnected", "clientDisconnected", "ended"]
    assert line.gateway.names()[-2:] == ["disconnect", "bye"]


@pytest.mark.parametrize("before", [True, False])
def test_message_beside_leave_response_precedes_ended(line, before):
    chat = line.start()
    left = envelope(line.gateway.add("ParticipantLeft", sender="Client"), chatEnded=True)
    line.gateway.script("disconnect", line.gateway.accept(left, before=before))
    assert chat.command("endChat")
    assert line.heard.names == ["clientDisconnected", "messageReceived", "ended"]
    assert line.gateway.names()[-1] == "bye"


def test_second_chat_has_new_client_and_empty_keys(line):
    chat = line.start()
    chat.end_chat()
    line.gateway.transcript.clear()
    chat.start_chat(nickname="Jonny")
    first, second = line.gateway.all("requestChat")
    assert first["clientId"] != second["clientId"]
    assert {second["data"][key] for key in ("chatId", "alias", "secureKey", "userId")} == {""}
    ids = [int(message["id"]) for message in line.gateway.sent]
    assert ids == list(range(1, len(ids) + 1))


def test_preprocessor_receives_pushed_messages(line):
    chat = line.open()
    chat.register_pre_processor(lambda message: {**message, "text": message["text"].upper()})
    chat.start_chat(nickname="Jonny")
    line.gateway.say("hello")
    line.advance(2)
    assert line.heard.texts() == ["HELLO"]


def test_several_clients_share_one_session(env):
    first, first_heard = env.start(), env.heard
    second = env.open()
    second_heard = env.heard
    assert (first.state, second.state) == ("active", "active")
    first.send_message("from the first")
    second.send_message("from the second")
    env.agent().say("to both")
    env.advance(2)
    expected = ["from the first", "from the second", "to both"]
    assert first_heard.texts() == second_heard.texts() == expected
    second.end_chat()
    env.advance(2)
    assert (first.state, first_heard.names.count("ended")) == ("ended", 1)


def test_secrets_are_not_logged_or_shown(env, caplog):
    caplog.set_level("DEBUG")
    chat = env.start(apikey="top-secret-key")
    key = chat.get_session_data().secure_key
    env.advance(2)
    chat.end_chat()
    shown = caplog.text + repr(chat) + repr(env.heard.events) + repr(env.http.sent)
    assert key
    assert key not in shown
    assert "top-secret-key" not in shown
