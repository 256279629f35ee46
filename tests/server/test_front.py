"""Check the HTTP front on a real socket of the loopback interface."""

from __future__ import annotations

import importlib
import json
import socket
import sys
import threading
import time
from contextlib import suppress
from urllib.parse import urlencode

import pytest
import urllib3

from tests.limits import LONG
from webchat_fsm.server import ChatServer, Script, Step
from webchat_fsm.server.front import HttpFront


@pytest.fixture
def front():
    with HttpFront(ChatServer()) as running:
        yield running


@pytest.fixture
def http():
    with urllib3.PoolManager(retries=False, timeout=LONG) as pool:
        yield pool


def post(http, url, **fields):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return http.request("POST", url, body=urlencode(fields), headers=kind)


def test_chat_over_http_has_wall_clock_times_and_messages(front, http):
    started = post(http, front.data_url() + "/", nickname="Jonny").json()
    ids = {name: started[name] for name in ("secureKey", "userId", "alias")}
    assert abs(started["messages"][0]["utcTime"] - time.time() * 1000) < 5000
    front.server.agent("Ann").join().say("Hello")
    refreshed = post(http, f"{front.data_url()}/{started['chatId']}/refresh", **ids, transcriptPosition=2)
    assert refreshed.headers["content-type"].startswith("application/json")
    assert [message["type"] for message in refreshed.json()["messages"]] == ["ParticipantJoined", "Message"]


def test_file_uploaded_over_http_is_downloaded_whole(front, http):
    started = post(http, front.data_url(), nickname="Jonny").json()
    base = f"{front.data_url()}/{started['chatId']}"
    form = {"secureKey": started["secureKey"], "file": ("a b.png", b"\x89PNG", "image/png")}
    uploaded = http.request("POST", f"{base}/file", fields=form).json()
    download = post(http, f"{base}/file/{uploaded['userData']['file-id']}/download", secureKey=started["secureKey"])
    assert download.data == b"\x89PNG"


def test_chunked_body_is_read(front, http):
    def chunks():
        yield b"nick"
        yield b"name=Jonny"

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.request("POST", front.data_url(), body=chunks(), headers=kind, chunked=True)
    assert answer.json()["messages"][0]["from"]["nickname"] == "Jonny"


def test_page_of_other_loopback_port_is_allowed_by_cors(front, http):
    asked = {
        "Origin": "http://localhost:8000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "apikey,content-type,X-Tenant",
    }
    preflight = http.request("OPTIONS", front.data_url(), headers=asked)
    assert preflight.status == 204
    allowed = preflight.headers["access-control-allow-headers"].split(", ")
    assert {"content-type", "apikey", "authorization", "x-api-key", "x-nexus-client-key", "x-tenant"} <= set(allowed)
    answer = http.request("POST", front.data_url(), headers={"Origin": "http://localhost:8000"}, body="nickname=J")
    for headers in (preflight.headers, answer.headers):
        assert headers["access-control-allow-origin"] == "http://localhost:8000"
        assert headers["access-control-allow-credentials"] == "true"


def test_page_of_foreign_origin_gets_no_cors_header(front, http):
    answer = http.request("POST", front.data_url(), headers={"Origin": "http://localhost.evil.example"}, body="x=1")
    assert "access-control-allow-origin" not in answer.headers


def test_dropped_response_closes_connection_without_chat(front, http):
    front.server.faults.add(drop=True)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(http, front.data_url(), nickname="Jonny")
    assert post(http, front.data_url(), nickname="Jonny").status == 200
    assert len(front.server.chats) == 1


def test_torn_response_is_shorter_than_content_length(front):
    front.server.faults.add(tear=True)
    host, port = front.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LONG) as connection:
        connection.sendall(b"POST /genesys/2/chat/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nnickname=J")
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert b"200 OK" in head
    assert body.startswith(b'{"statusCode":0')
    assert len(body) < announced
    assert len(front.server.chats) == 1


