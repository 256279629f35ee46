"""The one tree of exceptions: each says what failed, where, and what to do next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

E = TypeVar("E", bound="WebChatError")

if TYPE_CHECKING:
    from webchat_fsm._model import Response
    from webchat_fsm.lifecycle._table import State


def nearest(name: object, known: Iterable[str]) -> str:
    """Return a "did you mean" hint for an unknown name, or ""."""
    from difflib import get_close_matches  # here, as only a mistake needs it

    near = get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class WebChatError(Exception):
    """Base of everything this library raises on purpose.

    Its exceptions can be copied and pickled with all attributes and their cause. In another process a cause that
    cannot be pickled is replaced by a `WebChatError` with its type and text, and `receipt` is None: the chat that could
    settle it is not there.
    """

    def __reduce__(self) -> tuple[Callable[..., WebChatError], tuple[Any, ...]]:
        # `BaseException` would call the class with `args`, the text alone. That raises where `__init__` demands more,
        # and an exception that cannot be unpickled takes a whole `ProcessPoolExecutor` down.
        attributes = {name: value for name, value in self.__dict__.items() if name != "receipt"}
        return _rebuilt, (type(self), self.args, attributes, _picklable(self.__cause__), self.__suppress_context__)

    # copies for themselves: `copy` would go by `__reduce__`, which leaves out the receipt and replaces a cause
    def __copy__(self) -> Self:
        return self._copied(dict(self.__dict__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The receipt belongs to a running chat, and causes of other packages may refuse to be copied: both are shared.
        return self._copied(
            {name: value if name == "receipt" else copy.deepcopy(value, memo) for name, value in self.__dict__.items()}
        )

    def _copied(self, attributes: dict[str, Any]) -> Self:
        twin = _rebuilt(type(self), self.args, attributes, self.__cause__, self.__suppress_context__)
        twin.__context__ = self.__context__  # pickle cannot carry these two; within one process they are shared
        return twin.with_traceback(self.__traceback__)


def _rebuilt(
    cls: type[E], args: tuple[Any, ...], attributes: dict[str, Any], cause: BaseException | None, suppress: bool
) -> E:
    """Make an exception as it was, without calling its `__init__`."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(attributes)
    error.__cause__ = cause
    error.__suppress_context__ = suppress  # which the assignment of a cause has set
    return error


def _picklable(cause: BaseException | None) -> BaseException | None:
    """Return a cause that can be pickled: itself, or a `WebChatError` with its type and text."""
    import pickle  # here, as most programs pickle no exception

    try:
        pickle.loads(pickle.dumps(cause))  # both ways: many exceptions pickle and fail only when they are loaded
    except Exception:
        return WebChatError(f"{type(cause).__name__}: {cause}")  # any `__reduce__` may raise anything
    return cause


class ConfigError(WebChatError, ValueError):
    """An option of the configuration is invalid: `path` (``$.transport.async.enabled``) names it."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"{path}: {expected}")
        self.path: str = path
        self.expected: str = expected


class MissingExtraError(WebChatError, ModuleNotFoundError):
    """An optional extra is not installed; the text says what needs it and how to install it."""


def missing_extra(purpose: str, extra: str, *packages: str) -> MissingExtraError:
    """Return the error for a purpose that needs packages of an extra."""
    install = f"pip install 'webchat-fsm[{extra}]', or '.[{extra}]' in a checkout"
    return MissingExtraError(f"{purpose} needs {' and '.join(packages)}: {install}")


class StoreError(WebChatError):
    """A saved session cannot be read or written; a file is left as it was found."""


class TransportError(WebChatError):
    """A request failed in the network or at the server; the text names the operation and the fault, never a secret.

    `response` is the server's answer where there was one.
    """

    def __init__(self, message: str, *, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class Sent(Protocol):
    """The receipt of a sent message: its status, its place in the transcript, and how to wait for its delivery."""

    status: str
    index: int | str | None

    def wait(self, timeout: float) -> bool:
        """Wait until the message has come back, at most `timeout` seconds; True when it has."""
        ...


class CommandRejected(WebChatError):
    """A command was rejected, by the lifecycle or by the server.

    `command` is its documented name; `reason` the literal text of the reference, or that of the server's fault; `state`
    the state at that moment; `response` the server's answer where there was one; `legal_in` the states in which the
    command would be legal. `receipt` is set where a send had no readable answer: its status is "unknown", as the
    message may have arrived, and "delivered" once it has come back.
    """

    receipt: Sent | None = None

    def __init__(
        self,
        command: str,
        reason: str,
        *,
        state: State,
        response: Response | None = None,
        legal_in: Iterable[State] = (),
        advice: str = "",
    ) -> None:
        self.command: str = command
        self.reason: str = reason
        self.state: State = state
        self.response: Response | None = response
        self.legal_in: frozenset[State] = frozenset(legal_in)
        # states are listed only where the state was the reason: a server's refusal would come in any of them
        by_state = response is None and bool(self.legal_in) and state not in self.legal_in
        hint = f"; legal in: {', '.join(sorted(self.legal_in))}" if by_state else advice
        super().__init__(f"{command} rejected in state {state}: {reason}{hint}")


class WaitTimeout(WebChatError, TimeoutError):
    """The awaited event was not published within the timeout; waiting again is safe."""


class ChatClosed(WebChatError):
    """The awaited event cannot be published any more: the chat has ended or the service is closed."""


class PoolFull(WebChatError):
    """A `SessionPool` is starting as many chats as it may, so that this one was not begun; starting later is safe.

    `starting` is the number of starts under way, `waited` the seconds for which this one has waited for its turn, 0
    in a pool that rejects at once. `nested` is true where waiting could not help: each start under way, one of this
    thread among them, waits in a handler for a start of its own.
    """

    def __init__(self, starting: int, waited: float, *, nested: bool = False) -> None:
        one = starting == 1
        under_way = f"{starting} start{'' if one else 's'} of this pool {'is' if one else 'are'} under way"
        advice = "try again later"
        if nested:
            waits = "waits in a handler for this one" if one else "wait in handlers for further ones"
            under_way, advice = f"{under_way} and {waits}", "start it after that start has returned"
        elif waited:
            under_way = f"{under_way}, also after {waited:.3g} s of waiting"
        super().__init__(f"no chat was started: {under_way}; {advice}, or give the SessionPool a larger max_starts")
        self.starting: int = starting
        self.waited: float = waited
        self.nested: bool = nested


class HandlerWaitError(WebChatError):
    """A call inside a handler would wait for ever, as the next event is delivered only after the handler returns.

    Let the handler return and wait outside, or act on the next event in a handler of its own.
    """


class IllegalTransition(WebChatError):
    """The lifecycle table has no transition for a trigger: a defect of this library, never of its caller."""

    def __init__(self, state: str, trigger: str) -> None:
        super().__init__(f"no transition for {trigger} in state {state}; please report this defect")
        self.state, self.trigger = state, trigger
