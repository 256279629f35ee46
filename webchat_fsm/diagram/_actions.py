"""The rows of one transport as actions in order, the form from which every export for a foreign engine is written.

An engine keeps the variables of `variables()`: the flags that rows set, `opened`, `previous` (the state before the
latest change), `failures` and their `limit`. `_files.py` describes how a step goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._graph import Edge
from webchat_fsm.diagram._machines import lifecycle
from webchat_fsm.diagram._semantics import Count, Decider
from webchat_fsm.lifecycle._states import State
from webchat_fsm.lifecycle._table import CONTENT, Effect, Flag, Guard, Publication, Transition, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport

COMMANDS_EVENT = "commands"
"""The event by which an engine is asked for the refusals of all commands."""

OPENED, PREVIOUS, FAILURES, LIMIT = "opened", "previous", "failures", "limit"
"""The variables beside the flags."""

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
        **{semantics.identifier(flag): False for flag in semantics.KEPT_FLAGS},
        OPENED: False,
        PREVIOUS: semantics.INITIAL.value,
        FAILURES: 0,
        LIMIT: semantics.LIMIT,
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
    condition = semantics.condition_of(name)
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
    variable = semantics.identifier(flag)
    if flag in semantics.KEPT_FLAGS:
        return Term(name or flag.value, variable)
    return Term(name or flag.value, input=variable)


def _actions(row: Transition, transport: Transport) -> Iterator[Action]:
    first = [effect for effect in row.effects if semantics.CHANGES[effect].first]
    for effect in first:
        yield from _effect(effect)
    for publication in semantics.published(row, transport):
        yield _publish(publication)
    yield from (Change(semantics.identifier(flag), True) for flag in row.sets)
    yield from (Change(semantics.identifier(flag), False) for flag in row.clears)
    for effect in row.effects:
        if effect not in first:
            yield from _effect(effect)
    if row.trigger in (semantics.OPENED_BY, semantics.CLOSED_BY):
        yield Change(OPENED, row.trigger is semantics.OPENED_BY)
    if row.dest is not row.source:
        yield Change(PREVIOUS, row.source.value)


def _publish(publication: Publication) -> Publish:
    when = tuple(map(_flag, publication.when))
    if publication == CONTENT:
        when = (Term(semantics.CONTENT_INPUT, input=semantics.CONTENT_INPUT),)
    return Publish(publication.event, when, tuple(map(_flag, publication.unless)))


def _effect(effect: Effect) -> Iterator[Action]:
    change = semantics.CHANGES[effect]
    yield Perform(effect)
    yield from (Change(semantics.identifier(flag), False) for flag in change.clears)
    match change.failures:
        case Count.SAME:
            return
        case Count.ZERO:
            yield Change(FAILURES)
        case Count.ONE_MORE:
            yield Change(FAILURES, plus=FAILURES)
        case Count.ABOVE_LIMIT:
            yield Change(FAILURES, plus=LIMIT)
