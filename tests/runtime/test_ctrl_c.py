"""Ctrl-C strikes at every entry of a function under a command, in foreign modules too, on every transport.

Wherever it came: the command raises it, another thread's `close(2.0)` returns in time, and the chat goes on afterwards.
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

from tests.runtime.tls_relay import TlsRelay
from webchat_fsm import Config, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

LEFT_OUT = {"_acquire_restore", "closed"}
"""Functions at whose entry CPython itself is at a loss: where it takes a lock back while it starts a thread, and where
it finalises a stream, which swallows all exceptions."""

SHARE = 60
"""Strikes of the soak under each command, drawn anew each time: all of them together take an hour."""

TRANSPORTS = ["v2", "v3", "cometd", "websocket"]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""Struck between a socket and what would close it, it is closed by the garbage collector, which Python warns of."""


Entry = tuple[str, str]
"""A function and its caller."""


class Strike:
    """Raises `KeyboardInterrupt` as this thread enters a function from a given caller for the n-th time.

    Without an `at` it counts all entries. The resumption of a generator is left out: a signal strikes inside of it,
    where its `finally` is heeded; an exception of a profile function does not.
    """

    def __init__(self, at: Entry | None = None, number: int = 1):
        self.counts: Counter[Entry] = Counter()
        self.struck = False
        self._at, self._number = at, number

    def __enter__(self):
        sys.setprofile(self._look)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _look(self, frame, event, argument):
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
            self.struck = True
            raise KeyboardInterrupt


class Site:
    """The embedded server on a port, and the same under TLS."""

    def __init__(self, ca_file: str, tls):
        self._ca = ca_file
        self.front = HttpFront(ChatServer(ServerOptions(connect_timeout=20.0))).start()
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
    """Collect the sockets of struck requests here, or Python would warn of them in whatever test collects next."""
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


DEEDS: dict[str, Callable[[WebChatService], object]] = {
    "send": lambda chat: chat.send_message("hi"),
    "end": lambda chat: chat.end_chat(),
    "start": start,
    "stop": lambda chat: chat.close(),
}


def strike_at(config, deed, at: Entry, number: int) -> bool:
    """Strike once, and see that all is well; whether it struck, which it may not where two threads share the work."""
    chat = WebChatService(config)
    chat.open()
    chat.start_chat(nickname="Jonny")
    raised: list[BaseException] = []
    strike = Strike(at, number)
    before, sys.unraisablehook = sys.unraisablehook, lambda told: raised.append(told.exc_value)  # in a destructor
    try:
        with strike:
            deed(chat)
    except BaseException as error:
        raised.append(error)
    finally:
        sys.setprofile(None)
        sys.unraisablehook = before
    try:
        assert [type(error) for error in raised] == [KeyboardInterrupt] * strike.struck, raised
        closed_in_time(chat)
        if strike.struck:
            chat.open()
            if not chat.state.has_session:
                chat.start_chat(nickname="Jonny")
            assert chat.send_message("again").wait(5.0)
            closed_in_time(chat)
    except BaseException as error:
        error.add_note(f"entry {number} of {at}")
        raise
    return strike.struck


def closed_in_time(chat) -> None:
    """Close the chat in another thread, within the time that it is given."""
    took: list[float] = []

    def close():
        began = time.monotonic()
        chat.close(2.0)
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(10.0)
    assert took, "close() has not returned"
    assert took[0] < 3.0


def entries(config, deed) -> Counter[Entry]:
    """How often a deed enters which function from which caller, about."""
    strike = Strike()
    chat = WebChatService(config)
    chat.open()
    chat.start_chat(nickname="Jonny")
    with strike:
        deed(chat)
    chat.close()
    return strike.counts


@pytest.fixture(autouse=True)
def only_what_ctrl_c_breaks(laws):
    """Leave out the laws of event order: of a step that was interrupted in its middle, events may be missing."""
    yield
    for watcher in laws.values():
        watcher.broken.clear()


@pytest.fixture(autouse=True)
def logged(caplog):
    """A handler with a lock, and all the lines there are."""
    caplog.set_level(logging.DEBUG)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_under_a_send_leaves_close_and_the_chat_alive(site, transport):
    if transport == "websocket" and importlib.util.find_spec("websockets") is None:
        pytest.skip("needs websockets")
    config = site.config(transport, secure=transport in ("v2", "websocket"))
    counts = entries(config, DEEDS["send"])
    assert len(counts) > 100
    for at in sorted(counts)[len(counts) // 8 :: len(counts) // 4]:
        assert strike_at(config, DEEDS["send"], at, 1)


FIRST_CHAT = """
import sys
from webchat_fsm import WebChatService
chat = WebChatService({"dataURL": sys.argv[1], "xhrFields": {"withCredentials": True}})
before = set(sys.modules)
chat.open()
chat.start_chat(nickname="Jonny")
assert chat.send_message("hi").wait(10.0)
chat.end_chat()
chat.close()
print(sorted(set(sys.modules) - before))
"""


def test_a_first_chat_imports_nothing_under_a_python_lock(site):
    command = [sys.executable, "-c", FIRST_CHAT, site.front.data_url()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_at_every_entry_leaves_close_and_the_chat_alive(site, transport, secure, deed):
    """At `SHARE` functions and callers, each at any of its entries; at all entries with WEBCHAT_EVERY_ENTRY."""
    config = site.config(transport, secure=secure)
    counts = entries(config, DEEDS[deed])
    if "WEBCHAT_EVERY_ENTRY" in os.environ:
        where = [(at, number) for at, count in counts.items() for number in range(1, count + 1)]
    else:
        where = [(at, random.randint(1, counts[at])) for at in random.sample(sorted(counts), SHARE)]
    assert sum(strike_at(config, DEEDS[deed], at, number) for at, number in where) > SHARE // 2
