"""Test that exceptions keep their attributes when they are copied, pickled or raised in another process."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import webchat_fsm
from tests.limits import LONG, examples
from webchat_fsm import CommandRejected, ConfigError, State, TransportError, WaitTimeout, WebChatError, WebChatService
from webchat_fsm._model import Response
from webchat_fsm._runtime.outcome import Receipt

EXTRAS = {"aiohttp", "websockets", "rich", "prompt_toolkit", "wasmtime", "python_multipart", "pytest"}
COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda error: pickle.loads(pickle.dumps(error))}


@cache
def exception_classes() -> list[type[WebChatError]]:
    """Return every exception class of all modules that can be imported here."""
    for module in pkgutil.walk_packages(webchat_fsm.__path__, "webchat_fsm."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                if (error.name or "").partition(".")[0] not in EXTRAS:
                    raise
    found, new = [], [WebChatError]
    while new:
        cls = new.pop()
        found.append(cls)
        new += [one for one in cls.__subclasses__() if one.__module__.startswith("webchat_fsm.")]
    return sorted(found, key=lambda cls: cls.__qualname__)


ARGUMENTS = {
    "CommandRejected": lambda text: ((text, text), {"state": State.POLLING, "legal_in": [State.IDLE]}),
    "ConfigError": lambda text: ((text, text), {}),
    "IllegalTransition": lambda text: ((text, text), {}),
    "PoolFull": lambda text: ((len(text), 1.5), {}),
    "TransportError": lambda text: ((text,), {"response": Response(status=502, errors=[{"text": text}])}),
    "UnsendableError": lambda text: ((text,), {"reason": text}),
}


def test_tree_holds_the_known_exceptions():
    names = {cls.__name__ for cls in exception_classes()}
    assert names >= {*ARGUMENTS, "StoreError", "WaitTimeout", "ChatClosed", "HandlerWaitError", "RecordingError"}


@pytest.mark.parametrize("way", COPIES)
@settings(max_examples=examples(10))
@given(text=st.text(max_size=20), cause=st.none() | st.builds(ValueError, st.text(max_size=5)))
def test_every_exception_copies_and_pickles(way, text, cause):
    for cls in exception_classes():
        args, named = ARGUMENTS.get(cls.__name__, lambda text: ((text,), {}))(text)
        error = cls(*args, **named)
        error.__cause__ = cause
        error.add_note("a note")
        duplicate = COPIES[way](error)
        assert type(duplicate) is cls
        assert duplicate is not error
        assert (str(duplicate), duplicate.args, vars(duplicate)) == (str(error), error.args, vars(error))
        assert repr(duplicate.__cause__) == repr(cause)
        assert duplicate.__suppress_context__ == error.__suppress_context__


@pytest.fixture
def rejected():
    error = CommandRejected("sendMessage", "disconnected", state=State.POLLING)
    error.receipt = Receipt(3, "unknown", lambda receipt, timeout: False)
    return error


@pytest.mark.parametrize("way", ["copy", "deepcopy"])
def test_copied_rejection_shares_the_receipt(rejected, way):
    assert COPIES[way](rejected).receipt is rejected.receipt


def test_pickled_rejection_has_no_receipt(rejected):
    assert COPIES["pickle"](rejected).receipt is None


class Unloadable(Exception):
    """Pickle without an error, and fail to unpickle."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} {right}")


def test_unpicklable_cause_is_replaced_by_its_text():
    error = TransportError("send: lost")
    error.__cause__ = Unloadable("a", "b")
    duplicate = COPIES["pickle"](error)
    assert type(duplicate.__cause__) is WebChatError
    assert str(duplicate.__cause__) == "Unloadable: a b"


def test_wait_timeout_is_a_timeout_error_without_errno():
    duplicate = COPIES["pickle"](WaitTimeout("too late"))
    assert isinstance(duplicate, TimeoutError)
    assert (str(duplicate), duplicate.errno) == ("too late", None)


def test_config_error_keeps_path_and_expectation():
    duplicate = COPIES["pickle"](ConfigError("$.a", "expected b"))
    assert (duplicate.path, duplicate.expected) == ("$.a", "expected b")


def send_unopened() -> None:
    """Run in a process of the pool."""
    WebChatService({"dataURL": "https://chat.example.com/genesys/2/chat/x"}).send_message("hello")


def test_rejection_is_raised_from_a_worker_process(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(CommandRejected) as caught:
            pool.submit(send_unopened).result(LONG)
        assert (caught.value.command, caught.value.state) == ("sendMessage", State.IDLE)
        assert pool.submit(len, "alive").result(LONG) == 5
