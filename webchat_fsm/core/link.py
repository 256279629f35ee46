"""The Bayeux connection of a pushed chat: handshake, connects, pushes, and taking up the thread after a loss.

A connect that is out stands where a poll stands elsewhere: it carries what is new, and its failures are counted. What a
push says is taken as the answer to a poll (lifecycle decision 9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from webchat_fsm.core import on_reply
from webchat_fsm.core.facts import Reply, Timer, Verdict
from webchat_fsm.core.session import Link
from webchat_fsm.core.turn import Turn
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.table import Flag, State, Trigger
from webchat_fsm.lifecycle.words import Json, Response, SessionData

HANDSHAKE_PAUSES = (0.0, 1.0, 2.0, 3.0)
"""Seconds between the five attempts of a start or a restore."""

AWAITING = 1.0
"""Seconds for which a connect is held while a start or a restore waits for its first push."""

AWAITED = 10
"""How many such connects are made before the wait is given up."""

LONGEST_PAUSE = 60.0
"""Seconds between two reconnects at most."""

ASK_AGAIN = 3.0
"""Seconds until a chat restored offline asks for its transcript again."""

_GONE = frozenset({State.IDLE, State.ENDED})


def begin(turn: Turn, command: str, operation: str, session_data: SessionData | None = None, **fields: Any) -> None:
    """Shake hands, then make the request that begins a chat or takes one up."""
    turn.session.link = Link(messages=turn.session.link.messages)
    turn.call("handshake", command, session_data, then=operation, given=fields, attempt=1)


def due(turn: Turn) -> None:
    """The time for the next connect has come; without a client id, for a handshake."""
    session = turn.session
    if session.poll_out or not session.state.has_session:
        return
    if session.catching_up and session.link.client_id:
        _ask_for_messages(turn)
    elif session.link.client_id:
        _connect(turn)
    else:
        _shake_again(turn)


def _out(turn: Turn, call: Call) -> None:
    turn.session.poll_out, turn.session.poll_since = call.ticket, turn.now.timer


def _connect(turn: Turn) -> None:
    link = turn.session.link
    call = turn.call("connect", hold=0.0 if link.fresh else None, usual=link.timeout)
    link.fresh = False
    _out(turn, call)


def _shake_again(turn: Turn, then: str = "", command: str = "", given: Json | None = None) -> None:
    turn.session.link.client_id = ""
    call = turn.call("handshake", command, then=then, given=given or {}, attempt=1)
    _out(turn, call)


def _ask_for_messages(turn: Turn, then: str = "", command: str = "", given: Json | None = None) -> None:
    position = 1 if turn.session.catching_up else turn.session.cursor
    call = turn.call("notifications", command, position=position, then=then, given=given or {})
    _out(turn, call)


def _connect_soon(turn: Turn, delay: float = 0.0) -> None:
    if turn.session.state.has_session:
        turn.session.timers[Timer.CONNECT] = turn.now.timer + delay


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(turn: Turn, call: Call, reply: Reply) -> None:
    """Take in the answer to a Bayeux message, and what was pushed with it."""
    session = turn.session
    if call.ticket == session.poll_out:
        session.poll_out = 0
    if call.operation in _LINK:
        _LINK[call.operation](turn, call, reply)
    elif reply.verdict is Verdict.UNKNOWN_CLIENT and not call.fields.get("again"):
        _shake_again(turn, call.operation, call.command, {**call.fields, "again": True})
    else:
        hear(turn, call, reply)
        _settle(turn, call, reply)
    if session.state in _GONE and turn.decision.call is None:
        _hang_up(turn, call)


def _hang_up(turn: Turn, call: Call) -> None:
    """The chat is over: say so to the gateway, which lets the held connect go."""
    if call.operation != "hangup" and call.fields.get("client_id"):
        turn.call("hangup", client_id=call.fields["client_id"])


def _settle(turn: Turn, call: Call, reply: Reply) -> None:
    if call.number == turn.session.number:
        on_reply.operate(turn, call, reply)
    elif turn.decision.settled is None:
        on_reply.settle(turn, call, reply)


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


def _hear_start(turn: Turn, call: Call, push: Reply) -> None:
    if push.good and push.session_data is None:
        return
    on_reply.started(turn, call, push)
    if turn.session.state.has_session:
        on_reply.POLLED[Verdict.GOOD](turn, push)
        _connect_soon(turn)


def _after_restore(turn: Turn) -> None:
    if turn.session.state.has_session:
        _connect_soon(turn, ASK_AGAIN if turn.session.catching_up else 0.0)


def _handshake(turn: Turn, call: Call, reply: Reply) -> None:
    session, link = turn.session, turn.session.link
    if reply.good:
        link.client_id, link.fresh = reply.link.client_id, True
        _take_advice(turn, reply)
        _shaken(turn, call)
    elif session.state.has_session:
        _failed(turn, reply)
        _reject_waiting(turn, call, reply)
    elif (attempt := call.fields["attempt"]) <= len(HANDSHAKE_PAUSES):
        again = {key: value for key, value in call.fields.items() if key in ("then", "given")}
        pause = HANDSHAKE_PAUSES[attempt - 1]
        turn.call("handshake", call.command, call.session_data, pause=pause, attempt=attempt + 1, **again)
    else:
        _give_up(turn, call, reply)


def _shaken(turn: Turn, call: Call) -> None:
    then, given = call.fields["then"], call.fields["given"]
    if turn.session.state.has_session:
        _ask_for_messages(turn, then, call.command, given)
    else:
        turn.call(then, call.command, call.session_data, **given)


def _notifications(turn: Turn, call: Call, reply: Reply) -> None:
    session = turn.session
    if session.state is State.RESTORING:
        _await_first_push(turn, call, reply)
        return
    if not reply.good:
        _failed(turn, reply)
        _reject_waiting(turn, call, reply)
        return
    on_reply.contact(turn, reply)
    hear(turn, call, reply)
    if then := call.fields.get("then"):
        given = {key: value for key, value in call.fields["given"].items() if key not in ("client_id", "id")}
        turn.call(then, call.command, **given)
    if session.state.has_session:
        _connect_soon(turn, ASK_AGAIN if session.catching_up else 0.0)


def _await_first_push(turn: Turn, call: Call, reply: Reply) -> None:
    """Start and restore: the acknowledgement is in; the first push decides."""
    if not reply.good:
        _give_up(turn, call, reply)
        return
    hear(turn, call, reply)
    _still_waiting(turn, call, 0)


def _still_waiting(turn: Turn, call: Call, waited: int) -> None:
    if turn.session.state not in (State.STARTING, State.RESTORING):
        return
    if waited < AWAITED:
        hold = 0.0 if waited == 0 else AWAITING
        turn.call("connect", call.command, call.session_data, hold=hold, usual=AWAITING, waited=waited + 1)
    else:
        error = TransportError(f"{call.command or 'restore'}: the chat server said nothing in time")
        told = Response(errors=[{"code": 0, "text": str(error)}])
        _give_up(turn, call, Reply(verdict=Verdict.SILENT, response=told, error=error))


def _give_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The chat could not be begun, or not be taken up."""
    if turn.session.state is State.STARTING:
        on_reply.started(turn, call, replace(reply, session_data=None))
    else:
        on_reply.restored(turn, call, reply)


