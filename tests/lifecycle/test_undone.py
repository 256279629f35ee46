"""A step that is undone leaves the session as it was, slot by slot, and the same step taken again does the same."""

from __future__ import annotations

import copy
import enum
import random
import re
import sys

import msgspec
import pytest

from tests.lifecycle import planted
from tests.lifecycle.stage import Stage
from webchat_fsm.core import decide
from webchat_fsm.core.facts import Asked, Closed, Due, Opened, Replied
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing import TestServer, Timeline

PLAIN = (str, bytes, int, float, bool, type(None), enum.Enum, type, frozenset)


def drawn(thing):
    """Draw a thing with all that it is made of, as plain values that can be compared."""
    if isinstance(thing, PLAIN):
        return thing
    if isinstance(thing, dict):
        return [(drawn(key), drawn(value)) for key, value in thing.items()]
    if isinstance(thing, set):
        return thing.copy()
    if isinstance(thing, msgspec.Struct):
        return type(thing).__name__, [drawn(getattr(thing, name)) for name in thing.__struct_fields__]
    if hasattr(thing, "__iter__"):
        return [drawn(one) for one in thing]
    if type(thing).__module__.startswith("webchat_fsm"):
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        names = sorted({*slots, *getattr(thing, "__dict__", ())})
        return type(thing).__name__, [(name, drawn(getattr(thing, name, None))) for name in names]
    return thing


def slots_of(session) -> dict[str, object]:
    """The slots of a session; without the allowance, as what a step has taken of that is not given back."""
    names = [name for name in type(session).__slots__ if name not in ("allowance", "settings")]
    return {name: drawn(getattr(session, name)) for name in names}


class Undoing:
    """Stands for the deciding function: takes each step, undoes it, and takes it again."""

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
        if [row.trigger for row in first.rows] != [row.trigger for row in again.rows]:
            self.wrong.append(("rows", step, first.rows, again.rows))
        self.steps[type(step).__name__] = self.steps.get(type(step).__name__, 0) + 1
        return again

    def _compare(self, what, step, one, other):
        self.wrong += [
            (what, name, type(step).__name__, one[name], other[name]) for name in one if one[name] != other[name]
        ]


@pytest.mark.parametrize("transport", Transport)
def test_a_step_that_is_undone_leaves_every_slot_as_it_was(transport, monkeypatch):
    undoing = Undoing(decide._decided)
    monkeypatch.setattr(decide, "_decided", undoing)
    timeline = Timeline()
    stage = Stage(timeline, TestServer(timeline), transport)
    chat = stage.start(pollExceptionLimit=1)
    agent = stage.agent()
    chat.add_prefilter(re.compile("three"))
    for round_ in range(2):
        chat.send_message(f"hello {round_}")
        chat.send_typing(message="and")
        chat.command("updateUserData", {"a": round_})
        agent.say("one")
        agent.typing()
        agent.say("two")
        agent.rename(f"Ann {round_}")
        stage.server.bot("Botty").join().say("I am one")
        stage.server.faults.add(operation="refresh", member="$.messages[0].index", value="odd")
        stage.advance(4)
        stage.server.faults.add(operation="refresh" if transport.polls else "connect", times=4, http_status=503)
        agent.say("three")
        stage.advance(40)
        chat.command("fetchHistory", {})
        chat = stage.away(20)
        stage.advance(5)
    chat.end_chat()
    stage.advance(5)
    chat.start_chat(nickname="Jonny")
    stage.advance(5)
    chat.close()
    assert not undoing.wrong, undoing.wrong[:5]
    assert set(undoing.steps) == {kind.__name__ for kind in (Asked, Closed, Due, Opened, Replied)}
    assert undoing.steps["Replied"] > 25


def interrupted_at(function, act) -> bool:
    """Act, and strike with Ctrl-C as a function is entered for the first time; whether that was raised."""

    def look(frame, event, argument):
        if event == "call" and frame.f_code is function.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def struck_while_an_answer_is_read(transport, at_most: int) -> None:
    known = planted.functions()
    first = with_agent(transport)
    names = planted.called_in(lambda: read_one(first, "first"), known)
    raised = 0
    for name in random.sample(names, min(at_most, len(names))):
        stage = with_agent(transport)
        raised += interrupted_at(known[name], lambda stage=stage: read_one(stage, "during"))
        stage.speaker.say("after")
        stage.advance(30)
        assert sorted(stage.heard.texts()) == ["after", "during"], name  # a push may come before what is asked for
        stage.chat.close()
    assert raised


def with_agent(transport) -> Stage:
    timeline = Timeline()
    stage = Stage(timeline, TestServer(timeline), transport)
    stage.start()
    stage.speaker = stage.agent()
    stage.advance(5)
    return stage


def read_one(stage: Stage, text: str) -> None:
    """Read an answer with a message, in this thread."""
    stage.speaker.say(text)
    if stage.transport.polls:
        stage.chat.step()
    else:
        stage.advance(2)


@pytest.mark.parametrize("transport", Transport)
def test_ctrl_c_while_an_answer_is_read_loses_no_message(transport):
    struck_while_an_answer_is_read(transport, 8)


@pytest.mark.soak
@pytest.mark.parametrize("transport", Transport)
def test_ctrl_c_at_any_function_that_reads_loses_no_message(transport):
    struck_while_an_answer_is_read(transport, 1000)
