"""The embedded server of a test, with clients that talk to it without sockets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.runtime.store import SessionStore
from webchat_fsm.server import ChatServer, Faults, Person, ServerOptions
from webchat_fsm.server.script import Script
from webchat_fsm.testing.chaos import Plan, drawn
from webchat_fsm.testing.embedded import EmbeddedHttp
from webchat_fsm.testing.recorder import Recorder
from webchat_fsm.testing.recording import Recording
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
    """A chat server on a timeline: `client` gives services that talk to it, `agent` and others people who answer."""

    __test__ = False

    def __init__(
        self,
        timeline: Timeline,
        options: ServerOptions | None = None,
        *,
        script: Script | None = None,
        seed: int | None = None,
    ) -> None:
        self.timeline = timeline
        self.core = ChatServer(options or WITHOUT_SOCKETS, script=script, clock=timeline.clock.wall)
        self.clients: list[WebChatService] = []
        self.recorders: list[tuple[WebChatService, Recorder]] = []
        self.records = False
        """Whether every client from now on is recorded."""
        self.seeds: list[int] = []
        """The seeds from which faults were drawn."""
        self._seed = seed
        self._plan = Plan(self.core.faults, timeline.clock_jump)

    def client(
        self,
        transport: Transport | str = Transport.V2,
        config: Mapping[str, Any] | None = None,
        store: SessionStore | None = None,
    ) -> WebChatService:
        """A service on the manual driver, not opened yet; `config` adds to what it needs to find the server."""
        merged = self.config(transport, config)
        recorder = Recorder() if self.records else None
        chat = WebChatService(merged, store=store, http=self.http(), driver=self.timeline.driver, recorder=recorder)
        self.clients.append(chat)
        if recorder is not None:
            self.recorders.append((chat, recorder))
        return chat

    def config(self, transport: Transport | str = Transport.V2, config: Mapping[str, Any] | None = None) -> Json:
        """The configuration of such a client; a section that both have is merged."""
        merged = dict(CONFIGS[Transport(transport)])
        for key, value in (config or {}).items():
            known = merged.get(key)
            merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
        return merged

    def http(self) -> EmbeddedHttp:
        """A way to this server for a service that code under test makes by itself, with `timeline.driver`."""
        return EmbeddedHttp(
            self.core,
            self.timeline.clock,
            wait_until=self.timeline.driver.wait_until,
            awaiting=self.timeline.awaiting,
            asking=self._plan.asking,
        )

    def recording(self, chat: WebChatService | None = None) -> Recording:
        """What a client has done so far, by default the one made last; raises `LookupError` for one not recorded."""
        known = [recorder for one, recorder in self.recorders if chat in (None, one)]
        if not known:
            raise LookupError("no such client is recorded: set `records` before it is made")
        return Recording.of(known[-1])

    def load_faults(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Let go wrong what a list says, as `webchat_fsm.testing.chaos` describes it."""
        self._plan.load(faults)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more, neither what was added nor what a list says."""
        self.faults.clear()
        self._plan.clear()

    def draw_faults(
        self, seed: int | None = None, count: int = 10, *, transport: Transport | str = Transport.V2, attempts: int = 20
    ) -> list[dict[str, Any]]:
        """Let something go wrong by chance; the seed is shown where the test fails.

        Without one it is that of the command line (`--webchat-seed`), else a new one each time.
        """
        given = self._seed if seed is None else seed
        chosen = random.SystemRandom().randrange(2**32) if given is None else given
        self.seeds.append(chosen)
        faults = drawn(chosen, Transport(transport), count, attempts=attempts)
        self.load_faults(faults)
        return faults

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
