"""A recording told to people: a line for each thing that came in, and below it what came of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from webchat_fsm.lifecycle.words import Json
from webchat_fsm.testing.lines import said_in
from webchat_fsm.testing.recording import Recording

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def told(recording: Recording) -> Iterator[str]:
    """The story, line by line; times are seconds since the first step."""
    begun = next((line["time"] for line in recording.lines), 0.0)
    yield f"A chat over {recording.transport}, recorded from {begun:.3f} s since the epoch"
    for line in recording.lines:
        yield f"{line['time'] - begun:10.3f}  {heading(line)}"
        yield from (f"{'':12}  {came}" for came in _consequences(line))


def heading(line: Json) -> str:
    """What came in, or went out, in a few words."""
    return next((tell(line) for key, tell in _HEADINGS.items() if key in line), "?")


def printable(text: object) -> str:
    """A text in one line without control characters, which are spelt out."""
    return "".join(
        f"\\u{ord(letter):04x}" if unicodedata.category(letter) in _UNPRINTABLE else letter for letter in str(text)
    )


def _command(line: Json) -> str:
    given = printable(_brief(line["data"]))
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
        yield f"  * {event['event']}{printable(_said(event['data']))}"
    outcome = line.get("outcome")
    if outcome and not outcome["resolved"]:
        yield f"  rejected: {printable(outcome['reason'])}"


def _said(data: Json) -> str:
    """What the messages of an event say, else nothing."""
    texts = [f"{one.sender.name or one.sender.type}: {one.text or one.type}" for one in said_in(data)]
    return f" ({'; '.join(texts)})" if texts else ""


def _brief(data: Any) -> str:
    """What a command was given, without what is empty."""
    if not isinstance(data, dict):
        return repr(data)
    return ", ".join(f"{key}: {_brief(value)}" for key, value in data.items() if value not in (None, "", {}, []))


# -- as a drawing ------------------------------------------------------------------------------------------------------

_SAFE = str.maketrans({";": ",", "#": "no.", "<": "(", ">": ")", "`": "'"})


def sequence(recording: Recording) -> Iterator[str]:
    """A Mermaid sequence diagram of three lifelines: the user's code, the service and the chat server."""
    yield "sequenceDiagram"
    for ident, name in (("U", "your code"), ("S", "WebChatService"), ("C", f"chat server ({recording.transport})")):
        yield f"  participant {ident} as {name}"
    names = {line["request"]: line["operation"] for line in recording.lines if "request" in line}
    for line in recording.lines:
        yield from _arrow(line, names)
        for source, trigger, dest in line.get("transitions", ()):
            if source != dest:
                yield f"  Note over S: {_label(f'{source} to {dest} ({trigger})')}"
        for event in line.get("events", ()):
            yield f"  S-->>U: {_label(event['event'] + _said(event['data']))}"


def _arrow(line: Json, names: dict[int, str]) -> Iterator[str]:
    if "command" in line:
        yield f"  {'U' if line['by'] == 'user' else 'S'}->>S: {line['command']}"
    elif "request" in line:
        yield f"  S->>C: {line['operation']}"
    elif "answered" in line:
        said = line.get("fault") or f"{names.get(line['answered'], 'answer')} {line.get('status', '')}"
        yield f"  C--{'x' if 'fault' in line else '>>'}S: {_label(said)}"
    elif "tick" in line:
        yield f"  Note over S: time for {line['tick']}"
    else:
        yield f"  Note over S: {_label(heading(line))}"


def _label(text: str) -> str:
    """A text that ends no label."""
    return printable(text).translate(_SAFE).replace("--", "- -")[:200]
