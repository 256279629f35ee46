"""The formats in which one drawing can be printed: the text ones, and `FORMATS`, where each has its name.

A format is a function of a graph and a style, which it may ignore. Text ends with a line end; a picture of pixels is
bytes. The command line offers each format that is registered here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from textwrap import wrap
from typing import Any, NamedTuple, Protocol

from webchat_fsm._errors import missing_extra
from webchat_fsm.diagram._graph import Arc, Cause, Graph, Node, Row, Way
from webchat_fsm.diagram._picture import DEFAULT, Palette, Style, Theme
from webchat_fsm.diagram._sketch import balanced
from webchat_fsm.diagram._statecharts import plantuml, scxml, xstate
from webchat_fsm.diagram._svg import svg
from webchat_fsm.lifecycle._transports import Transport

# -- Graphviz text, for other programs ---------------------------------------------------------------------------------

# One edge is one arc in its true direction; what leads out of each state of a box is an edge for each of them. The
# layout of the SVG pictures has a text of its own, which is not data.
LINES = {Cause.COMMAND: "bold", Cause.SERVICE: "dotted", Cause.FACT: "solid", Cause.FAILURE: "dashed"}


def dot(graph: Graph[Row], style: Style = DEFAULT) -> str:
    """Return the whole drawing as Graphviz text; it has no way to follow the page, so `auto` means light."""
    return "".join(_dot_lines(graph, style))


def _dot_lines(graph: Graph[Row], style: Style) -> Iterator[str]:
    palette = style.palette
    # The first family alone, without the quotes of CSS: Graphviz knows no list of them.
    name = _quoted(style.font.split(",")[0].strip("\"' "))
    font = f'fontname={name}, fontsize={style.font_size:g}, fontcolor="{palette.ink}"'
    yield f"digraph {graph.name} {{\n"
    yield f'  graph [label={_quoted(graph.title)}, labelloc=t, rankdir=TB, bgcolor="{palette.page}", {font}];\n'
    look = f'style="rounded,filled", fillcolor="{palette.state}", color="{palette.border}"'
    yield f"  node [shape=box, {look}, {font}];\n"
    yield f"  edge [{font}];\n"
    for box in (None, *graph.boxes):
        nodes = [_dot_node(graph, node, style) for node in graph.inside(box)]
        if box is None or not nodes:
            yield from (f"  {node}" for node in nodes)
            continue
        yield f"  subgraph cluster_{box.name.lower()} {{\n"
        yield f'    graph [label={_quoted(box.value)}, style="rounded,filled", fillcolor="{palette.box}"'
        yield f', color="{palette.frame}"];\n'
        yield from (f"    {node}" for node in nodes)
        yield "  }\n"
    yield from (f"  {_dot_edge(graph, arc, palette)}" for arc in graph.arcs(()))
    yield "}\n"


def _dot_node(graph: Graph[Row], node: Node, style: Style) -> str:
    meaning = balanced(node.meaning, 12 * style.font_size, style.font_size)
    label = _quoted("\n".join([node.state.value, *meaning, *filter(None, [graph.notes.get(node.state.value, "")])]))
    width = 2.6 if node.state is graph.initial else 1.3
    return f"{_quoted(node.state.value)} [label={label}, penwidth={width}];\n"


def _dot_edge(graph: Graph[Row], arc: Arc, palette: Palette) -> str:
    text = "\n".join(f"{way}{graph.times(way)}" for way in arc.ways)
    colour = getattr(palette, arc.cause.value)
    rows = ", ".join(str(number) for way in arc.ways for number in way.rows)
    look = f'color="{colour}", fontcolor="{colour}", style={LINES[arc.cause]}, tooltip={_quoted(f"rows {rows}")}'
    ends = f"{_quoted(arc.source.value)} -> {_quoted(arc.dest.value)}"
    return f"{ends} [label={_quoted(text)}, {look}];\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# -- Mermaid text, which code forges and wikis draw --------------------------------------------------------------------

_LINE_BREAK = "<br/>"
# Mermaid reserves these, and allows no hyphen in an id.
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
    colours = style.palette
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
    note = graph.notes.get(way.trigger.value, "")
    return f"{way}{graph.times(way)}{note and f' ({note})'}"


def _mermaid_arrow(source: StrEnum, dest: StrEnum, labels: Iterable[str]) -> str:
    return f"  {mermaid_id(source)} --> {mermaid_id(dest)} : {mermaid_label(_LINE_BREAK.join(labels))}\n"


# -- all formats -------------------------------------------------------------------------------------------------------


class Format(Protocol):
    """A function that draws a graph of any machine."""

    def __call__(self, graph: Graph[Any], style: Style, /) -> str | bytes:
        """Return the drawing as text, or as bytes where it is no text."""
        ...


PNG_SCALE = 2
"""Pixels of a PNG for one of the SVG: sharp on dense screens, and in a document that scales it."""


def png(graph: Graph[Row], style: Style = DEFAULT) -> bytes:
    """Return the picture as PNG, twice the size of the SVG; `auto` means light, as pixels cannot follow the page.

    Raises `MissingExtraError` without the extra `diagrams`.
    """
    fixed = replace(style, theme=Theme.LIGHT) if style.theme is Theme.AUTO else style
    return pixels(svg(graph, fixed))


def pixels(picture: str) -> bytes:
    """Return an SVG picture with plain colours as PNG; raises `MissingExtraError` without the extra `diagrams`."""
    try:
        import resvg_py
    except ImportError as missing:
        raise missing_extra("drawing a PNG", "diagrams", "resvg-py") from missing
    return bytes(resvg_py.svg_to_bytes(svg_string=picture, zoom=PNG_SCALE))


class Engine(NamedTuple):
    """A format of the whole machine on one transport for foreign engines: it has no look."""

    render: Callable[[Transport], str]
    suffix: str
    """Suffix of its files, one for each transport."""
    about: str
    """End of the sentence that describes such a file."""


ENGINES: Mapping[str, Engine] = {
    "scxml": Engine(scxml, "scxml", "as SCXML, which interpreters of that recommendation run"),
    "xstate": Engine(xstate, "xstate.json", "as JSON for XState 5"),
    "plantuml": Engine(plantuml, "puml", "as PlantUML text, complete"),
}


def _machine(name: str) -> Format:
    """Return one of `ENGINES` as a format; it raises ValueError for a graph with anything that it cannot write."""

    def written(graph: Graph[Any], style: Style, /) -> str:
        whole = graph.name == "lifecycle" and not graph.part and len(graph.views) == 1
        if not whole or graph.notes or graph.taken is not None:
            raise ValueError(
                f"{name} has the whole lifecycle on one transport, without notes and counts: give it"
                " `lifecycle(transport)`"
            )
        return ENGINES[name].render(Transport(graph.views[0]))

    return written


FORMATS: Mapping[str, Format] = {
    "svg": svg,
    "png": png,
    "mermaid": mermaid,
    "dot": dot,
    **{name: _machine(name) for name in ENGINES},
}
"""Every format by its name, the default of the command line first."""


def rendered(graph: Graph[Row], form: str, style: Style = DEFAULT) -> bytes:
    """Return a drawing in a format as bytes; raises ValueError for an unknown format."""
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}: choose {', '.join(FORMATS)}")
    drawn = FORMATS[form](graph, style)
    return drawn if isinstance(drawn, bytes) else drawn.encode()
