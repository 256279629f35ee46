"""Test requests that wait without a thread: closing in each phase, other selectors, slow servers and dead hosts."""

from __future__ import annotations

import gc
import math
import os
import selectors
import socket
import threading
import time
import weakref
from contextlib import suppress
from functools import partial

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import CommandRejected, ThreadDriver, TransportError, WebChatService
from webchat_fsm._runtime import requests, sockets
from webchat_fsm._runtime.answers import is_incomplete
from webchat_fsm._runtime.http import HttpExchange
from webchat_fsm._runtime.job_queue import SLOW_CONNECTS, JobQueue, Parked, ParkedJobs, QueuedJob

STARTED = b'{"statusCode":0,"chatEnded":false,"chatId":"c","userId":"u","secureKey":"k","alias":"1","messages":[]}'
POLLING = {"pollRate": 100, "pollRateMin": 100, "pollRateMax": 100, "dynamicPolling": False}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted below /proc")


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Job(Parked):
    """Wait for a socket or a moment, and note how it went on."""

    connects_to = ""

    def __init__(self, sock: socket.socket | None = None, until: float = 1e9) -> None:
        self.sock, self.until, self.ran = sock, until, []

    def fileno(self) -> int:
        return -1 if self.sock is None else self.sock.fileno()

    def when_ready(self, function) -> None:
        self.bring = function

    def is_ready(self) -> bool:
        return False

    def resume(self) -> None:
        self.ran.append("resumed")

    def cancel(self) -> None:
        self.ran.append("cancelled")


class Parking:
    """Stand for a service whose timers give the next of some parked jobs, or run a function."""

    def __init__(self, *results) -> None:
        self.jobs = [partial(self._run, result) for result in results]

    def _run(self, result):
        return result() if callable(result) else result

    def next_due(self) -> float | None:
        return time.monotonic() if self.jobs else None

    def take_due(self, now: float):
        taken, self.jobs = self.jobs, []
        return taken


@pytest.fixture
def driver():
    made = ThreadDriver(idle=0.05)
    yield made
    assert made.close(SOON)
    assert len(made._parked) == 0


