"""Check that sendFile checks all limits before it reads a file, and that downloadFile trusts no name of the server."""

from __future__ import annotations

import io

import pytest

from tests.lifecycle.environment import Paper, Unreadable, envelope
from webchat_fsm import CommandRejected
from webchat_fsm.server import ServerOptions
from webchat_fsm.testing import TestServer


@pytest.fixture
def webchat_server(webchat_timeline):
    """Start a server with small file limits."""
    limits = ServerOptions(max_files=3, max_file_size=100, max_total_size=150, file_types=("txt", "png"))
    server = TestServer(webchat_timeline, limits)
    yield server
    server.close()


REFUSED = {
    "the wrong type": ([("virus.exe", 10)], [(203, "virus.exe")]),
    "no type at all": ([("README", 10)], [(203, "README")]),
    "a type in its name only": ([("txt", 10)], [(203, "txt")]),
    "too large": ([("a.txt", 101)], [(202, "a.txt")]),
    "too many": ([("a.txt", 1)] * 4, [(201, None)]),
    "too much together": ([("a.txt", 80), ("b.txt", 80)], [(202, None)]),
    "one of two": ([("a.txt", 10), ("b.exe", 10)], [(203, "b.exe")]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_file_over_limits_is_rejected_unread(env, why):
    given, errors = REFUSED[why]
    chat = env.start()
    with pytest.raises(CommandRejected) as caught:
        chat.send_file([Unreadable(name, size) for name, size in given])
    assert [(error["code"], error.get("filename")) for error in caught.value.response.errors] == errors
    assert caught.value.response.status == 400
    assert caught.value.response.body == {"errors": caught.value.response.errors}
    assert "file" not in env.http.operations()
    assert chat.state == "polling"
    assert "error" not in env.heard.names


def test_rejected_upload_names_file_and_limits(env):
    chat = env.start()
    with pytest.raises(CommandRejected) as caught:
        chat.send_file([Unreadable("virus.exe", 10), Unreadable("a.txt", 101), *[Unreadable("b.txt", 30)] * 2])
    assert str(caught.value) == (
        "sendFile rejected in state polling: the server's limits do not allow this upload:"
        " virus.exe is of none of the allowed types txt:png; a.txt is larger than the 100 bytes allowed for a file;"
        " there would be more files than the 3 allowed for a chat;"
        " together the files are larger than the 150 bytes allowed for a chat"
    )


@pytest.mark.parametrize(("name", "size"), [("a.txt", 100), ("A.TXT", 1), ("a.b.png", 0)])
def test_file_at_limit_is_sent(env, name, size):
    chat = env.start()
    file = io.BytesIO(b"x" * size)
    file.name = name
    assert chat.send_file(file).status == 200
    stored = list(env.server.core.current_chat().files.values())
    assert [(one.name, len(one.content)) for one in stored] == [(name, size)]
    env.advance(1)
    assert env.heard.last("messageReceived").messages[-1].file_details["file-name"] == name


def test_files_sent_before_count_towards_the_limits(env):
    chat = env.start()
    chat.send_file([Paper(b"x" * 60), Paper(b"x" * 60)])
    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Unreadable("c.txt", 31))
    assert caught.value.response.errors == [{"code": 202, "advice": "150"}]
    chat.send_file(Paper(b"x" * 30))
    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Unreadable("d.txt", 0))
    assert caught.value.response.errors == [{"code": 201, "advice": "3"}]


def test_all_files_are_sent_with_one_request_each(env, tmp_path):
    chat = env.start()
    path = tmp_path / "from disk.txt"
    path.write_bytes(b"disk")
    response = chat.send_file([path, str(path), Paper(b"memory")])
    assert response.body["userData"]["file-id"]
    assert env.http.operations().count("file") == 3
    contents = [file.content for file in env.server.core.current_chat().files.values()]
    assert contents == [b"disk", b"disk", b"memory"]


def test_open_file_is_sent_from_its_current_position(env):
    chat = env.start()
    file = Paper(b"header body")
    file.seek(7)
    chat.send_file(file)
    assert [file.content for file in env.server.core.current_chat().files.values()] == [b"body"]


