"""Watching the state machine from outside: the library logs one record for each transition, at DEBUG."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from webchat_fsm.diagram.walk import Step
from webchat_fsm.lifecycle.table import State, Trigger

LOGGER = logging.getLogger("webchat_fsm")


class _Watch(logging.Handler):
    def __init__(self, stepped: Callable[[Step], None], warned: Callable[[str], None]) -> None:
        super().__init__(logging.DEBUG)
        self._stepped, self._warned = stepped, warned

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (Trigger() as trigger, State() as source, State() as dest):
                self._stepped((source, trigger, dest))
            case _ if record.levelno >= logging.WARNING:
                self._warned(record.getMessage())


def _nothing(step: Step) -> None:
    """For those who want to hear of warnings alone."""


@contextmanager
def watched(warned: Callable[[str], None], stepped: Callable[[Step], None] = _nothing) -> Iterator[None]:
    """Have each transition and each warning of the library told, and nothing else logged, while this lasts."""
    watch, level, propagate = _Watch(stepped, warned), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(watch)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(watch)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
