"""The trace of the core that the foreign engines replay, and its parts.

WEBCHAT_TRACE_STEPS is the number of random steps through the kit, 20,000 of them in continuous integration.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.exports.random_chats import run_chats
from tests.exports.random_steps import run_sessions
from tests.exports.tracing import Tracer, tracing
from tests.lifecycle.environment import ChatEnvironment
from tests.lifecycle.test_rows import CORE_SCENARIOS, SERVICE_SCENARIOS
from webchat_fsm.diagram._semantics import steps_of
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import Recording, TestServer, Timeline, replay

FULL = 20_000
STEPS = int(os.environ.get("WEBCHAT_TRACE_STEPS", "200"))
SESSIONS = 2000 if STEPS >= FULL else 5
"""Random sessions at most, by which a full trace takes every row; a short one takes most of them."""
RECORDINGS = Path(__file__).parents[1] / "testing" / "former"


def _recorded(tracer: Tracer) -> None:
    for transport in Transport:
        tracer.name = f"recording of {transport}"
        replay(Recording.read(RECORDINGS / f"recording-{transport}.jsonl")).check()


def _scenarios(tracer: Tracer) -> None:
    """Run the conversations that the tests of the rows have."""
    timeline = Timeline()
    server = TestServer(timeline)
    for name, scenario in SERVICE_SCENARIOS.items():
        tracer.name = name
        scenario(lambda: ChatEnvironment(timeline, server))
        server.close()
    for name, core in CORE_SCENARIOS.items():
        tracer.name = name
        core()


@pytest.fixture(scope="session")
def tracer():
    """Return the tracer of recorded, scripted and random conversations on all transports."""
    log = logging.getLogger("webchat_fsm")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # each of the many faults would write to it
    try:
        with tracing() as tracer:
            _recorded(tracer)
            _scenarios(tracer)
            for transport in Transport:
                run_chats(tracer, transport, STEPS // 4)
                run_sessions(tracer, transport, {step.number for step in steps_of(transport)}, SESSIONS)
    finally:
        log.setLevel(level)
    return tracer


@pytest.fixture(scope="session")
def trace(tracer):
    """Return the trace as its JSON object."""
    return tracer.document()
