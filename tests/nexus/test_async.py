"""Asynchronous chat: it goes dormant, is taken up again by whoever holds its token, and gives its history in pages."""

from __future__ import annotations

import re

import pytest

from tests.lifecycle.stage import HeardOnBus
from tests.nexus.stage import STORES, envelope, received
from webchat_fsm import CommandRejected, MemoryStore

DAY = 86_400
DORMANT = "async-dormant"


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    return STORES[request.param](tmp_path)


# -- dormant and back --------------------------------------------------------------------------------------------------


def test_closing_makes_a_session_dormant_and_says_nothing(lasting):
    lasting.chatting("hello")
    lasting.heard.take()
    assert lasting.chat.close()
    assert lasting.chat.state == DORMANT
    assert lasting.heard.take() == []
    assert lasting.timeline.next_timer() is None
    assert "disconnect" not in lasting.http.operations()
    assert not lasting.server.core.current_chat().ended


def test_reopening_the_same_service_restores_and_the_chat_goes_on(lasting):
    agent = lasting.chatting("one")
    token, transport = lasting.token(), lasting.chat.get_session_data().transport_id
    lasting.chat.close()
    agent.say("two")
    lasting.advance(5)
    lasting.heard.take()
    lasting.chat.open()
    assert lasting.heard.names == [
        "ready", "restored", "clientConnected", "agentConnected", "messageReceived", "pollingStarted",
    ]  # fmt: skip
    assert lasting.heard.last("restored").is_async is True
    assert received(lasting.heard) == [(["", "", "one", "two"], True, False)]
    assert lasting.chat.get_session_data().transport_id != transport
    assert lasting.token() != token
    agent.say("three")
    lasting.chat.send_message("four")
    lasting.advance(3)
    assert received(lasting.heard)[1:] == [(["three", "four"], False, False)]
    assert len(lasting.server.core.chats) == 1


def test_another_service_with_the_same_store_restores_after_days(lasting, store):
    lasting.start(store=store)
    lasting.agent().say("are you there?")
    lasting.chat.close()
    lasting.advance(30 * DAY)
    lasting.client(store=store)
    bus = HeardOnBus(lasting.chat)
    lasting.chat.open()
    assert lasting.chat.state == "polling"
    assert bus.last("restored") == {"async": True, "missing": 0}
    assert lasting.heard.texts() == ["are you there?"]
    assert lasting.http.operations() == ["resume", "restore"]
    assert bus.last("messageReceived")["restoring"] is True


def test_a_process_that_died_leaves_a_session_that_can_be_taken_up(lasting, store):
    lasting.start(store=store)
    lasting.advance(30)
    lasting.crash()
    lasting.advance(DAY)
    lasting.open(store=store)
    assert lasting.chat.state == "polling"


def test_a_resume_sends_the_kept_token_without_a_form(lasting):
    lasting.start(stream="live", config={"userData": {"tier": "gold"}})
    token = lasting.token()
    lasting.away(DAY, stream="live", config={"userData": {"tier": "gold"}})
    fields = lasting.fields("resume")
    assert fields.pop("operationId")
    assert fields.pop("data[endpoint]") == "customer-support"
    assert fields.pop("data[stream]") == "live"
    assert fields == {"data[userData][tier]": "gold"}
    assert lasting.last("resume").headers["x-nexus-client-key"] == token
    assert lasting.last("restore").headers["x-nexus-client-key"] == lasting.token() != token


def test_the_new_token_is_kept_as_soon_as_it_is_there(lasting):
    """The server may have made the old one worthless; the page that fails afterwards changes nothing about that."""
    lasting.start().close()
    old = lasting.store.load().session_data.token
    lasting.client()
    lasting.server.faults.add(operation="refresh", drop=True)
    lasting.chat.open()
    kept = lasting.store.load().session_data
    assert lasting.chat.state == DORMANT
    assert kept.token != old
    lasting.open()
    assert lasting.last("resume").headers["x-nexus-client-key"] == kept.token


def test_away_and_back_many_times_brings_each_message_once_in_each_opening(lasting):
    agent = lasting.chatting()
    for turn in range(5):
        lasting.chat.close()
        agent.say(f"{turn}")
        lasting.advance(DAY)
        lasting.heard.take()
        lasting.chat.open()
        assert lasting.heard.texts() == [str(said) for said in range(turn + 1)]


