"""Check the three functions of `transport.async`: times and arguments of calls, results, errors and commands."""

from __future__ import annotations

import json
import logging
import re
import threading

import pytest

from tests.limits import LONG
from tests.nexus.environment import STORES, HookRecorder
from webchat_fsm import HandlerWaitError, MemoryStore, StoreError, ThreadDriver, WebChatService
from webchat_fsm.server._nexus_wire import index_of
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing._bench import CONFIGS

KEYS = {"participantId", "sessionId", "token", "transportId", "messageIndex", "lastIndex"}
COOKIE = "customer-defined-session-cookie"


@pytest.fixture
def recorder():
    return HookRecorder()


# -- times and arguments of calls --------------------------------------------------------------------------------------


def test_open_requests_data_once_with_open_state(v3_async, recorder):
    v3_async.open(hooks=recorder.hooks)
    assert recorder.calls == [("set", False)]
    assert v3_async.chat.state == "idle"
    assert v3_async.http.operations() == []


def test_get_is_called_at_start_and_on_each_change(v3_async, recorder):
    v3_async.open(hooks=recorder.hooks)
    v3_async.chat.start_chat(nickname="Jonny")
    assert recorder.names() == ["set", "get"]
    (first,) = recorder.data_of("get")
    assert set(first) == KEYS
    assert (first["token"], first["messageIndex"], first["lastIndex"]) == (v3_async.token(), 0, "0")
    assert json.loads(json.dumps(first)) == first
    v3_async.advance(0)
    agent = v3_async.agent()
    v3_async.advance(3)
    assert len(recorder.data_of("get")) == 3
    v3_async.advance(30)
    assert len(recorder.data_of("get")) == 3
    agent.say("a")
    agent.say("b")
    v3_async.advance(3)
    last = recorder.data_of("get")[3:]
    newest = index_of(v3_async.server.core.current_chat().transcript[-1])
    assert [(data["messageIndex"], data["lastIndex"]) for data in last] == [(newest.replace("-", ""), newest)]
    v3_async.chat.close()
    assert len(recorder.data_of("get")) == 4


def test_each_function_is_called_with_data_jar_and_options(v3_async):
    seen = []

    def note(*given, **named):
        seen.append((given, named))

    v3_async.open(hooks={"getSessionData": note, "setSessionData": note, "deleteSessionData": note})
    v3_async.chat.start_chat(nickname="Jonny")
    v3_async.server.core.purge()
    v3_async.advance(3)
    assert [(len(given), named) for given, named in seen] == [(3, {})] * 3
    for (_, jar, options), _ in seen:
        assert all(callable(getattr(jar, name)) for name in ("set", "get", "remove"))
        assert options == {"samesite": "strict", "path": "/"}


def test_function_cannot_change_session_by_its_arguments(v3_async, recorder):
    def spoil(session_data, cookie, options):
        recorder.kept = dict(session_data)
        session_data.clear()
        options.clear()

    v3_async.open(hooks={**recorder.hooks, "getSessionData": spoil})
    v3_async.chat.start_chat(nickname="Jonny")
    v3_async.chat.close()
    v3_async.chat.open()
    assert v3_async.chat.state == "polling"
    assert set(recorder.kept) == KEYS


@pytest.mark.parametrize("keep", [json.dumps, dict, lambda data: data["token"], lambda data: json.dumps(data["token"])])
def test_data_returned_by_set_restores_in_any_spelling(v3_async, recorder, keep):
    v3_async.open(hooks=recorder.hooks)
    v3_async.chat.start_chat(nickname="Jonny")
    v3_async.chat.send_message("hello")
    v3_async.advance(3)
    v3_async.chat.close()
    recorder.kept = keep(recorder.data_of("get")[-1])
    v3_async.open(store=MemoryStore(), hooks=recorder.hooks)
    assert v3_async.chat.state == "polling"
    assert v3_async.heard.texts() == ["hello"]
    assert v3_async.heard.last("restored").is_async
    assert recorder.data_of("get")[-1]["token"] == v3_async.token()


@pytest.mark.parametrize(
    "nothing", [None, "", "undefined", "null", {}, {"token": ""}, {"token": None}, "{}", '""', 5, []]
)
def test_set_without_data_restores_nothing(v3_async, nothing):
    v3_async.open(hooks=HookRecorder(kept=nothing).hooks)
    assert (v3_async.chat.state, v3_async.heard.names, v3_async.sent) == ("idle", ["ready"], [])


# -- the documented examples -------------------------------------------------------------------------------------------


def documented_get(session_data, cookie, cookie_options):
    cookie.set(COOKIE, json.dumps(session_data), cookie_options)


