"""TLS over the streams of sockets.py, under the same bounds, and the settings of a configuration."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import urlsplit

from webchat_fsm._config import TlsConfig
from webchat_fsm._errors import ConfigError
from webchat_fsm._runtime.sockets import CHUNK, PROMPT, InFlight, Stream, connect

DEFAULT_PORTS = {"http": 80, "https": 443}


class TlsStream(Stream):
    """Encrypt over another stream, which may be a `TlsStream` too: https through a proxy that is under TLS itself.

    `ssl.SSLSocket` would wait by a timeout of its own and cannot be read by one thread while another writes. Here the
    inner stream does all waiting, and OpenSSL works in memory, one thread at a time (`_lock`): a connection of OpenSSL
    is not safe for two, and none ever waits while it holds the lock.
    """

    __slots__ = ("_ended", "_inner", "_lock", "_plain", "_received", "_split", "_tls", "_to_send")

    def __init__(self, inner: Stream, context: ssl.SSLContext, host: str) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=host)
        self._plain = b""  # decrypted beyond what the caller asked for
        self._ended = False
        self._split = False

    def handshake(self, in_flight: InFlight) -> None:
        """Do the TLS handshake; raises `OSError`, of which `ssl.SSLError` is one."""
        try:
            while not self._handshake_done():
                self._inner.write(self._to_send.read(), in_flight)
                self._feed(self._inner.read(in_flight))
        finally:
            if last := self._to_send.read():  # the alert that says why it failed, or the Finished message
                self._inner.write_now(last)

    def _handshake_done(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def split(self) -> None:
        """Let one thread read while another writes."""
        self._inner.split()
        self._split = True

    def _feed(self, data: bytes) -> None:
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()

    def _decrypt(self, data: bytes) -> bytes | None:
        """Return the plain bytes that are complete with these, None where there are none yet; empty at the end."""
        with self._lock:
            self._feed(data)
            found: list[bytes] = []
            while True:
                try:
                    part = self._tls.read(CHUNK)
                except ssl.SSLWantReadError:
                    return b"".join(found) if found else None
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # ended with a close_notify, or without one
                    part = b""
                if not part:
                    return b"".join(found)
                found.append(part)
                if not (self._received.pending or self._tls.pending()):
                    return b"".join(found)  # spares the exception by which OpenSSL says that there is no more

    def _encrypt(self, data: bytes | memoryview) -> bytes:
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._tls.write(rest) :]
            return self._to_send.read()

    def read(self, in_flight: InFlight, most: int = CHUNK) -> bytes:
        """Wait for the next plain bytes; empty where the peer has ended. Raises `OSError`."""
        while not self._plain:
            if self._ended:  # `has_arrived` has seen the end
                return b""
            plain = self._decrypt(self._inner.read(in_flight))
            # What OpenSSL wants to send by itself is a reply to a renegotiation or a key update. A split stream leaves
            # it to the next write, as this thread must not write beside the one that does.
            if self._to_send.pending and not self._split:
                self._inner.write(self._to_send.read(), in_flight)
            if plain is not None:
                if len(plain) <= most:
                    return plain
                self._plain = plain
        plain, self._plain = self._plain[:most], self._plain[most:]
        return plain

    def read_now(self) -> bytes | None:
        """Return what has come already, None where nothing has; empty where the peer has ended. Never waits."""
        if self._plain:
            plain, self._plain = self._plain, b""
            return plain
        if self._ended:
            return b""
        while (data := self._inner.read_now()) is not None:
            decrypted = self._decrypt(data)
            if decrypted is not None:
                return decrypted
        return None

    def fileno(self) -> int:
        """Return the descriptor that is readable once bytes have come."""
        return self._inner.fileno()

    def has_arrived(self, seconds: float) -> bool:
        """Return whether `read` would not wait; for bytes that are to come so many seconds are waited."""
        # Records without data come too, such as the tickets of TLS 1.3: only plain bytes count.
        if not (self._plain or self._ended) and self._inner.has_arrived(seconds):
            data = self.read_now()
            if data is not None:
                self._plain, self._ended = data, not data
        return bool(self._plain) or self._ended

    def write(self, data: bytes | memoryview, in_flight: InFlight) -> None:
        """Send all of it; where that fails, a part of it may be on its way. Raises `OSError`."""
        self._inner.write(self._encrypt(data), in_flight)

    def write_now(self, data: bytes) -> None:
        """Send as much as goes without waiting, and nothing where the peer is gone."""
        self._inner.write_now(self._encrypt(data))

    @property
    def quiet(self) -> bool:
        """Return whether nothing has come, the peer's end included."""
        return not self._plain and self._inner.quiet

    def shut(self) -> None:
        """Wake the threads that read and write."""
        self._inner.shut()

    def close_descriptors(self) -> None:
        """Close the descriptors in a forked child."""
        self._inner.close_descriptors()

    def close(self) -> None:
        """Close the sockets; no thread may be using them."""
        self._inner.close()


