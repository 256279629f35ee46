"""Check that an HTTP status without the application's own body, as a proxy sends it, never ends a chat."""

from __future__ import annotations

import json

import pytest

from tests.lifecycle.environment import Paper
from tests.lifecycle.wires import wire
from webchat_fsm import CommandRejected, TransportError
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._transports import Transport

POLLED = [Transport.V2, Transport.V3, Transport.V3_ASYNC]
FOREIGN = {
    "a proxy's text": b"404 page not found\n",
    "a login page": b"<!DOCTYPE html><title>Sign in</title>",
    "nothing": b"",
    "another service's JSON": b'{"statusCode": 404, "message": "Resource not found"}',
    "Spring's JSON": b'{"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x"}',
    "a list": b"[]",
    "JSend JSON": b'{"status": "success", "data": {"chatEnded": true}}',
    "data of another service": b'{"data": {"chatEnded": true}}',
    "the name of an error alone": b'{"status": "INVALID_SESSION", "code": "INVALID_SESSION"}',
    "a status that is no code": b'{"status": {"code": 404}}',
}
STATUSES = [301, 302, 401, 403, 404, 410, 500, 502, 503]


@pytest.mark.parametrize("transport", POLLED)
@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_proxy_response_to_poll_is_a_failed_poll(transport, body):
    with wire(transport) as bench:
        bench.start()
        saved = bench.env.store.load()
        for status in STATUSES:
            bench.answer("refresh", body, status)
            bench.chat.step()
            names = bench.heard.take()
            assert (names[0], bench.chat.state.has_session) == ("error", True), status
            assert {"ended", "pollingStopped"}.isdisjoint(names)
            bench.deliver(bench.envelope(bench.event(status, f"{status}")))
            assert bench.heard.texts() == [f"{status}"]
            bench.heard.take()
        assert saved is not None
        assert bench.env.store.load().session_data == saved.session_data


@pytest.mark.parametrize("transport", POLLED)
@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("status", [200, *STATUSES])
def test_proxy_response_to_restore_keeps_the_session(transport, body, status):
    with wire(transport) as bench:
        bench.start()
        bench.chat.close()
        bench.env.client()
        bench.answer("resume" if transport is Transport.V3_ASYNC else "restore", body, status)
        bench.chat.open()
        assert str(bench.chat.state) in ("idle", "async-dormant")
        assert bench.heard.take() == ["ready", "restoreFailed", "error"]
        bench.chat.close()
        bench.chat.open()
        assert str(bench.chat.state) == "polling", "the next open() restores it"


@pytest.mark.parametrize("transport", POLLED)
@pytest.mark.parametrize("status", STATUSES)
def test_proxy_response_to_command_only_rejects_it(transport, status):
    with wire(transport) as bench:
        bench.start()
        for operation, command, data in (
            ("send", "sendMessage", {"message": "x"}),
            ("updateData", "updateUserData", {"a": "b"}),
            ("startTyping", "sendTyping", {"message": "x"}),
        ):
            bench.answer(operation, b"404 page not found\n", status)
            outcome = bench.chat.command(command, data)
            assert (outcome.status, outcome.reason["status"]) == ("rejected", status)
            assert str(bench.chat.state) == "polling"
        assert {"ended", "error"}.isdisjoint(bench.heard.names)
        assert bench.chat.command("sendMessage", {"message": "x"})


@pytest.mark.parametrize(
    ("status", "unconfirmed"), [(404, False), (500, False), (502, True), (503, False), (504, True)]
)
def test_gateway_error_leaves_a_send_unconfirmed(status, unconfirmed):
    with wire(Transport.V2) as bench:
        bench.start()
        bench.answer("send", b"<html>", status)
        with pytest.raises(CommandRejected) as caught:
            bench.chat.send_message("x")
        assert isinstance(caught.value.__cause__, TransportError) is unconfirmed
        assert (caught.value.receipt is not None and caught.value.receipt.status == "unknown") is unconfirmed


# -- responses of the application itself -------------------------------------------------------------------------------

OVER = {"statusCode": 2, "chatEnded": True, "messages": [], "errors": [{"code": 249, "advice": "gone"}]}


