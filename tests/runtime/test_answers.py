"""Test the reading of answers: a regular head by this library's own rules, and the same answers by urllib3 alone."""

from __future__ import annotations

import gzip
import http.client
import math
import socket

import pytest
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection

from tests.limits import LONG
from webchat_fsm._runtime import answers
from webchat_fsm._runtime.answers import MalformedError, TornError, read_answer
from webchat_fsm._runtime.sockets import InFlight, Stream, TooMuchError

Outcome = tuple[int, dict[str, str], bytes, bool] | None
"""Status, headers, body and whether the connection is kept; None for a failure."""


class Arriving(Stream):
    """Bring the bytes of an answer in the given parts, and then the end of the connection."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = [part for part in parts if part]

    def read(self, in_flight: InFlight, most: int = 65536) -> bytes:
        data = self._parts.pop(0) if self._parts else b""
        if len(data) > most:
            self._parts.insert(0, data[most:])
        in_flight.received(len(data[:most]))
        return data[:most]


def received(*parts: bytes, max_size: int = 1_000_000) -> answers.Received:
    return read_answer(Arriving(*parts), InFlight(None, 10_000_000), "POST", max_size)


def outcome(*parts: bytes) -> Outcome:
    try:
        read = received(*parts)
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError):
        return None
    headers = {name: value.strip(" \t") for name, value in read.answer.headers.items()}
    return read.answer.status, headers, read.answer.body, read.reusable


def outcome_of_urllib3(sent: bytes) -> Outcome:
    """Read the same bytes by urllib3's connection as it is, from a socket."""
    here, there = socket.socketpair()
    with here, there:
        connection = HTTPConnection("chat.test")
        connection.sock = here
        connection.request("POST", "/", preload_content=False)
        there.settimeout(LONG)  # all of it fits into the buffers
        there.sendall(sent)
        there.shutdown(socket.SHUT_WR)
        try:
            response = connection.getresponse()
            kept = connection.sock is not None
            body = b"".join(response.stream(65536, decode_content=True))
        except (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError):
            return None
        if response.status < 200:
            return None
        headers = {name.lower(): value.strip(" \t") for name, value in response.headers.items()}
        return response.status, headers, body, kept


# -- answers as servers make them, and as they should not --------------------------------------------------------------

