"""Match Bayeux replies to requests on a full-duplex connection, and keep pushes for the next connect.

The core sees one shape of connection, a long poll that is answered as soon as there is something to deliver. On a
websocket the server pushes at any time instead, so a push answers a waiting connect with a reply made here. The server
goes on holding that connect: the next one is not sent but takes its place.

Pure: no socket, no lock, no clock. Callers that share a matcher between threads lock it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from webchat_fsm._json import REFUSED
from webchat_fsm._model import Json
from webchat_fsm._wire.decoding import elements, read_body, text_of

CONNECT = "/meta/connect"
HANDSHAKE = "/meta/handshake"
DISCONNECT = "/meta/disconnect"

NOT_MESSAGES = "what the server sent is no array of messages"


class FrameError(ValueError):
    """A frame cannot be decoded, or its pushes exceed the limit."""


class RoutingFields(Struct, frozen=True, rename="camel"):
    """Decode the fields by which a Bayeux message is matched.

    `Any` throughout: the server's types are not trusted, and an odd one must not cost the messages beside it.
    """

    id: Any = None
    channel: Any = None
    client_id: Any = None
    successful: Any = UNSET
    advice: Any = None
    data: Raw | UnsetType = UNSET


class PendingRequest:
    """Hold one request until its reply, which is an array of messages as the body of an HTTP answer would be.

    `hold` is the seconds for which a connect asks to be held; None leaves them to the server.
    """

    def __init__(self, body: bytes) -> None:
        ((fields, _),) = messages(body)
        self.id, self.channel, self.client_id = str(fields.id), fields.channel, fields.client_id
        self.hold = _seconds_to_hold(fields)
        self.answer: bytes | None = None
        self.sent = True
        # The id under which the server replies: another connect's where this one was not sent but took its place.
        self.server_id = self.id
        # Whether pushes answered it, and not the server.
        self.answered_early = False
        # Reads of the connection before it was registered: where none followed, the peer was silent all the time.
        self.reads_before = 0

    @property
    def is_connect(self) -> bool:
        """Return whether it is the request with which pushes are delivered."""
        return bool(self.channel == CONNECT)

    @property
    def is_meta(self) -> bool:
        """Return whether the Bayeux server itself answers it, and not the chat behind the gateway."""
        return bool(self.channel.startswith("/meta/"))

    @property
    def waits_for_pushes(self) -> bool:
        """Return whether a push may answer it; a connect with `timeout: 0` wants the server's own reply."""
        return self.is_connect and self.hold != 0.0

    @property
    def line(self) -> str:
        """Return `HttpAnswer.line`: who answered it, the server or a push."""
        if not self.answered_early:
            return "answered"
        return "held" if self.sent else "unsent"


class _HeldConnect(Struct):
    """A connect that was answered with pushes while the server goes on holding it, and its reply once it has come."""

    id: str
    client_id: Any
    reply: bytes | None = None


