"""The whole table for machines: nothing is merged, shortened or left out here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from webchat_fsm.diagram.graph import Edge, Graph, cause
from webchat_fsm.diagram.graph import graph as graph_of
from webchat_fsm.lifecycle.commands import COMMANDS, Rule, legality
from webchat_fsm.lifecycle.events import EVENTS, Event
from webchat_fsm.lifecycle.table import HAS_SESSION, MEANING, Guard, Say, State, Transport, Trigger, reachable

Record = Mapping[str, object]


def render() -> str:
    """One object with a list for each kind of thing, one record a line, so that a change is a line in a diff."""
    lists: dict[str, Iterable[Record]] = {
        "states": _states(),
        "transports": _transports(),
        "triggers": [{"trigger": one.value, "cause": cause(one).value} for one in Trigger],
        "guards": _guards(),
        "rows": [_row(edge) for edge in graph_of().edges],
        "commands": [_command(rule) for rule in COMMANDS.values()],
        "events": [_event(event, graph_of()) for event in EVENTS.values()],
        "legality": legality_json(),
    }
    return "{\n" + ",\n".join(_list(name, records) for name, records in lists.items()) + "\n}\n"


def legality_json() -> list[dict[str, str | bool]]:
    """The legality of every command for a user, in every state, on every transport."""
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


def _states() -> Iterator[Record]:
    for state in State:
        yield {
            "state": state.value,
            "meaning": MEANING[state],
            "has_session": state in HAS_SESSION,
            "reachable": [one.value for one in Transport if state in reachable(one)],
        }


def _transports() -> Iterator[Record]:
    for one in Transport:
        yield {"transport": one.value, "polls": one.polls, "gms": one.gms, "asynchronous": one.asynchronous}


def _guards() -> Iterator[Record]:
    for guard in Guard:
        yield {"guard": guard.value, "transports": _values(one for one in Transport if guard.admits(one))}


def _row(edge: Edge) -> Record:
    row = edge.row
    return {
        "number": edge.number,
        "source": row.source.value,
        "trigger": row.trigger.value,
        "dest": row.dest.value,
        "guards": [guard.value for guard in row.guards],
        "otherwise": edge.otherwise,
        "says": [_say(say) for say in row.says],
        "sets": [flag.value for flag in row.sets],
        "clears": [flag.value for flag in row.clears],
        "does": [do.value for do in row.does],
        "why": row.why,
        "transports": [one.value for one in edge.transports],
    }


def _say(say: Say) -> Record:
    return {
        "event": say.event,
        "when": [flag.value for flag in say.when],
        "unless": [flag.value for flag in say.unless],
    }


def _command(rule: Rule) -> Record:
    return {
        "command": rule.name,
        "method": rule.method,
        "legal": _values(one for one in State if one in rule.legal),
        "refusal": rule.refusal,
        "refusals": {state.value: text for state in State if (text := rule.refusals.get(state))},
        "unsupported": {one.value: text for one in Transport if (text := rule.unsupported.get(one))},
        "access": rule.access,
        "private": _values(one for one in Transport if rule.access and one in rule.private),
        "state_first": rule.state_first,
        "any_time": rule.any_time,
        "extra": rule.extra,
    }


def _event(event: Event, seen: Graph) -> Record:
    return {
        "event": event.name,
        "payload": event.payload.__name__ if event.payload else None,
        "transports": _values(one for one in Transport if one in event.transports),
        "meaning": event.meaning,
        "rows": [edge.number for edge in seen.saying(event.name)],
    }


def _values(members: Iterable[State | Transport]) -> list[str]:
    return [member.value for member in members]


def _list(name: str, records: Iterable[Record]) -> str:
    return f" {_line(name)}: [\n" + ",\n".join(f"  {_line(record)}" for record in records) + "\n ]"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
