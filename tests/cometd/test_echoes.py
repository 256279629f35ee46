"""Check receipts of acknowledged sends over CometD, and messages missing from the push of a restore."""

from __future__ import annotations

import pytest

from tests.cometd.gateway import NO_RESPONSE, UNKNOWN, envelope
from webchat_fsm import CommandRejected


@pytest.mark.parametrize("before", [True, False])
def test_masked_message_beside_acknowledgement_settles_receipt(line, before):
    chat = line.start()
    masked = line.gateway.add("Message", "****", "Client")
    line.gateway.script("sendMessage", line.gateway.accept(envelope(masked), before=before))
    receipt = chat.send_message("4111")
    assert (receipt.status, receipt.index) == ("delivered", masked["index"])


def test_masked_message_after_repeated_send_settles_receipt(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN), line.gateway.accept())
    receipt = chat.send_message("4111")
    line.gateway.say("****", sender="Client")
    line.advance(3)
    assert (receipt.status, receipt.index) == ("delivered", 2)


@pytest.mark.parametrize(("handshake", "standing"), [(NO_RESPONSE, ["unconfirmed"]), ("refused", [])])
def test_rejected_send_is_unconfirmed_without_response(line, handshake, standing):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", line.gateway.refuse("403::no") if handshake == "refused" else handshake)
    with pytest.raises(CommandRejected):
        chat.send_message("4111")
    assert [str(one.status) for one in chat._engine.session.pending_sends] == standing


@pytest.mark.parametrize(("left_out", "missing"), [(0, 0), (2, 0), (5, 3)])
def test_messages_missing_from_restore_push_are_reported(line, left_out, missing):
    chat = line.start()
    line.gateway.say("one")
    line.advance(3)
    chat.close()
    assert line.store.load().last_index == "2"
    for number in range(5):
        line.gateway.add("Message", f"missed {number}")
    line.gateway.script("requestNotifications", line.gateway.accept(envelope(*line.gateway.transcript[left_out:])))
    chat = line.again()
    chat.open()
    assert chat.state == "active"
    assert chat.get_transcript().missing == line.heard.last("restored").missing == missing