class ReplyMatcher:
    """Hold the outstanding requests of one connection, and up to `limit` bytes of undelivered pushes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: list[PendingRequest] = []
        self._pushes: list[bytes] = []
        self._held: _HeldConnect | None = None

    def add(self, request: PendingRequest) -> bool:
        """Register a request; return whether it is to be sent, which one that takes a held connect's place is not."""
        held = self._held
        if request.channel == HANDSHAKE:
            self._pushes.clear()  # they belong to a client, and perhaps a chat, that is over
        # a new connect takes the place of the held one, or replaces it at the server; a new client has none
        if request.is_connect or request.channel == HANDSHAKE:
            self._held = None
        self._pending.append(request)
        replaces = held is not None and request.waits_for_pushes and held.client_id == request.client_id
        if held is not None and replaces:
            # the server will reply to the connect that it holds, under the id of that
            request.server_id = held.id
            if held.reply is not None:  # it came while no connect waited, as the caller was busy with the pushes
                self._answer(request, held.reply)
        self._deliver_pushes()
        return not replaces

    def receive(self, frame: bytes) -> None:
        """Match the messages of a frame; raises `FrameError` for one that cannot be decoded, or too many pushes."""
        replies = []
        for fields, message in messages(frame):
            request = self._request_for(fields)
            if request is not None:
                replies.append((request, message))
            # kept for the connect that comes next: the server holds none any more
            elif self._held is not None and _answers(fields, self._held.id, CONNECT):
                self._held.reply = message
            elif fields.channel == DISCONNECT or (fields.successful is UNSET and fields.data is not UNSET):
                self._pushes.append(message)  # the server's own disconnect is delivered like a push
        # Replies last: a reply to a connect takes along every push of its frame, also those that stand behind it.
        for request, message in replies:
            self._answer(request, message)
        self._deliver_pushes()
        # Checked last: what a waiting connect has just taken does not count as undelivered.
        if sum(map(len, self._pushes)) > self._limit:
            raise FrameError(f"more than {self._limit} bytes of pushes that no connect fetched")

    def answer_without_pushes(self, request: PendingRequest) -> None:
        """Answer a connect whose time is over; the server goes on holding it."""
        self._answer_early(request)

    def discard(self, request: PendingRequest) -> None:
        """Stop waiting for a reply; does nothing for a request that was answered."""
        if request in self._pending:  # its reply may have come between the timeout and this call
            self._pending.remove(request)

    @property
    def connect_waiting(self) -> bool:
        """Return whether a connect waits here: it fails with the connection, by which the core learns of the loss."""
        return any(request.is_connect for request in self._pending)

    def used_beside(self, client_id: object) -> bool:
        """Return whether any request waits but the connects of one client."""
        return any(not request.is_connect or request.client_id != client_id for request in self._pending)

    def _request_for(self, fields: RoutingFields) -> PendingRequest | None:
        if fields.successful is UNSET:  # a push: only replies carry `successful`
            return None
        return next((one for one in self._pending if _answers(fields, one.server_id, one.channel)), None)

    def _answer(self, request: PendingRequest, reply: bytes) -> None:
        pushes: list[bytes] = []
        # only a connect takes pushes along, as over long polling; their order is the one in which they came
        if request.is_connect:
            pushes, self._pushes = self._pushes, []
        request.answer = b"[" + b",".join([*pushes, reply]) + b"]"
        self._pending.remove(request)

    def _deliver_pushes(self) -> None:
        """Answer the newest waiting connect with the pushes; an older one's caller has given it up."""
        waiting = next((one for one in reversed(self._pending) if one.waits_for_pushes), None) if self._pushes else None
        if waiting is not None:
            self._answer_early(waiting)

    def _answer_early(self, request: PendingRequest) -> None:
        request.answered_early = True
        if request.sent:  # else the server holds nothing, and the next connect is to be sent
            self._held = _HeldConnect(request.server_id, request.client_id)
        # no client id and no advice: the core keeps what it has
        reply = {"id": request.id, "channel": CONNECT, "successful": True}
        self._answer(request, msgspec.json.encode(reply))


def messages(frame: bytes) -> list[tuple[RoutingFields, bytes]]:
    """Decode an array of messages, or a single one, each with its own bytes; raises `FrameError`.

    An element that cannot be decoded is left out, as the others may be good; nothing left at all is an error.
    """
    try:
        listed = [frame] if frame.lstrip().startswith(b"{") else msgspec.json.decode(frame, type=list[Raw])
        return [(msgspec.json.decode(one, type=RoutingFields), bytes(one)) for one in listed]
    except (*REFUSED, RecursionError):  # the slow reader is for frames that the fast one refuses
        return _leniently(frame)


def _leniently(frame: bytes) -> list[tuple[RoutingFields, bytes]]:
    # slow, member by member, so that one message with an odd value does not cost those beside it
    text = text_of(frame).strip()
    try:
        listed = [text] if text.startswith("{") else elements(text)
    except ValueError as error:
        raise FrameError(f"{NOT_MESSAGES} ({error})") from error
    decoded = ((read_body(one.encode()).value, one.encode()) for one in listed)
    found = [(_routing_fields(value), one) for value, one in decoded if isinstance(value, dict)]
    if listed and not found:
        raise FrameError(f"{NOT_MESSAGES} (none of it can be read)")
    return found


def _routing_fields(message: Json) -> RoutingFields:
    known = {name: message[name] for name in ("id", "channel", "successful", "advice") if name in message}
    return RoutingFields(**known, client_id=message.get("clientId"), data=Raw() if "data" in message else UNSET)


def _answers(fields: RoutingFields, request_id: str, channel: object) -> bool:
    """Return whether a reply matches a request; the id is optional in Bayeux, so one without it goes by channel."""
    # as text: a gateway may return the id as a number
    return fields.channel == channel and (fields.id is None or str(fields.id) == request_id)


def _seconds_to_hold(fields: RoutingFields) -> float | None:
    asked = fields.advice.get("timeout") if isinstance(fields.advice, dict) else None
    return asked / 1000 if isinstance(asked, int | float) else None  # milliseconds in the protocol
