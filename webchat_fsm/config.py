"""The documented configuration object, checked and typed: `Config.read` takes what a page would hold.

Numbers are milliseconds where the reference documents milliseconds. A known key of the wrong type is a `ConfigError`
with its path; an unknown key is logged once with the nearest documented name; keys of the user interface are ignored.
"""

from __future__ import annotations

import difflib
import logging
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from webchat_fsm.errors import ConfigError
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.lifecycle.words import MASK, unsendable

log = logging.getLogger("webchat_fsm")

UI_KEYS = frozenset(
    {
        "actionsMenu",
        "ariaCharRemainingIntervals",
        "ariaIdleAlertIntervals",
        "autoInvite",
        "charCountEnabled",
        "chatButton",
        "confirmFormCloseEnabled",
        "dynamicPositioning",
        "emojis",
        "form",
        "formValidator",
        "markdown",
        "maxMessageCharacters",
        "minimizeOnMobileRestore",
        "openOnLoad",
        "pollRateSleep",
        "proactive",
        "sleepEnabled",
        "timeFormat",
        "uploadsEnabled",
    }
)
"""Documented keys of the WebChat user interface, which shares the configuration object."""

SECRET_FIELDS = frozenset({"apikey", "headers", "main_header", "key_password", "user_data", "proxy"})


MOST = 10.0**12
"""Milliseconds, some thirty years, beyond which no clock and no socket can wait; the largest of all numbers."""

_SPELLING = {
    "data_url": "dataURL",
    "comet_d": "cometD",
    "comet_url": "cometURL",
    "api_url": "apiURL",
    "asynchronous": "async",
    "main_header": "_main.header",
}


def documented(name: str) -> str:
    """The documented spelling of a field: camelCase, with the reference's own exceptions."""
    first, *rest = name.split("_")
    return _SPELLING.get(name) or first + "".join(part.capitalize() for part in rest)


class Masked(Struct, frozen=True):
    """A section whose repr hides what may hold a secret: keys, headers and user data."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={MASK if value and name in SECRET_FIELDS else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class XhrFields(Struct, frozen=True, rename=documented):
    """`xhrFields`: with `withCredentials`, cookies of the server are kept and sent back."""

    with_credentials: bool = False
    """Whether cookies of the server are kept and sent back."""


class CometD(Struct, frozen=True, kw_only=True, rename=documented):
    """`cometD`: the v2 API over CometD, in place of REST.

    `websocketEnabled` tries a websocket first; it needs the extra `websocket`, and has no effect with `client.proxy`.
    """

    enabled: bool = False
    """Whether CometD takes the place of REST."""
    comet_url: str = ""
    """Where the CometD server is, an http(s) URL; required where it is enabled."""
    channel: str = "/service/chatV2/customer-support"
    """The channel of the chat service."""
    api_url: str = ""
    """Where files go, an http(s) URL; required where it is enabled."""
    websocket_enabled: bool = False
    """Whether a websocket is tried before long polling; needs the extra `websocket`."""
    log_level: str = "info"
    """Taken and ignored: the `webchat_fsm` logger has a level of its own."""


class Async(Struct, frozen=True, kw_only=True, rename=documented):
    """`transport.async`: asynchronous chat, and the three functions that keep its session data."""

    enabled: bool = False
    """Whether a chat that is left goes dormant, to be taken up again whenever it is."""
    get_session_data: Any = None
    """Called as `(session_data, cookie, options)` with each new state of the session, to keep it."""
    set_session_data: Any = None
    """Called as `(open, cookie, options)` when a service opens; gives back what was kept, or nothing."""
    delete_session_data: Any = None
    """Called as `(error_data, cookie, options)` when the session is lost, to forget it."""


class TransportSection(Masked, frozen=True, kw_only=True, rename=documented):
    """`transport`: the v3 API; its presence chooses it."""

    type: str = "pureengage-v3-rest"
    """The only documented one."""
    data_url: str = ""
    """Where sessions are begun, an http(s) URL; always required."""
    endpoint: str = ""
    """The endpoint on which a chat is begun; always required."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, `x-api-key` among them."""
    asynchronous: Async = field(default_factory=Async)
    """Asynchronous chat."""
    stream: str = ""
    """Named when a chat is begun, where it is not empty."""
    client_type: str = ""
    """Named when a chat is begun, where it is not empty."""
    poll_timeout: float = 3000
    """Milliseconds between two polls."""
    poll_interval_multiplier: float = 1.2
    """By which that grows with each failed poll, up to 30 seconds."""
    max_message_page_size: int = 20
    """How many messages a page of the history has at most."""


