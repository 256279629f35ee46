"""The 24 commands of the reference: where each is legal, and the literal texts with which it is refused.

One order of checks: capability, access, state, arguments, network. Two exceptions stand by name in their rules:
`restore` checks its states before access, and the two sends check for text before the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from webchat_fsm.lifecycle._states import HAS_SESSION, State
from webchat_fsm.lifecycle._table import Flag, reachable
from webchat_fsm.lifecycle._transports import Transport


class By(StrEnum):
    """The giver of a command: the service itself may do more than its user."""

    USER = "user"
    SERVICE = "service"


# Texts of the reference are literal, also in their spelling: applications compare them.
NOT_READY = "WebChatService is not ready"
NO_TEXT = "No message text provided"
NO_SESSION = "There is no active chat session"
NO_SESSION_SHORT = "No active chat session"
ALREADY_ACTIVE = "There is already an active chat session"
MALFORMED_USER_DATA = "malformed data object provided in userData property"
TOO_LONG = "Message length exceeds configured threshold of ({limit}) characters"
BAD_FILTERS = (
    "Missing or invalid filters provided. Please provide a regular expression or an array of regular expressions."
)
BAD_INPUT = (
    "Invalid value provided for the 'input' property. "
    "An HTML element reference to a textarea or text input is required."
)
NO_PREPROCESSOR = "No preprocessor function provided. Type provided was '{type}'."
PRIVATE = "Access Denied to private command. Only WebChatService is allowed to invoke this command."
PRIVATE_RESTORE = (
    "Access Denied to private command. Only WebChatService is allowed to invoke this command in Non-Async mode."
)
ALREADY_RESTORING = "Already restoring. Ignoring request."
RESTORE_ACTIVE = "Chat session is already active, ignoring restore command."
NOTHING_SAVED = "No chat session found to restore."
POLL_IN_FLIGHT = "previous poll has not finished."
NOT_POLLING = "Not currently polling. Ignoring command."
ONLY_ASYNC = "Fetching history messages applies only to Asynchronous chat"
NO_MORE_HISTORY = "No more messages to fetch"
NO_FILES = "No files provided"
FOREIGN_CONTENT = "This content is on another server, which must not get the session's token"
NO_FILE_ID = "No file id provided"
# What follows is ours: the reference has no text for it.
CLOSED_MEANWHILE = "WebChatService was closed before the server answered"
FORBIDDEN = (
    "Not sent: the gateway forbids to reconnect (advice reconnect none). Give endChat, or close and open the service"
)
NO_CHAT_BEGAN = "The server's answer to the start says that the chat is over, or does not identify it"
OVER_MEANWHILE = "The chat was over before all files were sent"

ALWAYS = frozenset(State)
OUTSIDE = frozenset({State.IDLE, State.ENDED})


class Rule(Struct, frozen=True):
    """The rule of one command.

    `refusal` is the text in the states that are not legal, `refusals` the exceptions to it; `unsupported` the texts of
    transports that cannot do it; `access` the text for a user where only the service may (on the transports of
    `private`); `state_first` puts the state before access, `any_time` lets it work before open() and after close();
    `text_first` has a missing text of the message refused before anything else.
    """

    name: str
    legal: frozenset[State]
    refusal: str = ""
    refusals: Mapping[State, str] = {}
    unsupported: Mapping[Transport, str] = {}
    access: str = ""
    private: frozenset[Transport] = frozenset(Transport)
    state_first: bool = False
    any_time: bool = False
    text_first: bool = False
    extra: bool = False

    @property
    def method(self) -> str:
        """Return the snake_case name of the Python method."""
        return "".join("_" + letter.lower() if letter.isupper() else letter for letter in self.name)

    @property
    def begins(self) -> bool:
        """True where it begins a session, or resumes a saved one."""
        return State.ENDED in self.legal and self.legal != ALWAYS

    def refuse(self, state: State, transport: Transport, by: By = By.USER) -> str:
        """Return the literal text of the refusal, or an empty one where the command is legal."""
        # capability first: what a transport cannot do it cannot do in any state, for anyone
        if text := self.unsupported.get(transport):
            return text
        denied = self.access if by is By.USER and transport in self.private else ""
        illegal = "" if state in self.legal else self.refusals.get(state, self.refusal)
        return (illegal or denied) if self.state_first else (denied or illegal)

    def legal_in(self, transport: Transport) -> frozenset[State]:
        """Return the reachable states in which a user may give it."""
        return frozenset(state for state in reachable(transport) if not self.refuse(state, transport))


def _no(text: str, *transports: Transport) -> dict[Transport, str]:
    return dict.fromkeys(transports, text)


_COMETD, _GMS, _NEXUS = Transport.COMETD, (Transport.V2, Transport.COMETD), (Transport.V3, Transport.V3_ASYNC)
_CANNOT = "This transport doesn't support "

# One rule is one call on a line or two: the formatter would give each argument a line of its own.
# fmt: off
# `any_time`: only this side's own data. `verifySession` is not, as it asks for what open() has read from the store.
CONFIGURE = Rule("configure", ALWAYS, access=PRIVATE)
START_CHAT = Rule("startChat", OUTSIDE, ALREADY_ACTIVE)
END_CHAT = Rule("endChat", HAS_SESSION | {State.DORMANT}, NO_SESSION)
SEND_MESSAGE = Rule("sendMessage", HAS_SESSION, NO_SESSION, text_first=True)
SEND_CUSTOM_NOTICE = Rule("sendCustomNotice", HAS_SESSION, NO_SESSION,
    unsupported=_no(_CANNOT + "sendCustomNotice command.", *_NEXUS))
SEND_TYPING = Rule("sendTyping", HAS_SESSION, NO_SESSION)
SEND_FILTERED_MESSAGE = Rule("sendFilteredMessage", HAS_SESSION, NO_SESSION_SHORT, text_first=True)
ADD_PREFILTER = Rule("addPrefilter", ALWAYS, any_time=True)
UPDATE_USER_DATA = Rule("updateUserData", ALWAYS, any_time=True)
# "polling." and "polling": the reference's own texts differ by the full stop
POLL = Rule("poll", HAS_SESSION, NO_SESSION_SHORT, unsupported=_no(_CANNOT + "polling.", _COMETD), access=PRIVATE)
START_POLL = Rule("startPoll", HAS_SESSION, NO_SESSION_SHORT, unsupported=_no(_CANNOT + "polling", _COMETD))
STOP_POLL = Rule("stopPoll", HAS_SESSION - {State.ACTIVE}, NO_SESSION_SHORT, {State.ACTIVE: NOT_POLLING},
    unsupported=_no(_CANNOT + "polling", _COMETD))
RESET_POLL_EXCEPTIONS = Rule("resetPollExceptions", ALWAYS,
    unsupported=_no(_CANNOT + "resetPollExceptions command.", _COMETD, *_NEXUS))
# only an asynchronous chat is restored by its user: any other one is by open(), within restoreTimeout
RESTORE = Rule("restore", OUTSIDE | {State.DORMANT}, RESTORE_ACTIVE, {State.RESTORING: ALREADY_RESTORING},
    access=PRIVATE_RESTORE, private=frozenset(Transport) - {Transport.V3_ASYNC}, state_first=True)
GET_TRANSCRIPT = Rule("getTranscript", ALWAYS, any_time=True)
GET_AGENTS = Rule("getAgents", ALWAYS, any_time=True)
GET_STATS = Rule("getStats", ALWAYS, any_time=True)
SEND_FILE = Rule("sendFile", HAS_SESSION, NO_SESSION)
DOWNLOAD_FILE = Rule("downloadFile", HAS_SESSION, NO_SESSION, unsupported=_no(_CANNOT + "file download.", *_NEXUS))
GET_SESSION_DATA = Rule("getSessionData", ALWAYS, any_time=True)
# one text for both: no session, and a transport that is not asynchronous
FETCH_HISTORY = Rule("fetchHistory", HAS_SESSION, ONLY_ASYNC,
    unsupported=_no(ONLY_ASYNC, *(set(Transport) - {Transport.V3_ASYNC})))
REGISTER_TYPING_PREVIEW_INPUT = Rule("registerTypingPreviewInput", ALWAYS, any_time=True)
REGISTER_PRE_PROCESSOR = Rule("registerPreProcessor", ALWAYS, any_time=True)
VERIFY_SESSION = Rule("verifySession", ALWAYS)
# these two are ours: `extra` keeps them out of the documented table
GET_FILE_LIMITS = Rule("getFileLimits", HAS_SESSION, NO_SESSION, extra=True,
    unsupported=_no(_CANNOT + "getFileLimits command.", *_NEXUS))
FETCH = Rule("fetch", HAS_SESSION, NO_SESSION, extra=True, unsupported=_no(_CANNOT + "fetching content.", *_GMS))
# fmt: on

COMMANDS: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        CONFIGURE,
        START_CHAT,
        END_CHAT,
        SEND_MESSAGE,
        SEND_CUSTOM_NOTICE,
        SEND_TYPING,
        SEND_FILTERED_MESSAGE,
        ADD_PREFILTER,
        UPDATE_USER_DATA,
        POLL,
        START_POLL,
        STOP_POLL,
        RESET_POLL_EXCEPTIONS,
        RESTORE,
        GET_TRANSCRIPT,
        GET_AGENTS,
        GET_STATS,
        SEND_FILE,
        DOWNLOAD_FILE,
        GET_SESSION_DATA,
        FETCH_HISTORY,
        REGISTER_TYPING_PREVIEW_INPUT,
        REGISTER_PRE_PROCESSOR,
        VERIFY_SESSION,
        GET_FILE_LIMITS,
        FETCH,
    )
}
"""The rule of each command by its name: the 24 of the reference, and two of this library, marked `extra`."""

DOCUMENTED = tuple(rule for rule in COMMANDS.values() if not rule.extra)


def judged_state(rule: Rule, state: State, flags: frozenset[Flag]) -> State:
    """Return the state that decides on a command: while endChat is in flight, as if the chat were over already.

    A command that would begin a chat (startChat, restore) is decided as in a session.
    """
    if Flag.ENDING not in flags:
        return state
    # a second chat must not begin before the first has ended, as both would have the one session
    return State.ACTIVE if rule.begins else State.ENDED


class Cell(Struct, frozen=True):
    """One cell of the legality table: a user's command in a state on a transport."""

    command: str
    state: State
    transport: Transport
    legal: bool
    reason: str
    reachable: bool


def legality(transport: Transport) -> tuple[Cell, ...]:
    """Return the cells of one transport: 24 commands by 8 states, commands in the reference's order.

    Raises ValueError for an unknown transport.
    """
    transport = Transport(transport)  # a plain text too, such as "v2"
    within = reachable(transport)
    return tuple(
        Cell(rule.name, state, transport, not (reason := rule.refuse(state, transport)), reason, state in within)
        for rule in DOCUMENTED
        for state in State
    )
