"""``webchat-fsm table``: which command is legal in which state, transport by transport."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from webchat_fsm.cli.ending import DONE, require
from webchat_fsm.cli.options import Subparsers, describe
from webchat_fsm.cli.screen import coloured
from webchat_fsm.diagram.as_json import legality_json
from webchat_fsm.diagram.markdown import NEVER, YES, grid, terminal_table
from webchat_fsm.lifecycle.table import Transport

ALL = "all"
SYLLABLES = {"starting": "start-\ning", "polling": "poll-\ning", "offline": "off-\nline", "restoring": "restor-\ning"}
"""Headings that are broken so that all states fit beside the commands in 80 columns."""


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "table",
        run,
        "which command is legal in which state",
        "The legality table: the commands down, the states across. A number stands for the literal text of the refusal,"
        " which is listed below the table.",
        "webchat-fsm table --transport v2",
        "webchat-fsm table --transport all --json | jq '.[] | select(.legal | not)'",
    )
    choices = [*(one.value for one in Transport), ALL]
    parser.add_argument(
        "--transport",
        choices=choices,
        metavar="NAME",
        default=None,
        help=f"{', '.join(choices)} (default: v2; with --json: all)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects, one for each cell")


def run(options: Namespace) -> int:
    """Print it."""
    asked = options.transport or (ALL if options.json else Transport.V2.value)
    chosen = [one for one in Transport if asked in (ALL, one.value)]
    if options.json:
        cells = [cell for cell in legality_json() if cell["transport"] in chosen]
        print("[\n" + ",\n".join(f" {json.dumps(cell)}" for cell in cells) + "\n]")
        return DONE
    show = _coloured if coloured(sys.stdout) else _plain
    for transport in chosen:
        show(transport)
    return DONE


def _plain(transport: Transport) -> None:
    print(f"{transport}\n\n{terminal_table(transport)}")


def _coloured(transport: Transport) -> None:
    require("terminal")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = grid(transport)
    title = f"which command is legal where on {transport}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(shown.header[0], header_style="bold", no_wrap=True)
    for state in shown.header[1:]:
        heading = SYLLABLES.get(state, state.replace("-", "-\n"))
        table.add_column(heading, justify="center", header_style="bold", vertical="bottom")
    for number, (command, *marks) in enumerate(shown.rows):
        cells = (Text(mark, STYLE.get(mark, "red")) for mark in marks)
        table.add_row(command, *cells, style="" if number % 2 else "on grey11")
    console = Console(highlight=False, markup=False)
    console.print(table)
    notes = Table.grid(padding=(0, 2))
    told = {str(number): text for number, text in shown.notes.items()}
    for mark, text in {**told, NEVER: f"a session on {transport} is never in this state"}.items():
        notes.add_row(Text(mark, STYLE.get(mark, "red")), Text(text))
    console.print(notes, "")


STYLE = {YES: "green", NEVER: "dim"}
