"""The places of states, labels and arrows: the best of several arrangements by Graphviz.

A drawing is arranged from top to bottom or from left to right, with arrows that lead back written the other way round
or not, and so on. The arrangement whose labels are free, and which is not wider than the page, is taken; of several the
one with the fewest crossings and the shortest arrows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

from webchat_fsm.diagram._graph import Graph, Row
from webchat_fsm.diagram._graphviz import Arrangement, Layout, placed
from webchat_fsm.diagram._places import arrow_hits, crossings
from webchat_fsm.diagram._sketch import Sketch, sketch
from webchat_fsm.diagram._style import DEFAULT, Style

MARGIN = 16
"""Space round the whole drawing."""
ROOMS = (0.3, 0.45, 0.6)
"""The spaces between neighbours that are tried one after the other, in inches, until the labels are free."""
CROSSING, DETOUR, LATE_START = 1500, 2, 3
"""What a reader notices, in pixels of arrows: a crossing, a pixel of a detour, a pixel before the first state."""
PIXEL = 200
"""What a pixel of an arrow weighs, in square pixels of the whole drawing."""
NEAR = 2
"""Pixels at which an arrow looks as if it touched a text."""


def layout(graph: Graph[Row], style: Style = DEFAULT) -> Layout:
    """Return the best arrangement of a drawing; raises `MissingExtraError` without the extra `diagrams`."""
    drawing = sketch(graph, style)
    best: tuple[tuple[float, ...], Layout] | None = None
    for room in ROOMS:
        for choice in product(("TB", "LR"), (False, True), (False, True), (False, True)):
            one = placed(drawing, style, Arrangement(*choice, room))
            faults = _faults(one, style)
            # The weight takes most of the time, and does not matter where a fault decides.
            if best is None or faults <= best[0][:2]:
                cost = (*faults, weight(drawing, one))
                best = (cost, one) if best is None or cost < best[0] else best
        if best is not None and best[0][:2] == (0, 0):
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
