"""CometD over one websocket, against peers that do as they are told: bounds that hold, and answers that find their way.

The peers speak through the protocol of `websockets`, by hand, on the plain sockets of `Peer`.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

import pytest

from webchat_fsm import Config, TransportError, WebChatService
from webchat_fsm.runtime.carrier import carrier
from webchat_fsm.runtime.http import Urllib3Http
from webchat_fsm.wire.cometd import JSON
from webchat_fsm.wire.request import Request

pytest.importorskip("websockets")

from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Upgrade
from websockets.server import ServerProtocol

from webchat_fsm.runtime.websocket import WebsocketHttp

QUIET = logging.getLogger("quiet peer")
QUIET.setLevel(logging.CRITICAL)

CHANNEL = "/service/chatV2/customer-support"


class Side:
    """The server's end of one websocket, moved by hand."""

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
                raise ConnectionResetError("the client has gone")
            self._protocol.receive_data(data)
            self._events += self._protocol.events_received()
            self._flush()
        return self._events.pop(0)

    def _flush(self) -> None:
        self.connection.sendall(self.taken())

    def taken(self) -> bytes:
        """The bytes that the protocol has to send, for a test that sends them in parts."""
        return b"".join(self._protocol.data_to_send())

    def hear(self) -> dict:
        """The next Bayeux message; pongs are noted on the way."""
        while True:
            frame = self._next()
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode is Opcode.CLOSE:
                raise ConnectionResetError("the client has said farewell")
            else:
                self._message += frame.data
                if frame.fin:
                    (message,), self._message = json.loads(self._message), bytearray()
                    return message

    def frame(self, *messages: dict) -> bytes:
        self._protocol.send_text(json.dumps(messages).encode())
        return self.taken()

    def say(self, *messages: dict) -> None:
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


def speaking(*acts, **headers: str):
    """A talk: upgrade, then one act after the other, each given the side; then stay until the test is over."""

    def talk(peer, connection):
        side = Side(connection, **headers)
        for act in acts:
            act(side)
        peer.over.wait(20.0)

    return talk


def answering(side: Side) -> None:
    """Acknowledge every publish for ever."""
    with suppress(OSError):
        while True:
            side.say(ack(side.hear()))


def whatever(peer, connection):
    """Take everything, say nothing."""
    with suppress(OSError):
        while connection.recv(65536):
            pass


class Client:
    """The transport under test, and requests as the dialect makes them."""

    def __init__(self, url: str, **client: object):
        section = {"enabled": True, "cometURL": url, "apiURL": url, "websocketEnabled": True}
        self.url = url
        self.http = carrier(Config.read({"cometD": section, "client": client}))
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

    def ask(self, operation: str, message: dict, timeout: float | None = 20.0, **given) -> list[dict]:
        answer = self.http.send(self.request(operation, message, timeout, **given))
        assert answer.status == 200
        return json.loads(answer.body)

    def handshake(self, timeout: float = 20.0, **given) -> dict:
        types = {"supportedConnectionTypes": ["long-polling"]}
        return self.ask("handshake", {"channel": "/meta/handshake", **types}, timeout, **given)[-1]

    def connect(self, hold: float | None = None, client: str = "a", timeout: float | None = 20.0) -> list:
        """The data pushed with a connect, and its reply last."""
        advice = {} if hold is None else {"advice": {"timeout": hold * 1000}}
        message = {"channel": "/meta/connect", "connectionType": "long-polling", "clientId": client, **advice}
        answered = self.ask("connect", message, timeout)
        assert all("data" in one for one in answered[:-1])
        return [one["data"] for one in answered[:-1]]

    def publish(self, text: str = "hi", timeout: float | None = 20.0) -> dict:
        (own,) = self.ask("send", {"channel": CHANNEL, "clientId": "a", "data": {"message": text}}, timeout)
        return own


@pytest.fixture
def dial():
    """Make transports; they are closed at the end."""
    made = []

    def make(url: str, **client) -> Client:
        made.append(Client(url, **client))
        return made[-1]

    yield make
    for one in made:
        one.http.cut()
        one.http.close()


