"""The pytest plugin: settings, marker, and what a failing test shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from webchat_fsm.testing import clocks

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def run(tmp_path, pytestconfig):
    """A run of pytest over one module in a folder of its own; gives the exit code and what was printed."""
    installed = pytestconfig.pluginmanager.has_plugin("webchat_fsm")

    def run_module(code: str, *options: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(code, encoding="utf-8")
        plugin = [] if installed else ["-p", "webchat_fsm.testing.plugin"]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *plugin, *options],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
        )
        return ran.returncode, ran.stdout + ran.stderr

    return run_module


FAILING = """
def test_it(webchat, webchat_timeline, webchat_server, webchat_recording):
    webchat.start_chat(nickname="Jonny")
    print("faults:", webchat_server.draw_faults())
    webchat_timeline.advance(10)
    assert webchat.state == "ended"
"""


def test_a_failing_test_shows_its_seed_and_its_story_and_the_seed_repeats_it(run):
    code, first = run(FAILING)
    assert code == 1
    assert "the user gives startChat form: nickname: 'Jonny'" in first
    seed = first.partition("--webchat-seed=")[2].split()[0]
    _, again = run(FAILING, f"--webchat-seed={seed}")
    faults = [line for line in first.splitlines() if line.startswith("faults:")]
    assert faults
    assert faults == [line for line in again.splitlines() if line.startswith("faults:")]


CLOCKS = """
import sys, time
from webchat_fsm.testing.clocks import Frozen, BEGIN

def test_it(webchat_timeline):
    webchat_timeline.advance(5)
    print("is frozen:", time.time() == BEGIN + 5 == webchat_timeline.now())
    print("by freezegun:", "freezegun" in sys.modules)
    print("by time-machine:", bool(sys.modules.get("time_machine") and sys.modules["time_machine"].traveller_stack))
    assert False
"""


@pytest.mark.parametrize(
    ("clock", "told"),
    [
        ("freezegun", ["is frozen: True", "by freezegun: True", "by time-machine: False"]),
        ("time-machine", ["is frozen: True", "by freezegun: False", "by time-machine: True"]),
        ("injected", ["is frozen: False", "by freezegun: False", "by time-machine: False"]),
    ],
)
def test_the_clock_is_a_setting(run, clock, told):
    _, output = run(CLOCKS, "-o", f"webchat_clock={clock}")
    assert [line for line in told if line not in output.splitlines()] == []


def test_a_thread_that_outlives_its_test_fails_it(run):
    code, output = run(
        "from webchat_fsm import WebChatService\n"
        "def test_it(webchat_server):\n"
        "    WebChatService(webchat_server.config(), http=webchat_server.http()).open()\n"
    )
    assert code == 1
    assert "threads outlive their test; close the services that it makes: ['webchat-fsm-time']" in output


@pytest.mark.webchat(transport="v3", pollExceptionLimit=1)
def test_the_marker_chooses_how_the_chat_server_is_reached(webchat):
    assert (webchat.config.way, webchat.config.poll_exception_limit) == ("v3", 1)


def test_without_the_two_packages_the_clock_is_a_number_of_the_kit(monkeypatch):
    monkeypatch.setattr(clocks, "find_spec", lambda name: None)
    with clocks.source() as source:
        assert isinstance(source, clocks.Injected)
