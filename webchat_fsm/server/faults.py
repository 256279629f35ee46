"""Faults on demand: what goes wrong, in which operation, and how often.

A fault that is an answer of its own (`server_status`, `http_status`, `refused`), or no answer (`drop`), keeps the
operation from happening; one that spoils a good answer (`tear`, `delay`, `duplicate`, `reorder`, `member`) does not.
`takes_effect` says otherwise: `drop=True, takes_effect=True` is the message that arrives although its sender never
hears of it.

`member` names one member of the answer by a JSON path, and `value` replaces it, or `remove` takes it away::

    faults.add(operation="refresh", member="$.messages[1].text", value=42)
    faults.add(operation="refresh", member="$.messages[0].from.nickname", remove=True)

The path begins at the body of the answer (v3: `$.data.messages[0].text`); over CometD at the `data` of each message of
the chat that is pushed in that answer, which as a rule is the one to a `connect`. A path is made of `.name` and `[n]`.
Where it leads nowhere in an answer, nothing is changed, but a last name that an object has not is added to it.

What waits in `Faults` hits whichever operation comes next that it fits. A host that knows which request is to fail
plans a fault for that one alone (`ChatServer.handle(..., planned=...)`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Meta

from webchat_fsm.lifecycle.encoding import utf8
from webchat_fsm.server.exchange import HttpAnswer, Reply

Errors = tuple[int | tuple[int, str], ...]
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Status = Annotated[int, Meta(ge=200, le=599)]
LONGEST = 1e9
"""Seconds, some thirty years, for which an answer may be held back."""

Steps = tuple[str | int, ...]

_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<place>[0-9]{1,9})\]")


def steps(path: str) -> Steps:
    """Split the path of a member, `$.messages[1].text`; raises `ValueError` for what is none."""
    found = list(_STEP.finditer(path, 1))
    if path[:1] != "$" or not found or "".join(["$", *(step[0] for step in found)]) != path:
        raise ValueError(f"member: expected a path such as '$.messages[1].text', got {path!r}")
    return tuple(step["name"] or int(step["place"]) for step in found)


def changed(payload: object, path: Steps, value: object) -> object:
    """Return the payload with one member replaced, or removed where the value is UNSET.

    Only what is on the way is copied. A list of Bayeux messages is changed in the `data` of each that is pushed.
    """
    if not isinstance(payload, list):
        return _with(payload, path, value)
    return [_with(message, ("data", *path), value) if _is_push(message) else message for message in payload]


def _is_push(message: object) -> bool:
    return isinstance(message, dict) and "data" in message


def _with(inside: object, path: Steps, value: object) -> object:
    """Change what the path leads to; where it leads nowhere, nothing is changed, but a last name is added."""
    step, rest = path[0], path[1:]
    if isinstance(inside, dict) and isinstance(step, str) and (step in inside or not rest):
        new = _with(inside[step], rest, value) if rest else value
        return {key: one for key, one in {**inside, step: new}.items() if one is not msgspec.UNSET}
    if isinstance(inside, list) and isinstance(step, int) and step < len(inside):
        new = _with(inside[step], rest, value) if rest else value
        return [*inside[:step], *([] if new is msgspec.UNSET else [new]), *inside[step + 1 :]]
    return inside


class FaultOptions(TypedDict, total=False):
    """The keywords of `Faults.add`: the fields of `Fault`, spelled out for type checkers."""

    operation: str | None
    dialect: Literal["v2", "v3", "cometd"] | None
    times: int
    skip: int
    server_status: int | None
    http_status: int | None
    errors: Errors
    code: str | None
    message: str
    chat_ended: bool | None
    retry_after: int | None
    body: bytes | str | None
    refused: str | None
    mute: bool
    drop: bool
    tear: bool
    delay: float
    duplicate: bool
    reorder: bool
    member: str | None
    value: Any
    remove: bool
    takes_effect: bool | None


class Fault(msgspec.Struct, kw_only=True):
    """One fault; the fields that are set combine, so that an answer may be slow and torn at once."""

    operation: str | None = None
    """Name of the operation, either the common one (`send`) or that of the wire (`sendMessage`); None is any."""
    dialect: Literal["v2", "v3", "cometd"] | None = None
    """Only in `v2`, `v3` or `cometd`; None is any."""
    times: Count = 1
    """How many requests it hits; afterwards it is spent."""
    skip: NotNegative = 0
    """How many requests pass before the first hit."""
    server_status: int | None = None
    """An envelope with this statusCode (v2, CometD: 1 temporary, 2 final) or status code (v3)."""
    http_status: Status | None = None
    errors: Errors = ()
    """v2 error codes, alone or with their advice, sent with `server_status` or `http_status`."""
    code: str | None = None
    """v3 name of the error, sent with `http_status`."""
    message: str = ""
    """v3 text of the error."""
    chat_ended: bool | None = None
    """What a `server_status` envelope says of the chat; None tells the truth."""
    retry_after: NotNegative | None = None
    """Seconds told in a Retry-After header."""
    body: bytes | None = None
    """Literal body to send instead of the answer's own; a text is sent as UTF-8."""
    refused: str | None = None
    """CometD: the Bayeux reply is not successful, with this text."""
    mute: bool = False
    """CometD: the publish is acknowledged and nothing comes of it."""
    drop: bool = False
    """No answer: the connection is cut."""
    tear: bool = False
    """The answer breaks off before the length it announced."""
    delay: Annotated[float, Meta(ge=0, le=LONGEST)] = 0.0
    """Seconds for which the answer is held back."""
    duplicate: bool = False
    """Every message in the answer is there twice."""
    reorder: bool = False
    """The messages in the answer are in reverse order."""
    member: str | None = None
    """The path of a member of the answer that is replaced by `value`, or goes with `remove`."""
    value: Any = msgspec.UNSET
    """Any JSON value, null too."""
    remove: bool = False
    takes_effect: bool | None = None

    @property
    def replaces(self) -> bool:
        """Whether there is an answer, or none, of the fault's own."""
        own = self.server_status, self.http_status, self.refused
        return self.drop or self.mute or self.body is not None or any(value is not None for value in own)

    @property
    def wrong(self) -> bool:
        """Whether anything goes wrong at all."""
        return self.replaces or self.tear or self.delay > 0 or self.duplicate or self.reorder or self.member is not None

    @property
    def happens(self) -> bool:
        """Whether the operation is carried out all the same."""
        return not self.replaces if self.takes_effect is None else self.takes_effect

    def error_list(self) -> list[dict[str, object]]:
        """The v2 errors as they stand on the wire."""
        named = (error if isinstance(error, tuple) else (error, "") for error in self.errors)
        return [{"code": code, **({"advice": advice} if advice else {})} for code, advice in named]

    def spoil(self, reply: Reply) -> Reply:
        """The reply with its messages doubled or turned round, and a member of it replaced or removed."""
        payload = self._spoilt(reply.payload) if self.duplicate or self.reorder else reply.payload
        for member, value in self.changes:
            payload = changed(payload, steps(member), value)
        return reply if payload is reply.payload else msgspec.structs.replace(reply, payload=payload)

    @property
    def changes(self) -> tuple[tuple[str, Any], ...]:
        """The members that are changed, each with its new value, which is UNSET where it is removed."""
        return () if self.member is None else ((self.member, self.value),)

    def _spoilt(self, payload: object) -> object:
        if isinstance(payload, list):
            return [self._spoilt(item) for item in payload]
        if not isinstance(payload, dict):
            return payload
        spoilt = {**payload, **({"data": self._spoilt(payload["data"])} if "data" in payload else {})}
        if isinstance(messages := payload.get("messages"), list):
            repeated = [message for message in messages for _ in range(2 if self.duplicate else 1)]
            spoilt["messages"] = repeated[::-1] if self.reorder else repeated
        return spoilt

    def send(self, answer: HttpAnswer) -> HttpAnswer:
        """The answer as it travels under this fault."""
        headers = dict(answer.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return HttpAnswer(
            status=answer.status,
            headers=headers,
            body=answer.body if self.body is None else self.body,
            delay=self.delay,
            fate="drop" if self.drop else "tear" if self.tear else "whole",
        )


class _Together(Fault, kw_only=True):
    """What goes wrong with one request, by several faults."""

    all_changes: tuple[tuple[str, Any], ...] = ()

    @property
    def changes(self) -> tuple[tuple[str, Any], ...]:
        """The members that any of them changes, in their order."""
        return self.all_changes


_NOTHING = Fault()


def _check_member(fault: Fault, where: str) -> None:
    """Raise `ValueError` for a member without a change or with two, and for a change without a member."""
    given = fault.value is not msgspec.UNSET
    if fault.member is None:
        if given or fault.remove:
            name = "value" if given else "remove"
            raise ValueError(f"{where}{name}: name the member too, as in member='$.messages[1].text'")
        return
    try:
        steps(fault.member)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    if given is fault.remove:
        wanted = "either the value or remove, not both" if given else "the value that is to stand there, or remove=True"
        raise ValueError(f"{where}member: give {wanted}")
    try:
        msgspec.json.encode(fault.value if given else None)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{where}value: expected a JSON value, got {type(fault.value).__name__} ({error})") from None
    except UnicodeEncodeError:
        return  # half a surrogate pair is a text of JSON, too


F = TypeVar("F", bound=Fault)


def checked(kind: type[F], given: Mapping[str, Any], where: str = "", *, without: Iterable[str] = ()) -> F:
    """A fault from its keys, of which those `without` are unknown too; `where` begins the text of each error.

    Raises `TypeError` for an unknown key, with the one that was probably meant, and `ValueError` for a value that
    cannot be.
    """
    known = [name for name in kind.__struct_fields__ if name not in without]
    for key in given:
        if key not in known:
            raise TypeError(f"{where}a fault has no {key!r}{_hint(key, known)}")
    body = given.get("body")
    try:
        fault = msgspec.convert({**given, "body": utf8(body)} if isinstance(body, str) else dict(given), kind)
    except msgspec.ValidationError as error:
        raise ValueError(where + _told(error, given)) from None
    _check_member(fault, where)
    return fault


def _told(error: msgspec.ValidationError, given: Mapping[str, Any]) -> str:
    """What is wrong in the words of msgspec, with the key first and the value last."""
    text, _, path = str(error).replace("`", "").partition(" - at $.")
    expected, key = text.partition(", got ")[0], path.partition("[")[0]
    value = f", got {given[key]!r}" if expected.startswith("Expected") else ""
    return f"{path}: {expected[:1].lower()}{expected[1:]}{value}"


def check_operation(name: str | None, known: Iterable[str]) -> None:
    """Raise `ValueError` for an operation that is not known, with the one that was probably meant; None is any."""
    names = sorted(known)
    if name is not None and name not in names:
        raise ValueError(f"no operation is called {name!r}{_hint(name, names)}")


def _hint(name: object, known: Sequence[str]) -> str:
    """What was probably meant, or else all that there is; the server stands alone, so this is its own."""
    near = get_close_matches(str(name), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def merged(faults: Sequence[Fault]) -> Fault:
    """All that goes wrong with one request, in one fault; where two say different things, the later one counts.

    Each changes a member of its own.
    """
    values: dict[str, Any] = {"all_changes": tuple(change for fault in faults for change in fault.changes)}
    for fault in faults:
        own = ((name, getattr(fault, name)) for name in Fault.__struct_fields__)
        values.update((name, value) for name, value in own if value != getattr(_NOTHING, name))
    return _Together(**values)


class Faults:
    """The faults that are waiting to happen, in the order in which they were added."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        """Names of operations; empty means that names are not checked."""
        self._waiting: list[Fault] = []
        self._planned: list[Fault] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, **fault: Unpack[FaultOptions]) -> Fault:
        """Let something go wrong: `add(operation="refresh", server_status=1, times=6)`.

        Raises `TypeError` for an unknown keyword and `ValueError` for a value that cannot be.
        """
        added = checked(Fault, fault)
        if not added.wrong:
            raise ValueError("a fault needs something that goes wrong")
        if self.known:
            check_operation(added.operation, self.known)
        self._waiting.append(added)
        return added

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._waiting.clear()

    @contextmanager
    def planned(self, faults: Sequence[Fault]) -> Iterator[None]:
        """Let these go wrong, as one fault and ahead of what waits, in the first operation of the block, if any."""
        self._planned = list(faults)
        try:
            yield
        finally:
            self._planned = []

    def take(self, dialect: str, *names: str) -> Fault | None:
        """The fault that hits an operation known by these names now, counted down."""
        if planned := [fault for fault in self._planned if fault.dialect in (None, dialect)]:
            self._planned = []
            return merged(planned)
        for fault in self._waiting:
            if fault.operation not in (None, *names) or fault.dialect not in (None, dialect):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._waiting.remove(fault)
            return fault
        return None
