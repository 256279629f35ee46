"""What a subscriber gets to see, typed event by event.

Generated from the events of the lifecycle by `python -m webchat_fsm.diagram`; do not edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, overload

from webchat_fsm.lifecycle.events import (
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)
from webchat_fsm.runtime.delivery import ChatEvent, Subscription

P = TypeVar("P")
R = TypeVar("R")

Handler = Callable[[ChatEvent[P]], R]


class Decorator(Protocol[P]):
    """Subscribes a function to an event with that payload and gives it back as it was."""

    def __call__(self, handler: Handler[P, R], /) -> Handler[P, R]:
        """Subscribe that function."""


PlainName = Literal[
    "ready",
    "restoreTimeout",
    "restoredOffline",
    "ended",
    "pollingStarted",
    "pollingStopped",
    "clientTypingStarted",
    "clientTypingStopped",
    "disconnected",
    "reconnected",
    "chatServerWentOffline",
    "chatServerBackOnline",
    "connectionPending",
    "connectionRestored",
]

AgentTypingName = Literal[
    "agentTypingStarted",
    "agentTypingStopped",
]

ParticipantChangedName = Literal[
    "clientConnected",
    "clientDisconnected",
    "agentConnected",
    "agentDisconnected",
    "supervisorConnected",
    "supervisorDisconnected",
    "botConnected",
    "botDisconnected",
]


class EventFace(ABC):
    """Subscribing and waiting: the name of an event decides the type of its payload.

    An event without data carries None. A name that is known only at run time gives a payload of any type. For such a
    name a handler has to take any payload, and the types allow no `where`: else a wrong handler of a known name would
    pass for one of an unknown name, and a lambda would lose the known type.
    """

    @overload
    def subscribe(self, event: PlainName, handler: Handler[None, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: PlainName) -> Decorator[None]: ...
    @overload
    def subscribe(self, event: Literal["restored"], handler: Handler[Restored, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["restored"]) -> Decorator[Restored]: ...
    @overload
    def subscribe(self, event: Literal["restoreFailed"], handler: Handler[RestoreFailed, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["restoreFailed"]) -> Decorator[RestoreFailed]: ...
    @overload
    def subscribe(
        self, event: Literal["messageReceived"], handler: Handler[MessageReceived, object]
    ) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["messageReceived"]) -> Decorator[MessageReceived]: ...
    @overload
    def subscribe(self, event: Literal["error"], handler: Handler[Failure, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["error"]) -> Decorator[Failure]: ...
    @overload
    def subscribe(self, event: Literal["started"], handler: Handler[Started, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["started"]) -> Decorator[Started]: ...
    @overload
    def subscribe(self, event: AgentTypingName, handler: Handler[AgentTyping, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: AgentTypingName) -> Decorator[AgentTyping]: ...
    @overload
    def subscribe(
        self, event: ParticipantChangedName, handler: Handler[ParticipantChanged, object]
    ) -> Subscription: ...
    @overload
    def subscribe(self, event: ParticipantChangedName) -> Decorator[ParticipantChanged]: ...
    @overload
    def subscribe(self, event: str, handler: Handler[object, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: str) -> Decorator[Any]: ...
    def subscribe(self, event: str, handler: Handler[Any, object] | None = None) -> Subscription | Decorator[Any]:
        """Call the handler with each such event from now on; without a handler, a decorator that does so.

        The subscription ends by its `cancel()`; the decorator gives the function back as it was.
        """
        if handler is not None:
            return self._subscribe(event, handler)

        def attach(function: Handler[Any, R]) -> Handler[Any, R]:
            self._subscribe(event, function)
            return function

        return attach

    @overload
    def wait_for(
        self, event: PlainName, timeout: float, where: Handler[None, bool] | None = None
    ) -> ChatEvent[None]: ...
    @overload
    def wait_for(
        self, event: Literal["restored"], timeout: float, where: Handler[Restored, bool] | None = None
    ) -> ChatEvent[Restored]: ...
    @overload
    def wait_for(
        self, event: Literal["restoreFailed"], timeout: float, where: Handler[RestoreFailed, bool] | None = None
    ) -> ChatEvent[RestoreFailed]: ...
    @overload
    def wait_for(
        self, event: Literal["messageReceived"], timeout: float, where: Handler[MessageReceived, bool] | None = None
    ) -> ChatEvent[MessageReceived]: ...
    @overload
    def wait_for(
        self, event: Literal["error"], timeout: float, where: Handler[Failure, bool] | None = None
    ) -> ChatEvent[Failure]: ...
    @overload
    def wait_for(
        self, event: Literal["started"], timeout: float, where: Handler[Started, bool] | None = None
    ) -> ChatEvent[Started]: ...
    @overload
    def wait_for(
        self, event: AgentTypingName, timeout: float, where: Handler[AgentTyping, bool] | None = None
    ) -> ChatEvent[AgentTyping]: ...
    @overload
    def wait_for(
        self, event: ParticipantChangedName, timeout: float, where: Handler[ParticipantChanged, bool] | None = None
    ) -> ChatEvent[ParticipantChanged]: ...
    @overload
    def wait_for(self, event: str, timeout: float) -> ChatEvent[Any]: ...
    def wait_for(self, event: str, timeout: float, where: Handler[Any, bool] | None = None) -> ChatEvent[Any]:
        """The first such event after the reading position that `where` accepts; WaitTimeout after so many seconds."""
        return self._wait_for(event, timeout, where)

    @abstractmethod
    def _subscribe(self, event: str, handler: Handler[Any, object]) -> Subscription:
        """Put a handler at an event, whose name is checked here."""

    @abstractmethod
    def _wait_for(self, event: str, timeout: float, where: Handler[Any, bool] | None) -> ChatEvent[Any]:
        """Wait for an event, whose name is checked here, on whatever drives the time."""
