"""Whose requests the rate limit delays: those that the service makes by itself, never those of the user's commands."""

from __future__ import annotations

from tests.core.harness import SAVED, CoreHarness, bad
from webchat_fsm._core.steps import ResponseKind

BURST = 60
"""More requests at one moment than the rate limit allows."""


def test_commands_of_the_user_are_sent_without_delay():
    core = CoreHarness().start()
    pauses = [core.ask("sendMessage", {"message": "hi"}).call.pause for _ in range(BURST)]
    assert pauses == [0.0] * BURST


def test_commands_of_the_service_wait_for_the_rate_limit():
    core = CoreHarness()
    core.open()
    pauses = []
    for _ in range(BURST):
        core.session.saved = SAVED
        restore = core.ask("restore", by_service=True)
        pauses.append(restore.call.pause)
        core.answer(restore, bad(ResponseKind.BAD, 500))
    assert pauses[0] == 0.0 < pauses[-1]
