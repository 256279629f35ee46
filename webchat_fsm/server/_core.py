"""The chat server without sockets: requests and the time go in, answers come out.

The server has no clock, no thread and no randomness of its own; the same calls give the same bytes.
A host that can wait uses `begin`, which may give back a `Held` long poll; one that cannot uses `handle`.
Between requests the host calls `tick` at the times that it returns, so that people and timers act on time.
A lock makes it safe to move people from one thread while a front serves from another.

Pages of other origins may read answers only from loopback hosts and from `ServerOptions.origins`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import urlsplit

from webchat_fsm.server._bayeux import BayeuxServer
from webchat_fsm.server._chat import Chat
from webchat_fsm.server._cometd import CometDDialect
from webchat_fsm.server._faults import Fault, Faults
from webchat_fsm.server._gms_rest import CometDFilesDialect, GmsDialect
from webchat_fsm.server._http import Held, HttpRequest, Logged, ServerAnswer, Upgrade
from webchat_fsm.server._nexus import NexusDialect
from webchat_fsm.server._people import Person, Role, Script, ScriptRunner
from webchat_fsm.server._state import ServerOptions, ServerState

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# What the vendor's APIs and widgets send; a page's own headers are added by `_custom_headers`.
_HEADERS = "accept, apikey, authorization, content-type, gms_user, x-api-key, x-nexus-client-key, x-requested-with"
_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
_EXPOSED = "content-disposition, retry-after"


def is_allowed_origin(origin: str, options: ServerOptions) -> bool:
    """Return whether pages of an origin may read answers: loopback hosts on any port, and `ServerOptions.origins`."""
    host = urlsplit(origin).hostname or ""
    # The port is not compared: a page under development is served from any.
    return host in _LOOPBACK or host.endswith(".localhost") or origin in options.origins or "*" in options.origins


def may_upgrade(request: HttpRequest, options: ServerOptions) -> bool:
    """Return whether the page at the request's origin may open a websocket, which no browser would keep it from."""
    origin = request.headers.get("origin")
    # Without an origin the client is not a browser, and no page could misuse it.
    return origin is None or is_allowed_origin(origin, options)


def preflight(request: HttpRequest) -> ServerAnswer:
    """Return the answer to an OPTIONS request; who may call is said by `with_cors_headers`."""
    headers = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": ", ".join([_HEADERS, *_custom_headers(request)]),
        "access-control-max-age": "600",
    }
    # Chrome asks this before a page from the internet may call a loopback address.
    if "access-control-request-private-network" in request.headers:
        headers["access-control-allow-private-network"] = "true"
    return ServerAnswer(204, headers)


def _custom_headers(request: HttpRequest) -> list[str]:
    """Return the custom headers that a page is going to send."""
    names = request.headers.get("access-control-request-headers", "").lower().split(",")
    return [name.strip() for name in names if name.strip() and name.strip() not in _HEADERS.split(", ")]


def with_cors_headers(request: HttpRequest, options: ServerOptions, answer: ServerAnswer) -> ServerAnswer:
    """Return the answer with the headers that let the page at the request's origin read it."""
    origin = request.headers.get("origin")
    # A cache must not give one page the answer whose headers allow another.
    headers = {**answer.headers, "vary": "Origin"}
    if origin is not None and is_allowed_origin(origin, options):
        # The origin itself, as `*` is not valid together with credentials, which the Bayeux cookie is.
        headers["access-control-allow-origin"] = origin
        headers["access-control-allow-credentials"] = "true"
        headers["access-control-expose-headers"] = _EXPOSED
    return ServerAnswer(answer.status, headers, answer.body, answer.delay, answer.fate)


class ServerDialect(Protocol):
    """One wire format: the paths that it serves and its operations."""

    @property
    def operations(self) -> frozenset[str]:
        """Return the names of its operations, by which faults match them."""
        ...

    def claims(self, path: str) -> bool:
        """Return whether requests for a path are answered by this dialect."""
        ...

    def handle(self, request: HttpRequest) -> ServerAnswer | Held:
        """Answer a request on such a path, or hold it."""
        ...