class Tls(Masked, frozen=True, kw_only=True, rename=documented):
    """`client.tls`: verification is on; `ca` names a file of authorities, `cert` and `key` a client certificate."""

    verify: bool = True
    """Whether the server has to prove who it is."""
    ca: str = ""
    """A file of authorities to trust, in place of the system's."""
    cert: str = ""
    """A file with a client certificate."""
    key: str = ""
    """The file of its key, where that is another one."""
    key_password: str = ""
    """What opens the key."""


class Retry(Struct, frozen=True, kw_only=True, rename=documented):
    """`client.retry`: repeats of a poll on a dropped keep-alive connection, and the longest Retry-After (ms)."""

    stale_connection: int = 1
    """How often a poll is repeated at once on a kept connection that turns out to be dead."""
    retry_after_cap: float = 300_000
    """Milliseconds to which a longer Retry-After is cut."""


class Client(Masked, frozen=True, kw_only=True, rename=documented):
    """`client`: what the reference lacks. Times in milliseconds, sizes in bytes, `pollJitter` a share from 0 to 1."""

    tls: Tls = field(default_factory=Tls)
    """How the server proves who it is, and the client, if asked."""
    proxy: str = ""
    """The URL of an HTTP(S) proxy, which may carry credentials."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, on every transport."""
    retry: Retry = field(default_factory=Retry)
    """What is repeated, and how long a server may have one wait."""
    poll_jitter: float = 0.0
    """The share of each delay between polls, from 0 to 1, that chance may take off it."""
    max_answer_size: int = 16 * 1024 * 1024
    """Bytes of an answer at most."""
    max_download_size: int = 256 * 1024 * 1024
    """Bytes of a downloaded file at most."""
    delivery_timeout: float = 1000
    """Milliseconds for which a command waits for handlers on another thread."""
    on_handler_error: Any = None
    """Called as `(error, event)` when a handler raises."""
    download_dir: str = "."
    """The folder in which `downloadFile` puts files; made where it is missing."""


class Config(Masked, frozen=True, kw_only=True, rename=documented):
    """The `_genesys.widgets.webchat` object; defaults are the documented ones."""

    apikey: str = ""
    """The secret of an API gateway, sent as a header of v2."""
    endpoint: str = ""
    """The endpoint on which a chat is begun."""
    data_url: str = ""
    """The v2 chat service, an http(s) URL; required unless `cometD` or `transport` chooses otherwise."""
    enable_custom_header: bool = False
    """Whether the headers of `main.header` go with every request."""
    user_data: dict[str, Any] = field(default_factory=dict)
    """Attached to every chat that is begun; what a command gives lies above."""
    ajax_timeout: float = 3000
    """Milliseconds for a request from its beginning to the last byte of its answer."""
    xhr_fields: XhrFields = field(default_factory=XhrFields)
    """Whether cookies are kept."""
    poll_exception_limit: int = 5
    """How many polls may fail one after the other; with the next the chat is offline."""
    restore_timeout: float = 60_000
    """Milliseconds since the last answer after which a session is not restored any more (v2 and CometD)."""
    poll_rate: float = 3000
    """Milliseconds between two polls where `dynamicPolling` is off."""
    poll_rate_min: float = 500
    """Milliseconds between two polls after activity."""
    poll_rate_max: float = 3000
    """Milliseconds between two polls at most."""
    poll_rate_mult: float = 1.2
    """By which the delay grows with each poll."""
    dynamic_polling: bool = True
    """Whether polls come closer after activity."""
    max_message_length: int = 0
    """Characters of a message at most; 0 for no limit."""
    file_upload_timeout: float = 0
    """Milliseconds for an upload; 0 for no limit."""
    enable_url_trailing_slash: bool = True
    """Whether the paths of v2 end with a slash."""
    comet_d: CometD = field(default_factory=CometD)
    """The v2 API pushed over CometD."""
    transport: TransportSection | None = None
    """The v3 API."""
    client: Client = field(default_factory=Client)
    """What the reference lacks."""
    main_header: dict[str, str] = field(default_factory=dict)
    """Sent with every request where `enableCustomHeader` is on; stands beside `webchat` in the whole widgets object."""

    @classmethod
    def read(cls, given: Mapping[str, Any] | Config) -> Config:
        """Check a mapping: the webchat object, or the whole widgets object with `webchat` and `main` in it.

        Raises `ConfigError` that names the path of what is wrong.
        """
        if isinstance(given, Config):
            return given
        if not isinstance(given, Mapping):
            raise ConfigError("$", f"expected the configuration object, got {type(given).__name__}")
        webchat, header = dict(given), None
        if "webchat" in given:
            webchat, header = _section(given, "webchat"), _section(_section(given, "main"), "header", "$.main")
        if "_main.header" in webchat:
            raise ConfigError("$._main.header", "give the whole widgets object with main.header instead")
        if header is not None:
            webchat["_main.header"] = header
        root = "$.webchat" if "webchat" in given else "$"
        _warn_of_unknown(webchat, cls, root)
        try:
            return _checked(_converted(webchat))
        except ConfigError as error:
            raise ConfigError(_below(root, error.path), error.expected) from None

    @property
    def way(self) -> Transport:
        """The transport that this configuration chooses."""
        if self.transport is not None:
            return Transport.V3_ASYNC if self.transport.asynchronous.enabled else Transport.V3
        return Transport.COMETD if self.comet_d.enabled else Transport.V2

    @property
    def address(self) -> str:
        """The URL of the chat server, which names the server a session belongs to."""
        if self.transport is not None:
            return self.transport.data_url
        return self.comet_d.comet_url if self.comet_d.enabled else self.data_url

    @property
    def custom_headers(self) -> dict[str, str]:
        """The headers of `enableCustomHeader`: `main.header`, else `client.headers`."""
        return self.main_header or self.client.headers


