"""Test the law watcher: it names each broken law, and none in a valid chat."""

from __future__ import annotations

import pytest

from tests.laws import LawWatcher
from webchat_fsm import ChatEvent, Message
from webchat_fsm.lifecycle._events import MessageReceived


def received(*indexes):
    return MessageReceived(messages=tuple(Message(index=index) for index in indexes), original_messages=())


def broken_laws(*events):
    watcher = LawWatcher()
    watcher.opened()
    for event in events:
        name, data = event if isinstance(event, tuple) else (event, None)
        watcher.hear(ChatEvent(name, data, 0.0))
    return watcher.broken


@pytest.mark.parametrize(
    ("events", "law"),
    [
        (("started", "ended", "ended"), "ended came twice in one session"),
        (("started", "reconnected"), "reconnected came without disconnected before it"),
        (("started", "disconnected", "reconnected", "reconnected"), "reconnected came without disconnected before it"),
        (("started", "disconnected", "started", "reconnected"), "reconnected came without disconnected before it"),
        (
            ("restored", "connectionPending", "chatServerBackOnline"),
            "chatServerBackOnline came without chatServerWentOffline or restoredOffline before it",
        ),
        (("started", "connectionRestored"), "connectionRestored came without connectionPending before it"),
        (("started", "agentTypingStopped"), "agentTypingStopped came without agentTypingStarted before it"),
        (("started", "pollingStopped"), "pollingStopped came without pollingStarted before it"),
        (
            ("started", ("messageReceived", received(1, 2)), ("messageReceived", received(2))),
            "the message with index 2 came twice",
        ),
        (("started", ("messageReceived", received(7, 7))), "the message with index 7 came twice"),
    ],
)
def test_broken_law_is_named(events, law):
    assert broken_laws(*events) == [law]


def test_valid_chat_breaks_no_law():
    assert not broken_laws(
        "ready", "started", "pollingStarted", ("messageReceived", received(1, 2)), "disconnected", "connectionPending",
        "chatServerWentOffline", "chatServerBackOnline", "connectionRestored", "reconnected",
        ("messageReceived", received(3)), "pollingStopped", "ended",
        "started", "pollingStarted", ("messageReceived", received(1)),
    )  # fmt: skip


def test_back_online_after_an_offline_restore_is_valid():
    assert not broken_laws("ready", "restored", "restoredOffline", "chatServerBackOnline")


def test_event_after_close_breaks_a_law():
    watcher = LawWatcher()
    watcher.hear(ChatEvent("ready", None, 0.0))
    assert watcher.broken == ["ready came after close()"]


def test_every_service_of_a_test_is_watched(laws, webchat_server):
    webchat_server.client().open()
    second = webchat_server.client()
    assert len(laws) == 2
    assert [watcher.closed for watcher in laws.values()] == [False, True]
    second.open()
    second.close()
    assert [watcher.closed for watcher in laws.values()] == [False, True]
