"""Writing a session down, one JSON object a line: what came in, what was decided, what went out.

The first line tells the configuration. Then there is a line for each step of the session in the order of the decisions
(a command, an answer, a timer's tick, opening, closing), with its transitions, events and outcome, and one for each
request. Answers are written as they came, byte by byte, so that a fault in reading them shows again in a replay.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import asdict

from webchat_fsm.config import Config
from webchat_fsm.core.facts import (
    Asked,
    Closed,
    Due,
    Interrupted,
    Moment,
    Opened,
    Replied,
    Reply,
    Step,
    Verdict,
)
from webchat_fsm.core.session import Session
from webchat_fsm.core.transcript import BUILT_IN
from webchat_fsm.lifecycle.effects import Call, Decision, Publish, SavedSession
from webchat_fsm.lifecycle.encoding import DEEPEST, json_to_keep, jsonable, read_json, spelling
from webchat_fsm.lifecycle.table import State, Transport
from webchat_fsm.lifecycle.words import MASK, FileToSend, Json, Message, scalars, unsendable
from webchat_fsm.testing.masking import Hides, Mask, veiled
from webchat_fsm.wire.request import FORM, FilePart, HttpAnswer, Request, text

log = logging.getLogger("webchat_fsm")

VERSION = 1
Filters = tuple[re.Pattern[str], ...]


class Recorder:
    """Records one service: ``WebChatService(config, recorder=Recorder("chat.jsonl"))``.

    Lines are written as they come, so that a crash leaves all but the last; the file, readable by its owner alone, must
    not exist yet (`FileExistsError`), or is replaced with `overwrite`. Without a path they are kept in `lines`. A disk
    that is full ends the recording, not the chat.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self.lines: list[bytes] = []
        self._mask = Mask()
        self._noted: deque[tuple[Session, Step, Moment, Decision, Filters, State]] = deque()
        self._answers: dict[int, HttpAnswer] = {}
        self._secret_texts: dict[int, frozenset[str]] = {}
        self._filters: Filters = ()
        self._lock = threading.RLock()
        self._begun = self._full = False
        if self.path is not None:
            if overwrite:
                self.path.unlink(missing_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    # -- what the service tells --------------------------------------------------------------------------------------

    def begun(self, config: Config) -> None:
        """Write the head; raises `ValueError` for a second service."""
        if self._begun:
            raise ValueError("a recorder records one service; give each its own")
        self._begun = True
        head = {"recording": VERSION, "transport": config.way, "config": documented(config, self._mask)}
        self._write(head)

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """Take note of a step."""
        filters = self._filters
        self._filters = tuple(session.prefilters.custom)
        both = filters + tuple(one for one in self._filters if one not in filters)
        self._noted.append((session, step, now, decision, both, session.state))

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """Write a request, after the step that asked for it."""
        with self._lock:
            self.flush()
            hides = self._secret_texts.pop(call.ticket, frozenset[str]()).__contains__
            self._write({"time": now.wall, "request": call.ticket, **described(request, self._mask, hides)})

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """Keep an answer for the step that takes it in."""
        self._answers[call.ticket] = answer

    def flush(self) -> None:
        """Write the steps that were noted, in their order."""
        with self._lock:
            while self._noted:
                session, step, now, decision, filters, state = self._noted.popleft()
                self._write(self._line(session.transport, step, now, decision, filters, state))

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _line(
        self, transport: Transport, step: Step, now: Moment, decision: Decision, filters: Filters, state: State
    ) -> Json:
        hides = _hiding(filters)
        line: Json = {"time": now.wall, "timer": now.timer, "draw": now.draw, **self._told(step, hides)}
        line["state"] = state
        line["transitions"] = [[row.source, row.trigger, row.dest] for row in decision.rows]
        line["events"] = events_of(decision, transport, self._mask, hides)
        if decision.settled is not None:
            line["outcome"] = outcome_of(decision, self._mask)
        if (call := decision.call) is not None:
            line["calls"] = call.ticket
            texts = {text for text in (call.fields.get("message"), *_given_texts(step)) if isinstance(text, str)}
            self._secret_texts[call.ticket] = frozenset(map(scalars, texts) if any(map(hides, texts)) else ())
        return line

    @singledispatchmethod
    def _told(self, step: Step, hides: Hides) -> Json:
        raise TypeError(f"a step of an unknown kind: {type(step).__name__}")

    @_told.register
    def _asked(self, step: Asked, hides: Hides) -> Json:
        data = {
            key: self._mask.keyed(key, plain(value, self._mask), hides, own=True) for key, value in step.data.items()
        }
        if step.command == "updateUserData":
            data = veiled(data)
        return {"command": step.command, "data": data, "by": step.by}

    @_told.register
    def _due(self, step: Due, hides: Hides) -> Json:
        by_hand = {"by_hand": True} if step.by_hand else {}
        return {"tick": step.timer, "preview": self._mask.keyed("text", step.preview, hides), **by_hand}

    @_told.register
    def _opened(self, step: Opened, hides: Hides) -> Json:
        return {"opened": plain(step.saved, self._mask)}

    @_told.register
    def _closed(self, step: Closed, hides: Hides) -> Json:
        return {"closed": True}

    @_told.register
    def _interrupted(self, step: Interrupted, hides: Hides) -> Json:
        return {"interrupted": step.call.ticket}

    @_told.register
    def _replied(self, step: Replied, hides: Hides) -> Json:
        ticket, reply = step.call.ticket, step.reply
        answer = self._answers.pop(ticket, None)
        if answer is None:
            return {"answered": ticket, **self._unanswered(reply)}
        told: Json = {"answered": ticket, "status": answer.status, "headers": self._mask.headers(answer.headers)}
        if answer.line:
            told["line"] = answer.line
        if step.call.operation in ("download", "fetch") and not answer.body.lstrip().startswith(b"{"):
            told["size"] = len(answer.body)  # a file's content is nobody's business, and decides nothing
        else:
            told.update(self._body(answer.body, hides))
        if shown := shown_in(reply):
            told["shown"] = {place: self._mask.value(_fields(one), hides) for place, one in shown.items()}
        return told

    def _body(self, body: bytes, hides: Hides) -> Json:
        masked = self._mask.answer(body.decode("utf-8", "surrogateescape"), hides)
        if not any("\udc80" <= letter <= "\udcff" for letter in masked):
            return {"body": masked}
        return {"bytes": base64.b64encode(masked.encode("utf-8", "surrogateescape")).decode()}

    def _unanswered(self, reply: Reply) -> Json:
        if reply.verdict is Verdict.SILENT:
            return {"fault": self._mask.text(str(reply.error)), "url": self._mask.text(reply.response.url)}
        return {"trouble": reply.response.errors}

    def _write(self, line: Json) -> None:
        encoded = json_to_keep(line)
        if self.path is None:
            self.lines.append(encoded)
            return
        with self._lock:
            if self._full:
                return
            try:
                with self.path.open("ab") as file:
                    file.write(encoded + b"\n")
            except (OSError, ValueError) as error:
                self._full = True
                why = getattr(error, "strerror", None) or error
                log.error("the recording ends here: %s: %s; the chat goes on without it", self.path, why)


def _given_texts(step: Step) -> tuple[object, ...]:
    """Return the texts that a command was given, before they were made fit to be sent."""
    return (step.data.get("message"), step.data.get("Message")) if isinstance(step, Asked) else ()


def _hiding(filters: Filters) -> Hides:
    patterns = (BUILT_IN, *filters)
    return lambda text: any(pattern.search(text) for pattern in patterns)


def events_of(decision: Decision, transport: Transport, mask: Mask, hides: Hides) -> list[Json]:
    """The events of a decision as the bus carries them, without secrets."""
    return [
        {
            "event": effect.event,
            "data": {} if effect.data is None else mask.value(effect.data.item(transport), hides),
            "time": effect.time,
        }
        for effect in decision.effects
        if isinstance(effect, Publish)
    ]


def outcome_of(decision: Decision, mask: Mask) -> Json:
    """How the command of a decision came out; its value is the caller's affair."""
    settled = decision.settled
    if settled is None:
        return {}
    return {"resolved": True} if settled.resolved else {"resolved": False, "reason": mask.text(settled.reason)}


def described(request: Request, mask: Mask, hides: Hides) -> Json:
    """A request for readers, and for comparing; files by their names alone."""
    told: Json = {
        "operation": request.operation,
        "method": request.method,
        "url": mask.url(request.url),
        "headers": mask.headers(request.headers),
    }
    if request.parts:
        fields = [(name, value) for name, value in request.parts if isinstance(value, str)]
        told["form"] = mask.form(fields, hides)
        told["files"] = [value.name for _, value in request.parts if isinstance(value, FilePart)]
    elif request.content_type == FORM:
        fields = parse_qsl(request.body.decode("ascii"), keep_blank_values=True)
        told["form"] = mask.form(fields, hides, all_own=request.operation == "updateData")
    elif request.body:
        told["json"] = mask.value(read_json(request.body), hides, own=True)
    return told


def _fields(message: Message) -> Any:
    """Return the fields of a message, which preprocessors may have filled with anything."""
    return jsonable({**asdict(message), "sender": asdict(message.sender)})


def shown_in(reply: Reply) -> Mapping[str, Message]:
    """What preprocessors made of the messages of a reply, by their number in it."""
    arrivals = [arrival for one in (reply, *reply.pushes) for arrival in one.arrivals]
    return {str(place): arrival.shown for place, arrival in enumerate(arrivals) if arrival.shown is not None}


def documented(config: Config, mask: Mask) -> Json:
    """A configuration in its documented form, without its secrets and without what only the network needs."""
    given: Json = msgspec.to_builtins(config, enc_hook=lambda function: None)
    client = given["client"]
    kept = {key: client[key] for key in ("pollJitter", "retry", "maxAnswerSize", "maxDownloadSize")}
    headers = config.custom_headers if config.enable_custom_header else config.client.headers
    given["client"] = {**kept, "headers": dict.fromkeys(headers, MASK)}
    given["apikey"] = MASK if config.apikey else ""
    given["userData"] = veiled(config.user_data)
    del given["_main.header"]
    if config.transport is None:
        del given["transport"]
    else:
        given["transport"]["headers"] = dict.fromkeys(config.transport.headers, MASK)
        given["transport"]["async"] = {"enabled": config.transport.asynchronous.enabled}
    return {key: mask.value(value, lambda text: False) for key, value in given.items()}


def plain(value: Any, mask: Mask, above: tuple[int, ...] = ()) -> Any:
    """What a command or the store was given, as JSON; code, open files and what has no end by a stand-in."""
    if isinstance(value, Mapping | list | tuple):
        if id(value) in above or len(above) >= DEEPEST:
            return {"$object": type(value).__name__}
        inside = (*above, id(value))
        if isinstance(value, Mapping):
            return {spelling(key): plain(inner, mask, inside) for key, inner in value.items()}
        return [plain(inner, mask, inside) for inner in value]
    for kind, told in _PLAIN.items():
        if isinstance(value, kind):
            return told(value, mask)
    return _object(value, mask)


def _object(value: Any, mask: Mask) -> Json:
    """A stand-in for an object, with the text as which a date, a `UUID` and the like go to the server."""
    told = {"$object": type(value).__name__, "callable": callable(value), **_input(value)}
    sent = not (told["callable"] or told["value"]) and not any(unsendable(value, ""))
    return {**told, "text": mask.text(text(value))} if sent else told


def _input(value: Any) -> Json:
    """What makes an object fit for registerTypingPreviewInput, or not."""
    try:
        kind, has_value = getattr(value, "type", None), hasattr(value, "value")
    except Exception:  # a property of the user's failed: such an input is taken for one that fits
        return {"value": True}
    return {"value": has_value, **({"type": kind} if isinstance(kind, str) else {})}


def _pattern(value: re.Pattern[Any], mask: Mask) -> Json:
    if not isinstance(value.pattern, str):
        return {"$object": "Pattern"}
    return {"$pattern": mask.pattern(value).pattern}


def _saved(value: SavedSession, mask: Mask) -> Json:
    given: Json = msgspec.to_builtins(value)
    known = given["session_data"]
    for key in ("secure_key", "token"):
        known[key] = mask.secret(known[key])
    given["prefilters"] = [
        {"source": mask.pattern(re.compile(one.source, one.flags)).pattern, "flags": 0} for one in value.prefilters
    ]
    given["user_data"], given["cookies"] = veiled(value.user_data), {}
    given["address"] = mask.text(value.address)
    return {"$saved": given}


def _file(value: FileToSend, mask: Mask) -> Json:
    return {"$file": {"name": value.name, "size": value.size, "content_type": value.content_type}}


def _same(value: Any, mask: Mask) -> Any:
    return value


_PLAIN: dict[type | tuple[type, ...], Callable[[Any, Mask], Any]] = {
    (str, int, float, type(None)): _same,
    SavedSession: _saved,
    FileToSend: _file,
    re.Pattern: _pattern,
    os.PathLike: lambda value, mask: os.fspath(value),
}
