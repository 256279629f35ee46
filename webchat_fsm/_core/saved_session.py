"""The session as it is saved: the fields of the document, and its JSON; and the prefilters, which are saved with it.

The transitions decide when: the effect `KEEP` saves the document of that moment, which `Session.document` fills in,
where it has changed or its last contact is too old; the effect `FORGET` deletes it. `_runtime/store.py` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeGuard

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from webchat_fsm._json import REFUSED, read_json
from webchat_fsm._model import Json, SessionData
from webchat_fsm.lifecycle._transports import Transport

SAVED_EVERY = 5.0
"""Seconds by which the last contact that is saved may lag while nothing else changes, so that a poll that brings
nothing need not write a file. A session whose process died is restored for so much longer."""

VERSION = 1
"""The version of the JSON that is written; those of newer versions are refused."""


class SavedFilter(Struct, frozen=True, kw_only=True):
    """A prefilter as it is saved: the expression and Python's `re` flags."""

    source: str
    flags: int = 0


class SavedSession(Struct, frozen=True, kw_only=True):
    """The session document: enough to restore the session in another process.

    `cursor` is the next transcript position to ask for; `last_contact` the wall-clock seconds of the last answered poll
    or of an orderly close; `address` the chat server's URL, so that a session is never restored at another server.
    `last_index` is the index up to which no message is missing, "0" before the first one; None where it is unknown, as
    in a document of a version that did not save it.
    `closed` is true where an orderly close has written it; any other one may be up to `SAVED_EVERY` seconds older than
    the last contact.
    `cookies` are what the documented session data functions put into their jar.
    """

    transport: Transport
    address: str
    session_data: SessionData
    cursor: int | str = 1
    last_contact: float = 0.0
    user_data: Json = field(default_factory=dict)
    prefilters: list[SavedFilter] = field(default_factory=list)
    nickname: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    last_index: str | None = None
    closed: bool = False


class _Document(Struct, frozen=True, kw_only=True):
    """The content of a session file."""

    version: int
    session: SavedSession


class _Version(Struct, frozen=True):
    version: int


def document_of(saved: SavedSession) -> Json:
    """Return the JSON object of a saved session; its user data may be of any type that `json_to_read` serialises."""
    # user data apart: the encoder that writes the document has its own rules for what is no JSON
    session = msgspec.to_builtins(replace(saved, user_data={}), enc_hook=str)
    return {"version": VERSION, "session": {**session, "user_data": saved.user_data}}


def saved_in(data: bytes) -> SavedSession:
    """Read a saved session from the bytes of its JSON; raises ValueError with what is wrong with them."""
    try:
        read = read_json(data)
        version = msgspec.convert(read, _Version).version  # before the rest, which a newer version may have changed
        session = msgspec.convert(read, _Document).session if version <= VERSION else None
        # an expression that this version of Python refuses must not raise later, in the midst of a restore
        for prefilter in session.prefilters if session is not None else ():
            re.compile(prefilter.source, prefilter.flags)
    # OverflowError is raised by flags of a filter that are too large a number
    except (re.error, *REFUSED, RecursionError, OverflowError) as error:
        raise ValueError(f"damaged, or no session file ({error})") from error
    if session is None:
        raise ValueError(f"written by a newer version ({version}, known is {VERSION})")
    return session


# -- prefilters --------------------------------------------------------------------------------------------------------

# A message that one of them matches is noted and read like any other, so that joins, receipts and the cursor do not
# depend on them; only the transcript and `messageReceived` leave it out.

BUILT_IN = cache(lambda: re.compile(r"\{start:[0-9]{9}\}"))
"""The vendor's standard filter: the token of a co-browse session."""


def patterns_in(given: Any) -> list[re.Pattern[str]] | None:
    """Return the expressions that a command was given, one or any iterable of them; None where they are none."""
    # a text would be an iterable of its characters
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    patterns = [one for one in listed if _matches_text(one)]
    return patterns if patterns and len(patterns) == len(listed) else None


def _matches_text(value: object) -> TypeGuard[re.Pattern[str]]:
    return isinstance(value, re.Pattern) and isinstance(value.pattern, str)  # a pattern of bytes matches no text


class Prefilters:
    """The regular expressions whose messages are hidden; equal source and flags count once."""

    __slots__ = ("custom",)

    def __init__(self, saved: Iterable[SavedFilter] = ()) -> None:
        self.custom: list[re.Pattern[str]] = []
        self.merge(saved)

    def add(self, filters: Iterable[re.Pattern[str]]) -> None:
        """Add what is not there yet."""
        for pattern in filters:
            # patterns are equal by source and flags
            if pattern not in self.custom:
                self.custom = [*self.custom, pattern]  # a new list, as a mark keeps the old one by reference

    def clear(self) -> None:
        """Drop all but the built-in one."""
        self.custom = []

    def hide_any(self, texts: Sequence[str]) -> bool:
        """Return whether a filter matches one of these texts."""
        # the built-in filter is no member of `custom`, as `addPrefilter` returns that and `clear` must not drop it;
        # it matches no line end, so that one search looks through all texts
        if BUILT_IN().search("\n".join(texts)):
            return True
        return any(any(map(pattern.search, texts)) for pattern in self.custom)

    def saved(self) -> list[SavedFilter]:
        """Return the custom filters as they are saved."""
        return [SavedFilter(source=pattern.pattern, flags=pattern.flags) for pattern in self.custom]

    def merge(self, saved: Iterable[SavedFilter]) -> None:
        """Add saved ones, which the store has checked to compile."""
        self.add(re.compile(one.source, one.flags) for one in saved)
