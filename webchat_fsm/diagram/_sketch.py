"""A drawing before anything has its place: what is drawn, the lines of its texts, and the sizes of both.

The widths of letters are those of DejaVu Sans, which equal those of Verdana to a hundredth. Other fonts of the fallback
list are narrower, so a text fits the space that is kept for it whichever of them a viewer takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from webchat_fsm.diagram._graph import Arc, Graph, Node, Row, Way
from webchat_fsm.diagram._picture import Style

# -- the size of a text ------------------------------------------------------------------------------------------------

FIRST = 32
"""The character that the first width belongs to."""

# fmt: off
REGULAR = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
)
"""Thousandths of the font size, for the characters from `FIRST` on."""
BOLD = (
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696, 696, 696, 696, 696,
    696, 696, 696, 400, 400, 838, 838, 838, 580, 1000, 774, 762, 734, 830, 683, 683, 821, 837, 372, 372, 775, 637, 995,
    837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771, 724, 725, 457, 365, 457, 838, 500, 500, 675, 716, 593, 716,
    678, 435, 716, 712, 343, 343, 665, 343, 1042, 712, 687, 716, 716, 493, 595, 478, 712, 652, 924, 645, 652, 582, 712,
    365, 712, 838,
)
"""The same for bold characters."""
# fmt: on

WIDEST = 1040
"""Width of a character that is not listed: ideographs and emoji are one em wide at most."""
LINE_HEIGHT = 1.25
"""Distance of two lines, in font sizes."""


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a text in one line, in the unit of the font size."""
    widths = BOLD if bold else REGULAR
    return sum(_width(character, widths) for character in text) * size / 1000


def wrapped(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Break a text at blanks into lines of a width at most; a longer word has a line of its own."""
    return [*_broken(text.split(), width, size, bold)] or [""]


def balanced(text: str, width: float, size: float) -> list[str]:
    """Break a text as `wrapped` does, into lines of about the same length."""
    lines = wrapped(text, width, size)
    # Narrower by steps of a quarter of a letter, as long as no further line is needed.
    while len(closer := wrapped(text, width := width - size / 4, size)) == len(lines) and width > size:
        lines = closer
    return lines


def _broken(words: list[str], width: float, size: float, bold: bool) -> Iterator[str]:
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size, bold=bold) > width:
            yield line
            longer = word
        line = longer
    if line:
        yield line


def _width(character: str, widths: tuple[int, ...]) -> int:
    place = ord(character) - FIRST
    return widths[place] if 0 <= place < len(widths) else WIDEST


# -- what is drawn -----------------------------------------------------------------------------------------------------

STATE_MARGIN, LABEL_MARGIN = 9.0, 5.0
"""Space round the lines of a state, and round those of a label."""
STATE_WIDTH, INNER_WIDTH = 10.5, 19.0
"""Width of a line at most, in font sizes: of a meaning, and of a row inside a state."""


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


def sketch(graph: Graph[Row], style: Style, label_width: float) -> Sketch:
    """Return what the picture of a graph shows; a line of a label is as wide as so many font sizes at most."""
    boxes = boxes_of(graph)
    arrows = [tuple(arcs) for _, arcs in groupby(graph.arcs(boxes), key=lambda arc: (arc.source, arc.dest))]
    return Sketch(
        graph,
        boxes,
        {box: tuple(node.state for node in graph.inside(box)) for box in boxes},
        tuple(arrows),
        {node.state: _sized(_state_lines(graph, node, style), style, STATE_MARGIN) for node in graph.drawn},
        tuple(_sized(_label_lines(graph, arcs, style, label_width), style, LABEL_MARGIN) for arcs in arrows),
        {box: _sized([Line(box.value, "name")], style, 0) for box in boxes},
    )


def boxes_of(graph: Graph[Row]) -> tuple[StrEnum, ...]:
    """Return the boxes to draw: those round several of the states, but not round all."""
    inside = {box: graph.inside(box) for box in graph.boxes}
    return tuple(box for box, nodes in inside.items() if 1 < len(nodes) < len(graph.drawn))


def _state_lines(graph: Graph[Row], node: Node, style: Style) -> Iterator[Line]:
    size = style.font_size
    yield Line(node.state.value, "name")
    yield from (Line(text, "meaning") for text in balanced(node.meaning, STATE_WIDTH * size, size))
    if note := graph.notes.get(node.state.value):
        yield from (Line(text, "note") for text in balanced(note, STATE_WIDTH * size, size))
    if staying := graph.staying(node.state):
        yield Line("", "rule")
        yield from (line for way in staying for line in _way_lines(graph, way, style, INNER_WIDTH))


def _label_lines(graph: Graph[Row], arcs: Iterable[Arc], style: Style, width: float) -> Iterator[Line]:
    """Yield the lines of an arrow's label; a line without indent begins a way."""
    return (line for arc in arcs for way in arc.ways for line in _way_lines(graph, way, style, width))


def _way_lines(graph: Graph[Row], way: Way, style: Style, width: float) -> Iterator[Line]:
    size = style.font_size
    events = graph.events(way.rows) if graph.detailed else ()
    published = f" / {', '.join(events)}" if events else ""
    for number, text in enumerate(wrapped(f"{way}{graph.times(way)}{published}", width * size, size)):
        yield Line(text, way.cause.value, size * bool(number), way)
    if note := graph.notes.get(way.trigger.value):
        yield from (Line(text, "note", size, way) for text in wrapped(note, width * size, size))


def _sized(lines: Iterable[Line], style: Style, margin: float) -> Text:
    listed = tuple(lines)
    widths = [line.indent + text_width(line.text, style.font_size, bold=line.kind == "name") for line in listed]
    return Text(listed, max(widths) + 2 * margin, len(listed) * style.font_size * LINE_HEIGHT + 2 * margin)
