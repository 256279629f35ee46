"""What the dialects share: options, chats, timers, faults, the log of operations, and the schedule of later actions."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple

import msgspec

from webchat_fsm.server._chat import Chat, Ids, ServerEvent
from webchat_fsm.server._faults import Fault, Faults
from webchat_fsm.server._http import Fields, HttpRequest, Logged, ServerAnswer, ServerReply


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set about the server, with the defaults of a real one; in seconds and bytes.

    What would end or refuse a chat (liveness, idle timers, key checks) is off, so that a test meets only the behaviour
    that it requested.
    """

    # Access
    apikey: str | None = None
    """API key that every request must carry, as header `apikey` (v2) or `x-api-key` (v2, v3); None accepts all."""
    services: tuple[str, ...] = ()
    """Service names that exist (last part of the v2 URL or of the CometD channel); empty means any."""
    unknown_service_code: int | None = None
    """Error code sent with HTTP 400 for an unknown service (306 is the known one); None answers 404 without a body."""
    strict_ids: bool = False
    """Whether `userId` and `alias` must be right too, not only `secureKey`."""
    kick_on_wrong_key: bool = False
    """Whether a wrong `secureKey` removes the client from the chat, as Chat Server does (reason 8210)."""
    origins: tuple[str, ...] = ()
    """Browser origins allowed beside the loopback ones; `*` allows every origin."""

    # Chat
    max_message_length: int | None = None
    """Longest text in characters; a longer one is refused with error 204."""
    check_email: bool = False
    """Whether a start with an address without `@` is refused with error 364."""
    typing_in_refetch: bool = True
    """Whether typing events are still there when the whole transcript is asked for again."""
    read_receipt_notice: bool = True
    """Whether a read receipt leaves a `read-confirm` notice in the transcript."""
    bot_type: str = "Agent"
    """Wire type of a bot in v2, where its event attributes identify it; real servers are not known to send `Bot`."""

    # Timers
    liveness: float | None = None
    """The client is dropped after this long without any request of its own; Chat Server's default is 45."""
    idle_alert: float | None = None
    """Quiet time before the first IdleAlert; Chat Server's default is 255."""
    idle_alert_again: float | None = None
    """Quiet time between the first and a second IdleAlert; Chat Server's default is none."""
    idle_close: float | None = None
    """Quiet time between the last alert and IdleClose, which ends the chat; Chat Server's default is 45."""
    idle_alert_text: str = "Are you still there?"
    idle_close_text: str = "The chat is closed because it was quiet for too long."

    # Files
    max_files: int = 3
    max_file_size: int = 2_097_152
    max_total_size: int = 5_242_880
    file_types: tuple[str, ...] = ("jpeg", "jpg", "pdf", "png", "txt", "zip")
    """File name endings that may be uploaded in v2 and CometD, in lower case."""
    download_attempts: int = 10
    upload_needs_agent: bool = False
    sniff_multipart: bool = False
    """Whether a multipart body under another content type is read all the same; otherwise it is answered 415."""

    # Nexus v3
    endpoints: tuple[str, ...] = ()
    """Endpoints that exist; empty means any, though v3 insists on one being named."""
    image_types: tuple[str, ...] = ("image/png", "image/jpeg", "image/gif")
    token_ttl: float | None = None
    """Life of a client token; None means for ever and leaves `exp` out of it."""
    session_ttl: float | None = None
    """A v3 session without requests is removed after this long (404 INVALID_SESSION); None means never."""
    reopen_ended: bool = True
    """Whether resuming an ended v3 session opens it again; otherwise 404 INVALID_SESSION."""
    v3_custom_notice: bool = False
    v3_read_receipt: bool = False
    v3_hold: float = 0.0
    """How long a v3 poll without new events is held open."""

    # CometD
    connect_timeout: float = 30.0
    """How long a Bayeux connect is held; sent to the client in `advice`."""
    max_interval: float = 10.0
    """A Bayeux client without a held connect for this long is removed (402)."""
    reconnect_interval: float = 0.0
    """Pause that `advice` asks for between two connects."""
    websocket: bool = True
    """Whether the Bayeux URL can be upgraded to a websocket."""
    require_cookie: bool = False
    """Whether requests must carry the cookie of the handshake, 402 without it; that of another browser always is a 402.

    Over a websocket no cookie is checked.
    """
    unknown_client: str = "402::Unknown client"
    gateway_delay: float = 0.02
    """Time between the acknowledgement of an operation and its effect; 0 does it at once."""
    push_with_publish: bool = False
    """Whether queued messages may be returned with the answer to a publish too, not only with a connect."""
    notify_leaver: bool = True
    """Whether the client that publishes `disconnect` is still pushed its own ParticipantLeft."""

    seed: int = 1
    """Seed of all ids; the same seed and the same calls give the same bytes."""


