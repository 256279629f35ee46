"""The chat server without sockets: requests and the time go in, answers come out.

The server has no clock, no thread and no randomness of its own; the same calls give the same bytes.
A host that can wait uses `begin`, which may give back a `Held` long poll; one that cannot uses `handle`.
Between requests the host calls `tick` at the moments it is told, so that people and timers act on time.
A lock makes it safe to move people from one thread while a front serves from another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from webchat_fsm.server.bayeux import Bayeux
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Chat
from webchat_fsm.server.cometd import CometD
from webchat_fsm.server.cometd_files import CometDFiles
from webchat_fsm.server.exchange import Held, HttpAnswer, HttpRequest, Logged, Upgrade
from webchat_fsm.server.faults import Fault, Faults
from webchat_fsm.server.gms_v2 import GmsV2
from webchat_fsm.server.nexus_v3 import NexusV3
from webchat_fsm.server.options import ServerOptions
from webchat_fsm.server.origins import may_upgrade, open_to, preflight
from webchat_fsm.server.people import Person
from webchat_fsm.server.script import Players, Role, Script


class Dialect(Protocol):
    """One wire format: the paths it claims and how it answers there."""

    @property
    def operations(self) -> frozenset[str]:
        """Names of its operations, by which faults find them."""

    def claims(self, path: str) -> bool:
        """Whether a path is this dialect's."""

    def handle(self, request: HttpRequest) -> HttpAnswer | Held:
        """Answer a request on such a path, or hold it."""


