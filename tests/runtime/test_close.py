"""Closing: from anywhere, at any time, whatever the server does."""

from __future__ import annotations

import io
import math
import threading
from functools import partial

import pytest

from webchat_fsm import ChatClosed, CommandRejected, MemoryStore, ThreadDriver, WebChatService
from webchat_fsm.runtime.delivery import ChatEvent
from webchat_fsm.testing import Recorder


@pytest.fixture
def hanging(peer, says, wire):
    """A server that answers the start, and then takes each request without ever answering it."""
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def talk(server, connection):
        while request := server.read(connection):
            if b"/chat-1/" in request.split(b"\r\n")[0] or server.hang_at_once:
                server.over.wait(30.0)
                return
            connection.sendall(says.whole(good))

    server = peer(talk)
    server.hang_at_once = False
    return server


@pytest.fixture
def chat(hanging):
    made = WebChatService({"dataURL": hanging.url, "ajaxTimeout": 30_000})
    made.open()
    yield made
    made.close()


def test_closing_cuts_the_poll_that_a_server_holds(chat, hanging, eventually, stopwatch):
    chat.start_chat(nickname="Jonny")
    eventually(lambda: len(hanging.seen) == 2)
    assert chat.health().poll_in_flight is not None
    stopwatch.restart()
    assert chat.close()
    assert stopwatch.soon
    assert chat.health().threads == ()
    assert chat.state == "idle"


def test_closing_cuts_a_start_on_another_thread_which_rejects(chat, hanging, in_threads, eventually, stopwatch):
    hanging.hang_at_once = True
    caught = []

    def start():
        with pytest.raises(CommandRejected) as rejected:
            chat.start_chat(nickname="Jonny")
        caught.append(rejected.value)

    (thread,) = in_threads(start)
    eventually(lambda: hanging.seen)
    stopwatch.restart()
    assert chat.close()
    thread.join(5.0)
    assert stopwatch.soon
    assert "cut, as the service was closed" in caught[0].reason
    assert chat.state == "idle"


def test_a_send_that_is_cut_says_so_and_is_not_repeated(chat, hanging, in_threads, eventually):
    chat.start_chat(nickname="Jonny")
    caught = []

    def send():
        with pytest.raises(CommandRejected) as rejected:
            chat.send_message("once")
        caught.append(str(rejected.value.__cause__))

    (thread,) = in_threads(send)
    eventually(lambda: any(b"message=once" in request for request in hanging.seen))
    assert chat.close()
    thread.join(5.0)
    assert caught == ["send: cut, as the service was closed"]
    assert sum(b"message=once" in request for request in hanging.seen) == 1


def test_closing_cuts_a_restore_on_another_thread_and_keeps_what_is_saved(
    hanging, wire, service, in_threads, eventually
):
    store = MemoryStore()
    good = {"dataURL": hanging.url}
    with service(wire(), store=store, config=good) as first:
        first.start_chat(nickname="Jonny")
    saved = store.load()
    assert saved is not None
    later = WebChatService({**good, "ajaxTimeout": 30_000}, store=store)
    (thread,) = in_threads(later.open)
    eventually(lambda: hanging.seen)
    assert later.state == "restoring"
    assert later.close()
    thread.join(5.0)
    assert not thread.is_alive()
    assert store.load() == saved
    assert later.state == "idle"


def test_a_closed_service_opens_again_and_restores(on_front, front):
    chat = on_front()
    for _ in range(5):
        chat.open()
        if chat.state == "idle":
            chat.start_chat(nickname="Jonny")
        assert chat.state == "polling"
        assert chat.close()
        assert chat.state == "idle"
    assert len(front.server.chats) == 1


def test_closing_twice_and_closing_what_was_never_opened_is_true(wire, service):
    never = service(wire())
    assert never.close()
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        assert chat.close()
        assert chat.close()


def test_many_threads_close_at_once_and_all_are_told_the_truth(on_front, in_threads):
    for _ in range(10):
        chat = on_front()
        chat.open()
        chat.start_chat(nickname="Jonny")
        said, meet = [], threading.Barrier(6)

        def close(chat=chat, said=said, meet=meet):
            meet.wait()
            said.append((chat.close(), chat.health().threads))

        in_threads(*[close] * 6, join=True)
        assert said == [(True, ())] * 6


