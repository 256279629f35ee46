"""The v2 API over CometD: Bayeux messages out, acknowledgements and pushed envelopes back."""

from __future__ import annotations

import math
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from webchat_fsm._bayeux.frames import Answer, BayeuxDisconnect, Connect, Handshake, Notifications
from webchat_fsm._config import Config
from webchat_fsm._core import operations as op
from webchat_fsm._core.operations import Operation
from webchat_fsm._core.steps import Call, Reply, ResponseKind
from webchat_fsm._core.timers import CONNECT_GRACE, DISCONNECT_TIMEOUT
from webchat_fsm._errors import TransportError
from webchat_fsm._json import json_to_send
from webchat_fsm._model import Json, Response, SessionData
from webchat_fsm._wire import gms_v2, lenient
from webchat_fsm._wire.decoding import object_in, read_body
from webchat_fsm._wire.request import (
    FilePart,
    HttpAnswer,
    Request,
    bounds,
    errors_of,
    not_offered,
    part,
    refused_between,
    retry_after,
    text,
    unreadable,
)

JSON = "application/json;charset=UTF-8"
HANDSHAKE_TYPES = ("long-polling",)
HANDSHAKE = {
    "version": "1.0",
    "minimumVersion": "1.0",
    "channel": "/meta/handshake",
    "supportedConnectionTypes": list(HANDSHAKE_TYPES),
    "advice": {"timeout": 60000, "interval": 0},
}
LONGEST_HOLD = 3600.0
"""Seconds for which a connect may be held at most; a longer advice of the gateway is cut."""

RECONNECT = frozenset({"retry", "handshake", "none"})
"""What the advice `reconnect` may be; anything else counts as not said."""

YEAR = 365 * 86400
"""Seconds beyond which a number of the advice is not distinguished from larger ones."""

WEBSOCKET = "websocket"


def over_websocket(body: bytes) -> bytes:
    """Return the same messages for a text frame, where they name another type of connection."""
    return json_to_send([_over_websocket(message) for message in msgspec.json.decode(body)])


def _over_websocket(message: Json) -> Json:
    if message["channel"] == "/meta/handshake":
        return {**message, "supportedConnectionTypes": [WEBSOCKET, *HANDSHAKE_TYPES]}
    return {**message, "connectionType": WEBSOCKET} if "connectionType" in message else message


FILE_OPERATIONS = frozenset({op.FileLimits.name, op.SendFile.name, op.Download.name})
"""The names of the operations that travel as HTTP forms, over a websocket connection too."""
UNKNOWN_CLIENT = "402"


