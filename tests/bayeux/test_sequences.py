"""Check the laws of the connection over random sequences of answers, pushes and due timers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bayeux.rig import NOW, Chat, connection
from tests.limits import examples
from webchat_fsm._bayeux.connection import Connection
from webchat_fsm._bayeux.frames import (
    BACKOFF,
    Answer,
    Connect,
    Handshake,
    NextAt,
    Notifications,
    Outcome,
    Publish,
    Send,
    Sent,
)
from webchat_fsm._bayeux.table import BEGINNING, OPEN, TRANSITIONS, Report, State, Transition, Trigger

PUSHES = (Trigger.PUSH_GOOD, Trigger.PUSH_REFUSED, Trigger.PUSH_UNAVAILABLE, Trigger.PUSH_UNREADABLE)
LONGEST = 60.0
"""Seconds of the longest pause, from the protocol documents; a Retry-After of an answer here is at most 90 s."""


class Recorded(Connection):
    """Records the rows that the connection uses."""

    def row(self, trigger, step):
        row = super().row(trigger, step)
        if row is not None:
            USED.add(row)
        return row


USED: set[Transition] = set()


class Walk:
    """Plays a connection with a chat that performs its events, and checks the laws at each of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.now, self.link, self.chat = rng, NOW, Recorded(), Chat()
        self.tickets, self.timer, self.ids = 0, None, []
        self.in_flight: dict[int, Sent] = {}
        self.opening: int | None = None
        self.renewed = False

    def begin(self) -> None:
        self.in_flight = {ticket: sent for ticket, sent in self.in_flight.items() if sent.frame == Publish()}
        self.chat = Chat(catching_up=False)
        self.timer, self.renewed = None, False
        deadline = self.now + self.rng.choice([0.5, 20.0, 100.0])
        self.carry_out(self.link.begin(self.chat, self.now, deadline, restoring=self.rng.random() < 0.5))

    def step(self) -> None:
        self.now += self.rng.choice([0.0, 0.125, 0.5, 3.0, 40.0])  # all exact in binary
        if self.link.state is State.UNCONNECTED and self.rng.random() < 0.7:
            self.begin()
            return
        choices = [self.answer] * 6 + [self.publish, self.interrupt]
        self.rng.choice(choices)() if self.in_flight else self.publish()
        if self.timer is not None and self.link.state in OPEN and self.rng.random() < 0.7:
            self.now, self.timer = max(self.now, self.timer), None
            before = self.chat.poll_ticket
            sent = self.carry_out(self.link.due(self.chat, self.now))
            assert not (before and sent), "two connects in flight"
        if self.rng.random() < 0.01:
            self.link.close()
            self.in_flight.clear()
            self.chat.poll_ticket = 0
        if self.link.state in OPEN:
            assert self.timer is not None or self.chat.poll_ticket, "an open chat has neither a timer nor a connect"

    def answer(self) -> None:
        rng = self.rng
        ticket = rng.choice(list(self.in_flight))
        sent = self.in_flight.pop(ticket)
        current = ticket == self.chat.poll_ticket
        if current:
            self.chat.poll_ticket = 0
        outcome = Outcome.GOOD if rng.random() < 0.6 else rng.choice(list(Outcome))
        if outcome is Outcome.UNKNOWN_CLIENT and isinstance(sent.frame, Handshake):
            outcome = Outcome.REFUSED
        file = sent.frame == Publish() and self.link.state not in OPEN  # only files are sent in such a state
        if file and outcome is Outcome.UNKNOWN_CLIENT and self.link.state in BEGINNING:
            outcome = Outcome.FAILED
        answer = Answer(
            outcome=outcome,
            client_id=f"client-{ticket}",
            interval=rng.choice([None, None, 0.0, 2.0, 3600.0]),
            reconnect=""
            if file
            else rng.choice(["", "", "", "retry", "handshake", "none" if rng.random() < 0.1 else ""]),
            disconnected=rng.random() < 0.05 and not file,
            status=rng.choice([0, 200, 403, 429, 500, 504]),
            retry_after=rng.choice([0.0, 0.0, 7.0, 90.0]),
            line=rng.choice(["", "", "", "answered", "held"]) if isinstance(sent.frame, Connect) else "",
            pushed=rng.random() < 0.3,
        )
        sent = Sent(frame=sent.frame, client_id=sent.client_id, resent=sent.resent, current=current)
        self.carry_out(self.link.receive(sent, answer, self.chat, self.now), sent)

    def publish(self) -> None:
        if self.link.state is not State.REFUSED:  # the core rejects it there, without a request
            self.send(Publish(), 0, current=False)

    def interrupt(self) -> None:
        if self.chat.poll_ticket and self.link.state in OPEN:
            self.in_flight.pop(self.chat.poll_ticket, None)
            self.chat.poll_ticket = 0
            trigger = self.rng.choice([Trigger.INTERRUPTED, Trigger.DEFECT, Trigger.MISSED_DEFECT])
            self.carry_out(self.link.interrupted(trigger, self.chat, self.now))

    def send(self, frame, resent, *, current) -> None:
        self.tickets += 1
        self.ids.append(self.link.next_id())
        self.in_flight[self.tickets] = Sent(frame=frame, client_id=self.link.client_id, resent=resent)
        if current:
            self.chat.poll_ticket, self.chat.poll_since = self.tickets, self.now

    def carry_out(self, events, sent=None) -> bool:
        made, restarted = False, None
        for event in events:
            match event:
                case Send(frame=frame, pause=pause, left=left):
                    assert self.link.state not in (State.UNCONNECTED, State.REFUSED), (
                        "a request in a state that allows none"
                    )
                    assert pause >= 0 < left
                    made = True
                    opens = frame is None
                    restoring = self.link.restoring
                    frame = (Notifications() if restoring else Publish(opens=True)) if opens else frame
                    self.send(frame, 0, current=self.link.state in OPEN)
                case NextAt(at=at):
                    assert at is None or 0 <= at - self.now <= max(LONGEST, 90.0)
                    assert not restarted or at - self.now >= BACKOFF.step, "a failure is repeated after a second"
                    self.timer = at
                case Report():
                    restarted = restarted or event is Report.FAILED
                    self.report(event, sent)
        self.renewed = self.renewed or self.link.state is State.RENEWING
        return made

    def report(self, report, sent) -> None:
        if report in (Report.RECOVERED, Report.ALIVE):
            assert not self.renewed, "reconnected without a resynchronisation"
        elif report is Report.POLL:
            self.renewed = self.renewed and self.link.state is State.RENEWING
        elif report is Report.SEND_AGAIN:
            assert sent.resent < BACKOFF.resent_at_most
            self.send(sent.frame, sent.resent + 1, current=False)
        elif report is Report.PUSHES:
            self.push()
        elif report is Report.FAILED:
            self.chat.failures, self.chat.disconnected = self.chat.failures + 1, True
        elif report in (Report.ABANDONED, Report.TOO_LATE):
            self.link.close()
            self.in_flight.clear()

    def push(self) -> None:
        rng = self.rng
        if self.link.state is State.OPENING and rng.random() < 0.5:
            self.chat.catching_up = rng.random() < 0.5
            self.carry_out(self.link.opened(self.chat, self.now))
        elif rng.random() < 0.3:
            trigger, with_messages = rng.choice(PUSHES), rng.random() < 0.5
            for event in self.link.push(trigger, self.chat, self.now, with_messages=with_messages):
                if event is Report.POLL and trigger is Trigger.PUSH_GOOD:
                    self.renewed = False
                    self.chat.failures, self.chat.disconnected, self.chat.catching_up = 0, False, False
                if event is Report.POLL and trigger is Trigger.PUSH_UNAVAILABLE:
                    self.chat.failures += 1


