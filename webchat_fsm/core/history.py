"""The pages of fetchHistory: older messages, and the end of a gap that a restore has left."""

from __future__ import annotations

from webchat_fsm.core import content
from webchat_fsm.core.facts import Arrival
from webchat_fsm.core.paging import may_begin, meets
from webchat_fsm.core.session import Session
from webchat_fsm.core.turn import Turn


def take(turn: Turn, arrivals: tuple[Arrival, ...]) -> None:
    """Deliver an older page; that a gap is closed by it is saved at once."""
    session = turn.session
    closes = _closes_gap(session, arrivals)
    session.history_done = not content.take(turn, arrivals, old=True)
    if closes:
        session.missing = 0
        turn.keep()


def _closes_gap(session: Session, arrivals: tuple[Arrival, ...]) -> bool:
    """Return whether a page reaches what was delivered before, or the beginning of the chat.

    A page without the message that it was to end with may not follow what is known, so that no later page closes the
    gap in this opening.
    """
    originals, oldest = [one.original for one in arrivals], session.transcript.oldest
    if oldest is None or oldest.original not in originals:
        session.history_torn = True
    alone = oldest is not None and all(one == oldest.original for one in originals)
    begins = alone and may_begin(arrivals, session.reach)
    return session.missing != 0 and not session.history_torn and (begins or meets(arrivals, session.reach))
