"""GMS Chat API version 2 over REST: `{app}/2/chat/{service}[/{chatId}/{operation}]`, every operation a POST."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from webchat_fsm._model import scalars
from webchat_fsm.server._chat import TYPING, Chat, ServerEvent, StoredFile
from webchat_fsm.server._faults import Fault
from webchat_fsm.server._gms import (
    EFFECTS,
    GmsRefusedError,
    envelope,
    fault_envelope,
    gone_envelope,
    position_of,
    start,
    texts,
)
from webchat_fsm.server._http import (
    Fields,
    HttpRequest,
    ServerAnswer,
    ServerReply,
    UnreadableBodyError,
    UploadedFile,
    fields_of,
    read_fields,
    text_of,
    upload_of,
)
from webchat_fsm.server._state import ServerState

FileEffect = Callable[[ServerState, Chat, Fields], ServerReply]


def _limits(state: ServerState, chat: Chat, _fields: Fields) -> ServerReply:
    options, sender = state.options, chat.client.sender
    kept = chat.kept_files(sender)
    limits = {
        "download-attempts": str(options.download_attempts),
        "upload-max-files": str(options.max_files),
        "upload-max-file-size": str(options.max_file_size),
        "upload-max-total-size": str(options.max_total_size),
        "upload-need-agent": "true" if options.upload_needs_agent else "false",
        "upload-file-types": ":".join(options.file_types),
        "used-upload-max-files": str(len(kept)),
        "used-upload-max-total-size": str(sum(len(file.content) for file in kept)),
        "used-download-attempts": str(sum(file.downloads for file in chat.files.values())),
        "delete-file": "odd",
    }
    notice = {
        "from": {"nickname": sender.nickname, "participantId": sender.participant_id, "type": sender.kind},
        "text": "file-client-cfg-get",
        "type": "Notice",
        "utcTime": round(state.now * 1000),
        "userData": limits,
    }
    return ServerReply(envelope(state, chat, [], messages=[notice]))


def _upload(state: ServerState, chat: Chat, fields: Fields) -> ServerReply:
    # The name of the field is not insisted on, as an upload has one file.
    upload = upload_of(fields, "file") or next(
        (each for each in fields.values() if isinstance(each, UploadedFile)), None
    )
    if upload is None:
        raise GmsRefusedError(100, "Missing parameter: file")
    _check_upload(state, chat, upload)
    file = chat.attach(
        chat.client.sender,
        upload.filename,
        upload.content,
        state.now,
        content_type=upload.content_type,
        user_data=texts(fields_of(fields, "userData")),
    )
    return ServerReply(envelope(state, chat, [], userData={"file-id": file.id}))


def _check_upload(state: ServerState, chat: Chat, upload: UploadedFile) -> None:
    options, kept = state.options, chat.kept_files(chat.client.sender)
    if options.upload_needs_agent and not chat.attended:
        # 249 elsewhere ends the chat; with HTTP 400 only this operation is refused.
        raise GmsRefusedError(249, "A file can be sent only while an agent is in the chat", status=400)
    if len(kept) >= options.max_files:
        raise GmsRefusedError(201, str(options.max_files))
    if len(upload.content) > options.max_file_size:
        raise GmsRefusedError(202, str(options.max_file_size))
    if sum(len(file.content) for file in kept) + len(upload.content) > options.max_total_size:
        raise GmsRefusedError(202, str(options.max_total_size))
    # Only the name is checked: the type that a client declares is its own choice.
    ending = upload.filename.rpartition(".")[2].lower()
    if options.file_types and ending not in options.file_types:
        raise GmsRefusedError(203, ":".join(options.file_types))


def _download(state: ServerState, chat: Chat, fields: Fields) -> ServerReply:
    file = _stored(chat, fields)
    if file.downloads >= state.options.download_attempts:
        raise GmsRefusedError(249, f"Only {state.options.download_attempts} downloads are allowed", status=400)
    # Counted before it is sent: an answer that is lost on the way uses up an attempt too.
    file.downloads += 1
    return file_reply(file)


def _delete(state: ServerState, chat: Chat, fields: Fields) -> ServerReply:
    chat.discard(_stored(chat, fields), chat.client.sender, state.now)
    return ServerReply(envelope(state, chat, []))


def _stored(chat: Chat, fields: Fields) -> StoredFile:
    file = chat.files.get(text_of(fields, "fileId") or "")
    if file is None or file.deleted:
        raise GmsRefusedError(404, "File not found")
    return file


def file_reply(file: StoredFile) -> ServerReply:
    """Return the bytes of a file under the name that it was sent with."""
    # Two forms, by RFC 6266: ASCII for old clients, and UTF-8, for which half a surrogate pair has no bytes.
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in file.name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(scalars(file.name), safe='')}"
    return ServerReply(
        raw=file.content, headers={"content-type": file.content_type, "content-disposition": disposition}
    )


FILE_EFFECTS: dict[str, FileEffect] = {
    "file/limits": _limits,
    "file": _upload,
    "file/download": _download,
    "file/delete": _delete,
}
"""File operations by their REST paths, the file's id left out; it stands in the field `fileId`."""


