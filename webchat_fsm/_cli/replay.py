"""``webchat-fsm replay FILE``: replay a recorded session and print it as a story, as drawings or as JSON."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from webchat_fsm._cli.command import DONE, FAILED, describe, print_error
from webchat_fsm._cli.output import as_json
from webchat_fsm._errors import WebChatError

if TYPE_CHECKING:
    from webchat_fsm.testing import Recording, Replay

DIFFERENCES_SHOWN = 10
"""Differences that are printed: one that comes first often causes all the others."""


def add(parser: ArgumentParser) -> None:
    """Describe the command `replay` and its options to its parser."""
    describe(
        parser,
        run,
        "Replay a session that a service has recorded, without network and without waiting, and compare: transitions,"
        " events, outcomes and requests must equal those of the recording. Prints a story. Exit code 1 if one differs.",
        "webchat-fsm replay chat.jsonl",
        "webchat-fsm replay chat.jsonl --diagram > chat.md",
        "webchat-fsm replay chat.jsonl --diagram svg --theme dark > chat.svg",
        "webchat-fsm replay chat.jsonl --json | jq -r '.events[].event'",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file written by webchat_fsm.testing.Recorder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--diagram",
        nargs="?",
        choices=["mermaid", "svg"],
        const="mermaid",
        metavar="FORMAT",
        help="print the sequence as a drawing: mermaid (the default), with the path below it, or svg",
    )
    parser.add_argument(
        "--theme", choices=["auto", "light", "dark"], help="the colours of --diagram svg (default: auto)"
    )
    form.add_argument("--json", action="store_true", help="print the transitions and events as one JSON object")


def run(options: Namespace) -> int:
    """Print the replay; exit code 1 if it differs or the file is not a recording."""
    from webchat_fsm.testing import Recording, RecordingError, replay

    if options.theme and options.diagram != "svg":
        raise WebChatError("--theme is for --diagram svg, the other forms have no colours: leave it out")
    try:
        recording = Recording.read(options.file)
        replayed = replay(recording)
    except RecordingError as error:
        # A recording does not know its file; the user may replay several.
        raise RecordingError(f"{options.file}: {error}") from error
    if recording.torn is not None:
        # A warning only: a process that was killed leaves such a line, and the rest is whole.
        print_error(f"{options.file}: line {recording.torn} is incomplete and is left out")
    if options.diagram == "svg":
        return _svg(recording, replayed, options.theme or "auto")
    show = _json if options.json else _drawings if options.diagram else _story
    for line in show(recording, replayed):
        print(line)
    return _compared(replayed)


def _compared(replayed: Replay) -> int:
    """Print how a replay differs; exit code 1 if it does."""
    sys.stdout.flush()  # the differences, on standard error, follow what they are about
    for difference in replayed.differences[:DIFFERENCES_SHOWN]:
        print_error(difference)
    return DONE if replayed.same else FAILED


def _story(recording: Recording, replayed: Replay) -> Iterator[str]:
    from webchat_fsm.testing._story import story

    yield from story(recording)
    number = len(replayed.differences)
    result = "just as recorded" if replayed.same else f"with {number} difference{'s' if number > 1 else ''}"
    yield f"Replayed {result}: {len(replayed.transitions)} transitions, {len(replayed.events)} events."


def _drawings(recording: Recording, replayed: Replay) -> Iterator[str]:
    from webchat_fsm.diagram._formats import mermaid_path
    from webchat_fsm.diagram._machines import lifecycle
    from webchat_fsm.diagram._sequence import mermaid_sequence
    from webchat_fsm.testing._sequence import sequence

    states = [state for step in replayed.transitions for state in (step.source, step.dest)]
    for title, drawing in (
        ("The sequence", mermaid_sequence(sequence(recording))),
        ("The lifecycle and the path", mermaid_path(lifecycle(recording.transport), states)),
    ):
        yield f"## {title}\n\n```mermaid\n{drawing}```\n"


def _svg(recording: Recording, replayed: Replay, theme: str) -> int:
    """Print the sequence as an SVG picture."""
    from webchat_fsm.diagram import DEFAULT
    from webchat_fsm.diagram._sequence import svg_sequence
    from webchat_fsm.testing._sequence import sequence

    sys.stdout.write(svg_sequence(sequence(recording), DEFAULT.with_theme(theme)))
    return _compared(replayed)


def _json(recording: Recording, replayed: Replay) -> Iterator[str]:
    yield as_json(
        {
            "same": replayed.same,
            "transport": recording.transport.value,
            "transitions": [
                {"time": step.time, "from": step.source, "transition": step.trigger, "to": step.dest}
                for step in replayed.transitions
            ],
            "events": [{"time": event.time, "event": event.name, "data": event.data} for event in replayed.events],
            "differences": replayed.differences,
            "torn": recording.torn,
        }
    )
