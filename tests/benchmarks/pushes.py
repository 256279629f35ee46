"""Measure how late a push over the websocket reaches its handler; the embedded server runs in another process.

The server holds each connect for ten seconds only, so that a run meets the ends of several.
"""

from __future__ import annotations

import random
import sys
import time

from tests.benchmarks.figures import Measured
from tests.benchmarks.processes import NotReachedError, command, fresh, percentile, talking
from webchat_fsm import ChatEvent, MessageReceived, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

HOLD = 10.0
"""Seconds for which the server holds a connect."""

MESSAGES = 700
"""Messages of a run, 30 to 60 ms apart: about half a minute, and so the ends of three holds."""


def serve() -> None:
    """Serve one chat on a port; each line of standard input has an agent say the present moment."""
    centre = ChatServer(ServerOptions(connect_timeout=HOLD))
    with HttpFront(centre) as front:
        print(front.comet_url, front.comet_files_url, flush=True)
        agent = None
        for _ in sys.stdin:
            agent = agent or centre.agent("Ann").join()
            agent.say(f"{time.monotonic():.9f}")


def lateness(messages: int) -> list[float]:
    """Return the milliseconds from each message of the agent to its handler, sorted."""
    late: list[float] = []

    def received(event: ChatEvent[MessageReceived]) -> None:
        now = time.monotonic()
        spoken = (message for message in event.data.messages if message.type == "Message")
        late.extend((now - float(message.text)) * 1000 for message in spoken)

    with talking(command(serve)) as (read, write):
        comet, files = read().split()
        section = {"enabled": True, "cometURL": comet, "apiURL": files, "websocketEnabled": True}
        with WebChatService({"cometD": section}) as chat:
            chat.subscribe("messageReceived", received)
            chat.start_chat(nickname="J")
            for _ in range(messages):
                time.sleep(random.uniform(0.03, 0.06))
                write("say")
            deadline = time.monotonic() + 5.0
            while len(late) < messages:
                if time.monotonic() > deadline:
                    raise NotReachedError(f"{len(late)} of {messages} pushes arrived")
                time.sleep(0.05)
    return sorted(late)


def measure(quick: bool) -> Measured:
    """Measure the 99th percentile of each run, in a fresh process."""
    samples = [fresh(lateness, 250 if quick else MESSAGES) for _ in range(1 if quick else 3)]
    return {"push": [percentile(sample, 0.99) for sample in samples]}
