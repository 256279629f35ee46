"""Time that somebody else has frozen: what it shows, and how to move it.

freezegun and time-machine are looked for among what is imported, so neither is needed: one that is not imported cannot
have frozen the time. What is frozen is read from the package itself and not from `time.time()`, as freezegun tells by
the depth of the calls who is to see the real time: in another thread than the test's that would be anybody.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

MICRO, NANO = 1_000_000, 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Freeze(NamedTuple):
    """A freeze that time is in."""

    now: Callable[[], float]
    """Wall-clock seconds, as `time.time()` shows them; looking makes no time pass, not even an automatic tick."""
    shift: Callable[[timedelta], object]
    """Moves the frozen time, either way."""


def freeze() -> Freeze | None:
    """The innermost freeze, None where time is not frozen. freezegun lies above time-machine, never below."""
    return _freezegun() or _time_machine()


def real_monotonic() -> Callable[[], float] | None:
    """The monotonic clock that freezegun has replaced, None where it has not; time-machine leaves it alone."""
    api = sys.modules.get("freezegun.api")
    real: Callable[[], float] | None = getattr(api, "real_monotonic", None)
    return real if getattr(api, "freeze_factories", None) else None


def seconds(micros: int) -> float:
    """Whole microseconds since the epoch as `time.time()` gives them, to the last bit."""
    whole, rest = divmod(micros, MICRO)
    return whole + rest / MICRO


def micros(moment: float) -> int:
    """The first whole microsecond that is not before a moment."""
    near = round(moment * MICRO)
    return near if seconds(near) >= moment else near + 1


def move_to(frozen: Freeze, moment: float) -> None:
    """Move a freeze to the first microsecond that is not before a moment, unless that has passed."""
    left = micros(moment) - micros(frozen.now())
    if left > 0:
        frozen.shift(timedelta(microseconds=left))


def _freezegun() -> Freeze | None:
    factories = getattr(sys.modules.get("freezegun.api"), "freeze_factories", None)
    if not factories:
        return None
    factory: Any = factories[-1]

    def shown() -> datetime:
        at: datetime = factory.time_to_freeze if hasattr(factory, "step_width") else factory()
        return at

    # Its own `tick` forgets the time that has passed by itself under `tick=True`; `move_to` does not.
    return Freeze(
        now=lambda: seconds((shown() - _EPOCH) // timedelta(microseconds=1)),
        shift=lambda delta: factory.move_to(shown() + delta),
    )


def _time_machine() -> Freeze | None:
    module = sys.modules.get("time_machine")
    stack = getattr(module, "traveller_stack", None) or getattr(module, "coordinates_stack", None)
    return Freeze(now=lambda: stack[-1].time_ns() / NANO, shift=stack[-1].shift) if stack else None
