"""The GMS Chat API version 2 over REST: form posts out, one JSON envelope back for every operation."""

from __future__ import annotations

from typing import Any, assert_never

from msgspec import Struct, field
from msgspec.structs import replace

from webchat_fsm._config import Config
from webchat_fsm._core import operations as op
from webchat_fsm._core.operations import Operation
from webchat_fsm._core.steps import Call, Limits, ReceivedMessage, Reply, ResponseKind
from webchat_fsm._json import json_to_send
from webchat_fsm._model import BayeuxFrame, Json, Message, Response, Sender, SessionData
from webchat_fsm._wire import lenient
from webchat_fsm._wire.decoding import object_in, read_body, text_of
from webchat_fsm._wire.lenient import Amount, Moment, Position
from webchat_fsm._wire.request import (
    FORM,
    HttpAnswer,
    Request,
    bounds,
    bracketed,
    errors_of,
    form,
    listed,
    not_offered,
    part,
    refused_between,
    retry_after,
    segment,
    text,
    unreadable,
)

Fields = list[tuple[str, str]]


class WireParty(Struct, frozen=True, rename="camel", gc=False):
    """`from` of an event."""

    nickname: str | None = None
    participant_id: int | str | None = None
    type: str | None = None


class WireEvent(Struct, frozen=True, rename="camel", gc=False):  # JSON holds no cycle that must be collected
    """An event of the transcript; its type may be any text."""

    type: str = ""
    party: WireParty | None = field(default=None, name="from")
    index: Position | None = None
    utc_time: Moment | None = None
    text: str | None = None
    user_data: dict[str, Any] | None = None
    event_attributes: Any = None


class Envelope(Struct, frozen=True, rename="camel"):
    """The answer to every operation; with statusCode 1 or 2 no other field can be trusted. A null says nothing."""

    status_code: int | None = None
    chat_id: str | None = None
    user_id: str | None = None
    secure_key: str | None = None
    alias: str | None = None
    messages: list[WireEvent] | None = None
    chat_ended: bool | None = None
    next_position: Position | None = None
    idle_timer_expire: Amount | None = None
    user_data: dict[str, Any] | None = None


class WireLimits(Struct, frozen=True):
    """The members of `userData` that limit uploads; they come as texts."""

    max_files: Position | None = field(default=None, name="upload-max-files")
    max_file_size: Position | None = field(default=None, name="upload-max-file-size")
    max_total_size: Position | None = field(default=None, name="upload-max-total-size")
    file_types: str | None = field(default=None, name="upload-file-types")
    used_files: Position | None = field(default=None, name="used-upload-max-files")
    used_total_size: Position | None = field(default=None, name="used-upload-max-total-size")


_UNNAMED = WireParty()

_CARRIES_TRANSCRIPT = (op.Refresh, op.Restore)
"""Operations whose messages are taken: no other request asks for them, and the first poll asks from position 1."""

TEXT_TOO_LONG = "204"
"""The server's error for a text that is too long, a typing preview's too."""

_KINDS = {0: ResponseKind.GOOD, 1: ResponseKind.UNAVAILABLE, 2: ResponseKind.REFUSED}


class GmsV2:
    """The v2 dialect of one configuration."""

    __slots__ = ("_base", "_config", "_headers")

    def __init__(self, config: Config) -> None:
        self._config, self._base, self._headers = config, config.data_url.rstrip("/"), headers(config)

    def request(self, call: Call) -> Request:
        """Build the POST that carries a call; every operation of this API is one."""
        operation, known = call.operation, call.session_data
        if isinstance(operation, op.Start):
            path, fields = "/" if self._config.enable_url_trailing_slash else "", self._start_fields(operation)
        else:
            end, own_fields = _in_session(operation)
            path, fields = f"/{quoted(known.session_id)}/{end}", credentials(known) + own_fields
        content: dict[str, Any]
        if isinstance(operation, op.SendFile):
            content = {"parts": (*fields, ("file", part(operation)))}
        else:
            content = {"body": form(fields), "content_type": FORM}
        timeout, max_size = bounds(self._config, operation)
        return Request(
            operation=operation.name,
            method="POST",
            url=self._base + path,
            headers=self._headers.copy(),  # an `Http` of the user's may change what it is given
            timeout=timeout,
            repeatable=isinstance(operation, (*_CARRIES_TRANSCRIPT, op.FileLimits)),
            max_size=max_size,
            **content,
        )

    def reply(self, call: Call, answer: HttpAnswer, url: str) -> Reply:
        """Read the answer to a call that was sent to `url`."""
        return read(call, answer, url)

    def _start_fields(self, start: op.Start) -> Fields:
        fields = [(wire, text(start.form.get(given))) for given, wire in START_FIELDS]
        if self._config.endpoint:
            fields.append(("endpoint", self._config.endpoint))
        return [pair for pair in fields if pair[1]] + bracketed("userData", start.user_data)


