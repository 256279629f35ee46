"""Handlers may do what they like: raise, give commands, subscribe, cancel, close. Only waiting is refused."""

from __future__ import annotations

import logging

import pytest

from tests.lifecycle.stage import HeardOnBus
from webchat_fsm import HandlerWaitError


def test_a_handler_that_raises_stops_nobody_and_is_reported_with_its_event(stage, caplog):
    reported = []
    chat = stage.client(client={"onHandlerError": lambda error, event: reported.append((str(error), event.name))})
    heard = []

    def clumsy(event):
        raise RuntimeError("oops")

    chat.subscribe("started", clumsy)
    chat.subscribe("started", lambda event: heard.append(event.name))
    chat.open()
    with caplog.at_level(logging.ERROR, "webchat_fsm"):
        assert chat.command("startChat", {"nickname": "Jonny"})
    assert (heard, reported, chat.state) == (["started"], [("oops", "started")], "polling")
    assert "clumsy" in caplog.text
    assert "error" not in stage.heard.names


def test_a_reporter_that_raises_stops_nobody_either(stage, caplog):
    def report(error, event):
        raise ValueError("worse")

    chat = stage.client(client={"onHandlerError": report})
    chat.subscribe("started", lambda event: 1 / 0)
    chat.open()
    chat.start_chat(nickname="Jonny")
    stage.advance(3)
    assert stage.heard.names[:3] == ["ready", "started", "pollingStarted"]
    assert "client.onHandlerError failed" in caplog.text


def test_handlers_run_in_the_order_of_publication_whatever_they_do(stage):
    """A command inside a handler is settled when it returns; its events follow when the handler has returned."""
    chat, order = stage.client(), []
    chat.open()
    chat.subscribe("started", lambda event: order.append(("before", chat.command("stopPoll").status)))
    chat.subscribe("started", lambda event: order.append(("second handler", chat.state)))
    chat.subscribe("pollingStarted", lambda event: order.append(("pollingStarted", chat.state)))
    chat.subscribe("pollingStopped", lambda event: order.append(("pollingStopped", chat.state)))
    chat.start_chat(nickname="Jonny")
    assert order == [
        ("before", "resolved"), ("second handler", "active"),
        ("pollingStarted", "active"), ("pollingStopped", "active"),
    ]  # fmt: skip


def test_ending_the_chat_because_of_a_message(stage):
    chat, outcomes = stage.start(), []

    def enough(event):
        if event.data.messages[-1].text == "Bye":
            outcomes.append((chat.end_chat().status, chat.state))

    chat.subscribe("messageReceived", enough)
    stage.agent().say("Bye")
    stage.heard.take()
    stage.advance(3)
    assert outcomes == [(200, "ended")]
    assert stage.heard.take() == [
        "agentConnected", "messageReceived", "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip


def test_answering_an_agent_who_connects(stage):
    chat = stage.start()
    chat.subscribe("agentConnected", lambda event: chat.send_message("hello " + event.data.message.sender.name))
    stage.agent()
    stage.advance(3)
    assert stage.heard.texts() == ["hello Ann"]
    assert [message["text"] for message in chat.command("getTranscript").value["messages"]] == ["", "", "hello Ann"]


def test_starting_the_next_chat_when_one_has_ended(stage):
    chat, states = stage.start(), []
    subscription = chat.subscribe("ended", lambda event: (chat.start_chat(nickname="Again"), states.append(chat.state)))
    chat.end_chat()
    subscription.cancel()
    assert (states, chat.state) == (["polling"], "polling")
    assert stage.heard.names[-3:] == ["ended", "started", "pollingStarted"]
    assert len(stage.server.core.chats) == 2
    stage.advance(3)
    assert [message.sender.name for message in chat.get_transcript().messages] == ["Again"]


def test_a_subscription_made_in_a_handler_hears_what_comes_after(stage):
    chat, late = stage.start(), []
    chat.subscribe("agentConnected", lambda event: chat.subscribe("messageReceived", late.append))
    stage.agent()
    stage.advance(3)
    assert len(late) == 1


def test_a_subscription_made_in_a_handler_of_the_same_event_does_not_hear_it(stage):
    chat, late = stage.open(), []
    chat.subscribe("started", lambda event: chat.subscribe("started", late.append))
    chat.start_chat(nickname="Jonny")
    assert late == []


def test_a_subscription_that_an_earlier_handler_cancels_hears_nothing_more(stage):
    chat, heard = stage.open(), []
    chat.subscribe("started", lambda event: later.cancel())
    later = chat.subscribe("started", heard.append)
    chat.start_chat(nickname="Jonny")
    later.cancel()
    assert heard == []


def test_a_handler_may_cancel_itself(stage):
    chat, heard = stage.start(), []

    def once(event):
        heard.append(event)
        subscription.cancel()

    subscription = chat.subscribe("messageReceived", once)
    for text in ("one", "two"):
        chat.send_message(text)
        stage.advance(3)
    assert len(heard) == 1


def test_one_function_may_be_subscribed_twice_and_cancelled_once(stage):
    chat, heard = stage.open(), []
    first = chat.subscribe("started", heard.append)
    chat.subscribe("started", heard.append)
    first.cancel()
    chat.start_chat(nickname="Jonny")
    assert len(heard) == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda chat: chat.wait_for("ended", 5),
        lambda chat: next(chat.events()),
        lambda chat: next(chat.events(silence=1)),
    ],
)
def test_waiting_in_a_handler_is_refused_at_once(stage, wait):
    chat, told = stage.start(), []

    def waits(event):
        with pytest.raises(HandlerWaitError, match="inside a handler"):
            wait(chat)
        told.append(stage.timeline.now())

    chat.subscribe("agentConnected", waits)
    stage.agent()
    stage.advance(0.5)
    assert told == [1_750_000_000.5]