@pytest.fixture
def pair():
    """Make connected sockets, closed at the end."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        made.extend(socket.socketpair())
        return made[-2], made[-1]

    yield make
    for sock in made:
        sock.close()


def begin(driver: ThreadDriver, *results) -> Parking:
    service = Parking(*results)
    driver.attach(service)
    driver.wake(service)
    return service


# -- parked jobs -------------------------------------------------------------------------------------------------------

SELECTORS = [
    getattr(selectors, name)
    for name in ("SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector")
    if hasattr(selectors, name)
]


@pytest.fixture(params=SELECTORS, ids=lambda kind: kind.__name__)
def each_selector(request, monkeypatch):
    monkeypatch.setattr(selectors, "DefaultSelector", request.param)


def test_parked_job_resumes_once_its_socket_is_ready(each_selector, driver, pair, eventually):
    near, far = pair()
    job = Job(near)
    service = begin(driver, job)
    eventually(lambda: len(driver._parked) == 1)
    assert job.ran == []
    far.send(b"x")
    eventually(lambda: job.ran == ["resumed"])
    assert driver.detach(service, SOON)


def test_parked_job_resumes_once_its_moment_has_come(each_selector, driver, pair, eventually):
    resumed: list[float] = []
    near, _ = pair()
    job = Job(near, until := time.monotonic() + 0.2)
    job.resume = lambda: resumed.append(time.monotonic())
    begin(driver, job)
    eventually(lambda: resumed)
    assert until <= resumed[0]


def test_parked_jobs_of_a_service_are_cancelled_by_detach(each_selector, driver, pair, eventually):
    waiting = [Job(pair()[0]), Job()]
    other = Job(pair()[0])
    service = begin(driver, *waiting)
    stays = begin(driver, other)
    eventually(lambda: len(driver._parked) == 3)
    assert driver.detach(service, 0.0)
    assert [job.ran for job in (*waiting, other)] == [["cancelled"], ["cancelled"], []]
    assert driver.detach(stays, 0.0)


def test_job_that_goes_on_precedes_those_that_begin():
    queue, service = JobQueue(1, time.monotonic), Parking()
    begun, resumed = QueuedJob(service, list), QueuedJob(service, list, Job())
    queue.add(begun)
    queue.resumed.append(resumed)
    assert queue.runnable() == 2
    worker = threading.current_thread()
    assert [queue.take(worker), queue.take(worker), queue.take(worker)] == [resumed, begun, None]


def test_two_jobs_on_one_socket_both_resume(each_selector, driver, pair, eventually):
    near, far = pair()
    jobs = [Job(near), Job(near)]
    begin(driver, *jobs)
    eventually(lambda: len(driver._parked) == 2)
    far.send(b"x")
    eventually(lambda: [job.ran for job in jobs] == [["resumed"]] * 2)


def test_answer_of_another_thread_resumes_a_parked_job(driver, pair, eventually):
    job = Job(pair()[0])
    begin(driver, job)
    eventually(lambda: len(driver._parked) == 1)
    job.bring()
    eventually(lambda: job.ran == ["resumed"])
    job.bring()  # once more has no effect
    assert driver._running == {}


def test_socket_beyond_the_limit_of_select_is_looked_at(driver, pair, eventually, monkeypatch):
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    monkeypatch.setattr("webchat_fsm._runtime.job_queue.SELECT_LIMIT", 0)
    near, far = pair()

    class Looking(Job):
        def resume(self):
            near.settimeout(0.0)
            try:
                self.ran.append(near.recv(1))
            except BlockingIOError:
                return self

    job = Looking(near)
    begin(driver, job)
    eventually(lambda: len(driver._parked) == 1)
    far.send(b"x")
    eventually(lambda: job.ran == [b"x"])


def test_socket_closed_while_select_waits_ends_its_job(driver, pair, eventually, monkeypatch):
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    near, _ = pair()
    job, other = Job(near), Job(pair()[0])
    begin(driver, job, other)
    eventually(lambda: len(driver._parked) == 2)
    os.close(near.detach())
    driver._parked.wake()
    eventually(lambda: job.ran == ["resumed"])
    assert len(driver.threads) >= 1


@pytest.mark.parametrize("jobs", [100, 1600])
def test_expiries_of_ended_jobs_are_cleared_away(jobs):
    parked, service = ParkedJobs(), Parking()
    for _ in range(jobs):
        job = Job()
        queued = QueuedJob(service, job.resume, job)
        parked.add(queued, job, 0.0)
        assert parked.move(queued, [])
    assert len(parked) == 0
    assert len(parked._expiries) < 70


def test_descriptor_of_a_lost_job_is_waited_for_again(pair):
    """Park on a descriptor whose former job was taken by an interrupted thread, which left it registered."""
    parked, service, (near, far) = ParkedJobs(), Parking(), pair()
    parked.open()
    lost, job = Job(near), Job(near)
    parked.add(QueuedJob(service, lost.resume, lost), lost, 0.0)
    parked._jobs.clear()
    parked.add(QueuedJob(service, job.resume, job), job, 0.0)
    far.send(b"x")
    queue: list[QueuedJob] = []
    assert parked.take(parked.select(5.0), 0.0, queue) == 1
    assert queue[0].parked is job
    parked.close_descriptors()


# -- hosts that do not answer ------------------------------------------------------------------------------------------


class Connecting(Job):
    """Open a connection to a host, which takes until a gate is set."""

    def __init__(self, host: str, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.connects_to, self.gate = host, gate

    def resume(self) -> None:
        self.ran.append("connecting")
        if self.gate is not None:
            self.gate.wait(LONG)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_dead_hosts_do_not_delay_connections_to_others(workers, eventually):
    driver, gate = ThreadDriver(workers=workers), threading.Event()
    dead = [Connecting("dead", gate) for _ in range(30)]
    begin(driver, *dead)
    eventually(lambda: sum(len(job.ran) for job in dead) >= SLOW_CONNECTS)
    for number in range(5):
        alive = Connecting(f"alive {number % 2}")
        begin(driver, alive)
        eventually(lambda alive=alive: alive.ran)
    assert len(driver.threads) <= workers + 8 + 1
    assert sum(len(job.ran) for job in dead) <= SLOW_CONNECTS + max(1, workers // 2)
    gate.set()
    eventually(lambda: all(job.ran for job in dead))
    assert driver.close(SOON)


def test_jobs_that_wait_to_connect_are_cancelled_by_detach(driver, eventually):
    gate = threading.Event()
    dead = [Connecting("dead", gate) for _ in range(10)]
    services = [begin(driver, job) for job in dead]
    eventually(lambda: sum(map(len, driver._queue.connects.values())) + sum(len(job.ran) for job in dead) == 10)
    waiting = [(service, job) for service, job in zip(services, dead, strict=True) if not job.ran]
    for service, job in waiting[-3:]:
        assert driver.detach(service, 0.0)
        assert job.ran == ["cancelled"]
    gate.set()
    eventually(lambda: all(job.ran for job in dead))


# -- closing in each phase ---------------------------------------------------------------------------------------------


class Phases:
    """A chat whose poll is held by the server, brought into a phase of its request."""

    def __init__(self, chat, driver, peer, monkeypatch, eventually) -> None:
        self.chat, self.driver, self.peer = chat, driver, peer
        self.monkeypatch, self.eventually = monkeypatch, eventually
        self.gate = threading.Event()

    def block_workers(self) -> None:
        blocked = threading.Semaphore(0)

        def block() -> None:
            blocked.release()
            self.gate.wait(LONG)

        self.blocker = begin(self.driver, *[block] * 4)
        for _ in range(4):
            assert blocked.acquire(timeout=LONG)

    def start(self) -> None:
        self.chat.open()
        self.chat.start_chat(nickname="J")

    def polled(self) -> None:
        self.start()
        self.eventually(lambda: any(b"/refresh" in seen for seen in self.peer.seen))

    def before_begin(self) -> None:
        self.block_workers()
        self.start()
        self.eventually(lambda: len(self.driver._queue.jobs) == 1)

    def waiting_to_connect(self) -> None:
        self.block_connects(slow_connects=0)
        self.eventually(lambda: self.driver._queue.connects)

    def connecting(self) -> None:
        self.block_connects()
        self.eventually(lambda: self.driver._queue.connecting)

    def block_connects(self, **limits: int) -> None:
        connect = sockets.connect

        def slow(*args):
            if threading.current_thread().name == "webchat-fsm-worker" and not self.gate.is_set():
                self.gate.wait(0.5)  # as long as no cut reaches it
            return connect(*args)

        self.monkeypatch.setattr(sockets, "connect", slow)
        for name, value in limits.items():
            self.monkeypatch.setattr(f"webchat_fsm._runtime.job_queue.{name.upper()}", value)
        self.start()
        self.chat._engine._http.pool.close()  # as if the server had closed the kept connection

    def just_sent(self) -> None:
        self.monkeypatch.setattr(requests, "PARK_AFTER", LONG)
        self.polled()

    def parked(self) -> None:
        self.polled()
        self.eventually(lambda: len(self.driver._parked) == 1)

    def ready_but_not_resumed(self) -> None:
        self.parked()
        assert self.driver.close(SOON)
        self.answer()

    def resumed_in_the_queue(self) -> None:
        self.parked()
        self.block_workers()
        self.answer()
        self.eventually(lambda: len(self.driver._queue.resumed) == 1)

    def finishing(self) -> None:
        self.parked()
        self.answer(whole=False)
        self.eventually(lambda: len(self.driver._parked) == 0)

    def answer(self, *, whole: bool = True) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STARTED)
        self.peer._open[-1].sendall(head + (STARTED if whole else STARTED[:20]))


PHASES = [
    Phases.before_begin,
    Phases.waiting_to_connect,
    Phases.connecting,
    Phases.just_sent,
    Phases.parked,
    Phases.ready_but_not_resumed,
    Phases.resumed_in_the_queue,
    Phases.finishing,
]


def holding_polls(peer, connection) -> None:
    """Answer all but the polls, which are never answered unless it is to."""
    while request := peer.read(connection):
        if b"/refresh" in request.split(b"\r\n", 1)[0] and not peer.answers:
            continue
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(STARTED), STARTED))


@needs_proc
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_service_closes_in_each_phase_and_opens_again(phase, peer, monkeypatch, eventually, stopwatch):
    before, server, driver = descriptors(), peer(holding_polls), ThreadDriver(idle=0.05)
    server.answers = False
    monkeypatch.setattr("webchat_fsm._runtime.job_queue.LONG_JOB", 60.0)
    chat = WebChatService({"dataURL": server.url, **POLLING}, driver=driver)
    phases = Phases(chat, driver, server, monkeypatch, eventually)
    phase(phases)
    stopwatch.restart()
    assert chat.close(SOON)
    assert stopwatch.soon
    assert len(driver._parked) == 0
    assert not driver._queue.connects
    server.answers = True
    chat.open()
    polls = len(server.seen)
    phases.gate.set()
    monkeypatch.undo()
    eventually(lambda: len(server.seen) > polls)
    assert chat.state == "polling"
    assert chat.close(SOON)
    assert driver.close(SOON)
    assert driver._running == {}
    server.close()
    eventually(lambda: descriptors() <= before)


# -- deadlines ---------------------------------------------------------------------------------------------------------


def started(chat: WebChatService) -> bool:
    with suppress(CommandRejected):  # on a stalled machine the short timeout of a test strikes the start too
        chat.start_chat(nickname="J")
    return chat.state == "polling"


@pytest.fixture
def held_chat(peer, eventually):
    """Make a service with a chat whose polls are never answered."""
    made: list[WebChatService] = []

    def make(**config):
        server = peer(holding_polls)
        server.answers = False
        chat = WebChatService({"dataURL": server.url, **POLLING, **config})
        made.append(chat)
        chat.open()
        eventually(lambda: started(chat))
        return chat

    yield make
    for chat in made:
        assert chat.close(SOON)


def test_parked_poll_fails_at_its_deadline(held_chat, monkeypatch, eventually):
    """No poll fails before 200 ms, and the time keeper sleeps no longer than to the deadline of a parked one."""
    begun, lasted, waits = {}, [], []
    initialise, finish, until_next = HttpExchange.__init__, HttpExchange.finish, ThreadDriver._until_next

    def beginning(exchange, http, request, moment):
        begun[exchange] = moment  # from which the deadline counts: a stalled machine sends the request later
        initialise(exchange, http, request, moment)

    def finishing(exchange):
        try:
            return finish(exchange)
        finally:
            if exchange in begun:
                lasted.append(time.monotonic() - begun[exchange])

    def choosing(driver):
        seconds = until_next(driver)
        if driver._parked.earliest < math.inf:
            waits.append(seconds)
        return seconds

    chat = held_chat(ajaxTimeout=200)
    monkeypatch.setattr(HttpExchange, "__init__", beginning)
    monkeypatch.setattr(HttpExchange, "finish", finishing)
    monkeypatch.setattr(ThreadDriver, "_until_next", choosing)
    eventually(lambda: len(lasted) >= 5)
    assert min(lasted) >= 0.199
    assert 0.0 < max(waits) <= 0.2
    assert chat.health().failures >= 5


def test_answered_poll_leaves_nothing_to_the_garbage_collection(peer, eventually, monkeypatch):
    made: list[weakref.ref] = []
    initialise = HttpExchange.__init__

    def initialising(exchange, http, request, begun):
        initialise(exchange, http, request, begun)
        made.append(weakref.ref(exchange))

    server = peer(holding_polls)
    server.answers = True
    monkeypatch.setattr(requests, "PARK_AFTER", 0.0)
    gc.disable()
    try:
        with WebChatService({"dataURL": server.url, **POLLING}) as chat:
            chat.start_chat(nickname="J")
            monkeypatch.setattr(HttpExchange, "__init__", initialising)
            eventually(lambda: len(made) >= 5)
            eventually(lambda: all(one() is None for one in made[:4]))
    finally:
        gc.enable()


def test_health_shows_a_parked_poll_in_flight(held_chat, eventually):
    chat = held_chat(ajaxTimeout=60_000)
    eventually(lambda: len(chat._engine.driver._parked) == 1)
    health = chat.health()
    assert health.poll_in_flight is not None
    assert (health.stalled, health.failures) == (None, 0)
    assert "webchat-fsm-time" in health.threads


def test_stalled_parked_poll_is_given_up_and_polling_goes_on(held_chat, eventually, monkeypatch):
    chat = held_chat(ajaxTimeout=60_000)
    driver = chat._engine.driver
    eventually(lambda: len(driver._parked) == 1)
    later = time.monotonic() + 3600.0
    monkeypatch.setattr(driver.clock, "timer", lambda: later)  # as after a jump of the clock
    assert chat.health().stalled is not None
    driver.check_stalled()
    monkeypatch.undo()
    eventually(lambda: chat.health().failures == 1)
    eventually(lambda: len(driver._parked) == 2)  # the next poll, beside the one that is given up


@pytest.mark.parametrize("error", [TransportError("lost"), OSError("reset"), ValueError("a defect")])
def test_error_of_a_parked_poll_is_a_failed_poll(held_chat, eventually, monkeypatch, error):
    def proceed(exchange, seconds):
        if not seconds:
            raise error
        return False

    chat = held_chat(ajaxTimeout=200)
    monkeypatch.setattr(HttpExchange, "proceed", proceed)
    eventually(lambda: chat.health().failures >= 2)
    monkeypatch.undo()
    assert chat.close(SOON)
    assert len(chat._engine.driver._parked) == 0


# -- answers that come in parts ----------------------------------------------------------------------------------------

COMPLETE = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2 \n\n{}",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n00;c\r\nTrailer: x\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "surplus": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}surplus",
    "chunks and surplus": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsurplus",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", COMPLETE)
def test_complete_answer_is_never_waited_for_further(kind):
    assert not is_incomplete(COMPLETE[kind])
    assert not is_incomplete(b"x" * 65536)


@pytest.mark.parametrize("kind", ["length", "bare line feeds", "chunks"])
def test_part_of_a_regular_answer_is_incomplete(kind):
    whole = COMPLETE[kind]
    body = whole.index(b"0\r\n\r\n") + 2 if kind == "chunks" else len(whole)
    assert all(is_incomplete(whole[:size]) for size in range(1, body))


@pytest.mark.parametrize("kind", COMPLETE)
def test_answer_in_single_bytes_is_read_as_whole(kind, peer, http, ask):
    """Have a parked exchange read an answer byte by byte: it is the same as in one piece."""

    def dripping(server, connection):
        server.read(connection)
        for byte in COMPLETE[kind]:
            connection.sendall(bytes([byte]))  # may fail in a surplus, as the client disconnects at its first byte

    def parked(exchange) -> bytes:
        exchange.begin()
        while not exchange.proceed(0.05):
            pass
        return exchange.finish().body

    server = peer(dripping)
    assert parked(http(server.url).exchange(ask(server.url))) in (b"", b"{}")


def test_dripping_servers_occupy_no_worker(peer, eventually):
    over = threading.Event()

    def dripping(server, connection):
        while request := server.read(connection):
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(STARTED), STARTED)
            if b"/refresh" not in request.split(b"\r\n", 1)[0]:
                connection.sendall(answer)
                continue
            for byte in answer:
                connection.sendall(bytes([byte]))
                if over.wait(0.1):
                    return

    slow, driver = peer(dripping), ThreadDriver()
    good = peer(holding_polls)
    good.answers = True
    chats = [WebChatService({"dataURL": url, **POLLING}, driver=driver) for url in [*[slow.url] * 20, good.url]]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="J")
    eventually(lambda: len(slow.seen) == 40)
    seen = len(good.seen)
    eventually(lambda: len(good.seen) > seen + 5)
    assert len(driver.threads) <= 6
    assert all(chat.close(SOON) for chat in chats)
    over.set()
    assert driver.close(SOON)
