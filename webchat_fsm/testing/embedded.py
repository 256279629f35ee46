"""The embedded chat server as a service's `http=`: no sockets, and no time but the clock's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from webchat_fsm.errors import TransportError
from webchat_fsm.runtime.clock import Clock
from webchat_fsm.runtime.http import encoded
from webchat_fsm.server import ChatServer, Fault, HttpRequest
from webchat_fsm.server import HttpAnswer as ServerAnswer
from webchat_fsm.wire.request import HttpAnswer, Request

Awaiting = Callable[[str, float], AbstractContextManager[None]]


def _unlisted(operation: str, deadline: float) -> AbstractContextManager[None]:
    return nullcontext()


class EmbeddedHttp:
    """Carries requests to a `ChatServer` in this process; a slow answer lets time pass instead of waiting.

    `wait_until` lets it pass, to a moment of the clock's timer line, by default by moving the clock alone; `awaiting`
    is told the operation and the deadline of each slow request; `asking` hears the name of each operation before it,
    and says what goes wrong with this request.
    """

    def __init__(
        self,
        server: ChatServer,
        clock: Clock,
        *,
        wait_until: Callable[[float], None] | None = None,
        awaiting: Awaiting = _unlisted,
        asking: Callable[[str], Sequence[Fault]] = lambda operation: (),
    ) -> None:
        self._server, self._clock = server, clock
        self._wait_until = wait_until or clock.sleep_until
        self._awaiting, self._asking = awaiting, asking
        self._cookies: SimpleCookie = SimpleCookie()
        self._cut = 0

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where the server's faults leave no complete answer."""
        planned = self._asking(request.operation)
        answer = self._server.handle(self._asked(request), self._clock.wall(), planned=planned)
        self._delay(request, answer.delay)
        if answer.fate != "whole":
            fault = "the connection was lost" if answer.fate == "drop" else "the answer was torn off"
            raise TransportError(f"{request.operation}: {fault}")
        if len(answer.body) > request.max_size:
            raise TransportError(f"{request.operation}: the answer is larger than {request.max_size} bytes")
        return self._answered(answer)

    def _asked(self, request: Request) -> HttpRequest:
        body, content_type = encoded(request)
        headers = dict(request.headers)
        if content_type:
            headers["content-type"] = content_type
        if self._cookies:
            headers["cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in self._cookies.items())
        parts = urlsplit(request.url)
        return HttpRequest.of(request.method, f"{parts.path}?{parts.query}".rstrip("?"), headers, body)

    def _delay(self, request: Request, delay: float) -> None:
        """Let other timers run while this answer is on its way; closing cuts it, and the deadline ends it."""
        if not delay:
            return
        begun, cuts = self._clock.timer(), self._cut
        deadline = math.inf if request.timeout is None else begun + request.timeout
        comes = begun + delay
        with self._awaiting(request.operation, min(comes, deadline)):
            self._wait_until(min(comes, deadline))
        if self._cut != cuts:
            raise TransportError(f"{request.operation}: cut, as the service was closed")
        if comes > deadline:
            raise TransportError(f"{request.operation}: no complete answer within {request.timeout:g} s")

    def _answered(self, answer: ServerAnswer) -> HttpAnswer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if "set-cookie" in headers:
            self._cookies.load(headers["set-cookie"])
        return HttpAnswer(status=answer.status, headers=headers, body=answer.body)

    def cut(self) -> None:
        """Let the slow answers on their way fail."""
        self._cut += 1

    def close(self) -> None:
        """There are no connections to give up."""
