"""Check what no type of a single field expresses: URLs, headers, user data, fields that depend on one another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from webchat_fsm._model import unsendable

if TYPE_CHECKING:
    from webchat_fsm._config import Config

Requirement = tuple[str, bool, str]
"""A path, whether it breaks the requirement, and the text of the error."""


@lru_cache  # as many services have one address
def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (the property checks the number)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _address(text: str) -> tuple[bool, str]:
    """Return whether an address is no http(s) URL, and the text of the error; one with credentials is not quoted."""
    # before the check of the URL, whose error quotes it
    if "@" in text.partition("://")[2].partition("/")[0]:
        return True, "expected a URL without credentials, which would not be sent: name a header instead"
    return not _is_url(text), f"expected an http(s) URL, got {text!r}"


def requirements(config: Config) -> Iterator[Requirement]:
    """Yield what no type of a single field expresses: addresses, headers, and fields that depend on one another."""
    yield from _addresses(config)
    least, most = config.poll_rate_min, config.poll_rate_max
    # not a bound of its type, which cannot name another field
    yield "$.pollRateMax", most < least, f"expected at least pollRateMin, which is {least}, got {most}"
    yield from _headers(config)
    # the value is not quoted: the URL of a proxy may carry its password
    yield "$.client.proxy", bool(config.client.proxy) and not _is_url(config.client.proxy), "expected an http(s) URL"
    yield "$.client.tls.key", bool(config.client.tls.key and not config.client.tls.cert), "needs client.tls.cert too"
    yield from _user_data(config)
    missing = config.enable_custom_header and not config.custom_headers
    yield "$.enableCustomHeader", missing, "needs main.header (give the whole widgets object) or client.headers"


def _headers(config: Config) -> Iterator[Requirement]:
    section = config.transport
    given = {
        "$.apikey": {"apikey": config.apikey} if config.apikey else {},
        "$.main.header": config.main_header,
        "$.client.headers": config.client.headers,
        "$.transport.headers": {} if section is None else section.headers,
    }
    for path, headers in given.items():
        for name, value in headers.items():
            # A header's value may be a secret: the error names the place and never shows it.
            wrong = not (_HEADER_NAME().fullmatch(name) and _HEADER_VALUE().fullmatch(value))
            yield path, wrong, "expected names and values that an HTTP header can carry: Latin-1 without line breaks"


_HEADER_NAME = cache(lambda: re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"))
_HEADER_VALUE = cache(lambda: re.compile(r"[\t\x20-\x7e\x80-\xff]*"))


def _user_data(config: Config) -> Iterator[Requirement]:
    try:
        wrong = next(unsendable(config.user_data, "userData"), "")
    except RecursionError:  # a dict that contains itself
        wrong = "userData holds itself"
    yield "$.userData", bool(wrong), f"expected what can be sent, but {wrong}"


def _addresses(config: Config) -> Iterator[Requirement]:
    # only the addresses of the transport that is chosen are required; the others are never used
    section = config.transport
    if section is not None:
        known = section.type == "pureengage-v3-rest"
        yield "$.transport.type", not known, f"expected 'pureengage-v3-rest', got {section.type!r}"
        yield "$.transport.dataURL", *_address(section.data_url)
        yield "$.transport.endpoint", not section.endpoint, "is required: the endpoint of the v3 API"
        yield "$.cometD.enabled", config.comet_d.enabled, "cannot be combined with transport"
    elif config.comet_d.enabled:
        yield "$.cometD.cometURL", *_address(config.comet_d.comet_url)
        yield "$.cometD.apiURL", *_address(config.comet_d.api_url)
    else:
        yield "$.dataURL", *_address(config.data_url)
