"""Coming back: in time, too late, after the death of the process, to a chat that ended, or to a server that is away."""

from __future__ import annotations

import logging
import threading

import pytest
from msgspec.structs import replace

from tests.lifecycle.stage import Probe, envelope, message
from webchat_fsm import CommandRejected, FileStore, MemoryStore, ThreadDriver, WebChatService
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing.bench import CONFIGS


def outcome_of(stage) -> list[str]:
    return [name for name in stage.heard.take() if name not in ("clientConnected", "agentConnected")]


BACK = ["ready", "restored", "messageReceived", "pollingStarted"]


@pytest.mark.parametrize(
    ("away", "published", "state"),
    [
        (0, BACK, "polling"),
        (59.999, BACK, "polling"),
        (60.000, ["ready", "restoreTimeout"], "idle"),
        (60.001, ["ready", "restoreTimeout"], "idle"),
    ],
)
def test_exactly_the_timeout_away_is_too_long_and_less_is_not(stage, away, published, state):
    stage.start()
    chat = stage.away(away)
    assert (outcome_of(stage), chat.state) == (published, state)
    assert (stage.store.load() is None) is (state == "idle")


def test_too_late_no_request_is_made(stage):
    stage.start()
    stage.away(60)
    assert stage.http.sent == []


def test_the_timeout_is_that_of_the_configuration(stage):
    stage.start()
    assert stage.away(100, restoreTimeout=100_001).state == "polling"
    assert stage.away(1, restoreTimeout=1000).state == "idle"


@pytest.mark.parametrize(("away", "state"), [(59.999, "polling"), (60, "idle")])
def test_after_the_death_of_the_process_the_last_answered_poll_counts(stage, away, state):
    stage.start()
    stage.advance(30)
    last = stage.asked("refresh") and stage.server.core.requests[-1].time
    stage.crash()
    stage.advance(last + away - stage.timeline.now())
    chat = stage.open()
    assert chat.state == state


def test_a_poll_that_failed_is_no_sign_of_life(stage):
    stage.start()
    stage.advance(5)
    last = stage.server.core.requests[-1].time
    stage.server.faults.add(operation="refresh", drop=True, times=100)
    stage.advance(40)
    stage.crash()
    stage.server.faults.clear()
    stage.advance(last + 60 - stage.timeline.now())
    assert stage.open().state == "idle"


def test_an_orderly_close_counts_even_when_polls_have_failed_before(stage):
    stage.start()
    stage.server.faults.add(operation="refresh", drop=True, times=100)
    stage.advance(90)
    stage.server.faults.clear()
    assert stage.away(59).state == "polling"


def test_a_clock_that_went_backwards_counts_as_no_time_away(stage):
    stage.start()
    stage.chat.close()
    stage.timeline.clock_jump(-100_000)
    assert stage.open().state == "polling"


def test_a_restore_brings_the_whole_transcript_marked_and_goes_on_behind_it(stage):
    stage.start()
    ann = stage.agent()
    ann.say("before")
    stage.advance(3)
    stage.chat.close()
    ann.say("meanwhile")
    chat = stage.open()
    received = stage.heard.last("messageReceived")
    assert received.restoring
    assert [(entry.index, entry.restoring) for entry in received.messages] == [
        (1, True),
        (2, True),
        (3, True),
        (4, True),
    ]
    ann.say("after")
    stage.advance(3)
    received = stage.heard.last("messageReceived")
    assert (received.restoring, [(entry.text, entry.restoring) for entry in received.messages]) == (
        False,
        [("after", False)],
    )
    assert stage.heard.texts() == ["before", "meanwhile", "after"]
    assert [agent.name for agent in chat.get_agents().values()] == ["Ann"]


def test_the_same_service_can_be_opened_again(stage):
    chat = stage.start()
    chat.close()
    assert chat.state == "idle"
    chat.open()
    assert chat.state == "polling"
    chat.open()
    assert stage.http.operations().count("restore") == 1
    chat.send_message("hi")
    stage.advance(3)
    assert stage.heard.texts() == ["hi"]


