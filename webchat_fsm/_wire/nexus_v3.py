"""The Nexus chat API version 3 over REST: bracketed forms out, ``{status, operationId, data}`` back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, assert_never
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from webchat_fsm._config import Config, TransportConfig
from webchat_fsm._core import operations as op
from webchat_fsm._core.operations import Operation
from webchat_fsm._core.paging import WHOLE_TRANSCRIPT
from webchat_fsm._core.steps import Call, ReceivedMessage, Reply, ResponseKind, rank
from webchat_fsm._model import BayeuxFrame, Json, Message, Response, Sender, SessionData
from webchat_fsm._wire import lenient
from webchat_fsm._wire.decoding import Document, read_body, session_of
from webchat_fsm._wire.lenient import Stamp
from webchat_fsm._wire.request import (
    FORM,
    HttpAnswer,
    Request,
    bounds,
    bracketed,
    form,
    listed,
    not_offered,
    parameters,
    part,
    refused_between,
    retry_after,
    segment,
    text,
    unreadable,
)

BEFORE_ALL = "0-0"
"""The index behind which the whole transcript stands."""

TYPES = {"Text": "Message"}
PARTIES = {"Customer": "Client"}
"""Names of the wire and of the bus, where they differ."""

FORM_FIELDS = {"firstname": "firstName", "lastname": "lastName"}


class WireParty(Struct, frozen=True, rename="camel"):
    """`from` of a message."""

    type: str | None = None
    participant_id: int | str | None = None
    nickname: str | None = None
    first_name: str | None = None

    @property
    def sender(self) -> Sender:
        """Return the sender by the names of the bus."""
        kind, known = self.type or "", self.participant_id
        name = self.nickname or self.first_name or ""
        key = "" if known is None else str(known)
        return Sender(id=key, type=PARTIES.get(kind, kind), name=name, participant_id=key)


_UNNAMED = WireParty()


class WireMessage(Struct, frozen=True, rename="camel"):
    """A message as it travels; its type may be any text."""

    type: str = ""
    party: WireParty | None = field(default=None, name="from")
    index: int | str | None = None
    utc_time: Stamp | None = None
    text: str | None = None
    url: str | None = None
    user_data: dict[str, Any] | None = None
    content: Any = None


class WireStatus(Struct, frozen=True):
    """How an operation went; a code that is no text says nothing."""

    code: str | None = None
    message: str | None = None


class WireData(Struct, frozen=True, rename="camel"):
    """What the client reads of `data`."""

    client_token: str | None = None
    messages: list[WireMessage] | None = None
    chat_ended: bool | None = None


class WireEnvelope(Struct, frozen=True):
    """The answer to every operation. A null says nothing."""

    status: WireStatus | None = None
    data: WireData | None = None


NO_ENVELOPE = "expected an object with a status code, or with messages or a token in its data, got {} - at `$`"

_SAYING = (op.Start, op.Resume, op.Refresh, op.Restore, op.History)
"""Operations whose answers say something; those to others may be empty, as HTTP status 204 has it."""

_WELL = frozenset({None, "", "SUCCESS", "0"})
"""Codes of success, and of nothing said."""

Fields = list[tuple[str, str]]
Target = tuple[str, str, Fields]
"""Method, path behind the dataURL with its query, and form fields."""


class NexusV3:
    """The v3 dialect of one configuration."""

    __slots__ = ("_base", "_config", "_content_base", "_headers", "_section")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._section: TransportConfig = config.transport or TransportConfig()
        self._base = self._section.data_url.rstrip("/")
        self._content_base = self._base.removesuffix("/sessions")
        self._headers = {**config.client.headers, **self._section.headers}

    def request(self, call: Call) -> Request:
        """Build the request that carries a call."""
        operation = call.operation
        method, path, fields = self._target(operation, call.session_data)
        number, token = [("operationId", str(uuid.uuid4()))], call.session_data.token
        content: dict[str, Any] = {}
        if isinstance(operation, op.SendFile):
            content = {"parts": (("file", part(operation)), *number)}
        elif method != "GET":
            content = {"body": form(number + fields), "content_type": FORM}
        timeout, max_size = bounds(self._config, operation)
        return Request(
            operation=operation.name,
            method=method,
            url=self._asking(operation, path) if method == "GET" else self._url(path),
            headers=self._headers | ({"x-nexus-client-key": token} if token else {}),
            timeout=timeout,
            repeatable=method == "GET",
            repeat_url=partial(self._repeat, operation, call.session_data)
            if isinstance(operation, op.Refresh)
            else None,
            max_size=max_size,
            **content,
        )

    def _asking(self, operation: Operation, path: str) -> str:
        """Return the URL of a GET, with an operation id of its own."""
        url = self._url(path)
        if isinstance(operation, op.Fetch):
            return url
        return url + ("&" if "?" in url else "?") + parameters({"operationId": str(uuid.uuid4())})

    def _repeat(self, poll: op.Refresh, known: SessionData) -> str:
        """Return the URL for a repetition of a poll.

        It names the last index seen, as the server may have moved its own cursor on with the lost answer.
        """
        again = replace(poll, catch_up=True)
        return self._asking(again, self._target(again, known)[1])

    def _url(self, path: str) -> str:
        return path if urlsplit(path).scheme else self._base + path

    def reply(self, call: Call, answer: HttpAnswer, url: str) -> Reply:
        """Read the answer to a call that was sent to `url`."""
        if isinstance(call.operation, op.Fetch) and answer.status == 200:
            return Reply(kind=ResponseKind.GOOD, response=Response(status=200, url=url), value=answer.body)
        document = read_body(answer.body, answer.content_type) if answer.body.strip() else Document({})
        response = Response(status=answer.status, body=document.value, url=url)
        envelope, misread = lenient.read(WireEnvelope, document.value)
        silent = answer.good and document.value == {} and not isinstance(call.operation, _SAYING)
        if not (silent or _own(document.value, envelope)):
            if answer.good:
                return unreadable(
                    call.operation.name, response, document.fault or NO_ENVELOPE.format(lenient.kind_of(document.value))
                )
            if answer.status != 429:
                return refused_between(call.operation.name, answer, response)
        return self._read(call, answer, envelope, response, document.misread + misread)

    def _read(
        self, call: Call, answer: HttpAnswer, envelope: WireEnvelope, response: Response, misread: tuple[str, ...]
    ) -> Reply:
        status = envelope.status or WireStatus()
        kind = self._kind(call, answer, status.code or "")
        if kind is not ResponseKind.GOOD:
            shown = response if kind is ResponseKind.LOST else self._with_error(response, status)
            return Reply(kind=kind, response=shown, retry_after=retry_after(answer))
        data = envelope.data or WireData()
        session_data = None
        if isinstance(call.operation, op.Start | op.Resume):
            try:
                session_data = session_of(data.client_token or "")
            except ValueError as error:
                return unreadable(call.operation.name, response, f"{error} - at `$.data.clientToken`")
        return Reply(
            kind=ResponseKind.GOOD,
            response=response,
            session_data=session_data,
            received=self._received(data, response.body),
            place=_place(response.body) if isinstance(call.operation, op.Send) else None,
            # a page of history does not end the chat: the last messages are still to come by poll
            chat_ended=bool(data.chat_ended) and not isinstance(call.operation, op.History),
            misread=misread,
        )

    def _kind(self, call: Call, answer: HttpAnswer, code: str) -> ResponseKind:
        # 401 loses the session during an asynchronous restore alone; in a live one it is a failed poll
        resuming = self._section.asynchronous.enabled and isinstance(call.operation, op.Resume | op.Restore)
        if code == "INVALID_SESSION" or (answer.status == 401 and resuming and code not in _WELL):
            return ResponseKind.LOST
        if answer.status == 429:
            return ResponseKind.THROTTLED
        return ResponseKind.GOOD if answer.good and code in _WELL else ResponseKind.BAD

    def _with_error(self, response: Response, status: WireStatus) -> Response:
        code = "" if status.code in _WELL else status.code
        if not (code or status.message):
            return response
        error: Json = {"code": f"{self._section.type}-{code}" if code else "", "text": status.message or ""}
        return Response(status=response.status, body=response.body, errors=[error], url=response.url)

    def _received(self, data: WireData, body: Any) -> tuple[ReceivedMessage, ...]:
        originals = listed(body.get("data"), "messages")
        return tuple(
            ReceivedMessage(
                self._message(message, original, sender := (message.party or _UNNAMED).sender),
                _original(original, sender),
                rank(message.index),
            )
            for message, original in zip(data.messages or (), originals, strict=True)
        )

    def _message(self, message: WireMessage, original: Any, sender: Sender) -> Message:
        typing = message.type in ("TypingStarted", "TypingStopped")
        said = original if isinstance(original, dict) else {}
        kept = {key: value for key, value in said.items() if key not in _NORMALISED}
        if isinstance(message.content, list):
            kept["content"] = [self._resolved(item) for item in message.content]
        return Message(
            index=None if message.index is None else str(message.index).replace("-", ""),
            type=TYPES.get(message.type, message.type),
            text=(message.url if message.type == "PushUrl" and message.url else message.text) or "",
            sender=sender,
            timestamp=message.utc_time or 0,
            user_data=message.user_data or {},
            is_typing=message.type == "TypingStarted" if typing else None,
            extra=kept,
        )

    def _resolved(self, item: Any) -> Any:
        """Return an item of `content`, its relative URL made absolute."""
        if not (isinstance(item, dict) and isinstance(item.get("url"), str) and item["url"].startswith("/")):
            return item
        return {**item, "url": self._content_base + item["url"]}

    # -- operations ------------------------------------------------------------------------------------------------

    def _target(self, operation: Operation, known: SessionData) -> Target:
        """Return method, path and form fields of an operation."""
        match operation:
            case op.Start():
                return "POST", "", self._start_fields(operation.form, operation.user_data)
            case op.Resume():
                return "POST", "", self._start_fields({}, operation.user_data)
            case op.Fetch(url=url):
                return "GET", self._content_base + url if url.startswith("/") else url, []
            case _:
                method, path, fields = self._in_session(operation, known)
                return method, f"/{segment(known.session_id)}/{path}", fields

    def _start_fields(self, given: Mapping[str, Any], user_data: Json) -> Fields:
        data = {FORM_FIELDS.get(key, key): value for key, value in given.items() if value not in (None, "")}
        if "nickname" not in data and "firstName" in data:
            data["nickname"] = data["firstName"]
        section = self._section
        named = {"endpoint": section.endpoint, "stream": section.stream, "clientType": section.client_type}
        user_data = dict(user_data)
        if "phone" in user_data:
            user_data["PhoneNumber"] = text(user_data["phone"])
        data = {**data, **{key: value for key, value in named.items() if value}, "userData": user_data}
        return bracketed("data", data)

    def _in_session(self, operation: Operation, known: SessionData) -> Target:  # noqa: C901 - one case an operation
        """Return method, path behind the session's and form fields of an operation on a session."""
        match operation:
            case op.Refresh():
                return "GET", f"messages{_after(operation)}", []
            case op.Restore(before=before):
                pages = self._section.asynchronous.enabled
                return "GET", _page(before, self._section.max_message_page_size if pages else WHOLE_TRANSCRIPT), []
            case op.History(before=before):
                return "GET", _page(before, self._section.max_message_page_size), []
            case op.Send(message=message):
                return _post("Text", message)
            case op.StartTyping(preview=preview):
                return _post("TypingStarted", preview)
            case op.StopTyping(preview=preview):
                return _post("TypingStopped", preview)
            case op.UpdateData(user_data=user_data):
                return "PUT", "userdata", bracketed("data", user_data)
            case op.Disconnect():
                return "DELETE", f"participants/{segment(known.participant_id)}", []
            case op.SendFile():
                return "POST", "images", []
            case (
                op.NoRequest()
                | op.Start()
                | op.Resume()
                | op.Fetch()
                | op.CustomNotice()
                | op.FileLimits()
                | op.Download()
                | BayeuxFrame()
            ):
                raise not_offered(operation)
            case _:
                assert_never(operation)


