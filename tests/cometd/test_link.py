"""Check the Bayeux connection: handshake, first push, advice, reconnects, unknown clients, server disconnects."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.cometd.gateway import NO_RESPONSE, UNKNOWN, Gateway, envelope, event, push
from webchat_fsm import CommandRejected
from webchat_fsm._wire.request import HttpAnswer

CONNECTION_EVENTS = {"connectionPending", "connectionRestored"}


def lost_at(line, times: int) -> None:
    line.gateway.script("connect", *[NO_RESPONSE] * times)


# Start


def test_start_sends_handshake_request_and_connect_in_order(line):
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names() == ["handshake", "requestChat", "connect"]
    handshake, request, connect = line.gateway.sent
    assert handshake == {
        "id": "1", "version": "1.0", "minimumVersion": "1.0", "channel": "/meta/handshake",
        "supportedConnectionTypes": ["long-polling"], "advice": {"timeout": 60000, "interval": 0},
    }  # fmt: skip
    assert (request["clientId"], connect["clientId"]) == ("client-1", "client-1")
    assert connect["advice"] == {"timeout": 0}


@pytest.mark.parametrize("failure", ["no response", "refused", "HTTP 500"])
def test_start_fails_after_five_handshakes(line, failure):
    answer = {
        "no response": NO_RESPONSE,
        "refused": line.gateway.refuse("403::No"),
        "HTTP 500": HttpAnswer(status=500),
    }[failure]
    line.gateway.script("handshake", *[answer] * 5)
    with pytest.raises(CommandRejected) as rejected:
        line.open().start_chat(nickname="Jonny")
    assert line.gateway.moments("handshake") == [0, 1, 3, 6, 10]
    assert line.gateway.names() == ["handshake"] * 5
    assert (line.chat.state, rejected.value.state) == ("idle", "idle")
    assert line.heard.names == ["ready", "error"]


def test_start_succeeds_at_fifth_handshake(line):
    line.gateway.script("handshake", *[NO_RESPONSE] * 4)
    line.open().start_chat(nickname="Jonny")
    assert line.heard.names[:2] == ["ready", "started"]


def test_handshake_with_advice_none_is_not_repeated(line):
    line.gateway.script("handshake", line.gateway.refuse("403::No", reconnect="none"))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert outcome.status == "rejected"
    assert line.gateway.names() == ["handshake"]


def test_first_push_with_a_key_starts_the_chat(line):
    strange = {"statusCode": 0, "messages": []}
    line.gateway.script("requestChat", line.gateway.accept(strange, {**strange, "alias": "a-1"}))
    line.gateway.script("connect", line.gateway.accept(), line.gateway.accept(envelope(event(1, "ParticipantJoined"))))
    chat = line.open()
    chat.start_chat(nickname="Jonny")
    assert chat.get_session_data().secure_key == "k-1"
    assert line.heard.names.count("started") == 1


@pytest.mark.parametrize("before", [True, False])
def test_first_push_in_the_publish_response_starts_the_chat(line, before):
    joined = envelope(event(1, "ParticipantJoined", sender="Client", party=1))
    line.gateway.script("requestChat", line.gateway.accept(joined, before=before))
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names() == ["handshake", "requestChat"]
    assert line.heard.names == ["ready", "started", "clientConnected", "messageReceived"]


def test_pushes_behind_first_push_are_delivered_in_order(line):
    first, second = envelope(event(1, text="one")), envelope(event(2, text="two"))
    line.gateway.script("requestChat", line.gateway.accept(first, second))
    line.open().start_chat(nickname="Jonny")
    assert line.heard.names == ["ready", "started", "messageReceived", "messageReceived"]
    assert line.heard.texts() == ["one", "two"]


@pytest.mark.parametrize("code", [1, 2])
def test_push_with_status_1_or_2_refuses_the_start(line, code):
    refusal = envelope(statusCode=code, errors=[{"code": 240, "advice": "closed today"}])
    line.gateway.script("requestChat", line.gateway.accept(refusal))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert outcome.reason == refusal
    assert line.heard.names == ["ready"]
    assert (line.chat.state, line.gateway.names()[-1]) == ("idle", "bye")


def test_first_push_with_chat_end_rejects_start(line):
    line.gateway.script("requestChat", line.gateway.accept(envelope(chatEnded=True)))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, line.chat.state) == ("rejected", "idle")
    assert line.heard.names == ["ready", "error"]


@pytest.mark.parametrize("failure", ["no response", "refused", "HTTP 500"])
def test_failed_chat_request_fails_the_start(line, failure):
    refused = line.gateway.refuse("403::Forbidden")
    line.gateway.script(
        "requestChat", {"no response": NO_RESPONSE, "refused": refused, "HTTP 500": HttpAnswer(status=500)}[failure]
    )
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, line.chat.state) == ("rejected", "idle")
    assert line.heard.names == ["ready", "error"]
    assert line.gateway.names().count("requestChat") == 1


def test_start_without_a_push_fails_after_ten_seconds(line, webchat_timeline):
    line.gateway.script("requestChat", line.gateway.accept())
    chat, began = line.open(), webchat_timeline.now()
    with pytest.raises(CommandRejected, match="the chat server has not answered in time"):
        chat.start_chat(nickname="Jonny")
    assert 8 <= webchat_timeline.now() - began <= 12
    assert len(line.gateway.all("connect")) < 30
    assert line.heard.names == ["ready", "error"]
    assert line.gateway.names()[-1] == "bye"
    assert chat.start_chat(nickname="Jonny")


def test_waiting_start_paces_connects_answered_at_once(line):
    line.gateway.advice["interval"] = 0
    line.gateway.script("requestChat", line.gateway.accept())
    line.open().command("startChat", {"nickname": "Jonny"})
    assert len(line.gateway.all("connect")) < 30


def test_failed_connects_of_a_start_are_repeated(line):
    lost_at(line, 2)
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.moments("connect") == [0, 1, 3]
    assert "disconnected" not in line.heard.names


def test_start_of_an_unknown_client_is_sent_again(line):
    line.gateway.script("requestChat", line.gateway.refuse(UNKNOWN))
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names()[:4] == ["handshake", "requestChat", "handshake", "requestChat"]
    assert [message["clientId"] for message in line.gateway.all("requestChat")] == ["client-1", "client-2"]


def test_chat_request_of_unknown_client_is_repeated_once(line):
    line.gateway.script("requestChat", *[line.gateway.refuse(UNKNOWN)] * 9)
    assert line.open().command("startChat", {"nickname": "Jonny"}).status == "rejected"
    assert line.gateway.names().count("requestChat") == 2


def test_client_unknown_after_the_request_fails_the_start(line):
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    assert line.open().command("startChat", {"nickname": "Jonny"}).status == "rejected"
    assert line.gateway.names() == ["handshake", "requestChat", "connect"]
    assert line.heard.names == ["ready", "error"]


def test_close_during_start_rejects_start(line):
    chat = line.open()

    def closing(message):
        chat.close()
        return Gateway._handshake(line.gateway, message)

    line.gateway.script("handshake", closing)
    outcome = chat.command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, chat.state) == ("rejected", "idle")
    assert line.gateway.names() == ["handshake"]


# Connects


def test_only_the_first_connect_has_timeout_0(line):
    line.start()
    line.advance(3)
    hints = [message.get("advice") for message in line.gateway.all("connect")]
    assert hints[0] == {"timeout": 0}
    assert hints[-3:] == [None] * 3


def test_advised_interval_separates_connects(line):
    line.gateway.advice["interval"] = 2000
    line.start()
    line.advance(7)
    moments = line.gateway.moments("connect")
    assert moments[-3:] == [moments[-3], moments[-3] + 2, moments[-3] + 4]


def test_advised_timeout_bounds_a_held_connect(line):
    line.gateway.advice["timeout"] = 20000
    line.start()
    assert next(request.timeout for request in line.gateway.requests if request.operation == "connect") == 10
    line.advance(2)
    assert line.gateway.requests[-1].timeout == 30


def test_response_without_advice_keeps_the_former_advice(line):
    line.start()
    line.gateway.script("connect", *[line.gateway.accept()] * 20)
    line.advance(4)
    assert len(line.gateway.moments("connect")) <= 12
    assert line.gateway.requests[-1].timeout == 40


def test_server_without_hold_gets_connect_every_half_second(line):
    line.gateway.advice.update(interval=0, timeout=0)
    line.start()
    line.advance(10)
    assert len(line.gateway.all("connect")) < 30


# Reconnects


def test_reconnects_of_one_client_follow_after_1_2_3_seconds(line):
    line.start()
    lost_at(line, 4)
    line.advance(20)
    failed = line.gateway.all("connect")
    moments = line.gateway.moments("connect")
    gaps = [round(later - sooner, 3) for sooner, later in pairwise(moments)]
    start = gaps.index(1)
    assert gaps[start : start + 4] == [1, 2, 3, 4]
    assert [message.get("advice") for message in failed[start + 1 : start + 5]] == [{"timeout": 0}] * 4
    assert {message["clientId"] for message in failed} == {"client-1"}


def test_reconnects_are_at_most_a_minute_apart(line):
    line.start()
    lost_at(line, 70)
    line.advance(3000)
    moments = line.gateway.moments("connect")
    assert max(later - sooner for sooner, later in pairwise(moments)) == 60


def test_lost_connection_is_published_once_and_caught_up(line):
    chat = line.start()
    lost_at(line, 3)
    line.advance(2)
    assert (line.heard.take(), chat.state) == (["disconnected", "connectionPending"], "active")
    line.gateway.add("Message", "missed")
    line.advance(10)
    assert line.heard.take() == ["connectionRestored", "reconnected", "messageReceived"]
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]


def test_message_pushed_and_requested_is_delivered_once(line):
    line.start()
    lost_at(line, 1)
    line.advance(0.6)
    line.gateway.say("waiting")
    line.advance(5)
    assert line.heard.texts() == ["waiting"]
    assert len(line.gateway.all("requestNotifications")) == 1


def test_request_starts_at_the_first_missed_message(line):
    chat = line.start()
    lost_at(line, 3)
    line.gateway.add("Message", "missed")
    line.advance(0.6)
    line.gateway.script("sendMessage", line.gateway.accept(envelope(line.gateway.add("Message", "seen"))))
    chat.send_message("hi")
    line.advance(10)
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert sorted(line.heard.texts()) == ["missed", "seen"]


@pytest.mark.parametrize(("limit", "failures"), [(0, 1), (2, 3), (5, 6)])
def test_failures_over_the_limit_go_offline_until_a_connect(line, limit, failures):
    chat = line.start(pollExceptionLimit=limit)
    lost_at(line, failures)
    line.advance(0.5 + sum(range(failures)))
    assert chat.state == "offline"
    assert line.heard.take() == ["disconnected", "connectionPending", "chatServerWentOffline"]
    line.gateway.script(
        "requestNotifications", line.gateway.accept()
    )  # nothing is pushed: a successful connect suffices
    line.advance(failures + 1)
    assert chat.state == "active"
    assert line.heard.take() == ["chatServerBackOnline", "connectionRestored", "reconnected"]


def test_as_many_failures_as_the_limit_do_not_go_offline(line):
    chat = line.start()
    lost_at(line, 5)
    line.advance(60)
    assert chat.state == "active"
    assert "chatServerWentOffline" not in line.heard.names


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"{}", b"[[]]", b'[{"successful": true}]', HttpAnswer(status=500), HttpAnswer(status=204)],
)
def test_connect_with_bad_response_is_a_failure(line, answer):
    line.start()
    line.gateway.script("connect", answer)
    line.advance(5)
    assert line.heard.names == ["disconnected", "connectionPending", "connectionRestored", "reconnected"]


def test_connect_answered_429_waits_and_is_no_failure(line):
    line.start()
    line.gateway.script("connect", HttpAnswer(status=429, headers={"retry-after": "7"}))
    before = len(line.gateway.all("connect"))
    line.advance(7)
    assert len(line.gateway.all("connect")) == before + 1
    line.advance(2)
    assert len(line.gateway.all("connect")) > before + 1
    assert line.heard.names == []


def test_connect_refused_for_another_reason_is_a_failure(line):
    line.start()
    line.gateway.script("connect", line.gateway.refuse("500::Busy", reconnect="retry"))
    line.advance(5)
    assert line.heard.names == ["disconnected", "connectionPending", "connectionRestored", "reconnected"]


# Unknown clients


@pytest.mark.parametrize("error", ["402::Unknown client", "402::session_unknown", "402:x:y", "402"])
def test_unknown_client_is_renewed_without_lifecycle_events(line, error):
    chat = line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(error, reconnect="handshake", interval=0))
    line.advance(3)
    assert line.heard.names == ["messageReceived"]
    assert line.gateway.names()[-6:].count("handshake") <= 1
    assert [one["clientId"] for one in line.gateway.all("requestNotifications")] == ["client-2"]
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert chat.state == "active"


def test_advice_handshake_is_followed_without_an_error_code(line):
    line.start()
    line.gateway.script("connect", line.gateway.refuse("", reconnect="handshake"))
    line.advance(3)
    assert line.gateway.names().count("handshake") == 2
    assert line.heard.names == []


def test_message_of_unknown_client_is_sent_again_and_resolves(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse("402::session_unknown"))
    receipt = chat.send_message("hi")
    line.advance(2)
    assert line.gateway.names().count("handshake") == 2
    sent = line.gateway.all("sendMessage")
    assert [one["clientId"] for one in sent] == ["client-1", "client-2"]
    assert sent[0]["data"] == sent[1]["data"]
    assert line.heard.texts() == ["hi"]
    assert receipt.status == "delivered"
    assert set(line.heard.names) == {"messageReceived"}


def test_message_refused_twice_is_rejected(line):
    chat = line.start()
    line.gateway.script("sendMessage", *[line.gateway.refuse(UNKNOWN)] * 5)
    with pytest.raises(CommandRejected, match="does not know this client") as rejected:
        chat.send_message("hi")
    assert rejected.value.response.body["error"] == UNKNOWN
    assert len(line.gateway.all("sendMessage")) == 2


def test_message_is_rejected_if_new_handshake_fails(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", NO_RESPONSE, NO_RESPONSE)
    with pytest.raises(CommandRejected, match="refused"):
        chat.send_message("hi")
    assert line.heard.take() == ["disconnected", "connectionPending"]
    line.advance(10)
    assert line.heard.take() == ["connectionRestored", "reconnected"]
    assert len(line.gateway.all("sendMessage")) == 1


def test_message_is_not_repeated_to_ended_chat(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(chatEnded=True)))
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        chat.send_message("hi")
    assert chat.state == "ended"
    assert line.heard.names == ["ended"]


@pytest.mark.parametrize("command", ["sendCustomNotice", "updateUserData", "sendTyping"])
def test_every_publish_of_unknown_client_is_repeated(line, command):
    chat = line.start()
    name = {"sendTyping": "startTyping", "updateUserData": "updateData"}.get(command, "customNotice")
    line.gateway.script(name, line.gateway.refuse(UNKNOWN))
    assert chat.command(command, {"message": "m"}).status == "resolved"
    assert len(line.gateway.all(name)) == 2


def test_end_chat_of_unknown_client_is_repeated(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    assert chat.command("endChat")
    assert line.heard.names[-2:] == ["clientDisconnected", "ended"]
    assert line.gateway.names()[-2:] == ["disconnect", "bye"]


def test_client_renewed_by_another_thread_is_kept(line):
    chat, outcomes = line.start(), []

    def forgotten_while_asked(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        outcomes.append(chat.command("sendMessage", {"message": "hi"}).status)  # makes a handshake of its own
        return line.gateway.refuse(UNKNOWN)(message)

    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", forgotten_while_asked)
    line.advance(3)
    assert outcomes == ["resolved"]
    assert line.gateway.names().count("handshake") == 3
    assert {one["clientId"] for one in line.gateway.all("connect")[-2:]} == {"client-3"}
    assert line.heard.names == ["messageReceived"]


def test_server_that_drops_every_client_is_not_flooded(line):
    chat = line.start()
    line.gateway.script("connect", *[line.gateway.refuse(UNKNOWN)] * 200)
    line.advance(30)
    assert line.gateway.names().count("handshake") < 30
    assert chat.state == "offline"
    assert {"disconnected", "chatServerWentOffline"} <= set(line.heard.names)


def test_failed_request_for_missed_messages_is_repeated(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", NO_RESPONSE)
    line.advance(5)
    assert line.heard.names[:2] == ["disconnected", "connectionPending"]
    assert line.heard.texts() == ["missed"]
    assert line.heard.names.count("reconnected") == 1


def test_request_repeats_while_the_chat_server_is_unavailable(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", *[line.gateway.accept(envelope(statusCode=1))] * 3)
    line.advance(12)
    assert line.gateway.moments("requestNotifications") == [0, 3, 6, 9]
    assert line.heard.texts() == ["missed"]


def test_silent_server_of_known_client_gets_31_requests(line):
    line.start()
    lost_at(line, 1)
    line.gateway.script("requestNotifications", *[line.gateway.accept()] * 100)
    line.advance(600)
    assert len(line.gateway.all("requestNotifications")) == 31
    assert (line.chat.state, line.chat.health().failures) == ("active", 0)


# A server that disconnects the client


def disconnect_before_reply(message):
    return [
        {"channel": "/meta/disconnect", "successful": True},
        {"id": message["id"], "channel": "/meta/connect", "successful": True},
    ]


def disconnect_alone(message):
    return [{"channel": "/meta/disconnect"}]


@pytest.mark.parametrize("disconnect", [disconnect_before_reply, disconnect_alone])
def test_server_disconnect_is_followed_by_a_handshake_at_once(line, disconnect):
    chat = line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", disconnect)
    line.advance(3)
    assert line.heard.names == ["disconnected", "reconnected", "messageReceived"]
    assert line.gateway.names().count("handshake") == 2
    assert chat.state == "active"


def test_server_that_disconnects_repeatedly_is_not_flooded(line):
    line.start()
    line.gateway.script("connect", *[disconnect_before_reply] * 200)
    line.advance(30)
    assert line.gateway.names().count("handshake") < 30


def test_outage_after_server_disconnect_ends_with_active_chat(line):
    line.start()
    line.gateway.script("connect", disconnect_before_reply)
    line.gateway.script("handshake", *[NO_RESPONSE] * 7)
    line.advance(15)
    assert line.chat.state == "active"
    line.advance(60)
    assert line.chat.state == "active"
    assert [name for name in line.heard.names if name not in CONNECTION_EVENTS] == [
        "disconnected", "chatServerWentOffline", "chatServerBackOnline", "reconnected",
    ]  # fmt: skip


# End of the chat


@pytest.mark.parametrize("failure", ["refused", "HTTP 500"])
def test_refused_end_chat_rejects_and_ends_the_chat(line, failure):
    chat = line.start()
    line.gateway.script(
        "disconnect", line.gateway.refuse("403::No") if failure == "refused" else HttpAnswer(status=500)
    )
    outcome = chat.command("endChat")
    assert (outcome.status, chat.state) == ("rejected", "ended")
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_end_chat_over_a_lost_connection_resolves(line):
    chat = line.start()
    lost_at(line, 50)
    line.gateway.script("disconnect", NO_RESPONSE)
    line.advance(1)
    assert chat.command("endChat").status == "resolved"
    assert [name for name in line.heard.names if name not in CONNECTION_EVENTS] == [
        "disconnected",
        "clientDisconnected",
        "ended",
    ]
    assert "bye" not in line.gateway.names()


def test_end_chat_resolves_if_client_cannot_be_renewed(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", NO_RESPONSE)
    assert chat.command("endChat").status == "resolved"
    assert (chat.state, line.heard.names[-1]) == ("ended", "ended")
    line.advance(60)
    assert line.heard.names[-1] == "ended"


def test_unanswered_bayeux_disconnect_changes_nothing(line):
    chat = line.start()
    line.gateway.script("bye", NO_RESPONSE)
    assert chat.command("endChat")
    assert line.gateway.requests[-1].timeout == 2


def test_close_sends_nothing_and_keeps_the_chat(line):
    chat = line.start()
    before = len(line.gateway.sent)
    assert chat.close()
    line.advance(120)
    assert len(line.gateway.sent) == before
    assert line.store.load().session_data.secure_key == "k-1"


# Pushes of the chat server


@pytest.mark.parametrize("limit", [0, 2, 5])
def test_pushes_with_status_1_over_the_limit_go_offline(line, limit):
    chat = line.start(pollExceptionLimit=limit)
    line.gateway.queue += [push(envelope(statusCode=1))] * (limit + 1)
    line.advance(1)
    assert chat.state == "offline"
    assert line.heard.take() == ["connectionPending", "chatServerWentOffline"]
    line.advance(30)
    assert (chat.state, line.heard.take()) == ("offline", [])
    line.gateway.say("back")
    line.advance(1)
    assert chat.state == "active"
    assert line.heard.take() == ["chatServerBackOnline", "connectionRestored", "messageReceived"]


def test_good_push_resets_count_of_failures(line):
    chat = line.start(pollExceptionLimit=1)
    for _ in range(3):
        line.gateway.queue.append(push(envelope(statusCode=1)))
        line.gateway.say("good")
    line.advance(2)
    assert chat.state == "active"
    assert "chatServerWentOffline" not in line.heard.names


def test_reconnect_does_not_end_chat_server_offline(line):
    chat = line.start(pollExceptionLimit=1)
    line.gateway.queue += [push(envelope(statusCode=1))] * 2
    line.advance(1)
    lost_at(line, 1)
    line.gateway.script("requestNotifications", *[line.gateway.accept(envelope(statusCode=1))] * 2)
    line.advance(4)
    assert chat.state == "offline"
    assert line.heard.take() == ["connectionPending", "chatServerWentOffline", "disconnected", "reconnected"]
    line.advance(8)
    assert line.heard.take() == ["chatServerBackOnline", "connectionRestored"]


def test_push_with_status_1_changes_no_state_or_position(line):
    chat = line.start()
    line.gateway.queue.append(push(envelope(statusCode=1, chatEnded=True, nextPosition=99)))
    line.gateway.say("after it")
    line.advance(2)
    assert (chat.state, line.heard.texts()) == ("active", ["after it"])


def test_refusal_that_ends_the_chat_publishes_error_first(line):
    chat = line.start()
    gone = [{"code": 249, "advice": "gone"}]
    refusal = {"statusCode": 2, "chatId": "c-1", "chatEnded": True, "messages": [], "errors": gone}
    line.gateway.queue.append(push(refusal))
    line.advance(1)
    assert line.heard.names == ["error", "ended"]
    assert line.heard.last("error").response.errors[0]["code"] == 249
    assert (chat.state, line.gateway.names()[-1]) == ("ended", "bye")


def test_refusal_in_a_chat_that_continues_publishes_error_only(line):
    chat = line.start()
    line.gateway.queue.append(push(envelope(statusCode=2, errors=[{"code": 100}])))
    line.advance(1)
    assert (chat.state, line.heard.names) == ("active", ["error"])


@pytest.mark.parametrize(
    "data",
    [
        "text",
        7,
        None,
        [],
        {},
        {"statusCode": "x"},
        {"statusCode": 404, "message": "not here"},
    ],
)
def test_unreadable_push_publishes_error_and_chat_continues(line, data):
    chat = line.start()
    line.gateway.queue.append(push(data))
    line.gateway.say("still here")
    line.advance(2)
    assert line.heard.names == ["error", "connectionPending", "connectionRestored", "messageReceived"]
    assert chat.state == "active"


def test_messages_of_an_unreadable_push_are_requested(line):
    line.start()
    line.gateway.add("Message", "held")
    line.gateway.queue.append(push({"error": 7}))
    line.advance(2)
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert line.heard.texts() == ["held"]


def test_refused_user_requests_do_not_set_chat_offline(line):
    chat = line.start()
    for _ in range(7):
        line.gateway.queue.append(push(envelope(statusCode=2, errors=[{"code": 204}])))
        chat.command("sendMessage", {"message": "too long"})
        line.advance(1)
    assert (line.heard.take().count("error"), chat.state, chat.health().failures) == (7, "active", 0)


def test_doubled_or_unordered_pushes_are_published_once(line):
    chat = line.start()
    two, three, four = (event(number, text=str(number)) for number in (2, 3, 4))
    line.gateway.queue += [push(envelope(four)), push(envelope(three, two)), push(envelope(two, three, four))]
    line.advance(2)
    assert sorted(line.heard.texts()) == ["2", "3", "4"]
    assert [message.text for message in chat.get_transcript().messages][1:] == ["2", "3", "4"]


def test_new_keys_are_adopted_from_every_good_push(line):
    chat = line.start()
    line.gateway.queue.append(push(envelope(alias="a-2", secureKey="k-2")))
    line.advance(1)
    chat.send_message("hi")
    sent = line.gateway.all("sendMessage")[-1]["data"]
    assert (sent["alias"], sent["secureKey"], sent["userId"], sent["chatId"]) == ("a-2", "k-2", "u-1", "c-1")


def test_push_on_another_channel_is_ignored(line):
    line.start()
    line.gateway.queue.append({"channel": "/service/chatV2/other", "data": envelope(chatEnded=True)})
    line.advance(2)
    assert (line.chat.state, line.heard.names) == ("active", [])


# Publishes


@pytest.mark.parametrize(
    ("fault", "text"), [("refused", "403 Forbidden"), ("HTTP", "HTTP status 500"), ("garbage", "cannot be read")]
)
def test_refused_publish_rejects_without_events(line, fault, text):
    chat = line.start()
    answers = {"refused": line.gateway.refuse("403::Forbidden"), "HTTP": HttpAnswer(status=500), "garbage": b"<html>"}
    line.gateway.script("sendMessage", answers[fault])
    with pytest.raises(CommandRejected, match=text):
        chat.send_message("hi")
    line.advance(2)
    assert line.heard.names == []
    assert len(line.gateway.all("sendMessage")) == 1


def test_publish_without_answer_is_disconnected_until_a_connect(line):
    chat = line.start()
    line.gateway.script("sendMessage", NO_RESPONSE)
    with pytest.raises(CommandRejected, match="connection refused"):
        chat.send_message("hi")
    assert line.heard.take() == ["disconnected"]
    line.advance(1)
    assert line.heard.take() == ["reconnected"]


def test_send_while_disconnected_is_sent_before_reconnect(line):
    chat = line.start()
    lost_at(line, 3)
    line.advance(1)
    line.heard.take()
    assert chat.send_message("hi").status == "sent"
    assert line.heard.take() == []
    line.advance(6)
    assert line.heard.take()[:2] == ["connectionRestored", "reconnected"]


@pytest.mark.parametrize("reply", [{"successful": True}, {"successful": True, "id": None}])
def test_acknowledgement_without_id_is_accepted(line, reply):
    chat = line.start()
    line.gateway.script("sendMessage", lambda message: [{**reply, "channel": message["channel"]}])
    assert chat.send_message("hi").status == "sent"


def test_acknowledgement_of_other_message_is_not_accepted(line):
    chat = line.start()
    line.gateway.script("sendMessage", lambda message: [{"id": "1", "channel": message["channel"], "successful": True}])
    with pytest.raises(CommandRejected, match="no reply to message"):
        chat.send_message("hi")


# Concurrency in one thread: the action of another thread is performed inside a request


def test_old_connect_after_a_new_handshake_counts_for_pushes(line):
    chat = line.start()
    unknown = line.gateway.refuse(UNKNOWN, reconnect="handshake")

    def meanwhile(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        assert chat.send_message("hi").status == "sent"
        return [push(envelope(event(9, text="late"))), *unknown(message)]

    line.gateway.script("connect", meanwhile)
    line.advance(3)
    assert line.gateway.names().count("handshake") == 2
    assert sorted(line.heard.texts()) == ["hi", "late"]
    assert set(line.heard.names) == {"messageReceived"}
    assert line.gateway.all("connect")[-1]["clientId"] == "client-2"


def test_two_messages_of_unknown_client_are_both_sent_again(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        assert chat.send_message("second").status == "sent"
        return line.gateway.refuse(UNKNOWN)(message)

    line.gateway.script("sendMessage", meanwhile)
    assert chat.send_message("first").status == "sent"
    line.advance(5)
    assert sorted(line.heard.texts()) == ["first", "second"]
    assert {one["clientId"] for one in line.gateway.all("connect")[-5:]} == {"client-2"}
    assert line.gateway.names().count("handshake") == 2
    moments = line.gateway.moments("connect")[-5:]
    assert {round(later - sooner, 3) for sooner, later in pairwise(moments)} == {0.5}


def test_failed_handshake_beside_a_good_one_changes_nothing(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        assert chat.send_message("second").status == "sent"
        raise NO_RESPONSE

    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", meanwhile)
    with pytest.raises(CommandRejected):
        chat.send_message("first")
    line.advance(3)
    assert "disconnected" not in line.heard.names
    assert line.heard.texts() == ["second"]


@pytest.mark.parametrize("answer", ["no response", "accepted", "refused"])
def test_end_chat_with_pushed_end_settles_by_own_response(line, answer):
    chat = line.start()

    def meanwhile(message):
        line.gateway.queue.append(push(envelope(chatEnded=True)))
        line.advance(1)
        assert chat.state == "ended"
        if answer == "no response":
            raise NO_RESPONSE
        return (line.gateway.accept() if answer == "accepted" else line.gateway.refuse("404::Gone"))(message)

    line.gateway.script("disconnect", meanwhile)
    assert chat.command("endChat").status == ("rejected" if answer == "refused" else "resolved")
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_end_chat_waiting_for_handshake_resolves_if_ended(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(chatEnded=True)))
    assert chat.command("endChat").status == "resolved"
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_close_rejects_a_message_waiting_for_a_handshake(line):
    chat = line.start()

    def closing(message):
        chat.close()
        return Gateway._handshake(line.gateway, message)

    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", closing)
    assert chat.command("sendMessage", {"message": "hi"}).status == "rejected"
    assert len(line.gateway.all("sendMessage")) == 1


def test_new_client_dropped_before_its_request_is_a_loss(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.refuse(UNKNOWN))
    line.advance(5)
    assert line.gateway.names().count("handshake") == 3
    assert [name for name in line.heard.names if name not in CONNECTION_EVENTS] == [
        "disconnected",
        "reconnected",
        "messageReceived",
    ]


# Interrupted


@pytest.mark.parametrize("where", ["handshake", "requestChat", "connect"])
def test_interrupted_start_returns_to_idle(line, where):
    line.gateway.script(where, KeyboardInterrupt())
    chat = line.open()
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="Jonny")
    assert chat.state == "idle"
    assert chat.start_chat(nickname="Jonny")


def test_interrupted_message_keeps_the_connection(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        chat.send_message("hi")
    line.gateway.say("still here")
    line.advance(5)
    assert (chat.state, line.heard.texts()) == ("active", ["still here"])


@pytest.mark.parametrize("where", ["disconnect", "handshake"])
def test_interrupted_end_chat_ends_chat(line, where):
    chat = line.start()
    if where == "handshake":
        line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script(where, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        chat.end_chat()
    assert (chat.state, line.chat.can("startChat")) == ("ended", True)
