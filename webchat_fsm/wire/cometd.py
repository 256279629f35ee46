"""The v2 API over CometD: Bayeux messages out, acknowledgements and pushed envelopes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from webchat_fsm.config import Config
from webchat_fsm.core.facts import LinkAnswer, Reply, Verdict
from webchat_fsm.core.pace import CONNECT_GRACE, DISCONNECT_TIMEOUT
from webchat_fsm.errors import TransportError
from webchat_fsm.lifecycle.effects import Call
from webchat_fsm.lifecycle.encoding import json_to_send
from webchat_fsm.lifecycle.words import Json, Response
from webchat_fsm.wire import gms_v2, lenient
from webchat_fsm.wire.decoding import object_in, read_body
from webchat_fsm.wire.request import (
    FilePart,
    HttpAnswer,
    Request,
    bare,
    errors_of,
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
"""Seconds for which a connect may be held at most, whatever the gateway advises."""

RECONNECT = frozenset({"retry", "handshake", "none"})
"""What the advice `reconnect` may be; anything else counts as not said."""

YEAR = 365 * 86400
"""Seconds beyond which a number of the advice is not distinguished from larger ones."""

WEBSOCKET = "websocket"


def over_websocket(body: bytes) -> bytes:
    """The same messages as they travel in a text frame, where they name another type of connection."""
    return json_to_send([_over_websocket(message) for message in msgspec.json.decode(body)])


def _over_websocket(message: Json) -> Json:
    if message["channel"] == "/meta/handshake":
        return {**message, "supportedConnectionTypes": [WEBSOCKET, *HANDSHAKE_TYPES]}
    return {**message, "connectionType": WEBSOCKET} if "connectionType" in message else message


FILE_OPERATIONS = {"limits": "fileGetLimits", "file": "fileUpload", "download": "fileDownload"}
UNKNOWN_CLIENT = "402"


class CometD:
    """The CometD dialect of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._url = config.comet_d.comet_url.rstrip("/")
        self._channel = config.comet_d.channel

    def request(self, call: Call) -> Request:
        """The POST that carries a call: a Bayeux message, or a form for an operation on files."""
        if call.operation in FILE_OPERATIONS:
            return self._file_request(call)
        path, message = _META.get(call.operation, CometD._publish)(self, call)
        return Request(
            operation=call.operation,
            method="POST",
            url=self._url + path,
            headers=self._headers(files=False),
            body=json_to_send([{"id": call.fields["id"], **message}]),
            content_type=JSON,
            timeout=_patience(call, self._config.ajax_timeout / 1000 or CONNECT_GRACE),
            max_size=self._config.client.max_answer_size,
            listen=call.fields.get("listen", 0.0),
        )

    def _headers(self, *, files: bool) -> dict[str, str]:
        headers = gms_v2.headers(self._config)
        return headers if files else {name: value for name, value in headers.items() if name != "apikey"}

    def _handshake(self, call: Call) -> tuple[str, Json]:
        return "/handshake", HANDSHAKE

    def _connect(self, call: Call) -> tuple[str, Json]:
        message = {**self._meta(call, "connect"), "connectionType": "long-polling"}
        hold = call.fields.get("hold")
        return "/connect", message if hold is None else {**message, "advice": {"timeout": round(hold * 1000)}}

    def _hangup(self, call: Call) -> tuple[str, Json]:
        return "/disconnect", self._meta(call, "disconnect")

    def _meta(self, call: Call, kind: str) -> Json:
        return {"channel": f"/meta/{kind}", "clientId": call.fields["client_id"]}

    def _publish(self, call: Call) -> tuple[str, Json]:
        operation, fields = _OPERATIONS[call.operation](self, call)
        known = call.session_data
        data = {
            "operation": operation,
            "chatId": known.session_id,
            "alias": known.alias,
            "secureKey": known.secure_key,
            "userId": known.user_id,
            **fields,
        }
        return "/", {"channel": self._channel, "clientId": call.fields["client_id"], "data": data}

    # -- operations ------------------------------------------------------------------------------------------------

    def _start(self, call: Call) -> tuple[str, Json]:
        given = call.fields["form"]
        fields: Json = {wire: text(given.get(name)) for name, wire in gms_v2.START_FIELDS}
        if self._config.endpoint:
            fields["endpoint"] = self._config.endpoint
        return "requestChat", {**fields, "text": "", "userData": call.fields["user_data"]}

    def _send(self, call: Call) -> tuple[str, Json]:
        fields: Json = {"message": call.fields["message"], "messageType": call.fields.get("type") or "text"}
        if parent := call.fields.get("parentMessageID"):
            fields["eventAttributes"] = {"general-properties": {"related-event-id": str(parent)}}
        return "sendMessage", fields

    def _typing(self, call: Call) -> tuple[str, Json]:
        position, preview = call.fields["position"], str(call.fields.get("message") or "")
        return call.operation, {"transcriptPosition": position, "message": preview}

    def _update_data(self, call: Call) -> tuple[str, Json]:
        return "updateData", {"userData": call.fields["user_data"]}

    def _custom_notice(self, call: Call) -> tuple[str, Json]:
        kept = ("message", "eventAttributes", "messageType")
        fields = {key: call.fields[key] for key in kept if key in call.fields}
        if "eventAttributes" in fields:
            fields["eventAttributes"] = _structured(fields["eventAttributes"])
        return "customNotice", fields

    def _notifications(self, call: Call) -> tuple[str, Json]:
        return "requestNotifications", {"transcriptPosition": call.fields["position"], "message": ""}

    def _disconnect(self, call: Call) -> tuple[str, Json]:
        return "disconnect", {}

    # -- answers ---------------------------------------------------------------------------------------------------

    def reply(self, call: Call, answer: HttpAnswer) -> Reply:
        """What an answer to the call means, and what was pushed with it."""
        if call.operation in FILE_OPERATIONS:
            return self._file_reply(call, answer)
        document = read_body(answer.body, answer.content_type)
        response = Response(status=answer.status, body=document.value, url=self._url)
        listed = document.value if isinstance(document.value, list) else [document.value]
        messages = [one for one in listed if isinstance(one, dict) and isinstance(one.get("channel"), str)]
        own = next((one for one in messages if self._is_own(call, one)), None)
        if answer.status != 200 and (own is None or own.get("successful") is not False):
            return self._no_bayeux(call, answer, response)
        left = [] if call.operation == "hangup" else [one for one in messages if one["channel"] == DISCONNECTED]
        if own is None and not (left and call.operation == "connect"):
            return unreadable(call, response, document.fault or f"no reply to message {call.fields['id']} - at `$`")
        advice = _advice(*([own] if own else []), *left)
        reply = self._acknowledged(call, own or {}, advice, response, hung_up=bool(left))
        link = replace(reply.link, line=answer.line)
        misread = document.misread + _no_messages(listed)
        return replace(reply, link=link, pushes=tuple(self._pushes(call, messages)), misread=misread)

    def _no_bayeux(self, call: Call, answer: HttpAnswer, response: Response) -> Reply:
        """Read a status that comes without a Bayeux refusal, from something in between."""
        if answer.status == 429:
            return Reply(verdict=Verdict.THROTTLED, response=response, retry_after=retry_after(answer))
        return refused_between(call, answer, response)

    def _is_own(self, call: Call, message: Json) -> bool:
        if "successful" not in message:
            return False
        if message.get("id") is not None and call.operation not in _CHANNELS:
            return bool(str(message["id"]) == call.fields["id"])
        return bool(message["channel"] == _CHANNELS.get(call.operation, self._channel))

    def _acknowledged(self, call: Call, own: Json, advice: Json, response: Response, *, hung_up: bool) -> Reply:
        told = Response(status=200, body=own, errors=_errors(own), url=response.url)
        verdict, timeout = _verdict(call, own, advice), _seconds(advice, "timeout")
        return Reply(
            verdict=verdict,
            response=told,
            error=None if verdict is Verdict.GOOD else TransportError(_refusal(call, verdict, told), response=told),
            link=LinkAnswer(
                client_id=str(own.get("clientId") or ""),
                timeout=None if timeout is None else min(timeout, LONGEST_HOLD),
                interval=_seconds(advice, "interval"),
                reconnect=_reconnect(advice),
                hung_up=hung_up,
            ),
        )

    def _pushes(self, call: Call, messages: list[Json]) -> list[Reply]:
        pushed = [one for one in messages if "data" in one and "successful" not in one]
        data = [one["data"] for one in pushed if one["channel"] == self._channel]
        return [gms_v2.read_envelope(replace(call, operation="push"), body, self._pushed(body)) for body in data]

    def _pushed(self, body: Any) -> Response:
        return Response(status=200, body=body, errors=errors_of(body), url=self._url)

    # -- files -----------------------------------------------------------------------------------------------------

    def _file_request(self, call: Call) -> Request:
        config = self._config
        fields: list[tuple[str, str | FilePart]] = [
            ("operation", FILE_OPERATIONS[call.operation]),
            ("secureKey", call.session_data.secure_key),
        ]
        if call.operation == "file":
            fields.append(("file", part(call)))
        elif call.operation == "download":
            fields.append(("fileId", call.fields["file_id"]))
        limit = config.file_upload_timeout if call.operation == "file" else config.ajax_timeout
        download = call.operation == "download"
        return Request(
            operation=call.operation,
            method="POST",
            url=config.comet_d.api_url,
            headers=self._headers(files=True),
            parts=tuple(fields),
            timeout=limit / 1000 if limit else None,
            max_size=config.client.max_download_size if download else config.client.max_answer_size,
        )

    def _file_reply(self, call: Call, answer: HttpAnswer) -> Reply:
        return gms_v2.read_file(call, answer, bare(self._config.comet_d.api_url))


