"""Check chats over real sockets and with threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.lifecycle.environment import Heard
from tests.limits import LONG, SOON, eventually
from webchat_fsm import MemoryStore, WebChatService
from webchat_fsm._runtime.http import HttpExchange
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

pytestmark = pytest.mark.usefixtures("short_backoff")


@pytest.fixture
def front():
    with HttpFront(ChatServer(ServerOptions(connect_timeout=LONG))) as front:
        yield front


@pytest.fixture(params=["long-polling", "websocket"])
def make_chat(front, request):
    """Return a maker of services that use the front over sockets and threads; close them at the end."""
    chats = []

    def make_chat(store=None, **config) -> WebChatService:
        section = {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url}
        section["websocketEnabled"] = request.param == "websocket"
        chat = WebChatService({"cometD": section, **config}, store=store)
        chats.append(chat)
        return chat

    yield make_chat
    for chat in chats:
        assert chat.close(SOON)
    used = {logged.method for logged in front.server.requests if logged.operation in ("handshake", "connect", "send")}
    assert used == {"WEBSOCKET" if request.param == "websocket" else "POST"}


def library_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("webchat-fsm")]


def held(front) -> bool:
    """Return whether the server holds a connect, which is where a chat without events spends its time."""
    return any(client.holding and client.connects > 1 for client in front.server._comet.bayeux.clients.values())


def test_conversation_over_sockets_is_pushed(front, make_chat):
    chat = make_chat()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    ann = front.server.agent("Ann").join()
    chat.wait_for("agentConnected", timeout=LONG)
    ann.say("Hello")
    assert chat.wait_for("messageReceived", LONG, lambda event: event.data.messages[0].text == "Hello")
    assert chat.send_message("hi").wait(timeout=LONG)
    chat.end_chat()
    # the push that the customer has left may come before the acknowledgement, and so before the agent has left
    assert {"clientDisconnected", "agentDisconnected"} <= set(heard.names)
    assert heard.names[-1] == "ended"
    eventually(lambda: not front.server._comet.bayeux.clients)


def test_held_connect_is_parked_without_waiting_for_it(front, monkeypatch):
    waits, proceed = [], HttpExchange.proceed

    def noted(exchange, seconds):
        if exchange._request.operation == "connect" and b'"timeout":0' not in exchange._request.body:
            waits.append(seconds)
        return proceed(exchange, seconds)

    monkeypatch.setattr(HttpExchange, "proceed", noted)
    section = {"enabled": True, "cometURL": front.comet_url, "apiURL": front.comet_files_url}
    with WebChatService({"cometD": section}) as chat:
        chat.start_chat(nickname="Jonny")
        eventually(lambda: held(front) and len(chat._engine.driver._parked) == 1)
        assert not waits
        front.server.agent("Ann").join()
        chat.wait_for("agentConnected", timeout=LONG)
        assert set(waits) == {0.0}


def test_gateway_cookie_is_returned_over_plain_http(front, make_chat):
    """Return the cookie, as the server answers 402 without it: one handshake suffices only where it is returned."""
    chat = make_chat()
    chat.open()
    chat.start_chat(nickname="Jonny")
    chat.send_message("hi")
    asked = [logged for logged in front.server.requests if logged.operation in ("handshake", "send")]
    assert [logged.operation for logged in asked] == ["handshake", "send"]
    assert "BAYEUX_BROWSER=" in asked[1].headers["cookie"]


def test_close_does_not_wait_for_a_held_connect(front, make_chat):
    chat = make_chat()
    chat.open()
    chat.start_chat(nickname="Jonny")
    eventually(lambda: held(front))
    assert library_threads()
    assert chat.close(SOON), "close() has waited for the held connect"
    assert library_threads() == []


def test_closed_chat_is_restored_from_the_store(front, make_chat):
    store = MemoryStore()
    first = make_chat(store)
    first.open()
    first.start_chat(nickname="Jonny")
    first.send_message("one")
    first.close()
    second = make_chat(store)
    heard = Heard(second)
    second.open()
    assert second.state == "active"
    eventually(lambda: "one" in heard.texts())
    assert heard.names[:2] == ["ready", "restored"]


def begun(front, make_chat) -> tuple[WebChatService, Heard]:
    """Start a chat whose connect the server holds; return it with the record of its events."""
    chat = make_chat()
    heard = Heard(chat)
    chat.open()
    chat.start_chat(nickname="Jonny")
    eventually(lambda: held(front))
    return chat, heard


def from_four_threads(send_messages: Callable[[str], None]) -> None:
    """Call a function in four threads at once, with the names a to d."""
    senders = [threading.Thread(target=send_messages, args=(name,)) for name in "abcd"]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(LONG)


def test_many_threads_publish_while_a_connect_is_held(front, make_chat):
    chat, heard = begun(front, make_chat)
    refused = []

    def send_messages(name: str) -> None:
        for number in range(10):
            outcome = chat.command("sendMessage", {"message": f"{name}{number}"})
            refused.extend([] if outcome else [outcome])

    from_four_threads(send_messages)
    eventually(lambda: len(heard.texts()) == 40)
    assert refused == []
    assert sorted(heard.texts()) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
    assert [one for one in heard.texts() if one[0] == "a"] == [f"a{number}" for number in range(10)]


def test_unknown_client_loses_no_message_of_four_threads(front, make_chat):
    chat, heard = begun(front, make_chat)
    outcomes = []
    gate = threading.Barrier(4)

    def send_messages(name: str) -> None:
        gate.wait(LONG)
        outcomes.append(chat.command("sendMessage", {"message": name}))

    front.server.forget_clients()
    from_four_threads(send_messages)
    assert [outcome.status for outcome in outcomes] == ["resolved"] * 4, outcomes
    eventually(lambda: len(heard.texts()) == 4)
    assert sorted(heard.texts()) == list("abcd")
    front.server.agent("Ann").join().say("after it")
    eventually(lambda: "after it" in heard.texts())
    assert chat.state == "active"


def test_cut_connect_is_published_and_repeated(front, make_chat):
    _, heard = begun(front, make_chat)
    front.server.cut_connects()
    eventually(lambda: "disconnected" in heard.names)
    front.server.agent("Ann").join().say("meanwhile")
    eventually(lambda: "reconnected" in heard.names)
    eventually(lambda: "meanwhile" in heard.texts())


def test_two_services_hold_connects_and_share_chat(front, make_chat):
    store = MemoryStore()
    first, second = make_chat(store), make_chat(store)
    first.open()
    first.start_chat(nickname="Jonny")
    second.open()
    heard = [Heard(first), Heard(second)]
    front.server.agent("Ann").join().say("to both")
    eventually(lambda: all("to both" in one.texts() for one in heard))
