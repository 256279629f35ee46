"""The lifecycle: every state, every transition between two states, and the events that each transition publishes.

Two rules.
1. Each decision about the next state or the lifecycle events of a session is a row of `TRANSITIONS`. The machine, the
   legality of commands, the drawings and the documentation are derived from it; nothing repeats it.
2. A row is data. Guards, flags and effects are names here; the core implements them.

Theory of operation. A command, an answer or a due timer becomes a `Trigger`. Of the rows with the session's state and
that trigger, the first whose guards all hold is taken: its `publishes` are published in order, a `Publication` with a
condition only if that flag was set (or clear) before the row; then flags are set and cleared and its `effects` are
performed. `CONTENT` in `publishes` marks the place of the messages of an answer: their own events, then one
`messageReceived`.

Decisions that the reference leaves open are explained in the `reason` of their row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cache

from msgspec import Struct

from webchat_fsm.lifecycle._states import CLOSED_STATES, OPEN_STATES
from webchat_fsm.lifecycle._states import State as State  # the table is read together with its states
from webchat_fsm.lifecycle._transports import Transport


class Trigger(StrEnum):
    """An input of the lifecycle: a command by its documented name, or what an answer, a timer or a caller has done."""

    OPEN = "open"
    START = "startChat"
    START_CONFIRMED = "start confirmed"
    START_REFUSED = "start refused"
    START_FAILED = "start failed"
    START_NOT_TAKEN = "start not taken by the gateway"
    START_POLL = "startPoll"
    STOP_POLL = "stopPoll"
    NO_ANSWER = "no complete answer"
    POLL_FAILED = "poll failed"
    POLL_ANSWERED = "poll answered"
    MISANSWERED = "poll badly answered"
    ANSWERED = "another request answered"
    CONNECTED = "connect answered"
    FORBIDDEN = "gateway forbids to reconnect"
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
    """A condition of a row; those up to ASYNC depend on the transport alone."""

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

    @property
    def is_settled(self) -> bool:
        """Return whether the transport alone decides this guard: on one transport it holds always, or never."""
        return self in _SETTLED

    def admits(self, transport: Transport) -> bool:
        """Return True where a session on that transport can meet this guard."""
        capability, needed = _CAPABILITY.get(self, ("", None))
        # the other guards are conditions of the session: any transport may meet them
        return not capability or getattr(transport, capability) is needed


_SETTLED = {
    Guard.POLLS: ("polls", True), Guard.PUSHES: ("polls", False),
    Guard.GMS: ("gms", True), Guard.NEXUS: ("gms", False),
    Guard.ASYNC: ("asynchronous", True),
}  # fmt: skip
# only an asynchronous session is ever dormant
_CAPABILITY = {**_SETTLED, Guard.WAS_DORMANT: ("asynchronous", True)}


class Flag(StrEnum):
    """A boolean of a session beside its state, which a row sets or clears and a publication asks for."""

    DISCONNECTED = "disconnected"
    PENDING = "pending"
    WENT_OFFLINE = "went_offline"
    RESTORED_OFFLINE = "restored_offline"
    CLIENT_TYPING = "client_typing"
    ENDING = "ending"
    # no row sets these four: a session reads from its transcript who is connected
    SUPERVISOR_IN = "supervisor connected"
    AGENT_IN = "agent connected"
    BOT_IN = "bot connected"
    CLIENT_OUT = "the user has left"


class Effect(StrEnum):
    """A change of a row to the session beside its flags; `_core/context.py` performs it."""

    BEGIN = "begin afresh: transcript, agents, counters and flags cleared, before anything is published"
    COUNT = "count the failure"
    ZERO = "failures = 0"
    SATURATE = "failures = pollExceptionLimit + 1"
    KEEP = "save the session"
    FORGET = "forget the saved session"
    FINISH = "drop the prefilters of the session"
    LEAVE = "close what was open, without events"


class Publication(Struct, frozen=True):
    """One event of a row; with conditions, only where one of `when` was set and none of `unless`."""

    event: str
    when: tuple[Flag, ...] = ()
    unless: tuple[Flag, ...] = ()


CONTENT = Publication("messageReceived")
"""Where the messages of an answer come in: each one's own events, then one messageReceived."""


