"""Pull style: the reading position, and waiting that knows when it is in vain."""

from __future__ import annotations

import threading

import pytest

from webchat_fsm import ChatClosed, HandlerWaitError, WaitTimeout
from webchat_fsm.runtime.delivery import ChatEvent


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


def test_what_happened_between_two_calls_is_not_missed(chat):
    chat.start_chat(nickname="Jonny")
    assert chat.wait_for("started", 0.0).name == "started"
    chat.stop_poll()
    chat.start_poll()
    assert chat.wait_for("pollingStopped", 0.0).name == "pollingStopped"
    assert chat.wait_for("pollingStarted", 0.0).name == "pollingStarted"


def test_the_position_starts_at_open(chat):
    assert chat.wait_for("ready", 0.0).name == "ready"
    chat.close()
    chat.open()
    assert names(chat.events(silence=0.0)) == ["ready"]


def test_a_session_that_starts_moves_the_position_to_its_first_event(chat):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    chat.start_chat(nickname="Jonny")
    assert names(chat.events(silence=0.0))[:1] == ["started"]
    assert "ended" not in names(chat.events(silence=0.0))


def test_an_event_is_given_out_once_and_takes_those_before_it_along(chat):
    chat.start_chat(nickname="Jonny")
    chat.stop_poll()
    chat.wait_for("pollingStopped", 0.0)
    with pytest.raises(WaitTimeout):
        chat.wait_for("started", 0.0)
    with pytest.raises(WaitTimeout):
        chat.wait_for("pollingStopped", 0.0)


def test_what_where_refuses_stays_readable(chat):
    chat.start_chat(nickname="Jonny")
    with pytest.raises(WaitTimeout):
        chat.wait_for("started", 0.0, where=lambda event: False)
    assert chat.wait_for("started", 0.0).name == "started"


def test_where_chooses_among_events(chat, transport, said):
    numbers = iter(range(1, 100))
    transport.operations["refresh"] = lambda request: {"messages": [said(n := next(numbers), f"text {n}")]}
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
    outbox = chat._engine.outbox
    for number in range(12_000):
        outbox.put(ChatEvent("error", number, 0.0))
    outbox.drain()
    assert [event.data for event in chat.events(silence=0.0)] == list(range(2_000, 12_000))


def test_two_readers_in_threads_share_what_there_is_and_get_nothing_twice(wire, service, in_threads):
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        outbox, read = chat._engine.outbox, []
        for number in range(2000):
            outbox.put(ChatEvent("error", number, 0.0))
        outbox.drain()
        in_threads(*[lambda: read.extend(event.data for event in chat.events(silence=0.1))] * 4, join=True)
        numbers = [data for data in read if isinstance(data, int)]
        assert sorted(numbers) == list(range(2000))


def test_an_event_that_two_threads_accept_at_once_goes_to_one_of_them(chat, in_threads):
    chat.start_chat(nickname="Jonny")
    list(chat.events(silence=0.0))
    outbox, given, meet = chat._engine.outbox, [], threading.Barrier(2, timeout=5.0)
    for number in range(2):
        outbox.put(ChatEvent("error", number, 0.0))
    outbox.drain()

    def wait():
        asked = []

        def accept(event):
            asked.append(event)
            return len(asked) > 1 or meet.wait() >= 0

        given.append(chat.wait_for("error", 0.0, where=accept).data)

    in_threads(wait, wait, join=True)
    assert sorted(given) == [0, 1]


# -- waiting in vain ---------------------------------------------------------------------------------------------------


def test_what_does_not_come_in_time_is_a_timeout_error_that_names_it(chat):
    chat.start_chat(nickname="Jonny")
    told = r"agentConnected did not come within 2\.5 s; the state is polling"
    with pytest.raises(TimeoutError, match=told) as caught:
        chat.wait_for("agentConnected", 2.5)
    assert isinstance(caught.value, WaitTimeout)


def test_an_unknown_event_is_a_mistake(chat):
    with pytest.raises(ValueError, match="agentConnectd"):
        chat.wait_for("agentConnectd", 1.0)


