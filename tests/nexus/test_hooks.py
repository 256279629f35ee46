"""The three functions of `transport.async`: when they are called, with what, and what becomes of what they do."""

from __future__ import annotations

import json
import logging
import re
import threading

import pytest

from tests.nexus.stage import STORES, Cupboard
from webchat_fsm import HandlerWaitError, MemoryStore, StoreError, ThreadDriver, WebChatService
from webchat_fsm.server.nexus_wire import index_of
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing.bench import CONFIGS

KEYS = {"participantId", "sessionId", "token", "transportId", "messageIndex", "lastIndex"}
COOKIE = "customer-defined-session-cookie"


@pytest.fixture
def cupboard():
    return Cupboard()


# -- when and with what ------------------------------------------------------------------------------------------------


def test_at_opening_the_data_are_asked_for_once_with_the_open_state(lasting, cupboard):
    lasting.open(hooks=cupboard.hooks)
    assert cupboard.calls == [("set", False)]
    assert lasting.chat.state == "idle"
    assert lasting.http.operations() == []


def test_the_data_are_handed_out_at_the_start_and_whenever_they_change(lasting, cupboard):
    lasting.open(hooks=cupboard.hooks)
    lasting.chat.start_chat(nickname="Jonny")
    assert cupboard.names() == ["set", "get"]
    (first,) = cupboard.told("get")
    assert set(first) == KEYS
    assert (first["token"], first["messageIndex"], first["lastIndex"]) == (lasting.token(), 0, "0")
    assert json.loads(json.dumps(first)) == first
    lasting.advance(0)
    agent = lasting.agent()
    lasting.advance(3)
    assert len(cupboard.told("get")) == 3
    lasting.advance(30)
    assert len(cupboard.told("get")) == 3
    agent.say("a")
    agent.say("b")
    lasting.advance(3)
    last = cupboard.told("get")[3:]
    newest = index_of(lasting.server.core.current_chat().transcript[-1])
    assert [(data["messageIndex"], data["lastIndex"]) for data in last] == [(newest.replace("-", ""), newest)]
    lasting.chat.close()
    assert len(cupboard.told("get")) == 4


def test_each_gets_three_positional_arguments_and_a_jar(lasting):
    seen = []

    def note(*given, **named):
        seen.append((given, named))

    lasting.open(hooks={"getSessionData": note, "setSessionData": note, "deleteSessionData": note})
    lasting.chat.start_chat(nickname="Jonny")
    lasting.server.core.purge()
    lasting.advance(3)
    assert [(len(given), named) for given, named in seen] == [(3, {})] * 3
    for (_, jar, options), _ in seen:
        assert all(callable(getattr(jar, name)) for name in ("set", "get", "remove"))
        assert options == {"samesite": "strict", "path": "/"}


def test_what_a_function_does_to_its_arguments_changes_nothing(lasting, cupboard):
    def spoil(session_data, cookie, options):
        cupboard.kept = dict(session_data)
        session_data.clear()
        options.clear()

    lasting.open(hooks={**cupboard.hooks, "getSessionData": spoil})
    lasting.chat.start_chat(nickname="Jonny")
    lasting.chat.close()
    lasting.chat.open()
    assert lasting.chat.state == "polling"
    assert set(cupboard.kept) == KEYS


@pytest.mark.parametrize("keep", [json.dumps, dict, lambda data: data["token"], lambda data: json.dumps(data["token"])])
def test_what_was_handed_out_restores_in_any_spelling(lasting, cupboard, keep):
    lasting.open(hooks=cupboard.hooks)
    lasting.chat.start_chat(nickname="Jonny")
    lasting.chat.send_message("hello")
    lasting.advance(3)
    lasting.chat.close()
    cupboard.kept = keep(cupboard.told("get")[-1])
    lasting.open(store=MemoryStore(), hooks=cupboard.hooks)
    assert lasting.chat.state == "polling"
    assert lasting.heard.texts() == ["hello"]
    assert lasting.heard.last("restored").is_async
    assert cupboard.told("get")[-1]["token"] == lasting.token()


