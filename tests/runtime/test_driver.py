"""Who runs the timers: in moved time, and on threads of one driver that serves many services."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from webchat_fsm import ManualClock, ManualDriver, ThreadDriver, WaitTimeout, WebChatError


class Ticking:
    """A service with timers at given moments; each job notes its moment."""

    def __init__(self, *moments: float, job=None) -> None:
        self.moments, self.ran, self.job = list(moments), [], job
        self.lock = threading.Lock()

    def next_due(self):
        with self.lock:
            return min(self.moments, default=None)

    def take_due(self, now):
        with self.lock:
            due = sorted(moment for moment in self.moments if moment <= now)
            self.moments = [moment for moment in self.moments if moment > now]
        return [partial(self._run, moment) for moment in due]

    def _run(self, moment):
        self.ran.append(moment)
        if self.job is not None:
            self.job()


@pytest.fixture
def driver():
    made = ThreadDriver(idle=0.05)
    yield made
    assert made.close()


def in_a_moment(seconds: float = 0.0) -> float:
    return time.monotonic() + seconds


# -- moved time --------------------------------------------------------------------------------------------------------


def test_timers_of_all_services_run_in_order_each_at_its_own_moment():
    driver = ManualDriver(ManualClock(0.0))
    seen: list[tuple[str, float]] = []
    for name, moments in (("a", (1.0, 4.0)), ("b", (3.0, 2.0))):
        driver.attach(Ticking(*moments, job=lambda name=name: seen.append((name, driver.clock.timer()))))
    driver.wait(3.5)
    assert seen == [("a", 1.0), ("b", 2.0), ("b", 3.0)]
    assert driver.clock.timer() == 3.5
    assert driver.run_due() == 4.0
    driver.wait(1.0)
    assert driver.run_due() is None


def test_run_due_runs_what_is_overdue_and_gives_the_next_moment():
    driver = ManualDriver(ManualClock(10.0))
    service = Ticking(8.0, 9.0, 10.0, 11.0)
    driver.attach(service)
    assert driver.run_due() == 11.0
    assert service.ran == [8.0, 9.0, 10.0]


def test_a_detached_service_is_left_alone_in_moved_time():
    driver = ManualDriver(ManualClock(0.0))
    service = Ticking(1.0)
    driver.attach(service)
    assert driver.detach(service, 0.0)
    driver.wait(5.0)
    assert service.ran == []


def test_the_clock_of_a_manual_driver_only_moves_forwards():
    clock = ManualClock(100.0)
    clock.sleep_until(50.0)
    assert clock.timer() == clock.wall() == 100.0


def test_a_manual_driver_never_starts_a_thread(by_hand, wire, service):
    before = threading.active_count()
    with service(wire(), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        by_hand.wait(60.0)
        assert threading.active_count() == before
        assert chat.health().threads == ()


@pytest.mark.parametrize("library", ["freezegun", "time_machine"])
def test_frozen_time_moves_the_timers_of_a_manual_driver(library, wire, service):
    driver, transport = ManualDriver(), wire()
    freezing = pytest.importorskip(library)
    frozen = (
        freezing.freeze_time("2026-03-01 12:00:00")
        if library == "freezegun"
        else freezing.travel("2026-03-01 12:00:00+00:00", tick=False)
    )
    with frozen as moved, service(transport, driver=driver) as chat:
        chat.start_chat(nickname="Jonny")
        driver.run_due()
        assert transport.count("refresh") == 1
        (moved.tick if library == "freezegun" else moved.shift)(0.2)
        driver.run_due()
        assert transport.count("refresh") == 2


WITHOUT_THE_KIT = """
import sys, time
import freezegun, time_machine
from webchat_fsm import ManualDriver, WaitTimeout, WebChatService

freezes = {"freezegun": freezegun.freeze_time, "time_machine": lambda moment: time_machine.travel(moment, tick=False)}
with freezes[sys.argv[1]]("2026-03-01T12:00Z"):
    begun = time.time()
    with WebChatService({"dataURL": "http://127.0.0.1:9/x"}, driver=ManualDriver()) as chat:
        try:
            chat.wait_for("agentConnected", 60)
        except WaitTimeout:
            print("webchat_fsm.testing" in sys.modules, time.time() - begun)
