"""Run what is measured in processes of its own, and read from the system what they use.

``python -m tests.benchmarks.processes MODULE:FUNCTION ARGUMENTS`` calls a function with a JSON list of arguments and
prints its result as JSON, so that each measurement can begin in a fresh interpreter (`fresh`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import urllib3

from tests.benchmarks.peer import serve

ROOT = Path(__file__).parents[2]

LIMIT = 900.0
"""Seconds after which a process that measures is stopped: a figure that takes longer counts as not reached."""

LIBRARIES = ("urllib3", "msgspec", "transitions", "requests", "aiohttp", "uvloop", "websockets", "pytest")


MOST_MEMORY = 4 * 1024 * 1024
"""KiB of resident memory at which no more sessions are made, so that a leak does not stop the machine."""


class NotReachedError(Exception):
    """A number of sessions could not be reached; the text says how many were, and after which time."""


# -- processes ---------------------------------------------------------------------------------------------------------


def command(function: Callable[..., object], *arguments: object) -> list[str]:
    """Return the command that calls a function of this package in a fresh interpreter."""
    module = function.__module__
    if module == "__main__":  # the module that was run by -m has its own name in its spec alone
        module = sys.modules[module].__spec__.name  # type: ignore[union-attr]
    where = f"{module}:{function.__qualname__}"
    return [sys.executable, "-m", "tests.benchmarks.processes", where, json.dumps(arguments)]


def fresh(function: Callable[..., Any], *arguments: object, limit: float = LIMIT) -> Any:
    """Call a function in a fresh interpreter and return its result.

    Raises `NotReachedError` where it takes longer than `limit` seconds or raises that itself, and `RuntimeError` with
    its last line of errors where it fails.
    """
    with subprocess.Popen(command(function, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise NotReachedError(f"not within {limit:.0f} s") from None
    if process.returncode:
        last = (errors.decode().strip().splitlines() or ["no error text"])[-1]
        kind, _, text = last.partition(": ")
        if kind.endswith("NotReachedError"):
            raise NotReachedError(text)
        raise RuntimeError(f"{function.__module__}.{function.__qualname__}{arguments} has failed: {last}")
    return json.loads(out.splitlines()[-1])


@contextlib.contextmanager
def talking(argv: Sequence[str], limit: float = LIMIT) -> Iterator[tuple[Callable[[], str], Callable[[str], None]]]:
    """Run a process to talk with line by line; gives a function that reads a line, and one that writes one.

    It is killed after `limit` seconds; reading raises `NotReachedError` where it has ended. Its input ends on exit.
    """
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        incoming, outgoing = process.stdout, process.stdin
        timer = threading.Timer(limit, process.kill)
        timer.daemon = True
        timer.start()

        def read() -> str:
            line = incoming.readline()
            if not line:
                raise NotReachedError(f"the process has ended, or was stopped after {limit:.0f} s")
            return line.strip()

        def write(line: str) -> None:
            outgoing.write(f"{line}\n")
            outgoing.flush()

        try:
            yield read, write
        finally:
            timer.cancel()
            with contextlib.suppress(BrokenPipeError):  # it has ended with a line unread
                outgoing.close()


def report(**figures: object) -> None:
    """Send figures to the process that measures."""
    print(json.dumps(figures), flush=True)


@contextlib.contextmanager
def peer() -> Iterator[str]:
    """Run the chat server of `peer.py` in a process of its own; gives its address."""
    with talking(command(serve), limit=4 * LIMIT) as (read, _):
        yield f"http://127.0.0.1:{read()}"


def stats(address: str) -> dict[str, Any]:
    """Return what the chat server has counted since the last call."""
    return ask(address, "stats")


def ask(address: str, target: str) -> dict[str, Any]:
    """Ask the chat server for figures, or for pushes."""
    known: dict[str, Any] = urllib3.request("GET", f"{address}/{target}").json()
    return known


def processor_time(argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> float:
    """Return the seconds of processor time that a whole process takes, user's and system's.

    Raises `subprocess.CalledProcessError` where it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=cwd, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def raise_limits() -> None:
    """Allow this process as many open files as the system lets it have: a session has a connection of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- what the system says ----------------------------------------------------------------------------------------------


def resident() -> float:
    """Return the resident memory of this process in KiB, as the system counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def threads() -> int:
    """Return the number of threads of this process, as the system counts them."""
    return len(os.listdir("/proc/self/task"))


@contextlib.contextmanager
def collecting() -> Iterator[list[float]]:
    """Give a list of the milliseconds that each garbage collection takes."""
    pauses: list[float] = []
    begun = 0.0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            pauses.append((time.perf_counter() - begun) * 1000)

    gc.callbacks.append(note)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(note)


DEFAULT, FROZEN, RARE = "default", "frozen", "rare"

SELDOM = 100
"""Collections of the middle generation to one of all objects in a process whose full collections are `RARE`."""


def collect_garbage(how: str) -> None:
    """Change how garbage is collected from now on; not where it is `DEFAULT`.

    `FROZEN` exempts all objects that there are now, and `RARE` makes the collection of all others rarer too.
    """
    if how == DEFAULT:
        return
    gc.collect()
    gc.freeze()
    if how == RARE:
        gc.set_threshold(*gc.get_threshold()[:2], SELDOM)


CALIBRATIONS = 3


def calibration() -> float:
    """Return the seconds of processor time that a fixed loop takes, which tell how fast this machine is."""
    begun, s = time.process_time(), 0
    for i in range(20_000_000):
        s += i
    return time.process_time() - begun


@functools.cache
def machine() -> dict[str, Any]:
    """Describe the machine with its calibration, the interpreter and the libraries of the figures."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": model.partition(":")[2].strip() or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": commit,
        "load": round(os.getloadavg()[0], 1),
        "calibration_s": sorted(round(calibration(), 2) for _ in range(CALIBRATIONS)),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def heading(described: Mapping[str, Any]) -> str:
    """Return what `machine` describes as three lines of text."""
    libraries = ", ".join(f"{name} {number}" for name, number in described["libraries"].items())
    loop = " / ".join(f"{seconds:.2f}" for seconds in described["calibration_s"])
    return (
        f"{described['processor']}, {described['cores']} cores, {described['memory_gib']} GiB, {described['system']}, "
        f"{described['python']}, load {described['load']}, commit {described['commit']}\n{libraries}\n"
        f"calibration, CPU of `for i in range(20_000_000): s += i` in a function (s): {loop}"
    )


# -- samples -----------------------------------------------------------------------------------------------------------


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each measure once a round, in random order, and return the samples by name; a round before them warms up."""
    for measure in measures.values():
        measure()
    gc.collect()
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name in random.sample(list(measures), len(measures)):
            taken[name].append(measures[name]())
    return taken


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Divide sample by sample, those of one round by one another."""
    return [one / other for one, other in zip(above, below, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


if __name__ == "__main__":
    raise_limits()
    module, _, name = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
    if result is not None:  # None from a function that has said all along the way
        print(json.dumps(result), flush=True)
