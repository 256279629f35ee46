"""The figures that the benchmark measures, each with what it was at first and what it is to be.

What it was at first (`before`) was measured on release 0.1 at commit 643c2ba: two cores, CPython 3.11, loopback.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One line of the table; `limit` is what it may be at most, None where it only stands beside others."""

    key: str
    what: str
    before: str = "-"
    limit: float | None = None
    aim: str = ""
    form: str = ",.2f"

    @property
    def wanted(self) -> str:
        """Return the aim as text."""
        return self.aim or ("-" if self.limit is None else f"<= {self.limit:,g}")


NEVER = "not reached"


def held(
    services: str, start: tuple[str, float], close: tuple[str, float], threads: str, push: str
) -> tuple[Figure, ...]:
    """Return the lines of so many CometD services; of starting and closing them all what it was, and the aim."""
    number, what = services.replace(",", ""), f"{services} CometD services"
    return (
        Figure(f"held_{number}", f"{what}: all connects held after (s)", *start),
        Figure(f"starts_{number}", "  of which the starts, one after the other (s)"),
        Figure(f"cpu_{number}", "  CPU of a start (ms)"),
        Figure(f"raw_{number}", "  CPU of a start / its five requests by http.client + json"),
        Figure(f"pool_{number}", "  all held after, started in a SessionPool (s)"),
        Figure(f"closed_{number}", f"{what}: all closed after (s)", *close),
        Figure(f"threads_{number}", f"{what}: threads", threads, 16, form=",.0f"),
        Figure(f"push_{number}", f"{what}: push to handler, p99 (ms)", push, 20, form=",.1f"),
        Figure(f"gc_{number}", "  longest garbage collection meanwhile (ms)", form=",.1f"),
        Figure(f"frozen_push_{number}", "  with gc.freeze() after the starts: p99 (ms)", limit=20, form=",.1f"),
        Figure(f"frozen_gc_{number}", "  longest garbage collection meanwhile (ms)", form=",.1f"),
        Figure(f"rare_push_{number}", "  and the third gc.set_threshold() at 100: p99 (ms)", limit=20, form=",.1f"),
        Figure(f"rare_gc_{number}", "  longest garbage collection meanwhile (ms)", form=",.1f"),
    )


