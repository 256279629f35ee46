"""What a network and a server can do wrong in mid-chat: the session goes on or ends by the table, nothing is lost, and
nothing comes twice.
"""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.stage import envelope, message
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
def test_an_unreadable_poll_names_the_fault_and_the_chat_goes_on(stage, what):
    chat = stage.start()
    stage.heard.take()
    stage.agent().say("Hello")
    stage.http.answer("refresh", UNREADABLE[what][0])
    assert chat.step() is False
    assert stage.heard.take() == ["error", "connectionPending"]
    chat.step()
    assert stage.heard.texts() == ["Hello"]
    assert stage.heard.names[0] == "connectionRestored"


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_unreadable_start_names_the_fault(stage, what):
    chat = stage.open()
    stage.http.answer("start", UNREADABLE[what][0])
    with pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    assert isinstance(caught.value.__cause__, TransportError)
    assert caught.value.reason.startswith("start: the server's answer cannot be read: ")
    assert stage.heard.take() == ["ready", "error"]
    assert chat.state == "idle"


@pytest.mark.parametrize("what", UNREADABLE)
def test_the_error_event_names_the_place(stage, what):
    body, fault = UNREADABLE[what]
    stage.start()
    stage.http.answer("refresh", body)
    stage.chat.step()
    response = stage.heard.last("error").response
    assert re.search(fault, response.errors[0]["text"])


def test_a_start_without_ids_is_no_start(stage):
    chat = stage.open()
    stage.http.answer("start", b'{"statusCode": 0, "messages": [], "chatId": "c"}')
    outcome = chat.command("startChat", {"nickname": "Jonny"})
    assert outcome.reason["errors"][0]["text"].endswith("a start without chatId and secureKey - at `$`")
    assert chat.state == "idle"


def test_a_huge_answer_is_not_taken_in(stage):
    chat = stage.start(client={"maxAnswerSize": 4096})
    stage.heard.take()
    ann = stage.agent()
    stage.server.faults.add(operation="refresh", body=b" " * 5000)
    assert chat.step() is False
    assert stage.heard.take() == ["disconnected", "connectionPending"]
    ann.say("Hello")
    chat.step()
    assert stage.heard.texts() == ["Hello"]


def test_an_unknown_kind_of_message_is_handed_on_as_it_is(stage):
    stage.start()
    stage.http.answer("refresh", envelope(message(2, "?", "QuantumLeap", userData={"a": {"b": 1}}, new=True)))
    stage.chat.step()
    received = stage.heard.last("messageReceived")
    assert (received.messages[0].type, received.messages[0].user_data) == ("QuantumLeap", {"a": {"b": 1}})
    assert received.original_messages[0]["new"] is True


def test_messages_come_in_index_order_each_once(stage):
    stage.start()
    stage.heard.take()
    answer = envelope(message(4, "four"), message(2, "two"), message(3, "three"), message(2, "two"), message(1, "one"))
    stage.http.answer("refresh", answer)
    stage.chat.step()
    assert stage.heard.texts() == ["two", "three", "four"]
    stage.http.answer("refresh", answer)
    stage.chat.step()
    assert stage.heard.take() == ["messageReceived"]


@pytest.mark.parametrize("fault", ["duplicate", "reorder"])
def test_a_server_that_doubles_or_turns_round_is_seen_through(stage, fault):
    stage.start()
    ann = stage.agent()
    for text in ("one", "two", "three"):
        ann.say(text)
    stage.server.faults.add(operation="refresh", **{fault: True})
    stage.advance(10)
    assert stage.heard.texts() == ["one", "two", "three"]
    assert [entry.text for entry in stage.chat.get_transcript().messages if entry.text] == ["one", "two", "three"]
    assert stage.heard.names.count("agentConnected") == 1


def test_the_cursor_follows_the_messages_and_not_what_the_server_says_comes_next(stage):
    stage.start()
    stage.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), nextPosition=99))
    stage.chat.step()
    stage.chat.step()
    assert stage.asked("refresh")[-1]["transcriptPosition"] == "4"


def test_a_position_that_goes_backwards_brings_nothing_twice(stage):
    stage.start()
    stage.http.answer("refresh", envelope(message(2, "two"), message(3, "three")))
    stage.http.answer("refresh", envelope(message(2, "two"), nextPosition=1))
    stage.chat.step()
    stage.chat.step()
    stage.chat.step()
    assert stage.heard.texts() == ["two", "three"]
    assert stage.asked("refresh")[-1]["transcriptPosition"] == "4"