def test_a_dormant_session_is_dormant_for_every_question(lasting):
    lasting.chatting("hello")
    lasting.chat.close()
    lasting.server.faults.add(operation="start", drop=True)
    lasting.chat.open()
    chat = lasting.chat
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


@pytest.mark.parametrize(("faults", "told"), [(UNANSWERED, ["restoreFailed"]), (BADLY, ["restoreFailed", "error"])])
@pytest.mark.parametrize("operation", ["start", "refresh"])
def test_a_restore_without_a_good_answer_is_dormant_again_and_can_be_repeated(lasting, operation, faults, told):
    lasting.start(store=lasting.store).close()
    for fault in faults.values():
        lasting.server.faults.add(operation=operation, **fault)
        lasting.heard.take()
        lasting.chat.open()
        assert (lasting.chat.state, lasting.heard.take()) == (DORMANT, ["ready", *told])
        assert lasting.store.load() is not None
        assert lasting.timeline.next_timer() is None
        lasting.server.faults.add(operation=operation, **fault)
        assert not lasting.chat.command("restore")
        assert (lasting.chat.state, lasting.heard.take()) == (DORMANT, told)
        lasting.chat.close()
        assert lasting.chat.state == DORMANT
    lasting.chat.open()
    assert lasting.chat.state == "polling"
    lasting.chat.close()
    lasting.server.faults.add(operation="start", drop=True)
    lasting.chat.open()
    assert lasting.chat.restore() is None
    assert lasting.chat.state == "polling"


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
@pytest.mark.parametrize("operation", ["start", "refresh"])
def test_a_lost_session_is_given_up_and_the_next_start_is_a_normal_one(lasting, operation, fault):
    lasting.start().close()
    lasting.server.faults.add(operation=operation, **fault)
    lasting.open()
    assert (lasting.chat.state, lasting.heard.take()) == ("idle", ["ready", "restoreFailed", "error"])
    assert lasting.store.load() is None
    assert not lasting.chat.verify_session()
    assert lasting.chat.command("restore").reason == "No chat session found to restore."
    lasting.chat.start_chat(nickname="Jonny")
    assert "x-nexus-client-key" not in lasting.last("start").headers
    assert lasting.chat.state == "polling"


def test_a_session_found_ended_is_given_up_with_restore_failed(lasting):
    lasting.start().close()
    lasting.client()
    lasting.http.answer("restore", envelope(messages=[], chatEnded=True))
    lasting.chat.open()
    assert (lasting.chat.state, lasting.heard.take()) == ("idle", ["ready", "restoreFailed"])
    assert lasting.store.load() is None


def test_closing_inside_a_restore_leaves_it_dormant_and_saved(lasting):
    lasting.start().close()
    chat = lasting.client()
    lasting.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert chat.state == DORMANT
    assert lasting.heard.take() == ["ready"]
    assert lasting.store.load() is not None
    chat.open()
    assert chat.state == "polling"


def test_an_interrupted_restore_is_as_before(lasting):
    lasting.start().close()
    chat = lasting.chat

    def interrupt():
        raise KeyboardInterrupt

    for operation in ("resume", "restore"):
        lasting.http.during(operation, interrupt)
        with pytest.raises(KeyboardInterrupt):
            chat.open()
        assert chat.state == DORMANT
        chat.close()
    chat.open()
    assert chat.state == "polling"


def test_what_is_saved_of_another_server_is_kept_and_not_restored(lasting):
    lasting.start(dataURL="http://other.test/nexus/v3/chat/sessions").close()
    lasting.open()
    assert lasting.chat.state == "idle"
    assert lasting.http.operations() == []
    assert lasting.store.load() is not None


def test_a_store_that_lost_a_dormant_session_does_not_make_the_service_forget_it(lasting):
    lasting.start().close()
    lasting.store.delete()
    lasting.chat.open()
    assert lasting.chat.state == "polling"


def test_a_session_of_another_server_in_the_store_is_never_mixed_up_with_the_dormant_one(lasting):
    """Neither is it restored here, nor is its token sent here when the dormant chat is ended."""
    lasting.start(dataURL="http://other.test/nexus/v3/chat/sessions").close()
    foreign = lasting.store.load()
    store = MemoryStore()
    lasting.start(store=store).close()
    own = store.load().session_data
    store.save(foreign)
    lasting.server.faults.add(operation="start", drop=True)
    lasting.chat.open()
    assert lasting.chat.state == DORMANT
    lasting.chat.end_chat()
    tokens = {request.headers.get("x-nexus-client-key") for request in lasting.sent[-2:]}
    assert tokens == {own.token}


