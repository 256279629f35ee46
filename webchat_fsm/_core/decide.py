"""The decision function: a session, a step and the time give the transitions, side effects and the next request.

Due timers, opening, closing and interruptions are decided here, commands and responses in modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._core import defects, on_command, on_reply, receipts
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.operations import Send, StopTyping, UpdateData
from webchat_fsm._core.session import Mark, Session
from webchat_fsm._core.steps import Asked, Closed, Decision, Due, Interrupted, Moment, Opened, Replied, Step
from webchat_fsm._core.timers import ASKING_ON, Timer
from webchat_fsm.lifecycle._legality import POLL, By
from webchat_fsm.lifecycle._table import Flag, State, Trigger

FOREIGN = "the saved session is one of another transport or chat server; it is kept until a chat is started"


def decide(session: Session, step: Step, now: Moment) -> Decision:
    """Decide one step and move the session; pure otherwise: no I/O, no clock, no code of the user.

    A step that raises is undone and decided again as a defect: a failed poll, or a rejected command. An interruption is
    undone too, and raised again.
    """
    mark: Mark | None = None
    try:
        mark = session.mark()  # inside of `try`, as Ctrl-C may strike in here too; then nothing has changed yet
        for _ in range(step.reply.repeats if isinstance(step, Replied) else 0):
            session.allowance.take(now.timer)  # a repetition is a request too, and counts against the rate limit
        # the reply says nothing that can be trusted, so that no function of its operation may see it
        if isinstance(step, Replied) and step.reply.defect:
            return defects.decide(session, step, now)
        return _decided(session, step, now)
    except Exception as error:  # a defect may raise anything
        return _undone(session, mark, step, now, error)
    except BaseException:  # Ctrl-C: undone, so that a later poll reads again what the response brought
        if mark is not None:
            session.back_to(mark)
        raise


def _undone(session: Session, mark: Mark | None, step: Step, now: Moment, error: Exception) -> Decision:
    """Undo what a step has changed, and decide it as a defect; raises the error where that cannot be done either."""
    if mark is not None:
        session.back_to(mark)
    try:
        return defects.decide(session, step, now, error)
    except Exception:  # the first error is the cause; the second one would only hide it
        raise error from None


def _decided(session: Session, step: Step, now: Moment) -> Decision:
    own, by_hand = isinstance(step, Asked) and step.by is By.SERVICE, isinstance(step, Due) and step.by_hand
    context = DecisionContext(session, now, own=own, by_hand=by_hand)
    match step:
        case Asked():
            on_command.ask(context, step)
        case Replied():
            _replied(context, step)
        case Due():
            _due(context, step)
        case Opened():
            _open(context, step)
        case Closed():
            _close(context)
        case Interrupted():
            _interrupt(context, step)
    return context.decision


def _replied(context: DecisionContext, replied: Replied) -> None:
    """Handle a response; one of an earlier session only settles its command."""
    call, reply = replied.call, replied.reply
    # the session has ended meanwhile, by another thread or by close(): its response must not touch the next one
    late = call.number != context.session.number
    if (pushed := context.pushed) is not None:
        (pushed.settle_late if late else pushed.answer)(call, reply)
    else:
        (on_reply.settle_late if late else on_reply.operate)(context, call, reply)


def _open(context: DecisionContext, opened: Opened) -> None:
    session = context.session
    if session.opened:  # open() is idempotent
        return
    # a dormant chat is known here already, and the store may have been emptied since
    dormant = session.saved if session.state is State.DORMANT else None
    session.opened, session.saved = True, opened.saved
    if dormant is not None and not session.restorable:
        session.saved = dormant  # the store has lost it meanwhile
    if opened.saved is not None and not session.restorable:
        context.decision.warning = FOREIGN
    context.fire(Trigger.OPEN)
    if session.state is State.RESTORING:  # else nothing restorable is saved
        on_command.call_restore(context)


def _close(context: DecisionContext) -> None:
    """Close the session; the time of closing is its last contact, from which `restoreTimeout` is counted."""
    session = context.session
    if not session.opened:
        return
    if session.state.has_session:
        session.last_contact = context.now.wall
        context.save(replace(session.document(), closed=True))
    context.fire(Trigger.CLOSE)
    session.opened = False


def _interrupt(context: DecisionContext, interrupted: Interrupted) -> None:
    """Handle the interruption of a caller: the session goes on, or the start or restore of the caller is abandoned."""
    call, session = interrupted.call, context.session
    if call.number != session.number:
        return
    # before anything else: a send that was interrupted may have arrived
    receipts.unanswered(context, call.operation.receipt if isinstance(call.operation, Send) else 0)
    if not session.state.has_session:
        context.fire(Trigger.INTERRUPTED)
    # the request may have arrived, so that the chat is over here
    elif Flag.ENDING in session.flags and call.leaves:
        context.fire(Trigger.LEFT)
    else:
        if call.ticket == session.poll_ticket:
            session.poll_ticket = 0  # else no poll would be made any more, as one at a time may be in flight
            session.position_uncertain = True  # the server may have moved its cursor on with the response that is lost
        # another request was interrupted, and the chat has its poll or its timer still
        if not (session.poll_ticket or ASKING_ON & session.timers.keys()):
            _go_on(context)


def _go_on(context: DecisionContext) -> None:
    """Set the timer that the response to the interrupted request would have set."""
    session = context.session
    if not session.transport.polls:
        session.connect_again(context.now.timer)
    elif session.state in (State.POLLING, State.OFFLINE):
        context.poll_soon(session.delay)


# -- due timers --------------------------------------------------------------------------------------------------------


class _TimerRule(Struct, frozen=True):
    """What a timer does when it falls due; one that `requests` waits until the session may make a request by itself."""

    requests: bool
    fire: Callable[[DecisionContext, Due], None]


def _due(context: DecisionContext, due: Due) -> None:
    """Carry out a timer that fell due; one whose request is not allowed yet is set again."""
    session, rule = context.session, _TIMERS[due.timer]
    if due.timer is Timer.TYPING and session.timers.get(due.timer, 0.0) > context.now.timer:
        return  # the user has typed again since it fell due
    # the driver has removed it already; a step by hand has not
    session.timers.pop(due.timer, None)
    # close() may have come between the moment at which the driver took the timer and this step
    if not session.opened:
        return
    # a request that the rate limit does not allow yet is put off, never dropped: a poll that is lost ends the polling
    if rule.requests and not due.by_hand and (wait := _wait(context, due.timer)):
        session.timers[due.timer] = context.now.timer + wait
        return
    rule.fire(context, due)


def _wait(context: DecisionContext, timer: Timer) -> float:
    """Return the seconds until the session may make the request of a timer; 0.0 where it may now."""
    connection = context.session.connection if timer is Timer.CONNECT else None
    if connection is not None and connection.line:  # pushes are read at once; the message behind them is delayed there
        return 0.0
    return context.session.allowance.wait(context.now.timer, fast=connection is not None and connection.fast)


def _poll(context: DecisionContext, due: Due) -> None:
    if context.session.poll_ticket:  # its response sets the next timer
        return
    # the chat may have ended since the timer was set; the table is asked, as for any other command
    if text := on_command.refusal(context.session, POLL, {}, By.SERVICE):
        context.reject(text)
    else:
        on_command.poll(context, {"preview": due.preview})


def _connect(context: DecisionContext, due: Due) -> None:
    if (pushed := context.pushed) is not None:  # as where this timer is set
        pushed.due()


def _check_input(context: DecisionContext, due: Due) -> None:
    context.watch_input()


def _stop_typing(context: DecisionContext, due: Due) -> None:
    session = context.session
    # a message that was sent meanwhile has ended the typing
    if session.state.has_session and Flag.CLIENT_TYPING in session.flags:
        context.fire(Trigger.TYPING_OVER)
        context.call(StopTyping(preview=due.preview, position=session.cursor))


def _send_user_data(context: DecisionContext, due: Due) -> None:
    session = context.session
    if session.state.has_session:
        context.call(UpdateData(user_data=dict(session.unsent_user_data)))
        session.unsent_user_data = {}  # requested once, also where it fails, as by `updateUserData`


_TIMERS: dict[Timer, _TimerRule] = {
    Timer.POLL: _TimerRule(requests=True, fire=_poll),
    Timer.CONNECT: _TimerRule(requests=True, fire=_connect),
    Timer.TYPING: _TimerRule(requests=True, fire=_stop_typing),
    Timer.USER_DATA: _TimerRule(requests=True, fire=_send_user_data),
    Timer.PREVIEW: _TimerRule(requests=False, fire=_check_input),
}
