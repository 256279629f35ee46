"""The v3 dialect: the operations of the Nexus chat API version 3.

Each start creates a transport, that is one page or device, with a token and a read cursor of its own. A poll without
an index continues at the cursor, so two transports of one session do not take events from each other.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from functools import partial

import msgspec

from webchat_fsm.server._chat import TYPING, Chat, ServerEvent
from webchat_fsm.server._gms_rest import file_reply
from webchat_fsm.server._http import Held, HttpRequest, ServerAnswer, ServerReply, fields_of, text_of, upload_of
from webchat_fsm.server._nexus_wire import (
    OPERATION_OF_TYPE,
    OPERATIONS,
    NexusCall,
    NexusRefusedError,
    TokenClaims,
    Wire,
    claims,
    decode,
    event_with_index,
    failure,
    fault_reply,
    index_of,
    iso_time,
    media_url,
    message_on_wire,
    read_token,
    sign_token,
    success,
)
from webchat_fsm.server._state import ServerState

_EVENTS = {
    "send": "Message",
    "startTyping": "TypingStarted",
    "stopTyping": "TypingStopped",
    "customNotice": "CustomNotice",
}
# Leaving is among them: a page that leaves does not know yet that the chat has ended.
_READABLE_WHEN_ENDED = frozenset({"refresh", "session", "file/download", "disconnect"})


class NexusTransport(msgspec.Struct):
    """One page or device connected to a session; `cursor` is the number of events that its polls have returned."""

    chat: Chat
    id: str
    cursor: int = 0


class NexusDialect:
    """Answers requests of version 3, with an envelope or with a file."""

    name = "v3"
    operations = OPERATIONS

    def __init__(self, state: ServerState) -> None:
        self._state = state
        # From the seed, so that tokens too are the same in every run.
        self._secret = state.ids.hexadecimal(64).encode()
        self._transports: dict[str, NexusTransport] = {}
        self._effects: dict[str, Callable[[NexusCall, NexusTransport], Wire]] = {
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
        """Return whether a path is below `/v3/chat/sessions`."""
        return claims(path)

    def handle(self, request: HttpRequest) -> ServerAnswer | Held:
        """Answer one request; a poll without new events is held for `ServerOptions.v3_hold` seconds."""
        call = decode(request, sniff_multipart=self._state.options.sniff_multipart)
        if isinstance(call, ServerReply):
            return call.answer()
        self._state.log(self.name, call.operation, request, call.fields)
        # A fault is taken when the request is answered: for a held poll at the end of the wait.
        return self._hold(call) or self._answer(call)

    def _answer(self, call: NexusCall) -> ServerAnswer:
        return self._state.perform(
            self.name,
            (call.operation,),
            partial(self._operate, call),
            lambda fault: fault_reply(fault, call.operation_id),
        )

    def _operate(self, call: NexusCall) -> ServerReply:
        try:
            self._check_key(call)
            # Before the token is checked: a start may come without one.
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

    def _check_key(self, call: NexusCall) -> None:
        required_key = self._state.options.apikey
        if required_key is not None and call.request.headers.get("x-api-key") != required_key:
            raise NexusRefusedError("INVALID_CONTACT_CENTER")

    def _enter(self, call: NexusCall) -> NexusTransport:
        """Return the transport of the request's token; raises `NexusRefusedError` where it may not do this."""
        transport = self._by_token(call.token)
        # Token, session, participant: a client without a valid token learns nothing about what exists.
        if transport.chat.session_id != call.path_ids["sid"]:
            raise NexusRefusedError("AUTHENTICATION_REQUIRED")
        if transport.chat.ended and call.operation not in _READABLE_WHEN_ENDED:
            raise NexusRefusedError("INVALID_SESSION")
        # Operations without a participant in their path act for the own one.
        if call.path_ids.get("pid", transport.chat.client.sender.key) != transport.chat.client.sender.key:
            raise NexusRefusedError("FORBIDDEN")
        transport.chat.last_request = self._state.now
        return transport

    def _by_token(self, token: str) -> NexusTransport:
        claims = read_token(token, self._secret, self._state.now)
        transport = self._transports.get(claims.transport_id) if claims else None
        if transport is None:
            raise NexusRefusedError("AUTHENTICATION_REQUIRED")
        ttl = self._state.options.session_ttl
        # Expired sessions are removed when they are next used: without a timer, an idle server does nothing.
        if ttl is not None and self._state.now - transport.chat.last_request > ttl:
            self._state.purge(transport.chat)
        if transport.chat.chat_id not in self._state.chats:
            raise NexusRefusedError("INVALID_SESSION")
        return transport

    # Sessions

    def _start(self, call: NexusCall) -> Wire:
        # A start with a token is a resume: the page was reloaded, or a second one is opened.
        chat = self._resumed(call) if call.token else self._created(call)
        chat.user_data.update(fields_of(call.data, "userData"))
        chat.last_request = self._state.now
        transport = NexusTransport(chat, self._state.ids.unique())
        self._transports[transport.id] = transport
        ttl = self._state.options.token_ttl
        claims = TokenClaims(
            session_id=chat.session_id,
            transport_id=transport.id,
            participant_id=chat.client.sender.key,
            exp=None if ttl is None else int(self._state.now + ttl),  # JSON Web Tokens count whole seconds
        )
        entity = {**_entity(call, chat), "transportId": transport.id}
        return {"entity": entity, "clientToken": sign_token(claims, self._secret)}

    def _created(self, call: NexusCall) -> Chat:
        names = {name: text for name in call.data if (text := text_of(call.data, name)) is not None}
        endpoint = names.get("endpoint", "")
        # Without a list every endpoint exists, but one must be named all the same.
        if not endpoint or endpoint not in (self._state.options.endpoints or (endpoint,)):
            raise NexusRefusedError("INVALID_ENDPOINT")
        first = names.get("firstName", "").strip()
        nickname = names.get("nickname", "").strip() or first
        if not nickname:
            raise NexusRefusedError("INVALID_NICKNAME")
        chat = self._state.open_chat(endpoint, nickname, first_name=first, last_name=names.get("lastName", ""))
        chat.details = {name: text for name, text in names.items() if name not in ("firstName", "lastName", "nickname")}
        return chat

    def _resumed(self, call: NexusCall) -> Chat:
        chat = self._by_token(call.token).chat
        if chat.ended:
            if not self._state.options.reopen_ended:
                raise NexusRefusedError("INVALID_SESSION")
            chat.last_request = self._state.now
            chat.readmit(chat.client, self._state.now)
            # The timers stopped when the chat ended.
            self._state.watch(chat)
        return chat

    def _session(self, call: NexusCall, transport: NexusTransport) -> Wire:
        people = [
            {
                "participantId": party.sender.key,
                # Unlike the sender of a message, a participant that is a bot is listed as an agent.
                "type": "Customer" if party.sender.kind == "Client" else party.sender.kind,
                "nickname": party.sender.nickname,
                "connected": party.connected,
            }
            for party in transport.chat.parties
        ]
        chat = transport.chat
        return {"entity": {**_entity(call, chat), "participants": people, "userData": chat.user_data}}

    def _update_data(self, call: NexusCall, transport: NexusTransport) -> Wire:
        transport.chat.user_data.update(call.data)
        return {}

    def _disconnect(self, _call: NexusCall, transport: NexusTransport) -> Wire:
        transport.chat.leave(self._state.now)
        return {}

    def _read_receipt(self, call: NexusCall, transport: NexusTransport) -> Wire:
        if not self._state.options.v3_read_receipt:
            raise NexusRefusedError("NOT_SUPPORTED")
        read = event_with_index(transport.chat, text_of(call.data, "index") or "")
        transport.chat.read_position = max(transport.chat.read_position, read)
        return {}

    # Messages

    def _message(self, call: NexusCall, transport: NexusTransport) -> Wire:
        kind, text = text_of(call.data, "type") or "Text", text_of(call.data, "text") or ""
        limit = self._state.options.max_message_length
        # A typing notice needs no text, as it may carry a preview or none.
        blank, long = kind == "Text" and not text.strip(), limit is not None and len(text) > limit
        if kind not in OPERATION_OF_TYPE or blank or long:
            raise NexusRefusedError("INVALID_MESSAGE")
        if kind == "CustomNotice" and not self._state.options.v3_custom_notice:
            raise NexusRefusedError("NOT_SUPPORTED")
        chat = transport.chat
        event = chat.add(
            _EVENTS[call.operation],
            chat.client.sender,
            self._state.now,
            text=text,
            message_type="text" if kind == "Text" else None,
        )
        return {"index": index_of(event)}

    def _refresh(self, call: NexusCall, transport: NexusTransport) -> Wire:
        chat, index, count = transport.chat, text_of(call.fields, "index"), text_of(call.fields, "count")
        if count:
            events = _page(chat, index, _number(count))
        else:
            events = _events_after(chat, event_with_index(chat, index) if index else transport.cursor)
        # A page of history, which has an index and a count, does not move the cursor of the polls.
        if not (index and count):
            transport.cursor = len(chat.transcript)
        more = {"nextIndex": index_of(events[-1])} if events else {}
        return {"messages": [message_on_wire(chat, event) for event in events], "chatEnded": chat.ended, **more}

    def _hold(self, call: NexusCall) -> Held | None:
        """Hold a poll where `v3_hold` is set; None where the request is to be answered at once."""
        hold = self._state.options.v3_hold
        # A request for history asks for what is there already, so it never waits.
        if not hold or call.operation != "refresh" or call.fields.get("count") or call.fields.get("index"):
            return None
        try:
            transport = self._enter(call)
        except NexusRefusedError:  # answered at once, by the same check in `_operate`
            return None
        due = self._state.now + hold

        def resume(now: float) -> ServerAnswer | None:
            if now < due and not transport.chat.ended and not _events_after(transport.chat, transport.cursor):
                return None
            return self._answer(call)

        return Held(due, resume)

    # Files

    def _upload(self, call: NexusCall, transport: NexusTransport) -> Wire:
        upload, chat, options = upload_of(call.fields, "file"), transport.chat, self._state.options
        if upload is None:
            raise NexusRefusedError("INVALID_MESSAGE", "the field `file` is missing")
        kind = upload.content_type.partition(";")[0].strip().lower()
        # Clients that send no type get the one of the file name.
        if kind == "application/octet-stream":
            kind = mimetypes.guess_type(upload.filename)[0] or kind
        if kind not in options.image_types:
            raise NexusRefusedError("INVALID_FILE_TYPE")
        if len(upload.content) > options.max_file_size:
            raise NexusRefusedError("LIMIT_FILE_SIZE")
        if len(chat.kept_files(chat.client.sender)) >= options.max_files:
            raise NexusRefusedError("LIMIT_FILE_COUNT")
        now = self._state.now
        # The type found above, as recipients show the file by it.
        file = chat.attach(chat.client.sender, upload.filename, upload.content, now, content_type=kind)
        return {
            "mediaId": file.id,
            "url": media_url(chat, file.id),
            "filename": file.name,
            "mimetype": kind,
            "length": len(file.content),
            "index": index_of(chat.transcript[-1]),
        }

    def _download(self, call: NexusCall, transport: NexusTransport) -> ServerReply:
        file = transport.chat.files.get(call.path_ids["file"])
        if file is None or file.deleted:
            raise NexusRefusedError("INVALID_MESSAGE", f"file {call.path_ids['file']!r} does not exist", status=404)
        return file_reply(file)


def _entity(call: NexusCall, chat: Chat) -> Wire:
    return {
        "id": chat.session_id,
        "selfUri": f"{call.app}/sessions/{chat.session_id}",
        "participantId": chat.client.sender.key,
        "endpoint": chat.service,
        "nickname": chat.client.sender.nickname,
        "createdAt": iso_time(chat.began),
        "state": "ended" if chat.ended else "active",
    }


def _events_after(chat: Chat, cursor: int) -> list[ServerEvent]:
    """Return the events behind a cursor, without the client's own typing, which is not echoed."""
    own = chat.client.sender.participant_id
    return [e for e in chat.transcript[cursor:] if not (e.type in TYPING and e.sender.participant_id == own)]


def _page(chat: Chat, index: str | None, count: int) -> list[ServerEvent]:
    """Return up to `count` events, the newest or those that end with an index, without typing."""
    end = event_with_index(chat, index) if index else len(chat.transcript)
    lasting = [event for event in chat.transcript[:end] if event.type not in TYPING]
    return lasting[-count:] if count else []


def _number(text: str) -> int:
    if not text.isdecimal():
        raise NexusRefusedError("INVALID_MESSAGE", f"{text!r} is not a count")
    return int(text)
