"""Bayeux messages on a line that both sides write to at any time: which one answers which, and what came unasked.

To the core such a line looks like a long poll that is answered as soon as there is news. So a connect is answered with
the news and a reply of our own making, while the server goes on holding it; the next connect takes the held one over.
It is pure: whoever shares it between threads locks it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from webchat_fsm.lifecycle.encoding import REFUSED
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.wire.decoding import elements, read_body, text_of

CONNECT = "/meta/connect"
HANDSHAKE = "/meta/handshake"
DISCONNECT = "/meta/disconnect"


class FrameError(ValueError):
    """What came cannot be read, or is more than can be kept."""


class Head(Struct, frozen=True, rename="camel"):
    """What of a message tells where it belongs; nothing of it is trusted to be of its type."""

    id: Any = None
    channel: Any = None
    client_id: Any = None
    successful: Any = UNSET
    advice: Any = None
    data: Raw | UnsetType = UNSET


class Question:
    """A message that waits for its answer, which is an array as the body of an HTTP answer would hold it."""

    def __init__(self, body: bytes) -> None:
        ((head, _),) = messages(body)
        self.id, self.channel, self.client_id = str(head.id), head.channel, head.client_id
        self.held_as = self.id
        """The id under which the server answers it."""
        self.hold = _hold(head)
        self.answer: bytes | None = None
        self.sent = True
        self.early = False
        """Whether news answered it, and not the server."""

    @property
    def is_connect(self) -> bool:
        """Whether it brings the news."""
        return bool(self.channel == CONNECT)

    @property
    def patient(self) -> bool:
        """Whether it is a connect that the server is to hold, which news may answer before the server does."""
        return self.is_connect and self.hold != 0.0


class _Held(Struct):
    """A connect that was answered with news, while the server goes on holding it."""

    id: str
    client_id: Any
    reply: bytes | None = None


class Correspondence:
    """All that is asked and not answered on one line, and at most `most` bytes of news that nobody has fetched."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: list[Question] = []
        self._news: list[bytes] = []
        self._held: _Held | None = None

    def ask(self, question: Question) -> bool:
        """Wait for an answer; whether the message is to be sent, which a connect that the server holds is not."""
        held = self._held
        if question.channel == HANDSHAKE:
            self._news.clear()
        if question.is_connect or question.channel == HANDSHAKE:
            self._held = None
        self._asked.append(question)
        taken_over = held is not None and question.patient and held.client_id == question.client_id
        if held is not None and taken_over:
            question.held_as = held.id
            if held.reply is not None:
                self._answer(question, held.reply)
        self._tell()
        return not taken_over

    def take(self, frame: bytes) -> None:
        """Sort what has come; raises `FrameError`."""
        replies = []
        for head, message in messages(frame):
            question = self._question_of(head)
            if question is not None:
                replies.append((question, message))
            elif self._held is not None and _answers(head, self._held.id, CONNECT):
                self._held.reply = message
            elif head.channel == DISCONNECT or (head.successful is UNSET and head.data is not UNSET):
                self._news.append(message)
        for question, message in replies:
            self._answer(question, message)
        self._tell()
        if sum(map(len, self._news)) > self._most:
            raise FrameError(f"more than {self._most} bytes of news, which nobody fetches")

    def rest(self, question: Question) -> None:
        """Answer a connect without news, as its time is over; the server goes on holding it."""
        self._answer_early(question)

    def forget(self, question: Question) -> None:
        """Wait for no answer any more."""
        if question in self._asked:
            self._asked.remove(question)

    @property
    def fetching(self) -> bool:
        """Whether a connect waits, so that a loss of the line is told."""
        return any(question.is_connect for question in self._asked)

    def busy_beside(self, client_id: object) -> bool:
        """Whether anything is waited for but the connects of one client."""
        return any(not question.is_connect or question.client_id != client_id for question in self._asked)

    def _question_of(self, head: Head) -> Question | None:
        if head.successful is UNSET:
            return None
        return next((one for one in self._asked if _answers(head, one.held_as, one.channel)), None)

    def _answer(self, question: Question, reply: bytes) -> None:
        news = self._fetched() if question.is_connect else []
        question.answer = _array(*news, reply)
        self._asked.remove(question)

    def _tell(self) -> None:
        waiting = next((one for one in reversed(self._asked) if one.patient), None) if self._news else None
        if waiting is not None:
            self._answer_early(waiting)

    def _answer_early(self, question: Question) -> None:
        question.early = True
        if question.sent:
            self._held = _Held(question.held_as, question.client_id)
        own = {"id": question.id, "channel": CONNECT, "successful": True}
        self._answer(question, msgspec.json.encode(own))

    def _fetched(self) -> list[bytes]:
        news, self._news = self._news, []
        return news


def messages(frame: bytes) -> list[tuple[Head, bytes]]:
    """The messages of an array, or the only one, each with its bytes; raises `FrameError`.

    An element that cannot be read costs nothing beside it: it is left out, unless nothing is left then.
    """
    try:
        listed = [frame] if frame.lstrip().startswith(b"{") else msgspec.json.decode(frame, type=list[Raw])
        return [(msgspec.json.decode(one, type=Head), bytes(one)) for one in listed]
    except (*REFUSED, RecursionError):
        return _spoilt(frame)


def _spoilt(frame: bytes) -> list[tuple[Head, bytes]]:
    text = text_of(frame).strip()
    try:
        listed = [text] if text.startswith("{") else elements(text)
    except ValueError as error:
        raise FrameError(f"what the server sent is no array of messages ({error})") from error
    read = ((read_body(one.encode()).value, one.encode()) for one in listed)
    found = [(_head(value), one) for value, one in read if isinstance(value, dict)]
    if listed and not found:
        raise FrameError("what the server sent is no array of messages (none of it can be read)")
    return found


def _head(message: Json) -> Head:
    members = {name: message[name] for name in ("id", "channel", "successful", "advice") if name in message}
    return Head(**members, client_id=message.get("clientId"), data=Raw() if "data" in message else UNSET)


def _answers(head: Head, message_id: str, channel: object) -> bool:
    """Whether a reply is that to a message; one without an id goes by its channel."""
    return head.channel == channel and (head.id is None or str(head.id) == message_id)


def _hold(head: Head) -> float | None:
    """The seconds for which a connect asks to be held, None where it leaves them to the server."""
    asked = head.advice.get("timeout") if isinstance(head.advice, dict) else None
    return asked / 1000 if isinstance(asked, int | float) else None


def _array(*messages: bytes) -> bytes:
    return b"[" + b",".join(messages) + b"]"
