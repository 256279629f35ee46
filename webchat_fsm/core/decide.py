"""The one decision function: a session, a step and the time give what changed and what to do."""

from __future__ import annotations

from webchat_fsm.core import defects, link, on_command, on_reply
from webchat_fsm.core.facts import Asked, Closed, Due, Interrupted, Moment, Opened, Replied, Step, Timer
from webchat_fsm.core.session import Mark, Session
from webchat_fsm.core.turn import Turn
from webchat_fsm.lifecycle.commands import By
from webchat_fsm.lifecycle.effects import Decision
from webchat_fsm.lifecycle.table import Flag, State, Trigger

FOREIGN = "the saved session is one of another transport or chat server; it is kept until a chat is started"


def decide(session: Session, step: Step, now: Moment) -> Decision:
    """Take one step. Pure but for the session, which it moves: no I/O, no clock, no code of the user.

    What raises half way is undone, and decided anew as a defect: a failed poll, or a rejected command. An interruption
    is undone too, and raised.
    """
    mark: Mark | None = None
    try:
        mark = session.mark()
        for _ in range(step.reply.repeats if isinstance(step, Replied) else 0):
            session.allowance.take(now.timer)  # each is a request too: the next ones wait for longer
        if isinstance(step, Replied) and step.reply.defect:
            return defects.decide(session, step, now)
        return _decided(session, step, now)
    except Exception as error:  # a defect may raise anything
        return _undone(session, mark, step, now, error)
    except BaseException:  # Ctrl-C under a command or a poll by hand: what the answer brought is read again
        if mark is not None:
            session.back_to(mark)
        raise


def _undone(session: Session, mark: Mark | None, step: Step, now: Moment, error: Exception) -> Decision:
    """Undo what a step has changed, and decide it as a defect; raises the error where that cannot be done either."""
    if mark is not None:
        session.back_to(mark)
    try:
        return defects.decide(session, step, now, error)
    except Exception:
        raise error from None


def _decided(session: Session, step: Step, now: Moment) -> Decision:
    own, by_hand = isinstance(step, Asked) and step.by is By.SERVICE, isinstance(step, Due) and step.by_hand
    turn = Turn(session, now, own=own, by_hand=by_hand)
    match step:
        case Asked():
            on_command.ask(turn, step)
        case Replied():
            _replied(turn, step)
        case Due():
            _due(turn, step)
        case Opened():
            _open(turn, step)
        case Closed():
            _close(turn)
        case Interrupted():
            on_reply.interrupt(turn, step)
    return turn.decision


def _replied(turn: Turn, replied: Replied) -> None:
    """Take an answer in; one of an earlier session only settles its command, truthfully."""
    call, reply = replied.call, replied.reply
    late = call.number != turn.session.number
    if turn.session.transport.polls:
        (on_reply.settle_late if late else on_reply.operate)(turn, call, reply)
    else:
        (link.late if late else link.answer)(turn, call, reply)


_ASKING = frozenset({Timer.POLL, Timer.CONNECT, Timer.TYPING, Timer.USER_DATA})
"""The timers that make requests."""


def _due(turn: Turn, due: Due) -> None:
    session = turn.session
    if due.timer is Timer.TYPING and session.timers.get(due.timer, 0.0) > turn.now.timer:
        return  # the user has typed again since it fell due
    session.timers.pop(due.timer, None)
    if not session.opened:
        return
    brisk = due.timer is Timer.CONNECT and session.link.brisk
    listening = due.timer is Timer.CONNECT and session.link.line  # what is sent over a websocket waits there
    waits = due.timer in _ASKING and not (listening or due.by_hand)
    if waits and (wait := session.allowance.wait(turn.now.timer, brisk=brisk)):
        session.timers[due.timer] = turn.now.timer + wait
        return
    if due.timer is Timer.POLL and not session.poll_out:
        on_command.ask(turn, Asked(command="poll", data={"preview": due.preview}, by=By.SERVICE))
    elif due.timer is Timer.CONNECT:
        link.due(turn)
    elif due.timer is Timer.PREVIEW:
        turn.watch_input()
    elif due.timer is Timer.TYPING and session.state.has_session and Flag.CLIENT_TYPING in session.flags:
        turn.fire(Trigger.TYPING_OVER)
        turn.call("stopTyping", message=due.preview)
    elif due.timer is Timer.USER_DATA and session.state.has_session:
        turn.call("updateData", user_data=dict(session.unsent_user_data))
        session.unsent_user_data = {}


def _open(turn: Turn, opened: Opened) -> None:
    session = turn.session
    if session.opened:
        return
    dormant = session.saved if session.state is State.DORMANT else None
    session.opened, session.saved = True, opened.saved
    if dormant is not None and not session.restorable:
        session.saved = dormant  # the store has lost it meanwhile
    if opened.saved is not None and not session.restorable:
        turn.decision.warning = FOREIGN
    turn.fire(Trigger.OPEN)
    if session.state is State.RESTORING:
        on_command.call_restore(turn)


def _close(turn: Turn) -> None:
    """Close in order: the time of closing is the last contact, from which the time away is counted."""
    session = turn.session
    if not session.opened:
        return
    if session.state.has_session:
        session.last_contact = turn.now.wall
        turn.keep()
    turn.fire(Trigger.CLOSE)
    session.opened = False
    session.timers.clear()