_META: dict[str, Callable[[CometD, Call], tuple[str, Json]]] = {
    "handshake": CometD._handshake,
    "connect": CometD._connect,
    "hangup": CometD._hangup,
}

DISCONNECTED = "/meta/disconnect"
_CHANNELS = {"handshake": "/meta/handshake", "connect": "/meta/connect", "hangup": DISCONNECTED}

_OPERATIONS: dict[str, Callable[[CometD, Call], tuple[str, Json]]] = {
    "start": CometD._start,
    "send": CometD._send,
    "startTyping": CometD._typing,
    "stopTyping": CometD._typing,
    "updateData": CometD._update_data,
    "customNotice": CometD._custom_notice,
    "notifications": CometD._notifications,
    "disconnect": CometD._disconnect,
}


def _patience(call: Call, usual: float) -> float:
    """Seconds for which the answer to a Bayeux message is waited for; `usual` is ajaxTimeout."""
    left: float = call.fields.get("left", LONGEST_HOLD + CONNECT_GRACE)
    if call.operation == "hangup":
        return min(DISCONNECT_TIMEOUT, usual)
    if call.operation != "connect":
        return min(usual, left)
    hold: float | None = call.fields["hold"]
    held = float(call.fields["usual"]) if hold is None else hold
    listen: float = call.fields.get("listen", 0.0)
    return min(CONNECT_GRACE + held + listen, left)


