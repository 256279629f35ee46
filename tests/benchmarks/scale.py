"""Measure many services in one process: construction, starts over CometD, and held connects with pushes to them.

Each sample comes from fresh processes, one for the services and one for the chat server of `peer.py`, which pushes at
moments of its own and puts the time into each push. What is compared is measured in random order.
"""

from __future__ import annotations

import gc
import http.client
import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.benchmarks.figures import GROUPS, SKIPPED, Measured
from tests.benchmarks.processes import (
    DEFAULT,
    FROZEN,
    MOST_MEMORY,
    RARE,
    NotReachedError,
    ask,
    collect_garbage,
    collecting,
    command,
    fresh,
    peer,
    percentile,
    report,
    resident,
    stats,
    talking,
    threads,
)
from tests.benchmarks.pushes import await_pushes, receiving
from webchat_fsm import SessionPool, ThreadDriver, WebChatService
from webchat_fsm.lifecycle import State

SERVICES = 10_000

MAX_STARTS = 16
"""Starts at a time that a `SessionPool` allows by default."""

RAW = 500
"""Starts that are made by `http.client`, at most."""

HOLD_LIMIT = 90.0
"""Seconds of construction, and of waiting for all held connects, after which the number counts as not reached."""

PUSHED, PUSH_INTERVAL = 10, 50
"""Clients that get a push at a time, and the milliseconds between such moments: 200 pushes a second."""

MOMENTS = 500
"""Moments of a run: 25 seconds, so that every connect ends meanwhile and is made anew."""


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
    with collecting() as pauses:
        gc.collect()
    return {"cpu_ms": spent / count * 1000, "kib": memory / count, "gc_ms": pauses[0]}


def construction(quick: bool) -> Measured:
    """Measure the construction of services in fresh processes."""
    samples = [fresh(constructed, 300 if quick else SERVICES) for _ in range(1 if quick else 3)]
    return {key: [sample[key] for sample in samples] for key in samples[0]}


# -- CometD, in the process that is measured ---------------------------------------------------------------------------


def section(address: str) -> dict[str, Any]:
    """Return the configuration of a chat whose connects the server holds."""
    return {"cometD": {"enabled": True, "cometURL": f"{address}/cometd", "apiURL": f"{address}/v2/x"}}


def hold(services: int, address: str, garbage: str) -> None:
    """Hold the connects of so many services, receive what the server pushes to them, and close them all.

    Garbage is collected as `collect_garbage` says once all are started. Figures are reported as lines of JSON; a line
    of standard input gives the number of pushes. Raises `NotReachedError` where connects are not held in time, pushes
    are missing, or chats are lost.
    """
    driver = ThreadDriver()
    late: list[float] = []
    chats = []
    for _ in range(services):
        chat = WebChatService(section(address), driver=driver)
        chat.subscribe("messageReceived", receiving(late))
        chats.append(chat)
    begun, used = time.perf_counter(), time.process_time()
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="J")
    starts = time.perf_counter() - begun
    await_held(services, address, begun)
    spent = (time.process_time() - used) / services * 1000
    report(held=time.perf_counter() - begun, starts=starts, threads=float(threads()), cpu=spent)
    collect_garbage(garbage)
    with collecting() as pauses:
        await_pushes(late, int(sys.stdin.readline()))
    if lost := [chat.state for chat in chats if chat.state is not State.ACTIVE]:
        raise NotReachedError(f"{len(lost)} of {services} chats are not active but {lost[0]}")
    begun = time.perf_counter()
    for chat in chats:
        chat.close()
    report(push=percentile(late, 0.99), gc=max(pauses, default=0.0), closed=time.perf_counter() - begun)


def pooled(services: int, address: str) -> float:
    """Start so many chats in a `SessionPool` from as many threads as it starts at a time; seconds until all are held.

    Raises `NotReachedError` where not all connects are held in time.
    """
    with SessionPool(section(address), max_connections=2 * services + 1) as pool:
        begun = time.perf_counter()
        with ThreadPoolExecutor(MAX_STARTS) as callers:
            for _ in callers.map(lambda _: pool.start_chat(nickname="J"), range(services)):
                pass  # a start that has failed raises here
        await_held(services, address, begun)
        return time.perf_counter() - begun


def await_held(services: int, address: str, begun: float) -> None:
    """Wait until the server has held a connect of every service; raises `NotReachedError` after some time."""
    while (reached := stats(address)["once_held"]) < services:
        if time.perf_counter() - begun > HOLD_LIMIT:
            raise NotReachedError(f"{reached:,} held in {HOLD_LIMIT:.0f} s")
        time.sleep(0.05)


def by_http_client(starts: int, address: str) -> float:
    """Make the five requests of a start by `http.client` and `json`, so many times; processor ms of each."""
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
    return spent / starts * 1000


STARTING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/handshake", {"channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"]}),
    ("/", {"channel": "/service/chatV2/customer-support", "data": {"operation": "requestChat", "nickname": "J"}}),
    *[("/connect", {"channel": "/meta/connect", "advice": {"timeout": 0}})] * 2,
)
"""The path and the message of each request of a start that is answered at once; a connect that is held follows."""


# -- CometD, in the process that measures ------------------------------------------------------------------------------


def holding(services: int, moments: int, garbage: str) -> dict[str, float]:
    """Hold so many services in a process of their own, and have the server push to some of them again and again."""
    with peer() as address, talking(command(hold, services, address, garbage)) as (read, write):
        started = json.loads(read())
        time.sleep(2.0)
        ask(address, f"push/{moments}/{PUSHED}/{PUSH_INTERVAL}")
        time.sleep(moments * PUSH_INTERVAL / 1000)
        while (counted := stats(address))["moments"]:
            time.sleep(0.05)
        write(str(counted["pushed"]))
        return {**started, **json.loads(read())}


def with_peer(function: Callable[..., float], services: int) -> float:
    """Measure so many services in a fresh process, with a server of its own."""
    with peer() as address:
        return float(fresh(function, services, address))


def one(services: int, moments: int) -> dict[str, float]:
    """Measure one number of services in each way, in random order."""
    ways: dict[str, Callable[[], Any]] = {
        **{garbage: partial(holding, services, moments, garbage) for garbage in (DEFAULT, FROZEN, RARE)},
        "pool": partial(with_peer, pooled, services),
        "raw": partial(with_peer, by_http_client, min(services, RAW)),
    }
    found: dict[str, Any] = {way: ways[way]() for way in random.sample(list(ways), len(ways))}
    known = dict(found[DEFAULT])
    for garbage in (FROZEN, RARE):
        known.update({f"{garbage}_{key}": found[garbage][key] for key in ("push", "gc")})
    return {**known, "pool": found["pool"], "raw": known["cpu"] / found["raw"]}


def cometd(quick: bool) -> Measured:
    """Measure CometD services, three times each number."""
    samples: dict[int, list[dict[str, float]]] = {}
    reasons: dict[int, str] = {}
    for services in (1_000,) if quick else (1_000, 5_000):
        try:
            samples[services] = [one(services, 50 if quick else MOMENTS) for _ in range(1 if quick else 3)]
        except NotReachedError as error:
            reasons[services] = f"not reached: {error}"
    found: Measured = {}
    for figure in GROUPS["cometd"]:
        key, _, number = figure.key.rpartition("_")
        services = int(number)
        found[figure.key] = [sample[key] for sample in samples.get(services, ())] or reasons.get(services, SKIPPED)
    return found
