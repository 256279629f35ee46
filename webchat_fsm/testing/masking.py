"""Secrets are kept out of a recording: each is replaced as a whole by a placeholder.

It is the same one everywhere, so that what was recorded still fits together when it is replayed. Masked are secure
keys, tokens, API keys, all header values but a few harmless ones, the user's own user data, prefilters and the texts
that they hide. Names, mail addresses and visible messages are not: look through a recording before you hand it on.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from webchat_fsm.core.transcript import Prefilters
from webchat_fsm.lifecycle.encoding import DEEPEST, TOO_DEEP, json_to_keep, read_json, spelling
from webchat_fsm.lifecycle.words import MASK, Json, scalars
from webchat_fsm.wire.lenient import spelled
from webchat_fsm.wire.nexus_v3 import session_of

SESSION_SECRETS = frozenset({"securekey", "token", "clienttoken"})
"""Keys whose values identify a session; their values are found again wherever they stand."""

OTHER_SECRETS = frozenset({"apikey", "xapikey", "authorization", "cookie", "setcookie", "keypassword", "operationid"})
"""Keys whose values say nothing to a replay, or differ each time."""

USERS_OWN = frozenset({"userdata"})
TEXTS = frozenset({"text", "message"})
HEADERS = frozenset({"content-type", "content-disposition", "retry-after"})
"""Headers whose values are kept."""

HIDDEN = "masked-text-"
_SHORTEST = 6
"""Texts shorter than this are not looked for inside other texts."""

_LITERAL = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"(\s*:)?|-?[0-9][0-9.eE+-]*|true|false')
"""A text, which is a name where a colon follows, a number or a truth value."""

_LOGIN = re.compile(r"//[^/@\s\"\\]*@")

Hides = Callable[[str], bool]


class HiddenAgain(Prefilters):
    """The prefilters of a replay: they hide what was hidden when it was recorded."""

    __slots__ = ()

    def hide(self, text: str) -> bool:
        """Whether a text was hidden."""
        return text.startswith(HIDDEN)


def never(number: int) -> re.Pattern[str]:
    """An expression that stands for a masked prefilter, and matches nothing."""
    return re.compile(f"(?!)masked {number}")


class Mask:
    """The secrets of one recording and their placeholders."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self._hidden: dict[str, str] = {}
        self._patterns: dict[tuple[str, int], int] = {}

    # -- learning ------------------------------------------------------------------------------------------------------

    def secret(self, value: str) -> str:
        """The placeholder of a secret; that of a v3 token is a token that names the same session and opens nothing."""
        if not value or _is_placeholder(value):
            return value
        if value not in self._secrets:
            self._secrets[value] = _token_like(value) or f"masked-secret-{len(self._secrets) + 1}"
        return self._secrets[value]

    def hidden(self, text: str) -> str:
        """The placeholder of a text that a prefilter hides."""
        if text.startswith(HIDDEN):
            return text
        return self._hidden.setdefault(scalars(text), f"{HIDDEN}{len(self._hidden) + 1}")

    def pattern(self, pattern: re.Pattern[str]) -> re.Pattern[str]:
        """The placeholder of a prefilter, which may spell out what it hides."""
        if pattern.pattern.startswith("(?!)masked "):
            return pattern
        return never(self._patterns.setdefault((pattern.pattern, pattern.flags), len(self._patterns) + 1))

    # -- masking -------------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """A text without the secrets that are known, and without the log-in of an address."""
        return _LOGIN.sub(f"//{MASK}@", self._without_known(text))

    def _without_known(self, text: str) -> str:
        for secret, placeholder in self._secrets.items():
            if len(secret) >= _SHORTEST and secret in text:
                text = text.replace(secret, placeholder)
        return text

    def keyed(self, key: str, value: Any, hides: Hides, *, own: bool = False, level: int = 0) -> Any:
        """A value that stands under a key; `own` where the user sent it, so that user data are the user's."""
        plain = _plain(key)
        if plain in OTHER_SECRETS:
            return veiled(value)
        if plain in SESSION_SECRETS and isinstance(value, str):
            return self.secret(value)
        if own and plain in USERS_OWN:
            return veiled(value)
        if plain in TEXTS and (text := spelled(value)) is not None and hides(text):
            return self.hidden(text)
        return self.value(value, hides, own=own, level=level)

    def value(self, value: Any, hides: Hides, *, own: bool = False, level: int = 0) -> Any:
        """A JSON value without secrets; what is nested too deep for a reader of the recording is left out."""
        if isinstance(value, Mapping | list | tuple) and level >= DEEPEST:
            return TOO_DEEP
        inside = level + 1
        if isinstance(value, Mapping):
            named = [(spelling(key), inner) for key, inner in value.items()]
            return {key: self.keyed(key, inner, hides, own=own, level=inside) for key, inner in named}
        if isinstance(value, list | tuple):
            return [self.value(inner, hides, own=own, level=inside) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def answer(self, body: str, hides: Hides) -> str:
        """A JSON body, or what should have been one, with every other byte as it came."""
        key = ""

        def masked(literal: re.Match[str]) -> str:
            nonlocal key
            said = _unescaped(literal[0][: -len(literal[1])] if literal[1] else literal[0])
            if said is None:
                return literal[0]
            if literal[1]:
                key = str(said)
                return literal[0]
            replaced = self.keyed(key, said, hides)
            return literal[0] if replaced == said else json.dumps(replaced)

        for literal in _LITERAL.finditer(body):  # secrets first, wherever in the body they are named
            if not literal[1] and _plain(key) in SESSION_SECRETS and isinstance(named := _unescaped(literal[0]), str):
                self.secret(named)
            key = str(_unescaped(literal[0][: -len(literal[1])]) or "") if literal[1] else ""
        key = ""
        return self._without_known(_LITERAL.sub(masked, body))

    def form(self, pairs: Iterable[tuple[str, str]], hides: Hides, *, all_own: bool = False) -> Json:
        """The fields of a form, those of one name together; with `all_own` every nested one is user data."""
        fields: Json = {}
        for name, value in pairs:
            parts = re.split(r"[\[\]]+", name)
            own = (all_own and len(parts) > 1) or any(_plain(part) in USERS_OWN for part in parts)
            key = next((part for part in reversed(parts) if part), "")
            kept = MASK if own and value else self.keyed(key, self._inner_json(value, hides), hides)
            fields[name] = kept if name not in fields else [*_listed(fields[name]), kept]
        return fields

    def _inner_json(self, value: str, hides: Hides) -> str:
        """Mask the JSON object that a field carries as its text, as `eventAttributes` does; another text stays."""
        try:
            decoded = read_json(value) if value.startswith("{") else None
        except ValueError:
            decoded = None
        return json_to_keep(self.value(decoded, hides, own=True)).decode() if isinstance(decoded, dict) else value

    def url(self, url: str) -> str:
        """An address without secrets; its query as far as it says something to a reader."""
        bare, _, query = self.text(url).partition("?")
        kept = [f"{name}={value}" for name, value in parse_qsl(query) if _plain(name) not in OTHER_SECRETS]
        return bare + ("?" + "&".join(kept) if kept else "")

    def headers(self, headers: Mapping[str, str]) -> Json:
        """Header names with the values of the harmless ones."""
        return {
            name.lower(): self.text(value) if name.lower() in HEADERS else MASK
            for name, value in sorted(headers.items())
        }


def veiled(value: Any) -> Any:
    """A value of which only the keys and the shape are shown, by which a form is spelt; nothing stays nothing."""
    if value is None or value == "":
        return value
    if isinstance(value, Mapping):
        return {spelling(key): veiled(inner) for key, inner in value.items()}
    return [veiled(inner) for inner in value] if isinstance(value, list | tuple) else MASK


def _plain(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _unescaped(literal: str) -> str | float | None:
    """Read a text, a number or a truth value of JSON; None for what is none."""
    try:
        return json.loads(literal)  # type: ignore[no-any-return]  # a literal is nothing else
    except ValueError:
        return None


def _is_placeholder(value: str) -> bool:
    return value.startswith("masked-") or value.endswith(".masked") or value == MASK


def _token_like(value: str) -> str:
    try:
        named = session_of(value)
    except ValueError:
        return ""
    claims = {
        "sessionId": named.session_id,
        "participantId": named.participant_id,
        "transportId": named.transport_id,
    }
    return ".".join(("e30", base64.urlsafe_b64encode(json_to_keep(claims)).rstrip(b"=").decode(), "masked"))
