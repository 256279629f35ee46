"""A request and its answer, as data: what a dialect makes and what travels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import chain
from typing import Any, Protocol
from urllib.parse import quote, quote_plus, urlencode

from msgspec import Struct, field
from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from webchat_fsm._config import Config
from webchat_fsm._core.operations import Download, Fetch, Operation, SendFile
from webchat_fsm._core.steps import Call, Reply, ResponseKind
from webchat_fsm._errors import TransportError
from webchat_fsm._json import utf8
from webchat_fsm._model import Json, Response, scalars

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

    A body is either `body` with `content_type`, or `parts`, which travel as multipart/form-data. `repeatable` says
    that the server may get it twice, the second time at what `repeat_url` returns where that is set; `max_size` bounds
    the answer in bytes. `listen` is the seconds for which a websocket waits for pushes before it sends the message; a
    push that comes answers it unsent. `wanted` is asked before it is sent, and keeps back one whose answer is not
    waited for any more.
    `repeated` is called before each further request that it takes: a repetition over another connection,
    the upgrade to a websocket.
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
    repeat_url: Callable[[], str] | None = None
    max_size: int = 16 * 1024 * 1024
    listen: float = 0.0
    wanted: Callable[[], bool] = _always
    repeated: Callable[[], object] = _always

    def __repr__(self) -> str:
        return f"Request({self.operation}: {self.method} {bare(self.url)})"


class HttpAnswer(Struct, frozen=True, kw_only=True):
    """A complete HTTP answer; header names are lower case.

    `line` is set over a websocket: a connect was `answered` by the server, or answered by a push while the server goes
    on holding it (`held`) or before it was sent (`unsent`).
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    line: str = ""

    @property
    def good(self) -> bool:
        """Return whether the status is one of success."""
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """Return the media type with its parameters, empty where it is not named."""
        return self.headers.get("content-type", "")

    def __repr__(self) -> str:
        return f"HttpAnswer({self.status}: {len(self.body)} bytes)"


# Why no complete answer came, as the texts of `TransportError`; the carriers share them.
CUT = "cut, as the service was closed"
LATE = "no complete answer within {timeout} s"
LOST = "the connection was lost before the answer was complete"
TORN = "the answer was torn off"
TOO_LARGE = "the answer is larger than {most} bytes"
BROKEN = "{kind} in a layer below, which is a defect; its cause is attached"


class Dialect(Protocol):
    """One wire protocol: calls become requests, answers become replies. Pure."""

    def request(self, call: Call) -> Request:
        """Build the request of a call; raises `TypeError` for an operation that the transport does not have."""
        ...

    def reply(self, call: Call, answer: HttpAnswer, url: str) -> Reply:
        """Read the answer to a call; `url` is where the request went, without its query."""
        ...


_DOWNLOADS = (Download, Fetch)


def bounds(config: Config, operation: Operation) -> tuple[float | None, int]:
    """Return the deadline of a request in seconds, None for none, and the size in bytes of its answer at most."""
    limit = config.file_upload_timeout if isinstance(operation, SendFile) else config.ajax_timeout
    large = isinstance(operation, _DOWNLOADS)
    return limit / 1000 if limit else None, config.client.max_download_size if large else config.client.max_answer_size


def not_offered(operation: Operation) -> TypeError:
    """Make the error for an operation that a transport does not have, which the lifecycle refuses before."""
    return TypeError(f"{operation.name}: this transport has no such operation")


def bare(url: str) -> str:
    """Return a URL without its query, for logs and responses."""
    return url.partition("?")[0]


UNESCAPED = "!*'()"
"""What `encodeURIComponent` leaves as it is, beyond what Python does."""


def form(fields: list[tuple[str, str]]) -> bytes:
    """Encode fields as an urlencoded body, byte for byte as jQuery's `ajax` sends them."""
    if _PLAIN().fullmatch("".join(chain.from_iterable(fields))):  # as in nearly all requests, polls among them
        return "&".join(map("=".join, fields)).encode("ascii")
    return _urlencoded(fields, UNESCAPED).encode("ascii")


def _urlencoded(fields: Sequence[tuple[str, str]], safe: str) -> str:
    try:
        return urlencode(fields, safe=safe, quote_via=_quoted)
    except UnicodeEncodeError:  # a lone surrogate
        return urlencode([(scalars(name), scalars(value)) for name, value in fields], safe=safe)


_PLAIN = cache(lambda: re.compile(r"[\w.~-]*", re.ASCII))
"""Texts in which nothing is escaped: most ids, keys and numbers."""


def _quoted(text: Any, *how: Any) -> str:
    return text if _PLAIN().fullmatch(text) else quote_plus(text, *how)


def encoded(request: Request) -> tuple[bytes, str]:
    """Return the body of a request and its content type; `parts` as multipart/form-data, as a browser encodes it."""
    if not request.parts:
        return request.body, request.content_type
    return encode_multipart_formdata([_field(name, value) for name, value in request.parts])


def _field(name: str, value: str | FilePart) -> RequestField:
    """Return a part for urllib3, which knows no lone surrogates; a file may be named by bytes that are no UTF-8."""
    if isinstance(value, str):
        part = RequestField(scalars(name), utf8(value))
        part.make_multipart()
    else:
        part = RequestField(scalars(name), value.content, filename=scalars(value.name))
        part.make_multipart(content_type=scalars(value.content_type))
    return part


