"""Measure how late a push over the websocket reaches its handler.

The embedded server pushes at moments of its own, in another process. It holds each connect for ten seconds only, so
that a run meets the ends of several.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Sequence

from tests.benchmarks.figures import Measured
from tests.benchmarks.processes import NotReachedError, command, fresh, percentile, talking
from webchat_fsm import ChatEvent, MessageReceived, WebChatService

HOLD = 10.0
"""Seconds for which the server holds a connect."""

MESSAGES = 700
"""Messages of a run, 30 to 60 ms apart: about half a minute, and so the ends of three holds."""


def serve() -> None:
    """Serve one chat on a port; a line of standard input has an agent say the present time so many times."""
    # Here, as those who only receive pushes are measured without the server's libraries.
    from webchat_fsm.server import ChatServer, ServerOptions
    from webchat_fsm.server.front import HttpFront

    gc.disable()  # a pause of this process would count as lateness of the client
    centre = ChatServer(ServerOptions(connect_timeout=HOLD))
    with HttpFront(centre) as front:
        print(front.comet_url, front.comet_files_url, flush=True)
        for line in sys.stdin:
            agent = centre.agent("Ann").join()
            for _ in range(int(line)):
                time.sleep(random.uniform(0.03, 0.06))
                agent.say(f"{time.monotonic():.9f}")
            print("said", flush=True)


def receiving(late: list[float]) -> Callable[[ChatEvent[MessageReceived]], None]:
    """Return a handler that appends the milliseconds since each message was sent, which is its text."""

    def received(event: ChatEvent[MessageReceived]) -> None:
        now = time.monotonic()
        spoken = (message for message in event.data.messages if message.type == "Message")
        late.extend((now - float(message.text)) * 1000 for message in spoken)

    return received


def await_pushes(late: Sequence[float], pushed: int) -> None:
    """Wait until each push has its lateness; raises `NotReachedError` where one is missing after five seconds."""
    deadline = time.monotonic() + 5.0
    while len(late) < pushed:
        if time.monotonic() > deadline:
            raise NotReachedError(f"{len(late):,} of {pushed:,} pushes arrived")
        time.sleep(0.05)


def lateness(messages: int) -> list[float]:
    """Return the milliseconds from each message of the agent to its handler, sorted."""
    late: list[float] = []
    with talking(command(serve)) as (read, write):
        comet, files = read().split()
        section = {"enabled": True, "cometURL": comet, "apiURL": files, "websocketEnabled": True}
        with WebChatService({"cometD": section}) as chat:
            chat.subscribe("messageReceived", receiving(late))
            chat.start_chat(nickname="J")
            write(str(messages))
            read()
            await_pushes(late, messages)
    return sorted(late)


def measure(quick: bool) -> Measured:
    """Measure the 99th percentile of each run, in a fresh process."""
    samples = [fresh(lateness, 250 if quick else MESSAGES) for _ in range(1 if quick else 3)]
    return {"push": [percentile(sample, 0.99) for sample in samples]}