@pytest.fixture
def aside(in_threads):
    """Do something in a thread; gives a function that waits for what came of it."""

    def begin(act):
        came: list = []

        def run() -> None:
            try:
                came.append(act())
            except TransportError as error:
                came.append(str(error))

        (thread,) = in_threads(run)

        def result():
            thread.join(20.0)
            assert came, "nothing came of it in time"
            return came[0]

        return result

    return begin


# -- the upgrade -------------------------------------------------------------------------------------------------------


def test_messages_travel_as_text_frames_that_say_so(peer, dial):
    heard, upgrades = [], []

    def listen(side):
        upgrades.append(side.upgrade)
        for _ in range(3):
            heard.append(message := side.hear())
            side.say(ack(message, clientId="a"))

    client = dial(peer(speaking(listen)).url + "/")
    assert client.handshake(headers={"Authorization": "Basic eA==", "X-Name": "Jürgen"})["clientId"] == "a"
    client.connect(hold=0.0)
    client.publish("ü")
    assert heard[0]["supportedConnectionTypes"] == ["websocket", "long-polling"]
    assert heard[1]["connectionType"] == "websocket"
    assert (heard[2]["data"], "connectionType" in heard[2]) == ({"message": "ü"}, False)
    (upgrade,) = upgrades
    assert (upgrade.path, upgrade.headers["Authorization"]) == ("/chat", "Basic eA==")
    assert upgrade.headers["X-Name"].endswith("rgen")
    assert "Sec-WebSocket-Extensions" not in upgrade.headers


def test_an_address_that_no_websocket_can_have_is_spoken_to_by_long_polling(peer, dial, says):
    server = peer(says.answering(taken()))
    client = dial(server.url + "#part")
    client.url = server.url
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")


def test_cookies_are_kept_and_sent_by_both_ways(peer, dial, says):
    seen = []
    granting = speaking(lambda side: (side.hear(), side.close()), Set_Cookie="JAR=yes; Path=/")
    again = speaking(lambda side: seen.append(side.upgrade.headers.get("Cookie")), answering)
    server = peer(granting, says.answering(says.whole(b"[]")), again)
    client = dial(server.url)
    with pytest.raises(TransportError):
        client.handshake()
    client.http.send(Request(operation="limits", method="POST", url=server.url, timeout=20.0))
    assert b"Cookie: JAR=yes\r\n" in server.seen[0]
    client.handshake()
    assert seen == ["JAR=yes"]


def test_file_operations_go_over_http(peer, dial, says):
    server = peer(says.for_ever(says.whole(b"{}")))
    answer = dial(server.url).http.send(Request(operation="limits", method="POST", url=server.url, timeout=20.0))
    assert (answer.body, len(server.seen)) == (b"{}", 1)


def taken(message: bytes = b'[{"id":"1","channel":"/meta/handshake","successful":true,"clientId":"a"}]'):
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
def test_a_refused_upgrade_is_followed_at_once_by_long_polling_and_not_tried_again(peer, dial, says, refusal):
    server = peer(says.answering(REFUSALS[refusal], b""), says.for_ever(taken()))
    client = dial(server.url)
    assert client.handshake()["clientId"] == "a"
    assert b"Upgrade: websocket" in server.seen[0]
    assert server.seen[1].startswith(b"POST /chat/handshake")
    assert b'["long-polling"]' in server.seen[1]
    assert client.handshake()["clientId"] == "a"
    assert (server.connections, sum(b"Upgrade" in one for one in server.seen)) == (2, 1)


def silent_upgrade(peer, connection):
    peer.read(connection)
    peer.over.wait(20.0)


def hanging_up(peer, connection):
    peer.read(connection)


