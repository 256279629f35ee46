"""Check the imports and exports of the server's modules."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import webchat_fsm.server as package

MODULES = {path.stem: ast.parse(path.read_text()) for path in Path(package.__file__).parent.glob("*.py")}


def imports(tree: ast.Module) -> set[str]:
    """Return the top-level names that a module imports; the server's own modules are a dot."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add("." if module.startswith("webchat_fsm.server") else module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("aiohttp", {"front"}),
        ("asyncio", {"front"}),
        ("time", {"front"}),
        ("socket", set()),
        ("python_multipart", {"_http"}),
        ("random", {"_chat"}),
        ("urllib3", set()),
        ("webchat_fsm", {"_bayeux", "_faults", "_gms", "_gms_rest", "_http", "front"}),
    ],
)
def test_library_is_imported_by_listed_modules_only(library, importers):
    assert {name for name, tree in MODULES.items() if library in imports(tree)} == importers


def test_no_module_imports_front():
    for tree in MODULES.values():
        assert not any(isinstance(n, ast.ImportFrom) and n.level and n.module == "front" for n in ast.walk(tree))


def test_all_lists_every_public_name():
    public = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(package.__all__) == public - {"annotations"}
