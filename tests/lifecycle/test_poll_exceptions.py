"""Check consecutive poll failures: pending, offline and online again, their count, and the delay of polls."""

from __future__ import annotations

from itertools import pairwise

import pytest

CONNECTION = {
    "connectionPending", "connectionRestored", "chatServerWentOffline", "chatServerBackOnline", "disconnected",
    "reconnected", "error",
}  # fmt: skip


def connection_events(env) -> list[str]:
    return [name for name in env.heard.take() if name in CONNECTION]


def test_first_failure_is_pending_and_sixth_is_offline(env):
    chat = env.start()
    env.fail_polls(1)
    assert connection_events(env) == ["connectionPending"]
    env.fail_polls(4)
    assert (connection_events(env), chat.state, chat.health().failures) == ([], "polling", 5)
    env.fail_polls(1)
    assert (connection_events(env), chat.state) == (["chatServerWentOffline"], "offline")
    env.fail_polls(6)
    assert (connection_events(env), chat.state) == ([], "offline")
    chat.step()
    assert (connection_events(env), chat.state) == (["chatServerBackOnline", "connectionRestored"], "polling")
    assert chat.health().failures == 0


@pytest.mark.parametrize(("limit", "failures"), [(0, 1), (1, 2), (2, 3)])
def test_chat_goes_offline_only_above_the_limit(env, limit, failures):
    chat = env.start(pollExceptionLimit=limit)
    if failures > 1:
        env.fail_polls(failures - 1)
        assert (connection_events(env), chat.state) == (["connectionPending"], "polling")
        env.fail_polls(1)
        assert (connection_events(env), chat.state) == (["chatServerWentOffline"], "offline")
    else:
        env.fail_polls(1)
        assert (connection_events(env), chat.state) == (["connectionPending", "chatServerWentOffline"], "offline")


def test_failures_below_limit_publish_only_restored_connection(env):
    env.start()
    env.fail_polls(3)
    env.chat.step()
    assert connection_events(env) == ["connectionPending", "connectionRestored"]


def test_only_consecutive_failures_count_to_the_limit(env):
    chat = env.start()
    for _ in range(3):
        env.fail_polls(5)
        chat.step()
    assert connection_events(env) == ["connectionPending", "connectionRestored"] * 3
    assert chat.state == "polling"


def test_second_offline_period_is_published_again(env):
    env.start()
    for _ in range(2):
        env.fail_polls(6)
        env.chat.step()
    assert connection_events(env) == [
        "connectionPending", "chatServerWentOffline", "chatServerBackOnline", "connectionRestored",
    ] * 2  # fmt: skip


COUNTED = {
    "no answer": ({"drop": True}, ["disconnected", "connectionPending"]),
    "a torn body": ({"tear": True}, ["disconnected", "connectionPending"]),
    "a late answer": ({"delay": 3.1}, ["disconnected", "connectionPending"]),
    "statusCode 1": ({"server_status": 1}, ["connectionPending"]),
    "statusCode 1 with chatEnded": ({"server_status": 1, "chat_ended": True}, ["connectionPending"]),
    "statusCode 2": ({"server_status": 2, "chat_ended": False}, ["error", "connectionPending"]),
    "statusCode 7": ({"server_status": 7, "chat_ended": False}, ["error", "connectionPending"]),
    "HTTP 400": ({"http_status": 400, "errors": (235,)}, ["error", "connectionPending"]),
    "HTTP 401": ({"http_status": 401}, ["error", "connectionPending"]),
    "HTTP 403": ({"http_status": 403}, ["error", "connectionPending"]),
    "HTTP 500": ({"http_status": 500}, ["error", "connectionPending"]),
    "HTTP 503": ({"http_status": 503}, ["error", "connectionPending"]),
    "HTTP 301": ({"http_status": 301}, ["error", "connectionPending"]),
    "no JSON": ({"body": b"<html>"}, ["error", "connectionPending"]),
}


@pytest.mark.parametrize("fault", COUNTED)
def test_poll_result_counts_as_failure(env, fault):
    wrong, published = COUNTED[fault]
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="refresh", **wrong)
    assert chat.step() is False
    assert (connection_events(env), chat.health().failures, chat.state) == (published, 1, "polling")


def test_error_is_published_each_time_connection_loss_once(env):
    env.start()
    env.fail_polls(2, drop=True)
    env.fail_polls(2, http_status=500)
    env.fail_polls(1, drop=True)
    assert connection_events(env) == [
        "disconnected",
        "connectionPending",
        "reconnected",
        "error",
        "error",
        "disconnected",
    ]


def test_poll_429_is_no_failure_and_honours_retry_after(env):
    chat = env.start()
    env.server.faults.add(operation="refresh", http_status=429, retry_after=20)
    assert chat.step()
    assert (connection_events(env), chat.health().failures, chat.state) == ([], 0, "polling")
    polls = len(env.asked("refresh"))
    env.advance(19.9)
    assert len(env.asked("refresh")) == polls
    env.advance(0.2)
    assert len(env.asked("refresh")) == polls + 1


def test_poll_429_without_time_keeps_ordinary_delay(env):
    chat = env.start()
    env.server.faults.add(operation="refresh", http_status=429)
    chat.step()
    assert 0 < chat.health().next_poll <= 3


def test_retry_after_date_delays_the_next_poll(env):
    chat = env.start()
    dated = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    env.http.answer("refresh", b"", 429, **dated)
    chat.step()
    assert chat.health().next_poll == pytest.approx(30)


def test_retry_after_is_capped(env):
    chat = env.start()
    env.server.faults.add(operation="refresh", http_status=429, retry_after=10**9)
    chat.step()
    assert chat.health().next_poll == 300