def _in_session(operation: Operation) -> tuple[str, Fields]:  # noqa: C901 - one case an operation
    """Return the last part of the path and the form fields of an operation on a session."""
    match operation:
        case op.Refresh():
            return "refresh", [("transcriptPosition", str(operation.position)), ("message", operation.preview)]
        case op.Restore():
            return "refresh", [("transcriptPosition", "1"), ("message", "")]
        case op.Send():
            return "send", _send(operation)
        case op.StartTyping() | op.StopTyping():
            return operation.name, [("message", operation.preview)]
        case op.UpdateData():
            return "updateData", bracketed("userData", operation.user_data)
        case op.CustomNotice():
            return "customNotice", _custom_notice(operation)
        case op.Disconnect():
            return "disconnect", []
        case op.FileLimits():
            return "file/limits", []
        case op.SendFile():
            return "file", []
        case op.Download():
            return f"file/{quoted(operation.file_id)}/download", []
        case op.NoRequest() | op.Start() | op.Resume() | op.History() | op.Fetch() | BayeuxFrame():
            raise not_offered(operation)
        case _:
            assert_never(operation)


def _send(send: op.Send) -> Fields:
    fields = [("message", send.message), ("messageType", str(send.message_type or "text"))]
    if parent := send.parent_message_id:
        fields.append(("eventAttributes", _json({"general-properties": {"related-event-id": str(parent)}})))
    return fields


def _custom_notice(notice: op.CustomNotice) -> Fields:
    fields = [("message", notice.message)]
    if notice.event_attributes:
        fields.append(("eventAttributes", _json(notice.event_attributes)))
    if notice.message_type:
        fields.append(("messageType", str(notice.message_type)))
    return fields


START_FIELDS = (
    ("nickname", "nickname"),
    ("firstname", "firstName"),
    ("lastname", "lastName"),
    ("email", "emailAddress"),
    ("subject", "subject"),
)
"""The form fields of startChat and their names on the wire."""


def headers(config: Config) -> dict[str, str]:
    """Return the headers of every request: `apikey`, the custom ones, and those of `client.headers`."""
    chosen = dict(config.client.headers)
    if config.apikey:
        chosen["apikey"] = config.apikey
    return {**chosen, **config.custom_headers} if config.enable_custom_header else chosen


def credentials(session_data: SessionData) -> Fields:
    """Return the fields that every operation on a session repeats."""
    return [("userId", session_data.user_id), ("secureKey", session_data.secure_key), ("alias", session_data.alias)]


def quoted(file_id: str) -> str:
    """Quote an id as one segment of a path, dots included, which `..` would climb by."""
    return segment(file_id).replace(".", "%2E")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json_to_send(value).decode()


def _is_envelope(answer: HttpAnswer) -> bool:
    """Return whether an envelope came in place of the file, whose name the server would have given."""
    if "content-disposition" in answer.headers:
        return False
    # a file may be large and may be JSON: its first bytes are looked at before it is read as a whole
    if not text_of(answer.body[:64], answer.content_type).lstrip().startswith("{"):
        return False
    body = read_body(answer.body, answer.content_type).value
    return isinstance(body, dict) and _own(lenient.read(Envelope, body)[0])


