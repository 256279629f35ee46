"""One chat: its parties, its transcript, its files. The model that every dialect shares.

Nothing here knows a wire format. Times are seconds since the epoch, handed in by the caller; an event keeps its time in
milliseconds, as the wires do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec

from webchat_fsm.server.ids import Ids

Kind: TypeAlias = Literal["Client", "Agent", "Supervisor", "External"]
Attributes: TypeAlias = dict[str, object]

TYPING = frozenset({"TypingStarted", "TypingStopped"})
ACTIVITY = frozenset({"ParticipantJoined", "ParticipantLeft", "Message", "PushUrl", "FileUploaded"})
"""Events that show that somebody is there: they start the idle timers afresh."""


class Sender(msgspec.Struct, frozen=True):
    """Who a party was at the moment of an event; a later change of name does not touch it."""

    participant_id: int
    key: str
    nickname: str
    kind: Kind
    bot: bool = False
    first_name: str = ""
    last_name: str = ""


class Party(msgspec.Struct):
    """Somebody in a chat, present or gone."""

    sender: Sender
    connected: bool = True


class Event(msgspec.Struct, frozen=True):
    """One entry of the transcript."""

    index: int
    """Place in the transcript, from 1 without gaps; v2 and CometD count by it."""
    stamp: int
    """Milliseconds since the epoch, made unique and rising inside the chat; v3 counts by it."""
    type: str
    sender: Sender
    utc_time: int
    text: str | None = None
    message_type: str | None = None
    user_data: Mapping[str, str] | None = None
    attributes: Attributes | None = None
    file_id: str | None = None


class StoredFile(msgspec.Struct):
    """A file that somebody attached; a deleted one keeps its entry and loses its content."""

    id: str
    name: str
    content_type: str
    content: bytes
    sender: Sender
    downloads: int = 0
    deleted: bool = False


class Chat:
    """A conversation between one client and any number of people."""

    def __init__(self, ids: Ids, service: str, now: float, heard: Callable[[Chat, Event], None] | None = None) -> None:
        self.service = service
        self.chat_id = ids.chat_id()
        self.user_id = ids.hexadecimal()
        self.secure_key = ids.secure_key()
        self.alias = ids.alias()
        self.session_id = ids.unique()
        self.parties: list[Party] = []
        self.transcript: list[Event] = []
        self.files: dict[str, StoredFile] = {}
        self.user_data: Attributes = {}
        self.details: dict[str, str] = {}
        self.draft = ""
        self.read_position = 0
        self.ended = False
        self.sealed = False
        self.began = self.last_request = self.idle_since = now
        self.idle_stage = 0
        self._ids = ids
        self._senders = 0
        self._heard = heard

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        present = ", ".join(party.sender.nickname for party in self.parties if party.connected)
        return f"<Chat {self.chat_id} {state}, {len(self.transcript)} events, with {present or 'nobody'}>"

    # Parties

    @property
    def client(self) -> Party:
        """The client's party; the first to join."""
        return self.parties[0]

    @property
    def next_position(self) -> int:
        """Index that the next event will have."""
        return len(self.transcript) + 1

    @property
    def monitored(self) -> bool:
        """Whether a supervisor is in the chat."""
        return any(party.connected and party.sender.kind == "Supervisor" for party in self.parties)

    @property
    def attended(self) -> bool:
        """Whether anybody but the client is in the chat."""
        return any(party.connected for party in self.parties[1:])

    def admit(
        self, nickname: str, kind: Kind, now: float, *, bot: bool = False, first_name: str = "", last_name: str = ""
    ) -> Party:
        """Let somebody new in, with a ParticipantJoined."""
        party = Party(self._new_sender(nickname, kind, bot, first_name, last_name))
        self.parties.append(party)
        self.add("ParticipantJoined", party.sender, now)
        return party

    def readmit(self, party: Party, now: float) -> None:
        """Let somebody who had left in again, as the same participant; an ended chat is open again by that."""
        party.connected, self.ended, self.sealed = True, False, False
        self.add("ParticipantJoined", party.sender, now)

    def dismiss(self, party: Party, now: float) -> None:
        """Let somebody go, with a ParticipantLeft; without effect on one who is gone already."""
        if party.connected:
            party.connected = False
            self.add("ParticipantLeft", party.sender, now)

    def end(self, now: float) -> None:
        """End the chat from the server's side: all people leave, and the client learns it with its next request."""
        if not self.ended:
            for party in self.parties[1:]:
                self.dismiss(party, now)
            self.ended = True

    def leave(self, now: float) -> None:
        """End the chat from the client's side: the client leaves and the chat is over."""
        if not self.ended:
            self.dismiss(self.client, now)
            self.ended = True

    def rename(self, party: Party, nickname: str, now: float) -> Event:
        """Give somebody another name, told by a NicknameUpdated under the new name."""
        party.sender = msgspec.structs.replace(party.sender, nickname=nickname)
        return self.add("NicknameUpdated", party.sender, now)

    def announce(self, event_type: str, now: float, *, text: str, user_data: Mapping[str, str]) -> Event:
        """An event from the system, which is a sender but nobody in the room."""
        system = next((event.sender for event in self.transcript if event.sender.kind == "External"), None)
        return self.add(
            event_type, system or self._new_sender("system", "External"), now, text=text, user_data=user_data
        )

    def _new_sender(self, nickname: str, kind: Kind, bot: bool = False, first: str = "", last: str = "") -> Sender:
        self._senders += 1
        return Sender(self._senders, self._ids.unique(), nickname, kind, bot, first, last)

    # Transcript

    def add(
        self,
        event_type: str,
        sender: Sender,
        now: float,
        *,
        text: str | None = None,
        message_type: str | None = None,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
        file_id: str | None = None,
    ) -> Event:
        """Append an event to the transcript."""
        milliseconds = round(now * 1000)
        last = self.transcript[-1].stamp if self.transcript else 0
        event = Event(
            index=self.next_position,
            stamp=max(milliseconds, last + 1),
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
        if self._heard is not None:
            self._heard(self, event)
        return event

    def stir(self, now: float) -> None:
        """Start the idle timers afresh."""
        self.idle_stage, self.idle_since = 0, now

    def since(self, position: int | None) -> list[Event]:
        """Events from a REST position on: 0 asks for none, None for all, a negative one for the last."""
        if position is None:
            return list(self.transcript)
        if position < 0:
            return self.transcript[-1:]
        return self.transcript[position - 1 :] if position else []

    # Files

    def attach(
        self,
        sender: Sender,
        name: str,
        content: bytes,
        now: float,
        *,
        content_type: str = "application/octet-stream",
        user_data: Mapping[str, str] | None = None,
    ) -> StoredFile:
        """Keep a file and tell of it with a FileUploaded."""
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
        self.add("FileUploaded", sender, now, text=file.id, user_data={**(user_data or {}), **facts}, file_id=file.id)
        return file

    def discard(self, file: StoredFile, sender: Sender, now: float) -> None:
        """Delete a file and tell of it with a FileDeleted."""
        file.deleted, file.content = True, b""
        facts = {"file-id": file.id, "file-name": file.name}
        self.add("FileDeleted", sender, now, text=file.id, user_data=facts, file_id=file.id)

    def kept_files(self, sender: Sender) -> list[StoredFile]:
        """Files of one sender that are still there; they count against the limits."""
        return [
            file
            for file in self.files.values()
            if file.sender.participant_id == sender.participant_id and not file.deleted
        ]
