"""Test session stores: files that only their owner reads, replaced atomically, and never changed if foreign."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest
from msgspec.structs import replace

from webchat_fsm import FileStore, MemoryStore, StoreError
from webchat_fsm._core.saved_session import SavedFilter, SavedSession
from webchat_fsm._core.steps import Forget, Save
from webchat_fsm._model import SessionData
from webchat_fsm._runtime.store import StoreWriter
from webchat_fsm.lifecycle._table import Transport


@pytest.fixture
def document():
    return SavedSession(
        transport="v2",
        address="http://chat.test/chat",
        session_data=SessionData(session_id="chat-1", secure_key="sEcReT-kEy", alias="117", user_id="user-1"),
        cursor=7,
        last_contact=1_750_000_000.5,
        user_data={"tier": "gold", "tags": ["a", 1, None]},
        prefilters=[SavedFilter(source="card \\d+", flags=2)],
        nickname="Jonny 😀",
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "session.json"


@pytest.mark.parametrize("make", [lambda path: MemoryStore(), FileStore])
def test_store_keeps_replaces_and_deletes_one_document(make, path, document):
    store = make(path)
    assert store.load() is None
    store.delete()
    store.save(document)
    assert store.load() == document
    store.save(SavedSession(transport="v2", address="x", session_data=SessionData()))
    assert store.load().address == "x"
    store.delete()
    store.delete()
    assert store.load() is None


def test_second_store_on_the_same_file_reads_the_document(path, document):
    FileStore(path).save(document)
    assert FileStore(str(path)).load() == document


def test_session_file_is_readable_by_its_owner_only(path, document):
    before = os.umask(0)
    try:
        store = FileStore(path)
        for _ in range(2):
            store.save(document)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_readable_file_becomes_private_with_the_next_write(path, document):
    FileStore(path).save(document)
    path.chmod(0o644)
    store = FileStore(path)
    store.load()
    store.save(document)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_rename_keeps_the_old_file(path, document, monkeypatch, error):
    store = FileStore(path)
    store.save(document)
    before = path.read_bytes()

    def crash(source, target):
        raise error

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        store.save(SavedSession(transport="v2", address="new", session_data=SessionData()))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert store.load() == document


OTHER = {
    "empty": b"",
    "no JSON": b"{half a",
    "a list": b"[]",
    "other JSON": b'{"name": "package", "version": "1.0.0"}',
    "no version": b'{"session": {}}',
    "no session": b'{"version": 1}',
    "session of another shape": b'{"version": 1, "session": {"transport": "v9", "address": "x", "session_data": {}}}',
    "newer": b'{"version": 2, "session": {"unknown": true}}',
    "binary": bytes(range(256)),
    "broken filter": (
        b'{"version": 1, "session": {"transport": "v2", "address": "x", "session_data": {},'
        b' "prefilters": [{"source": "(", "flags": 0}]}}'
    ),
    "bad flags": (
        b'{"version": 1, "session": {"transport": "v2", "address": "x", "session_data": {},'
        b' "prefilters": [{"source": "a", "flags": 288}]}}'
    ),
    "a filter that counts too far": (
        b'{"version": 1, "session": {"transport": "v2", "address": "x", "session_data": {},'
        b' "prefilters": [{"source": "a{99999999999999999999}", "flags": 0}]}}'
    ),
    "deep nesting": b'{"version": 1, "session": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER.keys())
def test_invalid_session_file_raises_and_is_not_overwritten(path, document, content):
    path.write_bytes(content)
    for act in (FileStore.load, FileStore.delete, lambda store: store.save(document)):
        with pytest.raises(StoreError, match=r"session\.json: .*the file is left as it is") as caught:
            act(FileStore(path))
        assert "sEcReT" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [OTHER["newer"], OTHER["no JSON"]])
def test_file_changed_by_another_process_is_not_overwritten(path, document, content):
    store = FileStore(path)
    store.save(document)
    path.write_bytes(content)
    for act in (store.delete, lambda: store.save(document)):
        with pytest.raises(StoreError, match="the file is left as it is"):
            act()
    assert path.read_bytes() == content


def test_file_of_a_newer_version_is_refused(path):
    path.write_bytes(OTHER["newer"])
    with pytest.raises(StoreError, match=r"written by a newer version \(2, known is 1\)"):
        FileStore(path).load()


def test_open_on_a_damaged_file_raises_and_stays_closed(path, wire, service):
    path.write_bytes(b"{half a")
    chat = service(wire(), store=FileStore(path))
    with pytest.raises(StoreError):
        chat.open()
    assert chat.health().threads == ()
    assert chat.command("startChat").reason == "WebChatService is not ready"
    path.unlink()
    chat.open()
    assert chat.state == "idle"


def test_unusable_path_raises_a_store_error(tmp_path, document):
    with pytest.raises(StoreError, match="cannot be read"):
        FileStore(tmp_path).load()
    with pytest.raises(StoreError, match="could not be saved: No such file or directory"):
        FileStore(tmp_path / "no" / "folder" / "session.json").save(document)


def test_missing_directory_of_a_file_is_reported_at_open(tmp_path, wire, service):
    chat = service(wire(), store=FileStore(tmp_path / "not" / "there.json"))
    with pytest.raises(StoreError, match=r"nothing could be kept there: make the directory .*not$"):
        chat.open()
    (tmp_path / "not").mkdir()
    chat.open()
    assert chat.state == "idle"


def test_saved_document_has_the_fields_of_the_chat(path, wire, service, by_hand):
    with service(wire(), store=FileStore(path), driver=by_hand) as chat:
        chat.update_user_data({"tier": "gold"})
        chat.start_chat(nickname="Jonny")
        by_hand.wait(0.5)
    saved = json.loads(path.read_text())
    assert saved["version"] == 1
    assert saved["session"]["session_data"]["secure_key"] == "sEcReT-kEy"
    assert saved["session"]["nickname"] == "Jonny"
    assert saved["session"]["last_contact"] == by_hand.clock.now


def test_failing_store_is_logged_once(tmp_path, wire, service, by_hand, caplog):
    transport, folder = wire(), tmp_path / "gone"
    folder.mkdir()
    with service(transport, store=FileStore(folder / "session.json"), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        (folder / "session.json").unlink()
        folder.rmdir()
        polls = transport.count("refresh")
        by_hand.wait(6.0)
        assert transport.count("refresh") > polls + 5
        assert chat.state == "polling"
        assert "could not be saved" in chat.health().store_failure
        assert sum("could not be saved" in record.getMessage() for record in caplog.records) == 1
        folder.mkdir()
        chat.add_prefilter(re.compile("x"))
        assert chat.health().store_failure == ""
        assert (folder / "session.json").exists()


def test_session_file_is_deleted_when_the_chat_ends(path, wire, service, by_hand):
    with service(wire(), store=FileStore(path), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        assert path.exists()
        chat.end_chat()
        assert not path.exists()
    assert not path.exists()


def test_earlier_write_after_a_later_one_is_discarded(path, document):
    store = MemoryStore()
    store_writer = StoreWriter(store)
    store_writer.carry_out(Forget(order=2))
    store_writer.carry_out(Save(document=document, order=1))
    assert store.load() is None


def test_repeated_write_is_carried_out_once(document):
    class Counting(MemoryStore):
        saved = 0

        def save(self, document):
            self.saved += 1

    store = Counting()
    store_writer = StoreWriter(store)
    for _ in range(2):
        store_writer.carry_out(Save(document=document, order=1))
    assert store.saved == 1


def test_reprs_of_saved_sessions_hide_secrets(path, document):
    assert "sEcReT" not in repr(document)
    assert "sEcReT" not in repr(FileStore(path))


class Odd:
    def __str__(self):
        return "odd"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"half": "\ud83d"}, {"half": "\ud83d"}),
        ({1: 2, None: 3, (4, 5): "six"}, {"1": 2, "None": 3, "(4, 5)": "six"}),
        ({"thing": Odd()}, {"thing": "odd"}),
        ({"half": "\ud83d", "thing": Odd()}, {"half": "\ud83d", "thing": "odd"}),
    ],
)
def test_any_user_data_and_nickname_can_be_saved(path, document, given, kept):
    """Save values that JSON cannot represent: without them the chat could not be restored."""
    FileStore(path).save(replace(document, user_data=given, nickname="\ud83d Jonny"))
    loaded = FileStore(path).load()
    assert (loaded.user_data, loaded.nickname) == (kept, "\ud83d Jonny")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_store_path_of_no_regular_file_is_refused_and_kept(tmp_path, make):
    make(tmp_path / "session")
    store = FileStore(tmp_path / "session")
    with pytest.raises(StoreError, match="it is no regular file"):
        store.load()
    with pytest.raises(StoreError, match="it is no regular file"):
        store.save(SavedSession(transport=Transport.V2, address="", session_data=SessionData()))
    with pytest.raises(StoreError, match="it is no regular file"):
        store.delete()
    assert not (tmp_path / "session").is_file()
