"""The ways of a v3 session through the lifecycle, from each of its states, as lifecycle.md has them."""

from __future__ import annotations

import threading

import pytest

from tests.lifecycle.stage import INTO
from tests.nexus.stage import Cupboard, envelope
from webchat_fsm import State
from webchat_fsm.wire.request import HttpAnswer

POLLED = (State.POLLING, State.OFFLINE)

LOST = b'{"status": {"code": "INVALID_SESSION", "message": "gone"}}'


@pytest.fixture(params=[State.ACTIVE, *POLLED])
def within(nexus, request):
    """Play a story in each state that has a session: it is told the state, and must have been played."""

    def play(story):
        told = []

        def act(chat):
            assert chat.state == request.param
            nexus.heard.events.clear()
            story(chat, request.param)
            told.append(chat)

        INTO[nexus.transport][request.param](nexus, act)
        assert told

    return play


def stopped(state) -> list[str]:
    """What is told first where polling was on."""
    return ["pollingStopped"] if state in POLLED else []


def gone(nexus) -> str:
    """Where a session lies that was left by closing."""
    return "async-dormant" if nexus.transport.asynchronous else "idle"


def test_typing_is_told_in_every_state_and_ends_by_itself(nexus, within):
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


def test_starting_to_poll_while_offline_changes_nothing(nexus):
    def story(chat):
        nexus.heard.take()
        assert chat.command("startPoll")
        assert (chat.state, nexus.heard.take()) == ("offline", [])

    INTO[nexus.transport][State.OFFLINE](nexus, story)


def test_the_servers_end_is_told_in_every_state(nexus, within):
    def story(chat, state):
        nexus.server.end()
        chat.step()
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "ended"])
        assert nexus.timeline.next_timer() is None

    within(story)


def test_a_loss_is_told_in_every_state(nexus, within):
    def story(chat, state):
        nexus.server.core.purge()
        chat.step()
        assert (chat.state, nexus.heard.take()) == ("ended", ["error", *stopped(state), "ended"])
        assert nexus.timeline.next_timer() is None

    within(story)


def test_leaving_is_told_in_every_state(nexus, within):
    def story(chat, state):
        chat.end_chat()
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "clientDisconnected", "ended"])

    within(story)


def test_closing_is_silent_in_every_state_and_the_session_can_be_taken_up(nexus, within):
    def story(chat, state):
        chat.send_typing("h")
        nexus.heard.take()
        assert chat.close()
        assert (chat.state, nexus.heard.take(), nexus.timeline.next_timer()) == (gone(nexus), [], None)
        chat.open()
        assert chat.state == "polling"

    within(story)


def test_an_answer_to_a_send_that_says_the_chat_is_over_ends_it_in_every_state(nexus, within):
    def story(chat, state):
        nexus.http.answer("send", envelope(chatEnded=True))
        assert chat.command("sendMessage", {"message": "x"})
        assert (chat.state, nexus.heard.take()) == ("ended", [*stopped(state), "ended"])

    within(story)


@pytest.mark.parametrize("fault", [{"drop": True}, {"http_status": 500}])
def test_a_poll_that_fails_after_stop_poll_is_counted_in_silence(nexus, fault):
    chat = nexus.start()
    nexus.server.faults.add(operation="refresh", **fault)
    nexus.http.during("refresh", lambda: chat.command("stopPoll") and None)
    nexus.heard.take()
    chat.step()
    assert (chat.state, chat.health().failures) == ("active", 1)
    assert nexus.heard.take() == ["pollingStopped", "disconnected" if "drop" in fault else "error"]
    assert nexus.timeline.next_timer() is None


# -- starting and restoring that come to nothing -----------------------------------------------------------------------


def interrupt():
    raise KeyboardInterrupt


def test_closing_while_starting_rejects_the_start(nexus):
    chat = nexus.open()
    nexus.http.during("start", lambda: chat.close() and None)
    assert chat.command("startChat", {"nickname": "x"}).reason
    assert (chat.state, nexus.heard.take(), nexus.timeline.next_timer()) == ("idle", ["ready"], None)
    assert nexus.store.load() is None


