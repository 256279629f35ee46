"""Check GMS version 2 over REST, operation by operation."""

from __future__ import annotations

import json

import pytest

from webchat_fsm.server import HttpRequest

BASE = "/genesys/2/chat/customer-support"
ENVELOPE = {"statusCode", "chatId", "userId", "secureKey", "alias", "chatEnded", "messages", "nextPosition"}


def test_start_opens_chat_with_client_joined(visit):
    envelope = visit().start(nickname="Jonny", subject="product questions")
    assert set(envelope) == ENVELOPE
    assert envelope["statusCode"] == 0
    assert envelope["chatEnded"] is False
    assert envelope["nextPosition"] == 2
    assert envelope["messages"] == [
        {
            "index": 1,
            "type": "ParticipantJoined",
            "from": {"nickname": "Jonny", "participantId": 1, "type": "Client"},
            "utcTime": 1_000_000,
        }
    ]


@pytest.mark.parametrize("path", [BASE, BASE + "/", "/gms-chat/2/chat/x", "/2/chat/x", "/a/b/2/chat/x/"])
def test_start_accepts_trailing_slash_and_any_application(visit, path):
    assert visit().post(path, {"nickname": "Jonny"}).json()["statusCode"] == 0


def test_start_accepts_empty_keys_and_literal_quotes(visit):
    visitor = visit()
    body = b"&alias=&secureKey=&userId=&nickname=Jonny&text=&userData%5B%22Reason%22%5D=none&userData[a][b]=c"
    assert visitor.post(BASE + "/", body=body).json()["statusCode"] == 0
    assert visitor.server.current_chat().user_data == {"Reason": "none", "a": {"b": "c"}}


def test_start_joins_first_and_last_name(visit):
    envelope = visit().start(firstName="First", lastName="Last")
    assert envelope["messages"][0]["from"]["nickname"] == "First Last"


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"subject": "x"}, 161), ({"firstName": "First"}, 103), ({"lastName": "Last"}, 102), ({"nickname": "  "}, 161)],
)
def test_start_without_name_is_400_with_code(visit, fields, code):
    visitor = visit()
    answer = visitor.post(BASE, fields)
    assert answer.status == 400
    assert [error["code"] for error in answer.json()["errors"]] == [code]
    assert visitor.server.chats == []


def test_email_address_is_checked_only_if_configured(visit):
    odd = {"nickname": "Jonny", "emailAddress": "nowhere"}
    assert visit().post(BASE, odd).status == 200
    assert visit(check_email=True).post(BASE, odd).json()["errors"][0]["code"] == 364


def test_sent_message_is_returned_by_next_refresh(visitor, types):
    assert visitor.call("send", message="hi")["messages"] == []
    envelope = visitor.refresh(2)
    assert types(envelope) == ["Message"]
    assert envelope["messages"][0]["text"] == "hi"
    assert envelope["messages"][0]["messageType"] == "text"
    assert envelope["nextPosition"] == 3


def test_send_with_position_returns_transcript_from_there(visitor, types):
    assert types(visitor.call("send", message="hi", transcriptPosition=1)) == ["ParticipantJoined", "Message"]


def test_send_keeps_label_and_event_attributes(visitor):
    related = {"general-properties": {"related-event-id": "1"}}
    visitor.call("send", message="hi", messageType="custom", eventAttributes=json.dumps(related))
    message = visitor.refresh(2)["messages"][0]
    assert message["messageType"] == "custom"
    assert message["eventAttributes"] == related


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("send", {}),
        ("pushUrl", {}),
        ("updateNickname", {}),
        ("readReceipt", {}),
        ("refresh", {"transcriptPosition": "x"}),
        ("send", {"message": "hi", "eventAttributes": "{not json"}),
    ],
)
def test_missing_or_broken_parameter_is_400_with_code_100(visitor, operation, fields):
    answer = visitor.ask(operation, **fields)
    assert answer.status == 400
    assert answer.json()["errors"][0]["code"] == 100
    assert len(visitor.server.current_chat().transcript) == 1


@pytest.mark.parametrize(
    ("position", "indexes"),
    [(0, []), (None, [1, 2, 3]), (1, [1, 2, 3]), (3, [3]), (4, []), (-1, [3])],
)
def test_refresh_position_selects_messages(visitor, position, indexes):
    visitor.call("send", message="one")
    visitor.call("send", message="two")
    envelope = visitor.refresh(position)
    assert [message["index"] for message in envelope["messages"]] == indexes
    assert envelope["nextPosition"] == 4


