"""What the live view of `serve --ui` shows and does: a chat of this library, the embedded server, and its agent.

The state shown is that of a real session: the lines that its recorder writes. Of other clients the server sees requests
alone, and these are shown as what they are.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import msgspec

from webchat_fsm import CommandRejected, ConfigError, WebChatError, WebChatService
from webchat_fsm._json import json_to_keep
from webchat_fsm._model import Json
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ChatServer, Logged, Person
from webchat_fsm.testing._bench import CONFIGS, HOST
from webchat_fsm.testing._recorder import Recorder

KEPT = 10_000
"""Entries that are kept for the page and for the saved session; older ones are dropped."""

UNWATCHED = 90.0
"""Seconds without a request of the page after which its chat is ended: the page is closed."""

AGENT = "Alex"
"""Nickname of the agent whom the user of the page is."""


class Feed:
    """The entries that the page reads by their numbers, from 1 on; bounded, and waited for by several threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[tuple[int, Json]] = deque(maxlen=kept)
        self._head: tuple[int, Json] | None = None
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()

    def add(self, kind: str, content: object) -> None:
        """Append an entry; one of the kind `head` begins a recording."""
        with self._changed:
            self._count += 1
            entry = (self._count, {"kind": kind, "content": content})
            self._entries.append(entry)
            if kind == "head":
                self._head = entry
            self._changed.notify_all()

    def after(self, number: int, timeout: float) -> tuple[int, list[Json]]:
        """Return the entries after a number, with the number of the last; waits up to `timeout` seconds for one."""
        with self._changed:
            # A number that is too high is that of another run of the program: everything is returned.
            known = number if number <= self._count else 0
            self._changed.wait_for(lambda: self._closed or self._count > known, timeout)
            kept = [*self._since(known)]
            head, count = self._head, self._count
        # Lines without their head cannot be read; it is repeated where it has been dropped.
        if head is not None and kept and known < head[0] < kept[0][0]:
            kept.insert(0, head)
        return count, [entry for _, entry in kept]

    def recording(self) -> bytes | None:
        """Return the last recording as JSON Lines, None if none has begun; of a long one the last lines are kept."""
        with self._changed:
            if self._head is None:
                return None
            number, head = self._head
            lines = [entry["content"] for _, entry in self._since(number) if entry["kind"] == "line"]
        return b"".join(json_to_keep(line) + b"\n" for line in (head["content"], *lines))

    def close(self) -> None:
        """Let everyone who waits return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _since(self, number: int) -> list[tuple[int, Json]]:
        # From the end, as most readers lack the last few entries only.
        return [*takewhile(lambda entry: entry[0] > number, reversed(self._entries))][::-1]


class FeedRecorder(Recorder):
    """Writes the lines of a recording to the feed, and keeps none itself."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def _write(self, line: Json) -> None:
        # Encoded once and read again: a line may hold values that only the writer of recordings can encode.
        self._feed.add("head" if "recording" in line else "line", json.loads(json_to_keep(line)))


