"""How requests travel: urllib3 with retries off, one total deadline a request, and sockets that closing shuts down.

The only importer of urllib3.
"""

from __future__ import annotations

import http.client
import io
import itertools
import os
import socket
import ssl
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from http.cookiejar import Cookie, CookieJar, CookiePolicy, DefaultCookiePolicy
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit
from urllib.request import Request as CookieRequest

import urllib3
from msgspec.structs import replace
from urllib3.connection import HTTPConnection
from urllib3.filepost import encode_multipart_formdata
from urllib3.util import Url, parse_url

from webchat_fsm.config import Config, Tls
from webchat_fsm.errors import ConfigError, TransportError
from webchat_fsm.runtime import clock, sockets
from webchat_fsm.runtime.sockets import Flight, Flights, Stream, TooMuchError
from webchat_fsm.wire.request import FilePart, HttpAnswer, Request

CONNECTIONS = 16
"""How many connections to one host are kept."""

COOKIES = 50
"""How many cookies are kept."""

COOKIE_SIZE = 4096
"""Characters of a cookie's name and value at most."""

OVERHEAD = 1024 * 1024
"""Bytes that headers and chunk sizes may take, beyond twice the size of the answer."""


@runtime_checkable
class Http(Protocol):
    """What carries requests. Replaced, for instance, by the embedded server without sockets."""

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where no complete answer comes."""
        ...

    def cut(self) -> None:
        """Let every request in flight fail at once; later ones may be sent."""
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


def encoded(request: Request) -> tuple[bytes, str]:
    """The body of a request and its content type."""
    if not request.parts:
        return request.body, request.content_type
    fields = [(name, _multipart_value(value)) for name, value in request.parts]
    return encode_multipart_formdata(fields)


def _multipart_value(value: str | FilePart) -> Any:
    return (value.name, value.content, value.content_type) if isinstance(value, FilePart) else value


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110, 15.2); http.client itself knows 100 alone for one."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, 100 if 101 < status < 200 else status, reason


class _Incoming(io.RawIOBase):
    """What comes over a connection, for http.client to buffer."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /, *args: Any, **kwargs: Any) -> int:
        data = self._connection.stream.read(self._connection.flight, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Sock:
    """What http.client asks of a socket; bounds and closing are the affair of the connection's request."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._connection.stream.write(data, self._connection.flight)

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection))

    def settimeout(self, value: float | None) -> None:
        """Do nothing: each operation is bounded by what its request has left."""

    def close(self) -> None:
        """Do nothing: http.client closes here what it still reads from."""


class _Route(NamedTuple):
    """Where the requests for a URL go: to which host, under which TLS, by which proxy."""

    secure: bool
    host: str
    port: int
    proxy: Url | None

    @property
    def tunnelled(self) -> bool:
        return self.secure and self.proxy is not None


class _Connection(HTTPConnection):
    """A connection of one route; it is used by one request at a time, which sets `flight` before."""

    response_class = _Response
    stream: Stream
    flight: Flight

    def __init__(self, route: _Route, tls: ssl.SSLContext, tunnel_headers: dict[str, str]) -> None:
        self._route, self._tls = route, tls
        proxy = route.proxy
        if proxy is None:
            super().__init__(route.host, route.port)
        else:
            super().__init__(proxy.host or "", proxy.port or DEFAULT_PORTS[proxy.scheme or "http"], proxy=proxy)
        if route.tunnelled:
            self.set_tunnel(route.host, route.port, tunnel_headers, "https")
        self.default_port = DEFAULT_PORTS["https" if route.secure else "http"]  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        try:
            self.stream = sockets.connect(self._dns_host.strip("[]"), self.port, sockets.PROMPT, self.flight)
            if self.proxy is not None and self.proxy.scheme == "https":
                self.stream = sockets.secured(self.stream, self._tls, self.host.strip("[]"), self.flight)
        except (OSError, UnicodeError) as error:
            raise _UnconnectedError(error, by_proxy=self.proxy is not None) from error
        return cast(socket.socket, _Sock(self))

    def connect(self) -> None:
        try:
            super().connect()
        except (OSError, http.client.HTTPException) as error:
            if self.proxy is None or isinstance(error, _UnconnectedError):
                raise
            raise _UnconnectedError(error, by_proxy=True) from error
        if self._route.secure:
            host = self._route.host.strip("[]").rstrip(".").partition("%")[0]
            self.stream = sockets.secured(self.stream, self._tls, host, self.flight)

    def give_back(self) -> None:
        """Close the sockets; twice does no harm."""
        if (stream := self.__dict__.get("stream")) is not None:  # else it has never been connected
            stream.close()


DEFAULT_PORTS = {"http": 80, "https": 443}


@lru_cache(maxsize=256)
def _parsed(url: str) -> Url:
    """Return the parts of a URL, escaped; raises a `ValueError` that quotes it."""
    parsed = parse_url(url)
    if parsed.scheme not in DEFAULT_PORTS or not parsed.host:
        raise ValueError("an address without http and a host")
    return parsed


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the TLS settings of a configuration; verification is on unless it says otherwise.

    Services whose configuration names no file share one context, as reading the system's authorities takes some 20 ms
    and most of a megabyte. Raises `ConfigError` for a file that cannot be read.
    """
    if tls == Tls(verify=tls.verify):
        places = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))  # OpenSSL reads them
        return _shared_context(tls.verify, ssl.SSLContext, places)  # a class of gevent's once the library is patched
    return _new_context(tls)


