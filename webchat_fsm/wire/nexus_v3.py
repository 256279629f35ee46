"""The Nexus chat API version 3 over REST: bracketed forms out, ``{status, operationId, data}`` back."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from webchat_fsm.config import Config, TransportSection
from webchat_fsm.core.facts import Arrival, Reply, Verdict, rank
from webchat_fsm.core.paging import WHOLE_TRANSCRIPT
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.words import Json, Message, Response, Sender, SessionData
from webchat_fsm.wire import lenient
from webchat_fsm.wire.decoding import Document, read_body
from webchat_fsm.wire.lenient import Stamp
from webchat_fsm.wire.request import (
    FORM,
    HttpAnswer,
    Request,
    bare,
    bracketed,
    form,
    listed,
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

TOKEN = re.compile(r"[\x21-\x7e]{1,8000}")
"""What a header can carry as a token."""


class WireParty(Struct, frozen=True, rename="camel"):
    """`from` of a message."""

    type: str | None = None
    participant_id: int | str | None = None
    nickname: str | None = None
    first_name: str | None = None

    @property
    def sender(self) -> Sender:
        """The sender by the names of the bus."""
        kind, known = self.type or "", self.participant_id
        name = self.nickname or self.first_name or ""
        key = "" if known is None else str(known)
        return Sender(id=key, type=PARTIES.get(kind, kind), name=name, participant_id=key)


_NOBODY = WireParty()


class WireMessage(Struct, frozen=True, rename="camel"):
    """A message as it travels; its type is whatever the server says."""

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


class Claims(Struct, frozen=True, rename="camel"):
    """What a client token says of itself; its signature is the server's affair."""

    session_id: str
    participant_id: str
    transport_id: str = ""


NO_ENVELOPE = "expected an object with a status code, or with messages or a token in its data, got {} - at `$`"

_SAYING = frozenset({"start", "resume", "refresh", "restore", "history"})
"""Operations whose answers say something; those to others may be empty, as HTTP status 204 has it."""

_WELL = frozenset({None, "", "SUCCESS", "0"})
"""Codes of success, and of nothing said."""

Target = tuple[str, str, list[tuple[str, str]]]
"""Method, path behind the dataURL with its query, and form fields."""


