"""Check asynchronous chat: it becomes dormant, is restored by any holder of its token, and pages its history."""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.environment import HeardOnBus
from tests.nexus.environment import STORES, envelope, received
from webchat_fsm import CommandRejected, MemoryStore

DAY = 86_400
DORMANT = "async-dormant"


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    return STORES[request.param](tmp_path)


# -- dormant and restored ----------------------------------------------------------------------------------------------


def test_close_makes_session_dormant_without_events(v3_async):
    v3_async.chatting("hello")
    v3_async.heard.take()
    assert v3_async.chat.close()
    assert v3_async.chat.state == DORMANT
    assert v3_async.heard.take() == []
    assert v3_async.timeline.next_timer() is None
    assert "disconnect" not in v3_async.http.operations()
    assert not v3_async.server.core.current_chat().ended


def test_reopened_service_restores_and_continues(v3_async):
    agent = v3_async.chatting("one")
    token, transport = v3_async.token(), v3_async.chat.get_session_data().transport_id
    v3_async.chat.close()
    agent.say("two")
    v3_async.advance(5)
    v3_async.heard.take()
    v3_async.chat.open()
    assert v3_async.heard.names == [
        "ready", "restored", "clientConnected", "agentConnected", "messageReceived", "pollingStarted",
    ]  # fmt: skip
    assert v3_async.heard.last("restored").is_async is True
    assert received(v3_async.heard) == [(["", "", "one", "two"], True, False)]
    assert v3_async.chat.get_session_data().transport_id != transport
    assert v3_async.token() != token
    agent.say("three")
    v3_async.chat.send_message("four")
    v3_async.advance(3)
    assert received(v3_async.heard)[1:] == [(["three", "four"], False, False)]
    assert len(v3_async.server.core.chats) == 1


def test_other_service_with_same_store_restores_after_days(v3_async, store):
    v3_async.start(store=store)
    v3_async.agent().say("are you there?")
    v3_async.chat.close()
    v3_async.advance(30 * DAY)
    v3_async.client(store=store)
    bus = HeardOnBus(v3_async.chat)
    v3_async.chat.open()
    assert v3_async.chat.state == "polling"
    assert bus.last("restored") == {"async": True, "missing": 0}
    assert v3_async.heard.texts() == ["are you there?"]
    assert v3_async.http.operations() == ["resume", "restore"]
    assert bus.last("messageReceived")["restoring"] is True


def test_session_of_dead_process_is_restored(v3_async, store):
    v3_async.start(store=store)
    v3_async.advance(30)
    v3_async.crash()
    v3_async.advance(DAY)
    v3_async.open(store=store)
    assert v3_async.chat.state == "polling"


def test_resume_sends_saved_token_without_form_fields(v3_async):
    v3_async.start(stream="live", config={"userData": {"tier": "gold"}})
    token = v3_async.token()
    v3_async.away(DAY, stream="live", config={"userData": {"tier": "gold"}})
    fields = v3_async.fields("resume")
    assert fields.pop("operationId")
    assert fields.pop("data[endpoint]") == "customer-support"
    assert fields.pop("data[stream]") == "live"
    assert fields == {"data[userData][tier]": "gold"}
    assert v3_async.last("resume").headers["x-nexus-client-key"] == token
    assert v3_async.last("restore").headers["x-nexus-client-key"] == v3_async.token() != token


def test_new_token_is_saved_though_page_request_fails(v3_async):
    """Save the new token even if the next request fails, as the server may have invalidated the old one."""
    v3_async.start().close()
    old = v3_async.store.load().session_data.token
    v3_async.client()
    v3_async.server.faults.add(operation="refresh", drop=True)
    v3_async.chat.open()
    kept = v3_async.store.load().session_data
    assert v3_async.chat.state == DORMANT
    assert kept.token != old
    v3_async.open()
    assert v3_async.last("resume").headers["x-nexus-client-key"] == kept.token


