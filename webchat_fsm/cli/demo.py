"""``webchat-fsm demo``: a whole chat against the embedded server, over real HTTP, told live."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack

from webchat_fsm.cli.ending import DONE, require
from webchat_fsm.cli.options import Subparsers, describe
from webchat_fsm.cli.screen import Screen, coloured


def add(commands: Subparsers) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "demo",
        run,
        "watch a whole chat, with troubles, against the embedded server",
        "A whole chat between a customer (this library), an agent (a script) and a chat server (the embedded one) over"
        " real HTTP on a free loopback port, with every change of state and every event as it happens. It takes some"
        " fourteen seconds, and ends with the path that the state machine has walked.",
        "webchat-fsm demo",
        "webchat-fsm demo --fast > demo.txt",
        "webchat-fsm demo --json | jq -r '.event // empty'",
    )
    parser.add_argument("--fast", action="store_true", help="agent and polls are three times as fast")
    parser.add_argument("--json", action="store_true", help="print every transition and event as a line of JSON")


def run(options: Namespace) -> int:
    """Play all scenes; anything that does not happen as told is a `WebChatError`."""
    on_terminal = not options.json and coloured(sys.stdout)
    require("server", *(["terminal"] if on_terminal else []))
    from webchat_fsm.cli.scenes import SCENES, Stage
    from webchat_fsm.cli.stage_board import Board, JsonBoard, TextBoard
    from webchat_fsm.cli.watching import watched

    screen = Screen(colour=on_terminal, wrap=not options.json)
    board: Board = JsonBoard(screen) if options.json else TextBoard(screen)
    with ExitStack() as stack:
        stack.enter_context(watched(board.warned, board.stepped))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="webchat-fsm-demo-"))
        stage = stack.enter_context(Stage(board, folder, speed=3.0 if options.fast else 1.0))
        stack.enter_context(board.playing(len(SCENES)))
        for scene in SCENES:
            screen.check()
            board.scene(scene.title)
            scene.play(stage)
    board.close()
    screen.check()
    return DONE