def _structured(value: Any) -> Any:
    """A field as this wire has it: objects as they are, where REST wants their JSON text."""
    inner = object_in(value)
    return value if inner is None else inner


def _no_messages(listed: list[Any]) -> tuple[str, ...]:
    """Return the kinds of elements of an answer that are no Bayeux messages."""
    kinds = {
        lenient.kind_of(one) for one in listed if not (isinstance(one, dict) and isinstance(one.get("channel"), str))
    }
    return tuple(f"[]: expected object with a channel, got {kind}" for kind in sorted(kinds))


def _verdict(call: Call, own: Json, advice: Json) -> Verdict:
    if own.get("successful") is True and (call.operation != "handshake" or own.get("clientId")):
        return Verdict.GOOD
    again = call.operation in ("connect", "notifications") and _reconnect(advice) == "handshake"
    unknown = str(own.get("error") or "").partition(":")[0].strip() == UNKNOWN_CLIENT
    return Verdict.UNKNOWN_CLIENT if call.operation != "handshake" and (unknown or again) else Verdict.REFUSED


def _errors(own: Json) -> list[Json]:
    if own.get("successful") is not False:
        return []
    code, _, said = str(own.get("error") or "").partition("::")
    number = int(code) if code.isdecimal() and len(code) < 10 else code
    return [{"code": number, "text": said.lstrip(":") or "not successful"}]


def _refusal(call: Call, verdict: Verdict, told: Response) -> str:
    """What the gateway said to a message that it did not take."""
    said = "; ".join(f"{error['code']} {error['text']}" for error in told.errors)
    who = "the gateway does not know this client" if verdict is Verdict.UNKNOWN_CLIENT else "refused by the gateway"
    return f"{call.operation}: {who}: {said or 'no reason given'}"


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
