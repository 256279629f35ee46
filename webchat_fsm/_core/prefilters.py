"""The prefilters of a session: regular expressions that keep messages from being shown.

A message that one of them matches is noted and read like any other, so that joins, receipts and the cursor do not
depend on them; only the transcript and `messageReceived` leave it out. They are saved with the session and hide the
same messages after a restore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeGuard

from webchat_fsm._core.saved_session import SavedFilter

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
