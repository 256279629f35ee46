"""The states of a session, what each of them means, and the sets of them that code asks for.

The reference distinguishes only whether there is an active chat session; every other difference is explicit here.
"""

from __future__ import annotations

from enum import StrEnum

from webchat_fsm.lifecycle._transports import Transport


class State(StrEnum):
    """A state of a session; `meaning` describes each."""

    IDLE = "idle"
    STARTING = "starting"
    ACTIVE = "active"
    POLLING = "polling"
    OFFLINE = "offline"
    RESTORING = "restoring"
    DORMANT = "async-dormant"
    ENDED = "ended"

    @property
    def has_session(self) -> bool:
        """Return True where the reference speaks of an active chat session."""
        return self in HAS_SESSION


OPEN_STATES = (State.ACTIVE, State.POLLING, State.OFFLINE)
"""The states of a session that is open, in the order in which rows are made for them."""

HAS_SESSION = frozenset(OPEN_STATES)
"""The states in which the reference speaks of an active chat session."""

POLLING_ON = frozenset({State.POLLING, State.OFFLINE})
"""The states in which the service polls by itself, where the transport polls."""

CLOSED_STATES = (State.IDLE, State.ENDED, State.DORMANT)
"""The states from which a chat can be begun or restored."""

MEANING: dict[State, str] = {
    State.IDLE: "no session",
    State.STARTING: "a start request is in flight",
    State.ACTIVE: "session open, automatic polling off (over CometD: connected, delivery is pushed)",
    State.POLLING: "session open, automatic polling on",
    State.OFFLINE: "session open, more polls (over CometD: reconnects) in a row have failed than pollExceptionLimit",
    State.RESTORING: "a saved session is being resumed",
    State.DORMANT: "an asynchronous session lives on at the server and is not attached here",
    State.ENDED: "the session is over; transcript, agents and stats can still be read",
}
"""The meaning of each state on any transport."""

# where the wording for any transport names both ways, these two name the one of the transport
_POLLED = {
    State.ACTIVE: "session open, automatic polling off",
    State.OFFLINE: "session open, more polls in a row have failed than pollExceptionLimit",
}
_PUSHED = {
    State.ACTIVE: "session open, connected; delivery is pushed",
    State.OFFLINE: "session open, more reconnects in a row have failed than pollExceptionLimit",
}


def meaning(state: State, transport: Transport | None = None) -> str:
    """Return the meaning of a state on a transport; on any transport where none is given."""
    if transport is None:
        return MEANING[state]
    return (_POLLED if transport.polls else _PUSHED).get(state, MEANING[state])
