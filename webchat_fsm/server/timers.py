"""The timers that a chat runs by itself: liveness and inactivity. Off unless the options name them."""

from __future__ import annotations

import math
from typing import NamedTuple

from webchat_fsm.server.chat import Chat
from webchat_fsm.server.options import ServerOptions


class IdleStage(NamedTuple):
    """One step of inactivity control: so many quiet seconds after the step before, this event."""

    after: float
    type: str
    text: str
    user_data_name: str


def idle_stages(options: ServerOptions) -> list[IdleStage]:
    """The steps that are switched on, in order."""
    steps = (
        (options.idle_alert, "IdleAlert", options.idle_alert_text, "ALERT"),
        (options.idle_alert_again, "IdleAlert", options.idle_alert_text, "ALERT"),
        (options.idle_close, "IdleClose", options.idle_close_text, "CLOSE"),
    )
    return [IdleStage(after, *rest) for after, *rest in steps if after is not None]


def next_due(chat: Chat, options: ServerOptions) -> float | None:
    """The moment at which this chat will act by itself, if nothing happens before."""
    if chat.ended:
        return None
    moments = [moment for moment in (_liveness_due(chat, options), _idle_due(chat, options)) if moment is not None]
    return min(moments, default=None)


def next_look(chat: Chat, options: ServerOptions, now: float) -> float | None:
    """The moment before which nothing can fall due, whatever happens meanwhile."""
    due = next_due(chat, options)
    if due is None or not chat.idle_stage:
        return due
    return min(due, now + idle_stages(options)[0].after)


def run_due(chat: Chat, options: ServerOptions, now: float) -> None:
    """Do what has fallen due in this chat."""
    dead_at = _liveness_due(chat, options)
    if dead_at is not None and dead_at <= now:
        chat.leave(now)
        chat.sealed = True
        return
    idle_at = _idle_due(chat, options)
    if idle_at is not None and idle_at <= now:
        _run_idle_stage(chat, idle_stages(options), now)


def idle_seconds_left(chat: Chat, options: ServerOptions, now: float) -> int | None:
    """Whole seconds until IdleClose, once the client was alerted; what the envelope calls `idleTimerExpire`."""
    due = _idle_due(chat, options)
    if chat.ended or due is None or not chat.idle_stage or idle_stages(options)[chat.idle_stage].type != "IdleClose":
        return None
    return max(0, math.ceil(due - now))


def _liveness_due(chat: Chat, options: ServerOptions) -> float | None:
    return None if options.liveness is None else chat.last_request + options.liveness


def _idle_due(chat: Chat, options: ServerOptions) -> float | None:
    stages = idle_stages(options)
    return chat.idle_since + stages[chat.idle_stage].after if chat.idle_stage < len(stages) else None


def _run_idle_stage(chat: Chat, stages: list[IdleStage], now: float) -> None:
    stage = stages[chat.idle_stage]
    chat.idle_stage, chat.idle_since = chat.idle_stage + 1, now
    following = stages[chat.idle_stage] if chat.idle_stage < len(stages) else None
    announced = (
        {"next-idle-timer-type": following.user_data_name, "next-idle-timer-secs": f"{following.after:g}"}
        if following
        else {}
    )
    chat.announce(stage.type, now, text=stage.text, user_data=announced)
    if stage.type == "IdleClose":
        chat.end(now)
