"""Streams under the bounds of a request: one total deadline, a limit for what may come, and a cut that wakes them.

A timeout of Python's sockets bounds one operation; a server that sends a byte now and then would keep a request alive
for ever. So each operation on a socket is given the request (`Flight`) for which it is made, and the time that this
one has left. The sockets are the standard library's, or what gevent or eventlet has put in their place: nothing here
is a subclass of theirs, and TLS is done in memory, where no class of theirs can wait by a time limit of its own.

No lock is taken here on the way of a request or of a cut, so a signal leaves none taken.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (else the first connection imports it, under a lock that a signal may leave taken)
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress

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
        self._sock: socket.socket | None = None
        self.was_cut = False
        self.connected = False

    def bound(self, sock: socket.socket) -> None:
        """Bound the next operation of a socket; raises `TimeoutError` after the deadline, `OSError` after a cut."""
        self._sock = sock  # before the look at `was_cut`, as `cut` does both the other way round: one sees the other
        if self.was_cut:
            raise OSError("the request was cut")
        if self._deadline is None:
            sock.settimeout(None)
            return
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        sock.settimeout(left)

    def received(self, size: int) -> None:
        """Count the bytes that have come; raises `TooMuchError` beyond the limit."""
        self._allowance -= size
        if self._allowance < 0:
            raise TooMuchError("the peer sends too much")

    def cut(self) -> None:
        """Let the request fail at once, wherever it waits."""
        self.was_cut = True
        if (sock := self._sock) is not None:
            _shut(sock)

    def leave(self) -> None:
        """Let go of the socket, in a child of a fork, where only the parent may use it."""
        if self._sock is not None:
            leave(self._sock)


class Flights(set[Flight]):
    """The requests of one service that are on their way. Adding and discarding are single steps that need no lock."""

    def cut(self) -> None:
        """Let all of them fail at once; marked first, so that none that is woken makes way for another."""
        flights = list(self)
        for flight in flights:
            flight.was_cut = True
        for flight in flights:
            flight.cut()

    def leave(self) -> None:
        """Let go of all their sockets, in a child of a fork."""
        for flight in list(self):
            flight.leave()


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits on a socket."""
    with suppress(OSError):  # it is not connected, or was closed meanwhile: no thread waits on it
        sock.shutdown(socket.SHUT_RDWR)


def leave(sock: socket.socket) -> None:
    """Close a socket in this process alone: its peer, and other processes that have it too, notice nothing."""
    if (descriptor := sock.detach()) >= 0:
        os.close(descriptor)


class Stream:
    """A TCP connection, each operation under the bounds of the request that it is made for."""

    def __init__(self, sock: socket.socket) -> None:
        self._reader = self._writer = sock

    def split(self) -> None:
        """Let one thread read while another writes: a time limit belongs to a socket object, so each gets its own."""
        self._writer = self._reader.dup()

    def read(self, flight: Flight, most: int = CHUNK) -> bytes:
        """Wait for the next bytes; empty where the peer has ended. Raises `OSError`."""
        flight.bound(self._reader)
        data = self._reader.recv(most)
        flight.received(len(data))
        return data

    def read_now(self) -> bytes | None:
        """Take what has come already, None where nothing has; empty where the peer has ended. It never waits."""
        self._reader.settimeout(0.0)
        try:
            return self._reader.recv(CHUNK)
        except (BlockingIOError, TimeoutError):
            return None

    def write(self, data: bytes, flight: Flight) -> None:
        """Send all of it; where that fails, a part of it may be on its way. Raises `OSError`."""
        flight.bound(self._writer)
        self._writer.sendall(data)

    def write_now(self, data: bytes) -> None:
        """Send as much as goes without waiting, and nothing where the peer is gone."""
        self._writer.settimeout(0.0)
        with suppress(OSError):
            self._writer.send(data)

    @property
    def quiet(self) -> bool:
        """Whether nothing has come, the peer's end included: what is to be true of a kept connection."""
        self._reader.settimeout(0.0)
        try:
            self._reader.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError):
            return True
        except OSError:
            return False
        return False

    def shut(self) -> None:
        """Wake the threads that read and write."""
        _shut(self._writer)

    def leave(self) -> None:
        """Let go of the connection in a child of a fork."""
        leave(self._reader)
        leave(self._writer)

    def close(self) -> None:
        """Give the sockets back; no thread may be using them."""
        self._reader.close()
        self._writer.close()


