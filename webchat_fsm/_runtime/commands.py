"""The commands, one record each: the rule, how the arguments are prepared, what is done, and what the value is.

A record names the rule of the lifecycle and the action of the core. What it adds runs code of the user, or touches
files or the store, and so runs here, before the lock of the session is taken or after it is released.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from webchat_fsm._config import Config
from webchat_fsm._core import on_command
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Command, Reply, Settled
from webchat_fsm._errors import StoreError, WebChatError
from webchat_fsm._json import DEEPEST, LONGEST_INTEGER, MOST
from webchat_fsm._model import Agents, Json, Response, SessionData, Stats, Transcript, unsendable
from webchat_fsm._runtime import files
from webchat_fsm._runtime.failures import Preprocessors
from webchat_fsm._runtime.store_hooks import saved_with_token
from webchat_fsm.lifecycle import _legality as rules
from webchat_fsm.lifecycle._legality import MALFORMED_USER_DATA, NOTHING_SAVED
from webchat_fsm.lifecycle._transports import Transport

log = logging.getLogger("webchat_fsm")
T = TypeVar("T")


class Shell(Protocol):
    """What the preparation and the completion of a command need of the engine that carries it out."""

    session: Session
    lock: Lock
    preview_input: Any
    preprocessors: Preprocessors

    def load(self) -> SavedSession | None:
        """Return the saved session; raises `StoreError`."""
        ...

    def preview(self) -> str:
        """Return the text of the registered typing preview input."""
        ...


def _copied(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    return dict(data)


class ServiceCommand(Command, Generic[T], frozen=True, eq=False):
    """A command of the service, whose value has the type T.

    `prepare` makes the data ready for the core: a `trouble` in them is reported after the other checks. It raises
    `UnsendableError` for what cannot be sent on any transport. `finish` completes an outcome that is resolved.
    `awaits_restore` has it wait for a restore that another thread has in flight.
    """

    prepare: Callable[[Shell, Config, Mapping[str, Any]], Json] = _copied
    finish: Callable[[Shell, Config, Json, Settled], Settled] | None = None
    awaits_restore: bool = False


class UnsendableError(WebChatError, TypeError, ValueError):
    """Something that a command was given cannot be sent; the text names it, `reason` is what the bus gets."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text


# -- arguments ---------------------------------------------------------------------------------------------------------


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


