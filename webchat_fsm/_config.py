"""Check and type the documented configuration object: `Config.read` accepts what a page would hold.

Numbers are milliseconds where the reference documents milliseconds. A known key of the wrong type is a `ConfigError`
with its path; an unknown key is logged once with the nearest documented name; keys of the user interface are ignored.
"""

from __future__ import annotations

import logging
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from webchat_fsm._config_checks import requirements
from webchat_fsm._errors import ConfigError
from webchat_fsm._json import REFUSED, spelling
from webchat_fsm._model import MASK
from webchat_fsm.lifecycle._transports import Transport

log = logging.getLogger("webchat_fsm")

# fmt: off
UI_KEYS = frozenset({
    "actionsMenu", "ariaCharRemainingIntervals", "ariaIdleAlertIntervals", "autoInvite", "charCountEnabled",
    "chatButton", "confirmFormCloseEnabled", "dynamicPositioning", "emojis", "form", "formValidator", "markdown",
    "maxMessageCharacters", "minimizeOnMobileRestore", "openOnLoad", "pollRateSleep", "proactive", "sleepEnabled",
    "timeFormat", "uploadsEnabled",
})
# fmt: on
"""Documented keys of the WebChat user interface, which shares the configuration object."""

SECRET_FIELDS = frozenset({"apikey", "headers", "main_header", "key_password", "user_data", "proxy"})
"""Fields that may hold a secret, and are masked in every repr; the URL of a proxy may carry credentials."""

MOST = 10**12
"""Milliseconds, about thirty years: no clock and no socket can wait longer, so that no number may be greater."""

Milliseconds = Annotated[float, Meta(ge=0, le=MOST)]
"""A duration; 0 means none, or no limit."""

Period = Annotated[float, Meta(ge=100, le=MOST)]
"""Milliseconds between two requests: fewer than 100 would flood a server."""

Factor = Annotated[float, Meta(ge=1, le=MOST)]
"""By which a delay grows; a smaller one would shrink it."""

Count = Annotated[int, Meta(ge=0, le=MOST)]
Size = Annotated[int, Meta(ge=1024)]
"""Bytes; less than a kilobyte holds no answer."""

# where the reference capitalises an abbreviation, where Python has a keyword, and where a name is none of its own
_SPELLING = {
    "data_url": "dataURL",
    "comet_d": "cometD",
    "comet_url": "cometURL",
    "api_url": "apiURL",
    "asynchronous": "async",
    # not a key that can be given: `_read` puts it there, from beside the webchat object
    "main_header": "_main.header",
}


def documented(name: str) -> str:
    """Spell a field as the reference does: camelCase, with its own exceptions."""
    first, *rest = name.split("_")
    return _SPELLING.get(name) or first + "".join(part.capitalize() for part in rest)


