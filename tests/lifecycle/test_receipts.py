"""Check the receipt of an own message: sent, unknown, delivered."""

from __future__ import annotations

import re

import pytest

from webchat_fsm import CommandRejected, HandlerWaitError, TransportError


def test_receipt_is_sent_then_delivered_with_index(env):
    receipt = env.start().send_message("hi")
    assert (receipt.status, receipt.index) == ("sent", None)
    env.advance(3)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert env.heard.texts() == ["hi"]


def test_receipt_wait_returns_at_delivery(env):
    receipt = env.start().send_message("hi")
    before = env.timeline.now()
    assert receipt.wait(5)
    assert 0 < env.timeline.now() - before <= 3
    assert receipt.wait(0)


def test_receipt_wait_ends_at_its_timeout(env):
    chat = env.start()
    receipt = chat.send_message("hi")
    env.server.faults.add(operation="refresh", drop=True, times=100)
    before = env.timeline.now()
    assert receipt.wait(10) is False
    assert env.timeline.now() - before == pytest.approx(10)
    assert receipt.status == "sent"


def test_equal_texts_are_delivered_in_send_order(env):
    chat = env.start()
    receipts = [chat.send_message("hi") for _ in range(3)]
    env.advance(3)
    assert [receipt.index for receipt in receipts] == [2, 3, 4]


def test_receipt_of_hidden_message_is_delivered(env):
    chat = env.start()
    chat.add_prefilter(re.compile("secret"))
    receipt = chat.send_message("secret")
    assert receipt.wait(5)
    assert env.heard.texts() == []


def test_unanswered_send_has_unknown_receipt(env):
    chat = env.start()
    env.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    assert isinstance(caught.value.__cause__, TransportError)
    receipt = caught.value.receipt
    assert receipt.status == "unknown"
    assert receipt.wait(5)
    assert (receipt.status, receipt.index) == ("delivered", 2)
    assert env.heard.texts() == ["hi"], "the library has not sent it a second time"


def test_lost_send_stays_unknown_and_repeat_is_delivered(env):
    chat = env.start()
    env.server.faults.add(operation="send", drop=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    again = chat.send_message("hi")
    assert again.wait(5)
    assert caught.value.receipt.status == "unknown"


def test_unanswered_send_and_repeat_are_both_delivered(env):
    chat = env.start()
    env.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    again = chat.send_message("hi")
    env.advance(3)
    assert {again.status, caught.value.receipt.status} == {"delivered"}
    assert {again.index, caught.value.receipt.index} == {2, 3}


@pytest.mark.parametrize(
    "wrong", [{"server_status": 2, "chat_ended": False}, {"server_status": 1}, {"http_status": 500}]
)
def test_rejected_send_has_no_receipt_but_repeat_has(env, wrong):
    chat = env.start()
    env.server.faults.add(operation="send", **wrong)
    with pytest.raises(CommandRejected) as caught:
        chat.send_message("hi")
    assert caught.value.receipt is None
    receipt = chat.send_message("hi")
    assert receipt.wait(5)


def test_equal_text_of_an_agent_settles_no_receipt(env):
    chat = env.start()
    env.server.faults.add(operation="send", server_status=0)
    receipt = chat.send_message("hi")
    env.agent().say("hi")
    env.advance(3)
    assert receipt.status == "sent"


def test_receipt_wait_after_close_returns_false(env):
    chat = env.start()
    env.server.faults.add(operation="send", server_status=0)
    receipt = chat.send_message("hi")
    chat.close()
    assert receipt.wait(1000) is False


def test_receipt_wait_in_a_handler_raises(env):
    chat, waited = env.start(), []

    def wait(event):
        with pytest.raises(HandlerWaitError):
            chat.send_message("hi").wait(5)
        waited.append(event.name)

    chat.subscribe("agentConnected", wait)
    env.agent()
    env.advance(3)
    assert waited == ["agentConnected"]


def test_send_has_message_type_and_parent_message_id(env):
    chat = env.start()
    chat.send_message("hi", type="survey", parent_message_id="abc")
    asked = env.asked("send")[-1]
    assert asked["messageType"] == "survey"
    assert env.server.core.current_chat().transcript[-1].attributes == {
        "general-properties": {"related-event-id": "abc"}
    }
    chat.send_message("hi")
    assert env.asked("send")[-1]["messageType"] == "text"


def test_send_has_no_transcript_position(env):
    env.start().send_message("hi")
    assert "transcriptPosition" not in env.asked("send")[-1]
