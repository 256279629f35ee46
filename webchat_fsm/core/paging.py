"""The pages of a restore: how far back it goes, and whether messages are missing behind what it brought.

Over v3 a restore asks for the newest messages, and then page by page for older ones, until it meets the last index that
an earlier opening delivered. Every page is fetched before anything is published.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm.core.facts import Arrival, Reply, rank

PAGES_AT_MOST = 10
"""How many pages one restore fetches."""

WHOLE_TRANSCRIPT = 10_000
"""How many messages a page of plain v3 has at most, where a restore brings the chat from its beginning."""

NOTHING_YET = "0"
"""The last index delivered of a chat that has not delivered any message."""


class Pages(Struct):
    """The pages of one restore over v3.

    `reach` is the last index that an earlier opening delivered, None where that is unknown; `whole` asks for the chat
    from its beginning. `arrivals` holds what came, oldest first; `closed` is true once no message is missing.
    """

    reach: str | None
    whole: bool
    first: Reply
    arrivals: tuple[Arrival, ...] = ()
    fetched: int = 0
    closed: bool = False

    def take(self, reply: Reply) -> object:
        """Add a page and return the index with which the next one is to end, None to ask for no more.

        A failed page ends the paging, and so does one that brings nothing older: a server may ignore the index.
        """
        before, self.fetched = self._oldest, self.fetched + 1
        if not reply.good:
            return None
        self.arrivals = (*_older(reply.arrivals, before), *self.arrivals)
        self.closed = self._closes(reply.arrivals, before)
        oldest = self._oldest
        nothing_older = oldest is None or (before is not None and oldest.rank == before.rank)
        if self.closed or nothing_older or self.fetched >= PAGES_AT_MOST or not (self.whole or self.reach):
            return None
        return None if oldest is None else oldest.original["index"]

    @property
    def missing(self) -> int | None:
        """The count of missing messages: 0, or None, as no page says how many there are behind it."""
        return 0 if self.closed else None

    @property
    def reply(self) -> Reply:
        """The first answer with the messages of all pages."""
        return replace(self.first, arrivals=self.arrivals)

    @property
    def _oldest(self) -> Arrival | None:
        return min((one for one in self.arrivals if one.rank is not None), key=lambda one: one.rank or (), default=None)

    def _closes(self, arrivals: tuple[Arrival, ...], before: Arrival | None) -> bool:
        if before is not None and is_beginning(arrivals, before.rank):
            return True
        nothing_known = self.reach in (None, NOTHING_YET)
        if self.whole:
            return len(arrivals) < WHOLE_TRANSCRIPT and (nothing_known or meets(self.arrivals, self.reach))
        return meets(arrivals, self.reach) or (self.reach == NOTHING_YET and not (arrivals or before))


def _older(arrivals: tuple[Arrival, ...], before: Arrival | None) -> tuple[Arrival, ...]:
    """Drop what is known from the page before, and newer messages of a server that ignores the index."""
    if before is None or before.rank is None:
        return arrivals
    limit = before.rank
    return tuple(one for one in arrivals if one.rank is None or one.rank < limit)


def is_beginning(arrivals: Iterable[Arrival], before: tuple[int, ...] | None) -> bool:
    """Tell whether a page says that the chat begins there: it holds the message it was to end with, or none."""
    return all(one.rank is not None and one.rank == before for one in arrivals)


def meets(arrivals: Iterable[Arrival], reach: str | None) -> bool:
    """Tell whether messages go back to an index or beyond it; an index of another form is met by an equal one only."""
    wanted = rank(reach)
    if reach is None or wanted is None:
        return False
    plain = reach.replace("-", "")
    return any(
        one.rank <= wanted if len(one.rank) == len(wanted) else "".join(map(str, one.rank)) == plain
        for one in arrivals
        if one.rank is not None
    )


def missing_before(arrivals: Iterable[Arrival], reach: str | None) -> int | None:
    """Count the messages missing in an answer to "everything", by the positions of v2; None where they do not say.

    Positions count from 1. What is missing lies between the last one delivered before and the first one that came; gaps
    inside are none, as servers leave typing notices out. An answer that ends before what was delivered says nothing.
    """
    known = rank(reach)
    delivered = known[0] if known else 0
    positions = [one.rank[0] for one in arrivals if one.rank]
    if not positions:
        return None if delivered else 0
    return None if max(positions) < delivered else max(0, min(positions) - delivered - 1)
