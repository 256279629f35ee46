"""What a command does once nothing refuses it: one function a command, in the reference's order."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from webchat_fsm._core import receipts
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.operations import (
    CustomNotice,
    Disconnect,
    Download,
    Fetch,
    FileLimits,
    History,
    Refresh,
    Restore,
    Resume,
    Send,
    SendFile,
    Start,
    StartTyping,
    UpdateData,
)
from webchat_fsm._core.saved_session import patterns_in
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Asked
from webchat_fsm._core.timers import TYPING_COUNTDOWN, Timer
from webchat_fsm._model import Agents, FileToSend, Json, Stats, scalars
from webchat_fsm.lifecycle import _legality as texts
from webchat_fsm.lifecycle._legality import By, Rule, judged_state
from webchat_fsm.lifecycle._table import Flag, State, Trigger


def ask(context: DecisionContext, asked: Asked) -> None:
    """Refuse a command by the table, or carry it out as far as its first request."""
    command = asked.command
    if text := refusal(context.session, command.rule, asked.data, asked.by):
        context.reject(text)
    else:
        context.command = command
        command.action(context, asked.data)


def refusal(session: Session, rule: Rule, data: Json, by: By = By.USER) -> str:
    """Return the text with which the table refuses a command now, empty where it is legal."""
    if not session.opened and not rule.any_time:
        return texts.NOT_READY
    if rule.text_first and not _has_text(data):
        return texts.NO_TEXT
    return rule.refuse(judged_state(rule, session.state, session.flags), session.transport, by)


def _has_text(data: Json) -> bool:
    message = data.get("message")  # a user may have given anything, also nothing
    return isinstance(message, str) and bool(message.strip())


def configure(context: DecisionContext, data: Json) -> None:
    """Resolve; the reference has this command for its own widgets, so that every user is refused before."""
    context.resolve()


def start_chat(context: DecisionContext, data: Json) -> None:
    """Begin a chat with the fields of `form`; `userData` takes precedence over data given before."""
    form, given = data["form"], data["userData"]
    if given is not None and not isinstance(given, Mapping):
        context.reject(texts.MALFORMED_USER_DATA)
        return
    session = context.session
    context.fire(Trigger.START)
    session.nickname = str(form.get("nickname") or form.get("firstname") or "")
    start = Start(form=form, user_data={**session.user_data, **(given or {})})
    if (pushed := context.pushed) is not None:
        pushed.start(start)
    else:
        context.call(start, context.command)


def end_chat(context: DecisionContext, data: Json) -> None:
    """Leave the chat; the request for a dormant one carries the saved session data."""
    dormant = context.session.saved if context.session.state is State.DORMANT else None
    # polling stops and the flag is set before the request: a poll in flight is not followed by another
    context.fire(Trigger.END)
    if context.session.refused:  # no request may be made, so the chat ends here alone
        context.fire(Trigger.LEFT)
        context.resolve()
        return
    context.call(Disconnect(), context.command, dormant.session_data if dormant else None)


def send_message(context: DecisionContext, data: Json) -> None:
    """Send a text of at most `maxMessageLength` characters; the answer of the server resolves the command."""
    if not _too_long(context, data["message"]):
        _send(context, data)


def send_filtered_message(context: DecisionContext, data: Json) -> None:
    """Send a message that its own filters hide from the transcript."""
    filters = patterns_in(data.get("regex"))
    if filters is None:
        context.reject(texts.BAD_FILTERS)
        return
    if not _too_long(context, data["message"]):
        # saved before the request: the message may arrive, and a restored session has to hide it as well
        context.session.prefilters.add(filters)
        context.save()
        _send(context, data)


def _too_long(context: DecisionContext, message: str) -> bool:
    limit = context.session.config.max_message_length
    if too_long := bool(limit) and len(message) > limit:
        context.reject(texts.TOO_LONG.format(limit=limit))
    return too_long


def _send(context: DecisionContext, data: Json) -> None:
    if Flag.CLIENT_TYPING in context.session.flags:  # the message itself ends the typing; no stopTyping is requested
        context.session.timers.pop(Timer.TYPING, None)
        context.fire(Trigger.TYPING_OVER)
    context.activity()
    # as it travels: a receipt is matched with the text that the server has received
    message = scalars(data["message"])
    ticket = context.session.tickets + 1  # carried along, as over CometD a send may be made again by another call
    kind, parent = data.get("type") or "", data.get("parentMessageID") or ""
    context.call(Send(message=message, message_type=kind, parent_message_id=parent, receipt=ticket), context.command)
    receipts.sent(context, ticket, message)


def send_custom_notice(context: DecisionContext, data: Json) -> None:
    """Send a notice: text, type and event attributes of the application's own (v2)."""
    notice = CustomNotice(
        message=str(data.get("message") or ""),
        event_attributes=data.get("eventAttributes"),
        message_type=data.get("messageType") or "",
    )
    context.call(notice, context.command)


