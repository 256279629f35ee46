"""One HTTP exchange as plain data: what a front hands to the core, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec

from webchat_fsm.lifecycle.encoding import json_to_keep, read_json

Fate: TypeAlias = Literal["whole", "drop", "tear"]
"""What becomes of an answer: sent whole; never sent, the connection is cut; sent in part and then cut."""


class HttpRequest(msgspec.Struct, frozen=True):
    """A request as it arrived; header names are in any case, the body is complete and no longer chunked.

    A text frame stands as the request that it would be over HTTP, with the name of the `socket` that it came on.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    query: str = ""
    socket: str = ""

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> HttpRequest:
        """Build a request from a target that may carry a query, with header names brought to lower case."""
        path, _, query = target.partition("?")
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(method=method.upper(), path=path, headers=lowered, body=body, query=query)

    def normal(self) -> HttpRequest:
        """The same request with its method in upper case, its header names in lower case, its query apart."""
        target = f"{self.path}?{self.query}" if self.query else self.path
        return msgspec.structs.replace(HttpRequest.of(self.method, target, self.headers, self.body), socket=self.socket)


class HttpAnswer(msgspec.Struct, frozen=True):
    """An answer to send after `delay` seconds, unless its `fate` says otherwise."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    delay: float = 0.0
    fate: Fate = "whole"

    def json(self) -> object:
        """The body, decoded."""
        decoded: object = read_json(self.body)
        return decoded


class Upgrade(msgspec.Struct, frozen=True):
    """The answer to a request for a websocket; where it is granted, the request that each frame stands for."""

    answer: HttpAnswer
    frame: HttpRequest | None = None


class Reply(msgspec.Struct, frozen=True):
    """What a dialect says before it becomes bytes: a payload to be written as JSON, or raw content."""

    payload: object = None
    status: int = 200
    headers: Mapping[str, str] = {}
    raw: bytes | None = None

    def answer(self) -> HttpAnswer:
        """The reply as an HTTP answer."""
        if self.raw is not None:
            return HttpAnswer(self.status, self.headers, self.raw)
        kind = {"content-type": "application/json;charset=UTF-8"}
        body = b"" if self.payload is None else json_to_keep(self.payload)
        return HttpAnswer(self.status, {**(kind if body else {}), **self.headers}, body)


class Held:
    """An answer that is not there yet: a long poll which waits for news or for its time-out.

    Whoever holds it asks `resume(now)` whenever the server changed, and at `due` at the latest;
    it gives None while there is nothing to say yet.
    """

    def __init__(
        self,
        due: float,
        resume: Callable[[float], HttpAnswer | None],
        abandon: Callable[[float], None] | None = None,
    ) -> None:
        self.due = due
        self._resume = resume
        self._abandon = abandon

    def resume(self, now: float) -> HttpAnswer | None:
        """The answer, if there is one at this moment; always there at and after `due`."""
        return self._resume(now)

    def abandon(self, now: float) -> None:
        """Tell that whoever waited has hung up, so that nothing is given to nobody."""
        if self._abandon is not None:
            self._abandon(now)

    def then(self, finish: Callable[[HttpAnswer], HttpAnswer]) -> Held:
        """The same wait, with something done to the answer when it comes."""

        def resume(now: float) -> HttpAnswer | None:
            answer = self._resume(now)
            return None if answer is None else finish(answer)

        return Held(self.due, resume, self._abandon)


class Logged(msgspec.Struct, frozen=True):
    """One operation that the server decoded, kept for tests that ask what a client really sent."""

    dialect: str
    operation: str
    method: str
    path: str
    fields: Mapping[str, object]
    headers: Mapping[str, str]
    query: str
    time: float
