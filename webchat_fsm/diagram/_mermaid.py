"""A graph as Mermaid text, which code forges and wikis draw.

Mermaid reserves colon, semicolon and hash and allows no hyphen in an id, so ids and labels are respelt for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from textwrap import wrap

from webchat_fsm.diagram._graph import Graph, Node, Row, Way
from webchat_fsm.diagram._style import DEFAULT, Style, Theme

_LINE_BREAK = "<br/>"

_RESERVED = str.maketrans({":": " -", ";": ",", "#": "no."})
# Mermaid reads a directive, which configures the whole drawing, in any place of its text.
_DIRECTIVE = re.compile("%(?=%)")


def mermaid(graph: Graph[Row], style: Style = DEFAULT) -> str:
    """Return the whole drawing as a Mermaid state diagram; with `auto` the page that shows it chooses the colours."""
    return "".join(_mermaid_lines(graph, style))


def mermaid_path(graph: Graph[Row], states: Iterable[StrEnum], style: Style = DEFAULT) -> str:
    """Return the whole drawing as Mermaid text, with the states of a path highlighted."""
    on_path = frozenset(states)
    # Only states that are drawn: Mermaid adds a node for each other name in a class statement.
    drawn = [mermaid_id(node.state) for node in graph.drawn if node.state in on_path]
    if not drawn:
        return mermaid(graph, style)
    colours = style.dark if style.theme is Theme.DARK else style.light
    look = f"fill:{colours.walked},stroke:{colours.note},color:{colours.ink},stroke-width:3px"
    return f"{mermaid(graph, style)}  classDef walked {look}\n  class {','.join(drawn)} walked\n"


def mermaid_id(place: StrEnum) -> str:
    """Return the id of a state or box, without hyphens and blanks."""
    return place.value.replace("-", "_").replace(" ", "_")


def mermaid_label(text: str) -> str:
    """Respell a text so that it cannot end its own label; line breaks become blanks."""
    return _DIRECTIVE.sub("% ", " ".join(text.splitlines()).translate(_RESERVED))


def _mermaid_lines(graph: Graph[Row], style: Style) -> Iterator[str]:
    yield f"%% generated from the {graph.name} table; what leaves a state as it is, is not drawn\n"
    if style.theme is not Theme.AUTO:
        yield f"%%{{init: {{'theme': '{'dark' if style.theme is Theme.DARK else 'default'}'}}}}%%\n"
    yield "stateDiagram-v2\n  direction TB\n"
    if graph.node(graph.initial) in graph.drawn:
        yield f"  [*] --> {mermaid_id(graph.initial)}\n"
    boxed = graph.boxes[-1:]  # one box at most: Mermaid does not lay out arrows between the insides of two
    if boxed and not 1 < len(graph.inside(boxed[0])) < len(graph.drawn):
        boxed = ()  # a frame round a single state, or round all of them, distinguishes nothing
    for node in graph.drawn:
        yield from (f"  {line}\n" for line in _mermaid_node(graph, node) if node.box not in boxed)
    for box in boxed:
        yield f'  state "{box}" as {mermaid_id(box)} {{\n'
        for node in graph.inside(box):
            yield from (f"    {line}\n" for line in _mermaid_node(graph, node))
        yield "  }\n"
    for (source, dest), arcs in groupby(graph.arcs(boxed), key=lambda arc: (arc.source, arc.dest)):
        yield _mermaid_arrow(source, dest, [_way_text(graph, way) for arc in arcs for way in arc.ways])


def _mermaid_node(graph: Graph[Row], node: Node) -> Iterator[str]:
    lines = [*wrap(node.meaning, 34), *wrap(graph.notes.get(node.state.value, ""), 34)]
    yield f'state "{node.state}" as {mermaid_id(node.state)}'
    yield f"{mermaid_id(node.state)} : {mermaid_label(_LINE_BREAK.join(lines))}"


def _way_text(graph: Graph[Row], way: Way) -> str:
    count = f" \u00d7{graph.count(way.rows)}" if graph.taken is not None else ""
    note = graph.notes.get(way.trigger.value, "")
    return f"{way}{count}{note and f' ({note})'}"


def _mermaid_arrow(source: StrEnum, dest: StrEnum, labels: Iterable[str]) -> str:
    return f"  {mermaid_id(source)} --> {mermaid_id(dest)} : {mermaid_label(_LINE_BREAK.join(labels))}\n"
