"""Files in version 2: limits, upload, download, deletion. REST has a path for each, CometD one form."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from webchat_fsm.lifecycle.words import scalars
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Chat, StoredFile
from webchat_fsm.server.exchange import Reply
from webchat_fsm.server.forms import Fields, Upload, fields_of, text_of, upload_of
from webchat_fsm.server.gms import RefusedError, envelope
from webchat_fsm.server.gms_operations import texts

FileEffect = Callable[[Centre, Chat, Fields], Reply]


def _limits(centre: Centre, chat: Chat, _fields: Fields) -> Reply:
    options, sender = centre.options, chat.client.sender
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
        "utcTime": round(centre.now * 1000),
        "userData": limits,
    }
    return Reply(envelope(centre, chat, [], messages=[notice]))


def _upload(centre: Centre, chat: Chat, fields: Fields) -> Reply:
    upload = upload_of(fields, "file") or next((each for each in fields.values() if isinstance(each, Upload)), None)
    if upload is None:
        raise RefusedError(100, "Missing parameter: file")
    _check_upload(centre, chat, upload)
    file = chat.attach(
        chat.client.sender,
        upload.filename,
        upload.content,
        centre.now,
        content_type=upload.content_type,
        user_data=texts(fields_of(fields, "userData")),
    )
    return Reply(envelope(centre, chat, [], userData={"file-id": file.id}))


def _check_upload(centre: Centre, chat: Chat, upload: Upload) -> None:
    options, kept = centre.options, chat.kept_files(chat.client.sender)
    if options.upload_needs_agent and not chat.attended:
        raise RefusedError(249, "A file can be sent only while an agent is in the chat", status=400)
    if len(kept) >= options.max_files:
        raise RefusedError(201, str(options.max_files))
    if len(upload.content) > options.max_file_size:
        raise RefusedError(202, str(options.max_file_size))
    if sum(len(file.content) for file in kept) + len(upload.content) > options.max_total_size:
        raise RefusedError(202, str(options.max_total_size))
    ending = upload.filename.rpartition(".")[2].lower()
    if options.file_types and ending not in options.file_types:
        raise RefusedError(203, ":".join(options.file_types))


def _download(centre: Centre, chat: Chat, fields: Fields) -> Reply:
    file = _stored(chat, fields)
    if file.downloads >= centre.options.download_attempts:
        raise RefusedError(249, f"Only {centre.options.download_attempts} downloads are allowed", status=400)
    file.downloads += 1
    return file_reply(file)


def _delete(centre: Centre, chat: Chat, fields: Fields) -> Reply:
    chat.discard(_stored(chat, fields), chat.client.sender, centre.now)
    return Reply(envelope(centre, chat, []))


def _stored(chat: Chat, fields: Fields) -> StoredFile:
    file = chat.files.get(text_of(fields, "fileId") or "")
    if file is None or file.deleted:
        raise RefusedError(404, "File not found")
    return file


def file_reply(file: StoredFile) -> Reply:
    """The bytes of a file under the name that it was sent with."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in file.name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(scalars(file.name), safe='')}"
    return Reply(raw=file.content, headers={"content-type": file.content_type, "content-disposition": disposition})


FILE_EFFECTS: dict[str, FileEffect] = {
    "file/limits": _limits,
    "file": _upload,
    "file/download": _download,
    "file/delete": _delete,
}
"""File operations by their REST paths, the file's id left out; it stands in the field `fileId`."""
