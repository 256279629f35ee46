"""Polls that fail in a row: pending, offline and back; counters; what counts and what does not; pace."""

from __future__ import annotations

from itertools import pairwise

import pytest

CONNECTION = {
    "connectionPending", "connectionRestored", "chatServerWentOffline", "chatServerBackOnline", "disconnected",
    "reconnected", "error",
}  # fmt: skip


def troubles(stage) -> list[str]:
    return [name for name in stage.heard.take() if name in CONNECTION]


def test_the_first_failure_pends_and_the_sixth_goes_offline(stage):
    chat = stage.start()
    stage.fail_polls(1)
    assert troubles(stage) == ["connectionPending"]
    stage.fail_polls(4)
    assert (troubles(stage), chat.state, chat.health().failures) == ([], "polling", 5)
    stage.fail_polls(1)
    assert (troubles(stage), chat.state) == (["chatServerWentOffline"], "offline")
    stage.fail_polls(6)
    assert (troubles(stage), chat.state) == ([], "offline")
    chat.step()
    assert (troubles(stage), chat.state) == (["chatServerBackOnline", "connectionRestored"], "polling")
    assert chat.health().failures == 0


@pytest.mark.parametrize(("limit", "failures"), [(0, 1), (1, 2), (2, 3)])
def test_the_limit_must_be_exceeded(stage, limit, failures):
    chat = stage.start(pollExceptionLimit=limit)
    if failures > 1:
        stage.fail_polls(failures - 1)
        assert (troubles(stage), chat.state) == (["connectionPending"], "polling")
        stage.fail_polls(1)
        assert (troubles(stage), chat.state) == (["chatServerWentOffline"], "offline")
    else:
        stage.fail_polls(1)
        assert (troubles(stage), chat.state) == (["connectionPending", "chatServerWentOffline"], "offline")


def test_a_trouble_below_the_limit_ends_with_a_restored_connection_alone(stage):
    stage.start()
    stage.fail_polls(3)
    stage.chat.step()
    assert troubles(stage) == ["connectionPending", "connectionRestored"]


def test_failures_count_only_in_a_row(stage):
    chat = stage.start()
    for _ in range(3):
        stage.fail_polls(5)
        chat.step()
    assert troubles(stage) == ["connectionPending", "connectionRestored"] * 3
    assert chat.state == "polling"


def test_going_offline_again_is_told_again(stage):
    stage.start()
    for _ in range(2):
        stage.fail_polls(6)
        stage.chat.step()
    assert troubles(stage) == [
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
def test_what_counts_as_a_failed_poll(stage, fault):
    wrong, published = COUNTED[fault]
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="refresh", **wrong)
    assert chat.step() is False
    assert (troubles(stage), chat.health().failures, chat.state) == (published, 1, "polling")


def test_errors_are_told_each_time_and_the_loss_of_the_connection_once(stage):
    stage.start()
    stage.fail_polls(2, drop=True)
    stage.fail_polls(2, http_status=500)
    stage.fail_polls(1, drop=True)
    assert troubles(stage) == ["disconnected", "connectionPending", "reconnected", "error", "error", "disconnected"]


def test_too_many_requests_do_not_count_and_the_server_is_obeyed(stage):
    chat = stage.start()
    stage.server.faults.add(operation="refresh", http_status=429, retry_after=20)
    assert chat.step()
    assert (troubles(stage), chat.health().failures, chat.state) == ([], 0, "polling")
    polls = len(stage.asked("refresh"))
    stage.advance(19.9)
    assert len(stage.asked("refresh")) == polls
    stage.advance(0.2)
    assert len(stage.asked("refresh")) == polls + 1


def test_too_many_requests_without_a_time_are_asked_again_at_the_ordinary_pace(stage):
    chat = stage.start()
    stage.server.faults.add(operation="refresh", http_status=429)
    chat.step()
    assert 0 < chat.health().next_poll <= 3


def test_a_server_that_asks_for_patience_with_a_date_is_obeyed(stage):
    chat = stage.start()
    dated = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    stage.http.answer("refresh", b"", 429, **dated)
    chat.step()
    assert chat.health().next_poll == pytest.approx(30)


def test_nobody_makes_the_client_wait_for_ever(stage):
    chat = stage.start()
    stage.server.faults.add(operation="refresh", http_status=429, retry_after=10**9)
    chat.step()
    assert chat.health().next_poll == 300


def test_too_many_requests_reconnect_after_a_loss(stage):
    stage.start()
    stage.fail_polls(1, drop=True)
    stage.fail_polls(1, http_status=429)
    assert troubles(stage) == ["disconnected", "connectionPending", "reconnected"]


def test_resetting_the_exceptions_starts_the_count_anew_below_the_limit(stage):
    chat = stage.start()
    stage.fail_polls(5)
    chat.reset_poll_exceptions()
    stage.fail_polls(5)
    assert chat.state == "polling"
    stage.fail_polls(1)
    assert chat.state == "offline"
    assert troubles(stage) == ["connectionPending", "chatServerWentOffline"]


