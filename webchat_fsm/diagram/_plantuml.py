"""The lifecycle of a transport as a PlantUML state diagram, complete: rows, events, flags, effects and refusals.

A row that leads to another state is an arrow, one that stays a line of its state. Both read `number: trigger [guards]
/ actions`, where `+event` publishes an event, `name := value` changes a variable, and `(name)` performs an effect. The
note of a state has the refusals of its commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from webchat_fsm.diagram import _actions as actions
from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._actions import Action, Change, Publish, RowActions, Term, Value
from webchat_fsm.lifecycle._states import State, meaning
from webchat_fsm.lifecycle._transports import Transport

WRAPPED_AT = 400
"""Width in pixels at which PlantUML breaks the texts of arrows and states."""

_ALL_CLEARED = ", ".join(f"{semantics.identifier(flag)} := false" for flag in semantics.KEPT_FLAGS)


@cache
def plantuml(transport: Transport) -> str:
    """Return the lifecycle on a transport as PlantUML text; raises ValueError for an unknown one."""
    transport = Transport(transport)
    states = actions.states_of(transport)
    lines = [
        f"@startuml lifecycle-{transport}",
        "' Generated from the lifecycle table by `webchat-fsm diagram`; do not edit.",
        f"title The lifecycle of a session on transport {transport}",
        "hide empty description",
        f"skinparam wrapWidth {WRAPPED_AT}",
        "skinparam defaultTextAlignment left",
        *(f'state "{state}" as {_alias(state)}' for state in states),
        *(f"{_alias(state)} : {meaning(state, transport)}" for state in states),
        f"[*] --> {_alias(semantics.INITIAL)}",
        *map(_row, actions.steps_of(transport)),
        *(
            line
            for state in states
            for line in _note(f"right of {_alias(state)}", semantics.refusals(transport, state))
        ),
        *_floating("not_open", "Before open and after close", semantics.refusals_while_closed(transport)),
        *_floating("leaving", "While ending is set", semantics.refusals_while_ending(transport)),
        "@enduml",
    ]
    return "\n".join(lines) + "\n"


def _row(step: RowActions) -> str:
    needs = " and ".join(map(_term, step.needs))
    guard = f" [{needs}]" if needs else ""
    # Begin and leave clear all flags, which would fill half of the drawing.
    done = ", ".join(map(_action, step.actions)).replace(_ALL_CLEARED, "all flags := false")
    text = f"{step.number}: {step.trigger}{guard}" + (f" / {done}" if done else "")
    source = _alias(step.source)
    return f"{source} : {text}" if step.stays else f"{source} --> {_alias(step.dest)} : {text}"


def _action(action: Action) -> str:
    match action:
        case Publish():
            when, unless = (" or ".join(map(_term, terms)) for terms in (action.when, action.unless))
            conditions = [f"if {when}"] * bool(when) + [f"unless {unless}"] * bool(unless)
            return f"+{action.event}" + (f" [{', '.join(conditions)}]" if conditions else "")
        case Change():
            value = f"{action.plus} + 1" if action.plus else _literal(action.value)
            return f"{action.variable} := {value}"
        case _:
            return f"({action.effect.name.lower()})"


def _term(term: Term) -> str:
    if term.input:
        return term.input
    if term.least:
        return f"{term.variable} >= {term.least}"
    return term.variable if term.equals is True else f"{term.variable} = {_literal(term.equals)}"


def _note(place: str, texts: Mapping[str, str]) -> Iterator[str]:
    yield f"note {place}"
    yield from _refusals(texts)
    yield "end note"


def _floating(name: str, heading: str, texts: Mapping[str, str]) -> Iterator[str]:
    # A note of its own is a line in PlantUML; the `\n` in it are its line breaks.
    yield f'note "{heading}\\n' + "\\n".join(_refusals(texts)) + f'" as {name}'


def _refusals(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each text, with the commands that it refuses, and one for those that are legal."""
    by_text: dict[str, list[str]] = {}
    for name, text in texts.items():
        by_text.setdefault(text, []).append(name)
    for text, names in by_text.items():
        yield f"{_names(names)}: {text or 'legal'}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


def _alias(state: State) -> str:
    # A hyphen would begin an arrow.
    return state.replace("-", "_")


def _literal(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
