"""The machines that are drawn: the lifecycle of a session, and the Bayeux connection below a pushed one.

The lifecycle is seen from each transport or from all of them at once. Seen from one, its graph leaves out what cannot
happen there: events that the transport does not have, guards that it always meets, and rows that it never takes.

A `Part` of a machine is small enough to be read. It chooses rows; the states at their ends are shown, all others are
left out. A row may belong to two parts, as the return of a restore to `async-dormant` does, and each row that leads
from one state to another is in one part at least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import cache
from itertools import groupby

from webchat_fsm._bayeux import table as bayeux_table
from webchat_fsm.diagram._graph import Cause, Edge, Graph, Node, Row, RowT, graph_of, is_otherwise
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS
from webchat_fsm.lifecycle._states import CLOSED_STATES, HAS_SESSION, State, meaning
from webchat_fsm.lifecycle._table import CONTENT, TRANSITIONS, Guard, Publication, Transition, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport

# -- parts -------------------------------------------------------------------------------------------------------------


class Part(StrEnum):
    """A part of the lifecycle, or of the Bayeux connection, that has a picture of its own."""

    START_AND_END = "start-and-end"
    OUTAGE = "outage"
    RESTORING = "restoring"
    DORMANT = "dormant"
    OPENING = "opening"
    RENEWING = "renewing"
    CLOSING = "closing"


TITLES = {
    Part.START_AND_END: "Starting and ending a chat",
    Part.OUTAGE: "Losing and regaining the server",
    Part.RESTORING: "Restoring a chat",
    Part.DORMANT: "Leaving an asynchronous chat, and returning to it",
    Part.OPENING: "Opening a Bayeux connection",
    Part.RENEWING: "Losing and renewing a Bayeux connection",
    Part.CLOSING: "Closing a Bayeux connection",
}

_OUTAGE = frozenset(
    {
        *(Trigger.NO_ANSWER, Trigger.MISANSWERED, Trigger.POLL_FAILED, Trigger.FORBIDDEN),
        *(Trigger.POLL_ANSWERED, Trigger.ANSWERED, Trigger.CONNECTED),
    }
)
"""Triggers by which the server is lost and found again."""
_BEGINNING, _OPEN = frozenset[StrEnum](bayeux_table.BEGINNING), frozenset[StrEnum](bayeux_table.OPEN)


def _ends(row: Row) -> tuple[StrEnum, StrEnum]:
    return row.source, row.dest


def _is_about_the_start_or_end(row: Row) -> bool:
    others = (_RULES[Part.OUTAGE], _RULES[Part.RESTORING], _RULES[Part.DORMANT])
    return not any(rule(row) for rule in others)


_RULES: Mapping[Part, Callable[[Row], bool]] = {
    Part.START_AND_END: _is_about_the_start_or_end,
    Part.OUTAGE: lambda row: row.trigger in _OUTAGE,
    Part.RESTORING: lambda row: State.RESTORING in _ends(row),
    Part.DORMANT: lambda row: State.DORMANT in _ends(row),
    Part.OPENING: lambda row: not _BEGINNING.isdisjoint(_ends(row)),
    Part.RENEWING: lambda row: _OPEN.issuperset(_ends(row)),
    Part.CLOSING: lambda row: _BEGINNING.isdisjoint(_ends(row)) and not _OPEN.issuperset(_ends(row)),
}


class Frame(StrEnum):
    """A frame that one part alone draws, as its states have much in common there."""

    KNOWN = "client known to the gateway"


_BOXES: Mapping[Part, Mapping[StrEnum, frozenset[StrEnum]]] = {
    Part.RENEWING: {Frame.KNOWN: frozenset[StrEnum](bayeux_table.KNOWN)},
}

LIFECYCLE_PARTS = (Part.START_AND_END, Part.OUTAGE, Part.RESTORING, Part.DORMANT)
BAYEUX_PARTS = (Part.OPENING, Part.RENEWING, Part.CLOSING)


def selected(graph: Graph[RowT], part: Part) -> Graph[RowT]:
    """Return the part of a graph: its rows and the states at their ends; raises ValueError for one that it lacks."""
    # By the list, as the rule of a part of one machine may hold for rows of the other.
    if part not in (known := parts_of(graph)):
        raise ValueError(f"{graph.title} has no part {part}: choose {', '.join(known) or 'the whole'}")
    edges = tuple(edge for edge in graph.edges if _RULES[part](edge.row))
    ends = {state for edge in edges if not edge.stays for state in _ends(edge.row)}
    # What stays in a state that the part does not show has no place in it.
    kept = tuple(edge for edge in edges if ends.issuperset(_ends(edge.row)))
    nodes = tuple(_node(node, part, node.state in ends) for node in graph.nodes)
    boxes = (*graph.boxes, *(box for box in _BOXES.get(part, {}) if box not in graph.boxes))
    # An outage is more than its change of state: most of its events come before.
    detailed = part is Part.OUTAGE
    title = _title(graph, part)
    return replace(graph, nodes=nodes, edges=kept, boxes=boxes, part=part.value, title=title, detailed=detailed)


def parts_of(graph: Graph[RowT]) -> tuple[Part, ...]:
    """Return the parts that a graph has something of, in their order."""
    listed = BAYEUX_PARTS if graph.name == "bayeux" else LIFECYCLE_PARTS
    leaving: tuple[Edge[RowT], ...] = tuple(edge for edge in graph.edges if not edge.stays)
    return tuple(part for part in listed if any(_RULES[part](edge.row) for edge in leaving))


def _node(node: Node, part: Part, shown: bool) -> Node:
    box = next((box for box, states in _BOXES.get(part, {}).items() if node.state in states), node.box)
    return replace(node, shown=shown, box=box)


def _title(graph: Graph[Row], part: Part) -> str:
    return f"{TITLES[part]}, on {graph.views[0]}" if len(graph.views) == 1 and graph.views[0] else TITLES[part]


def annotate(graph: Graph[RowT], notes: Mapping[str, str]) -> Graph[RowT]:
    """Return a graph with notes of the user, by the name of a state or of a command or other trigger.

    Raises ValueError for a name that the machine does not have.
    """
    known = {node.state.value for node in graph.nodes} | {edge.trigger.value for edge in graph.edges}
    if unknown := [name for name in notes if name not in known]:
        raise ValueError(
            f"{graph.name} has neither state nor trigger {unknown[0]!r}: choose {', '.join(sorted(known))}"
        )
    # Plain texts, as members of an enumeration are keys too.
    return replace(graph, notes={**graph.notes, **{str(name): text for name, text in notes.items()}})


def walked(graph: Graph[RowT], steps: Iterable[tuple[str, str, str]]) -> Graph[RowT]:
    """Return a graph that counts how often each transition was taken; a step is source, trigger and destination.

    Steps that the graph does not have are left out: it may be the graph of a part.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    for edge in graph.edges:
        # Rows that differ in their guards alone are one way in a drawing, so the first stands for all.
        numbers.setdefault((edge.source.value, edge.trigger.value, edge.dest.value), edge.number)
    counted = Counter(number for step in steps if (number := numbers.get(_plain(step))) is not None)
    return replace(graph, taken=dict(counted))


