"""Checks the invariants of each chat by a watcher that is subscribed to every service of every test.

An exception inside a handler would only be logged, so the watcher records each violation and the fixture that attached
it fails the test at its end.
"""

from __future__ import annotations

from webchat_fsm.lifecycle._events import EVENTS

ONLY_AFTER = {
    "reconnected": ("disconnected",),
    "connectionRestored": ("connectionPending",),
    "chatServerBackOnline": ("chatServerWentOffline", "restoredOffline"),
    "agentTypingStopped": ("agentTypingStarted",),
    "clientTypingStopped": ("clientTypingStarted",),
    "pollingStopped": ("pollingStarted",),
}
"""Maps an event to those of which one must precede it in the same session, since its previous occurrence."""

BEGINS = ("started", "restored")


class LawWatcher:
    """Receives every event of one service and records each violation as a text in `broken`."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.closed = True
        self._session()

    def _session(self) -> None:
        self._ended = False
        self._pending: set[str] = set()
        self._indexes: set[object] = set()

    def attach(self, chat) -> LawWatcher:
        for name in EVENTS:
            chat.subscribe(name, self.hear)
        return self

    def opened(self) -> None:
        if self.closed:
            self.closed = False
            self._session()

    def hear(self, event) -> None:
        if self.closed:
            self.broken.append(f"{event.name} came after close()")
        # Indexes and pairs begin anew with each session: a restored transcript repeats the indexes of the first one.
        if event.name in BEGINS:
            self._session()
        self._hear_end(event)
        self._hear_pairs(event.name)
        if event.name == "messageReceived":
            self._hear_messages(event.data)

    def _hear_end(self, event) -> None:
        if event.name == "ended":
            if self._ended:
                self.broken.append("ended came twice in one session")
            self._ended = True

    def _hear_pairs(self, name: str) -> None:
        openers = ONLY_AFTER.get(name, ())
        if openers and not self._pending & set(openers):
            self.broken.append(f"{name} came without {' or '.join(openers)} before it")
        self._pending -= set(openers)
        self._pending.add(name)

    def _hear_messages(self, data) -> None:
        for message in data.messages:
            if message.index is not None and message.index in self._indexes:
                self.broken.append(f"the message with index {message.index} came twice")
            self._indexes.add(message.index)
