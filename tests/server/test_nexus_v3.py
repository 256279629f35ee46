"""Check version 3 of the embedded server, endpoint by endpoint."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

import pytest

from webchat_fsm.server import ChatServer, Held, HttpRequest, ServerOptions

SESSIONS = "/nexus/v3/chat/sessions"


class Page:
    """Send the v3 requests of one customer's page to a server without sockets."""

    def __init__(self, server: ChatServer, now: float = 1_710_000_000.0) -> None:
        self.server = server
        self.now = now
        self.token = ""

    def ask(self, method, path, fields=None, *, query="", headers=None, json_body=None):
        sent = {"content-type": "application/x-www-form-urlencoded", **(headers or {})}
        if self.token:
            sent.setdefault("x-nexus-client-key", self.token)
        body = urlencode(fields or {}).encode()
        if json_body is not None:
            sent["content-type"], body = "application/json", json.dumps(json_body).encode()
        return self.server.handle(HttpRequest(method, path, sent, body, query), self.now)

    def start(self, **data):
        fields = {f"data[{name}]": value for name, value in ({"endpoint": "e", "nickname": "Jonny"} | data).items()}
        answer = self.ask("POST", SESSIONS, {"operationId": "op-1", **fields})
        assert answer.status == 200, answer
        data = answer.json()["data"]
        self.token, self.entity = data["clientToken"], data["entity"]
        self.path = self.entity["selfUri"]
        return answer.json()

    def poll(self, **query):
        answer = self.ask("GET", f"{self.path}/messages", query=urlencode(query))
        assert answer.status == 200, answer
        return answer.json()["data"]

    def texts(self, **query):
        return [message.get("text", message["type"]) for message in self.poll(**query)["messages"]]

    def post(self, **data):
        return self.ask("POST", f"{self.path}/messages", {f"data[{name}]": value for name, value in data.items()})

    def claims(self):
        payload = self.token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def code_of(answer):
    return answer.status, answer.json()["status"]["code"]


@pytest.fixture
def open_page():
    def make(**options):
        return Page(ChatServer(ServerOptions(**options)))

    return make


@pytest.fixture
def page(open_page):
    started = open_page()
    started.start()
    return started


def test_create_returns_token_with_all_three_ids(open_page):
    page = open_page()
    answer = page.start(nickname="Jonny", firstName="Jon", subject="questions")
    assert answer["status"]["code"] == "SUCCESS"
    assert answer["operationId"] == "op-1"
    assert page.path == f"{SESSIONS}/{page.entity['id']}"
    assert page.claims() == {
        "sessionId": page.entity["id"],
        "transportId": page.entity["transportId"],
        "participantId": page.entity["participantId"],
    }
    assert page.entity["state"] == "active"
    assert page.entity["createdAt"] == "2024-03-09T16:00:00.000Z"


def test_first_poll_returns_join_of_customer(open_page):
    page = open_page()
    page.start(firstName="Jon", lastName="Smith")
    data = page.poll()
    assert data["chatEnded"] is False
    assert data["messages"] == [
        {
            "index": "1710000000000-0",
            "type": "ParticipantJoined",
            "utcTime": "2024-03-09T16:00:00.000Z",
            "from": {
                "type": "Customer",
                "participantId": page.entity["participantId"],
                "nickname": "Jonny",
                "firstName": "Jon",
                "lastName": "Smith",
            },
        }
    ]


def test_json_number_is_read_as_text(open_page):
    page = open_page()
    assert page.ask("POST", SESSIONS, json_body={"data": {"endpoint": "e", "nickname": 5}}).status == 200
    assert page.server.chats[-1].client.sender.nickname == "5"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"nickname": "Jonny"}, "INVALID_ENDPOINT"),
        ({"endpoint": "other", "nickname": "Jonny"}, "INVALID_ENDPOINT"),
        ({"endpoint": "e"}, "INVALID_NICKNAME"),
    ],
)
def test_create_without_endpoint_or_name_is_400(open_page, data, code):
    page = open_page(endpoints=("e",))
    assert code_of(page.ask("POST", SESSIONS, json_body={"data": data})) == (400, code)
    assert page.server.chats == []


def test_first_name_replaces_empty_nickname(open_page):
    page = open_page()
    page.start(nickname="", firstName="Jon")
    assert page.entity["nickname"] == "Jon"


def test_json_and_form_give_same_user_data(open_page):
    form, other = open_page(), open_page()
    form.start(**{"userData][tier": "gold"})
    other.ask("POST", SESSIONS, json_body={"data": {"endpoint": "e", "nickname": "J", "userData": {"tier": "gold"}}})
    assert form.server.current_chat().user_data == other.server.current_chat().user_data == {"tier": "gold"}


