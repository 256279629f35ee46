"""The session: a slotted record that the machine moves and the decisions read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from copy import copy
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._config import Config
from webchat_fsm._core import participants, transcript
from webchat_fsm._core.paging import NOTHING_YET, Pages
from webchat_fsm._core.participants import Participants
from webchat_fsm._core.saved_session import SAVED_EVERY, Prefilters, SavedSession
from webchat_fsm._core.steps import Moment, ReceivedMessage
from webchat_fsm._core.timers import Allowance, PollDelay, Timer
from webchat_fsm._core.transcript import LocatedAnswer, OrderedTranscript
from webchat_fsm._model import Json, Message, Named, SessionData
from webchat_fsm.lifecycle._table import Flag, Guard, State
from webchat_fsm.lifecycle._transports import Transport

if TYPE_CHECKING:
    from webchat_fsm._bayeux.connection import Connection
    from webchat_fsm._core.pushed import PushedChat


class SendStatus(StrEnum):
    """What the server has answered to a send: nothing yet, that it took it, or no complete answer."""

    UNANSWERED = "unanswered"
    ACCEPTED = "accepted"
    UNCONFIRMED = "unconfirmed"


class PendingMessage(Struct):
    """A send whose message has not come back yet.

    `seen` is the place of the newest message that was known when it was made, `place` the one that the server has named
    for it, `accepted_at` the ticket of the newest request that was made when the server took it. One that a later send
    has overtaken is as good as unconfirmed.
    """

    ticket: int
    text: str
    seen: tuple[int, ...] = ()
    status: SendStatus = SendStatus.UNANSWERED
    place: tuple[int, ...] | None = None
    accepted_at: int = 0


class UnmatchedMessage(Struct, frozen=True):
    """An own message that has settled no send, while the answer to one was still to come."""

    message: Message
    rank: tuple[int, ...] | None


NO_FLAGS: frozenset[Flag] = frozenset()
"""One set for all sessions without flags, as an empty one takes 200 bytes."""

Mark = tuple[
    tuple[Any, ...],
    dict[Timer, float],
    list[PendingMessage],
    "Connection | None",
    participants.Mark,
    transcript.Mark,
    list[re.Pattern[str]],
]


class Session:
    """The sessions of one service, one after another: all that a decision reads and changes.

    Moments are seconds on the line of the timers, except `last_contact`, which is wall-clock time.
    """

    __slots__ = (
        "allowance",
        "catching_up",
        "config",
        "connection",
        "cursor",
        "delay",
        "delivered_up_to",
        "failures",
        "flags",
        "history_discontinuous",
        "history_done",
        "last_contact",
        "missing",
        "nickname",
        "number",
        "opened",
        "order",
        "pages",
        "participants",
        "pending_sends",
        "poll_delay",
        "poll_since",
        "poll_ticket",
        "position_uncertain",
        "prefilters",
        "preview_limit",
        "previous_state",
        "pushed_chat",
        "saved",
        "session_data",
        "state",
        "tickets",
        "timers",
        "transcript",
        "transport",
        "unmatched",
        "unsent_user_data",
        "user_data",
        "warnings",
        "watches_input",
    )

    def __init__(self, config: Config) -> None:
        self.config: Config = config
        self.transport: Transport = config.way
        self.poll_delay: PollDelay = PollDelay.of(config)
        self.state: State = State.IDLE
        self.previous_state: State = State.IDLE  # the source of the latest row that changed the state
        self.flags: frozenset[Flag] = NO_FLAGS
        self.failures: int = 0  # polls that failed in a row; over CometD connects, and pushes that say so
        self.number: int = 0  # counts the sessions, so that a call of an earlier one is recognised
        self.tickets: int = 0  # counts the calls; the latest one has this ticket
        self.order: int = 0  # counts the writes to the store, of which the highest wins
        self.opened: bool = False
        self.session_data: SessionData = SessionData()
        self.cursor: int | str = 1  # what the next poll asks from: v2 the next position, v3 the last index, 1 for all
        self.nickname: str = ""
        self.user_data: Json = dict(config.user_data)
        self.unsent_user_data: Json = {}  # given during a start or a restore
        self.saved: SavedSession | None = None  # the document in the store, or the one to be restored
        self.last_contact: float = 0.0
        self.transcript: OrderedTranscript = OrderedTranscript()
        self.participants: Participants = Participants()
        self.prefilters: Prefilters = Prefilters()
        self.pending_sends: list[PendingMessage] = []
        self.unmatched: tuple[UnmatchedMessage, ...] = ()  # oldest first
        self.delivered_up_to: str | None = NOTHING_YET  # the last index of the opening before
        self.missing: int | None = 0  # messages between that one and this opening; None: unknown
        self.pages: Pages | None = None  # of a restore in flight
        self.timers: dict[Timer, float] = {}
        self.delay: float = self.poll_delay.least  # seconds to the next poll
        self.allowance: Allowance = Allowance()
        self.warnings: dict[str, int] = {}  # by text, for health()
        self.connection: Connection | None = None  # of a transport that pushes
        self.pushed_chat: type[PushedChat] | None = None  # what decides for it
        self.poll_ticket: int = 0  # of the poll in flight, or over CometD of the frame; 0 without one
        self.poll_since: float = 0.0  # when that was sent
        self.catching_up: bool = False  # restored, and the transcript has not been delivered yet
        self.position_uncertain: bool = False  # the next poll sends its position, as the server's cursor may be ahead
        self.history_done: bool = False  # the oldest page has been fetched
        self.history_discontinuous: bool = False  # a page did not follow what is known, so that no gap can be closed
        self.watches_input: bool = False  # a typing preview input is registered
        self.preview_limit: float = math.inf  # characters that the server has refused in a typing preview
        if not self.transport.polls:
            # here alone, before the first step: a chat that polls needs neither `_bayeux` nor `pushed` and `exchange`,
            # a sixth of all instructions by which Python loads this package
            from webchat_fsm._bayeux.connection import Connection
            from webchat_fsm._core.pushed import PushedChat

            self.connection, self.pushed_chat = Connection(), PushedChat

    def capped(self, retry_after: float) -> float:
        """Return the seconds of a Retry-After that are kept, at most `client.retry.retryAfterCap`."""
        return min(retry_after, self.config.client.retry.retry_after_cap / 1000)

    def allows(self, guard: Guard) -> bool:
        """Return whether a guard of the table holds here."""
        return guard.admits(self.transport) and _CONDITIONS.get(guard, _always)(self)

    def has(self, flag: Flag) -> bool:
        """Return whether a flag is set; those of connected participants are read from `participants`."""
        # participants are read from the transcript: a flag of their own could contradict it
        if flag is Flag.CLIENT_OUT:
            return self.participants.client_left
        kind = _KINDS.get(flag)
        return flag in self.flags if kind is None else self.participants.holds(kind)

    @property
    def disconnected(self) -> bool:
        """Return whether `disconnected` was published and `reconnected` was not yet."""
        return Flag.DISCONNECTED in self.flags

    @property
    def refused(self) -> bool:
        """Return whether the gateway of a chat that is pushed forbids every further request."""
        return self.connection is not None and self.connection.refused

    @property
    def restorable(self) -> bool:
        """Return whether the saved session is one of this transport and this chat server."""
        saved = self.saved
        return saved is not None and saved.transport is self.transport and saved.address == self.config.address

    def too_old(self, now: Moment) -> bool:
        """Return whether the saved session has been away for restoreTimeout; a clock set back counts as no time."""
        saved = self.saved
        if saved is None or not self.transport.can.restore_timeout:
            return False
        # wall-clock time, as the session may have been saved by another process
        away = max(0.0, now.wall - saved.last_contact)
        # a process that died may have had a later contact, which it did not save any more
        return away >= self.config.restore_timeout / 1000 + (0.0 if saved.closed else SAVED_EVERY)

    def is_saved(self, document: SavedSession) -> bool:
        """Return whether the session is saved as in this document, its last contact apart, and with a recent one."""
        saved = self.saved
        if saved is None or abs(document.last_contact - saved.last_contact) >= SAVED_EVERY:
            return False
        return replace(document, last_contact=saved.last_contact) == saved

    def document(self) -> SavedSession:
        """Return the document by which the session is saved."""
        return SavedSession(
            transport=self.transport,
            address=self.config.address,
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
        """Return the index up to which no message is missing; None where that is unknown.

        As long as messages are missing it is the one of the opening before, so that the next restore fetches them too.
        """
        highest = self.transcript.highest
        # an unknown gap (None) is one too
        known_gap = self.missing != 0 and self.delivered_up_to is not None
        if known_gap or highest is None or highest.rank is None:
            return self.delivered_up_to
        return "-".join(map(str, highest.rank))

    def resume(self, saved: SavedSession) -> None:
        """Become the session that was saved."""
        # what was given during the restore is newer than what was saved, and so wins
        self.session_data = saved.session_data
        self.user_data = {**self.user_data, **saved.user_data, **self.unsent_user_data}
        self.prefilters.merge(saved.prefilters)
        self.nickname = saved.nickname

    def locate(
        self, received: Sequence[ReceivedMessage], *, next_position: int | None = None, old: bool = False
    ) -> LocatedAnswer:
        """Put the events of an answer in their places and find those that are new.

        A restored session starts afresh, with the pages fetched so far. A position was asked for in a poll alone, and
        it is the cursor: only one poll is out at a time, and a restore asks from 1. A push may bring anything.
        """
        # the transcript of the opening before is cleared only once the restore is confirmed
        afresh = self.state is State.RESTORING
        known = OrderedTranscript() if afresh else self.transcript
        # pages before this one are not published yet, but no page may deliver them twice
        if afresh and self.pages is not None:
            known.remember(self.pages.received)
        numbered = self.transport.can.numbered and not old
        return known.locate(
            received,
            position=(1 if afresh else int(self.cursor)) if numbered else None,
            bounded=numbered and self.transport.polls,
            next_position=next_position,
            old=old,
        )

    def hides_any(self, messages: Sequence[Message]) -> bool:
        """Return whether a prefilter hides one of these messages, of a session that is being restored too."""
        # joins and notices have no text of a participant
        texts = [message.text for message in messages if message.type == "Message"]
        if self.prefilters.hide_any(texts):
            return True
        # the saved filters are merged once the restore is confirmed; preprocessors ask before that
        resumed = self.saved.prefilters if self.state is State.RESTORING and self.saved else ()
        return bool(resumed) and Prefilters(resumed).hide_any(texts)

    def leave(self, wall: float) -> None:
        """End the session here, at that wall-clock second: what was open is closed without events."""
        self.number += 1  # by which a late answer to a request of this session is recognised
        self.flags = NO_FLAGS
        self.failures = 0
        self.session_data = SessionData()  # the transcript stays, as it can still be read
        self.unsent_user_data = {}
        self.pending_sends, self.unmatched = [], ()
        self.pages = None
        self.poll_ticket = 0
        if self.connection is not None:  # its timer goes with all others below; a late answer finds no client any more
            self.connection.close()
        self.catching_up = False
        self.timers.clear()
        self.participants.all_left(wall)

    def connect_again(self, now: float, *, defect: bool = False, frame: Named | None = None) -> None:
        """Set the timer of the connection after a message whose answer was not seen, or with `defect` not processed."""
        if self.connection is None:
            return
        at = self.connection.go_on(self, now, defect=defect, frame=frame)
        if at is not None:
            self.timers[Timer.CONNECT] = at

    def mark(self) -> Mark:
        """Note all that a step may change, so that one that raises half way can be undone; cheap, as each step does it.

        What is replaced as a whole is kept by reference, what is changed in place is copied.
        """
        # their status changes in place
        pending_sends = [copy(pending) for pending in self.pending_sends]
        connection = self.connection and self.connection.mark()
        people, messages = self.participants.mark(), self.transcript.mark()
        return _values(self), dict(self.timers), pending_sends, connection, people, messages, self.prefilters.custom

    def back_to(self, mark: Mark) -> None:
        """Undo everything since a mark."""
        values, self.timers, self.pending_sends, self.connection, people, messages, self.prefilters.custom = mark
        for name, value in zip(_REPLACED, values, strict=True):
            setattr(self, name, value)
        self.participants.back_to(people)
        self.transcript.back_to(messages)

    def adopt(self, session_data: SessionData | None) -> None:
        """Replace the ids by those of an answer, if it has any: the newest are the valid ones."""
        if session_data is not None:
            self.session_data = session_data


# Every other slot is replaced as a whole, as a change in place would survive `back_to`. Two are exceptions on purpose:
# `allowance`, as its requests were made, and `warnings`, as the server's behaviour was seen.
_CHANGED_IN_PLACE = {
    "config",
    "connection",
    "participants",
    "poll_delay",
    "prefilters",
    "pending_sends",
    "pushed_chat",
    "timers",
    "transcript",
    "transport",
}
_REPLACED = tuple(name for name in Session.__slots__ if name not in _CHANGED_IN_PLACE)
_values: Callable[[Session], tuple[Any, ...]] = attrgetter(*_REPLACED)


def _always(session: Session) -> bool:
    return True


_CONDITIONS: dict[Guard, Callable[[Session], bool]] = {
    Guard.RESTORABLE: lambda session: session.restorable,
    Guard.OVER_LIMIT: lambda session: session.failures >= session.config.poll_exception_limit,
    Guard.ENDING: lambda session: Flag.ENDING in session.flags,
    Guard.WAS_ENDED: lambda session: session.previous_state is State.ENDED,
    Guard.WAS_DORMANT: lambda session: session.previous_state is State.DORMANT,
}

_KINDS = {Flag.SUPERVISOR_IN: "Supervisor", Flag.AGENT_IN: "Agent", Flag.BOT_IN: "Bot"}
