"""Give example tests that use only the fixtures of the pytest plugin, as the tests of a user may."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from webchat_fsm import CommandRejected, MemoryStore, State
from webchat_fsm.testing import Recording, replay


@pytest.fixture
def store():
    return MemoryStore()


@pytest.mark.parametrize(
    ("away", "outcome"), [(59.999, "restored"), (60, "restoreTimeout"), (60.001, "restoreTimeout")]
)
def test_restore_works_for_just_under_a_minute(webchat_timeline, webchat_server, store, away, outcome):
    chat = webchat_server.client(store=store, config={"restoreTimeout": 60_000})
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.close()
    webchat_timeline.advance(away)
    later = webchat_server.client(store=store, config={"restoreTimeout": 60_000})
    with webchat_timeline.expect(later, outcome):
        later.open()
    assert later.state == (State.POLLING if outcome == "restored" else State.IDLE)


def test_clock_jump_back_while_away_counts_as_no_time(webchat_timeline, webchat_server, store):
    chat = webchat_server.client(store=store)
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.close()
    webchat_timeline.clock_jump(-3600)
    webchat_timeline.advance(300)
    later = webchat_server.client(store=store)
    with webchat_timeline.expect(later, "restored"):
        later.open()


def test_sixth_failed_poll_in_a_row_goes_offline(webchat, webchat_timeline, webchat_server):
    webchat.start_chat(nickname="Jonny")
    webchat_server.faults.add(operation="refresh", server_status=1, times=6)
    webchat_timeline.run_until(webchat, "connectionPending")
    webchat_timeline.run_until(webchat, "chatServerWentOffline")
    assert webchat.health().failures == 6
    webchat_timeline.run_until(webchat, "chatServerBackOnline")
    assert webchat.state == "polling"


def test_handler_may_end_the_chat(webchat, webchat_timeline, webchat_server):
    webchat.subscribe("agentConnected", lambda event: webchat.end_chat())
    webchat.start_chat(nickname="Jonny")
    webchat_server.agent("Ann").join()
    webchat_timeline.run_until(webchat, "ended")
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        webchat.send_message("too late")


def test_dormant_session_is_restored_after_a_week(webchat_timeline, webchat_server, store):
    chat = webchat_server.client("v3-async", store=store)
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("I shall be back")
    chat.close()
    assert chat.state == "async-dormant"
    webchat_timeline.advance(timedelta(weeks=1).total_seconds())
    later = webchat_server.client("v3-async", store=store)
    later.open()
    assert later.state == "polling"
    assert "I shall be back" in [message.text for message in later.get_transcript().messages]


def test_end_of_summer_time_has_no_effect(webchat_timeline, webchat_server, store):
    berlin = ZoneInfo("Europe/Berlin")
    webchat_timeline.advance_to(datetime(2025, 10, 26, 0, 59, 30, tzinfo=UTC))
    chat = webchat_server.client(store=store)
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.close()
    left = datetime.fromtimestamp(webchat_timeline.now(), berlin)
    webchat_timeline.advance(45)
    back = datetime.fromtimestamp(webchat_timeline.now(), berlin)
    assert (f"{left:%H:%M:%S}", f"{back:%H:%M:%S}") == ("02:59:30", "02:00:15")
    later = webchat_server.client(store=store)
    with webchat_timeline.expect(later, "restored"):
        later.open()


def test_retry_after_delays_the_next_poll(webchat, webchat_timeline, webchat_server):
    webchat.start_chat(nickname="Jonny")
    webchat_server.faults.add(operation="refresh", http_status=429, retry_after=20)
    webchat_timeline.advance(0)
    begun = webchat_timeline.now()
    assert webchat_timeline.next_timer() == begun + 20
    webchat_timeline.advance(19.999)
    assert [one.operation for one in webchat_server.core.requests] == ["start", "refresh"]
    webchat_timeline.advance(0.001)
    assert webchat.health().last_poll == 0


def test_typing_stops_two_seconds_after_the_last_key(webchat, webchat_timeline):
    webchat.start_chat(nickname="Jonny")
    webchat.send_typing("h")
    webchat_timeline.advance(1.5)
    webchat.send_typing("he")
    pressed = webchat_timeline.now()
    assert (pressed + 2, "typing countdown") in webchat_timeline.pending()
    webchat_timeline.run_until(webchat, "clientTypingStopped")
    assert webchat_timeline.now() == pressed + 2


def test_message_with_a_lost_answer_is_delivered(webchat, webchat_timeline, webchat_server):
    webchat.start_chat(nickname="Jonny")
    webchat_server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected) as rejected:
        webchat.send_message("did you get this?")
    assert rejected.value.response.status == 0
    webchat_timeline.run_until(webchat, "messageReceived")
    assert "did you get this?" in [message.text for message in webchat.get_transcript().messages]


def test_slow_answer_delays_no_other_chat(webchat_timeline, webchat_server):
    slow, quick = webchat_server.client(), webchat_server.client()
    for chat in (slow, quick):
        chat.open()
        chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    webchat_server.load_faults([{"operation": "updateData", "delay": 10.0}])
    seen = []
    quick.subscribe("clientTypingStopped", lambda event: seen.append(time.time()))
    quick.send_typing("hello")
    begun = webchat_timeline.now()
    with pytest.raises(CommandRejected, match="no complete answer within 3 s"):
        slow.update_user_data({"page": "/help"})
    assert webchat_timeline.now() == begun + 3
    assert seen == [begun + 2]


@pytest.mark.webchat(transport="cometd", pollExceptionLimit=1)
def test_recording_of_a_bug_report_reproduces_the_bug(
    webchat, webchat_timeline, webchat_server, webchat_recording, tmp_path
):
    webchat.start_chat(nickname="Jonny")
    webchat_server.faults.add(operation="connect", drop=True, times=2)
    webchat_timeline.run_until(webchat, "chatServerWentOffline")
    went = webchat_timeline.now()
    webchat_timeline.run_until(webchat, "chatServerBackOnline")
    webchat_recording.save(tmp_path / "bug.jsonl")

    report = Recording.read(tmp_path / "bug.jsonl")
    again = replay(report).check()
    assert again.events == report.events
    assert webchat_recording.state_at(went - 0.001).state == "active"
    assert webchat_recording.state_at(went).state == "offline"


@pytest.mark.parametrize("transport", ["v2", "cometd", "v3", "v3-async"])
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 10))])
def test_chat_ends_on_end_chat_under_any_faults(webchat_timeline, webchat_server, transport, seed):
    chat = webchat_server.client(transport)
    chat.open()
    chat.start_chat(nickname="Jonny")
    ann = webchat_server.agent("Ann").join()
    webchat_server.draw_faults(seed, transport=transport)
    for number in range(10):
        ann.say(f"Line {number}")
        chat.command("sendMessage", {"message": f"Answer {number}"})
        webchat_timeline.advance(5)
    chat.command("endChat")
    assert chat.state == "ended"
