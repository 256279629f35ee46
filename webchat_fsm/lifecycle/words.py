"""The things that a chat is about: messages, the people in it, session data, answers of the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, field

from webchat_fsm.lifecycle.table import Transport

Json = dict[str, Any]
"""A JSON object; its values are whatever the wire or the caller put there."""

MASK = "***"

OWN_FAULT = 0
"""The `code` of an error that this side has found: no answer, or one that cannot be read."""


def scalars(value: str) -> str:
    """A text as a browser sends it: lone surrogates, which no encoding has, become U+FFFD."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def milliseconds(timestamp: int | str) -> int | None:
    """A timestamp in milliseconds since the epoch, told as that or in the words of ISO 8601; None for no time."""
    if isinstance(timestamp, int):
        return timestamp or None
    try:
        told = datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):  # a preprocessor may have put anything there
        return None
    return round((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000)


def unsendable(value: Any, place: str) -> Iterator[str]:
    """What in a value has no text of its own, such as bytes or a bare object: where it is, and of which type.

    Texts, numbers, true, false and nothing have one, mappings and lists of them too, and whatever spells itself out: a
    date, a `Decimal`, a `UUID`.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from () if _spelt(key) else (f"{place} has a key of type {type(key).__name__}",)
            yield from unsendable(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from unsendable(inner, f"{place}[{number}]")
    elif not _spelt(value):
        yield f"{place} is of type {type(value).__name__}"


def _spelt(value: Any) -> bool:
    if isinstance(value, bytes | bytearray):
        return False
    if isinstance(value, str | int | float | None):
        return True
    spelling: object = type(value).__str__
    try:
        return spelling is not object.__str__ and isinstance(str(value), str)
    except Exception:  # the code of a user's object may raise anything
        return False


def as_it_came(original: Any) -> Any:
    """Copy what the wire said for the bus: an object as a new dict, any other value as it is."""
    return dict(original) if isinstance(original, Mapping) else original


class Sender(Struct, frozen=True, kw_only=True):
    """Who a message is from; `type` is Client, Agent, Supervisor, Bot or External, `id` the participant's.

    `participant_id` is the id once more where the bus form names it so, on v3.
    """

    id: int | str = ""
    type: str = ""
    name: str = ""
    participant_id: str = ""

    def item(self) -> Json:
        """The sender as the bus carries it."""
        item: Json = {"id": self.id, "type": self.type, "name": self.name}
        return {**item, "participantId": self.participant_id} if self.participant_id else item


class Message(Struct, frozen=True, kw_only=True):
    """One entry of the transcript: a text, a status message, a notice or whatever else the server has sent.

    `timestamp` is the server's (milliseconds since the epoch on v2, as on the wire on v3); `file_details` comes with
    FileUploaded, `is_typing` with typing messages, `restoring` with what a restore brought; `extra` holds further
    fields of the bus form, those that a preprocessor added among them.
    """

    index: int | str | None = None
    type: str = "Message"
    text: str = ""
    sender: Sender = Sender()
    timestamp: int | str = 0
    user_data: Json = {}
    is_typing: bool | None = None
    file_details: Json | None = None
    restoring: bool = False
    extra: Json = {}

    def item(self) -> Json:
        """The message as the bus carries it, a new dict each time."""
        item: Json = {
            "text": self.text,
            "type": self.type,
            "index": self.index,
            "timestamp": self.timestamp,
            "html": False,
            "bubble": {},
            "userData": dict(self.user_data),
            "from": self.sender.item(),
            **self.extra,
        }
        if self.is_typing is not None:
            item["isTyping"] = self.is_typing
        if self.file_details is not None:
            item["fileDetails"] = dict(self.file_details)
        if self.restoring:
            item["restoring"] = True
        return item

    def altered(self, item: Mapping[str, Any]) -> Message:
        """The message with what a preprocessor has made of its bus form; its index stays."""
        sender = item.get("from")
        if not isinstance(sender, Mapping):
            sender = {}
        details, key, typing = item.get("fileDetails"), sender.get("id"), item.get("isTyping")
        timestamp = item.get("timestamp")
        return Message(
            index=self.index,
            type=str(item.get("type", self.type)),
            text=str(item.get("text") or ""),
            sender=Sender(
                id=key if isinstance(key, int | str) else self.sender.id,
                type=str(sender.get("type", self.sender.type)),
                name=str(sender.get("name", self.sender.name)),
                participant_id=self.sender.participant_id,
            ),
            timestamp=timestamp if isinstance(timestamp, int | str) else self.timestamp,
            user_data=dict(item.get("userData") or {}),
            is_typing=None if typing is None else typing is True,
            file_details=dict(details) if isinstance(details, Mapping) else None,
            extra={key: value for key, value in item.items() if key not in _ITEM_KEYS},
        )


_ITEM_KEYS = frozenset(
    {"text", "type", "index", "timestamp", "userData", "from", "isTyping", "fileDetails", "restoring"}
)


class Participant(Struct, frozen=True, kw_only=True):
    """An agent or a supervisor of this chat; times are the server's, in milliseconds, None while there is none."""

    id: int | str
    name: str
    type: str
    connected: bool
    connected_time: int | None = None
    disconnected_time: int | None = None

    @property
    def supervisor(self) -> bool:
        """True for a supervisor, who counts as an agent otherwise."""
        return self.type == "Supervisor"

    def item(self) -> Json:
        """The participant as the bus carries it."""
        return {
            "name": self.name,
            "connected": self.connected,
            "supervisor": self.supervisor,
            "connectedTime": self.connected_time or False,
            "disconnectedTime": self.disconnected_time or False,
        }


class Agents(Struct, frozen=True):
    """The agents and supervisors of the chat by participant id."""

    agents: dict[int | str, Participant]

    def item(self) -> Json:
        """The documented object, its ids as text."""
        return {"agents": {str(key): agent.item() for key, agent in self.agents.items()}}


class Stats(Struct, frozen=True, kw_only=True):
    """Start, end and duration of the chat by its first and last message, in milliseconds, None while there is none."""

    agents: dict[int | str, Participant]
    start_time: int | None = None
    end_time: int | None = None
    duration: int | None = None

    def item(self) -> Json:
        """The documented object; a time that is not there is false."""
        times = {"startTime": self.start_time, "endTime": self.end_time, "duration": self.duration}
        return {**Agents(self.agents).item(), **{key: False if time is None else time for key, time in times.items()}}


class Transcript(Struct, frozen=True, kw_only=True):
    """The messages of the chat in order, and beside each what the wire said: an object, or any value in its place.

    `missing` counts the messages that no opening has delivered, 0 for none; None where the count is unknown. What an
    earlier opening delivered is not missing, also where it is not among the messages of this one.
    """

    messages: tuple[Message, ...] = ()
    original_messages: tuple[Any, ...] = ()
    missing: int | None = 0

    @property
    def complete(self) -> bool:
        """True where no message is missing, as far as the server can say; False where some are, or may be."""
        return self.missing == 0

    def item(self) -> Json:
        """The documented object; the bus form has no place for `missing`, which `restored` carries."""
        return {
            "messages": [message.item() for message in self.messages],
            "originalMessages": [as_it_came(original) for original in self.original_messages],
        }


class FileToSend(Struct, frozen=True, kw_only=True):
    """A file that sendFile was given: its bare name, its size in bytes, and where its bytes come from."""

    name: str
    size: int
    content_type: str
    source: Any


class SessionData(Struct, frozen=True, kw_only=True):
    """What identifies a session at the server; `secure_key` and `token` are secrets and masked in every repr."""

    session_id: str = ""
    secure_key: str = ""
    alias: str = ""
    user_id: str = ""
    participant_id: str = ""
    transport_id: str = ""
    token: str = ""

    def item(self, transport: Transport) -> Json:
        """The documented object: four ids on v2; on v3 four others, and nothing before there is a session."""
        if transport.gms:
            return {
                "sessionID": self.session_id,
                "secureKey": self.secure_key,
                "alias": self.alias,
                "userId": self.user_id,
            }
        if not self.session_id:
            return {}
        return {
            "participantId": self.participant_id,
            "sessionId": self.session_id,
            "token": self.token,
            "transportId": self.transport_id,
        }

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={MASK if name in ('secure_key', 'token') else value!r}"
            for name in self.__struct_fields__
            if (value := getattr(self, name))
        )
        return f"SessionData({shown})"


class Response(Struct, frozen=True, kw_only=True):
    """What the reference calls AJAX Response Object: an answer of the server, or what stood in its way.

    `status` is the HTTP status, 0 where no complete answer came; `body` the decoded JSON, or the text;
    `errors` a list of objects with `code` and `advice` or `text`; `url` the address without its query.
    """

    status: int = 0
    body: Any = None
    errors: list[Json] = field(default_factory=list)
    url: str = ""

    def item(self) -> Json:
        """The bus form: the envelope itself where the server sent one that fits, else these four fields."""
        fits = not any(error.get("code") == OWN_FAULT for error in self.errors)
        if fits and isinstance(self.body, Mapping) and 200 <= self.status < 300:
            return dict(self.body)
        return {"status": self.status, "body": self.body, "errors": self.errors, "url": self.url}

    def __repr__(self) -> str:
        return f"Response(status={self.status}, errors={self.errors!r}, url={self.url!r})"
