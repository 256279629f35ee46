"""Check transitions that other tests do not take: from rare states, and the flags that they set."""

from __future__ import annotations

import threading

import pytest

from tests.lifecycle.environment import LIMIT, ChatEnvironment
from tests.limits import LONG
from webchat_fsm import CommandRejected, HttpAnswer, State, Transport
from webchat_fsm.lifecycle import TRANSITIONS, Trigger, rows_of

V2, COMETD, V3, ASYNC = Transport

TRANSPORTS = {
    (State.STARTING, Trigger.START_CONFIRMED, State.POLLING): {V2, V3, ASYNC},
    (State.STARTING, Trigger.START_CONFIRMED, State.ACTIVE): {COMETD},
    (State.STARTING, Trigger.START_REFUSED, State.IDLE): {V2, COMETD},
    (State.STARTING, Trigger.START_NOT_TAKEN, State.IDLE): {COMETD},
    (State.ACTIVE, Trigger.START_POLL, State.POLLING): {V2, V3, ASYNC},
    (State.POLLING, Trigger.STOP_POLL, State.ACTIVE): {V2, V3, ASYNC},
    (State.OFFLINE, Trigger.STOP_POLL, State.ACTIVE): {V2, V3, ASYNC},
    (State.ACTIVE, Trigger.POLL_FAILED, State.OFFLINE): {COMETD},
    (State.ACTIVE, Trigger.FORBIDDEN, State.ACTIVE): {COMETD},
    (State.ACTIVE, Trigger.FORBIDDEN, State.OFFLINE): {COMETD},
    (State.OFFLINE, Trigger.FORBIDDEN, State.OFFLINE): {COMETD},
    (State.OFFLINE, Trigger.POLL_ANSWERED, State.POLLING): {V2, V3, ASYNC},
    (State.OFFLINE, Trigger.POLL_ANSWERED, State.ACTIVE): {COMETD},
    (State.POLLING, Trigger.ANSWERED, State.POLLING): {V2, V3, ASYNC},
    (State.ACTIVE, Trigger.CONNECTED, State.ACTIVE): {COMETD},
    (State.OFFLINE, Trigger.CONNECTED, State.OFFLINE): {COMETD},
    (State.RESTORING, Trigger.SAVED_TOO_OLD, State.IDLE): {V2, COMETD},
    (State.IDLE, Trigger.SAVED_TOO_OLD, State.IDLE): {V2, COMETD},
    (State.ENDED, Trigger.SAVED_TOO_OLD, State.ENDED): {V2, COMETD},
    (State.RESTORING, Trigger.FOUND_ENDED_BADLY, State.IDLE): {V2, COMETD},
    (State.RESTORING, Trigger.RESTORE_UNANSWERED, State.DORMANT): {ASYNC},
    (State.RESTORING, Trigger.RESTORE_MISANSWERED, State.DORMANT): {ASYNC},
    (State.RESTORING, Trigger.RESTORE_CONFIRMED, State.POLLING): {V2, V3, ASYNC},
    (State.RESTORING, Trigger.RESTORE_CONFIRMED, State.ACTIVE): {COMETD},
    (State.RESTORING, Trigger.RESTORE_CONFIRMED_OFFLINE, State.OFFLINE): {V2, COMETD},
    (State.RESTORING, Trigger.INTERRUPTED, State.DORMANT): {ASYNC},
    **{(state, Trigger.CLOSE, State.DORMANT): {ASYNC} for state in (State.ACTIVE, State.POLLING, State.OFFLINE)},
    (State.RESTORING, Trigger.CLOSE, State.DORMANT): {ASYNC},
}
"""The transports of each transition that not every transport has, as the reference describes them."""


def test_transitions_belong_to_their_transports():
    found: dict[tuple[State, Trigger, State], set[Transport]] = {}
    for transport in Transport:
        for row in rows_of(transport):
            found.setdefault((row.source, row.trigger, row.dest), set()).add(transport)
    assert {key: where for key, where in found.items() if where != set(Transport)} == TRANSPORTS


@pytest.fixture
def env_on(webchat_timeline, webchat_server):
    """Return a function that makes the environment of a transport."""
    return lambda transport: ChatEnvironment(webchat_timeline, webchat_server, transport)


