"""Test that each transition is one log line, and that no line, exception or repr shows a secret."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from tests.limits import LONG
from webchat_fsm import CommandRejected, MemoryStore, WebChatService
from webchat_fsm._core.operations import Send
from webchat_fsm._core.steps import Call
from webchat_fsm._runtime import locks
from webchat_fsm._runtime.failures import Defects
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

APIKEY, HEADER, CARD = "aPiKeY-sEcReT", "hEaDeR-sEcReT", "4111-1111-1111-1111"


def transitions(caplog) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "webchat_fsm" and record.levelno == logging.DEBUG and " -> " in record.getMessage()
    ]


def test_each_transition_is_one_debug_line(wire, service, by_hand, debug_log):
    with service(wire(), driver=by_hand) as chat:
        assert len(transitions(debug_log)) == 1
        chat.start_chat(nickname="Jonny")
        chat.stop_poll()
        chat.end_chat()
    lines = [line.partition(": ")[2] for line in transitions(debug_log)]
    moves = [line for line in lines if len(set(line.split(" -> "))) == 2]
    assert moves == ["idle -> starting", "starting -> polling", "polling -> active", "active -> ended"]


def test_undisturbed_chat_logs_nothing_above_debug(wire, service, by_hand, debug_log):
    with service(wire(), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        by_hand.wait(10.0)
        chat.end_chat()
    above_debug = [record for record in debug_log.records if record.levelno > logging.DEBUG]
    assert above_debug == []


@pytest.fixture
def guarded():
    """Run an embedded server that requires an API key."""
    with HttpFront(ChatServer(ServerOptions(apikey=APIKEY))) as running:
        yield running


def run_chat(front, chat) -> None:
    chat.subscribe("messageReceived", lambda event: logging.getLogger("application").info("%r", event))
    chat.subscribe("started", lambda event: logging.getLogger("application").info("%r %s", event, event))
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("hello").wait(LONG)
    chat.send_filtered_message(f"my card is {CARD}", re.compile(r"\d{4}-\d{4}-\d{4}-\d{4}"))
    ann = front.server.agent("Ann").join()
    ann.say(f"you said {CARD}")
    ann.say("bye")
    chat.wait_for("messageReceived", LONG, where=lambda event: event.data.messages[-1].text == "bye")
    front.server.faults.add(operation="refresh", drop=True, times=2)
    front.server.faults.add(operation="refresh", tear=True)
    front.server.faults.add(operation="refresh", http_status=500)
    front.server.faults.add(operation="refresh", body=b"<html>")
    chat.wait_for("connectionRestored", LONG)
    with pytest.raises(CommandRejected) as caught:
        chat.download_file("no-such-file")
    logging.getLogger("application").error("failed", exc_info=caught.value)
    logging.getLogger("application").info("%r %r %r", chat, chat.config, chat.get_session_data())


def test_debug_log_of_a_chat_shows_no_secret(guarded, debug_log):
    store = MemoryStore()
    config = {
        "webchat": {
            "dataURL": guarded.data_url(),
            "apikey": APIKEY,
            "enableCustomHeader": True,
            "pollRate": 100,
            "pollRateMin": 100,
            "pollRateMax": 100,
        },
        "main": {"header": {"Authorization": HEADER}},
    }
    chat = WebChatService(config, store=store)
    try:
        run_chat(guarded, chat)
        secure_key = chat.get_session_data().secure_key
        assert len(secure_key) > 8
        chat.close()
        later = WebChatService(config, store=store)
        later.open()
        assert later.state == "polling"
        later.end_chat()
        later.close()
    finally:
        chat.close()
    logged = debug_log.text
    assert "start confirmed" in logged
    for secret in (secure_key, APIKEY, HEADER, CARD):
        assert secret not in logged


def test_rejection_and_its_causes_show_no_secret(wire, service, by_hand, peer, replies, debug_log):
    server = peer(replies.repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"secureKey":"sEcReT-kEy"'))
    chat = WebChatService({"dataURL": server.url, "apikey": APIKEY, "ajaxTimeout": 300})
    with chat, pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    logging.getLogger("application").error("failed", exc_info=caught.value)
    assert "sEcReT" not in debug_log.text
    assert "sEcReT" not in f"{caught.value!r}{caught.value.response!r}"


def test_reprs_of_requests_and_answers_hide_secrets(wire, service, by_hand):
    transport = wire()
    with service(transport, driver=by_hand, config={"apikey": APIKEY}) as chat:
        chat.start_chat(nickname="Jonny")
        chat.send_filtered_message(f"my card is {CARD}", re.compile(r"\d{4}-\d{4}-\d{4}-\d{4}"))
        by_hand.run_due()
        call = Call(operation=Send(message=CARD), session_data=chat.get_session_data())
        answer = transport.send(transport.requests[0])
        shown = f"{transport.requests!r}{answer!r}{call!r}{call.operation!r}{chat!r}{chat.health()!r}"
    for secret in ("sEcReT-kEy", APIKEY, CARD):
        assert secret not in shown


def test_library_adds_no_log_handler():
    ours = logging.getLogger("webchat_fsm").handlers
    assert [one for one in ours if type(one) is not logging.NullHandler] == []


class QueryingHandler(logging.Handler):
    """Query the chat for each record, as a handler does that adds its state to each line."""

    def __init__(self, chat) -> None:
        super().__init__(logging.DEBUG)
        self.chat, self.lines = chat, []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), self.chat.can("endChat"), self.chat.health().failures))


def test_no_record_is_logged_while_a_lock_is_held(wire, service, in_threads, no_answer):
    store = MemoryStore()
    with service(wire(), store=store, config={"dataURL": "http://other.test/chat"}) as elsewhere:
        elsewhere.start_chat(nickname="Jonny")
    chat = service(wire(updateData=no_answer), store=store)
    querying = QueryingHandler(chat)
    root = logging.getLogger()
    before = root.level
    root.addHandler(querying)
    root.setLevel(logging.DEBUG)
    try:

        def run_commands():
            chat.open()
            chat.start_chat(nickname="Jonny")
            chat.command("updateUserData", {"a": "b"})
            chat.end_chat()
            chat.close()

        in_threads(run_commands, join=True)
    finally:
        root.removeHandler(querying)
        root.setLevel(before)
    assert any("another transport or chat server" in text for text, *_ in querying.lines)
    assert len(querying.lines) > 5


def test_log_of_other_state_machines_is_unchanged(caplog):
    from transitions import Machine

    caplog.set_level(logging.DEBUG)
    Machine(states=["a", "b"], initial="a", name="theirs").to_b()
    assert "theirs: Initiating transition" in caplog.text


class BlockedHandler(logging.Handler):
    """Hold the lock of the handler until the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.over = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.over.wait(LONG)


