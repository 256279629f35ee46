"""Provide the fixtures for v2 over CometD: `env` with the embedded server, `line` with a scripted gateway."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.cometd.gateway import Gateway
from tests.lifecycle.environment import ChatEnvironment, Heard
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm._bayeux import rules
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._bench import CONFIGS


class Line:
    """Connects a service to a scripted gateway; a test sets the time by `advance`."""

    def __init__(self, timeline):
        self.timeline, self.store = timeline, MemoryStore()
        self.gateway = Gateway(timeline.clock)
        self.chats: list[WebChatService] = []
        self.chat: WebChatService
        self.heard: Heard

    def client(self, **config) -> WebChatService:
        merged = {**CONFIGS[Transport.COMETD], **config}
        self.chat = WebChatService(merged, store=self.store, http=self.gateway, driver=self.timeline.driver)
        self.chats.append(self.chat)
        self.heard = Heard(self.chat)
        return self.chat

    def open(self, **config) -> WebChatService:
        self.client(**config).open()
        return self.chat

    def start(self, **config) -> WebChatService:
        """Start a chat, let the first connects be answered, and discard the events recorded so far."""
        self.open(**config).start_chat(nickname="Jonny")
        # The first connect has timeout 0; the second follows after the advised interval of 0.5 s.
        self.timeline.advance(0.6)
        self.heard.take()
        return self.chat

    def again(self, away: float = 1.0, **config) -> WebChatService:
        """Close the service, pass `away` seconds, and make a new service of the same store without opening it."""
        self.chat.close()
        self.timeline.advance(away)
        return self.client(**config)

    def advance(self, seconds: float) -> None:
        self.timeline.advance(seconds)


@pytest.fixture
def env(webchat_timeline, webchat_server) -> ChatEnvironment:
    """Provide an environment whose service uses CometD with the embedded server."""
    return ChatEnvironment(webchat_timeline, webchat_server, Transport.COMETD)


@pytest.fixture
def short_backoff(monkeypatch):
    """Repeat what has failed after 50 ms instead of a second, where time is real."""
    monkeypatch.setattr(rules, "BACKOFF", replace(rules.BACKOFF, step=0.05))


@pytest.fixture
def line(webchat_timeline):
    """Provide a line to a scripted gateway and close each of its services at the end."""
    line = Line(webchat_timeline)
    yield line
    for chat in line.chats:
        chat.close()
