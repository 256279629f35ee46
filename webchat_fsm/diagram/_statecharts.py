"""The whole lifecycle of a transport for foreign engines: as SCXML, as JSON for XState 5, and as PlantUML text.

All three are written from the actions of `_semantics.py`: rows, events, flags, effects and refusals. The README of the
folder, which `_files.py` writes, says how an engine is given a step and where its results stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from xml.sax.saxutils import escape, quoteattr

from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._semantics import Action, Change, Publish, RowActions, Term, Value
from webchat_fsm.lifecycle._states import State, meaning
from webchat_fsm.lifecycle._transports import Transport

_GENERATED = "Generated from the lifecycle table by `webchat-fsm diagram`; do not edit."


def _about(transport: Transport) -> str:
    return f"The lifecycle of a session on transport {transport}"


# -- scxml -------------------------------------------------------------------------------------------------------------

# Flags are 0 or 1, and expressions are written so that they mean the same in ECMAScript and in Python.

NAMESPACE = "http://www.w3.org/2005/07/scxml"
ROW, PUBLISHED, PERFORMED, REFUSALS = "row", "published", "performed", "refusals"
_OPEN, _NOT_OPEN, _NOT_ENDING = "opened == 1", "opened == 0", "ending == 0"


@cache
def scxml(transport: Transport) -> str:
    """Return the lifecycle on a transport as an SCXML document; raises ValueError for an unknown one."""
    transport = Transport(transport)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        _comment(f"{_about(transport)}. {_GENERATED}"),
        f'<scxml xmlns="{NAMESPACE}" version="1.0" datamodel="ecmascript" name="{transport}" initial="service">',
        "  <datamodel>",
        *(f"    <data id={quoteattr(name)} expr={quoteattr(value)}/>" for name, value in _data().items()),
        "  </datamodel>",
        f'  <state id="service" initial="{semantics.INITIAL}">',
        *_service(transport),
        *(line for state in semantics.states_of(transport) for line in _scxml_state(transport, state)),
        "  </state>",
        "</scxml>",
    ]
    return "\n".join(lines) + "\n"


def _data() -> dict[str, str]:
    own = {name: _scxml_literal(value) for name, value in semantics.variables().items()}
    return own | {ROW: "0", PUBLISHED: _scxml_literal(""), PERFORMED: _scxml_literal(""), REFUSALS: "{}"}


def _service(transport: Transport) -> Iterator[str]:
    """Yield what holds in every state, where no state has a transition of its own."""
    if semantics.resets_failures(transport):
        event = semantics.RESETS_FAILURES.name
        # Without a row, so that nothing is left of the one before.
        yield from _transition(event, "", "", [_assign(semantics.FAILURES, "0"), *_taken(0)], 4)
    yield from _scxml_commands(semantics.refusals_while_closed(transport), _NOT_OPEN, 4)
    yield from _scxml_commands(semantics.refusals_while_ending(transport), _OPEN, 4)


def _scxml_state(transport: Transport, state: State) -> Iterator[str]:
    yield f"    {_comment(meaning(state, transport))}"
    yield f'    <state id="{state}">'
    for step in semantics.steps_of(transport):
        if step.source is state:
            yield from _scxml_row(step)
    yield from _scxml_commands(semantics.refusals(transport, state), f"{_OPEN} && {_NOT_ENDING}", 6)
    yield "    </state>"


def _scxml_row(step: RowActions) -> Iterator[str]:
    if step.reason:
        yield f"      {_comment(step.reason)}"
    content = [*_taken(step.number), *map(_scxml_action, step.actions)]
    # A transition without a target leaves and enters no state.
    target = "" if step.stays else step.dest.value
    yield from _transition(semantics.event_name(step.trigger), " && ".join(map(_holds, step.needs)), target, content, 6)


def _taken(number: int) -> list[str]:
    """Return what begins a step: the number of its row, and no events or effects so far."""
    return [_assign(ROW, str(number)), _assign(PUBLISHED, _scxml_literal("")), _assign(PERFORMED, _scxml_literal(""))]


def _comment(text: str) -> str:
    # Two hyphens would end the comment.
    return f"<!-- {re.sub('-(?=-)', '- ', escape(text))} -->"


def _scxml_commands(texts: Mapping[str, str], cond: str, indent: int) -> Iterator[str]:
    # An object of texts is written alike in JSON, ECMAScript and Python.
    refused = {name: text for name, text in texts.items() if text}
    yield from _transition(semantics.COMMANDS_EVENT, cond, "", [_assign(REFUSALS, json.dumps(refused))], indent)


def _transition(event: str, cond: str, target: str, content: Iterable[str], indent: int) -> Iterator[str]:
    attributes = {"event": event, "cond": cond, "target": target}
    given = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value)
    yield " " * indent + f"<transition{given}>"
    yield from (" " * (indent + 2) + line for line in content)
    yield " " * indent + "</transition>"


def _scxml_action(action: Action) -> str:
    match action:
        case Publish():
            appended = _append(PUBLISHED, action.event)
            cond = _condition(action)
            return f"<if cond={quoteattr(cond)}>{appended}</if>" if cond else appended
        case Change():
            return _assign(action.variable, f"{action.plus} + 1" if action.plus else _scxml_literal(action.value))
        case _:
            return _append(PERFORMED, action.effect.name.lower())


def _condition(action: Publish) -> str:
    when = " || ".join(map(_holds, action.when))
    needed = [f"({when})" if len(action.when) > 1 and action.unless else when] * bool(when)
    return " && ".join([*needed, *(_holds(term, wanted=False) for term in action.unless)])


def _holds(term: Term, *, wanted: bool = True) -> str:
    sign = "==" if wanted else "!="
    if term.input:
        return f"_event.data.{term.input} {sign} true"
    if term.least:
        return f"{term.variable} >= {term.least}"
    return f"{term.variable} {sign} {_scxml_literal(term.equals)}"


def _assign(location: str, expr: str) -> str:
    return f"<assign location={quoteattr(location)} expr={quoteattr(expr)}/>"


def _append(location: str, name: str) -> str:
    return _assign(location, f"{location} + {_scxml_literal(' ' + name)}")


def _scxml_literal(value: Value) -> str:
    # A JSON text is a literal in ECMAScript and in Python; `true` is none in Python.
    return json.dumps(value if isinstance(value, str) else int(value))


# -- xstate ------------------------------------------------------------------------------------------------------------

# All logic is in the JSON: `RUNTIME` knows no state, event, flag or command.

Json = dict[str, object]

_DEPTH_OF_A_ROW = 5
"""How deep a row stands: the machine, its states, one of them, its events, the rows of one."""

RUNTIME = """\
import { assign, createMachine, emit, enqueueActions } from "xstate";