@pytest.mark.parametrize(
    "nothing", [None, "", "undefined", "null", {}, {"token": ""}, {"token": None}, "{}", '""', 5, []]
)
def test_nothing_kept_is_nothing_to_restore(lasting, nothing):
    lasting.open(hooks=Cupboard(kept=nothing).hooks)
    assert (lasting.chat.state, lasting.heard.names, lasting.sent) == ("idle", ["ready"], [])


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
def test_the_documented_examples_keep_the_session_in_the_store_of_the_service(lasting, tmp_path, kind):
    store = STORES[kind](tmp_path)
    lasting.start(store=store, hooks=DOCUMENTED)
    agent = lasting.agent()
    agent.say("hello")
    lasting.advance(3)
    assert json.loads(store.load().cookies[COOKIE])["token"] == lasting.token()
    lasting.chat.close()
    lasting.advance(86_400)
    lasting.open(store=store, hooks=DOCUMENTED)
    assert lasting.chat.state == "polling"
    assert lasting.heard.texts() == ["hello"]
    lasting.server.core.purge()
    lasting.advance(3)
    assert lasting.chat.state == "ended"
    assert store.load() is None
    lasting.open(store=store, hooks=DOCUMENTED)
    assert lasting.chat.state == "idle"


def test_the_jar_keeps_texts_by_name_and_forgets_them(lasting):
    seen = []

    def use(is_open, cookie, options):
        cookie.set("a", "1", options)
        cookie.set("b", 2)
        cookie.set("c", True, options)
        cookie.remove("a", options)
        cookie.remove("never there")
        seen.append([cookie.get(name) for name in "abcd"])

    hooks = {"getSessionData": lambda *given: None, "setSessionData": use}
    lasting.open(hooks=hooks)
    assert seen == [[None, "2", "true", None]]
    assert lasting.store.load().cookies == {"b": "2", "c": "true"}


def test_a_jar_beside_a_session_of_the_store_leaves_it_there(lasting):
    """The functions came later: what the store holds is not theirs to lose."""
    lasting.start().close()
    saved = lasting.store.load().session_data

    def use(is_open, cookie, options):
        cookie.set("a", "1")
        cookie.remove("a")

    lasting.open(hooks={"getSessionData": lambda *given: None, "setSessionData": use})
    assert lasting.store.load().session_data == saved


# -- which of them count -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", ["getSessionData", "setSessionData"])
def test_one_of_get_and_set_without_the_other_does_not_count(lasting, alone):
    cupboard = Cupboard(alone, kept="whatever")
    lasting.start(hooks=cupboard.hooks).close()
    assert lasting.store.load().session_data.token
    lasting.open(hooks=cupboard.hooks)
    assert lasting.chat.state == "polling"
    lasting.server.core.purge()
    lasting.advance(3)
    assert cupboard.calls == []
    assert lasting.store.load() is None


def test_delete_alone_is_told_and_the_store_serves_for_the_rest(lasting):
    cupboard = Cupboard("deleteSessionData")
    lasting.start(hooks=cupboard.hooks).close()
    lasting.open(hooks=cupboard.hooks)
    data = lasting.chat.get_session_data()
    assert (lasting.chat.state, cupboard.calls) == ("polling", [])
    lasting.server.core.purge()
    lasting.advance(3)
    ((name, told),) = cupboard.calls
    assert (name, told["sessionData"]["token"]) == ("delete", data.token)
    assert lasting.store.load() is None


def test_delete_alone_may_use_its_jar_without_making_a_session_of_it(lasting):
    def use(error_data, cookie, options):
        cookie.set("lost", error_data["sessionData"]["sessionId"])

    hooks = {"deleteSessionData": use}
    lasting.start(hooks=hooks)
    lost = lasting.chat.get_session_data().session_id
    lasting.server.core.purge()
    lasting.advance(3)
    assert lasting.store.load().cookies == {"lost": lost}
    lasting.open(hooks=hooks)
    assert (lasting.chat.state, lasting.http.operations()) == ("idle", [])


def test_functions_are_of_no_account_where_the_chat_is_not_asynchronous(v3):
    cupboard = Cupboard()
    v3.start(**{"async": {"enabled": False, **cupboard.hooks}}).close()
    v3.open()
    assert v3.chat.state == "polling"
    assert cupboard.calls == []


def test_given_functions_win_over_the_store(lasting, cupboard):
    lasting.start().close()
    lasting.open(hooks=cupboard.hooks)
    assert lasting.chat.state == "idle"


# -- a lost session ----------------------------------------------------------------------------------------------------


def lose_by_poll(stage):
    stage.server.core.purge()
    stage.chat.step()


def lose_by_command(stage):
    stage.server.core.purge()
    stage.chat.command("sendMessage", {"message": "x"})


def lose_by_restore(stage):
    stage.chat.close()
    stage.server.core.purge()
    stage.chat.open()


def lose_by_401(stage):
    stage.chat.close()
    stage.server.faults.add(operation="start", http_status=401)
    stage.chat.open()


