"""Check that a handler may raise, give commands, subscribe, cancel and close; only waiting in it raises."""

from __future__ import annotations

import logging

import pytest

from tests.lifecycle.environment import HeardOnBus
from webchat_fsm import HandlerWaitError


def test_handler_exception_is_reported_and_others_run(env, caplog):
    reported = []
    chat = env.client(client={"onHandlerError": lambda error, event: reported.append((str(error), event.name))})
    heard = []

    def failing(event):
        raise RuntimeError("oops")

    chat.subscribe("started", failing)
    chat.subscribe("started", lambda event: heard.append(event.name))
    chat.open()
    with caplog.at_level(logging.ERROR, "webchat_fsm"):
        assert chat.command("startChat", {"nickname": "Jonny"})
    assert (heard, reported, chat.state) == (["started"], [("oops", "started")], "polling")
    assert "failing" in caplog.text
    assert "error" not in env.heard.names


def test_reporter_exception_stops_no_handler(env, caplog):
    def report(error, event):
        raise ValueError("worse")

    chat = env.client(client={"onHandlerError": report})
    chat.subscribe("started", lambda event: 1 / 0)
    chat.open()
    chat.start_chat(nickname="Jonny")
    env.advance(3)
    assert env.heard.names[:3] == ["ready", "started", "pollingStarted"]
    assert "client.onHandlerError failed" in caplog.text


def test_handlers_run_in_publication_order(env):
    """Settle a command in a handler at its return, and publish its events after all handlers of the current event."""
    chat, order = env.client(), []
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


