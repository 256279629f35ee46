"""The user's own typing: the countdown, the preview that travels with each poll, and what a send makes of it."""

from __future__ import annotations

import logging

import pytest

from webchat_fsm import CommandRejected

TYPING = {"clientTypingStarted", "clientTypingStopped"}


def typing(stage) -> list[str]:
    return [name for name in stage.heard.take() if name in TYPING]


def requests(stage) -> list[str]:
    return [name for name in stage.http.operations() if name in ("startTyping", "stopTyping")]


def test_typing_starts_with_a_request_and_stops_after_two_quiet_seconds_with_another(stage):
    chat = stage.start()
    response = chat.send_typing("he")
    assert response.status == 200
    assert (typing(stage), requests(stage)) == (["clientTypingStarted"], ["startTyping"])
    stage.advance(1.999)
    assert typing(stage) == []
    stage.advance(0.001)
    assert (typing(stage), requests(stage)) == (["clientTypingStopped"], ["startTyping", "stopTyping"])
    assert stage.asked("startTyping")[0]["message"] == "he"


def test_repeats_restart_the_countdown_without_requests(stage):
    chat = stage.start()
    chat.send_typing("h")
    for _ in range(5):
        stage.advance(1.9)
        assert chat.send_typing("hello") is None
    assert (typing(stage), requests(stage)) == (["clientTypingStarted"], ["startTyping"])
    stage.advance(2)
    assert (typing(stage), requests(stage)) == (["clientTypingStopped"], ["startTyping", "stopTyping"])


def test_a_burst_may_follow_a_burst(stage):
    chat = stage.start()
    for _ in range(2):
        chat.send_typing()
        stage.advance(2)
    assert typing(stage) == ["clientTypingStarted", "clientTypingStopped"] * 2


def test_a_message_ends_the_typing_before_it_is_sent_and_without_a_request(stage):
    chat = stage.start()
    chat.send_typing("h")
    told = []
    stage.http.during("send", lambda: told.extend(typing(stage)))
    chat.send_message("hello")
    assert told == ["clientTypingStarted", "clientTypingStopped"]
    stage.advance(5)
    assert (typing(stage), requests(stage)) == ([], ["startTyping"])


def test_a_message_without_typing_stops_nothing(stage):
    stage.start().send_message("hello")
    assert typing(stage) == []


@pytest.mark.parametrize("key", ["message", "Message"])
def test_the_text_may_be_spelled_both_ways(stage, key):
    stage.start().command("sendTyping", {key: "abc"})
    assert stage.asked("startTyping")[0]["message"] == "abc"


def test_a_refused_start_of_typing_rejects_and_the_countdown_goes_on(stage):
    chat = stage.start()
    stage.server.faults.add(operation="startTyping", http_status=500)
    with pytest.raises(CommandRejected):
        chat.send_typing("h")
    stage.advance(2)
    assert typing(stage) == ["clientTypingStarted", "clientTypingStopped"]


@pytest.mark.parametrize("how", ["endChat", "the server", "close"])
def test_the_end_of_a_session_closes_a_burst_without_an_event(stage, how):
    chat = stage.start()
    chat.send_typing("h")
    if how == "endChat":
        chat.end_chat()
    elif how == "the server":
        stage.server.end()
        chat.step()
    else:
        chat.close()
    stage.advance(5)
    assert typing(stage) == ["clientTypingStarted"]
    assert "stopTyping" not in requests(stage)


def test_ones_own_echo_is_a_message_and_no_event_of_an_agent(stage):
    chat = stage.start()
    chat.send_typing("h")
    stage.advance(3)
    assert [entry.type for entry in chat.get_transcript().messages[1:]] == ["TypingStarted", "TypingStopped"]
    assert not {"agentTypingStarted", "agentTypingStopped"} & set(stage.heard.names)


class Input:
    """A text field of a program."""

    def __init__(self, value: str = "", kind: str | None = "text"):
        self.value = value
        if kind:
            self.type = kind


