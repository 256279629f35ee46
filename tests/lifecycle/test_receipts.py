"""What becomes of a message of one's own: sent, unknown, delivered."""

from __future__ import annotations

import re

import pytest

from webchat_fsm import CommandRejected, HandlerWaitError, TransportError


def test_a_message_is_sent_and_then_delivered_at_its_index(stage):
    receipt = stage.start().send_message("hi")
    assert (receipt.status, receipt.index) == ("sent", None)
    stage.advance(3)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert stage.heard.texts() == ["hi"]


def test_waiting_for_a_delivery_moves_time(stage):
    receipt = stage.start().send_message("hi")
    before = stage.timeline.now()
    assert receipt.wait(5)
    assert 0 < stage.timeline.now() - before <= 3
    assert receipt.wait(0)


def test_a_delivery_that_does_not_come_is_waited_for_no_longer_than_asked(stage):
    chat = stage.start()
    receipt = chat.send_message("hi")
    stage.server.faults.add(operation="refresh", drop=True, times=100)
    before = stage.timeline.now()
    assert receipt.wait(10) is False
    assert stage.timeline.now() - before == pytest.approx(10)
    assert receipt.status == "sent"


def test_equal_texts_are_delivered_in_their_order(stage):
    chat = stage.start()
    receipts = [chat.send_message("hi") for _ in range(3)]
    stage.advance(3)
    assert [receipt.index for receipt in receipts] == [2, 3, 4]


def test_a_hidden_message_is_delivered_too(stage):
    chat = stage.start()
    chat.add_prefilter(re.compile("secret"))
    receipt = chat.send_message("secret")
    assert receipt.wait(5)
    assert stage.heard.texts() == []


def test_a_message_without_an_answer_may_have_arrived_and_its_receipt_says_so(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    assert isinstance(caught.value.__cause__, TransportError)
    receipt = caught.value.receipt
    assert receipt.status == "unknown"
    assert receipt.wait(5)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert stage.heard.texts() == ["hi"], "the library has not sent it a second time"


def test_a_message_that_did_not_arrive_stays_unknown_and_its_repetition_is_delivered(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", drop=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    again = chat.send_message("hi")
    assert again.wait(5)
    assert caught.value.receipt.status == "unknown"


def test_when_both_arrived_both_are_delivered(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    again = chat.send_message("hi")
    stage.advance(3)
    assert {again.status, caught.value.receipt.status} == {"delivered"}
    assert {again.index, caught.value.receipt.index} == {2, 3}


@pytest.mark.parametrize(
    "wrong", [{"server_status": 2, "chat_ended": False}, {"server_status": 1}, {"http_status": 500}]
)
def test_a_refused_message_has_no_receipt_and_its_repetition_has_its_own(stage, wrong):
    chat = stage.start()
    stage.server.faults.add(operation="send", **wrong)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    assert caught.value.receipt is None
    receipt = chat.send_message("hi")
    assert receipt.wait(5)


def test_a_message_of_somebody_else_delivers_nothing(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", server_status=0)
    receipt = chat.send_message("hi")
    stage.agent().say("hi")
    stage.advance(3)
    assert receipt.status == "sent"


def test_the_end_of_the_chat_ends_the_waiting(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", server_status=0)
    receipt = chat.send_message("hi")
    chat.close()
    assert receipt.wait(1000) is False


def test_waiting_inside_a_handler_is_refused_at_once(stage):
    chat, told = stage.start(), []

    def wait(event):
        with pytest.raises(HandlerWaitError):
            chat.send_message("hi").wait(5)
        told.append(event.name)

    chat.subscribe("agentConnected", wait)
    stage.agent()
    stage.advance(3)
    assert told == ["agentConnected"]


def test_further_fields_of_a_message(stage):
    chat = stage.start()
    chat.send_message("hi", type="survey", parent_message_id="abc")
    asked = stage.asked("send")[-1]
    assert asked["messageType"] == "survey"
    assert stage.server.core.current_chat().transcript[-1].attributes == {
        "general-properties": {"related-event-id": "abc"}
    }
    chat.send_message("hi")
    assert stage.asked("send")[-1]["messageType"] == "text"


def test_a_send_never_asks_for_a_transcript(stage):
    stage.start().send_message("hi")
    assert "transcriptPosition" not in stage.asked("send")[-1]
