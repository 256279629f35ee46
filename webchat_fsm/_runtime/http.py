"""Send requests over HTTP: one total deadline, no redirects, a retry only where a kept connection was stale."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace
from urllib3.util import parse_url

from webchat_fsm._config import Config
from webchat_fsm._errors import TransportError, missing_extra
from webchat_fsm._runtime import clock
from webchat_fsm._runtime.answers import is_stale, transport_error, without_secrets
from webchat_fsm._runtime.connections import Connection, ConnectionPool, RequestHeads
from webchat_fsm._runtime.sockets import AllInFlight, InFlight
from webchat_fsm._runtime.tls import tls_source
from webchat_fsm._wire.request import CUT, HttpAnswer, Request, encoded

if TYPE_CHECKING:
    from webchat_fsm._runtime.cookies import CookieStore

log = logging.getLogger("webchat_fsm")

OVERHEAD = 1024 * 1024
"""Bytes that headers and chunk sizes may take, beyond twice the size of the answer."""


@runtime_checkable
class Http(Protocol):
    """Carry requests. Replaced, for instance, by the embedded server without sockets."""

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where no complete answer comes."""
        ...

    def cut(self) -> None:
        """Let every request in flight fail at once; later ones may be sent."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Waiting(Protocol):
    """Something that a thread may wait for, or leave to a driver.

    A driver calls `proceed` when the socket of `fileno` is ready, and at the moment `until`, as long as that returns
    False.
    """

    @property
    def until(self) -> float:
        """Return the moment of the monotonic clock at which to go on at the latest."""
        ...

    @property
    def on_ready(self) -> Callable[[], None] | None:
        """Return what another thread calls that has brought what is waited for; the driver sets it."""
        ...

    @on_ready.setter
    def on_ready(self, function: Callable[[], None] | None) -> None: ...

    def fileno(self) -> int:
        """Return the descriptor of the socket that brings it, -1 without one."""
        ...

    def is_ready(self) -> bool:
        """Return whether another thread has brought it."""
        ...

    def proceed(self, seconds: float) -> bool:
        """Take in what comes within so many seconds; True where the wait is over."""
        ...


class Exchange(Waiting, Protocol):
    """One request on its way: `begin` sends it, then its answer may be waited for, and `finish` returns it."""

    @property
    def connects_to(self) -> str:
        """Return the host and port to which `begin` opens a connection, which may block for long; empty for none."""
        ...

    def is_admitted(self) -> bool:
        """Ask to be sent; False where too many others are under way, and `begin` would have to wait for them."""
        ...

    def begin(self) -> None:
        """Send the request; raises `TransportError`."""
        ...

    def finish(self) -> HttpAnswer:
        """Return the answer, which is waited for; raises `TransportError` where no complete one comes."""
        ...

    def abandon(self) -> None:
        """Give up the request, and its connection with it. Idempotent; to be called where `finish` is not."""
        ...


@runtime_checkable
class SplitHttp(Protocol):
    """An `Http` whose requests can be waited for without a thread."""

    def exchange(self, request: Request) -> Exchange:
        """Return the exchange of a request, which is not sent yet."""
        ...


class Urllib3Http:
    """Send requests over urllib3's connections, kept alive; cookies where `xhrFields.withCredentials` asks for them.

    `pool` is one that several share, with its TLS settings: its maker closes it. Requests and cookies are its own.
    """

    __slots__ = ("_shares_pool", "all_in_flight", "config", "cookies", "heads", "pool", "proxy_headers", "tls")

    def __init__(self, config: Config, *, pool: ConnectionPool | None = None) -> None:
        self.config = config
        self.tls = tls_source(config.client.tls, shared=None if pool is None else pool.tls)
        self.heads = RequestHeads(parse_url(config.client.proxy) if config.client.proxy else None)
        self.proxy_headers = _proxy_headers(config.client.proxy)
        self._shares_pool = pool is not None
        self.pool = ConnectionPool() if pool is None else pool
        self._begin()

    def _begin(self) -> None:
        self.all_in_flight: AllInFlight = AllInFlight()
        self.cookies: CookieStore | None = self._new_cookies()

    def _new_cookies(self) -> CookieStore | None:
        """Return an empty store of cookies, None where none are kept."""
        # A CometD gateway identifies its client by a cookie, so there they are kept in any case.
        if not (self.config.xhr_fields.with_credentials or self.config.comet_d.enabled):
            return None
        # Here, as most chats keep none, and need not import the standard library's jar and what that imports.
        from webchat_fsm._runtime.cookies import CookieStore

        return CookieStore()

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent goes on using its connections."""
        self.all_in_flight.close_descriptors()
        if not self._shares_pool:
            self.pool.after_fork()
        self._begin()

    def send(self, request: Request, since: float | None = None) -> HttpAnswer:
        """Make the request; raises `TransportError`, with its cause, for every failure below.

        Its deadline counts from `since`, a moment of the monotonic clock, where it was tried by another carrier before.
        """
        exchange = self.exchange(request, since)
        exchange.begin()
        return exchange.finish()

    def exchange(self, request: Request, since: float | None = None) -> HttpExchange:
        """Return the exchange of a request, which is not sent yet; raises `TransportError` for an invalid URL."""
        return HttpExchange(self, request, clock.monotonic() if since is None else since)

    def cut(self) -> None:
        """Shut the sockets of the requests in flight, which then fail at once."""
        self.all_in_flight.cut()

    def close(self) -> None:
        """Close all connections, unless others share them; later requests open new ones."""
        if not self._shares_pool:
            pool, self.pool = self.pool, ConnectionPool()
            pool.close()


