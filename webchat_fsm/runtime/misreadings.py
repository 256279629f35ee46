"""What of the answers could not be read: counted by kind for `health()`, each kind logged once."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from webchat_fsm.core.facts import Reply

log = logging.getLogger("webchat_fsm")


class Misreadings:
    """The kinds that one service has met. The wire layer bounds them: a kind names declared members and no value."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def note(self, reply: Reply) -> None:
        """Count what could not be read of an answer and of what was pushed with it."""
        for kind in (*reply.misread, *(kind for push in reply.pushes for kind in push.misread)):
            with self._lock:
                self._counts[kind] += 1
                known = self._counts[kind] > 1
            if not known:
                log.warning("a part of an answer was not understood and counts as not said (logged once): %s", kind)

    def counts(self) -> dict[str, int]:
        """Copy the numbers of answers by kind."""
        with self._lock:
            return dict(self._counts)
