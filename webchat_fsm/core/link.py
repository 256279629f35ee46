"""The Bayeux connection of a pushed chat: handshake, connects, pushes, and taking up the thread after a loss.

A connect that is out stands where a poll stands elsewhere: it carries what is new, and its failures are counted. What a
push says is taken as the answer to a poll (lifecycle decision 9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from webchat_fsm.core import on_reply, receipts
from webchat_fsm.core.facts import Reply, Timer, Verdict
from webchat_fsm.core.session import Link
from webchat_fsm.core.turn import Turn
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import CLOSED_MEANWHILE, COMMANDS
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.table import Flag, State, Trigger
from webchat_fsm.lifecycle.words import Json, Response, SessionData

HANDSHAKE_PAUSES = (0.0, 1.0, 2.0, 3.0)
"""Seconds between the five attempts of a start or a restore."""

PATIENCE = 10.0
"""Seconds for which a start or a restore waits for its first push, from the acknowledgement on."""

LEAST_PAUSE = 0.5
"""Seconds until the next connect where one was answered at once with nothing, so that no server is run down."""

LONGEST_PAUSE = 60.0
"""Seconds between two reconnects at most."""

SETTLED = 0.5
"""Seconds between two losses of the client for a handshake to follow at once; sooner it counts as a failure."""

ASK_AGAIN = 3.0
"""Seconds until missed messages are asked for again."""

RESENT_AT_MOST = 3
"""How often a message is sent again that was not taken, as other threads may renew the client meanwhile."""

ASKED_AT_MOST = 31
"""How often missed messages are asked for where no push says anything; a chat restored offline asks on."""

_GONE = frozenset({State.IDLE, State.ENDED})
_BEGINNING = frozenset({State.STARTING, State.RESTORING})


def begin(turn: Turn, command: str, operation: str, session_data: SessionData | None = None, **fields: Any) -> None:
    """Shake hands, then make the request that begins a chat or takes one up."""
    turn.session.link = Link(messages=turn.session.link.messages)
    turn.call("handshake", command, session_data, then=operation, given=fields, attempt=1)


def due(turn: Turn) -> None:
    """The time for the next message of the connection has come."""
    session, link = turn.session, turn.session.link
    if session.poll_out or not session.state.has_session:
        return
    if not link.client_id:
        _shake_again(turn)
    elif not link.lost and _to_ask(turn):
        _ask_for_messages(turn)
    else:
        _connect(turn)


def _out(turn: Turn, call: Call) -> None:
    turn.session.poll_out, turn.session.poll_since = call.ticket, turn.now.timer


def _connect(turn: Turn) -> None:
    link = turn.session.link
    hold: float | None = None
    if link.fresh:
        hold = 0.0
    elif link.wanted and link.asked_at is not None:
        hold = max(0.0, link.asked_at + ASK_AGAIN - turn.now.timer)
    link.fresh = False
    _out(turn, turn.call("connect", hold=hold, usual=link.timeout))


def _connect_soon(turn: Turn, delay: float = 0.0) -> None:
    if turn.session.state.has_session:
        turn.session.timers[Timer.CONNECT] = turn.now.timer + delay


def _shake_again(turn: Turn, waiting: Call | None = None) -> None:
    """Shake hands anew in a session; a message that was not taken waits to be sent again."""
    turn.session.link.client_id = ""
    turn.session.link.miss(turn.session.cursor)
    _out(turn, turn.call("handshake", *_whose(waiting), attempt=1, **_again(waiting)))


def _may_resend(turn: Turn, call: Call) -> bool:
    """Once, and again where the server did not know a client that another thread has renewed since."""
    sent = call.fields.get("again", 0)
    return not sent or (sent < RESENT_AT_MOST and call.fields["client_id"] != turn.session.link.client_id)


def _renewed(turn: Turn, call: Call) -> bool:
    """Whether another thread has made a new client since the message was sent."""
    known = turn.session.link.client_id
    return bool(known) and bool(known != call.fields["client_id"])


def _resend(turn: Turn, call: Call) -> None:
    """Send a message that was not taken for the client that another thread has made, or shake hands first."""
    if _renewed(turn, call):
        turn.call(call.operation, call.command, **_again(call)["given"])
    else:
        _shake_again(turn, call)


def _whose(waiting: Call | None) -> tuple[str, SessionData | None]:
    return (waiting.command, waiting.session_data) if waiting else ("", None)


def _again(waiting: Call | None) -> Json:
    """What a handshake carries along of the message that waits for it."""
    if waiting is None:
        return {"then": "", "given": {}}
    given = {key: value for key, value in waiting.fields.items() if key not in ("client_id", "id")}
    return {"then": waiting.operation, "given": {**given, "again": waiting.fields.get("again", 0) + 1}}


# -- missed messages ---------------------------------------------------------------------------------------------------


def _to_ask(turn: Turn) -> bool:
    link = turn.session.link
    return link.wanted and (link.asked_at is None or turn.now.timer >= link.asked_at + ASK_AGAIN)


def _ask_for_messages(turn: Turn, then: str = "", command: str = "", given: Json | None = None) -> None:
    """Ask for everything from where messages may be missed, what has come since then included."""
    session, link = turn.session, turn.session.link
    position = 1 if session.catching_up else link.missed
    link.asks += 1
    link.asked_at, link.taken = turn.now.timer, False
    link.wanted = session.catching_up or link.asks < ASKED_AT_MOST
    _out(turn, turn.call("notifications", command, position=position, then=then, given=given or {}))


def _heard_well(turn: Turn) -> None:
    """A good push has come: where missed messages were asked for, it is the answer."""
    link = turn.session.link
    if link.taken:
        link.wanted, link.asked_at, link.asks, link.taken = False, None, 0, False


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(turn: Turn, call: Call, reply: Reply) -> None:
    """Take in the answer to a message of the session that is open, and what was pushed with it."""
    session, client_id = turn.session, turn.session.link.client_id
    current = call.ticket == session.poll_out
    if current:
        session.poll_out = 0
    if call.operation == "connect" and not current and session.state.has_session:
        hear(turn, call, reply)  # another thread has made a connection of its own meanwhile
    elif call.operation in _LINK:
        _LINK[call.operation](turn, call, reply)
    elif reply.verdict is Verdict.UNKNOWN_CLIENT and _may_resend(turn, call):
        _resend(turn, call)
    else:
        _miss(turn, reply)
        hear(turn, call, reply)
        _settle(turn, call, reply)
    if session.state in _GONE and turn.decision.call is None and call.operation != "hangup":
        _hang_up(turn, client_id, reply)


def _miss(turn: Turn, reply: Reply) -> None:
    """An answer that did not come, or cannot be read, may have had pushes in it."""
    if reply.verdict in (Verdict.SILENT, Verdict.BAD):
        turn.session.link.miss(turn.session.cursor)


def late(turn: Turn, call: Call, reply: Reply) -> None:
    """An answer of an earlier session: it settles its command, and what waited for a handshake is not sent any more."""
    if reply.good and call.fields.get("then"):
        turn.reject(CLOSED_MEANWHILE, reply.response)
    elif reply.verdict is Verdict.SILENT and call.operation == "disconnect" and turn.session.opened:
        turn.resolve(reply.response)
    else:
        on_reply.settle_late(turn, call, reply)


def _hang_up(turn: Turn, client_id: str, reply: Reply) -> None:
    """Say farewell to the Bayeux server, where it can hear it."""
    if client_id and reply.verdict not in (Verdict.SILENT, Verdict.UNKNOWN_CLIENT):
        turn.call("hangup", client_id=client_id)


def _settle(turn: Turn, call: Call, reply: Reply) -> None:
    if call.number != turn.session.number:
        late(turn, call, reply)
    elif call.operation == "disconnect" and reply.verdict in (Verdict.SILENT, Verdict.UNKNOWN_CLIENT):
        _left(turn, reply)
    else:
        on_reply.operate(turn, call, reply)


def _left(turn: Turn, reply: Reply) -> None:
    """The user leaves over a connection that is gone: there is nobody left to say no."""
    on_reply.contact(turn, reply)
    turn.fire(Trigger.LEFT)
    turn.resolve(reply.response)


def hear(turn: Turn, call: Call, reply: Reply) -> None:
    """Take the pushes of an answer one by one, in their order."""
    for push in reply.pushes:
        state = turn.session.state
        if state is State.STARTING:
            _hear_start(turn, call, push)
        elif state is State.RESTORING:
            on_reply.restored(turn, call, push)
            _after_restore(turn)
        elif state.has_session:
            on_reply.POLLED[push.verdict](turn, push)
            if push.good:
                _heard_well(turn)
            elif push.verdict is Verdict.BAD or push.arrivals:
                turn.session.link.miss(turn.session.cursor)


def _hear_start(turn: Turn, call: Call, push: Reply) -> None:
    if push.good and not (push.session_data and push.session_data.secure_key):
        return
    on_reply.started(turn, call, push)
    if turn.session.state.has_session:
        on_reply.POLLED[Verdict.GOOD](turn, push)
        _connect_soon(turn)


def _after_restore(turn: Turn) -> None:
    session = turn.session
    if session.catching_up:
        session.link.miss(1)
        session.link.asked_at, session.link.taken = turn.now.timer, True
    _connect_soon(turn)


# -- handshake ---------------------------------------------------------------------------------------------------------


def _handshake(turn: Turn, call: Call, reply: Reply) -> None:
    session, link = turn.session, turn.session.link
    if reply.good:
        link.client_id, link.fresh = reply.link.client_id, True
        _take_advice(turn, reply)
        _shaken(turn, call)
    elif session.state.has_session:
        if not link.client_id:
            _failed(turn)
        _reject_waiting(turn, call, reply)
    elif (attempt := call.fields["attempt"]) <= len(HANDSHAKE_PAUSES) and not reply.link.hung_up:
        again = {key: value for key, value in call.fields.items() if key in ("then", "given")}
        pause = HANDSHAKE_PAUSES[attempt - 1]
        turn.call("handshake", call.command, call.session_data, pause=pause, attempt=attempt + 1, **again)
    else:
        error = reply.error or TransportError(f"handshake: {on_reply.fault(reply)}", response=reply.response)
        _give_up(turn, call, replace(reply, verdict=Verdict.SILENT, error=error))


def _shaken(turn: Turn, call: Call) -> None:
    then, given = call.fields["then"], call.fields["given"]
    if turn.session.state.has_session:
        _ask_for_messages(turn, then, call.command, given)
    else:
        turn.call(then, call.command, call.session_data, **given)


def _reject_waiting(turn: Turn, call: Call, reply: Reply) -> None:
    """The connection could not be renewed, so what waited for that is not sent."""
    if call.fields.get("then") == "disconnect":
        _left(turn, reply)
    elif call.fields.get("then"):
        receipts.answered(turn, call.fields["given"].get("receipt", 0), reply)
        on_reply.settle(turn, call, reply)


def _notifications(turn: Turn, call: Call, reply: Reply) -> None:
    session = turn.session
    if session.state in _BEGINNING:
        _acknowledged(turn, call, reply)
        return
    if not reply.good:
        _not_told(turn, call, reply)
        _reject_waiting(turn, call, reply)
        return
    if not session.link.lost:  # else the push or the next connect tells that everything is well again
        on_reply.contact(turn, reply)
    session.link.taken = True
    hear(turn, call, reply)
    _connect_soon(turn)
    if then := call.fields.get("then"):
        _send_again(turn, then, call)


def _not_told(turn: Turn, call: Call, reply: Reply) -> None:
    """The request for missed messages came to nothing: a failed poll, after which it is made again."""
    if reply.verdict is Verdict.UNKNOWN_CLIENT and _renewed(turn, call):
        return  # whoever made the new client asks for it
    if reply.verdict is Verdict.UNKNOWN_CLIENT:
        turn.session.link.client_id = ""
        _failed(turn)
    else:
        on_reply.POLLED[reply.verdict](turn, reply)
        _connect_soon(turn, turn.session.link.interval)


def _send_again(turn: Turn, then: str, call: Call) -> None:
    """Send what the server had not taken, unless the chat is over by now."""
    if turn.session.state.has_session:
        turn.call(then, call.command, **call.fields["given"])
    elif then == "disconnect":
        turn.resolve()
    elif call.command:
        turn.reject(COMMANDS[call.command].refusal)


# -- the first push of a start or a restore ----------------------------------------------------------------------------


def _acknowledged(turn: Turn, call: Call, reply: Reply) -> None:
    """The request that begins is answered: taken, refused, or sent in the name of a client that is forgotten."""
    if reply.verdict is Verdict.UNKNOWN_CLIENT and not call.fields.get("again"):
        turn.call("handshake", call.command, call.session_data, attempt=1, **_again(call))
    elif not reply.good:
        _give_up(turn, call, reply)
    else:
        hear(turn, call, reply)
        _await_push(turn, call, turn.now.timer + PATIENCE)


def _await_push(turn: Turn, call: Call, until: float, pause: float = 0.0) -> None:
    if turn.session.state not in _BEGINNING:
        return
    link, left = turn.session.link, until - turn.now.timer - pause
    if left <= 0:
        error = TransportError(f"{call.command or 'restore'}: the chat server said nothing in time")
        told = Response(errors=[{"code": 0, "text": str(error)}])
        _give_up(turn, call, Reply(verdict=Verdict.SILENT, response=told, error=error))
        return
    hold = 0.0 if link.fresh else left
    fields = {"until": until, "since": turn.now.timer + pause, "again": call.fields.get("again")}
    turn.call("connect", call.command, call.session_data, hold=hold, usual=hold, pause=pause, **fields)


def _awaited(turn: Turn, call: Call, reply: Reply) -> None:
    """A connect has come back while a start or a restore waits for its first push."""
    link = turn.session.link
    hear(turn, call, reply)
    if turn.session.state not in _BEGINNING:
        return
    if reply.good and not reply.link.hung_up:
        _take_advice(turn, reply)
        pause = link.interval if link.fresh else _breath(turn, call.fields["since"], reply)
        link.fresh, link.retries = False, 0
        _await_push(turn, call, call.fields["until"], pause)
    elif reply.link.hung_up or reply.verdict is Verdict.UNKNOWN_CLIENT:
        _forgotten(turn, call, reply)
    else:
        link.fresh, link.retries = True, link.retries + 1
        _await_push(turn, call, call.fields["until"], float(link.retries))


def _forgotten(turn: Turn, call: Call, reply: Reply) -> None:
    """A restore can ask once more; a start cannot, as its chat may have begun without a key that would lead to it."""
    if turn.session.state is State.RESTORING and not call.fields.get("again"):
        given = {"position": 1, "again": True}
        turn.call("handshake", call.command, call.session_data, attempt=1, then="notifications", given=given)
    else:
        _give_up(turn, call, replace(reply, verdict=Verdict.UNKNOWN_CLIENT))


def _give_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The chat could not be begun, or not be taken up; only an envelope of the chat server is a mere refusal."""
    if turn.session.state is State.STARTING:
        verdict = Verdict.BAD if reply.verdict is Verdict.REFUSED else reply.verdict
        on_reply.started(turn, call, replace(reply, verdict=verdict, session_data=None))
    else:
        on_reply.restored(turn, call, reply)


