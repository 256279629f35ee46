"""How a command can end: the exit codes, the one line on standard error, and what is missing for it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

DONE, FAILED, MISUSED = 0, 1, 2

EXTRAS: dict[str, tuple[str, ...]] = {
    "server": ("aiohttp", "multipart"),
    "terminal": ("prompt_toolkit", "rich"),
}
"""The packages that each optional extra brings."""


class MissingExtraError(Exception):
    """A command needs optional packages that are not installed; the text says how to install them."""


def require(*extras: str) -> None:
    """Raise `MissingExtraError` unless all packages of these extras can be imported."""
    missing = [package for extra in extras for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        names = ",".join(extras)
        install = f"pip install 'webchat-fsm[{names}]', or '.[{names}]' in a checkout"
        raise MissingExtraError(f"this command needs {' and '.join(missing)}: {install}")


def complain(text: str) -> None:
    """Say in one line on standard error what went wrong."""
    line = " ".join(text.split())
    print(f"webchat-fsm: {line}", file=sys.stderr)