def _section(given: Mapping[str, Any], key: str, parent: str = "$") -> dict[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{parent}.{key}", f"expected an object, got {type(value).__name__}")
    return dict(value)


def _below(root: str, path: str) -> str:
    """A path in the webchat object as it is in what was given; `main` lies beside it."""
    return path.replace("_main", "main") if path.startswith(("$.main", "$._main")) else root + path.removeprefix("$")


def _converted(webchat: Mapping[str, Any]) -> Config:
    try:
        return msgspec.convert(webchat, Config)
    except msgspec.ValidationError as error:
        raise located(error) from None


def located(error: msgspec.ValidationError) -> ConfigError:
    """What a decoder finds wrong, as a place and what was expected there."""
    text, _, path = str(error).partition(" - at `")
    return ConfigError(path.rstrip("`") or "$", text[:1].lower() + text[1:])


_warned: set[str] = set()


def _structs(annotation: Any) -> Iterator[type[Struct]]:
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and issubclass(option, Struct):
            yield option


@cache
def _fields(struct: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def _warn_of_unknown(given: Mapping[str, Any], struct: type[Struct], path: str) -> None:
    fields = {known.encode_name: known for known in _fields(struct)}
    for key, value in given.items():
        if key not in fields:
            if not (struct is Config and key in UI_KEYS) and (place := f"{path}.{key}") not in _warned:
                _warned.add(place)
                folded = {name.casefold(): name for name in fields}
                near = difflib.get_close_matches(str(key).casefold(), folded, 1)
                meant = f"; did you mean {folded[near[0]]}?" if near else ""
                log.warning("unknown configuration key %s%s", place, meant)
        elif isinstance(value, Mapping):
            for inner in _structs(fields[key].type):
                _warn_of_unknown(value, inner, f"{path}.{key}")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (the property checks the number)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _address(text: str) -> tuple[bool, str]:
    """Whether an address of a chat server is none, and what to say of it; one with credentials is not quoted."""
    if "@" in text.partition("://")[2].partition("/")[0]:
        return True, "expected a URL without credentials, which would not be sent: name a header instead"
    return not _is_url(text), f"expected an http(s) URL, got {text!r}"


def _checked(config: Config) -> Config:
    for path, wrong, expected in _demands(config):
        if wrong:
            raise ConfigError(path, expected)
    return config


Demand = tuple[str, bool, str]


def _demands(config: Config) -> Iterator[Demand]:
    yield from _addresses(config)
    for name, least in (("ajaxTimeout", 1), ("restoreTimeout", 0), ("pollExceptionLimit", 0), ("pollRate", 100),
                        ("pollRateMin", 100), ("maxMessageLength", 0), ("fileUploadTimeout", 0)):  # fmt: skip
        value = getattr(config, _attribute(name))
        yield f"$.{name}", not least <= value <= MOST, f"expected a number from {least} to {MOST:g}, got {value}"
    fits = config.poll_rate_min <= config.poll_rate_max <= MOST
    yield "$.pollRateMax", not fits, f"expected at least pollRateMin and at most {MOST:g}, got {config.poll_rate_max}"
    yield "$.pollRateMult", not 1 <= config.poll_rate_mult < float("inf"), "expected a factor of at least 1"
    yield "$.client.pollJitter", not 0 <= config.client.poll_jitter <= 1, "expected a share from 0 to 1"
    yield from _of_client(config.client)
    yield from _headers(config)
    yield "$.client.proxy", bool(config.client.proxy) and not _is_url(config.client.proxy), "expected an http(s) URL"
    yield "$.client.tls.key", bool(config.client.tls.key and not config.client.tls.cert), "needs client.tls.cert too"
    yield from _functions(config)
    yield from _user_data(config)
    missing = config.enable_custom_header and not config.custom_headers
    yield "$.enableCustomHeader", missing, "needs main.header (give the whole widgets object) or client.headers"


def _of_client(client: Client) -> Iterator[Demand]:
    for name, size in (("maxAnswerSize", client.max_answer_size), ("maxDownloadSize", client.max_download_size)):
        yield f"$.client.{name}", size < 1024, f"expected at least 1024 bytes, got {size}"
    retry = client.retry
    for name, value in (("deliveryTimeout", client.delivery_timeout), ("retry.retryAfterCap", retry.retry_after_cap),
                        ("retry.staleConnection", retry.stale_connection)):  # fmt: skip
        yield f"$.client.{name}", not 0 <= value <= MOST, f"expected a number from 0 to {MOST:g}, got {value}"


def _headers(config: Config) -> Iterator[Demand]:
    """A header is sent as it is given, so it must be one; what it holds may be secret and is never shown."""
    section = config.transport
    given = {
        "$.apikey": {"apikey": config.apikey},
        "$.main.header": config.main_header,
        "$.client.headers": config.client.headers,
        "$.transport.headers": {} if section is None else section.headers,
    }
    for path, headers in given.items():
        for name, value in headers.items():
            wrong = not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))
            yield path, wrong, "expected names and values that an HTTP header can carry: Latin-1 without line breaks"


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _user_data(config: Config) -> Iterator[Demand]:
    try:
        wrong = next(unsendable(config.user_data, "userData"), "")
    except RecursionError:
        wrong = "userData holds itself"
    yield "$.userData", bool(wrong), f"expected what can be sent, but {wrong}"


