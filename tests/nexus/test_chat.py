"""A v3 chat in course: what polls ask for, at what pace, what troubles it tells of, and what v3 cannot do."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.lifecycle.stage import LIMIT
from tests.nexus.stage import envelope, received
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.server.nexus_wire import index_of

V2_ONLY = {
    "connectionPending", "connectionRestored", "chatServerWentOffline", "chatServerBackOnline", "restoredOffline",
    "restoreTimeout", "botConnected", "botDisconnected",
}  # fmt: skip
"""What lifecycle.md reserves for v2 and cometd."""

TROUBLES = {
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


def fail(stage, times=1, **fault):
    stage.server.faults.add(operation="refresh", times=times, **(fault or {"http_status": 500}))


def last_index(stage) -> str:
    return index_of(stage.server.core.current_chat().transcript[-1])


# -- catching up -------------------------------------------------------------------------------------------------------


def test_polls_ask_for_what_is_new_and_the_server_knows_what_that_is(nexus):
    nexus.chatting("one", "two")
    nexus.advance(6)
    assert nexus.queries() == [{}, {}, {}, {}]
    assert nexus.heard.texts() == ["one", "two"]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_failed_poll_is_followed_by_one_that_catches_up_by_index(nexus, trouble):
    agent = nexus.chatting("one")
    seen = last_index(nexus)
    agent.say("two")
    fail(nexus, 2, **trouble, takes_effect=True)
    nexus.advance(8)
    agent.say("three")
    nexus.advance(9)
    after = nexus.queries()[2:]
    assert after[:3] == [{}, {"index": seen}, {"index": seen}]
    assert after[3:]
    assert not any(after[3:])
    assert nexus.heard.texts() == ["one", "two", "three"]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_where_the_very_first_poll_fails_the_next_asks_for_all_there_is(nexus, trouble):
    """The server may take what it sent as read: its cursor is behind what the client never got."""
    nexus.open().start_chat(nickname="Jonny")
    agent = nexus.agent()
    agent.say("hello")
    fail(nexus, **trouble, takes_effect=True)
    nexus.advance(4)
    assert nexus.queries() == [{}, {"index": "0-0"}]
    assert nexus.heard.texts() == ["hello"]
    assert nexus.heard.names.count("clientConnected") == nexus.heard.names.count("agentConnected") == 1


def test_polling_that_was_stopped_goes_on_by_index(nexus):
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


def test_a_poll_that_was_interrupted_is_made_up_for(nexus):
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


def test_a_poll_that_is_repeated_on_a_new_connection_tells_what_was_seen(nexus):
    """The server has moved its cursor when the answer was lost, so the same request again would miss messages."""
    agent = nexus.chatting("one")
    seen = last_index(nexus)
    agent.say("two")
    nexus.advance(4)
    poll = nexus.sent[-1]
    assert "index" not in poll.url
    assert f"index={seen}&operationId=" in poll.repeat_url


def test_an_index_that_the_server_counts_in_is_not_lost_twice(nexus):
    """An inclusive server repeats the last message when it is asked by index; it is delivered once."""
    nexus.chatting("one")
    original = nexus.heard.last("messageReceived").original_messages[-1]
    nexus.chat.stop_poll()
    nexus.chat.start_poll()
    nexus.http.answer("refresh", envelope(messages=[original, {**original, "index": "9999999999999-0", "text": "two"}]))
    nexus.advance(0)
    assert nexus.heard.texts() == ["one", "two"]


# -- pace --------------------------------------------------------------------------------------------------------------


def steps(stage, number: int) -> list[float]:
    """The pauses between the last polls."""
    times = stage.polls()[-number - 1 :]
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


@pytest.mark.parametrize(("given", "pause"), [({}, 3), ({"pollTimeout": 100}, 0.1), ({"pollTimeout": 60_000}, 60)])
def test_polls_come_every_three_seconds_or_as_poll_timeout_says(v3, given, pause):
    v3.start(**given)
    v3.advance(3.5 * pause)
    assert steps(v3, 3) == [pause] * 3


def test_sending_does_not_quicken_the_polls_of_v3(nexus):
    nexus.start()
    nexus.advance(3)
    nexus.advance(1)
    nexus.chat.send_message("hi")
    nexus.advance(5)
    assert steps(nexus, 2) == [3, 3]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_failures_slow_the_polls_down_to_thirty_seconds_and_a_success_brings_the_pace_back(nexus, trouble):
    nexus.start(config={"pollExceptionLimit": 2})
    fail(nexus, 20, **trouble)
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


def test_the_multiplier_and_a_slow_pace_are_the_users_choice(v3):
    v3.start(pollTimeout=40_000, pollIntervalMultiplier=2)
    fail(v3, 2)
    v3.advance(121)
    assert steps(v3, 3) == [40, 40, 40]


def test_too_many_requests_keeps_the_pace_there_is_and_counts_as_no_failure(nexus):
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


# -- troubles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_more_failures_than_the_limit_are_offline_and_one_good_poll_is_back(nexus, trouble):
    nexus.start()
    nexus.heard.take()
    silent = bool({"drop", "tear"} & trouble.keys())
    fail(nexus, LIMIT + 3, **trouble)
    states = []
    for _ in range(LIMIT + 3):
        assert not nexus.chat.step()
        states.append(nexus.chat.state.value)
    assert states == ["polling"] * LIMIT + ["offline"] * 3
    assert nexus.heard.take() == (["disconnected"] if silent else ["error"] * (LIMIT + 3))
    assert nexus.chat.step()
    assert nexus.chat.state == "polling"
    assert nexus.heard.take() == (["reconnected"] if silent else [])


def test_a_send_ends_being_disconnected_but_not_being_offline(nexus):
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


def test_a_401_while_polling_is_an_error_and_the_session_stays(nexus):
    nexus.start()
    nexus.heard.take()
    fail(nexus, http_status=401)
    nexus.chat.step()
    assert nexus.heard.take() == ["error"]
    assert nexus.chat.state == "polling"
    assert nexus.store.load() is not None


@pytest.mark.parametrize("status", [500, 403, 429])
def test_a_refusal_without_words_names_its_status(nexus, status):
    chat = nexus.start()
    nexus.http.answer("send", b"<html>", status)
    assert f"HTTP status {status}" in repr(chat.command("sendMessage", {"message": "hi"}))


def test_times_are_milliseconds_whatever_the_wire_has(nexus):
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


def test_the_sender_on_the_bus_has_both_names_of_its_id(nexus):
    nexus.chatting("hello")
    sender = nexus.chat.get_transcript().messages[-1].item()["from"]
    assert sender["participantId"] == sender["id"] != ""


def test_what_would_be_told_on_v2_is_never_told_on_v3(nexus):
    """Every fault that makes a v2 event, bots among the people, and a restore after a very long time."""
    nexus.start()
    bot = nexus.server.bot("Robby").join()
    bot.say("beep")
    for trouble in TROUBLES.values():
        fail(nexus, LIMIT + 2, **trouble)
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


def test_a_bot_is_no_agent_and_joins_silently(nexus):
    nexus.start()
    nexus.heard.take()
    bot = nexus.server.bot("Robby").join()
    bot.say("beep")
    bot.leave()
    nexus.advance(3)
    assert nexus.heard.take() == ["messageReceived"]
    assert nexus.chat.get_agents() == {}


# -- people and content ------------------------------------------------------------------------------------------------


def test_a_whole_chat_is_told_in_order(nexus):
    nexus.start()
    ann, sue = nexus.server.agent("Ann"), nexus.server.supervisor("Sue")
    for act in (ann.join, ann.typing, lambda: ann.say("hello"), sue.join, sue.typing, sue.stop_typing, sue.leave):
        act()
        nexus.advance(3)
    nexus.chat.send_message("thanks")
    nexus.advance(3)
    nexus.chat.end_chat()
    told = [name for name in nexus.heard.names if name != "messageReceived"]
    assert told == [
        "ready", "started", "pollingStarted", "clientConnected",
        "agentConnected", "agentTypingStarted", "agentTypingStopped", "supervisorConnected", "agentTypingStarted",
        "agentTypingStopped", "supervisorDisconnected",
        "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    assert nexus.heard.texts() == ["hello", "thanks"]
    assert [agent.name for agent in nexus.chat.get_agents().values()] == ["Ann", "Sue"]


def test_an_own_message_comes_back_once_and_settles_its_receipt(nexus):
    nexus.start()
    receipt = nexus.chat.send_message("hi")
    assert receipt.status == "sent"
    nexus.advance(3)
    assert (receipt.status, nexus.heard.texts()) == ("delivered", ["hi"])
    assert receipt.index == nexus.heard.last("messageReceived").messages[-1].index


def test_own_typing_is_no_agents_typing(nexus):
    nexus.start()
    own = {"type": "Customer", "participantId": nexus.chat.get_session_data().participant_id, "nickname": "Jonny"}
    nexus.heard.take()
    nexus.http.answer(
        "refresh", envelope(messages=[{"index": "9999999999999-0", "type": "TypingStarted", "from": own}])
    )
    nexus.advance(3)
    assert nexus.heard.take() == ["messageReceived"]


def test_the_server_ends_the_chat_after_its_last_words(nexus):
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
def test_leaving_ends_the_chat_here_whatever_the_server_says(nexus, fault):
    nexus.chatting()
    nexus.heard.take()
    if fault:
        nexus.server.faults.add(operation="disconnect", **fault)
    outcome = nexus.chat.command("endChat")
    assert bool(outcome) is not bool(fault)
    told = nexus.heard.take()
    assert [name for name in told if name != "disconnected"] == [
        "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    assert nexus.chat.state == "ended"
    assert nexus.store.load() is None
    assert nexus.chat.start_chat(nickname="Jonny")


def test_user_data_are_sent_at_once_and_what_came_while_starting_afterwards(nexus):
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


# -- what v3 cannot do -------------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "sendCustomNotice": "This transport doesn't support sendCustomNotice command.",
    "resetPollExceptions": "This transport doesn't support resetPollExceptions command.",
    "downloadFile": "This transport doesn't support file download.",
    "getFileLimits": "This transport doesn't support getFileLimits command.",
}


@pytest.mark.parametrize(("command", "text"), UNSUPPORTED.items())
def test_what_v3_lacks_is_refused_with_its_text_in_any_state_and_never_sent(nexus, command, text):
    nexus.open()
    assert nexus.chat.command(command, {"fileId": "1", "message": "x"}).reason == text
    nexus.start()
    before = len(nexus.sent)
    assert nexus.chat.command(command, {"fileId": "1", "message": "x"}).reason == text
    assert len(nexus.sent) == before


def test_history_is_for_asynchronous_chat_alone(v3):
    text = "Fetching history messages applies only to Asynchronous chat"
    assert v3.open().command("fetchHistory").reason == text
    assert v3.start().command("fetchHistory").reason == text


def test_a_restore_by_hand_is_for_asynchronous_chat_alone(v3):
    v3.start().close()
    v3.store.delete()
    chat = v3.open()
    text = "Access Denied to private command. Only WebChatService is allowed to invoke this command in Non-Async mode."
    assert chat.command("restore", {"sessionData": "{broken"}).reason == text
    assert chat.command("restore").reason == text
    assert "resume" not in v3.http.operations()


def test_a_v3_chat_that_is_not_asynchronous_is_restored_from_its_store_whole(v3):
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


def test_filters_hide_on_v3_too_and_survive_a_restore(nexus):
    nexus.start()
    nexus.chat.send_filtered_message("secret 1", re.compile("^secret"))
    nexus.advance(3)
    nexus.away(5)
    nexus.chat.send_message("secret 2")
    nexus.chat.send_message("plain")
    nexus.advance(3)
    assert nexus.heard.texts() == ["plain"]
