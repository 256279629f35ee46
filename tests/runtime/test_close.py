"""Test `close()`: from any thread, in any state, with servers that do not answer."""

from __future__ import annotations

import io
import math
import threading
from functools import partial

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import ChatClosed, CommandRejected, MemoryStore, ThreadDriver, WebChatService
from webchat_fsm._runtime.delivery import ChatEvent
from webchat_fsm.testing import Recorder


@pytest.fixture
def hanging(peer, replies, wire):
    """Make a server that answers the start request and no later one."""
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def script(server, connection):
        while request := server.read(connection):
            if b"/chat-1/" in request.split(b"\r\n")[0] or server.hang_at_once:
                server.over.wait(LONG)
                return
            connection.sendall(replies.whole(good))

    server = peer(script)
    server.hang_at_once = False
    return server


@pytest.fixture
def chat(hanging):
    made = WebChatService({"dataURL": hanging.url, "ajaxTimeout": 60_000})
    made.open()
    yield made
    made.close()


def test_close_cancels_a_poll_the_server_does_not_answer(chat, hanging, eventually, stopwatch):
    chat.start_chat(nickname="Jonny")
    eventually(lambda: len(hanging.seen) == 2)
    assert chat.health().poll_in_flight is not None
    stopwatch.restart()
    assert chat.close(SOON)
    assert stopwatch.soon
    assert chat.health().threads == ()
    assert chat.state == "idle"


def test_close_rejects_a_start_on_another_thread(chat, hanging, in_threads, eventually, stopwatch):
    hanging.hang_at_once = True
    caught = []

    def start():
        with pytest.raises(CommandRejected) as rejected:
            chat.start_chat(nickname="Jonny")
        caught.append(rejected.value)

    (thread,) = in_threads(start)
    eventually(lambda: hanging.seen)
    stopwatch.restart()
    assert chat.close(SOON)
    thread.join(LONG)
    assert stopwatch.soon
    assert "cut, as the service was closed" in caught[0].reason
    assert chat.state == "idle"


def test_send_cancelled_by_close_is_not_retried(chat, hanging, in_threads, eventually):
    chat.start_chat(nickname="Jonny")
    caught = []

    def send():
        with pytest.raises(CommandRejected) as rejected:
            chat.send_message("once")
        caught.append(str(rejected.value.__cause__))

    (thread,) = in_threads(send)
    eventually(lambda: any(b"message=once" in request for request in hanging.seen))
    assert chat.close(SOON)
    thread.join(LONG)
    assert caught == ["send: cut, as the service was closed"]
    assert sum(b"message=once" in request for request in hanging.seen) == 1


def test_close_during_restore_keeps_the_saved_session(hanging, wire, service, in_threads, eventually):
    store = MemoryStore()
    good = {"dataURL": hanging.url}
    with service(wire(), store=store, config=good) as first:
        first.start_chat(nickname="Jonny")
    saved = store.load()
    assert saved is not None
    later = WebChatService({**good, "ajaxTimeout": 60_000}, store=store)
    (thread,) = in_threads(later.open)
    eventually(lambda: hanging.seen)
    assert later.state == "restoring"
    assert later.close(SOON)
    thread.join(LONG)
    assert not thread.is_alive()
    assert store.load() == saved
    assert later.state == "idle"


def test_closed_service_restores_its_chat_on_open(on_front, front):
    chat = on_front()
    for _ in range(5):
        chat.open()
        if chat.state == "idle":
            chat.start_chat(nickname="Jonny")
        assert chat.state == "polling"
        assert chat.close(SOON)
        assert chat.state == "idle"
    assert len(front.server.chats) == 1


def test_close_unopened_or_repeated_returns_true(wire, service):
    never = service(wire())
    assert never.close(SOON)
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        assert chat.close(SOON)
        assert chat.close(SOON)


def test_concurrent_closes_all_return_true(on_front, in_threads):
    for _ in range(10):
        chat = on_front()
        chat.open()
        chat.start_chat(nickname="Jonny")
        results, meet = [], threading.Barrier(6)

        def close(chat=chat, results=results, meet=meet):
            meet.wait()
            results.append((chat.close(SOON), chat.health().threads))

        in_threads(*[close] * 6, join=True)
        assert results == [(True, ())] * 6


