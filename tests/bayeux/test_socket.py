"""Check the sans-I/O websocket with the protocol of `websockets` in memory, without socket, thread or time."""

from __future__ import annotations

import json

import pytest

from webchat_fsm._bayeux.matcher import PendingRequest

pytest.importorskip("websockets")

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from webchat_fsm._bayeux.socket import BayeuxSocket, UpgradeError

LIMIT = 1000
URL = "http://chat.test/cometd"


class Wire:
    """Joins both ends of one websocket in memory."""

    def __init__(self, **headers: str) -> None:
        self.socket = BayeuxSocket(URL, {}, LIMIT)
        self._server = ServerProtocol()
        self._server.receive_data(self.socket.data_to_send())
        (upgrade,) = self._server.events_received()
        answer = self._server.accept(upgrade)
        for name, value in headers.items():
            answer.headers[name.replace("_", "-")] = value
        self._server.send_response(answer)
        self.answer = self._written()

    def _written(self) -> bytes:
        return b"".join(self._server.data_to_send())

    def open(self) -> BayeuxSocket:
        self.socket.receive_upgrade(self.answer)
        return self.socket

    def frame(self, *messages: dict) -> bytes:
        self._server.send_text(json.dumps(messages).encode())
        return self._written()

    def received(self) -> list[Frame]:
        self._server.receive_data(self.socket.data_to_send())
        return self._server.events_received()


def request(number: int, channel: str, **more) -> tuple[PendingRequest, bytes]:
    body = json.dumps([{"id": str(number), "channel": channel, "clientId": "a", **more}]).encode()
    return PendingRequest(body), body


def send(socket: BayeuxSocket, number: int, channel: str) -> PendingRequest:
    pending, body = request(number, channel)
    assert socket.add(pending)
    socket.send(body)
    return pending


def ack(pending: PendingRequest) -> dict:
    return {"id": pending.id, "channel": pending.channel, "successful": True}


PUSH = {"channel": "/chat", "data": "one"}


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.open()
    return wire


def test_upgrade_opens_socket_and_has_cookies():
    wire = Wire(Set_Cookie="JAR=yes")
    assert not wire.socket.is_open
    assert wire.open().is_open
    assert wire.socket.cookies == ["JAR=yes"]


def test_upgrade_byte_by_byte_opens_socket():
    wire = Wire()
    for place in range(len(wire.answer)):
        wire.socket.receive_upgrade(wire.answer[place : place + 1])
    assert wire.socket.is_open


@pytest.mark.parametrize(("status", "permanent"), [(200, True), (404, True), (428, True), (429, False), (430, True),
                                                   (499, True), (500, False), (503, False)])  # fmt: skip
def test_upgrade_refusal_is_permanent_except_429_and_5xx(status, permanent):
    with pytest.raises(UpgradeError, match=f"the server answered {status}") as caught:
        Wire().socket.receive_upgrade(b"HTTP/1.1 %d No\r\n" % status)
    assert caught.value.permanent is permanent


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-OpenSSH_9.0\r\n"])
def test_upgrade_without_http_response_may_be_repeated(data):
    with pytest.raises(UpgradeError, match="no answer that HTTP knows") as caught:
        Wire().socket.receive_upgrade(data)
    assert not caught.value.permanent


def test_invalid_url_is_an_error_without_the_url():
    with pytest.raises(UpgradeError) as caught:
        BayeuxSocket("http://me:sEcReT@chat.test/#part", {}, LIMIT)
    assert "sEcReT" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_frame_in_one_piece_with_the_upgrade_is_received():
    wire = Wire()
    wire.answer += wire.frame(PUSH)
    connect = send(wire.open(), 1, "/meta/connect")
    assert json.loads(connect.answer)[0] == PUSH


def test_replies_cut_at_any_byte_find_their_requests(wire):
    first, second = send(wire.socket, 1, "/chat"), send(wire.socket, 2, "/chat")
    data = wire.frame(ack(second)) + wire.frame(ack(first))
    for place in range(len(data)):
        wire.socket.receive_data(data[place : place + 1])
    assert [json.loads(one.answer) for one in (first, second)] == [[ack(first)], [ack(second)]]
    assert wire.socket.reads == len(data)


def test_request_is_sent_as_one_text_frame(wire):
    send(wire.socket, 1, "/meta/connect")
    (frame,) = wire.received()
    assert (frame.opcode, json.loads(frame.data)[0]["id"]) == (Opcode.TEXT, "1")
    assert not wire.socket.has_data_to_send


def test_ping_between_fragments_queues_a_pong(wire):
    connect = send(wire.socket, 1, "/meta/connect")
    wire.received()
    whole = json.dumps([PUSH]).encode()
    parts = [(Opcode.TEXT, whole[:9], False), (Opcode.PING, b"?", True), (Opcode.CONT, whole[9:], True)]
    for opcode, data, fin in parts:
        wire.socket.receive_data(Frame(opcode, data, fin).serialize(mask=False))
    assert json.loads(connect.answer)[0] == PUSH
    assert [(frame.opcode, frame.data) for frame in wire.received()] == [(Opcode.PONG, b"?")]


def test_silence_is_measured_from_the_request_on(wire):
    wire.socket.receive_data(wire.frame(PUSH))
    connect, _ = request(1, "/meta/connect", advice={"timeout": 0})
    wire.socket.add(connect)
    assert wire.socket.silent_since(connect)
    wire.socket.receive_data(wire.frame(PUSH))
    assert not wire.socket.silent_since(connect)


@pytest.mark.parametrize(("size", "reason"), [(LIMIT, ""), (LIMIT + 1, "the answer is larger than 1000 bytes")])
def test_message_beyond_the_limit_closes(wire, size, reason):
    data = b'[{"channel":"/x"}]'.ljust(size)
    wire.socket.receive_data(Frame(Opcode.TEXT, data, fin=True).serialize(mask=False))
    assert wire.socket.closed == reason


@pytest.mark.parametrize("data", [b"", b"\x93\x00", Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False)])
def test_end_or_bytes_that_are_no_frame_close_as_lost(wire, data):
    wire.socket.receive_data(data)
    assert wire.socket.closed == "the connection was lost before the answer was complete"


def test_frame_that_is_no_array_of_messages_closes(wire):
    wire.socket.receive_data(Frame(Opcode.TEXT, b"<html>").serialize(mask=False))
    assert wire.socket.closed.startswith("what the server sent is no array of messages")


def test_first_close_reason_stays_and_later_data_is_ignored(wire):
    connect = send(wire.socket, 1, "/meta/connect")
    wire.socket.close("first")
    wire.socket.close("second")
    wire.socket.receive_data(wire.frame(PUSH))
    assert (wire.socket.closed, connect.answer) == ("first", None)


def test_close_queues_one_close_frame(wire):
    wire.socket.close("over")
    wire.socket.close("over")
    assert [frame.opcode for frame in wire.received()] == [Opcode.CLOSE]


@pytest.mark.parametrize(
    ("channels", "unreported"),
    [([], False), (["/chat"], True), (["/meta/connect"], False), (["/chat", "/meta/connect"], False)],
)
def test_loss_is_reported_by_a_waiting_connect(wire, channels, unreported):
    for number, channel in enumerate(channels):
        send(wire.socket, number, channel)
    wire.socket.receive_data(b"")
    assert wire.socket.loss_unreported is unreported
