"""Let threads share one websocket, without a thread of its own: each waits for the answer to its own request.

`BayeuxSocket` decides and this module performs: it moves the bytes, waits and wakes. Of the threads that wait one reads
at a time, and it hands the others their answers through the matcher.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial

from webchat_fsm._bayeux.matcher import PendingRequest
from webchat_fsm._bayeux.socket import BayeuxSocket
from webchat_fsm._runtime import clock
from webchat_fsm._runtime.sockets import CHUNK, InFlight, Stream
from webchat_fsm._wire.request import LOST

UNBOUNDED = sys.maxsize
"""Bytes that one reader may receive: it reads for other threads too, and the protocol bounds message by message."""

AT_ONCE = CHUNK + 32 * 1024
"""Bytes of one read: more than a TLS stream can have decrypted, with the rest of a record that was read before.

What it kept no selector would see, and a parked request may wait for it.
"""

CONTROL_TIMEOUT = 1.0
"""Seconds within which the peer must take a pong or a close frame, though the reader's own deadline may have passed."""


class SocketClosedError(OSError):
    """The websocket closed before the answer came; its text is for the user."""


class SharedSocket:
    """Share one open websocket between threads.

    `_mutex` guards the protocol and all fields, never a wait on the network. The stream itself is guarded by two
    claims that are taken under it: `_being_read` for the one reader, `_writer` for the one writer. A thread must not
    hold the mutex while it waits on the stream, or a slow peer would stop those who only want to add a request.

    Ctrl-C may strike at each call. So a claim is given up in a `finally`, and where bytes may have been lost or a frame
    may be half sent, the socket is closed rather than left in an unknown state.
    """

    def __init__(self, stream: Stream, protocol: BayeuxSocket) -> None:
        self._stream, self._protocol = stream, protocol
        # Taken directly and not through the condition, whose `__enter__` is Python: Ctrl-C may come between the call
        # and the lock. Re-entrant, as `end` is called with the mutex held and without.
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._writer: InFlight | None = None
        self._being_read = False
        # The requests that may be using the sockets: the last one closes them, as a descriptor that is closed under a
        # waiting thread may be given to another file at once.
        self._users: set[SocketExchange] = set()

    @property
    def closed(self) -> str:
        """Return why it is closed, as a text for the user; empty while it is open."""
        return self._protocol.closed

    @property
    def loss_unreported(self) -> bool:
        """Return whether it closed while no connect waited, so that a later connect has to fail for it."""
        return self._protocol.loss_unreported

    @property
    def has_received(self) -> bool:
        """Return whether anything ever came over it."""
        return bool(self._protocol.reads)

    def begin(
        self, request: PendingRequest, body: bytes, in_flight: InFlight, deadline: float, listen: float = 0.0
    ) -> SocketExchange | None:
        """Send a request; returns its exchange, or None where the socket turns out to be closed before it was sent.

        `listen` is the seconds for which a connect waits for pushes before it is sent. Raises `SocketClosedError`,
        `TimeoutError` after the deadline (of the monotonic clock), and other `OSError`s of the stream.
        """
        exchange = SocketExchange(self, request, body, in_flight, deadline)
        begun = False
        try:
            begun = exchange.begin(listen)
        finally:
            if not begun:
                exchange.close()
        return exchange if begun else None

    def end(self, reason: str) -> None:
        """Close it, so that every request that waits fails at once."""
        with self._mutex:
            self._end(reason)

    def end_after_disconnect(self, request: PendingRequest) -> None:
        """Close it after the client's disconnect, unless another client uses it."""
        with self._mutex:
            if not self._protocol.matcher.used_beside(request.client_id):
                self._end(LOST)

    def after_fork(self) -> None:
        """Close the descriptors in a forked child, without a byte or a shutdown: the parent goes on using them."""
        self._stream.close_descriptors()

    def join(self, exchange: SocketExchange) -> bool:
        """Count an exchange among the users of the socket; False where it is closed."""
        with self._mutex:
            if not self.closed:
                self._users.add(exchange)
            return not self.closed

    def leave(self, exchange: SocketExchange) -> None:
        """Forget an exchange; the last one closes a socket that has ended."""
        with self._mutex:
            self._users.discard(exchange)  # before any call of a Python function, at whose entry a signal may come
            self._protocol.matcher.discard(exchange.request)
            self._close_unused()

    def register(self, request: PendingRequest, in_flight: InFlight, deadline: float, *, sent: bool) -> bool | None:
        """Have the answer to a request matched; returns whether it is to be sent, None where the socket is closed."""
        # Read what came while no thread waited: a close frame is seen before the request is lost to it, and pushes are
        # delivered with the connect that is about to be registered.
        while clock.monotonic() < deadline and not in_flight.was_cut and self.receive_now():
            pass
        with self._mutex:
            if self.closed:
                return None
            request.sent = sent
            to_send = self._protocol.add(request)
            self._changed.notify_all()
            return bool(to_send)

    def receive_now(self, request: PendingRequest | None = None) -> bool:
        """Take in what has come, without waiting; return whether anything has."""
        return self._read(self._stream.read_now, request)

    def fileno(self) -> int:
        """Return the descriptor that is readable once bytes have come."""
        return self._stream.fileno()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def await_answer(self, request: PendingRequest, until: float, deadline: float) -> bytes:
        """Wait for the answer; a connect that took a held one's place is answered without pushes after `until`."""
        self.wait(request, until)
        with self._mutex:  # looked at again, as another thread may have read the answer in between
            if request.answer is None and not self.closed:
                if clock.monotonic() >= deadline:
                    self._time_out(request)
                self._protocol.matcher.answer_without_pushes(request)
            if request.answer is None:
                raise SocketClosedError(self.closed)
            return request.answer

    def _time_out(self, request: PendingRequest) -> None:
        """Raise `TimeoutError`; close the socket where the peer was silent for the whole time.

        Only a meta request says so much: the gateway itself answers it, a publish waits for the chat server behind.
        """
        if request.is_meta and self._protocol.silent_since(request):
            self._end(LOST)
        raise TimeoutError

    def is_answered_unsent(self, request: PendingRequest, until: float) -> bool:
        """Wait for pushes that answer a connect before it is sent; after False it is to be sent."""
        self.wait(request, until)
        with self._mutex:  # one step: a push that comes after it finds a connect that the server is to hold
            request.sent = request.answer is None
            if request.sent and self.closed:
                raise SocketClosedError(self.closed)
            return not request.sent

    def wait(self, request: PendingRequest, until: float) -> None:
        """Read, or wait for the thread that reads, until the answer is there, the socket is closed or time is over."""
        while clock.monotonic() < until:
            with self._mutex:
                self._changed.wait_for(
                    lambda: request.answer is not None or self.closed or not self._being_read,
                    min(max(0.0, until - clock.monotonic()), clock.LONGEST),
                )
                if request.answer is not None or self.closed:
                    return
            self._read(partial(self._stream.read, InFlight(until, UNBOUNDED), AT_ONCE), request)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, read: Callable[[], bytes | None], request: PendingRequest | None = None) -> bool:
        """Receive once, unless another thread does or the request has its answer; return whether anything came."""
        with self._mutex:
            if self._being_read or self.closed:
                return False
            # Looked at again in the step that claims the stream: since `_wait` looked, another thread may have read
            # this answer, and nothing more may come before the deadline.
            if request is not None and request.answer is not None:
                return False
            self._being_read = True
        # Stands for the end of the stream: an interruption of `read` may have lost bytes, after which the start of the
        # next frame cannot be found.
        data: bytes | None = b""
        try:
            data = read()
        except TimeoutError:
            data = None  # the rest of a frame that has begun stays in the protocol for the next reader
        except OSError:
            pass
        finally:
            with self._mutex:
                self._being_read = False
                try:
                    if data is not None:
                        self._receive(data)
                except BaseException:  # Ctrl-C within the protocol: bytes were taken and not all of them used
                    self._end(LOST)
                    raise
                self._changed.notify_all()  # some wait for an answer, one of the others has to read on
        self._send_control_frames()
        self._wake_parked()
        return data is not None

    def _wake_parked(self) -> None:
        """Have each parked exchange go on whose answer this thread has read."""
        for exchange in list(self._users):
            if exchange.on_ready is not None and exchange.is_ready():
                exchange.on_ready()

    def _receive(self, data: bytes) -> None:
        if self.closed:  # by another thread meanwhile: what came is of no use
            return
        self._protocol.receive_data(data)
        if self._protocol.closed:
            self._release()

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(self, body: bytes, in_flight: InFlight, deadline: float) -> None:
        """Send a request; where the socket is closed meanwhile, waiting for the answer raises the error."""
        try:
            with self._mutex:
                left = min(max(0.0, deadline - clock.monotonic()), clock.LONGEST)
                if not self._changed.wait_for(lambda: self._writer is None or self.closed, left):
                    raise TimeoutError
                if self.closed:
                    return
                if clock.monotonic() >= deadline:
                    raise TimeoutError
                self._writer = in_flight
                self._protocol.send(body)
            self._write(in_flight)
        finally:
            self._release_writer(in_flight)
        self._send_control_frames()

    def _send_control_frames(self) -> None:
        """Send pongs and the like; where another thread is writing, that one does so afterwards."""
        while self._protocol.has_data_to_send and not self.closed:
            in_flight = InFlight(clock.monotonic() + CONTROL_TIMEOUT, UNBOUNDED)
            try:
                with self._mutex:
                    if self._writer is not None:
                        return
                    self._writer = in_flight
                self._write(in_flight)
            except OSError:
                return  # `_write` has closed the socket; the request of this thread finds out when it waits
            finally:
                self._release_writer(in_flight)

    def _write(self, in_flight: InFlight) -> None:
        with self._mutex:
            data = self._protocol.data_to_send()
        try:
            self._stream.write(data, in_flight)
        except BaseException:  # a part of a frame may be on its way, after which no other frame can be
            self.end(LOST)
            raise

    def _release_writer(self, in_flight: InFlight) -> None:
        with self._mutex:
            if self._writer is in_flight:
                self._writer = None
                self._changed.notify_all()

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if not self.closed:
            self._protocol.close(reason)
            self._release()

    def _release(self) -> None:
        """Send the close frame where that needs no waiting, wake all threads and close an unused socket."""
        if self._protocol.has_data_to_send and self._writer is None:  # never into the middle of another's frame
            self._stream.write_now(self._protocol.data_to_send())
        self._stream.shut()  # not closed: threads may be waiting on it, and this wakes them
        self._changed.notify_all()
        self._close_unused()

    def _close_unused(self) -> None:
        if self.closed and not self._users:
            self._stream.close()


