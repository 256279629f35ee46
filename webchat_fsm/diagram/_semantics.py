"""What a program needs to run the lifecycle table by itself, beside the rows: guards, flags, effects and refusals.

How a step goes is described once, in `_files.py`, for the README of the folder. What a step needs beside the state, the
flags that rows set and clear, the state before, the count of failures, and whether the service is open, is an input of
it: a named boolean.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS, DOCUMENTED, NOT_READY, RESET_POLL_EXCEPTIONS, Rule, judged_state
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._table import TRANSITIONS, Effect, Flag, Guard, Publication, Transition, Trigger
from webchat_fsm.lifecycle._transports import Transport

INITIAL = State.IDLE
OPENED_BY, CLOSED_BY = Trigger.OPEN, Trigger.CLOSE
LIMIT = 5
"""Default of pollExceptionLimit, the one number that a machine is configured with."""

RESETS_FAILURES: Rule = RESET_POLL_EXCEPTIONS
"""The command that sets the count of failures to 0, without a row."""

CONTENT_INPUT = "content"
"""The input that says whether an answer brought something to publish."""


class Decider(StrEnum):
    """What decides whether a guard holds, or a flag is set."""

    TRANSPORT = "transport"
    FLAG = "flag"
    PREVIOUS = "previous"
    FAILURES = "failures"
    INPUT = "input"
    ROWS = "rows"


class Condition(NamedTuple):
    """How a guard is tested: the flag that is set, the state before, or the input that holds it; else empty."""

    by: Decider
    of: str = ""


class Count(StrEnum):
    """The count of failures after an effect, as an expression of Python and ECMAScript alike; empty where it stays."""

    SAME = ""
    ZERO = "0"
    ONE_MORE = "failures + 1"
    ABOVE_LIMIT = "limit + 1"


class EffectChange(NamedTuple):
    """What an effect does to flags and count; `first` before the events, else after the flags of the row."""

    clears: tuple[Flag, ...] = ()
    failures: Count = Count.SAME
    first: bool = False


_CHANGED = frozenset(flag for row in TRANSITIONS for flag in (*row.sets, *row.clears))
KEPT_FLAGS: tuple[Flag, ...] = tuple(flag for flag in Flag if flag in _CHANGED)
"""The flags that rows set and clear."""
_GIVEN_FLAGS = tuple(flag for flag in Flag if flag not in _CHANGED)
"""The flags that no row changes, as they follow from messages: a step is given their values."""

CHANGES: dict[Effect, EffectChange] = {
    Effect.BEGIN: EffectChange(KEPT_FLAGS, Count.ZERO, first=True),
    Effect.COUNT: EffectChange(failures=Count.ONE_MORE),
    Effect.ZERO: EffectChange(failures=Count.ZERO),
    Effect.SATURATE: EffectChange(failures=Count.ABOVE_LIMIT),
    Effect.KEEP: EffectChange(),
    Effect.FORGET: EffectChange(),
    Effect.FINISH: EffectChange(),
    Effect.LEAVE: EffectChange(KEPT_FLAGS, Count.ZERO),
}
"""What each effect does to flags and count; the core performs the same in `_core/context.py`."""

CONDITIONS: dict[Guard, Condition] = {
    Guard.RESTORABLE: Condition(Decider.INPUT, "restorable"),
    Guard.OVER_LIMIT: Condition(Decider.FAILURES),
    Guard.ENDING: Condition(Decider.FLAG, Flag.ENDING.value),
    Guard.WAS_ENDED: Condition(Decider.PREVIOUS, State.ENDED.value),
    Guard.WAS_DORMANT: Condition(Decider.PREVIOUS, State.DORMANT.value),
}
"""How the guards are tested that do not depend on the transport alone; OVER_LIMIT is `failures >= limit`."""


def condition_of(guard: Guard) -> Condition:
    """Return how a guard is tested; raises ValueError for one that neither the transport nor `CONDITIONS` decides."""
    if guard.is_settled:
        return Condition(Decider.TRANSPORT)
    if guard not in CONDITIONS:
        raise ValueError(f"no program can test the guard {guard.value!r}: add its condition to CONDITIONS")
    return CONDITIONS[guard]


def identifier(flag: Flag) -> str:
    """Return the name of a flag as a variable or an input of an engine."""
    return flag.name.lower()


def inputs() -> tuple[str, ...]:
    """Return the names of all inputs of a step."""
    tested = (one.of for one in CONDITIONS.values() if one.by is Decider.INPUT)
    return (*tested, *map(identifier, _GIVEN_FLAGS), CONTENT_INPUT)


def published(row: Transition, transport: Transport) -> Iterator[Publication]:
    """Yield the publications of a row that a transport has."""
    return (one for one in row.publishes if transport in EVENTS[one.event].transports)


def while_ending(rule: Rule) -> State:
    """Return the state by which a command is judged while endChat is in flight."""
    return judged_state(rule, State.IDLE, frozenset({Flag.ENDING}))


def refusals(transport: Transport, state: State) -> dict[str, str]:
    """Return the refusal of each documented command for a user, where the service is open; empty where it is legal."""
    return {rule.name: rule.refuse(state, transport) for rule in DOCUMENTED}


def refusals_while_ending(transport: Transport) -> dict[str, str]:
    """Return the refusal of each documented command while endChat is in flight, in any state."""
    return {rule.name: rule.refuse(while_ending(rule), transport) for rule in DOCUMENTED}


def refusals_while_closed(transport: Transport, state: State = INITIAL) -> dict[str, str]:
    """Return the refusal of each documented command where the service is not open."""
    return {rule.name: rule.refuse(state, transport) if rule.any_time else NOT_READY for rule in DOCUMENTED}


def resets_failures(transport: Transport) -> bool:
    """Return whether a user of that transport may set the count of failures to 0."""
    return transport not in COMMANDS[RESETS_FAILURES.name].unsupported
