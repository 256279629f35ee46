"""Test ``webchat-fsm replay``: its text, diagrams, JSON and exit codes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from webchat_fsm._cli import main
from webchat_fsm.testing import Recording


@pytest.fixture
def recorded(webchat, webchat_timeline, webchat_server, webchat_recording, tmp_path):
    """Record a chat with a lost connection into a file."""
    webchat.start_chat(nickname="Jonny")
    webchat_server.agent("Ann").join().say("Hello; it's me -- #1")
    webchat_server.faults.add(operation="refresh", drop=True, skip=1)
    webchat_timeline.advance(10)
    webchat.end_chat()
    webchat_recording.save(tmp_path / "chat.jsonl")
    return tmp_path / "chat.jsonl"


def test_replay_prints_the_chat_in_order(recorded, capsys):
    assert main(["replay", str(recorded)]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "A chat over v2, recorded from 1750000000.000 s since the epoch"
    assert "     0.000  the user gives startChat form: nickname: 'Jonny'" in output
    assert "     0.500  no answer: refresh: the connection was lost before the answer was complete" in output
    assert "                * reconnected" in output
    assert output[-1].startswith("Replayed just as recorded: ")


def test_replay_diagram_draws_the_sequence_and_the_path(recorded, capsys):
    assert main(["replay", str(recorded), "--diagram"]) == 0
    drawn = capsys.readouterr().out
    assert drawn.count("```mermaid") == 2
    assert "  U->>S: startChat\n" in drawn
    assert "  C--xS: refresh: the connection was lost before the answer was complete\n" in drawn
    assert "Hello, it's me - - no.1" in drawn
    assert "  Note over S: 1.8 s 6 polls without content, 1.8 s .. 8.2 s\n" in drawn
    assert "class idle,starting,active,polling,ended walked" in drawn


def test_replay_diagram_as_svg_is_one_picture(recorded, capsys):
    assert main(["replay", str(recorded), "--diagram", "svg", "--theme", "dark"]) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith("<svg ")
    assert drawn.endswith("</svg>\n")
    assert "prefers-color-scheme" not in drawn
    assert "Hello; it&#x27;s me" in drawn or "Hello; it's me" in drawn


@pytest.mark.parametrize("form", [[], ["--json"], ["--diagram"]])
def test_theme_without_colours_is_refused(recorded, capsys, form):
    assert main(["replay", str(recorded), "--theme", "dark", *form]) == 1
    printed = capsys.readouterr()
    assert (printed.out, "--theme is for --diagram svg" in printed.err) == ("", True)


def test_diagram_counts_the_transitions_of_a_recording(recorded, capfdbinary):
    assert main(["diagram", "--walked", str(recorded), "--format", "mermaid"]) == 0
    drawn = capfdbinary.readouterr().out.decode()
    assert "idle --> starting : startChat \u00d71" in drawn
    assert "poll answered \u00d70" in drawn


def test_replay_json_prints_one_object(recorded, capsys):
    assert main(["replay", str(recorded), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["same"] is True
    assert output["transitions"][1] == {
        "time": 1750000000.0,
        "from": "idle",
        "transition": "startChat",
        "to": "starting",
    }
    assert [event["event"] for event in output["events"]][-1] == "ended"


def test_replay_that_differs_exits_with_1(recorded, capsys):
    recording = Recording.read(recorded)
    next(line for line in recording.lines if line.get("events"))["events"].clear()
    recording.save(recorded)
    assert main(["replay", str(recorded)]) == 1
    output = capsys.readouterr()
    assert "with 1 difference: " in output.out
    assert output.err.startswith("webchat-fsm: line 2: events: recorded [], now [{'event': 'ready'")


def test_replay_of_an_invalid_file_fails_in_one_line(tmp_path, capsys):
    (tmp_path / "chat.jsonl").write_text("not a recording\n")
    assert main(["replay", str(tmp_path / "chat.jsonl")]) == 1
    assert capsys.readouterr().err.startswith(f"webchat-fsm: {tmp_path / 'chat.jsonl'}: line 1: JSON is malformed")
    assert main(["replay", str(tmp_path / "nowhere.jsonl")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_replay_of_a_torn_file_omits_the_last_line(recorded, capsys):
    recorded.write_bytes(recorded.read_bytes()[:-20])
    lines = recorded.read_bytes().count(b"\n") + 1
    assert main(["replay", str(recorded)]) == 0
    assert capsys.readouterr().err == f"webchat-fsm: {recorded}: line {lines} is incomplete and is left out\n"
    assert main(["replay", str(recorded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torn"] == lines


def places(value: object) -> Iterator[tuple[object, object]]:
    """Yield every container of a JSON value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize(
    "form",
    [[], *(pytest.param(form, marks=pytest.mark.soak) for form in (["--json"], ["--diagram"])), ["--diagram", "svg"]],
)
@pytest.mark.parametrize("other", [None, "x", -1, [], {}, [[]], {"messages": [{}]}, True, 1e308])
def test_replay_of_an_altered_value_fails_without_traceback(recorded, capsys, form, other):
    draw, lines = random.Random(1), recorded.read_text().splitlines()
    for _ in range(6):
        number = draw.randrange(len(lines))
        line = json.loads(lines[number])
        container, key = draw.choice(list(places(line)))
        container[key] = other
        recorded.write_text("\n".join([*lines[:number], json.dumps(line), *lines[number + 1 :]]))
        assert main(["replay", str(recorded), *form]) in (0, 1)
        output = capsys.readouterr().err
        assert all(complaint.startswith("webchat-fsm: ") for complaint in output.splitlines())
