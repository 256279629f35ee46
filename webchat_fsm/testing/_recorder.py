"""Recording of a session, one JSON object a line: the inputs, the decisions and the requests.

The first line holds the configuration. Then there is a line for each step of the session in the order of the decisions
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

from webchat_fsm._config import Config
from webchat_fsm._core.operations import (
    CustomNotice,
    Download,
    Fetch,
    Operation,
    Refresh,
    Send,
    StartTyping,
    StopTyping,
)
from webchat_fsm._core.saved_session import BUILT_IN, SavedSession
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
    Publish,
    Replied,
    Reply,
    ResponseKind,
    Step,
)
from webchat_fsm._json import DEEPEST, json_to_keep, jsonable, read_json, spelling
from webchat_fsm._model import MASK, FileToSend, Json, Message, scalars, unsendable
from webchat_fsm._wire.request import FORM, FilePart, HttpAnswer, Request, text
from webchat_fsm.lifecycle._legality import UPDATE_USER_DATA
from webchat_fsm.lifecycle._table import State
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing._masking import Hides, Mask, mask_values

log = logging.getLogger("webchat_fsm")

# Of the format: raised when a line changes so that an older reader would misread it.
VERSION = 1
Filters = tuple[re.Pattern[str], ...]


class Recorder:
    """Records one service: ``WebChatService(config, recorder=Recorder("chat.jsonl"))``.

    Lines are written as they come, so that a crash leaves all but the last; the file, readable by its owner alone, must
    not exist yet (`FileExistsError`), or is replaced with `overwrite`. Without a path they are kept in `lines`. A disk
    that is full ends the recording, not the chat.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self.lines: list[bytes] = []
        self._mask = Mask()
        self._queued: deque[tuple[Session, Step, Moment, Decision, Filters, State]] = deque()
        self._answers: dict[int, HttpAnswer] = {}
        self._secret_texts: dict[int, frozenset[str]] = {}
        self._filters: Filters = ()
        # Reentrant: `requested` flushes the queued steps before its own line.
        self._lock = threading.RLock()
        self._begun = self._write_failed = False
        if self.path is not None:
            if overwrite:
                self.path.unlink(missing_ok=True)
            # O_EXCL: another process that records to the same path at the same time fails, instead of mixing lines.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    # -- called by the service ----------------------------------------------------------------------------------------

    def begun(self, config: Config) -> None:
        """Write the head; raises `ValueError` for a second service."""
        if self._begun:
            raise ValueError("a recorder records one service, and this one has its service: give each its own")
        self._begun = True
        head = {"recording": VERSION, "transport": config.way, "config": documented(config, self._mask)}
        self._write(head)

    def stepped(self, session: Session, step: Step, now: Moment, decision: Decision) -> None:
        """Queue a step.

        It is called with the lock of the session held, so the line is written later: no disk is waited for in there.
        """
        filters = self._filters
        self._filters = tuple(session.prefilters.custom)
        # A step may add or remove prefilters; a text that either set hides is masked.
        both = filters + tuple(one for one in self._filters if one not in filters)
        # A deque appends atomically, so that no second lock is needed under that of the session.
        self._queued.append((session, step, now, decision, both, session.state))

    def requested(self, call: Call, request: Request, now: Moment) -> None:
        """Write a request, after the step that asked for it."""
        with self._lock:
            self.flush()
            hides = self._secret_texts.pop(call.ticket, frozenset[str]()).__contains__
            self._write({"time": now.wall, "request": call.ticket, **described(request, self._mask, hides)})

    def answered(self, call: Call, answer: HttpAnswer) -> None:
        """Keep the bytes of an answer for the step that reads it."""
        # A step carries the decoded reply only, and a replay is to decode the bytes anew.
        self._answers[call.ticket] = answer

    def flush(self) -> None:
        """Write the queued steps in their order."""
        with self._lock:
            while self._queued:
                session, step, now, decision, filters, state = self._queued.popleft()
                self._write(self._line(session.transport, step, now, decision, filters, state))

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _line(
        self, transport: Transport, step: Step, now: Moment, decision: Decision, filters: Filters, state: State
    ) -> Json:
        hides = _hiding(filters)
        line: Json = {"time": now.wall, "timer": now.timer, "draw": now.draw, **self._input(step, hides)}
        line["state"] = state
        line["transitions"] = [[row.source, row.trigger, row.dest] for row in decision.transitions]
        line["events"] = events_of(decision, transport, self._mask, hides)
        if decision.settled is not None:
            line["outcome"] = outcome_of(decision, self._mask)
        if (call := decision.call) is not None:
            line["calls"] = call.ticket
            # By the text as sent and as given, which differ where characters cannot be sent.
            texts = {text for text in (_text_of(call.operation), *_given_texts(step)) if isinstance(text, str)}
            self._secret_texts[call.ticket] = frozenset(map(scalars, texts) if any(map(hides, texts)) else ())
        return line

    @singledispatchmethod
    def _input(self, step: Step, hides: Hides) -> Json:
        raise TypeError(f"a step of an unknown kind: {type(step).__name__}")

    @_input.register
    def _asked(self, step: Asked, hides: Hides) -> Json:
        data = {
            key: self._mask.keyed(key, plain(value, self._mask), hides, own=True) for key, value in step.data.items()
        }
        # Its arguments are the user data themselves, without a key that would name them.
        if step.command.rule is UPDATE_USER_DATA:
            data = mask_values(data)
        return {"command": step.command.name, "data": data, "by": step.by}

    @_input.register
    def _due(self, step: Due, hides: Hides) -> Json:
        by_hand = {"by_hand": True} if step.by_hand else {}
        return {"tick": step.timer, "preview": self._mask.keyed("text", step.preview, hides), **by_hand}

    @_input.register
    def _opened(self, step: Opened, hides: Hides) -> Json:
        return {"opened": plain(step.saved, self._mask)}

    @_input.register
    def _closed(self, step: Closed, hides: Hides) -> Json:
        return {"closed": True}

    @_input.register
    def _interrupted(self, step: Interrupted, hides: Hides) -> Json:
        return {"interrupted": step.call.ticket}

    @_input.register
    def _replied(self, step: Replied, hides: Hides) -> Json:
        ticket, reply = step.call.ticket, step.reply
        answer = self._answers.pop(ticket, None)
        if answer is None:
            return {"answered": ticket, **self._unanswered(reply)}
        record: Json = {"answered": ticket, "status": answer.status, "headers": self._mask.headers(answer.headers)}
        if answer.line:
            record["line"] = answer.line
        if isinstance(step.call.operation, Download | Fetch) and not answer.body.lstrip().startswith(b"{"):
            record["size"] = len(answer.body)  # the content of a file is private, and no decision depends on it
        else:
            record.update(self._body(answer.body, hides))
        if shown := shown_in(reply):
            record["shown"] = {place: self._mask.value(_fields(one), hides) for place, one in shown.items()}
        return record

    def _body(self, body: bytes, hides: Hides) -> Json:
        # surrogateescape keeps bytes that are not UTF-8, and gives them back unchanged below.
        masked = self._mask.answer(body.decode("utf-8", "surrogateescape"), hides)
        if not any("\udc80" <= letter <= "\udcff" for letter in masked):
            return {"body": masked}
        return {"bytes": base64.b64encode(masked.encode("utf-8", "surrogateescape")).decode()}

    def _unanswered(self, reply: Reply) -> Json:
        if reply.kind is ResponseKind.SILENT:
            return {"fault": self._mask.text(str(reply.error)), "url": self._mask.text(reply.response.url)}
        return {"trouble": reply.response.errors}

    def _write(self, line: Json) -> None:
        encoded = json_to_keep(line)
        if self.path is None:
            self.lines.append(encoded)
            return
        with self._lock:
            if self._write_failed:
                return
            try:
                # Opened for each line, so that a crash loses the last one at most.
                with self.path.open("ab") as file:
                    file.write(encoded + b"\n")
            except (OSError, ValueError) as error:
                # Once only: each further line would fail and log the same error.
                self._write_failed = True
                reason = getattr(error, "strerror", None) or error
                log.error("the recording ends here: %s: %s; the chat goes on without it", self.path, reason)


