"""Interrupt the main thread at the entry of functions: no lock stays held, no step half done, no event undelivered."""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path

import pytest

import webchat_fsm
from tests.limits import SOON
from webchat_fsm import MemoryStore
from webchat_fsm._wire.request import HttpAnswer

ROOT = Path(webchat_fsm.__file__).parent
BESIDE = {Path(threading.__file__), Path(threading.__file__).with_name("contextlib.py")}
UNSAFE = {"_acquire_restore"}
"""Functions in which the standard library would lose a lock of its own as it starts a thread."""


class Interruption:
    """Raise `KeyboardInterrupt` as a function is entered for the n-th time, as CPython does for a signal."""

    def __init__(self, number: int):
        self.left = number
        self.where = ""

    def __enter__(self):
        self._before = sys.getprofile()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error):
        sys.setprofile(self._before)

    def _profile(self, frame, event, argument):
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


ACTIONS = [send, start, end, lose, close, reopen]


@pytest.fixture(params=["in a worker", "parked"])
def polling_chat(request, wire, late_wire, service, monkeypatch):
    """Make a service with a chat that is polled on threads."""
    monkeypatch.setattr(late_wire, "seconds", 0.02)
    transport = wire if request.param == "in a worker" else late_wire

    def begin():
        chat = service(transport(), store=MemoryStore())
        chat.open()
        chat.start_chat(nickname="Jonny")
        return chat

    return begin


def interrupt_each(polling_chat, action, check, stride: int) -> int:
    """Interrupt an action at every `stride`-th function entry; return the number of interruptions."""
    kept: list[BaseException] = []
    for points, number in enumerate(range(1, 100_000, stride)):
        chat = polling_chat()
        interruption = Interruption(number)
        try:
            with interruption:
                action(chat)
        except KeyboardInterrupt as error:
            kept.append(error)  # as in an `except` clause, its frames stay alive: no generator in them is closed
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
    raise AssertionError("the action never completed without an interruption")


@pytest.fixture
def works_afterwards(in_threads, eventually):
    """Check that no lock or step is left behind and that the chat works, after an interruption anywhere."""

    def check(chat):
        engine = chat._engine
        assert not engine.event_queue.delivering_here
        assert engine.user_code.depth == 0
        assert chat.state not in ("starting", "restoring")
        if chat.state == "polling":
            polls = engine._http.count("refresh")
            eventually(lambda: engine._http.count("refresh") > polls)
        if engine.session.opened:
            chat.command("getStats")
            assert not engine.event_queue.pending
        closed = []
        in_threads(lambda: closed.append(chat.close(SOON)), join=True)
        assert closed == [True]
        chat.open()
        if chat.state in ("idle", "ended"):
            chat.start_chat(nickname="Jonny")

    return check


@pytest.mark.parametrize("action", ACTIONS)
def test_interruption_leaves_no_lock_and_no_step_half_done(polling_chat, works_afterwards, action):
    assert interrupt_each(polling_chat, action, works_afterwards, stride=29) > 2


@pytest.mark.soak
@pytest.mark.parametrize("action", ACTIONS)
def test_interruption_at_every_entry_leaves_no_lock(polling_chat, works_afterwards, action):
    assert interrupt_each(polling_chat, action, works_afterwards, stride=1) > 50