def test_closing_inside_a_handler_is_false_and_the_rest_ends_as_the_handler_returns(wire, service, eventually):
    said, later = [], []
    chat = service(wire())
    chat.subscribe("pollingStarted", lambda event: said.append(chat.close()))
    chat.subscribe("pollingStarted", lambda event: later.append("another handler of the same event"))
    chat.subscribe("messageReceived", later.append)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert said == [False]
    assert later == []
    assert chat.state == "idle"
    eventually(lambda: chat.health().threads == ())
    assert chat.close()


def test_closing_inside_a_handler_on_a_worker_ends_that_worker_too(wire, service, said, eventually, stopwatch):
    told = []
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [said(transport.count("refresh"), "hi")]}
    chat = service(transport)

    def handler(event):
        stopwatch.restart()
        told.append((chat.close(), stopwatch.soon, threading.current_thread().name))

    chat.subscribe("messageReceived", handler)
    chat.open()
    chat.start_chat(nickname="Jonny")
    eventually(lambda: told)
    assert told == [(False, True, "webchat-fsm-worker")]
    eventually(lambda: chat.health().threads == ())


def test_closing_inside_a_preprocessor_is_false_too(wire, service, said, eventually):
    told, heard = [], []
    chat = service(wire(refresh=lambda request: {"messages": [said(1, "hi")]}))
    chat.open()
    chat.register_pre_processor(lambda message: told.append(chat.close()))
    chat.subscribe("messageReceived", heard.append)
    chat.start_chat(nickname="Jonny")
    eventually(lambda: told)
    assert told == [False]
    eventually(lambda: chat.health().threads == ())
    assert heard == []


def test_a_handler_that_blocks_keeps_close_for_its_timeout_at_most_and_close_is_false(
    wire, service, in_threads, stopwatch, by_hand
):
    inside, gate, heard = threading.Event(), threading.Event(), []

    def block(event):
        inside.set()
        gate.wait(10.0)

    chat = service(wire(), driver=by_hand)
    chat.subscribe("started", block)
    chat.subscribe("started", heard.append)
    chat.open()
    in_threads(lambda: chat.start_chat(nickname="Jonny"))
    assert inside.wait(5.0)
    stopwatch.restart()
    assert not chat.close(timeout=0.3)
    assert stopwatch.soon
    gate.set()
    assert chat.close()
    assert heard == []


@pytest.mark.parametrize("way", ["a message", "a slow file"])
def test_what_was_about_to_be_sent_is_not_sent_after_close(on_front, front, in_threads, monkeypatch, way):
    chat, reached, gate, outcomes = on_front(), threading.Event(), threading.Event(), []
    chat.open()
    chat.start_chat(nickname="Jonny")

    def hold():
        reached.set()
        gate.wait(10.0)

    class Slow(io.BytesIO):
        name = "a.txt"

        def read(self, *size):
            hold()
            return super().read(*size)

    if way == "a message":
        build = chat._engine._dialect.request
        monkeypatch.setattr(
            chat._engine._dialect, "request", lambda call: (call.operation == "send" and hold(), build(call))[1]
        )
        (thread,) = in_threads(lambda: outcomes.append(chat.command("sendMessage", {"message": "late"})))
    else:
        (thread,) = in_threads(lambda: outcomes.append(chat.command("sendFile", {"files": Slow(b"late")})))
    assert reached.wait(5.0)
    assert chat.close()
    gate.set()
    thread.join(5.0)
    assert [outcome.status for outcome in outcomes] == ["rejected"]
    assert not {"send", "file"} & {logged.operation for logged in front.server.requests}


class SlowStore(MemoryStore):
    """Keeps its writers for as long as the test likes."""

    def __init__(self):
        super().__init__()
        self.slow, self.inside, self.gate, self.written = False, threading.Event(), threading.Event(), []

    def save(self, document):
        if self.slow:
            self.inside.set()
            self.gate.wait(30.0)
        self.written.append(document)
        super().save(document)


