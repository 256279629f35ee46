"""Check the v2 dialect: every request as the protocol specifies it, and the result of every shape of response."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.wire.asked import asked
from webchat_fsm._config import Config
from webchat_fsm._core.steps import Call, ResponseKind
from webchat_fsm._model import FileToSend, Sender, SessionData
from webchat_fsm._wire.gms_v2 import GmsV2
from webchat_fsm._wire.request import FilePart, HttpAnswer, bare

BASE = "https://host.test/genesys/2/chat/customer-support"
IDS = SessionData(session_id="00048aAPEQJ8000U", secure_key="4ee15d7e1c343c8e", alias="117", user_id="007555677B20000A")
CREDENTIALS = [("userId", "007555677B20000A"), ("secureKey", "4ee15d7e1c343c8e"), ("alias", "117")]


def dialect(**config) -> GmsV2:
    return GmsV2(Config.read({"dataURL": BASE, **config}))


def call(operation: str, **fields) -> Call:
    return asked(operation, IDS, **fields)


def start(form=None, user_data=None) -> Call:
    return asked("start", SessionData(), form=form or {}, user_data=user_data or {})


def body_of(request) -> list[tuple[str, str]]:
    return parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(request.body))


# -- requests ----------------------------------------------------------------------------------------------------------

SESSION_REQUESTS = {
    "refresh": (call("refresh", position=3, preview="draft"), [("transcriptPosition", "3"), ("message", "draft")]),
    "restore": (call("restore"), [("transcriptPosition", "1"), ("message", "")]),
    "send": (call("send", message="hi"), [("message", "hi"), ("messageType", "text")]),
    "startTyping": (call("startTyping", preview="h"), [("message", "h")]),
    "stopTyping": (call("stopTyping"), [("message", "")]),
    "disconnect": (call("disconnect"), []),
    "updateData": (call("updateData", user_data={"page": "/help"}), [("userData[page]", "/help")]),
    "customNotice": (call("customNotice", message="n"), [("message", "n")]),
    "limits": (call("limits"), []),
    "download": (call("download", file_id="00D2"), []),
}
PATHS = {"restore": "refresh", "limits": "file/limits", "download": "file/00D2/download"}


@pytest.mark.parametrize("operation", SESSION_REQUESTS)
def test_each_operation_posts_credentials_to_its_path(operation):
    one, fields = SESSION_REQUESTS[operation]
    request = dialect().request(one)
    assert (request.method, request.url) == ("POST", f"{BASE}/00048aAPEQJ8000U/{PATHS.get(operation, operation)}")
    assert body_of(request) == CREDENTIALS + fields
    assert request.content_type == "application/x-www-form-urlencoded"
    assert request.operation == operation


def test_start_posts_the_form_with_wire_names_to_base_url():
    form = {"nickname": "Jonny", "firstname": "Jon", "lastname": "Doe", "email": "j@x.test", "subject": "a b&c"}
    request = dialect().request(start(form))
    assert (request.method, request.url) == ("POST", BASE + "/")
    assert body_of(request) == [
        ("nickname", "Jonny"), ("firstName", "Jon"), ("lastName", "Doe"), ("emailAddress", "j@x.test"),
        ("subject", "a b&c"),
    ]  # fmt: skip


def test_start_does_not_send_a_stored_token():
    request = dialect().request(asked("start", IDS))
    assert IDS.secure_key.encode() not in request.body


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({}, BASE + "/"),
        ({"dataURL": BASE + "/"}, BASE + "/"),
        ({"enableUrlTrailingSlash": False}, BASE),
        ({"dataURL": BASE + "/", "enableUrlTrailingSlash": False}, BASE),
    ],
)
def test_start_url_ends_with_a_slash_as_configured(config, url):
    gms = dialect(**config)
    assert gms.request(start()).url == url
    assert gms.request(call("disconnect")).url == f"{BASE}/00048aAPEQJ8000U/disconnect"


def test_endpoint_is_sent_with_the_start_only():
    gms = dialect(endpoint="Environment:default")
    assert ("endpoint", "Environment:default") in body_of(gms.request(start()))
    assert "endpoint" not in dict(body_of(gms.request(call("refresh"))))


def test_user_data_is_bracketed_as_by_a_browser():
    data = {"a": 1, "b": {"c": True, "d": {"e": "f"}}, "g": ["x", "y"], "h": None, "i": {}, "ü": "ä&="}
    request = dialect().request(call("updateData", user_data=data))
    assert body_of(request)[3:] == [
        ("userData[a]", "1"), ("userData[b][c]", "true"), ("userData[b][d][e]", "f"), ("userData[g][]", "x"),
        ("userData[g][]", "y"), ("userData[h]", ""), ("userData[ü]", "ä&="),
    ]  # fmt: skip
    assert b"userData%5Ba%5D=1" in request.body
    assert body_of(dialect().request(start({}, {"a": {"b": 1}}))) == [("userData[a][b]", "1")]


def test_send_has_message_type_and_parent_message_id():
    fields = dict(
        body_of(dialect().request(call("send", message="hi", message_type="survey", parent_message_id="abc")))
    )
    assert fields["messageType"] == "survey"
    assert json.loads(fields["eventAttributes"]) == {"general-properties": {"related-event-id": "abc"}}
    assert "transcriptPosition" not in fields


@pytest.mark.parametrize("given", [{"purpose": "cancel-idle-timer"}, '{"purpose": "cancel-idle-timer"}'])
def test_event_attributes_are_sent_as_json_text(given):
    fields = dict(body_of(dialect().request(call("customNotice", event_attributes=given))))
    assert json.loads(fields["eventAttributes"]) == {"purpose": "cancel-idle-timer"}
    assert fields["message"] == ""


def test_upload_is_multipart_with_credentials_before_file():
    file = FileToSend(name="a b.png", size=3, content_type="image/png", source=lambda: b"png")
    request = dialect().request(call("file", file=file, content=b"png"))
    part = FilePart(name="a b.png", content=b"png", content_type="image/png")
    assert request.parts == (*CREDENTIALS, ("file", part))
    assert (request.body, request.url) == (b"", f"{BASE}/00048aAPEQJ8000U/file")


@pytest.mark.parametrize(
    ("config", "headers"),
    [
        ({}, {}),
        ({"apikey": "n3e"}, {"apikey": "n3e"}),
        ({"client": {"headers": {"X-Tenant": "t"}}, "apikey": "n3e"}, {"X-Tenant": "t", "apikey": "n3e"}),
    ],
)
def test_configured_headers_are_in_every_request(config, headers):
    gms = dialect(**config)
    calls = [start(), *(known for known, _ in SESSION_REQUESTS.values())]
    assert all(gms.request(one).headers == headers for one in calls)


def test_custom_header_is_sent_only_if_enabled():
    main = {"main": {"header": {"Authorization": "Bearer x"}}}
    enabled = GmsV2(Config.read({**main, "webchat": {"dataURL": BASE, "enableCustomHeader": True}}))
    assert enabled.request(call("refresh")).headers == {"Authorization": "Bearer x"}
    disabled = GmsV2(Config.read({**main, "webchat": {"dataURL": BASE}}))
    assert disabled.request(call("refresh")).headers == {}


def test_requests_have_their_timeout_size_and_repeatability():
    gms = dialect(ajaxTimeout=1500, fileUploadTimeout=0, client={"maxAnswerSize": 2048, "maxDownloadSize": 4096})
    file = FileToSend(name="a.png", size=1, content_type="image/png", source=lambda: b"")
    requests = {name: gms.request(one) for name, (one, _) in SESSION_REQUESTS.items()}
    requests["file"] = gms.request(call("file", file=file))
    assert {name for name, request in requests.items() if request.repeatable} == {"refresh", "restore", "limits"}
    assert {name for name, request in requests.items() if request.timeout is None} == {"file"}
    assert requests["refresh"].timeout == 1.5
    assert {name for name, request in requests.items() if request.max_size == 4096} == {"download"}
    assert requests["send"].max_size == 2048


@pytest.mark.parametrize("file_id", ["../x", "a/b", "a?b=c", "a#b", "..", "%2e%2e", "ü"])
def test_server_id_is_one_escaped_path_segment(file_id):
    url = dialect().request(call("download", file_id=file_id)).url
    middle = url.removeprefix(f"{BASE}/00048aAPEQJ8000U/file/").removesuffix("/download")
    assert not set(middle) & set("/?#.")
    assert middle.isascii()


def test_repr_contains_no_secret():
    request = dialect(apikey="n3e-secret").request(call("refresh"))
    assert not any(secret in repr(request) for secret in ("n3e-secret", IDS.secure_key))
    assert IDS.secure_key not in repr(call("refresh"))


# -- answers -----------------------------------------------------------------------------------------------------------

SAMPLE = {
    "statusCode": 0, "alias": "117", "userId": "007555677B20000A", "secureKey": "4ee15d7e1c343c8e",
    "messages": [
        {"from": {"nickname": "First Last", "participantId": 1, "type": "Client"}, "index": 1,
         "type": "ParticipantJoined", "utcTime": 1432845088000},
    ],
    "chatId": "00048aAPEQJ8000U",
}  # fmt: skip


def answer(body, status: int = 200, **headers) -> HttpAnswer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status=status, headers=headers, body=content)


def reply(asked: Call, body, status: int = 200, **headers):
    return dialect().reply(asked, answer(body, status, **headers), bare(dialect().request(asked).url))


def test_vendor_sample_of_a_start_is_read():
    read = reply(start(), SAMPLE)
    assert (read.kind, read.session_data, read.received) == (ResponseKind.GOOD, IDS, ())
    assert (read.response.status, read.response.body, read.response.url) == (200, SAMPLE, BASE + "/")


def test_vendor_sample_of_a_message_is_read():
    read = reply(call("refresh"), SAMPLE)
    (arrival,) = read.received
    assert arrival.message.sender == Sender(id=1, type="Client", name="First Last")
    assert (arrival.message.index, arrival.message.type, arrival.message.timestamp) == (
        1,
        "ParticipantJoined",
        1432845088000,
    )
    assert (arrival.original, arrival.rank) == (SAMPLE["messages"][0], (1,))
    assert read.chat_ended is False


def test_null_member_is_read_as_missing():
    party = {"nickname": None, "participantId": None, "type": None}
    messages = [{"type": "Message", "text": None, "utcTime": None, "from": sender} for sender in (None, party)]
    read = reply(call("refresh"), {"statusCode": 0, "chatEnded": None, "messages": messages})
    assert (read.kind, read.chat_ended) == (ResponseKind.GOOD, False)
    for arrival in read.received:
        assert arrival.message.sender == Sender(id=0, type="", name="")
        assert (arrival.message.text, arrival.message.timestamp) == ("", 0)


def test_live_sample_of_an_ended_chat_is_over():
    body = {
        "messages": [], "chatEnded": True, "statusCode": 2, "alias": "1323", "chatId": "0008TaFN3SE300RT",
        "errors": [{"code": 249, "advice": "Media server was not able to execute request. referenceId[10016629]"}],
    }  # fmt: skip
    read = reply(call("send", message="x"), body)
    assert (read.kind, read.over, read.response.errors) == (ResponseKind.REFUSED, True, body["errors"])


def test_live_sample_of_an_upload_has_file_details():
    user_data = {"file-id": "00D25C4FD5580141", "file-size": "438", "file-name": "New Text Document.txt"}
    event = {
        "from": {"nickname": "agent", "participantId": 2, "type": "Agent"}, "index": 10, "text": "00D25C4FD5580141",
        "type": "FileUploaded", "utcTime": 1548735832000, "userData": user_data,
    }  # fmt: skip
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).received
    assert arrival.message.file_details == user_data
    assert arrival.message.item()["fileDetails"] == user_data


def test_live_sample_of_file_limits_is_read():
    user_data = {
        "download-attempts": "2", "upload-max-files": "5", "delete-file": "odd", "upload-max-file-size": "10485760",
        "used-download-attempts": "0", "used-upload-max-total-size": "7", "upload-need-agent": "false",
        "used-upload-max-files": "1", "upload-max-total-size": "99614720", "upload-file-types": "jpeg:JPG:pdf::zip",
    }  # fmt: skip
    notice = {"from": {"nickname": "test", "participantId": 1, "type": "Client"}, "text": "file-client-cfg-get",
              "type": "Notice", "utcTime": 1554322581000, "userData": user_data}  # fmt: skip
    limits = reply(call("limits"), {"messages": [notice], "chatEnded": False, "statusCode": 0}).limits
    assert (limits.max_files, limits.max_file_size, limits.max_total_size) == (5, 10485760, 99614720)
    assert (limits.used_files, limits.used_total_size) == (1, 7)
    assert limits.file_types == ("jpeg", "jpg", "pdf", "zip")


@pytest.mark.parametrize(
    "user_data", [None, {}, {"upload-max-files": "many", "upload-file-types": ""}, {"upload-max-files": "9" * 5000}]
)
def test_unusable_file_limits_limit_nothing(user_data):
    notice = {"type": "Notice", "from": {}, **({} if user_data is None else {"userData": user_data})}
    limits = reply(call("limits"), {"messages": [notice], "statusCode": 0}).limits
    assert (limits.max_files, limits.max_file_size, limits.max_total_size, limits.file_types) == (None, None, None, ())


@pytest.mark.parametrize(
    ("status", "operation", "kind"),
    [
        (400, "refresh", ResponseKind.BAD), (401, "refresh", ResponseKind.BAD), (403, "send", ResponseKind.BAD),
        (404, "refresh", ResponseKind.BAD), (404, "send", ResponseKind.BAD), (404, "restore", ResponseKind.BAD),
        (404, "start", ResponseKind.BAD), (404, "download", ResponseKind.BAD), (404, "file", ResponseKind.BAD),
        (429, "refresh", ResponseKind.THROTTLED), (429, "start", ResponseKind.THROTTLED),
        (500, "refresh", ResponseKind.BAD), (503, "refresh", ResponseKind.BAD), (301, "refresh", ResponseKind.BAD),
        (204, "refresh", ResponseKind.BAD),
    ],
)  # fmt: skip
def test_http_status_decides_the_response_kind(status, operation, kind):
    assert dialect().reply(call(operation), answer(b"", status), BASE).kind is kind


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [
        (0, ResponseKind.GOOD),
        (1, ResponseKind.UNAVAILABLE),
        (2, ResponseKind.REFUSED),
        (3, ResponseKind.REFUSED),
        (-1, ResponseKind.REFUSED),
    ],
)
def test_status_code_decides_the_response_kind(status_code, kind):
    read = reply(call("refresh"), {"statusCode": status_code, "messages": [], "chatEnded": True})
    assert read.kind is kind
    assert read.over is (status_code != 1), "an end with statusCode 1 is ignored"


def test_errors_are_kept_and_other_values_left_out():
    read = reply(start(), {"errors": [{"code": 161, "advice": "name"}, "x", 5]}, 400)
    assert read.response.errors == [{"code": 161, "advice": "name"}]
    assert reply(start(), {"errors": "many"}, 400).response.errors == []


@pytest.mark.parametrize("operation", ["send", "startTyping", "disconnect", "updateData", "customNotice"])
def test_other_responses_have_no_messages(operation):
    read = reply(call(operation), {"statusCode": 0})
    assert (read.kind, read.received, read.session_data) == (ResponseKind.GOOD, (), None)
    assert reply(call(operation), SAMPLE).received == ()


@pytest.mark.parametrize("operation", ["refresh", "restore"])
def test_transcript_without_messages_is_good_and_empty(operation):
    for body in ({"statusCode": 0}, {"statusCode": 0, "messages": None}, {"statusCode": 0, "messages": {"1": 2}}):
        read = reply(call(operation), body)
        assert (read.kind, read.received) == (ResponseKind.GOOD, ())
    assert reply(call(operation), {"statusCode": 1}).kind is ResponseKind.UNAVAILABLE


def test_missing_ids_keep_their_known_values():
    read = reply(call("refresh"), {"statusCode": 0, "messages": [], "alias": "1323"})
    assert read.session_data == SessionData(
        session_id=IDS.session_id, secure_key=IDS.secure_key, alias="1323", user_id=IDS.user_id
    )


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("kind", ["Agent", "External", "Bot"])
def test_bot_is_recognised_by_its_party_style(kind, as_text):
    system = {"party-info": {"style": "BOT"}}
    attributes = {"GCTI_SYSTEM": json.dumps(system) if as_text else system}
    event = {"type": "Message", "text": "x", "from": {"type": kind}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).received
    assert arrival.message.sender.type == "Bot"
    assert arrival.message.extra == {"eventAttributes": attributes}


@pytest.mark.parametrize(
    "attributes",
    [None, [], "text", {"GCTI_SYSTEM": 5}, {"GCTI_SYSTEM": "{"}, {"structured-content": "{}"}],
)
def test_unusable_event_attributes_change_nothing(attributes):
    event = {"type": "Message", "text": "x", "from": {"type": "Agent"}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).received
    assert (arrival.message.sender.type, arrival.message.text) == ("Agent", "x")


def test_null_text_in_place_of_messages_is_ignored():
    read = reply(call("refresh"), {"statusCode": 0, "messages": "null"})
    assert (read.kind, read.received) == (ResponseKind.GOOD, ())
    assert reply(call("send", message="hi"), {"statusCode": 0, "messages": "null"}).received == ()


@pytest.mark.parametrize("as_text", [False, True])
def test_structured_content_shows_its_fallback_text(as_text):
    content = {"text": "a fallback", "type": "Carousel"}
    attributes = {"structured-content": {"genesys-chat": {"content": json.dumps(content) if as_text else content}}}
    event = {"type": "Message", "text": "plain", "from": {}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).received
    assert arrival.message.text == "a fallback"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["Message", "Notice", None]),
            "text": st.none() | st.text(),
            "index": st.none() | st.integers(0, 9),
            "utcTime": st.none() | st.integers(0, 2**41),
            "userData": st.none() | st.dictionaries(st.text(), st.integers()),
            "from": st.none()
            | st.fixed_dictionaries(
                {},
                optional={
                    "nickname": st.none() | st.text(),
                    "participantId": st.none() | st.integers() | st.text(),
                    "type": st.sampled_from(["Client", "Agent", None]),
                },
            ),
        },
    )
)
def test_plain_event_is_read_like_one_with_attributes(event):
    """Read an event by the short way for texts, and by the way for those with event attributes, to equal messages."""
    plain, structured = (
        reply(call("refresh"), {"statusCode": 0, "messages": [one]}).received[0].message
        for one in (event, {**event, "eventAttributes": {}})
    )
    assert structured.extra == {"eventAttributes": {}}
    assert plain == replace(structured, extra={})


@pytest.mark.parametrize("type", ["Message", "QuantumLeap", ""])
def test_message_of_any_type_is_read(type):  # noqa: A002
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [{"type": type}]}).received
    assert (arrival.message.type, arrival.message.index, arrival.rank) == (type, None, None)


@pytest.mark.parametrize(("type", "typing"), [("TypingStarted", True), ("TypingStopped", False), ("Message", None)])
def test_typing_message_has_its_typing_flag(type, typing):  # noqa: A002
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [{"type": type}]}).received
    assert arrival.message.is_typing is typing


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", "", 120.0), (" 5 ", "", 5.0), ("", "", None), ("soon", "", None), ("-5", "", None), ("1.5", "", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "", None), ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "", None),
        ("Wed, 21 Oct 2026 07:28:30 -0000", "Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_date(value, date, seconds):
    headers = {"retry-after": value, **({"date": date} if date else {})}
    assert reply(call("refresh"), b"", 429, **headers).retry_after == seconds


def test_download_has_its_bytes_and_disposition_header():
    read = reply(call("download", file_id="1"), b"\x00\xff", **{"content-disposition": 'attachment; filename="a"'})
    assert (read.kind, read.value) == (ResponseKind.GOOD, (b"\x00\xff", 'attachment; filename="a"'))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \r\n"])
def test_envelope_in_place_of_a_file_is_no_download(mark):
    download = call("download", file_id="1")
    assert reply(download, mark + b'{"statusCode": 2, "errors": []}').kind is ResponseKind.REFUSED
    assert reply(download, mark + b'{"statusCode": "0"}').kind is ResponseKind.BAD
    assert reply(download, mark + b'{"statusCode": 404}').value == (mark + b'{"statusCode": 404}', "")


def test_response_url_has_no_secrets():
    read = reply(call("refresh"), b"", 500)
    assert read.response.url == f"{BASE}/00048aAPEQJ8000U/refresh"


def test_unreadable_answer_keeps_its_first_1000_characters():
    read = reply(call("refresh"), b"<html>" + b"x" * 5000)
    assert read.kind is ResponseKind.BAD
    assert read.response.body.startswith("<html>x")
    assert len(read.response.body) == 1000
    assert str(read.error).startswith("refresh: the server's answer cannot be read: no JSON")
    assert read.response.item()["errors"] == read.response.errors
