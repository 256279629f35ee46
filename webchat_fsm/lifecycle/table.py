"""The lifecycle: every state, every way from one to another, and what is published on the way.

Two rules.
1. Whatever decides where a session goes, or which lifecycle event it publishes, is a row of `ROWS`. The machine, the
   legality of commands, the drawings and the documentation are derived from it; nothing repeats it.
2. A row is data. Guards, flags and effects are names here; `core` gives them meaning.

Theory of operation. A command, an answer or a due timer becomes a `Trigger`. Of the rows with the session's state and
that trigger, the first whose guards all hold is taken: what it `says` is published in order, a `Say` with a condition
only if that flag was set (or clear) before the row; then flags are set and cleared and what it `does` is done. `CONTENT`
in `says` marks where the messages of an answer come in: their own events, then one `messageReceived`.

Decisions that the reference leaves open are told in the `why` of their row.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import NamedTuple


class State(StrEnum):
    """Where a session is; the reference knows only "active session or not", the rest is made explicit here."""

    IDLE = "idle"
    STARTING = "starting"
    ACTIVE = "active"
    POLLING = "polling"
    OFFLINE = "offline"
    RESTORING = "restoring"
    DORMANT = "async-dormant"
    ENDED = "ended"

    @property
    def has_session(self) -> bool:
        """True where the reference speaks of an active chat session."""
        return self in HAS_SESSION


MEANING: dict[State, str] = {
    State.IDLE: "no session",
    State.STARTING: "a start request is in flight",
    State.ACTIVE: "session open, automatic polling off (over CometD: connected, delivery is pushed)",
    State.POLLING: "session open, automatic polling on",
    State.OFFLINE: "session open, and more polls (over CometD: reconnects) in a row have failed than pollExceptionLimit",
    State.RESTORING: "a saved session is being taken up again",
    State.DORMANT: "an asynchronous session lives on at the server and is not attached here",
    State.ENDED: "the session is over; transcript, agents and stats can still be read",
}


class Transport(StrEnum):
    """The ways to reach a chat server that the reference documents; asynchronous v3 is a way of its own."""

    V2 = "v2"
    COMETD = "cometd"
    V3 = "v3"
    V3_ASYNC = "v3-async"

    @property
    def polls(self) -> bool:
        """False where the server pushes."""
        return self is not Transport.COMETD

    @property
    def gms(self) -> bool:
        """True for the two that speak the v2 API, and so have the events that the reference calls v2 only."""
        return self in (Transport.V2, Transport.COMETD)

    @property
    def asynchronous(self) -> bool:
        """True where a session outlives its window and can lie dormant."""
        return self is Transport.V3_ASYNC


class Trigger(StrEnum):
    """What can happen to a session: commands in the imperative, facts in the past tense."""

    OPEN = "open"
    START = "startChat"
    START_CONFIRMED = "start confirmed"
    START_REFUSED = "start refused"
    START_FAILED = "start failed"
    START_POLL = "startPoll"
    STOP_POLL = "stopPoll"
    NO_ANSWER = "no complete answer"
    POLL_FAILED = "poll failed"
    POLL_ANSWERED = "poll answered"
    MISANSWERED = "poll badly answered"
    ANSWERED = "another request answered"
    CONTENT_CAME = "content of an answer"
    CHAT_ENDED = "server ended the chat"
    SESSION_LOST = "session lost"
    TYPE = "sendTyping"
    TYPING_OVER = "typing over"
    END = "endChat"
    LEFT = "leave settled"
    RESTORE = "restore"
    SAVED_TOO_OLD = "saved session too old"
    FOUND_ENDED = "found ended"
    RESTORE_LOST = "saved session lost"
    RESTORE_UNANSWERED = "restore unanswered"
    RESTORE_MISANSWERED = "restore badly answered"
    RESTORE_CONFIRMED = "restore confirmed"
    RESTORE_CONFIRMED_OFFLINE = "restore confirmed, chat server unavailable"
    CLOSE = "close"
    INTERRUPTED = "interrupted"


class Guard(StrEnum):
    """Conditions of rows; the first group depends on the transport alone."""

    POLLS = "transport polls"
    PUSHES = "transport pushes"
    GMS = "v2 or cometd"
    NEXUS = "v3"
    ASYNC = "asynchronous"
    RESTORABLE = "something restorable is saved"
    OVER_LIMIT = "failures in a row exceed pollExceptionLimit"
    ENDING = "endChat is in flight"
    WAS_ENDED = "was ended before"
    WAS_DORMANT = "was dormant before"

    def admits(self, transport: Transport) -> bool:
        """Whether a session on that transport can ever meet this guard."""
        return {
            Guard.POLLS: transport.polls,
            Guard.PUSHES: not transport.polls,
            Guard.GMS: transport.gms,
            Guard.NEXUS: not transport.gms,
            Guard.ASYNC: transport.asynchronous,
            Guard.WAS_DORMANT: transport.asynchronous,
        }.get(self, True)


class Flag(StrEnum):
    """What a session remembers beside its state."""

    DISCONNECTED = "disconnected"
    PENDING = "pending"
    WENT_OFFLINE = "went_offline"
    RESTORED_OFFLINE = "restored_offline"
    AGENT_TYPING = "agent_typing"
    CLIENT_TYPING = "client_typing"
    ENDING = "ending"
    SUPERVISOR_IN = "supervisor connected"
    AGENT_IN = "agent connected"
    BOT_IN = "bot connected"
    CLIENT_OUT = "the user has left"


class Do(StrEnum):
    """What a row does to the session beside its flags."""

    BEGIN = "begin afresh: transcript, agents, counters and flags cleared, before anything is said"
    COUNT = "count the failure"
    ZERO = "failures = 0"
    SATURATE = "failures = pollExceptionLimit + 1"
    KEEP = "save the session"
    GIVE_UP = "forget the saved session"
    FINISH = "drop the prefilters of the session"
    LEAVE = "close what was open, without events"


class Say(NamedTuple):
    """One event of a row; with conditions, only where one of `when` was set and none of `unless`."""

    event: str
    when: tuple[Flag, ...] = ()
    unless: tuple[Flag, ...] = ()


CONTENT = Say("messageReceived")
"""Where the messages of an answer come in: each one's own events, then one messageReceived."""


