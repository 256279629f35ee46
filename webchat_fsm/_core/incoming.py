"""Publish the content of an answer: each message's own events in index order, then one messageReceived."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from webchat_fsm._core import receipts
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.inputs import ReceivedMessage
from webchat_fsm._core.paging import may_begin, meets
from webchat_fsm._core.session import Session
from webchat_fsm._core.transcript import LocatedAnswer, wire_index
from webchat_fsm._model import Message
from webchat_fsm.lifecycle._events import MessageReceived


def deliver(
    context: DecisionContext,
    received: Sequence[ReceivedMessage],
    *,
    trusted: bool = True,
    old: bool = False,
    next_position: int | None = None,
    idle_time_count_down: int | None = None,
) -> bool:
    """Deliver what is new, and return whether anything was.

    The transcript comes before the cursor; an answer not `trusted` does not move the cursor. `old` marks history,
    newest first, which only messageReceived publishes; `next_position` is the server's.
    """
    session = context.session
    answer = session.locate(received, next_position=next_position, old=old)
    if _is_plain(session, answer):
        messages = [one.shown or one.message for one in received]
        if session.catching_up:
            messages = [replace(message, restoring=True) for message in messages]
        originals = [one.original for one in received]
        session.transcript.extend(received, messages)
    else:
        messages, originals = _deliver_each(context, answer, old=old)
    # a page of history lies before the cursor; what is not trusted is requested again from it
    if trusted and not old:
        _advance(context, answer)
    if messages:  # an answer whose messages are all known, or all hidden, publishes nothing
        payload = MessageReceived(
            messages=tuple(messages),
            original_messages=tuple(originals),
            restoring=session.catching_up,
            session_data=session.session_data,
            old_messages=old,
            idle_time_count_down=idle_time_count_down,
        )
        context.publish("messageReceived", payload)
    return answer.brings_new


def _is_plain(session: Session, answer: LocatedAnswer) -> bool:
    """Return whether none of the messages of an answer has an effect beyond being shown, as in nearly every answer.

    They follow all others, settle no send, change no participant, and none is hidden.
    """
    messages = [one.message for one in answer.next_ones]
    plain = bool(messages) and not session.pending_sends and session.participants.is_unchanged_by(messages)
    return plain and not session.hides_any(messages)


def _as_published(session: Session, message: Message) -> Message:
    """Return a message with its mark of a restore; the message itself where it has that already."""
    restoring = session.catching_up
    return message if message.restoring is restoring else replace(message, restoring=restoring)


def _deliver_each(context: DecisionContext, answer: LocatedAnswer, *, old: bool) -> tuple[list[Message], list[object]]:
    """Note each new event of an answer, with its effects; return the messages to publish and their originals."""
    session = context.session
    # before the loop, in which new messages are inserted by place: these may move to another one
    session.transcript.confirm(answer.events)
    messages: list[Message] = []
    originals: list[object] = []
    for located in answer.fresh:
        event, message, shown = located.event, located.event.message, located.event.shown
        if not located.sure:  # an index that is not believed is published as missing
            event, message = replace(event, rank=None), replace(message, index=None)
            shown = shown and replace(shown, index=None)
        message = _as_published(session, message)
        session.transcript.note(located)
        if not old:  # history settles no send of this opening and changes no participant
            receipts.match_message(context, event)
            for name, changed in session.participants.read(message):
                context.publish(name, changed)
        # hidden messages have been noted and read for joins: only what is shown of them is left out
        if not session.hides_any([message]):
            seen = _as_published(session, shown or message)
            session.transcript.add(located, seen)
            messages.append(seen)
            originals.append(event.original)
    if old:  # a page of history is published newest first; the transcript has it in order
        messages.reverse()
        originals.reverse()
    return messages, originals


def _advance(context: DecisionContext, answer: LocatedAnswer) -> None:
    """Move the cursor behind an answer: a position never goes back, an index does where it was wrong.

    An index (v3) is used to ask for what was lost on the way, so one that is too low costs a repetition only, and one
    that is too high would lose messages.
    """
    session = context.session
    if answer.position is not None:
        session.cursor = max(int(session.cursor), answer.position)
    elif (last := session.transcript.advance(answer.last_believed)) is not None:
        session.cursor = str(wire_index(last))


def deliver_page(context: DecisionContext, received: tuple[ReceivedMessage, ...]) -> None:
    """Deliver an older page; that a gap is closed by it is saved at once."""
    session = context.session
    closes = _closes_gap(session, received)  # before the page is taken, which moves the oldest message known
    session.history_done = not deliver(context, received, old=True)
    if closes:
        session.missing = 0
        context.save()


def _closes_gap(session: Session, received: tuple[ReceivedMessage, ...]) -> bool:
    """Return whether a page reaches what was delivered before, or the beginning of the chat.

    A page without the message that it was to end with may not follow what is known, so that no later page closes the
    gap in this opening.
    """
    originals, oldest = [one.original for one in received], session.transcript.oldest
    # by the raw content, as the index of either may be a slip of the server
    if oldest is None or oldest.original not in originals:
        session.history_discontinuous = True
    alone = oldest is not None and all(one == oldest.original for one in originals)
    begins = alone and may_begin(received, session.delivered_up_to)
    return (
        session.missing != 0
        and not session.history_discontinuous
        and (begins or meets(received, session.delivered_up_to))
    )
