"""Call each command with each odd argument: it is answered or rejected, and no user code runs in the core."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from webchat_fsm import Config, ConfigError
from webchat_fsm.lifecycle._table import Transport
from webchat_fsm.testing import Recording, RecordingError, TestServer, Timeline, replay


class Hostile(Mapping):
    """Raise in every method of a mapping."""

    def __getitem__(self, key):
        raise RuntimeError("getitem")

    def __iter__(self):
        raise RuntimeError("iter")

    def __len__(self):
        return 1

    def __str__(self):
        raise RuntimeError("str")


class Unequal:
    """Raise when compared."""

    def __eq__(self, other):
        raise RuntimeError("eq")

    __hash__ = None


def _cycle():
    cycle = {}
    cycle["itself"] = cycle
    return cycle


def _deep():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    return deep


ODD = {
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "zero": 0,
    "float": 1.5,
    "infinity": float("inf"),
    "huge integer": 10**5000,
    "true": True,
    "empty": "",
    "null character": "a\x00b",
    "surrogate": "\ud83d",
    "long": "x" * 70000,
    "foreign": "http://[",
    "mapping": {"token": "x"},
    "list": [None],
    "set": {1},
    "cycle": _cycle(),
    "deep": _deep(),
    "object": object(),
    "unequal": Unequal(),
    "exception": ValueError(""),
    "class": int,
    "pattern": re.compile(b"x"),
    "path": Path("/nowhere"),
    "stream": io.StringIO("x"),
}
# `files`, `filters` and `input` are left out: they are user objects, whose code runs in the caller's thread.
ARGUMENTS = {
    "sendMessage": ("message", "type", "parentMessageID"),
    "sendFilteredMessage": ("message", "regex", "type"),
    "sendCustomNotice": ("message", "eventAttributes", "messageType"),
    "sendTyping": ("message", "Message"),
    "updateUserData": ("anything",),
    "restore": ("sessionData",),
    "getTranscript": ("since",),
    "downloadFile": ("fileId", "field", "to"),
    "fetch": ("url",),
}


@pytest.mark.parametrize("transport", Transport, ids=str)
def test_odd_argument_is_refused_or_sent_and_replays(transport, tmp_path, caplog):
    server = TestServer(Timeline())
    server.records = True
    with server.client(transport, {"client": {"downloadDir": str(tmp_path)}}) as chat:
        chat.start_chat(nickname="Jonny")
        for name, keys in ARGUMENTS.items():
            for key, value in product(keys, ODD.values()):
                with suppress(TypeError):
                    chat.command(name, {"message": "text", "regex": re.compile("x"), key: value})
        assert chat.health().defects == 0
    assert "recorder failed" not in caplog.text  # else the recording would end early, and replay without a difference
    assert replay(server.recording(chat)).differences == []


@pytest.mark.parametrize("transport", Transport, ids=str)
def test_file_name_without_utf8_is_uploaded(transport):
    with TestServer(Timeline()).client(transport) as chat:
        chat.start_chat(nickname="Jonny")
        photo = io.BytesIO(b"x")
        photo.name = os.fsdecode(b"caf\xe9.png")
        chat.send_file(photo)


def test_mapping_that_fails_when_read_is_refused_as_argument():
    with TestServer(Timeline()).client() as chat:
        chat.start_chat(nickname="Jonny")
        for name, keys in ARGUMENTS.items():
            for key in keys:
                with suppress(TypeError, RuntimeError):
                    chat.command(name, {"message": "text", key: Hostile()})
        assert chat.health().defects == 0


@pytest.mark.parametrize("transport", [Transport.V2, Transport.COMETD], ids=str)
def test_download_path_of_wrong_type_is_refused_before_request(transport, tmp_path):
    timeline = Timeline()
    server = TestServer(timeline)
    server.records = True
    with server.client(transport) as chat:
        chat.start_chat(nickname="Jonny")
        with pytest.raises(TypeError, match="`to` must be the path of a file or a folder, not float"):
            chat.download_file("1", to=1.5)
        assert "download" not in server.recording(chat).requests


@pytest.mark.parametrize("key", ["dataURL", "userData", "ajaxTimeout", "maxMessageLength", "client", "transport"])
def test_odd_configuration_raises_only_config_error(key):
    for value in (*ODD.values(), Hostile(), range(3)):
        with suppress(ConfigError):
            Config.read({"dataURL": "http://chat.test/chat", key: value})


def test_recording_with_a_lone_surrogate_is_refused():
    with pytest.raises(RecordingError, match="line 1"):
        Recording.parse(rb'{"recording": 1, "transport": "\ud83d", "config": {}}')
