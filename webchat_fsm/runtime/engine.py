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
from webchat_fsm.core.defects import unread
from webchat_fsm.core.facts import (
    Arrival,
    Asked,
    Closed,
    Due,
    Interrupted,
    Moment,
    Replied,
    Reply,
    Step,
    Timer,
    Verdict,
)
from webchat_fsm.core.session import Session, Settings
from webchat_fsm.core.silence import AGAIN, stalled
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import By
from webchat_fsm.lifecycle.effects import (
    Call,
    Decision,
    Delivered,
    Forget,
    Overtaken,
    Publish,
    Save,
    SavedSession,
    Settled,
)
from webchat_fsm.lifecycle.table import State, Trigger
from webchat_fsm.lifecycle.words import FileToSend, Json, Response
from webchat_fsm.runtime import log_locks
from webchat_fsm.runtime.clock import monotonic
from webchat_fsm.runtime.defects import Defects
from webchat_fsm.runtime.delivery import ChatEvent, Hold, Outbox, UserCode
from webchat_fsm.runtime.driver import Driver, Job, ManualDriver
from webchat_fsm.runtime.forks import Forked
from webchat_fsm.runtime.http import Http
from webchat_fsm.runtime.keeper import Keeper
from webchat_fsm.runtime.misreadings import Misreadings
from webchat_fsm.runtime.recorder import Guarded
from webchat_fsm.wire.dialects import dialect_of
from webchat_fsm.wire.request import HttpAnswer, Request, answered, bare, silent

log = logging.getLogger("webchat_fsm")

