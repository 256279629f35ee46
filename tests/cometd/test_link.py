"""The Bayeux connection: handshake, first push, advice, reconnects, a server that forgets or hangs up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.cometd.gateway import NOBODY, UNKNOWN, Gateway, envelope, event, push
from webchat_fsm import CommandRejected
from webchat_fsm.wire.request import HttpAnswer

UNTOLD = {"connectionPending", "connectionRestored"}


def lost_at(line, times: int) -> None:
    line.gateway.script("connect", *[NOBODY] * times)


# Beginning


def test_the_messages_of_a_start_in_their_order(line):
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names() == ["handshake", "requestChat", "connect"]
    handshake, request, connect = line.gateway.sent
    assert handshake == {
        "id": "1", "version": "1.0", "minimumVersion": "1.0", "channel": "/meta/handshake",
        "supportedConnectionTypes": ["long-polling"], "advice": {"timeout": 60000, "interval": 0},
    }  # fmt: skip
    assert (request["clientId"], connect["clientId"]) == ("client-1", "client-1")
    assert connect["advice"] == {"timeout": 0}


@pytest.mark.parametrize("failure", ["nobody", "refused", "HTTP 500"])
def test_a_start_shakes_hands_five_times(line, failure):
    answer = {"nobody": NOBODY, "refused": line.gateway.refuse("403::No"), "HTTP 500": HttpAnswer(status=500)}[failure]
    line.gateway.script("handshake", *[answer] * 5)
    with pytest.raises(CommandRejected) as told:
        line.open().start_chat(nickname="Jonny")
    assert line.gateway.moments("handshake") == [0, 1, 3, 6, 10]
    assert line.gateway.names() == ["handshake"] * 5
    assert (line.chat.state, told.value.state) == ("idle", "idle")
    assert line.heard.names == ["ready", "error"]


def test_four_failed_handshakes_are_made_good_by_the_fifth(line):
    line.gateway.script("handshake", *[NOBODY] * 4)
    line.open().start_chat(nickname="Jonny")
    assert line.heard.names[:2] == ["ready", "started"]


def test_a_handshake_that_must_not_be_repeated_is_not(line):
    line.gateway.script("handshake", line.gateway.refuse("403::No", reconnect="none"))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert outcome.status == "rejected"
    assert line.gateway.names() == ["handshake"]


def test_the_first_push_with_a_key_starts_the_chat_and_others_before_it_do_not(line):
    strange = {"statusCode": 0, "messages": []}
    line.gateway.script("requestChat", line.gateway.taken(strange, {**strange, "alias": "a-1"}))
    line.gateway.script("connect", line.gateway.taken(), line.gateway.taken(envelope(event(1, "ParticipantJoined"))))
    chat = line.open()
    chat.start_chat(nickname="Jonny")
    assert chat.get_session_data().secure_key == "k-1"
    assert line.heard.names.count("started") == 1


@pytest.mark.parametrize("before", [True, False])
def test_the_first_push_may_come_in_the_answer_to_the_publish(line, before):
    joined = envelope(event(1, "ParticipantJoined", sender="Client", party=1))
    line.gateway.script("requestChat", line.gateway.taken(joined, before=before))
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names() == ["handshake", "requestChat"]
    assert line.heard.names == ["ready", "started", "clientConnected", "messageReceived"]


def test_what_comes_behind_the_first_push_is_heard_in_order(line):
    first, second = envelope(event(1, text="one")), envelope(event(2, text="two"))
    line.gateway.script("requestChat", line.gateway.taken(first, second))
    line.open().start_chat(nickname="Jonny")
    assert line.heard.names == ["ready", "started", "messageReceived", "messageReceived"]
    assert line.heard.texts() == ["one", "two"]


@pytest.mark.parametrize("code", [1, 2])
def test_a_push_with_another_status_refuses_the_start_with_its_envelope(line, code):
    refusal = envelope(statusCode=code, errors=[{"code": 240, "advice": "closed today"}])
    line.gateway.script("requestChat", line.gateway.taken(refusal))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert outcome.reason == refusal
    assert line.heard.names == ["ready"]
    assert (line.chat.state, line.gateway.names()[-1]) == ("idle", "bye")


def test_a_push_that_says_it_is_over_already_is_no_start(line):
    line.gateway.script("requestChat", line.gateway.taken(envelope(chatEnded=True)))
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, line.chat.state) == ("rejected", "idle")
    assert line.heard.names == ["ready", "error"]


@pytest.mark.parametrize("failure", ["nobody", "refused", "HTTP 500"])
def test_a_request_that_is_not_taken_fails_the_start(line, failure):
    refused = line.gateway.refuse("403::Forbidden")
    line.gateway.script(
        "requestChat", {"nobody": NOBODY, "refused": refused, "HTTP 500": HttpAnswer(status=500)}[failure]
    )
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, line.chat.state) == ("rejected", "idle")
    assert line.heard.names == ["ready", "error"]
    assert line.gateway.names().count("requestChat") == 1


def test_a_mute_server_is_given_up_after_ten_seconds(line, webchat_timeline):
    line.gateway.script("requestChat", line.gateway.taken())
    chat, began = line.open(), webchat_timeline.now()
    with pytest.raises(CommandRejected, match="the chat server said nothing in time"):
        chat.start_chat(nickname="Jonny")
    assert 8 <= webchat_timeline.now() - began <= 12
    assert len(line.gateway.all("connect")) < 30
    assert line.heard.names == ["ready", "error"]
    assert line.gateway.names()[-1] == "bye"
    assert chat.start_chat(nickname="Jonny")


def test_a_server_that_answers_every_connect_at_once_is_not_run_down_by_a_waiting_start(line):
    line.gateway.advice["interval"] = 0
    line.gateway.script("requestChat", line.gateway.taken())
    line.open().command("startChat", {"nickname": "Jonny"})
    assert len(line.gateway.all("connect")) < 30


def test_failed_connects_while_the_first_push_is_awaited_are_repeated(line):
    lost_at(line, 2)
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.moments("connect") == [0, 1, 3]
    assert "disconnected" not in line.heard.names


def test_a_start_in_the_name_of_a_forgotten_client_is_sent_again_in_a_new_one(line):
    line.gateway.script("requestChat", line.gateway.refuse(UNKNOWN))
    line.open().start_chat(nickname="Jonny")
    assert line.gateway.names()[:4] == ["handshake", "requestChat", "handshake", "requestChat"]
    assert [message["clientId"] for message in line.gateway.all("requestChat")] == ["client-1", "client-2"]


def test_a_start_is_not_repeated_for_ever(line):
    line.gateway.script("requestChat", *[line.gateway.refuse(UNKNOWN)] * 9)
    assert line.open().command("startChat", {"nickname": "Jonny"}).status == "rejected"
    assert line.gateway.names().count("requestChat") == 2


def test_a_client_forgotten_behind_the_request_fails_the_start_as_its_chat_cannot_be_found(line):
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    assert line.open().command("startChat", {"nickname": "Jonny"}).status == "rejected"
    assert line.gateway.names() == ["handshake", "requestChat", "connect"]
    assert line.heard.names == ["ready", "error"]


def test_closing_in_the_midst_of_a_start_rejects_it(line):
    chat = line.open()

    def closing(message):
        chat.close()
        return Gateway._handshake(line.gateway, message)

    line.gateway.script("handshake", closing)
    outcome = chat.command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, chat.state) == ("rejected", "idle")
    assert line.gateway.names() == ["handshake"]


# Connects


def test_the_first_connect_wants_an_answer_at_once_and_the_others_are_held(line):
    line.start()
    line.advance(3)
    hints = [message.get("advice") for message in line.gateway.all("connect")]
    assert hints[0] == {"timeout": 0}
    assert hints[-3:] == [None] * 3


def test_the_interval_of_the_advice_is_kept(line):
    line.gateway.advice["interval"] = 2000
    line.start()
    line.advance(7)
    moments = line.gateway.moments("connect")
    assert moments[-3:] == [moments[-3], moments[-3] + 2, moments[-3] + 4]


def test_the_time_out_of_the_advice_bounds_a_held_connect(line):
    line.gateway.advice["timeout"] = 20000
    line.start()
    assert next(request.timeout for request in line.gateway.requests if request.operation == "connect") == 10
    line.advance(2)
    assert line.gateway.requests[-1].timeout == 30


def test_an_answer_without_advice_changes_nothing(line):
    line.start()
    line.gateway.script("connect", *[line.gateway.taken()] * 20)
    line.advance(4)
    assert len(line.gateway.moments("connect")) <= 12
    assert line.gateway.requests[-1].timeout == 40


def test_a_server_that_holds_nothing_is_given_half_a_second(line):
    line.gateway.advice.update(interval=0, timeout=0)
    line.start()
    line.advance(10)
    assert len(line.gateway.all("connect")) < 30


# Reconnects


def test_reconnects_follow_after_one_two_three_seconds_with_the_same_client(line):
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


def test_reconnects_are_never_more_than_a_minute_apart(line):
    line.start()
    lost_at(line, 70)
    line.advance(3000)
    moments = line.gateway.moments("connect")
    assert max(later - sooner for sooner, later in pairwise(moments)) == 60


def test_a_lost_connection_is_told_once_and_missed_messages_are_asked_for(line):
    chat = line.start()
    lost_at(line, 3)
    line.advance(2)
    assert (line.heard.take(), chat.state) == (["disconnected", "connectionPending"], "active")
    line.gateway.add("Message", "missed")
    line.advance(10)
    assert line.heard.take() == ["connectionRestored", "reconnected", "messageReceived"]
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]


def test_what_waited_for_the_client_and_is_asked_for_too_comes_once(line):
    line.start()
    lost_at(line, 1)
    line.advance(0.6)
    line.gateway.say("waiting")
    line.advance(5)
    assert line.heard.texts() == ["waiting"]
    assert len(line.gateway.all("requestNotifications")) == 1


def test_messages_are_asked_for_from_where_the_first_of_them_may_be_missed(line):
    chat = line.start()
    lost_at(line, 3)
    line.gateway.add("Message", "missed")
    line.advance(0.6)
    line.gateway.script("sendMessage", line.gateway.taken(envelope(line.gateway.add("Message", "seen"))))
    chat.send_message("hi")
    line.advance(10)
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert sorted(line.heard.texts()) == ["missed", "seen"]


@pytest.mark.parametrize(("limit", "failures"), [(0, 1), (2, 3), (5, 6)])
def test_more_failed_reconnects_than_the_limit_go_offline_and_one_good_one_comes_back(line, limit, failures):
    chat = line.start(pollExceptionLimit=limit)
    lost_at(line, failures)
    line.advance(0.5 + sum(range(failures)))
    assert chat.state == "offline"
    assert line.heard.take() == ["disconnected", "connectionPending", "chatServerWentOffline"]
    line.gateway.script("requestNotifications", line.gateway.taken())  # nothing is pushed: the connect has said enough
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
def test_a_connect_answered_badly_is_a_failed_one(line, answer):
    line.start()
    line.gateway.script("connect", answer)
    line.advance(5)
    assert line.heard.names == ["disconnected", "connectionPending", "connectionRestored", "reconnected"]


def test_a_connect_answered_too_many_requests_is_obeyed_and_no_failure(line):
    line.start()
    line.gateway.script("connect", HttpAnswer(status=429, headers={"retry-after": "7"}))
    before = len(line.gateway.all("connect"))
    line.advance(7)
    assert len(line.gateway.all("connect")) == before + 1
    line.advance(2)
    assert len(line.gateway.all("connect")) > before + 1
    assert line.heard.names == []


def test_a_connect_refused_without_a_known_reason_is_a_failed_one(line):
    line.start()
    line.gateway.script("connect", line.gateway.refuse("500::Busy", reconnect="retry"))
    line.advance(5)
    assert line.heard.names == ["disconnected", "connectionPending", "connectionRestored", "reconnected"]


# A server that forgets


@pytest.mark.parametrize("error", ["402::Unknown client", "402::session_unknown", "402:x:y", "402"])
def test_a_forgotten_client_shakes_hands_and_catches_up_without_a_word(line, error):
    chat = line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(error, reconnect="handshake", interval=0))
    line.advance(3)
    assert line.heard.names == ["messageReceived"]
    assert line.gateway.names()[-6:].count("handshake") <= 1
    assert [one["clientId"] for one in line.gateway.all("requestNotifications")] == ["client-2"]
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert chat.state == "active"


def test_the_advice_to_shake_hands_is_followed_whatever_the_error(line):
    line.start()
    line.gateway.script("connect", line.gateway.refuse("", reconnect="handshake"))
    line.advance(3)
    assert line.gateway.names().count("handshake") == 2
    assert line.heard.names == []


def test_a_message_that_was_not_taken_is_sent_again_once_and_resolves(line):
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


def test_a_message_refused_twice_rejects(line):
    chat = line.start()
    line.gateway.script("sendMessage", *[line.gateway.refuse(UNKNOWN)] * 5)
    with pytest.raises(CommandRejected, match="does not know this client") as told:
        chat.send_message("hi")
    assert told.value.response.body["error"] == UNKNOWN
    assert len(line.gateway.all("sendMessage")) == 2


def test_a_message_that_cannot_be_sent_again_rejects_and_the_connection_is_sought(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", NOBODY, NOBODY)
    with pytest.raises(CommandRejected, match="refused"):
        chat.send_message("hi")
    assert line.heard.take() == ["disconnected", "connectionPending"]
    line.advance(10)
    assert line.heard.take() == ["connectionRestored", "reconnected"]
    assert len(line.gateway.all("sendMessage")) == 1


def test_a_message_is_not_sent_again_into_a_chat_that_is_over(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(chatEnded=True)))
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        chat.send_message("hi")
    assert chat.state == "ended"
    assert line.heard.names == ["ended"]


@pytest.mark.parametrize("command", ["sendCustomNotice", "updateUserData", "sendTyping"])
def test_every_publish_survives_a_forgotten_client(line, command):
    chat = line.start()
    name = {"sendTyping": "startTyping", "updateUserData": "updateData"}.get(command, "customNotice")
    line.gateway.script(name, line.gateway.refuse(UNKNOWN))
    assert chat.command(command, {"message": "m"}).status == "resolved"
    assert len(line.gateway.all(name)) == 2


def test_the_end_survives_a_forgotten_client(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    assert chat.command("endChat")
    assert line.heard.names[-2:] == ["clientDisconnected", "ended"]
    assert line.gateway.names()[-2:] == ["disconnect", "bye"]


def test_a_client_that_another_thread_has_renewed_meanwhile_is_not_given_up(line):
    chat, outcomes = line.start(), []

    def forgotten_while_asked(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        outcomes.append(chat.command("sendMessage", {"message": "hi"}).status)  # shakes hands for itself
        return line.gateway.refuse(UNKNOWN)(message)

    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", forgotten_while_asked)
    line.advance(3)
    assert outcomes == ["resolved"]
    assert line.gateway.names().count("handshake") == 3
    assert {one["clientId"] for one in line.gateway.all("connect")[-2:]} == {"client-3"}
    assert line.heard.names == ["messageReceived"]


def test_a_server_that_forgets_again_and_again_is_not_run_down(line):
    chat = line.start()
    line.gateway.script("connect", *[line.gateway.refuse(UNKNOWN)] * 200)
    line.advance(30)
    assert line.gateway.names().count("handshake") < 30
    assert chat.state == "offline"
    assert {"disconnected", "chatServerWentOffline"} <= set(line.heard.names)


def test_a_request_for_missed_messages_that_fails_is_told_and_made_again(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", NOBODY)
    line.advance(5)
    assert line.heard.names[:2] == ["disconnected", "connectionPending"]
    assert line.heard.texts() == ["missed"]
    assert line.heard.names.count("reconnected") == 1


def test_missed_messages_are_asked_for_again_while_the_chat_server_is_unavailable(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", *[line.gateway.taken(envelope(statusCode=1))] * 3)
    line.advance(12)
    assert line.gateway.moments("requestNotifications") == [0, 3, 6, 9]
    assert line.heard.texts() == ["missed"]


def test_mute_server_with_a_known_client_is_asked_31_times(line):
    line.start()
    lost_at(line, 1)
    line.gateway.script("requestNotifications", *[line.gateway.taken()] * 100)
    line.advance(600)
    assert len(line.gateway.all("requestNotifications")) == 31
    assert (line.chat.state, line.chat.health().failures) == ("active", 0)


# A server that hangs up


def hang_up(message):
    return [
        {"channel": "/meta/disconnect", "successful": True},
        {"id": message["id"], "channel": "/meta/connect", "successful": True},
    ]


def hang_up_alone(message):
    return [{"channel": "/meta/disconnect"}]


@pytest.mark.parametrize("farewell", [hang_up, hang_up_alone])
def test_a_server_that_hangs_up_is_called_again_at_once(line, farewell):
    chat = line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", farewell)
    line.advance(3)
    assert line.heard.names == ["disconnected", "reconnected", "messageReceived"]
    assert line.gateway.names().count("handshake") == 2
    assert chat.state == "active"


def test_a_server_that_hangs_up_again_and_again_is_not_run_down(line):
    line.start()
    line.gateway.script("connect", *[hang_up] * 200)
    line.advance(30)
    assert line.gateway.names().count("handshake") < 30


def test_a_server_that_hangs_up_and_is_gone_is_sought_and_found(line):
    line.start()
    line.gateway.script("connect", hang_up)
    line.gateway.script("handshake", *[NOBODY] * 7)
    line.advance(15)
    assert line.chat.state == "active"
    line.advance(60)
    assert line.chat.state == "active"
    assert [name for name in line.heard.names if name not in UNTOLD] == [
        "disconnected", "chatServerWentOffline", "chatServerBackOnline", "reconnected",
    ]  # fmt: skip


# Leaving


@pytest.mark.parametrize("failure", ["refused", "HTTP 500"])
def test_an_end_that_is_refused_rejects_and_is_over_all_the_same(line, failure):
    chat = line.start()
    line.gateway.script(
        "disconnect", line.gateway.refuse("403::No") if failure == "refused" else HttpAnswer(status=500)
    )
    outcome = chat.command("endChat")
    assert (outcome.status, chat.state) == ("rejected", "ended")
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_an_end_over_a_connection_that_is_gone_resolves(line):
    chat = line.start()
    lost_at(line, 50)
    line.gateway.script("disconnect", NOBODY)
    line.advance(1)
    assert chat.command("endChat").status == "resolved"
    assert [name for name in line.heard.names if name not in UNTOLD] == ["disconnected", "clientDisconnected", "ended"]
    assert "bye" not in line.gateway.names()


def test_an_end_whose_client_cannot_be_renewed_resolves(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", NOBODY)
    assert chat.command("endChat").status == "resolved"
    assert (chat.state, line.heard.names[-1]) == ("ended", "ended")
    line.advance(60)
    assert line.heard.names[-1] == "ended"


def test_a_farewell_that_nobody_answers_does_no_harm(line):
    chat = line.start()
    line.gateway.script("bye", NOBODY)
    assert chat.command("endChat")
    assert line.gateway.requests[-1].timeout == 2


def test_closing_leaves_the_chat_to_be_restored_and_sends_nothing(line):
    chat = line.start()
    before = len(line.gateway.sent)
    assert chat.close()
    line.advance(120)
    assert len(line.gateway.sent) == before
    assert line.store.load().session_data.secure_key == "k-1"


# What the chat server says


@pytest.mark.parametrize("limit", [0, 2, 5])
def test_more_pushes_with_status_1_than_the_limit_go_offline_and_a_good_one_comes_back(line, limit):
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


def test_a_good_push_between_two_bad_ones_begins_the_count_anew(line):
    chat = line.start(pollExceptionLimit=1)
    for _ in range(3):
        line.gateway.queue.append(push(envelope(statusCode=1)))
        line.gateway.say("good")
    line.advance(2)
    assert chat.state == "active"
    assert "chatServerWentOffline" not in line.heard.names


def test_a_reconnect_does_not_end_what_the_chat_server_has_said(line):
    chat = line.start(pollExceptionLimit=1)
    line.gateway.queue += [push(envelope(statusCode=1))] * 2
    line.advance(1)
    lost_at(line, 1)
    line.gateway.script("requestNotifications", *[line.gateway.taken(envelope(statusCode=1))] * 2)
    line.advance(4)
    assert chat.state == "offline"
    assert line.heard.take() == ["connectionPending", "chatServerWentOffline", "disconnected", "reconnected"]
    line.advance(8)
    assert line.heard.take() == ["chatServerBackOnline", "connectionRestored"]


def test_a_push_with_status_1_says_nothing_else_that_is_believed(line):
    chat = line.start()
    line.gateway.queue.append(push(envelope(statusCode=1, chatEnded=True, nextPosition=99)))
    line.gateway.say("after it")
    line.advance(2)
    assert (chat.state, line.heard.texts()) == ("active", ["after it"])


def test_a_refusal_that_ends_the_chat_is_told_as_an_error_first(line):
    chat = line.start()
    gone = [{"code": 249, "advice": "gone"}]
    refusal = {"statusCode": 2, "chatId": "c-1", "chatEnded": True, "messages": [], "errors": gone}
    line.gateway.queue.append(push(refusal))
    line.advance(1)
    assert line.heard.names == ["error", "ended"]
    assert line.heard.last("error").response.errors[0]["code"] == 249
    assert (chat.state, line.gateway.names()[-1]) == ("ended", "bye")


def test_a_refusal_in_a_chat_that_goes_on_is_an_error_only(line):
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
def test_a_push_that_cannot_be_read_is_told_and_the_chat_goes_on(line, data):
    chat = line.start()
    line.gateway.queue.append(push(data))
    line.gateway.say("still here")
    line.advance(2)
    assert line.heard.names == ["error", "connectionPending", "connectionRestored", "messageReceived"]
    assert chat.state == "active"


def test_what_a_push_held_that_cannot_be_read_is_asked_for(line):
    line.start()
    line.gateway.add("Message", "held")
    line.gateway.queue.append(push({"error": 7}))
    line.advance(2)
    assert [one["data"]["transcriptPosition"] for one in line.gateway.all("requestNotifications")] == [2]
    assert line.heard.texts() == ["held"]


def test_refusals_of_what_the_user_asks_for_put_no_chat_offline(line):
    chat = line.start()
    for _ in range(7):
        line.gateway.queue.append(push(envelope(statusCode=2, errors=[{"code": 204}])))
        chat.command("sendMessage", {"message": "too long"})
        line.advance(1)
    assert (line.heard.take().count("error"), chat.state, chat.health().failures) == (7, "active", 0)


def test_pushes_that_come_twice_or_in_disorder_are_told_once_each(line):
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


def test_what_is_pushed_on_another_channel_is_not_ours(line):
    line.start()
    line.gateway.queue.append({"channel": "/service/chatV2/other", "data": envelope(chatEnded=True)})
    line.advance(2)
    assert (line.chat.state, line.heard.names) == ("active", [])


# Publishes


@pytest.mark.parametrize(
    ("fault", "text"), [("refused", "403 Forbidden"), ("HTTP", "HTTP status 500"), ("garbage", "cannot be read")]
)
def test_a_publish_that_is_not_taken_rejects_and_publishes_nothing(line, fault, text):
    chat = line.start()
    answers = {"refused": line.gateway.refuse("403::Forbidden"), "HTTP": HttpAnswer(status=500), "garbage": b"<html>"}
    line.gateway.script("sendMessage", answers[fault])
    with pytest.raises(CommandRejected, match=text):
        chat.send_message("hi")
    line.advance(2)
    assert line.heard.names == []
    assert len(line.gateway.all("sendMessage")) == 1


def test_a_publish_without_an_answer_rejects_and_is_told_as_disconnected_until_the_next_answer(line):
    chat = line.start()
    line.gateway.script("sendMessage", NOBODY)
    with pytest.raises(CommandRejected, match="connection refused"):
        chat.send_message("hi")
    assert line.heard.take() == ["disconnected"]
    line.advance(1)
    assert line.heard.take() == ["reconnected"]


def test_a_send_while_disconnected_is_made_before_reconnecting(line):
    chat = line.start()
    lost_at(line, 3)
    line.advance(1)
    line.heard.take()
    assert chat.send_message("hi").status == "sent"
    assert line.heard.take() == []
    line.advance(6)
    assert line.heard.take()[:2] == ["connectionRestored", "reconnected"]


@pytest.mark.parametrize("reply", [{"successful": True}, {"successful": True, "id": None}])
def test_an_acknowledgement_without_an_id_counts(line, reply):
    chat = line.start()
    line.gateway.script("sendMessage", lambda message: [{**reply, "channel": message["channel"]}])
    assert chat.send_message("hi").status == "sent"


def test_the_acknowledgement_of_another_message_does_not_count(line):
    chat = line.start()
    line.gateway.script("sendMessage", lambda message: [{"id": "1", "channel": message["channel"], "successful": True}])
    with pytest.raises(CommandRejected, match="no reply to message"):
        chat.send_message("hi")


# Several things at once, played in one thread: what another thread would do happens inside a request


def test_a_connect_that_comes_home_after_another_thread_has_shaken_hands_is_only_listened_to(line):
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


def test_two_messages_that_both_were_not_taken_are_both_sent_again_and_one_connection_goes_on(line):
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


def test_a_handshake_that_fails_beside_one_that_went_well_does_no_harm(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        assert chat.send_message("second").status == "sent"
        raise NOBODY

    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", meanwhile)
    with pytest.raises(CommandRejected):
        chat.send_message("first")
    line.advance(3)
    assert "disconnected" not in line.heard.names
    assert line.heard.texts() == ["second"]


@pytest.mark.parametrize("answer", ["nobody", "taken", "refused"])
def test_an_end_that_the_server_tells_first_settles_by_its_own_answer(line, answer):
    chat = line.start()

    def meanwhile(message):
        line.gateway.queue.append(push(envelope(chatEnded=True)))
        line.advance(1)
        assert chat.state == "ended"
        if answer == "nobody":
            raise NOBODY
        return (line.gateway.taken() if answer == "taken" else line.gateway.refuse("404::Gone"))(message)

    line.gateway.script("disconnect", meanwhile)
    assert chat.command("endChat").status == ("rejected" if answer == "refused" else "resolved")
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_an_end_on_its_way_to_a_new_client_that_finds_the_chat_over_resolves(line):
    chat = line.start()
    line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(chatEnded=True)))
    assert chat.command("endChat").status == "resolved"
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_closing_while_a_message_waits_for_a_handshake_rejects_it(line):
    chat = line.start()

    def closing(message):
        chat.close()
        return Gateway._handshake(line.gateway, message)

    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", closing)
    assert chat.command("sendMessage", {"message": "hi"}).status == "rejected"
    assert len(line.gateway.all("sendMessage")) == 1


def test_a_new_client_that_is_forgotten_before_it_can_ask_is_told_as_a_lost_connection(line):
    line.start()
    line.gateway.add("Message", "missed")
    line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script("requestNotifications", line.gateway.refuse(UNKNOWN))
    line.advance(5)
    assert line.gateway.names().count("handshake") == 3
    assert [name for name in line.heard.names if name not in UNTOLD] == [
        "disconnected",
        "reconnected",
        "messageReceived",
    ]


# Interrupted


@pytest.mark.parametrize("where", ["handshake", "requestChat", "connect"])
def test_a_start_that_the_user_interrupts_is_given_up(line, where):
    line.gateway.script(where, KeyboardInterrupt())
    chat = line.open()
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="Jonny")
    assert chat.state == "idle"
    assert chat.start_chat(nickname="Jonny")


def test_an_interrupted_message_leaves_the_connection_alive(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        chat.send_message("hi")
    line.gateway.say("still here")
    line.advance(5)
    assert (chat.state, line.heard.texts()) == ("active", ["still here"])


@pytest.mark.parametrize("where", ["disconnect", "handshake"])
def test_an_interrupted_end_is_an_end(line, where):
    chat = line.start()
    if where == "handshake":
        line.gateway.script("disconnect", line.gateway.refuse(UNKNOWN))
    line.gateway.script(where, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        chat.end_chat()
    assert (chat.state, line.chat.can("startChat")) == ("ended", True)
