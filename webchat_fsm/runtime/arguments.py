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
from webchat_fsm.errors import StoreError, WebChatError
from webchat_fsm.lifecycle.commands import MALFORMED_USER_DATA, NOTHING_SAVED
from webchat_fsm.lifecycle.encoding import DEEPEST, LONGEST_INTEGER, MOST
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import Agents, Json, Response, SessionData, Stats, Transcript, unsendable
from webchat_fsm.runtime import files
from webchat_fsm.runtime.engine import Engine
from webchat_fsm.runtime.hooks import saved_with_token

log = logging.getLogger("webchat_fsm")


class UnsendableError(WebChatError, TypeError, ValueError):
    """Something that a command was given cannot be sent; the text names it. `reason` is what the bus is told."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text


def prepared(engine: Engine, config: Config, command: str, data: Mapping[str, Any]) -> Json:
    """The data of a command as the core takes them; what is wrong with them is told after the other checks.

    Raises `UnsendableError` for what cannot be sent on any transport.
    """
    prepare = _PREPARED.get(command)
    return dict(data) if prepare is None else prepare(engine, config, data)


def _owned(value: Any) -> Any:
    """Copy what a command was given, checked before, down to plain dicts, lists and texts.

    What the core keeps, compares and writes down is then the library's own: no code of the user runs in it, and nothing
    in it changes later.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_owned(key): _owned(inner) for key, inner in value.items()}
    return [_owned(inner) for inner in value] if isinstance(value, list | tuple) else value


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
    _demand_text(data)
    given = _owned(data.get("message") or data.get("Message"))
    return {**data, "message": given or engine.preview()}


def _start(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """The form of startChat, and the user data, on top or in the form."""
    form = data.get("form")
    for fields in (data, form if isinstance(form, Mapping) else {}):
        _demand_text({key: value for key, value in fields.items() if key not in ("form", "userData")})
        if isinstance(given := fields.get("userData"), Mapping):
            _demand_user_data(given)
    _demand_bounded(data, "what was given")  # user data that are no mapping too, which the core refuses
    return {key: _owned(value) for key, value in data.items()}


def _spoken(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """What goes with a message; that the message itself is a text is looked at among the other checks."""
    _demand_text({key: data.get(key) for key in ("type", "parentMessageID")})
    return {key: _owned(value) if isinstance(value, str) else value for key, value in data.items()}


def _notice(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """A custom notice and its attributes."""
    _demand_text(data)
    return {key: _owned(value) for key, value in data.items()}


def _user_data(engine: Engine, config: Config, data: Mapping[str, Any]) -> Json:
    """User data, which every later start and every save would stumble over where they cannot be written down."""
    _demand_user_data(data)
    return {_owned(key): _owned(value) for key, value in data.items()}


def _demand_text(fields: Mapping[str, Any]) -> None:
    _demand_bounded(fields, "what was given")
    if wrong := next(unsendable(fields, ""), ""):
        raise UnsendableError(_UNSENDABLE.format(wrong=wrong))


def _demand_user_data(data: Mapping[str, Any]) -> None:
    """Look for what has no text, for data that hold themselves and for numbers of thousands of digits."""
    _demand_bounded(data, "the user data", MALFORMED_USER_DATA)
    if wrong := next(unsendable(data, "userData"), ""):
        raise UnsendableError(_UNSENDABLE.format(wrong=wrong), reason=MALFORMED_USER_DATA)


def _demand_bounded(data: Any, name: str, reason: str = "") -> None:
    """Refuse what has no end, or cannot be spelt: every later start and every save would fail at it."""
    level: list[Any] = [data]
    seen = 0
    try:
        for _ in range(DEEPEST):
            seen += len(level)
            if not level or seen > MOST:
                break
            level = [inner for one in level for inner in _inside(one)]
    except Exception:  # the code of a user's mapping may raise anything
        level = [data]
    if level:
        raise UnsendableError(_UNWRITABLE.format(name=name), reason=reason)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        raise ValueError("an integer that is too long to be spelt")
    return ()


_UNSENDABLE = "{wrong}, which cannot be sent: give texts, numbers, true, false, None, or mappings and lists of them"
_UNWRITABLE = (
    "{name} cannot be written down: they hold themselves, something far too large, or something that cannot be read"
)


_PREPARED: dict[str, Callable[[Engine, Config, Mapping[str, Any]], Json]] = {
    "addPrefilter": _filters,
    "registerTypingPreviewInput": _input,
    "restore": _session,
    "sendCustomNotice": _notice,
    "sendFile": _files,
    "sendFilteredMessage": _spoken,
    "sendMessage": _spoken,
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
