"""Check agents, supervisors and bots, moved by calls and by scripts."""

from __future__ import annotations

import pytest

from webchat_fsm.server import BUSY_FLOOR, HELPFUL_AGENT, ChatServer, Script, Step


def test_agent_actions_become_events_in_order(visitor, types):
    ann = visitor.server.agent("Ann")
    ann.join()
    ann.typing()
    ann.stop_typing()
    ann.say("Hello")
    ann.push_url("https://shop.example/help")
    ann.leave()
    envelope = visitor.refresh(2)
    assert types(envelope) == [
        "ParticipantJoined",
        "TypingStarted",
        "TypingStopped",
        "Message",
        "PushUrl",
        "ParticipantLeft",
    ]
    assert [message["from"] for message in envelope["messages"]] == [
        {"nickname": "Ann", "participantId": 2, "type": "Agent"}
    ] * 6
    assert envelope["chatEnded"] is False


def test_events_of_people_have_time_of_last_request(visitor):
    visitor.now = 1234.5
    visitor.refresh()
    ann = visitor.server.agent("Ann").join()
    assert ann.say("Hello").utc_time == 1_234_500


def test_events_of_people_have_time_of_given_clock(rest_class):
    now = [50.0]
    visitor = rest_class(ChatServer(clock=lambda: now[0]), now=50.0)
    visitor.start()
    now[0] = 60.0
    assert visitor.server.agent("Ann").join().say("Hello").utc_time == 60_000


def test_earlier_request_time_does_not_set_clock_back(visitor):
    visitor.now = 5.0
    assert visitor.call("send", message="hi", transcriptPosition=2)["messages"][0]["utcTime"] == 1_000_000


def test_chat_is_monitored_while_supervisor_is_joined(visitor):
    assert "monitored" not in visitor.refresh()
    sue = visitor.server.supervisor("Sue").join()
    envelope = visitor.refresh(2)
    assert envelope["monitored"] is True
    assert envelope["messages"][0]["from"]["type"] == "Supervisor"
    sue.leave()
    assert "monitored" not in visitor.refresh()


def test_bot_is_agent_with_style_or_configured_type(visitor, visit):
    visitor.server.bot("Robo").join()
    joined = visitor.refresh(2)["messages"][0]
    assert joined["from"]["type"] == "Agent"
    assert joined["eventAttributes"]["GCTI_SYSTEM"]["party-info"]["style"] == "BOT"

    literal = visit(bot_type="Bot")
    literal.start()
    literal.server.bot("Robo").join()
    assert literal.refresh(2)["messages"][0]["from"]["type"] == "Bot"


def test_file_of_agent_is_downloaded_by_client(visitor):
    file = visitor.server.agent("Ann").join().send_file("a.txt", b"text", description="a note")
    event = visitor.refresh(3)["messages"][0]
    assert (event["type"], event["text"], event["from"]["type"]) == ("FileUploaded", file.id, "Agent")
    assert event["userData"]["file-description"] == "a note"
    assert visitor.ask(f"file/{file.id}/download").body == b"text"
    assert visitor.call("file/limits")["messages"][0]["userData"]["used-upload-max-files"] == "0"


def test_rejoined_agent_keeps_participant_id(visitor):
    ann = visitor.server.agent("Ann").join()
    ann.leave()
    ann.join()
    ann.join()
    assert [message["from"]["participantId"] for message in visitor.refresh(2)["messages"]] == [2, 2, 2]


def test_agent_in_two_chats_sends_to_each(visitor, rest_class, types):
    other = rest_class(visitor.server)
    other.start(nickname="Mia")
    first, second = visitor.server.chats
    ann = visitor.server.agent("Ann").join(first)
    ann.join(second)
    ann.say("to Jonny", first)
    ann.say("to Mia")
    assert visitor.refresh(3)["messages"][0]["text"] == "to Jonny"
    assert other.refresh(3)["messages"][0]["text"] == "to Mia"


