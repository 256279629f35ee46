"""The decision function by itself: pure, told the time, and handed what a shell would bring."""

from __future__ import annotations

import builtins
import socket
import time

import pytest

from tests.core.play import BEGIN, IDS, SAVED, Play, bad, good, said, silent
from webchat_fsm.core.facts import Closed, Interrupted, Timer, Verdict
from webchat_fsm.lifecycle.effects import Call, Forget, Publish, Save
from webchat_fsm.lifecycle.table import Flag, State
from webchat_fsm.lifecycle.words import SessionData


@pytest.fixture
def play():
    return Play()


def test_a_decision_reads_no_clock_opens_nothing_and_sleeps_never(play, monkeypatch):
    def forbidden(*given, **named):
        raise AssertionError("a decision must not do this")

    monkeypatch.setattr(time, "time", forbidden)
    monkeypatch.setattr(time, "monotonic", forbidden)
    monkeypatch.setattr(time, "sleep", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(builtins, "open", forbidden)
    play.start()
    play.poll(good(said(1)))
    play.poll(silent())
    play.answer(play.ask("endChat"), good(chat_ended=True))
    assert play.session.state is State.ENDED


def test_the_same_steps_give_the_same_decisions():
    def story():
        play = Play().start()
        for reply in (good(said(1), said(2)), silent(), bad(Verdict.BAD, 500), good(said(3))):
            play.move(1)
            play.poll(reply)
        return play

    first, second = story(), story()
    assert first.rows == second.rows
    assert first.effects == second.effects


def test_events_carry_the_wall_clock_of_their_step(play):
    play.open()
    play.move(5)
    play.answer(play.ask("startChat"), good(session_data=IDS))
    times = {effect.event: effect.time for effect in play.effects if isinstance(effect, Publish)}
    assert times == {"ready": BEGIN, "started": BEGIN + 5, "pollingStarted": BEGIN + 5}


# -- what is saved, and when -------------------------------------------------------------------------------------------


def test_the_cursor_moves_and_is_saved_after_the_content_was_published(play):
    play.start()
    play.effects.clear()
    play.poll(good(said(3), said(4)))
    kinds = [effect.event if isinstance(effect, Publish) else type(effect) for effect in play.effects]
    assert kinds == ["messageReceived", Save]
    assert play.saved()[-1].cursor == 5
    assert [entry.index for entry in play.session.transcript.read().messages] == [3, 4]


def test_the_cursor_follows_neither_an_untrusted_answer_nor_a_lower_index(play):
    play.start()
    play.poll(good(*map(said, range(1, 6))))
    play.poll(bad(Verdict.UNAVAILABLE, arrivals=good(said(9)).arrivals))
    play.poll(good(said(2)))
    assert play.due().call.fields["position"] == 6


def test_the_last_contact_is_that_of_the_last_good_poll_and_of_an_orderly_close(play):
    play.start()
    play.move(10)
    play.poll(good())
    for reply in (silent(), bad(Verdict.BAD, 500), bad(Verdict.UNAVAILABLE), bad(Verdict.THROTTLED, 429)):
        play.move(10)
        play.poll(reply)
    assert play.saved()[-1].last_contact == BEGIN + 10
    play.take(Closed())
    assert play.saved()[-1].last_contact == BEGIN + 50


def test_later_effects_on_the_store_have_higher_numbers(play):
    play.start()
    play.poll(good())
    play.answer(play.ask("endChat"), good())
    orders = [effect.order for effect in play.effects if isinstance(effect, Save | Forget)]
    assert orders == sorted(set(orders))
    assert isinstance([effect for effect in play.effects if isinstance(effect, Save | Forget)][-1], Forget)


# -- answers that come late --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [good(said(1), chat_ended=True), silent(), bad(Verdict.LOST, 404), bad(Verdict.BAD, 500)]
)
def test_a_late_answer_of_an_earlier_session_touches_nothing(play, reply):
    play.start()
    poll, send = play.due(), play.ask("sendMessage", {"message": "hi"})
    play.answer(play.ask("endChat"), good())
    play.answer(play.ask("startChat"), good(session_data=IDS))
    play.told()
    rows, timers = len(play.rows), dict(play.session.timers)
    play.answer(poll, reply)
    settled = play.answer(send, reply).settled
    assert (play.told(), len(play.rows), play.session.timers) == ([], rows, timers)
    assert settled.resolved is reply.good, "a send settles truthfully all the same"
    assert play.session.state is State.POLLING


