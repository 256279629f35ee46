"""The decisions without a shell: a session, steps and a time that is simply said."""

from __future__ import annotations

from typing import Any

from webchat_fsm.config import Config
from webchat_fsm.core.decide import decide
from webchat_fsm.core.facts import Arrival, Asked, Due, Moment, Opened, Replied, Reply, Timer, Verdict
from webchat_fsm.core.session import Session, Settings
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import By
from webchat_fsm.lifecycle.effects import Publish, Save, SavedSession
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import Message, Response, Sender, SessionData

BEGIN = 1_000_000.0
CONFIG = {"dataURL": "http://chat.test/genesys/2/chat/customer-support"}
IDS = SessionData(session_id="chat-1", secure_key="key-1", alias="117", user_id="user-1")


def good(*messages: Message, **more: Any) -> Reply:
    arrivals = tuple(
        Arrival(message, {"index": message.index}, None if message.index is None else (message.index,))
        for message in messages
    )
    return Reply(verdict=Verdict.GOOD, response=Response(status=200), arrivals=arrivals, **more)


def bad(verdict: Verdict, status: int = 200, **more: Any) -> Reply:
    return Reply(verdict=verdict, response=Response(status=status), **more)


def silent() -> Reply:
    error = TransportError("refresh: refused")
    return Reply(verdict=Verdict.SILENT, response=Response(errors=[{"code": 0, "text": str(error)}]), error=error)


def said(index: int | None, text: str = "hi", kind: str = "Agent", type: str = "Message") -> Message:  # noqa: A002
    return Message(index=index, text=text, type=type, sender=Sender(id=2, type=kind, name="Ann"), timestamp=index or 0)


SAVED = SavedSession(
    transport=Transport.V2, address=CONFIG["dataURL"], session_data=IDS, cursor=7, last_contact=BEGIN - 10
)


class Play:
    """One session, stepped by hand; what it has decided is kept: rows, events, effects."""

    def __init__(self, **config: Any):
        self.session = Session(Settings.of(Config.read({**CONFIG, **config})))
        self.timer, self.wall, self.draw = 0.0, BEGIN, 0.0
        self.rows, self.events, self.effects = [], [], []

    def take(self, step):
        decision = decide(self.session, step, Moment(self.timer, self.wall, self.draw))
        self.rows += decision.rows
        self.effects += decision.effects
        self.events += [effect.event for effect in decision.effects if isinstance(effect, Publish)]
        return decision

    def told(self) -> list[str]:
        """The events since the last asking."""
        events, self.events = self.events, []
        return events

    def open(self, saved: SavedSession | None = None):
        return self.take(Opened(saved=saved))

    def ask(self, command: str, data: dict[str, Any] | None = None, *, by_service: bool = False):
        return self.take(Asked(command=command, data=data or {}, by=By.SERVICE if by_service else By.USER))

    def answer(self, decision, reply: Reply):
        return self.take(Replied(call=decision.call, reply=reply))

    def due(self, timer: Timer = Timer.POLL, preview: str = ""):
        return self.take(Due(timer=timer, preview=preview))

    def poll(self, reply: Reply):
        decision = self.due()
        if decision.call is None:  # too many polls at one moment: the pace has put this one off
            self.timer = self.session.timers[Timer.POLL]
            decision = self.due()
        return self.answer(decision, reply)

    def start(self):
        """A chat that polls, with nothing polled yet."""
        self.open()
        self.answer(self.ask("startChat", {"nickname": "Jonny"}), good(session_data=IDS))
        self.told()
        return self

    def move(self, seconds: float) -> None:
        self.timer += seconds
        self.wall += seconds

    @property
    def next_poll(self) -> float | None:
        """Seconds until the next poll."""
        due = self.session.timers.get(Timer.POLL)
        return None if due is None else round(due - self.timer, 6)

    def saved(self) -> list[SavedSession]:
        return [effect.document for effect in self.effects if isinstance(effect, Save)]
