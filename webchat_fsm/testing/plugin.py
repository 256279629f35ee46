"""The pytest plugin: fixtures for tests of code that chats."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.testing.bench import TestServer
from webchat_fsm.testing.timeline import Timeline


@pytest.fixture
def webchat_timeline() -> Timeline:
    """Time that moves only when the test says so."""
    return Timeline()


@pytest.fixture
def webchat_server(webchat_timeline: Timeline) -> Iterator[TestServer]:
    """The embedded chat server on the timeline, without sockets; its clients are closed at the end."""
    server = TestServer(webchat_timeline)
    yield server
    server.close()


@pytest.fixture
def webchat(webchat_server: TestServer) -> WebChatService:
    """An opened service on the embedded server."""
    chat = webchat_server.client()
    chat.open()
    return chat
