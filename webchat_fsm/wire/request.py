"""A request and its answer, as data: what a dialect makes and what travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec
from msgspec import Struct, field

from webchat_fsm.core.facts import Reply, Verdict
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.words import FileToSend, Json, Response, scalars

FORM = "application/x-www-form-urlencoded"


class FilePart(Struct, frozen=True, kw_only=True):
    """A file in a multipart body."""

    name: str
    content: bytes
    content_type: str


def _always() -> bool:
    return True


class Request(Struct, frozen=True, kw_only=True):
    """One HTTP request. `timeout` is a total deadline in seconds, None for none.

    A body is either `body` with `content_type`, or `parts`, which travel as multipart/form-data. `repeatable` tells
    that the server may see it twice, the second time at `repeat_url` where that is set; `max_size` bounds the answer in
    bytes. `wanted` is asked once it can be cut, and false where nobody waits for an answer any more: it is not sent.
    """

    operation: str
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    parts: tuple[tuple[str, str | FilePart], ...] = ()
    timeout: float | None = None
    repeatable: bool = False
    repeat_url: str = ""
    max_size: int = 16 * 1024 * 1024
    wanted: Callable[[], bool] = _always

    def __repr__(self) -> str:
        return f"Request({self.operation}: {self.method} {bare(self.url)})"


class HttpAnswer(Struct, frozen=True, kw_only=True):
    """A complete HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def good(self) -> bool:
        """True for a status of success."""
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """The media type with its parameters, empty where it is not named."""
        return self.headers.get("content-type", "")

    def __repr__(self) -> str:
        return f"HttpAnswer({self.status}: {len(self.body)} bytes)"


class Dialect(Protocol):
    """One wire protocol: calls become requests, answers become replies. Pure."""

    def request(self, call: Call) -> Request:
        """The request that carries a call."""
        ...

    def reply(self, call: Call, answer: HttpAnswer) -> Reply:
        """What an answer to the call means."""
        ...


def bare(url: str) -> str:
    """A URL without its query, for logs and responses."""
    return url.partition("?")[0]


def form(fields: list[tuple[str, str]]) -> bytes:
    """A urlencoded body."""
    return urlencode([(scalars(name), scalars(value)) for name, value in fields]).encode("ascii")


def json_body(value: Any) -> bytes:
    """A JSON body; what JSON does not know is sent as its text."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except (UnicodeEncodeError, TypeError):
        return msgspec.json.encode(_all_scalars(value), enc_hook=str)


def _all_scalars(value: Any) -> Any:
    if isinstance(value, str):
        return scalars(value)
    if isinstance(value, Mapping):
        return {scalars(str(key)): _all_scalars(inner) for key, inner in value.items()}
    return [_all_scalars(inner) for inner in value] if isinstance(value, list | tuple) else value


def part(call: Call) -> FilePart:
    """The file of an upload, its bytes read by the shell."""
    file: FileToSend = call.fields["file"]
    return FilePart(name=file.name, content=call.fields["content"], content_type=file.content_type)


def bracketed(name: str, value: Any) -> list[tuple[str, str]]:
    """A value as form fields with bracketed nesting: ``userData[a][b]``; empty objects vanish."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in bracketed(f"{name}[{key}]", inner)]
    if isinstance(value, list | tuple):
        return [pair for inner in value for pair in bracketed(f"{name}[]", inner)]
    return [(name, text(value))]


def text(value: Any) -> str:
    """A form value: JavaScript's spelling of true, false and null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def silent(request_url: str, error: TransportError) -> Reply:
    """The reply that stands for no complete answer."""
    response = Response(status=0, errors=[{"code": 0, "text": str(error)}], url=bare(request_url))
    return Reply(verdict=Verdict.SILENT, response=response, error=error)


def unreadable(call: Call, response: Response, why: str) -> Reply:
    """The reply that stands for a complete answer that does not fit; `why` names the place."""
    error = TransportError(f"{call.operation}: the server's answer cannot be read: {why}", response=response)
    told = Response(
        status=response.status, body=response.body, errors=[{"code": 0, "text": str(error)}], url=response.url
    )
    return Reply(verdict=Verdict.BAD, response=told, error=error)


def refused_between(call: Call, answer: HttpAnswer, response: Response) -> Reply:
    """Read a status that does not come with the application's own body: the word of something in between.

    Nothing has become of the chat by it. A gateway that was given no good answer, or none in time, may have handed the
    request on: its `error` leaves a send unconfirmed.
    """
    error = None
    if answer.status in (502, 504) and not response.errors:
        error = TransportError(
            f"{call.operation}: no word of the chat server: HTTP status {answer.status}", response=response
        )
    return Reply(verdict=Verdict.BAD, response=response, error=error, retry_after=retry_after(answer))


def listed(body: Any, key: str) -> list[Any]:
    """The list under a key of a body; empty where there is none, as in a text that says null."""
    found = body.get(key) if isinstance(body, Mapping) else None
    return found if isinstance(found, list) else []


def errors_of(body: Any) -> list[Json]:
    """The `errors` of a body, as far as they are objects."""
    return [dict(error) for error in listed(body, "errors") if isinstance(error, Mapping)]


def retry_after(answer: HttpAnswer) -> float | None:
    """The seconds of a Retry-After header; a date is read against the server's own Date."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, answer.headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
