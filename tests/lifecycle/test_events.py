"""Each of the 29 events: when it comes, what it carries on the Python face, and what it carries on the bus."""

from __future__ import annotations

import pytest

from tests.lifecycle.stage import HeardOnBus, Stage, envelope, message
from webchat_fsm import Message, Response, SessionData
from webchat_fsm.lifecycle.events import (
    EVENTS,
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle.table import Transport


@pytest.fixture
def both(stage):
    """A stage whose service is heard on both faces from before it opens."""
    stage.client()
    stage.bus = HeardOnBus(stage.chat)
    return stage


def opened(stage: Stage):
    stage.chat.open()


def started(stage: Stage):
    stage.chat.open()
    stage.chat.start_chat(nickname="Jonny")
    stage.advance(0)


def again(stage: Stage, **config):
    """Close, and let another service with the same store be heard on both faces."""
    stage.chat.close()
    stage.client(**config)
    stage.bus = HeardOnBus(stage.chat)


def ready(stage: Stage):
    opened(stage)


def restored(stage: Stage):
    started(stage)
    again(stage)
    opened(stage)


def restore_timeout(stage: Stage):
    started(stage)
    again(stage)
    stage.advance(60)
    opened(stage)


def restore_failed(stage: Stage):
    started(stage)
    again(stage)
    stage.server.faults.add(operation="refresh", drop=True)
    opened(stage)


def restored_offline(stage: Stage):
    started(stage)
    again(stage)
    stage.server.faults.add(operation="refresh", server_status=1)
    opened(stage)


def back_online_after_a_restore(stage: Stage):
    restored_offline(stage)
    stage.advance(3)


def ended(stage: Stage):
    started(stage)
    stage.agent()
    stage.server.bot("Robo").join()
    stage.server.supervisor("Sue").join()
    stage.advance(3)
    stage.chat.end_chat()


def refused_poll(stage: Stage):
    started(stage)
    stage.server.faults.add(operation="refresh", http_status=500, errors=(500,))
    stage.chat.step()


def people_come_and_go(stage: Stage):
    started(stage)
    for person in (stage.agent(), stage.server.supervisor("Sue").join(), stage.server.bot("Robo").join()):
        stage.advance(3)
        person.leave()
        stage.advance(3)


def agent_types(stage: Stage):
    started(stage)
    ann = stage.agent()
    ann.typing(preview="Hel")
    stage.advance(3)
    ann.stop_typing()
    stage.advance(3)


def client_types(stage: Stage):
    started(stage)
    stage.chat.send_typing("h")
    stage.advance(3)


def polling_off_and_on(stage: Stage):
    started(stage)
    stage.chat.stop_poll()
    stage.chat.start_poll()


def lost_and_found(stage: Stage):
    started(stage)
    stage.fail_polls(6, drop=True)
    stage.chat.step()


STORIES = {
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
    "agentConnected": people_come_and_go,
    "agentDisconnected": people_come_and_go,
    "supervisorConnected": people_come_and_go,
    "supervisorDisconnected": people_come_and_go,
    "botConnected": people_come_and_go,
    "botDisconnected": people_come_and_go,
    "clientTypingStarted": client_types,
    "clientTypingStopped": client_types,
    "disconnected": lost_and_found,
    "reconnected": lost_and_found,
    "chatServerWentOffline": lost_and_found,
    "chatServerBackOnline": lost_and_found,
    "connectionPending": lost_and_found,
    "connectionRestored": lost_and_found,
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
"""The payloads of events that carry one: the struct, and the documented keys on the bus; all others carry nothing."""
PAYLOADS["clientDisconnected"] = (ParticipantChanged, {"agents", "numAgentsConnected"})


def test_the_reference_has_29_events_and_each_has_a_story():
    assert len(EVENTS) == 29
    assert set(STORIES) == set(EVENTS)
    assert {name for name, event in EVENTS.items() if Transport.V2 in event.transports} == set(STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_an_event_carries_its_struct_and_on_the_bus_its_documented_keys(both, name):
    STORIES[name](both)
    kind, keys = PAYLOADS.get(name, (type(None), set()))
    heard = [event for event in both.heard.events if event.name == name]
    assert heard
    assert all(type(event.data) is kind for event in heard)
    on_bus = [event for event in both.bus.events if event.name == f"WebChatService.{name}"]
    assert len(on_bus) == len(heard)
    assert all(set(event.data) == keys for event in on_bus), on_bus
    assert {event.publisher for event in on_bus} == {"WebChatService"}
    assert abs(heard[0].time - 1_750_000_000) < 120


def test_both_faces_hear_the_same_events_in_the_same_order(both):
    ended(both)
    assert [event.name.removeprefix("WebChatService.") for event in both.bus.events] == both.heard.names


def test_started_carries_the_session_data_under_their_documented_names(both):
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


def test_a_message_is_carried_normalised_and_beside_it_as_the_wire_has_it(both):
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


def test_a_connection_event_counts_agents_and_supervisors(both):
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


def test_a_bot_is_known_by_its_party_style_and_is_no_agent(both):
    started(both)
    both.server.bot("Robo").join()
    both.advance(3)
    connected = both.heard.last("botConnected")
    assert connected.message.sender.type == "Bot"
    assert (connected.agents, connected.num_agents_connected) == ({}, 0)


def test_at_endchat_nobody_is_connected_any_more_and_no_message_is_shown(both):
    ended(both)
    farewell = both.heard.names[-5:]
    assert farewell == [
        "supervisorDisconnected", "agentDisconnected", "botDisconnected", "clientDisconnected", "ended",
    ]  # fmt: skip
    for name in farewell[:-1]:
        assert both.bus.last(name)["numAgentsConnected"] == 0
        assert "message" not in both.bus.last(name)
        assert not any(agent["connected"] for agent in both.bus.last(name)["agents"].values())


def test_an_agents_typing_carries_the_typing_message_and_an_implied_stop_none(both):
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


def test_an_error_carries_the_answer(both):
    refused_poll(both)
    response = both.heard.last("error").response
    assert isinstance(response, Response)
    assert (response.status, response.errors[0]["code"]) == (500, 500)
    assert response.url.endswith("/refresh")
    assert both.bus.last("error")["status"] == 500


def test_a_failed_restore_carries_the_answer_where_there_is_one(both):
    restore_failed(both)
    assert both.heard.last("restoreFailed").response is None
    assert both.bus.last("restoreFailed") == {}
    again(both)
    both.server.faults.add(operation="refresh", http_status=500)
    opened(both)
    assert both.heard.last("restoreFailed").response.status == 500
    assert both.bus.last("restoreFailed")["status"] == 500


def test_restored_always_tells_whether_asynchronously(both):
    restored(both)
    assert both.heard.last("restored") == Restored(is_async=False)
    assert both.bus.last("restored") == {"async": False}


def test_ready_is_replayed_to_late_subscribers_on_both_faces(both):
    opened(both)
    late, late_on_bus = [], []
    both.chat.subscribe("ready", late.append)
    both.bus.plugin.subscribe("WebChatService.ready", late_on_bus.append)
    assert [event.name for event in late] == ["ready"]
    assert [event.data for event in late_on_bus] == [{}]
    assert both.heard.names == ["ready"]


def test_the_idle_countdown_of_the_server_is_handed_on(both):
    started(both)
    both.http.answer("refresh", envelope(message(2, "Still there?", "IdleAlert"), idleTimerExpire=45))
    both.chat.step()
    assert both.heard.last("messageReceived").idle_time_count_down == 45
    assert both.bus.last("messageReceived")["idleTimeCountDown"] == 45


# -- order -------------------------------------------------------------------------------------------------------------


def test_a_whole_chat_in_order(both):
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


def test_what_the_server_ends_is_told_after_the_content(both):
    started(both)
    both.agent().say("Bye")
    both.server.end()
    both.advance(3)
    assert both.heard.names[5:] == [
        "agentConnected", "agentDisconnected", "messageReceived", "pollingStopped", "ended",
    ]  # fmt: skip
    assert both.heard.texts() == ["Bye"]


def test_an_end_without_polling_does_not_tell_of_its_stop(both):
    started(both)
    both.chat.stop_poll()
    both.heard.take()
    both.chat.end_chat()
    assert both.heard.take() == ["clientDisconnected", "ended"]


def test_what_was_left_by_the_transcript_is_not_told_again_at_the_end(both):
    started(both)
    both.agent().leave()
    both.advance(3)
    both.heard.take()
    both.chat.end_chat()
    assert both.heard.take() == ["pollingStopped", "clientDisconnected", "ended"]


def test_the_way_back_is_told_at_once_and_before_the_content(both):
    started(both)
    both.fail_polls(6, drop=True)
    both.agent()
    both.heard.take()
    both.chat.step()
    assert both.heard.take() == [
        "chatServerBackOnline", "connectionRestored", "reconnected", "agentConnected", "messageReceived",
    ]  # fmt: skip


def test_restored_comes_before_what_it_brings_and_polling_after(both):
    restored(both)
    assert both.heard.take() == ["ready", "restored", "clientConnected", "messageReceived", "pollingStarted"]
    assert both.chat.state == "polling"


def test_restored_offline_comes_before_polling_and_the_transcript_with_the_first_good_answer(both):
    back_online_after_a_restore(both)
    assert both.heard.take() == [
        "ready", "restored", "restoredOffline", "pollingStarted",
        "chatServerBackOnline", "clientConnected", "messageReceived",
    ]  # fmt: skip
    assert both.bus.last("messageReceived")["restoring"] is True
    assert both.bus.last("messageReceived")["messages"][0]["restoring"] is True


def test_events_of_people_say_that_they_are_restored_too(both):
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
def test_one_flag_says_whether_anybody_types(both, act, published):
    started(both)
    ann, sue = both.agent(), both.server.supervisor("Sue").join()
    both.advance(3)
    both.heard.take()
    act(ann, sue)
    both.advance(3)
    assert both.heard.take() == [*published, "messageReceived"] if published else ["messageReceived"]


def test_external_parties_come_and_go_in_silence(both):
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
