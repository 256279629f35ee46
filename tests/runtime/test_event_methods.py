"""Test the generated overloads of `subscribe` and `wait_for`."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from webchat_fsm._runtime import methods as generated
from webchat_fsm._runtime.delivery import ChatEvent, Subscription
from webchat_fsm._runtime.methods import EventMethods
from webchat_fsm.lifecycle._events import EVENTS

ROOT = Path(generated.__file__).parents[2]


class Recorder(EventMethods):
    """Record the arguments that the typed methods pass on."""

    def __init__(self) -> None:
        self.subscribed: list[tuple[str, Callable[[ChatEvent[Any]], object]]] = []
        self.waited: list[tuple[str, float, object]] = []

    def _subscribe(self, event: str, handler: Callable[[ChatEvent[Any]], object]) -> Subscription:
        self.subscribed.append((event, handler))
        return Subscription(event, handler, lambda _: None)

    def _wait_for(self, event: str, timeout: float, where: Callable[[ChatEvent[Any]], bool] | None) -> ChatEvent[Any]:
        self.waited.append((event, timeout, where))
        return ChatEvent(event, None, 0.0)


def payloads(method: str, taken: int) -> dict[str, Any]:
    """Return the payload type of each event name, as the overloads of a method declare it."""
    types: dict[str, Any] = {}
    for overload in typing.get_overloads(getattr(EventMethods, method)):
        hints = typing.get_type_hints(overload)
        if hints["event"] is str or ("handler" in hints) is not bool(taken):
            continue
        for name in typing.get_args(hints["event"]):
            assert name not in types
            types[name] = hints["return"].__args__[0] if not taken else hints["handler"].__args__[0].__args__[0]
    return types


@pytest.mark.parametrize(("method", "taken"), [("subscribe", 1), ("subscribe", 0), ("wait_for", 0)])
def test_every_event_has_its_payload_in_the_overloads(method: str, taken: int):
    assert payloads(method, taken) == {name: event.payload or type(None) for name, event in EVENTS.items()}
    assert len(EVENTS) == 29


def test_subscribe_with_a_handler_returns_a_subscription():
    chat = Recorder()
    assert isinstance(chat.subscribe("ended", print), Subscription)
    assert chat.subscribed == [("ended", print)]


def test_subscribe_decorator_returns_its_function():
    chat = Recorder()

    def over(event: ChatEvent[None]) -> None: ...

    assert chat.subscribe("ended")(over) is over
    assert chat.subscribed == [("ended", over)]


def test_wait_for_passes_its_arguments_on():
    chat = Recorder()
    assert chat.wait_for("ended", timeout=2.0, where=bool).name == "ended"
    assert chat.waited == [("ended", 2.0, bool)]


def test_event_methods_alone_cannot_be_instantiated():
    with pytest.raises(TypeError, match="abstract"):
        EventMethods()  # type: ignore[abstract]


GOOD = """
from typing import Any, assert_type
from webchat_fsm.lifecycle._events import ParticipantChanged, Restored
from webchat_fsm._runtime.delivery import ChatEvent, Subscription
from webchat_fsm._runtime.methods import EventMethods

def use(chat: EventMethods, name: str) -> None:
    assert_type(chat.wait_for("agentConnected", timeout=1.0), ChatEvent[ParticipantChanged])
    assert_type(chat.wait_for("restored", 1.0, where=lambda event: event.data.is_async), ChatEvent[Restored])
    assert_type(chat.wait_for("ended", 1.0), ChatEvent[None])
    assert_type(chat.wait_for(name, 1.0), ChatEvent[Any])
    assert_type(chat.subscribe("restored", lambda event: event.data.is_async), Subscription)
    chat.subscribe(name, print)

    @chat.subscribe("restored")
    def back(event: ChatEvent[Restored]) -> int:
        return 1

    assert_type(back(ChatEvent("restored", Restored(), 0.0)), int)
"""
BAD = """
from webchat_fsm.lifecycle._events import Restored
from webchat_fsm._runtime.delivery import ChatEvent
from webchat_fsm._runtime.methods import EventMethods

def back(event: ChatEvent[Restored]) -> None: ...

def use(chat: EventMethods) -> None:
    chat.subscribe("ended", back)
    chat.subscribe("ended")(back)
    chat.subscribe("ended", lambda event: event.data.messages)
"""


def test_type_checker_rejects_handlers_of_wrong_payloads(tmp_path: Path):
    pytest.importorskip("mypy")
    for name, text in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.py").write_text(text)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=",
         "--cache-dir", os.devnull, "good.py", "bad.py"],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = [line.split(": ")[0] for line in found.stdout.splitlines() if "error:" in line]
    assert wrong == ["bad.py:9", "bad.py:10", "bad.py:11"], found.stdout + found.stderr
