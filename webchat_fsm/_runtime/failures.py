"""What may fail without stopping a chat, and `health()`, which counts it.

That is code of the user, the recorder, this library itself, and the reading of an answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm._config import Config
from webchat_fsm._core.defects import origin
from webchat_fsm._core.operations import History
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Call, Decision, Moment, ReceivedMessage, Reply, Step
from webchat_fsm._model import Json
from webchat_fsm._runtime.locks import call_locked
from webchat_fsm._wire.request import HttpAnswer, Request
from webchat_fsm.lifecycle._table import State

log = logging.getLogger("webchat_fsm")

T = TypeVar("T")
Preprocessor = Callable[[Json], Json | None]


# -- code of the user --------------------------------------------------------------------------------------------------


class UserCode:
    """Counts the calls of the user's code in each thread, as waiting inside of one would wait for ever.

    Keyed by the number of the thread, which gevent and eventlet replace by that of the greenlet. `threading.local`
    would not do: one that was made before they patched it is shared by all greenlets of a thread.
    """

    __slots__ = ("_depths",)

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def after_fork(self) -> None:
        """Forget the calls of the parent's threads."""
        self._depths.clear()

    @property
    def depth(self) -> int:
        """Return the number of nested calls of the user's code in this thread."""
        return self._depths.get(threading.get_ident(), 0)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function of the user's and return its result."""
        # A function, not a context manager: a signal at the entry of `__exit__` would leave the count too high.
        thread, depths = threading.get_ident(), self._depths
        before = depths.get(thread, 0)
        try:
            depths[thread] = before + 1
            return function(*arguments)
        finally:
            if before:
                depths[thread] = before
            else:  # not left at 0, or the numbers of ended threads would pile up
                depths.pop(thread, None)


class Preprocessors:
    """The registered preprocessors, in the order of their registration."""

    __slots__ = ("_session", "_user_code", "registered")

    def __init__(self, session: Session, user_code: UserCode) -> None:
        self._session, self._user_code = session, user_code
        self.registered: list[Preprocessor] = []

    def apply(self, lock: threading.Lock, call: Call, reply: Reply) -> Reply:
        """Run the preprocessors over the messages of a reply that are new and visible; `lock` is the session's."""
        if reply.pushes:
            return replace(reply, pushes=tuple(self.apply(lock, call, push) for push in reply.pushes))
        if not reply.received:
            return reply
        with lock:
            old = isinstance(call.operation, History)
            answer = self._session.locate(reply.received, next_position=reply.next_position, old=old)
            # By identity, as one answer may hold equal messages of which only one is new.
            fresh = {id(found.event) for found in answer.fresh}
            restoring = self._session.state is State.RESTORING or self._session.catching_up
        received = tuple(
            self._shown(message, restoring=restoring) if id(message) in fresh else message for message in reply.received
        )
        return replace(reply, received=received)

    def _shown(self, received: ReceivedMessage, *, restoring: bool) -> ReceivedMessage:
        message = received.message
        if self._session.hides_any([message]):
            return received
        item = replace(message, restoring=restoring).item()
        for preprocessor in list(self.registered):  # copied, as a preprocessor may register another
            try:
                returned: Any = self._user_code.call(preprocessor, item)
            except Exception:
                log.exception("the preprocessor %s failed; the message is left unchanged", name_of(preprocessor))
                continue
            if isinstance(returned, dict):
                item = returned or item
            elif returned:
                kind = type(returned).__name__
                log.error("the preprocessor %s returned no message but %s", name_of(preprocessor), kind)
        try:
            return replace(received, shown=message.altered(item))
        except Exception:  # the returned dict may hold objects whose own code raises anything
            log.exception("the result of the preprocessors is not a message; the message is left unchanged")
            return received


def name_of(thing: object) -> str:
    """Return the qualified name of a function, or of the class of an object, for the log."""
    return getattr(thing, "__qualname__", None) or type(thing).__name__


# -- the recorder ------------------------------------------------------------------------------------------------------


@runtime_checkable
class Recorder(Protocol):
    """Records one service, from any of its threads; `webchat_fsm.testing.Recorder` writes a file."""

    def begun(self, config: Config) -> None:
        """Begin the recording of a service with this configuration; raises `ValueError` for a second one."""
        ...

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """Note a decided step. Called under the session's lock, so it must neither block nor write."""
        ...

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """Note a request that goes out."""
        ...

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """Note a complete answer; the step that processes it follows."""
        ...

    def flush(self) -> None:
        """Write what was noted. Called with no lock held."""
        ...


class Guarded:
    """Stands between a service and its recorder, if it has one: an exception of the recorder ends the recording alone.

    It is logged once. Nothing is recorded after it, as a recording with a gap cannot be replayed. Only one thread
    writes at a time, so that close() can leave its own lines to a thread whose writing takes long.
    """

    __slots__ = ("_failure", "_recorder", "_unwritten", "_writing", "active")

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self.active: bool = recorder is not None
        """True while anything is recorded, or a failure of the recorder is still to be logged."""
        self._failure: tuple[str, Exception] | None = None
        self._writing = threading.RLock()
        self._unwritten = False

    def after_fork(self) -> None:
        """Stop recording in a forked child: the file is the parent's."""
        self._recorder, self.active, self._writing = None, False, threading.RLock()

    def begun(self, config: Config) -> None:
        """Begin; raises the `ValueError` of a recorder that records another service already."""
        self._call("begun", lambda recorder: recorder.begun(config))
        failure = self._failure
        if failure is not None and isinstance(failure[1], ValueError):
            raise failure[1]
        self.report()

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """Pass a step on; a failure is logged by the next `report`, as the session's lock is held here."""
        self._call("stepped", lambda recorder: recorder.stepped(session, step, now, decision))

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """Pass a request on."""
        with self._writing:
            self._call("requested", lambda recorder: recorder.requested(call, request, now))
        self.report()

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """Pass an answer on."""
        with self._writing:
            self._call("answered", lambda recorder: recorder.answered(call, answer))
        self.report()

    def flush(self, timeout: float = -1.0) -> None:
        """Have the recorder write what it has noted; a thread that is writing for `timeout` seconds does that too."""
        self._unwritten = self._recorder is not None
        # Set before the lock is tried: the holder either sees it in its own loop, or has released the lock by then.
        while self._unwritten and call_locked(self._writing, self._write, timeout):
            pass

    def _write(self) -> bool:
        self._unwritten = False
        self._call("flush", lambda recorder: recorder.flush())
        return True

    def _call(self, name: str, method: Callable[[Recorder], object]) -> None:
        if self._recorder is None:
            return
        try:
            method(self._recorder)
        except Exception as error:  # a diagnostic never raises into a command or a poll
            self._recorder, self._failure = None, (name, error)

    def report(self) -> None:
        """Log a failure that was not logged yet. Called with no lock held."""
        failure, self._failure = self._failure, None
        if failure is not None:
            self.active = False
            name, error = failure
            text = "the recorder failed in %s: the recording ends here, the chat goes on without it"
            log.error(text, name, exc_info=error)


UNRECORDED = Guarded(None)
"""Stands in for the recorder of every service that has none: it holds nothing of a service."""


# -- defects and misread answers ---------------------------------------------------------------------------------------


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


# -- health() ----------------------------------------------------------------------------------------------------------


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