class ChatServer:
    """A chat server for any number of chats, over every dialect at once."""

    def __init__(
        self,
        options: ServerOptions | None = None,
        *,
        script: Script | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.options: ServerOptions = options or ServerOptions()
        self.clock = clock
        """Source of the time for calls without `now`; without a clock the time of the last call remains."""
        self._state = ServerState(self.options)
        self._comet = CometDDialect(self._state)
        # Bayeux last: the URL of a v2 service that is called `cometd` ends like that of a CometD gateway.
        self._dialects: list[ServerDialect] = [
            GmsDialect(self._state),
            NexusDialect(self._state),
            CometDFilesDialect(self._state),
            self._comet,
        ]
        self._state.faults.known.update(*(dialect.operations for dialect in self._dialects))
        # Reentrant: watchers, and scripted people in the middle of an advance, call the server again.
        self._lock = threading.RLock()
        self._advancing = False
        self._watchers: list[Callable[[], None]] = []
        if script:
            # Kept alive by `_state`, which has it among its listeners.
            ScriptRunner(script, self._state, self._new_person)

    # HTTP

    def begin(
        self, request: HttpRequest, now: float | None = None, *, planned: Sequence[Fault] = ()
    ) -> ServerAnswer | Held:
        """Answer a request, or hold it until there are events; `planned` faults hit this request alone."""
        normalised = request.normal()
        with self._lock:
            self._advance(now)
            # Under the lock, so that no other request can take them.
            with self._state.faults.planned(planned):
                outcome = self._dispatch(normalised)
            self.changed()
        if isinstance(outcome, Held):
            return outcome.then(lambda answer: with_cors_headers(normalised, self.options, answer))
        return with_cors_headers(normalised, self.options, outcome)

    def handle(self, request: HttpRequest, now: float | None = None, *, planned: Sequence[Fault] = ()) -> ServerAnswer:
        """Answer a request at once; a long poll is answered as if its time were over."""
        outcome = self.begin(request, now, planned=planned)
        if isinstance(outcome, ServerAnswer):
            return outcome
        with self._lock:
            # `due` is passed on, not set: the time of the server stays where the caller put it.
            answer = outcome.resume(outcome.due)
        if answer is None:
            raise RuntimeError(
                f"a held {request.method} {request.path} had no answer when its time was over: report this as a defect"
            )
        return answer

    def resume(self, held: Held, now: float | None = None) -> ServerAnswer | None:
        """Return the answer to a held request, if it is there by now."""
        with self._lock:
            self._advance(now)
            return held.resume(self._state.now)

    def abandon(self, held: Held, now: float | None = None) -> None:
        """Release a held request whose client has disconnected."""
        with self._lock:
            self._advance(now)
            held.abandon(self._state.now)

    # Websockets

    def upgrade(self, request: HttpRequest, now: float | None = None) -> Upgrade | None:
        """Grant a websocket or refuse it; None where the request is to be answered like any other.

        Each text frame is then put into the request that the grant names, and given to `begin`.
        """
        normalised = request.normal()
        with self._lock:
            self._advance(now)
            # The same-origin rule of browsers does not hold for websockets, so the server checks.
            if not may_upgrade(normalised, self.options):
                return Upgrade(ServerAnswer(403))
            return self._comet.upgrade(normalised)

    def pushes(self, socket: str, now: float | None = None) -> ServerAnswer | None:
        """Return the messages to push over a websocket now, or None; to be called after each change of the server."""
        with self._lock:
            self._advance(now)
            return self._comet.bayeux.pushes(socket)

    def socket_closed(self, socket: str, now: float | None = None) -> None:
        """Note that a websocket is closed; events for its clients are kept for their next connection."""
        with self._lock:
            self._advance(now)
            self._comet.bayeux.socket_closed(socket)

    def _dispatch(self, request: HttpRequest) -> ServerAnswer | Held:
        # Before the dialects: a preflight has no key, and neither counts as an operation nor uses a fault.
        if request.method == "OPTIONS":
            return preflight(request)
        for dialect in self._dialects:
            if dialect.claims(request.path):
                return dialect.handle(request)
        return ServerAnswer(404)

    # Time

    def tick(self, now: float | None = None) -> float | None:
        """Advance the time; returns the time of the next scheduled action, or None where there is none."""
        with self._lock:
            self._advance(now)
            return self._state.schedule.next_due

    def moment(self) -> float:
        """Return the time of the server in seconds since the epoch."""
        # Inside an advance the time is that of the action which runs; a second advance would skip over it.
        if not self._advancing:
            self._advance(None)
        return self._state.now

    def _advance(self, now: float | None) -> None:
        if now is None:
            now = self.clock() if self.clock else self._state.now
        self._advancing = True
        try:
            acted = self._state.advance(now)
        finally:
            self._advancing = False
        if acted:
            self.changed()

    # People

    def agent(self, nickname: str) -> Person:
        """Return an agent, who has yet to join; clients see an agent from its `join` on."""
        return self._new_person(nickname, "agent")

    def supervisor(self, nickname: str) -> Person:
        """Return a supervisor, who has yet to join; a chat with one in it is `monitored`."""
        return self._new_person(nickname, "supervisor")

    def bot(self, nickname: str) -> Person:
        """Return a bot, which has yet to join; over v2 it is an agent with an event attribute."""
        return self._new_person(nickname, "bot")

    def _new_person(self, nickname: str, role: Role) -> Person:
        return Person(self, nickname, "Supervisor" if role == "supervisor" else "Agent", bot=role == "bot")

    def end(self, chat: Chat | None = None) -> None:
        """End a chat from the server's side, by default the one started last."""
        with self._lock:
            now = self.moment()
            (chat or self.current_chat()).end(now)
            self.changed()

    def purge(self, chat: Chat | None = None) -> None:
        """Remove a chat, by default the one started last: v3 answers 404 INVALID_SESSION, v2 error 249."""
        with self._lock:
            self.moment()
            self._state.purge(chat or self.current_chat())
            self.changed()

    def forget_clients(self) -> None:
        """Remove all Bayeux clients, as a restart does; they are answered 402 and must repeat the handshake."""
        self._bayeux_failure(BayeuxServer.remove_clients)

    def hang_up(self) -> None:
        """Send all Bayeux clients a `/meta/disconnect` with their next answer to a connect, and remove them."""
        self._bayeux_failure(BayeuxServer.disconnect_clients)

    def cut_connects(self) -> None:
        """Close the connections of all held Bayeux connects, without an answer."""
        self._bayeux_failure(BayeuxServer.cut_connects)

    def _bayeux_failure(self, failure: Callable[[BayeuxServer], None]) -> None:
        with self._lock:
            self.moment()
            failure(self._comet.bayeux)
            self.changed()

    def rotate_alias(self, alias: str | None = None, chat: Chat | None = None) -> str:
        """Move a chat to another Chat Server instance: from now on its answers carry another alias."""
        with self._lock:
            target = chat or self.current_chat()
            # No watcher is called: there is no event, so no held poll can be answered by it.
            target.alias = alias or self._state.ids.alias()
            return target.alias

    # State

    @property
    def chats(self) -> list[Chat]:
        """Return all chats, oldest first, the ended ones included."""
        return list(self._state.chats.values())

    @property
    def faults(self) -> Faults:
        """Return the scheduled faults; more are added with `faults.add`."""
        return self._state.faults

    @property
    def requests(self) -> deque[Logged]:
        """Return the operations decoded so far, oldest first; the last ten thousand."""
        return self._state.requests

    def current_chat(self) -> Chat:
        """Return the chat that was started last; raises `LookupError` without any."""
        if not self._state.chats:
            raise LookupError("no chat has been started yet: let a client start one first")
        # A dict keeps the order of insertion, and `purge` may have removed any chat.
        return next(reversed(self._state.chats.values()))

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after each possible change, in the thread that made it; the result unregisters it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def changed(self) -> None:
        """Call the watchers, which wake held polls and websockets."""
        # Copied: a watcher may unregister itself.
        for watcher in tuple(self._watchers):
            watcher()

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock under which the server acts; it may be taken again by its holder."""
        return self._lock
