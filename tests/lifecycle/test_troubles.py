"""Check network and server faults during a chat: the session continues or ends by the table, and no message is lost or
repeated.
"""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.environment import envelope, message
from webchat_fsm import CommandRejected, TransportError

UNREADABLE = {
    "HTML": (b"<html><body>Gateway</body></html>", "no JSON"),
    "nothing": (b"", "no JSON"),
    "half an answer": (b'{"statusCode": 0, "messages": [{"ind', "no JSON"),
    "bytes that are no text": (b"\xfe\x00\xff", "no JSON"),
    "neither statusCode nor messages": (b'{"chatEnded": false}', "statusCode"),
    "an answer of a gateway": (b'{"statusCode": 404, "message": "Resource not found"}', "statusCode"),
    "no object": (b"[1, 2]", "expected an envelope, got array"),
    "very deep": (b"[" * 5000 + b"]" * 5000, "expected an envelope"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_unreadable_poll_names_fault_and_chat_continues(env, what):
    chat = env.start()
    env.heard.take()
    env.agent().say("Hello")
    env.http.answer("refresh", UNREADABLE[what][0])
    assert chat.step() is False
    assert env.heard.take() == ["error", "connectionPending"]
    chat.step()
    assert env.heard.texts() == ["Hello"]
    assert env.heard.names[0] == "connectionRestored"


@pytest.mark.parametrize("what", UNREADABLE)
def test_unreadable_start_response_names_the_fault(env, what):
    chat = env.open()
    env.http.answer("start", UNREADABLE[what][0])
    with pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    assert isinstance(caught.value.__cause__, TransportError)
    assert caught.value.reason.startswith("start: the server's answer cannot be read: ")
    assert env.heard.take() == ["ready", "error"]
    assert chat.state == "idle"


@pytest.mark.parametrize("what", UNREADABLE)
def test_error_event_of_unreadable_poll_names_the_fault(env, what):
    body, fault = UNREADABLE[what]
    env.start()
    env.http.answer("refresh", body)
    env.chat.step()
    response = env.heard.last("error").response
    assert re.search(fault, response.errors[0]["text"])


def test_start_response_without_ids_is_rejected(env):
    chat = env.open()
    env.http.answer("start", b'{"statusCode": 0, "messages": [], "chatId": "c"}')
    outcome = chat.command("startChat", {"nickname": "Jonny"})
    assert outcome.reason["errors"][0]["text"].endswith("a start without chatId and secureKey - at `$`")
    assert chat.state == "idle"


def test_too_large_response_is_a_failed_poll(env):
    chat = env.start(client={"maxAnswerSize": 4096})
    env.heard.take()
    ann = env.agent()
    env.server.faults.add(operation="refresh", body=b" " * 5000)
    assert chat.step() is False
    assert env.heard.take() == ["disconnected", "connectionPending"]
    ann.say("Hello")
    chat.step()
    assert env.heard.texts() == ["Hello"]


def test_message_of_unknown_type_is_delivered_unchanged(env):
    env.start()
    env.http.answer("refresh", envelope(message(2, "?", "QuantumLeap", userData={"a": {"b": 1}}, new=True)))
    env.chat.step()
    received = env.heard.last("messageReceived")
    assert (received.messages[0].type, received.messages[0].user_data) == ("QuantumLeap", {"a": {"b": 1}})
    assert received.original_messages[0]["new"] is True


def test_messages_come_in_index_order_each_once(env):
    env.start()
    env.heard.take()
    answer = envelope(message(4, "four"), message(2, "two"), message(3, "three"), message(2, "two"), message(1, "one"))
    env.http.answer("refresh", answer)
    env.chat.step()
    assert env.heard.texts() == ["two", "three", "four"]
    env.http.answer("refresh", answer)
    env.chat.step()
    assert env.heard.take() == ["messageReceived"]


@pytest.mark.parametrize("fault", ["duplicate", "reorder"])
def test_duplicated_or_reordered_messages_come_in_order(env, fault):
    env.start()
    ann = env.agent()
    for text in ("one", "two", "three"):
        ann.say(text)
    env.server.faults.add(operation="refresh", **{fault: True})
    env.advance(10)
    assert env.heard.texts() == ["one", "two", "three"]
    assert [entry.text for entry in env.chat.get_transcript().messages if entry.text] == ["one", "two", "three"]
    assert env.heard.names.count("agentConnected") == 1


def test_cursor_follows_messages_not_next_position(env):
    env.start()
    env.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), nextPosition=99))
    env.chat.step()
    env.chat.step()
    assert env.asked("refresh")[-1]["transcriptPosition"] == "4"


def test_next_position_moved_backwards_repeats_no_message(env):
    env.start()
    env.http.answer("refresh", envelope(message(2, "two"), message(3, "three")))
    env.http.answer("refresh", envelope(message(2, "two"), nextPosition=1))
    env.chat.step()
    env.chat.step()
    env.chat.step()
    assert env.heard.texts() == ["two", "three"]
    assert env.asked("refresh")[-1]["transcriptPosition"] == "4"