class Transition(Struct, frozen=True):
    """One row: where the guards hold, the trigger moves a session from `source` to `dest`."""

    source: State
    trigger: Trigger
    dest: State
    guards: tuple[Guard, ...] = ()
    publishes: tuple[Publication, ...] = ()
    sets: tuple[Flag, ...] = ()
    clears: tuple[Flag, ...] = ()
    effects: tuple[Effect, ...] = ()
    reason: str = ""


S, T, G, F = State, Trigger, Guard, Flag
_POLLED_STATES = (S.POLLING, S.OFFLINE)


def _plain(*events: str) -> tuple[Publication, ...]:
    return tuple(map(Publication, events))


# once an outage, by the flag that the row sets behind it
_PENDING = Publication("connectionPending", unless=(F.PENDING,))
# not after `restoredOffline`, by which the application knows already
_WENT_OFFLINE = Publication("chatServerWentOffline", unless=(F.WENT_OFFLINE, F.RESTORED_OFFLINE))
_RECONNECTED = Publication("reconnected", when=(F.DISCONNECTED,))
# the connection is reported before the messages that it has brought
_RESTORED = (Publication("connectionRestored", when=(F.PENDING,)), _RECONNECTED, CONTENT)
# polling may have been stopped and started since the chat server went offline
_BACK = (Publication("chatServerBackOnline", when=(F.WENT_OFFLINE, F.RESTORED_OFFLINE)), *_RESTORED)
# `offline` begins with one of the two flags, and a good poll alone clears them
_BACK_ONLINE = (Publication("chatServerBackOnline"), *_RESTORED)
# an end by this side, which no message announces: those who are connected leave first, the user last
_LEAVING = (
    Publication("supervisorDisconnected", when=(F.SUPERVISOR_IN,)),
    Publication("agentDisconnected", when=(F.AGENT_IN,)),
    Publication("botDisconnected", when=(F.BOT_IN,)),
    Publication("clientDisconnected", unless=(F.CLIENT_OUT,)),
    Publication("ended"),
)
# all at once: a good poll ends every kind of outage
_TROUBLES = (F.DISCONNECTED, F.PENDING, F.WENT_OFFLINE, F.RESTORED_OFFLINE)
# FORGET first, as it names the ids of the session, which LEAVE drops
_OVER = (Effect.FORGET, Effect.FINISH, Effect.LEAVE)
_FORGET = (Effect.FORGET, Effect.LEAVE)


def _rows(
    sources: State | Iterable[State],
    trigger: Trigger,
    dest: State | None,
    *guards: Guard,
    publishes: Iterable[Publication] = (),
    sets: tuple[Flag, ...] = (),
    clears: tuple[Flag, ...] = (),
    effects: tuple[Effect, ...] = (),
    reason: str = "",
) -> Iterator[Transition]:
    """Yield one row for each source; without a destination the session stays where it is."""
    for source in (sources,) if isinstance(sources, State) else sources:
        yield Transition(
            source, trigger, source if dest is None else dest, guards, tuple(publishes), sets, clears, effects, reason
        )