def test_operation_id_is_echoed_and_null_if_absent(page):
    odd = "e661eada93-4a786-b720e-af5b6-a706665fcc25167"
    assert page.ask("GET", f"{page.path}/messages", query=f"operationId={odd}").json()["operationId"] == odd
    assert page.ask("GET", f"{page.path}/messages").json()["operationId"] is None


def test_own_text_is_returned_by_one_poll(page):
    page.poll()
    answer = page.post(type="Text", text="hi").json()
    messages = page.poll()["messages"]
    assert [(m["type"], m["text"], m["from"]["type"]) for m in messages] == [("Text", "hi", "Customer")]
    assert answer["data"]["index"] == messages[0]["index"]
    assert page.poll()["messages"] == []


def test_message_without_type_is_text(page):
    page.post(text="hi")
    assert page.texts() == ["ParticipantJoined", "hi"]


@pytest.mark.parametrize("data", [{"text": " "}, {}, {"type": "Nonsense", "text": "x"}, {"text": "too long"}])
def test_invalid_message_is_400(open_page, data):
    page = open_page(max_message_length=7)
    page.start()
    assert code_of(page.post(**data)) == (400, "INVALID_MESSAGE")


def test_indexes_increase_with_and_without_hyphen(page):
    for text in ("one", "two", "three"):
        page.post(text=text)
    indexes = [message["index"] for message in page.poll()["messages"]]
    assert all(index.count("-") == 1 for index in indexes)
    numbers = [int(index.replace("-", "")) for index in indexes]
    assert numbers == sorted(set(numbers))


def test_participants_have_v3_types_and_ids(page):
    page.poll()
    ann = page.server.agent("Ann").join()
    ann.push_url("https://shop.example/help")
    page.server.bot("Robo").join().say("beep")
    joined, url, _, beep = page.poll()["messages"]
    assert joined["from"]["type"] == "Agent"
    assert (url["type"], url["url"]) == ("PushUrl", "https://shop.example/help")
    assert (beep["type"], beep["from"]["type"]) == ("Text", "Bot")
    assert joined["from"]["participantId"] == url["from"]["participantId"] != beep["from"]["participantId"]


def test_typing_is_sent_to_others_and_omitted_from_history(page):
    page.poll()
    assert page.post(type="TypingStarted", text="h").status == 200
    assert page.poll()["messages"] == []
    page.server.agent("Ann").join().typing()
    assert page.texts() == ["ParticipantJoined", "TypingStarted"]
    assert page.texts(count=100) == ["ParticipantJoined", "ParticipantJoined"]


def test_each_transport_has_its_own_cursor(page):
    page.poll()
    second = Page(page.server)
    second.token = page.token
    second.start()
    page.post(text="hi")
    assert page.texts() == ["hi"]
    assert second.texts() == ["ParticipantJoined", "hi"]
    assert second.claims()["transportId"] != page.claims()["transportId"]
    assert second.claims()["participantId"] == page.claims()["participantId"]
    assert len(page.server.chats) == 1


@pytest.mark.parametrize("form", [str, lambda index: index.replace("-", "")])
def test_poll_by_index_returns_later_messages(page, form):
    for text in ("one", "two", "three"):
        page.post(text=text)
    first = page.poll()["messages"][1]["index"]
    assert page.texts(index=form(first)) == ["two", "three"]
    assert page.poll()["messages"] == []


def test_poll_by_unknown_index_returns_later_or_400(page):
    page.post(text="one")
    assert page.texts(index="1-0") == ["ParticipantJoined", "one"]
    assert code_of(page.ask("GET", f"{page.path}/messages", query="index=abc")) == (400, "INVALID_MESSAGE")


def test_paging_back_returns_48_messages_in_pages(page):
    for number in range(47):
        page.post(text=str(number))
    restored = page.poll(count=20)["messages"]
    sizes = [len(restored)]
    anchor = restored[0]["index"]
    while sizes[-1] > 1:
        older = page.poll(count=20, index=anchor)["messages"]
        assert older[-1]["index"] == anchor
        sizes.append(len(older))
        anchor = older[0]["index"]
    assert sizes == [20, 20, 10, 1]
    assert page.poll()["messages"] == []


def test_resume_needs_no_form_and_adds_no_join(page):
    old = page.claims()
    answer = page.ask("POST", SESSIONS, {"data[userData][page]": "/b"})
    data = answer.json()["data"]
    page.token = data["clientToken"]
    assert page.claims()["sessionId"] == old["sessionId"]
    assert page.claims()["transportId"] != old["transportId"]
    assert page.texts() == ["ParticipantJoined"]
    assert page.server.current_chat().user_data == {"page": "/b"}