def test_each_reopening_restores_every_message_once(v3_async):
    agent = v3_async.chatting()
    for turn in range(5):
        v3_async.chat.close()
        agent.say(f"{turn}")
        v3_async.advance(DAY)
        v3_async.heard.take()
        v3_async.chat.open()
        assert v3_async.heard.texts() == [str(said) for said in range(turn + 1)]


def test_dormant_chat_answers_queries_and_rejects_commands(v3_async):
    v3_async.chatting("hello")
    v3_async.chat.close()
    v3_async.server.faults.add(operation="start", drop=True)
    v3_async.chat.open()
    chat = v3_async.chat
    assert chat.state == DORMANT
    assert chat.verify_session()
    assert chat.command("startChat", {"nickname": "x"}).reason == "There is already an active chat session"
    assert chat.command("sendMessage", {"message": "x"}).reason == "There is no active chat session"
    assert chat.command("fetchHistory").reason == "Fetching history messages applies only to Asynchronous chat"
    assert [message.text for message in chat.get_transcript().messages][-1] == "hello"
    assert chat.get_session_data().token == ""


# -- a restore that fails ----------------------------------------------------------------------------------------------

UNANSWERED = {"drop": {"drop": True}, "torn": {"tear": True}, "429": {"http_status": 429}}
BADLY = {
    "500": {"http_status": 500},
    "unreadable": {"body": b"?"},
    "403": {"http_status": 403},
    "no data": {"body": b'{"status": {}}'},
}
LOST = {
    "404": {"http_status": 404},
    "401": {"http_status": 401},
    "code": {"http_status": 400, "code": "INVALID_SESSION"},
}


@pytest.mark.parametrize(
    ("faults", "published"), [(UNANSWERED, ["restoreFailed"]), (BADLY, ["restoreFailed", "error"])]
)
@pytest.mark.parametrize("operation", ["start", "refresh"])
def test_failed_restore_is_dormant_and_repeatable(v3_async, operation, faults, published):
    v3_async.start(store=v3_async.store).close()
    for fault in faults.values():
        v3_async.server.faults.add(operation=operation, **fault)
        v3_async.heard.take()
        v3_async.chat.open()
        assert (v3_async.chat.state, v3_async.heard.take()) == (DORMANT, ["ready", *published])
        assert v3_async.store.load() is not None
        assert v3_async.timeline.next_timer() is None
        v3_async.server.faults.add(operation=operation, **fault)
        assert not v3_async.chat.command("restore")
        assert (v3_async.chat.state, v3_async.heard.take()) == (DORMANT, published)
        v3_async.chat.close()
        assert v3_async.chat.state == DORMANT
    v3_async.chat.open()
    assert v3_async.chat.state == "polling"
    v3_async.chat.close()
    v3_async.server.faults.add(operation="start", drop=True)
    v3_async.chat.open()
    assert v3_async.chat.restore() is None
    assert v3_async.chat.state == "polling"


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
@pytest.mark.parametrize("operation", ["start", "refresh"])
def test_lost_session_is_discarded_and_start_is_normal(v3_async, operation, fault):
    v3_async.start().close()
    v3_async.server.faults.add(operation=operation, **fault)
    v3_async.open()
    assert (v3_async.chat.state, v3_async.heard.take()) == ("idle", ["ready", "restoreFailed", "error"])
    assert v3_async.store.load() is None
    assert not v3_async.chat.verify_session()
    assert v3_async.chat.command("restore").reason == "No chat session found to restore."
    v3_async.chat.start_chat(nickname="Jonny")
    assert "x-nexus-client-key" not in v3_async.last("start").headers
    assert v3_async.chat.state == "polling"


def test_restore_of_ended_chat_discards_session(v3_async):
    v3_async.start().close()
    v3_async.client()
    v3_async.http.answer("restore", envelope(messages=[], chatEnded=True))
    v3_async.chat.open()
    assert (v3_async.chat.state, v3_async.heard.take()) == ("idle", ["ready", "restoreFailed"])
    assert v3_async.store.load() is None


