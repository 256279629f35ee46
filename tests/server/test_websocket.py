"""Check the embedded server over a websocket: upgrade, held connects, pushes in frames, faults, origins."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest

from tests.limits import LONG, eventually
from webchat_fsm.server import ChatServer, HttpRequest, ServerOptions
from webchat_fsm.server.front import HttpFront

client = pytest.importorskip("websockets.sync.client")

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus  # noqa: E402

CHANNEL = "/service/chatV2/customer-support"
PATH = "/genesys/cometd"


class Browser:
    """Sends and receives Bayeux messages over one websocket."""

    def __init__(self, socket):
        self.socket = socket
        self.count = 0
        self.client_id = ""

    def send(self, channel: str, **fields) -> str:
        self.count += 1
        message = {"id": str(self.count), "channel": channel, "clientId": self.client_id, **fields}
        self.socket.send(json.dumps([message]))
        return message["id"]

    def receive(self) -> list[dict]:
        return json.loads(self.socket.recv(timeout=LONG))

    def ask(self, channel: str, **fields) -> dict:
        sent_id = self.send(channel, **fields)
        (answer,) = self.receive()
        assert (answer["id"], answer["channel"]) == (sent_id, channel)
        return answer

    def handshake(self) -> dict:
        answer = self.ask("/meta/handshake", supportedConnectionTypes=["websocket", "long-polling"])
        self.client_id = answer["clientId"]
        return answer

    def start(self) -> dict:
        """Start a chat with a held connect and return the first envelope."""
        self.handshake()
        assert self.ask(CHANNEL, data={"operation": "requestChat", "nickname": "Jonny"})["successful"]
        self.connect_id = self.send("/meta/connect", connectionType="websocket")
        return self.pushed()

    def pushed(self) -> dict:
        (push,) = self.receive()
        assert push["channel"] == CHANNEL
        return push["data"]


@contextmanager
def opened(front: HttpFront, **given):
    """Open a websocket to a front."""
    with client.connect(front.comet_url.replace("http", "ws"), **given) as socket:
        yield Browser(socket)


@pytest.fixture
def server() -> ChatServer:
    return ChatServer(ServerOptions(connect_timeout=LONG))


@pytest.fixture
def connect(server):
    with HttpFront(server) as front:
        yield lambda **given: opened(front, **given)


def types(envelope: dict) -> list[str]:
    return [message["type"] for message in envelope["messages"]]


def test_handshake_lists_websocket_if_client_supports_it(connect, server):
    with connect() as browser:
        assert browser.handshake()["supportedConnectionTypes"] == ["websocket", "long-polling"]
        answer = browser.ask("/meta/handshake", supportedConnectionTypes=["long-polling"])
        assert answer["supportedConnectionTypes"] == ["long-polling"]


def test_events_are_pushed_in_own_frames_during_connect(connect, server):
    with connect() as browser:
        assert types(browser.start()) == ["ParticipantJoined"]
        ann = server.agent("Ann").join()
        assert types(browser.pushed()) == ["ParticipantJoined"]
        for text in ("one", "two", "three"):
            ann.say(text)
            assert [message["text"] for message in browser.pushed()["messages"]] == [text]
        browser.send("/meta/connect", connectionType="websocket", advice={"timeout": 0})
        answers = [*browser.receive(), *browser.receive()]
        assert sorted(answer["id"] for answer in answers) == sorted([browser.connect_id, str(browser.count)])


def test_publish_is_answered_while_connect_is_held(connect, server):
    with connect() as browser:
        keys = browser.start()
        data = {"operation": "sendMessage", "message": "hi", "messageType": "text", "secureKey": keys["secureKey"]}
        assert browser.ask(CHANNEL, data=data)["successful"]
        assert types(browser.pushed()) == ["Message"]


def test_held_connect_is_answered_after_its_timeout():
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.05))) as front, opened(front) as browser:
        browser.handshake()
        assert browser.ask("/meta/connect", connectionType="websocket")["successful"]


def test_disconnect_releases_held_connect(connect, server):
    with connect() as browser:
        browser.start()
        browser.send("/meta/disconnect")
        assert {message["channel"] for message in [*browser.receive(), *browser.receive()]} == {
            "/meta/connect",
            "/meta/disconnect",
        }


def test_client_on_new_socket_needs_no_cookie_keeps_queue(connect, server):
    with connect() as browser:
        browser.start()
    known = server._comet.bayeux.clients[browser.client_id]
    eventually(lambda: not known.socket)  # as the server has noticed the closed socket
    server.agent("Ann").join().say("meanwhile")
    with connect() as again:
        again.client_id = browser.client_id
        again.send("/meta/connect", connectionType="websocket")
        assert types(again.pushed()) == ["ParticipantJoined", "Message"]
        again.client_id = "unknown"
        assert again.ask("/meta/connect", connectionType="websocket")["error"] == "402::Unknown client"


def test_cookie_is_set_by_first_upgrade_only(connect):
    with connect() as browser:
        cookie = browser.socket.response.headers["Set-Cookie"].partition(";")[0]
        assert cookie.startswith("BAYEUX_BROWSER=")
    with connect(additional_headers={"Cookie": cookie}) as again:
        assert "Set-Cookie" not in again.socket.response.headers


def test_client_receives_events_of_its_own_chat_only(connect, server):
    with connect() as first, connect() as second:
        first.start()
        one = server.current_chat()
        second.start()
        one.announce("CustomNotice", server.moment(), text="", user_data={})
        server.changed()
        assert types(first.pushed()) == ["CustomNotice"]
        assert second.ask("/meta/subscribe", subscription="/x")["successful"]  # nothing came before its answer


@pytest.mark.parametrize("frame", ["<html>", "[1]", "{"])
def test_frame_without_message_array_closes_socket(connect, frame):
    with connect() as browser:
        browser.socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            browser.receive()
        assert closed.value.rcvd.code == 1008


def test_large_frame_is_read(connect):
    with connect(max_size=None) as browser:
        browser.handshake()
        assert browser.ask("/meta/subscribe", subscription="/x", ext="x" * 6_000_000)["successful"]


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"http_status": 503}])
def test_upgrade_fault_refuses_with_http_status(connect, server, fault):
    server.faults.add(operation="upgrade", **fault)
    with pytest.raises(InvalidStatus) as refused, connect():
        pass
    assert refused.value.response.status_code == fault["http_status"]
    with connect() as browser:
        browser.handshake()


def test_upgrade_fault_drops_or_delays_upgrade(connect, server):
    server.faults.add(operation="upgrade", drop=True)
    with pytest.raises((OSError, EOFError, InvalidHandshake)), connect():
        pass
    server.faults.add(operation="upgrade", delay=0.05)
    began = time.monotonic()
    with connect() as browser:
        assert time.monotonic() - began >= 0.05
        browser.handshake()


@pytest.mark.parametrize("fault", [{"drop": True}, {"tear": True}, {"http_status": 502}])
def test_connect_fault_drops_open_socket(connect, server, fault):
    with connect() as browser:
        browser.handshake()
        server.faults.add(operation="connect", **fault)
        with pytest.raises(ConnectionClosed):
            browser.ask("/meta/connect", connectionType="websocket", advice={"timeout": 0})


def test_delayed_response_delays_no_other_response(connect, server):
    with connect() as browser:
        browser.handshake()
        server.faults.add(operation="subscribe", delay=0.05)
        with server.lock():  # neither is processed before both are sent
            slow = browser.send("/meta/subscribe", subscription="/x")
            fast = browser.send("/meta/unsubscribe", subscription="/x")
        assert [browser.receive()[0]["id"], browser.receive()[0]["id"]] == [fast, slow]


@pytest.mark.parametrize(("origin", "granted"), [("http://localhost:8000", True), ("https://evil.example", False)])
def test_page_of_foreign_origin_gets_no_websocket(connect, origin, granted):
    if granted:
        with connect(origin=origin) as browser:
            browser.handshake()
    else:
        with pytest.raises(InvalidStatus) as refused, connect(origin=origin):
            pass
        assert refused.value.response.status_code == 403


def test_upgrade_elsewhere_or_disabled_is_plain_request():
    def asked(server: ChatServer, path: str) -> object:
        return server.upgrade(HttpRequest("GET", path, {"Upgrade": "websocket"}), 1.0)

    assert asked(ChatServer(), "/genesys/2/chat/customer-support") is None
    assert asked(ChatServer(ServerOptions(websocket=False)), PATH) is None
    assert asked(ChatServer(), PATH).answer.status == 101


def test_front_stop_closes_open_sockets():
    with HttpFront(ChatServer()) as front, opened(front) as browser:
        browser.start()
        front.stop()
        with pytest.raises(ConnectionClosed):
            browser.receive()


def event_types_on_next_socket(connect, client_id) -> list[str]:
    """Return the types of the events that a client receives over a new websocket."""
    with connect() as browser:
        browser.client_id = client_id
        browser.send("/meta/connect", connectionType="websocket")
        return [event["type"] for event in browser.pushed()["messages"]]


def test_event_after_cut_is_sent_on_next_socket(server, connect):
    with connect() as browser:
        browser.start()
        server.cut_connects()
        server.agent("Ann").join()
        with pytest.raises(ConnectionClosed):
            browser.receive()
    assert event_types_on_next_socket(connect, browser.client_id) == ["ParticipantJoined"]


@contextmanager
def always_changing(server: ChatServer):
    """Wake each task of the front continuously, so that it runs between any two steps of another."""
    over = threading.Event()

    def change():
        while not over.is_set():
            server.changed()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        yield
    finally:
        over.set()
        changing.join()


LOST_RESPONSES = [{"drop": True, "takes_effect": True}, {"tear": True}, {"http_status": 502, "takes_effect": True}]


@pytest.mark.parametrize("fault", LOST_RESPONSES)
def test_event_with_lost_response_is_sent_on_next_socket(fault):
    server = ChatServer(ServerOptions(connect_timeout=LONG, gateway_delay=0.0))
    with HttpFront(server) as front:
        for _ in range(5):
            with opened(front) as browser, always_changing(server):
                keys = {"secureKey": browser.start()["secureKey"]}
                server.faults.add(operation="send", **fault)
                browser.send(CHANNEL, data={"operation": "sendMessage", "message": "hi", **keys})
                with pytest.raises(ConnectionClosed):
                    browser.receive()
            assert event_types_on_next_socket(lambda: opened(front), browser.client_id) == ["Message"]