def documented_set(is_open, cookie, cookie_options):
    return cookie.get(COOKIE)


def documented_delete(error_data, cookie, cookie_options):
    cookie.remove(COOKIE, cookie_options)


DOCUMENTED = {
    "getSessionData": documented_get,
    "setSessionData": documented_set,
    "deleteSessionData": documented_delete,
}
"""The reference's examples, line by line."""


@pytest.mark.parametrize("kind", STORES)
def test_documented_examples_keep_session_in_store(v3_async, tmp_path, kind):
    store = STORES[kind](tmp_path)
    v3_async.start(store=store, hooks=DOCUMENTED)
    agent = v3_async.agent()
    agent.say("hello")
    v3_async.advance(3)
    assert json.loads(store.load().cookies[COOKIE])["token"] == v3_async.token()
    v3_async.chat.close()
    v3_async.advance(86_400)
    v3_async.open(store=store, hooks=DOCUMENTED)
    assert v3_async.chat.state == "polling"
    assert v3_async.heard.texts() == ["hello"]
    v3_async.server.core.purge()
    v3_async.advance(3)
    assert v3_async.chat.state == "ended"
    assert store.load() is None
    v3_async.open(store=store, hooks=DOCUMENTED)
    assert v3_async.chat.state == "idle"


def test_cookie_jar_sets_gets_and_removes_texts(v3_async):
    seen = []

    def use(is_open, cookie, options):
        cookie.set("a", "1", options)
        cookie.set("b", 2)
        cookie.set("c", True, options)
        cookie.remove("a", options)
        cookie.remove("never there")
        seen.append([cookie.get(name) for name in "abcd"])

    hooks = {"getSessionData": lambda *given: None, "setSessionData": use}
    v3_async.open(hooks=hooks)
    assert seen == [[None, "2", "true", None]]
    assert v3_async.store.load().cookies == {"b": "2", "c": "true"}


def test_cookie_jar_leaves_session_of_store_unchanged(v3_async):
    """Keep the session of the store if the functions are configured later."""
    v3_async.start().close()
    saved = v3_async.store.load().session_data

    def use(is_open, cookie, options):
        cookie.set("a", "1")
        cookie.remove("a")

    v3_async.open(hooks={"getSessionData": lambda *given: None, "setSessionData": use})
    assert v3_async.store.load().session_data == saved


# -- functions that are ignored ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", ["getSessionData", "setSessionData"])
def test_get_or_set_alone_is_ignored(v3_async, alone):
    recorder = HookRecorder(alone, kept="unused")
    v3_async.start(hooks=recorder.hooks).close()
    assert v3_async.store.load().session_data.token
    v3_async.open(hooks=recorder.hooks)
    assert v3_async.chat.state == "polling"
    v3_async.server.core.purge()
    v3_async.advance(3)
    assert recorder.calls == []
    assert v3_async.store.load() is None


def test_delete_alone_is_called_and_store_is_used(v3_async):
    recorder = HookRecorder("deleteSessionData")
    v3_async.start(hooks=recorder.hooks).close()
    v3_async.open(hooks=recorder.hooks)
    data = v3_async.chat.get_session_data()
    assert (v3_async.chat.state, recorder.calls) == ("polling", [])
    v3_async.server.core.purge()
    v3_async.advance(3)
    ((name, lost),) = recorder.calls
    assert (name, lost["sessionData"]["token"]) == ("delete", data.token)
    assert v3_async.store.load() is None


def test_delete_alone_may_use_jar_without_session(v3_async):
    def use(error_data, cookie, options):
        cookie.set("lost", error_data["sessionData"]["sessionId"])

    hooks = {"deleteSessionData": use}
    v3_async.start(hooks=hooks)
    lost = v3_async.chat.get_session_data().session_id
    v3_async.server.core.purge()
    v3_async.advance(3)
    assert v3_async.store.load().cookies == {"lost": lost}
    v3_async.open(hooks=hooks)
    assert (v3_async.chat.state, v3_async.http.operations()) == ("idle", [])


def test_functions_are_ignored_in_synchronous_chat(v3):
    recorder = HookRecorder()
    v3.start(**{"async": {"enabled": False, **recorder.hooks}}).close()
    v3.open()
    assert v3.chat.state == "polling"
    assert recorder.calls == []


def test_functions_take_precedence_over_store(v3_async, recorder):
    v3_async.start().close()
    v3_async.open(hooks=recorder.hooks)
    assert v3_async.chat.state == "idle"


# -- a lost session ----------------------------------------------------------------------------------------------------


def lose_by_poll(env):
    env.server.core.purge()
    env.chat.step()


def lose_by_command(env):
    env.server.core.purge()
    env.chat.command("sendMessage", {"message": "x"})


