"""Check the v3 wire format: forms, headers, paths, tokens, files, and the decoding of responses."""

from __future__ import annotations

import io
import json
from base64 import urlsafe_b64encode
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.lifecycle.environment import HeardOnBus
from tests.nexus.environment import SESSIONS, envelope
from webchat_fsm import CommandRejected, ConfigError, SessionData, WebChatService
from webchat_fsm._core.steps import rank
from webchat_fsm._wire.decoding import session_of
from webchat_fsm._wire.request import FORM
from webchat_fsm.server._nexus_wire import TokenClaims, sign_token

PNG = b"\x89PNG not really"


class Picture(io.BytesIO):
    name = "cat.png"


# -- requests ----------------------------------------------------------------------------------------------------------


def test_start_sends_form_configuration_and_user_data(v3):
    v3.open(stream="live", clientType="python", config={"userData": {"tier": "tin", "site": "de", "n": 1}})
    v3.chat.update_user_data({"tier": "silver", "phone": 5551234})
    v3.chat.start_chat(
        nickname="Jonny", firstname="Jon", lastname="Smith", email="jon@example.com", subject="a question",
        user_data={"tier": "gold", "nested": {"a": [1, True]}}, room="7",
    )  # fmt: skip
    request, fields = v3.last("start"), v3.fields("start")
    assert (request.method, request.url, request.content_type) == ("POST", SESSIONS, FORM)
    assert fields.pop("operationId")
    assert fields == {
        "data[nickname]": "Jonny", "data[firstName]": "Jon", "data[lastName]": "Smith",
        "data[email]": "jon@example.com", "data[subject]": "a question", "data[room]": "7",
        "data[endpoint]": "customer-support", "data[stream]": "live", "data[clientType]": "python",
        "data[userData][tier]": "gold", "data[userData][site]": "de", "data[userData][n]": "1",
        "data[userData][phone]": "5551234", "data[userData][PhoneNumber]": "5551234",
        "data[userData][nested][a][]": "true",
    }  # fmt: skip
    assert parse_qs(request.body.decode())["data[userData][nested][a][]"] == ["1", "true"]
    assert v3.server.core.current_chat().client.sender.nickname == "Jonny"


def test_bus_start_takes_form_under_key_form(v3):
    v3.client()
    bus = HeardOnBus(v3.chat)
    v3.chat.open()
    assert bus.command("startChat", {"form": {"firstname": "Jon", "email": ""}, "userData": {"tier": "gold"}})
    fields = v3.fields("start")
    assert (fields["data[firstName]"], fields["data[nickname]"], fields["data[userData][tier]"]) == (
        "Jon",
        "Jon",
        "gold",
    )
    assert "data[email]" not in fields
    assert "data[stream]" not in fields


def test_request_has_transport_headers_and_new_operation_id(v3):
    headers = {"x-api-key": "secret-key", "x-tenant": "blue"}
    v3.start(headers=headers, config={"client": {"headers": {"x-trace": "9"}}})
    v3.chat.send_message("hi")
    v3.chat.send_typing("h")
    v3.chat.update_user_data({"a": "b"})
    v3.chat.send_file(Picture(PNG))
    v3.advance(6)
    v3.chat.end_chat()
    ids = []
    for request in v3.sent:
        assert request.headers.items() >= {**headers, "x-trace": "9"}.items()
        query = dict(parse_qs(urlsplit(request.url).query))
        parts = {name: value for name, value in request.parts if isinstance(value, str)}
        ids.append((parts or {**{k: v[0] for k, v in parse_qs(request.body.decode()).items()}, **query})["operationId"])
    assert len(ids) == len(set(map(str, ids))) == len(v3.sent) >= 9
    assert {"start", "refresh", "send", "startTyping", "stopTyping", "updateData", "file", "disconnect"} == set(
        v3.http.operations()
    )


def test_every_request_except_start_has_token_header(v3):
    v3.start()
    token = v3.token()
    v3.chat.send_message("hi")
    v3.chat.end_chat()
    first, *others = v3.sent
    assert "x-nexus-client-key" not in first.headers
    assert {request.headers["x-nexus-client-key"] for request in others} == {token}


def test_new_start_sends_no_token_of_previous_chat(nexus):
    nexus.start().end_chat()
    nexus.chat.start_chat(nickname="Jonny")
    assert "x-nexus-client-key" not in nexus.last("start").headers
    assert len(nexus.server.core.chats) == 2


