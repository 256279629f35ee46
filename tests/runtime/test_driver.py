"""Test the drivers that run timers: in manual time, and on threads of one driver that serves many services."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import ManualClock, ManualDriver, ThreadDriver, WaitTimeout, WebChatError
from webchat_fsm._runtime.job_queue import JobQueue, QueuedJob


class Ticking:
    """Stand for a service with timers at given moments; each job appends its moment to `ran`."""

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
    assert made.close(SOON)


def from_now(seconds: float = 0.0) -> float:
    return time.monotonic() + seconds


# -- manual time -------------------------------------------------------------------------------------------------------


def test_timers_of_all_services_run_in_order_of_time():
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


def test_run_due_runs_overdue_timers_and_returns_the_next():
    driver = ManualDriver(ManualClock(10.0))
    service = Ticking(8.0, 9.0, 10.0, 11.0)
    driver.attach(service)
    assert driver.run_due() == 11.0
    assert service.ran == [8.0, 9.0, 10.0]


def test_manual_driver_runs_no_timer_of_a_detached_service():
    driver = ManualDriver(ManualClock(0.0))
    service = Ticking(1.0)
    driver.attach(service)
    assert driver.detach(service, 0.0)
    driver.wait(5.0)
    assert service.ran == []


def test_manual_clock_never_moves_backwards():
    clock = ManualClock(100.0)
    clock.sleep_until(50.0)
    assert clock.timer() == clock.wall() == 100.0


def test_manual_driver_never_starts_a_thread(by_hand, wire, service):
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


WITHOUT_TESTING_PACKAGE = """
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
def test_frozen_time_moves_without_the_testing_package(library):
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TESTING_PACKAGE, library],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert ran.stdout == "False 60.0\n"


class AdvancingClock(ManualClock):
    """Advance by a second each time it is read."""

    def timer(self) -> float:
        self.now += 1.0
        return self.now


def test_timers_added_during_run_due_wait_for_the_next_call():
    driver = ManualDriver(AdvancingClock())
    endless = Ticking(driver.clock.now)
    endless.job = lambda: endless.moments.append(driver.clock.now + 0.5)
    driver.attach(endless)
    assert driver.run_due() == endless.next_due()
    assert len(endless.ran) == 1


def test_threads_use_real_time_while_wall_clock_is_frozen(wire, service, v2_message):
    freezing = pytest.importorskip("freezegun")
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(transport.count("refresh"), "hi")]}
    with freezing.freeze_time("2026-03-01"), service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        assert [chat.wait_for("messageReceived", LONG).time for _ in range(3)] == [time.time()] * 3
        with pytest.raises(WaitTimeout):
            chat.wait_for("agentConnected", 0.05)


def test_step_polls_once_and_needs_a_manual_driver(by_hand, wire, service, no_answer):
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


def test_threaded_timers_run_in_time_and_in_order(driver, eventually):
    service = Ticking(from_now(0.06), from_now(0.02), from_now(0.04))
    moments = sorted(service.moments)
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: len(service.ran) == 3)
    assert service.ran == moments
    assert time.monotonic() >= moments[-1]


def test_earlier_timer_wakes_the_time_keeper(driver, eventually):
    service = Ticking(from_now(60.0))
    driver.attach(service)
    driver.wake(service)
    with service.lock:
        service.moments.append(from_now())
    driver.wake(service)
    eventually(lambda: service.ran)


def test_concurrent_wake_ups_are_not_lost(driver, in_threads, eventually):
    services = [Ticking() for _ in range(50)]
    for service in services:
        driver.attach(service)

    def schedule():
        for _ in range(40):
            for service in services:
                with service.lock:
                    service.moments.append(from_now())
                driver.wake(service)

    in_threads(*[schedule] * 4, join=True)
    eventually(lambda: all(len(service.ran) == 160 for service in services))