_PATH = re.compile(r"^(?:/.*)?/2/chat/(?P<service>[^/]+)(?P<rest>(?:/[^/]*)*)$")

_ROUTES: dict[tuple[str, ...], str] = {
    (): "start",
    **{("{chatId}", name): name for name in EFFECTS},
    ("{chatId}", "file", "limits"): "file/limits",
    ("{chatId}", "file"): "file",
    ("{chatId}", "file", "{fileId}", "download"): "file/download",
    ("{chatId}", "file", "{fileId}", "delete"): "file/delete",
}


class GmsDialect:
    """Answers requests of version 2 over REST, with an envelope or with a list of errors."""

    name = "v2"
    operations = frozenset(_ROUTES.values())

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def claims(self, path: str) -> bool:
        """Return whether a path is that of a chat service, with or without an operation."""
        return _PATH.match(path) is not None

    def handle(self, request: HttpRequest) -> ServerAnswer:
        """Answer one request; raises `ValueError` for a path that `claims` rejects."""
        matched = _PATH.match(request.path)
        if matched is None:
            raise ValueError(f"{request.path!r} is not a path of version 2: ask claims() first")
        found = _route(matched["rest"])
        if found is None:
            return ServerReply(status=404).answer()
        operation, path_ids = found
        # After the route: a path that does not exist is a 404 for every method.
        if request.method != "POST":
            return ServerReply(status=405, headers={"allow": "POST"}).answer()
        try:
            fields = read_fields(request, sniff_multipart=self._state.options.sniff_multipart)
        except UnreadableBodyError as error:
            return ServerReply({"errors": [{"code": error.status, "advice": error.reason}]}, error.status).answer()
        # The ids of the path override fields of these names in the body.
        fields.update(path_ids)
        # Before the fault and all checks, so that tests see refused requests as well.
        self._state.log(self.name, operation, request, fields)
        return self._state.perform(
            self.name,
            (operation,),
            lambda: self._operate(operation, matched["service"], request, fields),
            lambda fault: self._fault_reply(fault, fields),
        )

    def _operate(self, operation: str, service: str, request: HttpRequest, fields: Fields) -> ServerReply:
        try:
            self._check_access(request)
            # After the key, so that no one can search for services without it.
            if not self._state.has_service(service):
                return self._unknown_service()
            if operation == "start":
                chat = start(self._state, service, fields)
                return ServerReply(envelope(self._state, chat, chat.since(None)))
            return self._in_chat(operation, service, fields)
        except GmsRefusedError as refusal:
            return ServerReply({"errors": refusal.errors}, refusal.status)

    def _check_access(self, request: HttpRequest) -> None:
        required_key = self._state.options.apikey
        if required_key is not None and required_key not in (
            request.headers.get("apikey"),
            request.headers.get("x-api-key"),
        ):
            raise GmsRefusedError(401)

    def _unknown_service(self) -> ServerReply:
        code = self._state.options.unknown_service_code
        if code is None:
            return ServerReply(status=404)
        raise GmsRefusedError(code, status=400)

    def _in_chat(self, operation: str, service: str, fields: Fields) -> ServerReply:
        chat = self._authorised(service, fields)
        # One answer for an unknown chat, a wrong key and an ended chat: it must not show which of them it is.
        if chat is None or chat.sealed:
            return self._gone_reply(fields)
        # Any operation shows that the client lives, not only a poll.
        chat.last_request = self._state.now
        if chat.ended:
            # The client may read the end once, by a refresh; other operations come too late.
            if operation != "refresh":
                return self._gone_reply(fields)
            chat.sealed = True
        if operation in FILE_EFFECTS:
            return FILE_EFFECTS[operation](self._state, chat, fields)
        # In a receipt the position is what was read, not where the answer is to begin.
        position = None if operation == "readReceipt" else position_of(fields)
        EFFECTS[operation](self._state, chat, fields)
        asked = position is not None or operation == "refresh"
        return ServerReply(envelope(self._state, chat, self._events(chat, position) if asked else []))

    def _authorised(self, service: str, fields: Fields) -> Chat | None:
        """Return the chat that the path names, if the request has its key."""
        chat = self._state.chats.get(text_of(fields, "chatId") or "")
        # A chat is found below the service of its start only.
        if chat is None or chat.service != service:
            return None
        if text_of(fields, "secureKey") != chat.secure_key:
            if self._state.options.kick_on_wrong_key:
                chat.leave(self._state.now)
                chat.sealed = True
            return None
        ids = (text_of(fields, "userId"), text_of(fields, "alias"))
        if self._state.options.strict_ids and ids != (chat.user_id, chat.alias):
            return None
        return chat

    def _events(self, chat: Chat, position: int | None) -> list[ServerEvent]:
        events = chat.since(position)
        # Typing is left out only where the whole transcript is asked for again.
        if self._state.options.typing_in_refetch or position not in (None, 1):
            return events
        return [event for event in events if event.type not in TYPING]

    def _gone_reply(self, fields: Fields) -> ServerReply:
        return ServerReply(gone_envelope(text_of(fields, "chatId") or "", len(self._state.requests)))

    def _fault_reply(self, fault: Fault, fields: Fields) -> ServerReply:
        """Build the answer of a fault in place of the operation's own."""
        if fault.server_status is None:
            errors = fault.error_list()
            return ServerReply({"errors": errors} if errors else {}, fault.http_status or 200)
        chat = self._state.chats.get(text_of(fields, "chatId") or "")
        try:
            asked = position_of(fields)
        except GmsRefusedError:
            # The request was wrong too, but the fault decides the answer.
            asked = None
        return ServerReply(fault_envelope(fault, chat, asked), fault.http_status or 200)


