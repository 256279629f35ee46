"""A path that a session has walked, told step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from webchat_fsm.lifecycle.table import State, Trigger

Step = tuple[State, Trigger, State]


def merged(steps: Sequence[Step]) -> Iterator[tuple[Step, int]]:
    """The steps in order, each with how often in a row it was taken."""
    for step, same in groupby(steps):
        yield step, sum(1 for _ in same)


def walked(steps: Sequence[Step]) -> str:
    """The path for a terminal: one line a step, ``idle --startChat--> starting``, steps in a row counted together."""
    widest = max((len(source) for source, _, _ in steps), default=0)
    return "".join(
        f"{source:>{widest}} --{trigger}--> {dest}{f'  (x{times})' if times > 1 else ''}\n"
        for (source, trigger, dest), times in merged(steps)
    )
