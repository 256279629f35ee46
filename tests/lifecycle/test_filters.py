"""Prefilters hide texts and nothing else; they last as long as the session. Preprocessors change what is shown."""

from __future__ import annotations

import logging
import re

import pytest

SECRET = re.compile(r"^secret\b")


def hidden(stage) -> bool:
    """Whether what was said is in neither list, anywhere."""
    shown = stage.chat.get_transcript()
    received = stage.heard.all("messageReceived")
    originals = [original for data in received for original in data.original_messages] + [*shown.original_messages]
    said = [*stage.heard.texts(), *(entry.text for entry in shown.messages)]
    return not any("secret" in text for text in said) and not any("secret" in str(one) for one in originals)


def test_a_hidden_message_is_in_neither_list(stage):
    stage.start().add_prefilter(SECRET)
    ann = stage.agent()
    ann.say("secret code")
    ann.say("no secret at all, this")
    stage.advance(3)
    assert stage.heard.texts() == ["no secret at all, this"]
    ann.say("secret again")
    stage.advance(3)
    assert [entry.text for entry in stage.chat.get_transcript().messages if entry.text] == ["no secret at all, this"]


def test_an_answer_of_hidden_messages_alone_is_no_news(stage):
    stage.start().add_prefilter(SECRET)
    ann = stage.agent()
    stage.advance(3)
    stage.heard.take()
    ann.say("secret")
    stage.advance(3)
    assert stage.heard.take() == []
    assert hidden(stage)


def test_hidden_messages_drive_the_state_and_the_cursor_all_the_same(stage):
    stage.start().add_prefilter(SECRET)
    ann = stage.agent()
    ann.typing()
    ann.say("secret")
    stage.advance(3)
    assert stage.heard.names[-3:] == ["agentTypingStarted", "agentTypingStopped", "messageReceived"]
    polls = len(stage.asked("refresh"))
    stage.advance(3)
    assert stage.asked("refresh")[polls]["transcriptPosition"] == "5"


def test_only_texts_are_hidden(stage):
    stage.start().add_prefilter(re.compile("."))
    ann = stage.agent()
    ann.push_url("http://secret.test/")
    ann.notice("secret", custom=False)
    ann.say("secret")
    stage.advance(3)
    types = [entry.type for entry in stage.heard.last("messageReceived").messages]
    assert types == ["ParticipantJoined", "PushUrl", "Notice"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("{start:123456789}", False), ("x {start:000000000} y", False), ("{start:12345678}", True), ("{start:x}", True)],
)
def test_the_token_of_a_co_browse_session_is_never_shown(stage, text, shown):
    stage.start()
    stage.agent().say(text)
    stage.advance(3)
    assert (stage.heard.texts() == [text]) is shown
    assert stage.chat.add_prefilter(SECRET) == [SECRET], "the built-in one is not listed"


def test_equal_filters_count_once_and_all_are_given_back(stage):
    chat = stage.open()
    other = re.compile(r"^secret\b", re.IGNORECASE)
    assert chat.add_prefilter(SECRET) == [SECRET]
    assert chat.add_prefilter([re.compile(r"^secret\b"), other]) == [SECRET, other]
    assert chat.command("addPrefilter", {"filters": SECRET}).value == [SECRET, other]


def test_a_filtered_message_is_sent_and_hidden_and_resolves_with_nothing(stage):
    chat = stage.start()
    outcome = chat.command("sendFilteredMessage", {"message": "secret 42", "regex": SECRET})
    assert (outcome.status, outcome.value) == ("resolved", None)
    assert stage.asked("send")[-1]["message"] == "secret 42"
    stage.advance(3)
    assert hidden(stage)
    chat.send_filtered_message("secret 43", SECRET)


def test_a_filtered_message_that_cannot_be_sent_rejects(stage):
    stage.start()
    stage.server.faults.add(operation="send", drop=True)
    assert not stage.chat.command("sendFilteredMessage", {"message": "secret", "regex": SECRET})


def test_a_filter_lasts_over_a_restore_and_is_merged_with_those_of_the_new_page(stage):
    chat = stage.start()
    chat.add_prefilter(SECRET)
    stage.agent().say("secret code")
    stage.advance(3)
    chat.close()
    later = stage.client()
    other = re.compile("other", re.IGNORECASE)
    later.add_prefilter([other, SECRET])
    later.open()
    assert later.state == "polling"
    assert hidden(stage)
    assert later.add_prefilter(SECRET) == [other, SECRET]


def test_a_filter_survives_the_death_of_the_process_with_its_flags(stage):
    stage.start().add_prefilter(re.compile("SECRET", re.IGNORECASE))
    stage.agent().say("secret code")
    stage.crash()
    stage.open()
    stage.advance(3)
    assert hidden(stage)


@pytest.mark.parametrize("how", ["endChat", "the server", "the loss"])
def test_filters_end_with_the_session(stage, how):
    chat = stage.start()
    chat.add_prefilter(SECRET)
    if how == "endChat":
        chat.end_chat()
    else:
        if how == "the server":
            stage.server.end()
        else:
            stage.server.faults.add(operation="refresh", http_status=404, server_status=2, chat_ended=True)
        chat.step()
    assert chat.state == "ended"
    assert chat.add_prefilter(re.compile("new")) == [re.compile("new")]


def test_a_filter_given_while_idle_holds_for_the_next_session(stage):
    stage.open().add_prefilter(SECRET)
    stage.chat.start_chat(nickname="Jonny")
    stage.agent().say("secret")
    stage.advance(3)
    assert hidden(stage)


# -- preprocessors -----------------------------------------------------------------------------------------------------


