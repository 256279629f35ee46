"""Check the legality table through the public API, cell by cell: every command in every reachable state.

The expected table is written from the reference and the lifecycle, not read from the table of the package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.lifecycle.environment import INTO, HeardOnBus, Paper, Picture, into_ending
from tests.lifecycle.reach import reachable_states
from webchat_fsm import State
from webchat_fsm.lifecycle._legality import DOCUMENTED
from webchat_fsm.lifecycle._transports import Transport

OK = ""
I, S, A, P, O, R, D, E = State  # noqa: E741  (idle, starting, active, polling, offline, restoring, dormant, ended)

ACTIVE_ALREADY = "There is already an active chat session"
NO_SESSION = "There is no active chat session"
NO_SESSION_SHORT = "No active chat session"
PRIVATE = "Access Denied to private command. Only WebChatService is allowed to invoke this command."
PRIVATE_RESTORE = (
    "Access Denied to private command. Only WebChatService is allowed to invoke this command in Non-Async mode."
)
ALREADY_RESTORING = "Already restoring. Ignoring request."
RESTORE_ACTIVE = "Chat session is already active, ignoring restore command."


def always(text: str = OK) -> Mapping[State, str]:
    return dict.fromkeys(State, text)


def only(*legal: State, otherwise: str) -> Mapping[State, str]:
    return {**always(otherwise), **dict.fromkeys(legal, OK)}


ONLY_ASYNC = "Fetching history messages applies only to Asynchronous chat"
NO_NOTICES = "This transport doesn't support sendCustomNotice command."
NO_EXCEPTIONS = "This transport doesn't support resetPollExceptions command."
NO_DOWNLOADS = "This transport doesn't support file download."

WITH_SESSION = only(A, P, O, otherwise=NO_SESSION)
WITH_SESSION_SHORT = only(A, P, O, otherwise=NO_SESSION_SHORT)

EXPECTED: dict[Transport, dict[str, Mapping[State, str]]] = {
    Transport.V2: {
        "configure": always(PRIVATE),
        "startChat": only(I, E, otherwise=ACTIVE_ALREADY),
        "endChat": WITH_SESSION,
        "sendMessage": WITH_SESSION,
        "sendCustomNotice": WITH_SESSION,
        "sendTyping": WITH_SESSION,
        "sendFilteredMessage": WITH_SESSION_SHORT,
        "addPrefilter": always(),
        "updateUserData": always(),
        "poll": always(PRIVATE),
        "startPoll": WITH_SESSION_SHORT,
        "stopPoll": {**WITH_SESSION_SHORT, A: "Not currently polling. Ignoring command."},
        "resetPollExceptions": always(),
        "restore": {**always(RESTORE_ACTIVE), R: ALREADY_RESTORING, I: PRIVATE_RESTORE, E: PRIVATE_RESTORE},
        "getTranscript": always(),
        "getAgents": always(),
        "getStats": always(),
        "sendFile": WITH_SESSION,
        "downloadFile": WITH_SESSION,
        "getSessionData": always(),
        "fetchHistory": always("Fetching history messages applies only to Asynchronous chat"),
        "registerTypingPreviewInput": always(),
        "registerPreProcessor": always(),
        "verifySession": always(),
    },
    Transport.V3: {
        "configure": always(PRIVATE),
        "startChat": only(I, E, otherwise=ACTIVE_ALREADY),
        "endChat": WITH_SESSION,
        "sendMessage": WITH_SESSION,
        "sendCustomNotice": always(NO_NOTICES),
        "sendTyping": WITH_SESSION,
        "sendFilteredMessage": WITH_SESSION_SHORT,
        "addPrefilter": always(),
        "updateUserData": always(),
        "poll": always(PRIVATE),
        "startPoll": WITH_SESSION_SHORT,
        "stopPoll": {**WITH_SESSION_SHORT, A: "Not currently polling. Ignoring command."},
        "resetPollExceptions": always(NO_EXCEPTIONS),
        "restore": {**always(RESTORE_ACTIVE), R: ALREADY_RESTORING, I: PRIVATE_RESTORE, E: PRIVATE_RESTORE},
        "getTranscript": always(),
        "getAgents": always(),
        "getStats": always(),
        "sendFile": WITH_SESSION,
        "downloadFile": always(NO_DOWNLOADS),
        "getSessionData": always(),
        "fetchHistory": always(ONLY_ASYNC),
        "registerTypingPreviewInput": always(),
        "registerPreProcessor": always(),
        "verifySession": always(),
    },
    Transport.V3_ASYNC: {
        "configure": always(PRIVATE),
        "startChat": only(I, E, otherwise=ACTIVE_ALREADY),
        "endChat": only(A, P, O, D, otherwise=NO_SESSION),
        "sendMessage": WITH_SESSION,
        "sendCustomNotice": always(NO_NOTICES),
        "sendTyping": WITH_SESSION,
        "sendFilteredMessage": WITH_SESSION_SHORT,
        "addPrefilter": always(),
        "updateUserData": always(),
        "poll": always(PRIVATE),
        "startPoll": WITH_SESSION_SHORT,
        "stopPoll": {**WITH_SESSION_SHORT, A: "Not currently polling. Ignoring command."},
        "resetPollExceptions": always(NO_EXCEPTIONS),
        "restore": {**only(I, E, D, otherwise=RESTORE_ACTIVE), R: ALREADY_RESTORING},
        "getTranscript": always(),
        "getAgents": always(),
        "getStats": always(),
        "sendFile": WITH_SESSION,
        "downloadFile": always(NO_DOWNLOADS),
        "getSessionData": always(),
        "fetchHistory": only(A, P, O, otherwise=ONLY_ASYNC),
        "registerTypingPreviewInput": always(),
        "registerPreProcessor": always(),
        "verifySession": always(),
    },
}  # fmt: skip

UNREACHABLE: dict[Transport, set[State]] = {Transport.V2: {D}, Transport.V3: {D}, Transport.V3_ASYNC: set()}

COMMANDS_ANYWHERE = [(transport, command) for transport, table in EXPECTED.items() for command in table]
"""Every command, on every transport."""

WORKS_UNOPENED = {
    "addPrefilter", "updateUserData", "getTranscript", "getAgents", "getStats", "getSessionData",
    "registerTypingPreviewInput", "registerPreProcessor",
}  # fmt: skip
"""Commands legal before open() and after close(): reading, filters, the two register commands and user data."""


class Input:
    type = "textarea"
    value = ""


def data_for(command: str, env, folder):
    """Return data with which only the state can make a command illegal."""
    if command == "downloadFile":
        chats = env.server.core.chats
        ids = [file.id for file in chats[-1].files.values()] if chats else []
        return {"fileId": ids[0] if ids else "none", "to": folder}
    if command == "restore" and env.transport.asynchronous:
        return {"sessionData": token_of_another_chat(env)}
    return {
        "startChat": {"nickname": "Jonny", "subject": "a question"},
        "sendMessage": {"message": "hi"},
        "sendTyping": {"message": "h"},
        "sendFilteredMessage": {"message": "secret", "regex": re.compile("^secret$")},
        "addPrefilter": {"filters": re.compile("x{9}")},
        "updateUserData": {"tier": "gold"},
        "sendFile": {"files": Paper(b"text") if env.transport.gms else Picture(b"image")},
        "registerTypingPreviewInput": {"input": Input()},
        "registerPreProcessor": {"preprocessor": lambda message: message},
    }.get(command)


def token_of_another_chat(env) -> str:
    other = env.server.client(Transport.V3_ASYNC)
    other.open()
    other.start_chat(nickname="Sue")
    return other.get_session_data().token


def with_file(into):
    """Return a function that brings a service into a state of a chat with a file of an agent."""

    def prepared_into(env, act):
        def prepared(chat):
            if chat.state.has_session:
                env.agent().send_file("a.txt", b"content")
            act(chat)

        into(env, prepared)

    return prepared_into


CELLS = [
    pytest.param(transport, command, state, id=f"{transport}-{command}-{state}")
    for transport, table in EXPECTED.items()
    for command in table
    for state in INTO[transport]
]


def compare(chat, command, data, expected):
    """Check that `explain`, `can` and `legal_commands` agree with the outcome of a command."""
    explained = chat.explain(command)
    assert (explained.legal, explained.reason) == (not expected, expected)
    assert chat.can(command) is (command in chat.legal_commands()) is explained.legal
    outcome = chat.command(command, data)
    assert (outcome.status, outcome.reason) == (("rejected", expected) if expected else ("resolved", None))


def test_expected_table_has_every_command_and_state():
    for transport, table in EXPECTED.items():
        assert list(table) == [rule.name for rule in DOCUMENTED]
        assert len(table) == 24
        assert set(INTO[transport]) == set(State) - UNREACHABLE[transport]


@pytest.mark.parametrize("transport", EXPECTED)
def test_omitted_states_are_unreachable(transport):
    assert set(State) - reachable_states(transport) == UNREACHABLE[transport]


@pytest.mark.parametrize(("transport", "command", "state"), CELLS)
def test_command_result_matches_table(env, folder, transport, command, state):
    expected, checked = EXPECTED[transport][command][state], []
    env.transport = transport

    def give(chat):
        assert chat.state == state
        compare(chat, command, data_for(command, env, folder), expected)
        checked.append(state)

    with_file(INTO[transport][state])(env, give)
    assert checked == [state]


@pytest.mark.parametrize("state", [I, P, E])
def test_command_result_on_bus_matches_table(env, folder, state):
    checked, changing = {}, {"startChat", "endChat", "stopPoll"}

    def give(chat):
        on_bus = HeardOnBus(chat)
        for command, cells in EXPECTED[Transport.V2].items():
            if command not in changing:
                outcome = on_bus.command(command, data_for(command, env, folder))
                checked[command] = (outcome.reason or OK, cells[state])

    with_file(INTO[Transport.V2][state])(env, give)
    assert len(checked) == 24 - len(changing)
    assert {command: texts for command, texts in checked.items() if texts[0] != texts[1]} == {}


@pytest.mark.parametrize("transport", EXPECTED)
def test_explain_names_the_legal_states_of_a_command(env, transport):
    env.transport = transport
    chat = env.client()
    for command, cells in EXPECTED[transport].items():
        legal = {state for state, text in cells.items() if not text} - UNREACHABLE[transport]
        assert chat.explain(command).legal_in == legal, command


@pytest.mark.parametrize(("transport", "command"), COMMANDS_ANYWHERE)
def test_command_during_end_chat_is_judged_as_after_end(env, folder, transport, command):
    """Except startChat and restore: the session that has not ended yet makes those illegal."""
    instead = {"startChat": ACTIVE_ALREADY, "restore": RESTORE_ACTIVE}
    expected, checked = instead.get(command, EXPECTED[transport][command][E]), []
    env.transport = transport

    def give(chat):
        assert chat.state == "active"
        compare(chat, command, data_for(command, env, folder), expected)
        checked.append(command)

    into_ending(env, give)
    assert checked
    assert env.chat.state == "ended"
    assert env.heard.names.count("ended") == 1


@pytest.mark.parametrize("moment", ["before open()", "after close()"])
@pytest.mark.parametrize(("transport", "command"), COMMANDS_ANYWHERE)
def test_unopened_service_accepts_only_local_commands(env, folder, transport, command, moment):
    env.transport = transport
    chat = env.client()
    if moment == "after close()":
        chat.open()
        chat.start_chat(nickname="Jonny")
        chat.close()
    expected = OK if command in WORKS_UNOPENED else "WebChatService is not ready"
    compare(chat, command, data_for(command, env, folder), expected)
    dormant = transport.asynchronous and moment == "after close()"
    assert chat.state == ("async-dormant" if dormant else "idle")


def test_rejection_names_command_state_and_legal_states(env):
    chat = env.open()
    with pytest.raises(Exception, match=r"^endChat rejected in state idle: There is no active chat session;") as caught:
        chat.end_chat()
    rejected = caught.value
    assert (rejected.command, rejected.reason, rejected.state) == ("endChat", NO_SESSION, "idle")
    assert rejected.legal_in == {A, P, O}
    assert rejected.response is None
    assert "legal in: active, offline, polling" in str(rejected)


def test_unknown_command_raises_and_names_the_nearest(env):
    chat = env.open()
    with pytest.raises(ValueError, match="there is no command 'startchat'; did you mean 'startChat'"):
        chat.command("startchat")
    with pytest.raises(ValueError, match=r"there is no command 'dance'$"):
        chat.can("dance")


@pytest.mark.parametrize("text", ["", "   ", "\n\t", None, 5])
@pytest.mark.parametrize("command", ["sendMessage", "sendFilteredMessage"])
def test_send_without_text_is_rejected_before_state_check(env, command, text):
    outcome = env.open().command(command, {"message": text, "regex": re.compile("x")})
    assert outcome.reason == "No message text provided"
    env.chat.start_chat(nickname="Jonny")
    assert env.chat.command(command, {"message": text, "regex": re.compile("x")}).reason == "No message text provided"


def test_too_long_text_is_rejected_after_state_check(env):
    chat = env.open(maxMessageLength=5)
    assert chat.command("sendMessage", {"message": "123456"}).reason == NO_SESSION
    chat.start_chat(nickname="Jonny")
    too_long = "Message length exceeds configured threshold of (5) characters"
    assert chat.command("sendMessage", {"message": "123456"}).reason == too_long
    assert chat.command("sendFilteredMessage", {"message": "123456", "regex": re.compile("6")}).reason == too_long
    assert chat.command("sendMessage", {"message": "12345"})


MALFORMED = "malformed data object provided in userData property"
BAD_FILTERS = (
    "Missing or invalid filters provided. Please provide a regular expression or an array of regular expressions."
)
BAD_INPUT = (
    "Invalid value provided for the 'input' property. "
    "An HTML element reference to a textarea or text input is required."
)
ARGUMENTS = [
    ("startChat", {"userData": "gold"}, MALFORMED),
    ("startChat", {"userData": ["gold"]}, MALFORMED),
    ("addPrefilter", {}, BAD_FILTERS),
    ("addPrefilter", {"filters": []}, BAD_FILTERS),
    ("addPrefilter", {"filters": "x"}, BAD_FILTERS),
    ("addPrefilter", {"filters": [re.compile("a"), "b"]}, BAD_FILTERS),
    ("addPrefilter", {"filters": re.compile(b"x")}, BAD_FILTERS),
    ("registerTypingPreviewInput", {}, BAD_INPUT),
    ("registerTypingPreviewInput", {"input": object()}, BAD_INPUT),
    ("registerPreProcessor", {"preprocessor": "strip"}, "No preprocessor function provided. Type provided was 'str'."),
    ("registerPreProcessor", {}, "No preprocessor function provided. Type provided was 'NoneType'."),
]  # fmt: skip


@pytest.mark.parametrize(("command", "data", "text"), ARGUMENTS)
def test_invalid_argument_is_rejected_with_documented_text(env, command, data, text):
    assert env.open().command(command, data).reason == text
    assert env.chat.state == "idle"


def test_state_is_checked_before_arguments(env):
    assert env.start().command("startChat", {"userData": "gold"}).reason == ACTIVE_ALREADY
    bad = {"message": "x", "regex": "x"}
    assert "Missing or invalid filters" in env.chat.command("sendFilteredMessage", bad).reason
    env.chat.end_chat()
    assert env.chat.command("sendFilteredMessage", bad).reason == NO_SESSION_SHORT
