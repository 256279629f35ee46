"""Check restoring: before and after the timeout, after process death, of an ended chat, with an unavailable server."""

from __future__ import annotations

import logging
import threading

import pytest
from msgspec.structs import replace

from tests.lifecycle.environment import Probe, envelope, message
from tests.limits import LONG
from webchat_fsm import CommandRejected, FileStore, MemoryStore, ThreadDriver, WebChatService
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing._bench import CONFIGS


def restore_events(env) -> list[str]:
    return [name for name in env.heard.take() if name not in ("clientConnected", "agentConnected")]


RESTORED = ["ready", "restored", "messageReceived", "pollingStarted"]


@pytest.mark.parametrize(
    ("away", "published", "state"),
    [
        (0, RESTORED, "polling"),
        (59.999, RESTORED, "polling"),
        (60.000, ["ready", "restoreTimeout"], "idle"),
        (60.001, ["ready", "restoreTimeout"], "idle"),
    ],
)
def test_restore_succeeds_only_before_the_timeout(env, away, published, state):
    env.start()
    chat = env.away(away)
    assert (restore_events(env), chat.state) == (published, state)
    assert (env.store.load() is None) is (state == "idle")


def test_restore_after_the_timeout_sends_no_request(env):
    env.start()
    env.away(60)
    assert env.http.sent == []


def test_restore_timeout_is_configured(env):
    env.start()
    assert env.away(100, restoreTimeout=100_001).state == "polling"
    assert env.away(1, restoreTimeout=1000).state == "idle"


@pytest.mark.parametrize(("away", "state"), [(59.999, "polling"), (65, "idle")])
def test_restore_after_process_death_uses_last_good_poll(env, away, state):
    env.start()
    env.advance(30)
    last = env.asked("refresh") and env.server.core.requests[-1].time
    env.crash()
    env.advance(last + away - env.timeline.now())
    chat = env.open()
    assert chat.state == state


def test_failed_poll_does_not_extend_the_restore_timeout(env):
    env.start()
    env.advance(5)
    last = env.server.core.requests[-1].time
    env.server.faults.add(operation="refresh", drop=True, times=100)
    env.advance(40)
    env.crash()
    env.server.faults.clear()
    env.advance(last + 65 - env.timeline.now())
    assert env.open().state == "idle"


def test_close_restarts_restore_timeout_after_failed_polls(env):
    env.start()
    env.server.faults.add(operation="refresh", drop=True, times=100)
    env.advance(90)
    env.server.faults.clear()
    assert env.away(59).state == "polling"


def test_restore_succeeds_after_clock_moves_backwards(env):
    env.start()
    env.chat.close()
    env.timeline.clock_jump(-100_000)
    assert env.open().state == "polling"


def test_restore_marks_transcript_and_continues_after_it(env):
    env.start()
    ann = env.agent()
    ann.say("before")
    env.advance(3)
    env.chat.close()
    ann.say("meanwhile")
    chat = env.open()
    received = env.heard.last("messageReceived")
    assert received.restoring
    assert [(entry.index, entry.restoring) for entry in received.messages] == [
        (1, True),
        (2, True),
        (3, True),
        (4, True),
    ]
    ann.say("after")
    env.advance(3)
    received = env.heard.last("messageReceived")
    assert (received.restoring, [(entry.text, entry.restoring) for entry in received.messages]) == (
        False,
        [("after", False)],
    )
    assert env.heard.texts() == ["before", "meanwhile", "after"]
    assert [agent.name for agent in chat.get_agents().values()] == ["Ann"]


def test_closed_service_reopens_and_restores_once(env):
    chat = env.start()
    chat.close()
    assert chat.state == "idle"
    chat.open()
    assert chat.state == "polling"
    chat.open()
    assert env.http.operations().count("restore") == 1
    chat.send_message("hi")
    env.advance(3)
    assert env.heard.texts() == ["hi"]


def test_restored_session_has_ids_and_accepts_commands(env):
    known = env.start().get_session_data()
    chat = env.away(10)
    assert chat.get_session_data() == known
    chat.send_message("hi")
    chat.end_chat()
    assert chat.state == "ended"


