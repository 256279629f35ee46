"""The states of the Bayeux connection under a chat that is pushed, as a table like that of the lifecycle.

An answer, a push or a due timer becomes a `Trigger`. Of the rows with the connection's state and that trigger, the
first whose guards all hold is taken: the state is moved, what the row publishes goes to the core in its order, and then
its effects follow. Where there is no row the answer says nothing about the connection any more, as it is one to a
message of a client, or of a chat, that has been replaced meanwhile.

A row is data. `connection` gives guards and effects their meaning, and the core gives it to what is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """A state of the connection; `MEANING` describes each."""

    UNCONNECTED = "unconnected"
    HANDSHAKING = "handshaking"
    OPENING = "opening"
    CONNECTED = "connected"
    LOST = "lost"
    RENEWING = "renewing"
    RESYNCHRONISING = "resynchronising"
    REFUSED = "refused"


MEANING: dict[State, str] = {
    State.UNCONNECTED: "no chat, and so no connection",
    State.HANDSHAKING: "a start or a restore asks for a client id",
    State.OPENING: "the request of a start or a restore is published, and its first push is awaited",
    State.CONNECTED: "one connect follows another, and the gateway answers them with pushes",
    State.LOST: "connects of this client fail, and are repeated",
    State.RENEWING: "the gateway has dropped the client; a new handshake is due or in flight",
    State.RESYNCHRONISING: "a new client has asked for missed messages, and no good push has come yet",
    State.REFUSED: "the gateway forbids every further request",
}
"""The meaning of each state, for the drawings and tables."""


class Trigger(StrEnum):
    """An input of the connection: an answer, a push, a due timer, or an interruption and a defect on this side."""

    BEGIN = "start or restore"
    HANDSHAKE_ANSWERED = "handshake answered"
    HANDSHAKE_FAILED = "handshake refused or failed"
    REQUEST_ACCEPTED = "opening request accepted"
    REQUEST_REFUSED = "opening request refused or failed"
    OPENED = "chat opened"
    DUE = "next message due"
    CONNECT_ANSWERED = "connect answered"
    CONNECT_PROCESSED = "pushes of a connect processed"
    CONNECT_FAILED = "connect failed"
    CONNECT_CUT = "connect cut by a proxy"
    CONNECT_THROTTLED = "too many connects"
    CLIENT_UNKNOWN = "client unknown"
    HANDSHAKE_ADVISED = "advised to handshake"
    DISCONNECTED = "disconnected by the gateway"
    PUBLISH_ANSWERED = "publish answered"
    PUBLISH_FAILED = "publish failed"
    PUBLISH_NOT_TAKEN = "publish of an unknown client"
    MISSED_ANSWERED = "request for missed messages answered"
    MISSED_PROCESSED = "pushes of a request for missed messages processed"
    MISSED_FAILED = "request for missed messages failed"
    MISSED_NOT_TAKEN = "request for missed messages of an unknown client"
    PUSH_GOOD = "good push"
    PUSH_REFUSED = "push with a refusal"
    PUSH_UNAVAILABLE = "push: chat server unavailable"
    PUSH_UNREADABLE = "push unreadable"
    FORBIDDEN = "advised not to reconnect"
    INTERRUPTED = "message interrupted"
    DEFECT = "answer not processed"
    MISSED_DEFECT = "answer to a request for missed messages not processed"
    CLOSE = "chat over"


class Guard(StrEnum):
    """A condition of a row; `rules.GUARDS` gives it its meaning."""

    IN_TIME = "deadline not reached"
    HANDSHAKES_LEFT = "fewer than 5 handshakes"
    FIRST_REQUEST = "opening request sent once"
    RESTORING = "restore"
    OUTAGE = "chat has failed no more often than connects"
    FAILING = "connects or handshakes fail"
    IN_FLIGHT = "connect in flight"
    MISSING = "request for missed messages due"
    NOT_ASKED = "missed messages not asked for"
    NO_PUSH = "no push since the last request"
    DROPPED_BEFORE = "dropped without a connect, or 0.5 s ago"
    NEW_CLIENT = "another thread has a new client"
    SENDABLE = "sent once, or to an older client"
    CHAT_TROUBLED = "chat disconnected"
    CATCHING_UP = "restored offline"
    WITH_MESSAGES = "push has messages"


class Effect(StrEnum):
    """A change to the connection, or the message that follows; `rules.EFFECTS` gives it its meaning."""

    TAKE_CLIENT = "note the client id; next connect at once"
    FORGET_CLIENT = "forget the client id"
    NOTE_DROP = "note the drop; of a connect in flight only pushes count"
    RESTART_COUNT = "failures = 0"
    COUNT = "count the failure; next connect at once"
    COUNT_HANDSHAKE = "count the handshake"
    SHORTEN_HOLD = "halve the hold where the connect was held"
    NOTE_MISSED = "ask for messages from the cursor"
    NOTE_ALL_MISSED = "ask for all messages in 3 s"
    NOTE_ACCEPTED = "next good push answers the request"
    NOTE_ANSWERED = "missed messages have come"
    NOTE_PUSH = "a push has come since the request"
    REST = "no connect for 1 s"
    SEND_HANDSHAKE = "send a handshake"
    SEND_OPENING = "send the opening request"
    SEND_AGAIN = "send a handshake, then the opening request again"
    SEND_FIRST_CONNECT = "send a connect until the deadline"
    WAIT_FOR_PUSH = "wait 10 s for the first push"
    SEND_CONNECT = "send a connect"
    SEND_MISSED = "ask for missed messages"
    NEXT_NOW = "next message now"
    NEXT_IN_TURN = "next connect after the interval"
    NEXT_AS_ADVISED = "next message after the advised interval"
    RETRY = "retry after 1, 2, 3, ... 60 s"
    PAUSE = "next message after 1 s"
    ASK_LATER = "next message after 3 s"
    STOP = "no timer"
    RESET = "forget all but the count of messages"


class Report(StrEnum):
    """An output of the connection; `_core/exchange.py` gives it its meaning for the chat."""

    FAILED = "connection failed"
    DROPPED = "connection dropped"
    RECOVERED = "connection recovered"
    ALIVE = "connection alive"
    CONTACT = "gateway answers"
    NO_PUSH = "chat server silent"
    MISSED_FAILED = "request failed"
    FORBIDDEN = "connection forbidden"
    ABANDONED = "opening abandoned"
    TOO_LATE = "opening too late"
    SETTLE = "command settled"
    REJECT_WAITING = "waiting message rejected"
    SEND_WAITING = "waiting message sent"
    SEND_AGAIN = "message sent again"
    PUSHES = "pushes of the answer"
    POLL = "push as the answer to a poll"
    CONTENT = "content of a push"


class Publication(Struct, frozen=True):
    """One report of a row; with conditions, only where all of `when` hold."""

    event: Report
    when: tuple[Guard, ...] = ()
    unless: tuple[Guard, ...] = ()


class Transition(Struct, frozen=True):
    """One row: where the guards hold, the trigger moves the connection from `source` to `dest`."""

    source: State
    trigger: Trigger
    dest: State
    guards: tuple[Guard, ...] = ()
    publishes: tuple[Publication, ...] = ()
    effects: tuple[Effect, ...] = ()
    reason: str = ""


S, T, G, E, R = State, Trigger, Guard, Effect, Report  # one letter each, so that a row stays on one line
KNOWN = (S.CONNECTED, S.LOST, S.RESYNCHRONISING)
OPEN = (*KNOWN, S.RENEWING)
BEGINNING = (S.HANDSHAKING, S.OPENING)
_RENEWALS = (T.CLIENT_UNKNOWN, T.HANDSHAKE_ADVISED, T.DISCONNECTED)


def _rows(
    sources: State | Iterable[State],
    triggers: Trigger | Iterable[Trigger],
    dest: State | None,
    *guards: Guard,
    publishes: Iterable[Report | Publication] = (),
    effects: tuple[Effect, ...] = (),
    reason: str = "",
) -> Iterator[Transition]:
    """Yield a row for each source and trigger; without a destination the connection stays in its state."""
    reports = tuple(Publication(one) if isinstance(one, Report) else one for one in publishes)
    for source in (sources,) if isinstance(sources, State) else sources:
        for trigger in (triggers,) if isinstance(triggers, Trigger) else triggers:
            yield Transition(source, trigger, source if dest is None else dest, tuple(guards), reports, effects, reason)


# in front of a repeated request: the one before was accepted, and no push has followed it
_NO_PUSH = Publication(R.NO_PUSH, when=(G.NO_PUSH,))
# messages may have been lost with the client, and the gateway may advise when it wants the handshake
_DROP = (E.FORGET_CLIENT, E.NOTE_DROP, E.NOTE_MISSED, E.NEXT_AS_ADVISED)
_DROP_FAILS = (E.FORGET_CLIENT, E.NOTE_DROP, E.NOTE_MISSED, E.COUNT, E.RETRY)
# while a chat is opened a cut connect is a failure like any other, as no hold is to be found for later ones
_BROKEN = (T.CONNECT_FAILED, T.CONNECT_CUT, T.CONNECT_THROTTLED)

# fmt: off
TRANSITIONS: tuple[Transition, ...] = (
    # a start or a restore shakes hands
    *_rows(S.UNCONNECTED, T.BEGIN, S.HANDSHAKING, effects=(E.SEND_HANDSHAKE,)),
    *_rows(S.HANDSHAKING, T.HANDSHAKE_ANSWERED, S.OPENING, G.IN_TIME, effects=(E.TAKE_CLIENT, E.SEND_OPENING)),
    *_rows(S.HANDSHAKING, T.HANDSHAKE_ANSWERED, S.UNCONNECTED, publishes=[R.TOO_LATE]),
    *_rows(S.HANDSHAKING, T.HANDSHAKE_FAILED, None, G.HANDSHAKES_LEFT, G.IN_TIME,
           effects=(E.COUNT_HANDSHAKE, E.SEND_HANDSHAKE),
           reason="five handshakes at most, 1, 2, 3 and 4 seconds apart"),
    *_rows(S.HANDSHAKING, T.HANDSHAKE_FAILED, S.UNCONNECTED, publishes=[R.ABANDONED]),

    # the request that opens a chat, and its first push
    *_rows(S.OPENING, T.REQUEST_ACCEPTED, None, G.IN_TIME, effects=(E.WAIT_FOR_PUSH, E.SEND_FIRST_CONNECT)),
    *_rows(S.OPENING, T.REQUEST_ACCEPTED, S.UNCONNECTED, publishes=[R.TOO_LATE]),
    *_rows(S.OPENING, T.REQUEST_REFUSED, S.UNCONNECTED, publishes=[R.ABANDONED]),
    *_rows(S.OPENING, T.PUBLISH_NOT_TAKEN, S.HANDSHAKING, G.FIRST_REQUEST, G.IN_TIME, effects=(E.SEND_AGAIN,),
           reason="a request of an unknown client was not taken, so that it can be sent again, once"),
    *_rows(S.OPENING, T.PUBLISH_NOT_TAKEN, S.UNCONNECTED, G.FIRST_REQUEST, publishes=[R.TOO_LATE]),
    *_rows(S.OPENING, T.PUBLISH_NOT_TAKEN, S.UNCONNECTED, publishes=[R.ABANDONED]),
    *_rows(S.OPENING, T.CONNECT_PROCESSED, None, G.IN_TIME, effects=(E.RESTART_COUNT, E.SEND_FIRST_CONNECT)),
    *_rows(S.OPENING, _BROKEN, None, G.IN_TIME, effects=(E.COUNT, E.SEND_FIRST_CONNECT)),
    *_rows(S.OPENING, (T.CONNECT_PROCESSED, *_BROKEN), S.UNCONNECTED, publishes=[R.TOO_LATE]),
    *_rows(S.OPENING, _RENEWALS, S.HANDSHAKING, G.RESTORING, G.FIRST_REQUEST, G.IN_TIME, effects=(E.SEND_AGAIN,),
           reason="a restore can ask again, with the key of the chat"),
    *_rows(S.OPENING, _RENEWALS, S.UNCONNECTED, publishes=[R.ABANDONED],
           reason="a start cannot: its chat may have begun, and no key leads to it"),
    *_rows(BEGINNING, T.OPENED, S.CONNECTED, G.CATCHING_UP,
           effects=(E.NOTE_ALL_MISSED, E.REST, E.NEXT_NOW),
           reason="restored while the chat server was unavailable: the transcript is asked for until it comes"),
    *_rows(BEGINNING, T.OPENED, S.CONNECTED, effects=(E.NEXT_NOW,),
           reason="the first push opens the chat, also beside a handshake that the gateway forbids to go on from"),

    # the next message
    *_rows(OPEN, T.DUE, None, G.IN_FLIGHT, reason="its answer decides what comes next, so two never cross"),
    *_rows(S.RENEWING, T.DUE, None, effects=(E.NOTE_MISSED, E.SEND_HANDSHAKE)),
    *_rows(S.RESYNCHRONISING, T.DUE, None, G.FAILING, effects=(E.SEND_CONNECT,),
           reason="the connect shows whether the gateway answers again"),
    *_rows((S.CONNECTED, S.RESYNCHRONISING), T.DUE, None, G.MISSING,
           publishes=[_NO_PUSH], effects=(E.SEND_MISSED,)),
    *_rows(KNOWN, T.DUE, None, effects=(E.SEND_CONNECT,)),

    # connects
    *_rows(S.CONNECTED, T.CONNECT_ANSWERED, None, publishes=[R.ALIVE], effects=(E.RESTART_COUNT,)),
    *_rows(S.LOST, T.CONNECT_ANSWERED, S.CONNECTED, G.OUTAGE, publishes=[R.RECOVERED], effects=(E.RESTART_COUNT,),
           reason="the same client: nothing else has to be waited for"),
    *_rows(S.LOST, T.CONNECT_ANSWERED, S.CONNECTED, publishes=[R.ALIVE], effects=(E.RESTART_COUNT,),
           reason="the chat server has failed as well, so that only a good push ends the outage"),
    *_rows(S.RESYNCHRONISING, T.CONNECT_ANSWERED, None, publishes=[R.CONTACT], effects=(E.RESTART_COUNT,),
           reason="the gateway answers a new client; whether the chat server has it attached, a push says"),
    *_rows(S.CONNECTED, T.CONNECT_PROCESSED, None, G.MISSING, G.NOT_ASKED, effects=(E.SEND_MISSED,),
           reason="right behind the first connect, as pushes that wait at the gateway come with that"),
    *_rows((S.CONNECTED, S.RESYNCHRONISING), T.CONNECT_PROCESSED, None, effects=(E.NEXT_IN_TURN,)),
    *_rows(S.CONNECTED, T.CONNECT_FAILED, S.LOST, publishes=[R.FAILED],
           effects=(E.SHORTEN_HOLD, E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows((S.LOST, S.RESYNCHRONISING), T.CONNECT_FAILED, None, publishes=[R.FAILED],
           effects=(E.SHORTEN_HOLD, E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows(KNOWN, T.CONNECT_CUT, None, effects=(E.SHORTEN_HOLD, E.NOTE_MISSED, E.PAUSE),
           reason="a proxy's time-out is no failure: a shorter hold is asked for"),
    *_rows(KNOWN, T.CONNECT_THROTTLED, None, effects=(E.PAUSE,)),

    # the gateway drops the client
    *_rows(KNOWN, T.CLIENT_UNKNOWN, S.RENEWING, G.DROPPED_BEFORE, publishes=[R.FAILED], effects=_DROP_FAILS,
           reason="a gateway that drops each client is not run down by handshakes"),
    *_rows(KNOWN, T.CLIENT_UNKNOWN, S.RENEWING, effects=_DROP,
           reason="a handshake at once, and nothing is published: the chat has not suffered"),
    *_rows(OPEN, T.HANDSHAKE_ADVISED, S.RENEWING, G.DROPPED_BEFORE, publishes=[R.FAILED], effects=_DROP_FAILS),
    *_rows(OPEN, T.HANDSHAKE_ADVISED, S.RENEWING, effects=_DROP,
           reason="beside the answer to a publish as well"),
    *_rows(KNOWN, T.DISCONNECTED, S.RENEWING, G.DROPPED_BEFORE, publishes=[R.DROPPED, R.FAILED], effects=_DROP_FAILS),
    *_rows(KNOWN, T.DISCONNECTED, S.RENEWING, publishes=[R.DROPPED], effects=_DROP,
           reason="the gateway has ended the connection by a message of its own"),
    *_rows(OPEN, T.HANDSHAKE_ANSWERED, S.RESYNCHRONISING,
           publishes=[_NO_PUSH], effects=(E.TAKE_CLIENT, E.SEND_MISSED),
           reason="the request for missed messages attaches the new client to the chat"),
    *_rows(S.REFUSED, T.HANDSHAKE_ANSWERED, None, publishes=[R.REJECT_WAITING]),
    *_rows(S.RENEWING, T.HANDSHAKE_FAILED, None, publishes=[R.FAILED, R.REJECT_WAITING],
           effects=(E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows((*KNOWN, S.REFUSED), T.HANDSHAKE_FAILED, None, publishes=[R.REJECT_WAITING],
           reason="another thread has a client that works"),

    # what the user publishes
    *_rows(KNOWN, T.PUBLISH_NOT_TAKEN, None, G.SENDABLE, G.NEW_CLIENT, publishes=[R.SEND_AGAIN]),
    *_rows(S.RENEWING, T.PUBLISH_NOT_TAKEN, None, G.FAILING, publishes=[R.PUSHES, R.SETTLE],
           reason="a handshake has failed just now, and is repeated at its own time"),
    *_rows(OPEN, T.PUBLISH_NOT_TAKEN, S.RENEWING, G.SENDABLE,
           effects=(E.FORGET_CLIENT, E.NOTE_MISSED, E.SEND_HANDSHAKE),
           reason="the message was not taken, so that it is sent again behind a handshake"),
    *_rows((*OPEN, S.REFUSED, S.UNCONNECTED), T.PUBLISH_NOT_TAKEN, None, publishes=[R.PUSHES, R.SETTLE]),
    *_rows((*OPEN, S.REFUSED, S.UNCONNECTED, *BEGINNING), T.PUBLISH_ANSWERED, None, publishes=[R.PUSHES, R.SETTLE]),
    *_rows((*OPEN, S.REFUSED, S.UNCONNECTED, *BEGINNING), T.PUBLISH_FAILED, None, publishes=[R.PUSHES, R.SETTLE],
           effects=(E.NOTE_MISSED,), reason="an answer that did not come or cannot be read may have had pushes in it"),

    # missed messages
    *_rows(OPEN, T.MISSED_ANSWERED, None, effects=(E.NOTE_ACCEPTED,)),
    *_rows(OPEN, T.MISSED_PROCESSED, None, effects=(E.NEXT_NOW,)),
    *_rows(OPEN, T.MISSED_FAILED, None, publishes=[R.MISSED_FAILED, R.REJECT_WAITING], effects=(E.PAUSE,)),
    *_rows(KNOWN, T.MISSED_NOT_TAKEN, None, G.NEW_CLIENT, publishes=[R.REJECT_WAITING],
           reason="the thread that has the new client asks for it"),
    *_rows(OPEN, T.MISSED_NOT_TAKEN, S.RENEWING, publishes=[R.FAILED, R.REJECT_WAITING],
           effects=(E.FORGET_CLIENT, E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows(S.REFUSED, (T.MISSED_FAILED, T.MISSED_NOT_TAKEN), None, publishes=[R.REJECT_WAITING]),

    # pushes
    *_rows(S.RESYNCHRONISING, T.PUSH_GOOD, S.LOST, G.FAILING, publishes=[R.POLL],
           effects=(E.NOTE_PUSH, E.NOTE_ANSWERED), reason="the chat server answers, but connects still fail"),
    *_rows(S.RESYNCHRONISING, T.PUSH_GOOD, S.CONNECTED, publishes=[R.POLL], effects=(E.NOTE_PUSH, E.NOTE_ANSWERED),
           reason="the chat server has the new client attached: this ends the outage"),
    *_rows((S.CONNECTED, S.RENEWING), T.PUSH_GOOD, None, G.CHAT_TROUBLED, publishes=[R.CONTENT],
           effects=(E.NOTE_PUSH, E.NOTE_ANSWERED),
           reason="a push beside the answer to a publish: the outage is ended by a connect"),
    *_rows(S.RENEWING, T.PUSH_GOOD, None, G.FAILING, publishes=[R.CONTENT], effects=(E.NOTE_PUSH, E.NOTE_ANSWERED)),
    *_rows((S.CONNECTED, S.RENEWING), T.PUSH_GOOD, None, publishes=[R.POLL], effects=(E.NOTE_PUSH, E.NOTE_ANSWERED)),
    *_rows((S.LOST, S.REFUSED), T.PUSH_GOOD, None, publishes=[R.CONTENT], effects=(E.NOTE_PUSH, E.NOTE_ANSWERED)),
    *_rows((*OPEN, S.REFUSED), T.PUSH_UNREADABLE, None, publishes=[R.POLL],
           effects=(E.NOTE_PUSH, E.NOTE_MISSED, E.REST)),
    *_rows((*OPEN, S.REFUSED), T.PUSH_UNAVAILABLE, None, G.WITH_MESSAGES, publishes=[R.POLL],
           effects=(E.NOTE_PUSH, E.NOTE_MISSED, E.REST),
           reason="what a push with a bad status brings is not trusted, and asked for again"),
    *_rows((*OPEN, S.REFUSED), T.PUSH_UNAVAILABLE, None, publishes=[R.POLL], effects=(E.NOTE_PUSH, E.REST)),
    *_rows((*OPEN, S.REFUSED), T.PUSH_REFUSED, None, G.WITH_MESSAGES, publishes=[R.POLL],
           effects=(E.NOTE_PUSH, E.NOTE_MISSED)),
    *_rows((*OPEN, S.REFUSED), T.PUSH_REFUSED, None, publishes=[R.POLL], effects=(E.NOTE_PUSH,)),

    # the gateway forbids every further request
    *_rows(BEGINNING, T.FORBIDDEN, S.UNCONNECTED, publishes=[R.ABANDONED]),
    *_rows(OPEN, T.FORBIDDEN, S.REFUSED, publishes=[R.SETTLE, R.FORBIDDEN], effects=(E.STOP,),
           reason="close and open again; no timer runs, and a command that needs a request is rejected"),
    *_rows(S.REFUSED, T.FORBIDDEN, None, publishes=[R.SETTLE]),
    *_rows(S.UNCONNECTED, T.FORBIDDEN, None, publishes=[R.SETTLE],
           reason="a push beside the answer has ended the chat, and the command still waits for its outcome"),

    # in this library
    *_rows(OPEN, T.INTERRUPTED, None, effects=(E.NOTE_MISSED, E.NEXT_IN_TURN),
           reason="Ctrl-C under a message that nothing repeats: its answer may have had pushes in it"),
    *_rows(S.CONNECTED, T.DEFECT, S.LOST, effects=(E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows((S.LOST, S.RESYNCHRONISING, S.RENEWING), T.DEFECT, None, effects=(E.NOTE_MISSED, E.COUNT, E.RETRY)),
    *_rows(OPEN, T.MISSED_DEFECT, None, effects=(E.NOTE_MISSED, E.ASK_LATER),
           reason="the connection works: only a good push ends the outage"),

    # the chat is over
    *_rows(S, T.CLOSE, S.UNCONNECTED, effects=(E.RESET,)),
)
"""The table. Of several rows for one state and trigger the first whose guards hold counts."""
# fmt: on
