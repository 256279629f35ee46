"""The locks of the standard library's logging: taken with a time limit, and given back after an interruption.

Up to Python 3.12 a handler of logging is unlocked by a function in Python. A signal that strikes as that is entered
leaves it locked, and every other thread that logs would wait for ever.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from webchat_fsm.runtime.clock import monotonic

_RLOCK = type(threading.RLock())


def give_back() -> None:
    """Release every lock of logging that this thread holds, unless it is called inside of logging, which needs them."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return
        frame = frame.f_back
    module: Any = logging
    for lock in _reentrant(module._lock, *(getattr(one(), "lock", None) for one in list(module._handlerList))):
        while _released(lock):
            pass


def log_within(seconds: float, emit: Callable[[], object]) -> bool:
    """Call what logs on `webchat_fsm`, unless another thread holds one of its locks for so long; whether it was."""
    deadline = monotonic() + seconds
    held: list[Any] = []
    try:
        for lock in _reentrant(*_needed(logging.getLogger("webchat_fsm"))):
            if not lock.acquire(timeout=max(0.0, deadline - monotonic())):
                return False
            held.append(lock)  # a signal in between leaves it taken, and the command or close() gives it back
        emit()
        return True
    finally:
        for lock in held:
            lock.release()


def _needed(logger: logging.Logger | None) -> Iterator[Any]:
    """Yield the lock of the module, and those of the handlers that a line of a logger comes to."""
    module: Any = logging
    yield module._lock
    while logger is not None:
        yield from (handler.lock for handler in list(logger.handlers))
        logger = logger.parent if logger.propagate else None


def _reentrant(*locks: Any) -> list[Any]:
    """Keep the locks that a thread may take twice, as all of logging are unless a user has replaced one."""
    kinds = (_RLOCK, type(threading.RLock()))  # gevent and eventlet have one of their own
    return [lock for lock in locks if isinstance(lock, kinds)]


def _released(lock: Any) -> bool:
    """Release the lock once; False where this thread did not hold it."""
    try:
        lock.release()
    except RuntimeError:
        return False
    return True
