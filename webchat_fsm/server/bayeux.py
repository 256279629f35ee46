"""Bayeux over long polling and websockets: clients, handshakes, held connects, queues. It knows nothing of chats.

Every HTTP request, and every frame, carries an array of messages; the end of its URL is ignored in favour of their
channels. What the server has to say to a client waits in the client's queue until one of its connects takes it along.
Over a websocket it goes at once, in a frame of its own, and the connect stays held.
"""

from __future__ import annotations

import re
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

import msgspec

from webchat_fsm.lifecycle.encoding import read_json
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.exchange import Held, HttpAnswer, HttpRequest, Reply, Upgrade
from webchat_fsm.server.faults import Fault

Wire = dict[str, object]

COOKIE = "BAYEUX_BROWSER"
META_OPERATIONS = frozenset({"handshake", "connect", "subscribe", "unsubscribe", "bye", "upgrade"})
"""Names of what clients say to the Bayeux layer; `bye` is `/meta/disconnect`, `disconnect` being the end of a chat.

`upgrade` is the request for a websocket.
"""
_PATH = re.compile(r"^(?:/.*)?/cometd/?(?:handshake|connect|disconnect)?/?$")


class Push(Protocol):
    """Something to tell a client, put into words when it is sent."""

    def render(self) -> Wire:
        """The Bayeux message."""


class Client:
    """One Bayeux session."""

    def __init__(self, client_id: str, browser: str, now: float) -> None:
        self.id = client_id
        self.browser = browser
        self.queue: list[Push] = []
        self.connects = 0
        self.holding = False
        self.free_since = now
        self.socket = ""
        """The websocket over which it speaks, empty for long polling."""
        self.spoiling: Fault | None = None
        """What a held connect's fault does to the news that come meanwhile."""
        self.farewell: str | None = None
        """Why the server let go of this client: `forgotten`, `hung up`, `cut` or `left`."""

    def drain(self) -> list[Wire]:
        """Take everything out of the queue."""
        waiting, self.queue = self.queue, []
        return [push.render() for push in waiting]


class Application(Protocol):
    """What is behind the Bayeux layer."""

    def operation_names(self, message: Wire) -> tuple[str, ...]:
        """The names under which faults may hit a published message; empty for an unknown channel."""

    def publish(self, client: Client, message: Wire, fault: Fault | None) -> None:
        """Take a message that was acknowledged."""

    def prepare(self, client: Client, fault: Fault | None) -> bool:
        """Put what is new into the client's queue, a connect's fault included; true if anything waits there."""

    def seen(self, client: Client) -> None:
        """Note that the client gave a sign of life."""


class Waiting(msgspec.Struct, frozen=True):
    """A connect that is to be held."""

    client: Client
    number: int
    reply: Wire
    due: float


