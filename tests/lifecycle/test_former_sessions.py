"""Check that session files of a former version (643c2ba, before the first release) are restored on each transport."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from webchat_fsm import FileStore, WebChatService
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

FORMER = Path(__file__).parent / "former"


@pytest.mark.parametrize("transport", Transport, ids=str)
def test_session_file_of_a_former_version_restores(transport, tmp_path):
    path = tmp_path / "session.json"
    with Timeline.frozen() as timeline:
        server = TestServer(timeline)
        with WebChatService(
            server.config(transport), http=server.http(), driver=timeline.driver, store=FileStore(path)
        ) as chat:
            chat.start_chat(nickname="Jonny")
            timeline.advance(2)
            chat.send_message("hello")
            timeline.advance(4)
        former = json.loads((FORMER / f"session-{transport}.json").read_text())
        # the ids are those of the chat that this server has; everything else is as the former version wrote it
        former["session"]["session_data"] = json.loads(path.read_text())["session"]["session_data"]
        path.write_text(json.dumps(former))

        with WebChatService(
            server.config(transport), http=server.http(), driver=timeline.driver, store=FileStore(path)
        ) as chat:
            assert chat.state.has_session
            assert [message.text for message in chat.get_transcript().messages if message.text] == ["hello"]
            mine = re.compile("mine")
            assert [pattern.pattern for pattern in chat.add_prefilter(mine)] == ["secret", "mine"]
            assert chat.add_prefilter(mine)[0].flags & re.IGNORECASE
            chat.send_message("back again")
            timeline.advance(20)
            assert chat.get_transcript().messages[-1].text == "back again"
        saved = json.loads(path.read_text())["session"]
        assert (saved["nickname"], saved["user_data"]) == ("Jonny", former["session"]["user_data"])
