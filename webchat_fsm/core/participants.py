"""Who is in the chat: agents and supervisors with their times, bots, the user, and who is typing."""

from __future__ import annotations

from msgspec.structs import replace

from webchat_fsm.lifecycle.events import ATTENDING
from webchat_fsm.lifecycle.words import Message, Participant, milliseconds

Key = int | str
Mark = tuple[dict[Key, Participant], set[Key], set[Key], bool]


class Participants:
    """The people of one session, as its messages tell."""

    __slots__ = ("_agents", "_bots", "_typing", "client_left")

    def __init__(self) -> None:
        self._agents: dict[Key, Participant] = {}
        self._bots: set[Key] = set()
        self._typing: set[Key] = set()
        self.client_left = False

    def mark(self) -> Mark:
        """Return who is here, for `back_to`."""
        return self._agents, set(self._bots), set(self._typing), self.client_left

    def back_to(self, mark: Mark) -> None:
        """Restore who was here at a mark."""
        self._agents, self._bots, self._typing, self.client_left = mark

    @property
    def agents(self) -> dict[Key, Participant]:
        """Agents and supervisors, present or gone, by participant id; a new dict each time."""
        return dict(self._agents)

    def clear(self) -> None:
        """Forget everybody."""
        self._agents = {}
        self._bots.clear()
        self._typing.clear()
        self.client_left = False

    @property
    def connected(self) -> int:
        """How many agents and supervisors are connected."""
        return sum(agent.connected for agent in self._agents.values())

    @property
    def someone_typing(self) -> bool:
        """True while an agent or supervisor types."""
        return bool(self._typing)

    def holds(self, kind: str) -> bool:
        """Whether a participant of that type is connected."""
        if kind == "Bot":
            return bool(self._bots)
        return any(agent.connected and agent.type == kind for agent in self._agents.values())

    def joined(self, message: Message) -> None:
        """Take in the sender of a ParticipantJoined."""
        sender = message.sender
        if sender.type == "Client":
            self.client_left = False
        elif sender.type == "Bot":
            self._bots.add(sender.id)
        elif sender.type in ATTENDING:
            since = milliseconds(message.timestamp)
            joined = Participant(id=sender.id, name=sender.name, type=sender.type, connected=True, connected_time=since)
            self._agents = {**self._agents, sender.id: joined}

    def renamed(self, message: Message) -> None:
        """Take in the new name of an agent or supervisor."""
        sender = message.sender
        if known := self._agents.get(sender.id):
            self._agents = {**self._agents, sender.id: replace(known, name=sender.name)}

    def left(self, message: Message) -> None:
        """Let the sender of a ParticipantLeft go; who left no longer types."""
        sender = message.sender
        self.client_left = self.client_left or sender.type == "Client"
        self._bots.discard(sender.id)
        self.silent(sender.id)
        if known := self._agents.get(sender.id):
            gone = replace(known, connected=False, disconnected_time=milliseconds(message.timestamp))
            self._agents = {**self._agents, sender.id: gone}

    def all_left(self, now: float) -> None:
        """Nobody is connected any more: the session is over here, at that wall-clock second."""
        gone = round(now * 1000)
        self._agents = {
            key: replace(agent, connected=False, disconnected_time=gone) if agent.connected else agent
            for key, agent in self._agents.items()
        }
        self._bots.clear()
        self._typing.clear()

    def typing(self, key: Key) -> None:
        """Note that an agent or supervisor types."""
        self._typing.add(key)

    def silent(self, key: Key) -> None:
        """Note that an agent or supervisor no longer types."""
        self._typing.discard(key)
