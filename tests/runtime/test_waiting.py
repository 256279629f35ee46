"""Test waiting for events: the reading position, and waits that cannot succeed."""

from __future__ import annotations

import threading

import pytest

from tests.limits import LONG
from webchat_fsm import ChatClosed, HandlerWaitError, WaitTimeout
from webchat_fsm._core.steps import Delivered
from webchat_fsm._runtime.delivery import ChatEvent
from webchat_fsm._runtime.outcome import REMEMBERED, Receipts


@pytest.fixture
def chat(wire, service, by_hand):
    with service(wire(), driver=by_hand, config={"pollRate": 1000, "pollRateMin": 1000, "pollRateMax": 1000}) as opened:
        yield opened


@pytest.fixture
def transport(chat):
    return chat._engine._http


def names(events) -> list[str]:
    return [event.name for event in events]


# -- the reading position ----------------------------------------------------------------------------------------------


def test_event_between_two_waits_is_not_missed(chat):
    chat.start_chat(nickname="Jonny")
    assert chat.wait_for("started", 0.0).name == "started"
    chat.stop_poll()
    chat.start_poll()
    assert chat.wait_for("pollingStopped", 0.0).name == "pollingStopped"
    assert chat.wait_for("pollingStarted", 0.0).name == "pollingStarted"


def test_reading_position_starts_at_open(chat):
    assert chat.wait_for("ready", 0.0).name == "ready"
    chat.close()
    chat.open()
    assert names(chat.events(silence=0.0)) == ["ready"]


def test_new_session_moves_the_reading_position(chat):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    chat.start_chat(nickname="Jonny")
    assert names(chat.events(silence=0.0))[:1] == ["started"]
    assert "ended" not in names(chat.events(silence=0.0))


def test_events_that_were_read_are_kept_no_longer(chat):
    chat.start_chat(nickname="Jonny")
    chat.wait_for("started", 0.0)
    assert names(event for _, event in chat._engine.event_queue.after(0)) == ["pollingStarted"]
    assert names(chat.events(silence=0.0)) == ["pollingStarted"]
    assert chat._engine.event_queue.after(0) == []


def test_event_is_read_once_and_skips_earlier_ones(chat):
    chat.start_chat(nickname="Jonny")
    chat.stop_poll()
    chat.wait_for("pollingStopped", 0.0)
    with pytest.raises(WaitTimeout):
        chat.wait_for("started", 0.0)
    with pytest.raises(WaitTimeout):
        chat.wait_for("pollingStopped", 0.0)


def test_event_rejected_by_where_stays_readable(chat):
    chat.start_chat(nickname="Jonny")
    with pytest.raises(WaitTimeout):
        chat.wait_for("started", 0.0, where=lambda event: False)
    assert chat.wait_for("started", 0.0).name == "started"


def test_wait_for_returns_the_event_selected_by_where(chat, transport, v2_message):
    numbers = iter(range(1, 100))
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(n := next(numbers), f"text {n}")]}
    chat.start_chat(nickname="Jonny")
    event = chat.wait_for("messageReceived", 60.0, where=lambda event: event.data.messages[0].text == "text 5")
    assert event.data.messages[0].index == 5
    assert chat.wait_for("messageReceived", 60.0).data.messages[0].index == 6


def test_wait_for_and_events_share_one_position(chat):
    chat.start_chat(nickname="Jonny")
    chat.wait_for("started", 0.0)
    assert names(chat.events(silence=0.0)) == ["pollingStarted"]


def test_ten_thousand_events_are_kept_for_a_reader(chat):
    chat.start_chat(nickname="Jonny")
    list(chat.events(silence=0.0))
    event_queue = chat._engine.event_queue
    for number in range(12_000):
        event_queue.put(ChatEvent("error", number, 0.0))
    event_queue.drain()
    assert [event.data for event in chat.events(silence=0.0)] == list(range(2_000, 12_000))


def test_two_reading_threads_get_each_event_once(wire, service, in_threads):
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        event_queue, read = chat._engine.event_queue, []
        for number in range(2000):
            event_queue.put(ChatEvent("error", number, 0.0))
        event_queue.drain()
        in_threads(*[lambda: read.extend(event.data for event in chat.events(silence=0.1))] * 4, join=True)
        numbers = [data for data in read if isinstance(data, int)]
        assert sorted(numbers) == list(range(2000))


