"""The embedded server's faults, met by a real service: what goes wrong is survived, and told once."""

from __future__ import annotations

import pytest

from webchat_fsm import CommandRejected, State


def test_a_refused_start_is_followed_by_one_that_goes_well(stage):
    stage.server.faults.add(operation="start", server_status=2, errors=((240, "closed today"),))
    chat = stage.open()
    with pytest.raises(CommandRejected, match="closed today"):
        chat.start_chat(nickname="Jonny")
    chat.start_chat(nickname="Jonny")
    assert chat.state == "active"


@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"tear": True}, {"http_status": 502}, {"body": b"\xff\xfe{"}, {"body": b"[" * 100_000}]
)
@pytest.mark.parametrize("operation", ["connect", "handshake", "requestNotifications"])
def test_whatever_goes_wrong_on_the_link_nothing_is_lost_and_nothing_comes_twice(stage, operation, fault):
    chat = stage.start()
    ann = stage.agent()
    stage.advance(1)
    if operation != "connect":
        stage.server.core.forget_clients()
    stage.server.faults.add(operation=operation, times=3, **fault)
    for number in range(20):
        ann.say(str(number))
        stage.advance(1)
    stage.advance(20)
    said = [str(number) for number in range(20)]
    assert sorted(stage.heard.texts(), key=int) == said
    assert [message.text for message in chat.get_transcript().messages if message.type == "Message"] == said
    assert chat.state == "active"
    told = [stage.heard.names.count(name) for name in ("disconnected", "reconnected", "error")]
    unread = operation == "requestNotifications" and not {"drop", "tear"} & set(fault)
    torn = operation == "requestNotifications" and "tear" in fault  # each of these takes effect, and its push comes
    assert told == ([0, 0, 3] if unread else [3, 3, 0] if torn else [1, 1, 0])


@pytest.mark.parametrize("fault", [{"duplicate": True}, {"reorder": True}])
def test_doubled_and_reversed_pushes_are_told_once_in_order(stage, fault):
    stage.start()
    stage.server.faults.add(operation="connect", times=50, **fault)
    ann = stage.agent()
    for number in range(10):
        ann.say(str(number))
        ann.say(f"{number} too")
        stage.advance(1)
    assert stage.heard.texts() == [text for number in range(10) for text in (str(number), f"{number} too")]


def test_an_answer_that_is_too_large_is_a_failed_connect(stage):
    chat = stage.start(client={"maxAnswerSize": 20_000})
    stage.agent().say("x" * 50_000)
    stage.advance(2)
    assert "disconnected" in stage.heard.names
    assert chat.state.has_session


def test_a_connect_that_takes_too_long_is_cut_and_made_again(stage, webchat_timeline):
    stage.start()
    stage.heard.take()
    stage.server.faults.add(operation="connect", delay=100.0)
    before = webchat_timeline.now()
    stage.advance(1)
    assert stage.heard.names[0] == "disconnected"
    assert webchat_timeline.now() - before >= 40
    stage.advance(2)
    assert stage.heard.names[-1] == "reconnected"


def test_an_outage_of_a_whole_hour_ends_well(stage):
    chat = stage.start()
    ann = stage.agent()
    stage.advance(1)
    stage.server.faults.add(operation="connect", drop=True, times=1_000_000)
    stage.advance(3600)
    assert chat.state == "offline"
    stage.server.faults.clear()
    ann.say("still here?")
    stage.advance(120)
    assert chat.state == "active"
    assert stage.heard.texts() == ["still here?"]
    told = [name for name in stage.heard.names if "Chat" in name or name.endswith("connected")]
    assert told.count("disconnected") == told.count("reconnected") == 1


def test_a_message_that_arrives_although_its_sender_never_hears_of_it_comes_back_once(stage):
    chat = stage.start()
    stage.server.faults.add(operation="send", drop=True, takes_effect=True)
    with pytest.raises(CommandRejected):
        chat.send_message("did it arrive?")
    stage.advance(3)
    assert stage.heard.texts() == ["did it arrive?"]


def test_a_storm_of_troubles_breaks_no_law(stage, webchat_timeline):
    """Everything at once, in a fixed order: the laws are watched, and the chat comes through."""
    chat = stage.open()
    chat.start_chat(nickname="Jonny")
    ann = stage.agent()
    troubles = [
        lambda: stage.server.core.forget_clients(),
        lambda: stage.server.faults.add(operation="connect", drop=True, times=2),
        lambda: stage.server.core.hang_up(),
        lambda: stage.server.faults.add(operation="connect", server_status=1, times=7),
        lambda: stage.server.faults.add(operation="handshake", refused="403::No", times=2),
        lambda: stage.server.faults.add(operation="requestNotifications", http_status=500, times=1),
        lambda: stage.server.faults.add(operation="connect", duplicate=True, reorder=True, times=3),
    ]
    for number in range(70):
        troubles[number * 3 % len(troubles)]()
        ann.say(str(number))
        stage.advance(2.3)
    stage.server.faults.clear()
    stage.advance(200)
    assert chat.state is State.ACTIVE
    assert sorted(map(int, stage.heard.texts())) == list(range(70))
