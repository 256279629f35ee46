"""Test in separate processes: kill, exit, fork, and a session that another process restores."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from tests.limits import LONG
from webchat_fsm import FileStore

FAST = "'pollRate': 100, 'pollRateMin': 100, 'pollRateMax': 100"


@pytest.fixture
def program(tmp_path):
    """Start programs of the given lines, which are killed at the end of the test if they still run."""
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
        process.communicate(timeout=LONG)


def checked_output(process: subprocess.Popen[str], seconds: float = LONG) -> str:
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


def test_session_of_a_killed_process_is_restored_by_another(program, front, tmp_path, eventually):
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
    assert first.wait(LONG) == -signal.SIGKILL
    assert FileStore(tmp_path / "session.json").load().nickname == "Jonny"
    ann.say("between the two processes")
    second = program(
        chat_at(front)
        + """
    event = chat.wait_for('messageReceived', 60.0)
    assert event.data.restoring
    texts = [one.text for one in event.data.messages if one.type == 'Message']
    assert texts == ['before', 'hello', 'between the two processes'], texts
    assert all(one.restoring for one in event.data.messages)
    indexes = [one.index for one in chat.get_transcript().messages]
    assert len(indexes) == len(set(indexes))
    print(chat.state, [agent.name for agent in chat.get_agents().values()])
    chat.send_message('after').wait(60.0)
    later = [one.text for one in chat.get_transcript().messages if one.type == 'Message']
    assert later == [*texts, 'after'], later
    chat.close()
    """
    )
    assert checked_output(second) == "polling ['Ann']\n"
    assert len(front.server.chats) == 1


IDLE = """
    from webchat_fsm import FileStore, ManualClock, ManualDriver, MemoryStore, WebChatService
    config = {{'dataURL': {url!r}, 'dynamicPolling': False, 'pollRate': 1000}}
    store = FileStore('session.json')
    driver = ManualDriver(ManualClock({now!r}))
    chat = WebChatService(config, store=store, driver=driver)
    chat.open()
"""


def test_restore_after_a_kill_has_five_seconds_of_grace(program, front, tmp_path):
    """Kill a process whose last four polls were not saved, and restore by another with its time moved on."""
    now = 1_750_000_000.0
    first = program(
        IDLE.format(url=front.data_url(), now=now)
        + """
    chat.start_chat(nickname='Jonny')
    driver.wait(34.5)
    print(driver.clock.now - chat.health().last_poll, flush=True)
    input()
    """,
        stdin=subprocess.PIPE,
    )
    last = float(first.stdout.readline())
    first.send_signal(signal.SIGKILL)
    assert first.wait(LONG) == -signal.SIGKILL
    saved = FileStore(tmp_path / "session.json").load().last_contact
    assert now < saved < last < saved + 5
    shutil.copy(tmp_path / "session.json", tmp_path / "killed.json")
    second = program(
        IDLE.format(url=front.data_url(), now=saved + 60.0)
        + f"""
    states = [str(chat.state)]
    chat.close()
    for away in (64.9, 65.1):
        store = MemoryStore()
        store.save(FileStore('killed.json').load())
        driver = ManualDriver(ManualClock({saved!r} + away))
        chat = WebChatService(config, store=store, driver=driver)
        chat.open()
        states.append(str(chat.state))
        chat.close()
    print(*states)
    """
    )
    assert checked_output(second) == "polling polling idle\n"


def test_program_without_close_exits_promptly_and_restores(program, front, tmp_path):
    checked_output(program(chat_at(front) + "    chat.start_chat(nickname='Jonny')\n"))
    out = checked_output(program(chat_at(front) + "    print(chat.state)\n"))
    assert out == "polling\n"


def test_program_with_a_pending_request_exits_promptly(program, peer, replies, wire):
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def script(server, connection):
        server.read(connection)
        connection.sendall(replies.whole(good))
        replies.silent(server, connection)

    server = peer(script)
    checked_output(
        program(
            f"""
    import threading
    from webchat_fsm import WebChatService
    chat = WebChatService({{'dataURL': {server.url!r}, 'ajaxTimeout': 600_000}})
    chat.open()
    chat.start_chat(nickname='Jonny')
    while chat.health().poll_in_flight is None:
        threading.Event().wait(0.01)
    """
        )
    )


def test_close_in_an_atexit_handler_ends_all_threads(program, front):
    out = checked_output(
        program(
            "    import atexit\n"
            + chat_at(front)
            + """
    atexit.register(lambda: print(chat.close(30.0), chat.health().threads))
    chat.start_chat(nickname='Jonny')
    """
        )
    )
    assert out == "True ()\n"


def test_ctrl_c_in_a_wait_closes_and_keeps_the_session(program, front, eventually):
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
    assert checked_output(process) == "interrupted idle ()\n"
    assert checked_output(program(chat_at(front) + "    print(chat.state)\n")) == "polling\n"


def test_forked_child_neither_hangs_nor_disturbs_its_parent(program, front):
    out = checked_output(
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
    print(status, receipt.wait(60.0), chat.close(30.0))
    """
        )
    )
    assert out == "0 True True\n"


