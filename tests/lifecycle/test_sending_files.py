"""sendFile looks at type, size, count and total before a byte is read; downloadFile trusts no name of the server."""

from __future__ import annotations

import io

import pytest

from tests.lifecycle.stage import Paper, Unreadable, envelope
from webchat_fsm import CommandRejected
from webchat_fsm.server import ServerOptions
from webchat_fsm.testing import TestServer


@pytest.fixture
def webchat_server(webchat_timeline):
    """A server with small limits."""
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
def test_what_the_limits_forbid_is_refused_before_a_byte_is_read(stage, why):
    given, errors = REFUSED[why]
    chat = stage.start()
    with pytest.raises(CommandRejected) as caught:
        chat.send_file([Unreadable(name, size) for name, size in given])
    assert [(error["code"], error.get("filename")) for error in caught.value.response.errors] == errors
    assert caught.value.response.status == 400
    assert caught.value.response.body == {"errors": caught.value.response.errors}
    assert "file" not in stage.http.operations()
    assert chat.state == "polling"
    assert "error" not in stage.heard.names


def test_a_refused_upload_is_told_with_the_file_and_what_is_allowed(stage):
    chat = stage.start()
    with pytest.raises(CommandRejected) as caught:
        chat.send_file([Unreadable("virus.exe", 10), Unreadable("a.txt", 101), *[Unreadable("b.txt", 30)] * 2])
    assert str(caught.value) == (
        "sendFile rejected in state polling: the server's limits do not allow this upload:"
        " virus.exe is of none of the allowed types txt:png; a.txt is larger than the 100 bytes allowed for a file;"
        " there would be more files than the 3 allowed for a chat;"
        " together the files are larger than the 150 bytes allowed for a chat"
    )


@pytest.mark.parametrize(("name", "size"), [("a.txt", 100), ("A.TXT", 1), ("a.b.png", 0)])
def test_what_just_fits_is_sent(stage, name, size):
    chat = stage.start()
    file = io.BytesIO(b"x" * size)
    file.name = name
    assert chat.send_file(file).status == 200
    stored = list(stage.server.core.current_chat().files.values())
    assert [(one.name, len(one.content)) for one in stored] == [(name, size)]
    stage.advance(1)
    assert stage.heard.last("messageReceived").messages[-1].file_details["file-name"] == name


def test_files_sent_before_count_too(stage):
    chat = stage.start()
    chat.send_file([Paper(b"x" * 60), Paper(b"x" * 60)])
    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Unreadable("c.txt", 31))
    assert caught.value.response.errors == [{"code": 202, "advice": "150"}]
    chat.send_file(Paper(b"x" * 30))
    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Unreadable("d.txt", 0))
    assert caught.value.response.errors == [{"code": 201, "advice": "3"}]


def test_all_files_are_sent_with_one_request_each(stage, tmp_path):
    chat = stage.start()
    path = tmp_path / "from disk.txt"
    path.write_bytes(b"disk")
    response = chat.send_file([path, str(path), Paper(b"memory")])
    assert response.body["userData"]["file-id"]
    assert stage.http.operations().count("file") == 3
    contents = [file.content for file in stage.server.core.current_chat().files.values()]
    assert contents == [b"disk", b"disk", b"memory"]


def test_an_open_file_is_sent_from_where_it_stands(stage):
    chat = stage.start()
    file = Paper(b"header body")
    file.seek(7)
    chat.send_file(file)
    assert [file.content for file in stage.server.core.current_chat().files.values()] == [b"body"]


def test_the_first_upload_that_fails_rejects_and_the_rest_is_not_sent(stage):
    chat = stage.start()
    stage.server.faults.add(operation="file", http_status=400, errors=(203,), skip=1)
    outcome = chat.command("sendFile", {"files": [Paper(b"1"), Paper(b"2"), Paper(b"3")]})
    assert outcome.reason["errors"][0]["code"] == 203
    assert [file.content for file in stage.server.core.current_chat().files.values()] == [b"1"]
    assert chat.state == "polling"


def test_files_that_were_not_sent_because_the_chat_ended_are_not_said_to_be(stage):
    chat = stage.start()
    stage.http.answer("file", b'{"statusCode": 0, "chatEnded": true, "messages": []}')
    with pytest.raises(CommandRejected, match="The chat was over before all files were sent"):
        chat.send_file([Paper(b"1"), Paper(b"2")])
    assert stage.heard.names[-2:] == ["pollingStopped", "ended"]


def test_limits_of_a_chat_that_is_over_end_it(stage):
    chat = stage.start()
    stage.http.answer("limits", b'{"statusCode": 0, "chatEnded": true, "messages": []}')
    with pytest.raises(CommandRejected, match="The chat was over before all files were sent"):
        chat.send_file(Unreadable("a.txt", 1))
    assert stage.heard.names[-2:] == ["pollingStopped", "ended"]


def test_without_limits_nothing_is_sent(stage):
    chat = stage.start()
    stage.server.faults.add(operation="file/limits", http_status=500)
    assert chat.command("sendFile", {"files": Unreadable("a.txt", 1)}).reason["status"] == 500
    assert stage.http.operations()[-1] == "limits"


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
def test_what_is_no_file_is_told(stage, files, reason):
    assert stage.start().command("sendFile", {"files": files}).reason == reason
    assert "limits" not in stage.http.operations()


def test_a_file_that_cannot_be_read_after_all_rejects_and_harms_no_chat(stage):
    chat = stage.start()

    class Gone(Paper):
        def read(self, *given):
            raise OSError(5, "Input/output error")

    with pytest.raises(CommandRejected) as caught:
        chat.send_file(Gone(b"1"))
    assert caught.value.response.errors[0]["text"] == "notes.txt: cannot be read: Input/output error"
    assert chat.state == "polling"
    assert not {"disconnected", "error"} & set(stage.heard.names)


