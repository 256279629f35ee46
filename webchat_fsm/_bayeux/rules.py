"""What a Bayeux connection remembers, and the meaning of the guards and effects of its table."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from math import inf
from typing import ClassVar, Self

from msgspec import Struct, field

from webchat_fsm._bayeux.frames import (
    BACKOFF,
    CUT_BETWEEN,
    SERVER_ERROR,
    Answer,
    Backoff,
    Chat,
    Connect,
    Event,
    Handshake,
    NextAt,
    Notifications,
    Publish,
    Send,
    Sent,
)
from webchat_fsm._bayeux.table import BEGINNING, Effect, Guard, State


class Missed(Struct):
    """Messages that may have been missed, from a position of the transcript on.

    They are `wanted` until a good push comes after the chat server has `accepted` the latest of `asks` requests; the
    next request is made from `ask_at` on. `unanswered` is true from its acceptance to the next push.
    """

    wanted: bool = False
    position: int | str = 1
    ask_at: float = 0.0
    asks: int = 0
    accepted: bool = False
    unanswered: bool = False

    def note(self, position: int | str) -> None:
        """Note that messages may be missed from a position on, or from where some are missed already."""
        # the earliest position stays: a later gap lies behind it, and is asked for with it
        if not self.wanted:
            self.position, self.asks = position, 0
        # a push that comes now may answer the request before, which did not ask for this gap
        self.wanted, self.accepted = True, False

    def answered(self) -> None:
        """Note a good push: it answers the request that the chat server has accepted, if there is one."""
        if self.accepted:  # else it is an ordinary push, which overtook the request
            self.wanted, self.asks, self.accepted = False, 0, False


class Memory(Struct):
    """What a connection remembers: its state, its client id, the count of its messages, and what the server advises.

    `timeout` and `interval` are the advice in seconds, `hold` the longest hold to ask for, set where a held connect was
    cut. `failures` counts handshakes and connects in a row that failed. `at_once` wants the next connect answered at
    once. `dropped_at` is the moment of the latest drop of a client, and `dropped` is true where no connect was answered
    since. No connect is made before `rest_until`. Where `line` is set, pushes are read from a websocket while the next
    connect waits for `send_at`. `fast` is true where the latest connect brought a message not seen before. A start or a
    restore ends by `deadline`; it has made `handshakes`, its latest connect at `connect_at`, and `reopened` is true
    where its request was sent again.
    """

    state: State = State.UNCONNECTED
    client_id: str = ""
    messages: int = 0
    timeout: float = 60.0
    interval: float = 0.0
    hold: float | None = None
    failures: int = 0
    at_once: bool = True
    dropped_at: float | None = None
    dropped: bool = False
    rest_until: float = 0.0
    line: str = ""
    send_at: float = 0.0
    fast: bool = False
    missed: Missed = field(default_factory=Missed)
    deadline: float = inf
    handshakes: int = 1
    connect_at: float = 0.0
    reopened: bool = False
    restoring: bool = False
    backoff: ClassVar[Backoff] = BACKOFF

    @property
    def refused(self) -> bool:
        """Return whether the gateway forbids every further request."""
        return self.state is State.REFUSED

    def mark(self) -> Self:
        """Return a copy that later steps do not change."""
        marked = copy(self)  # `missed` is the only member that is changed in place
        marked.missed = copy(self.missed)
        return marked

    def next_id(self) -> str:
        """Count a message and return its id, which no other of this connection has."""
        self.messages += 1
        return str(self.messages)

    def close(self) -> None:
        """End the connection with its chat; ids of messages count on, as a gateway may remember them."""
        self.state, fresh = State.UNCONNECTED, type(self)(messages=self.messages)
        # in place, as the session and the exchange that carries out this step hold this object
        for name in self.__struct_fields__:
            setattr(self, name, getattr(fresh, name))

    def next_at(self, now: float, delay: float) -> NextAt:
        """Return the moment of the next message, `delay` seconds from now, but not before a rest has passed."""
        # the rest after a bad push holds for any reason to send earlier
        return NextAt(max(now + delay, self.rest_until))


class Step(Struct):
    """One input of a connection: the moment, the chat, the frame that was sent and its answer."""

    now: float
    chat: Chat
    sent: Sent = Sent(frame=Publish())
    answer: Answer = Answer()
    with_messages: bool = False
    pause: float = 0.0

    @property
    def held(self) -> float:
        """Return the seconds from the connect to its answer, a time of listening on a websocket included."""
        return self.now - self.chat.poll_since


def was_held(step: Step) -> bool:
    """Return whether the server has held a connect, so long that a shorter hold can be asked for."""
    frame = step.sent.frame
    return isinstance(frame, Connect) and frame.hold != 0.0 and step.held > BACKOFF.least_hold


def pause_after(failures: int, step: Step) -> float:
    """Return the seconds to wait after so many failures in a row, at least what the answer itself asks for."""
    return BACKOFF.after(failures, step.answer.retry_after, step.answer.interval or 0.0)


# -- guards ------------------------------------------------------------------------------------------------------------


def _dropped_before(memory: Memory, step: Step) -> bool:
    before = memory.dropped_at
    # dropped without a connect in between, or so soon after the last drop that handshakes would follow without end
    return memory.dropped or (before is not None and step.now - before < BACKOFF.settled)


def _sendable(memory: Memory, step: Step) -> bool:
    sent = step.sent
    # not for the client that has been tried: the gateway has refused the message of that very client
    return not sent.resent or (sent.resent < BACKOFF.resent_at_most and sent.client_id != memory.client_id)


def _no_push(memory: Memory, step: Step) -> bool:
    """Return whether no push has followed the accepted request of a new client: it may not be attached."""
    return memory.state is State.RESYNCHRONISING and memory.missed.unanswered


GUARDS: dict[Guard, Callable[[Memory, Step], bool]] = {
    Guard.IN_TIME: lambda memory, step: memory.deadline - step.now - step.pause > 0,
    Guard.HANDSHAKES_LEFT: lambda memory, step: memory.handshakes < BACKOFF.handshakes,
    Guard.FIRST_REQUEST: lambda memory, step: not memory.reopened,
    Guard.RESTORING: lambda memory, step: memory.restoring,
    # the chat counts failed pushes and requests as well, of which a connect that works says nothing
    Guard.OUTAGE: lambda memory, step: step.chat.failures <= memory.failures,
    Guard.FAILING: lambda memory, step: memory.failures > 0,
    Guard.IN_FLIGHT: lambda memory, step: step.chat.poll_ticket != 0,
    Guard.MISSING: lambda memory, step: memory.missed.wanted and step.now >= memory.missed.ask_at,
    Guard.NOT_ASKED: lambda memory, step: memory.missed.asks == 0,
    Guard.NO_PUSH: _no_push,
    Guard.DROPPED_BEFORE: _dropped_before,
    # "" while a handshake is due or in flight: there is no client that the message could be sent for
    Guard.NEW_CLIENT: lambda memory, step: memory.client_id not in ("", step.sent.client_id),
    Guard.SENDABLE: _sendable,
    Guard.CHAT_TROUBLED: lambda memory, step: step.chat.disconnected,
    Guard.CATCHING_UP: lambda memory, step: step.chat.catching_up,
    Guard.WITH_MESSAGES: lambda memory, step: step.with_messages,
}


# -- effects -----------------------------------------------------------------------------------------------------------


def _take_client(memory: Memory, step: Step) -> None:
    # a gateway may attach a client only with its first connect, which therefore wants its answer at once
    memory.client_id, memory.at_once = step.answer.client_id, True


def _forget_client(memory: Memory, step: Step) -> None:
    memory.client_id = ""


def _note_drop(memory: Memory, step: Step) -> None:
    memory.dropped, memory.dropped_at = True, step.now
    step.chat.poll_ticket = 0  # else a connect that another thread has in flight would put off the handshake


def _restart_count(memory: Memory, step: Step) -> None:
    memory.failures, memory.dropped = 0, False
    # later connects of a start may be held; those of an open chat set it themselves when they are sent
    if memory.state is State.OPENING:
        memory.at_once = False


def _count(memory: Memory, step: Step) -> None:
    memory.failures += 1
    memory.at_once = True


def _count_handshake(memory: Memory, step: Step) -> None:
    memory.handshakes += 1


def _shorten_hold(memory: Memory, step: Step) -> None:
    status = step.answer.status
    # 0 is a lost connection: some proxies cut without an answer
    if was_held(step) and (status in CUT_BETWEEN or status == 0 or status >= SERVER_ERROR):
        memory.hold = BACKOFF.shorter_hold(step.held)


def _note_missed(memory: Memory, step: Step) -> None:
    memory.missed.note(step.chat.cursor)


def _note_all_missed(memory: Memory, step: Step) -> None:
    # the restore itself was the first request, so that its answer may still come; the next follows after a pause
    memory.missed.note(1)
    memory.missed.ask_at, memory.missed.accepted = step.now + BACKOFF.ask_again, True


def _note_accepted(memory: Memory, step: Step) -> None:
    memory.missed.accepted = memory.missed.unanswered = True


def _note_answered(memory: Memory, step: Step) -> None:
    memory.missed.answered()


def _note_push(memory: Memory, step: Step) -> None:
    memory.missed.unanswered = False


def _rest(memory: Memory, step: Step) -> None:
    memory.rest_until = step.now + BACKOFF.after_bad_push


def _left(memory: Memory, step: Step) -> float:
    """Return the seconds for a message; only those of a start or a restore have a deadline."""
    return memory.deadline - step.now - step.pause if memory.state in BEGINNING else inf


def _send_handshake(memory: Memory, step: Step) -> Event:
    return Send(Handshake(), step.pause, _left(memory, step))


def _send_again(memory: Memory, step: Step) -> Event:
    # the handshakes of this second attempt count from one; the deadline stays
    memory.reopened, memory.handshakes = True, 1
    return _send_handshake(memory, step)


def _send_opening(memory: Memory, step: Step) -> Event:
    return Send(None, step.pause, _left(memory, step))


def _wait_for_push(memory: Memory, step: Step) -> None:
    # never later than the command's own deadline
    memory.deadline = min(memory.deadline, step.now + BACKOFF.first_push)


def _send_first_connect(memory: Memory, step: Step) -> Event:
    left = _left(memory, step)
    hold = 0.0 if memory.at_once else left  # held until the deadline: the first push is all that is waited for
    memory.connect_at = step.now + step.pause
    return Send(Connect(hold=hold, usual=hold), step.pause, left)


def _send_connect(memory: Memory, step: Step) -> Event:
    # a client whose connects fail wants its answer at once, so that an outage ends as soon as the gateway is back
    hold, missed = 0.0 if memory.at_once else memory.hold, memory.missed
    if missed.wanted and not memory.at_once:
        # the request for missed messages goes out between two connects, so that one must not be held beyond its time
        hold = min(memory.timeout if hold is None else hold, max(0.0, missed.ask_at - step.now))
    memory.at_once = False  # for this connect alone
    return Send(Connect(hold=hold, usual=memory.timeout))


def _send_missed(memory: Memory, step: Step) -> Event:
    missed, renewed = memory.missed, memory.state is State.RESYNCHRONISING
    # restored offline, the transcript has not come at all
    position = 1 if step.chat.catching_up else missed.position
    missed.asks, missed.accepted, missed.unanswered = missed.asks + 1, False, False
    missed.ask_at = step.now + BACKOFF.between_requests(missed.asks)
    # for a client that has a session at the gateway the requests end, as its connects have brought what there was
    missed.wanted = step.chat.catching_up or renewed or missed.asks < BACKOFF.asked_at_most
    return Send(Notifications(position=position))


def _next_in_turn(memory: Memory, step: Step) -> Event:
    """Return when the next connect is due; a websocket is read on at once, and only what is sent has to wait."""
    frame, answer = step.sent.frame, step.answer
    pause = memory.interval
    # a connect that was to be answered at once says nothing about a server that holds none
    if isinstance(frame, Connect) and frame.hold != 0.0:
        listened = frame.listen if answer.line else 0.0
        pause = BACKOFF.after_connect(step.held - listened, memory.interval, pushed=answer.pushed)
    if not answer.line:
        return memory.next_at(step.now, pause)
    if answer.line == "answered":
        memory.send_at = max(step.now + pause, memory.rest_until)
    elif answer.line == "held":  # the server holds a connect still: the next one takes its place, and nothing is sent
        memory.send_at = 0.0
    return NextAt(step.now, reserves=answer.line == "answered")


def _stop(memory: Memory, step: Step) -> Event:
    return NextAt(None)


def _close(memory: Memory, step: Step) -> None:
    memory.close()


EFFECTS: dict[Effect, Callable[[Memory, Step], Event | None]] = {
    Effect.TAKE_CLIENT: _take_client,
    Effect.FORGET_CLIENT: _forget_client,
    Effect.NOTE_DROP: _note_drop,
    Effect.RESTART_COUNT: _restart_count,
    Effect.COUNT: _count,
    Effect.COUNT_HANDSHAKE: _count_handshake,
    Effect.SHORTEN_HOLD: _shorten_hold,
    Effect.NOTE_MISSED: _note_missed,
    Effect.NOTE_ALL_MISSED: _note_all_missed,
    Effect.NOTE_ACCEPTED: _note_accepted,
    Effect.NOTE_ANSWERED: _note_answered,
    Effect.NOTE_PUSH: _note_push,
    Effect.REST: _rest,
    Effect.SEND_HANDSHAKE: _send_handshake,
    Effect.SEND_OPENING: _send_opening,
    Effect.SEND_AGAIN: _send_again,
    Effect.SEND_FIRST_CONNECT: _send_first_connect,
    Effect.WAIT_FOR_PUSH: _wait_for_push,
    Effect.SEND_CONNECT: _send_connect,
    Effect.SEND_MISSED: _send_missed,
    Effect.NEXT_NOW: lambda memory, step: memory.next_at(step.now, 0.0),
    Effect.NEXT_IN_TURN: _next_in_turn,
    Effect.NEXT_AS_ADVISED: lambda memory, step: memory.next_at(step.now, step.answer.interval or 0.0),
    Effect.RETRY: lambda memory, step: memory.next_at(step.now, pause_after(memory.failures, step)),
    Effect.PAUSE: lambda memory, step: memory.next_at(step.now, pause_after(1, step)),
    Effect.ASK_LATER: lambda memory, step: memory.next_at(step.now, max(memory.interval, BACKOFF.ask_again)),
    Effect.STOP: _stop,
    Effect.RESET: _close,
}
