"""One answer over a Bayeux connection, or one timer of it: what the connection reports means to the chat.

A connect in flight has the part of a poll: its answer brings messages, and its failures are counted. A push is handled
as the answer to a poll, except for what it proves about the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from webchat_fsm._bayeux.connection import Connection
from webchat_fsm._bayeux.frames import (
    Answer,
    BayeuxDisconnect,
    Connect,
    Event,
    Frame,
    Handshake,
    NextAt,
    Notifications,
    Publish,
    Send,
    Sent,
    Warned,
)
from webchat_fsm._bayeux.table import BEGINNING, Report
from webchat_fsm._bayeux.table import Trigger as BayeuxTrigger
from webchat_fsm._core import on_poll, on_reply, receipts
from webchat_fsm._core.context import OTHER_CHAT, DecisionContext
from webchat_fsm._core.operations import Disconnect, NoRequest, Operation, Start
from webchat_fsm._core.operations import Send as SendMessage
from webchat_fsm._core.steps import Call, LinkCall, Reply, ResponseKind
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Response
from webchat_fsm.lifecycle._legality import CLOSED_MEANWHILE
from webchat_fsm.lifecycle._table import Flag, State, Trigger

FORBIDDEN = "the gateway forbids to reconnect (advice reconnect none)"

_NO_CALL, _NO_REPLY = Call(operation=NoRequest()), Reply(kind=ResponseKind.GOOD)
"""What stands for a call and its answer where a timer was due."""

NOT_CONNECTED = frozenset({ResponseKind.SILENT, ResponseKind.UNKNOWN_CLIENT})
"""Kinds of answer after which the gateway cannot be reached, or does not have the client."""

_FRAMES = (Handshake, Connect, Notifications, BayeuxDisconnect)
"""Operations that are frames of the connection itself; any other is a message of the chat."""

_PUSHES = {
    ResponseKind.GOOD: BayeuxTrigger.PUSH_GOOD,
    ResponseKind.BAD: BayeuxTrigger.PUSH_UNREADABLE,
    ResponseKind.UNAVAILABLE: BayeuxTrigger.PUSH_UNAVAILABLE,
}
"""What a push of a kind means to the connection; one of any other kind is a refusal."""


def settle_late(context: DecisionContext, call: Call, reply: Reply) -> None:
    """Settle a command by the answer of an earlier session; what waited for a handshake is not sent any more."""
    if reply.good and call.link.then:  # the handshake was answered well, the command itself was never sent
        context.reject(CLOSED_MEANWHILE, reply.response)
    elif reply.kind is ResponseKind.SILENT and isinstance(call.operation, Disconnect) and context.session.opened:
        context.resolve(reply.response)  # the chat has ended meanwhile, which is all that endChat was to do
    else:
        on_reply.settle_late(context, call, reply)


def _forbidden(call: Call, reply: Reply) -> Reply:
    """Return the reply of a gateway that forbids every further request, as a refusal with that reason."""
    errors = [*reply.response.errors, {"code": 0, "text": FORBIDDEN}]
    response = Response(status=200, body=reply.response.body, errors=errors, url=reply.response.url)
    error = TransportError(f"{call.operation.name}: {FORBIDDEN}", response=response)
    return replace(reply, kind=ResponseKind.REFUSED, response=response, error=error)


class Exchange:
    """A call, its answer and what the connection makes of them; without both for a timer that is due.

    `current` is true where the answer is the one that the session waits for, `opening` where a start or a restore does.
    """

    __slots__ = ("call", "connection", "context", "current", "link", "opening", "reply", "session")

    def __init__(
        self,
        context: DecisionContext,
        connection: Connection,
        call: Call = _NO_CALL,
        reply: Reply = _NO_REPLY,
        *,
        current: bool = False,
    ) -> None:
        self.context, self.session, self.call, self.reply, self.current = context, context.session, call, reply, current
        self.connection, self.link = connection, reply.link or Answer()  # none comes without an answer, or with a push
        # noted before the pushes, which may open the chat; a file is sent meanwhile by a command of its own
        self.opening = connection.state in BEGINNING and isinstance(call.operation, (*_FRAMES, Start))

    @property
    def sent(self) -> Sent:
        """Return the frame of the call, as the connection has it."""
        operation, link = self.call.operation, self.call.link
        frame = operation if isinstance(operation, _FRAMES) else Publish(opens=isinstance(operation, Start))
        return Sent(frame=frame, client_id=link.client_id, resent=link.again, current=self.current)

    def carry_out(self, events: Iterable[Event]) -> None:
        """Do what each event asks for, before the connection makes the next one."""
        # a generator runs on between two events, so that it sees what the chat has become by the one before
        for event in events:
            match event:
                case Send():
                    self._send(event)
                case NextAt():
                    self._wait(event)
                case Warned():
                    self.context.warn(event.text)
                case Report():
                    _REPORTED[event](self)

    def _send(self, send: Send) -> None:
        call, opening = self.call, self.connection.state in BEGINNING
        operation, link = self._operation(send.frame)
        # until the chat is open its ids are those of the saved session, which travel with the calls of the opening
        given = call.session_data if call.ticket and (opening or isinstance(operation, Handshake)) else None
        made = self.context.call(operation, call.command, given, pause=send.pause, link=replace(link, left=send.left))
        # a start or a restore is no poll: its deadline is the connection's, and nothing restarts it as stalled
        if not opening:
            self.session.poll_ticket, self.session.poll_since = made.ticket, self.context.now.timer

    def _operation(self, frame: Frame | None) -> tuple[Operation, LinkCall]:
        """Return the operation of a frame, with what waits for its answer; without one what has waited until now."""
        if frame is None:
            assert self.call.link.then is not None  # a start or a restore sends a handshake for its own request
            return self.call.link.then, LinkCall(again=self.call.link.again)
        assert not isinstance(frame, Publish)  # which the connection never makes
        return frame, self._waiting(frame)

    def _waiting(self, operation: Operation) -> LinkCall:
        """Return what waits for the answer to a handshake, or to the request for missed messages behind it."""
        call = self.call
        if isinstance(call.operation, Handshake):
            return LinkCall(then=call.link.then, again=call.link.again)
        if not isinstance(operation, Handshake) or call is _NO_CALL:
            return LinkCall()  # a connect, a request for missed messages, or a handshake that a timer makes
        if isinstance(call.operation, Connect):  # a restore asks again for the chat of which no push has come
            return LinkCall(then=Notifications(position=1), again=1)
        # the message itself was not taken, and is sent again behind the handshake
        return LinkCall(then=call.operation, again=call.link.again + 1)

    def _wait(self, next_at: NextAt) -> None:
        session, now = self.session, self.context.now.timer
        if next_at.at is None:
            session.timers.pop(Timer.CONNECT, None)
            return
        session.timers[Timer.CONNECT] = next_at.at
        if next_at.reserves:  # a websocket is read meanwhile, so that the allowance is taken before the timer is due
            connection = self.connection
            wait = session.allowance.take(now, fast=connection.fast)
            connection.send_at = max(connection.send_at, now + wait)

    # -- the state of the connection, for the lifecycle --------------------------------------------------------------

    def failed(self) -> None:
        """Count a failed connect or handshake as a failed poll."""
        self.context.fire(Trigger.NO_ANSWER)
        self.context.fire(Trigger.POLL_FAILED)

    def dropped(self) -> None:
        """Publish that the gateway has ended the connection."""
        self.context.fire(Trigger.NO_ANSWER)

    def no_push(self) -> None:
        """Count a request for missed messages that no push has answered as a failed poll."""
        self.context.fire(Trigger.POLL_FAILED)

    def recovered(self) -> None:
        """End an outage of the connection."""
        self.session.last_contact = self.context.now.wall
        self.context.fire(Trigger.POLL_ANSWERED)

    def alive(self) -> None:
        """Note an answered connect, which ends `disconnected` after another request without an answer."""
        if Flag.DISCONNECTED in self.session.flags:
            self.context.fire(Trigger.CONNECTED)
        self.contact()

    def contact(self) -> None:
        """Note that the gateway answers, from which the time away is counted."""
        # kept: a process that dies is restored within restoreTimeout of its last answered connect
        self.session.last_contact = self.context.now.wall
        self.context.keep(moved=False)

    def missed_failed(self) -> None:
        """Count a failed request for missed messages as a failed poll; a refusal too, as the user has asked nothing."""
        kind = ResponseKind.BAD if self.reply.kind is ResponseKind.REFUSED else self.reply.kind
        on_poll.POLLED[kind](self.context, self.reply)

    def forbidden(self) -> None:
        """Go offline for good."""
        if self.session.state.has_session:  # else the answer to the leave request has ended the chat
            self.context.fire(Trigger.FORBIDDEN, on_poll.failure(_forbidden(self.call, self.reply)))

    # -- commands ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Settle the command that waits for the answer."""
        context, call, reply = self.context, self.call, self.reply
        if self.opening:
            return  # a push beside the answer has opened the chat, or ended it, and so settled the command
        if isinstance(call.operation, _FRAMES):  # settles no command itself; one may wait behind it
            if self.session.state.has_session:
                self.reject_waiting()
        elif call.number != self.session.number:
            settle_late(context, call, reply)  # a push beside the answer has ended the chat
        elif isinstance(call.operation, Disconnect) and reply.kind in NOT_CONNECTED:
            self._leave()
        else:
            on_reply.operate(context, call, reply)

    def _leave(self) -> None:
        """Leave over a connection that is gone, which is all that the user has wanted."""
        on_poll.contact(self.context, self.reply)
        self.context.fire(Trigger.LEFT)
        self.context.resolve(self.reply.response)

    def reject_waiting(self) -> None:
        """Reject what waited for a handshake that failed, and was not sent."""
        then = self.call.link.then
        reply = _forbidden(self.call, self.reply) if self.link.forbidden else self.reply
        if isinstance(then, Disconnect):  # a client that is gone has left
            self._leave()
        elif then:
            receipts.answered(self.context, then.receipt if isinstance(then, SendMessage) else 0, reply)
            on_reply.settle(self.context, self.call, reply)

    def send_waiting(self) -> None:
        """Send what waited for a handshake, unless the chat is over by now."""
        then, command = self.call.link.then, self.call.command
        if then is None:
            return
        if self.session.state.has_session:
            self.context.call(then, command, link=LinkCall(again=self.call.link.again))
        elif isinstance(then, Disconnect):
            self.context.resolve()  # a push has ended the chat, which is what endChat was to do
        elif command:
            self.context.reject(command.rule.refusal)

    def send_again(self) -> None:
        """Send a message again, for the client that another thread has made."""
        link = LinkCall(again=self.call.link.again + 1)
        self.context.call(self.call.operation, self.call.command, link=link)

    # -- starts and restores -----------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """End a start or a restore that has failed; only an envelope of the chat server is a mere refusal."""
        call, reply = self.call, self.reply
        if self.link.forbidden:
            reply = _forbidden(call, reply)
        elif isinstance(call.operation, Handshake):
            # SILENT for any status: a gateway that refuses handshakes says nothing about the chat, which stays saved
            error = reply.error or TransportError(f"handshake: {on_poll.fault(reply)}", response=reply.response)
            reply = replace(reply, kind=ResponseKind.SILENT, error=error)
        elif isinstance(call.operation, Connect):
            # with any answer: the connection has judged that the gateway does not have the client any more
            reply = replace(reply, kind=ResponseKind.UNKNOWN_CLIENT)
        self._end_opening(reply)

    def too_late(self) -> None:
        """End a start or a restore whose deadline has passed."""
        name = self.call.command.name if self.call.command else "restore"
        error = TransportError(f"{name}: the chat server has not answered in time")
        response = Response(errors=[{"code": 0, "text": str(error)}])
        self._end_opening(Reply(kind=ResponseKind.SILENT, response=response, error=error))

    def _end_opening(self, reply: Reply) -> None:
        context = self.context
        # here a refusal is the gateway's, and publishes `error`; one of the chat server, a push, only rejects
        if self.session.state is State.STARTING and reply.kind is ResponseKind.REFUSED:
            context.fire(Trigger.START_NOT_TAKEN, on_poll.failure(reply))
            context.reject(on_poll.fault(reply), reply.response, reply.error)
        elif self.session.state is State.STARTING:
            # without ids, as no acknowledgement may confirm a start
            on_reply.started(context, self.call, replace(reply, session_data=None))
        else:
            on_reply.restored(context, self.call, reply)

    # -- pushes ------------------------------------------------------------------------------------------------------

    def take_pushes(self) -> None:
        """Handle the pushes of the answer one by one, in their order; those of another chat are dropped."""
        new = False
        for push in self.reply.pushes:
            if self._of_another_chat(push):
                self.context.warn(OTHER_CHAT)
                continue
            # before the push is taken, which makes its messages known ones
            new = new or bool(push.received and self.session.locate(push.received).fresh)
            self._take_push(push)
        if self.current and isinstance(self.call.operation, Connect):
            self.connection.fast = new  # repetitions earn no faster rate: a gateway could repeat without end

    def _of_another_chat(self, push: Reply) -> bool:
        session = self.session
        # a restore has no ids of its own before it is confirmed: those that it asks with count
        ours = (session.session_data if session.state.has_session else self.call.session_data).session_id
        theirs = push.session_data.session_id if push.session_data else ""
        return bool(ours and theirs and ours != theirs)  # a push that names no chat is taken as one of this

    def _take_push(self, push: Reply) -> None:
        session, now = self.session, self.context.now.timer
        if session.state is State.STARTING:
            self._start_by(push)
        elif session.state is State.RESTORING:
            on_reply.restored(self.context, self.call, push)
            self._opened()
        elif session.state.has_session:
            trigger = _PUSHES.get(push.kind, BayeuxTrigger.PUSH_REFUSED)
            with_messages = bool(push.received)
            # an exchange of its own, in which the push has the place of the answer
            events = self.connection.push(trigger, session, now, with_messages=with_messages)
            Exchange(self.context, self.connection, self.call, push).carry_out(events)

    def _start_by(self, push: Reply) -> None:
        """Handle a push as the answer to a start; a good one without a key identifies no chat, and is ignored."""
        if push.good and not (push.session_data and push.session_data.secure_key):
            return
        on_reply.started(self.context, self.call, push)
        # the messages of the same push come behind `started`, and `_opened` is false where the start was refused
        if self._opened():
            on_poll.POLLED[ResponseKind.GOOD](self.context, push)

    def _opened(self) -> bool:
        session = self.session
        if session.state.has_session:
            self.carry_out(self.connection.opened(session, self.context.now.timer))
        return session.state.has_session

    def poll(self) -> None:
        """Handle a push as the answer to a poll, which may end an outage or count as a failure."""
        on_poll.POLLED[self.reply.kind](self.context, self.reply)

    def content(self) -> None:
        """Deliver the content of a push that ends no outage."""
        on_poll.deliver_content(self.context, self.reply)


_REPORTED: dict[Report, Callable[[Exchange], None]] = {
    Report.FAILED: Exchange.failed,
    Report.DROPPED: Exchange.dropped,
    Report.RECOVERED: Exchange.recovered,
    Report.ALIVE: Exchange.alive,
    Report.CONTACT: Exchange.contact,
    Report.NO_PUSH: Exchange.no_push,
    Report.MISSED_FAILED: Exchange.missed_failed,
    Report.FORBIDDEN: Exchange.forbidden,
    Report.ABANDONED: Exchange.abandon,
    Report.TOO_LATE: Exchange.too_late,
    Report.SETTLE: Exchange.settle,
    Report.REJECT_WAITING: Exchange.reject_waiting,
    Report.SEND_WAITING: Exchange.send_waiting,
    Report.SEND_AGAIN: Exchange.send_again,
    Report.PUSHES: Exchange.take_pushes,
    Report.POLL: Exchange.poll,
    Report.CONTENT: Exchange.content,
}
"""What each report of the connection means to the chat."""
