"""Check the longest duration of each command, proxies that cut connects, and pushes with other ids."""

from __future__ import annotations

import io
import logging
from typing import NamedTuple

import pytest

from tests.cometd.gateway import envelope, event, push
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm._errors import TransportError
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._bench import CONFIGS, merged

AJAX = 2.0
"""ajaxTimeout in seconds."""


class Bound(NamedTuple):
    """Names a command and its longest duration without any response: a number of ajaxTimeouts plus seconds."""

    command: str
    data: dict
    times: float
    more: float = 0.0


BOUNDS = (
    Bound("startChat", {"nickname": "Jonny"}, 1),
    Bound("sendMessage", {"message": "hi"}, 1),
    Bound("sendTyping", {}, 1),
    Bound("updateUserData", {"a": 1}, 1),
    Bound("sendCustomNotice", {"message": "n"}, 1),
    Bound("getFileLimits", {}, 1),
    Bound("downloadFile", {"fileId": "f"}, 1),
    Bound("sendFile", {"files": [io.BytesIO(b"x")]}, 1),
    Bound("fetchHistory", {}, 1),
    Bound("endChat", {}, 1),
)
OVER_COMETD = {"startChat": 5}
"""Numbers of ajaxTimeouts that differ over CometD."""


class Silent:
    """Sends each request until `silent` is set; from then on each request ends at its timeout without a response."""

    def __init__(self, timeline, inner):
        self.timeline, self.inner, self.silent = timeline, inner, False

    def send(self, request):
        if not self.silent:
            return self.inner.send(request)
        clock = self.timeline.clock
        clock.sleep_until(clock.timer() + request.timeout)
        raise TransportError(f"{request.operation}: no complete answer within {request.timeout} s")

    def cut(self):
        self.inner.cut()

    def close(self):
        self.inner.close()


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.command)
def test_each_command_ends_within_its_bound(env, webchat_timeline, transport, bound):
    env.transport = transport
    env.client()
    http = Silent(webchat_timeline, env.http)
    config = merged(CONFIGS[transport], {"ajaxTimeout": AJAX * 1000, "fileUploadTimeout": AJAX * 1000})
    chat = WebChatService(config, store=MemoryStore(), http=http, driver=webchat_timeline.driver)
    with chat:
        if bound.command != "startChat":
            chat.command("startChat", {"nickname": "Jonny"})
        http.silent = True
        began = webchat_timeline.now()
        chat.command(bound.command, bound.data)
        times = OVER_COMETD.get(bound.command, bound.times) if transport is Transport.COMETD else bound.times
        assert webchat_timeline.now() - began <= times * AJAX + bound.more + 0.01


@pytest.mark.parametrize("transport", Transport)
def test_restore_ends_within_its_bound(env, webchat_timeline, transport):
    env.transport = transport
    env.client()
    http, store = Silent(webchat_timeline, env.http), MemoryStore()
    config = merged(CONFIGS[transport], {"ajaxTimeout": AJAX * 1000})
    with WebChatService(config, store=store, http=http, driver=webchat_timeline.driver) as chat:
        chat.command("startChat", {"nickname": "Jonny"})
    http.silent = True
    chat = WebChatService(config, store=store, http=http, driver=webchat_timeline.driver)
    began = webchat_timeline.now()
    with chat:
        webchat_timeline.advance(0)
        assert not chat.state.has_session
        assert webchat_timeline.now() - began <= (5 if transport is Transport.COMETD else 1) * AJAX + 0.01


class Late(Silent):
    """Delays each response to just before the timeout of its request while `silent` is set."""

    def send(self, request):
        if self.silent:
            clock = self.timeline.clock
            clock.sleep_until(clock.timer() + 0.99 * request.timeout)
        return self.inner.send(request)


def test_restore_with_late_pages_ends_within_its_bound(env, webchat_timeline):
    env.transport = Transport.V3_ASYNC
    env.client()
    http, store = Late(webchat_timeline, env.http), MemoryStore()
    config = merged(CONFIGS[Transport.V3_ASYNC], {"ajaxTimeout": AJAX * 1000, "transport": {"maxMessagePageSize": 5}})
    with WebChatService(config, store=store, http=http, driver=webchat_timeline.driver) as chat:
        chat.start_chat(nickname="Jonny")
        agent = env.server.agent("Ann").join()
        webchat_timeline.advance(10)
    for number in range(60):
        agent.say(f"missed {number}")
    http.silent, reports = True, []
    chat = WebChatService(config, store=store, http=http, driver=webchat_timeline.driver)
    chat.subscribe("restored", lambda event: reports.append((event.data.missing, webchat_timeline.now())))
    began = webchat_timeline.now()
    with chat:
        webchat_timeline.advance(5 * AJAX)
        ((missing, moment),) = reports
        assert missing is None
        assert 3 * AJAX < moment - began <= 5 * AJAX
        assert not chat.get_transcript().complete


@pytest.mark.parametrize("answered", [0, 1, 2, 3])
@pytest.mark.parametrize("ajax", [500, 3000, 10_000])
def test_start_ends_by_deadline_after_any_last_response(line, webchat_timeline, answered, ajax):
    """Answer the first messages only, and connects without a push, so that the start continues to wait."""
    gateway = line.gateway
    gateway._requestChat = gateway._operation
    http = Silent(webchat_timeline, gateway)

    class Counted:
        def send(self, request):
            http.silent = len(gateway.sent) >= answered
            return http.send(request)

        def cut(self):
            pass

        def close(self):
            pass

    config = merged(CONFIGS[Transport.COMETD], {"ajaxTimeout": ajax})
    chat = WebChatService(config, store=MemoryStore(), http=Counted(), driver=webchat_timeline.driver)
    with chat:
        began = webchat_timeline.now()
        assert chat.command("startChat", {"nickname": "Jonny"}).status == "rejected"
        assert webchat_timeline.now() - began <= 5 * ajax / 1000 + 0.01
        assert chat.state == "idle"


