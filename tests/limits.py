"""How long tests wait for what must come, so that a slow machine fails none of them, and how many examples they draw.

No test measures a duration. One that waits for an event waits for at most `LONG`, which costs nothing, as the wait ends
with the event. One that shows that a call is not blocked has the other side block for `LONG`, and compares with `SOON`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LONG = 60.0
"""Seconds after which what a test waits for counts as lost; so long does a scripted server or handler block."""

SOON = 30.0
"""Seconds within which a call that is not blocked returns, on a machine that stalls for a while too."""


MANY_EXAMPLES = bool(os.environ.get("WEBCHAT_EXAMPLES"))
"""Whether a property is tested by all of its examples, as `.ci/run` does; the ordinary command draws a fourth."""


def examples(number: int) -> int:
    """Return how many examples of a property to draw: all of them, or a fourth and at least five."""
    return number if MANY_EXAMPLES else max(5, number // 4)


def eventually(holds: Callable[[], object]) -> None:
    """Wait until a condition holds, for at most `LONG`."""
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline, f"the condition did not hold within {LONG:.0f} s"
        time.sleep(0.001)
