"""Bytes become text as a browser decodes it, and JSON becomes a value where a strict parser gives up.

The model is `responseText` of XMLHttpRequest with `JSON.parse` behind it. A good answer is decoded by msgspec at once;
only where that fails the text is read with bounds of our own, none of which recursion or a huge number can break.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import math
import re
from functools import cache, lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from webchat_fsm._json import REFUSED
from webchat_fsm._model import Json, SessionData

MOST_DEEP = 100
"""Levels of arrays and objects that are read; what lies deeper is null. A bound of our own, as Python's own differs
from version to version and with the depth of the caller's stack."""

MOST_DIGITS = 4300
"""Digits of a whole number that are read: the default bound of Python, which takes longer the more there are."""

USUALLY_DEEP = 8
"""Levels of nearly every answer: four, and those of event attributes, or of the messages of Bayeux around it."""

TOO_DEEP = f"expected at most {MOST_DEEP} levels, got more"
NO_NUMBER = "expected a number of JSON, got NaN, infinity or one out of range"

_CHARSET = cache(lambda: re.compile(r';\s*charset\s*=\s*["\']?\s*(?:x-)?([\w.:-]{1,40})', re.ASCII | re.IGNORECASE))

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF16_LE, "utf-16-le"))

_AS_BROWSERS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "utf-16": "utf-16-le",
}  # fmt: skip
"""Codecs of Python whose names mean another encoding to a browser (WHATWG Encoding Standard, section 4.2)."""

_KNOWN = {
    *_AS_BROWSERS.values(), "utf-8", "utf-16-be", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "euc_jp",
    "iso2022_jp", "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp1257", "cp1258",
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
}  # fmt: skip
"""Encodings that browsers know. Python has codecs beside them that are no encodings of text, such as rot13."""

_UNNAMED = {
    label: codec
    for codec, labels in {
        "utf-16-le": "unicode ucs-2 unicodefeff csunicode iso-10646-ucs-2", "utf-16-be": "unicodefffe",
        **{f"iso8859-{part}": f"iso8859{part}" for part in (1, 2, 3, 4, 5, 7, 9, 10, 11, 13, 14)},
        "iso8859-6": "iso88596 csiso88596e csiso88596i iso-8859-6-e iso-8859-6-i",
        "iso8859-8": "iso88598 csiso88598e csiso88598i iso-8859-8-e iso-8859-8-i logical visual",
        "iso8859-15": "iso885915 csisolatin9", "iso8859_7": "sun_eu_greek", "cp874": "dos-874 windows-874",
        "koi8-r": "koi koi8", "koi8-u": "koi8-ru", "mac-roman": "mac csmacintosh", "mac-cyrillic": "mac-ukrainian",
        "gb18030": "csgb2312 gb_2312 gb_2312-80", "big5hkscs": "cn-big5 x-big5", "euc_jp": "cseucpkdfmtjapanese",
        "cp932": "windows-31j", "cp949": "cseuckr csksc56011987 iso-ir-149 ks_c_5601-1989 ksc_5601 windows-949",
    }.items()
    for label in labels.split()
}  # fmt: skip
"""Labels of browsers (WHATWG Encoding Standard, section 4.2) that Python does not know, each with its codec."""

_WINDOWS = cache(
    lambda: {
        byte: bytes([byte]).decode("cp1252")
        for byte in range(0x80, 0xA0)
        if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # without a character in Python's codec; C1 controls in browsers
    }
)

_TOKEN = cache(lambda: re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]+|[\]}]+|,', re.DOTALL))
"""A text, be it torn, a run of brackets that open or close, or a comma. It never backtracks: the time is linear."""


class _TooDeepError(Exception):
    """A body is nested deeper than what is read."""


class Document(Struct, frozen=True):
    """What a body says: its JSON value, or its text and why it is no JSON; `misread` as in `Reply.misread`."""

    value: Any
    fault: str = ""
    misread: tuple[str, ...] = ()


def read_body(body: bytes, content_type: str = "") -> Document:
    """Read the JSON of a body, in the encoding that a browser would take for it."""
    fault = ""
    if encoding_of(content_type) == "utf-8" or body.isascii():
        try:
            return Document(_decoded(body))
        except _TooDeepError:
            pass
        except (*REFUSED, RecursionError) as error:
            fault = f"no JSON ({error})"
    text = text_of(body, content_type)
    try:
        return _tolerant(text)
    except (ValueError, RecursionError) as error:
        return Document(text[:1000], fault or f"no JSON ({error})")


