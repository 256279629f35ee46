"""What a command does once nothing refuses it: one function a command, in the reference's order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from webchat_fsm.core import link, receipts
from webchat_fsm.core.facts import Asked, Timer
from webchat_fsm.core.session import TYPING_COUNTDOWN, Session
from webchat_fsm.core.turn import Turn
from webchat_fsm.lifecycle import commands as texts
from webchat_fsm.lifecycle.commands import COMMANDS, judged_state
from webchat_fsm.lifecycle.table import Flag, State, Trigger
from webchat_fsm.lifecycle.words import Agents, Json, Stats, scalars


def ask(turn: Turn, asked: Asked) -> None:
    """Refuse a command by the table, or carry it out as far as its first request."""
    if text := refusal(turn.session, asked):
        turn.reject(text)
    else:
        _COMMANDS[asked.command](turn, asked.data)


def refusal(session: Session, asked: Asked) -> str:
    """The text with which the table refuses a command now, empty where it is legal."""
    rule = COMMANDS[asked.command]
    if not session.opened and not rule.any_time:
        return texts.NOT_READY
    text = rule.refuse(judged_state(rule, session.state, session.flags), session.transport, asked.by)
    return _before_state(asked) or text


def _before_state(asked: Asked) -> str:
    """The two sends look at their text before they look at the state."""
    if asked.command not in ("sendMessage", "sendFilteredMessage"):
        return ""
    message = asked.data.get("message")
    return "" if isinstance(message, str) and message.strip() else texts.NO_TEXT


def _start_chat(turn: Turn, data: Json) -> None:
    form = data.get("form") if isinstance(data.get("form"), Mapping) else data
    given = _start_data(data)
    if given is not None and not isinstance(given, Mapping):
        turn.reject(texts.MALFORMED_USER_DATA)
        return
    session = turn.session
    fields = {key: value for key, value in (form or {}).items() if key not in ("form", "userData")}
    turn.fire(Trigger.START)
    session.nickname = str(fields.get("nickname") or fields.get("firstname") or "")
    data = {"form": fields, "user_data": {**session.user_data, **(given or {})}}
    if session.transport.polls:
        turn.call("start", "startChat", **data)
    else:
        link.begin(turn, "startChat", "start", **data)


def _start_data(data: Json) -> Any:
    """The user data of a start; the reference's v3 example can be read to have them in the form."""
    form, beside = data.get("form"), data.get("userData")
    inside = form.get("userData") if isinstance(form, Mapping) else None
    if isinstance(inside, Mapping) and isinstance(beside, Mapping):
        return {**inside, **beside}
    return inside if beside is None else beside


def _end_chat(turn: Turn, data: Json) -> None:
    dormant = turn.session.saved if turn.session.state is State.DORMANT else None
    turn.fire(Trigger.END)
    if turn.session.link.stopped:  # no request may be made, so the chat ends here alone
        turn.fire(Trigger.LEFT)
        turn.resolve()
        return
    turn.call("disconnect", "endChat", dormant.session_data if dormant else None)


def _send_message(turn: Turn, data: Json) -> None:
    if not _too_long(turn, data["message"]):
        _send(turn, data, "sendMessage")


def _send_filtered_message(turn: Turn, data: Json) -> None:
    filters = _patterns(data.get("regex"))
    if filters is None:
        turn.reject(texts.BAD_FILTERS)
        return
    if not _too_long(turn, data["message"]):
        turn.session.prefilters.add(filters)
        turn.keep()
        _send(turn, data, "sendFilteredMessage")


def _too_long(turn: Turn, message: str) -> bool:
    limit = turn.session.settings.max_message_length
    if too_long := bool(limit) and len(message) > limit:
        turn.reject(texts.TOO_LONG.format(limit=limit))
    return too_long


def _send(turn: Turn, data: Json, command: str) -> None:
    if Flag.CLIENT_TYPING in turn.session.flags:
        turn.session.timers.pop(Timer.TYPING, None)
        turn.fire(Trigger.TYPING_OVER)
    turn.activity()
    extra = {key: data[key] for key in ("type", "parentMessageID") if data.get(key)}
    message = scalars(data["message"])
    ticket = turn.session.tickets + 1  # carried along, as over CometD a send may be made again by another call
    turn.call("send", command, message=message, receipt=ticket, **extra)
    receipts.sent(turn, ticket, message)