@pytest.mark.parametrize("first", ["503", "429", "silence", "hung up", "no HTTP", "endless header"])
def test_after_a_failure_of_the_network_the_next_handshake_tries_again(peer, dial, says, first):
    talks = {
        "503": says.answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b""),
        "429": says.answering(b"HTTP/1.1 429 Too Many Requests\r\n\r\n", b""),
        "silence": silent_upgrade,
        "hung up": hanging_up,
        "no HTTP": says.answering(b"SSH-2.0-OpenSSH_9.0\r\n", b""),
        "endless header": says.answering(b"HTTP/1.1 101 Ok\r\nX: " + b"x" * 200_000, b""),
    }
    server = peer(talks[first], says.answering(taken(), taken()), speaking(answering))
    client = dial(server.url)
    assert client.handshake(timeout=2.0)["clientId"] == "a"
    client.ask("connect", {"channel": "/meta/connect", "clientId": "a"})
    assert server.seen[-1].startswith(b"POST /chat/connect")
    assert client.handshake(timeout=2.0)["channel"] == "/meta/handshake"
    assert server.connections == 3


def test_an_upgrade_without_an_answer_leaves_half_of_the_time_and_no_more_than_all_of_it_is_used(peer, dial, stopwatch):
    server = peer(silent_upgrade)
    client = dial(server.url)
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"^handshake: no complete answer within 1 s$"):
        client.handshake(timeout=1.0)
    assert stopwatch.soon
    assert server.connections == 2
    assert [one.split()[0] for one in server.seen] == [b"GET", b"POST"]


def test_where_nobody_listens_the_fault_is_that_of_long_polling(peer, dial):
    server = peer(whatever)
    url = server.url
    server.close()
    with pytest.raises(TransportError, match="refused the connection"):
        dial(url).handshake()


# -- answers and news --------------------------------------------------------------------------------------------------


def test_answers_that_come_in_another_order_find_their_threads(peer, dial, aside):
    def turned_round(side):
        side.say(ack(side.hear()))
        for message in reversed([side.hear() for _ in range(8)]):
            side.say(ack(message, echo=message["data"]["message"]))

    client = dial(peer(speaking(turned_round)).url)
    client.publish()
    results = {str(number): aside(lambda text=str(number): client.publish(text)) for number in range(8)}
    assert {text: result()["echo"] for text, result in results.items()} == {text: text for text in results}


def test_a_connect_answers_with_the_first_news_and_is_held_on(peer, dial):
    heard = []

    def listen(side):
        heard.append(side.hear())
        side.say(push("one"))
        heard.append(side.hear())
        side.say(ack(heard[-1]))
        side.say(push("two"))
        side.say(push("three"))
        heard.append(side.hear())
        side.say(ack(heard[-1]))

    client = dial(peer(speaking(listen)).url)
    assert client.connect() == ["one"]
    client.publish()
    news = client.connect()
    while len(news) < 2:
        news += client.connect()
    assert news == ["two", "three"]
    client.publish()
    assert [message["channel"] for message in heard] == ["/meta/connect", CHANNEL, CHANNEL]


def test_a_connect_to_be_answered_at_once_is_sent_anew(peer, dial):
    heard = []

    def listen(side):
        heard.append(first := side.hear())
        side.say(push("one"))
        heard.append(second := side.hear())
        side.say(ack(first))
        side.say(push("two"), ack(second, advice={"interval": 3}))

    client = dial(peer(speaking(listen)).url)
    assert client.connect() == ["one"]
    assert client.connect(hold=0.0) == ["two"]
    assert [message.get("advice") for message in heard] == [None, {"timeout": 0.0}]


def test_a_connect_that_takes_over_a_held_one_comes_back_in_the_time_that_it_asked_for(peer, dial, stopwatch):
    client = dial(peer(speaking(lambda side: (side.hear(), side.say(push("one"))))).url)
    assert client.connect() == ["one"]
    stopwatch.restart()
    assert client.connect(hold=0.3) == []
    assert stopwatch.seconds >= 0.3
    assert stopwatch.soon


