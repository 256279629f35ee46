"""Print the measures by which the code is compared: modules, comments, and the calls under one command.

Run it as `python -m tests.benchmarks.craft`. The calls are counted by `sys.setprofile` over the package's own Python
functions, the embedded server left out, on the third request of a chat over a real connection. With `--tree` every call
is printed too, indented below its caller.
"""

from __future__ import annotations

import io
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import FrameType

import webchat_fsm
from webchat_fsm import ManualDriver, WebChatService
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront

ROOT = Path(webchat_fsm.__file__).parent


class Calls:
    """Count the calls into the package while a function runs: calls, functions, files, changes of file, depth."""

    def __init__(self) -> None:
        self.count = self.changes = self.depth = self.deepest = 0
        self.functions: set[tuple[str, str]] = set()
        self.files: set[str] = set()
        self.tree: list[str] = []
        self._stack: list[str] = []

    def under(self, function: Callable[[], object]) -> Calls:
        """Run a function in this thread and count."""
        sys.setprofile(self._event)
        try:
            function()
        finally:
            sys.setprofile(None)
        return self

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        # resuming a generator is a call too; the server in this process runs on a thread without a profile function
        if not name.startswith(str(ROOT)) or "/server/" in name:
            return
        if event == "call":
            self.count += 1
            self.functions.add((name, frame.f_code.co_qualname))
            self.files.add(name)
            place = f"{name.removeprefix(str(ROOT))[1:]}:{frame.f_code.co_qualname}"
            self.tree.append(f"{'  ' * len(self._stack)}{place}")
            self.changes += bool(self._stack) and self._stack[-1] != name
            self._stack.append(name)
            self.deepest = max(self.deepest, len(self._stack))
        elif event == "return" and self._stack:
            self._stack.pop()


def comment_share(paths: list[Path]) -> tuple[int, int]:
    """Return the lines that hold a `#` comment, and all lines."""
    comments = lines = 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        lines += text.count("\n")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += sum(one.type == tokenize.COMMENT for one in tokens)
    return comments, lines


def main() -> None:
    """Print both tables."""
    paths = sorted(ROOT.rglob("*.py"))
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    comments, lines = comment_share(paths)
    small, large = sum(n < 60 for n in lengths), sum(n > 400 for n in lengths)
    print(f"modules {len(paths)} ({small} under 60 lines, {large} over 400), lines {lines}, median {median(lengths)}")
    print(f"lines with a # comment {comments} ({comments / lines:.1%})")
    with HttpFront(ChatServer()) as front:
        chat = WebChatService({"dataURL": front.data_url()}, driver=ManualDriver())
        with chat:
            chat.start_chat(nickname="Jonny")
            chat.send_message("warm")
            chat.step()
            sent = Calls().under(lambda: chat.send_message("hi"))
            polled = Calls().under(chat.step)
            for name, calls in (("send_message", sent), ("step", polled)):
                print(
                    f"{name}: {calls.count} calls, {len(calls.functions)} functions, {len(calls.files)} files,"
                    f" {calls.changes} changes of file, depth {calls.deepest}"
                )
                if "--tree" in sys.argv:
                    print("\n".join(calls.tree))


if __name__ == "__main__":
    main()