class Row(NamedTuple):
    """One arc of the lifecycle."""

    source: State
    trigger: Trigger
    dest: State
    guards: tuple[Guard, ...] = ()
    says: tuple[Say, ...] = ()
    sets: tuple[Flag, ...] = ()
    clears: tuple[Flag, ...] = ()
    does: tuple[Do, ...] = ()
    why: str = ""


S, T, G, F = State, Trigger, Guard, Flag
HAS_SESSION = frozenset({S.ACTIVE, S.POLLING, S.OFFLINE})
POLLING_ON = frozenset({S.POLLING, S.OFFLINE})
CLOSED_STATES = (S.IDLE, S.ENDED, S.DORMANT)

_FAREWELL = (
    Say("supervisorDisconnected", when=(F.SUPERVISOR_IN,)),
    Say("agentDisconnected", when=(F.AGENT_IN,)),
    Say("botDisconnected", when=(F.BOT_IN,)),
    Say("clientDisconnected", unless=(F.CLIENT_OUT,)),
    Say("ended"),
)
_BACK = (
    Say("chatServerBackOnline", when=(F.WENT_OFFLINE, F.RESTORED_OFFLINE)),
    Say("connectionRestored", when=(F.PENDING,)),
    Say("reconnected", when=(F.DISCONNECTED,)),
    CONTENT,
)
_TROUBLES = (F.DISCONNECTED, F.PENDING, F.WENT_OFFLINE, F.RESTORED_OFFLINE)
_OUT = (Do.GIVE_UP, Do.FINISH, Do.LEAVE)


