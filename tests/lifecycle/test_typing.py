"""Check the user's typing: the countdown, the preview sent with each poll, and its end by a sent message."""

from __future__ import annotations

import logging

import pytest

from webchat_fsm import CommandRejected

TYPING = {"clientTypingStarted", "clientTypingStopped"}


def typing(env) -> list[str]:
    return [name for name in env.heard.take() if name in TYPING]


def requests(env) -> list[str]:
    return [name for name in env.http.operations() if name in ("startTyping", "stopTyping")]


def test_typing_start_and_stop_send_one_request_each(env):
    chat = env.start()
    response = chat.send_typing("he")
    assert response.status == 200
    assert (typing(env), requests(env)) == (["clientTypingStarted"], ["startTyping"])
    env.advance(1.999)
    assert typing(env) == []
    env.advance(0.001)
    assert (typing(env), requests(env)) == (["clientTypingStopped"], ["startTyping", "stopTyping"])
    assert env.asked("startTyping")[0]["message"] == "he"


def test_repeated_typing_restarts_countdown_unsent(env):
    chat = env.start()
    chat.send_typing("h")
    for _ in range(5):
        env.advance(1.9)
        assert chat.send_typing("hello") is None
    assert (typing(env), requests(env)) == (["clientTypingStarted"], ["startTyping"])
    env.advance(2)
    assert (typing(env), requests(env)) == (["clientTypingStopped"], ["startTyping", "stopTyping"])


def test_typing_after_a_stop_starts_again(env):
    chat = env.start()
    for _ in range(2):
        chat.send_typing()
        env.advance(2)
    assert typing(env) == ["clientTypingStarted", "clientTypingStopped"] * 2


def test_message_ends_typing_without_request(env):
    chat = env.start()
    chat.send_typing("h")
    before_send = []
    env.http.during("send", lambda: before_send.extend(typing(env)))
    chat.send_message("hello")
    assert before_send == ["clientTypingStarted", "clientTypingStopped"]
    env.advance(5)
    assert (typing(env), requests(env)) == ([], ["startTyping"])


def test_message_without_typing_publishes_no_typing_event(env):
    env.start().send_message("hello")
    assert typing(env) == []


@pytest.mark.parametrize("key", ["message", "Message"])
def test_send_typing_accepts_both_spellings_of_message(env, key):
    env.start().command("sendTyping", {key: "abc"})
    assert env.asked("startTyping")[0]["message"] == "abc"


def test_rejected_typing_start_keeps_countdown(env):
    chat = env.start()
    env.server.faults.add(operation="startTyping", http_status=500)
    with pytest.raises(CommandRejected):
        chat.send_typing("h")
    env.advance(2)
    assert typing(env) == ["clientTypingStarted", "clientTypingStopped"]


@pytest.mark.parametrize("how", ["endChat", "the server", "close"])
def test_session_end_stops_typing_without_event_or_request(env, how):
    chat = env.start()
    chat.send_typing("h")
    if how == "endChat":
        chat.end_chat()
    elif how == "the server":
        env.server.end()
        chat.step()
    else:
        chat.close()
    env.advance(5)
    assert typing(env) == ["clientTypingStarted"]
    assert "stopTyping" not in requests(env)


def test_own_typing_message_is_no_agent_typing_event(env):
    chat = env.start()
    chat.send_typing("h")
    env.advance(3)
    assert [entry.type for entry in chat.get_transcript().messages[1:]] == ["TypingStarted", "TypingStopped"]
    assert not {"agentTypingStarted", "agentTypingStopped"} & set(env.heard.names)


class Input:
    """Stands for a text field of a program."""

    def __init__(self, value: str = "", kind: str | None = "text"):
        self.value = value
        if kind:
            self.type = kind


def test_preview_is_polled_and_its_change_is_typing(env):
    chat, field = env.start(), Input()
    chat.register_typing_preview_input(field)
    env.advance(3)
    assert typing(env) == []
    field.value = "hel"
    env.advance(1)
    assert typing(env) == ["clientTypingStarted"]
    assert env.asked("refresh")[-1]["message"] == "hel"
    assert env.asked("startTyping")[0]["message"] == "hel"
    env.advance(5)
    assert typing(env) == ["clientTypingStopped"]
    assert env.asked("refresh")[-1]["message"] == "hel"


