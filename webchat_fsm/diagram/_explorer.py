"""The explorer: one HTML page that shows, simulates and plays back the lifecycle, without anything beside itself.

The page holds lifecycle.json, a drawing for each transport whose places Graphviz has found, and the style and scripts
of the folder `explorer`. The scripts are modules, so that node loads each of them alone; here they are joined to one,
each as a function that returns its exports.
Nothing is loaded from elsewhere: the content security policy allows the one script and the one style by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from webchat_fsm.diagram._explorer_drawing import drawing
from webchat_fsm.diagram._lifecycle_json import lifecycle_json
from webchat_fsm.diagram._machines import LEGEND
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