def test_resetting_the_exceptions_offline_changes_neither_state_nor_what_is_told_afterwards(stage):
    chat = stage.start()
    stage.fail_polls(6)
    chat.reset_poll_exceptions()
    assert (chat.state, chat.health().failures) == ("offline", 0)
    stage.fail_polls(1)
    assert chat.state == "offline"
    chat.step()
    assert troubles(stage)[-2:] == ["chatServerBackOnline", "connectionRestored"]


def test_stopping_the_polls_keeps_count_and_flags(stage):
    chat = stage.start()
    stage.fail_polls(5)
    chat.stop_poll()
    assert (chat.state, chat.health().failures) == ("active", 5)
    chat.start_poll()
    stage.fail_polls(1)
    assert chat.state == "offline"
    chat.stop_poll()
    chat.start_poll()
    stage.fail_polls(1)
    assert (chat.state, chat.health().failures) == ("offline", 7)
    assert troubles(stage) == ["connectionPending", "chatServerWentOffline"]
    chat.step()
    assert troubles(stage) == ["chatServerBackOnline", "connectionRestored"]


def test_the_last_poll_before_the_stop_is_still_taken(stage):
    chat = stage.start()
    stage.agent().say("Hello")
    stage.http.during("refresh", chat.stop_poll)
    stage.advance(3)
    assert chat.state == "active"
    assert stage.heard.texts() == ["Hello"]


def test_a_last_poll_that_fails_after_the_stop_is_counted_in_silence(stage):
    chat = stage.start()
    stage.http.during("refresh", chat.stop_poll)
    stage.server.faults.add(operation="refresh", server_status=1)
    stage.advance(3)
    assert (chat.state, chat.health().failures, troubles(stage)) == ("active", 1, [])


def test_a_poll_that_is_out_is_waited_for_when_polling_starts_again(stage):
    chat = stage.start()
    polls = len(stage.asked("refresh"))

    def off_and_on():
        chat.stop_poll()
        chat.start_poll()

    stage.http.during("refresh", off_and_on)
    stage.advance(0.5)
    assert len(stage.asked("refresh")) == polls + 1
    assert chat.health().next_poll > 0


def test_starting_to_poll_again_is_no_news(stage):
    chat = stage.start()
    stage.heard.take()
    chat.start_poll()
    stage.fail_polls(6)
    stage.heard.take()
    chat.start_poll()
    assert (chat.state, stage.heard.take()) == ("offline", [])


def test_nothing_is_polled_while_polling_is_off(stage):
    chat = stage.start()
    chat.stop_poll()
    polls = len(stage.asked("refresh"))
    stage.advance(60)
    assert len(stage.asked("refresh")) == polls
    assert chat.health().next_poll is None


def test_a_poll_by_hand_without_automatic_polling_brings_what_is_new(stage):
    chat = stage.start()
    chat.stop_poll()
    stage.agent().say("Hello")
    assert chat.step()
    assert stage.heard.texts() == ["Hello"]
    assert chat.state == "active"


def test_a_poll_by_hand_may_end_an_offline_time_that_was_stopped(stage):
    chat = stage.start()
    stage.fail_polls(6)
    chat.stop_poll()
    chat.step()
    assert troubles(stage)[-2:] == ["chatServerBackOnline", "connectionRestored"]
    assert chat.state == "active"


def test_a_second_poll_at_once_is_refused(stage):
    chat, refused = stage.start(), []
    stage.http.during("refresh", lambda: refused.append(chat.step()))
    chat.step()
    assert refused == [False]


# -- pace --------------------------------------------------------------------------------------------------------------


def poll_times(stage) -> list[float]:
    return [logged.time for logged in stage.server.core.requests if logged.operation == "refresh"]


def pauses(stage) -> list[float]:
    times = poll_times(stage)
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


def test_polls_follow_a_start_at_once_and_grow_from_half_a_second_to_three(stage):
    stage.start()
    stage.advance(60)
    assert poll_times(stage)[0] == 1_750_000_000
    assert pauses(stage)[:6] == [0.5, 0.6, 0.72, 0.864, 1.037, 1.244]
    assert pauses(stage)[-3:] == [3.0, 3.0, 3.0]


def test_a_message_of_ones_own_quickens_the_polls(stage):
    stage.start()
    stage.advance(60)
    stage.chat.send_message("hi")
    assert stage.chat.health().next_poll <= 0.5
    stage.advance(2)
    assert pauses(stage)[-2:] == [0.5, 0.6]


def test_a_fixed_rate_is_kept(stage):
    stage.start(dynamicPolling=False, pollRate=2000)
    stage.advance(20)
    assert set(pauses(stage)) == {2.0}


def test_offline_probes_keep_the_slowest_pace(stage):
    stage.start()
    stage.fail_polls(6)
    stage.server.faults.add(operation="refresh", server_status=1, times=9)
    stage.advance(20)
    assert set(pauses(stage)[-5:]) == {3.0}


def test_jitter_only_shortens_the_pauses(stage):
    stage.start(dynamicPolling=False, client={"pollJitter": 0.5})
    stage.advance(120)
    assert all(1.5 <= pause <= 3.0 for pause in pauses(stage))
    assert len(set(pauses(stage))) > 10


def test_a_session_is_polled_often_enough_for_a_real_server(stage):
    stage.start()
    stage.advance(600)
    assert max(pauses(stage)) < 45
