"""Test CometD over one websocket with scripted peers: limits, and answers that reach the waiting threads.

The peers run the protocol of `websockets` step by step on the sockets of `Peer`.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.limits import LONG
from webchat_fsm import Config, TransportError, WebChatService
from webchat_fsm._bayeux.matcher import PendingRequest
from webchat_fsm._runtime.http import Urllib3Http, http_for
from webchat_fsm._runtime.sockets import CHUNK, InFlight, Stream
from webchat_fsm._runtime.tls import TlsStream
from webchat_fsm._wire.cometd import JSON
from webchat_fsm._wire.request import Request

pytest.importorskip("websockets")

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Upgrade
from websockets.server import ServerProtocol

from webchat_fsm._runtime.shared_socket import AT_ONCE, UNBOUNDED
from webchat_fsm._runtime.websocket import WebsocketHttp

QUIET = logging.getLogger("quiet peer")
QUIET.setLevel(logging.CRITICAL)

CHANNEL = "/service/chatV2/customer-support"


class Side:
    """Run the server's end of one websocket step by step."""

    def __init__(self, connection, **headers: str):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._protocol = ServerProtocol(logger=QUIET)
        self._events: list = []
        self._message = bytearray()
        self.pongs: list[bytes] = []
        upgrade = self._next()
        assert isinstance(upgrade, Upgrade)
        self.upgrade = upgrade
        answer = self._protocol.accept(upgrade)
        for name, value in headers.items():
            answer.headers[name.replace("_", "-")] = value
        self._protocol.send_response(answer)
        self._flush()

    def _next(self):
        while not self._events:
            data = self.connection.recv(65536)
            if not data:
                raise ConnectionResetError("the client has disconnected")
            self._protocol.receive_data(data)
            self._events += self._protocol.events_received()
            self._flush()
        return self._events.pop(0)

    def _flush(self) -> None:
        self.connection.sendall(self.unsent())

    def unsent(self) -> bytes:
        """Return the bytes that the protocol has to send, for a test that sends them in parts."""
        return b"".join(self._protocol.data_to_send())

    def receive(self) -> dict:
        """Return the next Bayeux message; the pongs before it are appended to `pongs`."""
        while True:
            frame = self._next()
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode is Opcode.CLOSE:
                raise ConnectionResetError("the client has closed")
            else:
                self._message += frame.data
                if frame.fin:
                    (message,), self._message = json.loads(self._message), bytearray()
                    return message

    def frame(self, *messages: dict) -> bytes:
        self._protocol.send_text(json.dumps(messages).encode())
        return self.unsent()

    def send(self, *messages: dict) -> None:
        self.connection.sendall(self.frame(*messages))

    def raw(self, data: bytes, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> None:
        self.connection.sendall(Frame(opcode, data, fin).serialize(mask=False))

    def close(self, code: int = 1000) -> None:
        self._protocol.send_close(code)
        self._flush()


def ack(message: dict, **more) -> dict:
    return {"id": message["id"], "channel": message["channel"], "successful": True, **more}


def push(text: object) -> dict:
    return {"channel": CHANNEL, "data": text}


def upgraded(*steps, **headers: str):
    """Make a script: upgrade, run each step with the server's end, then stay open until the test ends."""

    def script(peer, connection):
        side = Side(connection, **headers)
        for step in steps:
            step(side)
        peer.over.wait(LONG)

    return script


def answering(side: Side) -> None:
    """Acknowledge every message until the connection ends."""
    with suppress(OSError, InvalidState):  # the client may have closed before the reply to its last message
        while True:
            side.send(ack(side.receive()))


def ignoring(peer, connection):
    """Read everything and answer nothing."""
    with suppress(OSError):
        while connection.recv(65536):
            pass


class Client:
    """Send requests as the dialect makes them over the transport under test."""

    def __init__(self, url: str, **client: object):
        section = {"enabled": True, "cometURL": url, "apiURL": url, "websocketEnabled": True}
        self.url = url
        self.http = http_for(Config.read({"cometD": section, "client": client}))
        assert isinstance(self.http, WebsocketHttp)
        self._count = 0
        self._lock = threading.Lock()

    def request(self, operation: str, message: dict, timeout: float | None, **given) -> Request:
        with self._lock:
            self._count += 1
            body = json.dumps([{"id": str(self._count), **message}]).encode()
        path = {"handshake": "/handshake", "connect": "/connect", "hangup": "/disconnect"}.get(operation, "/")
        return Request(operation=operation, method="POST", url=self.url + path, body=body, content_type=JSON,
                       timeout=timeout, **given)  # fmt: skip

    def ask(self, operation: str, message: dict, timeout: float | None = LONG, **given) -> list[dict]:
        answer = self.http.send(self.request(operation, message, timeout, **given))
        assert answer.status == 200
        return json.loads(answer.body)

    def handshake(self, timeout: float = LONG, **given) -> dict:
        types = {"supportedConnectionTypes": ["long-polling"]}
        return self.ask("handshake", {"channel": "/meta/handshake", **types}, timeout, **given)[-1]

    def connect(self, hold: float | None = None, client: str = "a", timeout: float | None = LONG) -> list:
        """Send a connect and return the data pushed before its reply."""
        advice = {} if hold is None else {"advice": {"timeout": hold * 1000}}
        message = {"channel": "/meta/connect", "connectionType": "long-polling", "clientId": client, **advice}
        answered = self.ask("connect", message, timeout)
        assert all("data" in one for one in answered[:-1])
        return [one["data"] for one in answered[:-1]]

    def publish(self, text: str = "hi", timeout: float | None = LONG) -> dict:
        (own,) = self.ask("send", {"channel": CHANNEL, "clientId": "a", "data": {"message": text}}, timeout)
        return own


@pytest.fixture
def make_client():
    """Make clients, which are closed at the end of the test."""
    made = []

    def make(url: str, **client) -> Client:
        made.append(Client(url, **client))
        return made[-1]

    yield make
    for one in made:
        one.http.cut()
        one.http.close()


@pytest.fixture
def in_background(in_threads):
    """Run a function in a thread; return a function that waits for its result or the text of its transport error."""

    def begin(step):
        results: list = []

        def run() -> None:
            try:
                results.append(step())
            except TransportError as error:
                results.append(str(error))

        (thread,) = in_threads(run)

        def result():
            thread.join(LONG)
            assert results, "no result in time"
            return results[0]

        return result

    return begin


# -- the upgrade -------------------------------------------------------------------------------------------------------


def test_messages_are_sent_as_text_frames(peer, make_client):
    received, upgrades = [], []

    def listen(side):
        upgrades.append(side.upgrade)
        for _ in range(3):
            received.append(message := side.receive())
            side.send(ack(message, clientId="a"))

    client = make_client(peer(upgraded(listen)).url + "/")
    assert client.handshake(headers={"Authorization": "Basic eA==", "X-Name": "Jürgen"})["clientId"] == "a"
    client.connect(hold=0.0)
    client.publish("ü")
    assert received[0]["supportedConnectionTypes"] == ["websocket", "long-polling"]
    assert received[1]["connectionType"] == "websocket"
    assert (received[2]["data"], "connectionType" in received[2]) == ({"message": "ü"}, False)
    (upgrade,) = upgrades
    assert (upgrade.path, upgrade.headers["Authorization"]) == ("/chat", "Basic eA==")
    assert upgrade.headers["X-Name"].endswith("rgen")
    assert "Sec-WebSocket-Extensions" not in upgrade.headers


def test_invalid_websocket_url_falls_back_to_long_polling(peer, make_client, replies):
    server = peer(replies.answering(handshake_reply()))
    client = make_client(server.url + "#part")
    client.url = server.url
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")


def test_cookies_are_shared_by_websocket_and_http(peer, make_client, replies):
    seen = []
    granting = upgraded(lambda side: (side.receive(), side.close()), Set_Cookie="JAR=yes; Path=/")
    again = upgraded(lambda side: seen.append(side.upgrade.headers.get("Cookie")), answering)
    server = peer(granting, replies.answering(replies.whole(b"[]")), again)
    client = make_client(server.url)
    with pytest.raises(TransportError):
        client.handshake()
    client.http.send(Request(operation="limits", method="POST", url=server.url, timeout=LONG))
    assert b"Cookie: JAR=yes\r\n" in server.seen[0]
    client.handshake()
    assert seen == ["JAR=yes"]


def test_file_operations_use_http(peer, make_client, replies):
    server = peer(replies.repeating(replies.whole(b"{}")))
    answer = make_client(server.url).http.send(Request(operation="limits", method="POST", url=server.url, timeout=LONG))
    assert (answer.body, len(server.seen)) == (b"{}", 1)


def handshake_reply(message: bytes = b'[{"id":"1","channel":"/meta/handshake","successful":true,"clientId":"a"}]'):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(message), message)


