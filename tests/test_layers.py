"""Test that imports point one way, and that each library is imported by its own modules only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import webchat_fsm

ROOT = Path(webchat_fsm.__file__).parent
MODEL = {"_json", "_errors", "_model"}
WORDS = MODEL | {"_config", "lifecycle"}
RUNTIME = WORDS | {"_bayeux", "socket", "_core", "_wire", "_runtime"}

ALLOWED: dict[str, set[str]] = {
    "_json": MODEL,
    "_model": MODEL | {"lifecycle"},
    "_errors": MODEL | {"lifecycle"},
    "lifecycle": MODEL | {"lifecycle"},
    "_config": WORDS | {"_config_checks"},
    "_config_checks": WORDS,
    "_bayeux": MODEL | {"_bayeux"},
    "_package": set(),
    "_core": WORDS | {"_bayeux", "_core"},
    "_wire": WORDS | {"_bayeux", "_core", "_wire"},
    "socket": MODEL | {"_bayeux", "socket", "_wire"},
    "_runtime": RUNTIME,
    "diagram": MODEL | {"lifecycle", "_bayeux", "diagram"},
    "server": MODEL | {"lifecycle", "server"},
    "testing": RUNTIME | {"_package", "diagram", "server", "testing"},
}
"""Parts of this package that each layer may import; the command line and the package itself may import anything."""

SOCKET = ("_bayeux.matcher", "_bayeux.socket")
"""Modules of the websocket: a layer of its own, as they read answers by `_wire`, which is above the connection."""

ONLY_IN: dict[str, set[str]] = {
    "transitions": {"_core/machine.py"},
    "urllib3": {
        "_runtime/http.py",
        "_runtime/connections.py",
        "_runtime/answers.py",
        "_wire/request.py",  # the pure function that encodes multipart
    },
    "time": {"_runtime/clock.py", "server/front.py"},
    "aiohttp": {"server/front.py"},
    "websockets": {"_bayeux/socket.py"},
    "socket": {"_runtime/answers.py", "_runtime/connections.py", "_runtime/sockets.py", "_runtime/job_queue.py"},
    "ssl": {"_runtime/answers.py", "_runtime/connections.py", "_runtime/tls.py"},
}
"""Modules that may import each library.

The server's front is independent of the runtime and its clock. The command line is not restricted.
"""

NAMES_TRANSPORTS = {
    "lifecycle/_transports.py",  # the enumeration and its capabilities
    "lifecycle/_legality.py",  # the reasons of rejections that depend on the transport
    "_config.py",  # the section of the configuration that chooses it
    "_wire/__init__.py",  # its dialect
    "testing/_bench.py",  # the configuration for the embedded server
}
"""Modules that name each transport; the others ask for capabilities (`Transport.can`) instead."""

DEFAULTS_ONLY = {
    "_cli/demo.py", "_cli/lifecycle.py", "_runtime/store.py", "_runtime/store_hooks.py", "diagram/__init__.py",
    "diagram/_files.py",
    "testing/_plugin.py",
}  # fmt: skip
"""Modules that name a transport as the default of an option, or as the only one of a function of the reference."""

IMPURE = {
    "asyncio", "datetime", "http", "io", "os", "pathlib", "random", "secrets", "select", "shutil", "signal",
    "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
"""Modules that sleep, wait, draw random numbers, read the time or do I/O: the deciding layers import none of them."""


HARMLESS = {"_wire/nexus_v3.py": {"uuid"}, "_model.py": {"datetime"}}
"""Exceptions: `uuid` makes unique operationIds, on which no decision depends; `datetime` only parses server times."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module, parsed once for all rules."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of all imports of a module, nested ones and those for type checkers included."""
    package = ["webchat_fsm", *path.relative_to(ROOT).parent.parts]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return layer_of(named(path).removesuffix(".py").replace("/", "."))


def layer_of(name: str) -> str:
    """Return the layer of a module, or of a name imported from one, by its name below the package."""
    return "socket" if name.startswith(SOCKET) else name.split(".")[0]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [one for one in modules() if layer(one) in ALLOWED], ids=named)
def test_imports_point_one_way(path):
    inner = {layer_of(name.removeprefix("webchat_fsm.")) for name in imports(path) if name.startswith("webchat_fsm.")}
    assert inner <= ALLOWED[layer(path)]


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_by_its_modules_only(library):
    importers = {
        named(path)
        for path in modules()
        if layer(path) != "_cli" and any(name.split(".")[0] == library for name in imports(path))
    }
    assert importers <= ONLY_IN[library]
    assert importers, f"no module imports {library}: the rule guards nothing"


@pytest.mark.parametrize(
    "path",
    [one for one in modules() if layer(one) in {"lifecycle", "_model", "_json", "_bayeux", "socket", "_core", "_wire"}],
    ids=named,
)
def test_deciding_layers_import_nothing_impure(path):
    impure = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert impure <= HARMLESS.get(named(path), set())


def test_every_part_of_the_package_has_its_layer():
    known = {*ALLOWED, "_cli", "__init__", "__main__"}
    assert {layer(path) for path in modules()} <= known


def test_runtime_reads_time_in_clock_module_only():
    """Keep time movable by tests: only the clock module reads it."""
    readers = {"_runtime/clock.py"}
    for path in modules():
        if layer(path) in {"_runtime", "testing"} and named(path) not in readers:
            calls = {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}
            assert not calls & {"now_utc", "utcnow", "perf_counter", "time_ns", "monotonic_ns"}, named(path)


def test_diagram_and_server_import_no_runtime_library():
    """Keep diagrams and the server usable without the libraries of the runtime."""
    for path in modules():
        if layer(path) in {"diagram", "server"}:
            assert not {name.split(".")[0] for name in imports(path)} & {"urllib3", "transitions"}, named(path)


def test_only_five_modules_name_each_transport():
    named = {
        str(path.relative_to(ROOT))
        for path in modules()
        if re.search(r"\bTransport\.(V2|COMETD|V3|V3_ASYNC)\b", path.read_text())
    }
    assert named - DEFAULTS_ONLY == NAMES_TRANSPORTS
