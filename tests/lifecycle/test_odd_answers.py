"""Check malformed members of responses: everything beside them is delivered, and the chat continues."""

from __future__ import annotations

import json
import logging

import pytest

from tests.cometd.gateway import push
from tests.lifecycle.environment import HeardOnBus
from tests.lifecycle.wires import wire
from webchat_fsm.lifecycle._transports import Transport

TRANSPORTS = [Transport.V2, Transport.COMETD, Transport.V3, Transport.V3_ASYNC]
REMOVED = object()

MALFORMED = {
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
    "a sender that is the text null": {"from": "null"},
    "a nickname that is a number": {"from": {"nickname": 7, "participantId": 3, "type": "External"}},
    "a participantId that is a fraction": {"from": {"nickname": "b", "participantId": 2.5, "type": "Agent"}},
    "an empty index": {"index": ""},
    "a negative index": {"index": -1},
    "an index that is a list": {"index": []},
    "no index": {"index": REMOVED},
}


def changed(event, change):
    return {key: value for key, value in {**event, **change}.items() if value is not REMOVED}


def texts(bench):
    return [message.text for data in bench.heard.all("messageReceived") for message in data.messages]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_malformed_event_is_delivered_with_the_others(transport):
    with wire(transport) as bench:
        bench.start()
        for number, (name, change) in enumerate(MALFORMED.items()):
            before, odd, after = (bench.event(number * 10 + step, f"{name} {step}") for step in range(3))
            bench.deliver(bench.envelope(before, changed(odd, change), after))
            (data,) = bench.heard.all("messageReceived")
            assert [message.text for message in data.messages][::2] == [f"{name} 0", f"{name} 2"], name
            assert len(data.messages) == len(data.original_messages) == 3, name
            assert "error" not in bench.heard.take(), name


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("odd", [None, "Notice", 5, []])
def test_event_that_is_no_object_keeps_its_place(transport, odd):
    with wire(transport) as bench:
        bench.start()
        bus = HeardOnBus(bench.chat)
        bench.deliver(bench.envelope(bench.event(1, "before"), odd, bench.event(3, "after")))
        assert texts(bench) == ["before", "", "after"]
        on_bus = bus.last("messageReceived")
        assert on_bus["originalMessages"][1] == odd
        assert on_bus["messages"][1]["type"] == ""
        assert bus.command("getTranscript").value["originalMessages"][-2] == odd
        bench.deliver(bench.envelope(bench.event(4, "next")))
        assert texts(bench) == ["before", "", "after", "next"]


def test_whole_number_written_as_double_is_read_as_int():
    with wire(Transport.V2) as bench:
        bench.start()
        sender = {"nickname": "Ann", "participantId": 2.0, "type": "Agent"}
        doubles = {"from": sender, "index": 13.0, "type": "ParticipantJoined", "utcTime": 1.790000003e12, "text": "x"}
        bench.deliver({**bench.envelope(doubles), "statusCode": 0.0, "nextPosition": 14.0})
        (message,) = bench.heard.last("messageReceived").messages
        assert (message.index, message.sender.id, message.timestamp) == (13, 2, 1790000003000)
        assert list(bench.chat.get_agents()) == [2]
        bench.chat.step()
        assert bench.env.asked("refresh")[-1]["transcriptPosition"] == "14"


@pytest.mark.parametrize("transport", [Transport.V2, Transport.COMETD])
@pytest.mark.parametrize(
    "change",
    [
        {"idleTimerExpire": ""}, {"idleTimerExpire": 254.6}, {"alias": 117}, {"userId": 75}, {"userData": []},
        {"statusCode": "0"}, {"statusCode": []}, {"statusCode": None}, {"chatEnded": "no"}, {"chatEnded": 2},
        {"chatEnded": {}}, {"nextPosition": "x"}, {"errors": "none"}, {"errors": [None]}, {"secureKey": []},
    ],
)  # fmt: skip
def test_malformed_envelope_member_loses_no_event(transport, change):
    with wire(transport) as bench:
        bench.start()
        bench.deliver({**bench.envelope(bench.event(1, "one")), **change})
        assert (texts(bench), bench.heard.names, bench.chat.state.has_session) == (["one"], ["messageReceived"], True)


@pytest.mark.parametrize("transport", [Transport.V2, Transport.COMETD])
@pytest.mark.parametrize("value", [None, True, False, 42, 2.0, 10**30, "", [], ["x"], {}, {"a": 1}])
def test_id_of_wrong_type_changes_no_chat_id(transport, value):
    with wire(transport) as bench:
        bench.start()
        known = bench.chat.get_session_data()
        for number, name in enumerate(("chatId", "secureKey", "alias", "userId")):
            bench.deliver({**bench.envelope(bench.event(number, name)), name: value})
            assert (texts(bench)[number:], bench.chat.get_session_data()) == ([name], known)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("value", [None, {}, "null", 5, "x"])