def send_typing(context: DecisionContext, data: Json) -> None:
    """Report typing, once for each burst of it."""
    session = context.session
    burst = Flag.CLIENT_TYPING in session.flags
    context.fire(Trigger.TYPE)
    session.timers[Timer.TYPING] = context.now.timer + TYPING_COUNTDOWN
    if burst:  # the server knows by now; only the countdown starts again
        context.resolve()
        return
    preview = str(data.get("message") or data.get("Message") or "")  # as callers of the bus spell it
    context.call(StartTyping(preview=preview, position=session.cursor), context.command)


def add_prefilter(context: DecisionContext, data: Json) -> None:
    """Hide messages whose text matches, from now on; resolves with all filters of the user."""
    filters = patterns_in(data.get("filters"))
    if filters is None:
        context.reject(texts.BAD_FILTERS)
        return
    context.session.prefilters.add(filters)
    if context.session.state.has_session:
        context.save()
    context.resolve(list(context.session.prefilters.custom))


def update_user_data(context: DecisionContext, data: Json) -> None:
    """Send user data, or keep them for a session that is not confirmed yet."""
    session = context.session
    # kept in any state: a chat that begins later is given them by its start
    session.user_data = {**session.user_data, **data}
    if session.state.has_session and Flag.ENDING not in session.flags:
        context.call(UpdateData(user_data=dict(data)), context.command)
        return
    # the request that begins the chat is on its way without them: they are sent once it has an answer
    if session.state in (State.STARTING, State.RESTORING):
        session.unsent_user_data = {**session.unsent_user_data, **data}
    context.resolve(dict(session.user_data))


def poll(context: DecisionContext, data: Json) -> None:
    """Ask for the messages from the cursor on; one poll at a time."""
    session = context.session
    # the reference's own rule: two in flight would ask for the same messages
    if session.poll_ticket:
        context.reject(texts.POLL_IN_FLIGHT)
        return
    session.timers.pop(Timer.POLL, None)  # made in place of the poll that is due; its response sets the timer again
    preview = str(data.get("preview") or "")
    if len(preview) >= session.preview_limit:
        preview = ""  # the server refused one of that length, and the poll with it
    call = context.call(Refresh(position=session.cursor, preview=preview, catch_up=session.position_uncertain))
    session.poll_ticket, session.poll_since = call.ticket, context.now.timer


def start_poll(context: DecisionContext, data: Json) -> None:
    """Turn automatic polling on, at the shortest delay."""
    context.session.delay = context.session.poll_delay.least
    context.fire(Trigger.START_POLL)
    context.resolve()


def stop_poll(context: DecisionContext, data: Json) -> None:
    """Turn automatic polling off; a poll in flight is still delivered."""
    context.session.position_uncertain = True  # polling goes on by position, however late
    context.fire(Trigger.STOP_POLL)
    context.resolve()


def reset_poll_exceptions(context: DecisionContext, data: Json) -> None:
    """Set the count of failed polls to 0; an outage goes on."""
    context.session.failures = 0
    context.resolve()


def restore(context: DecisionContext, data: Json) -> None:
    """Restore the session that is given, or the one that is saved."""
    if trouble := data.get("trouble"):
        context.reject(trouble)
        return
    if given := data.get("saved"):
        context.session.saved = given
    if not context.session.restorable:
        context.reject(texts.NOTHING_SAVED)
        return
    context.fire(Trigger.RESTORE)
    call_restore(context)


def call_restore(context: DecisionContext) -> None:
    """Ask the server for the saved session, unless it is too old to be asked for."""
    session, saved = context.session, context.session.saved
    assert saved is not None  # the guard of the row, or `restorable`, has found it
    if session.too_old(context.now):
        context.fire(Trigger.SAVED_TOO_OLD)
        context.reject(texts.NOTHING_SAVED)
        return
    if (pushed := context.pushed) is not None:
        pushed.restore(saved.session_data)
        return
    # the token of an asynchronous chat may have expired: `resume` renews it before the transcript is asked for
    operation = Resume(user_data=saved.user_data) if session.transport.asynchronous else Restore()
    context.call(operation, context.command, saved.session_data)


