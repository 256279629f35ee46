"""A sequence of messages between three parties, as Mermaid text and as SVG: the forms of a recorded chat.

A sequence is a list of items in the order of time. What happens again and again without any effect is one item already
when it comes here: a drawing shows what matters in a chat, not how often it was asked for messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import NamedTuple
from xml.sax.saxutils import escape

from webchat_fsm.diagram._picture import DEFAULT, Style, head
from webchat_fsm.diagram._sketch import LINE_HEIGHT, text_width, wrapped


class Party(IntEnum):
    """A party of a sequence, from left to right."""

    USER = 0
    SERVICE = 1
    SERVER = 2


class Kind(StrEnum):
    """What an item is; it decides its colour and line."""

    COMMAND = "command"
    EVENT = "event"
    REQUEST = "service"
    ANSWER = "fact"
    FAILURE = "failure"
    STATE = "state"
    REPEATED = "repeated"


class Item(NamedTuple):
    """One item: a message from one party to another, or a note where both are the same."""

    time: float
    """Seconds since the beginning of the sequence."""
    source: Party
    dest: Party
    text: str
    kind: Kind

    @property
    def is_note(self) -> bool:
        """Return whether the item stands at one party."""
        return self.source is self.dest


class Sequence(NamedTuple):
    """A sequence to draw: its title, the names of its parties and its items in the order of time."""

    title: str
    parties: tuple[str, str, str]
    items: tuple[Item, ...]


def seconds(time: float) -> str:
    """Return a time as the drawings show it."""
    return f"{time:.1f} s"


# -- mermaid -----------------------------------------------------------------------------------------------------------

_IDS = ("U", "S", "C")
# Mermaid ends a label at `;`, reads `#` as an entity and `<` as HTML.
_SAFE = str.maketrans({";": ",", "#": "no.", "<": "(", ">": ")", "`": "'"})
_LINES = {Kind.COMMAND: "->>", Kind.REQUEST: "->>", Kind.EVENT: "-->>", Kind.ANSWER: "-->>", Kind.FAILURE: "--x"}
# `--` begins an arrow, and `%%` a comment or a directive, which would configure the whole drawing.
_SIGNS = re.compile("-(?=-)|%(?=%)")
LONGEST = 200
"""Characters of a label at most, so that a long message does not hide the others."""


def mermaid_sequence(sequence: Sequence) -> str:
    """Return a sequence as a Mermaid sequence diagram; the first item of each moment begins with its time."""
    lines = ["sequenceDiagram"]
    lines += [f"  participant {ident} as {name}" for ident, name in zip(_IDS, sequence.parties, strict=True)]
    before = ""
    for item in sequence.items:
        now = seconds(item.time)
        label = mermaid_text(item.text if now == before else f"{now} {item.text}")
        before = now
        if item.is_note:
            lines.append(f"  Note over {_IDS[item.source]}: {label}")
        else:
            lines.append(f"  {_IDS[item.source]}{_LINES[item.kind]}{_IDS[item.dest]}: {label}")
    return "\n".join(lines) + "\n"


def mermaid_text(text: str) -> str:
    """Respell a text so that it cannot end its own label, and shorten it; line breaks become blanks."""
    return _SIGNS.sub(r"\g<0> ", " ".join(text.splitlines()).translate(_SAFE))[:LONGEST]


# -- svg ---------------------------------------------------------------------------------------------------------------

WIDTH = 830.0
COLUMNS = (150.0, 435.0, 720.0)
"""The x of each party."""
HEAD, LABEL, NOTE = 198.0, 262.0, 330.0
"""Width of a party's name, of a label between two of them and of a note, at most."""
RULES = """\
.page { fill: var(--page); }
text { font-family: FONT; font-size: SIZEpx; fill: var(--ink); text-anchor: middle; }
.title, .party { font-weight: bold; }
.title { text-anchor: start; }
.life { stroke: var(--frame); stroke-width: 1.5; }
.head { fill: var(--box); stroke: var(--frame); }
.arrow path { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.event path, .fact path { stroke-dasharray: 6 4; }
.failure path { stroke-dasharray: 2 3; }
.note rect { fill: var(--state); stroke: var(--border); }
.note.repeated rect { fill: var(--page); stroke-dasharray: 3 3; }
.note.repeated text { fill: var(--faint); }
.command path { stroke: var(--command); stroke-width: 2.4; }
.service path { stroke: var(--service); }
.fact path { stroke: var(--fact); }
.failure path { stroke: var(--failure); }
.command polygon, .command text { fill: var(--command); }
.service polygon, .service text { fill: var(--service); }
.fact polygon, .fact text { fill: var(--fact); }
.failure polygon, .failure text { fill: var(--failure); }
.event polygon { fill: var(--ink); }
.arrow .time, .note .time { fill: var(--faint); text-anchor: end; }
"""


