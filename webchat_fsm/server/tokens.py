"""Client tokens of v3: JSON Web Tokens that name session, participant and transport, signed with HS256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec


class Claims(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a token says; `exp` is seconds since the epoch and absent from a token that never expires."""

    session_id: str
    transport_id: str
    participant_id: str
    exp: int | None = None


def sign(claims: Claims, secret: bytes) -> str:
    """The token that says these claims."""
    head = _encode(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
    said = f"{head}.{_encode(msgspec.json.encode(claims))}"
    return f"{said}.{_encode(_signature(said, secret))}"


def read(token: str, secret: bytes, now: float) -> Claims | None:
    """The claims of a token, or None where it is not one of ours or has expired."""
    said, _, signature = token.rpartition(".")
    try:
        if not hmac.compare_digest(_decode(signature), _signature(said, secret)):
            return None
        claims = msgspec.json.decode(_decode(said.partition(".")[2]), type=Claims)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return None if claims.exp is not None and now >= claims.exp else claims


def _signature(said: str, secret: bytes) -> bytes:
    return hmac.digest(secret, said.encode(), hashlib.sha256)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
