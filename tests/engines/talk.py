"""Holds one chat from its start to its end."""

from __future__ import annotations

from typing import Any

from tests.limits import LONG
from webchat_fsm import WebChatService


def whole_chat(config: dict[str, Any], text: str) -> dict[str, Any]:
    """Hold a chat in which one message is sent; return `delivered`, `texts`, `state` and `closed`."""
    with WebChatService(config) as chat:
        chat.start_chat(nickname="Jonny")
        delivered = chat.send_message(text).wait(LONG)
        texts = [message.text for message in chat.get_transcript().messages if message.type == "Message"]
        chat.end_chat()
        state = str(chat.state)
        closed = chat.close()
    return {"delivered": delivered, "texts": texts, "state": state, "closed": closed}
