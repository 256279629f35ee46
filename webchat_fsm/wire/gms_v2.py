"""The GMS Chat API version 2 over REST: form posts out, one JSON envelope back for every operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Arrival, Limits, Reply, Verdict
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.encoding import json_to_send
from webchat_fsm.lifecycle.words import Json, Message, Response, Sender, SessionData, scalars
from webchat_fsm.wire import lenient
from webchat_fsm.wire.decoding import object_in, read_body, text_of
from webchat_fsm.wire.lenient import Amount, Moment, Position
from webchat_fsm.wire.request import (
    FORM,
    FilePart,
    HttpAnswer,
    Request,
    bare,
    bracketed,
    errors_of,
    form,
    listed,
    part,
    refused_between,
    retry_after,
    segment,
    text,
    unreadable,
)

Fields = list[tuple[str, str]]


class WireParty(Struct, frozen=True, rename="camel"):
    """`from` of an event."""

    nickname: str | None = None
    participant_id: int | str | None = None
    type: str | None = None


class WireEvent(Struct, frozen=True, rename="camel"):
    """An event of the transcript; its type is whatever the server says."""

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

_CARRIES_TRANSCRIPT = frozenset({"refresh", "restore"})
"""Operations whose messages are taken: no other request asks for them, and the first poll asks from position 1."""

TEXT_TOO_LONG = "204"
"""The server's error for a text that is too long, a typing preview's too."""

_VERDICTS = {0: Verdict.GOOD, 1: Verdict.UNAVAILABLE, 2: Verdict.REFUSED}


class GmsV2:
    """The v2 dialect of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._base = config.data_url.rstrip("/")

    def request(self, call: Call) -> Request:
        """The POST that carries a call; every operation of this API is one."""
        path, fields = _OPERATIONS[call.operation](self, call)
        upload = call.operation == "file"
        content = {"parts": self._upload(call)} if upload else {"body": form(fields), "content_type": FORM}
        config = self._config
        limit = config.file_upload_timeout if upload else config.ajax_timeout
        download = call.operation == "download"
        return Request(
            operation=call.operation,
            method="POST",
            url=self._base + path,
            headers=headers(config),
            timeout=limit / 1000 if limit else None,
            repeatable=call.operation in ("refresh", "restore", "limits"),
            max_size=config.client.max_download_size if download else config.client.max_answer_size,
            **content,
        )

    def reply(self, call: Call, answer: HttpAnswer) -> Reply:
        """What an answer to the call means."""
        url = bare(self._base + _OPERATIONS[call.operation](self, call)[0])
        return read_file(call, answer, url)

    def _start(self, call: Call) -> tuple[str, Fields]:
        slash = "/" if self._config.enable_url_trailing_slash else ""
        fields = [(wire, text(call.fields["form"].get(given))) for given, wire in START_FIELDS]
        if self._config.endpoint:
            fields.append(("endpoint", self._config.endpoint))
        return slash, [pair for pair in fields if pair[1]] + bracketed("userData", call.fields["user_data"])

    def _at(self, call: Call, operation: str, fields: Fields) -> tuple[str, Fields]:
        return f"/{quoted(call.session_data.session_id)}/{operation}", credentials(call.session_data) + fields

    def _refresh(self, call: Call) -> tuple[str, Fields]:
        position, preview = str(call.fields.get("position", 1)), str(call.fields.get("message", ""))
        return self._at(call, "refresh", [("transcriptPosition", position), ("message", preview)])

    def _send(self, call: Call) -> tuple[str, Fields]:
        fields = [("message", call.fields["message"]), ("messageType", str(call.fields.get("type") or "text"))]
        if parent := call.fields.get("parentMessageID"):
            fields.append(("eventAttributes", _json({"general-properties": {"related-event-id": str(parent)}})))
        return self._at(call, "send", fields)

    def _typing(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, call.operation, [("message", str(call.fields.get("message", "")))])

    def _disconnect(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, "disconnect", [])

    def _update_data(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, "updateData", bracketed("userData", call.fields["user_data"]))

    def _custom_notice(self, call: Call) -> tuple[str, Fields]:
        fields = [("message", call.fields["message"])]
        if attributes := call.fields.get("eventAttributes"):
            fields.append(("eventAttributes", _json(attributes)))
        if kind := call.fields.get("messageType"):
            fields.append(("messageType", str(kind)))
        return self._at(call, "customNotice", fields)

    def _limits(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, "file/limits", [])

    def _file(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, "file", [])

    def _download(self, call: Call) -> tuple[str, Fields]:
        return self._at(call, f"file/{quoted(call.fields['file_id'])}/download", [])

    def _upload(self, call: Call) -> tuple[tuple[str, str | FilePart], ...]:
        known = [(name, scalars(value)) for name, value in credentials(call.session_data)]
        return (*known, ("file", part(call)))


