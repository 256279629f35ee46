"""The model of a chat that all dialects share: parties, transcript, files and ids, independent of a wire format.

Times are seconds since the epoch, passed by the caller; an event keeps its time in milliseconds, as the wires do.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Ids:
    """A source of ids: the same seed gives the same ids in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chat_id(self) -> str:
        """Return a v2 chat id, sixteen letters and digits."""
        return "000" + "".join(self._random.choices(_LETTERS, k=13))

    def hexadecimal(self, digits: int = 16) -> str:
        """Return upper-case hexadecimal digits, the shape of user ids and file ids."""
        # Filled with zeros, as a small number would have fewer digits.
        return f"{self._random.getrandbits(digits * 4):0{digits}X}"

    def secure_key(self) -> str:
        """Return a v2 session secret, twenty lower-case hexadecimal digits."""
        return self.hexadecimal(20).lower()

    def alias(self) -> str:
        """Return the label of a Chat Server instance, a small number as text."""
        return str(self._random.randint(100, 1999))

    def unique(self) -> str:
        """Return a version-4 UUID."""
        # `uuid.uuid4` reads the randomness of the system, which no seed repeats.
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


Kind: TypeAlias = Literal["Client", "Agent", "Supervisor", "External"]
Attributes: TypeAlias = dict[str, object]

TYPING = frozenset({"TypingStarted", "TypingStopped"})
ACTIVITY = frozenset({"ParticipantJoined", "ParticipantLeft", "Message", "PushUrl", "FileUploaded"})
"""Events that count as activity, and restart the idle timers; typing and notices do not."""


class ServerSender(msgspec.Struct, frozen=True):
    """A party as it was at the time of an event; a later change of its name does not alter it."""

    participant_id: int
    key: str
    nickname: str
    kind: Kind
    bot: bool = False
    first_name: str = ""
    last_name: str = ""


class ServerParty(msgspec.Struct):
    """A participant of a chat, who stays in its list after leaving."""

    sender: ServerSender
    connected: bool = True


class ServerEvent(msgspec.Struct, frozen=True):
    """One entry of the transcript; fields that do not belong to its type are None."""

    index: int
    """Place in the transcript, from 1 without gaps; v2 and CometD count by it."""
    stamp: int
    """Milliseconds since the epoch, made unique and rising inside the chat; v3 counts by it."""
    type: str
    sender: ServerSender
    utc_time: int
    text: str | None = None
    message_type: str | None = None
    user_data: Mapping[str, str] | None = None
    attributes: Attributes | None = None
    file_id: str | None = None


class StoredFile(msgspec.Struct):
    """An attached file; a deleted one keeps its entry without its content."""

    id: str
    name: str
    content_type: str
    content: bytes
    sender: ServerSender
    downloads: int = 0
    deleted: bool = False


