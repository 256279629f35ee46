"""Compute the reachable states of a transport from the rows alone, independently of the table's own functions."""

from __future__ import annotations

from webchat_fsm.lifecycle._table import TRANSITIONS, Guard, State, Transition
from webchat_fsm.lifecycle._transports import Transport

NEVER: dict[Transport, set[Guard]] = {
    Transport.V2: {Guard.PUSHES, Guard.NEXUS, Guard.ASYNC, Guard.WAS_DORMANT},
    Transport.V3: {Guard.PUSHES, Guard.GMS, Guard.ASYNC, Guard.WAS_DORMANT},
    Transport.V3_ASYNC: {Guard.PUSHES, Guard.GMS},
}
"""Guards that are never true on a transport."""


def admitted(row: Transition, transport: Transport) -> bool:
    return not NEVER[transport] & set(row.guards)


def reachable_states(transport: Transport) -> set[State]:
    """Return the states that a path of admitted rows leads to."""
    seen, edge = {State.IDLE}, [State.IDLE]
    while edge:
        here = edge.pop(0)
        for row in TRANSITIONS:
            if row.source is here and row.dest not in seen and admitted(row, transport):
                seen.add(row.dest)
                edge.append(row.dest)
    return seen


def possible_rows(transport: Transport) -> list[Transition]:
    """Return the rows that a chat on a transport can take."""
    states = reachable_states(transport)
    return [row for row in TRANSITIONS if row.source in states and admitted(row, transport)]
