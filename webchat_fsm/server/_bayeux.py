"""Bayeux over long polling and websockets: clients, handshakes, held connects and queues, independent of chats.

Each HTTP request, and each frame, carries an array of messages; their channels count, not the end of the URL. Messages
for a client are queued until one of its connects returns them. Over a websocket they are pushed at once, in a frame of
their own, and the connect stays held.
"""

from __future__ import annotations

import re
from http.cookies import CookieError, SimpleCookie
from typing import Literal, Protocol

import msgspec

from webchat_fsm._json import read_json
from webchat_fsm.server._faults import Fault
from webchat_fsm.server._http import Held, HttpRequest, ServerAnswer, ServerReply, Upgrade
from webchat_fsm.server._state import ServerState

Wire = dict[str, object]

COOKIE = "BAYEUX_BROWSER"
META_OPERATIONS = frozenset({"handshake", "connect", "subscribe", "unsubscribe", "bye", "upgrade"})
"""Operations of the Bayeux layer; `bye` is `/meta/disconnect`, as `disconnect` ends a chat.

`upgrade` is the request for a websocket.
"""
# CometD clients append the operation to the URL (`appendMessageTypeToURL`); both forms are served.
_PATH = re.compile(r"^(?:/.*)?/cometd/?(?:handshake|connect|disconnect)?/?$")


class QueuedPush(Protocol):
    """A queued message for a client, serialised when it is sent."""

    def render(self) -> Wire:
        """Return the message with its channel and data, as JSON values."""
        ...


class BayeuxClient:
    """One Bayeux session, from its handshake until it leaves or expires; `free_since` is seconds since the epoch."""

    def __init__(self, client_id: str, browser: str, now: float) -> None:
        self.id = client_id
        self.browser = browser
        self.queue: list[QueuedPush] = []
        self.connects = 0
        self.holding = False
        self.free_since = now
        self.socket = ""
        """Id of the websocket that it uses, empty for long polling."""
        self.active_fault: Fault | None = None
        """The fault of the held connect, which changes the messages pushed meanwhile."""
        self.interruption: Literal["expired", "disconnecting", "cut", "left"] | None = None
        """Why the held connect ends: the client is removed, about to be disconnected, cut off, or has left."""

    def drain(self) -> list[Wire]:
        """Empty the queue; return its messages in the order in which they were queued."""
        waiting, self.queue = self.queue, []
        return [push.render() for push in waiting]


class Application(Protocol):
    """The application behind the Bayeux layer: it is passed published messages, and fills the queues of clients."""

    def operation_names(self, message: Wire) -> tuple[str, ...]:
        """Return the names by which faults match a published message; empty for an unknown channel."""
        ...

    def publish(self, client: BayeuxClient, message: Wire, fault: Fault | None) -> None:
        """Process a published message; its result is pushed, as the acknowledgement says only that it was received."""
        ...

    def prepare(self, client: BayeuxClient, fault: Fault | None) -> bool:
        """Queue the new messages of a client, including those of a fault; true if its queue is not empty."""
        ...

    def seen(self, client: BayeuxClient) -> None:
        """Restart the liveness timers of the client's chats."""
        ...


class HeldConnect(msgspec.Struct, frozen=True):
    """A connect that is to be held until `due`, in seconds since the epoch; `number` is its count for the client."""

    client: BayeuxClient
    number: int
    reply: Wire
    due: float


