"""GMS Chat API version 2 over CometD: operations are published, envelopes are pushed to all clients of the chat.

The acknowledgement of a publish says only that the gateway took it; its effect comes a moment later (`gateway_delay`).
"""

from __future__ import annotations

import re
from functools import partial

from webchat_fsm.server.bayeux import META_OPERATIONS, Bayeux, Client, Wire
from webchat_fsm.server.centre import Centre
from webchat_fsm.server.chat import Chat, Event
from webchat_fsm.server.exchange import Held, HttpAnswer, HttpRequest, Upgrade
from webchat_fsm.server.faults import Fault
from webchat_fsm.server.forms import Fields, fields_of, text_of
from webchat_fsm.server.gms import RefusedError, envelope, fault_envelope, gone_envelope, position_of, refusal_envelope
from webchat_fsm.server.gms_operations import EFFECTS, start

_CHANNEL = re.compile(r"^/service/chatV2/(?P<service>[^/]+)$")
_COMMON_NAMES = {"requestChat": "start", "sendMessage": "send"}
"""Operations that REST calls otherwise."""


class Fixed:
    """A push that was put into words when it was made."""

    def __init__(self, channel: str, data: Wire) -> None:
        self._message: Wire = {"channel": channel, "data": data}

    def render(self) -> Wire:
        """The Bayeux message."""
        return self._message


class News:
    """Events of a chat on their way to one client, gathered until they are sent."""

    def __init__(self, centre: Centre, channel: str, chat: Chat) -> None:
        self._centre = centre
        self._channel = channel
        self.chat = chat
        self.events: list[Event] = []

    def render(self) -> Wire:
        """The Bayeux message, with the state of the chat at this moment."""
        return {"channel": self._channel, "data": envelope(self._centre, self.chat, self.events)}


