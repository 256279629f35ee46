"""Whole chats over a websocket, against the embedded server on a port."""

from __future__ import annotations

import threading
import time

import pytest

from tests.cometd.test_threads import held, until
from tests.lifecycle.stage import Heard
from webchat_fsm import ManualDriver, MemoryStore, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

pytest.importorskip("websockets")


def section(front: HttpFront) -> dict[str, object]:
    """The `cometD` section that asks a front for a websocket."""
    return {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url, "websocketEnabled": True}


@pytest.fixture
def server() -> ChatServer:
    return ChatServer(ServerOptions(connect_timeout=20.0))


@pytest.fixture
def front(server):
    with HttpFront(server) as front:
        yield front


@pytest.fixture
def dial(front):
    """Services that ask for a websocket; closed at the end."""
    chats = []

    def dial(store=None, driver=None, **config) -> WebChatService:
        config = {"cometD": section(front), **config}
        chats.append(WebChatService(config, store=store, driver=driver))
        chats[-1].heard = Heard(chats[-1])
        return chats[-1]

    yield dial
    for chat in chats:
        assert chat.close()


@pytest.fixture
def chat(server, front, dial) -> WebChatService:
    """A started chat whose connect is held."""
    chat = dial()
    chat.open()
    chat.start_chat(nickname="Jonny")
    until(lambda: held(front))
    return chat


def ways(server: ChatServer, *operations: str) -> list[str]:
    """By which ways such messages came."""
    return [logged.method for logged in server.requests if logged.operation in operations]


def count(server: ChatServer, operation: str) -> int:
    return len(ways(server, operation))


def test_a_conversation_from_start_to_end(server, chat):
    ann = server.agent("Ann").join()
    chat.wait_for("agentConnected", timeout=5.0)
    ann.say("Hello")
    assert chat.wait_for("messageReceived", 5.0, lambda event: event.data.messages[0].text == "Hello")
    assert chat.send_message("hi").wait(timeout=5.0)
    chat.end_chat()
    assert chat.heard.texts() == ["Hello", "hi"]
    assert chat.heard.names[:3] == ["ready", "started", "clientConnected"]
    assert chat.heard.names[-2:] == ["clientDisconnected", "ended"]
    until(lambda: count(server, "bye"))
    assert set(ways(server, "handshake", "connect", "start", "send", "disconnect", "bye")) == {"WEBSOCKET"}
    assert count(server, "upgrade") == 1


def test_one_connect_stays_held_while_many_messages_are_pushed(server, chat):
    before = count(server, "connect")
    ann = server.agent("Ann").join()
    for number in range(50):
        ann.say(str(number))
    until(lambda: len(chat.heard.texts()) == 50)
    assert chat.heard.texts() == [str(number) for number in range(50)]
    assert count(server, "connect") == before
    assert chat.state == "active"


@pytest.mark.soak
def test_a_connect_whose_time_is_over_is_followed_by_another(dial):
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.2))) as quick:
        chat = dial(cometD=section(quick))
        chat.open()
        chat.start_chat(nickname="Jonny")
        until(lambda: count(quick.server, "connect") > 3)
        quick.server.agent("Ann").join().say("still here")
        until(lambda: chat.heard.texts() == ["still here"])
        assert "disconnected" not in chat.heard.names
        assert chat.close()


def test_a_dropped_socket_is_told_and_what_was_missed_is_told_once(server, chat):
    ann = server.agent("Ann").join()
    ann.say("before")
    until(lambda: chat.heard.texts() == ["before"])
    server.cut_connects()
    ann.say("meanwhile")
    until(lambda: "reconnected" in chat.heard.names and "meanwhile" in chat.heard.texts())
    ann.say("after")
    until(lambda: "after" in chat.heard.texts())
    assert chat.heard.texts() == ["before", "meanwhile", "after"]
    assert chat.heard.names.count("disconnected") == chat.heard.names.count("reconnected") == 1
    assert count(server, "upgrade") == 2
    assert set(ways(server, "connect", "requestNotifications")) == {"WEBSOCKET"}