def test_close_does_not_wait_for_a_blocked_log_handler(wire, service, in_threads, stopwatch, caplog):
    chat = service(wire())
    chat.open()
    chat.start_chat(nickname="Jonny")
    blocked = BlockedHandler()
    root = logging.getLogger()
    before = root.level
    root.addHandler(blocked)
    root.setLevel(logging.DEBUG)
    try:
        in_threads(lambda: logging.getLogger("elsewhere").error("blocked"))
        assert blocked.reached.wait(LONG)
        stopwatch.restart()
        chat.close(1.0)
        assert stopwatch.soon
        assert "close" not in [record.args[0] for record in caplog.records if record.args]
    finally:
        blocked.over.set()
        root.removeHandler(blocked)
        root.setLevel(before)


@pytest.mark.parametrize("times", [1, 2])
def test_logging_locks_left_by_an_interruption_are_released(in_threads, times):
    handler = logging.NullHandler()
    handler.createLock()  # a NullHandler makes none of its own
    handler.lock = threading.RLock()
    for _ in range(times):
        handler.acquire()
    locks.release_logging()
    free = []
    in_threads(lambda: free.append(handler.lock.acquire(timeout=LONG)), join=True)
    assert free == [True]


class ReleasingHandler(logging.Handler):
    """Call `release_logging` while a record is emitted."""

    def __init__(self, in_threads) -> None:
        super().__init__()
        self._in_threads, self.free = in_threads, []

    def emit(self, record: logging.LogRecord) -> None:
        locks.release_logging()
        self._in_threads(lambda: self.free.append(self.lock.acquire(blocking=False)), join=True)


def test_lock_of_a_running_log_handler_is_not_released(in_threads):
    releasing = ReleasingHandler(in_threads)
    logger = logging.getLogger("alone")
    logger.propagate = False
    logger.addHandler(releasing)
    logger.error("x")
    logger.removeHandler(releasing)
    assert releasing.free == [False]


class EmptiedMeanwhile(list):
    """A queue that another thread has emptied since it was looked at."""

    def __bool__(self):
        return True


def test_defect_that_another_thread_logs_first_is_left_out(caplog):
    defects = Defects()
    defects.unlogged = EmptiedMeanwhile()
    defects.note(ValueError("once"))
    defects.report()
    assert caplog.text.count("ValueError: once") == 1
