"""The v2 dialect: every request as the protocol says it, and what every shape of answer amounts to."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Verdict
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.words import FileToSend, Sender, SessionData
from webchat_fsm.wire.gms_v2 import GmsV2
from webchat_fsm.wire.request import FilePart, HttpAnswer

BASE = "https://host.test/genesys/2/chat/customer-support"
IDS = SessionData(session_id="00048aAPEQJ8000U", secure_key="4ee15d7e1c343c8e", alias="117", user_id="007555677B20000A")
CREDENTIALS = [("userId", "007555677B20000A"), ("secureKey", "4ee15d7e1c343c8e"), ("alias", "117")]


def dialect(**config) -> GmsV2:
    return GmsV2(Config.read({"dataURL": BASE, **config}))


def call(operation: str, **fields) -> Call:
    return Call(operation=operation, fields=fields, session_data=IDS)


def start(form=None, user_data=None) -> Call:
    return Call(operation="start", fields={"form": form or {}, "user_data": user_data or {}})


def body_of(request) -> list[tuple[str, str]]:
    return parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(request.body))


# -- requests ----------------------------------------------------------------------------------------------------------

SESSION_REQUESTS = {
    "refresh": (call("refresh", position=3, message="draft"), [("transcriptPosition", "3"), ("message", "draft")]),
    "restore": (call("restore"), [("transcriptPosition", "1"), ("message", "")]),
    "send": (call("send", message="hi"), [("message", "hi"), ("messageType", "text")]),
    "startTyping": (call("startTyping", message="h"), [("message", "h")]),
    "stopTyping": (call("stopTyping"), [("message", "")]),
    "disconnect": (call("disconnect"), []),
    "updateData": (call("updateData", user_data={"page": "/help"}), [("userData[page]", "/help")]),
    "customNotice": (call("customNotice", message="n"), [("message", "n")]),
    "limits": (call("limits"), []),
    "download": (call("download", file_id="00D2"), []),
}
PATHS = {"restore": "refresh", "limits": "file/limits", "download": "file/00D2/download"}


@pytest.mark.parametrize("operation", SESSION_REQUESTS)
def test_every_operation_is_a_post_to_its_path_with_the_credentials_repeated(operation):
    asked, fields = SESSION_REQUESTS[operation]
    request = dialect().request(asked)
    assert (request.method, request.url) == ("POST", f"{BASE}/00048aAPEQJ8000U/{PATHS.get(operation, operation)}")
    assert body_of(request) == CREDENTIALS + fields
    assert request.content_type == "application/x-www-form-urlencoded"
    assert request.operation == operation


def test_a_start_goes_to_the_base_with_a_slash_and_carries_the_form_in_the_words_of_the_wire():
    form = {"nickname": "Jonny", "firstname": "Jon", "lastname": "Doe", "email": "j@x.test", "subject": "a b&c"}
    request = dialect().request(start(form))
    assert (request.method, request.url) == ("POST", BASE + "/")
    assert body_of(request) == [
        ("nickname", "Jonny"), ("firstName", "Jon"), ("lastName", "Doe"), ("emailAddress", "j@x.test"),
        ("subject", "a b&c"),
    ]  # fmt: skip


def test_a_start_never_sends_a_stored_token():
    request = dialect().request(Call(operation="start", fields={"form": {}, "user_data": {}}, session_data=IDS))
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
def test_the_slash_at_the_end_of_a_start(config, url):
    speaker = dialect(**config)
    assert speaker.request(start()).url == url
    assert speaker.request(call("disconnect")).url == f"{BASE}/00048aAPEQJ8000U/disconnect"


def test_the_endpoint_travels_with_the_start_alone():
    speaker = dialect(endpoint="Environment:default")
    assert ("endpoint", "Environment:default") in body_of(speaker.request(start()))
    assert "endpoint" not in dict(body_of(speaker.request(call("refresh"))))


def test_user_data_is_bracketed_and_spelled_as_a_browser_does():
    data = {"a": 1, "b": {"c": True, "d": {"e": "f"}}, "g": ["x", "y"], "h": None, "i": {}, "ü": "ä&="}
    request = dialect().request(call("updateData", user_data=data))
    assert body_of(request)[3:] == [
        ("userData[a]", "1"), ("userData[b][c]", "true"), ("userData[b][d][e]", "f"), ("userData[g][]", "x"),
        ("userData[g][]", "y"), ("userData[h]", ""), ("userData[ü]", "ä&="),
    ]  # fmt: skip
    assert b"userData%5Ba%5D=1" in request.body
    assert body_of(dialect().request(start({}, {"a": {"b": 1}}))) == [("userData[a][b]", "1")]


def test_a_message_may_have_a_label_and_a_parent():
    fields = dict(body_of(dialect().request(call("send", message="hi", type="survey", parentMessageID="abc"))))
    assert fields["messageType"] == "survey"
    assert json.loads(fields["eventAttributes"]) == {"general-properties": {"related-event-id": "abc"}}
    assert "transcriptPosition" not in fields


@pytest.mark.parametrize("given", [{"purpose": "cancel-idle-timer"}, '{"purpose": "cancel-idle-timer"}'])
def test_event_attributes_are_json_text(given):
    fields = dict(body_of(dialect().request(call("customNotice", message="", eventAttributes=given))))
    assert json.loads(fields["eventAttributes"]) == {"purpose": "cancel-idle-timer"}
    assert fields["message"] == ""


def test_an_upload_is_multipart_with_the_credentials_before_the_file():
    file = FileToSend(name="a b.png", size=3, content_type="image/png", source=lambda: b"png")
    request = dialect().request(call("file", file=file, content=b"png", rest=[]))
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
def test_the_headers_of_every_request(config, headers):
    speaker = dialect(**config)
    asked = [start(), *(known for known, _ in SESSION_REQUESTS.values())]
    assert all(speaker.request(one).headers == headers for one in asked)


def test_the_custom_header_is_sent_where_it_is_enabled():
    main = {"main": {"header": {"Authorization": "Bearer x"}}}
    enabled = GmsV2(Config.read({**main, "webchat": {"dataURL": BASE, "enableCustomHeader": True}}))
    assert enabled.request(call("refresh")).headers == {"Authorization": "Bearer x"}
    disabled = GmsV2(Config.read({**main, "webchat": {"dataURL": BASE}}))
    assert disabled.request(call("refresh")).headers == {}


def test_deadlines_sizes_and_what_may_be_repeated():
    speaker = dialect(ajaxTimeout=1500, fileUploadTimeout=0, client={"maxAnswerSize": 2048, "maxDownloadSize": 4096})
    file = FileToSend(name="a.png", size=1, content_type="image/png", source=lambda: b"")
    requests = {name: speaker.request(asked) for name, (asked, _) in SESSION_REQUESTS.items()}
    requests["file"] = speaker.request(call("file", file=file, content=b"", rest=[]))
    assert {name for name, request in requests.items() if request.repeatable} == {"refresh", "restore", "limits"}
    assert {name for name, request in requests.items() if request.timeout is None} == {"file"}
    assert requests["refresh"].timeout == 1.5
    assert {name for name, request in requests.items() if request.max_size == 4096} == {"download"}
    assert requests["send"].max_size == 2048


@pytest.mark.parametrize("file_id", ["../x", "a/b", "a?b=c", "a#b", "..", "%2e%2e", "ü"])
def test_an_id_of_the_server_stays_one_part_of_the_path(file_id):
    url = dialect().request(call("download", file_id=file_id)).url
    middle = url.removeprefix(f"{BASE}/00048aAPEQJ8000U/file/").removesuffix("/download")
    assert not set(middle) & set("/?#.")
    assert middle.isascii()


def test_no_secret_is_in_a_repr():
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
    return dialect().reply(asked, answer(body, status, **headers))


def test_the_vendors_sample_of_a_start():
    read = reply(start(), SAMPLE)
    assert (read.verdict, read.session_data, read.arrivals) == (Verdict.GOOD, IDS, ())
    assert (read.response.status, read.response.body, read.response.url) == (200, SAMPLE, BASE + "/")


def test_the_vendors_sample_of_a_message():
    read = reply(call("refresh"), SAMPLE)
    (arrival,) = read.arrivals
    assert arrival.message.sender == Sender(id=1, type="Client", name="First Last")
    assert (arrival.message.index, arrival.message.type, arrival.message.timestamp) == (
        1,
        "ParticipantJoined",
        1432845088000,
    )
    assert (arrival.original, arrival.rank) == (SAMPLE["messages"][0], (1,))
    assert read.chat_ended is False


def test_a_null_says_as_little_as_a_missing_field():
    party = {"nickname": None, "participantId": None, "type": None}
    told = [{"type": "Message", "text": None, "utcTime": None, "from": sender} for sender in (None, party)]
    read = reply(call("refresh"), {"statusCode": 0, "chatEnded": None, "messages": told})
    assert (read.verdict, read.chat_ended) == (Verdict.GOOD, False)
    for arrival in read.arrivals:
        assert arrival.message.sender == Sender(id=0, type="", name="")
        assert (arrival.message.text, arrival.message.timestamp) == ("", 0)


def test_the_live_sample_of_an_ended_chat():
    body = {
        "messages": [], "chatEnded": True, "statusCode": 2, "alias": "1323", "chatId": "0008TaFN3SE300RT",
        "errors": [{"code": 249, "advice": "Media server was not able to execute request. referenceId[10016629]"}],
    }  # fmt: skip
    read = reply(call("send", message="x"), body)
    assert (read.verdict, read.over, read.response.errors) == (Verdict.REFUSED, True, body["errors"])


def test_the_live_sample_of_an_uploaded_file():
    user_data = {"file-id": "00D25C4FD5580141", "file-size": "438", "file-name": "New Text Document.txt"}
    event = {
        "from": {"nickname": "agent", "participantId": 2, "type": "Agent"}, "index": 10, "text": "00D25C4FD5580141",
        "type": "FileUploaded", "utcTime": 1548735832000, "userData": user_data,
    }  # fmt: skip
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).arrivals
    assert arrival.message.file_details == user_data
    assert arrival.message.item()["fileDetails"] == user_data


def test_the_live_sample_of_the_file_limits():
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
def test_limits_that_say_nothing_limit_nothing(user_data):
    notice = {"type": "Notice", "from": {}, **({} if user_data is None else {"userData": user_data})}
    limits = reply(call("limits"), {"messages": [notice], "statusCode": 0}).limits
    assert (limits.max_files, limits.max_file_size, limits.max_total_size, limits.file_types) == (None, None, None, ())


@pytest.mark.parametrize(
    ("status", "operation", "verdict"),
    [
        (400, "refresh", Verdict.BAD), (401, "refresh", Verdict.BAD), (403, "send", Verdict.BAD),
        (404, "refresh", Verdict.BAD), (404, "send", Verdict.BAD), (404, "restore", Verdict.BAD),
        (404, "start", Verdict.BAD), (404, "download", Verdict.BAD), (404, "file", Verdict.BAD),
        (429, "refresh", Verdict.THROTTLED), (429, "start", Verdict.THROTTLED),
        (500, "refresh", Verdict.BAD), (503, "refresh", Verdict.BAD), (301, "refresh", Verdict.BAD),
        (204, "refresh", Verdict.BAD),
    ],
)  # fmt: skip
def test_what_an_http_status_amounts_to(status, operation, verdict):
    asked = start() if operation == "start" else call(operation, file_id="1", message="")
    assert dialect().reply(asked, answer(b"", status)).verdict is verdict


@pytest.mark.parametrize(
    ("status_code", "verdict"),
    [(0, Verdict.GOOD), (1, Verdict.UNAVAILABLE), (2, Verdict.REFUSED), (3, Verdict.REFUSED), (-1, Verdict.REFUSED)],
)
def test_what_a_status_code_amounts_to(status_code, verdict):
    read = reply(call("refresh"), {"statusCode": status_code, "messages": [], "chatEnded": True})
    assert read.verdict is verdict
    assert read.over is (status_code != 1), "an end that comes with statusCode 1 is not believed"


def test_errors_are_handed_on_untouched_and_what_is_none_is_left_out():
    read = reply(start(), {"errors": [{"code": 161, "advice": "name"}, "x", 5]}, 400)
    assert read.response.errors == [{"code": 161, "advice": "name"}]
    assert reply(start(), {"errors": "many"}, 400).response.errors == []


@pytest.mark.parametrize("operation", ["send", "startTyping", "disconnect", "updateData", "customNotice"])
def test_other_answers_need_no_messages_and_bring_none(operation):
    read = reply(call(operation, message="", user_data={}), {"statusCode": 0})
    assert (read.verdict, read.arrivals, read.session_data) == (Verdict.GOOD, (), None)
    assert reply(call(operation, message="", user_data={}), SAMPLE).arrivals == ()


@pytest.mark.parametrize("operation", ["refresh", "restore"])
def test_a_transcript_without_messages_is_good_and_empty(operation):
    for body in ({"statusCode": 0}, {"statusCode": 0, "messages": None}, {"statusCode": 0, "messages": {"1": 2}}):
        read = reply(call(operation), body)
        assert (read.verdict, read.arrivals) == (Verdict.GOOD, ())
    assert reply(call(operation), {"statusCode": 1}).verdict is Verdict.UNAVAILABLE


def test_missing_ids_are_those_that_are_known():
    read = reply(call("refresh"), {"statusCode": 0, "messages": [], "alias": "1323"})
    assert read.session_data == SessionData(
        session_id=IDS.session_id, secure_key=IDS.secure_key, alias="1323", user_id=IDS.user_id
    )


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("kind", ["Agent", "External", "Bot"])
def test_a_bot_is_known_by_its_party_style(kind, as_text):
    system = {"party-info": {"style": "BOT"}}
    attributes = {"GCTI_SYSTEM": json.dumps(system) if as_text else system}
    event = {"type": "Message", "text": "x", "from": {"type": kind}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).arrivals
    assert arrival.message.sender.type == "Bot"
    assert arrival.message.extra == {"eventAttributes": attributes}


@pytest.mark.parametrize(
    "attributes",
    [None, [], "text", {"GCTI_SYSTEM": 5}, {"GCTI_SYSTEM": "{"}, {"structured-content": "{}"}],
)
def test_attributes_that_say_nothing_change_nothing(attributes):
    event = {"type": "Message", "text": "x", "from": {"type": "Agent"}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).arrivals
    assert (arrival.message.sender.type, arrival.message.text) == ("Agent", "x")


def test_a_text_that_says_null_is_no_transcript():
    read = reply(call("refresh"), {"statusCode": 0, "messages": "null"})
    assert (read.verdict, read.arrivals) == (Verdict.GOOD, ())
    assert reply(call("send", message="hi"), {"statusCode": 0, "messages": "null"}).arrivals == ()


@pytest.mark.parametrize("as_text", [False, True])
def test_structured_content_shows_its_fallback_text(as_text):
    content = {"text": "a fallback", "type": "Carousel"}
    attributes = {"structured-content": {"genesys-chat": {"content": json.dumps(content) if as_text else content}}}
    event = {"type": "Message", "text": "plain", "from": {}, "eventAttributes": attributes}
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [event]}).arrivals
    assert arrival.message.text == "a fallback"


@pytest.mark.parametrize("type", ["Message", "QuantumLeap", ""])
def test_any_type_of_message_is_read(type):  # noqa: A002
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [{"type": type}]}).arrivals
    assert (arrival.message.type, arrival.message.index, arrival.rank) == (type, None, None)


@pytest.mark.parametrize(("type", "typing"), [("TypingStarted", True), ("TypingStopped", False), ("Message", None)])
def test_typing_messages_say_so(type, typing):  # noqa: A002
    (arrival,) = reply(call("refresh"), {"statusCode": 0, "messages": [{"type": type}]}).arrivals
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
def test_retry_after_as_seconds_or_as_a_date(value, date, seconds):
    headers = {"retry-after": value, **({"date": date} if date else {})}
    assert reply(call("refresh"), b"", 429, **headers).retry_after == seconds


def test_a_download_is_its_bytes_and_its_header():
    read = reply(call("download", file_id="1"), b"\x00\xff", **{"content-disposition": 'attachment; filename="a"'})
    assert (read.verdict, read.value) == (Verdict.GOOD, (b"\x00\xff", 'attachment; filename="a"'))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \r\n"])
def test_an_envelope_in_place_of_a_file_is_no_file(mark):
    asked = call("download", file_id="1")
    assert reply(asked, mark + b'{"statusCode": 2, "errors": []}').verdict is Verdict.REFUSED
    assert reply(asked, mark + b'{"statusCode": "0"}').verdict is Verdict.BAD
    assert reply(asked, mark + b'{"statusCode": 404}').value == (mark + b'{"statusCode": 404}', "")


def test_the_address_of_an_answer_is_told_without_secrets():
    read = reply(call("refresh"), b"", 500)
    assert read.response.url == f"{BASE}/00048aAPEQJ8000U/refresh"


def test_an_unreadable_answer_keeps_its_beginning_and_names_its_fault():
    read = reply(call("refresh"), b"<html>" + b"x" * 5000)
    assert read.verdict is Verdict.BAD
    assert read.response.body.startswith("<html>x")
    assert len(read.response.body) == 1000
    assert str(read.error).startswith("refresh: the server's answer cannot be read: no JSON")
    assert read.response.item()["errors"] == read.response.errors
