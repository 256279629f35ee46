"""What every test shares: the kit's fixtures, and a watcher of the laws that hold in every chat."""

from __future__ import annotations

import gc
import os
from functools import wraps

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests import needs
from tests.laws import LawWatcher
from tests.limits import examples
from webchat_fsm._runtime.service import WebChatService

gc.set_threshold(100_000, 50, 50)  # thousands of small tests make little rubbish; each look for it goes through all
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of the many processes would compile the package anew

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=examples(100))
settings.register_profile("all", settings.get_profile("repeatable"))
settings.register_profile("random", database=None, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("WEBCHAT_EXAMPLES", "repeatable"))
if settings.get_current_profile_name() != "random":
    # Hypothesis also draws the constants of all modules imported so far, which differ with the tests that ran before.
    providers._get_local_constants = lambda: providers._local_constants


def pytest_collection_finish() -> None:
    """Leave what was collected out of every later look for rubbish, such as pytest's own at the end of each run."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail what needs something that is not installed."""
    needs.check(item)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an empty folder for all tests of a module, as a folder for each of a thousand takes seconds to make."""
    return tmp_path_factory.mktemp("module")


@pytest.fixture(autouse=True)
def laws():
    """Watch the laws at every service of the test; what was broken fails it at the end."""
    watchers: dict[int, LawWatcher] = {}
    make, open_, close = WebChatService.__init__, WebChatService.open, WebChatService.close

    @wraps(make)
    def watched(chat, *given, **named):
        make(chat, *given, **named)
        watchers[id(chat)] = LawWatcher().attach(chat)
        watchers[id(chat)].chat = chat  # keeps the id from being used again

    @wraps(open_)
    def opened(chat):
        watchers[id(chat)].opened()
        open_(chat)

    @wraps(close)
    def closed(chat, *given, **named):
        gone = close(chat, *given, **named)
        watchers[id(chat)].closed = True
        return gone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebChatService, "__init__", watched)
        patch.setattr(WebChatService, "open", opened)
        patch.setattr(WebChatService, "close", closed)
        yield watchers
    broken = [law for watcher in watchers.values() for law in watcher.broken]
    assert not broken, broken