def test_close_during_restore_leaves_session_dormant_and_saved(v3_async):
    v3_async.start().close()
    chat = v3_async.client()
    v3_async.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert chat.state == DORMANT
    assert v3_async.heard.take() == ["ready"]
    assert v3_async.store.load() is not None
    chat.open()
    assert chat.state == "polling"


def test_interrupted_restore_leaves_session_dormant(v3_async):
    v3_async.start().close()
    chat = v3_async.chat

    for operation in ("resume", "restore"):
        v3_async.http.interrupt(operation)
        with pytest.raises(KeyboardInterrupt):
            chat.open()
        assert chat.state == DORMANT
        chat.close()
    chat.open()
    assert chat.state == "polling"


def test_saved_session_of_other_server_is_kept_unrestored(v3_async):
    v3_async.start(dataURL="http://other.test/nexus/v3/chat/sessions").close()
    v3_async.open()
    assert v3_async.chat.state == "idle"
    assert v3_async.http.operations() == []
    assert v3_async.store.load() is not None


def test_dormant_session_is_restored_after_store_deletion(v3_async):
    v3_async.start().close()
    v3_async.store.delete()
    v3_async.chat.open()
    assert v3_async.chat.state == "polling"


def test_stored_session_of_other_server_stays_separate(v3_async):
    """Neither restore that session nor send its token to this server when the dormant chat is ended."""
    v3_async.start(dataURL="http://other.test/nexus/v3/chat/sessions").close()
    foreign = v3_async.store.load()
    store = MemoryStore()
    v3_async.start(store=store).close()
    own = store.load().session_data
    store.save(foreign)
    v3_async.server.faults.add(operation="start", drop=True)
    v3_async.chat.open()
    assert v3_async.chat.state == DORMANT
    v3_async.chat.end_chat()
    tokens = {request.headers.get("x-nexus-client-key") for request in v3_async.sent[-2:]}
    assert tokens == {own.token}


# -- ending ------------------------------------------------------------------------------------------------------------


def dormant(env):
    env.chatting("hello")
    env.chat.close()
    env.server.faults.add(operation="start", drop=True)
    env.chat.open()
    env.heard.take()
    assert env.chat.state == DORMANT
    return env.chat


def test_dormant_chat_is_ended_with_its_saved_token(v3_async):
    chat = dormant(v3_async)
    kept = v3_async.store.load().session_data
    assert chat.end_chat()
    assert chat.state == "ended"
    assert v3_async.heard.take() == ["clientDisconnected", "ended"]
    request = v3_async.last("disconnect")
    assert request.headers["x-nexus-client-key"] == kept.token
    assert request.url.endswith(f"/{kept.session_id}/participants/{kept.participant_id}")
    assert v3_async.server.core.current_chat().ended
    assert v3_async.store.load() is None
    assert chat.start_chat(nickname="Jonny")


@pytest.mark.parametrize("fault", [{"drop": True}, {"http_status": 404}, {"http_status": 500}])
def test_dormant_chat_ends_though_disconnect_request_fails(v3_async, fault):
    chat = dormant(v3_async)
    v3_async.server.faults.add(operation="disconnect", **fault)
    assert not chat.command("endChat")
    assert (chat.state, v3_async.heard.take()) == ("ended", ["clientDisconnected", "ended"])


def test_interrupted_end_of_dormant_chat_can_be_repeated(v3_async):
    chat = dormant(v3_async)

    v3_async.http.interrupt("disconnect")
    with pytest.raises(KeyboardInterrupt):
        chat.end_chat()
    assert (chat.state, v3_async.heard.take()) == (DORMANT, [])
    assert chat.health().defects == 0
    chat.end_chat()
    assert (chat.state, v3_async.heard.take()) == ("ended", ["clientDisconnected", "ended"])


