"""``webchat-fsm serve``: the embedded chat server on a port, with scripted people."""

from __future__ import annotations

import json
import os
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from webchat_fsm.cli.ending import DONE, require
from webchat_fsm.cli.options import API_KEY, Subparsers, describe, port, seconds

if TYPE_CHECKING:
    from webchat_fsm.server import Script, ServerOptions
    from webchat_fsm.server.front import HttpFront

LOOK = 0.5
"""Seconds between two looks for Ctrl-C, which not every system lets through while a thread waits."""

SCRIPTS = ("helpful", "busy", "none")


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "serve",
        run,
        "the embedded chat server on a port, with scripted people",
        f"Serve chats over HTTP until Ctrl-C. With {API_KEY} in the environment every request must carry that key.",
        "webchat-fsm serve --port 0",
        "webchat-fsm serve --script busy --idle-alert 60 --idle-close 30",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=port, default=8080, help="the port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--script",
        choices=SCRIPTS,
        default="helpful",
        help="who is there: an agent who answers everything, a bot, an agent and a supervisor, or nobody"
        " (default: %(default)s)",
    )
    parser.add_argument("--liveness", type=seconds, metavar="S", help="drop a client that asks nothing for so long")
    parser.add_argument("--idle-alert", type=seconds, metavar="S", help="warn in a chat that is quiet for so long")
    parser.add_argument("--idle-close", type=seconds, metavar="S", help="end it when it stays so for so long")
    parser.add_argument("--max-message-length", type=int, metavar="N", help="refuse texts of more characters")
    parser.add_argument("--json", action="store_true", help="print the addresses as one line of JSON")


def run(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    require("server")
    from webchat_fsm.server import ChatServer
    from webchat_fsm.server.front import HttpFront

    server = ChatServer(server_options(options, os.environ.get(API_KEY)), script=script(options.script))
    with HttpFront(server, options.host, options.port) as front, stopped_by_ctrl_c():
        print(json.dumps(addresses(front)) if options.json else announcement(front, options.script), flush=True)
        wait_for_ever()
    return DONE


def script(name: str) -> Script | None:
    """The people by the name of their script."""
    from webchat_fsm.server import BUSY_FLOOR, HELPFUL_AGENT

    return {"helpful": HELPFUL_AGENT, "busy": BUSY_FLOOR, "none": None}[name]


def server_options(options: Namespace, apikey: str | None) -> ServerOptions:
    """What the arguments and the environment switch on."""
    from webchat_fsm.server import ServerOptions

    return ServerOptions(
        apikey=apikey or None,
        liveness=options.liveness,
        idle_alert=options.idle_alert,
        idle_close=options.idle_close,
        max_message_length=options.max_message_length,
    )


def addresses(front: HttpFront) -> dict[str, str]:
    """Where each dialect is spoken, by the name that the configuration has for it."""
    return {
        "url": front.url,
        "dataURL": front.data_url(),
        "transport.dataURL": front.sessions_url,
        "cometD.cometURL": front.comet_url,
        "cometD.apiURL": front.comet_files_url,
    }


def announcement(front: HttpFront, people: str) -> str:
    """What is served where, and how to go there from another terminal."""
    told = addresses(front)
    there = {"helpful": "Ann, an agent", "busy": "Robo, Ann and Sue", "none": "nobody"}[people]
    key = f" Requests need the key of {API_KEY}." if front.server.options.apikey else ""
    return "\n".join(
        [
            f"The chat server listens at {told['url']}; there is {there}.{key}",
            "",
            f"  v2      dataURL            {told['dataURL']}",
            f"  v3      transport.dataURL  {told['transport.dataURL']}",
            f"  cometd  cometD.cometURL    {told['cometD.cometURL']}",
            f"          cometD.apiURL      {told['cometD.apiURL']}",
            "",
            *(f"  {command}" for command in invitations(told)),
            "",
            "Ctrl-C stops it.",
        ]
    )


def invitations(told: dict[str, str]) -> list[str]:
    """How to chat there, on each transport."""
    v3, comet = told["transport.dataURL"], told["cometD.cometURL"]
    return [
        f"webchat-fsm chat --nickname Jonny --url {told['dataURL']}",
        f"webchat-fsm chat --nickname Jonny --transport v3 --endpoint customer-support --url {v3}",
        f"webchat-fsm chat --nickname Jonny --transport cometd --url {comet} --api-url {told['cometD.apiURL']}",
    ]


@contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    """End the block at Ctrl-C, or at SIGTERM, which is how others say the same."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_ever() -> None:
    """Wait for what a signal raises."""
    never = threading.Event()
    while not never.wait(LOOK):
        continue