class CometD:
    """The CometD dialect of one configuration."""

    __slots__ = ("_channel", "_config", "_file_headers", "_message_headers", "_url")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._url = config.comet_d.comet_url.rstrip("/")
        self._channel = config.comet_d.channel
        self._file_headers = gms_v2.headers(config)
        # The reference sends `apikey` with files, never with Bayeux messages.
        self._message_headers = {name: value for name, value in self._file_headers.items() if name != "apikey"}

    def request(self, call: Call) -> Request:
        """Build the POST that carries a call: a Bayeux message, or a form for an operation on files."""
        operation = call.operation
        if isinstance(operation, op.FileOperation):
            return self._file_request(operation, call.session_data)
        path, message = self._message(operation, call)
        timeout, max_size = bounds(self._config, operation)
        return Request(
            operation=operation.name,
            method="POST",
            url=self._url + path,
            headers=self._message_headers.copy(),
            body=json_to_send([{"id": call.link.id, **message}]),
            content_type=JSON,
            timeout=_deadline(call, timeout or CONNECT_GRACE),
            max_size=max_size,
            listen=operation.listen if isinstance(operation, Connect) else 0.0,
        )

    def _message(self, operation: Operation, call: Call) -> tuple[str, Json]:
        """Return the path of a message and the message without its id."""
        match operation:
            case Handshake():
                return "/handshake", HANDSHAKE
            case Connect(hold=hold):
                message = {**_meta("connect", call.link.client_id), "connectionType": "long-polling"}
                return "/connect", message if hold is None else {**message, "advice": {"timeout": round(hold * 1000)}}
            case BayeuxDisconnect(client_id=client_id):
                return "/disconnect", _meta("disconnect", client_id)
            case _:
                return "/", self._publish(operation, call)

    def _publish(self, operation: Operation, call: Call) -> Json:
        known = call.session_data
        name, fields = self._published(operation)
        data = {
            "operation": name,
            "chatId": known.session_id,
            "alias": known.alias,
            "secureKey": known.secure_key,
            "userId": known.user_id,
            **fields,
        }
        return {"channel": self._channel, "clientId": call.link.client_id, "data": data}

    def _published(self, operation: Operation) -> tuple[str, Json]:  # noqa: C901 - one case an operation
        """Return the name and the fields of an operation that is published on the channel of the chat."""
        match operation:
            case op.Start():
                return "requestChat", self._start_fields(operation)
            case op.Send():
                return "sendMessage", _send_fields(operation)
            case op.StartTyping() | op.StopTyping():
                return operation.name, {"transcriptPosition": operation.position, "message": operation.preview}
            case op.UpdateData(user_data=user_data):
                return "updateData", {"userData": user_data}
            case op.CustomNotice():
                return "customNotice", _notice_fields(operation)
            case Notifications(position=position):
                return "requestNotifications", {"transcriptPosition": position, "message": ""}
            case op.Disconnect():
                return "disconnect", {}
            case op.NoRequest() | op.Refresh() | op.Resume() | op.Restore() | op.History() | op.Fetch():
                raise not_offered(operation)
            case op.FileLimits() | op.SendFile() | op.Download() | Handshake() | Connect() | BayeuxDisconnect():
                raise not_offered(operation)
            case _:
                assert_never(operation)

    def _start_fields(self, start: op.Start) -> Json:
        fields: Json = {wire: text(start.form.get(name)) for name, wire in gms_v2.START_FIELDS}
        if self._config.endpoint:
            fields["endpoint"] = self._config.endpoint
        return {**fields, "text": "", "userData": start.user_data}

    # -- answers ---------------------------------------------------------------------------------------------------

    def reply(self, call: Call, answer: HttpAnswer, url: str) -> Reply:
        """Read the answer to a call that was sent to `url`, and what was pushed with it."""
        if isinstance(call.operation, op.FileOperation):
            return gms_v2.read(call, answer, url)
        document = read_body(answer.body, answer.content_type)
        response = Response(status=answer.status, body=document.value, url=self._url)
        listed = document.value if isinstance(document.value, list) else [document.value]
        messages = [one for one in listed if isinstance(one, dict) and isinstance(one.get("channel"), str)]
        own, left = self._split(call, messages)
        # a refusal in Bayeux itself counts, with any HTTP status: it says more than the status does
        if answer.status != 200 and (own is None or own.get("successful") is not False):
            return self._no_bayeux(call, answer, response)
        if own is None and not (left and isinstance(call.operation, Connect)):
            why = document.fault or f"no reply to message {call.link.id} - at `$`"
            return unreadable(call.operation.name, response, why)
        advice = _advice(*([own] if own else []), *left)
        reply = _acknowledged(call, own or {}, advice, response)
        timeout = _seconds(advice, "timeout")
        link = Answer(
            client_id=str((own or {}).get("clientId") or ""),
            timeout=None if timeout is None else min(timeout, LONGEST_HOLD),
            interval=_seconds(advice, "interval"),
            reconnect=_reconnect(advice),
            disconnected=bool(left),
            line=answer.line,
        )
        misread = document.misread + _no_messages(listed)
        return replace(reply, link=link, pushes=tuple(self._pushes(call, messages)), misread=misread)

    def _split(self, call: Call, messages: list[Json]) -> tuple[Json | None, list[Json]]:
        """Return the reply to a call, and the messages by which the server ends the connection."""
        own = next((one for one in messages if self._is_own(call, one)), None)
        if isinstance(call.operation, BayeuxDisconnect):  # its reply is on the channel of such messages
            return own, []
        return own, [one for one in messages if one["channel"] == DISCONNECTED]

    def _no_bayeux(self, call: Call, answer: HttpAnswer, response: Response) -> Reply:
        """Read a status that comes without a Bayeux refusal, from something in between."""
        if answer.status == 429:
            return Reply(kind=ResponseKind.THROTTLED, response=response, retry_after=retry_after(answer))
        return refused_between(call.operation.name, answer, response)

    def _is_own(self, call: Call, message: Json) -> bool:
        if "successful" not in message:
            return False
        # all published messages share a channel, so that the id counts; each link message has a channel of its own
        if message.get("id") is not None and not isinstance(call.operation, Handshake | Connect | BayeuxDisconnect):
            return bool(str(message["id"]) == call.link.id)
        return bool(message["channel"] == _CHANNELS.get(type(call.operation), self._channel))

    def _pushes(self, call: Call, messages: list[Json]) -> list[Reply]:
        pushed = [one for one in messages if "data" in one and "successful" not in one]
        data = [one["data"] for one in pushed if one["channel"] == self._channel]
        return [gms_v2.read_envelope(None, call.session_data, body, self._pushed(body)) for body in data]

    def _pushed(self, body: Any) -> Response:
        return Response(status=200, body=body, errors=errors_of(body), url=self._url)

    # -- files -----------------------------------------------------------------------------------------------------

    def _file_request(self, operation: op.FileOperation, known: SessionData) -> Request:
        name, fields = _file_fields(operation)
        timeout, max_size = bounds(self._config, operation)
        return Request(
            operation=operation.name,
            method="POST",
            url=self._config.comet_d.api_url,
            headers=self._file_headers.copy(),
            parts=(("operation", name), ("secureKey", known.secure_key), *fields),
            timeout=timeout,
            max_size=max_size,
        )


def _meta(kind: str, client_id: str) -> Json:
    return {"channel": f"/meta/{kind}", "clientId": client_id}