class SocketExchange:
    """One request over a shared websocket: waited for by a thread of its own, or parked between two reads."""

    def __init__(
        self, socket: SharedSocket, request: PendingRequest, body: bytes, in_flight: InFlight, deadline: float
    ) -> None:
        self.request = request
        self.until = deadline
        """The moment up to which the answer is awaited, or up to which a connect only listens."""
        self.on_ready: Callable[[], None] | None = None
        self._socket, self._body, self._in_flight, self._deadline = socket, body, in_flight, deadline
        self._listens = False

    def begin(self, listen: float) -> bool:
        """Register the request and send it, unless it listens first; False where the socket is closed."""
        if not self._socket.join(self):
            return False
        to_send = self._socket.register(self.request, self._in_flight, self._deadline, sent=not listen)
        if to_send is None:
            return False
        now = clock.monotonic()
        if not to_send:
            hold = clock.LONGEST if self.request.hold is None else self.request.hold
            self.until = min(self._deadline, now + hold)
        elif listen:
            self._listens, self.until = True, now + listen
        else:
            self._socket.send(self._body, self._in_flight, self._deadline)
        return True

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def is_ready(self) -> bool:
        """Return whether the answer is there, or the socket closed."""
        return self.request.answer is not None or bool(self._socket.closed)

    def proceed(self, seconds: float) -> bool:
        """Take in what comes within so many seconds, and send the request once it has listened long enough."""
        if seconds > 0:
            self._socket.wait(self.request, min(self.until, clock.monotonic() + seconds))
        else:
            self._socket.receive_now(self.request)  # once: a peer that sends without end must not hold the worker
        if self.is_ready() or self._in_flight.was_cut:
            return True
        if clock.monotonic() < self.until:
            return False
        return self._answered_or_sent() if self._listens else True

    def finish(self) -> bytes:
        """Return the answer, which is waited for."""
        try:
            if self._listens:
                self._answered_or_sent()
            return self._socket.await_answer(self.request, self.until, self._deadline)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the socket. Idempotent."""
        self._socket.leave(self)

    def _answered_or_sent(self) -> bool:
        """End the listening: return whether pushes have answered the connect, and send it where they have not."""
        if self._socket.is_answered_unsent(self.request, self.until):
            return True
        self._listens, self.until = False, self._deadline
        self._socket.send(self._body, self._in_flight, self._deadline)
        return self.is_ready()
