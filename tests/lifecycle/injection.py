"""Replace functions of the package by ones that raise, at every reference, and restore them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType

import webchat_fsm._wire

CORE = ("context", "exchange", "on_poll", "on_reply", "participants", "pushed", "saved_session", "transcript")
BAYEUX = ("connection", "rules")
MODULES = (
    *(f"webchat_fsm._core.{name}" for name in CORE),
    *(f"webchat_fsm._bayeux.{name}" for name in BAYEUX),
    *(f"webchat_fsm._wire.{info.name}" for info in pkgutil.iter_modules(webchat_fsm._wire.__path__)),
)
"""The wire layer, and the modules of the core and the Bayeux connection that handle responses."""


class InjectedError(RuntimeError):
    """Stands for a defect of the library."""


def _raising(*given: object, **named: object) -> object:
    import tests.lifecycle.injection as injection

    raise injection.InjectedError("injected")


def _raising_generator(*given: object, **named: object) -> Iterator[object]:
    import tests.lifecycle.injection as injection

    raise injection.InjectedError("injected")
    yield  # a generator function is replaced by one, as Python 3.13 warns of another kind


def functions() -> dict[str, FunctionType]:
    """Return every function and method of the modules by its qualified name."""
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
    """Return the names of the known functions that a call enters, in order."""
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
def injected(function: FunctionType) -> Iterator[None]:
    """Let a function raise `InjectedError`, also where a table or a class refers to it."""
    # Its code is replaced, not its name: dispatch tables hold references to the function itself.
    raising = _raising_generator if inspect.isgeneratorfunction(function) else _raising
    kept, code = function.__code__, raising.__code__
    if kept.co_freevars:  # such as a method with super(): replaced code must have the same free variables
        code = code.replace(co_freevars=kept.co_freevars)
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = kept
