"""Requests over real sockets: bounds that hold against hostile peers, and what is sent twice or never."""

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

from webchat_fsm import Config, ConfigError, TransportError, WebChatService
from webchat_fsm.runtime import sockets
from webchat_fsm.runtime.http import Urllib3Http, encoded
from webchat_fsm.wire.request import FilePart, Request


def test_connections_are_kept_alive(peer, http, ask, says):
    server = peer(says.for_ever(says.whole(b"[]")))
    transport = http(server.url)
    answers = [transport.send(ask(server.url, body=b"a=b", content_type="text/plain")) for _ in range(5)]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"[]")}
    assert server.connections == 1
    assert len(server.seen) == 5
    assert b"Content-Type: text/plain\r\n" in server.seen[0]
    assert server.seen[0].endswith(b"\r\n\r\na=b")


def test_header_names_come_in_lower_case_and_a_bad_status_is_an_answer_too(peer, http, ask, says):
    server = peer(says.for_ever(says.whole(b"later", status="503 Service Unavailable", Retry_After="7")))
    answer = http(server.url).send(ask(server.url))
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", b"later")


def test_a_redirect_is_not_followed(peer, http, ask, says):
    elsewhere = peer(says.for_ever(says.whole()))
    server = peer(says.for_ever(says.whole(b"", status="307 Temporary Redirect", Location=elsewhere.url)))
    assert http(server.url).send(ask(server.url)).status == 307
    assert elsewhere.connections == 0


