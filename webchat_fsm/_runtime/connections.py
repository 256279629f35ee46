"""HTTP/1.1 connections for `http`: urllib3's, over streams that keep a deadline, and a pool of idle ones.

urllib3 connects, by a proxy too, and writes the headers; the bytes are sent and received here.
"""

from __future__ import annotations

import functools
import http.client
import itertools
import re
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace
from urllib3.connection import HTTPConnection
from urllib3.util import Url, parse_url

from webchat_fsm._runtime import sockets
from webchat_fsm._runtime.answers import NoConnectionError, Readable, Received, is_incomplete, read_answer
from webchat_fsm._runtime.sockets import CHUNK, InFlight, Stream
from webchat_fsm._runtime.tls import DEFAULT_PORTS, secured

IDLE_CONNECTIONS = 16
"""How many idle connections of one route are kept for one session."""


class Route(Struct, frozen=True):
    """Where the requests for a URL go: to which host, under TLS or not, by which proxy. The key of the pool."""

    secure: bool
    host: str
    port: int
    proxy: Url | None

    @property
    def tunnelled(self) -> bool:
        """Return whether the proxy only relays bytes (CONNECT), as it must under TLS."""
        return self.secure and self.proxy is not None


class Target(Struct, frozen=True):
    """What a URL asks for: the route to it, the target in the request line, and whether the proxy makes the request."""

    route: Route
    line: str
    forwarded: bool


class RequestHeads:
    """Makes the heads of the requests of one service; what is the same as in its last request is not made again.

    Nor is what another service has made lately: the first requests of many chats differ in little but their bodies.
    """

    __slots__ = ("_lines", "_proxy", "_target")

    def __init__(self, proxy: Url | None) -> None:
        self._proxy = proxy
        # Each is replaced as a whole, so that threads see the key and the value of one request.
        self._target: tuple[str, Target] | None = None
        self._lines: tuple[_Key, tuple[bytes, bytes]] | None = None

    def target(self, url: str) -> Target:
        """Return the target of an http(s) URL, escaped; raises a `ValueError` that quotes it."""
        # The query may change with each poll, and nothing else of the target depends on it.
        address, mark, query = url.partition("?")
        if "#" in address or not _ESCAPED().fullmatch(query):
            return _target_of(url, self._proxy)
        known = self._target
        if known is None or known[0] != address:
            known = self._target = address, _recent_target(address, self._proxy)
        target = known[1]
        return Target(target.route, target.line + mark + query, target.forwarded)

    def head(self, target: Target, method: str, headers: dict[str, str], body: bytes) -> bytes:
        """Return the head of a request; raises `ValueError` for an invalid header."""
        key = (target.route, target.forwarded, method, tuple(headers.items()))
        known = self._lines
        if known is None or known[0] != key:
            line = target.line if target.forwarded else "/"  # a proxy is named the host as the URL has it
            known = self._lines = key, _header_lines(target.route, line, method, key[-1])
        before, after = known[1]
        length = f"Content-Length: {len(body)}\r\n" if after else ""
        return f"{method} {target.line} HTTP/1.1\r\n".encode("ascii") + before + length.encode("ascii") + after


_ESCAPED = cache(lambda: re.compile(r"(?:[\w.~*=&+-]|%[0-9A-F]{2})*", re.ASCII))
"""A query in which urllib3 would escape nothing."""

_Headers = tuple[tuple[str, str], ...]

_Key = tuple[Route, bool, str, _Headers]
"""What the header lines of a request depend on, beside the length of its body."""

RECENT = 64
"""How many targets, and how many sets of header lines, are kept for all services."""


