"""The effect of a response: one function for each operation, by the kind of the response.

The response to a poll is handled in on_poll.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from msgspec.structs import replace

from webchat_fsm._core import receipts
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.on_poll import contact, deliver, deliver_page, end_if_over, failure, fault, lost, refresh
from webchat_fsm._core.operations import (
    Disconnect,
    FileLimits,
    History,
    Refresh,
    Restore,
    Resume,
    Send,
    SendFile,
    Start,
)
from webchat_fsm._core.paging import PAGING, Pages, missing_before, resumed_at
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Call, Limits, Reply, ResponseKind
from webchat_fsm._core.timers import Timer
from webchat_fsm._model import FileToSend, Json, Response
from webchat_fsm.lifecycle._events import Restored, Started
from webchat_fsm.lifecycle._legality import CLOSED_MEANWHILE, NO_CHAT_BEGAN, OVER_MEANWHILE
from webchat_fsm.lifecycle._table import Trigger


def operate(context: DecisionContext, call: Call, reply: Reply) -> None:  # noqa: C901 - one case an operation
    """Handle the response to an operation of the session that is open."""
    match call.operation:
        case Start():
            started(context, call, reply)
        case Refresh(preview=preview):
            refresh(context, call, preview, reply)
        case Resume():
            _resume(context, call, reply)
        case Restore():
            _restore(context, call, reply)
        case Disconnect():
            _disconnect(context, call, reply)
        case Send(receipt=receipt):
            # before the session moves: a response that ends the chat drops all pending sends
            receipts.answered(context, receipt, reply)
            _other(context, call, reply)
        # without files it is the command getFileLimits, and where it failed nothing is uploaded
        case FileLimits(files=files) if files and reply.good:
            _limits(context, call, files, reply)
        case SendFile(rest=rest):
            _file(context, call, rest, reply)
        case History():
            _history(context, call, reply)
        case _:
            _other(context, call, reply)


def settle_late(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Settle a command whose session is over; one that was to begin a session is rejected in any case."""
    # the server has begun or resumed a chat that no session here belongs to any more
    if reply.good and call.command and call.command.rule.begins:
        context.reject(CLOSED_MEANWHILE, reply.response)
    else:
        settle(context, call, reply)


