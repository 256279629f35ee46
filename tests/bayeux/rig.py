"""Make a connection in a given state and its chat, for tests without the rest of the core."""

from __future__ import annotations

from msgspec import Struct

from webchat_fsm._bayeux.connection import Connection
from webchat_fsm._bayeux.frames import Frame, Sent
from webchat_fsm._bayeux.table import BEGINNING, KNOWN, State

NOW = 1000.0


class Chat(Struct):
    """Has the fields of a chat that a connection reads."""

    poll_ticket: int = 0
    poll_since: float = NOW - 30
    cursor: int | str = 5
    catching_up: bool = False
    failures: int = 0
    disconnected: bool = False


def connection(state: State, kind: type[Connection] = Connection) -> Connection:
    """Return a connection in that state; a lost one has two failed connects."""
    link = kind(state=state, at_once=False)
    link.client_id = "client-1" if state in (*KNOWN, State.OPENING, State.REFUSED) else ""
    link.failures = 2 if state is State.LOST else 0
    if state in BEGINNING:
        link.deadline = NOW + 100
    return link


def sent_by(link: Connection, frame: Frame) -> Sent:
    """Return a frame that the connection has sent for its present client and that has no answer yet."""
    return Sent(frame=frame, client_id=link.client_id, current=True)
