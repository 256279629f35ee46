"""The drawing of a transport for the explorer page: places of `_layout`, with states to press and triggers as links.

Its colours are classes of the page's own style, so that the page can change them, and mark states and arrows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from itertools import groupby
from urllib.parse import quote, urlencode

from webchat_fsm.diagram._graphviz import PlacedArrow, PlacedBox, PlacedState
from webchat_fsm.diagram._layout import layout
from webchat_fsm.diagram._machines import Box, lifecycle
from webchat_fsm.diagram._metrics import LINE_HEIGHT
from webchat_fsm.diagram._sketch import Line
from webchat_fsm.diagram._style import DEFAULT
from webchat_fsm.diagram._svg_parts import arrowhead, number, path, place
from webchat_fsm.lifecycle._transports import Transport

LINE = DEFAULT.font_size * LINE_HEIGHT
MARGIN = 6


def drawing(transport: Transport) -> str:
    """Return the drawing of a transport as an SVG element; raises `MissingExtraError` without the extra `diagrams`."""
    graph = lifecycle(transport)
    found = layout(graph)
    size = f"{-MARGIN} {-MARGIN} {number(found.width + 2 * MARGIN)} {number(found.height + 2 * MARGIN)}"
    # By the order of painting: frames below arrows, arrows below states.
    parts = [
        *(text for box in found.boxes for text in _box(box)),
        *(text for arrow in found.arrows for text in _arrow(arrow, transport)),
        *(text for state in found.states for text in _state(state)),
    ]
    label = escape(f"{graph.title}; each state is a button, each trigger a link", quote=True)
    return (
        f'<svg class="drawing" data-transport="{transport}" viewBox="{size}" width="{number(found.width)}"'
        f' role="group" aria-label="{label}" hidden>{"".join(parts)}</svg>\n'
    )


def _box(placed: PlacedBox) -> Iterator[str]:
    yield f'<g class="box" aria-hidden="true"><rect {place(placed.rect)} rx="8"/>'
    yield _text(placed.title.x, placed.title.y + DEFAULT.font_size, "title", placed.box.value) + "</g>\n"


def _state(placed: PlacedState) -> Iterator[str]:
    rect = placed.rect
    # Its name for a screen reader are its lines, with white space between them.
    yield f'<g class="state" data-state="{placed.node.state}" role="button" tabindex="0">'
    yield f'<rect {place(rect)} rx="8"/>'
    first = rect.y + (rect.height - len(placed.lines) * LINE) / 2 + DEFAULT.font_size
    for row, line in enumerate(placed.lines):
        yield _text(rect.x + rect.width / 2, first + row * LINE, f"{line.kind} middle", line.text) + "\n"
    yield "</g>\n"


def _arrow(placed: PlacedArrow, transport: Transport) -> Iterator[str]:
    yield f'<g class="arrow {placed.cause or "mixed"}" {_ends(placed)}>'
    corners = arrowhead(placed.head.points[-1], placed.tip)
    yield f'<path d="{path(placed.tail)}"/><path d="{path(placed.head)}"/><polygon points="{corners}"/>'
    for trigger, lines in groupby(enumerate(placed.lines), key=lambda one: one[1].way and one[1].way.trigger.value):
        texts = "\n".join(_label(placed, row, line) for row, line in lines)
        yield f'<a class="way" href="{_address(trigger, transport)}">{texts}</a>' if trigger else texts
    yield "</g>\n"


def _address(trigger: str, transport: Transport) -> str:
    """Return the address of a trigger in the page, as `elements.mjs` writes it."""
    named = {"view": "explore", "transport": transport.value, "trigger": trigger}
    return escape(f"#{urlencode(named, quote_via=quote)}", quote=True)


def _label(placed: PlacedArrow, row: int, line: Line) -> str:
    y = placed.label.y + DEFAULT.font_size + row * LINE
    return _text(placed.label.x + line.indent, y, line.kind, line.text)


def _ends(placed: PlacedArrow) -> str:
    """Return the attributes of an arrow: its sources, which are several for a frame, its destination, its triggers."""
    source, dest = placed.arcs[0].source, placed.arcs[0].dest
    sources = source.states if isinstance(source, Box) else (source,)
    triggers = dict.fromkeys(way.trigger.value for arc in placed.arcs for way in arc.ways)
    listed = escape(json.dumps([*triggers]), quote=True)
    return f'data-sources="{" ".join(sources)}" data-dest="{dest}" data-triggers="{listed}"'


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}">{escape(text)}</text>'
