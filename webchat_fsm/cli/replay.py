"""``webchat-fsm replay FILE``: a recorded session once more, as a story, as drawings or for machines."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from webchat_fsm.cli.ending import DONE, FAILED, complain
from webchat_fsm.cli.options import Subparsers, describe
from webchat_fsm.cli.telling import as_json

if TYPE_CHECKING:
    from webchat_fsm.testing.recording import Recording
    from webchat_fsm.testing.replay import Replay

SHOWN = 10
"""How many differences are told."""


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "replay",
        run,
        "replay a recorded session",
        "Replay a session that a service has recorded, with no network and no real time, and compare: transitions,"
        " events, outcomes and requests must be those of the recording. Prints it as a story. Exit code 1 where it"
        " differs.",
        "webchat-fsm replay chat.jsonl",
        "webchat-fsm replay chat.jsonl --diagram > chat.md",
        "webchat-fsm replay chat.jsonl --json | jq -r '.events[].event'",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what a webchat_fsm.testing.Recorder has written")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--diagram", action="store_true", help="print the sequence and the path walked, in mermaid")
    form.add_argument("--json", action="store_true", help="print the transitions and events as one JSON object")


def run(options: Namespace) -> int:
    """Exit code 1 where the replay differs, or the file is no recording."""
    from webchat_fsm.testing.recording import Recording, RecordingError
    from webchat_fsm.testing.replay import replay

    try:
        recording = Recording.read(options.file)
        played = replay(recording)
    except RecordingError as error:
        raise RecordingError(f"{options.file}: {error}") from error
    if recording.torn is not None:
        complain(f"{options.file}: line {recording.torn} breaks off and is left out")
    show = _json if options.json else _drawings if options.diagram else _story
    for line in show(recording, played):
        print(line)
    sys.stdout.flush()
    for difference in played.differences[:SHOWN]:
        complain(difference)
    return DONE if played.same else FAILED


def _story(recording: Recording, played: Replay) -> Iterator[str]:
    from webchat_fsm.testing.story import told

    yield from told(recording)
    number = len(played.differences)
    verdict = "just as recorded" if played.same else f"with {number} difference{'s' if number > 1 else ''}"
    yield f"Replayed {verdict}: {len(played.transitions)} transitions, {len(played.events)} events."


def _drawings(recording: Recording, played: Replay) -> Iterator[str]:
    from webchat_fsm.diagram.graph import graph
    from webchat_fsm.diagram.mermaid import path
    from webchat_fsm.testing.story import sequence

    states = [state for step in played.transitions for state in (step.source, step.dest)]
    for title, drawing in (
        ("The sequence", "\n".join(sequence(recording))),
        ("The lifecycle, and the path walked", path(graph(recording.transport), states).rstrip()),
    ):
        yield f"## {title}\n\n```mermaid\n{drawing}\n```\n"


def _json(recording: Recording, played: Replay) -> Iterator[str]:
    yield as_json(
        {
            "same": played.same,
            "transport": recording.transport.value,
            "transitions": [
                {"time": step.time, "from": step.source, "transition": step.trigger, "to": step.dest}
                for step in played.transitions
            ],
            "events": [{"time": event.time, "event": event.name, "data": event.data} for event in played.events],
            "differences": played.differences,
            "torn": recording.torn,
        }
    )