def _rows() -> Iterator[Row]:
    for state in CLOSED_STATES:
        yield Row(state, T.OPEN, S.RESTORING, (G.RESTORABLE,), (Say("ready"),), why="ready and restore are one commit")
        yield Row(state, T.OPEN, state, (), (Say("ready"),))

    for state in (S.IDLE, S.ENDED):
        yield Row(state, T.START, S.STARTING, does=(Do.BEGIN, Do.GIVE_UP), why="a saved session is given up")
    kept = (Do.KEEP,)
    begun = (Say("started"), Say("pollingStarted"))
    said = "messages of the start answer are not taken: the first poll asks from position 1"
    yield Row(S.STARTING, T.START_CONFIRMED, S.POLLING, (G.POLLS,), begun, does=kept, why=said)
    yield Row(S.STARTING, T.START_CONFIRMED, S.ACTIVE, (G.PUSHES,), begun, does=kept)
    refused = "a v2 envelope with statusCode not 0 only rejects"
    yield Row(S.STARTING, T.START_REFUSED, S.IDLE, (G.GMS,), does=(Do.LEAVE,), why=refused)
    yield Row(S.STARTING, T.START_FAILED, S.IDLE, (), (Say("error"),), does=(Do.LEAVE,))

    yield Row(S.ACTIVE, T.START_POLL, S.POLLING, (G.POLLS,), (Say("pollingStarted"),))
    yield Row(S.POLLING, T.START_POLL, S.POLLING, why="resolves, publishes nothing")
    yield Row(S.OFFLINE, T.START_POLL, S.OFFLINE, why="resolves, does nothing: offline probes already")
    for state in (S.POLLING, S.OFFLINE):
        yield Row(state, T.STOP_POLL, S.ACTIVE, (G.POLLS,), (Say("pollingStopped"),), why="counter and flags survive")

    for state in (S.ACTIVE, S.POLLING, S.OFFLINE):
        yield Row(
            state, T.NO_ANSWER, state, (), (Say("disconnected", unless=(F.DISCONNECTED,)),), sets=(F.DISCONNECTED,),
            why="refused, DNS, TLS, reset, time-out or a torn body",
        )  # fmt: skip
    pending = Say("connectionPending", unless=(F.PENDING,))
    leaving = "the user leaves: nothing is told of trouble any more"
    yield Row(S.ACTIVE, T.POLL_FAILED, S.ACTIVE, (G.ENDING,), does=(Do.COUNT,), why=leaving)
    for state, guards in ((S.POLLING, ()), (S.ACTIVE, (G.PUSHES,))):
        yield Row(
            state, T.POLL_FAILED, S.OFFLINE, (*guards, G.OVER_LIMIT),
            (pending, Say("chatServerWentOffline", unless=(F.WENT_OFFLINE, F.RESTORED_OFFLINE))),
            sets=(F.PENDING, F.WENT_OFFLINE), does=(Do.COUNT,),
            why="the limit must be exceeded: the 6th failure with limit 5, the 1st with limit 0",
        )  # fmt: skip
        yield Row(state, T.POLL_FAILED, state, guards, (pending,), sets=(F.PENDING,), does=(Do.COUNT,))
    last = "the last poll before stopPoll: counted in silence"
    yield Row(S.ACTIVE, T.POLL_FAILED, S.ACTIVE, does=(Do.COUNT,), why=last)
    yield Row(S.OFFLINE, T.POLL_FAILED, S.OFFLINE, does=(Do.COUNT,))

    answered = (Do.ZERO, Do.KEEP)
    for state, dest, guards in (
        (S.POLLING, S.POLLING, ()),
        (S.OFFLINE, S.POLLING, (G.POLLS,)),
        (S.OFFLINE, S.ACTIVE, (G.PUSHES,)),
        (S.ACTIVE, S.ACTIVE, ()),
    ):
        yield Row(
            state, T.POLL_ANSWERED, dest, guards, _BACK, clears=_TROUBLES, does=answered,
            why="connectionRestored also ends a pending that never exceeded the limit",
        )  # fmt: skip
    for state in (S.ACTIVE, S.POLLING, S.OFFLINE):
        yield Row(
            state, T.ANSWERED, state, (), (Say("reconnected", when=(F.DISCONNECTED,)),), clears=(F.DISCONNECTED,),
            why="leaving offline needs a poll",
        )  # fmt: skip
        yield Row(state, T.CONTENT_CAME, state, (), (CONTENT,), why="in index order, each message once")
        badly = "non-2xx other than 429, unreadable, or statusCode 2; a failed poll follows"
        yield Row(state, T.MISANSWERED, state, (), (Say("error", unless=(F.ENDING,)),), why=badly)
        typing = Say("clientTypingStarted", unless=(F.CLIENT_TYPING,))
        yield Row(state, T.TYPE, state, (), (typing,), sets=(F.CLIENT_TYPING,), why="repeats restart the countdown")
        typed = Say("clientTypingStopped", when=(F.CLIENT_TYPING,))
        yield Row(state, T.TYPING_OVER, state, (), (typed,), clears=(F.CLIENT_TYPING,), why="2 s passed, or a send")

    told, gone = "the transcript itself has told who left", "nobody is left to tell who left"
    for trigger, first, silent_end in ((T.CHAT_ENDED, (), told), (T.SESSION_LOST, (Say("error"),), gone)):
        for state in (S.POLLING, S.OFFLINE):
            says = (*first, Say("pollingStopped"), Say("ended"))
            yield Row(state, trigger, S.ENDED, (), says, does=_OUT, why=silent_end)
        yield Row(S.ACTIVE, trigger, S.ENDED, (G.ENDING,), _FAREWELL, does=_OUT, why="endChat settles by its own answer")
        yield Row(S.ACTIVE, trigger, S.ENDED, (), (*first, Say("ended")), does=_OUT, why=silent_end)

    for state in (S.POLLING, S.OFFLINE):
        yield Row(state, T.END, S.ACTIVE, (), (Say("pollingStopped"),), sets=(F.ENDING,))
    yield Row(S.ACTIVE, T.END, S.ACTIVE, sets=(F.ENDING,), why="a poll in flight is not cut, its answer is taken")
    yield Row(S.ACTIVE, T.LEFT, S.ENDED, (G.ENDING,), _FAREWELL, does=_OUT, why="answered or failed: it is over here")
    yield Row(S.DORMANT, T.END, S.DORMANT, sets=(F.ENDING,))
    yield Row(S.DORMANT, T.LEFT, S.ENDED, (G.ENDING,), (Say("clientDisconnected"), Say("ended")), does=_OUT)

    for state in CLOSED_STATES:
        yield Row(state, T.RESTORE, S.RESTORING)
    forgotten = (Do.GIVE_UP, Do.LEAVE)
    failed, error = Say("restoreFailed"), Say("error")
    too_old = (Say("restoreTimeout"),)
    yield Row(S.RESTORING, T.SAVED_TOO_OLD, S.IDLE, (G.GMS,), too_old, does=forgotten, why="no request is made")
    for state in (S.IDLE, S.ENDED):
        yield Row(state, T.SAVED_TOO_OLD, state, (G.GMS,), too_old, does=(Do.GIVE_UP,), why="verifySession has looked")
    yield Row(S.RESTORING, T.FOUND_ENDED, S.IDLE, (G.GMS,), too_old, does=forgotten)
    yield Row(S.RESTORING, T.FOUND_ENDED, S.IDLE, (G.NEXUS,), (failed,), does=forgotten)
    unbegun = "no `ended`: nothing had begun here"
    yield Row(S.RESTORING, T.RESTORE_LOST, S.IDLE, (), (failed, error), does=forgotten, why=unbegun)
    kept_on = "the saved session is kept: open or restore tries again, startChat (when dormant: endChat) gives it up"
    for trigger, said_of_it in ((T.RESTORE_UNANSWERED, (failed,)), (T.RESTORE_MISANSWERED, (failed, error))):
        for dest, guards in ((S.DORMANT, (G.ASYNC,)), (S.IDLE, ())):
            yield Row(S.RESTORING, trigger, dest, guards, said_of_it, does=(Do.LEAVE,), why=kept_on)
    restored = (Say("restored"), CONTENT, Say("pollingStarted"))
    yield Row(S.RESTORING, T.RESTORE_CONFIRMED, S.POLLING, (G.POLLS,), restored, does=(Do.BEGIN, Do.KEEP))
    yield Row(S.RESTORING, T.RESTORE_CONFIRMED, S.ACTIVE, (G.PUSHES,), restored, does=(Do.BEGIN, Do.KEEP))
    yield Row(
        S.RESTORING, T.RESTORE_CONFIRMED_OFFLINE, S.OFFLINE, (G.GMS,),
        (Say("restored"), CONTENT, Say("restoredOffline"), Say("pollingStarted")),
        sets=(F.RESTORED_OFFLINE,), does=(Do.BEGIN, Do.SATURATE, Do.KEEP),
        why="the first good answer brings the transcript, still marked restoring",
    )  # fmt: skip

    for state in (S.ACTIVE, S.POLLING, S.OFFLINE, S.RESTORING):
        yield Row(state, T.CLOSE, S.DORMANT, (G.ASYNC,), does=(Do.LEAVE,), why="the session stays saved")
        yield Row(state, T.CLOSE, S.IDLE, does=(Do.LEAVE,), why="the session stays saved")
    cut = "the request is cut; the chat may live on at the server until its own time-out"
    yield Row(S.STARTING, T.CLOSE, S.IDLE, does=(Do.LEAVE,), why=cut)
    for state in CLOSED_STATES:
        yield Row(state, T.CLOSE, state, does=(Do.LEAVE,))

    yield Row(S.STARTING, T.INTERRUPTED, S.IDLE, does=(Do.LEAVE,), why="KeyboardInterrupt or SystemExit in the caller")
    yield Row(S.RESTORING, T.INTERRUPTED, S.ENDED, (G.WAS_ENDED,), does=(Do.LEAVE,))
    yield Row(S.RESTORING, T.INTERRUPTED, S.DORMANT, (G.WAS_DORMANT,), does=(Do.LEAVE,))
    yield Row(S.RESTORING, T.INTERRUPTED, S.IDLE, does=(Do.LEAVE,))


ROWS: tuple[Row, ...] = tuple(_rows())
"""The table. Of several rows for one state and trigger the first admitted one counts."""


def rows_of(transport: Transport) -> tuple[Row, ...]:
    """The rows that a session on that transport can take."""
    return tuple(row for row in ROWS if all(guard.admits(transport) for guard in row.guards))


@cache
def reachable(transport: Transport) -> frozenset[State]:
    """The states that some sequence of rows leads to from idle."""
    seen = {State.IDLE}
    while found := {row.dest for row in rows_of(transport) if row.source in seen} - seen:
        seen |= found
    return frozenset(seen)


OPENING_EVENTS = frozenset(
    say.event for row in ROWS if row.source in (S.STARTING, S.RESTORING, *CLOSED_STATES) for say in row.says
) - {"ended", "clientDisconnected", "messageReceived"}  # fmt: skip
"""Events that can still come while no session is open: those of opening, starting and restoring one."""
