"""Where, when and how a session is saved.

What is saved is a `SavedSession`. The lifecycle table decides when: its effect `KEEP` gives a `Save` with the document
of that moment, unless nothing of it but the last contact is newer, by less than five seconds, and the end or the loss
of a session a `Forget`. `StoreWriter` carries both out, in the order of the decisions, in a `SessionStore`:
`MemoryStore`, `FileStore`, one of the user's, or the functions of asynchronous chat (store_hooks.py).
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

from webchat_fsm._core.saved_session import SavedSession, document_of, saved_in
from webchat_fsm._core.steps import Forget, Save
from webchat_fsm._errors import StoreError
from webchat_fsm._json import json_to_read
from webchat_fsm._model import Json, Response
from webchat_fsm._runtime.locks import call_locked, renew_after_fork
from webchat_fsm.lifecycle._transports import Transport

log = logging.getLogger("webchat_fsm")

UNREAD = object()
"""The mark of a file that was never read."""


@runtime_checkable
class SessionStore(Protocol):
    """Keeps one session document; each method raises `StoreError` where it fails."""

    def load(self) -> SavedSession | None:
        """Return the document, None where there is none."""
        ...

    def save(self, document: SavedSession) -> None:
        """Replace the document."""
        ...

    def delete(self) -> None:
        """Remove the document, if there is one."""
        ...


class MemoryStore:
    """Keeps the session in this process: services that share the object restore from one another."""

    __slots__ = ("_document",)

    def __init__(self) -> None:
        self._document: SavedSession | None = None

    def __repr__(self) -> str:
        return f"<MemoryStore {'empty' if self._document is None else 'with a session'}>"

    def load(self) -> SavedSession | None:
        """Return the document, None where there is none."""
        return self._document

    def save(self, document: SavedSession) -> None:
        """Replace the document."""
        self._document = document

    def delete(self) -> None:
        """Remove the document."""
        self._document = None


class FileStore:
    """Keeps the session in a JSON file that only its owner can read (mode 0600), replaced as a whole each time.

    A file that is damaged, or was written by a newer version, raises `StoreError` and is never overwritten: move or
    delete it to start afresh. A process that dies while it writes leaves the former file, as each write is a rename.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.after_fork()
        renew_after_fork(self)
        self._known: object = UNREAD

    def after_fork(self) -> None:
        """Recreate the lock in a forked child."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FileStore({str(self.path)!r})"

    def __reduce__(self) -> tuple[type[FileStore], tuple[Path]]:
        return type(self), (self.path,)  # without the lock: the file is what two of them share

    def load(self) -> SavedSession | None:
        """Return the document; raises `StoreError` for a file that cannot be read, or whose directory is missing."""
        with self._lock:
            document = self._read()
            if document is None and not self.path.parent.is_dir():
                raise StoreError(f"{self.path}: nothing could be kept there: make the directory {self.path.parent}")
            return document

    def save(self, document: SavedSession) -> None:
        """Write the document to a temporary file and rename it into place."""
        data = json_to_read(document_of(document))
        with self._lock:
            self._check()
            try:
                self._replace(data)
            except OSError as error:
                raise StoreError(f"{self.path}: the session could not be saved: {error.strerror or error}") from error

    def delete(self) -> None:
        """Remove the file, if there is one."""
        with self._lock:
            self._check()
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{self.path}: the session could not be deleted: {error.strerror or error}") from error

    def _check(self) -> None:
        """Read a file that another process has written: one of a newer version, or no session, must not be replaced."""
        if self._known != self._mark():
            self._read()

    def _mark(self) -> object:
        """Return the inode, size and time of the file, to notice changes; None where there is no file."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        # Reading a pipe or a device may never end, and saving would put a file in its place.
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{self.path}: cannot be read: it is no regular file; give the path of one")
        return _mark(found)

    def _read(self) -> SavedSession | None:
        mark = self._mark()
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._known = None
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        try:
            document = saved_in(data)
        except ValueError as error:
            keep = "the file is left as it is: move it away to begin anew"
            raise StoreError(f"{self.path}: {error}; {keep}") from error
        self._known = mark
        return document

    def _replace(self, data: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mkstemp gives mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data + b"\n")
                file.flush()
                written = _mark(os.fstat(handle))
            os.replace(name, self.path)
            self._known = written
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _mark(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


@runtime_checkable
class ReportsLoss(Protocol):
    """A store that is to hear of a lost session."""

    def lost(self, session_data: Json, response: Response) -> None:
        """Handle a session that the server has lost, and forget it."""
        ...


class StoreWriter:
    """Carries saves and deletions out in the order of their decisions, one thread at a time.

    A store that fails does not end the chat: the error is logged once, and `failure` holds it until a write succeeds.
    With `wait=False` the write is left for the thread that holds the lock.
    """

    __slots__ = ("_latest", "_left", "_lock", "_store", "failure")

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lock = threading.RLock()  # the functions of asynchronous chat are the user's, and may give commands
        self._latest = 0
        self._left: Save | Forget | None = None
        self.failure: str = ""

    def after_fork(self) -> None:
        """Recreate the lock in a forked child, and leave unwritten effects to the parent."""
        self._lock, self._left = threading.RLock(), None

    def load(self) -> SavedSession | None:
        """Return the saved session, None where there is none; raises `StoreError`."""
        try:
            with self._lock:
                return self._store.load()
        finally:
            self._write_left()

    def carry_out(self, effect: Save | Forget, *, wait: bool = True) -> None:
        """Save or forget, unless a later effect was faster; without `wait`, a thread that is writing does it."""
        if wait:
            with self._lock:
                self._write_in_order(effect)
        else:
            self._left = effect
        self._write_left()

    def idle(self, seconds: float) -> bool:
        """Wait until no other thread is writing; False after the timeout."""
        if not call_locked(self._lock, lambda: True, seconds):
            return False
        self._write_left()  # as each thread does that has held the lock: the one before may have missed it
        return True

    def _write_left(self) -> None:
        """Write the effect that a thread has left; where the lock is taken, its holder looks at it afterwards."""
        while self._left is not None and call_locked(self._lock, self._take_left, 0.0):
            pass

    def _take_left(self) -> bool:
        left, self._left = self._left, None
        if left is not None:
            self._write_in_order(left)
        return True

    def _write_in_order(self, effect: Save | Forget) -> None:
        # A later one may have been faster; an interrupted transaction brings the same one twice.
        if effect.order <= self._latest:
            return
        before, self._latest = self._latest, effect.order  # before the write: a hook may give a command that saves
        try:
            self._write(effect)
        except StoreError as error:
            self._failed(str(error))
        except Exception as error:  # a store of the user's may raise anything, and must not end the chat
            self._failed(f"the session store failed: {type(error).__name__}: {error}")
        except BaseException:  # interrupted: the transaction brings the effect again, and it must not count as written
            if self._latest == effect.order:
                self._latest = before
            raise
        else:
            self.failure = ""

    def _write(self, effect: Save | Forget) -> None:
        if isinstance(effect, Save):
            self._store.save(effect.document)
        elif effect.lost is not None and isinstance(self._store, ReportsLoss):
            self._store.lost(effect.session_data.item(Transport.V3_ASYNC), effect.lost)
        else:
            self._store.delete()

    def _failed(self, text: str) -> None:
        if text != self.failure:
            log.error("%s", text)
        self.failure = text
