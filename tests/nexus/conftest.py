"""Fixtures for the stories of v3."""

from __future__ import annotations

import pytest

from tests.nexus.stage import NexusStage
from webchat_fsm.lifecycle.table import Transport


@pytest.fixture
def make_stage(webchat_timeline):
    """Make stages, with options of their server; their clients are closed at the end."""
    made = []

    def make(transport=Transport.V3_ASYNC, **options):
        made.append(NexusStage(webchat_timeline, transport, **options))
        return made[-1]

    yield make
    for stage in made:
        stage.server.close()


@pytest.fixture
def v3(make_stage) -> NexusStage:
    """A stage for v3 over REST."""
    return make_stage(Transport.V3)


@pytest.fixture
def lasting(make_stage) -> NexusStage:
    """A stage for asynchronous v3."""
    return make_stage()


@pytest.fixture(params=[Transport.V3, Transport.V3_ASYNC])
def nexus(make_stage, request) -> NexusStage:
    """A stage for v3, once for each way."""
    return make_stage(request.param)
