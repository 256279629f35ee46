"""``webchat-fsm diagram``: write what is generated from the lifecycle table, or compare it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from webchat_fsm.cli.ending import DONE, FAILED, complain
from webchat_fsm.cli.options import Subparsers, describe

MEND = "out of date: run `webchat-fsm diagram` and commit what it writes"


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "diagram",
        run,
        "write the diagrams and tables of the lifecycle",
        "Write the diagrams (mermaid, dot, svg, json) and tables of the lifecycle into a folder, as far as they have"
        " changed. In a source checkout the generated modules of the package are brought up to date too.",
        "webchat-fsm diagram --check",
    )
    parser.add_argument("--folder", type=Path, default=Path("diagrams"), help="where they lie (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if anything differs")


def run(options: Namespace) -> int:
    """Exit code 1 where `--check` finds a difference."""
    from webchat_fsm.diagram.files import check, checkout, write
    from webchat_fsm.diagram.svg import MissingExtraError

    try:
        paths = (check if options.check else write)(options.folder, checkout())
    except MissingExtraError as missing:
        complain(str(missing))
        return FAILED
    for path in paths:
        print(f"{'differs' if options.check else 'written'}: {path}")
    if not paths:
        print(f"{options.folder} is up to date")
    elif options.check:
        complain(MEND)
    return FAILED if options.check and paths else DONE
