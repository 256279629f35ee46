"""Faults as data: what goes wrong in which operation at which attempt, written down or drawn from a seed.

A list of plain objects, which JSON can carry::

    [{"operation": "refresh", "attempt": 3, "drop": true},
     {"operation": "send", "attempt": [1, 2], "http_status": 503},
     {"operation": "refresh", "attempt": 4, "member": "$.messages[0].text", "value": 42},
     {"operation": "refresh", "attempt": 5, "clock_jump": -3600.0}]

`operation` is a name of `OPERATIONS`, the one that recordings show, where each page of a restore is a `restore`;
`attempt` counts the requests of that operation (of any, where none is named) from the moment the list is taken on.
`clock_jump` is the seconds by which the wall clock jumps just before the request. Everything else is a field of
`webchat_fsm.server.Fault`, but for `times` and `skip`, in whose place there are attempts. What is due in one request
goes wrong there together, before what waits in `Faults` for any request, and in no other one.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from msgspec import Meta

from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.server.faults import LONGEST, Count, Fault, check_operation, checked

OPERATIONS = frozenset(
    {
        *("start", "refresh", "send", "startTyping", "stopTyping", "updateData", "customNotice", "disconnect"),
        *("restore", "resume", "history", "limits", "file", "download", "fetch"),
        *("handshake", "connect", "notifications", "hangup"),
    }
)
"""The names under which the library makes its requests, on all transports."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 42, 2**53, 2**63, 2.5, -1e300, "", "x", "null", "7", "1e3", "ü\u2028", [], {}),
    *([None], ["x"], [[]], {"a": 1}, {"text": "x"}, {"": None}),
)
"""What a drawn `member` becomes: JSON values of all kinds."""

MEMBERS = (
    *("index", "type", "text", "from", "from.nickname", "from.participantId", "from.type", "from.odd"),
    *("utcTime", "userData", "userData.odd", "messageType", "eventAttributes", "odd"),
)
"""The members of an event of which one is drawn; what ends a chat, or leads to it, is left alone."""


def _member(draw: random.Random, transport: Transport) -> dict[str, Any]:
    messages = "$.messages" if transport.gms else "$.data.messages"
    place, name = draw.randrange(3), draw.choice(("", *(f".{name}" for name in MEMBERS)))
    change = {"remove": True} if name and draw.random() < 0.2 else {"value": draw.choice(VALUES)}
    return {"member": f"{messages}[{place}]{name}", **change}


Drawn = Callable[[random.Random, Transport], dict[str, Any]]

KINDS: dict[str, Drawn] = {
    "drop": lambda draw, transport: {"drop": True, "takes_effect": draw.random() < 0.5},
    "tear": lambda draw, transport: {"tear": True},
    "delay": lambda draw, transport: {"delay": round(draw.uniform(0.1, 20.0), 3)},
    "duplicate": lambda draw, transport: {"duplicate": True},
    "reorder": lambda draw, transport: {"reorder": True},
    "member": _member,
    "http_status": lambda draw, transport: {"http_status": draw.choice((401, 403, 429, 500, 502, 503))},
    "server_status": lambda draw, transport: {"server_status": 1 if transport.gms else 500},
    "body": lambda draw, transport: {"body": draw.choice((b"", b"{", b"[]", b"<html>502</html>"))},
    "clock_jump": lambda draw, transport: {"clock_jump": float(draw.choice((-3600, -1, 1, 3600)))},
}
"""The kinds of fault that are drawn, each with what it draws."""

_OPEN = ("send", "startTyping", "stopTyping", "updateData", "disconnect")
HIT: dict[Transport, tuple[str, ...]] = {
    transport: (*_OPEN, *(("refresh",) * 5 if transport.polls else ("connect",) * 4 + ("notifications",)))
    for transport in Transport
}
"""Where drawn faults hit: the operations of a chat that is open, mostly its polls; the start is left alone."""


def drawn(seed: int, transport: Transport, count: int = 10, *, attempts: int = 20) -> list[dict[str, Any]]:
    """So many faults among the first attempts of the operations of a transport; the same seed gives the same ones."""
    draw = random.Random(seed)
    kinds = sorted(KINDS)
    return [
        {
            "operation": draw.choice(HIT[transport]),
            "attempt": draw.randint(1, attempts),
            **KINDS[draw.choice(kinds)](draw, transport),
        }
        for _ in range(count)
    ]


class Entry(Fault, kw_only=True):
    """One entry of a list."""

    attempt: Count | Annotated[tuple[Count, ...], Meta(min_length=1)] = 1
    """Which requests it hits, counted from 1."""
    clock_jump: Annotated[float, Meta(ge=-LONGEST, le=LONGEST)] = 0.0
    """Seconds by which the wall clock jumps just before the request."""

    @property
    def attempts(self) -> tuple[int, ...]:
        """The requests that it hits."""
        return self.attempt if isinstance(self.attempt, tuple) else (self.attempt,)


def entries(faults: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """A list, checked; raises `TypeError` and `ValueError` that name the entry and the key."""
    if isinstance(faults, Mapping | str):
        raise TypeError(f"expected a list of faults, got one {type(faults).__name__}")
    return [_entry(f"fault {number}: ", given) for number, given in enumerate(faults, 1)]


def _entry(where: str, given: Mapping[str, Any]) -> Entry:
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}expected an object, got {given!r}")
    for key in ("times", "skip"):
        if key in given:
            raise TypeError(f"{where}{key!r} means nothing in a list: name the attempts, as in 'attempt': [1, 2]")
    entry = checked(Entry, given, where, without=("times", "skip"))
    try:
        check_operation(entry.operation, OPERATIONS)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    if not (entry.wrong or entry.clock_jump):
        raise ValueError(f"{where}a fault needs something that goes wrong")
    return entry


class Plan:
    """Lists of faults at work: attempts are counted, and what is due goes to the clock or along with the request."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        self._jump = jump
        self._waiting: list[tuple[int, Entry]] = []
        self._asked: dict[str | None, int] = {}
        self._lock = threading.Lock()

    def load(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Take a list on as a whole, or raise `ValueError` or `TypeError` for what it cannot mean."""
        listed = entries(faults)
        with self._lock:
            for entry in listed:
                so_far = self._asked.get(entry.operation, 0)
                self._waiting += [(so_far + attempt, entry) for attempt in entry.attempts]

    def clear(self) -> None:
        """Forget what is still to come."""
        with self._lock:
            self._waiting.clear()

    def asking(self, operation: str) -> list[Entry]:
        """A request of that operation is about to be made: the clock jumps, and the rest goes wrong with it."""
        due = self._due(operation)
        for entry in due:
            if entry.clock_jump:
                self._jump(entry.clock_jump)
        return [entry for entry in due if entry.wrong]

    def _due(self, operation: str) -> list[Entry]:
        with self._lock:
            for name in (None, operation):
                self._asked[name] = self._asked.get(name, 0) + 1
            due = [
                one
                for one in self._waiting
                if one[1].operation in (None, operation) and one[0] == self._asked[one[1].operation]
            ]
            for one in due:
                self._waiting.remove(one)
            return [entry for _, entry in due]