def test_a_restored_session_knows_its_ids_and_can_do_everything(stage):
    known = stage.start().get_session_data()
    chat = stage.away(10)
    assert chat.get_session_data() == known
    chat.send_message("hi")
    chat.end_chat()
    assert chat.state == "ended"


def test_user_data_and_filters_are_taken_up(stage):
    chat = stage.start(userData={"tier": "gold"})
    chat.update_user_data({"page": "/help"})
    later = stage.away(10)
    later.end_chat()
    assert later.update_user_data({}) == {"tier": "gold", "page": "/help"}


def test_a_chat_that_ended_meanwhile_is_a_timeout(stage):
    stage.start()
    stage.chat.close()
    stage.server.end()
    chat = stage.open()
    assert (outcome_of(stage), chat.state) == (["ready", "restoreTimeout"], "idle")
    assert stage.store.load() is None
    assert chat.get_transcript().messages == ()


def test_a_chat_that_the_server_no_longer_knows_is_a_timeout_after_its_errors(stage):
    stage.start()
    stage.chat.close()
    stage.server.core.purge()
    stage.open()
    assert outcome_of(stage) == ["ready", "error", "restoreTimeout"]
    assert stage.store.load() is None


def test_a_lost_session_fails_with_an_error_and_is_forgotten(stage):
    stage.start()
    stage.chat.close()
    stage.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
    chat = stage.open()
    assert (outcome_of(stage), chat.state) == (["ready", "restoreFailed", "error"], "idle")
    assert stage.heard.names.count("ended") == 0
    assert stage.store.load() is None


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
def test_a_restore_without_a_good_answer_keeps_the_session_and_closing_and_opening_tries_again(stage, why):
    wrong, published = KEPT[why]
    stage.start()
    stage.chat.close()
    stage.server.faults.add(operation="refresh", **wrong)
    chat = stage.open()
    assert (outcome_of(stage), chat.state) == (published, "idle")
    assert stage.store.load() is not None
    chat.close()
    chat.open()
    assert (outcome_of(stage), chat.state) == (BACK, "polling")


def test_a_start_gives_up_what_could_not_be_restored(stage):
    first = stage.start() and stage.server.core.current_chat().chat_id
    stage.chat.close()
    stage.server.faults.add(operation="refresh", drop=True)
    chat = stage.open()
    stage.http.during("start", lambda: gone.append(stage.store.load()))
    gone = []
    chat.start_chat(nickname="Again")
    assert gone == [None]
    assert stage.store.load().session_data.session_id != first
    assert "secureKey" not in {key for key, value in stage.asked("start")[-1].items() if value}


def test_restored_while_the_chat_server_is_away(stage):
    stage.start()
    stage.agent().say("Hello")
    stage.chat.close()
    stage.server.faults.add(operation="refresh", server_status=1, times=4)
    chat = stage.open()
    assert (outcome_of(stage), chat.state) == (["ready", "restored", "restoredOffline", "pollingStarted"], "offline")
    assert chat.get_transcript().messages == ()
    assert chat.health().failures == 6
    stage.advance(7)
    assert (stage.heard.names, chat.state) == ([], "offline")
    stage.advance(3)
    assert stage.heard.names == ["chatServerBackOnline", "clientConnected", "agentConnected", "messageReceived"]
    assert stage.heard.last("messageReceived").restoring
    assert all(entry.restoring for entry in stage.heard.last("messageReceived").messages)
    assert (stage.heard.texts(), chat.state) == (["Hello"], "polling")
    stage.heard.take()
    stage.server.agent("Sue").join()
    stage.advance(3)
    assert not stage.heard.last("messageReceived").restoring


def test_an_end_that_an_unavailable_server_tells_of_is_not_believed(stage):
    stage.start()
    stage.chat.close()
    stage.server.faults.add(operation="refresh", server_status=1, chat_ended=True)
    assert stage.open().state == "offline"