# -- connects of a session ---------------------------------------------------------------------------------------------


def _connected(turn: Turn, call: Call, reply: Reply) -> None:
    session, link = turn.session, turn.session.link
    if session.state in _BEGINNING:
        _awaited(turn, call, reply)
        return
    hear(turn, call, reply)
    if not session.state.has_session:
        return
    if reply.link.hung_up:
        turn.fire(Trigger.NO_ANSWER)
        _renew(turn)
    elif reply.verdict is Verdict.UNKNOWN_CLIENT:
        _renew(turn)
    elif reply.good:
        _take_advice(turn, reply)
        _answered(turn, call, reply)
    elif reply.verdict is Verdict.THROTTLED:
        on_reply.contact(turn, reply)
        wait = min(reply.retry_after or 0.0, session.settings.retry_after_cap)
        _connect_soon(turn, max(wait, link.interval, LEAST_PAUSE))
    else:
        _failed(turn)


def _renew(turn: Turn) -> None:
    """The server has let go of this client: shake hands at once, but not again and again."""
    link = turn.session.link
    link.client_id = ""
    before, link.renewed_at = link.renewed_at, turn.now.timer
    if before is not None and turn.now.timer - before < SETTLED:
        _failed(turn)
    else:
        _shake_again(turn)


def _answered(turn: Turn, call: Call, reply: Reply) -> None:
    """A connect is answered; after failed ones this is what `reconnected` tells of."""
    session, link = turn.session, turn.session.link
    session.last_contact = turn.now.wall
    mended = link.lost and session.failures <= link.retries
    link.lost, link.retries = False, 0
    if mended:
        turn.fire(Trigger.POLL_ANSWERED)
    else:
        if Flag.DISCONNECTED in session.flags:
            turn.fire(Trigger.ANSWERED)
        turn.keep()
    if link.wanted and link.asked_at is None:
        _ask_for_messages(turn)
    else:
        pause = link.interval if call.fields["hold"] == 0.0 else _breath(turn, session.poll_since, reply)
        _connect_soon(turn, pause)