def test_event_accepted_by_two_threads_goes_to_one(chat, in_threads):
    chat.start_chat(nickname="Jonny")
    list(chat.events(silence=0.0))
    event_queue, given, meet = chat._engine.event_queue, [], threading.Barrier(2, timeout=LONG)
    for number in range(2):
        event_queue.put(ChatEvent("error", number, 0.0))
    event_queue.drain()

    def wait():
        tested = []

        def accept(event):
            tested.append(event)
            return len(tested) > 1 or meet.wait() >= 0

        given.append(chat.wait_for("error", 0.0, where=accept).data)

    in_threads(wait, wait, join=True)
    assert sorted(given) == [0, 1]


# -- waits that cannot succeed -----------------------------------------------------------------------------------------


def test_wait_for_timeout_names_the_event(chat):
    chat.start_chat(nickname="Jonny")
    message = r"agentConnected did not come within 2\.5 s; the state is polling"
    with pytest.raises(TimeoutError, match=message) as caught:
        chat.wait_for("agentConnected", 2.5)
    assert isinstance(caught.value, WaitTimeout)


def test_wait_for_an_unknown_event_raises_value_error(chat):
    with pytest.raises(ValueError, match="agentConnectd"):
        chat.wait_for("agentConnectd", 1.0)


def test_wait_for_an_impossible_event_raises_at_once(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    before = by_hand.clock.now
    with pytest.raises(ChatClosed):
        chat.wait_for("agentConnected", 3600.0)
    assert by_hand.clock.now == before


def test_events_before_the_end_are_readable_after_it(chat):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    assert chat.wait_for("started", 0.0).name == "started"
    assert names(chat.events())[-1] == "ended"


@pytest.mark.parametrize("name", ["started", "messageReceived", "ready"])
def test_wait_on_a_closed_service_raises_chat_closed(chat, name):
    assert names(chat.events(silence=0.0)) == ["ready"]
    chat.close()
    with pytest.raises(ChatClosed):
        chat.wait_for(name, 3600.0)


def test_start_after_an_ended_chat_can_be_awaited(wire, service, in_threads):
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        chat.wait_for("started", LONG)
        chat.end_chat()
        heard = []
        (waiting,) = in_threads(lambda: heard.append(chat.wait_for("started", LONG)))
        waiting.join(0.05)
        assert heard == []
        chat.start_chat(nickname="Jonny")
        waiting.join(LONG)
        assert names(heard) == ["started"]


def test_events_end_after_ended(chat, transport, v2_message):
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(1, "bye")], "chatEnded": True}
    chat.start_chat(nickname="Jonny")
    heard = names(chat.events())
    assert heard == ["started", "pollingStarted", "messageReceived", "pollingStopped", "ended"]
    assert list(chat.events()) == []


def test_events_end_after_the_silence_timeout(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    before = by_hand.clock.now
    assert names(chat.events(silence=5.0)) == ["started", "pollingStarted"]
    assert by_hand.clock.now == pytest.approx(before + 5.0)


def test_events_end_without_timers_in_manual_time(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    chat.stop_poll()
    assert names(chat.events()) == ["started", "pollingStarted", "pollingStopped"]


def test_wait_moves_manual_time_from_timer_to_timer(chat, transport, by_hand, v2_message):
    moments = []

    def refresh(request):
        moments.append(by_hand.clock.now)
        return {"messages": [v2_message(1, "hi")] if len(moments) == 4 else []}

    transport.operations["refresh"] = refresh
    chat.start_chat(nickname="Jonny")
    start = by_hand.clock.now
    chat.wait_for("messageReceived", 60.0)
    assert [moment - start for moment in moments] == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert by_hand.clock.now == pytest.approx(start + 3.0)


# -- inside handlers ---------------------------------------------------------------------------------------------------


def test_waiting_inside_a_handler_raises_at_once(chat, stopwatch):
    caught: list[str] = []

    def handler(event):
        for wait in (lambda: chat.wait_for("ended", 60.0), lambda: list(chat.events()), lambda: receipt.wait(60.0)):
            with pytest.raises(HandlerWaitError) as error:
                wait()
            caught.append(str(error.value))

    chat.start_chat(nickname="Jonny")
    receipt = chat.send_message("hi")
    chat.subscribe("pollingStopped", handler)
    stopwatch.restart()
    chat.stop_poll()
    assert len(caught) == 3
    assert all("let the handler return first" in text for text in caught)
    assert stopwatch.soon


def test_waiting_inside_a_preprocessor_raises(chat, transport, v2_message, by_hand, caplog):
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(1, "hi")]}
    chat.register_pre_processor(lambda message: chat.wait_for("ended", 60.0))
    chat.start_chat(nickname="Jonny")
    by_hand.run_due()
    assert "HandlerWaitError" in caplog.text