def test_user_data_is_restored(env):
    chat = env.start(userData={"tier": "gold"})
    chat.update_user_data({"page": "/help"})
    later = env.away(10)
    later.end_chat()
    assert later.update_user_data({}) == {"tier": "gold", "page": "/help"}


def test_restore_of_ended_chat_publishes_restore_timeout(env):
    env.start()
    env.chat.close()
    env.server.end()
    chat = env.open()
    assert (restore_events(env), chat.state) == (["ready", "restoreTimeout"], "idle")
    assert env.store.load() is None
    assert chat.get_transcript().messages == ()


def test_restore_of_unknown_chat_is_error_then_timeout(env):
    env.start()
    env.chat.close()
    env.server.core.purge()
    env.open()
    assert restore_events(env) == ["ready", "error", "restoreTimeout"]
    assert env.store.load() is None


def test_restore_of_lost_session_fails_and_deletes_it(env):
    env.start()
    env.chat.close()
    env.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
    chat = env.open()
    assert (restore_events(env), chat.state) == (["ready", "restoreFailed", "error"], "idle")
    assert env.heard.names.count("ended") == 0
    assert env.store.load() is None


KEPT = {
    "no answer": ({"drop": True}, ["ready", "restoreFailed"]),
    "a torn answer": ({"tear": True}, ["ready", "restoreFailed"]),
    "too slow": ({"delay": 5.0}, ["ready", "restoreFailed"]),
    "HTTP 429": ({"http_status": 429}, ["ready", "restoreFailed"]),
    "HTTP 404": ({"http_status": 404}, ["ready", "restoreFailed", "error"]),
    "HTTP 500": ({"http_status": 500}, ["ready", "restoreFailed", "error"]),
    "HTTP 401": ({"http_status": 401}, ["ready", "restoreFailed", "error"]),
    "no JSON": ({"body": b"<html>"}, ["ready", "restoreFailed", "error"]),
    "statusCode 2 of a chat that goes on": (
        {"server_status": 2, "chat_ended": False},
        ["ready", "restoreFailed", "error"],
    ),
}


@pytest.mark.parametrize("why", KEPT)
def test_failed_restore_keeps_session_and_reopen_retries(env, why):
    wrong, published = KEPT[why]
    env.start()
    env.chat.close()
    env.server.faults.add(operation="refresh", **wrong)
    chat = env.open()
    assert (restore_events(env), chat.state) == (published, "idle")
    assert env.store.load() is not None
    chat.close()
    chat.open()
    assert (restore_events(env), chat.state) == (RESTORED, "polling")


def test_start_discards_unrestored_session(env):
    first = env.start() and env.server.core.current_chat().chat_id
    env.chat.close()
    env.server.faults.add(operation="refresh", drop=True)
    chat = env.open()
    env.http.during("start", lambda: gone.append(env.store.load()))
    gone = []
    chat.start_chat(nickname="Again")
    assert gone == [None]
    assert env.store.load().session_data.session_id != first
    assert "secureKey" not in {key for key, value in env.asked("start")[-1].items() if value}


def test_restore_with_unavailable_server_is_offline(env):
    env.start()
    env.agent().say("Hello")
    env.chat.close()
    env.server.faults.add(operation="refresh", server_status=1, times=4)
    chat = env.open()
    assert (restore_events(env), chat.state) == (
        ["ready", "restored", "restoredOffline", "pollingStarted"],
        "offline",
    )
    assert chat.get_transcript().messages == ()
    assert chat.health().failures == 6
    env.advance(7)
    assert (env.heard.names, chat.state) == ([], "offline")
    env.advance(3)
    assert env.heard.names == ["chatServerBackOnline", "clientConnected", "agentConnected", "messageReceived"]
    assert env.heard.last("messageReceived").restoring
    assert all(entry.restoring for entry in env.heard.last("messageReceived").messages)
    assert (env.heard.texts(), chat.state) == (["Hello"], "polling")
    env.heard.take()
    env.server.agent("Sue").join()
    env.advance(3)
    assert not env.heard.last("messageReceived").restoring


