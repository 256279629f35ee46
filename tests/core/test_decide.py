"""Check the decision function alone: pure, with the time and the inputs of the shell as arguments."""

from __future__ import annotations

import builtins
import socket
import time

import pytest

from tests.core.harness import BEGIN, IDS, SAVED, CoreHarness, bad, chat_message, good, silent
from webchat_fsm._core.operations import NoRequest
from webchat_fsm._core.steps import Call, Closed, Forget, Interrupted, Publish, ResponseKind, Save
from webchat_fsm._core.timers import Timer
from webchat_fsm._model import SessionData
from webchat_fsm.lifecycle._table import Flag, State


@pytest.fixture
def core():
    return CoreHarness()


def test_decision_reads_no_clock_and_does_no_io(core, monkeypatch):
    def forbidden(*given, **named):
        raise AssertionError("a decision must not do this")

    monkeypatch.setattr(time, "time", forbidden)
    monkeypatch.setattr(time, "monotonic", forbidden)
    monkeypatch.setattr(time, "sleep", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(builtins, "open", forbidden)
    core.start()
    core.poll(good(chat_message(1)))
    core.poll(silent())
    core.answer(core.ask("endChat"), good(chat_ended=True))
    assert core.session.state is State.ENDED


def test_same_steps_give_same_decisions():
    def run():
        core = CoreHarness().start()
        for reply in (
            good(chat_message(1), chat_message(2)),
            silent(),
            bad(ResponseKind.BAD, 500),
            good(chat_message(3)),
        ):
            core.move(1)
            core.poll(reply)
        return core

    first, second = run(), run()
    assert first.transitions == second.transitions
    assert first.effects == second.effects


def test_event_has_the_wall_clock_time_of_its_step(core):
    core.open()
    core.move(5)
    core.answer(core.ask("startChat"), good(session_data=IDS))
    times = {effect.event: effect.time for effect in core.effects if isinstance(effect, Publish)}
    assert times == {"ready": BEGIN, "started": BEGIN + 5, "pollingStarted": BEGIN + 5}


# -- saving ------------------------------------------------------------------------------------------------------------


def test_cursor_is_saved_after_its_content_is_published(core):
    core.start()
    core.effects.clear()
    core.poll(good(chat_message(3), chat_message(4)))
    kinds = [effect.event if isinstance(effect, Publish) else type(effect) for effect in core.effects]
    assert kinds == ["messageReceived", Save]
    assert core.saved()[-1].cursor == 5
    assert [entry.index for entry in core.session.transcript.read().messages] == [3, 4]


def test_cursor_ignores_untrusted_answer_and_lower_index(core):
    core.start()
    core.poll(good(*map(chat_message, range(1, 6))))
    core.poll(bad(ResponseKind.UNAVAILABLE, received=good(chat_message(9)).received))
    core.poll(good(chat_message(2)))
    assert core.due().call.operation.position == 6


def test_last_contact_is_that_of_good_poll_or_close(core):
    core.start()
    core.move(10)
    core.poll(good())
    for reply in (
        silent(),
        bad(ResponseKind.BAD, 500),
        bad(ResponseKind.UNAVAILABLE),
        bad(ResponseKind.THROTTLED, 429),
    ):
        core.move(10)
        core.poll(reply)
    assert core.saved()[-1].last_contact == BEGIN + 10
    core.take(Closed())
    assert core.saved()[-1].last_contact == BEGIN + 50


def test_later_effects_on_the_store_have_higher_numbers(core):
    core.start()
    core.poll(good())
    core.answer(core.ask("endChat"), good())
    orders = [effect.order for effect in core.effects if isinstance(effect, Save | Forget)]
    assert orders == sorted(set(orders))
    assert isinstance([effect for effect in core.effects if isinstance(effect, Save | Forget)][-1], Forget)


# -- late responses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [good(chat_message(1), chat_ended=True), silent(), bad(ResponseKind.LOST, 404), bad(ResponseKind.BAD, 500)]
)
def test_late_response_of_earlier_session_changes_nothing(core, reply):
    core.start()
    poll, send = core.due(), core.ask("sendMessage", {"message": "hi"})
    core.answer(core.ask("endChat"), good())
    core.answer(core.ask("startChat"), good(session_data=IDS))
    core.published()
    transitions, timers = len(core.transitions), dict(core.session.timers)
    core.answer(poll, reply)
    settled = core.answer(send, reply).settled
    assert (core.published(), len(core.transitions), core.session.timers) == ([], transitions, timers)
    assert settled.resolved is reply.good, "a send settles with its real outcome"
    assert core.session.state is State.POLLING


