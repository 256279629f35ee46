"""Ctrl-C may come wherever the main thread enters a function: nothing stays locked, half begun or unheard."""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path

import pytest

import webchat_fsm
from webchat_fsm import MemoryStore
from webchat_fsm.wire.request import HttpAnswer

ROOT = Path(webchat_fsm.__file__).parent
BESIDE = {Path(threading.__file__), Path(threading.__file__).with_name("contextlib.py")}
UNSAFE = {"_acquire_restore"}
"""Where the standard library itself would lose a lock of its own, while it starts a thread."""


class Interruption:
    """Raises `KeyboardInterrupt` as a function is entered for the n-th time, as CPython does for a signal."""

    def __init__(self, number: int):
        self.left = number
        self.where = ""

    def __enter__(self):
        self._before = sys.getprofile()
        sys.setprofile(self._look)
        return self

    def __exit__(self, *error):
        sys.setprofile(self._before)

    def _look(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or code.co_flags & inspect.CO_GENERATOR or code.co_name in UNSAFE:
            return
        if ROOT in (path := Path(code.co_filename)).parents or path in BESIDE:
            self.left -= 1
            if self.left == 0:
                self.where = f"{path.name} {code.co_name}, called by {frame.f_back.f_code.co_name}"
                sys.setprofile(None)
                raise KeyboardInterrupt


def send(chat):
    chat.send_message("hi")


def start(chat):
    chat.end_chat()
    chat.start_chat(nickname="Jonny")


def end(chat):
    chat.end_chat()


def lose(chat):
    chat._engine._http.operations["send"] = lambda request: HttpAnswer(status=404, headers={}, body=b"{}")
    chat.command("sendMessage", {"message": "hi"})


def close(chat):
    chat.close()


def reopen(chat):
    chat.close()
    chat.open()


DEEDS = [send, start, end, lose, close, reopen]


@pytest.fixture
def begun(wire, service):
    """Make a service whose chat has begun, and is polled by threads."""

    def begin():
        chat = service(wire(), store=MemoryStore())
        chat.open()
        chat.start_chat(nickname="Jonny")
        return chat

    return begin


def walk(begun, deed, check, stride: int) -> int:
    """Interrupt a deed at each of its points, or at every so-manieth; gives how many those were."""
    kept: list[BaseException] = []
    for points, number in enumerate(range(1, 100_000, stride)):
        chat = begun()
        interruption = Interruption(number)
        try:
            with interruption:
                deed(chat)
        except KeyboardInterrupt as error:
            kept.append(error)  # as an `except` clause has it: its frames live on, so that no generator in them ends
        except BaseException as error:
            error.add_note(interruption.where)
            raise
        if not interruption.where:
            return points
        try:
            check(chat)
            kept.clear()
        except BaseException as error:
            error.add_note(interruption.where)
            raise
        chat.close()
    raise AssertionError("it never comes to an end")


@pytest.fixture
def all_is_well(in_threads, eventually):
    """What holds after an interruption, wherever it came."""

    def check(chat):
        engine = chat._engine
        assert not engine.outbox.delivering_here
        assert engine.user_code.depth == 0
        assert chat.state not in ("starting", "restoring")
        if chat.state == "polling":
            polls = engine._http.count("refresh")
            eventually(lambda: engine._http.count("refresh") > polls)
        if engine.session.opened:
            chat.command("getStats")
            assert not engine.outbox.pending
        closed = []
        in_threads(lambda: closed.append(chat.close()), join=True)
        assert closed == [True]
        chat.open()
        if chat.state in ("idle", "ended"):
            chat.start_chat(nickname="Jonny")

    return check


@pytest.mark.parametrize("deed", DEEDS)
def test_an_interrupted_deed_leaves_no_lock_taken_and_nothing_half_begun(begun, all_is_well, deed):
    assert walk(begun, deed, all_is_well, stride=13) > 5


@pytest.mark.soak
@pytest.mark.parametrize("deed", DEEDS)
def test_wherever_a_deed_is_interrupted_no_lock_stays_taken_and_nothing_half_begun(begun, all_is_well, deed):
    assert walk(begun, deed, all_is_well, stride=1) > 50
