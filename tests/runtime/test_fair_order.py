"""Sessions on one driver are polled in fair order, also beside slow servers of others: counted, as no time is."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.limits import LONG, SOON, eventually
from webchat_fsm import ThreadDriver


@pytest.mark.parametrize(
    ("half", "seconds", "pause"),
    [(20, 0.3, 100), pytest.param(1000, 3.0, 1000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_half_on_a_slow_server_leaves_the_order_fair(half, seconds, pause, late_wire, wire, service, monkeypatch):
    """One worker makes all polls, so that their order is that of the queue, on a machine that stalls too."""
    monkeypatch.setattr("webchat_fsm._runtime.job_queue.LONG_JOB", LONG)
    monkeypatch.setattr(late_wire, "seconds", seconds)
    driver, polled, late, chats = ThreadDriver(workers=1), [], [], []
    over = threading.Event()

    def poll(log: list[int], number: int) -> None:
        """Answer once a fourth of all sessions is due, so that the queue decides who is next."""
        log.append(number)
        eventually(lambda: over.is_set() or log is late or len(driver._queue.jobs) >= half // 2)

    config = {"pollRate": pause, "pollRateMin": pause, "pollRateMax": pause, "dynamicPolling": False}
    for number in range(half):
        for kind, log in ((wire, polled), (late_wire, late)):
            transport = kind(refresh=lambda request, log=log, number=number: poll(log, number))
            chats.append(service(transport, driver=driver, config=config))
            chats[-1].open()
            chats[-1].start_chat(nickname="Jonny")
    begin, counts = len(polled), Counter()

    def all_polled(times: int) -> bool:
        counts.clear()
        counts.update(polled[begin:])
        return len(counts) == half and min(counts.values()) >= times

    try:
        for times in range(1, 5):
            eventually(lambda times=times: all_polled(times))
            assert max(counts.values()) - min(counts.values()) <= 2
        eventually(lambda: len(set(late)) == half)
        assert len(driver.threads) == 2
    finally:
        over.set()
    for chat in chats:
        assert chat.close(SOON)
    assert driver.close(SOON)