def test_a_session_of_another_chat_server_is_none_here_and_is_kept_until_a_start(stage, caplog):
    stage.start()
    stage.chat.close()
    elsewhere = CONFIGS[stage.transport]["dataURL"].replace("customer-support", "sales")
    with caplog.at_level(logging.WARNING, "webchat_fsm"):
        chat = stage.client(address=elsewhere)
        chat.open()
    assert (outcome_of(stage), chat.state) == (["ready"], "idle")
    assert caplog.text.count("another transport or chat server") == 1
    assert chat.verify_session() is False
    assert stage.store.load() is not None
    chat.close()
    assert stage.away(0).state == "polling", "at its own server it can still be taken up"
    stage.chat.close()
    stranger = stage.client(address=elsewhere)
    stranger.open()
    stranger.start_chat(nickname="Jonny")
    assert stage.store.load().address == elsewhere


def test_a_start_that_fails_has_given_up_the_saved_session_all_the_same(stage):
    stage.start()
    stage.chat.close()
    stage.server.faults.add(operation="refresh", drop=True)
    chat = stage.open()
    stage.server.faults.add(operation="start", http_status=500)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    assert stage.store.load() is None


def test_a_chat_that_has_ended_here_leaves_nothing_to_restore(stage):
    stage.start().end_chat()
    assert stage.store.load() is None
    chat = stage.away(0)
    assert (outcome_of(stage), chat.state) == (["ready"], "idle")


def test_closing_while_restoring_leaves_the_saved_session_untouched(stage):
    stage.start()
    stage.chat.close()
    saved = stage.store.load()
    chat = stage.client()
    stage.http.during("restore", chat.close)
    chat.open()
    assert (outcome_of(stage), chat.state) == (["ready"], "idle")
    assert stage.store.load() == saved
    chat.open()
    assert chat.state == "polling"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_restoring_goes_on_and_leaves_everything_as_it_was(stage, interruption):
    stage.start()
    stage.chat.close()
    saved, chat = stage.store.load(), stage.client()

    def interrupt():
        raise interruption

    stage.http.during("restore", interrupt)
    with pytest.raises(interruption):
        chat.open()
    assert (chat.state, stage.store.load()) == ("idle", saved)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_starting_goes_on_and_leaves_the_service_idle(stage, interruption):
    chat = stage.open()

    def interrupt():
        raise interruption

    stage.http.during("start", interrupt)
    with pytest.raises(interruption):
        chat.start_chat(nickname="Jonny")
    assert (chat.state, outcome_of(stage)) == ("idle", ["ready"])
    chat.start_chat(nickname="Jonny")
    assert chat.state == "polling"


def test_a_file_restores_in_another_process(stage, tmp_path):
    stage.client(store=FileStore(tmp_path / "session.json"))
    stage.chat.open()
    stage.chat.start_chat(nickname="Jonny")
    stage.chat.close()
    chat = stage.client(store=FileStore(tmp_path / "session.json"))
    chat.open()
    assert chat.state == "polling"


def test_without_a_store_only_the_same_object_restores(stage):
    def make():
        http = Probe(EmbeddedHttp(stage.server.core, stage.timeline.clock))
        chat = WebChatService(CONFIGS[stage.transport], http=http, driver=stage.timeline.driver)
        stage.server.clients.append(chat)
        chat.open()
        return chat

    chat = make()
    chat.start_chat(nickname="Jonny")
    chat.close()
    assert make().state == "idle"
    chat.open()
    assert chat.state == "polling"


def test_closing_with_an_end_ends_the_chat_first(stage):
    chat = stage.start()
    stage.heard.take()
    assert chat.close(end=True)
    assert outcome_of(stage) == ["pollingStopped", "clientDisconnected", "ended"]
    assert (chat.state, stage.store.load()) == ("ended", None)
    assert stage.server.core.current_chat().ended


# -- verifySession -----------------------------------------------------------------------------------------------------


def test_verifying_says_whether_there_is_a_session(stage):
    chat = stage.open()
    assert chat.verify_session() is False
    assert chat.command("verifySession").value == {"sessionActive": False}
    chat.start_chat(nickname="Jonny")
    assert chat.command("verifySession").value == {"sessionActive": True}
    chat.stop_poll()
    assert chat.verify_session() is True
    chat.end_chat()
    assert chat.verify_session() is False


