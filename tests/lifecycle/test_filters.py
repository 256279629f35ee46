"""Check that prefilters hide messages until the session ends, and that preprocessors change displayed messages."""

from __future__ import annotations

import logging
import re

import pytest

SECRET = re.compile(r"^secret\b")


def hidden(env) -> bool:
    """Return whether the secret text is in no event and not in the transcript."""
    shown = env.chat.get_transcript()
    received = env.heard.all("messageReceived")
    originals = [original for data in received for original in data.original_messages] + [*shown.original_messages]
    displayed = [*env.heard.texts(), *(entry.text for entry in shown.messages)]
    return not any("secret" in text for text in displayed) and not any("secret" in str(one) for one in originals)


def test_hidden_message_is_in_no_event_and_no_transcript(env):
    env.start().add_prefilter(SECRET)
    ann = env.agent()
    ann.say("secret code")
    ann.say("no secret at all, this")
    env.advance(3)
    assert env.heard.texts() == ["no secret at all, this"]
    ann.say("secret again")
    env.advance(3)
    assert [entry.text for entry in env.chat.get_transcript().messages if entry.text] == ["no secret at all, this"]


def test_response_of_hidden_messages_publishes_nothing(env):
    env.start().add_prefilter(SECRET)
    ann = env.agent()
    env.advance(3)
    env.heard.take()
    ann.say("secret")
    env.advance(3)
    assert env.heard.take() == []
    assert hidden(env)


def test_hidden_message_ends_typing_and_moves_the_cursor(env):
    env.start().add_prefilter(SECRET)
    ann = env.agent()
    ann.typing()
    ann.say("secret")
    env.advance(3)
    assert env.heard.names[-3:] == ["agentTypingStarted", "agentTypingStopped", "messageReceived"]
    polls = len(env.asked("refresh"))
    env.advance(3)
    assert env.asked("refresh")[polls]["transcriptPosition"] == "5"


def test_prefilter_hides_only_events_of_type_message(env):
    env.start().add_prefilter(re.compile("."))
    ann = env.agent()
    ann.push_url("http://secret.test/")
    ann.notice("secret", custom=False)
    ann.say("secret")
    env.advance(3)
    types = [entry.type for entry in env.heard.last("messageReceived").messages]
    assert types == ["ParticipantJoined", "PushUrl", "Notice"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("{start:123456789}", False), ("x {start:000000000} y", False), ("{start:12345678}", True), ("{start:x}", True)],
)
def test_co_browse_token_is_hidden_by_built_in_filter(env, text, shown):
    env.start()
    env.agent().say(text)
    env.advance(3)
    assert (env.heard.texts() == [text]) is shown
    assert env.chat.add_prefilter(SECRET) == [SECRET], "the built-in one is not listed"


def test_add_prefilter_returns_all_filters_without_repeats(env):
    chat = env.open()
    other = re.compile(r"^secret\b", re.IGNORECASE)
    assert chat.add_prefilter(SECRET) == [SECRET]
    assert chat.add_prefilter([re.compile(r"^secret\b"), other]) == [SECRET, other]
    assert chat.command("addPrefilter", {"filters": SECRET}).value == [SECRET, other]


def test_filtered_send_is_hidden_and_resolves_with_none(env):
    chat = env.start()
    outcome = chat.command("sendFilteredMessage", {"message": "secret 42", "regex": SECRET})
    assert (outcome.status, outcome.value) == ("resolved", None)
    assert env.asked("send")[-1]["message"] == "secret 42"
    env.advance(3)
    assert hidden(env)
    chat.send_filtered_message("secret 43", SECRET)


def test_unsent_filtered_message_is_rejected(env):
    env.start()
    env.server.faults.add(operation="send", drop=True)
    assert not env.chat.command("sendFilteredMessage", {"message": "secret", "regex": SECRET})


def test_saved_filter_is_merged_with_new_ones_on_restore(env):
    chat = env.start()
    chat.add_prefilter(SECRET)
    env.agent().say("secret code")
    env.advance(3)
    chat.close()
    later = env.client()
    other = re.compile("other", re.IGNORECASE)
    later.add_prefilter([other, SECRET])
    later.open()
    assert later.state == "polling"
    assert hidden(env)
    assert later.add_prefilter(SECRET) == [other, SECRET]


def test_filter_flags_survive_process_death(env):
    env.start().add_prefilter(re.compile("SECRET", re.IGNORECASE))
    env.agent().say("secret code")
    env.crash()
    env.open()
    env.advance(3)
    assert hidden(env)


@pytest.mark.parametrize("how", ["endChat", "the server", "the loss"])
def test_filters_end_with_the_session(env, how):
    chat = env.start()
    chat.add_prefilter(SECRET)
    if how == "endChat":
        chat.end_chat()
    else:
        if how == "the server":
            env.server.end()
        else:
            env.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
        chat.step()
    assert chat.state == "ended"
    assert chat.add_prefilter(re.compile("new")) == [re.compile("new")]


def test_filter_added_while_idle_holds_in_next_session(env):
    env.open().add_prefilter(SECRET)
    env.chat.start_chat(nickname="Jonny")
    env.agent().say("secret")
    env.advance(3)
    assert hidden(env)


# -- preprocessors -----------------------------------------------------------------------------------------------------


