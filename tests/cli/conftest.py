"""A chat server on a loopback port, in this process, so that a test sees what the other process has asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cli.running import PATIENCE
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

KEY = "key-of-the-tests-0123456789"


@dataclass
class Centre:
    server: ChatServer
    url: str

    def asked(self, operation: str):
        return [logged for logged in self.server.requests if logged.operation == operation]

    def until_asked(self, operation: str, **fields: str):
        """Wait until a request with these fields has come."""

        def there():
            return [one for one in self.asked(operation) if all(one.fields.get(key) == fields[key] for key in fields)]

        self.until(there)
        return there()[-1]

    def until(self, there: Callable[[], object]) -> None:
        """Wait for something at the server."""
        changed = threading.Event()
        forget = self.server.on_change(changed.set)
        try:
            while not there():
                assert changed.wait(PATIENCE), "what was awaited did not happen at the server"
                changed.clear()
        finally:
            forget()


@pytest.fixture
def options() -> ServerOptions:
    return ServerOptions()


@pytest.fixture
def centre(options: ServerOptions):
    server = ChatServer(options)
    with HttpFront(server) as front:
        yield Centre(server, front.data_url())