class CometD:
    """The CometD dialect of version 2."""

    operations = META_OPERATIONS.union(
        EFFECTS, _COMMON_NAMES, _COMMON_NAMES.values(), ("requestNotifications", "publish")
    )

    def __init__(self, centre: Centre) -> None:
        self._centre = centre
        self.bayeux = Bayeux(centre, self)
        self._attached: dict[str, dict[str, tuple[Chat, str]]] = {}
        self._audience: dict[str, dict[str, Client]] = {}
        centre.listeners.append(self._hear)

    def claims(self, path: str) -> bool:
        """Whether a path belongs to this dialect."""
        return self.bayeux.claims(path)

    def handle(self, request: HttpRequest) -> HttpAnswer | Held:
        """Answer one request, or hold it."""
        return self.bayeux.handle(request)

    def upgrade(self, request: HttpRequest) -> Upgrade | None:
        """Grant a websocket, or not; None where there is none to be had."""
        return self.bayeux.upgrade(request) if self.claims(request.path) else None

    # What the Bayeux layer asks

    def operation_names(self, message: Wire) -> tuple[str, ...]:
        """The common name of the operation, its name on this wire, and what it is to Bayeux."""
        if not _CHANNEL.match(str(message.get("channel", ""))):
            return ()
        operation = text_of(fields_of(message, "data"), "operation") or ""
        return _COMMON_NAMES.get(operation, operation), operation, "publish"

    def publish(self, client: Client, message: Wire, fault: Fault | None) -> None:
        """Have an operation done, a moment from now."""
        if fault is not None and fault.mute:
            return
        channel, fields = str(message["channel"]), fields_of(message, "data")
        work = partial(self._operate, client, channel, fields, fault)
        delay = self._centre.options.gateway_delay
        if delay:
            self._centre.agenda.note(self._centre.now + delay, lambda _now: work())
        else:
            work()

    def prepare(self, client: Client, fault: Fault | None) -> bool:
        """Put what is new into the client's queue, the end of a chat included; true if anything waits there."""
        attached = self._attached.get(client.id, {})
        if fault is not None and fault.server_status is not None:
            for chat, channel in attached.values():
                client.queue.append(Fixed(channel, fault_envelope(fault, chat, chat.next_position)))
        for chat, channel in [each for each in attached.values() if each[0].ended]:
            self._gather(client, channel, chat)
            self._detach(client, chat)
        return bool(client.queue)

    def seen(self, client: Client) -> None:
        """Keep the client's chats alive."""
        for chat, _ in self._attached.get(client.id, {}).values():
            chat.last_request = self._centre.now

    # News

    def _hear(self, chat: Chat, event: Event) -> None:
        for client in list(self._audience.get(chat.chat_id, {}).values()):
            if client.id in self.bayeux.clients:
                channel = self._attached[client.id][chat.chat_id][1]
                self._gather(client, channel, chat).events.append(event)
            else:
                self._detach(client, chat)

    def _gather(self, client: Client, channel: str, chat: Chat) -> News:
        """The envelope that events of this chat go into: the last in the queue, if it is one, or a new one."""
        last = client.queue[-1] if client.queue else None
        if isinstance(last, News) and last.chat is chat:
            return last
        news = News(self._centre, channel, chat)
        client.queue.append(news)
        return news

    def _attach(self, client: Client, channel: str, chat: Chat) -> None:
        self._attached.setdefault(client.id, {})[chat.chat_id] = (chat, channel)
        self._audience.setdefault(chat.chat_id, {})[client.id] = client

    def _detach(self, client: Client, chat: Chat) -> None:
        self._attached.get(client.id, {}).pop(chat.chat_id, None)
        self._audience.get(chat.chat_id, {}).pop(client.id, None)

    # Operations

    def _operate(self, client: Client, channel: str, fields: Fields, fault: Fault | None) -> None:
        operation = text_of(fields, "operation") or ""
        chat = self._centre.by_key(text_of(fields, "secureKey"))
        try:
            if fault is None or fault.happens:
                self._perform(operation, client, channel, chat, fields)
            if fault is not None and fault.server_status is not None:
                client.queue.append(Fixed(channel, fault_envelope(fault, chat, position_of(fields))))
        except RefusedError as refusal:
            client.queue.append(Fixed(channel, refusal_envelope(chat, refusal)))

    def _perform(self, operation: str, client: Client, channel: str, chat: Chat | None, fields: Fields) -> None:
        service = channel.rpartition("/")[2]
        if operation == "requestChat":
            self._request_chat(client, channel, service, fields)
        elif chat is None or chat.sealed or chat.service != service:
            client.queue.append(Fixed(channel, self._gone(fields)))
        elif operation in ("requestNotifications", "refresh"):
            self._show(operation, client, channel, chat, fields)
        elif chat.ended:
            client.queue.append(Fixed(channel, self._gone(fields)))
        else:
            self._affect(operation, client, channel, chat, fields)

    def _request_chat(self, client: Client, channel: str, service: str, fields: Fields) -> None:
        if not self._centre.knows_service(service):
            raise RefusedError(306)
        chat = start(self._centre, service, fields)
        self._attach(client, channel, chat)
        self._gather(client, channel, chat).events.extend(chat.transcript)

    def _show(self, operation: str, client: Client, channel: str, chat: Chat, fields: Fields) -> None:
        """Push the transcript from a position, where 0 and none mean all; on an ended chat for the last time."""
        chat.last_request = self._centre.now
        position = position_of(fields)
        events = chat.since(position or None)
        chat.sealed = chat.ended
        if operation == "requestNotifications" and not chat.ended:
            self._attach(client, channel, chat)
        else:
            EFFECTS["refresh"](self._centre, chat, fields)
        client.queue.append(Fixed(channel, envelope(self._centre, chat, events)))

    def _affect(self, operation: str, client: Client, channel: str, chat: Chat, fields: Fields) -> None:
        effect = EFFECTS.get(_COMMON_NAMES.get(operation, operation))
        if effect is None:
            raise RefusedError(100, f"unknown operation {operation}")
        chat.last_request = self._centre.now
        if operation == "disconnect" and not self._centre.options.tell_leaver:
            self._detach(client, chat)
        effect(self._centre, chat, fields)
        if operation == "updateData":
            self._gather(client, channel, chat)

    def _gone(self, fields: Fields) -> Wire:
        return gone_envelope(text_of(fields, "chatId") or "", len(self._centre.requests))
