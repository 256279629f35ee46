"""The session: a slotted record that the machine moves and the decisions read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from copy import copy
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct

from webchat_fsm.config import Config
from webchat_fsm.core import participants, transcript
from webchat_fsm.core.facts import Arrival, Moment, Timer
from webchat_fsm.core.pace import Allowance, Pace
from webchat_fsm.core.paging import NOTHING_YET, Pages
from webchat_fsm.core.participants import Participants
from webchat_fsm.core.transcript import Answer, Prefilters, TranscriptBook
from webchat_fsm.lifecycle.effects import SavedSession
from webchat_fsm.lifecycle.table import Flag, Guard, State, Transport
from webchat_fsm.lifecycle.words import Json, Message, SessionData

PREVIEW_PERIOD = 1.0
"""Seconds between two looks at the typing preview input, sooner than a burst of typing ends."""

TYPING_COUNTDOWN = 2.0
"""Seconds of silence after which the user is said to have stopped typing."""


class Settings(NamedTuple):
    """What the decisions need of the configuration; times in seconds."""

    transport: Transport
    address: str
    poll_exception_limit: int
    restore_timeout: float
    max_message_length: int
    pace: Pace
    poll_jitter: float
    retry_after_cap: float
    poll_deadline: float
    user_data: Json

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Read them off a checked configuration."""
        return cls(
            transport=config.way,
            address=config.address,
            poll_exception_limit=config.poll_exception_limit,
            restore_timeout=config.restore_timeout / 1000,
            max_message_length=config.max_message_length,
            pace=Pace.of(config),
            poll_jitter=config.client.poll_jitter,
            retry_after_cap=config.client.retry.retry_after_cap / 1000,
            poll_deadline=config.ajax_timeout / 1000,
            user_data=config.user_data,
        )


class Standing(StrEnum):
    """What the server has answered to a send: nothing yet, that it took it, or no complete answer."""

    ASKED = "asked"
    ACCEPTED = "accepted"
    UNCONFIRMED = "unconfirmed"


class Sending(Struct):
    """A send whose message has not come back yet.

    `seen` is the place of the newest message that was known when it was made, `place` the one that the server has named
    for it, `accepted_at` the ticket of the newest request that was made when the server took it. One that a later send
    has overtaken is as good as unconfirmed.
    """

    ticket: int
    text: str
    seen: tuple[int, ...] = ()
    standing: Standing = Standing.ASKED
    place: tuple[int, ...] | None = None
    accepted_at: int = 0


class Stray(Struct, frozen=True):
    """An own message that has settled no send, while the answer to one was still to come."""

    message: Message
    rank: tuple[int, ...] | None


class Link(Struct):
    """The Bayeux connection: its client id, the count of messages, the server's advice in seconds, and how it fares.

    `hold` is the longest hold in seconds to ask for, set where a held connect has failed. `renewed_at` is the moment at
    which the server last let go of the client, and `renewed` tells that no connect was answered since; `renewing` that
    no good push has come since the last handshake. `fresh` wants the next connect answered at once; `lost` tells that
    `retries` connects have failed and none was answered since; `brisk` that the last connect brought a message not seen
    before. `wanted` tells that messages may have been missed from the position `missed` on; they were asked for `asks`
    times, not again before `ask_at`; `taken` tells that the server took that request, and `unanswered` that no push has
    come since it did. No connect is made before `rest_until`. `stopped` tells that the gateway forbids every further
    request. `line` is that of the last connect's answer: where it is set, pushes are read while the next connect waits
    for `send_at`.
    """

    client_id: str = ""
    messages: int = 0
    timeout: float = 60.0
    interval: float = 0.0
    hold: float | None = None
    renewed_at: float | None = None
    renewed: bool = False
    renewing: bool = False
    retries: int = 0
    fresh: bool = True
    lost: bool = False
    rest_until: float = 0.0
    line: str = ""
    send_at: float = 0.0
    brisk: bool = False
    wanted: bool = False
    missed: int | str = 1
    ask_at: float = 0.0
    asks: int = 0
    taken: bool = False
    unanswered: bool = False
    stopped: bool = False

    def miss(self, cursor: int | str) -> None:
        """Messages may be missed from the cursor on, or from where some are missed already, and are to be asked for."""
        if not self.wanted:
            self.missed, self.asks = cursor, 0
        self.wanted, self.taken = True, False