class Masked(Struct, frozen=True):
    """A section whose repr hides what may hold a secret: keys, headers and user data."""

    def __repr__(self) -> str:
        # an empty value is shown, so that a missing key can be seen
        shown = (
            f"{name}={MASK if value and name in SECRET_FIELDS else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class XhrConfig(Struct, frozen=True, rename=documented):
    """`xhrFields`: with `withCredentials`, cookies of the server are kept and sent back."""

    with_credentials: bool = False
    """Whether cookies of the server are kept and sent back."""


class CometDConfig(Struct, frozen=True, kw_only=True, rename=documented):
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


class AsyncConfig(Struct, frozen=True, kw_only=True, rename=documented):
    """`transport.async`: asynchronous chat, and the three functions that keep its session data."""

    enabled: bool = False
    """Whether a chat that is left becomes dormant and can be resumed at any time."""
    get_session_data: Callable[..., Any] | None = None
    """Called as `(session_data, cookie, options)` with each new state of the session, to keep it."""
    set_session_data: Callable[..., Any] | None = None
    """Called as `(open, cookie, options)` when a service opens; gives back what was kept, or nothing."""
    delete_session_data: Callable[..., Any] | None = None
    """Called as `(error_data, cookie, options)` when the session is lost, to forget it."""


class TransportConfig(Masked, frozen=True, kw_only=True, rename=documented):
    """`transport`: the v3 API; its presence chooses it."""

    type: str = "pureengage-v3-rest"
    """The only documented one."""
    data_url: str = ""
    """Where sessions are begun, an http(s) URL; always required."""
    endpoint: str = ""
    """The endpoint on which a chat is begun; always required."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, `x-api-key` among them."""
    asynchronous: AsyncConfig = AsyncConfig()
    """Asynchronous chat."""
    stream: str = ""
    """Named when a chat is begun, where it is not empty."""
    client_type: str = ""
    """Named when a chat is begun, where it is not empty."""
    poll_timeout: Period = 3000
    """Milliseconds between two polls."""
    poll_interval_multiplier: Factor = 1.2
    """By which that grows with each failed poll, up to 30 seconds."""
    max_message_page_size: Annotated[int, Meta(ge=2)] = 20
    """How many messages a page of the history has at most."""


class TlsConfig(Masked, frozen=True, kw_only=True, rename=documented):
    """`client.tls`: verification is on; `ca` names a file of authorities, `cert` and `key` a client certificate."""

    verify: bool = True
    """Whether the server's certificate is verified."""
    ca: str = ""
    """A file of authorities to trust, in place of the system's."""
    cert: str = ""
    """A file with a client certificate."""
    key: str = ""
    """The file of its key, where that is another one."""
    key_password: str = ""
    """The password of the key."""


class RetryConfig(Struct, frozen=True, kw_only=True, rename=documented):
    """`client.retry`: repeats of a poll on a dropped keep-alive connection, and the longest Retry-After (ms)."""

    stale_connection: Count = 1
    """How often a poll is repeated at once on a kept connection that turns out to be dead."""
    retry_after_cap: Milliseconds = 300_000
    """The longest Retry-After that is obeyed, in milliseconds."""


class ClientConfig(Masked, frozen=True, kw_only=True, rename=documented):
    """`client`: settings that the reference lacks. Times are in milliseconds, sizes in bytes."""

    tls: TlsConfig = TlsConfig()
    """Verification of the server, and the client's own certificate."""
    proxy: str = ""
    """The URL of an HTTP(S) proxy, which may carry credentials."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, on every transport."""
    retry: RetryConfig = RetryConfig()
    """Which requests are repeated, and the longest Retry-After."""
    poll_jitter: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The share of each delay between polls, from 0 to 1, by which it may be shortened at random."""
    max_answer_size: Size = 16 * 1024 * 1024
    """Bytes of an answer at most."""
    max_download_size: Size = 256 * 1024 * 1024
    """Bytes of a downloaded file at most."""
    delivery_timeout: Milliseconds = 1000
    """Milliseconds for which a command waits for handlers on another thread."""
    on_handler_error: Callable[..., object] | None = None
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
    """Attached to every chat that is begun; values given to a command take precedence."""
    ajax_timeout: Annotated[float, Meta(ge=1, le=MOST)] = 3000
    """Milliseconds for a request from its beginning to the last byte of its answer."""
    xhr_fields: XhrConfig = XhrConfig()
    """Whether cookies are kept."""
    poll_exception_limit: Count = 5
    """How many polls may fail one after the other; with the next the chat is offline."""
    restore_timeout: Milliseconds = 60_000
    """Milliseconds since the last answer after which a session is not restored any more (v2 and CometD)."""
    poll_rate: Period = 3000
    """Milliseconds between two polls where `dynamicPolling` is off."""
    poll_rate_min: Period = 500
    """Milliseconds between two polls after activity."""
    poll_rate_max: Annotated[float, Meta(le=MOST)] = 3000
    """Milliseconds between two polls at most."""
    poll_rate_mult: Factor = 1.2
    """By which the delay grows with each poll."""
    dynamic_polling: bool = True
    """Whether polls come closer after activity."""
    max_message_length: Count = 0
    """Characters of a message at most; 0 for no limit."""
    file_upload_timeout: Milliseconds = 0
    """Milliseconds for an upload; 0 for no limit."""
    enable_url_trailing_slash: bool = True
    """Whether the paths of v2 end with a slash."""
    comet_d: CometDConfig = CometDConfig()
    """The v2 API pushed over CometD."""
    transport: TransportConfig | None = None
    """The v3 API."""
    client: ClientConfig = field(default_factory=ClientConfig)
    """Settings that the reference lacks: TLS, proxy, retries, limits."""
    main_header: dict[str, str] = field(default_factory=dict)
    """Sent with every request where `enableCustomHeader` is on; stands beside `webchat` in the whole widgets object."""

    @classmethod
    def read(cls, given: Mapping[str, Any] | Config) -> Config:
        """Check a mapping: the webchat object, or the whole widgets object with `webchat` and `main` in it.

        Raises `ConfigError` that names the path of what is wrong.
        """
        if isinstance(given, Config):  # read before, and frozen
            return given
        if not isinstance(given, Mapping):
            raise ConfigError("$", f"expected the configuration object, got {type(given).__name__}")
        try:
            return cls._read(given)
        except ConfigError:
            raise
        except Exception as error:  # a mapping of the user's may raise anything, and a number have no text
            raise ConfigError("$", f"the configuration cannot be read: {type(error).__name__}: {error}") from error

    @classmethod
    def _read(cls, given: Mapping[str, Any]) -> Config:
        # a copy, as a key is added below and the caller's object stays as it was
        webchat, header = dict(given), None
        if "webchat" in given:
            webchat, header = _section(given, "webchat"), _section(_section(given, "main"), "header", "$.main")
        if "_main.header" in webchat:  # the field's own name, which msgspec would accept
            raise ConfigError("$._main.header", "give the whole widgets object with main.header instead")
        if header is not None:  # None where the webchat object alone was given, which has no place for it
            webchat["_main.header"] = header
        root = "$.webchat" if "webchat" in given else "$"
        _warn_of_unknown(webchat, cls, root)  # before the check, as a misspelt key may be why a required one is missing
        try:
            config = _converted(webchat)
            for path, wrong, expected in requirements(config):
                if wrong:
                    raise ConfigError(path, expected)
            return config
        except ConfigError as error:
            raise ConfigError(_path_given(root, error.path), error.expected) from None

    @property
    def way(self) -> Transport:
        """Return the transport that this configuration chooses."""
        if self.transport is not None:
            return Transport.V3_ASYNC if self.transport.asynchronous.enabled else Transport.V3
        return Transport.COMETD if self.comet_d.enabled else Transport.V2

    @property
    def address(self) -> str:
        """Return the URL of the chat server, to which a saved session belongs."""
        if self.transport is not None:
            return self.transport.data_url
        return self.comet_d.comet_url if self.comet_d.enabled else self.data_url

    @property
    def custom_headers(self) -> dict[str, str]:
        """Return the headers of `enableCustomHeader`: `main.header`, else `client.headers`."""
        return self.main_header or self.client.headers


def _section(given: Mapping[str, Any], key: str, parent: str = "$") -> dict[str, Any]:
    value = given.get(key) or {}  # null and an empty text count as not given, as in JavaScript
    if not isinstance(value, Mapping):
        raise ConfigError(f"{parent}.{key}", f"expected an object, got {type(value).__name__}")
    return dict(value)


def _path_given(root: str, path: str) -> str:
    """Translate a path in the webchat object into one in the object that was given; `main` lies beside it."""
    return path.replace("_main", "main") if path.startswith(("$.main", "$._main")) else root + path.removeprefix("$")


def _converted(webchat: Mapping[str, Any]) -> Config:
    try:
        return msgspec.convert(webchat, Config)
    except REFUSED as error:  # a text with half a surrogate is no `ValidationError`
        raise config_error(error, webchat) from None


_BOUND = cache(lambda: re.compile(r"`(?:int|float)` (>=|<=) (\S+)$"))
_BOUNDS = {">=": "least", "<=": "most"}


def config_error(error: Exception, given: object = None) -> ConfigError:
    """Translate a decoder's error into the path of what is wrong, what was expected there, and the number given."""
    text, _, place = str(error).partition(" - at `")
    path = place.rstrip("`") or "$"
    value = given
    for key in path.removeprefix("$.").split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    # Only numbers are shown: a text in the wrong place may be a secret.
    number = f", got {spelling(value)}" if isinstance(value, int | float) and "got" not in text else ""
    text = _BOUND().sub(lambda found: f"a number of at {_BOUNDS[found[1]]} {float(found[2]):g}", text)
    return ConfigError(path, text[:1].lower() + text[1:] + number)


# by place and for the process: a program that makes thousands of services logs each misspelt key once
_warned: set[str] = set()


def _structs(annotation: Any) -> Iterator[type[Struct]]:
    for option in (annotation, *typing.get_args(annotation)):  # `TransportConfig | None` too
        if isinstance(option, type) and issubclass(option, Struct):
            yield option


@cache  # msgspec resolves the annotations anew at each call
def _fields(struct: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {known.encode_name: known for known in msgspec.structs.fields(struct)}


def _warn_of_unknown(given: Mapping[str, Any], struct: type[Struct], path: str) -> None:
    known = struct.__struct_encode_fields__  # types are resolved for sections alone, as that takes long
    for key, value in given.items():
        if key not in known:
            if not (struct is Config and key in UI_KEYS) and (place := f"{path}.{key}") not in _warned:
                _warned.add(place)
                import difflib  # here, as only a mistake needs it

                # difflib is case-sensitive: dataUrl for dataURL would be too far away
                folded = {name.casefold(): name for name in known}
                near = difflib.get_close_matches(str(key).casefold(), folded, 1)
                meant = f"; did you mean {folded[near[0]]}?" if near else ""
                log.warning("unknown configuration key %s%s", place, meant)
        elif isinstance(value, Mapping):
            for inner in _structs(_fields(struct)[key].type):
                _warn_of_unknown(value, inner, f"{path}.{key}")
