"""One line for each transition, and no secret in any line, exception or repr."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from webchat_fsm import CommandRejected, MemoryStore, WebChatService
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.runtime import log_locks
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
    told = [line.partition(": ")[2] for line in transitions(debug_log)]
    moves = [line for line in told if len(set(line.split(" -> "))) == 2]
    assert moves == ["idle -> starting", "starting -> polling", "polling -> active", "active -> ended"]


def test_a_quiet_chat_says_nothing_above_debug(wire, service, by_hand, debug_log):
    with service(wire(), driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        by_hand.wait(10.0)
        chat.end_chat()
    loud = [record for record in debug_log.records if record.levelno > logging.DEBUG]
    assert loud == []


@pytest.fixture
def guarded():
    """An embedded server that asks for an API key."""
    with HttpFront(ChatServer(ServerOptions(apikey=APIKEY))) as running:
        yield running


def whole_chat(front, chat) -> None:
    chat.subscribe("messageReceived", lambda event: logging.getLogger("application").info("%r", event))
    chat.subscribe("started", lambda event: logging.getLogger("application").info("%r %s", event, event))
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("hello").wait(5.0)
    chat.send_filtered_message(f"my card is {CARD}", re.compile(r"\d{4}-\d{4}-\d{4}-\d{4}"))
    ann = front.server.agent("Ann").join()
    ann.say(f"you said {CARD}")
    ann.say("bye")
    chat.wait_for("messageReceived", 5.0, where=lambda event: event.data.messages[-1].text == "bye")
    front.server.faults.add(operation="refresh", drop=True, times=2)
    front.server.faults.add(operation="refresh", tear=True)
    front.server.faults.add(operation="refresh", http_status=500)
    front.server.faults.add(operation="refresh", body=b"<html>")
    chat.wait_for("connectionRestored", 5.0)
    with pytest.raises(CommandRejected) as caught:
        chat.download_file("no-such-file")
    logging.getLogger("application").error("failed", exc_info=caught.value)
    logging.getLogger("application").info("%r %r %r", chat, chat.config, chat.get_session_data())


def test_a_whole_chat_at_debug_shows_no_secret(guarded, debug_log):
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
        whole_chat(guarded, chat)
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


def test_a_rejection_shows_no_secret_down_to_its_last_cause(wire, service, by_hand, peer, says, debug_log):
    server = peer(says.for_ever(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"secureKey":"sEcReT-kEy"'))
    chat = WebChatService({"dataURL": server.url, "apikey": APIKEY, "ajaxTimeout": 300})
    with chat, pytest.raises(CommandRejected) as caught:
        chat.start_chat(nickname="Jonny")
    logging.getLogger("application").error("failed", exc_info=caught.value)
    assert "sEcReT" not in debug_log.text
    assert "sEcReT" not in f"{caught.value!r}{caught.value.response!r}"


def test_what_travels_hides_its_secrets_in_its_repr(wire, service, by_hand):
    transport = wire()
    with service(transport, driver=by_hand, config={"apikey": APIKEY}) as chat:
        chat.start_chat(nickname="Jonny")
        chat.send_filtered_message(f"my card is {CARD}", re.compile(r"\d{4}-\d{4}-\d{4}-\d{4}"))
        by_hand.run_due()
        call = Call(operation="send", fields={"message": CARD}, session_data=chat.get_session_data())
        shown = f"{transport.requests!r}{transport.send(transport.requests[0])!r}{call!r}{chat!r}{chat.health()!r}"
    for secret in ("sEcReT-kEy", APIKEY, CARD):
        assert secret not in shown


def test_no_handler_of_ours_is_put_on_anybodys_logger():
    ours = logging.getLogger("webchat_fsm").handlers
    assert [one for one in ours if type(one) is not logging.NullHandler] == []


class Asking(logging.Handler):
    """A handler of log lines that asks the chat, as one that adds its state to each line would."""

    def __init__(self, chat) -> None:
        super().__init__(logging.DEBUG)
        self.chat, self.told = chat, []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.getMessage(), self.chat.can("endChat"), self.chat.health().failures))


def test_no_line_is_logged_under_a_lock(wire, service, in_threads, no_answer):
    store = MemoryStore()
    with service(wire(), store=store, config={"dataURL": "http://other.test/chat"}) as elsewhere:
        elsewhere.start_chat(nickname="Jonny")
    chat = service(wire(updateData=no_answer), store=store)
    asking = Asking(chat)
    root = logging.getLogger()
    before = root.level
    root.addHandler(asking)
    root.setLevel(logging.DEBUG)
    try:

        def talk():
            chat.open()
            chat.start_chat(nickname="Jonny")
            chat.command("updateUserData", {"a": "b"})
            chat.end_chat()
            chat.close()

        in_threads(talk, join=True)
    finally:
        root.removeHandler(asking)
        root.setLevel(before)
    assert any("another transport or chat server" in text for text, *_ in asking.told)
    assert len(asking.told) > 5


def test_the_lines_of_other_machines_are_left_alone(caplog):
    from transitions import Machine

    caplog.set_level(logging.DEBUG)
    Machine(states=["a", "b"], initial="a", name="theirs").to_b()
    assert "theirs: Initiating transition" in caplog.text


class Stuck(logging.Handler):
    """Holds its own lock for as long as the test lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.over = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.over.wait(20.0)


def test_close_does_not_wait_for_a_thread_that_logs(wire, service, in_threads, stopwatch, caplog):
    chat = service(wire())
    chat.open()
    chat.start_chat(nickname="Jonny")
    stuck = Stuck()
    root = logging.getLogger()
    before = root.level
    root.addHandler(stuck)
    root.setLevel(logging.DEBUG)
    try:
        in_threads(lambda: logging.getLogger("elsewhere").error("stuck"))
        assert stuck.reached.wait(10.0)
        stopwatch.restart()
        chat.close(1.0)
        assert stopwatch.seconds < 4.0
        assert "close" not in [record.args[0] for record in caplog.records if record.args]
    finally:
        stuck.over.set()
        root.removeHandler(stuck)
        root.setLevel(before)


@pytest.mark.parametrize("times", [1, 2])
def test_logging_locks_left_by_an_interruption_are_released(in_threads, times):
    handler = logging.NullHandler()
    handler.createLock()  # which a NullHandler has none of
    handler.lock = threading.RLock()
    for _ in range(times):
        handler.acquire()
    log_locks.give_back()
    free = []
    in_threads(lambda: free.append(handler.lock.acquire(timeout=5.0)), join=True)
    assert free == [True]


class Asked(logging.Handler):
    """Gives back what is left in the middle of its own work."""

    def __init__(self, in_threads) -> None:
        super().__init__()
        self._in_threads, self.free = in_threads, []

    def emit(self, record: logging.LogRecord) -> None:
        log_locks.give_back()
        self._in_threads(lambda: self.free.append(self.lock.acquire(blocking=False)), join=True)


def test_inside_a_logging_handler_its_lock_is_not_released(in_threads):
    asked = Asked(in_threads)
    logger = logging.getLogger("alone")
    logger.propagate = False
    logger.addHandler(asked)
    logger.error("x")
    logger.removeHandler(asked)
    assert asked.free == [False]
