"""A chat server that is never the bottleneck: one process, one thread, `epoll`, and answers that stand ready.

It speaks just enough of the three protocols for chats that are idle, on paths of its own: ``/v2``, ``/slow`` (v2, polls
answered after a while), ``/faulty`` (v2, some polls fail), ``/v3``, ``/cometd`` and ``/cometd-at-once`` (connects
answered without being held). It measures how late each poll of v2 is, by its own clock, and so alike for every client:
``GET /stats`` gives that and empties it.

``GET /push/MOMENTS/CLIENTS/MILLISECONDS`` has it push to that many CometD clients whose connect is held, chosen at
random, at that many moments so far apart. The text of a push is the time at which it is sent, by the monotonic clock,
which is the same in all processes of a machine.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import json
import math
import random
import resource
import select
import socket
import sys
import time
from typing import Any

SLOW = 3.0
"""Seconds after which a poll below ``/slow`` is answered."""

FAULT_EVERY = 7
"""Of so many polls below ``/faulty`` one fails: by a 503, 3 seconds late, torn in the middle, or without an answer."""

HOLD = 20.0
"""Seconds for which a CometD connect is held."""

_V2 = (
    b'{"messages":[],"chatEnded":false,"statusCode":0,"alias":"1",'
    b'"secureKey":"07d451431193e6c3f339","userId":"1A2B8F1FF1FD42A2","chatId":"%s"}'
)
_V3 = b'{"status":{"code":"SUCCESS","message":""},"operationId":"%s","data":{"messages":[],"chatEnded":false}}'


def answered(body: bytes) -> bytes:
    """Return a whole HTTP response with a JSON body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Client:
    """One connection, and the bytes of the request that is still incomplete."""

    __slots__ = ("received", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.received = sock, b""


class Peer:
    """The server."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self.listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)
        self._clients: dict[int, Client] = {}
        self._numbers = itertools.count(1)
        self._later: list[tuple[float, int, Client, bytes]] = []
        self._order = itertools.count()
        self._faults = itertools.cycle(("503", "late", "torn", "dropped"))
        self._held: dict[str, tuple[Client, str]] = {}
        """The held connects by client id: the connection and the message's id."""
        self._once_held: set[str] = set()
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._positions: dict[str, int] = {}
        self._answered_at: dict[bytes, float] = {}
        self.late: list[float] = []
        self.polls = self.connects = self.pushed = 0
        self._push_at = math.inf
        self._push_clients = self._push_moments = 0
        self._push_interval = 0.0

    def serve(self) -> None:
        """Serve until standard input ends."""
        while True:
            next_at = min(self._push_at, self._later[0][0] if self._later else math.inf)
            wait = -1 if next_at == math.inf else max(0.0, next_at - time.monotonic())
            for descriptor, _ in self._epoll.poll(wait):
                if descriptor == self.listener.fileno():
                    self._accept()
                elif descriptor == sys.stdin.fileno():
                    return
                else:
                    self._read(self._clients[descriptor])
            if self._push_at <= time.monotonic():
                self._push()
            self._answer_later(time.monotonic())

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[sock.fileno()] = Client(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            del self._clients[client.sock.fileno()]
            client.sock.close()
            return
        client.received += data
        while client.received:
            head, end, rest = client.received.partition(b"\r\n\r\n")
            if not end:
                return
            place = head.lower().find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(rest) < length:
                return
            client.received = rest[length:]
            method, target, _ = head.split(b" ", 2)
            self._answer(client, method, target, rest[:length])

    def _answer(self, client: Client, method: bytes, target: bytes, body: bytes) -> None:
        if target.startswith((b"/v2", b"/slow", b"/faulty")):
            self._v2(client, target)
        elif target.startswith(b"/v3"):
            self._v3(client, method, target, body)
        elif target.startswith(b"/cometd"):
            for message in json.loads(body):
                self._cometd(client, message, holds=not target.startswith(b"/cometd-at-once"))
        elif target.startswith(b"/push"):
            moments, clients, milliseconds = (int(part) for part in target.split(b"/")[2:])
            self._push_moments, self._push_clients, self._push_interval = moments, clients, milliseconds / 1000
            self._push_at, self.pushed = time.monotonic(), 0
            self._send(client, answered(b"{}"))
        else:
            self._send(client, answered(json.dumps(self._stats()).encode()))

    def _send(self, client: Client, data: bytes) -> None:
        try:
            client.sock.send(data)
        except OSError:
            return  # the client has gone; its end is read next

    def _stats(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        held = {"held": len(self._held), "once_held": len(self._once_held), "connects": self.connects}
        held |= {"pushed": self.pushed, "moments": self._push_moments}
        self.connects = 0
        late, self.late, polls, self.polls = sorted(self.late), [], self.polls, 0
        return {"late": late, "polls": polls, "cpu": used.ru_utime + used.ru_stime, **held}

    def _answer_later(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, client, data = heapq.heappop(self._later)
            if data.startswith(b"connect "):
                self._connect_ran_out(data.decode().split(" ")[1], client)
            else:
                self._send(client, data)

    def _put_off(self, seconds: float, client: Client, data: bytes) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), client, data))

    # -- v2 and v3 -----------------------------------------------------------------------------------------------------

    def _v2(self, client: Client, target: bytes) -> None:
        parts = target.split(b"/")
        if len(parts) < 5:  # /v2/NAME: a start
            self._send(client, answered(_V2 % (b"chat%08d" % next(self._numbers))))
            return
        chat, operation = parts[-2], parts[-1]
        response = answered(_V2 % chat)
        if operation != b"refresh":
            self._send(client, response)
            return
        now = time.monotonic()
        self.polls += 1
        if (before := self._answered_at.get(chat)) is not None:
            self.late.append(now - before)
        if parts[1] == b"faulty" and self.polls % FAULT_EVERY == 0:
            self._fail(client, response, next(self._faults))
        elif parts[1] == b"slow":
            self._put_off(SLOW, client, response)
            now += SLOW
        else:
            self._send(client, response)
        self._answered_at[chat] = now

    def _fail(self, client: Client, response: bytes, fault: str) -> None:
        if fault == "503":
            self._send(client, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        elif fault == "late":
            self._put_off(SLOW, client, response)
        else:
            if fault == "torn":
                self._send(client, response[: len(response) // 2])
            client.sock.shutdown(socket.SHUT_RDWR)  # its end is read next, and closes it

    def _v3(self, client: Client, method: bytes, target: bytes, body: bytes) -> None:
        source = target if method == b"GET" else body
        operation = source.partition(b"operationId=")[2].partition(b"&")[0]
        if target.rstrip(b"/").endswith(b"/sessions"):
            number = next(self._numbers)
            entity = {"id": f"{number:08d}-0000", "participantId": "p", "state": "active", "transportId": "t"}
            token = {"sessionId": entity["id"], "transportId": "t", "participantId": "p"}
            data = {"entity": entity, "clientToken": _token(token)}
            known = {"status": {"code": "SUCCESS", "message": ""}, "operationId": operation.decode(), "data": data}
            self._send(client, answered(json.dumps(known).encode()))
            return
        self._send(client, answered(_V3 % operation))

    # -- CometD --------------------------------------------------------------------------------------------------------

    def _cometd(self, client: Client, message: dict[str, Any], *, holds: bool) -> None:
        channel, known = message["channel"], message.get("clientId", "")
        answer = {"channel": channel, "successful": True, "id": message["id"]}
        if channel == "/meta/handshake":
            answer.update(clientId=f"client{next(self._numbers)}", version="1.0", advice=_ADVICE)
            answer["supportedConnectionTypes"] = ["long-polling"]
        elif channel == "/meta/connect":
            self.connects += 1
            if holds and message.get("advice", {}).get("timeout") != 0 and not self._waiting.get(known):
                self._held[known] = (client, message["id"])
                self._once_held.add(known)
                self._put_off(HOLD, client, f"connect {known}".encode())
                return
            self._answer_connect(known, client, message["id"])
            return
        elif message.get("data", {}).get("operation") == "requestChat":
            data = json.loads(_V2 % (b"chat%08d" % next(self._numbers)))
            self._waiting.setdefault(known, []).append({"channel": channel, "data": data})
        self._send(client, answered(json.dumps([answer]).encode()))

    def _answer_connect(self, known: str, client: Client, number: str) -> None:
        answer = {"channel": "/meta/connect", "successful": True, "id": number, "advice": _ADVICE}
        self._send(client, answered(json.dumps([*self._waiting.pop(known, []), answer]).encode()))

    def _connect_ran_out(self, known: str, client: Client) -> None:
        held = self._held.get(known)
        if held is not None and held[0] is client:
            del self._held[known]
            self._answer_connect(known, client, held[1])

    def _push(self) -> None:
        """Push to some of the held connects, and set the next moment."""
        alive = [known for known, (client, _) in self._held.items() if client.sock.fileno() >= 0]
        for known in random.sample(alive, min(self._push_clients, len(alive))):
            client, number = self._held.pop(known)
            position = self._positions[known] = self._positions.get(known, 0) + 1
            data = json.loads(_V2 % b"chat")
            sender = {"nickname": "Ann", "participantId": 2, "type": "Agent"}
            message = {"index": position, "type": "Message", "text": f"{time.monotonic():.6f}", "from": sender}
            data.update(messages=[message], nextPosition=position + 1)
            del data["chatId"]
            self._waiting.setdefault(known, []).append({"channel": CHANNEL, "data": data})
            self._answer_connect(known, client, number)
            self.pushed += 1
        self._push_moments -= 1
        # By the clock, not by the end of the pushes: a client that stops is late for all that fall into its pause.
        self._push_at = self._push_at + self._push_interval if self._push_moments else math.inf


CHANNEL = "/service/chatV2/customer-support"
_ADVICE = {"reconnect": "retry", "interval": 0, "timeout": int(HOLD * 1000)}


def _token(claims: dict[str, str]) -> str:
    import base64

    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".x"


def serve() -> None:
    """Print the port, and serve until standard input ends."""
    gc.disable()  # a pause of this process would count as lateness of the clients
    peer = Peer()
    print(peer.port, flush=True)
    peer.serve()