def secured(stream: Stream, context: ssl.SSLContext, host: str, in_flight: InFlight) -> TlsStream:
    """Return the stream under TLS, after the handshake; raises `OSError`, and leaves closing to the caller."""
    tls = TlsStream(stream, context, host)
    tls.handshake(in_flight)
    return tls


def connect_url(url: str, tls: Callable[[], ssl.SSLContext], in_flight: InFlight) -> Stream:
    """Return a stream to the host of an http(s) URL, under TLS where its scheme says so; raises `OSError`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    stream = connect(host, parts.port or DEFAULT_PORTS[parts.scheme], PROMPT, in_flight)
    if parts.scheme != "https":
        return stream
    try:
        return secured(stream, tls(), host, in_flight)
    except BaseException:
        stream.close()
        raise


def tls_source(tls: TlsConfig, *, shared: ssl.SSLContext | None = None) -> Callable[[], ssl.SSLContext]:
    """Return what gives the TLS settings of a configuration, or shared ones in their place, to a new connection.

    Settings that name no file are made for the first connection under TLS. Files are read at once, so that one that
    cannot be read raises `ConfigError` here, not later in a request.
    """
    if shared is None and tls == TlsConfig(verify=tls.verify):
        return _system_source(tls.verify)
    context = tls_context(tls) if shared is None else shared
    return lambda: context


@lru_cache(maxsize=2)
def _system_source(verify: bool) -> Callable[[], ssl.SSLContext]:
    return partial(tls_context, TlsConfig(verify=verify))


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """Return the TLS settings of a configuration; verification is on unless it says otherwise.

    Services whose configuration names no file share one context, as reading the system's authorities takes some 20 ms
    and most of a megabyte. Raises `ConfigError` for a file that cannot be read.
    """
    if tls == TlsConfig(verify=tls.verify):
        # Part of the key: OpenSSL reads these variables when a context is made, and a program may change them.
        places = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        # So is the class, which is gevent's once gevent has patched the library.
        return _shared_context(tls.verify, ssl.SSLContext, places)
    return _new_context(tls)


@lru_cache(maxsize=8)
def _shared_context(verify: bool, kind: type[ssl.SSLContext], places: tuple[str | None, ...]) -> ssl.SSLContext:
    return _new_context(TlsConfig(verify=verify))


def _new_context(tls: TlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
    except OSError as error:
        raise ConfigError("$.client.tls.ca", f"cannot be read: {error}") from error
    if not tls.verify:
        context.check_hostname = False  # before `verify_mode`, which Python refuses to lower while it is on
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key or None, tls.key_password or None)
        except OSError as error:
            raise ConfigError("$.client.tls.cert", f"cannot be loaded: {error}") from error
    # Some servers choose HTTP/2 where a client names nothing.
    context.set_alpn_protocols(["http/1.1"])
    return context
