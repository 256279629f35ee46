"""``webchat-fsm chat``: an interactive chat from the terminal, against any server."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from webchat_fsm import FileStore, WebChatService
from webchat_fsm._cli.command import API_KEY, describe, json_object, pair, print_error, seconds, unicode
from webchat_fsm._cli.output import Screen, coloured, log_forwarded
from webchat_fsm._errors import ConfigError, missing_extra

Section = dict[str, Any]


def add(parser: ArgumentParser) -> None:
    """Describe the command `chat` and its options to its parser."""
    describe(
        parser,
        run,
        "Each line of input is sent as a message; a line that begins with / is a command (/help lists them), and //"
        " sends a slash. Messages appear as they arrive. Ctrl-C, or the end of the input, ends the chat; a second"
        f" Ctrl-C exits at once. The API key is read from {API_KEY} in the environment.",
        "webchat-fsm chat --url http://127.0.0.1:8080/genesys/2/chat/customer-support --nickname Jonny",
        "echo hello | webchat-fsm chat --url $DATA_URL --nickname Jonny --linger 10 --json",
    )
    server = parser.add_argument_group("server")
    server.add_argument("--url", required=True, help="dataURL; for cometd the cometURL")
    server.add_argument("--transport", choices=tuple(_SECTIONS), default="v2", help="its API (default: %(default)s)")
    server.add_argument("--endpoint", default="", help="the endpoint; required for v3")
    server.add_argument(
        "--header",
        type=pair(":", "header"),
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of every request; may be repeated",
    )
    server.add_argument("--async", dest="asynchronous", action="store_true", help="v3: an asynchronous chat")
    server.add_argument("--api-url", default="", metavar="URL", help="cometd: the apiURL, for files")
    server.add_argument("--channel", default="", help="cometd: the channel (default: the documented one)")
    server.add_argument("--proxy", default="", metavar="URL", help="the HTTP proxy")
    server.add_argument("--ca", default="", metavar="FILE", help="certificate authorities to trust")
    server.add_argument(
        "--config",
        type=json_object,
        default={},
        metavar="FILE|JSON",
        help="more keys of the configuration, such as '{\"pollRateMax\": 1000}'; other options override them",
    )
    person = parser.add_argument_group("customer")
    person.add_argument("--nickname", type=unicode, required=True, help="the name that agents see")
    for name in ("firstname", "lastname", "email", "subject"):
        person.add_argument(f"--{name}", type=unicode, default="", help="a field of the form")
    person.add_argument(
        "--user-data",
        type=pair("=", "pair"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="data attached to the chat; may be repeated",
    )
    program = parser.add_argument_group("program")
    program.add_argument(
        "--store",
        default="",
        metavar="FILE",
        help="save the session in a file; after /leave a later run with the same file restores the chat",
    )
    program.add_argument(
        "--linger",
        type=seconds,
        default=0.0,
        metavar="S",
        help="seconds to stay after the end of the input (default: %(default)g)",
    )
    program.add_argument("--json", action="store_true", help="print events as lines of JSON, secrets masked")


def run(options: Namespace) -> int:
    """Chat until one side ends it; the exit code is 1 if the chat was lost, not if the agent ended it."""
    # Only here: the prompt imports asyncio, which other commands do not need to wait for.
    from webchat_fsm._cli.conversation import Conversation, PlainLines, PromptLines

    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not options.json
    if at_terminal and find_spec("prompt_toolkit") is None:
        # Checked before the chat starts: an error after that would leave an agent with a silent customer.
        raise missing_extra("a chat at a terminal", "terminal", "prompt-toolkit")
    store = FileStore(options.store) if options.store else None
    try:
        chat = WebChatService(config_of(options, os.environ), store=store)
    except ConfigError as error:
        # The user knows the option, not the key of the configuration that it sets.
        raise with_option_name(error) from None
    screen = Screen(colour=at_terminal and coloured(sys.stdout), wrap=at_terminal)
    conversation = Conversation(chat, screen, options, store, echoes=at_terminal)
    with ExitStack() as stack:
        # Before `open`, whose warnings would otherwise be lost; a log line would destroy the prompt.
        stack.enter_context(log_forwarded(print_error))
        # Registered before `open`, so that a failed restore leaves no thread of the driver.
        stack.callback(chat.close)
        chat.open()
        conversation.begin()
        if at_terminal:
            from prompt_toolkit.patch_stdout import patch_stdout

            stack.enter_context(patch_stdout(raw=True))  # what is printed appears above the prompt
            prompt = PromptLines(options.nickname, conversation.status)
            chat.register_typing_preview_input(prompt)
            code = conversation.run(prompt)
        else:
            code = conversation.run(PlainLines(sys.stdin.fileno()))
    # Last, so that a reader who has closed the pipe decides the exit code.
    screen.check()
    return code


# -- the configuration ---------------------------------------------------------------------------------------------


def config_of(options: Namespace, environment: Mapping[str, str]) -> Section:
    """Build the documented configuration from the arguments and the API key of the environment.

    `--config`, the webchat object or the whole widgets object, lies below: the other arguments override its keys.
    Raises `ConfigError` for an option of another transport, and for a configuration that chooses another transport.
    """
    for name, (option, transport) in _ONLY_FOR.items():
        # Rejected, as an ignored option would hide a mistake.
        if getattr(options, name) and options.transport != transport:
            raise ConfigError(option, f"expected --transport {transport}, got {options.transport}")
    key = environment.get(API_KEY, "")
    config = _SECTIONS[options.transport](options, key)
    # On v3 the section of the transport has the headers already.
    headers = {} if options.transport == "v3" else dict(options.header)
    if client := _without_empty(
        {"headers": headers, "proxy": options.proxy, "tls": _without_empty({"ca": options.ca})}
    ):
        config["client"] = client
    merged = _merged(options.config, {"webchat": config} if "webchat" in options.config else config)
    _check_transport(merged.get("webchat", merged), options.transport)
    return merged


def with_option_name(error: ConfigError) -> ConfigError:
    """Return the error with the option that gives the value, if there is one."""
    option = _OPTIONS.get(error.path.replace("$.webchat.", "$."))
    return ConfigError(f"{error.path} ({option})", error.expected) if option else error


def _check_transport(webchat: Section, transport: str) -> None:
    """Reject a `--config` that chooses another transport, as that would ignore `--url`."""
    comet = webchat.get("cometD")
    chosen = (
        ("v3", "transport", webchat.get("transport") is not None),
        ("cometd", "cometD.enabled", isinstance(comet, dict) and bool(comet.get("enabled"))),
    )
    for name, key, given in chosen:
        if given and transport != name:
            raise ConfigError("--config", f"{key}: expected --transport {name}, got {transport}")


def _merged(below: Section, above: Section) -> Section:
    """Merge two objects, nested ones too; a key of `above` overrides."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def _without_empty(section: Section) -> Section:
    # An empty option leaves the key to `--config` and to its default.
    return {key: value for key, value in section.items() if value}


