"""Check that messages delivered as a whole have the same effects as messages delivered one by one."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import CoreHarness, good
from tests.core.test_placement import V3
from tests.limits import examples
from webchat_fsm._core import on_poll
from webchat_fsm._core.steps import Publish, ReceivedMessage
from webchat_fsm._model import Message, Sender

KINDS = st.sampled_from(["Message", "PushUrl", "Notice", "FileUploaded", "TypingStarted", "ParticipantJoined", "Odd"])
MESSAGES = st.builds(
    Message,
    type=st.one_of(st.just("Message"), KINDS),
    text=st.sampled_from(["hi", "secret", "{start:123456789}", "said"]),
    sender=st.builds(Sender, id=st.integers(1, 2), type=st.sampled_from(["Agent", "Client", "Bot"]), name=st.just("A")),
)
STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(MESSAGES, st.booleans()), max_size=5),
        st.sampled_from(["send", "filter", "restored", "gap", "repeat"]),
    ),
    max_size=7,
)


def run(steps: list[Any], config: dict[str, Any]) -> list[Any]:
    """Take the steps in a chat of its own; return what each has published, and all that is known at the end."""
    core = CoreHarness(**config).start()
    v3, index, seen = "transport" in config, 1, []
    for step in steps:
        match step:
            case "send":
                core.answer(core.ask("sendMessage", {"message": "said"}), good())
            case "filter":
                core.ask("addPrefilter", {"filters": [re.compile("secret")]})
            case "restored":
                core.session.catching_up = True
            case "gap":
                index += 3
            case "repeat":
                index = max(1, index - 1)
            case _:
                received = []
                for message, shown in step:
                    rank = (index, 1) if v3 else (index,)
                    number = f"{index}1" if v3 else index
                    numbered = Message(index=number, type=message.type, text=message.text, sender=message.sender)
                    other = Message(index=number, text="preprocessed") if shown else None
                    received.append(ReceivedMessage(numbered, {"index": number, "text": message.text}, rank, other))
                    index += 1
                core.move(5)
                reply = good()
                decision = core.poll(type(reply)(kind=reply.kind, response=reply.response, received=tuple(received)))
                seen.append([one for one in decision.effects if isinstance(one, Publish)])
    session = core.session
    seen.append([session.transcript.read(), session.cursor, session.last_index, session.transcript.stats()])
    return seen


@pytest.mark.parametrize("config", [{}, V3], ids=["v2", "v3"])
@settings(max_examples=examples(150))
@given(STEPS)
def test_plain_messages_have_the_same_effects_one_by_one(config: dict[str, Any], steps: list[Any]) -> None:
    whole = run(steps, config)
    with patch.object(on_poll, "_is_plain", lambda session, answer: False):
        assert run(steps, config) == whole


def test_plain_messages_are_delivered_as_a_whole() -> None:
    core = CoreHarness().start()
    messages = [Message(index=index, text="hi", sender=Sender(id=2, type="Agent", name="Ann")) for index in (1, 2)]
    with patch.object(on_poll, "_deliver_each", side_effect=AssertionError):
        core.poll(good(*messages))
    shown = core.session.transcript.read().messages
    assert [one is other for one, other in zip(shown, messages, strict=True)] == [True, True]


def behind(messages: dict[tuple[int, ...], Message], since: object) -> list[Message]:
    """Return the messages behind the one with that index by comparing all of them, else behind that count."""
    known = [rank for rank, message in messages.items() if message.index == since]
    spelt = str(since) if isinstance(since, int | str) else ""
    place = known[0] if known else (int(spelt),) if spelt.isdecimal() else ()
    return [message for rank, message in messages.items() if rank > place]


@pytest.mark.parametrize("config", [{}, V3], ids=["v2", "v3"])
@given(
    indexes=st.sets(st.integers(1, 25)),
    since=st.one_of(st.integers(-1, 300), st.integers(-1, 300).map(str), st.sampled_from([True, 2.0, "x", "\u0662"])),
)
def test_messages_since_an_index_are_those_behind_it(config: dict[str, Any], indexes: set[int], since: Any) -> None:
    """Find the place of an index by search to the same result as by comparison, in any spelling."""
    transcript = CoreHarness(**config).start().session.transcript
    messages = {
        ((index, 1) if config else (index,)): Message(index=f"{index}1" if config else index)
        for index in sorted(indexes)
    }
    received = [ReceivedMessage(message, {"index": message.index}, rank) for rank, message in messages.items()]
    if received:
        transcript.extend(received, list(messages.values()))
    assert list(transcript.read(since).messages) == behind(messages, since)


def test_messages_since_the_last_one_compare_no_other() -> None:
    class Index(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Index.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    core = CoreHarness(**V3).start()
    received = [ReceivedMessage(Message(index=Index(f"{n}1")), {"index": f"{n}-1"}, (n, 1)) for n in range(1000, 1100)]
    core.session.transcript.extend(received, [one.message for one in received])
    assert core.session.transcript.read("10991").messages == ()
    assert Index.compared <= 2
