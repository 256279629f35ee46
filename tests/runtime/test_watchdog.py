"""Test that a stalled poll is detected, reported and repeated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.limits import LONG
from webchat_fsm import ManualDriver, ThreadDriver, WebChatService
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import ChatServer
from webchat_fsm.testing import EmbeddedHttp, TestServer, Timeline
from webchat_fsm.testing._bench import CONFIGS


class Offset:
    """Read the real clock plus an offset that the test sets."""

    def __init__(self, clock):
        self._clock, self.ahead = clock, 0.0

    def timer(self):
        return self._clock.timer() + self.ahead

    def wall(self):
        return self._clock.wall() + self.ahead

    def __getattr__(self, name):
        return getattr(self._clock, name)


class BlockingHttp:
    """Block the next polls of an `http=`, as many as the test sets."""

    def __init__(self, inner):
        self._inner = inner
        self.lose = self.hang = 0
        self.polls = 0
        self.free = threading.Event()
        self.hanging = threading.Event()

    def send(self, request):
        if request.operation in ("refresh", "connect"):
            self.polls += 1
            if self.hang:
                self.hang -= 1
                self.hanging.set()
                self.free.wait(LONG)
        return self._inner.send(request)

    def cut(self):
        self.free.set()
        self._inner.cut()

    def close(self):
        self._inner.close()


@contextmanager
def running_chat(
    transport: Transport = Transport.V2,
) -> Iterator[tuple[WebChatService, BlockingHttp, ThreadDriver, ChatServer]]:
    """Run a chat on threads of its own, with a clock that the test can move."""
    driver = ThreadDriver()
    driver.clock = Offset(driver.clock)
    server = ChatServer()
    http = BlockingHttp(EmbeddedHttp(server, driver.clock))
    config = {**CONFIGS[transport], "pollRateMin": 100, "pollRateMax": 100, "pollRate": 100}
    chat = WebChatService(config, http=http, driver=driver)
    try:
        with chat:
            chat.start_chat(nickname="Jonny")
            yield chat, http, driver, server
    finally:
        http.free.set()
        driver.close()


def test_stalled_poll_is_repeated_and_its_late_answer_read(eventually):
    with running_chat() as (chat, http, driver, server):
        agent = server.agent("Ann").join()
        http.hang = 1
        assert http.hanging.wait(LONG)
        assert chat.health().stalled is None
        driver.clock.ahead = 600.0
        assert chat.health().stalled > 500
        polls = http.polls
        driver.check_stalled()
        eventually(lambda: http.polls > polls)
        assert chat.health().stalled is None
        agent.say("while it hung")
        eventually(lambda: "while it hung" in texts(chat))
        http.free.set()
        agent.say("afterwards")
        eventually(lambda: "afterwards" in texts(chat))
        assert texts(chat) == ["while it hung", "afterwards"]
        assert chat.state == "polling"


def test_poll_is_repeated_after_its_worker_is_lost(eventually, monkeypatch):
    with running_chat() as (chat, http, driver, _server):
        engine, lost = chat._engine, threading.Event()
        begin_timer = engine._begin_timer

        def lose(_, timer):
            if not lost.is_set():
                lost.set()
                raise SystemExit("the worker is lost")
            return begin_timer(timer)

        monkeypatch.setattr(type(engine), "_begin_timer", lose)
        assert lost.wait(LONG)
        eventually(lambda: not engine.timers())
        driver.clock.ahead = 600.0
        assert chat.health().stalled > 500
        polls = http.polls
        driver.check_stalled()
        eventually(lambda: http.polls > polls + 1)
        assert chat.health().stalled is None


def texts(chat):
    return [message.text for message in chat.get_transcript().messages if message.type == "Message"]


def test_time_keeper_checks_for_stalls(eventually):
    with running_chat() as (_chat, http, driver, _):
        http.hang = 1
        assert http.hanging.wait(LONG)
        polls = http.polls
        driver.clock.ahead = 600.0
        driver._look_at = 0.0
        driver._parked.wake()
        eventually(lambda: http.polls > polls)


def test_stall_check_does_not_change_a_healthy_chat():
    with running_chat() as (chat, _http, driver, _):
        for _ in range(100):
            driver.check_stalled()
        assert len(driver._heap) <= 2
        assert chat.health().stalled is None


@pytest.mark.parametrize("transport", Transport)
def test_no_chat_stalls_in_virtual_time(transport):
    timeline = Timeline()
    server = TestServer(timeline)
    chat = server.client(transport)
    chat.open()
    chat.start_chat(nickname="Jonny")
    for _ in range(40):
        timeline.advance(7.3)
        assert chat.health().stalled is None
    chat.stop_poll() if transport.polls else None
    timeline.advance(1000)
    assert chat.health().stalled is None
    chat.close()


def test_poll_is_overdue_after_deadline_and_pause_only():
    timeline = Timeline()
    server = TestServer(timeline)
    chat = server.client(config={"ajaxTimeout": 2000, "client": {"retry": {"retryAfterCap": 300_000}}})
    chat.open()
    chat.start_chat(nickname="Jonny")
    server.faults.add(operation="refresh", http_status=429, retry_after=250)
    timeline.advance(200)  # the pause that the server asked for is a timer that is pending
    assert chat.health().stalled is None
    timeline.advance(60)
    chat._engine.take_due(timeline.clock.timer() + 5)  # the job is discarded
    timeline.advance(5 + 2 + 3 + 4)  # the time of the job, the deadline, the longest pause, and less than the slack
    assert chat.health().stalled is None
    timeline.advance(2)
    assert chat.health().stalled is not None
    chat.close()


def test_health_reports_a_stall_on_a_manual_driver():
    timeline = Timeline()
    chat = TestServer(timeline).client()
    assert isinstance(timeline.driver, ManualDriver)
    chat.open()
    chat.start_chat(nickname="Jonny")
    timeline.advance(1)
    chat._engine.take_due(timeline.clock.timer() + 100)  # the jobs are discarded
    timeline.advance(1000)
    assert chat.health().stalled > 600
    assert chat.step()
    assert chat.health().stalled is None
    chat.close()