@pytest.mark.parametrize("status", [200, 400, 401, 404, 410, 500, 503])
@pytest.mark.parametrize("code", [2, "2", 2.0])
def test_end_envelope_ends_v2_at_any_status(status, code):
    with wire(Transport.V2) as bench:
        bench.start()
        bench.answer("refresh", json.dumps({**OVER, "statusCode": code}).encode(), status)
        bench.chat.step()
        assert bench.heard.take() == ["error", "pollingStopped", "ended"]
        assert bench.env.store.load() is None


@pytest.mark.parametrize(
    ("body", "status", "failures"),
    [
        ({"statusCode": 2, "chatEnded": False}, 404, 1), ({"statusCode": 1, "chatEnded": True}, 503, 1),
        ({"statusCode": 0, "chatEnded": True, "messages": []}, 404, 1), ({"chatEnded": True}, 404, 1),
        ({"statusCode": 2, "chatEnded": "perhaps"}, 410, 1), ({**OVER}, 429, 0),
    ],
)  # fmt: skip
def test_other_envelope_with_error_status_ends_no_chat(body, status, failures):
    with wire(Transport.V2) as bench:
        bench.start()
        bench.answer("refresh", json.dumps(body).encode(), status)
        bench.chat.step()
        assert (str(bench.chat.state), bench.chat.health().failures) == ("polling", failures)


def test_send_response_of_ended_chat_ends_it():
    with wire(Transport.V2) as bench:
        bench.start()
        bench.answer("send", json.dumps(OVER).encode(), 404)
        assert not bench.chat.command("sendMessage", {"message": "x"})
        assert bench.heard.take() == ["error", "pollingStopped", "ended"]


@pytest.mark.parametrize("transport", [Transport.V3, Transport.V3_ASYNC])
@pytest.mark.parametrize("status", [404, 400, 200])
def test_nexus_invalid_session_ends_the_chat(transport, status):
    with wire(transport) as bench:
        bench.start()
        bench.answer("refresh", b'{"status": {"code": "INVALID_SESSION"}}', status)
        bench.chat.step()
        assert bench.heard.take() == ["error", "pollingStopped", "ended"]
        assert bench.env.store.load() is None


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"status": {"code": "AUTHENTICATION_REQUIRED"}}', False),
        (b"<html>", True),
        (b'{"status": {"code": 401}}', True),
        (b'{"status": {"code": "SUCCESS"}, "data": {"messages": []}}', True),
    ],
)
def test_401_of_the_service_itself_deletes_async_session(body, kept):
    with wire(Transport.V3_ASYNC) as bench:
        bench.start()
        bench.answer("refresh", body, 401)
        bench.chat.step()
        assert str(bench.chat.state) == "polling", "in a live session it is a failed poll"
        bench.chat.close()
        bench.answer("resume", body, 401)
        bench.chat.open()
        assert (bench.env.store.load() is not None) is kept


# -- CometD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", [b"404 page not found\n", b"", b"<html>", b'[{"status": 404}]'])
def test_http_error_on_bayeux_ends_no_chat(status, body):
    with wire(Transport.COMETD) as bench:
        bench.start()
        gateway = bench.env.gateway
        gateway.script("connect", *[HttpAnswer(status=status, body=body)] * 3)
        gateway.script("sendMessage", HttpAnswer(status=status, body=body))
        assert not bench.chat.command("sendMessage", {"message": "x"})
        bench.env.advance(30)
        assert (str(bench.chat.state), "ended" in bench.heard.names) == ("active", False)
        gateway.say("still bench")
        bench.env.advance(2)
        assert "still bench" in bench.heard.texts()


@pytest.mark.parametrize("transport", [Transport.V2, Transport.V3])
@pytest.mark.parametrize("status", [404, 401, 502])
def test_proxy_response_to_upload_only_rejects_it(transport, status):
    with wire(transport) as bench:
        bench.start()
        bench.answer("limits", b'{"statusCode": 0, "messages": []}')
        bench.answer("file", b"404 page not found\n", status)
        assert bench.chat.command("sendFile", {"files": Paper(b"x")}).reason["status"] == status
        assert str(bench.chat.state) == "polling"
