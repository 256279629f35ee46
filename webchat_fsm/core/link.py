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
from webchat_fsm.core.pace import ASK_AGAIN, DISCONNECT_TIMEOUT, LONGEST_PAUSE
from webchat_fsm.core.session import Link
from webchat_fsm.core.turn import OTHER_CHAT, Turn
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.commands import CLOSED_MEANWHILE, COMMANDS
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.table import Flag, State, Trigger
from webchat_fsm.lifecycle.words import Json, Response, SessionData

HANDSHAKES = 5
"""Handshakes that a start or a restore makes at most, after 1, 2, 3, 4 seconds, as failed connects are repeated."""

DEADLINE = 5
"""Times ajaxTimeout within which a start or a restore ends, the farewell to the gateway included."""

PATIENCE = 10.0
"""Seconds for which a start or a restore waits for its first push, from the acknowledgement on."""

LEAST_PAUSE = 0.5
"""Seconds until the next connect where one was answered at once with nothing, so that no server is run down."""

BAD_PUSH_PAUSE = 1.0
"""Seconds until the connect after one that brought an unreadable push or one with statusCode 1: as a failed connect."""

SERVER_ERROR = 500
"""The first of the statuses of a server or a proxy in trouble, with which some cut a held connect too."""

LEAST_HOLD = 2.0
"""Seconds for which a connect asks to be held at least, where something in between cuts it."""

CUT_BETWEEN = frozenset({408, 504, 524})
"""The statuses with which a proxy answers a connect that it does not hold any longer."""

SETTLED = 0.5
"""Seconds between two losses of the client for a handshake to follow at once; sooner it counts as a failure."""

RESENT_AT_MOST = 3
"""How often a message is sent again that was not taken, as other threads may renew the client meanwhile."""

ASKED_AT_MOST = 31
"""Requests for missed messages in a row that no push answers. Behind a handshake, or in a chat that was restored
offline, they go on every LONGEST_PAUSE seconds; else they end, as a connect has shown that the client is known."""

ODD_INTERVAL = f"the gateway advises an interval of more than {LONGEST_PAUSE:g} s, which counts as not said"
CALLED_OFF = "the gateway forbids to reconnect (advice reconnect none)"

_GONE = frozenset({State.IDLE, State.ENDED})
_BEGINNING = frozenset({State.STARTING, State.RESTORING})


def begin(turn: Turn, command: str, operation: str, session_data: SessionData | None = None, **fields: Any) -> None:
    """Shake hands, then make the request that begins a chat or takes one up."""
    turn.session.link = Link(messages=turn.session.link.messages)
    usual = turn.session.settings.poll_deadline
    until = turn.now.timer + DEADLINE * usual - min(DISCONNECT_TIMEOUT, usual)
    _begin_by(turn, "handshake", until, command, session_data, then=operation, given=fields, attempt=1)


def _begin_by(
    turn: Turn,
    operation: str,
    until: float,
    command: str,
    session_data: SessionData | None,
    pause: float = 0.0,
    **fields: Any,
) -> bool:
    """Make a request of a start or a restore that ends by its deadline; False where no time is left for it."""
    left = until - turn.now.timer - pause
    if left > 0:
        turn.call(operation, command, session_data, pause=pause, until=until, left=left, **fields)
    return left > 0


def due(turn: Turn) -> None:
    """The time for the next message of the connection has come."""
    session, link = turn.session, turn.session.link
    if session.poll_out or not session.state.has_session or link.stopped:
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
    hold = 0.0 if link.fresh else link.hold
    if link.wanted and not link.fresh:
        until_asked = max(0.0, link.ask_at - turn.now.timer)
        hold = min(link.timeout if hold is None else hold, until_asked)
    link.fresh = False
    _out(turn, turn.call("connect", hold=hold, usual=link.timeout))


def _connect_soon(turn: Turn, delay: float = 0.0) -> None:
    if turn.session.state.has_session and not turn.session.link.stopped:
        turn.session.timers[Timer.CONNECT] = max(turn.now.timer + delay, turn.session.link.rest_until)


def _shake_again(turn: Turn, waiting: Call | None = None) -> None:
    """Shake hands anew in a session; a message that was not taken waits to be sent again."""
    turn.session.link.client_id = ""
    turn.session.link.miss(turn.session.cursor)
    _out(turn, turn.call("handshake", *_whose(waiting), attempt=1, **_again(waiting)))


