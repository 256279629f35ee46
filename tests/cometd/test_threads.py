"""Over real sockets and with threads: few and fast."""

from __future__ import annotations

import threading
import time

import pytest

from tests.lifecycle.stage import Heard
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront


@pytest.fixture
def front():
    with HttpFront(ChatServer(ServerOptions(connect_timeout=20.0))) as front:
        yield front


@pytest.fixture(params=["long-polling", "websocket"])
def dial(front, request):
    """Services that talk to the front, over sockets and with threads of their own; closed at the end."""
    chats = []

    def dial(store=None, **config) -> WebChatService:
        section = {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url}
        section["websocketEnabled"] = request.param == "websocket"
        chat = WebChatService({"cometD": section, **config}, store=store)
        chats.append(chat)
        return chat

    yield dial
    for chat in chats:
        assert chat.close()
    used = {logged.method for logged in front.server.requests if logged.operation in ("handshake", "connect", "send")}
    assert used == {"WEBSOCKET" if request.param == "websocket" else "POST"}


def until(reached, limit: float = 20.0) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + limit
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    assert reached()


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("webchat-fsm")]


def held(front) -> bool:
    """Whether a connect is being held, which is where a quiet chat spends its time."""
    return any(client.holding and client.connects > 1 for client in front.server._comet.bayeux.clients.values())


def test_a_conversation_over_sockets_is_pushed(front, dial):
    chat = dial()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    ann = front.server.agent("Ann").join()
    chat.wait_for("agentConnected", timeout=5.0)
    ann.say("Hello")
    assert chat.wait_for("messageReceived", 5.0, lambda event: event.data.messages[0].text == "Hello")
    assert chat.send_message("hi").wait(timeout=5.0)
    chat.end_chat()
    assert heard.names[-2:] == ["clientDisconnected", "ended"]
    until(lambda: not front.server._comet.bayeux.clients)


def test_the_cookie_of_the_gateway_comes_back_over_plain_http(front, dial):
    """The server answers 402 to whoever does not bring it: one handshake is enough only where it came back."""
    chat = dial()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("hi")
    asked = [logged for logged in front.server.requests if logged.operation in ("handshake", "send")]
    assert [logged.operation for logged in asked] == ["handshake", "send"]
    assert "BAYEUX_BROWSER=" in asked[1].headers["cookie"]


def test_closing_while_a_connect_is_held_does_not_wait_for_it_and_leaves_no_thread(front, dial):
    chat = dial()
    chat.open()
    chat.start_chat(nickname="Jonny")
    until(lambda: held(front))
    assert ours()
    assert chat.close(), "it would be held for longer than close() waits"
    assert ours() == []


def test_an_interrupted_stay_is_restored_by_another_process_of_the_same_store(front, dial):
    store = MemoryStore()
    first = dial(store)
    first.open()
    first.start_chat(nickname="Jonny")
    first.send_message("one")
    first.close()
    second = dial(store)
    heard = Heard(second)
    second.open()
    assert second.state == "active"
    until(lambda: "one" in heard.texts())
    assert heard.names[:2] == ["ready", "restored"]


def test_many_threads_publish_while_a_connect_is_held(front, dial):
    chat = dial()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    until(lambda: held(front))
    refused = []

    def talk(name: str) -> None:
        for number in range(10):
            outcome = chat.command("sendMessage", {"message": f"{name}{number}"})
            refused.extend([] if outcome else [outcome])

    talkers = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join(20.0)
    until(lambda: len(heard.texts()) == 40)
    assert refused == []
    assert sorted(heard.texts()) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
    assert [one for one in heard.texts() if one[0] == "a"] == [f"a{number}" for number in range(10)]


def test_threads_that_all_meet_a_forgotten_client_lose_no_message(front, dial):
    chat = dial()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    until(lambda: held(front))
    outcomes = []
    gate = threading.Barrier(4)

    def talk(name: str) -> None:
        gate.wait(5.0)
        outcomes.append(chat.command("sendMessage", {"message": name}))

    front.server.forget_clients()
    talkers = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join(10.0)
    assert [outcome.status for outcome in outcomes] == ["resolved"] * 4, outcomes
    until(lambda: len(heard.texts()) == 4)
    assert sorted(heard.texts()) == list("abcd")
    front.server.agent("Ann").join().say("after it")
    until(lambda: "after it" in heard.texts())
    assert chat.state == "active"


def test_cut_connects_are_told_and_made_again(front, dial):
    chat = dial()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    until(lambda: held(front))
    front.server.cut_connects()
    until(lambda: "disconnected" in heard.names)
    front.server.agent("Ann").join().say("meanwhile")
    until(lambda: "reconnected" in heard.names)
    until(lambda: "meanwhile" in heard.texts())


def test_two_services_hold_connects_at_once_and_share_a_chat(front, dial):
    store = MemoryStore()
    first, second = dial(store), dial(store)
    first.open()
    first.start_chat(nickname="Jonny")
    second.open()
    heard = [Heard(first), Heard(second)]
    front.server.agent("Ann").join().say("to both")
    until(lambda: all("to both" in one.texts() for one in heard))