const holds = (term, context, event) =>
  term.input ? event[term.input] === true
  : term.least ? context[term.variable] >= context[term.least]
  : context[term.variable] === term.equals;

const implementations = {
  guards: {
    all: ({ context, event }, { terms }) => terms.every((term) => holds(term, context, event)),
  },
  actions: {
    set: assign(({ context }, { variable, value, plus }) => ({
      [variable]: plus ? context[plus] + 1 : value,
    })),
    publish: enqueueActions(({ context, event, enqueue }, { name, when, unless }) => {
      const held = (term) => holds(term, context, event);
      if ((!when.length || when.some(held)) && !unless.some(held)) enqueue.emit({ type: "publish", name });
    }),
    perform: emit((_, { name }) => ({ type: "perform", name })),
  },
};

// `limit` is the configured pollExceptionLimit
export const lifecycle = (json, limit = json.context.limit) =>
  createMachine({ ...json, context: { ...json.context, limit } }, implementations);
"""
"""The functions behind the names of the JSON, as a JavaScript module."""


@cache
def xstate(transport: Transport) -> str:
    """Return the lifecycle on a transport as a JSON text for XState; raises ValueError for an unknown one."""
    transport = Transport(transport)
    closed, ending = semantics.refusals_while_closed(transport), semantics.refusals_while_ending(transport)
    anywhere: Json = {semantics.COMMANDS_EVENT: [_xstate_commands(closed, _opened(False)), _xstate_commands(ending)]}
    if semantics.resets_failures(transport):
        anywhere[semantics.RESETS_FAILURES.name] = [{"actions": [_set("row", 0), _set(semantics.FAILURES, 0)]}]
    machine: Json = {
        "id": f"webchat-{transport}",
        "description": f"{_about(transport)}. {_GENERATED}",
        "version": "5",
        "initial": semantics.INITIAL.value,
        "context": {**semantics.variables(), "row": 0, "refusals": {}},
        "on": anywhere,
        "states": {state.value: _xstate_state(transport, state) for state in semantics.states_of(transport)},
    }
    return _written(machine) + "\n"


def _written(value: object, depth: int = 0) -> str:
    """Return a value as JSON with one row of the table on a line, so that a change is one line of a diff."""
    if depth == _DEPTH_OF_A_ROW or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, list):
        return "[" + ",".join(inner + json.dumps(one, ensure_ascii=False) for one in value) + "\n" + " " * depth + "]"
    members = (f"{inner}{json.dumps(name)}: {_written(one, depth + 1)}" for name, one in value.items())
    return "{" + ",".join(members) + "\n" + " " * depth + "}"


def _xstate_state(transport: Transport, state: State) -> Json:
    triggers = semantics.triggers_of(transport, state)
    legal = semantics.refusals(transport, state)
    on: Json = {trigger.value: [_xstate_row(step) for step in steps] for trigger, steps in triggers.items()}
    on[semantics.COMMANDS_EVENT] = [_xstate_commands(legal, _opened(True), Term("", "ending", equals=False))]
    return {"description": meaning(state, transport), "on": on}


def _xstate_row(step: RowActions) -> Json:
    row: Json = {} if step.stays else {"target": step.dest.value}
    if step.reason:
        row["description"] = step.reason
    if step.needs:
        row["guard"] = _guard(step.needs)
    return {**row, "actions": [_set("row", step.number), *map(_xstate_action, step.actions)]}


def _xstate_action(action: Action) -> Json:
    match action:
        case Publish():
            params = {"name": action.event, "when": _terms(action.when), "unless": _terms(action.unless)}
            return {"type": "publish", "params": params}
        case Change():
            if action.plus:
                return {"type": "set", "params": {"variable": action.variable, "plus": action.plus}}
            return _set(action.variable, action.value)
        case _:
            return {"type": "perform", "params": {"name": action.effect.name.lower()}}


def _xstate_commands(texts: Mapping[str, str], *terms: Term) -> Json:
    refused = {name: text for name, text in texts.items() if text}
    asked: Json = {"guard": _guard(terms)} if terms else {}
    return {**asked, "actions": [_set("refusals", refused)]}


def _set(variable: str, value: object) -> Json:
    return {"type": "set", "params": {"variable": variable, "value": value}}


def _guard(terms: Iterable[Term]) -> Json:
    return {"type": "all", "params": {"terms": _terms(terms)}}


def _terms(terms: Iterable[Term]) -> list[Json]:
    return list(map(_term, terms))


def _term(term: Term) -> Json:
    name: Json = {"name": term.name} if term.name else {}
    if term.input:
        return {**name, "input": term.input}
    if term.least:
        return {**name, "variable": term.variable, "least": term.least}
    return {**name, "variable": term.variable, "equals": term.equals}


def _opened(value: bool) -> Term:
    return Term("", semantics.OPENED, equals=value)


# -- plantuml ----------------------------------------------------------------------------------------------------------
WRAPPED_AT = 400
"""Width in pixels at which PlantUML breaks the texts of arrows and states."""

_ALL_CLEARED = ", ".join(f"{semantics.identifier(flag)} := false" for flag in semantics.KEPT_FLAGS)


@cache
def plantuml(transport: Transport) -> str:
    """Return the lifecycle on a transport as PlantUML text; raises ValueError for an unknown one."""
    transport = Transport(transport)
    states = semantics.states_of(transport)
    lines = [
        f"@startuml lifecycle-{transport}",
        f"' {_GENERATED}",
        f"title {_about(transport)}",
        "hide empty description",
        f"skinparam wrapWidth {WRAPPED_AT}",
        "skinparam defaultTextAlignment left",
        *(f'state "{state}" as {_alias(state)}' for state in states),
        *(f"{_alias(state)} : {meaning(state, transport)}" for state in states),
        f"[*] --> {_alias(semantics.INITIAL)}",
        *map(_plantuml_row, semantics.steps_of(transport)),
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


def _plantuml_row(step: RowActions) -> str:
    needs = " and ".join(map(_plantuml_term, step.needs))
    guard = f" [{needs}]" if needs else ""
    # Begin and leave clear all flags, which would fill half of the drawing.
    done = ", ".join(map(_plantuml_action, step.actions)).replace(_ALL_CLEARED, "all flags := false")
    text = f"{step.number}: {step.trigger}{guard}" + (f" / {done}" if done else "")
    source = _alias(step.source)
    return f"{source} : {text}" if step.stays else f"{source} --> {_alias(step.dest)} : {text}"


def _plantuml_action(action: Action) -> str:
    match action:
        case Publish():
            when, unless = (" or ".join(map(_plantuml_term, terms)) for terms in (action.when, action.unless))
            conditions = [f"if {when}"] * bool(when) + [f"unless {unless}"] * bool(unless)
            return f"+{action.event}" + (f" [{', '.join(conditions)}]" if conditions else "")
        case Change():
            value = f"{action.plus} + 1" if action.plus else _plantuml_literal(action.value)
            return f"{action.variable} := {value}"
        case _:
            return f"({action.effect.name.lower()})"


def _plantuml_term(term: Term) -> str:
    if term.input:
        return term.input
    if term.least:
        return f"{term.variable} >= {term.least}"
    return term.variable if term.equals is True else f"{term.variable} = {_plantuml_literal(term.equals)}"


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
        yield f"{', '.join(names)}: {text or 'legal'}"


def _alias(state: State) -> str:
    # A hyphen would begin an arrow.
    return state.replace("-", "_")


def _plantuml_literal(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
