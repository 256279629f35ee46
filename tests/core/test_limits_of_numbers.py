"""Numbers at their limits: the statuses that name a refusal, and the seconds after which polling counts as stalled."""

from __future__ import annotations

import pytest

from tests.core.harness import CoreHarness, bad
from webchat_fsm._config import Config
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import ResponseKind
from webchat_fsm._core.timers import overdue_after
from webchat_fsm.lifecycle import Transport
from webchat_fsm.testing._bench import CONFIGS

PROXY = ", without an error of the chat server's: check the URL and what is in between"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, "badly answered: HTTP status 200"),
        (299, "badly answered: HTTP status 299"),
        (300, f"badly answered: HTTP status 300{PROXY}"),
        (399, f"badly answered: HTTP status 399{PROXY}"),
        (400, f"the server refuses: HTTP status 400{PROXY}"),
        (499, f"the server refuses: HTTP status 499{PROXY}"),
        (500, f"badly answered: HTTP status 500{PROXY}"),
    ],
)
def test_reason_of_a_bad_answer_names_refusal_and_proxy(status, reason):
    core = CoreHarness().start()
    decision = core.answer(core.ask("sendMessage", {"message": "hi"}), bad(ResponseKind.BAD, status))
    assert decision.settled.reason == reason


@pytest.mark.parametrize(
    ("transport", "config", "seconds"),
    [
        (Transport.V2, {"ajaxTimeout": 30_000}, 30.0 + 3.0 + 5.0),
        (Transport.V2, {"ajaxTimeout": 200_000}, 200.0 + 3.0 + 5.0),
        (Transport.COMETD, {"ajaxTimeout": 200_000}, 200.0 + 60.0 + 5.0),
    ],
)
def test_polling_is_overdue_after_deadline_and_longest_pause(transport, config, seconds):
    assert overdue_after(Session(Config.read({**CONFIGS[transport], **config}))) == seconds
