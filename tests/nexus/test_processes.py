"""Check that another process restores a chat over real sockets, with its token or its store alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import LONG, SOON
from webchat_fsm import WebChatService
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront

PROGRAM = """
import json, sys
from webchat_fsm import FileStore, ManualDriver, WebChatService

url, act, token, path, hooks = json.loads(sys.argv[1])
COOKIE = "customer-defined-session-cookie"
functions = {
    "getSessionData": lambda data, cookie, options: cookie.set(COOKIE, json.dumps(data), options),
    "setSessionData": lambda is_open, cookie, options: cookie.get(COOKIE),
    "deleteSessionData": lambda error, cookie, options: cookie.remove(COOKIE, options),
}
section = {"type": "pureengage-v3-rest", "dataURL": url, "endpoint": "e", "headers": {"x-api-key": "k"},
           "async": {"enabled": True, **(functions if hooks else {})}, "pollTimeout": 100}
config = {"transport": section, "ajaxTimeout": 10_000}
chat = WebChatService(config, store=FileStore(path) if path else None, driver=ManualDriver())
chat.open()
if act == "start":
    chat.start_chat(nickname="Jonny")
    chat.send_message("from the first process")
elif token:
    chat.restore(token)
chat.command("sendMessage", {"message": "from " + act})
if chat.state.has_session:
    chat.step()
report = {"token": chat.get_session_data().token, "state": chat.state,
        "texts": [m.text for m in chat.get_transcript().messages if m.type == "Message"]}
if act == "die":
    print(json.dumps(report), flush=True)
    import os
    os._exit(9)
chat.close()
print(json.dumps({**report, "after": chat.state}))
"""


@pytest.fixture
def front():
    with HttpFront(ChatServer()) as running:
        yield running


def given(front, act: str, token: str = "", path: Path | None = None, hooks: bool = False) -> str:
    """Return the argument of the program, which describes its task."""
    return json.dumps([front.sessions_url, act, token, str(path or ""), hooks])


def run(front, act: str, *, code: int = 0, **how: object):
    """Run the program in a process of its own and return its report."""
    line = [sys.executable, "-c", PROGRAM, given(front, act, **how)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def here(front, monkeypatch, capfd):
    """Run the program in this process, so that a test of two processes starts only one."""

    def run_here(act: str, **how: object):
        monkeypatch.setattr(sys, "argv", ["-c", given(front, act, **how)])
        exec(PROGRAM, {"__name__": "__main__"})
        printed = capfd.readouterr()
        assert printed.err == ""
        return json.loads(printed.out)

    return run_here


def test_other_process_restores_dormant_chat_by_token(front, here):
    first = here("start")
    assert (first["state"], first["after"]) == ("polling", "async-dormant")
    front.server.agent("Ann").join().say("while no client was open")
    second = run(front, "second", token=first["token"])
    assert second["state"] == "polling"
    assert second["texts"] == ["from the first process", "from start", "while no client was open", "from second"]
    assert second["token"] != first["token"]
    assert len(front.server.chats) == 1


@pytest.mark.parametrize("hooks", [False, True], ids=["the store", "the documented functions"])
def test_processes_share_chat_through_file(front, here, tmp_path, hooks):
    path = tmp_path / "session.json"
    here("start", path=path, hooks=hooks)
    assert path.stat().st_mode & 0o777 == 0o600
    second = run(front, "second", path=path, hooks=hooks)
    third = here("third", path=path, hooks=hooks)
    assert (second["state"], third["state"]) == ("polling", "polling")
    assert third["texts"] == ["from the first process", "from start", "from second", "from third"]
    front.server.purge()
    assert here("fourth", path=path, hooks=hooks)["state"] == "idle"
    assert not path.exists()


@pytest.mark.parametrize("hooks", [False, True], ids=["the store", "the documented functions"])
def test_chat_of_dead_process_is_restored_by_next_process(front, here, tmp_path, hooks):
    path = tmp_path / "session.json"
    here("start", path=path, hooks=hooks)
    died = run(front, "die", path=path, hooks=hooks, code=9)
    after = here("next", path=path, hooks=hooks)
    assert after["texts"] == [*died["texts"], "from next"]


def test_processes_with_one_token_share_chat(front):
    section = {"dataURL": front.sessions_url, "endpoint": "e", "async": {"enabled": True}, "pollTimeout": 100}
    with WebChatService({"transport": section, "ajaxTimeout": 10_000}) as chat:
        chat.start_chat(nickname="Jonny")
        other = run(front, "other", token=chat.get_session_data().token)
        assert other["texts"] == ["from other"]
        chat.wait_for("messageReceived", LONG, lambda event: event.data.messages[-1].text == "from other")
        assert chat.close(SOON)


def test_messages_of_many_threads_are_delivered_once(front):
    import threading

    section = {"dataURL": front.sessions_url, "endpoint": "e", "async": {"enabled": True}, "pollTimeout": 100}
    with WebChatService({"transport": section, "ajaxTimeout": 10_000}) as chat:
        chat.start_chat(nickname="Jonny")
        texts = [f"{name}{number}" for name in "abcd" for number in range(5)]
        threads = [
            threading.Thread(target=lambda part=texts[n::4]: [chat.send_message(text) for text in part])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert chat.send_message("last").wait(LONG)
        delivered = [message.text for message in chat.get_transcript().messages if message.type == "Message"]
        assert sorted(delivered) == sorted([*texts, "last"])
        assert chat.close(SOON)