@pytest.fixture(scope="module")
def rows_used():
    USED.clear()
    for seed in range(300):
        walk = Walk(random.Random(seed))
        for _ in range(100):
            walk.step()
    return frozenset(USED)


HELD = Connect(hold=None, usual=60.0)
UNKNOWN, FAILED = Answer(outcome=Outcome.UNKNOWN_CLIENT), Answer(outcome=Outcome.FAILED, status=0)
RARE = [
    (State.LOST, Sent(frame=HELD, current=True), Answer(outcome=Outcome.FAILED, status=504), [Report.PUSHES, 1.0]),
    (State.CONNECTED, Sent(frame=Handshake()), FAILED, [Report.REJECT_WAITING]),
    (State.LOST, Sent(frame=Handshake()), FAILED, [Report.REJECT_WAITING]),
    (State.LOST, Sent(frame=Publish(), client_id="client-0"), UNKNOWN, [Report.SEND_AGAIN]),
    (State.LOST, Sent(frame=Publish(), client_id="client-1", resent=1), UNKNOWN, [Report.PUSHES, Report.SETTLE]),
    (State.RENEWING, Sent(frame=Publish(), resent=1), UNKNOWN, [Report.PUSHES, Report.SETTLE]),
    (State.CONNECTED, Sent(frame=Notifications(), client_id="client-0"), UNKNOWN, [Report.REJECT_WAITING]),
    (State.LOST, Sent(frame=Notifications(), client_id="client-0"), UNKNOWN, [Report.REJECT_WAITING]),
    (State.REFUSED, Sent(frame=Notifications(), client_id="client-1"), UNKNOWN, [Report.REJECT_WAITING]),
    (State.UNCONNECTED, Sent(frame=Publish()), Answer(reconnect="none"), [Report.PUSHES, Report.SETTLE]),
]
"""Rows that need two threads at once, a proxy during an outage, or a push that ends the chat beside advice `none`.

Each has the state, the frame, its answer and the events.
"""