def test_end_in_unavailable_response_is_ignored(env):
    env.start()
    env.chat.close()
    env.server.faults.add(operation="refresh", server_status=1, chat_ended=True)
    assert env.open().state == "offline"


def test_session_of_other_server_is_kept_until_start(env, caplog):
    env.start()
    env.chat.close()
    elsewhere = CONFIGS[env.transport]["dataURL"].replace("customer-support", "sales")
    with caplog.at_level(logging.WARNING, "webchat_fsm"):
        chat = env.client(address=elsewhere)
        chat.open()
    assert (restore_events(env), chat.state) == (["ready"], "idle")
    assert caplog.text.count("another transport or chat server") == 1
    assert chat.verify_session() is False
    assert env.store.load() is not None
    chat.close()
    assert env.away(0).state == "polling", "its own server can still restore it"
    env.chat.close()
    stranger = env.client(address=elsewhere)
    stranger.open()
    stranger.start_chat(nickname="Jonny")
    assert env.store.load().address == elsewhere


def test_failed_start_discards_saved_session(env):
    env.start()
    env.chat.close()
    env.server.faults.add(operation="refresh", drop=True)
    chat = env.open()
    env.server.faults.add(operation="start", http_status=500)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    assert env.store.load() is None


def test_ended_chat_leaves_no_session_to_restore(env):
    env.start().end_chat()
    assert env.store.load() is None
    chat = env.away(0)
    assert (restore_events(env), chat.state) == (["ready"], "idle")


def test_close_while_restoring_keeps_saved_session(env):
    env.start()
    env.chat.close()
    saved = env.store.load()
    chat = env.client()
    env.http.during("restore", chat.close)
    chat.open()
    assert (restore_events(env), chat.state) == (["ready"], "idle")
    assert env.store.load() == saved
    chat.open()
    assert chat.state == "polling"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interrupt_while_restoring_changes_nothing(env, interruption):
    env.start()
    env.chat.close()
    saved, chat = env.store.load(), env.client()

    env.http.interrupt("restore", interruption)
    with pytest.raises(interruption):
        chat.open()
    assert (chat.state, env.store.load()) == ("idle", saved)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interrupt_while_starting_leaves_service_idle(env, interruption):
    chat = env.open()

    env.http.interrupt("start", interruption)
    with pytest.raises(interruption):
        chat.start_chat(nickname="Jonny")
    assert (chat.state, restore_events(env)) == ("idle", ["ready"])
    chat.start_chat(nickname="Jonny")
    assert chat.state == "polling"


def test_session_in_a_file_is_restored_by_another_service(env, tmp_path):
    env.client(store=FileStore(tmp_path / "session.json"))
    env.chat.open()
    env.chat.start_chat(nickname="Jonny")
    env.chat.close()
    chat = env.client(store=FileStore(tmp_path / "session.json"))
    chat.open()
    assert chat.state == "polling"


def test_without_store_only_the_same_service_restores(env):
    def make():
        http = Probe(EmbeddedHttp(env.server.core, env.timeline.clock))
        chat = WebChatService(CONFIGS[env.transport], http=http, driver=env.timeline.driver)
        env.server.clients.append(chat)
        chat.open()
        return chat

    chat = make()
    chat.start_chat(nickname="Jonny")
    chat.close()
    assert make().state == "idle"
    chat.open()
    assert chat.state == "polling"


def test_close_with_end_ends_the_chat_first(env):
    chat = env.start()
    env.heard.take()
    assert chat.close(end=True)
    assert restore_events(env) == ["pollingStopped", "clientDisconnected", "ended"]
    assert (chat.state, env.store.load()) == ("ended", None)
    assert env.server.core.current_chat().ended


# -- verifySession -----------------------------------------------------------------------------------------------------


def test_verify_session_reports_an_active_session(env):
    chat = env.open()
    assert chat.verify_session() is False
    assert chat.command("verifySession").value == {"sessionActive": False}
    chat.start_chat(nickname="Jonny")
    assert chat.command("verifySession").value == {"sessionActive": True}
    chat.stop_poll()
    assert chat.verify_session() is True
    chat.end_chat()
    assert chat.verify_session() is False