class NexusV3:
    """The v3 dialect of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._section: TransportSection = config.transport or TransportSection()
        self._base = self._section.data_url.rstrip("/")
        self._content_base = self._base.removesuffix("/sessions")

    def request(self, call: Call) -> Request:
        """The request that carries a call."""
        method, path, fields = _OPERATIONS[call.operation](self, call)
        operation = [("operationId", str(uuid.uuid4()))]
        url = self._url(path)
        content: dict[str, Any] = {}
        if call.operation == "file":
            content = {"parts": (("file", part(call)), *operation)}
        elif method == "GET":
            url = self._asking(call, path)
        else:
            content = {"body": form(operation + fields), "content_type": FORM}
        upload = call.operation == "file"
        limit = self._config.file_upload_timeout if upload else self._config.ajax_timeout
        client = self._config.client
        return Request(
            operation=call.operation,
            method=method,
            url=url,
            headers=self._headers(call),
            timeout=limit / 1000 if limit else None,
            repeatable=method == "GET",
            repeat_url=self._repeat(call),
            max_size=client.max_download_size if call.operation == "fetch" else client.max_answer_size,
            **content,
        )

    def _asking(self, call: Call, path: str) -> str:
        """The url of a GET, with an operation id of its own."""
        url = self._url(path)
        if call.operation == "fetch":
            return url
        return url + ("&" if "?" in url else "?") + parameters({"operationId": str(uuid.uuid4())})

    def _repeat(self, call: Call) -> str:
        """Where a poll is repeated: the server may have moved its cursor on, so that it is told what was seen."""
        if call.operation != "refresh":
            return ""
        again = replace(call, fields={**call.fields, "catch_up": True})
        return self._asking(again, self._refresh(again)[1])

    def _url(self, path: str) -> str:
        return path if urlsplit(path).scheme else self._base + path

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {**self._config.client.headers, **self._section.headers}
        if call.session_data.token:
            headers["x-nexus-client-key"] = call.session_data.token
        return headers

    def reply(self, call: Call, answer: HttpAnswer) -> Reply:
        """What an answer to the call means."""
        url = bare(self._url(_OPERATIONS[call.operation](self, call)[1]))
        if call.operation == "fetch" and answer.status == 200:
            return Reply(verdict=Verdict.GOOD, response=Response(status=200, url=url), value=answer.body)
        document = read_body(answer.body, answer.content_type) if answer.body.strip() else Document({})
        response = Response(status=answer.status, body=document.value, url=url)
        envelope, misread = lenient.read(WireEnvelope, document.value)
        silent = answer.good and document.value == {} and call.operation not in _SAYING
        if not (silent or _own(document.value, envelope)):
            if answer.good:
                return unreadable(call, response, document.fault or NO_ENVELOPE.format(lenient.kind_of(document.value)))
            if answer.status != 429:
                return refused_between(call, answer, response)
        return self._read(call, answer, envelope, response, document.misread + misread)

    def _read(
        self, call: Call, answer: HttpAnswer, envelope: WireEnvelope, response: Response, misread: tuple[str, ...]
    ) -> Reply:
        status = envelope.status or WireStatus()
        verdict = self._verdict(call, answer, status.code or "")
        if verdict is not Verdict.GOOD:
            told = response if verdict is Verdict.LOST else self._with_error(response, status)
            return Reply(verdict=verdict, response=told, retry_after=retry_after(answer))
        data = envelope.data or WireData()
        session_data = None
        if call.operation in ("start", "resume"):
            try:
                session_data = session_of(data.client_token or "")
            except ValueError as error:
                return unreadable(call, response, f"{error} - at `$.data.clientToken`")
        return Reply(
            verdict=Verdict.GOOD,
            response=response,
            session_data=session_data,
            arrivals=self._arrivals(data, response.body),
            place=_place(response.body) if call.operation == "send" else None,
            chat_ended=bool(data.chat_ended) and call.operation != "history",  # the last messages come by poll
            misread=misread,
        )

    def _verdict(self, call: Call, answer: HttpAnswer, code: str) -> Verdict:
        resuming = self._section.asynchronous.enabled and call.operation in ("resume", "restore")
        if code == "INVALID_SESSION" or (answer.status == 401 and resuming and code not in _WELL):
            return Verdict.LOST
        if answer.status == 429:
            return Verdict.THROTTLED
        return Verdict.GOOD if answer.good and code in _WELL else Verdict.BAD

    def _with_error(self, response: Response, status: WireStatus) -> Response:
        code = "" if status.code in _WELL else status.code
        if not (code or status.message):
            return response
        error: Json = {"code": f"{self._section.type}-{code}" if code else "", "text": status.message or ""}
        return Response(status=response.status, body=response.body, errors=[error], url=response.url)

    def _arrivals(self, data: WireData, body: Any) -> tuple[Arrival, ...]:
        originals = listed(body.get("data"), "messages")
        return tuple(
            Arrival(
                self._message(message, original, sender := (message.party or _NOBODY).sender),
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
        """An item of `content` whose relative url is made absolute."""
        if not (isinstance(item, dict) and isinstance(item.get("url"), str) and item["url"].startswith("/")):
            return item
        return {**item, "url": self._content_base + item["url"]}

    # -- operations ------------------------------------------------------------------------------------------------

    def _start(self, call: Call) -> Target:
        given = call.fields.get("form") or {}
        data = {FORM_FIELDS.get(key, key): value for key, value in given.items() if value not in (None, "")}
        if "nickname" not in data and "firstName" in data:
            data["nickname"] = data["firstName"]
        section = self._section
        named = {"endpoint": section.endpoint, "stream": section.stream, "clientType": section.client_type}
        user_data = dict(call.fields.get("user_data") or {})
        if "phone" in user_data:
            user_data["PhoneNumber"] = text(user_data["phone"])
        data = {**data, **{key: value for key, value in named.items() if value}, "userData": user_data}
        return "POST", "", bracketed("data", data)

    def _session(self, call: Call) -> str:
        return f"/{segment(call.session_data.session_id)}"

    def _refresh(self, call: Call) -> Target:
        query = ""
        if call.fields.get("catch_up"):
            seen = call.fields["position"]
            query = "?" + parameters({"index": BEFORE_ALL if seen == 1 else str(seen)})
        return "GET", f"{self._session(call)}/messages{query}", []

    def _restore(self, call: Call) -> Target:
        pages = self._section.asynchronous.enabled
        count = self._section.max_message_page_size if pages else WHOLE_TRANSCRIPT
        return self._page(call, count)

    def _history(self, call: Call) -> Target:
        return self._page(call, self._section.max_message_page_size)

    def _page(self, call: Call, count: int) -> Target:
        """Ask for a page: the newest one, or the one that ends with the index `before`."""
        before = call.fields.get("before")
        query = {**({} if before is None else {"index": str(before)}), "count": str(count)}
        return "GET", f"{self._session(call)}/messages?{parameters(query)}", []

    def _post(self, call: Call, kind: str) -> Target:
        data = {"type": kind, "text": str(call.fields.get("message") or "")}
        return "POST", f"{self._session(call)}/messages", bracketed("data", data)

    def _send(self, call: Call) -> Target:
        return self._post(call, "Text")

    def _start_typing(self, call: Call) -> Target:
        return self._post(call, "TypingStarted")

    def _stop_typing(self, call: Call) -> Target:
        return self._post(call, "TypingStopped")

    def _disconnect(self, call: Call) -> Target:
        return "DELETE", f"{self._session(call)}/participants/{segment(call.session_data.participant_id)}", []

    def _update_data(self, call: Call) -> Target:
        return "PUT", f"{self._session(call)}/userdata", bracketed("data", call.fields["user_data"])

    def _file(self, call: Call) -> Target:
        return "POST", f"{self._session(call)}/images", []

    def _fetch(self, call: Call) -> Target:
        url = call.fields["url"]
        return "GET", self._content_base + url if url.startswith("/") else url, []


_OPERATIONS: dict[str, Callable[[NexusV3, Call], Target]] = {
    "start": NexusV3._start,
    "resume": NexusV3._start,
    "restore": NexusV3._restore,
    "refresh": NexusV3._refresh,
    "history": NexusV3._history,
    "send": NexusV3._send,
    "startTyping": NexusV3._start_typing,
    "stopTyping": NexusV3._stop_typing,
    "disconnect": NexusV3._disconnect,
    "updateData": NexusV3._update_data,
    "file": NexusV3._file,
    "fetch": NexusV3._fetch,
}

_NORMALISED = frozenset({"index", "type", "text", "from", "userData", "timestamp", "restoring"})


def session_of(token: str) -> SessionData:
    """The session that a client token names; raises `ValueError` for what is no such token."""
    parts = token.split(".")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(payload, type=Claims)
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        raise ValueError("the token names no session") from None
    if not (TOKEN.fullmatch(token) and claims.session_id and claims.participant_id):
        raise ValueError("the token names no session")
    return SessionData(
        session_id=claims.session_id,
        participant_id=claims.participant_id,
        transport_id=claims.transport_id,
        token=token,
    )


def _place(body: Any) -> tuple[int, ...] | None:
    """Read where a message that was sent stands, as far as the answer says so."""
    data = body.get("data") if isinstance(body, dict) else None
    index = data.get("index") if isinstance(data, dict) else None
    return rank(index) if isinstance(index, int | str) else None


def _original(original: Any, sender: Sender) -> Any:
    """The wire's object, its sender named as on the bus; what is no object, or no sender, stays as it came."""
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
