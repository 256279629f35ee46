"""The effect of a response to a poll, by its kind; a push over CometD is handled as one.

What is the same for every response stands here too: contact with the server, the reason of a failure, and the content:
each message's own events in index order, then one messageReceived.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from webchat_fsm._core import receipts
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.paging import may_begin, meets, missing_before
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Call, ReceivedMessage, Reply, ResponseKind
from webchat_fsm._core.timers import LEAST_AFTER_FAILURE
from webchat_fsm._core.transcript import LocatedAnswer, wire_index
from webchat_fsm._model import Message
from webchat_fsm.lifecycle._events import Failure, MessageReceived, Payload, RestoreFailed
from webchat_fsm.lifecycle._table import State, Trigger


def refresh(context: DecisionContext, call: Call, preview: str, reply: Reply) -> None:
    """Handle the response to a poll that carried a typing preview, and set the timer of the next poll."""
    session = context.session
    failed = reply.kind not in _NO_FAILURES
    # 0: the poll was abandoned and its successor has no request yet, so that this response may still schedule it
    if session.poll_ticket not in (0, call.ticket):
        _refresh_late(context, reply, failed=failed)
        return
    session.poll_ticket = 0
    # a v3 server keeps a cursor of its own, which it may have moved on with a response that was lost on the way
    session.position_uncertain = not reply.good
    if reply.kind is ResponseKind.PREVIEW_REFUSED:
        session.preview_limit = len(preview)  # a refusal names no limit, so that this length is all that is known
    POLLED[reply.kind](context, reply)
    # asked after the effect of the response, which may have ended the chat or stopped the polling
    if session.state in (State.POLLING, State.OFFLINE):
        _schedule(context, reply, failed=failed)
    if failed:
        context.reject(fault(reply), reply.response, reply.error)
    else:
        context.resolve()


def _refresh_late(context: DecisionContext, reply: Reply, *, failed: bool) -> None:
    """Take the content alone of a late response: its poll was abandoned as stalled, and the next is in flight."""
    if failed:  # it has been counted as a failure when it was abandoned
        context.reject(fault(reply), reply.response, reply.error)
    else:
        POLLED[reply.kind](context, reply)
        context.resolve()


_NO_FAILURES = frozenset({ResponseKind.GOOD, ResponseKind.THROTTLED, ResponseKind.PREVIEW_REFUSED})
"""Kinds of response to a poll that do not count against `pollExceptionLimit`."""


def _schedule(context: DecisionContext, reply: Reply, *, failed: bool) -> None:
    """Set the timer of the next poll: the delay of the configuration, less jitter, not before a Retry-After."""
    session = context.session
    offline = session.state is State.OFFLINE
    if reply.kind is ResponseKind.THROTTLED and session.poll_delay.on_failure:
        wait = session.delay  # neither a failure, which would lengthen the delay, nor a success, which would reset it
    else:
        wait, session.delay = session.poll_delay.next(session.delay, failed=failed, offline=offline)
    wait *= 1 - session.config.client.poll_jitter * context.now.draw
    # the two minimums come after the jitter, which must not shorten them
    if not reply.good:
        wait = max(wait, LEAST_AFTER_FAILURE)
    if reply.retry_after is not None:
        wait = max(wait, session.capped(reply.retry_after))
    context.poll_soon(wait)


# -- by kind -----------------------------------------------------------------------------------------------------------


def _poll_good(context: DecisionContext, reply: Reply) -> None:
    session = context.session
    # the ids come first, as `messageReceived` carries them
    context.adopt(reply.session_data)
    session.last_contact = context.now.wall
    if session.catching_up:  # restored offline: this is the first response with the transcript
        session.missing = missing_before(reply.received, session.delivered_up_to)
    context.fire(Trigger.POLL_ANSWERED, content=lambda: deliver(context, reply))
    session.catching_up = False  # not before the content, whose messages still are those of the restore
    end_if_over(context, reply)


def deliver_content(context: DecisionContext, reply: Reply) -> None:
    """Take the content of a good push that is no evidence about the connection."""
    context.adopt(reply.session_data)
    context.fire(Trigger.CONTENT_CAME, content=lambda: deliver(context, reply))
    end_if_over(context, reply)


def end_if_over(context: DecisionContext, reply: Reply) -> None:
    """End the chat where the reply says that it is over; its content has to be published by then."""
    if reply.over and context.session.state.has_session:
        context.fire(Trigger.CHAT_ENDED)


def _poll_unavailable(context: DecisionContext, reply: Reply) -> None:
    context.fire(Trigger.ANSWERED)
    context.fire(Trigger.POLL_FAILED)
    # a server in trouble may answer with part of the transcript: shown, but asked for again by the same cursor
    context.fire(Trigger.CONTENT_CAME, content=lambda: deliver(context, reply, trusted=False))


def _poll_refused(context: DecisionContext, reply: Reply) -> None:
    context.fire(Trigger.ANSWERED)
    context.fire(Trigger.MISANSWERED, failure(reply))  # `error` precedes the last messages and `ended`
    if reply.chat_ended:
        context.fire(Trigger.CONTENT_CAME, content=lambda: deliver(context, reply, trusted=False))
        context.fire(Trigger.CHAT_ENDED)
    elif context.session.transport.polls:  # a push of this kind refuses something that the user has asked for
        context.fire(Trigger.POLL_FAILED)


def _poll_bad(context: DecisionContext, reply: Reply) -> None:
    # any status is a complete response, which ends `disconnected` before the failure is counted
    context.fire(Trigger.ANSWERED)
    context.fire(Trigger.MISANSWERED, failure(reply))
    context.fire(Trigger.POLL_FAILED)


def _poll_silent(context: DecisionContext, reply: Reply) -> None:
    context.fire(Trigger.NO_ANSWER)
    context.fire(Trigger.POLL_FAILED)


def _poll_put_off(context: DecisionContext, reply: Reply) -> None:
    context.fire(Trigger.ANSWERED)


def lost(context: DecisionContext, reply: Reply) -> None:
    """End the session, which the server does not know any more, and delete what is saved of it."""
    context.fire(Trigger.SESSION_LOST, failure(reply), lost=reply.response)


POLLED: dict[ResponseKind, Callable[[DecisionContext, Reply], None]] = {
    ResponseKind.GOOD: _poll_good,
    ResponseKind.UNAVAILABLE: _poll_unavailable,
    ResponseKind.REFUSED: _poll_refused,
    ResponseKind.BAD: _poll_bad,
    ResponseKind.SILENT: _poll_silent,
    ResponseKind.THROTTLED: _poll_put_off,
    ResponseKind.PREVIEW_REFUSED: _poll_put_off,
    ResponseKind.LOST: lost,
    # the kind of a Bayeux reply, never of a push: it stands here so that every kind has its effect
    ResponseKind.UNKNOWN_CLIENT: _poll_bad,
}
"""The effect of a response to a poll by its kind; a push is handled as one."""


# -- what every response has -------------------------------------------------------------------------------------------


def contact(context: DecisionContext, reply: Reply) -> None:
    """Record whether a request had a complete response, for the events disconnected and reconnected."""
    # endChat of a dormant chat has a response and no session
    if context.session.state.has_session:
        silent = reply.kind is ResponseKind.SILENT
        context.fire(Trigger.NO_ANSWER if silent else Trigger.ANSWERED)


def fault(reply: Reply) -> str:
    """Return the reason of a failure: the network's error, or the server's own text."""
    if reply.error is not None:
        return str(reply.error)
    status = reply.response.status
    kind = "the server refuses" if reply.kind is ResponseKind.BAD and 400 <= status < 500 else reply.kind
    for error in reply.response.errors:  # the first one alone, as a reason is one line; the response has all
        return f"{kind}: {error.get('advice') or error.get('text') or error.get('code')}"
    # a status without an error of the application's own, as of a proxy, or of a wrong URL
    between = reply.kind is ResponseKind.BAD and status >= 300
    hint = ", without an error of the chat server's: check the URL and what is in between" if between else ""
    return f"{kind}: HTTP status {status}{hint}"


def failure(reply: Reply) -> dict[str, Payload]:
    """Return the payloads of the events that publish a bad answer."""
    # `restoreFailed` has an empty object where no response came; `error` has the fault in the shape of a response
    answered = None if reply.kind is ResponseKind.SILENT else reply.response
    return {"error": Failure(response=reply.response), "restoreFailed": RestoreFailed(response=answered)}


# -- the content -------------------------------------------------------------------------------------------------------


def deliver(context: DecisionContext, reply: Reply, *, trusted: bool = True, old: bool = False) -> bool:
    """Deliver what is new in a reply, and return whether anything was.

    The transcript comes before the cursor; an answer not `trusted` does not move the cursor. `old` marks history,
    newest first, which only messageReceived publishes.
    """
    session, received = context.session, reply.received
    answer = session.locate(received, next_position=reply.next_position, old=old)
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
            idle_time_count_down=reply.idle_time_count_down,
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


def deliver_page(context: DecisionContext, reply: Reply) -> None:
    """Deliver an older page; that a gap is closed by it is saved at once."""
    session = context.session
    closes = _closes_gap(session, reply.received)  # before the page is taken, which moves the oldest message known
    session.history_done = not deliver(context, reply, old=True)
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
