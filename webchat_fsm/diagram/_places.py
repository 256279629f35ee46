"""Points, rectangles and curves of a drawing, and whether they meet; y grows downwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import hypot
from typing import NamedTuple

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
