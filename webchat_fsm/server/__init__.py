"""The embedded chat server: a pure core, three dialects, scripted people, faults on demand, and an HTTP front.

`ChatServer` is the server without sockets. `HttpFront`, in `webchat_fsm.server.front`, puts it on a loopback port.
The front, and files sent to the core, need the extra `server`; the rest of the core can be had without it.
"""

from __future__ import annotations

from webchat_fsm.server._chat import Chat, ServerEvent, ServerParty, ServerSender, StoredFile
from webchat_fsm.server._core import ChatServer
from webchat_fsm.server._faults import Fault, Faults
from webchat_fsm.server._http import Fate, Fields, Held, HttpRequest, Logged, ServerAnswer, UploadedFile
from webchat_fsm.server._people import BUSY_FLOOR, HELPFUL_AGENT, Person, Script, Step
from webchat_fsm.server._state import ServerOptions

__all__ = [
    "BUSY_FLOOR",
    "HELPFUL_AGENT",
    "Chat",
    "ChatServer",
    "Fate",
    "Fault",
    "Faults",
    "Fields",
    "Held",
    "HttpRequest",
    "Logged",
    "Person",
    "Script",
    "ServerAnswer",
    "ServerEvent",
    "ServerOptions",
    "ServerParty",
    "ServerSender",
    "Step",
    "StoredFile",
    "UploadedFile",
]
