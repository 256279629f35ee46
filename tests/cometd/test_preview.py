"""The typing preview input where nothing polls: it is looked at now and then, and a change is one sendTyping."""

from __future__ import annotations


class Box:
    """What a text input is to the service."""

    type, value = "text", ""


def test_what_is_typed_into_the_input_is_told_within_a_second(webchat_server, webchat_timeline):
    chat, box, came = webchat_server.client("cometd"), Box(), []
    for event in ("clientTypingStarted", "clientTypingStopped"):
        chat.subscribe(event, lambda event: came.append(event.name))
    chat.register_typing_preview_input(box)
    chat.open()
    chat.start_chat(nickname="Jonny")
    box.value = "Hel"
    webchat_timeline.advance(1.0)
    assert came == ["clientTypingStarted"]
    webchat_timeline.advance(2.5)
    assert came == ["clientTypingStarted", "clientTypingStopped"]
    assert [one.text for one in chat.get_transcript().messages if one.is_typing] == ["Hel"]


def test_without_an_input_nothing_looks(webchat_server):
    chat = webchat_server.client("cometd")
    chat.open()
    chat.start_chat(nickname="Jonny")
    box = Box()
    chat.register_typing_preview_input(box)
    chat.end_chat()
    assert webchat_server.timeline.next_timer() is None
