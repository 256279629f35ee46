"""Scripted people: agents, supervisors and bots that a test or a demonstration moves about."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from webchat_fsm.server.chat import Attributes, Chat, Event, Kind, Party, StoredFile


class Stage(Protocol):
    """What people need from the server: the time, the chat meant when none is named, and one action at a time."""

    def moment(self) -> float:
        """Seconds since the epoch."""

    def current_chat(self) -> Chat:
        """The chat that was started last."""

    def changed(self) -> None:
        """Tell whoever waits that something happened."""

    def lock(self) -> AbstractContextManager[object]:
        """Keep everybody else from acting meanwhile."""


class Person:
    """Somebody on the other side of the chat.

    Actions without a chat mean the one joined last; each returns what it left behind.
    """

    def __init__(self, stage: Stage, nickname: str, kind: Kind, bot: bool = False) -> None:
        self.nickname = nickname
        self.kind = kind
        self.bot = bot
        self._stage = stage
        self._chat: Chat | None = None
        self._parties: dict[str, Party] = {}

    def __repr__(self) -> str:
        return f"<{'Bot' if self.bot else self.kind} {self.nickname}>"

    def join(self, chat: Chat | None = None) -> Person:
        """Enter a chat, by default the one started last; a person who left comes back as the same participant."""
        with self._stage.lock():
            self._chat = chat or self._stage.current_chat()
            known = self._parties.get(self._chat.chat_id)
            now = self._stage.moment()
            if self._chat.ended:
                raise RuntimeError(f"{self.nickname} cannot join {self._chat!r}")
            if known is None:
                self._parties[self._chat.chat_id] = self._chat.admit(self.nickname, self.kind, now, bot=self.bot)
            elif not known.connected:
                self._chat.readmit(known, now)
            self._stage.changed()
        return self

    def leave(self, chat: Chat | None = None) -> None:
        """Go; the chat stays open."""
        with self._stage.lock():
            where, party = self._place(chat)
            where.dismiss(party, self._stage.moment())
            self._stage.changed()

    def say(self, text: str, chat: Chat | None = None, *, attributes: Attributes | None = None) -> Event:
        """Send a message."""
        return self._do("Message", chat, text=text, message_type="text", attributes=attributes)

    def typing(self, chat: Chat | None = None, *, preview: str | None = None) -> Event:
        """Begin to type."""
        return self._do("TypingStarted", chat, text=preview)

    def stop_typing(self, chat: Chat | None = None) -> Event:
        """Stop typing."""
        return self._do("TypingStopped", chat)

    def push_url(self, url: str, chat: Chat | None = None) -> Event:
        """Send a page to open."""
        return self._do("PushUrl", chat, text=url)

    def notice(
        self,
        text: str,
        chat: Chat | None = None,
        *,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
        custom: bool = True,
    ) -> Event:
        """Send a CustomNotice, or a plain Notice."""
        kind = "CustomNotice" if custom else "Notice"
        return self._do(kind, chat, text=text, user_data=user_data, attributes=attributes)

    def rename(self, nickname: str, chat: Chat | None = None) -> Event:
        """Go by another name from now on."""
        with self._stage.lock():
            where, party = self._place(chat)
            self.nickname = nickname
            event = where.rename(party, nickname, self._stage.moment())
            self._stage.changed()
        return event

    def send_file(
        self,
        name: str,
        content: bytes,
        chat: Chat | None = None,
        *,
        content_type: str = "application/octet-stream",
        description: str | None = None,
    ) -> StoredFile:
        """Attach a file; the limits are the client's, not ours."""
        with self._stage.lock():
            where, party = self._place(chat)
            about = {"file-description": description} if description else None
            file = where.attach(
                party.sender, name, content, self._stage.moment(), content_type=content_type, user_data=about
            )
            self._stage.changed()
        return file

    def is_in(self, chat: Chat) -> bool:
        """Whether this person is in a chat now."""
        party = self._parties.get(chat.chat_id)
        return party is not None and party.connected

    def _do(
        self,
        event_type: str,
        chat: Chat | None,
        *,
        text: str | None = None,
        message_type: str | None = None,
        user_data: Mapping[str, str] | None = None,
        attributes: Attributes | None = None,
    ) -> Event:
        with self._stage.lock():
            where, party = self._place(chat)
            event = where.add(
                event_type,
                party.sender,
                self._stage.moment(),
                text=text,
                message_type=message_type,
                user_data=user_data,
                attributes=attributes,
            )
            self._stage.changed()
        return event

    def _place(self, chat: Chat | None) -> tuple[Chat, Party]:
        where = chat or self._chat
        party = self._parties.get(where.chat_id) if where else None
        if where is None or party is None or not party.connected:
            raise RuntimeError(f"{self.nickname} is not in {'a chat' if where is None else repr(where)}")
        return where, party
