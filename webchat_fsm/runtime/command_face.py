"""The commands of the reference as typed methods; each gives the value or raises `CommandRejected`."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from webchat_fsm.lifecycle.words import Agents, Json, Participant, Response, SessionData, Stats, Transcript
from webchat_fsm.runtime.receipt import Receipt

Upload = str | os.PathLike[str] | BinaryIO


class CommandFace(ABC):
    """One snake_case method for each command, but for `poll` and `configure`, which are the service's own."""

    @abstractmethod
    def _result(self, command: str, data: Mapping[str, Any] | None = None) -> Any:
        """Give a command by its documented name; its value, or `CommandRejected`."""

    @abstractmethod
    def _send(self, command: str, data: Json) -> Receipt:
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
        return cast(Response, self._result("startChat", {"form": fields, "userData": user_data}))

    def end_chat(self) -> Response:
        """End the chat; it is over here even where the server's answer is bad (reference: endChat)."""
        return cast(Response, self._result("endChat"))

    def send_message(self, message: str, *, type: str = "", parent_message_id: str = "") -> Receipt:  # noqa: A002
        """Send a text; it comes back once in `messageReceived` (reference: sendMessage).

        `type` is a free label, "text" by default; `parent_message_id` names the message that is answered.
        A send is never repeated by the library: after `CommandRejected` with a `TransportError` as its cause, the
        server may have taken it all the same.
        """
        return self._send("sendMessage", {"message": message, "type": type, "parentMessageID": parent_message_id})

    def send_filtered_message(self, message: str, regex: re.Pattern[str]) -> None:
        """Send a text that `regex` hides from the transcript here (reference: sendFilteredMessage)."""
        self._result("sendFilteredMessage", {"message": message, "regex": regex})

    def send_custom_notice(self, message: str = "", *, event_attributes: Mapping[str, Any] | None = None) -> Response:
        """Send a custom notice to a custom agent desktop (reference: sendCustomNotice; not on v3)."""
        data = {"message": message, "eventAttributes": event_attributes}
        return cast(Response, self._result("sendCustomNotice", data))

    def send_typing(self, message: str = "") -> Response | None:
        """Tell that the user types, with a preview; None where a burst is merely prolonged (reference: sendTyping)."""
        return cast("Response | None", self._result("sendTyping", {"message": message}))

    def add_prefilter(self, filters: re.Pattern[str] | Iterable[re.Pattern[str]]) -> list[re.Pattern[str]]:
        """Hide texts that match, until the session ends; gives all that were added (reference: addPrefilter)."""
        return cast("list[re.Pattern[str]]", self._result("addPrefilter", {"filters": filters}))

    def update_user_data(self, user_data: Mapping[str, Any]) -> Response | Json:
        """Attach data: to the open session, else to the next one, and then all of them are given (updateUserData)."""
        return cast("Response | Json", self._result("updateUserData", user_data))

    def start_poll(self) -> None:
        """Turn automatic polling on (reference: startPoll)."""
        self._result("startPoll")

    def stop_poll(self) -> None:
        """Turn automatic polling off; real v2 servers drop a chat that is not polled for 45 s (reference: stopPoll)."""
        self._result("stopPoll")

    def reset_poll_exceptions(self) -> None:
        """Count failed polls from 0 again; state and events stay as they are (reference: resetPollExceptions)."""
        self._result("resetPollExceptions")

    def restore(self, session_data: str | Mapping[str, Any] | None = None) -> None:
        """Take a saved session up again; for users in asynchronous mode only (reference: restore)."""
        self._result("restore", {"sessionData": session_data} if session_data else None)

    def get_transcript(self, since: int | str | None = None) -> Transcript:
        """The messages of the chat in order; with `since` those behind the one with that index (getTranscript)."""
        return cast(Transcript, self._result("getTranscript", {"since": since}))

    def get_agents(self) -> dict[int | str, Participant]:
        """Agents and supervisors by participant id (reference: getAgents)."""
        return cast(Agents, self._result("getAgents")).agents

    def get_stats(self) -> Stats:
        """Start, end and duration by the messages, in the server's milliseconds (reference: getStats)."""
        return cast(Stats, self._result("getStats"))

    def get_session_data(self) -> SessionData:
        """What identifies the session at the server, empty before there is one (reference: getSessionData)."""
        return cast(SessionData, self._result("getSessionData"))

    def send_file(self, files: Upload | Iterable[Upload]) -> Response:
        """Send files, one request each; the answer to the last (reference: sendFile).

        On v2 the server's limits for type, size, count and total are checked before a byte is read; what they forbid
        rejects with a response shaped like the server's.
        """
        return cast(Response, self._result("sendFile", {"files": files}))

    def download_file(self, file_id: str, to: str | os.PathLike[str] | None = None) -> Path:
        """Fetch a file of the session and give its path (reference: downloadFile; not on v3).

        `to` is a file, which is replaced, or a folder (by default `client.downloadDir`, which is made where it is
        missing) in which it gets the server's name, reduced to a bare one, and replaces nothing.
        """
        return cast(Path, self._result("downloadFile", {"fileId": file_id, "to": to}))

    def fetch_history(self) -> Response:
        """Bring an older page of an asynchronous chat by `messageReceived`, newest first (reference: fetchHistory)."""
        return cast(Response, self._result("fetchHistory"))

    def register_typing_preview_input(self, input: object) -> None:  # noqa: A002
        """Send the `value` of an object with each poll as typing preview (reference: registerTypingPreviewInput)."""
        self._result("registerTypingPreviewInput", {"input": input})

    def register_pre_processor(self, preprocessor: Callable[[Json], Json | None]) -> Callable[[Json], Json | None]:
        """Let a function change each message, as the bus carries it, before anybody sees it (registerPreProcessor).

        A falsy return keeps the object, changed as it may be; an exception is logged and keeps the message.
        """
        self._result("registerPreProcessor", {"preprocessor": preprocessor})
        return preprocessor

    def verify_session(self) -> bool:
        """Whether a session is open, or saved and young enough to restore (reference: verifySession)."""
        return bool(self._result("verifySession"))

    def fetch(self, content: Mapping[str, Any] | str) -> bytes:
        """The bytes of an item of a v3 message's `content`, or of its url, fetched with the session's headers.

        An extra: the vendor's client fetches images by itself.
        """
        url = content if isinstance(content, str) else str(content.get("url") or "")
        return cast(bytes, self._result("fetch", {"url": url}))

    def get_file_limits(self) -> Response:
        """The server's limits for uploads; an extra of the vendor's client, not in the reference."""
        return cast(Response, self._result("getFileLimits"))
