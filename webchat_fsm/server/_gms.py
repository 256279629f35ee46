"""GMS Chat API version 2, as REST and CometD share it: envelope, errors, events, and the effects of the operations.

An effect takes the chat and the decoded fields. The operations have their REST names here; CometD names some otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from webchat_fsm._json import utf8
from webchat_fsm.server._chat import Attributes, Chat, ServerEvent
from webchat_fsm.server._faults import Fault
from webchat_fsm.server._http import Fields, UnreadableBodyError, fields_of, read_json_object, text_from, text_of
from webchat_fsm.server._state import ServerState, idle_seconds_left

Wire = dict[str, object]


class GmsError(NamedTuple):
    """The HTTP status and the default advice of an error code."""

    status: int
    advice: str


ERRORS: dict[int, GmsError] = {
    100: GmsError(400, "Missing parameter"),
    102: GmsError(400, "First name is required"),
    103: GmsError(400, "Last name is required"),
    161: GmsError(400, "A nickname, or first and last name, is required"),
    201: GmsError(400, "Too many files"),
    202: GmsError(400, "Size limit exceeded"),
    203: GmsError(400, "File type is not allowed"),
    204: GmsError(400, "Message text is too long"),
    240: GmsError(400, "A chat cannot be started now"),
    # HTTP 200, as the refusal is an envelope: clients read its statusCode 2.
    249: GmsError(200, "Media server was not able to execute request."),
    306: GmsError(400, "Invalid service"),
    364: GmsError(400, "Invalid e-mail address"),
    401: GmsError(401, "Authorisation failed"),
    404: GmsError(404, "Not found"),
    415: GmsError(415, "Unsupported media type"),
    500: GmsError(500, "Unexpected error"),
    503: GmsError(503, "Service is busy"),
}


class GmsRefusedError(Exception):
    """Raised for an operation that is refused with a code of `ERRORS`; the chat continues."""

    def __init__(self, code: int, advice: str = "", status: int | None = None) -> None:
        known = ERRORS[code]
        super().__init__(f"{code} {advice or known.advice}")
        self.status = known.status if status is None else status
        self.errors: list[Wire] = [{"code": code, "advice": advice or known.advice}]


def position_of(fields: Fields) -> int | None:
    """Return the transcript position asked for, or None; an empty one counts as none."""
    asked = text_of(fields, "transcriptPosition")
    if asked is None or not asked.strip():
        return None
    try:
        return int(asked)
    except ValueError as error:
        raise GmsRefusedError(100, "transcriptPosition is not a number") from error


def event_on_wire(event: ServerEvent, bot_type: str) -> Wire:
    """Return one event as the `messages` list carries it."""
    sender = event.sender
    kind = bot_type if sender.bot else sender.kind
    attributes: Wire = {**(event.attributes or {})}
    if sender.bot:
        # v2 has no sender type for bots, so a client can recognise one by this attribute alone.
        attributes.setdefault("GCTI_SYSTEM", {"party-info": {"style": "BOT"}})
    optional: Wire = {
        "text": event.text,
        "messageType": event.message_type,
        "userData": event.user_data or None,
        "eventAttributes": attributes or None,
    }
    return {
        "index": event.index,
        "type": event.type,
        "from": {"nickname": sender.nickname, "participantId": sender.participant_id, "type": kind},
        "utcTime": event.utc_time,
        **{name: value for name, value in optional.items() if value is not None},
    }


def envelope(state: ServerState, chat: Chat, events: list[ServerEvent], **more: object) -> Wire:
    """Return the body of every good answer; all its fields are always there."""
    expires = idle_seconds_left(chat, state.options, state.now)
    return {
        "statusCode": 0,
        "chatId": chat.chat_id,
        "userId": chat.user_id,
        "secureKey": chat.secure_key,
        "alias": chat.alias,
        "chatEnded": chat.ended,
        "messages": [event_on_wire(event, state.options.bot_type) for event in events],
        "nextPosition": chat.next_position,
        **({"monitored": True} if chat.monitored else {}),
        # There only after an alert, as `monitored` is there only with a supervisor: clients must not expect the keys.
        **({} if expires is None else {"idleTimerExpire": expires}),
        **more,
    }


def bare_envelope(chat_id: str, status_code: int, ended: bool, errors: list[Wire], position: int = 1) -> Wire:
    """Build an envelope with no data of a chat but its id, so that it reveals no key."""
    return {
        "statusCode": status_code,
        "chatId": chat_id,
        "userId": "",
        "secureKey": "",
        "alias": "",
        "chatEnded": ended,
        "messages": [],
        "nextPosition": position,
        # Absent rather than empty, as in the envelope of a good answer.
        **({"errors": errors} if errors else {}),
    }


def gone_envelope(chat_id: str, reference: int) -> Wire:
    """Build the answer for a chat that is unknown or ended, or whose key is wrong."""
    # A number that differs, as in real answers: clients must not compare the text.
    advice = f"{ERRORS[249].advice} referenceId[{reference}]"
    return bare_envelope(chat_id, 2, True, [{"code": 249, "advice": advice}])


def refusal_envelope(chat: Chat | None, refusal: GmsRefusedError) -> Wire:
    """Return a refused operation where the answer must be an envelope: statusCode 2 in a chat that goes on."""
    chat_id = chat.chat_id if chat else ""
    return bare_envelope(chat_id, 2, chat is None, refusal.errors, chat.next_position if chat else 1)


def fault_envelope(fault: Fault, chat: Chat | None, asked: int | None) -> Wire:
    """Return the envelope of a `server_status` fault.

    Its position is the one asked for, so that a client that trusts it loses nothing.
    """
    errors: list[Wire] = [*fault.error_list()]
    status_code = fault.server_status or 0
    # By this code a client knows that the chat is lost.
    if status_code == 2 and not errors:
        errors = [{"code": 249, "advice": ERRORS[249].advice}]
    actual = chat.ended if chat else False
    ended = actual if fault.chat_ended is None else fault.chat_ended
    answer = bare_envelope(chat.chat_id if chat else "", status_code, ended, errors, max(1, asked or 1))
    if chat:
        answer.update(userId=chat.user_id, secureKey=chat.secure_key, alias=chat.alias)
    return answer


Effect = Callable[[ServerState, Chat, Fields], None]


def start(state: ServerState, service: str, fields: Fields) -> Chat:
    """Open a chat for the client that the fields describe; raises `GmsRefusedError`."""
    nickname, first, last, email = (
        (text_of(fields, name) or "").strip() for name in ("nickname", "firstName", "lastName", "emailAddress")
    )
    errors = (  # in order: without any name the error is 161, and only then is a single missing name reported
        (161, not (nickname or first or last)),
        (102, not (nickname or first)),
        (103, not (nickname or last)),
        (364, state.options.check_email and email and "@" not in email),
    )
    for code, applies in errors:
        if applies:
            raise GmsRefusedError(code)
    # Both names are there where the nickname is not: the checks above have seen to that.
    chat = state.open_chat(service, nickname or f"{first} {last}", first_name=first, last_name=last)
    chat.user_data.update(fields_of(fields, "userData"))
    chat.details = {
        name: text for name in ("subject", "emailAddress", "endpoint", "text") if (text := text_of(fields, name))
    }
    return chat


def required(fields: Fields, name: str) -> str:
    """Return a required parameter as text; raises `GmsRefusedError` where it is absent or empty."""
    text = text_of(fields, name)
    if not text:
        raise GmsRefusedError(100, f"Missing parameter: {name}")
    return text


def texts(pairs: Mapping[str, object]) -> dict[str, str]:
    """Convert user data to text values, which are the only ones on this wire."""
    return {name: text_from(value) for name, value in pairs.items()}


def attributes_of(fields: Fields) -> Attributes | None:
    """Return the event attributes, which forms carry as JSON text and CometD as an object."""
    attributes = fields.get("eventAttributes")
    if not isinstance(attributes, str):
        return fields_of(fields, "eventAttributes") or None
    try:
        # Refused rather than dropped: a client would not notice that its attributes are missing.
        return read_json_object(utf8(attributes)) or None
    except UnreadableBodyError as error:
        raise GmsRefusedError(100, f"eventAttributes: {error.reason}") from error


def check_length(state: ServerState, text: str) -> str:
    """Return a text unchanged; raises `GmsRefusedError` 204 if it is longer than `ServerOptions.max_message_length`."""
    limit = state.options.max_message_length
    if limit is not None and len(text) > limit:
        raise GmsRefusedError(204, str(limit))
    return text


def _send(state: ServerState, chat: Chat, fields: Fields) -> None:
    chat.add(
        "Message",
        chat.client.sender,
        state.now,
        text=check_length(state, required(fields, "message")),
        message_type=text_of(fields, "messageType") or "text",
        attributes=attributes_of(fields),
    )


def _refresh(state: ServerState, chat: Chat, fields: Fields) -> None:
    chat.draft = check_length(state, text_of(fields, "message") or "")


def _typing(event_type: str) -> Effect:
    def effect(state: ServerState, chat: Chat, fields: Fields) -> None:
        chat.draft = check_length(state, text_of(fields, "message") or "")
        chat.add(event_type, chat.client.sender, state.now, text=chat.draft or None)

    return effect


def _disconnect(state: ServerState, chat: Chat, _fields: Fields) -> None:
    chat.leave(state.now)


def _push_url(state: ServerState, chat: Chat, fields: Fields) -> None:
    chat.add("PushUrl", chat.client.sender, state.now, text=required(fields, "pushUrl"))


def _update_nickname(state: ServerState, chat: Chat, fields: Fields) -> None:
    chat.rename(chat.client, required(fields, "nickname"), state.now)


def _custom_notice(state: ServerState, chat: Chat, fields: Fields) -> None:
    attributes = attributes_of(fields)
    chat.add(
        "CustomNotice",
        chat.client.sender,
        state.now,
        text=check_length(state, text_of(fields, "message") or ""),
        message_type=text_of(fields, "messageType"),
        user_data=texts(fields_of(fields, "userData")),
        attributes=attributes,
    )
    # A client keeps a quiet chat open by this purpose; the notice as such is no activity.
    if attributes and attributes.get("purpose") == "cancel-idle-timer":
        chat.stir(state.now)


def _update_data(_state: ServerState, chat: Chat, fields: Fields) -> None:
    chat.user_data.update(fields_of(fields, "userData"))


def _read_receipt(state: ServerState, chat: Chat, fields: Fields) -> None:
    read = required(fields, "transcriptPosition")
    # Stricter than `position_of`: one below 0 would mean the last event there, and nothing here.
    if not read.isdecimal():
        raise GmsRefusedError(100, "transcriptPosition is not a number")
    # Receipts may arrive out of order; what was read stays read.
    chat.read_position = max(chat.read_position, int(read))
    if state.options.read_receipt_notice:
        chat.add("Notice", chat.client.sender, state.now, text="read-confirm")


EFFECTS: dict[str, Effect] = {
    "send": _send,
    "refresh": _refresh,
    "startTyping": _typing("TypingStarted"),
    "stopTyping": _typing("TypingStopped"),
    "disconnect": _disconnect,
    "pushUrl": _push_url,
    "updateNickname": _update_nickname,
    "customNotice": _custom_notice,
    "updateData": _update_data,
    "readReceipt": _read_receipt,
}
"""Operations that need a chat and its key, and answer with an envelope."""
