"""Defects planted into the functions of the package, wherever they are referred to, and taken out again."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType

import webchat_fsm.wire

CORE = ("content", "link", "on_reply", "participants", "transcript", "turn")
MODULES = (
    *(f"webchat_fsm.core.{name}" for name in CORE),
    *(f"webchat_fsm.wire.{info.name}" for info in pkgutil.iter_modules(webchat_fsm.wire.__path__)),
)
"""The wire layer, and what handles answers in the core."""


class PlantedError(RuntimeError):
    """The defect."""


def _raising(*given: object, **named: object) -> object:
    import tests.lifecycle.planted as planted

    raise planted.PlantedError("planted")


def functions() -> dict[str, FunctionType]:
    """Every function and method of those modules by its full name."""
    found: dict[str, FunctionType] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) == name:
                for function in _within(thing):
                    found[f"{name}.{function.__qualname__}"] = function
    return found


def _within(thing: object) -> Iterator[FunctionType]:
    if isinstance(thing, FunctionType):
        yield thing
    elif inspect.isclass(thing):
        for member in vars(thing).values():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and not function.__name__.startswith(("__", "_replace", "_make")):
                yield function


def called_in(act: Callable[[], object], known: dict[str, FunctionType]) -> list[str]:
    """The names of those functions that an act calls."""
    by_code: dict[CodeType, str] = {function.__code__: name for name, function in known.items()}
    called: dict[str, None] = {}

    def watch(frame, event, argument):
        if event == "call" and frame.f_code in by_code:
            called[by_code[frame.f_code]] = None

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return list(called)


@contextmanager
def planted(function: FunctionType) -> Iterator[None]:
    """Let a function raise, through whatever name, table or class it is reached."""
    kept, code = function.__code__, _raising.__code__
    if kept.co_freevars:  # such as a method that says super()
        code = code.replace(co_freevars=kept.co_freevars)
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = kept
