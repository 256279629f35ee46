"""Test events as JSON records without secrets, and as lines without control characters."""

from __future__ import annotations

import json
import time

import pytest

from webchat_fsm import CommandRejected, Message, MessageReceived, Response, Sender, SessionData, State
from webchat_fsm._cli.demo import Report, details, message_texts
from webchat_fsm._cli.output import (
    Screen,
    as_json,
    event_lines,
    event_record,
    masked,
    printable,
    rejection,
    response_problem,
)
from webchat_fsm._runtime.delivery import ChatEvent
from webchat_fsm.lifecycle._events import (
    EVENTS,
    AgentTyping,
    Failure,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle._table import Trigger
from webchat_fsm.lifecycle._transports import Transport

ANN = Sender(id=2, type="Agent", name="Ann")
SECRET = "a1b2c3-the-secret"
SESSION = SessionData(session_id="0001", secure_key=SECRET, alias="145", user_id="77", token=SECRET)


def received(*messages: Message, **more: object) -> ChatEvent[MessageReceived]:
    originals = ({"secureKey": SECRET, "text": "hi"},)
    data = MessageReceived(messages=messages, original_messages=originals, session_data=SESSION, **more)
    return ChatEvent("messageReceived", data, 12.3456)


def lines(*messages: Message) -> list[str]:
    return [f"{line.who}|{line.text}" for line in event_lines(received(*messages))]


@pytest.mark.parametrize("transport", list(Transport))
def test_no_event_record_contains_a_secret(transport):
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


def test_masking_keeps_structure_and_empty_values():
    assert masked({"sessionData": {"secureKey": "s", "alias": "1"}}) == {
        "sessionData": {"secureKey": "***", "alias": "1"}
    }
    assert masked([{"Authorization": "Bearer s"}, ("X-Api-Key", 1)]) == [{"Authorization": "***"}, ["X-Api-Key", 1]]
    assert masked({"token": ""}) == {"token": ""}


def test_record_is_one_line_of_ascii_json():
    line = as_json(event_record(received(Message(text="Zwölf\nUhr", sender=ANN)), Transport.V2))
    assert line.isascii()
    assert "\n" not in line
    record = json.loads(line)
    assert record["data"]["messages"][0]["text"] == "Zwölf\nUhr"
    assert record["time"] == 12.346


def test_transition_record_has_both_states(capsys):
    report = Report(Screen(colour=False, wrap=False), as_json_lines=True)
    report.transition((State.IDLE, Trigger.START, State.STARTING))
    record = json.loads(capsys.readouterr().out)
    assert record.pop("time") == pytest.approx(time.time(), abs=60.0)
    assert record == {"transition": "startChat", "from": "idle", "to": "starting"}


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
def test_control_characters_from_the_network_are_escaped(text, shown):
    assert printable(text) == shown
    assert lines(Message(text=text, sender=Sender(type="Agent", name=text))) == [f"{shown}|{shown}"]


def test_message_line_depends_on_the_message_type():
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
        "|Ann sent a link: https://a.example",
        "|Ann sent the file a.txt (20 bytes), id 8F",
        "|Ann sent the file (no name)",
        "|Still there?",
        "External|(Novelty)",
    ]


def test_failure_line_names_its_cause():
    refused = Response(status=503, errors=[{"code": 1, "advice": "try later"}])
    [line] = event_lines(ChatEvent("error", Failure(response=refused), 1.0))
    assert (line.style, line.text) == ("warning", "The chat server returned an error: HTTP status 503, try later.")
    [line] = event_lines(ChatEvent("restoreFailed", RestoreFailed(), 1.0))
    assert line.text == "The saved chat could not be restored."
    assert response_problem(Response()) == "no complete response"
    assert list(event_lines(ChatEvent("pollingStarted", None, 1.0))) == []


def test_restore_with_missing_messages_prints_a_warning():
    for missing in (4, None):
        event = ChatEvent("restored", Restored(missing=missing), 1.0)
        assert [line.style for line in event_lines(event)] == ["warning", "notice"]
    assert [line.style for line in event_lines(ChatEvent("restored", Restored(), 1.0))] == ["notice"]


def test_rejection_names_legal_states_or_server_errors():
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


def test_demo_prints_each_detail_once():
    typing, joined = (Message(type=kind, sender=ANN) for kind in ("TypingStarted", "ParticipantJoined"))
    assert list(message_texts(received(typing, joined).data)) == []
    both = received(Message(text="a", sender=ANN), Message(text="b", sender=ANN))
    assert list(message_texts(both.data)) == ["Ann: a", "Ann: b"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (ParticipantChanged(message=Message(sender=ANN), num_agents_connected=1), "Ann"),
        (ParticipantChanged(), "agents connected: 0"),
        (AgentTyping(message=Message(sender=ANN)), "Ann"),
        (Restored(is_async=True), "asynchronous"),
        (Restored(), ""),
        (Restored(missing=4), "4 missing"),
        (Restored(is_async=True, missing=None), "asynchronous, messages may be missing"),
        (Failure(response=Response(status=503)), "HTTP status 503"),
        (None, ""),
    ],
)
def test_demo_details_depend_on_the_event_data(data, text):
    assert details(data) == text
