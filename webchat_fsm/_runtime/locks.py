"""Locks that survive a fork, a signal and patched threads, and objects that refuse to be copied because they hold some.

Three things can leave a lock taken for ever, and each has its answer here:

- a fork: a lock that another thread of the parent holds stays taken in the child, where that thread does not exist.
  `renew_after_fork` has an object make new locks in each child.
- a signal: Ctrl-C may raise `KeyboardInterrupt` wherever a Python function is entered, also between a lock and the
  `try` that would release it. `call_locked` leaves no such place; `release_logging` repairs those in `logging`.
- gevent and eventlet: they replace locks and threads when a program patches the standard library. A lock made before
  that blocks every greenlet of the thread, so `patched_since` finds it and the service refuses to open.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Protocol, SupportsIndex, TypeVar, runtime_checkable
from weakref import WeakSet

log = logging.getLogger("webchat_fsm")

T = TypeVar("T")

_RLOCK = type(threading.RLock())


class Lock(Protocol):
    """A lock that can be acquired with a timeout."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False after `timeout` seconds, -1 waits without a limit."""
        ...

    def release(self) -> None:
        """Give the lock back; raises `RuntimeError` where this thread does not hold it."""
        ...


def call_locked(lock: Lock, action: Callable[[], T], timeout: float = -1.0) -> T | None:
    """Call an action under a lock and return its result; None where the lock was not free within `timeout` seconds.

    `with lock:` has no timeout, and a context manager in Python may be interrupted as its `__exit__` is entered.
    """
    try:  # encloses `acquire` too: a signal may strike after the lock is taken and before its result is seen
        return action() if lock.acquire(timeout=timeout) else None
    finally:
        try:  # noqa: SIM105  (`suppress` is a Python function, at whose entry a signal may strike)
            lock.release()
        except RuntimeError:
            pass  # it was not acquired


def patched_since(lock: object) -> bool:
    """Return whether gevent or eventlet has replaced the locks of `threading` since this one was made."""
    return type(lock) is not type(threading.RLock())


# -- forks -------------------------------------------------------------------------------------------------------------


@runtime_checkable
class Forked(Protocol):
    """An object that makes new locks, and drops inherited connections, in a forked child."""

    def after_fork(self) -> None:
        """Recreate locks and drop inherited connections; called in the child alone."""
        ...


_forked: WeakSet[Forked] = WeakSet()


def renew_after_fork(one: Forked) -> None:
    """Call `after_fork` of an object in each forked child, as long as the object lives."""
    _forked.add(one)


def _renew_all() -> None:
    for one in list(_forked):
        try:
            one.after_fork()
        except Exception:  # an exception here would leave the other objects with locks of the parent
            log.exception("%r cannot be used in this forked child", one)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_renew_all)


# -- locks of logging --------------------------------------------------------------------------------------------------


def release_logging() -> None:
    """Release every lock of `logging` that this thread still holds after an interruption.

    Up to Python 3.12 a handler is unlocked by a Python function. A signal that strikes as it is entered leaves the
    handler locked, and every other thread that logs would wait for ever.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return  # called from within a log handler, which still needs its lock
        frame = frame.f_back
    module: Any = logging
    for lock in reentrant(module._lock, *(getattr(one(), "lock", None) for one in list(module._handlerList))):
        while _released(lock):
            pass


def reentrant(*locks: Any) -> list[Any]:
    """Select the re-entrant locks: all of logging are, unless a user has replaced one."""
    kinds = (_RLOCK, type(threading.RLock()))  # gevent and eventlet have a class of their own
    return [lock for lock in locks if isinstance(lock, kinds)]


def _released(lock: Any) -> bool:
    """Release the lock once; False where this thread did not hold it."""
    try:
        lock.release()
    except RuntimeError:
        return False
    return True


# -- copies ------------------------------------------------------------------------------------------------------------


class Uncopied:
    """Base of objects that hold locks, threads or connections: `copy`, `deepcopy` and `pickle` raise `TypeError`."""

    _instead = "make a new one instead"
    """What the error advises."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # A copy would share the locks and threads of its original: two objects, one chat.
        name = type(self).__name__
        raise TypeError(f"a {name} cannot be copied or pickled, as it belongs to a running chat; {self._instead}")
