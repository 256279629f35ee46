"""Check drawings of a table without transports: a small machine, a door with a lock."""

from __future__ import annotations

import re
from enum import StrEnum
from xml.etree import ElementTree

import pytest
from msgspec import Struct

from webchat_fsm._bayeux.table import MEANING, TRANSITIONS
from webchat_fsm.diagram import _documents as documents
from webchat_fsm.diagram import bayeux, dot, mermaid, svg
from webchat_fsm.diagram._graph import Cause, Graph, graph_of


class Door(StrEnum):
    OPEN = "open"
    SHUT = "shut"
    LOCKED = "locked-up"


class Move(StrEnum):
    PUSH = "push"
    TURN = "turn the key"
    BREAK = "break"


class When(StrEnum):
    FITS = "key fits"


class Row(Struct, frozen=True):
    source: Door
    trigger: Move
    dest: Door
    guards: tuple[When, ...] = ()
    effects: tuple[When, ...] = ()
    reason: str = ""


ROWS = (
    Row(Door.OPEN, Move.PUSH, Door.SHUT),
    Row(Door.SHUT, Move.PUSH, Door.OPEN),
    Row(Door.SHUT, Move.TURN, Door.LOCKED, (When.FITS,), reason="a | in a text"),
    Row(Door.SHUT, Move.TURN, Door.SHUT),
    Row(Door.LOCKED, Move.BREAK, Door.OPEN),
)
MEANINGS: dict[StrEnum, str] = {Door.OPEN: "anyone can pass", Door.SHUT: "a push opens it", Door.LOCKED: "needs a key"}


@pytest.fixture
def door() -> Graph[Row]:
    return graph_of(
        "door",
        "A door",
        MEANINGS.items(),
        ROWS,
        lambda row: Cause.FAILURE if row.trigger is Move.BREAK else Cause.FACT,
        {Cause.FACT: "as usual", Cause.FAILURE: "by force"},
    )


def test_box_merges_the_arrows_common_to_its_states():
    class Box(StrEnum):
        CLOSED = "closed"

    rows = (*ROWS, Row(Door.SHUT, Move.BREAK, Door.OPEN))
    boxes = {Box.CLOSED: (Door.SHUT, Door.LOCKED)}
    seen = graph_of("door", "A door", MEANINGS.items(), rows, lambda row: Cause.FACT, {}, boxes)
    broken = [arc for arc in seen.arcs() if any(way.trigger is Move.BREAK for way in arc.ways)]
    assert [(arc.source, arc.dest) for arc in broken] == [(Box.CLOSED, Door.OPEN)]


def test_row_that_stays_is_no_arc(door: Graph[Row]):
    assert [(arc.source, arc.dest, [str(way) for way in arc.ways]) for arc in door.arcs()] == [
        (Door.OPEN, Door.SHUT, ["push"]),
        (Door.SHUT, Door.OPEN, ["push"]),
        (Door.SHUT, Door.LOCKED, ["turn the key [key fits]"]),
        (Door.LOCKED, Door.OPEN, ["break"]),
    ]


def test_row_after_a_guarded_row_is_labelled_otherwise(door: Graph[Row]):
    assert [edge.condition for edge in door.edges] == ["", "", "key fits", "otherwise", ""]


def test_mermaid_without_boxes_begins_in_the_first_state(door: Graph[Row]):
    text = mermaid(door)
    assert "[*] --> open\n" in text
    assert "  shut --> locked_up : turn the key [key fits]\n" in text
    assert "generated from the door table" in text
    assert "{" not in text


def test_dot_without_boxes_has_no_cluster(door: Graph[Row]):
    text = dot(door)
    assert text.startswith("digraph door {")
    assert "cluster" not in text
    assert re.search(r'"locked-up" -> "open" ', text)


def test_svg_of_any_table_shows_the_legend_of_used_causes(door: Graph[Row]):
    words = " ".join(" ".join(ElementTree.fromstring(svg(door)).itertext()).split())
    assert "A door" in words
    assert "as usual" in words
    assert "by force" in words
    assert "An arrow out of a frame" not in words
    assert "door.md lists all rows" in words


def test_page_has_a_column_for_each_field_in_use(door: Graph[Row]):
    page = documents.machine_page(door, "The door")
    assert page.startswith("# The door\n\nGenerated from the door table")
    assert "| row | from | trigger | guards | to | reason |" in page, "no row has an effect"
    assert '| <a id="row-3"></a>3 | `shut` | turn the key | key fits | `locked-up` | a \\| in a text |' in page
    assert '| <a id="row-4"></a>4 | `shut` | turn the key | otherwise | `shut` |  |' in page


def test_bayeux_draws_every_state_and_lists_every_row():
    assert [node.state for node in bayeux().drawn] == list(MEANING)
    assert [edge.row for edge in bayeux().edges] == list(TRANSITIONS)
    page = documents.machine_page(bayeux(), "Bayeux")
    assert page.count("\n| ") == len(MEANING) + len(TRANSITIONS) + 4, "two heads and two rules"


def test_bayeux_publication_shows_its_condition():
    assert "chat server silent [if no push since the last request]" in documents.machine_page(bayeux(), "Bayeux")
