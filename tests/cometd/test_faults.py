"""Check a real service against the faults of the embedded server: each is published once, the chat continues."""

from __future__ import annotations

import pytest

from webchat_fsm import CommandRejected, State


def test_start_after_a_refused_start_succeeds(env):
    env.server.faults.add(operation="start", server_status=2, errors=((240, "closed today"),))
    chat = env.open()
    with pytest.raises(CommandRejected, match="closed today"):
        chat.start_chat(nickname="Jonny")
    chat.start_chat(nickname="Jonny")
    assert chat.state == "active"


@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"tear": True}, {"http_status": 502}, {"body": b"\xff\xfe{"}, {"body": b"[" * 100_000}]
)
@pytest.mark.parametrize("operation", ["connect", "handshake", "requestNotifications"])
def test_connection_fault_loses_and_repeats_no_message(env, operation, fault):
    chat = env.start()
    ann = env.agent()
    env.advance(1)
    if operation != "connect":
        env.server.core.forget_clients()
    env.server.faults.add(operation=operation, times=3, **fault)
    for number in range(20):
        ann.say(str(number))
        env.advance(1)
    env.advance(20)
    said = [str(number) for number in range(20)]
    assert sorted(env.heard.texts(), key=int) == said
    assert [message.text for message in chat.get_transcript().messages if message.type == "Message"] == said
    assert chat.state == "active"
    counts = [env.heard.names.count(name) for name in ("disconnected", "reconnected", "error")]
    unread = operation == "requestNotifications" and not {"drop", "tear"} & set(fault)
    torn = operation == "requestNotifications" and "tear" in fault  # each of these takes effect, and its push comes
    assert counts == ([0, 0, 3] if unread else [3, 3, 0] if torn else [1, 1, 0])


@pytest.mark.parametrize("fault", [{"duplicate": True}, {"reorder": True}])
def test_doubled_and_reversed_pushes_are_delivered_in_order(env, fault):
    env.start()
    env.server.faults.add(operation="connect", times=50, **fault)
    ann = env.agent()
    for number in range(10):
        ann.say(str(number))
        ann.say(f"{number} too")
        env.advance(1)
    assert env.heard.texts() == [text for number in range(10) for text in (str(number), f"{number} too")]


def test_too_large_connect_response_is_a_failure(env):
    chat = env.start(client={"maxAnswerSize": 20_000})
    env.agent().say("x" * 50_000)
    env.advance(2)
    assert "disconnected" in env.heard.names
    assert chat.state.has_session


def test_connect_beyond_its_timeout_is_cut_and_repeated(env, webchat_timeline):
    env.start()
    env.heard.take()
    env.server.faults.add(operation="connect", delay=100.0)
    before = webchat_timeline.now()
    env.advance(1)
    assert env.heard.names[0] == "disconnected"
    assert webchat_timeline.now() - before >= 40
    env.advance(2)
    assert env.heard.names[-1] == "reconnected"


def test_chat_is_active_after_outage_of_an_hour(env):
    chat = env.start()
    ann = env.agent()
    env.advance(1)
    env.server.faults.add(operation="connect", drop=True, times=1_000_000)
    env.advance(3600)
    assert chat.state == "offline"
    env.server.faults.clear()
    ann.say("still here?")
    env.advance(120)
    assert chat.state == "active"
    assert env.heard.texts() == ["still here?"]
    changes = [name for name in env.heard.names if "Chat" in name or name.endswith("connected")]
    assert changes.count("disconnected") == changes.count("reconnected") == 1


def test_message_sent_without_response_is_delivered_once(env):
    chat = env.start()
    env.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected):
        chat.send_message("did it arrive?")
    env.advance(3)
    assert env.heard.texts() == ["did it arrive?"]


def test_seventy_mixed_faults_lose_no_message(env, webchat_timeline):
    """Cause all faults in a fixed order: every message is delivered once, and the chat is active at the end."""
    chat = env.open()
    chat.start_chat(nickname="Jonny")
    ann = env.agent()
    faults = [
        lambda: env.server.core.forget_clients(),
        lambda: env.server.faults.add(operation="connect", drop=True, times=2),
        lambda: env.server.core.hang_up(),
        lambda: env.server.faults.add(operation="connect", server_status=1, times=7),
        lambda: env.server.faults.add(operation="handshake", refused="403::No", times=2),
        lambda: env.server.faults.add(operation="requestNotifications", http_status=500, times=1),
        lambda: env.server.faults.add(operation="connect", duplicate=True, reorder=True, times=3),
    ]
    for number in range(70):
        faults[number * 3 % len(faults)]()
        ann.say(str(number))
        env.advance(2.3)
    env.server.faults.clear()
    env.advance(200)
    assert chat.state is State.ACTIVE
    assert sorted(map(int, env.heard.texts())) == list(range(70))
