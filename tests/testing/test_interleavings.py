"""Every point at which two threads can meet is walked through: start and start, end and poll, close and everything."""

from __future__ import annotations

import pytest

from tests.testing.interleaving import Condition, Door, Lock, StoppingHttp, Stuck, Turns, walk
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.testing import Recorder, Recording, TestServer, Timeline, replay


class World:
    """A service whose locks, requests and deliveries are stops, in a chat that has had its first poll."""

    def __init__(self, turns: Turns, transport: str, *, begun: bool = True):
        self.turns = turns
        self.polls = transport != "cometd"
        self.steady = "polling" if self.polls else "active"
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.store = MemoryStore()
        self.recorder = Recorder()
        self.chat = WebChatService(
            self.server.config(transport),
            store=self.store,
            http=StoppingHttp(self.server.http(), turns),
            driver=self.timeline.driver,
            recorder=self.recorder,
        )
        engine = self.chat._engine
        engine.lock = Lock(turns, "session")
        engine.outbox._mutex = engine.outbox._changed = Condition(turns, "outbox")
        self.chat._door = Door(turns, "door")
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
        self.turns.stop(f"delivery {event.name}")
        self.heard.append(event.name)

    def act(self, name: str):
        """What a player does, by its name: a command, `close`, or `timers` for those that are due."""
        if name == "timers":
            return self.timeline.driver.run_due
        if name == "close":
            return self.chat.close
        return lambda: self.chat.command(name, DATA.get(name))

    def count(self, event: str) -> int:
        return self.heard.count(event)

    def check(self, laws):
        """What holds after every meeting."""
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


def meet(laws, transport: str, meeting, takeovers: int, *, mishap: str = "") -> int:
    one, two, verify, begun = meeting

    def play(turns: Turns):
        world = World(turns, transport, begun=begun)
        if mishap:
            getattr(world.server.core, mishap)()
        players = turns.play(world.act(one), world.act(two))
        for player in players:
            if player.error is not None:
                raise player.error
        verify(world, *(player.result for player in players))
        world.check(laws)

    return walk(play, takeovers)


def one_start_wins(world, first, second):
    assert sorted([bool(first), bool(second)]) == [False, True]
    refused = second if first else first
    assert refused.reason == "There is already an active chat session"
    assert (world.count("started"), world.count("pollingStarted")) == (1, int(world.polls))
    assert world.chat.state == world.steady


def it_ends_once(world, ended, _):
    assert ended
    assert world.count("ended") == world.count("clientDisconnected") == 1
    assert world.count("pollingStopped") == world.polls
    assert world.chat.state == "ended"


def one_of_two_ends_it(world, first, second):
    assert sorted([bool(first), bool(second)]) == [False, True]
    assert (second if first else first).reason == "There is no active chat session"
    assert world.count("ended") == 1


def nothing_comes_after_closing(world, closed, _):
    assert closed is True
    assert world.chat.state in ("idle", "ended", "async-dormant")
    assert not world.chat._engine.session.opened
    assert world.timeline.pending() == []


def the_message_arrives_once(world, sent, _):
    assert sent
    world.timeline.advance(10)
    texts = [message.text for message in world.chat.get_transcript().messages]
    assert texts.count("hi") == 1
    assert texts.count("Hello") == 1


def both_arrive_once(world, first, second):
    assert first
    assert second
    world.timeline.advance(10)
    assert [message.text for message in world.chat.get_transcript().messages].count("hi") == 2
    assert world.count("messageReceived") >= 1


def it_goes_on(world, *_):
    assert world.chat.state == world.steady
    assert ("poll" if world.polls else "connect") in [name for _, name in world.timeline.pending()]
    world.timeline.advance(5)
    assert [message.text for message in world.chat.get_transcript().messages].count("Hello") == 1


def polling_has_stopped(world, stopped, _):
    assert stopped
    assert world.chat.state == "active"
    assert world.timeline.pending() == []
    assert world.count("pollingStopped") == 1


MEETINGS = [
    ("startChat", "startChat", one_start_wins, False),
    ("endChat", "timers", it_ends_once, True),
    ("endChat", "sendMessage", it_ends_once, True),
    ("endChat", "updateUserData", it_ends_once, True),
    ("endChat", "stopPoll", it_ends_once, True),
    ("endChat", "endChat", one_of_two_ends_it, True),
    ("sendMessage", "timers", the_message_arrives_once, True),
    ("sendMessage", "sendMessage", both_arrive_once, True),
    ("sendTyping", "timers", it_goes_on, True),
    ("startPoll", "timers", it_goes_on, True),
    ("stopPoll", "timers", polling_has_stopped, True),
    *(
        ("close", other, nothing_comes_after_closing, other != "startChat")
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


def names(meeting) -> str:
    return f"{meeting[0]} and {meeting[1]}"


PUSHED = [meeting for meeting in MEETINGS if not {"startPoll", "stopPoll"} & set(meeting[:2])]
"""Those that there are where nothing is polled."""


@pytest.mark.parametrize("meeting", [MEETINGS[0], MEETINGS[1], ("close", "timers", nothing_comes_after_closing, True)])
def test_wherever_two_threads_meet_both_come_out_as_they_should(meeting, laws):
    """The others are walked through, and these with more takings-over, in the soak."""
    assert meet(laws, "v2", meeting, takeovers=1) > 20


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("meeting", MEETINGS, ids=names)
def test_wherever_two_threads_meet_twice_both_come_out_as_they_should(meeting, laws):
    assert meet(laws, "v2", meeting, takeovers=2) > 200


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("transport", ["v3", "v3-async"])
@pytest.mark.parametrize("meeting", MEETINGS, ids=names)
def test_two_threads_meet_on_the_other_polled_transports_too(meeting, transport, laws):
    assert meet(laws, transport, meeting, takeovers=1) > 20


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mishap", ["", "forget_clients", "hang_up"])
@pytest.mark.parametrize("meeting", PUSHED, ids=names)
def test_two_threads_meet_over_cometd_too(meeting, mishap, laws):
    assert meet(laws, "cometd", meeting, takeovers=1, mishap=mishap if meeting[3] else "") > 20


def test_two_locks_in_opposite_orders_are_found_to_deadlock():
    def play(turns: Turns):
        first, second = Lock(turns, "first"), Lock(turns, "second")
        for player in turns.play(lambda: both(first, second), lambda: both(second, first)):
            if player.error is not None:
                raise player.error

    with pytest.raises(Stuck, match="both threads wait"):
        walk(play, takeovers=1)


def test_a_race_that_needs_one_taking_over_is_found():
    def play(turns: Turns):
        account = {"balance": 0}

        def pay():
            balance = account["balance"]
            turns.stop("between reading and writing")
            account["balance"] = balance + 1

        turns.play(pay, pay)
        assert account["balance"] == 2

    with pytest.raises(AssertionError, match="1 == 2"):
        walk(play, takeovers=1)


def both(one: Lock, other: Lock) -> None:
    with one, other:
        pass