REFUSALS = {
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "400 of HTTP/1.0": b"HTTP/1.0 400 Bad\r\n\r\n",
    "200": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand more, which never comes",
    "302": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
    "101 of another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "101 with a wrong key": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_upgrade_disables_the_websocket_for_good(peer, make_client, replies, refusal):
    server = peer(replies.answering(REFUSALS[refusal], b""), replies.repeating(handshake_reply()))
    client = make_client(server.url)
    assert client.handshake()["clientId"] == "a"
    assert b"Upgrade: websocket" in server.seen[0]
    assert server.seen[1].startswith(b"POST /chat/handshake")
    assert b'["long-polling"]' in server.seen[1]
    assert client.handshake()["clientId"] == "a"
    assert (server.connections, sum(b"Upgrade" in one for one in server.seen)) == (2, 1)


def silent_upgrade(peer, connection):
    peer.read(connection)
    peer.over.wait(LONG)


@pytest.fixture(autouse=True)
def upgrades(monkeypatch):
    """Move the deadlines of upgrades: far away, but for the next ones in `seconds`; `given` has what they were given.

    A test that fails a request at its deadline would else continue by long polling, where the machine is slow.
    """

    upgrade, made = WebsocketHttp._upgraded, SimpleNamespace(seconds=[], given=[])

    def moved(carrier, request, in_flight):
        made.given.append(in_flight._deadline - time.monotonic())
        in_flight._deadline = time.monotonic() + (made.seconds.pop(0) if made.seconds else LONG)
        return upgrade(carrier, request, in_flight)

    monkeypatch.setattr(WebsocketHttp, "_upgraded", moved)
    return made


def closing_early(peer, connection):
    peer.read(connection)


@pytest.mark.parametrize("first", ["503", "429", "silence", "closed", "no HTTP", "endless header"])
def test_failed_upgrade_is_retried_by_the_next_handshake(peer, make_client, replies, upgrades, first):
    scripts = {
        "503": replies.answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b""),
        "429": replies.answering(b"HTTP/1.1 429 Too Many Requests\r\n\r\n", b""),
        "silence": silent_upgrade,
        "closed": closing_early,
        "no HTTP": replies.answering(b"SSH-2.0-OpenSSH_9.0\r\n", b""),
        "endless header": replies.answering(b"HTTP/1.1 101 Ok\r\nX: " + b"x" * 200_000, b""),
    }
    upgrades.seconds.append(0.1 if first == "silence" else LONG)
    server = peer(scripts[first], replies.answering(handshake_reply(), handshake_reply()), upgraded(answering))
    client = make_client(server.url)
    assert client.handshake()["clientId"] == "a"
    client.ask("connect", {"channel": "/meta/connect", "clientId": "a"})
    assert any(one.startswith(b"POST /chat/connect") for one in server.seen)
    assert client.handshake()["channel"] == "/meta/handshake"
    assert server.connections == 3


