"""What a preprocessor may change of a message, and what stays as the server sent it."""

from __future__ import annotations

import pytest

from tests.lifecycle.environment import ChatEnvironment
from webchat_fsm import Transport


def altered(item):
    return {**item, "text": "changed", "index": 99, "from": {"id": "x", "name": "Eve", "participantId": "other"}}


@pytest.mark.parametrize("transport", [Transport.V3, Transport.V3_ASYNC])
def test_altered_message_keeps_index_and_participant_id(webchat_timeline, webchat_server, transport):
    env = ChatEnvironment(webchat_timeline, webchat_server, transport)
    chat = env.start()
    agent = env.agent()
    env.advance(3)
    before = env.heard.last("messageReceived").messages[-1]
    chat.register_pre_processor(altered)
    agent.say("hello")
    env.advance(3)
    message = env.heard.last("messageReceived").messages[-1]
    assert (message.text, message.sender.id, message.sender.name) == ("changed", "x", "Eve")
    assert message.sender.participant_id == before.sender.participant_id != ""
    assert message.index not in (99, before.index)
    assert message.item()["from"]["participantId"] == before.sender.participant_id
