"""Browsers on other origins: who may call, and what a preflight is told."""

from __future__ import annotations

from urllib.parse import urlsplit

from webchat_fsm.server.exchange import HttpAnswer, HttpRequest
from webchat_fsm.server.options import ServerOptions

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = "accept, apikey, authorization, content-type, gms_user, x-api-key, x-nexus-client-key, x-requested-with"
_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
_EXPOSED = "content-disposition, retry-after"


def allowed(origin: str, options: ServerOptions) -> bool:
    """Whether pages of this origin may read our answers: loopback hosts at any port, and what the options name."""
    host = urlsplit(origin).hostname or ""
    return host in _LOOPBACK or host.endswith(".localhost") or origin in options.origins or "*" in options.origins


def may_upgrade(request: HttpRequest, options: ServerOptions) -> bool:
    """Whether the page at the request's origin may open a websocket, which no browser would keep it from."""
    origin = request.headers.get("origin")
    return origin is None or allowed(origin, options)


def preflight(request: HttpRequest) -> HttpAnswer:
    """The answer to an OPTIONS request; who may call is said by `open_to`."""
    headers = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": ", ".join([_HEADERS, *_asked_for(request)]),
        "access-control-max-age": "600",
    }
    if "access-control-request-private-network" in request.headers:
        headers["access-control-allow-private-network"] = "true"
    return HttpAnswer(204, headers)


def _asked_for(request: HttpRequest) -> list[str]:
    """The custom headers that a page is going to send."""
    asked = request.headers.get("access-control-request-headers", "").lower().split(",")
    return [name.strip() for name in asked if name.strip() and name.strip() not in _HEADERS.split(", ")]


def open_to(request: HttpRequest, options: ServerOptions, answer: HttpAnswer) -> HttpAnswer:
    """The answer with the headers that let the page at the request's origin read it."""
    origin = request.headers.get("origin")
    headers = {**answer.headers, "vary": "Origin"}
    if origin is not None and allowed(origin, options):
        headers["access-control-allow-origin"] = origin
        headers["access-control-allow-credentials"] = "true"
        headers["access-control-expose-headers"] = _EXPOSED
    return HttpAnswer(answer.status, headers, answer.body, answer.delay, answer.fate)
