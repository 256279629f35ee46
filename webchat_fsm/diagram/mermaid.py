"""The lifecycle as Mermaid text, which code forges and wikis draw by themselves.

Mermaid keeps colon, semicolon and hash for itself and allows no hyphen in an id, so ids and labels are respelt here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from webchat_fsm.diagram.graph import Box, Graph, Node, Place
from webchat_fsm.diagram.walk import Step, merged
from webchat_fsm.lifecycle.table import State

NOTE = "generated from the lifecycle table; what leaves a state as it is, is not drawn"
BOXED = Box.SESSION
"""The one box that is drawn: Mermaid does not lay out arrows between the insides of two."""
BREAK = "<br/>"

_SAFE = str.maketrans({":": " -", ";": ",", "#": "no."})
_CLASSES = """\
  classDef walked fill:#fff3c4,stroke:#b7791f,stroke-width:3px
"""


def render(graph: Graph) -> str:
    """The whole drawing."""
    return "".join(_lines(graph))


def path(graph: Graph, states: Iterable[State]) -> str:
    """The whole drawing with the states of a walked path highlighted."""
    passed = frozenset(states)
    drawn = [ident(node.state) for node in graph.drawn if node.state in passed]
    return render(graph) + (f"{_CLASSES}  class {','.join(drawn)} walked\n" if drawn else "")


def walked(steps: Sequence[Step]) -> str:
    """A walked path and nothing else: its states, and its steps by number."""
    lines: dict[tuple[State, State], list[str]] = {}
    for number, (step, times) in enumerate(merged(steps), 1):
        source, trigger, dest = step
        again = f" (x{times})" if times > 1 else ""
        lines.setdefault((source, dest), []).append(f"{number}. {trigger}{again}")
    passed = dict.fromkeys(state for ends in lines for state in ends)
    head = "stateDiagram-v2\n" + "".join(f"  {_declared(state)}\n" for state in passed)
    return head + "".join(_line(source, dest, labels) for (source, dest), labels in lines.items())


def ident(place: Place) -> str:
    """The id of a state or box: no hyphens, no blanks."""
    return place.value.replace("-", "_").replace(" ", "_")


def label(text: str) -> str:
    """A text that cannot end its own label."""
    return text.translate(_SAFE)


def _lines(graph: Graph) -> Iterator[str]:
    yield f"%% {NOTE}\nstateDiagram-v2\n  direction TB\n  [*] --> {ident(State.IDLE)}\n"
    for node in graph.drawn:
        yield from (f"  {line}\n" for line in _node(node) if node.box is not BOXED)
    yield f'  state "{BOXED}" as {ident(BOXED)} {{\n'
    for node in graph.inside(BOXED):
        yield from (f"    {line}\n" for line in _node(node))
    yield "  }\n"
    for (source, dest), arcs in groupby(graph.arcs([BOXED]), key=lambda arc: (arc.source, arc.dest)):
        yield _line(source, dest, [str(way) for arc in arcs for way in arc.ways])


def _node(node: Node) -> Iterator[str]:
    yield _declared(node.state)
    yield f"{ident(node.state)} : {label(BREAK.join(wrap(node.meaning, 34)))}"


def _declared(state: State) -> str:
    return f'state "{state}" as {ident(state)}'


def _line(source: Place, dest: State, labels: Iterable[str]) -> str:
    return f"  {ident(source)} --> {ident(dest)} : {label(BREAK.join(labels))}\n"
