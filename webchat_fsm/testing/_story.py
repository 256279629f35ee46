"""A recording as text to read: a line for each input, its consequences below it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from webchat_fsm._json import REFUSED
from webchat_fsm._model import Json
from webchat_fsm.testing._recording import Recording

# Control, format, surrogate and separator characters: text from the network must not control a terminal.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def story(recording: Recording) -> Iterator[str]:
    """Yield the story line by line; times are seconds since the first step."""
    # A recording may consist of its head alone.
    started = next((line["time"] for line in recording.lines), 0.0)
    yield f"A chat over {recording.transport}, recorded from {started:.3f} s since the epoch"
    for line in recording.lines:
        yield f"{line['time'] - started:10.3f}  {heading(line)}"
        yield from (f"{'':12}  {came}" for came in _consequences(line))


def heading(line: Json) -> str:
    """Describe the input or request of a line; "?" for a line of an unknown kind."""
    return next((text(line) for key, text in _HEADINGS.items() if key in line), "?")


def printable(text: object) -> str:
    """Return a text in one line; control characters are written as escapes."""
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in _UNPRINTABLE else character
        for character in str(text)
    )


def _command(line: Json) -> str:
    given = printable(_arguments_text(line["data"]))
    return f"{'the user' if line['by'] == 'user' else 'the service'} gives {line['command']}{given and f' {given}'}"


def _answered(line: Json) -> str:
    if "fault" in line:
        return f"no answer: {printable(line['fault'])}"
    return f"an answer comes: HTTP {line['status']}" if "status" in line else "the file cannot be read"


_HEADINGS: dict[str, Callable[[Json], str]] = {
    "request": lambda line: f"   {line['method']} {line['operation']} -> {printable(line['url'])}",
    "command": _command,
    "tick": lambda line: f"it is time for: {line['tick']}",
    "answered": _answered,
    "opened": lambda line: f"the service opens{', with a saved session' if line['opened'] else ''}",
    "closed": lambda line: "the service closes",
    "interrupted": lambda line: "the caller is interrupted",
}


def _consequences(line: Json) -> Iterator[str]:
    for source, trigger, dest in line.get("transitions", ()):
        yield f"  {source} --{trigger}--> {dest}" if source != dest else f"  {source}: {trigger}"
    for event in line.get("events", ()):
        yield f"  * {event['event']}{printable(message_texts(event['data']))}"
    outcome = line.get("outcome")
    # A resolved command needs no line: its transitions and events show it.
    if outcome and not outcome["resolved"]:
        yield f"  rejected: {printable(outcome['reason'])}"


class StorySender(Struct):
    """The sender of a message, as far as a story shows it."""

    name: str = ""
    type: str = ""


class StoryMessage(Struct, rename={"sender": "from"}):
    """A message of an event, as far as a story shows it."""

    sender: StorySender
    type: str
    text: str = ""


class StoryEvent(Struct):
    """The data of an event, as far as a story shows them."""

    messages: list[StoryMessage] = []


def messages_of(data: Any) -> list[StoryMessage]:
    """Return the messages of an event; none where they are unreadable."""
    try:
        # The server decides the contents of a message, so any shape may come.
        return msgspec.convert(data, StoryEvent).messages
    except REFUSED:
        return []


def message_texts(data: Json) -> str:
    """Return the texts of the messages of an event in brackets; empty without any."""
    texts = [f"{one.sender.name or one.sender.type}: {one.text or one.type}" for one in messages_of(data)]
    return f" ({'; '.join(texts)})" if texts else ""


def _arguments_text(data: Any) -> str:
    """Return the arguments of a command without the empty ones."""
    if not isinstance(data, dict):
        return repr(data)
    return ", ".join(
        f"{key}: {_arguments_text(value)}" for key, value in data.items() if value not in (None, "", {}, [])
    )
