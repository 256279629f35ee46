"""Measure what happens behind the socket: decisions, the intake of messages, the store. Answers stand ready."""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from transitions import Machine

from tests.benchmarks.figures import Measured
from tests.benchmarks.polls import means, step
from tests.benchmarks.processes import in_turn, ratios
from webchat_fsm import FileStore, HttpAnswer, ManualDriver, MemoryStore, Request, SessionStore, WebChatService
from webchat_fsm._core import machine
from webchat_fsm._core.on_command import refusal
from webchat_fsm._runtime.commands import POLL
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._table import State, Trigger

ENVELOPE: dict[str, Any] = {
    "messages": [],
    "chatEnded": False,
    "statusCode": 0,
    "alias": "1",
    "secureKey": "07d451431193e6c3f339",
    "userId": "1A2B8F1FF1FD42A2",
    "chatId": "chat00000001",
}


class Party(msgspec.Struct, rename="camel"):
    """The sender of an event, as a program would read it that only decodes."""

    nickname: str
    participant_id: int
    type: str


class Event(msgspec.Struct, rename="camel"):
    """An event of the transcript, read likewise."""

    index: int
    type: str
    utc_time: int
    sender: Party = msgspec.field(name="from")
    text: str = ""


class Answer(msgspec.Struct, rename="camel"):
    """An answer, read likewise: the bound that the intake is compared with."""

    messages: list[Event]
    chat_ended: bool
    status_code: int
    next_position: int


class Canned:
    """An `Http` that gives the same answer to every request."""

    def __init__(self) -> None:
        self.body = json.dumps(ENVELOPE).encode()

    def send(self, request: Request) -> HttpAnswer:
        """Answer at once."""
        return HttpAnswer(status=200, headers={"content-type": "application/json;charset=UTF-8"}, body=self.body)

    def cut(self) -> None:
        """Do nothing: no request is ever in flight."""

    def close(self) -> None:
        """Do nothing: there are no connections."""


def polling(store: SessionStore | None = None) -> tuple[WebChatService, Canned]:
    """Start a chat on canned answers."""
    http = Canned()
    chat = WebChatService({"dataURL": "http://chat.test/x"}, store=store, http=http, driver=ManualDriver())
    chat.open()
    chat.start_chat(nickname="J")
    chat.step()
    return chat, http


def answer(count: int, kind: str) -> bytes:
    """Return an answer with so many events: messages of one agent, or agents who join."""
    events = []
    for number in range(1, count + 1):
        party = {"nickname": "Ann", "participantId": number if kind == "ParticipantJoined" else 2, "type": "Agent"}
        event = {"index": number, "type": kind, "utcTime": 1_700_000_000_000 + number, "from": party}
        events.append(event if kind == "ParticipantJoined" else {**event, "text": f"message {number}: anything else?"})
    return json.dumps({**ENVELOPE, "messages": events, "nextPosition": count + 1}).encode()


def milliseconds(call: Callable[[], object]) -> float:
    """Return the processor time of one call in milliseconds."""
    gc.collect()
    begun = time.process_time()
    call()
    return (time.process_time() - begun) * 1000


def taken_in(body: bytes) -> float:
    """Return the milliseconds that a fresh chat takes for one answer."""
    chat, http = polling()
    http.body = body
    spent = milliseconds(step(chat))
    chat.close()
    return spent


def decisions(quick: bool) -> Measured:
    """Measure what is legal, and a transition beside a bare trigger of `transitions`."""
    chat, _ = polling()
    session = chat._engine.session
    model = type("Model", (), {})()
    # by names, which transitions looks up faster than the members of an enumeration
    bare = Machine(model, states=[state.value for state in State], initial="polling", auto_transitions=False)
    bare.add_transition("poll_answered", "polling", "polling")

    def decided() -> None:
        if refusal(session, POLL.rule, {}, By.SERVICE):
            raise RuntimeError(f"a poll is refused in state {session.state}")
        machine.fire(session, Trigger.POLL_ANSWERED)

    clients: dict[str, Callable[[], object]] = {
        "can": lambda: chat.can("sendMessage"),
        "legal": chat.legal_commands,
        "bare": lambda: model.poll_answered(),
        "decided": decided,
    }
    taken = means(clients, *(10, 200) if quick else (60, 300))
    chat.close()
    transition = ratios(taken["decided"], taken["bare"])
    return {"can": taken["can"], "legal_commands": taken["legal"], "transition": transition}


def intake(quick: bool) -> Measured:
    """Measure answers with many messages and many joins, and the transcript behind them."""
    small, large = answer(1_000, "Message"), answer(10_000, "Message")
    few, many = answer(1_000, "ParticipantJoined"), answer(4_000, "ParticipantJoined")
    decode = msgspec.json.Decoder(Answer).decode
    calls: dict[str, Callable[[], float]] = {
        "decode": lambda: statistics.median(milliseconds(lambda: decode(small)) for _ in range(9)),
        "thousand": lambda: taken_in(small),
        "large": lambda: taken_in(large),
        "few": lambda: taken_in(few),
        "many": lambda: taken_in(many),
    }
    taken = in_turn(calls, 3 if quick else 15)
    return {
        "msgspec": ratios(taken["thousand"], taken["decode"]),
        "growth": ratios(taken["large"], taken["thousand"]),
        "joins": ratios(taken["many"], taken["few"]),
        "joins_ms": taken["many"],
        "since": since(large, 5 if quick else 30),
    }


def since(body: bytes, rounds: int) -> list[float]:
    """Measure the end of a long transcript, in microseconds."""
    chat, http = polling()
    http.body = body
    chat.step()
    last = chat.get_transcript().messages[-1].index
    if chat.get_transcript(since=last).messages:
        raise RuntimeError(f"there are messages behind the last one, {last}")
    taken = means({"since": lambda: chat.get_transcript(since=last)}, rounds, 50)
    chat.close()
    return taken["since"]


def store(quick: bool) -> Measured:
    """Measure an idle poll on a store in a file and on one in memory."""
    with tempfile.TemporaryDirectory() as folder:
        (on_file, _), (in_memory, _) = polling(FileStore(Path(folder) / "session.json")), polling(MemoryStore())
        taken = means({"file": step(on_file), "memory": step(in_memory)}, *(8, 100) if quick else (40, 200))
        on_file.close()
        in_memory.close()
    return {"file_us": taken["file"], "memory_us": taken["memory"]}
