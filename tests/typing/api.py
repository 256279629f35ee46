"""Use the public API as a user would: checked by mypy --strict, never run.

`assert_type` fixes the inferred type; a `type: ignore[code]` marks a line that has to be rejected, and mypy reports it
where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

from webchat_fsm import (
    AgentTyping,
    Bus,
    BusEvent,
    ChatClosed,
    ChatEvent,
    CommandRejected,
    Config,
    ConfigError,
    Failure,
    FileStore,
    HandlerWaitError,
    ManualClock,
    ManualDriver,
    MemoryStore,
    Message,
    MessageReceived,
    Outcome,
    Participant,
    ParticipantChanged,
    Receipt,
    Response,
    Restored,
    RestoreFailed,
    SessionData,
    SessionStore,
    Started,
    State,
    Stats,
    StoreError,
    Subscription,
    ThreadDriver,
    Transcript,
    TransportError,
    WaitTimeout,
    WebChatError,
    WebChatService,
)


def opening(config: Mapping[str, Any], path: Path) -> None:
    WebChatService(config)
    WebChatService(Config.read(config), store=FileStore(path), driver=ThreadDriver(workers=4))
    WebChatService({"dataURL": "https://host"}, store=MemoryStore(), driver=ManualDriver(ManualClock()))
    WebChatService("https://host")  # type: ignore[arg-type]
    WebChatService(config, FileStore(path))  # type: ignore[call-arg]
    with WebChatService(config) as chat:
        assert_type(chat, WebChatService)
        chat.open()
        assert_type(chat.close(timeout=1.0, end=True), bool)
        assert_type(chat.state, State)
        assert_type(chat.state.has_session, bool)


def stores(path: Path) -> None:
    kept: list[SessionStore] = [MemoryStore(), FileStore(path), FileStore("session.json")]
    for store in kept:
        saved = store.load()
        if saved is not None:
            store.save(saved)
        store.delete()


def commands(chat: WebChatService) -> None:
    assert_type(chat.start_chat(nickname="Jonny", user_data={"page": "/help"}, shoeSize="44"), Response)
    receipt = chat.send_message("hi", type="text")
    assert_type(receipt, Receipt)
    assert_type(receipt.status, str)
    assert_type(receipt.wait(5.0), bool)
    assert_type(chat.send_typing("h"), Response | None)
    assert_type(chat.add_prefilter(re.compile("x")), list[re.Pattern[str]])
    assert_type(chat.get_transcript(since=3), Transcript)
    assert_type(chat.get_transcript().messages, tuple[Message, ...])
    assert_type(chat.get_agents(), dict[int | str, Participant])
    assert_type(chat.get_stats(), Stats)
    assert_type(chat.get_session_data(), SessionData)
    assert_type(chat.verify_session(), bool)
    assert_type(chat.send_file(["a.png", Path("b.png")]), Response)
    assert_type(chat.download_file("file-1", to="."), Path)
    assert_type(chat.end_chat(), Response)
    assert_type(chat.can("endChat"), bool)
    assert_type(chat.legal_commands(), tuple[str, ...])
    assert_type(chat.explain("endChat").legal_in, frozenset[State])
    assert_type(chat.health().poll_in_flight, float | None)
    assert_type(chat.step(), bool)
    chat.send_message(5)  # type: ignore[arg-type]
    chat.start_chat("Jonny")  # type: ignore[call-arg]
    chat.add_prefilter("x")  # type: ignore[arg-type]


def outcomes(chat: WebChatService) -> None:
    outcome = chat.command("sendMessage", {"message": "hi"})
    assert_type(outcome, Outcome)
    assert_type(outcome.done(print).fail(print).always(print), Outcome)
    assert_type(outcome.then(print, print), Outcome)
    assert_type(outcome.status, str)
    assert_type(bool(outcome), bool)
    outcome.done(5)  # type: ignore[arg-type]
    chat.command("sendMessage", "hi")  # type: ignore[arg-type]


def subscribing(chat: WebChatService) -> None:
    def on_message(event: ChatEvent[MessageReceived]) -> None:
        assert_type(event.data.messages[0].sender.name, str)
        assert_type(event.time, float)

    def on_ready(event: ChatEvent[None]) -> str:
        assert_type(event.data, None)
        return event.name

    def on_anything(event: ChatEvent[object]) -> None:
        print(event.name)

    assert_type(chat.subscribe("messageReceived", on_message), Subscription)
    chat.subscribe("ready", on_ready).cancel()
    chat.subscribe("messageReceived", on_anything)
    chat.subscribe("messageReceived", lambda event: print(event.data.messages))
    chat.subscribe("started", lambda event: print(event.data.session_data.session_id))
    chat.subscribe("agentConnected", lambda event: print(event.data.num_agents_connected))
    chat.subscribe("ready", on_message)  # type: ignore[arg-type]
    chat.subscribe("messageReceived", lambda event: event.data.nothing)  # type: ignore[attr-defined]

    @chat.subscribe("error")
    def on_error(event: ChatEvent[Failure]) -> None:
        assert_type(event.data.response.status, int)

    @chat.subscribe("agentTypingStarted")
    def on_typing(event: ChatEvent[AgentTyping]) -> None:
        assert_type(event.data.message, Message | None)

    for name in ("started", "ended"):
        chat.subscribe(name, on_anything)


def waiting(chat: WebChatService) -> None:
    assert_type(chat.wait_for("agentConnected", timeout=30.0), ChatEvent[ParticipantChanged])
    assert_type(chat.wait_for("messageReceived", 1.0, where=lambda event: event.data.restoring).data, MessageReceived)
    assert_type(chat.wait_for("started", 1.0).data, Started)
    assert_type(chat.wait_for("restored", 1.0).data.is_async, bool)
    assert_type(chat.wait_for("restored", 1.0), ChatEvent[Restored])
    assert_type(chat.wait_for("restoreFailed", 1.0), ChatEvent[RestoreFailed])
    assert_type(chat.wait_for("ended", 1.0).data, None)
    assert_type(chat.events(silence=5.0), Iterator[ChatEvent[Any]])
    chat.wait_for("ended")  # type: ignore[call-overload]
    chat.wait_for("ended", 1.0, where=lambda event: event.data.messages)  # type: ignore[call-overload]


def on_the_bus(chat: WebChatService) -> None:
    bus = Bus()
    bus.register(chat)
    plugin = bus.register_plugin("MyPlugin")

    def heard(event: BusEvent) -> None:
        assert_type(event.name, str)
        assert_type(event.time, int)
        assert_type(event.publisher, str)

    assert_type(plugin.subscribe("WebChatService.ready", heard), str)
    assert_type(plugin.command("WebChatService.startChat", {"nickname": "Jonny"}), Outcome)
    assert_type(plugin.publish("opened"), bool)
    assert_type(plugin.unsubscribe("WebChatService.ready"), bool)
    assert_type(plugin.namespace, str)


def manual_time(driver: ManualDriver) -> None:
    assert_type(driver.run_due(), float | None)
    driver.wait(3.0)


def failing(chat: WebChatService) -> str:
    try:
        chat.send_message("hi").wait(1.0)
        chat.wait_for("agentConnected", 1.0)
    except CommandRejected as rejected:
        assert_type(rejected.legal_in, frozenset[State])
        assert_type(rejected.response, Response | None)
        assert_type(rejected.state, State)
        return rejected.reason if isinstance(rejected.__cause__, TransportError) else rejected.command
    except ConfigError as error:
        return error.path
    except (WaitTimeout, ChatClosed, HandlerWaitError, StoreError) as error:
        known: WebChatError = error
        return str(known)
    return ""
