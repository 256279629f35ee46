"""Nexus chat API version 3: a token for each client, a read cursor for each of its transports."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import msgspec

from webchat_fsm.server import tokens
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import TYPING, Chat, Event
from webchat_fsm.server.exchange import Held, HttpAnswer, HttpRequest, Reply
from webchat_fsm.server.forms import fields_of, text_of, upload_of
from webchat_fsm.server.gms_files import file_reply
from webchat_fsm.server.nexus_call import OPERATION_OF_TYPE, OPERATIONS, Call, claims, decode
from webchat_fsm.server.nexus_wire import (
    NexusRefusedError,
    Wire,
    event_with_index,
    failure,
    fault_reply,
    index_of,
    media_url,
    message_on_wire,
    success,
)

_EVENTS = {
    "send": "Message",
    "startTyping": "TypingStarted",
    "stopTyping": "TypingStopped",
    "customNotice": "CustomNotice",
}
_READABLE_WHEN_ENDED = frozenset({"refresh", "session", "file/download", "disconnect"})


class Transport(msgspec.Struct):
    """One page or device that is connected to a session, and how much of the transcript it was given."""

    chat: Chat
    id: str
    given: int = 0


class NexusV3:
    """The v3 dialect."""

    name = "v3"
    operations = OPERATIONS

    def __init__(self, centre: Centre) -> None:
        self._centre = centre
        self._secret = centre.ids.hexadecimal(64).encode()
        self._transports: dict[str, Transport] = {}
        self._effects: dict[str, Callable[[Call, Transport], Wire]] = {
            "session": self._session,
            "refresh": self._refresh,
            "send": self._message,
            "startTyping": self._message,
            "stopTyping": self._message,
            "customNotice": self._message,
            "updateData": self._update_data,
            "disconnect": self._disconnect,
            "readReceipt": self._read_receipt,
        }

    def claims(self, path: str) -> bool:
        """Whether a path belongs to this dialect."""
        return claims(path)

    def handle(self, request: HttpRequest) -> HttpAnswer | Held:
        """Answer one request; a poll without news may be held, if the options say so."""
        call = decode(request, sniff_multipart=self._centre.options.sniff_multipart)
        if isinstance(call, Reply):
            return call.answer()
        self._centre.log(self.name, call.operation, request, call.fields)
        return self._hold(call) or self._answer(call)

    def _answer(self, call: Call) -> HttpAnswer:
        return self._centre.carry_out(
            self.name, (call.operation,), partial(self._work, call), lambda fault: fault_reply(fault, call.operation_id)
        )

    def _work(self, call: Call) -> Reply:
        try:
            self._check_key(call)
            if call.operation == "start":
                return success(self._start(call), call.operation_id)
            transport = self._enter(call)
            if call.operation == "file/download":
                return self._download(call, transport)
            if call.operation == "file":
                return success(self._upload(call, transport), call.operation_id)
            return success(self._effects[call.operation](call, transport), call.operation_id)
        except NexusRefusedError as refusal:
            return failure(refusal.code, refusal.message, refusal.status, call.operation_id)

    # Access

    def _check_key(self, call: Call) -> None:
        wanted = self._centre.options.apikey
        if wanted is not None and call.request.headers.get("x-api-key") != wanted:
            raise NexusRefusedError("INVALID_CONTACT_CENTER")

    def _enter(self, call: Call) -> Transport:
        """The transport whose token the request carries, in the session that its path names."""
        transport = self._by_token(call.token)
        if transport.chat.session_id != call.places["sid"]:
            raise NexusRefusedError("AUTHENTICATION_REQUIRED")
        if transport.chat.ended and call.operation not in _READABLE_WHEN_ENDED:
            raise NexusRefusedError("INVALID_SESSION")
        if call.places.get("pid", transport.chat.client.sender.key) != transport.chat.client.sender.key:
            raise NexusRefusedError("FORBIDDEN")
        transport.chat.last_request = self._centre.now
        return transport

    def _by_token(self, token: str) -> Transport:
        said = tokens.read(token, self._secret, self._centre.now)
        transport = self._transports.get(said.transport_id) if said else None
        if transport is None:
            raise NexusRefusedError("AUTHENTICATION_REQUIRED")
        life = self._centre.options.session_ttl
        if life is not None and self._centre.now - transport.chat.last_request > life:
            self._centre.purge(transport.chat)
        if transport.chat.chat_id not in self._centre.chats:
            raise NexusRefusedError("INVALID_SESSION")
        return transport

    # Sessions

    def _start(self, call: Call) -> Wire:
        chat = self._resumed(call) if call.token else self._created(call)
        chat.user_data.update(fields_of(call.data, "userData"))
        chat.last_request = self._centre.now
        transport = Transport(chat, self._centre.ids.unique())
        self._transports[transport.id] = transport
        life = self._centre.options.token_ttl
        said = tokens.Claims(
            session_id=chat.session_id,
            transport_id=transport.id,
            participant_id=chat.client.sender.key,
            exp=None if life is None else int(self._centre.now + life),
        )
        entity = {**_entity(call, chat), "transportId": transport.id}
        return {"entity": entity, "clientToken": tokens.sign(said, self._secret)}

    def _created(self, call: Call) -> Chat:
        names = {name: text for name in call.data if (text := text_of(call.data, name)) is not None}
        endpoint = names.get("endpoint", "")
        if not endpoint or endpoint not in (self._centre.options.endpoints or (endpoint,)):
            raise NexusRefusedError("INVALID_ENDPOINT")
        first = names.get("firstName", "").strip()
        nickname = names.get("nickname", "").strip() or first
        if not nickname:
            raise NexusRefusedError("INVALID_NICKNAME")
        chat = self._centre.open_chat(endpoint, nickname, first_name=first, last_name=names.get("lastName", ""))
        chat.details = {name: text for name, text in names.items() if name not in ("firstName", "lastName", "nickname")}
        return chat

    def _resumed(self, call: Call) -> Chat:
        chat = self._by_token(call.token).chat
        if chat.ended:
            if not self._centre.options.reopen_ended:
                raise NexusRefusedError("INVALID_SESSION")
            chat.last_request = self._centre.now
            chat.readmit(chat.client, self._centre.now)
            self._centre.watch(chat)
        return chat

    def _session(self, call: Call, transport: Transport) -> Wire:
        people = [
            {
                "participantId": party.sender.key,
                "type": "Customer" if party.sender.kind == "Client" else party.sender.kind,
                "nickname": party.sender.nickname,
                "connected": party.connected,
            }
            for party in transport.chat.parties
        ]
        chat = transport.chat
        return {"entity": {**_entity(call, chat), "participants": people, "userData": chat.user_data}}

    def _update_data(self, call: Call, transport: Transport) -> Wire:
        transport.chat.user_data.update(call.data)
        return {}

    def _disconnect(self, _call: Call, transport: Transport) -> Wire:
        transport.chat.leave(self._centre.now)
        return {}

    def _read_receipt(self, call: Call, transport: Transport) -> Wire:
        if not self._centre.options.v3_read_receipt:
            raise NexusRefusedError("NOT_SUPPORTED")
        read = event_with_index(transport.chat, text_of(call.data, "index") or "")
        transport.chat.read_position = max(transport.chat.read_position, read)
        return {}

    # Messages

    def _message(self, call: Call, transport: Transport) -> Wire:
        kind, text = text_of(call.data, "type") or "Text", text_of(call.data, "text") or ""
        limit = self._centre.options.max_message_length
        if (
            kind not in OPERATION_OF_TYPE
            or (kind == "Text" and not text.strip())
            or (limit is not None and len(text) > limit)
        ):
            raise NexusRefusedError("INVALID_MESSAGE")
        if kind == "CustomNotice" and not self._centre.options.v3_custom_notice:
            raise NexusRefusedError("NOT_SUPPORTED")
        chat = transport.chat
        event = chat.add(
            _EVENTS[call.operation],
            chat.client.sender,
            self._centre.now,
            text=text,
            message_type="text" if kind == "Text" else None,
        )
        return {"index": index_of(event)}

    def _refresh(self, call: Call, transport: Transport) -> Wire:
        chat, index, count = transport.chat, text_of(call.fields, "index"), text_of(call.fields, "count")
        if count:
            events = _page(chat, index, _number(count))
        else:
            events = _news(chat, event_with_index(chat, index) if index else transport.given)
        if not (index and count):
            transport.given = len(chat.transcript)
        more = {"nextIndex": index_of(events[-1])} if events else {}
        return {"messages": [message_on_wire(chat, event) for event in events], "chatEnded": chat.ended, **more}

    def _hold(self, call: Call) -> Held | None:
        """The held poll, if there is nothing to say now and the options say that polls wait."""
        hold = self._centre.options.v3_hold
        if not hold or call.operation != "refresh" or call.fields.get("count") or call.fields.get("index"):
            return None
        try:
            transport = self._enter(call)
        except NexusRefusedError:
            return None
        due = self._centre.now + hold

        def resume(now: float) -> HttpAnswer | None:
            if now < due and not transport.chat.ended and not _news(transport.chat, transport.given):
                return None
            return self._answer(call)

        return Held(due, resume)

    # Files

    def _upload(self, call: Call, transport: Transport) -> Wire:
        upload, chat, options = upload_of(call.fields, "file"), transport.chat, self._centre.options
        if upload is None:
            raise NexusRefusedError("INVALID_MESSAGE", "there is no file")
        kind = upload.content_type.partition(";")[0].strip().lower()
        if kind == "application/octet-stream":
            kind = mimetypes.guess_type(upload.filename)[0] or kind
        if kind not in options.image_types:
            raise NexusRefusedError("INVALID_FILE_TYPE")
        if len(upload.content) > options.max_file_size:
            raise NexusRefusedError("LIMIT_FILE_SIZE")
        if len(chat.kept_files(chat.client.sender)) >= options.max_files:
            raise NexusRefusedError("LIMIT_FILE_COUNT")
        now = self._centre.now
        file = chat.attach(chat.client.sender, upload.filename, upload.content, now, content_type=kind)
        return {
            "mediaId": file.id,
            "url": media_url(chat, file.id),
            "filename": file.name,
            "mimetype": kind,
            "length": len(file.content),
            "index": index_of(chat.transcript[-1]),
        }

    def _download(self, call: Call, transport: Transport) -> Reply:
        file = transport.chat.files.get(call.places["file"])
        if file is None or file.deleted:
            raise NexusRefusedError("INVALID_MESSAGE", "there is no such file", status=404)
        return file_reply(file)


def _entity(call: Call, chat: Chat) -> Wire:
    created = datetime.fromtimestamp(chat.began, UTC).isoformat(timespec="milliseconds")
    return {
        "id": chat.session_id,
        "selfUri": f"{call.app}/sessions/{chat.session_id}",
        "participantId": chat.client.sender.key,
        "endpoint": chat.service,
        "nickname": chat.client.sender.nickname,
        "createdAt": created.replace("+00:00", "Z"),
        "state": "ended" if chat.ended else "active",
    }


def _news(chat: Chat, given: int) -> list[Event]:
    """Events after those given, without the client's own typing, which is not echoed."""
    own = chat.client.sender.participant_id
    return [e for e in chat.transcript[given:] if not (e.type in TYPING and e.sender.participant_id == own)]


def _page(chat: Chat, index: str | None, count: int) -> list[Event]:
    """Up to `count` events, the newest or those that end with an index; typing is not history."""
    upto = event_with_index(chat, index) if index else len(chat.transcript)
    lasting = [event for event in chat.transcript[:upto] if event.type not in TYPING]
    return lasting[-count:] if count else []


def _number(text: str) -> int:
    if not text.isdecimal():
        raise NexusRefusedError("INVALID_MESSAGE", f"{text!r} is no count")
    return int(text)