def test_messages_without_an_index_come_once_and_move_nothing(stage):
    stage.start()
    for _ in range(2):
        stage.http.answer("refresh", envelope(message(None, "notice", "Notice"), message(2, "two")))
        stage.chat.step()
    shown = [(entry.type, entry.text) for data in stage.heard.all("messageReceived") for entry in data.messages]
    assert sorted(shown[1:]) == [("Message", "two"), ("Notice", "notice")]
    stage.chat.step()
    assert stage.asked("refresh")[-1]["transcriptPosition"] == "3"


def test_an_answer_with_statuscode_1_moves_no_cursor_and_its_messages_are_not_lost_or_doubled(stage):
    stage.start()
    stage.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), statusCode=1, chatEnded=True))
    stage.chat.step()
    assert stage.chat.state == "polling"
    stage.chat.step()
    assert stage.asked("refresh")[-1]["transcriptPosition"] == "2"
    stage.http.answer("refresh", envelope(message(2, "two"), message(3, "three"), message(4, "four")))
    stage.chat.step()
    assert stage.heard.texts() == ["two", "three", "four"]


def test_statuscode_2_that_ends_the_chat_ends_it_with_an_error(stage):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="refresh", server_status=2, chat_ended=True)
    chat.step()
    assert stage.heard.take() == ["error", "pollingStopped", "ended"]
    assert chat.state == "ended"
    assert stage.store.load() is None


def test_statuscode_2_in_a_chat_that_goes_on_is_a_failed_poll(stage):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="refresh", server_status=2, chat_ended=False)
    chat.step()
    assert (stage.heard.take(), chat.state) == (["error", "connectionPending"], "polling")
    chat.step()
    assert stage.heard.take() == ["connectionRestored"]


@pytest.mark.parametrize("state", ["polling", "active", "offline"])
def test_a_404_with_an_envelope_of_the_end_loses_the_session(stage, state):
    chat = stage.start()
    if state == "active":
        chat.stop_poll()
    elif state == "offline":
        stage.fail_polls(6)
    stage.heard.take()
    stage.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
    chat.step()
    stopped = [] if state == "active" else ["pollingStopped"]
    assert stage.heard.take() == ["error", *stopped, "ended"]
    assert chat.state == "ended"
    assert stage.store.load() is None


def test_a_message_that_finds_the_session_lost_ends_the_chat(stage):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="send", http_status=404, server_status=2, chat_ended=True)
    assert chat.command("sendMessage", {"message": "hi"}).reason["status"] == 404
    assert stage.heard.take() == ["error", "pollingStopped", "ended"]


def test_404_to_a_start_is_a_failed_start(stage):
    chat = stage.open()
    stage.server.faults.add(operation="start", http_status=404)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    assert (stage.heard.take(), chat.state) == (["ready", "error"], "idle")


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
def test_a_start_that_comes_to_nothing(stage, fault):
    wrong, published = STARTS[fault]
    chat = stage.open()
    stage.heard.take()
    stage.server.faults.add(operation="start", **wrong)
    with pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    assert (stage.heard.take(), chat.state) == (published, "idle")
    assert caught.value.response is not None
    assert stage.store.load() is None
    chat.start_chat(nickname="Jonny")
    assert chat.state == "polling"


def test_a_start_of_a_chat_that_is_over_already_has_failed(stage):
    chat = stage.open()
    stage.http.answer("start", envelope(chatId="c", secureKey="s", chatEnded=True))
    with pytest.raises(CommandRejected, match="The server's answer to the start says that the chat is over"):
        chat.start_chat(nickname="Jonny")
    assert (stage.heard.take(), chat.state) == (["ready", "error"], "idle")


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
def test_a_command_that_the_server_refuses_only_rejects(stage, command, operation, data, wrong):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation=operation, **wrong)
    outcome = chat.command(command, data)
    assert outcome.status == "rejected"
    assert isinstance(outcome.reason, dict)
    published = [name for name in stage.heard.take() if name != "clientTypingStarted"]
    assert published == (["disconnected"] if "drop" in wrong else [])
    assert chat.state == "polling"


def test_another_answer_reconnects_but_does_not_bring_back_online(stage):
    chat = stage.start()
    stage.fail_polls(6, drop=True)
    stage.heard.take()
    chat.send_message("hi")
    assert (stage.heard.take(), chat.state) == (["reconnected"], "offline")
    chat.step()
    assert stage.heard.take() == ["chatServerBackOnline", "connectionRestored", "messageReceived"]


