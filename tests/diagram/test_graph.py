"""Check the edges, arcs, causes and conditions in the graph of the lifecycle."""

from __future__ import annotations

import pytest

from webchat_fsm.diagram import lifecycle
from webchat_fsm.diagram._graph import Cause, Edge
from webchat_fsm.diagram._machines import Box, Lifecycle, cause, publications
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS
from webchat_fsm.lifecycle._states import HAS_SESSION, State
from webchat_fsm.lifecycle._table import TRANSITIONS, Guard, Transition, Trigger, reachable
from webchat_fsm.lifecycle._transports import Transport

VIEWS = [None, *Transport]


@pytest.fixture(params=VIEWS, ids=str)
def seen(request: pytest.FixtureRequest) -> Lifecycle:
    return lifecycle(request.param)


def edge(seen: Lifecycle, source: State, trigger: Trigger, dest: State) -> Edge[Transition]:
    (found,) = [one for one in seen.edges if (one.source, one.trigger, one.dest) == (source, trigger, dest)]
    return found


def test_edges_of_the_whole_graph_are_the_rows():
    assert [one.row for one in lifecycle().edges] == list(TRANSITIONS)


def test_edge_has_the_number_of_its_row(seen: Lifecycle):
    assert seen.edges
    assert all(TRANSITIONS[one.number - 1] is one.row for one in seen.edges)


def test_transport_draws_its_reachable_states(seen: Lifecycle):
    within = frozenset[State]().union(*map(reachable, map(Transport, seen.views)))
    assert {node.state for node in seen.drawn} == within
    assert [node.state for node in seen.nodes] == list(State)


def test_every_drawn_state_but_idle_has_an_edge_to_it(seen: Lifecycle):
    assert {one.dest for one in seen.edges} | {State.IDLE} == {node.state for node in seen.drawn}


def test_event_is_left_out_on_a_transport_without_it():
    published = [publication.event for one in lifecycle(Transport.V3).edges for publication in publications(one)]
    assert "disconnected" in published
    assert all(Transport.V3 in EVENTS[event].transports for event in published)
    assert "connectionPending" not in published


def test_event_is_left_out_if_no_transport_of_the_row_has_it():
    pushed = edge(lifecycle(), State.STARTING, Trigger.START_CONFIRMED, State.ACTIVE)
    assert pushed.views == (Transport.COMETD,)
    assert [publication.event for publication in publications(pushed)] == ["started"]


def test_row_after_one_that_is_always_taken_is_no_edge():
    closing = [one for one in lifecycle(Transport.V3_ASYNC).edges if one.trigger is Trigger.CLOSE and not one.stays]
    assert [one.source for one in closing if one.dest is State.IDLE] == [State.STARTING]
    assert {one.source for one in closing if one.dest is State.DORMANT} == HAS_SESSION | {State.RESTORING}


def test_command_unsupported_by_the_transport_is_no_edge():
    assert Trigger.START_POLL in {one.trigger for one in lifecycle(Transport.V2).edges}
    assert Trigger.START_POLL not in {one.trigger for one in lifecycle(Transport.COMETD).edges}


def test_guards_that_the_transport_always_meets_are_omitted():
    confirmed = edge(lifecycle(Transport.V2), State.STARTING, Trigger.START_CONFIRMED, State.POLLING)
    assert confirmed.guards == ()
    over = edge(lifecycle(Transport.COMETD), State.ACTIVE, Trigger.POLL_FAILED, State.OFFLINE)
    assert over.guards == (Guard.OVER_LIMIT,)


def test_row_after_a_guarded_one_is_marked_otherwise():
    seen = lifecycle(Transport.V2)
    assert edge(seen, State.IDLE, Trigger.OPEN, State.RESTORING).condition == Guard.RESTORABLE
    assert edge(seen, State.IDLE, Trigger.OPEN, State.IDLE).condition == "otherwise"
    assert edge(seen, State.IDLE, Trigger.START, State.STARTING).condition == ""


def test_cause_follows_the_kind_of_trigger():
    assert cause(Trigger.START) is Cause.COMMAND
    assert cause(Trigger.OPEN) is Cause.SERVICE
    assert cause(Trigger.POLL_ANSWERED) is Cause.FACT
    assert cause(Trigger.START_REFUSED) is Cause.FAILURE
    assert cause(Trigger.SESSION_LOST) is Cause.FAILURE
    assert cause(Trigger.POLL_FAILED) is Cause.FAILURE
    assert cause(Trigger.RESTORE_CONFIRMED_OFFLINE) is Cause.FAILURE


def test_restore_is_a_command_only_where_users_may_give_it():
    assert cause(Trigger.RESTORE, [Transport.V3_ASYNC]) is Cause.COMMAND
    assert cause(Trigger.RESTORE, [Transport.V2]) is Cause.SERVICE


def test_trigger_with_the_name_of_a_command_is_never_a_fact():
    named = [trigger for trigger in Trigger if trigger.value in COMMANDS]
    assert Trigger.END in named
    assert all(cause(trigger) in (Cause.COMMAND, Cause.SERVICE) for trigger in named)


def test_boxes_hold_the_open_and_the_closed_states():
    assert frozenset(Box.SESSION.states) == HAS_SESSION
    assert set(Box.CLOSED.states) == {State.IDLE, State.DORMANT, State.ENDED}


def test_arcs_lead_exactly_where_edges_lead(seen: Lifecycle):
    moves = {(one.source, one.trigger, one.dest) for one in seen.edges if not one.stays}
    boxed = {box: [node.state for node in seen.inside(box)] for box in Box}
    drawn = {
        (source, way.trigger, arc.dest)
        for arc in seen.arcs()
        for source in (boxed[arc.source] if isinstance(arc.source, Box) else [arc.source])
        for way in arc.ways
    }
    assert drawn == moves


def test_way_out_of_every_state_of_a_box_is_drawn_once():
    (lost,) = [arc for arc in lifecycle().arcs() if any(way.trigger is Trigger.SESSION_LOST for way in arc.ways)]
    assert (lost.source, lost.dest, lost.cause) == (Box.SESSION, State.ENDED, Cause.FAILURE)


def test_way_without_boxes_is_drawn_out_of_each_state():
    lost = [arc.source for arc in lifecycle().arcs([]) if any(way.trigger is Trigger.SESSION_LOST for way in arc.ways)]
    assert lost == [State.ACTIVE, State.POLLING, State.OFFLINE]


def test_condition_is_shown_only_where_it_matters():
    ways = {str(way) for arc in lifecycle().arcs() for way in arc.ways}
    assert "found ended" in ways, "v2 and v3 publish different events, but both go to idle"
    assert "start confirmed [transport polls]" in ways
    assert "start confirmed" in {str(way) for arc in lifecycle(Transport.V3).arcs() for way in arc.ways}
