"""The contact centre behind the dialects: its chats, its timers, its faults and its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from webchat_fsm.server.agenda import Agenda
from webchat_fsm.server.chat import Chat, Event
from webchat_fsm.server.exchange import HttpAnswer, HttpRequest, Logged, Reply
from webchat_fsm.server.faults import Fault, Faults
from webchat_fsm.server.forms import Fields
from webchat_fsm.server.ids import Ids
from webchat_fsm.server.options import ServerOptions
from webchat_fsm.server.timers import next_due, next_look, run_due

LOG_LENGTH = 10_000
"""Operations that the log keeps; older ones fall out."""


class Centre:
    """What all dialects share. Time is what the last caller said it was, and never runs backwards."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.ids = Ids(options.seed)
        self.faults = Faults()
        self.requests: deque[Logged] = deque(maxlen=LOG_LENGTH)
        self.chats: dict[str, Chat] = {}
        self._keys: dict[str, Chat] = {}
        self.agenda = Agenda()
        self.now = 0.0
        self._watched: set[str] = set()
        self.listeners: list[Callable[[Chat, Event], None]] = []

    # Chats

    def open_chat(self, service: str, nickname: str, *, first_name: str = "", last_name: str = "") -> Chat:
        """A new chat with its client in it."""
        chat = Chat(self.ids, service, self.now, heard=self._hear)
        self.chats[chat.chat_id] = self._keys[chat.secure_key] = chat
        chat.admit(nickname, "Client", self.now, first_name=first_name, last_name=last_name)
        self.watch(chat)
        return chat

    def by_key(self, secure_key: str | None) -> Chat | None:
        """The chat with this secret."""
        return self._keys.get(secure_key or "")

    def purge(self, chat: Chat) -> None:
        """Forget a chat, as if there had never been one."""
        if not chat.ended:
            chat.end(self.now)
        self.chats.pop(chat.chat_id, None)
        self._keys.pop(chat.secure_key, None)

    def knows_service(self, service: str) -> bool:
        """Whether a service of that name exists."""
        return not self.options.services or service in self.options.services

    def _hear(self, chat: Chat, event: Event) -> None:
        for listener in self.listeners:
            listener(chat, event)

    # Time

    def advance(self, now: float) -> bool:
        """Let time pass until `now`, doing what falls due on the way, each at its own moment; true if there was any."""
        acted = False
        for due, act in self.agenda.take_until(now):
            self.now = max(self.now, due)
            act(self.now)
            acted = True
        self.now = max(self.now, now)
        return acted

    def watch(self, chat: Chat) -> None:
        """Run the timers of a chat from now on; they stop by themselves when it ends."""
        look = next_look(chat, self.options, self.now)
        if look is not None and chat.chat_id not in self._watched:
            self._watched.add(chat.chat_id)
            self.agenda.note(look, partial(self._look_after, chat))

    def _look_after(self, chat: Chat, now: float) -> None:
        self._watched.discard(chat.chat_id)
        due = next_due(chat, self.options)
        if due is not None and due <= now:
            run_due(chat, self.options, now)
        self.watch(chat)

    # Operations

    def log(self, dialect: str, operation: str, request: HttpRequest, fields: Fields) -> None:
        """Keep a decoded operation for tests that ask what was sent."""
        self.requests.append(
            Logged(dialect, operation, request.method, request.path, fields, request.headers, request.query, self.now)
        )

    def carry_out(
        self, dialect: str, names: tuple[str, ...], work: Callable[[], Reply], stand_in: Callable[[Fault], Reply]
    ) -> HttpAnswer:
        """Answer an operation, or let the fault that waits for it happen."""
        fault = self.faults.take(dialect, *names)
        if fault is None:
            return work().answer()
        reply = work() if fault.happens else None
        if reply is None or fault.replaces:
            reply = stand_in(fault)
        return fault.send(fault.spoil(reply).answer())
