"""The parts of a machine that are drawn alone, each small enough to be read; notes and counts on a graph.

A part chooses rows; the states at their ends are shown, all others are left out. A row may belong to two parts, as the
return of a restore to `async-dormant` does, and each row that leads from one state to another is in one part at least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum

from webchat_fsm._bayeux import table as bayeux_table
from webchat_fsm.diagram._graph import Edge, Graph, Node, Row, RowT
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._table import Trigger


class Part(StrEnum):
    """A part of the lifecycle, or of the Bayeux connection, that has a picture of its own."""

    START_AND_END = "start-and-end"
    OUTAGE = "outage"
    RESTORING = "restoring"
    DORMANT = "dormant"
    OPENING = "opening"
    RENEWING = "renewing"
    CLOSING = "closing"


TITLES = {
    Part.START_AND_END: "Starting and ending a chat",
    Part.OUTAGE: "Losing and regaining the server",
    Part.RESTORING: "Restoring a chat",
    Part.DORMANT: "Leaving an asynchronous chat, and returning to it",
    Part.OPENING: "Opening a Bayeux connection",
    Part.RENEWING: "Losing and renewing a Bayeux connection",
    Part.CLOSING: "Closing a Bayeux connection",
}

_OUTAGE = frozenset(
    {
        *(Trigger.NO_ANSWER, Trigger.MISANSWERED, Trigger.POLL_FAILED, Trigger.FORBIDDEN),
        *(Trigger.POLL_ANSWERED, Trigger.ANSWERED, Trigger.CONNECTED),
    }
)
"""Triggers by which the server is lost and found again."""
_BEGINNING, _OPEN = frozenset[StrEnum](bayeux_table.BEGINNING), frozenset[StrEnum](bayeux_table.OPEN)


def _ends(row: Row) -> tuple[StrEnum, StrEnum]:
    return row.source, row.dest


def _is_about_the_start_or_end(row: Row) -> bool:
    others = (_RULES[Part.OUTAGE], _RULES[Part.RESTORING], _RULES[Part.DORMANT])
    return not any(rule(row) for rule in others)


_RULES: Mapping[Part, Callable[[Row], bool]] = {
    Part.START_AND_END: _is_about_the_start_or_end,
    Part.OUTAGE: lambda row: row.trigger in _OUTAGE,
    Part.RESTORING: lambda row: State.RESTORING in _ends(row),
    Part.DORMANT: lambda row: State.DORMANT in _ends(row),
    Part.OPENING: lambda row: not _BEGINNING.isdisjoint(_ends(row)),
    Part.RENEWING: lambda row: _OPEN.issuperset(_ends(row)),
    Part.CLOSING: lambda row: _BEGINNING.isdisjoint(_ends(row)) and not _OPEN.issuperset(_ends(row)),
}


class Frame(StrEnum):
    """A frame that one part alone draws, as its states have much in common there."""

    KNOWN = "client known to the gateway"


_BOXES: Mapping[Part, Mapping[StrEnum, frozenset[StrEnum]]] = {
    Part.RENEWING: {Frame.KNOWN: frozenset[StrEnum](bayeux_table.KNOWN)},
}

LIFECYCLE_PARTS = (Part.START_AND_END, Part.OUTAGE, Part.RESTORING, Part.DORMANT)
BAYEUX_PARTS = (Part.OPENING, Part.RENEWING, Part.CLOSING)


def selected(graph: Graph[RowT], part: Part) -> Graph[RowT]:
    """Return the part of a graph: its rows and the states at their ends; raises ValueError for one that it lacks."""
    # By the list, as the rule of a part of one machine may hold for rows of the other.
    if part not in (known := parts_of(graph)):
        raise ValueError(f"{graph.title} has no part {part}: choose {', '.join(known) or 'the whole'}")
    edges = tuple(edge for edge in graph.edges if _RULES[part](edge.row))
    ends = {state for edge in edges if not edge.stays for state in _ends(edge.row)}
    # What stays in a state that the part does not show has no place in it.
    kept = tuple(edge for edge in edges if ends.issuperset(_ends(edge.row)))
    nodes = tuple(_node(node, part, node.state in ends) for node in graph.nodes)
    boxes = (*graph.boxes, *(box for box in _BOXES.get(part, {}) if box not in graph.boxes))
    # An outage is more than its change of state: most of its events come before.
    detailed = part is Part.OUTAGE
    title = _title(graph, part)
    return replace(graph, nodes=nodes, edges=kept, boxes=boxes, part=part.value, title=title, detailed=detailed)


def parts_of(graph: Graph[RowT]) -> tuple[Part, ...]:
    """Return the parts that a graph has something of, in their order."""
    listed = BAYEUX_PARTS if graph.name == "bayeux" else LIFECYCLE_PARTS
    leaving: tuple[Edge[RowT], ...] = tuple(edge for edge in graph.edges if not edge.stays)
    return tuple(part for part in listed if any(_RULES[part](edge.row) for edge in leaving))


def _node(node: Node, part: Part, shown: bool) -> Node:
    box = next((box for box, states in _BOXES.get(part, {}).items() if node.state in states), node.box)
    return replace(node, shown=shown, box=box)


def _title(graph: Graph[Row], part: Part) -> str:
    return f"{TITLES[part]}, on {graph.views[0]}" if len(graph.views) == 1 and graph.views[0] else TITLES[part]


def annotate(graph: Graph[RowT], notes: Mapping[str, str]) -> Graph[RowT]:
    """Return a graph with notes of the user, by the name of a state or of a command or other trigger.

    Raises ValueError for a name that the machine does not have.
    """
    known = {node.state.value for node in graph.nodes} | {edge.trigger.value for edge in graph.edges}
    if unknown := [name for name in notes if name not in known]:
        raise ValueError(
            f"{graph.name} has neither state nor trigger {unknown[0]!r}: choose {', '.join(sorted(known))}"
        )
    # Plain texts, as members of an enumeration are keys too.
    return replace(graph, notes={**graph.notes, **{str(name): text for name, text in notes.items()}})


def walked(graph: Graph[RowT], steps: Iterable[tuple[str, str, str]]) -> Graph[RowT]:
    """Return a graph that counts how often each transition was taken; a step is source, trigger and destination.

    Steps that the graph does not have are left out: it may be the graph of a part.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    for edge in graph.edges:
        # Rows that differ in their guards alone are one way in a drawing, so the first stands for all.
        numbers.setdefault((edge.source.value, edge.trigger.value, edge.dest.value), edge.number)
    counted = Counter(number for step in steps if (number := numbers.get(_plain(step))) is not None)
    return replace(graph, taken=dict(counted))


def _plain(step: tuple[str, str, str]) -> tuple[str, str, str]:
    source, trigger, dest = map(str, step)
    return source, trigger, dest
