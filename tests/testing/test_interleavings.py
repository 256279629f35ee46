"""Run pairs of commands on two threads by every schedule: two starts, end and poll, close and each other command."""

from __future__ import annotations

import pytest

from tests.testing.interleaving import Condition, Deadlock, Lock, ReentrantLock, Scheduler, StoppingHttp, explore
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.testing import Recorder, Recording, TestServer, Timeline, replay


class Setup:
    """Set up a service whose locks, requests and deliveries are stops, with a chat after its first poll."""

    def __init__(self, scheduler: Scheduler, transport: str, *, begun: bool = True):
        self.scheduler = scheduler
        self.polls = transport != "cometd"
        self.steady = "polling" if self.polls else "active"
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.store = MemoryStore()
        self.recorder = Recorder()
        self.chat = WebChatService(
            self.server.config(transport),
            store=self.store,
            http=StoppingHttp(self.server.http(), scheduler),
            driver=self.timeline.driver,
            recorder=self.recorder,
        )
        engine = self.chat._engine
        engine.lock = Lock(scheduler, "session")
        engine.event_queue._mutex = engine.event_queue._changed = Condition(scheduler, "outbox")
        self.chat._engine._opening = ReentrantLock(scheduler, "opening")
        self.heard: list[str] = []
        for name in EVENTS:
            self.chat.subscribe(name, self._hear)
        self.chat.open()
        if begun:
            self.chat.start_chat(nickname="Jonny")
            self.timeline.advance(0 if self.polls else 1)
            self.server.agent("Ann").join().say("Hello")
            self.timeline.clock.sleep_until(self.timeline.driver.next_due())
        self.heard.clear()

    def _hear(self, event):
        self.scheduler.stop(f"delivery {event.name}")
        self.heard.append(event.name)

    def action(self, name: str):
        """Return the action of a worker by its name: a command, `close`, or `timers` for those that are due."""
        if name == "timers":
            return self.timeline.driver.run_due
        if name == "close":
            return self.chat.close
        return lambda: self.chat.command(name, DATA.get(name))

    def count(self, event: str) -> int:
        return self.heard.count(event)

    def check(self, laws):
        """Check what holds after every schedule."""
        self.chat.close()
        assert laws.pop(id(self.chat)).broken == []
        assert self.chat.state in ("idle", "ended", "async-dormant")
        replay(Recording.of(self.recorder)).check()


DATA = {
    "startChat": {"nickname": "Jonny"},
    "sendMessage": {"message": "hi"},
    "sendTyping": {"message": "h"},
    "updateUserData": {"page": "/"},
}


def explore_pair(laws, transport: str, pair, preemptions: int, *, failure: str = "") -> int:
    one, two, verify, begun = pair

    def run_pair(scheduler: Scheduler):
        setup = Setup(scheduler, transport, begun=begun)
        if failure:
            getattr(setup.server.core, failure)()
        workers = scheduler.run_pair(setup.action(one), setup.action(two))
        for worker in workers:
            if worker.error is not None:
                raise worker.error
        verify(setup, *(worker.result for worker in workers))
        setup.check(laws)

    return explore(run_pair, preemptions)


def one_start_resolves(setup, first, second):
    assert sorted([bool(first), bool(second)]) == [False, True]
    refused = second if first else first
    assert refused.reason == "There is already an active chat session"
    assert (setup.count("started"), setup.count("pollingStarted")) == (1, int(setup.polls))
    assert setup.chat.state == setup.steady


def chat_ends_once(setup, ended, _):
    assert ended
    assert setup.count("ended") == setup.count("clientDisconnected") == 1
    assert setup.count("pollingStopped") == setup.polls
    assert setup.chat.state == "ended"


def one_end_resolves(setup, first, second):
    assert sorted([bool(first), bool(second)]) == [False, True]
    assert (second if first else first).reason == "There is no active chat session"
    assert setup.count("ended") == 1


def service_is_closed(setup, closed, _):
    assert closed is True
    assert setup.chat.state in ("idle", "ended", "async-dormant")
    assert not setup.chat._engine.session.opened
    assert setup.timeline.pending() == []