def test_unanswered_upgrade_takes_half_of_the_timeout(peer, make_client, replies, upgrades):
    upgrades.seconds.append(0.1)
    server = peer(silent_upgrade, replies.answering(handshake_reply()))
    assert make_client(server.url).handshake()["clientId"] == "a"
    assert 0 < upgrades.given[0] <= LONG / 2
    assert server.connections == 2
    assert sorted(one.split()[0] for one in server.seen) == [b"GET", b"POST"]


def test_closed_port_raises_the_error_of_long_polling(peer, make_client):
    server = peer(ignoring)
    url = server.url
    server.close()
    with pytest.raises(TransportError, match="refused the connection"):
        make_client(url).handshake()


# -- answers and pushes ------------------------------------------------------------------------------------------------


def test_answers_out_of_order_reach_their_threads(peer, make_client, in_background):
    def reverse_order(side):
        side.send(ack(side.receive()))
        for message in reversed([side.receive() for _ in range(8)]):
            side.send(ack(message, echo=message["data"]["message"]))

    client = make_client(peer(upgraded(reverse_order)).url)
    client.publish()
    results = {str(number): in_background(lambda text=str(number): client.publish(text)) for number in range(8)}
    assert {text: result()["echo"] for text, result in results.items()} == {text: text for text in results}


