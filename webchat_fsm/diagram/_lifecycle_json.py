"""The lifecycle as one JSON document, from which a program in any language runs the same machine.

`_semantics.py` says how the parts work together. The README of the folder, which `_files.py` writes, describes each
key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.diagram._graph import Edge
from webchat_fsm.diagram._machines import cause, lifecycle, publishing
from webchat_fsm.lifecycle._events import EVENTS, Event
from webchat_fsm.lifecycle._legality import COMMANDS, NO_TEXT, NOT_READY, Rule, legality
from webchat_fsm.lifecycle._states import HAS_SESSION, MEANING, State
from webchat_fsm.lifecycle._table import CONTENT, Effect, Flag, Guard, Transition, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport

FORMAT = 3
"""Format of lifecycle.json: raised where a key is renamed or removed, or where a program needs one that is added."""

Record = Mapping[str, object]

_SAVES = {Effect.KEEP: True, Effect.FORGET: False}
"""Whether a session is saved after an effect; the others leave it as it is."""


def lifecycle_json() -> str:
    """Return lifecycle.json: the whole table, with nothing merged, shortened or left out.

    It is one object with a list for each kind, one record a line, so that a change is one line of a diff.
    """
    lists: dict[str, Iterable[Record]] = {
        "states": _states(),
        "transports": _transport_records(),
        "triggers": _triggers(),
        "guards": _guards(),
        "flags": _flags(),
        "effects": _effects(),
        "transitions": [_transition(edge) for edge in lifecycle().edges],
        "commands": [_command(rule) for rule in COMMANDS.values()],
        "events": [_event(event) for event in EVENTS.values()],
        "legality": legality_json(),
    }
    # Written by hand, as json.dumps breaks either every value or none onto a line of its own.
    machine = f' "machine": {json.dumps(_machine(), ensure_ascii=False)}'
    return ",\n".join([f'{{\n "format": {FORMAT}', machine, *(_list(*one) for one in lists.items())]) + "\n}\n"


def legality_json() -> list[dict[str, str | bool]]:
    """Return the legality of every command for a user, in every state, on every transport."""
    return [
        {
            "command": cell.command,
            "state": cell.state.value,
            "transport": cell.transport.value,
            "legal": cell.legal,
            "reason": cell.reason,
            "reachable": cell.reachable,
        }
        for transport in Transport
        for cell in legality(transport)
    ]


def _machine() -> Record:
    return {
        "initial": semantics.INITIAL.value,
        "opened_by": semantics.OPENED_BY.value,
        "closed_by": semantics.CLOSED_BY.value,
        "not_open": NOT_READY,
        "no_text": NO_TEXT,
        "limit": semantics.DEFAULT_LIMIT,
        "resets_failures": semantics.RESETS_FAILURES.name,
        "inputs": list(semantics.inputs()),
        "content_event": CONTENT.event,
        "ending_flag": Flag.ENDING.value,
    }


def _states() -> Iterator[Record]:
    for state in State:
        yield {
            "state": state.value,
            "meaning": MEANING[state],
            "has_session": state in HAS_SESSION,
            "reachable": _values(one for one in Transport if state in reachable(one)),
        }


def _transport_records() -> Iterator[Record]:
    for one in Transport:
        yield {"transport": one.value, "polls": one.polls, "gms": one.gms, "asynchronous": one.asynchronous}


def _triggers() -> Iterator[Record]:
    for trigger in Trigger:
        # By transport, as a command that is private on one of them is the service's own there.
        yield {"trigger": trigger.value, "causes": {one.value: cause(trigger, (one,)).value for one in Transport}}


def _guards() -> Iterator[Record]:
    for guard in Guard:
        condition = semantics.condition_of(guard)
        yield {
            "guard": guard.value,
            "transports": _values(one for one in Transport if guard.admits(one)),
            "decided_by": condition.by.value,
            "of": condition.of,
        }


def _flags() -> Iterator[Record]:
    for flag in Flag:
        by = semantics.Decider.ROWS if flag in semantics.KEPT_FLAGS else semantics.Decider.INPUT
        yield {"flag": flag.value, "variable": semantics.identifier(flag), "decided_by": by.value}


def _effects() -> Iterator[Record]:
    for effect, change in semantics.CHANGES.items():
        yield {
            "effect": effect.value,
            "first": change.first,
            "clears": _values(change.clears),
            "failures": change.failures,
            "saves": _SAVES.get(effect),
        }


def _transition(edge: Edge[Transition]) -> Record:
    row = edge.row
    return {
        "number": edge.number,
        "source": row.source.value,
        "trigger": row.trigger.value,
        "dest": row.dest.value,
        "guards": _values(row.guards),
        "otherwise": edge.otherwise,
        "publishes": [
            {"event": one.event, "when": _values(one.when), "unless": _values(one.unless)} for one in row.publishes
        ],
        "sets": _values(row.sets),
        "clears": _values(row.clears),
        "effects": _values(row.effects),
        "reason": row.reason,
        "transports": list(edge.views),
    }


def _command(rule: Rule) -> Record:
    return {
        "command": rule.name,
        "method": rule.method,
        # By the order of the states: a set has none that is the same in every process.
        "legal": _values(one for one in State if one in rule.legal),
        "refusal": rule.refusal,
        "refusals": {state.value: text for state in State if (text := rule.refusals.get(state))},
        "unsupported": {one.value: text for one in Transport if (text := rule.unsupported.get(one))},
        "access": rule.access,
        "private": _values(one for one in Transport if rule.access and one in rule.private),
        "state_first": rule.state_first,
        "any_time": rule.any_time,
        "text_first": rule.text_first,
        "while_ending": semantics.while_ending(rule).value,
        "extra": rule.extra,
    }


def _event(event: Event) -> Record:
    return {
        "event": event.name,
        "payload": event.payload.__name__ if event.payload else None,
        "transports": _values(one for one in Transport if one in event.transports),
        "meaning": event.meaning,
        "from_messages": event.from_messages,
        "transitions": [edge.number for edge in publishing(lifecycle(), event.name)],
    }


def _values(members: Iterable[Enum]) -> list[str]:
    return [str(member.value) for member in members]


def _list(name: str, records: Iterable[Record]) -> str:
    return f' "{name}": [\n' + ",\n".join(f"  {json.dumps(one, ensure_ascii=False)}" for one in records) + "\n ]"