def test_message_without_index_is_once_and_moves_no_cursor(env):
    env.start()
    for _ in range(2):
        env.http.answer("refresh", envelope(message(None, "notice", "Notice"), message(2, "two")))
        env.chat.step()
    shown = [(entry.type, entry.text) for data in env.heard.all("messageReceived") for entry in data.messages]
    assert sorted(shown[1:]) == [("Message", "two"), ("Notice", "notice")]
    env.chat.step()
    assert env.asked("refresh")[-1]["transcriptPosition"] == "3"


def test_status_code_1_moves_no_cursor_and_loses_nothing(env):
    env.start()
    env.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), statusCode=1, chatEnded=True))
    env.chat.step()
    assert env.chat.state == "polling"
    env.chat.step()
    assert env.asked("refresh")[-1]["transcriptPosition"] == "2"
    env.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), message(4, "four")))
    env.chat.step()
    assert env.heard.texts() == ["two", "three", "four"]


def test_status_code_2_with_end_publishes_error_and_ended(env):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="refresh", server_status=2, chat_ended=True)
    chat.step()
    assert env.heard.take() == ["error", "pollingStopped", "ended"]
    assert chat.state == "ended"
    assert env.store.load() is None


def test_status_code_2_without_end_is_a_failed_poll(env):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="refresh", server_status=2, chat_ended=False)
    chat.step()
    assert (env.heard.take(), chat.state) == (["error", "connectionPending"], "polling")
    chat.step()
    assert env.heard.take() == ["connectionRestored"]


@pytest.mark.parametrize("state", ["polling", "active", "offline"])
def test_poll_404_with_end_envelope_ends_the_chat(env, state):
    chat = env.start()
    if state == "active":
        chat.stop_poll()
    elif state == "offline":
        env.fail_polls(6)
    env.heard.take()
    env.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
    chat.step()
    stopped = [] if state == "active" else ["pollingStopped"]
    assert env.heard.take() == ["error", *stopped, "ended"]
    assert chat.state == "ended"
    assert env.store.load() is None


def test_send_404_with_end_envelope_ends_the_chat(env):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="send", http_status=404, server_status=2, chat_ended=True)
    assert chat.command("sendMessage", {"message": "hi"}).reason["status"] == 404
    assert env.heard.take() == ["error", "pollingStopped", "ended"]


def test_start_404_is_rejected_with_an_error(env):
    chat = env.open()
    env.server.faults.add(operation="start", http_status=404)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    assert (env.heard.take(), chat.state) == (["ready", "error"], "idle")


STARTS = {
    "no answer": ({"drop": True}, ["error"]),
    "HTTP 500": ({"http_status": 500}, ["error"]),
    "HTTP 429": ({"http_status": 429}, ["error"]),
    "no JSON": ({"body": b"<html>"}, ["error"]),
    "a missing name": ({"http_status": 400, "errors": (161,)}, ["error"]),
    "statusCode 1": ({"server_status": 1}, []),
    "statusCode 2": ({"server_status": 2}, []),
}


@pytest.mark.parametrize("fault", STARTS)
def test_failed_start_is_rejected_and_next_start_works(env, fault):
    wrong, published = STARTS[fault]
    chat = env.open()
    env.heard.take()
    env.server.faults.add(operation="start", **wrong)
    with pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    assert (env.heard.take(), chat.state) == (published, "idle")
    assert caught.value.response is not None
    assert env.store.load() is None
    chat.start_chat(nickname="Jonny")
    assert chat.state == "polling"


def test_start_response_with_chat_ended_is_rejected(env):
    chat = env.open()
    env.http.answer("start", envelope(chatId="c", secureKey="s", chatEnded=True))
    with pytest.raises(CommandRejected, match="The server's answer to the start says that the chat is over"):
        chat.start_chat(nickname="Jonny")
    assert (env.heard.take(), chat.state) == (["ready", "error"], "idle")


@pytest.mark.parametrize(
    ("command", "operation", "data"),
    [
        ("sendMessage", "send", {"message": "hi"}),
        ("sendTyping", "startTyping", {}),
        ("sendCustomNotice", "customNotice", {"message": "x"}),
        ("updateUserData", "updateData", {"a": 1}),
    ],
)
@pytest.mark.parametrize(
    "wrong",
    [{"drop": True}, {"http_status": 500}, {"server_status": 1}, {"server_status": 2, "chat_ended": False}],
)
def test_command_refused_by_server_is_only_rejected(env, command, operation, data, wrong):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation=operation, **wrong)
    outcome = chat.command(command, data)
    assert outcome.status == "rejected"
    assert isinstance(outcome.reason, dict)
    published = [name for name in env.heard.take() if name != "clientTypingStarted"]
    assert published == (["disconnected"] if "drop" in wrong else [])
    assert chat.state == "polling"


