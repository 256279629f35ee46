"""Messages that come back before their receipt is made are remembered, and only the latest of them."""

from __future__ import annotations

import pytest

from webchat_fsm._core.steps import Delivered
from webchat_fsm._runtime.outcome import Receipts


@pytest.mark.parametrize(("ticket", "delivered"), [(1, False), (2, True), (1001, True)])
def test_receipt_knows_its_message_among_the_latest_thousand(ticket, delivered):
    receipts = Receipts()
    for number in range(1, 1002):
        receipts.settle(Delivered(ticket=number, index=number))
    receipt = receipts.add(ticket, "sent", lambda receipt, timeout: False)
    assert (receipt.settled, receipt.status == "delivered") == (delivered, delivered)