def test_close_in_a_handler_returns_false_and_ends_later(wire, service, eventually):
    results, later = [], []
    chat = service(wire())
    chat.subscribe("pollingStarted", lambda event: results.append(chat.close(SOON)))
    chat.subscribe("pollingStarted", lambda event: later.append("another handler of the same event"))
    chat.subscribe("messageReceived", later.append)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert results == [False]
    assert later == []
    assert chat.state == "idle"
    eventually(lambda: chat.health().threads == ())
    assert chat.close(SOON)


def test_close_in_a_handler_on_a_worker_ends_the_worker(wire, service, v2_message, eventually, stopwatch):
    results = []
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(transport.count("refresh"), "hi")]}
    chat = service(transport)

    def handler(event):
        stopwatch.restart()
        results.append((chat.close(SOON), stopwatch.soon, threading.current_thread().name))

    chat.subscribe("messageReceived", handler)
    chat.open()
    chat.start_chat(nickname="Jonny")
    eventually(lambda: results)
    assert results == [(False, True, "webchat-fsm-worker")]
    eventually(lambda: chat.health().threads == ())


def test_close_in_a_preprocessor_returns_false(wire, service, v2_message, eventually):
    results, heard = [], []
    chat = service(wire(refresh=lambda request: {"messages": [v2_message(1, "hi")]}))
    chat.open()
    chat.register_pre_processor(lambda message: results.append(chat.close(SOON)))
    chat.subscribe("messageReceived", heard.append)
    chat.start_chat(nickname="Jonny")
    eventually(lambda: results)
    assert results == [False]
    eventually(lambda: chat.health().threads == ())
    assert heard == []


def test_close_with_a_blocked_handler_returns_false_in_time(wire, service, in_threads, stopwatch, by_hand):
    inside, gate, heard = threading.Event(), threading.Event(), []

    def block(event):
        inside.set()
        gate.wait(LONG)

    chat = service(wire(), driver=by_hand)
    chat.subscribe("started", block)
    chat.subscribe("started", heard.append)
    chat.open()
    in_threads(lambda: chat.start_chat(nickname="Jonny"))
    assert inside.wait(LONG)
    stopwatch.restart()
    assert not chat.close(timeout=0.3)
    assert stopwatch.soon
    gate.set()
    assert chat.close(SOON)
    assert heard == []


@pytest.mark.parametrize("way", ["a message", "a slow file"])
def test_send_in_preparation_is_not_sent_after_close(on_front, front, in_threads, monkeypatch, way):
    chat, reached, gate, outcomes = on_front(), threading.Event(), threading.Event(), []
    chat.open()
    chat.start_chat(nickname="Jonny")

    def hold():
        reached.set()
        gate.wait(LONG)

    class Slow(io.BytesIO):
        name = "a.txt"

        def read(self, *size):
            hold()
            return super().read(*size)

    if way == "a message":
        build = chat._engine.requests._dialect.request
        monkeypatch.setattr(
            type(chat._engine.requests._dialect),
            "request",
            lambda _, call: (call.operation.name == "send" and hold(), build(call))[1],
        )
        (thread,) = in_threads(lambda: outcomes.append(chat.command("sendMessage", {"message": "late"})))
    else:
        (thread,) = in_threads(lambda: outcomes.append(chat.command("sendFile", {"files": Slow(b"late")})))
    assert reached.wait(LONG)
    assert chat.close(SOON)
    gate.set()
    thread.join(LONG)
    assert [outcome.status for outcome in outcomes] == ["rejected"]
    assert not {"send", "file"} & {logged.operation for logged in front.server.requests}


class SlowStore(MemoryStore):
    """Block each save until the test sets the gate."""

    def __init__(self):
        super().__init__()
        self.slow, self.inside, self.gate, self.written = False, threading.Event(), threading.Event(), []

    def save(self, document):
        if self.slow:
            self.inside.set()
            self.gate.wait(LONG)
        self.written.append(document)
        super().save(document)


