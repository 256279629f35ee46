"""What the SVG pictures have in common: their head, and how numbers, rectangles, curves and arrowheads are written."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from webchat_fsm.diagram._places import Curve, Point
from webchat_fsm.diagram._style import Style, style_sheet

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
