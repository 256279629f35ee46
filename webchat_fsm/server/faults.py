"""Faults on demand: what goes wrong, in which operation, and how often.

A fault that is an answer of its own (`server_status`, `http_status`, `refused`), or no answer (`drop`), keeps the
operation from happening; one that spoils a good answer (`tear`, `delay`, `duplicate`, `reorder`) does not.
`takes_effect` says otherwise: `drop=True, takes_effect=True` is the message that arrives although its sender never
hears of it.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, TypedDict, Unpack

import msgspec

from webchat_fsm.server.exchange import HttpAnswer, Reply

Errors = tuple[int | tuple[int, str], ...]


class FaultOptions(TypedDict, total=False):
    """The keywords of `Faults.add`: the fields of `Fault`, spelled out for type checkers."""

    operation: str | None
    dialect: Literal["v2", "v3", "cometd"] | None
    times: int
    skip: int
    server_status: int | None
    http_status: int | None
    errors: Errors
    code: str | None
    message: str
    chat_ended: bool | None
    retry_after: int | None
    body: bytes | None
    refused: str | None
    mute: bool
    drop: bool
    tear: bool
    delay: float
    duplicate: bool
    reorder: bool
    takes_effect: bool | None


class Fault(msgspec.Struct, kw_only=True):
    """One fault; the fields that are set combine, so that an answer may be slow and torn at once."""

    operation: str | None = None
    """Name of the operation, either the common one (`send`) or that of the wire (`sendMessage`); None is any."""
    dialect: Literal["v2", "v3", "cometd"] | None = None
    """Only in `v2`, `v3` or `cometd`; None is any."""
    times: int = 1
    """How many requests it hits; afterwards it is spent."""
    skip: int = 0
    """How many requests pass before the first hit."""
    server_status: int | None = None
    """An envelope with this statusCode (v2, CometD: 1 temporary, 2 final) or status code (v3)."""
    http_status: int | None = None
    errors: Errors = ()
    """v2 error codes, alone or with their advice, sent with `server_status` or `http_status`."""
    code: str | None = None
    """v3 name of the error, sent with `http_status`."""
    message: str = ""
    """v3 text of the error."""
    chat_ended: bool | None = None
    """What a `server_status` envelope says of the chat; None tells the truth."""
    retry_after: int | None = None
    """Seconds told in a Retry-After header."""
    body: bytes | None = None
    """Literal body to send instead of the answer's own."""
    refused: str | None = None
    """CometD: the Bayeux reply is not successful, with this text."""
    mute: bool = False
    """CometD: the publish is acknowledged and nothing comes of it."""
    drop: bool = False
    """No answer: the connection is cut."""
    tear: bool = False
    """The answer breaks off before the length it announced."""
    delay: float = 0.0
    """Seconds for which the answer is held back."""
    duplicate: bool = False
    """Every message in the answer is there twice."""
    reorder: bool = False
    """The messages in the answer are in reverse order."""
    takes_effect: bool | None = None

    @property
    def replaces(self) -> bool:
        """Whether there is an answer, or none, of the fault's own."""
        own = self.server_status, self.http_status, self.refused
        return self.drop or self.mute or self.body is not None or any(value is not None for value in own)

    @property
    def happens(self) -> bool:
        """Whether the operation is carried out all the same."""
        return not self.replaces if self.takes_effect is None else self.takes_effect

    def error_list(self) -> list[dict[str, object]]:
        """The v2 errors as they stand on the wire."""
        named = (error if isinstance(error, tuple) else (error, "") for error in self.errors)
        return [{"code": code, **({"advice": advice} if advice else {})} for code, advice in named]

    def spoil(self, reply: Reply) -> Reply:
        """The reply with its messages doubled or turned round."""
        if self.duplicate or self.reorder:
            return msgspec.structs.replace(reply, payload=self._spoilt(reply.payload))
        return reply

    def _spoilt(self, payload: object) -> object:
        if isinstance(payload, list):
            return [self._spoilt(item) for item in payload]
        if not isinstance(payload, dict):
            return payload
        spoilt = {**payload, **({"data": self._spoilt(payload["data"])} if "data" in payload else {})}
        if isinstance(messages := payload.get("messages"), list):
            repeated = [message for message in messages for _ in range(2 if self.duplicate else 1)]
            spoilt["messages"] = repeated[::-1] if self.reorder else repeated
        return spoilt

    def send(self, answer: HttpAnswer) -> HttpAnswer:
        """The answer as it travels under this fault."""
        headers = dict(answer.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return HttpAnswer(
            status=answer.status,
            headers=headers,
            body=answer.body if self.body is None else self.body,
            delay=self.delay,
            fate="drop" if self.drop else "tear" if self.tear else "whole",
        )


class Faults:
    """The faults that are waiting to happen, in the order in which they were added."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        """Names of operations; empty means that names are not checked."""
        self._waiting: list[Fault] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, **fault: Unpack[FaultOptions]) -> Fault:
        """Let something go wrong: `add(operation="refresh", server_status=1, times=6)`."""
        added = Fault(**fault)
        if not (added.replaces or added.tear or added.delay or added.duplicate or added.reorder):
            raise ValueError("a fault needs something that goes wrong")
        if self.known and added.operation is not None and added.operation not in self.known:
            near = get_close_matches(added.operation, sorted(self.known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no operation is called {added.operation!r}{hint}")
        self._waiting.append(added)
        return added

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._waiting.clear()

    def take(self, dialect: str, *names: str) -> Fault | None:
        """The fault that hits an operation known by these names now, counted down."""
        for fault in self._waiting:
            if fault.operation not in (None, *names) or fault.dialect not in (None, dialect):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._waiting.remove(fault)
            return fault
        return None
