"""Provide one test environment for all four transports, with responses of any shape for the next poll or push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cometd.conftest import Line
from tests.cometd.gateway import KEYS, push
from tests.lifecycle.environment import ChatEnvironment, Heard
from tests.nexus.environment import NexusEnvironment
from webchat_fsm import WebChatService
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

FIRST = 1_790_000_000_000


class Wire:
    """Holds a chat whose next responses are given by the test."""

    def __init__(self, transport: Transport, env: Any) -> None:
        self.transport, self.env = transport, env

    @property
    def chat(self) -> WebChatService:
        return self.env.chat

    @property
    def heard(self) -> Heard:
        return self.env.heard

    def start(self) -> None:
        self.env.start()
        self.heard.take()

    def event(self, number: int, text: str = "", **more: Any) -> dict[str, Any]:
        """Build a message of an agent with an index after all messages of the chat."""
        if self.transport.gms:
            sender: dict[str, Any] = {"nickname": "Ann", "participantId": 2, "type": "Agent"}
            known = {"index": 10 + number, "type": "Message", "utcTime": FIRST + number, "from": sender}
        else:
            sender = {"nickname": "Ann", "participantId": "p2", "type": "Agent"}
            time = f"2027-01-01T00:00:00.{number:03}Z"
            known = {"index": f"{FIRST + number}-0", "type": "Text", "utcTime": time, "from": sender}
        return {**known, "text": text, **more}

    def envelope(self, *events: Any, **more: Any) -> dict[str, Any]:
        """Build a successful response with these events; keywords override its members."""
        if self.transport.gms:
            keys = KEYS if self.transport is Transport.COMETD else {}  # those of the embedded server stay
            return {"statusCode": 0, **keys, "chatEnded": False, "messages": list(events), **more}
        data = {"messages": list(events), "chatEnded": False, **more}
        return {"status": {"code": "SUCCESS"}, "data": data}

    def deliver(self, body: Any) -> None:
        """Return a body with the next poll or connect."""
        if self.transport is Transport.COMETD:
            self.env.gateway.queue.append(push(body))
            self.env.advance(1)
        else:
            self.answer("refresh", json.dumps(body).encode())
            self.chat.step()

    def answer(self, operation: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.env.http.answer(operation, body, status, **headers)


@contextmanager
def wire(transport: Transport) -> Iterator[Wire]:
    """Set up a transport without a chat."""
    timeline = Timeline()
    if transport is Transport.COMETD:
        line = Line(timeline)
        try:
            yield Wire(transport, line)
        finally:
            for chat in line.chats:
                chat.close()
    else:
        env = (
            ChatEnvironment(timeline, TestServer(timeline)) if transport.gms else NexusEnvironment(timeline, transport)
        )
        try:
            yield Wire(transport, env)
        finally:
            env.server.close()
