"""One step in the making: rows are fired, what they say is published, what they do is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from webchat_fsm.core import machine
from webchat_fsm.core.facts import Moment, Timer
from webchat_fsm.core.paging import NOTHING_YET
from webchat_fsm.core.session import PREVIEW_PERIOD, Session
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import FORBIDDEN
from webchat_fsm.lifecycle.effects import Call, Decision, Forget, Publish, Save, SavedSession, Settled
from webchat_fsm.lifecycle.events import EVENTS, ParticipantChanged, Payload
from webchat_fsm.lifecycle.table import CONTENT, POLLING_ON, Do, Row, Say, Trigger
from webchat_fsm.lifecycle.words import Response, SessionData

OTHER_CHAT = "an answer names another chat than this one: its ids are not taken over, and a push of it is dropped"
_KEYS = ("user_id", "secure_key", "alias")
_OWN_COMMANDS = frozenset({"", "poll"})
_CONNECTING = frozenset({"handshake", "connect", "notifications"})
"""Requests of the Bayeux connection, which are the library's own whatever command waits for them."""


class Turn:
    """A session, the moment, and the decision that grows."""

    __slots__ = ("by_hand", "decision", "now", "own", "session")

    def __init__(self, session: Session, now: Moment, *, own: bool = False, by_hand: bool = False) -> None:
        self.session, self.now, self.decision, self.own, self.by_hand = session, now, Decision(), own, by_hand

    def fire(
        self,
        trigger: Trigger,
        payloads: Mapping[str, Payload] | None = None,
        content: Callable[[], None] | None = None,
        lost: Response | None = None,
    ) -> Row:
        """Take the row for a trigger: say, set and do what it names. `content` stands where the table says CONTENT."""
        session = self.session
        row = self._move(trigger)
        if Do.BEGIN in row.does:
            _begin(self)
        self._speak(row, payloads or {}, content)
        session.flags = (session.flags | frozenset(row.sets)) - frozenset(row.clears)
        self._keep_time(row)
        for do in row.does:
            if do is Do.GIVE_UP:
                self.forget(lost)
            elif do is not Do.BEGIN:
                _DOINGS[do](self)
        return row

    def _move(self, trigger: Trigger) -> Row:
        row = machine.fire(self.session, trigger)
        self.decision.rows.append(row)
        if row.dest is not row.source:
            self.session.before = row.source
        return row

    def _speak(self, row: Row, payloads: Mapping[str, Payload], content: Callable[[], None] | None) -> None:
        for say in [say for say in row.says if self._due(say)]:
            if say is not CONTENT:
                self.publish(say.event, payloads.get(say.event) or self._usual(say.event))
            elif content is not None:
                content()

    def _keep_time(self, row: Row) -> None:
        """Polling begins with the states in which it is on, and ends with them."""
        if row.dest not in POLLING_ON:
            self.session.timers.pop(Timer.POLL, None)
        elif row.source not in POLLING_ON and self.session.transport.polls:
            self.poll_soon()
        if row.dest.has_session and not row.source.has_session:
            self.watch_input()

    def watch_input(self) -> None:
        """Look at the typing preview input often enough for what is typed to be one burst."""
        session = self.session
        if session.watches_input and session.state.has_session:
            session.timers.setdefault(Timer.PREVIEW, self.now.timer + PREVIEW_PERIOD)

    def _due(self, say: Say) -> bool:
        has = self.session.has
        return (not say.when or any(map(has, say.when))) and not any(map(has, say.unless))

    def _usual(self, event: str) -> Payload | None:
        """The payload of a leaving that no message announced: nobody is connected any more."""
        if EVENTS[event].payload is not ParticipantChanged:
            return None
        self.session.participants.all_left(self.now.wall)
        return ParticipantChanged(agents=self.session.participants.agents)

    def publish(self, event: str, data: Payload | None = None) -> None:
        """Publish an event, if this transport has it."""
        if self.session.transport in EVENTS[event].transports:
            self.decision.effects.append(Publish(event=event, data=data, time=self.now.wall))

    def call(self, operation: str, command: str = "", session_data: SessionData | None = None, **fields: Any) -> Call:
        """Ask for a request; its answer comes back with this call."""
        session = self.session
        if not session.transport.polls:
            session.link.messages += 1
            link = {"client_id": session.link.client_id, "id": str(session.link.messages), "position": session.cursor}
            fields = {**link, **fields}
        session.tickets += 1
        call = Call(
            operation=operation,
            command=command,
            fields=self._paced(operation, command, fields),
            session_data=session.session_data if session_data is None else session_data,
            number=session.number,
            ticket=session.tickets,
        )
        if session.link.stopped:
            self.reject(FORBIDDEN)
        else:
            self.decision.call = call
        return call

    def _paced(self, operation: str, command: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Let a request that no command of the user asks for wait until the session may make it."""
        if self.by_hand or not (self.own or command in _OWN_COMMANDS or operation in _CONNECTING):
            return fields
        link = self.session.link
        if operation == "connect" and link.line and self.session.state.has_session:
            return {**fields, "listen": max(0.0, link.send_at - self.now.timer)}
        brisk = operation == "connect" and link.brisk
        wait = self.session.allowance.take(self.now.timer, brisk=brisk)
        return {**fields, "pause": max(fields.get("pause", 0.0), wait)} if wait else fields

    def warn(self, text: str) -> None:
        """Count an oddity of the server for `health()`, and log it once in the life of a session object."""
        counts = self.session.warnings
        counts[text] = counts.get(text, 0) + 1
        if counts[text] == 1:
            self.decision.warning = "; ".join(filter(None, (self.decision.warning, text)))

    def adopt(self, session_data: SessionData | None) -> None:
        """Take over the ids that an answer carried, as servers renew them; never those of another chat."""
        known = self.session.session_data
        if session_data is None or session_data == known:
            return
        if known.session_id and session_data.session_id != known.session_id:
            self.warn(OTHER_CHAT)
            return
        if self.session.transport.gms:
            changed = [name for name in _KEYS if getattr(known, name) not in ("", getattr(session_data, name))]
            for name in changed:
                self.warn(f"the chat server has changed the {name} of this chat, which is taken over")
        self.session.adopt(session_data)

    def resolve(self, value: Any = None) -> None:
        """Settle the command well."""
        self.decision.settled = Settled(resolved=True, value=value, state=self.session.state)

    def reject(self, reason: str, response: Response | None = None, fault: TransportError | None = None) -> None:
        """Settle the command with a reason."""
        state = self.session.state
        self.decision.settled = Settled(resolved=False, reason=reason, response=response, fault=fault, state=state)

    def poll_soon(self, delay: float = 0.0) -> None:
        """Poll after a delay; a poll still out is waited for, not doubled."""
        if not self.session.poll_out:
            self.session.timers[Timer.POLL] = self.now.timer + delay

    def activity(self) -> None:
        """The user did something: an answer may come soon, so polls come faster again."""
        session = self.session
        session.delay = session.settings.pace.least
        due = session.timers.get(Timer.POLL)
        if due is not None and not session.settings.pace.on_failure:
            session.timers[Timer.POLL] = min(due, self.now.timer + session.delay)

    def keep(self, document: SavedSession | None = None) -> None:
        """Save the session as it is now, or the document that is given."""
        self.session.order += 1
        self.session.saved = saved = self.session.document() if document is None else document
        self.decision.effects.append(Save(document=saved, order=self.session.order))

    def forget(self, lost: Response | None = None) -> None:
        """Delete the saved session, if there is one."""
        saved, session_data = self.session.saved, self.session.session_data
        if saved is not None or lost is not None:
            self.session.order += 1
            self.session.saved = None
            if saved is not None and session_data == SessionData():
                session_data = saved.session_data
            self.decision.effects.append(Forget(order=self.session.order, lost=lost, session_data=session_data))


def _begin(turn: Turn) -> None:
    session = turn.session
    session.transcript.clear()
    session.participants.clear()
    session.flags = frozenset()
    session.failures = 0
    session.cursor = 1
    session.delay = session.settings.pace.least
    session.sendings, session.strays = [], []
    session.reach, session.missing, session.pages = NOTHING_YET, 0, None
    session.catching_up = session.behind = session.history_done = session.history_torn = False
    session.last_contact = turn.now.wall


def _leave(turn: Turn) -> None:
    turn.session.leave(turn.now.wall)


def _count(turn: Turn) -> None:
    turn.session.failures += 1


def _zero(turn: Turn) -> None:
    turn.session.failures = 0


def _saturate(turn: Turn) -> None:
    turn.session.failures = turn.session.settings.poll_exception_limit + 1


_DOINGS: dict[Do, Callable[[Turn], None]] = {
    Do.COUNT: _count,
    Do.ZERO: _zero,
    Do.SATURATE: _saturate,
    Do.KEEP: lambda turn: turn.keep(),
    Do.FINISH: lambda turn: turn.session.prefilters.clear(),
    Do.LEAVE: _leave,
}
