"""What commands are given and what they give: made ready for the core, and put into the form of the bus.

Whatever may run code of the user, or touch files or the store, is done here, before the lock is taken.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Asked
from webchat_fsm.core.on_command import refusal
from webchat_fsm.errors import StoreError
from webchat_fsm.lifecycle.commands import NOTHING_SAVED
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import MASK, Agents, Json, Response, SessionData, Stats, Transcript
from webchat_fsm.runtime import files
from webchat_fsm.runtime.engine import Engine
from webchat_fsm.runtime.hooks import saved_with_token
from webchat_fsm.wire.request import bracketed, json_body

log = logging.getLogger("webchat_fsm")


def prepared(engine: Engine, config: Config, command: str, data: Mapping[str, Any]) -> Json:
    """The data of a command as the core takes them; what is wrong with them is told after the other checks."""
    prepare = _PREPARED.get(command)
    return dict(data) if prepare is None else prepare(engine, config, data)


def _session(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The session that restore was given, a token or an object with one; else what the store holds."""
    with engine.lock:
        refused = refusal(engine.session, Asked(command="restore"))
    if refused:
        return {}
    try:
        if given := data.get("sessionData"):
            saved = saved_with_token(config, given)
            return {"saved": saved} if saved else {"trouble": NOTHING_SAVED}
        return {} if engine.session.saved else {"saved": engine.load()}
    except StoreError as error:
        return {"trouble": str(error)}


def _files(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The files of sendFile, looked at but not read."""
    try:
        return {"files": files.to_send(data.get("files") or [])}
    except (ValueError, OSError) as error:
        return {"trouble": str(error)}


def _input(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The typing preview input, whose properties may be code of the user."""
    given = data.get("input")
    try:
        fits = given is not None and getattr(given, "type", "text") in ("text", "textarea") and hasattr(given, "value")
    except Exception:
        log.exception("the typing preview input %s failed when it was registered", type(given).__name__)
        fits = True
    return {"input": given, "fits": fits}


def _filters(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The filters of addPrefilter, drawn from whatever iterates."""
    given = data.get("filters")
    drawn = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else given
    return {**data, "filters": drawn}


def _typing(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The preview of sendTyping; where none is given, what the registered input holds."""
    given = data.get("message") or data.get("Message")
    return {**data, "message": given or engine.preview()}


def _start(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The form and the user data of startChat; data that cannot be written down are no data object."""
    given = data.get("userData")
    return {**data, "userData": MASK} if isinstance(given, Mapping) and not _writable(given) else dict(data)


def _user_data(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """User data, which every later start and every save would stumble over where they cannot be written down."""
    if not _writable(data):
        raise ValueError("the user data cannot be written down: they hold themselves, or something far too large")
    return dict(data)


def _writable(data: Mapping[str, Any]) -> bool:
    try:
        bracketed("userData", data)
        json_body(data)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


_PREPARED: dict[str, Callable[[Engine, Config, Mapping[str, Any]], Json]] = {
    "addPrefilter": _filters,
    "registerTypingPreviewInput": _input,
    "restore": _session,
    "sendFile": _files,
    "sendTyping": _typing,
    "startChat": _start,
    "updateUserData": _user_data,
}


def bus_value(command: str, value: Any, transport: Transport) -> Any:
    """A command's value in the form that the reference documents for the bus."""
    match value:
        case bool():
            return {"sessionActive": value} if command == "verifySession" else value
        case SessionData():
            return value.item(transport)
        case Response() | Transcript() | Agents() | Stats():
            return value.item()
        case os.PathLike():
            return None
    return value
