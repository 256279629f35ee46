"""Requests of v3: which operation a method and path name, and what their fields say.

Sessions live at `{app}/v3/chat/sessions`; `sid`, `pid` and `file` stand for ids in what follows.
"""

from __future__ import annotations

import re

import msgspec

from webchat_fsm.server.exchange import HttpRequest, Reply
from webchat_fsm.server.forms import Fields, UnreadableBodyError, fields_of, read_fields, text_of
from webchat_fsm.server.nexus_wire import failure

_PATH = re.compile(r"^(?P<app>(?:/.*)?/v3/chat)/sessions(?P<rest>(?:/[^/]*)*)$")
_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("POST", "", "start"),
    ("GET", "sid", "session"),
    ("GET", "sid/messages", "refresh"),
    ("POST", "sid/messages", "send"),
    ("POST", "sid/images", "file"),
    ("GET", "sid/images/file", "file/download"),
    ("PUT", "sid/userdata", "updateData"),
    ("DELETE", "sid/participants/pid", "disconnect"),
    ("PUT", "sid/participants/pid/read", "readReceipt"),
)
OPERATION_OF_TYPE = {
    "Text": "send",
    "TypingStarted": "startTyping",
    "TypingStopped": "stopTyping",
    "CustomNotice": "customNotice",
}


OPERATIONS = frozenset(operation for _, _, operation in _ROUTES).union(OPERATION_OF_TYPE.values())


class Call(msgspec.Struct, frozen=True):
    """One decoded request."""

    operation: str
    app: str
    places: dict[str, str]
    request: HttpRequest
    fields: Fields

    @property
    def operation_id(self) -> str | None:
        """The client's own name for this request, echoed in the answer."""
        return text_of(self.fields, "operationId")

    @property
    def data(self) -> Fields:
        """The payload."""
        return fields_of(self.fields, "data")

    @property
    def token(self) -> str:
        """The client token; browsers send the word `undefined` where they have none."""
        token = self.request.headers.get("x-nexus-client-key", "")
        return "" if token == "undefined" else token


def claims(path: str) -> bool:
    """Whether a path belongs to v3."""
    return _PATH.match(path) is not None


def decode(request: HttpRequest, *, sniff_multipart: bool) -> Call | Reply:
    """The request decoded, or the reply to one that names nothing or cannot be read."""
    matched = _PATH.match(request.path)
    if matched is None:
        raise ValueError(f"{request.path} is not a path of version 3")
    parts = [part for part in matched["rest"].split("/") if part]
    routes = {method: (operation, names) for method, operation, names in _fitting(parts)}
    if request.method not in routes:
        headers = {"allow": ", ".join(sorted(routes))} if routes else {}
        return Reply({}, 405 if routes else 404, headers)
    operation, names = routes[request.method]
    try:
        fields = read_fields(request, sniff_multipart=sniff_multipart)
        if operation == "send":
            operation = OPERATION_OF_TYPE.get(text_of(fields_of(fields, "data"), "type") or "Text", operation)
    except UnreadableBodyError as error:
        return failure("INVALID_MESSAGE", error.reason, error.status, None)
    return Call(operation, matched["app"], dict(zip(names, parts, strict=True)), request, fields)


def _fitting(parts: list[str]) -> list[tuple[str, str, list[str]]]:
    """The routes that these parts of a path may take: method, operation, names of the parts."""
    fitting = []
    for method, pattern, operation in _ROUTES:
        names = pattern.split("/") if pattern else []
        fixed = [(name, part) for name, part in zip(names, parts, strict=False) if name not in ("sid", "pid", "file")]
        if len(names) == len(parts) and all(name == part for name, part in fixed):
            fitting.append((method, operation, names))
    return fitting