def test_continued_input_change_is_one_typing_start(env):
    chat, field = env.start(), Input()
    chat.register_typing_preview_input(field)
    for letter in "a long text that is typed slowly" * 4:
        field.value += letter
        env.advance(0.25)
    assert typing(env) == ["clientTypingStarted"]
    assert requests(env) == ["startTyping"]


def test_input_change_is_noticed_while_polling_is_stopped(env):
    chat, field = env.start(), Input()
    chat.register_typing_preview_input(field)
    chat.stop_poll()
    field.value = "hel"
    env.advance(1)
    assert typing(env) == ["clientTypingStarted"]


def test_typing_without_text_sends_input_value(env):
    chat = env.start()
    chat.register_typing_preview_input(Input("draft"))
    chat.send_typing()
    assert env.asked("startTyping")[0]["message"] == "draft"


@pytest.mark.parametrize("refusal", [{"http_status": 400}, {"server_status": 2, "chat_ended": False}])
def test_too_long_preview_is_omitted_from_poll(env, refusal):
    chat, field = env.start(), Input()
    chat.register_typing_preview_input(field)
    env.heard.take()
    field.value = "x" * 5000
    env.server.faults.add(operation="refresh", errors=(204,), **refusal)
    env.agent().say("Hello")
    env.advance(5)
    assert set(env.heard.names) == {"clientTypingStarted", "clientTypingStopped", "agentConnected", "messageReceived"}
    assert [fields["message"] for fields in env.asked("refresh")[-2:]] == ["", ""]
    assert chat.health().failures == 0
    field.value = "short again"
    env.advance(3)
    assert env.asked("refresh")[-1]["message"] == "short again"


def test_emptied_input_is_no_typing(env):
    chat, field = env.start(), Input("hel")
    chat.register_typing_preview_input(field)
    env.advance(5)
    env.heard.take()
    field.value = ""
    env.advance(5)
    assert (typing(env), env.asked("refresh")[-1]["message"]) == ([], "")


@pytest.mark.parametrize("field", [Input(kind="text"), Input(kind="textarea"), Input(kind=None)])
def test_object_with_a_value_is_accepted_as_input(env, field):
    assert env.open().command("registerTypingPreviewInput", {"input": field})


@pytest.mark.parametrize("field", [Input(kind="checkbox"), Input(kind="password"), object(), "text", 5])
def test_invalid_text_input_is_rejected(env, field):
    assert not env.open().command("registerTypingPreviewInput", {"input": field})


class RaisingInput:
    """Stands for an input whose value raises until a text is set."""

    type = "text"
    text: str | None = None

    @property
    def value(self):
        if self.text is None:
            raise RuntimeError("not now")
        return self.text


def test_raising_input_counts_as_empty(env, caplog):
    chat, field = env.start(), RaisingInput()
    with caplog.at_level(logging.CRITICAL, "webchat_fsm"):
        assert chat.command("registerTypingPreviewInput", {"input": field})
        env.advance(3)
    assert env.asked("refresh")[-1]["message"] == ""
    field.text = "fine"
    env.advance(3)
    assert env.asked("refresh")[-1]["message"] == "fine"
    assert chat.state == "polling"


class AskingInput:
    """Stands for an input whose value depends on commands legal in the service."""

    type = "text"

    def __init__(self, chat):
        self._chat = chat

    @property
    def value(self):
        return ",".join(name for name in ("startChat", "sendMessage") if self._chat.can(name))


def test_input_value_may_call_the_service(env):
    chat = env.start()
    chat.register_typing_preview_input(AskingInput(chat))
    env.advance(3)
    assert env.asked("refresh")[-1]["message"] == "sendMessage"


def test_input_value_that_is_no_text_is_sent_as_text(env):
    chat = env.start()
    chat.register_typing_preview_input(Input(None))
    env.advance(3)
    assert env.asked("refresh")[-1]["message"] == ""
    chat.register_typing_preview_input(Input(5))
    env.advance(3)
    assert env.asked("refresh")[-1]["message"] == "5"
