"""Test one service used by many threads, interrupted commands, and invalid answers."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.limits import LONG
from webchat_fsm import CommandRejected, MemoryStore, TransportError, WebChatService


def test_of_two_concurrent_starts_exactly_one_resolves(wire, service, in_threads, by_hand):
    rounds = 1000
    meet, reasons, resolved = threading.Barrier(2, timeout=LONG), Counter(), []
    with service(wire(), driver=by_hand) as chat:

        def race():
            for round_ in range(rounds):
                meet.wait()
                outcome = chat.command("startChat", {"nickname": "Jonny"})
                if outcome:
                    resolved.append(round_)
                else:
                    reasons[outcome.reason] += 1
                if meet.wait() == 0:
                    assert chat.command("endChat")

        in_threads(race, race, join=True)
    assert resolved == list(range(rounds))
    assert reasons == {"There is already an active chat session": rounds}


def test_concurrent_ends_send_one_disconnect(wire, service, in_threads, by_hand):
    transport = wire()
    with service(transport, driver=by_hand) as chat:
        chat.start_chat(nickname="Jonny")
        meet, outcomes = threading.Barrier(8), []

        def end():
            meet.wait()
            outcomes.append(bool(chat.command("endChat")))

        in_threads(*[end] * 8, join=True)
    assert outcomes.count(True) == 1
    assert transport.count("disconnect") == 1


def test_messages_of_many_threads_each_arrive_once(on_front, front, in_threads, eventually):
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        texts = {f"{thread}-{number}" for thread in range(8) for number in range(10)}

        def send(thread):
            for number in range(10):
                chat.send_message(f"{thread}-{number}")

        in_threads(*[lambda thread=thread: send(thread) for thread in range(8)], join=True)
        eventually(lambda: sum(one.type == "Message" for one in chat.get_transcript().messages) == 80)
        arrived = [one.text for one in chat.get_transcript().messages if one.type == "Message"]
        assert sorted(arrived) == sorted(texts)
        kept = [event.text for event in front.server.current_chat().transcript if event.text in texts]
        assert sorted(kept) == sorted(texts)


def test_receipts_of_many_threads_are_all_delivered(on_front, in_threads):
    delivered = []
    with on_front() as chat:
        chat.start_chat(nickname="Jonny")
        in_threads(
            *[lambda n=n: delivered.append(chat.send_message(f"message {n}").wait(LONG)) for n in range(12)], join=True
        )
    assert delivered == [True] * 12


def test_two_concurrent_opens_return_after_the_restore(wire, service, in_threads):
    store, asked, gate = MemoryStore(), threading.Event(), threading.Event()
    with service(wire(), store=store) as earlier:
        earlier.start_chat(nickname="Jonny")

    def slow(request):
        asked.set()
        gate.wait(LONG)

    chat = service(wire(restore=slow), store=store)
    states = []

    def open_():
        chat.open()
        states.append(chat.state)

    first, second = in_threads(open_, open_)
    assert asked.wait(LONG)
    first.join(0.1)
    second.join(0.1)
    assert states == []
    gate.set()
    for thread in (first, second):
        thread.join(LONG)
    assert states == ["polling", "polling"]


def test_command_during_a_start_is_rejected_at_once(wire, service, in_threads):
    inside, gate = threading.Event(), threading.Event()

    def slow(request):
        inside.set()
        gate.wait(LONG)

    with service(wire(start=slow)) as chat:
        in_threads(lambda: chat.start_chat(nickname="Jonny"))
        assert inside.wait(LONG)
        assert chat.state == "starting"
        assert chat.command("sendMessage", {"message": "hi"}).reason
        assert chat.command("startChat").reason == "There is already an active chat session"
        gate.set()
        chat.wait_for("started", LONG)


def test_polls_never_overlap(wire, service, eventually):
    inside, overlaps = threading.Lock(), []

    def refresh(request):
        if not inside.acquire(blocking=False):
            overlaps.append(request)
            return
        threading.Event().wait(0.02)
        inside.release()

    transport = wire(refresh=refresh)
    with service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        for _ in range(30):
            chat.stop_poll()
            chat.start_poll()
        eventually(lambda: transport.count("refresh") >= 8)
    assert overlaps == []


# -- interruptions -----------------------------------------------------------------------------------------------------


def interrupted(error):
    def operation(request):
        raise error("now")

    return operation


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interrupted_start_returns_to_idle_and_raises(wire, service, error):
    transport = wire(start=interrupted(error))
    with service(transport) as chat:
        with pytest.raises(error, match="now"):
            chat.start_chat(nickname="Jonny")
        assert chat.state == "idle"
        transport.operations.clear()
        chat.start_chat(nickname="Jonny")
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_restore_leaves_no_thread_running(wire, service, error):
    store = MemoryStore()
    with service(wire(), store=store) as first:
        first.start_chat(nickname="Jonny")
    chat = service(wire(restore=interrupted(error), refresh=interrupted(error)), store=store)
    with pytest.raises(error, match="now"), chat:
        pytest.fail("the block must not be entered")
    assert chat.state == "idle"
    assert chat.health().threads == ()
    with service(wire(), store=store) as again:
        assert again.state == "polling"


def test_interrupted_end_ends_the_chat(wire, service):
    with service(wire(disconnect=interrupted(KeyboardInterrupt))) as chat:
        chat.start_chat(nickname="Jonny")
        with pytest.raises(KeyboardInterrupt):
            chat.end_chat()
        assert chat.state == "ended"


def test_interrupted_send_keeps_the_chat_polling(wire, service, eventually):
    transport = wire(send=interrupted(KeyboardInterrupt))
    with service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        with pytest.raises(KeyboardInterrupt):
            chat.send_message("hi")
        polls = transport.count("refresh")
        eventually(lambda: transport.count("refresh") > polls + 1)
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, RecursionError])
def test_transport_exception_in_a_poll_keeps_polling(wire, service, eventually, error):
    transport = wire(refresh=interrupted(error))
    with service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 3)
        transport.operations.clear()
        polls = transport.count("refresh")
        eventually(lambda: transport.count("refresh") >= polls + 2)
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_raising_preprocessor_keeps_polling(wire, service, v2_message, eventually, error):
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [v2_message(transport.count("refresh"), "hi")]}

    def preprocessor(message):
        raise error("broken")

    with service(transport) as chat:
        chat.register_pre_processor(preprocessor)
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 4)
        assert chat.state == "polling"


class BrokenStore:
    def __init__(self, error):
        self.error = error

    def load(self):
        return None

    def save(self, document):
        raise self.error

    def delete(self):
        raise self.error


@pytest.mark.parametrize("error", [OSError("disk failure"), KeyError("redis")])
def test_store_exception_is_logged_once_and_chat_continues(wire, service, eventually, error, caplog):
    transport = wire()
    with service(transport, store=BrokenStore(error)) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 4)
        assert str(error) in chat.health().store_failure
        chat.end_chat()
        assert chat.state == "ended"
    assert sum(str(error) in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_raising_typing_preview_keeps_polling(wire, service, eventually, error):
    class Box:
        type = "text"
        broken, raised = False, 0

        @property
        def value(self):
            if self.broken:
                self.raised += 1
                raise error("broken")
            return ""

    transport, box = wire(), Box()
    with service(transport) as chat:
        chat.register_typing_preview_input(box)
        chat.start_chat(nickname="Jonny")
        box.broken = True
        eventually(lambda: box.raised >= 3)
        box.broken = False
        polls = transport.count("refresh")
        eventually(lambda: transport.count("refresh") >= polls + 3)
        assert chat.state == "polling"


# -- invalid answers ---------------------------------------------------------------------------------------------------

INVALID_BODIES = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="list"),
    pytest.param(b"[" * 200_000, id="deep nesting"),
    pytest.param(b'{"statusCode":' + b"9" * 5000 + b"}", id="a number without end"),
    pytest.param(b'{"statusCode":1e999}', id="infinity"),
    pytest.param(b'\xff\xfe{"statusCode":0}', id="not UTF-8"),
    pytest.param(b"<html>" * 10_000, id="a proxy's page"),
]


def polled_with(body, replies, wire):
    """Make a script that answers the start and all commands well, and every poll with the body."""
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def script(server, connection):
        while request := server.read(connection):
            polled = b"/refresh" in request.split(b"\r\n")[0]
            connection.sendall(replies.whole(body if polled else good))

    return script


@pytest.mark.parametrize("body", INVALID_BODIES)
def test_invalid_answer_to_a_poll_is_a_failed_poll(peer, replies, http, service, wire, eventually, body):
    """Answer the start well and every poll with the invalid body, over a socket."""
    server = peer(polled_with(body, replies, wire))
    with service(http(server.url), config={"dataURL": server.url, "pollExceptionLimit": 1}) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: chat.state == "offline")
        polls = len(server.seen)
        eventually(lambda: len(server.seen) > polls)
        chat.end_chat()


@pytest.mark.parametrize("body", INVALID_BODIES)
def test_invalid_answer_to_a_command_rejects_it(peer, replies, wire, body):
    server = peer(replies.repeating(replies.whole(body)))
    with WebChatService({"dataURL": server.url}) as chat:
        with pytest.raises(CommandRejected) as caught:
            chat.start_chat(nickname="Jonny")
        assert isinstance(caught.value.__cause__, TransportError | None)
        assert chat.state == "idle"


INVALID_MEMBERS = [
    pytest.param(b'{"statusCode":0,"messages":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, id="deep objects"),
    pytest.param(b'{"statusCode":0,"chatId":"a","secureKey":"b","messages":[null]}', id="null message"),
    pytest.param(b'{"statusCode":0,"messages":[{"type":"Message","index":-1e30}]}', id="index"),
    pytest.param(b'{"statusCode":0,"messages":[{"type":"Message","index":1,"from":[]}]}', id="from"),
    pytest.param(b'{"statusCode":0,"messages":"' + b"x" * 100_000 + b'"}', id="text for a list"),
    pytest.param(b'{"statusCode":0,"alias":"\\ud800"}', id="lone surrogate"),
]


@pytest.mark.parametrize("body", INVALID_MEMBERS)
def test_invalid_member_of_an_answer_keeps_polling(peer, replies, http, service, wire, eventually, body):
    server = peer(polled_with(body, replies, wire))
    with service(http(server.url), config={"dataURL": server.url, "pollExceptionLimit": 1}) as chat:
        chat.start_chat(nickname="Jonny")
        polls = len(server.seen)
        eventually(lambda: len(server.seen) > polls + 3)
        assert (chat.state, chat.health().failures) == ("polling", 0)
        chat.end_chat()
