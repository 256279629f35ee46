from __future__ import annotations

import json
import re
from typing import Any

import pytest

from webchat_fsm.diagram import as_json, markdown
from webchat_fsm.lifecycle.commands import COMMANDS, DOCUMENTED, legality
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import ROWS, State, Transport, Trigger, reachable


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(as_json.render())


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(page: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def test_json_has_every_row_as_it_stands_in_the_table(document: dict[str, Any]):
    told = [
        (row["source"], row["trigger"], row["dest"], row["guards"], row["sets"], row["clears"], row["does"], row["why"])
        for row in document["rows"]
    ]
    assert told == [
        (row.source, row.trigger, row.dest, list(row.guards), list(row.sets), list(row.clears), list(row.does), row.why)
        for row in ROWS
    ]


def test_json_has_the_events_of_a_row_with_their_conditions(document: dict[str, Any]):
    for row, told in zip(ROWS, document["rows"], strict=True):
        assert [say["event"] for say in told["says"]] == [say.event for say in row.says]
        assert [say["when"] for say in told["says"]] == [list(say.when) for say in row.says]
        assert [say["unless"] for say in told["says"]] == [list(say.unless) for say in row.says]


def test_json_names_everything_there_is(document: dict[str, Any]):
    assert [one["state"] for one in document["states"]] == list(State)
    assert [one["transport"] for one in document["transports"]] == list(Transport)
    assert [one["trigger"] for one in document["triggers"]] == list(Trigger)
    assert [one["command"] for one in document["commands"]] == list(COMMANDS)
    assert [one["event"] for one in document["events"]] == list(EVENTS)


def test_json_has_the_literal_texts_of_a_command(document: dict[str, Any]):
    told = {one["command"]: one for one in document["commands"]}
    for name, rule in COMMANDS.items():
        assert (told[name]["refusal"], told[name]["access"]) == (rule.refusal, rule.access)
        assert told[name]["refusals"] == dict(rule.refusals)
        assert told[name]["unsupported"] == dict(rule.unsupported)


def test_legality_has_a_cell_for_each_command_state_and_transport(document: dict[str, Any]):
    cells = as_json.legality_json()
    assert document["legality"] == cells
    assert len(cells) == len(DOCUMENTED) * len(State) * len(Transport) == 768
    assert {tuple(cell) for cell in cells} == {("command", "state", "transport", "legal", "reason", "reachable")}
    assert len({(cell["command"], cell["state"], cell["transport"]) for cell in cells}) == 768
    assert all(cell["legal"] is (cell["reason"] == "") for cell in cells)


def test_legality_is_plain_data():
    kinds = {type(value) for cell in as_json.legality_json() for value in cell.values()}
    assert kinds == {str, bool}


def test_the_legality_page_says_what_the_table_says():
    page = markdown.legality_page()
    texts = dict(re.findall(r"^(\d+)\. `(.*)`$", page, re.MULTILINE))
    for transport, (header, _, *rows) in zip(Transport, tables(page), strict=True):
        told = {(row[0], State(state)): cell for row in rows for state, cell in zip(header[1:], row[1:], strict=True)}
        assert len(told) == len(DOCUMENTED) * len(State)
        for cell in legality(transport):
            mark = told[cell.command, cell.state]
            if cell.state not in reachable(transport):
                assert mark == markdown.NEVER
            elif cell.legal:
                assert mark == markdown.YES
            else:
                assert texts[mark] == cell.reason


def test_the_terminal_table_explains_its_own_numbers_and_no_others():
    text = markdown.terminal_table(Transport.COMETD)
    grid, notes = text.split("\n\n")
    used = {mark for line in grid.splitlines()[1:] for mark in line.split()[1:]}
    assert {line.split()[0] for line in notes.splitlines()} == used - {markdown.YES}
    assert "This transport doesn't support polling." in notes
    assert "Fetching history messages applies only to Asynchronous chat" in notes
    assert "There is no active chat session" in notes


def test_the_lifecycle_page_has_every_row_in_order():
    _, rows = tables(markdown.lifecycle_page())
    told = [(int(row[0]), row[1], row[2], row[4]) for row in rows[2:]]
    assert told == [
        (number, f"`{row.source}`", row.trigger.value, f"`{row.dest}`") for number, row in enumerate(ROWS, 1)
    ]
    assert [row[7] for row in rows[2:]] == [row.why for row in ROWS]


def test_the_lifecycle_page_has_the_events_in_order():
    _, rows = tables(markdown.lifecycle_page())
    (ending,) = [row for row in rows if row[1:3] == ["`active`", "leave settled"]]
    assert re.findall(r"`(\w+)`", ending[5]) == [
        "supervisorDisconnected",
        "agentDisconnected",
        "botDisconnected",
        "clientDisconnected",
        "ended",
    ]
    assert "`botDisconnected` [on v2 and cometd, if bot connected]" in ending[5]


def test_the_lifecycle_page_tells_the_meaning_of_every_state():
    states, _ = tables(markdown.lifecycle_page())
    assert [row[0] for row in states[2:]] == [f"`{state}`" for state in State]
    assert {row[0]: row[2] for row in states[2:]}["`async-dormant`"] == "v3-async"


def test_the_events_page_points_to_the_rows_that_say_an_event():
    (rows,) = tables(markdown.events_page())
    assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in EVENTS]
    for row in rows[2:]:
        said = [number for number, one in enumerate(ROWS, 1) if row[0].strip("`") in {say.event for say in one.says}]
        pointed = [int(number) for number in re.findall(r"\d+", row[4])]
        assert set(pointed) <= set(said)
        assert bool(pointed) is bool(said)


def test_pages_are_tables_that_a_reader_can_draw():
    for page in (markdown.legality_page(), markdown.lifecycle_page(), markdown.events_page()):
        for header, rule, *rows in tables(page):
            assert rule == ["---"] * len(header)
            assert {len(row) for row in rows} == {len(header)}