def object_in(value: Any) -> Json | None:
    """Read an object that is written as JSON text; None for everything else."""
    if not (isinstance(value, str) and value.lstrip().startswith("{")):
        return None
    try:
        found = _tolerant(value).value
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(body: bytes, content_type: str = "") -> str:
    """Decode bytes: a byte order mark counts more than the charset, and bytes that are no text become U+FFFD."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    encoding = encoding_of(content_type)
    if encoding == "cp1252":
        return body.decode("latin-1").translate(_WINDOWS())
    return body.decode(encoding, "replace")


@lru_cache(maxsize=64)
def encoding_of(content_type: str) -> str:
    """Name the codec for a Content-Type by its charset, which means what it means to a browser; else UTF-8."""
    found = _CHARSET().search(content_type)
    label = found[1].lower() if found else "utf-8"
    try:
        codec = codecs.lookup(_UNNAMED.get(label, label)).name
    except (LookupError, ValueError):
        return "utf-8"
    codec = _AS_BROWSERS.get(codec, codec)
    return codec if codec in _KNOWN else "utf-8"


@cache
def _usual() -> msgspec.json.Decoder[Any]:
    """Make a decoder that gives any value as it is, and refuses what lies deeper than nearly every answer does.

    It takes as long as one without a type does, where a search for what lies too deep takes as long again. The type
    doubles with each level, so that it cannot have all levels that are read.
    """
    plain = bool | int | float | str | None
    kind: Any = plain
    for _ in range(USUALLY_DEEP):
        kind = plain | list[kind] | dict[str, kind]
    return msgspec.json.Decoder(kind)


def _decoded(body: bytes) -> Any:
    """Decode JSON at once; raises `_TooDeepError` for what lies too deep, else what msgspec does."""
    try:
        return _usual().decode(body)
    except msgspec.ValidationError:  # nested deeper than usual, or a number out of range, which is raised again
        value = msgspec.json.decode(body)
    if _deeper(value):
        raise _TooDeepError
    return value


def _deeper(value: Any) -> bool:
    """Return whether a value is nested deeper than `MOST_DEEP`."""
    level = [value]
    for _ in range(MOST_DEEP + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _tolerant(text: str) -> Document:
    """Read JSON with half surrogates, control characters in texts, and nesting and numbers beyond all bounds.

    Raises `ValueError` for what is no JSON even so.
    """
    misread = []
    shallow = _flattened(text)
    if shallow is not text:
        misread.append(TOO_DEEP)

    spoilt: list[str] = []

    def number(spelling: str) -> int | float | None:
        if spelling.lstrip("-").isdigit():
            return int(spelling)
        if math.isfinite(found := float(spelling)):
            return found
        spoilt.append(NO_NUMBER)
        return None

    def whole(digits: str) -> int | float | None:
        return number(digits if len(digits) <= MOST_DIGITS else "inf")

    value = json.loads(shallow, strict=False, parse_int=whole, parse_float=number, parse_constant=number)
    return Document(value, "", (*misread, *spoilt[:1]))


def _flattened(text: str) -> str:
    """Write null for every array and object that lies too deep; the same text where there is none."""
    kept, depth, start, hidden = [], 0, 0, False
    for token in _TOKEN().finditer(text):
        first, length = text[token.start()], token.end() - token.start()
        if first in "[{":
            depth += length
            if depth > MOST_DEEP and not hidden:
                kept.append(text[start : token.end() - (depth - MOST_DEEP)] + "null")
                hidden = True
        elif first in "]}":
            depth -= length
            if hidden and depth <= MOST_DEEP:
                start, hidden = token.end() - (MOST_DEEP - depth), False
    if not kept:
        return text
    return "".join(kept) + ("" if hidden else text[start:])


def elements(text: str) -> list[str]:
    """Cut the text of an array into those of its elements.

    Raises `ValueError` for what is no array.
    """
    inner = text.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        raise ValueError("expected an array")
    inner, depth, start, found = inner[1:-1], 0, 0, []
    for token in _TOKEN().finditer(inner):
        first, length = inner[token.start()], token.end() - token.start()
        if first in "[{":
            depth += length
        elif first in "]}":
            depth -= length
        elif first == "," and not depth:
            found.append(inner[start : token.start()])
            start = token.end()
    found.append(inner[start:])
    return found if len(found) > 1 or inner.strip() else []


# -- tokens ------------------------------------------------------------------------------------------------------------

TOKEN = cache(lambda: re.compile(r"[\x21-\x7e]{1,8000}"))
"""What a header can carry as a token."""


class Claims(Struct, frozen=True, rename="camel"):
    """What a client token says of itself; its signature is the server's affair."""

    session_id: str
    participant_id: str
    transport_id: str = ""


def session_of(token: str) -> SessionData:
    """Return the session that a client token names; raises `ValueError` for what is no such token."""
    parts = token.split(".")
    try:
        # a JWT leaves out the padding that Python asks for
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(payload, type=Claims)
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        raise ValueError("the token names no session") from None
    if not (TOKEN().fullmatch(token) and claims.session_id and claims.participant_id):
        raise ValueError("the token names no session")
    return SessionData(
        session_id=claims.session_id,
        participant_id=claims.participant_id,
        transport_id=claims.transport_id,
        token=token,
    )
