"""Check the explorer's modules without DOM in node: the interpreter, the walks that are copied, and recordings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from webchat_fsm.lifecycle._legality import COMMANDS, NOT_READY
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._transports import Transport

pytestmark = pytest.mark.needs("node")

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "webchat_fsm" / "diagram" / "explorer"
LIFECYCLE = ROOT / "diagrams" / "lifecycle.json"
SCRIPTS = Path(__file__).parent / "explorer"

HEAD = {"recording": 1, "transport": "v2", "config": {}}


def node(script: str, *arguments: object, text: str = "") -> Any:
    """Run a script with arguments; return the JSON that it prints."""
    line = ["node", str(SCRIPTS / script), str(MODULES), str(LIFECYCLE), *map(str, arguments)]
    done = subprocess.run(line, input=text, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def judge(expression: str, text: str = "") -> Any:
    return node("judge.mjs", expression, text=text)


def lines(*given: object) -> str:
    return "\n".join(json.dumps(line) for line in given)


def problem(*given: object, torn: str = "") -> str:
    """Return the text with which a recording of these lines is refused."""
    expression = "(() => { try { readRecording(input); return ''; } catch (error) { return error.message; } })()"
    return judge(expression, lines(*given) + torn)


def step(time: float, **more: object) -> dict[str, object]:
    return {"time": time, "state": "polling", "transitions": [], "events": [], **more}


# -- the interpreter ---------------------------------------------------------------------------------------------------


def test_refusals_equal_those_of_the_python_rules():
    expression = """table.transports.flatMap(({ transport }) => table.commands.flatMap((rule) =>
        table.states.map(({ state }) => [rule.command, state, transport, refusal(rule, state, transport)])))"""
    judged = judge(expression)
    assert len(judged) == len(COMMANDS) * len(State) * len(Transport)
    for command, state, transport, text in judged:
        assert text == COMMANDS[command].refuse(State(state), Transport(transport)), (command, state, transport)


def test_closed_service_refuses_what_needs_it_open():
    expression = 'table.commands.map((rule) => [rule.command, refusalIn(table, rule, newSession(table, "v2"))])'
    refused = {command for command, text in judge(expression) if text == NOT_READY}
    assert refused == {rule.name for rule in COMMANDS.values() if not rule.any_time}


def test_otherwise_needs_an_earlier_row_of_the_transport():
    expression = """table.transports.flatMap(({ transport }) => table.transitions
        .filter((row) => row.transports.includes(transport) && guardText(table, row, transport) === "otherwise")
        .map((row) => [transport, row.source, row.trigger]))"""
    found = {tuple(one) for one in judge(expression)}
    assert ("cometd", "active", "poll failed") in found
    assert [one for one in found if one[2] == "close"] == [], "each transport has one row"


def test_private_command_is_the_services_own_by_transport():
    expression = 'table.transports.map(({ transport }) => [transport, causeOf(table, "restore", transport)])'
    assert dict(judge(expression)) == {"v2": "service", "cometd": "service", "v3": "service", "v3-async": "command"}


def test_offline_begins_above_the_limit_and_a_poll_ends_it():
    expression = """replay(table, "v3", 1, ["open", "start", "poll-ok", "poll-silent", "poll-silent", "poll-ok"]
        .map((happening) => ({ happening }))).map((leg) => [leg.after.state,
            ...leg.steps.flatMap((step) => step.events.filter((one) => one.published).map((one) => one.event))])"""
    assert judge(expression) == [
        ["idle", "ready"],
        ["polling", "started", "pollingStarted"],
        ["polling", "clientConnected", "messageReceived"],
        ["polling", "disconnected"],
        ["offline"],
        ["polling", "reconnected"],
    ]


# -- what is offered ---------------------------------------------------------------------------------------------------


def offered(*moves: object) -> dict[str, set[str]]:
    """Return the triggers of the single rows, and the happenings, that are offered after moves on v2."""
    expression = f"""((legs) => (({{ after }}) => [choices(table, after).map((one) => one.row.trigger),
        possible(table, after).map((one) => one.id)])(legs.at(-1) ?? {{ after: newWorld(table, "v2", 1) }}))(
        replay(table, "v2", 1, {json.dumps(moves)}))"""
    rows, happenings = judge(expression)
    return {"rows": set(rows), "happenings": set(happenings)}


def number_of(source: str, trigger: str, dest: str) -> int:
    """Return the number of the first such row of lifecycle.json."""
    listed = json.loads(LIFECYCLE.read_text(encoding="utf-8"))["transitions"]
    wanted = (source, trigger, dest)
    return next(row["number"] for row in listed if (row["source"], row["trigger"], row["dest"]) == wanted)


def test_closed_service_offers_to_open_alone():
    assert offered() == {"rows": {"open"}, "happenings": {"open"}}
    assert "open" not in offered({"happening": "open"})["rows"]


def test_leaving_chat_offers_no_command_that_is_rejected():
    leaves = {"row": number_of("polling", "endChat", "active")}
    found = offered({"happening": "open"}, {"happening": "start"}, leaves)
    assert found["happenings"].isdisjoint({"send", "type", "end", "stop-poll", "start"})
    assert "sendTyping" not in found["rows"]
    assert "leave settled" in found["rows"]


# -- walks that are copied ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transport",
    [Transport.V2, Transport.COMETD, *(pytest.param(one, marks=pytest.mark.soak) for one in list(Transport)[2:])],
)
def test_walks_to_each_happening_pass_when_pasted(transport: Transport, tmp_path: Path):
    drawn = node("walks.mjs", transport, 20250615, 12)
    passes(drawn["code"], tmp_path, len(drawn["happened"]))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 12))])
@pytest.mark.parametrize("transport", Transport)
def test_walks_with_single_rows_pass_when_pasted(transport: Transport, seed: int, tmp_path: Path):
    drawn = node("walks.mjs", transport, seed, 4, "rows")
    assert drawn["copied"] > 0
    passes(drawn["code"], tmp_path, drawn["copied"])


def passes(code: str, folder: Path, tests: int) -> None:
    """Run the code of tests in a folder of their own; that number of them passes."""
    (folder / "test_pasted.py").write_text(code, encoding="utf-8")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run([*line, "test_pasted.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{tests} passed" in done.stdout


def test_each_happening_is_possible_on_some_transport():
    drawn = [node("walks.mjs", transport, 1, 0) for transport in Transport]
    assert {name for one in drawn for name in one["happened"]} == set(drawn[0]["all"])


@pytest.mark.parametrize(
    ("transport", "missing"),
    [
        ("v2", ["restore", "interrupted"]),
        ("v3", ["content of an answer", "restore", "interrupted"]),
        ("v3-async", ["content of an answer", "found ended", "interrupted"]),
        (
            "cometd",
            [
                "start failed",
                "start not taken by the gateway",
                "poll badly answered",
                "poll failed",
                "gateway forbids to reconnect",
                "connect answered",
                "content of an answer",
                "session lost",
                "restore",
                "found ended, with errors",
                "saved session lost",
                "restore confirmed, chat server unavailable",
                "interrupted",
            ],
        ),
    ],
)
def test_each_transport_lacks_these_triggers_alone(transport: str, missing: list[str]):
    assert node("walks.mjs", transport, 1, 0)["missing"] == missing


def test_single_rows_of_a_failed_poll_are_copied_as_one():
    listed = json.loads(LIFECYCLE.read_text(encoding="utf-8"))["transitions"]
    stays = [row for row in listed if row["source"] == row["dest"] == "polling"]
    rows = {row["trigger"]: row["number"] for row in stays}
    moves = [{"happening": "open"}, {"happening": "start"}]
    moves += [{"row": rows[trigger]} for trigger in ("no complete answer", "poll failed")]
    code = judge(f'asPytest(table, replay(table, "v2", 5, {json.dumps(moves)}))')["code"]
    assert '[{"operation": "refresh", "drop": True}]' in code
    assert code.count("chat.step()") == 1


def test_happening_after_single_rows_knows_their_effects(tmp_path: Path):
    rows = [number_of("idle", "startChat", "starting"), number_of("starting", "start confirmed", "polling")]
    moves = [{"happening": "open"}, *({"row": number} for number in rows), {"happening": "poll-ok"}]
    code = judge(f'asPytest(table, replay(table, "v2", 5, {json.dumps(moves)}))')["code"]
    assert 'check("polling", ["poll answered"], ["clientConnected"])' in code
    assert "webchat_timeline" not in code, "the test does not move the time itself"
    passes(code, tmp_path, 1)


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        ('[{ assume: "agent_in", value: true }]', "step 1 assumes a flag, which the test kit cannot set"),
        ("[]", "the walk has no step yet"),
    ],
)
def test_walk_that_the_kit_cannot_drive_says_why(moves: str, reason: str):
    assert judge(f'asPytest(table, replay(table, "v2", 5, {moves}))') == {"refusal": reason}


# -- recordings --------------------------------------------------------------------------------------------------------


def test_moments_of_a_step_are_its_cause_rows_and_events():
    event = {"event": "messageReceived", "time": 2.0, "data": {"messages": [{"type": "Message", "text": "<b>hi</b>"}]}}
    answer = step(2.0, answered=1, status=200, transitions=[["polling", "poll answered", "polling"]], events=[event])
    request = {"time": 1.0, "request": 1, "operation": "refresh", "method": "POST", "url": "/r"}
    moments = judge("readRecording(input).moments.all.map((one) => [one.kind, one.title, one.detail])",
                    lines(HEAD, request, answer))  # fmt: skip
    assert moments == [
        ["request", "refresh", "POST /r"],
        ["answer", "refresh", "HTTP 200"],
        ["transition", "poll answered", "stays polling"],
        ["message", "someone", "<b>hi</b>"],
        ["event", "messageReceived", ""],
    ]


def test_poll_that_brought_nothing_is_routine():
    tick, request = step(1.0, tick="poll", calls=1), {"time": 1.0, "request": 1, "operation": "refresh"}
    answer = step(1.0, answered=1, status=200, transitions=[["polling", "poll answered", "polling"]])
    expression = "readRecording(input).moments.all.map((one) => one.routine)"
    first = step(0.5, opened=None)
    assert judge(expression, lines(HEAD, first, tick, request, answer)) == [False, True, True, True, True]


def test_command_whose_first_request_connects_has_its_outcome():
    start = step(0.0, command="startChat", calls=1)
    shaken = step(0.5, answered=1, status=200, calls=2)
    requests = [
        {"time": 0.0, "request": number, "operation": name} for number, name in ((1, "handshake"), (2, "start"))
    ]
    confirmed = step(1.0, answered=2, status=200, outcome={"resolved": True})
    expression = "readRecording(input).moments.all.filter((one) => one.kind === 'answer').map((one) => one.detail)"
    given = lines(HEAD, start, requests[0], shaken, requests[1], confirmed)
    assert judge(expression, given) == ["HTTP 200", "HTTP 200; the command is resolved"]


def test_silent_stretch_is_folded_with_its_length():
    given = lines(HEAD, step(0.0, opened=None), step(1.0, closed=True), step(3661.0, opened=None))
    assert judge("folded(readRecording(input).moments.all)", given) == {
        "places": [0, 1, 2],
        "folds": [{"before": 2, "seconds": 3660, "place": 1.5}],
        "length": 2,
    }
    assert judge("[3.25, 65, 3660, 90000].map(span)") == ["3.3 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]


def test_torn_last_line_is_left_out_with_a_warning():
    given = lines(HEAD, step(0.0, opened=None)) + '\n{"time": 1'
    read = judge("(({ moments, warning }) => [moments.all.length, warning])(readRecording(input))", given)
    assert read == [1, "line 3 is incomplete and is left out"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["a text"], "line 1: this is no recording of a chat session: give a file written by Recorder"),
        ([{"recording": 9}], "line 1: a recording of version 9, and this page reads version 1"),
        ([HEAD, HEAD], "line 2: another recording begins here; a file holds one"),
        ([HEAD, 5], "line 2: expected an object"),
        ([HEAD, {"state": "idle"}], "line 2: time: expected a number"),
        ([HEAD, {"time": 1.0}], "line 2: state: expected a text"),
        ([HEAD, step(1.0, transitions=[1])], "line 2: transitions: expected a list of [source, trigger, dest]"),
        ([HEAD, step(1.0, events=[{}])], "line 2: events: expected a list of objects"),
    ],
)
def test_malformed_recording_is_refused_by_line(given: list[object], text: str):
    assert problem(*given).startswith(text)


def test_file_that_is_no_json_is_refused():
    assert problem(torn="hello").startswith("line 1: this is no JSON")
    assert problem(HEAD, torn="\nhello\n{}").startswith("line 2: this is no JSON")
