"""Check the typing preview input without polls: it is read periodically, and a change sends one sendTyping."""

from __future__ import annotations


class Box:
    """Has the attributes of a text input that the service reads."""

    type, value = "text", ""


def test_typed_input_is_sent_within_a_second(webchat_server, webchat_timeline):
    chat, box, received = webchat_server.client("cometd"), Box(), []
    for event in ("clientTypingStarted", "clientTypingStopped"):
        chat.subscribe(event, lambda event: received.append(event.name))
    chat.register_typing_preview_input(box)
    chat.open()
    chat.start_chat(nickname="Jonny")
    box.value = "Hel"
    webchat_timeline.advance(1.0)
    assert received == ["clientTypingStarted"]
    webchat_timeline.advance(2.5)
    assert received == ["clientTypingStarted", "clientTypingStopped"]
    assert [one.text for one in chat.get_transcript().messages if one.is_typing] == ["Hel"]


def test_preview_after_chat_end_sets_no_timer(webchat_server):
    chat = webchat_server.client("cometd")
    chat.open()
    chat.start_chat(nickname="Jonny")
    box = Box()
    chat.register_typing_preview_input(box)
    chat.end_chat()
    assert webchat_server.timeline.next_timer() is None
