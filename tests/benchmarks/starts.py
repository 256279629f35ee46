"""Measure what a process pays before anything happens: the import, the pytest plugin, the command line.

The figures are the processor time of whole processes, which take turns. Compiled modules are cached in a folder of this
measurement, and a first round is left out, so that no process compiles anything.

What a test costs more with the plugin is measured within one run, as two processes alone differ by more than that: it
registers what the plugin has for each test for every other block of tests. The median of the differences between
neighbouring blocks is one sample.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from tests.benchmarks.figures import Measured
from tests.benchmarks.processes import in_turn, processor_time, ratios

TESTS, BLOCK = 20_000, 10

TURNS = f"""
import itertools, sys, time, types

def pytest_runtestloop(session):
    tests, manager = session.items, session.config.pluginmanager
    plugin = sys.modules["webchat_fsm.testing._plugin"]
    manager.unregister(plugin)
    # Without the two hooks that are called once a run: the option that the first one adds can be added only once.
    part = types.ModuleType("part")
    once = ("pytest_addoption", "pytest_configure")
    vars(part).update((name, hook) for name, hook in vars(plugin).items() if name not in once)
    spent = {{True: [], False: []}}
    for number, begin in enumerate(range(0, len(tests), {BLOCK})):
        registered = number % 4 in (1, 2)  # neither is always the first of a pair
        manager.register(part)  # before each block, so that both kinds begin after the same work
        if not registered:
            manager.unregister(part)
        begun = time.process_time()
        for test, following in itertools.pairwise([*tests[begin : begin + {BLOCK} + 1], None][: {BLOCK} + 1]):
            test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
        spent[registered].append(time.process_time() - begun)
        if registered:
            manager.unregister(part)
    for above, below in zip(spent[True], spent[False]):
        print("more:", (above - below) / {BLOCK})
    return True
"""
"""A `conftest.py` that runs every other block of tests with the plugin, and prints the seconds by which they differ."""

FIRST_SERVICE = 'from webchat_fsm import WebChatService; WebChatService({"dataURL": "http://chat.test/x"})'
LIBRARIES = "import transitions, urllib3, msgspec"


def without(*, ours: bool) -> list[str]:
    """Return the options that turn off the plugins of other packages, and with `ours` that of this one too."""
    options = []
    for plugin in entry_points(group="pytest11"):
        own = plugin.dist is not None and plugin.dist.name.replace("_", "-") == "webchat-fsm"
        if ours or not own:
            options += ["-p", f"no:{plugin.name}"]
    return options


def milliseconds(argv: list[str], cwd: Path) -> float:
    """Return the milliseconds of processor time of a command, with its compiled modules below that folder."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return processor_time(argv, cwd, {**env, "PYTHONPYCACHEPREFIX": str(cwd / "compiled")}) * 1000


def difference(above: list[float], below: list[float]) -> list[float]:
    """Subtract sample by sample."""
    return [one - other for one, other in zip(above, below, strict=True)]


def more_for_a_test(folder: Path, tests: int) -> float:
    """Return the microseconds that a trivial test takes more where the plugin is loaded and unused."""
    (folder / "conftest.py").write_text(TURNS)
    (folder / "test_many.py").write_text("".join(f"def test_{number}():\n    pass\n" for number in range(tests)))
    argv = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "-p", "no:terminal", *without(ours=False)]
    done = subprocess.run([*argv, "test_many.py"], cwd=folder, check=True, capture_output=True, text=True)
    pairs = [float(line.removeprefix("more:")) for line in done.stdout.splitlines() if line.startswith("more:")]
    return statistics.median(pairs) * 1e6


def measure(quick: bool) -> Measured:
    """Measure the processes, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "pytest.ini").write_text("[pytest]\n")
        (place / "test_one.py").write_text("def test_nothing():\n    pass\n")
        python = [sys.executable]
        pytest = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        starts = {
            "interpreter": [*python, "-c", "pass"],
            "service": [*python, "-c", FIRST_SERVICE],
            "libraries": [*python, "-c", LIBRARIES],
            "help": [str(Path(sys.executable).with_name("webchat-fsm")), "--help"],
            "one with": [*pytest, *without(ours=False), "test_one.py"],
            "one without": [*pytest, *without(ours=True), "test_one.py"],
        }
        measures = {name: partial(milliseconds, argv, place) for name, argv in starts.items()}
        taken = in_turn(measures, 4 if quick else 20)
        tests, runs = (TESTS // 10, 1) if quick else (TESTS // 4, 4)
        per_test = [more_for_a_test(place, tests) for _ in range(runs)]
    per_run = difference(taken["one with"], taken["one without"])
    return {
        "import": ratios(taken["service"], taken["libraries"]),
        "pytest": per_run,
        "pytest_test": per_test,
        "help": taken["help"],
        "interpreter": taken["interpreter"],
    }
