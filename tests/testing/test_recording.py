"""Test that a session is recorded without secrets and replays identically."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import stat

import msgspec
import pytest

from tests.limits import LONG
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm._core import on_poll
from webchat_fsm._wire import gms_v2
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ServerOptions
from webchat_fsm.testing import Recorder, Recording, RecordingError, TestServer, Timeline, replay, state_at
from webchat_fsm.testing._chaos import draw_faults

CARD = "4711-0815-3333"
SECRETS = {
    "apikey": "api-key-of-the-customer",
    "userData": {"tier": "gold-plated-customer"},
    "client": {"headers": {"Authorization": "Bearer private-token"}},
}


@pytest.fixture
def recorded(webchat_server):
    """Give the function that makes recorded clients of a transport."""
    webchat_server.records = True
    return webchat_server.client


@pytest.fixture
def play(webchat_timeline, webchat_server):
    """Give a function that runs a varied chat in two services and returns the recordings of both."""

    def run_chat(transport: Transport) -> tuple[Recording, Recording]:
        webchat_server.records = True
        store = MemoryStore()
        chat = webchat_server.client(transport, SECRETS, store)
        chat.open()
        chat.command("sendMessage", {"message": "too early"})
        chat.start_chat(nickname="Jonny", user_data={"page": "a-private-page"})
        ann = webchat_server.agent("Ann").join()
        ann.say("Hello")
        chat.register_pre_processor(upper_cased)
        webchat_timeline.advance(2)
        chat.add_prefilter(re.compile("^hm+$", re.IGNORECASE))
        chat.send_typing("my card is")
        chat.send_filtered_message(f"my card is {CARD}", re.compile(r"\d{4}-\d{4}-\d{4}"))
        ann.say(f"I have noted {CARD}")
        ann.say("HMM")
        chat.send_message("and {start:123456789} too")
        chat.command("sendFile", {"files": [Paper(b"the secret plan")]})
        chat.command("downloadFile", {"fileId": "unknown"})
        chat.command("registerTypingPreviewInput", {"input": "no input"})
        chat.update_user_data({"mood": "a-private-mood"})
        webchat_timeline.advance(5)
        webchat_server.load_faults(draw_faults(3, transport, 12))
        for number in range(6):
            ann.say(f"Line {number}")
            webchat_timeline.advance(4)
        chat.close()
        webchat_timeline.advance(20)
        later = webchat_server.client(transport, SECRETS, store)
        later.open()
        webchat_timeline.advance(5)
        later.command("endChat")
        return webchat_server.recording(chat), webchat_server.recording(later)

    return run_chat


class Paper(io.BytesIO):
    name = "plan.txt"


def upper_cased(message):
    return {**message, "text": message["text"].upper(), "loud": True}


@pytest.mark.parametrize("transport", Transport)
def test_replay_gives_the_same_decisions_and_requests(play, transport):
    for recording in play(transport):
        again = replay(recording)
        assert again.differences == []
        assert again.transitions == recording.transitions
        assert again.events == recording.events
        assert len(recording.events) > 5


@pytest.mark.parametrize("transport", Transport)
def test_recording_contains_no_secret(play, webchat_server, transport):
    text = "\n".join(json.dumps([recording.head, *recording.lines]) for recording in play(transport))
    keys = {chat.secure_key for chat in webchat_server.core.chats}
    headers = {
        value
        for logged in webchat_server.core.requests
        for name, value in logged.headers.items()
        if name in ("x-nexus-client-key", "x-api-key", "apikey", "authorization", "cookie")
    }
    private = {CARD, "123456789", "the secret plan", "HMM", "^hm", "gold-plated", "a-private"}
    assert [secret for secret in keys | headers | private if secret in text] == []
    assert keys
    assert headers
    assert "Hello" in text


def test_recording_lists_commands_transitions_and_events(recorded, webchat_timeline, webchat_server):
    chat = recorded()
    chat.open()
    chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    chat.send_message("hello")
    recording = webchat_server.recording(chat)
    assert recording.commands == ["startChat", "sendMessage"]
    assert recording.requests == ["start", "refresh", "send"]
    assert [(step.source, step.dest) for step in recording.transitions][:3] == [
        ("idle", "idle"),
        ("idle", "starting"),
        ("starting", "polling"),
    ]
    assert [event.name for event in recording.events][:3] == ["ready", "started", "pollingStarted"]
    assert recording.transport is Transport.V2


def test_state_at_returns_the_session_at_a_time(recorded, webchat_timeline, webchat_server):
    chat = recorded(config={"pollExceptionLimit": 0})
    chat.open()
    begun = webchat_timeline.now()
    webchat_timeline.advance(10)
    chat.start_chat(nickname="Jonny")
    webchat_server.agent("Ann").join().say("Hello")
    webchat_timeline.advance(0.2)
    webchat_server.faults.add(operation="refresh", drop=True)
    webchat_timeline.advance(10)
    recording = webchat_server.recording(chat)
    assert state_at(recording, begun - 1).state == "idle"
    assert state_at(recording, begun + 9.999).messages == ()
    known = state_at(recording, begun + 10)
    assert known.state == "polling"
    assert [message.text for message in known.messages] == ["", "", "Hello"]
    assert [agent.name for agent in known.agents.values()] == ["Ann"]
    assert known.timers == {"poll": begun + 10.5}
    assert state_at(recording, begun + 10.5).state == "offline"
    assert state_at(recording, begun + 20).state == "polling"


def test_invalid_answer_gives_the_same_error_in_replay(recorded, webchat_timeline, webchat_server):
    body = b'{"statusCode": 404, "message": "\xff"}'
    chat = recorded()
    chat.open()
    chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    webchat_server.faults.add(operation="refresh", body=body)
    with webchat_timeline.expect(chat, "error") as published:
        webchat_timeline.advance(1)
    again = replay(webchat_server.recording(chat)).check()
    [error] = [event for event in again.events if event.name == "error"]
    assert error.data["errors"] == published[0].data.response.errors


def test_replay_finds_a_changed_core(recorded, webchat_timeline, webchat_server, monkeypatch):
    chat = recorded()
    chat.open()
    chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    recording = webchat_server.recording(chat)
    monkeypatch.setitem(on_poll.POLLED, on_poll.ResponseKind.GOOD, on_poll.POLLED[on_poll.ResponseKind.BAD])
    with pytest.raises(AssertionError, match=r"events: recorded .*clientConnected"):
        replay(recording).check()


def test_replay_finds_a_changed_dialect(recorded, webchat_timeline, webchat_server, monkeypatch):
    chat = recorded()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("hello")
    recording = webchat_server.recording(chat)
    monkeypatch.setattr(gms_v2, "_send", lambda send: [("text", send.message)])
    assert [difference.split(": ")[1] for difference in replay(recording).differences] == ["request"]


def test_replay_keeps_the_order_of_two_threads(tmp_path):
    with Timeline.frozen("injected") as timeline:
        server = TestServer(timeline)
        recorder = Recorder(tmp_path / "chat.jsonl")
        chat = WebChatService(server.config(), http=server.http(), recorder=recorder)
        with chat:
            chat.start_chat(nickname="Jonny")
            server.agent("Ann").join()
            chat.wait_for("agentConnected", LONG)
            for number in range(20):
                chat.send_message(f"message {number}")
            chat.wait_for("messageReceived", LONG, lambda event: event.data.messages[-1].text == "message 19")
    recording = Recording.read(tmp_path / "chat.jsonl")
    assert replay(recording).check().events == recording.events
    assert recording.requests.count("send") == 20


def test_file_is_private_and_not_overwritten(tmp_path):
    Recorder(tmp_path / "chat.jsonl")
    assert stat.S_IMODE((tmp_path / "chat.jsonl").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "chat.jsonl")


def test_file_is_replaced_with_overwrite(tmp_path):
    (tmp_path / "chat.jsonl").write_text("not a recording\n")
    (tmp_path / "chat.jsonl").chmod(0o644)
    Recorder(tmp_path / "chat.jsonl", overwrite=True)
    assert (tmp_path / "chat.jsonl").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "chat.jsonl").stat().st_mode) == 0o600


def test_full_disk_ends_the_recording_and_not_the_chat(webchat_server, webchat_timeline, tmp_path, caplog):
    recorder = Recorder(tmp_path / "chat.jsonl")
    chat = WebChatService(
        webchat_server.config(), http=webchat_server.http(), driver=webchat_timeline.driver, recorder=recorder
    )
    with chat, caplog.at_level(logging.ERROR, "webchat_fsm"):
        os.remove(tmp_path / "chat.jsonl")
        (tmp_path / "chat.jsonl").mkdir()
        chat.start_chat(nickname="Jonny")
        webchat_timeline.advance(10)
        assert chat.state == "polling"
    assert [record.getMessage().startswith("the recording ends here") for record in caplog.records] == [True]


def test_recorder_rejects_a_second_service(webchat_server):
    recorder = Recorder()
    WebChatService(webchat_server.config(), recorder=recorder, http=webchat_server.http())
    with pytest.raises(ValueError, match="records one service"):
        WebChatService(webchat_server.config(), recorder=recorder, http=webchat_server.http())


def test_service_without_recorder_has_no_recording(webchat, webchat_server):
    with pytest.raises(LookupError):
        webchat_server.recording(webchat)


HEAD = {"recording": 1, "transport": "v2", "config": {"dataURL": "http://chat.test/"}}
STEP = {"time": 0.0, "timer": 0.0, "draw": 0.0, "state": "idle", "transitions": [], "events": []}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: this is no recording"),
        ([{"event": "ready"}], "line 1: this is no recording"),
        ([{"recording": 2}], "line 1: a recording of version 2, and .* 1: replay it with"),
        ([{"recording": "1"}], "line 1: recording: expected int, got str"),
        ([{**HEAD, "transport": "v9"}], "line 1: transport: invalid enum value 'v9'"),
        ([{**HEAD, "transport": "v3"}], "line 1: transport: v3, but the configuration says v2"),
        ([{"recording": 1, "transport": "v2"}], "line 1: object missing required field config"),
        ([{"recording": 1, "transport": "v2", "config": {"dataURL": 3}}], "line 1: the configuration: .*dataURL"),
        ([HEAD, {**STEP, "tick": "unknown", "preview": ""}], "line 2: tick: invalid enum value 'unknown'"),
        ([HEAD, {**STEP, "answered": 1, "trouble": []}], "line 2: request 1 was made by no line before; are"),
        ([HEAD, {**STEP, "answered": 1, "status": 200}], "line 2: an answer needs status and headers, fault and url"),
        ([HEAD, {**STEP, "interrupted": 1}], "line 2: request 1 was made by no line before"),
        ([HEAD, {"time": 1.0, "request": 1}], "line 2: object missing required field operation"),
        ([HEAD, {**STEP, "command": "unknown", "data": {}, "by": "user"}], "line 2: there is no command 'unknown'"),
        ([HEAD, {**STEP, "opened": None}, {**STEP, "slept": 1}], "line 3: an unknown kind of step"),
        ([HEAD, {**STEP, "opened": {"$saved": {}}}], "line 2 cannot be played: ValidationError: "),
        ([HEAD, {**STEP, "opened": None, "time": "noon"}], "line 2: time: expected float, got str"),
        ([HEAD, {**STEP, "opened": None, "transitions": [["idle"]]}], r"line 2: transitions\[0\]: expected array of"),
        ([HEAD, {**STEP, "opened": None, "outcome": {"resolved": False}}], "line 2: outcome: a rejection needs its"),
        ([HEAD, {**STEP, "opened": None}, HEAD], "line 3: another recording begins here; a file holds one"),
    ],
)
def test_invalid_recording_is_rejected_with_its_line(lines, message):
    with pytest.raises(RecordingError, match=message):
        replay(Recording.parse(b"\n".join(map(msgspec.json.encode, lines))))


def test_invalid_json_is_rejected_except_a_torn_last_line():
    head, step = msgspec.json.encode(HEAD), msgspec.json.encode({**STEP, "opened": None, "transitions": []})
    for wrong in (b'{"torn', b"", b"[]"):
        with pytest.raises(RecordingError, match="line 2"):
            Recording.parse(b"\n".join([head, wrong, step]))
    with pytest.raises(RecordingError, match="line 3"):
        Recording.parse(b"\n".join([head, step, b"not a recording"]))
    recording = Recording.parse(b"\n".join([head, step, b'{"torn']))
    assert (len(recording.lines), recording.torn) == (1, 3)


def test_empty_lines_at_the_end_are_ignored():
    head, step = msgspec.json.encode(HEAD), msgspec.json.encode({**STEP, "opened": None})
    recording = Recording.parse(b"\r\n".join([head, step, b"", b"  ", b""]))
    assert (len(recording.lines), recording.torn) == (1, None)


def test_text_sent_before_its_prefilter_stays_visible(recorded, webchat_timeline, webchat_server):
    chat = recorded()
    chat.open()
    chat.start_chat(nickname="Jonny")
    ann = webchat_server.agent("Ann").join()
    ann.say("see you")
    webchat_timeline.advance(1)
    chat.add_prefilter(re.compile("see you"))
    ann.say("see you")
    webchat_timeline.advance(3)
    recording = webchat_server.recording(chat)
    replay(recording).check()
    texts = [
        one["text"] for event in recording.events if event.name == "messageReceived" for one in event.data["messages"]
    ]
    assert texts == ["", "", "see you"]


def test_token_is_masked_by_a_token_of_the_same_session(webchat_timeline):
    server = TestServer(webchat_timeline, ServerOptions(token_ttl=3600))
    server.records = True
    chat = server.client("v3")
    chat.open()
    chat.start_chat(nickname="Jonny")
    real = chat.get_session_data()
    started = next(event for event in server.recording(chat).events if event.name == "started")
    server.close()
    shown = started.data["data"]
    assert (shown["sessionId"], shown["participantId"]) == (real.session_id, real.participant_id)
    assert shown["token"] != real.token
    assert shown["token"].endswith(".masked")


def test_restore_of_several_pages_replays(webchat_timeline, webchat_server, recorded, webchat_recording):
    store = MemoryStore()
    with recorded("v3-async", store=store) as chat:
        chat.start_chat(nickname="Jonny")
        agent = webchat_server.agent("Ann").join()
        webchat_timeline.advance(3)
    for number in range(60):
        agent.say(f"missed {number}")
    with recorded("v3-async", store=store) as chat:
        assert len(chat.get_transcript().messages) == 62
    recording = webchat_recording.of(chat)
    assert replay(recording).check().events == recording.events


@pytest.mark.parametrize("way", [Transport.V2, Transport.V3])
@pytest.mark.parametrize("value", [471108153333, 4711.5, True])
def test_number_hidden_by_a_prefilter_is_masked_and_replays(webchat_server, webchat_timeline, way, value):
    webchat_server.records = True
    chat = webchat_server.client(way)
    chat.open()
    chat.add_prefilter(re.compile(r"^(\d+(\.\d)?|true)$"))
    chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(5)
    messages = "$.messages" if way.gms else "$.data.messages"
    webchat_server.load_faults([{"operation": "refresh", "member": f"{messages}[1].text", "value": value}])
    ann = webchat_server.agent("Ann").join()
    ann.say("to be hidden")
    webchat_timeline.advance(5)
    assert chat.get_transcript().messages[-1].type == "ParticipantJoined"
    recording = webchat_server.recording(chat)
    assert json.dumps(value) not in json.dumps([line.get("body") for line in recording.lines if "body" in line])
    assert any("masked-text-1" in json.dumps(line) for line in recording.lines)
    replay(recording).check()