"""


@pytest.mark.parametrize("library", ["freezegun", "time_machine"])
def test_frozen_time_is_moved_without_the_testing_kit(library):
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_KIT, library], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "False 60.0\n"


class Restless(ManualClock):
    """A clock that moves on with every look at it."""

    def timer(self) -> float:
        self.now += 1.0
        return self.now


def test_what_falls_due_while_timers_run_is_left_for_the_next_time():
    driver = ManualDriver(Restless())
    endless = Ticking(driver.clock.now)
    endless.job = lambda: endless.moments.append(driver.clock.now + 0.5)
    driver.attach(endless)
    assert driver.run_due() == endless.next_due()
    assert len(endless.ran) == 1


def test_threads_wait_for_real_while_the_wall_clock_is_frozen(wire, service, said):
    freezing = pytest.importorskip("freezegun")
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [said(transport.count("refresh"), "hi")]}
    with freezing.freeze_time("2026-03-01"), service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        assert [chat.wait_for("messageReceived", 30).time for _ in range(3)] == [time.time()] * 3
        with pytest.raises(WaitTimeout):
            chat.wait_for("agentConnected", 0.05)


def test_step_polls_once_by_hand_and_only_there(by_hand, wire, service, no_answer):
    transport = wire()
    with service(transport, driver=by_hand) as chat:
        with pytest.raises(WebChatError, match="No active chat session"):
            chat.step()
        chat.start_chat(nickname="Jonny")
        assert chat.step()
        transport.operations["refresh"] = no_answer
        assert not chat.step()
        assert transport.count("refresh") == 2
    with service() as threaded, pytest.raises(WebChatError, match="ManualDriver"):
        threaded.step()


# -- threads -----------------------------------------------------------------------------------------------------------


def test_timers_run_on_threads_at_their_moments_and_in_their_order(driver, eventually):
    service = Ticking(in_a_moment(0.06), in_a_moment(0.02), in_a_moment(0.04))
    moments = sorted(service.moments)
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: len(service.ran) == 3)
    assert service.ran == moments
    assert time.monotonic() >= moments[-1]


def test_a_sooner_timer_wakes_the_time_keeper(driver, eventually):
    service = Ticking(in_a_moment(60.0))
    driver.attach(service)
    driver.wake(service)
    with service.lock:
        service.moments.append(in_a_moment())
    driver.wake(service)
    eventually(lambda: service.ran)


def test_no_wake_up_is_lost_however_many_threads_ask(driver, in_threads, eventually):
    services = [Ticking() for _ in range(50)]
    for service in services:
        driver.attach(service)

    def schedule():
        for _ in range(40):
            for service in services:
                with service.lock:
                    service.moments.append(in_a_moment())
                driver.wake(service)

    in_threads(*[schedule] * 4, join=True)
    eventually(lambda: all(len(service.ran) == 160 for service in services))


def test_workers_retire_when_idle_and_are_hired_again(driver, eventually):
    service = Ticking()
    driver.attach(service)
    for round_ in range(1, 4):
        with service.lock:
            service.moments.append(in_a_moment())
        driver.wake(service)
        eventually(lambda round_=round_: len(service.ran) == round_)
        eventually(lambda: [thread.name for thread in driver.threads] == ["webchat-fsm-time"])


def test_a_job_that_comes_as_its_worker_retires_is_not_lost(eventually):
    driver = ThreadDriver(idle=0.001)
    service = Ticking()
    driver.attach(service)
    for number in range(300):
        with service.lock:
            service.moments.append(in_a_moment())
        driver.wake(service)
        eventually(lambda number=number: len(service.ran) == number + 1)
    assert driver.close()


def test_workers_are_limited_and_a_full_house_makes_the_others_wait(eventually, monkeypatch):
    monkeypatch.setattr("webchat_fsm.runtime.driver.LONG", 60.0)
    driver, gate = ThreadDriver(workers=3), threading.Event()
    blocked = [Ticking(in_a_moment(), job=lambda: gate.wait(5.0)) for _ in range(6)]
    for service in blocked:
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: sum(len(service.ran) for service in blocked) == 3)
    assert len(driver.threads) == 4
    gate.set()
    eventually(lambda: sum(len(service.ran) for service in blocked) == 6)
    assert driver.close()


def test_however_many_requests_are_held_by_their_servers_other_timers_run(eventually):
    driver, gate = ThreadDriver(workers=2), threading.Event()
    held = [Ticking(in_a_moment(), job=lambda: gate.wait(30.0)) for _ in range(6)]
    for service in held:
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: all(service.ran for service in held))
    other = Ticking(in_a_moment())
    driver.attach(other)
    driver.wake(other)
    eventually(lambda: other.ran)
    gate.set()
    assert driver.close()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_worker_survives_whatever_a_job_raises(driver, eventually, error, caplog):
    def fail():
        raise error("broken")

    failing, fine = Ticking(in_a_moment(), job=fail), Ticking(in_a_moment(0.05))
    for service in (failing, fine):
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: failing.ran and fine.ran)
    assert driver.detach(failing, 1.0)
    assert "a timer's job failed" in caplog.text


@pytest.mark.parametrize(
    ("reason", "logged"),
    [("can't start new thread", True), ("can't create new thread at interpreter shutdown", False)],
)
def test_jobs_wait_where_no_thread_can_be_started_and_run_once_one_can(
    driver, eventually, monkeypatch, caplog, reason, logged
):
    service, start = Ticking(), threading.Thread.start
    driver.attach(service)
    refused = []

    def refuse(thread):
        if thread.name == "webchat-fsm-worker" and not refused:
            refused.append(thread)
            raise RuntimeError(reason)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with service.lock:
        service.moments.append(in_a_moment())
    driver.wake(service)
    eventually(lambda: service.ran)
    assert refused
    assert ("no further thread can be started" in caplog.text) is logged


def test_detaching_waits_for_the_job_that_runs_and_drops_those_that_wait(eventually):
    driver, gate = ThreadDriver(workers=1), threading.Event()
    service = Ticking(in_a_moment(), in_a_moment() + 0.001, job=lambda: gate.wait(5.0))
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: service.ran)
    assert not driver.detach(service, 0.05)
    gate.set()
    assert driver.detach(service, 2.0)
    assert len(service.ran) == 1
    assert driver.close()


@pytest.fixture
def asked(eventually):
    """A service whose timers the time keeper is just taking, and the gate that lets it go on."""
    taking, gate = threading.Event(), threading.Event()

    class Asked(Ticking):
        def take_due(self, now):
            jobs = super().take_due(now)
            taking.set()
            gate.wait(5.0)
            return jobs

    def ask(driver):
        service = Asked(in_a_moment())
        driver.attach(service)
        driver.wake(service)
        eventually(taking.is_set)
        return service

    yield ask, gate
    gate.set()


def test_what_the_time_keeper_has_just_taken_is_not_run_after_detaching(driver, asked, eventually, in_threads):
    ask, gate = asked
    service = ask(driver)
    assert not driver.detach(service, 0.05)
    gate.set()
    assert driver.detach(service, 2.0)
    eventually(lambda: [thread.name for thread in driver.threads] == ["webchat-fsm-time"])
    assert service.ran == []


def test_what_the_time_keeper_has_just_taken_hires_nobody_after_close(asked):
    driver = ThreadDriver()
    ask, gate = asked
    service = ask(driver)
    assert not driver.close(0.05)
    gate.set()
    assert driver.close()
    assert driver.detach(service, 0.0)
    assert service.ran == []


def test_a_job_that_detaches_its_own_service_does_not_wait_for_itself(driver, eventually, stopwatch):
    said: list[bool] = []
    service = Ticking(in_a_moment(), job=lambda: said.append(driver.detach(service, 5.0)))
    driver.attach(service)
    driver.wake(service)
    stopwatch.restart()
    eventually(lambda: said == [False])
    assert stopwatch.soon
    assert driver.detach(service, 2.0)


def test_a_job_that_detaches_another_service_waits_for_that_ones_job(driver, eventually):
    gate, said = threading.Event(), []
    other = Ticking(in_a_moment(), job=lambda: gate.wait(5.0))
    driver.attach(other)
    driver.wake(other)
    eventually(lambda: other.ran)
    one = Ticking(in_a_moment(), job=lambda: said.append(driver.detach(other, 5.0)))
    driver.attach(one)
    driver.wake(one)
    eventually(lambda: one.ran)
    gate.set()
    eventually(lambda: said == [True])


def test_a_closed_driver_serves_again_when_something_is_attached(driver, eventually):
    for _ in range(3):
        service = Ticking(in_a_moment())
        driver.attach(service)
        driver.wake(service)
        eventually(lambda service=service: service.ran)
        assert driver.close()
        assert driver.threads == []


def test_a_closed_driver_that_serves_again_goes_on_for_those_that_were_there_before(driver, eventually):
    before, detached = (Ticking(in_a_moment(0.2)) for _ in range(2))
    for service in (before, detached):
        driver.attach(service)
        driver.wake(service)
    assert driver.close()
    assert driver.detach(detached, 1.0)
    driver.attach(Ticking())
    eventually(lambda: before.ran)
    assert detached.ran == []


def test_a_chat_polls_on_when_another_opens_on_the_driver_that_was_closed_under_it(wire, service, eventually):
    driver, transport = ThreadDriver(), wire()
    chat, other = service(transport, driver=driver), service(wire(), driver=driver)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert driver.close()
    other.open()
    polls = transport.count("refresh")
    eventually(lambda: transport.count("refresh") > polls + 2)
    assert chat.close()
    assert other.close()
    assert driver.close()


@pytest.mark.soak
def test_a_thousand_services_share_one_driver(wire, service, eventually, monkeypatch):
    monkeypatch.setattr("webchat_fsm.runtime.driver.LONG", 60.0)
    driver, transport = ThreadDriver(workers=8), wire()
    slow = {"pollRate": 1000, "pollRateMin": 1000, "pollRateMax": 1000}
    chats = [service(transport, driver=driver, config=slow) for _ in range(1000)]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    eventually(lambda: transport.count("refresh") >= 2000)
    assert len(driver.threads) <= 9
    assert all(chat.health().failures == 0 for chat in chats)
    assert [chat.close() for chat in chats] == [True] * 1000
    assert driver.close()


def test_one_closed_service_leaves_the_others_on_the_driver_polling(wire, service, eventually):
    driver = ThreadDriver()
    transports = [wire(), wire()]
    gone, stays = chats = [service(transport, driver=driver) for transport in transports]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    assert gone.close()
    polls = [transport.count("refresh") for transport in transports]
    eventually(lambda: transports[1].count("refresh") >= polls[1] + 3)
    assert transports[0].count("refresh") == polls[0]
    assert stays.close()
    assert driver.close()


def test_a_jump_of_the_wall_clock_does_not_disturb_threads(wire, service, eventually, monkeypatch):
    transport, real = wire(), time.time
    with service(transport, config={"pollRate": 100, "pollRateMin": 100, "pollRateMax": 100}) as chat:
        chat.start_chat(nickname="Jonny")
        for jump in (86_400.0, -86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            before = transport.count("refresh")
            eventually(lambda before=before: transport.count("refresh") >= before + 3)
            assert transport.count("refresh") < before + 20
            assert chat.health().last_poll >= 0
        assert chat.state == "polling"


def test_a_jump_of_the_wall_clock_keeps_nobody_waiting_on_a_manual_driver(wire, service, monkeypatch, stopwatch):
    real = time.time
    with service(wire(), driver=ManualDriver()) as chat:
        chat.start_chat(nickname="Jonny")
        for jump in (-3600.0, 3600.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            with pytest.raises(WaitTimeout):
                chat.wait_for("agentConnected", 0.05)
    assert stopwatch.soon


def test_a_time_keeper_that_is_about_to_end_is_not_counted_on(driver, eventually, monkeypatch):
    """It has left its loop, but its thread is still alive, when the next service is attached."""
    keep_time, left, gate = driver._keep_time, threading.Event(), threading.Event()

    def slow_to_end():
        keep_time()
        left.set()
        gate.wait(5.0)

    monkeypatch.setattr(driver, "_keep_time", slow_to_end)
    driver.attach(Ticking())
    driver.close(0.0)
    assert left.wait(5.0)
    service = Ticking(in_a_moment())
    driver.attach(service)
    driver.wake(service)
    try:
        eventually(lambda: service.ran)
    finally:
        gate.set()


def test_a_timer_that_is_far_away_does_not_end_the_time_keeper(driver, eventually):
    far, near = Ticking(1e300), Ticking(in_a_moment(0.05))
    for service in (far, near):
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: near.ran)
    driver.wake(far)
    assert [thread.name for thread in driver.threads].count("webchat-fsm-time") == 1