def test_a_store_that_keeps_a_worker_keeps_close_for_its_timeout_at_most(wire, service, said, stopwatch):
    transport, store = wire(), SlowStore()
    transport.operations["refresh"] = lambda request: {"messages": [said(transport.count("refresh"), "hi")]}
    chat = service(transport, store=store)
    chat.open()
    chat.start_chat(nickname="Jonny")
    store.slow = True
    assert store.inside.wait(5.0)
    stopwatch.restart()
    assert not chat.close(timeout=0.3)
    assert stopwatch.soon
    store.gate.set()
    assert chat.close()
    assert store.load() == chat._engine.session.saved
    assert store.load().last_contact == max(document.last_contact for document in store.written)


def test_what_the_closing_thread_saves_is_left_to_a_thread_that_is_writing(wire, service, in_threads, by_hand):
    store = SlowStore()
    chat = service(wire(), store=store, driver=by_hand)
    chat.open()
    chat.start_chat(nickname="Jonny")
    store.slow = True
    (polling,) = in_threads(by_hand.run_due)
    assert store.inside.wait(5.0)
    by_hand.clock.sleep_until(by_hand.clock.timer() + 60.0)
    assert not chat.close(timeout=0.0)
    store.gate.set()
    polling.join(5.0)
    assert store.load().last_contact == by_hand.clock.wall()
    assert chat.close()


class SlowRecorder(Recorder):
    """Writes down nothing at one point until the test lets it."""

    def __init__(self, point: str):
        super().__init__()
        self.slow, self.inside, self.gate = False, threading.Event(), threading.Event()
        setattr(self, point, partial(self._slowly, getattr(self, point)))

    def _slowly(self, write, *given):
        if self.slow:
            self.inside.set()
            self.gate.wait(30.0)
        return write(*given)


@pytest.mark.parametrize("point", ["requested", "answered", "flush"])
def test_a_recorder_that_keeps_a_thread_does_not_keep_close(wire, service, in_threads, by_hand, stopwatch, point):
    recorder = SlowRecorder(point)
    chat = service(wire(), driver=by_hand, recorder=recorder)
    chat.open()
    chat.start_chat(nickname="Jonny")
    recorder.slow = True
    (sending,) = in_threads(lambda: chat.command("sendMessage", {"message": "hi"}))
    assert recorder.inside.wait(5.0)
    stopwatch.restart()
    chat.close(timeout=0.3)
    assert stopwatch.soon
    recorder.gate.set()
    sending.join(5.0)
    assert chat.close()
    assert any(b'"closed":true' in line for line in recorder.lines)


@pytest.mark.parametrize(("events", "handlers"), [(100, 1), (1, 100)])
def test_slow_handlers_in_the_closing_thread_are_no_longer_called_after_the_timeout(
    wire, service, by_hand, stopwatch, events, handlers
):
    heard = []
    chat = service(wire(), driver=by_hand)
    chat.open()
    chat.start_chat(nickname="Jonny")
    for _ in range(handlers):
        chat.subscribe("pollingStarted", lambda event: (heard.append(event), threading.Event().wait(0.2)))
    chat._engine.outbox.put(*[ChatEvent("pollingStarted", None, 0.0)] * events)  # of a thread that has not come to it
    stopwatch.restart()
    chat.close(timeout=0.3)
    assert stopwatch.soon
    assert 0 < len(heard) < 100
    count = len(heard)
    assert chat.close()
    assert len(heard) == count


def test_closing_wakes_everybody_who_waits(on_front, in_threads, eventually):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    ended: list[str] = []

    def wait():
        with pytest.raises(ChatClosed):
            chat.wait_for("agentConnected", 30.0)
        ended.append("wait_for")

    def read():
        for _ in chat.events():
            pass
        ended.append("events")

    threads = in_threads(wait, wait, read)
    assert chat.close()
    for thread in threads:
        thread.join(5.0)
    assert sorted(ended) == ["events", "wait_for", "wait_for"]


def test_nothing_is_heard_after_close_however_busy_the_chat_is(wire, service, said, in_threads, eventually):
    for _ in range(20):
        transport, heard = wire(), []
        transport.operations["refresh"] = lambda request, t=transport: {"messages": [said(t.count("refresh"), "hi")]}
        chat = service(transport)
        chat.subscribe("messageReceived", heard.append)
        chat.open()
        chat.start_chat(nickname="Jonny")
        in_threads(*[lambda chat=chat: [chat.command("stopPoll"), chat.command("startPoll")] * 5] * 3)
        eventually(lambda heard=heard: heard)
        assert chat.close()
        count = len(heard)
        threading.Event().wait(0.01)
        assert len(heard) == count


