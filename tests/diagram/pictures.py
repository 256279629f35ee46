"""Find in an SVG picture what hides a text: boxes, borders, arrows and other texts, from the picture alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple
from xml.etree import ElementTree

from webchat_fsm.diagram._picture import Curve, Point, Rect, segment_hits
from webchat_fsm.diagram._sketch import text_width

SVG = "{http://www.w3.org/2000/svg}"
BOLD = {"title", "name", "frame-title"}
PAGE = 830
"""Pixels at which a forge shows a README at most."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Text(NamedTuple):
    words: str
    kind: str
    rect: Rect
    owner: int
    """Number of the group that the text belongs to."""


class Picture:
    """The places of a picture, in its own coordinates."""

    def __init__(self, source: str) -> None:
        self.root = ElementTree.fromstring(source)
        rules = "".join(self.root.itertext())
        self.size = float(re.search(r"text \{[^}]*font-size: ([\d.]+)px", rules)[1])
        larger = re.search(r"\.title \{[^}]*font-size: ([\d.]+)px", rules)
        self.title_size = float(larger[1]) if larger else self.size
        _, _, self.width, self.height = map(float, self.root.get("viewBox", "").split())
        self.texts: list[Text] = []
        self.states: list[Rect] = []
        self.frames: list[Rect] = []
        self.lines: list[tuple[Point, ...]] = []
        self._read(self.root, 0.0, 0.0, 0)

    def _read(self, element: ElementTree.Element, x: float, y: float, owner: int) -> None:
        if moved := element.get("transform"):
            by_x, by_y = map(float, NUMBER.findall(moved))
            x, y = x + by_x, y + by_y
        kind = element.get("class", "")
        if element.tag == f"{SVG}text":
            self.texts.append(self._text(element, x, y, owner))
        elif element.tag == f"{SVG}rect" and kind != "page":
            rect = Rect(*(float(element.get(name, "0")) for name in ("x", "y", "width", "height"))).moved(x, y)
            (self.frames if kind == "box" else self.states).append(rect)
        elif (element.tag == f"{SVG}path" and "C" in element.get("d", "")) or element.tag == f"{SVG}polygon":
            self.lines.append(tuple(_points(element, x, y)))
        for number, child in enumerate(element):
            self._read(child, x, y, owner if element.tag in (f"{SVG}a", f"{SVG}g") else number)

    def _text(self, element: ElementTree.Element, x: float, y: float, owner: int) -> Text:
        kind, words = element.get("class", ""), element.text or ""
        size = self.title_size if kind == "title" else self.size
        width = text_width(words, size, bold=kind in BOLD)
        left = float(element.get("x", "0")) - (width / 2 if element.get("text-anchor") == "middle" else 0)
        # From the top of a capital letter to the foot of a letter such as p.
        return Text(words, kind, Rect(left + x, float(element.get("y", "0")) + y - 0.76 * size, width, size), owner)

    @property
    def smallest(self) -> float:
        """Return the size of the smallest text where the picture is shown at the width of a page."""
        return self.size * min(1.0, PAGE / self.width)

    def faults(self) -> Iterator[str]:
        """Yield each text that is hidden, cut off or struck through, and each arrow through a state."""
        page = Rect(0, 0, self.width, self.height)
        for text in self.texts:
            yield from (f"{text.words!r} {fault}" for fault in self._faults_of(text.rect, page))
        for one, other in combinations(self.texts, 2):
            if one.rect.overlaps(other.rect):
                yield f"{one.words!r} is on {other.words!r}"
        for one, other in combinations(self.states, 2):
            if one.overlaps(other):
                yield f"a state is on another one at {one.x:.0f},{one.y:.0f}"
        for state in self.states:
            if any(hits(line, state.shrunk(2)) for line in self.lines):
                yield f"an arrow leads through the state at {state.x:.0f},{state.y:.0f}"

    def _faults_of(self, rect: Rect, page: Rect) -> Iterator[str]:
        if not page.contains(rect):
            yield "leaves the page"
        if any(hits(line, rect) for line in self.lines):
            yield "is struck through by an arrow"
        if any(border.border_hits(rect) for border in (*self.states, *self.frames)):
            yield "is on a border"


def hits(line: tuple[Point, ...], rect: Rect) -> bool:
    return any(segment_hits(start, end, rect) for start, end in pairwise(line))


def _points(element: ElementTree.Element, x: float, y: float) -> Iterator[Point]:
    numbers = [float(one) for one in NUMBER.findall(element.get("d") or element.get("points") or "")]
    points = [Point(a + x, b + y) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    if element.tag == f"{SVG}polygon":
        yield from (*points, points[0])
    else:
        yield from Curve(tuple(points)).flat
