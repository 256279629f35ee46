"""Where the lines come from that somebody types: a prompt that stays below the output, or plain input."""

from __future__ import annotations

import asyncio
import codecs
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from webchat_fsm.cli.options import whole

PATIENCE = 0.5
"""Seconds between two looks for Ctrl-C, which not every system lets through while a thread waits."""


class Lines(Protocol):
    """Lines, one after the other; `value` is what stands in the line that is being typed."""

    type: str

    @property
    def value(self) -> str:
        """The unfinished line, where it is known."""
        ...

    def read(self) -> str | None:
        """The next line, None at the end of the input and after `stop`."""
        ...

    def stop(self) -> None:
        """Let `read` return None, from any thread."""
        ...

    def refresh(self) -> None:
        """What is shown beside the prompt has changed."""
        ...


class PlainLines:
    """Standard input, read by a thread of its own, so that the end of the chat need not wait for a line."""

    type = "text"
    value = ""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._source = sys.stdin.fileno()
        threading.Thread(target=self._take, name="webchat-fsm-input", daemon=True).start()

    def read(self) -> str | None:
        """The next line."""
        while True:
            with suppress(queue.Empty):
                return self._lines.get(timeout=PATIENCE)

    def stop(self) -> None:
        """Let `read` return None; lines that came before are still given out."""
        self._lines.put(None)

    def refresh(self) -> None:
        """Nothing is shown beside plain input."""

    def _take(self) -> None:
        """Read the descriptor itself: who holds the lock of `sys.stdin` at exit would crash the interpreter."""
        for line in split_lines(self._chunks()):
            self._lines.put(line)
        self._lines.put(None)

    def _chunks(self) -> Iterator[bytes]:
        while chunk := os.read(self._source, 65536):
            yield chunk


def split_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Text lines out of bytes as they come, the last one even without its end; bad UTF-8 is replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (line.rstrip("\r") for line in whole)
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


class PromptLines:
    """A prompt of prompt_toolkit, with a status line below it; an input for the typing preview."""

    type = "text"

    def __init__(self, prompt: str, status: Callable[[], str], words: Iterable[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.styles import Style

        self._stopped = False
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", f"{prompt}> ")],
            bottom_toolbar=lambda: [("class:bottom-toolbar", f" {status()} ")],
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
            style=Style.from_dict({"prompt": "bold ansigreen", "bottom-toolbar": "noreverse ansibrightblack"}),
        )

    @property
    def value(self) -> str:
        """What is being typed, unless it is a command of this program."""
        text = whole(self._session.default_buffer.text)
        return "" if text.startswith("/") else text

    def read(self) -> str | None:
        """The next line; raises `KeyboardInterrupt` on Ctrl-C."""
        try:
            return whole(self._session.prompt(pre_run=self._leave_if_stopped))
        except EOFError:
            return None
        except asyncio.CancelledError:  # what asyncio makes of a Ctrl-C while the prompt is only being set up
            raise KeyboardInterrupt from None

    def stop(self) -> None:
        """Let `read` return None."""
        self._stopped = True
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # the prompt has ended meanwhile; the next one looks before it begins
                loop.call_soon_threadsafe(self._leave_if_stopped)

    def refresh(self) -> None:
        """Draw the status line anew."""
        self._session.app.invalidate()

    def _leave_if_stopped(self) -> None:
        app = self._session.app
        if self._stopped and app.is_running and not app.is_done:
            app.exit(exception=EOFError)


@contextmanager
def below_the_output() -> Iterator[None]:
    """While this lasts, what is printed appears above the prompt."""
    from prompt_toolkit.patch_stdout import patch_stdout

    with patch_stdout(raw=True):
        yield