def _target_of(url: str, proxy: Url | None) -> Target:
    parts = parse_url(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.host:
        raise ValueError("an address without http and a host")
    route = _route_of(parts.scheme == "https", parts.host, parts.port or DEFAULT_PORTS[parts.scheme], proxy)
    forwarded = proxy is not None and not route.secure
    # A proxy that makes the request itself is given the whole URL.
    line = parts._replace(auth=None, fragment=None).url if forwarded else parts.request_uri
    if not (line.isascii() and line.isprintable()) or " " in line:  # it would end the request line
        raise ValueError("an address with characters that are not escaped")
    return Target(route, line, forwarded)


_recent_target = functools.lru_cache(RECENT)(_target_of)


@functools.lru_cache(RECENT)
def _route_of(secure: bool, host: str, port: int, proxy: Url | None) -> Route:
    """Return the route, one object for all services."""
    return Route(secure, host, port, proxy)


@functools.lru_cache(RECENT)
def _header_lines(route: Route, line: str, method: str, headers: _Headers) -> tuple[bytes, bytes]:
    """Return all of a head but its first line, as urllib3 writes it, which refuses what is not allowed in a header.

    In two parts, between which the line with the length of the body stands; the second is empty without such a line.
    """
    writer = _HeadWriter(route.host, route.port)
    writer.default_port = _default_port(route)  # type: ignore[misc]
    writer.request(method, line, body=b"", headers=dict(headers))
    lines = writer.sent[0].partition(b"\r\n")[2]
    if any(name.lower() == "content-length" for name, _ in headers):
        return lines, b""
    before, end, after = lines.partition(_NO_LENGTH)
    return before + end[:2], after


_NO_LENGTH = b"\r\nContent-Length: 0\r\n"
"""The line that urllib3 writes for an empty body, in front of all headers that are given to it."""


def _default_port(route: Route) -> int:
    """Return the port that is left out of the Host header."""
    return DEFAULT_PORTS["https" if route.secure else "http"]


class _HeadWriter(HTTPConnection):
    """Keeps what it is to send."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.sent: list[bytes] = []

    def send(self, data: Any) -> None:
        self.sent.append(data)


class _Socket(Readable):
    """The methods of a socket by which urllib3 asks a proxy for a tunnel."""

    def sendall(self, data: bytes) -> None:
        self._stream.write(data, self._in_flight)

    def close(self) -> None:
        """Do nothing: `Connection.discard` closes the stream."""


class _Opener(HTTPConnection):
    """Opens the connection of a route as urllib3 does it, through the tunnel of a proxy and under TLS where asked."""

    stream: Stream | None = None
    """The stream as far as it has been opened; to be closed where `connect` fails."""

    def __init__(self, route: Route, tls: Callable[[], ssl.SSLContext], tunnel_headers: dict[str, str]) -> None:
        self._route, self._tls = route, tls
        proxy = route.proxy
        if proxy is None:
            super().__init__(route.host, route.port)
        else:
            super().__init__(proxy.host or "", proxy.port or DEFAULT_PORTS[proxy.scheme or "http"], proxy=proxy)
        if route.tunnelled:
            self.set_tunnel(route.host, route.port, tunnel_headers, "https")

    def open(self, in_flight: InFlight) -> None:
        """Connect within the bounds of a request."""
        self._in_flight = in_flight
        self.connect()

    def _new_conn(self) -> socket.socket:
        try:
            self.stream = sockets.connect(self._dns_host.strip("[]"), self.port, sockets.PROMPT, self._in_flight)
            if self.proxy is not None and self.proxy.scheme == "https":
                self.stream = secured(self.stream, self._tls(), self.host.strip("[]"), self._in_flight)
        except (OSError, UnicodeError) as error:
            raise NoConnectionError(error, by_proxy=self.proxy is not None) from error
        return cast(socket.socket, _Socket(self.stream, self._in_flight))

    def connect(self) -> None:
        """Connect, through the proxy's tunnel where there is one, and do the TLS handshake with the server."""
        try:
            super().connect()
        except (OSError, http.client.HTTPException) as error:
            if self.proxy is None or isinstance(error, NoConnectionError):
                raise
            raise NoConnectionError(error, by_proxy=True) from error
        if self._route.secure:
            assert self.stream is not None  # `_new_conn` has opened it
            # A certificate names neither the root's dot nor the zone of an IPv6 address.
            host = self._route.host.strip("[]").rstrip(".").partition("%")[0]
            self.stream = secured(self.stream, self._tls(), host, self._in_flight)


class Connection:
    """One HTTP connection of a route; it is used by one request at a time, whose bounds each call is given.

    Of urllib3's connection only the stream is kept once it is open: a thousand idle ones take a megabyte less so.
    """

    __slots__ = ("_failure", "_opener", "_received", "_refusal", "stream")

    stream: Stream

    def __init__(self, route: Route, tls: Callable[[], ssl.SSLContext], tunnel_headers: dict[str, str]) -> None:
        self._opener: _Opener | None = _Opener(route, tls, tunnel_headers)
        self._refusal: OSError | None = None
        self._received = b""
        """The bytes of the answer that `has_answer` has read."""
        self._failure: Exception | None = None
        """The error that ended that, which `read_answer` raises."""

    def send_request(self, head: bytes, body: bytes, in_flight: InFlight) -> None:
        """Send a request, over a new TCP connection where there is none."""
        self._refusal, self._received, self._failure = None, b"", None
        if self._opener is not None:
            self._open(self._opener, in_flight)
        try:
            self.stream.write(head + body[:CHUNK], in_flight)
            if len(body) > CHUNK:
                self.stream.write(memoryview(body)[CHUNK:], in_flight)
        except (BrokenPipeError, ConnectionResetError) as error:
            # A server may refuse an upload before it has read all of it, and close: its answer is in the socket.
            self._refusal = error

    def _open(self, opener: _Opener, in_flight: InFlight) -> None:
        try:
            opener.open(in_flight)
        finally:
            if opener.stream is not None:
                self.stream = opener.stream
        self._opener = None

    def has_answer(self, seconds: float, in_flight: InFlight) -> bool:
        """Read what comes within so many seconds; False where more is to come before `read_answer` can return."""
        try:
            if not self.stream.has_arrived(seconds) or (data := self.stream.read_now()) is None:
                return False
            in_flight.received(len(data))
        except Exception as error:  # of ssl or gevent's sockets too
            self._failure = error
            return True
        self._received += data
        return not (data and is_incomplete(self._received))

    def read_answer(self, method: str, max_size: int, in_flight: InFlight) -> Received:
        """Return the answer to the request, as `answers.read_answer` does."""
        first, self._received = self._received, b""  # an idle connection is not to hold its last answer
        try:
            if self._failure is not None:
                raise self._failure
            received = read_answer(self.stream, in_flight, method, max_size, first)
        except (OSError, http.client.HTTPException):
            if self._refusal is not None:  # it has not answered; the error of the request is the one that counts
                raise self._refusal from None
            raise
        return received if self._refusal is None else replace(received, reusable=False)

    def discard(self) -> None:
        """Close the sockets; closing twice is allowed."""
        if (stream := getattr(self, "stream", None)) is not None:  # else it has never been connected
            stream.close()


class ConnectionPool:
    """Hold idle connections by route, at most `idle` of each; `tls` is for those that share them.

    Not urllib3's pool: its queue is locked by functions in Python, and a signal at their entry would leave the lock
    taken. `pop` and `append` of a list are single steps that need no lock.
    """

    __slots__ = ("_closed", "_idle", "_most_idle", "tls")

    def __init__(self, idle: int = IDLE_CONNECTIONS, tls: ssl.SSLContext | None = None) -> None:
        self._most_idle, self.tls = idle, tls
        self._idle: dict[Route, list[Connection]] = {}
        self._closed = False

    def take(self, route: Route) -> Connection | None:
        """Return an idle connection on which the peer has sent nothing, its end included."""
        idle = self._idle.get(route)
        while idle:
            try:
                connection = idle.pop()  # the one used last, which is the least likely to have been closed
            except IndexError:  # another thread was faster
                break
            if connection.stream.quiet:
                return connection
            connection.discard()
        return None

    def holds(self, route: Route) -> bool:
        """Return whether there is an idle connection; another request may take it first, and it may be stale."""
        return bool(self._idle.get(route))

    def put(self, route: Route, connection: Connection) -> None:
        """Keep a connection for the next request, unless there are enough or the pool is closed."""
        idle = self._idle.get(route)
        if idle is None:
            idle = self._idle.setdefault(route, [])  # one step, as another thread may put the first one too
        if len(idle) < self._most_idle:
            idle.append(connection)
        else:
            connection.discard()
        # After the append: `close` sets the flag before it looks, so one of the two closes the connection.
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close all idle connections, and each that is put back later."""
        self._closed = True
        for idle in list(self._idle.values()):
            while idle:
                try:
                    idle.pop().discard()
                except IndexError:  # another thread closes them too
                    break

    def after_fork(self) -> None:
        """Close the descriptors in a forked child, without a byte to the server: the parent uses the connections."""
        idle, self._idle = self._idle, {}
        for connection in itertools.chain.from_iterable(idle.values()):
            connection.stream.close_descriptors()

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))
