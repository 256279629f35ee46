"""Which error of the libraries below means what for the user, without a secret of the request in its text."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import urllib3

from webchat_fsm._errors import TransportError
from webchat_fsm._runtime.answers import MalformedError, TornError
from webchat_fsm._runtime.connections import NoConnectionError
from webchat_fsm._runtime.sockets import InFlight, TooMuchError
from webchat_fsm._wire.request import BROKEN, CUT, LATE, LOST, TOO_LARGE, TORN, Request


def is_stale(error: BaseException) -> bool:
    """Return whether the connection was closed before any answer came."""
    return isinstance(error, ConnectionError | ssl.SSLEOFError)


def _may_quote(error: Exception) -> bool:
    """Return whether an error's text may quote what was to be sent, secrets included."""
    return isinstance(error, ValueError | http.client.InvalidURL) and not isinstance(error, OSError)


def without_secrets(error: Exception) -> Exception:
    """Return the error to attach as a cause; one whose text may quote what was to be sent is replaced."""
    if _may_quote(error):
        return ValueError(f"{type(error).__name__}, whose text is left out as it quotes what was to be sent")
    return error


def transport_error(error: Exception, request: Request, in_flight: InFlight) -> TransportError:
    """Map an error to `TransportError`, without data of the request in its text."""
    if in_flight.was_cut:
        return TransportError(f"{request.operation}: {CUT}")
    if _may_quote(error):
        return TransportError(f"{request.operation}: invalid URL, header or cookie")
    return TransportError(f"{request.operation}: {_fault(error, request)}")


# The first row whose class fits gives the text, so a class stands before those that it inherits from.
_UNCONNECTED: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the name {host} cannot be resolved"),
    (UnicodeError, "{host} is not a valid host name"),
    (TimeoutError, "no connection to {host} within the time limit"),
    (ConnectionRefusedError, "{host} refused the connection"),
    (OSError, "no connection to {host}: {error}"),
)
_FAULTS: tuple[tuple[type[BaseException], str], ...] = (
    (TooMuchError, TOO_LARGE),
    (TornError, TORN),
    (MalformedError, "the answer is not valid HTTP"),
    (urllib3.exceptions.TimeoutError, LATE),
    (TimeoutError, LATE),
    (ssl.SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.SSLError, "TLS failed: {error}"),
    (urllib3.exceptions.DecodeError, "the answer's content encoding is broken"),
    (OSError, LOST),
    (http.client.HTTPException, LOST),
    (urllib3.exceptions.ProtocolError, LOST),
    (Exception, BROKEN),
)
_OUTRANKING = (TooMuchError, TimeoutError, urllib3.exceptions.TimeoutError)
"""Causes that say more than the error of an upper layer that wraps them."""


def _fault(error: Exception, request: Request) -> str:
    host, timeout = urlsplit(request.url).netloc.rpartition("@")[2], f"{request.timeout:g}" if request.timeout else "?"
    table, shown = _FAULTS, next((cause for cause in _causes(error) if isinstance(cause, _OUTRANKING)), error)
    if isinstance(error, NoConnectionError):
        if error.by_proxy:
            return "the proxy could not be used"
        table, shown = (_FAULTS if isinstance(error.reason, ssl.SSLError) else _UNCONNECTED), error.reason
    text = next(text for kind, text in table if isinstance(shown, kind))
    return text.format(
        host=host, timeout=timeout, most=request.max_size, error=list(_causes(shown))[-1], kind=type(shown).__name__
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps, outermost first."""
    inner: BaseException | None = error
    while isinstance(inner, BaseException):
        yield inner
        wrapped = next((one for one in inner.args if isinstance(one, BaseException)), None)
        inner = getattr(inner, "reason", None) or wrapped or inner.__cause__
