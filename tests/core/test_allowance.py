"""The allowance of requests: a burst, then a rate, whatever the order of waiting and taking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from webchat_fsm.core.pace import BURST, RATE, RATE_AFTER_MESSAGES, Allowance


def test_a_burst_needs_no_waiting_and_the_next_request_does():
    allowance = Allowance()
    assert [allowance.take(100.0) for _ in range(BURST)] == [0.0] * BURST
    assert round(allowance.take(100.0), 6) == round(1 / RATE, 6)


def test_a_connect_behind_messages_has_a_rate_of_its_own():
    allowance = Allowance()
    waits = [allowance.take(5.0, brisk=True) for _ in range(3)]
    assert [round(wait, 6) for wait in waits] == [0.0, 1 / RATE_AFTER_MESSAGES, 2 / RATE_AFTER_MESSAGES]
    assert allowance.wait(5.0) == 0.0


@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_every_window_keeps_burst_and_rate(pauses):
    """As no request goes before its time, `n` requests span at least the time that the rate asks for."""
    allowance, now, made = Allowance(), 0.0, []
    for pause in pauses:
        now += pause
        now += allowance.take(now)
        made.append(now)
    for first in range(len(made)):
        for last in range(first, len(made)):
            assert last - first + 1 <= BURST + 0.1 + RATE * (made[last] - made[first])
