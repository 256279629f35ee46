"""Measure the cost of reading a good answer against its bare JSON: ``python -m tests.benchmarks.answers``.

Each row is a transport and a number of messages in one answer of the embedded server. `reply` is the dialect's reading
of the bytes, `decide` the decision of the core; both are compared with `msgspec.json.decode` of the same bytes. All
rows are measured in turn, round by round, in the processor's time of this thread, and the medians are printed, so that
other programs on the machine count as little as can be.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from webchat_fsm import WebChatService
from webchat_fsm._core.steps import Replied
from webchat_fsm._runtime import transaction
from webchat_fsm._wire import dialect_of
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

TRANSPORTS = (Transport.V2, Transport.V3, Transport.COMETD)
ROUNDS = 25
ANSWERS = {1: 40, 20: 10, 1_000: 1}
"""Answers measured in a row, by their number of messages: a small one costs more while caches are cold."""

PAUSE = 10.0
"""Seconds of manual time in which each transport polls at least once."""

POLLS = frozenset({"refresh", "connect"})


class Measured:
    """Measure the seconds of each answer of one row: its bare JSON, the dialect's reading, the core's decision."""

    def __init__(self, transport: Transport, count: int) -> None:
        self.transport, self.count = transport, count
        self.json: list[float] = []
        self.reply: list[float] = []
        self.decide: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._timeline = Timeline()
        self._server = TestServer(self._timeline)
        self._chat: WebChatService = self._server.client(self.transport)
        self._chat.open()
        self._chat.start_chat(nickname="Jonny")
        self._agent = self._server.agent("Ann").join()
        self._timeline.advance(PAUSE)

    def take(self) -> None:
        """Measure one answer that carries all the messages."""
        for number in range(self.count):
            self._agent.say(f"message {number}: is there anything else that I can do for you?")
        answers: list[tuple[bytes, float, float]] = []
        with timed(self._chat, answers):
            self._timeline.advance(PAUSE)
        body, reading, deciding = max(answers, key=lambda answer: len(answer[0]))
        begin = time.thread_time()
        msgspec.json.decode(body)
        self.json.append(time.thread_time() - begin)
        self.reply.append(reading)
        self.decide.append(deciding)
        if body.count(b"is there anything else") != self.count:
            raise RuntimeError(f"{self.transport}: an answer without its {self.count} messages: {body[:200]!r}")

    def close(self) -> None:
        """End the chat's server."""
        self._server.close()


@contextmanager
def timed(chat: WebChatService, answers: list[tuple[bytes, float, float]]) -> Iterator[None]:
    """Append each polled answer's bytes, and its seconds in the dialect and in the core, to `answers`."""
    kind = type(dialect_of(chat.config))
    read: Callable[..., Any] = kind.reply
    decided = transaction.decide
    last: list[Any] = [b"", 0.0]

    def reply(self: Any, call: Any, answer: Any, *url: Any) -> Any:  # older commits hand over no URL
        begin = time.thread_time()
        result = read(self, call, answer, *url)
        last[:] = [answer.body, time.thread_time() - begin]
        return result

    def decide(session: Any, step: Any, now: Any) -> Any:
        begin = time.thread_time()
        result = decided(session, step, now)
        operation: Any = step.call.operation if isinstance(step, Replied) else None
        if getattr(operation, "name", operation) in POLLS:  # older commits have the name itself
            answers.append((last[0], last[1], time.thread_time() - begin))
        return result

    with patch.object(kind, "reply", reply), patch.object(transaction, "decide", decide):
        yield


def table(title: str, rows: list[tuple[str, float]]) -> None:
    """Print measured rows as ratios to the first."""
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<52} {value:>10.1f} us   x {value / rows[0][1]:.2f}")


def measure() -> list[Measured]:
    """Measure all rows, one answer of each in turn."""
    rows = [Measured(transport, count) for count in ANSWERS for transport in TRANSPORTS]
    gc.collect()
    gc.disable()  # the moment of a collection depends on unrelated objects
    for _ in range(ROUNDS):
        for row in rows:
            for _ in range(ANSWERS[row.count]):
                row.take()
    gc.enable()
    for row in rows:
        row.close()
    return rows


def main() -> None:
    """Print a table for each number of messages and transport."""
    print(f"Python {sys.version.split()[0]}, msgspec {msgspec.__version__}; this takes some ten seconds", flush=True)
    for row in measure():
        parts = {"msgspec.json.decode": row.json, "reply": row.reply, "decide": row.decide}
        whole = [one + other for one, other in zip(row.reply, row.decide, strict=True)]
        named = {**parts, "reply and decide": whole}
        table(
            f"{row.transport}, {row.count} message{'s' * (row.count > 1)} in an answer, {len(row.json)} answers",
            [(name, statistics.median(seconds) * 1e6) for name, seconds in named.items()],
        )


if __name__ == "__main__":
    main()
