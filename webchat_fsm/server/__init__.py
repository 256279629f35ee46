"""The embedded chat server: a pure core, three dialects, scripted people, faults on demand, and an HTTP front.

`ChatServer` is the server without sockets. `HttpFront`, in `webchat_fsm.server.front`, puts it on a loopback port.
The front, and files sent to the core, need the extra `server`; the rest of the core can be had without it.
"""

from __future__ import annotations

from .chat import Chat, Event, Party, Sender, StoredFile
from .core import ChatServer
from .exchange import Fate, Held, HttpAnswer, HttpRequest, Logged
from .faults import Fault, Faults
from .forms import Fields, Upload
from .options import ServerOptions
from .people import Person
from .script import BUSY_FLOOR, HELPFUL_AGENT, Script, Step

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
