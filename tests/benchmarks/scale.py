"""Measure many services in one process: construction, starts over CometD, and held connects with pushes to them.

Each sample comes from fresh processes, one for the services and one for the chat server of `peer.py`.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from tests.benchmarks.figures import SKIPPED, Measured
from tests.benchmarks.processes import NotReachedError, fresh, peer, percentile, resident, stats
from webchat_fsm import MessageReceived, SessionPool, ThreadDriver, WebChatService
from webchat_fsm.lifecycle import State

SERVICES = 10_000

MAX_STARTS = 16
"""Starts at a time that a `SessionPool` allows by default."""

RAW = 500
"""Starts that are made by `http.client`, at most."""

HOLD_LIMIT = 90.0
"""Seconds of construction, and of waiting for all held connects, after which the number counts as not reached."""

MOST_MEMORY = 4 * 1024 * 1024
"""KiB of memory at which no more services are made, so that a leak does not stop the machine."""

PUSHED, PUSH_INTERVAL = 10, 0.05
"""Clients that get a push at a time, and the seconds between such moments: 200 pushes a second."""


# -- construction ------------------------------------------------------------------------------------------------------


def constructed(services: int) -> dict[str, float]:
    """Construct services on one driver; memory and processor time of each, by as many as fit in the limits."""
    driver = ThreadDriver()
    config = {"dataURL": "http://chat.test/x"}
    kept = [WebChatService(config, driver=driver)]  # what all services share is no memory of one
    gc.collect()
    before, begun, used = resident(), time.perf_counter(), time.process_time()
    while len(kept) <= services and time.perf_counter() - begun < HOLD_LIMIT and resident() - before < MOST_MEMORY:
        kept.append(WebChatService(config, driver=driver))
    count = len(kept) - 1
    spent = time.process_time() - used
    memory = resident() - before
    begun = time.perf_counter()
    gc.collect()
    collection = (time.perf_counter() - begun) * 1000
    return {"cpu_ms": spent / count * 1000, "kib": memory / count, "gc_ms": collection}


def construction(quick: bool) -> Measured:
    """Measure the construction of services in fresh processes."""
    samples = [fresh(constructed, 300 if quick else SERVICES) for _ in range(1 if quick else 3)]
    return {key: [sample[key] for sample in samples] for key in samples[0]}


# -- CometD ------------------------------------------------------------------------------------------------------------


def held(services: int, address: str, pushes: int) -> dict[str, float]:
    """Hold the connects of so many services, push to some of them in turn, and close them all.

    Raises `NotReachedError` where not all connects are held in time.
    """
    section = {"enabled": True, "cometURL": f"{address}/cometd", "apiURL": f"{address}/v2/x"}
    driver = ThreadDriver()
    late: list[float] = []

    def received(event: Any) -> None:
        now, data = time.monotonic(), event.data
        assert isinstance(data, MessageReceived)
        late.extend((now - float(message.text)) * 1000 for message in data.messages)

    chats = []
    for _ in range(services):
        chat = WebChatService({"cometD": section}, driver=driver)
        chat.subscribe("messageReceived", received)
        chats.append(chat)
    begun, used = time.perf_counter(), time.process_time()
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="J")
    starts = time.perf_counter() - begun
    await_held(services, address, begun)
    spent = (time.process_time() - used) / services
    figures = {"held": time.perf_counter() - begun, "starts": starts, "threads": float(threading.active_count())}
    figures["cpu"], figures["raw"] = spent * 1000, spent / by_http_client(address, min(services, RAW))
    time.sleep(2.0)
    with collecting() as pauses:
        figures["push"] = percentile(pushed(address, pushes, late), 0.99)
    figures["gc"] = max(pauses, default=0.0) * 1000
    lost = [chat.state for chat in chats if chat.state is not State.ACTIVE]
    if lost:
        raise NotReachedError(f"{len(lost)} of {services} chats are not active but {lost[0]}")
    begun = time.perf_counter()
    for chat in chats:
        chat.close()
    return {**figures, "closed": time.perf_counter() - begun}


def pooled(services: int, address: str) -> dict[str, float]:
    """Start so many chats in a `SessionPool` from as many threads as it starts at a time; seconds until all are held.

    Raises `NotReachedError` where not all connects are held in time.
    """
    section = {"enabled": True, "cometURL": f"{address}/cometd", "apiURL": f"{address}/v2/x"}
    with SessionPool({"cometD": section}, max_connections=2 * services + 1) as pool:
        begun = time.perf_counter()
        with ThreadPoolExecutor(MAX_STARTS) as callers:
            for _ in callers.map(lambda _: pool.start_chat(nickname="J"), range(services)):
                pass  # a start that has failed raises here
        await_held(services, address, begun)
        return {"pool": time.perf_counter() - begun}


def by_http_client(address: str, starts: int) -> float:
    """Make the five requests of a start by `http.client` and `json`, so many times; processor seconds of each."""
    kept, headers = [], {"Content-Type": "application/json"}
    used = time.thread_time()
    for _ in range(starts):
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        kept.append(connection)
        known = ""
        for path, message in STARTING:
            body = json.dumps([{"id": "1", "clientId": known, **message}])
            connection.request("POST", f"/cometd{path}", body, headers)
            answers = json.loads(connection.getresponse().read())
            known = answers[-1].get("clientId", known)
        held = {"id": "2", "clientId": known, "channel": "/meta/connect"}
        connection.request("POST", "/cometd/connect", json.dumps([held]), headers)
    spent = time.thread_time() - used
    for connection in kept:
        connection.close()
    return spent / starts


STARTING = (
    ("/handshake", {"channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"]}),
    ("/", {"channel": "/service/chatV2/customer-support", "data": {"operation": "requestChat", "nickname": "J"}}),
    *[("/connect", {"channel": "/meta/connect", "advice": {"timeout": 0}})] * 2,
)
"""The path and the message of each request of a start that is answered at once; a connect that is held follows."""


@contextlib.contextmanager
def collecting() -> Iterator[list[float]]:
    """Give a list of the seconds that each garbage collection takes."""
    pauses: list[float] = []
    begun = 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - begun)

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


def await_held(services: int, address: str, begun: float) -> None:
    """Wait until the server has held a connect of every service; raises `NotReachedError` after some time."""
    while (reached := stats(address)["once_held"]) < services:
        if time.perf_counter() - begun > HOLD_LIMIT:
            raise NotReachedError(f"{reached:,} held in {HOLD_LIMIT:.0f} s")
        time.sleep(0.05)


def pushed(address: str, pushes: int, late: list[float]) -> list[float]:
    """Have the server push to some clients again and again; the lateness of each push, in milliseconds.

    Raises `NotReachedError` where pushes are missing five seconds after the last.
    """
    pool, sent = urllib3.PoolManager(), 0
    for _ in range(pushes // PUSHED):
        sent += pool.request("POST", f"{address}/push/{PUSHED}").json()["pushed"]
        time.sleep(PUSH_INTERVAL)
    deadline = time.monotonic() + 5.0
    while len(late) < sent:
        if time.monotonic() > deadline:
            raise NotReachedError(f"{len(late):,} of {sent:,} pushes arrived")
        time.sleep(0.05)
    return late


def one(services: int, pushes: int) -> dict[str, float]:
    """Measure one number of services against a server of their own."""
    with peer() as address:
        known: dict[str, float] = fresh(held, services, address, pushes)
    with peer() as address:
        return {**known, **fresh(pooled, services, address)}


def cometd(quick: bool) -> Measured:
    """Measure CometD services, three times each number."""
    found: Measured = {}
    for services in (1_000, 5_000):
        keys = ("held", "starts", "cpu", "raw", "pool", "closed", "threads", "push", "gc")
        if quick and services > 1_000:
            found.update({f"{key}_{services}": SKIPPED for key in keys})
            continue
        try:
            samples = [one(services, 500 if quick else 2_000) for _ in range(1 if quick else 3)]
        except NotReachedError as error:
            found.update({f"{key}_{services}": f"not reached: {error}" for key in keys})
        else:
            found.update({f"{key}_{services}": [sample[key] for sample in samples] for key in keys})
    return found
