"""Terminate TLS in front of a plain port, as a reverse proxy does, on the loopback interface with own threads."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

from tests.limits import LONG


class TlsRelay:
    """Accept TLS connections and relay their bytes to and from a plain port on the loopback interface."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._target, self._context = port, context
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="relay", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="relay", daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as inner:
            for one in (connection, inner):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(connection, server_side=True) as outer:
                self._open |= {inner, outer}
                back = threading.Thread(target=self._pump, args=(inner, outer), name="relay", daemon=True)
                back.start()
                self._pump(outer, inner)
                back.join(LONG)
                self._open -= {inner, outer}

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            socket.socket.shutdown(target, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections and end the threads."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONG)
