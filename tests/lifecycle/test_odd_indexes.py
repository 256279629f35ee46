"""Odd indexes through the wire: every event is delivered once and in its place, and nothing behind it is missed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cometd.conftest import Line
from tests.cometd.gateway import event as pushed
from tests.cometd.gateway import push
from tests.lifecycle.stage import Stage, envelope, message
from tests.nexus.stage import NexusStage
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing import TestServer, Timeline

POLLED = [Transport.V2, Transport.V3, Transport.V3_ASYNC]
INDEXES: list[Any] = [None, True, False, 0, -1, 1, 2, 3, 7, 42, 2**53, 2**63, 10**40, 2.0, 2.5, 1e300]
INDEXES += ["", "1", "2", "-1", "x", "null", "0-0", "1790000000000-0", "1-2-3", [], [1], {}, {"index": 1}]
CHANGES: list[dict[str, Any]] = [{"remove": True}, *({"value": index} for index in INDEXES)]
"""What the index of an event becomes."""


def stage_of(transport: Transport) -> Any:
    timeline = Timeline()
    return Stage(timeline, TestServer(timeline)) if transport.gms else NexusStage(timeline, transport)


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
@settings(max_examples=25)
def test_one_odd_index_in_each_poll_loses_nothing(transport, polls, restored):
    stage = stage_of(transport)
    said = 0
    try:
        stage.start()
        ann = stage.agent()
        stage.advance(4)
        for count, place, change in polls:
            stage.server.faults.add(operation="refresh", **odd_index(place, transport, change))
            for _ in range(count):
                said += 1
                ann.say(f"said {said}")
            stage.advance(5)
        stage.server.faults.clear()
        ann.say("last")
        stage.advance(5)
        expected = [*(f"said {number}" for number in range(1, said + 1)), "last"]
        assert stage.heard.texts() == originals(stage.chat) == expected
        assert (stage.chat.health().failures, "error" in stage.heard.names) == (0, False)
        if transport.gms:
            stage.chat.step()
            assert stage.asked("refresh")[-1]["transcriptPosition"] == str(said + 4)
        if restored:
            stage.away(1.0)
            assert originals(stage.chat) == expected
    finally:
        stage.server.close()


@pytest.mark.parametrize("transport", POLLED)
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("change", CHANGES[::3], ids=str)
def test_one_odd_index_in_a_restore_loses_nothing(transport, place, change):
    stage = stage_of(transport)
    try:
        stage.start()
        ann = stage.agent()
        ann.say("one")
        ann.say("two")
        stage.advance(5)
        stage.server.faults.add(operation="refresh", **odd_index(place, transport, change))
        stage.away(1.0)
        ann.say("three")
        stage.advance(5)
        assert originals(stage.chat) == ["one", "two", "three"]
        assert stage.chat.state == "polling"
    finally:
        stage.server.close()


@pytest.mark.parametrize("transport", [Transport.V3, Transport.V3_ASYNC])
@pytest.mark.parametrize("change", CHANGES[::3], ids=str)
def test_catching_up_after_an_odd_index_loses_nothing(transport, change):
    stage = stage_of(transport)
    try:
        stage.start()
        ann = stage.agent()
        stage.advance(4)
        stage.server.faults.add(operation="refresh", **odd_index(0, transport, change))
        ann.say("one")
        stage.advance(4)
        stage.server.faults.add(operation="refresh", drop=True, takes_effect=True)
        ann.say("two")
        stage.advance(20)
        assert list(dict.fromkeys(originals(stage.chat))) == ["one", "two"]  # "one" has two raw contents now
        assert originals(stage.chat).count("two") == 1
    finally:
        stage.server.close()


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data(), st.sampled_from([{}, *CHANGES[1:]]), st.booleans()
)
@settings(max_examples=40)
def test_one_odd_index_in_a_push_loses_nothing(sizes, data, change, names_next):
    line = Line(Timeline())
    odd = data.draw(st.integers(1, sum(sizes)))
    try:
        line.start()
        line.heard.take()
        begin = 1 + max((one.index or 0 for one in line.chat.get_transcript().messages), default=0)
        events = [pushed(begin + number, text=f"said {number + 1}") for number in range(sum(sizes))]
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
def test_leaping_index_does_not_skip_what_follows(stage, index):
    stage.start()
    stage.http.answer("refresh", envelope(message(2, "two"), message(index, "three")))
    stage.chat.step()
    stage.http.answer("refresh", envelope(message(4, "four")))
    stage.chat.step()
    assert [one["transcriptPosition"] for one in stage.asked("refresh")] == ["1"]
    stage.chat.step()
    assert stage.asked("refresh")[-1]["transcriptPosition"] == "5"
    assert stage.heard.texts() == originals(stage.chat) == ["two", "three", "four"]


def test_genuine_event_comes_after_one_that_claimed_its_index(stage):
    stage.start()
    stage.http.answer("refresh", envelope(message(4, "two"), message(3, "three")))
    stage.chat.step()
    stage.http.answer("refresh", envelope(message(4, "four")))
    stage.chat.step()
    assert stage.heard.texts() == originals(stage.chat) == ["two", "three", "four"]
