"""Many chats in one pool: starts, isolation, shared connections, events, and closing all of them."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from urllib.parse import parse_qsl

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import (
    ChatClosed,
    CommandRejected,
    Config,
    ConfigError,
    FileStore,
    ManualDriver,
    MemoryStore,
    PoolFull,
    SessionPool,
    StoreError,
    ThreadDriver,
    TransportError,
    WebChatError,
    WebChatService,
)
from webchat_fsm._runtime.shared_http import SharedConnections, SharedHttp
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront
from webchat_fsm.testing import Recorder, Recording, replay

FAST = {"pollRate": 100, "pollRateMin": 100, "pollRateMax": 100, "dynamicPolling": False}


@pytest.fixture
def pool(front):
    """Make pools whose sessions reach the embedded server over sockets; they are closed at the end."""
    made = []

    def make(url: str = "", config: dict[str, object] | None = None, **given: object) -> SessionPool:
        made.append(SessionPool({"dataURL": url or front.data_url(), **FAST, **(config or {})}, **given))
        return made[-1]

    yield make
    for one in made:
        assert one.close(SOON)


@pytest.fixture
def held(peer, replies, wire):
    """Run a v2 server that answers a start only once `gate` is set."""
    good, gate = wire().send(type("R", (), {"operation": "start"})()).body, threading.Event()

    def script(server, connection):
        while server.read(connection):
            gate.wait(LONG)
            connection.sendall(replies.whole(good))

    server = peer(script)
    server.gate = gate
    yield server
    gate.set()


def started(chats: SessionPool) -> list[WebChatService]:
    """Start a chat; empty where its pool is closed meanwhile."""
    with suppress(CommandRejected):
        return [chats.start_chat(nickname="Ann")]
    return []


# -- starting ----------------------------------------------------------------------------------------------------------


def test_started_chats_are_the_sessions_in_order(pool):
    chats = pool()
    first, second = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
    assert isinstance(first, WebChatService)
    assert chats.sessions() == (first, second)
    assert [one.state for one in chats.sessions()] == ["polling", "polling"]
    assert len(chats) == 2


def test_empty_pool_is_true(pool):
    assert len(pool()) == 0
    assert pool()


def test_chats_of_a_pool_are_separate_at_the_server(pool, front):
    chats = pool()
    ids = {chats.start_chat(nickname=name).get_session_data().session_id for name in ("Ann", "Bob", "Cid")}
    assert len(ids) == 3


def test_form_and_user_data_of_a_start_reach_the_server(wire):
    made = []

    def http():
        made.append(wire())
        return made[-1]

    with SessionPool({"dataURL": "http://chat.test/x", "userData": {"tier": "gold"}}, http=http) as chats:
        chats.start_chat(nickname="Ann", subject="shoes", user_data={"page": "/a"})
        chats.start_chat(nickname="Bob")
    first, second = (next(one for one in each.requests if one.operation == "start") for each in made)
    sent, other = dict(parse_qsl(first.body.decode())), dict(parse_qsl(second.body.decode()))
    assert (sent["nickname"], sent["subject"], sent["userData[tier]"], sent["userData[page]"]) == (
        "Ann", "shoes", "gold", "/a"
    )  # fmt: skip
    assert other["userData[tier]"] == "gold"
    assert "userData[page]" not in other


def test_failed_start_raises_and_leaves_no_session(pool, front):
    chats = pool(f"{front.url}/nothing/here")
    with pytest.raises(CommandRejected):
        chats.start_chat(nickname="Ann")
    assert chats.sessions() == ()
    assert chats.health().starting == 0


def test_ctrl_c_in_a_start_frees_its_place(wire):
    def interrupt(request):
        raise KeyboardInterrupt

    with SessionPool({"dataURL": "http://chat.test/x"}, http=lambda: wire(start=interrupt), max_starts=1) as chats:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                chats.start_chat(nickname="Ann")
        assert (chats.sessions(), chats.health().starting) == ((), 0)


def test_failing_store_factory_frees_the_place_of_a_start(pool):
    def broken():
        raise OSError("disk full")

    chats = pool(store=broken, max_starts=1)
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            chats.start_chat(nickname="Ann")
    assert chats.health().starting == 0


def test_full_pool_rejects_with_what_to_do(pool, held, in_threads, eventually):
    chats = pool(held.url, on_full="reject", max_starts=2)
    in_threads(*[lambda: chats.start_chat(nickname="Ann")] * 2)
    eventually(lambda: chats.health().starting == 2)
    with pytest.raises(PoolFull, match=r"2 starts of this pool are under way; try again later, or .* max_starts$"):
        chats.start_chat(nickname="Bob")
    held.gate.set()
    eventually(lambda: len(chats.sessions()) == 2 and not chats.health().starting)
    chats.start_chat(nickname="Bob")
    assert len(chats.sessions()) == 3


def test_full_pool_waits_until_its_deadline(pool, held, in_threads, eventually, stopwatch):
    chats = pool(held.url, max_starts=1, wait_timeout=0.05)
    in_threads(lambda: started(chats))
    eventually(lambda: chats.health().starting == 1)
    stopwatch.restart()
    with pytest.raises(PoolFull, match=r"1 start of this pool is under way, also after \d+\.\d+ s of w") as full:
        chats.start_chat(nickname="Bob")
    assert 0.05 <= full.value.waited <= stopwatch.seconds
    held.gate.set()


def test_waiting_start_begins_when_another_ends(pool, held, in_threads, eventually):
    chats = pool(held.url, max_starts=1, wait_timeout=LONG)
    threads = in_threads(*[lambda: chats.start_chat(nickname="Ann")] * 3)
    eventually(lambda: len(held.seen) == 1)
    assert chats.health().starting == 1
    held.gate.set()
    for thread in threads:
        thread.join(LONG)
    assert [one.state for one in chats.sessions()] == ["polling"] * 3


def test_pool_full_is_pickled_with_its_attributes():
    error = pickle.loads(pickle.dumps(PoolFull(16, 10.0)))
    assert (type(error), error.starting, error.waited) == (PoolFull, 16, 10.0)
    assert str(error) == str(PoolFull(16, 10.0))


def test_start_in_a_handler_of_the_only_start_fails(wire):
    errors = []
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, max_starts=1, wait_timeout=600.0) as chats:

        @chats.subscribe("started")
        def start(session, event):
            with pytest.raises(
                PoolFull, match="1 start of this pool is under way and waits in a handler for this one; s"
            ):
                chats.start_chat(nickname="Next")
            errors.append(session)

        chat = chats.start_chat(nickname="Ann")
        assert errors == [chat]


def test_starts_that_wait_for_one_another_do_not_hang(wire, in_threads):
    inside, errors = threading.Barrier(2, timeout=LONG), []
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, max_starts=2, wait_timeout=600.0) as chats:

        @chats.subscribe("started")
        def start(session, event):
            if len(chats.sessions()) <= 2:
                inside.wait()
                try:
                    chats.start_chat(nickname="Next")
                except PoolFull as full:
                    errors.append((full.nested, full.waited))

        for thread in in_threads(*[lambda: chats.start_chat(nickname="Ann")] * 2):
            thread.join(LONG)
        assert errors == [(True, 0.0)]
        assert len(chats.sessions()) == 3


def test_start_in_a_handler_with_room_begins(wire):
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, max_starts=2) as chats:

        @chats.subscribe("started")
        def start(session, event):
            if len(chats.sessions()) == 1:
                chats.start_chat(nickname="Next")

        chats.start_chat(nickname="Ann")
        assert len(chats.sessions()) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"max_starts": 0},
        {"max_connections": 0},
        {"on_full": "drop"},
        {"wait_timeout": -1},
        {"wait_timeout": float("nan")},
    ],
)
def test_number_or_policy_out_of_range_is_refused(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
        SessionPool({"dataURL": "http://chat.test/x"}, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"driver": ThreadDriver},
        {"store": MemoryStore()},
        {"http": object()},
        {"recorder": "a.jsonl"},
        {"max_starts": "8"},
        {"max_starts": 1.5},
        {"max_connections": True},
        {"max_connections": None},
        {"wait_timeout": "x"},
        {"wait_timeout": None},
    ],
)
def test_argument_of_the_wrong_type_is_refused(given):
    with pytest.raises(TypeError, match=f"{next(iter(given))} must be"):
        SessionPool({"dataURL": "http://chat.test/x"}, **given)


def test_infinite_wait_for_a_start_is_allowed(wire):
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, wait_timeout=float("inf")) as chats:
        assert chats.start_chat(nickname="Ann").state == "polling"


@pytest.mark.parametrize("name", ["store", "http", "recorder"])
@pytest.mark.parametrize(("made", "says"), [(None, "must return one for each session"), (5, "must be")])
def test_factory_that_makes_the_wrong_thing_is_refused(name, made, says):
    with SessionPool({"dataURL": "http://chat.test/x"}, **{name: lambda: made}) as chats:
        with pytest.raises(TypeError, match=f"{name} {says}"):
            chats.start_chat(nickname="Ann")
        assert chats.health().starting == 0


def test_driver_that_is_false_is_used(wire):
    class Empty(ManualDriver):
        def __len__(self):
            return 0

    driver = Empty()
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, driver=driver) as chats:
        chat = chats.start_chat(nickname="Ann")
        assert driver.services == (chat._engine,)
    with WebChatService({"dataURL": "http://chat.test/x"}, http=wire(), driver=driver) as chat:
        assert driver.services == (chat._engine,)


def test_recorder_factory_records_each_session(pool, tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    made = iter(paths)
    chats = pool(recorder=lambda: Recorder(next(made)))
    for name in ("Ann", "Bob"):
        chats.start_chat(nickname=name).end_chat()
    chats.close()
    for path in paths:
        recording = Recording.read(path)
        assert [event.name for event in recording.events][-1] == "ended"
        assert replay(recording).check().events == recording.events


def test_invalid_configuration_is_refused_by_the_pool():
    with pytest.raises(ConfigError):
        SessionPool({"dataURL": 5})


# -- stores ------------------------------------------------------------------------------------------------------------


def test_store_factory_makes_a_store_for_each_session(pool, tmp_path):
    paths = iter([tmp_path / "a.json", tmp_path / "b.json"])
    chats = pool(store=lambda: FileStore(next(paths)))
    chats.start_chat(nickname="Ann")
    chats.start_chat(nickname="Bob")
    chats.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_store_of_a_start_replaces_that_of_the_factory(pool, tmp_path):
    chats = pool(store=lambda: pytest.fail("the factory was called"))
    chats.start_chat(nickname="Ann", store=FileStore(tmp_path / "own.json"))
    chats.close()
    assert [one.name for one in tmp_path.iterdir()] == ["own.json"]


def test_saved_chat_is_restored_by_another_pool(pool):
    store, before = MemoryStore(), pool()
    chat = before.start_chat(nickname="Ann", store=store)
    known = chat.get_session_data().session_id
    before.close()
    chats = pool()
    restored = chats.restore_chat(store)
    assert restored.get_session_data().session_id == known
    assert chats.sessions() == (restored,)


def test_empty_store_restores_no_session(pool):
    chats = pool()
    assert chats.restore_chat(MemoryStore()) is None
    assert (chats.sessions(), chats.health().starting) == ((), 0)


def test_start_on_a_store_with_a_chat_is_rejected(pool):
    store, before = MemoryStore(), pool()
    before.start_chat(nickname="Ann", store=store)
    before.close()
    chats = pool()
    with pytest.raises(CommandRejected, match=r"; the store holds a chat: use restore_chat\(store\)$"):
        chats.start_chat(nickname="Ann", store=store)
    assert chats.sessions() == ()
    assert chats.restore_chat(store) is not None


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_store_of_an_open_session_is_refused(pool, tmp_path, kind):
    memory = MemoryStore()

    def store():
        return memory if kind == "memory" else FileStore(tmp_path / "one.json")

    chats = pool(store=store)
    chat = chats.start_chat(nickname="Ann")
    for call in (
        lambda: chats.start_chat(nickname="Bob"),
        lambda: chats.start_chat(nickname="Bob", store=store()),
        lambda: chats.restore_chat(store()),
    ):
        with pytest.raises(
            StoreError, match=r"Store.*: an open session of this SessionPool uses this store already; c"
        ):
            call()
    assert chats.sessions() == (chat,)
    assert store().load() is not None


def test_store_is_free_once_its_session_is_closed(pool):
    chats, store = pool(), MemoryStore()
    first = chats.start_chat(nickname="Ann", store=store)
    first.close()
    second = chats.restore_chat(store)
    assert chats.sessions() == (second,)
    with pytest.raises(StoreError, match="uses this store already"):
        first.open()
    second.end_chat()
    third = chats.start_chat(nickname="Ann", store=store)
    assert chats.sessions() == (third,)


def test_ended_session_that_starts_again_holds_its_store(pool):
    chats, store = pool(), MemoryStore()
    chat = chats.start_chat(nickname="Ann", store=store)
    chat.end_chat()
    chat.start_chat(nickname="Ann")
    with pytest.raises(StoreError, match="uses this store already"):
        chats.restore_chat(store)


def test_restoring_without_a_store_is_refused(pool):
    with pytest.raises(TypeError, match="store must be a SessionStore"):
        pool().restore_chat(None)


def test_unreadable_store_raises_and_leaves_no_session(pool, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    chats = pool()
    with pytest.raises(StoreError):
        chats.restore_chat(FileStore(tmp_path / "bad.json"))
    assert chats.sessions() == ()


# -- sessions that end -------------------------------------------------------------------------------------------------


def test_ended_chat_leaves_and_still_has_its_transcript(pool, front, eventually):
    chats = pool()
    chat, other = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
    assert chat.send_message("hello").wait(LONG)
    chat.end_chat()
    assert chats.sessions() == (other,)
    assert "hello" in [message.text for message in chat.get_transcript().messages]


def test_chat_that_the_server_ends_leaves(pool, front, eventually):
    chats = pool()
    chat = chats.start_chat(nickname="Ann")
    front.server.end()
    eventually(lambda: chats.sessions() == ())
    assert chat.state == "ended"


def test_closed_session_leaves_and_returns_when_opened(pool):
    chats = pool()
    chat = chats.start_chat(nickname="Ann")
    chat.close()
    assert chats.sessions() == ()
    chat.open()
    assert chats.sessions() == (chat,)
    assert chat.state == "polling"


def test_ended_session_that_starts_again_polls(pool, eventually):
    chats = pool()
    chat = chats.start_chat(nickname="Ann")
    chat.end_chat()
    chat.start_chat(nickname="Ann")
    assert chats.sessions() == (chat,)
    assert chat.send_message("again").wait(LONG)  # it comes back by a poll alone


def test_driver_serves_no_session_that_has_ended(pool):
    driver = ThreadDriver()
    chats = pool(driver=driver)
    chats.start_chat(nickname="Ann").end_chat()
    assert "services=0" in repr(driver)
    chats.close()
    assert driver.close(SOON)


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_blocked_handler_of_one_session_delays_no_other(pool, in_threads, eventually):
    chats, gate, blocked = pool(), threading.Event(), threading.Event()
    sessions = [chats.start_chat(nickname=f"J{number}") for number in range(12)]

    @chats.subscribe("messageReceived")
    def block(session, event):
        if session is sessions[0]:
            blocked.set()
            gate.wait(LONG)

    try:
        in_threads(lambda: sessions[0].command("sendMessage", {"message": "held"}))
        assert blocked.wait(LONG)
        receipts = [session.send_message("free") for session in sessions[1:]]
        assert all(receipt.wait(LONG) for receipt in receipts)
    finally:
        gate.set()


def test_slow_server_for_half_delays_no_other_session(pool, held, front, eventually, stopwatch):
    driver = ThreadDriver()
    slow, quick = pool(held.url, driver=driver, config={"ajaxTimeout": 60_000}), pool(driver=driver)
    held.gate.set()
    for number in range(20):
        slow.start_chat(nickname=f"S{number}")
    held.gate.clear()
    eventually(lambda: slow.health().connections == 20)
    stopwatch.restart()
    sessions = [quick.start_chat(nickname=f"Q{number}") for number in range(20)]
    assert all(session.send_message("free").wait(LONG) for session in sessions)
    assert stopwatch.soon
    assert len(driver.threads) < 16
    assert slow.close(SOON)
    assert quick.close(SOON)
    assert driver.close(SOON)


def test_each_session_keeps_cookies_of_its_own(pool, peer, replies, wire):
    good = wire().send(type("R", (), {"operation": "start"})()).body
    numbers = iter(range(1, 100))

    def script(server, connection):
        while request := server.read(connection):
            cookie = {} if b"Cookie:" in request else {"Set_Cookie": f"id={next(numbers)}"}
            connection.sendall(replies.whole(good, **cookie))

    server = peer(script)
    chats = pool(server.url, config={"xhrFields": {"withCredentials": True}})
    first, second = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
    first.send_message("one")
    second.send_message("two")
    sent = {text: request for request in server.seen for text in (b"message=one", b"message=two") if text in request}
    assert b"Cookie: id=1" in sent[b"message=one"]
    assert b"Cookie: id=2" in sent[b"message=two"]


# -- shared connections ------------------------------------------------------------------------------------------------


def test_sessions_share_connections_of_their_pool(pool, peer, replies, wire):
    good = wire().send(type("R", (), {"operation": "start"})()).body
    server = peer(replies.repeating(replies.whole(good)))
    chats = pool(server.url, config={"pollRate": 60_000})
    for number in range(10):
        chats.start_chat(nickname=f"J{number}")
    assert server.connections <= 6  # one for each worker, and one for the starts


def test_connections_in_use_never_exceed_their_bound(pool, held, in_threads, eventually):
    chats = pool(held.url, max_connections=2, max_starts=8, config={"ajaxTimeout": 60_000})
    threads = in_threads(*[lambda: chats.start_chat(nickname="Ann")] * 6)
    eventually(lambda: chats.health().waiting == 4)
    assert chats.health().connections == 2
    eventually(lambda: held.connections == 2)
    held.gate.set()
    for thread in threads:
        thread.join(LONG)
    assert [one.state for one in chats.sessions()] == ["polling"] * 6
    assert held.connections <= 2


def test_poll_that_waits_for_a_connection_takes_no_thread(pool, held, eventually):
    driver = ThreadDriver()
    chats = pool(held.url, driver=driver, max_connections=2, config={"ajaxTimeout": 60_000})
    held.gate.set()
    for number in range(30):
        chats.start_chat(nickname=f"J{number}")
    held.gate.clear()
    eventually(lambda: (chats.health().connections, chats.health().waiting) == (2, 28))
    assert len(driver.threads) <= 5
    polls = len(held.seen)
    held.gate.set()
    eventually(lambda: len(held.seen) > polls + 60)  # all go on
    assert held.connections <= 2
    held.gate.clear()
    eventually(lambda: chats.health().waiting == 28)
    assert chats.close(SOON)  # those that wait end too
    assert driver.close(SOON)


def test_request_without_a_free_connection_fails_in_time(held, ask, in_threads, eventually, caplog):
    config = Config.read({"dataURL": held.url})
    shared = SharedConnections(config, 1)
    first, second = SharedHttp(config, shared), SharedHttp(config, shared)
    in_threads(lambda: first.send(ask(held.url, timeout=LONG)))
    eventually(lambda: shared.in_use == 1)
    with pytest.raises(TransportError, match=r"no connection to 127\.0\.0\.1 was free within 0\.1 s, as all 1 are in"):
        second.send(ask(held.url, timeout=0.1))
    assert (shared.in_use, shared.waiting, second.waiting) == (1, 0, set())
    assert "all 1 connections to 127.0.0.1 are in use" in caplog.text
    assert "over CometD to more than twice the number of its sessions" in caplog.text
    held.gate.set()
    eventually(lambda: shared.in_use == 0)
    assert second.send(ask(held.url)).good
    shared.idle.close()


def test_cut_ends_what_waits_for_a_connection(held, ask, in_threads, eventually):
    config, errors = Config.read({"dataURL": held.url}), []
    shared = SharedConnections(config, 1)
    first, second = SharedHttp(config, shared), SharedHttp(config, shared)

    def send():
        with pytest.raises(TransportError) as cut:
            second.send(ask(held.url, timeout=LONG))
        errors.append(cut.value)

    in_threads(lambda: first.send(ask(held.url, timeout=LONG)))
    eventually(lambda: shared.in_use == 1)
    thread = in_threads(send)[0]
    eventually(lambda: shared.waiting == 1)
    second.cut()
    thread.join(LONG)
    assert len(errors) == 1
    assert (shared.in_use, shared.waiting) == (1, 0)
    held.gate.set()
    eventually(lambda: shared.in_use == 0)
    shared.idle.close()


def test_close_of_one_session_cuts_no_other(pool, held, in_threads, eventually):
    chats, results = pool(held.url, config={"ajaxTimeout": 60_000}), []
    held.gate.set()
    first, second = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
    held.gate.clear()
    eventually(lambda: chats.health().connections == 2)
    in_threads(lambda: results.append(second.send_message("kept").status))
    eventually(lambda: any(b"message=kept" in request for request in held.seen))
    assert first.close(SOON)
    held.gate.set()
    eventually(lambda: results == ["sent"])
    assert second.health().failures == 0


def test_websocket_sessions_of_a_pool_chat(front, eventually):
    comet = {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url, "websocketEnabled": True}
    with SessionPool({"cometD": comet}) as chats:
        sessions = [chats.start_chat(nickname=name) for name in ("Ann", "Bob")]
        assert all(session.send_message("hi").wait(LONG) for session in sessions)


# -- events ------------------------------------------------------------------------------------------------------------


def test_handler_is_given_the_session_with_each_event(pool):
    chats, heard = pool(), []
    chats.subscribe("started", lambda session, event: heard.append((session, event.name)))
    first = chats.start_chat(nickname="Ann")

    @chats.subscribe("ended")
    def ended(session, event):
        heard.append((session, event.name))

    second = chats.start_chat(nickname="Bob")
    first.end_chat()
    assert heard == [(first, "started"), (second, "started"), (first, "ended")]


def test_ready_is_delivered_for_sessions_open_before(pool):
    chats, heard = pool(), []
    chat = chats.start_chat(nickname="Ann")
    for _ in range(2):
        chats.subscribe("ready", lambda session, event: heard.append(session))
    assert heard == [chat, chat]


def test_cancelled_handler_is_called_for_no_session(pool):
    chats, heard = pool(), []
    subscription = chats.subscribe("ended", lambda session, event: heard.append(session))
    first, second = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
    first.end_chat()
    subscription.cancel()
    subscription.cancel()
    second.end_chat()
    chats.start_chat(nickname="Cid").end_chat()
    assert heard == [first]


def test_failing_handler_is_logged_by_its_name(pool, caplog):
    def fails(session, event):
        raise RuntimeError("mine")

    chats, heard = pool(), []
    chats.subscribe("started", fails)
    chats.subscribe("started", lambda session, event: heard.append(session))
    chat = chats.start_chat(nickname="Ann")
    assert heard == [chat]
    assert "test_failing_handler_is_logged_by_its_name.<locals>.fails of started failed" in caplog.text


def test_unknown_event_or_handler_is_refused(pool):
    with pytest.raises(ValueError, match="did you mean 'started'"):
        pool().subscribe("startd", print)
    with pytest.raises(TypeError, match="a handler must be callable, not int"):
        pool().subscribe("started", 5)


def test_handler_may_start_and_end_chats_of_its_pool(pool):
    chats, followers = pool(), []

    @chats.subscribe("ended")
    def follow(session, event):
        if not followers:
            followers.append(chats.start_chat(nickname="Next"))

    chats.start_chat(nickname="Ann").end_chat()
    assert chats.sessions() == tuple(followers)


# -- condition ---------------------------------------------------------------------------------------------------------


def test_health_adds_up_all_sessions(pool, front):
    chats = pool()
    for name in ("Ann", "Bob"):
        chats.start_chat(nickname=name)
    health = chats.health()
    assert (health.sessions, health.states, health.starting) == (2, {"polling": 2}, 0)
    assert (health.failing, health.stalled, health.unsaved, health.defects) == (0, 0, 0, 0)
    assert "webchat-fsm-time" in health.threads


def test_health_counts_sessions_whose_polls_fail(pool, eventually):
    with HttpFront(ChatServer()) as server:
        chats = pool(server.data_url(), config={"pollExceptionLimit": 100})
        for name in ("Ann", "Bob"):
            chats.start_chat(nickname=name)
    eventually(lambda: chats.health().failing == 2)


def test_session_of_a_pool_shows_what_a_service_shows(pool, front):
    chats = pool()
    subscription = chats.subscribe("ended", print)

    def shown(thing):
        return {name for name in dir(thing) if not name.startswith("_")}

    assert shown(chats.start_chat(nickname="Ann")) == shown(WebChatService({"dataURL": front.data_url()}))
    assert shown(subscription) == {"cancel", "event", "handler"}


def test_repr_shows_the_numbers_and_no_secret(pool):
    chats = pool()
    chats.start_chat(nickname="Ann")
    subscription = chats.subscribe("ended", print)
    assert repr(chats) == "<SessionPool sessions=1 starting=0>"
    assert repr(subscription) == "PoolSubscription('ended', print)"
    chats.close()
    assert repr(chats) == "<SessionPool sessions=0 starting=0 closed>"


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_a_pool_raises_type_error(pool, way):
    chats = pool()
    for one in (chats, chats.start_chat(nickname="Ann"), chats.subscribe("ended", print)):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            way(one)


# -- closing -----------------------------------------------------------------------------------------------------------


def test_close_ends_all_threads_and_keeps_the_chats(pool, front):
    chats = pool()
    sessions = [chats.start_chat(nickname=f"J{number}") for number in range(20)]
    assert chats.close(SOON)
    assert (chats.sessions(), chats.health().threads) == ((), ())
    assert {session.state for session in sessions} == {"idle"}
    assert not any(chat.ended for chat in front.server.chats)
    assert chats.close(SOON)


def test_closed_pool_starts_no_chat(pool):
    chats = pool()
    chat = chats.start_chat(nickname="Ann")
    chats.close()
    for call in (lambda: chats.start_chat(nickname="Bob"), chat.open, lambda: chats.restore_chat(MemoryStore())):
        with pytest.raises(WebChatError, match="this SessionPool is closed, and starts no chat; make another one"):
            call()
    for call in (lambda: chat.start_chat(nickname="Ann"), lambda: chat.command("startChat").result()):
        with pytest.raises(
            CommandRejected, match=r"; this SessionPool is closed, and starts no chat; make another one$"
        ):
            call()
    assert chats.health().threads == ()


def test_closed_session_of_an_open_pool_is_to_be_opened(pool):
    chat = pool().start_chat(nickname="Ann")
    chat.close()
    with pytest.raises(CommandRejected, match=r"; call open\(\) first$"):
        chat.start_chat(nickname="Ann")


def test_close_cuts_starts_and_those_that_wait(pool, held, in_threads, eventually, stopwatch):
    chats, errors = pool(held.url, max_starts=2, wait_timeout=LONG, config={"ajaxTimeout": 60_000}), []

    def start():
        with pytest.raises(WebChatError) as refused:
            chats.start_chat(nickname="Ann")
        errors.append(type(refused.value))

    threads = in_threads(*[start] * 5)
    eventually(lambda: chats.health().connections == 2)
    stopwatch.restart()
    assert chats.close(SOON)
    for thread in threads:
        thread.join(LONG)
    assert stopwatch.soon
    assert sorted(one.__name__ for one in errors) == ["CommandRejected"] * 2 + ["WebChatError"] * 3


def test_close_waits_for_one_blocked_handler_only_once(pool, in_threads, eventually, stopwatch):
    chats, gate, blocked = pool(), threading.Event(), []
    sessions = [chats.start_chat(nickname=f"J{number}") for number in range(10)]

    @chats.subscribe("messageReceived")
    def block(session, event):
        blocked.append(session)
        gate.wait(LONG)

    try:
        for session in sessions[:4]:
            in_threads(lambda session=session: session.command("sendMessage", {"message": "held"}))
        eventually(lambda: len(blocked) == 4)
        stopwatch.restart()
        assert not chats.close(0.3)
        assert stopwatch.soon
        assert {session.state for session in sessions} == {"idle"}
    finally:
        gate.set()


def test_close_inside_a_handler_ends_all_sessions(pool, eventually):
    chats, results = pool(), []
    sessions = [chats.start_chat(nickname=f"J{number}") for number in range(3)]
    chats.subscribe("ended", lambda session, event: results.append(chats.close(1.0)))
    sessions[0].end_chat()
    assert len(results) == 1
    assert {session.state for session in sessions[1:]} == {"idle"}
    assert chats.close(SOON)


def test_close_inside_a_handler_of_a_timer_ends_all(pool, front, eventually):
    chats, results = pool(), []
    sessions = [chats.start_chat(nickname=f"J{number}") for number in range(3)]
    chats.subscribe("agentConnected", lambda session, event: results.append(chats.close(1.0)))
    front.server.agent("Ann").join()
    eventually(lambda: results)
    eventually(lambda: {session.state for session in sessions} == {"idle"})
    assert chats.close(SOON)


def test_session_that_cannot_be_closed_keeps_no_other_open(wire, caplog):
    class Broken(wire):
        def close(self):
            raise RuntimeError("mine")

    kinds = iter([Broken, wire, wire])
    chats = SessionPool({"dataURL": "http://chat.test/x"}, http=lambda: next(kinds)())
    sessions = [chats.start_chat(nickname="Ann") for _ in range(3)]
    assert not chats.close(SOON)
    assert [session.state for session in sessions] == ["idle"] * 3
    assert chats.health().threads == ()
    assert "RuntimeError: mine" in caplog.text


def test_interrupted_close_is_completed_by_the_next(wire):
    class Interrupted(wire):
        def cut(self):
            self.cuts += 1
            if self.cuts == 1:
                raise KeyboardInterrupt

    chats = SessionPool({"dataURL": "http://chat.test/x"}, http=Interrupted)
    sessions = [chats.start_chat(nickname="Ann") for _ in range(2)]
    for _ in sessions:
        with pytest.raises(KeyboardInterrupt):
            chats.close(10.0)
    assert chats.close(SOON)
    assert [session.state for session in sessions] == ["idle"] * 2
    assert chats.health().threads == ()


def test_waiting_for_an_event_ends_as_the_pool_closes(pool, in_threads):
    chats, raised = pool(), []
    chat = chats.start_chat(nickname="Ann")

    def wait():
        with pytest.raises(ChatClosed) as closed:
            chat.wait_for("agentConnected", LONG)
        raised.append(closed)

    thread = in_threads(wait)[0]
    chats.close()
    thread.join(LONG)
    assert len(raised) == 1


def test_pool_on_a_driver_given_leaves_it_running(pool, front):
    driver = ThreadDriver()
    with WebChatService({"dataURL": front.data_url(), **FAST}, driver=driver) as own:
        own.start_chat(nickname="Own")
        chats = pool(driver=driver)
        chats.start_chat(nickname="Ann")
        assert chats.close(SOON)
        assert own.send_message("still here").wait(LONG)
    driver.close()


def test_pool_on_a_manual_driver_moves_by_hand(wire, by_hand):
    with SessionPool({"dataURL": "http://chat.test/x"}, http=wire, driver=by_hand) as chats:
        first, second = chats.start_chat(nickname="Ann"), chats.start_chat(nickname="Bob")
        assert isinstance(by_hand, ManualDriver)
        assert first.step()
        first.end_chat()
        assert by_hand.services == (second._engine,)
    assert by_hand.services == ()


FORKING = """
    import os
    from webchat_fsm import SessionPool
    pool = SessionPool({config!r})
    chats = [pool.start_chat(nickname='Ann') for _ in range(3)]
    child = os.fork()
    if not child:
        print(pool.sessions(), {{str(chat.state) for chat in chats}}, pool.health().idle_connections, flush=True)
        own = pool.start_chat(nickname='Bob')
        print(own.send_message('from the child').wait(60.0), pool.close(30.0), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(len(pool.sessions()), all(chat.send_message('here').wait(60.0) for chat in chats), pool.close(30.0))
"""


def test_forked_child_has_an_empty_pool_of_its_own(front):
    text = textwrap.dedent(FORKING.format(config={"dataURL": front.data_url(), **FAST}))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=LONG, env=env
    )
    assert (run.stdout, run.stderr) == ("() {'idle'} 0\nTrue True\n3 True True\n", "")
