"""Check the embedded server over CometD: Bayeux itself, then the chat over it."""

from __future__ import annotations

import json
import threading
from itertools import count

import pytest
import urllib3

from tests.limits import LONG
from webchat_fsm.server import ChatServer, Held, HttpRequest, ServerAnswer, ServerOptions
from webchat_fsm.server.front import HttpFront

URL = "/genesys/cometd"
CHANNEL = "/service/chatV2/customer-support"


class Browser:
    """Sends the messages of one Bayeux client to a server without sockets."""

    def __init__(self, server: ChatServer, now: float = 1000.0) -> None:
        self.server = server
        self.now = now
        self.cookie = ""
        self.client_id = ""
        self.ids = count(1)
        self.keys = {"chatId": "", "alias": "", "secureKey": "", "userId": ""}

    def request(self, *messages, end="", cookie=None) -> HttpRequest:
        headers = {"content-type": "application/json;charset=UTF-8"}
        if cookie if cookie is not None else self.cookie:
            headers["cookie"] = cookie if cookie is not None else self.cookie
        return HttpRequest("POST", URL + end, headers, json.dumps(messages).encode())

    def message(self, channel, **more):
        own = {"clientId": self.client_id} if self.client_id else {}
        return {"id": str(next(self.ids)), "channel": channel, **own, **more}

    def ask(self, channel, *, end="/", **more):
        answer = self.server.handle(self.request(self.message(channel, **more), end=end), self.now)
        assert answer.status == 200, answer
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer.json()

    def shake(self):
        self.client_id = ""
        reply = self.ask("/meta/handshake", end="/handshake", version="1.0", supportedConnectionTypes=["long-polling"])
        self.client_id = reply[-1].get("clientId", "")
        return reply[-1]

    def connect(self, **more):
        """Send a connect that the server may hold, and return its answer or the held request."""
        message = self.message("/meta/connect", connectionType="long-polling", **more)
        return self.server.begin(self.request(message, end="/connect"), self.now)

    def poll(self):
        """Send a connect with timeout 0 and return the messages of its response."""
        return self.ask("/meta/connect", end="/connect", connectionType="long-polling", advice={"timeout": 0})

    def publish(self, operation, **fields):
        """Publish, advance the time by 0.05 s, and return the reply."""
        replies = self.ask(CHANNEL, data={"operation": operation, **self.keys, **fields})
        self.now += 0.05
        self.server.tick(self.now)
        return replies[-1]

    def pushed(self):
        """Return the envelopes that are queued for this client."""
        return [message["data"] for message in self.poll() if "data" in message]

    def start(self, **fields):
        self.shake()
        self.publish("requestChat", **(fields or {"nickname": "Jonny"}))
        envelope = self.pushed()[0]
        self.keys = {name: envelope[name] for name in self.keys}
        return envelope


@pytest.fixture
def open_browser():
    def make(**options):
        return Browser(ChatServer(ServerOptions(**options)))

    return make


@pytest.fixture
def browser(open_browser):
    started = open_browser()
    started.start()
    return started


def texts(envelopes):
    return [message.get("text", message["type"]) for envelope in envelopes for message in envelope["messages"]]


# Bayeux


def test_handshake_returns_client_id_advice_and_cookie(open_browser):
    browser = open_browser()
    reply = browser.shake()
    assert reply["successful"] is True
    assert reply["supportedConnectionTypes"] == ["long-polling"]
    assert reply["advice"] == {"reconnect": "retry", "interval": 0, "timeout": 30000}
    assert reply["id"] == "1"
    assert browser.cookie.startswith("BAYEUX_BROWSER=")


def test_two_clients_of_one_browser_share_cookie(open_browser):
    first = open_browser()
    first.shake()
    second = Browser(first.server)
    second.cookie = first.cookie
    second.shake()
    assert second.cookie == first.cookie
    assert second.client_id != first.client_id


@pytest.mark.parametrize("end", ["", "/", "/handshake", "/connect", "/disconnect"])
def test_handshake_succeeds_at_any_url_suffix(open_browser, end):
    browser = open_browser()
    assert browser.ask("/meta/handshake", end=end)[0]["successful"] is True