def lose_by_page(stage):
    stage.chat.close()
    stage.server.faults.add(operation="refresh", http_status=404)
    stage.chat.open()


@pytest.mark.parametrize("lose", [lose_by_poll, lose_by_command, lose_by_restore, lose_by_401, lose_by_page])
def test_a_lost_session_is_told_before_the_error_and_the_next_start_is_a_normal_one(lasting, cupboard, lose):
    order = []

    def delete(error_data, cookie, options):
        order.append(error_data)
        cupboard.kept = None

    lasting.start(hooks={**cupboard.hooks, "deleteSessionData": delete})
    for name in ("error", "ended", "restoreFailed"):
        lasting.chat.subscribe(name, lambda event: order.append(event.name))
    session = lasting.chat.get_session_data()
    lose(lasting)
    told, *events = order
    assert events in (["error", "ended"], ["restoreFailed", "error"])
    assert (told["sessionData"]["sessionId"], told["response"]["status"]) in (
        (session.session_id, 404),
        (session.session_id, 401),
    )
    assert json.loads(json.dumps(told)) == told
    assert lasting.chat.start_chat(nickname="Jonny")
    assert "x-nexus-client-key" not in lasting.last("start").headers
    assert len(order) == 3


def test_without_delete_a_lost_session_ends_all_the_same(lasting):
    cupboard = Cupboard("getSessionData", "setSessionData")
    lasting.start(hooks=cupboard.hooks)
    lasting.server.core.purge()
    lasting.advance(3)
    assert lasting.chat.state == "ended"
    assert lasting.chat.start_chat(nickname="Jonny")


def test_an_end_is_no_loss_and_what_is_kept_reopens_the_chat(lasting, cupboard):
    """As the reference has it: an ended asynchronous chat is restored by coming back to the page."""
    lasting.start(hooks=cupboard.hooks)
    lasting.chat.end_chat()
    assert "delete" not in cupboard.names()
    lasting.open(store=MemoryStore(), hooks=cupboard.hooks)
    assert lasting.chat.state == "polling"


def test_delete_is_told_before_the_error_even_where_another_thread_delivers(lasting, cupboard):
    """The poll's thread is still telling `deleteSessionData` when another one comes by to deliver events."""
    order, telling, tried = [], threading.Event(), threading.Event()

    def delete(error_data, cookie, options):
        telling.set()
        assert tried.wait(5)
        order.append("deleteSessionData")

    chat = lasting.start(hooks={**cupboard.hooks, "deleteSessionData": delete})
    chat.subscribe("error", lambda event: order.append("error"))
    lasting.server.core.purge()
    poll = threading.Thread(target=chat.step)
    poll.start()
    try:
        assert telling.wait(5)
        chat.get_transcript()
        assert order == []
    finally:
        tried.set()
        poll.join()
    assert order == ["deleteSessionData", "error"]


# -- functions that fail or meddle -------------------------------------------------------------------------------------


def failing(*given):
    raise RuntimeError("the database is away")


def test_a_set_that_fails_keeps_the_service_closed_and_says_which_function_it_was(lasting, cupboard):
    cupboard.hooks["setSessionData"] = failing
    chat = lasting.client(hooks=cupboard.hooks)
    with pytest.raises(
        StoreError, match=r"transport\.async\.setSessionData failed: RuntimeError: the database is away"
    ):
        chat.open()
    assert lasting.heard.names == []
    assert chat.command("startChat").reason == "WebChatService is not ready"


@pytest.mark.parametrize("junk", ["{broken", '"broken', "not\na token"])
def test_a_set_that_returns_junk_keeps_the_service_closed(lasting, junk):
    with pytest.raises(StoreError, match="the session data"):
        lasting.client(hooks=Cupboard(kept=junk).hooks).open()


def test_a_get_that_fails_hinders_nothing_is_logged_once_and_tried_again(lasting, cupboard, caplog):
    works = []

    def get(session_data, cookie, options):
        if not works:
            raise RuntimeError(f"cannot keep {session_data['token']}")
        cupboard.get_session_data(session_data, cookie, options)

    lasting.start(hooks={**cupboard.hooks, "getSessionData": get})
    lasting.advance(9)
    assert lasting.chat.state == "polling"
    assert "transport.async.getSessionData failed" in lasting.chat.health().store_failure
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert lasting.token() not in caplog.text + lasting.chat.health().store_failure
    works.append(True)
    lasting.advance(3)
    assert lasting.chat.health().store_failure == ""
    assert json.loads(cupboard.kept)["token"] == lasting.token()


