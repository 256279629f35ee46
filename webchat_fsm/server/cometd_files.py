"""Files beside CometD: one form at `{app}/2/chat-ntf`, whose field `operation` says what is wanted."""

from __future__ import annotations

import re

from webchat_fsm.server.centre import Centre
from webchat_fsm.server.exchange import HttpAnswer, HttpRequest, Reply
from webchat_fsm.server.faults import Fault
from webchat_fsm.server.forms import Fields, UnreadableBodyError, read_fields, text_of
from webchat_fsm.server.gms import RefusedError, fault_envelope, gone_envelope
from webchat_fsm.server.gms_files import FILE_EFFECTS

_PATH = re.compile(r"^(?:/.*)?/2/chat-ntf/?$")
_OPERATIONS = {
    "fileGetLimits": "file/limits",
    "fileGetsLimits": "file/limits",
    "fileUpload": "file",
    "fileDownload": "file/download",
    "fileDelete": "file/delete",
}


class CometDFiles:
    """The file form of the CometD dialect."""

    name = "cometd"
    operations = frozenset(_OPERATIONS).union(_OPERATIONS.values())

    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    def claims(self, path: str) -> bool:
        """Whether a path is the form's."""
        return _PATH.match(path) is not None

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one request."""
        if request.method != "POST":
            return Reply(status=405, headers={"allow": "POST"}).answer()
        try:
            fields = read_fields(request, sniff_multipart=self._centre.options.sniff_multipart)
        except UnreadableBodyError as error:
            return Reply({"errors": [{"code": error.status, "advice": error.reason}]}, error.status).answer()
        wire_name = text_of(fields, "operation") or ""
        operation = _OPERATIONS.get(wire_name, wire_name)
        self._centre.log(self.name, operation, request, fields)
        return self._centre.carry_out(
            self.name,
            (operation, wire_name),
            lambda: self._work(operation, request, fields),
            lambda fault: self._stand_in(fault, fields),
        )

    def _work(self, operation: str, request: HttpRequest, fields: Fields) -> Reply:
        try:
            wanted = self._centre.options.apikey
            if wanted is not None and request.headers.get("apikey") != wanted:
                raise RefusedError(401)
            if operation not in FILE_EFFECTS:
                raise RefusedError(100, "Missing parameter: operation")
            chat = self._centre.by_key(text_of(fields, "secureKey"))
            if chat is None or chat.ended:
                return Reply(gone_envelope("", len(self._centre.requests)))
            chat.last_request = self._centre.now
            return FILE_EFFECTS[operation](self._centre, chat, fields)
        except RefusedError as refusal:
            return Reply({"errors": refusal.errors}, refusal.status)

    def _stand_in(self, fault: Fault, fields: Fields) -> Reply:
        if fault.server_status is None:
            errors = fault.error_list()
            return Reply({"errors": errors} if errors else {}, fault.http_status or 200)
        chat = self._centre.by_key(text_of(fields, "secureKey"))
        return Reply(fault_envelope(fault, chat, chat.next_position if chat else 1), fault.http_status or 200)