def test_an_interrupted_start_is_idle_again(nexus):
    chat = nexus.open()
    nexus.http.during("start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="x")
    assert (chat.state, nexus.heard.take()) == ("idle", ["ready"])
    assert chat.start_chat(nickname="x")


@pytest.mark.parametrize(
    ("status", "body", "told", "kept"),
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
def test_a_reload_restore_that_fails_is_idle_and_keeps_what_may_still_be_there(v3, status, body, told, kept):
    v3.start().close()
    v3.client()
    if status:
        v3.http.answer("restore", body, status)
    else:
        v3.server.faults.add(operation="refresh", drop=True)
    v3.chat.open()
    assert (v3.chat.state, v3.heard.take()) == ("idle", ["ready", *told])
    assert (v3.store.load() is not None) is kept
    v3.chat.close()
    v3.chat.open()
    assert v3.chat.state == ("polling" if kept else "idle")


@pytest.mark.parametrize("ended_before", [False, True])
def test_an_interrupted_restore_of_a_store_is_as_before(nexus, ended_before):
    nexus.start()
    document = nexus.store.load()
    if ended_before:
        nexus.chat.end_chat()
        nexus.chat.close()
    else:
        nexus.chat.close()
        nexus.client()
    nexus.store.save(document)
    nexus.http.during("restore", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nexus.chat.open()
    assert nexus.chat.state == ("ended" if ended_before else "idle")
    assert nexus.store.load() is not None


def test_closing_while_a_store_is_restored_keeps_it(nexus):
    nexus.start().close()
    chat = nexus.client()
    nexus.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert (chat.state, nexus.heard.take()) == (gone(nexus), ["ready"])
    chat.open()
    assert chat.state == "polling"


def test_an_ended_chat_that_is_opened_again_stays_ended(nexus):
    chat = nexus.start()
    chat.end_chat()
    chat.close()
    nexus.heard.take()
    chat.open()
    assert (chat.state, nexus.heard.take()) == ("ended", ["ready"])


# -- a poll that is answered while the user leaves ---------------------------------------------------------------------


@pytest.fixture
def leaving(nexus):
    """Let a poll be answered in the midst of endChat; gives what that told, what came after it, and the outcome."""

    def play(answer):
        heard, on_the_way, answered, outcomes = nexus.heard, threading.Event(), threading.Event(), []

        def wait():
            on_the_way.set()
            answered.wait(10)

        thread = threading.Thread(target=lambda: outcomes.append(nexus.chat.command("endChat")))

        def leave():
            thread.start()
            assert on_the_way.wait(10)
            return answer

        nexus.http.during("disconnect", wait)
        nexus.http.during("refresh", leave)
        heard.take()
        try:
            nexus.chat.step()
            first = heard.take()
        finally:
            answered.set()
            thread.join(10)
        return first, heard.take(), outcomes[0]

    return play


def test_a_good_poll_is_taken_while_the_user_leaves(nexus, leaving):
    nexus.start()
    nexus.agent().say("do not go")
    first, then, outcome = leaving(None)
    assert first == ["pollingStopped", "agentConnected", "messageReceived"]
    assert then == ["agentDisconnected", "clientDisconnected", "ended"]
    assert outcome


def test_trouble_is_not_told_any_more_while_the_user_leaves(nexus, leaving):
    nexus.start()
    first, then, outcome = leaving(HttpAnswer(status=500))
    assert (first, then) == (["pollingStopped"], ["clientDisconnected", "ended"])
    assert outcome


@pytest.mark.parametrize(
    "answer", [HttpAnswer(status=404, body=LOST), HttpAnswer(status=200, body=envelope(messages=[], chatEnded=True))]
)
def test_an_end_that_a_poll_finds_while_the_user_leaves_is_told_once(nexus, leaving, answer):
    nexus.start()
    first, then, outcome = leaving(answer)
    assert (first, then) == (["pollingStopped", "clientDisconnected", "ended"], [])
    assert outcome
    assert nexus.chat.state == "ended"


def test_a_loss_that_a_poll_finds_while_the_user_leaves_is_told_to_the_function(lasting):
    cupboard = Cupboard()
    chat = lasting.start(hooks=cupboard.hooks)
    heard, thread = [], threading.Thread(target=lambda: heard.append(chat.command("endChat")))
    on_the_way, answered = threading.Event(), threading.Event()
    lasting.http.during("disconnect", lambda: on_the_way.set() or (answered.wait(10) and None))

    def leave():
        thread.start()
        assert on_the_way.wait(10)
        return HttpAnswer(status=404, body=LOST)

    lasting.http.during("refresh", leave)
    try:
        chat.step()
    finally:
        answered.set()
        thread.join(10)
    assert cupboard.names()[-1] == "delete"
    assert cupboard.kept is None
