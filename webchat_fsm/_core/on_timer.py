"""What each timer does when it falls due, and when polling counts as stalled."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from webchat_fsm._core import on_command
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.inputs import Due
from webchat_fsm._core.operations import StopTyping, UpdateData
from webchat_fsm._core.session import Session
from webchat_fsm._core.timers import ASKING_ON, CONNECT_GRACE, Timer
from webchat_fsm.lifecycle._legality import POLL, By
from webchat_fsm.lifecycle._states import POLLING_ON
from webchat_fsm.lifecycle._table import Flag, Trigger


class _TimerRule(Struct, frozen=True):
    """What a timer does when it falls due; one that `requests` waits until the session may make a request by itself."""

    requests: bool
    fire: Callable[[DecisionContext, Due], None]


def due(context: DecisionContext, due: Due) -> None:
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


# -- stalled polling ---------------------------------------------------------------------------------------------------

SLACK = 5.0
"""Seconds that a busy machine may be late."""


def overdue_after(session: Session) -> float:
    """Return the seconds after which a poll is overdue: the deadline of one, and the longest pause before the next.

    `ajaxTimeout` is at least 1 ms, so that no poll is without a deadline. A longer pause, which a server asked for by
    Retry-After, is a timer that is pending: silence counts from that.
    """
    connection, usual = session.connection, session.config.ajax_timeout / 1000
    if connection is None:
        return usual + session.poll_delay.most + SLACK
    # a connect is held for the advised timeout; a command before it may take a whole ajaxTimeout
    return max(connection.timeout + CONNECT_GRACE, usual) + connection.backoff.most + SLACK


def stalled(session: Session, now: float, since: float) -> float | None:
    """Return the seconds without a poll where they are more than `overdue_after`, None where all is well.

    `since` is when the latest of the timers of polling was taken, a moment on their line.
    """
    pushed = session.state.has_session and not session.refused  # else no request may be made, and none is overdue
    # over CometD any open session connects; polling can be stopped by a command
    wanted = session.state in POLLING_ON if session.transport.polls else pushed
    due = max((session.timers[timer] for timer in ASKING_ON if timer in session.timers), default=0.0)
    silent = now - max(session.poll_since, since, due)
    return silent if session.opened and wanted and silent > overdue_after(session) else None