def test_idle_workers_end_and_new_ones_start_on_demand(driver, eventually):
    service = Ticking()
    driver.attach(service)
    for round_ in range(1, 4):
        with service.lock:
            service.moments.append(from_now())
        driver.wake(service)
        eventually(lambda round_=round_: len(service.ran) == round_)
        eventually(lambda: [thread.name for thread in driver.threads] == ["webchat-fsm-time"])


def test_job_arriving_as_its_worker_ends_is_not_lost(eventually):
    driver = ThreadDriver(idle=0.001)
    service = Ticking()
    driver.attach(service)
    for number in range(300):
        with service.lock:
            service.moments.append(from_now())
        driver.wake(service)
        eventually(lambda number=number: len(service.ran) == number + 1)
    assert driver.close(SOON)


def test_jobs_wait_while_all_allowed_workers_are_busy(eventually, monkeypatch):
    monkeypatch.setattr("webchat_fsm._runtime.job_queue.LONG_JOB", 60.0)
    driver, gate = ThreadDriver(workers=3), threading.Event()
    blocked = [Ticking(from_now(), job=lambda: gate.wait(LONG)) for _ in range(6)]
    for service in blocked:
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: sum(len(service.ran) for service in blocked) == 3)
    assert len(driver.threads) == 4
    gate.set()
    eventually(lambda: sum(len(service.ran) for service in blocked) == 6)
    assert driver.close(SOON)


def test_blocked_jobs_do_not_delay_other_timers(eventually):
    driver, gate = ThreadDriver(workers=2), threading.Event()
    held = [Ticking(from_now(), job=lambda: gate.wait(LONG)) for _ in range(6)]
    for service in held:
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: all(service.ran for service in held))
    other = Ticking(from_now())
    driver.attach(other)
    driver.wake(other)
    eventually(lambda: other.ran)
    gate.set()
    assert driver.close(SOON)


def test_workers_in_excess_end_when_long_jobs_are_over(eventually):
    driver, gate = ThreadDriver(workers=2, idle=60.0), threading.Event()
    held = [Ticking(from_now(), job=lambda: gate.wait(LONG)) for _ in range(6)]
    for service in held:
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: all(service.ran for service in held))
    assert len(driver._workers) >= 6
    gate.set()
    eventually(lambda: len(driver._workers) <= 2)
    assert driver.close(SOON)


def test_worker_is_added_after_a_job_of_250_milliseconds():
    clock = ManualClock(0.0)
    queue = JobQueue(1, clock.timer)
    queue.add(QueuedJob(Ticking(), print))
    assert queue.take(threading.current_thread())
    allowed = []
    for clock.now in (0.0, 0.24, 0.25):
        allowed.append(queue.may_start_worker(1))
    assert allowed == [False, False, True]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_worker_survives_any_exception_of_a_job(driver, eventually, error, caplog):
    def fail():
        raise error("broken")

    failing, fine = Ticking(from_now(), job=fail), Ticking(from_now(0.05))
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
def test_jobs_wait_until_a_thread_can_be_started(driver, eventually, monkeypatch, caplog, reason, logged):
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
        service.moments.append(from_now())
    driver.wake(service)
    eventually(lambda: service.ran)
    assert refused
    assert ("no further thread can be started" in caplog.text) is logged


def test_timer_due_as_it_is_set_does_not_wake_the_loop(eventually, monkeypatch):
    driver, service, woken = ThreadDriver(), Ticking(from_now()), []
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: service.ran and not driver._queue.busy)
    monkeypatch.setattr(driver._parked, "wake", lambda: woken.append(True))
    service.moments.append(from_now())
    driver.wake(service)
    eventually(lambda: len(service.ran) == 2)
    monkeypatch.undo()
    assert not woken
    assert driver.detach(service, 2.0)
    assert driver.close()


def test_timer_due_as_it_is_set_begins_while_workers_are_busy(eventually):
    driver, gate = ThreadDriver(workers=1), threading.Event()
    slow, other = Ticking(from_now(), job=lambda: gate.wait(20.0)), Ticking(from_now())
    for service in (slow, other):
        driver.attach(service)
        driver.wake(service)
        eventually(lambda service=service: service.ran)  # the second as the first has become long
    gate.set()
    assert driver.detach(slow, 2.0)
    assert driver.close()


