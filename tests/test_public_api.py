"""Test the public names: complete, sorted, documented and of the promised kinds."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import pickle
import pydoc
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import webchat_fsm
import webchat_fsm.testing
from webchat_fsm import CommandRejected, ConfigError, State, TransportError, WaitTimeout, WebChatError, WebChatService
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import COMMANDS

PROMISED = {
    "WebChatService", "Bus", "State", "Outcome", "ChatEvent", "BusEvent", "Config", "Message", "Participant",
    "Response", "Receipt", "SessionData", "Subscription", "MemoryStore", "FileStore", "ThreadDriver", "ManualDriver",
    "WebChatError", "CommandRejected", "TransportError", "ConfigError", "StoreError", "WaitTimeout", "ChatClosed",
    "HandlerWaitError",
}  # fmt: skip

PUBLIC = [getattr(webchat_fsm, name) for name in webchat_fsm.__all__]


def test_every_promised_name_is_public():
    assert set(webchat_fsm.__all__) >= PROMISED


def test_payload_struct_of_each_event_is_public():
    payloads = {event.payload.__name__ for event in EVENTS.values() if event.payload is not None}
    assert payloads <= set(webchat_fsm.__all__)


def imported_for_type_checkers(module: types.ModuleType) -> dict[str, str]:
    """Return the modules of the names that a package imports for type checkers only."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "typing.TYPE_CHECKING"
    found = {alias.asname: one.module for one in block.body for alias in one.names if alias.asname == alias.name}
    assert len(found) == len(block.body), "a checker takes a name as public by `import name as name`"
    return found


@pytest.mark.parametrize("package", [webchat_fsm, webchat_fsm.testing], ids=lambda package: package.__name__)
def test_type_checkers_and_python_see_the_same_names(package):
    checked = imported_for_type_checkers(package)
    assert package.__all__ == sorted(checked)
    for name, module in checked.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    bound = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert bound == {"public_names"}
    assert set(dir(package)) >= {*checked, "__all__", "__doc__"}


def test_star_import_binds_each_public_name():
    bound: dict[str, object] = {}
    exec("from webchat_fsm import *", bound)
    assert bound.keys() - {"__builtins__"} == set(webchat_fsm.__all__)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'webchat_fsm' has no attribute 'WebChatServise'") as failed:
        _ = webchat_fsm.WebChatServise
    assert (failed.value.name, failed.value.obj) == ("WebChatServise", webchat_fsm)  # by which Python adds a hint
    with pytest.raises(ImportError, match="cannot import name 'WebChatServise'"):
        exec("from webchat_fsm import WebChatServise")


def test_help_describes_the_public_names():
    text = pydoc.render_doc(webchat_fsm, renderer=pydoc.plaintext)
    assert [name for name in webchat_fsm.__all__ if name not in text] == []


def test_public_instances_survive_pickling():
    saved = pickle.dumps([webchat_fsm.State.IDLE, webchat_fsm.Message(text="Hi"), webchat_fsm.WaitTimeout("late")])
    code = "import pickle, sys; print(*map(repr, pickle.loads(sys.stdin.buffer.read())))"
    done = subprocess.run([sys.executable, "-c", code], input=saved, capture_output=True, check=True)
    shown = done.stdout.decode()
    assert ("<State.IDLE: 'idle'>" in shown, "Message(" in shown, "WaitTimeout('late')" in shown) == (True, True, True)


def members(cls: type) -> list[tuple[str, object]]:
    """Return the public functions and properties that a class or its bases in this package define."""
    return [
        (name, member)
        for base in cls.__mro__
        if base.__module__.startswith("webchat_fsm")
        for name, member in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod))
    ]


@pytest.mark.parametrize("cls", [one for one in PUBLIC if inspect.isclass(one)], ids=lambda cls: cls.__name__)
def test_every_public_class_and_method_has_a_docstring(cls):
    assert vars(cls).get("__doc__"), cls
    undocumented = [name for name, member in members(cls) if not inspect.getdoc(member)]
    assert undocumented == []


def test_each_command_but_poll_and_configure_has_a_method():
    def snake(name: str) -> str:
        return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)

    for name in COMMANDS.keys() - {"poll", "configure"}:
        method = getattr(WebChatService, snake(name))
        assert inspect.isfunction(method), name
    assert not hasattr(WebChatService, "poll")
    assert not hasattr(WebChatService, "configure")