def _session(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the session that restore was given, as a token or an object with one; else the stored session."""
    # Asked here too: for a command that is refused, neither the store nor a function of the user's is called.
    with shell.lock:
        refused = on_command.refusal(shell.session, rules.RESTORE, {})
    if refused:
        return {}
    try:
        if given := data.get("sessionData"):
            saved = saved_with_token(config, given)
            return {"saved": saved} if saved else {"trouble": NOTHING_SAVED}
        return {} if shell.session.saved else {"saved": shell.load()}
    except StoreError as error:
        return {"trouble": str(error)}


def _files(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Check the files of sendFile without reading their content."""
    try:
        return {"files": files.to_send(data.get("files") or [])}
    except (ValueError, OSError) as error:
        return {"trouble": str(error)}


def _input(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Check the typing preview input, whose properties may be code of the user."""
    given = data.get("input")
    try:
        fits = given is not None and getattr(given, "type", "text") in ("text", "textarea") and hasattr(given, "value")
    except Exception:
        log.exception("the typing preview input %s failed when it was registered", type(given).__name__)
        fits = True  # it is read again each second, and may have recovered by then
    return {"input": given, "fits": fits}


def _filters(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the filters of addPrefilter as a list, drawn from any iterable."""
    return {**data, "filters": _drawn(data.get("filters"))}


def _drawn(given: Any) -> Any:
    # An iterable may be code of the user, which must not run in the core, under the lock of the session.
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else given


def _filtered(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the message of sendFilteredMessage and the expressions that hide it."""
    return {**_spoken(shell, config, data), "regex": _drawn(data.get("regex"))}


def _since(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the index behind which getTranscript begins."""
    since = data.get("since")
    if type(since) is int and since.bit_length() <= LONGEST_INTEGER:  # as nearly always, and needs no check
        return {"since": since}
    _demand_text({"since": since})
    return {"since": _owned(since)}


def _address(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the address of fetch."""
    return _spelt_out(data, "url")


def _download(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the id of a file and its target path, which is checked before the request and not after it."""
    to = data.get("to")
    if to is not None and not isinstance(to, str | bytes | os.PathLike):
        raise UnsendableError(f"`to` must be the path of a file or a folder, not {type(to).__name__}")
    return {**_spelt_out(data, "fileId", "field"), "to": None if to is None else os.fsdecode(to)}


def _spelt_out(data: Mapping[str, Any], *names: str) -> Json:
    """Return the data with these arguments as texts, where they are given.

    The core would spell them as well, but there code of the user would run under the lock of the session, and a
    recording, which keeps a value as JSON, would not have the text that was sent.
    """
    for name in names:
        if not isinstance(value := data.get(name), str | None):  # a text needs no check
            _demand_text({name: value})
    return _spelt(data, *names)


def _spelt(data: Mapping[str, Any], *names: str) -> Json:
    spelt = dict(data)
    for name in names:
        if (value := spelt.get(name)) is not None:
            spelt[name] = str(_owned(value)) if value else ""
    return spelt


def _typing(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the preview of sendTyping; where none is given, the text in the registered input."""
    _demand_text(data)
    texts = _spelt(data, "message", "Message")
    return {"message": texts.get("message") or texts.get("Message") or shell.preview()}


def _start(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the form of startChat with its user data, given beside the form or inside it."""
    form = data.get("form")
    for fields in (data, form if isinstance(form, Mapping) else {}):
        _demand_text({key: value for key, value in fields.items() if key not in ("form", "userData")})
        if isinstance(given := fields.get("userData"), Mapping):
            _demand_user_data(given)
    _demand_bounded(data, "what was given")  # user data that are no mapping too, which the core refuses
    return settled_start({key: _owned(value) for key, value in data.items()})


def settled_start(data: Json) -> Json:
    """Return the data of a start as `form` and `userData`, whichever of three shapes they have.

    The fields stand under `form` or beside it, and the reference's v3 example can be read to have the user data inside
    the form.
    """
    form, beside = data.get("form"), data.get("userData")
    inside = form.get("userData") if isinstance(form, Mapping) else None
    given = inside if beside is None else beside
    if isinstance(inside, Mapping) and isinstance(beside, Mapping):
        given = {**inside, **beside}
    fields = form if isinstance(form, Mapping) else data
    return {
        "form": {key: value for key, value in fields.items() if key not in ("form", "userData")},
        "userData": given,
    }


def _spoken(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return the fields of a message; a later check demands that the message itself is a text."""
    message = data.get("message")
    # A message that is no text is refused, and a recording may have only a text to show for it.
    own = str.__str__(message) if isinstance(message, str) else None
    return {**_spelt_out(data, "type", "parentMessageID"), "message": own}


def _notice(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
    """Return a custom notice and its attributes."""
    _demand_text(data)
    return {key: _owned(value) for key, value in _spelt(data, "message", "messageType").items()}


def _user_data(shell: Shell, config: Config, data: Mapping[str, Any]) -> Json:
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


# -- outcomes ----------------------------------------------------------------------------------------------------------


def _remember_input(shell: Shell, config: Config, data: Json, settled: Settled) -> Settled:
    shell.preview_input = data["input"]
    return settled


def _remember_preprocessor(shell: Shell, config: Config, data: Json, settled: Settled) -> Settled:
    shell.preprocessors.registered.append(data["preprocessor"])
    return settled


def _put_download(shell: Shell, config: Config, data: Json, settled: Settled) -> Settled:
    """Write what was downloaded, under the name of the request, of the answer or of the transcript."""
    content, disposition = settled.value
    file_id = str(data.get("fileId") or data.get("field"))
    name = files.named_in(disposition) or _name_of_file(shell, file_id) or file_id
    to, folder = data.get("to"), config.client.download_dir
    try:
        path = files.put(content, to, name) if to else files.put_into(folder, content, name)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return Settled(resolved=False, reason=f"the file could not be written: {error}", state=settled.state)
    return Settled(resolved=True, value=path, state=settled.state)


def _name_of_file(shell: Shell, file_id: str) -> str:
    for message in shell.session.transcript.read().messages:
        details = message.file_details or {}
        if file_id == details.get("file-id"):
            return str(details.get("file-name") or "")
    return ""


def _nothing(reply: Reply) -> None:
    return None


def bus_value(command: Command, value: Any, transport: Transport) -> Any:
    """Return a command's value in the form that the reference documents for the bus."""
    match value:
        case bool():
            return {"sessionActive": value} if command is VERIFY_SESSION else value
        case SessionData():
            return value.item(transport)
        case Response() | Transcript() | Agents() | Stats():
            return value.item()
        case os.PathLike():
            return None
    return value


# -- the records -------------------------------------------------------------------------------------------------------

CONFIGURE = ServiceCommand[None](rules.CONFIGURE, on_command.configure)
START_CHAT = ServiceCommand[Response](rules.START_CHAT, on_command.start_chat, prepare=_start)
END_CHAT = ServiceCommand[Response](rules.END_CHAT, on_command.end_chat)
SEND_MESSAGE = ServiceCommand[Response](rules.SEND_MESSAGE, on_command.send_message, prepare=_spoken)
SEND_CUSTOM_NOTICE = ServiceCommand[Response](rules.SEND_CUSTOM_NOTICE, on_command.send_custom_notice, prepare=_notice)
SEND_TYPING = ServiceCommand[Response | None](rules.SEND_TYPING, on_command.send_typing, prepare=_typing)
SEND_FILTERED_MESSAGE = ServiceCommand[None](
    rules.SEND_FILTERED_MESSAGE, on_command.send_filtered_message, value=_nothing, prepare=_filtered
)
ADD_PREFILTER = ServiceCommand[list[re.Pattern[str]]](rules.ADD_PREFILTER, on_command.add_prefilter, prepare=_filters)
UPDATE_USER_DATA = ServiceCommand[Response | Json](
    rules.UPDATE_USER_DATA, on_command.update_user_data, prepare=_user_data
)
POLL = ServiceCommand[None](rules.POLL, on_command.poll)
START_POLL = ServiceCommand[None](rules.START_POLL, on_command.start_poll)
STOP_POLL = ServiceCommand[None](rules.STOP_POLL, on_command.stop_poll)
RESET_POLL_EXCEPTIONS = ServiceCommand[None](rules.RESET_POLL_EXCEPTIONS, on_command.reset_poll_exceptions)
RESTORE = ServiceCommand[None](rules.RESTORE, on_command.restore, value=_nothing, prepare=_session)
GET_TRANSCRIPT = ServiceCommand[Transcript](rules.GET_TRANSCRIPT, on_command.get_transcript, prepare=_since)
GET_AGENTS = ServiceCommand[Agents](rules.GET_AGENTS, on_command.get_agents)
GET_STATS = ServiceCommand[Stats](rules.GET_STATS, on_command.get_stats)
SEND_FILE = ServiceCommand[Response](rules.SEND_FILE, on_command.send_file, prepare=_files)
DOWNLOAD_FILE = ServiceCommand[Path](
    rules.DOWNLOAD_FILE,
    on_command.download_file,
    value=attrgetter("value"),
    prepare=_download,
    finish=_put_download,
)
GET_SESSION_DATA = ServiceCommand[SessionData](rules.GET_SESSION_DATA, on_command.get_session_data)
FETCH_HISTORY = ServiceCommand[Response](rules.FETCH_HISTORY, on_command.fetch_history)
REGISTER_TYPING_PREVIEW_INPUT = ServiceCommand[None](
    rules.REGISTER_TYPING_PREVIEW_INPUT,
    on_command.register_typing_preview_input,
    prepare=_input,
    finish=_remember_input,
)
REGISTER_PRE_PROCESSOR = ServiceCommand[object](
    rules.REGISTER_PRE_PROCESSOR, on_command.register_pre_processor, finish=_remember_preprocessor
)
VERIFY_SESSION = ServiceCommand[bool](rules.VERIFY_SESSION, on_command.verify_session, awaits_restore=True)
GET_FILE_LIMITS = ServiceCommand[Response](rules.GET_FILE_LIMITS, on_command.get_file_limits)
FETCH = ServiceCommand[bytes](rules.FETCH, on_command.fetch, value=attrgetter("value"), prepare=_address)

_RECORDS = tuple(value for value in globals().values() if isinstance(value, ServiceCommand))

COMMANDS: dict[str, ServiceCommand[Any]] = {command.name: command for command in _RECORDS}
"""Every command by its documented name, in the order of the reference."""