def test_start_response_after_close_is_rejected(core):
    core.open()
    start = core.ask("startChat")
    core.take(Closed())
    settled = core.answer(start, good(session_data=IDS)).settled
    assert (settled.resolved, settled.reason) == (False, "WebChatService was closed before the server answered")
    assert core.session.state is State.IDLE
    assert core.saved() == []


def test_each_call_has_its_own_ticket(core):
    core.start()
    tickets = [core.ask("sendMessage", {"message": "hi"}).call.ticket for _ in range(3)]
    assert len(set(tickets)) == 3


# -- endChat in flight -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "published"),
    [
        (
            good(chat_message(3), chat_ended=True),
            ["messageReceived", "agentDisconnected", "clientDisconnected", "ended"],
        ),
        (bad(ResponseKind.REFUSED, chat_ended=True), ["agentDisconnected", "clientDisconnected", "ended"]),
        (bad(ResponseKind.LOST, 404), ["agentDisconnected", "clientDisconnected", "ended"]),
    ],
)
def test_poll_finding_end_during_end_chat_ends_the_session(core, reply, published):
    core.start()
    core.poll(good(chat_message(2, type="ParticipantJoined")))
    poll, end = core.due(), core.ask("endChat")
    core.published()
    core.answer(poll, reply)
    assert (core.published(), core.session.state) == (published, State.ENDED)
    assert core.answer(end, good()).settled.resolved
    assert core.published() == []


@pytest.mark.parametrize(
    "reply", [silent(), bad(ResponseKind.BAD, 500), bad(ResponseKind.UNAVAILABLE), bad(ResponseKind.REFUSED)]
)
def test_poll_failure_during_end_chat_publishes_no_error(core, reply):
    core.start()
    poll, end = core.due(), core.ask("endChat")
    core.published()
    core.answer(poll, reply)
    assert set(core.published()) <= {"disconnected"}
    assert core.session.state is State.ACTIVE
    core.answer(end, good())
    assert core.published()[-2:] == ["clientDisconnected", "ended"]


def test_poll_in_flight_during_end_chat_is_published(core):
    core.start()
    poll, end = core.due(), core.ask("endChat")
    core.answer(poll, good(chat_message(2, "Bye")))
    assert core.published() == ["pollingStopped", "messageReceived"]
    core.answer(end, good())
    assert [entry.text for entry in core.session.transcript.read().messages] == ["Bye"]
    assert core.next_poll is None


@pytest.mark.parametrize("reply", [good(), silent(), bad(ResponseKind.BAD, 500), bad(ResponseKind.LOST, 404)])
def test_end_chat_ends_the_session_after_any_response(core, reply):
    core.start()
    settled = core.answer(core.ask("endChat"), reply).settled
    assert settled.resolved is reply.good
    assert core.session.state is State.ENDED
    assert core.published()[-2:] == ["clientDisconnected", "ended"]
    assert core.session.session_data == SessionData()


def test_interrupted_end_chat_ends_the_session(core):
    core.start()
    end = core.ask("endChat")
    core.take(Interrupted(call=end.call))
    assert core.session.state is State.ENDED


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_interrupted_poll_is_repeated(core):
    core.start()
    core.poll(good())
    poll = core.due()
    core.take(Interrupted(call=poll.call))
    assert core.next_poll is not None
    assert core.due().call.operation.name == "refresh"


def test_end_chat_interrupted_after_the_end_stays_ended(core):
    core.start()
    end = core.ask("endChat")
    core.session.state = State.ENDED  # the interruption came after this assignment
    core.take(Interrupted(call=end.call))
    assert core.session.state is State.ENDED
    assert core.ask("startChat").call.operation.name == "start"


def test_poll_interrupted_before_its_request_is_repeated(core):
    core.start()
    core.poll(good())
    core.session.timers.clear()  # the interruption came after the driver had removed the timer
    core.take(Interrupted(call=Call(operation=NoRequest(), number=core.session.number, ticket=-1)))
    assert core.next_poll is not None
    assert core.due().call.operation.name == "refresh"


def test_interrupted_call_of_earlier_session_is_ignored(core):
    core.start()
    poll = core.due()
    core.answer(core.ask("endChat"), good())
    transitions = len(core.transitions)
    core.take(Interrupted(call=poll.call))
    assert len(core.transitions) == transitions