def _text_of(operation: Operation) -> str:
    """Return the text of the customer that an operation sends: a message or a typing preview."""
    match operation:
        case Send() | CustomNotice():
            return operation.message
        case Refresh() | StartTyping() | StopTyping():
            return operation.preview
        case _:
            return ""


def _given_texts(step: Step) -> tuple[object, ...]:
    """Return the texts that a command was given, before they were made fit to be sent."""
    return (step.data.get("message"), step.data.get("Message")) if isinstance(step, Asked) else ()


def _hiding(filters: Filters) -> Hides:
    patterns = (BUILT_IN(), *filters)
    return lambda text: any(pattern.search(text) for pattern in patterns)


def events_of(decision: Decision, transport: Transport, mask: Mask, hides: Hides) -> list[Json]:
    """Return the events of a decision as the bus carries them, without secrets."""
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
    """Return the outcome of a decision's command; its value is not recorded, as the caller may put any object in it."""
    settled = decision.settled
    if settled is None:
        return {}
    return {"resolved": True} if settled.resolved else {"resolved": False, "reason": mask.text(settled.reason)}


def described(request: Request, mask: Mask, hides: Hides) -> Json:
    """Return a request for reading and comparing; files by their names alone."""
    record: Json = {
        "operation": request.operation,
        "method": request.method,
        "url": mask.url(request.url),
        "headers": mask.headers(request.headers),
    }
    if request.parts:
        fields = [(name, value) for name, value in request.parts if isinstance(value, str)]
        record["form"] = mask.form(fields, hides)
        # Names alone: contents are private, and no decision depends on them.
        record["files"] = [value.name for _, value in request.parts if isinstance(value, FilePart)]
    elif request.content_type == FORM:
        fields = parse_qsl(request.body.decode("ascii"), keep_blank_values=True)
        record["form"] = mask.form(fields, hides, all_own=request.operation == "updateData")
    elif request.body:
        record["json"] = mask.value(read_json(request.body), hides, own=True)
    return record


