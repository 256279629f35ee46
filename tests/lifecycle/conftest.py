"""Fixtures for the stories of the lifecycle."""

from __future__ import annotations

import pytest

from tests.lifecycle.stage import Stage


@pytest.fixture
def stage(webchat_timeline, webchat_server) -> Stage:
    """A stage on which v2 is spoken."""
    return Stage(webchat_timeline, webchat_server)