def test_other_response_reconnects_but_stays_offline(env):
    chat = env.start()
    env.fail_polls(6, drop=True)
    env.heard.take()
    chat.send_message("hi")
    assert (env.heard.take(), chat.state) == (["reconnected"], "offline")
    chat.step()
    assert env.heard.take() == ["chatServerBackOnline", "connectionRestored", "messageReceived"]


def test_message_is_sent_while_disconnected(env):
    chat = env.start()
    env.fail_polls(1, drop=True)
    assert chat.send_message("hi").status == "sent"
    assert env.asked("send")[-1]["message"] == "hi"


def test_send_response_with_end_ends_chat(env):
    chat = env.start()
    env.server.core.purge()
    env.heard.take()
    outcome = chat.command("sendMessage", {"message": "hi"})
    assert (outcome.reason["statusCode"], outcome.reason["chatEnded"]) == (2, True)
    assert env.heard.take() == ["pollingStopped", "ended"]


def test_user_data_response_with_end_ends_the_chat(env):
    chat = env.start()
    env.heard.take()
    env.http.answer("updateData", envelope(chatEnded=True))
    assert chat.command("updateUserData", {"a": 1})
    assert env.heard.take() == ["pollingStopped", "ended"]
    assert chat.state == "ended"


def test_message_before_end_is_delivered_after_lost_polls(env):
    env.start()
    env.agent().say("Bye")
    env.server.end()
    env.server.faults.add(operation="refresh", drop=True, times=2)
    env.advance(10)
    assert env.heard.texts() == ["Bye"]
    assert env.heard.names[-2:] == ["pollingStopped", "ended"]


def test_long_outage_loses_no_message(env):
    env.start()
    ann = env.agent()
    ann.say("one")
    env.advance(3)
    env.server.faults.add(operation="refresh", drop=True, times=8)
    ann.say("two")
    env.advance(3)
    ann.say("three")
    env.advance(60)
    assert env.heard.texts() == ["one", "two", "three"]
    assert env.heard.indexes() == [1, 2, 3, 4, 5]


def test_ids_of_the_latest_response_are_used(env):
    chat = env.start()
    env.server.core.rotate_alias("moved")
    chat.step()
    chat.send_message("hi")
    assert env.asked("send")[-1]["alias"] == "moved"
    assert chat.get_session_data().alias == "moved"


def test_ids_in_untrusted_response_are_ignored(env):
    chat = env.start()
    known = chat.get_session_data()
    env.http.answer("refresh", envelope(statusCode=1, alias="", secureKey="", chatId=""))
    chat.step()
    assert chat.get_session_data() == known


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "published"),
    [
        ({"drop": True}, ["pollingStopped", "disconnected", "clientDisconnected", "ended"]),
        ({"http_status": 500}, ["pollingStopped", "clientDisconnected", "ended"]),
        ({"http_status": 404}, ["pollingStopped", "clientDisconnected", "ended"]),
        ({"server_status": 1}, ["pollingStopped", "clientDisconnected", "ended"]),
        ({"server_status": 2}, ["pollingStopped", "clientDisconnected", "ended"]),
    ],
)
def test_unconfirmed_end_closes_chat(env, wrong, published):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="disconnect", **wrong)
    outcome = chat.command("endChat")
    assert outcome.status == "rejected"
    assert (env.heard.take(), chat.state) == (published, "ended")
    assert env.store.load() is None


def test_confirmed_end_resolves_with_response(env):
    outcome = env.start().command("endChat")
    assert outcome.value["chatEnded"] is True


def test_late_response_of_old_session_changes_nothing(env):
    """Settle a send that is answered after the end of its chat with its real outcome, and change nothing else."""
    chat = env.start()

    def end_and_begin():
        chat.end_chat()
        chat.start_chat(nickname="Again")

    env.http.during("send", end_and_begin)
    outcome = chat.command("sendMessage", {"message": "hi"})
    assert (outcome.status, outcome.reason["chatEnded"]) == ("rejected", True)
    assert chat.state == "polling"
    assert env.heard.names.count("ended") == 1


def test_late_poll_of_old_session_delivers_nothing(env):
    chat = env.start()
    env.agent().say("of old")

    def end_and_begin():
        chat.end_chat()
        chat.start_chat(nickname="Again")

    env.http.during("refresh", end_and_begin)
    chat.step()
    assert env.heard.texts() == []
    env.advance(3)
    assert [entry.sender.name for entry in chat.get_transcript().messages] == ["Again"]


def test_close_during_request_settles_without_events(env):
    chat = env.start()
    env.heard.take()
    env.http.during("send", chat.close)
    assert chat.command("sendMessage", {"message": "hi"}), "the server has accepted it"
    assert env.heard.take() == []
    assert chat.state == "idle"


def test_close_during_start_rejects_the_start(env):
    chat = env.open()
    env.heard.take()
    env.http.during("start", chat.close)
    with pytest.raises(CommandRejected, match="WebChatService was closed before the server answered"):
        chat.start_chat(nickname="Jonny")
    assert (env.heard.take(), chat.state) == ([], "idle")
    assert env.store.load() is None
