"""Measure what the library costs, in one table with the aims: ``python -m tests.benchmarks``.

It needs the extra `bench`. Every measurement runs in fresh processes against a server in another process; processor
time and memory are those that the system counts, peers run in the same run and in random order, and ratios are those of
one run. The heading names the machine, with the time that a fixed loop takes on it, as most aims in seconds were set
for a machine on which that is shorter.

``--output FOLDER`` writes the table to `benchmarks.md`, all samples to `benchmarks.json`, and the sessions to
`sessions.json` and `sessions.svg`; the files in `results` are those of ``--output tests/benchmarks/results``. The whole
run takes about forty minutes, and the machine should do nothing else; ``--quick`` only shows within two minutes that
everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import canned, polls, pushes, scale, sessions, starts
from tests.benchmarks.figures import GROUPS, SKIPPED, TITLES, Measured, columns, line, page, summary
from tests.benchmarks.processes import NotReachedError, fresh, heading, machine

MEASURES: dict[str, Callable[[bool], Measured]] = {
    "polls": polls.measure,
    "construction": scale.construction,
    "sessions": sessions.measure,
    "cometd": scale.cometd,
    "websocket": pushes.measure,
    "starts": starts.measure,
    "decisions": canned.decisions,
    "intake": canned.intake,
    "store": canned.store,
}

LONGEST = 3600.0
"""Seconds for a group."""


def measured(group: str, *, quick: bool) -> Measured:
    """Measure a group in a fresh process; where that fails, each of its figures has the reason."""
    begun = time.perf_counter()
    print(f"measuring {group} ...", file=sys.stderr, flush=True)
    try:
        found: Measured = fresh(MEASURES[group], quick, limit=LONGEST)
    except NotReachedError as error:
        found = {figure.key: f"not reached: {error}" for figure in GROUPS[group]}
    except RuntimeError as error:
        print(error, file=sys.stderr)
        found = {figure.key: "failed" for figure in GROUPS[group]}
    print(f"measuring {group} took {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def write(folder: Path, described: dict[str, Any], records: dict[str, dict[str, Any]], *, quick: bool) -> None:
    """Write the samples and the table."""
    document = {"machine": described, "quick": quick, "figures": records}
    (folder / "benchmarks.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "benchmarks.md").write_text(page(heading(described), records))


def main() -> int:
    """Measure what the command line asks for; 0, or 1 where a measurement has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and few sessions: a check that all runs")
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where files are written; none without it")
    options = parser.parse_args()
    groups = options.only or list(MEASURES)
    described = machine()
    print(heading(described), end="\n\n", flush=True)
    print(columns(TITLES), flush=True)
    records: dict[str, dict[str, Any]] = {}
    for group in groups:
        found = measured(group, quick=options.quick)
        for figure in GROUPS[group]:
            record = records[f"{group}.{figure.key}"] = summary(figure, found[figure.key])
            print(line(figure, record), flush=True)
        if options.output:  # after each group, so that an interrupted run leaves what it has measured
            write(options.output, described, records, quick=options.quick)
            if rows := found.get(sessions.ROWS):
                sessions.write(options.output, rows)
    judged = [one for one in records.values() if one["met"] is not None and one.get("reason") != SKIPPED]
    print(f"\n{sum(one['met'] for one in judged)} of {len(judged)} aims met")
    return int(any(one.get("reason") == "failed" for one in records.values()))


if __name__ == "__main__":
    sys.exit(main())
