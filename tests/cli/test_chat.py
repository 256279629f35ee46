"""Test ``webchat-fsm chat`` as a process, on pipes and at a terminal, with a server that the test controls."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cli.conftest import KEY
from tests.cli.running import Running, run, run_inline
from webchat_fsm.server import ServerOptions


@pytest.fixture
def ann(backend):
    return backend.server.agent("Ann")


FAST_POLLING = json.dumps({"pollRateMin": 100, "pollRateMax": 100})


def start(backend, *more: str, **how: object) -> Running:
    return Running("chat", "--url", backend.url, "--nickname", "Jonny", "--config", FAST_POLLING, *more, **how)


def test_piped_lines_are_sent_and_end_of_input_ends_the_chat(backend):
    ended = run(
        "chat", "--url", backend.url, "--nickname", "Jonny", "--subject", "S", "--user-data", "a=1", stdin="hi\nyou"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [logged.fields["message"] for logged in backend.requests_of("send")] == ["hi", "you"]
    assert backend.requests_of("start")[0].fields["subject"] == "S"
    assert backend.server.current_chat().ended
    assert ended.stdout.splitlines()[-1] == "* The chat has ended."
    assert "\x1b" not in ended.stdout


def test_agent_message_is_printed_and_ctrl_c_ends_the_chat(backend, ann):
    with start(backend) as chat:
        chat.until("The chat has started")
        ann.join()
        ann.say("Hello \x1b[2J there")
        chat.until("Ann: Hello \\u001b[2J there\n")
        chat.type("hi\n")
        chat.until("Jonny: hi\n")
        chat.interrupt()
        assert chat.end() == 0
        assert "Ending the chat" in chat.printed
        assert chat.errors == ""
    assert backend.server.current_chat().ended


def test_characters_outside_the_encoding_are_escaped(backend, ann):
    with start(backend, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0") as chat:
        chat.until("The chat has started")
        ann.join()
        ann.say("Zw\u00f6lf \u20ac")
        chat.until("Ann: Zw\\xf6lf \\u20ac\n")
        chat.type("\u20ac\n")
        backend.until_request("send", message="\u20ac")
        chat.interrupt()
        assert chat.end() == 0


def test_chat_ended_by_the_server_ends_the_program(backend):
    with start(backend) as chat:
        chat.until("The chat has started")
        backend.server.end()
        assert chat.end() == 0
        assert chat.printed.endswith("* The chat has ended.\n")
    assert not backend.requests_of("disconnect")


def test_lost_session_exits_with_1(backend):
    with start(backend) as chat:
        chat.until("The chat has started")
        backend.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
        assert chat.end() == 1
        assert "The chat server returned an error: HTTP status 404" in chat.printed


@pytest.mark.parametrize("options", [ServerOptions(apikey=KEY)])
def test_json_masks_secrets_of_events(backend):
    ended = run(
        "chat",
        "--url",
        backend.url,
        "--nickname",
        "Jonny",
        "--json",
        "--linger",
        "0.1",
        stdin="hi\n",
        WEBCHAT_FSM_API_KEY=KEY,
    )
    assert ended.returncode == 0
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [record["event"] for record in records][:3] == ["ready", "started", "pollingStarted"]
    assert records[1]["data"]["secureKey"] == "***"
    assert backend.server.current_chat().secure_key not in ended.stdout + ended.stderr
    assert KEY not in ended.stdout + ended.stderr


def test_chat_left_with_leave_is_restored(backend, ann, tmp_path):
    store = ("--store", str(tmp_path / "session.json"))
    with start(backend, *store) as chat:
        chat.until("has joined")
        chat.type("/leave\n")
        assert chat.end() == 0
    assert not backend.server.current_chat().ended
    ann.join()
    ann.say("Are you back?")
    with start(backend, *store) as chat:
        chat.until("The chat is restored.")
        chat.until("Ann: Are you back?")
        chat.type("/quit\n")
        assert chat.end() == 0
    assert len(backend.server.chats) == 1
    assert backend.server.current_chat().ended


def test_saved_chat_survives_a_failed_restore(backend, tmp_path):
    store = ("--store", str(tmp_path / "session.json"))
    with start(backend, *store) as chat:
        chat.until("has joined")
        chat.type("/leave\n")
        chat.end()
    backend.server.faults.add(operation="refresh", http_status=500)
    failed = run_inline("chat", "--url", backend.url, "--nickname", "Jonny", *store)
    assert failed.returncode == 1
    assert "try later, or remove the file" in failed.stderr
    assert len(backend.server.chats) == 1
    again = run_inline("chat", "--url", backend.url, "--nickname", "Jonny", *store)
    assert (again.returncode, "The chat is restored" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--url", "ftp://nowhere"), "webchat-fsm: $.dataURL (--url): expected an http(s) URL"),
        (("--url", "http://a.example", "--transport", "v3"), "$.transport.endpoint (--endpoint): is required"),
        (("--url", "http://a.example", "--header", "Authorization Bearer-s3cret"), "expected a header as 'name:value'"),
    ],
)
def test_wrong_configuration_exits_with_2_without_secrets(arguments, complaint):
    ended = run_inline("chat", "--nickname", "Jonny", *arguments)
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "s3cret" not in ended.stderr


def test_rejected_start_prints_one_line_and_exits_with_1(backend):
    backend.server.faults.add(operation="start", http_status=403)
    ended = run("chat", "--url", backend.url, "--nickname", "Jonny")
    assert ended.returncode == 1
    assert ended.stderr.startswith("webchat-fsm: startChat rejected")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"drop": True}])
def test_failed_start_is_reported_once(backend, fault):
    backend.server.faults.add(operation="start", times=5, **fault)
    ended = run("chat", "--url", backend.url, "--nickname", "Jonny")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("webchat-fsm: startChat rejected in state idle: ")
    assert ended.stderr.count("\n") == 1
    backend.server.faults.add(operation="start", times=5, **fault)
    events = run_inline("chat", "--url", backend.url, "--nickname", "Jonny", "--json").stdout
    assert [json.loads(line)["event"] for line in events.splitlines()] == ["ready", "error"]


def test_leave_with_unwritable_store_exits_with_1(backend, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    with start(backend, "--store", str(folder / "session.json")) as chat:
        chat.until("has joined")
        shutil.rmtree(folder)
        folder.write_text("in the way")
        chat.type("/leave now\n/leave\n")
        assert chat.end() == 1
        assert "* wrong arguments for /leave: usage is /leave" in chat.printed
        assert "could not be saved: " in chat.printed
        assert "restores it" not in chat.printed


# -- at a terminal -------------------------------------------------------------------------------------------------


def test_arriving_message_keeps_the_unfinished_line(backend, ann):
    with start(backend, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("half a li")
        preview = backend.until_request("startTyping").fields["message"]  # a preview may be read between two keys
        assert preview
        assert "half a li".startswith(preview)
        backend.until_request("refresh", message="half a li")
        ann.join()
        ann.say("Hello!")
        chat.until("Ann: Hello!")
        shown = chat.until("Jonny> half a li", times=2)
        chat.type("ne\r")
        backend.until_request("send", message="half a line")
        assert "Jonny> half a li" in shown.partition("has joined")[2]
        ann.say("Bye!")
        chat.until("Ann: Bye!")
        chat.type("or")  # before the next prompt is shown Ctrl-D would go to the terminal's line discipline
        backend.until_request("refresh", message="or")
        chat.type("\x7f\x7f\x04")
        assert chat.end() == 0
        assert "Jonny: half a line" not in chat.printed
    assert backend.server.current_chat().ended


def test_characters_outside_the_encoding_can_be_typed(backend):
    with start(backend, terminal=True, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0") as chat:
        chat.until("Jonny> ")
        chat.type("Zw\u00f6lf \u20ac\r")
        backend.until_request("send", message="Zw\u00f6lf \u20ac")
        chat.interrupt()
        assert chat.end() == 0


def test_slash_commands_send_no_typing_preview(backend):
    with start(backend, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("/help\r")
        chat.until("list the agents")
        chat.interrupt()
        assert chat.end() == 0
    assert not backend.requests_of("startTyping")


def test_chat_ended_by_the_server_closes_the_prompt(backend, ann):
    with start(backend, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("unfini")
        backend.until_request("startTyping")
        backend.server.end()
        assert chat.end() == 0
        assert "* The chat has ended." in chat.printed


def test_second_ctrl_c_exits_at_once(backend):
    with start(backend, terminal=True) as chat:
        chat.until("Jonny> ")
        backend.server.faults.add(operation="disconnect", delay=20.0)
        chat.interrupt()
        backend.until_request("disconnect")
        chat.interrupt()
        assert chat.end() == 1
        assert "interrupted" in chat.printed
        assert "Traceback" not in chat.printed