EOL = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r"])
STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 6
    + [b"HTTP/1.1 503 Service Unavailable", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 404"]
    + [b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK", b"HTTP/1.1 200 O\xc3\xa9", b"HTTP/1.1 200OK", b"HTTP/1.1 99 Low"]
    + [b"HTTP/1.0 200 OK", b"HTTP/2 200", b"http/1.1 200 OK", b"HTTP/1.1 600 High", b"HTTP/1.1 2\xb20 OK", b"ICY 200"]
)
NAME = st.sampled_from(
    b"Content-Type|Date|Set-Cookie|Retry-After|Connection|X|x|Keep-Alive|Content-Length|content-length|"
    b"Transfer-Encoding|Content-Encoding|X Y|X ||\xe9|(".split(b"|")
)
VALUE = st.sampled_from(
    b"application/json;charset=UTF-8|Fri, 27 Nov 2026 02:00:00 GMT|a=b; Path=/|close|Keep-Alive|chunked|identity|gzip|"
    b"7|0|-1|+3|1_0|3, 3|99999999999999999999|| |x |\tx\ty|a\r\n folded|\xe9|\x00|x\x0cy".split(b"|")
)
BODY = st.sampled_from(
    [b"", b"{}", b'{"statusCode": 0}', b"x" * 3000, gzip.compress(b"[]"), b"\r\n\r\n", b"HTTP/1.1 200"]
)
SPACE = st.sampled_from([b": "] * 6 + [b":", b":  ", b":\t", b" : ", b""])
ODD_LINE = st.tuples(NAME, SPACE, VALUE).map(b"".join)
PLAIN_LINE = st.sampled_from(
    b"Content-Type: application/json;charset=UTF-8|Date: Fri, 27 Nov 2026 02:00:00 GMT|Connection: keep-alive|"
    b'Set-Cookie: a=b; Path=/|Connection: close|X-Empty:|x-spaced:  a \t b|Server: nginx/1.27|ETag: "x"'.split(b"|")
)


@st.composite
def framed(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Draw header lines that say how long the body is, and the body as it is sent."""
    body = draw(BODY)
    kind = draw(st.sampled_from(["length"] * 5 + ["short", "long", "chunks", "gzip", "none"]))
    if kind == "gzip":
        body = gzip.compress(body)
        return [b"Content-Encoding: gzip", b"Content-Length: %d" % len(body)], body
    if kind == "chunks":
        size = draw(st.integers(1, 2000))
        extension = draw(st.sampled_from([b"", b";a=b", b" "]))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
        return [b"Transfer-Encoding: chunked"], chunks + draw(
            st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n"])
        )
    beyond = {"short": -1, "long": 1}.get(kind, 0)
    lines = [] if kind == "none" else [b"Content-Length: %d" % max(0, len(body) + beyond)]
    return lines, body


@st.composite
def sent_answers(draw: st.DrawFn) -> bytes:
    """Draw all bytes that a server sends on a connection; half of the heads are plain, but for one byte perhaps."""
    lines, body = draw(framed())
    odd = draw(st.booleans())
    more = draw(st.lists(ODD_LINE if odd else PLAIN_LINE, max_size=4))
    place = draw(st.integers(0, len(more)))
    eol = draw(EOL) if odd else b"\r\n"
    head = [draw(STATUS) if odd else b"HTTP/1.1 200 OK", *more[:place], *lines, *more[place:]]
    sent = eol.join(head) + eol + eol + body
    if odd:
        interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100\r\nX: y\r\n\r\n"]))
        sent = interim + sent
        return sent[: draw(st.sampled_from([len(sent), len(sent) // 2]))]
    if draw(st.booleans()):  # one byte lost, or another in its place
        at = draw(st.integers(0, min(len(sent) - 1, 300)))
        byte = draw(st.sampled_from([b"", b"\r", b"\n", b" ", b":", b"\x00", b"\xff", b"1"]))
        sent = sent[:at] + byte + sent[at + 1 :]
    return sent


@given(sent=sent_answers(), cut=st.floats(0, 1))
@example(sent=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\nx: 2\r\n\r\n{}", cut=1.0)
@example(sent=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", cut=1.0)
@example(sent=b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(99)) + b"\r\n{}", cut=1.0)
@example(sent=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * 70_000 + b"\r\n\r\n{}", cut=1.0)
@example(
    sent=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", cut=1.0
)
@example(sent=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", cut=1.0)
@example(sent=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n", cut=1.0)
@example(sent=b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", cut=1.0)
@example(sent=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\rY: b\r\n\r\n{}", cut=1.0)
def test_answer_is_read_as_urllib3_reads_it(sent, cut):
    at = math.ceil(cut * len(sent))
    expected = outcome_of_urllib3(sent)
    whole, parted = outcome(sent), outcome(sent[:at], sent[at:])
    assert (whole and whole[:3], parted and parted[:3]) == (expected and expected[:3], expected and expected[:3])
    if expected is not None and parted is not None:
        assert expected[3] or not parted[3]  # kept only where urllib3 keeps it


# -- a regular head ----------------------------------------------------------------------------------------------------

REGULAR = (
    b"HTTP/1.1 200 OK\r\nDate: Fri, 27 Nov 2026 02:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
)


@pytest.fixture
def no_http_client(monkeypatch):
    """Fail where http.client is given an answer to read."""

    def fails(*args, **kwargs):
        raise AssertionError("the head was taken for an irregular one")

    monkeypatch.setattr(answers, "_read_by_http_client", fails)


@pytest.mark.parametrize("at", [len(REGULAR), len(REGULAR) + 1, len(REGULAR) + 4])
def test_regular_head_is_read_without_http_client(no_http_client, at):
    sent = REGULAR + b"body"
    read = received(sent[:at], sent[at:])
    assert (read.answer.status, read.answer.body, read.cookies, read.reusable) == (200, b"body", [], True)
    assert read.answer.headers["content-type"] == "text/plain"
    assert read.answer.headers["date"] == "Fri, 27 Nov 2026 02:00:00 GMT"


def test_cookie_of_a_regular_head_is_returned(no_http_client):
    sent = REGULAR.replace(b"Date:", b"Set-Cookie: a=b; Path=/\r\nDate:") + b"body"
    assert received(sent).cookies == ["a=b; Path=/"]


CHUNKED = REGULAR.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("chunks", [b"4\r\nbody\r\n0\r\n\r\n", b"1\r\nb\r\n0003\r\nody\r\n000\r\n\r\n"])
def test_chunks_that_came_whole_need_no_http_client(no_http_client, chunks):
    found = received(CHUNKED + chunks)
    assert (found.answer.status, found.answer.body, found.reusable) == (200, b"body", True)
    with pytest.raises(TooMuchError):
        received(CHUNKED + chunks, max_size=3)


@pytest.mark.parametrize(
    "chunks",
    [b"4;a=b\r\nbody\r\n0\r\n\r\n", b"4\r\nbody\r\n0\r\nX: y\r\n\r\n", b"4 \r\nbody\r\n0\r\n\r\n"],
    ids=["extension", "trailer", "space"],
)
def test_odd_chunks_are_read_by_http_client(chunks):
    assert received(CHUNKED + chunks).answer.body == b"body"


@pytest.mark.parametrize("at", range(1, 19))
def test_chunks_that_come_in_parts_are_read_whole(at):
    chunks = b"4\r\nbody\r\n00\r\n\r\n"
    assert received(CHUNKED + chunks[:at], chunks[at:]).answer.body == b"body"


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close"])
def test_connection_that_the_server_closes_is_not_kept(no_http_client, value):
    sent = REGULAR.replace(b"Date:", b"Connection: %b\r\nDate:" % value) + b"body"
    assert not received(sent).reusable


def test_connection_with_bytes_behind_an_answer_is_not_kept(no_http_client):
    found = received(REGULAR + b"bodyHTTP/1.1 200 OK\r\n")
    assert (found.answer.body, found.reusable) == (b"body", False)


def test_announced_length_beyond_the_limit_is_not_read(no_http_client):
    with pytest.raises(TooMuchError):
        received(REGULAR, b"body", max_size=3)


def test_regular_answer_that_ends_early_is_torn(no_http_client):
    with pytest.raises(TornError):
        received(REGULAR + b"bod")


def test_reset_in_the_middle_of_a_body_is_a_torn_answer(no_http_client, monkeypatch):
    stream = Arriving(REGULAR + b"bo")

    def read(in_flight, most=65536):
        monkeypatch.setattr(stream, "read", reset)
        return REGULAR + b"bo"

    def reset(in_flight, most=65536):
        raise ConnectionResetError

    monkeypatch.setattr(stream, "read", read)
    with pytest.raises(TornError):
        read_answer(stream, InFlight(None, 1000), "POST", 1000)


def test_answer_to_head_has_no_body():
    read = read_answer(Arriving(REGULAR), InFlight(None, 1000), "HEAD", 1000)
    assert (read.answer.status, read.answer.body, read.reusable) == (200, b"", True)


def test_switch_of_protocols_is_malformed():
    with pytest.raises(MalformedError):
        received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


def test_long_run_of_spaces_in_a_folded_header_is_read_soon(stopwatch):
    sent = b"HTTP/1.1 200 OK\r\nX: a" + b" " * 60_000 + b"\r\n b\r\nContent-Length: 0\r\n\r\n"
    assert received(sent).answer.headers["x"] == "a b"
    assert stopwatch.soon
