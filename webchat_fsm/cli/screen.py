"""Where lines for people go: plain text into a pipe or a file, colours by rich on a terminal.

The stream is looked up each time, so that a prompt that keeps its place below the output can put itself in between.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 80

Part = tuple[str, str]
"""A style's name and a text."""

STYLES = {
    "agent": "bold cyan",
    "customer": "bold green",
    "other": "bold magenta",
    "notice": "dim italic",
    "trouble": "bold red",
    "scene": "bold",
    "dim": "dim",
    "command": "bold blue",
    "state": "bold yellow",
    "event": "green",
    "plain": "",
}


def coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody has asked for none."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def wide(stream: TextIO) -> bool:
    """Whether a stream can show more than ASCII."""
    return (stream.encoding or "ascii").lower().startswith("utf")


class Screen:
    """Prints lines from any thread. A reader that has gone is noted, and told to `on_broken`, but raises nothing here.

    `wrap` breaks long lines at the width of the terminal, or at 80 columns, under their text.
    """

    def __init__(self, *, colour: bool, wrap: bool, on_broken: Callable[[], None] = lambda: None) -> None:
        self.console = _console() if colour else None
        self.broken = False
        self._wrap = wrap
        self._on_broken = on_broken
        self._lock = threading.Lock()

    def put(self, *parts: Part, text: str = "", style: str = "plain") -> None:
        """Print a line: its parts, then a text in a style, which is broken under itself where it is too long."""
        indent = sum(len(part) for _, part in parts)
        first, *rest = self._broken(text, indent)
        self._print([*parts, (style, first)])
        for line in rest:
            self._print([("plain", " " * indent), (style, line)])

    def check(self) -> None:
        """Raise `BrokenPipeError` where the reader has gone."""
        if self.broken:
            raise BrokenPipeError

    def _broken(self, text: str, indent: int) -> list[str]:
        if not self._wrap:
            return [text]
        room = (shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH) - indent
        return textwrap.wrap(text, max(20, room), break_on_hyphens=False) or [""]

    def _print(self, parts: list[Part]) -> None:
        with self._lock:
            if self.broken:
                return
            try:
                self._write(parts)
            except BrokenPipeError:
                self.broken = True
        if self.broken:
            self._on_broken()

    def _write(self, parts: list[Part]) -> None:
        if self.console is None:
            sys.stdout.write("".join(text for _, text in parts).rstrip() + "\n")
            sys.stdout.flush()
            return
        from rich.text import Text

        line = Text.assemble(*((text, STYLES[style]) for style, text in parts))
        self.console.print(line, soft_wrap=True, highlight=False)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)
