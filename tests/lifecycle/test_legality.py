"""The legality table, cell by cell, as a user meets it: every command in every state that can be reached.

The expectation is typed from the reference and the lifecycle, not read from the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from tests.lifecycle.reach import breadth_first
from tests.lifecycle.stage import INTO, HeardOnBus, Paper, Picture, into_ending
from webchat_fsm import State
from webchat_fsm.lifecycle.commands import DOCUMENTED
from webchat_fsm.lifecycle.table import Transport

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
"""What works before open() and after close(): reading, filters, the two register commands and user data."""


class Input:
    type = "textarea"
    value = ""


def data_for(command: str, stage, folder):
    """Data with which nothing but the state can stand in the way of a command."""
    if command == "downloadFile":
        chats = stage.server.core.chats
        ids = [file.id for file in chats[-1].files.values()] if chats else []
        return {"fileId": ids[0] if ids else "none", "to": folder}
    if command == "restore" and stage.transport.asynchronous:
        return {"sessionData": token_of_another_chat(stage)}
    return {
        "startChat": {"nickname": "Jonny", "subject": "a question"},
        "sendMessage": {"message": "hi"},
        "sendTyping": {"message": "h"},
        "sendFilteredMessage": {"message": "secret", "regex": re.compile("^secret$")},
        "addPrefilter": {"filters": re.compile("x{9}")},
        "updateUserData": {"tier": "gold"},
        "sendFile": {"files": Paper(b"text") if stage.transport.gms else Picture(b"image")},
        "registerTypingPreviewInput": {"input": Input()},
        "registerPreProcessor": {"preprocessor": lambda message: message},
    }.get(command)


def token_of_another_chat(stage) -> str:
    other = stage.server.client(Transport.V3_ASYNC)
    other.open()
    other.start_chat(nickname="Sue")
    return other.get_session_data().token


def with_file(into):
    """Lead a service into a state of a chat in which an agent has left a file."""

    def led(stage, act):
        def prepared(chat):
            if chat.state.has_session:
                stage.agent().send_file("a.txt", b"content")
            act(chat)

        into(stage, prepared)

    return led


CELLS = [
    pytest.param(transport, command, state, id=f"{transport}-{command}-{state}")
    for transport, table in EXPECTED.items()
    for command in table
    for state in INTO[transport]
]


def compare(chat, command, data, expected):
    """Ask first, then try: what is foretold must be what happens."""
    foretold = chat.explain(command)
    assert (foretold.legal, foretold.reason) == (not expected, expected)
    assert chat.can(command) is (command in chat.legal_commands()) is foretold.legal
    outcome = chat.command(command, data)
    assert (outcome.status, outcome.reason) == (("rejected", expected) if expected else ("resolved", None))


def test_the_expectation_has_a_cell_for_every_documented_command_and_state():
    for transport, table in EXPECTED.items():
        assert list(table) == [rule.name for rule in DOCUMENTED]
        assert len(table) == 24
        assert set(INTO[transport]) == set(State) - UNREACHABLE[transport]


@pytest.mark.parametrize("transport", EXPECTED)
def test_the_cells_left_out_cannot_be_reached(transport):
    assert set(State) - breadth_first(transport) == UNREACHABLE[transport]


@pytest.mark.parametrize(("transport", "command", "state"), CELLS)
def test_a_command_does_what_the_table_says(stage, tmp_path, transport, command, state):
    expected, told = EXPECTED[transport][command][state], []
    stage.transport = transport

    def give(chat):
        assert chat.state == state
        compare(chat, command, data_for(command, stage, tmp_path), expected)
        told.append(state)

    with_file(INTO[transport][state])(stage, give)
    assert told == [state]


@pytest.mark.parametrize("state", [I, P, E])
def test_the_bus_gives_the_same_answers(stage, tmp_path, state):
    told, changing = {}, {"startChat", "endChat", "stopPoll"}

    def give(chat):
        on_bus = HeardOnBus(chat)
        for command, cells in EXPECTED[Transport.V2].items():
            if command not in changing:
                outcome = on_bus.command(command, data_for(command, stage, tmp_path))
                told[command] = (outcome.reason or OK, cells[state])

    with_file(INTO[Transport.V2][state])(stage, give)
    assert len(told) == 24 - len(changing)
    assert {command: texts for command, texts in told.items() if texts[0] != texts[1]} == {}


@pytest.mark.parametrize("transport", EXPECTED)
def test_explain_names_the_states_in_which_a_command_would_be_legal(stage, transport):
    stage.transport = transport
    chat = stage.client()
    for command, cells in EXPECTED[transport].items():
        legal = {state for state, text in cells.items() if not text} - UNREACHABLE[transport]
        assert chat.explain(command).legal_in == legal, command


@pytest.mark.parametrize(("transport", "command"), COMMANDS_ANYWHERE)
def test_while_the_end_is_in_flight_commands_answer_as_in_an_ended_chat(stage, tmp_path, transport, command):
    """But startChat, and restore which begins something too, are judged by the session that is still there."""
    instead = {"startChat": ACTIVE_ALREADY, "restore": RESTORE_ACTIVE}
    expected, told = instead.get(command, EXPECTED[transport][command][E]), []
    stage.transport = transport

    def give(chat):
        assert chat.state == "active"
        compare(chat, command, data_for(command, stage, tmp_path), expected)
        told.append(command)

    into_ending(stage, give)
    assert told
    assert stage.chat.state == "ended"
    assert stage.heard.names.count("ended") == 1


@pytest.mark.parametrize("moment", ["before open()", "after close()"])
@pytest.mark.parametrize(("transport", "command"), COMMANDS_ANYWHERE)
def test_a_service_that_is_not_open_takes_what_needs_no_server(stage, tmp_path, transport, command, moment):
    stage.transport = transport
    chat = stage.client()
    if moment == "after close()":
        chat.open()
        chat.start_chat(nickname="Jonny")
        chat.close()
    expected = OK if command in WORKS_UNOPENED else "WebChatService is not ready"
    compare(chat, command, data_for(command, stage, tmp_path), expected)
    dormant = transport.asynchronous and moment == "after close()"
    assert chat.state == ("async-dormant" if dormant else "idle")


def test_a_rejection_on_the_python_face_says_what_and_where_and_where_it_would_do(stage):
    chat = stage.open()
    with pytest.raises(Exception, match=r"^endChat rejected in state idle: There is no active chat session;") as caught:
        chat.end_chat()
    rejected = caught.value
    assert (rejected.command, rejected.reason, rejected.state) == ("endChat", NO_SESSION, "idle")
    assert rejected.legal_in == {A, P, O}
    assert rejected.response is None
    assert "legal in: active, offline, polling" in str(rejected)


def test_an_unknown_command_is_an_error_that_names_the_nearest(stage):
    chat = stage.open()
    with pytest.raises(ValueError, match="there is no command 'startchat'; did you mean 'startChat'"):
        chat.command("startchat")
    with pytest.raises(ValueError, match=r"there is no command 'dance'$"):
        chat.can("dance")


@pytest.mark.parametrize("text", ["", "   ", "\n\t", None, 5])
@pytest.mark.parametrize("command", ["sendMessage", "sendFilteredMessage"])
def test_a_send_without_text_is_told_so_before_the_state_is_looked_at(stage, command, text):
    outcome = stage.open().command(command, {"message": text, "regex": re.compile("x")})
    assert outcome.reason == "No message text provided"
    stage.chat.start_chat(nickname="Jonny")
    assert stage.chat.command(command, {"message": text, "regex": re.compile("x")}).reason == "No message text provided"


def test_a_text_over_the_limit_is_told_its_length_after_the_state(stage):
    chat = stage.open(maxMessageLength=5)
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
def test_arguments_that_do_not_fit_are_told_in_the_words_of_the_reference(stage, command, data, text):
    assert stage.open().command(command, data).reason == text
    assert stage.chat.state == "idle"


def test_the_state_is_looked_at_before_the_arguments(stage):
    assert stage.start().command("startChat", {"userData": "gold"}).reason == ACTIVE_ALREADY
    bad = {"message": "x", "regex": "x"}
    assert "Missing or invalid filters" in stage.chat.command("sendFilteredMessage", bad).reason
    stage.chat.end_chat()
    assert stage.chat.command("sendFilteredMessage", bad).reason == NO_SESSION_SHORT
