"""The lifecycle as a graph: the one form that every picture is drawn from.

A `Graph` is seen from one transport, or from all of them at once. Seen from one, it has left out what cannot happen
there: events that the transport does not have, guards that it settles for good, and rows that it never takes.
An `Edge` is one row. An `Arc` is what a drawing shows: all that leads from one place to another, whatever causes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import groupby
from typing import NamedTuple

from webchat_fsm.lifecycle.commands import COMMANDS
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import (
    CLOSED_STATES,
    HAS_SESSION,
    ROWS,
    Guard,
    Row,
    Say,
    State,
    Transport,
    Trigger,
    meaning,
    reachable,
)


class Box(StrEnum):
    """A frame round states that have much in common; the service passes through the states that are in none."""

    CLOSED = "no session open"
    SESSION = "session open"

    @property
    def states(self) -> tuple[State, ...]:
        """What is inside, in the order of the states."""
        inside = HAS_SESSION if self is Box.SESSION else frozenset(CLOSED_STATES)
        return tuple(state for state in State if state in inside)


Place = State | Box
_ORDER: dict[Place, int] = {place: number for number, place in enumerate((*Box, *State))}


class Cause(StrEnum):
    """Who is behind an edge; its colour in every drawing."""

    COMMAND = "command"
    SERVICE = "service"
    FACT = "fact"
    FAILURE = "failure"


CAUSES: dict[Cause, str] = {
    Cause.COMMAND: "the user gives a command",
    Cause.SERVICE: "the service opens, closes or restores",
    Cause.FACT: "it goes as it should",
    Cause.FAILURE: "something goes wrong",
}

_OF_THE_SERVICE = frozenset({Trigger.OPEN, Trigger.CLOSE})
_OF_TROUBLE = frozenset(
    {
        "error",
        "restoreFailed",
        "restoreTimeout",
        "restoredOffline",
        "disconnected",
        "connectionPending",
        "chatServerWentOffline",
    }
)
"""Events that tell of something that went wrong; what makes a row say one is a failure."""
_SILENT_TROUBLE = frozenset({Trigger.START_REFUSED, Trigger.INTERRUPTED})
_OF_THE_TRANSPORT = frozenset({Guard.POLLS, Guard.PUSHES, Guard.GMS, Guard.NEXUS, Guard.ASYNC})
"""Guards that a transport settles for good: on it they always hold, or never."""


def cause(trigger: Trigger, transports: Iterable[Transport] = Transport) -> Cause:
    """Who pulls that trigger; a command that no user may give on these transports is the service's own."""
    if rule := COMMANDS.get(trigger.value):
        return Cause.SERVICE if rule.access and rule.private.issuperset(transports) else Cause.COMMAND
    if trigger in _OF_THE_SERVICE:
        return Cause.SERVICE
    return Cause.FAILURE if _is_trouble(trigger) else Cause.FACT


def _is_trouble(trigger: Trigger) -> bool:
    said = {say.event for row in ROWS if row.trigger is trigger for say in row.says}
    return trigger in _SILENT_TROUBLE or not said.isdisjoint(_OF_TROUBLE)


@dataclass(frozen=True, slots=True)
class Node:
    """A state; one that the transport never comes into is not drawn."""

    state: State
    meaning: str
    reachable: bool
    box: Box | None


@dataclass(frozen=True, slots=True)
class Edge:
    """One row, seen from some transports.

    `number` counts the rows of the table from 1. `guards` are those that are still open there, `otherwise` says that an
    earlier row leads the same trigger elsewhere, `says` the events that these transports have.
    """

    number: int
    row: Row
    cause: Cause
    guards: tuple[Guard, ...]
    otherwise: bool
    says: tuple[Say, ...]
    transports: tuple[Transport, ...]

    @property
    def source(self) -> State:
        """Where it begins."""
        return self.row.source

    @property
    def dest(self) -> State:
        """Where it leads."""
        return self.row.dest

    @property
    def trigger(self) -> Trigger:
        """What makes a session take it."""
        return self.row.trigger

    @property
    def stays(self) -> bool:
        """True where the state remains the same."""
        return self.source is self.dest

    @property
    def condition(self) -> str:
        """The guards in words; empty where it is always taken."""
        return " and ".join(self.guards) or ("otherwise" if self.otherwise else "")


@dataclass(frozen=True, slots=True)
class Way:
    """One trigger on an arc, with the condition under which it leads this way."""

    trigger: Trigger
    cause: Cause
    condition: str

    def __str__(self) -> str:
        return f"{self.trigger} [{self.condition}]" if self.condition else str(self.trigger)