def _v2(options: Namespace, key: str) -> Section:
    return _without_empty({"dataURL": options.url, "apikey": key, "endpoint": options.endpoint})


def _cometd(options: Namespace, key: str) -> Section:
    comet = {"cometURL": options.url, "apiURL": options.api_url, "channel": options.channel}
    return _without_empty(
        {"apikey": key, "endpoint": options.endpoint, "cometD": {"enabled": True, **_without_empty(comet)}}
    )


def _v3(options: Namespace, key: str) -> Section:
    headers = dict(options.header)
    # A header that the user gave wins over the environment.
    if key and "x-api-key" not in {name.lower() for name in headers}:
        headers["x-api-key"] = key
    section = {"dataURL": options.url, "endpoint": options.endpoint, "headers": headers}
    asynchronous = {"enabled": True} if options.asynchronous else {}
    return {"transport": _without_empty({"type": "pureengage-v3-rest", **section, "async": asynchronous})}


_SECTIONS = {"v2": _v2, "cometd": _cometd, "v3": _v3}
"""By the value of `--transport`."""

_ONLY_FOR = {
    "asynchronous": ("--async", "v3"),
    "api_url": ("--api-url", "cometd"),
    "channel": ("--channel", "cometd"),
}
"""Options of one transport, by attribute."""

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
"""The option, or the variable, that sets a key of the configuration."""
