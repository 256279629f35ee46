"""Check that undoing a step restores every slot of the session, and that the step repeated has the same result."""

from __future__ import annotations

import copy
import enum
import random
import re
import sys

import msgspec
import pytest

from tests.lifecycle import injection
from tests.lifecycle.environment import ChatEnvironment
from webchat_fsm._core import decide
from webchat_fsm._core.steps import Asked, Closed, Due, Opened, Replied
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

PLAIN = (str, bytes, int, float, bool, type(None), enum.Enum, type, frozenset)


def as_plain(thing):
    """Return an object and all its parts as plain values that can be compared."""
    if isinstance(thing, PLAIN):
        return thing
    if isinstance(thing, dict):
        return [(as_plain(key), as_plain(value)) for key, value in thing.items()]
    if isinstance(thing, set):
        return thing.copy()
    if isinstance(thing, msgspec.Struct):
        return type(thing).__name__, [as_plain(getattr(thing, name)) for name in thing.__struct_fields__]
    if hasattr(thing, "__iter__"):
        return [as_plain(one) for one in thing]
    if type(thing).__module__.startswith("webchat_fsm"):
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        names = sorted({*slots, *getattr(thing, "__dict__", ())})
        return type(thing).__name__, [(name, as_plain(getattr(thing, name, None))) for name in names]
    return thing


def slots_of(session) -> dict[str, object]:
    """Return the slots of a session, without the allowance: undoing a step does not return requests to that."""
    names = [name for name in type(session).__slots__ if name not in ("allowance", "settings")]
    return {name: as_plain(getattr(session, name)) for name in names}


class Undoing:
    """Replaces the deciding function: runs each step, undoes it, and runs it again."""

    def __init__(self, decided):
        self._decided = decided
        self.wrong: list[object] = []
        self.steps: dict[str, int] = {}

    def __call__(self, session, step, now):
        before, mark, allowance = slots_of(session), session.mark(), copy.copy(session.allowance)
        first = self._decided(session, step, now)
        once = slots_of(session)
        session.back_to(mark)
        after = slots_of(session)
        self._compare("undone", step, before, after)
        session.allowance = allowance
        again = self._decided(session, step, now)
        self._compare("again", step, once, slots_of(session))
        if [row.trigger for row in first.transitions] != [row.trigger for row in again.transitions]:
            self.wrong.append(("rows", step, first.transitions, again.transitions))
        self.steps[type(step).__name__] = self.steps.get(type(step).__name__, 0) + 1
        return again

    def _compare(self, what, step, one, other):
        self.wrong += [
            (what, name, type(step).__name__, one[name], other[name]) for name in one if one[name] != other[name]
        ]


@pytest.mark.parametrize("transport", Transport)
def test_undone_step_restores_every_slot(transport, monkeypatch):
    undoing = Undoing(decide._decided)
    monkeypatch.setattr(decide, "_decided", undoing)
    timeline = Timeline()
    env = ChatEnvironment(timeline, TestServer(timeline), transport)
    chat = env.start(pollExceptionLimit=1)
    agent = env.agent()
    chat.add_prefilter(re.compile("three"))
    for round_ in range(2):
        chat.send_message(f"hello {round_}")
        chat.send_typing(message="and")
        chat.command("updateUserData", {"a": round_})
        agent.say("one")
        agent.typing()
        agent.say("two")
        agent.rename(f"Ann {round_}")
        env.server.bot("Botty").join().say("I am one")
        env.server.faults.add(operation="refresh", member="$.messages[0].index", value="odd")
        env.advance(4)
        env.server.faults.add(operation="refresh" if transport.polls else "connect", times=4, http_status=503)
        agent.say("three")
        env.advance(40)
        chat.command("fetchHistory", {})
        chat = env.away(20)
        env.advance(5)
    chat.end_chat()
    env.advance(5)
    chat.start_chat(nickname="Jonny")
    env.advance(5)
    chat.close()
    assert not undoing.wrong, undoing.wrong[:5]
    assert set(undoing.steps) == {kind.__name__ for kind in (Asked, Closed, Due, Opened, Replied)}
    assert undoing.steps["Replied"] > 25


def interrupted_at(function, act) -> bool:
    """Raise KeyboardInterrupt at the first call of a function during `act`; return whether it was raised."""

    def trace(frame, event, argument):
        if event == "call" and frame.f_code is function.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def check_interrupted_reading(transport, at_most: int) -> None:
    known = injection.functions()
    first = with_agent(transport)
    names = injection.called_in(lambda: read_one(first, "first"), known)
    raised = 0
    for name in random.sample(names, min(at_most, len(names))):
        env = with_agent(transport)
        raised += interrupted_at(known[name], lambda env=env: read_one(env, "during"))
        env.joined_agent.say("after")
        env.advance(30)
        assert sorted(env.heard.texts()) == ["after", "during"], name  # a push may precede the response
        env.chat.close()
    assert raised


def with_agent(transport) -> ChatEnvironment:
    timeline = Timeline()
    env = ChatEnvironment(timeline, TestServer(timeline), transport)
    env.start()
    env.joined_agent = env.agent()
    env.advance(5)
    return env


def read_one(env: ChatEnvironment, text: str) -> None:
    """Read an answer with a message, in this thread."""
    env.joined_agent.say(text)
    if env.transport.polls:
        env.chat.step()
    else:
        env.advance(2)


@pytest.mark.parametrize("transport", Transport)
def test_ctrl_c_during_response_handling_loses_no_message(transport):
    check_interrupted_reading(transport, 8)


@pytest.mark.soak
@pytest.mark.parametrize("transport", Transport)
def test_ctrl_c_in_any_response_function_loses_no_message(transport):
    check_interrupted_reading(transport, 1000)
