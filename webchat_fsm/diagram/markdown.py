"""The lifecycle as tables to read: which command is legal where, what publishes an event, and every row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from webchat_fsm.diagram.graph import Edge
from webchat_fsm.diagram.graph import graph as graph_of
from webchat_fsm.lifecycle.commands import DOCUMENTED, NOT_READY, Cell, Rule, judged_state, legality
from webchat_fsm.lifecycle.events import EVENTS, Event
from webchat_fsm.lifecycle.table import CONTENT, MEANING, Flag, Say, State, Transport

YES, NEVER = "yes", "-"

_GENERATED = "Generated from the lifecycle table by `python -m webchat_fsm.diagram`; do not edit."


class Grid(NamedTuple):
    """The legality of the commands on one transport, ready to print.

    A cell is `YES`, the number of a refusal in `notes`, or `NEVER` where the transport never comes into that state.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: dict[int, str]


@cache
def refusals() -> dict[str, int]:
    """Every text with which a user's command can be refused, numbered as the tables come to it."""
    texts = dict.fromkeys(cell.reason for one in Transport for cell in legality(one) if cell.reachable and cell.reason)
    return {text: number for number, text in enumerate(texts, 1)}


def grid(transport: Transport) -> Grid:
    """The commands down, the states across."""
    cells = legality(transport)
    shown = {(cell.command, cell.state): _mark(cell) for cell in cells}
    rows = tuple((rule.name, *(shown[rule.name, state] for state in State)) for rule in DOCUMENTED)
    used = {mark for row in rows for mark in row[1:]}
    notes = {number: text for text, number in refusals().items() if str(number) in used}
    return Grid(("command", *(state.value for state in State)), rows, notes)


def terminal_table(transport: Transport) -> str:
    """The grid for a terminal without colours, the refusals under it."""
    table = grid(transport)
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (table.header, *table.rows)]
    notes = [f"{number:>2}  {text}" for number, text in table.notes.items()]
    return "\n".join([*lines, "", *notes, f" {NEVER}  a session on {transport} is never in this state"]) + "\n"


def legality_page() -> str:
    """A table for each transport, with the literal texts of the refusals."""
    always = ", ".join(f"`{rule.name}`" for rule in DOCUMENTED if rule.any_time)
    begin = " and ".join(f"`{rule.name}`" for rule in DOCUMENTED if _judged_by_state_while_ending(rule))
    parts = [
        f"# Which command is legal where\n\n{_GENERATED}\n",
        f"For a user's command: `{YES}` means legal, a number the refusal below, `{NEVER}` that a session on that"
        " transport is never in that state. What is refused for its arguments is not shown.\n",
        f"Before `open()` and after `close()` only these work: {always}. Every other is refused with `{NOT_READY}`.\n",
        f"While `endChat` is in flight commands answer as in `{State.ENDED}`, but {begin} by the state itself.\n",
        "## Refusals\n",
        *(f"{number}. `{text}`" for text, number in refusals().items()),
    ]
    for transport in Transport:
        table = grid(transport)
        parts += [f"\n## {transport}\n", _table(table.header, table.rows)]
    return "\n".join(parts) + "\n"


def events_page() -> str:
    """Every event with its payload, its transports and the rows that publish it."""
    rows = [
        (f"`{event.name}`", _payload(event), _transports(event.transports), event.meaning, _published(event))
        for event in EVENTS.values()
    ]
    header = ("event", "payload", "transports", "meaning", "rows")
    return (
        f"# Events\n\n{_GENERATED}\n\n"
        f"The last column counts the rows of [lifecycle.md](lifecycle.md). An event in no row comes from a message:"
        f" it is published just before the `{CONTENT.event}` that the message is in.\n\n" + _table(header, rows) + "\n"
    )


def lifecycle_page() -> str:
    """Every state, and every row of the table in its order."""
    states = [(f"`{state}`", MEANING[state], _transports(_where(state))) for state in State]
    header = ("row", "from", "trigger", "guards", "to", "events, in order", "flags and effects", "why", "transports")
    return (
        f"# The lifecycle\n\n{_GENERATED}\n\n"
        f"## States\n\n{_table(('state', 'meaning', 'transports'), states)}\n\n## Rows\n\n"
        "Of several rows for one state and trigger the first whose guards hold is taken; `otherwise` marks one that is"
        " taken when those before it are not. Events in brackets are published under that condition only.\n\n"
        + _table(header, [_row(edge) for edge in graph_of().edges])
        + "\n"
    )


def _judged_by_state_while_ending(rule: Rule) -> bool:
    return judged_state(rule, State.ACTIVE, frozenset({Flag.ENDING})) is State.ACTIVE


def _mark(cell: Cell) -> str:
    if not cell.reachable:
        return NEVER
    return YES if cell.legal else str(refusals()[cell.reason])


def _row(edge: Edge) -> tuple[str, ...]:
    row = edge.row
    guards = ", ".join(row.guards) or ("otherwise" if edge.otherwise else "")
    effects = [f"sets {_words(row.sets)}"] * bool(row.sets) + [f"clears {_words(row.clears)}"] * bool(row.clears)
    return (
        str(edge.number),
        f"`{row.source}`",
        row.trigger.value,
        guards,
        f"`{row.dest}`",
        ", ".join(_said(say, edge) for say in edge.says),
        "; ".join([*effects, *row.does]),
        row.why,
        _transports(edge.transports),
    )


def _said(say: Say, edge: Edge) -> str:
    if say == CONTENT:
        return f"events of the messages, `{say.event}`"
    narrower = [one for one in edge.transports if one in EVENTS[say.event].transports]
    conditions = [f"on {' and '.join(narrower)}"] * (len(narrower) < len(edge.transports))
    conditions += [f"if {_words(say.when, ' or ')}"] * bool(say.when)
    conditions += [f"unless {_words(say.unless, ' or ')}"] * bool(say.unless)
    return f"`{say.event}`" + (f" [{', '.join(conditions)}]" if conditions else "")


def _words(members: Sequence[Flag], joint: str = ", ") -> str:
    return joint.join(member.value.replace("_", " ") for member in members)


def _payload(event: Event) -> str:
    return f"`{event.payload.__name__}`" if event.payload else "none"


def _published(event: Event) -> str:
    return ", ".join(str(edge.number) for edge in graph_of().saying(event.name)) or "from a message"


def _where(state: State) -> Iterator[Transport]:
    return (one for one in Transport if graph_of(one).node(state).reachable)


def _transports(some: Iterable[Transport]) -> str:
    known = frozenset(some)
    return "all" if known == frozenset(Transport) else ", ".join(one for one in Transport if one in known)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