def test_a_kept_session_counts_while_it_is_young_and_is_told_of_when_it_is_not(stage):
    stage.start()
    stage.chat.close()
    stage.server.faults.add(operation="refresh", drop=True)
    chat = stage.open()
    stage.heard.take()
    stage.advance(59.999)
    assert chat.verify_session() is True
    stage.advance(0.001)
    assert chat.verify_session() is False
    assert stage.heard.take() == ["restoreTimeout"]
    assert stage.store.load() is None
    assert chat.verify_session() is False
    assert stage.heard.take() == []


def test_verifying_inside_a_handler_does_not_wait_for_the_restore(stage):
    stage.start()
    stage.chat.close()
    answers = []
    chat = stage.client()
    chat.subscribe("ready", lambda event: answers.append((chat.state, chat.verify_session())))
    chat.open()
    assert answers == [("restoring", True)]


def test_verifying_in_another_thread_waits_until_the_restore_is_settled(webchat_server, webchat_timeline):
    store = MemoryStore()
    first = webchat_server.client(store=store)
    first.open()
    first.start_chat(nickname="Jonny")
    first.close()
    asked, go, answers = threading.Event(), threading.Event(), []
    http = Probe(EmbeddedHttp(webchat_server.core, webchat_timeline.clock))

    def hold():
        asked.set()
        assert go.wait(10)

    http.during("restore", hold)
    config = {**CONFIGS["v2"], "restoreTimeout": 10**12}
    with_threads = WebChatService(config, store=store, http=http, driver=ThreadDriver())
    opening = threading.Thread(target=with_threads.open)
    opening.start()
    try:
        assert asked.wait(10)
        asking = threading.Thread(target=lambda: answers.append((with_threads.verify_session(), with_threads.state)))
        asking.start()
        asking.join(0.1)
        assert answers == []
        go.set()
        asking.join(10)
        assert answers == [(True, "polling")]
    finally:
        go.set()
        opening.join(10)
        assert with_threads.close()
        assert with_threads._driver.close()


def test_a_user_cannot_restore_by_hand(stage):
    with pytest.raises(CommandRejected, match="in Non-Async mode"):
        stage.open().restore()


# -- what is missing ---------------------------------------------------------------------------------------------------


def came_back_to(stage, *indexes, **more):
    """A chat that had delivered three messages, restored with the messages of these indexes: what is missing."""
    stage.start()
    agent = stage.agent()
    agent.say("hello")
    stage.advance(3)
    stage.chat.close()
    assert stage.store.load().last_index == "3"
    stage.client()
    stage.http.answer("restore", envelope(*(message(index, str(index)) for index in indexes), **more))
    stage.chat.open()
    transcript = stage.chat.get_transcript()
    assert stage.heard.last("restored").missing == transcript.missing
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
    ids=["all", "from the last", "behind it", "a gap", "typing left out", "less than was delivered", "nothing"],
)
def test_what_an_answer_to_everything_leaves_out_is_reported(stage, indexes, missing):
    assert came_back_to(stage, *indexes) == missing


@pytest.mark.parametrize(("indexes", "missing"), [([1, 2], 0), ([3, 4], None), ([], None)])
def test_without_a_last_index_only_the_first_position_says_all(stage, indexes, missing):
    stage.start()
    stage.chat.close()
    stage.store.save(replace(stage.store.load(), last_index=None))
    stage.client()
    stage.http.answer("restore", envelope(*(message(index, str(index)) for index in indexes)))
    stage.chat.open()
    assert stage.chat.get_transcript().missing == stage.heard.last("restored").missing == missing


def test_a_restore_while_offline_is_complete_with_transcript(stage):
    assert came_back_to(stage, statusCode=1) is None
    stage.advance(60)
    assert stage.chat.state == "polling"
    assert stage.chat.get_transcript().complete
    stage.chat.close()
    assert stage.store.load().last_index == "3"
