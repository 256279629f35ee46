"""The explorer: one HTML page that shows, simulates and plays back the lifecycle, without anything beside itself.

The page holds lifecycle.json, a drawing for each transport whose places Graphviz has found, and the style and scripts
of the folder `explorer`. The scripts are modules, so that node loads each of them alone; here they are joined to one,
each as a function that returns its exports. A drawing has states to press and triggers as links; its colours are
classes of the page's own style, so that the page can change them, and mark states and arrows.
Nothing is loaded from elsewhere: the content security policy allows the one script and the one style by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby
from urllib.parse import quote, urlencode

from webchat_fsm.diagram._layout import PlacedArrow, PlacedBox, PlacedState, layout
from webchat_fsm.diagram._lifecycle_json import lifecycle_json
from webchat_fsm.diagram._machines import LEGEND, Box, lifecycle
from webchat_fsm.diagram._picture import DEFAULT, arrowhead, number, path, place
from webchat_fsm.diagram._sketch import LINE_HEIGHT, Line
from webchat_fsm.lifecycle import _legality as texts
from webchat_fsm.lifecycle._transports import Transport

MODULES = (
    "machine",
    "happenings",
    "walk",
    "pytest_copy",
    "recording",
    "elements",
    "diagram",
    "rows",
    "explore",
    "compare",
    "simulate",
    "playback",
    "live",
    "main",
)
"""The scripts in the order in which they are joined: each imports only those before it."""

FURTHER: dict[str, dict[str, str]] = {
    "startChat": {
        "userData is no object": texts.MALFORMED_USER_DATA,
        "the service was closed before the answer came": texts.CLOSED_MEANWHILE,
        "the answer names no chat, or one that is over": texts.NO_CHAT_BEGAN,
    },
    "sendMessage": {"the text is longer than maxMessageLength": texts.TOO_LONG.format(limit="maxMessageLength")},
    "sendFilteredMessage": {
        "the text is longer than maxMessageLength": texts.TOO_LONG.format(limit="maxMessageLength")
    },
    "updateUserData": {"the data is no object": texts.MALFORMED_USER_DATA},
    "addPrefilter": {"the filters are missing or invalid": texts.BAD_FILTERS},
    "poll": {"a poll is in flight": texts.POLL_IN_FLIGHT},
    "restore": {
        "nothing is saved, or it is of another transport or server, or older than restoreTimeout": texts.NOTHING_SAVED,
        "the service was closed before the answer came": texts.CLOSED_MEANWHILE,
    },
    "sendFile": {
        "no file is given": texts.NO_FILES,
        "the chat ended after the first files": texts.OVER_MEANWHILE,
    },
    "downloadFile": {"no id is given": texts.NO_FILE_ID},
    "fetchHistory": {"there is nothing older": texts.NO_MORE_HISTORY},
    "registerTypingPreviewInput": {"it is no text input": texts.BAD_INPUT},
    "registerPreProcessor": {"it is no function": texts.NO_PREPROCESSOR.format(type="NoneType")},
    "fetch": {"the content is on another server": texts.FOREIGN_CONTENT},
}
"""Refusals that do not follow from the state: by command, the circumstance and the literal text."""

PUSHED: dict[str, dict[str, str]] = {
    command: {"the gateway has forbidden to reconnect, so that no request is made": texts.FORBIDDEN}
    for command in (
        "sendMessage",
        "sendFilteredMessage",
        "sendCustomNotice",
        "sendTyping",
        "updateUserData",
        "sendFile",
        "downloadFile",
        "getFileLimits",
    )
}
"""The same on transports whose server pushes: those of the commands that need a request while a chat is open."""

_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.mjs";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|(?:async )?function|class) (\w+))", re.MULTILINE)


def page(recording: bytes | None = None, live: Mapping[str, object] | None = None) -> str:
    """Return the page; with the text of a recording, it opens with that.

    With `live`, what its live view is to offer, it may connect to the server that it comes from, and to no other.
    Raises `MissingExtraError` without the extra `diagrams`.
    """
    style, script = source("page.css"), joined_modules()
    parts = {
        "policy": policy(style, script) + ("; connect-src 'self'" if live else ""),
        "style": style,
        "drawings": _drawings(),
        "lifecycle": data(json.loads(lifecycle_json())),
        "further": data({"refusals": FURTHER, "pushed": PUSHED, "legend": LEGEND}),
        # A text in a text: the page reads each line by itself, so that it can name a malformed one.
        "recording": data(None if recording is None else recording.decode("utf-8", "replace")),
        "live": data(live),
        "script": script,
    }
    # One pass, as a part may contain what looks like a place for another.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], source("page.html"))


# Kept, as Graphviz takes seconds, and a program that serves the page makes it several times.
@cache
def _drawings() -> str:
    return "".join(drawing(transport) for transport in Transport)


def source(name: str) -> str:
    """Return the text of a file of the folder `explorer`."""
    return files("webchat_fsm.diagram").joinpath("explorer", name).read_text(encoding="utf-8")


def joined_modules() -> str:
    """Return all scripts as one, in which each keeps its own names."""
    return "\n".join(_as_function(name, source(f"{name}.mjs")) for name in MODULES)


def _as_function(name: str, module: str) -> str:
    exports = ", ".join(_EXPORT.findall(module))
    body = _IMPORT.sub(r"const \1 = $\2;", _EXPORT.sub("", module))
    return f"const ${name} = (() => {{\n{body}return {{ {exports} }};\n}})();\n"


def policy(style: str, script: str) -> str:
    """Return the content security policy that allows this style and this script, and nothing else."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data(value: object) -> str:
    """Return a value as JSON that cannot end the script element around it."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair cannot be encoded; the escape of JSON means the same.
    safe = written.encode("utf-8", "backslashreplace").decode()
    return safe.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


# -- the drawing of a transport ----------------------------------------------------------------------------------------

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
