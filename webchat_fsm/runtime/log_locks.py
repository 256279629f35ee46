"""Gives back the locks of the standard library's logging that an interruption has left with a thread.

Up to Python 3.12 a handler of logging is unlocked by a function in Python. A signal that strikes as that is entered
leaves it locked, and every other thread that logs would wait for ever.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import FrameType
from typing import Any

_RLOCK = type(threading.RLock())


def give_back() -> None:
    """Release every lock of logging that this thread holds, unless it is called inside of logging, which needs them."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return
        frame = frame.f_back
    module: Any = logging
    for lock in (module._lock, *(getattr(reference(), "lock", None) for reference in list(module._handlerList))):
        while isinstance(lock, _RLOCK) and _released(lock):
            pass


def _released(lock: Any) -> bool:
    """Whether this thread held the lock, which it now does once less."""
    try:
        lock.release()
    except RuntimeError:
        return False
    return True
