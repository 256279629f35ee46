"""Sockets under the bounds of a request: one total deadline, a limit for what may come, and a cut that wakes them.

A timeout of Python's sockets bounds one operation; a server that sends a byte now and then would keep a request alive
for ever. These sockets ask the request that their thread makes before each operation.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from webchat_fsm.runtime import clock

CHUNK = 65536
"""Bytes that are taken in at a time."""

PROMPT = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Options of a socket whose small writes are to leave at once."""


class TooMuchError(OSError):
    """The peer has sent more than the request may bring."""


class Flight:
    """One request on its way: until when, how many bytes it may still bring, and the socket on which it waits.

    `connected` tells whether a new connection was begun for it, instead of one that was kept.
    """

    def __init__(self, deadline: float | None, allowance: int) -> None:
        self._deadline, self._allowance = deadline, allowance
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.was_cut = False
        self.connected = False

    def about_to_wait(self, sock: socket.socket) -> float | None:
        """Note the socket that is going to block; gives the seconds that it may, None for no limit."""
        with self._lock:
            if self.was_cut:
                raise OSError("the request was cut")
            self._sock = sock
        if self._deadline is None:
            return None
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def received(self, size: int) -> None:
        """Count what has come."""
        self._allowance -= size
        if self._allowance < 0:
            raise TooMuchError("the peer sends too much")

    def cut(self) -> None:
        """Let the request fail at once, wherever it waits."""
        with self._lock:
            self.was_cut = True
            if self._sock is not None:
                _shut(self._sock)

    def leave(self) -> None:
        """Let go of the socket, in a child of a fork, where only the parent may use it."""
        if self._sock is not None:
            leave(self._sock)

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """Put what this thread does with its sockets under the bounds of this request."""
        before, _own.flight = _own.flight, self
        try:
            yield
        finally:
            _own.flight = before


class Flights:
    """The requests of one service that are on their way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: set[Flight] = set()

    @contextmanager
    def flying(self, flight: Flight) -> Iterator[Flight]:
        """Let a request of this thread be cut, and be under its bounds, as long as it lasts."""
        with self._lock:
            self._flights.add(flight)
        try:
            with flight.bounding():
                yield flight
        finally:
            with self._lock:
                self._flights.discard(flight)

    def cut(self) -> None:
        """Let all of them fail at once."""
        with self._lock:
            flights = list(self._flights)
        for flight in flights:
            flight.cut()

    def leave(self) -> None:
        """Let go of all their sockets, in a child of a fork, where the lock may be held by a thread that is not."""
        for flight in self._flights:
            flight.leave()


class _Own(threading.local):
    flight: Flight | None = None


_own = _Own()


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits on a socket. A TLS socket is shut below its TLS, which that thread is using."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is not connected, or was closed meanwhile: nobody waits on it


def leave(sock: socket.socket) -> None:
    """Close a socket in this process alone: its peer, and other processes that have it too, notice nothing."""
    if (descriptor := sock.detach()) >= 0:
        os.close(descriptor)


class _Bounded:
    """The part of a socket that asks the request first; a mixin before a class of sockets."""

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


class PlainSocket(_Bounded, socket.socket):
    """A TCP socket under the bounds of its thread's request."""

    def recv_now(self) -> bytes | None:
        """What has come already, None where nothing has; it never waits."""
        self.settimeout(0.0)
        try:
            return socket.socket.recv(self, CHUNK)
        except BlockingIOError:
            return None

    def send_now(self, data: bytes) -> None:
        """Send as much as goes without waiting, and nothing where the peer is gone."""
        self.settimeout(0.0)
        with suppress(OSError):
            socket.socket.send(self, data)


class TlsSocket(_Bounded, ssl.SSLSocket):
    """A TLS socket under the bounds of its thread's request, its handshake too."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        self._bound()
        super().do_handshake(block)


def connect(host: str, port: int, options: Iterable[tuple[int, int, int | bytes]]) -> PlainSocket:
    """A connected socket; each address of the host is tried in turn. Raises `OSError`, the last address's.

    The system's resolver knows no time limit, so a name that it looks up for long is waited for.
    """
    if _own.flight is not None:
        _own.flight.connected = True
    fault: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = PlainSocket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            fault = error
        else:
            return sock
    raise fault


class _Seal:
    """TLS in memory: sealed bytes in, plain ones out, and the other way round.

    OpenSSL bears no two threads in one connection, so a lock lets one after the other in; neither waits in there.
    """

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._lock = threading.Lock()
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._leaves, server_hostname=host)

    def shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def take(self, data: bytes) -> None:
        """Put in what has come, nothing for the end."""
        if data:
            self._came.write(data)
        else:
            self._came.write_eof()

    def give(self) -> bytes:
        """What is to be sent."""
        return self._leaves.read()

    def opened(self, data: bytes) -> bytes | None:
        """The plain bytes that are complete with these, None where there are none yet; nothing at the end."""
        with self._lock:
            self.take(data)
            found = bytearray()
            while True:
                try:
                    part = self._tls.read(CHUNK)
                except ssl.SSLWantReadError:
                    return bytes(found) or None
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    part = b""
                if not part:
                    return bytes(found)
                found += part

    def sealed(self, data: bytes) -> bytes:
        """These bytes as they travel."""
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._tls.write(rest) :]
            return self.give()


class Stream:
    """A connection that one thread may read while another writes, each under the bounds of its own request.

    Each direction has a socket object of its own, as a time limit belongs to the object.
    """

    def __init__(self, sock: PlainSocket) -> None:
        self._reader, self._writer = sock, sock.dup()
        self._seal: _Seal | None = None

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands for TLS; raises `OSError`."""
        seal = _Seal(context, host)
        try:
            while not seal.shake():
                self._writer.sendall(seal.give())
                seal.take(self._reader.recv(CHUNK))
        finally:
            if last := seal.give():
                self._writer.send_now(last)
        self._seal = seal

    def read(self) -> bytes:
        """What comes next; nothing where the peer has ended."""
        while True:
            data = self._reader.recv(CHUNK)
            plain = data if self._seal is None else self._seal.opened(data)
            if plain is not None:
                return plain

    def read_now(self) -> bytes | None:
        """What has come already, None where nothing has; nothing where the peer has ended."""
        while (data := self._reader.recv_now()) is not None:
            plain = data if self._seal is None else self._seal.opened(data)
            if plain is not None:
                return plain
        return None

    def write(self, data: bytes) -> None:
        """Send all of it; where that fails, a part of it may be on its way."""
        self._writer.sendall(data if self._seal is None else self._seal.sealed(data))

    def write_now(self, data: bytes) -> None:
        """Send what goes without waiting: last words."""
        self._writer.send_now(data if self._seal is None else self._seal.sealed(data))

    def shut(self) -> None:
        """Wake the threads that read and write."""
        _shut(self._writer)

    def leave(self) -> None:
        """Let go of the connection in a child of a fork."""
        leave(self._reader)
        leave(self._writer)

    def close(self) -> None:
        """Give the sockets back; nobody may be using them."""
        self._reader.close()
        self._writer.close()