def test_ending_dormant_chat_rejects_other_commands(v3_async):
    chat = dormant(v3_async)
    reasons = []

    def ask():
        reasons.extend(chat.command(name, {"nickname": "x"}).reason for name in ("startChat", "restore", "endChat"))

    v3_async.http.during("disconnect", ask)
    chat.end_chat()
    assert reasons == [
        "There is already an active chat session", "Chat session is already active, ignoring restore command.",
        "There is no active chat session",
    ]  # fmt: skip
    assert v3_async.heard.take() == ["clientDisconnected", "ended"]


def test_close_with_end_ends_asynchronous_chat(v3_async):
    v3_async.start()
    v3_async.chat.close(end=True)
    assert v3_async.chat.state == "ended"
    assert v3_async.server.core.current_chat().ended
    v3_async.open()
    assert v3_async.chat.state == "idle"


def test_ended_session_is_restored_by_its_token(v3_async):
    v3_async.start()
    token = v3_async.token()
    v3_async.chat.end_chat()
    v3_async.heard.take()
    v3_async.chat.restore(token)
    assert v3_async.chat.state == "polling"
    assert v3_async.heard.names[0] == "restored"
    assert not v3_async.server.core.current_chat().ended


# -- restore by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "object", "json", "json text"])
def test_token_alone_restores_session_in_any_spelling(v3_async, form):
    import json

    v3_async.chatting("hello")
    token = v3_async.token()
    v3_async.chat.close()
    given = {
        "text": token,
        "object": {"token": token},
        "json": json.dumps({"token": token}),
        "json text": json.dumps(token),
    }
    store = MemoryStore()
    v3_async.open(store=store)
    assert v3_async.chat.state == "idle"
    bus = HeardOnBus(v3_async.chat)
    assert bus.command("restore", {"sessionData": given[form]})
    assert v3_async.chat.state == "polling"
    assert v3_async.heard.texts() == ["hello"]
    assert store.load().session_data.token == v3_async.token()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("undefined", "No chat session found to restore."),
        ("null", "No chat session found to restore."),
        ({"sessionId": "s"}, "No chat session found to restore."),
        (5, "No chat session found to restore."),
        (["x"], "No chat session found to restore."),
        ('{"token": ', "the session data are not valid JSON"),
        ('{"a":' * 100_000, "the session data are not valid JSON"),
        ("x" * 10_000, "the token of the session data has characters that a request cannot carry"),
        ("a token\r\nx-evil: 1", "the token of the session data has characters that a request cannot carry"),
        ("tökén", "the token of the session data has characters that a request cannot carry"),
    ],
)
def test_invalid_session_data_is_rejected_unsent(v3_async, given, reason):
    v3_async.start().close()
    saved = v3_async.store.load()
    v3_async.server.faults.add(operation="start", drop=True)
    chat = v3_async.open()
    outcome = chat.command("restore", {"sessionData": given})
    assert not outcome
    assert reason in outcome.reason
    assert v3_async.http.operations() == ["resume"]
    assert (chat.state, v3_async.store.load()) == (DORMANT, saved)


@pytest.mark.parametrize("bad", ["forged", "truncated", "random text"])
def test_forged_or_truncated_token_fails_restore_with_401(v3_async, bad):
    v3_async.start()
    head, payload, signature = v3_async.token().split(".")
    tokens = {
        "forged": f"{head}.{payload}.{signature[::-1]}",
        "truncated": f"{head}.{payload[:20]}",
        "random text": "abc",
    }
    v3_async.chat.close()
    v3_async.open(store=MemoryStore())
    v3_async.heard.take()
    with pytest.raises(CommandRejected) as caught:
        v3_async.chat.restore(tokens[bad])
    assert caught.value.response.status == 401
    assert (v3_async.chat.state, v3_async.heard.take()) == ("idle", ["restoreFailed", "error"])
    assert v3_async.chat.start_chat(nickname="Jonny")