class BayeuxServer:
    """Answers `/meta` messages by the Bayeux specification, and passes published ones to the application."""

    name = "cometd"

    def __init__(self, state: ServerState, application: Application) -> None:
        self._state = state
        self._application = application
        self.clients: dict[str, BayeuxClient] = {}

    def claims(self, path: str) -> bool:
        """Return whether a path ends in `/cometd`, with or without the name of an operation after it."""
        return _PATH.match(path) is not None

    # Websockets

    def upgrade(self, request: HttpRequest) -> Upgrade | None:
        """Grant a websocket, or not; None where the request is to be answered like any other."""
        if not self._state.options.websocket:
            return None
        self._state.log(self.name, "upgrade", request, {})
        fault = self._state.faults.take(self.name, "upgrade")
        if fault is not None and _cuts(fault):
            # Without a frame the front sends this as a plain answer and opens no websocket.
            return Upgrade(fault.send(ServerAnswer(fault.http_status or 200)))
        browser = _browser(request)
        granted, known = ServerAnswer(101), browser or "b" + self._unique()[16:]
        if not browser:
            granted = ServerAnswer(101, {"set-cookie": f"{COOKIE}={known}; Path=/; HttpOnly"})
        # A frame has no headers of its own: the upgrade's, with the cookie that it sets, hold for each frame.
        headers = {**request.headers, "cookie": f"{COOKIE}={known}"}
        frame = HttpRequest("WEBSOCKET", request.path, headers, query=request.query, socket=self._unique())
        return Upgrade(granted if fault is None else fault.send(granted), frame)

    def pushes(self, socket: str) -> ServerAnswer | None:
        """Return the messages to push over a websocket now, or None."""
        for client in self.clients.values():
            # The fault of a held connect was queued with it; here it only alters the messages, in `_serialised`.
            if client.socket == socket and self._application.prepare(client, None):
                return self._serialised(client.drain(), client.browser, client.active_fault)
        return None

    def socket_closed(self, socket: str) -> None:
        """Detach the clients of a closed websocket; their queued messages wait for their next connect."""
        for client in self.clients.values():
            if client.socket == socket:
                client.socket = ""

    # Requests and frames

    def handle(self, request: HttpRequest) -> ServerAnswer | Held:
        """Answer the messages of one request, or hold the connect among them."""
        messages = _messages(request)
        if messages is None:
            return ServerAnswer(400)
        browser, replies = _browser(request), list[Wire]()
        active_fault: Fault | None = None
        for message in messages:
            names = self._names(message)
            self._state.log(self.name, names[0] if names else "unknown", request, message)
            fault = self._state.faults.take(self.name, *names) if names else None
            if fault is not None and _cuts(fault):
                # Carried out as if without a fault: only the answer is lost.
                if fault.happens:
                    self._answered(self._process(message, request, browser, None))
                return fault.send(ServerReply({}, fault.http_status or 200).answer())
            active_fault = fault or active_fault
            outcome = self._process(message, request, browser, fault)
            # Held only when alone: the answers to the other messages of a request must not wait for events.
            if isinstance(outcome, HeldConnect) and len(messages) == 1:
                return self._hold(outcome, active_fault)
            replies += self._answered(outcome)
        return self._serialised(replies, browser, active_fault)

    def _names(self, message: Wire) -> tuple[str, ...]:
        channel = str(message.get("channel", ""))
        if channel.startswith("/meta/"):
            name = channel.removeprefix("/meta/")
            return ("bye",) if name == "disconnect" else (name,)
        return self._application.operation_names(message)

    def _serialised(self, replies: list[Wire], browser: str, fault: Fault | None) -> ServerAnswer:
        reply = ServerReply(replies, headers=self._cookie_for(replies, browser))
        return reply.answer() if fault is None else fault.send(fault.spoil(reply).answer())

    def _cookie_for(self, replies: list[Wire], browser: str) -> dict[str, str]:
        # Of all replies only that to a handshake has a clientId.
        made = next((self.clients.get(str(reply["clientId"])) for reply in replies if "clientId" in reply), None)
        if made is None or made.browser == browser:
            return {}
        return {"set-cookie": f"{COOKIE}={made.browser}; Path=/; HttpOnly"}

    # One message

    def _process(
        self, message: Wire, request: HttpRequest, browser: str, fault: Fault | None
    ) -> list[Wire] | HeldConnect:
        channel = str(message.get("channel", ""))
        reply: Wire = {"channel": channel, "successful": True, **({"id": message["id"]} if "id" in message else {})}
        if channel == "/meta/handshake":
            return [self._handshake(message, reply, browser, fault)]
        client = self._client_of(message, request, browser)
        if client is None:
            # As in CometD servers: the advice to repeat the handshake comes with connects only.
            return [self._unknown_client(reply, with_advice=channel == "/meta/connect")]
        # The last request counts: a client may change from long polling to a websocket and back.
        client.socket = request.socket
        if fault is not None and fault.refused is not None:
            return [_refusal(reply, fault.refused, self._advice() if channel == "/meta/connect" else None)]
        if channel == "/meta/connect":
            return self._connect(client, message, reply, fault)
        if channel == "/meta/disconnect":
            self._remove(client, "left")
            # No connect follows that could return the queue.
            return [*client.drain(), reply]
        # Acknowledged without effect: envelopes go to all clients that are attached to a chat.
        if channel in ("/meta/subscribe", "/meta/unsubscribe"):
            return [{**reply, "subscription": message.get("subscription")}]
        return self._publish(client, message, reply, fault)

    def _handshake(self, message: Wire, reply: Wire, browser: str, fault: Fault | None) -> Wire:
        if fault is not None and fault.refused is not None:
            return _refusal(reply, fault.refused, self._advice("handshake"))
        self._remove_expired()
        unique = self._unique()
        # The cookie stands for the browser: all clients of one share it.
        client = BayeuxClient(unique[:16], browser or "b" + unique[16:], self._state.now)
        self.clients[client.id] = client
        versions = {"version": "1.0", "minimumVersion": "1.0"}
        return {
            **reply,
            **versions,
            "clientId": client.id,
            "supportedConnectionTypes": self._types(message),
            "advice": self._advice(),
        }

    def _types(self, message: Wire) -> list[str]:
        """Return the connection types, with the websocket for clients that offered it."""
        asked = message.get("supportedConnectionTypes")
        known = self._state.options.websocket and isinstance(asked, list) and "websocket" in asked
        return ["websocket", "long-polling"] if known else ["long-polling"]

    def _unique(self) -> str:
        return self._state.ids.unique().replace("-", "")

    def _publish(self, client: BayeuxClient, message: Wire, reply: Wire, fault: Fault | None) -> list[Wire]:
        if not self._application.operation_names(message):
            return [_refusal(reply, "404::Unknown channel", None)]
        self._application.seen(client)
        self._application.publish(client, message, fault)
        # Over a websocket the events follow in a frame of their own.
        if self._state.options.push_with_publish and not client.socket and self._application.prepare(client, None):
            return [reply, *client.drain()]
        return [reply]

    # Connects

    def _connect(
        self, client: BayeuxClient, message: Wire, reply: Wire, fault: Fault | None
    ) -> list[Wire] | HeldConnect:
        # Only the latest connect returns the queue; an earlier one is recognised by its number.
        client.connects += 1
        # A cut is meant for the connect that was held at the time, not for this one.
        if client.interruption == "cut":
            client.interruption = None
        self._application.seen(client)
        hold = self._state.options.connect_timeout
        advice = message.get("advice")
        asked = advice.get("timeout") if isinstance(advice, dict) else None
        if isinstance(asked, int | float):
            # Clients send a timeout of 0 with the first connect, to learn at once that the connection works.
            hold = min(hold, max(0.0, asked / 1000))
        waiting = HeldConnect(client, client.connects, reply, self._state.now + hold)
        client.holding = True
        queued = self._application.prepare(client, fault)
        return self._connected(waiting) if (queued and not client.socket) or not hold else waiting

    def _connected(self, waiting: HeldConnect) -> list[Wire]:
        """Answer a connect; only the client's latest connect returns the queue."""
        client, reply = waiting.client, waiting.reply
        # The client may have given up this connect, and messages in its answer would be lost with it.
        if client.connects != waiting.number:
            return [{**reply, "advice": self._advice()}]
        client.holding, client.free_since = False, self._state.now
        self._application.seen(client)
        if client.interruption == "expired":
            return [self._unknown_client(reply, with_advice=True)]
        if client.interruption == "disconnecting":
            self._remove(client, "disconnecting")
            # Before the reply, so that the client does not connect again on reading it.
            return [{"channel": "/meta/disconnect", "successful": True}, reply]
        self._application.prepare(client, None)
        return [*client.drain(), {**reply, "advice": self._advice()}]

    def _answered(self, outcome: list[Wire] | HeldConnect) -> list[Wire]:
        return self._connected(outcome) if isinstance(outcome, HeldConnect) else outcome

    def _hold(self, waiting: HeldConnect, fault: Fault | None) -> Held:
        client, by_socket = waiting.client, bool(waiting.client.socket)
        client.active_fault = fault

        def resume(now: float) -> ServerAnswer | None:
            if client.interruption == "cut" and client.connects == waiting.number:
                client.interruption, client.holding, client.free_since = None, False, now
                return ServerAnswer(fate="drop")
            latest = client.connects == waiting.number
            waits = latest and now < waiting.due and not client.interruption
            # Over a websocket `pushes` sends the events; the connect itself ends by time or interruption alone.
            if waits and (by_socket or not self._application.prepare(client, None)):
                return None
            return self._serialised(self._connected(waiting), client.browser, fault)

        def abandon(now: float) -> None:
            if client.connects == waiting.number:
                # From here on the client has `max_interval` seconds to connect again.
                client.holding, client.free_since = False, now

        return Held(waiting.due, resume, abandon)

    # Clients

    def _client_of(self, message: Wire, request: HttpRequest, browser: str) -> BayeuxClient | None:
        """Return the client of a message; over a websocket it needs no cookie, as with real servers."""
        self._remove_expired()
        client = self.clients.get(str(message.get("clientId")))
        if client is None or browser == client.browser:
            return client
        needs_cookie = browser or self._state.options.require_cookie
        return None if needs_cookie and not request.socket else client

    def _remove_expired(self) -> None:
        # Called with requests, not by a timer, so that an idle server does nothing.
        oldest = self._state.now - self._state.options.max_interval
        for client in [each for each in self.clients.values() if not each.holding and each.free_since < oldest]:
            self._remove(client, "expired")

    def _remove(self, client: BayeuxClient, why: Literal["expired", "disconnecting", "left"]) -> None:
        client.interruption = why
        self.clients.pop(client.id, None)

    def _unknown_client(self, reply: Wire, *, with_advice: bool) -> Wire:
        advice: Wire = {"reconnect": "handshake", "interval": 0}
        return _refusal(reply, self._state.options.unknown_client, advice if with_advice else None)

    def _advice(self, reconnect: str = "retry") -> Wire:
        options = self._state.options
        return {
            "reconnect": reconnect,
            "interval": round(options.reconnect_interval * 1000),
            "timeout": round(options.connect_timeout * 1000),
        }

    # Failures on demand

    def remove_clients(self) -> None:
        """Remove all clients, as a restart of the server does: their next message is answered 402."""
        for client in list(self.clients.values()):
            self._remove(client, "expired")

    def disconnect_clients(self) -> None:
        """Send all clients a `/meta/disconnect` with their next connect answer, and remove them."""
        for client in list(self.clients.values()):
            client.interruption = "disconnecting"

    def cut_connects(self) -> None:
        """Close the connection of every held connect, without an answer; the clients stay valid."""
        for client in self.clients.values():
            if client.holding:
                client.interruption = "cut"
                client.socket = ""  # at once: events that come before the front aborts it wait for the next one


def _messages(request: HttpRequest) -> list[Wire] | None:
    if request.method != "POST" and not request.socket:
        return None
    try:
        decoded = read_json(request.body)
    except ValueError:
        return None
    # The protocol has an array; CometD servers accept a single message too.
    messages = decoded if isinstance(decoded, list) else [decoded]
    return messages if all(isinstance(message, dict) for message in messages) else None


def _browser(request: HttpRequest) -> str:
    """Return the value of the cookie `BAYEUX_BROWSER`, or an empty text without a valid one."""
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        # A malformed cookie is as good as none: the request is that of a new browser.
        return ""
    return found.value if found else ""


def _cuts(fault: Fault) -> bool:
    """Return whether a fault hits the HTTP exchange rather than a message in it."""
    return fault.drop or fault.http_status is not None or fault.body is not None


def _refusal(reply: Wire, error: str, advice: Wire | None) -> Wire:
    return {**reply, "successful": False, "error": error, **({"advice": advice} if advice else {})}