def _attribute(name: str) -> str:
    return next(known.name for known in _fields(Config) if known.encode_name == name)


def _addresses(config: Config) -> Iterator[Demand]:
    section = config.transport
    if section is not None:
        known = section.type == "pureengage-v3-rest"
        yield "$.transport.type", not known, f"expected 'pureengage-v3-rest', got {section.type!r}"
        yield "$.transport.dataURL", *_address(section.data_url)
        yield "$.transport.endpoint", not section.endpoint, "is required: the endpoint of the v3 API"
        slow = not 100 <= section.poll_timeout <= MOST
        yield "$.transport.pollTimeout", slow, f"expected a number from 100 to {MOST:g}"
        slow = not 1 <= section.poll_interval_multiplier < float("inf")
        yield "$.transport.pollIntervalMultiplier", slow, "expected a factor of at least 1"
        yield "$.transport.maxMessagePageSize", section.max_message_page_size < 2, "expected at least 2"
        yield "$.cometD.enabled", config.comet_d.enabled, "cannot be combined with transport"
    elif config.comet_d.enabled:
        yield "$.cometD.cometURL", *_address(config.comet_d.comet_url)
        yield "$.cometD.apiURL", *_address(config.comet_d.api_url)
    else:
        yield "$.dataURL", *_address(config.data_url)


def _functions(config: Config) -> Iterator[Demand]:
    section = config.transport
    given: dict[str, Callable[..., Any] | None] = {"$.client.onHandlerError": config.client.on_handler_error}
    if section is not None:
        hooks = section.asynchronous
        given["$.transport.async.getSessionData"] = hooks.get_session_data
        given["$.transport.async.setSessionData"] = hooks.set_session_data
        given["$.transport.async.deleteSessionData"] = hooks.delete_session_data
    for path, function in given.items():
        yield path, function is not None and not callable(function), "expected a function"