GROUPS: dict[str, tuple[Figure, ...]] = {
    "polls": (
        Figure("v2", "CPU of an idle poll, v2 / urllib3.PoolManager + json", "1.77", 1.0),
        Figure("v3", "CPU of an idle poll, v3 / urllib3.PoolManager + json", "1.83", 1.0),
        Figure("cometd", "CPU of a CometD connect / urllib3.PoolManager + json", "1.60", 1.0),
        Figure("requests_v2", "CPU of an idle poll, v2 / requests.Session + json", "0.62", 0.35),
        Figure("requests_v3", "CPU of an idle poll, v3 / requests.Session + json", limit=0.35),
        Figure("requests_cometd", "CPU of a CometD connect / requests.Session + json", limit=0.35),
        Figure("v2_us", "  webchat_fsm, v2 (us)", "391", form=",.0f"),
        Figure("pool_us", "  urllib3.PoolManager + json, v2 (us)", "222", form=",.0f"),
        Figure("requests_us", "  requests.Session + json, v2 (us)", "638", form=",.0f"),
    ),
    "construction": (
        Figure("cpu_ms", "CPU of constructing a service (ms)", "21", 0.1, form=",.3f"),
        Figure("kib", "resident memory of a service, 10,000 of them (KiB)", "842", 12, form=",.1f"),
        Figure("gc_ms", "  full garbage collection with them (ms)", form=",.0f"),
    ),
    "sessions": (
        Figure("memory", "resident memory of a polling chat, 10,000 of them (KiB)", "24-27 + 842", 15, form=",.1f"),
        Figure("p99_1000", "p99 lateness of polls, 1,000 sessions (ms)", "22", 20, form=",.1f"),
        Figure("p99_2500", "p99 lateness of polls, 2,500 sessions (ms)", "160", 60, form=",.1f"),
        Figure("p99_5000", "p99 lateness of polls, 5,000 sessions (ms)", "4,356", 200, form=",.1f"),
        Figure("p99_10000", "p99 lateness of polls, 10,000 sessions (ms)", NEVER, 1000, form=",.1f"),
        Figure("passing", "sessions at which p99 passes 250 ms (10,000: or more)", "2,500 to 5,000", form=",.0f"),
        Figure("us_10000", "CPU of a poll, 10,000 sessions (us)", NEVER, 270, form=",.0f"),
        Figure("gc_10000", "  longest garbage collection meanwhile (ms)", form=",.0f"),
        Figure("threads", "threads, any of these numbers of sessions", "67", 16, form=",.0f"),
        Figure("closed", "5,000 sessions: all closed after (s)", limit=2),
        Figure("half_slow", "p99 lateness of 1,000 beside 1,000 on a slow server (ms)", limit=250, form=",.1f"),
        Figure("frozen_p99_5000", "  with gc.freeze() after the starts: p99, 5,000 (ms)", limit=200, form=",.1f"),
        Figure("frozen_p99_10000", "  with gc.freeze() after the starts: p99, 10,000 (ms)", limit=1000, form=",.1f"),
        Figure("frozen_gc_10000", "  longest garbage collection meanwhile (ms)", form=",.0f"),
        Figure("peer_memory", "  aiohttp + uvloop: memory, 10,000 (KiB)", form=",.1f"),
        Figure("peer_p99_1000", "  aiohttp + uvloop: p99, 1,000 (ms)", "5.3", form=",.1f"),
        Figure("peer_p99_2500", "  aiohttp + uvloop: p99, 2,500 (ms)", "35", form=",.1f"),
        Figure("peer_p99_5000", "  aiohttp + uvloop: p99, 5,000 (ms)", "154", form=",.1f"),
        Figure("peer_p99_10000", "  aiohttp + uvloop: p99, 10,000 (ms)", form=",.1f"),
        Figure("peer_us_10000", "  aiohttp + uvloop: CPU of a poll, 10,000 (us)", "253 at 5,000", form=",.0f"),
    ),
    "cometd": (
        *held("1,000", ("11.7", 2), ("10.9", 0.3), "1,002", "-"),
        *held("5,000", (NEVER, 5), (NEVER, 2), NEVER, NEVER),
    ),
    "websocket": (Figure("push", "push over the websocket to handler, p99 (ms)", "390", 3, form=",.1f"),),
    "starts": (
        Figure("import", "CPU of import and first service / import of its libraries", "1.92", 1.25),
        Figure("pytest", "pytest with the plugin unused, more CPU a run (ms)", "351", 15, form=",.1f"),
        Figure("pytest_test", "pytest with the plugin unused, more CPU a test (us)", "50", 2, "0 (<= 2)", ",.1f"),
        Figure("help", "CPU of webchat-fsm --help (ms)", "210", 120, form=",.0f"),
        Figure("interpreter", "  bare interpreter (ms)", "11", form=",.0f"),
    ),
    "decisions": (
        Figure("can", "can() (us)", "4.0", 0.8),
        Figure("legal_commands", "legal_commands() (us)", "99", 15, form=",.1f"),
        Figure("transition", "legality + transition / bare transitions trigger", "1.40", 1.25),
    ),
    "intake": (
        Figure("msgspec", "1,000 messages in one answer / msgspec typed decode", "17", 3.5),
        Figure("growth", "10,000 messages in one answer / 1,000", "14", 11),
        Figure("joins", "4,000 participants joining / 1,000 (linear: 4)", "16", 5, "linear (<= 5)"),
        Figure("joins_ms", "  4,000 participants joining (ms)", "719", form=",.0f"),
        Figure("since", "get_transcript(since=last) at 10,000 messages (us)", "839", 10, form=",.1f"),
    ),
    "store": (
        Figure("file_us", "CPU of an idle poll with a FileStore, no socket (us)", "400", 80, form=",.0f"),
        Figure("memory_us", "  with a MemoryStore (us)", "69", form=",.0f"),
    ),
}
"""Each group is measured together, in a process of its own; `--only` names one."""

Measured = dict[str, Any]
"""By the figure's key a list of samples, or a text with the reason why there are none."""


def summary(figure: Figure, measured: list[float] | str) -> dict[str, Any]:
    """Return a figure with its samples as a record for `benchmarks.json`; the median decides whether it is met."""
    known = {"what": figure.what.strip(), "before": figure.before, "aim": figure.wanted}
    if isinstance(measured, str):
        return {**known, "reason": measured, "met": None if figure.limit is None else False}
    middle = statistics.median(measured)
    spread = {"min": min(measured), "median": middle, "max": max(measured), "samples": measured}
    return {**known, **spread, "met": None if figure.limit is None else middle <= figure.limit}


WIDTHS = (58, 14, 14, 30, 5)
TITLES = ("what", "before", "aim", "min / median / max", "met")


def columns(cells: Sequence[str]) -> str:
    """Return one line of the table."""
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def cells(figure: Figure, record: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a figure in the table."""
    reason = record.get("reason")
    spread = reason or " / ".join(f"{record[part]:{figure.form}}" for part in ("min", "median", "max"))
    met = {None: "", True: "yes", False: "NO"}[record["met"]]
    return figure.what, figure.before, figure.wanted, spread, "" if reason == SKIPPED else met


def line(figure: Figure, record: dict[str, Any]) -> str:
    """Return the line of a figure in the table."""
    return columns(cells(figure, record))


def page(heading: str, records: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown; `records` are those of `benchmarks.json`."""
    rows = [
        cells(figure, records[f"{group}.{figure.key}"])
        for group, figures in GROUPS.items()
        for figure in figures
        if f"{group}.{figure.key}" in records
    ]
    lines = [TITLES, ("---",) * len(TITLES), *rows]
    table = "\n".join("| " + " | ".join(cell.strip() for cell in row) + " |" for row in lines)
    intro = "Written by `python -m tests.benchmarks --output FOLDER`; min / median / max over rounds."
    return f"# What a chat costs\n\n{intro}\n\n{heading}\n\n{table}\n"


SKIPPED = "left out by --quick"