def test_messages_member_that_is_no_array_is_ignored(transport, value):
    with wire(transport) as bench:
        bench.start()
        bench.deliver(bench.envelope(messages=value))
        bench.deliver(bench.envelope(bench.event(1, "one")))
        assert (texts(bench), "error" in bench.heard.names) == (["one"], False)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("value", [True, 1, "true", "1"])
def test_chat_ended_as_bool_number_or_text_ends_the_chat(transport, value):
    with wire(transport) as bench:
        bench.start()
        bench.deliver(bench.envelope(bench.event(1, "bye"), chatEnded=value))
        assert (texts(bench), bench.heard.names[-1], str(bench.chat.state)) == (["bye"], "ended", "ended")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_unreadable_content_is_counted_and_logged_once(transport, caplog):
    with wire(transport) as bench, caplog.at_level(logging.WARNING, "webchat_fsm"):
        bench.start()
        assert bench.chat.health().misread == {}
        for number in (1, 2, 3):
            odd = bench.event(number, text={"secret": "value"})
            bench.deliver(bench.envelope(odd, None))
        place = "messages[]" if transport.gms else "data.messages[]"
        assert bench.chat.health().misread == {
            f"{place}.text: expected str, got object": 3,
            f"{place}: expected object, got null": 3,
        }
        logged = [record.getMessage() for record in caplog.records if "not understood" in record.getMessage()]
        assert len(logged) == 2
        assert "secret" not in caplog.text


MALFORMED_PAGE = ({"type": REMOVED}, {"text": 42}, {"from": "Ann"}, {"userData": []})


@pytest.mark.parametrize("transport", [Transport.V2, Transport.V3, Transport.V3_ASYNC])
def test_restore_with_malformed_events_succeeds(transport):
    with wire(transport) as bench:
        bench.start()
        bench.chat.close()
        bench.env.client()
        odd = [changed(bench.event(number, f"{number}"), change) for number, change in enumerate(MALFORMED_PAGE)]
        bench.answer("restore", json.dumps(bench.envelope(bench.event(0, "before"), None, *odd)).encode())
        bench.chat.open()
        assert str(bench.chat.state) == "polling"
        assert len(bench.heard.last("messageReceived").messages) >= len(MALFORMED_PAGE)
        assert bench.heard.last("messageReceived").restoring


def test_cometd_restore_with_malformed_events_succeeds():
    with wire(Transport.COMETD) as bench:
        bench.start()
        chat = bench.env.again()
        odd = [changed(bench.event(number, f"{number}"), change) for number, change in enumerate(MALFORMED_PAGE)]
        bench.env.gateway.script("requestNotifications", bench.env.gateway.accept(bench.envelope(None, *odd)))
        chat.open()
        assert (str(chat.state), len(bench.heard.last("messageReceived").messages)) == ("active", len(odd) + 1)


def test_history_with_malformed_events_is_delivered():
    with wire(Transport.V3_ASYNC) as bench:
        bench.start()
        older = [
            {**changed(bench.event(0), change), "index": f"{number}-1"} for number, change in enumerate(MALFORMED_PAGE)
        ]
        bench.answer("history", json.dumps(bench.envelope(*older, None)).encode())
        bench.chat.fetch_history()
        assert len(bench.heard.last("messageReceived").messages) == len(older) + 1


def test_malformed_push_loses_no_other_push():
    with wire(Transport.COMETD) as bench:
        bench.start()
        good = [push(bench.envelope(bench.event(number, f"{number}"))) for number in (1, 2)]
        bench.env.gateway.queue += [
            good[0],
            None,
            5,
            "x",
            {"channel": 7, "data": {}},
            push({"statusCode": 404}),
            good[1],
        ]
        bench.env.advance(1)
        assert texts(bench) == ["1", "2"]
        assert bench.heard.names.count("error") == 1
        assert "[]: expected object with a channel, got null" in bench.chat.health().misread


@pytest.mark.parametrize("body", [{"statusCode": 404, "message": "x"}, {"statusCode": "x"}, {"status": "UP"}, {}, []])
def test_answer_of_another_service_is_a_failed_poll(body):
    with wire(Transport.V2) as bench:
        bench.start()
        bench.deliver(body)
        assert (bench.heard.take(), bench.chat.health().failures) == (["error", "connectionPending"], 1)
        bench.deliver(bench.envelope(bench.event(1, "one")))
        assert texts(bench) == ["one"]
