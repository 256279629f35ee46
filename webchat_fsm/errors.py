"""The one tree of exceptions: what went wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from webchat_fsm.lifecycle.table import State
    from webchat_fsm.lifecycle.words import Response


def nearest(name: object, known: Iterable[str]) -> str:
    """What an error adds about a name that nobody knows: the known one that was probably meant, if one is near."""
    near = get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class WebChatError(Exception):
    """Base of everything this library raises on purpose."""


class ConfigError(WebChatError, ValueError):
    """The configuration is wrong; `path` (``$.transport.async.enabled``) says where, the text what was expected."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(f"{path}: {expected}")
        self.path, self.expected = path, expected


class StoreError(WebChatError):
    """A saved session could not be read or written; the file is left as it was found."""


class TransportError(WebChatError):
    """The network or the server was at fault; the text names the operation and the fault, never a secret."""

    def __init__(self, message: str, *, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class Sent(Protocol):
    """A message that was sent: what became of it, its place in the transcript, and how to wait for that."""

    status: str
    index: int | str | None

    def wait(self, timeout: float) -> bool:
        """Wait until the message has come back, at most `timeout` seconds; True when it has."""
        ...


class CommandRejected(WebChatError):
    """A command was refused, by the lifecycle or by the server.

    `reason` is the literal text of the reference, or the text of the server's fault; `response` is the server's answer
    where there was one; `legal_in` are the states in which the command would be legal. `receipt` is that of a message
    whose sending had no readable answer: unknown, as it may have arrived, and delivered once it has come back.
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
        self.command, self.reason, self.state, self.response = command, reason, state, response
        self.legal_in = frozenset(legal_in)
        by_state = response is None and bool(self.legal_in) and state not in self.legal_in
        hint = f"; legal in: {', '.join(sorted(self.legal_in))}" if by_state else advice
        super().__init__(f"{command} rejected in state {state}: {reason}{hint}")


class WaitTimeout(WebChatError, TimeoutError):
    """The awaited event did not come in time; it may still come, and waiting again is safe."""


class ChatClosed(WebChatError):
    """The awaited event cannot come any more: the chat has ended or the service is closed."""


class HandlerWaitError(WebChatError):
    """Waiting inside a handler would wait for ever, as events are delivered one after the other.

    Let the handler return and wait outside, or act on the next event in a handler of its own.
    """


class IllegalTransition(WebChatError):
    """A fact arrived for which the lifecycle has no row: a defect of this library, never of its caller."""

    def __init__(self, state: str, trigger: str) -> None:
        super().__init__(f"no row for {trigger} in state {state}")
        self.state, self.trigger = state, trigger
