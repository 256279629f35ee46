"""Everything that is generated and committed: where it lies, who renders it, and whether it is what it should be.

A committed file is compared byte for byte, so nothing rendered may hold a date, a version or an accident of order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from webchat_fsm.diagram import as_json, dot, event_face, markdown, mermaid, svg
from webchat_fsm.diagram.graph import graph
from webchat_fsm.lifecycle.table import Transport

Renderer = Callable[[], str]


def _mermaid_of(transport: Transport) -> Renderer:
    return lambda: mermaid.render(graph(transport))


FILES: dict[str, Renderer] = {
    "lifecycle.mmd": lambda: mermaid.render(graph()),
    **{f"lifecycle-{transport}.mmd": _mermaid_of(transport) for transport in Transport},
    "lifecycle.dot": lambda: dot.render(graph()),
    "lifecycle.svg": lambda: svg.render(graph()),
    "lifecycle-v2.svg": lambda: svg.render(graph(Transport.V2)),
    "lifecycle.json": as_json.render,
    "legality.md": markdown.legality_page,
    "lifecycle.md": markdown.lifecycle_page,
    "events.md": markdown.events_page,
}
"""What the folder of diagrams holds, and nothing else."""

MODULES: dict[str, Renderer] = {"runtime/event_face.py": event_face.render}
"""Modules of the package itself that are generated, by their place in it.

One that is broken keeps the package from being imported, and so from mending it: take it back from version control.
"""


def checkout() -> Path | None:
    """The folder of this package where it lies in a source checkout, beside `pyproject.toml`.

    None where it is installed: what an installer has put there is not rewritten, and cannot have drifted.
    """
    package = Path(__file__).resolve().parents[1]
    return package if (package.parent / "pyproject.toml").is_file() else None


def write(folder: Path, package: Path | None = None) -> list[Path]:
    """Bring every file up to date, modules too where a package is given; the paths that have changed."""
    changed = list(_drifted(folder, package))
    for path, content in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return [path for path, _ in changed]


def check(folder: Path, package: Path | None = None) -> list[Path]:
    """The paths that are missing or differ, then those in the folder that nothing generates."""
    expected = {folder / name for name in FILES}
    extra = sorted(path for path in folder.rglob("*") if path.is_file() and path not in expected)
    return [path for path, _ in _drifted(folder, package)] + extra


def _drifted(folder: Path, package: Path | None) -> Iterator[tuple[Path, bytes]]:
    wanted = {folder / name: render for name, render in FILES.items()}
    if package is not None:
        wanted |= {package / name: render for name, render in MODULES.items()}
    rendered = {path: render().encode() for path, render in wanted.items()}
    for path, content in rendered.items():
        if not path.is_file() or path.read_bytes() != content:
            yield path, content
