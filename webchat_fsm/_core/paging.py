"""The pages of a restore: how far back it goes, and whether messages are missing behind what it brought.

Over v3 a restore asks for the newest messages, and then page by page for older ones, until it meets the last index that
an earlier opening delivered. Every page is fetched before anything is published.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.steps import ReceivedMessage, Reply, rank

PAGES_AT_MOST = 10
"""How many pages one restore fetches."""

PAGING = 2
"""Times ajaxTimeout behind the first page within which another is asked for, so that a restore ends within 5 times."""

WHOLE_TRANSCRIPT = 10_000
"""How many messages a page of plain v3 has at most, where a restore brings the chat from its beginning."""

NOTHING_YET = "0"
"""The last index delivered of a chat that has not delivered any message."""


class Pages(Struct):
    """The pages of one restore over v3.

    `delivered_up_to` is the last index that an earlier opening delivered, None where that is unknown; `whole` asks for
    the chat from its beginning. `received` holds the messages of all pages, oldest first; `closed` is true once no
    message is missing. `anchors` are the two oldest messages of the last page: the next one is to end with the first of
    them. No page is asked for from `until` on, a moment on the line of the timers.
    """

    delivered_up_to: str | None
    whole: bool
    first: Reply
    until: float
    received: tuple[ReceivedMessage, ...] = ()
    anchors: list[ReceivedMessage] = []
    fetched: int = 0
    closed: bool = False

    def add(self, reply: Reply, now: float) -> object:
        """Add a page and return the index with which the next one is to end, None to ask for no more.

        A failed page ends the paging, and so does one that brings nothing older: a server may ignore the index.
        """
        self.fetched += 1  # failed pages too: the bound is one of requests
        if not reply.good:
            return None
        if self._is_doubtful(reply.received):
            # the next request ends with the other anchor; with one left the page is believed
            self.anchors = self.anchors[1:]
        else:
            self._add(reply.received)
        # without an index to reach, an asynchronous restore brings the newest page alone
        more = not self.closed and (self.whole or self.delivered_up_to is not None)
        more = more and self.fetched < PAGES_AT_MOST and now < self.until
        # the index as the wire has it, which the server is to find again
        return self.anchors[0].original["index"] if self.anchors and more else None

    @property
    def missing(self) -> int | None:
        """Return the count of missing messages: 0, or None, as no page says how many there are behind it."""
        return 0 if self.closed else None

    @property
    def reply(self) -> Reply:
        """Return the first answer with the messages of all pages."""
        return replace(self.first, received=self.received)

    def _is_doubtful(self, received: tuple[ReceivedMessage, ...]) -> bool:
        """Return whether a page lacks the message with which it was to end.

        That message may have come with an index other than the server's own, so that the page is none that
        follows; the next oldest message is tried. A server that leaves it out each time is believed then.
        """
        return len(self.anchors) > 1 and self.anchors[0].original not in [one.original for one in received]

    def _add(self, received: tuple[ReceivedMessage, ...]) -> None:
        limit = self.anchors[0].rank if self.anchors else None
        received = _oldest_first(received)
        # a message without an index cannot be compared: shown twice is a lesser evil than lost
        older = tuple(one for one in received if limit is None or one.rank is None or one.rank < limit)
        self.closed = self._closes(received, limit)
        self.received = (*older, *self.received)
        self.anchors = sorted((one for one in older if one.rank is not None), key=lambda one: one.rank or ())[:2]

    def _closes(self, received: tuple[ReceivedMessage, ...], limit: tuple[int, ...] | None) -> bool:
        """Return whether nothing is missing behind a page: it goes back far enough, or the chat begins there.

        An empty page says neither: its messages may be what could not be read.
        """
        if not received:
            return False
        # nothing older came: either this is the beginning of the chat, or the server has ignored the index
        if limit is not None and all(one.rank is not None and one.rank <= limit for one in received):
            known = [one.original for one in self.received]
            if all(one.original in known for one in received):
                return may_begin(self.received, self.delivered_up_to)
        nothing_known = self.delivered_up_to in (None, NOTHING_YET)
        if self.whole:
            # a short page is the last one, unless it does not reach what was delivered before: servers may send fewer
            reached = nothing_known or meets((*received, *self.received), self.delivered_up_to)
            return len(received) < WHOLE_TRANSCRIPT and reached
        return meets(received, self.delivered_up_to)


def meets(received: Iterable[ReceivedMessage], delivered_up_to: str | None) -> bool:
    """Return whether messages go back to an index or beyond it.

    A single message beyond it is not believed, as its index may be a slip of the server; of an index of another form
    only an equal one counts.
    """
    wanted = rank(delivered_up_to)
    if delivered_up_to is None or wanted is None:
        return False
    places = {one.rank for one in received if one.rank is not None}
    # hooks keep an index without its hyphen, so that the digits alone are compared
    plain = delivered_up_to.replace("-", "")
    same = any("".join(map(str, place)) == plain for place in places)
    return same or sum(len(place) == len(wanted) and place <= wanted for place in places) > 1


def resumed_at(saved: SavedSession) -> int | str:
    """Return the index behind which a poll goes on where a restore over v3 brings no message; 1 where none is known.

    It is the one of the last poll, if it has the form of the indexes; the one that hooks keep lacks its hyphen.
    """
    polled, delivered_up_to = rank(saved.cursor), rank(saved.last_index)
    known = polled and delivered_up_to and any(delivered_up_to) and len(polled) == len(delivered_up_to)
    return saved.cursor if known else 1


def may_begin(received: Iterable[ReceivedMessage], delivered_up_to: str | None) -> bool:
    """Return whether a chat can begin with messages: not where all of them are newer than one delivered before.

    A server that has dropped its older messages says so by this, and one that left typing notices out of a page.
    """
    wanted = rank(delivered_up_to)
    if wanted is None or not any(wanted):
        return True
    places = [one.rank for one in received if one.rank is not None and len(one.rank) == len(wanted)]
    return not places or min(places) <= wanted


def _oldest_first(received: tuple[ReceivedMessage, ...]) -> tuple[ReceivedMessage, ...]:
    """Turn a page round that falls from its first index to its last: pages are put together oldest first."""
    falls = len(received) > 1 and all(
        one.rank is not None and two.rank is not None and one.rank >= two.rank for one, two in pairwise(received)
    )
    return received[::-1] if falls else received


def missing_before(received: Iterable[ReceivedMessage], delivered_up_to: str | None) -> int | None:
    """Count the messages missing in an answer to "everything", by the positions of v2; None where they do not say.

    Positions count from 1. What is missing lies between the last one delivered before and the first one that came; gaps
    inside are none, as servers leave typing notices out. An answer that ends before what was delivered says nothing.
    """
    known = rank(delivered_up_to)
    delivered = known[0] if known else 0
    positions = [one.rank[0] for one in received if one.rank]
    if not positions:  # an empty transcript is whole for a chat that had none, and says nothing for any other
        return 0 if delivered_up_to == NOTHING_YET else None
    if known is None:  # a document that did not save it: only a transcript from the first position on is whole
        return 0 if min(positions) <= 1 else None
    return None if max(positions) < delivered else max(0, min(positions) - delivered - 1)
