"""A drawing before anything has its place: what is drawn, the lines of its texts, and the sizes of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from webchat_fsm.diagram._graph import Arc, Cause, Graph, Node, Row, Way
from webchat_fsm.diagram._metrics import LINE_HEIGHT, balanced, text_width, wrapped
from webchat_fsm.diagram._style import Style

STATE_MARGIN, LABEL_MARGIN = 9.0, 5.0
"""Space round the lines of a state, and round those of a label."""
STATE_WIDTH, INNER_WIDTH, LABEL_WIDTH = 10.5, 19.0, 13.0
"""Width of a line at most, in font sizes: of a meaning, of a row inside a state, of a label."""


class Line(NamedTuple):
    """One line of a text of the drawing."""

    text: str
    kind: str
    """Class of the text: `name`, `meaning`, `note`, `rule` for a horizontal line, or the name of a cause."""
    indent: float = 0
    way: Way | None = None
    """The way that the line of a label belongs to."""


class Text(NamedTuple):
    """The lines of a state or of a label, with their size and a margin."""

    lines: tuple[Line, ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Sketch:
    """The drawing of a graph without places."""

    graph: Graph[Row]
    boxes: tuple[StrEnum, ...]
    inside: Mapping[StrEnum, tuple[StrEnum, ...]]
    """The drawn states of each box."""
    arrows: tuple[tuple[Arc, ...], ...]
    """The arcs of each arrow: those from one place to another, one for each cause."""
    states: Mapping[StrEnum, Text]
    labels: tuple[Text, ...]
    titles: Mapping[StrEnum, Text]
    """The titles of the boxes."""


def sketch(graph: Graph[Row], style: Style) -> Sketch:
    """Return what the picture of a graph shows."""
    boxes = boxes_of(graph)
    arrows = [tuple(arcs) for _, arcs in groupby(graph.arcs(boxes), key=lambda arc: (arc.source, arc.dest))]
    return Sketch(
        graph,
        boxes,
        {box: tuple(node.state for node in graph.inside(box)) for box in boxes},
        tuple(arrows),
        {node.state: _sized(_state_lines(graph, node, style), style, STATE_MARGIN) for node in graph.drawn},
        tuple(_sized(_label_lines(graph, arcs, style), style, LABEL_MARGIN) for arcs in arrows),
        {box: _sized([Line(box.value, "name")], style, 0) for box in boxes},
    )


def boxes_of(graph: Graph[Row]) -> tuple[StrEnum, ...]:
    """Return the boxes to draw: those round several of the states, but not round all."""
    inside = {box: graph.inside(box) for box in graph.boxes}
    return tuple(box for box, nodes in inside.items() if 1 < len(nodes) < len(graph.drawn))


def cause_of(arcs: tuple[Arc, ...]) -> Cause | None:
    """Return the cause of a whole arrow, None where its arcs have several."""
    return arcs[0].cause if len(arcs) == 1 else None


def _state_lines(graph: Graph[Row], node: Node, style: Style) -> Iterator[Line]:
    size = style.font_size
    yield Line(node.state.value, "name")
    yield from (Line(text, "meaning") for text in balanced(node.meaning, STATE_WIDTH * size, size))
    if note := graph.notes.get(node.state.value):
        yield from (Line(text, "note") for text in balanced(note, STATE_WIDTH * size, size))
    if staying := graph.staying(node.state):
        yield Line("", "rule")
        yield from (line for way in staying for line in _way_lines(graph, way, style, INNER_WIDTH))


def _label_lines(graph: Graph[Row], arcs: Iterable[Arc], style: Style) -> Iterator[Line]:
    """Yield the lines of an arrow's label; a line without indent begins a way."""
    return (line for arc in arcs for way in arc.ways for line in _way_lines(graph, way, style, LABEL_WIDTH))


def _way_lines(graph: Graph[Row], way: Way, style: Style, width: float) -> Iterator[Line]:
    size = style.font_size
    count = f" \u00d7{graph.count(way.rows)}" if graph.taken is not None else ""
    events = graph.events(way.rows) if graph.detailed else ()
    published = f" / {', '.join(events)}" if events else ""
    for number, text in enumerate(wrapped(f"{way}{count}{published}", width * size, size)):
        yield Line(text, way.cause.value, size * bool(number), way)
    if note := graph.notes.get(way.trigger.value):
        yield from (Line(text, "note", size, way) for text in wrapped(note, width * size, size))


def _sized(lines: Iterable[Line], style: Style, margin: float) -> Text:
    listed = tuple(lines)
    widths = [line.indent + text_width(line.text, style.font_size, bold=line.kind == "name") for line in listed]
    return Text(listed, max(widths) + 2 * margin, len(listed) * style.font_size * LINE_HEIGHT + 2 * margin)
