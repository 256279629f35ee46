"""The embedded chat server as a service's `http=`: no sockets, and no time but the clock's."""

from __future__ import annotations

import math
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from webchat_fsm.errors import TransportError
from webchat_fsm.runtime.clock import Clock
from webchat_fsm.runtime.http import encoded
from webchat_fsm.server import ChatServer, HttpRequest
from webchat_fsm.server import HttpAnswer as ServerAnswer
from webchat_fsm.wire.request import HttpAnswer, Request


class EmbeddedHttp:
    """Carries requests to a `ChatServer` in this process; a slow answer moves the clock instead of waiting."""

    def __init__(self, server: ChatServer, clock: Clock) -> None:
        self._server, self._clock = server, clock
        self._cookies: SimpleCookie = SimpleCookie()

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where the server's faults leave no complete answer."""
        deadline = math.inf if request.timeout is None else self._clock.timer() + request.timeout
        answer = self._server.handle(self._asked(request), self._clock.wall())
        self._delay(request, answer.delay, deadline)
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

    def _delay(self, request: Request, delay: float, deadline: float) -> None:
        if not delay:
            return
        comes = self._clock.timer() + delay
        self._clock.sleep_until(min(comes, deadline))
        if comes > deadline:
            raise TransportError(f"{request.operation}: no complete answer within {request.timeout:g} s")

    def _answered(self, answer: ServerAnswer) -> HttpAnswer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if "set-cookie" in headers:
            self._cookies.load(headers["set-cookie"])
        return HttpAnswer(status=answer.status, headers=headers, body=answer.body)

    def cut(self) -> None:
        """Nothing is ever in flight here: requests are answered as they are made."""

    def close(self) -> None:
        """There are no connections to give up."""
