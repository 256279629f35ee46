"""Provide a scripted Bayeux gateway: a message without a scripted response succeeds.

It is passed as `http=` and opens no socket. Its responses are written from the protocol documents and share no code
with the library, so that a misreading in the library is not repeated here. Messages have names: `handshake`, `connect`,
`bye` (`/meta/disconnect`), or the operation of a publish.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from webchat_fsm._errors import TransportError
from webchat_fsm._wire.request import HttpAnswer

CHANNEL = "/service/chatV2/customer-support"
KEYS = {"chatId": "c-1", "userId": "u-1", "secureKey": "k-1", "alias": "a-1"}
NO_RESPONSE = TransportError("connection refused")
UNKNOWN = "402::Unknown client"


def envelope(*messages: dict[str, Any], **other: Any) -> dict[str, Any]:
    """Return the data of a push, which has the shape of a response over REST."""
    return {"statusCode": 0, **KEYS, "chatEnded": False, "messages": list(messages), **other}


def push(data: Any) -> dict[str, Any]:
    return {"channel": CHANNEL, "data": data}


def event(index: int, kind: str = "Message", text: str = "", sender: str = "Agent", party: int = 2) -> dict[str, Any]:
    party_of = {"nickname": "Ann" if sender == "Agent" else "Jonny", "participantId": party, "type": sender}
    return {"index": index, "type": kind, "text": text, "utcTime": 1700000000000 + index, "from": party_of}


class Gateway:
    """Answers each message with its scripted response, else with success; the next connect delivers `queue`."""

    def __init__(self, clock):
        self.clock = clock
        self.sent: list[dict[str, Any]] = []
        self.times: list[tuple[str, float]] = []
        self.requests = []
        self.queue: list[dict[str, Any]] = []
        self.transcript: list[dict[str, Any]] = []
        self.advice = {"reconnect": "retry", "interval": 500, "timeout": 30000}
        self._scripted: dict[str, list[Any]] = {}
        self._clients = 0

    # -- used by tests -------------------------------------------------------------------------------------------

    def script(self, name: str, *answers: Any) -> None:
        """Answer the next messages of that name by an error to raise, bytes, an `HttpAnswer`, a list or a function."""
        self._scripted.setdefault(name, []).extend(answers)

    def say(self, text: str, kind: str = "Message", sender: str = "Agent") -> None:
        """Add an event to the transcript and queue its push for the next connect."""
        self.queue.append(push(envelope(self.add(kind, text, sender))))

    def add(self, kind: str, text: str = "", sender: str = "Agent") -> dict[str, Any]:
        happened = event(len(self.transcript) + 1, kind, text, sender, 1 if sender == "Client" else 2)
        self.transcript.append(happened)
        return happened

    def names(self) -> list[str]:
        return [name for name, _ in self.times]

    def all(self, name: str) -> list[dict[str, Any]]:
        """Return the messages of that name in the order they were sent."""
        return [message for message, (known, _) in zip(self.sent, self.times, strict=True) if known == name]

    def moments(self, name: str) -> list[float]:
        """Return when the messages of that name were sent, in seconds since the first of them."""
        found = [moment for known, moment in self.times if known == name]
        return [round(moment - found[0], 3) for moment in found]

    def refuse(self, error: str, **advice: Any) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
        """Make a reply that is not successful; `advice` is added where it is given."""
        more = {"advice": advice} if advice else {}
        return lambda message: [
            {"id": message["id"], "channel": message["channel"], "successful": False, "error": error, **more}
        ]

    def accept(self, *pushes: Any, before: bool = False) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
        """Make an acknowledgement with `pushes` in the same array, behind it or before it."""
        return lambda message: (
            [*map(push, pushes), self._ack(message)] if before else [self._ack(message), *map(push, pushes)]
        )

    # -- used by the service -------------------------------------------------------------------------------------

    def send(self, request):
        self.requests.append(request)
        (message,) = json.loads(request.body)  # the library never batches: each request has one message
        name = self._name(message)
        self.sent.append(message)
        self.times.append((name, self.clock.timer()))
        scripted = self._scripted.get(name)
        answer = scripted.pop(0) if scripted else getattr(self, f"_{name}", self._operation)(message)
        if callable(answer):
            answer = answer(message)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, HttpAnswer):
            return answer
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return HttpAnswer(status=200, headers={"content-type": "application/json"}, body=body)

    def cut(self):
        pass

    def close(self):
        pass

    def _name(self, message):
        kind = message["channel"].removeprefix("/meta/")
        return message["data"]["operation"] if "data" in message else "bye" if kind == "disconnect" else kind

    def _ack(self, message, **more):
        return {"id": message["id"], "channel": message["channel"], "successful": True, **more}

    def _drained(self):
        waiting, self.queue = self.queue, []
        return waiting

    def _handshake(self, message):
        self._clients += 1
        return [self._ack(message, clientId=f"client-{self._clients}", advice=self.advice)]

    def _connect(self, message):
        # A connect is answered at once: holding it would need a thread, and time is moved by the test.
        return [*self._drained(), self._ack(message, advice=self.advice)]

    def _bye(self, message):
        return [self._ack(message)]

    def _operation(self, message):
        return [self._ack(message)]

    def _requestChat(self, message):  # noqa: N802  (named as the operation)
        self.queue.append(push(envelope(self.add("ParticipantJoined", sender="Client"))))
        return [self._ack(message)]

    def _sendMessage(self, message):  # noqa: N802
        self.queue.append(push(envelope(self.add("Message", message["data"]["message"], "Client"))))
        return [self._ack(message)]

    def _requestNotifications(self, message):  # noqa: N802
        wanted = message["data"]["transcriptPosition"]
        self.queue.append(push(envelope(*self.transcript[wanted - 1 :])))
        return [self._ack(message)]