def test_verify_session_in_a_handler_awaits_no_restore(chat, stopwatch):
    results = []
    chat.subscribe("started", lambda event: results.append(chat.verify_session()))
    chat.start_chat(nickname="Jonny")
    assert results == [True]


# -- on threads --------------------------------------------------------------------------------------------------------


def test_threaded_wait_ends_when_the_event_arrives(on_front, front, in_threads, stopwatch):
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        chat.wait_for("clientConnected", LONG)
        ann = front.server.agent("Ann")
        in_threads(lambda: (threading.Event().wait(0.1), ann.join()))
        stopwatch.restart()
        assert chat.wait_for("agentConnected", LONG).data.agents[2].name == "Ann"
        assert stopwatch.soon
        with pytest.raises(WaitTimeout):
            chat.wait_for("supervisorConnected", 0.05)


def test_receipt_is_delivered_when_its_message_returns(on_front):
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        receipt = chat.send_message("hello")
        assert receipt.status in ("sent", "delivered")
        assert receipt.wait(LONG)
        assert receipt.status == "delivered"
        (mine,) = [one for one in chat.get_transcript().messages if one.text == "hello"]
        assert mine.index == receipt.index


def test_receipt_without_a_returned_message_stays_sent(chat):
    chat.start_chat(nickname="Jonny")
    receipt = chat.send_message("lost")
    assert not receipt.wait(5.0)
    assert receipt.status == "sent"


@pytest.mark.parametrize("timeout", [float("nan"), -1.0])
def test_wait_with_an_invalid_timeout_expires_at_once(service, wire, timeout):
    with service(wire()) as threaded, pytest.raises(WaitTimeout):
        threaded.wait_for("agentConnected", timeout)


def test_wait_accepts_an_unbounded_timeout(service, wire, in_threads):
    with service(wire()) as threaded:
        caught = []

        def wait():
            with pytest.raises(ChatClosed) as closed:
                threaded.wait_for("agentConnected", 1e300)
            caught.append(closed.value)

        (thread,) = in_threads(wait)
        threaded.close()
        thread.join(LONG)
        assert caught


def test_settled_messages_are_remembered_for_late_receipts():
    receipts = Receipts()
    for ticket in range(REMEMBERED + 1):
        receipts.settle(Delivered(ticket=ticket, index=ticket))
    late = [receipts.add(ticket, "sent", lambda receipt, timeout: False) for ticket in (0, 1, REMEMBERED)]
    assert [one.settled for one in late] == [False, True, True]  # the oldest is discarded, to bound the memory use


def test_wait_of_a_receipt_returns_after_its_handlers(wire, service, in_threads, v2_message):
    """The receipt is settled in the step of the poll, before the event of its message reaches the handlers."""
    transport, entered, free = wire(), threading.Event(), threading.Event()
    sent: list[str] = []
    transport.operations["send"] = lambda request: sent.append("hi") or {}
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(2, "hi", kind="Client")] if sent else []}

    def handle(event):
        entered.set()
        assert free.wait(LONG)

    with service(transport) as chat:
        chat.subscribe("messageReceived", handle)
        chat.start_chat(nickname="Jonny")
        receipt, returned = chat.send_message("hi"), []
        (waiting,) = in_threads(lambda: returned.append(receipt.wait(LONG)))
        assert entered.wait(LONG)
        assert receipt.settled
        waiting.join(0.1)
        assert returned == []
        free.set()
        waiting.join(LONG)
        assert returned == [True]