@pytest.mark.parametrize(
    ("command", "data", "method", "path", "fields"),
    [
        ("sendMessage", {"message": "hä & ?"}, "POST", "/messages", {"data[type]": "Text", "data[text]": "hä & ?"}),
        ("sendTyping", {"message": "hä"}, "POST", "/messages", {"data[type]": "TypingStarted", "data[text]": "hä"}),
        ("sendTyping", {"Message": "hm"}, "POST", "/messages", {"data[type]": "TypingStarted", "data[text]": "hm"}),
        ("sendTyping", {}, "POST", "/messages", {"data[type]": "TypingStarted", "data[text]": ""}),
        ("updateUserData", {"tier": "gold"}, "PUT", "/userdata", {"data[tier]": "gold"}),
        ("endChat", {}, "DELETE", "/participants/{pid}", {}),
    ],
)  # fmt: skip
def test_command_sends_one_request(nexus, command, data, method, path, fields):
    nexus.start()
    session, before = nexus.chat.get_session_data(), len(nexus.sent)
    assert nexus.chat.command(command, data)
    (request,) = nexus.sent[before:]
    sent = nexus.fields(request.operation)
    assert sent.pop("operationId")
    where = f"{SESSIONS}/{session.session_id}{path.format(pid=session.participant_id)}"
    assert (request.method, request.url, sent) == (method, where, fields)
    assert request.content_type == FORM


def test_typing_stops_after_two_seconds_or_by_send(v3):
    v3.start()
    v3.heard.take()
    v3.chat.send_typing("hel")
    v3.advance(1.9)
    assert "stopTyping" not in v3.http.operations()
    v3.chat.send_typing("hello")
    v3.advance(1.9)
    assert "stopTyping" not in v3.http.operations()
    v3.advance(0.2)
    assert v3.fields("stopTyping")["data[type]"] == "TypingStopped"
    assert v3.heard.take() == ["clientTypingStarted", "clientTypingStopped"]
    assert v3.http.operations().count("startTyping") == 1


def test_configuration_without_url_or_endpoint_is_rejected():
    for wrong, path in (({"dataURL": "nowhere"}, "dataURL"), ({"dataURL": SESSIONS}, "endpoint")):
        with pytest.raises(ConfigError, match=rf"\$\.transport\.{path}"):
            WebChatService({"transport": {"type": "pureengage-v3-rest", **wrong}})


# -- the token ---------------------------------------------------------------------------------------------------------


def test_token_claims_become_session_data(nexus):
    nexus.client()
    bus = HeardOnBus(nexus.chat)
    nexus.chat.open()
    assert bus.command("getSessionData").value == {}
    assert nexus.chat.get_session_data() == SessionData()
    nexus.chat.start_chat(nickname="Jonny")
    chat, data = nexus.server.core.current_chat(), nexus.chat.get_session_data()
    assert (data.session_id, data.participant_id) == (chat.session_id, chat.client.sender.key)
    session_data = bus.command("getSessionData").value
    assert session_data == {
        "sessionId": data.session_id, "participantId": data.participant_id,
        "transportId": data.transport_id, "token": data.token,
    }  # fmt: skip
    assert all(session_data.values())
    assert bus.last("started") == {"data": session_data}
    assert nexus.heard.last("started").session_data == data
    assert data.token not in repr(data)
    assert data.token not in repr(nexus.heard.events)


def token(**claims):
    payload = urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def test_token_with_extra_claims_or_no_transport_is_accepted():
    said = session_of(token(sessionId="s", participantId="p", exp=5, nested={"a": 1}))
    assert (said.session_id, said.participant_id, said.transport_id) == ("s", "p", "")


NO_TOKENS = {
    "one part": "abc",
    "nothing": "",
    "no base64": "a.%%%.c",
    "no JSON": "a.YWJj.c",
    "no object": "a.W10.c",
    "deep": "a." + urlsafe_b64encode(b'{"x":' + b"[" * 50_000).decode() + ".c",
    "no session": token(participantId="p"),
    "an empty session": token(sessionId="", participantId="p"),
    "a number": token(sessionId=1, participantId="p"),
    "a line break": token(sessionId="s", participantId="p") + "\r\nx-evil: 1",
    "a blank": token(sessionId="s", participantId="p") + " ",
    "not ASCII": token(sessionId="s", participantId="p") + "ä",
    "far too long": token(sessionId="s" * 9000, participantId="p"),
}


@pytest.mark.parametrize("bad", NO_TOKENS.values(), ids=NO_TOKENS)
def test_invalid_token_raises_value_error(bad):
    with pytest.raises(ValueError, match="the token names no session"):
        session_of(bad)


@pytest.mark.parametrize("bad", [*NO_TOKENS.values(), None, 5, ["a"]], ids=[*NO_TOKENS, "null", "a figure", "a list"])
def test_start_response_without_usable_token_is_rejected(nexus, bad):
    nexus.open()
    nexus.http.answer("start", envelope(clientToken=bad, entity={"id": "x"}))
    outcome = nexus.chat.command("startChat", {"nickname": "Jonny"})
    assert not outcome
    assert nexus.heard.take() == ["ready", "error"]
    assert nexus.chat.state == "idle"
    assert nexus.timeline.next_timer() is None
    assert nexus.chat.start_chat(nickname="Jonny")


