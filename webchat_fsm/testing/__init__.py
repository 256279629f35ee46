"""A kit for test suites: the embedded server without sockets, time that a test moves, faults as data, recordings.

The fixtures `webchat_timeline`, `webchat_server`, `webchat` and `webchat_recording` are there wherever the package is
installed. Everything works without pytest too. Uploads to the server need the extra `server`.
"""

from webchat_fsm.testing.bench import TestServer
from webchat_fsm.testing.embedded import EmbeddedHttp
from webchat_fsm.testing.recorder import Recorder
from webchat_fsm.testing.recording import RecordedEvent, Recording, RecordingError, Transition
from webchat_fsm.testing.recordings import Recordings
from webchat_fsm.testing.replay import Known, Replay, replay, state_at
from webchat_fsm.testing.timeline import Pending, Timeline

__all__ = [
    "EmbeddedHttp",
    "Known",
    "Pending",
    "RecordedEvent",
    "Recorder",
    "Recording",
    "RecordingError",
    "Recordings",
    "Replay",
    "TestServer",
    "Timeline",
    "Transition",
    "replay",
    "state_at",
]
