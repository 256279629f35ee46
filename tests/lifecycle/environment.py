"""Provide the environment of lifecycle tests: a server, participants, a moved clock, and recorded services.

`INTO` has a function for each state of each transport, which brings a real service into the state and calls the test;
for `starting`, `restoring` and `ending` the call is made during the request of the transition.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from webchat_fsm import Bus, MemoryStore, State, WebChatService
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing._bench import CONFIGS

LIMIT = 5
"""The documented default of pollExceptionLimit."""


class Probe:
    """Wraps an `http=`: records its requests, and can call a function during one or answer it."""

    def __init__(self, inner):
        self._inner = inner
        self._acts: dict[str, list[Callable[[], Any]]] = {}
        self.sent = []

    def during(self, operation: str, act: Callable[[], Any]) -> None:
        """Call a function during the next request of an operation; an `HttpAnswer` that it returns is the response."""
        self._acts.setdefault(operation, []).append(act)

    def interrupt(self, operation: str, interruption: type[BaseException] = KeyboardInterrupt) -> None:
        """Interrupt the caller during the next request of that operation."""

        def strike() -> NoReturn:
            raise interruption

        self.during(operation, strike)

    def answer(self, operation: str, body: bytes, status: int = 200, **headers: str) -> None:
        """Answer the next request of that operation with these bytes."""
        self.during(operation, lambda: HttpAnswer(status=status, headers=headers, body=body))

    def send(self, request):
        self.sent.append(request)
        acts = self._acts.get(request.operation)
        instead = acts.pop(0)() if acts else None
        return instead if isinstance(instead, HttpAnswer) else self._inner.send(request)

    def operations(self) -> list[str]:
        return [request.operation for request in self.sent]

    def cut(self):
        self._inner.cut()

    def close(self):
        self._inner.close()


class Heard:
    """Records every event of one service, in order, through the Python API."""

    def __init__(self, chat):
        self.events = []
        for name in EVENTS:
            chat.subscribe(name, self.events.append)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def take(self) -> list[str]:
        """Return the event names since the last call."""
        names = self.names
        self.events.clear()
        return names

    def all(self, name: str) -> list:
        """Return the payloads of all events of that name."""
        return [event.data for event in self.events if event.name == name]

    def last(self, name: str):
        return self.all(name)[-1]

    def texts(self) -> list[str]:
        """Return the texts of all messages of type Message, in order of arrival."""
        received = self.all("messageReceived")
        return [message.text for data in received for message in data.messages if message.type == "Message"]

    def indexes(self) -> list[int]:
        return [message.index for data in self.all("messageReceived") for message in data.messages]


class HeardOnBus:
    """Records every event of one service as it is published on the bus, and sends commands as a plugin."""

    def __init__(self, chat):
        bus = Bus()
        self.plugin = bus.register_plugin("TestPlugin")
        self.events = []
        for name in EVENTS:
            self.plugin.subscribe(f"WebChatService.{name}", self.events.append)
        bus.register(chat)

    def last(self, name: str):
        return [event.data for event in self.events if event.name == f"WebChatService.{name}"][-1]

    def command(self, name: str, data: Mapping[str, Any] | None = None):
        return self.plugin.command(f"WebChatService.{name}", data)


class ChatEnvironment:
    """Holds a server on a timeline, with one service at a time."""

    def __init__(self, timeline, server, transport: Transport = Transport.V2):
        self.timeline, self.server, self.transport = timeline, server, transport
        self.store = MemoryStore()
        self.chat: WebChatService
        self.http: Probe
        self.heard: Heard

    def client(self, *, store=None, address: str = "", **config: Any) -> WebChatService:
        """Make a service with the shared store, without opening it."""
        self.http = Probe(EmbeddedHttp(self.server.core, self.timeline.clock))
        merged = {**CONFIGS[self.transport], **config}
        if address:
            merged["dataURL"] = address
        self.chat = WebChatService(merged, store=store or self.store, http=self.http, driver=self.timeline.driver)
        self.server.clients.append(self.chat)
        self.heard = Heard(self.chat)
        return self.chat

    def open(self, **config: Any) -> WebChatService:
        self.client(**config).open()
        return self.chat

    def start(self, **config: Any) -> WebChatService:
        """Start a chat and let its first poll be answered."""
        self.open(**config).start_chat(nickname="Jonny")
        self.timeline.advance(0)
        return self.chat

    def away(self, seconds: float, **config: Any) -> WebChatService:
        """Close an open chat and open it in a new service, as another process would, some seconds later."""
        self.chat.close()
        self.timeline.advance(seconds)
        return self.open(**config)

    def crash(self) -> None:
        """Simulate the death of the process: nothing is closed, and its timers stop."""
        self.timeline.driver.detach(self.chat._engine, 0)

    def advance(self, seconds: float) -> None:
        self.timeline.advance(seconds)

    def agent(self, name: str = "Ann"):
        """Let an agent join."""
        return self.server.agent(name).join()

    def fail_polls(self, times: int, **fault: Any) -> None:
        """Let a number of consecutive polls fail, by default with statusCode 1."""
        self.server.faults.add(operation="refresh", times=times, **(fault or {"server_status": 1}))
        while len(self.server.faults):
            self.chat.step()

    def asked(self, operation: str) -> list:
        """Return the fields of all requests of an operation, as the server decoded them."""
        return [logged.fields for logged in self.server.core.requests if logged.operation == operation]


Act = Callable[[WebChatService], None]
Into = Callable[[ChatEnvironment, Act], None]


def _idle(env: ChatEnvironment, act: Act) -> None:
    act(env.open())


def _starting(env: ChatEnvironment, act: Act) -> None:
    chat = env.open()
    env.http.during("start", lambda: act(chat))
    chat.command("startChat", {"nickname": "Jonny"})


def _active(env: ChatEnvironment, act: Act) -> None:
    chat = env.start()
    chat.stop_poll()
    act(chat)


def _polling(env: ChatEnvironment, act: Act) -> None:
    act(env.start())


def _offline(env: ChatEnvironment, act: Act) -> None:
    chat = env.start()
    env.fail_polls(LIMIT + 1)
    act(chat)


def _restoring(env: ChatEnvironment, act: Act) -> None:
    env.start().close()
    chat = env.client()
    env.http.during("restore", lambda: act(chat))
    chat.open()


def _resuming(env: ChatEnvironment, act: Act) -> None:
    env.start().close()
    chat = env.client()
    env.http.during("resume", lambda: act(chat))
    chat.open()


def _dormant(env: ChatEnvironment, act: Act) -> None:
    env.start().close()
    env.server.faults.add(operation="start", drop=True)
    act(env.open())


def _ended(env: ChatEnvironment, act: Act) -> None:
    chat = env.start()
    chat.end_chat()
    act(chat)


_POLLED: dict[State, Into] = {
    State.IDLE: _idle,
    State.STARTING: _starting,
    State.ACTIVE: _active,
    State.POLLING: _polling,
    State.OFFLINE: _offline,
    State.RESTORING: _restoring,
    State.ENDED: _ended,
}

INTO: dict[Transport, dict[State, Into]] = {
    Transport.V2: _POLLED,
    Transport.V3: _POLLED,
    Transport.V3_ASYNC: {**_POLLED, State.RESTORING: _resuming, State.DORMANT: _dormant},
}


def into_ending(env: ChatEnvironment, act: Act) -> None:
    """Keep endChat in flight."""
    chat = env.start()
    env.http.during("disconnect", lambda: act(chat))
    chat.end_chat()


def message(index, text, kind="Message", **more):
    """Build a message of an agent in wire format; without an index where that is None."""
    sender = {"nickname": "Ann", "participantId": 2, "type": "Agent"}
    event = {"type": kind, "text": text, "utcTime": 1_750_000_000_000, "from": sender, **more}
    return event if index is None else {"index": index, **event}


def envelope(*messages, **more) -> bytes:
    """Build a successful response with these messages."""
    return json.dumps({"statusCode": 0, "chatEnded": False, "messages": list(messages), **more}).encode()


class Paper(io.BytesIO):
    """Holds a small text file of an allowed type, opened for reading."""

    name = "notes.txt"


class Picture(io.BytesIO):
    """Holds a small file of the type that v3 allows."""

    name = "cat.png"


class Unreadable(io.BytesIO):
    """Holds a file whose size can be measured, and that raises when it is read."""

    def __init__(self, name: str, size: int):
        super().__init__(b"x" * size)
        self.name = name

    def read(self, *given):
        raise AssertionError(f"{self.name} was read")
