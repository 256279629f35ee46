"""Steps whose decision raises: what the fallback makes of an opening, a closing and an interruption."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.core.harness import SAVED, CoreHarness, silent
from tests.core.test_settling import pushed
from webchat_fsm import Transport
from webchat_fsm._bayeux.frames import BACKOFF
from webchat_fsm._core import decide as decisions
from webchat_fsm._core import defects, on_command
from webchat_fsm._core.decide import FOREIGN
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Closed, Interrupted
from webchat_fsm._core.timers import Timer
from webchat_fsm.lifecycle import State
from webchat_fsm.lifecycle._table import TRANSITIONS, Effect
from webchat_fsm.testing._bench import CONFIGS


@pytest.fixture
def planted(monkeypatch):
    """Return a function that makes a function of a module raise."""

    def plant(module, name):
        def raising(*given, **named):
            raise RuntimeError("planted")

        monkeypatch.setattr(module, name, raising)

    return plant


def test_defective_opening_fails_restore_and_keeps_session(planted):
    core = CoreHarness()
    planted(on_command, "call_restore")
    decision = core.open(SAVED)
    assert isinstance(decision.defect, RuntimeError)
    assert core.published() == ["ready", "restoreFailed", "error"]
    assert (core.session.opened, core.session.state, core.session.saved) == (True, State.IDLE, SAVED)


def test_defective_closing_closes_the_session_as_saved_before(planted):
    core = CoreHarness().start()
    saved = core.session.saved
    planted(decisions, "_close")
    core.take(Closed())
    assert (core.session.opened, core.session.state, core.session.saved) == (False, State.IDLE, saved)
    assert core.session.timers == {}


def test_defective_interruption_of_a_poll_polls_again(planted):
    core = CoreHarness().start()
    poll = core.due()
    planted(decisions, "_interrupt")
    core.take(Interrupted(call=poll.call))
    assert set(core.session.timers) == {Timer.POLL}
    assert core.due().call is not None


@pytest.mark.parametrize("transport", [Transport.V2, Transport.V3])
def test_defective_interruption_pauses_as_after_a_failed_poll(planted, transport):
    failed, core = (CoreHarness(**CONFIGS[transport]).start() for _ in range(2))
    failed.poll(silent())
    poll = core.due()
    planted(decisions, "_interrupt")
    core.take(Interrupted(call=poll.call))
    assert core.next_poll == failed.next_poll


def test_defective_interruption_of_a_connect_counts_as_failed(planted):
    core = pushed()
    connect = core.due(Timer.CONNECT)
    planted(decisions, "_interrupt")
    core.take(Interrupted(call=connect.call))
    assert (core.session.connection.failures, core.session.timers[Timer.CONNECT]) == (1, core.timer + BACKOFF.after(1))


def test_defective_connection_is_continued_after_a_pause(planted):
    core = pushed()
    connect = core.due(Timer.CONNECT)
    planted(decisions, "_interrupt")
    planted(Session, "connect_again")
    core.take(Interrupted(call=connect.call))
    assert core.session.timers[Timer.CONNECT] == core.timer + BACKOFF.after(1)


def test_fallback_performs_all_effects_of_its_rows():
    """Rows by its triggers have four effects alone, so that the fallback knows no other."""
    fired = set(re.findall(r"_fire\(Trigger\.(\w+)\)", inspect.getsource(defects)))
    effects = {effect for row in TRANSITIONS for effect in row.effects if row.trigger.name in fired}
    assert effects == {Effect.COUNT, Effect.FINISH, Effect.FORGET, Effect.LEAVE}


def test_foreign_saved_session_is_warned_of_and_none_is_not():
    foreign = CoreHarness(dataURL="http://other.test/genesys/2/chat/customer-support").open(SAVED)
    assert (foreign.warning, CoreHarness().open().warning, CoreHarness().open(SAVED).warning) == (FOREIGN, "", "")


def raised_in(*modules: str) -> BaseException:
    """Return an exception that passes through a function `step` of each module, and is raised in the last one."""
    call = None
    for module in reversed(modules):
        names = {"__name__": module, "call": call}
        exec("def step():\n    return call() if call else 1 / 0", names)
        call = names["step"]
    try:
        call()
    except ZeroDivisionError as error:
        error.__traceback__ = error.__traceback__.tb_next  # without this function
        return error


@pytest.mark.parametrize(
    ("modules", "origin"),
    [
        (["webchat_fsm.a", "webchat_fsm.b", "json"], "webchat_fsm.b.step:2"),
        (["json", "webchat_fsm.a", "json"], "webchat_fsm.a.step:2"),
        (["json", "user"], "json.step:2"),
    ],
)
def test_origin_of_a_defect_is_innermost_in_the_package(modules, origin):
    assert defects.origin(raised_in(*modules)) == origin


def test_origin_of_an_exception_never_raised_is_unknown():
    assert defects.origin(ValueError("never raised")) == "?"
