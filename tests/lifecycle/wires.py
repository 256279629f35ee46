"""The four transports side by side: a chat on each, and answers of any shape for its next poll or push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cometd.conftest import Line
from tests.cometd.gateway import KEYS, push
from tests.lifecycle.stage import Heard, Stage
from tests.nexus.stage import NexusStage
from webchat_fsm import WebChatService
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing import TestServer, Timeline

FIRST = 1_790_000_000_000


class Wire:
    """A chat whose next answers a test writes; `events` make messages that no server has said before."""

    def __init__(self, transport: Transport, stage: Any) -> None:
        self.transport, self.stage = transport, stage

    @property
    def chat(self) -> WebChatService:
        return self.stage.chat

    @property
    def heard(self) -> Heard:
        return self.stage.heard

    def start(self) -> None:
        self.stage.start()
        self.heard.take()

    def event(self, number: int, text: str = "", **more: Any) -> dict[str, Any]:
        """An agent's message with an index far behind all that the chat has."""
        if self.transport.gms:
            sender: dict[str, Any] = {"nickname": "Ann", "participantId": 2, "type": "Agent"}
            known = {"index": 10 + number, "type": "Message", "utcTime": FIRST + number, "from": sender}
        else:
            sender = {"nickname": "Ann", "participantId": "p2", "type": "Agent"}
            time = f"2027-01-01T00:00:00.{number:03}Z"
            known = {"index": f"{FIRST + number}-0", "type": "Text", "utcTime": time, "from": sender}
        return {**known, "text": text, **more}

    def envelope(self, *events: Any, **more: Any) -> dict[str, Any]:
        """A good answer with these events; keywords lie over its members."""
        if self.transport.gms:
            keys = KEYS if self.transport is Transport.COMETD else {}  # those of the embedded server stay
            return {"statusCode": 0, **keys, "chatEnded": False, "messages": list(events), **more}
        data = {"messages": list(events), "chatEnded": False, **more}
        return {"status": {"code": "SUCCESS"}, "data": data}

    def deliver(self, body: Any) -> None:
        """Let the next poll or connect bring it."""
        if self.transport is Transport.COMETD:
            self.stage.gateway.queue.append(push(body))
            self.stage.advance(1)
        else:
            self.answer("refresh", json.dumps(body).encode())
            self.chat.step()

    def answer(self, operation: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.stage.http.answer(operation, body, status, **headers)


@contextmanager
def wire(transport: Transport) -> Iterator[Wire]:
    """A transport with nothing begun."""
    timeline = Timeline()
    if transport is Transport.COMETD:
        line = Line(timeline)
        try:
            yield Wire(transport, line)
        finally:
            for chat in line.chats:
                chat.close()
    else:
        stage = Stage(timeline, TestServer(timeline)) if transport.gms else NexusStage(timeline, transport)
        try:
            yield Wire(transport, stage)
        finally:
            stage.server.close()
