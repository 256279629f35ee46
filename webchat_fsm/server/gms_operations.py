"""What the operations of version 2 do to a chat, whichever way they arrived.

Each takes the chat and the decoded fields. REST and CometD name some of them differently; here they have their REST
names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from webchat_fsm.lifecycle.encoding import utf8
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Attributes, Chat
from webchat_fsm.server.forms import Fields, UnreadableBodyError, fields_of, read_json_object, text_from, text_of
from webchat_fsm.server.gms import RefusedError

Effect = Callable[[Centre, Chat, Fields], None]


def start(centre: Centre, service: str, fields: Fields) -> Chat:
    """Open a chat for whoever the form says it is."""
    nickname, first, last, email = (
        (text_of(fields, name) or "").strip() for name in ("nickname", "firstName", "lastName", "emailAddress")
    )
    if not nickname and not (first and last):
        raise RefusedError(161 if not first and not last else 103 if first else 102)
    if centre.options.check_email and email and "@" not in email:
        raise RefusedError(364)
    chat = centre.open_chat(service, nickname or f"{first} {last}", first_name=first, last_name=last)
    chat.user_data.update(fields_of(fields, "userData"))
    chat.details = {
        name: text for name in ("subject", "emailAddress", "endpoint", "text") if (text := text_of(fields, name))
    }
    return chat


def required(fields: Fields, name: str) -> str:
    """A parameter that must be there and say something."""
    text = text_of(fields, name)
    if not text:
        raise RefusedError(100, f"Missing parameter: {name}")
    return text


def texts(pairs: Mapping[str, object]) -> dict[str, str]:
    """User data as the wire has it: strings, whatever came in."""
    return {name: text_from(value) for name, value in pairs.items()}


def attributes_of(fields: Fields) -> Attributes | None:
    """The event attributes, which forms carry as JSON text and CometD as an object."""
    attributes = fields.get("eventAttributes")
    if not isinstance(attributes, str):
        return fields_of(fields, "eventAttributes") or None
    try:
        return read_json_object(utf8(attributes)) or None
    except UnreadableBodyError as error:
        raise RefusedError(100, f"eventAttributes: {error.reason}") from error


def check_length(centre: Centre, text: str) -> str:
    """Refuse a text that is too long."""
    limit = centre.options.max_message_length
    if limit is not None and len(text) > limit:
        raise RefusedError(204, str(limit))
    return text


def _send(centre: Centre, chat: Chat, fields: Fields) -> None:
    chat.add(
        "Message",
        chat.client.sender,
        centre.now,
        text=check_length(centre, required(fields, "message")),
        message_type=text_of(fields, "messageType") or "text",
        attributes=attributes_of(fields),
    )


def _refresh(centre: Centre, chat: Chat, fields: Fields) -> None:
    chat.draft = check_length(centre, text_of(fields, "message") or "")


def _typing(event_type: str) -> Effect:
    def effect(centre: Centre, chat: Chat, fields: Fields) -> None:
        chat.draft = check_length(centre, text_of(fields, "message") or "")
        chat.add(event_type, chat.client.sender, centre.now, text=chat.draft or None)

    return effect


def _disconnect(centre: Centre, chat: Chat, _fields: Fields) -> None:
    chat.leave(centre.now)


def _push_url(centre: Centre, chat: Chat, fields: Fields) -> None:
    chat.add("PushUrl", chat.client.sender, centre.now, text=required(fields, "pushUrl"))


def _update_nickname(centre: Centre, chat: Chat, fields: Fields) -> None:
    chat.rename(chat.client, required(fields, "nickname"), centre.now)


def _custom_notice(centre: Centre, chat: Chat, fields: Fields) -> None:
    attributes = attributes_of(fields)
    chat.add(
        "CustomNotice",
        chat.client.sender,
        centre.now,
        text=check_length(centre, text_of(fields, "message") or ""),
        message_type=text_of(fields, "messageType"),
        user_data=texts(fields_of(fields, "userData")),
        attributes=attributes,
    )
    if attributes and attributes.get("purpose") == "cancel-idle-timer":
        chat.stir(centre.now)


def _update_data(_centre: Centre, chat: Chat, fields: Fields) -> None:
    chat.user_data.update(fields_of(fields, "userData"))


def _read_receipt(centre: Centre, chat: Chat, fields: Fields) -> None:
    read = required(fields, "transcriptPosition")
    if not read.isdecimal():
        raise RefusedError(100, "transcriptPosition is not a number")
    chat.read_position = max(chat.read_position, int(read))
    if centre.options.read_receipt_notice:
        chat.add("Notice", chat.client.sender, centre.now, text="read-confirm")


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
