"""A status without the application's own body is the word of something in between, and never ends a chat."""

from __future__ import annotations

import json

import pytest

from tests.lifecycle.stage import Paper
from tests.lifecycle.wires import wire
from webchat_fsm import CommandRejected, TransportError
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.wire.request import HttpAnswer

POLLED = [Transport.V2, Transport.V3, Transport.V3_ASYNC]
BETWEEN = {
    "a proxy's text": b"404 page not found\n",
    "a login page": b"<!DOCTYPE html><title>Sign in</title>",
    "nothing": b"",
    "another service's JSON": b'{"statusCode": 404, "message": "Resource not found"}',
    "Spring's JSON": b'{"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x"}',
    "a list": b"[]",
    "JSON in the manner of JSend": b'{"status": "success", "data": {"chatEnded": true}}',
    "data of another service": b'{"data": {"chatEnded": true}}',
    "the name of an error alone": b'{"status": "INVALID_SESSION", "code": "INVALID_SESSION"}',
    "a status that is no code": b'{"status": {"code": 404}}',
}
STATUSES = [301, 302, 401, 403, 404, 410, 500, 502, 503]


@pytest.mark.parametrize("way", POLLED)
@pytest.mark.parametrize("body", BETWEEN.values(), ids=BETWEEN)
def test_a_poll_answered_from_between_is_a_failed_poll(way, body):
    with wire(way) as here:
        here.start()
        saved = here.stage.store.load()
        for status in STATUSES:
            here.answer("refresh", body, status)
            here.chat.step()
            names = here.heard.take()
            assert (names[0], here.chat.state.has_session) == ("error", True), status
            assert {"ended", "pollingStopped"}.isdisjoint(names)
            here.deliver(here.envelope(here.event(status, f"{status}")))
            assert here.heard.texts() == [f"{status}"]
            here.heard.take()
        assert saved is not None
        assert here.stage.store.load().session_data == saved.session_data


@pytest.mark.parametrize("way", POLLED)
@pytest.mark.parametrize("body", BETWEEN.values(), ids=BETWEEN)
@pytest.mark.parametrize("status", [200, *STATUSES])
def test_a_restore_answered_from_between_keeps_the_session(way, body, status):
    with wire(way) as here:
        here.start()
        here.chat.close()
        here.stage.client()
        here.answer("resume" if way is Transport.V3_ASYNC else "restore", body, status)
        here.chat.open()
        assert str(here.chat.state) in ("idle", "async-dormant")
        assert here.heard.take() == ["ready", "restoreFailed", "error"]
        here.chat.close()
        here.chat.open()
        assert str(here.chat.state) == "polling", "the next attempt finds it"


@pytest.mark.parametrize("way", POLLED)
@pytest.mark.parametrize("status", STATUSES)
def test_a_command_answered_from_between_is_rejected_alone(way, status):
    with wire(way) as here:
        here.start()
        for operation, command, data in (
            ("send", "sendMessage", {"message": "x"}),
            ("updateData", "updateUserData", {"a": "b"}),
            ("startTyping", "sendTyping", {"message": "x"}),
        ):
            here.answer(operation, b"404 page not found\n", status)
            outcome = here.chat.command(command, data)
            assert (outcome.status, outcome.reason["status"]) == ("rejected", status)
            assert str(here.chat.state) == "polling"
        assert {"ended", "error"}.isdisjoint(here.heard.names)
        assert here.chat.command("sendMessage", {"message": "x"})


@pytest.mark.parametrize(
    ("status", "unconfirmed"), [(404, False), (500, False), (502, True), (503, False), (504, True)]
)
def test_a_gateway_without_an_answer_leaves_a_send_unconfirmed(status, unconfirmed):
    with wire(Transport.V2) as here:
        here.start()
        here.answer("send", b"<html>", status)
        with pytest.raises(CommandRejected) as caught:
            here.chat.send_message("x")
        assert isinstance(caught.value.__cause__, TransportError) is unconfirmed
        assert (caught.value.receipt is not None and caught.value.receipt.status == "unknown") is unconfirmed


# -- the application's own word ----------------------------------------------------------------------------------------

