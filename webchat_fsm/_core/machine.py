"""The rows as one shared `transitions` machine without models: sessions are handed in, a row comes out.

The only importer of transitions. No callback changes anything: an exception inside a transition would leave the new
state in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from transitions import Event, EventData, Machine, MachineError
from transitions import Transition as LibraryTransition

from webchat_fsm._errors import IllegalTransition
from webchat_fsm.lifecycle._table import TRANSITIONS, State, Transition, Trigger

if TYPE_CHECKING:
    from webchat_fsm._core.session import Session


NAME = "webchat_fsm"


def _of_others(record: logging.LogRecord) -> bool:
    """Return whether a record of `transitions` is about a machine other than this one."""
    return not (isinstance(record.args, tuple) and record.args and record.args[0] == f"{NAME}: ")


# Transitions of this machine are logged on webchat_fsm instead, one line each, after the session's lock is released.
logging.getLogger("transitions.core").addFilter(_of_others)


class _Taken(LibraryTransition):
    """A transition of the library that knows its row of the table."""

    def __init__(self, *args: Any, row: Transition, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row = row


class _Event(Event):
    def trigger(self, model: Any, *args: Any, **kwargs: Any) -> Transition | None:  # type: ignore[override]
        """Take the first admitted row and return it, None where the guards of all refuse.

        The library's own method answers with a bool, and would swallow a `KeyboardInterrupt` that strikes as it is
        done.
        """
        event = EventData(self.machine.get_model_state(model), self, self.machine, model, args, kwargs)
        if self._is_valid_source(event.state):
            self._process(event)
        return cast(_Taken, event.transition).row if event.result else None


class _Machine(Machine):
    event_cls = _Event
    transition_cls = _Taken


def _admits(row: Transition) -> Callable[[EventData], bool]:
    """Return the condition of a row, for the library: all of its guards hold for the session, which is the model."""

    def check(event: EventData) -> bool:
        session = cast("Session", event.model)
        return all(session.allows(guard) for guard in row.guards)

    return check


def build(transitions: tuple[Transition, ...] = TRANSITIONS) -> Machine:
    """Build a machine of the rows; those of one state and trigger are tried in the table's order."""
    # no auto transitions: the library would add one from every state to every other, beside the table
    machine = _Machine(model=None, states=State, initial=State.IDLE, auto_transitions=False, send_event=True, name=NAME)
    for row in transitions:
        conditions = _admits(row) if row.guards else None
        machine.add_transition(row.trigger.value, row.source, row.dest, conditions, row=row)
    return machine


@cache
def _machine() -> Machine:
    """Return the machine: built by the first step, and one for all sessions, as it holds no state of theirs."""
    return build()


def fire(session: Session, trigger: Trigger) -> Transition:
    """Move the session along the first admitted row; raises `IllegalTransition` where there is none."""
    try:
        row = cast(_Event, _machine().events[trigger]).trigger(session)
    except MachineError:  # no row of this state has the trigger
        row = None
    if row is None:  # or there are such rows, and their guards have refused them
        raise IllegalTransition(session.state, trigger)
    return row
