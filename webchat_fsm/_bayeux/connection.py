"""The Bayeux connection of one chat, sans-I/O: answers and due timers in, frames and reports out.

Theory of operation. `begin`, `due` and `receive` yield events. The caller carries each of them out before it asks for
the next one, since a report may end the chat, and `Report.PUSHES` marks where the pushes of the answer are handed to
`push`, one by one. Moments are seconds on the line of the timers, and always arguments. A connection can be copied, so
that a step that raises is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from webchat_fsm._bayeux.frames import (
    BACKOFF,
    CUT_BETWEEN,
    LONGEST_PAUSE,
    Answer,
    BayeuxDisconnect,
    Chat,
    Connect,
    Event,
    Frame,
    Handshake,
    NextAt,
    Notifications,
    Outcome,
    Publish,
    Sent,
    Warned,
)
from webchat_fsm._bayeux.rules import EFFECTS, GUARDS, Memory, Step, pause_after, was_held
from webchat_fsm._bayeux.table import BEGINNING, TRANSITIONS, Report, State, Transition, Trigger
from webchat_fsm._model import Named

ODD_INTERVAL = f"the gateway advises an interval of more than {LONGEST_PAUSE:g} s, which is ignored"

# in the order of the table, as the first row whose guards hold is taken
_BY_KEY: dict[tuple[State, Trigger], list[Transition]] = {}
for _row in TRANSITIONS:
    _BY_KEY.setdefault((_row.source, _row.trigger), []).append(_row)


class Connection(Memory):
    """A connection: what it remembers, and the inputs that move it along the table."""

    # -- inputs ----------------------------------------------------------------------------------------------------

    def begin(self, chat: Chat, now: float, deadline: float, *, restoring: bool) -> Iterator[Event]:
        """Begin a start or a restore, which ends by its deadline."""
        self.close()  # all that an earlier chat left behind, its client id above all: each chat has a client of its own
        self.deadline: float = deadline
        self.restoring: bool = restoring
        return self.fire(Trigger.BEGIN, Step(now, chat))

    def due(self, chat: Chat, now: float) -> Iterator[Event]:
        """Make the next request, as its time has come."""
        return self.fire(Trigger.DUE, Step(now, chat))

    def opened(self, chat: Chat, now: float) -> Iterator[Event]:
        """Note that the first push has opened the chat."""
        return self.fire(Trigger.OPENED, Step(now, chat))

    def push(self, trigger: Trigger, chat: Chat, now: float, *, with_messages: bool) -> Iterator[Event]:
        """Note a push of the open chat; the reports that are yielded say how the core handles it."""
        return self.fire(trigger, Step(now, chat, with_messages=with_messages))

    def interrupted(self, trigger: Trigger, chat: Chat, now: float) -> Iterator[Event]:
        """Go on after a message that was interrupted, or whose answer could not be processed."""
        return self.fire(trigger, Step(now, chat))

    def go_on(self, chat: Chat, now: float, *, defect: bool, frame: Named | None) -> float | None:
        """Return the moment of the next message after one that was interrupted, None where its timer is set already.

        With `defect` the answer to `frame` could not be processed, or with None its timer.
        """
        missed = Trigger.MISSED_DEFECT if isinstance(frame, Notifications) else Trigger.DEFECT
        trigger = missed if defect else Trigger.INTERRUPTED
        # no request can be made here, outside of a decision: only the timer counts
        moments = [event.at for event in self.interrupted(trigger, chat, now) if isinstance(event, NextAt)]
        return moments[-1] if moments else None

    def receive(self, sent: Sent, answer: Answer, chat: Chat, now: float) -> Iterator[Event]:
        """Take the answer to a frame."""
        if sent.current:
            # how the latest frame of ours was carried decides how the next one waits; old answers do not count
            self.line: str = answer.line if isinstance(sent.frame, Connect) else ""
        # before the answer is used at all, so that no row can obey it
        if answer.interval is not None and answer.interval > LONGEST_PAUSE:
            yield Warned(ODD_INTERVAL)
            answer = replace(answer, interval=None)
        step = Step(now, chat, sent, answer)
        if isinstance(sent.frame, BayeuxDisconnect):
            return  # the client is gone, whether the server says so or not
        # advice to a client that has been replaced meanwhile says nothing about its successor
        if answer.forbidden and sent.client_id == self.client_id:
            yield Report.PUSHES  # before the row: the messages beside the advice are the last ones that will come
            yield from self.fire(Trigger.FORBIDDEN, step)
        else:
            yield from _RECEIVERS[type(sent.frame)](self, step)

    # -- answers, frame by frame -----------------------------------------------------------------------------------

    def _handshake(self, step: Step) -> Iterator[Event]:
        if step.answer.outcome is Outcome.GOOD:
            # advice first, by which the rows that follow set their timers
            self._take_advice(step.answer)
            yield from self.fire(Trigger.HANDSHAKE_ANSWERED, step)
        else:
            yield from self.fire(Trigger.HANDSHAKE_FAILED, step)

    def _connect(self, step: Step) -> Iterator[Event]:
        state, trigger = self.state, self._trigger_of_connect(step)
        if state not in BEGINNING and not step.sent.current:
            yield Report.PUSHES  # another thread has a newer client, so that this answer says nothing about it
            return
        # before the pushes: `reconnected` precedes the messages that the connect has brought
        if trigger is Trigger.CONNECT_PROCESSED:
            yield from self.fire(Trigger.CONNECT_ANSWERED, step)
        yield Report.PUSHES
        if (state in BEGINNING) != (self.state in BEGINNING):
            return  # a push has opened the chat, or ended it
        if self.state is not State.REFUSED:
            self._take_advice(step.answer)
            yield from self.fire(trigger, step)

    def _trigger_of_connect(self, step: Step) -> Trigger:
        answer = step.answer
        # a disconnect message says more than the refusal beside it: `disconnected` is published for it alone
        if answer.outcome is Outcome.UNKNOWN_CLIENT:
            return Trigger.DISCONNECTED if answer.disconnected else Trigger.CLIENT_UNKNOWN
        if answer.disconnected:
            return Trigger.DISCONNECTED
        if answer.outcome is Outcome.GOOD:
            advised = answer.reconnect == "handshake"
            return Trigger.HANDSHAKE_ADVISED if advised else Trigger.CONNECT_PROCESSED
        if answer.outcome is Outcome.THROTTLED:
            return Trigger.CONNECT_THROTTLED
        # at the shortest hold a proxy's time-out is a failure like any other
        cut = answer.status in CUT_BETWEEN and was_held(step)
        return Trigger.CONNECT_CUT if cut else Trigger.CONNECT_FAILED

    def _opening(self, step: Step) -> Iterator[Event]:
        """Take the answer to the request that opens a chat."""
        # refused before it was processed, so that the same request can be sent once more without a second chat
        if step.answer.outcome is Outcome.UNKNOWN_CLIENT:
            yield from self.fire(Trigger.PUBLISH_NOT_TAKEN, step)
        elif step.answer.outcome is not Outcome.GOOD:
            yield from self.fire(Trigger.REQUEST_REFUSED, step)
        else:
            yield Report.PUSHES
            if self.state is State.OPENING:  # else the first push has come with the acknowledgement
                yield from self.fire(Trigger.REQUEST_ACCEPTED, step)

    def _notifications(self, step: Step) -> Iterator[Event]:
        if self.state is State.OPENING:
            yield from self._opening(step)
        elif step.answer.outcome is Outcome.UNKNOWN_CLIENT:
            yield from self.fire(Trigger.MISSED_NOT_TAKEN, step)
        elif step.answer.outcome is not Outcome.GOOD:
            yield from self.fire(Trigger.MISSED_FAILED, step)
        else:
            # accepted before the pushes of the same answer, which may be what it asked for
            yield from self.fire(Trigger.MISSED_ANSWERED, step)
            yield Report.PUSHES
            yield from self.fire(Trigger.MISSED_PROCESSED, step)
            yield from self._follow_advice(step)
            # last: the new client is attached to the chat by now, and what the user has sent reaches it
            yield Report.SEND_WAITING

    def _publish(self, step: Step) -> Iterator[Event]:
        if isinstance(step.sent.frame, Publish) and step.sent.frame.opens:
            yield from self._opening(step)
            return
        trigger = _PUBLISHED.get(step.answer.outcome, Trigger.PUBLISH_ANSWERED)
        for event in self.fire(trigger, step):
            yield event
            # only beside the outcome of the command: a message that is sent again waits for a handshake in any case
            if event is Report.SETTLE:
                yield from self._follow_advice(step)

    def _follow_advice(self, step: Step) -> Iterator[Event]:
        """Renew the client where the answer to a publish advises it, and no thread has done so since."""
        if step.answer.wants_handshake and step.sent.client_id == self.client_id:
            yield from self.fire(Trigger.HANDSHAKE_ADVISED, step)

    def _take_advice(self, answer: Answer) -> None:
        # advice that is left out leaves the former one valid, as Bayeux has it
        self.timeout: float = self.timeout if answer.timeout is None else answer.timeout
        self.interval: float = self.interval if answer.interval is None else answer.interval

    # -- the table -------------------------------------------------------------------------------------------------

    def fire(self, trigger: Trigger, step: Step) -> Iterator[Event]:
        """Take the row of a trigger, if there is one: move, publish, then do what the row names."""
        if self.state in BEGINNING:  # before the guards, as IN_TIME counts the pause
            step.pause = self._pause_of_opening(trigger, step)
        row = self.row(trigger, step)
        if row is None:
            return
        # moved before anything is yielded: a report may feed a push into this very connection
        self.state: State = row.dest
        for one in row.publishes:
            if all(GUARDS[guard](self, step) for guard in one.when):
                yield one.event
        if self.state is State.UNCONNECTED is not row.dest:
            return  # what was published has ended the chat
        for effect in row.effects:
            event = EFFECTS[effect](self, step)
            if event is not None:
                yield event

    def row(self, trigger: Trigger, step: Step) -> Transition | None:
        """Return the first row of the present state whose guards all hold, None where the trigger changes nothing."""
        for row in _BY_KEY.get((self.state, trigger), ()):
            if all(GUARDS[guard](self, step) for guard in row.guards):
                return row
        return None

    def _pause_of_opening(self, trigger: Trigger, step: Step) -> float:
        """Return the pause before the next message of a start or a restore, which has to fit in its deadline."""
        if trigger is Trigger.HANDSHAKE_FAILED:
            return pause_after(self.handshakes, step)
        if trigger in (Trigger.CONNECT_FAILED, Trigger.CONNECT_CUT, Trigger.CONNECT_THROTTLED):
            return pause_after(self.failures + 1, step)
        if trigger is Trigger.CONNECT_PROCESSED:
            held, pushed = step.now - self.connect_at, step.answer.pushed
            # an early answer to a connect that wanted it at once does not mean that the server holds none
            return self.interval if self.at_once else BACKOFF.after_connect(held, self.interval, pushed=pushed)
        return 0.0


_PUBLISHED = {Outcome.UNKNOWN_CLIENT: Trigger.PUBLISH_NOT_TAKEN, Outcome.FAILED: Trigger.PUBLISH_FAILED}
_RECEIVERS: dict[type[Frame], Callable[[Connection, Step], Iterator[Event]]] = {
    Handshake: Connection._handshake,
    Connect: Connection._connect,
    Notifications: Connection._notifications,
    Publish: Connection._publish,
}
