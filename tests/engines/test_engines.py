"""Check whole chats under threads, gevent, eventlet, gunicorn and Locust, in child processes, plain and over TLS.

An engine that is not installed is skipped, unless WEBCHAT_REQUIRE names it (`tests/needs.py`).
"""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.limits import LONG, SOON
from tests.needs import find, lack

ROOT = Path(__file__).parents[2]
ENGINES = ["threads", "gevent", "gevent-late", "eventlet", "eventlet-late"]


def needs(*modules: str) -> None:
    """Skip a test whose module is not installed; fail where WEBCHAT_REQUIRE names it."""
    for module in modules:
        if find(module) is None:
            lack(module, f"{module} is not installed")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a maker of configurations for the embedded server in another process, by transport and security."""
    ca = str(tmp_path_factory.mktemp("site") / "ca.pem")
    command = [sys.executable, "-m", "tests.engines.site", ca]
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    urls = json.loads(child.stdout.readline())

    def config(transport: str, security: str) -> str:
        at = urls[security]
        common = {"client": {"tls": {"ca": ca}}, "pollRateMin": 250, "pollRateMax": 300, "pollRate": 250}
        if transport == "v2":
            return json.dumps({"dataURL": at["v2"], **common})
        section = {"enabled": True, "cometURL": at["comet"], "apiURL": at["files"], "websocketEnabled": True}
        return json.dumps({"cometD": section, **common})

    yield config
    child.communicate("", timeout=LONG)


def checked(result: dict, text: str) -> None:
    assert result == {"delivered": True, "texts": [text], "state": "ended", "closed": True}


@pytest.mark.parametrize("transport", ["v2", "websocket"])
@pytest.mark.parametrize("security", ["plain", "tls"])
@pytest.mark.parametrize("engine", ENGINES)
def test_whole_chat_runs_under_engine(site, engine, security, transport):
    if engine == "threads" and "gevent" not in os.environ.get("WEBCHAT_REQUIRE", ""):
        pytest.skip("covered by the other tests of threads; run here if WEBCHAT_REQUIRE names the engines")
    needs(*{engine.partition("-")[0]} - {"threads"}, *["websockets"] * (transport == "websocket"))
    command = [sys.executable, "-m", "tests.engines.chatting", engine, site(transport, security)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    checked(result["chat"], "from a child")
    assert "no complete answer within 0.5 s" in result["late"]["why"]
    assert result["late"]["took"] > 0.4
    assert result["late"]["others"] > 2
    assert result["late"]["closed"]
    assert result["cut"]["closed"]
    assert result["cut"]["took"] < SOON
    assert len(result["cut"]["rejected"]) == 1
    assert result["given up"] == {"passed": True, "closed": True}


def test_service_made_before_patch_raises_at_open():
    needs("gevent")
    command = [sys.executable, "-m", "tests.engines.patched_too_late", "gevent"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LONG)
    assert done.stdout == "the standard library was patched after this service was made: patch it before\n", done.stderr


def started_gunicorn(kind: str, config: str, log: Path) -> tuple[subprocess.Popen[str], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bind = ["-b", f"127.0.0.1:{port}", "-k", kind, "--graceful-timeout", "5"]
    command = [sys.executable, "-m", "gunicorn", *bind, "tests.engines.wsgi:application"]
    with log.open("w") as out:
        child = subprocess.Popen(command, cwd=ROOT, env=environment(CHAT_CONFIG=config), stdout=out, stderr=out)
    return child, port


@pytest.mark.parametrize("security", ["plain", "tls"])
@pytest.mark.parametrize("kind", ["gevent", "sync"])
def test_gunicorn_worker_runs_concurrent_chats(site, tmp_path, kind, security):
    needs("gunicorn", *["gevent"] * (kind == "gevent"))
    child, port = started_gunicorn(kind, site("v2", security), tmp_path / "log")
    answers: dict[str, dict] = {}

    def ask(number: int) -> None:
        url = f"http://127.0.0.1:{port}/{number}"
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            answers[f"/{number}"] = json.load(answer)

    try:
        listening(port, child)
        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    finally:
        child.terminate()
        child.wait(LONG)
    assert sorted(answers) == ["/0", "/1", "/2", "/3"], (tmp_path / "log").read_text()
    for path, result in answers.items():
        checked(result, path)


def listening(port: int, child: subprocess.Popen[str]) -> None:
    """Wait until a port is listened on; the wait is for another process, which reports it in no other way."""
    pause = threading.Event()
    for _ in range(round(LONG / 0.05)):
        assert child.poll() is None, "gunicorn has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            pause.wait(0.05)
        else:
            return
    raise AssertionError(f"no process listened on port {port}")


@pytest.mark.parametrize("security", ["plain", "tls"])
def test_twenty_locust_users_have_no_failure(site, tmp_path, security):
    needs("locust")
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "tests/engines/locustfile.py",
        "--headless",
        "-u",
        "20",
        "-r",
        "20",
    ]
    command += ["-t", "4s", "--stop-timeout", "10", "--csv", str(tmp_path / "chats"), "--only-summary"]
    given = environment(CHAT_CONFIG=site("v2", security))
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    with (tmp_path / "chats_stats.csv").open() as file:
        total = list(csv.DictReader(file))[-1]
    assert (int(total["Request Count"]) >= 20, int(total["Failure Count"])) == (True, 0)
    assert not re.search("Traceback", done.stderr)
