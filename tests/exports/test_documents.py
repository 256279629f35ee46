"""Check the exports as documents: every row in order, valid in their notation, and the examples of the README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cometd.test_interop import install
from tests.exports.test_replay import XSTATE
from webchat_fsm.diagram import (
    DEFAULT,
    FORMATS,
    Part,
    _statecharts,
    annotate,
    bayeux,
    lifecycle,
    plantuml,
    scxml,
    walked,
    xstate,
)
from webchat_fsm.diagram._semantics import RESETS_FAILURES, event_name, steps_of
from webchat_fsm.lifecycle._legality import legality
from webchat_fsm.lifecycle._table import TRANSITIONS, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport

ROOT = Path(__file__).parents[2]
SCXML = "{http://www.w3.org/2005/07/scxml}"
GRAMMAR = re.compile(
    r"""@startuml\ [\w-]+ | @enduml | '.* | title\ .+ | hide\ empty\ description | skinparam\ \w+\ \w+
    | state\ "[^"]+"\ as\ \w+ | \[\*\]\ -->\ \w+ | \w+\ :\ .+ | \w+\ -->\ \w+\ :\ .+
    | note\ "[^"]+"\ as\ \w+ | note\ right\ of\ \w+ | end\ note""",
    re.VERBOSE,
)
"""The lines that the export may have; inside of a note any text."""
ROW = re.compile(r"(?P<number>\d+):\ (?P<trigger>[^\[/]+?)(\ \[(?P<guard>[^\]]+)\])?(\ /\ (?P<done>.+))?", re.VERBOSE)
ACTION = re.compile(r"\+\w+(\ \[(if|unless)\ [^\]]+\])?|[\w\ ]+\ :=\ [\w\ +-]+|\(\w+\)", re.VERBOSE)


def scxml_rows(transport: Transport) -> Iterator[tuple[str, str, str, int]]:
    for state in ElementTree.fromstring(scxml(transport)).iter(f"{SCXML}state"):
        for row in state.findall(f"{SCXML}transition"):
            first = row.find(f"{SCXML}assign")
            assert first is not None
            if first.get("location") == "row":
                dest = row.get("target", state.get("id", ""))
                yield state.get("id", ""), row.get("event", ""), dest, int(first.get("expr", ""))


def xstate_rows(transport: Transport) -> Iterator[tuple[str, str, str, int]]:
    for name, state in json.loads(xstate(transport))["states"].items():
        for event, rows in state["on"].items():
            for row in rows:
                first = row["actions"][0]["params"]
                if first["variable"] == "row":
                    yield name, event, row.get("target", name), first["value"]


def plantuml_rows(transport: Transport) -> Iterator[tuple[str, str, str, int]]:
    for line in plantuml(transport).splitlines():
        place, _, text = line.partition(" : ")
        if (found := ROW.fullmatch(text)) and place.isidentifier() | (" --> " in place):
            source, _, dest = place.partition(" --> ")
            yield source, found["trigger"], dest or source, int(found["number"])


@pytest.mark.parametrize("transport", Transport)
def test_exports_have_every_row_of_the_transport(transport):
    rows = [(one.source.value, one.trigger.value, one.dest.value, one.number) for one in steps_of(transport)]
    expected = sorted(rows, key=lambda row: row[3])
    assert {row[0] for row in rows} <= {state.value for state in reachable(transport)}
    assert sorted(xstate_rows(transport), key=lambda row: row[3]) == expected
    named = [(source, event_name(Trigger(trigger)), dest, number) for source, trigger, dest, number in expected]
    assert sorted(scxml_rows(transport), key=lambda row: row[3]) == named
    aliased = [(source.replace("-", "_"), trigger, dest.replace("-", "_"), n) for source, trigger, dest, n in expected]
    assert list(plantuml_rows(transport)) == aliased


@pytest.mark.parametrize("rows", [scxml_rows, xstate_rows])
def test_rows_of_one_state_and_trigger_keep_their_order(rows):
    for transport in Transport:
        found: dict[tuple[str, str], list[int]] = {}
        for source, trigger, _, number in rows(transport):
            found.setdefault((source, trigger), []).append(number)
        assert all(numbers == sorted(numbers) for numbers in found.values())


def test_every_row_is_exported_for_some_transport():
    assert {step.number for one in Transport for step in steps_of(one)} == set(range(1, len(TRANSITIONS) + 1))


def test_event_names_are_different_for_each_trigger():
    names = [event_name(trigger) for trigger in Trigger]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("transport", Transport)
