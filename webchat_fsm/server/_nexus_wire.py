"""The wire format of the Nexus chat API version 3: routes, client tokens, envelope, errors and messages.

Sessions live at `{app}/v3/chat/sessions`. In the routes `sid`, `pid` and `file` stand for the ids of a session, a
participant and a file. A client token is a JSON Web Token, signed with HS256.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from webchat_fsm.server._chat import Chat, ServerEvent, ServerSender
from webchat_fsm.server._faults import Fault
from webchat_fsm.server._http import (
    Fields,
    HttpRequest,
    ServerReply,
    UnreadableBodyError,
    fields_of,
    read_fields,
    text_of,
)


class TokenClaims(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Claims of a client token; `exp` is seconds since the epoch and absent from a token that never expires."""

    session_id: str
    transport_id: str
    participant_id: str
    exp: int | None = None


def sign_token(claims: TokenClaims, secret: bytes) -> str:
    """Return the signed token of these claims, `header.claims.signature`."""
    head = _encode(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
    signed = f"{head}.{_encode(msgspec.json.encode(claims))}"
    return f"{signed}.{_encode(_signature(signed, secret))}"


def read_token(token: str, secret: bytes, now: float) -> TokenClaims | None:
    """Return the claims of a token, or None where its signature is wrong or it has expired at `now`."""
    signed, _, signature = token.rpartition(".")
    try:
        # The signature first: nothing of an unsigned token is decoded.
        if not hmac.compare_digest(_decode(signature), _signature(signed, secret)):
            return None
        claims = msgspec.json.decode(_decode(signed.partition(".")[2]), type=TokenClaims)
    except (ValueError, msgspec.DecodeError):
        return None
    return None if claims.exp is not None and now >= claims.exp else claims


def _signature(signed: str, secret: bytes) -> bytes:
    return hmac.digest(secret, signed.encode(), hashlib.sha256)


def _encode(content: bytes) -> str:
    # JSON Web Tokens leave out the padding of base64.
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


Wire = dict[str, object]

_TYPES = {"Message": "Text", "FileUploaded": "Text", "IdleAlert": "Notice", "IdleClose": "Notice"}


class NexusError(NamedTuple):
    """The HTTP status and the default message of an error code."""

    status: int
    message: str


ERRORS: dict[str, NexusError] = {
    "INVALID_CONTACT_CENTER": NexusError(403, "The API key is unknown, disabled or expired"),
    "AUTHENTICATION_REQUIRED": NexusError(401, "The client token is missing, invalid or expired"),
    "INVALID_ENDPOINT": NexusError(400, "The endpoint is missing or unknown"),
    "INVALID_NICKNAME": NexusError(400, "A nickname or a first name is required"),
    "INVALID_SESSION": NexusError(404, "The session is unknown or gone"),
    "INVALID_FILE_TYPE": NexusError(415, "Only images can be sent"),
    "LIMIT_FILE_SIZE": NexusError(413, "The file is too big"),
    "LIMIT_FILE_COUNT": NexusError(400, "Too many files"),
    "INVALID_MESSAGE": NexusError(400, "The message has a wrong type, no text, or too much of it"),
    "FORBIDDEN": NexusError(403, "Only one's own participant may be acted for"),
    "NOT_SUPPORTED": NexusError(501, "This operation is switched off"),
    "TOO_MANY_REQUESTS": NexusError(429, "Too many requests"),
    "INTERNAL_ERROR": NexusError(500, "Unexpected error"),
    "SERVICE_UNAVAILABLE": NexusError(503, "The service is busy"),
}


class NexusRefusedError(Exception):
    """Raised for an operation that is refused with a code of `ERRORS`; `status` overrides the status of the table."""

    def __init__(self, code: str, message: str = "", status: int | None = None) -> None:
        known = ERRORS[code]
        super().__init__(f"{code}: {message or known.message}")
        self.code = code
        self.message = message or known.message
        self.status = known.status if status is None else status


def success(data: Wire, operation_id: str | None) -> ServerReply:
    """Build the envelope of a successful operation, with status code SUCCESS and the id that the client gave."""
    return ServerReply({"status": {"code": "SUCCESS", "message": ""}, "operationId": operation_id, "data": data})


def failure(code: str | int, message: str, status: int, operation_id: str | None) -> ServerReply:
    """Build the envelope of a failed operation; `status` is the HTTP status, `code` a key of `ERRORS` or any other."""
    return ServerReply({"status": {"code": code, "message": message}, "operationId": operation_id}, status)


def fault_reply(fault: Fault, operation_id: str | None) -> ServerReply:
    """Build the answer of a fault, with its own code or else the code that `ERRORS` has for its HTTP status."""
    status = fault.http_status or (ERRORS[fault.code].status if fault.code in ERRORS else 200)
    # A number in place of the name, to test clients against codes that they do not know.
    if fault.server_status is not None:
        return failure(fault.server_status, fault.message, status, operation_id)
    # The first code of that status; a status without any, such as 502, comes from a proxy and has no envelope.
    code = fault.code or next((name for name, row in ERRORS.items() if row.status == status), None)
    if code is None:
        return ServerReply({}, status)
    known = ERRORS.get(code)
    return failure(code, fault.message or (known.message if known else ""), status, operation_id)


def index_of(event: ServerEvent) -> str:
    """Return the index of an event: text with one hyphen, which increases with and without the hyphen."""
    return f"{event.stamp}-0"


def event_with_index(chat: Chat, index: str) -> int:
    """Return the number of events up to and including an index, with or without its hyphen."""
    # From the end, as clients mostly ask for what came last.
    for event in reversed(chat.transcript):
        if index in (index_of(event), index_of(event).replace("-", "")):
            return event.index
    # An index that is not in the transcript: the time in it says which events came before.
    stamp = index.partition("-")[0]
    if not stamp.isdecimal():
        raise NexusRefusedError("INVALID_MESSAGE", f"{index!r} is not an index")
    return sum(event.stamp <= int(stamp) for event in chat.transcript)


def message_on_wire(chat: Chat, event: ServerEvent) -> Wire:
    """Return an event as an entry of the `messages` list; members without a value are left out."""
    body = _BODIES.get(event.type, _text_body)(chat, event)
    return {
        "index": index_of(event),
        "type": _TYPES.get(event.type, event.type),
        "utcTime": iso_time(event.utc_time / 1000),
        "from": _sender_on_wire(event.sender),
        # Absent rather than null: a message has only the members of its type.
        **{name: value for name, value in body.items() if value is not None},
    }


def _sender_on_wire(sender: ServerSender) -> Wire:
    names = {"firstName": sender.first_name, "lastName": sender.last_name}
    return {
        "type": sender_type(sender),
        "participantId": sender.key,
        "nickname": sender.nickname,
        **{name: value for name, value in names.items() if value},
    }


def sender_type(sender: ServerSender) -> str:
    """Return the type of a sender in its messages: Customer, Agent, Supervisor, External or Bot."""
    return "Customer" if sender.kind == "Client" else "Bot" if sender.bot else sender.kind


def _text_body(_chat: Chat, event: ServerEvent) -> Wire:
    return {"text": event.text, "userData": event.user_data or None}


def _url_body(_chat: Chat, event: ServerEvent) -> Wire:
    return {"url": event.text}


def _file_body(chat: Chat, event: ServerEvent) -> Wire:
    return {"text": "", "content": [content_on_wire(chat, event.file_id or "")]}


_BODIES: dict[str, Callable[[Chat, ServerEvent], Wire]] = {"PushUrl": _url_body, "FileUploaded": _file_body}
"""The members of a message beside those that every message has, by event type."""


def iso_time(seconds: float) -> str:
    """Format seconds since the epoch as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def media_url(chat: Chat, file_id: str) -> str:
    """Return the URL of a file, relative to the base URL without its `/sessions`."""
    return f"/sessions/{chat.session_id}/images/{file_id}"


def content_on_wire(chat: Chat, file_id: str) -> Wire:
    """Serialise a file for the `content` list of a message."""
    file = chat.files[file_id]
    return {
        "type": "image" if file.content_type.startswith("image/") else "file",
        "mime": file.content_type,
        "url": media_url(chat, file_id),
        "filename": file.name,
        "length": len(file.content),
    }


_PATH = re.compile(r"^(?P<app>(?:/.*)?/v3/chat)/sessions(?P<rest>(?:/[^/]*)*)$")
_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("POST", "", "start"),
    ("GET", "sid", "session"),
    ("GET", "sid/messages", "refresh"),
    ("POST", "sid/messages", "send"),
    ("POST", "sid/images", "file"),
    ("GET", "sid/images/file", "file/download"),
    ("PUT", "sid/userdata", "updateData"),
    ("DELETE", "sid/participants/pid", "disconnect"),
    ("PUT", "sid/participants/pid/read", "readReceipt"),
)
OPERATION_OF_TYPE = {
    "Text": "send",
    "TypingStarted": "startTyping",
    "TypingStopped": "stopTyping",
    "CustomNotice": "customNotice",
}


OPERATIONS = frozenset(operation for _, _, operation in _ROUTES).union(OPERATION_OF_TYPE.values())


class NexusCall(msgspec.Struct, frozen=True):
    """A decoded request; `path_ids` are the ids in its path by `sid`, `pid` and `file`; `app` precedes `/sessions`."""

    operation: str
    app: str
    path_ids: dict[str, str]
    request: HttpRequest
    fields: Fields

    @property
    def operation_id(self) -> str | None:
        """Return the id that the client gave to the request, which the answer repeats."""
        return text_of(self.fields, "operationId")

    @property
    def data(self) -> Fields:
        """Return the member `data` of the body, empty where it is absent."""
        return fields_of(self.fields, "data")

    @property
    def token(self) -> str:
        """Return the client token of the header `X-Nexus-Client-Key`, or an empty text."""
        token = self.request.headers.get("x-nexus-client-key", "")
        # Browsers send the word `undefined` where they have no token.
        return "" if token == "undefined" else token


def claims(path: str) -> bool:
    """Return whether a path is below `/v3/chat/sessions`."""
    return _PATH.match(path) is not None


def decode(request: HttpRequest, *, sniff_multipart: bool) -> NexusCall | ServerReply:
    """Decode a request, or return the reply to one that matches no route or cannot be read."""
    matched = _PATH.match(request.path)
    if matched is None:
        raise ValueError(f"{request.path!r} is not a path of version 3: ask claims() first")
    parts = [part for part in matched["rest"].split("/") if part]
    routes = {method: (operation, names) for method, operation, names in _fitting(parts)}
    # One path has several methods, so a wrong method can name those that are right.
    if request.method not in routes:
        headers = {"allow": ", ".join(sorted(routes))} if routes else {}
        return ServerReply({}, 405 if routes else 404, headers)
    operation, names = routes[request.method]
    try:
        fields = read_fields(request, sniff_multipart=sniff_multipart)
        if operation == "send":  # typing and notices share the route of messages; the type in the payload decides
            operation = OPERATION_OF_TYPE.get(text_of(fields_of(fields, "data"), "type") or "Text", operation)
    except UnreadableBodyError as error:
        return failure("INVALID_MESSAGE", error.reason, error.status, None)
    return NexusCall(operation, matched["app"], dict(zip(names, parts, strict=True)), request, fields)


def _fitting(parts: list[str]) -> list[tuple[str, str, list[str]]]:
    """Return method, operation and names of the parts of each route that matches a path."""
    fitting = []
    for method, pattern, operation in _ROUTES:
        names = pattern.split("/") if pattern else []
        # Unequal lengths are compared below; until then the shorter one decides how far to look.
        fixed = [(name, part) for name, part in zip(names, parts, strict=False) if name not in ("sid", "pid", "file")]
        if len(names) == len(parts) and all(name == part for name, part in fixed):
            fitting.append((method, operation, names))
    return fitting
