"""The lifecycle: every state, every way from one to another, and what is published on the way.

Two rules.
1. Whatever decides where a session goes, or which lifecycle event it publishes, is a row of `ROWS`. The machine, the
   legality of commands, the drawings and the documentation are derived from it; nothing repeats it.
2. A row is data. Guards, flags and effects are names here; `core` gives them meaning.

Theory of operation. A command, an answer or a due timer becomes a `Trigger`. Of the rows with the session's state and
that trigger, the first whose guards all hold is taken: what it `says` is published in order, a `Say` with a condition
only if that flag was set (or clear) before the row; then flags are set and cleared and what it `does` is done.
`CONTENT` in `says` marks where the messages of an answer come in: their own events, then one `messageReceived`.

Decisions that the reference leaves open are told in the `why` of their row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    State.OFFLINE: "session open, more polls (over CometD: reconnects) in a row have failed than pollExceptionLimit",
    State.RESTORING: "a saved session is being taken up again",
    State.DORMANT: "an asynchronous session lives on at the server and is not attached here",
    State.ENDED: "the session is over; transcript, agents and stats can still be read",
}
"""What each state means, on whatever transport."""

_POLLED = {
    State.ACTIVE: "session open, automatic polling off",
    State.OFFLINE: "session open, more polls in a row have failed than pollExceptionLimit",
}
_PUSHED = {
    State.ACTIVE: "session open, connected; delivery is pushed",
    State.OFFLINE: "session open, more reconnects in a row have failed than pollExceptionLimit",
}


class Transport(StrEnum):
    """The ways to reach a chat server that the reference documents; asynchronous v3 is one of its own."""

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


def meaning(state: State, transport: Transport | None = None) -> str:
    """What a state means on that transport; on whatever transport without one."""
    if transport is None:
        return MEANING[state]
    return (_POLLED if transport.polls else _PUSHED).get(state, MEANING[state])


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
    FOUND_ENDED_BADLY = "found ended, with errors"
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

_OPEN_STATES = (S.ACTIVE, S.POLLING, S.OFFLINE)
_POLLED_STATES = (S.POLLING, S.OFFLINE)


def _say(*events: str) -> tuple[Say, ...]:
    return tuple(map(Say, events))


_PENDING = Say("connectionPending", unless=(F.PENDING,))
_WENT_OFFLINE = Say("chatServerWentOffline", unless=(F.WENT_OFFLINE, F.RESTORED_OFFLINE))
_RECONNECTED = Say("reconnected", when=(F.DISCONNECTED,))
_BACK = (
    Say("chatServerBackOnline", when=(F.WENT_OFFLINE, F.RESTORED_OFFLINE)),
    Say("connectionRestored", when=(F.PENDING,)),
    _RECONNECTED,
    CONTENT,
)
_FAREWELL = (
    Say("supervisorDisconnected", when=(F.SUPERVISOR_IN,)),
    Say("agentDisconnected", when=(F.AGENT_IN,)),
    Say("botDisconnected", when=(F.BOT_IN,)),
    Say("clientDisconnected", unless=(F.CLIENT_OUT,)),
    Say("ended"),
)
_TROUBLES = (F.DISCONNECTED, F.PENDING, F.WENT_OFFLINE, F.RESTORED_OFFLINE)
_OVER = (Do.GIVE_UP, Do.FINISH, Do.LEAVE)
_FORGET = (Do.GIVE_UP, Do.LEAVE)


def _rows(
    sources: State | Iterable[State],
    trigger: Trigger,
    dest: State | None,
    *guards: Guard,
    says: Iterable[Say] = (),
    sets: tuple[Flag, ...] = (),
    clears: tuple[Flag, ...] = (),
    does: tuple[Do, ...] = (),
    why: str = "",
) -> Iterator[Row]:
    """One row for each source; without a destination the session stays where it is."""
    for source in (sources,) if isinstance(sources, State) else sources:
        yield Row(source, trigger, source if dest is None else dest, guards, tuple(says), sets, clears, does, why)


# fmt: off
ROWS: tuple[Row, ...] = (
    # opening
    *_rows(CLOSED_STATES, T.OPEN, S.RESTORING, G.RESTORABLE, says=_say("ready"),
           why="ready and restore are one commit"),
    *_rows(CLOSED_STATES, T.OPEN, None, says=_say("ready")),

    # starting
    *_rows((S.IDLE, S.ENDED), T.START, S.STARTING, does=(Do.BEGIN, Do.GIVE_UP), why="a saved session is given up"),
    *_rows(S.STARTING, T.START_CONFIRMED, S.POLLING, G.POLLS, says=_say("started", "pollingStarted"), does=(Do.KEEP,),
           why="messages of the start answer are not taken: the first poll asks from position 1"),
    *_rows(S.STARTING, T.START_CONFIRMED, S.ACTIVE, G.PUSHES, says=_say("started"), does=(Do.KEEP,)),
    *_rows(S.STARTING, T.START_REFUSED, S.IDLE, G.GMS, does=(Do.LEAVE,),
           why="a v2 envelope with statusCode not 0 only rejects"),
    *_rows(S.STARTING, T.START_FAILED, S.IDLE, says=_say("error"), does=(Do.LEAVE,)),

    # polling, on and off
    *_rows(S.ACTIVE, T.START_POLL, S.POLLING, G.POLLS, says=_say("pollingStarted")),
    *_rows(S.POLLING, T.START_POLL, None, why="resolves, publishes nothing"),
    *_rows(S.OFFLINE, T.START_POLL, None, why="resolves, does nothing: offline probes already"),
    *_rows(_POLLED_STATES, T.STOP_POLL, S.ACTIVE, G.POLLS, says=_say("pollingStopped"),
           why="counter and flags survive"),

    # trouble
    *_rows(_OPEN_STATES, T.NO_ANSWER, None, says=[Say("disconnected", unless=(F.DISCONNECTED,))],
           sets=(F.DISCONNECTED,), why="refused, DNS, TLS, reset, time-out or a torn body"),
    *_rows(_OPEN_STATES, T.MISANSWERED, None, says=[Say("error", unless=(F.ENDING,))],
           why="non-2xx other than 429, no envelope, or statusCode 2; a failed poll follows"),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, G.ENDING, does=(Do.COUNT,),
           why="the user leaves: no trouble is told any more"),
    *_rows(S.POLLING, T.POLL_FAILED, S.OFFLINE, G.OVER_LIMIT, says=[_PENDING, _WENT_OFFLINE],
           sets=(F.PENDING, F.WENT_OFFLINE), does=(Do.COUNT,),
           why="the limit must be exceeded: the 6th failure with limit 5, the 1st with limit 0"),
    *_rows(S.POLLING, T.POLL_FAILED, None, says=[_PENDING], sets=(F.PENDING,), does=(Do.COUNT,)),
    *_rows(S.ACTIVE, T.POLL_FAILED, S.OFFLINE, G.PUSHES, G.OVER_LIMIT, says=[_PENDING, _WENT_OFFLINE],
           sets=(F.PENDING, F.WENT_OFFLINE), does=(Do.COUNT,)),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, G.PUSHES, says=[_PENDING], sets=(F.PENDING,), does=(Do.COUNT,)),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, does=(Do.COUNT,), why="the last poll before stopPoll: counted in silence"),
    *_rows(S.OFFLINE, T.POLL_FAILED, None, does=(Do.COUNT,)),

    # answers
    *_rows((S.POLLING, S.ACTIVE), T.POLL_ANSWERED, None, says=_BACK, clears=_TROUBLES, does=(Do.ZERO, Do.KEEP),
           why="connectionRestored also ends a pending that never exceeded the limit"),
    *_rows(S.OFFLINE, T.POLL_ANSWERED, S.POLLING, G.POLLS, says=_BACK, clears=_TROUBLES, does=(Do.ZERO, Do.KEEP)),
    *_rows(S.OFFLINE, T.POLL_ANSWERED, S.ACTIVE, G.PUSHES, says=_BACK, clears=_TROUBLES, does=(Do.ZERO, Do.KEEP)),
    *_rows(_OPEN_STATES, T.ANSWERED, None, says=[_RECONNECTED], clears=(F.DISCONNECTED,),
           why="leaving offline needs a poll"),
    *_rows(_OPEN_STATES, T.CONTENT_CAME, None, says=[CONTENT], why="in index order, each message once"),

    # the user types
    *_rows(_OPEN_STATES, T.TYPE, None, says=[Say("clientTypingStarted", unless=(F.CLIENT_TYPING,))],
           sets=(F.CLIENT_TYPING,), why="repeats restart the countdown"),
    *_rows(_OPEN_STATES, T.TYPING_OVER, None, says=[Say("clientTypingStopped", when=(F.CLIENT_TYPING,))],
           clears=(F.CLIENT_TYPING,), why="2 s passed, or a send"),

    # the server ends it
    *_rows(_POLLED_STATES, T.CHAT_ENDED, S.ENDED, says=_say("pollingStopped", "ended"), does=_OVER,
           why="the transcript itself has told who left"),
    *_rows(S.ACTIVE, T.CHAT_ENDED, S.ENDED, G.ENDING, says=_FAREWELL, does=_OVER,
           why="endChat settles by its own answer"),
    *_rows(S.ACTIVE, T.CHAT_ENDED, S.ENDED, says=_say("ended"), does=_OVER),
    *_rows(_POLLED_STATES, T.SESSION_LOST, S.ENDED, says=_say("error", "pollingStopped", "ended"), does=_OVER,
           why="nobody is left to tell who left"),
    *_rows(S.ACTIVE, T.SESSION_LOST, S.ENDED, G.ENDING, says=_FAREWELL, does=_OVER),
    *_rows(S.ACTIVE, T.SESSION_LOST, S.ENDED, says=_say("error", "ended"), does=_OVER),

    # the user ends it
    *_rows(_POLLED_STATES, T.END, S.ACTIVE, says=_say("pollingStopped"), sets=(F.ENDING,)),
    *_rows(S.ACTIVE, T.END, None, sets=(F.ENDING,), why="a poll in flight is not cut, its answer is taken"),
    *_rows(S.ACTIVE, T.LEFT, S.ENDED, G.ENDING, says=_FAREWELL, does=_OVER, why="answered or failed: it is over here"),
    *_rows(S.DORMANT, T.END, None, sets=(F.ENDING,)),
    *_rows(S.DORMANT, T.LEFT, S.ENDED, G.ENDING, says=_say("clientDisconnected", "ended"), does=_OVER),

    # restoring
    *_rows(CLOSED_STATES, T.RESTORE, S.RESTORING),
    *_rows(S.RESTORING, T.SAVED_TOO_OLD, S.IDLE, G.GMS, says=_say("restoreTimeout"), does=_FORGET,
           why="no request is made"),
    *_rows((S.IDLE, S.ENDED), T.SAVED_TOO_OLD, None, G.GMS, says=_say("restoreTimeout"), does=(Do.GIVE_UP,),
           why="verifySession has looked"),
    *_rows(S.RESTORING, T.FOUND_ENDED, S.IDLE, G.GMS, says=_say("restoreTimeout"), does=_FORGET),
    *_rows(S.RESTORING, T.FOUND_ENDED_BADLY, S.IDLE, G.GMS, says=_say("error", "restoreTimeout"), does=_FORGET,
           why="statusCode 2 with chatEnded and errors: the errors are told first"),
    *_rows(S.RESTORING, T.FOUND_ENDED, S.IDLE, G.NEXUS, says=_say("restoreFailed"), does=_FORGET),
    *_rows(S.RESTORING, T.RESTORE_LOST, S.IDLE, says=_say("restoreFailed", "error"), does=_FORGET,
           why="no `ended`: nothing had begun here"),
    *_rows(S.RESTORING, T.RESTORE_UNANSWERED, S.DORMANT, G.ASYNC, says=_say("restoreFailed"), does=(Do.LEAVE,),
           why="the saved session is kept: open or restore tries again, endChat gives it up"),
    *_rows(S.RESTORING, T.RESTORE_UNANSWERED, S.IDLE, says=_say("restoreFailed"), does=(Do.LEAVE,),
           why="the saved session is kept: close and open try again, startChat gives it up"),
    *_rows(S.RESTORING, T.RESTORE_MISANSWERED, S.DORMANT, G.ASYNC, says=_say("restoreFailed", "error"),
           does=(Do.LEAVE,), why="the saved session is kept"),
    *_rows(S.RESTORING, T.RESTORE_MISANSWERED, S.IDLE, says=_say("restoreFailed", "error"), does=(Do.LEAVE,),
           why="the saved session is kept"),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED, S.POLLING, G.POLLS,
           says=[Say("restored"), CONTENT, Say("pollingStarted")], does=(Do.BEGIN, Do.KEEP)),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED, S.ACTIVE, G.PUSHES, says=[Say("restored"), CONTENT],
           does=(Do.BEGIN, Do.KEEP)),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED_OFFLINE, S.OFFLINE, G.GMS,
           says=[Say("restored"), CONTENT, Say("restoredOffline"), Say("pollingStarted")],
           sets=(F.RESTORED_OFFLINE,), does=(Do.BEGIN, Do.SATURATE, Do.KEEP),
           why="the first good answer brings the transcript, still marked restoring"),

    # closing
    *_rows((*_OPEN_STATES, S.RESTORING), T.CLOSE, S.DORMANT, G.ASYNC, does=(Do.LEAVE,), why="the session stays saved"),
    *_rows((*_OPEN_STATES, S.RESTORING), T.CLOSE, S.IDLE, does=(Do.LEAVE,), why="the session stays saved"),
    *_rows(S.STARTING, T.CLOSE, S.IDLE, does=(Do.LEAVE,),
           why="the request is cut; the chat may live on at the server until its own time-out"),
    *_rows(CLOSED_STATES, T.CLOSE, None, does=(Do.LEAVE,)),

    # the caller is interrupted
    *_rows(S.STARTING, T.INTERRUPTED, S.IDLE, does=(Do.LEAVE,), why="KeyboardInterrupt or SystemExit in the caller"),
    *_rows(S.RESTORING, T.INTERRUPTED, S.ENDED, G.WAS_ENDED, does=(Do.LEAVE,)),
    *_rows(S.RESTORING, T.INTERRUPTED, S.DORMANT, G.WAS_DORMANT, does=(Do.LEAVE,)),
    *_rows(S.RESTORING, T.INTERRUPTED, S.IDLE, does=(Do.LEAVE,)),
)
"""The table. Of several rows for one state and trigger the first admitted one counts."""
# fmt: on


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
    say.event
    for row in ROWS
    if row.source not in HAS_SESSION and row.dest is not S.ENDED
    for say in row.says
    if say is not CONTENT
)
"""Events that can still come while no session is open: those of opening, starting and restoring one."""
