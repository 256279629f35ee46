"""Check each advice with each answer in each state: the row, the frames that are sent, and the pause."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from tests.bayeux.rig import NOW, Chat, connection, sent_by
from webchat_fsm._bayeux.frames import Answer, Connect, Handshake, NextAt, Notifications, Outcome, Publish, Send, Sent
from webchat_fsm._bayeux.table import BEGINNING, KNOWN, OPEN, TRANSITIONS, Report, State

FRAMES = {
    "handshake": Handshake(),
    "connect": Connect(hold=None, usual=60.0),
    "notifications": Notifications(),
    "publish": Publish(),
}
ADVICE = ("", "retry", "handshake", "none")


def expected_state(state, name, outcome, advice):
    """Return the state after an answer, by the protocol documents and not by the table."""
    good = outcome is Outcome.GOOD
    if state is State.UNCONNECTED or (state is State.REFUSED):
        return state
    if advice == "none":
        return State.UNCONNECTED if state in BEGINNING else State.REFUSED
    drops = outcome is Outcome.UNKNOWN_CLIENT or (good and advice == "handshake")
    if state is State.HANDSHAKING:
        return State.OPENING if name == "handshake" and good else state
    if state is State.OPENING:
        return opening_state(name, outcome, drops=drops)
    if name == "handshake":
        return State.RESYNCHRONISING if good else state
    if name == "connect":
        return connect_state(state, outcome, drops=drops)
    if outcome is Outcome.UNKNOWN_CLIENT or advice == "handshake":
        # an answer that is no success to a request for missed messages is judged by its outcome alone
        judged = name == "publish" or good or outcome is Outcome.UNKNOWN_CLIENT
        return State.RENEWING if judged else state
    return state


def opening_state(name, outcome, *, drops):
    good = outcome is Outcome.GOOD
    if name in ("notifications", "publish"):  # either opens a chat: of a restore, of a start
        if outcome is Outcome.UNKNOWN_CLIENT:
            return State.HANDSHAKING
        return State.OPENING if good else State.UNCONNECTED
    if name == "connect" and drops:
        return State.UNCONNECTED
    return State.OPENING


def connect_state(state, outcome, *, drops):
    if drops:
        return State.RENEWING
    if outcome is Outcome.GOOD:
        return State.CONNECTED if state is State.LOST else state
    if state is State.CONNECTED and outcome not in (Outcome.THROTTLED,):
        return State.LOST
    return state


@pytest.mark.parametrize(("state", "name"), list(product(State, FRAMES)))
def test_each_advice_with_each_answer_makes_its_transition(state, name):
    for outcome, advice in product(Outcome, ADVICE):
        if outcome is Outcome.UNKNOWN_CLIENT and name == "handshake":
            continue  # a gateway cannot lose a client that it has not made
        if name == "publish" and state is State.HANDSHAKING:
            continue  # no message is published before the handshake
        link, chat = connection(state), Chat()
        answer = Answer(outcome=outcome, reconnect=advice, client_id="client-2", status=200)
        frame = Publish(opens=True) if name == "publish" and state is State.OPENING else FRAMES[name]
        list(link.receive(sent_by(link, frame), answer, chat, NOW))
        assert link.state is expected_state(state, name, outcome, advice), (outcome, advice)


@pytest.mark.parametrize(
    ("state", "answer", "delay"),
    [
        (State.CONNECTED, Answer(), 0.5),  # answered at once with nothing
        (State.CONNECTED, Answer(pushed=True), 0.0),
        (State.CONNECTED, Answer(interval=2.0), 2.0),
        (State.CONNECTED, Answer(interval=61.0), 0.5),
        (State.CONNECTED, Answer(outcome=Outcome.FAILED, status=0), 1.0),
        (State.LOST, Answer(outcome=Outcome.FAILED, status=0), 3.0),
        (State.CONNECTED, Answer(outcome=Outcome.FAILED, status=503, retry_after=9.0), 9.0),
        (State.CONNECTED, Answer(outcome=Outcome.THROTTLED, status=429, retry_after=7.0), 7.0),
        (State.CONNECTED, Answer(outcome=Outcome.UNKNOWN_CLIENT), 0.0),
        (State.CONNECTED, Answer(outcome=Outcome.UNKNOWN_CLIENT, interval=4.0), 4.0),
        (State.CONNECTED, Answer(disconnected=True), 0.0),
        (State.CONNECTED, Answer(reconnect="none"), None),
    ],
)
def test_pause_after_a_connect(state, answer, delay):
    link, chat = connection(state), Chat(poll_since=NOW)
    events = list(link.receive(sent_by(link, FRAMES["connect"]), answer, chat, NOW))
    (timer,) = [one for one in events if isinstance(one, NextAt)]
    assert timer.at == (None if delay is None else NOW + delay)


@pytest.mark.parametrize(
    ("state", "frame"),
    [
        (State.CONNECTED, Connect(hold=None, usual=60.0)),
        (State.LOST, Connect(hold=0.0, usual=60.0)),
        (State.RESYNCHRONISING, Connect(hold=None, usual=60.0)),
        (State.RENEWING, Handshake()),
    ],
)
def test_due_timer_sends_the_frame_of_the_state(state, frame):
    link = connection(state)
    link.at_once = state is State.LOST
    assert list(link.due(Chat(), NOW)) == [Send(frame)]


@pytest.mark.parametrize("state", [one for one in State if one not in OPEN])
def test_due_timer_sends_nothing_without_open_chat(state):
    assert list(connection(state).due(Chat(), NOW)) == []


@pytest.mark.parametrize("state", OPEN)
def test_due_timer_sends_nothing_while_a_frame_is_in_flight(state):
    assert list(connection(state).due(Chat(poll_ticket=7), NOW)) == []


@pytest.mark.parametrize("gap", [0.0, 0.499])
def test_second_drop_within_half_a_second_counts_as_failure(gap):
    link = connection(State.CONNECTED)
    link.dropped_at = NOW - gap
    answer = Answer(outcome=Outcome.UNKNOWN_CLIENT)
    assert Report.FAILED in list(link.receive(sent_by(link, FRAMES["connect"]), answer, Chat(), NOW))
    assert link.failures == 1


@pytest.mark.parametrize("gap", [0.5, 0.501, 60.0])
def test_second_drop_after_half_a_second_is_renewed_at_once(gap):
    link = connection(State.CONNECTED)
    link.dropped_at = NOW - gap
    answer = Answer(outcome=Outcome.UNKNOWN_CLIENT)
    events = list(link.receive(sent_by(link, FRAMES["connect"]), answer, Chat(), NOW))
    assert events == [Report.PUSHES, NextAt(NOW)]
    assert link.failures == 0


@pytest.mark.parametrize("restored_offline", [True, False])
def test_requests_beyond_31_continue_if_restored_offline(restored_offline):
    link, chat, now = connection(State.CONNECTED), Chat(catching_up=restored_offline), NOW
    link.missed.note(1)
    asked = []
    for _ in range(40):
        now = max(now + 0.1, link.missed.ask_at)
        events = list(link.due(chat, now))
        if isinstance(events[0].frame, Notifications):
            asked.append(now)
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert gaps[:30] == pytest.approx([3.0] * 30)
    assert gaps[30:] == ([60.0] * 9 if restored_offline else [])


def test_requests_for_new_client_continue_beyond_31():
    link, chat, now = connection(State.RESYNCHRONISING), Chat(), NOW
    link.missed.note(1)
    for _ in range(40):
        now = max(now, link.missed.ask_at)
        assert isinstance(list(link.due(chat, now))[-1].frame, Notifications)
    assert link.missed.ask_at - now == 60.0


@pytest.mark.parametrize(
    ("status", "held", "hold"), [(504, 30.0, 15.0), (504, 3.0, 2.0), (0, 30.0, 15.0), (500, 8.0, 4.0)]
)
def test_cut_connect_halves_hold(status, held, hold):
    link = connection(State.CONNECTED)
    answer = Answer(outcome=Outcome.FAILED, status=status)
    list(link.receive(sent_by(link, FRAMES["connect"]), answer, Chat(poll_since=NOW - held), NOW))
    assert link.hold == hold
    assert link.state is (State.CONNECTED if status == 504 else State.LOST)


@pytest.mark.parametrize(("status", "held"), [(504, 2.0), (403, 30.0), (499, 30.0)])
def test_connect_not_held_or_refused_keeps_the_hold(status, held):
    link = connection(State.CONNECTED)
    answer = Answer(outcome=Outcome.FAILED, status=status)
    list(link.receive(sent_by(link, FRAMES["connect"]), answer, Chat(poll_since=NOW - held), NOW))
    assert (link.hold, link.state) == (None, State.LOST)


@pytest.mark.parametrize(
    ("resent", "sent_to", "again"),
    [(0, "client-1", True), (1, "client-1", False), (2, "client-0", True), (3, "client-0", False)],
)
def test_message_of_unknown_client_is_resent_3_times_at_most(resent, sent_to, again):
    link = connection(State.CONNECTED)
    sent = Sent(frame=Publish(), client_id=sent_to, resent=resent)
    events = list(link.receive(sent, Answer(outcome=Outcome.UNKNOWN_CLIENT), Chat(), NOW))
    assert (Report.SETTLE not in events) is again


def test_every_row_has_unique_source_trigger_and_guards():
    keys = [(row.source, row.trigger, row.guards) for row in TRANSITIONS]
    assert len(keys) == len(set(keys))


def test_no_row_follows_one_without_guards():
    closed = set()
    for row in TRANSITIONS:
        key = (row.source, row.trigger)
        assert key not in closed, row
        if not row.guards:
            closed.add(key)


def test_each_known_state_has_row_for_connect_answer():
    assert set(KNOWN) == {row.source for row in TRANSITIONS if row.trigger == "connect answered"}