def test_open_after_end_publishes_ready_alone(env):
    env.start().end_chat()
    env.chat.close()
    env.heard.take()
    env.chat.open()
    assert (env.heard.take(), env.chat.state) == (["ready"], "ended")


def test_open_after_end_restores_session_of_other_service(env):
    first = env.start()
    first.end_chat()
    first.close()
    heard = env.heard
    env.start().close()
    heard.take()
    first.open()
    assert heard.take()[:2] == ["ready", "restored"]


def test_start_after_lost_restore_clears_the_transcript(env):
    chat = env.start()
    env.agent().say("old")
    env.advance(3)
    chat.close()
    env.store.delete()
    chat.open()
    assert "old" in [message.text for message in chat.get_transcript().messages]
    chat.start_chat(nickname="Jonny")
    env.advance(0)
    assert "old" not in [message.text for message in chat.get_transcript().messages]


def test_refused_start_deletes_session_of_failed_restore(env):
    first = env.start()
    first.end_chat()
    first.close()
    probe = env.http
    env.start().close()
    probe.interrupt("restore")
    with pytest.raises(KeyboardInterrupt):
        first.open()
    assert (first.state, env.store.load() is None) == ("ended", False)
    env.server.faults.add(operation="start", server_status=1)
    with pytest.raises(CommandRejected):
        first.start_chat(nickname="Jonny")
    assert env.store.load() is None


@pytest.mark.parametrize("transport", [V2, COMETD, V3, ASYNC])
def test_confirmed_start_saves_the_session_at_once(env_on, transport):
    env = env_on(transport)
    env.open().start_chat(nickname="Jonny")
    assert env.store.load() is not None


def test_stop_poll_while_offline_publishes_polling_stopped(env):
    chat = env.start()
    env.fail_polls(LIMIT + 1)
    env.heard.take()
    chat.stop_poll()
    assert (env.heard.take(), chat.state) == (["pollingStopped"], "active")


def test_misread_poll_during_end_chat_publishes_no_error(env):
    chat = env.start()
    leaving, polled = threading.Event(), threading.Event()
    thread = threading.Thread(target=chat.end_chat)

    def leave_while_polling() -> HttpAnswer:
        thread.start()
        assert leaving.wait(LONG)
        return HttpAnswer(status=200, headers={}, body=b"{}")

    def stay_until_polled() -> None:
        leaving.set()
        assert polled.wait(LONG)

    env.http.during("refresh", leave_while_polling)
    env.http.during("disconnect", stay_until_polled)
    env.heard.take()
    assert chat.step() is False
    assert "error" not in env.heard.take()
    polled.set()
    thread.join(LONG)
    assert chat.state == "ended"


TYPING = [(V2, "active"), (V2, "polling"), (V2, "offline"), (COMETD, "active"), (V3, "active"), (V3, "offline")]


@pytest.mark.parametrize(("transport", "state"), TYPING)
def test_typing_stops_once_and_restarts_in_each_state(env_on, transport, state):
    env = env_on(transport)
    chat = env.start()
    if state == "active" and transport.polls:
        chat.stop_poll()
    elif state == "offline":
        env.fail_polls(LIMIT + 1)
    assert chat.state == state
    env.heard.take()
    for _ in range(2):
        chat.send_typing("h")
        chat.send_typing("he")
        env.advance(2.0)
        typing = [name for name in env.heard.take() if name.startswith("clientTyping")]
        assert typing == ["clientTypingStarted", "clientTypingStopped"]
    chat.send_typing("h")
    chat.send_message("hello")
    typing = [name for name in env.heard.take() if name.startswith("clientTyping")]
    assert typing == ["clientTypingStarted", "clientTypingStopped"]


def test_send_response_with_end_ends_an_offline_chat(env):
    chat = env.start()
    env.fail_polls(LIMIT + 1)
    env.heard.take()
    env.http.answer("send", b'{"statusCode": 0, "chatEnded": true, "messages": [], "chatId": "x"}')
    chat.command("sendMessage", {"message": "hi"})
    assert (env.heard.take()[-2:], chat.state) == (["pollingStopped", "ended"], "ended")


def test_table_has_no_equal_rows():
    assert len(set(TRANSITIONS)) == len(TRANSITIONS)