def test_connect_timeout_0_is_answered_at_once_others_held(open_browser):
    browser = open_browser()
    browser.shake()
    assert isinstance(browser.connect(advice={"timeout": 0}), ServerAnswer)
    held = browser.connect()
    assert isinstance(held, Held)
    assert held.due == browser.now + 30
    assert browser.server.resume(held, browser.now + 29.9) is None
    reply = browser.server.resume(held, browser.now + 30).json()
    assert [message["channel"] for message in reply] == ["/meta/connect"]
    assert reply[0]["successful"] is True


def test_second_connect_releases_first_without_events(browser):
    first, second = browser.connect(), browser.connect()
    browser.server.agent("Ann").join()
    assert len(browser.server.resume(first, browser.now).json()) == 1
    assert len(browser.server.resume(second, browser.now).json()) == 2


def test_unknown_client_is_402_with_advice_on_connect_only(open_browser):
    browser = open_browser()
    browser.client_id = "unknown"
    connect = browser.ask("/meta/connect")[0]
    assert (connect["successful"], connect["error"]) == (False, "402::Unknown client")
    assert connect["advice"] == {"reconnect": "handshake", "interval": 0}
    publish = browser.ask(CHANNEL, data={"operation": "sendMessage"})[0]
    assert publish["error"] == "402::Unknown client"
    assert "advice" not in publish


@pytest.mark.parametrize(
    ("required", "cookie", "successful"),
    [
        (True, "", False),
        (False, "", True),
        (True, "BAYEUX_BROWSER=other", False),
        (False, "BAYEUX_BROWSER=other", False),
    ],
)
def test_missing_required_or_foreign_cookie_is_refused(open_browser, required, cookie, successful):
    browser = open_browser(require_cookie=required)
    browser.shake()
    browser.cookie = cookie
    assert browser.poll()[0]["successful"] is successful


def test_client_without_connect_is_removed_after_interval(open_browser):
    browser = open_browser()
    browser.shake()
    browser.now += 9.9
    assert browser.poll()[-1]["successful"] is True
    browser.now += 10.1
    assert browser.poll()[-1]["error"] == "402::Unknown client"


def test_held_connect_keeps_client_until_abandoned(open_browser):
    browser = open_browser()
    browser.shake()
    held = browser.connect()
    browser.now += 25
    assert browser.publish("requestChat", nickname="Jonny")["successful"] is True
    browser.server.abandon(held, browser.now)
    browser.now += 10.1
    assert browser.publish("requestChat", nickname="Jonny")["successful"] is False


def test_subscribe_succeeds_and_pushes_nothing(browser):
    reply = browser.ask("/meta/subscribe", subscription=CHANNEL)[0]
    assert (reply["successful"], reply["subscription"]) == (True, CHANNEL)
    assert browser.pushed() == []


def test_messages_of_one_request_are_answered_in_order(browser):
    messages = [browser.message("/meta/subscribe", subscription=CHANNEL), browser.message("/meta/connect")]
    replies = browser.server.handle(browser.request(*messages), browser.now).json()
    assert [reply["channel"] for reply in replies] == ["/meta/subscribe", "/meta/connect"]


def test_single_message_without_array_is_answered(open_browser):
    body = b'{"channel":"/meta/handshake"}'
    reply = open_browser().server.handle(HttpRequest("POST", URL, {}, body), 1.0).json()
    assert reply[0]["successful"] is True
    assert "id" not in reply[0]


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"{"), ("POST", b"[1]"), ("POST", b"")])
def test_request_without_bayeux_messages_is_400(open_browser, method, body):
    assert open_browser().server.handle(HttpRequest(method, URL, {}, body), 1.0).status == 400


def test_publish_to_unknown_channel_is_404(browser):
    assert browser.ask("/service/other", data={})[0]["error"] == "404::Unknown channel"


def test_disconnect_releases_held_connect(browser):
    held = browser.connect()
    assert browser.ask("/meta/disconnect", end="/disconnect")[0]["successful"] is True
    assert browser.server.resume(held, browser.now).json()[-1]["channel"] == "/meta/connect"
    assert browser.poll()[0]["error"].startswith("402")


# The chat over it