# -- ending ------------------------------------------------------------------------------------------------------------


def dormant(stage):
    stage.chatting("hello")
    stage.chat.close()
    stage.server.faults.add(operation="start", drop=True)
    stage.chat.open()
    stage.heard.take()
    assert stage.chat.state == DORMANT
    return stage.chat


def test_a_dormant_chat_can_be_ended_with_its_kept_token(lasting):
    chat = dormant(lasting)
    kept = lasting.store.load().session_data
    assert chat.end_chat()
    assert chat.state == "ended"
    assert lasting.heard.take() == ["clientDisconnected", "ended"]
    request = lasting.last("disconnect")
    assert request.headers["x-nexus-client-key"] == kept.token
    assert request.url.endswith(f"/{kept.session_id}/participants/{kept.participant_id}")
    assert lasting.server.core.current_chat().ended
    assert lasting.store.load() is None
    assert chat.start_chat(nickname="Jonny")


@pytest.mark.parametrize("fault", [{"drop": True}, {"http_status": 404}, {"http_status": 500}])
def test_a_dormant_chat_is_over_here_even_where_leaving_fails(lasting, fault):
    chat = dormant(lasting)
    lasting.server.faults.add(operation="disconnect", **fault)
    assert not chat.command("endChat")
    assert (chat.state, lasting.heard.take()) == ("ended", ["clientDisconnected", "ended"])


def test_while_a_dormant_chat_is_being_ended_nothing_else_begins(lasting):
    chat = dormant(lasting)
    reasons = []

    def ask():
        reasons.extend(chat.command(name, {"nickname": "x"}).reason for name in ("startChat", "restore", "endChat"))

    lasting.http.during("disconnect", ask)
    chat.end_chat()
    assert reasons == [
        "There is already an active chat session", "Chat session is already active, ignoring restore command.",
        "There is no active chat session",
    ]  # fmt: skip
    assert lasting.heard.take() == ["clientDisconnected", "ended"]


def test_closing_with_end_ends_an_asynchronous_chat(lasting):
    lasting.start()
    lasting.chat.close(end=True)
    assert lasting.chat.state == "ended"
    assert lasting.server.core.current_chat().ended
    lasting.open()
    assert lasting.chat.state == "idle"


def test_an_ended_session_can_be_taken_up_again_by_its_token(lasting):
    lasting.start()
    token = lasting.token()
    lasting.chat.end_chat()
    lasting.heard.take()
    lasting.chat.restore(token)
    assert lasting.chat.state == "polling"
    assert lasting.heard.names[0] == "restored"
    assert not lasting.server.core.current_chat().ended


# -- restore by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "object", "json", "json text"])
def test_a_token_alone_restores_anywhere(lasting, form):
    import json

    lasting.chatting("hello")
    token = lasting.token()
    lasting.chat.close()
    given = {
        "text": token,
        "object": {"token": token},
        "json": json.dumps({"token": token}),
        "json text": json.dumps(token),
    }
    store = MemoryStore()
    lasting.open(store=store)
    assert lasting.chat.state == "idle"
    bus = HeardOnBus(lasting.chat)
    assert bus.command("restore", {"sessionData": given[form]})
    assert lasting.chat.state == "polling"
    assert lasting.heard.texts() == ["hello"]
    assert store.load().session_data.token == lasting.token()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("undefined", "No chat session found to restore."),
        ("null", "No chat session found to restore."),
        ({"sessionId": "s"}, "No chat session found to restore."),
        (5, "No chat session found to restore."),
        (["x"], "No chat session found to restore."),
        ('{"token": ', "the session data are no JSON"),
        ('{"a":' * 100_000, "the session data are no JSON"),
        ("x" * 10_000, "the session data hold no token that a request can carry"),
        ("a token\r\nx-evil: 1", "the session data hold no token that a request can carry"),
        ("tökén", "the session data hold no token that a request can carry"),
    ],
)
def test_what_is_no_session_data_is_refused_before_anything_is_sent(lasting, given, reason):
    lasting.start().close()
    saved = lasting.store.load()
    lasting.server.faults.add(operation="start", drop=True)
    chat = lasting.open()
    outcome = chat.command("restore", {"sessionData": given})
    assert not outcome
    assert reason in outcome.reason
    assert lasting.http.operations() == ["resume"]
    assert (chat.state, lasting.store.load()) == (DORMANT, saved)


