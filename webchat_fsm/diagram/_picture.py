"""What all pictures share: their look, the geometry of their shapes, and how SVG writes these.

Every picture takes its sizes, fonts and colours from a `Style`. One for both kinds of page names the colours as
variables of its style sheet, and the viewer's preference chooses; one for one kind has the plain colours, which every
renderer reads. In the geometry y grows downwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from math import hypot
from typing import NamedTuple
from xml.sax.saxutils import escape


class Theme(StrEnum):
    """The colours of a picture: for light pages, for dark ones, or by the viewer's preference."""

    AUTO = "auto"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one kind of page, each as CSS writes it."""

    page: str = "#ffffff"
    ink: str = "#1f2328"
    """Texts and the arrows of several causes."""
    faint: str = "#59636e"
    """Meanings, notes and the legend."""
    state: str = "#f6f8fa"
    """Background of a state."""
    border: str = "#59636e"
    """Border of a state."""
    box: str = "#eaf2fd"
    """Background of a frame round several states."""
    frame: str = "#a5c4ee"
    """Border of such a frame."""
    command: str = "#0550ae"
    service: str = "#6639ba"
    fact: str = "#116329"
    failure: str = "#b3261e"
    walked: str = "#fff3c4"
    """Background of a state that was entered, where a path is drawn."""
    note: str = "#8a4600"
    """Notes of the user."""


LIGHT = Palette()
DARK = Palette(
    page="#0d1117",
    ink="#e6edf3",
    faint="#a4aeb9",
    state="#1c2430",
    border="#8b949e",
    box="#121d2f",
    frame="#2f4a73",
    command="#79b8ff",
    service="#c3a6ff",
    fact="#63d279",
    failure="#ff8f87",
    walked="#40350c",
    note="#f0b35e",
)


@dataclass(frozen=True, slots=True)
class Style:
    """The look of a picture; `replace` changes single colours or sizes of it.

    Sizes are pixels at the natural width of the picture. `max_width` is the natural width at most, if the drawing can
    be arranged so.
    """

    theme: Theme = Theme.AUTO
    light: Palette = field(default_factory=Palette)
    dark: Palette = DARK
    font: str = "Verdana, 'DejaVu Sans', sans-serif"
    """CSS font families; one that is wider than Verdana does not fit its boxes."""
    font_size: float = 14
    max_width: float = 880
    link: str = "{name}.md#{anchor}"
    """Target of the links; `{name}` is that of the table, `{anchor}` the row or state; empty for no links."""

    @property
    def palette(self) -> Palette:
        """Return the colours of a picture that cannot follow the page: light ones for `auto`."""
        return self.dark if self.theme is Theme.DARK else self.light

    def with_theme(self, theme: str) -> Style:
        """Return the same style for another kind of page; raises ValueError for an unknown one."""
        return replace(self, theme=Theme(theme))


DEFAULT = Style()

_VARIABLE = re.compile(r"var\(--([a-z]+)\)")


def style_sheet(rules: str, style: Style) -> str:
    """Return the text of a style element: rules in which `var(--name)` is a colour of the palette."""
    if style.theme is Theme.AUTO:
        dark = f"@media (prefers-color-scheme: dark) {{\n.drawing {{ {_variables(style.dark)} }}\n}}"
        return f".drawing {{ {_variables(style.light)} }}\n{dark}\n{rules}"
    # Not every renderer of SVG reads variables, and there is nothing to choose.
    return _VARIABLE.sub(lambda found: str(getattr(style.palette, found[1])), rules)


def _variables(palette: Palette) -> str:
    return " ".join(f"--{one.name}: {getattr(palette, one.name)};" for one in fields(palette))


# -- points, rectangles and curves -------------------------------------------------------------------------------------

STEPS = 6
"""Straight pieces by which each piece of a curve is approximated."""
_WEIGHTS = tuple(
    ((1 - share) ** 3, 3 * (1 - share) ** 2 * share, 3 * (1 - share) * share**2, share**3)
    for share in (step / STEPS for step in range(1, STEPS + 1))
)
"""Weights of the four points of a piece, at each end of a straight one."""


class Point(NamedTuple):
    """A place in a drawing."""

    x: float
    y: float


class Rect(NamedTuple):
    """A rectangle, by its left top corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Return the x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Return the y of the lower side."""
        return self.y + self.height

    def shrunk(self, margin: float) -> Rect:
        """Return the rectangle inside a margin; a negative one makes it larger."""
        return Rect(self.x + margin, self.y + margin, self.width - 2 * margin, self.height - 2 * margin)

    def moved(self, x: float, y: float) -> Rect:
        """Return the rectangle at another place."""
        return self._replace(x=self.x + x, y=self.y + y)

    def overlaps(self, other: Rect) -> bool:
        """Return whether two rectangles have an area in common."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    def contains(self, other: Rect) -> bool:
        """Return whether another rectangle lies inside."""
        inside = self.x < other.x and other.right < self.right
        return inside and self.y < other.y and other.bottom < self.bottom

    def border_hits(self, other: Rect) -> bool:
        """Return whether the border of this rectangle crosses another one."""
        return self.overlaps(other) and not self.contains(other)


