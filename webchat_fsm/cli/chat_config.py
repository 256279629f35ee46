"""From the arguments of ``chat`` to the documented configuration, whose own affair it is to say what is wrong in it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from webchat_fsm.cli.options import API_KEY
from webchat_fsm.errors import ConfigError

Section = dict[str, Any]


def config_of(options: Namespace, environment: Mapping[str, str]) -> Section:
    """The configuration that the arguments describe; the API key comes from the environment.

    What `--config` holds, the webchat object or the whole widgets object, lies below: where both say something, the
    other arguments and the key have it. Raises `ConfigError` for an option that the transport does not know, and for a
    configuration that chooses another transport.
    """
    for name, (option, transport) in _ONLY_FOR.items():
        if getattr(options, name) and options.transport != transport:
            raise ConfigError(option, f"is for --transport {transport}, and this is {options.transport}")
    key = environment.get(API_KEY, "")
    config = _SHAPES[options.transport](options, key)
    client = {"headers": dict(options.header), "proxy": options.proxy, "tls": _filled({"ca": options.ca})}
    if options.transport == "v3":
        del client["headers"]
    if client := _filled(client):
        config["client"] = client
    merged = _laid_over(options.config, {"webchat": config} if "webchat" in options.config else config)
    _demand_transport(merged.get("webchat", merged), options.transport)
    return merged


def _demand_transport(webchat: Section, transport: str) -> None:
    """What would choose another transport would have `--url` forgotten."""
    comet = webchat.get("cometD")
    chosen = (
        ("v3", "transport", webchat.get("transport") is not None),
        ("cometd", "cometD.enabled", isinstance(comet, dict) and bool(comet.get("enabled"))),
    )
    for name, key, given in chosen:
        if given and transport != name:
            raise ConfigError("--config", f"{key} is for --transport {name}, and this is {transport}")


def by_option(error: ConfigError) -> ConfigError:
    """The same with the option that gives the value, where there is one."""
    option = _OPTIONS.get(error.path.replace("$.webchat.", "$."))
    return ConfigError(f"{error.path} ({option})", error.expected) if option else error


_OPTIONS = {
    "$.dataURL": "--url",
    "$.transport.dataURL": "--url",
    "$.transport.endpoint": "--endpoint",
    "$.cometD.cometURL": "--url",
    "$.cometD.apiURL": "--api-url",
    "$.client.proxy": "--proxy",
    "$.client.headers": "--header",
    "$.transport.headers": "--header",
    "$.apikey": API_KEY,
}
"""Where a value comes from that `--config` need not give."""


def _laid_over(below: Section, above: Section) -> Section:
    """Both sections in one; in a section that both have this goes on, elsewhere the upper one has it."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _laid_over(below[key], above[key])
    return merged


def _filled(section: Section) -> Section:
    return {key: value for key, value in section.items() if value}


def _v2(options: Namespace, key: str) -> Section:
    return _filled({"dataURL": options.url, "apikey": key, "endpoint": options.endpoint})


def _cometd(options: Namespace, key: str) -> Section:
    comet = {"cometURL": options.url, "apiURL": options.api_url, "channel": options.channel}
    return _filled({"apikey": key, "endpoint": options.endpoint, "cometD": {"enabled": True, **_filled(comet)}})


def _v3(options: Namespace, key: str) -> Section:
    headers = dict(options.header)
    if key and "x-api-key" not in {name.lower() for name in headers}:
        headers["x-api-key"] = key
    section = {"dataURL": options.url, "endpoint": options.endpoint, "headers": headers}
    asynchronous = {"enabled": True} if options.asynchronous else {}
    return {"transport": _filled({"type": "pureengage-v3-rest", **section, "async": asynchronous})}


_SHAPES = {"v2": _v2, "cometd": _cometd, "v3": _v3}
"""How a configuration is laid out for each transport; their names are what --transport takes."""

_ONLY_FOR = {
    "asynchronous": ("--async", "v3"),
    "api_url": ("--api-url", "cometd"),
    "channel": ("--channel", "cometd"),
}
"""Options that mean nothing to the other transports."""

TRANSPORTS = tuple(_SHAPES)
