"""Steps one session through the decisions of the core without its shell: no thread, no request, time set by hand."""

from __future__ import annotations

from typing import Any

from webchat_fsm._config import Config
from webchat_fsm._core.decide import decide
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import (
    Asked,
    Due,
    Moment,
    Opened,
    Publish,
    ReceivedMessage,
    Replied,
    Reply,
    ResponseKind,
    Save,
)
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Message, Response, Sender, SessionData
from webchat_fsm._runtime.commands import COMMANDS, settled_start
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._transports import Transport

BEGIN = 1_000_000.0
CONFIG = {"dataURL": "http://chat.test/genesys/2/chat/customer-support"}
IDS = SessionData(session_id="chat-1", secure_key="key-1", alias="117", user_id="user-1")


def good(*messages: Message, **more: Any) -> Reply:
    received = tuple(
        ReceivedMessage(message, {"index": message.index}, None if message.index is None else (message.index,))
        for message in messages
    )
    return Reply(kind=ResponseKind.GOOD, response=Response(status=200), received=received, **more)


def bad(kind: ResponseKind, status: int = 200, **more: Any) -> Reply:
    return Reply(kind=kind, response=Response(status=status), **more)


def silent() -> Reply:
    error = TransportError("refresh: refused")
    return Reply(kind=ResponseKind.SILENT, response=Response(errors=[{"code": 0, "text": str(error)}]), error=error)


def chat_message(index: int | None, text: str = "hi", kind: str = "Agent", type: str = "Message") -> Message:  # noqa: A002
    return Message(index=index, text=text, type=type, sender=Sender(id=2, type=kind, name="Ann"), timestamp=index or 0)


SAVED = SavedSession(
    transport=Transport.V2, address=CONFIG["dataURL"], session_data=IDS, cursor=7, last_contact=BEGIN - 10
)


class CoreHarness:
    """Steps one session by hand and records its transitions, events and effects."""

    def __init__(self, **config: Any):
        self.session = Session(Config.read({**CONFIG, **config}))
        self.timer, self.wall, self.draw = 0.0, BEGIN, 0.0
        self.transitions, self.events, self.effects = [], [], []

    def take(self, step):
        decision = decide(self.session, step, Moment(self.timer, self.wall, self.draw))
        self.transitions += decision.transitions
        self.effects += decision.effects
        self.events += [effect.event for effect in decision.effects if isinstance(effect, Publish)]
        return decision

    def published(self) -> list[str]:
        """Return the events published since the last call, and discard them."""
        events, self.events = self.events, []
        return events

    def open(self, saved: SavedSession | None = None):
        return self.take(Opened(saved=saved))

    def ask(self, command: str, data: dict[str, Any] | None = None, *, by_service: bool = False):
        data = data or {}
        if command == "startChat":
            data = settled_start(data)
        return self.take(Asked(command=COMMANDS[command], data=data, by=By.SERVICE if by_service else By.USER))

    def answer(self, decision, reply: Reply):
        return self.take(Replied(call=decision.call, reply=reply))

    def due(self, timer: Timer = Timer.POLL, preview: str = ""):
        return self.take(Due(timer=timer, preview=preview))

    def poll(self, reply: Reply):
        decision = self.due()
        if decision.call is None:  # the allowance limits polls at one moment, so this one is due later
            self.timer = self.session.timers[Timer.POLL]
            decision = self.due()
        return self.answer(decision, reply)

    def start(self):
        """Start a chat whose first poll is due and not sent."""
        self.open()
        self.answer(self.ask("startChat", {"nickname": "Jonny"}), good(session_data=IDS))
        self.published()
        return self

    def move(self, seconds: float) -> None:
        self.timer += seconds
        self.wall += seconds

    @property
    def next_poll(self) -> float | None:
        """Return the seconds until the next poll, or None if none is due."""
        due = self.session.timers.get(Timer.POLL)
        return None if due is None else round(due - self.timer, 6)

    def saved(self) -> list[SavedSession]:
        return [effect.document for effect in self.effects if isinstance(effect, Save)]
