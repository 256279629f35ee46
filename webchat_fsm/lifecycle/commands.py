"""The 24 commands of the reference: where each is legal, and the literal texts with which it is refused.

One order of checks: capability, access, state, arguments, network. Two exceptions stand by name in their rules:
`restore` checks its states before access, and the two sends check for text before the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from webchat_fsm.lifecycle.table import HAS_SESSION, Flag, State, Transport, reachable


class By(StrEnum):
    """Who gives a command: the service itself may do more than its user."""

    USER = "user"
    SERVICE = "service"


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
POLL_OUT = "previous poll has not finished."
NOT_POLLING = "Not currently polling. Ignoring command."
ONLY_ASYNC = "Fetching history messages applies only to Asynchronous chat"
NO_MORE_HISTORY = "No more messages to fetch"
NO_FILES = "No files provided"
FOREIGN_CONTENT = "This content is on another server, which must not get the session's token"
NO_FILE_ID = "No file id provided"
CLOSED_MEANWHILE = "WebChatService was closed before the server answered"
FORBIDDEN = (
    "Not sent: the gateway forbids to reconnect (advice reconnect none). Give endChat, or close and open the service"
)
NO_CHAT_BEGAN = "The server's answer to the start says that the chat is over, or does not identify it"
OVER_MEANWHILE = "The chat was over before all files were sent"

ALWAYS = frozenset(State)
OUTSIDE = frozenset({State.IDLE, State.ENDED})


class Rule(NamedTuple):
    """What the table says of one command.

    `refusal` is the text in the states that are not legal, `refusals` the exceptions to it; `unsupported` the texts of
    transports that cannot do it; `access` the text for a user where only the service may (on the transports of
    `private`); `state_first` puts the state before access, `any_time` lets it work before open() and after close().
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
    extra: bool = False

    @property
    def method(self) -> str:
        """The snake_case name on the Python face."""
        return "".join("_" + letter.lower() if letter.isupper() else letter for letter in self.name)

    def refuse(self, state: State, transport: Transport, by: By = By.USER) -> str:
        """The literal text of the refusal, or an empty one where the command is legal."""
        if text := self.unsupported.get(transport):
            return text
        denied = self.access if by is By.USER and transport in self.private else ""
        illegal = "" if state in self.legal else self.refusals.get(state, self.refusal)
        return (illegal or denied) if self.state_first else (denied or illegal)

    def legal_in(self, transport: Transport) -> frozenset[State]:
        """The reachable states in which a user may give it."""
        return frozenset(state for state in reachable(transport) if not self.refuse(state, transport))


def _no(text: str, *transports: Transport) -> dict[Transport, str]:
    return dict.fromkeys(transports, text)


_COMETD, _GMS, _NEXUS = Transport.COMETD, (Transport.V2, Transport.COMETD), (Transport.V3, Transport.V3_ASYNC)
_CANNOT = "This transport doesn't support "

# fmt: off
COMMANDS: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("configure", ALWAYS, access=PRIVATE),
        Rule("startChat", OUTSIDE, ALREADY_ACTIVE),
        Rule("endChat", HAS_SESSION | {State.DORMANT}, NO_SESSION),
        Rule("sendMessage", HAS_SESSION, NO_SESSION),
        Rule("sendCustomNotice", HAS_SESSION, NO_SESSION,
             unsupported=_no(_CANNOT + "sendCustomNotice command.", *_NEXUS)),
        Rule("sendTyping", HAS_SESSION, NO_SESSION),
        Rule("sendFilteredMessage", HAS_SESSION, NO_SESSION_SHORT),
        Rule("addPrefilter", ALWAYS, any_time=True),
        Rule("updateUserData", ALWAYS, any_time=True),
        Rule("poll", HAS_SESSION, NO_SESSION_SHORT, unsupported=_no(_CANNOT + "polling.", _COMETD), access=PRIVATE),
        Rule("startPoll", HAS_SESSION, NO_SESSION_SHORT, unsupported=_no(_CANNOT + "polling", _COMETD)),
        Rule("stopPoll", HAS_SESSION - {State.ACTIVE}, NO_SESSION_SHORT, {State.ACTIVE: NOT_POLLING},
             unsupported=_no(_CANNOT + "polling", _COMETD)),
        Rule("resetPollExceptions", ALWAYS,
             unsupported=_no(_CANNOT + "resetPollExceptions command.", _COMETD, *_NEXUS)),
        Rule("restore", OUTSIDE | {State.DORMANT}, RESTORE_ACTIVE, {State.RESTORING: ALREADY_RESTORING},
             access=PRIVATE_RESTORE, private=frozenset(Transport) - {Transport.V3_ASYNC}, state_first=True),
        Rule("getTranscript", ALWAYS, any_time=True),
        Rule("getAgents", ALWAYS, any_time=True),
        Rule("getStats", ALWAYS, any_time=True),
        Rule("sendFile", HAS_SESSION, NO_SESSION),
        Rule("downloadFile", HAS_SESSION, NO_SESSION, unsupported=_no(_CANNOT + "file download.", *_NEXUS)),
        Rule("getSessionData", ALWAYS, any_time=True),
        Rule("fetchHistory", HAS_SESSION, ONLY_ASYNC,
             unsupported=_no(ONLY_ASYNC, *(set(Transport) - {Transport.V3_ASYNC}))),
        Rule("registerTypingPreviewInput", ALWAYS, any_time=True),
        Rule("registerPreProcessor", ALWAYS, any_time=True),
        Rule("verifySession", ALWAYS),
        Rule("getFileLimits", HAS_SESSION, NO_SESSION, extra=True,
             unsupported=_no(_CANNOT + "getFileLimits command.", *_NEXUS)),
        Rule("fetch", HAS_SESSION, NO_SESSION, extra=True, unsupported=_no(_CANNOT + "fetching content.", *_GMS)),
    )
}
# fmt: on
"""Every command by its documented name; `extra` marks those that are no part of the reference."""

DOCUMENTED = tuple(rule for rule in COMMANDS.values() if not rule.extra)


def judged_state(rule: Rule, state: State, flags: frozenset[Flag]) -> State:
    """The state that a command is judged by: while endChat is in flight, as if it were over already.

    A command that would begin something anew (startChat, restore) is judged as in a session.
    """
    if Flag.ENDING not in flags:
        return state
    begins = State.ENDED in rule.legal and rule.legal != ALWAYS
    return State.ACTIVE if begins else State.ENDED


class Cell(NamedTuple):
    """One cell of the legality table: a user's command in a state on a transport."""

    command: str
    state: State
    transport: Transport
    legal: bool
    reason: str
    reachable: bool


def legality(transport: Transport) -> tuple[Cell, ...]:
    """The cells of one transport: 24 commands by 8 states, commands in the reference's order."""
    within = reachable(transport)
    return tuple(
        Cell(rule.name, state, transport, not (reason := rule.refuse(state, transport)), reason, state in within)
        for rule in DOCUMENTED
        for state in State
    )
