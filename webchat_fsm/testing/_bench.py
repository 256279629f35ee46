"""The embedded server of a test, its clients without sockets, and their recordings."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from webchat_fsm._errors import TransportError
from webchat_fsm._model import Json
from webchat_fsm._runtime.clock import Clock
from webchat_fsm._runtime.service import WebChatService
from webchat_fsm._runtime.store import SessionStore
from webchat_fsm._wire.request import CUT, LATE, LOST, TOO_LARGE, TORN, HttpAnswer, Request, encoded
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ChatServer, Fault, Faults, HttpRequest, Person, Script, ServerAnswer, ServerOptions
from webchat_fsm.testing._chaos import Plan, draw_faults
from webchat_fsm.testing._recorder import Recorder
from webchat_fsm.testing._recording import Recording
from webchat_fsm.testing._replay import Known, Replay, replay, state_at
from webchat_fsm.testing._timeline import Timeline

# A reserved name (RFC 6761): a request that leaves the kit by mistake cannot reach a real server.
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
"""The configurations with which a client of each transport reaches the embedded server."""

_NOT_RECORDED = (
    "no such client is recorded: ask for the fixture webchat_recording, or set `records`, before it is made; "
    "pass recorder=Recorder() to a service of your own"
)


def transport_named(transport: Transport | str) -> Transport:
    """Return a transport by its name; raises `ValueError` for an unknown one."""
    try:
        return Transport(transport)
    except ValueError:
        raise ValueError(f"there is no transport {transport!r}; there are {', '.join(Transport)}") from None


def merged(config: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """Return a configuration with further settings; a section that both have is merged."""
    whole = dict(config)
    for key, value in more.items():
        known = whole.get(key)
        whole[key] = {**known, **value} if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return whole


WITHOUT_SOCKETS = ServerOptions(reconnect_interval=0.5, gateway_delay=0.0, push_with_publish=True)
"""Default options: without sockets a long poll is answered at once, so the advice makes a CometD client pause."""


Awaiting = Callable[[str, float], AbstractContextManager[None]]


def _failed(request: Request, fault: str) -> TransportError:
    return TransportError(f"{request.operation}: {fault}")


# The default outside a timeline, which has no list of pending deadlines.
def _not_listed(operation: str, deadline: float) -> AbstractContextManager[None]:
    return nullcontext()


class EmbeddedHttp:
    """Carries requests to a `ChatServer` in this process; a slow answer lets time pass instead of blocking.

    `wait_until(moment)` lets time pass until a timer time of the clock, by default by moving the clock alone.
    `awaiting(operation, deadline)` is entered while a slow request is in flight. `asking(operation)` is called before
    each request and returns its faults.
    """

    def __init__(
        self,
        server: ChatServer,
        clock: Clock,
        *,
        wait_until: Callable[[float], None] | None = None,
        awaiting: Awaiting = _not_listed,
        asking: Callable[[str], Sequence[Fault]] = lambda operation: (),
    ) -> None:
        self._server, self._clock = server, clock
        self._wait_until = wait_until or clock.sleep_until
        self._awaiting, self._asking = awaiting, asking
        self._cookies: SimpleCookie = SimpleCookie()
        self._cut = 0

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where faults of the server leave no complete answer."""
        planned = self._asking(request.operation)  # before the clock is read, as a fault may make it jump
        answer = self._server.handle(self._server_request(request), self._clock.wall(), planned=planned)
        self._delay(request, answer.delay)
        if answer.fate != "whole":
            raise _failed(request, LOST if answer.fate == "drop" else TORN)
        if len(answer.body) > request.max_size:
            raise _failed(request, TOO_LARGE.format(most=request.max_size))
        return self._http_answer(answer)

    def _server_request(self, request: Request) -> HttpRequest:
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["content-type"] = content_type
        if self._cookies:  # a gateway keeps a session on one node by its cookie; the kit returns it like a browser
            headers["cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in self._cookies.items())
        # Scheme and host are dropped: there is one server, and code under test may have configured any URL.
        parts = urlsplit(request.url)
        return HttpRequest.of(request.method, f"{parts.path}?{parts.query}".rstrip("?"), headers, body)

    def _delay(self, request: Request, delay: float) -> None:
        """Let other timers run until this answer arrives; raises `TransportError` on `cut` and after the deadline."""
        if not delay:
            return
        # The deadline is a timer time: a jump of the wall clock must not make a request late.
        started, cuts = self._clock.timer(), self._cut
        deadline = math.inf if request.timeout is None else started + request.timeout
        arrives = started + delay
        with self._awaiting(request.operation, min(arrives, deadline)):
            self._wait_until(min(arrives, deadline))
        # A cut is checked before lateness: a service that is closed reports that, even after the deadline.
        if self._cut != cuts:
            raise _failed(request, CUT)
        if arrives > deadline:
            raise _failed(request, LATE.format(timeout=f"{request.timeout:g}"))

    def _http_answer(self, answer: ServerAnswer) -> HttpAnswer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if "set-cookie" in headers:
            self._cookies.load(headers["set-cookie"])
        return HttpAnswer(status=answer.status, headers=headers, body=answer.body)

    def cut(self) -> None:
        """Fail the requests that are in flight, as `Http.cut` does when a service is closed."""
        # Counted, not set: a request that begins after the cut must not fail by it.
        self._cut += 1

    def close(self) -> None:
        """Do nothing: there are no connections to close."""


class TestServer:
    """A chat server on a timeline: `client` makes services that use it, `agent` and others people who answer."""

    # pytest would collect a class whose name begins with Test.
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
        self.core: ChatServer = ChatServer(options or WITHOUT_SOCKETS, script=script, clock=timeline.clock.wall)
        self.clients: list[WebChatService] = []
        self.recorders: list[tuple[WebChatService, Recorder]] = []
        self.records = False
        """Whether clients made from now on are recorded."""
        self.seeds: list[int] = []
        """The seeds from which faults were drawn."""
        self.base: int | None = None
        """The seed that repeats all draws made without one; None where there were none."""
        self._seed = seed
        self._drawn = 0
        self._plan = Plan(timeline.clock_jump)

    def client(
        self,
        transport: Transport | str = Transport.V2,
        config: Mapping[str, Any] | None = None,
        store: SessionStore | None = None,
    ) -> WebChatService:
        """Return a service on the manual driver, not opened yet; `config` adds to the settings for the server."""
        given = self.config(transport, config)
        recorder = Recorder() if self.records else None
        chat = WebChatService(given, store=store, http=self.http(), driver=self.timeline.driver, recorder=recorder)
        # Not opened here: a test may subscribe its handlers first, so that it sees the events of the opening.
        self.clients.append(chat)
        if recorder is not None:
            self.recorders.append((chat, recorder))
        return chat

    def config(self, transport: Transport | str = Transport.V2, config: Mapping[str, Any] | None = None) -> Json:
        """Return the configuration of such a client; a section that both have is merged."""
        return merged(CONFIGS[transport_named(transport)], config or {})

    def http(self) -> EmbeddedHttp:
        """Return the `http=` for a service that code under test makes by itself, with `timeline.driver`."""
        return EmbeddedHttp(
            self.core,
            self.timeline.clock,
            wait_until=self.timeline.driver.wait_until,
            awaiting=self.timeline.awaiting,
            asking=self._plan.asking,
        )

    def recording(self, chat: WebChatService | None = None) -> Recording:
        """Return the recording of a client, by default of the last one; raises `LookupError` for one not recorded."""
        known = [recorder for one, recorder in self.recorders if chat in (None, one)]
        if not known:
            raise LookupError(_NOT_RECORDED)
        return Recording.of(known[-1])

    def load_faults(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Plan the faults of a list: an operation, its attempts, and the fields of `webchat_fsm.server.Fault`.

        Raises `TypeError` for an unknown key and `ValueError` for an impossible value, with the entry and the key;
        nothing of such a list is planned.
        """
        self._plan.load(faults)

    def clear_faults(self) -> None:
        """Remove all faults, those that were added and those of lists."""
        self.faults.clear()
        self._plan.clear()

    def draw_faults(
        self, seed: int | None = None, count: int = 10, *, transport: Transport | str | None = None, attempts: int = 20
    ) -> list[dict[str, Any]]:
        """Plan `count` random faults and return them; the report of a failing test shows the seed.

        Without a seed the first draw of a test takes that of the command line (`--webchat-seed`), else a new one, and
        each further draw the next number. The default transport is that of the last client, else v2.
        """
        chosen = self._next_seed() if seed is None else seed
        self.seeds.append(chosen)
        # Members of messages lie elsewhere in v3, so the draw depends on the transport.
        last = self.clients[-1].config.way if self.clients else Transport.V2
        used = last if transport is None else transport_named(transport)
        faults = draw_faults(chosen, used, count, attempts=attempts)
        self.load_faults(faults)
        return faults

    def _next_seed(self) -> int:
        if self.base is None:
            # Not the global generator: a test that seeds it would draw the same faults in every run.
            self.base = random.SystemRandom().randrange(2**32) if self._seed is None else self._seed
        # The next number, so that each draw differs and one seed on the command line repeats them all.
        self._drawn += 1
        return self.base + self._drawn - 1

    def agent(self, name: str) -> Person:
        """Return an agent, who has yet to join; it acts on the chat started last unless another is named."""
        return self.core.agent(name)

    def supervisor(self, name: str) -> Person:
        """Return a supervisor, who has yet to join; a chat with one in it is `monitored`."""
        return self.core.supervisor(name)

    def bot(self, name: str) -> Person:
        """Return a bot, which has yet to join; v2 shows it as an agent with an event attribute, v3 as a Bot."""
        return self.core.bot(name)

    def end(self) -> None:
        """End the chat started last from the server's side; its client reads it in the next poll."""
        self.core.end()

    @property
    def faults(self) -> Faults:
        """Return the planned faults: ``faults.add(operation="refresh", server_status=1, times=6)``."""
        return self.core.faults

    def close(self) -> None:
        """Close every client that `client` has made."""
        for chat in self.clients:
            chat.close()


class Recordings:
    """The recordings of the clients of a server; `chat` is by default the client made last."""

    def __init__(self, server: TestServer) -> None:
        self._server = server

    def of(self, chat: WebChatService | None = None) -> Recording:
        """Return the recording of a client so far; raises `LookupError` where none was made."""
        return self._server.recording(chat)

    def replay(self, chat: WebChatService | None = None) -> Replay:
        """Replay the recording of a client; raises `AssertionError` where the replay differs from it."""
        return replay(self.of(chat)).check()

    def state_at(self, time: float, chat: WebChatService | None = None) -> Known:
        """Return the state of a client at a wall-clock time."""
        return state_at(self.of(chat), time)

    def save(self, path: str | os.PathLike[str], chat: WebChatService | None = None) -> None:
        """Write the recording of a client to a file, to attach to a bug report; an existing file is replaced."""
        self.of(chat).save(path)
