"""Messages, participants, session data and responses: the values that commands return and events carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from msgspec import Struct, field

from webchat_fsm.lifecycle._transports import Transport

Json = dict[str, Any]
"""A JSON object; its values come from the wire or from the caller, unchecked."""

MASK = "***"
"""What stands for a secret in a repr."""

OWN_FAULT = 0
"""The `code` of an error that this side has found: no answer, or one that cannot be read."""


def scalars(value: str) -> str:
    """Replace lone surrogates, which no encoding has, by U+FFFD, as a browser does before it sends a text."""
    # UTF-16 pairs surrogates that belong together, as JavaScript's strings have them; only the lone ones are replaced
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def milliseconds(timestamp: int | str) -> int | None:
    """Return a timestamp (milliseconds, or a text of ISO 8601) as milliseconds since the epoch; None for no time."""
    if isinstance(timestamp, int):
        return timestamp or None  # 0 stands for a time that the server did not send
    try:
        moment = datetime.fromisoformat(timestamp)
    except (TypeError, ValueError):  # a preprocessor may have put anything there
        return None
    # a time without a zone is taken as UTC
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def unsendable(value: Any, place: str) -> Iterator[str]:
    """Yield the place and type of each part of a value that has no text form, such as bytes or a bare object.

    Texts, numbers, booleans and None have one, so do mappings and lists of them and any object with a `__str__` of its
    own: a date, a `Decimal`, a `UUID`.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from () if _has_text(key) else (f"{place} has a key of type {type(key).__name__}",)
            yield from unsendable(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from unsendable(inner, f"{place}[{number}]")
    elif not _has_text(value):
        yield f"{place} is of type {type(value).__name__}"


def _has_text(value: Any) -> bool:
    if isinstance(value, bytes | bytearray):  # they have a `__str__`, which gives their repr
        return False
    if isinstance(value, str | int | float | None):
        return True
    # the one of `object` gives an address, which says nothing to an agent
    spelling: object = type(value).__str__
    try:
        return spelling is not object.__str__ and isinstance(str(value), str)
    except Exception:  # the code of a user's object may raise anything
        return False


def copy_original(original: Any) -> Any:
    """Copy a value of the wire for the bus: an object as a new dict, any other value as it is.

    A handler may change what it is given; what the transcript keeps stays as the server sent it.
    """
    return dict(original) if isinstance(original, Mapping) else original


class Sender(Struct, frozen=True, kw_only=True, gc=False):  # texts and a number, which hold no cycle
    """The author of a message; `type` is Client, Agent, Supervisor, Bot or External, `id` the participant's.

    `participant_id` is the id once more where the bus form names it so, on v3.
    """

    id: int | str = ""
    type: str = ""
    name: str = ""
    participant_id: str = ""

    def item(self) -> Json:
        """Return the bus form of the sender."""
        item: Json = {"id": self.id, "type": self.type, "name": self.name}
        return {**item, "participantId": self.participant_id} if self.participant_id else item


class Message(Struct, frozen=True, kw_only=True):
    """One entry of the transcript: a text, a status message, a notice or another entry of the server.

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

    def __hash__(self) -> int:
        # The dicts inside cannot be hashed; equal messages still have equal hashes, as these fields are equal too.
        return hash((self.index, self.type, self.text, self.sender, self.timestamp))

    def item(self) -> Json:
        """Return the bus form of the message, a new dict each time."""
        item: Json = {
            "text": self.text,
            "type": self.type,
            "index": self.index,
            "timestamp": self.timestamp,
            # these two are part of the bus form, and no dialect has a value for them
            "html": False,
            "bubble": {},
            "userData": dict(self.user_data),
            "from": self.sender.item(),
            **self.extra,
        }
        # left out where a message has none of them
        if self.is_typing is not None:
            item["isTyping"] = self.is_typing
        if self.file_details is not None:
            item["fileDetails"] = dict(self.file_details)
        if self.restoring:
            item["restoring"] = True
        return item

    def altered(self, item: Mapping[str, Any]) -> Message:
        """Return a copy with a preprocessor's changes to the bus form; the index and participant id stay."""
        sender = item.get("from")
        # a preprocessor may return anything: what cannot be used falls back to the original
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
            # `html` and `bubble` are not among those keys, so that a preprocessor can set them
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
        """Return True for a supervisor, who is counted among the agents otherwise."""
        return self.type == "Supervisor"

    def item(self) -> Json:
        """Return the bus form of the participant."""
        return {
            "name": self.name,
            "connected": self.connected,
            "supervisor": self.supervisor,
            # the documented form: false, and not null, while there is no time
            "connectedTime": self.connected_time or False,
            "disconnectedTime": self.disconnected_time or False,
        }


class Agents(Struct, frozen=True):
    """The agents and supervisors of the chat by participant id."""

    agents: dict[int | str, Participant]

    def item(self) -> Json:
        """Return the documented object, its ids as text."""
        return {"agents": {str(key): agent.item() for key, agent in self.agents.items()}}


class Stats(Struct, frozen=True, kw_only=True):
    """Start, end and duration of the chat by its first and last message, in milliseconds, None while there is none."""

    agents: dict[int | str, Participant]
    start_time: int | None = None
    end_time: int | None = None
    duration: int | None = None

    def __hash__(self) -> int:
        return hash((*self.agents, self.start_time, self.end_time))  # the dict of agents has no hash

    def item(self) -> Json:
        """Return the documented object; a missing time is false."""
        times = {"startTime": self.start_time, "endTime": self.end_time, "duration": self.duration}
        return {**Agents(self.agents).item(), **{key: False if time is None else time for key, time in times.items()}}


class Transcript(Struct, frozen=True, kw_only=True):
    """The messages of the chat in order, and the original of each on the wire: an object, or any value in its place.

    `missing` counts the messages that no opening has delivered, 0 for none; None where the count is unknown. What an
    earlier opening delivered is not missing, also where it is not among the messages of this one.
    """

    messages: tuple[Message, ...] = ()
    original_messages: tuple[Any, ...] = ()
    missing: int | None = 0

    def __hash__(self) -> int:
        return hash((self.messages, self.missing))  # originals may be dicts, which have no hash

    @property
    def complete(self) -> bool:
        """Return True where the server reports no missing message; False where some are, or may be, missing."""
        return self.missing == 0

    def item(self) -> Json:
        """Return the documented object; the bus form has no place for `missing`, which `restored` carries."""
        return {
            "messages": [message.item() for message in self.messages],
            "originalMessages": [copy_original(original) for original in self.original_messages],
        }


class FileToSend(Struct, frozen=True, kw_only=True):
    """A file that sendFile was given: its bare name, its size in bytes and the source of its bytes."""

    name: str
    size: int
    content_type: str
    source: Any


class SessionData(Struct, frozen=True, kw_only=True):
    """The ids of a session at the server; `secure_key` and `token` are secrets and masked in every repr."""

    session_id: str = ""
    secure_key: str = ""
    alias: str = ""
    user_id: str = ""
    participant_id: str = ""
    transport_id: str = ""
    token: str = ""

    def item(self, transport: Transport) -> Json:
        """Return the documented object: four ids on v2; on v3 four others, and nothing before there is a session."""
        if transport.gms:
            return {
                "sessionID": self.session_id,
                "secureKey": self.secure_key,
                "alias": self.alias,
                "userId": self.user_id,
            }
        if not self.session_id:  # v2 has its four keys always, empty before the first chat
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
    """The reference's AJAX Response Object: an answer of the server, or the fault that prevented one.

    `status` is the HTTP status, 0 where no complete answer came; `body` the decoded JSON, or the text;
    `errors` a list of objects with `code` and `advice` or `text`; `url` the address without its query.
    """

    status: int = 0
    body: Any = None
    errors: list[Json] = field(default_factory=list)
    url: str = ""

    def __hash__(self) -> int:
        return hash((self.status, self.url))  # the body may be any JSON, which has no hash

    def item(self) -> Json:
        """Return the bus form: the envelope itself where the server sent one that fits, else these four fields."""
        # what this side has found is not in the envelope, and would be hidden by it
        fits = not any(error.get("code") == OWN_FAULT for error in self.errors)
        if fits and isinstance(self.body, Mapping) and 200 <= self.status < 300:
            return dict(self.body)
        return {"status": self.status, "body": self.body, "errors": self.errors, "url": self.url}

    def __repr__(self) -> str:  # without the body, in which an answer carries keys and texts of the customer
        return f"Response(status={self.status}, errors={self.errors!r}, url={self.url!r})"


class Named(Struct, frozen=True, kw_only=True):
    """The base of all that a request is made for: the operations, and the frames of a Bayeux connection.

    `name` is the reference's word, as in errors, faults, logs and recordings. With `polls` messages come by it.
    """

    name: ClassVar[str] = ""
    polls: ClassVar[bool] = False

    @property
    def held(self) -> bool:
        """Return whether the server may hold the answer until there is a message."""
        return False

    def __repr__(self) -> str:  # the fields are what the customer writes, and a client id, which no log may show
        return f"{type(self).__name__}()"


class BayeuxFrame(Named, frozen=True, kw_only=True):
    """The base of the frames, so that a transport without them can refuse them without loading them."""
