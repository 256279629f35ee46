"""Check each of the 29 events: when it is published, its payload in the Python API, and its payload on the bus."""

from __future__ import annotations

import pytest

from tests.lifecycle.environment import ChatEnvironment, HeardOnBus, envelope, message
from webchat_fsm import Message, Response, SessionData
from webchat_fsm.lifecycle._events import (
    EVENTS,
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle._transports import Transport


@pytest.fixture
def both(env):
    """Return an environment whose service is recorded in the Python API and on the bus before it opens."""
    env.client()
    env.bus = HeardOnBus(env.chat)
    return env


def opened(env: ChatEnvironment):
    env.chat.open()


def started(env: ChatEnvironment):
    env.chat.open()
    env.chat.start_chat(nickname="Jonny")
    env.advance(0)


def again(env: ChatEnvironment, **config):
    """Close, and record another service with the same store in the Python API and on the bus."""
    env.chat.close()
    env.client(**config)
    env.bus = HeardOnBus(env.chat)


def ready(env: ChatEnvironment):
    opened(env)


def restored(env: ChatEnvironment):
    started(env)
    again(env)
    opened(env)


def restore_timeout(env: ChatEnvironment):
    started(env)
    again(env)
    env.advance(60)
    opened(env)


def restore_failed(env: ChatEnvironment):
    started(env)
    again(env)
    env.server.faults.add(operation="refresh", drop=True)
    opened(env)


def restored_offline(env: ChatEnvironment):
    started(env)
    again(env)
    env.server.faults.add(operation="refresh", server_status=1)
    opened(env)


def back_online_after_a_restore(env: ChatEnvironment):
    restored_offline(env)
    env.advance(3)


def ended(env: ChatEnvironment):
    started(env)
    env.agent()
    env.server.bot("Robo").join()
    env.server.supervisor("Sue").join()
    env.advance(3)
    env.chat.end_chat()


def refused_poll(env: ChatEnvironment):
    started(env)
    env.server.faults.add(operation="refresh", http_status=500, errors=(500,))
    env.chat.step()


def participants_join_and_leave(env: ChatEnvironment):
    started(env)
    for person in (env.agent(), env.server.supervisor("Sue").join(), env.server.bot("Robo").join()):
        env.advance(3)
        person.leave()
        env.advance(3)


def agent_types(env: ChatEnvironment):
    started(env)
    ann = env.agent()
    ann.typing(preview="Hel")
    env.advance(3)
    ann.stop_typing()
    env.advance(3)


def client_types(env: ChatEnvironment):
    started(env)
    env.chat.send_typing("h")
    env.advance(3)


def polling_off_and_on(env: ChatEnvironment):
    started(env)
    env.chat.stop_poll()
    env.chat.start_poll()


def lost_and_restored(env: ChatEnvironment):
    started(env)
    env.fail_polls(6, drop=True)
    env.chat.step()


SCENARIOS = {
    "ready": ready,
    "restored": restored,
    "restoreTimeout": restore_timeout,
    "restoreFailed": restore_failed,
    "restoredOffline": restored_offline,
    "messageReceived": started,
    "error": refused_poll,
    "started": started,
    "ended": ended,
    "agentTypingStarted": agent_types,
    "agentTypingStopped": agent_types,
    "pollingStarted": started,
    "pollingStopped": polling_off_and_on,
    "clientConnected": started,
    "clientDisconnected": ended,
    "agentConnected": participants_join_and_leave,
    "agentDisconnected": participants_join_and_leave,
    "supervisorConnected": participants_join_and_leave,
    "supervisorDisconnected": participants_join_and_leave,
    "botConnected": participants_join_and_leave,
    "botDisconnected": participants_join_and_leave,
    "clientTypingStarted": client_types,
    "clientTypingStopped": client_types,
    "disconnected": lost_and_restored,
    "reconnected": lost_and_restored,
    "chatServerWentOffline": lost_and_restored,
    "chatServerBackOnline": lost_and_restored,
    "connectionPending": lost_and_restored,
    "connectionRestored": lost_and_restored,
}

PAYLOADS = {
    "restored": (Restored, {"async"}),
    "restoreFailed": (RestoreFailed, set()),
    "messageReceived": (MessageReceived, {"originalMessages", "messages", "restoring", "sessionData", "oldMessages"}),
    "error": (Failure, {"status", "body", "errors", "url"}),
    "started": (Started, {"sessionID", "secureKey", "alias", "userId"}),
    "agentTypingStarted": (
        AgentTyping,
        {"text", "type", "index", "timestamp", "html", "bubble", "userData", "from", "isTyping"},
    ),
    "agentTypingStopped": (
        AgentTyping,
        {"text", "type", "index", "timestamp", "html", "bubble", "userData", "from", "isTyping"},
    ),
    **{
        f"{who}{how}": (ParticipantChanged, {"message", "agents", "numAgentsConnected"})
        for who in ("client", "agent", "supervisor", "bot")
        for how in ("Connected", "Disconnected")
    },
}
"""The payloads of events that have one: the struct, and the documented keys on the bus."""
PAYLOADS["clientDisconnected"] = (ParticipantChanged, {"agents", "numAgentsConnected"})


def test_each_of_29_documented_events_has_a_scenario():
    assert len(EVENTS) == 29
    assert set(SCENARIOS) == set(EVENTS)
    assert {name for name, event in EVENTS.items() if Transport.V2 in event.transports} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_event_is_struct_and_documented_keys_on_bus(both, name):
    SCENARIOS[name](both)
    kind, keys = PAYLOADS.get(name, (type(None), set()))
    heard = [event for event in both.heard.events if event.name == name]
    assert heard
    assert all(type(event.data) is kind for event in heard)
    on_bus = [event for event in both.bus.events if event.name == f"WebChatService.{name}"]
    assert len(on_bus) == len(heard)
    assert all(set(event.data) == keys for event in on_bus), on_bus
    assert {event.publisher for event in on_bus} == {"WebChatService"}
    assert abs(heard[0].time - 1_750_000_000) < 120


def test_python_and_bus_get_equal_events_in_equal_order(both):
    ended(both)
    assert [event.name.removeprefix("WebChatService.") for event in both.bus.events] == both.heard.names


def test_started_has_documented_session_data_names(both):
    started(both)
    chat = both.server.core.current_chat()
    session_data = both.heard.last("started").session_data
    assert session_data == SessionData(
        session_id=chat.chat_id, secure_key=chat.secure_key, alias=chat.alias, user_id=chat.user_id
    )
    documented = {
        "sessionID": chat.chat_id, "secureKey": chat.secure_key, "alias": chat.alias, "userId": chat.user_id,
    }  # fmt: skip
    assert both.bus.last("started") == documented
    assert both.bus.last("messageReceived")["sessionData"] == documented
    assert both.bus.command("getSessionData").value == documented
    assert chat.secure_key not in repr(session_data)
    assert chat.secure_key not in repr(both.heard.last("messageReceived"))


def test_message_is_normalised_beside_wire_original(both):
    started(both)
    both.agent().say("Hello")
    both.advance(3)
    now = both.server.core.current_chat().transcript[-1].utc_time
    received = both.heard.last("messageReceived")
    assert received.messages[-1] == Message(
        index=3, type="Message", text="Hello", timestamp=now, sender=received.messages[-1].sender
    )
    assert (received.messages[-1].sender.name, received.messages[-1].sender.type) == ("Ann", "Agent")
    assert both.bus.last("messageReceived")["messages"][-1] == {
        "text": "Hello", "type": "Message", "index": 3, "timestamp": now, "html": False, "bubble": {}, "userData": {},
        "from": {"id": 2, "type": "Agent", "name": "Ann"},
    }  # fmt: skip
    assert both.bus.last("messageReceived")["originalMessages"][-1] == {
        "index": 3, "type": "Message", "text": "Hello", "messageType": "text", "utcTime": now,
        "from": {"nickname": "Ann", "participantId": 2, "type": "Agent"},
    }  # fmt: skip
    assert (received.restoring, received.old_messages) == (False, False)


def test_connected_event_counts_agents_and_supervisors(both):
    started(both)
    both.agent()
    both.advance(3)
    both.server.supervisor("Sue").join()
    both.advance(3)
    connected = both.heard.last("supervisorConnected")
    assert connected.num_agents_connected == 2
    assert {agent.name: agent.supervisor for agent in connected.agents.values()} == {"Ann": False, "Sue": True}
    documented = both.bus.last("supervisorConnected")
    assert documented["numAgentsConnected"] == 2
    assert documented["message"]["type"] == "ParticipantJoined"
    assert documented["agents"]["2"] == {
        "name": "Ann", "connected": True, "supervisor": False,
        "connectedTime": both.server.core.current_chat().transcript[1].utc_time, "disconnectedTime": False,
    }  # fmt: skip
    assert both.heard.last("agentConnected").num_agents_connected == 1


def test_bot_is_recognised_by_party_style_and_no_agent(both):
    started(both)
    both.server.bot("Robo").join()
    both.advance(3)
    connected = both.heard.last("botConnected")
    assert connected.message.sender.type == "Bot"
    assert (connected.agents, connected.num_agents_connected) == ({}, 0)


def test_end_chat_events_have_no_message_or_connected_agent(both):
    ended(both)
    final = both.heard.names[-5:]
    assert final == [
        "supervisorDisconnected", "agentDisconnected", "botDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    for name in final[:-1]:
        assert both.bus.last(name)["numAgentsConnected"] == 0
        assert "message" not in both.bus.last(name)
        assert not any(agent["connected"] for agent in both.bus.last(name)["agents"].values())


def test_agent_typing_has_message_but_implied_stop_none(both):
    started(both)
    ann = both.agent()
    ann.typing(preview="Hel")
    both.advance(3)
    message = both.heard.last("agentTypingStarted").message
    assert (message.is_typing, message.text, message.sender.name) == (True, "Hel", "Ann")
    ann.say("Hello")
    both.advance(3)
    assert both.heard.last("agentTypingStopped") == AgentTyping(message=None)
    assert both.bus.last("agentTypingStopped") == {}


def test_error_event_has_server_response(both):
    refused_poll(both)
    response = both.heard.last("error").response
    assert isinstance(response, Response)
    assert (response.status, response.errors[0]["code"]) == (500, 500)
    assert response.url.endswith("/refresh")
    assert both.bus.last("error")["status"] == 500


def test_restore_failed_has_response_if_server_answered(both):
    restore_failed(both)
    assert both.heard.last("restoreFailed").response is None
    assert both.bus.last("restoreFailed") == {}
    again(both)
    both.server.faults.add(operation="refresh", http_status=500)
    opened(both)
    assert both.heard.last("restoreFailed").response.status == 500
    assert both.bus.last("restoreFailed")["status"] == 500


def test_restored_always_has_async_flag(both):
    restored(both)
    assert both.heard.last("restored") == Restored(is_async=False)
    assert both.bus.last("restored") == {"async": False}


def test_ready_is_replayed_to_late_python_and_bus_handlers(both):
    opened(both)
    late, late_on_bus = [], []
    both.chat.subscribe("ready", late.append)
    both.bus.plugin.subscribe("WebChatService.ready", late_on_bus.append)
    assert [event.name for event in late] == ["ready"]
    assert [event.data for event in late_on_bus] == [{}]
    assert both.heard.names == ["ready"]


def test_idle_countdown_of_server_is_in_message_received(both):
    started(both)
    both.http.answer("refresh", envelope(message(2, "Still there?", "IdleAlert"), idleTimerExpire=45))
    both.chat.step()
    assert both.heard.last("messageReceived").idle_time_count_down == 45
    assert both.bus.last("messageReceived")["idleTimeCountDown"] == 45


# -- order -------------------------------------------------------------------------------------------------------------


def test_whole_chat_publishes_events_in_order(both):
    started(both)
    ann = both.agent()
    ann.typing()
    ann.say("Hello")
    both.advance(3)
    both.chat.send_typing("h")
    both.chat.send_message("hi")
    both.advance(3)
    ann.leave()
    both.advance(3)
    both.chat.end_chat()
    assert both.heard.take() == [
        "ready", "started", "pollingStarted", "clientConnected", "messageReceived",
        "agentConnected", "agentTypingStarted", "agentTypingStopped", "messageReceived",
        "clientTypingStarted", "clientTypingStopped", "messageReceived",
        "agentDisconnected", "messageReceived",
        "pollingStopped", "clientDisconnected", "ended",
    ]  # fmt: skip


def test_end_by_server_is_published_after_content(both):
    started(both)
    both.agent().say("Bye")
    both.server.end()
    both.advance(3)
    assert both.heard.names[5:] == [
        "agentConnected", "agentDisconnected", "messageReceived", "pollingStopped", "ended",
    ]  # fmt: skip
    assert both.heard.texts() == ["Bye"]


def test_end_without_polling_publishes_no_polling_stopped(both):
    started(both)
    both.chat.stop_poll()
    both.heard.take()
    both.chat.end_chat()
    assert both.heard.take() == ["clientDisconnected", "ended"]


def test_agent_who_left_is_not_disconnected_again_at_end(both):
    started(both)
    both.agent().leave()
    both.advance(3)
    both.heard.take()
    both.chat.end_chat()
    assert both.heard.take() == ["pollingStopped", "clientDisconnected", "ended"]


def test_reconnection_is_published_before_content(both):
    started(both)
    both.fail_polls(6, drop=True)
    both.agent()
    both.heard.take()
    both.chat.step()
    assert both.heard.take() == [
        "chatServerBackOnline", "connectionRestored", "reconnected", "agentConnected", "messageReceived",
    ]  # fmt: skip


def test_restored_precedes_messages_and_polling(both):
    restored(both)
    assert both.heard.take() == ["ready", "restored", "clientConnected", "messageReceived", "pollingStarted"]
    assert both.chat.state == "polling"


def test_restored_offline_precedes_polling_and_transcript(both):
    back_online_after_a_restore(both)
    assert both.heard.take() == [
        "ready", "restored", "restoredOffline", "pollingStarted",
        "chatServerBackOnline", "clientConnected", "messageReceived",
    ]  # fmt: skip
    assert both.bus.last("messageReceived")["restoring"] is True
    assert both.bus.last("messageReceived")["messages"][0]["restoring"] is True


def test_restored_participant_event_has_restoring_flag(both):
    restored(both)
    assert both.heard.last("clientConnected").message.restoring
    assert both.bus.last("clientConnected")["message"]["restoring"] is True


@pytest.mark.parametrize(
    ("act", "published"),
    [
        (lambda ann, sue: (ann.typing(), ann.typing()), ["agentTypingStarted"]),
        (lambda ann, sue: ann.stop_typing(), []),
        (lambda ann, sue: ann.say("Hello"), []),
        (lambda ann, sue: (ann.typing(), sue.say("Hello")), ["agentTypingStarted"]),
        (lambda ann, sue: (ann.typing(), sue.typing(), ann.say("Hello")), ["agentTypingStarted"]),
        (
            lambda ann, sue: (ann.typing(), sue.typing(), ann.say("Hello"), sue.push_url("http://x.test/")),
            ["agentTypingStarted", "agentTypingStopped"],
        ),
        (lambda ann, sue: (sue.typing(), sue.stop_typing()), ["agentTypingStarted", "agentTypingStopped"]),
        (lambda ann, sue: (ann.typing(), ann.notice("n", custom=False)), ["agentTypingStarted", "agentTypingStopped"]),
        (lambda ann, sue: (ann.typing(), ann.notice("n", custom=True)), ["agentTypingStarted"]),
        (
            lambda ann, sue: (ann.typing(), ann.leave()),
            ["agentTypingStarted", "agentDisconnected", "agentTypingStopped"],
        ),
    ],
)
def test_agent_typing_events_follow_one_flag_for_all_agents(both, act, published):
    started(both)
    ann, sue = both.agent(), both.server.supervisor("Sue").join()
    both.advance(3)
    both.heard.take()
    act(ann, sue)
    both.advance(3)
    assert both.heard.take() == [*published, "messageReceived"] if published else ["messageReceived"]


def test_external_party_publishes_no_participant_event(both):
    started(both)
    system = {"nickname": "system", "participantId": 9, "type": "External"}
    events = [
        {"index": index, "type": kind, "utcTime": 1, "from": system}
        for index, kind in enumerate(("ParticipantJoined", "TypingStarted", "ParticipantLeft"), 2)
    ]
    both.heard.take()
    both.http.answer("refresh", envelope(*events))
    both.chat.step()
    assert both.heard.take() == ["messageReceived"]
