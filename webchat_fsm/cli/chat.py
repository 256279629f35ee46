"""``webchat-fsm chat``: an interactive chat from the terminal, against any server."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import ExitStack

from webchat_fsm.cli.chat_config import TRANSPORTS, by_option, config_of
from webchat_fsm.cli.ending import complain, require
from webchat_fsm.cli.options import API_KEY, Subparsers, describe, pair, seconds, section, whole
from webchat_fsm.cli.screen import Screen, coloured
from webchat_fsm.errors import ConfigError


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "chat",
        run,
        "chat from the terminal, against any server",
        "What is typed is sent line by line; a line that begins with / is a command (/help lists them), and // sends a"
        " slash. What comes back appears at once. Ctrl-C, or the end of the input, ends the chat; a second Ctrl-C"
        f" leaves at once. The API key is taken from {API_KEY} in the environment.",
        "webchat-fsm chat --url http://127.0.0.1:8080/genesys/2/chat/customer-support --nickname Jonny",
        "echo hello | webchat-fsm chat --url $DATA_URL --nickname Jonny --linger 10 --json",
    )
    server = parser.add_argument_group("the server")
    server.add_argument("--url", required=True, help="dataURL; for cometd the cometURL")
    server.add_argument(
        "--transport", choices=TRANSPORTS, default="v2", help="the API that it speaks (default: %(default)s)"
    )
    server.add_argument("--endpoint", default="", help="the endpoint; v3 needs one")
    server.add_argument(
        "--header",
        type=pair(":", "header"),
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header for every request; may be repeated",
    )
    server.add_argument("--async", dest="asynchronous", action="store_true", help="v3: an asynchronous chat")
    server.add_argument("--api-url", default="", metavar="URL", help="cometd: the apiURL, where files go")
    server.add_argument("--channel", default="", help="cometd: the channel (default: the documented one)")
    server.add_argument("--proxy", default="", metavar="URL", help="the HTTP proxy on the way")
    server.add_argument("--ca", default="", metavar="FILE", help="certificate authorities to trust")
    server.add_argument(
        "--config",
        type=section,
        default={},
        metavar="FILE|JSON",
        help="further keys of the configuration, such as '{\"pollRateMax\": 1000}', below what other options say",
    )
    person = parser.add_argument_group("you")
    person.add_argument("--nickname", type=whole, required=True, help="how the others see you")
    for name in ("firstname", "lastname", "email", "subject"):
        person.add_argument(f"--{name}", type=whole, default="", help="a field of the form")
    person.add_argument(
        "--user-data",
        type=pair("=", "pair"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="data attached to the chat; may be repeated",
    )
    here = parser.add_argument_group("here")
    here.add_argument(
        "--store",
        default="",
        metavar="FILE",
        help="keep the session there; after /leave a later run with it goes on with the chat",
    )
    here.add_argument("--linger", type=seconds, default=0.0, metavar="S", help="stay so long after the input has ended")
    here.add_argument("--json", action="store_true", help="print events as lines of JSON, secrets masked")


def run(options: Namespace) -> int:
    """Chat until either side ends it."""
    from webchat_fsm.cli.conversation import Conversation, JsonTeller, TextTeller
    from webchat_fsm.cli.reading import PlainLines, PromptLines, below_the_output
    from webchat_fsm.cli.slash import LEAVING, SLASHES
    from webchat_fsm.cli.watching import watched
    from webchat_fsm.runtime.service import WebChatService
    from webchat_fsm.runtime.store import FileStore

    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not options.json
    colour = at_terminal and coloured(sys.stdout)
    if at_terminal:
        require("terminal")
    store = FileStore(options.store) if options.store else None
    try:
        chat = WebChatService(config_of(options, os.environ), store=store)
    except ConfigError as error:
        raise by_option(error) from None
    screen = Screen(colour=colour, wrap=at_terminal, on_broken=lambda: conversation.stop())
    teller = JsonTeller(screen, chat) if options.json else TextTeller(screen, echoes=at_terminal)
    conversation = Conversation(chat, teller, options, store)
    with ExitStack() as stack:
        stack.enter_context(watched(complain))
        stack.callback(chat.close)
        chat.open()
        conversation.begin()
        if at_terminal:
            stack.enter_context(below_the_output())
            prompt = PromptLines(options.nickname, conversation.status, [*SLASHES, *LEAVING])
            code = conversation.talk(prompt)
        else:
            code = conversation.talk(PlainLines())
    screen.check()
    return code