def _may_resend(turn: Turn, call: Call) -> bool:
    """Once, and again where the server did not know a client that another thread has renewed since."""
    sent, link = call.fields.get("again", 0), turn.session.link
    if link.lost and not link.client_id:
        return False  # a handshake has failed just now, and is repeated at its own time
    return not sent or (sent < RESENT_AT_MOST and call.fields["client_id"] != link.client_id)


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
    given = {key: value for key, value in waiting.fields.items() if key not in _OF_ONE_REQUEST}
    return {"then": waiting.operation, "given": {**given, "again": waiting.fields.get("again", 0) + 1}}


_OF_ONE_REQUEST = ("client_id", "id", "pause", "until", "left")


# -- missed messages ---------------------------------------------------------------------------------------------------


def _to_ask(turn: Turn) -> bool:
    link = turn.session.link
    return link.wanted and turn.now.timer >= link.ask_at


def _ask_for_messages(turn: Turn, then: str = "", command: str = "", given: Json | None = None) -> None:
    """Ask for everything from where messages may be missed, what has come since then included."""
    session, link = turn.session, turn.session.link
    position = 1 if session.catching_up else link.missed
    if link.renewing and link.unanswered:  # the chat server is mute behind a gateway that answers
        turn.fire(Trigger.POLL_FAILED)
    link.asks, link.taken, link.unanswered = link.asks + 1, False, False
    link.ask_at = turn.now.timer + (ASK_AGAIN if link.asks < ASKED_AT_MOST else LONGEST_PAUSE)
    link.wanted = session.catching_up or link.renewing or link.asks < ASKED_AT_MOST
    _out(turn, turn.call("notifications", command, position=position, then=then, given=given or {}))


def _heard_well(turn: Turn) -> None:
    """A good push has come: where missed messages were asked for, it is the answer."""
    link = turn.session.link
    link.renewing = False
    if link.taken:
        link.wanted, link.asks, link.taken = False, 0, False


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(turn: Turn, call: Call, reply: Reply) -> None:
    """Take in the answer to a message of the session that is open, and what was pushed with it."""
    session, client_id = turn.session, turn.session.link.client_id
    current = call.ticket == session.poll_out
    if current:
        session.poll_out = 0
        session.link.line = reply.link.line if call.operation == "connect" else ""
    if reply.link.forbidden and call.operation != "hangup" and call.fields.get("client_id", client_id) == client_id:
        _forbidden(turn, call, reply)
    elif call.operation == "connect" and not current and session.state.has_session:
        hear(turn, call, reply)  # another thread has made a connection of its own meanwhile
    elif call.operation in _LINK:
        _LINK[call.operation](turn, call, reply)
    elif reply.verdict is Verdict.UNKNOWN_CLIENT and _may_resend(turn, call):
        _resend(turn, call)
    else:
        _miss(turn, reply)
        hear(turn, call, reply)
        _settle(turn, call, reply)
        if _is_dismissed(turn, call, reply):
            _let_go(turn, reply)
    if session.state in _GONE and turn.decision.call is None and call.operation != "hangup":
        _hang_up(turn, client_id, reply)


def _is_dismissed(turn: Turn, call: Call, reply: Reply) -> bool:
    """Whether the answer to a publish asks for a new handshake, and none was made since."""
    asks = reply.link.hung_up or reply.link.reconnect == "handshake"
    return asks and call.fields.get("client_id") == turn.session.link.client_id


def _forbidden(turn: Turn, call: Call, reply: Reply) -> None:
    """The gateway forbids every further request: a start or a restore has failed, a session makes none any more."""
    hear(turn, call, reply)
    session = turn.session
    errors = [*reply.response.errors, {"code": 0, "text": CALLED_OFF}]
    response = Response(status=200, body=reply.response.body, errors=errors, url=reply.response.url)
    error = TransportError(f"{call.operation}: {CALLED_OFF}", response=response)
    refused = replace(reply, verdict=Verdict.REFUSED, response=response, error=error)
    if session.state in _BEGINNING:
        _give_up(turn, call, refused)
        return
    if call.operation not in _LINK:
        _settle(turn, call, reply)
    elif session.state.has_session:
        _reject_waiting(turn, call, refused)
    if session.state.has_session and not session.link.stopped:
        session.link.stopped = True
        session.timers.pop(Timer.CONNECT, None)
        turn.fire(Trigger.FORBIDDEN, on_reply.failure(refused))


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
    if client_id and reply.verdict not in (Verdict.SILENT, Verdict.UNKNOWN_CLIENT) and not reply.link.forbidden:
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


