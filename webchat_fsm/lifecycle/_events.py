"""The 29 events of the reference: their payloads, the transports that have them, and what they mean.

In the Python API a payload is one of the structs below, or None for an event without data; on the bus it is a dict
with the documented camelCase keys, which `item` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from webchat_fsm._model import Json, Message, Participant, Response, SessionData, copy_original
from webchat_fsm.lifecycle._transports import Transport


class Restored(Struct, frozen=True, kw_only=True):
    """Payload of `restored`: whether the chat was restored in asynchronous mode.

    `missing` counts the messages between what was delivered before and what this restore brings, 0 for none; None where
    the count is unknown. `fetch_history` brings them on v3-async.
    """

    is_async: bool = False
    missing: int | None = 0

    def item(self, transport: Transport) -> Json:
        """Return the documented ``{async: bool}``, on v3-async with `missing` (null: unknown)."""
        # the reference has `async` alone; `missing` is ours, and only on v3-async can the user fetch what is missing
        return {"async": self.is_async, **({"missing": self.missing} if transport.asynchronous else {})}


class RestoreFailed(Struct, frozen=True, kw_only=True):
    """Payload of `restoreFailed`: the server's answer, None where there was none."""

    response: Response | None = None

    def item(self, transport: Transport) -> Json:
        """Return the response, or an empty object."""
        return {} if self.response is None else self.response.item()


class MessageReceived(Struct, frozen=True, kw_only=True):
    """Payload of `messageReceived`: the new messages of one answer, in order.

    `original_messages` holds the original of each message on the wire, an object or any value in its place; `restoring`
    is true for messages of a restore, `old_messages` for history; `idle_time_count_down` the seconds to the idle
    close, where a v2 server sent them.
    """

    messages: tuple[Message, ...]
    original_messages: tuple[Any, ...]
    restoring: bool = False
    session_data: SessionData = field(default_factory=SessionData)
    old_messages: bool = False
    idle_time_count_down: int | None = None

    def __hash__(self) -> int:
        return hash((self.messages, self.restoring, self.old_messages))  # originals may be dicts, which have no hash

    def item(self, transport: Transport) -> Json:
        """Return the documented object, with `oldMessages` and `idleTimeCountDown` as the vendor's client has them."""
        item: Json = {
            "originalMessages": [copy_original(original) for original in self.original_messages],
            "messages": [message.item() for message in self.messages],
            "restoring": self.restoring,
            "sessionData": self.session_data.item(transport),
            "oldMessages": self.old_messages,
        }
        if self.idle_time_count_down is not None:
            item["idleTimeCountDown"] = self.idle_time_count_down
        return item


class Failure(Struct, frozen=True, kw_only=True):
    """Payload of `error`: the server's answer, or the fault that prevented one."""

    response: Response

    def item(self, transport: Transport) -> Json:
        """Return the response on v2; on v3 ``{errors: [...]}`` with the response inside."""
        if transport.gms:
            return self.response.item()
        errors = [{**error, "response": self.response.item()} for error in self.response.errors]
        # an answer without errors of its own, as one of a proxy, still is one error
        return {"errors": errors or [self.response.item()]}


class Started(Struct, frozen=True, kw_only=True):
    """Payload of `started`: the data of the new session."""

    session_data: SessionData

    def item(self, transport: Transport) -> Json:
        """Return the session data on v2, wrapped as ``{data: ...}`` on v3."""
        item = self.session_data.item(transport)
        return item if transport.gms else {"data": item}


class AgentTyping(Struct, frozen=True, kw_only=True):
    """Payload of `agentTypingStarted` and `agentTypingStopped`: the typing message; None when a stop is implied."""

    message: Message | None = None

    def item(self, transport: Transport) -> Json:
        """Return the message, or an empty object."""
        return {} if self.message is None else self.message.item()


class ParticipantChanged(Struct, frozen=True, kw_only=True):
    """Payload of the `...Connected` and `...Disconnected` events.

    `message` is the one that announced it, None at an endChat; `agents` are the agents and supervisors by id, as they
    were after it; `num_agents_connected` counts those of them who are connected.
    """

    message: Message | None = None
    agents: Mapping[int | str, Participant] = field(default_factory=dict)
    num_agents_connected: int = 0

    def __hash__(self) -> int:
        return hash((self.message, self.num_agents_connected))  # the mapping of agents has no hash

    def item(self, transport: Transport) -> Json:
        """Return the documented object; an endChat has no message."""
        # keys as text: on the bus it is a JSON object, and v2 has numbers as ids
        agents = {str(key): agent.item() for key, agent in self.agents.items()}
        item: Json = {"agents": agents, "numAgentsConnected": self.num_agents_connected}
        return item if self.message is None else {"message": self.message.item(), **item}


