"""A chat that is pushed: its Bayeux connection is begun, answered and continued.

Each answer, and each timer that is due, is an `Exchange`, which says what the reports of the connection mean to the
chat.
"""

from __future__ import annotations

from msgspec.structs import replace

from webchat_fsm._bayeux.frames import Outcome, Send
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.effects import Call, LinkCall
from webchat_fsm._core.exchange import NOT_CONNECTED, Exchange
from webchat_fsm._core.inputs import Reply, ResponseKind
from webchat_fsm._core.operations import BayeuxDisconnect, Handshake, Operation, Start
from webchat_fsm._core.timers import DISCONNECT_TIMEOUT
from webchat_fsm._model import SessionData
from webchat_fsm.lifecycle._table import State

DEADLINE = 5
"""Times ajaxTimeout within which a start or a restore ends, the disconnect message to the gateway included."""

_GONE = frozenset({State.IDLE, State.ENDED})
"""States without a chat, after which the gateway is to drop the client."""

_OUTCOMES = {
    ResponseKind.GOOD: Outcome.GOOD,
    ResponseKind.UNKNOWN_CLIENT: Outcome.UNKNOWN_CLIENT,
    ResponseKind.THROTTLED: Outcome.THROTTLED,
    ResponseKind.SILENT: Outcome.FAILED,
    ResponseKind.BAD: Outcome.FAILED,
}
"""The outcome of a frame by the kind of its answer; every other kind is a refusal."""


def begin(context: DecisionContext, operation: Operation, session_data: SessionData | None = None) -> None:
    """Send a handshake, behind which `operation` begins a chat, or restores the one of the session data."""
    session, now = context.session, context.now.timer
    usual = session.config.ajax_timeout / 1000
    # the disconnect message that may follow a failure counts as part of the time that the command may take
    deadline = now + DEADLINE * usual - min(DISCONNECT_TIMEOUT, usual)
    # the only event is the handshake: anything left of an earlier connection is dropped by `begin`
    for event in session.connection.begin(session, now, deadline, restoring=not isinstance(operation, Start)):
        if isinstance(event, Send):
            link = LinkCall(then=operation, left=event.left)
            context.call(Handshake(), context.command, session_data, link=link)


def due(context: DecisionContext) -> None:
    """Make the next request of the connection, as its time has come."""
    session = context.session
    Exchange(context).carry_out(session.connection.due(session, context.now.timer))


def answer(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Handle the answer to a message of the session that is open, and what was pushed with it."""
    # the client id before the answer is taken, as the connection forgets it with the end of the chat
    session, client_id = context.session, context.session.connection.client_id
    exchange = Exchange(context, call, reply, current=call.ticket == session.poll_ticket)
    if exchange.current:
        session.poll_ticket = 0
    answered = replace(
        reply.link,
        outcome=_OUTCOMES.get(reply.kind, Outcome.REFUSED),
        status=reply.response.status,
        # capped here, so that no server can stop the connection for a day
        retry_after=session.capped(reply.retry_after or 0.0),
        pushed=bool(reply.pushes),
    )
    exchange.carry_out(session.connection.receive(exchange.sent, answered, session, context.now.timer))
    # the chat is over by this answer: without a disconnect the gateway would hold the client until its own timeout
    if session.state in _GONE and context.decision.call is None and not isinstance(call.operation, BayeuxDisconnect):
        _disconnect(context, client_id, reply)


def _disconnect(context: DecisionContext, client_id: str, reply: Reply) -> None:
    """Disconnect from a Bayeux server that can be reached and has the client."""
    if client_id and reply.kind not in NOT_CONNECTED and not reply.link.forbidden:
        context.call(BayeuxDisconnect(client_id=client_id))