def test_service_woken_while_detached_runs_once_attached(driver, eventually):
    """A chat that has ended may set a timer before its pool attaches it again."""
    service, other = Ticking(from_now()), Ticking(from_now())
    driver.attach(other)
    driver.wake(service)
    driver.wake(other)
    eventually(lambda: other.ran and not driver._heap)  # the loop has dropped the entry of the other one
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: service.ran)


def test_detach_waits_for_running_and_drops_waiting_jobs(eventually):
    driver, gate = ThreadDriver(workers=1), threading.Event()
    service = Ticking(from_now(), from_now() + 0.001, job=lambda: gate.wait(LONG))
    driver.attach(service)
    driver.wake(service)
    eventually(lambda: service.ran)
    assert not driver.detach(service, 0.05)
    gate.set()
    assert driver.detach(service, SOON)
    assert len(service.ran) == 1
    assert driver.close(SOON)


@pytest.fixture
def blocked_taking(eventually):
    """Make a service in which the time keeper is blocked as it takes the timers, until the gate is set."""
    taking, gate = threading.Event(), threading.Event()

    class BlockedTicking(Ticking):
        def take_due(self, now):
            jobs = super().take_due(now)
            taking.set()
            gate.wait(LONG)
            return jobs

    def attach_blocked(driver):
        service = BlockedTicking(from_now())
        driver.attach(service)
        driver.wake(service)
        eventually(taking.is_set)
        return service

    yield attach_blocked, gate
    gate.set()


def test_jobs_taken_before_detach_are_not_run_after_it(driver, blocked_taking, eventually, in_threads):
    attach_blocked, gate = blocked_taking
    service = attach_blocked(driver)
    assert not driver.detach(service, 0.05)
    gate.set()
    assert driver.detach(service, SOON)
    eventually(lambda: [thread.name for thread in driver.threads] == ["webchat-fsm-time"])
    assert service.ran == []


def test_jobs_taken_before_close_start_no_worker_after_it(blocked_taking):
    driver = ThreadDriver()
    attach_blocked, gate = blocked_taking
    service = attach_blocked(driver)
    assert not driver.close(0.05)
    gate.set()
    assert driver.close(SOON)
    assert driver.detach(service, 0.0)
    assert service.ran == []


def test_job_detaching_its_own_service_does_not_wait(driver, eventually, stopwatch):
    results: list[bool] = []
    service = Ticking(from_now(), job=lambda: results.append(driver.detach(service, SOON)))
    driver.attach(service)
    driver.wake(service)
    stopwatch.restart()
    eventually(lambda: results == [False])
    assert stopwatch.soon
    assert driver.detach(service, SOON)


def test_job_detaching_another_service_waits_for_its_job(driver, eventually):
    gate, results = threading.Event(), []
    other = Ticking(from_now(), job=lambda: gate.wait(LONG))
    driver.attach(other)
    driver.wake(other)
    eventually(lambda: other.ran)
    one = Ticking(from_now(), job=lambda: results.append(driver.detach(other, SOON)))
    driver.attach(one)
    driver.wake(one)
    eventually(lambda: one.ran)
    gate.set()
    eventually(lambda: results == [True])


def test_closed_driver_restarts_on_attach(driver, eventually):
    for _ in range(3):
        service = Ticking(from_now())
        driver.attach(service)
        driver.wake(service)
        eventually(lambda service=service: service.ran)
        assert driver.close(SOON)
        assert driver.threads == []


def test_restarted_driver_runs_earlier_services_too(driver, eventually):
    before, detached = (Ticking(from_now(0.2)) for _ in range(2))
    for service in (before, detached):
        driver.attach(service)
        driver.wake(service)
    assert driver.close(SOON)
    assert driver.detach(detached, 1.0)
    driver.attach(Ticking())
    eventually(lambda: before.ran)
    assert detached.ran == []


