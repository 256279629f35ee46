"""What a test needs beside the extra `test`: a program such as node, or a package such as gevent.

A test says so by `@pytest.mark.needs("node", "npm")`. Where something is missing the test is skipped, unless the
environment variable WEBCHAT_REQUIRE, a list of names between blanks, contains it: then the test fails. Continuous
integration installs everything and sets the variable, so that no test is left out there unnoticed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

OTHER_NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
"""Names under which a program may be installed, where they are not its own."""


def find(name: str) -> str | None:
    """Return the path of a program, or the name of a Python package that can be imported; None if it is neither."""
    programs = (shutil.which(program) for program in OTHER_NAMES.get(name, (name,)))
    return next(filter(None, programs), None) or (name if importlib.util.find_spec(name) else None)


def lack(name: str, reason: str) -> NoReturn:
    """Skip the running test, or fail it where WEBCHAT_REQUIRE contains the name of what is missing."""
    if name in os.environ.get("WEBCHAT_REQUIRE", "").split():
        pytest.fail(f"WEBCHAT_REQUIRE contains {name}: {reason}", pytrace=False)
    pytest.skip(reason)


def check(test: pytest.Item) -> None:
    """Skip or fail a test if something that its marks `needs` name is missing."""
    for mark in test.iter_markers("needs"):
        for name in mark.args:
            if find(name) is None:
                lack(name, f"{name} is not installed")
