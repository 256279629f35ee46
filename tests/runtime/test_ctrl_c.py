"""Interrupt a command by Ctrl-C at the entry of any function, also of other packages, on every transport.

Each time the command raises `KeyboardInterrupt`, `close(2.0)` in another thread returns in time, and the chat works on.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import logging
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import pytest
import trustme

from tests.limits import LONG, SOON
from tests.runtime.tls_relay import TlsRelay
from webchat_fsm import Config, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

LEFT_OUT = {"_acquire_restore", "closed"}
"""Functions at whose entry CPython itself mishandles an exception: where it reacquires a lock while it starts a thread,
and where it finalises a stream, which discards all exceptions."""

SHARE = 60
"""Interrupts per command in the soak test, drawn at random on each run: all entries together take an hour."""

TRANSPORTS = ["v2", "v3", "cometd", "websocket"]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""An interrupt before a new socket is stored leaves it to the garbage collector, and Python warns of that."""


Entry = tuple[str, str]
"""A function and its caller."""


class Interrupter:
    """Raise `KeyboardInterrupt` as this thread enters a function from a given caller for the n-th time.

    Without an `at` it counts all entries. Resuming a generator is left out: a signal arrives inside the generator,
    where its `finally` runs; an exception raised by a profile function does not.
    """

    def __init__(self, at: Entry | None = None, number: int = 1):
        self.counts: Counter[Entry] = Counter()
        self.fired = False
        self._at, self._number = at, number

    def __enter__(self):
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _profile(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or code.co_flags & inspect.CO_GENERATOR or code.co_filename == __file__:
            return
        caller = frame.f_back.f_code
        if LEFT_OUT & {code.co_name, caller.co_name}:
            return
        entry = f"{code.co_filename}:{code.co_qualname}", caller.co_qualname
        self.counts[entry] += 1
        if entry == self._at and self.counts[entry] == self._number:
            sys.setprofile(None)
            self.fired = True
            raise KeyboardInterrupt


class Site:
    """Run the embedded server on a port, and a TLS relay in front of it on another."""

    def __init__(self, ca_file: str, tls):
        self._ca = ca_file
        self.front = HttpFront(ChatServer(ServerOptions(connect_timeout=LONG))).start()
        self._plain = urlsplit(self.front.sessions_url)
        self.relay = TlsRelay(self._plain.port, tls)

    def config(self, transport: str, *, secure: bool) -> Config:
        read = Config.read(self._config(transport, secure=secure))
        return msgspec.structs.replace(read, poll_rate=20.0, poll_rate_min=20.0, poll_rate_max=20.0)

    def _config(self, transport: str, *, secure: bool) -> dict[str, object]:
        front = self.front

        def at(url: str) -> str:
            there = f"https://127.0.0.1:{self.relay.port}"
            return url.replace(f"http://{self._plain.netloc}", there) if secure else url

        common = {"client": {"tls": {"ca": self._ca}}, "ajaxTimeout": 5000}
        if transport == "v2":
            return {"dataURL": at(front.data_url()), **common}
        if transport == "v3":
            section = {"type": "pureengage-v3-rest", "dataURL": at(front.sessions_url), "endpoint": "e"}
            return {"transport": {**section, "headers": {"x-api-key": "k"}, "pollTimeout": 100}, **common}
        section = {"enabled": True, "cometURL": at(front.comet_url), "apiURL": at(front.comet_files_url)}
        return {"cometD": {**section, "websocketEnabled": transport == "websocket"}, **common}

    def close(self) -> None:
        self.relay.close()
        self.front.stop()


@pytest.fixture(autouse=True)
def _garbage():
    """Collect the sockets of interrupted requests here: else Python warns of them during a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    import ssl

    authority = trustme.CA()
    file = str(tmp_path_factory.mktemp("tls") / "ca.pem")
    authority.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return file, context


@pytest.fixture
def site(tls):
    made = Site(*tls)
    yield made
    made.close()


def start(chat):
    chat.end_chat()
    chat.start_chat(nickname="Jonny")


ACTIONS: dict[str, Callable[[WebChatService], object]] = {
    "send": lambda chat: chat.send_message("hi"),
    "end": lambda chat: chat.end_chat(),
    "start": start,
    "stop": lambda chat: chat.close(),
}


def interrupt_at(config, action, at: Entry, number: int) -> bool:
    """Interrupt once and check the chat; return whether the interrupt fired, as two threads may share the work."""
    chat = WebChatService(config)
    chat.open()
    chat.start_chat(nickname="Jonny")
    raised: list[BaseException] = []
    interrupter = Interrupter(at, number)
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: raised.append(unraisable.exc_value)  # raised in a destructor
    try:
        with interrupter:
            action(chat)
    except BaseException as error:
        raised.append(error)
    finally:
        sys.setprofile(None)
        sys.unraisablehook = before
    try:
        assert [type(error) for error in raised] == [KeyboardInterrupt] * interrupter.fired, raised
        closed_in_time(chat)
        if interrupter.fired:
            chat.open()
            if not chat.state.has_session:
                chat.start_chat(nickname="Jonny")
            assert chat.send_message("again").wait(LONG)
            closed_in_time(chat)
    except BaseException as error:
        error.add_note(f"entry {number} of {at}")
        raise
    return interrupter.fired


def closed_in_time(chat) -> None:
    """Close the chat in another thread, and check that it does not wait for what was interrupted."""
    took: list[float] = []

    def close():
        began = time.monotonic()
        chat.close(LONG)
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(LONG)
    assert took, "close() has not returned"
    assert took[0] < SOON


def entries(config, action) -> Counter[Entry]:
    """Count how often an action enters each function from each caller; counts differ a little between runs."""
    interrupter = Interrupter()
    chat = WebChatService(config)
    chat.open()
    chat.start_chat(nickname="Jonny")
    with interrupter:
        action(chat)
    chat.close()
    return interrupter.counts


@pytest.fixture(autouse=True)
def ignore_event_order(laws):
    """Leave out the laws of event order: a step that was interrupted may lack events."""
    yield
    for watcher in laws.values():
        watcher.broken.clear()


@pytest.fixture(autouse=True)
def logged(caplog):
    """Install a log handler, which has a lock, for all records from DEBUG on."""
    caplog.set_level(logging.DEBUG)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_during_a_send_leaves_close_and_chat_working(site, transport):
    if transport == "websocket" and importlib.util.find_spec("websockets") is None:
        pytest.skip("needs websockets")
    config = site.config(transport, secure=transport in ("v2", "websocket"))
    # Whether a send opens a connection or reads its own answer depends on another thread, so only entries that occur in
    # several runs are interrupted, with several attempts each.
    counts = entries(config, ACTIONS["send"]) & entries(config, ACTIONS["send"]) & entries(config, ACTIONS["send"])
    assert len(counts) > 100
    for at in sorted(counts)[len(counts) // 8 :: len(counts) // 4]:
        assert any(interrupt_at(config, ACTIONS["send"], at, 1) for _ in range(10)), at


FIRST_CHAT = """
import sys
from webchat_fsm import WebChatService
chat = WebChatService({"dataURL": sys.argv[1], "xhrFields": {"withCredentials": True}})
before = set(sys.modules)
chat.open()
chat.start_chat(nickname="Jonny")
assert chat.send_message("hi").wait(60.0)
chat.end_chat()
chat.close()
print(sorted(set(sys.modules) - before))
"""


def test_first_chat_imports_no_module(site):
    command = [sys.executable, "-c", FIRST_CHAT, site.front.data_url()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_at_every_entry_leaves_close_and_chat_working(site, transport, secure, action):
    """Interrupt `SHARE` functions and callers at a random entry each; all entries with WEBCHAT_EVERY_ENTRY set."""
    config = site.config(transport, secure=secure)
    counts = entries(config, ACTIONS[action])
    if "WEBCHAT_EVERY_ENTRY" in os.environ:
        where = [(at, number) for at, count in counts.items() for number in range(1, count + 1)]
    else:
        where = [(at, random.randint(1, counts[at])) for at in random.sample(sorted(counts), SHARE)]
    assert sum(interrupt_at(config, ACTIONS[action], at, number) for at, number in where) > SHARE // 2