def test_push_returns_from_a_connect_that_stays_pending(peer, make_client):
    received = []

    def listen(side):
        received.append(side.receive())
        side.send(push("one"))
        received.append(side.receive())
        side.send(ack(received[-1]))
        side.send(push("two"))
        side.send(push("three"))
        received.append(side.receive())
        side.send(ack(received[-1]))

    client = make_client(peer(upgraded(listen)).url)
    assert client.connect() == ["one"]
    client.publish()
    pushed = client.connect()
    while len(pushed) < 2:
        pushed += client.connect()
    assert pushed == ["two", "three"]
    client.publish()
    assert [message["channel"] for message in received] == ["/meta/connect", CHANNEL, CHANNEL]


def test_connect_with_timeout_0_is_sent_again(peer, make_client):
    received = []

    def listen(side):
        received.append(first := side.receive())
        side.send(push("one"))
        received.append(second := side.receive())
        side.send(ack(first))
        side.send(push("two"), ack(second, advice={"interval": 3}))

    client = make_client(peer(upgraded(listen)).url)
    assert client.connect() == ["one"]
    assert client.connect(hold=0.0) == ["two"]
    assert [message.get("advice") for message in received] == [None, {"timeout": 0.0}]


def test_connect_replacing_a_pending_one_keeps_its_timeout(peer, make_client, stopwatch):
    client = make_client(peer(upgraded(lambda side: (side.receive(), side.send(push("one"))))).url)
    assert client.connect() == ["one"]
    stopwatch.restart()
    assert client.connect(hold=0.3) == []
    assert stopwatch.seconds >= 0.3
    assert stopwatch.soon


def test_unawaited_pushes_are_returned_by_the_next_connect(peer, make_client, eventually):
    answered = threading.Event()

    def listen(side):
        side.send(ack(side.receive()))
        side.send(push("one"))
        side.send(push("two"))
        answered.set()
        answering(side)

    client = make_client(peer(upgraded(listen)).url)
    client.publish()
    assert answered.wait(LONG)
    client.publish()
    assert client.connect() == ["one", "two"]


def test_concurrent_publishing_loses_and_repeats_no_push(peer, make_client, in_background):
    threads, each = 6, 60

    def gateway(side):
        with suppress(OSError, InvalidState):
            while True:
                message = side.receive()
                if message["channel"] == CHANNEL:
                    side.send(ack(message, echo=message["data"]["message"]))
                    side.send(push(message["data"]["message"]))

    client = make_client(peer(upgraded(gateway)).url)
    expected = {f"{name}-{number}" for name in range(threads) for number in range(each)}
    pushed: list[str] = []

    def listen() -> None:
        while len(pushed) < len(expected):
            pushed.extend(client.connect())

    def publish_all(name: int) -> list[str]:
        return [client.publish(f"{name}-{number}")["echo"] for number in range(each)]

    listening = in_background(listen)
    publishers = [in_background(lambda name=name: publish_all(name)) for name in range(threads)]
    assert [result() for result in publishers] == [[f"{name}-{n}" for n in range(each)] for name in range(threads)]
    assert listening() is None
    assert sorted(pushed) == sorted(expected)
    for name in range(threads):
        own = [text for text in pushed if text.startswith(f"{name}-")]
        assert own == [f"{name}-{number}" for number in range(each)]