def hear(turn: Turn, call: Call, reply: Reply) -> bool:
    """Take the pushes of an answer one by one, in their order; whether a message not seen before was among them."""
    fresh = False
    for push in reply.pushes:
        state = turn.session.state
        if _of_another_chat(turn, call, push):
            turn.warn(OTHER_CHAT)
            continue
        fresh = fresh or bool(push.arrivals and turn.session.look(push.arrivals).fresh)
        if state is State.STARTING:
            _hear_start(turn, call, push)
        elif state is State.RESTORING:
            on_reply.restored(turn, call, push)
            _after_restore(turn)
        elif state.has_session:
            _hear(turn, push)
    return fresh


def _of_another_chat(turn: Turn, call: Call, push: Reply) -> bool:
    ours = (turn.session.session_data if turn.session.state.has_session else call.session_data).session_id
    theirs = push.session_data.session_id if push.session_data else ""
    return bool(ours and theirs and ours != theirs)


def _hear(turn: Turn, push: Reply) -> None:
    """Take a push of the session; of the connection it says something only where no connect of the client has to."""
    link = turn.session.link
    link.unanswered = False
    troubled = link.lost or Flag.DISCONNECTED in turn.session.flags
    if push.good and (link.stopped or (troubled and not link.renewing)):
        on_reply.take_content(turn, push)
    else:
        on_reply.POLLED[push.verdict](turn, push)
    if push.good:
        _heard_well(turn)
    elif push.verdict is Verdict.BAD or push.arrivals:
        link.miss(turn.session.cursor)
    if push.verdict in (Verdict.BAD, Verdict.UNAVAILABLE):
        link.rest_until = turn.now.timer + BAD_PUSH_PAUSE


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
        session.link.ask_at, session.link.taken = turn.now.timer + ASK_AGAIN, True
        session.link.rest_until = turn.now.timer + BAD_PUSH_PAUSE
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
            _failed(turn, reply)
        _reject_waiting(turn, call, reply)
    elif not _handshake_again(turn, call, reply):
        error = reply.error or TransportError(f"handshake: {on_reply.fault(reply)}", response=reply.response)
        _give_up(turn, call, replace(reply, verdict=Verdict.SILENT, error=error))


def _handshake_again(turn: Turn, call: Call, reply: Reply) -> bool:
    """Repeat the handshake of a start or a restore; False where it was the last attempt, or no time is left."""
    attempt, fields = call.fields["attempt"], {key: call.fields[key] for key in ("then", "given")}
    pause, until = _pause_after(turn, attempt, reply), call.fields["until"]
    return attempt < HANDSHAKES and _begin_by(
        turn, "handshake", until, call.command, call.session_data, pause, attempt=attempt + 1, **fields
    )


def _shaken(turn: Turn, call: Call) -> None:
    then, given = call.fields["then"], call.fields["given"]
    if turn.session.state.has_session:
        turn.session.link.renewing = True
        _ask_for_messages(turn, then, call.command, given)
    elif not _begin_by(turn, then, call.fields["until"], call.command, call.session_data, **given):
        _too_late(turn, call)


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
    session.link.taken = session.link.unanswered = True
    hear(turn, call, reply)
    _connect_soon(turn)
    if _is_dismissed(turn, call, reply):
        _let_go(turn, reply)
    if then := call.fields.get("then"):
        _send_again(turn, then, call)


def _not_told(turn: Turn, call: Call, reply: Reply) -> None:
    """The request for missed messages came to nothing: a failed poll, after which it is made again."""
    if reply.verdict is Verdict.UNKNOWN_CLIENT and _renewed(turn, call):
        return  # whoever made the new client asks for it
    if reply.verdict is Verdict.UNKNOWN_CLIENT:
        turn.session.link.client_id = ""
        _failed(turn, reply)
    else:
        verdict = Verdict.BAD if reply.verdict is Verdict.REFUSED else reply.verdict  # the user has asked for nothing
        on_reply.POLLED[verdict](turn, reply)
        _connect_soon(turn, _pause_after(turn, 1, reply))


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
        _begin_by(turn, "handshake", call.fields["until"], call.command, call.session_data, attempt=1, **_again(call))
        if turn.decision.call is None:
            _too_late(turn, call)
    elif not reply.good:
        _give_up(turn, call, reply)
    else:
        hear(turn, call, reply)
        _await_push(turn, call, min(call.fields["until"], turn.now.timer + PATIENCE))