def test_service_has_the_other_promised_members():
    members = "open close state command can legal_commands explain subscribe wait_for events step health fetch"
    assert [name for name in members.split() if not hasattr(WebChatService, name)] == []


def test_signatures_are_stable():
    assert [*inspect.signature(WebChatService).parameters][:4] == ["config", "store", "http", "driver"]
    assert inspect.signature(WebChatService.close).parameters["timeout"].default == 2.0
    assert inspect.signature(WebChatService.close).parameters["end"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [*inspect.signature(WebChatService.wait_for).parameters] == ["self", "event", "timeout", "where"]
    assert inspect.signature(WebChatService.events).parameters["silence"].default is None


def test_states_are_strings():
    assert issubclass(State, enum.StrEnum)
    assert {str(state) for state in State} == {
        "idle", "starting", "active", "polling", "offline", "restoring", "async-dormant", "ended",
    }  # fmt: skip
    assert {state for state in State if state.has_session} == {"active", "polling", "offline"}


def test_errors_form_one_tree():
    errors = [one for one in PUBLIC if inspect.isclass(one) and issubclass(one, BaseException)]
    assert all(issubclass(one, WebChatError) for one in errors)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(WaitTimeout, TimeoutError)
    assert not issubclass(CommandRejected, TransportError)


FROZEN = ["Message", "Participant", "Response", "SessionData", "ChatEvent", "BusEvent", "Config"]


@pytest.mark.parametrize("name", FROZEN)
def test_public_structs_are_frozen(name):
    struct = getattr(webchat_fsm, name)
    assert issubclass(struct, msgspec.Struct)
    assert struct.__struct_config__.frozen


def test_package_has_a_py_typed_marker():
    assert (Path(webchat_fsm.__file__).parent / "py.typed").exists()


OPAQUE = {webchat_fsm.Recorder}
"""Classes whose methods only the library calls: they take records of the core, whose form is not promised."""


def named_in(hint: object) -> Iterator[type]:
    """Yield the classes of this package that an annotation names, anywhere in it."""
    if isinstance(hint, list | tuple):
        for inner in hint:
            yield from named_in(inner)
        return
    for part in (hint, typing.get_origin(hint)):
        if inspect.isclass(part) and part.__module__.startswith("webchat_fsm"):
            yield part
    yield from named_in(typing.get_args(hint))


def signatures(cls: type) -> Iterator[object]:
    """Yield a class and its public functions, overloads included, which may have annotations."""
    yield cls
    for base in cls.__mro__:
        for name, member in vars(base).items() if base.__module__.startswith("webchat_fsm") else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
                yield function
                yield from typing.get_overloads(function)


def hints(annotated: object) -> dict[str, object]:
    try:
        return typing.get_type_hints(annotated)
    except NameError:  # a name that its module imports for type checkers only
        return typing.get_type_hints(
            annotated, localns={name: getattr(webchat_fsm, name) for name in webchat_fsm.__all__}
        )


@pytest.mark.parametrize("cls", [one for one in PUBLIC if inspect.isclass(one)], ids=lambda cls: cls.__name__)
def test_types_in_signatures_are_importable(cls):
    if cls in OPAQUE:
        pytest.skip("its methods are called by the library alone")
    missing = {
        found.__qualname__
        for annotated in signatures(cls)
        for name, hint in hints(annotated).items()
        if not name.startswith("_")
        for found in named_in(hint)
        if getattr(webchat_fsm, found.__name__, None) is not found
    }
    assert missing == set()


PUBLIC_MODULES = {"", ".diagram", ".lifecycle", ".server", ".server.front", ".testing"}


def test_modules_not_listed_as_public_are_private():
    import pkgutil

    found = {
        module.name.removeprefix("webchat_fsm")
        for module in pkgutil.walk_packages(webchat_fsm.__path__, "webchat_fsm.")
        if not any(part.startswith("_") for part in module.name.split("."))
    }
    assert found == PUBLIC_MODULES - {""}


@pytest.mark.parametrize("name", sorted(PUBLIC_MODULES - {".server.front"}))
def test_public_modules_list_their_names(name):
    module = importlib.import_module(f"webchat_fsm{name}")
    assert module.__doc__
    assert set(module.__all__) <= set(dir(module))
