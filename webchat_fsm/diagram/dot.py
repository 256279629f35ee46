"""The lifecycle as Graphviz text: nodes are states, arrows lead from one to another, colours tell who is behind them.

All that leads from one place to another is one arrow, whose label has a line for each way in the colour of its cause.

Graphviz decides on places by the order and the direction of what it reads. So arrows that lead back to where no session
is open are written the other way round and drawn backwards: the picture then reads from left to right, and the labels
of arrows that run side by side stand one above the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap

from webchat_fsm.diagram.graph import CAUSES, Arc, Box, Cause, Graph, Node, Place
from webchat_fsm.lifecycle.table import State

FONT = "Verdana"
"""A font whose widths Graphviz knows without having it; where a viewer lacks it, the narrower one in its place fits."""

COLOURS = {Cause.COMMAND: "#0b57d0", Cause.SERVICE: "#57606a", Cause.FACT: "#1a7f37", Cause.FAILURE: "#c62828"}
STYLES = {Cause.COMMAND: "bold", Cause.SERVICE: "dotted", Cause.FACT: "solid", Cause.FAILURE: "dashed"}
SAMPLES = {
    Cause.COMMAND: "\u2501\u2501",
    Cause.SERVICE: "\u00b7 \u00b7 \u00b7",
    Cause.FACT: "\u2500\u2500",
    Cause.FAILURE: "\u2013 \u2013",
}
"""How the legend shows these lines."""
MIXED = "#24292f"
"""The colour of an arrow of several causes; its line is solid."""
WIDE = 17
"""Letters in a line of a label."""
NARROW = 16
"""Letters in a line of what a state means."""
FILLS = {Box.CLOSED: "#f3f4f6", Box.SESSION: "#e8f2ff"}

NOTES = (
    "An arrow out of a box leads out of each state in it; one for several causes is black, with a line for each way.",
    "Not drawn: what leaves a state as it is, and the events that are published. lifecycle.md has both.",
)
_DEPTHS: dict[Place | None, int] = {Box.CLOSED: 1, None: 2, State.POLLING: 3, Box.SESSION: 4}
"""How far to the right the states of a box stand, and those of none; a start leads to polling first."""
_HEAD = f"""\
digraph lifecycle {{
  graph [rankdir=LR, compound=true, nodesep=0.5, ranksep=0.2, pad=0.2, bgcolor="white",
         fontname="{FONT}", fontsize=14, fontcolor="#24292f"];
  node [shape=box, style="rounded,filled", fillcolor="white", color="#57606a", penwidth=1.3, margin="0.12,0.09",
        fontname="{FONT}", fontsize=14, fontcolor="#24292f"];
  edge [fontname="{FONT}", fontsize=14, arrowsize=0.8, penwidth=1.5];
"""


def render(graph: Graph) -> str:
    """The whole drawing, with a title and a legend."""
    return "".join(_lines(graph))


def _title(graph: Graph) -> str:
    scope = f"on transport {graph.transport}" if graph.transport else "on all transports"
    legend = (_sample(cause) for cause in Cause if any(arc.cause is cause for arc in graph.arcs()))
    title = _text([f"The lifecycle of a session {scope}", *NOTES, " ", *legend, " "], "\\n")
    return f'  label="{title}"; labelloc=t;\n'


def _sample(cause: Cause) -> str:
    return f"{SAMPLES[cause]}  {CAUSES[cause]}"


def _lines(graph: Graph) -> Iterator[str]:
    yield _HEAD + _title(graph)
    yield from (f"  {_node(node)}" for node in graph.inside(None))
    for box in Box:
        yield f'  subgraph {_cluster(box)} {{\n    label="{box}"; style="rounded,filled"; fillcolor="{FILLS[box]}";\n'
        yield '    color="#afb8c1"; margin=14;\n'
        yield from (f"    {_node(node)}" for node in graph.inside(box))
        level = " ".join(f'"{state}";' for state in _level(graph, box))
        yield f"    {{ rank=same; {level} }}\n  }}\n"
    for number, arcs in enumerate(arrows(graph)):
        yield f"  {_arrow(graph, number, arcs)}"
    yield "}\n"


def _level(graph: Graph, box: Box) -> list[State]:
    """The states of a box that stand one above the other; arrows between those would hide each other's labels."""
    inside = [node.state for node in graph.inside(box)]
    if box is Box.CLOSED:
        return inside
    ends = {(arc.source, arc.dest) for arc in graph.arcs()}
    after = [state for state in inside if state is not _first(graph)]
    return [] if any((one, other) in ends and (other, one) in ends for one in after for other in after) else after


def _first(graph: Graph) -> State:
    """The state of an open session that a start leads to first."""
    return State.POLLING if graph.node(State.POLLING).reachable else State.ACTIVE


def _node(node: Node) -> str:
    label = _text([node.state, *wrap(node.meaning, NARROW, break_long_words=False)], "\\n")
    width = 2.6 if node.state is State.IDLE else 1.3
    return f'"{node.state}" [label="{label}", penwidth={width}];\n'


def arrows(graph: Graph) -> list[tuple[Arc, ...]]:
    """What is drawn as one arrow each: the arcs from one place to another, one for each cause."""
    return [tuple(arcs) for _, arcs in groupby(graph.arcs(), key=lambda arc: (arc.source, arc.dest))]


def ident(number: int) -> str:
    """The id of an arrow in the drawing."""
    return f"arrow{number}"


def lines(arcs: Iterable[Arc]) -> Iterator[tuple[str, str]]:
    """The lines of an arrow's label, each with its colour."""
    for arc in arcs:
        for way in arc.ways:
            first, *rest = wrap(str(way), WIDE, break_long_words=False)
            yield from ((line, COLOURS[arc.cause]) for line in (f" {first}", *(f"    {line}" for line in rest)))


def _arrow(graph: Graph, number: int, arcs: tuple[Arc, ...]) -> str:
    source, dest = arcs[0].source, arcs[0].dest
    back = _depth(graph, source) > _depth(graph, dest)
    inner = _inner(graph, source)
    tail, head = (dest, inner) if back else (inner, dest)
    look = _look({arc.cause for arc in arcs}) + (", dir=back" if back else "")
    if isinstance(source, Box):
        look += f", {'lhead' if back else 'ltail'}={_cluster(source)}"
    label = _text([line for line, _ in lines(arcs)], "\\l")
    return f'"{tail}" -> "{head}" [id={ident(number)}, label="{label}\\l", {look}];\n'


def _look(causes: set[Cause]) -> str:
    colour = MIXED if len(causes) > 1 else COLOURS[next(iter(causes))]
    style = "solid" if len(causes) > 1 else STYLES[next(iter(causes))]
    return f'color="{colour}", fontcolor="{colour}", style={style}'


def _depth(graph: Graph, place: Place) -> int:
    """How far to the right a place stands."""
    return _DEPTHS.get(place) or _DEPTHS[graph.node(State(place)).box]


def _inner(graph: Graph, place: Place) -> State:
    """A state to tie an arrow to: the place itself, or one inside the box that the arrow is then cut off at."""
    if isinstance(place, State):
        return place
    if place is Box.SESSION:
        return _first(graph)
    inside = graph.inside(place)
    return inside[len(inside) // 2].state


def _cluster(box: Box) -> str:
    return f"cluster_{box.name.lower()}"


def _text(lines: list[str], end: str) -> str:
    return end.join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
