"""GMS Chat API version 2 over REST: `{app}/2/chat/{service}[/{chatId}/{operation}]`, every operation a POST."""

from __future__ import annotations

import re

from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import TYPING, Chat, Event
from webchat_fsm.server.exchange import HttpAnswer, HttpRequest, Reply
from webchat_fsm.server.faults import Fault
from webchat_fsm.server.forms import Fields, UnreadableBodyError, read_fields, text_of
from webchat_fsm.server.gms import RefusedError, envelope, fault_envelope, gone_envelope, position_of
from webchat_fsm.server.gms_files import FILE_EFFECTS
from webchat_fsm.server.gms_operations import EFFECTS, start

_PATH = re.compile(r"^(?:/.*)?/2/chat/(?P<service>[^/]+)(?P<rest>(?:/[^/]*)*)$")

_ROUTES: dict[tuple[str, ...], str] = {
    (): "start",
    **{("{chatId}", name): name for name in EFFECTS},
    ("{chatId}", "file", "limits"): "file/limits",
    ("{chatId}", "file"): "file",
    ("{chatId}", "file", "{fileId}", "download"): "file/download",
    ("{chatId}", "file", "{fileId}", "delete"): "file/delete",
}


class GmsV2:
    """The REST dialect of version 2."""

    name = "v2"
    operations = frozenset(_ROUTES.values())

    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    def claims(self, path: str) -> bool:
        """Whether a path belongs to this dialect."""
        return _PATH.match(path) is not None

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one request."""
        matched = _PATH.match(request.path)
        if matched is None:
            raise ValueError(f"{request.path} is not a path of version 2")
        found = _route(matched["rest"])
        if found is None:
            return Reply(status=404).answer()
        operation, places = found
        if request.method != "POST":
            return Reply(status=405, headers={"allow": "POST"}).answer()
        try:
            fields = read_fields(request, sniff_multipart=self._centre.options.sniff_multipart)
        except UnreadableBodyError as error:
            return Reply({"errors": [{"code": error.status, "advice": error.reason}]}, error.status).answer()
        fields.update(places)
        self._centre.log(self.name, operation, request, fields)
        return self._centre.carry_out(
            self.name,
            (operation,),
            lambda: self._work(operation, matched["service"], request, fields),
            lambda fault: self._stand_in(fault, fields),
        )

    def _work(self, operation: str, service: str, request: HttpRequest, fields: Fields) -> Reply:
        try:
            self._check_access(request)
            if not self._centre.knows_service(service):
                return self._unknown_service()
            if operation == "start":
                chat = start(self._centre, service, fields)
                return Reply(envelope(self._centre, chat, chat.since(None)))
            return self._in_chat(operation, service, fields)
        except RefusedError as refusal:
            return Reply({"errors": refusal.errors}, refusal.status)

    def _check_access(self, request: HttpRequest) -> None:
        wanted = self._centre.options.apikey
        if wanted is not None and wanted not in (request.headers.get("apikey"), request.headers.get("x-api-key")):
            raise RefusedError(401)

    def _unknown_service(self) -> Reply:
        code = self._centre.options.unknown_service_code
        if code is None:
            return Reply(status=404)
        raise RefusedError(code, status=400)

    def _in_chat(self, operation: str, service: str, fields: Fields) -> Reply:
        chat = self._entered(service, fields)
        if chat is None or chat.sealed:
            return self._gone(fields)
        chat.last_request = self._centre.now
        if chat.ended:
            if operation != "refresh":
                return self._gone(fields)
            chat.sealed = True
        if operation in FILE_EFFECTS:
            return FILE_EFFECTS[operation](self._centre, chat, fields)
        position = None if operation == "readReceipt" else position_of(fields)
        EFFECTS[operation](self._centre, chat, fields)
        asked = position is not None or operation == "refresh"
        return Reply(envelope(self._centre, chat, self._events(chat, position) if asked else []))

    def _entered(self, service: str, fields: Fields) -> Chat | None:
        """The chat that the path names, if the request has its key."""
        chat = self._centre.chats.get(text_of(fields, "chatId") or "")
        if chat is None or chat.service != service:
            return None
        if text_of(fields, "secureKey") != chat.secure_key:
            if self._centre.options.kick_on_wrong_key:
                chat.leave(self._centre.now)
                chat.sealed = True
            return None
        ids = (text_of(fields, "userId"), text_of(fields, "alias"))
        if self._centre.options.strict_ids and ids != (chat.user_id, chat.alias):
            return None
        return chat

    def _events(self, chat: Chat, position: int | None) -> list[Event]:
        events = chat.since(position)
        if self._centre.options.typing_in_refetch or position not in (None, 1):
            return events
        return [event for event in events if event.type not in TYPING]

    def _gone(self, fields: Fields) -> Reply:
        return Reply(gone_envelope(text_of(fields, "chatId") or "", len(self._centre.requests)))

    def _stand_in(self, fault: Fault, fields: Fields) -> Reply:
        """What a fault says instead of the operation's own answer."""
        if fault.server_status is None:
            errors = fault.error_list()
            return Reply({"errors": errors} if errors else {}, fault.http_status or 200)
        chat = self._centre.chats.get(text_of(fields, "chatId") or "")
        try:
            asked = position_of(fields)
        except RefusedError:
            asked = None
        return Reply(fault_envelope(fault, chat, asked), fault.http_status or 200)


def _route(rest: str) -> tuple[str, Fields] | None:
    """The operation that the end of a path names, with the ids that stand in it."""
    parts = [part for part in rest.split("/") if part]
    for pattern, operation in _ROUTES.items():
        places: Fields = {}
        if len(parts) == len(pattern) and all(
            _fits(want, part, places) for want, part in zip(pattern, parts, strict=True)
        ):
            return operation, places
    return None


def _fits(want: str, part: str, places: Fields) -> bool:
    if want.startswith("{"):
        places[want.strip("{}")] = part
        return True
    return want == part
