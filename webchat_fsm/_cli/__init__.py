"""The command line: ``webchat-fsm``, which is also ``python -m webchat_fsm``.

Each command module has `add`, which describes its command to a parser, and a `run`, which returns the exit code. The
module is imported when its command is given, as the help of all of them needs none of a chat. Optional packages are
imported inside `run`, so that the other commands work without them.
"""

from __future__ import annotations

import io
import os
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any

from webchat_fsm._cli.command import FAILED, MISUSED, print_error
from webchat_fsm._errors import ConfigError, WebChatError

EPILOG = """\
exit code: 0 done, 1 failed, 2 wrong use
environment: WEBCHAT_FSM_API_KEY holds the API key for chat and serve; NO_COLOR turns colours off
example: webchat-fsm demo
"""


COMMANDS = {
    "demo": "watch a whole chat, with failures, against the embedded server",
    "chat": "chat from the terminal, against any server",
    "serve": "the embedded chat server on a port, with scripted people",
    "table": "print which command is legal in which state",
    "diagram": "write the diagrams and tables of the lifecycle",
    "docs": "write all documents of the lifecycle, and the explorer page",
    "replay": "replay a recorded session",
}
"""The commands in the order of the help, with what each does."""


def _describer(command: str) -> Callable[[ArgumentParser], None]:
    """Import the module of a command, and return its function that describes it to a parser."""
    # By statements, not by a name that is put together: tools that pack a program find its modules by those.
    match command:
        case "demo":
            from webchat_fsm._cli.demo import add
        case "chat":
            from webchat_fsm._cli.chat import add
        case "serve":
            from webchat_fsm._cli.serve import add
        case "table":
            from webchat_fsm._cli.lifecycle import add_table as add
        case "diagram":
            from webchat_fsm._cli.lifecycle import add_diagram as add
        case "docs":
            from webchat_fsm._cli.lifecycle import add_docs as add
        case _:
            from webchat_fsm._cli.replay import add
    return add


class _CommandParser(ArgumentParser):
    """The parser of one command, which the module of the command describes once the command is given."""

    def __init__(self, *, command: str, **given: Any) -> None:
        super().__init__(**given)
        self._command: str | None = command

    def parse_known_args(self, *given: Any, **named: Any) -> Any:
        """Parse the arguments behind the command, its `--help` included."""
        if self._command is not None:
            _describer(self._command)(self)
            self._command = None
        return super().parse_known_args(*given, **named)


class _Version(Action):
    """Print the installed version; an action of its own, as reading the metadata costs each start 20 ms."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: object, option_string: str | None = None
    ) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("webchat-fsm")
        except PackageNotFoundError:
            number = "(run from its source, not installed)"
        print(f"webchat-fsm {number}")
        parser.exit()


def parser() -> ArgumentParser:
    """Build the parser of all commands."""
    top = ArgumentParser(
        prog="webchat-fsm",
        description="The customer side of a Genesys web chat, on an explicit state machine.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(metavar="COMMAND", title="commands", parser_class=_CommandParser)
    for command, brief in COMMANDS.items():
        commands.add_parser(command, help=brief, command=command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return the exit code: 0 done, 1 failed, 2 wrong use."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal with a narrow encoding shows an escape for a character that it lacks, in place of an error.
            stream.reconfigure(errors="backslashreplace")
    top = parser()
    try:
        options = top.parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    # Not `required=True` of argparse: without a command the whole help is more use than an error.
    if "run" not in options:
        top.print_help()
        return MISUSED
    return _run(options)


def _run(options: Namespace) -> int:
    try:
        code = int(options.run(options))
        # Here, as a closed pipe would otherwise fail the flush at exit, after the exit code is decided.
        sys.stdout.flush()
        return code
    except ConfigError as error:
        print_error(str(error))
        return MISUSED
    except BrokenPipeError:
        _discard_output()
    except KeyboardInterrupt:
        print_error("interrupted")
    except OSError as error:
        # `str` would begin with the number of the error, and end with the name of the file.
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except WebChatError as error:
        print_error(str(error))
    return FAILED


def _discard_output() -> None:
    """Point standard output at the null device after its reader (``| head``) has closed the pipe."""
    # Python flushes the buffer once more at exit, which would fail again and print a traceback.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
