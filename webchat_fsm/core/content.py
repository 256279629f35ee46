"""The content of an answer: each message's own events in index order, then one messageReceived."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from webchat_fsm.core import receipts
from webchat_fsm.core.facts import Arrival
from webchat_fsm.core.transcript import Answer, wire_index
from webchat_fsm.core.turn import Turn
from webchat_fsm.lifecycle.events import (
    ATTENDING,
    JOINED,
    LEFT,
    SPEAKING,
    TYPING,
    AgentTyping,
    MessageReceived,
    ParticipantChanged,
)
from webchat_fsm.lifecycle.words import Message


def take(
    turn: Turn,
    arrivals: Sequence[Arrival],
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
    session = turn.session
    answer = session.look(arrivals, next_position=next_position, old=old)
    session.transcript.confirm(answer.found)
    shown: list[Arrival] = []
    for found in answer.fresh:
        arrival = found.arrival if found.sure else found.arrival._replace(rank=None)
        index = arrival.message.index if found.sure else None  # one that is not believed counts as not said
        message = replace(arrival.message, index=index, restoring=session.catching_up)
        session.transcript.note(found)
        if not old:
            receipts.came(turn, arrival)
            _tell(turn, message)
        if not session.hides(message):
            seen = replace(arrival.shown or message, index=index, restoring=session.catching_up)
            session.transcript.add(found, seen)
            shown.append(arrival._replace(message=seen))
    if trusted and not old:
        _advance(turn, answer)
    if shown:
        if old:
            shown.reverse()
        received = MessageReceived(
            messages=tuple(arrival.message for arrival in shown),
            original_messages=tuple(arrival.original for arrival in shown),
            restoring=session.catching_up,
            session_data=session.session_data,
            old_messages=old,
            idle_time_count_down=idle_time_count_down,
        )
        turn.publish("messageReceived", received)
    return bool(answer.fresh)


def _advance(turn: Turn, answer: Answer) -> None:
    """Move the cursor behind an answer: a position never goes back, an index does where it was wrong.

    An index (v3) is used to ask for what was lost on the way, so one that is too low costs a repetition only, and one
    that is too high would lose messages.
    """
    session = turn.session
    if session.transport.gms:
        session.cursor = max(int(session.cursor), answer.position)
    elif (last := session.transcript.reach(answer.fresh)) is not None:
        session.cursor = str(wire_index(last))


def _tell(turn: Turn, message: Message) -> None:
    kind = message.sender.type
    if message.type in _CHANGES:
        change, names = _CHANGES[message.type]
        change(turn, message, names)
    elif message.type == "NicknameUpdated":
        turn.session.participants.renamed(message)
    elif kind in ATTENDING and message.type in TYPING:
        _typing(turn, message)
    elif kind in ATTENDING and message.type in SPEAKING:
        _stops(turn, message)


def _changed(turn: Turn, message: Message, names: Mapping[str, str]) -> None:
    people = turn.session.participants
    if name := names.get(message.sender.type):
        changed = ParticipantChanged(message=message, agents=people.agents, num_agents_connected=people.connected)
        turn.publish(name, changed)


def _joined(turn: Turn, message: Message, names: Mapping[str, str]) -> None:
    turn.session.participants.joined(message)
    _changed(turn, message, names)


def _left(turn: Turn, message: Message, names: Mapping[str, str]) -> None:
    people = turn.session.participants
    typed = people.someone_typing
    people.left(message)
    _changed(turn, message, names)
    _tell_stopped(turn, typed)


_CHANGES: dict[str, tuple[Callable[[Turn, Message, Mapping[str, str]], None], Mapping[str, str]]] = {
    "ParticipantJoined": (_joined, JOINED),
    "ParticipantLeft": (_left, LEFT),
}


def _typing(turn: Turn, message: Message) -> None:
    people = turn.session.participants
    if message.type == "TypingStarted":
        if not people.someone_typing:
            turn.publish(TYPING[message.type], AgentTyping(message=message))
        people.typing(message.sender.id)
    else:
        _stops(turn, message, AgentTyping(message=message))


def _stops(turn: Turn, message: Message, payload: AgentTyping | None = None) -> None:
    people = turn.session.participants
    typed = people.someone_typing
    people.silent(message.sender.id)
    _tell_stopped(turn, typed, payload)


def _tell_stopped(turn: Turn, typed: bool, payload: AgentTyping | None = None) -> None:
    if typed and not turn.session.participants.someone_typing:
        turn.publish("agentTypingStopped", payload or AgentTyping())