def _connected(turn: Turn, call: Call, reply: Reply) -> None:
    session, link = turn.session, turn.session.link
    if session.state in (State.STARTING, State.RESTORING):
        hear(turn, call, reply)
        _still_waiting(turn, call, call.fields["waited"])
        return
    hear(turn, call, reply)
    if not session.state.has_session:
        return
    if reply.link.hung_up:
        turn.fire(Trigger.NO_ANSWER)
        _shake_again(turn)
    elif reply.verdict is Verdict.UNKNOWN_CLIENT:
        _unknown(turn, call)
    elif reply.good:
        _take_advice(turn, reply)
        _answered(turn, link.lost)
    else:
        _failed(turn, reply)


def _unknown(turn: Turn, call: Call) -> None:
    """The server has forgotten this client; where another thread has shaken hands meanwhile, that will do."""
    if call.fields["client_id"] == turn.session.link.client_id:
        _shake_again(turn)
    else:
        _connect_soon(turn)


def _answered(turn: Turn, was_lost: bool) -> None:
    session = turn.session
    session.last_contact = turn.now.wall
    session.link.lost, session.link.retries = False, 0
    if Flag.DISCONNECTED in session.flags:
        turn.fire(Trigger.ANSWERED)
    turn.keep()
    if was_lost:
        _ask_for_messages(turn)
    else:
        _connect_soon(turn, session.link.interval)


def _failed(turn: Turn, reply: Reply) -> None:
    """A connect or a handshake in a session came to nothing: it is tried again after 1, 2, 3, ... seconds."""
    session, link = turn.session, turn.session.link
    if reply.verdict is Verdict.UNKNOWN_CLIENT:
        link.client_id = ""
    turn.fire(Trigger.NO_ANSWER)
    turn.fire(Trigger.POLL_FAILED)
    link.lost = link.fresh = True
    link.retries += 1
    if session.state.has_session:
        _connect_soon(turn, min(float(link.retries), LONGEST_PAUSE))


def _reject_waiting(turn: Turn, call: Call, reply: Reply) -> None:
    if call.fields.get("then"):
        on_reply.settle(turn, call, reply)


def _take_advice(turn: Turn, reply: Reply) -> None:
    link = turn.session.link
    link.timeout = link.timeout if reply.link.timeout is None else reply.link.timeout
    link.interval = link.interval if reply.link.interval is None else reply.link.interval


def _hung_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The farewell needs no answer."""


_LINK: dict[str, Callable[[Turn, Call, Reply], None]] = {
    "handshake": _handshake,
    "start": _await_first_push,
    "notifications": _notifications,
    "connect": _connected,
    "hangup": _hung_up,
}
