"""The legality table over CometD, cell by cell: a real service is led into each state, and each command is given there.

The expectation is typed from the reference and the lifecycle, not read from the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.lifecycle.stage import LIMIT, Paper
from webchat_fsm import State
from webchat_fsm.lifecycle.commands import DOCUMENTED, legality
from webchat_fsm.lifecycle.table import Transport

OK = ""
WITH_SESSION = (State.ACTIVE, State.OFFLINE)
REACHABLE = (State.IDLE, State.STARTING, State.ACTIVE, State.OFFLINE, State.RESTORING, State.ENDED)

ALREADY = "There is already an active chat session"
NO_SESSION = "There is no active chat session"
NO_SESSION_SHORT = "No active chat session"
PRIVATE = "Access Denied to private command. Only WebChatService is allowed to invoke this command."
NON_ASYNC = "Access Denied to private command. Only WebChatService is allowed to invoke this command in Non-Async mode."
RESTORE_ACTIVE = "Chat session is already active, ignoring restore command."
NO_POLLING = "This transport doesn't support polling"


def always(text: str = OK) -> Mapping[State, str]:
    return dict.fromkeys(REACHABLE, text)


def in_session(otherwise: str) -> Mapping[State, str]:
    return {**always(otherwise), **dict.fromkeys(WITH_SESSION, OK)}


EXPECTED: dict[str, Mapping[State, str]] = {
    "configure": always(PRIVATE),
    "startChat": {**always(ALREADY), State.IDLE: OK, State.ENDED: OK},
    "endChat": in_session(NO_SESSION),
    "sendMessage": in_session(NO_SESSION),
    "sendCustomNotice": in_session(NO_SESSION),
    "sendTyping": in_session(NO_SESSION),
    "sendFilteredMessage": in_session(NO_SESSION_SHORT),
    "addPrefilter": always(),
    "updateUserData": always(),
    "poll": always(NO_POLLING + "."),
    "startPoll": always(NO_POLLING),
    "stopPoll": always(NO_POLLING),
    "resetPollExceptions": always("This transport doesn't support resetPollExceptions command."),
    "restore": {
        **always(RESTORE_ACTIVE),
        State.RESTORING: "Already restoring. Ignoring request.",
        State.IDLE: NON_ASYNC,
        State.ENDED: NON_ASYNC,
    },
    "getTranscript": always(),
    "getAgents": always(),
    "getStats": always(),
    "sendFile": in_session(NO_SESSION),
    "downloadFile": in_session(NO_SESSION),
    "getSessionData": always(),
    "fetchHistory": always("Fetching history messages applies only to Asynchronous chat"),
    "registerTypingPreviewInput": always(),
    "registerPreProcessor": always(),
    "verifySession": always(),
}


class Input:
    type = "text"
    value = ""


def data_for(command: str, file_id: str, folder):
    return {
        "startChat": {"nickname": "Jonny"},
        "sendMessage": {"message": "hi"},
        "sendCustomNotice": {"message": "look"},
        "sendTyping": {"message": "h"},
        "sendFilteredMessage": {"message": "secret", "regex": re.compile("^secret$")},
        "addPrefilter": {"filters": re.compile("x{9}")},
        "updateUserData": {"tier": "gold"},
        "sendFile": {"files": Paper(b"text")},
        "downloadFile": {"fileId": file_id, "to": folder},
        "registerTypingPreviewInput": {"input": Input()},
        "registerPreProcessor": {"preprocessor": lambda message: message},
    }.get(command)


def idle(stage, act):
    act(stage.open())


def starting(stage, act):
    chat = stage.open()
    stage.http.during("start", lambda: act(chat))
    chat.command("startChat", {"nickname": "Jonny"})


def active(stage, act):
    act(stage.start())


def offline(stage, act):
    """Offline by reconnects that failed, after which publishes go through."""
    chat = stage.start()
    stage.server.faults.add(operation="connect", drop=True, times=LIMIT + 1)
    stage.advance(0.5 + sum(range(LIMIT + 1)))
    act(chat)


def restoring(stage, act):
    stage.start().close()
    chat = stage.client()
    stage.http.during("notifications", lambda: act(chat))
    chat.open()


def ended(stage, act):
    chat = stage.start()
    chat.end_chat()
    act(chat)


def ending(stage, act):
    chat = stage.start()
    stage.http.during("disconnect", lambda: act(chat))
    chat.end_chat()


INTO = {
    State.IDLE: idle,
    State.STARTING: starting,
    State.ACTIVE: active,
    State.OFFLINE: offline,
    State.RESTORING: restoring,
    State.ENDED: ended,
}


def give(stage, chat, command, expected, folder) -> None:
    """Ask first, then try: what is foretold must be what happens."""
    file_id = stage.agent().send_file("a.txt", b"content").id if chat.state in WITH_SESSION and not expected else "none"
    foretold = chat.explain(command)
    assert (foretold.legal, foretold.reason) == (not expected, expected)
    assert chat.can(command) is (command in chat.legal_commands()) is foretold.legal
    outcome = chat.command(command, data_for(command, file_id, folder))
    assert (outcome.status, outcome.reason) == (("rejected", expected) if expected else ("resolved", None))


def test_every_documented_command_has_a_cell_for_every_state_that_can_be_reached():
    assert list(EXPECTED) == [rule.name for rule in DOCUMENTED]
    assert all(set(cells) == set(INTO) == set(REACHABLE) for cells in EXPECTED.values())
    told = {(cell.command, cell.state): cell.reason for cell in legality(Transport.COMETD) if cell.reachable}
    assert told == {(command, state): text for command, cells in EXPECTED.items() for state, text in cells.items()}


@pytest.mark.parametrize("state", REACHABLE)
@pytest.mark.parametrize("command", EXPECTED)
def test_a_command_does_what_the_table_says(stage, tmp_path, command, state):
    told = []

    def act(chat):
        assert chat.state == state
        give(stage, chat, command, EXPECTED[command][state], tmp_path)
        told.append(state)

    INTO[state](stage, act)
    assert told == [state]


@pytest.mark.parametrize("command", EXPECTED)
def test_while_the_end_is_in_flight_commands_answer_as_in_an_ended_chat(stage, tmp_path, command):
    told = []
    instead = {"startChat": ALREADY, "restore": RESTORE_ACTIVE}

    def act(chat):
        assert chat.state == "active"
        give(stage, chat, command, instead.get(command, EXPECTED[command][State.ENDED]), tmp_path)
        told.append(command)

    ending(stage, act)
    assert told
    assert (stage.chat.state, stage.heard.names.count("ended")) == ("ended", 1)


@pytest.mark.parametrize("command", [command for command, cells in EXPECTED.items() if not cells[State.ACTIVE]])
def test_a_legal_command_of_a_session_works_while_the_connection_is_lost(stage, tmp_path, command):
    chat = stage.start()
    stage.server.faults.add(operation="connect", drop=True, times=3)
    stage.advance(1)
    assert "disconnected" in stage.heard.names
    give(stage, chat, command, OK, tmp_path)
