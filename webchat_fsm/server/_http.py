"""HTTP as plain data: requests, answers, held polls, and the fields of a request body.

Bodies come urlencoded, as multipart or as JSON; names nest with brackets (`userData[a][b]`), sometimes with literal
quotes in them; stray separators occur. Where a name occurs twice, the first value that is not empty wins. A group whose
names are exactly the numbers from 0 on is a list, as a form cannot express which of the two was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from webchat_fsm._errors import missing_extra
from webchat_fsm._json import json_to_keep, read_json, utf8

if TYPE_CHECKING:
    from python_multipart.multipart import Field, File

Fate: TypeAlias = Literal["whole", "drop", "tear"]
"""How an answer is sent: completely (`whole`); not at all, the connection is closed (`drop`); in part (`tear`)."""


class HttpRequest(msgspec.Struct, frozen=True):
    """A received request; header names are in any case, the body is complete and no longer chunked.

    A frame of a websocket is represented as the equivalent HTTP request, with the id of its connection in `socket`.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    query: str = ""
    socket: str = ""

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> HttpRequest:
        """Build a request from a target that may carry a query, with header names brought to lower case."""
        path, _, query = target.partition("?")
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(method=method.upper(), path=path, headers=lowered, body=body, query=query)

    def normal(self) -> HttpRequest:
        """Return the request with its method in upper case, its header names in lower case, its query separated."""
        # A host that builds the request itself may have left the query in the path.
        target = f"{self.path}?{self.query}" if self.query else self.path
        return msgspec.structs.replace(HttpRequest.of(self.method, target, self.headers, self.body), socket=self.socket)


class ServerAnswer(msgspec.Struct, frozen=True):
    """An answer to send after `delay` seconds, in the way that `fate` names."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    delay: float = 0.0
    fate: Fate = "whole"

    def json(self) -> object:
        """Return the body decoded as JSON; raises `ValueError`."""
        decoded: object = read_json(self.body)
        return decoded


class Upgrade(msgspec.Struct, frozen=True):
    """The answer to a websocket request; where it is accepted, `frame` is the request that each frame completes."""

    answer: ServerAnswer
    frame: HttpRequest | None = None


class ServerReply(msgspec.Struct, frozen=True):
    """The result of an operation before serialisation: a `payload` for JSON, or `raw` content."""

    payload: object = None
    status: int = 200
    headers: Mapping[str, str] = {}
    raw: bytes | None = None

    def answer(self) -> ServerAnswer:
        """Return the reply as an HTTP answer, its payload serialised as JSON."""
        if self.raw is not None:
            return ServerAnswer(self.status, self.headers, self.raw)
        kind = {"content-type": "application/json;charset=UTF-8"}
        body = b"" if self.payload is None else json_to_keep(self.payload)
        return ServerAnswer(self.status, {**(kind if body else {}), **self.headers}, body)


class Held:
    """A long poll that waits for events or for its timeout.

    The host calls `resume(now)` after each change of the server, and at `due` at the latest; the result is None as
    long as the poll is to be held.
    """

    def __init__(
        self,
        due: float,
        resume: Callable[[float], ServerAnswer | None],
        abandon: Callable[[float], None] | None = None,
    ) -> None:
        self.due = due
        self._resume = resume
        self._abandon = abandon

    def resume(self, now: float) -> ServerAnswer | None:
        """Return the answer, or None to keep waiting; never None at and after `due`."""
        return self._resume(now)

    def abandon(self, now: float) -> None:
        """Release a poll whose client has disconnected, so that no event is delivered to a closed connection."""
        if self._abandon is not None:
            self._abandon(now)

    def then(self, finish: Callable[[ServerAnswer], ServerAnswer]) -> Held:
        """Return a held poll with the same wait, whose answer is passed through `finish`."""

        def resume(now: float) -> ServerAnswer | None:
            answer = self._resume(now)
            return None if answer is None else finish(answer)

        return Held(self.due, resume, self._abandon)


class Logged(msgspec.Struct, frozen=True):
    """One decoded operation, kept for tests that check what a client sent; `time` is seconds since the epoch."""

    dialect: str
    operation: str
    method: str
    path: str
    fields: Mapping[str, object]
    headers: Mapping[str, str]
    query: str
    time: float


Fields: TypeAlias = dict[str, object]
"""Decoded fields: text, `UploadedFile`, nested fields, lists, and for JSON bodies any JSON value."""

DEEPEST = 100
"""Brackets that a name may have; a name with more is taken literally, which bounds the recursion."""

_KEYS = re.compile(r"\[([^\[\]]*)\]")
_LOOKS_MULTIPART = re.compile(rb"^(?:\r?\n)?--[^\r\n]+\r?\nContent-Disposition:\s*form-data", re.IGNORECASE)


class UploadedFile(msgspec.Struct, frozen=True):
    """A file inside a multipart body, with the content type that the client declared."""

    filename: str
    content_type: str
    content: bytes


class UnreadableBodyError(Exception):
    """Raised for a body that does not match its content type; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def read_fields(request: HttpRequest, *, sniff_multipart: bool = False) -> Fields:
    """Return all fields of a request, those of the query first; raises `UnreadableBodyError`."""
    kind = request.headers.get("content-type", "").strip()
    media = kind.partition(";")[0].strip().lower()
    # Broken escapes are replaced, as a request of a test may contain anything; blank values are kept, as they are sent.
    asked = nest(parse_qsl(request.query, keep_blank_values=True, errors="replace"))
    if media == "multipart/form-data":
        return _overlay(asked, nest(_multipart(request.body, kind)))
    if _LOOKS_MULTIPART.match(request.body):
        # A client that forgets the content type is to fail in its tests, unless they allow it.
        if not sniff_multipart:
            raise UnreadableBodyError(415, f"multipart body with content type {kind or 'none'}")
        # latin-1 keeps each byte of the boundary as it is.
        boundary = request.body.lstrip().partition(b"\n")[0].strip()[2:].decode("latin-1")
        return _overlay(asked, nest(_multipart(request.body, f'multipart/form-data; boundary="{boundary}"')))
    if media == "application/json" or media.endswith("+json"):
        return _overlay(asked, read_json_object(request.body))
    # The rest is read as a form, also with another content type or none.
    text = request.body.decode("utf-8", "replace").strip()
    return _overlay(asked, nest(parse_qsl(text, keep_blank_values=True, errors="replace")))


