"""One decision as it grows: transitions are taken, their events published and their effects performed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from webchat_fsm._core import machine
from webchat_fsm._core.operations import Operation
from webchat_fsm._core.paging import NOTHING_YET
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import NO_FLAGS, Session
from webchat_fsm._core.steps import Call, Command, Decision, Forget, LinkCall, Moment, Publish, Save, Settled
from webchat_fsm._core.timers import PREVIEW_PERIOD, Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Response, SessionData
from webchat_fsm.lifecycle._events import EVENTS, ParticipantChanged, Payload
from webchat_fsm.lifecycle._legality import FORBIDDEN
from webchat_fsm.lifecycle._states import POLLING_ON
from webchat_fsm.lifecycle._table import CONTENT, Effect, Publication, Transition, Trigger

if TYPE_CHECKING:
    from webchat_fsm._core.pushed import PushedChat

OTHER_CHAT = "an answer names another chat than this one: its ids are not adopted, and a push of it is dropped"
_KEYS = ("user_id", "secure_key", "alias")
"""The ids of GMS that name the chat and let a client in: they are not expected to change within it."""

NO_LINK = LinkCall()
"""The link of a call that no other operation waits behind."""


class DecisionContext:
    """A session, the moment of the step, and the decision so far.

    `own` is true where the service itself has given the command of the step, `by_hand` where the caller has asked for a
    timer that the driver would have carried out.
    """

    __slots__ = ("by_hand", "command", "decision", "now", "own", "session")

    def __init__(self, session: Session, now: Moment, *, own: bool = False, by_hand: bool = False) -> None:
        self.session: Session = session
        self.now: Moment = now
        self.decision: Decision = Decision()
        self.own: bool = own
        self.by_hand: bool = by_hand
        self.command: Command | None = None

    @property
    def pushed(self) -> PushedChat | None:
        """Return what decides for a chat that is pushed, None where the transport polls."""
        session = self.session
        # made anew, as one that is kept would be a cycle of references in each step
        if session.connection is None or session.pushed_chat is None:
            return None
        return session.pushed_chat(self, session.connection)

    def fire(
        self,
        trigger: Trigger,
        payloads: Mapping[str, Payload] | None = None,
        content: Callable[[], object] | None = None,
        lost: Response | None = None,
    ) -> Transition:
        """Take the transition of a trigger: publish its events, set its flags, perform its effects.

        `content` publishes what a response brought, at the place where the table has CONTENT.
        """
        session = self.session
        row = self._move(trigger)
        # before the events and flags of the row: it clears what they would add
        if Effect.BEGIN in row.effects:
            _begin(self)
        self._publish_all(row, payloads or {}, content)
        # after the events, whose conditions ask for the flags as they were
        if row.sets or row.clears:
            session.flags = (session.flags | frozenset(row.sets)) - frozenset(row.clears) or NO_FLAGS
        self._set_timers(row)
        # last, as LEAVE drops the ids and participants that the payloads carry
        for effect in row.effects:
            if effect is Effect.FORGET:
                self.forget(lost)
            elif effect is Effect.KEEP:
                self.keep(moved=row.dest is not row.source)
            elif effect is not Effect.BEGIN:
                _EFFECTS[effect](self)
        return row

    def _move(self, trigger: Trigger) -> Transition:
        row = machine.fire(self.session, trigger)
        self.decision.transitions.append(row)
        # the guards of an interrupted restore ask for the state before it; a row that stays where it is leaves none
        if row.dest is not row.source:
            self.session.previous_state = row.source
        return row

    def _publish_all(
        self, row: Transition, payloads: Mapping[str, Payload], content: Callable[[], object] | None
    ) -> None:
        # all conditions first: content brings agents in, and a default payload disconnects all of them
        for publication in [one for one in row.publishes if self._applies(one)]:
            if publication is not CONTENT:
                self.publish(
                    publication.event, payloads.get(publication.event) or self._default_payload(publication.event)
                )
            elif content is not None:
                content()

    def _set_timers(self, row: Transition) -> None:
        """Start and stop the timers of a row: of polling, and of the typing preview input."""
        if row.dest not in POLLING_ON:
            self.session.timers.pop(Timer.POLL, None)
        elif row.source not in POLLING_ON and self.session.transport.polls:  # offline to polling keeps its timer
            self.poll_soon()
        if row.dest.has_session and not row.source.has_session:
            self.watch_input()

    def watch_input(self) -> None:
        """Set the timer that reads the typing preview input, so often that continuous typing is one burst."""
        session = self.session
        if session.watches_input and session.state.has_session:
            # a timer that runs is kept, so that another registration does not put it off
            session.timers.setdefault(Timer.PREVIEW, self.now.timer + PREVIEW_PERIOD)

    def _applies(self, publication: Publication) -> bool:
        has = self.session.has
        return (not publication.when or any(map(has, publication.when))) and not any(map(has, publication.unless))

    def _default_payload(self, event: str) -> Payload | None:
        """Return the payload of a leaving that no message announced: all agents have left."""
        if EVENTS[event].payload is not ParticipantChanged:
            return None
        self.session.participants.all_left(self.now.wall)
        return ParticipantChanged(agents=self.session.participants.agents)

    def publish(self, event: str, data: Payload | None = None) -> None:
        """Publish an event, if this transport has it."""
        # rows are shared by all transports, and v3 has no event for a chat server that is offline
        if self.session.transport in EVENTS[event].transports:
            self.decision.effects.append(Publish(event=event, data=data, time=self.now.wall))

    def call(
        self,
        operation: Operation,
        command: Command | None = None,
        session_data: SessionData | None = None,
        *,
        pause: float = 0.0,
        link: LinkCall = NO_LINK,
    ) -> Call:
        """Decide on a request, after `pause` seconds; its answer comes with this call, for which `command` waits."""
        session = self.session
        if (connection := session.connection) is not None:
            # the client of this moment, as another thread may have renewed it before the answer comes
            link = replace(link, client_id=connection.client_id, id=connection.next_id())
        operation, pause = self._rate_limited(operation, command, pause)
        session.tickets += 1
        call = Call(
            operation=operation,
            command=command,
            session_data=session.session_data if session_data is None else session_data,
            number=session.number,
            ticket=session.tickets,
            pause=pause,
            link=link,
        )
        # advice `none`: nothing is sent, but the call is returned all the same, as its caller notes the ticket
        if session.refused:
            self.reject(FORBIDDEN)
        else:
            self.decision.call = call
        return call

    def _rate_limited(self, operation: Operation, command: Command | None, pause: float) -> tuple[Operation, float]:
        """Let a request that no command of the user asks for wait until the session may make it."""
        if self.by_hand or not (self.own or command is None or operation.polls):
            return operation, pause
        if (pushed := self.pushed) is not None:
            return pushed.rate_limited(operation, pause)
        return operation, max(pause, self.session.allowance.take(self.now.timer))

    def warn(self, text: str) -> None:
        """Count an unexpected behaviour of the server for `health()`; log the first of its kind."""
        counts = self.session.warnings
        counts[text] = counts.get(text, 0) + 1
        if counts[text] == 1:  # a server does the same again with each answer, which would flood the log
            self.decision.warning = "; ".join(filter(None, (self.decision.warning, text)))

    def adopt(self, session_data: SessionData | None) -> None:
        """Adopt the ids of a response, as servers renew them; never those of another chat."""
        known = self.session.session_data
        if session_data is None or session_data == known:
            return
        if known.session_id and session_data.session_id != known.session_id:
            self.warn(OTHER_CHAT)
            return
        if self.session.transport.can.stable_keys:
            changed = [name for name in _KEYS if getattr(known, name) not in ("", getattr(session_data, name))]
            for name in changed:
                self.warn(f"the chat server has changed the {name} of this chat; the new one is adopted")
        self.session.adopt(session_data)

    def resolve(self, value: Any = None) -> None:
        """Resolve the command of the step with its documented value."""
        self.decision.settled = Settled(resolved=True, value=value, state=self.session.state)

    def reject(self, reason: str, response: Response | None = None, fault: TransportError | None = None) -> None:
        """Reject the command of the step; the shell makes a `CommandRejected` of the reason."""
        state = self.session.state
        self.decision.settled = Settled(resolved=False, reason=reason, response=response, fault=fault, state=state)

    def poll_soon(self, delay: float = 0.0) -> None:
        """Poll after `delay` seconds, unless a poll is in flight: its response schedules the next one."""
        if not self.session.poll_ticket:
            self.session.timers[Timer.POLL] = self.now.timer + delay

    def activity(self) -> None:
        """Poll at the shortest delay again: the user did something, and an agent may answer soon."""
        session = self.session
        session.delay = session.poll_delay.least
        due = session.timers.get(Timer.POLL)
        # v3 has one interval, which only failures lengthen: the timer stays as it is
        if due is not None and not session.poll_delay.on_failure:
            session.timers[Timer.POLL] = min(due, self.now.timer + session.delay)

    def save(self, document: SavedSession | None = None) -> None:
        """Save the session as it is now, or the document that is given."""
        # the order decides between two writes, as the store is written outside of the lock
        self.session.order += 1
        self.session.saved = saved = self.session.document() if document is None else document
        self.decision.effects.append(Save(document=saved, order=self.session.order))

    def keep(self, *, moved: bool) -> None:
        """Save the session where its state or its document has changed; else its last contact every few seconds."""
        document = self.session.document()
        if moved or not self.session.is_saved(document):
            self.save(document)

    def forget(self, lost: Response | None = None) -> None:
        """Delete the saved session, if there is one."""
        saved, session_data = self.session.saved, self.session.session_data
        # a loss is reported to the function that deletes session data, also where nothing was saved here
        if saved is not None or lost is not None:
            self.session.order += 1
            self.session.saved = None
            # a restore that failed has no ids yet: the lost session is the saved one
            if saved is not None and session_data == SessionData():
                session_data = saved.session_data
            self.decision.effects.append(Forget(order=self.session.order, lost=lost, session_data=session_data))


def _begin(context: DecisionContext) -> None:
    session = context.session
    session.transcript.clear()
    session.participants.clear()
    session.flags = NO_FLAGS
    session.failures = 0
    # the transcript is new too, so that the first poll asks for everything
    session.cursor = 1
    session.delay = session.poll_delay.least
    session.pending_sends, session.unmatched = [], ()
    session.delivered_up_to, session.missing, session.pages = NOTHING_YET, 0, None
    session.catching_up = session.position_uncertain = session.history_done = session.history_discontinuous = False
    # a chat that is closed before its first poll has been in contact now
    session.last_contact = context.now.wall


def _leave(context: DecisionContext) -> None:
    context.session.leave(context.now.wall)


def _count(context: DecisionContext) -> None:
    context.session.failures += 1


def _zero(context: DecisionContext) -> None:
    context.session.failures = 0


def _saturate(context: DecisionContext) -> None:
    # offline although no poll has failed: the count is the one that leads there
    context.session.failures = context.session.config.poll_exception_limit + 1


_EFFECTS: dict[Effect, Callable[[DecisionContext], None]] = {
    Effect.COUNT: _count,
    Effect.ZERO: _zero,
    Effect.SATURATE: _saturate,
    # FORGET, KEEP and BEGIN are not here: `fire` performs them, with the response, the row, and before the events
    Effect.FINISH: lambda context: context.session.prefilters.clear(),
    Effect.LEAVE: _leave,
}
