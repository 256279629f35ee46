"""The embedded server of a test, with clients that talk to it without sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.runtime.store import SessionStore
from webchat_fsm.server import ChatServer, Faults, Person, ServerOptions
from webchat_fsm.server.script import Script
from webchat_fsm.testing.embedded import EmbeddedHttp
from webchat_fsm.testing.timeline import Timeline

HOST = "http://chat.test"
_NEXUS = {
    "type": "pureengage-v3-rest",
    "dataURL": f"{HOST}/nexus/v3/chat/sessions",
    "endpoint": "customer-support",
    "headers": {"x-api-key": "test-key"},
}
CONFIGS: dict[Transport, dict[str, Any]] = {
    Transport.V2: {"dataURL": f"{HOST}/genesys/2/chat/customer-support"},
    Transport.COMETD: {
        "cometD": {"enabled": True, "cometURL": f"{HOST}/genesys/cometd", "apiURL": f"{HOST}/genesys/2/chat-ntf"}
    },
    Transport.V3: {"transport": _NEXUS},
    Transport.V3_ASYNC: {"transport": {**_NEXUS, "async": {"enabled": True}}},
}
"""The configurations with which a client of each transport finds the embedded server."""


WITHOUT_SOCKETS = ServerOptions(reconnect_interval=0.5, gateway_delay=0.0, push_with_publish=True)
"""Without sockets a long poll is answered at once, so a CometD client is asked to pause between two of them."""


class TestServer:
    """A chat server on a timeline: `client` gives services that talk to it, `agent` and the others people who answer."""

    __test__ = False

    def __init__(
        self, timeline: Timeline, options: ServerOptions | None = None, *, script: Script | None = None
    ) -> None:
        self.timeline = timeline
        self.core = ChatServer(options or WITHOUT_SOCKETS, script=script, clock=timeline.clock.wall)
        self.clients: list[WebChatService] = []

    def client(
        self,
        transport: Transport | str = Transport.V2,
        config: Mapping[str, Any] | None = None,
        store: SessionStore | None = None,
    ) -> WebChatService:
        """A service on the manual driver, not opened yet; `config` adds to what it needs to find the server."""
        merged = {**CONFIGS[Transport(transport)], **(config or {})}
        http = EmbeddedHttp(self.core, self.timeline.clock)
        chat = WebChatService(merged, store=store, http=http, driver=self.timeline.driver)
        self.clients.append(chat)
        return chat

    def agent(self, name: str) -> Person:
        """An agent, who has yet to join."""
        return self.core.agent(name)

    def supervisor(self, name: str) -> Person:
        """A supervisor, who has yet to join."""
        return self.core.supervisor(name)

    def bot(self, name: str) -> Person:
        """A bot, which has yet to join."""
        return self.core.bot(name)

    def end(self) -> None:
        """End the chat from the server's side."""
        self.core.end()

    @property
    def faults(self) -> Faults:
        """What is going to go wrong: ``faults.add(operation="refresh", server_status=1, times=6)``."""
        return self.core.faults

    def close(self) -> None:
        """Close every client."""
        for chat in self.clients:
            chat.close()
