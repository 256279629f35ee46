"""Test that events are delivered in the order of publication, by one thread at a time, with no lock held."""

from __future__ import annotations

import threading
import time

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import WebChatService
from webchat_fsm._runtime.delivery import ChatEvent, EventQueue


@pytest.fixture
def chat(wire, service, by_hand):
    with service(wire(), driver=by_hand) as opened:
        yield opened


@pytest.fixture
def numbered():
    """Make an event queue and the list of what it has delivered; fail when two threads deliver at once."""
    delivered: list[int] = []
    inside = threading.Lock()

    def deliver(event):
        assert inside.acquire(blocking=False), "two threads deliver at once"
        delivered.append(event.data)
        inside.release()

    return EventQueue(deliver, timeout=LONG), delivered


def test_events_of_many_threads_keep_their_order(numbered, in_threads):
    event_queue, delivered = numbered
    order: list[int] = []
    lock = threading.Lock()  # stands for the lock of the session: numbering and publishing are one step

    def publish():
        for _ in range(500):
            with lock:
                order.append(len(order))
                event_queue.put(ChatEvent("x", order[-1], 0.0))
            event_queue.drain(wait=len(order) % 2 == 0)

    in_threads(*[publish] * 8, join=True)
    assert event_queue.drain()
    assert delivered == order == list(range(4000))


def test_drain_returns_after_all_earlier_events(numbered, in_threads):
    event_queue, delivered = numbered
    missed: list[int] = []

    def publish(start):
        for number in range(start, start + 300):
            event_queue.put(ChatEvent("x", number, 0.0))
            event_queue.drain()
            if number not in delivered:
                missed.append(number)

    in_threads(*[lambda start=start: publish(start) for start in (0, 1000, 2000, 3000)], join=True)
    assert missed == []


def test_only_the_latest_ten_thousand_events_are_kept():
    event_queue = EventQueue(lambda event: None, timeout=LONG)
    for number in range(10_500):
        event_queue.put(ChatEvent("x", number, 0.0))
    event_queue.drain()
    kept = event_queue.after(0)
    assert len(kept) == 10_000
    assert kept[0][1].data == 500


def test_close_during_a_delivery_leaves_nothing_pending():
    event_queue = EventQueue(lambda event: event_queue.close(), timeout=LONG)
    event_queue.put(*(ChatEvent("x", number, 0.0) for number in range(3)))
    event_queue.drain()
    assert not event_queue.pending
    event_queue.reopen()
    assert not event_queue.pending


def test_handlers_run_in_the_order_of_subscription(chat):
    seen: list[str] = []
    for name in "abc":
        chat.subscribe("started", lambda event, name=name: seen.append(name))
    chat.start_chat(nickname="Jonny")
    assert seen == ["a", "b", "c"]


def test_subscribe_without_a_handler_is_a_decorator(chat):
    seen: list[str] = []

    @chat.subscribe("started")
    def handler(event):
        seen.append(event.name)

    chat.start_chat(nickname="Jonny")
    handler(type("Event", (), {"name": "called by hand"}))
    assert seen == ["started", "called by hand"]


def test_handler_cancelled_during_an_event_does_not_get_it(chat):
    seen: list[str] = []

    def first(event):
        second.cancel()
        seen.append("first")

    chat.subscribe("started", first)
    second = chat.subscribe("started", lambda event: seen.append("second"))
    once = chat.subscribe("pollingStarted", lambda event: once.cancel() or seen.append("once"))
    chat.start_chat(nickname="Jonny")
    chat.stop_poll()
    chat.start_poll()
    second.cancel()
    assert seen == ["first", "once"]


def test_subscription_in_a_handler_starts_with_next_event(chat):
    seen: list[str] = []

    def first(event):
        chat.subscribe("pollingStarted", lambda event: seen.append("late"))

    chat.subscribe("pollingStarted", first)
    chat.start_chat(nickname="Jonny")
    assert seen == []
    chat.stop_poll()
    chat.start_poll()
    assert seen == ["late"]


