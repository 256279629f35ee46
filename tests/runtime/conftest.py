"""Servers on sockets that do as they are told, transports without sockets, and a watch over threads."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import pytest

from webchat_fsm import Config, ManualClock, ManualDriver, MemoryStore, TransportError, WebChatService
from webchat_fsm.runtime.http import Urllib3Http
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.wire.request import HttpAnswer, Request

Talk = Callable[["Peer", socket.socket], object]

BRISK = {"poll_rate": 20.0, "poll_rate_min": 20.0, "poll_rate_max": 20.0}
"""Milliseconds between two polls: fewer than a configuration may ask of a real server."""

SOON = 5.0
"""Seconds that a busy machine may take for what happens at once; what is kept from happening would take longer."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(10.0)
    assert not [thread.name for thread in left if thread.is_alive()]


class Peer:
    """A listening server. Each connection is talked to by the next script, the last one serving all that follow."""

    def __init__(self, *talks: Talk, tls: ssl.SSLContext | None = None) -> None:
        self._talks, self._tls = talks, tls
        self.seen: list[bytes] = []
        self.connections = 0
        self.over = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, name="peer", daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/chat"

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            talk = self._talks[min(self.connections, len(self._talks) - 1)]
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(talk, connection), name="peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, talk: Talk, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            talk(self, connection)
        except OSError:
            pass  # the client has gone, or the test is over
        finally:
            connection.close()

    def read(self, connection: socket.socket) -> bytes:
        """One whole request, which is noted in `seen`; empty when the client has hung up."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += (part := connection.recv(65536))
            if not part:
                return b""
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(body) < length:
            body += connection.recv(65536)
        self.seen.append(head + b"\r\n\r\n" + body)
        return self.seen[-1]

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)


def whole(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; `_` in a header's name stands for a dash."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def answering(*answers: bytes) -> Talk:
    """Read a request, send the next answer; then hang up."""

    def talk(peer: Peer, connection: socket.socket) -> None:
        for answer in answers:
            if not peer.read(connection):
                return
            connection.sendall(answer)

    return talk


def for_ever(answer: bytes) -> Talk:
    """Answer every request of a connection alike."""

    def talk(peer: Peer, connection: socket.socket) -> None:
        while peer.read(connection):
            connection.sendall(answer)

    return talk


def silent(peer: Peer, connection: socket.socket) -> None:
    """Take the request and never answer."""
    peer.read(connection)
    peer.over.wait(10.0)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Make servers; they end with the test."""
    made: list[Peer] = []

    def make(*talks: Talk, tls: ssl.SSLContext | None = None) -> Peer:
        made.append(Peer(*talks, tls=tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def says() -> type:
    """What a server may say."""

    class Says:
        whole = staticmethod(whole)
        answering = staticmethod(answering)
        for_ever = staticmethod(for_ever)
        silent = staticmethod(silent)

    return Says


@pytest.fixture
def http() -> Iterator[Callable[..., Urllib3Http]]:
    """Make transports for a URL, with a `client` section and other keys of the configuration."""
    made: list[Urllib3Http] = []

    def make(url: str, client: dict[str, object] | None = None, **config: object) -> Urllib3Http:
        made.append(Urllib3Http(Config.read({"dataURL": url, "client": client or {}, **config})))
        return made[-1]

    yield make
    for one in made:
        one.cut()
        one.close()


@pytest.fixture
def ask() -> Callable[..., Request]:
    """A request, of two seconds unless it is said otherwise."""

    def make(url: str, **given: object) -> Request:
        return Request(**{"operation": "send", "method": "POST", "url": url, "timeout": 2.0, **given})

    return make


class Stopwatch:
    """Tells what happens at once from what a hanging server or a waiting thread would keep for longer."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def soon(self) -> bool:
        return self.seconds < SOON


@pytest.fixture
def stopwatch() -> Stopwatch:
    """Runs from the beginning of the test."""
    return Stopwatch()


@pytest.fixture
def debug_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every log line of every library, from DEBUG on."""
    caplog.set_level(logging.DEBUG)
    return caplog


class Wire:
    """A v2 server in the calling thread: a function of the request answers each operation, or a good envelope does."""

    def __init__(self, **operations: Callable[[Request], object]) -> None:
        self.operations = operations
        self.requests: list[Request] = []
        self.cuts = 0
        self.closed = 0

    def send(self, request: Request) -> HttpAnswer:
        self.requests.append(request)
        made = self.operations.get(request.operation, lambda request: None)(request)
        return made if isinstance(made, HttpAnswer) else envelope(**(made or {}))

    def cut(self) -> None:
        self.cuts += 1

    def close(self) -> None:
        self.closed += 1

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)


def envelope(**fields: object) -> HttpAnswer:
    """A good answer of the v2 server."""
    ids = {"chatId": "chat-1", "userId": "user-1", "secureKey": "sEcReT-kEy", "alias": "117"}
    told = {"statusCode": 0, **ids, "chatEnded": False, "messages": [], **fields}
    return HttpAnswer(status=200, body=json.dumps(told).encode())


def text(index: int, said: str, nickname: str = "Ann", kind: str = "Agent") -> dict[str, object]:
    """A message on the v2 wire."""
    party = {"nickname": nickname, "participantId": 2, "type": kind}
    return {"from": party, "index": index, "type": "Message", "text": said, "utcTime": 1_750_000_000_000 + index}


def cut_off(request: Request) -> object:
    raise TransportError(f"{request.operation}: the connection was lost")


@pytest.fixture
def wire() -> type[Wire]:
    return Wire


@pytest.fixture
def said() -> Callable[..., dict[str, object]]:
    """Messages on the v2 wire."""
    return text


@pytest.fixture
def no_answer() -> Callable[[Request], object]:
    """An operation without a complete answer."""
    return cut_off


@pytest.fixture
def service() -> Iterator[Callable[..., WebChatService]]:
    """Make services over an `http=`, on threads unless a driver is given; they are closed at the end."""
    made: list[WebChatService] = []

    def make(http: object = None, *, config: dict[str, object] | None = None, **given: object) -> WebChatService:
        read = Config.read({"dataURL": "http://chat.test/chat", **(config or {})})
        paced = read if config and "pollRate" in config else msgspec.structs.replace(read, **BRISK)
        made.append(WebChatService(paced, http=Wire() if http is None else http, **given))
        return made[-1]

    yield make
    for chat in made:
        chat.close()


@pytest.fixture
def by_hand() -> ManualDriver:
    """A driver whose time only the test moves."""
    return ManualDriver(ManualClock())


@pytest.fixture
def embedded(by_hand: ManualDriver) -> EmbeddedHttp:
    return EmbeddedHttp(ChatServer(clock=by_hand.clock.wall), by_hand.clock)


@pytest.fixture
def front() -> Iterator[HttpFront]:
    """The embedded chat server on a port."""
    with HttpFront(ChatServer()) as running:
        yield running


@pytest.fixture
def on_front(front: HttpFront) -> Iterator[Callable[..., WebChatService]]:
    """Make services that talk to the embedded server over sockets, on threads."""
    made: list[WebChatService] = []

    def make(store: object = None, driver: object = None, **config: object) -> WebChatService:
        fast = {"dataURL": front.data_url(), "pollRate": 100, "pollRateMin": 100, "pollRateMax": 200}
        made.append(WebChatService({**fast, **config}, store=store or MemoryStore(), driver=driver))
        return made[-1]

    yield make
    for chat in made:
        chat.close()


@pytest.fixture
def in_threads() -> Iterator[Callable[..., list[threading.Thread]]]:
    """Run functions each in a thread of its own; all have ended when the test has."""
    started: list[threading.Thread] = []

    def run(*functions: Callable[[], object], join: bool = False) -> list[threading.Thread]:
        threads = [threading.Thread(target=function, name="test", daemon=True) for function in functions]
        started.extend(threads)
        for thread in threads:
            thread.start()
        for thread in threads if join else ():
            thread.join(30.0)
            assert not thread.is_alive()
        return threads

    yield run
    for thread in started:
        thread.join(10.0)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait, for twenty seconds at most, until something holds."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20.0
        while not holds():
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.001)

    return wait
