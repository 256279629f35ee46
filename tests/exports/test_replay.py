"""Check that foreign engines do with the exports what the core did: each step of a trace, and nothing else.

The comparison can fail: an export without one of its rows, events or flags is reported with step and both values.
"""

from __future__ import annotations

import json
import re
import subprocess
from itertools import chain, islice
from pathlib import Path

import pytest

from tests.cometd.test_interop import install
from tests.exports.conftest import FULL, STEPS
from tests.exports.replaying import FLAGS, ScxmlDocument, ScxmlEngine, differences
from webchat_fsm.diagram import scxml, xstate
from webchat_fsm.diagram._semantics import steps_of
from webchat_fsm.diagram._statecharts import RUNTIME
from webchat_fsm.lifecycle._table import State, Trigger
from webchat_fsm.lifecycle._transports import Transport

XSTATE = "xstate@5.33.3"
SCRIPT = Path(__file__).with_name("replay_xstate.mjs")
CHANGES = ("drop a row", "swap two events", "drop a clear")
# python-statemachine takes seconds for what the others do in one
SLOW = pytest.mark.soak
SHOWN = re.compile(r", step \d+ \(.+\): \w+: the core .+, the engine .+")

pytestmark = pytest.mark.timeout(600)


def number_of(source: State, trigger: Trigger, dest: State) -> int:
    """Return the number of a row on v2."""
    (found,) = (
        step.number
        for step in steps_of(Transport.V2)
        if (step.source, step.trigger, step.dest) == (source, trigger, dest)
    )
    return found


OVER_LIMIT = number_of(State.POLLING, Trigger.POLL_FAILED, State.OFFLINE)
STARTED = number_of(State.STARTING, Trigger.START_CONFIRMED, State.POLLING)
ANSWERED = number_of(State.POLLING, Trigger.POLL_ANSWERED, State.POLLING)


def by_statemachine(trace, path, transport):
    """Yield the differences that python-statemachine has on a transport."""
    document = ScxmlDocument(path)
    for conversation in trace["conversations"]:
        if conversation["transport"] == transport:
            yield from differences(trace, conversation, ScxmlEngine(document, conversation["limit"]))


def test_trace_has_steps_of_every_transport_and_kind(tracer, trace):
    names = {conversation["name"].split()[0] for conversation in trace["conversations"]}
    assert {"recording", "restores", "random"} <= names
    assert {conversation["transport"] for conversation in trace["conversations"]} == set(Transport)
    assert tracer.steps >= STEPS


@pytest.mark.skipif(STEPS < FULL, reason="a short trace has not every row")
@pytest.mark.parametrize("transport", Transport)
def test_full_trace_takes_every_exported_row(tracer, transport):
    assert tracer.rows(transport) - {0} == {step.number for step in steps_of(transport)}


# -- SCXML, in python-statemachine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [Transport.V2, *(pytest.param(one, marks=SLOW) for one in list(Transport)[1:])])
def test_statemachine_reports_what_the_core_did(trace, transport, tmp_path):
    path = tmp_path / "lifecycle.scxml"
    path.write_text(scxml(transport), encoding="utf-8")
    assert list(islice(by_statemachine(trace, path, transport), 10)) == []


def altered_scxml(change: str) -> str:
    text = scxml(Transport.V2)
    number = {"drop a row": OVER_LIMIT, "swap two events": STARTED, "drop a clear": ANSWERED}[change]
    place = text.index(f'<assign location="row" expr="{number}"/>')
    begin, end = text.rindex("<transition", 0, place), text.index("</transition>", place) + len("</transition>")
    row = text[begin:end]
    if change == "drop a row":
        altered = ""
    elif change == "swap two events":
        altered = row.replace(" started", " x").replace(" pollingStarted", " started").replace(" x", " pollingStarted")
    else:
        altered = row.replace('<assign location="pending" expr="0"/>', "")
    assert altered != row
    return text[:begin] + altered + text[end:]


@pytest.mark.parametrize("change", [CHANGES[0], *(pytest.param(one, marks=SLOW) for one in CHANGES[1:])])
def test_statemachine_reports_an_altered_export(trace, change, tmp_path):
    path = tmp_path / "lifecycle.scxml"
    path.write_text(altered_scxml(change), encoding="utf-8")
    first = next(by_statemachine(trace, path, Transport.V2))
    assert SHOWN.search(first), first


# -- XState ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory, tracer):
    """Return a folder with XState, the script, the JSON of each transport and the trace."""
    folder = tmp_path_factory.mktemp("xstate")
    install(folder, XSTATE)
    for script in (SCRIPT, SCRIPT.with_name("differences.mjs")):
        (folder / script.name).write_bytes(script.read_bytes())
    (folder / "runtime.mjs").write_text(RUNTIME)
    for transport in Transport:
        (folder / f"{transport}.xstate.json").write_text(xstate(transport), encoding="utf-8")
    tracer.write(folder / "trace.json")
    return folder


def by_xstate(folder: Path, documents: Path) -> dict:
    """Return the steps and the differences that XState has with the documents of a folder."""
    command = ["node", SCRIPT.name, "trace.json", str(documents), *FLAGS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.needs("node", "npm")
def test_xstate_reports_what_the_core_did(node_folder, tracer):
    assert by_xstate(node_folder, node_folder) == {"steps": tracer.steps, "differences": []}


def altered_json(change: str) -> str:
    document = json.loads(xstate(Transport.V2))
    number = {"drop a row": OVER_LIMIT, "swap two events": STARTED, "drop a clear": ANSWERED}[change]
    events = [state["on"] for state in document["states"].values()]
    for rows in chain.from_iterable(one.values() for one in events):
        for row in list(rows):
            params = [action["params"] for action in row["actions"]]
            if params[0] != {"variable": "row", "value": number}:
                continue
            if change == "drop a row":
                rows.remove(row)
            elif change == "swap two events":
                row["actions"][1:3] = reversed(row["actions"][1:3])
            else:
                del row["actions"][params.index({"variable": "pending", "value": False})]
    return json.dumps(document)


@pytest.mark.needs("node", "npm")
@pytest.mark.parametrize("change", CHANGES)
def test_xstate_reports_an_altered_export(node_folder, change, tmp_path):
    for transport in Transport:
        (tmp_path / f"{transport}.xstate.json").write_text(xstate(transport), encoding="utf-8")
    (tmp_path / "v2.xstate.json").write_text(altered_json(change), encoding="utf-8")
    found = by_xstate(node_folder, tmp_path)["differences"]
    assert found
    assert SHOWN.search(found[0]), found[0]
