"""Check the legality table over CometD: each command is called in each state of a real service.

The expectation is typed from the reference and the lifecycle, not read from the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.lifecycle.environment import LIMIT, Paper
from webchat_fsm import State
from webchat_fsm.lifecycle._legality import DOCUMENTED, legality
from webchat_fsm.lifecycle._transports import Transport

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


def idle(env, act):
    act(env.open())


def starting(env, act):
    chat = env.open()
    env.http.during("start", lambda: act(chat))
    chat.command("startChat", {"nickname": "Jonny"})


def active(env, act):
    act(env.start())


def offline(env, act):
    """Set the chat offline by failed reconnects; publishes still succeed."""
    chat = env.start()
    env.server.faults.add(operation="connect", drop=True, times=LIMIT + 1)
    env.advance(0.5 + sum(range(LIMIT + 1)))
    act(chat)


def restoring(env, act):
    env.start().close()
    chat = env.client()
    env.http.during("notifications", lambda: act(chat))
    chat.open()


def ended(env, act):
    chat = env.start()
    chat.end_chat()
    act(chat)


def ending(env, act):
    chat = env.start()
    env.http.during("disconnect", lambda: act(chat))
    chat.end_chat()


INTO = {
    State.IDLE: idle,
    State.STARTING: starting,
    State.ACTIVE: active,
    State.OFFLINE: offline,
    State.RESTORING: restoring,
    State.ENDED: ended,
}


def check_command(env, chat, command, expected, folder) -> None:
    """Check that `explain` predicts the result of the command."""
    file_id = env.agent().send_file("a.txt", b"content").id if chat.state in WITH_SESSION and not expected else "none"
    predicted = chat.explain(command)
    assert (predicted.legal, predicted.reason) == (not expected, expected)
    assert chat.can(command) is (command in chat.legal_commands()) is predicted.legal
    outcome = chat.command(command, data_for(command, file_id, folder))
    assert (outcome.status, outcome.reason) == (("rejected", expected) if expected else ("resolved", None))


def test_every_command_has_a_cell_for_every_reachable_state():
    assert list(EXPECTED) == [rule.name for rule in DOCUMENTED]
    assert all(set(cells) == set(INTO) == set(REACHABLE) for cells in EXPECTED.values())
    reasons = {(cell.command, cell.state): cell.reason for cell in legality(Transport.COMETD) if cell.reachable}
    assert reasons == {(command, state): text for command, cells in EXPECTED.items() for state, text in cells.items()}


@pytest.mark.parametrize("state", REACHABLE)
@pytest.mark.parametrize("command", EXPECTED)
def test_command_in_each_state_follows_the_table(env, folder, command, state):
    reached = []

    def act(chat):
        assert chat.state == state
        check_command(env, chat, command, EXPECTED[command][state], folder)
        reached.append(state)

    INTO[state](env, act)
    assert reached == [state]


@pytest.mark.parametrize("command", EXPECTED)
def test_commands_during_end_chat_answer_as_in_ended(env, folder, command):
    reached = []
    instead = {"startChat": ALREADY, "restore": RESTORE_ACTIVE}

    def act(chat):
        assert chat.state == "active"
        check_command(env, chat, command, instead.get(command, EXPECTED[command][State.ENDED]), folder)
        reached.append(command)

    ending(env, act)
    assert reached
    assert (env.chat.state, env.heard.names.count("ended")) == ("ended", 1)


@pytest.mark.parametrize("command", [command for command, cells in EXPECTED.items() if not cells[State.ACTIVE]])
def test_legal_command_works_while_the_connection_is_lost(env, folder, command):
    chat = env.start()
    env.server.faults.add(operation="connect", drop=True, times=3)
    env.advance(1)
    assert "disconnected" in env.heard.names
    check_command(env, chat, command, OK, folder)
