"""The three functions of `transport.async` that keep session data, as a store (lifecycle decision 3).

Their names read backwards in the reference, and are kept: `getSessionData` is given data to keep, `setSessionData`
brings them back, `deleteSessionData` is told of a lost session. Each gets a cookie jar with `set`, `get` and `remove`,
and its options; the jar lives in the service's own store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from webchat_fsm.config import Async, Config
from webchat_fsm.core.facts import rank
from webchat_fsm.errors import StoreError
from webchat_fsm.lifecycle.effects import SavedSession
from webchat_fsm.lifecycle.encoding import read_json
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import MASK, Json, Response, SessionData
from webchat_fsm.runtime.store import SessionStore
from webchat_fsm.wire.nexus_v3 import TOKEN, session_of
from webchat_fsm.wire.request import text

OPTIONS: Json = {"samesite": "strict", "path": "/"}
"""What the functions get as cookie options; the jar takes and ignores them."""

NOTHING = frozenset({"undefined", "null"})
"""Texts that JavaScript makes of a value that is not there."""


class CookieJar:
    """The jar that the documented examples use: named texts, kept in the service's store."""

    def __init__(self, store: SessionStore, empty: SavedSession) -> None:
        self._store, self._empty = store, empty

    def set(self, name: str, value: str, options: Mapping[str, Any] | None = None) -> None:
        """Keep a text under a name; what is no text is kept as its spelling in JavaScript."""
        self._change({**self._cookies(), name: text(value)})

    def get(self, name: str) -> str | None:
        """The text of that name, None where there is none."""
        return self._cookies().get(name)

    def remove(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        """Forget the text of that name."""
        self._change({key: value for key, value in self._cookies().items() if key != name})

    def _cookies(self) -> dict[str, str]:
        document = self._store.load()
        return {} if document is None else document.cookies

    def _change(self, cookies: dict[str, str]) -> None:
        document = replace(self._store.load() or self._empty, cookies=cookies)
        if document == self._empty:
            self._store.delete()
        else:
            self._store.save(document)


def _plain(cursor: int | str) -> int | str:
    """The index of the last message as pages know it, without its hyphen; 0 before the first."""
    return 0 if cursor == 1 else str(cursor).replace("-", "")


class HookStore:
    """Hands session data out when they change, and asks for them; get and set count only together."""

    def __init__(self, hooks: Async, store: SessionStore, config: Config) -> None:
        self._hooks, self._config = hooks, config
        empty = SavedSession(transport=Transport.V3_ASYNC, address=config.address, session_data=SessionData())
        self._jar = CookieJar(store, empty)
        self._handed: Json = {}

    def load(self) -> SavedSession | None:
        """Ask `setSessionData` for what is kept."""
        given = self._ask("setSessionData", self._hooks.set_session_data, False)
        return saved_with_token(self._config, given)

    def save(self, document: SavedSession) -> None:
        """Give `getSessionData` the data, where they have changed."""
        data = {
            **document.session_data.item(Transport.V3_ASYNC),
            "messageIndex": _plain(document.cursor),
            "lastIndex": document.last_index,
        }
        if data == self._handed:
            return
        before, self._handed = self._handed, data  # at once, as the function may give a command that saves again
        try:
            self._ask("getSessionData", self._hooks.get_session_data, dict(data))
        except StoreError:
            self._handed = before
            raise

    def delete(self) -> None:
        """An ended session is told to nobody: only a lost one is, by `lost`."""
        self._handed = {}

    def lost(self, session_data: Json, response: Response) -> None:
        """Tell `deleteSessionData`, if given, that the session is lost."""
        self._handed = {}
        if self._hooks.delete_session_data is not None:
            told = {"sessionData": session_data, "response": response.item()}
            self._ask("deleteSessionData", self._hooks.delete_session_data, told)

    def _ask(self, name: str, function: Callable[..., Any], first: object) -> Any:
        try:
            return function(first, self._jar, dict(OPTIONS))
        except StoreError:
            raise
        except Exception as error:
            said = str(error)
            if isinstance(first, Mapping) and first.get("token"):
                said = said.replace(first["token"], MASK)
            raise StoreError(f"transport.async.{name} failed: {type(error).__name__}: {said}") from error


class LossTelling:
    """An ordinary store beside a lone `deleteSessionData`, whose jar is a document with cookies and no session."""

    def __init__(self, hooks: HookStore, store: SessionStore) -> None:
        self._hooks, self._store = hooks, store
        self.save, self.delete = store.save, store.delete

    def load(self) -> SavedSession | None:
        """The document, if there is a session in it."""
        document = self._store.load()
        return document if document is not None and document.session_data != SessionData() else None

    def lost(self, session_data: Json, response: Response) -> None:
        """Delete the session, and tell the function."""
        self.delete()
        self._hooks.lost(session_data, response)


def kept_by(config: Config, store: SessionStore) -> SessionStore:
    """What keeps the sessions of a configuration: the given functions, else the store."""
    hooks = config.transport.asynchronous if config.transport is not None else Async()
    if not hooks.enabled:
        return store
    hook_store = HookStore(hooks, store, config)
    if hooks.get_session_data is not None and hooks.set_session_data is not None:
        return hook_store
    return LossTelling(hook_store, store) if hooks.delete_session_data is not None else store


def saved_with_token(config: Config, given: Any) -> SavedSession | None:
    """A session document from a token, an object with one, or the JSON text of either; None where there is none."""
    given = _decoded(given)
    token, cursor = _token(given)
    if not token:
        return None
    try:
        session_data = session_of(token)
    except ValueError:
        if not TOKEN.fullmatch(token):
            raise StoreError("the session data hold no token that a request can carry") from None
        session_data = SessionData(token=token)  # the server will say what it thinks of it
    return SavedSession(
        transport=config.way,
        address=config.address,
        session_data=session_data,
        cursor=cursor,
        last_index=_last_index(given),
    )


def _decoded(given: Any) -> Any:
    """Read session data that are a JSON text; others are returned as they are."""
    if isinstance(given, str) and given.lstrip().startswith(("{", '"')):
        try:
            return read_json(given)
        except ValueError as error:
            raise StoreError(f"the session data are no JSON: {error}") from error
    return given


def _last_index(given: Any) -> str | None:
    """Return the last index delivered; None where it is not among session data, or is no index."""
    said = given.get("lastIndex") if isinstance(given, Mapping) else None
    return str(said) if isinstance(said, int | str) and rank(said) is not None else None


def _token(given: Any) -> tuple[str, int | str]:
    if isinstance(given, Mapping):
        return str(given.get("token") or ""), given.get("messageIndex") or 1
    return (given, 1) if isinstance(given, str) and given not in NOTHING else ("", 1)
