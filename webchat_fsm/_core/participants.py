"""The participants of a chat (agents, supervisors, bots, the user), who of them types, and the events of both.

Joins, leavings, changed nicknames and typing are read from the messages of a transcript; `read` returns the events that
a message causes, with the participants as they are after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from webchat_fsm._model import Message, Participant, milliseconds
from webchat_fsm.lifecycle._events import (
    ATTENDING,
    JOINED,
    LEFT,
    SPEAKING,
    TYPING,
    AgentTyping,
    ParticipantChanged,
    Payload,
)

Key = int | str
Mark = tuple[list[Participant], int, frozenset[Key], frozenset[Key], bool]

NO_ONE: frozenset[Key] = frozenset()
"""No participant: one set for all sessions, as an empty one takes 200 bytes."""


class AgentsSnapshot(Mapping[Key, Participant]):
    """The agents and supervisors by participant id, as they were at one moment; read at the first access.

    Each event of a join has those of its moment, and most are never read: a dict for each would take the square of the
    number of joins. `changes` is shared with later moments and only grows; `count` is how many of them had come by
    then.
    """

    __slots__ = ("_changes", "_count", "_read")

    def __init__(self, changes: list[Participant], count: int) -> None:
        self._changes, self._count = changes, count
        self._read: dict[Key, Participant] | None = None

    @property
    def _agents(self) -> dict[Key, Participant]:
        if self._read is None:
            # the latest state of each, in the order in which they joined
            self._read = {one.id: one for one in self._changes[: self._count]}
        return self._read

    def __getitem__(self, key: Key) -> Participant:
        return self._agents[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)

    def __repr__(self) -> str:
        return repr(self._agents)

    def __reduce__(self) -> tuple[type[dict[Key, Participant]], tuple[dict[Key, Participant]]]:
        return dict, (self._agents,)  # a copy needs none of the later changes


class Participants:
    """The participants of one session, read from its messages."""

    __slots__ = ("_agents", "_bots", "_changes", "_connected", "_typing", "client_left")

    def __init__(self) -> None:
        self._changes: list[Participant] = []  # each state of each agent, in order
        self._agents: dict[Key, Participant] = {}
        self._connected: dict[str, int] = {}  # how many agents of each type are connected
        self._bots: frozenset[Key] = NO_ONE
        self._typing: frozenset[Key] = NO_ONE
        self.client_left: bool = False

    def mark(self) -> Mark:
        """Return the present participants, for `back_to`."""
        # the changes only grow; the sets are replaced as a whole
        return self._changes, len(self._changes), self._bots, self._typing, self.client_left

    def back_to(self, mark: Mark) -> None:
        """Restore the participants of a mark."""
        changes, count, self._bots, self._typing, self.client_left = mark
        if self._changes is not changes or len(changes) != count:
            former = Participants()
            for agent in changes[:count]:
                former._change(agent)
            self._changes, self._agents, self._connected = former._changes, former._agents, former._connected

    @property
    def agents(self) -> dict[Key, Participant]:
        """Return agents and supervisors, present or gone, by participant id; a new dict each time."""
        return dict(self._agents)

    def clear(self) -> None:
        """Remove all participants."""
        self._forget_agents()
        self._bots = self._typing = NO_ONE
        self.client_left = False

    @property
    def connected(self) -> int:
        """Return the number of agents and supervisors who are connected."""
        return sum(self._connected.values())

    @property
    def someone_typing(self) -> bool:
        """Return whether an agent or supervisor types."""
        return bool(self._typing)

    def holds(self, kind: str) -> bool:
        """Return whether a participant of that type is connected."""
        return bool(self._bots) if kind == "Bot" else self._connected.get(kind, 0) > 0

    def is_unchanged_by(self, messages: Sequence[Message]) -> bool:
        """Return whether none of these messages changes anything or causes an event: all speak, and no one types."""
        return not self._typing and {message.type for message in messages} <= SPEAKING

    def read(self, message: Message) -> list[tuple[str, Payload]]:
        """Change the participants by a message and return the events that it causes, in order."""
        match message.type:
            case "ParticipantJoined":
                self._join(message)
                return self._changed(message, JOINED)
            case "ParticipantLeft":
                was_typing = self.someone_typing  # one who leaves stops typing without a message of it
                self._leave(message)
                return [*self._changed(message, LEFT), *self._stopped(was_typing)]
            case "NicknameUpdated":
                self._rename(message)
        if message.sender.type not in ATTENDING:
            return []
        if message.type == "TypingStarted":
            return self._start_typing(message)
        if message.type == "TypingStopped":
            return self._stop_typing(message, AgentTyping(message=message))
        # a message ends the typing of its sender, as servers announce no end then
        return self._stop_typing(message) if message.type in SPEAKING else []

    def _changed(self, message: Message, names: Mapping[str, str]) -> list[tuple[str, Payload]]:
        event = names.get(message.sender.type)
        if event is None:
            return []
        agents = AgentsSnapshot(self._changes, len(self._changes))
        return [(event, ParticipantChanged(message=message, agents=agents, num_agents_connected=self.connected))]

    def _forget_agents(self) -> None:
        # a new list, as published events and marks hold the old one
        self._changes, self._agents, self._connected = [], {}, {}

    def _change(self, agent: Participant) -> None:
        """Put an agent in place of the former state of the same one."""
        # the list first: by its length `back_to` finds a change that was interrupted half way
        self._changes.append(agent)
        before = self._agents.get(agent.id)
        if before is not None and before.connected:
            self._connected[before.type] -= 1
        if agent.connected:
            self._connected[agent.type] = self._connected.get(agent.type, 0) + 1
        self._agents[agent.id] = agent

    def _join(self, message: Message) -> None:
        sender = message.sender
        if sender.type == "Client":
            self.client_left = False  # the user has joined again
        elif sender.type == "Bot":
            self._bots |= {sender.id}
        elif sender.type in ATTENDING:
            since = milliseconds(message.timestamp)
            self._change(
                Participant(id=sender.id, name=sender.name, type=sender.type, connected=True, connected_time=since)
            )

    def _rename(self, message: Message) -> None:
        sender = message.sender
        if known := self._agents.get(sender.id):  # the user and bots are renamed too, and are not listed
            self._change(replace(known, name=sender.name))

    def _leave(self, message: Message) -> None:
        """Remove the sender, who no longer types either; an agent stays known, as disconnected."""
        sender = message.sender
        # read by the flag CLIENT_OUT: at the end of a chat `clientDisconnected` is not published twice
        self.client_left = self.client_left or sender.type == "Client"
        self._bots = self._bots - {sender.id} or NO_ONE
        self._typing = self._typing - {sender.id} or NO_ONE
        if known := self._agents.get(sender.id):
            self._change(replace(known, connected=False, disconnected_time=milliseconds(message.timestamp)))

    def _start_typing(self, message: Message) -> list[tuple[str, Payload]]:
        first = not self._typing
        self._typing |= {message.sender.id}
        return [(TYPING[message.type], AgentTyping(message=message))] if first else []

    def _stop_typing(self, message: Message, payload: AgentTyping | None = None) -> list[tuple[str, Payload]]:
        was_typing = self.someone_typing
        self._typing = self._typing - {message.sender.id} or NO_ONE
        return self._stopped(was_typing, payload)

    def _stopped(self, was_typing: bool, payload: AgentTyping | None = None) -> list[tuple[str, Payload]]:
        """Return agentTypingStopped where the last one who typed has stopped: one event for all of them."""
        return [("agentTypingStopped", payload or AgentTyping())] if was_typing and not self._typing else []

    def all_left(self, now: float) -> None:
        """Disconnect all participants at that wall-clock second, as the session is over here."""
        # this side's time, as no message of the server names one
        gone = round(now * 1000)
        for agent in self.agents.values():
            if agent.connected:
                self._change(replace(agent, connected=False, disconnected_time=gone))
        self._bots = self._typing = NO_ONE
