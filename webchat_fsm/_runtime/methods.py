"""The typed methods of the service: one for each command, and overloads for the payload of each documented event."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar, overload

from webchat_fsm._model import Json, Participant, Response, SessionData, Stats, Transcript
from webchat_fsm._runtime import commands
from webchat_fsm._runtime.commands import ServiceCommand
from webchat_fsm._runtime.delivery import ChatEvent, Subscription
from webchat_fsm._runtime.outcome import Receipt
from webchat_fsm.lifecycle._events import (
    AgentTyping,
    Failure,
    MessageReceived,
    ParticipantChanged,
    Restored,
    RestoreFailed,
    Started,
)

T = TypeVar("T")
Upload = str | os.PathLike[str] | BinaryIO


class CommandMethods(ABC):
    """One snake_case method for each command, but for `poll` and `configure`, which are the service's own."""

    @abstractmethod
    def _result(self, command: ServiceCommand[T], data: Mapping[str, Any] | None = None) -> T:
        """Give a command; return its value, or raise `CommandRejected`."""

    @abstractmethod
    def _send(self, command: ServiceCommand[Response], data: Json) -> Receipt:
        """Give a command that sends a message."""

    def start_chat(
        self,
        *,
        nickname: str = "",
        firstname: str = "",
        lastname: str = "",
        email: str = "",
        subject: str = "",
        user_data: Mapping[str, Any] | None = None,
        **form: str,
    ) -> Response:
        """Start a chat; further form fields travel on v3 (reference: startChat).

        User data: the configuration's, then what `update_user_data` added, then `user_data`; the later wins.
        """
        named = {"nickname": nickname, "firstname": firstname, "lastname": lastname, "email": email, "subject": subject}
        fields = {**{key: value for key, value in named.items() if value}, **form}
        return self._result(commands.START_CHAT, {"form": fields, "userData": user_data})

    def end_chat(self) -> Response:
        """End the chat; it is over here even where the server's answer is bad (reference: endChat)."""
        return self._result(commands.END_CHAT)

    def send_message(self, message: str, *, type: str = "", parent_message_id: str = "") -> Receipt:  # noqa: A002
        """Send a text; it comes back once in `messageReceived` (reference: sendMessage).

        `type` is a free label, "text" by default; `parent_message_id` names the message that is answered.
        A send is never repeated by the library: after `CommandRejected` with a `TransportError` as its cause, the
        server may have taken it all the same.
        """
        return self._send(
            commands.SEND_MESSAGE, {"message": message, "type": type, "parentMessageID": parent_message_id}
        )

    def send_filtered_message(self, message: str, regex: re.Pattern[str]) -> None:
        """Send a text that `regex` hides from the transcript here (reference: sendFilteredMessage)."""
        self._result(commands.SEND_FILTERED_MESSAGE, {"message": message, "regex": regex})

    def send_custom_notice(self, message: str = "", *, event_attributes: Mapping[str, Any] | None = None) -> Response:
        """Send a custom notice to a custom agent desktop (reference: sendCustomNotice; not on v3)."""
        data = {"message": message, "eventAttributes": event_attributes}
        return self._result(commands.SEND_CUSTOM_NOTICE, data)

    def send_typing(self, message: str = "") -> Response | None:
        """Tell that the user types, with a preview; None where a burst is merely prolonged (reference: sendTyping)."""
        return self._result(commands.SEND_TYPING, {"message": message})

    def add_prefilter(self, filters: re.Pattern[str] | Iterable[re.Pattern[str]]) -> list[re.Pattern[str]]:
        """Hide texts that match, until the session ends; gives all that were added (reference: addPrefilter)."""
        return self._result(commands.ADD_PREFILTER, {"filters": filters})

    def update_user_data(self, user_data: Mapping[str, Any]) -> Response | Json:
        """Attach data: to the open session, else to the next one, and then all of them are given (updateUserData)."""
        return self._result(commands.UPDATE_USER_DATA, user_data)

    def start_poll(self) -> None:
        """Turn automatic polling on (reference: startPoll)."""
        self._result(commands.START_POLL)

    def stop_poll(self) -> None:
        """Turn automatic polling off; real v2 servers drop a chat that is not polled for 45 s (reference: stopPoll)."""
        self._result(commands.STOP_POLL)

    def reset_poll_exceptions(self) -> None:
        """Count failed polls from 0 again; state and events stay as they are (reference: resetPollExceptions)."""
        self._result(commands.RESET_POLL_EXCEPTIONS)

    def restore(self, session_data: str | Mapping[str, Any] | None = None) -> None:
        """Take a saved session up again; for users in asynchronous mode only (reference: restore)."""
        self._result(commands.RESTORE, {"sessionData": session_data} if session_data else None)

    def get_transcript(self, since: int | str | None = None) -> Transcript:
        """Return the messages of the chat in order; with `since` those behind that index (getTranscript)."""
        return self._result(commands.GET_TRANSCRIPT, {"since": since})

    def get_agents(self) -> dict[int | str, Participant]:
        """Agents and supervisors by participant id (reference: getAgents)."""
        return self._result(commands.GET_AGENTS).agents

    def get_stats(self) -> Stats:
        """Start, end and duration by the messages, in the server's milliseconds (reference: getStats)."""
        return self._result(commands.GET_STATS)

    def get_session_data(self) -> SessionData:
        """Return the session's identifiers at the server, empty before it has one (reference: getSessionData)."""
        return self._result(commands.GET_SESSION_DATA)

    def send_file(self, files: Upload | Iterable[Upload]) -> Response:
        """Send files, one request each; the answer to the last (reference: sendFile).

        On v2 the server's limits for type, size, count and total are checked before a byte is read; what they forbid
        rejects with a response shaped like the server's.
        """
        return self._result(commands.SEND_FILE, {"files": files})

    def download_file(self, file_id: str, to: str | os.PathLike[str] | None = None) -> Path:
        """Fetch a file of the session and give its path (reference: downloadFile; not on v3).

        `to` is a file, which is replaced, or a folder (by default `client.downloadDir`, which is made where it is
        missing) in which it gets the server's name, reduced to a bare one, and replaces nothing.
        """
        return self._result(commands.DOWNLOAD_FILE, {"fileId": file_id, "to": to})

    def fetch_history(self) -> Response:
        """Bring an older page of an asynchronous chat by `messageReceived`, newest first (reference: fetchHistory)."""
        return self._result(commands.FETCH_HISTORY)

    def register_typing_preview_input(self, input: object) -> None:  # noqa: A002
        """Send the `value` of an object with each poll as typing preview (reference: registerTypingPreviewInput)."""
        self._result(commands.REGISTER_TYPING_PREVIEW_INPUT, {"input": input})

    def register_pre_processor(self, preprocessor: Callable[[Json], Json | None]) -> Callable[[Json], Json | None]:
        """Let a function change each message, as the bus carries it, before anybody sees it (registerPreProcessor).

        A falsy return keeps the object, changed as it may be; an exception is logged and keeps the message.
        """
        self._result(commands.REGISTER_PRE_PROCESSOR, {"preprocessor": preprocessor})
        return preprocessor

    def verify_session(self) -> bool:
        """Return whether a session is open, or saved and young enough to restore (reference: verifySession)."""
        return bool(self._result(commands.VERIFY_SESSION))

    def fetch(self, content: Mapping[str, Any] | str) -> bytes:
        """Fetch the bytes of an item of a v3 message's `content`, or of its url, with the session's headers.

        An extra: the vendor's client fetches images by itself.
        """
        url = content.get("url") if isinstance(content, Mapping) else content
        return self._result(commands.FETCH, {"url": url})

    def get_file_limits(self) -> Response:
        """Return the server's limits for uploads; an extra of the vendor's client, not in the reference."""
        return self._result(commands.GET_FILE_LIMITS)


