"""A chat that is pushed: its Bayeux connection is begun, answered and continued.

Each answer, and each timer that is due, is an `Exchange`, which says what the reports of the connection mean to the
chat. Loaded by a session whose transport pushes.
"""

from __future__ import annotations

from msgspec.structs import replace

from webchat_fsm._bayeux.connection import Connection
from webchat_fsm._bayeux.frames import BayeuxDisconnect, Connect, Handshake, Notifications, Outcome, Send
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.exchange import NOT_CONNECTED, Exchange, settle_late
from webchat_fsm._core.operations import Operation, Start
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Call, LinkCall, Reply, ResponseKind
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


class PushedChat:
    """The decisions of one step for a chat that is pushed over `connection`."""

    __slots__ = ("connection", "context", "session")

    def __init__(self, context: DecisionContext, connection: Connection) -> None:
        self.context: DecisionContext = context
        self.session: Session = context.session
        self.connection: Connection = connection

    def start(self, operation: Start) -> None:
        """Begin a chat behind a handshake."""
        self._begin(operation)

    def restore(self, session_data: SessionData) -> None:
        """Restore the chat of the session data behind a handshake."""
        # from position 1: the transcript is built afresh, and what was delivered before is marked as restoring
        self._begin(Notifications(position=1), session_data)

    def _begin(self, operation: Operation, session_data: SessionData | None = None) -> None:
        now, usual = self.context.now.timer, self.session.config.ajax_timeout / 1000
        # the disconnect message that may follow a failure counts as part of the time that the command may take
        deadline = now + DEADLINE * usual - min(DISCONNECT_TIMEOUT, usual)
        restoring = session_data is not None
        # the only event is the handshake: anything left of an earlier connection is dropped by `begin`
        for event in self.connection.begin(self.session, now, deadline, restoring=restoring):
            if isinstance(event, Send):
                link = LinkCall(then=operation, left=event.left)
                self.context.call(Handshake(), self.context.command, session_data, link=link)

    def due(self) -> None:
        """Make the next request of the connection, as its time has come."""
        Exchange(self.context, self.connection).carry_out(self.connection.due(self.session, self.context.now.timer))

    def answer(self, call: Call, reply: Reply) -> None:
        """Handle the answer to a message of the session that is open, and what was pushed with it."""
        # the client id before the answer is taken, as the connection forgets it with the end of the chat
        session, client_id = self.session, self.connection.client_id
        current = call.ticket == session.poll_ticket
        if current:
            session.poll_ticket = 0
        exchange = Exchange(self.context, self.connection, call, reply, current=current)
        answered = replace(
            exchange.link,
            outcome=_OUTCOMES.get(reply.kind, Outcome.REFUSED),
            status=reply.response.status,
            # capped here, so that no server can stop the connection for a day
            retry_after=session.capped(reply.retry_after or 0.0),
            pushed=bool(reply.pushes),
        )
        exchange.carry_out(self.connection.receive(exchange.sent, answered, session, self.context.now.timer))
        # the chat is over by this answer: without a disconnect the gateway would hold the client until its own timeout
        over = session.state in _GONE and self.context.decision.call is None
        known = client_id and reply.kind not in NOT_CONNECTED and not exchange.link.forbidden
        if over and known and not isinstance(call.operation, BayeuxDisconnect):
            self.context.call(BayeuxDisconnect(client_id=client_id))

    def settle_late(self, call: Call, reply: Reply) -> None:
        """Settle a command by the answer of an earlier session."""
        settle_late(self.context, call, reply)

    def rate_limited(self, operation: Operation, pause: float) -> tuple[Operation, float]:
        """Return an operation that the rate limit allows, and the seconds before it, `pause` at least."""
        session, now = self.session, self.context.now.timer
        if not isinstance(operation, Connect):
            return operation, max(pause, session.allowance.take(now))
        # on a websocket pushes are read meanwhile; the allowance of this connect was taken when its timer was set
        if self.connection.line and session.state.has_session:
            return replace(operation, listen=max(0.0, self.connection.send_at - now)), pause
        return operation, max(pause, session.allowance.take(now, fast=self.connection.fast))
