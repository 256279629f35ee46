"""Masking of secrets in a recording: each is replaced as a whole by a placeholder.

A secret has the same placeholder everywhere, so that a replay finds equal values where they were equal. Masked are
secure keys, tokens, API keys, all header values but a few harmless ones, the user's own user data, prefilters and the
texts that they hide. Names, mail addresses and visible messages are not: check a recording before you pass it on.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from webchat_fsm._core.saved_session import Prefilters
from webchat_fsm._json import DEEPEST, TOO_DEEP, json_to_keep, read_json, spelling
from webchat_fsm._model import MASK, Json, scalars
from webchat_fsm._wire.decoding import session_of
from webchat_fsm._wire.lenient import spelled

# Without case, hyphens and underscores, as `_plain` writes the keys that are compared with them.
SESSION_SECRETS = frozenset({"securekey", "token", "clienttoken"})
"""Keys whose values identify a session; these values are masked wherever they occur later."""

OTHER_SECRETS = frozenset({"apikey", "xapikey", "authorization", "cookie", "setcookie", "keypassword", "operationid"})
"""Keys whose values a replay does not need, or that differ each time."""

USER_DATA_KEYS = frozenset({"userdata"})
TEXT_KEYS = frozenset({"text", "message"})
KEPT_HEADERS = frozenset({"content-type", "content-disposition", "retry-after"})
"""Headers whose values are kept."""

HIDDEN = "masked-text-"
_SHORTEST_SECRET = 6
"""Secrets shorter than this are not searched inside other texts: they would match by accident."""

# A string without raw control characters, as JSON demands; a bare word such as null needs no mask.
_LITERAL = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"(\s*:)?|-?[0-9][0-9.eE+-]*|true|false')
"""A text, which is a name where a colon follows, a number or a truth value."""

_CREDENTIALS = re.compile(r"//[^/@\s\"\\]*@")

Hides = Callable[[str], bool]


class MaskedPrefilters(Prefilters):
    """The prefilters of a replay: they hide what was hidden when it was recorded."""

    __slots__ = ()

    def hide_any(self, texts: Sequence[str]) -> bool:
        """Return whether one of these texts was hidden, as its placeholder shows."""
        return any(text.startswith(HIDDEN) for text in texts)


def never_matching(number: int) -> re.Pattern[str]:
    """Return an expression that replaces a masked prefilter and matches nothing."""
    return re.compile(f"(?!)masked {number}")


class Mask:
    """Masks the values of one recording, and remembers the placeholder of each secret."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self._hidden: dict[str, str] = {}
        self._patterns: dict[tuple[str, int], int] = {}

    # -- placeholders --------------------------------------------------------------------------------------------------

    def secret(self, value: str) -> str:
        """Return the placeholder of a secret; a v3 token becomes an unsigned token that names the same session."""
        if not value or _is_placeholder(value):
            return value
        if value not in self._secrets:
            self._secrets[value] = _token_like(value) or f"masked-secret-{len(self._secrets) + 1}"
        return self._secrets[value]

    def hidden(self, text: str) -> str:
        """Return the placeholder of a text that a prefilter hides."""
        # Masked already: a replay masks what it reads from a recording once more, and must get the same text.
        if text.startswith(HIDDEN):
            return text
        # Without lone surrogates: the text is compared with the one that was sent, which has none.
        return self._hidden.setdefault(scalars(text), f"{HIDDEN}{len(self._hidden) + 1}")

    def pattern(self, pattern: re.Pattern[str]) -> re.Pattern[str]:
        """Return the placeholder of a prefilter, whose source may contain the text that it hides."""
        if pattern.pattern.startswith("(?!)masked "):
            return pattern
        return never_matching(self._patterns.setdefault((pattern.pattern, pattern.flags), len(self._patterns) + 1))

    # -- masking -------------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """Return a text without the known secrets and without the user and password of a URL."""
        return _CREDENTIALS.sub(f"//{MASK}@", self._without_known(text))

    def _without_known(self, text: str) -> str:
        # By search: a secret may stand in the middle of a URL, or of an error's text.
        for secret, placeholder in self._secrets.items():
            if len(secret) >= _SHORTEST_SECRET and secret in text:
                text = text.replace(secret, placeholder)
        return text

    def keyed(self, key: str, value: Any, hides: Hides, *, own: bool = False, level: int = 0) -> Any:
        """Mask the value of a key; `own` where the user sent it, so that its user data are the user's own."""
        plain = _plain(key)
        # The first two kinds are secret in answers too; user data only where the user has sent them.
        if plain in OTHER_SECRETS:
            return mask_values(value)
        if plain in SESSION_SECRETS and isinstance(value, str):
            return self.secret(value)
        if own and plain in USER_DATA_KEYS:
            return mask_values(value)
        if plain in TEXT_KEYS and (text := spelled(value)) is not None and hides(text):
            return self.hidden(text)
        return self.value(value, hides, own=own, level=level)

    def value(self, value: Any, hides: Hides, *, own: bool = False, level: int = 0) -> Any:
        """Mask a JSON value; what is nested too deep for a reader of the recording is omitted."""
        # The bound of the JSON reader; a value may also contain itself.
        if isinstance(value, Mapping | list | tuple) and level >= DEEPEST:
            return TOO_DEEP
        inside = level + 1
        if isinstance(value, Mapping):
            # As the encoder spells them: a key of Python may be a number or None.
            named = [(spelling(key), inner) for key, inner in value.items()]
            return {key: self.keyed(key, inner, hides, own=own, level=inside) for key, inner in named}
        if isinstance(value, list | tuple):
            return [self.value(inner, hides, own=own, level=inside) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def answer(self, body: str, hides: Hides) -> str:
        """Mask a JSON body, valid or not, and keep every other byte.

        The body is not decoded and encoded again: a fault in reading it must show again in a replay.
        """
        key = ""

        def masked(literal: re.Match[str]) -> str:
            nonlocal key
            decoded_literal = _unescaped(literal[0][: -len(literal[1])] if literal[1] else literal[0])
            if decoded_literal is None:
                return literal[0]
            if literal[1]:
                key = str(decoded_literal)
                return literal[0]
            replaced = self.keyed(key, decoded_literal, hides)
            # The spelling as it came, unless it is masked: 1.0 and 1e0 may be read differently.
            return literal[0] if replaced == decoded_literal else json.dumps(replaced)

        # Two passes: a secret may be used in the body before the key that marks it as one.
        for literal in _LITERAL.finditer(body):
            if not literal[1] and _plain(key) in SESSION_SECRETS and isinstance(named := _unescaped(literal[0]), str):
                self.secret(named)
            key = str(_unescaped(literal[0][: -len(literal[1])]) or "") if literal[1] else ""
        key = ""
        return self._without_known(_LITERAL.sub(masked, body))

    def form(self, pairs: Iterable[tuple[str, str]], hides: Hides, *, all_own: bool = False) -> Json:
        """Mask the fields of a form, those of one name as a list; with `all_own` every nested one is user data."""
        fields: Json = {}
        for name, value in pairs:
            parts = re.split(r"[\[\]]+", name)
            # `userData[a][b]` has the group's name first, and the field's own name last.
            own = (all_own and len(parts) > 1) or any(_plain(part) in USER_DATA_KEYS for part in parts)
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
        """Mask a URL; fields of its query that are always secret are removed."""
        bare, _, query = self.text(url).partition("?")
        kept = [f"{name}={value}" for name, value in parse_qsl(query) if _plain(name) not in OTHER_SECRETS]
        return bare + ("?" + "&".join(kept) if kept else "")

    def headers(self, headers: Mapping[str, str]) -> Json:
        """Return all header names, with the values of the harmless ones."""
        return {
            name.lower(): self.text(value) if name.lower() in KEPT_HEADERS else MASK
            for name, value in sorted(headers.items())
        }


def mask_values(value: Any) -> Any:
    """Mask a value except its keys and shape, which decide how a form is written; an empty value stays empty."""
    # An empty value is no secret, and a form omits it.
    if value is None or value == "":
        return value
    if isinstance(value, Mapping):
        return {spelling(key): mask_values(inner) for key, inner in value.items()}
    return [mask_values(inner) for inner in value] if isinstance(value, list | tuple) else MASK


def _plain(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _unescaped(literal: str) -> str | float | None:
    """Return a text, a number or a truth value of JSON; None for an invalid one."""
    try:
        return json.loads(literal)  # type: ignore[no-any-return]  # a literal is nothing else
    except ValueError:
        return None


def _is_placeholder(value: str) -> bool:
    # So that masking a masked recording again changes nothing.
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
    # `e30` is `{}` in base64; the dialect reads the claims in the middle and does not check the signature.
    return ".".join(("e30", base64.urlsafe_b64encode(json_to_keep(claims)).rstrip(b"=").decode(), "masked"))