def test_ids_from_token_are_quoted_in_paths(v3):
    v3.open()
    claims = TokenClaims(session_id="a/../b?c", transport_id="t", participant_id="p#q")
    v3.http.answer("start", envelope(clientToken=sign_token(claims, b"any")))
    v3.chat.start_chat(nickname="Jonny")
    v3.chat.command("endChat")
    assert v3.last("disconnect").url == f"{SESSIONS}/a%2F..%2Fb%3Fc/participants/p%23q"


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b'{"data":{"clientToken":"%s"}}', b'{"status":{"code":0},"data":{"clientToken":"%s"}}',
             b'{"status":{},"data":{"clientToken":"%s"}}'],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 201])
def test_start_succeeds_with_any_success_status(v3, body, status):
    v3.open()
    v3.http.answer("start", body.replace(b"%s", token(sessionId="s", participantId="p").encode()), status)
    assert v3.chat.command("startChat", {"nickname": "Jonny"})
    assert v3.chat.state == "polling"


@pytest.mark.parametrize("operation", ["disconnect", "updateData", "send"])
def test_empty_204_response_is_success(nexus, operation):
    nexus.start()
    nexus.http.answer(operation, b"", 204)
    command, data = {
        "disconnect": ("endChat", {}), "updateData": ("updateUserData", {"a": "b"}),
        "send": ("sendMessage", {"message": "x"}),
    }[operation]  # fmt: skip
    assert nexus.chat.command(command, data)


def test_messages_are_normalised_beside_wire_originals(v3):
    agent = v3.chatting("hello")
    agent.push_url("https://example.com/help")
    v3.advance(3)
    received = v3.heard.all("messageReceived")
    joined, text = received[1].messages
    wire = received[1].original_messages[1]
    assert (joined.type, text.type, text.text, text.sender.name, text.sender.type) == (
        "ParticipantJoined", "Message", "hello", "Ann", "Agent",
    )  # fmt: skip
    assert text.index == wire["index"].replace("-", "")
    assert text.timestamp == wire["utcTime"]
    assert (wire["type"], wire["from"]["name"], wire["from"]["id"]) == ("Text", "Ann", text.sender.id)
    own = received[0].messages[0]
    assert (own.sender.type, received[0].original_messages[0]["from"]["type"]) == ("Client", "Client")
    url = received[2].messages[0]
    assert (url.type, url.text, url.item()["url"]) == (
        "PushUrl",
        "https://example.com/help",
        "https://example.com/help",
    )


def test_unknown_message_type_is_unchanged(v3):
    agent = v3.chatting()
    agent.notice("look", user_data={"page": "7"})
    v3.advance(3)
    notice = v3.heard.last("messageReceived").messages[-1]
    assert (notice.type, notice.text, notice.user_data) == ("CustomNotice", "look", {"page": "7"})


def test_sender_name_is_nickname_or_first_name(v3):
    v3.start()
    sender = {"type": "Agent", "participantId": "a"}
    messages = [
        {"index": "1-0", "type": "Text", "text": "1", "from": {**sender, "firstName": "Ann", "nickname": "Annie"}},
        {"index": "2-0", "type": "Text", "text": "2", "from": {**sender, "firstName": "Ann"}},
        {"index": "3-0", "type": "Text", "text": "3", "from": sender},
    ]
    v3.http.answer("refresh", envelope(messages=messages))
    v3.advance(3)
    assert [message.sender.name for message in v3.heard.last("messageReceived").messages] == ["Annie", "Ann", ""]


def test_rank_orders_indexes_numerically():
    assert sorted(["10-0", "9-2", "9-10", "2"], key=rank) == ["2", "9-2", "9-10", "10-0"]
    assert rank(7) == rank("7") == (7,)
    assert [rank(odd) for odd in ("a-1", "", "-1", None, "1-", "9" * 5000)] == [None] * 6


# -- files and content -------------------------------------------------------------------------------------------------


def test_file_is_one_multipart_request_and_returns_content(nexus):
    nexus.start()
    answer = nexus.chat.send_file(Picture(PNG))
    request = nexus.last("file")
    (name, part), (last, operation) = request.parts
    assert (request.method, urlsplit(request.url).path.rpartition("/")[2]) == ("POST", "images")
    assert (name, part.name, part.content, part.content_type, last) == (
        "file",
        "cat.png",
        PNG,
        "image/png",
        "operationId",
    )
    assert operation
    assert answer.body["data"]["filename"] == "cat.png"
    nexus.advance(3)
    message = nexus.heard.last("messageReceived").messages[-1]
    (item,) = message.item()["content"]
    assert (message.type, item["mime"], item["filename"]) == ("Message", "image/png", "cat.png")
    assert nexus.chat.fetch(item) == PNG


