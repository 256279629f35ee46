"""Bayeux advice by the kind of message that carries it: what is requested next, what is published, where it leads."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from tests.cometd.gateway import NOBODY, UNKNOWN, envelope, event, push
from webchat_fsm import CommandRejected
from webchat_fsm.wire.request import HttpAnswer

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


def answered(advice: Any, error: str = "", *, left: bool = False):
    """A reply to any message, with that advice; `left` puts a message on /meta/disconnect in front of it."""

    def answer(message):
        more = {} if advice is ABSENT else {"advice": advice}
        said = {"successful": False, "error": error} if error else {"successful": True}
        if left:
            farewell = {"channel": "/meta/disconnect", **more}
            return [farewell, {"id": message["id"], "channel": message["channel"], **said}]
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
    "hang-up": ("connect", "", True),
    "notifications ok": ("requestNotifications", "", False),
    "notifications refused": ("requestNotifications", "403::No", False),
}
"""The message that is answered oddly, the error of the reply, and whether the gateway hangs up with it."""

# fmt: off
_SHAKE = (["handshake", "requestNotifications"], [])
CELLS: dict[str, dict[str, tuple[list[str], list[str]]]] = {
    # kind:                  the requests that follow at once, and the events of the next ten seconds
    "handshake ok":          {"": (["requestNotifications", "connect"], [])},
    "handshake refused":     {"": (["handshake", "requestNotifications"], LOST)},
    "connect ok":            {"": (["connect", "connect"], []), "handshake": _SHAKE},
    "connect refused":       {"": (["connect", "requestNotifications"], LOST), "handshake": _SHAKE},
    "connect 402":           {"": (["handshake", "requestNotifications"], [])},
    "publish ok":            {"": (["connect", "connect"], []), "handshake": _SHAKE},
    "publish refused":       {"": (["connect", "connect"], []), "handshake": _SHAKE},
    "publish 402":           {"": (["handshake", "requestNotifications"], [])},
    "hang-up":               {"": (["handshake", "requestNotifications"], ["disconnected", "reconnected"])},
    "notifications ok":      {"": (["connect", "connect"], BACK),
                              "handshake": (["handshake", "requestNotifications"], LOST)},
    "notifications refused": {"": (["connect", "connect"], ["error", *BACK]),
                              "handshake": (["handshake", "requestNotifications"], LOST)},
}
# fmt: on


@pytest.mark.parametrize("advice", ADVICE)
@pytest.mark.parametrize("kind", KINDS)
def test_advice_decides_requests_events_and_state(line, kind, advice):
    name, error, left = KINDS[kind]
    chat = line.start()
    if name in ("handshake", "requestNotifications"):
        line.gateway.script("connect", line.gateway.refuse(UNKNOWN))
    line.gateway.script(name, answered(ADVICE[advice], error, left=left))
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
def test_odd_numbers_of_advice_leave_the_chat_alive(line, key, value):
    line.start()
    line.gateway.script("connect", answered({"reconnect": "retry", key: value}))
    line.advance(1)
    line.gateway.say("still here")
    line.advance(2)
    assert line.heard.names == ["messageReceived"]
    assert line.gateway.requests[-1].timeout <= 3610


def test_an_interval_above_a_minute_is_ignored_and_logged_once(line, caplog):
    chat = line.start()
    year = {"reconnect": "retry", "interval": 365 * 86_400_000}
    line.gateway.script("connect", *[answered(year)] * 3)
    line.advance(10)
    moments = line.gateway.moments("connect")
    assert max(later - sooner for sooner, later in pairwise(moments)) == 0.5
    assert [record.getMessage() for record in caplog.records].count(
        "the gateway advises an interval of more than 60 s, which counts as not said"
    ) == 1
    assert list(chat.health().warnings.values()) == [3]


@pytest.mark.parametrize("error", ["500::Busy", UNKNOWN])
def test_an_odd_interval_of_a_refusal_is_logged_too(line, caplog, error):
    line.start()
    line.gateway.script("connect", answered({"interval": 365 * 86_400_000}, error))
    line.advance(10)
    assert "an interval of more than 60 s" in caplog.text
    assert line.gateway.moments("connect")[-1] > 3


@pytest.mark.parametrize(
    ("answer", "pause"),
    [(answered({"interval": 5000}, "500::Busy"), 5), (HttpAnswer(status=503, headers={"retry-after": "7"}), 7)],
)
def test_a_failed_connect_waits_as_long_as_the_gateway_wants(line, answer, pause):
    line.start()
    before = len(line.gateway.all("connect"))
    line.gateway.script("connect", answer)
    line.advance(10)
    moments = line.gateway.moments("connect")
    assert moments[before + 1] - moments[before] == pause


# Forbidden to reconnect


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
def test_a_command_after_none_is_rejected_without_a_request(line, command, data):
    chat = stopped(line)
    if "regex" in data:
        data = {**data, "regex": re.compile("x")}
    outcome = chat.command(command, data)
    assert (outcome.status, "forbids to reconnect" in str(outcome.reason)) == ("rejected", True)
    line.advance(600)
    assert line.gateway.sent == []
    assert chat.state == "offline"


def test_end_after_none_ends_the_chat_without_a_request(line):
    chat = stopped(line)
    assert chat.command("endChat").status == "resolved"
    line.advance(60)
    assert (line.heard.names, chat.state, line.gateway.sent) == (["clientDisconnected", "ended"], "ended", [])
    assert chat.start_chat(nickname="Jonny")


def test_close_and_open_after_none_restore_the_chat(line):
    stopped(line)
    line.again().open()
    line.advance(1)
    assert (line.chat.state, line.heard.names[:2]) == ("active", ["ready", "restored"])


def test_none_in_the_answer_that_ends_the_chat_is_an_end(line):
    chat = line.start()
    line.gateway.script("connect", lambda message: [push(envelope(chatEnded=True)), *answered(ADVICE["none"])(message)])
    line.advance(5)
    assert (line.heard.names, chat.state) == (["ended"], "ended")


def test_pushes_beside_none_are_delivered(line):
    line.start()
    said = push(envelope(event(9, text="last words")))
    line.gateway.script("connect", lambda message: [said, *answered(ADVICE["none"])(message)])
    line.advance(5)
    assert line.heard.texts() == ["last words"]
    assert line.heard.names[-2:] == STOPPED


def test_none_from_offline_stays_offline_and_asks_no_more(line):
    chat = line.start(pollExceptionLimit=0)
    line.gateway.script("connect", NOBODY, answered(ADVICE["none"], "500::Busy"))
    line.advance(600)
    assert line.heard.names == ["disconnected", "connectionPending", "chatServerWentOffline", "error"]
    assert (chat.state, chat.health().failures, line.gateway.names()[-1]) == ("offline", 1, "connect")


@pytest.mark.parametrize("name", ["handshake", "requestChat", "connect"])
@pytest.mark.parametrize("error", ["", "403::No", UNKNOWN])
def test_none_while_starting_fails_the_start(line, name, error):
    line.gateway.script(name, answered(ADVICE["none"], error))
    with pytest.raises(CommandRejected, match="forbids to reconnect"):
        line.open().start_chat(nickname="Jonny")
    assert (line.heard.names, line.chat.state) == (["ready", "error"], "idle")
    assert line.gateway.names()[-1] == name


@pytest.mark.parametrize("name", ["handshake", "requestNotifications", "connect"])
def test_none_while_restoring_fails_it_and_keeps_what_is_saved(line, name):
    line.start()
    line.again()
    line.gateway.script(name, answered(ADVICE["none"]))
    line.chat.open()
    assert (line.heard.names, line.chat.state) == (["ready", "restoreFailed", "error"], "idle")
    assert (line.gateway.names()[-1], line.store.load() is not None) == (name, True)


def test_none_in_the_answer_to_the_leave_is_an_end(line):
    chat = line.start()
    line.gateway.script("disconnect", answered(ADVICE["none"]))
    assert chat.command("endChat").status == "resolved"
    assert line.heard.names == ["clientDisconnected", "ended"]


def test_a_connect_answered_after_none_brings_messages_only(line):
    chat = line.start()

    def meanwhile(message):
        line.gateway.script("sendMessage", answered(ADVICE["none"]))
        chat.command("sendMessage", {"message": "hi"})
        return line.gateway.taken(envelope(event(9, text="last")))(message)

    line.gateway.script("connect", NOBODY, meanwhile)
    line.advance(60)
    assert (chat.state, line.heard.texts()) == ("offline", ["last"])
    assert "reconnected" not in line.heard.names
    assert line.gateway.names()[-1] == "sendMessage"


def test_none_for_a_client_renewed_meanwhile_is_ignored(line):
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


def test_a_rejected_send_while_connects_fail_is_no_reconnected(line):
    chat = line.start()
    down = HttpAnswer(status=503)
    line.gateway.script("connect", *[down] * 50)
    line.gateway.script("sendMessage", down)
    line.advance(1)
    assert chat.command("sendMessage", {"message": "lost"}).status == "rejected"
    line.advance(10)
    assert line.heard.names.count("disconnected") == 1
    assert "reconnected" not in line.heard.names


def test_a_push_beside_a_send_in_an_outage_is_no_reconnected(line):
    chat = line.start()
    line.gateway.script("connect", *[NOBODY] * 3)
    line.gateway.script("sendMessage", line.gateway.taken(envelope(event(2, text="hi", sender="Client", party=1))))
    line.advance(1)
    line.heard.take()
    chat.send_message("hi")
    assert line.heard.take() == ["messageReceived"]
    line.advance(10)
    assert line.heard.take()[:2] == ["connectionRestored", "reconnected"]


def test_reconnected_after_a_handshake_waits_for_a_good_push(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, left=True))
    line.gateway.script("requestNotifications", *[line.gateway.taken()] * 2)
    line.advance(5.9)
    assert line.heard.take() == ["disconnected", "connectionPending"]
    assert chat.health().failures == 1
    line.advance(3)
    assert line.heard.take() == ["connectionRestored", "reconnected"]
    assert (chat.state, chat.health().failures) == ("active", 0)


def test_a_mute_server_behind_a_new_handshake_is_an_outage(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, left=True))
    line.gateway.script("requestNotifications", *[line.gateway.taken()] * 200)
    line.advance(30)
    assert (chat.state, line.heard.names) == ("offline", ["disconnected", "connectionPending", "chatServerWentOffline"])
    line.advance(600)
    asked = line.gateway.moments("requestNotifications")
    assert asked[:3] == [0, 3, 6]
    assert {later - sooner for sooner, later in pairwise(asked[31:])} == {60}
    assert chat.health().failures == len(asked) - 1


def test_a_mute_server_that_speaks_again_is_back(line):
    chat = line.start()
    line.gateway.script("connect", answered(ABSENT, left=True))
    line.gateway.script("requestNotifications", *[line.gateway.taken()] * 9)
    line.advance(60)
    assert chat.state == "active"
    assert line.heard.names[-3:] == ["chatServerBackOnline", "connectionRestored", "reconnected"]


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_a_bayeux_refusal_counts_whatever_the_http_status(line, status):
    line.start()
    body = b'[{"channel":"/meta/connect","successful":false,"error":"402::Unknown client"}]'
    line.gateway.script("connect", HttpAnswer(status=status, body=body))
    line.advance(3)
    assert line.gateway.names().count("handshake") == 2
    assert line.heard.names == []