def _await_push(turn: Turn, call: Call, until: float, pause: float = 0.0) -> None:
    if turn.session.state not in _BEGINNING:
        return
    hold = 0.0 if turn.session.link.fresh else max(0.0, until - turn.now.timer - pause)
    fields = {"since": turn.now.timer + pause, "again": call.fields.get("again"), "hold": hold, "usual": hold}
    if not _begin_by(turn, "connect", until, call.command, call.session_data, pause, **fields):
        _too_late(turn, call)


def _too_late(turn: Turn, call: Call) -> None:
    """The deadline of a start or a restore has passed."""
    error = TransportError(f"{call.command or 'restore'}: the chat server said nothing in time")
    told = Response(errors=[{"code": 0, "text": str(error)}])
    _give_up(turn, call, Reply(verdict=Verdict.SILENT, response=told, error=error))


def _awaited(turn: Turn, call: Call, reply: Reply) -> None:
    """A connect has come back while a start or a restore waits for its first push."""
    link = turn.session.link
    hear(turn, call, reply)
    if turn.session.state not in _BEGINNING:
        return
    if reply.good and not _must_renew(reply):
        _take_advice(turn, reply)
        pause = link.interval if link.fresh else _breath(turn, call.fields["since"], reply)
        link.fresh, link.retries = False, 0
        _await_push(turn, call, call.fields["until"], pause)
    elif _must_renew(reply):
        _forgotten(turn, call, reply)
    else:
        link.fresh, link.retries = True, link.retries + 1
        _await_push(turn, call, call.fields["until"], _pause_after(turn, link.retries, reply))


def _forgotten(turn: Turn, call: Call, reply: Reply) -> None:
    """A restore can ask once more; a start cannot, as its chat may have begun without a key that would lead to it."""
    if turn.session.state is State.RESTORING and not call.fields.get("again"):
        given, until = {"position": 1, "again": True}, call.fields["until"]
        _begin_by(
            turn, "handshake", until, call.command, call.session_data, attempt=1, then="notifications", given=given
        )
    else:
        _give_up(turn, call, replace(reply, verdict=Verdict.UNKNOWN_CLIENT))


