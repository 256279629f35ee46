"""The condition of a service or a pool, the answer of `health()`, and the counts of defects and of misread answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from msgspec import Struct

from webchat_fsm._core.defects import origin
from webchat_fsm._core.steps import Reply
from webchat_fsm.lifecycle._states import State

log = logging.getLogger("webchat_fsm")


class Health(Struct, frozen=True, kw_only=True):
    """The condition of a service, for a watchdog.

    In seconds: `last_poll` since the last answered poll, `poll_in_flight` since an unanswered one went out, `next_poll`
    until the next. `failures` counts failed polls in a row, `threads` names the live threads of the driver,
    `store_failure` is the error of the last write, empty after a good one. `misread` counts the answers of which a part
    could not be read, by kind: place, expected and found type, never a value. `defects` counts the exceptions of this
    library itself while requests were made and answers read: please report them. `warnings` counts other oddities by
    their logged text: pushes of another chat, ids that changed, intervals that cannot be kept. `stalled` is the number
    of seconds without a poll where that exceeds its deadline and pause, None while all is well.
    """

    last_poll: float | None
    failures: int
    poll_in_flight: float | None
    next_poll: float | None
    threads: tuple[str, ...]
    store_failure: str
    misread: Mapping[str, int] = {}
    defects: int = 0
    warnings: Mapping[str, int] = {}
    stalled: float | None = None


class PoolHealth(Struct, frozen=True, kw_only=True):
    """The condition of a pool, for a watchdog.

    `sessions` in the pool, and how many are in each of `states`; `starting` starts under way. `failing` sessions have
    had no good answer to their last poll, `stalled` ones do not poll at all, `unsaved` ones could not write their
    store: `session.health()` says more. `connections` are in use, `idle_connections` kept, and `waiting` requests wait
    for one. `threads` names the live threads of the driver. `misread` and `defects` are those of `Health`, added up.
    """

    sessions: int
    states: Mapping[State, int]
    starting: int
    failing: int
    stalled: int
    unsaved: int
    connections: int
    idle_connections: int
    waiting: int
    threads: tuple[str, ...]
    misread: Mapping[str, int]
    defects: int


class Defects:
    """Counts what this library itself raises; the first at each place is logged with its traceback."""

    __slots__ = ("_known", "count", "unlogged")

    def __init__(self) -> None:
        self.count: int = 0
        self._known: tuple[str, ...] = ()
        self.unlogged: list[Exception] = []

    def note(self, error: Exception) -> None:
        """Count a defect; `report` logs it, as a lock may be held here."""
        self.count += 1
        self.unlogged.append(error)

    def report(self) -> None:
        """Log what was noted. Called with no lock held."""
        while self.unlogged:
            try:
                error = self.unlogged.pop(0)
            except IndexError:  # another thread has logged the last one meanwhile
                return
            where = f"{type(error).__name__} at {origin(error)}"
            if where in self._known:
                log.debug("a defect again: %s", where)
            else:
                self._known = (*self._known, where)
                log.error("a defect of webchat_fsm, the chat goes on: %s", where, exc_info=error)


class Misreadings:
    """Counts the parts of answers that could not be read, by kind; each kind is logged once.

    The wire layer bounds the kinds: one names declared members and found types, never a value.
    """

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def after_fork(self) -> None:
        """Recreate the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def note(self, reply: Reply) -> None:
        """Count what could not be read of a reply and of the pushes that came with it."""
        for kind in (*reply.misread, *(kind for push in reply.pushes for kind in push.misread)):
            with self._lock:
                before = self._counts.get(kind, 0)
                self._counts[kind] = before + 1
            if not before:  # logged without the lock, as a handler of logging may ask for `health()`
                log.warning("a part of an answer was not understood and counts as not said (logged once): %s", kind)

    def counts(self) -> dict[str, int]:
        """Copy the number of replies by kind."""
        with self._lock:
            return dict(self._counts)