def message_arrives_once(setup, sent, _):
    assert sent
    setup.timeline.advance(10)
    texts = [message.text for message in setup.chat.get_transcript().messages]
    assert texts.count("hi") == 1
    assert texts.count("Hello") == 1


def both_arrive_once(setup, first, second):
    assert first
    assert second
    setup.timeline.advance(10)
    assert [message.text for message in setup.chat.get_transcript().messages].count("hi") == 2
    assert setup.count("messageReceived") >= 1


def chat_continues(setup, *_):
    assert setup.chat.state == setup.steady
    assert ("poll" if setup.polls else "connect") in [name for _, name in setup.timeline.pending()]
    setup.timeline.advance(5)
    assert [message.text for message in setup.chat.get_transcript().messages].count("Hello") == 1


def polling_has_stopped(setup, stopped, _):
    assert stopped
    assert setup.chat.state == "active"
    assert setup.timeline.pending() == []
    assert setup.count("pollingStopped") == 1


PAIRS = [
    ("startChat", "startChat", one_start_resolves, False),
    ("endChat", "timers", chat_ends_once, True),
    ("endChat", "sendMessage", chat_ends_once, True),
    ("endChat", "updateUserData", chat_ends_once, True),
    ("endChat", "stopPoll", chat_ends_once, True),
    ("endChat", "endChat", one_end_resolves, True),
    ("sendMessage", "timers", message_arrives_once, True),
    ("sendMessage", "sendMessage", both_arrive_once, True),
    ("sendTyping", "timers", chat_continues, True),
    ("startPoll", "timers", chat_continues, True),
    ("stopPoll", "timers", polling_has_stopped, True),
    *(
        ("close", other, service_is_closed, other != "startChat")
        for other in (
            "startChat",
            "timers",
            "endChat",
            "sendMessage",
            "sendTyping",
            "updateUserData",
            "stopPoll",
            "close",
        )
    ),
]


def names(pair) -> str:
    return f"{pair[0]} and {pair[1]}"


PUSHED = [pair for pair in PAIRS if not {"startPoll", "stopPoll"} & set(pair[:2])]
"""The pairs of a transport that does not poll."""


@pytest.mark.parametrize("pair", [PAIRS[0], ("close", "timers", service_is_closed, True)])
def test_two_threads_preempted_once_anywhere_both_succeed(pair, laws):
    """Run a few pairs; the soak tests run all of them, and with two preemptions."""
    assert explore_pair(laws, "v2", pair, preemptions=1) > 15


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_two_threads_preempted_twice_anywhere_both_succeed(pair, laws):
    assert explore_pair(laws, "v2", pair, preemptions=2) > 80


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("transport", ["v3", "v3-async"])
@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_two_threads_interleave_on_other_polled_transports(pair, transport, laws):
    assert explore_pair(laws, transport, pair, preemptions=1) > 15


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("failure", ["", "forget_clients", "hang_up"])
@pytest.mark.parametrize("pair", PUSHED, ids=names)
def test_two_threads_interleave_over_cometd(pair, failure, laws):
    assert explore_pair(laws, "cometd", pair, preemptions=1, failure=failure if pair[3] else "") > 15


def test_deadlock_of_two_locks_in_opposite_orders_is_found():
    def run_pair(scheduler: Scheduler):
        first, second = Lock(scheduler, "first"), Lock(scheduler, "second")
        for worker in scheduler.run_pair(lambda: both(first, second), lambda: both(second, first)):
            if worker.error is not None:
                raise worker.error

    with pytest.raises(Deadlock, match="both threads wait"):
        explore(run_pair, preemptions=1)


def test_race_that_needs_one_preemption_is_found():
    def run_pair(scheduler: Scheduler):
        account = {"balance": 0}

        def pay():
            balance = account["balance"]
            scheduler.stop("between reading and writing")
            account["balance"] = balance + 1

        scheduler.run_pair(pay, pay)
        assert account["balance"] == 2

    with pytest.raises(AssertionError, match="1 == 2"):
        explore(run_pair, preemptions=1)


def both(one: Lock, other: Lock) -> None:
    with one, other:
        pass