def _after(refresh: op.Refresh) -> str:
    """Return the query of a poll: empty where the server's own cursor is right."""
    if not refresh.catch_up:
        return ""
    seen = refresh.position
    return "?" + parameters({"index": BEFORE_ALL if seen == 1 else str(seen)})


def _page(before: object, count: int) -> str:
    """Ask for a page: the newest one, or the one that ends with the index `before`."""
    query = {**({} if before is None else {"index": str(before)}), "count": str(count)}
    return f"messages?{parameters(query)}"


def _post(kind: str, message: str) -> Target:
    return "POST", "messages", bracketed("data", {"type": kind, "text": message})


_NORMALISED = frozenset({"index", "type", "text", "from", "userData", "timestamp", "restoring"})


def _place(body: Any) -> tuple[int, ...] | None:
    """Read where a message that was sent stands, as far as the answer says so."""
    data = body.get("data") if isinstance(body, dict) else None
    index = data.get("index") if isinstance(data, dict) else None
    return rank(index) if isinstance(index, int | str) else None


def _original(original: Any, sender: Sender) -> Any:
    """Return the wire's object, its sender named as on the bus; what is no object, or no sender, stays as it came."""
    party = original.get("from") if isinstance(original, dict) else original
    if not (party is None or isinstance(party, dict)) or original is party:
        return original
    return {**original, "from": {**(party or {}), "name": sender.name, "id": sender.id, "type": sender.type}}


def _own(body: Any, envelope: WireEnvelope) -> bool:
    """Return whether a body is the application's own: its code is a text or 0, or its data are those of a chat.

    Others come from something in between: data alone prove nothing, as other services have an object of that name.
    """
    if not isinstance(body, dict):
        return False
    status, data = body.get("status"), envelope.data
    code = status.get("code") if isinstance(status, dict) else None
    if isinstance(code, str) or (code == 0 and code is not False):
        return True
    return data is not None and (data.messages is not None or data.client_token is not None)
