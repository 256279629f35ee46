"""The lifecycle as Graphviz text: nodes are states, arrows lead from one to another, colours tell who is behind them.

Graphviz decides on places by the order and the direction of what it reads. So arrows that lead back to where no session
is open are written the other way round and drawn backwards: the picture then reads from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from webchat_fsm.diagram.graph import CAUSES, Arc, Box, Cause, Graph, Node, Place, Way
from webchat_fsm.lifecycle.table import State

FONT = "Verdana"
"""A font whose widths Graphviz knows without having it; where a viewer lacks it, the narrower one in its place fits."""

COLOURS = {Cause.COMMAND: "#0b57d0", Cause.SERVICE: "#57606a", Cause.FACT: "#1a7f37", Cause.FAILURE: "#c62828"}
STYLES = {Cause.COMMAND: "bold", Cause.SERVICE: "dotted", Cause.FACT: "solid", Cause.FAILURE: "dashed"}
FILLS = {Box.CLOSED: "#f3f4f6", Box.SESSION: "#e8f2ff"}

NOTES = (
    "An arrow out of a box leads out of each state in it.",
    "Not drawn: what leaves a state as it is, and the events that are published. lifecycle.md has both.",
)
_DEPTHS: dict[Box | None, int] = {Box.CLOSED: 0, None: 1, Box.SESSION: 2}
_HEAD = f"""\
digraph lifecycle {{
  graph [rankdir=TB, compound=true, nodesep=0.4, ranksep=0.6, pad=0.3, bgcolor="white",
         fontname="{FONT}", fontsize=14, fontcolor="#24292f"];
  node [shape=box, style="rounded,filled", fillcolor="white", color="#57606a", penwidth=1.3, margin="0.14,0.09",
        fontname="{FONT}", fontsize=12, fontcolor="#24292f"];
  edge [fontname="{FONT}", fontsize=11, arrowsize=0.8, penwidth=1.5];
"""


def render(graph: Graph) -> str:
    """The whole drawing, with a title and a legend."""
    return "".join(_lines(graph))


def _title(graph: Graph) -> str:
    scope = f"on transport {graph.transport}" if graph.transport else "on all transports"
    title = _text([f"The lifecycle of a session {scope}", *NOTES, " "], "\\n")
    return f'  label="{title}"; labelloc=t;\n'


def _lines(graph: Graph) -> Iterator[str]:
    yield _HEAD + _title(graph)
    yield from (f"  {_node(node)}" for node in graph.inside(None))
    for box in Box:
        yield f'  subgraph {_cluster(box)} {{\n    label="{box}"; style="rounded,filled"; fillcolor="{FILLS[box]}";\n'
        yield '    color="#afb8c1"; margin=16;\n'
        yield from (f"    {_node(node)}" for node in graph.inside(box))
        yield f"    {{ rank=same; {' '.join(_level(graph, box))} }}\n  }}\n"
    yield from (f"  {_arc(graph, arc)}" for arc in graph.arcs())
    yield from _legend(graph)
    yield "}\n"


def _level(graph: Graph, box: Box) -> Iterator[str]:
    """The states of a box that no arrow joins to a later one: they can stand side by side."""
    inside = [node.state for node in graph.inside(box)]
    joined = {arc.source for arc in graph.arcs() if arc.dest in inside}
    return (f'"{state}";' for state in inside if state not in joined)


def _node(node: Node) -> str:
    label = _text([node.state, *wrap(node.meaning, 30)], "\\n")
    width = 2.6 if node.state is State.IDLE else 1.3
    return f'"{node.state}" [label="{label}", penwidth={width}];\n'


def _arc(graph: Graph, arc: Arc) -> str:
    back = _depth(graph, arc.source) > _depth(graph, arc.dest)
    tail, head = (arc.dest, _inner(graph, arc.source)) if back else (_inner(graph, arc.source), arc.dest)
    label = _text([line for way in arc.ways for line in _wrapped(way)], "\\l")
    look = _look(arc.cause) + (", dir=back" if back else "")
    if isinstance(arc.source, Box):
        look += f", {'lhead' if back else 'ltail'}={_cluster(arc.source)}"
    return f'"{tail}" -> "{head}" [label="{label}\\l", {look}];\n'


def _wrapped(way: Way) -> list[str]:
    return wrap(str(way), 25, initial_indent=" ", subsequent_indent="    ")


def _look(cause: Cause) -> str:
    return f'color="{COLOURS[cause]}", fontcolor="{COLOURS[cause]}", style={STYLES[cause]}'


def _depth(graph: Graph, place: Place) -> int:
    return _DEPTHS[place if isinstance(place, Box) else graph.node(place).box]


def _inner(graph: Graph, place: Place) -> State:
    """A state to tie an arrow to: the place itself, or one inside the box that the arrow is then cut off at."""
    if isinstance(place, State):
        return place
    inside = graph.inside(place)
    return inside[len(inside) // 2].state


def _cluster(box: Box) -> str:
    return f"cluster_{box.name.lower()}"


def _text(lines: list[str], end: str) -> str:
    return end.join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)


def _legend(graph: Graph) -> Iterator[str]:
    """Sample arrows under the picture, two in a row, hung below the lowest state by arrows that are not seen."""
    shown = [cause for cause in Cause if any(arc.cause is cause for arc in graph.arcs())]
    above = str(graph.inside(Box.SESSION)[-1].state)
    yield '  node [shape=plaintext, style="", label=""];\n'
    for row in zip(shown[::2], shown[1::2], strict=False):
        yield "  { rank=same; " + " ".join(f'"{cause} from"; "{cause}";' for cause in row) + " }\n"
        for cause in row:
            yield f'  "{cause}" [label="{CAUSES[cause]}", fontcolor="{COLOURS[cause]}"];\n'
            yield f'  "{cause} from" -> "{cause}" [{_look(cause)}];\n'
        yield f'  "{row[0]}" -> "{row[1]} from" [style=invis];\n'
        yield f'  "{above}" -> "{row[0]}" [style=invis];\n'
        above = row[0]
