"""GMS Chat API version 2 over CometD: operations are published, envelopes are pushed to all clients of the chat.

A publish is acknowledged before its operation is performed, which follows after `ServerOptions.gateway_delay` seconds.
"""

from __future__ import annotations

import re
from functools import partial

from webchat_fsm.server._bayeux import META_OPERATIONS, BayeuxClient, BayeuxServer, Wire
from webchat_fsm.server._chat import Chat, ServerEvent
from webchat_fsm.server._faults import Fault
from webchat_fsm.server._gms import (
    EFFECTS,
    GmsRefusedError,
    envelope,
    fault_envelope,
    gone_envelope,
    position_of,
    refusal_envelope,
    start,
)
from webchat_fsm.server._http import Fields, Held, HttpRequest, ServerAnswer, Upgrade, fields_of, text_of
from webchat_fsm.server._state import ServerState

_CHANNEL = re.compile(r"^/service/chatV2/(?P<service>[^/]+)$")
_COMMON_NAMES = {"requestChat": "start", "sendMessage": "send"}
"""Names of operations on this wire that differ from those of REST, with the latter."""


class FixedEnvelope:
    """A push whose data are fixed when it is queued, such as the answer to one operation."""

    def __init__(self, channel: str, data: Wire) -> None:
        self._message: Wire = {"channel": channel, "data": data}

    def render(self) -> Wire:
        """Return the Bayeux message."""
        return self._message


class EventEnvelope:
    """Events of a chat for one client, collected until they are sent."""

    def __init__(self, state: ServerState, channel: str, chat: Chat) -> None:
        self._state = state
        self._channel = channel
        self.chat = chat
        self.events: list[ServerEvent] = []

    def render(self) -> Wire:
        """Return the Bayeux message, with the state of the chat at this moment."""
        return {"channel": self._channel, "data": envelope(self._state, self.chat, self.events)}


