"""What a recorder of one service is told: every step with its decision, every request and every answer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Moment, Step
from webchat_fsm.core.session import Session
from webchat_fsm.lifecycle.effects import Call, Decision
from webchat_fsm.wire.request import HttpAnswer, Request


@runtime_checkable
class Recorder(Protocol):
    """Hears what happens to one service, in whatever thread; `webchat_fsm.testing.Recorder` writes it down."""

    def begun(self, config: Config) -> None:
        """A service with this configuration will be recorded; raises `ValueError` for a second one."""
        ...

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """A step was decided. Called under the session's lock: it only takes note."""
        ...

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """A request goes out."""
        ...

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """A complete answer came; the step that takes it in follows."""
        ...

    def flush(self) -> None:
        """Write down what was noted. Called with no lock held."""
        ...
