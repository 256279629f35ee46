"""``webchat-fsm table``, ``diagram`` and ``docs``: print the legality table, draw, write documents and the explorer."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from webchat_fsm._cli.command import DONE, FAILED, describe, print_error
from webchat_fsm._cli.output import coloured
from webchat_fsm._errors import WebChatError
from webchat_fsm.diagram._documents import NEVER, YES, grid, terminal_table
from webchat_fsm.diagram._graph import Graph
from webchat_fsm.diagram._lifecycle_json import legality_json
from webchat_fsm.lifecycle._transports import Transport

ALL = "all"

PAGE = Path("explorer.html")
"""The page that is written without `--html`; not part of the folder, which holds what is committed."""

# Headings are broken so that eight states fit beside the commands in 80 columns.
HEADINGS = {"starting": "start-\ning", "polling": "poll-\ning", "offline": "off-\nline", "restoring": "restor-\ning"}
STYLES = {YES: "green", NEVER: "dim"}


def add_table(parser: ArgumentParser) -> None:
    """Describe the command `table` and its options to its parser."""
    describe(
        parser,
        print_table,
        "The legality table: the commands down, the states across. A number stands for the literal text of the"
        " rejection, which is listed below the table.",
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


def add_diagram(parser: ArgumentParser) -> None:
    """Describe the command `diagram` and its options to its parser."""
    from webchat_fsm.diagram import FORMATS, Part, Theme

    describe(
        parser,
        draw,
        "Write the diagrams and tables of the lifecycle into a folder, those that have changed. With one of the options"
        " of a single drawing print that drawing to standard output, and write no file.",
        "webchat-fsm diagram --check",
        "webchat-fsm diagram --transport v3-async --theme dark --format svg > v3-async.svg",
        "webchat-fsm diagram --transport v2 --part outage --format mermaid",
        "webchat-fsm diagram --walked chat.jsonl --part start-and-end > chat.svg",
    )
    parser.add_argument("--folder", type=Path, default=Path("diagrams"), help="the folder (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file differs")
    single = parser.add_argument_group("a single drawing")
    transports = [*(one.value for one in Transport), ALL]
    for option, choices, meaning in (
        ("--machine", ["lifecycle", "bayeux"], "the machine (default: lifecycle)"),
        ("--transport", transports, "the transport of the lifecycle (default: all, or that of the recording)"),
        ("--part", [one.value for one in Part], "a part of the machine (default: the whole)"),
        ("--theme", [one.value for one in Theme], "the colours (default: auto, by the viewer's preference)"),
        ("--format", [*FORMATS], "the format (default: svg)"),
    ):
        single.add_argument(option, choices=choices, metavar="NAME", help=f"{meaning}: {', '.join(choices)}")
    single.add_argument("--walked", type=Path, metavar="FILE", help="a recording, whose transitions are counted")


def add_docs(parser: ArgumentParser) -> None:
    """Describe the command `docs` and its options to its parser."""
    describe(
        parser,
        write_docs,
        "Write the diagrams and tables of the lifecycle into a folder, as `diagram` does, and the explorer: one HTML"
        " page, to open from the disk, that shows the lifecycle, simulates it and plays back recordings. With --html"
        " the page alone.",
        "webchat-fsm docs",
        "webchat-fsm docs --html explorer.html --recording chat.jsonl",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help=f"write the page alone, to FILE (default: {PAGE})")
    parser.add_argument(
        "--recording", type=Path, metavar="FILE", help="open the page with this file of webchat_fsm.testing.Recorder"
    )
    parser.add_argument("--folder", type=Path, default=Path("diagrams"), help="the folder (default: %(default)s)")


def draw(options: Namespace) -> int:
    """Print the single drawing that the options name, or write or compare the folder."""
    given = [options.machine, options.transport, options.part, options.theme, options.format, options.walked]
    if not any(given):
        return write_documents(options)
    if options.check:
        raise WebChatError("--check compares the whole folder: leave out the options of a single drawing")
    return print_drawing(options)


def print_drawing(options: Namespace) -> int:
    """Print one drawing to standard output, as text or as the bytes of a picture."""
    from webchat_fsm.diagram import DEFAULT
    from webchat_fsm.diagram._formats import ENGINES, rendered

    form = options.format or "svg"
    if form in ENGINES:
        _check_whole_machine(options)
    try:
        graph = _graph(options)
    except ValueError as error:
        raise WebChatError(str(error)) from error
    # Outside of the `try`: an error of a renderer is a defect, not a wrong option.
    drawn = rendered(graph, form, DEFAULT.with_theme(options.theme or "auto"))
    # The bytes of a picture are no text, and standard output may be a stream without a buffer.
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(drawn.decode())
    else:
        sys.stdout.flush()
        buffer.write(drawn)
    return DONE


def _check_whole_machine(options: Namespace) -> None:
    """Raise `WebChatError` for an option that a format of foreign engines would ignore, or that it needs."""
    one_transport = options.transport not in (None, ALL) and options.machine != "bayeux"
    if not one_transport or options.part or options.theme or options.walked:
        raise WebChatError(
            f"--format {options.format} has the whole lifecycle on one transport: name it with --transport, and leave"
            " out --part, --theme and --walked"
        )


def _graph(options: Namespace) -> Graph[Any]:
    """Return the graph that the options name; raises ValueError for a part that it lacks."""
    from webchat_fsm.diagram import Part, bayeux, lifecycle, walked

    part = Part(options.part) if options.part else None
    if options.machine == "bayeux":
        if options.transport or options.walked:
            raise ValueError("the Bayeux connection has no transports and is not recorded: leave out those options")
        return bayeux(part)
    recording = None
    if options.walked:
        from webchat_fsm.testing import Recording

        recording = Recording.read(options.walked)
    name = options.transport or (recording.transport.value if recording else ALL)
    seen = lifecycle(None if name == ALL else Transport(name), part)
    if recording is None:
        return seen
    return walked(seen, [(step.source, step.trigger, step.dest) for step in recording.transitions])


def documents(folder: Path, *, checked: bool = False) -> list[Path]:
    """Bring the generated files of a folder and of its sequences up to date, or compare them (`checked`).

    Returns the paths of those that were written, or that are missing, differ, or are generated no more.
    """
    from webchat_fsm.diagram import check, write
    from webchat_fsm.diagram._files import SEQUENCES
    from webchat_fsm.testing._sequence import FILES as STORY_FILES

    bring = check if checked else write
    return [*bring(folder), *bring(folder / SEQUENCES, STORY_FILES)]


def write_documents(options: Namespace) -> int:
    """Write the generated files, or with `--check` compare them; exit code 1 if one differs."""
    if options.check and not options.folder.is_dir():
        raise WebChatError(f"there is no folder {options.folder}: name the folder of the diagrams with --folder")
    paths = documents(options.folder, checked=options.check)
    for path in paths:
        print(f"{('differs' if path.exists() else 'missing') if options.check else 'written'}: {path}")
    if not paths:
        print(f"{options.folder} is up to date")
    elif options.check:
        print_error("out of date: run `webchat-fsm diagram` and commit the files that it writes")
    return FAILED if options.check and paths else DONE


def write_docs(options: Namespace) -> int:
    """Write the files, and print the path of each that is written.

    Raises `WebChatError` for a recording that cannot be read; nothing is written then.
    """
    from webchat_fsm.diagram._explorer import page

    text = page(None if options.recording is None else _checked(options.recording))
    target = options.html or PAGE
    if options.html is None:
        for path in documents(options.folder):
            print(f"written: {path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Bytes, so that no platform changes the line ends, which would change the hashes of the policy.
    target.write_bytes(text.encode())
    print(f"written: {target}")
    return DONE


def _checked(path: Path) -> bytes:
    """Return the bytes of a recording; raises `WebChatError` where it is none, before a page is made of it."""
    from webchat_fsm.testing import Recording, RecordingError

    content = path.read_bytes()
    try:
        Recording.parse(content)
    except RecordingError as error:
        raise WebChatError(f"{path}: {error}") from error
    return content


def print_table(options: Namespace) -> int:
    """Print the legality table of each chosen transport, or with `--json` one list of all cells."""
    # People read one table at a time; a program filters the whole.
    name = options.transport or (ALL if options.json else Transport.V2.value)
    chosen = [one for one in Transport if name in (ALL, one.value)]
    if options.json:
        cells = [cell for cell in legality_json() if cell["transport"] in chosen]
        # One cell a line: readable, and `grep` finds a cell, while the whole remains one JSON value.
        print("[\n" + ",\n".join(f" {json.dumps(cell)}" for cell in cells) + "\n]")
        return DONE
    for transport in chosen:
        # Without colours the plain table, which can be pasted anywhere.
        if coloured(sys.stdout):
            _print_coloured(transport)
        else:
            print(f"{transport}\n\n{terminal_table(transport)}")
    return DONE


def _print_coloured(transport: Transport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = grid(transport)
    table = Table(title=f"legal commands on {transport}", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(cells.header[0], header_style="bold", no_wrap=True)
    for state in cells.header[1:]:
        heading = HEADINGS.get(state, state.replace("-", "-\n"))
        table.add_column(heading, justify="center", header_style="bold", vertical="bottom")
    for number, (command, *marks) in enumerate(cells.rows):
        texts = (Text(mark, STYLES.get(mark, "red")) for mark in marks)
        # Every second line is shaded, as the eye has to cross eight columns.
        table.add_row(command, *texts, style="" if number % 2 else "on grey11")
    notes = Table.grid(padding=(0, 2))
    for mark, text in (*cells.notes.items(), (NEVER, f"a session on {transport} is never in this state")):
        notes.add_row(Text(str(mark), STYLES.get(str(mark), "red")), Text(text))
    Console(highlight=False, markup=False).print(table, notes, "", sep="\n")
