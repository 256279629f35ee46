"""Traces of the core: what each step of the lifecycle did, for a program that runs the same machine elsewhere.

A trace is one JSON object::

    {"format": 1,
     "refusals": [{"startChat": "There is already an active chat session", ...}, ...],
     "conversations": [{"name": "...", "transport": "v2", "limit": 5, "steps": [...]}, ...]}

A conversation begins with a new machine whose pollExceptionLimit is `limit`. One of its steps is::

    {"trigger": "poll failed", "inputs": {"restorable": false, "content": false, ...},
     "state": "offline", "row": 41, "events": ["connectionPending", ...], "effects": ["count"],
     "flags": ["pending", ...], "failures": 6, "refusals": 17}

`trigger` and `inputs` are given to the machine; all else is what it has to report afterwards. `refusals` is an index of
the list of that name, which has the refused ones of the 24 documented commands with their texts; every other is legal.
A step of the command `resetPollExceptions` has the row 0, as it changes the count of failures without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.core import harness
from webchat_fsm._core import context, defects
from webchat_fsm._core.on_command import refusal
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Asked, Decision, Publish
from webchat_fsm._runtime import transaction
from webchat_fsm.diagram import _semantics as semantics
from webchat_fsm.lifecycle._legality import DOCUMENTED
from webchat_fsm.lifecycle._table import CONTENT, TRANSITIONS, Flag, Transition
from webchat_fsm.testing import _replay

FORMAT = 1
NUMBERS = {id(row): number for number, row in enumerate(TRANSITIONS, 1)}
TEXT = {"message": "hi"}
"""A text, without which two commands are refused before their state is judged."""

Step = dict[str, Any]


class Conversation:
    """The steps of one session, and the session to know it by."""

    def __init__(self, name: str, session: Session) -> None:
        self.name, self.session, self.steps = name, session, list[Step]()
        self.marked = 0

    def record(self) -> dict[str, Any]:
        limit = self.session.config.poll_exception_limit
        return {"name": self.name, "transport": self.session.transport.value, "limit": limit, "steps": self.steps}


class Tracer:
    """Collects the steps of every session that runs inside of `tracing`."""

    def __init__(self) -> None:
        self.name = ""
        self.conversations: dict[int, Conversation] = {}
        self.refusals: dict[str, int] = {}
        self._content: list[tuple[int, int]] = []

    @property
    def steps(self) -> int:
        """Return the number of all steps."""
        return sum(len(one.steps) for one in self.conversations.values())

    def rows(self, transport: str) -> set[int]:
        """Return the numbers of the rows that were taken on a transport."""
        chats = [one for one in self.conversations.values() if one.session.transport == transport]
        return {step["row"] for one in chats for step in one.steps}

    def document(self) -> dict[str, Any]:
        """Return the trace."""
        return {
            "format": FORMAT,
            "refusals": [json.loads(text) for text in self.refusals],
            "conversations": [one.record() for one in self.conversations.values() if one.steps],
        }

    def write(self, path: Path) -> Path:
        """Write the trace into a file."""
        path.write_text(json.dumps(self.document()), encoding="utf-8")
        return path

    def leave_out(self, session: Session) -> None:
        """Remove the conversation of a session."""
        del self.conversations[id(session)]

    def of(self, session: Session) -> Conversation:
        """Return the conversation of a session."""
        return self.conversations.setdefault(id(session), Conversation(self.name, session))

    # -- one step ------------------------------------------------------------------------------------------------------

    def inputs(self, session: Session) -> dict[str, bool]:
        """Return the inputs of the next step; `content` is known only after it."""
        flags = {semantics.identifier(flag): session.has(flag) for flag in Flag if flag not in semantics.KEPT_FLAGS}
        return {"restorable": session.restorable, **flags}

    def add(self, session: Session, row: Transition, inputs: dict[str, bool], decision: Decision, first: int) -> None:
        """Add a step that took a row; its events are the effects of the decision from `first` on."""
        begin, end = self._content.pop() if self._content else (first, first)
        parts = decision.effects[first:begin], decision.effects[begin:end], decision.effects[end:]
        before, inside, after = ([one.event for one in part if isinstance(one, Publish)] for part in parts)
        step = {
            "trigger": row.trigger.value,
            "inputs": {**inputs, semantics.CONTENT_INPUT: bool(inside)},
            "row": NUMBERS[id(row)],
            "events": [*before, *([CONTENT.event] if inside else []), *after],
            "effects": [effect.name.lower() for effect in row.effects],
        }
        self.finish(session, step)

    def finish(self, session: Session, step: Step) -> None:
        """Add a step with what the session is after it."""
        after = {
            "state": session.state.value,
            "flags": [semantics.identifier(flag) for flag in semantics.KEPT_FLAGS if flag in session.flags],
            "failures": session.failures,
            "refusals": self.refused(session),
        }
        self.of(session).steps.append({**step, **after})

    def refused(self, session: Session) -> int:
        """Return the number of the refusals that a user's commands meet now."""
        texts = {rule.name: text for rule in DOCUMENTED if (text := refusal(session, rule, TEXT))}
        return self.refusals.setdefault(json.dumps(texts), len(self.refusals))


@contextmanager
def tracing() -> Iterator[Tracer]:
    """Trace every session of this process."""
    tracer = Tracer()
    with pytest.MonkeyPatch.context() as patch:
        _trace_rows(tracer, patch)
        _trace_decisions(tracer, patch)
        yield tracer


def _trace_rows(tracer: Tracer, patch: pytest.MonkeyPatch) -> None:
    fire, fallback = context.DecisionContext.fire, defects._Fallback._fire

    def fired(self, trigger, payloads=None, content=None, lost=None):
        inputs, first, effects = tracer.inputs(self.session), len(self.decision.effects), self.decision.effects

        def delivered():
            begin = len(effects)
            content()
            tracer._content.append((begin, len(effects)))

        row = fire(self, trigger, payloads, delivered if content else None, lost)
        tracer.add(self.session, row, inputs, self.decision, first)
        return row

    def fired_alone(self, trigger):
        inputs, first = tracer.inputs(self.session), len(self.decision.effects)
        fallback(self, trigger)
        tracer.add(self.session, self.decision.transitions[-1], inputs, self.decision, first)

    patch.setattr(context.DecisionContext, "fire", fired)
    patch.setattr(defects._Fallback, "_fire", fired_alone)


def _trace_decisions(tracer: Tracer, patch: pytest.MonkeyPatch) -> None:
    decide, mark, back_to = transaction.decide, Session.mark, Session.back_to

    def decided(session, step, now):
        decision = decide(session, step, now)
        settled = decision.settled
        if isinstance(step, Asked) and step.command.rule is semantics.RESETS_FAILURES and settled and settled.resolved:
            inputs = {**tracer.inputs(session), semantics.CONTENT_INPUT: False}
            tracer.finish(
                session, {"trigger": step.command.name, "inputs": inputs, "row": 0, "events": [], "effects": []}
            )
        elif decision.transitions:
            # closing is a row first, and then closes the service
            tracer.of(session).steps[-1]["refusals"] = tracer.refused(session)
        return decision

    def marked(session):
        tracer.of(session).marked = len(tracer.of(session).steps)
        return mark(session)

    def undone(session, given):
        del tracer.of(session).steps[tracer.of(session).marked :]
        tracer._content.clear()
        back_to(session, given)

    patch.setattr(transaction, "decide", decided)
    patch.setattr(_replay, "decide", decided)
    patch.setattr(harness, "decide", decided)
    patch.setattr(Session, "mark", marked)
    patch.setattr(Session, "back_to", undone)
