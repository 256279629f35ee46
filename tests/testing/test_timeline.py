"""Test that time moves only when a test moves it, on each kind of clock."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import freezegun
import pytest
import time_machine

from tests.limits import LONG
from webchat_fsm import ManualDriver, MemoryStore, WaitTimeout, WebChatError, WebChatService
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline
from webchat_fsm.testing import _timeline as clocks

KINDS = ["freezegun", "time-machine", "injected"]


def run_long_chat(kind: str, transport: Transport) -> list:
    """Run a chat with many timers; return its events with their times and its pending timers."""
    trace: list = []
    with Timeline.frozen(kind) as timeline:
        server = TestServer(timeline)
        store = MemoryStore()
        chat = server.client(transport, store=store)
        for name in EVENTS:
            chat.subscribe(name, lambda event: trace.append((timeline.now(), event.name, event.time)))
        chat.open()
        chat.start_chat(nickname="Jonny")
        server.draw_faults(7, 12, transport=transport)
        ann = server.agent("Ann").join()
        for step in (0.1, 0.25, 1 / 3, 2.0, 7.77, 30.0):
            ann.say("again")
            chat.command("sendTyping", {"message": "h"})
            trace.append(timeline.pending())
            timeline.advance(step)
        chat.close()
        timeline.advance(61)
        later = server.client(transport, store=store)
        later.open()
        trace.append((timeline.now(), later.state))
        server.close()
    return trace


@pytest.mark.parametrize("transport", Transport)
def test_all_clocks_give_the_same_trace(transport):
    traces = [run_long_chat(kind, transport) for kind in KINDS]
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_clock_stops_at_the_first_microsecond_of_a_timer(kind):
    draw = random.Random(1)
    with clocks.frozen_source(kind) as source:
        clock = clocks.KitClock(source)
        for _ in range(500):
            moment = clock.timer() + draw.random() * 3
            clock.sleep_until(moment)
            assert moment <= clock.timer() < moment + 2e-6


@pytest.mark.parametrize("kind", ["freezegun", "time-machine"])
def test_handler_reads_the_due_time_of_its_timer(kind):
    seen = []
    with Timeline.frozen(kind) as timeline:
        server = TestServer(timeline)
        chat = server.client()
        chat.open()
        chat.subscribe("messageReceived", lambda event: seen.append((time.time(), datetime.now(UTC).timestamp())))
        chat.start_chat(nickname="Jonny")
        timeline.advance(0.3)
        server.agent("Ann").join()
        timeline.advance(100)
        server.close()
    begun = clocks.BEGIN
    assert seen == [(begun, begun), (begun + 0.5, begun + 0.5)]


def test_timers_of_all_services_run_in_order(webchat_timeline, webchat_server):
    rates = (700, 500, 600)
    for rate in rates:
        chat = webchat_server.client(config={"dynamicPolling": False, "pollRate": rate})
        chat.open()
        chat.start_chat(nickname="Jonny")
    begun = webchat_timeline.now()
    webchat_timeline.advance(1.4)
    rate_of = {chat.chat_id: rate for chat, rate in zip(webchat_server.core.chats, rates, strict=True)}
    polls = [logged for logged in webchat_server.core.requests if logged.operation == "refresh" and logged.time > begun]
    order = [(round((logged.time - begun) * 1000), rate_of[logged.path.split("/")[-2]]) for logged in polls]
    assert order == [(500, 500), (600, 600), (700, 700), (1000, 500), (1200, 600), (1400, 700)]


def test_timeline_moves_a_freeze_of_the_test(webchat_timeline, webchat_server):
    with freezegun.freeze_time("2026-05-05") as frozen:
        chat = webchat_server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        webchat_timeline.advance(90)
        assert frozen() == datetime(2026, 5, 5, 0, 1, 30)
        assert chat.health().last_poll == pytest.approx(0, abs=3)


@freezegun.freeze_time("2026-05-05")
def test_timeline_moves_a_freeze_by_decorator(webchat_timeline):
    webchat_timeline.advance(90)
    assert datetime.now(UTC) == datetime(2026, 5, 5, 0, 1, 30, tzinfo=UTC)


def test_timeline_moves_a_time_machine_travel(webchat_timeline):
    with time_machine.travel(datetime(2026, 5, 5, tzinfo=UTC), tick=False):
        webchat_timeline.advance(90)
        assert datetime.now(UTC) == datetime(2026, 5, 5, 0, 1, 30, tzinfo=UTC)


def test_timers_are_due_after_the_test_moves_its_freeze(webchat_timeline, webchat_server):
    with freezegun.freeze_time("2026-05-05") as frozen:
        chat = webchat_server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        webchat_timeline.advance(0)
        frozen.tick(10)
        polls = len(webchat_server.core.requests)
        webchat_timeline.advance(0)
        assert len(webchat_server.core.requests) == polls + 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_thread_reads_the_time_of_the_timeline(kind):
    with Timeline.frozen(kind) as timeline:
        server = TestServer(timeline)
        chat = server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        timeline.advance(5)
        now, due = timeline.now(), timeline.next_timer()
        results = []
        reader = threading.Thread(target=lambda: results.append((timeline.now(), timeline.next_timer())))
        reader.start()
        reader.join()
        assert results == [(now, due)]
        assert (timeline.now(), timeline.next_timer()) == (now, due)
        server.close()


def test_clock_read_during_a_move_never_goes_back():
    class Slow(clocks.Injected):
        """Block one read until the clock has been moved."""

        def now(self):
            shown = super().now()
            if threading.current_thread() is reader:
                reading.set()
                moved.wait(0.2)
            return shown

    reader, reading, moved = None, threading.Event(), threading.Event()
    clock = clocks.KitClock(Slow())
    reader = threading.Thread(target=clock.wall)
    begun = clock.timer()
    reader.start()
    reading.wait(LONG)
    clock.sleep_until(begun + 60)
    clock.wall()
    moved.set()
    reader.join()
    assert clock.timer() == begun + 60


@pytest.mark.parametrize("options", [{"auto_tick_seconds": 1}, {"tick": True}])
def test_timeline_moves_a_ticking_freeze(options):
    with freezegun.freeze_time("2026-05-05", **options), Timeline.frozen("freezegun") as timeline:
        server = TestServer(timeline)
        chat = server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        begun = timeline.now()
        timeline.advance(30)
        assert begun + 30 <= timeline.now() < begun + 60
        server.close()


def test_advance_accepts_a_timedelta(webchat_timeline):
    begun = webchat_timeline.now()
    webchat_timeline.advance(timedelta(minutes=1, milliseconds=500))
    assert webchat_timeline.now() == begun + 60.5


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_advance_rejects_an_infinite_span(webchat_timeline, seconds):
    with pytest.raises(ValueError, match="expected a number of seconds"):
        webchat_timeline.advance(seconds)


def test_advance_to_rejects_a_datetime_without_zone(webchat_timeline):
    moment = datetime.fromtimestamp(webchat_timeline.now() + 60, UTC)
    with pytest.raises(ValueError, match="expected a datetime with its zone"):
        webchat_timeline.advance_to(moment.replace(tzinfo=None))
    webchat_timeline.advance_to(moment)
    assert webchat_timeline.now() == moment.timestamp()


def test_advance_rejects_a_negative_span(webchat_timeline):
    with pytest.raises(ValueError, match="forward only"):
        webchat_timeline.advance(-1)
    with pytest.raises(ValueError, match="forward only"):
        webchat_timeline.advance_to(webchat_timeline.now() - 1)


@pytest.mark.parametrize("seconds", [-3600, -0.5, 3600])
def test_clock_jump_moves_no_timer(webchat_timeline, webchat_server, seconds):
    chat = webchat_server.client()
    chat.open()
    chat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    before, left = webchat_timeline.now(), webchat_timeline.next_timer() - webchat_timeline.now()
    webchat_timeline.clock_jump(seconds)
    assert webchat_timeline.now() == pytest.approx(before + seconds)
    assert webchat_timeline.next_timer() - webchat_timeline.now() == pytest.approx(left)
    polls = len(webchat_server.core.requests)
    webchat_timeline.advance(left + 1e-6)
    assert len(webchat_server.core.requests) == polls + 1


def test_freeze_moved_back_by_the_test_is_a_clock_jump(webchat_timeline, webchat_server):
    with freezegun.freeze_time("2026-05-05") as frozen:
        chat = webchat_server.client()
        chat.open()
        chat.start_chat(nickname="Jonny")
        webchat_timeline.advance(0)
        frozen.move_to("2026-05-04")
        polls = len(webchat_server.core.requests)
        webchat_timeline.advance(0.5)
        assert len(webchat_server.core.requests) == polls + 1


def test_pending_lists_timers_by_name_and_due_time(webchat, webchat_timeline, webchat_server):
    assert webchat_timeline.pending() == []
    assert webchat_timeline.next_timer() is None
    webchat.start_chat(nickname="Jonny")
    webchat_timeline.advance(0)
    now = webchat_timeline.now()
    webchat.send_typing("h")
    assert webchat_timeline.pending() == [(now + 0.5, "poll"), (now + 2, "typing countdown")]
    assert webchat_timeline.next_timer() == now + 0.5


def test_poll_interval_grows_when_idle_and_shrinks_on_send(webchat, webchat_timeline):
    webchat.start_chat(nickname="Jonny")
    moments = []
    for _ in range(4):
        moments.append(webchat_timeline.next_timer())
        webchat_timeline.advance(moments[-1] - webchat_timeline.now())
    gaps = [round(after - before, 3) for before, after in pairwise(moments)]
    assert gaps == [0.5, 0.6, 0.72]
    webchat_timeline.advance(20)
    webchat.send_message("hello")
    assert webchat_timeline.next_timer() <= webchat_timeline.now() + 0.5


def test_pending_lists_the_deadline_of_a_request(webchat_timeline, webchat_server):
    waiting, other = webchat_server.client(), webchat_server.client()
    for chat in (waiting, other):
        chat.open()
        chat.start_chat(nickname="Jonny")
    webchat_server.faults.add(operation="updateData", delay=9.0)
    listed = []
    other.subscribe("messageReceived", lambda event: listed.extend(webchat_timeline.pending()))
    begun = webchat_timeline.now()
    waiting.command("updateUserData", {"page": "/"})
    assert (begun + 3, "deadline of updateData") in listed
    assert webchat_timeline.now() == begun + 3
    assert "deadline of updateData" not in [one.name for one in webchat_timeline.pending()]


def test_close_cuts_a_request_in_flight(webchat_timeline, webchat_server):
    chat = webchat_server.client()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.subscribe("clientConnected", lambda event: chat.close())
    webchat_server.faults.add(operation="updateData", delay=2.0)
    outcome = chat.command("updateUserData", {"page": "/"})
    assert outcome.reason["errors"][0]["text"] == "updateData: cut, as the service was closed"


def test_run_until_raises_at_its_limit(webchat, webchat_timeline):
    begun = webchat_timeline.now()
    with pytest.raises(WaitTimeout):
        webchat_timeline.run_until(webchat, "started", limit=30)
    assert webchat_timeline.now() == begun + 30


def test_unknown_event_is_rejected_with_the_nearest_name(webchat, webchat_timeline):
    with pytest.raises(ValueError, match="there is no event 'mesageReceived'; did you mean 'messageReceived'"):
        webchat_timeline.run_until(webchat, "mesageReceived")


def test_expect_fails_without_the_event(webchat, webchat_timeline):
    missed = pytest.raises(AssertionError, match="ended was expected and not published; the state is idle")
    with missed, webchat_timeline.expect(webchat, "ended"):
        webchat.get_stats()


def test_timeline_after_the_freeze_cannot_move():
    source = clocks.Frozen()
    with pytest.raises(WebChatError, match="not frozen any more"):
        source.shift(1)


def test_unknown_clock_is_rejected():
    with pytest.raises(ValueError, match="there is no clock 'sundial'"), clocks.frozen_source("sundial"):
        pass


def test_code_under_test_may_make_its_own_service(webchat_timeline, webchat_server):
    chat = WebChatService(webchat_server.config(), http=webchat_server.http(), driver=webchat_timeline.driver)
    with chat:
        chat.start_chat(nickname="Jonny")
        webchat_server.agent("Ann").join()
        assert chat.wait_for("agentConnected", LONG).data.num_agents_connected == 1


def test_manual_driver_follows_the_clock_of_the_timeline(webchat_timeline, webchat_server):
    driver = ManualDriver(webchat_timeline.clock)
    chat = WebChatService(webchat_server.config(), http=webchat_server.http(), driver=driver)
    with chat:
        chat.start_chat(nickname="Jonny")
        driver.wait(5)
        assert chat.health().last_poll < 3


@pytest.mark.parametrize(
    "freeze", [freezegun.freeze_time("2026-05-05"), time_machine.travel("2026-05-05T00:00Z", tick=False)]
)
def test_manual_driver_moves_the_frozen_time(webchat_server, freeze):
    with freeze:
        begun = time.time()
        chat = WebChatService(webchat_server.config(), http=webchat_server.http(), driver=ManualDriver())
        with chat:
            chat.start_chat(nickname="Jonny")
            chat.wait_for("clientConnected", LONG)
            with pytest.raises(WaitTimeout):
                chat.wait_for("agentConnected", 30)
        assert begun + 30 <= time.time() < begun + 30.001