def test_the_state_is_looked_at_before_the_files(stage):
    assert stage.open().command("sendFile", {"files": "/nowhere"}).reason == "There is no active chat session"


def test_the_limits_may_be_asked_for(stage):
    assert stage.start().get_file_limits().body["messages"][0]["userData"]["upload-max-files"] == "3"


# -- downloads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["fileId", "field"])
def test_a_file_is_fetched_under_either_name_and_written_under_its_own(stage, tmp_path, key):
    chat = stage.start()
    file = stage.agent().send_file("manual.txt", b"read me")
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
def test_a_name_from_the_server_is_reduced_to_a_bare_file_name(stage, tmp_path, name):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    chat = stage.start(client={"downloadDir": str(folder)})
    file = stage.agent().send_file(name, b"content")
    path = chat.download_file(file.id)
    assert path.parent == folder
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]
    assert not any(character in path.name for character in '\x00\r\n/\\:"')
    if HOSTILE[name] is not None:
        assert path.name == HOSTILE[name]


@pytest.mark.parametrize("encoding", ["undefined''x", "idna''%ff", "unicode_escape''%5Cud800", "utf-8%00''a"])
def test_a_name_in_an_encoding_that_is_none_is_no_name(stage, tmp_path, encoding):
    chat = stage.start()
    stage.http.answer("download", b"x", **{"content-disposition": f"attachment; filename*={encoding}"})
    assert chat.download_file("any", tmp_path).parent == tmp_path


def test_the_folder_of_the_configuration_is_made_and_holds_every_download(stage, tmp_path):
    folder = tmp_path / "to" / "come"
    chat = stage.start(client={"downloadDir": str(folder)})
    files = [stage.agent().send_file(name, name.encode()) for name in ("one.txt", "two.txt")]
    assert [chat.download_file(file.id) for file in files] == [folder / "one.txt", folder / "two.txt"]
    assert (folder / "one.txt").read_bytes() == b"one.txt"


def test_a_path_that_ends_with_a_slash_is_a_folder(stage, tmp_path):
    file = stage.start() and stage.agent().send_file("one.txt", b"1")
    assert stage.chat.download_file(file.id, f"{tmp_path}/new/") == tmp_path / "new" / "one.txt"


def test_a_file_in_the_place_of_the_folder_is_told_and_kept(stage, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    chat = stage.start(client={"downloadDir": str(taken)})
    file = stage.agent().send_file("one.txt", b"1")
    assert chat.command("downloadFile", {"fileId": file.id}).reason.endswith(f"{taken} is no folder")
    assert taken.read_text() == "mine"


def test_a_header_of_the_server_cannot_choose_the_folder_either(stage, tmp_path):
    chat = stage.start()
    disposition = "attachment; filename*=UTF-8''..%2F..%2Fevil.sh"
    stage.http.answer("download", b"x", **{"content-disposition": disposition})
    assert chat.download_file("any", tmp_path) == tmp_path / "evil.sh"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_envelope_in_place_of_the_file_is_told_and_not_written(stage, tmp_path, code):
    chat = stage.start()
    stage.http.answer("download", envelope(statusCode=code, errors=[{"code": 235, "advice": "No such file"}]))
    outcome = chat.command("downloadFile", {"fileId": "any", "to": tmp_path})
    assert outcome.status == "rejected"
    assert list(tmp_path.iterdir()) == []
    assert chat.state == "polling"


def test_a_download_after_the_end_of_the_chat_ends_it_here_too(stage, tmp_path):
    chat = stage.start()
    file = stage.agent().send_file("report.pdf", b"%PDF")
    stage.server.end()
    assert not chat.command("downloadFile", {"fileId": file.id, "to": tmp_path})
    assert chat.state == "ended"


def test_a_file_that_looks_like_an_answer_is_a_file_where_it_has_a_name(stage, tmp_path):
    chat = stage.start()
    file = stage.agent().send_file("answer.json", b'{"statusCode": 2}')
    assert chat.download_file(file.id, tmp_path).read_bytes() == b'{"statusCode": 2}'


def test_without_a_name_in_the_answer_the_transcript_gives_it_and_then_the_id(stage, tmp_path):
    chat = stage.start()
    file = stage.agent().send_file("known.txt", b"1")
    stage.advance(3)
    stage.http.answer("download", b"x")
    assert chat.download_file(file.id, tmp_path).name == "known.txt"
    stage.http.answer("download", b"x")
    assert chat.download_file("../nobody", tmp_path).name == "nobody"


def test_a_file_id_stays_one_part_of_the_address(stage, tmp_path):
    chat = stage.start()
    assert not chat.command("downloadFile", {"fileId": "../../disconnect", "to": tmp_path})
    assert stage.http.sent[-1].url.endswith("/file/%2E%2E%2F%2E%2E%2Fdisconnect/download")
    assert chat.state == "polling"


def test_an_unknown_file_rejects_and_ends_nothing(stage, tmp_path):
    outcome = stage.start().command("downloadFile", {"fileId": "none", "to": tmp_path})
    assert outcome.reason["status"] == 404
    assert (stage.chat.state, list(tmp_path.iterdir())) == ("polling", [])
    assert stage.chat.command("downloadFile", {}).reason == "No file id provided"


def test_a_folder_that_cannot_be_written_to_is_told(stage, tmp_path):
    file = stage.start() and stage.agent().send_file("a.txt", b"1")
    outcome = stage.chat.command("downloadFile", {"fileId": file.id, "to": tmp_path / "none" / "a.txt"})
    assert outcome.reason.startswith("the file could not be written: ")
