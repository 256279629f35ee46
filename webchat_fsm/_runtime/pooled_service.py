"""`PooledService`, a session of a `SessionPool`, and the events of all sessions of a pool.

A session is in the pool while it is open and its chat goes on. The name of an event decides the type of its payload.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from webchat_fsm._core.steps import Settled
from webchat_fsm._errors import CommandRejected
from webchat_fsm._runtime.clock import Driver
from webchat_fsm._runtime.commands import ServiceCommand
from webchat_fsm._runtime.delivery import AnyEvent, ChatEvent, Handler, Subscription, name_of_handler
from webchat_fsm._runtime.failures import Recorder
from webchat_fsm._runtime.http import Http
from webchat_fsm._runtime.locks import Uncopied
from webchat_fsm._runtime.methods import AgentTypingName, ParticipantChangedName, PlainName
from webchat_fsm._runtime.service import WebChatService
from webchat_fsm._runtime.store import FileStore, SessionStore
from webchat_fsm.lifecycle._events import (
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.lifecycle._legality import NOT_READY

P = TypeVar("P")
R = TypeVar("R")

PoolHandler = Callable[[WebChatService, ChatEvent[P]], R]
"""Called with the session that published the event, and the event."""


class PoolDecorator(Protocol[P]):
    """Subscribes a function to an event of all sessions with that payload and gives it back as it was."""

    def __call__(self, handler: PoolHandler[P, R], /) -> PoolHandler[P, R]:
        """Subscribe the function."""
        ...


class PoolSubscription(Uncopied):
    """The subscription of a handler to an event of all sessions; `cancel` ends it, also inside a handler."""

    _instead = "subscribe the handler again"

    def __init__(
        self, event: str, handler: PoolHandler[Any, object], cancel: Callable[[PoolSubscription], None]
    ) -> None:
        self.event: str = event
        self.handler: PoolHandler[Any, object] = handler
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"PoolSubscription({self.event!r}, {name_of_handler(self.handler)})"

    def cancel(self) -> None:
        """Stop calling the handler, for sessions that have left the pool too. Idempotent."""
        self._cancel(self)

    def _handler_for(self, session: WebChatService) -> Handler:
        """Return the handler of one session, which adds that session to its events."""

        def handle(event: ChatEvent[Any]) -> None:
            self.handler(session, event)

        handle.__qualname__ = name_of_handler(self.handler)  # by which the log names it
        return handle


class PoolEventMethods(ABC):
    """Subscribing to all sessions of a pool, those to come too.

    The rules of `WebChatService.subscribe` hold, but for the session, which a handler is given before the event.
    """

    @overload
    def subscribe(self, event: PlainName, handler: PoolHandler[None, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: PlainName) -> PoolDecorator[None]: ...
    @overload
    def subscribe(self, event: Literal["restored"], handler: PoolHandler[Restored, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: Literal["restored"]) -> PoolDecorator[Restored]: ...
    @overload
    def subscribe(
        self, event: Literal["restoreFailed"], handler: PoolHandler[RestoreFailed, object]
    ) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: Literal["restoreFailed"]) -> PoolDecorator[RestoreFailed]: ...
    @overload
    def subscribe(
        self, event: Literal["messageReceived"], handler: PoolHandler[MessageReceived, object]
    ) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: Literal["messageReceived"]) -> PoolDecorator[MessageReceived]: ...
    @overload
    def subscribe(self, event: Literal["error"], handler: PoolHandler[Failure, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: Literal["error"]) -> PoolDecorator[Failure]: ...
    @overload
    def subscribe(self, event: Literal["started"], handler: PoolHandler[Started, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: Literal["started"]) -> PoolDecorator[Started]: ...
    @overload
    def subscribe(self, event: AgentTypingName, handler: PoolHandler[AgentTyping, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: AgentTypingName) -> PoolDecorator[AgentTyping]: ...
    @overload
    def subscribe(
        self, event: ParticipantChangedName, handler: PoolHandler[ParticipantChanged, object]
    ) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: ParticipantChangedName) -> PoolDecorator[ParticipantChanged]: ...
    @overload
    def subscribe(self, event: str, handler: PoolHandler[object, object]) -> PoolSubscription: ...
    @overload
    def subscribe(self, event: str) -> PoolDecorator[Any]: ...
    def subscribe(
        self, event: str, handler: PoolHandler[Any, object] | None = None
    ) -> PoolSubscription | PoolDecorator[Any]:
        """Call the handler with `(session, event)` for each such event from now on, of sessions to come too.

        Without a handler, returns a decorator that does so. The subscription ends by its `cancel()`.
        """
        if handler is not None:
            return self._subscribe(event, handler)

        def attach(function: PoolHandler[Any, R]) -> PoolHandler[Any, R]:
            self._subscribe(event, function)
            return function

        return attach

    @abstractmethod
    def _subscribe(self, event: str, handler: PoolHandler[Any, object]) -> PoolSubscription:
        """Subscribe a handler to an event of all sessions, and check the name."""


if TYPE_CHECKING:
    from webchat_fsm._runtime.session_pool import SessionPool

POOL_CLOSED = "this SessionPool is closed, and starts no chat; make another one"


def _key(store: SessionStore) -> str | int:
    """Return what two sessions on one store have in common: the path of a file, or the number of the object."""
    return os.path.realpath(store.path) if isinstance(store, FileStore) else id(store)


class PooledService(WebChatService):
    """A session of a pool; all that it has beyond a `WebChatService` is internal."""

    def __init__(
        self,
        pool: SessionPool,
        *,
        store: SessionStore | None,
        http: Http,
        driver: Driver,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(pool.config, store=store, http=http, driver=driver, recorder=recorder)
        self._pool = pool
        self._given_store = store  # kept, so that its id stays its own
        self._store_key: str | int | None = None if store is None else _key(store)
        self._store_name: str = repr(store) if isinstance(store, FileStore) else type(store).__name__
        self._pool_subscriptions: dict[PoolSubscription, Subscription] = {}
        self._attached = True
        for event in ("started", "restored"):
            self.subscribe(event, self._begun)
        self.subscribe("ended", self._ended)

    @property
    def _is_delivering(self) -> bool:
        """Return whether events wait for their delivery."""
        return self._engine.event_queue.pending

    def open(self) -> None:
        """Open the session as `WebChatService.open` does.

        Raises `WebChatError` where its pool is closed, and `StoreError` where another session of it uses the store.
        """
        self._pool._demand_open()
        self._pool._claim_store(self)
        self._pool._join(self)
        self._attached = True
        try:
            super().open()
        finally:
            if not self._engine.session.opened:
                self._pool._leave(self)
        if self._pool._closed:  # meanwhile, and it may have missed this session
            self.close()
            self._pool._demand_open()

    def close(self, timeout: float = 2.0, *, end: bool = False) -> bool:
        """Close the session as `WebChatService.close` does; it leaves the pool."""
        try:
            return super().close(timeout, end=end)
        finally:
            self._pool._leave(self)

    def _rejection(self, command: ServiceCommand[Any], settled: Settled) -> CommandRejected:
        if settled.reason == NOT_READY and self._pool._closed:  # the advice to open it would fail as well
            return CommandRejected(command.name, settled.reason, state=settled.state, advice=f"; {POOL_CLOSED}")
        return super()._rejection(command, settled)

    def _cancel(self, subscription: PoolSubscription) -> None:
        """Cancel the subscription of a handler that listens to all sessions."""
        if (own := self._pool_subscriptions.pop(subscription, None)) is not None:
            own.cancel()

    def _begun(self, _: AnyEvent) -> None:
        self._pool._join(self)
        if not self._attached:
            self._engine.driver.attach(self._engine)
            self._attached = True
            self._engine.wake()

    def _ended(self, _: AnyEvent) -> None:
        # Not closed: its user may still ask for the transcript. The driver forgets it, or it would keep it alive.
        self._pool._leave(self)
        self._engine.driver.detach(self._engine, 0.0)
        self._attached = False
