"""Test requests over real sockets: limits against hostile peers, and which requests are repeated."""

from __future__ import annotations

import gzip
import http.client as http_client
import logging
import socket
import ssl
import struct
import threading

import pytest
import urllib3.exceptions as urllib3_exceptions

from tests.limits import LONG
from webchat_fsm import Config, ConfigError, TransportError, WebChatService
from webchat_fsm._runtime import sockets
from webchat_fsm._runtime.http import OVERHEAD, Urllib3Http
from webchat_fsm._runtime.sockets import InFlight
from webchat_fsm._wire.request import FilePart, Request, encoded


def test_connections_are_kept_alive(peer, http, ask, replies):
    server = peer(replies.repeating(replies.whole(b"[]")))
    transport = http(server.url)
    answers = [transport.send(ask(server.url, body=b"a=b", content_type="text/plain")) for _ in range(5)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"[]")}
    assert server.connections == 1
    assert len(server.seen) == 5
    assert b"Content-Type: text/plain\r\n" in server.seen[0]
    assert server.seen[0].endswith(b"\r\n\r\na=b")


def test_status_503_is_an_answer_with_lower_case_headers(peer, http, ask, replies):
    server = peer(replies.repeating(replies.whole(b"later", status="503 Service Unavailable", Retry_After="7")))
    answer = http(server.url).send(ask(server.url))
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", b"later")


def test_redirect_is_not_followed(peer, http, ask, replies):
    elsewhere = peer(replies.repeating(replies.whole()))
    server = peer(replies.repeating(replies.whole(b"", status="307 Temporary Redirect", Location=elsewhere.url)))
    assert http(server.url).send(ask(server.url)).status == 307
    assert elsewhere.connections == 0