def test_empty_position_returns_whole_transcript(visitor, types):
    assert types(visitor.call("refresh", transcriptPosition="")) == ["ParticipantJoined"]


def test_typing_event_has_preview_text_if_given(visitor, types):
    visitor.call("startTyping", message="he")
    visitor.call("stopTyping")
    envelope = visitor.refresh(2)
    assert types(envelope) == ["TypingStarted", "TypingStopped"]
    assert envelope["messages"][0]["text"] == "he"
    assert "text" not in envelope["messages"][1]


def test_typing_is_omitted_from_refetch_if_configured(visit, types):
    visitor = visit(typing_in_refetch=False)
    visitor.start()
    visitor.call("startTyping")
    assert types(visitor.refresh(1)) == ["ParticipantJoined"]
    assert types(visitor.refresh(2)) == ["TypingStarted"]


def test_refresh_message_sets_typing_preview(visitor):
    visitor.call("refresh", transcriptPosition=2, message="I am wri")
    assert visitor.server.current_chat().draft == "I am wri"


def test_url_nickname_and_notice_become_events(visitor, types):
    visitor.call("pushUrl", pushUrl="https://shop.example/a")
    visitor.call("updateNickname", nickname="Jon")
    visitor.call("customNotice", message="", eventAttributes='{"purpose":"survey"}')
    envelope = visitor.refresh(2)
    assert types(envelope) == ["PushUrl", "NicknameUpdated", "CustomNotice"]
    url, named, notice = envelope["messages"]
    assert url["text"] == "https://shop.example/a"
    assert url["from"]["nickname"] == "Jonny"
    assert named["from"]["nickname"] == "Jon"
    assert notice["eventAttributes"] == {"purpose": "survey"}


def test_user_data_is_merged_without_event(visitor):
    visitor.call("updateData", **{"userData[tier]": "gold", "userData[page]": "/a"})
    visitor.call("updateData", **{"userData[page]": "/b"})
    assert visitor.server.current_chat().user_data == {"tier": "gold", "page": "/b"}
    assert visitor.refresh(2)["messages"] == []


def test_read_receipt_adds_notice_unless_switched_off(visit, types):
    for switched_on, expected in ((True, ["Notice"]), (False, [])):
        visitor = visit(read_receipt_notice=switched_on)
        visitor.start()
        assert visitor.call("readReceipt", transcriptPosition=1)["messages"] == []
        assert types(visitor.refresh(2)) == expected
        assert visitor.server.current_chat().read_position == 1


def test_user_data_that_is_no_group_is_ignored(visitor):
    visitor.call("updateData", userData="{not json")
    visitor.call("updateData", userData="flat")
    assert visitor.server.current_chat().user_data == {}


def test_structured_user_data_becomes_text_in_events(visitor):
    body = json.dumps({**visitor.ids, "message": "n", "userData": {"n": 3, "deep": {"a": [1]}}}).encode()
    path = f"{BASE}/{visitor.chat_id}/customNotice"
    assert visitor.post(path, body=body, headers={"Content-Type": "application/json"}).status == 200
    assert visitor.refresh(2)["messages"][0]["userData"] == {"n": "3", "deep": '{"a":[1]}'}


def test_unreadable_body_is_400_with_errors(visitor):
    path, kind = f"{BASE}/{visitor.chat_id}/send", {"Content-Type": "application/json"}
    answer = visitor.post(path, body=b"{", headers=kind)
    assert (answer.status, answer.json()["errors"][0]["code"]) == (400, 400)


def test_too_long_text_is_400_with_code_204(visit):
    visitor = visit(max_message_length=3)
    visitor.start()
    visitor.call("send", message="abc")
    for operation in ("send", "refresh", "startTyping", "customNotice"):
        answer = visitor.ask(operation, message="abcd")
        assert (answer.status, answer.json()["errors"][0]["code"]) == (400, 204)


def test_disconnect_ends_chat_without_messages(visitor, types):
    envelope = visitor.call("disconnect")
    assert envelope["chatEnded"] is True
    assert envelope["messages"] == []


def test_disconnect_with_position_returns_own_leave(visitor, types):
    assert types(visitor.call("disconnect", transcriptPosition=2)) == ["ParticipantLeft"]


