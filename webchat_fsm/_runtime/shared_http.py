"""Connections that many sessions share: idle ones are kept per route, and a bound holds for those that are in use.

Requests beyond the bound wait in order. A worker of a `ThreadDriver` parks such a request, so that its waiting takes no
thread; a command waits in the thread of its caller. A websocket belongs to its session and does not count.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from webchat_fsm._config import Config
from webchat_fsm._errors import TransportError
from webchat_fsm._runtime import clock
from webchat_fsm._runtime.connections import ConnectionPool, Route
from webchat_fsm._runtime.http import HttpExchange, Urllib3Http
from webchat_fsm._runtime.tls import tls_context
from webchat_fsm._wire.request import CUT, Request

log = logging.getLogger("webchat_fsm")

SHARED_IDLE = 100
"""How many idle connections of one route are kept for all sessions of a pool."""

ADVICE = "raise max_connections of the SessionPool, over CometD to more than twice the number of its sessions"
"""What helps where connections are short: a CometD session holds one all the time, and its commands need another."""


class SharedConnections:
    """The connections of many sessions: at most `most` of one route are in use at a time, and so open."""

    def __init__(self, config: Config, most: int) -> None:
        self.idle = ConnectionPool(min(SHARED_IDLE, most), tls_context(config.client.tls))
        self.most = most
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        # Sets, and not counters: an exchange is in one of them or not, wherever a signal interrupts.
        self._in_use: dict[Route, set[SharedExchange]] = {}
        self._waiting: dict[Route, deque[SharedExchange]] = {}
        self._warned = False

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent goes on using the connections."""
        self.idle.after_fork()
        self._begin()

    @property
    def in_use(self) -> int:
        """Return how many connections are in use."""
        return sum(map(len, list(self._in_use.values())))

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a connection."""
        return sum(map(len, list(self._waiting.values())))

    def take(self, route: Route, exchange: SharedExchange) -> bool:
        """Give an exchange the permission to use a connection, or put it behind those that wait for one."""
        with self._lock:
            in_use = self._in_use.setdefault(route, set())
            if exchange in in_use:
                return True
            waiting = self._waiting.setdefault(route, deque())
            if len(in_use) < self.most and not waiting:
                in_use.add(exchange)
                return True
            if exchange not in waiting:
                waiting.append(exchange)
            first, self._warned = not self._warned, True
        if first:
            log.warning(
                "all %d connections to %s are in use, so requests wait (logged once): %s", self.most, route.host, ADVICE
            )
        return False

    def has(self, route: Route, exchange: SharedExchange) -> bool:
        """Return whether an exchange may use a connection."""
        return exchange in self._in_use.get(route, ())

    def give_back(self, route: Route, exchange: SharedExchange) -> None:
        """Take the permission back, and give it to the exchange that has waited longest. Idempotent."""
        admitted: list[SharedExchange] = []
        with self._lock:
            in_use, waiting = self._in_use.get(route, set()), self._waiting.get(route, deque())
            in_use.discard(exchange)
            if waiting and exchange in waiting:
                waiting.remove(exchange)
            while waiting and len(in_use) < self.most:
                in_use.add(waiting[0])  # before it leaves the queue, so that an interruption cannot lose it
                admitted.append(waiting.popleft())
        for one in admitted:  # without the lock, as the driver takes its own
            one.notify()


class SharedHttp(Urllib3Http):
    """Send the requests of one session over connections that it shares; `cut` reaches its own requests alone."""

    __slots__ = ("connections", "waiting")

    def __init__(self, config: Config, connections: SharedConnections) -> None:
        super().__init__(config, pool=connections.idle)
        self.connections = connections
        self.waiting: set[SharedExchange] = set()

    def exchange(self, request: Request, since: float | None = None) -> SharedExchange:
        """Return the exchange of a request, which is not sent yet; raises `TransportError` for an invalid URL."""
        return SharedExchange(self, request, clock.monotonic() if since is None else since)

    def cut(self) -> None:
        """Let the requests of this session fail at once, those that wait for a connection too."""
        for exchange in list(self.waiting):
            exchange.cut()
        super().cut()

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self.waiting = set()
        super().after_fork()


class SharedExchange(HttpExchange):
    """One request over a shared connection, for which it may have to wait before it is sent."""

    def __init__(self, http: SharedHttp, request: Request, begun: float) -> None:
        super().__init__(http, request, begun)
        self._shared, self._timeout = http, request.timeout
        self._operation, self._still_wanted = request.operation, request.wanted
        self._was_cut = self._sent = False
        try:
            self._to: Route | None = http.heads.target(request.url).route
        except ValueError:
            self._to = None  # `begin` says what is wrong with the URL

    def is_admitted(self) -> bool:
        """Ask for a connection; False where it has to be waited for."""
        if self._to is None:
            return True
        self._shared.waiting.add(self)
        # Asked once `cut` reaches it; `begin` raises for one that is not wanted any more.
        return self._was_cut or not self._still_wanted() or self._shared.connections.take(self._to, self)

    def cut(self) -> None:
        """Let it fail at once where it waits for a connection."""
        self._was_cut = True
        self.notify()

    def notify(self) -> None:
        """Wake the thread or the driver that waits with it."""
        on_ready: Callable[[], None] | None = self.on_ready
        if on_ready is not None:
            on_ready()

    def is_ready(self) -> bool:
        """Return whether it has waited long enough for a connection; once it is sent, only its socket says more."""
        return not self._sent and (self._was_cut or self._has_connection())

    def proceed(self, seconds: float) -> bool:
        """Wait for what comes next; for a connection only another thread waits, so that here is but a look."""
        if self._sent:
            return super().proceed(seconds)
        return self.is_ready() or clock.monotonic() >= self.until

    def begin(self) -> None:
        """Wait for a connection where none is free, and send the request; raises `TransportError`."""
        try:
            if not self.is_admitted():
                self._wait()
            if self._was_cut:
                raise TransportError(f"{self._operation}: {CUT}")
            self._sent, self.on_ready = True, None
            super().begin()
        except BaseException:
            self.abandon()
            raise
        finally:
            self._shared.waiting.discard(self)

    def abandon(self) -> None:
        """Give up the request, and its place among those that use a connection. Idempotent."""
        try:
            super().abandon()
        finally:
            self._shared.waiting.discard(self)
            if self._to is not None:
                self._shared.connections.give_back(self._to, self)

    def _has_connection(self) -> bool:
        return self._to is None or self._shared.connections.has(self._to, self)

    def _wait(self) -> None:
        turn = threading.Event()
        self.on_ready = turn.set
        while not self.proceed(0.0):
            turn.wait(min(max(0.0, self.until - clock.monotonic()), clock.LONGEST))
        if not self.is_ready():
            most, host = self._shared.connections.most, self._to.host if self._to is not None else ""
            raise TransportError(
                f"{self._operation}: no connection to {host} was free within {self._timeout or 0:g} s, as all {most} "
                f"are in use; {ADVICE}"
            )
