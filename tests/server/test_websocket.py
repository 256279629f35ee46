"""The embedded server over a websocket: the upgrade, held connects, news in frames of their own, faults, origins."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest

from webchat_fsm.server import ChatServer, HttpRequest, ServerOptions
from webchat_fsm.server.front import HttpFront

client = pytest.importorskip("websockets.sync.client")

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus  # noqa: E402

CHANNEL = "/service/chatV2/customer-support"
PATH = "/genesys/cometd"


class Browser:
    """One websocket, and Bayeux as a client speaks it."""

    def __init__(self, socket):
        self.socket = socket
        self.count = 0
        self.client_id = ""

    def say(self, channel: str, **fields) -> str:
        self.count += 1
        message = {"id": str(self.count), "channel": channel, "clientId": self.client_id, **fields}
        self.socket.send(json.dumps([message]))
        return message["id"]

    def hear(self) -> list[dict]:
        return json.loads(self.socket.recv(timeout=10.0))

    def ask(self, channel: str, **fields) -> dict:
        said = self.say(channel, **fields)
        (answer,) = self.hear()
        assert (answer["id"], answer["channel"]) == (said, channel)
        return answer

    def shake(self) -> dict:
        answer = self.ask("/meta/handshake", supportedConnectionTypes=["websocket", "long-polling"])
        self.client_id = answer["clientId"]
        return answer

    def start(self) -> dict:
        """A chat with a held connect; gives the first envelope."""
        self.shake()
        assert self.ask(CHANNEL, data={"operation": "requestChat", "nickname": "Jonny"})["successful"]
        self.connect_id = self.say("/meta/connect", connectionType="websocket")
        return self.pushed()

    def pushed(self) -> dict:
        (push,) = self.hear()
        assert push["channel"] == CHANNEL
        return push["data"]


@contextmanager
def opened(front: HttpFront, **given):
    """A websocket to a front."""
    with client.connect(front.comet_url.replace("http", "ws"), **given) as socket:
        yield Browser(socket)


@pytest.fixture
def server() -> ChatServer:
    return ChatServer(ServerOptions(connect_timeout=20.0))


@pytest.fixture
def dial(server):
    with HttpFront(server) as front:
        yield lambda **given: opened(front, **given)


def types(envelope: dict) -> list[str]:
    return [message["type"] for message in envelope["messages"]]


def test_a_handshake_lists_the_websocket_for_those_who_know_it(dial, server):
    with dial() as browser:
        assert browser.shake()["supportedConnectionTypes"] == ["websocket", "long-polling"]
        answer = browser.ask("/meta/handshake", supportedConnectionTypes=["long-polling"])
        assert answer["supportedConnectionTypes"] == ["long-polling"]


def test_news_come_at_once_in_frames_of_their_own_while_the_connect_stays_held(dial, server):
    with dial() as browser:
        assert types(browser.start()) == ["ParticipantJoined"]
        ann = server.agent("Ann").join()
        assert types(browser.pushed()) == ["ParticipantJoined"]
        for text in ("one", "two", "three"):
            ann.say(text)
            assert [message["text"] for message in browser.pushed()["messages"]] == [text]
        browser.say("/meta/connect", connectionType="websocket", advice={"timeout": 0})
        answers = [*browser.hear(), *browser.hear()]
        assert sorted(answer["id"] for answer in answers) == sorted([browser.connect_id, str(browser.count)])


def test_publishes_are_answered_while_a_connect_is_held(dial, server):
    with dial() as browser:
        keys = browser.start()
        data = {"operation": "sendMessage", "message": "hi", "messageType": "text", "secureKey": keys["secureKey"]}
        assert browser.ask(CHANNEL, data=data)["successful"]
        assert types(browser.pushed()) == ["Message"]


def test_a_connect_is_answered_when_its_time_is_over():
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.05))) as front, opened(front) as browser:
        browser.shake()
        assert browser.ask("/meta/connect", connectionType="websocket")["successful"]


def test_a_farewell_lets_the_held_connect_go(dial, server):
    with dial() as browser:
        browser.start()
        browser.say("/meta/disconnect")
        assert {message["channel"] for message in [*browser.hear(), *browser.hear()]} == {
            "/meta/connect",
            "/meta/disconnect",
        }


def test_a_client_is_known_on_another_socket_without_a_cookie_and_keeps_what_it_was_not_told(dial, server):
    with dial() as browser:
        browser.start()
    known = server._comet.bayeux.clients[browser.client_id]
    deadline = time.monotonic() + 10.0
    while known.socket and time.monotonic() < deadline:
        time.sleep(0.001)  # until the server has seen the socket close
    server.agent("Ann").join().say("meanwhile")
    with dial() as again:
        again.client_id = browser.client_id
        again.say("/meta/connect", connectionType="websocket")
        assert types(again.pushed()) == ["ParticipantJoined", "Message"]
        again.client_id = "nobody"
        assert again.ask("/meta/connect", connectionType="websocket")["error"] == "402::Unknown client"


def test_a_browser_gets_its_cookie_with_the_upgrade_once(dial):
    with dial() as browser:
        cookie = browser.socket.response.headers["Set-Cookie"].partition(";")[0]
        assert cookie.startswith("BAYEUX_BROWSER=")
    with dial(additional_headers={"Cookie": cookie}) as again:
        assert "Set-Cookie" not in again.socket.response.headers


def test_two_clients_on_two_sockets_each_hear_their_own_chat(dial, server):
    with dial() as first, dial() as second:
        first.start()
        one = server.current_chat()
        second.start()
        one.announce("CustomNotice", server.moment(), text="", user_data={})
        server.changed()
        assert types(first.pushed()) == ["CustomNotice"]
        with pytest.raises(TimeoutError):
            second.socket.recv(timeout=0.2)


@pytest.mark.parametrize("frame", ["<html>", "[1]", "{"])
def test_a_frame_that_is_no_array_of_messages_ends_the_socket(dial, frame):
    with dial() as browser:
        browser.socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            browser.hear()
        assert closed.value.rcvd.code == 1008


def test_a_large_frame_is_read(dial):
    with dial(max_size=None) as browser:
        browser.shake()
        assert browser.ask("/meta/subscribe", subscription="/x", ext="x" * 6_000_000)["successful"]


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"http_status": 503}])
def test_an_upgrade_is_refused_on_demand(dial, server, fault):
    server.faults.add(operation="upgrade", **fault)
    with pytest.raises(InvalidStatus) as refused, dial():
        pass
    assert refused.value.response.status_code == fault["http_status"]
    with dial() as browser:
        browser.shake()


def test_an_upgrade_is_dropped_or_delayed_on_demand(dial, server):
    server.faults.add(operation="upgrade", drop=True)
    with pytest.raises((OSError, EOFError, InvalidHandshake)), dial():
        pass
    server.faults.add(operation="upgrade", delay=0.2)
    with dial() as browser:
        browser.shake()


@pytest.mark.parametrize("fault", [{"drop": True}, {"tear": True}, {"http_status": 502}])
def test_a_socket_is_dropped_in_mid_talk_on_demand(dial, server, fault):
    with dial() as browser:
        browser.shake()
        server.faults.add(operation="connect", **fault)
        with pytest.raises(ConnectionClosed):
            browser.ask("/meta/connect", connectionType="websocket", advice={"timeout": 0})


def test_a_slow_answer_holds_up_no_other(dial, server):
    with dial() as browser:
        browser.shake()
        server.faults.add(operation="subscribe", delay=0.3)
        slow = browser.say("/meta/subscribe", subscription="/x")
        fast = browser.say("/meta/unsubscribe", subscription="/x")
        assert [browser.hear()[0]["id"], browser.hear()[0]["id"]] == [fast, slow]


@pytest.mark.parametrize(("origin", "granted"), [("http://localhost:8000", True), ("https://evil.example", False)])
def test_pages_of_other_origins_get_no_websocket(dial, origin, granted):
    if granted:
        with dial(origin=origin) as browser:
            browser.shake()
    else:
        with pytest.raises(InvalidStatus) as refused, dial(origin=origin):
            pass
        assert refused.value.response.status_code == 403


def test_elsewhere_and_where_it_is_switched_off_an_upgrade_is_a_request_like_any_other():
    def asked(server: ChatServer, path: str) -> object:
        return server.upgrade(HttpRequest("GET", path, {"Upgrade": "websocket"}), 1.0)

    assert asked(ChatServer(), "/genesys/2/chat/customer-support") is None
    assert asked(ChatServer(ServerOptions(websocket=False)), PATH) is None
    assert asked(ChatServer(), PATH).answer.status == 101


def test_the_front_ends_while_sockets_are_open():
    with HttpFront(ChatServer()) as front, opened(front) as browser:
        browser.start()
        front.stop()
        with pytest.raises(ConnectionClosed):
            browser.hear()


def kinds_on_the_next_socket(dial, client_id) -> list[str]:
    """Give the types of the events that a client hears when it connects over a new websocket."""
    with dial() as browser:
        browser.client_id = client_id
        browser.say("/meta/connect", connectionType="websocket")
        return [event["type"] for event in browser.pushed()["messages"]]


def test_an_event_after_a_cut_waits_for_the_next_socket(server, dial):
    with dial() as browser:
        browser.start()
        server.cut_connects()
        server.agent("Ann").join()
        with pytest.raises(ConnectionClosed):
            browser.hear()
    assert kinds_on_the_next_socket(dial, browser.client_id) == ["ParticipantJoined"]


@pytest.mark.parametrize("fault", [{"drop": True, "takes_effect": True}, {"tear": True}])
def test_an_event_with_a_lost_answer_waits_for_a_new_socket(fault):
    server = ChatServer(ServerOptions(connect_timeout=20.0, gateway_delay=0.0))
    with HttpFront(server) as front, opened(front) as browser:
        keys = {"secureKey": browser.start()["secureKey"]}
        server.faults.add(operation="send", **fault)
        browser.say(CHANNEL, data={"operation": "sendMessage", "message": "hi", **keys})
        with pytest.raises(ConnectionClosed):
            browser.hear()
        assert kinds_on_the_next_socket(lambda: opened(front), browser.client_id) == ["Message"]