def test_start_is_acknowledged_before_its_push(open_browser):
    browser = open_browser()
    browser.shake()
    held = browser.connect()
    ack = browser.ask(CHANNEL, data={"operation": "requestChat", "nickname": "Jonny", "userData": {"a": {"b": "c"}}})
    assert [set(reply) for reply in ack] == [{"id", "channel", "successful"}]
    assert browser.server.resume(held, browser.now) is None
    assert browser.server.tick(browser.now) == browser.now + 0.02
    push, reply = browser.server.resume(held, browser.now + 0.02).json()
    assert push["channel"] == CHANNEL
    assert push["data"]["statusCode"] == 0
    assert len(push["data"]["secureKey"]) == 20
    assert texts([push["data"]]) == ["ParticipantJoined"]
    assert reply["channel"] == "/meta/connect"
    assert browser.server.current_chat().user_data == {"a": {"b": "c"}}


def test_zero_gateway_delay_returns_effect_with_publish(open_browser):
    browser = open_browser(gateway_delay=0.0, push_with_publish=True)
    browser.shake()
    ack, push = browser.ask(CHANNEL, data={"operation": "requestChat", "nickname": "Jonny"})
    assert ack["successful"] is True
    assert push["data"]["chatEnded"] is False


def test_refused_start_is_pushed_as_error(open_browser):
    browser = open_browser(services=("customer-support",))
    browser.shake()
    browser.publish("requestChat", nickname="")
    refused = browser.pushed()[0]
    assert (refused["statusCode"], refused["errors"][0]["code"]) == (2, 161)
    browser.ask("/service/chatV2/other", data={"operation": "requestChat", "nickname": "J"})
    browser.now += 1
    assert browser.pushed()[0]["errors"][0]["code"] == 306


def test_own_messages_and_typing_are_pushed(browser):
    browser.publish("startTyping", message="h")
    browser.publish("sendMessage", message="hi", eventAttributes={"general-properties": {"related-event-id": "1"}})
    envelopes = browser.pushed()
    assert texts(envelopes) == ["h", "hi"]
    assert envelopes[-1]["messages"][-1]["eventAttributes"] == {"general-properties": {"related-event-id": "1"}}
    assert envelopes[-1]["nextPosition"] == 4


def test_events_without_connect_are_queued_in_order(browser):
    ann = browser.server.agent("Ann").join()
    ann.say("one")
    ann.say("two")
    assert texts(browser.pushed()) == ["ParticipantJoined", "one", "two"]
    assert browser.pushed() == []


def test_update_data_pushes_envelope_without_events(browser):
    browser.publish("updateData", userData={"tier": "gold"})
    assert [envelope["messages"] for envelope in browser.pushed()] == [[]]
    assert browser.server.current_chat().user_data == {"tier": "gold"}


def test_events_are_pushed_to_attached_clients_only(browser):
    second = Browser(browser.server, browser.now)
    second.shake()
    second.keys = browser.keys
    second.publish("requestNotifications", transcriptPosition=1)
    stranger = Browser(browser.server, second.now)
    stranger.start(nickname="Mia")
    second.now = browser.now = stranger.now
    assert texts(second.pushed()) == ["ParticipantJoined"]
    browser.server.agent("Ann").join(browser.server.chats[0]).say("to both")
    assert texts(browser.pushed()) == texts(second.pushed()) == ["ParticipantJoined", "to both"]
    assert stranger.pushed() == []


@pytest.mark.parametrize(("position", "expected"), [(None, 3), (0, 3), (1, 3), (3, 1), (4, 0), (-1, 1)])
@pytest.mark.parametrize("operation", ["requestNotifications", "refresh"])
def test_position_selects_events_of_pushed_envelope(browser, operation, position, expected):
    browser.publish("sendMessage", message="one")
    browser.publish("sendMessage", message="two")
    browser.pushed()
    browser.publish(operation, **({} if position is None else {"transcriptPosition": position}))
    assert [len(envelope["messages"]) for envelope in browser.pushed()] == [expected]


def test_refresh_does_not_attach_client_to_chat(browser):
    other = Browser(browser.server, browser.now)
    other.shake()
    other.keys = browser.keys
    other.publish("refresh", transcriptPosition=-1)
    assert len(other.pushed()) == 1
    browser.server.agent("Ann").join()
    assert other.pushed() == []


def test_own_leave_is_pushed_unless_switched_off(open_browser):
    for notified in (True, False):
        browser = open_browser(notify_leaver=notified)
        browser.start()
        browser.publish("disconnect")
        envelopes = browser.pushed()
        assert texts(envelopes) == (["ParticipantLeft"] if notified else [])
        assert [envelope["chatEnded"] for envelope in envelopes] == ([True] if notified else [])


