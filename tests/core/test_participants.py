"""Check the participants that an event shows against a model that copies them at each change."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from webchat_fsm._core.participants import Participants
from webchat_fsm._model import Message, Participant, Sender
from webchat_fsm.lifecycle._events import ParticipantChanged

MESSAGES = st.builds(
    Message,
    type=st.sampled_from(["ParticipantJoined", "ParticipantLeft", "NicknameUpdated", "Message", "TypingStarted"]),
    sender=st.builds(
        Sender,
        id=st.integers(1, 4),
        type=st.sampled_from(["Agent", "Supervisor", "Bot", "Client"]),
        name=st.sampled_from(["Ann", "Sue"]),
    ),
    timestamp=st.integers(1, 9),
)
KINDS = ("Agent", "Supervisor")


def modelled(agents: dict[Any, Participant], message: Message) -> dict[Any, Participant]:
    """Return a new dict of the agents after a message, as the documented events describe them."""
    sender, known = message.sender, agents.get(message.sender.id)
    time = int(message.timestamp)
    match message.type:
        case "ParticipantJoined" if sender.type in KINDS:
            joined = Participant(id=sender.id, name=sender.name, type=sender.type, connected=True, connected_time=time)
            return {**agents, sender.id: joined}
        case "NicknameUpdated" if known:
            return {**agents, sender.id: replace(known, name=sender.name)}
        case "ParticipantLeft" if known:
            return {**agents, sender.id: replace(known, connected=False, disconnected_time=time)}
    return agents


@given(st.lists(st.tuples(MESSAGES, st.sampled_from(["keep", "keep", "undo", "clear", "all left"]))))
def test_event_shows_the_agents_as_they_were_at_its_time(steps: list[tuple[Message, str]]) -> None:
    """Read the agents of all events at the end only, after undone messages and new sessions too."""
    people, model = Participants(), {}
    shown: list[tuple[Any, dict[Any, Participant]]] = []
    for message, then in steps:
        mark, before = people.mark(), model
        events, model = people.read(message), modelled(model, message)
        shown += [(event, model) for _, event in events if isinstance(event, ParticipantChanged)]
        if then == "undo":
            people.back_to(mark)
            model = before
        elif then == "clear":
            people.clear()
            model = {}
        elif then == "all left":
            people.all_left(5.0)
            gone = {"connected": False, "disconnected_time": 5000}
            model = {key: replace(agent, **gone) if agent.connected else agent for key, agent in model.items()}
        assert list(people.agents.items()) == list(model.items())
        assert people.connected == sum(agent.connected for agent in model.values())
        for kind in KINDS:
            assert people.holds(kind) == any(agent.connected and agent.type == kind for agent in model.values())
    for event, agents in shown:
        assert list(event.agents.items()) == list(agents.items())
        assert event.num_agents_connected == sum(agent.connected for agent in agents.values())


def joined(count: int) -> list[ParticipantChanged]:
    people, found = Participants(), []
    for key in range(count):
        sender = Sender(id=key, type="Agent", name="Ann")
        found += [event for _, event in people.read(Message(type="ParticipantJoined", sender=sender))]
    return found


def test_agents_of_an_event_are_a_mapping() -> None:
    one, two = joined(2)
    assert (list(one.agents), len(two.agents), two.agents[1].name) == ([0], 2, "Ann")
    assert one.agents == {0: two.agents[0]}
    assert repr(one.agents) == repr(dict(one.agents))
    assert one.agents != two.agents


def test_copied_agents_of_an_event_are_a_dict_of_that_time() -> None:
    one, _ = joined(2)
    for copied in (copy.deepcopy(one.agents), pickle.loads(pickle.dumps(one.agents))):
        assert (type(copied), copied) == (dict, dict(one.agents))


def test_agents_of_many_joins_share_one_list() -> None:
    events = joined(1000)
    assert {id(event.agents._changes) for event in events} == {id(events[0].agents._changes)}
    assert all(event.agents._read is None for event in events)
