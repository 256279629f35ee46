"""Whether a state that should poll has stopped polling, which no row of the lifecycle provides for."""

from __future__ import annotations

from webchat_fsm.core.facts import Timer
from webchat_fsm.core.pace import CONNECT_GRACE, LONGEST_PAUSE
from webchat_fsm.core.session import Session
from webchat_fsm.lifecycle.table import POLLING_ON

SLACK = 5.0
"""Seconds that a busy machine may be late."""

AGAIN = (Timer.POLL, Timer.CONNECT)
"""The timers by which a chat goes on."""


def patience(session: Session) -> float:
    """Return the seconds after which a poll is overdue: the deadline of one, and the longest pause before the next.

    `ajaxTimeout` is at least 1 ms, so that no poll is without a deadline. A longer pause, which a server asked for by
    Retry-After, is a timer that is pending: silence counts from that.
    """
    settings = session.settings
    if session.transport.polls:
        return settings.poll_deadline + settings.pace.most + SLACK
    return max(session.link.timeout + CONNECT_GRACE, settings.poll_deadline) + LONGEST_PAUSE + SLACK


def stalled(session: Session, now: float, since: float) -> float | None:
    """Return the seconds without a poll where they are more than `patience`, None where all is well.

    `since` is when the latest of the timers of polling was taken, a moment on their line.
    """
    pushed = session.state.has_session and not session.link.stopped  # else the gateway forbids every request
    wanted = session.state in POLLING_ON if session.transport.polls else pushed
    due = max((session.timers[timer] for timer in AGAIN if timer in session.timers), default=0.0)
    silent = now - max(session.poll_since, since, due)
    return silent if session.opened and wanted and silent > patience(session) else None
