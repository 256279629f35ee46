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


_NOT_RECORDED = (
    "no such client is recorded: ask for the fixture webchat_recording, or set `records`, before it is made; "
    "a service of your own writes itself down with recorder=Recorder()"
)


def way(transport: Transport | str) -> Transport:
    """A transport by its name; raises `ValueError` for one that there is not."""
    try:
        return Transport(transport)
    except ValueError:
        raise ValueError(f"there is no transport {transport!r}; there are {', '.join(Transport)}") from None


def merged(config: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """A configuration with more laid over it; a section that both have is merged."""
    whole = dict(config)
    for key, value in more.items():
        known = whole.get(key)
        whole[key] = {**known, **value} if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return whole


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
        self.base: int | None = None
        """The seed that, given as `seed`, repeats all that was drawn without one; None where nothing was."""
        self._seed = seed
        self._drawn = 0
        self._plan = Plan(timeline.clock_jump)

    def client(
        self,
        transport: Transport | str = Transport.V2,
        config: Mapping[str, Any] | None = None,
        store: SessionStore | None = None,
    ) -> WebChatService:
        """A service on the manual driver, not opened yet; `config` adds to what it needs to find the server."""
        given = self.config(transport, config)
        recorder = Recorder() if self.records else None
        chat = WebChatService(given, store=store, http=self.http(), driver=self.timeline.driver, recorder=recorder)
        self.clients.append(chat)
        if recorder is not None:
            self.recorders.append((chat, recorder))
        return chat

    def config(self, transport: Transport | str = Transport.V2, config: Mapping[str, Any] | None = None) -> Json:
        """The configuration of such a client; a section that both have is merged."""
        return merged(CONFIGS[way(transport)], config or {})

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
            raise LookupError(_NOT_RECORDED)
        return Recording.of(known[-1])

    def load_faults(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Let go wrong what a list says, as `webchat_fsm.testing.chaos` describes it.

        Raises `TypeError` for an unknown key and `ValueError` for a value that cannot be, with the entry and the key;
        nothing of such a list is taken on.
        """
        self._plan.load(faults)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more, neither what was added nor what a list says."""
        self.faults.clear()
        self._plan.clear()

    def draw_faults(
        self, seed: int | None = None, count: int = 10, *, transport: Transport | str | None = None, attempts: int = 20
    ) -> list[dict[str, Any]]:
        """Let something go wrong by chance; the seed is shown where the test fails.

        Without a seed the draws of a test begin with that of the command line (`--webchat-seed`), else with a new one,
        and each further draw takes the next number. Without a transport it is that of the client made last, else v2.
        """
        chosen = self._next_seed() if seed is None else seed
        self.seeds.append(chosen)
        last = self.clients[-1].config.way if self.clients else Transport.V2
        faults = drawn(chosen, last if transport is None else way(transport), count, attempts=attempts)
        self.load_faults(faults)
        return faults

    def _next_seed(self) -> int:
        if self.base is None:
            self.base = random.SystemRandom().randrange(2**32) if self._seed is None else self._seed
        self._drawn += 1
        return self.base + self._drawn - 1

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