def test_thread_whose_answer_was_just_read_does_not_read(peer, make_client):
    """Set the answer early, as another thread may between the check and the claim of the stream."""
    client = make_client(peer(upgraded(answering)).url)
    client.publish()
    pending = PendingRequest(client.request("send", {"channel": CHANNEL}, 1.0).body)
    pending.answer = b"[]"
    assert client.http._socket._read(pytest.fail, pending) is False


def test_fragmented_message_is_joined_and_ping_answered(peer, make_client):
    sides = []

    def listen(side):
        sides.append(side)
        message = side.receive()
        whole = json.dumps([push("ü" * 10), ack(message)]).encode()
        side.raw(whole[:31], fin=False)
        side.raw(b"are you there", Opcode.PING)
        side.raw(whole[31:50], Opcode.CONT, fin=False)
        side.raw(whole[50:], Opcode.CONT)
        side.send(ack(side.receive()))

    client = make_client(peer(upgraded(listen)).url)
    assert client.connect() == ["ü" * 10]
    client.publish()
    assert sides[0].pongs == [b"are you there"]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_silent_server_fails_a_publish_at_its_deadline(peer, make_client, stopwatch):
    client = make_client(peer(upgraded(answering_once)).url)
    client.publish()
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"^send: no complete answer within 0.3 s$"):
        client.publish(timeout=0.3)
    assert stopwatch.soon


def answering_once(side):
    side.send(ack(side.receive()))
    ignoring_side(side)


def ignoring_side(side):
    with suppress(OSError):
        while True:
            side.receive()


def test_unanswered_handshake_selects_long_polling(peer, make_client, replies):
    server = peer(upgraded(ignoring_side), replies.answering(handshake_reply()), upgraded(answering))
    client = make_client(server.url)
    with pytest.raises(TransportError, match="no complete answer"):
        client.handshake(timeout=0.5)
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")
    client.handshake()
    assert server.connections == 3


def closing(side):
    side.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.connection.close()


def test_socket_lost_on_first_message_selects_long_polling(peer, make_client, replies):
    server = peer(upgraded(lambda side: (side.receive(), closing(side))), replies.repeating(handshake_reply()))
    client = make_client(server.url)
    with pytest.raises(TransportError, match="connection was lost"):
        client.handshake()
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")


def test_socket_closing_after_upgrade_is_retried_twice(peer, make_client, replies):
    """Accept either order: the socket ends before anything is sent, or on the first message."""
    scripts = [upgraded(closing)] * 30
    server = peer(*scripts)
    client, further = make_client(server.url), []
    for _ in range(3):
        with pytest.raises(TransportError):
            client.handshake(timeout=1.0, repeated=lambda: further.append(1))
    assert server.connections <= 3 * 3
    assert 1 <= len(further) <= 3 * 2


def test_unanswered_connect_closes_the_socket(peer, make_client):
    server = peer(upgraded(answering_once), upgraded(answering))
    client = make_client(server.url)
    client.publish()
    with pytest.raises(TransportError, match="no complete answer"):
        client.connect(timeout=0.3)
    assert client.connect() == []
    assert server.connections == 2


def test_frame_half_read_at_a_deadline_is_read_by_the_next(peer, make_client, in_background):
    halfway, go_on = threading.Event(), threading.Event()

    def listen(side):
        frame = side.frame(
            *(ack(message, echo=message["data"]["message"]) for message in (side.receive(), side.receive()))
        )
        side.connection.sendall(frame[:20])
        halfway.set()
        go_on.wait(LONG)
        side.connection.sendall(frame[20:])
        side.send(ack(side.receive()))

    client = make_client(peer(upgraded(listen)).url)
    reading = in_background(lambda: client.publish(timeout=1.0))
    waiting = in_background(lambda: client.publish("all of it"))
    assert halfway.wait(LONG)
    assert reading() == "send: no complete answer within 1 s"
    go_on.set()
    assert waiting()["echo"] == "all of it"
    client.publish()


def test_frame_sent_slowly_fails_at_the_deadline(peer, make_client, stopwatch):
    def sending_slowly(side):
        frame = side.frame(ack(side.receive(), text="x" * 10_000))
        for byte in frame:
            side.connection.sendall(bytes([byte]))
            time.sleep(0.01)

    client = make_client(peer(upgraded(sending_slowly)).url)
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"no complete answer within 0.5 s"):
        client.publish(timeout=0.5)
    assert stopwatch.soon


