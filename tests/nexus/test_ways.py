"""Check the transitions of a v3 session from each of its states, as lifecycle.md lists them."""

from __future__ import annotations

import threading

import pytest

from tests.lifecycle.environment import INTO
from tests.limits import LONG
from tests.nexus.environment import HookRecorder, envelope
from webchat_fsm import State
from webchat_fsm._wire.request import HttpAnswer

POLLED = (State.POLLING, State.OFFLINE)

LOST = b'{"status": {"code": "INVALID_SESSION", "message": "gone"}}'


@pytest.fixture(params=[State.ACTIVE, *POLLED])
def within(nexus, request):
    """Return a function that runs a story in each state with a session and checks that the story ran."""

    def play(story):
        played = []

        def act(chat):
            assert chat.state == request.param
            nexus.heard.events.clear()
            story(chat, request.param)
            played.append(chat)

        INTO[nexus.transport][request.param](nexus, act)
        assert played

    return play


def stopped(state) -> list[str]:
    """Return the event that comes first if polling was on."""
    return ["pollingStopped"] if state in POLLED else []


def closed_state(nexus) -> str:
    """Return the state of a closed service whose session is saved."""
    return "async-dormant" if nexus.transport.asynchronous else "idle"


def test_typing_is_published_in_every_state_and_times_out(nexus, within):
    def story(chat, state):
        chat.send_typing("h")
        nexus.advance(2)
        assert nexus.heard.take() == ["clientTypingStarted", "clientTypingStopped"]
        assert (chat.state, nexus.fields("stopTyping")["data[text]"]) == (state, "")

    within(story)


def test_polling_can_be_switched_in_every_state(nexus, within):
    def story(chat, state):
        first = chat.command("stopPoll")
        assert first.reason == (None if state in POLLED else "Not currently polling. Ignoring command.")
        assert (chat.state, nexus.heard.take()) == ("active", stopped(state))
        assert chat.command("startPoll")
        assert chat.command("startPoll")
        assert (chat.state, nexus.heard.take()) == ("polling", ["pollingStarted"])

    within(story)


def test_start_polling_while_offline_changes_nothing(nexus):
    def story(chat):
        nexus.heard.take()
        assert chat.command("startPoll")
        assert (chat.state, nexus.heard.take()) == ("offline", [])

    INTO[nexus.transport][State.OFFLINE](nexus, story)


def test_end_by_server_is_published_in_every_state(nexus, within):
    def story(chat, state):
        nexus.server.end()
        chat.step()
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "ended"])
        assert nexus.timeline.next_timer() is None

    within(story)


def test_session_loss_is_published_in_every_state(nexus, within):
    def story(chat, state):
        nexus.server.core.purge()
        chat.step()
        assert (chat.state, nexus.heard.take()) == ("ended", ["error", *stopped(state), "ended"])
        assert nexus.timeline.next_timer() is None

    within(story)


def test_leave_is_published_in_every_state(nexus, within):
    def story(chat, state):
        chat.end_chat()
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "clientDisconnected", "ended"])

    within(story)


def test_close_is_silent_in_every_state_and_restorable(nexus, within):
    def story(chat, state):
        chat.send_typing("h")
        nexus.heard.take()
        assert chat.close()
        assert (chat.state, nexus.heard.take(), nexus.timeline.next_timer()) == (closed_state(nexus), [], None)
        chat.open()
        assert chat.state == "polling"

    within(story)


def test_send_response_with_end_ends_chat_in_every_state(nexus, within):
    def story(chat, state):
        nexus.http.answer("send", envelope(chatEnded=True))
        assert chat.command("sendMessage", {"message": "x"})
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "ended"])

    within(story)


@pytest.mark.parametrize("fault", [{"drop": True}, {"http_status": 500}])
def test_v3_poll_failure_after_stop_is_counted_only(nexus, fault):
    chat = nexus.start()
    nexus.server.faults.add(operation="refresh", **fault)
    nexus.http.during("refresh", lambda: chat.command("stopPoll") and None)
    nexus.heard.take()
    chat.step()
    assert (chat.state, chat.health().failures) == ("active", 1)
    assert nexus.heard.take() == ["pollingStopped", "disconnected" if "drop" in fault else "error"]
    assert nexus.timeline.next_timer() is None


# -- starts and restores that fail or are cancelled --------------------------------------------------------------------


def test_close_during_start_rejects_start(nexus):
    chat = nexus.open()
    nexus.http.during("start", lambda: chat.close() and None)
    assert chat.command("startChat", {"nickname": "x"}).reason
    assert (chat.state, nexus.heard.take(), nexus.timeline.next_timer()) == ("idle", ["ready"], None)
    assert nexus.store.load() is None


def test_interrupted_start_leaves_service_idle(nexus):
    chat = nexus.open()
    nexus.http.interrupt("start")
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="x")
    assert (chat.state, nexus.heard.take()) == ("idle", ["ready"])
    assert chat.start_chat(nickname="x")