@pytest.mark.parametrize(("state", "sent", "answer", "events"), RARE)
def test_answer_to_another_thread_leaves_the_state(state, sent, answer, events):
    link = connection(state)
    made = [one.at - NOW if isinstance(one, NextAt) else one for one in link.receive(sent, answer, Chat(), NOW)]
    assert (made, link.state) == (events, state)


def rare_rows():
    """Use the rare rows once more, and return them."""
    for state, sent, answer, _ in RARE:
        link = connection(state, Recorded)
        list(link.receive(sent, answer, Chat(), NOW))
    for catching_up in (False, True):  # a push beside a handshake, which no gateway of the walk has
        list(connection(State.HANDSHAKING, Recorded).opened(Chat(catching_up=catching_up), NOW))
    return frozenset(USED)


def test_every_row_occurs_in_some_sequence(rows_used):
    closes = {row for row in TRANSITIONS if row.trigger is Trigger.CLOSE}  # carried out by `close`, without a step
    missing = [row[:4] for row in TRANSITIONS if row not in rows_used | rare_rows() | closes]
    assert missing == []


@settings(max_examples=examples(60), deadline=None)
@given(st.randoms(use_true_random=False), st.integers(10, 60))
def test_laws_hold_over_random_sequences(rng, steps):
    walk = Walk(rng)
    for _ in range(steps):
        walk.step()
    assert len(walk.ids) == len(set(walk.ids))


@pytest.mark.parametrize("seed", range(20))
def test_mark_is_unchanged_by_later_step(seed):
    walk = Walk(random.Random(seed))
    for _ in range(60):
        before, shown = walk.link.mark(), repr(walk.link)
        walk.step()
        assert repr(before) == shown


@pytest.mark.parametrize("asked", [1, 30, 31, 32, 500])
def test_time_between_requests_grows_at_31(asked):
    assert BACKOFF.between_requests(asked) == (3.0 if asked < 31 else 60.0)


@pytest.mark.parametrize(("failures", "pause"), [(1, 1.0), (2, 2.0), (59, 59.0), (60, 60.0), (61, 60.0), (500, 60.0)])
def test_pause_grows_by_a_second_up_to_a_minute(failures, pause):
    assert BACKOFF.after(failures) == pause
    assert BACKOFF.after(failures, retry_after=90.0) == 90.0