def test_an_outage_of_the_server_is_survived(server, front, chat):
    ann = server.agent("Ann").join()
    port = int(front.url.rpartition(":")[2])
    front.stop()
    until(lambda: "disconnected" in chat.heard.names)
    assert chat.command("sendMessage", {"message": "into the void"}).status == "rejected"
    server.clock = time.time
    ann.say("while you were out")
    with HttpFront(server, port=port):
        until(lambda: "reconnected" in chat.heard.names and chat.heard.texts())
        assert chat.send_message("back").wait(timeout=20.0)
        until(lambda: chat.heard.texts() == ["while you were out", "back"])
        assert set(ways(server, "connect", "send")) == {"WEBSOCKET"}
        assert chat.close()


def test_a_forgotten_client_is_greeted_anew_without_a_word(server, front, chat):
    server.forget_clients()
    assert chat.send_message("not taken at first").wait(timeout=5.0)
    until(lambda: held(front))
    assert chat.send_message("and on").wait(timeout=5.0)
    assert chat.heard.texts() == ["not taken at first", "and on"]
    assert not {"disconnected", "error"} & set(chat.heard.names)
    assert count(server, "upgrade") == 1


def test_a_server_that_hangs_up_is_called_again(server, chat):
    server.hang_up()
    until(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("after it").wait(timeout=20.0)
    assert chat.heard.names.count("disconnected") == 1


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"drop": True}])
def test_where_the_upgrade_is_refused_the_chat_is_one_by_long_polling(server, dial, fault):
    server.faults.add(operation="upgrade", times=99, **fault)
    chat = dial()
    chat.open()
    chat.start_chat(nickname="Jonny")
    server.agent("Ann").join().say("Hello")
    until(lambda: chat.heard.texts() == ["Hello"])
    assert chat.send_message("hi").wait(timeout=5.0)
    assert set(ways(server, "handshake", "connect", "send")) == {"POST"}
    assert count(server, "upgrade") == 1
    assert not {"disconnected", "error"} & set(chat.heard.names)


def test_a_server_without_websockets_is_spoken_to_by_long_polling(dial):
    with HttpFront(ChatServer(ServerOptions(websocket=False))) as plain:
        chat = dial(cometD=section(plain))
        chat.open()
        chat.start_chat(nickname="Jonny")
        assert set(ways(plain.server, "handshake", "start")) == {"POST"}
        assert chat.close()


@pytest.mark.soak
def test_when_a_socket_cannot_be_had_again_the_chat_goes_on_by_long_polling(server, chat):
    ann = server.agent("Ann").join()
    until(lambda: "agentConnected" in chat.heard.names)
    server.faults.add(operation="upgrade", times=99, http_status=404)
    server.cut_connects()
    until(lambda: "reconnected" in chat.heard.names)
    ann.say("by the other way")
    until(lambda: chat.heard.texts() == ["by the other way"])
    assert ways(server, "connect")[-1] == "POST"


def test_a_chat_is_restored(server, dial):
    store = MemoryStore()
    first = dial(store)
    first.open()
    first.start_chat(nickname="Jonny")
    assert first.send_message("one").wait(timeout=5.0)
    assert first.close()
    server.agent("Ann").join().say("meanwhile")
    second = dial(store)
    second.open()
    assert second.state == "active"
    until(lambda: second.heard.texts() == ["one", "meanwhile"])
    assert second.send_message("two").wait(timeout=5.0)


def test_the_same_service_opens_again(server, front, dial):
    chat = dial()
    for text in ("one", "two"):
        chat.open()
        if text == "one":
            chat.start_chat(nickname="Jonny")
        assert chat.send_message(text).wait(timeout=5.0)
        assert chat.close()
    assert count(server, "upgrade") == 2


def test_one_chat_after_another_hears_nothing_of_the_first(server, front, dial):
    chat = dial()
    chat.open()
    for number in range(3):
        chat.start_chat(nickname="Jonny")
        assert chat.send_message(str(number)).wait(timeout=5.0)
        chat.end_chat()
        assert chat.state == "ended"
    assert chat.heard.texts() == ["0", "1", "2"]
    assert chat.heard.names.count("started") == chat.heard.names.count("ended") == 3


def test_closing_while_a_connect_is_held_takes_no_time_and_leaves_nothing(server, front, chat):
    began = time.monotonic()
    assert chat.close()
    assert time.monotonic() - began < 5.0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("webchat-fsm")]
    until(lambda: not front._running._sockets)


def test_files_go_over_http(server, chat, tmp_path):
    (tmp_path / "notes.txt").write_text("some notes")
    chat.send_file(tmp_path / "notes.txt")
    assert "POST" in ways(server, "file")


