"""How events are told: to machines without secrets, to people without tricks."""

from __future__ import annotations

import json

import pytest

from webchat_fsm import CommandRejected, Message, MessageReceived, Response, Sender, SessionData, State
from webchat_fsm.cli.telling import (
    as_json,
    details,
    event_record,
    fault,
    masked,
    printable,
    rejection,
    step_record,
    told,
)
from webchat_fsm.lifecycle.events import (
    EVENTS,
    AgentTyping,
    Failure,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle.table import Transport, Trigger
from webchat_fsm.runtime.delivery import ChatEvent

ANN = Sender(id=2, type="Agent", name="Ann")
SECRET = "a1b2c3-the-secret"
SESSION = SessionData(session_id="0001", secure_key=SECRET, alias="145", user_id="77", token=SECRET)


def received(*messages: Message, **more: object) -> ChatEvent[MessageReceived]:
    originals = ({"secureKey": SECRET, "text": "hi"},)
    data = MessageReceived(messages=messages, original_messages=originals, session_data=SESSION, **more)
    return ChatEvent("messageReceived", data, 12.3456)


def lines(*messages: Message) -> list[str]:
    return [f"{line.who}|{line.text}" for line in told(received(*messages))]


@pytest.mark.parametrize("transport", list(Transport))
def test_no_event_shows_a_secret_to_machines(transport):
    envelope = Response(status=200, body={"secureKey": SECRET, "chatEnded": False}, errors=[{"Token": SECRET}])
    payloads = {
        Started: Started(session_data=SESSION),
        MessageReceived: received(Message(text="hi", sender=ANN)).data,
        Failure: Failure(response=envelope),
        RestoreFailed: RestoreFailed(response=envelope),
        Restored: Restored(),
        AgentTyping: AgentTyping(),
        ParticipantChanged: ParticipantChanged(message=Message(user_data={"x-api-key": SECRET})),
        None: None,
    }
    for event in EVENTS.values():
        record = event_record(ChatEvent(event.name, payloads[event.payload], 1.0), transport)
        assert SECRET not in as_json(record)
        assert record["event"] == event.name


def test_a_masked_value_keeps_its_place_and_an_empty_one_its_emptiness():
    assert masked({"sessionData": {"secureKey": "s", "alias": "1"}}) == {
        "sessionData": {"secureKey": "***", "alias": "1"}
    }
    assert masked([{"Authorization": "Bearer s"}, ("X-Api-Key", 1)]) == [{"Authorization": "***"}, ["X-Api-Key", 1]]
    assert masked({"token": ""}) == {"token": ""}


def test_records_are_one_line_of_ascii_that_json_reads_back():
    line = as_json(event_record(received(Message(text="Zwölf\nUhr", sender=ANN)), Transport.V2))
    assert line.isascii()
    assert "\n" not in line
    record = json.loads(line)
    assert record["data"]["messages"][0]["text"] == "Zwölf\nUhr"
    assert record["time"] == 12.346


def test_a_transition_is_a_record_with_both_states():
    step = (State.IDLE, Trigger.START, State.STARTING)
    assert step_record(step, 12.34567) == {
        "transition": "startChat",
        "from": "idle",
        "to": "starting",
        "time": 12.346,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Zwölf €", "plain Zwölf €"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("bell\x07 back\x08 return\r", "bell\\u0007 back\\u0008 return\\u000d"),
        ("one\ntwo", "one / two"),
        ("\u202eesrever", "\\u202eesrever"),
        ("\x9b31m", "\\u009b31m"),
    ],
)
def test_text_from_the_network_cannot_steer_the_terminal(text, shown):
    assert printable(text) == shown
    assert lines(Message(text=text, sender=Sender(type="Agent", name=text))) == [f"{shown}|{shown}"]


def test_messages_are_told_by_who_says_what():
    file = {"file-name": "a.txt", "file-size": "20", "file-id": "8F"}
    assert lines(
        Message(text="Hello", sender=ANN),
        Message(type="TypingStarted", sender=ANN, is_typing=True),
        Message(type="ParticipantJoined", sender=ANN),
        Message(type="PushUrl", text="https://a.example", sender=ANN),
        Message(type="FileUploaded", sender=ANN, file_details=file),
        Message(type="FileUploaded", sender=ANN),
        Message(type="IdleAlert", text="Still there?", sender=Sender(type="External")),
        Message(type="Novelty", sender=Sender(type="External")),
    ) == [
        "Ann|Hello",
        "|Ann (agent) has joined.",
        "|Ann suggests this page: https://a.example",
        "|Ann sent the file a.txt (20 bytes), id 8F",
        "|Ann sent the file (no name)",
        "|Still there?",
        "External|(Novelty)",
    ]


def test_trouble_is_told_with_its_cause():
    refused = Response(status=503, errors=[{"code": 1, "advice": "try later"}])
    [line] = told(ChatEvent("error", Failure(response=refused), 1.0))
    assert (line.kind, line.text) == ("trouble", "The chat server answered badly: HTTP status 503, try later.")
    [line] = told(ChatEvent("restoreFailed", RestoreFailed(), 1.0))
    assert line.text == "The saved chat could not be taken up."
    assert fault(Response()) == "no complete answer"
    assert list(told(ChatEvent("pollingStarted", None, 1.0))) == []


def test_a_restore_with_messages_missing_is_a_trouble():
    for missing in (4, None):
        event = ChatEvent("restored", Restored(missing=missing), 1.0)
        assert [line.kind for line in told(event)] == ["trouble", "notice"]
    assert [line.kind for line in told(ChatEvent("restored", Restored(), 1.0))] == ["notice"]


def test_a_rejection_says_what_would_be_legal_or_what_the_server_says():
    legal = CommandRejected(
        "sendMessage", "There is no active chat session", state=State.IDLE, legal_in=[State.POLLING]
    )
    assert rejection(legal) == "There is no active chat session (legal in: polling)"
    response = Response(status=400, errors=[{"code": 1, "text": "too large"}])
    refused = CommandRejected("sendFile", "refused", state=State.POLLING, response=response, legal_in=[State.POLLING])
    assert rejection(refused) == "refused: too large"
    missing = Response(status=404, errors=[{"code": 1, "text": "File not found"}])
    reason = "the server refuses: File not found"
    assert rejection(CommandRejected("downloadFile", reason, state=State.POLLING, response=missing)) == reason


def test_who_watches_all_events_sees_their_details_once():
    assert (
        details(received(Message(type="TypingStarted", sender=ANN), Message(type="ParticipantJoined", sender=ANN)))
        == ()
    )
    assert details(received(Message(text="a", sender=ANN), Message(text="b", sender=ANN))) == ("Ann: a", "Ann: b")
    joined = ParticipantChanged(message=Message(sender=ANN), num_agents_connected=1)
    assert details(ChatEvent("agentConnected", joined, 1.0)) == ("Ann",)
    assert details(ChatEvent("clientDisconnected", ParticipantChanged(), 1.0)) == ("agents connected: 0",)
    assert details(ChatEvent("restored", Restored(is_async=True), 1.0)) == ("asynchronous",)
    assert details(ChatEvent("restored", Restored(), 1.0)) == ("",)
    assert details(ChatEvent("restored", Restored(missing=4), 1.0)) == ("4 missing",)
    assert details(ChatEvent("ready", None, 1.0)) == ("",)
