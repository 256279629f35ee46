"""A graph as Graphviz text, to be drawn or read by other programs: each edge has its true direction.

One edge is one arc: all ways of one cause from one state to another. What leads out of each state of a box is an edge
for each of them. The layout of the SVG pictures has a text of its own, which is not data.
"""

from __future__ import annotations

from collections.abc import Iterator

from webchat_fsm.diagram._graph import Arc, Cause, Graph, Node, Row
from webchat_fsm.diagram._metrics import balanced
from webchat_fsm.diagram._style import DEFAULT, Palette, Style, Theme

LINES = {Cause.COMMAND: "bold", Cause.SERVICE: "dotted", Cause.FACT: "solid", Cause.FAILURE: "dashed"}


def dot(graph: Graph[Row], style: Style = DEFAULT) -> str:
    """Return the whole drawing as Graphviz text; it has no way to follow the page, so `auto` means light."""
    return "".join(_lines(graph, style))


def _lines(graph: Graph[Row], style: Style) -> Iterator[str]:
    palette = style.dark if style.theme is Theme.DARK else style.light
    # The first family alone, without the quotes of CSS: Graphviz knows no list of them.
    name = _quoted(style.font.split(",")[0].strip("\"' "))
    font = f'fontname={name}, fontsize={style.font_size:g}, fontcolor="{palette.ink}"'
    yield f"digraph {graph.name} {{\n"
    yield f'  graph [label={_quoted(graph.title)}, labelloc=t, rankdir=TB, bgcolor="{palette.page}", {font}];\n'
    look = f'style="rounded,filled", fillcolor="{palette.state}", color="{palette.border}"'
    yield f"  node [shape=box, {look}, {font}];\n"
    yield f"  edge [{font}];\n"
    for box in (None, *graph.boxes):
        nodes = [_node(graph, node, style) for node in graph.inside(box)]
        if box is None or not nodes:
            yield from (f"  {node}" for node in nodes)
            continue
        yield f"  subgraph cluster_{box.name.lower()} {{\n"
        yield f'    graph [label={_quoted(box.value)}, style="rounded,filled", fillcolor="{palette.box}"'
        yield f', color="{palette.frame}"];\n'
        yield from (f"    {node}" for node in nodes)
        yield "  }\n"
    yield from (f"  {_edge(graph, arc, palette)}" for arc in graph.arcs(()))
    yield "}\n"


def _node(graph: Graph[Row], node: Node, style: Style) -> str:
    meaning = balanced(node.meaning, 12 * style.font_size, style.font_size)
    label = _quoted("\n".join([node.state.value, *meaning, *filter(None, [graph.notes.get(node.state.value, "")])]))
    width = 2.6 if node.state is graph.initial else 1.3
    return f"{_quoted(node.state.value)} [label={label}, penwidth={width}];\n"


def _edge(graph: Graph[Row], arc: Arc, palette: Palette) -> str:
    texts = [str(way) for way in arc.ways]
    if graph.taken is not None:
        texts = [f"{way} \u00d7{graph.count(way.rows)}" for way in arc.ways]
    colour = getattr(palette, arc.cause.value)
    rows = ", ".join(str(number) for way in arc.ways for number in way.rows)
    look = f'color="{colour}", fontcolor="{colour}", style={LINES[arc.cause]}, tooltip={_quoted(f"rows {rows}")}'
    ends = f"{_quoted(arc.source.value)} -> {_quoted(arc.dest.value)}"
    return f"{ends} [label={_quoted(chr(10).join(texts))}, {look}];\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