@pytest.mark.parametrize(
    ("status", "body", "published", "kept"),
    [
        (0, b"", ["restoreFailed"], True),
        (429, b"", ["restoreFailed"], True),
        (500, b"", ["restoreFailed", "error"], True),
        (401, b"", ["restoreFailed", "error"], True),
        (404, b"", ["restoreFailed", "error"], True),
        (404, b"<html>", ["restoreFailed", "error"], True),
        (404, LOST, ["restoreFailed", "error"], False),
        (200, b"?", ["restoreFailed", "error"], True),
        (200, envelope(messages=[], chatEnded=True), ["restoreFailed"], False),
    ],
)
def test_failed_reload_restore_is_idle_and_keeps_session(v3, status, body, published, kept):
    v3.start().close()
    v3.client()
    if status:
        v3.http.answer("restore", body, status)
    else:
        v3.server.faults.add(operation="refresh", drop=True)
    v3.chat.open()
    assert (v3.chat.state, v3.heard.take()) == ("idle", ["ready", *published])
    assert (v3.store.load() is not None) is kept
    v3.chat.close()
    v3.chat.open()
    assert v3.chat.state == ("polling" if kept else "idle")


@pytest.mark.parametrize("ended_before", [False, True])
def test_interrupted_restore_keeps_state_and_store(nexus, ended_before):
    nexus.start()
    document = nexus.store.load()
    if ended_before:
        nexus.chat.end_chat()
        nexus.chat.close()
    else:
        nexus.chat.close()
        nexus.client()
    nexus.store.save(document)
    nexus.http.interrupt("restore")
    with pytest.raises(KeyboardInterrupt):
        nexus.chat.open()
    assert nexus.chat.state == ("ended" if ended_before else "idle")
    assert nexus.store.load() is not None


def test_close_during_restore_keeps_session(nexus):
    nexus.start().close()
    chat = nexus.client()
    nexus.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert (chat.state, nexus.heard.take()) == (closed_state(nexus), ["ready"])
    chat.open()
    assert chat.state == "polling"


def test_reopened_ended_chat_stays_ended(nexus):
    chat = nexus.start()
    chat.end_chat()
    chat.close()
    nexus.heard.take()
    chat.open()
    assert (chat.state, nexus.heard.take()) == ("ended", ["ready"])


# -- a poll response during endChat ------------------------------------------------------------------------------------


@pytest.fixture
def leaving(nexus):
    """Respond to a poll during endChat; return the events of the poll, the later events and the outcome."""

    def play(answer):
        heard, on_the_way, answered, outcomes = nexus.heard, threading.Event(), threading.Event(), []

        def wait():
            on_the_way.set()
            answered.wait(LONG)

        thread = threading.Thread(target=lambda: outcomes.append(nexus.chat.command("endChat")))

        def leave():
            thread.start()
            assert on_the_way.wait(LONG)
            return answer

        nexus.http.during("disconnect", wait)
        nexus.http.during("refresh", leave)
        heard.take()
        try:
            nexus.chat.step()
            first = heard.take()
        finally:
            answered.set()
            thread.join(LONG)
        return first, heard.take(), outcomes[0]

    return play


def test_poll_response_during_end_chat_is_published(nexus, leaving):
    nexus.start()
    nexus.agent().say("do not go")
    first, then, outcome = leaving(None)
    assert first == ["pollingStopped", "agentConnected", "messageReceived"]
    assert then == ["agentDisconnected", "clientDisconnected", "ended"]
    assert outcome


def test_failures_while_leaving_are_not_published(nexus, leaving):
    nexus.start()
    first, then, outcome = leaving(HttpAnswer(status=500))
    assert (first, then) == (["pollingStopped"], ["clientDisconnected", "ended"])
    assert outcome


@pytest.mark.parametrize(
    "answer", [HttpAnswer(status=404, body=LOST), HttpAnswer(status=200, body=envelope(messages=[], chatEnded=True))]
)
def test_end_polled_while_leaving_is_published_once(nexus, leaving, answer):
    nexus.start()
    first, then, outcome = leaving(answer)
    assert (first, then) == (["pollingStopped", "clientDisconnected", "ended"], [])
    assert outcome
    assert nexus.chat.state == "ended"


def test_loss_polled_while_leaving_calls_delete(v3_async):
    recorder = HookRecorder()
    chat = v3_async.start(hooks=recorder.hooks)
    heard, thread = [], threading.Thread(target=lambda: heard.append(chat.command("endChat")))
    on_the_way, answered = threading.Event(), threading.Event()
    v3_async.http.during("disconnect", lambda: on_the_way.set() or (answered.wait(LONG) and None))

    def leave():
        thread.start()
        assert on_the_way.wait(LONG)
        return HttpAnswer(status=404, body=LOST)

    v3_async.http.during("refresh", leave)
    try:
        chat.step()
    finally:
        answered.set()
        thread.join(LONG)
    assert recorder.names()[-1] == "delete"
    assert recorder.kept is None