def test_news_that_came_while_nobody_waited_are_told_by_the_next_connect(peer, dial, eventually):
    said = threading.Event()

    def listen(side):
        side.say(ack(side.hear()))
        side.say(push("one"))
        side.say(push("two"))
        said.set()
        answering(side)

    client = dial(peer(speaking(listen)).url)
    client.publish()
    assert said.wait(10.0)
    client.publish()
    assert client.connect() == ["one", "two"]


def test_threads_that_publish_while_one_waits_lose_nothing_and_hear_nothing_twice(peer, dial, aside):
    threads, each = 6, 60

    def gateway(side):
        with suppress(OSError):
            while True:
                message = side.hear()
                if message["channel"] == CHANNEL:
                    side.say(ack(message, echo=message["data"]["message"]))
                    side.say(push(message["data"]["message"]))

    client = dial(peer(speaking(gateway)).url)
    expected = {f"{name}-{number}" for name in range(threads) for number in range(each)}
    news: list[str] = []

    def listen() -> None:
        while len(news) < len(expected):
            news.extend(client.connect())

    def talk(name: int) -> list[str]:
        return [client.publish(f"{name}-{number}")["echo"] for number in range(each)]

    listening = aside(listen)
    talks = [aside(lambda name=name: talk(name)) for name in range(threads)]
    assert [talked() for talked in talks] == [[f"{name}-{n}" for n in range(each)] for name in range(threads)]
    assert listening() is None
    assert sorted(news) == sorted(expected)
    for name in range(threads):
        own = [text for text in news if text.startswith(f"{name}-")]
        assert own == [f"{name}-{number}" for number in range(each)]


def test_a_message_in_fragments_with_a_ping_between_them(peer, dial):
    sides = []

    def listen(side):
        sides.append(side)
        message = side.hear()
        whole = json.dumps([push("ü" * 10), ack(message)]).encode()
        side.raw(whole[:31], fin=False)
        side.raw(b"are you there", Opcode.PING)
        side.raw(whole[31:50], Opcode.CONT, fin=False)
        side.raw(whole[50:], Opcode.CONT)
        side.say(ack(side.hear()))

    client = dial(peer(speaking(listen)).url)
    assert client.connect() == ["ü" * 10]
    client.publish()
    assert sides[0].pongs == [b"are you there"]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_server_that_never_answers_is_waited_for_until_the_deadline(peer, dial, stopwatch):
    client = dial(peer(speaking(whatever_side)).url)
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"^send: no complete answer within 0.3 s$"):
        client.publish(timeout=0.3)
    assert stopwatch.soon


def whatever_side(side):
    with suppress(OSError):
        while True:
            side.hear()


def test_after_a_websocket_that_only_swallows_the_next_handshake_goes_by_long_polling(peer, dial, says):
    server = peer(speaking(whatever_side), says.answering(taken()), speaking(answering))
    client = dial(server.url)
    with pytest.raises(TransportError, match="no complete answer"):
        client.handshake(timeout=0.5)
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")
    client.handshake()
    assert server.connections == 3


def closing(side):
    side.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.connection.close()


def test_a_websocket_that_ends_on_the_first_message_gives_way(peer, dial, says):
    server = peer(speaking(lambda side: (side.hear(), closing(side))), says.for_ever(taken()))
    client = dial(server.url)
    with pytest.raises(TransportError, match="connection was lost"):
        client.handshake()
    assert client.handshake()["clientId"] == "a"
    assert server.seen[0].startswith(b"POST")


def test_websockets_that_end_once_opened_are_not_opened_for_ever(peer, dial, says):
    """Each ends before anything is sent, or on the first message, as the race goes."""
    talks = [speaking(closing)] * 30
    server = peer(*talks)
    client, further = dial(server.url), []
    for _ in range(3):
        with pytest.raises(TransportError):
            client.handshake(timeout=0.2, repeated=lambda: further.append(1))
    assert server.connections <= 3 * 3
    assert 1 <= len(further) <= 3 * 2


