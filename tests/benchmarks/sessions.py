"""How many chats one process holds: lateness, processor, memory and threads by the number of sessions.

``python -m tests.benchmarks.sessions [N ...]`` prints a table, with asyncio + aiohttp + uvloop as the peer in the same
run and in random order, and writes `sessions.json`; ``--svg FILE`` draws the curves of that file and measures nothing.
Each session polls every 3 seconds over a connection of its own. How late a poll is the server says (`peer.py`), in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.curves import svg
from tests.benchmarks.figures import SKIPPED, Measured
from tests.benchmarks.processes import (
    NotReachedError,
    command,
    machine,
    peer,
    percentile,
    resident,
    stats,
    talking,
)

INTERVAL = 3.0
SIZES = (1, 100, 1_000, 2_500, 5_000, 10_000)
SECONDS = 12.0

LATE = 250.0
"""Milliseconds of lateness, 99th percentile, up to which a process counts as keeping up."""

MOST_MEMORY = 4 * 1024 * 1024
"""KiB at which no more sessions are started, so that a leak does not stop the machine."""

LIMIT = 180.0
"""Seconds for one number of sessions, the starts included."""


def config(address: str, path: str = "v2") -> dict[str, Any]:
    """Return the configuration of a chat that polls every 3 seconds."""
    return {
        "dataURL": f"{address}/{path}/x",
        "dynamicPolling": False,
        "pollRate": int(INTERVAL * 1000),
        "ajaxTimeout": 30_000,
    }


# -- in the process that is measured -----------------------------------------------------------------------------------


def report(**figures: object) -> None:
    """Send figures to the process that measures."""
    print(json.dumps(figures), flush=True)


def paced(sessions: int) -> Iterator[float]:
    """Give the seconds to wait before each start, so that the polls of all sessions are spread over the interval."""
    begun = time.perf_counter()
    for number in range(sessions):
        yield max(0.0, begun + number * INTERVAL / sessions - time.perf_counter())


def measured(sessions: int, begin: Callable[[], None], threads: Callable[[], int]) -> None:
    """Begin the sessions, then report processor time and memory until standard input has said twice to go on."""
    before = resident()
    begun, used = time.perf_counter(), time.process_time()
    begin()
    report(started=time.perf_counter() - begun, cpu=time.process_time() - used)
    sys.stdin.readline()
    begun, used = time.perf_counter(), time.process_time()
    sys.stdin.readline()
    report(
        cpu=time.process_time() - used,
        seconds=time.perf_counter() - begun,
        memory=(resident() - before) / sessions,
        threads=threads(),
    )


def hold_ours(sessions: int, address: str) -> None:
    """Hold so many chats of this library on one driver."""
    from webchat_fsm import ThreadDriver, WebChatService

    driver = ThreadDriver()
    with WebChatService(config(address), driver=driver) as first:  # what all share is no memory of a session
        first.start_chat(nickname="J")
    chats: list[WebChatService] = []
    before = resident()

    def begin() -> None:
        for wait in paced(sessions):
            time.sleep(wait)
            if resident() - before > MOST_MEMORY:
                raise MemoryError(f"{len(chats)} sessions take {MOST_MEMORY} KiB")
            chat = WebChatService(config(address), driver=driver)
            chat.open()
            chat.start_chat(nickname="J")
            chats.append(chat)

    measured(sessions, begin, threading.active_count)
    begun = time.perf_counter()
    for chat in chats:
        chat.close()
    report(closed=time.perf_counter() - begun)


def hold_peers(sessions: int, address: str) -> None:
    """Poll so many sessions by asyncio, aiohttp and uvloop, by hand."""
    import asyncio

    import aiohttp
    import uvloop

    async def poll(client: aiohttp.ClientSession, url: str) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            async with client.post(url, data={"userId": "u", "secureKey": "k", "alias": "1", "message": ""}) as answer:
                json.loads(await answer.read())

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            async with client.post(f"{address}/v2/x") as answer:
                await answer.read()
            before, begun, used = resident(), time.perf_counter(), time.process_time()
            tasks = []
            for wait in paced(sessions):
                await asyncio.sleep(wait)
                async with client.post(f"{address}/v2/x") as answer:
                    chat = json.loads(await answer.read())["chatId"]
                tasks.append(asyncio.create_task(poll(client, f"{address}/v2/x/{chat}/refresh")))
            report(started=time.perf_counter() - begun, cpu=time.process_time() - used)
            await loop.run_in_executor(None, sys.stdin.readline)
            begun, used = time.perf_counter(), time.process_time()
            await loop.run_in_executor(None, sys.stdin.readline)
            report(
                cpu=time.process_time() - used,
                seconds=time.perf_counter() - begun,
                memory=(resident() - before) / sessions,
                threads=threading.active_count(),
            )
            begun = time.perf_counter()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            report(closed=time.perf_counter() - begun)

    uvloop.run(run())


OURS, PEER = "webchat_fsm", "aiohttp + uvloop"
HOLDERS = {OURS: hold_ours, PEER: hold_peers}


def hold(holder: str, sessions: int, address: str) -> None:
    """Hold so many sessions of one client; called in the process that is measured."""
    HOLDERS[holder](sessions, address)


# -- in the process that measures --------------------------------------------------------------------------------------


def row(holder: str, sessions: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure one number of sessions; both processes are new.

    Raises `NotReachedError` where they do not all start within three minutes and four gibibytes.
    """
    with peer() as address, talking(command(hold, holder, sessions, address), limit=LIMIT) as (read, write):
        started = json.loads(read())
        time.sleep(2 * INTERVAL)
        server = stats(address)["cpu"]
        write("measure")
        time.sleep(seconds)
        counted = stats(address)
        write("stop")
        figures, closed = json.loads(read()), json.loads(read())
    late = [max(0.0, one - INTERVAL) * 1000 for one in counted["late"]]
    if not late:
        raise NotReachedError(f"no poll of {sessions:,} sessions in {seconds:.0f} s")
    return {
        "holder": holder,
        "sessions": sessions,
        "p50": statistics.median(late),
        "p99": percentile(late, 0.99),
        "max": max(late),
        "polls": counted["polls"] / seconds,
        "wanted": sessions / INTERVAL,
        "cpu": figures["cpu"] / figures["seconds"] * 100,
        "us": figures["cpu"] / max(1, counted["polls"]) * 1e6,
        "memory": figures["memory"],
        "threads": figures["threads"],
        "server": (counted["cpu"] - server) / seconds * 100,
        "started": started["started"],
        "closed": closed["closed"],
    }