def _route(rest: str) -> tuple[str, Fields] | None:
    """Return the operation that the end of a path names, with the ids in it; None for an unknown path."""
    # A configured URL may end with a slash, which doubles the one before the operation.
    parts = [part for part in rest.split("/") if part]
    for pattern, operation in _ROUTES.items():
        path_ids: Fields = {}
        if len(parts) == len(pattern) and all(
            _fits(expected, part, path_ids) for expected, part in zip(pattern, parts, strict=True)
        ):
            return operation, path_ids
    return None


def _fits(expected: str, part: str, path_ids: Fields) -> bool:
    if expected.startswith("{"):
        path_ids[expected.strip("{}")] = part
        return True
    return expected == part


_FILES_PATH = re.compile(r"^(?:/.*)?/2/chat-ntf/?$")
_FILE_OPERATIONS = {
    "fileGetLimits": "file/limits",
    "fileGetsLimits": "file/limits",
    "fileUpload": "file",
    "fileDownload": "file/download",
    "fileDelete": "file/delete",
}


class CometDFilesDialect:
    """Answers the file operations of CometD, which are posted as a form to `/2/chat-ntf`, as Bayeux has no files."""

    name = "cometd"
    operations = frozenset(_FILE_OPERATIONS).union(_FILE_OPERATIONS.values())

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def claims(self, path: str) -> bool:
        """Return whether a path ends in `/2/chat-ntf`."""
        return _FILES_PATH.match(path) is not None

    def handle(self, request: HttpRequest) -> ServerAnswer:
        """Answer one request, whose field `operation` names what to do."""
        if request.method != "POST":
            return ServerReply(status=405, headers={"allow": "POST"}).answer()
        try:
            fields = read_fields(request, sniff_multipart=self._state.options.sniff_multipart)
        except UnreadableBodyError as error:
            return ServerReply({"errors": [{"code": error.status, "advice": error.reason}]}, error.status).answer()
        wire_name = text_of(fields, "operation") or ""
        operation = _FILE_OPERATIONS.get(wire_name, wire_name)
        self._state.log(self.name, operation, request, fields)
        return self._state.perform(
            self.name,
            (operation, wire_name),
            lambda: self._operate(operation, request, fields),
            lambda fault: self._fault_reply(fault, fields),
        )

    def _operate(self, operation: str, request: HttpRequest, fields: Fields) -> ServerReply:
        try:
            required_key = self._state.options.apikey
            if required_key is not None and request.headers.get("apikey") != required_key:
                raise GmsRefusedError(401)
            if operation not in FILE_EFFECTS:
                raise GmsRefusedError(100, "Missing parameter: operation")
            chat = self._state.by_key(text_of(fields, "secureKey"))
            # Unlike a refresh, a file operation has no answer after the end: it would return no events.
            if chat is None or chat.ended:
                return ServerReply(gone_envelope("", len(self._state.requests)))
            chat.last_request = self._state.now
            return FILE_EFFECTS[operation](self._state, chat, fields)
        except GmsRefusedError as refusal:
            return ServerReply({"errors": refusal.errors}, refusal.status)

    def _fault_reply(self, fault: Fault, fields: Fields) -> ServerReply:
        if fault.server_status is None:
            errors = fault.error_list()
            return ServerReply({"errors": errors} if errors else {}, fault.http_status or 200)
        chat = self._state.by_key(text_of(fields, "secureKey"))
        return ServerReply(fault_envelope(fault, chat, chat.next_position if chat else 1), fault.http_status or 200)
