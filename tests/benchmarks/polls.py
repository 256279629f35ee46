"""Measure the processor time of one idle poll beside the same request by urllib3 and requests.

The clients take turns in random order within one process, over a kept connection each, against the chat server of
`peer.py` in another process. Each sample is a round of polls, and the ratios are those of one round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import requests
import urllib3

from tests.benchmarks.figures import Measured
from tests.benchmarks.processes import in_turn, peer, ratios, stats
from webchat_fsm import ManualClock, ManualDriver, WebChatService

ROUNDS, POLLS = 40, 60

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json;charset=UTF-8"}


def configurations(address: str) -> dict[str, dict[str, Any]]:
    """Return the configuration of a chat on each transport."""
    return {
        "v2": {"dataURL": f"{address}/v2/x"},
        "v3": {"transport": {"dataURL": f"{address}/v3/sessions", "endpoint": "x"}},
        "cometd": {"cometD": {"enabled": True, "cometURL": f"{address}/cometd-at-once", "apiURL": f"{address}/v2/x"}},
    }


def started(config: dict[str, Any], driver: ManualDriver | None = None) -> WebChatService:
    """Start a chat whose requests are made in this thread."""
    chat = WebChatService(config, driver=driver or ManualDriver())
    chat.open()
    chat.start_chat(nickname="J")
    return chat


def bare(address: str) -> dict[str, Callable[[], object]]:
    """Return the same polls by hand: everything that does not change from poll to poll is made beforehand."""
    pool, session = urllib3.PoolManager(retries=False), requests.Session()
    session.trust_env = False  # neither urllib3 nor this library reads the environment for proxies
    refresh = f"{address}/v2/x/chat00000001/refresh"
    fields = "userId=1A2B8F1FF1FD42A2&secureKey=07d451431193e6c3f339&alias=1&transcriptPosition=1&message="
    messages = f"{address}/v3/sessions/00000001-0000/messages?operationId=00000001-0000-4000-8000-000000000000"
    gateway = f"{address}/cometd-at-once"
    connect = {"id": "7", "channel": "/meta/connect", "connectionType": "long-polling", "clientId": "client1"}
    frame = json.dumps([connect])
    return {
        "pool v2": lambda: json.loads(pool.request("POST", refresh, body=fields, headers=FORM).data),
        "pool v3": lambda: json.loads(pool.request("GET", messages).data),
        "pool cometd": lambda: json.loads(pool.request("POST", gateway, body=frame, headers=JSON).data),
        "requests v2": lambda: json.loads(session.post(refresh, data=fields, headers=FORM).content),
        "requests v3": lambda: json.loads(session.get(messages).content),
        "requests cometd": lambda: json.loads(session.post(gateway, data=frame, headers=JSON).content),
    }


def mean(call: Callable[[], object], calls: int) -> float:
    """Return the processor time of a call in microseconds, the mean of so many."""
    begun = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun) / calls * 1e6


def means(clients: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return the mean time of a call of each client, a sample a round; the clients take turns at random."""
    return in_turn({name: partial(mean, call, calls) for name, call in clients.items()}, rounds)


def step(chat: WebChatService) -> Callable[[], object]:
    """Return a poll that fails loudly where the server did not answer well."""

    def poll() -> None:
        if not chat.step():
            raise RuntimeError(f"a poll of {chat!r} failed: see the log")

    return poll


def connect(driver: ManualDriver) -> Callable[[], object]:
    """Return a CometD connect: the next timer, whose pause passes on a clock moved by hand."""

    def run_next() -> None:
        due = driver.next_due()
        if due is None:
            raise RuntimeError("no connect follows: see the log")
        driver.wait_until(due)

    return run_next


def measure(quick: bool) -> Measured:
    """Measure the polls of all clients."""
    rounds, calls = (8, 30) if quick else (ROUNDS, POLLS)
    with peer() as address:
        by_hand = ManualDriver(ManualClock())
        drivers = {"v2": None, "v3": None, "cometd": by_hand}
        chats = {name: started(config, drivers[name]) for name, config in configurations(address).items()}
        clients = {"v2": step(chats["v2"]), "v3": step(chats["v3"]), "cometd": connect(by_hand)}
        clients["cometd"]()  # the connect that follows a start may be followed by another at the same moment
        stats(address)
        taken = means({**clients, **bare(address)}, rounds, calls)
        counted = stats(address)
        if counted["connects"] != (wanted := 3 * (rounds + 1) * calls):
            raise RuntimeError(f"{counted['connects']} connects in place of {wanted}")
        for chat in chats.values():
            chat.close()
    return {
        **{name: ratios(taken[name], taken[f"pool {name}"]) for name in chats},
        **{f"requests_{name}": ratios(taken[name], taken[f"requests {name}"]) for name in chats},
        "v2_us": taken["v2"],
        "pool_us": taken["pool v2"],
        "requests_us": taken["requests v2"],
    }
