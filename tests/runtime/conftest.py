"""Scripted servers on sockets, transports without sockets, and a check that no thread is left running."""

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

from tests.limits import LONG, SOON, eventually
from webchat_fsm import Config, ManualClock, ManualDriver, MemoryStore, TransportError, WebChatService
from webchat_fsm._runtime.http import Urllib3Http
from webchat_fsm._wire.request import HttpAnswer, Request
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront
from webchat_fsm.testing import EmbeddedHttp

Script = Callable[["Peer", socket.socket], object]

FAST_POLLING = {"poll_rate": 20.0, "poll_rate_min": 20.0, "poll_rate_max": 20.0}
"""Milliseconds between two polls, below the least that a configuration accepts."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(LONG)
    assert not [thread.name for thread in left if thread.is_alive()]


class Peer:
    """Serve each connection of a listening socket by the next script; the last script serves all further ones."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts, self._tls = scripts, tls
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
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(script, connection), name="peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, script: Script, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            script(self, connection)
        except OSError:
            pass  # the client has disconnected, or the test has ended
        finally:
            connection.close()

    def read(self, connection: socket.socket) -> bytes:
        """Read a complete request and append it to `seen`; return no bytes when the client has disconnected."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += (part := connection.recv(65536))
            if not part:
                return b""
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(body) < length:
            body += (part := connection.recv(65536))
            if not part:  # cut between head and body
                return b""
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
            thread.join(LONG)


def whole(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """Build a complete response; `_` in a header's name stands for a dash."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def answering(*answers: bytes) -> Script:
    """Read a request and send the next answer for each of them; then disconnect."""

    def script(peer: Peer, connection: socket.socket) -> None:
        for answer in answers:
            if not peer.read(connection):
                return
            connection.sendall(answer)

    return script


def repeating(answer: bytes) -> Script:
    """Send the same answer to every request of a connection."""

    def script(peer: Peer, connection: socket.socket) -> None:
        while peer.read(connection):
            connection.sendall(answer)

    return script


def silent(peer: Peer, connection: socket.socket) -> None:
    """Read the request and never answer it."""
    peer.read(connection)
    peer.over.wait(LONG)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Make servers, which are closed at the end of the test."""
    made: list[Peer] = []

    def make(*scripts: Script, tls: ssl.SSLContext | None = None) -> Peer:
        made.append(Peer(*scripts, tls=tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def replies() -> type:
    """Give the connection scripts of a `Peer`."""

    class Replies:
        whole = staticmethod(whole)
        answering = staticmethod(answering)
        repeating = staticmethod(repeating)
        silent = staticmethod(silent)

    return Replies


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
    """Make a request, with a generous timeout unless another is given."""

    def make(url: str, **given: object) -> Request:
        return Request(**{"operation": "send", "method": "POST", "url": url, "timeout": LONG, **given})

    return make


class Stopwatch:
    """Measure the seconds since the last restart, to tell an immediate result from a blocked call."""

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
    """Start a stopwatch at the beginning of the test."""
    return Stopwatch()


@pytest.fixture
def debug_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture the log records of all libraries, from DEBUG on."""
    caplog.set_level(logging.DEBUG)
    return caplog


class Wire:
    """Answer v2 requests in the calling thread, by a function per operation or else with a good envelope."""

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
    """Build a successful response of the v2 server, with the given fields."""
    ids = {"chatId": "chat-1", "userId": "user-1", "secureKey": "sEcReT-kEy", "alias": "117"}
    fields_sent = {"statusCode": 0, **ids, "chatEnded": False, "messages": [], **fields}
    return HttpAnswer(status=200, body=json.dumps(fields_sent).encode())


def build_message(index: int, content: str, nickname: str = "Ann", kind: str = "Agent") -> dict[str, object]:
    """Build a message of the v2 protocol."""
    party = {"nickname": nickname, "participantId": 2, "type": kind}
    return {"from": party, "index": index, "type": "Message", "text": content, "utcTime": 1_750_000_000_000 + index}


def cut_off(request: Request) -> object:
    raise TransportError(f"{request.operation}: the connection was lost")


class LateExchange:
    """A request whose answer comes after some seconds, on a socket on which nothing comes."""

    connects_to, on_ready = "", None

    def __init__(self, http, request):
        self._http, self._request = http, request
        self.until = time.monotonic() + http.seconds

    def is_admitted(self):
        return True

    def is_ready(self):
        return False

    def fileno(self):
        return self._http.silent.fileno()

    def begin(self): ...

    def abandon(self): ...

    def proceed(self, seconds):
        return time.monotonic() >= self.until

    def finish(self):
        return self._http.send(self._request)


@pytest.fixture
def wire() -> type[Wire]:
    return Wire


@pytest.fixture
def late_wire(wire):
    """Make a wire whose requests of timers are parked, and answered after `seconds`."""
    silent, other = socket.socketpair()

    class LateWire(wire):
        seconds = 0.0

        def exchange(self, request):
            return LateExchange(self, request)

    LateWire.silent = silent
    with silent, other:
        yield LateWire


@pytest.fixture
def v2_message() -> Callable[..., dict[str, object]]:
    """Give the function that builds a message of the v2 protocol."""
    return build_message


@pytest.fixture
def no_answer() -> Callable[[Request], object]:
    """Give an operation that loses the connection before its answer is complete."""
    return cut_off


@pytest.fixture
def service() -> Iterator[Callable[..., WebChatService]]:
    """Make services over an `http=`, on threads unless a driver is given; they are closed at the end."""
    made: list[WebChatService] = []

    def make(http: object = None, *, config: dict[str, object] | None = None, **given: object) -> WebChatService:
        read = Config.read({"dataURL": "http://chat.test/chat", **(config or {})})
        paced = read if config and "pollRate" in config else msgspec.structs.replace(read, **FAST_POLLING)
        made.append(WebChatService(paced, http=Wire() if http is None else http, **given))
        return made[-1]

    yield make
    for chat in made:
        chat.close()


@pytest.fixture
def by_hand() -> ManualDriver:
    """Make a driver whose time is moved by the test alone."""
    return ManualDriver(ManualClock())


@pytest.fixture
def embedded(by_hand: ManualDriver) -> EmbeddedHttp:
    return EmbeddedHttp(ChatServer(clock=by_hand.clock.wall), by_hand.clock)


@pytest.fixture
def front() -> Iterator[HttpFront]:
    """Run the embedded chat server on a port."""
    with HttpFront(ChatServer(ServerOptions(connect_timeout=2 * LONG))) as running:
        yield running


@pytest.fixture
def on_front(front: HttpFront) -> Iterator[Callable[..., WebChatService]]:
    """Make services that reach the embedded server over sockets, on threads."""
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
    """Run each function in a thread of its own; all threads end with the test."""
    started: list[threading.Thread] = []

    def run(*functions: Callable[[], object], join: bool = False) -> list[threading.Thread]:
        threads = [threading.Thread(target=function, name="test", daemon=True) for function in functions]
        started.extend(threads)
        for thread in threads:
            thread.start()
        for thread in threads if join else ():
            thread.join(LONG)
            assert not thread.is_alive()
        return threads

    yield run
    for thread in started:
        thread.join(LONG)


@pytest.fixture(name="eventually")
def give_eventually() -> Callable[[Callable[[], object]], None]:
    """Give the function that waits until a condition holds."""
    return eventually
