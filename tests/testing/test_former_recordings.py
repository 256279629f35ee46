"""Test that recordings of a former version (d7b96fd, before the first release) replay without a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from webchat_fsm.lifecycle._table import State
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import Recording, RecordingError, replay

FORMER = Path(__file__).parent / "former"


@pytest.mark.parametrize("way", Transport, ids=str)
def test_recording_of_a_former_version_replays(way):
    recording = Recording.read(FORMER / f"recording-{way}.jsonl")
    assert replay(recording).differences == []
    assert State.ENDED in {one.dest for one in recording.transitions}


def test_recording_of_another_version_is_rejected_with_advice():
    head = json.dumps({"recording": 2, "transport": "v2", "config": {}})
    with pytest.raises(RecordingError, match=r"replay it with the version of webchat-fsm that wrote it"):
        Recording.parse(head)