OVER = {"statusCode": 2, "chatEnded": True, "messages": [], "errors": [{"code": 249, "advice": "gone"}]}


@pytest.mark.parametrize("status", [200, 400, 401, 404, 410, 500, 503])
@pytest.mark.parametrize("code", [2, "2", 2.0])
def test_an_envelope_of_the_end_ends_v2_whatever_the_status(status, code):
    with wire(Transport.V2) as here:
        here.start()
        here.answer("refresh", json.dumps({**OVER, "statusCode": code}).encode(), status)
        here.chat.step()
        assert here.heard.take() == ["error", "pollingStopped", "ended"]
        assert here.stage.store.load() is None


@pytest.mark.parametrize(
    ("body", "status", "failures"),
    [
        ({"statusCode": 2, "chatEnded": False}, 404, 1), ({"statusCode": 1, "chatEnded": True}, 503, 1),
        ({"statusCode": 0, "chatEnded": True, "messages": []}, 404, 1), ({"chatEnded": True}, 404, 1),
        ({"statusCode": 2, "chatEnded": "perhaps"}, 410, 1), ({**OVER}, 429, 0),
    ],
)  # fmt: skip
def test_any_other_envelope_with_such_a_status_ends_nothing(body, status, failures):
    with wire(Transport.V2) as here:
        here.start()
        here.answer("refresh", json.dumps(body).encode(), status)
        here.chat.step()
        assert (str(here.chat.state), here.chat.health().failures) == ("polling", failures)


def test_a_message_that_finds_the_chat_over_ends_it():
    with wire(Transport.V2) as here:
        here.start()
        here.answer("send", json.dumps(OVER).encode(), 404)
        assert not here.chat.command("sendMessage", {"message": "x"})
        assert here.heard.take() == ["error", "pollingStopped", "ended"]


@pytest.mark.parametrize("way", [Transport.V3, Transport.V3_ASYNC])
@pytest.mark.parametrize("status", [404, 400, 200])
def test_an_invalid_session_of_nexus_is_lost(way, status):
    with wire(way) as here:
        here.start()
        here.answer("refresh", b'{"status": {"code": "INVALID_SESSION"}}', status)
        here.chat.step()
        assert here.heard.take() == ["error", "pollingStopped", "ended"]
        assert here.stage.store.load() is None


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"status": {"code": "AUTHENTICATION_REQUIRED"}}', False),
        (b"<html>", True),
        (b'{"status": {"code": 401}}', True),
        (b'{"status": {"code": "SUCCESS"}, "data": {"messages": []}}', True),
    ],
)
def test_a_401_loses_an_async_restore_by_the_services_own_word(body, kept):
    with wire(Transport.V3_ASYNC) as here:
        here.start()
        here.answer("refresh", body, 401)
        here.chat.step()
        assert str(here.chat.state) == "polling", "in a live session it is a failed poll"
        here.chat.close()
        here.answer("resume", body, 401)
        here.chat.open()
        assert (here.stage.store.load() is not None) is kept


# -- CometD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", [b"404 page not found\n", b"", b"<html>", b'[{"status": 404}]'])
def test_a_bayeux_status_ends_nothing(status, body):
    with wire(Transport.COMETD) as here:
        here.start()
        gateway = here.stage.gateway
        gateway.script("connect", *[HttpAnswer(status=status, body=body)] * 3)
        gateway.script("sendMessage", HttpAnswer(status=status, body=body))
        assert not here.chat.command("sendMessage", {"message": "x"})
        here.stage.advance(30)
        assert (str(here.chat.state), "ended" in here.heard.names) == ("active", False)
        gateway.say("still here")
        here.stage.advance(2)
        assert "still here" in here.heard.texts()


@pytest.mark.parametrize("way", [Transport.V2, Transport.V3])
@pytest.mark.parametrize("status", [404, 401, 502])
def test_a_file_refused_from_between_rejects_and_ends_nothing(way, status):
    with wire(way) as here:
        here.start()
        here.answer("limits", b'{"statusCode": 0, "messages": []}')
        here.answer("file", b"404 page not found\n", status)
        assert here.chat.command("sendFile", {"files": Paper(b"x")}).reason["status"] == status
        assert str(here.chat.state) == "polling"