def test_waiting_in_a_preprocessor_is_refused_too(stage):
    chat, told = stage.start(), []

    def waits(message):
        with pytest.raises(HandlerWaitError):
            chat.wait_for("ended", 5)
        told.append(message["index"])

    chat.register_pre_processor(waits)
    stage.agent()
    stage.advance(3)
    assert told == [2]


@pytest.mark.parametrize("event", ["started", "pollingStarted", "clientConnected", "messageReceived"])
def test_closing_in_a_handler_ends_everything_as_it_returns(stage, event):
    chat = stage.open()
    closed, heard = [], []

    def close(_):
        closed.append(chat.close())
        heard.append(len(stage.heard.names))

    chat.subscribe(event, close)
    chat.command("startChat", {"nickname": "Jonny"})
    stage.advance(5)
    assert (closed, chat.state) == ([False], "idle")
    assert len(stage.heard.names) == heard[0], "nothing is published after close()"
    assert stage.heard.names[-1] == event
    assert stage.timeline.next_timer() is None
    assert chat.close() is True


def test_a_session_closed_in_a_handler_can_be_restored_with_everything_in_it(stage):
    chat = stage.start()
    subscription = chat.subscribe("agentConnected", lambda event: chat.close())
    stage.agent().say("Hello")
    stage.advance(3)
    subscription.cancel()
    assert chat.state == "idle"
    chat.open()
    assert stage.heard.texts() == ["Hello"]
    assert chat.state == "polling"


def test_closing_in_the_handler_of_typing_keeps_the_request_from_being_sent(stage):
    chat = stage.start()
    chat.subscribe("clientTypingStarted", lambda event: chat.close())
    outcome = chat.command("sendTyping", {"message": "h"})
    assert outcome.status == "rejected"
    assert "startTyping" not in stage.http.operations()


def test_starting_in_the_handler_of_ready(stage):
    chat = stage.client()
    chat.subscribe("ready", lambda event: chat.start_chat(nickname="Jonny"))
    chat.open()
    assert chat.state == "polling"
    assert stage.heard.names[:3] == ["ready", "started", "pollingStarted"]


def test_starting_in_the_handler_of_ready_is_refused_where_a_session_is_being_restored(stage):
    stage.start().close()
    reasons = []
    chat = stage.client()
    chat.subscribe("ready", lambda event: reasons.append(chat.command("startChat", {"nickname": "Jonny"}).reason))
    chat.open()
    assert reasons == ["There is already an active chat session"]
    assert chat.state == "polling"


def test_a_subscriber_on_the_bus_that_raises_stops_nobody(stage, caplog):
    chat = stage.client()
    bus = HeardOnBus(chat)
    bus.plugin.subscribe("WebChatService.started", lambda event: 1 / 0)
    heard = []
    bus.plugin.subscribe("WebChatService.started", heard.append)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert len(heard) == 1
    assert "a subscriber of Story to WebChatService.started failed" in caplog.text


def test_an_event_on_the_bus_carries_the_time_of_the_service(stage):
    chat = stage.client()
    bus = HeardOnBus(chat)
    stage.advance(1.5)
    chat.open()
    assert [event.time for event in bus.events] == [1_750_000_001_500]


def test_unknown_events_and_handlers_that_are_none_are_errors(stage):
    chat = stage.open()
    with pytest.raises(ValueError, match="there is no event 'start'; did you mean 'started'"):
        chat.subscribe("start", print)
    with pytest.raises(TypeError, match="a handler must be callable, not str"):
        chat.subscribe("started", "print")
