"""What the GMS Chat API version 2 says, over REST and over CometD alike: events, envelope, errors."""

from __future__ import annotations

from typing import NamedTuple

from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Chat, Event
from webchat_fsm.server.faults import Fault
from webchat_fsm.server.forms import Fields, text_of
from webchat_fsm.server.timers import idle_seconds_left

Wire = dict[str, object]


class GmsError(NamedTuple):
    """One row of the error table: the HTTP status that comes with it, and the advice when nobody gives a better one."""

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
    249: GmsError(200, "Media server was not able to execute request."),
    306: GmsError(400, "Invalid service"),
    364: GmsError(400, "Invalid e-mail address"),
    401: GmsError(401, "Authorisation failed"),
    404: GmsError(404, "Not found"),
    415: GmsError(415, "Unsupported media type"),
    500: GmsError(500, "Unexpected error"),
    503: GmsError(503, "Service is busy"),
}


class RefusedError(Exception):
    """An operation that is refused with a code of the table; the chat goes on."""

    def __init__(self, code: int, advice: str = "", status: int | None = None) -> None:
        known = ERRORS[code]
        super().__init__(f"{code} {advice or known.advice}")
        self.status = known.status if status is None else status
        self.errors: list[Wire] = [{"code": code, "advice": advice or known.advice}]


def position_of(fields: Fields) -> int | None:
    """The transcript position asked for, or None; an empty one counts as none."""
    asked = text_of(fields, "transcriptPosition")
    if asked is None or not asked.strip():
        return None
    try:
        return int(asked)
    except ValueError as error:
        raise RefusedError(100, "transcriptPosition is not a number") from error


def event_on_wire(event: Event, bot_type: str) -> Wire:
    """One event as the `messages` list carries it."""
    sender = event.sender
    kind = bot_type if sender.bot else sender.kind
    attributes: Wire = {**(event.attributes or {})}
    if sender.bot:
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


def envelope(centre: Centre, chat: Chat, events: list[Event], **more: object) -> Wire:
    """The body of every good answer; all its fields are always there."""
    expires = idle_seconds_left(chat, centre.options, centre.now)
    return {
        "statusCode": 0,
        "chatId": chat.chat_id,
        "userId": chat.user_id,
        "secureKey": chat.secure_key,
        "alias": chat.alias,
        "chatEnded": chat.ended,
        "messages": [event_on_wire(event, centre.options.bot_type) for event in events],
        "nextPosition": chat.next_position,
        **({"monitored": True} if chat.monitored else {}),
        **({} if expires is None else {"idleTimerExpire": expires}),
        **more,
    }


def bare_envelope(chat_id: str, status_code: int, ended: bool, errors: list[Wire], position: int = 1) -> Wire:
    """An envelope that knows nothing of a chat but its id, and so gives no key away."""
    return {
        "statusCode": status_code,
        "chatId": chat_id,
        "userId": "",
        "secureKey": "",
        "alias": "",
        "chatEnded": ended,
        "messages": [],
        "nextPosition": position,
        **({"errors": errors} if errors else {}),
    }


def gone_envelope(chat_id: str, reference: int) -> Wire:
    """What an unknown, ended or wrongly keyed chat answers."""
    advice = f"{ERRORS[249].advice} referenceId[{reference}]"
    return bare_envelope(chat_id, 2, True, [{"code": 249, "advice": advice}])


def refusal_envelope(chat: Chat | None, refusal: RefusedError) -> Wire:
    """A refused operation where the answer must be an envelope: statusCode 2 in a chat that goes on."""
    chat_id = chat.chat_id if chat else ""
    return bare_envelope(chat_id, 2, chat is None, refusal.errors, chat.next_position if chat else 1)


def fault_envelope(fault: Fault, chat: Chat | None, asked: int | None) -> Wire:
    """The envelope of a `server_status` fault.

    Its position is the one asked for, so that a client that trusts it loses nothing.
    """
    errors: list[Wire] = [*fault.error_list()]
    status_code = fault.server_status or 0
    if status_code == 2 and not errors:
        errors = [{"code": 249, "advice": ERRORS[249].advice}]
    truth = chat.ended if chat else False
    ended = truth if fault.chat_ended is None else fault.chat_ended
    answer = bare_envelope(chat.chat_id if chat else "", status_code, ended, errors, max(1, asked or 1))
    if chat:
        answer.update(userId=chat.user_id, secureKey=chat.secure_key, alias=chat.alias)
    return answer