def svg_sequence(sequence: Sequence, style: Style = DEFAULT) -> str:
    """Return a sequence as an SVG picture: time on the left, from top to bottom, one column for each party."""
    return "".join(_Drawing(sequence, style).lines())


class _Drawing:
    """A sequence while it is drawn: `y` is the place of the next item."""

    def __init__(self, sequence: Sequence, style: Style) -> None:
        self.sequence = sequence
        self.style = style
        self.size = style.font_size
        self.line = style.font_size * LINE_HEIGHT
        self.top = 16 + 2 * self.line
        self.y = self.top + self.line + 16
        self.time = ""

    def lines(self) -> Iterator[str]:
        body = [text for item in self.sequence.items for text in self._item(item)]
        height, title = self.y + 16, self.sequence.title
        words = "; ".join(f"{seconds(item.time)} {item.text}" for item in self.sequence.items)
        yield head(title, words, (WIDTH, height), RULES, self.style)
        yield f'<text class="title" x="16" y="{16 + self.size:.1f}">{escape(title)}</text>\n'
        for x, name in zip(COLUMNS, self.sequence.parties, strict=True):
            yield f'<path class="life" d="M{x:g},{self.top:.1f}V{height - 16:.1f}"/>\n'
            yield f'<rect class="head" x="{x - HEAD / 2:g}" y="{self.top - 8:.1f}" width="{HEAD:g}"'
            yield f' height="{self.line + 8:.1f}" rx="6"/>\n'
            yield f'<text class="party" x="{x:g}" y="{self.top + self.size - 4:.1f}">{escape(name)}</text>\n'
        yield from body
        yield "</svg>\n"

    def _item(self, item: Item) -> Iterator[str]:
        return self._note(item) if item.is_note else self._arrow(item)

    def _arrow(self, item: Item) -> Iterator[str]:
        start, end = COLUMNS[item.source], COLUMNS[item.dest]
        lines = self._wrapped(item.text, LABEL)
        y = self.y + len(lines) * self.line + 4
        step = 10 if end > start else -10
        yield f'<g class="arrow {item.kind.value}">{self._time(item, y)}'
        yield from self._text(lines, (start + end) / 2, self.y)
        yield f'<path d="M{start:g},{y:.1f}H{end - step:g}"/>'
        yield f'<polygon points="{end:g},{y:.1f} {end - step:g},{y - 4.5:.1f} {end - step:g},{y + 4.5:.1f}"/></g>\n'
        self.y = y + 8

    def _note(self, item: Item) -> Iterator[str]:
        lines = self._wrapped(item.text, NOTE)
        self.y += 4  # an arrow needs less space below its line
        wide = max(text_width(line, self.size) for line in lines) + 20
        high = len(lines) * self.line + 6
        x = COLUMNS[item.source]
        yield f'<g class="note {item.kind.value}">{self._time(item, self.y + high / 2 + 5)}'
        yield f'<rect x="{x - wide / 2:.1f}" y="{self.y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="6"/>'
        yield from self._text(lines, x, self.y + 3)
        yield "</g>\n"
        self.y += high + 8

    def _wrapped(self, text: str, width: float) -> list[str]:
        shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
        return [part for line in wrapped(shown, width, self.size) for part in self._pieces(line, width)]

    def _pieces(self, line: str, width: float) -> Iterator[str]:
        """Yield a line, or the pieces of a word that is longer than a line, such as an address."""
        while text_width(line, self.size) > width:
            fitting = next(end for end in range(len(line), 0, -1) if text_width(line[:end], self.size) <= width)
            yield line[:fitting]
            line = line[fitting:]
        yield line

    def _text(self, lines: list[str], x: float, top: float) -> Iterator[str]:
        for number, line in enumerate(lines):
            yield f'<text x="{x:g}" y="{top + self.size + number * self.line:.1f}">{escape(line)}</text>'

    def _time(self, item: Item, y: float) -> str:
        """Return the time of an item; nothing where it is that of the item above."""
        before, self.time = self.time, seconds(item.time)
        return "" if self.time == before else f'<text class="time" x="62" y="{y:.1f}">{self.time}</text>'