def test_poll_429_after_lost_connection_reconnects(env):
    env.start()
    env.fail_polls(1, drop=True)
    env.fail_polls(1, http_status=429)
    assert connection_events(env) == ["disconnected", "connectionPending", "reconnected"]


def test_reset_below_limit_restarts_failure_count(env):
    chat = env.start()
    env.fail_polls(5)
    chat.reset_poll_exceptions()
    env.fail_polls(5)
    assert chat.state == "polling"
    env.fail_polls(1)
    assert chat.state == "offline"
    assert connection_events(env) == ["connectionPending", "chatServerWentOffline"]


def test_reset_while_offline_changes_no_state_or_events(env):
    chat = env.start()
    env.fail_polls(6)
    chat.reset_poll_exceptions()
    assert (chat.state, chat.health().failures) == ("offline", 0)
    env.fail_polls(1)
    assert chat.state == "offline"
    chat.step()
    assert connection_events(env)[-2:] == ["chatServerBackOnline", "connectionRestored"]


def test_stop_poll_keeps_failure_count_and_flags(env):
    chat = env.start()
    env.fail_polls(5)
    chat.stop_poll()
    assert (chat.state, chat.health().failures) == ("active", 5)
    chat.start_poll()
    env.fail_polls(1)
    assert chat.state == "offline"
    chat.stop_poll()
    chat.start_poll()
    env.fail_polls(1)
    assert (chat.state, chat.health().failures) == ("offline", 7)
    assert connection_events(env) == ["connectionPending", "chatServerWentOffline"]
    chat.step()
    assert connection_events(env) == ["chatServerBackOnline", "connectionRestored"]


def test_poll_in_flight_at_stop_poll_is_delivered(env):
    chat = env.start()
    env.agent().say("Hello")
    env.http.during("refresh", chat.stop_poll)
    env.advance(3)
    assert chat.state == "active"
    assert env.heard.texts() == ["Hello"]


def test_poll_failure_after_stop_is_counted_only(env):
    chat = env.start()
    env.http.during("refresh", chat.stop_poll)
    env.server.faults.add(operation="refresh", server_status=1)
    env.advance(3)
    assert (chat.state, chat.health().failures, connection_events(env)) == ("active", 1, [])


def test_restarted_polling_awaits_poll_in_flight(env):
    chat = env.start()
    polls = len(env.asked("refresh"))

    def off_and_on():
        chat.stop_poll()
        chat.start_poll()

    env.http.during("refresh", off_and_on)
    env.advance(0.5)
    assert len(env.asked("refresh")) == polls + 1
    assert chat.health().next_poll > 0


def test_start_polling_twice_publishes_nothing(env):
    chat = env.start()
    env.heard.take()
    chat.start_poll()
    env.fail_polls(6)
    env.heard.take()
    chat.start_poll()
    assert (chat.state, env.heard.take()) == ("offline", [])


def test_no_poll_is_sent_while_polling_is_stopped(env):
    chat = env.start()
    chat.stop_poll()
    polls = len(env.asked("refresh"))
    env.advance(60)
    assert len(env.asked("refresh")) == polls
    assert chat.health().next_poll is None


def test_manual_poll_delivers_new_messages(env):
    chat = env.start()
    chat.stop_poll()
    env.agent().say("Hello")
    assert chat.step()
    assert env.heard.texts() == ["Hello"]
    assert chat.state == "active"


def test_manual_poll_ends_stopped_offline_period(env):
    chat = env.start()
    env.fail_polls(6)
    chat.stop_poll()
    chat.step()
    assert connection_events(env)[-2:] == ["chatServerBackOnline", "connectionRestored"]
    assert chat.state == "active"


def test_poll_during_poll_returns_false(env):
    chat, refused = env.start(), []
    env.http.during("refresh", lambda: refused.append(chat.step()))
    chat.step()
    assert refused == [False]


# -- poll delay --------------------------------------------------------------------------------------------------------


def poll_times(env) -> list[float]:
    return [logged.time for logged in env.server.core.requests if logged.operation == "refresh"]


def pauses(env) -> list[float]:
    times = poll_times(env)
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


def test_poll_delay_grows_from_half_to_three_seconds(env):
    env.start()
    env.advance(60)
    assert poll_times(env)[0] == 1_750_000_000
    assert pauses(env)[:6] == [0.5, 0.6, 0.72, 0.864, 1.037, 1.244]
    assert pauses(env)[-3:] == [3.0, 3.0, 3.0]


def test_own_message_shortens_the_poll_delay(env):
    env.start()
    env.advance(60)
    env.chat.send_message("hi")
    assert env.chat.health().next_poll <= 0.5
    env.advance(2)
    assert pauses(env)[-2:] == [0.5, 0.6]


def test_fixed_poll_rate_is_kept(env):
    env.start(dynamicPolling=False, pollRate=2000)
    env.advance(20)
    assert set(pauses(env)) == {2.0}


def test_offline_polls_have_the_longest_delay(env):
    env.start()
    env.fail_polls(6)
    env.server.faults.add(operation="refresh", server_status=1, times=9)
    env.advance(20)
    assert set(pauses(env)[-5:]) == {3.0}


def test_jitter_only_shortens_the_poll_delay(env):
    env.start(dynamicPolling=False, client={"pollJitter": 0.5})
    env.advance(120)
    assert all(1.5 <= pause <= 3.0 for pause in pauses(env))
    assert len(set(pauses(env))) > 10


def test_poll_delay_stays_below_45_seconds(env):
    env.start()
    env.advance(600)
    assert max(pauses(env)) < 45
