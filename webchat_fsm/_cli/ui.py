"""The page of `serve --ui` over HTTP, for this machine alone: its guard, its routes, and the server that it runs in.

Every address begins with a random token. Requests must name this server in `Host`, so that no foreign name that
resolves to this machine is served, and must not come from another page.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec

from webchat_fsm import ConfigError, WebChatError
from webchat_fsm._cli.live import Live, Order, reason_of
from webchat_fsm._json import json_to_keep
from webchat_fsm.diagram._explorer import page
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import HttpRequest, ServerAnswer

HELD = 20.0
"""Seconds for which a request for further entries is held."""

LARGEST = 64 * 1024
"""Bytes of a body at most."""

STALLED = 10.0
"""Seconds after which a connection that sends nothing is closed."""

OPERATIONS = ("refresh", "connect", "send", "start", "session", "disconnect", "startTyping", "updateData", "file")
"""Operations that the page offers for faults; `Faults.add` knows their other names too."""

DRAWING = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<meta name="color-scheme" content="light dark"><title>webchat_fsm</title></head>
<body><p role="status">The lifecycle is being drawn, which takes a few seconds. The page opens by itself.</p></body>
</html>
"""
"""What is shown until the drawings are made; it is loaded again each second."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The address has the token, which no other server is to read.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def check_loopback(host: str) -> None:
    """Raise `WebChatError` for an address that is not of this machine alone."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be that of any machine
        loopback = False
    if not loopback:
        raise WebChatError(f"--ui: expected a loopback --host such as 127.0.0.1 or ::1, got {host!r}")


class Ui:
    """Answers the requests of the page; `origin` is scheme, host and port at which it is served."""

    def __init__(self, live: Live, origin: str, token: str) -> None:
        self._live, self._origin, self._token = live, origin, token
        self.drawn = threading.Event()
        """Set by the server once the page can be made at once."""

    def answer(self, request: HttpRequest) -> ServerAnswer:
        """Return the answer to a request; 403 without the token, or from another page."""
        token, _, name = request.path.removeprefix("/").partition("/")
        # First the token, in constant time: without it nothing else is disclosed.
        if not secrets.compare_digest(token.encode(), self._token.encode()) or self._is_foreign(request):
            return _text(403, "open the whole address that webchat-fsm serve --ui has printed")
        route = _ROUTES.get((request.method, name))
        if route is None:
            return _text(404, f"there is no {request.method} {name}")
        try:
            if route is _show and not self.drawn.is_set():
                return ServerAnswer(200, {**_HTML, "refresh": "1"}, DRAWING.encode())
            return route(self._live, request)
        except ConfigError as error:
            return _json(400, {"error": str(error)})
        except WebChatError as error:
            return _json(409, {"error": reason_of(error)})

    def _is_foreign(self, request: HttpRequest) -> bool:
        """Return whether a request names another host, or comes from a page of another origin."""
        origin = request.headers.get("origin", self._origin)
        # Browsers that are recent enough send it; others are checked by `origin`, which a POST always carries.
        site = request.headers.get("sec-fetch-site", "none")
        named = f"http://{request.headers.get('host', '')}"
        return named != self._origin or origin != self._origin or site not in ("none", "same-origin")


_HTML = {"content-type": "text/html; charset=utf-8"}


def _show(live: Live, request: HttpRequest) -> ServerAnswer:
    about = {"transports": [*Transport], "operations": OPERATIONS, "server": live.url}
    return ServerAnswer(200, _HTML, page(live=about).encode())


def _save(live: Live, request: HttpRequest) -> ServerAnswer:
    recording = live.feed.recording()
    if recording is None:
        raise WebChatError("no chat has been started here: start one first")
    headers = {**_HTML, "content-disposition": 'attachment; filename="webchat-session.html"'}
    return ServerAnswer(200, headers, page(recording).encode())


def _entries(live: Live, request: HttpRequest) -> ServerAnswer:
    given = parse_qs(request.query).get("after", ["0"])[0]
    if not given.isdecimal() or len(given) > 12:
        raise ConfigError("after", f"expected the number of an entry, got {given!r}")
    return _json(200, live.entries(int(given), HELD))