def rows(
    sizes: Iterable[int], holders: Iterable[str], seconds: float = SECONDS, repeats: int = 1
) -> Iterator[dict[str, Any]]:
    """Measure all numbers of sessions, the clients in random order at each.

    A number not reached has a `reason` in place of figures, and is not tried again by the same client.
    """
    given_up: set[tuple[str, int]] = set()
    for run in range(repeats):
        for size in sizes:
            order = [holder for holder in holders if (holder, size) not in given_up]
            random.shuffle(order)
            for holder in order:
                try:
                    yield {"run": run, **row(holder, size, seconds)}
                except NotReachedError as error:
                    given_up.add((holder, size))
                    yield {"run": run, "holder": holder, "sessions": size, "reason": str(error)}


def passing(known: list[dict[str, Any]]) -> float:
    """Return the number of sessions at which the 99th percentile passes 250 ms; the largest number where it does not.

    Between two numbers it is estimated on logarithmic scales; one not reached counts as late beyond measure.
    """
    before = (1.0, 1.0)
    for one in sorted(known, key=lambda each: each["sessions"]):
        size, late = float(one["sessions"]), one.get("p99", math.inf)
        if late > LATE:
            if late == math.inf:
                return before[0]
            share = math.log(LATE / before[1]) / math.log(late / before[1])
            return float(before[0] * (size / before[0]) ** share)
        before = (size, max(1.0, late))
    return before[0]