def test_the_preview_travels_with_each_poll_and_a_change_of_it_counts_as_typing(stage):
    chat, field = stage.start(), Input()
    chat.register_typing_preview_input(field)
    stage.advance(3)
    assert typing(stage) == []
    field.value = "hel"
    stage.advance(1)
    assert typing(stage) == ["clientTypingStarted"]
    assert stage.asked("refresh")[-1]["message"] == "hel"
    assert stage.asked("startTyping")[0]["message"] == "hel"
    stage.advance(5)
    assert typing(stage) == ["clientTypingStopped"]
    assert stage.asked("refresh")[-1]["message"] == "hel"


def test_what_is_typed_between_two_polls_is_one_burst(stage):
    chat, field = stage.start(), Input()
    chat.register_typing_preview_input(field)
    for letter in "a long text that is typed slowly" * 4:
        field.value += letter
        stage.advance(0.25)
    assert typing(stage) == ["clientTypingStarted"]
    assert requests(stage) == ["startTyping"]


def test_typing_is_noticed_where_polling_is_stopped(stage):
    chat, field = stage.start(), Input()
    chat.register_typing_preview_input(field)
    chat.stop_poll()
    field.value = "hel"
    stage.advance(1)
    assert typing(stage) == ["clientTypingStarted"]


def test_typing_without_a_text_tells_what_the_input_holds(stage):
    chat = stage.start()
    chat.register_typing_preview_input(Input("draft"))
    chat.send_typing()
    assert stage.asked("startTyping")[0]["message"] == "draft"


@pytest.mark.parametrize("refusal", [{"http_status": 400}, {"server_status": 2, "chat_ended": False}])
def test_a_preview_that_is_too_long_is_left_out_and_the_messages_come(stage, refusal):
    chat, field = stage.start(), Input()
    chat.register_typing_preview_input(field)
    stage.heard.take()
    field.value = "x" * 5000
    stage.server.faults.add(operation="refresh", errors=(204,), **refusal)
    stage.agent().say("Hello")
    stage.advance(5)
    assert set(stage.heard.names) == {"clientTypingStarted", "clientTypingStopped", "agentConnected", "messageReceived"}
    assert [fields["message"] for fields in stage.asked("refresh")[-2:]] == ["", ""]
    assert chat.health().failures == 0
    field.value = "short again"
    stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == "short again"


def test_an_emptied_field_is_no_typing(stage):
    chat, field = stage.start(), Input("hel")
    chat.register_typing_preview_input(field)
    stage.advance(5)
    stage.heard.take()
    field.value = ""
    stage.advance(5)
    assert (typing(stage), stage.asked("refresh")[-1]["message"]) == ([], "")


@pytest.mark.parametrize("field", [Input(kind="text"), Input(kind="textarea"), Input(kind=None)])
def test_any_object_with_a_value_is_an_input(stage, field):
    assert stage.open().command("registerTypingPreviewInput", {"input": field})


@pytest.mark.parametrize("field", [Input(kind="checkbox"), Input(kind="password"), object(), "text", 5])
def test_what_is_no_text_input_is_refused(stage, field):
    assert not stage.open().command("registerTypingPreviewInput", {"input": field})


class Moody:
    """An input whose value cannot always be had."""

    type = "text"
    mood = "bad"

    @property
    def value(self):
        if self.mood == "bad":
            raise RuntimeError("not now")
        return self.mood


def test_an_input_that_raises_is_an_empty_one_until_it_is_better(stage, caplog):
    chat, field = stage.start(), Moody()
    with caplog.at_level(logging.CRITICAL, "webchat_fsm"):
        assert chat.command("registerTypingPreviewInput", {"input": field})
        stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == ""
    field.mood = "fine"
    stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == "fine"
    assert chat.state == "polling"


class Inquisitive:
    """An input that asks the service about itself while it is looked at."""

    type = "text"

    def __init__(self, chat):
        self._chat = chat

    @property
    def value(self):
        return ",".join(name for name in ("startChat", "sendMessage") if self._chat.can(name))


def test_an_input_may_ask_the_service_while_it_is_read(stage):
    chat = stage.start()
    chat.register_typing_preview_input(Inquisitive(chat))
    stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == "sendMessage"


def test_a_value_that_is_no_text_is_sent_as_one(stage):
    chat = stage.start()
    chat.register_typing_preview_input(Input(None))
    stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == ""
    chat.register_typing_preview_input(Input(5))
    stage.advance(3)
    assert stage.asked("refresh")[-1]["message"] == "5"
