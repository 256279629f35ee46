"""Imports point one way, and what only one module may know is known to that one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import webchat_fsm

ROOT = Path(webchat_fsm.__file__).parent
WORDS = {"lifecycle", "config", "errors"}
RUNTIME = WORDS | {"core", "wire", "runtime"}

ALLOWED: dict[str, set[str]] = {
    "lifecycle": WORDS,
    "config": WORDS,
    "errors": WORDS,
    "logs": set(),
    "core": WORDS | {"core"},
    "wire": WORDS | {"core", "wire"},
    "runtime": RUNTIME,
    "diagram": {"lifecycle", "diagram"},
    "server": {"lifecycle", "errors", "server"},
    "testing": RUNTIME | {"server", "testing"},
}
"""What each layer may import of this package; what is not named (the command line, the roof) may import anything."""

ONLY_IN: dict[str, set[str]] = {
    "transitions": {"core/machine.py"},
    "urllib3": {"runtime/http.py"},
    "time": {"runtime/clock.py", "server/front.py"},
    "aiohttp": {"server/front.py"},
    "websockets": {"runtime/websocket.py"},
    "socket": {"runtime/http.py", "runtime/sockets.py"},
    "ssl": {"runtime/http.py", "runtime/sockets.py"},
}
"""Who may import what.

The server's front is a host of its own, which knows nothing of the runtime and its clock. The command line is free.
"""

IMPURE = {
    "asyncio", "datetime", "http", "io", "os", "pathlib", "random", "secrets", "select", "shutil", "signal",
    "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
"""What sleeps, waits, draws lots, tells the time or touches the world: nothing for the layers that decide."""


HARMLESS = {"wire/nexus_v3.py": {"uuid"}, "lifecycle/words.py": {"datetime"}}
"""An operationId has to be unlike every other, and nothing is decided by it; a time that a server told is read."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a module, read once for all rules."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a module imports, anywhere in it, for type checkers too."""
    package = ["webchat_fsm", *path.relative_to(ROOT).parent.parts]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [one for one in modules() if layer(one) in ALLOWED], ids=named)
def test_imports_point_one_way(path):
    inner = {name.split(".")[1] for name in imports(path) if name.startswith("webchat_fsm.")}
    assert inner <= ALLOWED[layer(path)]


@pytest.mark.parametrize("library", ONLY_IN)
def test_what_one_module_knows_no_other_imports(library):
    importers = {
        named(path)
        for path in modules()
        if layer(path) != "cli" and any(name.split(".")[0] == library for name in imports(path))
    }
    assert importers <= ONLY_IN[library]
    assert importers, f"nobody imports {library}: the rule guards nothing"


@pytest.mark.parametrize("path", [one for one in modules() if layer(one) in {"lifecycle", "core", "wire"}], ids=named)
def test_the_layers_that_decide_touch_nothing(path):
    touched = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert touched <= HARMLESS.get(named(path), set())


def test_every_part_of_the_package_has_its_layer():
    known = {*ALLOWED, "cli", "__init__", "__main__"}
    assert {layer(path) for path in modules()} <= known


def test_the_core_reads_no_clock_in_disguise():
    """`datetime.now()` and the like would be time that nobody can move by hand; what is frozen can be."""
    readers = {"runtime/clock.py", "runtime/frozen.py"}
    for path in modules():
        if layer(path) in {"runtime", "testing"} and named(path) not in readers:
            calls = {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}
            assert not calls & {"now_utc", "utcnow", "perf_counter", "time_ns", "monotonic_ns"}, named(path)


def test_the_theory_of_the_lifecycle_is_shared_by_nothing_that_draws_or_serves():
    """Drawing and serving must work without the runtime's libraries."""
    for path in modules():
        if layer(path) in {"diagram", "server"}:
            assert not {name.split(".")[0] for name in imports(path)} & {"urllib3", "transitions"}, named(path)