@pytest.mark.parametrize("bad", ["forged", "truncated", "of nobody"])
def test_a_forged_or_truncated_token_is_a_lost_session(lasting, bad):
    lasting.start()
    head, payload, signature = lasting.token().split(".")
    tokens = {
        "forged": f"{head}.{payload}.{signature[::-1]}",
        "truncated": f"{head}.{payload[:20]}",
        "of nobody": "abc",
    }
    lasting.chat.close()
    lasting.open(store=MemoryStore())
    lasting.heard.take()
    with pytest.raises(CommandRejected) as caught:
        lasting.chat.restore(tokens[bad])
    assert caught.value.response.status == 401
    assert (lasting.chat.state, lasting.heard.take()) == ("idle", ["restoreFailed", "error"])
    assert lasting.chat.start_chat(nickname="Jonny")


def test_a_restore_by_hand_is_refused_where_there_is_a_session_already(lasting):
    chat, token = lasting.start(), lasting.token()
    active = "Chat session is already active, ignoring restore command."
    assert chat.command("restore", {"sessionData": token}).reason == active
    chat.stop_poll()
    assert chat.command("restore").reason == active
    told = []
    chat.close()
    lasting.http.during("resume", lambda: told.append(chat.command("restore", {"sessionData": token}).reason))
    chat.open()
    assert told == ["Already restoring. Ignoring request."]


def test_a_token_that_has_expired_is_a_lost_session_but_only_an_error_while_polling(make_stage):
    stage = make_stage(token_ttl=100)
    stage.start()
    stage.advance(95)
    assert "error" not in stage.heard.names
    stage.advance(10)
    assert stage.heard.names[-1] == "error"
    assert stage.heard.last("error").response.status == 401
    assert stage.chat.state == "polling"
    stage.chat.close()
    stage.open()
    assert (stage.chat.state, stage.heard.take()) == ("idle", ["ready", "restoreFailed", "error"])
    assert stage.store.load() is None


def test_a_token_is_renewed_by_each_opening(make_stage):
    stage = make_stage(token_ttl=100)
    stage.start()
    for _ in range(4):
        stage.advance(60)
        stage.away(1)
        assert stage.chat.state == "polling"


# -- history -----------------------------------------------------------------------------------------------------------


def pages(stage) -> list[list[str]]:
    """The texts of each page of history that came, and the check that nothing else was told."""
    stage.heard.take()
    found = []
    for _ in range(10):
        outcome = stage.chat.command("fetchHistory")
        if not outcome:
            assert outcome.reason == "No more messages to fetch"
            return found
        assert set(stage.heard.names) <= {"messageReceived"}
        told = received(stage.heard)
        assert all(old and not restoring for _, restoring, old in told)
        found.append([text for texts, _, _ in told for text in texts])
        stage.heard.take()
    raise AssertionError("history has no end")


def test_history_comes_in_pages_newest_first_until_nothing_older_is_there(lasting):
    lasting.start()
    lasting.bulk(48)
    lasting.advance(3)
    lasting.chat.close()
    lasting.open()
    ((restored, restoring, _),) = received(lasting.heard)
    assert (restored, restoring) == ([f"message {n}" for n in range(29, 49)], True)
    found = pages(lasting)
    assert [len(page) for page in found] == [19, 9, 0]
    assert found[0] + found[1] == [f"message {n}" for n in range(28, 1, -1)] + [""]
    assert lasting.chat.command("fetchHistory").reason == "No more messages to fetch"
    everything = [message.text for message in lasting.chat.get_transcript().messages]
    assert everything == ["", *(f"message {n}" for n in range(2, 49))]
    lasting.chat.send_message("still here")
    lasting.advance(3)
    assert lasting.heard.texts() == ["still here"]


def test_history_of_a_chat_that_was_started_here_is_soon_at_its_end(lasting):
    lasting.chatting("hello")
    assert pages(lasting) == [[]]
    lasting.chat.end_chat()
    lasting.chat.start_chat(nickname="Jonny")
    lasting.advance(3)
    assert pages(lasting) == [[]]