def _customer(live: Live, request: HttpRequest) -> ServerAnswer:
    order = _read(request, Order)
    actions: dict[str, Callable[[], None]] = {
        "start": lambda: live.start(order.transport, order.nickname),
        "send": lambda: live.send(order.text),
        "end": live.end,
        "leave": live.leave,
        "restore": live.restore,
    }
    if order.do not in actions:
        raise ConfigError("do", f"expected one of {', '.join(actions)}, got {order.do!r}")
    actions[order.do]()
    return _json(200, {})


def _agent(live: Live, request: HttpRequest) -> ServerAnswer:
    order = _read(request, Order)
    live.agent(order.do, order.text)
    return _json(200, {})


def _fault(live: Live, request: HttpRequest) -> ServerAnswer:
    live.add_fault(_read(request, dict[str, Any]))
    return _json(200, {})


def _clear(live: Live, request: HttpRequest) -> ServerAnswer:
    live.clear_faults()
    return _json(200, {})


_ROUTES: dict[tuple[str, str], Callable[[Live, HttpRequest], ServerAnswer]] = {
    ("GET", ""): _show,
    ("GET", "session.html"): _save,
    ("GET", "entries"): _entries,
    ("POST", "customer"): _customer,
    ("POST", "agent"): _agent,
    ("POST", "fault"): _fault,
    ("POST", "clear"): _clear,
}
"""By method and by what follows the token in the path."""


def _read(request: HttpRequest, kind: Any) -> Any:
    """Return the body as a value of a type; raises `ConfigError` for any other."""
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("body", f"expected JSON: {error}") from error


def _json(status: int, value: object) -> ServerAnswer:
    return ServerAnswer(status, {"content-type": "application/json"}, json_to_keep(value))


def _text(status: int, text: str) -> ServerAnswer:
    return ServerAnswer(status, {"content-type": "text/plain; charset=utf-8"}, text.encode())


class UiServer(ThreadingHTTPServer):
    """The page on a free loopback port; a context manager that ends the chat, the connections and all threads on exit.

    The drawings, which take seconds, are made in a thread of their own from the beginning on.
    Raises `WebChatError` for an address that is not loopback, and `OSError` where none can be bound.
    """

    daemon_threads = False  # `server_close` waits for the threads

    def __init__(self, live: Live, host: str) -> None:
        check_loopback(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, 0), _Handler)
        self.live = live
        token = secrets.token_urlsafe()
        origin = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"
        self.ui = Ui(live, origin, token)
        self.url = f"{origin}/{token}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="webchat-ui")
        self._drawing = threading.Thread(target=self._draw, name="webchat-ui-drawing")

    def __enter__(self) -> UiServer:
        self._thread.start()
        self._drawing.start()
        return self

    def _draw(self) -> None:
        try:
            page()
        finally:  # where it fails, each request of the page fails by itself
            self.ui.drawn.set()

    def __exit__(self, *args: object) -> None:
        self.live.close()
        self.shutdown()
        self._thread.join()
        self._drawing.join()
        # Browsers open connections in advance, whose threads would wait for a request.
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the page has closed it meanwhile
                    connection.shutdown(socket.SHUT_RD)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, and answer it in a thread of its own."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and close it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    """Reads one request of a connection and answers it; HTTP/1.0, so that no connection is kept."""

    timeout = STALLED

    def handle(self) -> None:
        """Answer the request, unless the page is closed meanwhile."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer(b"")

    def do_POST(self) -> None:
        """Answer a POST, whose body must announce its length."""
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 12 or int(length) > LARGEST:
            self._send(_text(413, f"expected a content-length of {LARGEST} bytes at most"))
        else:
            self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes) -> None:
        ui = cast(UiServer, self.server).ui
        self._send(ui.answer(HttpRequest.of(self.command, self.path, dict(self.headers.items()), body)))

    def _send(self, answer: ServerAnswer) -> None:
        self.send_response(answer.status)
        for name, value in {**HEADERS, **answer.headers, "content-length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the standard library
        """Print no line for a request."""
