"""How requests travel: urllib3 with retries off, one total deadline a request, and sockets that closing shuts down.

The only importer of urllib3.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import Request as CookieRequest

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, SSLError
from urllib3.filepost import encode_multipart_formdata

from webchat_fsm.config import Config, Tls
from webchat_fsm.errors import ConfigError, TransportError
from webchat_fsm.runtime import clock
from webchat_fsm.wire.request import FilePart, HttpAnswer, Request

CHUNK = 65536


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


class _Deadline:
    """The part of a socket that bounds all its operations together by one moment."""

    deadline: float | None = None

    def _bound(self: Any) -> None:
        if self.deadline is not None:
            left = self.deadline - clock.monotonic()
            if left <= 0:
                raise TimeoutError("the deadline has passed")
            self.settimeout(left)

    def recv_into(self: Any, *given: Any) -> int:
        self._bound()
        return int(super().recv_into(*given))  # type: ignore[misc]

    def sendall(self: Any, *given: Any) -> None:
        self._bound()
        super().sendall(*given)  # type: ignore[misc]


class _PlainSocket(_Deadline, socket.socket):
    pass


class _TlsSocket(_Deadline, ssl.SSLSocket):
    pass


class _Sockets:
    """The connections of one `Urllib3Http`, and the deadline of the request that this thread makes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[HTTPConnection] = set()
        self._cuts = 0
        self.own = threading.local()

    def begin(self, deadline: float | None) -> int:
        self.own.deadline = deadline
        with self._lock:
            return self._cuts

    def adopt(self, connection: HTTPConnection) -> None:
        """Note that a connection carries a request of this thread, under this thread's deadline."""
        with self._lock:
            self._busy.add(connection)
        if isinstance(connection.sock, _Deadline):
            connection.sock.deadline = self.own.deadline

    def free(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)

    def was_cut(self, since: int) -> bool:
        with self._lock:
            return self._cuts != since

    def cut(self) -> None:
        with self._lock:
            self._cuts += 1
            busy = list(self._busy)
        for connection in busy:
            _shut(connection.sock)


def _shut(sock: socket.socket | None) -> None:
    if sock is None:
        return
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed meanwhile, which is all that was wanted


def _connection_classes(sockets: _Sockets) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    def bounded(sock: socket.socket) -> socket.socket:
        timeout = sock.gettimeout()
        plain = _PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        plain.settimeout(timeout)
        plain.deadline = sockets.own.deadline
        return plain

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            sockets.adopt(self)
            return bounded(super()._new_conn())

        def request(self, *given: Any, **named: Any) -> None:
            sockets.adopt(self)
            super().request(*given, **named)

        def close(self) -> None:
            sockets.free(self)
            super().close()

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            sockets.adopt(self)
            return bounded(super()._new_conn())

        def request(self, *given: Any, **named: Any) -> None:
            sockets.adopt(self)
            super().request(*given, **named)

        def close(self) -> None:
            sockets.free(self)
            super().close()

    return Plain, Secure


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
        self._sockets = _Sockets()
        self._jar = CookieJar(DefaultCookiePolicy()) if self._keeps_cookies else None
        self._jar_lock = threading.Lock()
        self._pools = self._manager()

    @property
    def _keeps_cookies(self) -> bool:
        return self._config.xhr_fields.with_credentials or self._config.comet_d.enabled

    def _manager(self) -> urllib3.PoolManager:
        client = self._config.client
        plain, secure = _connection_classes(self._sockets)

        class Pool(HTTPConnectionPool):
            ConnectionCls = plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = secure

        common: dict[str, Any] = {"maxsize": 4, "retries": False, "ssl_context": tls_context(client.tls)}
        if not client.tls.verify:
            common["cert_reqs"] = "CERT_NONE"
            common["assert_hostname"] = False
        manager = urllib3.ProxyManager(client.proxy, **common) if client.proxy else urllib3.PoolManager(**common)
        manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        return manager

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; a repeatable one is made once more where a kept connection turns out to be dead."""
        tries = 1 + (self._config.client.retry.stale_connection if request.repeatable else 0)
        deadline = None if request.timeout is None else clock.monotonic() + request.timeout
        since = self._sockets.begin(deadline)
        for left in range(tries - 1, -1, -1):
            try:
                return self._exchange(request, deadline)
            except (HTTPError, OSError) as error:
                if self._sockets.was_cut(since):
                    raise TransportError(f"{request.operation}: cut, as the service was closed") from error
                if not (left and _stale(error)):
                    raise TransportError(f"{request.operation}: {_fault(error, request)}") from error
        raise TransportError(f"{request.operation}: gave up")

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
        connection = response.connection
        body, whole = bytearray(), False
        try:
            for chunk in response.stream(CHUNK):
                body += chunk
                if len(body) > request.max_size:
                    raise TransportError(f"{request.operation}: the answer is larger than {request.max_size} bytes")
            whole = True
        finally:
            if not whole:
                response.close()
            response.release_conn()
            if isinstance(connection, HTTPConnection):
                self._sockets.free(connection)
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
        self._sockets.cut()

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


def _stale(error: BaseException) -> bool:
    """Whether a kept connection was closed by the server as the request was sent."""
    return isinstance(error, urllib3.exceptions.ProtocolError) and "without response" in str(error)


_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.NameResolutionError, "the name {host} cannot be resolved"),
    (urllib3.exceptions.ConnectTimeoutError, "no connection to {host} within the time limit"),
    (urllib3.exceptions.TimeoutError, "no complete answer within {timeout} s"),
    (TimeoutError, "no complete answer within {timeout} s"),
    (urllib3.exceptions.ProxyError, "the proxy could not be used"),
    (SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.NewConnectionError, "{host} refused the connection"),
    (urllib3.exceptions.IncompleteRead, "the answer was torn off"),
    (urllib3.exceptions.ProtocolError, "the connection was lost before the answer was complete"),
    (urllib3.exceptions.DecodeError, "the answer's content encoding is broken"),
)


def _fault(error: BaseException, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc, f"{request.timeout:g}" if request.timeout else "?"
    for kind, said in _FAULTS:
        if isinstance(error, kind):
            return said.format(host=host, timeout=timeout, error=_innermost(error))
    return f"{type(error).__name__}: {_innermost(error)}"


def _innermost(error: BaseException) -> str:
    reason: Callable[[BaseException], BaseException | None] = lambda e: getattr(e, "reason", None) or e.__cause__  # noqa: E731
    while isinstance(inner := reason(error), BaseException):
        error = inner
    return str(error)