def test_exports_have_every_refusal_of_the_transport(transport):
    texts = {cell.reason for cell in legality(transport) if cell.reachable and cell.reason}
    values = [one.get("expr", "") for one in ElementTree.fromstring(scxml(transport)).iter(f"{SCXML}assign")]
    for text in texts:
        assert any(json.dumps(text) in value for value in values)
        assert json.dumps(text) in xstate(transport)
        assert f": {text}" in plantuml(transport)


@pytest.mark.parametrize(("name", "render"), [("scxml", scxml), ("xstate", xstate), ("plantuml", plantuml)])
def test_format_of_an_engine_needs_one_whole_transport(name, render):
    assert FORMATS[name](lifecycle(Transport.V3), DEFAULT) == render(Transport.V3)
    counted, noted = walked(lifecycle(Transport.V3), []), annotate(lifecycle(Transport.V3), {"idle": "a note"})
    for graph in (lifecycle(), lifecycle(Transport.V3, Part.OUTAGE), bayeux(), counted, noted):
        with pytest.raises(ValueError, match="the whole lifecycle on one transport"):
            FORMATS[name](graph, DEFAULT)


# -- PlantUML ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", Transport)
def test_plantuml_has_only_lines_of_its_grammar(transport):
    inside, states = False, set[str]()
    for line in plantuml(transport).splitlines():
        if not inside or line == "end note":
            assert GRAMMAR.fullmatch(line), line
            inside = line.startswith("note right of")
        if found := re.fullmatch(r'state "[^"]+" as (\w+)', line):
            states.add(found[1])
        if found := re.match(r"(\w+)(?: --> (\w+))? : ", line):
            assert {one for one in found.groups() if one} <= states, line
        if found := ROW.fullmatch(line.partition(" : ")[2]):
            actions = re.split(r", (?![^\[]*\])", found["done"]) if found["done"] else []
            assert [one for one in actions if not ACTION.fullmatch(one)] == []


@pytest.mark.needs("plantuml")
@pytest.mark.parametrize("transport", Transport)
def test_plantuml_itself_accepts_the_diagram(transport):
    command = ["plantuml", "-syntax"]
    done = subprocess.run(command, input=plantuml(transport), capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.startswith("STATE\n"), done.stdout + done.stderr


# -- SCXML -------------------------------------------------------------------------------------------------------------


def test_reset_of_failures_leaves_nothing_of_the_row_before():
    event = f"{SCXML}transition[@event='{RESETS_FAILURES.name}']"
    (reset,) = ElementTree.fromstring(scxml(Transport.V2)).findall(f"{SCXML}state/{event}")
    given = {one.get("location"): one.get("expr") for one in reset.iter(f"{SCXML}assign")}
    assert given == {"row": "0", "published": '""', "performed": '""', "failures": "0"}


def test_hyphens_of_a_meaning_do_not_end_its_comment(monkeypatch):
    monkeypatch.setattr(_statecharts, "meaning", lambda state, transport: "polls -- or not --->")
    document = ElementTree.fromstring(_statecharts.scxml.__wrapped__(Transport.V2))
    assert len(document.findall(f"{SCXML}state/{SCXML}state")) == len(reachable(Transport.V2))


@pytest.mark.needs("scjson")
@pytest.mark.filterwarnings("ignore:Setting .pretty_print. is deprecated:DeprecationWarning")
def test_scjson_accepts_the_documents_and_no_unknown_element():
    from scjson.SCXMLDocumentHandler import SCXMLDocumentHandler
    from xsdata.exceptions import ParserError

    handler = SCXMLDocumentHandler(fail_on_unknown_properties=True)
    for transport in Transport:
        document = json.loads(handler.xml_to_json(scxml(transport)))
        (service,) = document["state"]
        assert {state["id"] for state in service["state"]} == set(map(str, reachable(transport)))
    with pytest.raises(ParserError):
        handler.xml_to_json(scxml(Transport.V2).replace("<assign ", "<set ", 1))


# -- the examples of the README ----------------------------------------------------------------------------------------


@pytest.mark.needs("node", "npm")
def test_readme_example_for_xstate_prints_the_events(tmp_path):
    install(tmp_path, XSTATE)
    shutil.copytree(ROOT / "diagrams", tmp_path / "diagrams")
    (code,) = re.findall(r"^```js\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.mjs").write_text(code)
    done = subprocess.run(["node", "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["ready", "started", "pollingStarted", "polling"], "")