def _breath(turn: Turn, since: float, reply: Reply) -> float:
    """The pause after a connect: what the server advises, and more after one that it did not hold."""
    at_once = not reply.pushes and turn.now.timer - since < LEAST_PAUSE
    return max(turn.session.link.interval, LEAST_PAUSE if at_once else 0.0)


def _failed(turn: Turn) -> None:
    """A connect or a handshake in a session came to nothing: it is tried again after 1, 2, 3, ... seconds."""
    link = turn.session.link
    turn.fire(Trigger.NO_ANSWER)
    turn.fire(Trigger.POLL_FAILED)
    link.miss(turn.session.cursor)
    link.lost = link.fresh = True
    link.retries += 1
    _connect_soon(turn, min(float(link.retries), LONGEST_PAUSE))


def _take_advice(turn: Turn, reply: Reply) -> None:
    link = turn.session.link
    link.timeout = link.timeout if reply.link.timeout is None else reply.link.timeout
    link.interval = link.interval if reply.link.interval is None else reply.link.interval


def _hung_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The farewell needs no answer."""


_LINK: dict[str, Callable[[Turn, Call, Reply], None]] = {
    "handshake": _handshake,
    "start": _acknowledged,
    "notifications": _notifications,
    "connect": _connected,
    "hangup": _hung_up,
}
