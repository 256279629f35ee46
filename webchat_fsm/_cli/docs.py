"""``webchat-fsm docs``: write everything that is drawn or tabulated from the lifecycle, and the explorer page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from webchat_fsm._cli.command import DONE, describe
from webchat_fsm._errors import WebChatError

PAGE = Path("explorer.html")
"""The page that is written without `--html`; not part of the folder, which holds what is committed."""


def add(parser: ArgumentParser) -> None:
    """Describe the command `docs` and its options to its parser."""
    describe(
        parser,
        run,
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


def run(options: Namespace) -> int:
    """Write the files, and print the path of each that is written.

    Raises `WebChatError` for a recording that cannot be read; nothing is written then.
    """
    from webchat_fsm._cli.lifecycle import documents
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