def _plain(step: tuple[str, str, str]) -> tuple[str, str, str]:
    source, trigger, dest = map(str, step)
    return source, trigger, dest


# -- the lifecycle -----------------------------------------------------------------------------------------------------

Lifecycle = Graph[Transition]


class Box(StrEnum):
    """A frame round states of the lifecycle that have much in common; a session only passes through the others."""

    CLOSED = "no session open"
    SESSION = "session open"

    @property
    def states(self) -> tuple[State, ...]:
        """Return the states inside the box, in their order."""
        inside = HAS_SESSION if self is Box.SESSION else frozenset(CLOSED_STATES)
        return tuple(state for state in State if state in inside)


LEGEND = {
    Cause.COMMAND: "the user gives a command",
    Cause.SERVICE: "the service opens, closes or restores",
    Cause.FACT: "the expected result",
    Cause.FAILURE: "a failure",
}

_OF_THE_SERVICE = frozenset({Trigger.OPEN, Trigger.CLOSE})
_FAILURE_EVENTS = frozenset(
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
"""Events that report a failure; a trigger with a row that publishes one of them is drawn as a failure."""
_SILENT_FAILURES = frozenset({Trigger.START_REFUSED, Trigger.INTERRUPTED})
"""Failures that publish no event: the caller learns of them by an exception."""
_SETTLED = frozenset(guard for guard in Guard if guard.is_settled)

# How far to the right the states of a box stand, and those of none; a start leads to polling first.
_DEPTHS: dict[StrEnum | None, int] = {Box.CLOSED: 1, None: 2, State.POLLING: 3, Box.SESSION: 4}


def lifecycle(transport: Transport | None = None, part: Part | None = None) -> Lifecycle:
    """Return the lifecycle as one transport sees it, or all of them together; the whole, or one part.

    Raises ValueError for a part that the transport does not have.
    """
    return _lifecycle(transport) if part is None else selected(_lifecycle(transport), part)


@cache
def _lifecycle(transport: Transport | None) -> Lifecycle:
    seen = tuple(Transport) if transport is None else (transport,)
    enters = {one.value: frozenset[StrEnum](reachable(one)) for one in seen}
    within = frozenset[StrEnum]().union(*enters.values())
    scope = f"on transport {transport}" if transport else "on all transports"
    return Graph(
        name="lifecycle",
        title=f"The lifecycle of a session {scope}",
        legend=LEGEND,
        nodes=tuple(Node(state, meaning(state, transport), state in within, _box_of(state)) for state in State),
        edges=tuple(_edges(seen)),
        views=seen,
        settled=_SETTLED,
        enters=enters,
        boxes=tuple(Box),
        # A chat whose events are pushed has no state polling.
        entry=State.POLLING if State.POLLING in within else State.ACTIVE,
        depths=_DEPTHS,
        silent=frozenset({CONTENT.event, *(one.name for one in EVENTS.values() if one.transports.isdisjoint(seen))}),
    )


def publications(edge: Edge[Transition]) -> tuple[Publication, ...]:
    """Return the events of a row that at least one of its transports has."""
    return tuple(one for one in edge.row.publishes if not EVENTS[one.event].transports.isdisjoint(edge.views))


def publishing(seen: Lifecycle, event: str) -> tuple[Edge[Transition], ...]:
    """Return the edges on which an event is published, on the transports that have the event."""
    return tuple(edge for edge in seen.edges if any(one.event == event for one in publications(edge)))


def cause(trigger: Trigger, transports: Iterable[str] = tuple(Transport)) -> Cause:
    """Return the origin of a trigger; a command that no user may give on these transports is the service's own."""
    # By the name: a trigger of a command is called like its command.
    if rule := COMMANDS.get(trigger.value):
        return Cause.SERVICE if rule.access and rule.private.issuperset(transports) else Cause.COMMAND
    if trigger in _OF_THE_SERVICE:
        return Cause.SERVICE
    return Cause.FAILURE if _is_failure(trigger) else Cause.FACT


def _is_failure(trigger: Trigger) -> bool:
    # Over all rows of the trigger, so that it has one colour in every state.
    published = {one.event for row in TRANSITIONS if row.trigger is trigger for one in row.publishes}
    return trigger in _SILENT_FAILURES or not published.isdisjoint(_FAILURE_EVENTS)


def _box_of(state: State) -> Box | None:
    return next((box for box in Box if state in box.states), None)


def _edges(transports: tuple[Transport, ...]) -> Iterator[Edge[Transition]]:
    earlier: dict[tuple[State, Trigger], list[Edge[Transition]]] = {}
    for number, row in enumerate(TRANSITIONS, 1):
        earlier_edges = earlier.setdefault((row.source, row.trigger), [])
        views = tuple(one for one in transports if _can_take(one, row, earlier_edges))
        if views:
            edge = _edge(number, row, views, single=len(transports) == 1, earlier_edges=earlier_edges)
            earlier_edges.append(edge)
            yield edge


def _can_take(transport: Transport, row: Transition, earlier_edges: Iterable[Edge[Transition]]) -> bool:
    """Return whether a session can take a row: the transport allows it, and no earlier row is always taken first."""
    rule = COMMANDS.get(row.trigger.value)
    # A transport draws only the states that it enters, so a row out of another one has no place.
    if row.source not in reachable(transport) or (rule and transport in rule.unsupported):
        return False
    if not all(guard.admits(transport) for guard in row.guards):
        return False
    # An earlier row whose guards the transport always meets leaves none of its inputs to this one.
    return not any(transport in other.views and _SETTLED.issuperset(other.row.guards) for other in earlier_edges)


def _edge(
    number: int, row: Transition, views: tuple[Transport, ...], *, single: bool, earlier_edges: list[Edge[Transition]]
) -> Edge[Transition]:
    # Seen from all transports a settled guard still distinguishes them; seen from one it always holds.
    guards = tuple(guard for guard in row.guards if not (single and guard in _SETTLED))
    return Edge(number, row, cause(row.trigger, views), guards, is_otherwise(row, guards, earlier_edges), views)


# -- the Bayeux connection ---------------------------------------------------------------------------------------------


class BayeuxBox(StrEnum):
    """A frame round states of the Bayeux connection that have much in common."""

    OPENING = "chat opening"
    OPEN = "chat open"


_B, _T = bayeux_table.State, bayeux_table.Trigger
_SERVICE_TRIGGERS = frozenset({_T.BEGIN, _T.DUE, _T.CLOSE})
_EXPECTED = frozenset(
    {
        *(_T.HANDSHAKE_ANSWERED, _T.REQUEST_ACCEPTED, _T.OPENED, _T.CONNECT_ANSWERED, _T.CONNECT_PROCESSED),
        *(_T.PUBLISH_ANSWERED, _T.MISSED_ANSWERED, _T.MISSED_PROCESSED, _T.PUSH_GOOD),
    }
)
"""Triggers of a connection in order; every other that it does not pull itself is a failure."""
_FAILURES = frozenset({bayeux_table.Report.ABANDONED, bayeux_table.Report.TOO_LATE})
_BAYEUX_DEPTHS: dict[StrEnum | None, int] = {
    _B.UNCONNECTED: 1,
    BayeuxBox.OPENING: 2,
    _B.CONNECTED: 3,
    BayeuxBox.OPEN: 4,
    _B.REFUSED: 5,
}


def bayeux(part: Part | None = None) -> Graph[bayeux_table.Transition]:
    """Return the Bayeux connection below a session over CometD, as one client sees it; the whole, or one part."""
    return _bayeux() if part is None else selected(_bayeux(), part)


@cache
def _bayeux() -> Graph[bayeux_table.Transition]:
    return graph_of(
        name="bayeux",
        title="The Bayeux connection of a session over CometD",
        meanings=bayeux_table.MEANING.items(),
        rows=bayeux_table.TRANSITIONS,
        cause=_bayeux_cause,
        legend={
            Cause.SERVICE: "the service begins, sends or closes",
            Cause.FACT: "the expected answer",
            Cause.FAILURE: "a failure, or an advice of the gateway",
        },
        boxes={BayeuxBox.OPENING: bayeux_table.BEGINNING, BayeuxBox.OPEN: bayeux_table.OPEN},
        depths=_BAYEUX_DEPTHS,
    )


def _bayeux_cause(row: bayeux_table.Transition) -> Cause:
    if row.trigger in _SERVICE_TRIGGERS:
        return Cause.SERVICE
    # An expected trigger may end in failure too, as when the attempts are used up.
    failed = any(one.event in _FAILURES for one in row.publishes)
    return Cause.FACT if row.trigger in _EXPECTED and not failed else Cause.FAILURE


# -- paths -------------------------------------------------------------------------------------------------------------

TakenRow = tuple[State, Trigger, State]
"""Source, trigger and destination of a row that was taken."""


def path_text(steps: Sequence[TakenRow]) -> str:
    """Return a path as text, one line a step: ``idle --startChat--> starting``; repeated steps are counted."""
    # Right-aligned sources put the arrows of all lines below each other.
    widest = max((len(source) for source, _, _ in steps), default=0)
    return "".join(
        f"{source:>{widest}} --{trigger}--> {dest}{f'  (x{times})' if times > 1 else ''}\n"
        for (source, trigger, dest), times in ((step, len(list(same))) for step, same in groupby(steps))
    )
