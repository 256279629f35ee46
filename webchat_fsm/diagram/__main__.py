"""``python -m webchat_fsm.diagram``: write what is generated, or check that it is up to date."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from webchat_fsm.diagram.files import check, checkout, write
from webchat_fsm.diagram.svg import MissingExtraError


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when done or up to date; 1 when something has drifted or cannot be drawn."""
    parser = ArgumentParser(prog="python -m webchat_fsm.diagram", description="Diagrams and tables of the lifecycle.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    parser.add_argument("--folder", type=Path, default=Path("diagrams"), help="where they lie (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        paths = (check if options.check else write)(options.folder, checkout())
    except MissingExtraError as missing:
        print(missing, file=sys.stderr)
        return 1
    for path in paths:
        print(f"{'drifted' if options.check else 'written'}: {path}")
    return 1 if options.check and paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
