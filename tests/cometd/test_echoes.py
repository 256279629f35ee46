"""Receipts and missing messages over CometD: an acknowledgement is an acceptance, a restore asks for everything."""

from __future__ import annotations

import pytest

from tests.cometd.gateway import NOBODY, UNKNOWN, envelope
from webchat_fsm import CommandRejected


@pytest.mark.parametrize("before", [True, False])
def test_a_masked_message_beside_its_acknowledgement_settles_it(line, before):
    chat = line.start()
    masked = line.gateway.add("Message", "****", "Client")
    line.gateway.script("sendMessage", line.gateway.taken(envelope(masked), before=before))
    receipt = chat.send_message("4111")
    assert (receipt.status, receipt.index) == ("delivered", masked["index"])


def test_a_masked_message_that_was_sent_again_settles_it(line):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN), line.gateway.taken())
    receipt = chat.send_message("4111")
    line.gateway.say("****", sender="Client")
    line.advance(3)
    assert (receipt.status, receipt.index) == ("delivered", 2)


@pytest.mark.parametrize(("handshake", "standing"), [(NOBODY, ["unconfirmed"]), ("refused", [])])
def test_a_send_that_cannot_be_repeated_waits_for_no_answer(line, handshake, standing):
    chat = line.start()
    line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
    line.gateway.script("handshake", line.gateway.refuse("403::no") if handshake == "refused" else handshake)
    with pytest.raises(CommandRejected):
        chat.send_message("4111")
    assert [str(one.standing) for one in chat._engine.session.sendings] == standing


@pytest.mark.parametrize(("left_out", "missing"), [(0, 0), (2, 0), (5, 3)])
def test_what_a_push_to_a_restore_leaves_out_is_reported(line, left_out, missing):
    chat = line.start()
    line.gateway.say("one")
    line.advance(3)
    chat.close()
    assert line.store.load().last_index == "2"
    for number in range(5):
        line.gateway.add("Message", f"missed {number}")
    line.gateway.script("requestNotifications", line.gateway.taken(envelope(*line.gateway.transcript[left_out:])))
    chat = line.again()
    chat.open()
    assert chat.state == "active"
    assert chat.get_transcript().missing == line.heard.last("restored").missing == missing