def test_what_cannot_come_after_the_end_is_told_at_once(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    before = by_hand.clock.now
    with pytest.raises(ChatClosed):
        chat.wait_for("agentConnected", 3600.0)
    assert by_hand.clock.now == before


def test_what_came_before_the_end_can_still_be_read_after_it(chat):
    chat.start_chat(nickname="Jonny")
    chat.end_chat()
    assert chat.wait_for("started", 0.0).name == "started"
    assert names(chat.events())[-1] == "ended"


@pytest.mark.parametrize("name", ["started", "messageReceived", "ready"])
def test_a_closed_service_has_nothing_to_wait_for(chat, name):
    assert names(chat.events(silence=0.0)) == ["ready"]
    chat.close()
    with pytest.raises(ChatClosed):
        chat.wait_for(name, 3600.0)


def test_after_the_end_a_new_start_can_be_awaited(wire, service, in_threads):
    with service(wire()) as chat:
        chat.start_chat(nickname="Jonny")
        chat.wait_for("started", 5.0)
        chat.end_chat()
        heard = []
        (waiting,) = in_threads(lambda: heard.append(chat.wait_for("started", 5.0)))
        waiting.join(0.05)
        assert heard == []
        chat.start_chat(nickname="Jonny")
        waiting.join(5.0)
        assert names(heard) == ["started"]


def test_events_end_after_ended(chat, transport, said):
    transport.operations["refresh"] = lambda request: {"messages": [said(1, "bye")], "chatEnded": True}
    chat.start_chat(nickname="Jonny")
    heard = names(chat.events())
    assert heard == ["started", "pollingStarted", "messageReceived", "pollingStopped", "ended"]
    assert list(chat.events()) == []


def test_events_end_after_a_silence(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    before = by_hand.clock.now
    assert names(chat.events(silence=5.0)) == ["started", "pollingStarted"]
    assert by_hand.clock.now == pytest.approx(before + 5.0)


def test_a_chat_without_timers_has_nothing_to_come_in_moved_time(chat, by_hand):
    chat.start_chat(nickname="Jonny")
    chat.stop_poll()
    assert names(chat.events()) == ["started", "pollingStarted", "pollingStopped"]


def test_waiting_moves_time_from_timer_to_timer(chat, transport, by_hand, said):
    moments = []

    def refresh(request):
        moments.append(by_hand.clock.now)
        return {"messages": [said(1, "hi")] if len(moments) == 4 else []}

    transport.operations["refresh"] = refresh
    chat.start_chat(nickname="Jonny")
    start = by_hand.clock.now
    chat.wait_for("messageReceived", 60.0)
    assert [moment - start for moment in moments] == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert by_hand.clock.now == pytest.approx(start + 3.0)


# -- inside handlers ---------------------------------------------------------------------------------------------------


def test_waiting_inside_a_handler_is_refused_at_once(chat, stopwatch):
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


def test_waiting_inside_a_preprocessor_is_refused_too(chat, transport, said, by_hand, caplog):
    transport.operations["refresh"] = lambda request: {"messages": [said(1, "hi")]}
    chat.register_pre_processor(lambda message: chat.wait_for("ended", 60.0))
    chat.start_chat(nickname="Jonny")
    by_hand.run_due()
    assert "HandlerWaitError" in caplog.text


def test_verify_session_inside_a_handler_does_not_wait_for_a_restore(chat, stopwatch):
    told = []
    chat.subscribe("started", lambda event: told.append(chat.verify_session()))
    chat.start_chat(nickname="Jonny")
    assert told == [True]


# -- on threads --------------------------------------------------------------------------------------------------------


def test_waiting_on_threads_ends_as_the_event_comes(on_front, front, in_threads, stopwatch):
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        chat.wait_for("clientConnected", 5.0)
        ann = front.server.agent("Ann")
        in_threads(lambda: (threading.Event().wait(0.1), ann.join()))
        stopwatch.restart()
        assert chat.wait_for("agentConnected", 30.0).data.agents[2].name == "Ann"
        assert stopwatch.soon
        with pytest.raises(WaitTimeout):
            chat.wait_for("supervisorConnected", 0.05)


def test_a_receipt_is_delivered_when_its_message_has_come_back(on_front):
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        receipt = chat.send_message("hello")
        assert receipt.status in ("sent", "delivered")
        assert receipt.wait(5.0)
        assert receipt.status == "delivered"
        (mine,) = [one for one in chat.get_transcript().messages if one.text == "hello"]
        assert mine.index == receipt.index


def test_a_receipt_whose_message_never_comes_back_stays_sent(chat):
    chat.start_chat(nickname="Jonny")
    receipt = chat.send_message("lost")
    assert not receipt.wait(5.0)
    assert receipt.status == "sent"


@pytest.mark.parametrize("timeout", [float("nan"), -1.0])
def test_a_timeout_that_is_none_is_over_at_once(service, wire, timeout):
    with service(wire()) as threaded, pytest.raises(WaitTimeout):
        threaded.wait_for("agentConnected", timeout)


def test_a_wait_may_be_as_long_as_it_likes(service, wire, in_threads):
    with service(wire()) as threaded:
        caught = []

        def wait():
            with pytest.raises(ChatClosed) as closed:
                threaded.wait_for("agentConnected", 1e300)
            caught.append(closed.value)

        (thread,) = in_threads(wait)
        threaded.close()
        thread.join(5.0)
        assert caught
