"""Skips or fails tests that need more than the extra `test`: a program such as node, or a package such as gevent.

A test names its requirements by `@pytest.mark.needs("node", "npm")`. Where one is missing the test is skipped. It
fails instead where the environment variable WEBCHAT_REQUIRE, a list of names separated by blanks, contains the name.
Continuous integration installs everything and sets the variable, so that a missing program cannot skip a test there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

OTHER_NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
"""Maps the name of a requirement to the names of its program, where they differ; the first one found is used."""


def find(name: str) -> str | None:
    """Return the path of a program or the name of an importable package; None if neither is installed."""
    programs = (shutil.which(program) for program in OTHER_NAMES.get(name, (name,)))
    return next(filter(None, programs), None) or (name if importlib.util.find_spec(name) else None)


def lack(name: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it where WEBCHAT_REQUIRE contains the name of what is missing."""
    if name in os.environ.get("WEBCHAT_REQUIRE", "").split():
        pytest.fail(f"WEBCHAT_REQUIRE contains {name}: {reason}", pytrace=False)
    pytest.skip(reason)


def check(test: pytest.Item) -> None:
    """Skip or fail a test if a requirement in its `needs` marks is missing."""
    for mark in test.iter_markers("needs"):
        for name in mark.args:
            if find(name) is None:
                lack(name, f"{name} is not installed")