@dataclass(frozen=True, slots=True)
class Arc:
    """All the ways of one cause from one place to a state; those of a box lead out of each state in it."""

    source: Place
    dest: State
    cause: Cause
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The lifecycle on one transport, or on all of them together."""

    transport: Transport | None
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def transports(self) -> tuple[Transport, ...]:
        """Those that it is seen from."""
        return tuple(Transport) if self.transport is None else (self.transport,)

    @property
    def drawn(self) -> tuple[Node, ...]:
        """The states that can be come into."""
        return tuple(node for node in self.nodes if node.reachable)

    def arcs(self, boxes: Iterable[Box] = Box) -> tuple[Arc, ...]:
        """What a drawing shows: the edges between different states, merged; out of a box where all in it share them."""
        return _arcs(self, boxes)

    def node(self, state: State) -> Node:
        """The node of a state."""
        return next(node for node in self.nodes if node.state is state)

    def inside(self, box: Box | None) -> tuple[Node, ...]:
        """The drawn states of a box; None for those in no box."""
        return tuple(node for node in self.drawn if node.box is box)

    def saying(self, event: str) -> tuple[Edge, ...]:
        """The edges on which an event is published."""
        return tuple(edge for edge in self.edges if any(say.event == event for say in edge.says))


@cache
def graph(transport: Transport | None = None) -> Graph:
    """The lifecycle as that transport sees it; None for all of them in one."""
    seen = tuple(Transport) if transport is None else (transport,)
    within = frozenset[State]().union(*map(reachable, seen))
    nodes = tuple(Node(state, meaning(state, transport), state in within, _box_of(state)) for state in State)
    return Graph(transport, nodes, tuple(_edges(seen)))


def _box_of(state: State) -> Box | None:
    return next((box for box in Box if state in box.states), None)


def _edges(transports: tuple[Transport, ...]) -> Iterator[Edge]:
    earlier: dict[tuple[State, Trigger], list[Edge]] = {}
    for number, row in enumerate(ROWS, 1):
        rivals = earlier.setdefault((row.source, row.trigger), [])
        takers = tuple(one for one in transports if _takes(one, row, rivals))
        if takers:
            edge = _edge(number, row, takers, single=len(transports) == 1, rivals=rivals)
            rivals.append(edge)
            yield edge


def _takes(transport: Transport, row: Row, rivals: Iterable[Edge]) -> bool:
    """Whether a session there can take a row: nothing about the transport forbids it, and no rival is always taken."""
    rule = COMMANDS.get(row.trigger.value)
    if row.source not in reachable(transport) or (rule and transport in rule.unsupported):
        return False
    if not all(guard.admits(transport) for guard in row.guards):
        return False
    return not any(transport in rival.transports and _OF_THE_TRANSPORT.issuperset(rival.row.guards) for rival in rivals)


def _edge(number: int, row: Row, takers: tuple[Transport, ...], *, single: bool, rivals: list[Edge]) -> Edge:
    open_guards = tuple(guard for guard in row.guards if not (single and guard in _OF_THE_TRANSPORT))
    return Edge(
        number=number,
        row=row,
        cause=cause(row.trigger, takers),
        guards=open_guards,
        otherwise=not open_guards and any(rival.dest is not row.dest for rival in rivals),
        says=tuple(say for say in row.says if not EVENTS[say.event].transports.isdisjoint(takers)),
        transports=takers,
    )


def _arcs(seen: Graph, boxes: Iterable[Box]) -> tuple[Arc, ...]:
    ways = dict.fromkeys(_ways(seen))
    for box in boxes:
        _hoist(ways, box, [node.state for node in seen.inside(box)])
    causes = {cause: place for place, cause in enumerate(Cause)}
    ordered = sorted(ways, key=lambda one: (_ORDER[one.source], _ORDER[one.dest], causes[one.way.cause]))
    return tuple(
        Arc(source, dest, kind, tuple(one.way for one in group))
        for (source, dest, kind), group in groupby(ordered, key=lambda one: (one.source, one.dest, one.way.cause))
    )


class _Placed(NamedTuple):
    source: Place
    dest: State
    way: Way


def _ways(seen: Graph) -> Iterator[_Placed]:
    leaving: dict[tuple[State, State, Trigger], list[Edge]] = {}
    for edge in seen.edges:
        if not edge.stays:
            leaving.setdefault((edge.source, edge.dest, edge.trigger), []).append(edge)
    for (source, dest, trigger), edges in leaving.items():
        yield _Placed(source, dest, Way(trigger, edges[0].cause, _condition(seen, source, edges)))


def _condition(seen: Graph, source: State, edges: list[Edge]) -> str:
    """When one of these edges is taken; empty where it is so on every transport that comes into the source at all."""
    sure = {one for edge in edges if _OF_THE_TRANSPORT.issuperset(edge.guards) for one in edge.transports}
    if all(one in sure for one in seen.transports if source in reachable(one)):
        return next((edge.condition for edge in edges if edge.otherwise), "")
    return " or ".join(dict.fromkeys(edge.condition for edge in edges))


def _hoist(ways: dict[_Placed, None], box: Box, inside: list[State]) -> None:
    """Replace a way that leads out of every state of a box by one out of the box itself."""
    for _, dest, way in list(ways):
        each = [_Placed(state, dest, way) for state in inside]
        if len(each) > 1 and dest not in inside and all(one in ways for one in each):
            for one in each:
                del ways[one]
            ways[_Placed(box, dest, way)] = None