Mark = tuple[
    tuple[Any, ...],
    dict[Timer, float],
    list[Sending],
    Link,
    participants.Mark,
    transcript.Mark,
    list[re.Pattern[str]],
]


class Session:
    """One session after another of one service; `number` tells them apart."""

    __slots__ = (
        "allowance",
        "before",
        "behind",
        "catching_up",
        "cursor",
        "delay",
        "failures",
        "flags",
        "history_done",
        "history_torn",
        "last_contact",
        "link",
        "missing",
        "nickname",
        "number",
        "opened",
        "order",
        "pages",
        "participants",
        "poll_out",
        "poll_since",
        "prefilters",
        "preview_limit",
        "reach",
        "saved",
        "sendings",
        "session_data",
        "settings",
        "state",
        "strays",
        "tickets",
        "timers",
        "transcript",
        "unsent_user_data",
        "user_data",
        "warnings",
        "watches_input",
    )

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State.IDLE
        self.before = State.IDLE
        self.flags: frozenset[Flag] = frozenset()
        self.failures = 0
        self.number = 0
        self.tickets = 0
        self.order = 0
        self.opened = False
        self.session_data = SessionData()
        self.cursor: int | str = 1
        self.nickname = ""
        self.user_data: Json = dict(settings.user_data)
        self.unsent_user_data: Json = {}
        self.saved: SavedSession | None = None
        self.last_contact = 0.0
        self.transcript = TranscriptBook()
        self.participants = Participants()
        self.prefilters = Prefilters()
        self.sendings: list[Sending] = []
        self.strays: list[Stray] = []
        self.reach: str | None = NOTHING_YET
        self.missing: int | None = 0
        self.pages: Pages | None = None
        self.timers: dict[Timer, float] = {}
        self.delay = settings.pace.least
        self.allowance = Allowance()
        self.warnings: dict[str, int] = {}
        self.link = Link()
        self.poll_out = 0
        self.poll_since = 0.0
        self.catching_up = False
        self.behind = False
        self.history_done = self.history_torn = False
        self.watches_input = False
        self.preview_limit: float = math.inf

    @property
    def transport(self) -> Transport:
        """The way to the chat server."""
        return self.settings.transport

    def allows(self, guard: Guard) -> bool:
        """Whether a guard of the table holds here."""
        return guard.admits(self.transport) and _FACTS.get(guard, _always)(self)

    def has(self, flag: Flag) -> bool:
        """Whether a flag is set; who is connected is asked of the participants."""
        if flag is Flag.CLIENT_OUT:
            return self.participants.client_left
        kind = _KINDS.get(flag)
        return flag in self.flags if kind is None else self.participants.holds(kind)

    @property
    def restorable(self) -> bool:
        """Whether the saved session is one of this transport and this chat server."""
        saved = self.saved
        return saved is not None and saved.transport is self.transport and saved.address == self.settings.address

    def too_old(self, now: Moment) -> bool:
        """Whether the saved session has been away for restoreTimeout; a clock that went back counts as no time."""
        away = max(0.0, now.wall - self.saved.last_contact) if self.saved else 0.0
        return self.transport.gms and self.saved is not None and away >= self.settings.restore_timeout

    def document(self) -> SavedSession:
        """The session as it is saved."""
        return SavedSession(
            transport=self.transport,
            address=self.settings.address,
            session_data=self.session_data,
            cursor=self.cursor,
            last_contact=self.last_contact,
            user_data=self.user_data,
            prefilters=self.prefilters.saved(),
            nickname=self.nickname,
            last_index=self.last_index,
        )

    @property
    def last_index(self) -> str | None:
        """The index up to which no message is missing; None where that is unknown.

        As long as messages are missing it is the one of the opening before, so that the next restore fetches them too.
        """
        highest = self.transcript.highest
        known_gap = self.missing != 0 and self.reach is not None
        if known_gap or highest is None or highest.rank is None:
            return self.reach
        return "-".join(map(str, highest.rank))

    def take_up(self, saved: SavedSession) -> None:
        """Become the session that was saved."""
        self.session_data = saved.session_data
        self.user_data = {**self.user_data, **saved.user_data, **self.unsent_user_data}
        self.prefilters.merge(saved.prefilters)
        self.nickname = saved.nickname

    def look(self, arrivals: Sequence[Arrival], *, next_position: int | None = None, old: bool = False) -> Answer:
        """Put the events of an answer in their places and find those that are new.

        A restored session starts afresh, with the pages fetched so far. A position was asked for in a poll alone, and
        it is the cursor: only one poll is out at a time, and a restore asks from 1. A push may bring anything.
        """
        afresh = self.state is State.RESTORING
        book = TranscriptBook() if afresh else self.transcript
        if afresh and self.pages is not None:
            book.know(self.pages.arrivals)
        gms = self.transport.gms and not old
        return book.look(
            arrivals,
            position=(1 if afresh else int(self.cursor)) if gms else None,
            bounded=gms and self.transport.polls,
            next_position=next_position,
            old=old,
        )

    def hides(self, message: Message) -> bool:
        """Whether a prefilter hides a message, one of a session that is being restored too."""
        if message.type != "Message":
            return False
        if self.prefilters.hide(message.text):
            return True
        taken_up = self.saved.prefilters if self.state is State.RESTORING and self.saved else ()
        return bool(taken_up) and Prefilters(taken_up).hide(message.text)

    def leave(self, wall: float) -> None:
        """End the session here, at that wall-clock second: what was open is closed without events."""
        self.number += 1
        self.flags = frozenset()
        self.failures = 0
        self.session_data = SessionData()
        self.unsent_user_data = {}
        self.sendings, self.strays = [], []
        self.pages = None
        self.poll_out = 0
        self.link = Link(messages=self.link.messages)
        self.catching_up = False
        self.timers.clear()
        self.participants.all_left(wall)

    def mark(self) -> Mark:
        """Note all that a step may change, so that one that raises half way can be undone; cheap, as each step does it.

        What is replaced as a whole is kept by reference, what is changed in place is copied.
        """
        sendings = [copy(sending) for sending in self.sendings]
        link = self.link if self.settings.transport.polls else copy(self.link)  # a poll does not change it
        people, book = self.participants.mark(), self.transcript.mark()
        return _values(self), dict(self.timers), sendings, link, people, book, self.prefilters.custom

    def back_to(self, mark: Mark) -> None:
        """Undo everything since a mark."""
        values, self.timers, self.sendings, self.link, people, book, self.prefilters.custom = mark
        for name, value in zip(_REPLACED, values, strict=True):
            setattr(self, name, value)
        self.participants.back_to(people)
        self.transcript.back_to(book)

    def adopt(self, session_data: SessionData | None) -> None:
        """Take over the ids that an answer carried: the newest are the valid ones."""
        if session_data is not None:
            self.session_data = session_data


_CHANGED_IN_PLACE = {"link", "participants", "prefilters", "sendings", "settings", "timers", "transcript"}
_REPLACED = tuple(name for name in Session.__slots__ if name not in _CHANGED_IN_PLACE)
_values: Callable[[Session], tuple[Any, ...]] = attrgetter(*_REPLACED)


def _always(session: Session) -> bool:
    return True


_FACTS: dict[Guard, Callable[[Session], bool]] = {
    Guard.RESTORABLE: lambda session: session.restorable,
    Guard.OVER_LIMIT: lambda session: session.failures >= session.settings.poll_exception_limit,
    Guard.ENDING: lambda session: Flag.ENDING in session.flags,
    Guard.WAS_ENDED: lambda session: session.before is State.ENDED,
    Guard.WAS_DORMANT: lambda session: session.before is State.DORMANT,
}

_KINDS = {Flag.SUPERVISOR_IN: "Supervisor", Flag.AGENT_IN: "Agent", Flag.BOT_IN: "Bot"}
