"""What only a process of its own can show: its death, its exit, and a session that outlives it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from webchat_fsm import FileStore

FAST = "'pollRate': 100, 'pollRateMin': 100, 'pollRateMax': 100"


@pytest.fixture
def program(tmp_path):
    """Start a program of these lines; it is killed at the end where it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(lines: str, **given: object) -> subprocess.Popen[str]:
        paths = os.pathsep.join(path for path in sys.path if path)
        text = textwrap.dedent(lines)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            **given,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10.0)


def ended_well(process: subprocess.Popen[str], seconds: float = 15.0) -> str:
    out, err = process.communicate(timeout=seconds)
    assert (process.returncode, err) == (0, "")
    return out


CHAT = """
    from webchat_fsm import FileStore, WebChatService
    config = {{'dataURL': {url!r}, {fast}}}
    chat = WebChatService(config, store=FileStore('session.json'))
    chat.open()
"""


def chat_at(front) -> str:
    return CHAT.format(url=front.data_url(), fast=FAST)


def test_another_process_takes_up_the_session_of_one_that_was_killed(program, front, tmp_path, eventually):
    first = program(
        chat_at(front)
        + """
    chat.subscribe('messageReceived', lambda event: print([one.text for one in event.data.messages], flush=True))
    chat.start_chat(nickname='Jonny', user_data={'tier': 'gold'})
    chat.send_message('before')
    chat.wait_for('agentTypingStarted', 60.0)
    """
    )
    eventually(lambda: front.server.chats and "before" in str(front.server.current_chat().transcript))
    ann = front.server.agent("Ann").join()
    ann.say("hello")
    while "hello" not in first.stdout.readline():
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    assert first.wait(10.0) == -signal.SIGKILL
    assert FileStore(tmp_path / "session.json").load().nickname == "Jonny"
    ann.say("while nobody was there")
    second = program(
        chat_at(front)
        + """
    event = chat.wait_for('messageReceived', 10.0)
    assert event.data.restoring
    told = [one.text for one in event.data.messages if one.type == 'Message']
    assert told == ['before', 'hello', 'while nobody was there'], told
    assert all(one.restoring for one in event.data.messages)
    indexes = [one.index for one in chat.get_transcript().messages]
    assert len(indexes) == len(set(indexes))
    print(chat.state, [agent.name for agent in chat.get_agents().values()])
    chat.send_message('after').wait(10.0)
    later = [one.text for one in chat.get_transcript().messages if one.type == 'Message']
    assert later == [*told, 'after'], later
    chat.close()
    """
    )
    assert ended_well(second) == "polling ['Ann']\n"
    assert len(front.server.chats) == 1


def test_a_program_that_does_not_close_exits_promptly_and_can_restore(program, front, tmp_path):
    began = time.monotonic()
    ended_well(program(chat_at(front) + "    chat.start_chat(nickname='Jonny')\n"))
    assert time.monotonic() - began < 10.0
    out = ended_well(program(chat_at(front) + "    print(chat.state)\n"))
    assert out == "polling\n"


def test_a_program_that_is_held_by_its_server_exits_promptly_too(program, peer, says, wire):
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def talk(server, connection):
        server.read(connection)
        connection.sendall(says.whole(good))
        says.silent(server, connection)

    server = peer(talk)
    began = time.monotonic()
    ended_well(
        program(
            f"""
    import threading
    from webchat_fsm import WebChatService
    chat = WebChatService({{'dataURL': {server.url!r}, 'ajaxTimeout': 60_000}})
    chat.open()
    chat.start_chat(nickname='Jonny')
    while chat.health().poll_in_flight is None:
        threading.Event().wait(0.01)
    """
        )
    )
    assert time.monotonic() - began < 10.0


def test_close_at_exit_works(program, front):
    out = ended_well(
        program(
            "    import atexit\n"
            + chat_at(front)
            + """
    atexit.register(lambda: print(chat.close(), chat.health().threads))
    chat.start_chat(nickname='Jonny')
    """
        )
    )
    assert out == "True ()\n"


