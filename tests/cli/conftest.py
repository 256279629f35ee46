"""Run a chat server on a loopback port in this process, so that a test sees the requests of the other process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cli.running import TIMEOUT
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

KEY = "key-of-the-tests-0123456789"


@dataclass
class Backend:
    server: ChatServer
    url: str

    def requests_of(self, operation: str):
        return [logged for logged in self.server.requests if logged.operation == operation]

    def until_request(self, operation: str, **fields: str):
        """Wait until a request with these fields has arrived, and return the last one."""

        def matching():
            return [
                one for one in self.requests_of(operation) if all(one.fields.get(key) == fields[key] for key in fields)
            ]

        self.until(matching)
        return matching()[-1]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds at the server."""
        changed = threading.Event()
        unsubscribe = self.server.on_change(changed.set)
        try:
            while not condition():
                assert changed.wait(TIMEOUT), "the awaited change did not happen at the server"
                changed.clear()
        finally:
            unsubscribe()


@pytest.fixture
def options() -> ServerOptions:
    return ServerOptions()


@pytest.fixture
def backend(options: ServerOptions):
    server = ChatServer(options)
    with HttpFront(server) as front:
        yield Backend(server, front.data_url())
