"""Decide a step that raised, or an answer whose reading raised, by a defect of this library.

The session is as it was before the step. An answer counts as a failed poll, a command is rejected, and the chat goes
on. Of all that decides only the table is used here, as the defect may be in any other part.
"""

from __future__ import annotations

from contextlib import suppress

from webchat_fsm._core import machine
from webchat_fsm._core.operations import Send
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import NO_FLAGS, SendStatus, Session
from webchat_fsm._core.steps import (
    Asked,
    Call,
    Closed,
    Decision,
    Due,
    Forget,
    Interrupted,
    Moment,
    Opened,
    Publish,
    Replied,
    Reply,
    ResponseKind,
    Settled,
    Step,
)
from webchat_fsm._core.timers import ASKING_ON, Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import OWN_FAULT, Response
from webchat_fsm.lifecycle._events import EVENTS, Failure, ParticipantChanged, Payload, RestoreFailed
from webchat_fsm.lifecycle._states import POLLING_ON, State
from webchat_fsm.lifecycle._table import CONTENT, Effect, Flag, Publication, Transition, Trigger


def origin(error: BaseException) -> str:
    """Name where an exception was raised, by function and line, in this package where it passed through it."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        # the last frame of this package: what raised may be a library that it called wrongly
        if not found or module.startswith("webchat_fsm."):
            found = f"{module}.{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found or "?"


def defect_reply(name: str, error: Exception, response: Response | None = None, *, silent: bool = False) -> Reply:
    """Return the reply in place of an answer to the operation `name`, as making or reading it has raised `error`.

    `silent` where no complete answer came. Its text names the place of the error, and never a value.
    """
    cause = f"{name}: {type(error).__name__} at {origin(error)}"
    text = f"{cause}, a defect of webchat_fsm: please report it with the traceback from the log"
    # the response that came stays visible; its errors are replaced, as they are not the cause
    known = response or Response()
    published = Response(
        status=known.status, body=known.body, errors=[{"code": OWN_FAULT, "text": text}], url=known.url
    )
    fault = TransportError(text, response=published)
    fault.__cause__ = error  # the traceback, for the log
    return Reply(kind=ResponseKind.SILENT if silent else ResponseKind.BAD, response=published, error=fault, defect=text)


def decide(session: Session, step: Step, now: Moment, error: Exception | None = None) -> Decision:
    """Decide by the table alone: a step whose reply met a defect, or whose decision raised `error`."""
    if isinstance(step, Replied) and step.reply.defect:
        reply = step.reply
    else:
        response = step.reply.response if isinstance(step, Replied) else None
        reply = defect_reply(_step_name(step), error or RuntimeError("nothing was raised"), response)
    fallback = _Fallback(session, now, reply)
    fallback.decision.defect = error
    match step:
        case Replied():
            fallback.answered(step.call)
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


def _step_name(step: Step) -> str:
    """Return the operation, command or timer of a step, for the text of the defect."""
    if isinstance(step, Replied):
        return step.call.operation.name
    if isinstance(step, Asked):
        return step.command.name
    return step.timer if isinstance(step, Due) else type(step).__name__


class _Fallback:
    """A decision made without the rest of the core."""

    def __init__(self, session: Session, now: Moment, reply: Reply) -> None:
        self.session, self.now, self.reply = session, now, reply
        self.decision = Decision()

    def answered(self, call: Call) -> None:
        """Settle the command by the defect, and treat the answer as a failed one of its operation."""
        session = self.session
        # first, so that no command waits for ever, even one of an earlier session
        self.reject()
        if call.number != session.number:
            return
        # as `on_reply` does for a bad response, but by triggers alone
        if session.state is State.STARTING:
            self._fire(Trigger.START_FAILED)
        elif session.state is State.RESTORING:
            self._fire(Trigger.RESTORE_MISANSWERED)
        elif call.leaves and Flag.ENDING in session.flags:
            self._fire(Trigger.LEFT)
        elif call.operation.polls:
            self._poll_failed(call)  # by which the next one is scheduled
        elif session.state.has_session:
            self._unconfirmed(call)

    def due(self, timer: Timer) -> None:
        """Treat a poll whose timer raised as failed; set any other timer again."""
        if timer in ASKING_ON:
            self._poll_failed(None)
        elif self.session.opened:
            # a second at least: a timer that raises each time it is due would keep the driver busy
            self.session.timers[timer] = self.now.timer + max(1.0, self.session.delay)

    def interrupted(self, call: Call) -> None:
        """Abandon a request whose thread was interrupted."""
        session = self.session
        if call.number != session.number:
            return
        if not session.state.has_session:
            self._fire(Trigger.INTERRUPTED)
        elif call.ticket == session.poll_ticket:
            session.poll_ticket = 0
            self._poll_again()

    def opened(self, saved: SavedSession | None) -> None:
        """Open the session, and fail a restore; what is saved is kept for the next opening."""
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
        # None: the timer of a poll raised before it had made the request
        if call is None or call.ticket == session.poll_ticket:
            session.poll_ticket = 0
        if self.reply.kind is ResponseKind.SILENT:
            self._fire(Trigger.NO_ANSWER)
        elif self.reply.response.status and session.transport.polls:  # over CometD only a connect is contact
            self._fire(Trigger.ANSWERED)
        self._fire(Trigger.MISANSWERED)
        self._fire(Trigger.POLL_FAILED)
        # for the server the response is delivered, so that its messages have to be requested once more
        session.position_uncertain = True
        if not session.poll_ticket:
            self._poll_again(call)

    def _poll_again(self, call: Call | None = None) -> None:
        """Restart polling, with the pause of a failed poll, after the answer to a call or the timer before one."""
        session, now = self.session, self.now.timer
        if session.connection is None:
            if session.state in POLLING_ON:
                offline = session.state is State.OFFLINE
                wait, session.delay = session.poll_delay.next(session.delay, failed=True, offline=offline)
                session.timers[Timer.POLL] = now + wait
            return
        try:
            session.connect_again(now, defect=True, frame=call.operation if call else None)
        except Exception:  # the defect is in the connection itself, and its answer may be better next time
            session.timers[Timer.CONNECT] = now + session.connection.backoff.after(max(1, session.failures))

    def _unconfirmed(self, call: Call) -> None:
        """Mark a send as unconfirmed, as it may have arrived, and ask again for what was pushed with its answer."""
        session = self.session
        receipt = call.operation.receipt if isinstance(call.operation, Send) else 0
        for sending in session.pending_sends:
            if sending.ticket == receipt:
                sending.status = SendStatus.UNCONFIRMED
        if session.connection is not None:
            session.connection.missed.note(session.cursor)

    # -- the table ---------------------------------------------------------------------------------------------------

    def _fire(self, trigger: Trigger) -> None:
        session = self.session
        row = machine.fire(session, trigger)
        self.decision.transitions.append(row)
        if row.dest is not row.source:
            session.previous_state = row.source
        for publication in row.publishes:
            if self._applies(publication):
                self._publish(publication.event)
        # the same order as in `DecisionContext.fire`, which is not called, as the defect may be there
        session.flags = (session.flags | frozenset(row.sets)) - frozenset(row.clears) or NO_FLAGS
        self._perform(row)

    def _applies(self, publication: Publication) -> bool:
        has, when, unless = self.session.has, publication.when, publication.unless
        return publication is not CONTENT and (not when or any(map(has, when))) and not any(map(has, unless))

    def _publish(self, event: str) -> None:
        kind = EVENTS[event].payload
        payload: Payload | None = None
        # without messages and agents: reading them may be what raised
        if kind in (Failure, RestoreFailed):
            payload = kind(response=self.reply.response)
        elif kind is ParticipantChanged:
            payload = ParticipantChanged()
        if self.session.transport in EVENTS[event].transports:
            self.decision.effects.append(Publish(event=event, data=payload, time=self.now.wall))

    def _perform(self, row: Transition) -> None:
        session = self.session
        # no row of the triggers above has BEGIN, ZERO, SATURATE or KEEP: a step that failed begins and confirms nothing
        for effect in row.effects:
            match effect:
                case Effect.COUNT:
                    session.failures += 1
                case Effect.FINISH:
                    session.prefilters.clear()
                case Effect.FORGET if session.saved is not None:
                    session.order += 1
                    session.saved = None
                    self.decision.effects.append(Forget(order=session.order, session_data=session.session_data))
                case Effect.LEAVE:
                    with suppress(Exception):  # at its end it asks the participants, which may be where the defect is
                        session.leave(self.now.wall)
