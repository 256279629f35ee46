"""How requests travel: urllib3 with retries off, one total deadline a request, and sockets that closing shuts down.

The only importer of urllib3.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import Request as CookieRequest

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, SSLError
from urllib3.filepost import encode_multipart_formdata
from urllib3.util import make_headers

from webchat_fsm.config import Config, Tls
from webchat_fsm.errors import ConfigError, TransportError
from webchat_fsm.runtime import clock
from webchat_fsm.wire.request import FilePart, HttpAnswer, Request

CHUNK = 65536
CONNECTIONS = 16
"""How many connections to one host are kept."""

OVERHEAD = 1024 * 1024
"""Bytes that headers and chunk sizes may take, beyond twice the size of the answer."""


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


class _TooMuch(OSError):
    """The peer has sent more than a request may bring."""


class _Flight:
    """One request on its way: until when, how many bytes it may still bring, and the socket on which it waits."""

    def __init__(self, deadline: float | None, allowance: int) -> None:
        self._deadline, self._allowance = deadline, allowance
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.was_cut = False
        self.reused = True

    def about_to_wait(self, sock: socket.socket) -> float | None:
        """Note the socket that is going to block; the seconds it may, None for no limit."""
        with self._lock:
            if self.was_cut:
                raise OSError("cut")
            self._sock = sock
        if self._deadline is None:
            return None
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def received(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise _TooMuch("the peer sends too much")

    def cut(self) -> None:
        with self._lock:
            self.was_cut = True
            if self._sock is not None:
                _shut(self._sock)


class _Own(threading.local):
    """The request that this thread makes."""

    flight: _Flight | None = None


_own = _Own()


class _Bounded:
    """The part of a socket that puts each of its operations under the bounds of the request that this thread makes."""

    def _bound(self: Any) -> None:
        if _own.flight is not None:
            self.settimeout(_own.flight.about_to_wait(self))

    def connect(self: Any, *given: Any) -> None:
        self._bound()
        super().connect(*given)  # type: ignore[misc]

    def recv(self: Any, *given: Any) -> bytes:
        self._bound()
        data: bytes = super().recv(*given)  # type: ignore[misc]
        if _own.flight is not None:
            _own.flight.received(len(data))
        return data

    def recv_into(self: Any, *given: Any) -> int:
        self._bound()
        size = int(super().recv_into(*given))  # type: ignore[misc]
        if _own.flight is not None:
            _own.flight.received(size)
        return size

    def send(self: Any, *given: Any) -> int:
        self._bound()
        return int(super().send(*given))  # type: ignore[misc]

    def sendall(self: Any, *given: Any) -> None:
        self._bound()
        super().sendall(*given)  # type: ignore[misc]


class _PlainSocket(_Bounded, socket.socket):
    pass


class _TlsSocket(_Bounded, ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  (the signature of the standard library)
        self._bound()
        super().do_handshake(block)


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits on a socket. A TLS socket is shut below its TLS, which that thread is using."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is not connected, or was closed meanwhile: nobody waits on it


def _connected(connection: HTTPConnection) -> socket.socket:
    """A socket of ours to the host of a connection; each of its addresses is tried in turn."""
    if _own.flight is not None:
        _own.flight.reused = False
    try:
        found = socket.getaddrinfo(connection.host.strip("[]"), connection.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, error) from error
    except UnicodeError as error:
        raise urllib3.exceptions.LocationParseError(connection.host) from error
    fault: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        sock = _PlainSocket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            sock.connect(address)
        except OSError as error:
            sock.close()
            fault = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(fault, TimeoutError):
        raise urllib3.exceptions.ConnectTimeoutError(connection, "no connection in time") from fault
    raise urllib3.exceptions.NewConnectionError(connection, str(fault)) from fault


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _Secure(HTTPSConnection):
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
    context.sslsocket_class = _TlsSocket
    return context


class Urllib3Http:
    """Requests over urllib3: connections are kept alive, cookies where `xhrFields.withCredentials` asks for them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._flights: set[_Flight] = set()
        self._jar = CookieJar(DefaultCookiePolicy()) if self._keeps_cookies else None
        self._jar_lock = threading.Lock()
        self._pools = self._manager()

    @property
    def _keeps_cookies(self) -> bool:
        return self._config.xhr_fields.with_credentials or self._config.comet_d.enabled

    def _manager(self) -> urllib3.PoolManager:
        client = self._config.client
        common: dict[str, Any] = {"maxsize": CONNECTIONS, "retries": False, "ssl_context": tls_context(client.tls)}
        if not client.tls.verify:
            common["cert_reqs"] = "CERT_NONE"
            common["assert_hostname"] = False
        if client.proxy:
            common["proxy_headers"] = _proxy_headers(client.proxy)
            common["proxy_ssl_context"] = tls_context(client.tls)
        manager = urllib3.ProxyManager(client.proxy, **common) if client.proxy else urllib3.PoolManager(**common)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; a repeatable one is made once more where a kept connection turns out to be dead."""
        tries = 1 + (self._config.client.retry.stale_connection if request.repeatable else 0)
        deadline = None if request.timeout is None else clock.monotonic() + request.timeout
        with self._flying(_Flight(deadline, 2 * request.max_size + OVERHEAD)) as flight:
            for left in range(tries - 1, -1, -1):
                flight.reused = True
                try:
                    answer = self._exchange(request, deadline)
                except (HTTPError, OSError, ValueError) as error:
                    if not flight.was_cut and left and flight.reused and _stale(error):
                        continue
                    raise _told(error, request, flight) from error
                if flight.was_cut:
                    raise TransportError(f"{request.operation}: {CUT}")
                return answer
        raise TransportError(f"{request.operation}: gave up")

    @contextmanager
    def _flying(self, flight: _Flight) -> Iterator[_Flight]:
        before, _own.flight = _own.flight, flight
        with self._lock:
            self._flights.add(flight)
        try:
            yield flight
        finally:
            with self._lock:
                self._flights.discard(flight)
            _own.flight = before

    def _exchange(self, request: Request, deadline: float | None) -> HttpAnswer:
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["Content-Type"] = content_type
        if cookie := self._cookie(request.url):
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
        body, whole = bytearray(), False
        try:
            for chunk in response.stream(CHUNK):
                body += chunk
                if len(body) > request.max_size:
                    raise _TooMuch(f"more than {request.max_size} bytes")
            whole = True
        except urllib3.exceptions.ProtocolError as error:
            raise _Torn("the answer broke off") from error
        finally:
            if not whole:
                response.close()
            response.release_conn()
        headers = {name.lower(): value for name, value in response.headers.items()}
        self._remember(request.url, response)
        return HttpAnswer(status=response.status, headers=headers, body=bytes(body))

    def _cookie(self, url: str) -> str:
        if self._jar is None:
            return ""
        asking = CookieRequest(url)  # noqa: S310  (nothing is opened: it only carries headers to the jar)
        with self._jar_lock:
            self._jar.add_cookie_header(asking)
        return asking.get_header("Cookie") or ""

    def _remember(self, url: str, response: urllib3.BaseHTTPResponse) -> None:
        if self._jar is not None:
            with self._jar_lock:
                self._jar.extract_cookies(_Answered(response), CookieRequest(url))  # type: ignore[arg-type]  # noqa: S310

    def cut(self) -> None:
        """Shut the sockets of the requests in flight, which then fail at once."""
        with self._lock:
            flights = list(self._flights)
        for flight in flights:
            flight.cut()

    def close(self) -> None:
        """Close all connections."""
        self._pools.clear()


class _Answered:
    """What a cookie jar asks of a response."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._headers = response.headers

    def info(self) -> Any:
        """The headers, as the jar calls them."""
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        """All values of a header."""
        return self._headers.getlist(name) or default


