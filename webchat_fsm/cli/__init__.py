"""The command line: ``webchat-fsm``, which is also ``python -m webchat_fsm``.

One module a command. Each has `add`, which describes it to the parser, and `run`, which does it and gives the exit
code. What a command needs beyond the library itself is imported
when it runs, so that the others work without it.
"""

from __future__ import annotations

import io
import os
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from webchat_fsm.cli import chat, demo, diagram, replay, serve, table
from webchat_fsm.cli.ending import FAILED, MISUSED, MissingExtraError, complain
from webchat_fsm.errors import ConfigError, WebChatError

COMMANDS = (demo, chat, serve, table, diagram, replay)

EPILOG = """\
exit code: 0 done, 1 failed, 2 wrong use
environment: WEBCHAT_FSM_API_KEY holds the API key for chat and serve; NO_COLOR turns colours off
example: webchat-fsm demo
"""


class _Version(Action):
    """Prints the installed version; looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: object, option_string: str | None = None
    ) -> None:
        try:
            number = version("webchat-fsm")
        except PackageNotFoundError:
            number = "(run from its source, not installed)"
        print(f"webchat-fsm {number}")
        parser.exit()


def parser() -> ArgumentParser:
    """Everything that can be typed."""
    top = ArgumentParser(
        prog="webchat-fsm",
        description="The customer side of a Genesys web chat, on an explicit state machine.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; the exit code: 0 done, 1 failed, 2 wrong use."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    top = parser()
    try:
        options = top.parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    if "run" not in options:
        top.print_help()
        return MISUSED
    return _run(options)


def _run(options: Namespace) -> int:
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except ConfigError as error:
        complain(str(error))
        return MISUSED
    except BrokenPipeError:
        _leave_the_pipe()
    except KeyboardInterrupt:
        complain("interrupted")
    except (WebChatError, MissingExtraError, OSError) as error:
        complain(str(error))
    return FAILED


def _never_fail_to_encode(stream: object) -> None:
    """On a narrow terminal a character that it lacks is spelt out."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _leave_the_pipe() -> None:
    """The reader has gone (``| head``): what is still buffered must not fail again when Python flushes it at exit."""
    void = os.open(os.devnull, os.O_WRONLY)
    os.dup2(void, sys.stdout.fileno())
    os.close(void)