def test_close_with_a_blocked_store_returns_in_time(wire, service, v2_message, stopwatch):
    transport, store = wire(), SlowStore()
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(transport.count("refresh"), "hi")]}
    chat = service(transport, store=store)
    chat.open()
    chat.start_chat(nickname="Jonny")
    store.slow = True
    assert store.inside.wait(LONG)
    stopwatch.restart()
    assert not chat.close(timeout=0.3)
    assert stopwatch.soon
    store.gate.set()
    assert chat.close(SOON)
    assert store.load() == chat._engine.session.saved
    assert store.load().last_contact == max(document.last_contact for document in store.written)


def test_close_leaves_its_save_to_the_saving_thread(wire, service, in_threads, by_hand):
    store = SlowStore()
    chat = service(wire(), store=store, driver=by_hand)
    chat.open()
    chat.start_chat(nickname="Jonny")
    by_hand.clock.sleep_until(by_hand.clock.timer() + 5.0)  # else the poll would have nothing to save
    store.slow = True
    (polling,) = in_threads(by_hand.run_due)
    assert store.inside.wait(LONG)
    by_hand.clock.sleep_until(by_hand.clock.timer() + 60.0)
    assert not chat.close(timeout=0.0)
    store.gate.set()
    polling.join(LONG)
    assert store.load().last_contact == by_hand.clock.wall()
    assert chat.close(SOON)


class SlowRecorder(Recorder):
    """Block one method of the recorder until the test sets the gate."""

    def __init__(self, point: str):
        super().__init__()
        self.slow, self.inside, self.gate = False, threading.Event(), threading.Event()
        setattr(self, point, partial(self._blocked, getattr(self, point)))

    def _blocked(self, write, *given):
        if self.slow:
            self.inside.set()
            self.gate.wait(LONG)
        return write(*given)


@pytest.mark.parametrize("point", ["requested", "answered", "flush"])
def test_close_with_a_blocked_recorder_returns_in_time(wire, service, in_threads, by_hand, stopwatch, point):
    recorder = SlowRecorder(point)
    chat = service(wire(), driver=by_hand, recorder=recorder)
    chat.open()
    chat.start_chat(nickname="Jonny")
    recorder.slow = True
    (sending,) = in_threads(lambda: chat.command("sendMessage", {"message": "hi"}))
    assert recorder.inside.wait(LONG)
    stopwatch.restart()
    chat.close(timeout=0.3)
    assert stopwatch.soon
    recorder.gate.set()
    sending.join(LONG)
    assert chat.close(SOON)
    assert any(b'"closed":true' in line for line in recorder.lines)


@pytest.mark.parametrize(("events", "handlers"), [(100, 1), (1, 100)])
def test_close_calls_no_handler_after_its_timeout(wire, service, by_hand, stopwatch, events, handlers):
    heard = []
    chat = service(wire(), driver=by_hand)
    chat.open()
    chat.start_chat(nickname="Jonny")
    for _ in range(handlers):
        chat.subscribe("pollingStarted", lambda event: (heard.append(event), threading.Event().wait(0.2)))
    chat._engine.event_queue.put(
        *[ChatEvent("pollingStarted", None, 0.0)] * events
    )  # as if another thread had published and not yet delivered them
    stopwatch.restart()
    chat.close(timeout=0.3)
    assert stopwatch.soon
    assert len(heard) < 100
    count = len(heard)
    assert chat.close(SOON)
    assert len(heard) == count


def test_close_wakes_all_waiting_threads(on_front, in_threads, eventually):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    ended: list[str] = []

    def wait():
        with pytest.raises(ChatClosed):
            chat.wait_for("agentConnected", LONG)
        ended.append("wait_for")

    def read():
        for _ in chat.events():
            pass
        ended.append("events")

    threads = in_threads(wait, wait, read)
    assert chat.close(SOON)
    for thread in threads:
        thread.join(LONG)
    assert sorted(ended) == ["events", "wait_for", "wait_for"]


def test_nothing_is_published_after_close(wire, service, v2_message, in_threads, eventually):
    for _ in range(20):
        transport, heard = wire(), []
        transport.operations["refresh"] = lambda request, t=transport: {
            "messages": [v2_message(t.count("refresh"), "hi")]
        }
        chat = service(transport)
        chat.subscribe("messageReceived", heard.append)
        chat.open()
        chat.start_chat(nickname="Jonny")
        in_threads(*[lambda chat=chat: [chat.command("stopPoll"), chat.command("startPoll")] * 5] * 3)
        eventually(lambda heard=heard: heard)
        assert chat.close(SOON)
        count = len(heard)
        threading.Event().wait(0.01)
        assert len(heard) == count