def lose_by_restore(env):
    env.chat.close()
    env.server.core.purge()
    env.chat.open()


def lose_by_401(env):
    env.chat.close()
    env.server.faults.add(operation="start", http_status=401)
    env.chat.open()


def lose_by_page(env):
    env.chat.close()
    env.server.faults.add(operation="refresh", http_status=404)
    env.chat.open()


@pytest.mark.parametrize("lose", [lose_by_poll, lose_by_command, lose_by_restore, lose_by_401, lose_by_page])
def test_delete_precedes_error_of_lost_session(v3_async, recorder, lose):
    order = []

    def delete(error_data, cookie, options):
        order.append(error_data)
        recorder.kept = None

    v3_async.start(hooks={**recorder.hooks, "deleteSessionData": delete})
    for name in ("error", "ended", "restoreFailed"):
        v3_async.chat.subscribe(name, lambda event: order.append(event.name))
    session = v3_async.chat.get_session_data()
    lose(v3_async)
    lost, *events = order
    assert events in (["error", "ended"], ["restoreFailed", "error"])
    assert (lost["sessionData"]["sessionId"], lost["response"]["status"]) in (
        (session.session_id, 404),
        (session.session_id, 401),
    )
    assert json.loads(json.dumps(lost)) == lost
    assert v3_async.chat.start_chat(nickname="Jonny")
    assert "x-nexus-client-key" not in v3_async.last("start").headers
    assert len(order) == 3


def test_lost_session_without_delete_function_ends_chat(v3_async):
    recorder = HookRecorder("getSessionData", "setSessionData")
    v3_async.start(hooks=recorder.hooks)
    v3_async.server.core.purge()
    v3_async.advance(3)
    assert v3_async.chat.state == "ended"
    assert v3_async.chat.start_chat(nickname="Jonny")


def test_end_deletes_nothing_and_kept_data_reopens_chat(v3_async, recorder):
    """Restore an ended asynchronous chat from its kept data, as the reference describes for a return to the page."""
    v3_async.start(hooks=recorder.hooks)
    v3_async.chat.end_chat()
    assert "delete" not in recorder.names()
    v3_async.open(store=MemoryStore(), hooks=recorder.hooks)
    assert v3_async.chat.state == "polling"


def test_delete_precedes_error_delivered_by_other_thread(v3_async, recorder):
    """Deliver events from another thread while the poll's thread runs `deleteSessionData`."""
    order, deleting, tried = [], threading.Event(), threading.Event()

    def delete(error_data, cookie, options):
        deleting.set()
        assert tried.wait(LONG)
        order.append("deleteSessionData")

    chat = v3_async.start(hooks={**recorder.hooks, "deleteSessionData": delete})
    chat.subscribe("error", lambda event: order.append("error"))
    v3_async.server.core.purge()
    poll = threading.Thread(target=chat.step)
    poll.start()
    try:
        assert deleting.wait(LONG)
        chat.get_transcript()
        assert order == []
    finally:
        tried.set()
        poll.join()
    assert order == ["deleteSessionData", "error"]


# -- functions that fail or call commands ------------------------------------------------------------------------------


def failing(*given):
    raise RuntimeError("the database is away")


def test_failed_set_keeps_service_closed_and_is_named(v3_async, recorder):
    recorder.hooks["setSessionData"] = failing
    chat = v3_async.client(hooks=recorder.hooks)
    with pytest.raises(
        StoreError, match=r"transport\.async\.setSessionData failed: RuntimeError: the database is away"
    ):
        chat.open()
    assert v3_async.heard.names == []
    assert chat.command("startChat").reason == "WebChatService is not ready"


@pytest.mark.parametrize("junk", ["{broken", '"broken', "not\na token"])
def test_invalid_data_from_set_keeps_service_closed(v3_async, junk):
    with pytest.raises(StoreError, match="the session data"):
        v3_async.client(hooks=HookRecorder(kept=junk).hooks).open()


def test_failed_get_is_logged_once_and_retried(v3_async, recorder, caplog):
    works = []

    def get(session_data, cookie, options):
        if not works:
            raise RuntimeError(f"cannot keep {session_data['token']}")
        recorder.get_session_data(session_data, cookie, options)

    v3_async.start(hooks={**recorder.hooks, "getSessionData": get})
    v3_async.advance(9)
    assert v3_async.chat.state == "polling"
    assert "transport.async.getSessionData failed" in v3_async.chat.health().store_failure
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert v3_async.token() not in caplog.text + v3_async.chat.health().store_failure
    works.append(True)
    v3_async.advance(3)
    assert v3_async.chat.health().store_failure == ""
    assert json.loads(recorder.kept)["token"] == v3_async.token()


