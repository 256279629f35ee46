"""What the Nexus chat API version 3 says: its messages, its envelope, its errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from webchat_fsm.server.chat import Chat, Event
from webchat_fsm.server.exchange import Reply
from webchat_fsm.server.faults import Fault

Wire = dict[str, object]

_TYPES = {"Message": "Text", "FileUploaded": "Text", "IdleAlert": "Notice", "IdleClose": "Notice"}


class NexusError(NamedTuple):
    """One row of the error table."""

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
    """An operation that is refused with a code of the table."""

    def __init__(self, code: str, message: str = "", status: int | None = None) -> None:
        known = ERRORS[code]
        super().__init__(f"{code}: {message or known.message}")
        self.code = code
        self.message = message or known.message
        self.status = known.status if status is None else status


def success(data: Wire, operation_id: str | None) -> Reply:
    """A good answer."""
    return Reply({"status": {"code": "SUCCESS", "message": ""}, "operationId": operation_id, "data": data})


def failure(code: str | int, message: str, status: int, operation_id: str | None) -> Reply:
    """A bad answer."""
    return Reply({"status": {"code": code, "message": message}, "operationId": operation_id}, status)


def fault_reply(fault: Fault, operation_id: str | None) -> Reply:
    """What a fault says: its own code, or the one that the table has for its HTTP status."""
    status = fault.http_status or (ERRORS[fault.code].status if fault.code in ERRORS else 200)
    if fault.server_status is not None:
        return failure(fault.server_status, fault.message, status, operation_id)
    code = fault.code or next((name for name, row in ERRORS.items() if row.status == status), None)
    if code is None:
        return Reply({}, status)
    known = ERRORS.get(code)
    return failure(code, fault.message or (known.message if known else ""), status, operation_id)


def index_of(event: Event) -> str:
    """The index of an event: a string with one hyphen, rising with and without it."""
    return f"{event.stamp}-0"


def event_with_index(chat: Chat, index: str) -> int:
    """How many events stand up to and with this index, whether the client kept its hyphen or dropped it."""
    for event in reversed(chat.transcript):
        if index in (index_of(event), index_of(event).replace("-", "")):
            return event.index
    stamp = index.partition("-")[0]
    if not stamp.isdecimal():
        raise NexusRefusedError("INVALID_MESSAGE", f"{index!r} is no index")
    return sum(event.stamp <= int(stamp) for event in chat.transcript)


def message_on_wire(chat: Chat, event: Event) -> Wire:
    """One event as the `messages` list carries it."""
    sender = event.sender
    kind = "Customer" if sender.kind == "Client" else "Bot" if sender.bot else sender.kind
    names = {"nickname": sender.nickname, "firstName": sender.first_name, "lastName": sender.last_name}
    moment = datetime.fromtimestamp(event.utc_time / 1000, UTC)
    message: Wire = {
        "index": index_of(event),
        "type": _TYPES.get(event.type, event.type),
        "utcTime": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "from": {
            "type": kind,
            "participantId": sender.key,
            **{name: value for name, value in names.items() if value or name == "nickname"},
        },
    }
    if event.type == "FileUploaded":
        return {**message, "text": "", "content": [content_on_wire(chat, event.file_id or "")]}
    if event.type == "PushUrl":
        return {**message, "url": event.text}
    optional = {"text": event.text, "userData": event.user_data or None}
    return {**message, **{name: value for name, value in optional.items() if value is not None}}


def media_url(chat: Chat, file_id: str) -> str:
    """Where a file is, relative to the base URL without its `/sessions`."""
    return f"/sessions/{chat.session_id}/images/{file_id}"


def content_on_wire(chat: Chat, file_id: str) -> Wire:
    """One item of a message's `content`."""
    file = chat.files[file_id]
    return {
        "type": "image" if file.content_type.startswith("image/") else "file",
        "mime": file.content_type,
        "url": media_url(chat, file_id),
        "filename": file.name,
        "length": len(file.content),
    }