def test_ended_chat_is_served_once_more_and_then_is_249(visitor, types):
    ann = visitor.server.agent("Ann")
    ann.join()
    ann.say("bye")
    visitor.server.end()
    last = visitor.refresh(2)
    assert (last["statusCode"], last["chatEnded"]) == (0, True)
    assert types(last) == ["ParticipantJoined", "Message", "ParticipantLeft"]
    for operation in ("refresh", "disconnect", "file/limits"):
        gone = visitor.call(operation)
        assert set(gone) == ENVELOPE | {"errors"}
        assert (gone["statusCode"], gone["chatEnded"], gone["messages"]) == (2, True, [])
        assert gone["errors"][0]["code"] == 249


def test_send_to_ended_chat_is_249_at_once(visitor):
    visitor.server.end()
    assert visitor.call("send", message="hi", transcriptPosition=1)["errors"][0]["code"] == 249


def test_wrong_key_is_answered_like_ended_chat(visitor):
    right = visitor.ids["secureKey"]
    visitor.ids["secureKey"] = "wrong"
    answer = visitor.call("refresh")
    assert (answer["statusCode"], answer["chatEnded"], answer["secureKey"]) == (2, True, "")
    visitor.ids["secureKey"] = right
    assert visitor.refresh()["statusCode"] == 0


def test_wrong_key_removes_client_if_configured(visit):
    visitor = visit(kick_on_wrong_key=True)
    visitor.start()
    right, visitor.ids["secureKey"] = visitor.ids["secureKey"], "wrong"
    visitor.call("refresh")
    visitor.ids["secureKey"] = right
    assert visitor.refresh()["errors"][0]["code"] == 249


def test_wrong_alias_is_refused_only_in_strict_mode(visit):
    for strict, status_code in ((False, 0), (True, 2)):
        visitor = visit(strict_ids=strict)
        visitor.start()
        visitor.ids["alias"] = "0"
        assert visitor.refresh()["statusCode"] == status_code


def test_rotated_alias_is_returned_by_refresh(visitor):
    assert visitor.server.rotate_alias("9999") == "9999"
    assert visitor.refresh()["alias"] == "9999"


def test_unknown_service_is_404_or_400_with_code_306(visit):
    answer = visit(services=("other",)).post(BASE, {"nickname": "Jonny"})
    assert (answer.status, answer.body) == (404, b"")
    answer = visit(services=("other",), unknown_service_code=306).post(BASE, {"nickname": "Jonny"})
    assert (answer.status, answer.json()["errors"][0]["code"]) == (400, 306)


def test_chat_at_other_service_has_status_2(visitor):
    answer = visitor.post(f"/genesys/2/chat/other/{visitor.chat_id}/refresh", visitor.ids)
    assert answer.json()["statusCode"] == 2


@pytest.mark.parametrize("path", ["/", "/genesys/3/chat/x", BASE + "/1/nothing", BASE + "/1", BASE + "/1/file/2"])
def test_unknown_path_is_404(visit, path):
    assert visit().post(path, {"nickname": "Jonny"}).status == 404


def test_get_request_is_405_with_allow_post(visitor):
    answer = visitor.server.handle(HttpRequest("GET", f"{BASE}/{visitor.chat_id}/refresh"), 1000.0)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_missing_api_key_is_401_if_configured(visit):
    visitor = visit(apikey="k")
    assert visitor.post(BASE, {"nickname": "Jonny"}).status == 401
    assert visitor.post(BASE, {"nickname": "Jonny"}, headers={"ApiKey": "k"}).status == 200


def test_two_chats_have_separate_messages_and_keys(visitor, rest_class):
    other = rest_class(visitor.server)
    other.start(nickname="Mia")
    other.call("send", message="from Mia")
    assert [message["from"]["nickname"] for message in visitor.refresh()["messages"]] == ["Jonny"]
    assert len({chat.secure_key for chat in visitor.server.chats}) == 2


def test_same_calls_with_same_seed_return_same_bytes(visit):
    def story() -> list[bytes]:
        visitor = visit(seed=7)
        visitor.start()
        return [visitor.ask("send", message="hi").body, visitor.ask("refresh").body]

    assert story() == story()


# Files


