"""Model the lifecycle in plain Python, without the library: the events and the state of a service after each step.

Written from the design, not from the transition table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

IN_SESSION = ("active", "polling", "offline")
V2_ONLY = {
    "connectionPending", "connectionRestored", "chatServerWentOffline", "chatServerBackOnline", "restoredOffline",
    "restoreTimeout", "botConnected", "botDisconnected",
}  # fmt: skip
KINDS = {"Client": "client", "Agent": "agent", "Supervisor": "supervisor", "Bot": "bot"}
ATTENDING = ("Agent", "Supervisor")
SPEAKING = ("Message", "PushUrl", "Notice")


@dataclass(frozen=True)
class Entry:
    """Hold one entry of the server's transcript."""

    index: int
    type: str
    kind: str
    participant: int


@dataclass
class Lifecycle:
    """Model one service as its user sees it; `published` are the events since the last `take`."""

    transport: str
    limit: int
    state: str = "idle"
    published: list[str] = field(default_factory=list)
    saved_at: float | None = None
    """Time of the last contact of the saved session, in seconds; None where no session is saved."""

    def __post_init__(self) -> None:
        self.gms = self.transport in ("v2", "cometd")
        self.polls = self.transport != "cometd"
        self.dormant = "async-dormant" if self.transport == "v3-async" else "idle"
        self.least = 0.5 if self.gms else 3.0
        self._clear()

    def _clear(self) -> None:
        self.disconnected = self.pending = self.went_offline = self.restored_offline = False
        self.failures = self.retries = 0
        self.lost = self.behind = False
        self.delay = self.least
        self.poll_due: float | None = None
        self.typing_due: float | None = None
        self.people: dict[int, str] = {}
        self.typing: set[int] = set()
        self.client_left = False
        self.seen: set[int] = set()

    def publish(self, *names: str) -> None:
        for name in names:
            if not (name in V2_ONLY and not self.gms) and not (name.startswith("polling") and not self.polls):
                self.published.append(name)

    def take(self) -> list[str]:
        published, self.published = self.published, []
        return published

    @property
    def due(self) -> list[tuple[float, str]]:
        name = "poll" if self.polls else "connect"
        known = ((self.poll_due, name), (self.typing_due, "typing countdown"))
        return sorted((due, name) for due, name in known if due is not None)

    # -- requests in general -------------------------------------------------------------------------------------------

    def no_answer(self) -> None:
        if not self.disconnected:
            self.publish("disconnected")
        self.disconnected = True

    def answered(self) -> None:
        if self.disconnected:
            self.publish("reconnected")
        self.disconnected = False

    def contact(self, kind: str) -> None:
        """Take the result of a request that is no poll."""
        if kind == "silent":
            self.no_answer()
        else:
            self.answered()

    # -- polls and connects --------------------------------------------------------------------------------------------

    def poll_failed(self) -> None:
        self.failures += 1
        if self.state == "offline" or (self.state == "active" and self.polls):
            return
        if not self.pending:
            self.publish("connectionPending")
        self.pending = True
        if self.failures > self.limit:
            if not (self.went_offline or self.restored_offline):
                self.publish("chatServerWentOffline")
            self.went_offline = True
            self.state = "offline"

    def poll_answered(self, entries: list[Entry]) -> None:
        if self.went_offline or self.restored_offline:
            self.publish("chatServerBackOnline")
        if self.pending:
            self.publish("connectionRestored")
        self.answered()
        self.pending = self.went_offline = self.restored_offline = False
        self.failures = 0
        self.content(entries)
        if self.state == "offline":
            self.state = "polling" if self.polls else "active"

    def poll(self, kind: str, entries: list[Entry], now: float, *, ended: bool = False) -> None:
        self.poll_due = None
        self.behind = kind != "good"
        if kind == "silent":
            self.no_answer()
            self.poll_failed()
        elif kind == "good":
            self.poll_answered(entries)
            self.saved_at = now
        else:
            self.answered()
            if kind == "bad":
                self.publish("error")
            if kind != "throttled":
                self.poll_failed()
        if ended:
            self.ended_by_server()
        elif self.state != "active":
            self.schedule(kind, now)

    def schedule(self, kind: str, now: float) -> None:
        failed = kind not in ("good", "throttled")
        if not self.gms:
            if kind != "throttled":  # a throttled answer leaves the interval unchanged
                self.delay = min(self.delay * 1.2, 30.0) if failed else self.least
            wait = self.delay
        elif self.state == "offline":
            wait = self.delay = 3.0
        else:
            wait, self.delay = self.delay, min(self.delay * 1.2, 3.0)
        self.poll_due = now + (max(wait, 7.0) if kind == "throttled" else wait)

    def connect(self, kind: str, entries: list[Entry] | None, missed: list[Entry], now: float, *, ended: bool) -> None:
        """Take the answer of a CometD connect; `entries` were pushed with it, None where there were none."""
        self.poll_due = None
        if kind != "good":
            self.lost = True
            self.retries += 1
            self.no_answer()
            self.poll_failed()
            self.poll_due = now + min(self.retries, 60)
            return
        if entries is not None:
            self.poll_answered(entries)
        if ended:
            self.ended_by_server()
            return
        self.retries = 0
        self.answered()
        self.saved_at = now
        if self.lost:
            self.caught_up(missed, now)
        else:
            self.poll_due = now + 0.5

    def caught_up(self, missed: list[Entry], now: float) -> None:
        """Take the missed messages, which are requested after a lost CometD connect."""
        self.lost = False
        self.answered()
        self.poll_answered(missed)
        self.poll_due = now

    # -- content -------------------------------------------------------------------------------------------------------

    def content(self, entries: list[Entry]) -> None:
        fresh = [entry for entry in entries if entry.index not in self.seen]
        for entry in fresh:
            self.seen.add(entry.index)
            self._apply(entry)
        if fresh:
            self.publish("messageReceived")

    def _apply(self, entry: Entry) -> None:
        attends = entry.kind in ATTENDING
        if entry.type == "ParticipantJoined":
            self.people[entry.participant] = entry.kind
            self.publish(f"{KINDS[entry.kind]}Connected")
        elif entry.type == "ParticipantLeft":
            self.people.pop(entry.participant, None)
            self.client_left = self.client_left or entry.kind == "Client"
            self.publish(f"{KINDS[entry.kind]}Disconnected")
            self._typing_stopped(entry.participant)
        elif attends and entry.type == "TypingStarted":
            if not self.typing:
                self.publish("agentTypingStarted")
            self.typing.add(entry.participant)
        elif attends and (entry.type == "TypingStopped" or entry.type in SPEAKING):
            self._typing_stopped(entry.participant)

    def _typing_stopped(self, participant: int) -> None:
        typed = bool(self.typing)
        self.typing.discard(participant)
        if typed and not self.typing:
            self.publish("agentTypingStopped")

    # -- commands ------------------------------------------------------------------------------------------------------

    def start(self, kind: str, entries: list[Entry], now: float) -> None:
        self._clear()
        self.saved_at = None
        if kind == "refused":
            self.state = "idle"
        elif kind in ("silent", "bad", "throttled"):
            self.state = "idle"
            self.publish("error")
        else:
            self.state = "polling" if self.polls else "active"
            self.saved_at = now
            self.publish("started", "pollingStarted")
            if not self.polls:
                self.content(entries)
            self.poll_due = now

    def send(self) -> None:
        """Take a send, before its request."""
        if self.typing_due is not None:
            self.publish("clientTypingStopped")
        self.typing_due = None

    def activity(self, now: float) -> None:
        self.delay = self.least
        if self.transport == "v2" and self.poll_due is not None:
            self.poll_due = min(self.poll_due, now + self.least)

    def start_poll(self, now: float) -> None:
        self.delay = self.least
        if self.state == "active":
            self.state = "polling"
            self.publish("pollingStarted")
            self.poll_due = now

    def stop_poll(self) -> None:
        self.state, self.behind = "active", True
        self.poll_due = None
        self.publish("pollingStopped")

    def end_requested(self) -> None:
        if self.state != "active":
            self.publish("pollingStopped")
        self.state = "active"

    def end_settled(self) -> None:
        for kind in ("Supervisor", "Agent", "Bot"):
            if kind in self.people.values():
                self.publish(f"{KINDS[kind]}Disconnected")
        if not self.client_left:
            self.publish("clientDisconnected")
        self._end()

    def ended_by_server(self) -> None:
        """Take the end of the chat by the server, or the loss of its session there."""
        if self.state != "active":
            self.publish("pollingStopped")
        self._end()

    def _end(self) -> None:
        self.publish("ended")
        seen = self.seen
        self._clear()
        self.seen = seen
        self.state, self.saved_at = "ended", None

    def close(self, now: float) -> None:
        if self.state in IN_SESSION:
            self.saved_at = now
            self.state = self.dormant
        elif self.state == "ended":
            self.state = "idle"  # the next service that opens begins without a session
        self._clear()

    def open(self, kind: str, entries: list[Entry], now: float) -> None:
        self.publish("ready")
        if self.saved_at is None:
            self.state = "idle"
        elif self.gms and now - self.saved_at >= 60:
            self.publish("restoreTimeout")
            self.state, self.saved_at = "idle", None
        elif kind in ("silent", "bad", "throttled"):
            self.publish("restoreFailed", *(["error"] if kind == "bad" else []))
            self.state = self.dormant
        else:
            self._restored(kind, entries, now)

    def _restored(self, kind: str, entries: list[Entry], now: float) -> None:
        self.state = "polling" if self.polls else "active"
        self.publish("restored")
        self.saved_at = now
        if kind == "refused":  # statusCode 1
            self.state, self.failures, self.restored_offline = "offline", self.limit + 1, True
            self.publish("restoredOffline")
        else:
            self.content(entries)
        self.publish("pollingStarted")
        self.poll_due = now