class Schedule:
    """Actions sorted by due time, and by the order in which they were added where times are equal."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()

    @property
    def next_due(self) -> float | None:
        """Return the due time of the first entry, None where there is none."""
        return self._entries[0][0] if self._entries else None

    def add(self, due: float, act: Callable[[float], None]) -> None:
        """Schedule a call of `act`, which is passed its due time."""
        # The running number decides between equal times: functions cannot be compared.
        heapq.heappush(self._entries, (due, next(self._order), act))

    def pop_due(self, now: float) -> Iterator[tuple[float, Callable[[float], None]]]:
        """Remove and yield the due actions one by one, so that actions added meanwhile are included."""
        while self._entries and self._entries[0][0] <= now:
            due, _, act = heapq.heappop(self._entries)
            yield due, act


class IdleStage(NamedTuple):
    """One step of inactivity control: its event follows `after` seconds without activity."""

    after: float
    type: str
    text: str
    user_data_name: str


def idle_stages(options: ServerOptions) -> list[IdleStage]:
    """Return the steps that the options enable, in order."""
    steps = (
        (options.idle_alert, "IdleAlert", options.idle_alert_text, "ALERT"),
        (options.idle_alert_again, "IdleAlert", options.idle_alert_text, "ALERT"),
        (options.idle_close, "IdleClose", options.idle_close_text, "CLOSE"),
    )
    return [IdleStage(after, *rest) for after, *rest in steps if after is not None]


def next_due(chat: Chat, options: ServerOptions) -> float | None:
    """Return the moment at which this chat will act by itself, if nothing happens before."""
    if chat.ended:
        return None
    moments = [moment for moment in (_liveness_due(chat, options), _idle_due(chat, options)) if moment is not None]
    return min(moments, default=None)


def next_check(chat: Chat, options: ServerOptions, now: float) -> float | None:
    """Return the earliest time at which a timer can be due, even if activity restarts the idle timers."""
    due = next_due(chat, options)
    if due is None or not chat.idle_stage:
        return due
    # After an alert any activity goes back to the first stage, whose end may come before that of the present one.
    return min(due, now + idle_stages(options)[0].after)


def run_due(chat: Chat, options: ServerOptions, now: float) -> None:
    """Perform the timers of a chat that are due: drop the client, or publish the next idle event."""
    # Liveness first: a client that is gone is sent no idle event.
    expired_at = _liveness_due(chat, options)
    if expired_at is not None and expired_at <= now:
        chat.leave(now)
        # The client is gone, so there is no one to whom the end would still be shown.
        chat.sealed = True
        return
    idle_at = _idle_due(chat, options)
    if idle_at is not None and idle_at <= now:
        _run_idle_stage(chat, idle_stages(options), now)


def idle_seconds_left(chat: Chat, options: ServerOptions, now: float) -> int | None:
    """Return the whole seconds until IdleClose, `idleTimerExpire` of the envelope; None before the last alert."""
    due = _idle_due(chat, options)
    # The due time implies that the stage exists; between two alerts nothing is about to expire.
    if chat.ended or due is None or not chat.idle_stage or idle_stages(options)[chat.idle_stage].type != "IdleClose":
        return None
    return max(0, math.ceil(due - now))


def _liveness_due(chat: Chat, options: ServerOptions) -> float | None:
    return None if options.liveness is None else chat.last_request + options.liveness


def _idle_due(chat: Chat, options: ServerOptions) -> float | None:
    stages = idle_stages(options)
    return chat.idle_since + stages[chat.idle_stage].after if chat.idle_stage < len(stages) else None


def _run_idle_stage(chat: Chat, stages: list[IdleStage], now: float) -> None:
    stage = stages[chat.idle_stage]
    # Before the event: it names the next stage, and the event itself must not count as activity.
    chat.idle_stage, chat.idle_since = chat.idle_stage + 1, now
    following = stages[chat.idle_stage] if chat.idle_stage < len(stages) else None
    announced = (
        {"next-idle-timer-type": following.user_data_name, "next-idle-timer-secs": f"{following.after:g}"}
        if following
        else {}
    )
    chat.announce(stage.type, now, text=stage.text, user_data=announced)
    # After its event, which thus stands in the transcript before the agents leave.
    if stage.type == "IdleClose":
        chat.end(now)


LOG_LENGTH = 10_000
"""Operations that the log keeps; older ones fall out."""


class ServerState:
    """Holds the shared state. Its time is the last one that a caller passed, and never decreases."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.ids = Ids(options.seed)
        self.faults = Faults()
        self.requests: deque[Logged] = deque(maxlen=LOG_LENGTH)
        self.chats: dict[str, Chat] = {}
        self._keys: dict[str, Chat] = {}
        self.schedule = Schedule()
        self.now = 0.0
        self._watched: set[str] = set()
        self.listeners: list[Callable[[Chat, ServerEvent], None]] = []

    # Chats

    def open_chat(self, service: str, nickname: str, *, first_name: str = "", last_name: str = "") -> Chat:
        """Open a chat, with a ParticipantJoined of its client as the first event."""
        chat = Chat(self.ids, service, self.now, on_event=self._on_event)
        # Two indexes: REST names a chat by its id, CometD and the file form by its key alone.
        # Registered before the client joins: the listeners of that event may ask for the chat.
        self.chats[chat.chat_id] = self._keys[chat.secure_key] = chat
        chat.admit(nickname, "Client", self.now, first_name=first_name, last_name=last_name)
        self.watch(chat)
        return chat

    def by_key(self, secure_key: str | None) -> Chat | None:
        """Return the chat with this `secureKey`, None for an unknown or missing one."""
        # No chat has an empty key, so a request without one finds none.
        return self._keys.get(secure_key or "")

    def purge(self, chat: Chat) -> None:
        """Remove a chat; the next request for it is answered as for an unknown one."""
        if not chat.ended:
            chat.end(self.now)
        # A second purge of the same chat is harmless.
        self.chats.pop(chat.chat_id, None)
        self._keys.pop(chat.secure_key, None)

    def has_service(self, service: str) -> bool:
        """Return whether a service exists; without `ServerOptions.services` every name does."""
        return not self.options.services or service in self.options.services

    def _on_event(self, chat: Chat, event: ServerEvent) -> None:
        for listener in self.listeners:
            listener(chat, event)

    # Time

    def advance(self, now: float) -> bool:
        """Move the time to `now` and perform the actions due until then, in order; true if there was one."""
        acted = False
        for due, act in self.schedule.pop_due(now):
            # Each action runs at its own time: one late tick gives the same transcript as many early ones.
            self.now = max(self.now, due)
            act(self.now)
            acted = True
        self.now = max(self.now, now)
        return acted

    def watch(self, chat: Chat) -> None:
        """Start the timers of a chat; they stop when it ends."""
        # One scheduled check per chat: activity restarts the idle timers so often that an entry for each would pile up.
        check = next_check(chat, self.options, self.now)
        if check is not None and chat.chat_id not in self._watched:
            self._watched.add(chat.chat_id)
            self.schedule.add(check, partial(self._check_timers, chat))

    def _check_timers(self, chat: Chat, now: float) -> None:
        self._watched.discard(chat.chat_id)
        due = next_due(chat, self.options)
        # Activity since the check was scheduled may have moved the timers.
        if due is not None and due <= now:
            run_due(chat, self.options, now)
        self.watch(chat)

    # Operations

    def log(self, dialect: str, operation: str, request: HttpRequest, fields: Fields) -> None:
        """Append a decoded operation to the log, for tests that check what was sent."""
        self.requests.append(
            Logged(dialect, operation, request.method, request.path, fields, request.headers, request.query, self.now)
        )

    def perform(
        self,
        dialect: str,
        names: tuple[str, ...],
        operate: Callable[[], ServerReply],
        replacement: Callable[[Fault], ServerReply],
    ) -> ServerAnswer:
        """Perform an operation, or the fault that matches it, whose replacement reply comes from `replacement`."""
        fault = self.faults.take(dialect, *names)
        if fault is None:
            return operate().answer()
        # In this order, so that the envelope of the fault shows what the operation has done.
        reply = operate() if fault.happens else None
        if reply is None or fault.replaces:
            reply = replacement(fault)
        return fault.send(fault.spoil(reply).answer())
