"""One member of an answer, by its path: found, replaced, added or removed."""

from __future__ import annotations

import re

import msgspec

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
