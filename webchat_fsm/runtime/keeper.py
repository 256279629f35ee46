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
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.RLock()  # the functions of asynchronous chat are the user's, and may give commands
        self._latest = 0
        self.failure = ""

    def load(self) -> SavedSession | None:
        """What is saved; raises `StoreError`."""
        with self._lock:
            return self._store.load()

    def carry_out(self, effect: Save | Forget) -> None:
        """Save or forget, unless a later effect was faster."""
        with self._lock:
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