def test_a_late_start_of_a_closed_service_begins_nothing(play):
    play.open()
    start = play.ask("startChat")
    play.take(Closed())
    settled = play.answer(start, good(session_data=IDS)).settled
    assert (settled.resolved, settled.reason) == (False, "WebChatService was closed before the server answered")
    assert play.session.state is State.IDLE
    assert play.saved() == []


def test_two_services_worth_of_calls_have_tickets_of_their_own(play):
    play.start()
    tickets = [play.ask("sendMessage", {"message": "hi"}).call.ticket for _ in range(3)]
    assert len(set(tickets)) == 3


# -- endChat in flight -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (good(said(3), chat_ended=True), ["messageReceived", "agentDisconnected", "clientDisconnected", "ended"]),
        (bad(Verdict.REFUSED, chat_ended=True), ["agentDisconnected", "clientDisconnected", "ended"]),
        (bad(Verdict.LOST, 404), ["agentDisconnected", "clientDisconnected", "ended"]),
    ],
)
def test_a_poll_that_finds_the_end_while_the_user_leaves_ends_it_and_the_leave_settles_later(play, reply, told):
    play.start()
    play.poll(good(said(2, type="ParticipantJoined")))
    poll, end = play.due(), play.ask("endChat")
    play.told()
    play.answer(poll, reply)
    assert (play.told(), play.session.state) == (told, State.ENDED)
    assert play.answer(end, good()).settled.resolved
    assert play.told() == []


@pytest.mark.parametrize("reply", [silent(), bad(Verdict.BAD, 500), bad(Verdict.UNAVAILABLE), bad(Verdict.REFUSED)])
def test_a_poll_that_fails_while_the_user_leaves_tells_no_error_and_goes_nowhere(play, reply):
    play.start()
    poll, end = play.due(), play.ask("endChat")
    play.told()
    play.answer(poll, reply)
    assert set(play.told()) <= {"disconnected"}
    assert play.session.state is State.ACTIVE
    play.answer(end, good())
    assert play.told()[-2:] == ["clientDisconnected", "ended"]


def test_a_poll_that_was_out_when_the_user_left_is_still_taken(play):
    play.start()
    poll, end = play.due(), play.ask("endChat")
    play.answer(poll, good(said(2, "Bye")))
    assert play.told() == ["pollingStopped", "messageReceived"]
    play.answer(end, good())
    assert [entry.text for entry in play.session.transcript.read().messages] == ["Bye"]
    assert play.next_poll is None


@pytest.mark.parametrize("reply", [good(), silent(), bad(Verdict.BAD, 500), bad(Verdict.LOST, 404)])
def test_the_leave_ends_it_here_whatever_its_answer(play, reply):
    play.start()
    settled = play.answer(play.ask("endChat"), reply).settled
    assert settled.resolved is reply.good
    assert play.session.state is State.ENDED
    assert play.told()[-2:] == ["clientDisconnected", "ended"]
    assert play.session.session_data == SessionData()


def test_an_interrupted_leave_is_an_end_too(play):
    play.start()
    end = play.ask("endChat")
    play.take(Interrupted(call=end.call))
    assert play.session.state is State.ENDED


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_an_interrupted_poll_is_made_again(play):
    play.start()
    play.poll(good())
    poll = play.due()
    play.take(Interrupted(call=poll.call))
    assert play.next_poll is not None
    assert play.due().call.operation == "refresh"


def test_a_leave_that_was_interrupted_as_the_session_ended_does_not_leave_a_second_time(play):
    play.start()
    end = play.ask("endChat")
    play.session.state = State.ENDED  # and there the interruption came, before anything else was done
    play.take(Interrupted(call=end.call))
    assert play.session.state is State.ENDED
    assert play.ask("startChat").call.operation == "start"


def test_a_poll_that_was_interrupted_before_it_was_asked_for_is_made_again(play):
    play.start()
    play.poll(good())
    play.session.timers.clear()  # its timer has been taken, and then the interruption came
    play.take(Interrupted(call=Call(operation="", number=play.session.number, ticket=-1)))
    assert play.next_poll is not None
    assert play.due().call.operation == "refresh"


def test_an_interrupted_call_of_an_earlier_session_is_nothing(play):
    play.start()
    poll = play.due()
    play.answer(play.ask("endChat"), good())
    rows = len(play.rows)
    play.take(Interrupted(call=poll.call))
    assert len(play.rows) == rows