class Bayeux:
    """The Bayeux server."""

    name = "cometd"

    def __init__(self, centre: Centre, application: Application) -> None:
        self._centre = centre
        self._application = application
        self.clients: dict[str, Client] = {}

    def claims(self, path: str) -> bool:
        """Whether a path is a Bayeux URL."""
        return _PATH.match(path) is not None

    # Websockets

    def upgrade(self, request: HttpRequest) -> Upgrade | None:
        """Grant a websocket, or not; None where the request is to be answered like any other."""
        if not self._centre.options.websocket:
            return None
        self._centre.log(self.name, "upgrade", request, {})
        fault = self._centre.faults.take(self.name, "upgrade")
        if fault is not None and _cuts(fault):
            return Upgrade(fault.send(HttpAnswer(fault.http_status or 200)))
        browser = _browser(request)
        granted, known = HttpAnswer(101), browser or "b" + self._unique()[16:]
        if not browser:
            granted = HttpAnswer(101, {"set-cookie": f"{COOKIE}={known}; Path=/; HttpOnly"})
        headers = {**request.headers, "cookie": f"{COOKIE}={known}"}
        frame = HttpRequest("WEBSOCKET", request.path, headers, query=request.query, socket=self._unique())
        return Upgrade(granted if fault is None else fault.send(granted), frame)

    def news(self, socket: str) -> HttpAnswer | None:
        """What is to be sent over a websocket by itself now."""
        for client in self.clients.values():
            if client.socket == socket and self._application.prepare(client, None):
                return self._written(client.drain(), client.browser, client.spoiling)
        return None

    def unplug(self, socket: str) -> None:
        """Know that a websocket is closed: what its clients have not been told waits for their next one."""
        for client in self.clients.values():
            if client.socket == socket:
                client.socket = ""

    # Requests and frames

    def handle(self, request: HttpRequest) -> HttpAnswer | Held:
        """Answer the messages of one request, or hold the connect among them."""
        messages = _messages(request)
        if messages is None:
            return HttpAnswer(400)
        browser, replies = _browser(request), list[Wire]()
        spoiling: Fault | None = None
        for message in messages:
            names = self._names(message)
            self._centre.log(self.name, names[0] if names else "unknown", request, message)
            fault = self._centre.faults.take(self.name, *names) if names else None
            if fault is not None and _cuts(fault):
                if fault.happens:
                    self._settle(self._step(message, request, browser, None))
                return fault.send(Reply({}, fault.http_status or 200).answer())
            spoiling = fault or spoiling
            outcome = self._step(message, request, browser, fault)
            if isinstance(outcome, Waiting) and len(messages) == 1:
                return self._hold(outcome, spoiling)
            replies += self._settle(outcome)
        return self._written(replies, browser, spoiling)

    def _names(self, message: Wire) -> tuple[str, ...]:
        channel = str(message.get("channel", ""))
        if channel.startswith("/meta/"):
            name = channel.removeprefix("/meta/")
            return ("bye",) if name == "disconnect" else (name,)
        return self._application.operation_names(message)

    def _written(self, replies: list[Wire], browser: str, fault: Fault | None) -> HttpAnswer:
        reply = Reply(replies, headers=self._cookie_for(replies, browser))
        return reply.answer() if fault is None else fault.send(fault.spoil(reply).answer())

    def _cookie_for(self, replies: list[Wire], browser: str) -> dict[str, str]:
        made = next((self.clients.get(str(reply["clientId"])) for reply in replies if "clientId" in reply), None)
        if made is None or made.browser == browser:
            return {}
        return {"set-cookie": f"{COOKIE}={made.browser}; Path=/; HttpOnly"}

    # One message

    def _step(self, message: Wire, request: HttpRequest, browser: str, fault: Fault | None) -> list[Wire] | Waiting:
        channel = str(message.get("channel", ""))
        reply: Wire = {"channel": channel, "successful": True, **({"id": message["id"]} if "id" in message else {})}
        if channel == "/meta/handshake":
            return [self._handshake(message, reply, browser, fault)]
        client = self._known(message, request, browser)
        if client is None:
            return [self._unknown(reply, with_advice=channel == "/meta/connect")]
        client.socket = request.socket
        if fault is not None and fault.refused is not None:
            return [_refusal(reply, fault.refused, self._advice() if channel == "/meta/connect" else None)]
        if channel == "/meta/connect":
            return self._connect(client, message, reply, fault)
        if channel == "/meta/disconnect":
            self._let_go(client, "left")
            return [*client.drain(), reply]
        if channel in ("/meta/subscribe", "/meta/unsubscribe"):
            return [{**reply, "subscription": message.get("subscription")}]
        return self._publish(client, message, reply, fault)

    def _handshake(self, message: Wire, reply: Wire, browser: str, fault: Fault | None) -> Wire:
        if fault is not None and fault.refused is not None:
            return _refusal(reply, fault.refused, self._advice("handshake"))
        self._sweep()
        unique = self._unique()
        client = Client(unique[:16], browser or "b" + unique[16:], self._centre.now)
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
        """The ways to connect, the websocket for those who know it."""
        asked = message.get("supportedConnectionTypes")
        known = self._centre.options.websocket and isinstance(asked, list) and "websocket" in asked
        return ["websocket", "long-polling"] if known else ["long-polling"]

    def _unique(self) -> str:
        return self._centre.ids.unique().replace("-", "")

    def _publish(self, client: Client, message: Wire, reply: Wire, fault: Fault | None) -> list[Wire]:
        if not self._application.operation_names(message):
            return [_refusal(reply, "404::Unknown channel", None)]
        self._application.seen(client)
        self._application.publish(client, message, fault)
        if self._centre.options.push_with_publish and not client.socket and self._application.prepare(client, None):
            return [reply, *client.drain()]
        return [reply]

    # Connects

    def _connect(self, client: Client, message: Wire, reply: Wire, fault: Fault | None) -> list[Wire] | Waiting:
        client.connects += 1
        if client.farewell == "cut":
            client.farewell = None
        self._application.seen(client)
        hold = self._centre.options.connect_timeout
        advice = message.get("advice")
        asked = advice.get("timeout") if isinstance(advice, dict) else None
        if isinstance(asked, int | float):
            hold = min(hold, max(0.0, asked / 1000))
        waiting = Waiting(client, client.connects, reply, self._centre.now + hold)
        client.holding = True
        news = self._application.prepare(client, fault)
        return self._connected(waiting) if (news and not client.socket) or not hold else waiting

    def _connected(self, waiting: Waiting) -> list[Wire]:
        """What a connect brings home; only the client's latest one takes the queue along."""
        client, reply = waiting.client, waiting.reply
        if client.connects != waiting.number:
            return [{**reply, "advice": self._advice()}]
        client.holding, client.free_since = False, self._centre.now
        self._application.seen(client)
        if client.farewell == "forgotten":
            return [self._unknown(reply, with_advice=True)]
        if client.farewell == "hung up":
            self._let_go(client, "hung up")
            return [{"channel": "/meta/disconnect", "successful": True}, reply]
        self._application.prepare(client, None)
        return [*client.drain(), {**reply, "advice": self._advice()}]

    def _settle(self, outcome: list[Wire] | Waiting) -> list[Wire]:
        return self._connected(outcome) if isinstance(outcome, Waiting) else outcome

    def _hold(self, waiting: Waiting, fault: Fault | None) -> Held:
        client, by_socket = waiting.client, bool(waiting.client.socket)
        client.spoiling = fault

        def resume(now: float) -> HttpAnswer | None:
            if client.farewell == "cut" and client.connects == waiting.number:
                client.farewell, client.holding, client.free_since = None, False, now
                return HttpAnswer(fate="drop")
            latest = client.connects == waiting.number
            waits = latest and now < waiting.due and not client.farewell
            if waits and (by_socket or not self._application.prepare(client, None)):
                return None
            return self._written(self._connected(waiting), client.browser, fault)

        def abandon(now: float) -> None:
            if client.connects == waiting.number:
                client.holding, client.free_since = False, now

        return Held(waiting.due, resume, abandon)

    # Clients

    def _known(self, message: Wire, request: HttpRequest, browser: str) -> Client | None:
        """The client of a message; over a websocket it needs no cookie, as with real servers."""
        self._sweep()
        client = self.clients.get(str(message.get("clientId")))
        if client is None or browser == client.browser:
            return client
        needs_cookie = browser or self._centre.options.require_cookie
        return None if needs_cookie and not request.socket else client

    def _sweep(self) -> None:
        oldest = self._centre.now - self._centre.options.max_interval
        for client in [each for each in self.clients.values() if not each.holding and each.free_since < oldest]:
            self._let_go(client, "forgotten")

    def _let_go(self, client: Client, why: str) -> None:
        client.farewell = why
        self.clients.pop(client.id, None)

    def _unknown(self, reply: Wire, *, with_advice: bool) -> Wire:
        advice: Wire = {"reconnect": "handshake", "interval": 0}
        return _refusal(reply, self._centre.options.unknown_client, advice if with_advice else None)

    def _advice(self, reconnect: str = "retry") -> Wire:
        options = self._centre.options
        return {
            "reconnect": reconnect,
            "interval": round(options.reconnect_interval * 1000),
            "timeout": round(options.connect_timeout * 1000),
        }

    # Mishaps on demand

    def forget(self) -> None:
        """Forget all clients, as after a restart of the server: whatever they send next is answered 402."""
        for client in list(self.clients.values()):
            self._let_go(client, "forgotten")

    def hang_up(self) -> None:
        """Send all clients a `/meta/disconnect` with their next connect answer, and forget them."""
        for client in list(self.clients.values()):
            client.farewell = "hung up"

    def cut(self) -> None:
        """Cut every connect that is held now, without an answer; the clients stay known."""
        for client in self.clients.values():
            if client.holding:
                client.farewell = "cut"
                client.socket = ""  # at once: events that come before the front aborts it wait for the next one


def _messages(request: HttpRequest) -> list[Wire] | None:
    if request.method != "POST" and not request.socket:
        return None
    try:
        decoded = read_json(request.body)
    except ValueError:
        return None
    messages = decoded if isinstance(decoded, list) else [decoded]
    return messages if all(isinstance(message, dict) for message in messages) else None


def _browser(request: HttpRequest) -> str:
    """The browser's cookie, or an empty text."""
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _cuts(fault: Fault) -> bool:
    """Whether a fault hits the HTTP exchange rather than a message in it."""
    return fault.drop or fault.http_status is not None or fault.body is not None


def _refusal(reply: Wire, error: str, advice: Wire | None) -> Wire:
    return {**reply, "successful": False, "error": error, **({"advice": advice} if advice else {})}
