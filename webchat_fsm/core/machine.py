"""The rows as one shared `transitions` machine without models: sessions are handed in, a row comes out.

The only importer of transitions. Callbacks only record the row taken: an exception inside a transition would leave the
new state in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from transitions import Event, EventData, Machine, MachineError

from webchat_fsm.errors import IllegalTransition
from webchat_fsm.lifecycle.table import ROWS, Row, State, Trigger

if TYPE_CHECKING:
    from webchat_fsm.core.session import Session


NAME = "webchat_fsm"


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a line of transitions tells of a machine that is not ours."""
    return not (isinstance(record.args, tuple) and record.args and record.args[0] == f"{NAME}: ")


# Ours are told on the logger webchat_fsm, one line each, and after the session's lock has been given back.
logging.getLogger("transitions.core").addFilter(_of_others)


class _Event(Event):
    def _trigger(self, event_data: EventData) -> bool:
        """Try the rows; transitions itself would swallow a `KeyboardInterrupt` that strikes as it has done so."""
        event_data.state = self.machine.get_model_state(event_data.model)
        if self._is_valid_source(event_data.state):
            self._process(event_data)
        return bool(event_data.result)


class _Machine(Machine):
    event_cls = _Event


def _admits(row: Row) -> Callable[[EventData], bool]:
    def check(event: EventData) -> bool:
        session = cast("Session", event.model)
        return all(session.allows(guard) for guard in row.guards)

    return check


def _record(row: Row) -> Callable[[EventData], None]:
    def record(event: EventData) -> None:
        event.kwargs["taken"].append(row)

    return record


def build(rows: tuple[Row, ...] = ROWS) -> Machine:
    """A machine of the rows; those of one state and trigger are tried in the table's order."""
    machine = _Machine(model=None, states=State, initial=State.IDLE, auto_transitions=False, send_event=True, name=NAME)
    for row in rows:
        conditions = _admits(row) if row.guards else None
        machine.add_transition(row.trigger.value, row.source, row.dest, conditions, after=_record(row))
    return machine


_MACHINE = build()


def fire(session: Session, trigger: Trigger) -> Row:
    """Move the session along the first admitted row; raises `IllegalTransition` where there is none."""
    taken: list[Row] = []
    try:
        _MACHINE.events[trigger.value].trigger(session, taken=taken)
    except MachineError:
        raise IllegalTransition(session.state, trigger) from None
    if not taken:
        raise IllegalTransition(session.state, trigger)
    return taken[0]
