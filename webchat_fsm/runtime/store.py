"""Where a session is kept between two openings: in memory, in a file, or wherever a `SessionStore` puts it."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from webchat_fsm.errors import StoreError
from webchat_fsm.lifecycle.effects import SavedSession
from webchat_fsm.lifecycle.encoding import REFUSED, json_to_read, read_json
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.runtime import forks

VERSION = 1
UNREAD = object()
"""The mark of a file that was never looked at."""


@runtime_checkable
class SessionStore(Protocol):
    """Keeps one session document; each method raises `StoreError` where it cannot."""

    def load(self) -> SavedSession | None:
        """The document, None where there is none."""
        ...

    def save(self, document: SavedSession) -> None:
        """Replace the document."""
        ...

    def delete(self) -> None:
        """Remove the document, if there is one."""
        ...


class MemoryStore:
    """Keeps the session in this process: services that share the object can restore from one another."""

    def __init__(self) -> None:
        self._document: SavedSession | None = None

    def load(self) -> SavedSession | None:
        """The document, None where there is none."""
        return self._document

    def save(self, document: SavedSession) -> None:
        """Replace the document."""
        self._document = document

    def delete(self) -> None:
        """Remove the document."""
        self._document = None


class _File(Struct, frozen=True, kw_only=True):
    """What stands in a file."""

    version: int
    session: SavedSession


class _Version(Struct, frozen=True):
    version: int


class FileStore:
    """Keeps the session in a JSON file that only its owner can read (mode 0600), replaced as a whole each time.

    A file that is damaged, or was written by a newer version, raises `StoreError` and is never overwritten: move it
    away, or delete it, to begin anew. The file survives the death of the process, as each write is renamed into place.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.after_fork()
        forks.prepare(self)
        self._known: object = UNREAD

    def after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FileStore({str(self.path)!r})"

    def load(self) -> SavedSession | None:
        """The document; raises `StoreError` for a file that cannot be read as one, or has no directory to be in."""
        with self._lock:
            document = self._read()
            if document is None and not self.path.parent.is_dir():
                raise StoreError(f"{self.path}: nothing could be kept there: make the directory {self.path.parent}")
            return document

    def save(self, document: SavedSession) -> None:
        """Write the document beside the file and rename it into place."""
        data = json_to_read(_plain(document))
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
        """A file that somebody else has written since is read before it is replaced: it may be newer, or no session."""
        if self._known != self._mark():
            self._read()

    def _mark(self) -> object:
        """What tells one state of the file from another; None where there is no file."""
        try:
            return _mark(self.path.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def _read(self) -> SavedSession | None:
        mark = self._mark()
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._known = None
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        document = self._decoded(data)
        self._known = mark
        return document

    def _decoded(self, data: bytes) -> SavedSession:
        keep = "; the file is left as it is: move it away to begin anew"
        try:
            read = read_json(data)
            version = msgspec.convert(read, _Version).version
            if version > VERSION:
                raise StoreError(f"{self.path}: written by a newer version ({version}, known is {VERSION}){keep}")
            session = msgspec.convert(read, _File).session
            for saved in session.prefilters:
                re.compile(saved.source, saved.flags)
        except (re.error, *REFUSED, RecursionError, OverflowError) as error:
            raise StoreError(f"{self.path}: damaged, or no session file ({error}){keep}") from error
        return session

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


def _plain(document: SavedSession) -> Json:
    """Return what is written to a file, user data as they are: bounded, where they have no end."""
    session = msgspec.to_builtins(replace(document, user_data={}), enc_hook=str)
    return {"version": VERSION, "session": {**session, "user_data": document.user_data}}


def _mark(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
