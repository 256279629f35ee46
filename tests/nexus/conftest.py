"""Provide the fixtures of the v3 tests."""

from __future__ import annotations

import pytest

from tests.nexus.environment import NexusEnvironment
from webchat_fsm.lifecycle._transports import Transport


@pytest.fixture
def make_env(webchat_timeline):
    """Return a function that makes environments with server options; close their servers after the test."""
    made = []

    def make(transport=Transport.V3_ASYNC, **options):
        made.append(NexusEnvironment(webchat_timeline, transport, **options))
        return made[-1]

    yield make
    for env in made:
        env.server.close()


@pytest.fixture
def v3(make_env) -> NexusEnvironment:
    """Return an environment for v3 over REST."""
    return make_env(Transport.V3)


@pytest.fixture
def v3_async(make_env) -> NexusEnvironment:
    """Return an environment for asynchronous v3."""
    return make_env()


@pytest.fixture(params=[Transport.V3, Transport.V3_ASYNC])
def nexus(make_env, request) -> NexusEnvironment:
    """Return an environment for v3, once per mode."""
    return make_env(request.param)
