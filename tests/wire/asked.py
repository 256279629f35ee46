"""Provide one operation of each kind, and calls for it."""

from __future__ import annotations

import io
from typing import Any

from msgspec.structs import replace

from webchat_fsm._bayeux.frames import BayeuxDisconnect, Connect, Handshake, Notifications
from webchat_fsm._core.operations import (
    CustomNotice,
    Disconnect,
    Download,
    Fetch,
    FileLimits,
    History,
    Operation,
    Refresh,
    Restore,
    Resume,
    Send,
    SendFile,
    Start,
    StartTyping,
    StopTyping,
    UpdateData,
)
from webchat_fsm._core.steps import Call
from webchat_fsm._model import FileToSend

PICTURE = FileToSend(name="cat.png", size=3, content_type="image/png", source=io.BytesIO(b"png").read)

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Start(),
        Refresh(),
        Resume(),
        Restore(),
        History(before="1-0"),
        Send(message="x"),
        StartTyping(),
        StopTyping(),
        UpdateData(user_data={}),
        CustomNotice(),
        Disconnect(),
        FileLimits(),
        SendFile(file=PICTURE),
        Download(file_id="1"),
        Fetch(url="/x"),
        Handshake(),
        Connect(hold=None, usual=30.0),
        Notifications(),
        BayeuxDisconnect(client_id="client-1"),
    )
}


def asked(operation: str, session_data: Any, link: Any = None, **fields: Any) -> Call:
    """Make the call for an operation by its name, with some of its fields."""
    made = Call(operation=replace(OPERATIONS[operation], **fields), session_data=session_data)
    return made if link is None else replace(made, link=link)