class HttpExchange:
    """One request over HTTP; it is repeated over a new connection where a kept one turns out to be stale."""

    on_ready: Callable[[], None] | None = None
    """Is never called: only this request reads its connection."""

    def __init__(self, http: Urllib3Http, request: Request, begun: float) -> None:
        self._http, self._request = http, request
        deadline = None if request.timeout is None else begun + request.timeout
        self.until = clock.LONGEST if deadline is None else deadline
        # A bound for the raw bytes, which `_read` cannot see: interim answers, headers and trailers without end. Twice
        # the size, as the heads of small chunks may cost as much as the body.
        self._in_flight = InFlight(deadline, 2 * request.max_size + OVERHEAD)
        self._retries = http.config.client.retry.stale_connection if request.repeatable else 0
        self._connection: Connection | None = None
        self._pool = http.pool

    @property
    def connects_to(self) -> str:
        """Return where a connection is opened; empty where an idle one is there for it."""
        try:
            route = self._http.heads.target(self._request.url).route
        except ValueError:
            return ""  # `begin` says what is wrong with the URL
        return "" if self._http.pool.holds(route) else f"{route.host}:{route.port}"

    def is_admitted(self) -> bool:
        """Return True: the requests of one session need no bound."""
        return True

    def begin(self) -> None:
        """Send the request; raises `TransportError`."""
        try:
            self._http.all_in_flight.append(self._in_flight)
            if not self._request.wanted():  # asked once `cut` reaches it, so that none slips between the two
                raise TransportError(f"{self._request.operation}: {CUT}")
            self._send()
        except BaseException:
            self.abandon()
            raise

    def fileno(self) -> int:
        """Return the descriptor of its connection."""
        return -1 if self._connection is None else self._connection.stream.fileno()

    def is_ready(self) -> bool:
        """Return False: only this request reads its connection."""
        return False

    def proceed(self, seconds: float) -> bool:
        """Read what comes of the answer within so many seconds; True where `finish` has something to do."""
        if self._connection is None or self._in_flight.was_cut or clock.monotonic() >= self.until:
            return True
        return self._connection.has_answer(seconds, self._in_flight)

    def finish(self) -> HttpAnswer:
        """Return the answer; raises `TransportError` where no complete one comes."""
        try:
            while (answer := self._received()) is None:
                self._send()
        finally:
            self.abandon()
        if self._in_flight.was_cut:  # an answer without a length ends with the connection, so half of it looks whole
            raise TransportError(f"{self._request.operation}: {CUT}")
        return answer

    def abandon(self) -> None:
        """Close the connection, unless it has been given back; the request can be cut no more."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.discard()
        finally:
            if self._in_flight in self._http.all_in_flight:
                self._http.all_in_flight.remove(self._in_flight)

    def _send(self) -> None:
        """Send the request, over another connection as often as a kept one is stale."""
        while True:
            self._in_flight.connected = False
            try:
                self._send_once()
                return
            except TransportError:
                raise
            except Exception as error:  # of http.client, urllib3, ssl, gevent's sockets: of any kind
                self._allow_repeat(error)

    def _allow_repeat(self, error: Exception) -> None:
        """Close the connection; raise `TransportError` unless it was a stale one and the request may be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()
        in_flight, request = self._in_flight, self._request
        # Over a new connection the server may have read the request, so only a kept one counts as stale.
        if self._retries <= 0 or not is_stale(error) or in_flight.was_cut or in_flight.connected:
            raise transport_error(error, request, in_flight) from without_secrets(error)
        self._retries -= 1
        request.repeated()
        if request.repeat_url is not None:
            self._request = replace(request, url=request.repeat_url())

    def _send_once(self) -> None:
        http, request = self._http, self._request
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["Content-Type"] = content_type
        if http.cookies is not None and (cookie := http.cookies.header(request.url)):
            headers["Cookie"] = cookie
        target = http.heads.target(request.url)
        if target.forwarded:
            headers.update(http.proxy_headers)
        head = http.heads.head(target, request.method, headers, body)
        self._route = target.route
        self._pool = http.pool  # the one of this moment: `close` replaces it, and this request is closed with the old
        self._connection = self._pool.take(self._route) or Connection(self._route, http.tls, http.proxy_headers)
        self._connection.send_request(head, body, self._in_flight)

    def _received(self) -> HttpAnswer | None:
        """Return the answer; None where a kept connection was stale and the request is to be sent again."""
        assert self._connection is not None  # `begin` has opened it, or `_send` did so again
        request = self._request
        try:
            received = self._connection.read_answer(request.method, request.max_size, self._in_flight)
            if received.cookies and self._http.cookies is not None:
                self._http.cookies.remember(request.url, received.cookies)
        except Exception as error:  # as in `_send`
            self._allow_repeat(error)
            return None
        if received.reusable and not self._in_flight.was_cut:
            connection, self._connection = self._connection, None
            self._pool.put(self._route, connection)
        return received.answer


def _proxy_headers(proxy: str) -> dict[str, str]:
    """Return the authorisation that a proxy's URL carries."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def http_for(config: Config, plain: Urllib3Http | None = None) -> Http:
    """Return the `Http` that a configuration asks for; log why where a websocket is asked for and not possible.

    `plain` carries what goes without a websocket, by default over connections of its own.
    """
    plain = plain or Urllib3Http(config)
    if not (config.comet_d.enabled and config.comet_d.websocket_enabled):
        return plain
    if config.client.proxy:
        log.warning("cometD.websocketEnabled has no effect with client.proxy: long polling instead")
        return plain
    try:
        from webchat_fsm._runtime.websocket import WebsocketHttp
    except ImportError:
        log.warning("%s; using long polling", missing_extra("cometD.websocketEnabled", "websocket", "websockets"))
        return plain
    return WebsocketHttp(config, plain)
