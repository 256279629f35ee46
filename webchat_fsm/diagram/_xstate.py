"""The lifecycle of a transport as JSON for `createMachine` of XState 5, and the functions that its names stand for.

All logic is in the JSON: `RUNTIME` knows no state, event, flag or command. A trigger is an event of its own name with
the inputs beside `type`. The context then holds the number of the `row` that was taken; its events and effects are
emitted in order, as `publish` and `perform`. The event `commands` makes `refusals` the object of all commands that
would be refused, with the texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache

from webchat_fsm.diagram import _actions as actions
from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._actions import Action, Change, Publish, RowActions, Term
from webchat_fsm.lifecycle._states import State, meaning
from webchat_fsm.lifecycle._transports import Transport

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
    anywhere: Json = {actions.COMMANDS_EVENT: [_commands(closed, _opened(False)), _commands(ending)]}
    if semantics.resets_failures(transport):
        anywhere[semantics.RESETS_FAILURES.name] = [{"actions": [_set("row", 0), _set(actions.FAILURES, 0)]}]
    machine: Json = {
        "id": f"webchat-{transport}",
        "description": f"The lifecycle of a session on transport {transport}. Generated from the lifecycle table by"
        " `webchat-fsm diagram`; do not edit.",
        "version": "5",
        "initial": semantics.INITIAL.value,
        "context": {**actions.variables(), "row": 0, "refusals": {}},
        "on": anywhere,
        "states": {state.value: _state(transport, state) for state in actions.states_of(transport)},
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


def _state(transport: Transport, state: State) -> Json:
    triggers = actions.triggers_of(transport, state)
    legal = semantics.refusals(transport, state)
    on: Json = {trigger.value: [_row(step) for step in steps] for trigger, steps in triggers.items()}
    on[actions.COMMANDS_EVENT] = [_commands(legal, _opened(True), Term("", "ending", equals=False))]
    return {"description": meaning(state, transport), "on": on}


def _row(step: RowActions) -> Json:
    row: Json = {} if step.stays else {"target": step.dest.value}
    if step.reason:
        row["description"] = step.reason
    if step.needs:
        row["guard"] = _all(step.needs)
    return {**row, "actions": [_set("row", step.number), *map(_action, step.actions)]}


def _action(action: Action) -> Json:
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


def _commands(texts: Mapping[str, str], *terms: Term) -> Json:
    refused = {name: text for name, text in texts.items() if text}
    asked: Json = {"guard": _all(terms)} if terms else {}
    return {**asked, "actions": [_set("refusals", refused)]}


def _set(variable: str, value: object) -> Json:
    return {"type": "set", "params": {"variable": variable, "value": value}}


def _all(terms: Iterable[Term]) -> Json:
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
    return Term("", actions.OPENED, equals=value)