def test_ctrl_c_in_a_wait_leaves_with_and_keeps_the_session(program, front, eventually):
    process = program(
        chat_at(front).replace("    chat.open()\n", "")
        + """
    try:
        with chat:
            chat.start_chat(nickname='Jonny')
            print('waiting', flush=True)
            chat.wait_for('agentConnected', 60.0)
    except KeyboardInterrupt:
        print('interrupted', chat.state, chat.health().threads)
    """
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert ended_well(process) == "interrupted idle ()\n"
    assert ended_well(program(chat_at(front) + "    print(chat.state)\n")) == "polling\n"


def test_a_child_of_a_fork_neither_hangs_nor_disturbs_its_parent(program, front):
    out = ended_well(
        program(
            "    import os, sys\n"
            + chat_at(front)
            + """
    chat.start_chat(nickname='Jonny')
    child = os.fork()
    if not child:
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    receipt = chat.send_message('still here')
    print(status, receipt.wait(10.0), chat.close())
    """
        )
    )
    assert out == "0 True True\n"


def test_a_child_of_a_fork_that_closes_leaves_the_requests_of_its_parent_alone(program, peer, says, wire):
    good, let_it_answer = wire().send(type("R", (), {"operation": "start"})()).body, threading.Event()

    def talk(server, connection):
        while request := server.read(connection):
            if b"message=held" in request:
                let_it_answer.wait(10.0)
            connection.sendall(says.whole(good))

    server = peer(talk)
    parent = program(
        f"""
    import os, sys, threading
    from webchat_fsm import WebChatService
    chat = WebChatService({{'dataURL': {server.url!r}, 'ajaxTimeout': 60_000}})
    chat.open()
    chat.start_chat(nickname='Jonny')
    sending = threading.Thread(target=lambda: print(chat.send_message('held').status))
    sending.start()
    sys.stdin.readline()
    child = os.fork()
    if not child:
        print(chat.close(), chat.state, chat.command('sendMessage', {{'message': 'hi'}}).reason, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print('the child has gone', flush=True)
    sending.join()
    print(chat.state, chat.close())
    """,
        stdin=subprocess.PIPE,
    )
    deadline = time.monotonic() + 15.0
    while not any(b"message=held" in request for request in server.seen):
        assert time.monotonic() < deadline
        assert parent.poll() is None
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "True idle WebChatService is not ready\n"
    assert parent.stdout.readline() == "the child has gone\n"
    let_it_answer.set()
    assert ended_well(parent) == "sent\npolling True\n"


@pytest.mark.parametrize("websocket", [False, True])
def test_a_child_of_a_fork_lets_go_of_a_pushed_chat_without_a_word(program, front, websocket):
    out = ended_well(
        program(
            f"""
    import os, sys
    from webchat_fsm import WebChatService
    section = {{'enabled': True, 'cometURL': {front.comet_url!r}, 'apiURL': {front.comet_files_url!r},
               'websocketEnabled': {websocket}}}
    chat, troubles = WebChatService({{'cometD': section}}), []
    for name in ('disconnected', 'reconnected', 'error'):
        chat.subscribe(name, troubles.append)
    chat.open()
    chat.start_chat(nickname='Jonny')
    assert chat.send_message('before').wait(10.0)
    child = os.fork()
    if not child:
        chat.close()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(status, chat.send_message('after').wait(10.0), troubles, chat.close())
    """
        )
    )
    assert out == "0 True [] True\n"


def test_whatever_locks_other_threads_hold_a_child_of_a_fork_closes_opens_and_exits(program, front):
    out = ended_well(
        program(
            "    import os, signal, sys, threading\n    from contextlib import ExitStack\n"
            + chat_at(front)
            + """
    chat.start_chat(nickname='Jonny')
    chat.send_message('hi').wait(10.0)
    engine, driver, http = chat._engine, chat._driver, chat._engine._http
    held, done = threading.Event(), threading.Event()

    def hold():
        with ExitStack() as locks:
            for lock in (chat._door, engine.keeper._lock, http._jar_lock, driver._mutex,
                         engine.lock, engine.outbox._mutex, engine.keeper._store._lock):
                locks.enter_context(lock)
            held.set()
            done.wait(30.0)

    threading.Thread(target=hold).start()
    held.wait(10.0)
    child = os.fork()
    if not child:
        signal.alarm(10)
        print(chat.close(), chat.state)
        chat.open()
        print(chat.state, chat.send_message('from the child').wait(5.0), chat.close())
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    print(status, chat.send_message('from the parent').wait(10.0), chat.close())
    """
        )
    )
    assert out == "True idle\npolling True True\n0 True True\n"


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_does_not_end_the_chat(program, front, tmp_path):
    process = program(
        chat_at(front)
        + """
    chat.start_chat(nickname='Jonny')
    assert chat.send_message('hi').wait(10.0)
    assert 'could not be saved' in chat.health().store_failure, chat.health()
    print(chat.state)
    chat.close()
    """,
        preexec_fn=limited,
    )
    out, err = process.communicate(timeout=15.0)
    assert (process.returncode, out) == (0, "polling\n")
    assert err.count("could not be saved: File too large") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_does_not_end_the_chat(front, on_front, tmp_path):
    tmp_path.chmod(0o500)
    with on_front(store=FileStore(tmp_path / "session.json")) as chat:
        chat.start_chat(nickname="Jonny")
        assert chat.send_message("hi").wait(10.0)
        assert "Permission denied" in chat.health().store_failure
    tmp_path.chmod(0o700)


def test_importing_reads_no_clock_opens_nothing_and_starts_nothing(program):
    out = ended_well(
        program(
            """
    import socket, threading
    def refuse(*given, **named):
        raise AssertionError('no I/O at import')
    socket.socket.connect = socket.getaddrinfo = refuse
    import webchat_fsm
    print(threading.active_count())
    """
        )
    )
    assert out == "1\n"


def test_the_core_imports_neither_the_server_nor_a_web_framework(program):
    out = ended_well(
        program(
            """
    import sys, webchat_fsm
    print(sorted(name for name in sys.modules if name.split('.')[0] in ('aiohttp', 'rich', 'prompt_toolkit', 'pytest')
          or name.startswith(('webchat_fsm.server', 'webchat_fsm.testing', 'webchat_fsm.diagram', 'webchat_fsm.cli'))))
    """
        )
    )
    assert out == "[]\n"
