"""Provide the fixtures of the lifecycle tests."""

from __future__ import annotations

import pytest

from tests.lifecycle.environment import ChatEnvironment


@pytest.fixture
def env(webchat_timeline, webchat_server) -> ChatEnvironment:
    """Return an environment for v2."""
    return ChatEnvironment(webchat_timeline, webchat_server)