def _give_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The chat could not be begun, or not be taken up; only an envelope of the chat server is a mere refusal."""
    if turn.session.state is State.STARTING and reply.verdict is Verdict.REFUSED:
        turn.fire(Trigger.START_NOT_TAKEN, on_reply.failure(reply))
        turn.reject(on_reply.fault(reply), reply.response, reply.error)
    elif turn.session.state is State.STARTING:
        on_reply.started(turn, call, replace(reply, session_data=None))
    else:
        on_reply.restored(turn, call, reply)


# -- connects of a session ---------------------------------------------------------------------------------------------


def _connected(turn: Turn, call: Call, reply: Reply) -> None:
    session, link = turn.session, turn.session.link
    if session.state in _BEGINNING:
        _awaited(turn, call, reply)
        return
    going_on = reply.good and not _must_renew(reply) and not link.stopped
    if going_on:
        _mend(turn)
    link.brisk = hear(turn, call, reply)
    if not session.state.has_session or link.stopped:
        return
    _take_advice(turn, reply)
    if going_on:
        _answered(turn, call, reply)
    elif _must_renew(reply):
        if reply.link.hung_up:
            turn.fire(Trigger.NO_ANSWER)
        _let_go(turn, reply)
    elif reply.verdict is Verdict.THROTTLED:
        _connect_soon(turn, max(link.interval, _pause_after(turn, 1, reply)))
    elif _cut_between(turn, call, reply):
        link.miss(session.cursor)
        _connect_soon(turn, _pause_after(turn, 1, reply))
    else:
        _failed(turn, reply)


def _must_renew(reply: Reply) -> bool:
    unknown = reply.verdict is Verdict.UNKNOWN_CLIENT
    return unknown or reply.link.hung_up or (reply.good and reply.link.reconnect == "handshake")


def _let_go(turn: Turn, reply: Reply) -> None:
    """The server has let go of this client: shake hands at once, but not again and again."""
    session, link = turn.session, turn.session.link
    if not session.state.has_session or link.stopped:
        return
    link.client_id, session.poll_out = "", 0  # a connect that another thread has out is only listened to
    before, link.renewed_at = link.renewed_at, turn.now.timer
    again, link.renewed = link.renewed, True
    if again or (before is not None and turn.now.timer - before < SETTLED):
        _failed(turn, reply)
    else:
        link.miss(session.cursor)
        _connect_soon(turn, _advised(turn, reply))


def _mend(turn: Turn) -> None:
    """A connect is answered; after failed ones of the same client this is what `reconnected` tells of."""
    session, link = turn.session, turn.session.link
    session.last_contact = turn.now.wall
    mended = link.lost and session.failures <= link.retries and not link.renewing
    link.lost, link.retries, link.renewed = False, 0, False
    if mended:
        turn.fire(Trigger.POLL_ANSWERED)
        return
    if Flag.DISCONNECTED in session.flags and not link.renewing:
        turn.fire(Trigger.CONNECTED)
    turn.keep()


def _answered(turn: Turn, call: Call, reply: Reply) -> None:
    link = turn.session.link
    if _to_ask(turn) and not link.asks:
        _ask_for_messages(turn)
    elif reply.link.line:
        _listen(turn, call, reply)
    else:
        held = call.fields["hold"] != 0.0
        _connect_soon(turn, _breath(turn, turn.session.poll_since, reply) if held else link.interval)


def _listen(turn: Turn, call: Call, reply: Reply) -> None:
    """Go on reading a websocket at once; what is paced is the message that the next connect sends, if it sends any."""
    session, link = turn.session, turn.session.link
    if reply.link.line == "answered":
        sent_at = session.poll_since + call.fields.get("listen", 0.0)
        pause = _breath(turn, sent_at, reply) if call.fields["hold"] != 0.0 else link.interval
        wait = session.allowance.take(turn.now.timer, brisk=link.brisk)
        link.send_at = max(turn.now.timer + max(pause, wait), link.rest_until)
    elif reply.link.line == "held":
        link.send_at = 0.0
    session.timers[Timer.CONNECT] = turn.now.timer


def _breath(turn: Turn, since: float, reply: Reply) -> float:
    """The pause after a connect: what the server advises, and more after one that it did not hold."""
    at_once = not reply.pushes and turn.now.timer - since < LEAST_PAUSE
    return max(turn.session.link.interval, LEAST_PAUSE if at_once else 0.0)


def _cut_between(turn: Turn, call: Call, reply: Reply) -> bool:
    """Ask for a shorter hold where a held connect came to nothing; True for a proxy's time-out, which is no failure.

    At the shortest hold, or where the connect was not held, it is one like any other.
    """
    session, link = turn.session, turn.session.link
    held, status = turn.now.timer - session.poll_since, reply.response.status
    cut = status in CUT_BETWEEN
    if call.fields["hold"] == 0.0 or held <= LEAST_HOLD or not (cut or status == 0 or status >= SERVER_ERROR):
        return False
    link.hold = max(LEAST_HOLD, held / 2)
    return cut


def _failed(turn: Turn, reply: Reply) -> None:
    """A connect or a handshake in a session came to nothing: it is tried again after 1, 2, 3, ... seconds."""
    link = turn.session.link
    turn.fire(Trigger.NO_ANSWER)
    turn.fire(Trigger.POLL_FAILED)
    link.miss(turn.session.cursor)
    link.lost = link.fresh = True
    link.retries += 1
    _connect_soon(turn, _pause_after(turn, link.retries, reply))


def _pause_after(turn: Turn, failures: int, reply: Reply) -> float:
    """Seconds until what has failed so often is tried again: 1, 2, 3, ... 60, and not before the server wants it."""
    wanted = min(reply.retry_after or 0.0, turn.session.settings.retry_after_cap)
    return max(min(float(failures), LONGEST_PAUSE), wanted, _advised(turn, reply))


def _advised(turn: Turn, reply: Reply) -> float:
    """The interval of an answer's own advice, in seconds; 0.0 where it says none that can be kept."""
    interval = reply.link.interval or 0.0
    if interval > LONGEST_PAUSE:
        turn.warn(ODD_INTERVAL)
        return 0.0
    return interval


def _take_advice(turn: Turn, reply: Reply) -> None:
    link, interval = turn.session.link, reply.link.interval
    link.timeout = link.timeout if reply.link.timeout is None else reply.link.timeout
    if interval is not None and interval > LONGEST_PAUSE:
        turn.warn(ODD_INTERVAL)
    elif interval is not None:
        link.interval = interval


def _hung_up(turn: Turn, call: Call, reply: Reply) -> None:
    """The farewell needs no answer."""


_LINK: dict[str, Callable[[Turn, Call, Reply], None]] = {
    "handshake": _handshake,
    "start": _acknowledged,
    "notifications": _notifications,
    "connect": _connected,
    "hangup": _hung_up,
}