def test_end_by_server_is_pushed_without_events(browser):
    browser.server.end()
    envelope = browser.pushed()[0]
    assert (envelope["chatEnded"], envelope["messages"]) == (True, [])
    assert browser.pushed() == []


def test_ended_chat_is_sent_once_more_and_then_is_249(browser):
    browser.server.agent("Ann").join().say("bye")
    browser.server.end()
    browser.pushed()
    browser.publish("sendMessage", message="hi")
    assert browser.pushed()[0]["errors"][0]["code"] == 249
    browser.publish("requestNotifications", transcriptPosition=3)
    last = browser.pushed()[0]
    assert (last["statusCode"], last["chatEnded"], texts([last])) == (0, True, ["bye", "ParticipantLeft"])
    browser.publish("requestNotifications", transcriptPosition=3)
    assert browser.pushed()[0]["errors"][0]["code"] == 249


def test_unknown_operation_is_100_and_wrong_key_ends_chat(browser):
    browser.publish("nonsense")
    assert browser.pushed()[0]["errors"][0]["code"] == 100
    browser.keys = {**browser.keys, "secureKey": "wrong"}
    browser.publish("sendMessage", message="hi")
    refused = browser.pushed()[0]
    assert (refused["statusCode"], refused["chatEnded"], refused["secureKey"]) == (2, True, "")


def test_connects_restart_liveness_timer(open_browser):
    browser = open_browser(liveness=45.0, max_interval=100.0)
    browser.start()
    for _ in range(3):
        browser.now += 40
        browser.poll()
    assert browser.server.current_chat().ended is False
    browser.now += 46
    assert browser.pushed()[-1]["chatEnded"] is True


def test_message_sent_over_rest_is_pushed(browser, rest_class):
    visitor = rest_class(browser.server, browser.now)
    visitor.chat_id, visitor.ids = browser.keys["chatId"], {"secureKey": browser.keys["secureKey"]}
    visitor.call("send", message="over REST")
    assert texts(browser.pushed()) == ["over REST"]


# Faults


def test_removed_client_repeats_handshake_and_catches_up(browser):
    held = browser.connect()
    browser.server.forget_clients()
    reply = browser.server.resume(held, browser.now).json()[0]
    assert (reply["error"], reply["advice"]["reconnect"]) == ("402::Unknown client", "handshake")
    browser.server.agent("Ann").join()
    browser.shake()
    browser.publish("requestNotifications", transcriptPosition=2)
    assert texts(browser.pushed()) == ["ParticipantJoined"]


def test_server_disconnect_is_sent_with_next_connect(browser):
    held = browser.connect()
    browser.server.hang_up()
    reply = browser.server.resume(held, browser.now).json()
    assert [message["channel"] for message in reply] == ["/meta/disconnect", "/meta/connect"]
    assert browser.poll()[0]["error"] == "402::Unknown client"


def test_cut_connect_loses_no_event(browser):
    held = browser.connect()
    browser.server.cut_connects()
    assert browser.server.resume(held, browser.now).fate == "drop"
    browser.server.agent("Ann").join()
    assert texts(browser.pushed()) == ["ParticipantJoined"]


def test_status_1_is_pushed_with_connects(browser):
    browser.server.faults.add(operation="connect", server_status=1, times=2)
    assert [envelope["statusCode"] for _ in range(3) for envelope in browser.pushed()] == [1, 1]


@pytest.mark.parametrize("name", ["send", "sendMessage", "publish"])
def test_publish_fault_refuses_mutes_or_pushes_error(browser, name):
    browser.server.faults.add(operation=name, refused="403::Forbidden")
    reply = browser.publish("sendMessage", message="hi")
    assert (reply["successful"], reply["error"]) == (False, "403::Forbidden")
    browser.server.faults.add(operation=name, mute=True)
    assert browser.publish("sendMessage", message="hi")["successful"] is True
    browser.server.faults.add(operation=name, server_status=2, errors=(249,))
    browser.publish("sendMessage", message="hi")
    assert [envelope["errors"][0]["code"] for envelope in browser.pushed()] == [249]
    assert len(browser.server.current_chat().transcript) == 1


