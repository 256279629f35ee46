"""Check reading a chat, during it and after its end, and the user data of a chat."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest

from webchat_fsm import SessionData


def talk(env):
    chat = env.start()
    ann, sue, robo = env.agent(), env.server.supervisor("Sue"), env.server.bot("Robo")
    env.advance(2)
    sue.join()
    robo.join()
    ann.say("Hello")
    env.advance(2)
    ann.leave()
    env.advance(3)
    return chat


def test_get_agents_has_agents_and_supervisors_but_no_bots(env):
    agents = talk(env).get_agents()
    assert [(agent.name, agent.connected, agent.supervisor) for agent in agents.values()] == [
        ("Ann", False, False), ("Sue", True, True),
    ]  # fmt: skip
    ann, sue = agents.values()
    assert ann.disconnected_time - ann.connected_time == 4000
    assert (sue.connected_time - ann.connected_time, sue.disconnected_time) == (2000, None)
    on_bus = env.chat.command("getAgents").value
    assert on_bus["agents"][str(sue.id)] == {
        "name": "Sue", "connected": True, "supervisor": True,
        "connectedTime": sue.connected_time, "disconnectedTime": False,
    }  # fmt: skip


def test_stats_span_first_to_last_message(env):
    stats = talk(env).get_stats()
    assert stats.end_time - stats.start_time == stats.duration == 4000
    on_bus = env.chat.command("getStats").value
    assert on_bus["duration"] == 4000
    assert set(on_bus) == {"agents", "startTime", "endTime", "duration"}
    assert set(on_bus["agents"]) == {"2", "3"}


def test_values_before_a_chat_are_empty_and_false_on_bus(env):
    chat = env.open()
    assert chat.get_agents() == {}
    assert (chat.get_stats().start_time, chat.get_stats().end_time, chat.get_stats().duration) == (None, None, None)
    assert chat.command("getStats").value == {"agents": {}, "startTime": False, "endTime": False, "duration": False}
    assert chat.command("getTranscript").value == {"messages": [], "originalMessages": []}
    assert chat.command("getSessionData").value == {"sessionID": "", "secureKey": "", "alias": "", "userId": ""}
    assert chat.get_session_data() == SessionData()


def test_transcript_is_ordered_with_wire_originals(env):
    transcript = talk(env).get_transcript()
    assert [message.index for message in transcript.messages] == [1, 2, 3, 4, 5, 6]
    assert [original["index"] for original in transcript.original_messages] == [1, 2, 3, 4, 5, 6]
    on_bus = env.chat.command("getTranscript").value
    assert [message["text"] for message in on_bus["messages"]] == ["", "", "", "", "Hello", ""]
    assert on_bus["originalMessages"][4]["from"]["nickname"] == "Ann"


@pytest.mark.parametrize(
    ("since", "indexes"),
    [(None, [1, 2, 3, 4, 5, 6]), (0, [1, 2, 3, 4, 5, 6]), (4, [5, 6]), (6, []), (99, []), ("4", [5, 6])],
)
def test_transcript_since_index_has_new_messages(env, since, indexes):
    assert [message.index for message in talk(env).get_transcript(since).messages] == indexes


def test_invalid_since_index_is_ignored(env):
    assert len(talk(env).get_transcript("9" * 5000).messages) == 6


def test_hidden_message_does_not_stop_since_index(env):
    chat = env.start()
    chat.add_prefilter(re.compile("secret"))
    ann = env.agent()
    for text in ("secret", "Hello"):
        ann.say(text)
    env.advance(3)
    assert [message.index for message in chat.get_transcript(since=3).messages] == [4]


def test_renamed_agent_is_listed_by_the_new_name(env):
    chat = env.start()
    env.agent().rename("Annie")
    env.advance(3)
    assert [agent.name for agent in chat.get_agents().values()] == ["Annie"]


@pytest.mark.parametrize("how", ["endChat", "the server"])
def test_chat_can_be_read_after_its_end(env, how):
    chat = talk(env)
    if how == "endChat":
        chat.end_chat()
    else:
        env.server.end()
        chat.step()
    assert chat.state == "ended"
    assert [message.text for message in chat.get_transcript().messages if message.text] == ["Hello"]
    assert {agent.name: agent.connected for agent in chat.get_agents().values()} == {"Ann": False, "Sue": False}
    assert chat.get_stats().duration >= 4000
    assert chat.get_session_data() == SessionData()


def test_next_chat_starts_without_messages_and_agents(env):
    chat = talk(env)
    chat.end_chat()
    chat.start_chat(nickname="Again")
    assert chat.get_transcript().messages == ()
    assert chat.get_agents() == {}
    env.advance(0)
    assert [message.sender.name for message in chat.get_transcript().messages] == ["Again"]


def test_read_values_are_copies(env):
    chat = talk(env)
    before = chat.command("getTranscript").value
    chat.command("getTranscript").value["messages"].clear()
    chat.command("getTranscript").value["messages"][0]["text"] = "forged"
    chat.get_agents().clear()
    assert chat.command("getTranscript").value == before
    assert len(chat.get_agents()) == 2


# -- user data ---------------------------------------------------------------------------------------------------------


def test_user_data_precedence_call_update_configuration(env):
    chat = env.open(userData={"from": "config", "tier": "config", "page": "config"})
    assert chat.update_user_data({"tier": "update", "page": "update"}) == {
        "from": "config", "tier": "update", "page": "update",
    }  # fmt: skip
    chat.start_chat(nickname="Jonny", user_data={"page": "call"})
    received = env.server.core.current_chat().user_data
    assert {key: received[key] for key in ("from", "tier", "page")} == {
        "from": "config",
        "tier": "update",
        "page": "call",
    }


def test_nested_user_data_is_sent_in_brackets(env):
    env.open().start_chat(nickname="Jonny", user_data={"cart": {"items": 3, "paid": False}, "none": None})
    assert env.server.core.current_chat().user_data == {"cart": {"items": "3", "paid": "false"}, "none": ""}


def holding_itself() -> dict[str, object]:
    cycle: dict[str, object] = {"page": "/help"}
    cycle["itself"] = cycle
    return cycle


@pytest.mark.parametrize("given", [holding_itself(), {"number": 10**5000}])
def test_unserialisable_user_data_is_rejected_unsent(env, given):
    chat = env.open()
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
def test_user_data_of_unsendable_type_is_rejected_by_name(env, given, place):
    chat = env.open()
    with pytest.raises(TypeError, match=place):
        chat.start_chat(nickname="Jonny", user_data=given)
    assert chat.command("startChat", {"nickname": "Jonny", "userData": given}).reason == MALFORMED
    assert chat.command("startChat", {"form": {"nickname": "Jonny", "userData": given}}).reason == MALFORMED
    chat.start_chat(nickname="Jonny")
    with pytest.raises(TypeError, match=place):
        chat.update_user_data(given)
    assert chat.command("updateUserData", given).reason == MALFORMED
    assert chat.command("startChat", {"userData": given}).reason == "There is already an active chat session"
    assert env.http.operations().count("start") == 1
    assert "updateData" not in env.http.operations()


def test_argument_of_unsendable_type_raises_by_name(env):
    chat = env.open()
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


def test_user_data_with_own_text_is_sent_as_text(env):
    given = {"day": date(2026, 3, 29), "price": Decimal("9.90"), "many": (1, 2.5), "yes": True, "no": None, 7: "seven"}
    env.open().start_chat(nickname="Jonny", user_data=given)
    received = env.server.core.current_chat().user_data
    assert {key: received[key] for key in ("day", "price", "yes", "no", "7")} == {
        "day": "2026-03-29",
        "price": "9.90",
        "yes": "true",
        "no": "",
        "7": "seven",
    }


def test_unsendable_value_rejects_and_chat_continues(env):
    chat = env.start()
    outcome = chat.command("sendCustomNotice", {"message": "x", "eventAttributes": holding_itself()})
    assert "what was given cannot be written down" in outcome.reason
    assert chat.send_message("Hello").status == "sent"


def test_user_data_given_while_restoring_overrides_saved(env):
    env.start(userData={"tier": "old", "page": "/"}).close()
    later = env.client()
    later.subscribe("ready", lambda event: later.update_user_data({"tier": "new"}))
    later.open()
    env.advance(0)
    assert env.asked("updateData")[-1]["userData"] == {"tier": "new"}
    later.end_chat()
    assert later.update_user_data({}) == {"tier": "new", "page": "/"}


@pytest.mark.parametrize("beside", [None, {"page": "beside"}])
def test_user_data_in_form_is_used_unless_given_beside(env, beside):
    chat = env.open()
    form = {"nickname": "Jonny", "userData": {"page": "form"}}
    assert chat.command("startChat", {"form": form, **({"userData": beside} if beside else {})})
    assert env.server.core.current_chat().user_data == (beside or {"page": "form"})


def test_malformed_user_data_in_form_is_rejected(env):
    outcome = env.open().command("startChat", {"form": {"nickname": "Jonny", "userData": "nonsense"}})
    assert outcome.reason == "malformed data object provided in userData property"


def test_user_data_update_in_chat_sends_only_new_keys(env):
    chat = env.start(userData={"tier": "gold"})
    assert chat.update_user_data({"page": "/help"}).status == 200
    assert env.asked("updateData")[0]["userData"] == {"page": "/help"}
    chat.end_chat()
    assert chat.update_user_data({}) == {"tier": "gold", "page": "/help"}


@pytest.mark.parametrize("moment", ["starting", "restoring"])
def test_user_data_during_start_is_sent_once_afterwards(env, moment):
    if moment == "starting":
        chat = env.open()
        env.http.during("start", lambda: chat.update_user_data({"page": "/help"}))
        chat.start_chat(nickname="Jonny")
    else:
        env.start().close()
        chat = env.client()
        env.http.during("restore", lambda: chat.update_user_data({"page": "/help"}))
        chat.open()
    env.advance(5)
    assert [asked["userData"] for asked in env.asked("updateData")] == [{"page": "/help"}]


def test_user_data_during_failed_start_is_kept_for_next(env):
    chat = env.open()
    env.http.during("start", lambda: chat.update_user_data({"page": "/help"}))
    env.server.faults.add(operation="start", server_status=2)
    assert not chat.command("startChat", {"nickname": "Jonny"})
    chat.start_chat(nickname="Jonny")
    env.advance(5)
    assert env.server.core.current_chat().user_data == {"page": "/help"}
    assert env.asked("updateData") == []


def test_start_accepts_form_in_both_shapes(env):
    chat = env.open()
    form = {"firstname": "Jon", "lastname": "Doe", "email": "j@x.test", "subject": "a question"}
    assert chat.command("startChat", {"form": form, "userData": {"a": "1"}})
    asked = env.asked("start")[-1]
    wanted = {"firstName": "Jon", "lastName": "Doe", "emailAddress": "j@x.test", "subject": "a question"}
    assert {key: asked[key] for key in wanted} == wanted
    chat.end_chat()
    assert chat.command("startChat", {**form, "userData": {"a": "1"}})
    assert {key: env.asked("start")[-1][key] for key in wanted} == wanted
    assert env.server.core.current_chat().user_data == {"a": "1"}
