"""TCP streams under the bounds of a request: one total deadline, a byte budget, and a cut from another thread.

A timeout of Python's sockets bounds one operation, so a server that sends a byte now and then would keep a request
alive for ever. Here each operation is given the request for which it is made (`InFlight`) and gets the time that this
one has left. The sockets are the standard library's, or those that gevent or eventlet puts in their place; no class
here inherits from them.

No lock is taken on the way of a request or of a cut, so a signal leaves none taken.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (else the first connection imports it, under a lock that a signal may leave taken)
import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from webchat_fsm._runtime import clock

CHUNK = 65536
"""Bytes that are received at a time."""

PROMPT = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Options of a socket whose small writes are sent at once: a request in two parts would wait for an acknowledgement."""


class TooMuchError(OSError):
    """The peer has sent more than the request may bring."""


class InFlight:
    """Deadline, byte budget and current socket of one request in flight.

    `deadline` is a moment of the monotonic clock, None for none; `allowance` the bytes that it may still receive.
    `connected` says that a new connection was begun for it, instead of using a kept one.
    """

    __slots__ = ("_allowance", "_deadline", "_sock", "connected", "was_cut")

    def __init__(self, deadline: float | None, allowance: int) -> None:
        self._deadline, self._allowance = deadline, allowance
        self._sock: socket.socket | None = None
        self.was_cut: bool = False
        self.connected: bool = False

    def bound(self, sock: socket.socket, share: int = 1) -> None:
        """Bound the next operation of a socket; raises `TimeoutError` after the deadline, `OSError` after a cut.

        It may take the time that is left, divided by `share`.
        """
        # In this order and without a lock: `cut` sets the flag first and then looks for the socket, so either this
        # thread sees the flag or `cut` sees the socket.
        self._sock = sock
        if self.was_cut:
            raise OSError("the request was cut")
        if self._deadline is None:
            sock.settimeout(None)
            return
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        sock.settimeout(left / share)

    def received(self, size: int) -> None:
        """Count received bytes; raises `TooMuchError` beyond the budget."""
        self._allowance -= size
        if self._allowance < 0:
            raise TooMuchError("the peer sends too much")

    def cut(self) -> None:
        """Let the request fail at once, wherever it waits."""
        self.was_cut = True
        if (sock := self._sock) is not None:
            _shut(sock)

    def close_descriptors(self) -> None:
        """Close the descriptor in a forked child, as only the parent may use the socket."""
        if self._sock is not None:
            close_descriptor(self._sock)


class AllInFlight(list[InFlight]):
    """The requests of one service in flight. `append` and `remove` are single steps in C, so they need no lock.

    No set, as an empty one takes four times the memory, and few requests are in flight at once.
    """

    __slots__ = ()

    def cut(self) -> None:
        """Let all of them fail at once."""
        all_in_flight = list(self)
        # All are marked before any is woken: one that is woken may hand the websocket to the next, which would read on.
        for in_flight in all_in_flight:
            in_flight.was_cut = True
        for in_flight in all_in_flight:
            in_flight.cut()

    def close_descriptors(self) -> None:
        """Close their descriptors in a forked child."""
        for in_flight in list(self):
            in_flight.close_descriptors()


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits on a socket.

    `close` would not wake it, and would free the descriptor for another file while the thread still waits on it.
    """
    with suppress(OSError):  # it is not connected, or was closed meanwhile: no thread waits on it
        sock.shutdown(socket.SHUT_RDWR)


def close_descriptor(sock: socket.socket) -> None:
    """Close a socket in this process only: neither its peer nor another process that has it notices."""
    # Not `close`: gevent's would tell its event loop, which is the parent's.
    if (descriptor := sock.detach()) >= 0:
        os.close(descriptor)


class Stream:
    """A TCP connection whose operations are bounded by the request for which they are made."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, sock: socket.socket) -> None:
        self._reader = self._writer = sock

    def split(self) -> None:
        """Let one thread read while another writes."""
        # A timeout belongs to a socket object and not to an operation, so the writer gets an object of its own.
        self._writer = self._reader.dup()

    def read(self, in_flight: InFlight, most: int = CHUNK) -> bytes:
        """Wait for the next bytes; empty where the peer has ended. Raises `OSError`."""
        in_flight.bound(self._reader)
        data = self._reader.recv(most)
        in_flight.received(len(data))
        return data

    def read_now(self) -> bytes | None:
        """Return what has come already, None where nothing has; empty where the peer has ended. Never waits."""
        self._reader.settimeout(0.0)
        try:
            return self._reader.recv(CHUNK)
        except (BlockingIOError, TimeoutError):
            return None

    def fileno(self) -> int:
        """Return the descriptor that is readable once bytes have come."""
        # Where the stream is split, not the one by which a thread reads: the selector may wait at the same time, and
        # under eventlet a descriptor has one reader alone, so that the second wait would raise in either of them.
        return self._writer.fileno()

    def has_arrived(self, seconds: float) -> bool:
        """Return whether `read` would not wait; for bytes that are to come so many seconds are waited."""
        self._reader.settimeout(seconds)
        try:
            self._reader.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            pass  # `read` raises it
        return True

    def write(self, data: bytes | memoryview, in_flight: InFlight) -> None:
        """Send all of it; where that fails, a part of it may be on its way. Raises `OSError`."""
        in_flight.bound(self._writer)
        self._writer.sendall(data)

    def write_now(self, data: bytes) -> None:
        """Send as much as goes without waiting, and nothing where the peer is gone."""
        self._writer.settimeout(0.0)
        with suppress(OSError):
            self._writer.send(data)

    @property
    def quiet(self) -> bool:
        """Return whether nothing has come, the peer's end included; else a kept connection is stale."""
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

    def close_descriptors(self) -> None:
        """Close the descriptors in a forked child."""
        close_descriptor(self._reader)
        close_descriptor(self._writer)

    def close(self) -> None:
        """Close the sockets; no thread may be using them."""
        self._reader.close()
        self._writer.close()


def connect(host: str, port: int, options: Iterable[tuple[int, int, int | bytes]], in_flight: InFlight) -> Stream:
    """Return a connected stream; each address of the host is tried in turn. Raises the last address's `OSError`.

    An address that does not answer has its share of the time alone, so that the next is tried within the deadline: a
    host may have a route by IPv6 that leads nowhere. The system's resolver has no timeout: a slow look-up of a name is
    waited for, past the deadline too.
    """
    in_flight.connected = True
    fault: OSError = OSError("the name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            in_flight.bound(sock, share=len(addresses) - number)
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            fault = error
        else:
            return Stream(sock)
    raise fault
