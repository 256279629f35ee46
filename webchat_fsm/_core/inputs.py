"""The inputs of a decision: commands, responses, due timers, opening and closing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from webchat_fsm._core.effects import Call, Command
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import TransportError
from webchat_fsm._model import FileToSend, Json, Message, Response, SessionData
from webchat_fsm.lifecycle._legality import By

if TYPE_CHECKING:
    from webchat_fsm._bayeux.frames import Answer

LONGEST_NUMBER = 100
"""Digits of a number in an index, beyond which it has no place in the order; `int` raises for some thousand."""

_RANKED = cache(lambda: re.compile(r"\d{1,100}(-\d{1,100})*"))
"""An index that has a place in the order; longer numbers have none."""


def rank(index: int | str | None) -> tuple[int, ...] | None:
    """Return the place of an index in the order: its numbers; None where it has none."""
    spelling = str(index)
    # read by hand, as each event of each answer has its rank read, and the expression takes several times as long
    first, _, second = spelling.partition("-")
    if len(spelling) < LONGEST_NUMBER and first.isdecimal() and second.isdecimal():  # as nearly all are
        return int(first), int(second)
    return tuple(map(int, spelling.split("-"))) if _RANKED().fullmatch(spelling) else None


class Moment(Struct, frozen=True):
    """The time of a step: seconds on the line of the timers, wall-clock seconds, and a draw from [0, 1) for jitter."""

    timer: float
    wall: float
    draw: float = 0.0


class ResponseKind(StrEnum):
    """The kinds of response, the same for every dialect."""

    GOOD = "good"
    """The server did what was asked."""
    UNAVAILABLE = "chat server unavailable (statusCode 1)"
    """An envelope says that the chat server cannot be reached; nothing else in it can be trusted."""
    REFUSED = "refused (statusCode 2)"
    """The chat server, or over CometD the gateway, has refused the request."""
    LOST = "session lost"
    """The server does not know the session any more: it ends, and what is saved is deleted."""
    THROTTLED = "too many requests"
    """HTTP status 429, which counts as no failure."""
    PREVIEW_REFUSED = "typing preview too long"
    """A poll was refused for its typing preview alone, which counts as no failure (v2)."""
    BAD = "badly answered"
    """Any other status, or a body that cannot be read."""
    UNKNOWN_CLIENT = "unknown client"
    """The gateway does not know the Bayeux client, and has processed nothing (CometD)."""
    SILENT = "no complete answer"
    """The connection was refused or lost, the time was over, or the body ended early."""


class ReceivedMessage(Struct, frozen=True, gc=False):  # nothing that it holds leads back to it
    """A message as it was received: normalised, the wire's own object, and its place in the order of the transcript.

    `shown` is what the preprocessors returned; joins, leavings and the end of a chat are read from `message`, so that a
    preprocessor cannot hide them. `original` may be any JSON value: an event that is no object is kept too.
    """

    message: Message
    original: Any
    rank: tuple[int, ...] | None
    shown: Message | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """The server's limits for uploads: counts, bytes, lower-case extensions; None and empty where it names none."""

    max_files: int | None = None
    max_file_size: int | None = None
    max_total_size: int | None = None
    file_types: tuple[str, ...] = ()
    used_files: int = 0
    used_total_size: int = 0


class Reply(Struct, frozen=True, kw_only=True):
    """A response as the core takes it, or the lack of one.

    `session_data` holds the ids that the answer carried, None where it carried none; `retry_after` is in seconds;
    `value` is what a resolved command returns where that is not the response; `place` is where a message that was sent
    stands in the transcript, None where the server does not say; `link` and `pushes` come over CometD
    alone. `next_position` is the server's, None where it named none that can be read. `misread` names each kind of
    member that could not be read, as `messages[].utcTime: expected int, got str`: never a value, which may be a secret.
    `defect` says what in this library raised while the request was made or its answer was read, empty where nothing
    did. `repeats` counts the further requests that it took: repetitions where the server had closed a kept connection,
    and upgrades to a websocket.
    """

    kind: ResponseKind
    response: Response = field(default_factory=Response)
    error: TransportError | None = None
    session_data: SessionData | None = None
    received: tuple[ReceivedMessage, ...] = ()
    chat_ended: bool = False
    retry_after: float | None = None
    idle_time_count_down: int | None = None
    limits: Limits | None = None
    value: Any = None
    place: tuple[int, ...] | None = None
    next_position: int | None = None
    misread: tuple[str, ...] = ()
    defect: str = ""
    repeats: int = 0
    link: Answer | None = None
    pushes: tuple[Reply, ...] = ()

    @property
    def good(self) -> bool:
        """True where the server did what was asked."""
        return self.kind is ResponseKind.GOOD

    @property
    def over(self) -> bool:
        """True where the answer says that the chat is over; statusCode 1 says nothing that can be trusted."""
        return self.chat_ended and self.kind in (ResponseKind.GOOD, ResponseKind.REFUSED)


