"""Odd members of answers, seen through the wire: everything beside them is delivered, and the chat goes on."""

from __future__ import annotations

import json
import logging

import pytest

from tests.cometd.gateway import push
from tests.lifecycle.stage import HeardOnBus
from tests.lifecycle.wires import wire
from webchat_fsm.lifecycle.table import Transport

WAYS = [Transport.V2, Transport.COMETD, Transport.V3, Transport.V3_ASYNC]
REMOVED = object()

ODD = {
    "no type": {"type": REMOVED},
    "a null type": {"type": None},
    "a text that is a number": {"text": 42},
    "a text that is null": {"text": None},
    "a text that is an object": {"text": {"type": "quick-replies", "items": []}},
    "user data that are a list": {"userData": []},
    "user data that are JSON text": {"userData": '{"a": "b"}'},
    "a fractional time": {"utcTime": 1548735832000.5},
    "a time as text": {"utcTime": "2019-01-29T04:23:52Z"},
    "a sender that is a name": {"from": "system"},
    "a sender that says null": {"from": "null"},
    "a nickname that is a number": {"from": {"nickname": 7, "participantId": 3, "type": "External"}},
    "a participantId that is a fraction": {"from": {"nickname": "b", "participantId": 2.5, "type": "Agent"}},
    "an empty index": {"index": ""},
    "a negative index": {"index": -1},
    "an index that is a list": {"index": []},
    "no index": {"index": REMOVED},
}


def changed(event, change):
    return {key: value for key, value in {**event, **change}.items() if value is not REMOVED}


def texts(here):
    return [message.text for data in here.heard.all("messageReceived") for message in data.messages]


@pytest.mark.parametrize("way", WAYS)
def test_an_odd_event_is_delivered_among_the_others(way):
    with wire(way) as here:
        here.start()
        for number, (name, change) in enumerate(ODD.items()):
            before, odd, after = (here.event(number * 10 + step, f"{name} {step}") for step in range(3))
            here.deliver(here.envelope(before, changed(odd, change), after))
            (data,) = here.heard.all("messageReceived")
            assert [message.text for message in data.messages][::2] == [f"{name} 0", f"{name} 2"], name
            assert len(data.messages) == len(data.original_messages) == 3, name
            assert "error" not in here.heard.take(), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("odd", [None, "Notice", 5, []])
def test_an_event_that_is_no_object_stands_in_its_place(way, odd):
    with wire(way) as here:
        here.start()
        bus = HeardOnBus(here.chat)
        here.deliver(here.envelope(here.event(1, "before"), odd, here.event(3, "after")))
        assert texts(here) == ["before", "", "after"]
        on_bus = bus.last("messageReceived")
        assert on_bus["originalMessages"][1] == odd
        assert on_bus["messages"][1]["type"] == ""
        assert bus.command("getTranscript").value["originalMessages"][-2] == odd
        here.deliver(here.envelope(here.event(4, "next")))
        assert texts(here) == ["before", "", "after", "next"]


def test_doubles_of_gson_are_whole_numbers():
    with wire(Transport.V2) as here:
        here.start()
        sender = {"nickname": "Ann", "participantId": 2.0, "type": "Agent"}
        doubles = {"from": sender, "index": 13.0, "type": "ParticipantJoined", "utcTime": 1.790000003e12, "text": "x"}
        here.deliver({**here.envelope(doubles), "statusCode": 0.0, "nextPosition": 14.0})
        (message,) = here.heard.last("messageReceived").messages
        assert (message.index, message.sender.id, message.timestamp) == (13, 2, 1790000003000)
        assert list(here.chat.get_agents()) == [2]
        here.chat.step()
        assert here.stage.asked("refresh")[-1]["transcriptPosition"] == "14"


@pytest.mark.parametrize("way", [Transport.V2, Transport.COMETD])
@pytest.mark.parametrize(
    "change",
    [
        {"idleTimerExpire": ""}, {"idleTimerExpire": 254.6}, {"alias": 117}, {"userId": 75}, {"userData": []},
        {"statusCode": "0"}, {"statusCode": []}, {"statusCode": None}, {"chatEnded": "no"}, {"chatEnded": 2},
        {"chatEnded": {}}, {"nextPosition": "x"}, {"errors": "none"}, {"errors": [None]}, {"secureKey": []},
    ],
)  # fmt: skip
def test_an_odd_member_of_the_envelope_costs_no_event(way, change):
    with wire(way) as here:
        here.start()
        here.deliver({**here.envelope(here.event(1, "one")), **change})
        assert (texts(here), here.heard.names, here.chat.state.has_session) == (["one"], ["messageReceived"], True)


