"""Carries out what the core decides to save and to forget, in the order of the decisions."""

from __future__ import annotations

import logging
import threading
from typing import Protocol, runtime_checkable

from webchat_fsm.errors import StoreError
from webchat_fsm.lifecycle.effects import Forget, Save, SavedSession
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import Json, Response
from webchat_fsm.runtime.store import SessionStore

log = logging.getLogger("webchat_fsm")


@runtime_checkable
class TellsLoss(Protocol):
    """A store that wants to know of a lost session."""

    def lost(self, session_data: Json, response: Response) -> None:
        """The session is lost at the server."""
        ...


class Keeper:
    """Writes to a store; a write that a later one has overtaken is left out.

    A store that fails does not end the chat: the fault is logged once, and `failure` holds it until a write succeeds.
    Whoever cannot wait leaves his write to the thread that is writing.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.RLock()  # the functions of asynchronous chat are the user's, and may give commands
        self._latest = 0
        self._left: Save | Forget | None = None
        self.failure = ""

    def after_fork(self) -> None:
        """Have a lock that nobody holds, in a child of a fork, and leave to the parent what it was writing."""
        self._lock, self._left = threading.RLock(), None

    def load(self) -> SavedSession | None:
        """What is saved; raises `StoreError`."""
        try:
            with self._lock:
                return self._store.load()
        finally:
            self._take_what_is_left()

    def carry_out(self, effect: Save | Forget, *, wait: bool = True) -> None:
        """Save or forget, unless a later effect was faster; without waiting, a thread that is writing does it."""
        if wait:
            with self._lock:
                self._take(effect)
        else:
            self._left = effect
        self._take_what_is_left()

    def idle(self, seconds: float) -> bool:
        """Wait until no other thread is writing; False where the time ran out first."""
        lock = self._lock
        try:  # around the taking too: a signal may come between a call and what follows it
            if not lock.acquire(timeout=seconds):
                return False
        finally:
            try:  # noqa: SIM105  (`suppress` is a function in Python, at whose entry a signal may come)
                lock.release()
            except RuntimeError:
                pass  # it was not taken
        self._take_what_is_left()  # as whoever has had the lock does: the one before has not come to it
        return True

    def _take_what_is_left(self) -> None:
        while self._left is not None:
            lock = self._lock
            try:
                if not lock.acquire(blocking=False):
                    return  # its holder looks too
                left, self._left = self._left, None
                if left is not None:
                    self._take(left)
            finally:
                try:  # noqa: SIM105  (as above)
                    lock.release()
                except RuntimeError:
                    pass

    def _take(self, effect: Save | Forget) -> None:
        if effect.order <= self._latest:
            return
        self._latest = effect.order
        try:
            self._write(effect)
        except StoreError as error:
            self._failed(str(error))
        except Exception as error:  # a store of the user's may raise anything; the chat goes on all the same
            self._failed(f"the session store failed: {type(error).__name__}: {error}")
        else:
            self.failure = ""

    def _write(self, effect: Save | Forget) -> None:
        if isinstance(effect, Save):
            self._store.save(effect.document)
        elif effect.lost is not None and isinstance(self._store, TellsLoss):
            self._store.lost(effect.session_data.item(Transport.V3_ASYNC), effect.lost)
        else:
            self._store.delete()

    def _failed(self, text: str) -> None:
        if text != self.failure:
            log.error("%s", text)
        self.failure = text