class ChatServer:
    """A chat server for any number of chats, spoken to in any of its dialects."""

    def __init__(
        self,
        options: ServerOptions | None = None,
        *,
        script: Script | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self.clock = clock
        """Where the time comes from when a caller does not say it; without one, the last time said holds."""
        self._centre = Centre(self.options)
        self._comet = CometD(self._centre)
        self._dialects: list[Dialect] = [
            GmsV2(self._centre),
            NexusV3(self._centre),
            CometDFiles(self._centre),
            self._comet,
        ]
        self._centre.faults.known.update(*(dialect.operations for dialect in self._dialects))
        self._lock = threading.RLock()
        self._advancing = False
        self._watchers: list[Callable[[], None]] = []
        if script:
            Players(script, self._centre, self._hire)

    # HTTP

    def begin(
        self, request: HttpRequest, now: float | None = None, *, planned: Sequence[Fault] = ()
    ) -> HttpAnswer | Held:
        """Answer a request, or hold it until there is news; what is `planned` goes wrong with this one alone."""
        asked = request.normal()
        with self._lock:
            self._advance(now)
            with self._centre.faults.planned(planned):
                outcome = self._dispatch(asked)
            self.changed()
        if isinstance(outcome, Held):
            return outcome.then(lambda answer: open_to(asked, self.options, answer))
        return open_to(asked, self.options, outcome)

    def handle(self, request: HttpRequest, now: float | None = None, *, planned: Sequence[Fault] = ()) -> HttpAnswer:
        """Answer a request at once; a long poll is answered as if its time were over."""
        outcome = self.begin(request, now, planned=planned)
        if isinstance(outcome, HttpAnswer):
            return outcome
        with self._lock:
            answer = outcome.resume(outcome.due)
        if answer is None:
            raise RuntimeError("a long poll must have an answer when its time is over")
        return answer

    def resume(self, held: Held, now: float | None = None) -> HttpAnswer | None:
        """The answer to a held request, if it is there by now."""
        with self._lock:
            self._advance(now)
            return held.resume(self._centre.now)

    def abandon(self, held: Held, now: float | None = None) -> None:
        """Drop a held request whose client has hung up."""
        with self._lock:
            self._advance(now)
            held.abandon(self._centre.now)

    # Websockets

    def upgrade(self, request: HttpRequest, now: float | None = None) -> Upgrade | None:
        """Grant a websocket or refuse it; None where the request is to be answered like any other.

        Each text frame is then put into the request that the grant names, and given to `begin`.
        """
        asked = request.normal()
        with self._lock:
            self._advance(now)
            if not may_upgrade(asked, self.options):
                return Upgrade(HttpAnswer(403))
            return self._comet.upgrade(asked)

    def news(self, socket: str, now: float | None = None) -> HttpAnswer | None:
        """What is to be sent over a websocket by itself at this moment; to be asked whenever the server changed."""
        with self._lock:
            self._advance(now)
            return self._comet.bayeux.news(socket)

    def unplug(self, socket: str, now: float | None = None) -> None:
        """Tell that a websocket is closed."""
        with self._lock:
            self._advance(now)
            self._comet.bayeux.unplug(socket)

    def _dispatch(self, request: HttpRequest) -> HttpAnswer | Held:
        if request.method == "OPTIONS":
            return preflight(request)
        for dialect in self._dialects:
            if dialect.claims(request.path):
                return dialect.handle(request)
        return HttpAnswer(404)

    # Time

    def tick(self, now: float | None = None) -> float | None:
        """Let time pass; the result is the moment before which nothing will happen by itself, None for never."""
        with self._lock:
            self._advance(now)
            return self._centre.agenda.next_due

    def moment(self) -> float:
        """Seconds since the epoch, as far as the server was told."""
        if not self._advancing:
            self._advance(None)
        return self._centre.now

    def _advance(self, now: float | None) -> None:
        if now is None:
            now = self.clock() if self.clock else self._centre.now
        self._advancing = True
        try:
            acted = self._centre.advance(now)
        finally:
            self._advancing = False
        if acted:
            self.changed()

    # People

    def agent(self, nickname: str) -> Person:
        """An agent, who has yet to join."""
        return self._hire(nickname, "agent")

    def supervisor(self, nickname: str) -> Person:
        """A supervisor, who has yet to join."""
        return self._hire(nickname, "supervisor")

    def bot(self, nickname: str) -> Person:
        """A bot, which has yet to join."""
        return self._hire(nickname, "bot")

    def _hire(self, nickname: str, role: Role) -> Person:
        return Person(self, nickname, "Supervisor" if role == "supervisor" else "Agent", bot=role == "bot")

    def end(self, chat: Chat | None = None) -> None:
        """End a chat from the server's side, by default the one started last."""
        with self._lock:
            now = self.moment()
            (chat or self.current_chat()).end(now)
            self.changed()

    def purge(self, chat: Chat | None = None) -> None:
        """Forget a chat altogether, by default the one started last: v3 answers 404 INVALID_SESSION, v2 error 249."""
        with self._lock:
            self.moment()
            self._centre.purge(chat or self.current_chat())
            self.changed()

    def forget_clients(self) -> None:
        """CometD: forget all Bayeux clients, as a restart does; they are answered 402 and must shake hands again."""
        self._bayeux_mishap(Bayeux.forget)

    def hang_up(self) -> None:
        """CometD: send all Bayeux clients a `/meta/disconnect` and forget them."""
        self._bayeux_mishap(Bayeux.hang_up)

    def cut_connects(self) -> None:
        """CometD: cut all connects that are held now, without an answer."""
        self._bayeux_mishap(Bayeux.cut)

    def _bayeux_mishap(self, mishap: Callable[[Bayeux], None]) -> None:
        with self._lock:
            self.moment()
            mishap(self._comet.bayeux)
            self.changed()

    def rotate_alias(self, alias: str | None = None, chat: Chat | None = None) -> str:
        """Move a chat to another Chat Server instance: from now on its answers carry another alias."""
        with self._lock:
            moved = chat or self.current_chat()
            moved.alias = alias or self._centre.ids.alias()
            return moved.alias

    # What there is to see

    @property
    def chats(self) -> list[Chat]:
        """All chats, oldest first, the ended ones included."""
        return list(self._centre.chats.values())

    @property
    def faults(self) -> Faults:
        """What is going to go wrong."""
        return self._centre.faults

    @property
    def requests(self) -> deque[Logged]:
        """The operations decoded so far, oldest first; the last ten thousand."""
        return self._centre.requests

    def current_chat(self) -> Chat:
        """The chat that was started last."""
        if not self._centre.chats:
            raise LookupError("no chat has been started yet")
        return next(reversed(self._centre.chats.values()))

    def on_change(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Have `watcher` called, in whatever thread, after anything may have changed; the result ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def changed(self) -> None:
        """Tell the watchers."""
        for watcher in tuple(self._watchers):
            watcher()

    def lock(self) -> AbstractContextManager[object]:
        """The lock under which the server acts; it may be taken again by its holder."""
        return self._lock