class TlsStream(Stream):
    """TLS over another stream, which may be one of TLS too.

    OpenSSL bears no two threads in one connection, so a lock lets one after the other in; none waits in there.
    """

    def __init__(self, inner: Stream, context: ssl.SSLContext, host: str) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._came, self._leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._leaves, server_hostname=host)
        self._plain = b""
        self._split = False

    def shake(self, flight: Flight) -> None:
        """Shake hands; raises `OSError`, of which `ssl.SSLError` is one."""
        try:
            while not self._has_shaken():
                self._inner.write(self._leaves.read(), flight)
                self._take(self._inner.read(flight))
        finally:
            if last := self._leaves.read():
                self._inner.write_now(last)

    def _has_shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def split(self) -> None:
        """Let one thread read while another writes."""
        self._inner.split()
        self._split = True

    def _take(self, data: bytes) -> None:
        if data:
            self._came.write(data)
        else:
            self._came.write_eof()

    def _opened(self, data: bytes) -> bytes | None:
        """Return the plain bytes that are complete with these, None where there are none yet; empty at the end."""
        with self._lock:
            self._take(data)
            found: list[bytes] = []
            while True:
                try:
                    part = self._tls.read(CHUNK)
                except ssl.SSLWantReadError:
                    return b"".join(found) if found else None
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    part = b""
                if not part:
                    return b"".join(found)
                found.append(part)
                if not (self._came.pending or self._tls.pending()):
                    return b"".join(found)  # spares the exception by which OpenSSL says that there is no more

    def _sealed(self, data: bytes) -> bytes:
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._tls.write(rest) :]
            return self._leaves.read()

    def read(self, flight: Flight, most: int = CHUNK) -> bytes:
        """Wait for the next plain bytes; empty where the peer has ended. Raises `OSError`."""
        while not self._plain:
            plain = self._opened(self._inner.read(flight))
            if self._leaves.pending and not self._split:  # a renegotiation; else it leaves with the next write
                self._inner.write(self._leaves.read(), flight)
            if plain is not None:
                if len(plain) <= most:
                    return plain
                self._plain = plain
        plain, self._plain = self._plain[:most], self._plain[most:]
        return plain

    def read_now(self) -> bytes | None:
        """Take what has come already, None where nothing has; empty where the peer has ended. It never waits."""
        if self._plain:
            plain, self._plain = self._plain, b""
            return plain
        while (data := self._inner.read_now()) is not None:
            opened = self._opened(data)
            if opened is not None:
                return opened
        return None

    def write(self, data: bytes, flight: Flight) -> None:
        """Send all of it; where that fails, a part of it may be on its way. Raises `OSError`."""
        self._inner.write(self._sealed(data), flight)

    def write_now(self, data: bytes) -> None:
        """Send as much as goes without waiting, and nothing where the peer is gone."""
        self._inner.write_now(self._sealed(data))

    @property
    def quiet(self) -> bool:
        """Whether nothing has come, the peer's end included."""
        return not self._plain and self._inner.quiet

    def shut(self) -> None:
        """Wake the threads that read and write."""
        self._inner.shut()

    def leave(self) -> None:
        """Let go of the connection in a child of a fork."""
        self._inner.leave()

    def close(self) -> None:
        """Give the sockets back; no thread may be using them."""
        self._inner.close()


def connect(host: str, port: int, options: Iterable[tuple[int, int, int | bytes]], flight: Flight) -> Stream:
    """A connected stream; each address of the host is tried in turn. Raises `OSError`, the last address's.

    The system's resolver knows no time limit, so a name that it looks up for long is waited for.
    """
    flight.connected = True
    fault: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            flight.bound(sock)
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            fault = error
        else:
            return Stream(sock)
    raise fault


def secured(stream: Stream, context: ssl.SSLContext, host: str, flight: Flight) -> TlsStream:
    """Return the stream under TLS, hands shaken; raises `OSError`, and leaves closing to the caller."""
    tls = TlsStream(stream, context, host)
    tls.shake(flight)
    return tls
