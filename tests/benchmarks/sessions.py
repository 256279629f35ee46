"""How many chats one process holds: lateness, processor, memory and threads by the number of sessions.

``python -m tests.benchmarks.sessions [N ...]`` prints a table, with asyncio + aiohttp + uvloop as the peer in the same
run and in random order; ``--output FOLDER`` writes `sessions.json` with the rows and `sessions.svg` with their curves,
and ``--draw FOLDER`` draws the curves of that file anew and measures nothing.
Each session polls every 3 seconds over a connection of its own. The server measures how late each poll is (`peer.py`),
in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.curves import LATE, svg
from tests.benchmarks.figures import SKIPPED, Measured
from tests.benchmarks.processes import (
    DEFAULT,
    FROZEN,
    MOST_MEMORY,
    NotReachedError,
    collect_garbage,
    collecting,
    command,
    heading,
    machine,
    peer,
    percentile,
    report,
    resident,
    stats,
    talking,
    threads,
)

INTERVAL = 3.0
SIZES = (1, 100, 1_000, 2_500, 5_000, 10_000)
SECONDS = 12.0

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


def paced(sessions: int) -> Iterator[float]:
    """Give the seconds to wait before each start, so that the polls of all sessions are spread over the interval."""
    begun = time.perf_counter()
    for number in range(sessions):
        yield max(0.0, begun + number * INTERVAL / sessions - time.perf_counter())


def use() -> tuple[float, float, float]:
    """Return what this process has used until now: seconds of the clock and of the processor, KiB of memory."""
    return time.perf_counter(), time.process_time(), resident()


def report_start(before: tuple[float, float, float]) -> None:
    """Report the seconds that the starts have taken."""
    report(started=time.perf_counter() - before[0])


def report_use(sessions: int, first: float, before: tuple[float, float, float], pauses: list[float]) -> None:
    """Report what the sessions use: processor time since `before`, memory since `first`, threads, collections."""
    clock, processor, memory = use()
    report(
        cpu=processor - before[1],
        seconds=clock - before[0],
        memory=(memory - first) / sessions,
        threads=threads(),
        gc=max(pauses, default=0.0),
    )


def hold_ours(sessions: int, address: str, *slow: str, garbage: str = DEFAULT) -> None:
    """Hold so many chats of this library on one driver; with the address of a slow server, every other one on that."""
    from webchat_fsm import ThreadDriver, WebChatService

    driver = ThreadDriver()
    with WebChatService(config(address), driver=driver) as first:  # what all share is no memory of a session
        first.start_chat(nickname="J")
    configs = [config(address), *(config(other, "slow") for other in slow)]
    chats: list[WebChatService] = []
    before = use()
    for wait in paced(sessions):
        time.sleep(wait)
        if resident() - before[2] > MOST_MEMORY:
            raise MemoryError(f"{len(chats)} sessions take {MOST_MEMORY} KiB")
        chat = WebChatService(configs[len(chats) % len(configs)], driver=driver)
        chat.open()
        chat.start_chat(nickname="J")
        chats.append(chat)
    report_start(before)
    collect_garbage(garbage)
    sys.stdin.readline()
    with collecting() as pauses:
        begun = use()
        sys.stdin.readline()
        report_use(sessions, before[2], begun, pauses)
    ended = time.perf_counter()
    for chat in chats:
        chat.close()
    report(closed=time.perf_counter() - ended)


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
            before = use()
            tasks = []
            for wait in paced(sessions):
                await asyncio.sleep(wait)
                async with client.post(f"{address}/v2/x") as answer:
                    chat = json.loads(await answer.read())["chatId"]
                tasks.append(asyncio.create_task(poll(client, f"{address}/v2/x/{chat}/refresh")))
            report_start(before)
            await loop.run_in_executor(None, sys.stdin.readline)
            with collecting() as pauses:
                begun = use()
                await loop.run_in_executor(None, sys.stdin.readline)
                report_use(sessions, before[2], begun, pauses)
            ended = time.perf_counter()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            report(closed=time.perf_counter() - ended)

    uvloop.run(run())


OURS, OURS_FROZEN, PEER = "webchat_fsm", "webchat_fsm, frozen", "aiohttp + uvloop"
HOLDERS: dict[str, Callable[..., None]] = {
    OURS: hold_ours,
    OURS_FROZEN: partial(hold_ours, garbage=FROZEN),
    PEER: hold_peers,
}
"""The clients by name."""

FROZEN_FROM = 5_000
"""The number of sessions from which `OURS_FROZEN` is measured: below it a garbage collection is short."""


def hold(holder: str, sessions: int, *addresses: str) -> None:
    """Hold so many sessions of one client; called in the process that is measured."""
    HOLDERS[holder](sessions, *addresses)


# -- in the process that measures --------------------------------------------------------------------------------------


def row(holder: str, sessions: int, seconds: float = SECONDS, *slow: str) -> dict[str, Any]:
    """Measure one number of sessions; all processes are new. Lateness is that of the sessions on the quick server.

    Raises `NotReachedError` where they do not all start within three minutes and four gibibytes.
    """
    with peer() as address, talking(command(hold, holder, sessions, address, *slow), limit=LIMIT) as (read, write):
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
        "gc": figures["gc"],
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
            order = [
                holder
                for holder in holders
                if (holder, size) not in given_up and (holder != OURS_FROZEN or size >= FROZEN_FROM)
            ]
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


def half_slow(sessions: int, seconds: float) -> float:
    """Return the lateness of sessions of which every other one is on a server that answers late: that of the others."""
    with peer() as slow:
        return float(row(OURS, sessions, seconds, slow)["p99"])


def measure(quick: bool) -> Measured:
    """Measure the figures of the table, and keep the rows under `ROWS`.

    A number of sessions that was not reached has its reason in place of its figures.
    """
    sizes, repeats, seconds = ((1_000,), 1, 4.0) if quick else (SIZES, 3, SECONDS)
    known = list(rows(sizes, HOLDERS, seconds, repeats))
    found: Measured = {}

    def take(key: str, holder: str, size: int, part: str) -> None:
        chosen = [one for one in known if one["holder"] == holder and one["sessions"] == size]
        values = [one[part] for one in chosen if part in one]
        reason = next((f"not reached: {one['reason']}" for one in chosen if "reason" in one), SKIPPED)
        found[key] = values if len(values) == repeats else reason

    for prefix, holder in (("", OURS), ("frozen_", OURS_FROZEN), ("peer_", PEER)):
        for size in (1_000, 2_500, 5_000, 10_000):
            take(f"{prefix}p99_{size}", holder, size, "p99")
        take(f"{prefix}us_10000", holder, 10_000, "us")
        take(f"{prefix}memory", holder, 10_000, "memory")
        take(f"{prefix}gc_10000", holder, 10_000, "gc")
    take("closed", OURS, 5_000, "closed")
    own = [[one for one in known if one["holder"] == OURS and one["run"] == run] for run in range(repeats)]
    found["passing"] = SKIPPED if quick else [passing(run) for run in own]
    used = [[float(one["threads"]) for one in run if "threads" in one] for run in own]
    found["threads"] = [max(run) for run in used] if all(used) else "not reached"
    try:
        found["half_slow"] = [half_slow(2_000, seconds) for _ in range(repeats)]
    except NotReachedError as error:
        found["half_slow"] = f"not reached: {error}"
    return {**found, ROWS: known}


ROWS = "rows"


def write(folder: Path, known: list[dict[str, Any]]) -> None:
    """Write `sessions.json`, the rows with the machine named, and `sessions.svg`, their curves."""
    document = {"machine": machine(), "interval": INTERVAL, "rows": known}
    (folder / "sessions.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(folder)


def draw(folder: Path) -> None:
    """Write `sessions.svg`, the curves of `sessions.json`."""
    (folder / "sessions.svg").write_text(svg(json.loads((folder / "sessions.json").read_text())))


COLUMNS = (
    ("holder", "{:<20}", "client"),
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
    ("gc", "{:>7.0f}", "gc ms"),
    ("server", "{:>9.0f}", "server %"),
    ("started", "{:>8.1f}", "start s"),
    ("closed", "{:>8.2f}", "close s"),
)


def line(figures: dict[str, Any]) -> str:
    """Return one row of the table."""
    return " ".join(form.format(figures[key]) for key, form, _ in COLUMNS)


def titles() -> str:
    """Return the first line of the table."""
    return " ".join(f"{title:{form[2]}{form[3:].split('.')[0].rstrip(',f}')}}" for _, form, title in COLUMNS)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, help="numbers of sessions")
    parser.add_argument("--only", choices=HOLDERS, help="measure one client alone")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the rows and curves are written")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the curves anew, and measure nothing")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw)
        return
    known = []
    print(f"{heading(machine())}\n\n{titles()}", flush=True)
    for one in rows(options.sizes or SIZES, [options.only] if options.only else HOLDERS):
        known.append(one)
        reason = f"{one['holder']:<19} {one['sessions']:>8,} {one['reason']}" if "reason" in one else None
        print(reason or line(one), flush=True)
        if options.output:
            write(options.output, known)


if __name__ == "__main__":
    main()
