"""Fixtures for v2 over CometD: a stage with the embedded server, and one with a gateway that says what a test wants."""

from __future__ import annotations

import pytest

from tests.cometd.gateway import Gateway
from tests.lifecycle.stage import Heard, Stage
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing.bench import CONFIGS


class Line:
    """A service that talks to a scripted gateway in moved time."""

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
        """A chat in which the first connects have been answered, and nothing is left to hear."""
        self.open(**config).start_chat(nickname="Jonny")
        self.timeline.advance(0.6)
        self.heard.take()
        return self.chat

    def again(self, away: float = 1.0, **config) -> WebChatService:
        """Leave orderly, and a new service that is not opened yet."""
        self.chat.close()
        self.timeline.advance(away)
        return self.client(**config)

    def advance(self, seconds: float) -> None:
        self.timeline.advance(seconds)


@pytest.fixture
def stage(webchat_timeline, webchat_server) -> Stage:
    """A stage on which CometD is spoken with the embedded server."""
    return Stage(webchat_timeline, webchat_server, Transport.COMETD)


@pytest.fixture
def line(webchat_timeline):
    """A line to a scripted gateway."""
    line = Line(webchat_timeline)
    yield line
    for chat in line.chats:
        chat.close()