class Live:
    """The chat, the agent and the faults that the page moves; usable from several threads.

    `url` is the address of the server's front; `clock` returns seconds for `end_if_unwatched`. Every method raises
    `WebChatError` for what the state does not allow, and `ConfigError` for an invalid argument.
    """

    def __init__(self, server: ChatServer, url: str, clock: Callable[[], float], feed: Feed | None = None) -> None:
        self.server = server
        self.feed = feed or Feed()
        self.url, self._clock = url, clock
        self._agent = server.agent(AGENT)
        self._chat: WebChatService | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._watched = clock()
        self._last: Logged | None = None
        self._unregister = server.on_change(self._add_requests)

    # -- the customer --------------------------------------------------------------------------------------------------

    def start(self, transport: str, nickname: str) -> None:
        """Start a chat over a transport."""
        if transport not in [*Transport]:
            raise ConfigError("transport", f"expected one of {', '.join(Transport)}, got {transport!r}")
        with self._lock:
            if self._closed:
                raise WebChatError("the page is closing: start the program again")
            if self._chat is not None and self._chat.can("endChat"):
                raise WebChatError("the last chat is still there: end it first")
            former = self._chat
            chat = self._chat = WebChatService(
                self._configuration(Transport(transport)), recorder=FeedRecorder(self.feed)
            )
        if former is not None:
            former.close()
        chat.open()
        chat.start_chat(nickname=nickname, subject="from the page")

    def send(self, text: str) -> None:
        """Send a message of the customer."""
        self._running().send_message(text)

    def end(self) -> None:
        """End the chat as the customer."""
        self._running().end_chat()

    def leave(self) -> None:
        """Close the service and keep the session, as a page that is left does."""
        self._running().close()

    def restore(self) -> None:
        """Open the service again, which restores the session."""
        self._running().open()

    def _running(self) -> WebChatService:
        with self._lock:
            if self._chat is None:
                raise WebChatError("no chat has been started here: start one first")
            return self._chat

    def _configuration(self, transport: Transport) -> Json:
        config: Json = json.loads(json.dumps(CONFIGS[transport]).replace(HOST, self.url))
        if (key := self.server.options.apikey) is not None:
            config["apikey"] = key
            if "transport" in config:
                config["transport"]["headers"]["x-api-key"] = key
        return config

    # -- the agent and the server --------------------------------------------------------------------------------------

    def agent(self, action: str, text: str = "") -> None:
        """Let the agent join, say a text, type, leave, or end the chat that was started last, of any client."""
        actions: dict[str, Callable[[], object]] = {
            "join": self._agent.join,
            "say": lambda: self._present().say(text),
            "typing": lambda: self._present().typing(),
            "leave": self._agent.leave,
            "end": self.server.end,
        }
        if action not in actions:
            raise ConfigError("do", f"expected one of {', '.join(actions)}, got {action!r}")
        try:
            actions[action]()
        except (LookupError, RuntimeError) as error:
            raise WebChatError(str(error)) from error
        self.feed.add("agent", {"do": action, "text": text})

    def _present(self) -> Person:
        """Return the agent, who joins the chat that was started last unless present there."""
        if not self._agent.is_in(self.server.current_chat()):
            self._agent.join()
        return self._agent

    def add_fault(self, given: Mapping[str, Any]) -> None:
        """Schedule a fault by the keywords of `Faults.add`."""
        try:
            with self.server.lock():
                fault = self.server.faults.add(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError("fault", str(error)) from error
        self.feed.add("fault", {**given, "operation": fault.operation, "times": fault.times})

    def clear_faults(self) -> None:
        """Remove all scheduled faults."""
        with self.server.lock():
            self.server.faults.clear()
        self.feed.add("fault", {"cleared": True})

    def _add_requests(self) -> None:
        # Under the server's lock, so that no request is added meanwhile, and the entries keep their order.
        with self.server.lock():
            added = [*self._unseen()]
            self._last = added[0] if added else self._last
            for one in reversed(added):
                record = {"time": one.time, "dialect": one.dialect, "operation": one.operation}
                self.feed.add("request", {**record, "method": one.method, "path": one.path})

    def _unseen(self) -> Iterator[Logged]:
        return takewhile(lambda one: one is not self._last, reversed(self.server.requests))

    # -- the page ------------------------------------------------------------------------------------------------------

    def entries(self, number: int, timeout: float) -> Json:
        """Return the entries after a number, the number of the last, and how many faults are scheduled."""
        self._watched = self._clock()
        last, entries = self.feed.after(number, timeout)
        self._watched = self._clock()
        return {"last": last, "entries": entries, "faults": len(self.server.faults)}

    def end_if_unwatched(self) -> None:
        """End the chat if its page has been closed for a while."""
        if self._clock() - self._watched < UNWATCHED:
            return
        with self._lock:
            former, self._chat = self._chat, None
        if former is not None:
            former.close(end=True)

    def close(self) -> None:
        """End the chat, and let all requests of the page return."""
        self._unregister()
        with self._lock:
            former, self._chat, self._closed = self._chat, None, True
        self.feed.close()
        if former is not None:
            former.close(end=True)


def reason_of(error: WebChatError) -> str:
    """Return the text of an error for the page: of a rejection its literal reason."""
    return str(error.reason) if isinstance(error, CommandRejected) else str(error)


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that moves the customer or the agent."""

    do: str
    text: str = ""
    transport: str = ""
    nickname: str = "Jonny"