def test_person_outside_chat_cannot_act(visitor):
    ann = visitor.server.agent("Ann")
    with pytest.raises(RuntimeError, match="Ann is not in a chat"):
        ann.say("Hello")
    ann.join().leave()
    with pytest.raises(RuntimeError, match="Ann is not in"):
        ann.say("Hello")
    visitor.server.end()
    with pytest.raises(RuntimeError, match="cannot join"):
        ann.join()


def test_join_without_chat_raises_lookup_error():
    with pytest.raises(LookupError, match="no chat"):
        ChatServer().agent("Ann").join()


def test_rename_and_notices_become_events_of_new_name(visitor, types):
    ann = visitor.server.agent("Ann").join()
    ann.rename("Anna")
    ann.notice('{"Survey_URL":"https://shop.example/s"}', attributes={"a": 1})
    ann.notice("recorded", custom=False)
    envelope = visitor.refresh(3)
    assert types(envelope) == ["NicknameUpdated", "CustomNotice", "Notice"]
    assert {message["from"]["nickname"] for message in envelope["messages"]} == {"Anna"}


def test_watchers_are_called_until_unregistered(visitor):
    heard: list[int] = []
    stop = visitor.server.on_change(lambda: heard.append(len(visitor.server.current_chat().transcript)))
    visitor.server.agent("Ann").join()
    visitor.call("send", message="hi")
    stop()
    visitor.call("send", message="ho")
    assert heard == [2, 3]


# Scripts


def test_helpful_agent_script_greets_and_answers(rest_class, types):
    visitor = rest_class(ChatServer(script=HELPFUL_AGENT), now=0.0)
    visitor.start(nickname="Mia")
    assert visitor.server.tick(0.0) == 1.0
    assert visitor.server.tick(1.0) == 1.6
    visitor.now = 10.0
    greeting = visitor.refresh(2)
    assert types(greeting) == ["ParticipantJoined", "TypingStarted", "TypingStopped", "Message"]
    assert "Hello Mia" in greeting["messages"][-1]["text"]
    assert [message["utcTime"] for message in greeting["messages"]] == [1000, 1600, 2400, 2400]

    visitor.call("send", message="where is my parcel?")
    assert visitor.server.tick(10.0) == 10.5
    assert visitor.server.tick(20.0) is None
    answer = visitor.refresh(6)
    assert types(answer) == ["Message", "TypingStarted", "TypingStopped", "Message"]
    assert "where is my parcel?" in answer["messages"][-1]["text"]


def test_busy_floor_script_ends_with_ann_and_sue(rest_class):
    visitor = rest_class(ChatServer(script=BUSY_FLOOR), now=0.0)
    visitor.start()
    visitor.now = 9.0
    present = [party.sender.nickname for party in visitor.server.current_chat().parties if party.connected]
    visitor.refresh()
    present = [party.sender.nickname for party in visitor.server.current_chat().parties if party.connected]
    assert present == ["Jonny", "Ann", "Sue"]


def test_script_sends_file_and_ends_chat_on_message(rest_class, types):
    script = Script(
        cast={"Ann": "agent"},
        steps=(
            Step(0.0, "Ann", "join"),
            Step(1.0, "Ann", "send_file", "terms.txt", on="message", containing="TERMS"),
            Step(2.0, "Ann", "end", on="message", containing="bye"),
        ),
    )
    visitor = rest_class(ChatServer(script=script), now=0.0)
    visitor.start()
    visitor.call("send", message="the terms please, and bye")
    visitor.now = 5.0
    envelope = visitor.refresh(4)
    assert types(envelope) == ["FileUploaded", "ParticipantLeft"]
    assert envelope["chatEnded"] is True


def test_script_stops_when_client_leaves(rest_class):
    visitor = rest_class(ChatServer(script=HELPFUL_AGENT), now=0.0)
    visitor.start()
    visitor.call("disconnect")
    visitor.server.tick(60.0)
    assert len(visitor.server.current_chat().transcript) == 2


def test_script_step_outside_cast_raises_value_error():
    with pytest.raises(ValueError, match="not in the cast: Bob"):
        ChatServer(script=Script(cast={}, steps=(Step(0.0, "Bob", "join"),)))
