"""The module that gives every event its payload type: overloads of `subscribe` and `wait_for`, made from the events.

The module is generated and committed, as type checkers read files and not tables.
"""

from __future__ import annotations

from typing import NamedTuple

from webchat_fsm.lifecycle.events import EVENTS

_HEAD = '''\
"""What a subscriber gets to see, typed event by event.

Generated from the events of the lifecycle by `python -m webchat_fsm.diagram`; do not edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, overload

from webchat_fsm.lifecycle.events import (
{payloads}
)
from webchat_fsm.runtime.delivery import ChatEvent, Subscription

P = TypeVar("P")
R = TypeVar("R")

Handler = Callable[[ChatEvent[P]], R]


class Decorator(Protocol[P]):
    """Subscribes a function to an event with that payload and gives it back as it was."""

    def __call__(self, handler: Handler[P, R], /) -> Handler[P, R]:
        """Subscribe that function."""

'''

_CLASS = '''

class EventFace(ABC):
    """Subscribing and waiting: the name of an event decides the type of its payload.

    An event without data carries None. A name that is known only at run time gives a payload of any type. For such a
    name a handler has to take any payload, and the types allow no `where`: else a wrong handler of a known name would
    pass for one of an unknown name, and a lambda would lose the known type.
    """

'''

_EITHER = "Subscription | Decorator[Any]"
_OVERLOAD = "    @overload\n"
_WIDEST = len("\n") + 120

_SUBSCRIBE_BODY = '''\
        """Call the handler with each such event from now on; without a handler, a decorator that does so.

        The subscription ends by its `cancel()`; the decorator gives the function back as it was.
        """
        if handler is not None:
            return self._subscribe(event, handler)

        def attach(function: Handler[Any, R]) -> Handler[Any, R]:
            self._subscribe(event, function)
            return function

        return attach

'''

_WAIT_BODY = '''\
        """The first such event after the reading position that `where` accepts; WaitTimeout after so many seconds."""
        return self._wait_for(event, timeout, where)

    @abstractmethod
    def _subscribe(self, event: str, handler: Handler[Any, object]) -> Subscription:
        """Put a handler at an event, whose name is checked here."""

    @abstractmethod
    def _wait_for(self, event: str, timeout: float, where: Handler[Any, bool] | None) -> ChatEvent[Any]:
        """Wait for an event, whose name is checked here, on whatever drives the time."""
'''


class _Group(NamedTuple):
    """The events of one payload, and how the generated code speaks of them."""

    payload: str
    events: tuple[str, ...]

    @property
    def name(self) -> str:
        """A literal type where there is one event, an alias of the many otherwise."""
        if len(self.events) == 1:
            return f'Literal["{self.events[0]}"]'
        return "PlainName" if self.payload == "None" else f"{self.payload}Name"

    @property
    def alias(self) -> str:
        """The definition of that alias; empty where none is needed."""
        if len(self.events) == 1:
            return ""
        return "".join([f"{self.name} = Literal[\n", *(f'    "{event}",\n' for event in self.events), "]\n"])


def render() -> str:
    """The text of the module."""
    groups = _groups()
    payloads = sorted((group.payload for group in groups if group.payload != "None"), key=str.lower)
    return "".join(
        [
            _HEAD.format(payloads="\n".join(f"    {payload}," for payload in payloads)),
            *("\n" + group.alias for group in groups if group.alias),
            _CLASS,
            *(_subscribe(group.name, group.payload, group.payload) for group in groups),
            _subscribe("str", "object", "Any"),
            _signature("subscribe", "event: str, handler: Handler[Any, object] | None = None", _EITHER, ":"),
            _SUBSCRIBE_BODY,
            *(_OVERLOAD + _wait_for(group.name, group.payload, ": ...") for group in groups),
            _OVERLOAD + _signature("wait_for", "event: str, timeout: float", "ChatEvent[Any]", ": ..."),
            _wait_for("str", "Any", ":"),
            _WAIT_BODY,
        ]
    )


def _groups() -> list[_Group]:
    by_payload: dict[str, list[str]] = {}
    for event in EVENTS.values():
        by_payload.setdefault(event.payload.__name__ if event.payload else "None", []).append(event.name)
    return [_Group(payload, tuple(events)) for payload, events in by_payload.items()]


def _subscribe(name: str, taken: str, decorated: str) -> str:
    call = _signature("subscribe", f"event: {name}, handler: Handler[{taken}, object]", "Subscription", ": ...")
    decorator = _signature("subscribe", f"event: {name}", f"Decorator[{decorated}]", ": ...")
    return _OVERLOAD + call + _OVERLOAD + decorator


def _wait_for(name: str, payload: str, end: str) -> str:
    parameters = f"event: {name}, timeout: float, where: Handler[{payload}, bool] | None = None"
    return _signature("wait_for", parameters, f"ChatEvent[{payload}]", end)


def _signature(method: str, parameters: str, result: str, end: str) -> str:
    """The head of a method as the formatter would lay it out."""
    short = f"    def {method}(self, {parameters}) -> {result}{end}\n"
    long = f"    def {method}(\n        self, {parameters}\n    ) -> {result}{end}\n"
    return short if len(short) <= _WIDEST else long