def test_manual_restore_with_session_is_rejected(v3_async):
    chat, token = v3_async.start(), v3_async.token()
    active = "Chat session is already active, ignoring restore command."
    assert chat.command("restore", {"sessionData": token}).reason == active
    chat.stop_poll()
    assert chat.command("restore").reason == active
    reasons = []
    chat.close()
    v3_async.http.during("resume", lambda: reasons.append(chat.command("restore", {"sessionData": token}).reason))
    chat.open()
    assert reasons == ["Already restoring. Ignoring request."]


def test_expired_token_loses_session_except_while_polling(make_env):
    env = make_env(token_ttl=100)
    env.start()
    env.advance(95)
    assert "error" not in env.heard.names
    env.advance(10)
    assert env.heard.names[-1] == "error"
    assert env.heard.last("error").response.status == 401
    assert env.chat.state == "polling"
    env.chat.close()
    env.open()
    assert (env.chat.state, env.heard.take()) == ("idle", ["ready", "restoreFailed", "error"])
    assert env.store.load() is None


def test_each_opening_renews_token(make_env):
    env = make_env(token_ttl=100)
    env.start()
    for _ in range(4):
        env.advance(60)
        env.away(1)
        assert env.chat.state == "polling"


# -- history -----------------------------------------------------------------------------------------------------------


def pages(env) -> list[list[str]]:
    """Return the texts of each page of history; fail if another event was published."""
    env.heard.take()
    found = []
    for _ in range(10):
        outcome = env.chat.command("fetchHistory")
        if not outcome:
            assert outcome.reason == "No more messages to fetch"
            return found
        assert set(env.heard.names) <= {"messageReceived"}
        delivered = received(env.heard)
        assert all(old and not restoring for _, restoring, old in delivered)
        found.append([text for texts, _, _ in delivered for text in texts])
        env.heard.take()
    raise AssertionError("history has no end")


def test_history_pages_are_newest_first_to_the_end(v3_async):
    v3_async.start()
    v3_async.bulk(48)
    v3_async.advance(3)
    v3_async.chat.close()
    v3_async.open()
    ((restored, restoring, _),) = received(v3_async.heard)
    assert (restored, restoring) == ([f"message {n}" for n in range(29, 49)], True)
    found = pages(v3_async)
    assert [len(page) for page in found] == [19, 9, 0]
    assert found[0] + found[1] == [f"message {n}" for n in range(28, 1, -1)] + [""]
    assert v3_async.chat.command("fetchHistory").reason == "No more messages to fetch"
    everything = [message.text for message in v3_async.chat.get_transcript().messages]
    assert everything == ["", *(f"message {n}" for n in range(2, 49))]
    v3_async.chat.send_message("still here")
    v3_async.advance(3)
    assert v3_async.heard.texts() == ["still here"]


def test_history_of_new_chat_has_one_empty_page(v3_async):
    v3_async.chatting("hello")
    assert pages(v3_async) == [[]]
    v3_async.chat.end_chat()
    v3_async.chat.start_chat(nickname="Jonny")
    v3_async.advance(3)
    assert pages(v3_async) == [[]]


def test_history_before_first_poll_is_rejected(v3_async):
    chat = v3_async.open()
    chat.start_chat(nickname="Jonny")
    assert chat.command("fetchHistory").reason == "No more messages to fetch"
    v3_async.advance(0)
    assert v3_async.queries() == [{}]
    assert chat.command("fetchHistory")


def test_page_of_hidden_messages_does_not_end_history(v3_async):
    """Continue after a page of hidden messages, as it is not the last page."""
    v3_async.start()
    v3_async.chat.add_prefilter(re.compile("^message (1.|2.|3.|4[0-7])$"))
    v3_async.bulk(48)
    v3_async.advance(3)
    v3_async.chat.close()
    v3_async.open()
    assert received(v3_async.heard) == [(["message 48"], True, False)]
    assert pages(v3_async) == [[], [f"message {n}" for n in range(9, 1, -1)] + [""], []]