def test_ready_is_replayed_to_late_subscribers_once(chat):
    seen: list[str] = []
    chat.subscribe("ready", lambda event: seen.append(event.name))
    chat.start_chat(nickname="Jonny")
    assert seen == ["ready"]
    chat.close()
    chat.subscribe("ready", lambda event: seen.append("again"))
    assert seen == ["ready"]
    chat.open()
    assert seen == ["ready", "ready", "again"]


def test_ready_reaches_a_concurrent_subscriber_once(wire, service, in_threads):
    for _ in range(30):
        chat = service(wire())
        counts = [[0] for _ in range(4)]
        barrier = threading.Barrier(5)

        def listen(count, chat=chat, barrier=barrier):
            barrier.wait()
            chat.subscribe("ready", lambda event: count.__setitem__(0, count[0] + 1))

        def go(chat=chat, barrier=barrier):
            barrier.wait()
            chat.open()

        in_threads(go, *[lambda count=count, listen=listen: listen(count) for count in counts], join=True)
        chat.close()
        assert counts == [[1]] * 4


def test_handler_exception_is_logged_and_reported(wire, service, by_hand, caplog):
    reported: list[tuple[str, str]] = []

    def on_error(error, event):
        reported.append((str(error), event.name))
        raise RuntimeError("the reporter is broken too")

    def broken_handler(event):
        raise ValueError("broken")

    seen: list[str] = []
    with service(wire(), config={"client": {"onHandlerError": on_error}}, driver=by_hand) as chat:
        chat.subscribe("started", broken_handler)
        chat.subscribe("started", lambda event: seen.append(event.name))
        chat.subscribe("error", lambda event: seen.append(event.name))
        assert chat.command("startChat", {"nickname": "Jonny"})
    assert seen == ["started"]
    assert reported == [("broken", "started")]
    assert "broken_handler of started failed" in caplog.text
    assert "client.onHandlerError failed" in caplog.text


def test_no_lock_is_held_while_a_handler_runs(wire, service, in_threads):
    """Use the chat from a second thread as well: the handler's own thread could re-enter a lock that it holds."""
    done: list[str] = []
    with service(wire(), config={"client": {"deliveryTimeout": 50}}) as chat:

        def use():
            chat.can("endChat")
            chat.legal_commands()
            chat.health()
            chat.subscribe("ended", lambda event: None).cancel()
            chat.command("getTranscript")
            chat.command("updateUserData", {"a": "b"})
            done.append(threading.current_thread().name)

        def handler(event):
            use()
            (thread,) = in_threads(use)
            thread.join(LONG)
            assert not thread.is_alive()

        chat.subscribe("started", handler)
        chat.start_chat(nickname="Jonny")
    assert len(done) == 2


def test_reopening_in_a_handler_cancels_the_current_event(wire, service, by_hand):
    seen: list[str] = []
    with service(wire(), driver=by_hand) as chat:

        def again(event):
            chat.close()
            chat.open()

        once = chat.subscribe("started", lambda event: (once.cancel(), again(event)))
        chat.subscribe("started", lambda event: seen.append(event.name))
        chat.subscribe("restored", lambda event: seen.append(event.name))
        chat.start_chat(nickname="Jonny")
        assert seen == ["restored"]
        assert chat.state == "polling"


def test_command_inside_a_handler_settles_before_its_events(chat):
    seen: list[str] = []

    def end(event):
        assert chat.command("stopPoll")
        assert chat.state == "active"
        assert chat.command("endChat")
        assert chat.state == "ended"
        seen.append("handled")

    chat.subscribe("pollingStarted", end)
    for name in ("pollingStopped", "clientDisconnected", "ended"):
        chat.subscribe(name, lambda event: seen.append(event.name))
    chat.start_chat(nickname="Jonny")
    assert seen == ["handled", "pollingStopped", "clientDisconnected", "ended"]


