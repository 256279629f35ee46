"""Where sessions are kept: files that only their owner reads, replaced whole, and left alone if not ours."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest
from msgspec.structs import replace

from webchat_fsm import FileStore, MemoryStore, StoreError
from webchat_fsm.lifecycle.effects import Forget, Save, SavedFilter, SavedSession
from webchat_fsm.lifecycle.words import SessionData
from webchat_fsm.runtime.keeper import Keeper


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
def test_a_store_keeps_replaces_and_deletes_one_document(make, path, document):
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


def test_another_store_on_the_same_file_reads_what_was_written(path, document):
    FileStore(path).save(document)
    assert FileStore(str(path)).load() == document


def test_the_file_can_be_read_by_its_owner_only(path, document):
    before = os.umask(0)
    try:
        store = FileStore(path)
        for _ in range(2):
            store.save(document)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_file_that_others_could_read_is_closed_to_them_by_the_next_write(path, document):
    FileStore(path).save(document)
    path.chmod(0o644)
    store = FileStore(path)
    store.load()
    store.save(document)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_crash_between_write_and_rename_leaves_the_old_file_and_no_other(path, document, monkeypatch, error):
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
    "newer": b'{"version": 2, "session": {"whatever": true}}',
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
def test_a_file_that_is_no_session_is_an_error_and_is_never_overwritten(path, document, content):
    path.write_bytes(content)
    for act in (FileStore.load, FileStore.delete, lambda store: store.save(document)):
        with pytest.raises(StoreError, match=r"session\.json: .*the file is left as it is") as caught:
            act(FileStore(path))
        assert "sEcReT" not in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [OTHER["newer"], OTHER["no JSON"]])
def test_a_file_that_somebody_else_has_written_meanwhile_is_not_overwritten_either(path, document, content):
    store = FileStore(path)
    store.save(document)
    path.write_bytes(content)
    for act in (store.delete, lambda: store.save(document)):
        with pytest.raises(StoreError, match="the file is left as it is"):
            act()
    assert path.read_bytes() == content


def test_a_newer_file_says_that_it_is_newer(path):
    path.write_bytes(OTHER["newer"])
    with pytest.raises(StoreError, match=r"written by a newer version \(2, known is 1\)"):
        FileStore(path).load()


def test_opening_on_a_damaged_file_raises_and_leaves_the_service_closed(path, wire, service):
    path.write_bytes(b"{half a")
    chat = service(wire(), store=FileStore(path))
    with pytest.raises(StoreError):
        chat.open()
    assert chat.health().threads == ()
    assert chat.command("startChat").reason == "WebChatService is not ready"
    path.unlink()
    chat.open()
    assert chat.state == "idle"


def test_what_is_in_the_way_of_a_file_is_named(tmp_path, document):
    with pytest.raises(StoreError, match="cannot be read"):
        FileStore(tmp_path).load()
    with pytest.raises(StoreError, match="could not be saved: No such file or directory"):
        FileStore(tmp_path / "no" / "folder" / "session.json").save(document)


def test_a_file_without_a_directory_to_be_in_is_told_before_a_chat_begins(tmp_path, wire, service):
    chat = service(wire(), store=FileStore(tmp_path / "not" / "there.json"))
    with pytest.raises(StoreError, match=r"nothing could be kept there: make the directory .*not$"):
        chat.open()
    (tmp_path / "not").mkdir()
    chat.open()
    assert chat.state == "idle"


def test_the_documents_fields_are_those_of_the_chat(path, wire, service, by_hand):
    with service(wire(), store=FileStore(path), driver=by_hand) as chat:
        chat.update_user_data({"tier": "gold"})
        chat.start_chat(nickname="Jonny")
        by_hand.wait(0.5)
    saved = json.loads(path.read_text())
    assert saved["version"] == 1
    assert saved["session"]["session_data"]["secure_key"] == "sEcReT-kEy"
    assert saved["session"]["nickname"] == "Jonny"
    assert saved["session"]["last_contact"] == by_hand.clock.now


def test_a_store_that_fails_is_told_once_and_the_chat_goes_on(tmp_path, wire, service, by_hand, caplog):
    transport, folder = wire(), tmp_path / "gone"
    folder.mkdir()
    with service(transport, store=FileStore(folder / "session.json"), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        (folder / "session.json").unlink()
        folder.rmdir()
        polls = transport.count("refresh")
        by_hand.wait(5.0)
        assert transport.count("refresh") > polls + 5
        assert chat.state == "polling"
        assert "could not be saved" in chat.health().store_failure
        assert sum("could not be saved" in record.getMessage() for record in caplog.records) == 1
        folder.mkdir()
        chat.add_prefilter(re.compile("x"))
        assert chat.health().store_failure == ""
        assert (folder / "session.json").exists()


def test_an_ended_chat_leaves_no_file(path, wire, service, by_hand):
    with service(wire(), store=FileStore(path), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        assert path.exists()
        chat.end_chat()
        assert not path.exists()
    assert not path.exists()


def test_a_later_write_wins_whichever_thread_is_faster(path, document):
    store = MemoryStore()
    keeper = Keeper(store)
    keeper.carry_out(Forget(order=2))
    keeper.carry_out(Save(document=document, order=1))
    assert store.load() is None


def test_reprs_of_what_is_saved_hide_its_secrets(path, document):
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
def test_what_the_wire_bears_a_file_bears_too(path, document, given, kept):
    """A nickname or user data that JSON does not know would else leave a chat that cannot be restored."""
    FileStore(path).save(replace(document, user_data=given, nickname="\ud83d Jonny"))
    loaded = FileStore(path).load()
    assert (loaded.user_data, loaded.nickname) == (kept, "\ud83d Jonny")