def test_torn_response_raises_protocol_error_in_urllib3(front, http):
    front.server.faults.add(tear=True)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(http, front.data_url(), nickname="Jonny")


def test_concurrent_stops_raise_nothing():
    for _ in range(20):
        front, faults = HttpFront(ChatServer()).start(), []

        def stop(front=front, faults=faults):
            try:
                front.stop()
            except BaseException as fault:
                faults.append(fault)

        stoppers = [threading.Thread(target=stop) for _ in range(3)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(LONG)
        assert faults == []


def test_slow_answer_delays_no_other_request(front, http):
    front.server.faults.add(delay=60.0)

    def ask_slowly():
        with suppress(urllib3.exceptions.HTTPError):  # the server stops before it answers
            post(http, front.data_url(), nickname="Slow")

    slow = threading.Thread(target=ask_slowly)
    slow.start()
    while len(front.server.faults):
        time.sleep(0.005)
    assert post(http, front.data_url(), nickname="Fast").status == 200
    assert slow.is_alive()
    front.stop()
    slow.join(LONG)
    assert not slow.is_alive()


def test_script_steps_run_without_requests(http):
    script = Script(cast={"Ann": "agent"}, steps=(Step(0.05, "Ann", "join"),))
    with HttpFront(ChatServer(script=script)) as front:
        post(http, front.data_url(), nickname="Jonny")
        joined = threading.Event()
        front.server.on_change(lambda: front.server.current_chat().attended and joined.set())
        assert joined.wait(LONG)


def test_stopping_leaves_no_thread_and_no_port():
    before = set(threading.enumerate())
    front = HttpFront(ChatServer()).start()
    port = int(front.url.rpartition(":")[2])
    front.stop()
    front.stop()
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1.0)
    with HttpFront(ChatServer(), port=port) as again:
        assert again.url.endswith(f":{port}")


def test_used_port_raises_os_error_without_thread(front):
    port = int(front.url.rpartition(":")[2])
    before = threading.active_count()
    with pytest.raises(OSError, match="address already in use"):
        HttpFront(ChatServer(), port=port).start()
    assert threading.active_count() == before


def test_second_start_raises_runtime_error(front):
    with pytest.raises(RuntimeError, match="already started"):
        front.start()


def test_keep_alive_connections_serve_many_requests(front, http):
    answers = [json.loads(post(http, front.data_url(), nickname=str(n)).data) for n in range(20)]
    assert len({answer["chatId"] for answer in answers}) == 20
    assert http.connection_from_url(front.url).num_connections == 1


def test_concurrent_senders_lose_no_event_or_index(front, http):
    """Send from eight visitors and an agent to one chat: no event is lost and each index is unique."""
    started = post(http, front.data_url(), nickname="Jonny").json()
    url, key = f"{front.data_url()}/{started['chatId']}", started["secureKey"]
    ann = front.server.agent("Ann").join()

    def send_some(name: str) -> None:
        with urllib3.PoolManager(retries=False, timeout=LONG) as own:
            for number in range(10):
                assert post(own, f"{url}/send", secureKey=key, message=f"{name}{number}").status == 200

    visitors = [threading.Thread(target=send_some, args=(name,)) for name in "abcdefgh"]
    for visitor in visitors:
        visitor.start()
    for number in range(50):
        ann.say(f"Ann{number}")
    for visitor in visitors:
        visitor.join(LONG)
    messages = post(http, f"{url}/refresh", secureKey=key).json()["messages"]
    assert [message["index"] for message in messages] == list(range(1, 133))
    assert len({message["text"] for message in messages if "text" in message}) == 130


def test_import_without_aiohttp_names_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "webchat_fsm.server.front")
    with pytest.raises(ModuleNotFoundError, match=r"needs aiohttp: pip install 'webchat-fsm\[server\]'"):
        importlib.import_module("webchat_fsm.server.front")
