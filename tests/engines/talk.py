"""A whole chat, from its start to its end."""

from __future__ import annotations

from typing import Any

from webchat_fsm import WebChatService


def whole_chat(config: dict[str, Any], text: str) -> dict[str, Any]:
    """Hold it; gives what came of it."""
    with WebChatService(config) as chat:
        chat.start_chat(nickname="Jonny")
        delivered = chat.send_message(text).wait(10.0)
        texts = [message.text for message in chat.get_transcript().messages if message.type == "Message"]
        chat.end_chat()
        state = str(chat.state)
        closed = chat.close()
    return {"delivered": delivered, "texts": texts, "state": state, "closed": closed}
