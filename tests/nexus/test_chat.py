"""Check a running v3 chat: poll requests, poll intervals, failures, events and unsupported commands."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.lifecycle.environment import LIMIT
from tests.nexus.environment import envelope, received
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.server._nexus_wire import index_of

V2_ONLY = {
    "connectionPending", "connectionRestored", "chatServerWentOffline", "chatServerBackOnline", "restoredOffline",
    "restoreTimeout", "botConnected", "botDisconnected",
}  # fmt: skip
"""Events that lifecycle.md reserves for v2 and cometd."""

POLL_FAILURES = {
    "status code": {"server_status": 1},
    "no answer": {"drop": True},
    "500": {"http_status": 500},
    "401": {"http_status": 401},
    "unreadable": {"body": b"<html>"},
    "deep": {"body": b"[" * 200_000},
    "no object": {"body": b"[1]"},
    "torn": {"tear": True},
}
"""Faults of a poll, each of which fails it."""


def fail(env, times=1, **fault):
    env.server.faults.add(operation="refresh", times=times, **(fault or {"http_status": 500}))


def last_index(env) -> str:
    return index_of(env.server.core.current_chat().transcript[-1])


# -- catching up -------------------------------------------------------------------------------------------------------


def test_poll_has_no_index_as_server_keeps_cursor(nexus):
    nexus.chatting("one", "two")
    nexus.advance(6)
    assert nexus.queries() == [{}, {}, {}, {}]
    assert nexus.heard.texts() == ["one", "two"]


@pytest.mark.parametrize("failure", POLL_FAILURES.values(), ids=POLL_FAILURES)
def test_poll_after_failure_catches_up_by_index(nexus, failure):
    agent = nexus.chatting("one")
    seen = last_index(nexus)
    agent.say("two")
    fail(nexus, 2, **failure, takes_effect=True)
    nexus.advance(8)
    agent.say("three")
    nexus.advance(9)
    after = nexus.queries()[2:]
    assert after[:3] == [{}, {"index": seen}, {"index": seen}]
    assert after[3:]
    assert not any(after[3:])
    assert nexus.heard.texts() == ["one", "two", "three"]


@pytest.mark.parametrize("failure", POLL_FAILURES.values(), ids=POLL_FAILURES)
def test_poll_after_first_failure_requests_everything(nexus, failure):
    """Request all messages, as the server may count a lost response as read and move its cursor past it."""
    nexus.open().start_chat(nickname="Jonny")
    agent = nexus.agent()
    agent.say("hello")
    fail(nexus, **failure, takes_effect=True)
    nexus.advance(4)
    assert nexus.queries() == [{}, {"index": "0-0"}]
    assert nexus.heard.texts() == ["hello"]
    assert nexus.heard.names.count("clientConnected") == nexus.heard.names.count("agentConnected") == 1


def test_polling_after_stop_continues_by_index(nexus):
    agent = nexus.chatting("one")
    nexus.chat.stop_poll()
    seen = last_index(nexus)
    agent.say("two")
    nexus.advance(60)
    assert nexus.heard.texts() == ["one"]
    nexus.chat.start_poll()
    nexus.advance(4)
    assert nexus.queries()[-2:] == [{"index": seen}, {}]
    assert nexus.heard.texts() == ["one", "two"]


def test_poll_after_interrupted_poll_catches_up_by_index(nexus):
    agent = nexus.chatting("one")
    seen = last_index(nexus)
    agent.say("two")

    def interrupted():
        nexus.http._inner.send(nexus.sent[-1])
        raise KeyboardInterrupt

    nexus.http.during("refresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nexus.chat.step()
    nexus.advance(4)
    assert nexus.queries()[-2:] == [{}, {"index": seen}]
    assert nexus.heard.texts() == ["one", "two"]


def test_repeated_poll_on_new_connection_sends_index(nexus):
    """Repeat by index, as the server has moved its cursor for the lost response and would skip its messages."""
    agent = nexus.chatting("one")
    seen = last_index(nexus)
    agent.say("two")
    nexus.advance(4)
    poll = nexus.sent[-1]
    assert "index" not in poll.url
    assert f"index={seen}&operationId=" in poll.repeat_url()


def test_message_repeated_by_inclusive_index_is_delivered_once(nexus):
    """Drop the last message that an inclusive server repeats at a poll by index."""
    nexus.chatting("one")
    original = nexus.heard.last("messageReceived").original_messages[-1]
    nexus.chat.stop_poll()
    nexus.chat.start_poll()
    nexus.http.answer("refresh", envelope(messages=[original, {**original, "index": "9999999999999-0", "text": "two"}]))
    nexus.advance(0)
    assert nexus.heard.texts() == ["one", "two"]


# -- intervals ---------------------------------------------------------------------------------------------------------


def steps(env, number: int) -> list[float]:
    """Return the pauses between the last polls, in seconds."""
    times = env.polls()[-number - 1 :]
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


@pytest.mark.parametrize(("given", "pause"), [({}, 3), ({"pollTimeout": 100}, 0.1), ({"pollTimeout": 60_000}, 60)])
def test_poll_interval_is_three_seconds_or_poll_timeout(v3, given, pause):
    v3.start(**given)
    v3.advance(3.5 * pause)
    assert steps(v3, 3) == [pause] * 3


def test_send_does_not_change_poll_interval(nexus):
    nexus.start()
    nexus.advance(3)
    nexus.advance(1)
    nexus.chat.send_message("hi")
    nexus.advance(5)
    assert steps(nexus, 2) == [3, 3]


@pytest.mark.parametrize("failure", POLL_FAILURES.values(), ids=POLL_FAILURES)
def test_poll_backoff_reaches_thirty_seconds_and_resets(nexus, failure):
    nexus.start(config={"pollExceptionLimit": 2})
    fail(nexus, 20, **failure)
    nexus.advance(3)
    while len(nexus.server.faults):
        nexus.advance(1)
    expected, pause = [], 3.0
    for _ in range(19):
        pause = min(pause * 1.2, 30.0)
        expected.append(round(pause, 3))
    assert steps(nexus, 19) == pytest.approx(expected, abs=0.002)
    assert expected[-1] == 30
    nexus.advance(30)
    nexus.advance(6)
    assert steps(nexus, 2) == [3, 3]


def test_poll_timeout_above_cap_is_kept_after_failures(v3):
    v3.start(pollTimeout=40_000, pollIntervalMultiplier=2)
    fail(v3, 2)
    v3.advance(121)
    assert steps(v3, 3) == [40, 40, 40]


def test_poll_429_keeps_delay_and_is_no_failure(nexus):
    nexus.start()
    fail(nexus, 2)
    nexus.advance(3 + 3.6)
    fail(nexus, 9, http_status=429)
    nexus.advance(4.33 * 8)
    assert steps(nexus, 8) == [4.32] * 8
    assert nexus.chat.state == "polling"
    assert nexus.heard.names.count("error") == 2
    nexus.advance(4.33 * 3)
    assert steps(nexus, 1) == [3]


def test_retry_after_is_obeyed_up_to_its_cap(nexus):
    nexus.start(config={"client": {"retry": {"retryAfterCap": 60_000}}})
    fail(nexus, http_status=429, retry_after=20)
    fail(nexus, http_status=503, retry_after=9)
    fail(nexus, http_status=429, retry_after=3600)
    fail(nexus, http_status=429, retry_after=1)
    nexus.advance(3 + 20 + 9 + 60 + 3.6)
    assert steps(nexus, 4) == [20, 9, 60, 3.6]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", POLL_FAILURES.values(), ids=POLL_FAILURES)
def test_failures_over_limit_are_offline_until_good_poll(nexus, failure):
    nexus.start()
    nexus.heard.take()
    silent = bool({"drop", "tear"} & failure.keys())
    fail(nexus, LIMIT + 3, **failure)
    states = []
    for _ in range(LIMIT + 3):
        assert not nexus.chat.step()
        states.append(nexus.chat.state.value)
    assert states == ["polling"] * LIMIT + ["offline"] * 3
    assert nexus.heard.take() == (["disconnected"] if silent else ["error"] * (LIMIT + 3))
    assert nexus.chat.step()
    assert nexus.chat.state == "polling"
    assert nexus.heard.take() == (["reconnected"] if silent else [])


def test_send_publishes_reconnected_but_state_stays_offline(nexus):
    nexus.start()
    fail(nexus, LIMIT + 1, drop=True)
    for _ in range(LIMIT + 1):
        nexus.chat.step()
    nexus.heard.take()
    nexus.chat.send_message("there?")
    assert nexus.heard.take() == ["reconnected"]
    assert nexus.chat.state == "offline"
    nexus.chat.step()
    assert nexus.heard.take() == ["messageReceived"]
    assert nexus.chat.state == "polling"


def test_poll_401_publishes_error_and_keeps_session(nexus):
    nexus.start()
    nexus.heard.take()
    fail(nexus, http_status=401)
    nexus.chat.step()
    assert nexus.heard.take() == ["error"]
    assert nexus.chat.state == "polling"
    assert nexus.store.load() is not None


@pytest.mark.parametrize("status", [500, 403, 429])
def test_rejection_without_message_names_http_status(nexus, status):
    chat = nexus.start()
    nexus.http.answer("send", b"<html>", status)
    assert f"HTTP status {status}" in repr(chat.command("sendMessage", {"message": "hi"}))


def test_stats_times_are_milliseconds(nexus):
    chat = nexus.start()
    ann = nexus.agent()
    nexus.advance(3)
    begun = round((nexus.timeline.now() - 3) * 1000)
    ann.say("hello")
    nexus.advance(3)
    ann.leave()
    nexus.advance(3)
    stats = chat.get_stats()
    (agent,) = stats.agents.values()
    assert stats.duration == stats.end_time - stats.start_time == 6000
    assert (agent.connected_time, agent.disconnected_time) == (begun, begun + 6000)


def test_sender_has_id_and_participant_id(nexus):
    nexus.chatting("hello")
    sender = nexus.chat.get_transcript().messages[-1].item()["from"]
    assert sender["participantId"] == sender["id"] != ""


def test_v2_only_events_are_not_published_on_v3(nexus):
    """Play every fault that causes a v2 event, bots among the participants, and a restore after a very long time."""
    nexus.start()
    bot = nexus.server.bot("Robby").join()
    bot.say("beep")
    for failure in POLL_FAILURES.values():
        fail(nexus, LIMIT + 2, **failure)
        for _ in range(LIMIT + 4):
            nexus.chat.step()
    bot.leave()
    bot.join()
    nexus.chat.step()
    heard = set(nexus.heard.names)
    nexus.away(90_000)
    heard |= set(nexus.heard.names)
    fail(nexus, LIMIT + 2, drop=True)
    for _ in range(LIMIT + 2):
        nexus.chat.step()
    nexus.chat.end_chat()
    heard |= set(nexus.heard.names)
    assert heard & V2_ONLY == set()
    assert {name for name, event in EVENTS.items() if nexus.transport not in event.transports} == V2_ONLY
    assert heard >= {
        "disconnected",
        "reconnected",
        "error",
        "restored",
        "messageReceived",
        "clientDisconnected",
        "ended",
    }


def test_bot_is_no_agent_and_publishes_only_messages(nexus):
    nexus.start()
    nexus.heard.take()
    bot = nexus.server.bot("Robby").join()
    bot.say("beep")
    bot.leave()
    nexus.advance(3)
    assert nexus.heard.take() == ["messageReceived"]
    assert nexus.chat.get_agents() == {}


# -- people and content ------------------------------------------------------------------------------------------------


def test_whole_chat_is_published_in_order(nexus):
    nexus.start()
    ann, sue = nexus.server.agent("Ann"), nexus.server.supervisor("Sue")
    for act in (ann.join, ann.typing, lambda: ann.say("hello"), sue.join, sue.typing, sue.stop_typing, sue.leave):
        act()
        nexus.advance(3)
    nexus.chat.send_message("thanks")
    nexus.advance(3)
    nexus.chat.end_chat()
    published = [name for name in nexus.heard.names if name != "messageReceived"]
    assert published == [
        "ready", "started", "pollingStarted", "clientConnected",
        "agentConnected", "agentTypingStarted", "agentTypingStopped", "supervisorConnected", "agentTypingStarted",
        "agentTypingStopped", "supervisorDisconnected",
        "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    assert nexus.heard.texts() == ["hello", "thanks"]
    assert [agent.name for agent in nexus.chat.get_agents().values()] == ["Ann", "Sue"]


def test_own_message_is_delivered_once_and_settles_receipt(nexus):
    nexus.start()
    receipt = nexus.chat.send_message("hi")
    assert receipt.status == "sent"
    nexus.advance(3)
    assert (receipt.status, nexus.heard.texts()) == ("delivered", ["hi"])
    assert receipt.index == nexus.heard.last("messageReceived").messages[-1].index


def test_own_typing_message_publishes_no_agent_typing(nexus):
    nexus.start()
    own = {"type": "Customer", "participantId": nexus.chat.get_session_data().participant_id, "nickname": "Jonny"}
    nexus.heard.take()
    nexus.http.answer(
        "refresh", envelope(messages=[{"index": "9999999999999-0", "type": "TypingStarted", "from": own}])
    )
    nexus.advance(3)
    assert nexus.heard.take() == ["messageReceived"]


def test_last_messages_are_delivered_before_server_end(nexus):
    agent = nexus.chatting()
    agent.say("bye")
    nexus.server.end()
    nexus.heard.events.clear()
    nexus.advance(3)
    assert nexus.heard.texts() == ["bye"]
    assert nexus.heard.names == ["agentDisconnected", "messageReceived", "pollingStopped", "ended"]
    assert nexus.chat.state == "ended"
    assert nexus.timeline.next_timer() is None


@pytest.mark.parametrize("fault", [{}, {"http_status": 500}, {"http_status": 404}, {"drop": True}, {"body": b"?"}])
def test_leave_ends_chat_at_any_server_response(nexus, fault):
    nexus.chatting()
    nexus.heard.take()
    if fault:
        nexus.server.faults.add(operation="disconnect", **fault)
    outcome = nexus.chat.command("endChat")
    assert bool(outcome) is not bool(fault)
    published = nexus.heard.take()
    assert [name for name in published if name != "disconnected"] == [
        "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    assert nexus.chat.state == "ended"
    assert nexus.store.load() is None
    assert nexus.chat.start_chat(nickname="Jonny")


def test_user_data_is_sent_at_once_or_after_start(nexus):
    chat = nexus.open()
    nexus.http.during("start", lambda: chat.command("updateUserData", {"late": "yes"}) and None)
    chat.start_chat(nickname="Jonny", user_data={"first": "1"})
    nexus.advance(0)
    chat.update_user_data({"more": "2"})
    assert nexus.asked("updateData") == [
        {"operationId": one["operationId"], "data": data}
        for one, data in zip(nexus.asked("updateData"), [{"late": "yes"}, {"more": "2"}], strict=True)
    ]
    assert nexus.server.core.current_chat().user_data == {"first": "1", "late": "yes", "more": "2"}


# -- unsupported commands ----------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "sendCustomNotice": "This transport doesn't support sendCustomNotice command.",
    "resetPollExceptions": "This transport doesn't support resetPollExceptions command.",
    "downloadFile": "This transport doesn't support file download.",
    "getFileLimits": "This transport doesn't support getFileLimits command.",
}


@pytest.mark.parametrize(("command", "text"), UNSUPPORTED.items())
def test_command_missing_in_v3_is_rejected_unsent(nexus, command, text):
    nexus.open()
    assert nexus.chat.command(command, {"fileId": "1", "message": "x"}).reason == text
    nexus.start()
    before = len(nexus.sent)
    assert nexus.chat.command(command, {"fileId": "1", "message": "x"}).reason == text
    assert len(nexus.sent) == before


def test_fetch_history_is_rejected_in_synchronous_chat(v3):
    text = "Fetching history messages applies only to Asynchronous chat"
    assert v3.open().command("fetchHistory").reason == text
    assert v3.start().command("fetchHistory").reason == text


def test_restore_command_is_rejected_in_synchronous_chat(v3):
    v3.start().close()
    v3.store.delete()
    chat = v3.open()
    text = "Access Denied to private command. Only WebChatService is allowed to invoke this command in Non-Async mode."
    assert chat.command("restore", {"sessionData": "{broken"}).reason == text
    assert chat.command("restore").reason == text
    assert "resume" not in v3.http.operations()


def test_synchronous_v3_chat_is_restored_whole(v3):
    v3.start()
    v3.bulk(30)
    v3.advance(3)
    v3.away(100_000)
    assert v3.http.operations() == ["restore"]
    assert v3.queries() == [{"count": "10000"}]
    assert v3.heard.last("restored").is_async is False
    (messages, restoring, old), *others = received(v3.heard)
    assert (len(messages), restoring, old, others) == (30, True, False, [])
    assert v3.chat.state == "polling"


def test_prefilters_hide_messages_before_and_after_restore(nexus):
    nexus.start()
    nexus.chat.send_filtered_message("secret 1", re.compile("^secret"))
    nexus.advance(3)
    nexus.away(5)
    nexus.chat.send_message("secret 2")
    nexus.chat.send_message("plain")
    nexus.advance(3)
    assert nexus.heard.texts() == ["plain"]
