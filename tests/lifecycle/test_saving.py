"""Check when a session is saved: at each change at once, its last contact every five seconds, and at close."""

from __future__ import annotations

import re

import pytest

from webchat_fsm import FileStore, MemoryStore, WebChatService
from webchat_fsm._core.saved_session import SAVED_EVERY, SavedSession
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline


class Written(MemoryStore):
    """Keeps every document that was saved."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: list[SavedSession] = []

    def save(self, document: SavedSession) -> None:
        self.documents.append(document)
        super().save(document)


class Rig:
    """Holds a server on a timeline, and the services of one chat, one after another, on one store."""

    def __init__(self, transport: Transport, store: MemoryStore | FileStore) -> None:
        self.transport, self.store = transport, store
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)

    def open(self) -> WebChatService:
        driver = self.timeline.driver
        chat = WebChatService(
            self.server.config(self.transport), http=self.server.http(), driver=driver, store=self.store
        )
        chat.open()
        self.session = chat._engine.session
        return chat

    def die(self, chat: WebChatService) -> None:
        """Let the process of a chat die: nothing is closed, and its timers stop."""
        self.timeline.driver.detach(chat._engine, 0)

    @property
    def lag(self) -> float:
        """Return the seconds by which the saved contact is behind the last one."""
        return self.session.last_contact - self.store.load().last_contact


@pytest.fixture(params=Transport, ids=str)
def rig(request):
    rig = Rig(request.param, Written())
    yield rig
    rig.server.close()


def test_saved_contact_of_an_idle_chat_lags_under_five_seconds(rig):
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    rig.timeline.advance(20)
    rig.store.documents.clear()
    lags = []
    for _ in range(240):
        rig.timeline.advance(0.25)
        lags.append(rig.lag)
    assert min(lags) >= 0
    assert max(lags) < SAVED_EVERY
    assert 1 <= len(rig.store.documents) <= 60 / SAVED_EVERY
    assert not any(document.closed for document in rig.store.documents)
    chat.close()


def test_change_of_a_session_is_saved_at_once(rig):
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    ann = rig.server.agent("Ann").join()
    rig.timeline.advance(20)
    for text in ("one", "two", "three"):
        ann.say(text)
        before = rig.store.load()
        while text not in [message.text for message in chat.get_transcript().messages]:
            rig.timeline.advance(0.25)
        saved = rig.store.load()
        assert (saved.cursor, saved.last_index) == (rig.session.cursor, rig.session.last_index)
        assert saved.last_index != before.last_index
    chat.update_user_data({"tier": "gold"})
    chat.add_prefilter(re.compile("secret"))
    rig.timeline.advance(65)  # by the next contact, for which a held connect takes a minute at most
    saved = rig.store.load()
    assert ([one.source for one in saved.prefilters], saved.user_data) == (["secret"], rig.session.user_data)
    chat.close()


@pytest.mark.parametrize("alive", [0, 1.3, 4.9, 7.7, 13.1, 31])
def test_session_is_restored_a_minute_after_its_last_contact(rig, alive):
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    rig.timeline.advance(alive)
    last = rig.session.last_contact
    rig.die(chat)
    rig.timeline.advance(last + 59.99 - rig.timeline.now())
    assert rig.open().state.has_session


@pytest.mark.parametrize("transport", [Transport.V2, Transport.COMETD], ids=str)
@pytest.mark.parametrize(("closed", "away", "kept"), [(True, 60, False), (False, 64.99, True), (False, 65, False)])
def test_only_a_session_without_close_has_the_grace(transport, closed, away, kept):
    rig = Rig(transport, Written())
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    rig.timeline.advance(30)
    chat.close() if closed else rig.die(chat)
    saved = rig.store.load()
    assert saved.closed is closed
    rig.timeline.advance(saved.last_contact + away - rig.timeline.now())
    assert rig.open().state.has_session is kept
    assert rig.store.load() is None or not rig.store.load().closed
    rig.server.close()


def test_change_of_state_is_saved_at_once():
    rig = Rig(Transport.V2, Written())
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    rig.timeline.advance(20)
    rig.server.faults.add(operation="refresh", server_status=1, times=6)
    while chat.state != "offline":
        chat.step()
    saves = len(rig.store.documents)
    while chat.state == "offline":
        chat.step()
    assert len(rig.store.documents) == saves + 1
    chat.close()
    rig.server.close()


def test_session_file_is_written_once_for_many_idle_polls(tmp_path):
    path = tmp_path / "session.json"
    rig = Rig(Transport.V2, FileStore(path))
    chat = rig.open()
    chat.start_chat(nickname="Jonny")
    rig.timeline.advance(20)
    while rig.lag:  # from a poll that was saved
        rig.timeline.advance(0.25)
    written = path.stat()
    for _ in range(50):
        chat.step()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    rig.timeline.advance(10)
    assert path.stat().st_mtime_ns > written.st_mtime_ns
    chat.close()
    rig.server.close()
