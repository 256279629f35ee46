"""The three functions of `transport.async` that keep session data, as a `SessionStore`.

Their names read backwards in the reference, and are kept: `getSessionData` is given the data to keep, `setSessionData`
returns them, `deleteSessionData` is called for a lost session. Each gets a cookie jar with `set`, `get` and `remove`,
and its options. The cookies are saved in the service's own store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from webchat_fsm._config import AsyncConfig, Config
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.steps import rank
from webchat_fsm._errors import StoreError
from webchat_fsm._json import read_json
from webchat_fsm._model import MASK, Json, Response, SessionData
from webchat_fsm._runtime.store import SessionStore
from webchat_fsm._wire.decoding import TOKEN, session_of
from webchat_fsm._wire.request import text
from webchat_fsm.lifecycle._transports import Transport

OPTIONS: Json = {"samesite": "strict", "path": "/"}
"""The cookie options that the functions get; the jar ignores them, as there is no browser."""

NOTHING = frozenset({"undefined", "null"})
"""Texts that JavaScript makes of a missing value."""


class CookieJar:
    """The cookie jar of the documented examples: named texts, kept in the service's store."""

    def __init__(self, store: SessionStore, empty: SavedSession) -> None:
        self._store, self._empty = store, empty

    def set(self, name: str, value: str, options: Mapping[str, Any] | None = None) -> None:
        """Keep a text under a name; any other value as the text that JavaScript makes of it."""
        self._change({**self._cookies(), name: text(value)})

    def get(self, name: str) -> str | None:
        """Return the text of that name, None where there is none."""
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
    """Return the index of the last message as a page expects it, without its hyphen; 0 before the first."""
    return 0 if cursor == 1 else str(cursor).replace("-", "")


class HookStore:
    """Passes changed session data to `getSessionData`, and loads them from `setSessionData`."""

    def __init__(self, hooks: AsyncConfig, store: SessionStore, config: Config) -> None:
        self._hooks, self._config = hooks, config
        empty = SavedSession(transport=Transport.V3_ASYNC, address=config.address, session_data=SessionData())
        self._jar = CookieJar(store, empty)
        self._handed: Json = {}

    def load(self) -> SavedSession | None:
        """Call `setSessionData` for the kept session."""
        given = self._call("setSessionData", self._hooks.set_session_data, False)
        return saved_with_token(self._config, given)

    def save(self, document: SavedSession) -> None:
        """Call `getSessionData` with the data, where they have changed."""
        data = {
            **document.session_data.item(Transport.V3_ASYNC),
            "messageIndex": _plain(document.cursor),
            "lastIndex": document.last_index,
        }
        if data == self._handed:
            return
        before, self._handed = self._handed, data  # before the call: the function may give a command that saves again
        try:
            self._call("getSessionData", self._hooks.get_session_data, dict(data))
        except StoreError:
            self._handed = before
            raise

    def delete(self) -> None:
        """Forget the data; the reference has no function for an ended session, only `lost` has one."""
        self._handed = {}

    def lost(self, session_data: Json, response: Response) -> None:
        """Call `deleteSessionData`, if given, for a lost session."""
        self._handed = {}
        if self._hooks.delete_session_data is not None:
            lost = {"sessionData": session_data, "response": response.item()}
            self._call("deleteSessionData", self._hooks.delete_session_data, lost)

    def _call(self, name: str, function: Callable[..., Any] | None, first: object) -> Any:
        assert function is not None  # `store_for` demands both functions
        try:
            return function(first, self._jar, dict(OPTIONS))
        except StoreError:
            raise
        except Exception as error:
            message = str(error)
            token = first.get("token") if isinstance(first, Mapping) else None
            if isinstance(token, str) and token:  # the function may quote its argument
                message = message.replace(token, MASK)
            raise StoreError(f"transport.async.{name} failed: {type(error).__name__}: {message}") from error


class LossReporting:
    """An ordinary store with `deleteSessionData` alone; its jar is a document with cookies and no session."""

    def __init__(self, hooks: HookStore, store: SessionStore) -> None:
        self._hooks, self._store = hooks, store
        self.save, self.delete = store.save, store.delete

    def load(self) -> SavedSession | None:
        """Return the document if it holds a session."""
        document = self._store.load()
        return document if document is not None and document.session_data != SessionData() else None

    def lost(self, session_data: Json, response: Response) -> None:
        """Delete the session, and call the function."""
        self.delete()
        self._hooks.lost(session_data, response)


def store_for(config: Config, store: SessionStore) -> SessionStore:
    """Return the store for a configuration: its functions, if `get` and `set` are both given, else the given store."""
    hooks = config.transport.asynchronous if config.transport is not None else AsyncConfig()
    if not hooks.enabled:
        return store
    hook_store = HookStore(hooks, store, config)
    if hooks.get_session_data is not None and hooks.set_session_data is not None:
        return hook_store
    return LossReporting(hook_store, store) if hooks.delete_session_data is not None else store


def saved_with_token(config: Config, given: Any) -> SavedSession | None:
    """Read a session from a token, an object with one, or the JSON text of either; None where there is none."""
    given = _decoded(given)
    token, cursor = _token(given)
    if not token:
        return None
    try:
        session_data = session_of(token)
    except ValueError:
        if not TOKEN().fullmatch(token):
            raise StoreError("the token of the session data has characters that a request cannot carry") from None
        session_data = SessionData(token=token)  # not one of ours, but it may be valid: the server decides
    return SavedSession(
        transport=config.way,
        address=config.address,
        session_data=session_data,
        cursor=cursor,
        last_index=_last_index(given),
    )


def _decoded(given: Any) -> Any:
    """Decode session data that are a JSON text; return others unchanged."""
    if isinstance(given, str) and given.lstrip().startswith(("{", '"')):
        try:
            return read_json(given)
        except ValueError as error:
            raise StoreError(f"the session data are not valid JSON: {error}") from error
    return given


def _last_index(given: Any) -> str | None:
    """Return the last index delivered; None where it is not among session data, or is no index."""
    said = given.get("lastIndex") if isinstance(given, Mapping) else None
    return str(said) if isinstance(said, int | str) and rank(said) is not None else None


def _token(given: Any) -> tuple[str, int | str]:
    if isinstance(given, Mapping):
        position: Any = given.get("messageIndex")
        return str(given.get("token") or ""), position or 1
    return (given, 1) if isinstance(given, str) and given not in NOTHING else ("", 1)
