"""Read the answer to a request, regular ones by their first bytes, and name the error where there is none.

An answer is regular where its head has come whole with the first bytes and consists of plain lines, and the length of
its body is given, or its body has come whole too, in plain chunks. Nearly all answers are, and http.client would take
longer for them than all the rest of a request does. It is given all others, from their first byte on: it knows interim
answers, trailers, folded lines and the many ways to spell a head badly; and urllib3 decodes the content.

The text of a `TransportError` holds no secret of its request.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import urllib3
from msgspec import Struct

from webchat_fsm._errors import TransportError
from webchat_fsm._runtime.sockets import CHUNK, InFlight, Stream, TooMuchError
from webchat_fsm._wire.request import BROKEN, CUT, LATE, LOST, TOO_LARGE, TORN, HttpAnswer, Request


class NoConnectionError(OSError):
    """There is no connection to the server, or none to or by its proxy."""

    def __init__(self, reason: Exception, *, by_proxy: bool) -> None:
        super().__init__("no connection")
        self.reason, self.by_proxy = reason, by_proxy


class TornError(OSError):
    """An answer broke off after its head."""


class MalformedError(OSError):
    """An answer breaks the rules of HTTP after its head."""


class Received(Struct, frozen=True):
    """A complete answer, its Set-Cookie headers, and whether the connection may be used for another request."""

    answer: HttpAnswer
    cookies: list[str]
    reusable: bool


def read_answer(stream: Stream, in_flight: InFlight, method: str, max_size: int, received: bytes = b"") -> Received:
    """Wait for the answer to a request that was sent by `method`; its body has at most `max_size` bytes.

    `received` are the first bytes, where they were read before.

    Raises an `OSError` (`TooMuchError`, `TornError` and `MalformedError` among them), or an error of http.client or
    urllib3; a `ConnectionError` only where the head is incomplete.
    """
    first = received or stream.read(in_flight)
    regular = None if method == "HEAD" else _regular(first)
    if regular is None:
        return _read_by_http_client(first, stream, in_flight, method, max_size)
    if regular.size > max_size:
        raise TooMuchError(f"{regular.size} bytes, of at most {max_size}")
    body, headers = regular.body, regular.headers
    if len(body) < regular.size:
        body += _read_exactly(stream, in_flight, regular.size - len(body))
    cookie = headers.get("set-cookie")
    # What follows the body was not asked for, and must not count as the answer to the next request.
    reusable = "close" not in headers.get("connection", "").lower() and not regular.surplus
    answer = HttpAnswer(status=regular.status, headers=headers, body=body)
    return Received(answer, [] if cookie is None else [cookie], reusable)


_HEAD_END = cache(lambda: re.compile(rb"\n\r?\n"))
_LENGTH = cache(lambda: re.compile(rb"\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r?\n", re.IGNORECASE))
_CHUNKED = cache(lambda: re.compile(rb"\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE))
_LAST_CHUNK = cache(lambda: re.compile(rb"(?:^|\n)0+[ \t;\r\n]"))


def is_incomplete(received: bytes) -> bool:
    """Return whether more bytes of an answer are to come for certain; where that is not clear they are read at once.

    A server may send an answer byte by byte, which is to occupy no worker.
    """
    if len(received) >= CHUNK:
        return False  # what takes long to come is not looked through again and again
    end = _HEAD_END().search(received)
    if end is None:
        return True
    head, body = received[: end.end()], received[end.end() :]
    if head[9:10] == b"1" or head[9:12] in _BODILESS:
        return False
    if _CHUNKED().search(head):
        return _LAST_CHUNK().search(body) is None
    length = _LENGTH().search(head)
    return length is not None and len(body) < int(length[1])


def _read_exactly(stream: Stream, in_flight: InFlight, size: int) -> bytes:
    """Return the next bytes of a body, of that number; raises `TornError` where there are fewer."""
    parts: list[bytes] = []
    while size:
        try:
            part = stream.read(in_flight, min(size, CHUNK))
        except ConnectionError as error:
            raise TornError("the answer broke off") from error
        if not part:
            raise TornError(f"{size} bytes are missing")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# -- a regular answer --------------------------------------------------------------------------------------------------


class _Regular(Struct, frozen=True):
    """A regular answer, of whose body `size` bytes are to come in all; `surplus` says that more than it has come."""

    status: int
    headers: dict[str, str]
    body: bytes
    size: int
    surplus: bool


_LINE = rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~](?:[ -~\t]*[!-~])?)?)\r\n"
_HEAD = cache(lambda: re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: [ -~]*)?\r\n((?>%b)*+)\r\n" % _LINE))
_LINES = cache(lambda: re.compile(_LINE.decode()))

_MOST_LINES = 64
"""Header lines of a regular head; http.client has a limit of its own, which counts for the others."""

_BODILESS = (b"204", b"304")
"""Status codes of answers that have no body, even where they announce a length."""


def _regular(first: bytes) -> _Regular | None:
    """Return the answer that begins with these bytes, None where it is not a regular one."""
    found = _HEAD().match(first)
    if found is None or found[1] in _BODILESS:
        return None
    lines: list[tuple[str, str]] = _LINES().findall(found[2].decode("ascii"))
    headers = {name.lower(): value for name, value in lines}
    # A header that occurs twice is irregular too, and so is a body that has to be decoded.
    if len(headers) < len(lines) or len(lines) > _MOST_LINES or "content-encoding" in headers:
        return None
    status, end, length = int(found[1]), found.end(), headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None or headers["transfer-encoding"].lower() != "chunked":
            return None
        body = _joined_chunks(first, end)
        return None if body is None else _Regular(status, headers, body, len(body), surplus=False)
    if length is None or not length.isdecimal() or len(length) > 15:
        return None
    size = int(length)
    return _Regular(status, headers, first[end : end + size], size, surplus=len(first) > end + size)


_CHUNK_SIZE = cache(lambda: re.compile(rb"([0-9A-Fa-f]{1,8})\r\n"))


def _joined_chunks(received: bytes, at: int) -> bytes | None:
    """Return the body of the chunks from a place on; None unless all have come, with neither extension nor trailer."""
    parts: list[bytes] = []
    while found := _CHUNK_SIZE().match(received, at):
        size, start = int(found[1], 16), found.end()
        at = start + size + 2
        if received[at - 2 : at] != b"\r\n":
            return None
        if not size:
            return b"".join(parts) if at == len(received) else None
        parts.append(received[start : start + size])
    return None


# -- all others --------------------------------------------------------------------------------------------------------


def _read_by_http_client(first: bytes, stream: Stream, in_flight: InFlight, method: str, max_size: int) -> Received:
    raw = _Response(Readable(stream, in_flight, first), method=method)  # type: ignore[arg-type]
    raw.begin()
    if raw.status < 200:  # 101: no other protocol was asked for
        raise MalformedError("the server switches to another protocol")
    headers = urllib3.HTTPHeaderDict((name, _unfolded(value)) for name, value in raw.msg.items())
    response = urllib3.HTTPResponse(
        raw, headers, raw.status, preload_content=False, original_response=raw, request_method=method
    )
    body = bytearray()
    try:
        for chunk in response.stream(CHUNK, decode_content=True):
            body += chunk
            if len(body) > max_size:
                raise TooMuchError(f"more than {max_size} bytes")
    except urllib3.exceptions.ProtocolError as error:
        raise TornError("the answer broke off") from error
    except ValueError as error:  # http.client's `int` of a chunk size
        raise MalformedError("invalid chunk size") from error
    answer = HttpAnswer(
        status=raw.status, headers={name.lower(): value for name, value in headers.items()}, body=bytes(body)
    )
    return Received(answer, headers.getlist("set-cookie"), not raw.will_close)


def _unfolded(value: str) -> str:
    """Return the value of a header in one line (RFC 9112, 5.2)."""
    return " ".join(line.strip(" \t") for line in value.split("\r\n")) if "\r\n" in value else value


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110, 15.2); http.client alone skips only 100, and takes 103 for the answer."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, 100 if 101 < status < 200 else status, reason


class Readable:
    """Gives http.client a stream to read from, in place of a socket; `first` are bytes that were read from it."""

    def __init__(self, stream: Stream, in_flight: InFlight, first: bytes = b"") -> None:
        self._stream, self._in_flight, self._first = stream, in_flight, first

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> io.BufferedReader:
        """Return the stream as a file, under the bounds of the request in flight."""
        return io.BufferedReader(_Incoming(self._stream, self._in_flight, self._first))


class _Incoming(io.RawIOBase):
    """The bytes of a stream as http.client reads them."""

    def __init__(self, stream: Stream, in_flight: InFlight, first: bytes) -> None:
        self._stream, self._in_flight, self._first = stream, in_flight, first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /, *args: Any, **kwargs: Any) -> int:
        size = min(len(buffer), CHUNK)
        data = self._first[:size] or self._stream.read(self._in_flight, size)
        self._first = self._first[size:]
        buffer[: len(data)] = data
        return len(data)


# -- errors ------------------------------------------------------------------------------------------------------------


def is_stale(error: BaseException) -> bool:
    """Return whether the connection was closed before any answer came."""
    return isinstance(error, ConnectionError | ssl.SSLEOFError)


def _may_quote(error: Exception) -> bool:
    """Return whether an error's text may quote what was to be sent, secrets included."""
    return isinstance(error, ValueError | http.client.InvalidURL) and not isinstance(error, OSError)