def read_json_object(body: bytes) -> Fields:
    """Decode a JSON object; an empty body is an empty object. Raises `UnreadableBodyError`."""
    # An empty body is a request without parameters, not invalid JSON.
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
    """Convert bracketed names to nested fields: `a[b]=1&a[c][]=2` is `{"a": {"b": "1", "c": ["2"]}}`.

    Elements of a list may be numbered, as `a[0][b]=1`. A name of more than `DEEPEST` brackets is taken literally.
    """
    fields: Fields = {}
    for name, value in pairs:  # lists are gathered as groups under their numbers first: `a[1000000]` allocates nothing
        head, keys = _path(name)
        _place(fields, [head, *keys], value)
    return {name: _listed(value) for name, value in fields.items()}


def _path(name: str) -> tuple[str, list[str]]:
    head, bracket, rest = name.partition("[")
    keys = _KEYS.findall(bracket + rest)
    # The parts have to add up to the whole name: one with stray brackets is taken literally.
    if not head or len(keys) > DEEPEST or "".join(f"[{key}]" for key in keys) != bracket + rest:
        return name, []
    return head, [key.strip("\"'") for key in keys]


def _place(into: Fields, path: list[str], value: object) -> None:
    """Insert a value at its path; empty brackets mean the number of the next element."""
    head, rest = path[0] or _next_number(into), path[1:]
    if not rest:
        # The first value that is not empty wins.
        if into.get(head) in (None, ""):
            into[head] = value
        return
    inner = into.get(head)
    # A name that was a text before becomes a group: `a=1&a[b]=2`.
    if not isinstance(inner, dict):
        inner = into[head] = {}
    _place(inner, rest, value)


def _next_number(into: Fields) -> str:
    """Return the number of the next element, or an empty name where that number is in use."""
    number = str(len(into))
    return "" if number in into else number


def _listed(value: object) -> object:
    """Convert the groups whose names are the numbers from 0 on to lists, at every depth."""
    if not isinstance(value, dict):
        return value
    inner = [_listed(one) for one in value.values()]
    numbers = [str(number) for number in range(len(value))]
    return inner if numbers and list(value) == numbers else dict(zip(value, inner, strict=True))


def _overlay(first: Fields, second: Fields) -> Fields:
    # The fields of the query win, but an empty one must not hide that of the body.
    return {**second, **{name: value for name, value in first.items() if value not in ("", None) or name not in second}}


def _multipart(body: bytes, content_type: str) -> list[tuple[str, object]]:
    """Return names and values of the parts of a complete multipart body, in order; raises `UnreadableBodyError`."""
    # Imported on first use: the parser comes with the extra `server`, and only uploads need it.
    try:
        from python_multipart import FormParser
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import parse_options_header
    except ImportError as missing:
        raise missing_extra("reading an upload", "server", "python-multipart") from missing
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise UnreadableBodyError(400, "multipart/form-data without a boundary")
    # The parser accepts a body that was cut off between two parts, so the final boundary is checked here.
    if b"--" + boundary + b"--" not in body:
        raise UnreadableBodyError(400, "the multipart body has no final boundary")
    parts: list[tuple[str, object]] = []

    def on_field(field: Field) -> None:
        parts.append((_text(field.field_name), _text(field.value)))

    def on_file(file: File) -> None:
        # The parser leaves its position at the end.
        file.file_object.seek(0)
        media_type = file.content_type or "application/octet-stream"
        upload = UploadedFile(_text(file.file_name), media_type, file.file_object.read())
        parts.append((_text(file.field_name), upload))

    # Larger than any part, so that the parser never writes one to a temporary file: the core touches no file system.
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
    parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary, config=config)
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise UnreadableBodyError(400, f"the multipart body cannot be parsed: {error}") from error
    return parts


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")


def text_of(fields: Mapping[str, object], name: str) -> str | None:
    """Return a field as text, or None where it is absent; other JSON values are converted by `text_from`."""
    value = fields.get(name)
    # A file under the name of a text is as good as a missing field: its bytes are no text.
    if value is None or isinstance(value, UploadedFile):
        return None
    return text_from(value)


def text_from(value: object) -> str:
    """Convert any decoded value to the text that a form field would hold; objects and lists become JSON text."""
    if isinstance(value, str):
        return value
    if isinstance(value, UploadedFile):
        return value.filename
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json_to_keep(value).decode()


def fields_of(fields: Mapping[str, object], name: str) -> Fields:
    """Return a nested group of fields, empty where it is absent. Text that holds a JSON object is decoded."""
    value = fields.get(name)
    if isinstance(value, str):
        try:
            return read_json_object(utf8(value))
        except UnreadableBodyError:
            return {}
    if isinstance(value, list):  # a group whose names happened to be the numbers from 0 on
        return {str(number): one for number, one in enumerate(value)}
    return value if isinstance(value, dict) else {}


def upload_of(fields: Mapping[str, object], name: str) -> UploadedFile | None:
    """Return the file in a field; None where the field is absent or holds a text."""
    value = fields.get(name)
    return value if isinstance(value, UploadedFile) else None
