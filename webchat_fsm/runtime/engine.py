"""The shell of one session: decisions under the lock, then what they ask for, then their events."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from webchat_fsm.config import Config
from webchat_fsm.core.decide import decide
from webchat_fsm.core.facts import Arrival, Asked, Due, Interrupted, Moment, Replied, Reply, Step, Timer, Verdict
from webchat_fsm.core.session import Session, Settings
from webchat_fsm.errors import TransportError, WebChatError
from webchat_fsm.lifecycle.effects import Call, Decision, Delivered, Forget, Publish, Save, SavedSession, Settled
from webchat_fsm.lifecycle.table import State, Trigger
from webchat_fsm.lifecycle.words import FileToSend, Json, Response
from webchat_fsm.runtime.delivery import ChatEvent, Hold, Outbox, UserCode
from webchat_fsm.runtime.driver import Driver, Job, ManualDriver
from webchat_fsm.runtime.http import Http
from webchat_fsm.runtime.keeper import Keeper
from webchat_fsm.runtime.recorder import Recorder
from webchat_fsm.wire.dialects import dialect_of
from webchat_fsm.wire.request import silent

log = logging.getLogger("webchat_fsm")

Preprocessor = Callable[[Json], Json | None]


class Engine:
    """Takes steps for one service: commands in the caller's thread, timers in the driver's."""

    def __init__(self, config: Config, http: Http, keeper: Keeper, driver: Driver, outbox: Outbox) -> None:
        self.session = Session(Settings.of(config))
        self.lock = threading.Lock()
        self.outbox = outbox
        self.keeper = keeper
        self.driver = driver
        self.user_code = UserCode()
        self.preprocessors: list[Preprocessor] = []
        self.preview_input: Any = None
        self.on_delivered: Callable[[int, int | str | None], None] = lambda ticket, index: None
        self.first_event = 0
        self.recorder: Recorder | None = None
        self._http = http
        self._dialect = dialect_of(config)
        self._last_preview = ""
        self._closing = threading.Event()

    # -- one step --------------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """The time of a step."""
        clock = self.driver.clock
        return Moment(clock.timer(), clock.wall(), random.random())

    def commit(self, step: Step) -> Decision:
        """Decide under the lock; events join the outbox in the order of the decisions."""
        with self.lock:
            before = self.outbox.position
            now = self.moment()
            decision = decide(self.session, step, now)
            if self.recorder is not None:
                self.recorder.stepped(self.session, step, now, decision)
            triggers = {row.trigger for row in decision.rows}
            if Trigger.OPEN in triggers:
                self._closing.clear()
                self.outbox.unseal()
            if triggers & {Trigger.START, Trigger.OPEN}:
                self.first_event = before
            hold = self._put(decision)
            if Trigger.CLOSE in triggers:
                self.outbox.seal()
        if self.recorder is not None:
            self.recorder.flush()
        for row in decision.rows:
            log.debug("%s: %s -> %s", row.trigger, row.source, row.dest)
        if decision.warning:
            log.warning("%s", decision.warning)
        try:
            self._carry_out(decision)
        finally:
            self.outbox.lift(hold)
        self.driver.wake(self)
        self.outbox.nudge()
        return decision

    def _put(self, decision: Decision) -> Hold | None:
        """Put the events in the outbox; of a loss nobody hears before the store, and `deleteSessionData`, know it."""
        lost = any(isinstance(effect, Forget) and effect.lost is not None for effect in decision.effects)
        hold = self.outbox.hold() if lost else None
        for effect in decision.effects:
            if isinstance(effect, Publish):
                self.outbox.put(ChatEvent(effect.event, effect.data, effect.time))
        return hold

    def _carry_out(self, decision: Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, Save | Forget):
                with self.user_code.running():  # the store, or the functions of asynchronous chat, may be the user's
                    self.keeper.carry_out(effect)
            elif isinstance(effect, Delivered):
                self.on_delivered(effect.ticket, effect.index)

    def load(self) -> SavedSession | None:
        """What is saved; raises `StoreError`."""
        with self.user_code.running():
            return self.keeper.load()

    def run(self, step: Step) -> tuple[Settled | None, Call | None]:
        """Take a step and every step that follows from its requests; gives the outcome and the first request."""
        return self.follow(self.commit(step))

    def follow(self, decision: Decision) -> tuple[Settled | None, Call | None]:
        """Take every step that follows from the requests of a decision."""
        first, settled = decision.call, decision.settled
        while (call := decision.call) is not None:
            try:
                self.outbox.drain(wait=False)
                reply = self._preprocessed(call, self._perform(call))
                decision = self.commit(Replied(call=call, reply=reply))
            except BaseException:
                self.commit(Interrupted(call=call))
                raise
            settled = settled or decision.settled
        return settled, first

    def _perform(self, call: Call) -> Reply:
        self._pause(call.fields.get("pause", 0.0))
        if call.number != self.session.number:
            return silent("", TransportError(f"{call.operation}: not sent, as the session was left meanwhile"))
        call, trouble = self._with_content(call)
        if trouble is not None:
            return trouble
        try:
            request = self._dialect.request(call)
        except (ValueError, TypeError, RecursionError) as error:
            told = {"code": 0, "text": f"{call.operation}: what was given cannot be sent: {type(error).__name__}"}
            return Reply(verdict=Verdict.BAD, response=Response(errors=[told]))
        if self.recorder is not None:
            self.recorder.requested(call, request, self.moment())
        try:
            answer = self._http.send(replace(request, wanted=partial(self._wanted, call)))
        except TransportError as error:
            return silent(request.url, error)
        if self.recorder is not None:
            self.recorder.answered(call, answer)
        return self._dialect.reply(call, answer)

    def _wanted(self, call: Call) -> bool:
        """Whether the session of a call is still open here."""
        return call.number == self.session.number and not self._closing.is_set()

    def _pause(self, seconds: float) -> None:
        """Let time pass before an attempt is repeated; closing cuts it short."""
        if seconds and self.driver.threaded:
            self._closing.wait(seconds)
        elif seconds and isinstance(self.driver, ManualDriver):
            self.driver.wait(seconds)

    def _with_content(self, call: Call) -> tuple[Call, Reply | None]:
        """Read the file of an upload; a file that cannot be read is no fault of the network."""
        file = call.fields.get("file")
        if not isinstance(file, FileToSend):
            return call, None
        try:
            content = file.source()
        except (OSError, ValueError) as error:  # a file that was closed meanwhile is a ValueError
            why = getattr(error, "strerror", None) or error
            told = {"code": 0, "text": f"{file.name}: cannot be read: {why}", "filename": file.name}
            return call, Reply(verdict=Verdict.BAD, response=Response(errors=[told]))
        return replace(call, fields={**call.fields, "content": content}), None

    # -- code of the user ------------------------------------------------------------------------------------------

    def _preprocessed(self, call: Call, reply: Reply) -> Reply:
        """Run the preprocessors over what is new and visible, with no lock held."""
        if not self.preprocessors:
            return reply
        if reply.pushes:
            return replace(reply, pushes=tuple(self._preprocessed(call, push) for push in reply.pushes))
        if not reply.arrivals:
            return reply
        with self.lock:
            fresh = {id(arrival) for arrival in self.session.unseen(reply.arrivals)}
            restoring = self.session.state is State.RESTORING or self.session.catching_up
        arrivals = tuple(
            self._shown(arrival, restoring=restoring) if id(arrival) in fresh else arrival for arrival in reply.arrivals
        )
        return replace(reply, arrivals=arrivals)

    def _shown(self, arrival: Arrival, *, restoring: bool) -> Arrival:
        message = arrival.message
        if self.session.hides(message):
            return arrival
        item = replace(message, restoring=restoring).item()
        for preprocessor in list(self.preprocessors):
            with self.user_code.running():
                try:
                    returned: Any = preprocessor(item)
                except Exception:
                    log.exception("the preprocessor %s failed; the message stays as it was", _name(preprocessor))
                    continue
            if isinstance(returned, dict):
                item = returned or item
            elif returned:
                kind = type(returned).__name__
                log.error("the preprocessor %s returned no message but %s", _name(preprocessor), kind)
        try:
            return arrival._replace(shown=message.altered(item))
        except (AttributeError, TypeError, ValueError):
            log.exception("what the preprocessors returned is no message; it stays as it was")
            return arrival

    def preview(self) -> str:
        """The value of the registered typing preview input."""
        if self.preview_input is None:
            return ""
        with self.user_code.running():
            try:
                return str(self.preview_input.value or "")
            except Exception:
                log.exception("the typing preview input %s failed", _name(self.preview_input))
                return ""

    # -- timers ----------------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """The moment of the earliest timer, None without one."""
        with self.lock:
            return min(self.session.timers.values(), default=None)

    def timers(self) -> list[tuple[Timer, float]]:
        """Every timer and its moment."""
        with self.lock:
            return list(self.session.timers.items())

    def take_due(self, now: float) -> list[Job]:
        """The jobs of all timers due by now."""
        with self.lock:
            due = sorted((moment, timer) for timer, moment in self.session.timers.items() if moment <= now)
            for _, timer in due:
                del self.session.timers[timer]
        return [partial(self.run_timer, timer) for _, timer in due]

    def run_timer(self, timer: Timer) -> object:
        """Do what a timer stands for; true where the server answered well."""
        try:
            preview = self._typed(timer)
        except BaseException:
            self._put_back(timer)
            raise
        try:
            settled, _ = self.run(Due(timer=timer, preview=preview))
        except WebChatError:
            log.exception("the timer %s failed", timer)
            return False
        finally:
            self.outbox.drain(wait=False)
        return settled is not None and settled.resolved

    def _put_back(self, timer: Timer) -> None:
        """Let a timer that was not carried out fall due again."""
        with self.lock:
            if self.session.opened:
                self.session.timers.setdefault(timer, self.driver.clock.timer() + self.session.delay)
        self.driver.wake(self)

    def _typed(self, timer: Timer) -> str:
        """The preview text; a change of it since the last look counts as one sendTyping."""
        text = self.preview()
        if timer in (Timer.POLL, Timer.PREVIEW) and text != self._last_preview:
            self._last_preview = text
            if text and self.session.state.has_session:
                self.run(Asked(command="sendTyping", data={"message": text}))
        return text

    # -- closing ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Let the requests in flight fail at once."""
        self._closing.set()
        self._http.cut()

    def give_up_connections(self) -> None:
        """Close the kept connections."""
        self._http.close()

    @property
    def settled(self) -> bool:
        """False while a restore is in flight."""
        return self.session.state is not State.RESTORING


def _name(thing: object) -> str:
    return getattr(thing, "__qualname__", None) or type(thing).__name__