def test_first_failed_upload_rejects_and_stops_rest(env):
    chat = env.start()
    env.server.faults.add(operation="file", http_status=400, errors=(203,), skip=1)
    outcome = chat.command("sendFile", {"files": [Paper(b"1"), Paper(b"2"), Paper(b"3")]})
    assert outcome.reason["errors"][0]["code"] == 203
    assert [file.content for file in env.server.core.current_chat().files.values()] == [b"1"]
    assert chat.state == "polling"


def test_unsent_files_of_ended_chat_are_not_reported_sent(env):
    chat = env.start()
    env.http.answer("file", b'{"statusCode": 0, "chatEnded": true, "messages": []}')
    with pytest.raises(CommandRejected, match="The chat was over before all files were sent"):
        chat.send_file([Paper(b"1"), Paper(b"2")])
    assert env.heard.names[-2:] == ["pollingStopped", "ended"]


def test_limits_response_of_ended_chat_ends_it(env):
    chat = env.start()
    env.http.answer("limits", b'{"statusCode": 0, "chatEnded": true, "messages": []}')
    with pytest.raises(CommandRejected, match="The chat was over before all files were sent"):
        chat.send_file(Unreadable("a.txt", 1))
    assert env.heard.names[-2:] == ["pollingStopped", "ended"]


def test_failed_limits_request_rejects_the_upload(env):
    chat = env.start()
    env.server.faults.add(operation="file/limits", http_status=500)
    assert chat.command("sendFile", {"files": Unreadable("a.txt", 1)}).reason["status"] == 500
    assert env.http.operations()[-1] == "limits"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "No files provided"),
        ([], "No files provided"),
        (5, "files must be paths or open files, not int"),
        (b"bytes", "files must be paths or open files, not bytes; for content wrap it in io.BytesIO"),
        ([b"bytes"], "files must be paths or open files, not bytes; for content wrap it in io.BytesIO"),
        ("/nowhere/a.txt", "/nowhere/a.txt is no file"),
        (["/tmp"], "/tmp is no file"),
    ],
)
def test_value_that_is_no_file_is_rejected(env, files, reason):
    assert env.start().command("sendFile", {"files": files}).reason == reason
    assert "limits" not in env.http.operations()


def test_unreadable_file_rejects_and_chat_continues(env):
    chat = env.start()

    class Gone(Paper):
        def read(self, *given):
            raise OSError(5, "Input/output error")

    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Gone(b"1"))
    assert caught.value.response.errors[0]["text"] == "notes.txt: cannot be read: Input/output error"
    assert chat.state == "polling"
    assert not {"disconnected", "error"} & set(env.heard.names)


def test_state_is_checked_before_files(env):
    assert env.open().command("sendFile", {"files": "/nowhere"}).reason == "There is no active chat session"


def test_get_file_limits_returns_the_server_limits(env):
    assert env.start().get_file_limits().body["messages"][0]["userData"]["upload-max-files"] == "3"


# -- downloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["fileId", "field"])
def test_download_by_either_id_is_written_by_name(env, tmp_path, key):
    chat = env.start()
    file = env.agent().send_file("manual.txt", b"read me")
    outcome = chat.command("downloadFile", {key: file.id, "to": tmp_path})
    assert (outcome.status, outcome.value) == ("resolved", None)
    assert (tmp_path / "manual.txt").read_bytes() == b"read me"
    assert chat.download_file(file.id, tmp_path) == tmp_path / "manual (1).txt"
    assert chat.download_file(file.id, tmp_path / "mine.bin").read_bytes() == b"read me"


