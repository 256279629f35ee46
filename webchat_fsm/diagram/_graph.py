"""A transition table as a graph: the one form that every drawing is made from.

An `Edge` is one row of the table. An `Arc` is what a drawing shows: all rows that lead from one place to another for
one cause. A table whose machine has variants (the transports of the lifecycle) is seen from one of its `views` or from
several at once; a table without variants has one view with an empty name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from typing import Generic, NamedTuple, Protocol, TypeVar


class Row(Protocol):
    """One row of a transition table, as far as a drawing needs it."""

    @property
    def source(self) -> StrEnum:
        """Return the state in which the row applies."""
        ...

    @property
    def trigger(self) -> StrEnum:
        """Return the input on which the row is taken."""
        ...

    @property
    def dest(self) -> StrEnum:
        """Return the state that the row leads to."""
        ...

    @property
    def guards(self) -> tuple[StrEnum, ...]:
        """Return the conditions, all of which must hold."""
        ...


RowT = TypeVar("RowT", bound=Row, covariant=True)


class Cause(StrEnum):
    """Origin of an edge; it decides colour and line style in every drawing."""

    COMMAND = "command"
    SERVICE = "service"
    FACT = "fact"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Node:
    """One state; an unreachable one is listed, but not drawn."""

    state: StrEnum
    meaning: str
    reachable: bool = True
    box: StrEnum | None = None
    """Frame round this state and others, None where it stands alone."""
    shown: bool = True
    """False where a drawing of a part leaves the state out."""


@dataclass(frozen=True, slots=True)
class Edge(Generic[RowT]):
    """One row of the table as seen from some views, which may settle its guards."""

    number: int
    """Place of the row in its table, from 1."""
    row: RowT
    cause: Cause
    guards: tuple[StrEnum, ...]
    """Guards that these views leave open."""
    otherwise: bool
    """True where an earlier row with a guard leads the same trigger elsewhere."""
    views: tuple[str, ...] = ("",)

    @property
    def source(self) -> StrEnum:
        """Return the state in which the row applies."""
        return self.row.source

    @property
    def dest(self) -> StrEnum:
        """Return the state that the row leads to."""
        return self.row.dest

    @property
    def trigger(self) -> StrEnum:
        """Return the input on which the row is taken."""
        return self.row.trigger

    @property
    def stays(self) -> bool:
        """Return whether the state remains the same."""
        return self.source is self.dest

    @property
    def condition(self) -> str:
        """Return the guards as a text; empty where the row is always taken."""
        return " and ".join(self.guards) or ("otherwise" if self.otherwise else "")


@dataclass(frozen=True, slots=True)
class Way:
    """One trigger on an arc, with the condition under which it leads there."""

    trigger: StrEnum
    cause: Cause
    condition: str
    rows: tuple[int, ...] = field(default=(), compare=False)
    """Numbers of its rows in the table; of every state of the box where the arc leads out of one."""

    def __str__(self) -> str:
        return f"{self.trigger} [{self.condition}]" if self.condition else str(self.trigger)


@dataclass(frozen=True, slots=True)
class Arc:
    """All ways of one cause from a state to another; an arc out of a box leads out of each state in it."""

    source: StrEnum
    dest: StrEnum
    cause: Cause
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Graph(Generic[RowT]):
    """A machine to draw: its states, its rows, and what the layout needs beside them."""

    name: str
    """Name of the table and of its files: `lifecycle`."""
    title: str
    legend: Mapping[Cause, str]
    nodes: tuple[Node, ...]
    """Every state in the order of the table, the initial one first."""
    edges: tuple[Edge[RowT], ...]
    views: tuple[str, ...] = ("",)
    settled: frozenset[StrEnum] = frozenset()
    """Guards that the view alone decides: seen from one view they always hold, or never."""
    enters: Mapping[str, frozenset[StrEnum]] = field(default_factory=dict)
    """The states that each view can be in; a view that is not listed can be in all."""
    boxes: tuple[StrEnum, ...] = ()
    entry: StrEnum | None = None
    """The state inside a box that an arrow into the box is tied to."""
    depths: Mapping[StrEnum | None, int] = field(default_factory=dict)
    """How far to the right states and boxes stand, and (None) all other states; without any, by the order of states."""
    part: str = ""
    """Name of the part that is drawn, empty for the whole."""
    detailed: bool = False
    """Whether the drawing names the events of each row, and lists in a state the rows that stay in it and publish."""
    silent: frozenset[str] = frozenset()
    """Events that the drawing does not name: those that these views do not have, or that nearly every row has."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Notes of the user, by the name of a state or of a trigger."""
    taken: Mapping[int, int] | None = None
    """How often each row was taken, by its number; None where nothing was counted."""

    @property
    def initial(self) -> StrEnum:
        """Return the state in which the machine begins."""
        return self.nodes[0].state

    @property
    def drawn(self) -> tuple[Node, ...]:
        """Return the reachable states that this drawing shows."""
        return tuple(node for node in self.nodes if node.reachable and node.shown)

    def count(self, rows: Iterable[int]) -> int:
        """Return how often some rows were taken together; 0 where nothing was counted."""
        return sum((self.taken or {}).get(number, 0) for number in rows)

    def times(self, way: Way) -> str:
        """Return how often a way was taken, as a label says it; empty where nothing was counted."""
        return "" if self.taken is None else f" \u00d7{self.count(way.rows)}"

    def node(self, state: StrEnum) -> Node:
        """Return the node of a state; raises `StopIteration` for a state of another machine."""
        return next(node for node in self.nodes if node.state is state)

    def inside(self, box: StrEnum | None) -> tuple[Node, ...]:
        """Return the drawn states of a box; None for those in no box."""
        return tuple(node for node in self.drawn if node.box is box)

    def staying(self, state: StrEnum) -> tuple[Way, ...]:
        """Return the ways that stay in a state and publish events; none where the drawing has no details."""
        if not self.detailed:
            return ()
        found: dict[StrEnum, list[Edge[RowT]]] = {}
        for edge in self.edges:
            if edge.stays and edge.source is state and self.events((edge.number,)):
                found.setdefault(edge.trigger, []).append(edge)
        return tuple(
            Way(trigger, edges[0].cause, "", tuple(edge.number for edge in edges)) for trigger, edges in found.items()
        )

    def events(self, rows: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the events that some rows publish, each once, in their order."""
        chosen = frozenset(rows)
        names = (
            # By attribute, as each table has a type of publication of its own.
            str(getattr(one, "event", one))
            for edge in self.edges
            if edge.number in chosen
            for one in getattr(edge.row, "publishes", ())
        )
        return tuple(dict.fromkeys(name for name in names if name not in self.silent))

    def arcs(self, boxes: Iterable[StrEnum] | None = None) -> tuple[Arc, ...]:
        """Merge the edges between different states; what leads out of all states of a box leads out of the box once."""
        drawn = tuple(self.boxes if boxes is None else boxes)
        # A dict keeps the order of the table, on which the bytes of every drawing depend; a set would not.
        ways = dict.fromkeys(_ways(self))
        for box in drawn:
            _merge_common_ways(ways, box, [node.state for node in self.inside(box)])
        # By the order of the table, not of the merging: the same table gives the same bytes.
        places = {place: number for number, place in enumerate((*self.boxes, *(node.state for node in self.nodes)))}
        causes = {cause: number for number, cause in enumerate(Cause)}
        ordered = sorted(ways, key=lambda one: (places[one.source], places[one.dest], causes[one.way.cause]))
        return tuple(
            Arc(source, dest, cause, tuple(one.way for one in group))
            for (source, dest, cause), group in groupby(ordered, key=lambda one: (one.source, one.dest, one.way.cause))
        )


def graph_of(
    name: str,
    title: str,
    meanings: Iterable[tuple[StrEnum, str]],
    rows: Sequence[RowT],
    cause: Callable[[RowT], Cause],
    legend: Mapping[Cause, str],
    boxes: Mapping[StrEnum, Iterable[StrEnum]] | None = None,
    depths: Mapping[StrEnum | None, int] | None = None,
) -> Graph[RowT]:
    """Return the graph of a table without variants; `meanings` lists its states, the initial one first."""
    box_of = {state: box for box, inside in (boxes or {}).items() for state in inside}
    nodes = tuple(Node(state, meaning, box=box_of.get(state)) for state, meaning in meanings)
    edges = tuple(_edges(rows, cause))
    return Graph(name, title, legend, nodes, edges, boxes=tuple(boxes or ()), depths=depths or {})


def _edges(rows: Sequence[RowT], cause: Callable[[RowT], Cause]) -> Iterator[Edge[RowT]]:
    earlier: dict[tuple[StrEnum, StrEnum], list[Edge[RowT]]] = {}
    for number, row in enumerate(rows, 1):
        # The machine takes the first row that applies, so those before this one decide what it means.
        earlier_edges = earlier.setdefault((row.source, row.trigger), [])
        edge = Edge(number, row, cause(row), row.guards, is_otherwise(row, row.guards, earlier_edges))
        earlier_edges.append(edge)
        yield edge


def is_otherwise(row: Row, guards: tuple[StrEnum, ...], earlier_edges: Iterable[Edge[Row]]) -> bool:
    """Return whether a row without open guards is the other case of an earlier one that leads elsewhere."""
    # A row to the same state is no alternative: both lead where the arrow points.
    return not guards and any(other.dest is not row.dest for other in earlier_edges)


class _Placed(NamedTuple):
    source: StrEnum
    dest: StrEnum
    way: Way


def _ways(seen: Graph[Row]) -> Iterator[_Placed]:
    # Rows that stay are not drawn: nearly every state has some, and their loops would hide the arrows.
    leaving: dict[tuple[StrEnum, StrEnum, StrEnum], list[Edge[Row]]] = {}
    for edge in seen.edges:
        if not edge.stays:
            leaving.setdefault((edge.source, edge.dest, edge.trigger), []).append(edge)
    for (source, dest, trigger), edges in leaving.items():
        rows = tuple(edge.number for edge in edges)
        yield _Placed(source, dest, Way(trigger, edges[0].cause, _condition(seen, source, edges), rows))


def _condition(seen: Graph[Row], source: StrEnum, edges: list[Edge[Row]]) -> str:
    """Return when one of these edges is taken; empty where that is so in every view that enters the source at all."""
    # A view is certain where its edge has no guard but those that the view itself decides.
    certain = {view for edge in edges if seen.settled.issuperset(edge.guards) for view in edge.views}
    # A view that never enters the source cannot make the condition worth showing.
    if all(view in certain for view in seen.views if source in seen.enters.get(view, (source,))):
        return next((edge.condition for edge in edges if edge.otherwise), "")
    return " or ".join(dict.fromkeys(edge.condition for edge in edges))


def _merge_common_ways(ways: dict[_Placed, None], box: StrEnum, inside: list[StrEnum]) -> None:
    """Replace a way that leads out of every state of a box by one out of the box itself."""
    # Over a copy, as the merged ways are removed from the original.
    originals = {one: one for one in ways}
    for _, dest, way in list(ways):
        each = [_Placed(state, dest, way) for state in inside]
        # An arrow from a box into itself would look like one between its states, so those stay apart.
        if len(each) > 1 and dest not in inside and all(one in ways for one in each):
            for one in each:
                del ways[one]
            rows = tuple(sorted(number for one in each for number in originals[one].way.rows))
            ways[_Placed(box, dest, replace(way, rows=rows))] = None