IN_PASSING = 0.1
"""Seconds for which close() waits for another thread that logs or records, before it leaves its own lines out."""

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
        self.on_delivered: Callable[[Delivered | Overtaken], None] = lambda effect: None
        self.first_event = 0
        self.recorder: Guarded | None = None
        self.misreadings = Misreadings()
        self._http = http
        self._dialect = dialect_of(config)
        self._last_preview = ""
        self.defects = Defects()
        self._polled: Call | None = None
        self._taken = 0.0

    # -- one step --------------------------------------------------------------------------------------------------

    def moment(self) -> Moment:
        """The time of a step."""
        clock = self.driver.clock
        return Moment(clock.timer(), clock.wall(), random.random())

    def commit(self, step: Step, *, wait: bool = True) -> Decision:
        """Decide under the lock; events join the outbox in the order of the decisions.

        Without `wait`, a thread that is writing to the store is left to write this decision's document too.
        """
        hold, decision = Hold(), None
        try:
            with self.lock:
                before = self.outbox.position
                now = self.moment()
                decision = self._decided(step, now)
                try:
                    if self.recorder is not None:
                        self.recorder.stepped(self.session, step, now, decision)
                    self._publish(decision, before, hold)
                except BaseException:
                    self._publish(decision, before, hold, there=self.outbox.position > before)
                    raise
            self._tell(decision, closing=isinstance(step, Closed))
            self._carry_out(decision, wait)
            hold.lifted = True
            self._wake()
        except BaseException:  # an interruption may come wherever a function is entered, and nothing may wait for ever
            hold.lifted = True
            if decision is not None:
                self.forsake(decision)
                self._carry_out(decision, wait)
            self._wake()
            raise
        return decision

    def _decided(self, step: Step, now: Moment) -> Decision:
        """The decision; a step that was interrupted on its way leaves nothing begun."""
        session = self.session
        state, tickets = session.state, session.tickets
        try:
            return decide(session, step, now)
        except BaseException:
            elsewhere = session.state is state and state in (State.STARTING, State.RESTORING)
            if not elsewhere:  # what another thread has begun goes on
                operation = "disconnect" if isinstance(step, Asked) and step.command == "endChat" else ""
                ticket = session.tickets if session.tickets != tickets else -1
                call = Call(operation=operation, number=session.number, ticket=ticket)
                self._publish(decide(session, Interrupted(call=call), now), self.outbox.position, Hold())
            raise

    def _publish(self, decision: Decision, before: int, hold: Hold, *, there: bool = False) -> None:
        """Put the events in the outbox, unless they are there; of a loss nobody hears before the store knows it."""
        triggers = {row.trigger for row in decision.rows}
        if Trigger.OPEN in triggers:
            self.outbox.unseal()
        if triggers & {Trigger.START, Trigger.OPEN}:
            self.first_event = before
        effects = decision.effects
        lost = any(isinstance(effect, Forget) and effect.lost is not None for effect in effects)
        events = [ChatEvent(one.event, one.data, one.time) for one in effects if isinstance(one, Publish)]
        if not there:
            self.outbox.put(*events, behind=hold if lost else None)
        if Trigger.CLOSE in triggers:
            self.outbox.seal()

    def _tell(self, decision: Decision, *, closing: bool) -> None:
        if self.recorder is not None:
            self.recorder.flush(IN_PASSING if closing else -1.0)
        if decision.defect is not None:
            self.defects.note(decision.defect)
        if closing:  # close() waits for nothing that another thread may hold for long
            log_locks.log_within(IN_PASSING, partial(self._log, decision))
        else:
            self._log(decision)

    def _log(self, decision: Decision) -> None:
        if self.recorder is not None:
            self.recorder.report()
        self.defects.report()
        for row in decision.rows:
            log.debug("%s: %s -> %s", row.trigger, row.source, row.dest)
        if decision.warning:
            log.warning("%s", decision.warning)

    def _carry_out(self, decision: Decision, wait: bool) -> None:
        for effect in decision.effects:
            if isinstance(effect, Save | Forget):
                # the store, or the functions of asynchronous chat, may be the user's
                self.user_code.call(partial(self.keeper.carry_out, effect, wait=wait))
            elif isinstance(effect, Delivered | Overtaken):
                self.on_delivered(effect)

    def _wake(self) -> None:
        self.driver.wake(self)
        self.outbox.nudge()

    def forsake(self, decision: Decision) -> None:
        """Take it that nobody makes the request of a decision, or waits for its answer; twice does no harm."""
        if decision.call is not None:
            self.commit(Interrupted(call=decision.call))

    def load(self) -> SavedSession | None:
        """What is saved; raises `StoreError`."""
        return self.user_code.call(self.keeper.load)

    def run(self, step: Step) -> tuple[Settled | None, Call | None]:
        """Take a step and every step that follows from its requests; gives the outcome and the first request."""
        decision = self.commit(step)
        try:
            return self.follow(decision)
        except BaseException:
            self.forsake(decision)
            raise

    def follow(self, decision: Decision) -> tuple[Settled | None, Call | None]:
        """Take every step that follows from the requests of a decision."""
        first, settled = decision.call, decision.settled
        while (call := decision.call) is not None:
            if call.ticket == self.session.poll_out:
                self._polled = call
            try:
                self.outbox.drain(wait=False)
                reply = self._reply(call)
                decision = self.commit(Replied(call=call, reply=reply))
            except BaseException:
                self.forsake(decision)
                raise
            settled = settled or decision.settled
        return settled, first

    def _reply(self, call: Call) -> Reply:
        """Make a request, and read its answer; what is raised by a defect of our own counts as a bad answer."""
        reply: Reply | None = None
        try:
            reply = self._perform(call)
            return self._preprocessed(call, reply)
        except MemoryError:  # no defect, and nothing more may be built now: it goes on as an interruption does
            raise
        except Exception as error:  # a defect may raise anything
            self.defects.note(error)
            return unread(call, error, reply.response if reply is not None else None)

    def _perform(self, call: Call) -> Reply:
        self._pause(call)
        if call.number != self.session.number:
            return silent("", TransportError(f"{call.operation}: not sent, as the session was left meanwhile"))
        call, trouble = self._with_content(call)
        if trouble is not None:
            return trouble
        request = self._request(call)
        if isinstance(request, Reply):
            return request
        repeats: list[str] = []
        wanted, repeated = partial(self._wanted, call), partial(repeats.append, call.operation)
        reply = self._exchange(call, replace(request, wanted=wanted, repeated=repeated))
        return replace(reply, repeats=len(repeats)) if repeats else reply

    def _request(self, call: Call) -> Request | Reply:
        """Build the request that carries a call, or why what a command was given cannot be sent."""
        try:
            request = self._dialect.request(call)
        except (ValueError, TypeError, RecursionError) as error:
            if call.command in ("", "poll"):  # nothing was given
                raise
            told = {"code": 0, "text": f"{call.operation}: what was given cannot be sent: {type(error).__name__}"}
            return Reply(verdict=Verdict.BAD, response=Response(errors=[told]))
        if self.recorder is not None:
            self.recorder.requested(call, request, self.moment())
        return request

    def _exchange(self, call: Call, request: Request) -> Reply:
        try:
            answer = self._http.send(request)
        except TransportError as error:
            return silent(request.url, error)
        except MemoryError:
            raise
        except Exception as error:  # a way to the server that is the user's, or a library below, may raise anything
            self.defects.note(error)
            return unread(call, error, Response(url=bare(request.url)), silent=True)
        if self.recorder is not None:
            self.recorder.answered(call, answer)
        return self._read(call, answer, bare(request.url))

    def _read(self, call: Call, answer: HttpAnswer, url: str) -> Reply:
        try:
            reply = self._dialect.reply(call, answer)
        except Exception as error:
            self.defects.note(error)
            return unread(call, error, answered(answer, url))
        self.misreadings.note(reply)
        return reply

    def _wanted(self, call: Call) -> bool:
        """Whether the session of a call is still open here."""
        return call.number == self.session.number and self.session.opened

    def _pause(self, call: Call) -> None:
        """Let time pass before an attempt is repeated; leaving the session cuts it short."""
        seconds = call.fields.get("pause", 0.0)
        if seconds and isinstance(self.driver, ManualDriver):
            self.driver.wait(seconds)
        elif seconds and self.driver.threaded:
            deadline, changes = monotonic() + seconds, self.outbox.changes
            while call.number == self.session.number and (left := deadline - monotonic()) > 0:
                self.outbox.wait_change(changes, left)
                changes = self.outbox.changes

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
            old = call.operation == "history"
            answer = self.session.look(reply.arrivals, next_position=reply.next_position, old=old)
            fresh = {id(found.arrival) for found in answer.fresh}
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
            try:
                returned: Any = self.user_code.call(preprocessor, item)
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
        except Exception:  # what they returned may hold objects whose own code raises anything
            log.exception("what the preprocessors returned is no message; it stays as it was")
            return arrival

    def preview(self) -> str:
        """The value of the registered typing preview input."""
        if self.preview_input is None:
            return ""
        try:
            return self.user_code.call(lambda: str(self.preview_input.value or ""))
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
            self._taken = now if due else self._taken
        return [partial(self.run_timer, timer) for _, timer in due]

    def run_timer(self, timer: Timer, *, by_hand: bool = False) -> object:
        """Do what a timer stands for; true where the server answered well."""
        try:
            preview = self._typed(timer)
        except BaseException:
            self._put_back(timer)
            raise
        try:
            settled, _ = self.run(Due(timer=timer, preview=preview, by_hand=by_hand))
        except Exception as error:
            self.defects.note(error)
            self.defects.report()
            self._put_back(timer)
            return False
        finally:
            self.outbox.drain(wait=False)
        return settled is not None and settled.resolved

    def stalled(self, now: float) -> float | None:
        """Return the seconds without a poll, where they are more than its deadline and pause; called under the lock."""
        return stalled(self.session, now, self._taken)

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs that restart stalled polling: a worker was lost, or a request never returns."""
        with self.lock:
            pending = any(timer in self.session.timers for timer in AGAIN)  # then the driver is late, not the poll
            if pending or self.stalled(now) is None:
                return []
            out, polls = self.session.poll_out, self.session.transport.polls
            self._taken = now
        log.error("polling has stalled; it is set going again")
        return [partial(self._give_up_poll, out) if out else partial(self.run_timer, AGAIN[0] if polls else AGAIN[1])]

    def _give_up_poll(self, ticket: int) -> None:
        """Treat the poll in flight as unanswered; an answer that comes late is read all the same."""
        call = self._polled
        if call is not None and call.ticket == ticket == self.session.poll_out:
            error = TransportError(f"{call.operation}: neither answered nor given up long after its deadline")
            self.follow(self.commit(Replied(call=call, reply=silent("", error))))
            self.outbox.drain(wait=False)

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
                self.run(Asked(command="sendTyping", data={"message": text}, by=By.SERVICE))
        return text

    # -- closing ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Let the requests in flight fail at once."""
        self._http.cut()

    def give_up_connections(self) -> None:
        """Close the kept connections."""
        self._http.close()

    def after_fork(self) -> None:
        """Be closed, in a child of a fork: the chat is its parent's, and threads that are not here may hold locks."""
        self.lock = threading.Lock()
        self.user_code = UserCode()
        self.misreadings = Misreadings()  # another thread may have held the lock of the parent's
        self.recorder = None
        self.outbox.after_fork()
        self.keeper.after_fork()
        if isinstance(self._http, Forked):
            self._http.after_fork()
        decide(self.session, Closed(), self.moment())  # saving is its parent's affair too

    @property
    def settled(self) -> bool:
        """False while a restore is in flight."""
        return self.session.state is not State.RESTORING


def _name(thing: object) -> str:
    return getattr(thing, "__qualname__", None) or type(thing).__name__