Payload = Restored | RestoreFailed | MessageReceived | Failure | Started | AgentTyping | ParticipantChanged


class Event(Struct, frozen=True):
    """One documented event: its payload struct (None: no data), the transports that have it, when it comes."""

    name: str
    payload: type[Payload] | None
    transports: frozenset[Transport]
    meaning: str

    @property
    def from_messages(self) -> bool:
        """Return whether a message publishes it, just before the `messageReceived` that contains the message."""
        return self.name in _OF_MESSAGES


ALL = frozenset(Transport)
GMS = frozenset(transport for transport in Transport if transport.gms)
# an event that a transport does not have is never published on it, so that a row can be shared
POLLED = frozenset(transport for transport in Transport if transport.polls)

_OFFLINE = "more polls in a row failed than pollExceptionLimit"

EVENTS: dict[str, Event] = {
    event.name: event
    for event in (
        Event("ready", None, ALL, "initialised and ready for commands; replayed to late subscribers"),
        Event(
            "restored",
            Restored,
            ALL,
            "a saved session is open again; `missing` reports what was not fetched",
        ),
        Event("restoreTimeout", None, GMS, "the saved session is older than restoreTimeout, or was found ended"),
        Event("restoreFailed", RestoreFailed, ALL, "the saved session could not be resumed"),
        Event("restoredOffline", None, GMS, "restored, but the chat server is offline"),
        Event("messageReceived", MessageReceived, ALL, "new messages, after the events that they caused"),
        Event("error", Failure, ALL, "a poll, restore or start was answered badly, or the session was lost"),
        Event("started", Started, ALL, "the server has confirmed the start"),
        Event("ended", None, ALL, "the session is over"),
        Event("agentTypingStarted", AgentTyping, ALL, "an agent or supervisor has started typing"),
        Event("agentTypingStopped", AgentTyping, ALL, "the last typing one stopped, spoke or left"),
        Event("pollingStarted", None, POLLED, "automatic polling is on"),
        Event("pollingStopped", None, POLLED, "automatic polling is off"),
        Event("clientConnected", ParticipantChanged, ALL, "the user has joined"),
        Event("clientDisconnected", ParticipantChanged, ALL, "the user has left"),
        Event("agentConnected", ParticipantChanged, ALL, "an agent has joined"),
        Event("agentDisconnected", ParticipantChanged, ALL, "an agent has left"),
        Event("supervisorConnected", ParticipantChanged, ALL, "a supervisor has joined"),
        Event("supervisorDisconnected", ParticipantChanged, ALL, "a supervisor has left"),
        Event("botConnected", ParticipantChanged, GMS, "a bot has joined"),
        Event("botDisconnected", ParticipantChanged, GMS, "a bot has left"),
        Event("clientTypingStarted", None, ALL, "the user has started typing"),
        Event("clientTypingStopped", None, ALL, "the user has stopped typing, or sent the message"),
        Event("disconnected", None, ALL, "a request had no complete answer: there is no connection"),
        Event("reconnected", None, ALL, "the connection is back"),
        Event("chatServerWentOffline", None, GMS, _OFFLINE),
        Event("chatServerBackOnline", None, GMS, "the chat server answers again"),
        Event("connectionPending", None, GMS, "polls have begun to fail; it is being tried again"),
        Event("connectionRestored", None, GMS, "polls succeed again after connectionPending"),
    )
}

JOINED = {
    "Client": "clientConnected",
    "Agent": "agentConnected",
    "Supervisor": "supervisorConnected",
    "Bot": "botConnected",
}
"""What a ParticipantJoined publishes, by the type of its sender; others (External) come and go in silence."""

LEFT = {kind: name.replace("Connected", "Disconnected") for kind, name in JOINED.items()}
"""What a ParticipantLeft publishes, by the type of its sender."""

TYPING = {"TypingStarted": "agentTypingStarted", "TypingStopped": "agentTypingStopped"}
"""What typing messages of agents and supervisors publish; own echoes are delivered as messages only."""

_OF_MESSAGES = frozenset({*JOINED.values(), *LEFT.values(), *TYPING.values()})

SPEAKING = frozenset({"Message", "PushUrl", "Notice"})
"""Messages that end the typing of the agent or supervisor who sends them."""

ATTENDING = frozenset({"Agent", "Supervisor"})
"""Participant types that count as agents."""