def test_a_message_is_tried_while_disconnected(stage):
    chat = stage.start()
    stage.fail_polls(1, drop=True)
    assert chat.send_message("hi").status == "sent"
    assert stage.asked("send")[-1]["message"] == "hi"


def test_a_send_that_is_told_of_the_end_ends_the_chat(stage):
    chat = stage.start()
    stage.server.core.purge()
    stage.heard.take()
    outcome = chat.command("sendMessage", {"message": "hi"})
    assert (outcome.reason["statusCode"], outcome.reason["chatEnded"]) == (2, True)
    assert stage.heard.take() == ["pollingStopped", "ended"]


def test_a_good_answer_to_another_request_ends_the_chat_too(stage):
    chat = stage.start()
    stage.heard.take()
    stage.http.answer("updateData", envelope(chatEnded=True))
    assert chat.command("updateUserData", {"a": 1})
    assert stage.heard.take() == ["pollingStopped", "ended"]
    assert chat.state == "ended"


def test_nothing_that_was_said_before_the_end_is_lost(stage):
    stage.start()
    stage.agent().say("Bye")
    stage.server.end()
    stage.server.faults.add(operation="refresh", drop=True, times=2)
    stage.advance(10)
    assert stage.heard.texts() == ["Bye"]
    assert stage.heard.names[-2:] == ["pollingStopped", "ended"]


def test_nothing_is_lost_over_a_long_outage(stage):
    stage.start()
    ann = stage.agent()
    ann.say("one")
    stage.advance(3)
    stage.server.faults.add(operation="refresh", drop=True, times=8)
    ann.say("two")
    stage.advance(3)
    ann.say("three")
    stage.advance(60)
    assert stage.heard.texts() == ["one", "two", "three"]
    assert stage.heard.indexes() == [1, 2, 3, 4, 5]


def test_the_newest_ids_are_used(stage):
    chat = stage.start()
    stage.server.core.rotate_alias("moved")
    chat.step()
    chat.send_message("hi")
    assert stage.asked("send")[-1]["alias"] == "moved"
    assert chat.get_session_data().alias == "moved"


def test_what_an_untrusted_answer_says_of_the_ids_is_not_believed(stage):
    chat = stage.start()
    known = chat.get_session_data()
    stage.http.answer("refresh", envelope(statusCode=1, alias="", secureKey="", chatId=""))
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
def test_an_end_that_the_server_does_not_confirm_is_an_end_all_the_same(stage, wrong, published):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="disconnect", **wrong)
    outcome = chat.command("endChat")
    assert outcome.status == "rejected"
    assert (stage.heard.take(), chat.state) == (published, "ended")
    assert stage.store.load() is None


def test_an_end_that_the_server_confirms_resolves_with_its_answer(stage):
    outcome = stage.start().command("endChat")
    assert outcome.value["chatEnded"] is True


def test_a_late_answer_of_an_earlier_session_changes_nothing_in_the_next(stage):
    """A send that is answered after the end of its chat settles truthfully, and that is all."""
    chat = stage.start()

    def end_and_begin():
        chat.end_chat()
        chat.start_chat(nickname="Again")

    stage.http.during("send", end_and_begin)
    outcome = chat.command("sendMessage", {"message": "hi"})
    assert (outcome.status, outcome.reason["chatEnded"]) == ("rejected", True)
    assert chat.state == "polling"
    assert stage.heard.names.count("ended") == 1


def test_a_late_poll_of_an_earlier_session_brings_nothing_into_the_next(stage):
    chat = stage.start()
    stage.agent().say("of old")

    def end_and_begin():
        chat.end_chat()
        chat.start_chat(nickname="Again")

    stage.http.during("refresh", end_and_begin)
    chat.step()
    assert stage.heard.texts() == []
    stage.advance(3)
    assert [entry.sender.name for entry in chat.get_transcript().messages] == ["Again"]


def test_closing_in_mid_request_publishes_nothing_and_the_answer_settles_truthfully(stage):
    chat = stage.start()
    stage.heard.take()
    stage.http.during("send", chat.close)
    assert chat.command("sendMessage", {"message": "hi"}), "the server has taken it, and that is the truth"
    assert stage.heard.take() == []
    assert chat.state == "idle"


def test_closing_while_starting_gives_the_start_up(stage):
    chat = stage.open()
    stage.heard.take()
    stage.http.during("start", chat.close)
    with pytest.raises(CommandRejected, match="WebChatService was closed before the server answered"):
        chat.start_chat(nickname="Jonny")
    assert (stage.heard.take(), chat.state) == ([], "idle")
    assert stage.store.load() is None