START_FIELDS = (
    ("nickname", "nickname"),
    ("firstname", "firstName"),
    ("lastname", "lastName"),
    ("email", "emailAddress"),
    ("subject", "subject"),
)
"""The form fields of startChat and their names on the wire."""

_OPERATIONS: dict[str, Callable[[GmsV2, Call], tuple[str, Fields]]] = {
    "start": GmsV2._start,
    "refresh": GmsV2._refresh,
    "restore": GmsV2._refresh,
    "send": GmsV2._send,
    "startTyping": GmsV2._typing,
    "stopTyping": GmsV2._typing,
    "disconnect": GmsV2._disconnect,
    "updateData": GmsV2._update_data,
    "customNotice": GmsV2._custom_notice,
    "limits": GmsV2._limits,
    "file": GmsV2._file,
    "download": GmsV2._download,
}


def headers(config: Config) -> dict[str, str]:
    """The headers of every request: `apikey`, the custom ones, and those of `client.headers`."""
    chosen = dict(config.client.headers)
    if config.apikey:
        chosen["apikey"] = config.apikey
    return {**chosen, **config.custom_headers} if config.enable_custom_header else chosen


def credentials(session_data: SessionData) -> Fields:
    """What every operation on a session repeats."""
    return [
        ("userId", session_data.user_id),
        ("secureKey", session_data.secure_key),
        ("alias", session_data.alias),
    ]


def quoted(file_id: str) -> str:
    """A file id as one path segment, whatever it holds."""
    return segment(file_id).replace(".", "%2E")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json_to_send(value).decode()


def read_file(call: Call, answer: HttpAnswer, url: str) -> Reply:
    """Read an HTTP answer that may be the bytes of a download."""
    if call.operation == "download" and answer.status == 200 and not _is_envelope(answer):
        value = (answer.body, answer.headers.get("content-disposition", ""))
        return Reply(verdict=Verdict.GOOD, response=Response(status=200, url=url), value=value)
    return read(call, answer, url)


def _is_envelope(answer: HttpAnswer) -> bool:
    """Whether the server says something in place of the file, which it would name."""
    if "content-disposition" in answer.headers:
        return False
    if not text_of(answer.body[:64], answer.content_type).lstrip().startswith("{"):
        return False
    body = read_body(answer.body, answer.content_type).value
    return isinstance(body, dict) and _own(lenient.read(Envelope, body)[0])


def read(call: Call, answer: HttpAnswer, url: str) -> Reply:
    """Read an HTTP answer, which is the application's own where there is an envelope in it."""
    document = read_body(answer.body, answer.content_type)
    body = document.value
    response = Response(status=answer.status, body=body, errors=errors_of(body), url=url)
    if _is_preview_refused(call, response):
        return Reply(verdict=Verdict.PREVIEW_REFUSED, response=response)
    if answer.status == 429:
        return Reply(verdict=Verdict.THROTTLED, response=response, retry_after=retry_after(answer))
    if document.fault and answer.good:
        return unreadable(call, response, document.fault)
    reply = read_envelope(call, body, response, document.misread)
    if not answer.good:
        return _with_status(call, answer, reply, response)
    return reply if call.operation in _CARRIES_TRANSCRIPT else replace(reply, arrivals=(), next_position=None)


def _with_status(call: Call, answer: HttpAnswer, reply: Reply, response: Response) -> Reply:
    """Read an HTTP status that is none of success. Only an envelope may say what became of the chat beside it.

    statusCode 0 contradicts the status. A start that failed began nothing, whatever the envelope says.
    """
    if reply.verdict in (Verdict.UNAVAILABLE, Verdict.REFUSED) and call.operation != "start":
        verdict = Verdict.LOST if reply.over else reply.verdict
        return replace(reply, verdict=verdict, arrivals=(), next_position=None, retry_after=retry_after(answer))
    return refused_between(call, answer, response)


