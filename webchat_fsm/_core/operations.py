"""The operations: what a request asks the server for, one value each, independent of the dialect.

A dialect matches over `Operation` with `assert_never`, so that a type checker names each dialect that lacks one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

# the frames of the Bayeux connection are operations too, so that a call of any kind has one union
from webchat_fsm._bayeux.frames import BayeuxDisconnect as BayeuxDisconnect
from webchat_fsm._bayeux.frames import Connect as Connect
from webchat_fsm._bayeux.frames import Handshake as Handshake
from webchat_fsm._bayeux.frames import Notifications as Notifications
from webchat_fsm._model import FileToSend, Json


class _Named(Struct, frozen=True, kw_only=True):
    """The base of the operations; `name` is the reference's word, as in errors, faults, logs and recordings."""

    name: ClassVar[str] = ""

    def __repr__(self) -> str:  # the fields are what the customer writes, which no log may show
        return f"{type(self).__name__}()"


class NoRequest(_Named, frozen=True, kw_only=True):
    """Stands where a thread was interrupted before it had made a request."""


# -- the chat ----------------------------------------------------------------------------------------------------------


class Start(_Named, frozen=True, kw_only=True):
    """Begin a chat with the fields of the form and the user data."""

    name = "start"
    form: Mapping[str, Any] = {}
    user_data: Json = {}


class Refresh(_Named, frozen=True, kw_only=True):
    """Poll from a position of the transcript; `preview` is what the customer is typing.

    With `catch_up` the position is sent where a server keeps a cursor of its own, as an answer may have been lost.
    """

    name = "refresh"
    position: int | str = 1
    preview: str = ""
    catch_up: bool = False


class Resume(_Named, frozen=True, kw_only=True):
    """Renew the token of a saved asynchronous chat (v3)."""

    name = "resume"
    user_data: Json = {}


class Restore(_Named, frozen=True, kw_only=True):
    """Read the transcript of a saved chat, or over v3 its page that ends with the index `before`."""

    name = "restore"
    before: object = None


class History(_Named, frozen=True, kw_only=True):
    """Read the page of older messages that ends with the index `before` (v3)."""

    name = "history"
    before: object


class Send(_Named, frozen=True, kw_only=True):
    """Send a message; `receipt` is the ticket of the receipt that waits for it to come back in the transcript."""

    name = "send"
    message: str
    message_type: object = ""
    parent_message_id: object = ""
    receipt: int = 0


class StartTyping(_Named, frozen=True, kw_only=True):
    """Report that the customer is typing, and what; CometD wants the position of the transcript beside it."""

    name = "startTyping"
    preview: str = ""
    position: int | str = 1


class StopTyping(_Named, frozen=True, kw_only=True):
    """Report that the customer has stopped typing."""

    name = "stopTyping"
    preview: str = ""
    position: int | str = 1


class UpdateData(_Named, frozen=True, kw_only=True):
    """Add to the user data of the chat."""

    name = "updateData"
    user_data: Json


class CustomNotice(_Named, frozen=True, kw_only=True):
    """Send a notice of the application's own."""

    name = "customNotice"
    message: str = ""
    event_attributes: Any = None
    message_type: object = ""


class Disconnect(_Named, frozen=True, kw_only=True):
    """Leave the chat."""

    name = "disconnect"


# -- files -------------------------------------------------------------------------------------------------------------


class FileLimits(_Named, frozen=True, kw_only=True):
    """Ask for the limits of uploads; `files` are sent once the answer allows it."""

    name = "limits"
    files: tuple[FileToSend, ...] = ()


class SendFile(_Named, frozen=True, kw_only=True):
    """Upload a file, and `rest` after it; the shell reads `content` just before the request."""

    name = "file"
    # one request a file: the servers take one each, and the command ends with the last
    file: FileToSend
    rest: tuple[FileToSend, ...] = ()
    content: bytes = b""  # empty in the core, which neither reads files nor keeps their bytes


class Download(_Named, frozen=True, kw_only=True):
    """Download a file of the chat by its id."""

    name = "download"
    file_id: str


class Fetch(_Named, frozen=True, kw_only=True):
    """Download from an address of the chat server (v3)."""

    name = "fetch"
    url: str


ChatOperation = (
    Start
    | Refresh
    | Resume
    | Restore
    | History
    | Send
    | StartTyping
    | StopTyping
    | UpdateData
    | CustomNotice
    | Disconnect
)
FileOperation = FileLimits | SendFile | Download
LinkOperation = Handshake | Connect | BayeuxDisconnect
Operation = NoRequest | ChatOperation | FileOperation | Fetch | LinkOperation | Notifications
