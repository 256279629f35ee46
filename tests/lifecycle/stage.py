"""What the stories of the lifecycle are played on: a server, people, time, and services that can be looked into.

`INTO` leads a real service into each state, one table a transport, and lets a test act there; `starting`, `restoring`
and `ending` are reached from inside the request that makes them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from webchat_fsm import Bus, MemoryStore, State, WebChatService
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing import EmbeddedHttp
from webchat_fsm.testing.bench import CONFIGS
from webchat_fsm.wire.request import HttpAnswer

LIMIT = 5
"""The documented default of pollExceptionLimit."""


class Probe:
    """An `http=` around another: it can act in the middle of a request, answer in its stead, and remembers them."""

    def __init__(self, inner):
        self._inner = inner
        self._acts: dict[str, list[Callable[[], Any]]] = {}
        self.sent = []

    def during(self, operation: str, act: Callable[[], Any]) -> None:
        """Act inside the next request of that name; an `HttpAnswer` that the act returns stands for the server's."""
        self._acts.setdefault(operation, []).append(act)

    def answer(self, operation: str, body: bytes, status: int = 200, **headers: str) -> None:
        """Answer the next request of that name with these bytes."""
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
    """Every event of one service, in order, on the Python face."""

    def __init__(self, chat):
        self.events = []
        for name in EVENTS:
            chat.subscribe(name, self.events.append)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def take(self) -> list[str]:
        """The names since the last taking."""
        names = self.names
        self.events.clear()
        return names

    def all(self, name: str) -> list:
        """The payloads of all events of that name."""
        return [event.data for event in self.events if event.name == name]

    def last(self, name: str):
        return self.all(name)[-1]

    def texts(self) -> list[str]:
        """The texts of all messages of type Message, in the order of their coming."""
        received = self.all("messageReceived")
        return [message.text for data in received for message in data.messages if message.type == "Message"]

    def indexes(self) -> list[int]:
        return [message.index for data in self.all("messageReceived") for message in data.messages]


class HeardOnBus:
    """Every event of one service as plugins on the bus see it, and a plugin to give commands."""

    def __init__(self, chat):
        bus = Bus()
        self.plugin = bus.register_plugin("Story")
        self.events = []
        for name in EVENTS:
            self.plugin.subscribe(f"WebChatService.{name}", self.events.append)
        bus.register(chat)

    def last(self, name: str):
        return [event.data for event in self.events if event.name == f"WebChatService.{name}"][-1]

    def command(self, name: str, data: Mapping[str, Any] | None = None):
        return self.plugin.command(f"WebChatService.{name}", data)


class Stage:
    """A server on a timeline, and one service at a time on it."""

    def __init__(self, timeline, server, transport: Transport = Transport.V2):
        self.timeline, self.server, self.transport = timeline, server, transport
        self.store = MemoryStore()
        self.chat: WebChatService
        self.http: Probe
        self.heard: Heard

    def client(self, *, store=None, address: str = "", **config: Any) -> WebChatService:
        """A new service, not opened yet, that shares the stage's store."""
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
        """A chat whose first poll has been answered."""
        self.open(**config).start_chat(nickname="Jonny")
        self.timeline.advance(0)
        return self.chat

    def away(self, seconds: float, **config: Any) -> WebChatService:
        """Leave an open chat orderly and come back, as another process would, so much later."""
        self.chat.close()
        self.timeline.advance(seconds)
        return self.open(**config)

    def crash(self) -> None:
        """Let the process die: nobody closes anything, and its timers run no more."""
        self.timeline.driver.detach(self.chat._engine, 0)

    def advance(self, seconds: float) -> None:
        self.timeline.advance(seconds)

    def agent(self, name: str = "Ann"):
        """An agent who has joined."""
        return self.server.agent(name).join()

    def fail_polls(self, times: int, **fault: Any) -> None:
        """Let so many polls in a row fail, by statusCode 1 where nothing else is said."""
        self.server.faults.add(operation="refresh", times=times, **(fault or {"server_status": 1}))
        while len(self.server.faults):
            self.chat.step()

    def asked(self, operation: str) -> list:
        """The fields of all such requests as the server decoded them."""
        return [logged.fields for logged in self.server.core.requests if logged.operation == operation]


Act = Callable[[WebChatService], None]
Into = Callable[[Stage, Act], None]


def _idle(stage: Stage, act: Act) -> None:
    act(stage.open())


def _starting(stage: Stage, act: Act) -> None:
    chat = stage.open()
    stage.http.during("start", lambda: act(chat))
    chat.command("startChat", {"nickname": "Jonny"})


def _active(stage: Stage, act: Act) -> None:
    chat = stage.start()
    chat.stop_poll()
    act(chat)


def _polling(stage: Stage, act: Act) -> None:
    act(stage.start())


def _offline(stage: Stage, act: Act) -> None:
    chat = stage.start()
    stage.fail_polls(LIMIT + 1)
    act(chat)


def _restoring(stage: Stage, act: Act) -> None:
    stage.start().close()
    chat = stage.client()
    stage.http.during("restore", lambda: act(chat))
    chat.open()


def _resuming(stage: Stage, act: Act) -> None:
    stage.start().close()
    chat = stage.client()
    stage.http.during("resume", lambda: act(chat))
    chat.open()


def _dormant(stage: Stage, act: Act) -> None:
    stage.start().close()
    stage.server.faults.add(operation="start", drop=True)
    act(stage.open())


def _ended(stage: Stage, act: Act) -> None:
    chat = stage.start()
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


def into_ending(stage: Stage, act: Act) -> None:
    """While endChat is in flight."""
    chat = stage.start()
    stage.http.during("disconnect", lambda: act(chat))
    chat.end_chat()


def message(index, text, kind="Message", **more):
    """A message of an agent, as the wire has it; without an index where that is None."""
    sender = {"nickname": "Ann", "participantId": 2, "type": "Agent"}
    event = {"type": kind, "text": text, "utcTime": 1_750_000_000_000, "from": sender, **more}
    return event if index is None else {"index": index, **event}


def envelope(*messages, **more) -> bytes:
    """A good answer of the server with these messages."""
    return json.dumps({"statusCode": 0, "chatEnded": False, "messages": list(messages), **more}).encode()


class Paper(io.BytesIO):
    """A small file of an allowed type, as a user opens it."""

    name = "notes.txt"


class Picture(io.BytesIO):
    """A small file of the type that v3 allows."""

    name = "cat.png"


class Unreadable(io.BytesIO):
    """A file that must not be read: it can be measured, and raises when it is read."""

    def __init__(self, name: str, size: int):
        super().__init__(b"x" * size)
        self.name = name

    def read(self, *given):
        raise AssertionError(f"{self.name} was read")
