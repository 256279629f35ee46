"""The tables of a machine to read: as Markdown, and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, StrEnum
from functools import cache
from typing import NamedTuple

from webchat_fsm.diagram._graph import Edge, Graph, Row
from webchat_fsm.diagram._machines import lifecycle, publications, publishing
from webchat_fsm.lifecycle._events import EVENTS, Event
from webchat_fsm.lifecycle._legality import DOCUMENTED, NOT_READY, Cell, Rule, judged_state, legality
from webchat_fsm.lifecycle._states import MEANING, State
from webchat_fsm.lifecycle._table import CONTENT, Flag, Publication, Transition, reachable
from webchat_fsm.lifecycle._transports import Transport

YES, NEVER = "yes", "-"


class Grid(NamedTuple):
    """The legality of the commands on one transport, ready to print.

    A cell is `YES`, the number of a refusal in `notes`, or `NEVER` where the transport never enters that state.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: dict[int, str]


# -- legality ----------------------------------------------------------------------------------------------------------


@cache
def refusals() -> dict[str, int]:
    """Return every text with which a user's command can be refused, numbered in the order of the tables."""
    # A dict keeps the order and removes repetitions; the numbers are then the same in all tables.
    texts = dict.fromkeys(cell.reason for one in Transport for cell in legality(one) if cell.reachable and cell.reason)
    return {text: number for number, text in enumerate(texts, 1)}


def grid(transport: Transport) -> Grid:
    """Return the legality on one transport: a line for each command, a column for each state."""
    cells = legality(transport)
    shown = {(cell.command, cell.state): _mark(cell) for cell in cells}
    rows = tuple((rule.name, *(shown[rule.name, state] for state in State)) for rule in DOCUMENTED)
    # Only the notes that this table refers to, under their numbers of all tables.
    used = {mark for row in rows for mark in row[1:]}
    notes = {number: text for text, number in refusals().items() if str(number) in used}
    return Grid(("command", *(state.value for state in State)), rows, notes)


def terminal_table(transport: Transport) -> str:
    """Return the grid for a terminal without colours, the refusals under it."""
    table = grid(transport)
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (table.header, *table.rows)]
    notes = [f"{number:>2}  {text}" for number, text in table.notes.items()]
    return "\n".join([*lines, "", *notes, f" {NEVER}  a session on {transport} is never in this state"]) + "\n"


def legality_page() -> str:
    """Return legality.md: a table for each transport, with the literal texts of the refusals."""
    always = ", ".join(f"`{rule.name}`" for rule in DOCUMENTED if rule.any_time)
    begin = " and ".join(f"`{rule.name}`" for rule in DOCUMENTED if _judged_by_state_while_ending(rule))
    parts = [
        f"# Which command is legal where\n\n{_origin_note('lifecycle')}\n",
        f"For a user's command: `{YES}` means legal, a number the refusal below, `{NEVER}` that a session on that"
        " transport is never in that state. Refusals for the arguments are not shown.\n",
        f"Before `open()` and after `close()` only these work: {always}. Every other is refused with `{NOT_READY}`.\n",
        f"While `endChat` is in flight commands answer as in `{State.ENDED}`, but {begin} by the state itself.\n",
        "## Refusals\n",
        *(f"{number}. `{text}`" for text, number in refusals().items()),
    ]
    for transport in Transport:
        table = grid(transport)
        parts += [f"\n## {transport}\n", _table(table.header, table.rows)]
    return "\n".join(parts) + "\n"


def _judged_by_state_while_ending(rule: Rule) -> bool:
    return judged_state(rule, State.ACTIVE, frozenset({Flag.ENDING})) is State.ACTIVE


def _mark(cell: Cell) -> str:
    if not cell.reachable:
        return NEVER
    return YES if cell.legal else str(refusals()[cell.reason])


# -- pages -------------------------------------------------------------------------------------------------------------


def events_page() -> str:
    """Return events.md: every event with its payload, its transports and the rows that publish it."""
    rows = [
        (f"`{event.name}`", _payload(event), _transports(event.transports), event.meaning, _published_by(event))
        for event in EVENTS.values()
    ]
    header = ("event", "payload", "transports", "meaning", "rows")
    return (
        f"# Events\n\n{_origin_note('lifecycle')}\n\n"
        f"The last column counts the rows of [lifecycle.md](lifecycle.md). An event from messages comes"
        f" just before the `{CONTENT.event}` that contains the message.\n\n" + _table(header, rows) + "\n"
    )


def lifecycle_page() -> str:
    """Return lifecycle.md: every state, and every row of the table in its order."""
    states = [(_anchored(state), MEANING[state], _transports(_entering(state))) for state in State]
    header = ("row", "from", "trigger", "guards", "to", "events, in order", "flags and effects", "reason", "transports")
    return (
        f"# The lifecycle\n\n{_origin_note('lifecycle')}\n\n"
        f"## States\n\n{_table(('state', 'meaning', 'transports'), states)}\n\n## Rows\n\n{_FIRST_ROW}"
        " Events in brackets are published under that condition only.\n\n"
        + _table(header, [_lifecycle_row(edge) for edge in lifecycle().edges])
        + "\n"
    )