def test_chat_polls_on_after_its_driver_is_restarted(wire, service, eventually):
    driver, transport = ThreadDriver(), wire()
    chat, other = service(transport, driver=driver), service(wire(), driver=driver)
    chat.open()
    chat.start_chat(nickname="Jonny")
    assert driver.close(SOON)
    other.open()
    polls = transport.count("refresh")
    eventually(lambda: transport.count("refresh") > polls + 2)
    assert chat.close(SOON)
    assert other.close(SOON)
    assert driver.close(SOON)


@pytest.mark.soak
def test_thousand_services_share_one_driver(wire, service, eventually, monkeypatch):
    monkeypatch.setattr("webchat_fsm._runtime.job_queue.LONG_JOB", 60.0)
    driver, transport = ThreadDriver(workers=8), wire()
    slow = {"pollRate": 1000, "pollRateMin": 1000, "pollRateMax": 1000}
    chats = [service(transport, driver=driver, config=slow) for _ in range(1000)]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    eventually(lambda: transport.count("refresh") >= 2000)
    assert len(driver.threads) <= 9
    assert all(chat.health().failures == 0 for chat in chats)
    assert [chat.close(SOON) for chat in chats] == [True] * 1000
    assert driver.close(SOON)


def test_closed_service_leaves_others_on_its_driver_polling(wire, service, eventually):
    driver = ThreadDriver()
    transports = [wire(), wire()]
    gone, stays = chats = [service(transport, driver=driver) for transport in transports]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    assert gone.close(SOON)
    polls = [transport.count("refresh") for transport in transports]
    eventually(lambda: transports[1].count("refresh") >= polls[1] + 3)
    assert transports[0].count("refresh") == polls[0]
    assert stays.close(SOON)
    assert driver.close(SOON)


def test_wall_clock_jump_does_not_change_threaded_polling(wire, service, eventually, monkeypatch):
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


def test_wall_clock_jump_does_not_block_a_manual_driver(wire, service, monkeypatch, stopwatch):
    real = time.time
    with service(wire(), driver=ManualDriver()) as chat:
        chat.start_chat(nickname="Jonny")
        for jump in (-3600.0, 3600.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            with pytest.raises(WaitTimeout):
                chat.wait_for("agentConnected", 0.05)
    assert stopwatch.soon


def test_attach_replaces_a_time_keeper_about_to_end(driver, eventually, monkeypatch):
    """Attach a service when the time keeper has left its loop but its thread is still alive."""
    keep_time, left, gate = driver._run_time_keeper, threading.Event(), threading.Event()

    def slow_to_end():
        keep_time()
        left.set()
        gate.wait(LONG)

    monkeypatch.setattr(driver, "_run_time_keeper", slow_to_end)
    driver.attach(Ticking())
    driver.close(0.0)
    assert left.wait(LONG)
    service = Ticking(from_now())
    driver.attach(service)
    driver.wake(service)
    try:
        eventually(lambda: service.ran)
    finally:
        gate.set()


def test_timer_far_in_the_future_keeps_the_time_keeper_alive(driver, eventually):
    far, near = Ticking(1e300), Ticking(from_now(0.05))
    for service in (far, near):
        driver.attach(service)
        driver.wake(service)
    eventually(lambda: near.ran)
    driver.wake(far)
    assert [thread.name for thread in driver.threads].count("webchat-fsm-time") == 1


@pytest.mark.parametrize("given", [{"workers": 0}, {"workers": True}, {"workers": "4"}, {"workers": 1.5}])
def test_number_of_workers_below_one_is_refused(given):
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, got"):
        ThreadDriver(**given)


@pytest.mark.parametrize("idle", [-1, float("nan"), "x", None])
def test_idle_time_that_is_no_duration_is_refused(idle):
    with pytest.raises(ValueError, match="idle must be a number of seconds of at least 0, got"):
        ThreadDriver(idle=idle)