def _fields(message: Message) -> Any:
    """Return the fields of a message, which preprocessors may have filled with anything."""
    return jsonable({**asdict(message), "sender": asdict(message.sender)})


def shown_in(reply: Reply) -> Mapping[str, Message]:
    """Return the messages of a reply that preprocessors changed, by their number in it."""
    received = [message for one in (reply, *reply.pushes) for message in one.received]
    return {str(place): message.shown for place, message in enumerate(received) if message.shown is not None}


def documented(config: Config, mask: Mask) -> Json:
    """Return a configuration in its documented form, without secrets and without settings of the network alone."""
    given: Json = msgspec.to_builtins(config, enc_hook=lambda function: None)
    client = given["client"]
    # Settings that a decision depends on; proxy, TLS and timeouts belong to a network that a replay has not.
    kept = {key: client[key] for key in ("pollJitter", "retry", "maxAnswerSize", "maxDownloadSize")}
    headers = config.custom_headers if config.enable_custom_header else config.client.headers
    given["client"] = {**kept, "headers": dict.fromkeys(headers, MASK)}
    given["apikey"] = MASK if config.apikey else ""
    given["userData"] = mask_values(config.user_data)
    del given["_main.header"]
    if config.transport is None:
        del given["transport"]
    else:
        given["transport"]["headers"] = dict.fromkeys(config.transport.headers, MASK)
        given["transport"]["async"] = {"enabled": config.transport.asynchronous.enabled}
    return {key: mask.value(value, lambda text: False) for key, value in given.items()}


def plain(value: Any, mask: Mask, above: tuple[int, ...] = ()) -> Any:
    """Return what a command or the store was given, as JSON; code, files and endless values as a placeholder."""
    if isinstance(value, Mapping | list | tuple):
        # By identity: a value may contain itself, and equal ones may stand side by side.
        if id(value) in above or len(above) >= DEEPEST:
            return {"$object": type(value).__name__}
        inside = (*above, id(value))
        if isinstance(value, Mapping):
            return {spelling(key): plain(inner, mask, inside) for key, inner in value.items()}
        return [plain(inner, mask, inside) for inner in value]
    for kind, made in _PLAIN.items():
        if isinstance(value, kind):
            return made(value, mask)
    return _object(value, mask)


def _object(value: Any, mask: Mask) -> Json:
    """Return a placeholder of an object, with the text that is sent for a date, a `UUID` and the like."""
    record = {"$object": type(value).__name__, "callable": callable(value), **_typing_input(value)}
    sent = not (record["callable"] or record["value"]) and not any(unsendable(value, ""))
    return {**record, "text": mask.text(text(value))} if sent else record


def _typing_input(value: Any) -> Json:
    """Return what decides whether registerTypingPreviewInput accepts an object."""
    try:
        kind, has_value = getattr(value, "type", None), hasattr(value, "value")
    except (
        Exception
    ):  # a property of the user's object failed: the command accepts such an input, so the replay must too
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
    given["user_data"], given["cookies"] = mask_values(value.user_data), {}
    given["address"] = mask.text(value.address)
    return {"$saved": given}


def _file(value: FileToSend, mask: Mask) -> Json:
    return {"$file": {"name": value.name, "size": value.size, "content_type": value.content_type}}


def _unchanged(value: Any, mask: Mask) -> Any:
    return value


_PLAIN: dict[type | tuple[type, ...], Callable[[Any, Mask], Any]] = {
    (str, int, float, type(None)): _unchanged,
    SavedSession: _saved,
    FileToSend: _file,
    re.Pattern: _pattern,
    os.PathLike: lambda value, mask: os.fspath(value),
}
