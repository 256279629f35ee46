"""Test the pytest plugin: settings, marker, and the report of a failing test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from webchat_fsm import WebChatService
from webchat_fsm.testing import _plugin
from webchat_fsm.testing import _timeline as clocks

ROOT = Path(__file__).parent.parent.parent


pytest_plugins = ("pytester",)


@pytest.fixture
def run(pytester, pytestconfig):
    """Run pytest over one module in a folder of its own; return the exit code and the output."""
    installed = pytestconfig.pluginmanager.has_plugin("webchat_fsm")
    plugin = [] if installed else ["-p", "webchat_fsm.testing._plugin"]

    def run_module(code: str, *options: str, process: bool = False) -> tuple[int, str]:
        pytester.path.joinpath("test_it.py").write_text(code, encoding="utf-8")
        line = ["-q", "-p", "no:cacheprovider", "--strict-markers", *plugin, *options]
        if not process:
            ran = pytester.runpytest_inprocess(*line)
            return int(ran.ret), "\n".join(ran.outlines + ran.errlines)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *line],
            cwd=pytester.path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run_module


FAILING = """
def test_it(webchat, webchat_timeline, webchat_server, webchat_recording):
    webchat.start_chat(nickname="Jonny")
    print("faults:", webchat_server.draw_faults())
    webchat_timeline.advance(10)
    assert webchat.state == "ended"
"""


def test_failing_test_shows_its_seed_and_its_recording(run):
    code, first = run(FAILING, process=True)
    assert code == 1
    assert "the user gives startChat form: nickname: 'Jonny'" in first
    seed = first.partition("--webchat-seed=")[2].split()[0]
    _, again = run(FAILING, f"--webchat-seed={seed}")
    faults = [line for line in first.splitlines() if line.startswith("faults:")]
    assert faults
    assert faults == [line for line in again.splitlines() if line.startswith("faults:")]


TWO_DRAWS = """
def test_it(webchat_server):
    print("faults:", webchat_server.draw_faults(count=2))
    print("faults:", webchat_server.draw_faults(7, count=2))
    print("faults:", webchat_server.draw_faults(count=2))
    assert False
"""


def test_seed_option_repeats_every_draw_of_a_test(run):
    _, first = run(TWO_DRAWS)
    faults = [line for line in first.splitlines() if line.startswith("faults:")]
    assert len(set(faults)) == 3
    seed = int(first.partition("--webchat-seed=")[2].split()[0])
    assert f"drawn from the seeds {seed}, 7, {seed + 1}; repeat with" in first
    _, again = run(TWO_DRAWS, f"--webchat-seed={seed}")
    assert faults == [line for line in again.splitlines() if line.startswith("faults:")]


def test_seed_in_the_test_needs_no_option(run):
    _, output = run("def test_it(webchat_server):\n    webchat_server.draw_faults(7)\n    assert False\n")
    assert "drawn from the seed 7" in output
    assert "--webchat-seed" not in output


CLOCKS = """
import datetime, sys, time
from webchat_fsm.testing._timeline import BEGIN

def test_it(webchat_timeline):
    webchat_timeline.advance(5)
    print("is frozen:", time.time() == BEGIN + 5 == webchat_timeline.now())
    print("by freezegun:", datetime.datetime.__module__.startswith("freezegun"))
    print("by time-machine:", bool(sys.modules.get("time_machine") and sys.modules["time_machine"].traveller_stack))
    assert False
