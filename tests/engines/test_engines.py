"""Whole chats under threads, gevent, eventlet, gunicorn and Locust, in processes of their own, plain and over TLS.

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
    """Configurations for the embedded server in another process, by transport and security."""
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
    child.communicate("", timeout=10)


def checked(told: dict, text: str) -> None:
    assert told == {"delivered": True, "texts": [text], "state": "ended", "closed": True}


@pytest.mark.parametrize("transport", ["v2", "websocket"])
@pytest.mark.parametrize("security", ["plain", "tls"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_whole_chat_under_an_engine(site, engine, security, transport):
    if engine == "threads" and "gevent" not in os.environ.get("WEBCHAT_REQUIRE", ""):
        pytest.skip("tried in the other tests of threads, and here where WEBCHAT_REQUIRE asks for all engines")
    needs(*{engine.partition("-")[0]} - {"threads"}, *["websockets"] * (transport == "websocket"))
    command = [sys.executable, "-m", "tests.engines.chatting", engine, site(transport, security)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    checked(told["chat"], "from a child")
    assert "no complete answer within 0.5 s" in told["late"]["why"]
    assert 0.4 < told["late"]["took"] < 3.0
    assert told["late"]["others"] > 10
    assert told["late"]["closed"]
    assert told["cut"]["closed"]
    assert told["cut"]["took"] < 2.0
    assert len(told["cut"]["told"]) == 1
    assert told["given up"] == {"passed": True, "closed": True}


def test_a_service_made_before_the_patch_says_so_as_it_opens():
    needs("gevent")
    command = [sys.executable, "-m", "tests.engines.patched_too_late", "gevent"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=30)
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
def test_whole_chats_in_a_worker_of_gunicorn(site, tmp_path, kind, security):
    needs("gunicorn", *["gevent"] * (kind == "gevent"))
    child, port = started_gunicorn(kind, site("v2", security), tmp_path / "log")
    answers: dict[str, dict] = {}

    def ask(number: int) -> None:
        url = f"http://127.0.0.1:{port}/{number}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            answers[f"/{number}"] = json.load(answer)

    try:
        listening(port, child)
        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
    finally:
        child.terminate()
        child.wait(20)
    assert sorted(answers) == ["/0", "/1", "/2", "/3"], (tmp_path / "log").read_text()
    for path, told in answers.items():
        checked(told, path)


def listening(port: int, child: subprocess.Popen[str]) -> None:
    """Wait until a port is listened on; the wait is for another process, which says so in no other way."""
    pause = threading.Event()
    for _ in range(300):
        assert child.poll() is None, "gunicorn has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            pause.wait(0.05)
        else:
            return
    raise AssertionError("it never listened")


@pytest.mark.parametrize("security", ["plain", "tls"])
def test_twenty_users_of_locust_meet_no_failure(site, tmp_path, security):
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
    command += ["-t", "4s", "--stop-timeout", "10", "--csv", str(tmp_path / "told"), "--only-summary"]
    given = environment(CHAT_CONFIG=site("v2", security))
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    with (tmp_path / "told_stats.csv").open() as file:
        total = list(csv.DictReader(file))[-1]
    assert (int(total["Request Count"]) >= 20, int(total["Failure Count"])) == (True, 0)
    assert not re.search("Traceback", done.stderr)
