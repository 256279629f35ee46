"""Provide the fixtures of the server tests: a small v2 client, and servers that it sends its requests to."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from webchat_fsm.server import ChatServer, HttpRequest, ServerOptions

BASE = "/genesys/2/chat/customer-support"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Rest:
    """Send the REST requests of one visitor to a server without sockets; a test sets the time by `now`."""

    def __init__(self, server: ChatServer, now: float = 1000.0) -> None:
        self.server = server
        self.now = now
        self.ids: dict[str, str] = {}

    def post(self, path: str, fields=None, *, headers=None, body: bytes | None = None):
        content = urlencode(fields or {}).encode() if body is None else body
        return self.server.handle(HttpRequest("POST", path, {**FORM, **(headers or {})}, content), self.now)

    def start(self, **fields: str):
        envelope = self.post(BASE, fields or {"nickname": "Jonny"}).json()
        self.ids = {name: envelope[name] for name in ("secureKey", "userId", "alias")}
        self.chat_id = envelope["chatId"]
        return envelope

    def ask(self, operation: str, **fields: object):
        return self.post(f"{BASE}/{self.chat_id}/{operation}", {**self.ids, **fields})

    def call(self, operation: str, **fields: object):
        answer = self.ask(operation, **fields)
        assert answer.status == 200, answer
        return answer.json()

    def refresh(self, position: int | None = 1):
        return self.call("refresh", **({} if position is None else {"transcriptPosition": position}))

    def upload(self, name: str, content: bytes, **fields: str):
        body, kind = multipart({**self.ids, **fields}, {"file": (name, content)})
        path = f"{BASE}/{self.chat_id}/file"
        return self.server.handle(HttpRequest("POST", path, {"content-type": kind}, body), self.now)


def multipart(fields, files, boundary: str = "xBoundaryx") -> tuple[bytes, str]:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: image/png\r\n\r\n'.encode()
        + content
        for name, (file, content) in files.items()
    ]
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return body + b"--" + boundary.encode() + b"--\r\n", f"multipart/form-data; boundary={boundary}"


def types_of(envelope) -> list[str]:
    return [message["type"] for message in envelope["messages"]]


@pytest.fixture
def visit():
    """Return a maker of visitors, each to a new server with these options."""

    def make(**options: object) -> Rest:
        return Rest(ChatServer(ServerOptions(**options)))

    return make


@pytest.fixture
def visitor(visit) -> Rest:
    """Return a visitor whose chat has started, on a server with default options."""
    started = visit()
    started.start()
    return started


@pytest.fixture
def types():
    return types_of


@pytest.fixture
def make_multipart():
    return multipart


@pytest.fixture
def rest_class():
    return Rest