def _is_preview_refused(call: Call, response: Response) -> bool:
    """Whether a poll was answered with nothing but that its typing preview is too long."""
    codes = {str(error.get("code")) for error in response.errors}
    return call.operation == "refresh" and codes == {TEXT_TOO_LONG}


def read_envelope(call: Call, body: Any, response: Response, misread: tuple[str, ...] = ()) -> Reply:
    """Read an envelope: what it says, the ids it carries and the events in it."""
    if not isinstance(body, dict):
        return unreadable(call, response, f"expected an envelope, got {lenient.kind_of(body)} - at `$`")
    envelope, more = lenient.read(Envelope, body)
    if not _own(envelope):
        why = "expected an envelope, got an object without statusCode 0, 1 or 2 and without messages - at `$`"
        return unreadable(call, response, why)
    verdict = _VERDICTS.get(envelope.status_code or 0, Verdict.REFUSED)
    if lack := _lack(call, envelope, verdict):
        return unreadable(call, response, lack)
    limits, more_still = _limits_of(envelope) if call.operation == "limits" else (None, ())
    return Reply(
        verdict=verdict,
        response=response,
        session_data=_session_data(call, envelope, body),
        arrivals=_arrivals(envelope, body),
        chat_ended=bool(envelope.chat_ended),
        idle_time_count_down=envelope.idle_timer_expire,
        limits=limits,
        next_position=envelope.next_position,
        misread=misread + more + more_still,
    )


def _own(envelope: Envelope) -> bool:
    """Return whether an object is an envelope of the chat server; others come from something in between."""
    return envelope.status_code in _VERDICTS or envelope.messages is not None


def _lack(call: Call, envelope: Envelope, verdict: Verdict) -> str:
    """What a good answer must have and this one has not."""
    if verdict is not Verdict.GOOD:
        return ""
    if call.operation == "start" and not (envelope.chat_id and envelope.secure_key):
        return "a start without chatId and secureKey - at `$`"
    if call.operation == "download":
        return "an envelope in place of the file - at `$`"
    return ""


def _session_data(call: Call, envelope: Envelope, body: Json) -> SessionData | None:
    """The ids of the chat after an answer. A text renews one that is known; a value of another kind does not.

    It can be the same id spoilt on its way, as a number without its leading zeros, and a wrong key loses the chat.
    """
    if envelope.chat_id is None and envelope.secure_key is None and envelope.alias is None:
        return None
    known = call.session_data

    def chosen(on_wire: str, said: str | None, before: str) -> str:
        return said if said and (not before or isinstance(body[on_wire], str)) else before

    return SessionData(
        session_id=chosen("chatId", envelope.chat_id, known.session_id),
        secure_key=chosen("secureKey", envelope.secure_key, known.secure_key),
        alias=chosen("alias", envelope.alias, known.alias),
        user_id=chosen("userId", envelope.user_id, known.user_id),
    )


def _arrivals(envelope: Envelope, body: Json) -> tuple[Arrival, ...]:
    return tuple(
        Arrival(_message(event), original, None if event.index is None else (event.index,))
        for event, original in zip(envelope.messages or (), listed(body, "messages"), strict=True)
    )


def _message(event: WireEvent) -> Message:
    attributes = event.event_attributes
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
    """The sender, a bot where the party style says so: the wire calls bots agents or externals."""
    kind = "Bot" if attributes and _is_bot(attributes) else party.type or ""
    return Sender(id=party.participant_id or 0, type=kind, name=party.nickname or "")


def _is_bot(attributes: Any) -> bool:
    return bool(_inside(_inside(_inside(attributes, "GCTI_SYSTEM"), "party-info"), "style") == "BOT")


def _structured(attributes: Any) -> str:
    """The fallback text of structured content, empty where there is none."""
    content = _inside(_inside(_inside(attributes, "structured-content"), "genesys-chat"), "content")
    fallback = _inside(content, "text")
    return fallback if isinstance(fallback, str) else ""


def _inside(value: Any, key: str) -> Any:
    """A member of an object that may be JSON text instead."""
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
