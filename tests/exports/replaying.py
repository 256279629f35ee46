"""Comparison of a trace with what a foreign engine reports for the same triggers and inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from statemachine.io import load

from webchat_fsm.diagram._semantics import COMMANDS_EVENT, KEPT_FLAGS, RESETS_FAILURES, event_name, identifier
from webchat_fsm.lifecycle._table import Trigger

REPORTED = ("state", "row", "events", "effects", "flags", "failures", "refusals")
FLAGS = tuple(map(identifier, KEPT_FLAGS))


class Engine(Protocol):
    """One machine of a foreign engine."""

    def step(self, trigger: str, inputs: dict[str, bool]) -> dict[str, Any]:
        """Give a trigger with its inputs; return what the machine reports, by the names of `REPORTED`."""
        ...


class ScxmlDocument:
    """An SCXML document as python-statemachine has loaded it."""

    def __init__(self, path: Path) -> None:
        self._made = load(path)
        first = vars(self._made().model)
        self._data = {name: value for name, value in first.items() if name != "state"}

    def machine(self, limit: int) -> Any:
        """Return a new machine with its first data and that pollExceptionLimit."""
        machine = self._made()
        # the library (3.2) gives the data of a document to the first machine alone
        vars(machine.model).update(self._data)
        machine.model.limit = limit
        return machine


class ScxmlEngine:
    """One machine of an SCXML document, run by python-statemachine."""

    def __init__(self, document: ScxmlDocument, limit: int) -> None:
        self.machine = document.machine(limit)

    def step(self, trigger: str, inputs: dict[str, bool]) -> dict[str, Any]:
        model = self.machine.model
        if trigger == RESETS_FAILURES.name:
            self.machine.send(trigger)
        else:
            model.row = 0  # so that a trigger without a row is a difference
            self.machine.send(event_name(Trigger(trigger)), **inputs)
        self.machine.send(COMMANDS_EVENT, **inputs)
        (state,) = (one.id for one in self.machine.configuration if one.id != "service")
        return {
            "state": state,
            "row": model.row,
            "events": model.published.split(),
            "effects": model.performed.split(),
            "flags": [flag for flag in FLAGS if getattr(model, flag) == 1],
            "failures": model.failures,
            "refusals": model.refusals,
        }


def differences(trace: dict[str, Any], conversation: dict[str, Any], engine: Engine) -> Iterator[str]:
    """Yield each difference of one conversation: the step, what differs, and both values."""
    for number, step in enumerate(conversation["steps"], 1):
        expected = {**step, "refusals": trace["refusals"][step["refusals"]]}
        found = engine.step(step["trigger"], step["inputs"])
        for name in REPORTED:
            if found[name] != expected[name]:
                yield (
                    f"{conversation['name']}, step {number} ({step['trigger']}): {name}:"
                    f" the core {expected[name]!r}, the engine {found[name]!r}"
                )
