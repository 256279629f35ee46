"""All pauses of a Bayeux connection, in seconds, as one policy."""

from __future__ import annotations

from msgspec import Struct

LONGEST_PAUSE = 60.0
"""Seconds between two connects or handshakes of an outage at most; a longer `interval` is ignored."""


CUT_BETWEEN = frozenset({408, 504, 524})
"""The statuses with which a proxy answers a connect that it does not hold any longer."""

SERVER_ERROR = 500
"""The first of the statuses of a server or a proxy in trouble, with which some cut a held connect too."""


class Backoff(Struct, frozen=True):
    """When a connection makes its next request, in seconds; each member is a rule of its own.

    What has failed is repeated after `step`, 2 x `step`, ... seconds, `most` at most, and never before the server's
    Retry-After or the interval of its advice has passed.
    """

    step: float = 1.0
    most: float = LONGEST_PAUSE
    after_empty: float = 0.5
    """The least pause after a connect that was answered at once with nothing: some gateways hold none."""
    after_bad_push: float = 1.0
    """The pause after an unreadable push, or one with statusCode 1: as after a failed connect."""
    settled: float = 0.5
    """The least time between two drops of the client for a handshake to follow at once; sooner is a failure."""
    least_hold: float = 2.0
    """The shortest hold that is asked for where a proxy cuts connects; each cut halves the hold."""
    ask_again: float = 3.0
    """The time between two requests for missed messages."""
    asked_at_most: int = 31
    """Requests in a row that no push answers; then they end, or go on every `most` seconds for a new client."""
    handshakes: int = 5
    """Handshakes that a start or a restore makes at most."""
    first_push: float = 10.0
    """The time within which a start or a restore wants its first push, from the acknowledgement on."""
    resent_at_most: int = 3
    """How often a message is sent again that was not taken, as other threads may renew the client meanwhile."""

    def after(self, failures: int, retry_after: float = 0.0, interval: float = 0.0) -> float:
        """Return the seconds to wait after so many failures in a row; the other two are the server's own wishes."""
        # `most` bounds our own growth alone: what the server asks for may be longer, and is obeyed
        return max(min(failures * self.step, self.most), retry_after, interval)

    def after_connect(self, held: float, interval: float, *, pushed: bool) -> float:
        """Return the seconds to wait after a good connect that the server held for `held` seconds."""
        # a connect with pushes may come back at once: the next one waits no longer than the server advises
        return max(interval, self.after_empty if held < self.after_empty and not pushed else 0.0)

    def between_requests(self, asked: int) -> float:
        """Return the seconds from the latest request for missed messages to the next one, after `asked` of them."""
        # slower, never none: a chat server that comes back after an hour is to be noticed
        return self.ask_again if asked < self.asked_at_most else self.most

    def shorter_hold(self, held: float) -> float:
        """Return the seconds of hold to ask for after a connect that was cut after `held` seconds."""
        # by the time it was held in fact, which may be far below the one that was asked for
        return max(self.least_hold, held / 2)


BACKOFF = Backoff()
"""The policy of every connection."""
