"""Draw the curves of `sessions.json` as an SVG: lateness, processor and memory over the number of sessions.

One panel a measure, the numbers of sessions on a logarithmic axis, one line a client through its medians. Colours
follow the reader's light or dark scheme.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple


class Panel(NamedTuple):
    """A measure: its part of a row, its title, and the exponents of ten of its axis; None for one that begins at 0."""

    part: str
    title: str
    decades: tuple[int, int] | None


PANELS = (
    Panel("p99", "lateness of a poll, p99 (ms)", (0, 4)),
    Panel("cpu", "processor (% of one core)", None),
    Panel("memory", "memory of a session (KiB)", (0, 3)),
)

PANEL, HEIGHT = 300, 250
LEFT, TOP, RIGHT, BOTTOM = 48, 62, 14, 44
"""Margins of a panel, in pixels."""

LATE = 250.0
"""Milliseconds of lateness at which a line is drawn: the aim for one process."""

STYLE = """\
svg { --ink: #24292f; --grid: #d8dee4; --back: #ffffff; --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #d1d7e0; --grid: #3d444d; --back: #0d1117; --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; }
}
text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.title { font-weight: 600; font-size: 12px; }
.back { fill: var(--back); }
.grid { stroke: var(--grid); }
.limit { stroke: var(--ink); stroke-dasharray: 4 3; }
.line { fill: none; stroke-width: 2; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); stroke-dasharray: 6 2; }
.c2 { stroke: var(--c2); stroke-dasharray: 2 2; }
.dot0 { fill: var(--c0); } .dot1 { fill: var(--c1); } .dot2 { fill: var(--c2); }
.end { text-anchor: end; } .middle { text-anchor: middle; }"""


class Axis(NamedTuple):
    """A scale from values to pixels, logarithmic where `log` is set."""

    low: float
    high: float
    start: float
    stop: float
    log: bool

    def at(self, value: float) -> float:
        """Return the pixel of a value; one beyond the ends is drawn at the end."""
        value = min(self.high, max(self.low, value))
        low, high, value = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def medians(rows: Sequence[dict[str, Any]], client: str, part: str) -> list[tuple[int, float]]:
    """Return the points of a client: each number of sessions with the median of its runs."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["holder"] == client and part in row:
            values.setdefault(row["sessions"], []).append(row[part])
    return [(sessions, statistics.median(known)) for sessions, known in sorted(values.items())]


def short(value: float) -> str:
    """Return the label of a tick: 1, 10, 1k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def scale(panel: Panel, highest: float) -> tuple[Axis, list[float]]:
    """Return the vertical axis of a panel and its ticks."""
    bottom, top = HEIGHT - BOTTOM, TOP
    if panel.decades:
        first, last = panel.decades
        return Axis(10.0**first, 10.0**last, bottom, top, log=True), [10.0**each for each in range(first, last + 1)]
    step = next(each for each in (1, 2, 5, 10, 20, 25, 50, 100) if highest <= each * 5 or each == 100)
    steps = max(1, math.ceil(highest / step))
    return Axis(0.0, float(step * steps), bottom, top, log=False), [float(step * each) for each in range(steps + 1)]


def drawn(panel: Panel, left: float, rows: Sequence[dict[str, Any]], clients: Sequence[str]) -> list[str]:
    """Return the elements of one panel."""
    lines = [medians(rows, client, panel.part) for client in clients]
    largest = max(row["sessions"] for row in rows)
    across = Axis(1.0, 10.0 ** math.ceil(math.log10(max(10, largest))), left + LEFT, left + PANEL - RIGHT, log=True)
    up, ticks = scale(panel, max((value for points in lines for _, value in points), default=1.0))
    parts = [f'<text class="title" x="{left + LEFT}" y="{TOP - 12}">{escape(panel.title)}</text>']
    for tick in ticks:
        y = up.at(tick)
        parts.append(f'<line class="grid" x1="{across.start}" x2="{across.stop}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{across.start - 6}" y="{y + 4:.1f}">{short(tick)}</text>')
    for exponent in range(round(math.log10(across.high)) + 1):
        x = across.at(10.0**exponent)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{up.start}" y2="{up.stop}"/>')
        parts.append(f'<text class="middle" x="{x:.1f}" y="{up.start + 16}">{short(10.0**exponent)}</text>')
    middle = (across.start + across.stop) / 2
    parts.append(f'<text class="middle" x="{middle}" y="{up.start + 34}">sessions in one process</text>')
    if panel.part == "p99":
        y = up.at(LATE)
        parts.append(f'<line class="limit" x1="{across.start}" x2="{across.stop}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{across.start + 4}" y="{y - 4:.1f}">{LATE:.0f} ms</text>')
    for number, points in enumerate(lines):
        places = [(across.at(sessions), up.at(value)) for sessions, value in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line c{number}" points="{path}"/>')
        parts += [
            f'<circle class="dot{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(clients[number])}, '
            f"{sessions:,} sessions: {value:,.1f}</title></circle>"
            for (x, y), (sessions, value) in zip(places, points, strict=True)
        ]
    return parts


def svg(known: dict[str, Any]) -> str:
    """Return the plot of the rows in `sessions.json`; raises `ValueError` where there are none."""
    rows = known["rows"]
    if not rows:
        raise ValueError("there are no rows to draw: run python -m tests.benchmarks.sessions first")
    clients = sorted({row["holder"] for row in rows}, key=lambda client: (client != "webchat_fsm", client))
    width, described = PANEL * len(PANELS), known["machine"]
    about = (
        f"a poll every {known['interval']:g} s each; {described['processor']}, {described['cores']} cores, "
        f"{described['python']}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'role="img" aria-label="Lateness, processor and memory over the number of sessions">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="back" width="{width}" height="{HEIGHT}"/>',
    ]
    x = float(LEFT)
    for number, client in enumerate(clients):
        parts.append(f'<line class="line c{number}" x1="{x}" x2="{x + 24}" y1="20" y2="20"/>')
        parts.append(f'<text x="{x + 30}" y="24">{escape(client)}</text>')
        x += 60 + 7 * len(client)
    parts.append(f'<text class="end" x="{width - RIGHT}" y="24">{escape(about)}</text>')
    for number, panel in enumerate(PANELS):
        parts += drawn(panel, PANEL * number, rows, clients)
    return "\n".join([*parts, "</svg>"]) + "\n"
