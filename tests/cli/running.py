"""Run commands in this process, or as real processes on pipes or on a pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.limits import LONG
from webchat_fsm._cli import main

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "webchat_fsm")
TIMEOUT = LONG

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Za-z0-9]?|\x07")


def environment(**more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if name not in {"WEBCHAT_FSM_API_KEY", "NO_COLOR"}}
    return {**bare, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **more}


def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, text=True, capture_output=True, env=environment(**more), timeout=TIMEOUT
    )


def run_inline(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as `run` does, but in this process: starting Python takes longer than most commands."""
    printed, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with TemporaryFile("w+", encoding="utf-8") as lines, pytest.MonkeyPatch.context() as patch:
        lines.write(stdin)
        lines.seek(0)
        for name, stream in {"stdin": lines, "stdout": printed, "stderr": errors}.items():
            patch.setattr(sys, name, stream)
        for name in {*os.environ} - {*environment()}:
            patch.delenv(name)
        for name, value in more.items():
            patch.setenv(name, value)
        code = main(arguments)
        texts = []
        for stream in (printed, errors):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess(arguments, code, *texts)


class Running:
    """Run a process and collect its output as it arrives."""

    def __init__(self, *arguments: str, terminal: bool = False, **more: str) -> None:
        self._own_end: int | None = None
        process_end = subprocess.PIPE
        if terminal:
            self._own_end, process_end = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=process_end,
            stdout=process_end,
            stderr=process_end,
            env=environment(**more),
            start_new_session=True,
            preexec_fn=_take_terminal if terminal else None,
        )
        if terminal:
            os.close(process_end)
        self.printed = ""
        self.errors = ""
        self._changed = threading.Condition()
        self._readers = [threading.Thread(target=self._collect, args=("printed", self._output()))]
        if not terminal:
            self._readers.append(threading.Thread(target=self._collect, args=("errors", self.process.stderr.fileno())))
        for reader in self._readers:
            reader.start()

    def _output(self) -> int:
        return self.process.stdout.fileno() if self._own_end is None else self._own_end

    def _collect(self, where: str, source: int) -> None:
        while chunk := _read(source):
            if b"\x1b[6n" in chunk:  # prompt_toolkit asks a terminal for its cursor position
                self.type("\x1b[1;1R")
            with self._changed:
                setattr(self, where, getattr(self, where) + CONTROL.sub("", chunk.decode(errors="replace")))
                self._changed.notify_all()

    def until(self, text: str, times: int = 1) -> str:
        """Wait until a text has been printed a number of times; return all output."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.printed.count(text) >= times, TIMEOUT), self.printed
            return self.printed

    def type(self, text: str) -> None:
        os.write(self.process.stdin.fileno() if self._own_end is None else self._own_end, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C on a terminal; send SIGINT elsewhere."""
        if self._own_end is None:
            self.process.send_signal(signal.SIGINT)
        else:
            self.type("\x03")

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(TIMEOUT)
        for reader in self._readers:
            reader.join(TIMEOUT)
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._own_end is not None:
            os.close(self._own_end)


def _take_terminal() -> None:
    """Make the new terminal the controlling one, so that Ctrl-C sends SIGINT to the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # Linux raises EIO when the other side of a terminal is closed
        return b""
