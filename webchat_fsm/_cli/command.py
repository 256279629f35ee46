"""Parts shared by the commands: their parsers, types of arguments, exit codes and the error line."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any

# 2 is also the code of argparse for wrong use.
DONE, FAILED, MISUSED = 0, 1, 2

API_KEY = "WEBCHAT_FSM_API_KEY"
"""The environment variable with the API key: every user of a machine can read the arguments of its processes."""

WAIT = 0.5
"""Seconds of one wait of the main thread; on Windows an untimed wait for a lock cannot be interrupted by Ctrl-C."""


def describe(parser: ArgumentParser, run: Callable[[Namespace], int], full: str, *examples: str) -> None:
    """Give a command's parser its description and `run`; the help ends with examples, each a line that works."""
    shown = "\n".join(f"  {example}" for example in examples)
    # argparse wraps nothing with this formatter, which keeps the lines of the examples.
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = fill(full, 78)
    parser.epilog = f"example:\n{shown}" if len(examples) == 1 else f"examples:\n{shown}"
    parser.set_defaults(run=run)


def print_error(text: str) -> None:
    """Print a text on standard error, as one line that names the program."""
    # One line, however the text of an exception is broken: programs read standard error by lines.
    print(f"webchat-fsm: {' '.join(text.split())}", file=sys.stderr)


# -- types of arguments --------------------------------------------------------------------------------------------


def unicode(text: str) -> str:
    """Decode the bytes that Python keeps as surrogates, where the terminal's encoding lacks them, as UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def pair(separator: str, kind: str) -> Callable[[str], tuple[str, str]]:
    """Return a reader of ``name<separator>value``; its error omits the value, which may be a secret."""

    def read(given: str) -> tuple[str, str]:
        name, found, value = unicode(given).partition(separator)
        if not found or not name.strip():
            raise ArgumentTypeError(f"expected a {kind} as 'name{separator}value'")
        return name.strip(), value.strip()

    return read


# Only text that looks like a file name is repeated in an error; anything else may be a configuration with a secret.
_FILE_NAME = re.compile(r"[\w./\\ ~-]+\.\w{1,8}")


def json_object(given: str) -> dict[str, Any]:
    """Read a JSON object, or the file that holds one; an error omits its content, which may be a secret."""
    expected = "expected a JSON object or the name of a JSON file"
    try:
        # Anything that begins like JSON is JSON, so that a mistake in it is not reported as a missing file.
        text = given if given.lstrip()[:1] in ("{", "[", '"') else Path(given).read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        name = f"{given}: " if _FILE_NAME.fullmatch(given) else ""
        raise ArgumentTypeError(f"{expected}: {name}{error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError):
        # RecursionError is what the decoder raises for thousands of nested objects.
        raise ArgumentTypeError(f"{expected}, got invalid JSON") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"{expected}, got a JSON {type(value).__name__}")
    return value


def count(given: str) -> int:
    """Read a whole number from 1 on; raises `ArgumentTypeError` for any other text, as all these readers do."""
    if not given.isdecimal() or int(given) < 1:
        raise ArgumentTypeError(f"expected a whole number, at least 1, got {given!r}")
    return int(given)


def port(given: str) -> int:
    """Read a port number from 0 to 65535; 0 lets the system choose a free one."""
    if not given.isdecimal() or int(given) > 65535:
        raise ArgumentTypeError(f"expected a port from 0 to 65535, got {given!r}")
    return int(given)


def seconds(given: str) -> float:
    """Read a duration in seconds, a finite number from 0 on."""
    try:
        value = float(given)
    except ValueError:
        # Rejected below, with the same text as a negative number; `nan` fails that comparison too.
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"expected a number of seconds, at least 0, got {given!r}")
    return value