@dataclass(frozen=True)
class Curve:
    """Cubic Bezier pieces, one after the other: a first point, then three for each piece."""

    points: tuple[Point, ...]

    @property
    def reversed(self) -> Curve:
        """Return the curve from its end to its beginning."""
        return Curve(self.points[::-1])

    @property
    def length(self) -> float:
        """Return the length of the curve, approximately."""
        return sum(hypot(b.x - a.x, b.y - a.y) for a, b in pairwise(self.flat))

    @property
    def chord(self) -> float:
        """Return the distance of its ends."""
        return hypot(self.points[-1].x - self.points[0].x, self.points[-1].y - self.points[0].y)

    # Each curve is compared with every other one and with each text, so these two are kept.

    @cached_property
    def bounds(self) -> Rect:
        """Return the rectangle round the control points, in which the curve lies."""
        xs, ys = zip(*self.points, strict=True)
        return Rect(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))

    @cached_property
    def flat(self) -> tuple[Point, ...]:
        """Return the points of straight lines that approximate the curve."""
        points = self.points
        pieces = (points[place : place + 4] for place in range(0, len(points) - 1, 3))
        return (points[0], *(point for a, b, c, d in pieces for point in _bezier(a, b, c, d)))


def arrow_hits(curve: Curve, rect: Rect) -> bool:
    """Return whether a curve enters a rectangle."""
    # Most curves are far away; one without any height has no area, so its rectangle is made larger.
    if not curve.bounds.shrunk(-1).overlaps(rect):
        return False
    return any(segment_hits(start, end, rect) for start, end in pairwise(curve.flat))


def crossings(one: Curve, other: Curve) -> int:
    """Return how often two curves cross."""
    if not one.bounds.shrunk(-1).overlaps(other.bounds.shrunk(-1)):
        return 0
    return sum(_segments_cross(a, b, c, d) for a, b in pairwise(one.flat) for c, d in pairwise(other.flat))


def segment_hits(start: Point, end: Point, rect: Rect) -> bool:
    """Return whether a straight line enters a rectangle; touching its border is not entering."""
    # By the shares of the line that lie within the two bands of the rectangle (Liang and Barsky).
    low, high = 0.0, 1.0
    for begin, step, near, far in (
        (start.x, end.x - start.x, rect.x, rect.right),
        (start.y, end.y - start.y, rect.y, rect.bottom),
    ):
        if step == 0:
            if not near < begin < far:
                return False
            continue
        first, last = sorted(((near - begin) / step, (far - begin) / step))
        low, high = max(low, first), min(high, last)
    return low < high


def _segments_cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = a, b, c, d
    # Two lines that are apart in one direction, as nearly all are, cannot cross.
    if max(ax, bx) < min(cx, dx) or max(cx, dx) < min(ax, bx) or max(ay, by) < min(cy, dy) or max(cy, dy) < min(ay, by):
        return False
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: Point, b: Point, point: Point) -> float:
    """Return a number whose sign is the side of a line on which a point lies."""
    return (b.x - a.x) * (point.y - a.y) - (b.y - a.y) * (point.x - a.x)


def _bezier(a: Point, b: Point, c: Point, d: Point) -> Iterator[Point]:
    for p, q, r, s in _WEIGHTS:
        yield Point(p * a.x + q * b.x + r * c.x + s * d.x, p * a.y + q * b.y + r * c.y + s * d.y)


# -- SVG ---------------------------------------------------------------------------------------------------------------

ARROWHEAD = 0.42
"""Half of the width of an arrowhead, by its length."""


def head(title: str, description: str, size: tuple[float, float], rules: str, style: Style) -> str:
    """Return the beginning of a picture, with its style and its background.

    `FONT` and `SIZE` in the rules stand for those of the style; title and description are for those who do not see it.
    """
    width, height = map(number, size)
    rules = rules.replace("FONT", style.font).replace("SIZE", number(style.font_size))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' class="drawing" role="img" aria-labelledby="drawing-title drawing-text">\n'
        f'<title id="drawing-title">{escape(title)}</title>\n'
        f'<desc id="drawing-text">{escape(description)}</desc>\n'
        f"<style>\n{escape(style_sheet(rules, style))}</style>\n"
        '<rect class="page" width="100%" height="100%" rx="8"/>\n'
    )


def number(value: float) -> str:
    """Return a number with one digit behind the point at most, as more cannot be seen."""
    return f"{value:.1f}".removesuffix(".0")


def place(rect: Iterable[float]) -> str:
    """Return the attributes of a rectangle: the left top corner, width and height."""
    names = ("x", "y", "width", "height")
    return " ".join(f'{name}="{number(value)}"' for name, value in zip(names, rect, strict=True))


def path(curve: Curve) -> str:
    """Return the data of a path that follows a curve."""
    first, *rest = (_pair(one) for one in curve.points)
    return f"M{first}C{' '.join(rest)}"


def arrowhead(base: Point, tip: Point) -> str:
    """Return the corners of an arrowhead from the end of its curve to the tip."""
    x, y = tip.x - base.x, tip.y - base.y
    side = Point(-y * ARROWHEAD, x * ARROWHEAD)
    corners = (
        tip,
        Point(base.x + side.x, base.y + side.y),
        Point(base.x - side.x, base.y - side.y),
    )
    return " ".join(map(_pair, corners))


def _pair(point: Point) -> str:
    return f"{number(point.x)},{number(point.y)}"
