"""What the commands share in the description of themselves."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any, TypeAlias

Subparsers: TypeAlias = "_SubParsersAction[ArgumentParser]"

API_KEY = "WEBCHAT_FSM_API_KEY"
"""The environment variable with the API key: arguments can be seen by everybody on a machine, so it is none."""


def describe(
    commands: Subparsers, name: str, run: Callable[[Namespace], int], brief: str, full: str, *examples: str
) -> ArgumentParser:
    """A command's own parser; its help ends with examples, each a line that works."""
    shown = "\n".join(f"  {example}" for example in examples)
    parser = commands.add_parser(
        name,
        help=brief,
        description=fill(full, 78),
        epilog=f"example:\n{shown}" if len(examples) == 1 else f"examples:\n{shown}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def whole(text: str) -> str:
    """A text without the surrogates that stand for bytes where a terminal's encoding lacks them: they are UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def pair(separator: str, kind: str) -> Callable[[str], tuple[str, str]]:
    """A reader of ``name<separator>value``; its error never shows the value, which may be a secret."""

    def read(given: str) -> tuple[str, str]:
        name, found, value = whole(given).partition(separator)
        if not found or not name.strip():
            raise ArgumentTypeError(f"expected a {kind} as 'name{separator}value'")
        return name.strip(), value.strip()

    return read


_JSON_BEGINS = ("{", "[", '"')
_NAME_OF_FILE = re.compile(r"[\w./\\ ~-]+\.\w{1,8}")
"""What cannot be anything but the name of a file, and so may be shown."""


def section(given: str) -> dict[str, Any]:
    """A JSON object, or the file that holds one; an error never shows what is in it, which may be a secret."""
    try:
        text = given if given.lstrip()[:1] in _JSON_BEGINS else Path(given).read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        file = f"the file {given}: " if _NAME_OF_FILE.fullmatch(given) else ""
        told = error.strerror or "it cannot be read"
        raise ArgumentTypeError(f"expected a JSON object or its file: {file}{told}") from None
    except (ValueError, RecursionError):
        raise ArgumentTypeError("expected a JSON object or its file: it is not valid JSON") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError("expected a JSON object or its file: it holds no object")
    return value


def port(given: str) -> int:
    """A port number; 0 lets the system choose."""
    if not given.isdecimal() or int(given) > 65535:
        raise ArgumentTypeError(f"expected a port from 0 to 65535, got {given!r}")
    return int(given)


def seconds(given: str) -> float:
    """A duration in seconds."""
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"expected seconds, got {given!r}")
    return value
