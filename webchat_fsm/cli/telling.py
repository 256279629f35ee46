"""What an event is called when it is told: as a JSON record with its secrets masked, or as lines for people to read.

Everything here is pure. Text from the network is made printable first: a chat partner must not steer the terminal.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from webchat_fsm.errors import CommandRejected
from webchat_fsm.lifecycle.encoding import jsonable
from webchat_fsm.lifecycle.events import (
    TYPING,
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
)
from webchat_fsm.lifecycle.table import State, Transport, Trigger
from webchat_fsm.lifecycle.words import MASK, Json, Message, Response
from webchat_fsm.runtime.delivery import AnyEvent

SECRET_KEYS = frozenset({"securekey", "token", "apikey", "xapikey", "authorization", "cookie", "setcookie"})
"""Keys whose whole value is masked wherever it stands, compared without case, hyphens and underscores."""

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Line(NamedTuple):
    """One line for people: `kind` says how it looks (agent, customer, other, notice, trouble), `who` speaks."""

    kind: str
    text: str
    who: str = ""


def printable(text: object) -> str:
    """A text in one line without control characters, which are spelt out."""
    return "".join(_spelt(letter) for letter in str(text))


def _spelt(letter: str) -> str:
    if letter == "\n":
        return " / "
    return f"\\u{ord(letter):04x}" if unicodedata.category(letter) in _UNPRINTABLE else letter


def masked(value: Any) -> Any:
    """A JSON value without what could be used to enter the session."""
    if isinstance(value, Mapping):
        return {key: MASK if inner and _secret(key) else masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value


def _secret(key: object) -> bool:
    return str(key).lower().replace("-", "").replace("_", "") in SECRET_KEYS


def event_record(event: AnyEvent, transport: Transport) -> Json:
    """An event for machines: its bare name, its documented data (masked), its seconds since the epoch."""
    data = {} if event.data is None else event.data.item(transport)
    return {"event": event.name, "data": masked(data), "time": round(event.time, 3)}


def step_record(step: tuple[State, Trigger, State], time: float) -> Json:
    """A transition for machines, with its seconds since the epoch."""
    source, trigger, dest = step
    return {"transition": trigger.value, "from": source.value, "to": dest.value, "time": round(time, 3)}


def as_json(record: Json) -> str:
    """A record in one line of ASCII."""
    return json.dumps(jsonable(record))


# -- for people ----------------------------------------------------------------------------------------------------

KINDS = {"Client": "customer", "Agent": "agent", "Supervisor": "agent"}
SILENT = frozenset(TYPING)
FORETOLD = SILENT | {"ParticipantJoined", "ParticipantLeft"}

NOTICES: dict[str, tuple[str, str]] = {
    "restored": ("notice", "The chat goes on where it was left."),
    "restoreTimeout": ("notice", "The saved chat is over."),
    "restoreFailed": ("trouble", "The saved chat could not be taken up"),
    "restoredOffline": ("trouble", "The chat server is offline; waiting for it."),
    "disconnected": ("trouble", "The connection is lost; trying again."),
    "reconnected": ("notice", "The connection is back."),
    "connectionPending": ("trouble", "The chat server does not answer as it should; trying again."),
    "connectionRestored": ("notice", "The chat server answers as it should."),
    "chatServerWentOffline": ("trouble", "The chat server is offline."),
    "chatServerBackOnline": ("notice", "The chat server is back online."),
    "error": ("trouble", "The chat server answered badly"),
    "ended": ("notice", "The chat is over."),
}
"""What a user is told of the events that are no messages; the others show in what they bring."""


MAY_BE_MISSING = "messages may be missing"


def told(event: AnyEvent) -> Iterator[Line]:
    """An event for somebody who chats: who said, joined, sent what, and how the connection fares."""
    if isinstance(event.data, MessageReceived):
        for message in event.data.messages:
            if message.type not in SILENT:
                yield said(message)
    elif event.name in NOTICES:
        kind, text = NOTICES[event.name]
        if isinstance(event.data, Restored) and event.data.missing != 0:
            yield Line("trouble", "Messages from while you were away may be missing.")
        cause = _response(event.data)
        if cause is not None and not cause.status:  # nothing was answered: the text of the fault says it all
            yield Line(kind, f"{fault(cause)}.")
        else:
            yield Line(kind, f"{text}: {fault(cause)}." if cause else text if text.endswith(".") else f"{text}.")


def said(message: Message) -> Line:
    """One message of the transcript."""
    sender, text = message.sender, printable(message.text)
    name = printable(sender.name) or sender.type or "somebody"
    told_of = _TOLD.get(message.type)
    if told_of is not None:
        return Line("notice", told_of.format(name=name, role=sender.type.lower(), text=text, file=_file(message)))
    return Line(KINDS.get(sender.type, "other"), text or f"({printable(message.type)})", name)


_TOLD = {
    "ParticipantJoined": "{name} ({role}) has joined.",
    "ParticipantLeft": "{name} ({role}) has left.",
    "PushUrl": "{name} suggests this page: {text}",
    "FileUploaded": "{name} sent the file {file}",
    "FileDeleted": "{name} took the file {file} back",
    "NicknameUpdated": "{name} has a new name: {text}",
    "IdleAlert": "{text}",
    "IdleClose": "{text}",
}


def _file(message: Message) -> str:
    """Name, size and id of a file; its id is what /save takes."""
    details = message.file_details or {}
    name = printable(details.get("file-name") or message.text or "(no name)")
    size = details.get("file-size")
    measured = f" ({size} bytes)" if isinstance(size, int) or str(size).isdecimal() else ""
    identity = details.get("file-id")
    return f"{name}{measured}{f', id {printable(identity)}' if identity else ''}"


def _response(data: object) -> Response | None:
    return data.response if isinstance(data, Failure | RestoreFailed) else None


def fault(response: Response) -> str:
    """What was wrong with an answer, in a few words."""
    told_by_server = list(filter(None, map(_advice, response.errors)))
    if told_by_server and 200 <= response.status < 300:
        return ", ".join(told_by_server)
    status = f"HTTP status {response.status}" if response.status else "no complete answer"
    return ", ".join([status, *told_by_server])


def _advice(error: object) -> str:
    if not isinstance(error, Mapping):
        return printable(error)
    return printable(error.get("advice") or error.get("text") or error.get("message") or error.get("code") or "")


def rejection(error: CommandRejected) -> str:
    """Why a command was refused, with what the server said of it, or the states in which it would be legal."""
    told_by_server = [_advice(one) for one in error.response.errors] if error.response else []
    if advice := [text for text in told_by_server if text and text not in error.reason]:
        return f"{printable(error.reason)}: {', '.join(advice)}"
    legal = ", ".join(sorted(error.legal_in))
    return f"{printable(error.reason)}{f' (legal in: {legal})' if legal and error.state not in error.legal_in else ''}"


def details(event: AnyEvent) -> tuple[str, ...]:
    """What an event carries, for somebody who watches all events.

    A line for each message, and none for those whose own event has just told the same.
    """
    data = event.data
    if isinstance(data, MessageReceived):
        return tuple(_entry(said(message)) for message in data.messages if message.type not in FORETOLD)
    if isinstance(data, ParticipantChanged):
        return (_who(data.message) or f"agents connected: {data.num_agents_connected}",)
    if isinstance(data, AgentTyping):
        return (_who(data.message),)
    if isinstance(data, Restored):
        lacking = "" if data.missing == 0 else MAY_BE_MISSING if data.missing is None else f"{data.missing} missing"
        return tuple(part for part in ("asynchronous" if data.is_async else "", lacking) if part) or ("",)
    response = _response(data)
    return ("" if response is None else fault(response),)


def _who(message: Message | None) -> str:
    return "" if message is None else printable(message.sender.name)


def _entry(line: Line) -> str:
    return f"{line.who}: {line.text}" if line.who else line.text
