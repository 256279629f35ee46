"""Carry CometD over a websocket, and over long polling where none can be had."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import urlsplit

from webchat_fsm._bayeux.matcher import DISCONNECT, HANDSHAKE, PendingRequest
from webchat_fsm._bayeux.socket import BayeuxSocket, Carrier, CarrierEvent, UpgradeError, after
from webchat_fsm._config import Config
from webchat_fsm._errors import TransportError
from webchat_fsm._runtime import clock
from webchat_fsm._runtime.answers import without_secrets
from webchat_fsm._runtime.http import Exchange, HttpExchange, Urllib3Http
from webchat_fsm._runtime.shared_socket import UNBOUNDED, SharedSocket, SocketClosedError, SocketExchange
from webchat_fsm._runtime.sockets import AllInFlight, InFlight
from webchat_fsm._runtime.tls import connect_url
from webchat_fsm._wire.cometd import FILE_OPERATIONS
from webchat_fsm._wire.request import BROKEN, CUT, LATE, LOST, HttpAnswer, Request

log = logging.getLogger("webchat_fsm")

SOCKETS_PER_REQUEST = 2
"""Websockets tried for one request: the open one, which may have closed unnoticed, and a new one."""


class WebsocketHttp:
    """Send Bayeux messages over one websocket, and everything else over another `Http`.

    Where no websocket can be had, the same call sends the message by long polling; `Carrier` decides for how long.
    """

    def __init__(self, config: Config, plain: Urllib3Http) -> None:
        self._url = config.comet_d.comet_url.rstrip("/")
        self._limit = config.client.max_answer_size
        self.plain = plain
        # Changed without a lock, by one assignment. Two threads that change it at once may lose one of the two events,
        # which costs one more attempt to open a websocket and nothing else.
        self._carrier = Carrier.WEBSOCKET
        self._begin()

    def _begin(self) -> None:
        self.all_in_flight = AllInFlight()
        # One thread opens the websocket while the others wait for it. Re-entrant, for the `release` in `_socket_for`.
        self._opening = threading.RLock()
        self._socket: SharedSocket | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child, without a byte over the websocket, which is the parent's."""
        self.all_in_flight.close_descriptors()
        if self._socket is not None:
            self._socket.after_fork()
        self.note(CarrierEvent.LOSS_REPORTED)  # the parent's loss is no loss of the child's
        self._begin()
        self.plain.after_fork()

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where no complete answer comes."""
        exchange = self.exchange(request)
        exchange.begin()
        return exchange.finish()

    def exchange(self, request: Request) -> Exchange:
        """Return the exchange of a request, which is not sent yet."""
        return (
            self.plain.exchange(request) if request.operation in FILE_OPERATIONS else WebsocketExchange(self, request)
        )

    def cut(self) -> None:
        """Let every request in flight fail at once; later ones may be sent."""
        # The socket first, so that all its requests fail for the same reason, and again for one opened meanwhile.
        self._end_socket()
        self.all_in_flight.cut()
        self._end_socket()
        self.plain.cut()

    def close(self) -> None:
        """Close all connections."""
        self._end_socket()
        self.plain.close()

    def _end_socket(self) -> None:
        if (socket := self._socket) is not None:
            socket.end(CUT)

    def note(self, event: CarrierEvent) -> None:
        self._carrier = after(self._carrier, event)

    @property
    def connects_to(self) -> str:
        """Return the host and port to which the next message may open a websocket; empty for none."""
        opens = self._carrier.tries_websocket and (self._socket is None or bool(self._socket.closed))
        return urlsplit(self._url).netloc if opens else ""

    def note_failure(self, pending: PendingRequest, in_flight: InFlight) -> None:
        """Note that a handshake failed on a websocket over which nothing ever came."""
        unheard = self._socket is not None and not self._socket.has_received
        if unheard and not in_flight.was_cut and pending.channel == HANDSHAKE:
            self.note(CarrierEvent.HANDSHAKE_UNANSWERED)

    def socket_for(
        self, request: Request, pending: PendingRequest, in_flight: InFlight, deadline: float
    ) -> SharedSocket | None:
        """Return the open websocket, or a new one; None where long polling is to be used.

        Raises `SocketClosedError` for a connect that has to report the loss of the former one.
        """
        try:  # around the acquiring too: a signal may come between a call and the statement after it
            if not self._opening.acquire(timeout=max(0.0, deadline - clock.monotonic())):
                raise TimeoutError
            if in_flight.was_cut:
                raise SocketClosedError(CUT)
            self._choose(pending)
            if not self._carrier.tries_websocket:
                return None
            return self._socket or self._open(request, in_flight, deadline)
        finally:
            try:  # noqa: SIM105  (`suppress` is a function in Python, at whose entry a signal may come)
                self._opening.release()
            except RuntimeError:
                pass  # it was not acquired

    def _choose(self, pending: PendingRequest) -> None:
        """Note what a request and a closed websocket change about the carrier."""
        if self._socket is not None and self._socket.closed:
            if self._socket.loss_unreported:
                self.note(CarrierEvent.LOSS)
            self._socket = None
        if pending.channel == HANDSHAKE:
            self.note(CarrierEvent.HANDSHAKE)
        if pending.is_connect and self._carrier is Carrier.LOSS_UNREPORTED:
            self.note(CarrierEvent.LOSS_REPORTED)
            raise SocketClosedError(LOST)

    def _open(self, request: Request, in_flight: InFlight, deadline: float) -> SharedSocket | None:
        """Open a websocket within half of the time that is left, so that long polling has the other half."""
        request.repeated()  # the upgrade is a request of its own
        now = clock.monotonic()
        half = InFlight(now + (deadline - now) / 2, UNBOUNDED)
        try:
            self.all_in_flight.append(half)
            self._socket = self._upgraded(request, half)
        except (OSError, ValueError, UpgradeError) as error:
            if in_flight.was_cut:
                raise SocketClosedError(CUT) from error
            if isinstance(error, UpgradeError) and error.permanent:
                self.note(CarrierEvent.UPGRADE_REFUSED)
            # Only the class of a `ValueError`: its text may quote a header with credentials.
            why = type(error).__name__ if isinstance(error, ValueError) else error
            lasting = "from now on" if self._carrier is Carrier.NO_WEBSOCKET else "instead"
            log.info("no websocket (%s): long polling %s", why, lasting)
            return None
        finally:
            if half in self.all_in_flight:
                self.all_in_flight.remove(half)
        if in_flight.was_cut:  # `cut` came between the last look at the socket and its assignment here
            self._socket.end(CUT)
        return self._socket

    def _upgraded(self, request: Request, in_flight: InFlight) -> SharedSocket:
        cookies = self.plain.cookies
        cookie = "" if cookies is None else cookies.header(self._url)
        headers = {**request.headers, **({"Cookie": cookie} if cookie else {})}
        protocol = BayeuxSocket(self._url, headers, self._limit)
        stream = connect_url(self._url, self.plain.tls, in_flight)
        try:
            stream.write(protocol.data_to_send(), in_flight)
            while not protocol.is_open:
                protocol.receive_upgrade(stream.read(in_flight))
            stream.split()
        except BaseException:
            stream.close()
            raise
        if cookies is not None:
            cookies.remember(self._url, protocol.cookies)
        return SharedSocket(stream, protocol)


class WebsocketExchange:
    """One Bayeux message over the websocket, or over long polling where none can be had."""

    def __init__(self, http: WebsocketHttp, request: Request) -> None:
        self._http, self._request = http, request
        self._begun = clock.monotonic()
        self._deadline = self._begun + (clock.LONGEST if request.timeout is None else request.timeout)
        self._pending, self._in_flight = PendingRequest(request.body), InFlight(self._deadline, UNBOUNDED)
        self._by_socket: SocketExchange | None = None
        self._by_polling: HttpExchange | None = None

    @property
    def _current(self) -> SocketExchange | HttpExchange:
        current = self._by_socket or self._by_polling
        if current is None:
            raise RuntimeError("the exchange has not begun")
        return current

    @property
    def until(self) -> float:
        """Return the moment at which to go on at the latest."""
        return self._current.until

    @property
    def on_ready(self) -> Callable[[], None] | None:
        """Return the function that another thread calls which has read the answer."""
        return self._current.on_ready

    @on_ready.setter
    def on_ready(self, function: Callable[[], None] | None) -> None:
        self._current.on_ready = function

    @property
    def connects_to(self) -> str:
        """Return where `begin` may open a websocket, which may block for long."""
        return self._http.connects_to

    def is_admitted(self) -> bool:
        """Return True: a websocket belongs to its session, and long polling asks for itself in `begin`."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that brings the answer."""
        return self._current.fileno()

    def is_ready(self) -> bool:
        """Return whether another thread has read the answer."""
        return self._current.is_ready()

    def proceed(self, seconds: float) -> bool:
        """Take in what comes within so many seconds; True where the answer is there, or will not come."""
        if self._by_socket is None:
            return self._current.proceed(seconds)
        try:
            return self._by_socket.proceed(seconds)
        except Exception as error:
            self._fail(error)

    def begin(self) -> None:
        """Send the message; raises `TransportError`."""
        try:
            self._http.all_in_flight.append(self._in_flight)
            if not self._request.wanted():  # asked once `cut` reaches it, so that none slips between the two
                raise SocketClosedError(CUT)
            self._by_socket = self._sent()
        except Exception as error:  # of `websockets`, ssl, gevent's sockets: of any kind
            self._fail(error)
        except BaseException:
            self.abandon()
            raise
        if self._by_socket is None:
            self.abandon()
            self._by_polling = self._http.plain.exchange(self._request, self._begun)
            self._by_polling.begin()

    def finish(self) -> HttpAnswer:
        """Return the answer; raises `TransportError` where no complete one comes."""
        if self._by_socket is None:
            answer = self._current.finish()
            assert isinstance(answer, HttpAnswer)
            if answer.status == 200:
                self._http.note(CarrierEvent.LONG_POLLING_ANSWERED)
            return answer
        try:
            body = self._by_socket.finish()
            if self._pending.channel == DISCONNECT:
                self._socket.end_after_disconnect(self._pending)
        except Exception as error:  # as in `begin`
            self._fail(error)
        finally:
            self.abandon()
        return HttpAnswer(status=200, body=body, line=self._pending.line)

    def abandon(self) -> None:
        """Leave the socket; the request can be cut no more."""
        try:
            if self._by_socket is not None:
                self._by_socket.close()
            if self._by_polling is not None:
                self._by_polling.abandon()
        finally:
            if self._in_flight in self._http.all_in_flight:
                self._http.all_in_flight.remove(self._in_flight)

    def _sent(self) -> SocketExchange | None:
        """Send it over a websocket; None where long polling is to bring the answer."""
        for _ in range(SOCKETS_PER_REQUEST):
            socket = self._http.socket_for(self._request, self._pending, self._in_flight, self._deadline)
            if socket is None:
                return None
            self._socket = socket
            begun = socket.begin(
                self._pending, self._request.body, self._in_flight, self._deadline, self._request.listen
            )
            if begun is not None:
                return begun
        log.info("no websocket (each one closed before anything was sent over it): long polling instead")
        return None

    def _fail(self, error: Exception) -> NoReturn:
        self._http.note_failure(self._pending, self._in_flight)
        self.abandon()
        text = f"{self._request.operation}: {_reason(error, self._request, self._in_flight)}"
        raise TransportError(text) from without_secrets(error)


def _reason(error: Exception, request: Request, in_flight: InFlight) -> str:
    """Map an error to a text for the user, without anything of the request in it."""
    if in_flight.was_cut:
        return CUT
    if isinstance(error, TimeoutError):
        return LATE.format(timeout=f"{request.timeout or 0:g}")
    if isinstance(error, SocketClosedError):
        return str(error)
    return LOST if isinstance(error, OSError) else BROKEN.format(kind=type(error).__name__)
