"""``webchat-fsm replay``: a story, drawings, or JSON, and an exit code."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from webchat_fsm.cli import main
from webchat_fsm.testing import Recording


@pytest.fixture
def recorded(webchat, webchat_timeline, webchat_server, webchat_recording, tmp_path):
    """A recorded chat with a lost connection in it, in a file."""
    webchat.start_chat(nickname="Jonny")
    webchat_server.agent("Ann").join().say("Hello; it's me -- #1")
    webchat_server.faults.add(operation="refresh", drop=True, skip=1)
    webchat_timeline.advance(10)
    webchat.end_chat()
    webchat_recording.save(tmp_path / "chat.jsonl")
    return tmp_path / "chat.jsonl"


def test_it_is_told_as_a_story(recorded, capsys):
    assert main(["replay", str(recorded)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "A chat over v2, recorded from 1750000000.000 s since the epoch"
    assert "     0.000  the user gives startChat form: nickname: 'Jonny'" in told
    assert "     0.500  no answer: refresh: the connection was lost" in told
    assert "                * reconnected" in told
    assert told[-1].startswith("Replayed just as recorded: ")


def test_it_is_drawn_as_a_sequence_and_as_the_path_walked(recorded, capsys):
    assert main(["replay", str(recorded), "--diagram"]) == 0
    drawn = capsys.readouterr().out
    assert drawn.count("```mermaid") == 2
    assert "  U->>S: startChat\n" in drawn
    assert "  C--xS: refresh: the connection was lost\n" in drawn
    assert "Hello, it's me - - no.1" in drawn
    assert "class idle,starting,active,polling,ended walked" in drawn


def test_it_is_given_to_machines_as_json(recorded, capsys):
    assert main(["replay", str(recorded), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["same"] is True
    assert told["transitions"][1] == {
        "time": 1750000000.0,
        "from": "idle",
        "transition": "startChat",
        "to": "starting",
    }
    assert [event["event"] for event in told["events"]][-1] == "ended"


def test_a_recording_that_is_not_what_happens_now_is_told_and_fails(recorded, capsys):
    recording = Recording.read(recorded)
    next(line for line in recording.lines if line.get("events"))["events"].clear()
    recording.save(recorded)
    assert main(["replay", str(recorded)]) == 1
    told = capsys.readouterr()
    assert "with 1 difference: " in told.out
    assert told.err.startswith("webchat-fsm: line 2: events: recorded [], now [{'event': 'ready'")


def test_a_file_that_is_no_recording_fails_in_one_line(tmp_path, capsys):
    (tmp_path / "chat.jsonl").write_text("Dear diary\n")
    assert main(["replay", str(tmp_path / "chat.jsonl")]) == 1
    assert capsys.readouterr().err.startswith(f"webchat-fsm: {tmp_path / 'chat.jsonl'}: line 1: JSON is malformed")
    assert main(["replay", str(tmp_path / "nowhere.jsonl")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_file_that_was_cut_in_the_middle_of_a_line_is_replayed_as_far_as_it_goes_and_told(recorded, capsys):
    recorded.write_bytes(recorded.read_bytes()[:-20])
    lines = recorded.read_bytes().count(b"\n") + 1
    assert main(["replay", str(recorded)]) == 0
    assert capsys.readouterr().err == f"webchat-fsm: {recorded}: line {lines} breaks off and is left out\n"
    assert main(["replay", str(recorded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torn"] == lines


def places(value: object) -> Iterator[tuple[object, object]]:
    """Every container in a JSON value, with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("form", [[], ["--json"], ["--diagram"]])
@pytest.mark.parametrize("other", [None, "x", -1, [], {}, [[]], {"messages": [{}]}, True, 1e308])
def test_a_value_that_was_tampered_with_fails_in_words_and_never_in_a_traceback(recorded, capsys, form, other):
    draw, lines = random.Random(1), recorded.read_text().splitlines()
    for _ in range(6):
        number = draw.randrange(len(lines))
        line = json.loads(lines[number])
        container, key = draw.choice(list(places(line)))
        container[key] = other
        recorded.write_text("\n".join([*lines[:number], json.dumps(line), *lines[number + 1 :]]))
        assert main(["replay", str(recorded), *form]) in (0, 1)
        told = capsys.readouterr().err
        assert all(said.startswith("webchat-fsm: ") for said in told.splitlines())