class Asked(Struct, frozen=True, kw_only=True):
    """A command was given; `data` are those that its `prepare` has returned."""

    command: Command
    data: Json = field(default_factory=dict)
    by: By = By.USER


class Replied(Struct, frozen=True, kw_only=True):
    """The request of a call was answered, or failed."""

    call: Call
    reply: Reply


class Due(Struct, frozen=True, kw_only=True):
    """A timer fell due, or is carried out `by_hand`; `preview` is the value of the registered typing preview input."""

    timer: Timer
    preview: str = ""
    by_hand: bool = False


class Opened(Struct, frozen=True, kw_only=True):
    """The service is opened; `saved` is what the store holds."""

    saved: SavedSession | None = None


class Closed(Struct, frozen=True):
    """The service is closed."""


class Interrupted(Struct, frozen=True, kw_only=True):
    """The thread that waited for the call was interrupted; its response will never be read."""

    call: Call


Step = Asked | Replied | Due | Opened | Closed | Interrupted


# -- limits of uploads -------------------------------------------------------------------------------------------------

TOO_MANY, TOO_LARGE, WRONG_TYPE = 201, 202, 203


def exceeded(files: Sequence[FileToSend], limits: Limits | None) -> Response | None:
    """Return an answer shaped like the server's refusal, None where the files may be sent.

    The limits are checked before a byte is read: errors 201, 202 and 203 of the v2 API.
    """
    if limits is None:
        return None
    # all errors at once, so that the user need not try file by file
    errors = [error for file in files for error in _of_one(file, limits)] + _of_all(files, limits)
    return Response(status=400, body={"errors": errors}, errors=errors) if errors else None


def limits_text(refused: Response) -> str:
    """Return which file is refused and what would be allowed, as the reason of a rejection."""
    faults = "; ".join(_EXCEEDED[error["code"], "filename" in error].format_map(error) for error in refused.errors)
    return f"the server's limits do not allow this upload: {faults}"


_EXCEEDED = {
    (WRONG_TYPE, True): "{filename} is of none of the allowed types {advice}",
    (TOO_LARGE, True): "{filename} is larger than the {advice} bytes allowed for a file",
    (TOO_LARGE, False): "together the files are larger than the {advice} bytes allowed for a chat",
    (TOO_MANY, False): "there would be more files than the {advice} allowed for a chat",
}


def _of_one(file: FileToSend, limits: Limits) -> list[Json]:
    errors: list[Json] = []
    # a name without a dot has no extension, and so none that is allowed
    extension = file.name.rpartition(".")[2].lower() if "." in file.name else ""
    if limits.file_types and extension not in limits.file_types:
        errors.append({"code": WRONG_TYPE, "advice": ":".join(limits.file_types), "filename": file.name})
    if limits.max_file_size is not None and file.size > limits.max_file_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_file_size), "filename": file.name})
    return errors


def _of_all(files: Sequence[FileToSend], limits: Limits) -> list[Json]:
    errors: list[Json] = []
    if limits.max_files is not None and limits.used_files + len(files) > limits.max_files:
        errors.append({"code": TOO_MANY, "advice": str(limits.max_files)})
    total = limits.used_total_size + sum(file.size for file in files)
    if limits.max_total_size is not None and total > limits.max_total_size:
        errors.append({"code": TOO_LARGE, "advice": str(limits.max_total_size)})
    return errors
