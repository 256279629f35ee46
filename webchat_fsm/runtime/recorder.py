"""What a recorder of one service is told: every step with its decision, every request and every answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Moment, Step
from webchat_fsm.core.session import Session
from webchat_fsm.lifecycle.effects import Call, Decision
from webchat_fsm.wire.request import HttpAnswer, Request

log = logging.getLogger("webchat_fsm")


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


class Guarded:
    """A recorder that stands between a service and the one it was given: what that raises ends the recording alone.

    One line in the log says so. Nothing is recorded after it, as a recording with a hole in it cannot be replayed.
    What writes takes its turn, so that close() can leave its own lines to a thread whose writing takes long.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder: Recorder | None = recorder
        self._failure: tuple[str, Exception] | None = None
        self._turn = threading.RLock()
        self._unwritten = False

    def begun(self, config: Config) -> None:
        """Begin; the `ValueError` of a recorder that records another service already is the caller's."""
        self._give("begun", lambda recorder: recorder.begun(config))
        failure = self._failure
        if failure is not None and isinstance(failure[1], ValueError):
            raise failure[1]
        self.report()

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """Hand on a step; a failure is logged by the next `report`, as the session's lock is held here."""
        self._give("stepped", lambda recorder: recorder.stepped(session, step, now, decision))

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """Hand on a request."""
        with self._turn:
            self._give("requested", lambda recorder: recorder.requested(call, request, now))
        self.report()

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """Hand on an answer."""
        with self._turn:
            self._give("answered", lambda recorder: recorder.answered(call, answer))
        self.report()

    def flush(self, within: float = -1.0) -> None:
        """Let what was noted be written down; where another thread writes for `within` seconds, it does that too."""
        self._unwritten = True
        while self._unwritten:
            try:  # around the taking too: a signal may come between a call and what follows it
                if not self._turn.acquire(timeout=within):
                    return
                self._unwritten = False
                self._give("flush", lambda recorder: recorder.flush())
            finally:
                try:  # noqa: SIM105  (`suppress` is a function in Python, at whose entry a signal may come)
                    self._turn.release()
                except RuntimeError:
                    pass  # it was not taken

    def _give(self, name: str, hand_on: Callable[[Recorder], object]) -> None:
        if self._recorder is None:
            return
        try:
            hand_on(self._recorder)
        except Exception as error:  # a diagnostic never raises into a command or a poll
            self._recorder, self._failure = None, (name, error)

    def report(self) -> None:
        """Log a failure, if there is one that was not logged yet. Called with no lock held."""
        failure, self._failure = self._failure, None
        if failure is not None:
            name, error = failure
            text = "the recorder failed in %s: the recording ends here, the chat goes on without it"
            log.error(text, name, exc_info=error)