def test_files_are_sent_in_order_until_first_rejection(nexus):
    nexus.start()
    with pytest.raises(CommandRejected, match="Too many files") as caught:
        nexus.chat.send_file([Picture(PNG), Picture(PNG), Picture(PNG), Picture(PNG), Picture(PNG)])
    assert nexus.http.operations().count("file") == 4
    assert caught.value.response.status == 400
    assert caught.value.response.errors[0]["code"] == "pureengage-v3-rest-LIMIT_FILE_COUNT"
    assert nexus.chat.state == "polling"
    assert "error" not in nexus.heard.names


def test_non_image_or_too_big_file_is_rejected_by_server(make_env):
    env = make_env(max_file_size=4)
    env.start()
    paper = io.BytesIO(b"text")
    paper.name = "notes.txt"
    reasons = [env.chat.command("sendFile", {"files": file}).reason for file in (paper, Picture(PNG))]
    assert [(r["status"], r["errors"][0]["code"].rpartition("-")[2]) for r in reasons] == [
        (415, "INVALID_FILE_TYPE"), (413, "LIMIT_FILE_SIZE"),
    ]  # fmt: skip


def with_image(env):
    agent = env.chatting()
    agent.send_file("dog.png", PNG, content_type="image/png")
    env.advance(3)
    received = env.heard.last("messageReceived")
    return received.messages[-1].item()["content"][0], received.original_messages[-1]["content"][0]


def test_content_is_fetched_with_headers_by_either_url(nexus):
    resolved, relative = with_image(nexus)
    assert "fetch" not in nexus.http.operations()
    assert relative["url"].startswith("/sessions/")
    assert resolved["url"] == "http://chat.test/nexus/v3/chat" + relative["url"]
    assert nexus.chat.fetch(resolved) == nexus.chat.fetch(relative) == nexus.chat.fetch(relative["url"]) == PNG
    request = nexus.last("fetch")
    assert (request.method, request.url, request.body) == ("GET", resolved["url"], b"")
    assert (request.headers["x-api-key"], request.headers["x-nexus-client-key"]) == ("test-key", nexus.token())


def test_host_named_sessions_is_kept_in_content_url(v3):
    resolved = []
    v3.start(dataURL="http://sessions.test/sessions/nexus/v3/chat/sessions/")
    assert v3.last("start").url == "http://sessions.test/sessions/nexus/v3/chat/sessions"
    content = [{"type": "image", "url": "/sessions/s/images/i"}]
    v3.http.answer("refresh", envelope(messages=[{"index": "1-0", "type": "Text", "content": content}]))
    v3.chat.subscribe("messageReceived", lambda event: resolved.extend(event.data.messages[0].item()["content"]))
    v3.advance(3)
    assert resolved[0]["url"] == "http://sessions.test/sessions/nexus/v3/chat/sessions/s/images/i"


FOREIGN = [
    "http://evil.test/x", "https://chat.test/x", "http://chat.test:81/x", "http://chat.test@evil.test/x",
    "http://me@chat.test/x", "http://chat.test.evil.test/x", "http://chat.test\\@evil.test/x", "http://chat.test\n@evil.test/x",
    "ht\ntp://chat.test/x", "http://[chat.test/x", "file:///etc/passwd", "data:text/plain,x", "images/x", "",
    " /x", "/x y",
]  # fmt: skip


@pytest.mark.parametrize("url", FOREIGN)
def test_foreign_url_gets_no_token_and_no_request(nexus, url):
    nexus.start()
    before = len(nexus.sent)
    for content in (url, {"type": "image", "url": url}):
        with pytest.raises(CommandRejected, match="another server"):
            nexus.chat.fetch(content)
    assert len(nexus.sent) == before


def test_protocol_relative_url_is_requested_from_own_host(nexus):
    nexus.start()
    nexus.chat.command("fetch", {"url": "//evil.test/x"})
    assert urlsplit(nexus.last("fetch").url).netloc == "chat.test"


def test_failed_content_fetch_is_rejected_and_chat_continues(nexus):
    _, relative = with_image(nexus)
    with pytest.raises(CommandRejected) as caught:
        nexus.chat.fetch(relative["url"] + "0")
    assert caught.value.response.status == 404
    nexus.http.answer("fetch", b"", 302, location="http://evil.test/")
    assert nexus.chat.command("fetch", relative).reason["status"] == 302
    assert nexus.chat.state == "polling"
    assert {"ended", "error"}.isdisjoint(nexus.heard.names)


def test_fetch_without_session_is_rejected(nexus):
    assert nexus.open().command("fetch", {"url": "/x"}).reason == "There is no active chat session"