@pytest.mark.soak
@pytest.mark.parametrize("transport", [Transport.V2, Transport.COMETD])
def test_bounds_hold_on_a_socket_that_never_answers(transport, capsys):
    """Measure `startChat` on a real socket that accepts and never answers; print its time beside the bound."""
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = {
            Transport.V2: {"dataURL": f"{base}/genesys/2/chat/customer-support"},
            Transport.COMETD: {"cometD": {"enabled": True, "cometURL": base, "apiURL": base}},
        }[transport]
        with WebChatService({**config, "ajaxTimeout": 500}) as chat:
            began = time.monotonic()
            assert chat.command("startChat", {"nickname": "Jonny"}).status == "rejected"
            took = time.monotonic() - began
    bound = 0.5 * (5 if transport is Transport.COMETD else 1)
    with capsys.disabled():
        print(f"\n{transport} startChat: {took:.2f} s of at most {bound} s")
    assert took <= bound + 0.3


# Proxies


def behind_proxy(line, cuts_after: float, status: int = 504):
    """Script connects that are held as long as they request, at most 30 s, behind a proxy that cuts them."""

    def held(message):
        asked = message.get("advice", {}).get("timeout")
        hold = 30.0 if asked is None else asked / 1000
        clock = line.timeline.clock
        clock.sleep_until(clock.timer() + min(hold, cuts_after))
        return HttpAnswer(status=status) if hold > cuts_after else line.gateway._connect(message)

    line.gateway.script("connect", *[held] * 2000)


@pytest.mark.parametrize("cuts_after", [4.5, 5, 10, 29])
def test_short_proxy_timeout_halves_hold_without_events(line, cuts_after):
    line.gateway.advice["interval"] = 0
    chat = line.start()
    behind_proxy(line, cuts_after)
    line.advance(300)
    assert line.heard.names == []
    assert chat.health().failures == 0
    assert 1000 * cuts_after / 2 == line.gateway.all("connect")[-1]["advice"]["timeout"]


@pytest.mark.parametrize("status", [408, 524])
def test_proxy_timeout_408_or_524_publishes_nothing(line, status):
    line.start()
    behind_proxy(line, 5, status)
    line.advance(60)
    assert line.heard.names == []


@pytest.mark.parametrize("status", [500, 502, 503])
def test_connect_cut_by_other_status_fails_once(line, status):
    """Ask for a shorter hold at the next connect, so that the chat does not change between lost and connected."""
    line.start()
    behind_proxy(line, 5, status)
    line.advance(120)
    assert line.heard.names == ["disconnected", "connectionPending", "connectionRestored", "reconnected"]


def test_proxy_cut_below_shortest_hold_is_an_outage(line):
    chat = line.start()
    behind_proxy(line, 1.0)
    line.advance(120)
    assert line.heard.names[:2] == ["disconnected", "connectionPending"]
    assert chat.state == "active"


# Ids


def test_changed_keys_are_kept_and_logged_without_values(line, caplog):
    chat = line.start()
    line.gateway.queue.append(push(envelope(alias="a-2", secureKey="k-2")))
    line.advance(1)
    known = chat.get_session_data()
    assert (known.session_id, known.alias, known.secure_key) == ("c-1", "a-2", "k-2")
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("secure_key" in text and "alias" in text for text in logged)
    assert "k-2" not in caplog.text


def test_push_of_another_chat_is_dropped_and_logged_once(line, caplog):
    chat = line.start()
    other = envelope(event(7, text="for another chat"), chatId="c-2", secureKey="k-9")
    line.gateway.queue += [push(other), push({**other, "chatEnded": True})]
    line.advance(2)
    line.gateway.say("for us")
    line.advance(2)
    assert line.heard.texts() == ["for us"]
    assert (chat.state, chat.get_session_data().secure_key) == ("active", "k-1")
    assert caplog.text.count("names another chat than this one") == 1
    assert [count for text, count in chat.health().warnings.items() if "another chat" in text] == [2]


def test_push_of_another_chat_does_not_confirm_restore(line):
    line.start()
    line.again()
    other = envelope(event(7, text="for another chat"), chatId="c-2")
    line.gateway.script("requestNotifications", line.gateway.accept(other))
    line.gateway.queue.append(push(envelope(event(1, text="ours"))))
    line.chat.open()
    assert (line.chat.state, line.heard.texts()) == ("active", ["ours"])


def test_rest_response_of_another_chat_keeps_own_ids(webchat_server, webchat_timeline, caplog):
    chat = webchat_server.client("v2")
    with chat:
        chat.start_chat(nickname="Jonny")
        ours = chat.get_session_data()
        webchat_server.faults.add(
            operation="refresh", body=b'{"statusCode":0,"chatId":"c-9","secureKey":"k-9","messages":[]}'
        )
        webchat_timeline.advance(10)
        assert chat.get_session_data() == ours
        assert "names another chat than this one" in caplog.text
