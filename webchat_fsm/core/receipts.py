"""Which own message settles which send: by its index, by its text, and by order where a server has changed the text.

Servers mask digits and trim blanks. So a message of this client settles the open send with its text, an accepted one
first; where none has it, the oldest send that the server accepted. A send of which no answer came may never have
arrived, so that it is settled by its text only. A message settles one send at most.

Two services on one chat are one participant: a message of the other one with a text of its own settles our oldest
accepted send, as it could be that send with another text. The index in an answer of v3 rules that out.
"""

from __future__ import annotations

from webchat_fsm.core.facts import Arrival, Reply, Verdict
from webchat_fsm.core.session import Sending, Session, Standing, Stray
from webchat_fsm.core.turn import Turn
from webchat_fsm.lifecycle.effects import Delivered, Overtaken
from webchat_fsm.lifecycle.words import Message

OPEN_AT_MOST = 1000
"""How many sends wait for their message; beyond that the oldest is given up."""

STRAYS_AT_MOST = 1000
"""How many own messages are kept that may belong to a send without an answer yet."""

Place = tuple[int, ...] | None


def sent(turn: Turn, ticket: int, text: str) -> None:
    """Begin to wait for the message of a send; messages that are known by now cannot be it."""
    session = turn.session
    highest = session.transcript.highest
    seen = highest.rank if highest is not None and highest.rank is not None else ()
    session.sendings.append(Sending(ticket=ticket, text=text, seen=seen))
    if len(session.sendings) > OPEN_AT_MOST:
        _overtake(turn, session.sendings.pop(0))


def answered(turn: Turn, ticket: int, reply: Reply) -> None:
    """Note the answer to a send: accepted, refused, or no complete one, after which it may have arrived all the same.

    The message may have come before the answer: by its text it has settled the send then, else it is looked for here.
    """
    session = turn.session
    sending = next((one for one in session.sendings if one.ticket == ticket), None)
    if sending is not None and reply.good:
        sending.standing, sending.place, sending.accepted_at = Standing.ACCEPTED, reply.place, session.tickets
        _settle_with_stray(turn, sending)
    elif sending is not None and reply.error is not None and reply.verdict not in _SAID_NO:
        sending.standing = Standing.UNCONFIRMED
    elif sending is not None:
        session.sendings.remove(sending)
    _forget_strays(session)


_SAID_NO = frozenset({Verdict.REFUSED, Verdict.UNKNOWN_CLIENT})
"""Answers by which a server has not taken a send, whatever error they carry."""


def unanswered(turn: Turn, ticket: int) -> None:
    """Note that the answer to a send will not be seen, as its caller was interrupted."""
    for sending in turn.session.sendings:
        if sending.ticket == ticket and sending.standing is Standing.ASKED:
            sending.standing = Standing.UNCONFIRMED
    _forget_strays(turn.session)


def came(turn: Turn, arrival: Arrival) -> None:
    """Settle the send that a new message stands for, if there is one."""
    session, message = turn.session, arrival.message
    if not _is_own(session, message):
        return
    behind = [one for one in session.sendings if _is_behind(arrival.rank, one)]
    sending = _settled_by(behind, message, arrival.rank)
    if sending is not None:
        _settle(turn, sending, message, arrival.rank)
    elif not message.extra.get("content") and any(one.standing is Standing.ASKED for one in behind):
        session.strays = [*session.strays, Stray(message=message, rank=arrival.rank)][-STRAYS_AT_MOST:]


def _is_own(session: Session, message: Message) -> bool:
    """Return whether this client said it; v3 names the participant, v2 has one client in a chat."""
    if message.type != "Message" or message.sender.type != "Client":
        return False
    own, sender = session.session_data.participant_id, message.sender.participant_id
    return not (own and sender) or own == sender


def _is_behind(place: Place, sending: Sending) -> bool:
    return place is None or place > sending.seen


def _settled_by(behind: list[Sending], message: Message, place: Place) -> Sending | None:
    for sending in behind:
        if place is not None and sending.place == place:
            return sending
    free = [one for one in behind if not _is_elsewhere(one, place)]
    alike = [one for one in free if one.text == message.text]
    if alike:
        return min(alike, key=lambda one: _PRECEDENCE[one.standing])
    if message.extra.get("content"):  # a file that was sent, whose message has no text of a send
        return None
    return next((one for one in free if one.standing is Standing.ACCEPTED), None)


def _is_elsewhere(sending: Sending, place: Place) -> bool:
    """Return whether the server has named another place, in the form in which the message has one."""
    return sending.place is not None and place is not None and len(sending.place) == len(place)


_PRECEDENCE = {Standing.ACCEPTED: 0, Standing.ASKED: 1, Standing.UNCONFIRMED: 2}


def _settle(turn: Turn, sending: Sending, message: Message, place: Place) -> None:
    """Report a send as delivered; one that was accepted before it was made, and has not come, is overtaken.

    Of two sends that were out at once the server may have taken either first, so that neither overtakes the other.
    """
    sendings = turn.session.sendings
    for earlier in sendings[: sendings.index(sending)]:
        later = earlier.place is not None and place is not None and earlier.place > place
        at_once = earlier.accepted_at >= sending.ticket
        if earlier.standing is Standing.ACCEPTED and not (later or at_once):
            _overtake(turn, earlier)
    sendings.remove(sending)
    turn.decision.effects.append(Delivered(ticket=sending.ticket, index=message.index))


def _overtake(turn: Turn, sending: Sending) -> None:
    sending.standing = Standing.UNCONFIRMED
    turn.decision.effects.append(Overtaken(ticket=sending.ticket))


def _settle_with_stray(turn: Turn, sending: Sending) -> None:
    """Look for the message of a send among those that came before its answer."""
    session = turn.session
    for stray in session.strays:
        if _is_behind(stray.rank, sending) and _settled_by([sending], stray.message, stray.rank):
            session.strays = [one for one in session.strays if one is not stray]
            _settle(turn, sending, stray.message, stray.rank)
            return


def _forget_strays(session: Session) -> None:
    if not any(one.standing is Standing.ASKED for one in session.sendings):
        session.strays = []