def test_create_with_token_undefined_succeeds(open_page):
    page = open_page()
    fields = {"data[endpoint]": "e", "data[nickname]": "Jonny"}
    assert page.ask("POST", SESSIONS, fields, headers={"X-Nexus-Client-Key": "undefined"}).status == 200


def test_user_data_is_merged(page):
    page.ask("PUT", f"{page.path}/userdata", {"data[a]": "1"})
    page.ask("PUT", f"{page.path}/userdata", {"data[b]": "2"})
    assert page.server.current_chat().user_data == {"a": "1", "b": "2"}


def test_leave_ends_chat_and_polls_still_succeed(page):
    page.poll()
    pid = page.entity["participantId"]
    assert page.ask("DELETE", f"{page.path}/participants/{pid}").status == 200
    data = page.poll()
    assert data["chatEnded"] is True
    assert [message["type"] for message in data["messages"]] == ["ParticipantLeft"]
    assert code_of(page.post(text="hi")) == (404, "INVALID_SESSION")
    assert page.ask("DELETE", f"{page.path}/participants/{pid}").status == 200
    assert page.poll()["messages"] == []


def test_delete_of_other_participant_is_forbidden(page):
    assert code_of(page.ask("DELETE", f"{page.path}/participants/other")) == (403, "FORBIDDEN")


def test_last_messages_are_returned_with_server_end(page):
    page.poll()
    page.server.agent("Ann").join().say("bye")
    page.server.end()
    data = page.poll()
    assert data["chatEnded"] is True
    assert [message["type"] for message in data["messages"]] == ["ParticipantJoined", "Text", "ParticipantLeft"]


def test_resume_reopens_ended_session_if_configured(open_page):
    for reopen in (True, False):
        page = open_page(reopen_ended=reopen)
        page.start()
        page.server.end()
        answer = page.ask("POST", SESSIONS)
        if reopen:
            assert answer.json()["data"]["entity"]["state"] == "active"
            assert page.poll()["chatEnded"] is False
            assert page.post(text="again").status == 200
        else:
            assert code_of(answer) == (404, "INVALID_SESSION")


def test_liveness_timer_runs_in_reopened_session(open_page):
    page = open_page(liveness=45.0)
    page.start()
    page.server.end()
    page.now += 100
    page.start()
    page.now += 44
    assert page.poll()["chatEnded"] is False
    page.now += 46
    assert page.poll()["chatEnded"] is True


def test_purged_session_is_404_for_every_request(page):
    page.server.purge()
    for answer in (page.ask("GET", f"{page.path}/messages"), page.post(text="x"), page.ask("POST", SESSIONS)):
        assert code_of(answer) == (404, "INVALID_SESSION")


def test_session_is_404_after_its_ttl(open_page):
    page = open_page(session_ttl=60.0)
    page.start()
    page.now += 60
    assert page.ask("GET", page.path).status == 200
    page.now += 61
    assert code_of(page.ask("GET", page.path)) == (404, "INVALID_SESSION")


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "ä", "{}.{}.{}"])
def test_invalid_token_is_401(page, token):
    page.token = token
    assert code_of(page.ask("GET", f"{page.path}/messages")) == (401, "AUTHENTICATION_REQUIRED")


def test_token_of_other_session_or_claims_is_401(page):
    other = Page(page.server)
    other.start()
    page.path = other.path
    assert code_of(page.post(text="hi")) == (401, "AUTHENTICATION_REQUIRED")
    head, _, signature = page.token.split(".")
    page.token = f"{head}.{other.token.split('.')[1]}.{signature}"
    assert code_of(page.post(text="hi")) == (401, "AUTHENTICATION_REQUIRED")


def test_expired_token_is_401(open_page):
    page = open_page(token_ttl=60.0)
    page.start()
    assert page.claims()["exp"] == int(page.now) + 60
    page.now += 60
    assert code_of(page.ask("GET", f"{page.path}/messages")) == (401, "AUTHENTICATION_REQUIRED")


def test_missing_api_key_is_403(open_page):
    page = open_page(apikey="k")
    fields = {"data[endpoint]": "e", "data[nickname]": "Jonny"}
    assert code_of(page.ask("POST", SESSIONS, fields)) == (403, "INVALID_CONTACT_CENTER")
    assert page.ask("POST", SESSIONS, fields, headers={"x-api-key": "k"}).status == 200


def test_get_session_returns_state_and_participants(page):
    page.server.agent("Ann").join()
    entity = page.ask("GET", page.path).json()["data"]["entity"]
    assert entity["state"] == "active"
    assert [(p["type"], p["nickname"], p["connected"]) for p in entity["participants"]] == [
        ("Customer", "Jonny", True),
        ("Agent", "Ann", True),
    ]


