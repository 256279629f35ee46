"""What can be reached on a transport, found here from the rows, so as not to ask the table for its own opinion."""

from __future__ import annotations

from webchat_fsm.lifecycle.table import ROWS, Guard, Row, State, Transport

NEVER: dict[Transport, set[Guard]] = {
    Transport.V2: {Guard.PUSHES, Guard.NEXUS, Guard.ASYNC, Guard.WAS_DORMANT},
    Transport.V3: {Guard.PUSHES, Guard.GMS, Guard.ASYNC, Guard.WAS_DORMANT},
    Transport.V3_ASYNC: {Guard.PUSHES, Guard.GMS},
}
"""Guards that no session on that transport can meet."""


def admitted(row: Row, transport: Transport) -> bool:
    return not NEVER[transport] & set(row.guards)


def breadth_first(transport: Transport) -> set[State]:
    """The states that some way through the rows leads to."""
    seen, edge = {State.IDLE}, [State.IDLE]
    while edge:
        here = edge.pop(0)
        for row in ROWS:
            if row.source is here and row.dest not in seen and admitted(row, transport):
                seen.add(row.dest)
                edge.append(row.dest)
    return seen


def takable(transport: Transport) -> list[Row]:
    """The rows that some chat on that transport can take."""
    states = breadth_first(transport)
    return [row for row in ROWS if row.source in states and admitted(row, transport)]
