"""The content of an answer: each message's own events in index order, then one messageReceived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from webchat_fsm.core import receipts
from webchat_fsm.core.facts import Arrival
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
    arrivals: Iterable[Arrival],
    *,
    trusted: bool = True,
    old: bool = False,
    idle_time_count_down: int | None = None,
) -> None:
    """Deliver what is new. The transcript comes before the cursor; an answer not `trusted` does not move the cursor.

    `old` marks history, which only messageReceived tells, newest first.
    """
    session = turn.session
    fresh = session.transcript.unseen(arrivals)
    shown: list[Arrival] = []
    for arrival in fresh:
        message = replace(arrival.message, restoring=session.catching_up)
        session.transcript.note(arrival)
        if not old:
            receipts.came(turn, arrival)
            _tell(turn, message)
        if not session.hides(message):
            seen = replace(arrival.shown or message, restoring=session.catching_up)
            session.transcript.add(arrival, seen)
            shown.append(arrival._replace(message=seen))
    if trusted and not old:
        _advance(turn, fresh)
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


def _advance(turn: Turn, fresh: list[Arrival]) -> None:
    """The next position is behind the highest index seen, whatever the server's nextPosition says."""
    session = turn.session
    known = [arrival for arrival in fresh if arrival.message.index is not None and arrival.rank is not None]
    if not known:
        return
    last = known[-1].message.index
    if isinstance(last, int) and isinstance(session.cursor, int):
        session.cursor = max(session.cursor, last + 1)
    elif known[-1] is session.transcript.highest:
        session.cursor = str(known[-1].original.get("index", last))


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