# One row is one call, with its guards in line: the formatter would give each argument a line of its own.
# fmt: off
TRANSITIONS: tuple[Transition, ...] = (
    # opening
    *_rows(CLOSED_STATES, T.OPEN, S.RESTORING, G.RESTORABLE, publishes=_plain("ready"),
           reason="ready and restore are one commit"),
    *_rows(CLOSED_STATES, T.OPEN, None, publishes=_plain("ready")),

    # starting
    *_rows((S.IDLE, S.ENDED), T.START, S.STARTING, effects=(Effect.BEGIN, Effect.FORGET),
           reason="the saved session is abandoned"),
    *_rows(S.STARTING, T.START_CONFIRMED, S.POLLING, G.POLLS, publishes=_plain("started", "pollingStarted"),
           effects=(Effect.KEEP,),
           reason="messages of the start answer are not taken: the first poll asks from position 1"),
    *_rows(S.STARTING, T.START_CONFIRMED, S.ACTIVE, G.PUSHES, publishes=_plain("started"),
           reason="the push that confirms it is then taken as the answer to a poll, which saves the session"),
    *_rows(S.STARTING, T.START_REFUSED, S.IDLE, G.GMS, effects=(Effect.LEAVE,),
           reason="a v2 envelope with statusCode not 0 only rejects"),
    *_rows(S.STARTING, T.START_FAILED, S.IDLE, publishes=_plain("error"), effects=(Effect.LEAVE,)),
    *_rows(S.STARTING, T.START_NOT_TAKEN, S.IDLE, G.PUSHES, publishes=_plain("error"), effects=(Effect.LEAVE,),
           reason="the acknowledgement refuses the request, or forbids to reconnect: no envelope of the chat server"),

    # polling, on and off
    *_rows(S.ACTIVE, T.START_POLL, S.POLLING, G.POLLS, publishes=_plain("pollingStarted")),
    *_rows(S.POLLING, T.START_POLL, None, reason="resolves, publishes nothing"),
    *_rows(S.OFFLINE, T.START_POLL, None, reason="resolves, does nothing: offline probes already"),
    *_rows(_POLLED_STATES, T.STOP_POLL, S.ACTIVE, G.POLLS, publishes=_plain("pollingStopped"),
           reason="counter and flags survive"),

    # trouble: of a failed poll there are two or three triggers, first contact, then the error, then the count
    *_rows(OPEN_STATES, T.NO_ANSWER, None, publishes=[Publication("disconnected", unless=(F.DISCONNECTED,))],
           sets=(F.DISCONNECTED,), reason="refused, DNS, TLS, reset, time-out or a torn body"),
    *_rows(_POLLED_STATES, T.MISANSWERED, None, publishes=_plain("error"),
           reason="non-2xx other than 429, no envelope, or statusCode 2; a failed poll follows"),
    *_rows(S.ACTIVE, T.MISANSWERED, None, publishes=[Publication("error", unless=(F.ENDING,))],
           reason="the user leaves: as for a failed poll"),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, G.ENDING, effects=(Effect.COUNT,),
           reason="the user leaves: failures are not published any more"),
    *_rows(S.POLLING, T.POLL_FAILED, S.OFFLINE, G.OVER_LIMIT, publishes=[_PENDING, _WENT_OFFLINE],
           sets=(F.PENDING, F.WENT_OFFLINE), effects=(Effect.COUNT,),
           reason="the limit must be exceeded: the 6th failure with limit 5, the 1st with limit 0"),
    *_rows(S.POLLING, T.POLL_FAILED, None, publishes=[_PENDING], sets=(F.PENDING,), effects=(Effect.COUNT,)),
    *_rows(S.ACTIVE, T.POLL_FAILED, S.OFFLINE, G.PUSHES, G.OVER_LIMIT,
           publishes=[_PENDING, Publication("chatServerWentOffline")],
           sets=(F.PENDING, F.WENT_OFFLINE), effects=(Effect.COUNT,),
           reason="without polling to stop, no chat is active that has gone offline before"),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, G.PUSHES, publishes=[_PENDING], sets=(F.PENDING,), effects=(Effect.COUNT,)),
    *_rows(S.ACTIVE, T.POLL_FAILED, None, effects=(Effect.COUNT,),
           reason="the last poll before stopPoll: counted in silence"),
    *_rows(S.OFFLINE, T.POLL_FAILED, None, effects=(Effect.COUNT,)),

    *_rows(S.ACTIVE, T.FORBIDDEN, None, G.PUSHES, G.ENDING, reason="the leave request settles by its own answer"),
    *_rows(S.OFFLINE, T.FORBIDDEN, None, G.PUSHES, publishes=_plain("error"), reason="offline already, now for good"),
    *_rows(S.ACTIVE, T.FORBIDDEN, S.OFFLINE, G.PUSHES, publishes=_plain("error", "chatServerWentOffline"),
           sets=(F.WENT_OFFLINE,), effects=(Effect.SATURATE,),
           reason="advice reconnect none: no request is made any more, commands that need one are rejected, and "
               "endChat ends the chat here alone; close and open restore it"),

    # answers: those of polls bring content and end an outage, those of other requests only prove contact
    *_rows((S.POLLING, S.ACTIVE), T.POLL_ANSWERED, None, publishes=_BACK, clears=_TROUBLES,
           effects=(Effect.ZERO, Effect.KEEP),
           reason="connectionRestored also ends a pending that never exceeded the limit"),
    *_rows(S.OFFLINE, T.POLL_ANSWERED, S.POLLING, G.POLLS, publishes=_BACK_ONLINE, clears=_TROUBLES,
           effects=(Effect.ZERO, Effect.KEEP)),
    *_rows(S.OFFLINE, T.POLL_ANSWERED, S.ACTIVE, G.PUSHES, publishes=_BACK_ONLINE, clears=_TROUBLES,
           effects=(Effect.ZERO, Effect.KEEP)),
    *_rows(OPEN_STATES, T.ANSWERED, None, G.POLLS, publishes=[_RECONNECTED], clears=(F.DISCONNECTED,),
           reason="leaving offline needs a poll"),
    *_rows((S.ACTIVE, S.OFFLINE), T.ANSWERED, None, G.PUSHES,
           reason="the gateway answers other requests too while no connect goes through: this ends no `disconnected`"),
    *_rows((S.ACTIVE, S.OFFLINE), T.CONNECTED, None, G.PUSHES, publishes=[_RECONNECTED], clears=(F.DISCONNECTED,),
           reason="the first successful connect of the same client; a new client waits for a push with statusCode 0"),
    *_rows(OPEN_STATES, T.CONTENT_CAME, None, publishes=[CONTENT], reason="in index order, each message once"),

    # the user types
    *_rows(OPEN_STATES, T.TYPE, None, publishes=[Publication("clientTypingStarted", unless=(F.CLIENT_TYPING,))],
           sets=(F.CLIENT_TYPING,), reason="repeats restart the countdown"),
    *_rows(OPEN_STATES, T.TYPING_OVER, None, publishes=[Publication("clientTypingStopped", when=(F.CLIENT_TYPING,))],
           clears=(F.CLIENT_TYPING,), reason="2 s passed, or a send"),

    # the server ends it
    *_rows(_POLLED_STATES, T.CHAT_ENDED, S.ENDED, publishes=_plain("pollingStopped", "ended"), effects=_OVER,
           reason="the transcript itself has announced who left"),
    *_rows(S.ACTIVE, T.CHAT_ENDED, S.ENDED, G.ENDING, publishes=_LEAVING, effects=_OVER,
           reason="endChat settles by its own answer"),
    *_rows(S.ACTIVE, T.CHAT_ENDED, S.ENDED, publishes=_plain("ended"), effects=_OVER),
    *_rows(_POLLED_STATES, T.SESSION_LOST, S.ENDED, publishes=_plain("error", "pollingStopped", "ended"), effects=_OVER,
           reason="the server can no longer announce who left"),
    *_rows(S.ACTIVE, T.SESSION_LOST, S.ENDED, G.ENDING, publishes=_LEAVING, effects=_OVER),
    *_rows(S.ACTIVE, T.SESSION_LOST, S.ENDED, publishes=_plain("error", "ended"), effects=_OVER),

    # the user ends it
    *_rows(_POLLED_STATES, T.END, S.ACTIVE, publishes=_plain("pollingStopped"), sets=(F.ENDING,)),
    *_rows(S.ACTIVE, T.END, None, sets=(F.ENDING,), reason="a poll in flight is not cut, its answer is taken"),
    *_rows(S.ACTIVE, T.LEFT, S.ENDED, publishes=_LEAVING, effects=_OVER,
           reason="answered or failed: it is over here"),
    *_rows(S.DORMANT, T.END, None, sets=(F.ENDING,)),
    *_rows(S.DORMANT, T.LEFT, S.ENDED, publishes=_plain("clientDisconnected", "ended"), effects=_OVER),

    # restoring
    *_rows(CLOSED_STATES, T.RESTORE, S.RESTORING),
    *_rows(S.RESTORING, T.SAVED_TOO_OLD, S.IDLE, G.GMS, publishes=_plain("restoreTimeout"), effects=(Effect.FORGET,),
           reason="no request is made, so that nothing is open"),
    *_rows((S.IDLE, S.ENDED), T.SAVED_TOO_OLD, None, G.GMS, publishes=_plain("restoreTimeout"),
           effects=(Effect.FORGET,), reason="verifySession has checked"),
    *_rows(S.RESTORING, T.FOUND_ENDED, S.IDLE, G.GMS, publishes=_plain("restoreTimeout"), effects=_FORGET),
    *_rows(S.RESTORING, T.FOUND_ENDED_BADLY, S.IDLE, G.GMS, publishes=_plain("error", "restoreTimeout"),
           effects=_FORGET, reason="statusCode 2 with chatEnded and errors: the errors are published first"),
    *_rows(S.RESTORING, T.FOUND_ENDED, S.IDLE, G.NEXUS, publishes=_plain("restoreFailed"), effects=_FORGET),
    *_rows(S.RESTORING, T.RESTORE_LOST, S.IDLE, publishes=_plain("restoreFailed", "error"), effects=_FORGET,
           reason="no `ended`: nothing had begun here"),
    *_rows(S.RESTORING, T.RESTORE_UNANSWERED, S.DORMANT, G.ASYNC, publishes=_plain("restoreFailed"),
           effects=(Effect.LEAVE,),
           reason="the saved session is kept: open or restore tries again, endChat abandons it"),
    *_rows(S.RESTORING, T.RESTORE_UNANSWERED, S.IDLE, publishes=_plain("restoreFailed"), effects=(Effect.LEAVE,),
           reason="the saved session is kept: close and open try again, startChat abandons it"),
    *_rows(S.RESTORING, T.RESTORE_MISANSWERED, S.DORMANT, G.ASYNC, publishes=_plain("restoreFailed", "error"),
           effects=(Effect.LEAVE,), reason="the saved session is kept"),
    *_rows(S.RESTORING, T.RESTORE_MISANSWERED, S.IDLE, publishes=_plain("restoreFailed", "error"),
           effects=(Effect.LEAVE,),
           reason="the saved session is kept"),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED, S.POLLING, G.POLLS,
           publishes=[Publication("restored"), CONTENT, Publication("pollingStarted")],
           effects=(Effect.BEGIN, Effect.KEEP)),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED, S.ACTIVE, G.PUSHES, publishes=[Publication("restored"), CONTENT],
           effects=(Effect.BEGIN, Effect.KEEP)),
    *_rows(S.RESTORING, T.RESTORE_CONFIRMED_OFFLINE, S.OFFLINE, G.GMS,
           publishes=[Publication("restored"), CONTENT, Publication("restoredOffline"), Publication("pollingStarted")],
           sets=(F.RESTORED_OFFLINE,), effects=(Effect.BEGIN, Effect.SATURATE, Effect.KEEP),
           reason="the first good answer brings the transcript, still marked restoring"),

    # closing
    *_rows((*OPEN_STATES, S.RESTORING), T.CLOSE, S.DORMANT, G.ASYNC, effects=(Effect.LEAVE,),
           reason="the session stays saved"),
    *_rows((*OPEN_STATES, S.RESTORING), T.CLOSE, S.IDLE, effects=(Effect.LEAVE,), reason="the session stays saved"),
    *_rows(S.STARTING, T.CLOSE, S.IDLE, effects=(Effect.LEAVE,),
           reason="the request is cut; the chat may live on at the server until its own time-out"),
    *_rows(S.DORMANT, T.CLOSE, None, effects=(Effect.LEAVE,), reason="endChat may be in flight"),
    *_rows((S.IDLE, S.ENDED), T.CLOSE, None),

    # the caller is interrupted
    *_rows(S.STARTING, T.INTERRUPTED, S.IDLE, effects=(Effect.LEAVE,),
           reason="KeyboardInterrupt or SystemExit in the caller"),
    *_rows(S.RESTORING, T.INTERRUPTED, S.ENDED, G.WAS_ENDED, effects=(Effect.LEAVE,)),
    *_rows(S.RESTORING, T.INTERRUPTED, S.DORMANT, G.WAS_DORMANT, effects=(Effect.LEAVE,)),
    *_rows(S.RESTORING, T.INTERRUPTED, S.IDLE, effects=(Effect.LEAVE,)),
    *_rows(CLOSED_STATES, T.INTERRUPTED, None, clears=(F.ENDING,),
           reason="endChat of a dormant chat may be in flight: the chat stays dormant, and can be ended again"),
)
"""The table. Of several rows for one state and trigger the first whose guards all hold is taken."""
# fmt: on


def rows_of(transport: Transport) -> tuple[Transition, ...]:
    """Return the rows that a session on that transport can take; raises ValueError for an unknown one."""
    known = Transport(transport)  # a plain text too, such as "v2"
    return tuple(row for row in TRANSITIONS if all(guard.admits(known) for guard in row.guards))


@cache  # asked for each cell of the legality table
def reachable(transport: Transport) -> frozenset[State]:
    """Return the states that some sequence of rows reaches from idle."""
    seen = {State.IDLE}
    while found := {row.dest for row in rows_of(transport) if row.source in seen} - seen:
        seen |= found
    return frozenset(seen)