@pytest.mark.parametrize("fragments", [1, 4])
def test_message_beyond_the_limit_is_an_error(peer, make_client, fragments):
    def large(side):
        side.receive()
        for number in range(fragments):
            opcode = Opcode.CONT if number else Opcode.TEXT
            side.raw(b"[" + b" " * (6000 // fragments), opcode, fin=number == fragments - 1)

    client = make_client(peer(upgraded(large)).url, maxAnswerSize=5000)
    with pytest.raises(TransportError, match=r"^send: the answer is larger than 5000 bytes$"):
        client.publish()


def test_too_many_unread_pushes_close_the_socket(peer, make_client):
    def flood(side):
        message = side.receive()
        for _ in range(10):
            side.send(push("x" * 1000))
        side.send(ack(message))

    server = peer(upgraded(flood), upgraded(answering))
    client = make_client(server.url, maxAnswerSize=5000)
    with pytest.raises(TransportError, match="more than 5000 bytes of pushes"):
        client.publish()
    with pytest.raises(TransportError, match=r"^connect: the connection was lost"):
        client.connect()
    assert client.connect() == []


@pytest.mark.parametrize("frame", [b"<html>", b"\xff\xfe", b'"text"', b"[" * 4000])
def test_frame_that_is_no_array_of_messages_closes_socket(peer, make_client, frame):
    server = peer(upgraded(lambda side: (side.receive(), side.raw(frame))), upgraded(answering))
    client = make_client(server.url)
    with pytest.raises(TransportError, match=r"^connect: (what the server sent is no array|the connection was lost)"):
        client.connect()
    client.publish()
    assert server.connections == 2


@pytest.mark.parametrize("garbage", [b"\x93\x00", b"\x81\xff" + b"\xff" * 20, b"\xf1\x00"])
def test_bytes_that_are_no_frame_fail_the_publish(peer, make_client, garbage):
    server = peer(upgraded(lambda side: (side.receive(), side.connection.sendall(garbage))))
    with pytest.raises(TransportError, match=r"^send: (the connection was lost|the answer is larger)"):
        make_client(server.url).publish()


def test_message_sent_in_part_closes_the_socket(peer, make_client, in_background):
    held, reads = threading.Event(), threading.Event()
    server = peer(upgraded(lambda side: (side.receive(), held.set(), reads.wait(LONG))), upgraded(answering))
    client = make_client(server.url)
    waiting = in_background(client.connect)
    assert held.wait(LONG)
    large = client.request(
        "send", {"channel": CHANNEL, "data": "x" * 16_000_000}, 1.0
    )  # more than the socket buffers hold
    with pytest.raises(TransportError, match=r"no complete answer within 1 s"):
        client.http.send(large)
    assert "lost" in waiting()
    reads.set()
    client.publish()
    assert server.connections == 2


# -- cut and closed ----------------------------------------------------------------------------------------------------


def test_cut_fails_all_requests_and_later_ones_succeed(peer, make_client, in_background, stopwatch):
    arrived = threading.Semaphore(0)

    def listen(side):
        with suppress(OSError):
            while True:
                side.receive()
                arrived.release()

    server = peer(upgraded(listen), upgraded(answering))
    client = make_client(server.url)
    waiting = [in_background(client.connect)]
    assert arrived.acquire(timeout=LONG)
    waiting += [in_background(client.publish) for _ in range(7)]
    assert all(arrived.acquire(timeout=LONG) for _ in range(7))
    stopwatch.restart()
    client.http.cut()
    assert {one() for one in waiting} == {f"{name}: cut, as the service was closed" for name in ("connect", "send")}
    assert stopwatch.soon
    assert client.publish()["successful"]
    assert server.connections == 2


def test_cut_fails_requests_that_wait_for_the_upgrade(peer, make_client, in_background, eventually):
    server = peer(silent_upgrade)
    client = make_client(server.url)
    waiting = [in_background(client.handshake), in_background(client.handshake)]
    eventually(lambda: server.seen and len(client.http.all_in_flight) == 3)
    client.http.cut()
    assert [one() for one in waiting] == ["handshake: cut, as the service was closed"] * 2
    assert server.connections == 1


def test_cut_fails_a_request_in_its_tls_handshake(peer, make_client, in_background, eventually):
    server = peer(lambda peer, connection: peer.over.wait(LONG))
    client = make_client(server.url.replace("http:", "https:"))
    waiting = in_background(client.handshake)
    eventually(lambda: server.connections and len(client.http.all_in_flight) == 2)
    client.http.cut()
    assert waiting() == "handshake: cut, as the service was closed"


@pytest.mark.parametrize("how", ["close frame", "end of file", "reset"])
def test_closed_socket_fails_all_and_next_request_reopens(peer, make_client, in_background, how):
    def ending(side):
        side.receive()
        side.receive()
        if how == "close frame":
            side.close(1001)
            ignoring(None, side.connection)
        elif how == "reset":
            side.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.connection.close()

    server = peer(upgraded(ending), upgraded(answering))
    client = make_client(server.url)
    waiting = [in_background(client.connect), in_background(client.publish)]
    lost = "the connection was lost before the answer was complete"
    assert [one() for one in waiting] == [f"connect: {lost}", f"send: {lost}"]
    assert client.connect() == []
    assert server.connections == 2


def test_lost_socket_fails_only_the_next_connect(peer, make_client, eventually):
    over = threading.Event()

    def ending(side):
        side.send(ack(side.receive()))
        side.close()
        over.set()

    server = peer(upgraded(ending), upgraded(answering))
    client = make_client(server.url)
    client.publish()
    assert over.wait(LONG)
    client.publish()
    with pytest.raises(TransportError, match="lost"):
        client.connect()
    assert client.connect() == []
    assert server.connections == 2


def test_disconnect_closes_the_socket_with_a_close_frame(peer, make_client):
    over = threading.Event()

    def listen(side):
        side.send(ack(side.receive()))
        with pytest.raises(ConnectionResetError, match="has closed"):
            side.receive()
        over.set()

    client = make_client(peer(upgraded(listen)).url)
    client.ask("hangup", {"channel": "/meta/disconnect", "clientId": "a"})
    assert over.wait(LONG)


def test_websocket_starts_no_thread(peer, make_client):
    client = make_client(peer(upgraded(answering)).url)
    before = threading.active_count()
    client.handshake()
    client.publish()
    assert threading.active_count() <= before + 1  # the thread of the peer


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority():
    return pytest.importorskip("trustme").CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def secure(authority, peer):
    """Make TLS peers, which may require a client certificate."""

    def make(*scripts, asks: bool = False, **given):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        if asks:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return peer(*scripts, tls=context)

    return make


def test_threads_read_and_write_at_once_under_tls(secure, make_client, ca_file, in_background):
    text = "x" * 50_000

    def gateway(side):
        with suppress(OSError, InvalidState):
            while True:
                message = side.receive()
                if message["channel"] == CHANNEL:
                    side.send(ack(message), push(message["data"]["message"]))

    client = make_client(secure(upgraded(gateway)).url, tls={"ca": ca_file})
    pushed: list[str] = []

    def listen() -> None:
        while len(pushed) < 120:
            pushed.extend(client.connect())

    listening = in_background(listen)
    publishers = [in_background(lambda: [client.publish(text) for _ in range(40)]) for _ in range(3)]
    assert [len(result()) for result in publishers] == [40] * 3
    assert listening() is None
    assert pushed == [text] * 120


class Scripted:
    """Stand for the stream below TLS: gives bytes in parts of given sizes, and keeps what is written."""

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.incoming, self.written = list(sizes), b"", b""

    def read(self, in_flight):
        size = self.sizes.pop(0) if self.sizes else CHUNK
        part, self.incoming = self.incoming[:size], self.incoming[size:]
        return part

    def write(self, data, in_flight):
        self.written += data

    write_now = write


@pytest.mark.parametrize("first", [1, 5, 10_000, 16_000, 16_404, 20_000, 65_535])
def test_one_read_leaves_no_decrypted_bytes_behind(authority, ca_file, first):
    """Read a burst over TLS, cut anywhere: bytes kept in the stream would show no selector that they are there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    inner = Scripted()
    stream = TlsStream(inner, ssl.create_default_context(cafile=ca_file), "127.0.0.1")
    for _ in range(3):
        with suppress(ssl.SSLWantReadError):
            stream._tls.do_handshake()
        to_server.write(stream._to_send.read())
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        stream._received.write(to_client.read())
    server.write(b"x" * 150_000)
    inner.incoming, inner.sizes = to_client.read(), [first]
    in_flight, received = InFlight(None, UNBOUNDED), b""
    while len(received) < 150_000:
        received += stream.read(in_flight, AT_ONCE)
        assert stream._plain == b""
    assert received == b"x" * 150_000


def test_client_certificate_is_sent_where_required(secure, make_client, authority, ca_file, tmp_path):
    shown = authority.issue_cert("someone@example.org")
    shown.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    server = secure(upgraded(answering), asks=True)
    tls = {"ca": ca_file, "cert": str(tmp_path / "client.pem")}
    assert make_client(server.url, tls=tls).publish()["successful"]


def test_tls_verification_can_be_disabled(secure, make_client):
    assert make_client(secure(upgraded(answering)).url, tls={"verify": False}).publish()["successful"]


def test_unknown_authority_is_a_tls_error(secure, make_client):
    with pytest.raises(TransportError, match=r"TLS failed: .*CERTIFICATE_VERIFY_FAILED"):
        make_client(secure(upgraded(answering)).url).handshake()


def test_closed_tls_connection_is_a_lost_connection(secure, make_client, ca_file):
    server = secure(upgraded(lambda side: (side.receive(), side.connection.unwrap())))
    with pytest.raises(TransportError, match="lost"):
        make_client(server.url, tls={"ca": ca_file}).publish()


# -- choice of transport -----------------------------------------------------------------------------------------------


def section(**more) -> dict:
    return {"enabled": True, "cometURL": "http://chat.test/cometd", "apiURL": "http://chat.test/files", **more}


def test_long_polling_is_the_default():
    assert type(http_for(Config.read({"cometD": section()}))) is Urllib3Http
    assert (
        type(http_for(Config.read({"dataURL": "http://chat.test/", "cometD": {"websocketEnabled": True}})))
        is Urllib3Http
    )


def test_proxy_selects_long_polling_and_logs_it(caplog):
    config = Config.read({"cometD": section(websocketEnabled=True), "client": {"proxy": "http://proxy.test:3128"}})
    assert type(http_for(config)) is Urllib3Http
    assert caplog.messages == ["cometD.websocketEnabled has no effect with client.proxy: long polling instead"]


def test_missing_package_selects_long_polling_and_logs_it(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "webchat_fsm._runtime.websocket", None)
    assert type(http_for(Config.read({"cometD": section(websocketEnabled=True)}))) is Urllib3Http
    (record,) = caplog.records
    assert (record.levelname, "pip install 'webchat-fsm[websocket]'" in record.message) == ("WARNING", True)


def test_service_makes_its_http_unless_given_one(wire):
    config = {"cometD": section(websocketEnabled=True)}
    assert isinstance(WebChatService(config)._engine._http, WebsocketHttp)
    given = wire()
    assert WebChatService(config, http=given)._engine._http is given


def test_selector_and_reader_wait_by_two_descriptors():
    # Under eventlet a descriptor has one reader alone, and a second wait raises; tests/engines meets it by chance.
    ours, theirs = socket.socketpair()
    stream = Stream(ours)
    stream.split()
    try:
        assert stream.fileno() != ours.fileno()
        theirs.send(b"x")
        with selectors.DefaultSelector() as selector:
            selector.register(stream.fileno(), selectors.EVENT_READ)
            assert selector.select(LONG)
    finally:
        stream.close()
        theirs.close()


def test_websocket_logs_no_secret(peer, make_client, debug_log):
    client = make_client(peer(upgraded(answering)).url)
    client.handshake(headers={"Authorization": "sEcReT-1"})
    client.publish("sEcReT-2")
    assert "sEcReT" not in debug_log.text
