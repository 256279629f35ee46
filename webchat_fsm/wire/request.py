"""A request and its answer, as data: what a dialect makes and what travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

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
    bytes. `listen` is the seconds for which a websocket waits for pushes before it sends the message; a push that comes
    answers it unsent. `wanted` is asked once it can be cut, and false where nobody waits for an answer any more: it is
    not sent. `repeated` is called before each further request that it takes: a repetition over another connection,
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
    repeat_url: str = ""
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


UNESCAPED = "!*'()"
"""What `encodeURIComponent` leaves as it is, beyond what Python does."""


def form(fields: list[tuple[str, str]]) -> bytes:
    """Encode fields as an urlencoded body, byte for byte as jQuery's `ajax` sends them."""
    return urlencode([(scalars(name), scalars(value)) for name, value in fields], safe=UNESCAPED).encode("ascii")


def segment(text: str) -> str:
    """Quote a text as one segment of a path, whatever it holds."""
    return quote(scalars(text), safe="")


def parameters(fields: Mapping[str, str]) -> str:
    """Encode fields as the query of an address."""
    return urlencode({scalars(name): scalars(value) for name, value in fields.items()})


def part(call: Call) -> FilePart:
    """The file of an upload, its bytes read by the shell."""
    file: FileToSend = call.fields["file"]
    return FilePart(name=scalars(file.name), content=call.fields["content"], content_type=file.content_type)


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
        return str.__str__(value)  # the text itself, whatever an enumeration of texts calls it
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
    """Read a status that comes without the application's own body, from something in between.

    Nothing has become of the chat by it. A gateway that was given no good answer, or none in time, may have handed the
    request on: its `error` leaves a send unconfirmed.
    """
    error = None
    if answer.status in (502, 504) and not response.errors:
        error = TransportError(
            f"{call.operation}: HTTP status {answer.status}, not from the chat server; the request may have arrived",
            response=response,
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
