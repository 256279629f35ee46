"""Check the rate of the requests that a session makes by itself, with any responses.

The server returns the responses of a script in turn, regardless of the request, and records the time of each request:
the tests do not depend on how the library limits the rate.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from itertools import cycle
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.cometd.gateway import CHANNEL, KEYS, event
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm._errors import TransportError
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import Timeline
from webchat_fsm.testing._bench import CONFIGS, merged

BURST, RATE, AFTER_MESSAGES = 20, 10.0, 50.0
"""The limits: requests at once, requests a second, connects a second after connects with a message not seen before."""

LEAST_AFTER_BAD = {"connect": 1.0, "handshake": 1.0, "notifications": 1.0, "refresh": 0.1}
"""Seconds before a badly answered request is repeated: a failed connect waits 1 s, a poll as long as configured."""

LATE = 0.001
FAST = {"pollRate": 100, "pollRateMin": 100, "pollRateMax": 100, "pollRateMult": 1}
SECONDS = 60.0


class Seen(NamedTuple):
    """Holds a request as the server received it, and the kind of its response."""

    kind: str
    time: float
    bad: bool
    dropped: bool
    fresh: bool


class Typing:
    """Stands for a preview input whose text changes at each read."""

    type = "text"

    def __init__(self):
        self.typed = 0

    @property
    def value(self) -> str:
        self.typed += 1
        return "x" * (1 + self.typed % 3)


class OddServer:
    """Stands for an `http=`: gives good responses until `script` is set, then those of its entries in turn."""

    def __init__(self, transport: Transport, timeline: Timeline):
        self.transport, self.timeline = transport, timeline
        self.seen: list[Seen] = []
        self.script: Any = None
        self.index, self.odd, self.clients = 1, 0, 0

    def send(self, request):
        word = "good" if self.script is None else next(self.script)
        kind, moment = request.operation, self.timeline.clock.timer()
        answer, fresh = self._answer(request, word)
        bayeux = self.transport is Transport.COMETD
        refused = ("402", "handshake advice", "not taken")
        bad = word in RAW or (bayeux and word in (refused if kind == "handshake" else BAD))
        if self.script is not None and word == "twice":
            request.repeated()
            self.seen.append(Seen(f"{kind}, broken off", moment, False, False, False))
        if self.script is not None:
            self.seen.append(Seen(kind, moment, bad, bayeux and kind != "handshake" and word in DROPPED, fresh))
        if answer is None:
            raise TransportError("connection reset")
        return answer

    def cut(self):
        pass

    def close(self):
        pass

    def _answer(self, request, word):
        if word in RAW:
            return RAW[word], False
        self.index += word in ("message", "both")
        events = {
            "message": [event(self.index)],
            "both": [event(self.index), {**event(self.index), "text": {}}],
            "old": [event(1)],
            "odd": [{**event(self.index), "utcTime": [], "text": 42, "from": "Ann"}],
            "no index": [{**event(1), "index": None, "utcTime": 5}],
        }.get(word, [])
        fresh = word in ("message", "both") or (word == "odd" and self.odd != self.index)
        self.odd = self.index if word == "odd" else self.odd  # another content at a known index is a new message once
        if self.transport is Transport.COMETD:
            return self._bayeux(request, word, events), fresh
        body = self._nexus(word, events) if not self.transport.gms else self._envelope(word, events)
        return HttpAnswer(status=200, body=json.dumps(body).encode()), fresh

    def _envelope(self, word, events):
        code = {"unavailable": 1, "refused": 2}.get(word, 0)
        errors = {"errors": [{"code": 204}]} if word == "refused" else {}
        ended = {"chatEnded": False, "nextPosition": self.index + 1}
        return {"statusCode": code, **KEYS, "messages": events, **ended, **errors}

    def _nexus(self, word, events):
        claims = {"sessionId": "s1", "participantId": "p1", "transportId": "t1"}
        token = "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".c2ln"
        known = [{**one, "index": f"{one['index']}-0", "utcTime": "2026-03-29T01:00:00.000Z"} for one in events]
        data = {"clientToken": token, "messages": known, "chatEnded": False, "entity": {"id": "s1"}}
        code = "ERROR" if word in ("refused", "unavailable") else "SUCCESS"
        return {"status": {"code": code}, "operationId": None, "data": data}

    def _bayeux(self, request, word, events):
        (message,) = json.loads(request.body)
        reply = {"id": message["id"], "channel": message["channel"], "successful": True}
        if word in ("402", "handshake advice", "not taken"):
            error = {"402": "402::Unknown", "handshake advice": "", "not taken": "500::Busy"}[word]
            advice = {"advice": {"reconnect": "handshake", "interval": 0}} if word == "handshake advice" else {}
            reply = {**reply, "successful": False, "error": error, **advice}
        elif word == "good, handshake":
            reply["advice"] = {"reconnect": "handshake", "interval": 0}
        if message["channel"] == "/meta/handshake" and reply["successful"]:
            self.clients += 1
            reply |= {"clientId": f"client-{self.clients}", "advice": {"reconnect": "retry", "interval": 0}}
        odd = {"bad push": [42], "bad and good push": [{"statusCode": "?"}, self._envelope("", [])]}.get(word)
        pushed = [self._envelope(word, events)] if word in PUSHES or self.script is None else []
        pushes = [{"channel": CHANNEL, "data": body} for body in odd or pushed]
        disconnect = [{"channel": "/meta/disconnect", "successful": True}] if word == "disconnect" else []
        return HttpAnswer(status=200, body=json.dumps([*pushes, *disconnect, reply]).encode())


RAW: dict[str, HttpAnswer | None] = {
    "reset": None,
    "404": HttpAnswer(status=404, body=b"404 page not found"),
    "503": HttpAnswer(status=503, body=b"down"),
    "504": HttpAnswer(status=504),
    "429": HttpAnswer(status=429),
    "429, 0 s": HttpAnswer(status=429, headers={"retry-after": "0"}),
    "429, a day": HttpAnswer(status=429, headers={"retry-after": "86400"}),
    "503, 0 s": HttpAnswer(status=503, headers={"retry-after": "0"}),
    "login page": HttpAnswer(status=200, body=b"<html>"),
    "nothing": HttpAnswer(status=200),
    "empty list": HttpAnswer(status=200, body=b"[]"),
}
PUSHES = ("unavailable", "refused", "message", "both", "old", "odd", "no index")
DROPPED = frozenset({"402", "handshake advice", "disconnect", "good, handshake"})
BAD = frozenset({"not taken", "unavailable", "bad push", "bad and good push"})
# "twice": the HTTP layer made another request first, as a kept connection had closed or a websocket had to be opened
WORDS = ("good", "twice", *RAW, *PUSHES, *sorted(DROPPED), *sorted(BAD - {"unavailable"}))


def requests_seen(transport: Transport, words, *, restored: bool, seconds: float = SECONDS) -> list[Seen]:
    """Return the requests of a started or restored chat that gets its responses from the script."""
    timeline, store = Timeline(), MemoryStore()
    server = OddServer(transport, timeline)
    fast = {"transport": {"pollTimeout": 100, "pollIntervalMultiplier": 1}} if not transport.gms else FAST
    config = merged(CONFIGS[transport], {**fast, "client": {"pollJitter": 1}})
    chat = WebChatService(config, store=store, http=server, driver=timeline.driver)
    chat.open()
    chat.command("startChat", {"nickname": "Jonny"})
    assert chat.state.has_session
    if restored:
        chat.close()
    chat.command("registerTypingPreviewInput", {"input": Typing()})
    server.script = cycle(words)
    if restored:
        chat.open()
    timeline.advance(seconds)
    chat.close()
    return server.seen


def broken(seen: list[Seen], *, connects: bool) -> list[str]:
    """Return a line for each request beyond the limits."""
    found, level, then, last = [], 0.0, 0.0, {}
    fast: deque[float] = deque(maxlen=int(AFTER_MESSAGES) + 1)
    after_message = renewed = False
    for one in seen:
        if one.kind == "connect" and after_message:
            fast.append(one.time)
            if len(fast) > AFTER_MESSAGES and one.time - fast[0] < 1 - LATE:
                found.append(f"{one.time}: more than 50 connects a second")
        else:
            level = max(0.0, level - RATE * (one.time - then)) + 1
            then = one.time
            if level > BURST + LATE * RATE:
                found.append(f"{one.time}: more than a burst of 20 and 10 a second")
        if one.kind == "connect":
            after_message = one.fresh and connects
        earlier, before = last.get(one.kind, (None, None))
        dropped_again = (
            earlier is not None and earlier.dropped and before.dropped
        )  # the first time, a handshake follows at once
        is_new = one.kind == "connect" and renewed  # that of a new client repeats none of the old one
        repeated = before is not None and ((before.bad and not is_new) or dropped_again)
        if repeated and one.time - before.time < LEAST_AFTER_BAD.get(one.kind, 0.0) - LATE:
            found.append(f"{one.time}: {one.kind} repeated {one.time - before.time} s after a bad answer")
        last[one.kind] = before, one
        renewed = one.kind == "handshake" or (renewed and one.kind != "connect")
        if one.kind == "handshake":
            last.pop("notifications", None)  # a new client has to be attached even if that of the old one failed
    return found


SCRIPTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8)


@pytest.mark.parametrize("transport", Transport)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=SCRIPTS, restored=st.booleans())
@example(words=["good", "good", "reset", "402"], restored=False)
def test_own_requests_keep_the_rate_with_any_responses(transport, words, restored):
    seen = requests_seen(transport, words, restored=restored, seconds=20)
    assert not broken(seen, connects=transport is Transport.COMETD)


@pytest.mark.parametrize("transport", Transport)
def test_repeats_by_the_http_layer_count_as_requests(transport):
    seen = requests_seen(transport, ["twice"], restored=False, seconds=20)
    assert not broken(seen, connects=False)
    assert len(seen) > 20


@pytest.mark.parametrize("word", WORDS)
def test_repeated_response_keeps_the_rate_on_cometd(word):
    seen = requests_seen(Transport.COMETD, [word], restored=False, seconds=20)
    assert not broken(seen, connects=True)
    assert seen


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("transport", Transport)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), restored=st.booleans())
def test_own_requests_keep_the_rate_for_a_minute(transport, words, restored):
    seen = requests_seen(transport, words, restored=restored)
    assert not broken(seen, connects=transport is Transport.COMETD)