"""


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("freezegun", ["is frozen: True", "by freezegun: True", "by time-machine: False"]),
        ("time-machine", ["is frozen: True", "by freezegun: False", "by time-machine: True"]),
        ("injected", ["is frozen: False", "by freezegun: False", "by time-machine: False"]),
    ],
)
def test_clock_is_chosen_by_a_setting(run, clock, expected):
    _, output = run(CLOCKS, "-o", f"webchat_clock={clock}")
    assert [line for line in expected if line not in output.splitlines()] == []


def test_thread_that_outlives_its_test_fails_it(run):
    code, output = run(
        "from webchat_fsm import WebChatService\n"
        "def test_it(webchat_server):\n"
        "    WebChatService(webchat_server.config(), http=webchat_server.http()).open()\n",
        process=True,  # its thread would outlive this test too
    )
    assert code == 1
    assert "threads outlive their test; close the services that it makes: ['webchat-fsm-time']" in output


@pytest.mark.webchat(transport="v3", pollExceptionLimit=1)
def test_marker_sets_transport_and_configuration(webchat):
    assert (webchat.config.way, webchat.config.poll_exception_limit) == ("v3", 1)


@pytest.mark.webchat("cometd")
def test_marker_accepts_the_transport_without_keyword(webchat):
    assert webchat.config.way == "cometd"


@pytest.mark.webchat(transport="v3", pollExceptionLimit=1, client={"pollJitter": 0.5})
class TestMarkersOfAClass:
    def test_class_marker_applies_to_its_tests(self, webchat):
        assert (webchat.config.way, webchat.config.poll_exception_limit) == ("v3", 1)

    @pytest.mark.webchat(pollExceptionLimit=2, client={"downloadDir": "/tmp"})
    def test_marker_of_a_test_overrides_class_marker_by_key(self, webchat):
        assert (webchat.config.way, webchat.config.poll_exception_limit) == ("v3", 2)
        assert (webchat.config.client.poll_jitter, webchat.config.client.download_dir) == (0.5, "/tmp")


INVALID_MARKERS = {
    '"v4"': "there is no transport 'v4'; there are v2, cometd, v3, v3-async",
    '"v3", "cometd"': "takes one transport, got 'v3', 'cometd'",
    '"v3", transport="cometd"': "takes one transport, got 'v3', 'cometd'",
    'transprt="v3"': "there is no setting 'transprt'; did you mean 'transport'?",
    "pollExceptionLimt=1": "there is no setting 'pollExceptionLimt'; did you mean 'pollExceptionLimit'?",
    "poll_rate=1000": "there is no setting 'poll_rate'; did you mean 'pollRate'?",
}


def test_invalid_marker_is_rejected(run):
    marked = [
        f"@pytest.mark.webchat({marker})\ndef test_{n}(webchat): pass\n" for n, marker in enumerate(INVALID_MARKERS)
    ]
    code, output = run("\n".join(["import pytest", *marked]))
    assert code == 1
    assert "passed" not in output
    for expected in INVALID_MARKERS.values():
        assert f"@pytest.mark.webchat: {expected}" in output


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("sundial", "webchat_clock: there is no clock 'sundial'; there are auto, time-machine, freezegun, injected"),
        ("frezegun", "webchat_clock: there is no clock 'frezegun'; did you mean 'freezegun'?"),
    ],
)
def test_unknown_clock_is_a_usage_error(run, clock, expected):
    code, output = run("def test_it(): pass\n", "-o", f"webchat_clock={clock}")
    assert (code, expected in output) == (4, True)


def test_clock_that_is_not_installed_raises_value_error(monkeypatch):
    monkeypatch.setattr(clocks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the clock 'freezegun' is not installed: pip install freezegun"):
        clocks.check_kind("freezegun")


def test_missing_recording_error_names_the_argument(webchat_server, webchat_timeline, webchat_recording):
    own = WebChatService(webchat_server.config(), http=webchat_server.http(), driver=webchat_timeline.driver)
    with pytest.raises(LookupError, match=r"recorder=Recorder\(\)"):
        webchat_recording.of(own)


def test_clock_is_injected_without_the_two_packages(monkeypatch):
    monkeypatch.setattr(clocks, "find_spec", lambda name: None)
    with clocks.frozen_source() as source:
        assert isinstance(source, clocks.Injected)


AFTER_THE_KIT = """
def test_with_the_kit(webchat_server):
    pass

def test_without(request):
    hooks = request.config.hook.pytest_runtest_makereport.get_hookimpls()
    assert [hook.plugin for hook in hooks if type(hook.plugin).__module__.startswith("webchat_fsm")] == []
"""


def test_reports_are_left_alone_after_a_test_with_the_kit(run):
    code, output = run(AFTER_THE_KIT)
    assert (code, "2 passed" in output) == (0, True)


def test_help_names_each_clock(run):
    _, output = run("", "--help")
    described = " ".join(output.split()).partition("what keeps the time of webchat_timeline: ")[2]
    assert described.startswith(", ".join(clocks.KINDS))
    assert clocks.AUTO == _plugin.DEFAULT_CLOCK
