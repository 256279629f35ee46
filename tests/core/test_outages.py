"""Flags, counts and the saved session through failed and good polls, in each open state."""

from __future__ import annotations

import pytest

from tests.core.harness import SAVED, CoreHarness, bad, chat_message, good, silent
from webchat_fsm import State
from webchat_fsm._core.steps import ResponseKind, Save
from webchat_fsm._core.timers import Timer

LIMIT = 5


def into(state: State) -> tuple[CoreHarness, object]:
    """Return a core in an open state, and its poll in flight."""
    core = CoreHarness().start()
    for _ in range(LIMIT + 1 if state is State.OFFLINE else 0):
        core.poll(silent())
    core.timer = core.session.timers[Timer.POLL]
    poll = core.due()
    if state is State.ACTIVE:
        core.ask("stopPoll")
    core.published()
    core.effects.clear()
    assert core.session.state is state
    return core, poll


@pytest.mark.parametrize("state", [State.ACTIVE, State.POLLING, State.OFFLINE])
def test_good_poll_saves_the_position_behind_its_messages(state):
    core, poll = into(state)
    decision = core.answer(poll, good(chat_message(3), chat_message(4)))
    (saved,) = (effect for effect in decision.effects if isinstance(effect, Save))
    assert saved.document.cursor == 5


@pytest.mark.parametrize("reply", [good(*map(chat_message, range(1, 4))), bad(ResponseKind.UNAVAILABLE)])
def test_restore_saves_the_session_of_its_first_answer(reply):
    core = CoreHarness()
    restore = core.open(SAVED)
    core.move(5)
    decision = core.answer(restore, reply)
    (saved,) = (effect for effect in decision.effects if isinstance(effect, Save))
    assert saved.document.cursor == (4 if reply.good else 1)
    assert saved.document.session_data == SAVED.session_data


def test_failed_poll_reconnects_once_with_the_next_good_one():
    core, poll = into(State.POLLING)
    core.answer(poll, silent())
    assert core.published() == ["disconnected", "connectionPending"]
    core.poll(good())
    assert core.published() == ["connectionRestored", "reconnected"]
    core.poll(good())
    assert core.published() == []


@pytest.mark.parametrize("state", [State.ACTIVE, State.POLLING, State.OFFLINE])
def test_answer_to_a_send_reconnects_once(state):
    core, _ = into(state)
    published = []
    for reply in (silent(), silent(), good(), good(), silent()):
        core.answer(core.ask("sendMessage", {"message": "hi"}), reply)
        published.append(core.published())
    first = [] if state is State.OFFLINE else ["disconnected"]  # an offline chat has been disconnected before
    assert published == [first, [], ["reconnected"], [], ["disconnected"]]


@pytest.mark.parametrize("state", [State.ACTIVE, State.POLLING, State.OFFLINE])
def test_messages_of_an_unavailable_server_are_delivered(state):
    core, poll = into(state)
    core.answer(poll, bad(ResponseKind.UNAVAILABLE, received=good(chat_message(3, "hi")).received))
    assert core.published()[-1] == "messageReceived"
    assert [message.text for message in core.session.transcript.read().messages] == ["hi"]


@pytest.mark.parametrize("state", [State.ACTIVE, State.POLLING, State.OFFLINE])
def test_messages_of_a_refusal_that_ends_precede_the_end(state):
    core, poll = into(state)
    core.answer(poll, bad(ResponseKind.REFUSED, chat_ended=True, received=good(chat_message(3, "bye")).received))
    published = core.published()
    assert published.index("error") < published.index("messageReceived") < published.index("ended")
    assert [message.text for message in core.session.transcript.read().messages] == ["bye"]


@pytest.mark.parametrize("restored", [False, True])
def test_outage_ended_after_stop_poll_is_over_for_good(restored):
    """End an outage by the poll that was in flight when polling was stopped, and publish its end once."""
    if restored:
        core = CoreHarness()
        core.answer(core.open(SAVED), bad(ResponseKind.UNAVAILABLE))
        core.timer = core.session.timers[Timer.POLL]
        poll = core.due()
    else:
        core, poll = into(State.OFFLINE)
    core.ask("stopPoll")
    core.published()
    core.answer(poll, good())
    assert core.published()[0] == "chatServerBackOnline"
    core.ask("startPoll")
    core.published()
    core.poll(good())
    assert core.published() == []
    for _ in range(LIMIT + 1):
        core.poll(silent())
    assert "chatServerWentOffline" in core.published()


def test_failed_poll_during_end_chat_is_counted():
    core, poll = into(State.POLLING)
    leave = core.ask("endChat")
    core.answer(poll, silent())
    assert core.session.failures == 1, "health() shows the failures in a row"
    core.answer(leave, good())
    assert core.session.failures == 0
