"""Check malformed indexes: every event is delivered once and in its place, and no later event is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cometd.conftest import Line
from tests.cometd.gateway import event as pushed
from tests.cometd.gateway import push
from tests.lifecycle.environment import ChatEnvironment, envelope, message
from tests.limits import examples
from tests.nexus.environment import NexusEnvironment
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

POLLED = [Transport.V2, Transport.V3, Transport.V3_ASYNC]
INDEXES: list[Any] = [None, True, False, 0, -1, 1, 2, 3, 7, 42, 2**53, 2**63, 10**40, 2.0, 2.5, 1e300]
INDEXES += ["", "1", "2", "-1", "x", "null", "0-0", "1790000000000-0", "1-2-3", [], [1], {}, {"index": 1}]
CHANGES: list[dict[str, Any]] = [{"remove": True}, *({"value": index} for index in INDEXES)]
"""Replacements for the index of an event."""


def env_of(transport: Transport) -> Any:
    timeline = Timeline()
    return ChatEnvironment(timeline, TestServer(timeline)) if transport.gms else NexusEnvironment(timeline, transport)


def odd_index(place: int, transport: Transport, change: dict[str, Any]) -> dict[str, Any]:
    path = "$.messages" if transport.gms else "$.data.messages"
    return {"member": f"{path}[{place}].index", **change}


def originals(chat: Any) -> list[str]:
    return [one.text for one in chat.get_transcript().messages if one.type == "Message"]


@pytest.mark.parametrize("transport", POLLED)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(CHANGES)), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=examples(25))
def test_malformed_index_in_polls_loses_no_message(transport, polls, restored):
    env = env_of(transport)
    number_said = 0
    try:
        env.start()
        ann = env.agent()
        env.advance(4)
        for count, place, change in polls:
            env.server.faults.add(operation="refresh", **odd_index(place, transport, change))
            for _ in range(count):
                number_said += 1
                ann.say(f"text {number_said}")
            env.advance(5)
        env.server.faults.clear()
        ann.say("last")
        env.advance(5)
        expected = [*(f"text {number}" for number in range(1, number_said + 1)), "last"]
        assert env.heard.texts() == originals(env.chat) == expected
        assert (env.chat.health().failures, "error" in env.heard.names) == (0, False)
        if transport.gms:
            env.chat.step()
            assert env.asked("refresh")[-1]["transcriptPosition"] == str(number_said + 4)
        if restored:
            env.away(1.0)
            assert originals(env.chat) == expected
    finally:
        env.server.close()


@pytest.mark.parametrize("transport", POLLED)
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("change", CHANGES[::3], ids=str)
def test_malformed_index_in_restore_loses_no_message(transport, place, change):
    env = env_of(transport)
    try:
        env.start()
        ann = env.agent()
        ann.say("one")
        ann.say("two")
        env.advance(5)
        env.server.faults.add(operation="refresh", **odd_index(place, transport, change))
        env.away(1.0)
        ann.say("three")
        env.advance(5)
        assert originals(env.chat) == ["one", "two", "three"]
        assert env.chat.state == "polling"
    finally:
        env.server.close()


@pytest.mark.parametrize("transport", [Transport.V3, Transport.V3_ASYNC])
@pytest.mark.parametrize("change", CHANGES[::3], ids=str)
def test_lost_poll_after_malformed_index_loses_no_message(transport, change):
    env = env_of(transport)
    try:
        env.start()
        ann = env.agent()
        env.advance(4)
        env.server.faults.add(operation="refresh", **odd_index(0, transport, change))
        ann.say("one")
        env.advance(4)
        env.server.faults.add(operation="refresh", drop=True, takes_effect=True)
        ann.say("two")
        env.advance(20)
        assert list(dict.fromkeys(originals(env.chat))) == ["one", "two"]  # the two contents of "one" differ
        assert originals(env.chat).count("two") == 1
    finally:
        env.server.close()


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data(), st.sampled_from([{}, *CHANGES[1:]]), st.booleans()
)
@settings(max_examples=examples(40))
def test_malformed_index_in_push_loses_no_message(sizes, data, change, names_next):
    line = Line(Timeline())
    odd = data.draw(st.integers(1, sum(sizes)))
    try:
        line.start()
        line.heard.take()
        begin = 1 + max((one.index or 0 for one in line.chat.get_transcript().messages), default=0)
        events = [pushed(begin + number, text=f"text {number + 1}") for number in range(sum(sizes))]
        expected = [one["text"] for one in events]
        events[odd - 1] = {key: value for key, value in events[odd - 1].items() if key != "index"}
        events[odd - 1] |= {"index": change["value"]} if change else {}
        for size in sizes:
            answer, events = events[:size], events[size:]
            following = begin + len(expected) - len(events)
            line.gateway.queue.append(
                push({"statusCode": 0, "messages": answer, **({"nextPosition": following} if names_next else {})})
            )
            line.advance(1)
        assert line.heard.texts() == originals(line.chat) == expected
        line.chat.send_typing("x")
        assert line.gateway.all("startTyping")[-1]["data"]["transcriptPosition"] == begin + len(expected)
    finally:
        for chat in line.chats:
            chat.close()


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [2**53, 1000])
def test_index_leap_skips_no_later_message(env, index):
    env.start()
    env.http.answer("refresh", envelope(message(2, "two"), message(index, "three")))
    env.chat.step()
    env.http.answer("refresh", envelope(message(4, "four")))
    env.chat.step()
    assert [one["transcriptPosition"] for one in env.asked("refresh")] == ["1"]
    env.chat.step()
    assert env.asked("refresh")[-1]["transcriptPosition"] == "5"
    assert env.heard.texts() == originals(env.chat) == ["two", "three", "four"]


def test_event_after_another_with_its_index_is_delivered(env):
    env.start()
    env.http.answer("refresh", envelope(message(4, "two"), message(3, "three")))
    env.chat.step()
    env.http.answer("refresh", envelope(message(4, "four")))
    env.chat.step()
    assert env.heard.texts() == originals(env.chat) == ["two", "three", "four"]