def test_failed_delete_does_not_stop_end_of_chat(v3_async, recorder):
    v3_async.start(hooks={**recorder.hooks, "deleteSessionData": failing})
    v3_async.server.core.purge()
    v3_async.heard.take()
    v3_async.advance(3)
    assert v3_async.heard.take() == ["error", "pollingStopped", "ended"]
    assert "deleteSessionData" in v3_async.chat.health().store_failure
    assert v3_async.chat.start_chat(nickname="Jonny")


def test_interrupt_in_function_delays_no_event(v3_async, recorder):
    def delete(*given):
        raise KeyboardInterrupt

    v3_async.start(hooks={**recorder.hooks, "deleteSessionData": delete})
    v3_async.server.core.purge()
    v3_async.heard.take()
    with pytest.raises(KeyboardInterrupt):
        v3_async.chat.step()
    v3_async.chat.get_transcript()
    assert v3_async.heard.take() == ["error", "pollingStopped", "ended"]
    assert v3_async.chat.state == "ended"


def test_functions_may_call_commands(v3_async, recorder):
    said = []

    def get(session_data, cookie, options):
        recorder.get_session_data(session_data, cookie, options)
        said.append(bool(v3_async.chat.command("getTranscript")))
        said.append(bool(v3_async.chat.command("addPrefilter", {"filters": re.compile("^secret")})))
        if len(said) == 2:
            said.append(bool(v3_async.chat.command("sendMessage", {"message": "from inside"})))

    v3_async.start(hooks={**recorder.hooks, "getSessionData": get})
    v3_async.advance(6)
    assert all(said)
    assert v3_async.heard.texts() == ["from inside"]
    assert v3_async.heard.names[:3] == ["ready", "started", "pollingStarted"]


def test_function_waiting_for_events_is_rejected(v3_async, recorder):
    raised = []

    def get(session_data, cookie, options):
        for wait in (lambda: v3_async.chat.wait_for("agentConnected", 5), lambda: next(v3_async.chat.events(5))):
            try:
                wait()
            except HandlerWaitError as error:
                raised.append(error)

    v3_async.open(hooks={**recorder.hooks, "getSessionData": get}).start_chat(nickname="Jonny")
    assert len(raised) == 2


@pytest.mark.parametrize("name", ["getSessionData", "deleteSessionData"])
def test_close_inside_function_closes_service(v3_async, recorder, name):
    closed = []

    def close(*given):
        closed.append(v3_async.chat.close())
        v3_async.heard.take()

    v3_async.open(hooks=recorder.hooks)
    recorder.hooks[name] = close
    v3_async.open(hooks=recorder.hooks)
    v3_async.chat.command("startChat", {"nickname": "Jonny"})
    if name == "deleteSessionData":
        v3_async.server.core.purge()
        v3_async.advance(3)
    assert closed == [False]
    assert v3_async.chat.state == ("async-dormant" if name == "getSessionData" else "ended")
    assert v3_async.heard.take() == []
    assert v3_async.timeline.next_timer() is None
    assert v3_async.chat.close()


def test_close_inside_set_leaves_service_closed(v3_async, recorder):
    def close(*given):
        v3_async.chat.close()

    v3_async.start().close()
    recorder.kept = v3_async.store.load().session_data.token
    v3_async.client(hooks={**recorder.hooks, "setSessionData": close}).open()
    assert (v3_async.chat.state, v3_async.heard.names, v3_async.sent) == ("idle", [], [])
    assert v3_async.timeline.next_timer() is None
    assert v3_async.chat.command("startChat").reason == "WebChatService is not ready"


def test_functions_with_commands_and_close_do_not_deadlock(v3_async, recorder):
    """Pass data to the function in the poll's thread, while this thread calls commands, delivers events and closes."""
    chat, calls = None, []

    def get(session_data, cookie, options):
        calls.append(chat.command("getSessionData").value["token"] == session_data["token"])

    section = {**CONFIGS[v3_async.transport]["transport"], "pollTimeout": 100}
    section["async"] = {"enabled": True, **recorder.hooks, "getSessionData": get}
    driver = ThreadDriver()
    chat = WebChatService(
        {"transport": section}, http=EmbeddedHttp(v3_async.server.core, v3_async.timeline.clock), driver=driver
    )
    try:
        chat.open()
        chat.start_chat(nickname="Jonny")
        for turn in range(6):
            receipt = chat.send_message(f"{turn}")
            assert receipt.wait(LONG)
        assert chat.close()
    finally:
        chat.close()
        driver.close()
    assert len(calls) > 6
    assert all(calls)
    assert not driver.threads