def test_interrupted_restore_returns_to_the_former_state(core):
    core.start()
    core.answer(core.ask("endChat"), good())
    core.take(Closed())
    assert core.session.state is State.ENDED
    restore = core.open(SAVED)
    assert core.session.state is State.RESTORING
    core.take(Interrupted(call=restore.call))
    assert core.session.state is State.ENDED
    core.move(60)
    assert core.ask("verifySession").settled.value is False
    assert (core.published()[-1], core.session.state) == ("restoreTimeout", State.ENDED)


# -- polls, one at a time ----------------------------------------------------------------------------------------------


def test_second_poll_waits_for_the_first(core):
    core.start()
    poll = core.due()
    assert core.due().call is None
    assert core.ask("poll", by_service=True).settled.reason == "previous poll has not finished."
    core.answer(poll, good())
    assert core.due().call is not None


def test_typing_countdown_due_during_typing_does_nothing(core):
    core.start()
    core.ask("sendTyping", {"message": "h"})
    core.move(2.0)
    del core.session.timers[Timer.TYPING]  # the driver has removed it
    core.ask("sendTyping", {"message": "he"})
    core.published()
    assert core.due(Timer.TYPING).call is None
    assert core.published() == []
    core.move(2.0)
    assert core.due(Timer.TYPING).call.operation.name == "stopTyping"
    assert core.published() == ["clientTypingStopped"]


def test_typing_countdown_due_after_send_does_nothing(core):
    core.start()
    core.ask("sendTyping", {"message": "h"})
    core.move(2.0)
    del core.session.timers[Timer.TYPING]
    core.ask("sendMessage", {"message": "hello"})
    assert core.due(Timer.TYPING).call is None


def test_timer_after_close_does_nothing(core):
    core.start()
    core.take(Closed())
    for timer in Timer:
        assert core.due(timer).call is None
    assert core.session.timers == {}


def test_second_open_or_close_makes_no_transition(core):
    core.open()
    assert core.open().transitions == []
    core.take(Closed())
    assert core.take(Closed()).transitions == []


def test_open_publishes_ready_and_begins_restore_in_one_step(core):
    decision = core.open(SAVED)
    assert (core.published(), core.session.state) == (["ready"], State.RESTORING)
    assert (decision.call.operation.name, decision.call.session_data) == ("restore", IDS)


def test_restore_by_the_service_succeeds(core):
    core.open()
    core.session.saved = SAVED
    restore = core.ask("restore", by_service=True)
    assert core.session.state is State.RESTORING
    assert core.answer(restore, good(chat_message(1))).settled.resolved
    core.answer(core.ask("endChat"), good())
    assert core.ask("restore", by_service=True).settled.reason == "No chat session found to restore."


# -- flags -------------------------------------------------------------------------------------------------------------


def test_new_session_begins_without_former_failures(core):
    core.start()
    for _ in range(6):
        core.poll(silent())
    assert core.session.flags == {Flag.DISCONNECTED, Flag.PENDING, Flag.WENT_OFFLINE}
    core.answer(core.ask("endChat"), silent())
    assert (core.session.flags, core.session.failures) == (frozenset(), 0)
    core.published()
    core.answer(core.ask("startChat"), good(session_data=IDS))
    core.poll(good())
    assert core.published() == ["started", "pollingStarted"]


def test_offline_after_offline_restore_is_published_once(core):
    """Publish no `chatServerWentOffline` after `restoredOffline`, then `chatServerBackOnline` at a good poll."""
    restore = core.open(SAVED)
    core.answer(restore, bad(ResponseKind.UNAVAILABLE))
    core.ask("stopPoll")
    core.ask("startPoll")
    core.published()
    core.poll(bad(ResponseKind.UNAVAILABLE))
    assert core.session.state is State.OFFLINE
    assert "chatServerWentOffline" not in core.published()
    core.poll(good())
    assert core.published()[0] == "chatServerBackOnline"


def test_ids_of_the_latest_good_response_are_used(core):
    core.start()
    core.poll(good(session_data=SessionData(session_id="chat-1", secure_key="key-2", alias="118", user_id="user-1")))
    core.poll(bad(ResponseKind.UNAVAILABLE, session_data=SessionData(session_id="chat-1", secure_key="forged")))
    assert core.due().call.session_data.secure_key == "key-2"