def test_end_true_ends_the_chat_first(on_front, front):
    chat = on_front()
    heard = []
    chat.open()
    chat.subscribe("ended", lambda event: heard.append(event.name))
    chat.start_chat(nickname="Jonny")
    assert chat.close(end=True)
    assert heard == ["ended"]
    assert front.server.current_chat().ended
    chat.open()
    assert chat.state in ("idle", "ended")


def test_end_true_closes_also_where_the_server_does_not_let_the_chat_end(wire, service, no_answer, caplog):
    chat = service(wire(disconnect=no_answer))
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert chat.close(end=True)
    assert "its server said otherwise" in caplog.text


def test_commands_after_close_are_refused_and_readings_still_work(on_front):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.wait_for("clientConnected", 5.0)
    chat.close()
    assert chat.command("sendMessage", {"message": "hi"}).reason == "WebChatService is not ready"
    assert chat.command("getTranscript")
    assert chat.can("addPrefilter")


def test_a_closed_service_gives_its_shared_driver_back_unharmed(wire, service):
    driver = ThreadDriver()
    chat = service(wire(), driver=driver)
    for _ in range(3):
        chat.open()
        if chat.state == "idle":
            chat.start_chat(nickname="Jonny")
        assert chat.close()
    assert driver.close()


def test_with_closes_also_when_its_block_fails(wire, service):
    chat = service(wire())

    def fail():
        with chat:
            chat.start_chat(nickname="Jonny")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert chat.health().threads == ()
    assert chat.state == "idle"


def test_a_request_begun_just_as_close_cuts_does_not_hold_it(wire, service, in_threads, monkeypatch, stopwatch):
    """The second cut catches what had not reached its socket at the first."""
    reached, cuts = threading.Event(), []
    freed = threading.Event()

    class Late(wire):
        def cut(self):
            cuts.append(reached.is_set())
            if len(cuts) > 1:
                freed.set()

    def refresh(request):
        reached.set()
        freed.wait(10.0)

    chat = service(Late(refresh=refresh))
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert reached.wait(5.0)
    stopwatch.restart()
    assert chat.close()
    assert stopwatch.soon
    assert len(cuts) == 2


class SlowToDetach(ThreadDriver):
    """Lets another thread in between what a close() decides and what it does."""

    def __init__(self):
        super().__init__()
        self.detaching, self.gate = threading.Event(), threading.Event()

    def detach(self, service, timeout):
        self.detaching.set()
        self.gate.wait(5.0)
        return super().detach(service, timeout)


@pytest.mark.parametrize("timeout", [0.0, 2.0])
def test_whoever_opens_while_another_thread_closes_has_a_service_that_polls(on_front, in_threads, laws, timeout):
    driver = SlowToDetach()
    chat = on_front(driver=driver)
    chat.open()
    chat.start_chat(nickname="Jonny")
    (closing,) = in_threads(lambda: chat.close(timeout))
    assert driver.detaching.wait(5.0)
    (opening,) = in_threads(chat.open)
    opening.join(0.2)
    driver.gate.set()
    for thread in (closing, opening):
        thread.join(5.0)
    assert chat.state == "polling"
    assert chat.send_message("still there?").wait(5.0)
    assert chat.close()
    assert driver.close()
    laws[id(chat)].broken.clear()  # the watcher cannot tell an opening that overlaps a closing


def test_threads_that_open_and_close_at_once_leave_no_half_open_service(on_front, in_threads, laws):
    chat = on_front(pollRateMax=100)
    chat.open()
    chat.start_chat(nickname="Jonny")
    opening = lambda: [chat.open() for _ in range(15)]  # noqa: E731
    closing = lambda: [chat.close(0.0) for _ in range(15)]  # noqa: E731
    in_threads(opening, closing, opening, closing, join=True)
    chat.open()
    assert chat.send_message("still there?").wait(5.0)
    laws[id(chat)].broken.clear()


@pytest.mark.parametrize("timeout", [math.inf, 1e300])
def test_closing_takes_any_timeout(on_front, timeout):
    chat = on_front()
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert chat.close(timeout)
