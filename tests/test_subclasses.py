"""Test that a method overriding one of a foreign class accepts all arguments that the base accepts."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from inspect import Parameter
from socket import socket

import pytest

import webchat_fsm

NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
PLACED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# Constructors are called on the class itself; `__reduce__` is called without arguments, unlike its C signature.
EXCEPT = {"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__reduce__"}


def classes() -> set[type]:
    """Return every class of the package, those with foreign bases included."""
    for module in pkgutil.walk_packages(webchat_fsm.__path__, "webchat_fsm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = set(), [object]
    while left:
        for one in type.__subclasses__(left.pop()):
            if one not in found:
                found.add(one)
                left.append(one)
    return {one for one in found if str(one.__module__).partition(".")[0] == "webchat_fsm"}


def overridden() -> Iterator[tuple[type, type, str]]:
    """Yield every method of the package that overrides one of a foreign base: class, base and name."""
    for ours in sorted(classes(), key=lambda one: one.__qualname__):
        for base in ours.__mro__[1:]:
            if base is object or base.__module__.partition(".")[0] in ("webchat_fsm", "typing"):
                continue
            for name, method in vars(ours).items():
                if name in EXCEPT or not inspect.isfunction(method) or not callable(vars(base).get(name)):
                    continue
                if method.__module__ == ours.__module__:  # otherwise another module, such as `enum`, has added it
                    yield ours, base, name


def lacking(ours: Callable[..., object], base: Callable[..., object]) -> list[str]:
    """Return the arguments that the base accepts and ours does not."""
    mine = list(inspect.signature(ours).parameters.values())
    kinds = {one.kind for one in mine}
    args, kwargs = Parameter.VAR_POSITIONAL in kinds, Parameter.VAR_KEYWORD in kinds
    try:
        theirs = list(inspect.signature(base).parameters.values())
    except ValueError:  # a method of C without a signature
        return [] if args and kwargs else ["*args, **kwargs"]
    places = [one for one in mine if one.kind in PLACED]
    faults = [str(one) for one in theirs if one.kind is Parameter.VAR_POSITIONAL and not args]
    faults += [str(one) for one in theirs if one.kind is Parameter.VAR_KEYWORD and not kwargs]
    for place, one in enumerate(theirs):
        if one.kind in PLACED and place >= len(places) and not args:
            faults.append(f"{one} as number {place}")
        if one.kind in NAMED and place and not kwargs and not any(m.name == one.name and m.kind in NAMED for m in mine):
            faults.append(f"{one.name}=")
    required = [one for one in mine if one.default is Parameter.empty and one.kind in (*PLACED, Parameter.KEYWORD_ONLY)]
    needed = [one for one in theirs if one.default is Parameter.empty and one.kind in (*PLACED, Parameter.KEYWORD_ONLY)]
    if len(required) > len(needed):
        faults.append("fewer arguments")
    return faults


FOUND = sorted(set(overridden()), key=str)


def test_overridden_methods_are_found():
    assert {(ours.__name__, base.__name__, name) for ours, base, name in FOUND} >= {
        ("_Response", "HTTPResponse", "_read_status"),
        ("_Opener", "HTTPConnection", "_new_conn"),
        ("_Opener", "HTTPConnection", "connect"),
        ("_CookiePolicy", "DefaultCookiePolicy", "set_ok"),
    }


@pytest.mark.parametrize(("ours", "base", "name"), FOUND, ids=[f"{o.__name__}-{b.__name__}-{n}" for o, b, n in FOUND])
def test_overridden_method_accepts_arguments_of_its_base(ours, base, name):
    assert lacking(vars(ours)[name], vars(base)[name]) == []


@pytest.mark.parametrize(
    ("ours", "base"),
    [
        (lambda self, *given: None, socket.sendto),
        (lambda self, block=False: None, lambda self, block=False, *, keep=True: None),
        (lambda self, a: None, lambda self, b: None),
        (lambda self, a, b: None, lambda self, a, b=1: None),
        (lambda self: None, lambda self, a: None),
        (lambda self, **more: None, lambda self, a: None),
    ],
)
def test_narrower_method_is_reported(ours, base):
    assert lacking(ours, base)


def test_package_has_no_subclass_of_socket():
    import _socket

    assert not [one for one in classes() if issubclass(one, _socket.socket)]
