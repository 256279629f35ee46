"""Check the allowance of requests: a burst, then a rate, in any order of waits and requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from webchat_fsm._core.timers import BURST, RATE, RATE_AFTER_MESSAGES, Allowance


def test_request_waits_only_after_a_full_burst():
    allowance = Allowance()
    assert [allowance.take(100.0) for _ in range(BURST)] == [0.0] * BURST
    assert round(allowance.take(100.0), 6) == 0.1  # ten a second, as the README promises


def test_connect_after_messages_has_its_own_rate():
    allowance = Allowance()
    waits = [allowance.take(5.0, fast=True) for _ in range(3)]
    assert [round(wait, 6) for wait in waits] == [0.0, 1 / RATE_AFTER_MESSAGES, 2 / RATE_AFTER_MESSAGES]
    assert allowance.wait(5.0) == 0.0


@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_every_window_keeps_burst_and_rate(pauses):
    """Allow in any period no more requests than the burst and the rate times the period."""
    allowance, now, made = Allowance(), 0.0, []
    for pause in pauses:
        now += pause
        now += allowance.take(now)
        made.append(now)
    for first in range(len(made)):
        for last in range(first, len(made)):
            assert last - first + 1 <= BURST + 0.1 + RATE * (made[last] - made[first])
