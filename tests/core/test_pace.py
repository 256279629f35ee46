"""When the next poll is due: growth, activity, failures, jitter, and what a server asks for."""

from __future__ import annotations

import pytest

from tests.core.play import SAVED, Play, bad, good, silent
from webchat_fsm.config import Config
from webchat_fsm.core.facts import Verdict
from webchat_fsm.core.pace import Pace


def waits(play: Play, reply, count: int) -> list[float]:
    found = []
    for _ in range(count):
        play.poll(reply)
        found.append(play.next_poll)
        play.move(play.next_poll)
    return found


def test_the_first_poll_is_due_at_once():
    assert Play().start().next_poll == 0


def test_pauses_grow_by_a_fifth_from_half_a_second_to_three():
    expected = [0.5, 0.6, 0.72, 0.864, 1.0368, 1.24416, 1.492992, 1.79159, 2.149908, 2.57989, 3.0, 3.0]
    assert waits(Play().start(), good(), 12) == pytest.approx(expected, abs=1e-5)


def test_least_most_and_growth_are_configured():
    play = Play(pollRateMin=1000, pollRateMax=5000, pollRateMult=2).start()
    assert waits(play, good(), 5) == [1, 2, 4, 5, 5]


def test_without_dynamics_the_rate_is_fixed():
    assert waits(Play(dynamicPolling=False, pollRate=1500).start(), good(), 3) == [1.5] * 3


def test_failures_below_the_limit_keep_the_ordinary_pace_and_offline_the_slowest():
    play = Play().start()
    assert waits(play, silent(), 8) == pytest.approx([0.5, 0.6, 0.72, 0.864, 1.0368, 3, 3, 3])
    assert waits(play, good(), 2)[0] >= 0.5


def test_activity_brings_the_next_poll_near_and_the_pace_down():
    play = Play().start()
    waits(play, good(), 15)
    play.poll(good())
    play.ask("sendMessage", {"message": "hi"})
    assert play.next_poll == 0.5
    play.move(0.5)
    assert waits(play, good(), 2) == [0.5, 0.6]


def test_activity_never_puts_a_poll_off():
    play = Play().start()
    play.poll(good())
    play.move(0.4)
    play.ask("sendMessage", {"message": "hi"})
    assert play.next_poll == pytest.approx(0.1)


def test_activity_while_a_poll_is_out_quickens_the_one_after():
    play = Play().start()
    waits(play, good(), 15)
    poll = play.due()
    play.ask("sendMessage", {"message": "hi"})
    play.answer(poll, good())
    assert play.next_poll == 0.5


@pytest.mark.parametrize(
    ("jitter", "draw", "wait"), [(0, 0.9, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0.375), (1, 0.999, 0.0005)]
)
def test_jitter_takes_off_its_share_of_a_draw(jitter, draw, wait):
    play = Play(client={"pollJitter": jitter}).start()
    play.draw = draw
    play.poll(good())
    assert play.next_poll == pytest.approx(wait)


def test_jitter_does_not_shorten_what_the_server_asked_for():
    play = Play(client={"pollJitter": 1}).start()
    play.draw = 0.99
    play.poll(bad(Verdict.THROTTLED, 429, retry_after=10.0))
    assert play.next_poll == 10


@pytest.mark.parametrize(
    ("asked", "wait"), [(None, 0.5), (0.0, 0.5), (0.1, 0.5), (7.0, 7), (300.0, 300), (301.0, 300), (1e12, 300)]
)
@pytest.mark.parametrize("verdict", [Verdict.THROTTLED, Verdict.BAD])
def test_what_a_server_asks_for_is_obeyed_up_to_the_cap_and_never_shortens(verdict, asked, wait):
    play = Play().start()
    play.poll(bad(verdict, 503, retry_after=asked))
    assert play.next_poll == wait


def test_the_cap_is_configured():
    play = Play(client={"retry": {"retryAfterCap": 5000}}).start()
    play.poll(bad(Verdict.THROTTLED, 429, retry_after=60.0))
    assert play.next_poll == 5


def test_polling_that_starts_again_is_quick_again():
    play = Play().start()
    waits(play, good(), 15)
    play.ask("stopPoll")
    assert play.next_poll is None
    play.ask("startPoll")
    assert play.next_poll == 0
    assert waits(play, good(), 2) == [0.5, 0.6]


def test_a_restore_polls_at_once():
    play = Play()
    play.answer(play.open(SAVED), good())
    assert play.next_poll == 0


def test_the_pace_is_read_off_the_configuration():
    assert Pace.of(Config.read({"dataURL": "http://x.test/"})) == Pace(0.5, 3.0, 1.2)