def test_a_connect_in_whose_time_nothing_came_ends_the_socket_and_the_next_opens_another(peer, dial):
    server = peer(speaking(whatever_side), speaking(answering))
    client = dial(server.url)
    with pytest.raises(TransportError, match="no complete answer"):
        client.connect(timeout=0.3)
    assert client.connect() == []
    assert server.connections == 2


def test_one_reader_out_of_time_in_the_midst_of_a_frame_leaves_it_whole_for_another(peer, dial, aside):
    halfway, go_on = threading.Event(), threading.Event()

    def listen(side):
        frame = side.frame(*(ack(message, echo=message["data"]["message"]) for message in (side.hear(), side.hear())))
        side.connection.sendall(frame[:20])
        halfway.set()
        go_on.wait(10.0)
        side.connection.sendall(frame[20:])
        side.say(ack(side.hear()))

    client = dial(peer(speaking(listen)).url)
    reading = aside(lambda: client.publish(timeout=1.0))
    waiting = aside(lambda: client.publish("all of it"))
    assert halfway.wait(10.0)
    assert reading() == "send: no complete answer within 1 s"
    go_on.set()
    assert waiting()["echo"] == "all of it"
    client.publish()


def test_a_frame_that_drips_ends_at_the_deadline(peer, dial, stopwatch):
    def dripping(side):
        frame = side.frame(ack(side.hear(), text="x" * 10_000))
        for byte in frame:
            side.connection.sendall(bytes([byte]))
            time.sleep(0.01)

    client = dial(peer(speaking(dripping)).url)
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"no complete answer within 0.5 s"):
        client.publish(timeout=0.5)
    assert stopwatch.soon


