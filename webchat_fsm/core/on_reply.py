"""What an answer does: one function an operation, by the answer's verdict."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from msgspec.structs import replace

from webchat_fsm.core import content, history, receipts, uploads
from webchat_fsm.core.facts import Interrupted, Reply, Timer, Verdict
from webchat_fsm.core.pace import LEAST_AFTER_FAILURE
from webchat_fsm.core.paging import PAGING, Pages, missing_before, resumed_at
from webchat_fsm.core.session import Session
from webchat_fsm.core.turn import Turn
from webchat_fsm.lifecycle.commands import CLOSED_MEANWHILE, NO_CHAT_BEGAN, OVER_MEANWHILE
from webchat_fsm.lifecycle.effects import Call, SavedSession
from webchat_fsm.lifecycle.events import Failure, Payload, Restored, RestoreFailed, Started
from webchat_fsm.lifecycle.table import Flag, State, Trigger


def operate(turn: Turn, call: Call, reply: Reply) -> None:
    """Take in the answer to an operation of the session that is open."""
    _OPERATIONS.get(call.operation, _other)(turn, call, reply)


def settle_late(turn: Turn, call: Call, reply: Reply) -> None:
    """The outcome of a command whose session is over: the truth, but for a session that was to begin and did not."""
    if reply.good and call.command in ("startChat", "restore"):
        turn.reject(CLOSED_MEANWHILE, reply.response)
    else:
        settle(turn, call, reply)


def settle(turn: Turn, call: Call, reply: Reply) -> None:
    """The outcome of the command that waited for this answer."""
    if reply.good:
        turn.resolve(_VALUES.get(call.command, _response)(call, reply))
    else:
        turn.reject(fault(reply), reply.response, reply.error)


def fault(reply: Reply) -> str:
    """A text for what went wrong: the fault of the network, or what the server said."""
    if reply.error is not None:
        return str(reply.error)
    status = reply.response.status
    kind = "the server refuses" if reply.verdict is Verdict.BAD and 400 <= status < 500 else reply.verdict
    for error in reply.response.errors:
        return f"{kind}: {error.get('advice') or error.get('text') or error.get('code')}"
    # a status without an error of the application's own, as of a proxy, or of a wrong URL
    between = reply.verdict is Verdict.BAD and status >= 300
    hint = ", without an error of the chat server's: check the URL and what is in between" if between else ""
    return f"{kind}: HTTP status {status}{hint}"


def contact(turn: Turn, reply: Reply) -> None:
    """Note whether the request had a complete answer, for disconnected and reconnected."""
    if turn.session.state.has_session:
        silent = reply.verdict is Verdict.SILENT
        turn.fire(Trigger.NO_ANSWER if silent else Trigger.ANSWERED)


def failure(reply: Reply) -> dict[str, Payload]:
    """Return the payloads of the events that publish a bad answer."""
    answered = None if reply.verdict is Verdict.SILENT else reply.response
    return {"error": Failure(response=reply.response), "restoreFailed": RestoreFailed(response=answered)}


def started(turn: Turn, call: Call, reply: Reply) -> None:
    """A start is answered: confirmed, refused or failed."""
    session = turn.session
    if reply.good and reply.session_data is not None and not reply.chat_ended:
        turn.adopt(reply.session_data)
        session.last_contact = turn.now.wall
        turn.fire(Trigger.START_CONFIRMED, {"started": Started(session_data=reply.session_data)})
        _send_user_data(turn)
        settle(turn, call, reply)
        return
    if reply.verdict in (Verdict.UNAVAILABLE, Verdict.REFUSED):
        turn.fire(Trigger.START_REFUSED)
    else:
        turn.fire(Trigger.START_FAILED, failure(reply))
    turn.reject(NO_CHAT_BEGAN if reply.good else fault(reply), reply.response, reply.error)


def _send_user_data(turn: Turn) -> None:
    if turn.session.unsent_user_data:
        turn.session.timers[Timer.USER_DATA] = turn.now.timer


def _refresh(turn: Turn, call: Call, reply: Reply) -> None:
    session = turn.session
    failed = reply.verdict not in _NO_FAILURES
    if session.poll_out not in (0, call.ticket):
        _refresh_late(turn, reply, failed=failed)
        return
    session.poll_out = 0
    session.behind = not reply.good
    if reply.verdict is Verdict.PREVIEW_REFUSED:
        session.preview_limit = len(call.fields["message"])
    POLLED[reply.verdict](turn, reply)
    if session.state in (State.POLLING, State.OFFLINE):
        _schedule(turn, reply, failed=failed)
    if failed:
        turn.reject(fault(reply), reply.response, reply.error)
    else:
        turn.resolve()


def _refresh_late(turn: Turn, reply: Reply, *, failed: bool) -> None:
    """Take the answer to a poll that was given up as stalled, while the next is out: its content, and nothing else."""
    if failed:
        turn.reject(fault(reply), reply.response, reply.error)
    else:
        POLLED[reply.verdict](turn, reply)
        turn.resolve()


_NO_FAILURES = frozenset({Verdict.GOOD, Verdict.THROTTLED, Verdict.PREVIEW_REFUSED})


def _schedule(turn: Turn, reply: Reply, *, failed: bool) -> None:
    session, settings = turn.session, turn.session.settings
    offline = session.state is State.OFFLINE
    if reply.verdict is Verdict.THROTTLED and settings.pace.on_failure:
        wait = session.delay
    else:
        wait, session.delay = settings.pace.next(session.delay, failed=failed, offline=offline)
    wait *= 1 - settings.poll_jitter * turn.now.draw
    if not reply.good:
        wait = max(wait, LEAST_AFTER_FAILURE)
    if reply.retry_after is not None:
        wait = max(wait, min(reply.retry_after, settings.retry_after_cap))
    turn.poll_soon(wait)


def _poll_good(turn: Turn, reply: Reply) -> None:
    session = turn.session
    turn.adopt(reply.session_data)
    session.last_contact = turn.now.wall
    if session.catching_up:
        session.missing = missing_before(reply.arrivals, session.reach)
    turn.fire(Trigger.POLL_ANSWERED, content=lambda: _take(turn, reply))
    session.catching_up = False
    _end_if_over(turn, reply)


def take_content(turn: Turn, reply: Reply) -> None:
    """Take the content of a good push that says nothing about the connection."""
    turn.adopt(reply.session_data)
    turn.fire(Trigger.CONTENT_CAME, content=lambda: _take(turn, reply))
    _end_if_over(turn, reply)


def _take(turn: Turn, reply: Reply, *, trusted: bool = True) -> None:
    content.take(
        turn,
        reply.arrivals,
        trusted=trusted,
        next_position=reply.next_position,
        idle_time_count_down=reply.idle_time_count_down,
    )


def _end_if_over(turn: Turn, reply: Reply) -> None:
    if reply.over and turn.session.state.has_session:
        turn.fire(Trigger.CHAT_ENDED)


def _poll_unavailable(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.ANSWERED)
    turn.fire(Trigger.POLL_FAILED)
    turn.fire(Trigger.CONTENT_CAME, content=lambda: _take(turn, reply, trusted=False))


def _poll_refused(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.ANSWERED)
    turn.fire(Trigger.MISANSWERED, failure(reply))
    if reply.chat_ended:
        turn.fire(Trigger.CONTENT_CAME, content=lambda: _take(turn, reply, trusted=False))
        turn.fire(Trigger.CHAT_ENDED)
    elif turn.session.transport.polls:  # a push of this kind refuses something that the user has asked for
        turn.fire(Trigger.POLL_FAILED)


def _poll_bad(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.ANSWERED)
    turn.fire(Trigger.MISANSWERED, failure(reply))
    turn.fire(Trigger.POLL_FAILED)


def _poll_silent(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.NO_ANSWER)
    turn.fire(Trigger.POLL_FAILED)


def _poll_put_off(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.ANSWERED)


def _lost(turn: Turn, reply: Reply) -> None:
    turn.fire(Trigger.SESSION_LOST, failure(reply), lost=reply.response)


POLLED: dict[Verdict, Callable[[Turn, Reply], None]] = {
    Verdict.GOOD: _poll_good,
    Verdict.UNAVAILABLE: _poll_unavailable,
    Verdict.REFUSED: _poll_refused,
    Verdict.BAD: _poll_bad,
    Verdict.SILENT: _poll_silent,
    Verdict.THROTTLED: _poll_put_off,
    Verdict.PREVIEW_REFUSED: _poll_put_off,
    Verdict.LOST: _lost,
    Verdict.UNKNOWN_CLIENT: _poll_bad,
}
"""What the answer to a poll does, by its verdict; a push is taken as one."""


def _resume(turn: Turn, call: Call, reply: Reply) -> None:
    """The server has taken the kept token and given a new one; the messages come with the next request."""
    session = turn.session
    if reply.good and reply.session_data is not None and session.saved is not None:
        turn.keep(replace(session.saved, session_data=reply.session_data))
        turn.call("restore", call.command, reply.session_data)
    else:
        restored(turn, call, reply)


def _restore(turn: Turn, call: Call, reply: Reply) -> None:
    """Take an answer to a restore; over v3 fetch the pages behind it before anything is published.

    A later page that fails, or says that the chat is over, leaves that to the first poll. One by which the application
    says that the session is lost ends the restore, as the answers before it would have.
    """
    session, first = turn.session, turn.session.pages is None
    refused = not reply.good or reply.over
    if session.transport.gms or session.saved is None or reply.verdict is Verdict.LOST or (first and refused):
        restored(turn, call, reply)
        return
    if session.pages is None:
        whole = not session.transport.asynchronous
        until = turn.now.timer + PAGING * session.settings.poll_deadline
        session.pages = Pages(reach=session.saved.last_index, whole=whole, first=reply, until=until)
    session.pages = copy(session.pages)  # a step that raises half way is undone, by what was there before
    before = session.pages.take(reply, turn.now.timer)
    if before is None:
        restored(turn, call, session.pages.reply)
    else:
        turn.call("restore", call.command, call.session_data, before=before)


def restored(turn: Turn, call: Call, reply: Reply) -> None:
    """A restore is answered: confirmed with its content, or not."""
    session, saved = turn.session, turn.session.saved
    trigger = _restore_trigger(reply)
    if trigger in (Trigger.RESTORE_CONFIRMED, Trigger.RESTORE_CONFIRMED_OFFLINE) and saved is not None:
        session.take_up(saved)
        turn.adopt(reply.session_data)
        trusted = trigger is Trigger.RESTORE_CONFIRMED
        missing = _missing(session, reply, saved) if trusted else None
        paged = session.pages is not None and session.pages.fetched > 1
        payload = Restored(is_async=session.transport.asynchronous, missing=missing)

        def catch_up() -> None:
            session.reach, session.missing, session.catching_up = saved.last_index, missing, True
            if not session.transport.gms:
                session.cursor = resumed_at(saved)  # the content moves it on
            _take(turn, reply, trusted=trusted)

        turn.fire(trigger, {"restored": payload}, content=catch_up)
        session.catching_up = not trusted
        session.behind = paged and session.cursor != 1  # as after a page of history
        _send_user_data(turn)
        turn.resolve()
    else:
        turn.fire(trigger, failure(reply), lost=reply.response if reply.verdict is Verdict.LOST else None)
        turn.reject(fault(reply), reply.response, reply.error)


def _missing(session: Session, reply: Reply, saved: SavedSession) -> int | None:
    """Count what is missing between the opening before and what a good answer brings; None where that is unknown."""
    return session.pages.missing if session.pages else missing_before(reply.arrivals, saved.last_index)


def _restore_trigger(reply: Reply) -> Trigger:
    if reply.over:
        return Trigger.FOUND_ENDED_BADLY if reply.response.errors else Trigger.FOUND_ENDED
    return _RESTORED[reply.verdict]


_RESTORED: dict[Verdict, Trigger] = {
    Verdict.GOOD: Trigger.RESTORE_CONFIRMED,
    Verdict.UNAVAILABLE: Trigger.RESTORE_CONFIRMED_OFFLINE,
    Verdict.REFUSED: Trigger.RESTORE_MISANSWERED,
    Verdict.BAD: Trigger.RESTORE_MISANSWERED,
    Verdict.SILENT: Trigger.RESTORE_UNANSWERED,
    Verdict.THROTTLED: Trigger.RESTORE_UNANSWERED,
    Verdict.LOST: Trigger.RESTORE_LOST,
    Verdict.UNKNOWN_CLIENT: Trigger.RESTORE_MISANSWERED,
}


def _disconnect(turn: Turn, call: Call, reply: Reply) -> None:
    contact(turn, reply)
    turn.fire(Trigger.LEFT)
    settle(turn, call, reply)


def _limits(turn: Turn, call: Call, reply: Reply) -> None:
    files = call.fields.get("files")
    if not (reply.good and files):
        _other(turn, call, reply)
        return
    contact(turn, reply)
    turn.adopt(reply.session_data)
    _end_if_over(turn, reply)
    if refused := uploads.refuse(files, reply.limits):
        turn.reject(uploads.told(refused), refused)
    elif not turn.session.state.has_session:
        turn.reject(OVER_MEANWHILE, reply.response)
    else:
        turn.call("file", "sendFile", file=files[0], rest=files[1:])


def _file(turn: Turn, call: Call, reply: Reply) -> None:
    _other(turn, call, reply)
    rest = call.fields["rest"]
    if reply.good and turn.session.state.has_session:
        turn.activity()
        if rest:
            turn.decision.settled = None
            turn.call("file", "sendFile", file=rest[0], rest=rest[1:])
    elif reply.good and rest:
        turn.reject(OVER_MEANWHILE, reply.response)


def _sent(turn: Turn, call: Call, reply: Reply) -> None:
    receipts.answered(turn, call.fields["receipt"], reply)
    _other(turn, call, reply)


def _history(turn: Turn, call: Call, reply: Reply) -> None:
    if reply.good:
        history.take(turn, reply.arrivals)
        turn.session.behind = True  # the server may have moved its own cursor with the page
    _other(turn, call, reply)


def _other(turn: Turn, call: Call, reply: Reply) -> None:
    if reply.verdict is Verdict.LOST:
        _lost(turn, reply)
    else:
        contact(turn, reply)
        if reply.good:
            turn.adopt(reply.session_data)
        _end_if_over(turn, reply)
    settle(turn, call, reply)


_OPERATIONS: dict[str, Callable[[Turn, Call, Reply], None]] = {
    "start": started,
    "refresh": _refresh,
    "resume": _resume,
    "restore": _restore,
    "disconnect": _disconnect,
    "send": _sent,
    "limits": _limits,
    "file": _file,
    "history": _history,
}


def _response(call: Call, reply: Reply) -> object:
    return reply.response


def _nothing(call: Call, reply: Reply) -> None:
    return None


def _value(call: Call, reply: Reply) -> object:
    return reply.value


_VALUES: dict[str, Callable[[Call, Reply], object]] = {
    "sendFilteredMessage": _nothing,
    "restore": _nothing,
    "downloadFile": _value,
    "fetch": _value,
}


def interrupt(turn: Turn, interrupted: Interrupted) -> None:
    """The caller was interrupted: what it waited for goes on without it, or is given up."""
    call, session = interrupted.call, turn.session
    if call.number != session.number:
        return
    receipts.unanswered(turn, call.fields.get("receipt", 0))
    if session.state in (State.STARTING, State.RESTORING):
        turn.fire(Trigger.INTERRUPTED)
    elif not session.state.has_session:
        session.flags -= {Flag.ENDING}
    elif Flag.ENDING in session.flags and "disconnect" in (call.operation, call.fields.get("then")):
        turn.fire(Trigger.LEFT)
    else:
        if call.ticket == session.poll_out:
            session.poll_out = 0
            session.behind = True
        if not (session.poll_out or _AGAIN & session.timers.keys()):
            _go_on(turn)


_AGAIN = frozenset({Timer.POLL, Timer.CONNECT})
"""The timers by which a chat goes on."""


def _go_on(turn: Turn) -> None:
    session = turn.session
    if not session.transport.polls:
        session.link.miss(session.cursor)
        session.timers[Timer.CONNECT] = turn.now.timer + session.link.interval
    elif session.state in (State.POLLING, State.OFFLINE):
        turn.poll_soon(session.delay)
