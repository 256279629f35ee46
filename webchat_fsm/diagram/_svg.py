"""The SVG picture of a graph: the places of `_layout`, written with classes, links, tooltips and a description.

The bytes depend on the graph, the style and Graphviz alone, not on machine, fonts or date.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from webchat_fsm.diagram._graph import Cause, Graph, Row, Way
from webchat_fsm.diagram._layout import MARGIN, Layout, PlacedArrow, PlacedBox, PlacedState, layout
from webchat_fsm.diagram._picture import DEFAULT, Style, arrowhead, head, number, path, place
from webchat_fsm.diagram._sketch import LINE_HEIGHT, STATE_MARGIN, Line, boxes_of, text_width, wrapped

RULES = """\
.page { fill: var(--page); }
text { font-family: FONT; font-size: SIZEpx; fill: var(--ink); }
.title { font-size: TITLEpx; font-weight: bold; }
.name { font-weight: bold; }
.meaning, .legend, .frame-title { fill: var(--faint); }
.frame-title { font-weight: bold; }
.note { fill: var(--note); font-style: italic; }
.state rect { fill: var(--state); stroke: var(--border); stroke-width: 1.3; }
.state .rule { stroke: var(--border); }
.state.initial rect { stroke-width: 2.6; }
.state.walked rect { fill: var(--walked); }
.box { fill: var(--box); stroke: var(--frame); stroke-width: 1.3; }
.arrow path { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.arrow polygon { fill: var(--ink); }
.command path { stroke: var(--command); stroke-width: 2.4; }
.service path { stroke: var(--service); stroke-dasharray: 1.5 4; stroke-linecap: round; stroke-width: 2; }
.fact path { stroke: var(--fact); }
.failure path { stroke: var(--failure); stroke-dasharray: 6 4; }
.command polygon, text.command { fill: var(--command); }
.service polygon, text.service { fill: var(--service); }
.fact polygon, text.fact { fill: var(--fact); }
.failure polygon, text.failure { fill: var(--failure); }
.untaken { opacity: 0.4; }
a:hover text { text-decoration: underline; }
"""


def svg(graph: Graph[Row], style: Style = DEFAULT) -> str:
    """Return the SVG picture of a graph; raises `MissingExtraError` without the extra `diagrams`."""
    return "".join(_Picture(graph, style).lines())


class _Picture:
    """One picture while it is written: the drawing below its title, the legend below the drawing."""

    def __init__(self, graph: Graph[Row], style: Style) -> None:
        self.graph = graph
        self.style = style
        self.size = style.font_size
        self.line = style.font_size * LINE_HEIGHT
        self.layout: Layout = layout(graph, style)
        legend = [*self._legend_entries()]
        least = max(width for _, width in legend) if legend else 0.0
        title_width = text_width(graph.title, self.title_size, bold=True)
        self.inner = max(self.layout.width, title_width, least, min(560.0, style.max_width) - 2 * MARGIN)
        self.width = self.inner + 2 * MARGIN
        self.notes = wrapped(" ".join(_footnotes(graph)), self.inner, self.size)
        self.legend = [*_rows(legend, self.inner)]
        self.top = MARGIN + self.title_size * LINE_HEIGHT + 12
        self.below = self.top + self.layout.height + 18
        self.height = self.below + (len(self.legend) + len(self.notes)) * self.line + MARGIN

    @property
    def title_size(self) -> float:
        """Return the font size of the title."""
        return self.style.font_size * 1.15

    def lines(self) -> Iterator[str]:
        """Yield the whole text of the picture."""
        graph = self.graph
        rules = RULES.replace("TITLE", number(self.title_size))
        yield head(graph.title, description(graph), (self.width, self.height), rules, self.style)
        yield f'<text class="title" x="{MARGIN}" y="{number(MARGIN + self.title_size)}">{escape(graph.title)}</text>\n'
        left = MARGIN + (self.inner - self.layout.width) / 2
        yield f'<g transform="translate({number(left)} {number(self.top)})">\n'
        for box_ in self.layout.boxes:
            yield from self._box(box_)
        for arrow in self.layout.arrows:
            yield from self._arrow(arrow)
        for state in self.layout.states:
            yield from self._state(state)
        yield "</g>\n"
        yield from self._below()
        yield "</svg>\n"

    def _box(self, placed: PlacedBox) -> Iterator[str]:
        rect, title = placed.rect, placed.title
        yield f'<rect class="box" {place(rect)} rx="8"/>\n'
        yield f'<text class="frame-title" x="{number(title.x)}" y="{number(title.y + self.size)}">'
        yield f"{escape(placed.box.value)}</text>\n"

    def _state(self, placed: PlacedState) -> Iterator[str]:
        node, rect = placed.node, placed.rect
        kinds = ["state"] + ["initial"] * (node.state is self.graph.initial)
        kinds += ["walked"] * (self.graph.taken is not None and self._was_entered(node.state.value))
        yield f'<g class="{" ".join(kinds)}">{self._link(f"state-{node.state.value}")}'
        yield f"<title>{escape(f'{node.state}: {node.meaning}')}</title>\n"
        yield f'<rect {place(rect)} rx="8"/>\n'
        first = rect.y + (rect.height - len(placed.lines) * self.line) / 2 + self.size
        for row, line in enumerate(placed.lines):
            y = first + row * self.line
            if line.kind == "rule":
                middle = f"M{number(rect.x)},{number(y - self.size / 2)}h{number(rect.width)}"
                yield f'<path class="rule" d="{middle}"/>\n'
            elif line.way is None:
                at = f'x="{number(rect.x + rect.width / 2)}" y="{number(y)}"'
                yield f'<text class="{line.kind}" {at} text-anchor="middle">{escape(line.text)}</text>\n'
            else:
                at = f'x="{number(rect.x + STATE_MARGIN + line.indent)}" y="{number(y)}"'
                yield f'<text class="{line.kind}" {at}>{escape(line.text)}</text>\n'
        yield f"{self._unlink()}</g>\n"

    def _arrow(self, placed: PlacedArrow) -> Iterator[str]:
        arcs = placed.arcs
        kinds = ["arrow", *([placed.cause.value] if placed.cause else [])]
        rows = [row for arc in arcs for way in arc.ways for row in way.rows]
        kinds += ["untaken"] * (self.graph.taken is not None and not self.graph.count(rows))
        yield f'<g class="{" ".join(kinds)}">\n<title>{escape(f"{arcs[0].source} to {arcs[0].dest}")}</title>\n'
        yield f'<path d="{path(placed.tail)}"/>\n<path d="{path(placed.head)}"/>\n'
        yield f'<polygon points="{arrowhead(placed.head.points[-1], placed.tip)}"/>\n'
        for row, line in enumerate(placed.lines):
            yield from self._label_line(placed, row, line)
        yield "</g>\n"

    def _label_line(self, placed: PlacedArrow, row: int, line: Line) -> Iterator[str]:
        y = placed.label.y + self.size + row * self.line
        at = f'x="{number(placed.label.x + line.indent)}" y="{number(y)}"'
        if line.way is None:
            yield f'<text class="{line.kind}" {at}>{escape(line.text)}</text>\n'
            return
        yield f"{self._link(f'row-{line.way.rows[0]}' if line.way.rows else '')}"
        yield f"<title>{escape(way_text(self.graph, line.way))}</title>"
        yield f'<text class="{line.kind}" {at}>{escape(line.text)}</text>{self._unlink()}\n'

    def _below(self) -> Iterator[str]:
        y = self.below + self.size
        for row in self.legend:
            x = float(MARGIN)
            for cause, width in row:
                yield f'<g class="arrow {cause.value}"><path d="M{number(x)},{number(y - 5)}h30"/></g>\n'
                yield f'<text class="legend" x="{number(x + 38)}" y="{number(y)}">'
                yield f"{escape(self.graph.legend[cause])}</text>\n"
                x += width
            y += self.line
        for note in self.notes:
            yield f'<text class="legend" x="{MARGIN}" y="{number(y)}">{escape(note)}</text>\n'
            y += self.line

    def _legend_entries(self) -> Iterator[tuple[Cause, float]]:
        """Yield what the drawing shows, with the width that each entry needs."""
        used = {arc.cause for arrow in self.layout.arrows for arc in arrow.arcs}
        for cause in Cause:
            if cause in used:
                yield cause, 38 + text_width(self.graph.legend[cause], self.size) + 24

    def _was_entered(self, state: str) -> bool:
        taken = self.graph.taken or {}
        return any(taken.get(edge.number) and state in (edge.source, edge.dest) for edge in self.graph.edges)

    def _link(self, anchor: str) -> str:
        if not (self.style.link and anchor):
            return "<g>"
        return f"<a href={quoteattr(self.style.link.format(name=self.graph.name, anchor=anchor))}>"

    def _unlink(self) -> str:
        return "</a>" if self.style.link else "</g>"


def way_text(graph: Graph[Row], way: Way) -> str:
    """Return the tooltip of a way: its rows, and the events that they publish."""
    rows = f"row{'s' if len(way.rows) > 1 else ''} {', '.join(map(str, way.rows))}"
    events = graph.events(way.rows)
    return f"{way} ({rows})" + (f"; publishes {', '.join(events)}" if events else "")


def description(graph: Graph[Row]) -> str:
    """Return the drawing in words, for those who do not see it: every arrow with its label."""
    arcs = graph.arcs(())
    ways = (f"{arc.source} to {arc.dest}: {', '.join(map(str, arc.ways))}" for arc in arcs)
    return f"States: {', '.join(node.state for node in graph.drawn)}. Transitions: {'; '.join(ways)}."


def _footnotes(graph: Graph[Row]) -> Iterator[str]:
    several = "An arrow out of a frame leads out of each state in it. " if boxes_of(graph) else ""
    if graph.detailed:
        yield f"{several}Below its line a state lists what leaves it as it is. After the slash: the events, some of"
        yield f"them published under a condition, as {graph.name}.md says."
    else:
        yield f"{several}Not drawn: rows that leave a state as it is. {graph.name}.md lists all rows with their events."


def _rows(entries: list[tuple[Cause, float]], width: float) -> Iterator[list[tuple[Cause, float]]]:
    """Yield the rows of the legend, as many entries in each as fit."""
    row: list[tuple[Cause, float]] = []
    for entry in entries:
        if row and sum(used for _, used in row) + entry[1] > width + 24:
            yield row
            row = []
        row.append(entry)
    if row:
        yield row
