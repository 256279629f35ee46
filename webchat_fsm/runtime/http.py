"""How requests travel: urllib3 with retries off, one total deadline a request, and sockets that closing shuts down.

The only importer of urllib3.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from queue import LifoQueue
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit
from urllib.request import Request as CookieRequest

import urllib3
from msgspec.structs import replace
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, SSLError
from urllib3.filepost import encode_multipart_formdata

from webchat_fsm.config import Config, Tls
from webchat_fsm.errors import ConfigError, TransportError
from webchat_fsm.runtime import clock, sockets
from webchat_fsm.runtime.sockets import Flight, Flights, TlsSocket, TooMuchError
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


def _connected(connection: HTTPConnection) -> socket.socket:
    """A socket of ours for a connection, its faults in urllib3's words."""
    try:
        return sockets.connect(connection.host.strip("[]"), connection.port, connection.socket_options or ())
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, error) from error
    except UnicodeError as error:
        raise urllib3.exceptions.LocationParseError(connection.host) from error
    except TimeoutError as error:
        raise urllib3.exceptions.ConnectTimeoutError(connection, "no connection in time") from error
    except OSError as error:
        raise urllib3.exceptions.NewConnectionError(connection, str(error)) from error


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110, 15.2); http.client itself knows 100 alone for one."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, 100 if 101 < status < 200 else status, reason


