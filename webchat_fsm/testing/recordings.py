"""The recordings of one test."""

from __future__ import annotations

import os

from webchat_fsm.runtime.service import WebChatService
from webchat_fsm.testing.bench import TestServer
from webchat_fsm.testing.recording import Recording
from webchat_fsm.testing.replay import Known, Replay, replay, state_at


class Recordings:
    """Every client of a server, recorded; without a client named, the one made last is meant."""

    def __init__(self, server: TestServer) -> None:
        self._server = server

    def of(self, chat: WebChatService | None = None) -> Recording:
        """What a client has done so far."""
        return self._server.recording(chat)

    def replay(self, chat: WebChatService | None = None) -> Replay:
        """The same once more; raises `AssertionError` where it does not go as recorded."""
        return replay(self.of(chat)).check()

    def state_at(self, time: float, chat: WebChatService | None = None) -> Known:
        """What a client knew at a wall-clock time."""
        return state_at(self.of(chat), time)

    def save(self, path: str | os.PathLike[str], chat: WebChatService | None = None) -> None:
        """Write it to a file, to attach to a bug report."""
        self.of(chat).save(path)
