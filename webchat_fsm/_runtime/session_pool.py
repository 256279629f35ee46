"""`SessionPool`: many chats with one configuration, on one driver and over shared connections.

Each session is a `WebChatService` like any other, with a store, cookies and an event queue of its own, so that nothing
of one session holds up another. The pool counts the starts, and knows which sessions have a chat: one that ends, or is
closed, leaves it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakSet

from webchat_fsm._config import Config
from webchat_fsm._errors import CommandRejected, PoolFull, StoreError, WebChatError
from webchat_fsm._runtime import pooled_service
from webchat_fsm._runtime.clock import LONGEST, Driver, monotonic
from webchat_fsm._runtime.delivery import check_event
from webchat_fsm._runtime.failures import PoolHealth, Recorder
from webchat_fsm._runtime.http import Http, http_for
from webchat_fsm._runtime.locks import Uncopied, renew_after_fork
from webchat_fsm._runtime.pooled_service import PooledService, PoolEventMethods, PoolHandler, PoolSubscription
from webchat_fsm._runtime.service import WebChatService
from webchat_fsm._runtime.shared_http import SharedConnections, SharedHttp
from webchat_fsm._runtime.store import SessionStore
from webchat_fsm._runtime.thread_driver import ThreadDriver
from webchat_fsm.lifecycle._legality import ALREADY_ACTIVE
from webchat_fsm.lifecycle._states import State

log = logging.getLogger("webchat_fsm")

T = TypeVar("T")

WITHOUT_CHAT = frozenset({State.IDLE, State.ENDED})
"""The states of a session after which `restore_chat` has nothing to give."""


class SessionPool(PoolEventMethods, Uncopied):
    """Many chats with one configuration: at most `max_starts` of them are being started at a time.

    Where that many starts are under way, `start_chat` waits for up to `wait_timeout` seconds (`on_full="wait"`), or
    raises `PoolFull` at once (`on_full="reject"`). At most `max_connections` to one server are in use at a time, beyond
    which requests wait within their deadline; over CometD it must be more than twice the number of sessions, so that
    the default is enough for 499. `store`, `http` and `recorder` are called without arguments, and make the store, the
    `Http` and the recorder of each session; by default a `MemoryStore`, shared connections, and none. `driver` runs all
    timers, and stays the caller's; by default it is a `ThreadDriver` of the pool.

    Every method may be called from any thread. Raises `ConfigError`, `ValueError` for a number out of its range and an
    unknown policy, and `TypeError` for an argument of the wrong type.
    """

    _instead = "make another pool with the same configuration"

    def __init__(
        self,
        config: Mapping[str, Any] | Config,
        *,
        store: Callable[[], SessionStore] | None = None,
        http: Callable[[], Http] | None = None,
        driver: Driver | None = None,
        recorder: Callable[[], Recorder] | None = None,
        max_starts: int = 16,
        on_full: Literal["wait", "reject"] = "wait",
        wait_timeout: float = 10.0,
        max_connections: int = 1000,
    ) -> None:
        self.config: Config = Config.read(config)
        _check_count("max_starts", max_starts)
        _check_count("max_connections", max_connections)
        _check_seconds("wait_timeout", wait_timeout)
        if on_full not in ("wait", "reject"):
            raise ValueError(f"on_full must be 'wait' or 'reject', not {on_full!r}")
        for name, factory in (("store", store), ("http", http), ("recorder", recorder)):
            _check_factory(name, factory)
        if driver is not None and (isinstance(driver, type) or not isinstance(driver, Driver)):
            raise TypeError(f"driver must be a Driver such as ThreadDriver(), not {driver!r}")
        self._store, self._recorder, self._max_starts = store, recorder, max_starts
        self._wait_timeout = wait_timeout if on_full == "wait" else 0.0
        self._connections = SharedConnections(self.config, max_connections)
        self._http = self._shared_http if http is None else http
        self._own_driver: ThreadDriver | None = None
        if driver is None:
            driver = self._own_driver = ThreadDriver()
        self._driver: Driver = driver
        self._subscriptions: tuple[PoolSubscription, ...] = ()
        self._closed = False
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        # As in `ThreadDriver`: the mutex is taken directly, as its release is in C.
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._starting: dict[object, int] = {}  # the thread of each start
        self._waiting: set[int] = set()  # the threads that wait to start
        self._sessions: dict[PooledService, None] = {}
        self._stores: dict[str | int, PooledService] = {}
        self._made: WeakSet[PooledService] = WeakSet()

    def after_fork(self) -> None:
        """Have no sessions and no connections in a forked child: they are the parent's."""
        self._connections.after_fork()
        self._begin()

    def _shared_http(self) -> Http:
        return http_for(self.config, SharedHttp(self.config, self._connections))

    def __repr__(self) -> str:
        closed = " closed" if self._closed else ""
        return f"<SessionPool sessions={len(self._sessions)} starting={len(self._starting)}{closed}>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __bool__(self) -> bool:
        """Return True: a pool without sessions is a pool."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- starting ------------------------------------------------------------------------------------------------------

    def start_chat(
        self,
        *,
        nickname: str = "",
        firstname: str = "",
        lastname: str = "",
        email: str = "",
        subject: str = "",
        user_data: Mapping[str, Any] | None = None,
        store: SessionStore | None = None,
        **form: str,
    ) -> WebChatService:
        """Start a chat in a session of its own, and return that session; the arguments are those of `startChat`.

        `user_data` is added to the configuration's and takes precedence; `store` replaces the one that the pool would
        make. A start includes the handlers of its events. Raises `PoolFull` where too many starts are under way,
        `CommandRejected` where the chat cannot be started, or the store holds one already, `StoreError` also where an
        open session of the pool uses the store, and `WebChatError` once the pool is closed; then nothing of the session
        is left.
        """
        named = {"nickname": nickname, "firstname": firstname, "lastname": lastname, "email": email, "subject": subject}

        def start(session: WebChatService) -> WebChatService:
            if session.state not in WITHOUT_CHAT:
                advice = "; the store holds a chat: use restore_chat(store)"
                raise CommandRejected("startChat", ALREADY_ACTIVE, state=session.state, advice=advice)
            session.start_chat(**named, user_data=user_data, **form)
            return session

        return self._start(store, start)

    def restore_chat(self, store: SessionStore) -> WebChatService | None:
        """Restore the chat that a store holds, and return its session; None where there is none, or it is over.

        Counts as a start, and raises what `start_chat` raises, but for `CommandRejected`; `TypeError` without a store.
        """
        if store is None:
            raise TypeError("restore_chat: store must be a SessionStore such as FileStore(path), not None")

        def restored(session: WebChatService) -> WebChatService | None:
            if session.state not in WITHOUT_CHAT:
                return session
            session.close()
            return None

        return self._start(store, restored)

    def _start(self, store: SessionStore | None, action: Callable[[WebChatService], T]) -> T:
        start, session = object(), None
        try:
            self._admit(start)
            session = self._make_session(store)
            session.open()
            return action(session)
        except BaseException:
            if session is not None:
                session.close()
            raise
        finally:
            self._starting.pop(start, None)  # in C, and before the rest: a signal cannot keep the place of this start
            self._end_start()

    def _make_session(self, store: SessionStore | None) -> PooledService:
        if store is None and self._store is not None:
            store = _made("store", self._store)
        http = _made("http", self._http)
        recorder = None if self._recorder is None else _made("recorder", self._recorder)
        return PooledService(self, store=store, http=http, driver=self._driver, recorder=recorder)

    def _admit(self, start: object) -> None:
        """Count a start, once there is room for it; raises `PoolFull` and `WebChatError`."""
        begun, here = monotonic(), threading.get_ident()
        with self._mutex:
            self._waiting.add(here)
            try:
                self._changed.wait_for(
                    lambda: self._closed or len(self._starting) < self._max_starts or self._is_stuck(here),
                    min(self._wait_timeout, LONGEST),
                )
                stuck = self._is_stuck(here)
            finally:
                self._waiting.discard(here)
            self._demand_open()
            if len(self._starting) >= self._max_starts:
                waited = monotonic() - begun if self._wait_timeout and not stuck else 0.0
                raise PoolFull(len(self._starting), waited, nested=stuck)
            self._starting[start] = here

    def _is_stuck(self, here: int) -> bool:
        """Return whether every start under way, one of this thread too, waits in a handler for a start of its own."""
        threads = set(self._starting.values())
        return here in threads and threads <= self._waiting

    def _end_start(self) -> None:
        with self._mutex:
            self._changed.notify_all()
        if self._closed and self._own_driver is not None:  # a session that was opened at that moment has started it
            self._own_driver.close(0.0)

    def _demand_open(self) -> None:
        if self._closed:
            raise WebChatError(pooled_service.POOL_CLOSED)

    # -- its sessions --------------------------------------------------------------------------------------------------

    def sessions(self) -> tuple[WebChatService, ...]:
        """Return the open sessions in the order of their starts; one whose chat has ended is none of them."""
        with self._mutex:
            return tuple(self._sessions)

    def health(self) -> PoolHealth:
        """Return the condition of all sessions together, for a watchdog."""
        sessions, threads = self.sessions(), getattr(self._driver, "threads", ())
        each = [session.health() for session in sessions]
        misread: Counter[str] = Counter()
        for one in each:
            misread.update(one.misread)
        return PoolHealth(
            sessions=len(sessions),
            states=Counter(session.state for session in sessions),
            starting=len(self._starting),
            failing=sum(one.failures > 0 for one in each),
            stalled=sum(one.stalled is not None for one in each),
            unsaved=sum(bool(one.store_failure) for one in each),
            connections=self._connections.in_use,
            idle_connections=len(self._connections.idle),
            waiting=self._connections.waiting,
            threads=tuple(thread.name for thread in threads),
            misread=misread,
            defects=sum(one.defects for one in each),
        )

    def _claim_store(self, session: PooledService) -> None:
        """Keep the store of a session from all others while that one is open; raises `StoreError` where one has it."""
        key = session._store_key
        with self._mutex:
            free = key is None or self._stores.setdefault(key, session) is session
        if not free:
            raise StoreError(
                f"{session._store_name}: an open session of this SessionPool uses this store already; close that one "
                "first, or give each session a store of its own"
            )

    def _join(self, session: PooledService) -> None:
        """Have a session in the pool, from its opening on and with each further chat."""
        with self._mutex:
            new = session not in self._made
            self._made.add(session)
            self._sessions[session] = None
            if (key := session._store_key) is not None:  # given back as its chat ended, where it starts another
                self._stores.setdefault(key, session)
            subscriptions = self._subscriptions if new else ()
        for subscription in subscriptions:
            self._attach(session, subscription)

    def _leave(self, session: PooledService) -> None:
        """Forget a session that is closed, or whose chat has ended."""
        with self._mutex:
            self._sessions.pop(session, None)
            if (key := session._store_key) is not None and self._stores.get(key) is session:
                del self._stores[key]

    # -- events --------------------------------------------------------------------------------------------------------

    def _attach(self, session: PooledService, subscription: PoolSubscription) -> None:
        """Subscribe a handler at one session, without the lock: `ready` may be delivered at once."""
        session._pool_subscriptions[subscription] = session.subscribe(
            subscription.event, subscription._handler_for(session)
        )
        if subscription not in self._subscriptions:  # cancelled meanwhile
            session._cancel(subscription)

    def _subscribe(self, event: str, handler: PoolHandler[Any, object]) -> PoolSubscription:
        check_event(event)
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        subscription = PoolSubscription(event, handler, self._unsubscribe)
        with self._mutex:
            self._subscriptions = (*self._subscriptions, subscription)
            sessions = list(self._made)
        for session in sessions:
            self._attach(session, subscription)
        return subscription

    def _unsubscribe(self, subscription: PoolSubscription) -> None:
        with self._mutex:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
            sessions = list(self._made)
        for session in sessions:
            session._cancel(subscription)

    # -- closing -------------------------------------------------------------------------------------------------------

    def close(self, timeout: float = 2.0) -> bool:
        """Close all sessions, cut their requests, and start no more; the chats stay saved, as with one service.

        Returns True when nothing runs any more; False after `timeout` seconds, which hold for all sessions together, or
        inside a handler, where the rest ends as the handler returns. A start that waits raises `WebChatError`. Closing
        twice is allowed; a pool that is closed stays so.
        """
        deadline = monotonic() + min(timeout, LONGEST)

        def left() -> float:
            return max(0.0, deadline - monotonic())

        with self._mutex:
            self._closed = True
            self._changed.notify_all()
            sessions = list(self._made)
        if self._own_driver is not None:  # first, as polls that go on would take the processor from those that end
            self._own_driver.close(0.0)
        running = self._close_all(sessions, left)
        here = threading.get_ident()
        with self._mutex:
            self._changed.wait_for(lambda: all(thread == here for thread in self._starting.values()), left())
            gone = not self._starting
            opened_since = list(self._sessions)
        gone = not self._close_all([*running, *opened_since], left) and gone
        self._connections.idle.close()
        if self._own_driver is not None:
            gone = self._own_driver.close(left()) and gone
        return gone

    def _close_all(self, sessions: list[PooledService], left: Callable[[], float]) -> list[PooledService]:
        """Close sessions; returns those of which something still runs when the time is over."""
        # None is waited for at first, or one slow handler would use up the time in which the others are closed. Those
        # whose events are being delivered come last, as the rest of their events would be dropped.
        slow = [one for one in sessions if one._is_delivering or not _closed(one, 0.0)]
        return [one for one in slow if not _closed(one, left())]


def _closed(session: PooledService, timeout: float) -> bool:
    """Close a session; False where something of it still runs, or its `Http` fails, which must keep no other open."""
    try:
        return session.close(timeout)
    except Exception:
        log.exception("a session of a pool could not be closed")
        return False


def _check_count(name: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} must be a whole number, not {number!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number!r}")


def _check_seconds(name: str, seconds: object) -> None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
    if not seconds >= 0:  # nan too
        raise ValueError(f"{name} must be 0 or more seconds, not {seconds!r}")


def _check_factory(name: str, factory: object) -> None:
    if factory is not None and not callable(factory):
        raise TypeError(f"{name} must be a function that makes one for each session, not {type(factory).__name__}")


def _made(name: str, factory: Callable[[], T]) -> T:
    """Return what a factory makes; None would be replaced by the default without a word."""
    made = factory()
    if made is None:
        raise TypeError(f"{name} must return one for each session, not None")
    return made