def said(stage, *texts: str) -> list[str]:
    """What of an agent's words is shown."""
    stage.chat.start_chat(nickname="Jonny")
    ann = stage.agent()
    for text in texts:
        ann.say(text)
    stage.advance(3)
    assert stage.heard.texts() == [
        entry.text for entry in stage.chat.get_transcript().messages if entry.type == "Message"
    ]
    return stage.heard.texts()


def mutates(message):
    message["text"] = message["text"].upper()


def replaces(message):
    return {**message, "text": message["text"] + "!"}


def raises(message):
    raise RuntimeError("no")


def test_a_preprocessor_may_change_the_message_it_is_given(stage):
    stage.open().register_pre_processor(mutates)
    assert said(stage, "Hello") == ["HELLO"]


def test_a_preprocessor_may_return_another_message(stage):
    stage.open().register_pre_processor(replaces)
    assert said(stage, "Hello") == ["Hello!"]


def test_preprocessors_work_in_the_order_of_their_registration(stage):
    chat = stage.open()
    chat.register_pre_processor(replaces)
    chat.register_pre_processor(mutates)
    chat.register_pre_processor(lambda message: {**message, "text": message["text"] + "?"})
    assert said(stage, "Hello") == ["HELLO!?"]


@pytest.mark.parametrize("falsy", [None, False, {}, "", 0])
def test_a_falsy_return_keeps_the_changed_object(stage, falsy):
    stage.open().register_pre_processor(lambda message: mutates(message) or falsy)
    assert said(stage, "Hello") == ["HELLO"]


@pytest.mark.parametrize("rubbish", [5, "text", ["text"], True, object()])
def test_rubbish_is_logged_and_keeps_the_message_and_the_others_work(stage, rubbish, caplog):
    chat = stage.open()
    chat.register_pre_processor(mutates)
    chat.register_pre_processor(lambda message: rubbish)
    chat.register_pre_processor(replaces)
    assert said(stage, "Hello") == ["HELLO!"]
    assert "returned no message" in caplog.text


def test_an_exception_is_logged_and_keeps_the_message_and_the_others_work(stage, caplog):
    chat = stage.open()
    chat.register_pre_processor(raises)
    chat.register_pre_processor(replaces)
    with caplog.at_level(logging.ERROR, "webchat_fsm"):
        assert said(stage, "Hello") == ["Hello!"]
    assert "the preprocessor raises failed" in caplog.text


@pytest.mark.parametrize("spoilt", [{"userData": 5}, {"from": "Ann"}, {"text": None}, {"type": 7}, {"fileDetails": 1}])
def test_a_message_spoilt_in_its_parts_is_still_delivered(stage, spoilt, caplog):
    stage.open().register_pre_processor(lambda message: {**message, **spoilt})
    stage.chat.start_chat(nickname="Jonny")
    stage.agent().say("Hello")
    stage.advance(3)
    assert stage.heard.indexes() == [1, 2, 3]


def test_a_preprocessor_sees_the_normalised_message_and_only_what_is_new_and_visible(stage):
    seen = []
    chat = stage.open()
    chat.register_pre_processor(lambda message: seen.append(message))
    chat.add_prefilter(SECRET)
    said(stage, "secret", "Hello")
    stage.advance(10)
    assert [entry["index"] for entry in seen] == [1, 2, 4]
    assert seen[-1]["from"] == {"id": 2, "type": "Agent", "name": "Ann"}
    assert seen[-1]["timestamp"] == stage.heard.last("messageReceived").messages[-1].timestamp


def test_what_a_preprocessor_adds_is_on_the_bus_and_the_original_is_untouched(stage):
    chat = stage.open()
    chat.register_pre_processor(lambda message: {**message, "text": "other", "mood": "good"})
    said(stage, "Hello")
    received = stage.heard.last("messageReceived")
    assert received.messages[-1].item()["mood"] == "good"
    assert received.messages[-1].index == 3
    assert received.original_messages[-1]["text"] == "Hello"


def test_a_preprocessor_cannot_change_what_happens_in_the_chat(stage):
    chat = stage.open()
    chat.register_pre_processor(lambda message: {**message, "type": "Nothing", "from": {"type": "Nobody"}})
    chat.start_chat(nickname="Jonny")
    stage.agent()
    stage.advance(3)
    assert "agentConnected" in stage.heard.names


def test_a_preprocessor_is_told_what_is_restored(stage):
    stage.start().close()
    seen = []
    later = stage.client()
    later.register_pre_processor(lambda message: seen.append(message.get("restoring")))
    later.open()
    stage.agent()
    stage.advance(3)
    assert seen == [True, None]


def test_a_preprocessor_sees_a_restored_message_again_where_the_same_service_opens_again(stage):
    chat = stage.start()
    chat.register_pre_processor(mutates)
    stage.agent().say("Hello")
    stage.advance(3)
    for _ in range(2):
        assert "HELLO" in [message.text for message in chat.get_transcript().messages]
        chat.close()
        chat.open()


def test_a_preprocessor_does_not_see_what_a_saved_filter_hides(stage):
    chat, seen = stage.start(), []
    chat.add_prefilter(re.compile("secret"))
    stage.agent().say("a secret")
    chat.close()
    later = stage.client()
    later.register_pre_processor(lambda message: seen.append(message["text"]))
    later.open()
    assert "a secret" not in seen
    assert later.state == "polling"


def test_the_registered_function_is_given_back(stage):
    chat = stage.open()
    assert chat.register_pre_processor(mutates) is mutates
    assert chat.command("registerPreProcessor", {"preprocessor": mutates}).value is mutates
