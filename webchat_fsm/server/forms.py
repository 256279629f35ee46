"""Request bodies to fields, whatever way a client chose to write them.

Forms come urlencoded, as multipart or as JSON; names nest with brackets (`userData[a][b]`), sometimes with literal
quotes in them; stray separators occur. Where a name is there twice, the first value that is not empty wins. A group
whose names are exactly the numbers from 0 on is a list, as a form does not say which of the two was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

import msgspec

from webchat_fsm.lifecycle.encoding import json_to_keep, read_json, utf8
from webchat_fsm.server.exchange import HttpRequest

Fields: TypeAlias = dict[str, object]
"""Decoded fields: text, `Upload`, nested fields, lists, and for JSON bodies whatever JSON holds."""

DEEPEST = 100
"""Brackets that a name may have; deeper ones nest nothing."""

_KEYS = re.compile(r"\[([^\[\]]*)\]")
_LOOKS_MULTIPART = re.compile(rb"^(?:\r?\n)?--[^\r\n]+\r?\nContent-Disposition:\s*form-data", re.IGNORECASE)


class Upload(msgspec.Struct, frozen=True):
    """A file inside a multipart body."""

    filename: str
    content_type: str
    content: bytes


MISSING = (
    "an upload needs a reader of multipart bodies: pip install 'webchat-fsm[server]', or '.[server]' in a checkout"
)


class MissingExtraError(ImportError):
    """The optional package that reads uploads is not installed; the text says how to install it."""


class UnreadableBodyError(Exception):
    """A body that says one thing and is another, with the HTTP status that tells the client so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def read_fields(request: HttpRequest, *, sniff_multipart: bool = False) -> Fields:
    """All fields of a request, those of the query first."""
    kind = request.headers.get("content-type", "").strip()
    media = kind.partition(";")[0].strip().lower()
    asked = nest(parse_qsl(request.query, keep_blank_values=True, errors="replace"))
    if media == "multipart/form-data":
        return _overlay(asked, nest(_multipart(request.body, kind)))
    if _LOOKS_MULTIPART.match(request.body):
        if not sniff_multipart:
            raise UnreadableBodyError(415, f"a multipart body under content type {kind or 'none'}")
        boundary = request.body.lstrip().partition(b"\n")[0].strip()[2:].decode("latin-1")
        return _overlay(asked, nest(_multipart(request.body, f'multipart/form-data; boundary="{boundary}"')))
    if media == "application/json" or media.endswith("+json"):
        return _overlay(asked, read_json_object(request.body))
    text = request.body.decode("utf-8", "replace").strip()
    return _overlay(asked, nest(parse_qsl(text, keep_blank_values=True, errors="replace")))


def read_json_object(body: bytes) -> Fields:
    """A JSON object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        decoded = read_json(body)
    except ValueError as error:
        raise UnreadableBodyError(400, f"the body is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise UnreadableBodyError(400, "the body is JSON, but not an object")
    return decoded


def nest(pairs: Iterable[tuple[str, object]]) -> Fields:
    """Bracketed names to nested fields: `a[b]=1&a[c][]=2` is `{"a": {"b": "1", "c": ["2"]}}`.

    Elements of a list may be numbered, as `a[0][b]=1`; a number allocates nothing. A name of more than `DEEPEST`
    brackets is taken as it is.
    """
    fields: Fields = {}
    for name, value in pairs:
        head, keys = _path(name)
        _place(fields, [head, *keys], value)
    return {name: _listed(value) for name, value in fields.items()}


def _path(name: str) -> tuple[str, list[str]]:
    head, bracket, rest = name.partition("[")
    keys = _KEYS.findall(bracket + rest)
    if not head or len(keys) > DEEPEST or "".join(f"[{key}]" for key in keys) != bracket + rest:
        return name, []
    return head, [key.strip("\"'") for key in keys]


def _place(into: Fields, path: list[str], value: object) -> None:
    """Put a value at its place; empty brackets stand for the number of the next element."""
    head, rest = path[0] or _next_number(into), path[1:]
    if not rest:
        if into.get(head) in (None, ""):
            into[head] = value
        return
    inner = into.get(head)
    if not isinstance(inner, dict):
        inner = into[head] = {}
    _place(inner, rest, value)


def _next_number(into: Fields) -> str:
    """Return the number of the next element; one that a name has taken stays its own."""
    number = str(len(into))
    return "" if number in into else number


def _listed(value: object) -> object:
    """Return the lists among nested fields, which were gathered under their numbers."""
    if not isinstance(value, dict):
        return value
    inner = [_listed(one) for one in value.values()]
    numbers = [str(number) for number in range(len(value))]
    return inner if numbers and list(value) == numbers else dict(zip(value, inner, strict=True))


def _overlay(first: Fields, second: Fields) -> Fields:
    return {**second, **{name: value for name, value in first.items() if value not in ("", None) or name not in second}}


def _multipart(body: bytes, kind: str) -> list[tuple[str, object]]:
    # Imported at need: the parser is in the extra `server`, and only uploads call for it.
    try:
        from webchat_fsm.server.multiparts import Part, UnreadableMultipartError, parse
    except ImportError as missing:
        raise MissingExtraError(MISSING) from missing

    def value_of(part: Part) -> object:
        if part.filename is None:
            return part.content.decode("utf-8", "replace")
        return Upload(part.filename, part.content_type, part.content)

    try:
        return [(part.name, value_of(part)) for part in parse(body, kind)]
    except UnreadableMultipartError as error:
        raise UnreadableBodyError(400, str(error)) from error


def text_of(fields: Mapping[str, object], name: str) -> str | None:
    """A field as text, or None where it is absent; JSON numbers and truth values become what a form would have said."""
    value = fields.get(name)
    if value is None or isinstance(value, Upload):
        return None
    return text_from(value)


def text_from(value: object) -> str:
    """Any decoded value as the text that a form field would have held; what nests becomes JSON text."""
    if isinstance(value, str):
        return value
    if isinstance(value, Upload):
        return value.filename
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json_to_keep(value).decode()


def fields_of(fields: Mapping[str, object], name: str) -> Fields:
    """A nested group of fields; empty where there is none. JSON text that holds an object counts as one."""
    value = fields.get(name)
    if isinstance(value, str):
        try:
            return read_json_object(utf8(value))
        except UnreadableBodyError:
            return {}
    if isinstance(value, list):  # a group of fields whose names are numbers
        return {str(number): one for number, one in enumerate(value)}
    return value if isinstance(value, dict) else {}


def upload_of(fields: Mapping[str, object], name: str) -> Upload | None:
    """The file that came in a field, if one did."""
    value = fields.get(name)
    return value if isinstance(value, Upload) else None