HOSTILE = {
    "../../etc/passwd": "passwd",
    "..\\..\\windows\\win.ini": "win.ini",
    "/etc/shadow": "shadow",
    "C:\\autoexec.bat": "autoexec.bat",
    "..": "download",
    ".": "download",
    "...": "download",
    "": None,
    ".bashrc": "bashrc",
    "a\x00b.txt": "a_b.txt",
    "new\r\nline: x.txt": None,
    "x" * 300 + ".txt": "x" * 196 + ".txt",
    'quo"te.txt': "quo_te.txt",
    "trailing/": "download",
    "Überraschung.txt": "Überraschung.txt",
    "长" * 90 + ".txt": "长" * 65 + ".txt",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_server_file_name_is_reduced_to_a_safe_name(env, tmp_path, name):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    chat = env.start(client={"downloadDir": str(folder)})
    file = env.agent().send_file(name, b"content")
    path = chat.download_file(file.id)
    assert path.parent == folder
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert not any(character in path.name for character in '\x00\r\n/\\:"')
    if HOSTILE[name] is not None:
        assert path.name == HOSTILE[name]


@pytest.mark.parametrize("encoding", ["undefined''x", "idna''%ff", "unicode_escape''%5Cud800", "utf-8%00''a"])
def test_file_name_in_invalid_encoding_is_ignored(env, tmp_path, encoding):
    chat = env.start()
    env.http.answer("download", b"x", **{"content-disposition": f"attachment; filename*={encoding}"})
    assert chat.download_file("any", tmp_path).parent == tmp_path


def test_configured_folder_is_created_for_downloads(env, tmp_path):
    folder = tmp_path / "to" / "come"
    chat = env.start(client={"downloadDir": str(folder)})
    files = [env.agent().send_file(name, name.encode()) for name in ("one.txt", "two.txt")]
    assert [chat.download_file(file.id) for file in files] == [folder / "one.txt", folder / "two.txt"]
    assert (folder / "one.txt").read_bytes() == b"one.txt"


def test_download_path_with_trailing_slash_is_a_folder(env, tmp_path):
    file = env.start() and env.agent().send_file("one.txt", b"1")
    assert env.chat.download_file(file.id, f"{tmp_path}/new/") == tmp_path / "new" / "one.txt"


def test_file_in_place_of_folder_is_reported_and_kept(env, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    chat = env.start(client={"downloadDir": str(taken)})
    file = env.agent().send_file("one.txt", b"1")
    assert chat.command("downloadFile", {"fileId": file.id}).reason.endswith(f"{taken} is no folder")
    assert taken.read_text() == "mine"


def test_server_header_cannot_choose_the_folder(env, tmp_path):
    chat = env.start()
    disposition = "attachment; filename*=UTF-8''..%2F..%2Fevil.sh"
    env.http.answer("download", b"x", **{"content-disposition": disposition})
    assert chat.download_file("any", tmp_path) == tmp_path / "evil.sh"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_download_envelope_is_rejected_unwritten(env, tmp_path, code):
    chat = env.start()
    env.http.answer("download", envelope(statusCode=code, errors=[{"code": 235, "advice": "No such file"}]))
    outcome = chat.command("downloadFile", {"fileId": "any", "to": tmp_path})
    assert outcome.status == "rejected"
    assert list(tmp_path.iterdir()) == []
    assert chat.state == "polling"


def test_download_from_ended_chat_ends_the_session(env, tmp_path):
    chat = env.start()
    file = env.agent().send_file("report.pdf", b"%PDF")
    env.server.end()
    assert not chat.command("downloadFile", {"fileId": file.id, "to": tmp_path})
    assert chat.state == "ended"


def test_named_json_download_is_written_as_file(env, tmp_path):
    chat = env.start()
    file = env.agent().send_file("answer.json", b'{"statusCode": 2}')
    assert chat.download_file(file.id, tmp_path).read_bytes() == b'{"statusCode": 2}'


def test_unnamed_download_uses_transcript_name_or_id(env, tmp_path):
    chat = env.start()
    file = env.agent().send_file("known.txt", b"1")
    env.advance(3)
    env.http.answer("download", b"x")
    assert chat.download_file(file.id, tmp_path).name == "known.txt"
    env.http.answer("download", b"x")
    assert chat.download_file("../unknown", tmp_path).name == "unknown"


def test_file_id_is_one_escaped_path_segment(env, tmp_path):
    chat = env.start()
    assert not chat.command("downloadFile", {"fileId": "../../disconnect", "to": tmp_path})
    assert env.http.sent[-1].url.endswith("/file/%2E%2E%2F%2E%2E%2Fdisconnect/download")
    assert chat.state == "polling"


def test_download_of_unknown_file_is_only_rejected(env, tmp_path):
    outcome = env.start().command("downloadFile", {"fileId": "none", "to": tmp_path})
    assert outcome.reason["status"] == 404
    assert (env.chat.state, list(tmp_path.iterdir())) == ("polling", [])
    assert env.chat.command("downloadFile", {}).reason == "No file id provided"


def test_unwritable_folder_is_reported(env, tmp_path):
    file = env.start() and env.agent().send_file("a.txt", b"1")
    outcome = env.chat.command("downloadFile", {"fileId": file.id, "to": tmp_path / "none" / "a.txt"})
    assert outcome.reason.startswith("the file could not be written: ")