def read(call: Call, answer: HttpAnswer, url: str) -> Reply:
    """Read an HTTP answer: the bytes of a download, or the application's own where there is an envelope in it."""
    if isinstance(call.operation, op.Download) and answer.status == 200 and not _is_envelope(answer):
        value = (answer.body, answer.headers.get("content-disposition", ""))
        return Reply(kind=ResponseKind.GOOD, response=Response(status=200, url=url), value=value)
    document = read_body(answer.body, answer.content_type)
    body = document.value
    response = Response(status=answer.status, body=body, errors=errors_of(body), url=url)
    # a poll that was refused for a typing preview that is too long, and for nothing else
    codes = {str(error.get("code")) for error in response.errors} if response.errors else None
    if codes == {TEXT_TOO_LONG} and isinstance(call.operation, op.Refresh):
        return Reply(kind=ResponseKind.PREVIEW_REFUSED, response=response)
    if answer.status == 429:  # before the body is judged: one from something in between has no envelope
        return Reply(kind=ResponseKind.THROTTLED, response=response, retry_after=retry_after(answer))
    good = answer.good
    if document.fault and good:
        return unreadable(call.operation.name, response, document.fault)
    reply = read_envelope(call.operation, call.session_data, body, response, document.misread)
    if not good:
        return _with_status(call, answer, reply, response)
    return reply if isinstance(call.operation, _CARRIES_TRANSCRIPT) else replace(reply, received=(), next_position=None)


def _with_status(call: Call, answer: HttpAnswer, reply: Reply, response: Response) -> Reply:
    """Read an HTTP status that is none of success. Only an envelope may say what became of the chat beside it.

    statusCode 0 contradicts the status. A start that failed began nothing, so that its envelope is not read.
    """
    if reply.kind in (ResponseKind.UNAVAILABLE, ResponseKind.REFUSED) and not isinstance(call.operation, op.Start):
        kind = ResponseKind.LOST if reply.over else reply.kind
        return replace(reply, kind=kind, received=(), next_position=None, retry_after=retry_after(answer))
    return refused_between(call.operation.name, answer, response)


def read_envelope(
    operation: Operation | None, known: SessionData, body: Any, response: Response, misread: tuple[str, ...] = ()
) -> Reply:
    """Read an envelope: what it says, the ids it carries and the events in it. A push answers no operation: None."""
    name = operation.name if operation else "push"
    if not isinstance(body, dict):
        return unreadable(name, response, f"expected an envelope, got {lenient.kind_of(body)} - at `$`")
    envelope, more = lenient.read(Envelope, body)
    if not _own(envelope):
        why = "expected an envelope, got an object without statusCode 0, 1 or 2 and without messages - at `$`"
        return unreadable(name, response, why)
    kind = _KINDS.get(envelope.status_code or 0, ResponseKind.REFUSED)
    required, lack = _REQUIRED.get(type(operation), ((), ""))
    if kind is ResponseKind.GOOD and not all(getattr(envelope, member, None) for member in required):
        return unreadable(name, response, lack)
    limits, more_still = _limits_of(envelope) if isinstance(operation, op.FileLimits) else (None, ())
    return Reply(
        kind=kind,
        response=response,
        session_data=_session_data(known, envelope, body),
        received=_received(envelope, body) if envelope.messages else (),
        chat_ended=bool(envelope.chat_ended),
        idle_time_count_down=envelope.idle_timer_expire,
        limits=limits,
        next_position=envelope.next_position,
        misread=misread + more + more_still,
    )


def _own(envelope: Envelope) -> bool:
    """Return whether an object is an envelope of the chat server; others come from something in between."""
    return envelope.status_code in _KINDS or envelope.messages is not None


_REQUIRED: dict[type[Operation | None], tuple[tuple[str, ...], str]] = {
    op.Start: (("chat_id", "secure_key"), "a start without chatId and secureKey - at `$`"),
    op.Download: (("file",), "an envelope in place of the file - at `$`"),  # which no envelope has
}
"""The members that a good envelope must have by its operation, and the text for one that lacks them."""


_IDS = (
    ("chatId", "chat_id", "session_id"),
    ("secureKey", "secure_key", "secure_key"),
    ("alias", "alias", "alias"),
    ("userId", "user_id", "user_id"),
)
"""The ids of a chat: on the wire, in an envelope and in the session data."""