def test_handshake_fault_refuses_once(open_browser):
    browser = open_browser()
    browser.server.faults.add(operation="handshake", refused="403::No", times=1)
    reply = browser.shake()
    assert (reply["successful"], reply["advice"]["reconnect"]) == (False, "handshake")
    assert browser.shake()["successful"] is True


@pytest.mark.parametrize(
    ("fault", "expected"),
    [({"http_status": 500}, (500, "whole")), ({"drop": True}, (200, "drop")), ({"tear": True}, (200, "tear"))],
)
def test_http_fault_replaces_whole_bayeux_response(browser, fault, expected):
    browser.server.faults.add(operation="connect", **fault)
    answer = browser.connect(advice={"timeout": 0})
    assert (answer.status, answer.fate) == expected


def test_duplicate_fault_pushes_events_twice(browser):
    browser.server.agent("Ann").join()
    browser.server.faults.add(operation="connect", duplicate=True)
    assert texts(browser.pushed()) == ["ParticipantJoined"] * 2


# Files


def test_file_form_performs_each_file_operation(browser, make_multipart):
    def post(fields, files=None, key="k"):
        body, kind = make_multipart({"secureKey": browser.keys["secureKey"], **fields}, files or {})
        headers = {"content-type": kind, "apikey": key}
        return browser.server.handle(HttpRequest("POST", "/genesys/2/chat-ntf", headers, body), browser.now)

    limits = post({"operation": "fileGetLimits"}).json()
    assert limits["messages"][0]["text"] == "file-client-cfg-get"
    uploaded = post({"operation": "fileUpload"}, {"file": ("a.png", b"png")}).json()
    file_id = uploaded["userData"]["file-id"]
    assert [e["messages"][0]["type"] for e in browser.pushed()] == ["FileUploaded"]
    assert post({"operation": "fileDownload", "fileId": file_id}).body == b"png"
    assert post({"operation": "fileDelete", "fileId": file_id}).json()["statusCode"] == 0
    assert [e["messages"][0]["type"] for e in browser.pushed()] == ["FileDeleted"]
    assert post({"operation": "nothing"}).status == 400
    assert post({"operation": "fileUpload"}, {"file": ("a.exe", b"x")}).json()["errors"][0]["code"] == 203
    assert post({"operation": "fileGetLimits", "secureKey": "wrong"}).json()["statusCode"] == 2
    browser.server.faults.add(operation="fileGetLimits", server_status=1)
    assert post({"operation": "fileGetLimits"}).json()["statusCode"] == 1


def test_file_form_without_api_key_is_401(open_browser):
    answer = open_browser(apikey="k").server.handle(HttpRequest("POST", "/genesys/2/chat-ntf", {}, b""), 1.0)
    assert (answer.status, answer.json()["errors"][0]["code"]) == (401, 401)


# Over real sockets


def test_held_connect_ends_by_event_or_by_front_stop():
    with urllib3.PoolManager(retries=False, timeout=LONG) as http:
        with HttpFront(ChatServer()) as front:

            def post(*messages):
                chunks = iter([json.dumps(messages).encode()])
                answer = http.request("POST", front.comet_url, body=chunks, headers=cookie, chunked=True)
                cookie.update(
                    {"Cookie": answer.headers["set-cookie"].split(";")[0]} if "set-cookie" in answer.headers else {}
                )
                return answer.json()

            cookie: dict[str, str] = {}
            client = post({"channel": "/meta/handshake", "id": "1"})[0]["clientId"]
            start = {"operation": "requestChat", "nickname": "Jonny"}
            held: list[object] = []
            connect = {"channel": "/meta/connect", "clientId": client, "connectionType": "long-polling", "id": "2"}
            waiting = threading.Thread(target=lambda: held.extend(post(connect)))
            waiting.start()
            assert post({"channel": CHANNEL, "clientId": client, "data": start})[0]["successful"] is True
            waiting.join(LONG)
            assert [message["channel"] for message in held] == [CHANNEL, "/meta/connect"]

            url, sent = front.comet_url, {**cookie}
            body = json.dumps([connect]).encode()
            statuses: list[int] = []
            watched = threading.Event()
            front.server.on_change(watched.set)
            last = threading.Thread(
                target=lambda: statuses.append(http.request("POST", url, body=body, headers=sent).status)
            )
            last.start()
            assert watched.wait(LONG)
        last.join(LONG)
        assert statuses == [503]