def _send_custom_notice(turn: Turn, data: Json) -> None:
    extra = {key: data[key] for key in ("eventAttributes", "messageType") if data.get(key)}
    turn.call("customNotice", "sendCustomNotice", message=str(data.get("message") or ""), **extra)


def _send_typing(turn: Turn, data: Json) -> None:
    session = turn.session
    burst = Flag.CLIENT_TYPING in session.flags
    turn.fire(Trigger.TYPE)
    session.timers[Timer.TYPING] = turn.now.timer + TYPING_COUNTDOWN
    if burst:
        turn.resolve()
        return
    turn.call("startTyping", "sendTyping", message=str(data.get("message") or data.get("Message") or ""))


def _add_prefilter(turn: Turn, data: Json) -> None:
    filters = _patterns(data.get("filters"))
    if filters is None:
        turn.reject(texts.BAD_FILTERS)
        return
    turn.session.prefilters.add(filters)
    if turn.session.state.has_session:
        turn.keep()
    turn.resolve(list(turn.session.prefilters.custom))


def _patterns(given: Any) -> list[re.Pattern[str]] | None:
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    patterns = [one for one in listed if isinstance(one, re.Pattern) and isinstance(one.pattern, str)]
    return patterns if patterns and len(patterns) == len(listed) else None


def _update_user_data(turn: Turn, data: Json) -> None:
    session = turn.session
    session.user_data = {**session.user_data, **data}
    if session.state.has_session and Flag.ENDING not in session.flags:
        turn.call("updateData", "updateUserData", user_data=dict(data))
        return
    if session.state in (State.STARTING, State.RESTORING):
        session.unsent_user_data = {**session.unsent_user_data, **data}
    turn.resolve(dict(session.user_data))


def _poll(turn: Turn, data: Json) -> None:
    session = turn.session
    if session.poll_out:
        turn.reject(texts.POLL_OUT)
        return
    session.timers.pop(Timer.POLL, None)
    preview = str(data.get("preview") or "")
    message = preview if len(preview) < session.preview_limit else ""
    call = turn.call("refresh", "poll", message=message, **_place(session))
    session.poll_out, session.poll_since = call.ticket, turn.now.timer


def _place(session: Session) -> Json:
    """Where to go on; `catch_up` where an answer may have been lost on the way."""
    return {"position": session.cursor, "catch_up": session.behind}


def _start_poll(turn: Turn, data: Json) -> None:
    turn.session.delay = turn.session.settings.pace.least
    turn.fire(Trigger.START_POLL)
    turn.resolve()


def _stop_poll(turn: Turn, data: Json) -> None:
    turn.session.behind = True
    turn.fire(Trigger.STOP_POLL)
    turn.resolve()


def _reset_poll_exceptions(turn: Turn, data: Json) -> None:
    turn.session.failures = 0
    turn.resolve()


def _restore(turn: Turn, data: Json) -> None:
    if trouble := data.get("trouble"):
        turn.reject(trouble)
        return
    if given := data.get("saved"):
        turn.session.saved = given
    if not turn.session.restorable:
        turn.reject(texts.NOTHING_SAVED)
        return
    turn.fire(Trigger.RESTORE)
    call_restore(turn, "restore")


def call_restore(turn: Turn, command: str = "") -> None:
    """Ask the server for the saved session, unless it is too old to be asked for."""
    session, saved = turn.session, turn.session.saved
    assert saved is not None
    if session.too_old(turn.now):
        turn.fire(Trigger.SAVED_TOO_OLD)
        turn.reject(texts.NOTHING_SAVED)
        return
    if not session.transport.polls:
        link.begin(turn, command, "notifications", saved.session_data, position=1)
        return
    operation = "resume" if session.transport.asynchronous else "restore"
    turn.call(operation, command, saved.session_data, user_data=saved.user_data)


def _get_transcript(turn: Turn, data: Json) -> None:
    session = turn.session
    turn.resolve(replace(session.transcript.read(data.get("since")), missing=session.missing))


