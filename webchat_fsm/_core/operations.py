"""The operations: what a request asks the server for, one value each, independent of the dialect.

A dialect matches over `Operation` with `assert_never`, so that a type checker names each dialect that lacks one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from webchat_fsm._model import FileToSend, Json, Named

# in the union below alone: a chat that polls loads nothing of the Bayeux connection (`Session.__init__`)
if TYPE_CHECKING:
    from webchat_fsm._bayeux.frames import BayeuxDisconnect, Connect, Handshake, Notifications


class NoRequest(Named, frozen=True, kw_only=True):
    """Stands where a thread was interrupted before it had made a request."""


# -- the chat ----------------------------------------------------------------------------------------------------------


class Start(Named, frozen=True, kw_only=True):
    """Begin a chat with the fields of the form and the user data."""

    name = "start"
    form: Mapping[str, Any] = {}
    user_data: Json = {}


class Refresh(Named, frozen=True, kw_only=True):
    """Poll from a position of the transcript; `preview` is what the customer is typing.

    With `catch_up` the position is sent where a server keeps a cursor of its own, as an answer may have been lost.
    """

    name = "refresh"
    polls = True
    position: int | str = 1
    preview: str = ""
    catch_up: bool = False


class Resume(Named, frozen=True, kw_only=True):
    """Renew the token of a saved asynchronous chat (v3)."""

    name = "resume"
    user_data: Json = {}


class Restore(Named, frozen=True, kw_only=True):
    """Read the transcript of a saved chat, or over v3 its page that ends with the index `before`."""

    name = "restore"
    before: object = None


class History(Named, frozen=True, kw_only=True):
    """Read the page of older messages that ends with the index `before` (v3)."""

    name = "history"
    before: object


class Send(Named, frozen=True, kw_only=True):
    """Send a message; `receipt` is the ticket of the receipt that waits for it to come back in the transcript."""

    name = "send"
    message: str
    message_type: object = ""
    parent_message_id: object = ""
    receipt: int = 0


class StartTyping(Named, frozen=True, kw_only=True):
    """Report that the customer is typing, and what; CometD wants the position of the transcript beside it."""

    name = "startTyping"
    preview: str = ""
    position: int | str = 1


class StopTyping(Named, frozen=True, kw_only=True):
    """Report that the customer has stopped typing."""

    name = "stopTyping"
    preview: str = ""
    position: int | str = 1


class UpdateData(Named, frozen=True, kw_only=True):
    """Add to the user data of the chat."""

    name = "updateData"
    user_data: Json


class CustomNotice(Named, frozen=True, kw_only=True):
    """Send a notice of the application's own."""

    name = "customNotice"
    message: str = ""
    event_attributes: Any = None
    message_type: object = ""


class Disconnect(Named, frozen=True, kw_only=True):
    """Leave the chat."""

    name = "disconnect"


# -- files -------------------------------------------------------------------------------------------------------------


class FileLimits(Named, frozen=True, kw_only=True):
    """Ask for the limits of uploads; `files` are sent once the answer allows it."""

    name = "limits"
    files: tuple[FileToSend, ...] = ()


class SendFile(Named, frozen=True, kw_only=True):
    """Upload a file, and `rest` after it; the shell reads `content` just before the request."""

    name = "file"
    # one request a file: the servers take one each, and the command ends with the last
    file: FileToSend
    rest: tuple[FileToSend, ...] = ()
    content: bytes = b""  # empty in the core, which neither reads files nor keeps their bytes


class Download(Named, frozen=True, kw_only=True):
    """Download a file of the chat by its id."""

    name = "download"
    file_id: str


class Fetch(Named, frozen=True, kw_only=True):
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
Operation: TypeAlias = (
    "NoRequest | ChatOperation | FileOperation | Fetch | Handshake | Connect | BayeuxDisconnect | Notifications"
)
"""What a call is made for; the frames of the Bayeux connection too, so that a call of any kind has one union."""
