"""Fault injection: which request fails, how, and how often.

A fault that replaces the answer (`server_status`, `http_status`, `refused`) or suppresses it (`drop`) prevents the
operation; one that changes a good answer (`tear`, `delay`, `duplicate`, `reorder`, `member`) does not. `takes_effect`
overrides this: with `drop=True, takes_effect=True` a message arrives although its sender gets no answer.

`member` names one member of the answer by a JSON path, and `value` replaces it, or `remove` takes it away::

    faults.add(operation="refresh", member="$.messages[1].text", value=42)
    faults.add(operation="refresh", member="$.messages[0].from.nickname", remove=True)

The path begins at the body of the answer (v3: `$.data.messages[0].text`); over CometD at the `data` of each message of
the chat that is pushed in that answer, as a rule the one to a `connect`. A path is made of `.name` and `[n]`. A path
that does not match an answer changes nothing, except that a missing last name is added to its object.

A fault in `Faults` hits the next operation that matches it. A host that chooses the request itself plans a fault for
that request alone (`ChatServer.handle(..., planned=...)`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Meta

from webchat_fsm._json import utf8
from webchat_fsm.server._http import ServerAnswer, ServerReply

Errors = tuple[int | tuple[int, str], ...]
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Status = Annotated[int, Meta(ge=200, le=599)]
LONGEST_DELAY = 1e9
"""Seconds, some thirty years, for which an answer may be held back."""

Steps = tuple[str | int, ...]

# Nine digits are more than any list has elements; Python refuses to read numbers of thousands of digits.
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<place>[0-9]{1,9})\]")


def steps(path: str) -> Steps:
    """Split the path of a member, `$.messages[1].text`; raises `ValueError` for an invalid path."""
    found = list(_STEP.finditer(path, 1))
    # `finditer` skips what it cannot match, so the parts have to add up to the whole path.
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
    """Copy a value with the member at the path changed; an unmatched path changes nothing but may add a last name."""
    step, rest = path[0], path[1:]
    if isinstance(inside, dict) and isinstance(step, str) and (step in inside or not rest):
        new = _with(inside[step], rest, value) if rest else value
        return {key: one for key, one in {**inside, step: new}.items() if one is not msgspec.UNSET}
    if isinstance(inside, list) and isinstance(step, int) and step < len(inside):
        new = _with(inside[step], rest, value) if rest else value
        return [*inside[:step], *([] if new is msgspec.UNSET else [new]), *inside[step + 1 :]]
    return inside


if TYPE_CHECKING:
    Body = bytes | str | None
else:  # msgspec decodes no union of texts and bytes; `checked` encodes a text before the conversion
    Body = bytes | None


class Fault(msgspec.Struct, kw_only=True):
    """One fault; the fields that are set combine, so that an answer may be slow and torn at once."""

    operation: str | None = None
    """Name of the operation, either the common one (`send`) or that of the wire (`sendMessage`); None is any."""
    dialect: Literal["v2", "v3", "cometd"] | None = None
    """Only in `v2`, `v3` or `cometd`; None is any."""
    times: Count = 1
    """Number of requests that it hits; afterwards it is removed."""
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
    """The `chatEnded` of a `server_status` envelope; None is the actual state of the chat."""
    retry_after: NotNegative | None = None
    """Seconds, sent in a Retry-After header."""
    body: Body = None
    """Literal body to send instead of the answer's own; a text is sent as UTF-8."""
    refused: str | None = None
    """CometD: the Bayeux reply is not successful, with this text."""
    mute: bool = False
    """CometD: the publish is acknowledged and has no effect."""
    drop: bool = False
    """No answer: the connection is cut."""
    tear: bool = False
    """The connection is closed before the announced length of the answer is sent."""
    delay: Annotated[float, Meta(ge=0, le=LONGEST_DELAY)] = 0.0
    """Seconds for which the answer is held back."""
    duplicate: bool = False
    """Each message in the answer is repeated."""
    reorder: bool = False
    """The messages in the answer are in reverse order."""
    member: str | None = None
    """Path of a member of the answer that is replaced by `value`, or removed with `remove`."""
    value: Any = msgspec.UNSET
    """Any JSON value, null too."""
    remove: bool = False
    takes_effect: bool | None = None

    @property
    def replaces(self) -> bool:
        """Return whether the fault replaces or suppresses the operation's own answer."""
        own = self.server_status, self.http_status, self.refused
        return self.drop or self.mute or self.body is not None or any(value is not None for value in own)

    @property
    def wrong(self) -> bool:
        """Return whether the fault changes, delays or replaces an answer at all."""
        return self.replaces or self.tear or self.delay > 0 or self.duplicate or self.reorder or self.member is not None

    @property
    def happens(self) -> bool:
        """Return whether the operation is performed, by `takes_effect` or by the kind of the fault."""
        return not self.replaces if self.takes_effect is None else self.takes_effect

    def error_list(self) -> list[dict[str, object]]:
        """Return the v2 errors in wire format."""
        named = (error if isinstance(error, tuple) else (error, "") for error in self.errors)
        return [{"code": code, **({"advice": advice} if advice else {})} for code, advice in named]

    def spoil(self, reply: ServerReply) -> ServerReply:
        """Return the reply with its messages repeated or reversed, and members replaced or removed."""
        payload = self._rearranged(reply.payload) if self.duplicate or self.reorder else reply.payload
        # After the repetition: a path counts the messages as they are sent.
        for member, value in self.changes:
            payload = changed(payload, steps(member), value)
        return reply if payload is reply.payload else msgspec.structs.replace(reply, payload=payload)

    @property
    def changes(self) -> tuple[tuple[str, Any], ...]:
        """Return the members that are changed, each with its new value, which is UNSET where it is removed."""
        return () if self.member is None else ((self.member, self.value),)

    def _rearranged(self, payload: object) -> object:
        if isinstance(payload, list):
            return [self._rearranged(item) for item in payload]
        if not isinstance(payload, dict):
            return payload
        # v3 and CometD carry the messages one level further down, in `data`.
        rearranged = {**payload, **({"data": self._rearranged(payload["data"])} if "data" in payload else {})}
        if isinstance(messages := payload.get("messages"), list):
            repeated = [message for message in messages for _ in range(2 if self.duplicate else 1)]
            rearranged["messages"] = repeated[::-1] if self.reorder else repeated
        return rearranged

    def send(self, answer: ServerAnswer) -> ServerAnswer:
        """Return the answer with the fault's header, body, delay and fate."""
        headers = dict(answer.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return ServerAnswer(
            status=answer.status,
            headers=headers,
            body=answer.body if self.body is None else utf8(self.body) if isinstance(self.body, str) else self.body,
            delay=self.delay,
            # Dropped before torn: a dropped answer has no bytes of which a part could be sent.
            fate="drop" if self.drop else "tear" if self.tear else "whole",
        )


class _MergedFault(Fault, kw_only=True):
    """Several faults of one request as one; each keeps its own change of a member."""

    all_changes: tuple[tuple[str, Any], ...] = ()

    @property
    def changes(self) -> tuple[tuple[str, Any], ...]:
        """Return the members that any of them changes, in their order."""
        return self.all_changes


_NO_FAULT = Fault()


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
    # Both set, or neither.
    if given is fault.remove:
        remedy = "either the value or remove, not both" if given else "the value that is to stand there, or remove=True"
        raise ValueError(f"{where}member: give {remedy}")
    try:
        # Now rather than with the answer: there the error would be that of a thread of the server.
        msgspec.json.encode(fault.value if given else None)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{where}value: expected a JSON value, got {type(fault.value).__name__} ({error})") from None
    except UnicodeEncodeError:
        return  # half a surrogate pair is a text of JSON, too


F = TypeVar("F", bound=Fault)


def checked(kind: type[F], given: Mapping[str, Any], where: str = "", *, without: Iterable[str] = ()) -> F:
    """Build a fault from its keys, of which those in `without` are not allowed; `where` begins each error text.

    Raises `TypeError` for an unknown key, with the nearest known one, and `ValueError` for an invalid value.
    """
    known = [name for name in kind.__struct_fields__ if name not in without]
    for key in given:
        # msgspec ignores unknown keys, so that a misspelt fault would never hit.
        if key not in known:
            raise TypeError(f"{where}a fault has no {key!r}{_hint(key, known)}")
    body = given.get("body")
    try:
        fault = msgspec.convert({**given, "body": utf8(body)} if isinstance(body, str) else dict(given), kind)
    except msgspec.ValidationError as error:
        raise ValueError(where + _reason(error, given)) from None
    _check_member(fault, where)
    return fault


def _reason(error: msgspec.ValidationError, given: Mapping[str, Any]) -> str:
    """Rearrange an error of msgspec: the key first, then what was expected, then the value."""
    # msgspec writes "Expected `int`, got `str` - at `$.times`".
    text, _, path = str(error).replace("`", "").partition(" - at $.")
    expected, key = text.partition(", got ")[0], path.partition("[")[0]
    value = f", got {given[key]!r}" if expected.startswith("Expected") else ""
    return f"{path}: {expected[:1].lower()}{expected[1:]}{value}"


def check_operation(name: str | None, known: Iterable[str]) -> None:
    """Raise `ValueError` for an unknown operation, with the nearest known one; None is any operation."""
    names = sorted(known)
    if name is not None and name not in names:
        raise ValueError(f"no operation is called {name!r}{_hint(name, names)}")


def _hint(name: object, known: Sequence[str]) -> str:
    """Return the nearest known name, or else all names."""
    # Not shared with `_errors`: there an unmatched name yields no list.
    closest = get_close_matches(str(name), known, 1)
    return f"; did you mean {closest[0]!r}?" if closest else f"; there are {', '.join(known)}"


def merged(faults: Sequence[Fault]) -> Fault:
    """Merge the faults of one request into one; of two different values the later counts, all members are changed."""
    # Changes of members are gathered apart, as one fault has only one `member`.
    values: dict[str, Any] = {"all_changes": tuple(change for fault in faults for change in fault.changes)}
    for fault in faults:
        own = ((name, getattr(fault, name)) for name in Fault.__struct_fields__)
        # Only what a fault sets itself counts: the defaults of a later one must not undo an earlier one.
        values.update((name, value) for name, value in own if value != getattr(_NO_FAULT, name))
    return _MergedFault(**values)


P = ParamSpec("P")


def _keywords_of(
    kind: Callable[P, Fault],
) -> Callable[[Callable[..., Fault]], Callable[Concatenate[Faults, P], Fault]]:
    """Give a method the keywords of a fault for type checkers, so that they are listed once."""
    return lambda method: method


class Faults:
    """The scheduled faults, in the order in which they were added."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        """Names of operations; empty means that names are not checked."""
        self._waiting: list[Fault] = []
        self._planned: list[Fault] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @_keywords_of(Fault)
    def add(self, **fault: Any) -> Fault:
        """Schedule a fault: `add(operation="refresh", server_status=1, times=6)`.

        Raises `TypeError` for an unknown keyword and `ValueError` for an invalid value.
        """
        added = checked(Fault, fault)
        # It would be counted down without a trace, and the test would prove nothing.
        if not added.wrong:
            raise ValueError("nothing goes wrong in this fault: set what fails, such as drop=True or http_status=503")
        if self.known:
            check_operation(added.operation, self.known)
        self._waiting.append(added)
        return added

    def clear(self) -> None:
        """Remove all scheduled faults; those planned for a running request still apply."""
        self._waiting.clear()

    @contextmanager
    def planned(self, faults: Sequence[Fault]) -> Iterator[None]:
        """Apply these faults to the first operation of the block, before the scheduled ones."""
        self._planned = list(faults)
        try:
            yield
        finally:
            self._planned = []

    def take(self, dialect: str, *names: str) -> Fault | None:
        """Return the fault that hits an operation with any of these names, and count it down."""
        # All are used up by the first operation: the request may contain others, which they are not meant for.
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
                # Safe inside the loop, which ends here.
                self._waiting.remove(fault)
            return fault
        return None
