"""Check files over CometD: forms to `apiURL` with the session's key."""

from __future__ import annotations

import json

import pytest

from tests.lifecycle.environment import Paper, Unreadable
from webchat_fsm import CommandRejected, ConfigError, WebChatService


def test_file_is_uploaded_as_form_and_received_as_message(env):
    chat = env.start(apikey="k")
    chat.send_file(Paper(b"text"))
    env.advance(1)
    requests = [request for request in env.http.sent if request.operation in ("limits", "file")]
    assert [dict(request.parts)["operation"] for request in requests] == ["fileGetLimits", "fileUpload"]
    assert {request.url for request in requests} == {"http://chat.test/genesys/2/chat-ntf"}
    key = chat.get_session_data().secure_key
    assert {dict(request.parts)["secureKey"] for request in requests} == {key}
    details = [message.file_details for message in chat.get_transcript().messages if message.type == "FileUploaded"]
    assert [one["file-name"] for one in details] == ["notes.txt"]


def test_api_key_is_sent_with_file_requests_only(env):
    chat = env.start(apikey="k", client={"headers": {"X-Trace": "7"}})
    chat.get_file_limits()
    for request in env.http.sent:
        assert ("apikey" in request.headers) is (request.operation == "limits")
        assert request.headers["X-Trace"] == "7"


def test_downloaded_file_is_saved_without_its_directories(env, tmp_path):
    env.start()
    chat = env.chat
    file = env.agent().send_file("../../plan.txt", b"content")
    env.advance(1)
    path = chat.download_file(file.id, to=tmp_path)
    assert (path.parent, path.name, path.read_bytes()) == (tmp_path, "plan.txt", b"content")


def test_file_beyond_server_limits_is_rejected_unread(env):
    chat = env.start()
    with pytest.raises(CommandRejected) as rejected:
        chat.send_file(Unreadable("big.txt", 3_000_000))
    assert rejected.value.response.errors
    assert "file" not in env.http.operations()


def test_failed_upload_is_rejected_and_chat_stays_active(env):
    chat = env.start()
    env.server.faults.add(operation="fileUpload", http_status=400, errors=((203, "type"),))
    with pytest.raises(CommandRejected) as rejected:
        chat.send_file(Paper(b"text"))
    assert rejected.value.response.errors[0]["code"] == 203
    assert chat.state == "active"
    assert "error" not in env.heard.names


def test_upload_without_an_answer_is_disconnected(env):
    chat = env.start()
    env.heard.take()
    env.server.faults.add(operation="fileUpload", drop=True)
    assert chat.command("sendFile", {"files": Paper(b"text")}).status == "rejected"
    env.advance(1)
    assert env.heard.names == ["disconnected", "reconnected"]


def test_file_form_with_ended_chat_ends_chat(env):
    chat = env.start()
    env.heard.take()
    gone = {"statusCode": 2, "chatEnded": True, "messages": [], "errors": [{"code": 249}]}
    env.http.answer("limits", json.dumps(gone).encode())
    assert chat.command("getFileLimits").status == "rejected"
    assert (chat.state, env.heard.names) == ("ended", ["ended"])
    assert env.http.operations()[-1] == "hangup"


def test_configuration_without_api_url_is_rejected(env):
    with pytest.raises(ConfigError, match="apiURL"):
        WebChatService({"cometD": {"enabled": True, "cometURL": "http://chat.test/cometd"}})
