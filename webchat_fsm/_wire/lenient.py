"""Lenient reading: what is wrong with one member of an answer costs that member and nothing beside it.

A dialect says which members there are, as structs whose fields all have a default. A good value becomes its struct in
one strict conversion; strict, as the lax one takes the text "null" for nothing. Only where that fails each element of a
list is read on its own, and each member on its own by the reader for its type. A value that the strict conversion takes
is the same when it is read on its own, so that a member does not depend on its neighbours.

What can be read: a number where a text belongs is its text, a number in a text is the number, `2.0` is 2 (as gson
writes), an object may be written as JSON text (as form fields carry it). null says nothing. All else counts as not
said, and is named by kind: the place, what was expected and what came, never the value, which may be a secret. The
kinds are bounded by what the structs declare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from webchat_fsm._json import LONGEST_INTEGER, REFUSED
from webchat_fsm._model import milliseconds
from webchat_fsm._wire.decoding import object_in

MAX_INDEX = 2**53
"""Positions beyond what a JavaScript client can count are no positions."""

Position = Annotated[int, Meta(ge=0, le=MAX_INDEX)]
"""A place in the transcript."""

Amount = Annotated[int, Meta(title="amount")]
"""A number whose fraction does not matter, such as seconds that are left; it is cut off."""

Moment = Annotated[int, Meta(title="moment")]
"""Milliseconds since the epoch, which may be written as ISO 8601."""

Stamp = Annotated[int | str, Meta(title="stamp")]
"""A moment that is handed on as the wire has it, but for the fraction of a number."""

T = TypeVar("T", bound=Struct)
Place = tuple[str, set[str]]
"""Where a value stands, and the kinds of what could not be read so far."""

UNREAD: Final = object()
"""Stands for a value that cannot be read."""

_NUMBER = cache(lambda: re.compile(r"[+-]?\d{1,400}(\.\d{0,400})?([eE][+-]?\d{1,3})?", re.ASCII))

_KINDS = {NoneType: "null", dict: "object", list: "array"}


def read(kind: type[T], value: Any) -> tuple[T, tuple[str, ...]]:
    """Read an object as a struct, and name what of it could not be read; a value that is none says nothing."""
    try:
        return msgspec.convert(value, kind), ()
    except REFUSED:  # half a surrogate in a text or a name among it
        misread: set[str] = set()
        return _element(kind, value, ("", misread)), tuple(sorted(misread))


def spelled(value: Any) -> str | None:
    """Spell what is read where a text belongs; None for what cannot be read as one."""
    found = _text(value, ("", set()))
    return None if found is UNREAD else found


def kind_of(value: Any) -> str:
    """Name the JSON type of a value as msgspec does."""
    return _KINDS.get(type(value), type(value).__name__)


def _element(kind: type[T], value: Any, place: Place) -> T:
    """Read one element of a list, which is empty where it is no object."""
    try:
        return msgspec.convert(value, kind)
    except REFUSED:
        found = _members(kind, value, place)
    if found is UNREAD:
        _note(place, "object", value)
        return kind()
    return found  # type: ignore[no-any-return]  # a struct of that kind


def _members(kind: type[Struct], value: Any, place: Place) -> Any:
    """Read an object member by member."""
    if not isinstance(value, dict):
        return UNREAD
    where, misread = place
    said = {}
    for member in _declared(kind):
        if (given := value.get(member.on_wire)) is not None:
            inner = (f"{where}.{member.on_wire}" if where else member.on_wire, misread)
            found = member.read(given, inner)
            if found is UNREAD:
                _note(inner, member.expected, given)
            else:
                said[member.name] = found
    return kind(**said)


def _note(place: Place, expected: str, got: Any) -> None:
    where, misread = place
    misread.add(f"{where or '$'}: expected {expected}, got {kind_of(got)}")


# -- readers -----------------------------------------------------------------------------------------------------------

Reader = Callable[[Any, Place], Any]


def _anything(value: Any, place: Place) -> Any:
    return value


def _text(value: Any, place: Place) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else str(value)  # as JavaScript spells it
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:  # Python refuses to spell it
        return UNREAD
    return str(value) if isinstance(value, int | str) else UNREAD


def _mark(value: Any, place: Place) -> Any:
    whole = UNREAD if isinstance(value, str) else _whole(value, place)
    return _text(value, place) if whole is UNREAD else whole


def _truth(value: Any, place: Place) -> Any:
    if value in (True, "true", "1"):  # 1 and 1.0 equal True
        return True
    return False if value in (False, "false", "0") else UNREAD


def _number(value: Any) -> int | float | None:
    if isinstance(value, str) and _NUMBER().fullmatch(value.strip()):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) != float("inf") else None


def _whole(value: Any, place: Place) -> Any:
    number = _number(value)
    return UNREAD if number is None or number != int(number) else int(number)


def _position(value: Any, place: Place) -> Any:
    whole = _whole(value, place)
    return whole if whole is not UNREAD and 0 <= whole <= MAX_INDEX else UNREAD


def _amount(value: Any, place: Place) -> Any:
    number = _number(value)
    return UNREAD if number is None else int(number)


def _moment(value: Any, place: Place) -> Any:
    found = _amount(value, place)
    if found is UNREAD and isinstance(value, str):
        found = milliseconds(value)
    return UNREAD if found is None else found


def _stamp(value: Any, place: Place) -> Any:
    return value if isinstance(value, str) else _amount(value, place)


def _object(value: Any, place: Place) -> Any:
    found = value if isinstance(value, dict) else object_in(value)
    return UNREAD if found is None else found


_READERS: dict[Any, tuple[str, Reader]] = {
    Any: ("anything", _anything),
    str: ("str", _text),
    bool: ("bool", _truth),
    int: ("int", _whole),
    Position: ("position", _position),
    Amount: ("number", _amount),
    Moment: ("time", _moment),
    Stamp: ("time", _stamp),
    int | str: ("int or str", _mark),
    dict[str, Any]: ("object", _object),
}


class _Member(Struct, frozen=True):
    name: str
    on_wire: str
    expected: str
    read: Reader


@cache
def _declared(kind: type[Struct]) -> tuple[_Member, ...]:
    """List the members that a struct declares, each with its reader."""
    fields = msgspec.structs.fields(kind)
    return tuple(_Member(one.name, one.encode_name, *_reader(one.type)) for one in fields)


def _reader(declared: Any) -> tuple[str, Reader]:
    """Choose the reader for a type, which null is allowed beside."""
    if get_origin(declared) in (Union, UnionType):
        kinds = [one for one in get_args(declared) if one is not NoneType]
        declared = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007  (made of values)
    if isinstance(declared, type) and issubclass(declared, Struct):
        return "object", lambda value, place: _members(declared, value, place)
    if get_origin(declared) is list:
        (kind,) = get_args(declared)
        return "array", lambda value, place: _list(kind, value, place)
    return _READERS[declared]


def _list(kind: type[Struct], value: Any, place: Place) -> Any:
    if not isinstance(value, list):
        return UNREAD
    where, misread = place
    return [_element(kind, one, (f"{where}[]", misread)) for one in value]