def test_an_interrupted_restore_goes_back_to_where_it_came_from(play):
    play.start()
    play.answer(play.ask("endChat"), good())
    play.take(Closed())
    assert play.session.state is State.ENDED
    restore = play.open(SAVED)
    assert play.session.state is State.RESTORING
    play.take(Interrupted(call=restore.call))
    assert play.session.state is State.ENDED
    play.move(60)
    assert play.ask("verifySession").settled.value is False
    assert (play.told()[-1], play.session.state) == ("restoreTimeout", State.ENDED)


# -- polls, one at a time ----------------------------------------------------------------------------------------------


def test_one_poll_at_a_time(play):
    play.start()
    poll = play.due()
    assert play.due().call is None
    assert play.ask("poll", by_service=True).settled.reason == "previous poll has not finished."
    play.answer(poll, good())
    assert play.due().call is not None


def test_a_countdown_that_fell_due_as_the_user_typed_again_is_not_over(play):
    play.start()
    play.ask("sendTyping", {"message": "h"})
    play.move(2.0)
    del play.session.timers[Timer.TYPING]  # the driver has taken it
    play.ask("sendTyping", {"message": "he"})
    play.told()
    assert play.due(Timer.TYPING).call is None
    assert play.told() == []
    play.move(2.0)
    assert play.due(Timer.TYPING).call.operation == "stopTyping"
    assert play.told() == ["clientTypingStopped"]


def test_a_countdown_that_fell_due_as_a_message_was_sent_stops_nothing_more(play):
    play.start()
    play.ask("sendTyping", {"message": "h"})
    play.move(2.0)
    del play.session.timers[Timer.TYPING]
    play.ask("sendMessage", {"message": "hello"})
    assert play.due(Timer.TYPING).call is None


def test_a_timer_of_a_closed_service_does_nothing(play):
    play.start()
    play.take(Closed())
    for timer in Timer:
        assert play.due(timer).call is None
    assert play.session.timers == {}


def test_opening_twice_and_closing_twice_are_nothing(play):
    play.open()
    assert play.open().rows == []
    play.take(Closed())
    assert play.take(Closed()).rows == []


def test_ready_and_the_beginning_of_a_restore_are_one_step(play):
    decision = play.open(SAVED)
    assert (play.told(), play.session.state) == (["ready"], State.RESTORING)
    assert (decision.call.operation, decision.call.session_data) == ("restore", IDS)


def test_the_service_itself_may_restore(play):
    play.open()
    play.session.saved = SAVED
    restore = play.ask("restore", by_service=True)
    assert play.session.state is State.RESTORING
    assert play.answer(restore, good(said(1))).settled.resolved
    play.answer(play.ask("endChat"), good())
    assert play.ask("restore", by_service=True).settled.reason == "No chat session found to restore."


# -- flags -------------------------------------------------------------------------------------------------------------


def test_a_session_that_begins_knows_nothing_of_the_troubles_before(play):
    play.start()
    for _ in range(6):
        play.poll(silent())
    assert play.session.flags == {Flag.DISCONNECTED, Flag.PENDING, Flag.WENT_OFFLINE}
    play.answer(play.ask("endChat"), silent())
    assert (play.session.flags, play.session.failures) == (frozenset(), 0)
    play.told()
    play.answer(play.ask("startChat"), good(session_data=IDS))
    play.poll(good())
    assert play.told() == ["started", "pollingStarted"]


def test_going_offline_after_being_restored_offline_is_no_second_news(play):
    """The user knows already; what brings the server back is told once."""
    restore = play.open(SAVED)
    play.answer(restore, bad(Verdict.UNAVAILABLE))
    play.ask("stopPoll")
    play.ask("startPoll")
    play.told()
    play.poll(bad(Verdict.UNAVAILABLE))
    assert play.session.state is State.OFFLINE
    assert "chatServerWentOffline" not in play.told()
    play.poll(good())
    assert play.told()[0] == "chatServerBackOnline"


def test_the_adopted_ids_are_the_newest_of_good_answers(play):
    play.start()
    play.poll(good(session_data=SessionData(session_id="chat-1", secure_key="key-2", alias="118", user_id="user-1")))
    play.poll(bad(Verdict.UNAVAILABLE, session_data=SessionData(session_id="chat-1", secure_key="forged")))
    assert play.due().call.session_data.secure_key == "key-2"