def _get_agents(turn: Turn, data: Json) -> None:
    turn.resolve(Agents(turn.session.participants.agents))


def _get_stats(turn: Turn, data: Json) -> None:
    stats = turn.session.transcript.stats()
    turn.resolve(
        Stats(
            agents=turn.session.participants.agents,
            start_time=stats.start_time,
            end_time=stats.end_time,
            duration=stats.duration,
        )
    )


def _get_session_data(turn: Turn, data: Json) -> None:
    turn.resolve(turn.session.session_data)


def _send_file(turn: Turn, data: Json) -> None:
    files = list(data.get("files") or ())
    if trouble := data.get("trouble") or ("" if files else texts.NO_FILES):
        turn.reject(trouble)
        return
    if turn.session.transport.gms:
        turn.call("limits", "sendFile", files=files)
        return
    turn.call("file", "sendFile", file=files[0], rest=files[1:])


def _get_file_limits(turn: Turn, data: Json) -> None:
    turn.call("limits", "getFileLimits")


def _download_file(turn: Turn, data: Json) -> None:
    file_id = str(data.get("fileId") or data.get("field") or "")
    if not file_id:
        turn.reject(texts.NO_FILE_ID)
        return
    turn.call("download", "downloadFile", file_id=file_id)


def _verify_session(turn: Turn, data: Json) -> None:
    session = turn.session
    if session.state in (State.IDLE, State.ENDED) and session.restorable:
        if session.too_old(turn.now):
            turn.fire(Trigger.SAVED_TOO_OLD)
        turn.resolve(session.saved is not None)
        return
    open_here = session.state.has_session and Flag.ENDING not in session.flags
    turn.resolve(open_here or session.state in (State.STARTING, State.DORMANT, State.RESTORING))


def _register_typing_preview_input(turn: Turn, data: Json) -> None:
    if data["fits"]:
        turn.session.watches_input = True
        turn.watch_input()
        turn.resolve()
    else:
        turn.reject(texts.BAD_INPUT)


def _register_pre_processor(turn: Turn, data: Json) -> None:
    given = data.get("preprocessor")
    if not callable(given):
        turn.reject(texts.NO_PREPROCESSOR.format(type=type(given).__name__))
        return
    turn.resolve(given)


def _fetch_history(turn: Turn, data: Json) -> None:
    oldest = turn.session.transcript.lowest
    if turn.session.history_done or oldest is None:
        turn.reject(texts.NO_MORE_HISTORY)
        return
    turn.call("history", "fetchHistory", before=oldest)


def _fetch(turn: Turn, data: Json) -> None:
    url = str(data.get("url") or "")
    if _is_own(url, turn.session.settings.address):
        turn.call("fetch", "fetch", url=url)
    else:
        turn.reject(texts.FOREIGN_CONTENT)


def _is_own(url: str, address: str) -> bool:
    """Whether an url leads to the chat server; one that can be read in two ways does not."""
    if not url.isprintable() or set(url) & set(" \\"):
        return False
    try:
        return url.startswith("/") or urlsplit(url)[:2] == urlsplit(address)[:2]
    except ValueError:
        return False


_COMMANDS: dict[str, Callable[[Turn, Json], None]] = {
    "startChat": _start_chat,
    "endChat": _end_chat,
    "sendMessage": _send_message,
    "sendCustomNotice": _send_custom_notice,
    "sendTyping": _send_typing,
    "sendFilteredMessage": _send_filtered_message,
    "addPrefilter": _add_prefilter,
    "updateUserData": _update_user_data,
    "poll": _poll,
    "startPoll": _start_poll,
    "stopPoll": _stop_poll,
    "resetPollExceptions": _reset_poll_exceptions,
    "restore": _restore,
    "getTranscript": _get_transcript,
    "getAgents": _get_agents,
    "getStats": _get_stats,
    "sendFile": _send_file,
    "downloadFile": _download_file,
    "getSessionData": _get_session_data,
    "fetchHistory": _fetch_history,
    "registerTypingPreviewInput": _register_typing_preview_input,
    "registerPreProcessor": _register_pre_processor,
    "verifySession": _verify_session,
    "getFileLimits": _get_file_limits,
    "fetch": _fetch,
}
