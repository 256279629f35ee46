"""Faults as data: what goes wrong in which operation at which attempt, written down or drawn from a seed.

A list of plain objects, which JSON can carry::

    [{"operation": "refresh", "attempt": 3, "drop": true},
     {"operation": "send", "attempt": [1, 2], "http_status": 503},
     {"operation": "refresh", "attempt": 5, "clock_jump": -3600.0}]

`operation` is a name of `OPERATIONS`, the one that recordings show; `attempt` counts the requests of that operation (of
any, where none is named) from the moment the list is taken on. Everything else is a field of
`webchat_fsm.server.Fault`, but for `clock_jump`: the seconds by which the wall clock jumps just before the request.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.server import Fault, Faults

OPERATIONS = frozenset(
    {
        *("start", "refresh", "send", "startTyping", "stopTyping", "updateData", "customNotice", "disconnect"),
        *("restore", "resume", "history", "limits", "file", "download", "fetch"),
        *("handshake", "connect", "notifications", "hangup"),
    }
)
"""The names under which the library makes its requests, on all transports."""

Drawn = Callable[[random.Random, Transport], dict[str, Any]]

KINDS: dict[str, Drawn] = {
    "drop": lambda draw, transport: {"drop": True, "takes_effect": draw.random() < 0.5},
    "tear": lambda draw, transport: {"tear": True},
    "delay": lambda draw, transport: {"delay": round(draw.uniform(0.1, 20.0), 3)},
    "duplicate": lambda draw, transport: {"duplicate": True},
    "reorder": lambda draw, transport: {"reorder": True},
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


class Plan:
    """Lists of faults at work: attempts are counted, and what is due is handed to the server or to the clock."""

    def __init__(self, faults: Faults, jump: Callable[[float], None]) -> None:
        self._faults, self._jump = faults, jump
        self._waiting: list[tuple[str | None, int, dict[str, Any]]] = []
        self._asked: dict[str | None, int] = {}

    def load(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Take a list on; raises `ValueError` for what it cannot mean and `TypeError` for an unknown field."""
        for given in faults:
            fault = dict(given)
            operation, attempts = fault.pop("operation", None), fault.pop("attempt", 1)
            self._check(operation, fault)
            for attempt in attempts if isinstance(attempts, list | tuple) else (attempts,):
                if attempt < 1:
                    raise ValueError(f"attempts are counted from 1, got {attempt}")
                self._waiting.append((operation, self._asked.get(operation, 0) + attempt, fault))

    def clear(self) -> None:
        """Forget what is still to come."""
        self._waiting.clear()

    def _check(self, operation: str | None, fault: dict[str, Any]) -> None:
        if operation is not None and operation not in OPERATIONS:
            near = get_close_matches(operation, OPERATIONS, n=1)
            raise ValueError(f"no operation is called {operation!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        if "clock_jump" not in fault:
            Fault(**fault)

    def asking(self, operation: str) -> None:
        """A request of that operation is about to be made."""
        for name in (None, operation):
            self._asked[name] = self._asked.get(name, 0) + 1
        due = [one for one in self._waiting if one[0] in (None, operation) and one[1] == self._asked[one[0]]]
        for one in due:
            self._waiting.remove(one)
            self._happen(one[2])

    def _happen(self, fault: dict[str, Any]) -> None:
        if "clock_jump" in fault:
            self._jump(fault["clock_jump"])
        else:
            self._faults.add(**fault)