class Chat:
    """A conversation between one client and any number of people."""

    def __init__(
        self, ids: Ids, service: str, now: float, on_event: Callable[[Chat, ServerEvent], None] | None = None
    ) -> None:
        self.service = service
        self.chat_id: str = ids.chat_id()
        self.user_id: str = ids.hexadecimal()
        self.secure_key: str = ids.secure_key()
        self.alias: str = ids.alias()
        self.session_id: str = ids.unique()
        self.parties: list[ServerParty] = []
        self.transcript: list[ServerEvent] = []
        self.files: dict[str, StoredFile] = {}
        self.user_data: Attributes = {}
        self.details: dict[str, str] = {}
        self.draft = ""
        self.read_position = 0
        self.ended: bool = False
        self.sealed: bool = False
        self.began: float = now
        self.last_request: float = now
        self.idle_since: float = now
        self.idle_stage: int = 0
        self._ids = ids
        self._senders = 0
        self._on_event = on_event

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        present = ", ".join(party.sender.nickname for party in self.parties if party.connected)
        return f"<Chat {self.chat_id} {state}, {len(self.transcript)} events, with {present or 'no participants'}>"

    # Parties

    @property
    def client(self) -> ServerParty:
        """Return the client's party; the first to join."""
        return self.parties[0]

    @property
    def next_position(self) -> int:
        """Return the index that the next event will have."""
        return len(self.transcript) + 1

    @property
    def monitored(self) -> bool:
        """Return whether a supervisor is in the chat, which clients of v2 are informed of."""
        return any(party.connected and party.sender.kind == "Supervisor" for party in self.parties)

    @property
    def attended(self) -> bool:
        """Return whether an agent, a supervisor or a bot is in the chat."""
        return any(party.connected for party in self.parties[1:])

    def admit(
        self, nickname: str, kind: Kind, now: float, *, bot: bool = False, first_name: str = "", last_name: str = ""
    ) -> ServerParty:
        """Add a participant, with a ParticipantJoined; the first one is the client."""
        party = ServerParty(self._new_sender(nickname, kind, bot, first_name, last_name))
        self.parties.append(party)
        self.add("ParticipantJoined", party.sender, now)
        return party

    def readmit(self, party: ServerParty, now: float) -> None:
        """Reconnect a participant who had left, with a ParticipantJoined; an ended chat is opened again."""
        # Ended is taken back for v3, where resuming an ended session opens it again.
        party.connected, self.ended, self.sealed = True, False, False
        self.add("ParticipantJoined", party.sender, now)

    def dismiss(self, party: ServerParty, now: float) -> None:
        """Disconnect a participant, with a ParticipantLeft; without effect on a disconnected one."""
        # Both sides may end a chat at once; only the first leaving is an event.
        if party.connected:
            party.connected = False
            self.add("ParticipantLeft", party.sender, now)

    def end(self, now: float) -> None:
        """End the chat from the server's side: everyone but the client leaves; its next answer says that it ended."""
        if not self.ended:
            # The client stays connected: its next answer, the last one, says that the chat has ended.
            for party in self.parties[1:]:
                self.dismiss(party, now)
            self.ended = True

    def leave(self, now: float) -> None:
        """End the chat from the client's side: the client leaves and the chat is over."""
        if not self.ended:
            self.dismiss(self.client, now)
            self.ended = True

    def rename(self, party: ServerParty, nickname: str, now: float) -> ServerEvent:
        """Change the nickname of a participant, with a NicknameUpdated under the new name."""
        # A new sender, as earlier events keep the name of their time.
        party.sender = msgspec.structs.replace(party.sender, nickname=nickname)
        return self.add("NicknameUpdated", party.sender, now)

    def announce(self, event_type: str, now: float, *, text: str, user_data: Mapping[str, str]) -> ServerEvent:
        """Append an event of the system, which is a sender but not a participant."""
        # One sender for all events of the system, so that they carry one participant id.
        system = next((event.sender for event in self.transcript if event.sender.kind == "External"), None)
        return self.add(
            event_type, system or self._new_sender("system", "External"), now, text=text, user_data=user_data
        )

    def _new_sender(
        self, nickname: str, kind: Kind, bot: bool = False, first: str = "", last: str = ""
    ) -> ServerSender:
        # One count for participants and the system, so that an id stands for one sender.
        self._senders += 1
        return ServerSender(self._senders, self._ids.unique(), nickname, kind, bot, first, last)

    # Transcript

    def add(
        self,
        event_type: str,
        sender: ServerSender,
        now: float,
        *,
        text: str | None = None,
        message_type: str | None = None,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
        file_id: str | None = None,
    ) -> ServerEvent:
        """Append an event to the transcript; `now` is seconds since the epoch."""
        milliseconds = round(now * 1000)
        last = self.transcript[-1].stamp if self.transcript else 0
        event = ServerEvent(
            index=self.next_position,
            stamp=max(milliseconds, last + 1),  # v3 uses it as the index, so events of one millisecond must differ
            type=event_type,
            sender=sender,
            utc_time=milliseconds,
            text=text,
            message_type=message_type,
            user_data=user_data,
            attributes=attributes,
            file_id=file_id,
        )
        self.transcript.append(event)
        if event_type in ACTIVITY:
            self.stir(now)
        # Last, as a listener may read the transcript or add events itself.
        if self._on_event is not None:
            self._on_event(self, event)
        return event

    def stir(self, now: float) -> None:
        """Restart the idle timers from their first stage."""
        self.idle_stage, self.idle_since = 0, now

    def since(self, position: int | None) -> list[ServerEvent]:
        """Return events from a REST position on: 0 asks for none, None for all, a negative one for the last."""
        if position is None:
            return list(self.transcript)
        if position < 0:
            return self.transcript[-1:]
        return self.transcript[position - 1 :] if position else []

    # Files

    def attach(
        self,
        sender: ServerSender,
        name: str,
        content: bytes,
        now: float,
        *,
        content_type: str = "application/octet-stream",
        user_data: Mapping[str, str] | None = None,
    ) -> StoredFile:
        """Store a file, with a FileUploaded that has its id, name and size in the user data."""
        file = StoredFile(self._ids.hexadecimal(), name, content_type, content, sender)
        self.files[file.id] = file
        facts = {
            "file-id": file.id,
            "file-name": name,
            "file-size": str(len(content)),
            "file-source": "ucs",
            "file-upload-type": "file-system",
            "file-upload-path": name,
            "file-document-id": self._ids.hexadecimal(),
        }
        # The facts come last: a client's user data must not override them.
        self.add("FileUploaded", sender, now, text=file.id, user_data={**(user_data or {}), **facts}, file_id=file.id)
        return file

    def discard(self, file: StoredFile, sender: ServerSender, now: float) -> None:
        """Delete the content of a file, with a FileDeleted."""
        # The entry stays: the transcript refers to it, and a download of it is refused as "not found".
        file.deleted, file.content = True, b""
        facts = {"file-id": file.id, "file-name": file.name}
        self.add("FileDeleted", sender, now, text=file.id, user_data=facts, file_id=file.id)

    def kept_files(self, sender: ServerSender) -> list[StoredFile]:
        """Return the files of one sender that are not deleted; they count against the limits."""
        return [
            file
            for file in self.files.values()
            if file.sender.participant_id == sender.participant_id and not file.deleted
        ]