def machine_page(graph: Graph[Row], heading: str) -> str:
    """Return the page of a machine without variants: every state, and every row with its further columns.

    A further column is a field of the rows beside source, trigger, destination and guards that is set in any of them.
    """
    rows = [edge.row for edge in graph.edges]
    names = [name for name in _extra_fields(rows) if any(getattr(row, name) for row in rows)]
    header = ("row", "from", "trigger", "guards", "to", *names)
    return (
        f"# {heading}\n\n{_origin_note(graph.name)}\n\n"
        f"## States\n\n{_table(('state', 'meaning'), [(_anchored(one.state), one.meaning) for one in graph.nodes])}\n\n"
        f"## Rows\n\n{_FIRST_ROW}\n\n"
        + _table(
            header,
            [(*_common_columns(edge), *(_cell(getattr(edge.row, name)) for name in names)) for edge in graph.edges],
        )
        + "\n"
    )


_FIRST_ROW = (
    "Of several rows for one state and trigger the first whose guards hold is taken; `otherwise` marks one that is"
    " taken when those before it are not."
)


def _origin_note(name: str) -> str:
    return f"Generated from the {name} table by `webchat-fsm diagram`; do not edit."


def _common_columns(edge: Edge[Row]) -> tuple[str, ...]:
    """Return the columns that every machine has: number, source, trigger, guards and destination."""
    guards = ", ".join(edge.row.guards) or ("otherwise" if edge.otherwise else "")
    # The pictures link to the anchors of rows and states.
    return (
        f'<a id="row-{edge.number}"></a>{edge.number}',
        f"`{edge.source}`",
        edge.trigger.value,
        guards,
        f"`{edge.dest}`",
    )


def _anchored(state: StrEnum) -> str:
    return f'<a id="state-{state}"></a>`{state}`'


def _extra_fields(rows: Sequence[Row]) -> list[str]:
    # The rows are structs; their order of fields is that of the columns.
    fields: tuple[str, ...] = getattr(rows[0], "__struct_fields__", ())
    return [name for name in fields if name not in ("source", "trigger", "dest", "guards")]


def _cell(value: object) -> str:
    """Return a field of a row as text; a publication with its conditions in brackets."""
    # By attribute, as each table has a type of publication of its own.
    if (event := getattr(value, "event", None)) is not None:
        when, unless = " and ".join(getattr(value, "when", ())), " or ".join(getattr(value, "unless", ()))
        conditions = [f"if {when}"] * bool(when) + [f"unless {unless}"] * bool(unless)
        return _cell(event) + (f" [{', '.join(conditions)}]" if conditions else "")
    if isinstance(value, tuple | list | frozenset):
        return "<br>".join(map(_cell, value))  # values may contain commas
    return str(value.value) if isinstance(value, Enum) else str(value)


def _lifecycle_row(edge: Edge[Transition]) -> tuple[str, ...]:
    row = edge.row
    flags = [f"sets {_words(row.sets)}"] * bool(row.sets) + [f"clears {_words(row.clears)}"] * bool(row.clears)
    return (
        *_common_columns(edge),
        ", ".join(_publication(one, edge) for one in publications(edge)),
        "; ".join([*flags, *row.effects]),
        row.reason,
        _transports(edge.views),
    )


def _publication(one: Publication, edge: Edge[Transition]) -> str:
    # The events of single messages come just before, and have no row of their own.
    if one == CONTENT:
        return f"events of the messages, `{one.event}`"
    # A row for several transports may publish an event that only some of them have.
    narrower = [view for view in edge.views if view in EVENTS[one.event].transports]
    conditions = [f"on {' and '.join(narrower)}"] * (len(narrower) < len(edge.views))
    conditions += [f"if {_words(one.when, ' or ')}"] * bool(one.when)
    conditions += [f"unless {_words(one.unless, ' or ')}"] * bool(one.unless)
    return f"`{one.event}`" + (f" [{', '.join(conditions)}]" if conditions else "")


def _words(members: Sequence[Flag], joint: str = ", ") -> str:
    return joint.join(member.value.replace("_", " ") for member in members)


def _payload(event: Event) -> str:
    return f"`{event.payload.__name__}`" if event.payload else "none"


def _published_by(event: Event) -> str:
    numbers = [str(edge.number) for edge in publishing(lifecycle(), event.name)]
    return ", ".join([*numbers, *["from messages"] * event.from_messages])


def _entering(state: State) -> Iterator[Transport]:
    return (one for one in Transport if state in reachable(one))


def _transports(some: Iterable[str]) -> str:
    known = frozenset(some)
    return "all" if known == frozenset(Transport) else ", ".join(one for one in Transport if one in known)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    # A bar in a text would end its cell.
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