def test_gzip_and_chunks_are_decoded(peer, http, ask, replies):
    packed = gzip.compress(b'{"statusCode": 0}')
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (packed[:7], packed[7:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    server = peer(replies.repeating(head + chunks))
    transport = http(server.url)
    assert [transport.send(ask(server.url)).body for _ in range(2)] == [b'{"statusCode": 0}'] * 2
    assert server.connections == 1


# -- one total deadline ------------------------------------------------------------------------------------------------

LATE = r"no complete answer within {seconds} s|no connection to \S+ within the time limit"
"""What a request says at its deadline; the other text where a stalled machine has not even connected by then."""


def sending_slowly(before: bytes, repeated_bytes: bytes):
    """Send some bytes, then a few more every 50 ms until the test ends."""

    def script(peer, connection):
        peer.read(connection)
        connection.sendall(before)
        while not peer.over.wait(0.05):
            connection.sendall(repeated_bytes)

    return script


@pytest.mark.parametrize(
    ("before", "repeated_bytes"),
    [
        pytest.param(b"", b"H", id="status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="body without length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
    ],
)
def test_slow_answer_fails_at_the_deadline(peer, http, ask, stopwatch, before, repeated_bytes):
    server = peer(sending_slowly(before, repeated_bytes))
    with pytest.raises(TransportError, match=LATE.format(seconds=r"0\.2")):
        http(server.url).send(ask(server.url, timeout=0.2))
    assert stopwatch.seconds > 0.15
    assert stopwatch.soon


def test_upload_to_a_peer_that_does_not_read_has_a_deadline(peer, http, ask, stopwatch):
    server = peer(lambda peer, connection: peer.over.wait(LONG))
    part = FilePart(name="big.bin", content=b"x" * 40_000_000, content_type="application/octet-stream")
    with pytest.raises(TransportError, match=LATE.format(seconds=r"0\.5")):
        http(server.url).send(ask(server.url, parts=(("file", part),), timeout=0.5))
    assert stopwatch.soon


def test_upload_to_a_slow_peer_has_a_deadline(peer, http, ask, stopwatch):
    def reading_slowly(peer, connection):
        while not peer.over.wait(0.02):
            connection.recv(4096)

    server = peer(reading_slowly)
    with pytest.raises(TransportError, match=LATE.format(seconds=r"0\.5")):
        http(server.url).send(ask(server.url, body=b"x" * 40_000_000, timeout=0.5))
    assert stopwatch.soon


def test_slow_answer_without_a_timeout_is_returned(peer, http, ask, replies):
    def late(peer, connection):
        peer.read(connection)
        peer.over.wait(0.3)
        connection.sendall(replies.whole(b"late"))

    server = peer(late)
    assert http(server.url).send(ask(server.url, timeout=None)).body == b"late"


# -- failures -------------------------------------------------------------------------------------------------


def resetting(after: bytes):
    """Send some bytes and reset the connection."""

    def script(peer, connection):
        peer.read(connection)
        connection.sendall(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return script


TORN = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"statusCode":'
HALF_A_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{}"
BROKEN_GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot a zip"
LOST = "the connection was lost before the answer was complete"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(TORN, "the answer was torn off", id="torn body"),
        pytest.param(HALF_A_CHUNK, "the answer was torn off", id="torn chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "torn off", id="no chunk at all"),
        pytest.param(b"", LOST, id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", LOST, id="another protocol"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", LOST, id="a status that is no number"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", LOST, id="too many headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", LOST, id="an endless header"),
        pytest.param(BROKEN_GZIP, "the answer's content encoding is broken", id="broken gzip"),
    ],
)
def test_incomplete_answer_raises_a_specific_error(peer, http, ask, replies, sent, error):
    server = peer(replies.answering(sent))
    with pytest.raises(TransportError, match=f"^send: .*{error}$"):
        http(server.url).send(ask(server.url))


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", TORN])
def test_connection_reset_is_a_transport_error(peer, http, ask, sent):
    server = peer(resetting(sent))
    with pytest.raises(TransportError, match=r"lost|torn off"):
        http(server.url).send(ask(server.url))


def test_closed_port_raises_connection_refused(http, ask):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/chat"
    with pytest.raises(TransportError, match=r"send: 127\.0\.0\.1:\d+ refused the connection"):
        http(url).send(ask(url))


def test_unresolved_host_error_shows_no_credentials(http, ask):
    url = "http://jonny:pa55word@no-such-host.invalid/chat"
    with pytest.raises(TransportError, match=r"the name no-such-host\.invalid cannot be resolved") as caught:
        http("http://no-such-host.invalid/chat").send(ask(url))
    assert "pa55word" not in str(caught.value)


def test_host_that_does_not_answer_fails_at_the_deadline(http, ask, stopwatch):
    with full_backlog() as url, pytest.raises(TransportError, match="no connection to 127"):
        http(url).send(ask(url, timeout=0.4))
    assert stopwatch.soon


def test_second_address_is_tried_when_the_first_is_silent(peer, http, ask, replies, monkeypatch):
    server = peer(replies.answering(replies.whole(b"{}")))
    with full_backlog() as silent_url:
        ports = [int(silent_url.split(":")[2].split("/")[0]), server.port]
        kinds = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: kinds)
        bound, halves = InFlight.bound, []

        def bounding(in_flight, sock, share=1):
            bound(in_flight, sock, share)
            if share == 2:
                halves.append(sock.gettimeout())
                sock.settimeout(0.1)  # instead of the half of a minute

        monkeypatch.setattr(InFlight, "bound", bounding)
        assert http(server.url).send(ask(server.url, timeout=LONG)).status == 200
    (half,) = halves
    assert 0 < half <= LONG / 2


class full_backlog:  # noqa: N801  (called like a function)
    """Provide an address at which connections are neither accepted nor refused."""

    def __enter__(self) -> str:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._waiting = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self._listener.getsockname())
            self._waiting.append(waiting)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/chat"

    def __exit__(self, *_: object) -> None:
        for one in (*self._waiting, self._listener):
            one.close()


BELOW = [
    TypeError("send() takes no keyword arguments"),
    AttributeError("no such thing"),
    struct.error("unpack requires 4 bytes"),
    RecursionError("too deep"),
    KeyError("x"),
    EOFError(),
    ReferenceError("gone"),
    http_client.HTTPException("odd"),
    http_client.IncompleteRead(b""),
    http_client.ResponseNotReady(),
    urllib3_exceptions.HTTPError("odd"),
    urllib3_exceptions.PoolError(None, "odd"),
    urllib3_exceptions.DecodeError("odd"),
    ssl.SSLError(1, "odd"),
    OSError(5, "odd"),
    UnicodeDecodeError("utf-8", b"sEcReT", 0, 1, "sEcReT"),
    ValueError("sEcReT"),
]
"""Errors that a layer below may raise; those with a secret quote what was to be sent."""


@pytest.mark.parametrize("error", BELOW, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["getaddrinfo", "recv", "sendall", "parse"])
def test_error_of_a_layer_below_is_a_transport_error(peer, http, ask, replies, monkeypatch, place, error):
    def fails(*args, **kwargs):
        raise error

    server = peer(replies.repeating(replies.whole(Content_Encoding="identity")))  # which http.client parses
    transport = http(server.url)
    targets = {"getaddrinfo": sockets.socket, "recv": sockets.Stream, "sendall": sockets.Stream, "parse": http_client}
    name = {"recv": "read", "sendall": "write", "parse": "parse_headers"}.get(place, place)
    with monkeypatch.context() as broken:
        broken.setattr(targets[place], name, fails)
        with pytest.raises(TransportError, match=r"^send: ") as caught:
            transport.send(ask(server.url))
    assert caught.value.__cause__ is not None
    assert "sEcReT" not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert transport.send(ask(server.url)).status == 200


class Late(BaseException):
    """Derive from `BaseException` alone, as gevent.Timeout does."""


@pytest.mark.parametrize("place", ["read", "write"])
def test_base_exception_propagates_and_closes_connection(peer, http, ask, replies, monkeypatch, place):
    def fails(*args, **kwargs):
        raise Late

    server = peer(replies.repeating(replies.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    with monkeypatch.context() as broken:
        broken.setattr(sockets.Stream, place, fails)
        with pytest.raises(Late):
            transport.send(ask(server.url))
    assert not len(transport.pool)
    assert not transport.all_in_flight
    assert transport.send(ask(server.url)).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("length", [True, False])
def test_answer_beyond_the_limit_is_an_error(peer, http, ask, length):
    def flooding(peer, connection):
        peer.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99000000000\r\n" if length else b"") + b"\r\n")
        while not peer.over.is_set():
            connection.sendall(b"x" * 65536)

    server = peer(flooding)
    with pytest.raises(TransportError, match="the answer is larger than 100000 bytes"):
        http(server.url).send(ask(server.url, max_size=100_000))


@pytest.mark.parametrize(("beyond", "size"), [(0, 1000), (1, 1000), (0, 1001)])
def test_answer_is_accepted_up_to_both_limits(peer, http, ask, replies, beyond, size):
    """Check the limit of the body and that of all bytes received for a request: each rejects one byte more."""
    final = replies.whole(b"x" * size)
    filler = 2 * 1000 + OVERHEAD + beyond - len(final)
    interim = b"HTTP/1.1 102 Processing\r\nX: %b\r\n\r\n"
    room = 50_000 - len(interim) + 2
    whole, rest = divmod(filler - 1000, 50_000)  # the last one is never shorter than its own head
    sent = interim % (b"y" * room) * whole + interim % (b"y" * (rest + 1000 - len(interim) + 2))
    assert len(sent + final) == 2 * 1000 + OVERHEAD + beyond
    transport = http((server := peer(replies.answering(sent + final))).url)
    if not beyond and size == 1000:
        assert transport.send(ask(server.url, max_size=1000)).body == b"x" * 1000
    else:
        with pytest.raises(TransportError, match="the answer is larger than 1000 bytes"):
            transport.send(ask(server.url, max_size=1000))


def test_gzip_bomb_is_an_error(peer, http, ask, replies):
    bomb = gzip.compress(b"0" * 50_000_000)
    server = peer(replies.answering(replies.whole(bomb, Content_Encoding="gzip")))
    with pytest.raises(TransportError, match="the answer is larger than 100000 bytes"):
        http(server.url).send(ask(server.url, max_size=100_000))


def test_interim_answers_are_skipped(peer, http, ask, replies):
    hints = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    server = peer(replies.answering(hints + replies.whole(b"first"), replies.whole(b"second")))
    transport = http(server.url)
    assert [transport.send(ask(server.url)).body for _ in range(2)] == [b"first", b"second"]
    assert server.connections == 1


def test_connection_after_status_101_is_not_reused(peer, http, ask, replies):
    server = peer(replies.answering(b"HTTP/1.1 101 Switching\r\n\r\n"), replies.answering(replies.whole(b"mine")))
    transport = http(server.url)
    with pytest.raises(TransportError, match="not valid HTTP"):
        transport.send(ask(server.url))
    assert transport.send(ask(server.url)).body == b"mine"
    assert server.connections == 2


def test_negative_chunk_size_is_a_transport_error(peer, http, ask, replies):
    server = peer(replies.answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"))
    with pytest.raises(TransportError, match=r"not valid HTTP|torn off|lost before"):
        http(server.url).send(ask(server.url))


def test_request_no_longer_wanted_is_not_sent(peer, http, ask, replies):
    server = peer(replies.repeating(replies.whole()))
    with pytest.raises(TransportError, match="cut, as the service was closed"):
        http(server.url).send(ask(server.url, wanted=lambda: False))
    assert server.seen == []


@pytest.mark.parametrize("endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b""])
def test_interim_answers_and_trailers_are_bounded(peer, http, ask, endless):
    def flooding(peer, connection):
        peer.read(connection)
        if not endless:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        while not peer.over.is_set():
            connection.sendall(endless * 1000 or b"X-Trailer: y\r\n" * 1000)

    server = peer(flooding)
    with pytest.raises(TransportError, match="the answer is larger than 1000 bytes"):
        http(server.url).send(ask(server.url, max_size=1000, timeout=20.0))


# -- repeated requests -------------------------------------------------------------------------------------------------


def reset_on_reuse(replies):
    """Answer once; the next request on that connection is reset unread."""

    def script(peer, connection):
        peer.read(connection)
        connection.sendall(replies.whole(b"first"))
        connection.recv(1)
        peer.seen.append(b"stale")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


def close_on_reuse(replies):
    """Answer once; the next request on that connection is read, and the connection closed."""

    def script(peer, connection):
        replies.answering(replies.whole(b"first"))(peer, connection)
        peer.read(connection)

    return script


@pytest.mark.parametrize("staleness", [reset_on_reuse, close_on_reuse])
def test_poll_on_a_stale_connection_is_repeated_once(peer, http, ask, replies, staleness):
    server = peer(staleness(replies), replies.repeating(replies.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    repeats = []
    poll = ask(server.url, operation="refresh", repeatable=True, repeated=lambda: repeats.append(1))
    assert transport.send(poll).body == b"second"
    assert (server.connections, len(repeats)) == (2, 1)


@pytest.mark.parametrize("staleness", [reset_on_reuse, close_on_reuse])
def test_poll_is_repeated_at_its_repeat_url(peer, http, ask, replies, staleness):
    server = peer(staleness(replies), replies.repeating(replies.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    poll = ask(f"{server.url}/messages", operation="refresh", repeatable=True, repeat_url=lambda: f"{server.url}/seen")
    assert transport.send(poll).body == b"second"
    assert server.seen[-1].split(b" ")[1].endswith(b"/seen")


@pytest.mark.parametrize("staleness", [reset_on_reuse, close_on_reuse])
def test_send_on_a_stale_connection_is_never_repeated(peer, http, ask, replies, staleness):
    server = peer(staleness(replies), replies.repeating(replies.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match=f"^send: {LOST}$"):
        transport.send(ask(server.url, repeatable=False))
    assert (server.connections, len(server.seen)) == (1, 2)


def test_poll_that_fails_on_a_new_connection_is_not_repeated(peer, http, ask, replies):
    server = peer(replies.answering(b""), replies.repeating(replies.whole()))
    with pytest.raises(TransportError, match=LOST):
        http(server.url).send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_poll_is_not_repeated_with_a_retry_count_of_zero(peer, http, ask, replies):
    server = peer(close_on_reuse(replies))
    transport = http(server.url, client={"retry": {"staleConnection": 0}})
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match=LOST):
        transport.send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_poll_whose_answer_has_begun_is_not_repeated(peer, http, ask, replies):
    server = peer(replies.answering(replies.whole(b"first"), TORN), replies.repeating(replies.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match="torn off"):
        transport.send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_connection_closed_while_idle_is_replaced_for_a_send(peer, http, ask, replies, eventually):
    server = peer(replies.answering(replies.whole()), replies.repeating(replies.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    eventually(lambda: not any(thread.name == "peer" and thread is not server._threads[0] and thread.is_alive()
                               for thread in server._threads))  # fmt: skip
    assert transport.send(ask(server.url)).status == 200
    assert len(server.seen) == 2


# -- cut ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def send_and_cut(in_threads, eventually, stopwatch):
    """Send in a thread, cut once `reached` holds, and check that the request fails soon because of the cut."""

    def run(transport, request, reached):
        caught: list[BaseException] = []

        def send():
            try:
                transport.send(request)
            except TransportError as error:
                caught.append(error)

        (thread,) = in_threads(send)
        eventually(reached)
        assert not caught
        stopwatch.restart()
        transport.cut()
        thread.join(LONG)
        assert stopwatch.soon
        (error,) = caught
        assert str(error) == f"{request.operation}: cut, as the service was closed"

    return run


def waits_on_socket(transport):
    """Return a check that a request in flight waits on a socket."""
    return lambda: any(in_flight._sock is not None for in_flight in list(transport.all_in_flight))


def test_cut_fails_a_waiting_request_and_the_next_succeeds(peer, http, ask, replies, send_and_cut):
    server = peer(replies.silent, replies.repeating(replies.whole()))
    transport = http(server.url)
    send_and_cut(transport, ask(server.url, timeout=LONG), lambda: server.seen)
    assert transport.send(ask(server.url)).status == 200


def test_cut_fails_a_request_in_the_middle_of_its_answer(peer, http, ask, replies, send_and_cut):
    server = peer(sending_slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"))
    send_and_cut(http(server.url), ask(server.url, timeout=LONG), lambda: server.seen)


def test_cut_answer_without_length_is_incomplete(peer, http, ask, send_and_cut):
    server = peer(sending_slowly(b"HTTP/1.1 200 OK\r\n\r\n[]", b" "))
    send_and_cut(http(server.url), ask(server.url, timeout=LONG), lambda: server.seen)


def test_cut_fails_an_upload(peer, http, ask, send_and_cut):
    server = peer(lambda peer, connection: peer.over.wait(LONG))
    transport = http(server.url)
    send_and_cut(transport, ask(server.url, body=b"x" * 40_000_000, timeout=None), lambda: server.connections)


def test_cut_fails_a_request_that_is_connecting(http, ask, send_and_cut):
    with full_backlog() as url:
        transport = http(url)
        send_and_cut(transport, ask(url, timeout=LONG), waits_on_socket(transport))


def test_cut_fails_a_request_in_its_tls_handshake(peer, http, ask, send_and_cut):
    server = peer(lambda peer, connection: peer.over.wait(LONG))
    url = server.url.replace("http:", "https:")
    transport = http(url)
    send_and_cut(transport, ask(url, timeout=LONG), lambda: server.connections and waits_on_socket(transport)())


def test_cut_fails_all_requests_in_flight(peer, http, ask, replies, in_threads, eventually, stopwatch):
    server = peer(replies.silent)
    transport = http(server.url)
    errors: list[str] = []

    def send():
        with pytest.raises(TransportError) as caught:
            transport.send(ask(server.url, timeout=LONG))
        errors.append(str(caught.value))

    threads = in_threads(*[send] * 20)
    eventually(lambda: len(server.seen) == 20)
    stopwatch.restart()
    transport.cut()
    for thread in threads:
        thread.join(LONG)
    assert stopwatch.soon
    assert errors == ["send: cut, as the service was closed"] * 20


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    trustme = pytest.importorskip("trustme")
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def tls_peer(authority, peer, replies):
    """Make TLS servers with a certificate for a host, which may require a client certificate."""

    def make(host: str = "127.0.0.1", *, asks: bool = False, script=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(context)
        if asks:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return peer(script or replies.repeating(replies.whole(b"safe")), tls=context)

    return make


def test_unknown_authority_is_not_trusted(tls_peer, http, ask):
    server = tls_peer()
    with pytest.raises(TransportError, match=r"send: TLS failed: .*CERTIFICATE_VERIFY_FAILED"):
        http(server.url).send(ask(server.url))
    assert server.seen == []


def test_configured_authority_is_trusted(tls_peer, http, ask, ca_file):
    server = tls_peer()
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    assert [transport.send(ask(server.url)).body for _ in range(3)] == [b"safe"] * 3
    assert server.connections == 1


def test_certificate_for_another_host_is_rejected(tls_peer, http, ask, ca_file):
    server = tls_peer("elsewhere.example")
    with pytest.raises(TransportError, match=r"TLS failed: .*(IP address mismatch|doesn't match)"):
        http(server.url, client={"tls": {"ca": ca_file}}).send(ask(server.url))
    assert server.seen == []


def test_client_certificate_is_sent_where_required(tls_peer, http, ask, ca_file, authority, tmp_path):
    server = tls_peer(asks=True)
    mine = authority.issue_cert("jonny@example.com")
    mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "me.pem"))
    shown = http(server.url, client={"tls": {"ca": ca_file, "cert": str(tmp_path / "me.pem")}})
    assert shown.send(ask(server.url)).body == b"safe"
    with pytest.raises(TransportError, match=r"TLS failed|connection was lost"):
        http(server.url, client={"tls": {"ca": ca_file}}).send(ask(server.url))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_verification_can_be_disabled(tls_peer, http, ask):
    server = tls_peer("elsewhere.example")
    assert http(server.url, client={"tls": {"verify": False}}).send(ask(server.url)).body == b"safe"


def test_slow_answer_under_tls_fails_at_the_deadline(tls_peer, http, ask, ca_file, stopwatch):
    server = tls_peer(script=sending_slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"))
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    stopwatch.restart()
    with pytest.raises(TransportError, match=LATE.format(seconds=r"0\.4")):
        transport.send(ask(server.url, timeout=0.4))
    assert stopwatch.soon


def test_tls_handshake_fails_at_the_deadline(peer, http, ask, stopwatch):
    server = peer(lambda peer, connection: peer.over.wait(LONG))
    url = server.url.replace("http:", "https:")
    transport = http(url)
    stopwatch.restart()
    with pytest.raises(TransportError, match="within"):
        transport.send(ask(url, timeout=0.4))
    assert stopwatch.soon


def test_cut_fails_a_request_under_tls(tls_peer, http, ask, ca_file, send_and_cut, replies):
    server = tls_peer(script=replies.silent)
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    send_and_cut(transport, ask(server.url, timeout=LONG), lambda: server.seen)


def test_poll_on_a_stale_tls_connection_is_repeated(tls_peer, http, ask, ca_file, replies):
    server = tls_peer(script=close_on_reuse(replies))
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    transport.send(ask(server.url))
    assert transport.send(ask(server.url, repeatable=True)).body == b"first"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("tls", "path"),
    [({"ca": "/no/such/file"}, r"\$\.client\.tls\.ca"), ({"cert": "/no/such/file"}, r"\$\.client\.tls\.cert")],
)
def test_unreadable_certificate_is_a_config_error(tls, path):
    with pytest.raises(ConfigError, match=path):
        Urllib3Http(Config.read({"dataURL": "https://chat.test/", "client": {"tls": tls}}))


# -- proxy -------------------------------------------------------------------------------------------------------------


def relaying(peer, connection):
    """Act as a proxy: tunnel after CONNECT, forward a request with an absolute URL."""
    head = peer.read(connection)
    verb, target, _ = head.split(b"\r\n")[0].split(b" ")
    if verb == b"CONNECT":
        host, port = target.decode().rsplit(":", 1)
        with socket.create_connection((host, int(port)), 5.0) as there:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(there, connection), daemon=True)
            back.start()
            pump(connection, there)
            back.join(LONG)
        return
    host, port = target.split(b"/")[2].decode().rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5.0) as there:
        there.sendall(head)
        pump(there, connection)


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_http_request_is_sent_by_the_proxy(peer, http, ask, replies):
    server, proxy = peer(replies.answering(replies.whole(b"far"))), peer(relaying)
    transport = http(server.url, client={"proxy": f"http://127.0.0.1:{proxy.port}"})
    assert transport.send(ask(server.url)).body == b"far"
    assert proxy.seen[0].startswith(f"POST {server.url} HTTP/1.1".encode())


def test_https_request_is_sent_by_a_proxy_tunnel(tls_peer, peer, http, ask, ca_file):
    server, proxy = tls_peer(), peer(relaying)
    transport = http(server.url, client={"proxy": f"http://127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}})
    assert transport.send(ask(server.url, body=b"for the server only")).body == b"safe"
    assert proxy.seen[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.".encode())
    assert b"for the server only" not in proxy.seen[0]


@pytest.mark.parametrize("secure", [False, True])
def test_proxy_is_reached_over_tls(secure, tls_peer, peer, http, ask, replies, ca_file):
    server = tls_peer() if secure else peer(replies.answering(replies.whole(b"safe")))
    proxy = tls_peer(script=relaying)
    client = {"proxy": f"https://127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}}
    assert http(server.url, client=client).send(ask(server.url)).body == b"safe"
    assert proxy.seen[0].startswith(b"CONNECT " if secure else f"POST {server.url} ".encode())


@pytest.mark.parametrize("secure", [False, True])
def test_proxy_credentials_are_sent_to_the_proxy(secure, tls_peer, peer, http, ask, replies, ca_file):
    server = tls_peer() if secure else peer(replies.answering(replies.whole(b"far")))
    proxy = peer(relaying)
    named = {"proxy": f"http://jo%40n:p%3Ass@127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}}
    http(server.url, client=named).send(ask(server.url))
    assert b"Proxy-Authorization: Basic am9AbjpwOnNz\r\n" in proxy.seen[0]
    if secure:
        assert b"Proxy-Authorization" not in server.seen[0]


def test_proxy_refusal_error_shows_no_credentials(peer, http, ask, replies):
    proxy = peer(replies.answering(replies.whole(b"", status="407 Proxy Authentication Required")))
    transport = http("https://127.0.0.1/chat", client={"proxy": f"http://me:pa55word@127.0.0.1:{proxy.port}"})
    with pytest.raises(TransportError, match=r"the proxy could not be used|connection was lost") as caught:
        transport.send(ask("https://127.0.0.1/chat"))
    assert "pa55word" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_unanswered_tunnel_fails_at_the_deadline(peer, http, ask, replies, stopwatch):
    proxy = peer(replies.silent)
    transport = http("https://127.0.0.1/chat", client={"proxy": f"http://127.0.0.1:{proxy.port}"})
    stopwatch.restart()
    with pytest.raises(TransportError):
        transport.send(ask("https://127.0.0.1/chat", timeout=0.4))
    assert stopwatch.soon


# -- cookies and headers -----------------------------------------------------------------------------------------------


def test_cookies_are_kept_with_credentials(peer, http, ask, replies):
    setting_cookies = replies.whole(b"", Set_Cookie="BAYEUX_BROWSER=abc123; Path=/; HttpOnly")
    server = peer(replies.repeating(setting_cookies))
    transport = http(server.url, xhrFields={"withCredentials": True})
    for _ in range(2):
        transport.send(ask(server.url))
    assert b"Cookie" not in server.seen[0]
    assert b"Cookie: BAYEUX_BROWSER=abc123\r\n" in server.seen[1]


def test_no_cookie_is_kept_without_credentials(peer, http, ask, replies):
    server = peer(replies.repeating(replies.whole(b"", Set_Cookie="a=b")))
    transport = http(server.url)
    for _ in range(2):
        transport.send(ask(server.url))
    assert b"Cookie" not in server.seen[1]


def test_at_most_50_cookies_and_no_large_one_are_kept(peer, http, ask, replies):
    setting_cookies = [replies.whole(b"", Set_Cookie=f"c{number}=x") for number in range(60)]
    huge = replies.whole(b"", Set_Cookie="huge=" + "x" * 5000)
    server = peer(replies.answering(huge, *setting_cookies, replies.whole()))
    transport = http(server.url, xhrFields={"withCredentials": True})
    for _ in range(62):
        transport.send(ask(server.url))
    assert server.seen[-1].count(b"=x") == 50
    assert b"huge" not in server.seen[-1]


def test_cookies_of_one_host_are_not_sent_to_another(peer, http, ask, replies):
    setter = peer(replies.repeating(replies.whole(b"", Set_Cookie="a=b")))
    other = peer(replies.repeating(replies.whole()))
    transport = http(setter.url, xhrFields={"withCredentials": True})
    transport.send(ask(setter.url))
    elsewhere = other.url.replace("127.0.0.1", "localhost")
    transport.send(ask(elsewhere))
    assert b"Cookie" not in other.seen[0]


@pytest.mark.parametrize(
    "config",
    [
        {"webchat": {"enableCustomHeader": True}, "main": {"header": {"X-Tenant": "acme"}}},
        {"webchat": {"enableCustomHeader": True, "client": {"headers": {"X-Tenant": "acme"}}}},
    ],
)
def test_custom_headers_are_sent_with_a_request(peer, replies, config, service):
    server = peer(replies.repeating(replies.whole(b'{"statusCode": 2}')))
    config["webchat"]["dataURL"] = server.url
    with WebChatService(config) as chat:
        assert not chat.command("startChat", {"nickname": "Jonny"})
    assert b"X-Tenant: acme\r\n" in server.seen[0]


@pytest.mark.parametrize("value", ["sEcReT\r\nX-Injected: yes", "sEcReT\n", "sEcReT\u2028"])
def test_invalid_header_is_an_error_that_does_not_quote_it(peer, http, ask, replies, value, debug_log):
    server = peer(replies.repeating(replies.whole()))
    with pytest.raises(TransportError, match="invalid URL, header or cookie") as caught:
        http(server.url).send(ask(server.url, headers={"apikey": value}))
    logging.getLogger("test").error("as a user may log it", exc_info=caught.value)
    assert "sEcReT" not in f"{caught.value!r}{caught.value.__cause__!r}{debug_log.text}"
    assert server.seen == []


def test_file_is_encoded_as_multipart():
    part = FilePart(name='a "b".txt', content=b"\x00\xff", content_type="text/plain")
    body, kind = encoded(Request(operation="file", method="POST", url="http://x/", parts=(("k", "v"), ("file", part))))
    assert kind.startswith("multipart/form-data; boundary=")
    assert b'name="k"\r\n\r\nv\r\n' in body
    assert b'filename="a %22b%22.txt"\r\nContent-Type: text/plain\r\n\r\n\x00\xff\r\n' in body


def test_lone_surrogates_in_multipart_are_replaced():
    part = FilePart(name="\udce4.txt", content=b"x", content_type="text/\udce4")
    parts = (("k\ud83d", "\ud83d!"), ("file", part))
    body, _ = encoded(Request(operation="file", method="POST", url="http://x/", parts=parts))
    assert 'name="k\ufffd"\r\n\r\n\ufffd!\r\n'.encode() in body
    assert 'name="file"; filename="\ufffd.txt"\r\nContent-Type: text/\ufffd\r\n\r\nx\r\n'.encode() in body
