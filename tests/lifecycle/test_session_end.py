"""A session that has ended, or was closed, leaves nothing of it behind, and the next one begins afresh."""

from __future__ import annotations

import re

import pytest

from tests.core.harness import IDS, SAVED, CoreHarness, bad, chat_message, good, silent
from tests.lifecycle.environment import INTO, ChatEnvironment
from webchat_fsm import SessionData, State, Transport
from webchat_fsm._core.steps import Closed, Interrupted, ResponseKind
from webchat_fsm._core.timers import Timer

V2, COMETD, V3, ASYNC = Transport
OPEN = [State.ACTIVE, State.POLLING, State.OFFLINE]
ENDS = {"end": {"server_status": 2, "chat_ended": True}, "loss": {"http_status": 404, "server_status": 2}}


@pytest.fixture
def on(webchat_timeline, webchat_server):
    """Return a function that makes the environment of a transport."""
    return lambda transport: ChatEnvironment(webchat_timeline, webchat_server, transport)


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("end", ENDS)
def test_end_by_the_server_leaves_no_session_and_no_filter(on, end, state):
    env = on(V2)

    def answered_with_end(chat):
        chat.add_prefilter(re.compile("secret"))
        assert env.store.load() is not None
        env.server.faults.add(operation="send", **{"chat_ended": True, **ENDS[end]})
        chat.command("sendMessage", {"message": "hi"})

    INTO[V2][state](env, answered_with_end)
    assert (env.chat.state, env.store.load()) == ("ended", None)
    assert env.chat.add_prefilter(re.compile("new")) == [re.compile("new")]


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("transport", [V2, V3, ASYNC])
def test_closed_session_keeps_neither_ids_nor_agents(on, transport, state):
    env = on(transport)

    def close(chat):
        env.agent()
        assert chat.get_session_data() != SessionData()
        chat.close()

    INTO[transport][state](env, close)
    assert (env.chat.get_session_data(), env.chat.get_agents()) == (SessionData(), {})


def restoring_after(replies):
    """Return a core that restores a chat which it has polled with these replies and closed, and the request for it."""
    core = CoreHarness().start()
    for reply in replies:
        core.poll(reply)
    core.take(Closed())
    return core, core.open(core.saved()[-1])


def test_restore_of_an_unavailable_server_begins_afresh():
    core, restore = restoring_after([good(chat_message(1), chat_message(2))])
    core.answer(restore, bad(ResponseKind.UNAVAILABLE))
    assert core.session.state is State.OFFLINE
    assert core.session.transcript.read().messages == ()
    assert core.due().call.operation.position == 1


@pytest.mark.parametrize("reply", [good(), bad(ResponseKind.UNAVAILABLE)], ids=["confirmed", "unavailable"])
def test_restored_chat_polls_at_the_shortest_delay(reply):
    core, restore = restoring_after([good()] * 5)
    core.answer(restore, reply)
    core.poll(good())
    assert core.next_poll == core.session.poll_delay.least


FAILED_RESTORES = {
    "unanswered": silent(),
    "badly answered": bad(ResponseKind.BAD, 500),
    "found ended": good(chat_ended=True),
    "found ended with errors": bad(ResponseKind.REFUSED, chat_ended=True),
    "lost": bad(ResponseKind.LOST, 404),
}


@pytest.mark.parametrize("failure", [*FAILED_RESTORES, "closed", "interrupted"])
def test_data_given_during_a_failed_restore_go_with_the_start(failure):
    core = CoreHarness()
    restore = core.open(SAVED)
    core.ask("updateUserData", {"tier": "gold"})
    if failure == "closed":
        core.take(Closed())
        core.open()
    elif failure == "interrupted":
        core.take(Interrupted(call=restore.call))
    else:
        core.answer(restore, FAILED_RESTORES[failure])
    start = core.ask("startChat", {"nickname": "Jonny"})
    assert start.call.operation.user_data == {"tier": "gold"}
    core.answer(start, good(session_data=IDS))
    assert Timer.USER_DATA not in core.session.timers


def test_answer_to_a_dormant_end_after_close_is_late(on):
    env = on(ASYNC)

    def end_and_close(chat):
        env.http.during("disconnect", chat.close)
        env.heard.take()
        chat.command("endChat")

    INTO[ASYNC][State.DORMANT](env, end_and_close)
    assert (env.heard.take(), env.chat.state) == ([], "async-dormant")


@pytest.mark.parametrize("reply", [silent(), bad(ResponseKind.BAD, 500), bad(ResponseKind.REFUSED)])
def test_data_given_during_a_failed_start_go_with_the_next(reply):
    core = CoreHarness()
    core.open()
    start = core.ask("startChat", {"nickname": "Jonny"})
    core.ask("updateUserData", {"tier": "gold"})
    core.answer(start, reply)
    assert core.session.state is State.IDLE
    start = core.ask("startChat", {"nickname": "Jonny"})
    assert start.call.operation.user_data == {"tier": "gold"}
    core.answer(start, good(session_data=IDS))
    assert Timer.USER_DATA not in core.session.timers


def test_first_failure_beyond_limit_0_is_pending_until_restored():
    core = CoreHarness(pollExceptionLimit=0).start()
    core.poll(silent())
    assert core.published() == ["disconnected", "connectionPending", "chatServerWentOffline"]
    core.poll(good())
    assert core.published() == ["chatServerBackOnline", "connectionRestored", "reconnected"]


@pytest.mark.parametrize("restored", [False, True])
def test_back_online_is_published_once_where_polling_was_off(restored):
    if restored:
        core, restore = restoring_after([good()])
        core.answer(restore, bad(ResponseKind.UNAVAILABLE))
    else:
        core = CoreHarness(pollExceptionLimit=0).start()
        core.poll(silent())
    assert core.session.state is State.OFFLINE
    core.ask("stopPoll")
    core.ask("startPoll")
    core.published()
    core.poll(good())
    assert "chatServerBackOnline" in core.published()
    core.poll(good())
    assert core.published() == []
