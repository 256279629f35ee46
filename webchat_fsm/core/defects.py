"""What a step comes to that could not be decided, or an answer that could not be read, by a defect of this library.

The session is as it was before the step. An answer counts as a failed poll, a command is rejected, and the chat goes
on. It goes by the table and uses nothing else of what decides, as the defect may be anywhere in that.
"""

from __future__ import annotations

from contextlib import suppress

from webchat_fsm.core import machine
from webchat_fsm.core.facts import Asked, Closed, Due, Interrupted, Moment, Opened, Replied, Reply, Step, Timer, Verdict
from webchat_fsm.core.pace import ASK_AGAIN, LONGEST_PAUSE
from webchat_fsm.core.session import Session, Standing
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.effects import Call, Decision, Forget, Publish, SavedSession, Settled
from webchat_fsm.lifecycle.events import EVENTS, Failure, ParticipantChanged, Payload, RestoreFailed
from webchat_fsm.lifecycle.table import CONTENT, POLLING_ON, Do, Flag, Row, Say, State, Trigger
from webchat_fsm.lifecycle.words import OWN_FAULT, Response

POLLS = frozenset({"refresh", "connect", "handshake", "notifications"})
"""Operations by which a chat goes on."""


def place(error: BaseException) -> str:
    """Name where an exception was raised, by function and line, in this package where it passed through it."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not found or module.startswith("webchat_fsm."):
            found = f"{module}.{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found or "?"


def unread(call: Call, error: Exception, response: Response | None = None, *, silent: bool = False) -> Reply:
    """Make the reply that stands for an answer whose reading raised; `silent` where no complete answer came."""
    why = f"{call.operation}: {type(error).__name__} at {place(error)}"
    text = f"{why}, a defect of webchat_fsm: please report it with the traceback from the log"
    known = response or Response()
    published = Response(
        status=known.status, body=known.body, errors=[{"code": OWN_FAULT, "text": text}], url=known.url
    )
    fault = TransportError(text, response=published)
    fault.__cause__ = error
    return Reply(verdict=Verdict.SILENT if silent else Verdict.BAD, response=published, error=fault, defect=text)


def decide(session: Session, step: Step, now: Moment, error: Exception | None = None) -> Decision:
    """Decide a step whose reply met a defect, or whose decision raised `error`, and goes by the table alone."""
    call = step.call if isinstance(step, Replied) else Call(operation=_named(step))
    if isinstance(step, Replied) and step.reply.defect:
        reply = step.reply
    else:
        response = step.reply.response if isinstance(step, Replied) else None
        reply = unread(call, error or RuntimeError("nothing was raised"), response)
    fallback = _Fallback(session, now, reply)
    fallback.decision.defect = error
    match step:
        case Replied():
            fallback.answered(call)
        case Asked():
            fallback.reject()
        case Due():
            fallback.due(step.timer)
        case Interrupted():
            fallback.interrupted(step.call)
        case Opened():
            fallback.opened(step.saved)
        case Closed():
            fallback.closed()
    return fallback.decision


def _named(step: Step) -> str:
    if isinstance(step, Asked):
        return step.command
    return step.timer if isinstance(step, Due) else type(step).__name__


class _Fallback:
    """A decision made without the rest of the core."""

    def __init__(self, session: Session, now: Moment, reply: Reply) -> None:
        self.session, self.now, self.reply = session, now, reply
        self.decision = Decision()

    def answered(self, call: Call) -> None:
        """Take an answer that could not be read, or not be decided on."""
        session = self.session
        leaves = "disconnect" in (call.operation, call.fields.get("then"))
        self.reject()
        if call.number != session.number:
            return
        if session.state is State.STARTING:
            self._fire(Trigger.START_FAILED)
        elif session.state is State.RESTORING:
            self._fire(Trigger.RESTORE_MISANSWERED)
        elif leaves and Flag.ENDING in session.flags:
            self._fire(Trigger.LEFT)
        elif call.operation in POLLS:
            self._poll_failed(call)
        elif session.state.has_session:
            self._unconfirmed(call)

    def due(self, timer: Timer) -> None:
        """Take a timer whose step raised: a poll has failed, anything else is tried again."""
        if timer in (Timer.POLL, Timer.CONNECT):
            self._poll_failed(None)
        elif self.session.opened:
            self.session.timers[timer] = self.now.timer + max(1.0, self.session.delay)

    def interrupted(self, call: Call) -> None:
        """Give up a request whose thread was interrupted."""
        session = self.session
        if call.number != session.number:
            return
        if session.state in (State.STARTING, State.RESTORING):
            self._fire(Trigger.INTERRUPTED)
        elif call.ticket == session.poll_out:
            session.poll_out = 0
            self._poll_again()

    def opened(self, saved: SavedSession | None) -> None:
        """Open, and fail to restore what is saved, which is kept."""
        session = self.session
        if not session.opened:
            session.opened, session.saved = True, saved or session.saved
            self._fire(Trigger.OPEN)
            if session.state is State.RESTORING:
                self._fire(Trigger.RESTORE_MISANSWERED)

    def closed(self) -> None:
        """Close, with the session saved as it last was."""
        if self.session.opened:
            self._fire(Trigger.CLOSE)
            self.session.opened = False
            self.session.timers.clear()

    def reject(self) -> None:
        """Settle the command, if one waits, with the defect as its reason."""
        reply, state = self.reply, self.session.state
        self.decision.settled = Settled(
            resolved=False, reason=str(reply.error), response=reply.response, fault=reply.error, state=state
        )

    def _poll_failed(self, call: Call | None) -> None:
        session = self.session
        if not (session.state.has_session and session.opened):
            return
        if call is None or call.ticket == session.poll_out:
            session.poll_out = 0
        if self.reply.verdict is Verdict.SILENT:
            self._fire(Trigger.NO_ANSWER)
        elif self.reply.response.status and session.transport.polls:  # over CometD only a connect is contact
            self._fire(Trigger.ANSWERED)
        self._fire(Trigger.MISANSWERED)
        self._fire(Trigger.POLL_FAILED)
        session.behind = True
        if not session.poll_out:
            self._poll_again(asked=call is not None and call.operation == "notifications")

    def _poll_again(self, *, asked: bool = False) -> None:
        """Restart polling, with the pause of a failed poll; `asked` where missed messages were asked for."""
        session, now = self.session, self.now.timer
        if session.transport.polls:
            if session.state in POLLING_ON:
                offline = session.state is State.OFFLINE
                wait, session.delay = session.settings.pace.next(session.delay, failed=True, offline=offline)
                session.timers[Timer.POLL] = now + wait
            return
        link = session.link
        link.miss(session.cursor)
        if asked:  # the connection works: only a good push ends the outage
            session.timers[Timer.CONNECT] = now + max(link.interval, ASK_AGAIN)
        else:
            link.lost = link.fresh = True
            link.retries += 1
            session.timers[Timer.CONNECT] = now + min(float(link.retries), LONGEST_PAUSE)

    def _unconfirmed(self, call: Call) -> None:
        """Mark a send as unconfirmed, as it may have arrived, and ask again for what was pushed with its answer."""
        session = self.session
        for sending in session.sendings:
            if sending.ticket == call.fields.get("receipt"):
                sending.standing = Standing.UNCONFIRMED
        if not session.transport.polls:
            session.link.miss(session.cursor)

    # -- the table ---------------------------------------------------------------------------------------------------

    def _fire(self, trigger: Trigger) -> None:
        session = self.session
        row = machine.fire(session, trigger)
        self.decision.rows.append(row)
        if row.dest is not row.source:
            session.before = row.source
        for say in row.says:
            if self._is_due(say):
                self._publish(say.event)
        session.flags = (session.flags | frozenset(row.sets)) - frozenset(row.clears)
        self._do(row)

    def _is_due(self, say: Say) -> bool:
        has = self.session.has
        return say is not CONTENT and (not say.when or any(map(has, say.when))) and not any(map(has, say.unless))

    def _publish(self, event: str) -> None:
        kind = EVENTS[event].payload
        payload: Payload | None = None
        if kind in (Failure, RestoreFailed):
            payload = kind(response=self.reply.response)
        elif kind is ParticipantChanged:
            payload = ParticipantChanged()
        if self.session.transport in EVENTS[event].transports:
            self.decision.effects.append(Publish(event=event, data=payload, time=self.now.wall))

    def _do(self, row: Row) -> None:
        session = self.session
        if row.dest not in POLLING_ON:
            session.timers.pop(Timer.POLL, None)
        for do in row.does:
            match do:
                case Do.COUNT:
                    session.failures += 1
                case Do.SATURATE:
                    session.failures = session.settings.poll_exception_limit + 1
                case Do.FINISH:
                    session.prefilters.clear()
                case Do.GIVE_UP if session.saved is not None:
                    session.order += 1
                    session.saved = None
                    self.decision.effects.append(Forget(order=session.order, session_data=session.session_data))
                case Do.LEAVE:
                    with suppress(Exception):  # at its end it asks the participants, which may be where the defect is
                        session.leave(self.now.wall)