def test_file_limits_are_strings_in_notice_without_index(visitor):
    notice = visitor.call("file/limits")["messages"][0]
    assert "index" not in notice
    assert (notice["type"], notice["text"]) == ("Notice", "file-client-cfg-get")
    assert notice["userData"] == {
        "download-attempts": "10",
        "upload-max-files": "3",
        "upload-max-file-size": "2097152",
        "upload-max-total-size": "5242880",
        "upload-need-agent": "false",
        "upload-file-types": "jpeg:jpg:pdf:png:txt:zip",
        "used-upload-max-files": "0",
        "used-upload-max-total-size": "0",
        "used-download-attempts": "0",
        "delete-file": "odd",
    }


def test_file_limits_accept_multipart_body(visitor, make_multipart):
    body, kind = make_multipart(visitor.ids, {})
    answer = visitor.post(f"{BASE}/{visitor.chat_id}/file/limits", body=body, headers={"Content-Type": kind})
    assert answer.json()["statusCode"] == 0


def test_file_is_uploaded_downloaded_and_deleted(visitor, types):
    uploaded = visitor.upload("a b.png", b"\x89PNG", **{"userData[file-description]": "a picture"}).json()
    file_id = uploaded["userData"]["file-id"]
    event = visitor.refresh(2)["messages"][0]
    assert (event["type"], event["text"]) == ("FileUploaded", file_id)
    assert event["userData"]["file-name"] == "a b.png"
    assert event["userData"]["file-size"] == "4"
    assert event["userData"]["file-description"] == "a picture"
    assert all(isinstance(value, str) for value in event["userData"].values())

    download = visitor.ask(f"file/{file_id}/download")
    assert download.body == b"\x89PNG"
    assert download.headers["content-type"] == "image/png"
    assert 'filename="a b.png"' in download.headers["content-disposition"]

    visitor.call(f"file/{file_id}/delete")
    deleted = visitor.refresh(3)["messages"][0]
    assert (deleted["type"], deleted["userData"]["file-id"]) == ("FileDeleted", file_id)
    assert visitor.ask(f"file/{file_id}/download").status == 404


@pytest.mark.parametrize(
    ("options", "name", "content", "code", "advice"),
    [
        ({"max_files": 0}, "a.png", b"x", 201, "0"),
        ({"max_file_size": 2}, "a.png", b"xyz", 202, "2"),
        ({"max_total_size": 2}, "a.png", b"xyz", 202, "2"),
        ({}, "a.exe", b"x", 203, None),
        ({"upload_needs_agent": True}, "a.png", b"x", 249, None),
    ],
)
def test_upload_beyond_limits_is_400_with_code(visit, options, name, content, code, advice):
    visitor = visit(**options)
    visitor.start()
    answer = visitor.upload(name, content)
    error = answer.json()["errors"][0]
    assert (answer.status, error["code"]) == (400, code)
    assert advice is None or error["advice"] == advice
    assert visitor.server.current_chat().files == {}


def test_upload_without_file_has_code_100(visitor):
    assert visitor.ask("file").json()["errors"][0]["code"] == 100


def test_downloads_are_counted_and_limited(visit):
    visitor = visit(download_attempts=1)
    visitor.start()
    file_id = visitor.upload("a.txt", b"x").json()["userData"]["file-id"]
    assert visitor.ask(f"file/{file_id}/download").status == 200
    assert visitor.ask(f"file/{file_id}/download").status == 400
    assert visitor.call("file/limits")["messages"][0]["userData"]["used-download-attempts"] == "1"


def test_multipart_of_other_type_is_415_unless_sniffed(visit, make_multipart):
    for sniff, status in ((False, 415), (True, 200)):
        visitor = visit(sniff_multipart=sniff)
        visitor.start()
        body, _ = make_multipart(visitor.ids, {"file": ("a.txt", b"x")})
        answer = visitor.post(f"{BASE}/{visitor.chat_id}/file", body=body)
        assert answer.status == status


def test_request_log_has_operation_fields_and_headers(visitor):
    visitor.post(f"{BASE}/{visitor.chat_id}/send?x=1", {**visitor.ids, "message": "hi"}, headers={"APIKey": "secret"})
    logged = visitor.server.requests[-1]
    assert (logged.dialect, logged.operation, logged.method, logged.time) == ("v2", "send", "POST", 1000.0)
    assert logged.fields["message"] == "hi"
    assert logged.fields["x"] == "1"
    assert logged.headers["apikey"] == "secret"
