"""A recorded session once more: the same steps at the same moments, with no network and no real time.

What is fed in is what came from outside: commands, ticks and the answers byte by byte. The dialects read the answers
and the core decides anew, so that both are reproduced, a fault in either included, in the order in which the threads of
the recorded process happened to decide. What a replay cannot repeat is code of the user: handlers and preprocessors;
what these did is in the recording.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm.config import Config
from webchat_fsm.core.decide import decide
from webchat_fsm.core.defects import unread
from webchat_fsm.core.facts import (
    Arrival,
    Asked,
    Closed,
    Due,
    Interrupted,
    Moment,
    Opened,
    Replied,
    Reply,
    Step,
    Timer,
    Verdict,
)
from webchat_fsm.core.session import Session, Settings
from webchat_fsm.errors import ConfigError, TransportError
from webchat_fsm.lifecycle.commands import COMMANDS, By
from webchat_fsm.lifecycle.effects import Call, Decision, SavedSession
from webchat_fsm.lifecycle.encoding import json_to_keep, read_json, utf8
from webchat_fsm.lifecycle.table import Flag, State, Transport
from webchat_fsm.lifecycle.words import FileToSend, Json, Message, Participant, Response
from webchat_fsm.testing.masking import HIDDEN, HiddenAgain, Mask
from webchat_fsm.testing.recorder import described, events_of, outcome_of
from webchat_fsm.testing.recording import RecordedEvent, Recording, RecordingError, Transition
from webchat_fsm.wire.dialects import dialect_of
from webchat_fsm.wire.request import HttpAnswer, answered, silent


class Known(Struct, frozen=True, kw_only=True):
    """What a session knew at one time: its state and flags, its transcript, its people, and what it waited for."""

    time: float
    state: State
    flags: frozenset[Flag]
    failures: int
    messages: tuple[Message, ...]
    agents: dict[int | str, Participant]
    timers: dict[str, float]
    """The timers by their names, in wall-clock seconds."""


class Replay(Struct, kw_only=True):
    """A session that was played again; `differences` says in words where it did not go as recorded."""

    transport: Transport
    transitions: list[Transition]
    events: list[RecordedEvent]
    differences: list[str]

    @property
    def same(self) -> bool:
        """Whether it went as recorded: transitions, events, outcomes and requests."""
        return not self.differences

    def check(self) -> Replay:
        """Raise `AssertionError` with the first differences, if there are any."""
        if self.differences:
            raise AssertionError("the replay differs from the recording:\n" + "\n".join(self.differences[:10]))
        return self


def replay(recording: Recording) -> Replay:
    """Play a whole session again; raises `RecordingError` for one that cannot be played."""
    player = Player(recording)
    for number, line in enumerate(recording.lines, 2):
        player.play(number, line)
    return player.replay


def state_at(recording: Recording, time: float) -> Known:
    """What was known at a wall-clock time: after all that was decided before the first step later than that."""
    player = Player(recording)
    for number, line in enumerate(recording.lines, 2):
        if line["time"] > time:
            break
        player.play(number, line)
    return player.known(time)


class Player:
    """A fresh session, and the recorded lines that move it."""

    def __init__(self, recording: Recording) -> None:
        try:
            config = Config.read(recording.head["config"])
        except ConfigError as error:
            raise RecordingError(f"line 1: the configuration: {error}") from error
        if config.way is not recording.transport:
            raise RecordingError(f"line 1: transport: {recording.transport}, but the configuration says {config.way}")
        self._session = Session(Settings.of(config))
        self._session.prefilters = HiddenAgain()
        self._dialect = dialect_of(config)
        self._mask = Mask()
        self._calls: dict[int, Call] = {}
        self._now = Moment(0.0, 0.0)
        self.replay = Replay(transport=recording.transport, transitions=[], events=[], differences=[])

    def play(self, number: int, line: Json) -> None:
        """Play one line; `number` is its place in the file."""
        try:
            if "request" in line:
                self._compare_request(number, line)
            else:
                self._step(number, line)
        except RecordingError as error:
            raise RecordingError(f"line {number}: {error}") from error
        except Exception as error:  # whatever a line that was tampered with makes of a dialect or of the core
            raise RecordingError(f"line {number} cannot be played: {type(error).__name__}: {error}") from error

    def known(self, time: float) -> Known:
        """What the session knows now."""
        session = self._session
        ahead = self._now.wall - self._now.timer
        return Known(
            time=time,
            state=session.state,
            flags=session.flags,
            failures=session.failures,
            messages=session.transcript.read().messages,
            agents=session.participants.agents,
            timers={timer.value: due + ahead for timer, due in session.timers.items()},
        )

    def _step(self, number: int, line: Json) -> None:
        self._now = now = Moment(line["timer"], line["time"], line["draw"])
        decision = decide(self._session, self._told(line), now)
        if decision.call is not None:
            self._calls[decision.call.ticket] = decision.call
        self._note(now, decision)
        self._compare(number, line, decision)

    def _note(self, now: Moment, decision: Decision) -> None:
        self.replay.transitions += [Transition(now.wall, row.source, row.trigger, row.dest) for row in decision.rows]
        for event in self._events(decision):
            self.replay.events.append(RecordedEvent(event["time"], event["event"], event["data"]))

    def _events(self, decision: Decision) -> list[Json]:
        return _json(events_of(decision, self._session.transport, self._mask, _was_hidden))  # type: ignore[no-any-return]

    def _compare(self, number: int, line: Json, decision: Decision) -> None:
        came: Json = {
            "transitions": _json([[row.source, row.trigger, row.dest] for row in decision.rows]),
            "events": self._events(decision),
            "state": self._session.state.value,
            "outcome": outcome_of(decision, self._mask) or None,
            "calls": decision.call.ticket if decision.call else None,
        }
        for what, now in came.items():
            if now != line.get(what):
                self._differs(number, what, line.get(what), now)

    def _compare_request(self, number: int, line: Json) -> None:
        call = self._call(line["request"])
        if call.operation == "file":
            call = replace(call, fields={**call.fields, "content": b""})
        now = _json(described(self._dialect.request(call), self._mask, _was_hidden))
        before = {key: value for key, value in line.items() if key not in ("time", "request")}
        if now != before:
            self._differs(number, "request", before, now)

    def _differs(self, number: int, what: str, before: Any, now: Any) -> None:
        self.replay.differences.append(f"line {number}: {what}: recorded {before!r}, now {now!r}")

    # -- from lines to steps -------------------------------------------------------------------------------------------

    def _told(self, line: Json) -> Step:
        return next(step for key, step in _STEPS.items() if key in line)(self, line)

    def _call(self, ticket: int) -> Call:
        """The call with this number."""
        if ticket not in self._calls:
            raise RecordingError(f"request {ticket} is one that no line before asks for; are lines missing?")
        return self._calls[ticket]

    def _asked(self, line: Json) -> Step:
        if line["command"] not in COMMANDS:
            raise RecordingError(f"there is no command {line['command']!r}")
        return Asked(command=line["command"], data=_given(line["data"]), by=By(line["by"]))

    def _due(self, line: Json) -> Step:
        timer = Timer(line["tick"])
        self._session.timers.pop(timer, None)
        return Due(timer=timer, preview=line["preview"], by_hand=line.get("by_hand", False))

    def _opened(self, line: Json) -> Step:
        return Opened(saved=_given(line["opened"]))

    def _closed(self, line: Json) -> Step:
        return Closed()

    def _interrupted(self, line: Json) -> Step:
        return Interrupted(call=self._call(line["interrupted"]))

    def _replied(self, line: Json) -> Step:
        call = self._call(line["answered"])
        return Replied(call=call, reply=self._reply(call, line))

    def _reply(self, call: Call, line: Json) -> Reply:
        if "fault" in line:
            return silent(line["url"], TransportError(line["fault"]))
        if "trouble" in line:
            return Reply(verdict=Verdict.BAD, response=Response(errors=line["trouble"]))
        body = base64.b64decode(line["bytes"]) if "bytes" in line else utf8(line.get("body", ""))
        answer = HttpAnswer(status=line["status"], headers=line["headers"], body=body, line=line.get("line", ""))
        try:
            reply = self._dialect.reply(call, answer)
        except Exception as error:  # as in the chat itself: a defect while an answer is read counts as a failed poll
            return unread(call, error, answered(answer, line.get("url", "")))
        return _with_shown(reply, line["shown"]) if "shown" in line else reply


_STEPS: dict[str, Callable[[Player, Json], Step]] = {
    "command": Player._asked,
    "answered": Player._replied,
    "tick": Player._due,
    "opened": Player._opened,
    "closed": Player._closed,
    "interrupted": Player._interrupted,
}


def _was_hidden(text: str) -> bool:
    return text.startswith(HIDDEN)


def _json(value: Any) -> Any:
    """A value as it looks after a journey through a file."""
    return read_json(json_to_keep(value))


def _with_shown(reply: Reply, shown: Json) -> Reply:
    """The reply with what preprocessors had made of its messages."""
    places: Iterator[int] = iter(range(sum(len(one.arrivals) for one in (reply, *reply.pushes))))

    def altered(one: Reply) -> Reply:
        numbered = zip(islice(places, len(one.arrivals)), one.arrivals, strict=True)
        return replace(one, arrivals=tuple(_shown(arrival, shown.get(str(place))) for place, arrival in numbered))

    return replace(altered(reply), pushes=tuple(altered(push) for push in reply.pushes))


def _shown(arrival: Arrival, shown: Json | None) -> Arrival:
    return arrival if shown is None else arrival._replace(shown=msgspec.convert(shown, Message))


def _given(value: Any) -> Any:
    """What a command or the store was given, from its JSON form."""
    if isinstance(value, list):
        return [_given(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    for key, made in _STAND_INS.items():
        if key in value:
            return made(value)
    return {key: _given(inner) for key, inner in value.items()}


def _object(value: Json) -> Any:
    """An object of a type of that name, with as much as a command looks at."""
    known = {key: value[key] for key in ("type",) if key in value}
    if value.get("value"):
        known["value"] = ""
    if value.get("callable"):
        known["__call__"] = lambda self, *given: None
    if "text" in value:
        known["__str__"] = lambda self: value["text"]
    return type(value["$object"], (), known)()


_STAND_INS: dict[str, Callable[[Json], Any]] = {
    "$object": _object,
    "$pattern": lambda value: re.compile(value["$pattern"]),
    "$saved": lambda value: msgspec.convert(value["$saved"], SavedSession),
    "$file": lambda value: FileToSend(source=bytes, **value["$file"]),
}