@pytest.mark.parametrize("way", [Transport.V2, Transport.COMETD])
@pytest.mark.parametrize("value", [None, True, False, 42, 2.0, 10**30, "", [], ["x"], {}, {"a": 1}])
def test_an_id_of_another_kind_changes_no_id_of_a_chat(way, value):
    with wire(way) as here:
        here.start()
        known = here.chat.get_session_data()
        for number, name in enumerate(("chatId", "secureKey", "alias", "userId")):
            here.deliver({**here.envelope(here.event(number, name)), name: value})
            assert (texts(here)[number:], here.chat.get_session_data()) == ([name], known)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [None, {}, "null", 5, "x"])
def test_messages_of_another_kind_are_no_messages(way, value):
    with wire(way) as here:
        here.start()
        here.deliver(here.envelope(messages=value))
        here.deliver(here.envelope(here.event(1, "one")))
        assert (texts(here), "error" in here.heard.names) == (["one"], False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [True, 1, "true", "1"])
def test_the_end_is_said_in_four_ways(way, value):
    with wire(way) as here:
        here.start()
        here.deliver(here.envelope(here.event(1, "bye"), chatEnded=value))
        assert (texts(here), here.heard.names[-1], str(here.chat.state)) == (["bye"], "ended", "ended")


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_understood_is_counted_and_logged_once(way, caplog):
    with wire(way) as here, caplog.at_level(logging.WARNING, "webchat_fsm"):
        here.start()
        assert here.chat.health().misread == {}
        for number in (1, 2, 3):
            odd = here.event(number, text={"secret": "value"})
            here.deliver(here.envelope(odd, None))
        place = "messages[]" if way.gms else "data.messages[]"
        assert here.chat.health().misread == {
            f"{place}.text: expected str, got object": 3,
            f"{place}: expected object, got null": 3,
        }
        said = [record.getMessage() for record in caplog.records if "not understood" in record.getMessage()]
        assert len(said) == 2
        assert "secret" not in caplog.text


ODD_PAGE = ({"type": REMOVED}, {"text": 42}, {"from": "Ann"}, {"userData": []})


@pytest.mark.parametrize("way", [Transport.V2, Transport.V3, Transport.V3_ASYNC])
def test_a_restore_with_odd_events_is_a_restore(way):
    with wire(way) as here:
        here.start()
        here.chat.close()
        here.stage.client()
        odd = [changed(here.event(number, f"{number}"), change) for number, change in enumerate(ODD_PAGE)]
        here.answer("restore", json.dumps(here.envelope(here.event(0, "before"), None, *odd)).encode())
        here.chat.open()
        assert str(here.chat.state) == "polling"
        assert len(here.heard.last("messageReceived").messages) >= len(ODD_PAGE)
        assert here.heard.last("messageReceived").restoring


def test_a_restore_over_cometd_with_odd_events_is_a_restore():
    with wire(Transport.COMETD) as here:
        here.start()
        chat = here.stage.again()
        odd = [changed(here.event(number, f"{number}"), change) for number, change in enumerate(ODD_PAGE)]
        here.stage.gateway.script("requestNotifications", here.stage.gateway.taken(here.envelope(None, *odd)))
        chat.open()
        assert (str(chat.state), len(here.heard.last("messageReceived").messages)) == ("active", len(odd) + 1)


def test_history_with_odd_events_is_history():
    with wire(Transport.V3_ASYNC) as here:
        here.start()
        older = [{**changed(here.event(0), change), "index": f"{number}-1"} for number, change in enumerate(ODD_PAGE)]
        here.answer("history", json.dumps(here.envelope(*older, None)).encode())
        here.chat.fetch_history()
        assert len(here.heard.last("messageReceived").messages) == len(older) + 1


def test_one_push_that_is_no_envelope_costs_no_other():
    with wire(Transport.COMETD) as here:
        here.start()
        good = [push(here.envelope(here.event(number, f"{number}"))) for number in (1, 2)]
        here.stage.gateway.queue += [
            good[0],
            None,
            5,
            "x",
            {"channel": 7, "data": {}},
            push({"statusCode": 404}),
            good[1],
        ]
        here.stage.advance(1)
        assert texts(here) == ["1", "2"]
        assert here.heard.names.count("error") == 1
        assert "[]: expected object with a channel, got null" in here.chat.health().misread


@pytest.mark.parametrize("body", [{"statusCode": 404, "message": "x"}, {"statusCode": "x"}, {"status": "UP"}, {}, []])
def test_an_answer_of_something_in_between_is_a_failed_poll(body):
    with wire(Transport.V2) as here:
        here.start()
        here.deliver(body)
        assert (here.heard.take(), here.chat.health().failures) == (["error", "connectionPending"], 1)
        here.deliver(here.envelope(here.event(1, "one")))
        assert texts(here) == ["one"]