def test_command_waits_at_most_delivery_timeout_for_a_handler(wire, service, in_threads, eventually, caplog, stopwatch):
    gate, inside, seen = threading.Event(), threading.Event(), []

    def blocking_handler(event):
        inside.set()
        gate.wait(LONG)
        seen.append(event.name)

    with service(wire(), config={"client": {"deliveryTimeout": 200}}) as chat:
        chat.subscribe("started", blocking_handler)
        chat.subscribe("pollingStopped", lambda event: seen.append(event.name))
        in_threads(lambda: chat.start_chat(nickname="Jonny"))
        assert inside.wait(LONG)
        stopwatch.restart()
        assert chat.command("stopPoll")
        assert stopwatch.seconds > 0.15
        assert stopwatch.soon
        assert seen == []
        assert "blocking_handler" in caplog.text
        gate.set()
        eventually(lambda: seen == ["started", "pollingStopped"])


def test_two_chats_commanding_each_other_do_not_deadlock(wire, service, in_threads, stopwatch):
    given = {"client": {"deliveryTimeout": 100}}
    one, two = service(wire(), config=given), service(wire(), config=given)
    for chat in (one, two):
        chat.open()
    meet = threading.Barrier(2)
    for chat, other in ((one, two), (two, one)):
        chat.subscribe("started", lambda event, other=other: (meet.wait(LONG), other.command("getTranscript")))
    stopwatch.restart()
    in_threads(*[lambda chat=chat: chat.start_chat(nickname="Jonny") for chat in (one, two)], join=True)
    assert stopwatch.soon


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_system_exit_in_a_handler_reaches_the_caller(wire, service, by_hand, error):
    seen: list[str] = []
    with service(wire(), driver=by_hand) as chat:

        def interrupted(event):
            raise error("now")

        subscription = chat.subscribe("started", interrupted)
        chat.subscribe("pollingStarted", lambda event: seen.append(event.name))
        with pytest.raises(error, match="now"):
            chat.start_chat(nickname="Jonny")
        assert chat.state == "polling"
        subscription.cancel()
        by_hand.run_due()
        assert seen == ["pollingStarted"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("event", ["connectionPending", "disconnected", "messageReceived"])
def test_handler_exception_on_a_worker_keeps_polling(wire, service, eventually, v2_message, no_answer, error, event):
    transport = wire()

    def refresh(request):
        polls = transport.count("refresh")
        return no_answer(request) if polls in (2, 3) else {"messages": [v2_message(polls, "hi")]}

    transport.operations["refresh"] = refresh

    def fail(event):
        if threading.current_thread() is not threading.main_thread():  # which may deliver too, as it closes
            raise error("broken")

    with service(transport) as chat:
        chat.subscribe(event, fail)
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 8)
        assert chat.state == "polling"


def test_interrupt_in_a_handler_before_a_poll_keeps_polling(wire, service, by_hand):
    """Deliver the pending event of another thread on the thread that is about to poll."""
    transport = wire()
    with service(transport, driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        chat._engine.event_queue.put(ChatEvent("pollingStarted", None, 0.0))

        def interrupted(event):
            raise KeyboardInterrupt

        subscription = chat.subscribe("pollingStarted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            by_hand.run_due()
        subscription.cancel()
        by_hand.wait(1.0)
        assert transport.count("refresh") >= 2


def test_ten_chats_in_threads_each_get_their_events_in_order(wire, service, v2_message, in_threads, eventually):
    chats: list[WebChatService] = []
    heard: list[list[int]] = []
    for _ in range(10):
        transport = wire()
        numbers = iter(range(1, 10_000))
        transport.operations["refresh"] = lambda request, numbers=numbers: {
            "messages": [v2_message(next(numbers), "one"), v2_message(next(numbers), "two")]
        }
        chat = service(transport)
        indexes: list[int] = []
        chat.subscribe(
            "messageReceived", lambda event, indexes=indexes: indexes.extend(one.index for one in event.data.messages)
        )
        chats.append(chat)
        heard.append(indexes)

    def run_chat(chat):
        chat.open()
        chat.start_chat(nickname="Jonny")
        for _ in range(20):
            chat.send_message("hi")
            time.sleep(0.001)

    in_threads(*[lambda chat=chat: run_chat(chat) for chat in chats], join=True)
    eventually(lambda: all(len(indexes) >= 4 for indexes in heard))
    for chat, indexes in zip(chats, heard, strict=True):
        assert chat.close(SOON)
        assert indexes == list(range(1, len(indexes) + 1))