class _Plain(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _Secure(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The TLS side of a configuration; verification is on unless it says otherwise."""
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
    context.sslsocket_class = TlsSocket
    return context


class Urllib3Http:
    """Requests over urllib3: connections are kept alive, cookies where `xhrFields.withCredentials` asks for them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tls = tls_context(config.client.tls)
        self._begin()

    def _begin(self) -> None:
        self._flights = Flights()
        self._jar = CookieJar(_CookiePolicy()) if self._keeps_cookies else None
        self._jar_lock = threading.Lock()
        self._pools = self._manager()

    def after_fork(self) -> None:
        """Begin anew in a child of a fork; its parent's connections are let go of here without a word to the server."""
        self._flights.leave()
        pools = self._pools.pools
        pools.lock = threading.RLock()  # a thread that is not here may hold it
        for key in pools.keys():  # noqa: SIM118  (this container cannot be iterated)
            _leave(pools.get(key))
        self._begin()

    @property
    def _keeps_cookies(self) -> bool:
        return self._config.xhr_fields.with_credentials or self._config.comet_d.enabled

    def _manager(self) -> urllib3.PoolManager:
        client = self._config.client
        common: dict[str, Any] = {"maxsize": CONNECTIONS, "retries": False, "ssl_context": self.tls}
        if not client.tls.verify:
            common["cert_reqs"] = "CERT_NONE"
            common["assert_hostname"] = False
        if client.proxy:
            common["proxy_headers"] = _proxy_headers(client.proxy)
            common["proxy_ssl_context"] = self.tls
        manager = urllib3.ProxyManager(client.proxy, **common) if client.proxy else urllib3.PoolManager(**common)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager

    def send(self, request: Request, since: float | None = None) -> HttpAnswer:
        """Make the request; a repeatable one is made once more where a kept connection turns out to be dead.

        Its deadline counts from `since`, for one that was tried in another way before.
        """
        tries = 1 + (self._config.client.retry.stale_connection if request.repeatable else 0)
        begun = clock.monotonic() if since is None else since
        deadline = None if request.timeout is None else begun + request.timeout
        with self._flights.flying(Flight(deadline, 2 * request.max_size + OVERHEAD)) as flight:
            if not request.wanted():
                raise TransportError(f"{request.operation}: {CUT}")
            for left in range(tries - 1, -1, -1):
                flight.connected = False
                try:
                    answer = self._exchange(request, deadline)
                except (HTTPError, OSError, ValueError) as error:
                    if not flight.was_cut and left and not flight.connected and _stale(error):
                        request = replace(request, url=request.repeat_url or request.url)
                        continue
                    raise _told(error, request, flight) from _shown(error)
                if flight.was_cut:
                    raise TransportError(f"{request.operation}: {CUT}")
                return answer
        raise TransportError(f"{request.operation}: gave up")

    def _exchange(self, request: Request, deadline: float | None) -> HttpAnswer:
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["Content-Type"] = content_type
        if cookie := self.cookie(request.url):
            headers["Cookie"] = cookie
        left = None if deadline is None else max(0.001, deadline - clock.monotonic())
        response = self._pools.urlopen(
            request.method,
            request.url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=left),
            preload_content=False,
            redirect=False,
            decode_content=True,
        )
        return self._read(request, response)

    def _read(self, request: Request, response: urllib3.BaseHTTPResponse) -> HttpAnswer:
        if response.status < 200:  # nobody has asked for another protocol
            response.close()
            raise _GarbledError("the server switches to another protocol")
        body, whole = bytearray(), False
        try:
            for chunk in response.stream(sockets.CHUNK, decode_content=True):
                body += chunk
                if len(body) > request.max_size:
                    raise TooMuchError(f"more than {request.max_size} bytes")
            whole = True
        except urllib3.exceptions.ProtocolError as error:
            raise _TornError("the answer broke off") from error
        except ValueError as error:
            raise _GarbledError("a chunk is none") from error
        finally:
            if not whole:
                response.close()
            response.release_conn()
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
        for key in self._pools.pools.keys():  # noqa: SIM118  (this container cannot be iterated)
            if (pool := self._pools.pools.get(key)) is not None:
                pool.close()  # clear() alone leaves that to the garbage collector
        self._pools.clear()


class _CookiePolicy(DefaultCookiePolicy):
    """Takes no cookie that a browser would not take for its size (RFC 6265, 6.1)."""

    def set_ok(self, cookie: Cookie, request: CookieRequest) -> bool:
        size = len(cookie.name) + len(cookie.value or "")
        return size <= COOKIE_SIZE and super().set_ok(cookie, request)


def _leave(pool: HTTPConnectionPool | None) -> None:
    """Let go of the connections of a pool, whose locks a thread that is not here may hold."""
    if pool is None or pool.pool is None:
        return
    for connection in pool.pool.queue:
        if connection is not None and isinstance(connection.sock, socket.socket):
            sockets.leave(connection.sock)
    LifoQueue.__init__(pool.pool, pool.pool.maxsize)  # in its place, as it is emptied once more when the pool goes


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


def _stale(error: BaseException) -> bool:
    """Whether the connection was closed before any answer came."""
    lost = isinstance(error, urllib3.exceptions.ProtocolError | SSLError)
    return lost and any(isinstance(cause, ConnectionError | ssl.SSLEOFError) for cause in _causes(error))


def _shown(error: Exception) -> Exception | None:
    """The error as a cause; what http.client says of a bad header quotes it, secrets included."""
    return error if isinstance(error, HTTPError | OSError) else None


def _told(error: Exception, request: Request, flight: Flight) -> TransportError:
    """The error in the library's words, which never quote what was sent."""
    if flight.was_cut:
        return TransportError(f"{request.operation}: {CUT}")
    if _shown(error) is None:
        return TransportError(f"{request.operation}: an address, a header or a cookie is none that HTTP can carry")
    return TransportError(f"{request.operation}: {_fault(error, request)}")


CUT = "cut, as the service was closed"
LATE = "no complete answer within {timeout} s"
LOST = "the connection was lost before the answer was complete"
TOO_LARGE = "the answer is larger than {most} bytes"

_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (TooMuchError, TOO_LARGE),
    (_TornError, "the answer was torn off"),
    (_GarbledError, "the answer is no proper HTTP"),
    (urllib3.exceptions.NameResolutionError, "the name {host} cannot be resolved"),
    (urllib3.exceptions.NewConnectionError, "{host} refused the connection"),
    (urllib3.exceptions.NewConnectionError, "no connection to {host}"),
    (urllib3.exceptions.ConnectTimeoutError, "no connection to {host} within the time limit"),
    (urllib3.exceptions.TimeoutError, LATE),
    (TimeoutError, LATE),
    (urllib3.exceptions.ProxyError, "the proxy could not be used"),
    (SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.ProtocolError, LOST),
    (urllib3.exceptions.DecodeError, "the answer's content encoding is broken"),
)


def _fault(error: BaseException, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc.rpartition("@")[2], f"{request.timeout:g}" if request.timeout else "?"
    causes = list(_causes(error))
    telling = (TooMuchError, TimeoutError) if isinstance(error, urllib3.exceptions.ProtocolError) else TooMuchError
    shown = next((cause for cause in causes if isinstance(cause, telling)), error)
    for kind, said in _FAULTS:
        if isinstance(shown, kind):
            return said.format(host=host, timeout=timeout, most=request.max_size, error=causes[-1])
    return f"{type(error).__name__}: {causes[-1]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, outermost first."""
    inner: BaseException | None = error
    while isinstance(inner, BaseException):
        yield inner
        wrapped = next((one for one in inner.args if isinstance(one, BaseException)), None)
        inner = getattr(inner, "reason", None) or wrapped or inner.__cause__