def holding(part, replies, wire):
    """Return a script that answers a request with this part only once the gate is set, and the gate."""
    good, gate = wire().send(type("R", (), {"operation": "start"})()).body, threading.Event()

    def script(server, connection):
        while request := server.read(connection):
            if part in request:
                gate.wait(LONG)
            connection.sendall(replies.whole(good))

    return script, gate


def test_close_in_a_forked_child_keeps_the_parents_requests(program, peer, replies, wire, eventually):
    script, gate = holding(b"message=held", replies, wire)
    server = peer(script)
    parent = program(
        f"""
    import os, sys, threading
    from webchat_fsm import WebChatService
    chat = WebChatService({{'dataURL': {server.url!r}, 'ajaxTimeout': 600_000}})
    chat.open()
    chat.start_chat(nickname='Jonny')
    sending = threading.Thread(target=lambda: print(chat.send_message('held').status))
    sending.start()
    sys.stdin.readline()
    child = os.fork()
    if not child:
        print(chat.close(30.0), chat.state, chat.command('sendMessage', {{'message': 'hi'}}).reason, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print('the child has ended', flush=True)
    sending.join()
    print(chat.state, chat.close(30.0))
    """,
        stdin=subprocess.PIPE,
    )
    eventually(lambda: any(b"message=held" in request for request in server.seen) or parent.poll() is not None)
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "True idle WebChatService is not ready\n"
    assert parent.stdout.readline() == "the child has ended\n"
    gate.set()
    assert checked_output(parent) == "sent\npolling True\n"