def test_a_delete_that_fails_hinders_nothing(lasting, cupboard):
    lasting.start(hooks={**cupboard.hooks, "deleteSessionData": failing})
    lasting.server.core.purge()
    lasting.heard.take()
    lasting.advance(3)
    assert lasting.heard.take() == ["error", "pollingStopped", "ended"]
    assert "deleteSessionData" in lasting.chat.health().store_failure
    assert lasting.chat.start_chat(nickname="Jonny")


def test_an_interrupt_inside_a_function_goes_on_and_what_it_held_up_is_told(lasting, cupboard):
    def delete(*given):
        raise KeyboardInterrupt

    lasting.start(hooks={**cupboard.hooks, "deleteSessionData": delete})
    lasting.server.core.purge()
    lasting.heard.take()
    with pytest.raises(KeyboardInterrupt):
        lasting.chat.step()
    lasting.chat.get_transcript()
    assert lasting.heard.take() == ["error", "pollingStopped", "ended"]
    assert lasting.chat.state == "ended"


def test_functions_may_give_commands(lasting, cupboard):
    said = []

    def get(session_data, cookie, options):
        cupboard.get_session_data(session_data, cookie, options)
        said.append(bool(lasting.chat.command("getTranscript")))
        said.append(bool(lasting.chat.command("addPrefilter", {"filters": re.compile("^secret")})))
        if len(said) == 2:
            said.append(bool(lasting.chat.command("sendMessage", {"message": "from inside"})))

    lasting.start(hooks={**cupboard.hooks, "getSessionData": get})
    lasting.advance(6)
    assert all(said)
    assert lasting.heard.texts() == ["from inside"]
    assert lasting.heard.names[:3] == ["ready", "started", "pollingStarted"]


def test_a_function_cannot_wait_for_what_comes_after_it(lasting, cupboard):
    raised = []

    def get(session_data, cookie, options):
        for wait in (lambda: lasting.chat.wait_for("agentConnected", 5), lambda: next(lasting.chat.events(5))):
            try:
                wait()
            except HandlerWaitError as error:
                raised.append(error)

    lasting.open(hooks={**cupboard.hooks, "getSessionData": get}).start_chat(nickname="Jonny")
    assert len(raised) == 2


@pytest.mark.parametrize("name", ["getSessionData", "deleteSessionData"])
def test_closing_inside_a_function_closes(lasting, cupboard, name):
    closed = []

    def close(*given):
        closed.append(lasting.chat.close())
        lasting.heard.take()

    lasting.open(hooks=cupboard.hooks)
    cupboard.hooks[name] = close
    lasting.open(hooks=cupboard.hooks)
    lasting.chat.command("startChat", {"nickname": "Jonny"})
    if name == "deleteSessionData":
        lasting.server.core.purge()
        lasting.advance(3)
    assert closed == [False]
    assert lasting.chat.state == ("async-dormant" if name == "getSessionData" else "ended")
    assert lasting.heard.take() == []
    assert lasting.timeline.next_timer() is None
    assert lasting.chat.close()


def test_closing_inside_set_leaves_nothing_running(lasting, cupboard):
    def close(*given):
        lasting.chat.close()

    lasting.start().close()
    cupboard.kept = lasting.store.load().session_data.token
    lasting.client(hooks={**cupboard.hooks, "setSessionData": close}).open()
    assert (lasting.chat.state, lasting.heard.names, lasting.sent) == ("idle", [], [])
    assert lasting.timeline.next_timer() is None
    assert lasting.chat.command("startChat").reason == "WebChatService is not ready"


def test_with_threads_functions_that_command_and_close_do_not_stand_in_each_others_way(lasting, cupboard):
    """Polls hand out data in a thread, while this one gives commands, delivers, and closes in the middle of it."""
    chat, calls = None, []

    def get(session_data, cookie, options):
        calls.append(chat.command("getSessionData").value["token"] == session_data["token"])

    section = {**CONFIGS[lasting.transport]["transport"], "pollTimeout": 100}
    section["async"] = {"enabled": True, **cupboard.hooks, "getSessionData": get}
    driver = ThreadDriver()
    chat = WebChatService(
        {"transport": section}, http=EmbeddedHttp(lasting.server.core, lasting.timeline.clock), driver=driver
    )
    try:
        chat.open()
        chat.start_chat(nickname="Jonny")
        for turn in range(6):
            receipt = chat.send_message(f"{turn}")
            assert receipt.wait(5)
        assert chat.close()
    finally:
        chat.close()
        driver.close()
    assert len(calls) > 6
    assert all(calls)
    assert not driver.threads