def test_gzip_and_chunks_are_undone(peer, http, ask, says):
    packed = gzip.compress(b'{"statusCode": 0}')
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (packed[:7], packed[7:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    server = peer(says.for_ever(head + chunks))
    transport = http(server.url)
    assert [transport.send(ask(server.url)).body for _ in range(2)] == [b'{"statusCode": 0}'] * 2
    assert server.connections == 1


# -- one total deadline ------------------------------------------------------------------------------------------------


def dripping(before: bytes, drop: bytes):
    """Send something, then a byte now and then, for as long as anybody listens."""

    def talk(peer, connection):
        peer.read(connection)
        connection.sendall(before)
        while not peer.over.wait(0.05):
            connection.sendall(drop)

    return talk


@pytest.mark.parametrize(
    ("before", "drop"),
    [
        pytest.param(b"", b"H", id="status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="body without length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="interim answers"),
    ],
)
def test_an_answer_that_drips_ends_at_the_deadline(peer, http, ask, stopwatch, before, drop):
    server = peer(dripping(before, drop))
    with pytest.raises(TransportError, match=r"no complete answer within 0\.2 s"):
        http(server.url).send(ask(server.url, timeout=0.2))
    assert stopwatch.seconds > 0.15
    assert stopwatch.soon


def test_a_peer_that_does_not_read_ends_an_upload_at_the_deadline(peer, http, ask, stopwatch):
    server = peer(lambda peer, connection: peer.over.wait(10.0))
    part = FilePart(name="big.bin", content=b"x" * 40_000_000, content_type="application/octet-stream")
    with pytest.raises(TransportError, match="no complete answer"):
        http(server.url).send(ask(server.url, parts=(("file", part),), timeout=0.5))
    assert stopwatch.soon


def test_a_peer_that_reads_slowly_ends_an_upload_at_the_deadline(peer, http, ask, stopwatch):
    def sipping(peer, connection):
        while not peer.over.wait(0.02):
            connection.recv(4096)

    server = peer(sipping)
    with pytest.raises(TransportError, match="no complete answer"):
        http(server.url).send(ask(server.url, body=b"x" * 40_000_000, timeout=0.5))
    assert stopwatch.soon


def test_without_a_time_limit_a_slow_answer_is_waited_for(peer, http, ask, says):
    def late(peer, connection):
        peer.read(connection)
        peer.over.wait(0.3)
        connection.sendall(says.whole(b"late"))

    server = peer(late)
    assert http(server.url).send(ask(server.url, timeout=None)).body == b"late"


# -- what can go wrong -------------------------------------------------------------------------------------------------


def resetting(after: bytes):
    """Send something and reset the connection."""

    def talk(peer, connection):
        peer.read(connection)
        connection.sendall(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return talk


TORN = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"statusCode":'
HALF_A_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{}"
BROKEN_GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot a zip"
LOST = "the connection was lost before the answer was complete"


@pytest.mark.parametrize(
    ("sent", "told"),
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
def test_what_is_no_complete_answer_is_named(peer, http, ask, says, sent, told):
    server = peer(says.answering(sent))
    with pytest.raises(TransportError, match=f"^send: .*{told}$"):
        http(server.url).send(ask(server.url))


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", TORN])
def test_a_reset_is_no_complete_answer(peer, http, ask, sent):
    server = peer(resetting(sent))
    with pytest.raises(TransportError, match=r"lost|torn off"):
        http(server.url).send(ask(server.url))


def test_a_port_that_nobody_listens_on_refuses(http, ask):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/chat"
    with pytest.raises(TransportError, match=r"send: 127\.0\.0\.1:\d+ refused the connection"):
        http(url).send(ask(url))


def test_a_name_that_does_not_resolve_is_named_without_its_credentials(http, ask):
    url = "http://jonny:pa55word@no-such-host.invalid/chat"
    with pytest.raises(TransportError, match=r"the name no-such-host\.invalid cannot be resolved") as caught:
        http("http://no-such-host.invalid/chat").send(ask(url))
    assert "pa55word" not in str(caught.value)


def test_a_host_that_does_not_answer_ends_at_the_deadline(http, ask, stopwatch):
    with full_backlog() as url, pytest.raises(TransportError, match="no connection to 127"):
        http(url).send(ask(url, timeout=0.4))
    assert stopwatch.soon


class full_backlog:  # noqa: N801  (it reads as what it is)
    """An address at which connections are neither accepted nor refused."""

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
def test_an_error_of_a_layer_below_is_a_transport_error(peer, http, ask, says, monkeypatch, place, error):
    def fails(*args, **kwargs):
        raise error

    server = peer(says.for_ever(says.whole()))
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
    """As gevent.Timeout is none of `Exception`."""


@pytest.mark.parametrize("place", ["read", "write"])
def test_a_base_exception_passes_and_closes_its_connection(peer, http, ask, says, monkeypatch, place):
    def fails(*args, **kwargs):
        raise Late

    server = peer(says.for_ever(says.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    with monkeypatch.context() as broken:
        broken.setattr(sockets.Stream, place, fails)
        with pytest.raises(Late):
            transport.send(ask(server.url))
    assert not any(transport._kept.values())
    assert not transport._flights
    assert transport.send(ask(server.url)).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("length", [True, False])
def test_an_answer_beyond_the_limit_is_given_up(peer, http, ask, length):
    def flooding(peer, connection):
        peer.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99000000000\r\n" if length else b"") + b"\r\n")
        while not peer.over.is_set():
            connection.sendall(b"x" * 65536)

    server = peer(flooding)
    with pytest.raises(TransportError, match="the answer is larger than 100000 bytes"):
        http(server.url).send(ask(server.url, max_size=100_000))


def test_a_small_answer_that_unpacks_into_a_huge_one_is_given_up(peer, http, ask, says):
    bomb = gzip.compress(b"0" * 50_000_000)
    server = peer(says.answering(says.whole(bomb, Content_Encoding="gzip")))
    with pytest.raises(TransportError, match="the answer is larger than 100000 bytes"):
        http(server.url).send(ask(server.url, max_size=100_000))


def test_interim_answers_are_none_and_the_next_request_gets_its_own(peer, http, ask, says):
    hints = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    server = peer(says.answering(hints + says.whole(b"first"), says.whole(b"second")))
    transport = http(server.url)
    assert [transport.send(ask(server.url)).body for _ in range(2)] == [b"first", b"second"]
    assert server.connections == 1


def test_a_connection_that_switches_to_another_protocol_is_not_used_again(peer, http, ask, says):
    server = peer(says.answering(b"HTTP/1.1 101 Switching\r\n\r\n"), says.answering(says.whole(b"mine")))
    transport = http(server.url)
    with pytest.raises(TransportError, match="no proper HTTP"):
        transport.send(ask(server.url))
    assert transport.send(ask(server.url)).body == b"mine"
    assert server.connections == 2


def test_a_chunk_of_no_size_is_named_as_the_servers_fault(peer, http, ask, says):
    server = peer(says.answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"))
    with pytest.raises(TransportError, match=r"no proper HTTP|torn off|lost before"):
        http(server.url).send(ask(server.url))


def test_what_nobody_waits_for_any_more_is_not_sent(peer, http, ask, says):
    server = peer(says.for_ever(says.whole()))
    with pytest.raises(TransportError, match="cut, as the service was closed"):
        http(server.url).send(ask(server.url, wanted=lambda: False))
    assert server.seen == []


@pytest.mark.parametrize("endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b""])
def test_what_comes_around_the_answer_is_bounded_too(peer, http, ask, endless):
    def flooding(peer, connection):
        peer.read(connection)
        if not endless:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        while not peer.over.is_set():
            connection.sendall(endless * 1000 or b"X-Trailer: y\r\n" * 1000)

    server = peer(flooding)
    with pytest.raises(TransportError, match="the answer is larger than 1000 bytes"):
        http(server.url).send(ask(server.url, max_size=1000, timeout=20.0))


# -- sent twice, or never ----------------------------------------------------------------------------------------------


def reset_on_reuse(says):
    """Answer once; the next request on that connection is reset unread."""

    def talk(peer, connection):
        peer.read(connection)
        connection.sendall(says.whole(b"first"))
        connection.recv(1)
        peer.seen.append(b"stale")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return talk


def hang_up_on_reuse(says):
    """Answer once; the next request on that connection is read and hung up on."""

    def talk(peer, connection):
        says.answering(says.whole(b"first"))(peer, connection)
        peer.read(connection)

    return talk


@pytest.mark.parametrize("staleness", [reset_on_reuse, hang_up_on_reuse])
def test_a_poll_on_a_stale_connection_is_repeated_once(peer, http, ask, says, staleness):
    server = peer(staleness(says), says.for_ever(says.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    repeats = []
    poll = ask(server.url, operation="refresh", repeatable=True, repeated=lambda: repeats.append(1))
    assert transport.send(poll).body == b"second"
    assert (server.connections, len(repeats)) == (2, 1)


@pytest.mark.parametrize("staleness", [reset_on_reuse, hang_up_on_reuse])
def test_a_poll_is_repeated_where_it_says(peer, http, ask, says, staleness):
    server = peer(staleness(says), says.for_ever(says.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    poll = ask(f"{server.url}/messages", operation="refresh", repeatable=True, repeat_url=f"{server.url}/seen")
    assert transport.send(poll).body == b"second"
    assert server.seen[-1].split(b" ")[1].endswith(b"/seen")


@pytest.mark.parametrize("staleness", [reset_on_reuse, hang_up_on_reuse])
def test_a_send_on_a_stale_connection_is_never_repeated(peer, http, ask, says, staleness):
    server = peer(staleness(says), says.for_ever(says.whole(b"second")))
    transport = http(server.url)
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match=f"^send: {LOST}$"):
        transport.send(ask(server.url, repeatable=False))
    assert (server.connections, len(server.seen)) == (1, 2)


def test_a_poll_that_fails_on_a_new_connection_is_not_repeated(peer, http, ask, says):
    server = peer(says.answering(b""), says.for_ever(says.whole()))
    with pytest.raises(TransportError, match=LOST):
        http(server.url).send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_a_poll_is_repeated_as_often_as_configured_and_no_more(peer, http, ask, says):
    server = peer(hang_up_on_reuse(says))
    transport = http(server.url, client={"retry": {"staleConnection": 0}})
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match=LOST):
        transport.send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_a_poll_whose_answer_has_begun_is_not_repeated(peer, http, ask, says):
    server = peer(says.answering(says.whole(b"first"), TORN), says.for_ever(says.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    with pytest.raises(TransportError, match="torn off"):
        transport.send(ask(server.url, repeatable=True))
    assert server.connections == 1


def test_a_connection_closed_while_idle_is_replaced_also_for_a_send(peer, http, ask, says, eventually):
    server = peer(says.answering(says.whole()), says.for_ever(says.whole()))
    transport = http(server.url)
    transport.send(ask(server.url))
    eventually(lambda: not any(thread.name == "peer" and thread is not server._threads[0] and thread.is_alive()
                               for thread in server._threads))  # fmt: skip
    assert transport.send(ask(server.url)).status == 200
    assert len(server.seen) == 2


# -- cut ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cut_short(in_threads, eventually, stopwatch):
    """Send in a thread, cut once `reached`, and give the error and the seconds from the cut to it."""

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
        thread.join(5.0)
        assert stopwatch.soon
        (error,) = caught
        assert str(error) == f"{request.operation}: cut, as the service was closed"

    return run


def flying(transport):
    """Whether the request has come as far as to wait on a socket."""
    return lambda: any(flight._sock is not None for flight in list(transport._flights))


def test_a_request_that_waits_for_its_answer_is_cut_and_the_next_goes_through(peer, http, ask, says, cut_short):
    server = peer(says.silent, says.for_ever(says.whole()))
    transport = http(server.url)
    cut_short(transport, ask(server.url, timeout=30.0), lambda: server.seen)
    assert transport.send(ask(server.url)).status == 200


def test_a_request_in_the_middle_of_its_answer_is_cut(peer, http, ask, says, cut_short):
    server = peer(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"))
    cut_short(http(server.url), ask(server.url, timeout=30.0), lambda: server.seen)


def test_an_answer_without_length_that_was_cut_does_not_pass_for_a_whole_one(peer, http, ask, cut_short):
    server = peer(dripping(b"HTTP/1.1 200 OK\r\n\r\n[]", b" "))
    cut_short(http(server.url), ask(server.url, timeout=30.0), lambda: server.seen)


def test_an_upload_is_cut(peer, http, ask, cut_short):
    server = peer(lambda peer, connection: peer.over.wait(10.0))
    transport = http(server.url)
    cut_short(transport, ask(server.url, body=b"x" * 40_000_000, timeout=None), lambda: server.connections)


def test_a_request_that_connects_is_cut(http, ask, cut_short):
    with full_backlog() as url:
        transport = http(url)
        cut_short(transport, ask(url, timeout=30.0), flying(transport))


def test_a_request_in_its_tls_handshake_is_cut(peer, http, ask, cut_short):
    server = peer(lambda peer, connection: peer.over.wait(10.0))
    url = server.url.replace("http:", "https:")
    transport = http(url)
    cut_short(transport, ask(url, timeout=30.0), lambda: server.connections and flying(transport)())


def test_all_requests_in_flight_are_cut_together(peer, http, ask, says, in_threads, eventually, stopwatch):
    server = peer(says.silent)
    transport = http(server.url)
    errors: list[str] = []

    def send():
        with pytest.raises(TransportError) as caught:
            transport.send(ask(server.url, timeout=30.0))
        errors.append(str(caught.value))

    threads = in_threads(*[send] * 20)
    eventually(lambda: len(server.seen) == 20)
    stopwatch.restart()
    transport.cut()
    for thread in threads:
        thread.join(5.0)
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
def tls_peer(authority, peer, says):
    """A TLS server with a certificate for some host, which may ask for one of the client."""

    def make(host: str = "127.0.0.1", *, asks: bool = False, talk=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(context)
        if asks:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return peer(talk or says.for_ever(says.whole(b"safe")), tls=context)

    return make


def test_an_unknown_authority_is_not_trusted(tls_peer, http, ask):
    server = tls_peer()
    with pytest.raises(TransportError, match=r"send: TLS failed: .*CERTIFICATE_VERIFY_FAILED"):
        http(server.url).send(ask(server.url))
    assert server.seen == []


def test_a_named_authority_is_trusted(tls_peer, http, ask, ca_file):
    server = tls_peer()
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    assert [transport.send(ask(server.url)).body for _ in range(3)] == [b"safe"] * 3
    assert server.connections == 1


def test_a_certificate_for_another_host_is_refused(tls_peer, http, ask, ca_file):
    server = tls_peer("elsewhere.example")
    with pytest.raises(TransportError, match=r"TLS failed: .*(IP address mismatch|doesn't match)"):
        http(server.url, client={"tls": {"ca": ca_file}}).send(ask(server.url))
    assert server.seen == []


def test_a_client_certificate_is_shown_where_the_server_asks(tls_peer, http, ask, ca_file, authority, tmp_path):
    server = tls_peer(asks=True)
    mine = authority.issue_cert("jonny@example.com")
    mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "me.pem"))
    shown = http(server.url, client={"tls": {"ca": ca_file, "cert": str(tmp_path / "me.pem")}})
    assert shown.send(ask(server.url)).body == b"safe"
    with pytest.raises(TransportError, match=r"TLS failed|connection was lost"):
        http(server.url, client={"tls": {"ca": ca_file}}).send(ask(server.url))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_turned_off(tls_peer, http, ask):
    server = tls_peer("elsewhere.example")
    assert http(server.url, client={"tls": {"verify": False}}).send(ask(server.url)).body == b"safe"


def test_the_deadline_holds_under_tls_too(tls_peer, http, ask, ca_file, stopwatch):
    server = tls_peer(talk=dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"))
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    stopwatch.restart()
    with pytest.raises(TransportError, match=r"no complete answer within 0\.4 s"):
        transport.send(ask(server.url, timeout=0.4))
    assert stopwatch.soon


def test_a_handshake_that_hangs_ends_at_the_deadline(peer, http, ask, stopwatch):
    server = peer(lambda peer, connection: peer.over.wait(10.0))
    url = server.url.replace("http:", "https:")
    transport = http(url)
    stopwatch.restart()
    with pytest.raises(TransportError, match="within"):
        transport.send(ask(url, timeout=0.4))
    assert stopwatch.soon


def test_a_request_under_tls_is_cut(tls_peer, http, ask, ca_file, cut_short, says):
    server = tls_peer(talk=says.silent)
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    cut_short(transport, ask(server.url, timeout=30.0), lambda: server.seen)


def test_a_poll_on_a_stale_tls_connection_is_repeated(tls_peer, http, ask, ca_file, says):
    server = tls_peer(talk=hang_up_on_reuse(says))
    transport = http(server.url, client={"tls": {"ca": ca_file}})
    transport.send(ask(server.url))
    assert transport.send(ask(server.url, repeatable=True)).body == b"first"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("tls", "path"),
    [({"ca": "/no/such/file"}, r"\$\.client\.tls\.ca"), ({"cert": "/no/such/file"}, r"\$\.client\.tls\.cert")],
)
def test_certificates_that_cannot_be_read_are_named_at_once(tls, path):
    with pytest.raises(ConfigError, match=path):
        Urllib3Http(Config.read({"dataURL": "https://chat.test/", "client": {"tls": tls}}))


# -- proxy -------------------------------------------------------------------------------------------------------------


def relaying(peer, connection):
    """A proxy: tunnels after CONNECT, forwards what has an absolute address."""
    head = peer.read(connection)
    verb, target, _ = head.split(b"\r\n")[0].split(b" ")
    if verb == b"CONNECT":
        host, port = target.decode().rsplit(":", 1)
        with socket.create_connection((host, int(port)), 5.0) as there:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(there, connection), daemon=True)
            back.start()
            pump(connection, there)
            back.join(5.0)
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


def test_http_goes_through_a_proxy(peer, http, ask, says):
    server, proxy = peer(says.answering(says.whole(b"far"))), peer(relaying)
    transport = http(server.url, client={"proxy": f"http://127.0.0.1:{proxy.port}"})
    assert transport.send(ask(server.url)).body == b"far"
    assert proxy.seen[0].startswith(f"POST {server.url} HTTP/1.1".encode())


def test_https_goes_through_a_tunnel_of_the_proxy(tls_peer, peer, http, ask, ca_file):
    server, proxy = tls_peer(), peer(relaying)
    transport = http(server.url, client={"proxy": f"http://127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}})
    assert transport.send(ask(server.url, body=b"for the server only")).body == b"safe"
    assert proxy.seen[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.".encode())
    assert b"for the server only" not in proxy.seen[0]


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_may_be_under_tls_itself(secure, tls_peer, peer, http, ask, says, ca_file):
    server = tls_peer() if secure else peer(says.answering(says.whole(b"safe")))
    proxy = tls_peer(talk=relaying)
    client = {"proxy": f"https://127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}}
    assert http(server.url, client=client).send(ask(server.url)).body == b"safe"
    assert proxy.seen[0].startswith(b"CONNECT " if secure else f"POST {server.url} ".encode())


@pytest.mark.parametrize("secure", [False, True])
def test_the_credentials_of_a_proxy_go_to_the_proxy(secure, tls_peer, peer, http, ask, says, ca_file):
    server = tls_peer() if secure else peer(says.answering(says.whole(b"far")))
    proxy = peer(relaying)
    named = {"proxy": f"http://jo%40n:p%3Ass@127.0.0.1:{proxy.port}", "tls": {"ca": ca_file}}
    http(server.url, client=named).send(ask(server.url))
    assert b"Proxy-Authorization: Basic am9AbjpwOnNz\r\n" in proxy.seen[0]
    if secure:
        assert b"Proxy-Authorization" not in server.seen[0]


def test_a_proxy_that_refuses_is_named_without_its_credentials(peer, http, ask, says):
    proxy = peer(says.answering(says.whole(b"", status="407 Proxy Authentication Required")))
    transport = http("https://127.0.0.1/chat", client={"proxy": f"http://me:pa55word@127.0.0.1:{proxy.port}"})
    with pytest.raises(TransportError, match=r"the proxy could not be used|connection was lost") as caught:
        transport.send(ask("https://127.0.0.1/chat"))
    assert "pa55word" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_a_tunnel_that_hangs_ends_at_the_deadline(peer, http, ask, says, stopwatch):
    proxy = peer(says.silent)
    transport = http("https://127.0.0.1/chat", client={"proxy": f"http://127.0.0.1:{proxy.port}"})
    stopwatch.restart()
    with pytest.raises(TransportError):
        transport.send(ask("https://127.0.0.1/chat", timeout=0.4))
    assert stopwatch.soon


# -- cookies and headers -----------------------------------------------------------------------------------------------


def test_cookies_are_kept_with_credentials(peer, http, ask, says):
    baked = says.whole(b"", Set_Cookie="BAYEUX_BROWSER=oven; Path=/; HttpOnly")
    server = peer(says.for_ever(baked))
    transport = http(server.url, xhrFields={"withCredentials": True})
    for _ in range(2):
        transport.send(ask(server.url))
    assert b"Cookie" not in server.seen[0]
    assert b"Cookie: BAYEUX_BROWSER=oven\r\n" in server.seen[1]


def test_no_cookie_is_kept_without_credentials(peer, http, ask, says):
    server = peer(says.for_ever(says.whole(b"", Set_Cookie="a=b")))
    transport = http(server.url)
    for _ in range(2):
        transport.send(ask(server.url))
    assert b"Cookie" not in server.seen[1]


def test_no_more_cookies_are_kept_than_a_browser_would_keep(peer, http, ask, says):
    baked = [says.whole(b"", Set_Cookie=f"c{number}=x") for number in range(60)]
    huge = says.whole(b"", Set_Cookie="huge=" + "x" * 5000)
    server = peer(says.answering(huge, *baked, says.whole()))
    transport = http(server.url, xhrFields={"withCredentials": True})
    for _ in range(62):
        transport.send(ask(server.url))
    assert server.seen[-1].count(b"=x") == 50
    assert b"huge" not in server.seen[-1]


def test_cookies_of_one_host_do_not_travel_to_another(peer, http, ask, says):
    baker, other = peer(says.for_ever(says.whole(b"", Set_Cookie="a=b"))), peer(says.for_ever(says.whole()))
    transport = http(baker.url, xhrFields={"withCredentials": True})
    transport.send(ask(baker.url))
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
def test_custom_headers_travel_with_every_request(peer, says, config, service):
    server = peer(says.for_ever(says.whole(b'{"statusCode": 2}')))
    config["webchat"]["dataURL"] = server.url
    with WebChatService(config) as chat:
        assert not chat.command("startChat", {"nickname": "Jonny"})
    assert b"X-Tenant: acme\r\n" in server.seen[0]


@pytest.mark.parametrize("value", ["sEcReT\r\nX-Injected: yes", "sEcReT\n", "sEcReT\u2028"])
def test_a_header_that_http_cannot_carry_is_refused_without_a_word_of_it(peer, http, ask, says, value, debug_log):
    server = peer(says.for_ever(says.whole()))
    with pytest.raises(TransportError, match="is none that HTTP can carry") as caught:
        http(server.url).send(ask(server.url, headers={"apikey": value}))
    logging.getLogger("test").error("as a user may log it", exc_info=caught.value)
    assert "sEcReT" not in f"{caught.value!r}{caught.value.__cause__!r}{debug_log.text}"
    assert server.seen == []


def test_a_file_travels_as_multipart():
    part = FilePart(name='a "b".txt', content=b"\x00\xff", content_type="text/plain")
    body, kind = encoded(Request(operation="file", method="POST", url="http://x/", parts=(("k", "v"), ("file", part))))
    assert kind.startswith("multipart/form-data; boundary=")
    assert b'name="k"\r\n\r\nv\r\n' in body
    assert b'filename="a %22b%22.txt"\r\nContent-Type: text/plain\r\n\r\n\x00\xff\r\n' in body
