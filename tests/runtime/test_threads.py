"""Many threads at one service, and interruptions in the middle."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from webchat_fsm import CommandRejected, MemoryStore, TransportError, WebChatService


def test_of_two_threads_that_start_a_chat_exactly_one_wins_a_thousand_times(wire, service, in_threads, by_hand):
    rounds = 1000
    meet, reasons, winners = threading.Barrier(2, timeout=20.0), Counter(), []
    with service(wire(), driver=by_hand) as chat:

        def race():
            for round_ in range(rounds):
                meet.wait()
                outcome = chat.command("startChat", {"nickname": "Jonny"})
                if outcome:
                    winners.append(round_)
                else:
                    reasons[outcome.reason] += 1
                if meet.wait() == 0:
                    assert chat.command("endChat")

        in_threads(race, race, join=True)
    assert winners == list(range(rounds))
    assert reasons == {"There is already an active chat session": rounds}


def test_of_many_threads_that_end_a_chat_exactly_one_tells_the_server(wire, service, in_threads, by_hand):
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


def test_what_many_threads_send_arrives_once_each_over_sockets(on_front, front, in_threads, eventually):
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
            *[lambda n=n: delivered.append(chat.send_message(f"message {n}").wait(10.0)) for n in range(12)], join=True
        )
    assert delivered == [True] * 12


def test_two_threads_that_open_both_return_when_the_restore_is_settled(wire, service, in_threads):
    store, asked, gate = MemoryStore(), threading.Event(), threading.Event()
    with service(wire(), store=store) as earlier:
        earlier.start_chat(nickname="Jonny")

    def slow(request):
        asked.set()
        gate.wait(5.0)

    chat = service(wire(restore=slow), store=store)
    states = []

    def open_():
        chat.open()
        states.append(chat.state)

    first, second = in_threads(open_, open_)
    assert asked.wait(5.0)
    first.join(0.1)
    second.join(0.1)
    assert states == []
    gate.set()
    for thread in (first, second):
        thread.join(5.0)
    assert states == ["polling", "polling"]


def test_a_command_while_another_thread_is_starting_the_chat_is_refused_at_once(wire, service, in_threads):
    inside, gate = threading.Event(), threading.Event()

    def slow(request):
        inside.set()
        gate.wait(5.0)

    with service(wire(start=slow)) as chat:
        in_threads(lambda: chat.start_chat(nickname="Jonny"))
        assert inside.wait(5.0)
        assert chat.state == "starting"
        assert chat.command("sendMessage", {"message": "hi"}).reason
        assert chat.command("startChat").reason == "There is already an active chat session"
        gate.set()
        chat.wait_for("started", 5.0)


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
def test_an_interrupted_start_goes_back_to_idle_and_the_exception_goes_on(wire, service, error):
    transport = wire(start=interrupted(error))
    with service(transport) as chat:
        with pytest.raises(error, match="now"):
            chat.start_chat(nickname="Jonny")
        assert chat.state == "idle"
        transport.operations.clear()
        chat.start_chat(nickname="Jonny")
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_restore_leaves_with_without_a_thread(wire, service, error):
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


def test_an_interrupted_end_is_an_end(wire, service):
    with service(wire(disconnect=interrupted(KeyboardInterrupt))) as chat:
        chat.start_chat(nickname="Jonny")
        with pytest.raises(KeyboardInterrupt):
            chat.end_chat()
        assert chat.state == "ended"


def test_an_interrupted_send_leaves_the_chat_as_it_was(wire, service, eventually):
    transport = wire(send=interrupted(KeyboardInterrupt))
    with service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        with pytest.raises(KeyboardInterrupt):
            chat.send_message("hi")
        polls = transport.count("refresh")
        eventually(lambda: transport.count("refresh") > polls + 1)
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, RecursionError])
def test_whatever_a_transport_raises_in_a_poll_polling_goes_on(wire, service, eventually, error):
    transport = wire(refresh=interrupted(error))
    with service(transport) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 3)
        transport.operations.clear()
        polls = transport.count("refresh")
        eventually(lambda: transport.count("refresh") >= polls + 2)
        assert chat.state == "polling"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_preprocessor_that_raises_does_not_end_the_polling(wire, service, said, eventually, error):
    transport = wire()
    transport.operations["refresh"] = lambda request: {"messages": [said(transport.count("refresh"), "hi")]}

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


@pytest.mark.parametrize("error", [OSError("disk on fire"), KeyError("redis")])
def test_whatever_a_store_raises_the_chat_goes_on_and_it_is_logged_once(wire, service, eventually, error, caplog):
    transport = wire()
    with service(transport, store=BrokenStore(error)) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: transport.count("refresh") >= 4)
        assert str(error) in chat.health().store_failure
        chat.end_chat()
        assert chat.state == "ended"
    assert sum(str(error) in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_typing_preview_that_raises_does_not_end_the_polling(wire, service, eventually, error):
    class Box:
        type = "text"
        broken = False

        @property
        def value(self):
            if self.broken:
                raise error("broken")
            return ""

    transport, box = wire(), Box()
    with service(transport) as chat:
        chat.register_typing_preview_input(box)
        chat.start_chat(nickname="Jonny")
        box.broken = True
        polls = transport.count("refresh")
        threading.Event().wait(0.3)
        box.broken = False
        eventually(lambda: transport.count("refresh") >= polls + 3)
        assert chat.state == "polling"


# -- hostile answers ---------------------------------------------------------------------------------------------------

HOSTILE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="list"),
    pytest.param(b"[" * 200_000, id="deep nesting"),
    pytest.param(b'{"statusCode":' + b"9" * 5000 + b"}", id="a number without end"),
    pytest.param(b'{"statusCode":1e999}', id="infinity"),
    pytest.param(b'\xff\xfe{"statusCode":0}', id="not UTF-8"),
    pytest.param(b"<html>" * 10_000, id="a proxy's page"),
]


def polled_with(body, says, wire):
    """Return what a peer says: the start and commands are answered well, every poll with a body."""
    good = wire().send(type("R", (), {"operation": "start"})()).body

    def talk(server, connection):
        while request := server.read(connection):
            polled = b"/refresh" in request.split(b"\r\n")[0]
            connection.sendall(says.whole(body if polled else good))

    return talk


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_answer_to_a_poll_is_a_failed_poll(peer, says, http, service, wire, eventually, body):
    """The start is answered well, every poll with the hostile body, over a socket."""
    server = peer(polled_with(body, says, wire))
    with service(http(server.url), config={"dataURL": server.url, "pollExceptionLimit": 1}) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: chat.state == "offline")
        polls = len(server.seen)
        eventually(lambda: len(server.seen) > polls)
        chat.end_chat()


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_answer_to_a_command_rejects_it(peer, says, wire, body):
    server = peer(says.for_ever(says.whole(body)))
    with WebChatService({"dataURL": server.url}) as chat:
        with pytest.raises(CommandRejected) as caught:
            chat.start_chat(nickname="Jonny")
        assert isinstance(caught.value.__cause__, TransportError | None)
        assert chat.state == "idle"


ODD = [
    pytest.param(b'{"statusCode":0,"messages":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, id="deep objects"),
    pytest.param(b'{"statusCode":0,"chatId":"a","secureKey":"b","messages":[null]}', id="null message"),
    pytest.param(b'{"statusCode":0,"messages":[{"type":"Message","index":-1e30}]}', id="index"),
    pytest.param(b'{"statusCode":0,"messages":[{"type":"Message","index":1,"from":[]}]}', id="from"),
    pytest.param(b'{"statusCode":0,"messages":"' + b"x" * 100_000 + b'"}', id="text for a list"),
    pytest.param(b'{"statusCode":0,"alias":"\\ud800"}', id="lone surrogate"),
]


@pytest.mark.parametrize("body", ODD)
def test_a_hostile_member_of_an_answer_stops_no_poll(peer, says, http, service, wire, eventually, body):
    server = peer(polled_with(body, says, wire))
    with service(http(server.url), config={"dataURL": server.url, "pollExceptionLimit": 1}) as chat:
        chat.start_chat(nickname="Jonny")
        polls = len(server.seen)
        eventually(lambda: len(server.seen) > polls + 3)
        assert (chat.state, chat.health().failures) == ("polling", 0)
        chat.end_chat()
