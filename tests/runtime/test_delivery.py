"""Events leave in the order of their publication, by one thread at a time, with no lock held."""

from __future__ import annotations

import threading
import time

import pytest

from webchat_fsm import WebChatService
from webchat_fsm.runtime.delivery import ChatEvent, Outbox


@pytest.fixture
def chat(wire, service, by_hand):
    with service(wire(), driver=by_hand) as opened:
        yield opened


@pytest.fixture
def numbered():
    """An outbox, what it has delivered, and the number of deliverers at a time, of which there may be one."""
    delivered: list[int] = []
    inside = threading.Lock()

    def deliver(event):
        assert inside.acquire(blocking=False), "two threads deliver at a time"
        delivered.append(event.data)
        inside.release()

    return Outbox(deliver, timeout=1.0), delivered


def test_events_of_many_threads_are_delivered_in_the_order_of_their_publication(numbered, in_threads):
    outbox, delivered = numbered
    order: list[int] = []
    lock = threading.Lock()  # as the session's lock does, it makes "the order of the decisions" a fact

    def publish():
        for _ in range(500):
            with lock:
                order.append(len(order))
                outbox.put(ChatEvent("x", order[-1], 0.0))
            outbox.drain(wait=len(order) % 2 == 0)

    in_threads(*[publish] * 8, join=True)
    assert outbox.drain()
    assert delivered == order == list(range(4000))


def test_drain_returns_when_what_was_put_before_has_been_delivered(numbered, in_threads):
    outbox, delivered = numbered
    missed: list[int] = []

    def publish(start):
        for number in range(start, start + 300):
            outbox.put(ChatEvent("x", number, 0.0))
            outbox.drain()
            if number not in delivered:
                missed.append(number)

    in_threads(*[lambda start=start: publish(start) for start in (0, 1000, 2000, 3000)], join=True)
    assert missed == []


def test_only_the_latest_ten_thousand_stay_readable():
    outbox = Outbox(lambda event: None, timeout=1.0)
    for number in range(10_500):
        outbox.put(ChatEvent("x", number, 0.0))
    outbox.drain()
    kept = outbox.after(0)
    assert len(kept) == 10_000
    assert kept[0][1].data == 500


def test_handlers_run_in_the_order_of_their_subscription(chat):
    seen: list[str] = []
    for name in "abc":
        chat.subscribe("started", lambda event, name=name: seen.append(name))
    chat.start_chat(nickname="Jonny")
    assert seen == ["a", "b", "c"]


def test_subscribe_is_a_decorator_too(chat):
    seen: list[str] = []

    @chat.subscribe("started")
    def handler(event):
        seen.append(event.name)

    chat.start_chat(nickname="Jonny")
    handler(type("Event", (), {"name": "called by hand"}))
    assert seen == ["started", "called by hand"]


def test_a_cancelled_handler_is_called_no_more_also_in_the_event_that_runs(chat):
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


def test_a_handler_that_subscribes_hears_from_the_next_event_on(chat):
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


def test_whoever_subscribes_to_ready_while_it_is_published_hears_it_once(wire, service, in_threads):
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


def test_a_handlers_exception_is_logged_with_its_name_reported_and_stops_nothing(wire, service, by_hand, caplog):
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
    """Another thread must be able to do everything while a handler runs, not only that handler's own."""
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
            thread.join(5.0)
            assert not thread.is_alive()

        chat.subscribe("started", handler)
        chat.start_chat(nickname="Jonny")
    assert len(done) == 2


def test_a_handler_that_closes_and_opens_again_keeps_the_old_event_from_those_after_it(wire, service, by_hand):
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


def test_commands_inside_a_handler_are_settled_and_their_events_follow(chat):
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


def test_a_command_waits_for_a_handler_on_another_thread_no_longer_than_it_may(
    wire, service, in_threads, eventually, caplog, stopwatch
):
    gate, inside, seen = threading.Event(), threading.Event(), []

    def blocking_handler(event):
        inside.set()
        gate.wait(30.0)
        seen.append(event.name)

    with service(wire(), config={"client": {"deliveryTimeout": 200}}) as chat:
        chat.subscribe("started", blocking_handler)
        chat.subscribe("pollingStopped", lambda event: seen.append(event.name))
        in_threads(lambda: chat.start_chat(nickname="Jonny"))
        assert inside.wait(5.0)
        stopwatch.restart()
        assert chat.command("stopPoll")
        assert stopwatch.seconds > 0.15
        assert stopwatch.soon
        assert seen == []
        assert "blocking_handler" in caplog.text
        gate.set()
        eventually(lambda: seen == ["started", "pollingStopped"])


def test_two_chats_whose_handlers_command_each_other_do_not_lock_up(wire, service, in_threads, stopwatch):
    given = {"client": {"deliveryTimeout": 100}}
    one, two = service(wire(), config=given), service(wire(), config=given)
    for chat in (one, two):
        chat.open()
    meet = threading.Barrier(2)
    for chat, other in ((one, two), (two, one)):
        chat.subscribe("started", lambda event, other=other: (meet.wait(30.0), other.command("getTranscript")))
    stopwatch.restart()
    in_threads(*[lambda chat=chat: chat.start_chat(nickname="Jonny") for chat in (one, two)], join=True)
    assert stopwatch.soon


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_goes_through_on_the_callers_thread_and_delivery_goes_on(wire, service, by_hand, error):
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
def test_whatever_a_handler_raises_on_a_worker_polling_goes_on(
    wire, service, eventually, said, no_answer, error, event
):
    transport = wire()

    def refresh(request):
        polls = transport.count("refresh")
        return no_answer(request) if polls in (2, 3) else {"messages": [said(polls, "hi")]}

    transport.operations["refresh"] = refresh

    def fail(event):
        raise error("broken")

    with service(transport) as chat:
        chat.subscribe(event, fail)
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 8)
        assert chat.state == "polling"


def test_what_ends_a_program_in_a_handler_before_a_poll_goes_out_does_not_end_the_polling(wire, service, by_hand):
    """An event of another thread may wait as a poll is about to go out; the thread of the poll delivers it."""
    transport = wire()
    with service(transport, driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        chat._engine.outbox.put(ChatEvent("pollingStarted", None, 0.0))

        def interrupted(event):
            raise KeyboardInterrupt

        subscription = chat.subscribe("pollingStarted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            by_hand.run_due()
        subscription.cancel()
        by_hand.wait(1.0)
        assert transport.count("refresh") >= 2


def test_ten_chats_in_threads_each_get_their_events_in_order(wire, service, said, in_threads, eventually):
    chats: list[WebChatService] = []
    heard: list[list[int]] = []
    for _ in range(10):
        transport = wire()
        numbers = iter(range(1, 10_000))
        transport.operations["refresh"] = lambda request, numbers=numbers: {
            "messages": [said(next(numbers), "one"), said(next(numbers), "two")]
        }
        chat = service(transport)
        indexes: list[int] = []
        chat.subscribe(
            "messageReceived", lambda event, indexes=indexes: indexes.extend(one.index for one in event.data.messages)
        )
        chats.append(chat)
        heard.append(indexes)

    def talk(chat):
        chat.open()
        chat.start_chat(nickname="Jonny")
        for _ in range(20):
            chat.send_message("hi")
            time.sleep(0.001)

    in_threads(*[lambda chat=chat: talk(chat) for chat in chats], join=True)
    eventually(lambda: all(len(indexes) >= 4 for indexes in heard))
    for chat, indexes in zip(chats, heard, strict=True):
        assert chat.close()
        assert indexes == list(range(1, len(indexes) + 1))
