"""The lifecycle once more, in plain Python and without the library: what a service must say and where it must go.

Written from the design, not from the table. It says nothing of how, only: after this, in that state, these events.
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
    """What the server has in its transcript."""

    index: int
    type: str
    kind: str
    who: int


@dataclass
class Lifecycle:
    """One service as its user sees it; `said` are the events since they were last taken."""

    transport: str
    limit: int
    state: str = "idle"
    said: list[str] = field(default_factory=list)
    saved_at: float | None = None
    """When the saved session was last in contact; None where nothing is saved."""

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

    def say(self, *names: str) -> None:
        for name in names:
            if not (name in V2_ONLY and not self.gms) and not (name.startswith("polling") and not self.polls):
                self.said.append(name)

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said

    @property
    def due(self) -> list[tuple[float, str]]:
        name = "poll" if self.polls else "connect"
        known = ((self.poll_due, name), (self.typing_due, "typing countdown"))
        return sorted((due, name) for due, name in known if due is not None)

    # -- requests in general -------------------------------------------------------------------------------------------

    def no_answer(self) -> None:
        if not self.disconnected:
            self.say("disconnected")
        self.disconnected = True

    def answered(self) -> None:
        if self.disconnected:
            self.say("reconnected")
        self.disconnected = False

    def contact(self, verdict: str) -> None:
        """A request that is no poll."""
        if verdict == "silent":
            self.no_answer()
        else:
            self.answered()

    # -- polls, and what stands for them -------------------------------------------------------------------------------

    def poll_failed(self) -> None:
        self.failures += 1
        if self.state == "offline" or (self.state == "active" and self.polls):
            return
        if not self.pending:
            self.say("connectionPending")
        self.pending = True
        if self.failures > self.limit:
            if not (self.went_offline or self.restored_offline):
                self.say("chatServerWentOffline")
            self.went_offline = True
            self.state = "offline"

    def poll_answered(self, entries: list[Entry]) -> None:
        if self.went_offline or self.restored_offline:
            self.say("chatServerBackOnline")
        if self.pending:
            self.say("connectionRestored")
        self.answered()
        self.pending = self.went_offline = self.restored_offline = False
        self.failures = 0
        self.content(entries)
        if self.state == "offline":
            self.state = "polling" if self.polls else "active"

    def poll(self, verdict: str, entries: list[Entry], now: float, *, ended: bool = False) -> None:
        self.poll_due = None
        self.behind = verdict != "good"
        if verdict == "silent":
            self.no_answer()
            self.poll_failed()
        elif verdict == "good":
            self.poll_answered(entries)
            self.saved_at = now
        else:
            self.answered()
            if verdict == "bad":
                self.say("error")
            if verdict != "throttled":
                self.poll_failed()
        if ended:
            self.over()
        elif self.state != "active":
            self.schedule(verdict, now)

    def schedule(self, verdict: str, now: float) -> None:
        failed = verdict not in ("good", "throttled")
        if not self.gms:
            if verdict != "throttled":  # which says nothing of how the server does
                self.delay = min(self.delay * 1.2, 30.0) if failed else self.least
            wait = self.delay
        elif self.state == "offline":
            wait = self.delay = 3.0
        else:
            wait, self.delay = self.delay, min(self.delay * 1.2, 3.0)
        self.poll_due = now + (max(wait, 7.0) if verdict == "throttled" else wait)

    def connect(
        self, verdict: str, entries: list[Entry] | None, missed: list[Entry], now: float, *, ended: bool
    ) -> None:
        """CometD: a connect comes back; `entries` are what was pushed with it, None where nothing was."""
        self.poll_due = None
        if verdict != "good":
            self.lost = True
            self.retries += 1
            self.no_answer()
            self.poll_failed()
            self.poll_due = now + min(self.retries, 60)
            return
        if entries is not None:
            self.poll_answered(entries)
        if ended:
            self.over()
            return
        self.retries = 0
        self.answered()
        self.saved_at = now
        if self.lost:
            self.caught_up(missed, now)
        else:
            self.poll_due = now + 0.5

    def caught_up(self, missed: list[Entry], now: float) -> None:
        """CometD: after a loss the missed messages are asked for."""
        self.lost = False
        self.answered()
        self.poll_answered(missed)
        self.poll_due = now

    # -- content -------------------------------------------------------------------------------------------------------

    def content(self, entries: list[Entry]) -> None:
        fresh = [entry for entry in entries if entry.index not in self.seen]
        for entry in fresh:
            self.seen.add(entry.index)
            self._tell(entry)
        if fresh:
            self.say("messageReceived")

    def _tell(self, entry: Entry) -> None:
        attends = entry.kind in ATTENDING
        if entry.type == "ParticipantJoined":
            self.people[entry.who] = entry.kind
            self.say(f"{KINDS[entry.kind]}Connected")
        elif entry.type == "ParticipantLeft":
            self.people.pop(entry.who, None)
            self.client_left = self.client_left or entry.kind == "Client"
            self.say(f"{KINDS[entry.kind]}Disconnected")
            self._stops(entry.who)
        elif attends and entry.type == "TypingStarted":
            if not self.typing:
                self.say("agentTypingStarted")
            self.typing.add(entry.who)
        elif attends and (entry.type == "TypingStopped" or entry.type in SPEAKING):
            self._stops(entry.who)

    def _stops(self, who: int) -> None:
        typed = bool(self.typing)
        self.typing.discard(who)
        if typed and not self.typing:
            self.say("agentTypingStopped")

    # -- commands ------------------------------------------------------------------------------------------------------

    def start(self, verdict: str, entries: list[Entry], now: float) -> None:
        self._clear()
        self.saved_at = None
        if verdict == "refused":
            self.state = "idle"
        elif verdict in ("silent", "bad", "throttled"):
            self.state = "idle"
            self.say("error")
        else:
            self.state = "polling" if self.polls else "active"
            self.saved_at = now
            self.say("started", "pollingStarted")
            if not self.polls:
                self.content(entries)
            self.poll_due = now

    def send(self) -> None:
        """Before the request."""
        if self.typing_due is not None:
            self.say("clientTypingStopped")
        self.typing_due = None

    def activity(self, now: float) -> None:
        self.delay = self.least
        if self.transport == "v2" and self.poll_due is not None:
            self.poll_due = min(self.poll_due, now + self.least)

    def start_poll(self, now: float) -> None:
        self.delay = self.least
        if self.state == "active":
            self.state = "polling"
            self.say("pollingStarted")
            self.poll_due = now

    def stop_poll(self) -> None:
        self.state, self.behind = "active", True
        self.poll_due = None
        self.say("pollingStopped")

    def leaving(self) -> None:
        if self.state != "active":
            self.say("pollingStopped")
        self.state = "active"

    def left(self) -> None:
        for kind in ("Supervisor", "Agent", "Bot"):
            if kind in self.people.values():
                self.say(f"{KINDS[kind]}Disconnected")
        if not self.client_left:
            self.say("clientDisconnected")
        self._end()

    def over(self) -> None:
        """The server has ended the chat, or lost it."""
        if self.state != "active":
            self.say("pollingStopped")
        self._end()

    def _end(self) -> None:
        self.say("ended")
        seen = self.seen
        self._clear()
        self.seen = seen
        self.state, self.saved_at = "ended", None

    def close(self, now: float) -> None:
        if self.state in IN_SESSION:
            self.saved_at = now
            self.state = self.dormant
        elif self.state == "ended":
            self.state = "idle"  # another service opens next
        self._clear()

    def open(self, verdict: str, entries: list[Entry], now: float) -> None:
        self.say("ready")
        if self.saved_at is None:
            self.state = "idle"
        elif self.gms and now - self.saved_at >= 60:
            self.say("restoreTimeout")
            self.state, self.saved_at = "idle", None
        elif verdict in ("silent", "bad", "throttled"):
            self.say("restoreFailed", *(["error"] if verdict == "bad" else []))
            self.state = self.dormant
        else:
            self._restored(verdict, entries, now)

    def _restored(self, verdict: str, entries: list[Entry], now: float) -> None:
        self.state = "polling" if self.polls else "active"
        self.say("restored")
        self.saved_at = now
        if verdict == "refused":  # statusCode 1
            self.state, self.failures, self.restored_offline = "offline", self.limit + 1, True
            self.say("restoredOffline")
        else:
            self.content(entries)
        self.say("pollingStarted")
        self.poll_due = now
