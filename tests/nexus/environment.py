"""Provide the test environment of the v3 tests: an environment with v3 clients, and functions of asynchronous chat."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from tests.lifecycle.environment import ChatEnvironment
from webchat_fsm import FileStore, MemoryStore
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ServerOptions
from webchat_fsm.testing import TestServer
from webchat_fsm.testing._bench import CONFIGS

SESSIONS = "http://chat.test/nexus/v3/chat/sessions"


class NexusEnvironment(ChatEnvironment):
    """Run a server on a timeline, with v3 clients: keywords are keys of `transport`, `hooks` those of `async`."""

    def __init__(self, timeline, transport: Transport, **options: Any):
        super().__init__(timeline, TestServer(timeline, ServerOptions(**options)), transport)

    def client(self, *, store=None, hooks=None, config=None, **section):
        merged = {**CONFIGS[self.transport]["transport"], **section}
        if hooks is not None:
            merged["async"] = {"enabled": True, **hooks}
        return super().client(store=store, transport=merged, **(config or {}))

    @property
    def sent(self):
        return self.http.sent

    def last(self, operation: str):
        """Return the latest request of that operation."""
        return next(request for request in reversed(self.sent) if request.operation == operation)

    def fields(self, operation: str) -> dict[str, str]:
        """Return the form of the latest request of that operation, in wire format."""
        return dict(parse_qsl(self.last(operation).body.decode("ascii"), keep_blank_values=True))

    def polls(self) -> list[float]:
        """Return the times at which polls reached the server, in seconds."""
        return [logged.time for logged in self.server.core.requests if logged.operation == "refresh"]

    def queries(self) -> list[dict[str, str]]:
        """Return the parameters of polls and history pages, without the operationId."""
        asked = [dict(parse_qsl(request.url.partition("?")[2])) for request in self.sent if "/messages?" in request.url]
        return [{key: value for key, value in query.items() if key != "operationId"} for query in asked]

    def chatting(self, *texts: str):
        """Start a chat with an agent who sends these texts, and poll all of them."""
        self.start()
        agent = self.agent()
        for text in texts:
            agent.say(text)
        self.advance(3)
        return agent

    def token(self) -> str:
        return self.chat.get_session_data().token

    def bulk(self, number: int) -> None:
        """Extend the transcript of the latest chat to that many messages, whose texts are their numbers."""
        chat = self.server.core.current_chat()
        while len(chat.transcript) < number:
            text = f"message {len(chat.transcript) + 1}"
            chat.add("Message", chat.client.sender, self.timeline.now(), text=text, message_type="text")


class HookRecorder:
    """Provide the functions of asynchronous chat, keep the session data outside of the library and record the calls."""

    def __init__(self, *only: str, kept: Any = None):
        self.kept, self.calls = kept, []
        functions = {
            "getSessionData": self.get_session_data,
            "setSessionData": self.set_session_data,
            "deleteSessionData": self.delete_session_data,
        }
        self.hooks = {name: function for name, function in functions.items() if not only or name in only}

    def get_session_data(self, session_data, cookie, options):
        self.calls.append(("get", session_data))
        self.kept = json.dumps(session_data)

    def set_session_data(self, is_open, cookie, options):
        self.calls.append(("set", is_open))
        return self.kept

    def delete_session_data(self, error_data, cookie, options):
        self.calls.append(("delete", error_data))
        self.kept = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def data_of(self, name: str) -> list[Any]:
        return [data for called, data in self.calls if called == name]


def received(heard) -> list[tuple[list[str], bool, bool]]:
    """Return texts, restoring flag and history flag of each messageReceived so far."""
    return [
        ([m.text for m in data.messages], data.restoring, data.old_messages) for data in heard.all("messageReceived")
    ]


def envelope(**data: Any) -> bytes:
    return json.dumps({"status": {"code": "SUCCESS"}, "data": data}).encode()


STORES = {"memory": lambda folder: MemoryStore(), "file": lambda folder: FileStore(folder / "session.json")}
