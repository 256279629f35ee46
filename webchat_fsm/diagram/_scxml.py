"""The lifecycle of a transport as SCXML, which an interpreter of that W3C recommendation runs.

A trigger is an event of the name `event_name` gives, with all inputs as its data. Afterwards the data model holds the
number of the `row` that was taken, the events `published` and the effects `performed` by it, in order and separated by
blanks. The event `commands` makes `refusals` an object with the text of each command that would be refused.

Flags are 0 or 1, and expressions are written so that they mean the same in ECMAScript and in Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from xml.sax.saxutils import escape, quoteattr

from webchat_fsm.diagram import _actions as actions
from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._actions import Action, Change, Publish, RowActions, Term, Value
from webchat_fsm.lifecycle._states import State, meaning
from webchat_fsm.lifecycle._transports import Transport

NAMESPACE = "http://www.w3.org/2005/07/scxml"
ROW, PUBLISHED, PERFORMED, REFUSALS = "row", "published", "performed", "refusals"
_OPEN, _NOT_OPEN, _NOT_ENDING = "opened == 1", "opened == 0", "ending == 0"


@cache
def scxml(transport: Transport) -> str:
    """Return the lifecycle on a transport as an SCXML document; raises ValueError for an unknown one."""
    transport = Transport(transport)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        _comment(f"The lifecycle of a session on transport {transport}. {_GENERATED}"),
        f'<scxml xmlns="{NAMESPACE}" version="1.0" datamodel="ecmascript" name="{transport}" initial="service">',
        "  <datamodel>",
        *(f"    <data id={quoteattr(name)} expr={quoteattr(value)}/>" for name, value in _data().items()),
        "  </datamodel>",
        f'  <state id="service" initial="{semantics.INITIAL}">',
        *_service(transport),
        *(line for state in actions.states_of(transport) for line in _state(transport, state)),
        "  </state>",
        "</scxml>",
    ]
    return "\n".join(lines) + "\n"


_GENERATED = "Generated from the lifecycle table by `webchat-fsm diagram`; do not edit."


def _data() -> dict[str, str]:
    own = {name: _literal(value) for name, value in actions.variables().items()}
    return own | {ROW: "0", PUBLISHED: _literal(""), PERFORMED: _literal(""), REFUSALS: "{}"}


def _service(transport: Transport) -> Iterator[str]:
    """Yield what holds in every state, where no state has a transition of its own."""
    if semantics.resets_failures(transport):
        event = semantics.RESETS_FAILURES.name
        # Without a row, so that nothing is left of the one before.
        yield from _transition(event, "", "", [_assign(actions.FAILURES, "0"), *_taken(0)], 4)
    yield from _commands(semantics.refusals_while_closed(transport), _NOT_OPEN, 4)
    yield from _commands(semantics.refusals_while_ending(transport), _OPEN, 4)


def _state(transport: Transport, state: State) -> Iterator[str]:
    yield f"    {_comment(meaning(state, transport))}"
    yield f'    <state id="{state}">'
    for step in actions.steps_of(transport):
        if step.source is state:
            yield from _row(step)
    yield from _commands(semantics.refusals(transport, state), f"{_OPEN} && {_NOT_ENDING}", 6)
    yield "    </state>"


def _row(step: RowActions) -> Iterator[str]:
    if step.reason:
        yield f"      {_comment(step.reason)}"
    content = [*_taken(step.number), *map(_action, step.actions)]
    # A transition without a target leaves and enters no state.
    target = "" if step.stays else step.dest.value
    yield from _transition(actions.event_name(step.trigger), _all(step.needs), target, content, 6)


def _taken(number: int) -> list[str]:
    """Return what begins a step: the number of its row, and no events or effects so far."""
    return [_assign(ROW, str(number)), _assign(PUBLISHED, _literal("")), _assign(PERFORMED, _literal(""))]


def _comment(text: str) -> str:
    # Two hyphens would end the comment.
    return f"<!-- {re.sub('-(?=-)', '- ', escape(text))} -->"


def _commands(texts: Mapping[str, str], cond: str, indent: int) -> Iterator[str]:
    # An object of texts is written alike in JSON, ECMAScript and Python.
    refused = {name: text for name, text in texts.items() if text}
    yield from _transition(actions.COMMANDS_EVENT, cond, "", [_assign(REFUSALS, json.dumps(refused))], indent)


def _transition(event: str, cond: str, target: str, content: Iterable[str], indent: int) -> Iterator[str]:
    attributes = {"event": event, "cond": cond, "target": target}
    given = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value)
    yield " " * indent + f"<transition{given}>"
    yield from (" " * (indent + 2) + line for line in content)
    yield " " * indent + "</transition>"


def _action(action: Action) -> str:
    match action:
        case Publish():
            appended = _append(PUBLISHED, action.event)
            cond = _condition(action)
            return f"<if cond={quoteattr(cond)}>{appended}</if>" if cond else appended
        case Change():
            return _assign(action.variable, f"{action.plus} + 1" if action.plus else _literal(action.value))
        case _:
            return _append(PERFORMED, action.effect.name.lower())


def _condition(action: Publish) -> str:
    when = " || ".join(map(_holds, action.when))
    needed = [f"({when})" if len(action.when) > 1 and action.unless else when] * bool(when)
    return " && ".join([*needed, *(_holds(term, wanted=False) for term in action.unless)])


def _all(terms: Iterable[Term]) -> str:
    return " && ".join(map(_holds, terms))


def _holds(term: Term, *, wanted: bool = True) -> str:
    sign = "==" if wanted else "!="
    if term.input:
        return f"_event.data.{term.input} {sign} true"
    if term.least:
        return f"{term.variable} >= {term.least}"
    return f"{term.variable} {sign} {_literal(term.equals)}"


def _assign(location: str, expr: str) -> str:
    return f"<assign location={quoteattr(location)} expr={quoteattr(expr)}/>"


def _append(location: str, name: str) -> str:
    return _assign(location, f"{location} + {_literal(' ' + name)}")


def _literal(value: Value) -> str:
    # A JSON text is a literal in ECMAScript and in Python; `true` is none in Python.
    return json.dumps(value if isinstance(value, str) else int(value))
