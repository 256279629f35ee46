"""Test kit for code that chats: the embedded server without sockets, time that a test moves, faults, recordings.

The fixtures `webchat_timeline`, `webchat_server`, `webchat` and `webchat_recording` exist wherever the package is
installed. Everything works without pytest too. Uploads to the server need the extra `server`.
"""

import typing

from webchat_fsm._package import public_names

# The same names twice, as type checkers read only the imports, and the interpreter only the table.
if typing.TYPE_CHECKING:
    from webchat_fsm.testing._bench import EmbeddedHttp as EmbeddedHttp
    from webchat_fsm.testing._bench import Recordings as Recordings
    from webchat_fsm.testing._bench import TestServer as TestServer
    from webchat_fsm.testing._recorder import Recorder as Recorder
    from webchat_fsm.testing._recording import RecordedEvent as RecordedEvent
    from webchat_fsm.testing._recording import RecordedTransition as RecordedTransition
    from webchat_fsm.testing._recording import Recording as Recording
    from webchat_fsm.testing._recording import RecordingError as RecordingError
    from webchat_fsm.testing._replay import Known as Known
    from webchat_fsm.testing._replay import Replay as Replay
    from webchat_fsm.testing._replay import replay as replay
    from webchat_fsm.testing._replay import state_at as state_at
    from webchat_fsm.testing._timeline import Pending as Pending
    from webchat_fsm.testing._timeline import Timeline as Timeline
else:
    __all__, __getattr__, __dir__ = public_names(
        __name__,
        {
            "webchat_fsm.testing._bench": "EmbeddedHttp Recordings TestServer",
            "webchat_fsm.testing._recorder": "Recorder",
            "webchat_fsm.testing._recording": "RecordedEvent RecordedTransition Recording RecordingError",
            "webchat_fsm.testing._replay": "Known Replay replay state_at",
            "webchat_fsm.testing._timeline": "Pending Timeline",
        },
    )
