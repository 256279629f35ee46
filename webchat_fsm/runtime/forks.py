"""What a child of a fork may not share with its parent: locks of threads that are not there, and connections."""

from __future__ import annotations

import logging
import os
from typing import Protocol, runtime_checkable
from weakref import WeakSet

log = logging.getLogger("webchat_fsm")


@runtime_checkable
class Forked(Protocol):
    """Something that goes on alone in a child of a fork."""

    def after_fork(self) -> None:
        """Have locks that nobody holds, and leave to the parent what is the parent's. Called in the child alone."""
        ...


_known: WeakSet[Forked] = WeakSet()


def prepare(one: Forked) -> None:
    """See to it that `after_fork` is called in each child that is forked, as long as the object lives."""
    _known.add(one)


def _after_fork() -> None:
    for one in list(_known):
        try:
            one.after_fork()
        except Exception:
            log.exception("%r cannot be used in this child of a fork", one)


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_after_fork)
