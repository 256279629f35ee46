"""Check that the JSON and the Markdown pages have every row, state, command and event of the table."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from webchat_fsm import Config
from webchat_fsm._core.session import _CONDITIONS as CORE_CONDITIONS
from webchat_fsm.diagram import _documents as documents
from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram import lifecycle
from webchat_fsm.diagram._files import FILES
from webchat_fsm.diagram._lifecycle_json import FORMAT, legality_json, lifecycle_json
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS, DOCUMENTED, legality
from webchat_fsm.lifecycle._table import TRANSITIONS, Effect, Flag, Guard, State, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(lifecycle_json())


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(page: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def test_json_has_every_row_of_the_table_unchanged(document: dict[str, Any]):
    found = [
        (
            row["source"],
            row["trigger"],
            row["dest"],
            row["guards"],
            row["sets"],
            row["clears"],
            row["effects"],
            row["reason"],
        )
        for row in document["transitions"]
    ]
    assert found == [
        (
            row.source,
            row.trigger,
            row.dest,
            list(row.guards),
            list(row.sets),
            list(row.clears),
            list(row.effects),
            row.reason,
        )
        for row in TRANSITIONS
    ]


def test_json_carries_its_format_number(document: dict[str, Any]):
    assert document["format"] == FORMAT == 3


def test_readme_describes_every_key_of_the_json(document: dict[str, Any]):
    page = FILES["README.md"].render()
    assert set(document) - {"format"} == set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    for kind in document.keys() - {"format", "legality"}:
        record = document[kind] if kind == "machine" else document[kind][0]
        undescribed = {key for key in record if f"`{key}`" not in page}
        assert undescribed <= {kind.removesuffix("s")}, "the first field is the name of the record itself"


def test_json_has_the_events_of_a_row_with_their_conditions(document: dict[str, Any]):
    for row, found in zip(TRANSITIONS, document["transitions"], strict=True):
        assert [publication["event"] for publication in found["publishes"]] == [
            publication.event for publication in row.publishes
        ]
        assert [publication["when"] for publication in found["publishes"]] == [
            list(publication.when) for publication in row.publishes
        ]
        assert [publication["unless"] for publication in found["publishes"]] == [
            list(publication.unless) for publication in row.publishes
        ]


def test_json_names_every_member_of_the_table(document: dict[str, Any]):
    assert [one["state"] for one in document["states"]] == list(State)
    assert [one["transport"] for one in document["transports"]] == list(Transport)
    assert [one["trigger"] for one in document["triggers"]] == list(Trigger)
    assert [one["command"] for one in document["commands"]] == list(COMMANDS)
    assert [one["event"] for one in document["events"]] == list(EVENTS)


def test_json_decides_every_guard_flag_and_effect(document: dict[str, Any]):
    assert [one["guard"] for one in document["guards"]] == list(Guard)
    assert [one["flag"] for one in document["flags"]] == list(Flag)
    assert [one["effect"] for one in document["effects"]] == list(Effect)
    by_transport = {one["guard"] for one in document["guards"] if one["decided_by"] == "transport"}
    assert by_transport == {guard for guard in Guard if guard not in CORE_CONDITIONS}, "what the core tests"
    inputs = {one["variable"] for one in document["flags"] if one["decided_by"] == "input"}
    assert inputs < set(document["machine"]["inputs"])
    assert document["machine"]["limit"] == Config().poll_exception_limit


def test_guard_without_a_condition_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(semantics.CONDITIONS, Guard.WAS_ENDED)
    with pytest.raises(ValueError, match="no program can test the guard 'was ended before'"):
        semantics.condition_of(Guard.WAS_ENDED)
    assert semantics.condition_of(Guard.NEXUS).by is semantics.Decider.TRANSPORT


def test_flags_about_participants_are_inputs(document: dict[str, Any]):
    by_input = {one["flag"] for one in document["flags"] if one["decided_by"] == "input"}
    assert by_input == {Flag.SUPERVISOR_IN, Flag.AGENT_IN, Flag.BOT_IN, Flag.CLIENT_OUT}


def test_commands_of_any_time_are_legal_in_each_state():
    for transport in Transport:
        closed = [semantics.refusals_while_closed(transport, state) for state in State]
        assert closed == closed[:1] * len(State)


def test_json_has_the_literal_texts_of_a_command(document: dict[str, Any]):
    found = {one["command"]: one for one in document["commands"]}
    for name, rule in COMMANDS.items():
        assert (found[name]["refusal"], found[name]["access"]) == (rule.refusal, rule.access)
        assert found[name]["refusals"] == dict(rule.refusals)
        assert found[name]["unsupported"] == dict(rule.unsupported)


def test_legality_has_a_cell_per_command_state_and_transport(document: dict[str, Any]):
    cells = legality_json()
    assert document["legality"] == cells
    assert len(cells) == len(DOCUMENTED) * len(State) * len(Transport) == 768
    assert {tuple(cell) for cell in cells} == {("command", "state", "transport", "legal", "reason", "reachable")}
    assert len({(cell["command"], cell["state"], cell["transport"]) for cell in cells}) == 768
    assert all(cell["legal"] is (cell["reason"] == "") for cell in cells)


def test_legality_is_plain_data():
    kinds = {type(value) for cell in legality_json() for value in cell.values()}
    assert kinds == {str, bool}


def test_legality_page_agrees_with_the_table():
    page = documents.legality_page()
    texts = dict(re.findall(r"^(\d+)\. `(.*)`$", page, re.MULTILINE))
    for transport, (header, _, *rows) in zip(Transport, tables(page), strict=True):
        found = {(row[0], State(state)): cell for row in rows for state, cell in zip(header[1:], row[1:], strict=True)}
        assert len(found) == len(DOCUMENTED) * len(State)
        for cell in legality(transport):
            mark = found[cell.command, cell.state]
            if cell.state not in reachable(transport):
                assert mark == documents.NEVER
            elif cell.legal:
                assert mark == documents.YES
            else:
                assert texts[mark] == cell.reason


def test_terminal_table_explains_its_own_numbers_only():
    text = documents.terminal_table(Transport.COMETD)
    grid, notes = text.split("\n\n")
    used = {mark for line in grid.splitlines()[1:] for mark in line.split()[1:]}
    assert {line.split()[0] for line in notes.splitlines()} == used - {documents.YES}
    assert "This transport doesn't support polling." in notes
    assert "Fetching history messages applies only to Asynchronous chat" in notes
    assert "There is no active chat session" in notes


def test_lifecycle_page_has_every_row_in_order():
    _, rows = tables(documents.lifecycle_page())
    found = [(row[0], row[1], row[2], row[4]) for row in rows[2:]]
    assert found == [
        (f'<a id="row-{number}"></a>{number}', f"`{row.source}`", row.trigger.value, f"`{row.dest}`")
        for number, row in enumerate(TRANSITIONS, 1)
    ]
    assert [row[7] for row in rows[2:]] == [row.reason for row in TRANSITIONS]


def test_lifecycle_page_has_the_events_in_order():
    _, rows = tables(documents.lifecycle_page())
    (ending,) = [row for row in rows if row[1:3] == ["`active`", "leave settled"]]
    assert re.findall(r"`(\w+)`", ending[5]) == [
        "supervisorDisconnected",
        "agentDisconnected",
        "botDisconnected",
        "clientDisconnected",
        "ended",
    ]
    assert "`botDisconnected` [on v2 and cometd, if bot connected]" in ending[5]


def test_lifecycle_page_has_the_meaning_of_every_state():
    states, _ = tables(documents.lifecycle_page())
    assert [row[0] for row in states[2:]] == [f'<a id="state-{state}"></a>`{state}`' for state in State]
    assert [row[2] for row in states[2:] if "`async-dormant`" in row[0]] == ["v3-async"]


def test_events_page_points_to_the_rows_of_each_event():
    (rows,) = tables(documents.events_page())
    assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in EVENTS]
    for row in rows[2:]:
        event = EVENTS[row[0].strip("`")]
        publishing = {
            edge.number
            for transport in event.transports
            for edge in lifecycle(transport).edges
            if event.name in {publication.event for publication in edge.row.publishes}
        }
        assert [int(number) for number in re.findall(r"\d+", row[4])] == sorted(publishing), event.name


def test_pages_have_tables_of_equal_rows():
    for page in (documents.legality_page(), documents.lifecycle_page(), documents.events_page()):
        for header, rule, *rows in tables(page):
            assert rule == ["---"] * len(header)
            assert {len(row) for row in rows} == {len(header)}


def test_transport_may_be_given_as_text():
    assert legality("v2") == legality(Transport.V2)
    assert reachable("v3") == reachable(Transport.V3)
    with pytest.raises(ValueError, match="'v9' is not a valid Transport"):
        legality("v9")