@pytest.mark.parametrize("websocket", [pytest.param(False, marks=pytest.mark.soak), True])
def test_forked_child_exit_keeps_a_pushed_chat_connected(program, front, websocket):
    out = checked_output(
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
    assert chat.send_message('before').wait(60.0)
    child = os.fork()
    if not child:
        chat.close()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(status, chat.send_message('after').wait(60.0), troubles, chat.close(30.0))
    """
        )
    )
    assert out == "0 True [] True\n"


def test_forked_child_works_with_all_locks_held_at_fork(program, front):
    out = checked_output(
        program(
            "    import os, signal, sys, threading\n    from contextlib import ExitStack\n"
            + chat_at(front).replace(
                FAST, f"{FAST}, 'xhrFields': {{'withCredentials': True}}"
            )  # for the lock of cookies
            + """
    chat.start_chat(nickname='Jonny')
    chat.send_message('hi').wait(60.0)
    engine, driver, http = chat._engine, chat._engine.driver, chat._engine._http
    held, done = threading.Event(), threading.Event()

    def hold():
        with ExitStack() as locks:
            for lock in (engine._opening, engine.store_writer._lock, engine.subscribers._lock, engine.receipts._lock,
                         engine.recorder._writing, engine.requests.misreadings._lock,
                         http.cookies._lock, driver._mutex,
                         engine.lock, engine.event_queue._mutex, engine.store_writer._store._lock):
                locks.enter_context(lock)
            held.set()
            done.wait(60.0)

    threading.Thread(target=hold).start()
    held.wait(60.0)
    child = os.fork()
    if not child:
        signal.alarm(60)
        print(chat.close(30.0), chat.state)
        chat.open()
        print(chat.state, chat.send_message('from the child').wait(60.0), chat.close(30.0))
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    print(status, chat.send_message('from the parent').wait(60.0), chat.close(30.0))
    """
        )
    )
    assert out == "True idle\npolling True True\n0 True True\n"


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_full_disk_does_not_end_the_chat(program, front, tmp_path):
    process = program(
        chat_at(front)
        + """
    chat.start_chat(nickname='Jonny')
    assert chat.send_message('hi').wait(60.0)
    assert 'could not be saved' in chat.health().store_failure, chat.health()
    print(chat.state)
    chat.close()
    """,
        preexec_fn=limited,
    )
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out) == (0, "polling\n")
    assert err.count("could not be saved: File too large") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_folder_does_not_end_the_chat(front, on_front, tmp_path):
    tmp_path.chmod(0o500)
    with on_front(store=FileStore(tmp_path / "session.json")) as chat:
        chat.start_chat(nickname="Jonny")
        assert chat.send_message("hi").wait(LONG)
        assert "Permission denied" in chat.health().store_failure
    tmp_path.chmod(0o700)


def test_import_has_no_io_and_starts_no_thread(program):
    out = checked_output(
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


def test_core_imports_no_server_and_no_framework(program):
    out = checked_output(
        program(
            """
    import sys, webchat_fsm
    print(sorted(name for name in sys.modules if name.split('.')[0] in ('aiohttp', 'rich', 'prompt_toolkit', 'pytest')
          or name.startswith(('webchat_fsm.server', 'webchat_fsm.testing', 'webchat_fsm.diagram', 'webchat_fsm._cli'))))
    """
        )
    )
    assert out == "[]\n"


# -- requests that are parked ------------------------------------------------------------------------------------------

PARKED = {
    "v2": "{{'dataURL': {held!r}, 'ajaxTimeout': 600_000, 'pollRate': 100, 'pollRateMin': 100}}",
    "cometd": "{{'cometD': {{'enabled': True, 'cometURL': {comet!r}, 'apiURL': {files!r}}}}}",
    "websocket": "{{'cometD': {{'enabled': True, 'cometURL': {comet!r}, 'apiURL': {files!r},"
    " 'websocketEnabled': True}}}}",
}

PARK = """
    import gc, os, pathlib, sys, threading, time
    from webchat_fsm import ThreadDriver, WebChatService
    driver = ThreadDriver()
    chat = WebChatService(CONFIG, driver=driver)
    chat.open()
    chat.start_chat(nickname='Jonny')
    while not driver._parked:
        time.sleep(0.01)
"""


each_parked = pytest.mark.parametrize("transport", ["v2", pytest.param("cometd", marks=pytest.mark.soak), "websocket"])


@pytest.fixture
def parked(front, peer, replies, wire):
    """Return the beginning of a program with a parked poll or connect, by transport; `answer` answers the poll."""
    script, gate = holding(b"/refresh", replies, wire)
    held = peer(script).url

    class Beginning:
        answer = staticmethod(gate.set)

        def __call__(self, transport: str) -> str:
            config = PARKED[transport].format(held=held, comet=front.comet_url, files=front.comet_files_url)
            return PARK.replace("CONFIG", config)

    yield Beginning()
    gate.set()


@each_parked
def test_program_with_a_parked_request_exits_silently(program, parked, transport):
    assert checked_output(program(parked(transport))) == ""


@each_parked
def test_parked_request_dropped_by_the_collector_takes_no_lock(program, parked, transport):
    """Collect a service, its driver and a parked request, while another thread holds every lock of them."""
    out = checked_output(
        program(
            parked(transport)
            + """
    import warnings, weakref
    warnings.simplefilter('ignore', ResourceWarning)
    assert driver.close(30.0)
    engine, gone = chat._engine, weakref.ref(chat)
    locks = [engine.lock, engine._opening, driver._mutex, engine.event_queue._mutex]
    socket = getattr(engine._http, '_socket', None)
    locks += [socket._mutex, engine._http._opening] if socket is not None else []
    held, over = threading.Event(), threading.Event()
    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        over.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    del chat, driver, engine, socket
    gc.collect()
    print(gone())
    over.set()
    thread.join()
    """
        )
    )
    assert out == "None\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs /proc and epoll")
@each_parked
def test_forked_child_uses_no_socket_of_parked_requests(program, parked, transport):
    """Fork with a parked request, and let the child open a service on the same driver and close it."""
    process = program(
        parked(transport)
        + """
    def watched():
        selector = driver._parked._selector._selector.fileno()
        lines = pathlib.Path(f'/proc/self/fdinfo/{selector}').read_text().splitlines()
        return sorted(line for line in lines if line.startswith('tfd'))
    def sockets():
        names = []
        for name in os.listdir('/proc/self/fd'):
            try:
                names.append(os.readlink(f'/proc/self/fd/{name}'))
            except OSError:
                pass
        return [name for name in names if name.startswith('socket') or 'eventpoll' in name]
    before, own = watched(), len(sockets())
    child = os.fork()
    if not child:
        gc.collect()
        left = sockets()
        other = WebChatService(CONFIG, driver=driver)
        other.open()
        other.start_chat(nickname='Sue')
        while not driver._parked:
            time.sleep(0.01)
        print(left, other.close(30.0), chat.close(30.0), driver.close(30.0), len(driver._parked), flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1], watched() == before, len(sockets()) == own, flush=True)
    sys.stdin.readline()
    print(chat.send_message('still here').status, chat.health().failures, chat.close(30.0), driver.close(30.0))
    """.replace("CONFIG", parked(transport).partition("WebChatService(")[2].partition(", driver=driver)")[0]),
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "[] True True True 0\n"
    assert process.stdout.readline() == "0 True True\n"
    parked.answer()
    process.stdin.write("\n")
    process.stdin.flush()
    assert checked_output(process) == "sent 0 True True\n"