@pytest.mark.parametrize("fragments", [1, 4])
def test_a_message_beyond_the_limit_is_refused(peer, dial, fragments):
    def large(side):
        side.hear()
        for number in range(fragments):
            opcode = Opcode.CONT if number else Opcode.TEXT
            side.raw(b"[" + b" " * (6000 // fragments), opcode, fin=number == fragments - 1)

    client = dial(peer(speaking(large)).url, maxAnswerSize=5000)
    with pytest.raises(TransportError, match=r"^send: the answer is larger than 5000 bytes$"):
        client.publish()


def test_news_that_nobody_fetches_end_the_socket_and_the_next_connect_tells_of_the_loss(peer, dial):
    def flood(side):
        message = side.hear()
        for _ in range(10):
            side.say(push("x" * 1000))
        side.say(ack(message))

    server = peer(speaking(flood), speaking(answering))
    client = dial(server.url, maxAnswerSize=5000)
    with pytest.raises(TransportError, match="more than 5000 bytes of news"):
        client.publish()
    with pytest.raises(TransportError, match=r"^connect: the connection was lost"):
        client.connect()
    assert client.connect() == []


@pytest.mark.parametrize("frame", [b"<html>", b"\xff\xfe", b'"text"', b"[" * 4000])
def test_a_frame_that_is_no_array_of_messages_is_told_and_ends_the_socket(peer, dial, frame):
    server = peer(speaking(lambda side: (side.hear(), side.raw(frame))), speaking(answering))
    client = dial(server.url)
    with pytest.raises(TransportError, match=r"^connect: (what the server sent is no array|the connection was lost)"):
        client.connect()
    client.publish()
    assert server.connections == 2


@pytest.mark.parametrize("garbage", [b"\x93\x00", b"\x81\xff" + b"\xff" * 20, b"\xf1\x00"])
def test_bytes_that_are_no_frame_end_the_socket(peer, dial, garbage):
    server = peer(speaking(lambda side: (side.hear(), side.connection.sendall(garbage))))
    with pytest.raises(TransportError, match=r"^send: (the connection was lost|the answer is larger)"):
        dial(server.url).publish()


def test_a_message_that_went_out_in_part_ends_the_socket(peer, dial, aside):
    held, reads = threading.Event(), threading.Event()
    server = peer(speaking(lambda side: (side.hear(), held.set(), reads.wait(10.0))), speaking(answering))
    client = dial(server.url)
    waiting = aside(client.connect)
    assert held.wait(10.0)
    large = client.request("send", {"channel": CHANNEL, "data": "x" * 16_000_000}, 1.0)  # beyond what the sockets hold
    with pytest.raises(TransportError, match=r"no complete answer within 1 s"):
        client.http.send(large)
    assert "lost" in waiting()
    reads.set()
    client.publish()
    assert server.connections == 2


# -- cut and closed ----------------------------------------------------------------------------------------------------


def test_all_who_wait_are_cut_at_once_and_later_requests_go_through(peer, dial, aside, stopwatch):
    arrived = threading.Semaphore(0)

    def listen(side):
        with suppress(OSError):
            while True:
                side.hear()
                arrived.release()

    server = peer(speaking(listen), speaking(answering))
    client = dial(server.url)
    waiting = [aside(client.connect)]
    assert arrived.acquire(timeout=10.0)
    waiting += [aside(client.publish) for _ in range(7)]
    assert all(arrived.acquire(timeout=10.0) for _ in range(7))
    stopwatch.restart()
    client.http.cut()
    assert {one() for one in waiting} == {f"{name}: cut, as the service was closed" for name in ("connect", "send")}
    assert stopwatch.soon
    assert client.publish()["successful"]
    assert server.connections == 2


def test_a_request_that_waits_for_its_upgrade_is_cut_and_so_is_one_that_waits_for_that(peer, dial, aside, eventually):
    server = peer(silent_upgrade)
    client = dial(server.url)
    waiting = [aside(client.handshake), aside(client.handshake)]
    eventually(lambda: server.seen and len(client.http._flights) == 3)
    client.http.cut()
    assert [one() for one in waiting] == ["handshake: cut, as the service was closed"] * 2
    assert server.connections == 1


def test_a_request_in_its_tls_handshake_is_cut(peer, dial, aside, eventually):
    server = peer(lambda peer, connection: peer.over.wait(20.0))
    client = dial(server.url.replace("http:", "https:"))
    waiting = aside(client.handshake)
    eventually(lambda: server.connections and len(client.http._flights) == 2)
    client.http.cut()
    assert waiting() == "handshake: cut, as the service was closed"


@pytest.mark.parametrize("how", ["close frame", "end of file", "reset"])
def test_a_socket_closed_in_mid_wait_fails_all_and_the_next_opens_another(peer, dial, aside, how):
    def ending(side):
        side.hear()
        side.hear()
        if how == "close frame":
            side.close(1001)
            whatever(None, side.connection)
        elif how == "reset":
            side.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.connection.close()

    server = peer(speaking(ending), speaking(answering))
    client = dial(server.url)
    waiting = [aside(client.connect), aside(client.publish)]
    lost = "the connection was lost before the answer was complete"
    assert [one() for one in waiting] == [f"connect: {lost}", f"send: {lost}"]
    assert client.connect() == []
    assert server.connections == 2


def test_a_loss_while_nobody_waits_fails_the_next_connect_once_and_no_publish(peer, dial, eventually):
    over = threading.Event()

    def ending(side):
        side.say(ack(side.hear()))
        side.close()
        over.set()

    server = peer(speaking(ending), speaking(answering))
    client = dial(server.url)
    client.publish()
    assert over.wait(10.0)
    client.publish()
    with pytest.raises(TransportError, match="lost"):
        client.connect()
    assert client.connect() == []
    assert server.connections == 2


def test_a_farewell_ends_the_socket_in_due_form(peer, dial):
    over = threading.Event()

    def listen(side):
        side.say(ack(side.hear()))
        with pytest.raises(ConnectionResetError, match="farewell"):
            side.hear()
        over.set()

    client = dial(peer(speaking(listen)).url)
    client.ask("hangup", {"channel": "/meta/disconnect", "clientId": "a"})
    assert over.wait(10.0)


def test_no_thread_is_started(peer, dial):
    client = dial(peer(speaking(answering)).url)
    before = threading.active_count()
    client.handshake()
    client.publish()
    assert threading.active_count() <= before + 1  # the peer's


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
    """A TLS peer, which may ask for a certificate of the client."""

    def make(*talks, asks: bool = False, **given):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        if asks:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return peer(*talks, tls=context)

    return make


def test_over_tls_threads_read_and_write_at_once(secure, dial, ca_file, aside):
    text = "x" * 50_000

    def gateway(side):
        with suppress(OSError):
            while True:
                message = side.hear()
                if message["channel"] == CHANNEL:
                    side.say(ack(message), push(message["data"]["message"]))

    client = dial(secure(speaking(gateway)).url, tls={"ca": ca_file})
    news: list[str] = []

    def listen() -> None:
        while len(news) < 120:
            news.extend(client.connect())

    listening = aside(listen)
    talks = [aside(lambda: [client.publish(text) for _ in range(40)]) for _ in range(3)]
    assert [len(talked()) for talked in talks] == [40] * 3
    assert listening() is None
    assert news == [text] * 120


def test_a_client_certificate_is_shown(secure, dial, authority, ca_file, tmp_path):
    shown = authority.issue_cert("someone@example.org")
    shown.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    server = secure(speaking(answering), asks=True)
    tls = {"ca": ca_file, "cert": str(tmp_path / "client.pem")}
    assert dial(server.url, tls=tls).publish()["successful"]


def test_verification_can_be_switched_off(secure, dial):
    assert dial(secure(speaking(answering)).url, tls={"verify": False}).publish()["successful"]


def test_an_unknown_authority_is_an_error_of_tls(secure, dial):
    with pytest.raises(TransportError, match=r"TLS failed: .*CERTIFICATE_VERIFY_FAILED"):
        dial(secure(speaking(answering)).url).handshake()


def test_a_tls_connection_that_ends_is_lost(secure, dial, ca_file):
    server = secure(speaking(lambda side: (side.hear(), side.connection.unwrap())))
    with pytest.raises(TransportError, match="lost"):
        dial(server.url, tls={"ca": ca_file}).publish()


# -- which way is taken ------------------------------------------------------------------------------------------------


def section(**more) -> dict:
    return {"enabled": True, "cometURL": "http://chat.test/cometd", "apiURL": "http://chat.test/files", **more}


def test_long_polling_is_the_way_where_nothing_else_is_asked_for():
    assert type(carrier(Config.read({"cometD": section()}))) is Urllib3Http
    assert (
        type(carrier(Config.read({"dataURL": "http://chat.test/", "cometD": {"websocketEnabled": True}})))
        is Urllib3Http
    )


def test_through_a_proxy_there_is_no_websocket_and_the_log_says_so(caplog):
    config = Config.read({"cometD": section(websocketEnabled=True), "client": {"proxy": "http://proxy.test:3128"}})
    assert type(carrier(config)) is Urllib3Http
    assert caplog.messages == ["cometD.websocketEnabled has no effect with client.proxy: long polling instead"]


def test_without_the_package_long_polling_is_the_way_and_the_log_names_the_extra(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "webchat_fsm.runtime.websocket", None)
    assert type(carrier(Config.read({"cometD": section(websocketEnabled=True)}))) is Urllib3Http
    (record,) = caplog.records
    assert (record.levelname, "pip install 'webchat-fsm[websocket]'" in record.message) == ("WARNING", True)


def test_a_service_makes_its_own_unless_it_is_given_one(wire):
    config = {"cometD": section(websocketEnabled=True)}
    assert isinstance(WebChatService(config)._engine._http, WebsocketHttp)
    given = wire()
    assert WebChatService(config, http=given)._engine._http is given


def test_no_secret_reaches_any_log(peer, dial, debug_log):
    client = dial(peer(speaking(answering)).url)
    client.handshake(headers={"Authorization": "sEcReT-1"})
    client.publish("sEcReT-2")
    assert "sEcReT" not in debug_log.text
