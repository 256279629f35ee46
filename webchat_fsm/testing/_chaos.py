"""Faults as data: what fails in which operation at which attempt, listed or drawn from a seed.

A list of plain objects, which JSON can carry::

    [{"operation": "refresh", "attempt": 3, "drop": true},
     {"operation": "send", "attempt": [1, 2], "http_status": 503},
     {"operation": "refresh", "attempt": 4, "member": "$.messages[0].text", "value": 42},
     {"operation": "refresh", "attempt": 5, "clock_jump": -3600.0}]

`operation` is a name of `OPERATIONS`, as recordings show it; each page of a restore is a `restore`. `attempt` counts
the requests of that operation (of any, where none is named) from when the list is loaded. `clock_jump` is the seconds
by which the wall clock jumps just before the request. The other keys are fields of `webchat_fsm.server.Fault` except
`times` and `skip`, which attempts replace. All faults of one request apply together and to that request alone, before
those in `Faults`, which wait for any request.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_args

from msgspec import Meta

from webchat_fsm._bayeux.frames import Frame, Publish
from webchat_fsm._core.operations import ChatOperation, Fetch, FileOperation
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server._faults import LONGEST_DELAY, Count, Fault, check_operation, checked

_MADE = get_args(ChatOperation | FileOperation | Fetch | Frame)
OPERATIONS = frozenset(operation.name for operation in _MADE if operation is not Publish)
"""The names under which the library makes its requests, on all transports."""

VALUES: tuple[Any, ...] = (
    # Beside ordinary values: bounds of JavaScript's and of 64-bit integers, a line separator, texts like numbers.
    *(None, True, False, 0, 1, -1, 42, 2**53, 2**63, 2.5, -1e300, "", "x", "null", "7", "1e3", "ü\u2028", [], {}),
    *([None], ["x"], [[]], {"a": 1}, {"text": "x"}, {"": None}),
)
"""New values of a drawn `member`: JSON of all kinds."""

MEMBERS = (
    # `odd` is in no message, so it is added: unknown members have to be ignored.
    *("index", "type", "text", "from", "from.nickname", "from.participantId", "from.type", "from.odd"),
    *("utcTime", "userData", "userData.odd", "messageType", "eventAttributes", "odd"),
)
"""The members of a message of which one is drawn; none of them ends the chat."""


def _member(draw: random.Random, transport: Transport) -> dict[str, Any]:
    messages = "$.messages" if transport.gms else "$.data.messages"
    # Three messages at most, as a poll seldom has more; the empty name replaces a whole message.
    place, name = draw.randrange(3), draw.choice(("", *(f".{name}" for name in MEMBERS)))
    change = {"remove": True} if name and draw.random() < 0.2 else {"value": draw.choice(VALUES)}
    return {"member": f"{messages}[{place}]{name}", **change}


Draw = Callable[[random.Random, Transport], dict[str, Any]]

KINDS: dict[str, Draw] = {
    "drop": lambda draw, transport: {"drop": True, "takes_effect": draw.random() < 0.5},
    "tear": lambda draw, transport: {"tear": True},
    # Up to 20 s, beyond the default timeout of requests, so that some answers come too late.
    "delay": lambda draw, transport: {"delay": round(draw.uniform(0.1, 20.0), 3)},
    "duplicate": lambda draw, transport: {"duplicate": True},
    "reorder": lambda draw, transport: {"reorder": True},
    "member": _member,
    "http_status": lambda draw, transport: {"http_status": draw.choice((401, 403, 429, 500, 502, 503))},
    # 1 is a temporary failure over v2 and CometD; v3 has codes of HTTP.
    "server_status": lambda draw, transport: {"server_status": 1 if transport.gms else 500},
    "body": lambda draw, transport: {"body": draw.choice((b"", b"{", b"[]", b"<html>502</html>"))},
    "clock_jump": lambda draw, transport: {"clock_jump": float(draw.choice((-3600, -1, 1, 3600)))},
}
"""The kinds of fault that are drawn, each with the function that draws its fields."""

_COMMON = ("send", "startTyping", "stopTyping", "updateData", "disconnect")
FAULTED_OPERATIONS: dict[Transport, tuple[str, ...]] = {
    # Polls are the most frequent requests of a chat; repeating their names gives them that weight.
    transport: (*_COMMON, *(("refresh",) * 5 if transport.polls else ("connect",) * 4 + ("notifications",)))
    for transport in Transport
}
"""Operations that drawn faults hit, most often polls; never the start, without which there is no chat to test."""


def draw_faults(seed: int, transport: Transport, count: int = 10, *, attempts: int = 20) -> list[dict[str, Any]]:
    """Draw faults among the first attempts of the operations of a transport; the same seed gives the same faults."""
    draw = random.Random(seed)
    kinds = sorted(KINDS)  # by name: the draws of a seed must not depend on the order of the definitions
    return [
        {
            "operation": draw.choice(FAULTED_OPERATIONS[transport]),
            "attempt": draw.randint(1, attempts),
            **KINDS[draw.choice(kinds)](draw, transport),
        }
        for _ in range(count)
    ]


class PlannedFault(Fault, kw_only=True):
    """One entry of a list: a fault with the attempts that it hits, and the jump of the clock before them."""

    attempt: Count | Annotated[tuple[Count, ...], Meta(min_length=1)] = 1
    """Which requests it hits, counted from 1."""
    clock_jump: Annotated[float, Meta(ge=-LONGEST_DELAY, le=LONGEST_DELAY)] = 0.0
    """Seconds by which the wall clock jumps just before the request."""

    @property
    def attempts(self) -> tuple[int, ...]:
        """Return the numbers of the requests to which the fault applies."""
        return self.attempt if isinstance(self.attempt, tuple) else (self.attempt,)


def planned_faults(faults: Iterable[Mapping[str, Any]]) -> list[PlannedFault]:
    """Check a list; raises `TypeError` and `ValueError` that name the entry and the key."""
    # Both can be iterated, and would fail later with a text about their keys or letters.
    if isinstance(faults, Mapping | str):
        raise TypeError(f"expected a list of faults, got one {type(faults).__name__}")
    return [_planned_fault(f"fault {number}: ", given) for number, given in enumerate(faults, 1)]


def _planned_fault(where: str, given: Mapping[str, Any]) -> PlannedFault:
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}expected an object, got {given!r}")
    for key in ("times", "skip"):
        # Rejected by name, as they are fields of a fault elsewhere, and would seem to work here.
        if key in given:
            raise TypeError(f"{where}{key!r} means nothing in a list: name the attempts, as in 'attempt': [1, 2]")
    entry = checked(PlannedFault, given, where, without=("times", "skip"))
    try:
        check_operation(entry.operation, OPERATIONS)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    if not (entry.wrong or entry.clock_jump):
        raise ValueError(f"{where}a fault needs a field that makes something fail, such as 'drop': true")
    return entry


class Plan:
    """Counts the attempts of each operation and returns the faults that are due; clock jumps are made here."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        self._jump = jump
        self._waiting: list[tuple[int, PlannedFault]] = []
        self._asked: dict[str | None, int] = {}
        self._lock = threading.Lock()

    def load(self, faults: Iterable[Mapping[str, Any]]) -> None:
        """Add a list as a whole, or raise `ValueError` or `TypeError` for an impossible entry."""
        # Checked as a whole, so that a bad entry adds none of the others; before the lock, as a list may be lazy.
        listed = planned_faults(faults)
        with self._lock:
            for entry in listed:
                # Attempts count from the moment at which the list is loaded, not from the start of the chat.
                so_far = self._asked.get(entry.operation, 0)
                self._waiting += [(so_far + attempt, entry) for attempt in entry.attempts]

    def clear(self) -> None:
        """Remove the faults that are still to come; attempts go on being counted."""
        with self._lock:
            self._waiting.clear()

    def asking(self, operation: str) -> list[PlannedFault]:
        """Count a request that is about to be made; make the clock jump, and return the other faults."""
        due = self._due(operation)
        for entry in due:
            # Outside the lock: the jump runs code of the timeline.
            if entry.clock_jump:
                self._jump(entry.clock_jump)
        # An entry that only jumps has no effect on the answer, and would hide the faults in `Faults`.
        return [entry for entry in due if entry.wrong]

    def _due(self, operation: str) -> list[PlannedFault]:
        with self._lock:
            # None counts every request: an entry without operation means the n-th request of any kind.
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