def test_on_a_manual_driver_no_thread_is_started_and_nothing_is_lost(dial):
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.2))) as quick:
        before = set(threading.enumerate())
        chat = dial(driver=ManualDriver(), cometD=section(quick))
        chat.open()
        chat.start_chat(nickname="Jonny")
        ann = quick.server.agent("Ann").join()
        for number in range(2):
            ann.say(str(number))
            chat.wait_for("messageReceived", 20.0, lambda event, text=str(number): event.data.messages[-1].text == text)
            assert chat.send_message(f"re {number}").wait(timeout=20.0)
        assert chat.heard.texts() == ["0", "re 0", "1", "re 1"]
        assert set(threading.enumerate()) == before
        quick.server.cut_connects()
        chat.end_chat()
        assert chat.state == "ended"
        assert set(ways(quick.server, "connect", "send", "disconnect")) == {"WEBSOCKET"}


FAULTS: list[dict] = [
    {"drop": True},
    {"tear": True, "http_status": 200},
    {"body": b"\xff\xfe{"},
    {"body": b"[" * 99_999},
]


@pytest.mark.soak
def test_whatever_goes_wrong_on_the_socket_nothing_is_lost_and_nothing_comes_twice(server, front, dial):
    """Every fault hits a chat of its own, all at once: the pause before a connect is made again is a whole second."""
    chats = [dial() for _ in FAULTS]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    until(lambda: all(client.holding for client in server._comet.bayeux.clients.values()))
    people = [server.agent("Ann").join(stage) for stage in server.chats]
    for fault in FAULTS:
        server.faults.add(operation="connect", **fault)
    server.cut_connects()
    for ann in people:
        for number in range(20):
            ann.say(str(number))
    until(lambda: all("reconnected" in chat.heard.names and "19" in chat.heard.texts() for chat in chats))
    assert not len(server.faults)
    for ann in people:
        ann.say("20")
    until(lambda: all("20" in chat.heard.texts() for chat in chats))
    assert {tuple(chat.heard.texts()) for chat in chats} == {tuple(str(number) for number in range(21))}


@pytest.mark.soak
def test_doubled_and_reversed_news_are_told_once_in_order(server, chat):
    server.faults.add(operation="connect", times=50, duplicate=True, reorder=True)
    server.cut_connects()
    until(lambda: "reconnected" in chat.heard.names)
    ann = server.agent("Ann").join()
    for number in range(20):
        ann.say(str(number))
    until(lambda: len(chat.heard.texts()) >= 20)
    assert chat.heard.texts() == [str(number) for number in range(20)]


@pytest.mark.soak
def test_many_troubles_and_many_threads_lose_nothing_that_was_taken(server, front, chat):
    ann = server.agent("Ann").join()
    sent: list[str] = []

    def talk(name: str) -> None:
        said = (f"{name}{number}" for number in range(25))
        sent.extend(text for text in said if chat.command("sendMessage", {"message": text}))

    def trouble() -> None:
        for number in range(25):
            ann.say(f"ann{number}")
            sent.append(f"ann{number}")
            (server.cut_connects, server.forget_clients, lambda: None, server.hang_up)[number % 4]()
            until(lambda: held(front))

    threads = [threading.Thread(target=act) for act in (lambda: talk("a"), lambda: talk("b"), trouble)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    until(lambda: set(sent) <= set(chat.heard.texts()))
    heard = chat.heard.texts()
    assert len(heard) == len(set(heard))
    assert chat.state == "active"


def test_pushes_are_read_at_once_whatever_interval_is_advised():
    """Only a message that is sent is paced: a pause in which nobody reads would delay every push behind the first."""
    server, came, said = ChatServer(ServerOptions(connect_timeout=20.0, reconnect_interval=0.5)), [], []
    with HttpFront(server) as front, WebChatService({"cometD": section(front)}) as chat:
        chat.start_chat(nickname="Jonny")
        ann = server.agent("Ann").join()
        until(chat.get_agents)
        chat.subscribe("messageReceived", lambda event: came.append(time.monotonic()))
        for number in range(6):
            said.append(time.monotonic())
            ann.say(str(number))
            until(lambda: len(came) == len(said))
    assert max(arrival - moment for arrival, moment in zip(came, said, strict=True)) < 0.25
