"""Check whole chats over a websocket with the embedded server on a port."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from tests.cometd.test_threads import held
from tests.lifecycle.environment import Heard
from tests.limits import LONG, SOON, eventually
from webchat_fsm import ManualDriver, MemoryStore, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

pytest.importorskip("websockets")
pytestmark = pytest.mark.usefixtures("short_backoff")


def section(front: HttpFront) -> dict[str, object]:
    """Return the `cometD` section of a chat that requests a websocket of a front."""
    return {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url, "websocketEnabled": True}


@pytest.fixture
def server() -> ChatServer:
    return ChatServer(ServerOptions(connect_timeout=LONG))


@pytest.fixture
def front(server):
    with HttpFront(server) as front:
        yield front


@pytest.fixture
def make_chat(front):
    """Return a maker of services that request a websocket; close them at the end."""
    chats = []

    def make_chat(store=None, driver=None, **config) -> WebChatService:
        config = {"cometD": section(front), **config}
        chats.append(WebChatService(config, store=store, driver=driver))
        chats[-1].heard = Heard(chats[-1])
        return chats[-1]

    yield make_chat
    for chat in chats:
        assert chat.close(SOON)


@pytest.fixture
def chat(server, front, make_chat) -> WebChatService:
    """Start a chat and wait until the server holds its connect."""
    chat = make_chat()
    chat.open()
    chat.start_chat(nickname="Jonny")
    eventually(lambda: held(front))
    return chat


def methods(server: ChatServer, *operations: str) -> list[str]:
    """Return the methods by which messages of these operations were received."""
    return [logged.method for logged in server.requests if logged.operation in operations]


def count(server: ChatServer, operation: str) -> int:
    return len(methods(server, operation))


def test_conversation_over_websocket_publishes_in_order(server, chat):
    ann = server.agent("Ann").join()
    chat.wait_for("agentConnected", timeout=LONG)
    ann.say("Hello")
    assert chat.wait_for("messageReceived", LONG, lambda event: event.data.messages[0].text == "Hello")
    assert chat.send_message("hi").wait(timeout=LONG)
    chat.end_chat()
    assert chat.heard.texts() == ["Hello", "hi"]
    assert chat.heard.names[:3] == ["ready", "started", "clientConnected"]
    # the push that the customer has left may come before the acknowledgement, and so before the agent has left
    assert {"clientDisconnected", "agentDisconnected"} <= set(chat.heard.names)
    assert chat.heard.names[-1] == "ended"
    eventually(lambda: count(server, "bye"))
    assert set(methods(server, "handshake", "connect", "start", "send", "disconnect", "bye")) == {"WEBSOCKET"}
    assert count(server, "upgrade") == 1


def test_connect_stays_held_while_messages_are_pushed(server, chat):
    before = count(server, "connect")
    ann = server.agent("Ann").join()
    for number in range(50):
        ann.say(str(number))
    eventually(lambda: len(chat.heard.texts()) == 50)
    assert chat.heard.texts() == [str(number) for number in range(50)]
    assert count(server, "connect") == before
    assert chat.state == "active"


@pytest.mark.soak
def test_connect_after_its_hold_is_followed_by_another(make_chat):
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.2))) as quick:
        chat = make_chat(cometD=section(quick))
        chat.open()
        chat.start_chat(nickname="Jonny")
        eventually(lambda: count(quick.server, "connect") > 3)
        quick.server.agent("Ann").join().say("still here")
        eventually(lambda: chat.heard.texts() == ["still here"])
        assert "disconnected" not in chat.heard.names
        assert chat.close(SOON)


def test_dropped_socket_is_published_and_nothing_is_lost(server, chat):
    ann = server.agent("Ann").join()
    ann.say("before")
    eventually(lambda: chat.heard.texts() == ["before"])
    server.cut_connects()
    ann.say("meanwhile")
    eventually(lambda: "reconnected" in chat.heard.names and "meanwhile" in chat.heard.texts())
    # On every Python version: the cut closes the client's socket at once, so no push precedes its event.
    assert chat.heard.names.index("disconnected") < len(chat.heard.names) - 1 - chat.heard.names[::-1].index(
        "messageReceived"
    )
    ann.say("after")
    eventually(lambda: "after" in chat.heard.texts())
    assert chat.heard.texts() == ["before", "meanwhile", "after"]
    assert chat.heard.names.count("disconnected") == chat.heard.names.count("reconnected") == 1
    assert count(server, "upgrade") == 2
    assert set(methods(server, "connect", "requestNotifications")) == {"WEBSOCKET"}


def test_chat_continues_after_outage_of_server(server, front, chat):
    ann = server.agent("Ann").join()
    port = int(front.url.rpartition(":")[2])
    front.stop()
    eventually(lambda: "disconnected" in chat.heard.names)
    assert chat.command("sendMessage", {"message": "sent in the outage"}).status == "rejected"
    server.clock = time.time
    ann.say("during the outage")
    with HttpFront(server, port=port):
        eventually(lambda: "reconnected" in chat.heard.names and chat.heard.texts())
        assert chat.send_message("back").wait(timeout=LONG)
        eventually(lambda: chat.heard.texts() == ["during the outage", "back"])
        assert set(methods(server, "connect", "send")) == {"WEBSOCKET"}
        assert chat.close(SOON)


def test_unknown_client_is_renewed_without_lifecycle_events(server, front, chat):
    server.forget_clients()
    assert chat.send_message("refused at first").wait(timeout=LONG)
    eventually(lambda: held(front))
    assert chat.send_message("and on").wait(timeout=LONG)
    assert chat.heard.texts() == ["refused at first", "and on"]
    assert not {"disconnected", "error"} & set(chat.heard.names)
    assert count(server, "upgrade") == 1


def test_disconnect_by_the_server_is_followed_by_reconnect(server, chat):
    server.hang_up()
    eventually(lambda: "reconnected" in chat.heard.names)
    assert chat.send_message("after it").wait(timeout=LONG)
    assert chat.heard.names.count("disconnected") == 1


@pytest.mark.parametrize("fault", [{"http_status": 404}, {"drop": True}])
def test_refused_upgrade_is_followed_by_long_polling(server, make_chat, fault):
    server.faults.add(operation="upgrade", times=99, **fault)
    chat = make_chat()
    chat.open()
    chat.start_chat(nickname="Jonny")
    server.agent("Ann").join().say("Hello")
    eventually(lambda: chat.heard.texts() == ["Hello"])
    assert chat.send_message("hi").wait(timeout=LONG)
    assert set(methods(server, "handshake", "connect", "send")) == {"POST"}
    assert count(server, "upgrade") == 1
    assert not {"disconnected", "error"} & set(chat.heard.names)


def test_server_without_websockets_is_used_by_long_polling(make_chat):
    with HttpFront(ChatServer(ServerOptions(websocket=False))) as plain:
        chat = make_chat(cometD=section(plain))
        chat.open()
        chat.start_chat(nickname="Jonny")
        assert set(methods(plain.server, "handshake", "start")) == {"POST"}
        assert chat.close(SOON)


@pytest.mark.soak
def test_refused_reopening_continues_by_long_polling(server, chat):
    ann = server.agent("Ann").join()
    eventually(lambda: "agentConnected" in chat.heard.names)
    server.faults.add(operation="upgrade", times=99, http_status=404)
    server.cut_connects()
    eventually(lambda: "reconnected" in chat.heard.names)
    ann.say("by long polling")
    eventually(lambda: chat.heard.texts() == ["by long polling"])
    assert methods(server, "connect")[-1] == "POST"


def test_chat_is_restored_from_store_over_websocket(server, make_chat):
    store = MemoryStore()
    first = make_chat(store)
    first.open()
    first.start_chat(nickname="Jonny")
    assert first.send_message("one").wait(timeout=LONG)
    assert first.close(SOON)
    server.agent("Ann").join().say("meanwhile")
    second = make_chat(store)
    second.open()
    assert second.state == "active"
    eventually(lambda: second.heard.texts() == ["one", "meanwhile"])
    assert second.send_message("two").wait(timeout=LONG)


def test_reopened_service_opens_new_websocket(server, front, make_chat):
    chat = make_chat()
    for text in ("one", "two"):
        chat.open()
        if text == "one":
            chat.start_chat(nickname="Jonny")
        assert chat.send_message(text).wait(timeout=LONG)
        assert chat.close(SOON)
    assert count(server, "upgrade") == 2


def test_next_chat_receives_nothing_of_the_former(server, front, make_chat):
    chat = make_chat()
    chat.open()
    for number in range(3):
        chat.start_chat(nickname="Jonny")
        assert chat.send_message(str(number)).wait(timeout=LONG)
        chat.end_chat()
        assert chat.state == "ended"
    assert chat.heard.texts() == ["0", "1", "2"]
    assert chat.heard.names.count("started") == chat.heard.names.count("ended") == 3


def test_close_under_a_held_connect_leaves_no_socket(server, front, chat):
    assert chat.close(SOON)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("webchat-fsm")]
    eventually(lambda: not front._running._sockets)


def test_files_are_sent_over_http(server, chat, tmp_path):
    (tmp_path / "notes.txt").write_text("some notes")
    chat.send_file(tmp_path / "notes.txt")
    assert "POST" in methods(server, "file")


def test_manual_driver_starts_no_thread_and_loses_nothing(make_chat):
    with HttpFront(ChatServer(ServerOptions(connect_timeout=0.2))) as quick:
        before = set(threading.enumerate())
        chat = make_chat(driver=ManualDriver(), cometD=section(quick))
        chat.open()
        chat.start_chat(nickname="Jonny")
        ann = quick.server.agent("Ann").join()
        for number in range(2):
            ann.say(str(number))
            chat.wait_for("messageReceived", LONG, lambda event, text=str(number): event.data.messages[-1].text == text)
            assert chat.send_message(f"re {number}").wait(timeout=LONG)
        assert chat.heard.texts() == ["0", "re 0", "1", "re 1"]
        assert set(threading.enumerate()) == before
        quick.server.cut_connects()
        chat.end_chat()
        assert chat.state == "ended"
        assert set(methods(quick.server, "connect", "send", "disconnect")) == {"WEBSOCKET"}


FAULTS: list[dict] = [
    {"drop": True},
    {"tear": True, "http_status": 200},
    {"body": b"\xff\xfe{"},
    {"body": b"[" * 99_999},
]


@pytest.mark.soak
def test_socket_faults_lose_and_double_no_message(server, front, make_chat):
    """Run each fault in a chat of its own and all at once, as the pause before a new connect is a whole second."""
    chats = [make_chat() for _ in FAULTS]
    for chat in chats:
        chat.open()
        chat.start_chat(nickname="Jonny")
    eventually(lambda: all(client.holding for client in server._comet.bayeux.clients.values()))
    people = [server.agent("Ann").join(env) for env in server.chats]
    for fault in FAULTS:
        server.faults.add(operation="connect", **fault)
    server.cut_connects()
    for ann in people:
        for number in range(20):
            ann.say(str(number))
    eventually(lambda: all("reconnected" in chat.heard.names and "19" in chat.heard.texts() for chat in chats))
    assert not len(server.faults)
    for ann in people:
        ann.say("20")
    eventually(lambda: all("20" in chat.heard.texts() for chat in chats))
    assert {tuple(chat.heard.texts()) for chat in chats} == {tuple(str(number) for number in range(21))}


@pytest.mark.soak
def test_doubled_and_reversed_pushes_are_delivered_in_order(server, chat):
    server.faults.add(operation="connect", times=50, duplicate=True, reorder=True)
    server.cut_connects()
    eventually(lambda: "reconnected" in chat.heard.names)
    ann = server.agent("Ann").join()
    for number in range(20):
        ann.say(str(number))
    eventually(lambda: len(chat.heard.texts()) >= 20)
    assert chat.heard.texts() == [str(number) for number in range(20)]


@pytest.mark.soak
def test_faults_under_threads_lose_no_accepted_message(server, front, chat):
    ann = server.agent("Ann").join()
    sent: list[str] = []

    def send_messages(name: str) -> None:
        texts = (f"{name}{number}" for number in range(25))
        sent.extend(text for text in texts if chat.command("sendMessage", {"message": text}))

    def cause_faults() -> None:
        for number in range(25):
            ann.say(f"ann{number}")
            sent.append(f"ann{number}")
            (server.cut_connects, server.forget_clients, lambda: None, server.hang_up)[number % 4]()
            eventually(lambda: held(front))

    threads = [
        threading.Thread(target=act) for act in (lambda: send_messages("a"), lambda: send_messages("b"), cause_faults)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    eventually(lambda: set(sent) <= set(chat.heard.texts()))
    heard = chat.heard.texts()
    assert len(heard) == len(set(heard))
    assert chat.state == "active"


def test_pushes_are_read_at_once_despite_an_interval():
    """Delay only what is sent: a pause without reading would end with the next connect."""
    server = ChatServer(ServerOptions(connect_timeout=0.2, max_interval=9 * LONG))
    with HttpFront(server) as front, WebChatService({"cometD": section(front)}) as chat:
        heard = Heard(chat)
        chat.start_chat(nickname="Jonny")
        ann = server.agent("Ann").join()
        eventually(chat.get_agents)
        state = server._comet.bayeux._state
        state.options = msgspec.structs.replace(state.options, reconnect_interval=LONG)
        eventually(lambda: chat._engine.session.connection.interval == LONG)
        connects = count(server, "connect")
        for number in range(6):
            ann.say(str(number))
            eventually(lambda number=number: heard.texts() == [str(one) for one in range(number + 1)])
        assert count(server, "connect") == connects