def test_page_size_is_max_message_page_size(v3_async):
    v3_async.start()
    v3_async.bulk(10)
    v3_async.advance(3)
    v3_async.chat.close()
    v3_async.open(maxMessagePageSize=4)
    assert [len(page) for page in pages(v3_async)] == [3, 3, 0]
    assert [query["count"] for query in v3_async.queries()] == ["4"] * 4


def test_failed_history_page_is_rejected_and_repeatable(v3_async):
    v3_async.start()
    v3_async.bulk(30)
    v3_async.advance(3)
    v3_async.away(1)
    v3_async.heard.take()
    for fault, published in (
        ({"drop": True}, ["disconnected"]),
        ({"http_status": 500}, ["reconnected"]),
        ({"body": b"?"}, []),
    ):
        v3_async.server.faults.add(operation="refresh", **fault)
        assert not v3_async.chat.command("fetchHistory")
        assert v3_async.heard.take() == published
    assert [len(page) for page in pages(v3_async)] == [10, 0]


def test_history_page_with_end_leaves_end_to_poll(v3_async):
    agent = v3_async.chatting("one")
    agent.say("bye")
    v3_async.server.end()
    v3_async.heard.take()
    v3_async.chat.fetch_history()
    assert (v3_async.chat.state, v3_async.heard.take()) == ("polling", [])
    v3_async.advance(3)
    assert v3_async.heard.texts() == ["bye"]
    assert v3_async.heard.names[-1] == "ended"


def test_session_loss_in_history_request_ends_chat(v3_async):
    v3_async.start()
    v3_async.server.core.purge()
    v3_async.heard.take()
    assert not v3_async.chat.command("fetchHistory")
    assert (v3_async.chat.state, v3_async.heard.take()) == ("ended", ["error", "pollingStopped", "ended"])


def test_history_does_not_move_poll_position(v3_async):
    agent = v3_async.chatting()
    v3_async.bulk(40)
    v3_async.away(1)
    agent.say("new")
    pages(v3_async)
    v3_async.advance(3)
    assert v3_async.heard.texts() == ["new"]


# -- one session, services ---------------------------------------------------------------------------------------------


def test_services_sharing_session_get_each_message_once(v3_async):
    agent = v3_async.chatting("one")
    first, first_heard, token = v3_async.chat, v3_async.heard, v3_async.token()
    second = v3_async.open(store=MemoryStore())
    second.restore(token)
    second_heard = v3_async.heard
    assert first.get_session_data().session_id == second.get_session_data().session_id
    assert first.get_session_data().transport_id != second.get_session_data().transport_id
    for turn in range(3):
        agent.say(f"to both {turn}")
        first.send_message(f"from the first {turn}")
        second.send_message(f"from the second {turn}")
        v3_async.advance(1.5)
    v3_async.advance(3)
    said = [f"{who} {turn}" for turn in range(3) for who in ("to both", "from the first", "from the second")]
    assert first_heard.texts() == second_heard.texts() == ["one", *said]
    first.close()
    agent.say("to the second alone")
    v3_async.advance(3)
    assert second_heard.texts()[-1] == "to the second alone"
    second.end_chat()
    first.open()
    assert first_heard.texts()[-1] == "to the second alone"


def test_end_by_other_service_is_detected_by_poll(v3_async):
    v3_async.chatting()
    first, first_heard, token = v3_async.chat, v3_async.heard, v3_async.token()
    second = v3_async.open(store=MemoryStore())
    second.restore(token)
    second.end_chat()
    first_heard.take()
    v3_async.advance(3)
    assert first.state == "ended"
    assert first_heard.names == ["clientDisconnected", "messageReceived", "pollingStopped", "ended"]
