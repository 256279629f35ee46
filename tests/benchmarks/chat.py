"""What a chat costs, as ratios within one run: ``python -m tests.benchmarks.chat``.

The machines these run on are noisy: compare the columns of one run, never two runs.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import urllib3

from webchat_fsm import ManualDriver, ThreadDriver, WebChatService
from webchat_fsm.core import machine
from webchat_fsm.core.session import Session, Settings
from webchat_fsm.lifecycle.table import State, Trigger
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront
from webchat_fsm.testing import TestServer, Timeline

ROUNDS, CALLS, SERVICES = 30, 20, 2_000


def microseconds(call: Callable[[], object]) -> float:
    """The median over rounds of the mean time of a call."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((time.perf_counter() - begin) / CALLS * 1e6)
    return statistics.median(rounds)


def table(title: str, rows: list[tuple[str, float]]) -> None:
    """Print measured rows as ratios to the first."""
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<52} {value:>10.1f} us   x {value / rows[0][1]:.2f}")


@contextmanager
def polling_chat() -> Iterator[tuple[WebChatService, str]]:
    """A chat on a real server in this process, polled by hand."""
    with HttpFront(ChatServer()) as front:
        url = front.data_url("bench")
        with WebChatService({"dataURL": url}, driver=ManualDriver()) as chat:
            chat.start_chat(nickname="Jonny")
            chat.step()
            yield chat, url
            chat.end_chat()


def polls() -> None:
    """One empty poll over loopback, against a bare request to the same server."""
    with polling_chat() as (chat, url):
        pool = urllib3.PoolManager(retries=False)
        data = chat.get_session_data()
        body = f"userId={data.user_id}&secureKey={data.secure_key}&alias={data.alias}&transcriptPosition=2&message="
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        target = f"{url}/{data.session_id}/refresh"
        bare = microseconds(lambda: pool.request("POST", target, body=body, headers=headers))
        stepped = microseconds(chat.step)
        table("An empty poll over loopback", [("urllib3 alone", bare), ("WebChatService.step()", stepped)])
        pool.clear()


def decisions() -> None:
    """The state machine and the whole decision, against a dictionary look-up."""
    arcs = {(State.POLLING, Trigger.POLL_ANSWERED): State.POLLING}
    session = Session(Settings.of(WebChatService({"dataURL": "http://chat.test/x"}).config))
    session.state = State.POLLING
    server = TestServer(Timeline())
    chat = server.client()
    chat.open()
    chat.start_chat(nickname="Jonny")
    answered = Trigger.POLL_ANSWERED
    table(
        "A decision",
        [
            ("dictionary look-up", microseconds(lambda: arcs[session.state, answered])),
            ("chat.can('sendMessage')", microseconds(lambda: chat.can("sendMessage"))),
            ("machine.fire(session, POLL_ANSWERED)", microseconds(lambda: machine.fire(session, answered))),
            ("a poll without sockets, server included", microseconds(chat.step)),
        ],
    )
    server.close()


def memory() -> None:
    """What a service weighs, and what a full garbage collection costs with many."""
    driver = ThreadDriver()
    config = {"dataURL": "http://chat.test/x"}
    gc.collect()
    tracemalloc.start()
    chats = [WebChatService(config, driver=driver) for _ in range(SERVICES)]
    weight = tracemalloc.get_traced_memory()[0] / SERVICES / 1024
    tracemalloc.stop()
    begin = time.perf_counter()
    gc.collect()
    print(f"\n{len(chats)} services in one process: {weight:.1f} KB each; ", end="")
    print(f"a full garbage collection takes {(time.perf_counter() - begin) * 1e3:.0f} ms")


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}; this takes some forty seconds", flush=True)
    polls()
    decisions()
    memory()
