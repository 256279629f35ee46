"""The embedded chat server: a pure core, three dialects, scripted people, faults on demand, and an HTTP front.

`ChatServer` is the server without sockets. `HttpFront`, in `webchat_fsm.server.front`, puts it on a loopback port.
The front, and files sent to the core, need the extra `server`; the rest of the core can be had without it.
"""

from __future__ import annotations

from webchat_fsm.server.chat import Chat, Event, Party, Sender, StoredFile
from webchat_fsm.server.core import ChatServer
from webchat_fsm.server.exchange import Fate, Held, HttpAnswer, HttpRequest, Logged
from webchat_fsm.server.faults import Fault, Faults
from webchat_fsm.server.forms import Fields, Upload
from webchat_fsm.server.options import ServerOptions
from webchat_fsm.server.people import Person
from webchat_fsm.server.script import BUSY_FLOOR, HELPFUL_AGENT, Script, Step

__all__ = [
    "BUSY_FLOOR",
    "HELPFUL_AGENT",
    "Chat",
    "ChatServer",
    "Event",
    "Fate",
    "Fault",
    "Faults",
    "Fields",
    "Held",
    "HttpAnswer",
    "HttpRequest",
    "Logged",
    "Party",
    "Person",
    "Script",
    "Sender",
    "ServerOptions",
    "Step",
    "StoredFile",
    "Upload",
]