def _session_data(known: SessionData, envelope: Envelope, body: Json) -> SessionData | None:
    """Return the ids of the chat after an answer. A text renews one that is known; a value of another kind does not.

    It can be the same id spoilt on its way, as a number without its leading zeros, and a wrong key loses the chat.
    """
    if envelope.chat_id is None and envelope.secure_key is None and envelope.alias is None:
        return None
    said = envelope.chat_id, envelope.secure_key, envelope.alias, envelope.user_id
    if said == (known.session_id, known.secure_key, known.alias, known.user_id):  # as in nearly every answer
        return known
    ids: dict[str, str] = {}
    for on_wire, member, name in _IDS:
        now, before = getattr(envelope, member), getattr(known, name)
        ids[name] = now if now and (not before or isinstance(body[on_wire], str)) else before
    return SessionData(**ids)


def _received(envelope: Envelope, body: Json) -> tuple[ReceivedMessage, ...]:
    # strict, as the lenient reader keeps one event for each element, be it an object or not
    pairs = zip(envelope.messages or (), listed(body, "messages"), strict=True)
    # lists and no generators here, and a short way for texts: an answer may hold thousands of messages
    senders: dict[object, Sender] = {}  # by what names them, as a few participants send all of it
    received = [
        ReceivedMessage(_message(event, senders), original, None if event.index is None else (event.index,))
        for event, original in pairs
    ]
    return tuple(received)


def _message(event: WireEvent, senders: dict[object, Sender]) -> Message:
    attributes, party = event.event_attributes, event.party
    if event.type == "Message" and attributes is None and not event.user_data and party is not None:
        key = party.participant_id, party.type, party.nickname
        if (sender := senders.get(key)) is None:
            sender = senders[key] = _sender(party, None)
        return Message(index=event.index, text=event.text or "", sender=sender, timestamp=event.utc_time or 0)
    typing = event.type in ("TypingStarted", "TypingStopped")
    return Message(
        index=event.index,
        type=event.type,
        text=(attributes and _structured(attributes)) or event.text or "",
        sender=_sender(event.party or _UNNAMED, attributes),
        timestamp=event.utc_time or 0,
        user_data=event.user_data or {},
        is_typing=event.type == "TypingStarted" if typing else None,
        file_details=event.user_data or {} if event.type == "FileUploaded" else None,
        extra={} if attributes is None else {"eventAttributes": attributes},
    )


def _sender(party: WireParty, attributes: Any) -> Sender:
    """Return the sender, a bot where the party style says so: the wire calls bots agents or externals."""
    kind = "Bot" if attributes and _is_bot(attributes) else party.type or ""
    return Sender(id=party.participant_id or 0, type=kind, name=party.nickname or "")


def _is_bot(attributes: Any) -> bool:
    return bool(_inside(_inside(_inside(attributes, "GCTI_SYSTEM"), "party-info"), "style") == "BOT")


def _structured(attributes: Any) -> str:
    """Return the fallback text of structured content, empty where there is none."""
    content = _inside(_inside(_inside(attributes, "structured-content"), "genesys-chat"), "content")
    fallback = _inside(content, "text")
    return fallback if isinstance(fallback, str) else ""


def _inside(value: Any, key: str) -> Any:
    """Return a member of an object that may be JSON text instead."""
    found = value if isinstance(value, dict) else object_in(value)
    return None if found is None else found.get(key)


def _limits_of(envelope: Envelope) -> tuple[Limits, tuple[str, ...]]:
    notices = [event.user_data for event in envelope.messages or () if event.user_data]
    said, misread = lenient.read(WireLimits, notices[0] if notices else envelope.user_data or {})
    limits = Limits(
        max_files=said.max_files,
        max_file_size=said.max_file_size,
        max_total_size=said.max_total_size,
        file_types=tuple(kind.strip().lower() for kind in (said.file_types or "").split(":") if kind.strip()),
        used_files=said.used_files or 0,
        used_total_size=said.used_total_size or 0,
    )
    return limits, misread