def test_before_anything_is_known_there_is_nothing_to_go_back_from(lasting):
    chat = lasting.open()
    chat.start_chat(nickname="Jonny")
    assert chat.command("fetchHistory").reason == "No more messages to fetch"
    lasting.advance(0)
    assert lasting.queries() == [{}]
    assert chat.command("fetchHistory")


def test_hidden_messages_do_not_end_the_history(lasting):
    """A page that shows nothing is no last page."""
    lasting.start()
    lasting.chat.add_prefilter(re.compile("^message (1.|2.|3.|4[0-7])$"))
    lasting.bulk(48)
    lasting.advance(3)
    lasting.chat.close()
    lasting.open()
    assert received(lasting.heard) == [(["message 48"], True, False)]
    assert pages(lasting) == [[], [f"message {n}" for n in range(9, 1, -1)] + [""], []]


def test_pages_are_as_big_as_the_configuration_says(lasting):
    lasting.start()
    lasting.bulk(10)
    lasting.advance(3)
    lasting.chat.close()
    lasting.open(maxMessagePageSize=4)
    assert [len(page) for page in pages(lasting)] == [3, 3, 0]
    assert [query["count"] for query in lasting.queries()] == ["4"] * 4


def test_a_page_that_fails_rejects_and_can_be_asked_for_again(lasting):
    lasting.start()
    lasting.bulk(30)
    lasting.advance(3)
    lasting.away(1)
    lasting.heard.take()
    for fault, told in (
        ({"drop": True}, ["disconnected"]),
        ({"http_status": 500}, ["reconnected"]),
        ({"body": b"?"}, []),
    ):
        lasting.server.faults.add(operation="refresh", **fault)
        assert not lasting.chat.command("fetchHistory")
        assert lasting.heard.take() == told
    assert [len(page) for page in pages(lasting)] == [10, 0]


def test_a_page_that_says_the_chat_is_over_leaves_the_last_words_to_the_poll(lasting):
    agent = lasting.chatting("one")
    agent.say("bye")
    lasting.server.end()
    lasting.heard.take()
    lasting.chat.fetch_history()
    assert (lasting.chat.state, lasting.heard.take()) == ("polling", [])
    lasting.advance(3)
    assert lasting.heard.texts() == ["bye"]
    assert lasting.heard.names[-1] == "ended"


def test_a_session_lost_in_a_page_is_a_lost_session(lasting):
    lasting.start()
    lasting.server.core.purge()
    lasting.heard.take()
    assert not lasting.chat.command("fetchHistory")
    assert (lasting.chat.state, lasting.heard.take()) == ("ended", ["error", "pollingStopped", "ended"])


def test_history_does_not_move_the_reading_position(lasting):
    agent = lasting.chatting()
    lasting.bulk(40)
    lasting.away(1)
    agent.say("new")
    pages(lasting)
    lasting.advance(3)
    assert lasting.heard.texts() == ["new"]


# -- many at one session -----------------------------------------------------------------------------------------------


def test_two_services_share_a_session_and_each_sees_every_message_once(lasting):
    agent = lasting.chatting("one")
    first, first_heard, token = lasting.chat, lasting.heard, lasting.token()
    second = lasting.open(store=MemoryStore())
    second.restore(token)
    second_heard = lasting.heard
    assert first.get_session_data().session_id == second.get_session_data().session_id
    assert first.get_session_data().transport_id != second.get_session_data().transport_id
    for turn in range(3):
        agent.say(f"to both {turn}")
        first.send_message(f"from the first {turn}")
        second.send_message(f"from the second {turn}")
        lasting.advance(1.5)
    lasting.advance(3)
    said = [f"{who} {turn}" for turn in range(3) for who in ("to both", "from the first", "from the second")]
    assert first_heard.texts() == second_heard.texts() == ["one", *said]
    first.close()
    agent.say("to the second alone")
    lasting.advance(3)
    assert second_heard.texts()[-1] == "to the second alone"
    second.end_chat()
    first.open()
    assert first_heard.texts()[-1] == "to the second alone"


def test_where_one_of_two_ends_the_chat_the_other_learns_it_by_its_poll(lasting):
    lasting.chatting()
    first, first_heard, token = lasting.chat, lasting.heard, lasting.token()
    second = lasting.open(store=MemoryStore())
    second.restore(token)
    second.end_chat()
    first_heard.take()
    lasting.advance(3)
    assert first.state == "ended"
    assert first_heard.names == ["clientDisconnected", "messageReceived", "pollingStopped", "ended"]
