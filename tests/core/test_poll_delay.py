"""Check when the next poll is due: growth, activity, failures, jitter and Retry-After."""

from __future__ import annotations

import pytest

from tests.core.harness import SAVED, CoreHarness, bad, good, silent
from webchat_fsm._config import Config
from webchat_fsm._core.steps import ResponseKind
from webchat_fsm._core.timers import PollDelay


def waits(core: CoreHarness, reply, count: int) -> list[float]:
    found = []
    for _ in range(count):
        core.poll(reply)
        found.append(core.next_poll)
        core.move(core.next_poll)
    return found


def test_first_poll_is_due_at_once():
    assert CoreHarness().start().next_poll == 0


def test_delay_grows_by_a_fifth_from_half_to_three_seconds():
    expected = [0.5, 0.6, 0.72, 0.864, 1.0368, 1.24416, 1.492992, 1.79159, 2.149908, 2.57989, 3.0, 3.0]
    assert waits(CoreHarness().start(), good(), 12) == pytest.approx(expected, abs=1e-5)


def test_min_max_and_growth_of_delay_are_configured():
    core = CoreHarness(pollRateMin=1000, pollRateMax=5000, pollRateMult=2).start()
    assert waits(core, good(), 5) == [1, 2, 4, 5, 5]


def test_delay_without_dynamic_polling_is_fixed():
    assert waits(CoreHarness(dynamicPolling=False, pollRate=1500).start(), good(), 3) == [1.5] * 3


def test_failed_polls_keep_the_delay_and_offline_has_the_max():
    core = CoreHarness().start()
    assert waits(core, silent(), 8) == pytest.approx([0.5, 0.6, 0.72, 0.864, 1.0368, 3, 3, 3])
    assert waits(core, good(), 2)[0] >= 0.5


def test_activity_resets_the_delay_to_the_minimum():
    core = CoreHarness().start()
    waits(core, good(), 15)
    core.poll(good())
    core.ask("sendMessage", {"message": "hi"})
    assert core.next_poll == 0.5
    core.move(0.5)
    assert waits(core, good(), 2) == [0.5, 0.6]


def test_activity_does_not_postpone_a_poll():
    core = CoreHarness().start()
    core.poll(good())
    core.move(0.4)
    core.ask("sendMessage", {"message": "hi"})
    assert core.next_poll == pytest.approx(0.1)


def test_activity_during_a_poll_shortens_the_next_delay():
    core = CoreHarness().start()
    waits(core, good(), 15)
    poll = core.due()
    core.ask("sendMessage", {"message": "hi"})
    core.answer(poll, good())
    assert core.next_poll == 0.5


@pytest.mark.parametrize(
    ("jitter", "draw", "wait"), [(0, 0.9, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0.375), (1, 0.999, 0.0005)]
)
def test_jitter_shortens_the_delay_by_its_share(jitter, draw, wait):
    core = CoreHarness(client={"pollJitter": jitter}).start()
    core.draw = draw
    core.poll(good())
    assert core.next_poll == pytest.approx(wait)


def test_jitter_does_not_shorten_retry_after():
    core = CoreHarness(client={"pollJitter": 1}).start()
    core.draw = 0.99
    core.poll(bad(ResponseKind.THROTTLED, 429, retry_after=10.0))
    assert core.next_poll == 10


@pytest.mark.parametrize(
    ("asked", "wait"), [(None, 0.5), (0.0, 0.5), (0.1, 0.5), (7.0, 7), (300.0, 300), (301.0, 300), (1e12, 300)]
)
@pytest.mark.parametrize("kind", [ResponseKind.THROTTLED, ResponseKind.BAD])
def test_retry_after_lengthens_the_delay_up_to_the_cap(kind, asked, wait):
    core = CoreHarness().start()
    core.poll(bad(kind, 503, retry_after=asked))
    assert core.next_poll == wait


def test_retry_after_cap_is_configured():
    core = CoreHarness(client={"retry": {"retryAfterCap": 5000}}).start()
    core.poll(bad(ResponseKind.THROTTLED, 429, retry_after=60.0))
    assert core.next_poll == 5


def test_restarted_polling_has_the_minimum_delay():
    core = CoreHarness().start()
    waits(core, good(), 15)
    core.ask("stopPoll")
    assert core.next_poll is None
    core.ask("startPoll")
    assert core.next_poll == 0
    assert waits(core, good(), 2) == [0.5, 0.6]


def test_restore_polls_at_once():
    core = CoreHarness()
    core.answer(core.open(SAVED), good())
    assert core.next_poll == 0


def test_poll_delay_is_read_from_the_configuration():
    assert PollDelay.of(Config.read({"dataURL": "http://x.test/"})) == PollDelay(0.5, 3.0, 1.2)