def test_saved_session_expires_and_is_reported(env):
    env.start()
    env.chat.close()
    env.server.faults.add(operation="refresh", drop=True)
    chat = env.open()
    env.heard.take()
    env.advance(59.999)
    assert chat.verify_session() is True
    env.advance(0.001)
    assert chat.verify_session() is False
    assert env.heard.take() == ["restoreTimeout"]
    assert env.store.load() is None
    assert chat.verify_session() is False
    assert env.heard.take() == []


def test_verify_in_handler_does_not_wait_for_restore(env):
    env.start()
    env.chat.close()
    answers = []
    chat = env.client()
    chat.subscribe("ready", lambda event: answers.append((chat.state, chat.verify_session())))
    chat.open()
    assert answers == [("restoring", True)]


def test_verify_in_other_thread_waits_for_restore(webchat_server, webchat_timeline):
    store = MemoryStore()
    first = webchat_server.client(store=store)
    first.open()
    first.start_chat(nickname="Jonny")
    first.close()
    asked, go, answers = threading.Event(), threading.Event(), []
    http = Probe(EmbeddedHttp(webchat_server.core, webchat_timeline.clock))

    def hold():
        asked.set()
        assert go.wait(LONG)

    http.during("restore", hold)
    config = {**CONFIGS["v2"], "restoreTimeout": 10**12}
    with_threads = WebChatService(config, store=store, http=http, driver=ThreadDriver())
    opening = threading.Thread(target=with_threads.open)
    opening.start()
    try:
        assert asked.wait(LONG)
        asking = threading.Thread(target=lambda: answers.append((with_threads.verify_session(), with_threads.state)))
        asking.start()
        asking.join(0.1)
        assert answers == []
        go.set()
        asking.join(LONG)
        assert answers == [(True, "polling")]
    finally:
        go.set()
        opening.join(LONG)
        assert with_threads.close()
        assert with_threads._engine.driver.close()


def test_restore_command_of_user_is_rejected(env):
    with pytest.raises(CommandRejected, match="in Non-Async mode"):
        env.open().restore()


# -- missing messages --------------------------------------------------------------------------------------------------


def missing_after_restore(env, *indexes, **more):
    """Restore a chat of three delivered messages with messages of these indexes, and return the number missing."""
    env.start()
    agent = env.agent()
    agent.say("hello")
    env.advance(3)
    env.chat.close()
    assert env.store.load().last_index == "3"
    env.client()
    env.http.answer("restore", envelope(*(message(index, str(index)) for index in indexes), **more))
    env.chat.open()
    transcript = env.chat.get_transcript()
    assert env.heard.last("restored").missing == transcript.missing
    assert transcript.complete is (transcript.missing == 0)
    return transcript.missing


@pytest.mark.parametrize(
    ("indexes", "missing"),
    [
        ([1, 2, 3, 4, 5], 0),
        ([3, 4, 5], 0),
        ([4, 5], 0),
        ([8, 9], 4),
        ([1, 3, 7], 0),
        ([1, 2], None),
        ([], None),
    ],
    ids=["all", "from the last", "after the last", "a gap", "a gap of typing", "fewer than delivered", "nothing"],
)
def test_gap_in_full_transcript_is_reported(env, indexes, missing):
    assert missing_after_restore(env, *indexes) == missing


@pytest.mark.parametrize(("indexes", "missing"), [([1, 2], 0), ([3, 4], None), ([], None)])
def test_restore_without_last_index_needs_first_message(env, indexes, missing):
    env.start()
    env.chat.close()
    env.store.save(replace(env.store.load(), last_index=None))
    env.client()
    env.http.answer("restore", envelope(*(message(index, str(index)) for index in indexes)))
    env.chat.open()
    assert env.chat.get_transcript().missing == env.heard.last("restored").missing == missing


def test_offline_restore_is_complete_after_transcript(env):
    assert missing_after_restore(env, statusCode=1) is None
    env.advance(60)
    assert env.chat.state == "polling"
    assert env.chat.get_transcript().complete
    env.chat.close()
    assert env.store.load().last_index == "3"