def without_secrets(error: Exception) -> Exception:
    """Return the error to attach as a cause; one whose text may quote what was to be sent is replaced."""
    if _may_quote(error):
        return ValueError(f"{type(error).__name__}, whose text is left out as it quotes what was to be sent")
    return error


def transport_error(error: Exception, request: Request, in_flight: InFlight) -> TransportError:
    """Map an error to `TransportError`, without data of the request in its text."""
    if in_flight.was_cut:
        return TransportError(f"{request.operation}: {CUT}")
    if _may_quote(error):
        return TransportError(f"{request.operation}: invalid URL, header or cookie")
    return TransportError(f"{request.operation}: {_fault(error, request)}")


# The first row whose class fits gives the text, so a class stands before those that it inherits from.
_UNCONNECTED: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the name {host} cannot be resolved"),
    (UnicodeError, "{host} is not a valid host name"),
    (TimeoutError, "no connection to {host} within the time limit"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (OSError, "no connection to {host}: {error}"),
)
_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (TooMuchError, TOO_LARGE),
    (TornError, TORN),
    (MalformedError, "the answer is not valid HTTP"),
    (urllib3.exceptions.TimeoutError, LATE),
    (TimeoutError, LATE),
    (ssl.SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.DecodeError, "the answer's content encoding is broken"),
    (OSError, LOST),
    (http.client.HTTPException, LOST),
    (urllib3.exceptions.ProtocolError, LOST),
    (Exception, BROKEN),
)
_OUTRANKING = (TooMuchError, TimeoutError, urllib3.exceptions.TimeoutError)
"""Causes that say more than the error of an upper layer that wraps them."""


def _fault(error: Exception, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc.rpartition("@")[2], f"{request.timeout:g}" if request.timeout else "?"
    table, shown = _FAULTS, next((cause for cause in _causes(error) if isinstance(cause, _OUTRANKING)), error)
    if isinstance(error, NoConnectionError):
        if error.by_proxy:
            return "the proxy could not be used"
        table, shown = (_FAULTS if isinstance(error.reason, ssl.SSLError) else _UNCONNECTED), error.reason
    text = next(text for kind, text in table if isinstance(shown, kind))
    return text.format(
        host=host, timeout=timeout, most=request.max_size, error=list(_causes(shown))[-1], kind=type(shown).__name__
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps, outermost first."""
    inner: BaseException | None = error
    while isinstance(inner, BaseException):
        yield inner
        wrapped = next((one for one in inner.args if isinstance(one, BaseException)), None)
        inner = getattr(inner, "reason", None) or wrapped or inner.__cause__
