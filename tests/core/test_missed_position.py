"""From which position a Bayeux connection asks for missed messages."""

from __future__ import annotations

import pytest

from tests.bayeux.rig import NOW, Chat, connection
from webchat_fsm._bayeux.frames import Notifications
from webchat_fsm._bayeux.table import State


@pytest.mark.parametrize(("restored_offline", "position"), [(False, 5), (True, 1)])
def test_missed_messages_of_a_chat_restored_offline_are_all(restored_offline, position):
    link, chat, now, asked = connection(State.CONNECTED), Chat(catching_up=restored_offline), NOW, []
    link.missed.note(5)
    while not asked:
        now = max(now + 0.1, link.missed.ask_at)
        asked = [event.frame for event in link.due(chat, now) if isinstance(event.frame, Notifications)]
    assert [frame.position for frame in asked] == [position]
