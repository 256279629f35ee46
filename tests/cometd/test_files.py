"""Files beside CometD: forms to `apiURL` with the session's key."""

from __future__ import annotations

import json

import pytest

from tests.lifecycle.stage import Paper, Unreadable
from webchat_fsm import CommandRejected, ConfigError, WebChatService


def test_files_are_sent_as_forms_and_come_back_as_messages(stage):
    chat = stage.start(apikey="k")
    chat.send_file(Paper(b"text"))
    stage.advance(1)
    requests = [request for request in stage.http.sent if request.operation in ("limits", "file")]
    assert [dict(request.parts)["operation"] for request in requests] == ["fileGetLimits", "fileUpload"]
    assert {request.url for request in requests} == {"http://chat.test/genesys/2/chat-ntf"}
    key = chat.get_session_data().secure_key
    assert {dict(request.parts)["secureKey"] for request in requests} == {key}
    details = [message.file_details for message in chat.get_transcript().messages if message.type == "FileUploaded"]
    assert [one["file-name"] for one in details] == ["notes.txt"]


def test_the_api_key_goes_with_files_alone(stage):
    chat = stage.start(apikey="k", client={"headers": {"X-Trace": "7"}})
    chat.get_file_limits()
    for request in stage.http.sent:
        assert ("apikey" in request.headers) is (request.operation == "limits")
        assert request.headers["X-Trace"] == "7"


def test_a_file_comes_down_under_its_bare_name(stage, tmp_path):
    stage.start()
    chat = stage.chat
    file = stage.agent().send_file("../../plan.txt", b"content")
    stage.advance(1)
    path = chat.download_file(file.id, to=tmp_path)
    assert (path.parent, path.name, path.read_bytes()) == (tmp_path, "plan.txt", b"content")


def test_the_limits_of_the_server_come_before_a_byte_is_read(stage):
    chat = stage.start()
    with pytest.raises(CommandRejected) as told:
        chat.send_file(Unreadable("big.txt", 3_000_000))
    assert told.value.response.errors
    assert "file" not in stage.http.operations()


def test_a_failed_upload_rejects_and_the_chat_goes_on(stage):
    chat = stage.start()
    stage.server.faults.add(operation="fileUpload", http_status=400, errors=((203, "type"),))
    with pytest.raises(CommandRejected) as told:
        chat.send_file(Paper(b"text"))
    assert told.value.response.errors[0]["code"] == 203
    assert chat.state == "active"
    assert "error" not in stage.heard.names


def test_an_upload_without_an_answer_is_told_as_disconnected(stage):
    chat = stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="fileUpload", drop=True)
    assert chat.command("sendFile", {"files": Paper(b"text")}).status == "rejected"
    stage.advance(1)
    assert stage.heard.names == ["disconnected", "reconnected"]


def test_a_file_form_that_finds_the_chat_ended_ends_it_and_hangs_up(stage):
    chat = stage.start()
    stage.heard.take()
    gone = {"statusCode": 2, "chatEnded": True, "messages": [], "errors": [{"code": 249}]}
    stage.http.answer("limits", json.dumps(gone).encode())
    assert chat.command("getFileLimits").status == "rejected"
    assert (chat.state, stage.heard.names) == ("ended", ["ended"])
    assert stage.http.operations()[-1] == "hangup"


def test_files_need_an_address(stage):
    with pytest.raises(ConfigError, match="apiURL"):
        WebChatService({"cometD": {"enabled": True, "cometURL": "http://chat.test/cometd"}})
