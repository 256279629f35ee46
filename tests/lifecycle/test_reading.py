"""What can be read of a chat, while it lasts and afterwards; and the user data that a chat carries."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest

from webchat_fsm import SessionData


def talk(stage):
    chat = stage.start()
    ann, sue, robo = stage.agent(), stage.server.supervisor("Sue"), stage.server.bot("Robo")
    stage.advance(2)
    sue.join()
    robo.join()
    ann.say("Hello")
    stage.advance(2)
    ann.leave()
    stage.advance(3)
    return chat


def test_agents_and_supervisors_are_listed_with_their_times_and_bots_are_not(stage):
    agents = talk(stage).get_agents()
    assert [(agent.name, agent.connected, agent.supervisor) for agent in agents.values()] == [
        ("Ann", False, False), ("Sue", True, True),
    ]  # fmt: skip
    ann, sue = agents.values()
    assert ann.disconnected_time - ann.connected_time == 4000
    assert (sue.connected_time - ann.connected_time, sue.disconnected_time) == (2000, None)
    on_bus = stage.chat.command("getAgents").value
    assert on_bus["agents"][str(sue.id)] == {
        "name": "Sue", "connected": True, "supervisor": True,
        "connectedTime": sue.connected_time, "disconnectedTime": False,
    }  # fmt: skip


def test_stats_span_the_first_and_the_last_message(stage):
    stats = talk(stage).get_stats()
    assert stats.end_time - stats.start_time == stats.duration == 4000
    on_bus = stage.chat.command("getStats").value
    assert on_bus["duration"] == 4000
    assert set(on_bus) == {"agents", "startTime", "endTime", "duration"}
    assert set(on_bus["agents"]) == {"2", "3"}


def test_before_a_chat_there_is_nothing_and_the_bus_says_false(stage):
    chat = stage.open()
    assert chat.get_agents() == {}
    assert (chat.get_stats().start_time, chat.get_stats().end_time, chat.get_stats().duration) == (None, None, None)
    assert chat.command("getStats").value == {"agents": {}, "startTime": False, "endTime": False, "duration": False}
    assert chat.command("getTranscript").value == {"messages": [], "originalMessages": []}
    assert chat.command("getSessionData").value == {"sessionID": "", "secureKey": "", "alias": "", "userId": ""}
    assert chat.get_session_data() == SessionData()


def test_the_transcript_is_in_order_with_the_wires_own_objects_beside_it(stage):
    transcript = talk(stage).get_transcript()
    assert [message.index for message in transcript.messages] == [1, 2, 3, 4, 5, 6]
    assert [original["index"] for original in transcript.original_messages] == [1, 2, 3, 4, 5, 6]
    on_bus = stage.chat.command("getTranscript").value
    assert [message["text"] for message in on_bus["messages"]] == ["", "", "", "", "Hello", ""]
    assert on_bus["originalMessages"][4]["from"]["nickname"] == "Ann"


@pytest.mark.parametrize(
    ("since", "indexes"),
    [(None, [1, 2, 3, 4, 5, 6]), (0, [1, 2, 3, 4, 5, 6]), (4, [5, 6]), (6, []), (99, []), ("4", [5, 6])],
)
def test_what_is_new_since_an_index(stage, since, indexes):
    assert [message.index for message in talk(stage).get_transcript(since).messages] == indexes


def test_an_index_that_nobody_can_count_to_is_none(stage):
    assert len(talk(stage).get_transcript("9" * 5000).messages) == 6


def test_a_hidden_message_is_no_obstacle_to_what_is_new(stage):
    chat = stage.start()
    chat.add_prefilter(re.compile("secret"))
    ann = stage.agent()
    for text in ("secret", "Hello"):
        ann.say(text)
    stage.advance(3)
    assert [message.index for message in chat.get_transcript(since=3).messages] == [4]


def test_an_agent_who_takes_another_name_is_known_by_it(stage):
    chat = stage.start()
    stage.agent().rename("Annie")
    stage.advance(3)
    assert [agent.name for agent in chat.get_agents().values()] == ["Annie"]


@pytest.mark.parametrize("how", ["endChat", "the server"])
def test_all_of_it_can_be_read_after_the_end(stage, how):
    chat = talk(stage)
    if how == "endChat":
        chat.end_chat()
    else:
        stage.server.end()
        chat.step()
    assert chat.state == "ended"
    assert [message.text for message in chat.get_transcript().messages if message.text] == ["Hello"]
    assert {agent.name: agent.connected for agent in chat.get_agents().values()} == {"Ann": False, "Sue": False}
    assert chat.get_stats().duration >= 4000
    assert chat.get_session_data() == SessionData()


def test_the_next_chat_starts_afresh(stage):
    chat = talk(stage)
    chat.end_chat()
    chat.start_chat(nickname="Again")
    assert chat.get_transcript().messages == ()
    assert chat.get_agents() == {}
    stage.advance(0)
    assert [message.sender.name for message in chat.get_transcript().messages] == ["Again"]


def test_what_is_read_is_a_copy(stage):
    chat = talk(stage)
    before = chat.command("getTranscript").value
    chat.command("getTranscript").value["messages"].clear()
    chat.command("getTranscript").value["messages"][0]["text"] = "forged"
    chat.get_agents().clear()
    assert chat.command("getTranscript").value == before
    assert len(chat.get_agents()) == 2


# -- user data ---------------------------------------------------------------------------------------------------------


def test_user_data_of_the_call_wins_over_the_update_and_that_over_the_configuration(stage):
    chat = stage.open(userData={"from": "config", "tier": "config", "page": "config"})
    assert chat.update_user_data({"tier": "update", "page": "update"}) == {
        "from": "config", "tier": "update", "page": "update",
    }  # fmt: skip
    chat.start_chat(nickname="Jonny", user_data={"page": "call"})
    told = stage.server.core.current_chat().user_data
    assert {key: told[key] for key in ("from", "tier", "page")} == {"from": "config", "tier": "update", "page": "call"}


def test_nested_user_data_travels_in_brackets(stage):
    stage.open().start_chat(nickname="Jonny", user_data={"cart": {"items": 3, "paid": False}, "none": None})
    assert stage.server.core.current_chat().user_data == {"cart": {"items": "3", "paid": "false"}, "none": ""}


def holding_itself() -> dict[str, object]:
    cycle: dict[str, object] = {"page": "/help"}
    cycle["itself"] = cycle
    return cycle


@pytest.mark.parametrize("given", [holding_itself(), {"number": 10**5000}])
def test_user_data_that_cannot_be_written_down_are_refused_and_spoil_nothing(stage, given):
    chat = stage.open()
    outcome = chat.command("startChat", {"nickname": "Jonny", "userData": given})
    assert outcome.reason == "malformed data object provided in userData property"
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be written down"):
            chat.update_user_data(given)
        if chat.state == "idle":
            chat.start_chat(nickname="Jonny")
    assert chat.update_user_data({"tier": "gold"}).status == 200
    assert chat.health().store_failure == ""


MALFORMED = "malformed data object provided in userData property"


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"tier": object()}, "userData.tier is of type object"),
        ({"cart": {"items": [1, b"x"]}}, r"userData.cart.items\[1\] is of type bytes"),
        ({"page": {1, 2}}, "userData.page is of type set"),
        ({b"page": 1}, "userData has a key of type bytes"),
    ],
)
def test_user_data_without_a_text_are_refused_by_name_and_never_sent_as_their_repr(stage, given, place):
    chat = stage.open()
    with pytest.raises(TypeError, match=place):
        chat.start_chat(nickname="Jonny", user_data=given)
    assert chat.command("startChat", {"nickname": "Jonny", "userData": given}).reason == MALFORMED
    assert chat.command("startChat", {"form": {"nickname": "Jonny", "userData": given}}).reason == MALFORMED
    chat.start_chat(nickname="Jonny")
    with pytest.raises(TypeError, match=place):
        chat.update_user_data(given)
    assert chat.command("updateUserData", given).reason == MALFORMED
    assert chat.command("startChat", {"userData": given}).reason == "There is already an active chat session"
    assert stage.http.operations().count("start") == 1
    assert "updateData" not in stage.http.operations()


def test_a_field_of_the_form_without_a_text_is_refused_by_name(stage):
    chat = stage.open()
    with pytest.raises(TypeError, match="nickname is of type bytes, which cannot be sent"):
        chat.start_chat(nickname=b"Jonny")
    assert "subject is of type object" in chat.command("startChat", {"form": {"subject": object()}}).reason
    chat.start_chat(nickname="Jonny")
    with pytest.raises(TypeError, match="message is of type bytes"):
        chat.send_typing(b"h")
    with pytest.raises(TypeError, match=r"eventAttributes\.page is of type object"):
        chat.send_custom_notice("x", event_attributes={"page": object()})
    with pytest.raises(TypeError, match="type is of type bytes"):
        chat.send_message("Hello", type=b"text")


def test_what_has_a_text_of_its_own_is_sent_as_that(stage):
    given = {"day": date(2026, 3, 29), "price": Decimal("9.90"), "many": (1, 2.5), "yes": True, "no": None, 7: "seven"}
    stage.open().start_chat(nickname="Jonny", user_data=given)
    told = stage.server.core.current_chat().user_data
    assert {key: told[key] for key in ("day", "price", "yes", "no", "7")} == {
        "day": "2026-03-29",
        "price": "9.90",
        "yes": "true",
        "no": "",
        "7": "seven",
    }


def test_what_cannot_be_sent_rejects_and_the_chat_goes_on(stage):
    chat = stage.start()
    outcome = chat.command("sendCustomNotice", {"message": "x", "eventAttributes": holding_itself()})
    assert "what was given cannot be written down" in outcome.reason
    assert chat.send_message("Hello").status == "sent"


def test_what_is_given_while_restoring_lies_above_what_was_saved(stage):
    stage.start(userData={"tier": "old", "page": "/"}).close()
    later = stage.client()
    later.subscribe("ready", lambda event: later.update_user_data({"tier": "new"}))
    later.open()
    stage.advance(0)
    assert stage.asked("updateData")[-1]["userData"] == {"tier": "new"}
    later.end_chat()
    assert later.update_user_data({}) == {"tier": "new", "page": "/"}


@pytest.mark.parametrize("beside", [None, {"page": "beside"}])
def test_user_data_may_stand_in_the_form(stage, beside):
    chat = stage.open()
    form = {"nickname": "Jonny", "userData": {"page": "form"}}
    assert chat.command("startChat", {"form": form, **({"userData": beside} if beside else {})})
    assert stage.server.core.current_chat().user_data == (beside or {"page": "form"})


def test_user_data_in_the_form_that_are_none_are_refused(stage):
    outcome = stage.open().command("startChat", {"form": {"nickname": "Jonny", "userData": "nonsense"}})
    assert outcome.reason == "malformed data object provided in userData property"


def test_in_a_chat_only_the_new_keys_are_sent(stage):
    chat = stage.start(userData={"tier": "gold"})
    assert chat.update_user_data({"page": "/help"}).status == 200
    assert stage.asked("updateData")[0]["userData"] == {"page": "/help"}
    chat.end_chat()
    assert chat.update_user_data({}) == {"tier": "gold", "page": "/help"}


@pytest.mark.parametrize("door", ["starting", "restoring"])
def test_what_comes_while_a_chat_begins_is_sent_once_when_it_has_begun(stage, door):
    if door == "starting":
        chat = stage.open()
        stage.http.during("start", lambda: chat.update_user_data({"page": "/help"}))
        chat.start_chat(nickname="Jonny")
    else:
        stage.start().close()
        chat = stage.client()
        stage.http.during("restore", lambda: chat.update_user_data({"page": "/help"}))
        chat.open()
    stage.advance(5)
    assert [asked["userData"] for asked in stage.asked("updateData")] == [{"page": "/help"}]


def test_what_comes_while_a_start_fails_waits_for_the_next_one(stage):
    chat = stage.open()
    stage.http.during("start", lambda: chat.update_user_data({"page": "/help"}))
    stage.server.faults.add(operation="start", server_status=2)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    chat.start_chat(nickname="Jonny")
    stage.advance(5)
    assert stage.server.core.current_chat().user_data == {"page": "/help"}
    assert stage.asked("updateData") == []


def test_a_start_takes_the_form_of_the_reference_in_either_shape(stage):
    chat = stage.open()
    form = {"firstname": "Jon", "lastname": "Doe", "email": "j@x.test", "subject": "a question"}
    assert chat.command("startChat", {"form": form, "userData": {"a": "1"}})
    asked = stage.asked("start")[-1]
    wanted = {"firstName": "Jon", "lastName": "Doe", "emailAddress": "j@x.test", "subject": "a question"}
    assert {key: asked[key] for key in wanted} == wanted
    chat.end_chat()
    assert chat.command("startChat", {**form, "userData": {"a": "1"}})
    assert {key: stage.asked("start")[-1][key] for key in wanted} == wanted
    assert stage.server.core.current_chat().user_data == {"a": "1"}
