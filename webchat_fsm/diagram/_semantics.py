"""What a program needs to run the lifecycle table by itself: guards, flags, effects, refusals, and rows as actions.

How a step goes is described once, in `_files.py`, for the README of the folder. What a step needs beside the variables
of `variables()` is an input of it: a named boolean. The rows of one transport as actions in order are the form from
which every export for a foreign engine is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from webchat_fsm.diagram._graph import Edge
from webchat_fsm.diagram._machines import lifecycle
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS, DOCUMENTED, NOT_READY, RESET_POLL_EXCEPTIONS, Rule, judged_state
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._table import (
    CONTENT,
    TRANSITIONS,
    Effect,
    Flag,
    Guard,
    Publication,
    Transition,
    Trigger,
    reachable,
)
from webchat_fsm.lifecycle._transports import Transport

INITIAL = State.IDLE
OPENED_BY, CLOSED_BY = Trigger.OPEN, Trigger.CLOSE
DEFAULT_LIMIT = 5
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


# -- the rows as actions in order --------------------------------------------------------------------------------------

COMMANDS_EVENT = "commands"
"""The event by which an engine is asked for the refusals of all commands."""

OPENED, PREVIOUS, FAILURES, LIMIT = "opened", "previous", "failures", "limit"
"""The variables beside the flags; PREVIOUS is the state before the latest change."""

Value = bool | int | str


class Term(NamedTuple):
    """One condition: an input that is true, a variable that equals a value, or one that is at least another.

    `name` is that of the guard, or of the flag.
    """

    name: str
    variable: str = ""
    equals: Value = True
    least: str = ""
    input: str = ""


class Publish(NamedTuple):
    """Publish an event, where one of `when` (if there are any) and none of `unless` holds."""

    event: str
    when: tuple[Term, ...]
    unless: tuple[Term, ...]


class Change(NamedTuple):
    """Give a variable a value; with `plus` the value of that variable and one."""

    variable: str
    value: Value = 0
    plus: str = ""


class Perform(NamedTuple):
    """Perform an effect, which is the application's own matter beyond the changes that follow it."""

    effect: Effect


Action = Publish | Change | Perform


class RowActions(NamedTuple):
    """One row: its number in the table, what it needs beside state and trigger, and what it does in order."""

    number: int
    source: State
    trigger: Trigger
    dest: State
    needs: tuple[Term, ...]
    actions: tuple[Action, ...]
    reason: str

    @property
    def stays(self) -> bool:
        """Return whether the state remains the same."""
        return self.source is self.dest


def states_of(transport: Transport) -> tuple[State, ...]:
    """Return the states that a transport enters, in their order."""
    return tuple(state for state in State if state in reachable(transport))


def steps_of(transport: Transport) -> tuple[RowActions, ...]:
    """Return every row that a session on a transport can take, in the order of the table."""
    return tuple(_step(edge, transport) for edge in lifecycle(transport).edges)


def triggers_of(transport: Transport, state: State) -> dict[Trigger, list[RowActions]]:
    """Return the rows out of a state by their triggers, both in the order of the table."""
    found: dict[Trigger, list[RowActions]] = {}
    for step in steps_of(transport):
        if step.source is state:
            found.setdefault(step.trigger, []).append(step)
    return found


def variables() -> dict[str, Value]:
    """Return the variables of an engine with their first values; `limit` is the configured pollExceptionLimit."""
    return {
        **{identifier(flag): False for flag in KEPT_FLAGS},
        OPENED: False,
        PREVIOUS: INITIAL.value,
        FAILURES: 0,
        LIMIT: DEFAULT_LIMIT,
    }


def event_name(trigger: Trigger) -> str:
    """Return the name of a trigger without blanks and dots, which have a meaning in other notations."""
    return "".join(letter if letter.isalnum() else "_" for letter in trigger.value.replace(", ", " "))


def _step(edge: Edge[Transition], transport: Transport) -> RowActions:
    row = edge.row
    needs = tuple(map(_need, edge.guards))
    actions = tuple(_actions(row, transport))
    return RowActions(edge.number, row.source, row.trigger, row.dest, needs, actions, row.reason)


def _need(guard: object) -> Term:
    name = Guard(str(guard))
    condition = condition_of(name)
    match condition.by:
        case Decider.INPUT:
            return Term(name.value, input=condition.of)
        case Decider.FLAG:
            return _flag(Flag(condition.of), name.value)
        case Decider.PREVIOUS:
            return Term(name.value, PREVIOUS, condition.of)
        case Decider.FAILURES:
            return Term(name.value, FAILURES, least=LIMIT)
        case _:
            raise ValueError(f"guard {name.value!r} is decided by {condition.by}: no export can test it")


def _flag(flag: Flag, name: str = "") -> Term:
    variable = identifier(flag)
    if flag in KEPT_FLAGS:
        return Term(name or flag.value, variable)
    return Term(name or flag.value, input=variable)


def _actions(row: Transition, transport: Transport) -> Iterator[Action]:
    first = [effect for effect in row.effects if CHANGES[effect].first]
    for effect in first:
        yield from _effect(effect)
    yield from (_publish(one) for one in row.publishes if transport in EVENTS[one.event].transports)
    yield from (Change(identifier(flag), True) for flag in row.sets)
    yield from (Change(identifier(flag), False) for flag in row.clears)
    for effect in row.effects:
        if effect not in first:
            yield from _effect(effect)
    if row.trigger in (OPENED_BY, CLOSED_BY):
        yield Change(OPENED, row.trigger is OPENED_BY)
    if row.dest is not row.source:
        yield Change(PREVIOUS, row.source.value)


def _publish(publication: Publication) -> Publish:
    when = tuple(map(_flag, publication.when))
    if publication == CONTENT:
        when = (Term(CONTENT_INPUT, input=CONTENT_INPUT),)
    return Publish(publication.event, when, tuple(map(_flag, publication.unless)))


def _effect(effect: Effect) -> Iterator[Action]:
    change = CHANGES[effect]
    yield Perform(effect)
    yield from (Change(identifier(flag), False) for flag in change.clears)
    match change.failures:
        case Count.SAME:
            return
        case Count.ZERO:
            yield Change(FAILURES)
        case Count.ONE_MORE:
            yield Change(FAILURES, plus=FAILURES)
        case Count.ABOVE_LIMIT:
            yield Change(FAILURES, plus=LIMIT)
