"""Whether memory, threads and sockets stay flat: ``python -m tests.benchmarks.endurance --minutes 10 --sessions 2000``.

A `SessionPool` in a process of its own polls a server that lets every seventh poll fail, in four ways (`peer.py`). Each
half minute gives a line of what the system counts for that process. The exit code is 1 where a chat was lost, or where
the last third uses more threads or descriptors than the second, or over 2 % more memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

from tests.benchmarks.processes import command, peer, percentile, report, resident, stats, talking, threads
from tests.benchmarks.sessions import INTERVAL, config, paced

EVERY = 30.0
"""Seconds between two lines."""

GROWTH = 1.02
"""The memory of the last third over that of the second at most: an allocator gives nothing back at once."""

SLACK = 20
"""Descriptors that may be open beyond those of the second third: connections are replaced after a fault."""


def hold(sessions: int, address: str, seconds: float) -> None:
    """Hold so many chats and report what this process uses, until the time is over."""
    from webchat_fsm import SessionPool

    with SessionPool(config(address, "faulty"), max_connections=2 * sessions) as pool:
        for wait in paced(sessions):
            time.sleep(wait)
            pool.start_chat(nickname="J")
        report(started=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            used = time.process_time()
            time.sleep(min(EVERY, max(0.0, end - time.monotonic())))
            # Read, as events stay for those who wait for them: 10,000 in each chat, which would look like a leak.
            read = sum(1 for chat in pool.sessions() for _ in chat.events(silence=0.0))
            report(
                memory=resident() / 1024,
                threads=threads(),
                descriptors=len(os.listdir("/proc/self/fd")),
                cpu=(time.process_time() - used) / EVERY * 100,
                events=read,
                chats=len(pool.sessions()),
                states=pool.health().states,
            )
    report(over=True)


def lines(sessions: int, minutes: float) -> list[dict[str, Any]]:
    """Run the process beside its server; prints a line for each report, and returns them."""
    found = []
    asked = minutes * 60
    with peer() as address, talking(command(hold, sessions, address, asked), limit=asked + 300) as (read, _):
        read()
        stats(address)
        print(" minute     MiB  threads  sockets  CPU %  polls/s  p99 ms  events  chats  states")
        while "over" not in (one := json.loads(read())):
            seen = stats(address)
            late = percentile([max(0.0, late - INTERVAL) * 1000 for late in seen["late"]], 0.99)
            found.append(one)
            minute = len(found) * EVERY / 60
            print(
                f"{minute:>7.1f} {one['memory']:>7.1f} {one['threads']:>8} {one['descriptors']:>8} {one['cpu']:>6.0f}"
                f" {seen['polls'] / EVERY:>8.0f} {late:>7.0f} {one['events']:>7} {one['chats']:>6}  {one['states']}",
                flush=True,
            )
    return found


def judged(found: list[dict[str, Any]], sessions: int) -> list[str]:
    """Return what is not flat, by comparing the last third of the lines with the second."""
    third = max(1, len(found) // 3)
    before, after = found[third : 2 * third] or found, found[2 * third :] or found

    def median(part: list[dict[str, Any]], key: str) -> float:
        return float(statistics.median(one[key] for one in part))

    faults = []
    if found[-1]["chats"] != sessions:
        faults.append(f"{sessions - found[-1]['chats']} chats were lost")
    if median(after, "memory") > median(before, "memory") * GROWTH:
        faults.append("memory grows")
    if median(after, "threads") > median(before, "threads"):
        faults.append("threads grow")
    if median(after, "descriptors") > median(before, "descriptors") + SLACK:
        faults.append("descriptors grow")
    return faults


def main() -> int:
    """Run what the command line asks for; 1 where something is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    faults = judged(lines(options.sessions, options.minutes), options.sessions)
    print("flat" if not faults else "; ".join(faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
