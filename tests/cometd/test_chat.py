"""A chat whose messages are pushed, as a user sees it: events in order, states, commands."""

from __future__ import annotations

import re

import pytest

from tests.cometd.gateway import envelope
from webchat_fsm import CommandRejected


def test_a_whole_conversation_in_the_order_in_which_it_is_told(stage):
    chat = stage.open()
    chat.start_chat(nickname="Jonny", subject="a question")
    assert chat.state == "active"
    ann = stage.agent()
    stage.advance(1)
    ann.typing()
    stage.advance(1)
    ann.say("Hello")
    stage.advance(1)
    chat.send_message("hi")
    stage.advance(1)
    assert stage.heard.take() == [
        "ready", "started", "clientConnected", "messageReceived", "agentConnected", "messageReceived",
        "agentTypingStarted", "messageReceived", "agentTypingStopped", "messageReceived", "messageReceived",
    ]  # fmt: skip
    chat.end_chat()
    assert stage.heard.take() == ["clientDisconnected", "messageReceived", "agentDisconnected", "ended"]
    assert chat.state == "ended"


def test_started_carries_the_session_data_of_the_first_push(stage):
    chat = stage.open()
    value = chat.command("startChat", {"nickname": "Jonny"}).value
    told = stage.heard.last("started").session_data
    assert told == chat.get_session_data()
    assert (value["statusCode"], value["chatId"]) == (0, told.session_id)
    assert stage.heard.names[:3] == ["ready", "started", "clientConnected"]


def test_an_own_message_comes_back_once_and_settles_its_receipt(stage):
    chat = stage.start()
    receipt = chat.send_message("hi")
    stage.advance(2)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert stage.heard.texts() == ["hi"]
    assert [message.text for message in chat.get_transcript().messages if message.type == "Message"] == ["hi"]


def test_polling_is_never_told_of_in_all_of_a_conversation_with_troubles(stage):
    chat = stage.start()
    stage.server.faults.add(operation="connect", drop=True, times=8)
    stage.advance(60)
    chat.end_chat()
    assert not {name for name in stage.heard.names if name.startswith("polling")}
    assert {"chatServerWentOffline", "chatServerBackOnline"} <= set(stage.heard.names)


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
def test_what_a_pushed_chat_cannot_do_is_told_and_causes_no_request(stage, command, text):
    chat = stage.start()
    before = len(stage.http.sent)
    assert chat.command(command).reason == text
    assert len(stage.http.sent) == before


def test_typing_is_told_at_once_and_ends_two_seconds_after_the_last_key(stage):
    chat = stage.start()
    stage.heard.take()
    chat.send_typing("h")
    stage.advance(1.5)
    chat.send_typing("he")
    stage.advance(1.9)
    assert [name for name in stage.heard.names if "Typing" in name] == ["clientTypingStarted"]
    stage.advance(0.2)
    assert [name for name in stage.heard.names if "Typing" in name] == ["clientTypingStarted", "clientTypingStopped"]
    assert [len(stage.asked(name)) for name in ("startTyping", "stopTyping")] == [1, 1]
    assert stage.asked("startTyping")[0]["data"]["transcriptPosition"] == 2


def test_a_message_ends_a_typing_burst_without_a_request(stage):
    chat = stage.start()
    chat.send_typing("h")
    chat.send_message("hi")
    stage.advance(5)
    assert stage.heard.names.count("clientTypingStopped") == 1
    assert stage.asked("stopTyping") == []


def test_notices_filters_and_user_data_travel(stage):
    chat = stage.open()
    chat.update_user_data({"before": "start"})
    chat.start_chat(nickname="Jonny", user_data={"page": "/help", "cart": {"items": 2}})
    chat.send_custom_notice("look", event_attributes={"purpose": "test"})
    chat.send_filtered_message("secret", re.compile("^secret$"))
    chat.update_user_data({"tier": "gold"})
    stage.advance(2)
    sent = {name: stage.asked(name)[0]["data"] for name in ("start", "customNotice", "send", "updateData")}
    assert sent["start"]["userData"] == {"before": "start", "page": "/help", "cart": {"items": 2}}
    assert sent["customNotice"]["eventAttributes"] == {"purpose": "test"}
    assert sent["updateData"]["userData"] == {"tier": "gold"}
    assert "secret" not in stage.heard.texts()


def test_user_data_given_while_the_chat_starts_is_sent_once_it_stands(stage):
    chat = stage.open()
    stage.http.during("start", lambda: chat.update_user_data({"late": "yes"}))
    chat.start_chat(nickname="Jonny")
    stage.advance(1)
    assert [fields["data"]["userData"] for fields in stage.asked("updateData")] == [{"late": "yes"}]


def test_the_server_ends_the_chat(stage):
    chat = stage.start()
    stage.agent().say("bye")
    stage.server.end()
    stage.advance(1)
    assert chat.state == "ended"
    assert stage.heard.names[-1] == "ended"
    assert stage.heard.texts() == ["bye"]
    assert stage.http.operations()[-1] == "hangup"
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        chat.send_message("too late")


def test_the_end_is_told_once_and_nothing_comes_after_it(line):
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
def test_a_farewell_in_the_answer_to_the_leaving_is_told_before_the_end(line, before):
    chat = line.start()
    left = envelope(line.gateway.add("ParticipantLeft", sender="Client"), chatEnded=True)
    line.gateway.script("disconnect", line.gateway.taken(left, before=before))
    assert chat.command("endChat")
    assert line.heard.names == ["clientDisconnected", "messageReceived", "ended"]
    assert line.gateway.names()[-1] == "bye"


def test_a_second_chat_begins_with_a_new_client_and_empty_keys(line):
    chat = line.start()
    chat.end_chat()
    line.gateway.transcript.clear()
    chat.start_chat(nickname="Jonny")
    first, second = line.gateway.all("requestChat")
    assert first["clientId"] != second["clientId"]
    assert {second["data"][key] for key in ("chatId", "alias", "secureKey", "userId")} == {""}
    ids = [int(message["id"]) for message in line.gateway.sent]
    assert ids == list(range(1, len(ids) + 1))


def test_preprocessors_see_what_is_pushed(line):
    chat = line.open()
    chat.register_pre_processor(lambda message: {**message, "text": message["text"].upper()})
    chat.start_chat(nickname="Jonny")
    line.gateway.say("hello")
    line.advance(2)
    assert line.heard.texts() == ["HELLO"]


def test_several_clients_share_one_session(stage):
    first, first_heard = stage.start(), stage.heard
    second = stage.open()
    second_heard = stage.heard
    assert (first.state, second.state) == ("active", "active")
    first.send_message("from the first")
    second.send_message("from the second")
    stage.agent().say("to both")
    stage.advance(2)
    expected = ["from the first", "from the second", "to both"]
    assert first_heard.texts() == second_heard.texts() == expected
    second.end_chat()
    stage.advance(2)
    assert (first.state, first_heard.names.count("ended")) == ("ended", 1)


def test_no_secret_is_shown(stage, caplog):
    caplog.set_level("DEBUG")
    chat = stage.start(apikey="top-secret-key")
    key = chat.get_session_data().secure_key
    stage.advance(2)
    chat.end_chat()
    shown = caplog.text + repr(chat) + repr(stage.heard.events) + repr(stage.http.sent)
    assert key
    assert key not in shown
    assert "top-secret-key" not in shown
