from __future__ import annotations

import pytest

from webchat_fsm.diagram.graph import Box, Cause, Edge, Graph, cause, graph
from webchat_fsm.lifecycle.commands import COMMANDS
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import HAS_SESSION, ROWS, Guard, State, Transport, Trigger, reachable

VIEWS = [None, *Transport]


@pytest.fixture(params=VIEWS, ids=str)
def seen(request: pytest.FixtureRequest) -> Graph:
    return graph(request.param)


def edge(seen: Graph, source: State, trigger: Trigger, dest: State) -> Edge:
    (found,) = [one for one in seen.edges if (one.source, one.trigger, one.dest) == (source, trigger, dest)]
    return found


def test_every_row_is_an_edge_of_the_whole_graph_and_every_edge_is_a_row():
    assert [one.row for one in graph().edges] == list(ROWS)


def test_an_edge_knows_the_place_of_its_row(seen: Graph):
    assert seen.edges
    assert all(ROWS[one.number - 1] is one.row for one in seen.edges)


def test_a_transport_draws_the_states_that_it_can_come_into_and_no_others(seen: Graph):
    within = frozenset[State]().union(*map(reachable, seen.transports))
    assert {node.state for node in seen.drawn} == within
    assert [node.state for node in seen.nodes] == list(State)


def test_every_drawn_state_but_idle_can_be_walked_to(seen: Graph):
    assert {one.dest for one in seen.edges} | {State.IDLE} == {node.state for node in seen.drawn}


def test_an_event_that_the_transport_lacks_is_not_said_there():
    said = [say.event for one in graph(Transport.V3).edges for say in one.says]
    assert "disconnected" in said
    assert all(Transport.V3 in EVENTS[event].transports for event in said)
    assert "connectionPending" not in said


def test_an_event_that_no_transport_of_a_row_has_is_not_said_at_all():
    pushed = edge(graph(), State.STARTING, Trigger.START_CONFIRMED, State.ACTIVE)
    assert pushed.transports == (Transport.COMETD,)
    assert [say.event for say in pushed.says] == ["started"]


def test_a_row_behind_one_that_is_always_taken_is_not_an_edge():
    closing = [one for one in graph(Transport.V3_ASYNC).edges if one.trigger is Trigger.CLOSE and not one.stays]
    assert [one.source for one in closing if one.dest is State.IDLE] == [State.STARTING]
    assert {one.source for one in closing if one.dest is State.DORMANT} == HAS_SESSION | {State.RESTORING}


def test_a_command_that_the_transport_cannot_do_is_no_edge():
    assert Trigger.START_POLL in {one.trigger for one in graph(Transport.V2).edges}
    assert Trigger.START_POLL not in {one.trigger for one in graph(Transport.COMETD).edges}


def test_guards_that_the_transport_settles_are_not_asked_again():
    confirmed = edge(graph(Transport.V2), State.STARTING, Trigger.START_CONFIRMED, State.POLLING)
    assert confirmed.guards == ()
    over = edge(graph(Transport.COMETD), State.ACTIVE, Trigger.POLL_FAILED, State.OFFLINE)
    assert over.guards == (Guard.OVER_LIMIT,)


def test_the_row_behind_a_guarded_one_is_marked_as_the_other_case():
    seen = graph(Transport.V2)
    assert edge(seen, State.IDLE, Trigger.OPEN, State.RESTORING).condition == Guard.RESTORABLE
    assert edge(seen, State.IDLE, Trigger.OPEN, State.IDLE).condition == "otherwise"
    assert edge(seen, State.IDLE, Trigger.START, State.STARTING).condition == ""


def test_who_is_behind_a_trigger():
    assert cause(Trigger.START) is Cause.COMMAND
    assert cause(Trigger.OPEN) is Cause.SERVICE
    assert cause(Trigger.POLL_ANSWERED) is Cause.FACT
    assert cause(Trigger.START_REFUSED) is Cause.FAILURE
    assert cause(Trigger.SESSION_LOST) is Cause.FAILURE
    assert cause(Trigger.POLL_FAILED) is Cause.FAILURE
    assert cause(Trigger.RESTORE_CONFIRMED_OFFLINE) is Cause.FAILURE


def test_restore_is_a_command_only_where_a_user_may_give_it():
    assert cause(Trigger.RESTORE, [Transport.V3_ASYNC]) is Cause.COMMAND
    assert cause(Trigger.RESTORE, [Transport.V2]) is Cause.SERVICE


def test_a_trigger_with_the_name_of_a_command_is_never_a_fact():
    named = [trigger for trigger in Trigger if trigger.value in COMMANDS]
    assert Trigger.END in named
    assert all(cause(trigger) in (Cause.COMMAND, Cause.SERVICE) for trigger in named)


def test_the_boxes_hold_the_open_and_the_closed_states():
    assert frozenset(Box.SESSION.states) == HAS_SESSION
    assert set(Box.CLOSED.states) == {State.IDLE, State.DORMANT, State.ENDED}


def test_the_arcs_lead_exactly_where_edges_lead(seen: Graph):
    moves = {(one.source, one.trigger, one.dest) for one in seen.edges if not one.stays}
    boxed = {box: [node.state for node in seen.inside(box)] for box in Box}
    drawn = {
        (source, way.trigger, arc.dest)
        for arc in seen.arcs()
        for source in (boxed[arc.source] if isinstance(arc.source, Box) else [arc.source])
        for way in arc.ways
    }
    assert drawn == moves


def test_what_leads_out_of_every_open_state_is_drawn_once_out_of_their_box():
    (lost,) = [arc for arc in graph().arcs() if any(way.trigger is Trigger.SESSION_LOST for way in arc.ways)]
    assert (lost.source, lost.dest, lost.cause) == (Box.SESSION, State.ENDED, Cause.FAILURE)


def test_without_boxes_the_same_leads_out_of_each():
    lost = [arc.source for arc in graph().arcs([]) if any(way.trigger is Trigger.SESSION_LOST for way in arc.ways)]
    assert lost == [State.ACTIVE, State.POLLING, State.OFFLINE]


def test_a_condition_is_shown_only_where_it_matters():
    ways = {str(way) for arc in graph().arcs() for way in arc.ways}
    assert "found ended" in ways, "v2 and v3 say different events, but both go to idle"
    assert "start confirmed [transport polls]" in ways
    assert "start confirmed" in {str(way) for arc in graph(Transport.V3).arcs() for way in arc.ways}
