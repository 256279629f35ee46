r"""Encode and decode texts and values; no text and no value of a user or a server makes the encoder fail.

There are two ways out. What goes to a chat server has no lone surrogates (each becomes U+FFFD, as in the form of a
browser). What goes to a recording, a store, a terminal or a scripted test keeps them, as the JSON escape `\ud83d`,
which `read_json` reads back. A value that JSON has no form for is written as its text; one that holds itself, or is
nested or large beyond all use, is cut off there, with a text in its place that says so.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from webchat_fsm._model import scalars

DEEPEST = 100
"""Levels of nesting that are kept where a value has to be taken apart; a recursive reader has room for them."""

MOST = 100_000
"""Values that are kept where one has to be taken apart: what refers to one thing twice at each level never ends."""

LONGEST_INTEGER = 14_000
"""Bits of an integer that is still written as digits; Python refuses to spell longer ones."""

CYCLE = "<holds itself>"
TOO_DEEP = "<nested too deep>"
TOO_MUCH = "<too many values>"


REFUSED = (msgspec.MsgspecError, ValueError)
"""What msgspec raises at a value that it cannot read: its own errors are no `ValueError` before 0.22."""


def utf8(text: str) -> bytes:
    """Encode a text as a browser sends it: lone surrogates become U+FFFD."""
    return scalars(text).encode()


def json_to_send(value: Any) -> bytes:
    """Encode a value as JSON for a chat server; what JSON does not know is sent as its text."""
    return _encoded(value, lambda: utf8(json.dumps(_Plain(scalars).of(value), ensure_ascii=False)))


def json_to_keep(value: Any) -> bytes:
    """Encode a value as JSON that `read_json` gives back as it was, lone surrogates included; never a line break."""
    return _encoded(value, lambda: json.dumps(jsonable(value)).encode("ascii"))


def json_to_read(value: Any) -> bytes:
    """Encode as `json_to_keep` does, indented for people."""
    encoded = json_to_keep(value)
    try:
        return msgspec.json.format(encoded, indent=2)
    except REFUSED:  # msgspec refuses the lone surrogates that it does not write itself
        return json.dumps(json.loads(encoded), indent=2).encode("ascii")


def _encoded(value: Any, slowly: Callable[[], bytes]) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except Exception:  # lone surrogates, endless or hostile values: the code of a user's object may raise anything
        return slowly()


def jsonable(value: Any) -> Any:
    """Copy a value as dicts, lists, texts and finite numbers that JSON has, bounded in depth and number."""
    return _Plain(lambda text: text).of(value)


def read_json(data: bytes | str) -> Any:
    """Decode JSON, lone surrogates as escapes included; raises `ValueError` for what is none, or is nested too deep."""
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deep to be read") from None
    except REFUSED as error:  # msgspec refuses a lone surrogate, which RFC 8259 allows
        return _read_slowly(data, error)


def _read_slowly(data: bytes | str, error: Exception) -> Any:
    escape: bytes | str = rb"\ud" if isinstance(data, bytes) else r"\ud"
    if escape not in data.lower():  # type: ignore[operator]  # both are of the same type
        raise ValueError(str(error)) from error
    try:
        return json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deep to be read") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def spelling(value: Any) -> str:
    """Spell a value as text; one whose own code fails at it, or an integer too long for that, is described."""
    try:
        return str(value)
    except Exception as error:  # the code of a user's object may raise anything
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


class _Plain:
    """Takes one value apart; `text` is done to each text of it."""

    def __init__(self, text: Callable[[str], str]) -> None:
        self._text = text
        self._left = MOST
        self._above: set[int] = set()

    def of(self, value: Any) -> Any:
        """Copy a value as what JSON has."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, bytes | bytearray):
            return base64.b64encode(value).decode("ascii")
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._nested(value)
        return self._text(spelling(value))

    def _number(self, value: float) -> Any:
        if isinstance(value, int):
            return int(value) if value.bit_length() <= LONGEST_INTEGER else f"<integer of {value.bit_length()} bits>"
        return float(value) if math.isfinite(value) else None

    def _nested(self, value: Any) -> Any:
        self._left -= 1
        if id(value) in self._above:
            return CYCLE
        if len(self._above) >= DEEPEST:
            return TOO_DEEP
        if self._left < 0:
            return TOO_MUCH
        self._above.add(id(value))
        try:
            return self._inside(value)
        except Exception as error:  # a mapping of the user's may raise anything while it is read
            return f"<{type(value).__name__} that cannot be read: {type(error).__name__}>"
        finally:
            self._above.discard(id(value))

    def _inside(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self._text(spelling(key)): self.of(inner) for key, inner in value.items()}
        return [self.of(inner) for inner in value]
