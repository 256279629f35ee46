"""``webchat-fsm chat`` as a real process, on pipes and at a terminal, against a server that the test moves."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.cli.conftest import KEY
from tests.cli.running import Running, here, run
from webchat_fsm.server import ServerOptions


@pytest.fixture
def ann(centre):
    return centre.server.agent("Ann")


BRISK = json.dumps({"pollRateMin": 100, "pollRateMax": 100})


def start(centre, *more: str, **how: object) -> Running:
    return Running("chat", "--url", centre.url, "--nickname", "Jonny", "--config", BRISK, *more, **how)


def test_lines_from_a_pipe_are_sent_and_the_end_of_input_ends_the_chat(centre):
    ended = run(
        "chat", "--url", centre.url, "--nickname", "Jonny", "--subject", "S", "--user-data", "a=1", stdin="hi\nyou"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [logged.fields["message"] for logged in centre.asked("send")] == ["hi", "you"]
    assert centre.asked("start")[0].fields["subject"] == "S"
    assert centre.server.current_chat().ended
    assert ended.stdout.splitlines()[-1] == "* The chat is over."
    assert "\x1b" not in ended.stdout


def test_what_the_agent_says_appears_and_ctrl_c_ends_the_chat(centre, ann):
    with start(centre) as chat:
        chat.until("The chat has started")
        ann.join()
        ann.say("Hello \x1b[2J there")
        chat.until("Ann: Hello \\u001b[2J there\n")
        chat.type("hi\n")
        chat.until("Jonny: hi\n")
        chat.interrupt()
        assert chat.end() == 0
        assert "Ending the chat" in chat.printed
        assert chat.complained == ""
    assert centre.server.current_chat().ended


def test_letters_that_the_terminal_lacks_are_spelt_out(centre, ann):
    with start(centre, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0") as chat:
        chat.until("The chat has started")
        ann.join()
        ann.say("Zw\u00f6lf \u20ac")
        chat.until("Ann: Zw\\xf6lf \\u20ac\n")
        chat.type("\u20ac\n")
        centre.until_asked("send", message="\u20ac")
        chat.interrupt()
        assert chat.end() == 0


def test_the_end_from_the_servers_side_ends_the_program(centre):
    with start(centre) as chat:
        chat.until("The chat has started")
        centre.server.end()
        assert chat.end() == 0
        assert chat.printed.endswith("* The chat is over.\n")
    assert not centre.asked("disconnect")


def test_a_lost_session_is_a_failure(centre):
    with start(centre) as chat:
        chat.until("The chat has started")
        centre.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
        assert chat.end() == 1
        assert "The chat server answered badly: HTTP status 404" in chat.printed


@pytest.mark.parametrize("options", [ServerOptions(apikey=KEY)])
def test_machines_get_events_with_their_secrets_masked(centre):
    ended = run(
        "chat",
        "--url",
        centre.url,
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
    assert centre.server.current_chat().secure_key not in ended.stdout + ended.stderr
    assert KEY not in ended.stdout + ended.stderr


def test_a_chat_that_is_left_can_be_taken_up_again(centre, ann, tmp_path):
    store = ("--store", str(tmp_path / "session.json"))
    with start(centre, *store) as chat:
        chat.until("has joined")
        chat.type("/leave\n")
        assert chat.end() == 0
    assert not centre.server.current_chat().ended
    ann.join()
    ann.say("Are you back?")
    with start(centre, *store) as chat:
        chat.until("The chat goes on where it was left.")
        chat.until("Ann: Are you back?")
        chat.type("/quit\n")
        assert chat.end() == 0
    assert len(centre.server.chats) == 1
    assert centre.server.current_chat().ended


def test_a_saved_chat_that_cannot_be_reached_is_not_given_up(centre, tmp_path):
    store = ("--store", str(tmp_path / "session.json"))
    with start(centre, *store) as chat:
        chat.until("has joined")
        chat.type("/leave\n")
        chat.end()
    centre.server.faults.add(operation="refresh", http_status=500)
    failed = here("chat", "--url", centre.url, "--nickname", "Jonny", *store)
    assert failed.returncode == 1
    assert "try later, or remove the file" in failed.stderr
    assert len(centre.server.chats) == 1
    again = here("chat", "--url", centre.url, "--nickname", "Jonny", *store)
    assert (again.returncode, "where it was left" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--url", "ftp://nowhere"), "webchat-fsm: $.dataURL (--url): expected an http(s) URL"),
        (("--url", "http://a.example", "--transport", "v3"), "$.transport.endpoint (--endpoint): is required"),
        (("--url", "http://a.example", "--header", "Authorization Bearer-s3cret"), "expected a header as 'name:value'"),
    ],
)
def test_a_wrong_configuration_is_wrong_use_and_shows_no_secret(arguments, complaint):
    ended = here("chat", "--nickname", "Jonny", *arguments)
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "s3cret" not in ended.stderr


def test_a_start_that_is_refused_is_one_line_and_a_failure(centre):
    centre.server.faults.add(operation="start", http_status=403)
    ended = run("chat", "--url", centre.url, "--nickname", "Jonny")
    assert ended.returncode == 1
    assert ended.stderr.startswith("webchat-fsm: startChat rejected")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"drop": True}])
def test_a_start_that_fails_is_told_once(centre, fault):
    centre.server.faults.add(operation="start", times=5, **fault)
    ended = run("chat", "--url", centre.url, "--nickname", "Jonny")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("webchat-fsm: startChat rejected in state idle: ")
    assert ended.stderr.count("\n") == 1
    centre.server.faults.add(operation="start", times=5, **fault)
    events = here("chat", "--url", centre.url, "--nickname", "Jonny", "--json").stdout
    assert [json.loads(line)["event"] for line in events.splitlines()] == ["ready", "error"]


def test_leaving_a_chat_that_could_not_be_saved_is_a_failure(centre, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    with start(centre, "--store", str(folder / "session.json")) as chat:
        chat.until("has joined")
        shutil.rmtree(folder)
        folder.write_text("in the way")
        chat.type("/leave now\n/leave\n")
        assert chat.end() == 1
        assert "* /leave stands alone on its line" in chat.printed
        assert "cannot be taken up again: " in chat.printed
        assert "takes it up" not in chat.printed


# -- at a terminal -------------------------------------------------------------------------------------------------


def test_a_message_that_comes_leaves_the_line_that_is_being_typed(centre, ann):
    with start(centre, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("half a li")
        preview = centre.until_asked("startTyping").fields["message"]  # looked at while the keys came, perhaps
        assert preview
        assert "half a li".startswith(preview)
        centre.until_asked("refresh", message="half a li")
        ann.join()
        ann.say("Hello!")
        chat.until("Ann: Hello!")
        shown = chat.until("Jonny> half a li", times=2)
        chat.type("ne\r")
        centre.until_asked("send", message="half a line")
        assert "Jonny> half a li" in shown.partition("has joined")[2]
        ann.say("Bye!")
        chat.until("Ann: Bye!")
        chat.type("or")  # until the next prompt is there Ctrl-D would be the terminal's own affair
        centre.until_asked("refresh", message="or")
        chat.type("\x7f\x7f\x04")
        assert chat.end() == 0
        assert "Jonny: half a line" not in chat.printed
    assert centre.server.current_chat().ended


def test_letters_that_the_terminal_lacks_can_be_typed(centre):
    with start(centre, terminal=True, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0") as chat:
        chat.until("Jonny> ")
        chat.type("Zw\u00f6lf \u20ac\r")
        centre.until_asked("send", message="Zw\u00f6lf \u20ac")
        chat.interrupt()
        assert chat.end() == 0


def test_commands_of_the_program_are_no_preview(centre):
    with start(centre, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("/help\r")
        chat.until("who is there")
        chat.interrupt()
        assert chat.end() == 0
    assert not centre.asked("startTyping")


def test_the_end_from_the_servers_side_takes_the_prompt_away(centre, ann):
    with start(centre, terminal=True) as chat:
        chat.until("Jonny> ")
        chat.type("unfini")
        centre.until_asked("startTyping")
        centre.server.end()
        assert chat.end() == 0
        assert "* The chat is over." in chat.printed


def test_a_second_ctrl_c_leaves_at_once(centre):
    with start(centre, terminal=True) as chat:
        chat.until("Jonny> ")
        centre.server.faults.add(operation="disconnect", delay=20.0)
        chat.interrupt()
        centre.until_asked("disconnect")
        chat.interrupt()
        assert chat.end() == 1
        assert "interrupted" in chat.printed
        assert "Traceback" not in chat.printed