def test_notices_and_receipts_are_501_unless_configured(open_page):
    for on in (False, True):
        page = open_page(v3_custom_notice=on, v3_read_receipt=on)
        page.start()
        index = page.poll()["messages"][0]["index"]
        read = f"{page.path}/participants/{page.entity['participantId']}/read"
        answers = page.post(type="CustomNotice", text="n"), page.ask("PUT", read, {"data[index]": index})
        if on:
            assert [answer.status for answer in answers] == [200, 200]
            assert page.texts() == ["n"]
            assert page.server.current_chat().read_position == 1
        else:
            assert [code_of(answer) for answer in answers] == [(501, "NOT_SUPPORTED")] * 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PATCH", "", 405), ("DELETE", "/messages", 405), ("GET", "/nothing", 404), ("GET", "/a/b/c/d", 404)],
)
def test_unknown_path_or_method_is_404_or_405(page, method, path, status):
    assert page.ask(method, page.path + path).status == status


# Images


def upload(page, make_multipart, content=b"png", name="a.png"):
    body, kind = make_multipart({"operationId": "op-2"}, {"file": (name, content)})
    headers = {"content-type": kind, "x-nexus-client-key": page.token}
    return page.server.handle(HttpRequest("POST", f"{page.path}/images", headers, body), page.now)


def test_image_is_uploaded_listed_and_downloaded(page, make_multipart):
    page.poll()
    answer = upload(page, make_multipart).json()
    assert answer["operationId"] == "op-2"
    message = page.poll()["messages"][0]
    content = message["content"][0]
    assert message["type"] == "Text"
    assert content == {
        "type": "image",
        "mime": "image/png",
        "url": answer["data"]["url"],
        "filename": "a.png",
        "length": 3,
    }
    base = SESSIONS.removesuffix("/sessions")
    download = page.ask("GET", base + content["url"])
    assert (download.status, download.body, download.headers["content-type"]) == (200, b"png", "image/png")
    assert page.ask("GET", base + content["url"] + "0").status == 404


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"image_types": ("image/gif",)}, (415, "INVALID_FILE_TYPE")),
        ({"max_file_size": 2}, (413, "LIMIT_FILE_SIZE")),
        ({"max_files": 0}, (400, "LIMIT_FILE_COUNT")),
    ],
)
def test_image_beyond_limits_is_rejected_with_code(open_page, make_multipart, options, refusal):
    page = open_page(**options)
    page.start()
    assert code_of(upload(page, make_multipart)) == refusal
    assert page.server.current_chat().files == {}


def test_image_of_agent_is_returned_by_poll(page):
    page.server.agent("Ann").join().send_file("b.gif", b"gif", content_type="image/gif")
    assert page.poll()["messages"][-1]["content"][0]["mime"] == "image/gif"


# Faults and held polls


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        ({"http_status": 429}, (429, "TOO_MANY_REQUESTS")),
        ({"http_status": 503}, (503, "SERVICE_UNAVAILABLE")),
        ({"code": "INVALID_SESSION", "http_status": 404}, (404, "INVALID_SESSION")),
        ({"code": "AUTHENTICATION_REQUIRED", "http_status": 401}, (401, "AUTHENTICATION_REQUIRED")),
        ({"server_status": 1}, (200, 1)),
    ],
)
def test_fault_has_v3_status_and_loses_no_message(page, fault, refusal):
    page.server.faults.add(operation="refresh", **fault)
    assert code_of(page.ask("GET", f"{page.path}/messages")) == refusal
    assert page.texts() == ["ParticipantJoined"]


def test_lost_poll_moves_cursor_only_if_it_takes_effect(page):
    page.server.faults.add(operation="refresh", drop=True)
    page.ask("GET", f"{page.path}/messages")
    assert page.texts() == ["ParticipantJoined"]
    page.post(text="hi")
    page.server.faults.add(operation="refresh", tear=True)
    assert page.ask("GET", f"{page.path}/messages").fate == "tear"
    assert page.texts() == []


def test_duplicate_fault_returns_messages_twice(page):
    page.server.faults.add(operation="refresh", duplicate=True)
    assert page.texts() == ["ParticipantJoined"] * 2


def test_poll_is_held_until_event(open_page):
    page = open_page(v3_hold=20.0)
    page.start()
    page.poll()
    request = HttpRequest("GET", f"{page.path}/messages", {"x-nexus-client-key": page.token})
    held = page.server.begin(request, page.now)
    assert isinstance(held, Held)
    assert held.due == page.now + 20
    assert page.server.resume(held, page.now + 1) is None
    page.server.agent("Ann").join()
    answer = page.server.resume(held, page.now + 2)
    assert [message["type"] for message in answer.json()["data"]["messages"]] == ["ParticipantJoined"]

    empty = page.server.begin(request, page.now + 3)
    assert page.server.resume(empty, page.now + 23).json()["data"]["messages"] == []
