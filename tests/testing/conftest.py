"""Check that no test of the testing package leaves a thread running."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []
