"""Check Bayeux advice by the kind of message that carries it: the next requests, the events and the state."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from tests.cometd.gateway import NO_RESPONSE, UNKNOWN, envelope, event, push
from webchat_fsm import CommandRejected
from webchat_fsm._wire.request import HttpAnswer

ABSENT: Any = object()
ADVICE: dict[str, Any] = {
    "absent": ABSENT,
    "retry": {"reconnect": "retry"},
    "handshake": {"reconnect": "handshake"},
    "none": {"reconnect": "none"},
    "odd": {"reconnect": "perhaps", "interval": "soon", "timeout": []},
}
STOPPED = ["error", "chatServerWentOffline"]
LOST = ["disconnected", "connectionPending", "connectionRestored", "reconnected"]
BACK = ["connectionPending", "connectionRestored"]


def answered(advice: Any, error: str = "", *, disconnects: bool = False):
    """Make a reply with `advice` to any message; `disconnects` puts the advice on /meta/disconnect in front of it."""

    def answer(message):
        more = {} if advice is ABSENT else {"advice": advice}
        said = {"successful": False, "error": error} if error else {"successful": True}
        if disconnects:
            disconnect = {"channel": "/meta/disconnect", **more}
            return [disconnect, {"id": message["id"], "channel": message["channel"], **said}]
        client = {"clientId": "client-9"} if message["channel"] == "/meta/handshake" and not error else {}
        return [{"id": message["id"], "channel": message["channel"], **said, **client, **more}]

    return answer


KINDS: dict[str, tuple[str, str, bool]] = {
    "handshake ok": ("handshake", "", False),
    "handshake refused": ("handshake", "403::No", False),
    "connect ok": ("connect", "", False),
    "connect refused": ("connect", "500::Busy", False),
    "connect 402": ("connect", UNKNOWN, False),
    "publish ok": ("sendMessage", "", False),
    "publish refused": ("sendMessage", "403::No", False),
    "publish 402": ("sendMessage", UNKNOWN, False),
    "disconnect": ("connect", "", True),
    "notifications ok": ("requestNotifications", "", False),
    "notifications refused": ("requestNotifications", "403::No", False),
}
"""The message that gets the advice, the error of its reply, and whether /meta/disconnect precedes that reply."""

# fmt: off
_RENEWED = (["handshake", "requestNotifications"], [])
CELLS: dict[str, dict[str, tuple[list[str], list[str]]]] = {
    # kind:                  the requests that follow at once, and the events of the next ten seconds
    "handshake ok":          {"": (["requestNotifications", "connect"], [])},
    "handshake refused":     {"": (["handshake", "requestNotifications"], LOST)},
    "connect ok":            {"": (["connect", "connect"], []), "handshake": _RENEWED},
    "connect refused":       {"": (["connect", "requestNotifications"], LOST), "handshake": _RENEWED},
    "connect 402":           {"": (["handshake", "requestNotifications"], [])},
    "publish ok":            {"": (["connect", "connect"], []), "handshake": _RENEWED},
    "publish refused":       {"": (["connect", "connect"], []), "handshake": _RENEWED},
    "publish 402":           {"": (["handshake", "requestNotifications"], [])},
    "disconnect":            {"": (["handshake", "requestNotifications"], ["disconnected", "reconnected"])},
    "notifications ok":      {"": (["connect", "connect"], BACK),
                              "handshake": (["handshake", "requestNotifications"], LOST)},
    "notifications refused": {"": (["connect", "connect"], ["error", *BACK]),
                              "handshake": (["handshake", "requestNotifications"], LOST)},
}
# fmt: on


@pytest.mark.parametrize("advice", ADVICE)
@pytest.mark.parametrize("kind", KINDS)
def test_advice_decides_requests_events_and_state(line, kind, advice):
    name, error, disconnects = KINDS[kind]
    chat = line.start()
    if name in ("handshake", "requestNotifications"):
        line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script(name, answered(ADVICE[advice], error, disconnects=disconnects))
    before = len(line.gateway.sent)
    if name == "sendMessage":
        chat.command("sendMessage", {"message": "hi"})
    line.advance(10)
    names = line.gateway.names()[before:]
    behind = names[names.index(name) + 1 :]
    events = [event for event in line.heard.names if event != "messageReceived"]
    if advice == "none":
        assert (behind, events, chat.state) == ([], STOPPED, "offline")
        assert chat.health().failures == 6
        return
    cell = CELLS[kind]
    requests, published = cell.get(advice, cell[""])
    assert (behind[:2], events, chat.state) == (requests, published, "active")


@pytest.mark.parametrize("key", ["interval", "timeout"])
@pytest.mark.parametrize("value", [None, True, "", "soon", [], {}, -1, 1e300, 10**30, 0.25, "250"])
def test_odd_advice_number_leaves_chat_active(line, key, value):
    line.start()
    line.gateway.script("connect", answered({"reconnect": "retry", key: value}))
    line.advance(1)
    line.gateway.say("still here")
    line.advance(2)
    assert line.heard.names == ["messageReceived"]
    assert line.gateway.requests[-1].timeout <= 3610


def test_advised_interval_above_60_s_is_ignored_and_logged_once(line, caplog):
    chat = line.start()
    year = {"reconnect": "retry", "interval": 365 * 86_400_000}
    line.gateway.script("connect", *[answered(year)] * 3)
    line.advance(10)
    moments = line.gateway.moments("connect")
    assert max(later - sooner for sooner, later in pairwise(moments)) == 0.5
    assert [record.getMessage() for record in caplog.records].count(
        "the gateway advises an interval of more than 60 s, which is ignored"
    ) == 1
    assert list(chat.health().warnings.values()) == [3]


@pytest.mark.parametrize("error", ["500::Busy", UNKNOWN])
def test_odd_interval_of_refusal_is_logged(line, caplog, error):
    line.start()
    line.gateway.script("connect", answered({"interval": 365 * 86_400_000}, error))
    line.advance(10)
    assert "an interval of more than 60 s" in caplog.text
    assert line.gateway.moments("connect")[-1] > 3


@pytest.mark.parametrize(
    ("answer", "pause"),
    [(answered({"interval": 5000}, "500::Busy"), 5), (HttpAnswer(status=503, headers={"retry-after": "7"}), 7)],
)
def test_failed_connect_waits_for_advised_interval(line, answer, pause):
    line.start()
    before = len(line.gateway.all("connect"))
    line.gateway.script("connect", answer)
    line.advance(10)
    moments = line.gateway.moments("connect")
    assert moments[before + 1] - moments[before] == pause


# Advice none


def stopped(line, **config):
    chat = line.start(**config)
    line.gateway.script("connect", answered(ADVICE["none"]))
    line.advance(1)
    assert (chat.state, line.heard.take()) == ("offline", STOPPED)
    line.gateway.times.clear()
    line.gateway.sent.clear()
    return chat


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("sendMessage", {"message": "hi"}),
        ("sendFilteredMessage", {"message": "hi", "regex": "x"}),
        ("sendTyping", {}),
        ("sendCustomNotice", {"message": "n"}),
        ("updateUserData", {"a": 1}),
        ("getFileLimits", {}),
        ("downloadFile", {"fileId": "f"}),
    ],
)
def test_command_after_advice_none_is_rejected_unsent(line, command, data):
    chat = stopped(line)
    if "regex" in data:
        data = {**data, "regex": re.compile("x")}
    outcome = chat.command(command, data)
    assert (outcome.status, "forbids to reconnect" in str(outcome.reason)) == ("rejected", True)
    line.advance(600)
    assert line.gateway.sent == []
    assert chat.state == "offline"


def test_end_after_advice_none_ends_chat_without_request(line):
    chat = stopped(line)
    assert chat.command("endChat").status == "resolved"
    line.advance(60)
    assert (line.heard.names, chat.state, line.gateway.sent) == (["clientDisconnected", "ended"], "ended", [])
    assert chat.start_chat(nickname="Jonny")


def test_reopening_after_advice_none_restores_chat(line):
    stopped(line)
    line.again().open()
    line.advance(1)
    assert (line.chat.state, line.heard.names[:2]) == ("active", ["ready", "restored"])


def test_advice_none_beside_chat_end_publishes_end_only(line):
    chat = line.start()
    line.gateway.script("connect", lambda message: [push(envelope(chatEnded=True)), *answered(ADVICE["none"])(message)])
    line.advance(5)
    assert (line.heard.names, chat.state) == (["ended"], "ended")


@pytest.mark.parametrize(("error", "status"), [("", "resolved"), ("403::No", "rejected"), (UNKNOWN, "rejected")])
def test_publish_answered_by_end_and_advice_none_is_settled(line, error, status):
    chat = line.start()
    end = push(envelope(chatEnded=True))
    line.gateway.script("sendMessage", lambda message: [end, *answered(ADVICE["none"], error)(message)])
    outcome = chat.command("sendMessage", {"message": "hello"})
    assert (outcome.status, line.heard.names, chat.state) == (status, ["ended"], "ended")


@pytest.mark.parametrize("name", ["handshake", "requestChat", "connect"])
@pytest.mark.parametrize("error", ["", "403::No", UNKNOWN])
def test_start_by_push_beside_advice_none_goes_offline(line, name, error):
    joined = push(envelope(event(1, text="one")))
    line.gateway.script(name, lambda message: [joined, *answered(ADVICE["none"], error)(message)])
    outcome = line.open().command("startChat", {"nickname": "Jonny"})
    assert (outcome.status, line.chat.state) == ("resolved", "offline")
    assert line.heard.names == ["ready", "started", "messageReceived", *STOPPED]


@pytest.mark.parametrize("name", ["handshake", "requestNotifications", "connect"])
def test_restore_by_push_beside_advice_none_goes_offline(line, name):
    line.start()
    chat = line.again()
    said = push(envelope(event(1, text="one")))
    line.gateway.script(name, lambda message: [said, *answered(ADVICE["none"])(message)])
    chat.open()
    assert (chat.state, line.heard.names[-2:], line.gateway.names()[-1]) == ("offline", STOPPED, name)


def test_pushes_beside_advice_none_are_delivered(line):
    line.start()
    said = push(envelope(event(9, text="last message")))
    line.gateway.script("connect", lambda message: [said, *answered(ADVICE["none"])(message)])
    line.advance(5)
    assert line.heard.texts() == ["last message"]
    assert line.heard.names[-2:] == STOPPED


def test_advice_none_while_offline_stops_requests(line):
    chat = line.start(pollExceptionLimit=0)
    line.gateway.script("connect", NO_RESPONSE, answered(ADVICE["none"], "500::Busy"))
    line.advance(600)
    assert line.heard.names == ["disconnected", "connectionPending", "chatServerWentOffline", "error"]
    assert (chat.state, chat.health().failures, line.gateway.names()[-1]) == ("offline", 1, "connect")


@pytest.mark.parametrize("name", ["handshake", "requestChat", "connect"])
@pytest.mark.parametrize("error", ["", "403::No", UNKNOWN])
def test_advice_none_during_start_fails_start(line, name, error):
    line.gateway.script(name, answered(ADVICE["none"], error))
    with pytest.raises(CommandRejected, match="forbids to reconnect"):
        line.open().start_chat(nickname="Jonny")
    assert (line.heard.names, line.chat.state) == (["ready", "error"], "idle")
    assert line.gateway.names()[-1] == name


@pytest.mark.parametrize("name", ["handshake", "requestNotifications", "connect"])
def test_advice_none_fails_restore_and_keeps_saved_session(line, name):
    line.start()
    line.again()
    line.gateway.script(name, answered(ADVICE["none"]))
    line.chat.open()
    assert (line.heard.names, line.chat.state) == (["ready", "restoreFailed", "error"], "idle")
    assert (line.gateway.names()[-1], line.store.load() is not None) == (name, True)


def test_advice_none_beside_leave_response_ends_chat(line):
    chat = line.start()
    line.gateway.script("disconnect", answered(ADVICE["none"]))
    assert chat.command("endChat").status == "resolved"
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_connect_answered_after_advice_none_has_messages_only(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", answered(ADVICE["none"]))
        chat.command("sendMessage", {"message": "hi"})
        return line.gateway.accept(envelope(event(9, text="last")))(message)

    line.gateway.script("connect", NO_RESPONSE, meanwhile)
    line.advance(60)
    assert (chat.state, line.heard.texts()) == ("offline", ["last"])
    assert "reconnected" not in line.heard.names
    assert line.gateway.names()[-1] == "sendMessage"


def test_advice_none_for_renewed_client_is_ignored(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", line.gateway.refuse(UNKNOWN))
        assert chat.command("sendMessage", {"message": "hi"}).status == "resolved"
        return answered(ADVICE["none"])(message)

    line.gateway.script("connect", meanwhile)
    line.advance(5)
    assert chat.state == "active"
    assert "error" not in line.heard.names


# Reconnected


def test_rejected_send_in_outage_publishes_no_reconnected(line):
    chat = line.start()
    down = HttpAnswer(status=503)
    line.gateway.script("connect", *[down] * 50)
    line.gateway.script("sendMessage", down)
    line.advance(1)
    assert chat.command("sendMessage", {"message": "lost"}).status == "rejected"
    line.advance(10)
    assert line.heard.names.count("disconnected") == 1
    assert "reconnected" not in line.heard.names


def test_push_beside_send_in_outage_publishes_no_reconnected(line):
    chat = line.start()
    line.gateway.script("connect", *[NO_RESPONSE] * 3)
    line.gateway.script("sendMessage", line.gateway.accept(envelope(event(2, text="hi", sender="Client", party=1))))
    line.advance(1)
    line.heard.take()
    chat.send_message("hi")
    assert line.heard.take() == ["messageReceived"]
    line.advance(10)
    assert line.heard.take()[:2] == ["connectionRestored", "reconnected"]


def test_reconnected_after_handshake_waits_for_good_push(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, disconnects=True))
    line.gateway.script("requestNotifications", *[line.gateway.accept()] * 2)
    line.advance(5.9)
    assert line.heard.take() == ["disconnected", "connectionPending"]
    assert chat.health().failures == 1
    line.advance(3)
    assert line.heard.take() == ["connectionRestored", "reconnected"]
    assert (chat.state, chat.health().failures) == ("active", 0)


def test_silent_server_after_a_new_handshake_is_an_outage(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, disconnects=True))
    line.gateway.script("requestNotifications", *[line.gateway.accept()] * 200)
    line.advance(30)
    assert (chat.state, line.heard.names) == ("offline", ["disconnected", "connectionPending", "chatServerWentOffline"])
    line.advance(600)
    asked = line.gateway.moments("requestNotifications")
    assert asked[:3] == [0, 3, 6]
    assert {later - sooner for sooner, later in pairwise(asked[31:])} == {60}
    assert chat.health().failures == len(asked) - 1


def test_silent_server_that_pushes_again_ends_the_outage(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, disconnects=True))
    line.gateway.script("requestNotifications", *[line.gateway.accept()] * 9)
    line.advance(60)
    assert chat.state == "active"
    assert line.heard.names[-3:] == ["chatServerBackOnline", "connectionRestored", "reconnected"]


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_bayeux_refusal_counts_with_any_http_status(line, status):
    line.start()
    body = b'[{"channel":"/meta/connect","successful":false,"error":"402::Unknown client"}]'
    line.gateway.script("connect", HttpAnswer(status=status, body=body))
    line.advance(3)
    assert line.gateway.names().count("handshake") == 2
    assert line.heard.names == []