P = TypeVar("P")
R = TypeVar("R")

Handler = Callable[[ChatEvent[P]], R]


class Decorator(Protocol[P]):
    """Subscribes a function to an event with that payload and gives it back as it was."""

    def __call__(self, handler: Handler[P, R], /) -> Handler[P, R]:
        """Subscribe the function."""
        ...


PlainName = Literal[
    "ready",
    "restoreTimeout",
    "restoredOffline",
    "ended",
    "pollingStarted",
    "pollingStopped",
    "clientTypingStarted",
    "clientTypingStopped",
    "disconnected",
    "reconnected",
    "chatServerWentOffline",
    "chatServerBackOnline",
    "connectionPending",
    "connectionRestored",
]

AgentTypingName = Literal[
    "agentTypingStarted",
    "agentTypingStopped",
]

ParticipantChangedName = Literal[
    "clientConnected",
    "clientDisconnected",
    "agentConnected",
    "agentDisconnected",
    "supervisorConnected",
    "supervisorDisconnected",
    "botConnected",
    "botDisconnected",
]


class EventMethods(ABC):
    """Subscribing and waiting: the name of an event decides the type of its payload.

    An event without data carries None. A name that is known only at run time gives a payload of any type. For such a
    name a handler has to take any payload, and the types allow no `where`: else a wrong handler of a known name would
    pass for one of an unknown name, and a lambda would lose the known type.
    """

    @overload
    def subscribe(self, event: PlainName, handler: Handler[None, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: PlainName) -> Decorator[None]: ...
    @overload
    def subscribe(self, event: Literal["restored"], handler: Handler[Restored, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["restored"]) -> Decorator[Restored]: ...
    @overload
    def subscribe(self, event: Literal["restoreFailed"], handler: Handler[RestoreFailed, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["restoreFailed"]) -> Decorator[RestoreFailed]: ...
    @overload
    def subscribe(
        self, event: Literal["messageReceived"], handler: Handler[MessageReceived, object]
    ) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["messageReceived"]) -> Decorator[MessageReceived]: ...
    @overload
    def subscribe(self, event: Literal["error"], handler: Handler[Failure, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["error"]) -> Decorator[Failure]: ...
    @overload
    def subscribe(self, event: Literal["started"], handler: Handler[Started, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: Literal["started"]) -> Decorator[Started]: ...
    @overload
    def subscribe(self, event: AgentTypingName, handler: Handler[AgentTyping, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: AgentTypingName) -> Decorator[AgentTyping]: ...
    @overload
    def subscribe(
        self, event: ParticipantChangedName, handler: Handler[ParticipantChanged, object]
    ) -> Subscription: ...
    @overload
    def subscribe(self, event: ParticipantChangedName) -> Decorator[ParticipantChanged]: ...
    @overload
    def subscribe(self, event: str, handler: Handler[object, object]) -> Subscription: ...
    @overload
    def subscribe(self, event: str) -> Decorator[Any]: ...
    def subscribe(self, event: str, handler: Handler[Any, object] | None = None) -> Subscription | Decorator[Any]:
        """Call the handler with each such event from now on; without a handler, a decorator that does so.

        The subscription ends by its `cancel()`; the decorator gives the function back as it was.
        """
        if handler is not None:
            return self._subscribe(event, handler)

        def attach(function: Handler[Any, R]) -> Handler[Any, R]:
            self._subscribe(event, function)
            return function

        return attach

    @overload
    def wait_for(
        self, event: PlainName, timeout: float, where: Handler[None, bool] | None = None
    ) -> ChatEvent[None]: ...
    @overload
    def wait_for(
        self, event: Literal["restored"], timeout: float, where: Handler[Restored, bool] | None = None
    ) -> ChatEvent[Restored]: ...
    @overload
    def wait_for(
        self, event: Literal["restoreFailed"], timeout: float, where: Handler[RestoreFailed, bool] | None = None
    ) -> ChatEvent[RestoreFailed]: ...
    @overload
    def wait_for(
        self, event: Literal["messageReceived"], timeout: float, where: Handler[MessageReceived, bool] | None = None
    ) -> ChatEvent[MessageReceived]: ...
    @overload
    def wait_for(
        self, event: Literal["error"], timeout: float, where: Handler[Failure, bool] | None = None
    ) -> ChatEvent[Failure]: ...
    @overload
    def wait_for(
        self, event: Literal["started"], timeout: float, where: Handler[Started, bool] | None = None
    ) -> ChatEvent[Started]: ...
    @overload
    def wait_for(
        self, event: AgentTypingName, timeout: float, where: Handler[AgentTyping, bool] | None = None
    ) -> ChatEvent[AgentTyping]: ...
    @overload
    def wait_for(
        self, event: ParticipantChangedName, timeout: float, where: Handler[ParticipantChanged, bool] | None = None
    ) -> ChatEvent[ParticipantChanged]: ...
    @overload
    def wait_for(self, event: str, timeout: float) -> ChatEvent[Any]: ...
    def wait_for(self, event: str, timeout: float, where: Handler[Any, bool] | None = None) -> ChatEvent[Any]:
        """Return the first such event behind the reading position that `where` accepts.

        Raises `WaitTimeout` after `timeout` seconds, `ChatClosed` where it cannot come any more, `HandlerWaitError`
        inside a handler, and `ValueError` for an unknown event.
        """
        return self._wait_for(event, timeout, where)

    @abstractmethod
    def _subscribe(self, event: str, handler: Handler[Any, object]) -> Subscription:
        """Subscribe a handler to an event, and check the name."""

    @abstractmethod
    def _wait_for(self, event: str, timeout: float, where: Handler[Any, bool] | None) -> ChatEvent[Any]:
        """Wait for an event, and check the name."""