@lru_cache(maxsize=8)
def _shared_context(verify: bool, kind: type[ssl.SSLContext], places: tuple[str | None, ...]) -> ssl.SSLContext:
    return _new_context(Tls(verify=verify))


def _new_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
    except OSError as error:
        raise ConfigError("$.client.tls.ca", f"cannot be read: {error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key or None, tls.key_password or None)
        except OSError as error:
            raise ConfigError("$.client.tls.cert", f"cannot be loaded: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class Urllib3Http:
    """Requests over urllib3: connections are kept alive, cookies where `xhrFields.withCredentials` asks for them.

    The connections are held here and not by urllib3's pool, whose queue is locked by functions in Python: a signal that
    strikes as one of them is entered would leave it locked. A deque's `pop` and `append` are single steps.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tls = tls_context(config.client.tls)
        self._proxy = parse_url(config.client.proxy) if config.client.proxy else None
        self._proxy_headers = _proxy_headers(config.client.proxy)
        self._begin()

    def _begin(self) -> None:
        self._flights = Flights()
        self._jar = _Jar(_CookiePolicy()) if self._keeps_cookies else None
        self._jar_lock = threading.Lock()
        self._kept: dict[_Route, deque[_Connection]] = {}

    def after_fork(self) -> None:
        """Begin anew in a child of a fork; its parent's connections are let go of here without a word to the server."""
        self._flights.leave()
        for connection in itertools.chain.from_iterable(self._kept.values()):
            connection.stream.leave()
        self._begin()

    @property
    def _keeps_cookies(self) -> bool:
        return self._config.xhr_fields.with_credentials or self._config.comet_d.enabled

    def send(self, request: Request, since: float | None = None) -> HttpAnswer:
        """Make the request; a repeatable one is made once more where a kept connection turns out to be dead.

        Its deadline counts from `since`, for one that was tried in another way before. Whatever goes wrong below is a
        `TransportError` with its cause.
        """
        begun = clock.monotonic() if since is None else since
        flight = Flight(None if request.timeout is None else begun + request.timeout, 2 * request.max_size + OVERHEAD)
        try:
            self._flights.add(flight)
            if not request.wanted():
                raise TransportError(f"{request.operation}: {CUT}")
            answer = self._tried(request, flight)
        finally:
            self._flights.discard(flight)
        if flight.was_cut:
            raise TransportError(f"{request.operation}: {CUT}")
        return answer

    def _tried(self, request: Request, flight: Flight) -> HttpAnswer:
        left = self._config.client.retry.stale_connection if request.repeatable else 0
        while True:
            flight.connected = False
            try:
                return self._exchange(request, flight)
            except TransportError:
                raise
            except Exception as error:  # of http.client, urllib3, ssl, a patched socket: of whatever kind
                if flight.was_cut or not left or flight.connected or not _stale(error):
                    raise _told(error, request, flight) from shown(error)
            left -= 1
            request.repeated()
            request = replace(request, url=request.repeat_url or request.url)

    def _exchange(self, request: Request, flight: Flight) -> HttpAnswer:
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["Content-Type"] = content_type
        if cookie := self.cookie(request.url):
            headers["Cookie"] = cookie
        parsed = _parsed(request.url)
        route = _Route(
            parsed.scheme == "https", parsed.host or "", parsed.port or DEFAULT_PORTS[parsed.scheme or ""], self._proxy
        )
        target = parsed.request_uri
        if route.proxy is not None and not route.tunnelled:
            target = parsed._replace(auth=None, fragment=None).url
            headers.update(self._proxy_headers)
        kept = self._kept
        connection = self._connection(kept, route)
        again = False
        try:
            connection.flight = flight
            response = _asked(connection, request.method, target, body, headers)
            answer = self._read(request, response)
            again = not (connection.is_closed or flight.was_cut)
        finally:
            self._put_back(connection, kept, route, again)
        return answer

    def _connection(self, kept: dict[_Route, deque[_Connection]], route: _Route) -> _Connection:
        """Return a kept connection that is still good, or a new one, not connected yet."""
        idle = kept.get(route)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.stream.quiet:
                return connection
            connection.give_back()
        return _Connection(route, self.tls, self._proxy_headers)

    def _put_back(
        self, connection: _Connection, kept: dict[_Route, deque[_Connection]], route: _Route, again: bool
    ) -> None:
        """Keep a connection for the next request, unless that is not possible or `close` was called meanwhile."""
        idle = kept.setdefault(route, deque())
        if again and len(idle) < CONNECTIONS:
            idle.append(connection)
        else:
            connection.give_back()
        if kept is not self._kept:
            _close_all(kept)

    def _read(self, request: Request, response: urllib3.BaseHTTPResponse) -> HttpAnswer:
        if response.status < 200:  # nobody has asked for another protocol
            raise _GarbledError("the server switches to another protocol")
        body = bytearray()
        try:
            for chunk in response.stream(sockets.CHUNK, decode_content=True):
                body += chunk
                if len(body) > request.max_size:
                    raise TooMuchError(f"more than {request.max_size} bytes")
        except urllib3.exceptions.ProtocolError as error:
            raise _TornError("the answer broke off") from error
        except ValueError as error:
            raise _GarbledError("a chunk is none") from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.remember(request.url, response.headers.getlist("set-cookie"))
        return HttpAnswer(status=response.status, headers=headers, body=bytes(body))

    def cookie(self, url: str) -> str:
        """The cookies for a URL as one header; empty where there are none."""
        if self._jar is None:
            return ""
        asking = CookieRequest(url)
        with self._jar_lock:
            self._jar.add_cookie_header(asking)
        return asking.get_header("Cookie") or ""

    def remember(self, url: str, cookies: list[str]) -> None:
        """Keep the cookies that an answer from a URL has set."""
        if self._jar is not None:
            with self._jar_lock:
                self._jar.extract_cookies(_Answered(cookies), CookieRequest(url))  # type: ignore[arg-type]
                for cookie in list(self._jar)[COOKIES:]:
                    self._jar.clear(cookie.domain, cookie.path, cookie.name)

    def cut(self) -> None:
        """Shut the sockets of the requests in flight, which then fail at once."""
        self._flights.cut()

    def close(self) -> None:
        """Close all connections."""
        kept, self._kept = self._kept, {}
        _close_all(kept)


def _asked(
    connection: _Connection, method: str, target: str, body: bytes, headers: dict[str, str]
) -> urllib3.BaseHTTPResponse:
    """Send a request and return its answer, the body unread.

    A server may answer before it has read the whole request, and then close the connection.
    """
    try:
        connection.request(method, target, body=body, headers=headers, preload_content=False)
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            pass  # it has not answered; what broke the request is what counts
        raise
    return connection.getresponse()


def _close_all(kept: dict[_Route, deque[_Connection]]) -> None:
    for idle in list(kept.values()):
        while idle:
            try:
                idle.pop().give_back()
            except IndexError:  # another thread closes them too
                break


class _NoLock:
    """Replaces the lock of a cookie jar, which a signal could leave taken: the jar is used under a lock of ours."""

    def acquire(self) -> None:
        """Do nothing."""

    release = acquire
    __enter__ = acquire

    def __exit__(self, *error: object) -> None: ...


class _Jar(CookieJar):
    def __init__(self, policy: CookiePolicy | None = None) -> None:
        super().__init__(policy)
        self._cookies_lock = _NoLock()


class _CookiePolicy(DefaultCookiePolicy):
    """Takes no cookie that a browser would not take for its size (RFC 6265, 6.1)."""

    def set_ok(self, cookie: Cookie, request: CookieRequest) -> bool:
        size = len(cookie.name) + len(cookie.value or "")
        return size <= COOKIE_SIZE and super().set_ok(cookie, request)


class _Answered:
    """What a cookie jar asks of a response."""

    def __init__(self, cookies: list[str]) -> None:
        self._cookies = cookies

    def info(self) -> Any:
        """The headers, as the jar calls them."""
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        """All values of a header."""
        return (self._cookies if name.lower() == "set-cookie" else None) or default


def _proxy_headers(proxy: str) -> dict[str, str]:
    """The authorisation that a proxy's URL carries."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


class _TornError(OSError):
    """An answer that had begun broke off."""


class _GarbledError(OSError):
    """An answer breaks the rules of HTTP within its body."""


class _UnconnectedError(OSError):
    """There is no connection to the server, or none to or by its proxy."""

    def __init__(self, reason: Exception, *, by_proxy: bool) -> None:
        super().__init__("no connection")
        self.reason, self.by_proxy = reason, by_proxy


def _stale(error: BaseException) -> bool:
    """Whether the connection was closed before any answer came."""
    return isinstance(error, ConnectionError | ssl.SSLEOFError)


def _quotes(error: Exception) -> bool:
    """Return whether an error's text may quote what was to be sent, secrets included."""
    return isinstance(error, ValueError | http.client.InvalidURL) and not isinstance(error, OSError)


def shown(error: Exception) -> Exception:
    """Return the error as a cause, without the text of one that quotes."""
    if _quotes(error):
        return ValueError(f"{type(error).__name__}, whose text is left out as it quotes what was to be sent")
    return error


def _told(error: Exception, request: Request, flight: Flight) -> TransportError:
    """The error in the library's words, which never quote what was sent."""
    if flight.was_cut:
        return TransportError(f"{request.operation}: {CUT}")
    if _quotes(error):
        return TransportError(f"{request.operation}: an address, a header or a cookie is none that HTTP can carry")
    return TransportError(f"{request.operation}: {_fault(error, request)}")


CUT = "cut, as the service was closed"
LATE = "no complete answer within {timeout} s"
LOST = "the connection was lost before the answer was complete"
TOO_LARGE = "the answer is larger than {most} bytes"
BROKEN = "{kind} in a layer below, which is a defect; its cause is attached"

_UNCONNECTED: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the name {host} cannot be resolved"),
    (UnicodeError, "the name {host} is none that can be resolved"),
    (TimeoutError, "no connection to {host} within the time limit"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (OSError, "no connection to {host}: {error}"),
)
_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (TooMuchError, TOO_LARGE),
    (_TornError, "the answer was torn off"),
    (_GarbledError, "the answer is no proper HTTP"),
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


def _fault(error: Exception, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc.rpartition("@")[2], f"{request.timeout:g}" if request.timeout else "?"
    table, shown = _FAULTS, next((cause for cause in _causes(error) if isinstance(cause, _OUTRANKING)), error)
    if isinstance(error, _UnconnectedError):
        if error.by_proxy:
            return "the proxy could not be used"
        table, shown = (_FAULTS if isinstance(error.reason, ssl.SSLError) else _UNCONNECTED), error.reason
    said = next(text for kind, text in table if isinstance(shown, kind))
    return said.format(
        host=host, timeout=timeout, most=request.max_size, error=list(_causes(shown))[-1], kind=type(shown).__name__
    )


_OUTRANKING = (TooMuchError, TimeoutError, urllib3.exceptions.TimeoutError)
"""Causes that say more than the error of an upper layer that wraps them."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, outermost first."""
    inner: BaseException | None = error
    while isinstance(inner, BaseException):
        yield inner
        wrapped = next((one for one in inner.args if isinstance(one, BaseException)), None)
        inner = getattr(inner, "reason", None) or wrapped or inner.__cause__
