"""What the modules of the server may import, and what they export."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import webchat_fsm.server as package

MODULES = {path.stem: ast.parse(path.read_text()) for path in Path(package.__file__).parent.glob("*.py")}


def imports(tree: ast.Module) -> set[str]:
    """Top-level names of what a module imports; the server's own modules are a dot."""
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
        ("python_multipart", {"multiparts"}),
        ("random", {"ids"}),
        ("urllib3", set()),
        ("webchat_fsm", {"bayeux", "exchange", "faults", "forms", "front", "gms_files", "gms_operations"}),
    ],
)
def test_only_importers(library, importers):
    assert {name for name, tree in MODULES.items() if library in imports(tree)} == importers


def test_nobody_imports_the_front():
    for tree in MODULES.values():
        assert not any(isinstance(n, ast.ImportFrom) and n.level and n.module == "front" for n in ast.walk(tree))


def test_all_names_what_there_is():
    public = {name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(package.__all__) == public - {"annotations"}
