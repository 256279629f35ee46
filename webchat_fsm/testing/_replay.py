"""Replay of a recorded session: the same steps at the same times, with no network and no real time.

The inputs come from the recording: commands, timers and the answers byte by byte. The dialects read the answers and the
core decides again, so that both are reproduced, faults included, in the order in which the threads of the recorded
process decided. Code of the user is not run again: the results of preprocessors are taken from the recording.
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

from webchat_fsm._config import Config
from webchat_fsm._core.decide import decide
from webchat_fsm._core.defects import defect_reply
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import (
    Asked,
    Call,
    Closed,
    Decision,
    Due,
    Interrupted,
    Moment,
    Opened,
    ReceivedMessage,
    Replied,
    Reply,
    ResponseKind,
    Step,
)
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import ConfigError, TransportError
from webchat_fsm._json import json_to_keep, read_json, utf8
from webchat_fsm._model import FileToSend, Json, Message, Participant, Response
from webchat_fsm._runtime.commands import COMMANDS, START_CHAT, settled_start
from webchat_fsm._wire import dialect_of
from webchat_fsm._wire.request import HttpAnswer, answered, bare, silent
from webchat_fsm.lifecycle._legality import By
from webchat_fsm.lifecycle._table import Flag, State
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._masking import HIDDEN, Mask, MaskedPrefilters
from webchat_fsm.testing._recorder import described, events_of, outcome_of
from webchat_fsm.testing._recording import RecordedEvent, RecordedTransition, Recording, RecordingError


class Known(Struct, frozen=True, kw_only=True):
    """A session at one time: its state and flags, its transcript, its participants and its timers."""

    time: float
    state: State
    flags: frozenset[Flag]
    failures: int
    messages: tuple[Message, ...]
    agents: dict[int | str, Participant]
    timers: dict[str, float]
    """The timers by their names, in wall-clock seconds."""


class Replay(Struct, kw_only=True):
    """The result of a replay; `differences` describes where it was not as recorded."""

    transport: Transport
    transitions: list[RecordedTransition]
    events: list[RecordedEvent]
    differences: list[str]

    @property
    def same(self) -> bool:
        """Return whether transitions, events, outcomes and requests were as recorded."""
        return not self.differences

    def check(self) -> Replay:
        """Raise `AssertionError` with the first ten differences, if there are any."""
        if self.differences:
            raise AssertionError("the replay differs from the recording:\n" + "\n".join(self.differences[:10]))
        return self


def replay(recording: Recording) -> Replay:
    """Replay a whole session; raises `RecordingError` for one that cannot be replayed."""
    player = Player(recording)
    for number, line in enumerate(recording.lines, 2):
        player.play(number, line)
    return player.replay


def state_at(recording: Recording, time: float) -> Known:
    """Return the session at a wall-clock time: after all steps before the first one later than that."""
    player = Player(recording)
    for number, line in enumerate(recording.lines, 2):
        # Stopped, not skipped: after a jump back of the wall clock later lines may have earlier times.
        if line["time"] > time:
            break
        player.play(number, line)
    return player.known(time)


class Player:
    """Plays recorded lines to a new session, and collects what differs."""

    def __init__(self, recording: Recording) -> None:
        try:
            # Checked like any configuration, as the head may have been edited.
            config = Config.read(recording.head["config"])
        except ConfigError as error:
            raise RecordingError(f"line 1: the configuration: {error}") from error
        if config.way is not recording.transport:
            raise RecordingError(f"line 1: transport: {recording.transport}, but the configuration says {config.way}")
        self._session = Session(config)
        # The prefilters of the recorded chat are masked, so the placeholders decide what is hidden.
        self._session.prefilters = MaskedPrefilters()
        self._dialect = dialect_of(config)
        self._mask = Mask()
        self._calls: dict[int, Call] = {}
        self._urls: dict[int, str] = {}
        self._now = Moment(0.0, 0.0)
        self.replay = Replay(transport=recording.transport, transitions=[], events=[], differences=[])

    def play(self, number: int, line: Json) -> None:
        """Replay one line; `number` is its place in the file."""
        try:
            if "request" in line:
                self._compare_request(number, line)
            else:
                self._step(number, line)
        except RecordingError as error:
            raise RecordingError(f"line {number}: {error}") from error
        except Exception as error:  # an altered line can make a dialect or the core raise anything
            raise RecordingError(f"line {number} cannot be played: {type(error).__name__}: {error}") from error

    def known(self, time: float) -> Known:
        """Return the session as it is now; `time` is copied."""
        session = self._session
        # Timers are kept on a clock of their own; the difference is the sum of the jumps until this step.
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
        decision = decide(self._session, self._step_of(line), now)
        # Kept by number: later lines name the call of their answer or interruption by it.
        if decision.call is not None:
            self._calls[decision.call.ticket] = decision.call
        self._note(now, decision)
        self._compare(number, line, decision)

    def _note(self, now: Moment, decision: Decision) -> None:
        self.replay.transitions += [
            RecordedTransition(now.wall, row.source, row.trigger, row.dest) for row in decision.transitions
        ]
        for event in self._events(decision):
            self.replay.events.append(RecordedEvent(event["time"], event["event"], event["data"]))

    def _events(self, decision: Decision) -> list[Json]:
        return _json(events_of(decision, self._session.transport, self._mask, _was_hidden))  # type: ignore[no-any-return]

    def _compare(self, number: int, line: Json, decision: Decision) -> None:
        actual: Json = {
            "transitions": _json([[row.source, row.trigger, row.dest] for row in decision.transitions]),
            "events": self._events(decision),
            "state": self._session.state.value,
            "outcome": outcome_of(decision, self._mask) or None,
            "calls": decision.call.ticket if decision.call else None,
        }
        for field, now in actual.items():
            if now != line.get(field):
                self._add_difference(number, field, line.get(field), now)

    def _compare_request(self, number: int, line: Json) -> None:
        call = self._call(line["request"])
        request = self._dialect.request(call)
        self._urls[call.ticket] = bare(request.url)
        now = _json(described(request, self._mask, _was_hidden))
        # Neither is computed again: the time is the recorded one, and the number has selected the call.
        before = {key: value for key, value in line.items() if key not in ("time", "request")}
        if now != before:
            self._add_difference(number, "request", before, now)

    def _add_difference(self, number: int, field: str, before: Any, now: Any) -> None:
        self.replay.differences.append(f"line {number}: {field}: recorded {before!r}, now {now!r}")

    # -- from lines to steps -------------------------------------------------------------------------------------------

    def _step_of(self, line: Json) -> Step:
        return next(step for key, step in _STEPS.items() if key in line)(self, line)

    def _call(self, ticket: int) -> Call:
        """Return the call with this number; raises `RecordingError` where no step has made it."""
        if ticket not in self._calls:
            raise RecordingError(f"request {ticket} was made by no line before; are lines missing?")
        return self._calls[ticket]

    def _asked(self, line: Json) -> Step:
        if line["command"] not in COMMANDS:
            raise RecordingError(f"there is no command {line['command']!r}")
        command, data = COMMANDS[line["command"]], _decoded(line["data"])
        if command is START_CHAT:
            data = settled_start(data)  # a recording of a former version has them as they were given
        return Asked(command=command, data=data, by=By(line["by"]))

    def _due(self, line: Json) -> Step:
        timer = Timer(line["tick"])
        # A timer that runs is not set any more; by hand one may run that was not set.
        self._session.timers.pop(timer, None)
        return Due(timer=timer, preview=line["preview"], by_hand=line.get("by_hand", False))

    def _opened(self, line: Json) -> Step:
        return Opened(saved=_decoded(line["opened"]))

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
            return Reply(kind=ResponseKind.BAD, response=Response(errors=line["trouble"]))
        body = base64.b64decode(line["bytes"]) if "bytes" in line else utf8(line.get("body", ""))
        answer = HttpAnswer(status=line["status"], headers=line["headers"], body=body, line=line.get("line", ""))
        try:
            reply = self._dialect.reply(call, answer, self._urls.get(call.ticket, ""))
        except Exception as error:  # as in the chat itself: a defect in reading an answer counts as a failed poll
            return defect_reply(call.operation.name, error, answered(answer, line.get("url", "")))
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
    """Return a value as it is after writing and reading it, to compare it with the recorded one."""
    return read_json(json_to_keep(value))


def _with_shown(reply: Reply, shown: Json) -> Reply:
    """Return the reply with the messages that preprocessors had changed."""
    # One count over the reply and its pushes, as the recorder numbers them.
    places: Iterator[int] = iter(range(sum(len(one.received) for one in (reply, *reply.pushes))))

    def altered(one: Reply) -> Reply:
        numbered = zip(islice(places, len(one.received)), one.received, strict=True)
        return replace(one, received=tuple(_shown(message, shown.get(str(place))) for place, message in numbered))

    return replace(altered(reply), pushes=tuple(altered(push) for push in reply.pushes))


def _shown(message: ReceivedMessage, shown: Json | None) -> ReceivedMessage:
    return message if shown is None else replace(message, shown=msgspec.convert(shown, Message))


def _decoded(value: Any) -> Any:
    """Return what a command or the store was given, from its JSON form."""
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    for key, made in _PLACEHOLDERS.items():
        if key in value:
            return made(value)
    return {key: _decoded(inner) for key, inner in value.items()}


def _object(value: Json) -> Any:
    """Return an object of a type of that name, with the attributes that a command reads."""
    known = {key: value[key] for key in ("type",) if key in value}
    if value.get("value"):
        known["value"] = ""
    if value.get("callable"):
        known["__call__"] = lambda self, *given: None
    if "text" in value:
        # On the type: Python looks special methods up there, not on the object.
        known["__str__"] = lambda self: value["text"]
    return type(value["$object"], (), known)()


_PLACEHOLDERS: dict[str, Callable[[Json], Any]] = {
    "$object": _object,
    "$pattern": lambda value: re.compile(value["$pattern"]),
    "$saved": lambda value: msgspec.convert(value["$saved"], SavedSession),
    "$file": lambda value: FileToSend(source=bytes, **value["$file"]),
}