def settle(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Settle the command that waited for this response."""
    if reply.good:
        context.resolve(call.command.value(reply) if call.command else reply.response)
    else:
        context.reject(fault(reply), reply.response, reply.error)


def started(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Handle the response to a start: confirmed, refused or failed."""
    session = context.session
    # a good envelope without ids, or of a chat that is over at once, has begun nothing
    if reply.good and reply.session_data is not None and not reply.chat_ended:
        # ids before the transition, whose effect saves the session with them
        context.adopt(reply.session_data)
        session.last_contact = context.now.wall
        context.fire(Trigger.START_CONFIRMED, {"started": Started(session_data=reply.session_data)})
        _send_user_data(context)
        settle(context, call, reply)
        return
    if reply.kind in (ResponseKind.UNAVAILABLE, ResponseKind.REFUSED):
        context.fire(Trigger.START_REFUSED)
    else:
        context.fire(Trigger.START_FAILED, failure(reply))
    context.reject(NO_CHAT_BEGAN if reply.good else fault(reply), reply.response, reply.error)


def _send_user_data(context: DecisionContext) -> None:
    """Send what `updateUserData` was given meanwhile, by a timer that is due at once: a step makes one request."""
    if context.session.unsent_user_data:
        context.session.timers[Timer.USER_DATA] = context.now.timer


def _resume(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Adopt the new token of a resumed chat, and request its messages."""
    session = context.session
    # saved before the next request: the response has a new token, and a restore that fails now is repeated with it
    if reply.good and reply.session_data is not None and session.saved is not None:
        context.save(replace(session.saved, session_data=reply.session_data))
        context.call(Restore(), call.command, reply.session_data)
    else:
        restored(context, call, reply)


def _restore(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Take an answer to a restore; over v3 fetch the pages behind it before anything is published.

    A later page that fails, or says that the chat is over, leaves that to the first poll. One by which the application
    says that the session is lost ends the restore, as the answers before it would have.
    """
    session, first = context.session, context.session.pages is None
    refused = not reply.good or reply.over
    # v2 answers with the whole transcript at once; a loss, or a refusal of the first page, leaves nothing to page
    if (
        session.transport.can.numbered
        or session.saved is None
        or reply.kind is ResponseKind.LOST
        or (first and refused)
    ):
        restored(context, call, reply)
        return
    if session.pages is None:
        # plain v3 restores the chat from its beginning, an asynchronous one what came since the opening before
        whole = not session.transport.asynchronous
        until = context.now.timer + PAGING * session.config.ajax_timeout / 1000
        session.pages = Pages(delivered_up_to=session.saved.last_index, whole=whole, first=reply, until=until)
    session.pages = copy(session.pages)  # a step that raises half way is undone, by what was there before
    before = session.pages.add(reply, context.now.timer)
    if before is None:
        restored(context, call, session.pages.reply)
    else:
        # with the ids of the call: those of the session are adopted only once the restore is confirmed
        context.call(Restore(before=before), call.command, call.session_data)


def restored(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Handle the response to a restore: confirmed with its content, or not."""
    session, saved = context.session, context.session.saved
    trigger = _restore_trigger(reply)
    if trigger in (Trigger.RESTORE_CONFIRMED, Trigger.RESTORE_CONFIRMED_OFFLINE) and saved is not None:
        # the saved ids first, then those of the response, which are newer
        session.resume(saved)
        context.adopt(reply.session_data)
        trusted = trigger is Trigger.RESTORE_CONFIRMED
        # both are read here, as the effect `begin` of the row clears the pages
        missing = _missing(session, reply, saved) if trusted else None
        paged = session.pages is not None and session.pages.fetched > 1
        payload = Restored(is_async=session.transport.asynchronous, missing=missing)

        def catch_up() -> None:
            # as the content of the row, for `begin` would clear what is set before it
            session.delivered_up_to, session.missing, session.catching_up = saved.last_index, missing, True
            if not session.transport.can.numbered:
                session.cursor = resumed_at(saved)  # the content moves it on
            deliver(context, reply, trusted=trusted)

        context.fire(trigger, {"restored": payload}, content=catch_up)
        session.catching_up = not trusted  # restored offline, the first good response still belongs to the restore
        # as after a page of history: the server may have moved its own cursor with each older page
        session.position_uncertain = paged and session.cursor != 1
        _send_user_data(context)
        context.resolve()
    else:
        context.fire(trigger, failure(reply), lost=reply.response if reply.kind is ResponseKind.LOST else None)
        context.reject(fault(reply), reply.response, reply.error)


def _missing(session: Session, reply: Reply, saved: SavedSession) -> int | None:
    """Count what is missing between the opening before and what a good answer brings; None where that is unknown."""
    return session.pages.missing if session.pages else missing_before(reply.received, saved.last_index)


def _restore_trigger(reply: Reply) -> Trigger:
    if reply.over:  # v2 publishes the errors of a chat that it does not know before `restoreTimeout`
        return Trigger.FOUND_ENDED_BADLY if reply.response.errors else Trigger.FOUND_ENDED
    return _RESTORED[reply.kind]


_RESTORED: dict[ResponseKind, Trigger] = {
    ResponseKind.GOOD: Trigger.RESTORE_CONFIRMED,
    ResponseKind.UNAVAILABLE: Trigger.RESTORE_CONFIRMED_OFFLINE,
    ResponseKind.REFUSED: Trigger.RESTORE_MISANSWERED,
    ResponseKind.BAD: Trigger.RESTORE_MISANSWERED,
    ResponseKind.SILENT: Trigger.RESTORE_UNANSWERED,
    ResponseKind.THROTTLED: Trigger.RESTORE_UNANSWERED,  # it says nothing about the session, which stays saved
    ResponseKind.LOST: Trigger.RESTORE_LOST,
    ResponseKind.UNKNOWN_CLIENT: Trigger.RESTORE_MISANSWERED,
}


def _disconnect(context: DecisionContext, call: Call, reply: Reply) -> None:
    # contact before the session is left, which takes its flags along; the chat is over here with any response
    contact(context, reply)
    context.fire(Trigger.LEFT)
    settle(context, call, reply)


def _limits(context: DecisionContext, call: Call, files: tuple[FileToSend, ...], reply: Reply) -> None:
    contact(context, reply)
    context.adopt(reply.session_data)
    end_if_over(context, reply)
    if refused := exceeded(files, reply.limits):
        context.reject(limits_text(refused), refused)
    elif not context.session.state.has_session:
        context.reject(OVER_MEANWHILE, reply.response)
    else:
        context.call(SendFile(file=files[0], rest=files[1:]), call.command)


def _file(context: DecisionContext, call: Call, rest: tuple[FileToSend, ...], reply: Reply) -> None:
    _other(context, call, reply)
    if reply.good and context.session.state.has_session:
        context.activity()
        if rest:
            context.decision.settled = None  # `_other` has resolved the command, which ends with the last file
            context.call(SendFile(file=rest[0], rest=rest[1:]), call.command)
    elif reply.good and rest:  # replaces the resolution by `_other`: some of the files were not sent
        context.reject(OVER_MEANWHILE, reply.response)


def _history(context: DecisionContext, call: Call, reply: Reply) -> None:
    if reply.good:
        deliver_page(context, reply)
        context.session.position_uncertain = True  # the server may have moved its own cursor with the page
    _other(context, call, reply)


def _other(context: DecisionContext, call: Call, reply: Reply) -> None:
    if reply.kind is ResponseKind.LOST:
        lost(context, reply)
    else:
        contact(context, reply)
        if reply.good:
            context.adopt(reply.session_data)
        end_if_over(context, reply)
    settle(context, call, reply)


# -- limits of uploads -------------------------------------------------------------------------------------------------

TOO_MANY, TOO_LARGE, WRONG_TYPE = 201, 202, 203


def exceeded(files: Sequence[FileToSend], limits: Limits | None) -> Response | None:
    """Return an answer shaped like the server's refusal, None where the files may be sent.

    The limits are checked before a byte is read: errors 201, 202 and 203 of the v2 API.
    """
    if limits is None:
        return None
    # all errors at once, so that the user need not try file by file
    errors = [error for file in files for error in _of_one(file, limits)] + _of_all(files, limits)
    return Response(status=400, body={"errors": errors}, errors=errors) if errors else None


def limits_text(refused: Response) -> str:
    """Return which file is refused and what would be allowed, as the reason of a rejection."""
    faults = "; ".join(_EXCEEDED[error["code"], "filename" in error].format_map(error) for error in refused.errors)
    return f"the server's limits do not allow this upload: {faults}"


_EXCEEDED = {
    (WRONG_TYPE, True): "{filename} is of none of the allowed types {advice}",
    (TOO_LARGE, True): "{filename} is larger than the {advice} bytes allowed for a file",
    (TOO_LARGE, False): "together the files are larger than the {advice} bytes allowed for a chat",
    (TOO_MANY, False): "there would be more files than the {advice} allowed for a chat",
}


def _of_one(file: FileToSend, limits: Limits) -> list[Json]:
    errors: list[Json] = []
    # a name without a dot has no extension, and so none that is allowed
    extension = file.name.rpartition(".")[2].lower() if "." in file.name else ""
    if limits.file_types and extension not in limits.file_types:
        errors.append({"code": WRONG_TYPE, "advice": ":".join(limits.file_types), "filename": file.name})
    if limits.max_file_size is not None and file.size > limits.max_file_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_file_size), "filename": file.name})
    return errors


def _of_all(files: Sequence[FileToSend], limits: Limits) -> list[Json]:
    errors: list[Json] = []
    if limits.max_files is not None and limits.used_files + len(files) > limits.max_files:
        errors.append({"code": TOO_MANY, "advice": str(limits.max_files)})
    total = limits.used_total_size + sum(file.size for file in files)
    if limits.max_total_size is not None and total > limits.max_total_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_total_size)})
    return errors