class CometDDialect:
    """Performs published operations of version 2, and pushes envelopes to the clients attached to a chat."""

    operations = META_OPERATIONS.union(
        EFFECTS, _COMMON_NAMES, _COMMON_NAMES.values(), ("requestNotifications", "publish")
    )

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.bayeux = BayeuxServer(state, self)
        self._attached: dict[str, dict[str, tuple[Chat, str]]] = {}
        self._audience: dict[str, dict[str, BayeuxClient]] = {}
        state.listeners.append(self._on_event)

    def claims(self, path: str) -> bool:
        """Return whether a path is that of the Bayeux gateway."""
        return self.bayeux.claims(path)

    def handle(self, request: HttpRequest) -> ServerAnswer | Held:
        """Answer the Bayeux messages of one request, or hold the connect among them."""
        return self.bayeux.handle(request)

    def upgrade(self, request: HttpRequest) -> Upgrade | None:
        """Grant a websocket, or not; None where there is none to be had."""
        return self.bayeux.upgrade(request) if self.claims(request.path) else None

    # Called by the Bayeux layer

    def operation_names(self, message: Wire) -> tuple[str, ...]:
        """Return the common name of the operation, its name on this wire, and what it is to Bayeux."""
        if not _CHANNEL.match(str(message.get("channel", ""))):
            return ()
        operation = text_of(fields_of(message, "data"), "operation") or ""
        # A fault may name any of the three.
        return _COMMON_NAMES.get(operation, operation), operation, "publish"

    def publish(self, client: BayeuxClient, message: Wire, fault: Fault | None) -> None:
        """Schedule a published operation after the gateway delay."""
        if fault is not None and fault.mute:
            return
        channel, fields = str(message["channel"]), fields_of(message, "data")
        work = partial(self._operate, client, channel, fields, fault)
        # Without a delay at once, so that with `push_with_publish` the answer to the publish has the effect in it.
        delay = self._state.options.gateway_delay
        if delay:
            self._state.schedule.add(self._state.now + delay, lambda _now: work())
        else:
            work()

    def prepare(self, client: BayeuxClient, fault: Fault | None) -> bool:
        """Put what is new into the client's queue, the end of a chat included; true if anything waits there."""
        attached = self._attached.get(client.id, {})
        if fault is not None and fault.server_status is not None:
            for chat, channel in attached.values():
                client.queue.append(FixedEnvelope(channel, fault_envelope(fault, chat, chat.next_position)))
        # The end has no event of its own: without an envelope for it a client would not learn of it.
        for chat, channel in [each for each in attached.values() if each[0].ended]:
            self._pending_envelope(client, channel, chat)
            self._detach(client, chat)
        return bool(client.queue)

    def seen(self, client: BayeuxClient) -> None:
        """Restart the liveness timers of the chats that a client is attached to."""
        for chat, _ in self._attached.get(client.id, {}).values():
            chat.last_request = self._state.now

    # Events

    def _on_event(self, chat: Chat, event: ServerEvent) -> None:
        # Copied, as detaching changes the original.
        for client in list(self._audience.get(chat.chat_id, {}).values()):
            if client.id in self.bayeux.clients:
                channel = self._attached[client.id][chat.chat_id][1]
                self._pending_envelope(client, channel, chat).events.append(event)
            else:
                # The Bayeux layer removes clients without notice, so their attachments go with the next event.
                self._detach(client, chat)

    def _pending_envelope(self, client: BayeuxClient, channel: str, chat: Chat) -> EventEnvelope:
        """Return the envelope that events of this chat go into: the last in the queue, if it is one, or a new one."""
        # Only the last: an event put into an earlier one would overtake what was queued in between.
        last = client.queue[-1] if client.queue else None
        if isinstance(last, EventEnvelope) and last.chat is chat:
            return last
        pending = EventEnvelope(self._state, channel, chat)
        client.queue.append(pending)
        return pending

    def _attach(self, client: BayeuxClient, channel: str, chat: Chat) -> None:
        # Kept in both directions: a client is asked for its chats, and an event for its clients.
        self._attached.setdefault(client.id, {})[chat.chat_id] = (chat, channel)
        self._audience.setdefault(chat.chat_id, {})[client.id] = client

    def _detach(self, client: BayeuxClient, chat: Chat) -> None:
        self._attached.get(client.id, {}).pop(chat.chat_id, None)
        self._audience.get(chat.chat_id, {}).pop(client.id, None)

    # Operations

    def _operate(self, client: BayeuxClient, channel: str, fields: Fields, fault: Fault | None) -> None:
        operation = text_of(fields, "operation") or ""
        chat = self._state.by_key(text_of(fields, "secureKey"))
        try:
            # The effect comes first, so that the envelope of a fault shows the chat after it.
            if fault is None or fault.happens:
                self._perform(operation, client, channel, chat, fields)
            if fault is not None and fault.server_status is not None:
                client.queue.append(FixedEnvelope(channel, fault_envelope(fault, chat, position_of(fields))))
        except GmsRefusedError as refusal:
            client.queue.append(FixedEnvelope(channel, refusal_envelope(chat, refusal)))

    def _perform(self, operation: str, client: BayeuxClient, channel: str, chat: Chat | None, fields: Fields) -> None:
        service = channel.rpartition("/")[2]
        if operation == "requestChat":
            self._request_chat(client, channel, service, fields)
        elif chat is None or chat.sealed or chat.service != service:
            # A key of another service answers like a wrong one: it must not show that the chat exists.
            client.queue.append(FixedEnvelope(channel, self._gone_envelope(fields)))
        elif operation in ("requestNotifications", "refresh"):
            self._push_transcript(operation, client, channel, chat, fields)
        elif chat.ended:
            client.queue.append(FixedEnvelope(channel, self._gone_envelope(fields)))
        else:
            self._apply(operation, client, channel, chat, fields)

    def _request_chat(self, client: BayeuxClient, channel: str, service: str, fields: Fields) -> None:
        if not self._state.has_service(service):
            raise GmsRefusedError(306)
        # Attached only after the start, so the events until then are queued by hand.
        chat = start(self._state, service, fields)
        self._attach(client, channel, chat)
        self._pending_envelope(client, channel, chat).events.extend(chat.transcript)

    def _push_transcript(self, operation: str, client: BayeuxClient, channel: str, chat: Chat, fields: Fields) -> None:
        """Push the transcript from a position, where 0 and none mean all; on an ended chat for the last time."""
        chat.last_request = self._state.now
        position = position_of(fields)
        events = chat.since(position or None)
        # An ended chat is shown once more; after that it answers like an unknown one.
        chat.sealed = chat.ended
        if operation == "requestNotifications" and not chat.ended:
            self._attach(client, channel, chat)
        else:
            EFFECTS["refresh"](self._state, chat, fields)
        client.queue.append(FixedEnvelope(channel, envelope(self._state, chat, events)))

    def _apply(self, operation: str, client: BayeuxClient, channel: str, chat: Chat, fields: Fields) -> None:
        effect = EFFECTS.get(_COMMON_NAMES.get(operation, operation))
        if effect is None:
            raise GmsRefusedError(100, f"unknown operation {operation}")
        chat.last_request = self._state.now
        # Before the effect, which would push the client its own ParticipantLeft.
        if operation == "disconnect" and not self._state.options.notify_leaver:
            self._detach(client, chat)
        effect(self._state, chat, fields)
        # It leaves no event, so an empty envelope is the only sign that it has been carried out.
        if operation == "updateData":
            self._pending_envelope(client, channel, chat)

    def _gone_envelope(self, fields: Fields) -> Wire:
        return gone_envelope(text_of(fields, "chatId") or "", len(self._state.requests))