def measure(quick: bool) -> Measured:
    """Measure the figures of the table; a number of sessions that was not reached has its reason in their place."""
    sizes, repeats = ((1_000,), 1) if quick else (SIZES, 3)
    known = list(rows(sizes, HOLDERS, 6.0 if quick else SECONDS, repeats))
    found: Measured = {}

    def take(key: str, holder: str, size: int, part: str) -> None:
        chosen = [one for one in known if one["holder"] == holder and one["sessions"] == size]
        values = [one[part] for one in chosen if part in one]
        reason = next((f"not reached: {one['reason']}" for one in chosen if "reason" in one), SKIPPED)
        found[key] = values if len(values) == repeats else reason

    for prefix, holder in (("", OURS), ("peer_", PEER)):
        for size in (1_000, 2_500, 5_000, 10_000):
            take(f"{prefix}p99_{size}", holder, size, "p99")
        take(f"{prefix}us_10000", holder, 10_000, "us")
        take(f"{prefix}memory", holder, 10_000, "memory")
    own = [[one for one in known if one["holder"] == OURS and one["run"] == run] for run in range(repeats)]
    found["passing"] = SKIPPED if quick else [passing(run) for run in own]
    threads = [[float(one["threads"]) for one in run if "threads" in one] for run in own]
    found["threads"] = [max(run) for run in threads] if all(threads) else "not reached"
    if not quick:  # a check that all runs is not to replace the curves
        Path("sessions.json").write_text(document(known))
    return found


def document(known: list[dict[str, Any]]) -> str:
    """Return `sessions.json`: the rows, with the machine named."""
    return json.dumps({"machine": machine(), "interval": INTERVAL, "rows": known}, indent=1) + "\n"


COLUMNS = (
    ("holder", "{:<18}", "client"),
    ("sessions", "{:>9,}", "sessions"),
    ("p50", "{:>8.1f}", "p50 ms"),
    ("p99", "{:>8.1f}", "p99 ms"),
    ("max", "{:>8.0f}", "max ms"),
    ("polls", "{:>8.0f}", "polls/s"),
    ("wanted", "{:>8.0f}", "wanted"),
    ("cpu", "{:>6.0f}", "CPU %"),
    ("us", "{:>9.0f}", "us a poll"),
    ("memory", "{:>9.1f}", "KiB each"),
    ("threads", "{:>8}", "threads"),
    ("server", "{:>9.0f}", "server %"),
    ("started", "{:>8.1f}", "start s"),
    ("closed", "{:>8.2f}", "close s"),
)


def line(figures: dict[str, Any]) -> str:
    """Return one row of the table."""
    return " ".join(form.format(figures[key]) for key, form, _ in COLUMNS)


def heading() -> str:
    """Return the heading of the table."""
    return " ".join(f"{title:{form[2]}{form[3:].split('.')[0].rstrip(',f}')}}" for _, form, title in COLUMNS)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, help="numbers of sessions")
    parser.add_argument("--only", choices=HOLDERS, help="measure one client alone")
    parser.add_argument("--output", type=Path, default=Path("sessions.json"), help="where the rows are written")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the rows of --output, and measure nothing")
    options = parser.parse_args()
    if options.svg:
        options.svg.write_text(svg(json.loads(options.output.read_text())))
        return
    known = []
    print(heading(), flush=True)
    for one in rows(options.sizes or SIZES, [options.only] if options.only else HOLDERS):
        known.append(one)
        options.output.write_text(document(known))
        print(
            line(one) if "reason" not in one else f"{one['holder']:<18} {one['sessions']:>9,} {one['reason']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