def test_end_chat_in_message_handler_ends_the_chat(env):
    chat, outcomes = env.start(), []

    def end_at_bye(event):
        if event.data.messages[-1].text == "Bye":
            outcomes.append((chat.end_chat().status, chat.state))

    chat.subscribe("messageReceived", end_at_bye)
    env.agent().say("Bye")
    env.heard.take()
    env.advance(3)
    assert outcomes == [(200, "ended")]
    assert env.heard.take() == [
        "agentConnected", "messageReceived", "pollingStopped", "agentDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip


def test_send_in_agent_connected_handler_is_delivered(env):
    chat = env.start()
    chat.subscribe("agentConnected", lambda event: chat.send_message("hello " + event.data.message.sender.name))
    env.agent()
    env.advance(3)
    assert env.heard.texts() == ["hello Ann"]
    assert [message["text"] for message in chat.command("getTranscript").value["messages"]] == ["", "", "hello Ann"]


def test_start_in_ended_handler_starts_the_next_chat(env):
    chat, states = env.start(), []
    subscription = chat.subscribe("ended", lambda event: (chat.start_chat(nickname="Again"), states.append(chat.state)))
    chat.end_chat()
    subscription.cancel()
    assert (states, chat.state) == (["polling"], "polling")
    assert env.heard.names[-3:] == ["ended", "started", "pollingStarted"]
    assert len(env.server.core.chats) == 2
    env.advance(3)
    assert [message.sender.name for message in chat.get_transcript().messages] == ["Again"]


def test_subscription_in_handler_gets_later_events(env):
    chat, late = env.start(), []
    chat.subscribe("agentConnected", lambda event: chat.subscribe("messageReceived", late.append))
    env.agent()
    env.advance(3)
    assert len(late) == 1


def test_subscription_in_handler_misses_current_event(env):
    chat, late = env.open(), []
    chat.subscribe("started", lambda event: chat.subscribe("started", late.append))
    chat.start_chat(nickname="Jonny")
    assert late == []


def test_subscription_cancelled_by_handler_gets_no_event(env):
    chat, heard = env.open(), []
    chat.subscribe("started", lambda event: later.cancel())
    later = chat.subscribe("started", heard.append)
    chat.start_chat(nickname="Jonny")
    later.cancel()
    assert heard == []


def test_subscription_cancelled_in_own_handler_ends(env):
    chat, heard = env.start(), []

    def once(event):
        heard.append(event)
        subscription.cancel()

    subscription = chat.subscribe("messageReceived", once)
    for text in ("one", "two"):
        chat.send_message(text)
        env.advance(3)
    assert len(heard) == 1


def test_cancel_ends_one_of_two_equal_subscriptions(env):
    chat, heard = env.open(), []
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
def test_waiting_in_a_handler_raises_at_once(env, wait):
    chat, waited = env.start(), []

    def waits(event):
        with pytest.raises(HandlerWaitError, match="inside a handler"):
            wait(chat)
        waited.append(env.timeline.now())

    chat.subscribe("agentConnected", waits)
    env.agent()
    env.advance(0.5)
    assert waited == [1_750_000_000.5]


def test_waiting_in_a_preprocessor_raises(env):
    chat, waited = env.start(), []

    def waits(message):
        with pytest.raises(HandlerWaitError):
            chat.wait_for("ended", 5)
        waited.append(message["index"])

    chat.register_pre_processor(waits)
    env.agent()
    env.advance(3)
    assert waited == [2]


@pytest.mark.parametrize("event", ["started", "pollingStarted", "clientConnected", "messageReceived"])
def test_close_in_a_handler_stops_all_events_and_timers(env, event):
    chat = env.open()
    closed, heard = [], []

    def close(_):
        closed.append(chat.close())
        heard.append(len(env.heard.names))

    chat.subscribe(event, close)
    chat.command("startChat", {"nickname": "Jonny"})
    env.advance(5)
    assert (closed, chat.state) == ([False], "idle")
    assert len(env.heard.names) == heard[0], "nothing is published after close()"
    assert env.heard.names[-1] == event
    assert env.timeline.next_timer() is None
    assert chat.close() is True


def test_session_closed_in_handler_is_restored_whole(env):
    chat = env.start()
    subscription = chat.subscribe("agentConnected", lambda event: chat.close())
    env.agent().say("Hello")
    env.advance(3)
    subscription.cancel()
    assert chat.state == "idle"
    chat.open()
    assert env.heard.texts() == ["Hello"]
    assert chat.state == "polling"


def test_close_in_typing_handler_cancels_request(env):
    chat = env.start()
    chat.subscribe("clientTypingStarted", lambda event: chat.close())
    outcome = chat.command("sendTyping", {"message": "h"})
    assert outcome.status == "rejected"
    assert "startTyping" not in env.http.operations()


def test_start_in_ready_handler_starts_a_chat(env):
    chat = env.client()
    chat.subscribe("ready", lambda event: chat.start_chat(nickname="Jonny"))
    chat.open()
    assert chat.state == "polling"
    assert env.heard.names[:3] == ["ready", "started", "pollingStarted"]


def test_start_in_ready_handler_during_restore_is_rejected(env):
    env.start().close()
    reasons = []
    chat = env.client()
    chat.subscribe("ready", lambda event: reasons.append(chat.command("startChat", {"nickname": "Jonny"}).reason))
    chat.open()
    assert reasons == ["There is already an active chat session"]
    assert chat.state == "polling"


def test_bus_subscriber_exception_stops_no_other(env, caplog):
    chat = env.client()
    bus = HeardOnBus(chat)
    bus.plugin.subscribe("WebChatService.started", lambda event: 1 / 0)
    heard = []
    bus.plugin.subscribe("WebChatService.started", heard.append)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert len(heard) == 1
    assert "a subscriber of TestPlugin to WebChatService.started failed" in caplog.text


def test_bus_event_has_the_time_of_the_service(env):
    chat = env.client()
    bus = HeardOnBus(chat)
    env.advance(1.5)
    chat.open()
    assert [event.time for event in bus.events] == [1_750_000_001_500]


def test_unknown_event_or_uncallable_handler_raises(env):
    chat = env.open()
    with pytest.raises(ValueError, match="there is no event 'start'; did you mean 'started'"):
        chat.subscribe("start", print)
    with pytest.raises(TypeError, match="a handler must be callable, not str"):
        chat.subscribe("started", "print")
