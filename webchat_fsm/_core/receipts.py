"""Which own message settles which send: by its index, by its text, and by order where a server has changed the text.

Servers mask digits and trim blanks. So a message of this client settles the open send with its text, an accepted one
first; where none has it, the oldest send that the server accepted. A send of which no answer came may never have
arrived, so that it is settled by its text only. A message settles one send at most.

Two services on one chat are one participant: a message of the other one with a text of its own settles our oldest
accepted send, as it could be that send with another text. The index in an answer of v3 rules that out.
"""

from __future__ import annotations

from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.session import PendingMessage, SendStatus, Session, UnmatchedMessage
from webchat_fsm._core.steps import Delivered, Overtaken, ReceivedMessage, Reply, ResponseKind
from webchat_fsm._model import Message

OPEN_AT_MOST = 1000
"""How many sends wait for their message; beyond that the oldest is marked as unconfirmed."""

UNMATCHED_AT_MOST = 1000
"""How many own messages are kept that may belong to a send without an answer yet."""

Place = tuple[int, ...] | None
"""The numbers of an index, by which messages are ordered; None where an index is missing or cannot be read."""


def sent(context: DecisionContext, ticket: int, text: str) -> None:
    """Wait for the message of a send, `text` as it travels; messages that are known by now cannot be it."""
    session = context.session
    # an equal text that is known already was sent before it, perhaps by another client of this user
    highest = session.transcript.highest
    seen = highest.rank if highest is not None and highest.rank is not None else ()
    session.pending_sends.append(PendingMessage(ticket=ticket, text=text, seen=seen))
    if len(session.pending_sends) > OPEN_AT_MOST:  # a server that echoes nothing must not fill the memory
        _overtake(context, session.pending_sends.pop(0))


def answered(context: DecisionContext, ticket: int, reply: Reply) -> None:
    """Note the answer to a send: accepted, refused, or no complete one, after which it may have arrived all the same.

    The message may have come before the answer: by its text it has settled the send then, else it is looked for here.
    """
    session = context.session
    pending = next((one for one in session.pending_sends if one.ticket == ticket), None)
    if pending is not None and reply.good:
        # the newest ticket: what was sent until now may have reached the server before this one
        pending.status, pending.place, pending.accepted_at = SendStatus.ACCEPTED, reply.place, session.tickets
        _settle_with_unmatched(context, pending)
    # a fault of the network or of a proxy, behind which the message may have arrived all the same
    elif pending is not None and reply.error is not None and reply.kind not in _REJECTED:
        pending.status = SendStatus.UNCONFIRMED
    elif pending is not None:  # the server has refused it, so that no message will come back
        session.pending_sends.remove(pending)
    _forget_unmatched(session)


_REJECTED = frozenset({ResponseKind.REFUSED, ResponseKind.UNKNOWN_CLIENT})
"""Kinds of response to a send that was certainly rejected; any other failed one leaves the send unconfirmed."""


def unanswered(context: DecisionContext, ticket: int) -> None:
    """Note that the answer to a send will not be seen, as its caller was interrupted."""
    for pending in context.session.pending_sends:
        # an accepted one had its answer before the interruption
        if pending.ticket == ticket and pending.status is SendStatus.UNANSWERED:
            pending.status = SendStatus.UNCONFIRMED
    _forget_unmatched(context.session)


def match_message(context: DecisionContext, received: ReceivedMessage) -> None:
    """Settle the send that a new message stands for, if there is one."""
    session, message = context.session, received.message
    if not _is_own(session, message):
        return
    behind = [one for one in session.pending_sends if _is_behind(received.rank, one)]
    pending = _settled_by(behind, message, received.rank)
    if pending is not None:
        _settle(context, pending, message, received.rank)
    # its own answer may still name its place, or that it was accepted; a file is the message of no send
    elif not message.extra.get("content") and any(one.status is SendStatus.UNANSWERED for one in behind):
        unmatched = UnmatchedMessage(message=message, rank=received.rank)
        session.unmatched = (*session.unmatched, unmatched)[-UNMATCHED_AT_MOST:]


def _is_own(session: Session, message: Message) -> bool:
    """Return whether this client sent a message; v3 names the participant, v2 has one client in a chat."""
    if message.type != "Message" or message.sender.type != "Client":
        return False
    own, sender = session.session_data.participant_id, message.sender.participant_id
    # v3 names both; where either is missing there is one client in the chat
    return not (own and sender) or own == sender


def _is_behind(place: Place, pending: PendingMessage) -> bool:
    return place is None or place > pending.seen  # without a place nothing rules it out


def _settled_by(behind: list[PendingMessage], message: Message, place: Place) -> PendingMessage | None:
    # the place in an answer of v3 is certain, where text and order are guesses
    for pending in behind:
        if place is not None and pending.place == place:
            return pending
    free = [one for one in behind if not _is_elsewhere(one, place)]
    alike = [one for one in free if one.text == message.text]
    if alike:
        return min(alike, key=lambda one: _PRECEDENCE[one.status])
    if message.extra.get("content"):  # a file that was sent, whose message has no text of a send
        return None
    # no text fits: the server has changed it, which it can only do to a message that it took
    return next((one for one in free if one.status is SendStatus.ACCEPTED), None)


def _is_elsewhere(pending: PendingMessage, place: Place) -> bool:
    """Return whether the server has named another place, in the form in which the message has one."""
    return pending.place is not None and place is not None and len(pending.place) == len(place)


# of equal texts: what the server took for certain, what has no answer yet, what may never have arrived
_PRECEDENCE = {SendStatus.ACCEPTED: 0, SendStatus.UNANSWERED: 1, SendStatus.UNCONFIRMED: 2}


def _settle(context: DecisionContext, pending: PendingMessage, message: Message, place: Place) -> None:
    """Report a send as delivered; one that was accepted before it was made, and has not come, is overtaken.

    Of two sends that were out at once the server may have taken either first, so that neither overtakes the other.
    """
    pending_sends = context.session.pending_sends
    for earlier in pending_sends[: pending_sends.index(pending)]:
        # it stands behind the one that came, by the server's own word, and may still come
        later = earlier.place is not None and place is not None and earlier.place > place
        at_once = earlier.accepted_at >= pending.ticket
        if earlier.status is SendStatus.ACCEPTED and not (later or at_once):
            _overtake(context, earlier)
    pending_sends.remove(pending)
    context.decision.effects.append(Delivered(ticket=pending.ticket, index=message.index))


def _overtake(context: DecisionContext, pending: PendingMessage) -> None:
    """Report a send as overtaken; it stays pending, as its own text may come late."""
    pending.status = SendStatus.UNCONFIRMED
    context.decision.effects.append(Overtaken(ticket=pending.ticket))


def _settle_with_unmatched(context: DecisionContext, pending: PendingMessage) -> None:
    """Look for the message of a send among those that came before its answer."""
    session = context.session
    for one in session.unmatched:
        if _is_behind(one.rank, pending) and _settled_by([pending], one.message, one.rank):
            session.unmatched = tuple(other for other in session.unmatched if other is not one)
            _settle(context, pending, one.message, one.rank)
            return


def _forget_unmatched(session: Session) -> None:
    """Drop the unmatched messages once no send waits for its answer, as none of them can belong to a later send."""
    if not any(one.status is SendStatus.UNANSWERED for one in session.pending_sends):
        session.unmatched = ()