def segment(text: str) -> str:
    """Quote a text as one segment of a path."""
    return quote(scalars(text), safe="")


def parameters(fields: Mapping[str, str]) -> str:
    """Encode fields as the query of an address."""
    return _urlencoded(list(fields.items()), "")


def part(upload: SendFile) -> FilePart:
    """Return the multipart part of an upload, whose bytes the shell has read."""
    file = upload.file
    return FilePart(name=scalars(file.name), content=upload.content, content_type=file.content_type)


def bracketed(name: str, value: Any) -> list[tuple[str, str]]:
    """Spell a value as form fields, nested in brackets as jQuery 3's `param` does it (`traditional` off).

    An element of a list has empty brackets where it is a plain value or nothing, and its number where it is an object,
    as `userData[cart][0][sku]`; empty mappings and lists vanish. A name that ends in empty brackets already, as under
    an empty key, takes the elements of a list as their texts.
    """
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in bracketed(f"{name}[{_key(key)}]", inner)]
    if not isinstance(value, list | tuple):
        return [(name, text(value))]
    if name.endswith("[]"):
        return [(name, text(inner)) for inner in value]
    numbered = [("" if _is_plain(inner) else place, inner) for place, inner in enumerate(value)]
    return [pair for place, inner in numbered for pair in bracketed(f"{name}[{place}]", inner)]


def _key(key: Any) -> str:
    return "null" if key is None else text(key)


def _is_plain(value: Any) -> bool:
    """Return whether JavaScript would not call a value an object; a date, a `Decimal` and the like are objects."""
    return isinstance(value, str | int | float | None)


def text(value: Any) -> str:
    """Spell a form value as JavaScript does: `true`, nothing for null, `1` for 1.0, `1e+21`.

    An integer beyond 2**53 keeps its digits, which JavaScript would round away. Raises `ValueError` for an integer of
    more than 4300 digits.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration of texts may spell itself otherwise
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return "[object Object]"
    if isinstance(value, list | tuple):
        return ",".join(text(inner) for inner in value)
    return "" if value is None else str(value)


def _number(value: float) -> str:
    """Spell a float as ECMAScript's Number::toString does: the shortest digits, plain from 1e-6 up to 1e21."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    mantissa, _, exponent = float.__repr__(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    return sign + _placed(digits, point) if digits else "0"


def _placed(digits: str, point: int) -> str:
    """Put the decimal point behind so many digits, or write an exponent where that is too far away."""
    if not -6 < point <= 21:
        fraction = f".{digits[1:]}" if digits[1:] else ""
        return f"{digits[0]}{fraction}e{point - 1:+d}"
    if point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[point:]}" if digits[point:] else ""
    return digits[:point].ljust(point, "0") + fraction


def answered(answer: HttpAnswer, url: str) -> Response:
    """Return the response for an answer that was not read: its status, and the beginning of its body as a text."""
    return Response(status=answer.status, body=answer.body[:1000].decode("utf-8", "replace"), url=bare(url))


def silent(request_url: str, error: TransportError) -> Reply:
    """Return the reply that stands for no complete answer."""
    response = Response(status=0, errors=[{"code": 0, "text": str(error)}], url=bare(request_url))
    return Reply(kind=ResponseKind.SILENT, response=response, error=error)


def unreadable(name: str, response: Response, why: str) -> Reply:
    """Return the reply that stands for a complete answer that does not fit its operation; `why` names the place."""
    error = TransportError(f"{name}: the server's answer cannot be read: {why}", response=response)
    shown = Response(
        status=response.status, body=response.body, errors=[{"code": 0, "text": str(error)}], url=response.url
    )
    return Reply(kind=ResponseKind.BAD, response=shown, error=error)


def refused_between(name: str, answer: HttpAnswer, response: Response) -> Reply:
    """Read a status that comes without the application's own body, from something in between.

    Nothing has become of the chat by it. A gateway that was given no good answer, or none in time, may have handed the
    request on: its `error` leaves a send unconfirmed.
    """
    error = None
    if answer.status in (502, 504) and not response.errors:
        error = TransportError(
            f"{name}: HTTP status {answer.status}, not from the chat server; the request may have arrived",
            response=response,
        )
    return Reply(kind=ResponseKind.BAD, response=response, error=error, retry_after=retry_after(answer))


def listed(body: Any, key: str) -> list[Any]:
    """Return the list under a key of a body; empty where there is none, as in a text that says null."""
    found = body.get(key) if isinstance(body, dict) else None  # of JSON, in which there is no other mapping
    return found if isinstance(found, list) else []


def errors_of(body: Any) -> list[Json]:
    """Return the `errors` of a body, as far as they are objects."""
    errors = listed(body, "errors")
    return [dict(error) for error in errors if isinstance(error, Mapping)] if errors else []


def retry_after(answer: HttpAnswer) -> float | None:
    """Return the seconds of a Retry-After header; a date is read against the server's own Date."""
    # the clock of this machine may differ from the server's, by which the date is meant
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, answer.headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