def test_close_with_end_ends_the_chat_first(on_front, front):
    chat = on_front()
    heard = []
    chat.open()
    chat.subscribe("ended", lambda event: heard.append(event.name))
    chat.start_chat(nickname="Jonny")
    assert chat.close(SOON, end=True)
    assert heard == ["ended"]
    assert front.server.current_chat().ended
    chat.open()
    assert chat.state in ("idle", "ended")


def test_close_with_end_closes_despite_a_server_failure(wire, service, no_answer, caplog):
    chat = service(wire(disconnect=no_answer))
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert chat.close(SOON, end=True)
    assert "the chat is closed locally" in caplog.text


def test_after_close_commands_are_rejected_but_reads_work(on_front):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.wait_for("clientConnected", LONG)
    chat.close()
    assert chat.command("sendMessage", {"message": "hi"}).reason == "WebChatService is not ready"
    assert chat.command("getTranscript")
    assert chat.can("addPrefilter")


def test_shared_driver_is_reusable_after_close(wire, service):
    driver = ThreadDriver()
    chat = service(wire(), driver=driver)
    for _ in range(3):
        chat.open()
        if chat.state == "idle":
            chat.start_chat(nickname="Jonny")
        assert chat.close(SOON)
    assert driver.close(SOON)


def test_with_statement_closes_when_its_block_raises(wire, service):
    chat = service(wire())

    def fail():
        with chat:
            chat.start_chat(nickname="Jonny")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert chat.health().threads == ()
    assert chat.state == "idle"


def test_close_cancels_a_request_begun_during_its_first_cut(wire, service, in_threads, monkeypatch, stopwatch):
    """Cut twice: a request that had no socket at the first cut is cancelled by the second."""
    reached, cuts = threading.Event(), []
    freed = threading.Event()

    class Late(wire):
        def cut(self):
            cuts.append(reached.is_set())
            if len(cuts) > 1:
                freed.set()

    def refresh(request):
        reached.set()
        freed.wait(LONG)

    chat = service(Late(refresh=refresh))
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert reached.wait(LONG)
    stopwatch.restart()
    assert chat.close(SOON)
    assert stopwatch.soon
    assert len(cuts) == 2


class SlowToDetach(ThreadDriver):
    """Block `detach` until the test sets the gate, so that another thread runs in the middle of a close."""

    def __init__(self):
        super().__init__()
        self.detaching, self.gate = threading.Event(), threading.Event()

    def detach(self, service, timeout):
        self.detaching.set()
        self.gate.wait(LONG)
        return super().detach(service, timeout)


@pytest.mark.parametrize("timeout", [0.0, 2.0])
def test_open_during_close_results_in_a_polling_service(on_front, in_threads, laws, timeout):
    driver = SlowToDetach()
    chat = on_front(driver=driver)
    chat.open()
    chat.start_chat(nickname="Jonny")
    (closing,) = in_threads(lambda: chat.close(timeout))
    assert driver.detaching.wait(LONG)
    (opening,) = in_threads(chat.open)
    opening.join(0.2)
    driver.gate.set()
    for thread in (closing, opening):
        thread.join(LONG)
    assert chat.state == "polling"
    assert chat.send_message("still there?").wait(LONG)
    assert chat.close(SOON)
    assert driver.close(SOON)
    laws[id(chat)].broken.clear()  # the laws do not cover an open that overlaps a close


def test_concurrent_open_and_close_leave_no_half_open_service(on_front, in_threads, laws):
    chat = on_front(pollRateMax=100)
    chat.open()
    chat.start_chat(nickname="Jonny")
    opening = lambda: [chat.open() for _ in range(15)]  # noqa: E731
    closing = lambda: [chat.close(0.0) for _ in range(15)]  # noqa: E731
    in_threads(opening, closing, opening, closing, join=True)
    chat.open()
    assert chat.send_message("still there?").wait(LONG)
    laws[id(chat)].broken.clear()


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_close_accepts_an_unbounded_timeout(on_front, timeout):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert chat.close(timeout)