def _send_fields(send: op.Send) -> Json:
    fields: Json = {"message": send.message, "messageType": send.message_type or "text"}
    if parent := send.parent_message_id:
        fields["eventAttributes"] = {"general-properties": {"related-event-id": str(parent)}}
    return fields


def _notice_fields(notice: op.CustomNotice) -> Json:
    fields: Json = {"message": notice.message}
    if notice.event_attributes:
        fields["eventAttributes"] = _structured(notice.event_attributes)
    if notice.message_type:
        fields["messageType"] = notice.message_type
    return fields


def _file_fields(operation: op.FileOperation) -> tuple[str, tuple[tuple[str, str | FilePart], ...]]:
    """Return the name of an operation on files and its own parts of the form."""
    match operation:
        case op.FileLimits():
            return "fileGetLimits", ()
        case op.SendFile():
            return "fileUpload", (("file", part(operation)),)
        case op.Download(file_id=file_id):
            return "fileDownload", (("fileId", file_id),)
        case _:
            assert_never(operation)


DISCONNECTED = "/meta/disconnect"
_CHANNELS: dict[type[Operation], str] = {
    Handshake: "/meta/handshake",
    Connect: "/meta/connect",
    BayeuxDisconnect: DISCONNECTED,
}


def _deadline(call: Call, usual: float) -> float:
    """Return the seconds for which the answer to a Bayeux message is waited for; `usual` is ajaxTimeout."""
    match call.operation:
        case BayeuxDisconnect():
            return min(DISCONNECT_TIMEOUT, usual)
        case Connect() as connect:
            held = connect.usual if connect.hold is None else connect.hold
            return min(CONNECT_GRACE + held + connect.listen, LONGEST_HOLD + CONNECT_GRACE, call.link.left)
        case _:
            return min(usual, call.link.left)


def _structured(value: Any) -> Any:
    """Return a field as this wire has it: objects as they are, where REST wants their JSON text."""
    inner = object_in(value)
    return value if inner is None else inner


def _no_messages(listed: list[Any]) -> tuple[str, ...]:
    """Return the kinds of elements of an answer that are no Bayeux messages."""
    kinds = {
        lenient.kind_of(one) for one in listed if not (isinstance(one, dict) and isinstance(one.get("channel"), str))
    }
    return tuple(f"[]: expected object with a channel, got {kind}" for kind in sorted(kinds))


def _acknowledged(call: Call, own: Json, advice: Json, response: Response) -> Reply:
    answered = Response(status=200, body=own, errors=_errors(own), url=response.url)
    kind = _kind(call, own, advice)
    error = TransportError(_refusal(call, kind, answered), response=answered)
    return Reply(kind=kind, response=answered, error=None if kind is ResponseKind.GOOD else error)


def _kind(call: Call, own: Json, advice: Json) -> ResponseKind:
    # a handshake is good only with a client id, without which no further message can be sent
    handshake = isinstance(call.operation, Handshake)
    if own.get("successful") is True and (not handshake or own.get("clientId")):
        return ResponseKind.GOOD
    again = isinstance(call.operation, Connect | Notifications) and _reconnect(advice) == "handshake"
    unknown = str(own.get("error") or "").partition(":")[0].strip() == UNKNOWN_CLIENT
    return ResponseKind.UNKNOWN_CLIENT if not handshake and (unknown or again) else ResponseKind.REFUSED


def _errors(own: Json) -> list[Json]:
    if own.get("successful") is not False:
        return []
    # Bayeux spells an error as code:arguments:text; without arguments the two colons are adjacent
    code, _, said = str(own.get("error") or "").partition("::")
    number = int(code) if code.isdecimal() and len(code) < 10 else code
    return [{"code": number, "text": said.lstrip(":") or "not successful"}]


def _refusal(call: Call, kind: ResponseKind, response: Response) -> str:
    """Return the text of an error for a message that the gateway rejected."""
    said = "; ".join(f"{error['code']} {error['text']}" for error in response.errors)
    who = "the gateway does not know this client" if kind is ResponseKind.UNKNOWN_CLIENT else "refused by the gateway"
    return f"{call.operation.name}: {who}: {said or 'no reason given'}"


def _advice(*messages: Json) -> Json:
    """Return the advice of the reply and of a message on /meta/disconnect beside it; the later one wins."""
    merged: Json = {}
    for message in messages:
        given = message.get("advice")
        merged.update(given if isinstance(given, dict) else {})
    return merged


def _reconnect(advice: Json) -> str:
    given = advice.get("reconnect")
    word = given.strip().lower() if isinstance(given, str) else ""
    return word if word in RECONNECT else ""


def _seconds(advice: Json, key: str) -> float | None:
    """Read milliseconds, in digits too; None for what is no number from 0 on."""
    value = advice.get(key)
    if isinstance(value, str) and value.strip().isdecimal():
        value = float(value[:20])
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        return None
    return min(value, YEAR * 1000) / 1000
