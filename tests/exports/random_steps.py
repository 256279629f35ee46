"""Random steps of the core alone, with many requests in flight at once: answers, timers and interruptions in any order.

The embedded server answers each request before the next is made, which leaves out what needs two at a time.
"""

from __future__ import annotations

import random
from typing import Any

from tests.core.harness import IDS, chat_message, good, silent
from tests.exports.tracing import Tracer
from webchat_fsm._bayeux.frames import Answer
from webchat_fsm._config import Config
from webchat_fsm._core.operations import NoRequest
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Asked, Call, Closed, Due, Interrupted, Moment, Opened, Replied, Reply, ResponseKind
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Response
from webchat_fsm._runtime import transaction
from webchat_fsm._runtime.commands import COMMANDS, settled_start
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._bench import CONFIGS, merged

BEGIN = 1_000_000.0
GIVEN: dict[str, dict[str, Any]] = {
    "startChat": {"nickname": "Jonny"},
    "endChat": {},
    "sendMessage": {"message": "mine"},
    "sendTyping": {"message": "m"},
    "startPoll": {},
    "stopPoll": {},
    "resetPollExceptions": {},
    "verifySession": {},
    "restore": {},
}
KINDS = ("Client", "Agent", "Supervisor", "Bot")
TYPES = ("Message", "ParticipantJoined", "ParticipantLeft", "TypingStarted", "TypingStopped")
FREQUENCIES = (0.1, 1, 3)
STEPS_A_SESSION = 120


class RandomSession:
    """One session, its calls in flight, and the moment."""

    def __init__(self, transport: Transport, seed: int) -> None:
        self.draw = random.Random(f"steps {transport} {seed}")
        limit = self.draw.choice([0, 1, 3])
        config = Config.read(merged(CONFIGS[transport], {"pollExceptionLimit": limit}))
        self.session = Session(config)
        self.timer, self.index = 0.0, 0
        self.calls: list[Call] = []
        self.failing = self.draw.choice([0.1, 0.4, 0.8])
        acts = (
            (self._reply, 10), (self._ask, 6), (self._due, 6), (self._open, 3), (self._close, 0.5), (self._stop, 1),
            (self._pass, 1),
        )  # fmt: skip
        # sessions differ in what is frequent, as no one mixture leads everywhere
        self.acts = {act: weight * self.draw.choice(FREQUENCIES) for act, weight in acts}
        self.commands = {name: self.draw.choice(FREQUENCIES) for name in GIVEN}
        self.kinds = {kind: self.draw.choice(FREQUENCIES) for kind in ResponseKind}

    def run(self) -> None:
        """Decide one random step."""
        (act,) = self.draw.choices(list(self.acts), list(self.acts.values()))
        act()

    def _take(self, step: Any) -> None:
        decision = transaction.decide(self.session, step, Moment(self.timer, BEGIN + self.timer, 0.5))
        if decision.call is not None:
            self.calls.append(decision.call)

    def _open(self) -> None:
        if not self.session.opened:
            self._take(Opened(saved=self._saved()))

    def _saved(self) -> SavedSession | None:
        away = self.draw.choice([0.0, 10.0, 100.0])
        saved = SavedSession(
            transport=self.session.transport,
            # one of another server cannot be restored
            address=self.draw.choice([self.session.config.address] * 3 + ["https://elsewhere.test/"]),
            session_data=IDS,
            cursor=3,
            last_contact=BEGIN + self.timer - away,
        )
        return self.draw.choice([None, self.session.saved, saved])

    def _close(self) -> None:
        self._take(Closed())

    def _ask(self) -> None:
        (name,) = self.draw.choices(list(self.commands), list(self.commands.values()))
        data = settled_start(GIVEN[name]) if name == "startChat" else GIVEN[name]
        by = By.SERVICE if name == "restore" else By.USER
        if name == "restore" and self.draw.random() < 0.5:
            data = {"saved": self._saved()}
        self._take(Asked(command=COMMANDS[name], data=data, by=by))

    def _due(self) -> None:
        if self.session.timers and self.session.opened:
            timer = self.draw.choice(sorted(self.session.timers))
            self.timer = max(self.timer, self.session.timers[timer])
            self._take(Due(timer=timer))

    def _pass(self) -> None:
        self.timer += self.draw.choice([1.0, 100.0])

    def _stop(self) -> None:
        # a command without a request can be interrupted too
        nothing = Call(operation=NoRequest(), number=self.session.number, ticket=-1)
        self._take(Interrupted(call=self._call() if self.calls and self.draw.random() < 0.8 else nothing))

    def _reply(self) -> None:
        if self.calls:
            self._take(Replied(call=self._call(), reply=self._answer()))

    def _call(self) -> Call:
        return self.calls.pop(self.draw.randrange(len(self.calls)))

    # -- answers -------------------------------------------------------------------------------------------------------

    def _answer(self) -> Reply:
        link = Answer(
            client_id=self.draw.choice(["client-1", "client-1", "client-2", ""]),
            reconnect=self.draw.choices(["", "retry", "handshake", "none"], [10, 3, 1, 0.5])[0],
            disconnected=self.draw.random() < 0.03,
        )
        pushes = () if self.session.transport.polls else tuple(self._content() for _ in range(self.draw.choice([0, 1])))
        failed = self.draw.random() < self.failing
        (kind,) = self.draw.choices(list(self.kinds), list(self.kinds.values())) if failed else [ResponseKind.GOOD]
        return self._of(kind, link=link, pushes=pushes)

    def _content(self) -> Reply:
        kinds = [ResponseKind.GOOD, ResponseKind.REFUSED, ResponseKind.LOST, ResponseKind.BAD]
        return self._of(self.draw.choices(kinds, [6, 1, 1, 1])[0])

    def _of(self, kind: ResponseKind, **more: Any) -> Reply:
        ended = self.draw.random() < 0.08
        if kind is ResponseKind.GOOD:
            return good(*self._messages(), session_data=IDS, chat_ended=ended, **more)
        if kind is ResponseKind.SILENT:
            return silent()
        if self.draw.random() < 0.05:
            error = TransportError("refresh: a defect")
            return Reply(kind=kind, defect="ValueError", error=error, **more)
        errors = [{"code": 249}] if self.draw.random() < 0.3 else []
        response = Response(status=self.draw.choice([200, 404, 500]), errors=errors)
        return Reply(kind=kind, response=response, chat_ended=ended, **more)

    def _messages(self) -> list[Any]:
        found = []
        for _ in range(self.draw.choice([0, 0, 1, 2])):
            self.index += 1
            kind, what = self.draw.choice(KINDS), self.draw.choice(TYPES)
            found.append(chat_message(self.index, "hi", kind, what))
        return found


def run_sessions(tracer: Tracer, transport: Transport, rows: set[int], most: int) -> None:
    """Run at most so many random sessions, until all of these rows are taken.

    The trace has each as far as it takes a new row.
    """
    missing = rows - tracer.rows(transport)
    for seed in range(most):
        if not missing:
            return
        tracer.name = f"random steps {seed} on {transport}"
        session = RandomSession(transport, seed)
        steps = tracer.of(session.session).steps
        while len(steps) < STEPS_A_SESSION:
            session.run()
        new = [place for place, step in enumerate(steps) if step["row"] in missing]
        if not new:
            tracer.leave_out(session.session)
            continue
        missing -= {step["row"] for step in steps}
        del steps[new[-1] + 1 :]
