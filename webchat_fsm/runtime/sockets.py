"""Sockets under the bounds of a request: one total deadline, a limit for what may come, and a cut that wakes them.

A timeout of Python's sockets bounds one operation; a server that sends a byte now and then would keep a request alive
for ever. These sockets ask the request that their thread makes before each operation.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from webchat_fsm.runtime import clock


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

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """Put what this thread does with its sockets under the bounds of this request."""
        before, _own.flight = _own.flight, self
        try:
            yield
        finally:
            _own.flight = before


class _Own(threading.local):
    flight: Flight | None = None


_own = _Own()


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits on a socket. A TLS socket is shut below its TLS, which that thread is using."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is not connected, or was closed meanwhile: nobody waits on it


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