def get_transcript(context: DecisionContext, data: Json) -> None:
    """Resolve with the messages of the transcript, or those behind the index `since`."""
    session = context.session
    # the transcript does not know what it lacks: a restore has counted that for the session
    context.resolve(session.transcript.read(data.get("since"), missing=session.missing))


def get_agents(context: DecisionContext, data: Json) -> None:
    """Resolve with the agents and supervisors of this chat, those who have left too."""
    context.resolve(Agents(context.session.participants.agents))


def get_stats(context: DecisionContext, data: Json) -> None:
    """Resolve with start, end and duration in milliseconds, by the first and the last message."""
    stats = context.session.transcript.stats()
    context.resolve(
        Stats(
            agents=context.session.participants.agents,
            start_time=stats.start_time,
            end_time=stats.end_time,
            duration=stats.duration,
        )
    )


def get_session_data(context: DecisionContext, data: Json) -> None:
    """Resolve with the ids of the session, empty ones where there is none."""
    context.resolve(context.session.session_data)


def send_file(context: DecisionContext, data: Json) -> None:
    """Upload files one by one; over v2 the limits of the server are requested first."""
    files: tuple[FileToSend, ...] = tuple(data.get("files") or ())
    if not files:
        context.reject(data.get("trouble") or texts.NO_FILES)
        return
    # v2 names its limits, so that a file beyond them is rejected before a byte of it is read; v3 answers the upload
    if context.session.transport.can.upload_limits:
        context.call(FileLimits(files=files), context.command)
        return
    context.call(SendFile(file=files[0], rest=files[1:]), context.command)


def get_file_limits(context: DecisionContext, data: Json) -> None:
    """Request the limits of uploads (no command of the reference)."""
    context.call(FileLimits(), context.command)


def download_file(context: DecisionContext, data: Json) -> None:
    """Download a file of the chat by `fileId`."""
    file_id = str(data.get("fileId") or data.get("field") or "")
    if not file_id:
        context.reject(texts.NO_FILE_ID)
        return
    context.call(Download(file_id=file_id), context.command)


def verify_session(context: DecisionContext, data: Json) -> None:
    """Resolve with whether a session is open, or saved and young enough to restore."""
    session = context.session
    if session.state in (State.IDLE, State.ENDED) and session.restorable:
        if session.too_old(context.now):
            context.fire(Trigger.SAVED_TOO_OLD)
        context.resolve(session.saved is not None)  # after the row, which may just have deleted it
        return
    # a chat that is being left is none any more, as for every other command
    open_here = session.state.has_session and Flag.ENDING not in session.flags
    context.resolve(open_here or session.state in (State.STARTING, State.DORMANT, State.RESTORING))


def register_typing_preview_input(context: DecisionContext, data: Json) -> None:
    """Read an input regularly for the typing preview; `fits` says that it has a text to read."""
    if data["fits"]:
        context.session.watches_input = True
        context.watch_input()
        context.resolve()
    else:
        context.reject(texts.BAD_INPUT)


def register_pre_processor(context: DecisionContext, data: Json) -> None:
    """Accept a function that changes messages before they are published."""
    given = data.get("preprocessor")
    if not callable(given):
        context.reject(texts.NO_PREPROCESSOR.format(type=type(given).__name__))
        return
    context.resolve(given)


def fetch_history(context: DecisionContext, data: Json) -> None:
    """Request the page of messages before the oldest one known (v3-async)."""
    # no message at all: a page ends with an index, and there is none to name before the first poll
    oldest = context.session.transcript.lowest
    if context.session.history_done or oldest is None:
        context.reject(texts.NO_MORE_HISTORY)
        return
    context.call(History(before=oldest), context.command)


def fetch(context: DecisionContext, data: Json) -> None:
    """Download from an address of the chat server itself (v3; no command of the reference)."""
    url = str(data.get("url") or "")
    # the request carries the session's token, which no other host may see
    if _is_own(url, context.session.config.address):
        context.call(Fetch(url=url), context.command)
    else:
        context.reject(texts.FOREIGN_CONTENT)


def _is_own(url: str, address: str) -> bool:
    """Return whether a URL leads to the chat server; one that can be read in two ways does not."""
    # parsers differ on backslashes, blanks and control characters, so that the request could reach another host
    if not url.isprintable() or set(url) & set(" \\"):
        return False
    try:
        # a path, one with two slashes too, is appended to the address of the server
        return url.startswith("/") or urlsplit(url)[:2] == urlsplit(address)[:2]
    except ValueError:
        return False