def _proxy_headers(proxy: str) -> dict[str, str]:
    """The authorisation that a proxy's URL carries."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return dict(make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}"))


class _Torn(OSError):
    """An answer that had begun broke off."""


def _stale(error: BaseException) -> bool:
    """Whether a connection was closed before any answer: on a kept one the server was tired of it."""
    return isinstance(error, urllib3.exceptions.ProtocolError) and _told_by_socket(error)


def _told_by_socket(error: urllib3.exceptions.ProtocolError) -> bool:
    return any(isinstance(cause, ConnectionError) for cause in error.args)


def _told(error: Exception, request: Request, flight: _Flight) -> TransportError:
    """The error in the library's words, which never quote what was sent."""
    if flight.was_cut:
        return TransportError(f"{request.operation}: {CUT}")
    if isinstance(error, ValueError) and not isinstance(error, HTTPError | OSError):
        return TransportError(f"{request.operation}: an address, a header or a cookie is none that HTTP can carry")
    return TransportError(f"{request.operation}: {_fault(error, request)}")


CUT = "cut, as the service was closed"

_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (_TooMuch, "the answer is larger than {most} bytes"),
    (_Torn, "the answer was torn off"),
    (urllib3.exceptions.NameResolutionError, "the name {host} cannot be resolved"),
    (urllib3.exceptions.ConnectTimeoutError, "no connection to {host} within the time limit"),
    (urllib3.exceptions.TimeoutError, "no complete answer within {timeout} s"),
    (TimeoutError, "no complete answer within {timeout} s"),
    (urllib3.exceptions.ProxyError, "the proxy could not be used"),
    (SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.NewConnectionError, "{host} refused the connection"),
    (urllib3.exceptions.ProtocolError, "the connection was lost before the answer was complete"),
    (urllib3.exceptions.DecodeError, "the answer's content encoding is broken"),
)


def _fault(error: BaseException, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc.rpartition("@")[2], f"{request.timeout:g}" if request.timeout else "?"
    causes = list(_causes(error))
    for kind, said in _FAULTS:
        for cause in causes[:1] if kind is not _TooMuch else causes:
            if isinstance(cause, kind):
                return said.format(host=host, timeout=timeout, most=request.max_size, error=causes[-1])
    return f"{type(error).__name__}: {causes[-1]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, outermost first."""
    inner: BaseException | None = error
    while isinstance(inner, BaseException):
        yield inner
        wrapped = next((one for one in inner.args if isinstance(one, BaseException)), None)
        inner = getattr(inner, "reason", None) or wrapped or inner.__cause__