def displayed(env, *texts: str) -> list[str]:
    """Send texts as an agent, and return those that are displayed."""
    env.chat.start_chat(nickname="Jonny")
    ann = env.agent()
    for text in texts:
        ann.say(text)
    env.advance(3)
    assert env.heard.texts() == [entry.text for entry in env.chat.get_transcript().messages if entry.type == "Message"]
    return env.heard.texts()


def mutates(message):
    message["text"] = message["text"].upper()


def replaces(message):
    return {**message, "text": message["text"] + "!"}


def raises(message):
    raise RuntimeError("no")


def test_preprocessor_may_change_message_in_place(env):
    env.open().register_pre_processor(mutates)
    assert displayed(env, "Hello") == ["HELLO"]


def test_preprocessor_may_return_another_message(env):
    env.open().register_pre_processor(replaces)
    assert displayed(env, "Hello") == ["Hello!"]


def test_preprocessors_run_in_registration_order(env):
    chat = env.open()
    chat.register_pre_processor(replaces)
    chat.register_pre_processor(mutates)
    chat.register_pre_processor(lambda message: {**message, "text": message["text"] + "?"})
    assert displayed(env, "Hello") == ["HELLO!?"]


@pytest.mark.parametrize("falsy", [None, False, {}, "", 0])
def test_preprocessor_falsy_return_keeps_changed_object(env, falsy):
    env.open().register_pre_processor(lambda message: mutates(message) or falsy)
    assert displayed(env, "Hello") == ["HELLO"]


@pytest.mark.parametrize("invalid", [5, "text", ["text"], True, object()])
def test_preprocessor_invalid_return_is_logged_and_skipped(env, invalid, caplog):
    chat = env.open()
    chat.register_pre_processor(mutates)
    chat.register_pre_processor(lambda message: invalid)
    chat.register_pre_processor(replaces)
    assert displayed(env, "Hello") == ["HELLO!"]
    assert "returned no message" in caplog.text


def test_preprocessor_exception_is_logged_and_skipped(env, caplog):
    chat = env.open()
    chat.register_pre_processor(raises)
    chat.register_pre_processor(replaces)
    with caplog.at_level(logging.ERROR, "webchat_fsm"):
        assert displayed(env, "Hello") == ["Hello!"]
    assert "the preprocessor raises failed" in caplog.text


@pytest.mark.parametrize(
    "malformed", [{"userData": 5}, {"from": "Ann"}, {"text": None}, {"type": 7}, {"fileDetails": 1}]
)
def test_malformed_preprocessed_message_is_delivered(env, malformed, caplog):
    env.open().register_pre_processor(lambda message: {**message, **malformed})
    env.chat.start_chat(nickname="Jonny")
    env.agent().say("Hello")
    env.advance(3)
    assert env.heard.indexes() == [1, 2, 3]


def test_preprocessor_gets_new_visible_messages_only(env):
    seen = []
    chat = env.open()
    chat.register_pre_processor(lambda message: seen.append(message))
    chat.add_prefilter(SECRET)
    displayed(env, "secret", "Hello")
    env.advance(10)
    assert [entry["index"] for entry in seen] == [1, 2, 4]
    assert seen[-1]["from"] == {"id": 2, "type": "Agent", "name": "Ann"}
    assert seen[-1]["timestamp"] == env.heard.last("messageReceived").messages[-1].timestamp


def test_preprocessor_addition_is_on_bus_not_in_original(env):
    chat = env.open()
    chat.register_pre_processor(lambda message: {**message, "text": "other", "mood": "good"})
    displayed(env, "Hello")
    received = env.heard.last("messageReceived")
    assert received.messages[-1].item()["mood"] == "good"
    assert received.messages[-1].index == 3
    assert received.original_messages[-1]["text"] == "Hello"


def test_preprocessor_cannot_change_chat_state(env):
    chat = env.open()
    chat.register_pre_processor(lambda message: {**message, "type": "Nothing", "from": {"type": "Unknown"}})
    chat.start_chat(nickname="Jonny")
    env.agent()
    env.advance(3)
    assert "agentConnected" in env.heard.names


def test_preprocessor_gets_restored_flag(env):
    env.start().close()
    seen = []
    later = env.client()
    later.register_pre_processor(lambda message: seen.append(message.get("restoring")))
    later.open()
    env.agent()
    env.advance(3)
    assert seen == [True, None]


def test_preprocessor_gets_restored_message_on_reopen(env):
    chat = env.start()
    chat.register_pre_processor(mutates)
    env.agent().say("Hello")
    env.advance(3)
    for _ in range(2):
        assert "HELLO" in [message.text for message in chat.get_transcript().messages]
        chat.close()
        chat.open()


def test_preprocessor_skips_messages_hidden_by_saved_filter(env):
    chat, seen = env.start(), []
    chat.add_prefilter(re.compile("secret"))
    env.agent().say("a secret")
    chat.close()
    later = env.client()
    later.register_pre_processor(lambda message: seen.append(message["text"]))
    later.open()
    assert "a secret" not in seen
    assert later.state == "polling"


def test_register_pre_processor_returns_the_function(env):
    chat = env.open()
    assert chat.register_pre_processor(mutates) is mutates
    assert chat.command("registerPreProcessor", {"preprocessor": mutates}).value is mutates
